"""Exports of Harmony, from Operetta and Opera Phenix: ``Images/Index.idx.xml`` (or ``Index.xml``) and TIFFs."""

import json
import math
import re
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

import numpy as np
import pandas as pd

from wscnn.acquisitions.base import Acquisition, present, without
from wscnn.acquisitions.metadata import find, plain_name, real, well_at, whole
from wscnn.acquisitions.tiff import MAX_PIXELS
from wscnn.acquisitions.xml import children, elements, local
from wscnn.core.errors import UserError
from wscnn.core.tables import INDEX

_NAMES = ("index.idx.xml", "index.xml")
_MICROMETRES = {"m": 1e6, "mm": 1e3, "um": 1.0, "µm": 1.0, "μm": 1.0, "nm": 1e-3}
_NUMBERS = r"\s*:\s*(\[[-+\d.eE,\s\[\]]*\])"


class _Image(NamedTuple):
    name: str
    well: str
    field: int
    plane: int
    time: int
    channel_id: str
    channel_name: str
    y_um: float
    x_um: float
    pixel_size_um: float


class _Channel(NamedTuple):
    name: str
    pixel_size_um: float
    profile: str


class Phenix(Acquisition):
    """A measurement as Harmony exports it.

    The config names a channel by its number (``ChannelID``) or its name (``ChannelName``). Fields, planes and time
    points keep Harmony's numbers; Harmony's y axis points up and is inverted.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        super().__init__(folder, settings)
        path = find(folder, _NAMES)
        if path is None:
            raise UserError(
                f"{folder}: no Index.idx.xml or Index.xml here or in a folder below; export it with Harmony"
            )
        self._path = path

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Return whether there is a Harmony index."""
        return find(folder, _NAMES) is not None

    def files(self, plate: str, excluded: Collection[str] = ()) -> pd.DataFrame:
        """Return one row per image that the index lists and the folder holds."""
        images, channels = self._index
        rows = []
        for image in images:
            shared = channels.get(image.channel_id, _Channel("", math.nan, ""))
            name = image.channel_name or shared.name
            channel = self.channel(*filter(None, (image.channel_id, name)))
            if channel is not None:
                size = shared.pixel_size_um if math.isnan(image.pixel_size_um) else image.pixel_size_um
                path = str(self._path.parent / image.name)
                where = (path, 0, image.y_um, image.x_um, size)
                rows.append((plate, image.well, image.field, channel, image.plane, image.time, *where))
        table = without(pd.DataFrame(rows, columns=list(INDEX)), excluded)
        return present(table, self._path, self.settings["z"])

    def flatfield(self, channel: str) -> np.ndarray | None:
        """Return the gain map of the background profile (a polynomial) that Harmony fitted to the measurement."""
        images, channels = self._index
        names = {image.channel_id: image.channel_name for image in images}
        for key, entry in channels.items():
            known = filter(None, (key, names.get(key, ""), entry.name))
            if entry.profile and self.channel(*known) == channel:
                try:
                    return gain_map(entry.profile)
                except ValueError as error:
                    raise UserError(f"{self._path}: flat-field profile of channel {key}: {error}") from None
        return None

    @cached_property
    def _index(self) -> tuple[list[_Image], dict[str, _Channel]]:
        """Return the listed images, and the entries that describe each channel for all images."""
        images = []
        channels: dict[str, _Channel] = {}
        for name, element in elements(self._path, {"Image", "Entry"}):
            parts = children(element)
            try:
                if name == "Entry" and element.attrib.get("ChannelID"):
                    # Harmony 4 writes one map per kind of entry, Harmony 5 one map with all entries.
                    before = channels.get(element.attrib["ChannelID"], _Channel("", math.nan, ""))
                    channels[element.attrib["ChannelID"]] = _Channel(
                        _text(parts, "ChannelName") or before.name,
                        _length(parts, "ImageResolutionX") if "ImageResolutionX" in parts else before.pixel_size_um,
                        _text(parts, "FlatfieldProfile") or before.profile,
                    )
                elif name == "Image" and "URL" in parts:
                    images.append(_image(parts))
            except ValueError as error:
                raise UserError(
                    f"{self._path}: {name} {len(images) + 1}: {error}; export the measurement again"
                ) from None
        if not images:
            raise UserError(f"{self._path}: lists no image; export the measurement again")
        return images, channels


def gain_map(profile: str) -> np.ndarray:
    """Return the gain map (y, x; float32, mean 1) of the background in a Harmony flat-field profile.

    The profile is a polynomial of the position in the field: coefficients by degree, within each by falling powers of x
    and rising powers of y, where x and y are pixel numbers minus ``Origin``, times ``Scale``.

    Parameters
    ----------
    profile
        The text of an element ``FlatfieldProfile``.

    Raises
    ------
    ValueError
        When it holds no such polynomial, or one that is not positive all over the field.
    """
    background = re.split(r"[,{]\s*Foreground\s*:", profile)[0]
    found = {}
    for key in ("Coefficients", "Dims", "Origin", "Scale"):
        match = re.search(key + _NUMBERS, background)
        if not match:
            raise ValueError(f"no {key} of a background polynomial")
        found[key] = json.loads(match[1])
    try:
        coefficients = [[float(value) for value in degree] for degree in found["Coefficients"]]
        (width, height), origin, scale = found["Dims"], found["Origin"], found["Scale"]
        if not 0 < int(width) * int(height) <= MAX_PIXELS or len(coefficients) > 10:
            raise ValueError(f"{width} x {height} pixels and degree {len(coefficients) - 1} cannot be")
        x = (np.arange(int(width)) - float(origin[0])) * float(scale[0])
        y = (np.arange(int(height)) - float(origin[1])) * float(scale[1])
        gain = np.zeros((len(y), len(x)))
        for degree, values in enumerate(coefficients):
            for power, value in enumerate(values):
                gain += value * np.outer(y**power, x ** max(degree - power, 0))
    except (TypeError, IndexError, OverflowError) as error:
        raise ValueError(f"not a polynomial ({error})") from None
    with np.errstate(over="ignore"):
        mean = gain.mean()
    if not (gain.min() > 0 and np.isfinite(mean)):
        raise ValueError("the gain is not positive and finite everywhere")
    return (gain / mean).astype(np.float32)


def _image(parts: Mapping[str, Element]) -> _Image:
    known = "PositionX" in parts and "PositionY" in parts
    if not (_text(parts, "ChannelID") or _text(parts, "ChannelName")):
        raise ValueError("has neither ChannelID nor ChannelName")
    return _Image(
        name=plain_name(_text(parts, "URL")),
        well=well_at(_text(parts, "Row"), _text(parts, "Col")),
        field=whole(_text(parts, "FieldID")),
        plane=whole(_text(parts, "PlaneID") or "1"),
        time=whole(_text(parts, "TimepointID") or "0"),
        channel_id=_text(parts, "ChannelID"),
        channel_name=_text(parts, "ChannelName"),
        y_um=-_length(parts, "PositionY") if known else math.nan,
        x_um=_length(parts, "PositionX") if known else math.nan,
        pixel_size_um=_length(parts, "ImageResolutionX") if "ImageResolutionX" in parts else math.nan,
    )


def _text(parts: Mapping[str, Element], name: str) -> str:
    return (parts[name].text or "").strip() if name in parts else ""


def _length(parts: Mapping[str, Element], name: str) -> float:
    """Return a length in micrometres."""
    unit = {local(key): value for key, value in parts[name].attrib.items()}.get("Unit", "m")
    if unit not in _MICROMETRES:
        raise ValueError(f"{name} has the unit '{unit[:20]}'")
    value = real(_text(parts, name)) * _MICROMETRES[unit]
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value:g} um")
    return value
