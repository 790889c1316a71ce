"""Which positions of a detector's map belong to which cell."""

import re
from collections.abc import Sequence

import numpy as np
from skimage.segmentation import expand_labels

from wscnn.plates.fields import BACKGROUND, BRIGHT
from wscnn.staging.nuclei import label_cells

#: Positions farther than this from a cell's outline, in pixels, belong to no cell: a margin for structures beside it.
#: Twice as far where the outline is that of the nucleus and other channels show the rest of the cell.
REACH = 12.0
#: Names of channels that show nuclei.
NUCLEI = re.compile(r"dapi|hoechst|dna|h2b|draq5|nuc", re.IGNORECASE)
#: Where fields have fewer cells than this on average, squares of `SIDE` x `SIDE` positions stand in for cells.
FEWEST, SIDE = 4.0, 8


def signal(image: np.ndarray) -> np.ndarray:
    """Return the brightest channel at each pixel of a field (C, y, x), as (y, x): the image that is searched for cells.

    Of each channel the background is subtracted, and the rest is divided by how far bright pixels stand out from it.
    """
    low, high = np.quantile(image[:, ::3, ::3], (BACKGROUND, BRIGHT), axis=(1, 2))[:, :, None, None]
    return ((image - low) / np.maximum(high - low, 1e-6)).max(0)


def nuclear_channel(names: Sequence[str]) -> int | None:
    """Return the index of the first channel that shows nuclei by its name; None where there is none."""
    return next((index for index, name in enumerate(names) if NUCLEI.search(name)), None)


def outline(image: np.ndarray, nuclear: int | None = None) -> np.ndarray:
    """Return the cells of a field (C, y, x) as labels (y, x), uint32; 0 is background.

    They are the nuclei of the channel `nuclear`, or bright objects of any channel where it is None. Fields are read in
    half precision, as training keeps them, so that all stages find the same cells.
    """
    if nuclear is not None:
        image = image[[nuclear]]
    return label_cells(signal(image.clip(-6e4, 6e4).astype(np.float16).astype(np.float32)))


def regions(labels: np.ndarray, stride: int, reach: float = REACH) -> np.ndarray:
    """Return the cell of each position of a map, 0 where none is near.

    Parameters
    ----------
    labels
        Cells of a field, shape (y, x): 0 or the cell's number.
    stride
        Pixels between two positions; position (i, j) is centred on the middle of its `stride` x `stride` pixels.
    reach
        Positions farther than this from a cell, in pixels, are of none.

    Returns
    -------
    np.ndarray
        Shape (ceil(y / stride), ceil(x / stride)), of the type of `labels`. Each position within `reach` of a cell is
        of the nearest one.
    """
    height, width = labels.shape
    middle = stride // 2
    sampled = labels[
        np.ix_(
            np.minimum(np.arange(0, height, stride) + middle, height - 1),
            np.minimum(np.arange(0, width, stride) + middle, width - 1),
        )
    ]
    return expand_labels(sampled, reach / stride)


def tiles(shape: tuple[int, int], side: int) -> np.ndarray:
    """Return a map of `shape` cut into squares of `side` positions, numbered from 1: regions where no cell is found."""
    rows, columns = np.arange(shape[0]) // side, np.arange(shape[1]) // side
    return (1 + rows[:, None] * (columns[-1] + 1) + columns).astype(np.uint32)


def measures(window: tuple[slice, slice], mask: np.ndarray) -> list[float]:
    """Return centroid, half-open box and area of a mask at `window`."""
    y, x = np.nonzero(mask)
    top, left = window[0].start, window[1].start
    box = [y.min() + top, x.min() + left, y.max() + 1 + top, x.max() + 1 + left]
    return [y.mean() + top, x.mean() + left, *box, len(y)]
