"""The smallest image that a reader takes, for tests in which only names and headers count."""

import io
from pathlib import Path

import numpy as np
import tifffile


def _bytes() -> bytes:
    file = io.BytesIO()
    image = np.zeros((160, 160), np.uint16)
    tifffile.imwrite(file, image, photometric="minisblack", metadata=None, compression="zlib")
    return file.getvalue()


_TINY = _bytes()


def tiny_tiff(path: Path) -> None:
    """Write a black image of 160 x 160 pixels."""
    path.write_bytes(_TINY)
