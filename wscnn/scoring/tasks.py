"""The tasks of Dask's workers around the networks: reading fields of wells, writing their masks and saliency.

Separate from `wscnn.scoring.score` and without torch, so that worker processes start quickly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wscnn.plates.fields import read_fields
from wscnn.plates.store import BOX, Plate
from wscnn.scoring.masks import Extent, write_masks
from wscnn.staging.cell_measures import OutlinedCells, find_cells


@dataclass(frozen=True)
class ScoredWell:
    """A well that gets a score.

    Attributes
    ----------
    name
        The well's.
    fields
        One row per used field, with columns by name (a structured array: taking columns out of a data frame costs more
        than reading a small well): ``field, y, x, height, width`` and ``y_um, x_um`` (NaN where not known).
    folds
        Folds that score it, by their index in loading order.
    thresholds
        For each phenotype the detector's value above which a position belongs to an object.
    learned
        Which phenotypes each of the folds has learned, (folds, P).
    """

    name: str
    fields: np.ndarray
    folds: list[int]
    thresholds: np.ndarray
    learned: np.ndarray


@dataclass(frozen=True)
class WellFields:
    """The used fields of a well.

    Attributes
    ----------
    images
        Shape (n, C, h, w).
    cells
        The cells of each, where the network judges cells.
    """

    images: np.ndarray
    cells: list[OutlinedCells] | None


def read_wells(
    plate: Plate, wells: Sequence[ScoredWell], channels: Sequence[str], stride: int | None
) -> list[WellFields]:
    """Return the used fields of each well.

    With `stride`, the pixels between two positions of the network's map, their cells are found, too.
    """
    found = []
    for well in wells:
        boxes = np.stack([well.fields[name] for name in BOX], axis=1)
        images = read_fields(plate, well.name, channels, boxes)
        found.append(WellFields(images, None if stride is None else [find_cells(image, stride) for image in images]))
    return found


def finish_wells(
    plate: Plate,
    wells: Sequence[ScoredWell],
    cells: Sequence[list[OutlinedCells] | None],
    maps: Sequence[np.ndarray],
    gradients: Sequence[np.ndarray],
    phenotypes: Sequence[str],
    stride: int,
    lengths: Extent,
) -> list[dict[str, np.ndarray]]:
    """Write the labels of each well; return its table of objects.

    Where the `cells` of the fields of a well are known, objects are these cells.
    """
    return [
        write_masks(
            plate,
            well.name,
            well.fields,
            plate.mosaic_shape(well.name),
            detector,
            gradient,
            dict(zip(phenotypes, well.thresholds.tolist(), strict=True)),
            stride,
            lengths,
            found,
        )
        for well, detector, gradient, found in zip(wells, maps, gradients, cells, strict=True)
    ]
