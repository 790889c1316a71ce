"""What Dask's workers do around the networks: read the fields of wells, write their masks and saliency.

Apart from `wscnn.scoring.score`, and without torch, so that worker processes are there soon.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wscnn.plates.fields import read_fields
from wscnn.plates.store import BOX, Plate
from wscnn.scoring.masks import Extent, write_masks


@dataclass(frozen=True)
class ScoredWell:
    """A well that gets a score.

    Attributes
    ----------
    name
        The well's.
    fields
        A row a used field, with columns by name (a structured array: to take columns out of a data frame costs more
        than to read a small well): ``field, y, x, height, width`` and ``y_um, x_um`` (NaN where not known).
    folds
        Which folds score it, counted as they were loaded.
    places
        For each phenotype the detector's value above which a place belongs to an object.
    """

    name: str
    fields: np.ndarray
    folds: list[int]
    places: np.ndarray


def read_wells(plate: Plate, wells: Sequence[ScoredWell], channels: Sequence[str]) -> list[np.ndarray]:
    """Return the used fields of each well."""
    boxes = [np.stack([well.fields[name] for name in BOX], axis=1) for well in wells]
    return [read_fields(plate, well.name, channels, box) for well, box in zip(wells, boxes, strict=True)]


def finish_wells(
    plate: Plate,
    wells: Sequence[ScoredWell],
    maps: Sequence[np.ndarray],
    gradients: Sequence[np.ndarray],
    phenotypes: Sequence[str],
    stride: int,
    lengths: Extent,
) -> list[dict[str, np.ndarray]]:
    """Write the labels of each well; return its table of objects."""
    return [
        write_masks(
            plate,
            well.name,
            well.fields,
            plate.mosaic_shape(well.name),
            detector,
            gradient,
            dict(zip(phenotypes, well.places.tolist(), strict=True)),
            stride,
            lengths,
        )
        for well, detector, gradient in zip(wells, maps, gradients, strict=True)
    ]
