"""Grayscale images from TIFF files, or an error that names the file."""

import math
import re
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from xml.etree.ElementTree import ParseError

import numpy as np
import tifffile
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from wscnn.errors import UserError

#: No camera makes more pixels; a header that claims more is broken or made to fill the memory.
MAX_PIXELS = 2**28
#: Nor does any image take more bytes, whatever their type.
MAX_BYTES = 2**30
# Larger images than this are not decoded from so many times fewer bytes: no noise of a camera packs so well.
_LARGE_BYTES = 2**26
_PACKED = 200

T = TypeVar("T")


def read_tiff(path: Path, page: int | None = None) -> np.ndarray:
    """Return one page of a TIFF file as an image (y, x) of uint8 or uint16.

    Striped, tiled, compressed, big-endian and BigTIFF files are read alike. Values are those stored: no colour map,
    inversion or scale is applied. Other numeric types are taken as uint16 when that loses nothing (all values are
    whole numbers from 0 to 65535) and refused otherwise.

    Parameters
    ----------
    path
        The file.
    page
        Which page (directory) of the file, counted from 0; None for the only image of a file that must not hold
        several (thumbnails and smaller copies aside).

    Raises
    ------
    UserError
        Naming the file, when it is missing, empty, truncated or damaged, is not grayscale, claims more than
        `MAX_PIXELS` or `MAX_BYTES` or a large image in next to no bytes (all before it is decoded), or holds values
        that uint16 cannot.
    """
    return _opened(path, lambda tiff, size: _decode(tiff, page, size, path))


def inspect_tiff(path: Path, page: int | None = None) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and type of a page by its header; raise the UserError that `read_tiff` would raise of that."""

    def seen(tiff: tifffile.TiffFile, size: int) -> tuple[tuple[int, ...], np.dtype]:
        found = _checked_page(tiff, page, size, path)
        return found.shape, np.dtype(found.dtype).newbyteorder("=")

    return _opened(path, seen)


def tiff_planes(path: Path) -> list[int]:
    """Return which pages of a TIFF file are planes of a stack: those of the first one's shape and type.

    Only headers are read. Thumbnails and smaller copies are left out.

    Raises
    ------
    UserError
        When the file cannot be read, was cut off, or its pages are something else than planes by its own words.
    """

    def planes(tiff: tifffile.TiffFile, size: int) -> list[int]:
        found = _planes(tiff)
        _checked_page(tiff, found[0], size, path)
        return found

    return _opened(path, planes)


def _opened(path: Path, use: Callable[[tifffile.TiffFile, int], T]) -> T:
    """Return what `use` makes of a file and its size in bytes."""
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path}: not a file")
        if status.st_size == 0:
            raise UserError(f"{path}: the file is empty; copy it again from the instrument")
        with tifffile.TiffFile(path) as tiff:
            if not len(tiff.pages) or _continues_outside(tiff, status.st_size):
                raise UserError(f"{path}: the file was cut off; copy it again from the instrument")
            return use(tiff, status.st_size)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # whatever a decoder makes of broken bytes is the file's fault, not the program's
        raise UserError(f"{path}: not a readable TIFF ({' '.join(str(error).split())[:200]})") from None


def _continues_outside(tiff: tifffile.TiffFile, size: int) -> bool:
    """Return whether the last page that was found names a next one beyond the end of the file.

    The reader ends a chain of pages there without an error, so that a stack that was cut has fewer planes.
    """
    form = tiff.tiff
    file = tiff.filehandle
    last = tiff.pages[-1].aspage().offset
    file.seek(last)
    (n_tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
    file.seek(last + form.tagnosize + n_tags * form.tagsize)
    text = file.read(form.offsetsize)
    return len(text) < form.offsetsize or struct.unpack(form.offsetformat, text)[0] >= size


def _planes(tiff: tifffile.TiffFile) -> list[int]:
    pages = [page.aspage() for page in tiff.pages]
    return [i for i, page in enumerate(pages) if (page.shape, page.dtype) == (pages[0].shape, pages[0].dtype)]


def _sizes(tiff: tifffile.TiffFile) -> dict[str, int]:
    """Return how many ``images`` in all, planes ``z``, channels ``c`` and time points ``t`` a file's metadata tell."""
    if tiff.is_imagej:
        found = tiff.imagej_metadata or {}
        names = {"images": "images", "slices": "z", "channels": "c", "frames": "t"}
        return {name: int(found[key]) for key, name in names.items() if key in found}
    if tiff.is_ome:
        pixels = re.search(r"<(?:\w+:)?Pixels\s[^>]*>", tiff.pages.first.description)
        return {
            axis.lower(): int(n) for axis, n in re.findall(r'\sSize([ZCT])="(\d{1,9})"', pixels[0] if pixels else "")
        }
    if tiff.is_stk:
        return {"images": int((tiff.stk_metadata or {}).get("NumberPlanes", 1))}
    return {}


def _local(tag: str) -> str:
    """Return an XML name without its namespace."""
    return tag.rpartition("}")[2]


def _n_ome_images(tiff: tifffile.TiffFile, path: Path) -> int:
    """Return how many images of an OME-TIFF lie in this file.

    A set of files repeats in each the images of all; which lie in a file its elements ``TiffData`` say.
    """
    try:
        root = fromstring(tiff.pages.first.description)
    except (ParseError, DefusedXmlException, ValueError):
        return 1
    own = root.attrib.get("UUID")
    n = 0
    for image in root.iter():
        if _local(image.tag) != "Image":
            continue
        blocks = [block for block in image.iter() if _local(block.tag) == "TiffData"]
        named = [child for block in blocks for child in block if _local(child.tag) == "UUID"]
        here = [
            child for child in named if (child.text or "").strip() == own or child.attrib.get("FileName") == path.name
        ]
        n += bool(here) or len(named) < len(blocks)
    return max(n, 1)


def _checked_page(tiff: tifffile.TiffFile, number: int | None, size: int, path: Path) -> tifffile.TiffPage:
    """Return a page whose header says that it can be read."""
    says, n_pages = _sizes(tiff), len(tiff.pages)
    if n_pages > 1 and tiff.is_ome and (n := _n_ome_images(tiff, path)) > 1:
        raise UserError(
            f"{path}: its {n_pages} pages are {n} images (fields, positions), by its own words; save each as a file of "
            "its own"
        )
    if says.get("images", 1) > n_pages:
        raise UserError(f"{path}: its {says['images']} images are not pages; save them as an ordinary TIFF stack")
    if n_pages > 1 and says.get("c", 1) * says.get("t", 1) > 1 and says.get("z", 1) != n_pages:
        raise UserError(
            f"{path}: its {n_pages} pages are channels or time points, by its own words; "
            "save each channel and time point as a file of its own"
        )
    if number is None:
        number = 0
        if n_pages > 1 and (n := len(_planes(tiff))) > 1:
            raise UserError(
                f"{path}: holds {n} images where one is expected; save each as a file of its own, or use "
                "acquisition.pattern without the group z: then the pages of a file are its planes"
            )
    try:
        page = tiff.pages[number].aspage()
    except IndexError:
        raise UserError(f"{path}: has no page {number} (it has {len(tiff.pages)})") from None
    if page.samplesperpixel != 1:
        colour = "RGB" if page.photometric == tifffile.PHOTOMETRIC.RGB else f"{page.samplesperpixel} values a pixel"
        raise UserError(f"{path}: a colour image ({colour}); only grayscale images can be staged")
    if page.ndim != 2 or page.size == 0 or page.dtype is None:
        raise UserError(f"{path}: page {number} is no two-dimensional image (its shape is {page.shape})")
    if page.dtype.kind not in "iuf":
        raise UserError(f"{path}: pixels of type {page.dtype}; only 8 and 16 bit grayscale can be staged")
    pixels = max(page.size, page.tilewidth * page.tilelength)
    n_bytes = pixels * page.dtype.itemsize
    if pixels > MAX_PIXELS or n_bytes > MAX_BYTES or n_bytes > max(_LARGE_BYTES, _PACKED * size):
        raise UserError(
            f"{path}: claims {page.imagewidth} x {page.imagelength} pixels of {page.dtype} in {size} bytes; "
            "the file is broken, export it again"
        )
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    # The decoder fills segments that are missing with zeros without a word.
    expected = 1 if page.is_contiguous else math.prod(page.chunked)
    if len(segments) < expected or any(count == 0 for _, count in segments):
        raise UserError(f"{path}: part of the image was never written; export it again")
    end = segments[0][0] + page.nbytes if page.is_contiguous else max(offset + count for offset, count in segments)
    if end > size:
        raise UserError(f"{path}: the file is truncated ({size} bytes of at least {end}); copy it again")
    return page


def _decode(tiff: tifffile.TiffFile, number: int | None, size: int, path: Path) -> np.ndarray:
    image = _checked_page(tiff, number, size, path).asarray(maxworkers=1)
    return whole_numbers(image.astype(image.dtype.newbyteorder("="), copy=False), path)


def whole_numbers(image: np.ndarray, path: Path) -> np.ndarray:
    """Return `image` as uint8 or uint16 with its values unchanged.

    Raises
    ------
    UserError
        Naming `path`, when a value is no whole number from 0 to 65535.
    """
    if image.dtype in (np.uint8, np.uint16):
        return image
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise UserError(f"{path}: {int((~np.isfinite(image)).sum())} pixels are not numbers (NaN or infinite)")
    low, high = image.min(), image.max()
    if low < 0 or high > 65535 or (image.dtype.kind == "f" and not (image == np.rint(image)).all()):
        raise UserError(
            f"{path}: {image.dtype} pixels from {low:g} to {high:g} cannot be kept as 16 bit whole numbers; "
            "export the images as unsigned 16 bit"
        )
    return image.astype(np.uint16)
