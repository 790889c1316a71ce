"""One grayscale image from a TIFF file, or an error that names the file."""

import math
import stat
from pathlib import Path

import numpy as np
import tifffile

from wscnn.errors import UserError

#: No camera makes more pixels; a header that claims more is broken or made to fill the memory.
MAX_PIXELS = 2**28


def read_tiff(path: Path, page: int = 0) -> np.ndarray:
    """Return one page of a TIFF file as an image (y, x) of uint8 or uint16.

    Striped, tiled, compressed, big-endian and BigTIFF files are read alike. Values are those stored: no colour map,
    inversion or scale is applied. Other numeric types are taken as uint16 when that loses nothing (all values are
    whole numbers from 0 to 65535) and refused otherwise.

    Parameters
    ----------
    path
        The file.
    page
        Which page (directory) of the file, counted from 0.

    Raises
    ------
    UserError
        Naming the file, when it is missing, empty, truncated or damaged, is not grayscale, claims more than
        `MAX_PIXELS`, or holds values that uint16 cannot.
    """
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path}: not a file")
        if status.st_size == 0:
            raise UserError(f"{path}: the file is empty; copy it again from the instrument")
        with tifffile.TiffFile(path) as tiff:
            return _decode(tiff, page, status.st_size, path)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # whatever a decoder makes of broken bytes is the file's fault, not the program's
        raise UserError(f"{path}: not a readable TIFF ({' '.join(str(error).split())[:200]})") from None


def _decode(tiff: tifffile.TiffFile, number: int, size: int, path: Path) -> np.ndarray:
    try:
        page = tiff.pages[number].aspage()
    except IndexError:
        raise UserError(f"{path}: has no page {number} (it has {len(tiff.pages)})") from None
    if page.samplesperpixel != 1:
        colour = "RGB" if page.photometric == tifffile.PHOTOMETRIC.RGB else f"{page.samplesperpixel} values a pixel"
        raise UserError(f"{path}: a colour image ({colour}); only grayscale images can be staged")
    if max(page.imagewidth * page.imagelength * page.imagedepth, page.tilewidth * page.tilelength) > MAX_PIXELS:
        raise UserError(f"{path}: claims {page.imagewidth} x {page.imagelength} pixels; the file is broken")
    if page.ndim != 2 or page.size == 0 or page.dtype is None:
        raise UserError(f"{path}: page {number} is no two-dimensional image (its shape is {page.shape})")
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    # The decoder fills segments that are missing with zeros without a word.
    expected = 1 if page.is_contiguous else math.prod(page.chunked)
    if len(segments) < expected or any(count == 0 for _, count in segments):
        raise UserError(f"{path}: part of the image was never written; export it again")
    end = segments[0][0] + page.nbytes if page.is_contiguous else max(offset + count for offset, count in segments)
    if end > size:
        raise UserError(f"{path}: the file is truncated ({size} bytes of at least {end}); copy it again")
    image = page.asarray(maxworkers=1)
    return _whole(image.astype(image.dtype.newbyteorder("="), copy=False), path)


def _whole(image: np.ndarray, path: Path) -> np.ndarray:
    """Return `image` as uint8 or uint16 with its values unchanged."""
    if image.dtype in (np.uint8, np.uint16):
        return image
    if image.dtype.kind not in "iuf":
        raise UserError(f"{path}: pixels of type {image.dtype}; only 8 and 16 bit grayscale can be staged")
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise UserError(f"{path}: {int((~np.isfinite(image)).sum())} pixels are not numbers (NaN or infinite)")
    low, high = image.min(), image.max()
    if low < 0 or high > 65535 or (image.dtype.kind == "f" and not (image == np.rint(image)).all()):
        raise UserError(
            f"{path}: {image.dtype} pixels from {low:g} to {high:g} cannot be kept as 16 bit whole numbers; "
            "export the images as unsigned 16 bit"
        )
    return image.astype(np.uint16)
