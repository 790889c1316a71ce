"""Plates as OME-Zarr 0.5: the one module that knows the storage format.

A plate is an HCS plate group; a well holds one image, its mosaic (channel, y, x), with one shard per channel and one
chunk per field. Fields fill cells of one size; the positions of the fields are kept as attributes of the image, so that
field scores need no second copy of the pixels. Masks and saliency are OME-Zarr labels of the image.

What was staged is verified by digests at three levels, without a second pass over the pixels: an array's attributes
hold a digest of each of its shards, made of the checksums of the shard's chunks; the plate's attributes hold digests of
each well's table of fields and of its array; and the plate's own digest covers these, the channels and the settings.
"""

import json
import math
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wscnn.core.atomic import atomic_path, remove
from wscnn.core.errors import UserError
from wscnn.core.wells import parse_well, plate_format, row_letters, well_name
from wscnn.plates.shards import _array_metadata, _broken, _digest, _read_planes, _shard_digests, _write_array

_VERSION = "0.5"
# Colours of masks, which colour-blind people can distinguish (Okabe and Ito).
_LABEL_COLORS = [(230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167)]
#: A field's box in its mosaic, in pixels: columns of the table of fields.
BOX = ["y", "x", "height", "width"]
#: Stage position of a field: columns that the table may have.
STAGE = ["y_um", "x_um"]


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
        The plate's folder, usually the partial path of `wscnn.core.atomic.atomic_path`.
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
        positions = sorted(parse_well(well) for well in wells)
        rows, columns = plate_format(positions)
        plate = {
            "version": _VERSION,
            "name": name,
            "field_count": 1,
            # All rows and columns of the plate, also where wells are missing: a reader sees a 384-well plate as one.
            "rows": [{"name": row_letters(row)} for row in range(rows)],
            "columns": [{"name": f"{column + 1:02d}"} for column in range(columns)],
            "wells": [
                {"path": _well_path(well_name(row, column)), "rowIndex": row, "columnIndex": column}
                for row, column in positions
            ],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        _group(path, {"ome": {"version": _VERSION, "plate": plate}})
        for row in sorted({row for row, _ in positions}):
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
            One row per field: ``field, y, x, height, width`` in pixels of the mosaic; further columns (such as stage
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
        """Set the display windows of the channels, which are known once every well is written."""
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
        When there is no such plate, or its metadata are broken or differ from what was sealed.
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
        """Return one row per field of `well`: ``field, y, x, height, width`` in pixels of the mosaic, and positions."""
        return pd.DataFrame(self._fields(well))

    def all_fields(self) -> pd.DataFrame:
        """Return the rows of `fields` of all wells, with a column ``well``; absent columns are missing."""
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
                raise ValueError("a shard is not a mosaic")
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
            indices = [(names.index(name),) for name in chosen]
            # A plate that is not sealed yet may still be written to.
            return np.stack(_read_planes(folder, found, (len(names),), indices, shards if self.digest else None))

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
        """Write label images (y, x) by name, of unsigned integers and the mosaic's size, each atomically.

        Masks, whose objects are numbered from 1, carry one colour per name for viewers; images of 8 bits carry none.
        """
        labels = self.path / _well_path(well) / "0" / "labels"
        cell = self.cell(well)
        for name, image in images.items():
            meta = _multiscale(name, "yx", self.pixel_size_um)
            image_label = {"version": _VERSION, **_colors(name, image), "source": {"image": "../../"}}
            with atomic_path(labels / name) as partial:
                _group(partial, {"ome": {"version": _VERSION, "multiscales": [meta], "image-label": image_label}})
                _write_array(partial / "0", image, cell, f"{self.name}/{well}/{name}")
        listed = self.labels(well)
        if not images.keys() <= set(listed):
            # Written last and atomically: an interrupted job leaves no list, or the earlier one.
            self._list_labels(well, {*listed, *images})

    def remove_labels(self, well: str, names: Collection[str]) -> None:
        """Remove the label images `names` of `well`, where they exist."""
        labels = self.path / _well_path(well) / "0" / "labels"
        # The list first: an interrupted job leaves no name in it without its image.
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
                raise ValueError("fields are not at integer pixel positions")
            if not all(cell is None or type(cell) in (int, float) for name in STAGE for cell in columns.get(name, [])):
                raise ValueError("the stage positions are not numbers")
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
            raise ValueError("this is not what was staged, according to its digest")

    def _digest_with(self, seal: Mapping[str, Any]) -> str:
        """Return the digest of the plate as it is read under a `seal`."""
        channels = [[channel.name, *channel.window] for channel in self.channels]
        wells = [[well, seal["wells"][well]] for well in self.wells]
        return _digest([self.name, channels, self.pixel_size_um, seal["settings"], wells])


def _well_path(well: str) -> str:
    row, column = parse_well(well)
    return f"{row_letters(row)}/{column + 1:02d}"


def _colors(name: str, masks: np.ndarray) -> dict[str, Any]:
    """Return the colours of the objects of a label image: that of its name."""
    if masks.dtype == np.uint8:
        return {}
    rgb = _LABEL_COLORS[zlib.crc32(name.encode()) % len(_LABEL_COLORS)]
    numbers = np.unique(masks[masks > 0]).tolist()
    return {"colors": [{"label-value": number, "rgba": [*rgb, 255]} for number in numbers]}


def _group(folder: Path, attributes: Mapping[str, Any]) -> None:
    # Without parents: a late worker must not recreate a folder that was abandoned and removed.
    folder.mkdir(exist_ok=True)
    (folder / "zarr.json").write_bytes(_group_text(attributes))


def _group_text(attributes: Mapping[str, Any]) -> bytes:
    content = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    return json.dumps(content, allow_nan=False).encode()


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
