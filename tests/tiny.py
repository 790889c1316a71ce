"""The smallest image that a reader takes, for tests in which only names and headers count."""

import io
from pathlib import Path

import numpy as np
import tifffile


def _bytes() -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((2, 2), np.uint16), photometric="minisblack", metadata=None)
    return file.getvalue()


_TINY = _bytes()


def tiny_tiff(path: Path) -> None:
    """Write an image of 2 x 2 pixels."""
    path.write_bytes(_TINY)
