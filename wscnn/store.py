"""Plates as OME-Zarr 0.5: the one module that knows the storage format.

A plate is an HCS plate group; a well holds one image, its mosaic (channel, y, x), with one shard a channel and one
chunk a field. Fields lie in cells of one size; which field lies where is kept as attributes of the image, so that
field scores need no second copy of the pixels. Masks and saliency are OME-Zarr labels of the image.

What was staged is verified by digests at three levels, without a second pass over the pixels: an array's attributes
hold a digest of each of its shards, made of the checksums of the shard's chunks; the plate's attributes hold digests of
each well's table of fields and of its array; and the plate's own digest covers these, the channels and the settings.
"""

import json
import math
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from wscnn.atomic import atomic_path, remove
from wscnn.errors import UserError
from wscnn.wells import parse_well, plate_format, row_letters, well_name

_VERSION = "0.5"
# Bit-shuffled lz4 packs images at twice the speed of zstd and unpacks them at three times it, for a tenth more bytes
# (a fifth with 8 bits) of what is a fraction of the raw images; the checksum after it makes a flipped bit an error
# instead of a wrong pixel.
_CODECS = (BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"), Crc32cCodec())
#: Where a field lies in its mosaic, in pixels: columns of the table of fields.
BOX = ["y", "x", "height", "width"]
#: Where the stage stood: columns that the table may have.
STAGE = ["y_um", "x_um"]
# What of an array's metadata says how its bytes lie.
_LAYOUT = ["chunk_grid", "chunk_key_encoding", "codecs", "zarr_format", "node_type"]
_BLOSC = numcodecs.Blosc(cname="lz4", clevel=5, shuffle=numcodecs.Blosc.BITSHUFFLE)


@dataclass(frozen=True)
class Channel:
    """A channel as viewers show it.

    Attributes
    ----------
    name
        As in the config.
    color
        Six hexadecimal digits.
    window
        Intensities shown as black and as full colour.
    """

    name: str
    color: str
    window: tuple[float, float]


class PlateWriter:
    """A new plate; wells may be written by several threads or processes, each well by one.

    Parameters
    ----------
    path
        The plate's folder, as a rule the partial path of `wscnn.atomic.atomic_path`.
    name
        The plate's name.
    wells
        Names of the wells that will be written.
    channels
        In the order of the arrays' first axis.
    pixel_size_um
        Size of a pixel of the mosaics, None where not known.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        wells: Sequence[str],
        channels: Sequence[Channel],
        pixel_size_um: float | None,
    ) -> None:
        self.path = path
        self.name = name
        self.wells = list(wells)
        self.channels = list(channels)
        self.pixel_size_um = pixel_size_um
        places = sorted(parse_well(well) for well in wells)
        rows, columns = plate_format(places)
        plate = {
            "version": _VERSION,
            "name": name,
            "field_count": 1,
            # All rows and columns of the plate, also where wells are missing: a reader sees a 384-well plate as one.
            "rows": [{"name": row_letters(row)} for row in range(rows)],
            "columns": [{"name": f"{column + 1:02d}"} for column in range(columns)],
            "wells": [
                {"path": _well_path(well_name(row, column)), "rowIndex": row, "columnIndex": column}
                for row, column in places
            ],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        _group(path, {"ome": {"version": _VERSION, "plate": plate}})
        for row in sorted({row for row, _ in places}):
            _group(path / row_letters(row), {})

    def write_well(self, well: str, mosaic: np.ndarray, fields: pd.DataFrame, cell: tuple[int, int]) -> list[str]:
        """Write one well whole; return the digests of its table of fields and of its pixels, for `seal`.

        Parameters
        ----------
        well
            Its name.
        mosaic
            Shape (channel, y, x); y and x are multiples of `cell`.
        fields
            A row a field: ``field, y, x, height, width`` in pixels of the mosaic; further columns (such as stage
            positions) are kept; NaN becomes null, which strict JSON can hold.
        cell
            Height and width of a field's cell: the chunk.
        """
        folder = self.path / _well_path(well)
        _group(folder, {"ome": {"version": _VERSION, "well": {"images": [{"path": "0"}]}}})
        omero = {
            "channels": [
                {
                    "label": channel.name,
                    "color": channel.color,
                    "active": True,
                    "window": {
                        "min": 0,
                        "max": float(np.iinfo(mosaic.dtype).max),
                        "start": channel.window[0],
                        "end": channel.window[1],
                    },
                }
                for channel in self.channels
            ]
        }
        ome = {"version": _VERSION, "multiscales": [_multiscale(well, "cyx", self.pixel_size_um)], "omero": omero}
        columns = {
            name: [None if isinstance(value, float) and not math.isfinite(value) else value for value in values]
            for name, values in fields.to_dict("list").items()
        }
        layout = {"cell": list(cell), "fields": columns}
        _group(folder / "0", {"ome": ome, "wscnn": layout})
        pixels = _write_array(folder / "0" / "0", mosaic, cell, f"{self.name}/{well}")
        return [_digest([well, layout]), _digest([well, pixels])]

    def set_windows(self, windows: Sequence[tuple[float, float]]) -> None:
        """Give the channels the intensities they are shown with, which are known once every well is written."""
        for well in self.wells:
            folder = self.path / _well_path(well) / "0"
            attributes = _attributes(folder)
            for channel, (start, end) in zip(attributes["ome"]["omero"]["channels"], windows, strict=True):
                channel["window"] |= {"start": start, "end": end}
            _group(folder, attributes)

    def seal(self, digests: Mapping[str, Sequence[str]], settings: Mapping[str, Any]) -> str:
        """Record in the plate's metadata what was written, last of all; return the plate's digest.

        Parameters
        ----------
        digests
            What `write_well` returned for each well.
        settings
            The settings that the plate was staged with, as JSON can hold them.
        """
        plate = Plate(self.path)
        seal = {"settings": _digest(settings), "wells": {well: list(digests[well]) for well in plate.wells}}
        digest = plate._digest_with(seal)
        _group(self.path, _attributes(self.path) | {"wscnn": {"digest": digest, **seal}})
        return digest


class Plate:
    """A staged plate, open for reading.

    Parameters
    ----------
    path
        The plate's folder.

    Attributes
    ----------
    digest
        That of settings and pixels, as `PlateWriter.seal` recorded it; None where an earlier version staged the plate.

    Raises
    ------
    UserError
        When there is no such plate, or its metadata is broken or is not what was sealed.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        meta = _attributes(self.path)
        with _broken(self.path, "metadata"):
            plate = meta["ome"]["plate"]
            self.name = str(plate["name"])
            self.wells: list[str] = [well_name(*parse_well(entry["path"].replace("/", ""))) for entry in plate["wells"]]
            self.shape: tuple[int, int] = (len(plate["rows"]), len(plate["columns"]))
            seal = meta.get("wscnn")
            self.digest: str | None = None if seal is None else str(seal["digest"])
            self._digests: dict[str, list[str]] | None = None if seal is None else dict(seal["wells"])
            first = self._image(self.wells[0])
        with _broken(self.path / _well_path(self.wells[0]) / "0", "metadata"):
            self.channels = [
                Channel(
                    str(entry["label"]),
                    str(entry["color"]),
                    (float(entry["window"]["start"]), float(entry["window"]["end"])),
                )
                for entry in first["ome"]["omero"]["channels"]
            ]
            axis = first["ome"]["multiscales"][0]
            known = axis["axes"][-1].get("unit") == "micrometer"
            scale = axis["datasets"][0]["coordinateTransformations"][0]["scale"]
            #: Size of a pixel, None where not known.
            self.pixel_size_um: float | None = float(scale[-1]) if known else None
        with _broken(self.path, "metadata"):
            if seal is not None and self._digest_with(seal) != self.digest:
                raise ValueError("name, channels, pixel size or wells are not those that were staged")

    def fields(self, well: str) -> pd.DataFrame:
        """Return a row a field of `well`: ``field, y, x, height, width`` in pixels of the mosaic, and positions."""
        return pd.DataFrame(self._fields(well))

    def all_fields(self) -> pd.DataFrame:
        """Return the rows of `fields` of all wells, with a column ``well``; what a well does not tell is missing."""
        tables = {well: self._fields(well) for well in self.wells}
        names = dict.fromkeys(name for own in tables.values() for name in own)
        wells = [well for well, own in tables.items() for _ in own["field"]]
        columns = {
            name: [cell for own in tables.values() for cell in own.get(name, [np.nan] * len(own["field"]))]
            for name in names
        }
        return pd.DataFrame({"well": wells} | columns)

    def cell(self, well: str) -> tuple[int, int]:
        """Return height and width of a field's cell in the mosaic of `well`."""
        with _broken(self.path / _well_path(well) / "0", "metadata"):
            height, width = self._image(well)["wscnn"]["cell"]
            return int(height), int(width)

    def mosaic_shape(self, well: str) -> tuple[int, int]:
        """Return height and width of the mosaic of `well`."""
        folder = self.path / _well_path(well) / "0" / "0"
        with _broken(folder, "metadata"):
            content = _array_metadata(folder)
            height, width = content["shape"][-2:]
            if content["chunk_grid"]["configuration"]["chunk_shape"][-2:] != [height, width]:
                raise ValueError("a shard is no mosaic")
            return int(height), int(width)

    def read(self, well: str, channels: Sequence[str] | None = None) -> np.ndarray:
        """Return the mosaic of `well`, shape (channel, y, x), of all channels or of those named, in that order.

        Raises
        ------
        UserError
            When pixels are missing or damaged.
        """
        names = [channel.name for channel in self.channels]
        chosen = names if channels is None else list(channels)
        folder = self.path / _well_path(well) / "0" / "0"
        with _broken(f"{folder}, well {well}", "pixels"):
            found = _array_metadata(folder)
            self._verify(well, 1, found.get("attributes", {}).get("wscnn"))
            shards = _shard_digests(found, f"{self.name}/{well}")
            places = [(names.index(name),) for name in chosen]
            # A plate that is not sealed yet may still be written to.
            return np.stack(_read_planes(folder, found, (len(names),), places, shards if self.digest else None))

    def read_label(self, well: str, name: str) -> np.ndarray:
        """Return the label image (y, x) called `name` of `well`.

        Raises
        ------
        UserError
            When pixels are missing or damaged.
        """
        folder = self.path / _well_path(well) / "0" / "labels" / name / "0"
        with _broken(f"{folder}, well {well}", "pixels", "score"):
            found = _array_metadata(folder)
            return _read_planes(folder, found, (), [()], _shard_digests(found, f"{self.name}/{well}/{name}"))[0]

    def write_labels(self, well: str, images: Mapping[str, np.ndarray]) -> None:
        """Write label images (y, x) by name, of unsigned integers and the mosaic's size, each atomically."""
        labels = self.path / _well_path(well) / "0" / "labels"
        image_label = {"version": _VERSION, "source": {"image": "../../"}}
        cell = self.cell(well)
        for name, image in images.items():
            meta = _multiscale(name, "yx", self.pixel_size_um)
            with atomic_path(labels / name) as partial:
                _group(partial, {"ome": {"version": _VERSION, "multiscales": [meta], "image-label": image_label}})
                _write_array(partial / "0", image, cell, f"{self.name}/{well}/{name}")
        listed = self.labels(well)
        if not images.keys() <= set(listed):
            # Last and whole: a job that is cut off leaves no list, or an earlier one.
            self._list_labels(well, {*listed, *images})

    def remove_labels(self, well: str, names: Collection[str]) -> None:
        """Remove those label images of `well` that are called so."""
        labels = self.path / _well_path(well) / "0" / "labels"
        # The list first: a job that is cut off leaves no name in it without its image.
        self._list_labels(well, [name for name in self.labels(well) if name not in names])
        for name in names:
            remove(labels / name)

    def labels(self, well: str) -> list[str]:
        """Return the names of the label images of `well`."""
        folder = self.path / _well_path(well) / "0" / "labels"
        if not (folder / "zarr.json").is_file():
            return []
        with _broken(folder, "metadata"):
            return [str(name) for name in _attributes(folder)["ome"]["labels"]]

    def _list_labels(self, well: str, names: Collection[str]) -> None:
        with atomic_path(self.path / _well_path(well) / "0" / "labels" / "zarr.json") as partial:
            partial.write_bytes(_group_text({"ome": {"version": _VERSION, "labels": sorted(names)}}))

    def _fields(self, well: str) -> dict[str, list[Any]]:
        """Return columns of the table of fields, checked."""
        with _broken(self.path / _well_path(well) / "0", "metadata"):
            columns = dict(self._image(well)["wscnn"]["fields"])
            if not all(type(cells) is list and len(cells) == len(columns["field"]) for cells in columns.values()):
                raise ValueError("columns of fields differ in length")
            if not all(type(cell) is int and 0 <= cell < 2**31 for name in ("field", *BOX) for cell in columns[name]):
                raise ValueError("fields are not at whole pixels")
            if not all(cell is None or type(cell) in (int, float) for name in STAGE for cell in columns.get(name, [])):
                raise ValueError("the stage's positions are no numbers")
        return {name: [np.nan if cell is None else cell for cell in cells] for name, cells in columns.items()}

    def _image(self, well: str) -> dict[str, Any]:
        """Return the attributes of the image of `well`, verified."""
        folder = self.path / _well_path(well) / "0"
        attributes = _attributes(folder)
        with _broken(folder, "metadata"):
            if (name := attributes["ome"]["multiscales"][0]["name"]) != well:
                raise ValueError(f"this is the image of well {name}")
            self._verify(well, 0, attributes["wscnn"])
        return attributes

    def _verify(self, well: str, part: int, content: object) -> None:
        """Raise a ValueError where the seal has another digest of `content`: the table of fields (0), pixels (1)."""
        if self._digests is not None and _digest([well, content]) != self._digests[well][part]:
            raise ValueError("this is not what was staged, by its digest")

    def _digest_with(self, seal: Mapping[str, Any]) -> str:
        """Return the digest of the plate as it is read under a `seal`."""
        channels = [[channel.name, *channel.window] for channel in self.channels]
        wells = [[well, seal["wells"][well]] for well in self.wells]
        return _digest([self.name, channels, self.pixel_size_um, seal["settings"], wells])


@contextmanager
def _broken(where: Path | str, what: str, stage: str = "stage") -> Iterator[None]:
    """Tell what a block stumbles over as damage to the file or well at `where`, and which `stage` mends it."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # whatever comes of broken metadata or pixels is the file's fault
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"{where}: damaged {what} ({reason}); {stage} the plate again") from None


def _array_metadata(folder: Path) -> dict[str, Any]:
    if not (folder / "zarr.json").is_file():
        raise UserError(f"{folder}: no such image; run the stage that makes it first")
    return dict(json.loads((folder / "zarr.json").read_bytes()))


def _shard_digests(found: Mapping[str, Any], owner: str) -> list[str] | None:
    """Return the digests of an array's shards, verified to be the `owner`'s; None where an earlier version wrote it."""
    pixels = found.get("attributes", {}).get("wscnn")
    if pixels is None:
        return None
    if pixels["owner"] != owner:
        raise ValueError(f"these are the pixels of {pixels['owner']}, not of {owner}")
    return list(pixels["shards"])


def _read_planes(
    folder: Path,
    found: Mapping[str, Any],
    lead: tuple[int, ...],
    places: Sequence[tuple[int, ...]],
    digests: Sequence[str] | None,
) -> list[np.ndarray]:
    """Return the (y, x) planes at `places` of the array at `folder`, of shape (*lead, y, x), as `_write_array` made it.

    Zarr's own reading spends several times the work of unpacking, and reads a missing shard as zeros without a word.

    Parameters
    ----------
    folder, found
        Of the array, and its metadata.
    lead, places
        See above.
    digests
        Of all shards of the array in order; None where they are not to be verified.
    """
    shape, dtype = tuple(found["shape"]), np.dtype(found["data_type"])
    rows, columns = found["codecs"][0]["configuration"]["chunk_shape"][-2:]
    expected = json.loads(_array_text(shape, dtype, (rows, columns)))
    other = [key for key in _LAYOUT if found[key] != expected[key]]
    if shape[:-2] != lead or dtype.kind != "u" or other:
        raise ValueError(f"not as it was written: {dtype}, shape {shape}{''.join(f', {key}' for key in other)}")
    planes = []
    for place in places:
        shard = folder.joinpath("c", *map(str, place), "0", "0")
        if not shard.is_file() or shard.stat().st_size == 0:
            raise UserError(f"{folder}: pixels are missing; delete the plate's folder and stage it again")
        plane, digest = _unshard(shard.read_bytes(), shape[-2:], dtype, (rows, columns))
        if digests is not None and digests[list(np.ndindex(lead)).index(place)] != digest:
            raise ValueError(f"the shard {shard.relative_to(folder)} is of other pixels, by its digest")
        planes.append(plane)
    return planes


def _well_path(well: str) -> str:
    row, column = parse_well(well)
    return f"{row_letters(row)}/{column + 1:02d}"


def _group(folder: Path, attributes: Mapping[str, Any]) -> None:
    # Without parents: a worker that is late does not build anew what was given up and removed.
    folder.mkdir(exist_ok=True)
    (folder / "zarr.json").write_bytes(_group_text(attributes))


def _group_text(attributes: Mapping[str, Any]) -> bytes:
    content = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    return json.dumps(content, allow_nan=False).encode()


def _digest(content: object) -> str:
    """Return a digest of what JSON can hold."""
    return sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()[:32]


def _attributes(folder: Path) -> dict[str, Any]:
    """Return the attributes of the group at `folder`."""
    try:
        return json.loads((folder / "zarr.json").read_bytes())["attributes"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{folder}: not a readable OME-Zarr group; stage the plate again") from None


def _multiscale(name: str, axes: str, pixel_size_um: float | None) -> dict[str, Any]:
    unit = {} if pixel_size_um is None else {"unit": "micrometer"}
    size = 1.0 if pixel_size_um is None else pixel_size_um
    return {
        "name": name,
        "axes": [
            {"name": axis, "type": "channel"} if axis == "c" else {"name": axis, "type": "space", **unit}
            for axis in axes
        ],
        "datasets": [
            {
                "path": "0",
                "coordinateTransformations": [
                    {"type": "scale", "scale": [1.0 if axis == "c" else size for axis in axes]}
                ],
            }
        ],
    }


def _write_array(folder: Path, image: np.ndarray, cell: tuple[int, int], owner: str) -> dict[str, Any]:
    """Write an array with one chunk a cell and one shard for each (y, x) plane; return its attributes of ours.

    These are the `owner` (plate, well and, of a label, its name) and the digest of each shard in order.
    """
    digests = []
    for place in np.ndindex(image.shape[:-2]):
        shard = folder.joinpath("c", *map(str, place), "0", "0")
        shard.parent.mkdir(parents=True, exist_ok=True)
        content, digest = _shard(image[place], cell)
        shard.write_bytes(content)
        digests.append(digest)
    pixels = {"owner": owner, "shards": digests}
    metadata = json.loads(_array_text(image.shape, image.dtype, cell)) | {"attributes": {"wscnn": pixels}}
    (folder / "zarr.json").write_text(json.dumps(metadata, allow_nan=False))
    return pixels


@cache
def _array_text(shape: tuple[int, ...], dtype: np.dtype, cell: tuple[int, int]) -> bytes:
    """Return the metadata of an array, the same for every well of a plate."""
    lead = (1,) * (len(shape) - 2)
    written: dict[str, Buffer] = {}
    zarr.create_array(
        MemoryStore(written),
        shape=shape,
        chunks=(*lead, *cell),
        shards=(*lead, *shape[-2:]),
        dtype=dtype,
        compressors=_CODECS,
        dimension_names=["c", "y", "x"][-len(shape) :],
    )
    return written["zarr.json"].to_bytes()


def _shard(plane: np.ndarray, cell: tuple[int, int]) -> tuple[bytes, str]:
    """Return a (y, x) plane as one Zarr shard: its chunks, each with a checksum, then the index of where they lie.

    Beside it stands the shard's digest, that of its checksums: pixels need no second pass.

    Zarr's own writer spends several times the work of compression on each chunk; the layout is the specification's
    (sharding codec 1.0, index at the end). Chunks that hold only zeros are written too: a missing shard then always
    means lost data.
    """
    rows, columns = plane.shape[0] // cell[0], plane.shape[1] // cell[1]
    index = np.empty((rows, columns, 2), "<u8")
    parts = []
    start = 0
    for row, column in np.ndindex(rows, columns):
        chunk = plane[row * cell[0] : (row + 1) * cell[0], column * cell[1] : (column + 1) * cell[1]]
        packed = pack(chunk)
        index[row, column] = start, len(packed)
        start += len(packed)
        parts.append(packed)
    parts.append(_checksummed(index.tobytes()))
    return b"".join(parts), _shard_digest(parts)


def _shard_digest(parts: Sequence[bytes]) -> str:
    """Return the digest of a shard whose chunks and index, each with its checksum at the end, are `parts`."""
    return sha256(b"".join(part[-4:] for part in parts)).hexdigest()[:32]


def _unshard(shard: bytes, shape: tuple[int, int], dtype: np.dtype, cell: tuple[int, int]) -> tuple[np.ndarray, str]:
    """Return the plane that `_shard` packed and the digest; ValueError where a checksum or a size is not right."""
    rows, columns = shape[0] // cell[0], shape[1] // cell[1]
    size = rows * columns * 16 + 4  # of the index: two numbers a chunk, and a checksum
    index = np.frombuffer(_checked(shard[-size:]), "<u8").reshape(rows, columns, 2)
    plane = np.empty(shape, dtype)
    checksums = []
    for row, column in np.ndindex(rows, columns):
        start, length = index[row, column].tolist()
        checksums.append(shard[max(start, start + length - 4) : start + length])
        chunk = np.frombuffer(_BLOSC.decode(_checked(shard[start : start + length])), dtype.newbyteorder("<"))
        plane[row * cell[0] : (row + 1) * cell[0], column * cell[1] : (column + 1) * cell[1]] = chunk.reshape(cell)
    return plane, _shard_digest([*checksums, shard[-4:]])


def pack(chunk: np.ndarray) -> bytes:
    """Return a chunk as it is stored: compressed, with its checksum."""
    return _checksummed(_BLOSC.encode(np.ascontiguousarray(chunk, chunk.dtype.newbyteorder("<"))))


def _checksummed(data: bytes) -> bytes:
    return data + struct.pack("<I", google_crc32c.value(data))


def _checked(data: bytes) -> bytes:
    """Return what `_checksummed` was given."""
    content = data[:-4]
    if _checksummed(content) != data:
        raise ValueError("a checksum is not right")
    return content
