"""Cells from the network's maps: the detector says how many and where, the saliency how far each reaches.

After Sailem et al. (ICCV Workshops 2017), who smooth the saliency with a Gaussian, keep local maxima and threshold.
Nothing here needs the network itself, so that Dask's workers do without it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage

from wscnn.store import Plate
from wscnn.tables import OBJECTS, conform

#: Columns of the table of objects of one field: centroid, half-open box, area and peak of the detector.
COLUMNS = ["y", "x", "y0", "x0", "y1", "x1", "area_px", "score"]


@dataclass(frozen=True)
class Extent:
    """How far objects reach, in pixels of the images.

    Attributes
    ----------
    distance
        Of two maxima of the detector nearer than this, along both axes, only the higher one is an object.
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

    A place of the detector sees `receptive_field` pixels, so its object lies within half of that. Where
    settings do not say how near two objects may be, it is a quarter of it.
    """
    distance = settings["min_distance_px"]
    return Extent(
        distance=receptive_field / 4 if distance is None else distance,
        reach=receptive_field / 2,
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
        The detector's value above which a place belongs to an object.
    stride
        Pixels between two places of the detector.
    extent
        How far objects reach.

    Returns
    -------
    labels
        Shape (h, w), uint32: 0 or the object's number, which is its row in the table, counted from 1.
    smooth
        The smoothed saliency, shape (h, w).
    objects
        `COLUMNS`, in pixels of the field, sorted by place.
    """
    labels = np.zeros(gradient.shape, np.uint32)
    places = _maxima(detector, threshold, extent.distance / stride)
    smooth = ndimage.gaussian_filter(gradient, extent.sigma) if len(places) else np.zeros_like(gradient)
    centres = (places + 0.5) * stride - 0.5
    rows: list[list[float]] = []
    for number, centre in enumerate(centres, 1):
        window, mask = _mask(smooth, centre, np.delete(centres, number - 1, 0), stride, extent)
        labels[window][mask] = number
        rows.append([*_measures(window, mask), detector[tuple(places[number - 1])]])
    return labels, smooth, pd.DataFrame(np.array(rows, dtype=float).reshape(-1, len(COLUMNS)), columns=COLUMNS)


def write_masks(
    plate: Plate,
    well: str,
    fields: pd.DataFrame,
    shape: tuple[int, int],
    maps: np.ndarray,
    gradients: np.ndarray,
    thresholds: Mapping[str, float],
    stride: int,
    extent: Extent,
) -> pd.DataFrame:
    """Find the objects of a well, write them and the saliency as labels, and return their table.

    The labels are ``<phenotype>`` (uint32, objects by number) and ``<phenotype>_saliency`` (uint8, 255 is the field's
    highest value, 0 where the field has no object).

    Parameters
    ----------
    plate, well
        Where the labels go.
    fields
        A row for each of the n fields that were scored: ``field, y, x`` in pixels of the mosaic.
    shape
        Height and width of the mosaic.
    maps, gradients
        Shapes (n, P, h', w') and (n, P, h, w), as from `wscnn.saliency.saliency`.
    thresholds
        For each of the P phenotypes, by name and in their order.
    stride, extent
        As for `find_objects`.

    Returns
    -------
    pd.DataFrame
        The columns of `wscnn.tables.OBJECTS`, in pixels of the mosaic, by phenotype and number.
    """
    tables = []
    corners = fields[["y", "x"]].to_numpy()
    for p, (phenotype, threshold) in enumerate(thresholds.items()):
        masks, layer = np.zeros(shape, np.uint32), np.zeros(shape, np.uint8)
        found = []
        n = 0
        for (top, left), detector, gradient in zip(corners.tolist(), maps[:, p], gradients[:, p], strict=True):
            labels, smooth, objects = find_objects(detector, gradient, threshold, stride, extent)
            found.append(objects)
            if len(objects):
                box = np.s_[top : top + labels.shape[0], left : left + labels.shape[1]]
                masks[box] = np.where(labels > 0, labels + n, 0)
                layer[box] = np.rint(smooth * (255 / (smooth.max() or 1)))
                n += len(objects)
        plate.write_label(well, phenotype, masks)
        plate.write_label(well, f"{phenotype}_saliency", layer)
        table = pd.concat(found, ignore_index=True)
        row = np.repeat(np.arange(len(fields)), [len(objects) for objects in found])
        table[["y", "x", "y0", "x0", "y1", "x1"]] += np.tile(corners[row], 3)
        numbers = np.arange(1, n + 1)
        tables.append(table.assign(field=fields["field"].to_numpy()[row], phenotype=phenotype, object=numbers))
    return conform(pd.concat(tables).assign(plate=plate.name, well=well), OBJECTS)


def _maxima(detector: np.ndarray, threshold: float, distance: float) -> np.ndarray:
    """Return row and column of the maxima above the threshold, by non-maximum suppression within `distance` places."""
    radius = max(1, round(distance))
    highest = ndimage.maximum_filter(detector, 2 * radius + 1, mode="nearest")
    pieces, n = ndimage.label((detector == highest) & (detector > threshold), np.ones((3, 3)))
    # A plateau is one maximum: the place in its middle.
    return np.rint(ndimage.center_of_mass(pieces > 0, pieces, range(1, n + 1))).astype(int).reshape(n, 2)


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
        # A detector that is flat here (say, by its bias alone) has no gradient: the place itself is all that is known.
        return window, (np.abs(y - centre[0]) < stride / 2) & (np.abs(x - centre[1]) < stride / 2)
    pieces, _ = ndimage.label(values >= extent.fraction * values[peak])
    return window, ndimage.binary_fill_holes(pieces == pieces[peak]) & own


def _measures(window: tuple[slice, slice], mask: np.ndarray) -> list[float]:
    """Return centroid, half-open box and area of a mask that lies at `window`."""
    y, x = np.nonzero(mask)
    top, left = window[0].start, window[1].start
    box = [y.min() + top, x.min() + left, y.max() + 1 + top, x.max() + 1 + left]
    return [y.mean() + top, x.mean() + left, *box, len(y)]
