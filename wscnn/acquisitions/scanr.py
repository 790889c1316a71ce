"""Exports of Olympus ScanR: TIFFs named like ``A1--W00001--P00001--Z00000--T00000--GFP.tif``."""

import math
import re
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from wscnn.acquisitions.base import Acquisition, walk
from wscnn.core.errors import UserError
from wscnn.core.tables import INDEX
from wscnn.core.wells import parse_well, well_name

_NAME = re.compile(
    r"(?:(?P<well>[A-Z]{1,2}\d{1,2})--)?W\d{1,6}--P(?P<field>\d{1,6})--Z(?P<z>\d{1,6})--T(?P<time>\d{1,6})"
    r"--(?P<channel>[^/]+)\.tiff?",
    re.IGNORECASE | re.ASCII,
)


class ScanR(Acquisition):
    """A plate as ScanR exports it, usually in a folder ``data``.

    The config names a channel as the file names do (``GFP``). Neither names nor headers give positions or the size
    of a pixel. Planes and time points are counted from 0.
    """

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Return whether there is a file with such a name, well included, in the folder or in one right below it."""
        found = (_NAME.fullmatch(path.name) for depth in ("*.tif", "*/*.tif") for path in folder.glob(depth))
        return any(match and match["well"] for match in found)

    def files(self, plate: str, excluded: Collection[str] = ()) -> pd.DataFrame:
        """Return one row per image; positions are not known, the pixel size is the config's."""
        rows = []
        unnamed = ""
        for name in walk(self.folder):
            match = _NAME.fullmatch(name.rpartition("/")[2])
            if not match:
                continue
            if match["well"] is None:
                unnamed = unnamed or name
                continue
            try:
                well = well_name(*parse_well(match["well"]))
            except ValueError as error:
                raise UserError(f"{self.folder / name}: {error}") from None
            channel = self.channel(match["channel"])
            if channel is None:
                continue
            rows.append(
                (
                    plate,
                    well,
                    int(match["field"]),
                    channel,
                    int(match["z"]),
                    int(match["time"]),
                    f"{self.folder}/{name}",
                    0,
                    math.nan,
                    math.nan,
                    math.nan,
                )
            )
        if unnamed:
            raise UserError(
                f"{self.folder / unnamed}: numbers its wells through the plate and does not name them "
                "(A1--W00001--...); "
                "wscnn init lists such images in a table (acquisition.table)"
            )
        return pd.DataFrame(rows, columns=list(INDEX))
