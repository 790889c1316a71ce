"""Grayscale images from TIFF files, or an error that names the file."""

import math
import stat
import struct
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TypeVar
from xml.etree.ElementTree import ParseError

import numpy as np
import tifffile
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from wscnn.acquisitions.xml import local
from wscnn.core.errors import UserError

#: No camera makes more pixels; a header that claims more is broken or malicious.
MAX_PIXELS = 2**28
#: No image takes more bytes, whatever its type.
MAX_BYTES = 2**30
# Images larger than this are not decoded if compressed more than `_PACKED` times: camera noise does not compress so
# well.
_LARGE_BYTES = 2**26
_PACKED = 200
# Files whose parsed OME metadata are kept: several threads read a plate, each one file at a time.
_OME_KEPT = 16

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
        `MAX_PIXELS` or `MAX_BYTES` or a large image in implausibly few bytes (all before it is decoded), or holds
        values that uint16 cannot.
    """
    return _opened(path, lambda tiff, size: _decode(tiff, page, size, path))


def inspect_tiff(path: Path, page: int | None = None) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and type of a page from its header; raise the `UserError` that `read_tiff` would raise for it."""

    def seen(tiff: tifffile.TiffFile, size: int) -> tuple[tuple[int, ...], np.dtype]:
        found = _page(tiff, page, size, path)
        return found.shape, np.dtype(found.dtype).newbyteorder("=")

    return _opened(path, seen)


def tiff_planes(path: Path) -> list[int]:
    """Return which pages of a TIFF file are planes of a stack: those of the first one's shape and type.

    Only headers are read. Thumbnails and smaller copies are left out.

    Raises
    ------
    UserError
        When the file cannot be read, was cut off, or its metadata say that its pages are not planes.
    """

    def planes(tiff: tifffile.TiffFile, size: int) -> list[int]:
        found = _planes(tiff)
        _page(tiff, found[0] if found else 0, size, path)
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
            _check_directories(tiff, status.st_size, path)
            return use(tiff, status.st_size)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # whatever a decoder makes of broken bytes is the file's fault, not the program's
        raise UserError(f"{path}: not a readable TIFF ({' '.join(str(error).split())[:200]})") from None


def _check_directories(tiff: tifffile.TiffFile, size: int, path: Path) -> None:
    """Raise a `UserError` when the chain of directories leads out of the file: tifffile leaves out such pages."""
    file, form = tiff.filehandle, tiff.tiff
    file.seek(8 if form.is_bigtiff else 4)
    seen: set[int] = set()
    while True:
        (offset,) = struct.unpack(form.offsetformat, file.read(form.offsetsize))
        if offset == 0 and seen:
            return
        if offset in seen:
            raise UserError(f"{path}: its directories form a circle; the file is broken, export it again")
        seen.add(offset)
        file.seek(offset)
        count = file.read(form.tagnosize) if 0 < offset < size else b""
        n = struct.unpack(form.tagnoformat, count)[0] if len(count) == form.tagnosize else 0
        end = offset + form.tagnosize + n * form.tagsize
        if n == 0 or end + form.offsetsize > size:
            raise UserError(
                f"{path}: the file is truncated ({size} bytes), directory {len(seen)} of its images lies at byte "
                f"{offset}; copy it again"
            )
        file.seek(end)


def _planes(tiff: tifffile.TiffFile) -> list[int]:
    pages = [page.aspage() for page in tiff.pages]
    return [i for i, page in enumerate(pages) if (page.shape, page.dtype) == (pages[0].shape, pages[0].dtype)]


def _sizes(tiff: tifffile.TiffFile, path: Path) -> dict[str, int]:
    """Return how many ``images``, ``fields``, planes ``z``, channels ``c`` and time points ``t`` the metadata give."""
    if tiff.is_imagej:
        found = tiff.imagej_metadata or {}
        names = {"images": "images", "slices": "z", "channels": "c", "frames": "t"}
        return {name: int(found[key]) for key, name in names.items() if key in found}
    if tiff.is_ome:
        images = _ome_images(tiff.pages.first.description, path.name)
        return {**images[0], "fields": len(images)} if images else {}
    if tiff.is_stk:
        return {"images": int((tiff.stk_metadata or {}).get("NumberPlanes", 1))}
    return {}


@lru_cache(maxsize=_OME_KEPT)
def _ome_images(metadata: str, name: str) -> list[dict[str, int]]:
    """Return the sizes ``z``, ``c`` and ``t`` of the images that the OME metadata of the file `name` assign to it.

    Each file of a set may repeat the metadata of all: an image whose ``TiffData`` name other files is not in this one.
    The planes of a stack are read one by one, each from the opened file, so the last few results are kept.
    """
    try:
        root = fromstring(metadata)
    except (ParseError, DefusedXmlException, ValueError):
        return []
    every, here = [], []
    for image in root.iter():
        if local(image.tag) != "Image":
            continue
        pixels = next((part for part in image if local(part.tag) == "Pixels"), None)
        if pixels is None:
            continue
        wanted = {axis.lower(): int(pixels.get(f"Size{axis}", "1")) for axis in "ZCT"}
        wanted |= {"x": int(pixels.get("SizeX", "0")), "y": int(pixels.get("SizeY", "0"))}
        every.append(wanted)
        if any(local(part.tag) == "MetadataOnly" for part in pixels):
            continue
        data = [part for part in pixels if local(part.tag) == "TiffData"]
        named = [next((part for part in entry if local(part.tag) == "UUID"), None) for entry in data]
        own = (
            uuid is None
            or (uuid.text or "").strip() == root.get("UUID", "-")
            or uuid.get("FileName", "").rpartition("/")[2] == name
            for uuid in named
        )
        if not data or any(own):
            here.append(wanted)
    # Of a file that was renamed and has no UUID it is not known which image it is.
    here = here or every
    return [image for image in here if (image["y"], image["x"]) == (here[0]["y"], here[0]["x"])]


def _decode(tiff: tifffile.TiffFile, number: int | None, size: int, path: Path) -> np.ndarray:
    image = _page(tiff, number, size, path).asarray(maxworkers=1)
    return as_unsigned(image.astype(image.dtype.newbyteorder("="), copy=False), path)


def _page(tiff: tifffile.TiffFile, number: int | None, size: int, path: Path) -> tifffile.TiffPage:
    """Return a page that can be decoded, as far as headers show."""
    says, n_pages = _sizes(tiff, path), len(tiff.pages)
    if says.get("images", 1) > n_pages:
        raise UserError(f"{path}: its {says['images']} images are not pages; save them as an ordinary TIFF stack")
    if n_pages > 1 and says.get("c", 1) * says.get("t", 1) > 1 and says.get("z", 1) != n_pages:
        raise UserError(
            f"{path}: its {n_pages} pages are channels or time points, by its own metadata; "
            "save each channel and time point as a file of its own"
        )
    if n_pages > 1 and says.get("fields", 1) > 1:
        raise UserError(
            f"{path}: its {n_pages} pages are {says['fields']} images (fields or positions), by its OME metadata; "
            "save each field as a file of its own"
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
        colour = "RGB" if page.photometric == tifffile.PHOTOMETRIC.RGB else f"{page.samplesperpixel} values per pixel"
        raise UserError(f"{path}: a colour image ({colour}); only grayscale images can be staged")
    if page.ndim != 2 or page.size == 0 or page.dtype is None:
        raise UserError(f"{path}: page {number} is not a two-dimensional image (its shape is {page.shape})")
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
    # The decoder silently fills missing segments with zeros.
    expected = 1 if page.is_contiguous else math.prod(page.chunked)
    if len(segments) < expected or any(count == 0 for _, count in segments):
        raise UserError(f"{path}: part of the image was never written; export it again")
    end = segments[0][0] + page.nbytes if page.is_contiguous else max(offset + count for offset, count in segments)
    if end > size:
        raise UserError(f"{path}: the file is truncated ({size} bytes of at least {end}); copy it again")
    return page


def as_unsigned(image: np.ndarray, path: Path) -> np.ndarray:
    """Return `image` as uint8 or uint16 with its values unchanged."""
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
