"""The cells that images show, as tensors, for a network that judges whole cells."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wscnn.staging.cell_measures import OutlinedCells


@dataclass(frozen=True)
class ImageCells:
    """The cells of images.

    Attributes
    ----------
    regions
        The cell of each position of the map of each image, 0 where there is none: (n, h', w'), int32.
    measures
        Of each cell, `wscnn.staging.cell_measures.cell_measures`: (n, most + 1, M), float32. Row k is of cell k; rows
        of no cell are 0.
    """

    regions: Tensor
    measures: Tensor

    @classmethod
    def of(cls, fields: Sequence[OutlinedCells], device: torch.device | None = None) -> "ImageCells":
        """Return the cells of fields of one size as tensors on `device`."""
        shapes = [own.measures.shape for own in fields]
        table = np.zeros((len(fields), 1 + max(n for n, _ in shapes), shapes[0][1]), np.float32)
        for row, own in zip(table, fields, strict=True):
            row[1 : len(own.measures) + 1] = own.measures
        regions = np.stack([own.regions for own in fields]).astype(np.int32)
        return cls(torch.from_numpy(regions).to(device), torch.from_numpy(table).to(device))

    def __getitem__(self, images: slice) -> "ImageCells":
        return ImageCells(self.regions[images], self.measures[images])
