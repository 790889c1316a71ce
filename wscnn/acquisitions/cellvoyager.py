"""Exports of Yokogawa's CellVoyager CV7000 and CV8000: ``MeasurementData.mlf``, ``.mrf``, ``.mes`` and TIFFs."""

import math
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from wscnn.acquisitions.base import Acquisition, present, without
from wscnn.acquisitions.metadata import find, plain_name, real, well_at, whole
from wscnn.acquisitions.xml import attributes, elements
from wscnn.core.errors import UserError
from wscnn.core.tables import INDEX

_RECORDS = "measurementdata.mlf"
_DETAIL = "measurementdetail.mrf"


class CellVoyager(Acquisition):
    """A measurement as a CellVoyager exports it.

    The config names a channel by its number (``Ch``), its filter (``Acquisition``, such as ``BP445/45``) or its
    ``Fluorophore``. Positions are relative to the well's centre; the instrument's y axis points up and is inverted.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        super().__init__(folder, settings)
        records = find(folder, [_RECORDS])
        if records is None:
            raise UserError(f"{folder}: no MeasurementData.mlf here or in a folder below; copy the whole measurement")
        self._records = records

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Return whether there is a list of images as a CellVoyager writes it."""
        return find(folder, [_RECORDS]) is not None

    def files(self, plate: str, excluded: Collection[str] = ()) -> pd.DataFrame:
        """Return one row per image that the measurement lists and the folder holds."""
        folder = self._records.parent
        sizes, names = self._channels()
        rows = []
        for number, (_, element) in enumerate(elements(self._records, {"MeasurementRecord"}), 1):
            record = attributes(element)
            if record.get("Type") != "IMG":
                # Errors, such as a failed autofocus, are recorded too.
                continue
            try:
                key = record.get("Ch", "")
                channel = self.channel(key, *names.get(key, []))
                if channel is None:
                    continue
                known = "X" in record and "Y" in record
                rows.append(
                    (
                        plate,
                        well_at(record.get("Row"), record.get("Column")),
                        whole(record.get("FieldIndex")),
                        channel,
                        whole(record.get("ZIndex", "1")),
                        whole(record.get("TimePoint", "1")),
                        str(folder / plain_name(element.text)),
                        0,
                        -real(record["Y"]) if known else math.nan,
                        real(record["X"]) if known else math.nan,
                        sizes.get(key, math.nan),
                    )
                )
            except ValueError as error:
                raise UserError(f"{self._records}: record {number}: {error}; copy it again") from None
        table = without(pd.DataFrame(rows, columns=list(INDEX)), excluded)
        return present(table, self._records, self.settings["z"])

    def _channels(self) -> tuple[dict[str, float], dict[str, list[str]]]:
        """Return pixel size and further names of the channels by number, as far as the files that hold them exist."""
        detail = find(self._records.parent, [_DETAIL])
        if detail is None:
            return {}, {}
        sizes, names = {}, {}
        settings = ""
        for name, element in elements(detail, {"MeasurementChannel", "MeasurementDetail"}):
            found = attributes(element)
            try:
                if name == "MeasurementDetail":
                    settings = found.get("MeasurementSettingFileName", "")
                elif "HorizontalPixelDimension" in found:
                    sizes[found.get("Ch", "")] = real(found["HorizontalPixelDimension"])
            except ValueError as error:
                raise UserError(f"{detail}: pixel size of a channel: {error}; copy it again") from None
        path = detail.parent / os.path.basename(settings)  # noqa: PTH119
        # Unlike Path.is_file, this returns False for a name that no file can have.
        if settings and os.path.isfile(path):  # noqa: PTH113
            for _, element in elements(path, {"Channel"}):
                found = attributes(element)
                known = [found.get("Fluorophore", ""), found.get("Acquisition", "")]
                names[found.get("Ch", "")] = [text for text in known if text]
        return sizes, names
