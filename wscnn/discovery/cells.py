"""Cells as an encoder describes them: one feature vector per cell of a field."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wscnn.network.model import WSCNN, field_features
from wscnn.staging.cell_measures import find_cells
from wscnn.staging.regions import SIDE, tiles

#: A field keeps the features of this many cells at most, evenly spaced over the field: bounds memory.
MOST_CELLS = 1000


@dataclass(frozen=True)
class FieldCells:
    """The cells of one field.

    Attributes
    ----------
    labels
        Shape (h, w), uint16: 0, or the number of the cell. Without outlines, squares take the place of cells.
    numbers
        Shape (n,): the number of each cell that has features, ascending.
    features
        Shape (n, 2 F), float16: mean and maximum of the encoder's F features over the positions of each cell. Outlined
        cells have their measures, too (`wscnn.staging.cell_measures.cell_measures`): (n, 2 F + M).
    area, intensity
        Shape (n,): pixels of each cell, and its mean intensity over all channels (1 is the top of the plate's window).
    """

    labels: NDArray[np.uint16]
    numbers: NDArray[np.intp]
    features: NDArray[np.float16]
    area: NDArray[np.float64]
    intensity: NDArray[np.float64]


@torch.no_grad()
def describe(network: WSCNN, images: np.ndarray, outlined: bool) -> list[FieldCells]:
    """Return the cells of fields (n, C, h, w) with the features of an encoder.

    Parameters
    ----------
    network
        The encoder, on the device to compute on.
    images
        As `wscnn.plates.fields.read_fields` returns them.
    outlined
        Whether cells are found in the image. Otherwise the field is cut into squares of `SIDE` x `SIDE` positions.
    """
    device = next(network.parameters()).device
    found = []
    for image in images:
        maps = field_features(network, torch.from_numpy(image[None]).to(device))[0]
        if outlined:
            cells = find_cells(image, network.stride, network.nuclear)
            labels, region = cells.outlines.astype(np.uint16), cells.regions.astype(np.uint16)
        else:
            region = tiles((maps.shape[1], maps.shape[2]), SIDE).astype(np.uint16)
            pixels = np.repeat(np.repeat(region, network.stride, 0), network.stride, 1)
            labels = pixels[: image.shape[1], : image.shape[2]]
        numbers = np.unique(region[region > 0]).astype(np.intp)
        if len(numbers) > MOST_CELLS:
            numbers = numbers[np.linspace(0, len(numbers) - 1, MOST_CELLS).astype(int)]
        size = int(labels.max(initial=0)) + 1
        features = _pooled(maps, region, numbers)
        if outlined:
            features = np.concatenate([features, cells.measures[numbers - 1].astype(np.float16)], axis=1)
        area = np.bincount(labels.ravel(), minlength=size)
        light = np.bincount(labels.ravel(), image.mean(0).ravel(), size)
        found.append(
            FieldCells(
                labels,
                numbers,
                features,
                area[numbers].astype(float),
                light[numbers] / np.maximum(area[numbers], 1),
            )
        )
    return found


def _pooled(maps: Tensor, region: np.ndarray, numbers: NDArray[np.intp]) -> NDArray[np.float16]:
    """Return mean and maximum of maps (F, h', w') over the positions of each of the regions, (n, 2 F)."""
    flat = region.ravel()
    order = np.argsort(flat, kind="stable")
    first, last = (np.searchsorted(flat[order], numbers, side) for side in ("left", "right"))
    values = maps.flatten(1).cpu().numpy()[:, order]
    if not len(numbers):
        return np.zeros((0, 2 * len(values)), np.float16)
    # Positions between two regions that follow each other (in regions that are left out) are cut off by a bound.
    bounds = np.stack([first, last], 1).ravel()
    bounds = bounds[:-1] if bounds[-1] == values.shape[1] else bounds
    mean = np.add.reduceat(values, bounds, 1)[:, ::2] / (last - first)
    highest = np.maximum.reduceat(values, bounds, 1)[:, ::2]
    return np.concatenate([mean, highest]).T.astype(np.float16)
