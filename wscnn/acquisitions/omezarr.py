"""Plates that are OME-Zarr already, version 0.4 or 0.5, converted by Fractal, bioformats2raw or others."""

import json
import math
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import zarr
from zarr.storage import LocalStore

from wscnn.acquisitions.base import Acquisition, walk
from wscnn.acquisitions.tiff import MAX_BYTES, MAX_PIXELS, as_unsigned
from wscnn.core.errors import UserError
from wscnn.core.progress import log
from wscnn.core.tables import INDEX
from wscnn.core.wells import parse_well, well_name

_MICROMETRES = {
    **dict.fromkeys(("micrometer", "micrometre", "micron", "microns", "um", "µm", "μm"), 1.0),
    **dict.fromkeys(("nanometer", "nanometre", "nm"), 1e-3),
    **dict.fromkeys(("angstrom", "Å", "Å"), 1e-4),
    **dict.fromkeys(("millimeter", "millimetre", "mm"), 1e3),
    **dict.fromkeys(("centimeter", "centimetre", "cm"), 1e4),
    **dict.fromkeys(("meter", "metre", "m"), 1e6),
}
_MALFORMED = (KeyError, TypeError, IndexError, ValueError, AttributeError)


class _Image(NamedTuple):
    """Metadata of an image."""

    array: Path
    shape: dict[str, int]
    channels: list[list[str]]
    y_um: float
    x_um: float
    pixel_size_um: float
    moved: bool


class OmeZarr(Acquisition):
    """An OME-Zarr HCS plate; the images of a well are its fields.

    The config names a channel by its label (``omero``), its ``wavelength_id`` (Fractal) or its number, counted from
    0. A field has the number that its image is called by. Of a plate with several acquisitions the first is taken.
    In the index, `path` is the array of full resolution and `page` numbers its planes in the order of its axes.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        super().__init__(folder, settings)
        self._arrays: dict[Path, zarr.Array] = {}
        self._without_unit = ""

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Return whether the folder is a Zarr group."""
        return any((folder / name).is_file() for name in (".zgroup", ".zattrs", "zarr.json"))

    def files(self, plate: str, excluded: Collection[str] = ()) -> pd.DataFrame:
        """Return one row per plane of every image of the plate."""
        content = _ome(self.folder)
        if not isinstance(content.get("plate"), dict):
            raise UserError(
                f"{self.folder}: not an OME-Zarr plate; give the folder whose metadata have the key 'plate'"
            )
        wells = {}
        try:
            for entry in content["plate"]["wells"]:
                path = _inside(entry["path"])
                row, column = path.parts
                wells[well_name(*parse_well(row + column))] = self.folder / path
        except _MALFORMED as error:
            raise UserError(
                f"{self.folder}: broken metadata of the plate ({repr(error)[:200]}); convert it again"
            ) from None
        self._without_unit = ""
        rows = [
            row
            for well, folder in wells.items()
            if well not in excluded
            for row in self._well_rows(plate, well, folder)
        ]
        if self._without_unit:
            log(
                f"{self._without_unit}: its axes have no known unit of length, so the positions of fields are not "
                "used; set acquisition.pixel_size_um"
            )
        return pd.DataFrame(rows, columns=list(INDEX))

    def headers(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the index as it is, having logged how many fields lack files of chunks.

        That is valid where a chunk holds only zeros, but an incomplete copy looks the same.
        """
        arrays = table["path"].unique()
        n = sum(_lacks_chunks(Path(path)) for path in arrays)
        if n:
            log(
                f"{self.folder}: {n} of {len(arrays)} fields lack files of chunks, which are read as zeros; "
                "copy the plate again unless it was written so"
            )
        return table

    def read(self, path: Path, page: int) -> np.ndarray:
        """Return one plane (y, x), as uint8 or uint16."""
        path = Path(path)
        try:
            if path not in self._arrays:
                self._arrays[path] = _open(path)
            array = self._arrays[path]
            plane = tuple(int(i) for i in np.unravel_index(page, array.shape[:-2])) if array.ndim > 2 else ()
            image = np.asarray(array[plane])
        except UserError:
            raise
        except Exception as error:  # whatever a codec makes of broken bytes is the file's fault
            raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())[:200]})") from None
        return as_unsigned(image, path)

    def inspect(self, path: Path, page: int) -> tuple[tuple[int, ...], np.dtype]:
        """Return shape (y, x) and type of an image by its array's metadata; raise what `read` would raise of those."""
        try:
            array = _open(Path(path))
        except UserError:
            raise
        except Exception as error:  # whatever broken metadata lead to is the file's fault
            raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())[:200]})") from None
        return array.shape[-2:], array.dtype

    def _well_rows(self, plate: str, well: str, folder: Path) -> list[tuple]:
        try:
            entries = _ome(folder)["well"]["images"]
            rounds = sorted({int(entry.get("acquisition", 0)) for entry in entries})
            chosen = [_inside(entry["path"]) for entry in entries if int(entry.get("acquisition", 0)) == rounds[0]]
        except _MALFORMED as error:
            raise UserError(
                f"{folder}: broken metadata of the well ({repr(error)[:200]}); convert the plate again"
            ) from None
        if len(rounds) > 1:
            log(f"{folder}: has {len(rounds)} acquisitions; only number {rounds[0]} is taken")
        _no_derivatives(folder, [str(path) for path in chosen])
        rows = []
        for position, path in enumerate(chosen):
            image = _image(folder / path, self.settings["pixel_size_um"])
            if image.moved and math.isnan(image.x_um):
                self._without_unit = self._without_unit or str(folder / path)
            field = int(path.name) if path.name.isdecimal() and len(path.name) < 9 else position
            sizes = {axis: size for axis, size in image.shape.items() if axis not in "yx"}
            for page, index in enumerate(np.ndindex(*sizes.values())):
                at = dict(zip(sizes, map(int, index), strict=True))
                keys = image.channels[at.get("c", 0)] if at.get("c", 0) < len(image.channels) else []
                channel = self.channel(*keys, str(at.get("c", 0)))
                if channel is not None:
                    where = (image.y_um, image.x_um, image.pixel_size_um)
                    rows.append(
                        (plate, well, field, channel, at.get("z", 0), at.get("t", 0), str(image.array), page, *where)
                    )
        return rows


def _no_derivatives(well: Path, names: list[str]) -> None:
    """Raise a `UserError` when images of one acquisition of a well look like versions of the same field."""
    odd = [name for name in names if not name.isdecimal()]
    numbered = len(odd) < len(names)
    versions = [(a, b) for a in names for b in odd if numbered or (a != b and re.match(re.escape(a) + r"[\W_]", b))]
    if versions:
        raise UserError(
            f"{well}: lists the images {', '.join(names[:10])}, all of one acquisition; '{versions[0][1]}' looks like "
            "a processed version of another field, which would count twice; remove the images that are not to be "
            "staged from the list in the well's metadata"
        )


def _image(folder: Path, pixel_size_um: float | None) -> _Image:
    """Return what the metadata of an image say.

    `pixel_size_um` gives the unit of an image whose axes have none.

    Raises
    ------
    UserError
        When they are missing or broken.
    """
    content = _ome(folder)
    try:
        multiscale = content["multiscales"][0]
        axes = [axis["name"] for axis in multiscale["axes"]]
        first = multiscale["datasets"][0]
        array = folder / _inside(first["path"])
        shape = _shape(array)
        if axes[-2:] != ["y", "x"] or len(axes) != len(shape) or not set(axes) <= set("tczyx"):
            raise ValueError(f"axes {axes} of an array of {len(shape)} dimensions")
        scale, shift = [1.0] * len(axes), None
        for change in [*first.get("coordinateTransformations", []), *multiscale.get("coordinateTransformations", [])]:
            if change["type"] == "scale":
                factors = [float(factor) for factor in change["scale"]]
                scale = [a * b for a, b in zip(scale, factors, strict=True)]
                shift = None if shift is None else [a * b for a, b in zip(shift, factors, strict=True)]
            elif change["type"] == "translation":
                steps = [float(step) for step in change["translation"]]
                shift = [a + b for a, b in zip(shift or [0.0] * len(axes), steps, strict=True)]
        # A unit that is missing or unknown follows from the size of a pixel.
        assumed = math.nan if pixel_size_um is None or not scale[-1] > 0 else pixel_size_um / scale[-1]
        units = [_MICROMETRES.get(axis.get("unit") or "", assumed) for axis in multiscale["axes"][-2:]]
        labelled = content.get("omero", {}).get("channels", [])
        channels = [[str(entry[key]) for key in ("label", "wavelength_id") if entry.get(key)] for entry in labelled]
        y, x = (
            math.nan if shift is None else (shift[axis] + scale[axis] * (shape[axis] - 1) / 2) * units[axis]
            for axis in (-2, -1)
        )
        if any(map(math.isinf, (y, x, scale[-1]))):
            raise ValueError("a position or pixel size is infinite")
    except _MALFORMED as error:
        reason = repr(error)[:200]
        raise UserError(f"{folder}: broken metadata of the image ({reason}); convert the plate again") from None
    return _Image(array, dict(zip(axes, shape, strict=True)), channels, y, x, scale[-1] * units[-1], shift is not None)


def _ome(folder: Path) -> dict[str, Any]:
    """Return the OME metadata of a group, of either version."""
    try:
        if (folder / "zarr.json").is_file():
            attributes = json.loads((folder / "zarr.json").read_bytes()).get("attributes", {})
            return dict(attributes.get("ome", attributes))
        return dict(json.loads((folder / ".zattrs").read_bytes()))
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}); convert the plate again") from None
    except (*_MALFORMED, RecursionError):
        raise UserError(f"{folder}: its metadata are not OME-Zarr; convert the plate again") from None


def _shape(array: Path) -> list[int]:
    """Return the shape of an array without opening it: a plate has thousands."""
    shape = [int(size) for size in _metadata(array)["shape"]]
    if len(shape) < 2 or min(shape) < 1 or math.prod(shape[-2:]) > MAX_PIXELS or math.prod(shape[:-2]) > 10**6:
        raise ValueError(f"an array of shape {shape}")
    return shape


def _metadata(array: Path) -> dict[str, Any]:
    """Return the metadata of an array, of either version."""
    name = "zarr.json" if (array / "zarr.json").is_file() else ".zarray"
    try:
        return json.loads((array / name).read_bytes())
    except OSError as error:
        raise UserError(f"{array / name}: cannot be read ({error.strerror}); convert the plate again") from None


def _lacks_chunks(array: Path) -> bool:
    """Return whether an array has fewer files than chunks (shards); False where its metadata do not say."""
    content = _metadata(array)
    try:
        sizes = content["chunks"] if "chunks" in content else content["chunk_grid"]["configuration"]["chunk_shape"]
        n = math.prod(-(-whole // part) for whole, part in zip(content["shape"], sizes, strict=True))
    except (*_MALFORMED, ArithmeticError):
        return False
    return sum(name != "zarr.json" for name in walk(array)) < n


def _check_blosc(path: Path) -> None:
    """Raise a UserError when a chunk file of an array packed with Blosc was cut off.

    Blosc trusts the length in its header and reads beyond the end of its input, which gives arbitrary pixels without an
    error. Chunks in shards are found by an index that holds their lengths.
    """
    content = _metadata(path)
    codecs = [content.get("compressor"), *content.get("codecs", [])]
    names = {str(codec.get("id") or codec.get("name")) for codec in codecs if isinstance(codec, dict)}
    if "blosc" not in names:
        return
    for name in walk(path):
        if name.rpartition("/")[2] == "zarr.json":
            continue
        with (path / name).open("rb") as file:
            header = file.read(16)
            size = os.fstat(file.fileno()).st_size
        # According to the Blosc chunk format, bytes 12 to 15 are the chunk's length.
        said = int.from_bytes(header[12:16], "little")
        if len(header) < 16 or said != size:
            raise UserError(f"{path / name}: was cut off ({size} bytes of {said}); copy the plate again")


def _open(path: Path) -> zarr.Array:
    """Return an array, verified to have chunks that can be decoded.

    Raises
    ------
    UserError
        When its pixels are not numbers or a chunk is larger than `MAX_BYTES`.
    """
    _shape(path)
    array = zarr.open_array(LocalStore(path, read_only=True), mode="r")
    if array.dtype.kind not in "iuf":
        raise UserError(f"{path}: pixels of type {array.dtype}; only 8 and 16 bit grayscale can be staged")
    _check_blosc(path)
    if math.prod(array.chunks) * array.dtype.itemsize > MAX_BYTES:
        raise UserError(f"{path}: has chunks of {array.chunks} {array.dtype}, too large to read; convert it again")
    return array


def _inside(text: str) -> PurePosixPath:
    """Return a path in the metadata, verified to stay in its folder.

    Raises
    ------
    ValueError
        When it leads elsewhere.
    """
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"the path '{text}' leads out of its folder")
    return path
