"""Cells from the network's maps: the detector gives their number and positions, the saliency their extent.

After Sailem et al. (ICCV Workshops 2017), who smooth the saliency with a Gaussian, keep local maxima and threshold.
Nothing here needs the network itself, so that Dask's workers do not load torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.spatial import KDTree

from wscnn.core.wells import SALIENCY
from wscnn.plates.store import Plate
from wscnn.staging.cell_measures import OutlinedCells
from wscnn.staging.regions import measures

#: Columns of the table of objects of one field: centroid, half-open box, area and peak of the detector.
COLUMNS = ["y", "x", "y0", "x0", "y1", "x1", "area_px", "score"]

# Neighbours of a position (map, row, column): the eight in its own map.
_IN_A_MAP = np.zeros((3, 3, 3), bool)
_IN_A_MAP[1] = True


@dataclass(frozen=True)
class Extent:
    """How far objects reach, in pixels of the images.

    Attributes
    ----------
    distance
        Of two maxima of the detector that are closer than this along both axes, only the higher one is an object.
    reach
        An object's pixels lie no farther than this from its maximum, along both axes.
    sigma
        Standard deviation of the Gaussian that smooths the saliency.
    fraction
        An object is where the smoothed saliency is at least this fraction of its highest value there.
    """

    distance: float
    reach: float
    sigma: float
    fraction: float


def extent(receptive_field: int, settings: dict[str, Any]) -> Extent:
    """Return the config's section ``score`` as lengths.

    A position of the detector sees `receptive_field` pixels. It may be a maximum with the object's centre well off its
    own, so objects may reach beyond half of that: three quarters. The minimum distance of two objects is a quarter,
    where settings do not give it.
    """
    distance = settings["min_distance_px"]
    return Extent(
        distance=receptive_field / 4 if distance is None else distance,
        reach=0.75 * receptive_field,
        sigma=settings["sigma_px"],
        fraction=settings["mask_fraction"],
    )


def find_objects(
    detector: np.ndarray, gradient: np.ndarray, threshold: float, stride: int, extent: Extent
) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Return the objects of one phenotype in one field.

    Each local maximum of the detector above the threshold is an object. Its pixels are those nearer to it than to any
    other, within reach, where the smoothed saliency is at least a fraction of its highest value there: of these the
    piece that holds that highest value, holes filled.

    Parameters
    ----------
    detector
        Shape (h', w'), as from `saliency`.
    gradient
        Shape (h, w), as from `saliency`.
    threshold
        The detector's value above which a position belongs to an object.
    stride
        Pixels between two positions of the detector.
    extent
        How far objects reach.

    Returns
    -------
    labels
        Shape (h, w), uint32: 0 or the object's number, which is its row in the table, counted from 1.
    smooth
        The smoothed saliency, shape (h, w).
    objects
        `COLUMNS`, in pixels of the field, sorted by position.
    """
    [positions] = _maxima(detector[None], threshold, _radius(stride, extent))
    labels, smooth, measures = _outlined(positions, detector, gradient, stride, extent)
    return labels, smooth, pd.DataFrame(measures, columns=COLUMNS)


def _of_cells(cells: OutlinedCells, detector: np.ndarray, threshold: float) -> np.ndarray:
    """Return the highest position of each of the cells of a field that is above the threshold, (n, 2)."""
    numbers = np.unique(cells.regions[(cells.regions > 0) & (detector > threshold)])
    if not len(numbers):
        return np.empty((0, 2), int)
    return np.array(ndimage.maximum_position(detector, cells.regions, numbers), int)


def _outlined(
    positions: np.ndarray,
    detector: np.ndarray,
    gradient: np.ndarray,
    stride: int,
    extent: Extent,
    cells: OutlinedCells | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the same as `find_objects` for the objects at `positions` (n, 2) of the detector; the table as an array.

    With `cells`, an object is the cell whose region holds its position.
    """
    labels = np.zeros(gradient.shape, np.uint32)
    smooth = _smoothed(gradient, extent.sigma) if len(positions) else np.zeros_like(gradient)
    centres = (positions + 0.5) * stride - 0.5
    rows: list[list[float]] = []
    boxes = [] if cells is None else ndimage.find_objects(cells.outlines.astype(np.int32))
    for number, (position, centre) in enumerate(zip(positions, centres, strict=True), 1):
        if cells is None:
            window, mask = _mask(smooth, centre, np.delete(centres, number - 1, 0), stride, extent)
        else:
            cell = cells.regions[tuple(position)]
            window = (boxes[cell - 1][0], boxes[cell - 1][1])
            mask = cells.outlines[window] == cell
        labels[window][mask] = number
        rows.append([*measures(window, mask), detector[tuple(position)]])
    return labels, smooth, np.array(rows, dtype=float).reshape(-1, len(COLUMNS))


def _smoothed(gradient: np.ndarray, sigma: float) -> np.ndarray:
    """Return what `scipy.ndimage.gaussian_filter` returns, computed only in rows and columns that are not empty."""
    smooth = np.zeros_like(gradient)
    columns = np.flatnonzero(gradient.any(0))
    along_y = ndimage.gaussian_filter(gradient[:, columns], (sigma, 0))
    rows = np.flatnonzero(along_y.any(1))
    strips = np.zeros((len(rows), gradient.shape[1]), gradient.dtype)
    strips[:, columns] = along_y[rows]
    smooth[rows] = ndimage.gaussian_filter(strips, (0, sigma))
    return smooth


def write_masks(
    plate: Plate,
    well: str,
    fields: np.ndarray,
    shape: tuple[int, int],
    maps: np.ndarray,
    gradients: np.ndarray,
    thresholds: Mapping[str, float],
    stride: int,
    extent: Extent,
    cells: Sequence[OutlinedCells] | None = None,
) -> dict[str, np.ndarray]:
    """Find the objects of a well, write them and the saliency as labels, and return their table.

    The labels are ``<phenotype>`` (uint32, objects by number) and ``<phenotype>_saliency`` (uint8, 255 is the field's
    highest value, 0 where the field has no object).

    An object that the seam of two fields cuts is found in both; of two maxima that are too close across a seam between
    fields that touch by their stage positions, the higher one is kept.

    Parameters
    ----------
    plate, well
        Where the labels go.
    fields
        One row per scored field, n in all, with columns by name (a structured array): ``field``, ``y, x`` in pixels of
        the mosaic and ``y_um, x_um``, the stage positions, NaN where not known.
    shape
        Height and width of the mosaic.
    maps, gradients
        Shapes (n, P, h', w') and (n, P, h, w), as from `wscnn.network.saliency.saliency`.
    thresholds
        For each of the P phenotypes, by name and in their order.
    stride, extent
        As for `find_objects`.
    cells
        For a detector of cells, those of each field: an object is then a whole cell, where the
        highest of its positions is above the threshold. Otherwise an object is a maximum of the detector, and the
        saliency gives its extent.

    Returns
    -------
    dict
        The columns of `wscnn.core.tables.OBJECTS` but ``plate`` and ``well``, by name, in pixels of the mosaic; rows by
        phenotype and number.
    """
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("field", "phenotype", "object", *COLUMNS)}
    corners = np.stack([fields["y"], fields["x"]], axis=1)
    for p, (phenotype, threshold) in enumerate(thresholds.items()):
        masks, layer = np.zeros(shape, np.uint32), np.zeros(shape, np.uint8)
        if cells is None:
            positions = _maxima(maps[:, p], threshold, _radius(stride, extent))
        else:
            positions = [_of_cells(*pair, threshold) for pair in zip(cells, maps[:, p], strict=True)]
        positions = _suppress_across_seams(positions, maps[:, p], fields, plate.pixel_size_um, stride, extent)
        counts = [len(own) for own in positions]
        found = [np.empty((0, len(COLUMNS)))]
        n = 0
        for at in np.flatnonzero(counts):
            labels, smooth, objects = _outlined(
                positions[at], maps[at, p], gradients[at, p], stride, extent, None if cells is None else cells[int(at)]
            )
            top, left = corners[at]
            box = np.s_[top : top + labels.shape[0], left : left + labels.shape[1]]
            masks[box] = np.where(labels > 0, labels + n, 0)
            layer[box] = np.rint(smooth * (255 / (smooth.max() or 1)))
            objects[:, :6] += np.tile(corners[at], 3)
            found.append(objects)
            n += len(objects)
        plate.write_labels(well, {phenotype: masks, phenotype + SALIENCY: layer})
        columns["field"].append(np.repeat(fields["field"], counts))
        columns["phenotype"].append(np.full(n, phenotype, object))
        columns["object"].append(np.arange(1, n + 1))
        for name, values in zip(COLUMNS, np.concatenate(found).T, strict=True):
            columns[name].append(values)
    return {name: np.concatenate(parts) for name, parts in columns.items()}


def _radius(stride: int, extent: Extent) -> int:
    """Return the radius, in positions of the detector, within which only the highest maximum is an object."""
    return max(1, round(extent.distance / stride))


def _suppress_across_seams(
    positions: Sequence[np.ndarray],
    maps: np.ndarray,
    fields: np.ndarray,
    pixel_size_um: float | None,
    stride: int,
    extent: Extent,
) -> list[np.ndarray]:
    """Return each field's positions without those close to a higher one in an adjacent field.

    Two fields that are adjacent in the mosaic are adjacent in the well, too, if their stage positions are the same
    distance apart. Where stage positions are not known, nothing is left out.
    """
    near = (_radius(stride, extent) + 0.5) * stride
    pixel = np.nan if pixel_size_um is None else pixel_size_um
    corners = np.stack([fields["y"], fields["x"]], axis=1)
    # The same for fields that are placed in the mosaic as they were in the well.
    moved = corners - np.stack([fields["y_um"], fields["x_um"]], axis=1) / pixel
    counts = [len(own) for own in positions]
    field = np.repeat(np.arange(len(positions)), counts)
    row, column = np.concatenate(positions).T
    score = maps[field, row, column]
    at = np.stack([row, column], axis=1) * stride + corners[field]
    pairs = np.sort(KDTree(at).query_pairs(near, p=np.inf, output_type="ndarray"), axis=1)
    one, other = field[pairs].T
    first, second = pairs[(one != other) & (np.abs(moved[one] - moved[other]) <= near).all(axis=1)].T
    keep = np.ones(len(field), bool)
    # Of two equally high ones the first is kept.
    keep[np.where(score[first] < score[second], first, second)] = False
    return [own[kept] for own, kept in zip(positions, np.split(keep, np.cumsum(counts)[:-1]), strict=True)]


def _maxima(maps: np.ndarray, threshold: float, radius: int) -> list[np.ndarray]:
    """Return row and column of each map's maxima above the threshold, suppressing those within `radius` positions.

    Maps have shape (n, h', w'); all are searched at once, which costs little more than one.
    """
    highest = ndimage.maximum_filter(maps, (1, 2 * radius + 1, 2 * radius + 1), mode="nearest")
    pieces, n = ndimage.label((maps == highest) & (maps > threshold), _IN_A_MAP)
    at, piece = np.argwhere(pieces), pieces[pieces > 0] - 1
    # A plateau is one maximum: the position in its middle.
    sizes = np.bincount(piece, minlength=n)
    middles = np.stack([np.bincount(piece, axis, n) / sizes for axis in at.T], axis=1)
    positions = np.rint(middles).astype(int)
    return [positions[positions[:, 0] == field, 1:] for field in range(len(maps))]


def _mask(
    smooth: np.ndarray, centre: np.ndarray, others: np.ndarray, stride: int, extent: Extent
) -> tuple[tuple[slice, slice], np.ndarray]:
    """Return the window around `centre` and the object's mask in it."""
    low = np.maximum(np.ceil(centre - extent.reach), 0).astype(int)
    high = np.minimum(np.floor(centre + extent.reach) + 1, smooth.shape).astype(int)
    window = (slice(low[0], high[0]), slice(low[1], high[1]))
    y, x = np.ogrid[window]
    own = np.ones(tuple(high - low), bool)
    distance = (y - centre[0]) ** 2 + (x - centre[1]) ** 2
    for other in others[(np.abs(others - centre) <= 2 * extent.reach).all(1)]:
        own &= distance < (y - other[0]) ** 2 + (x - other[1]) ** 2
    values = np.where(own, smooth[window], 0)
    peak = np.unravel_index(values.argmax(), values.shape)
    if values[peak] == 0:
        # A detector that is flat here (for instance, by its bias alone) has no gradient: only the position itself is
        # known.
        return window, (np.abs(y - centre[0]) < stride / 2) & (np.abs(x - centre[1]) < stride / 2)
    pieces, _ = ndimage.label(values >= extent.fraction * values[peak])
    return window, ndimage.binary_fill_holes(pieces == pieces[peak]) & own
