"""Exports of MetaXpress, from ImageXpress: ``.HTD`` and TIFFs named like ``<plate>_B02_s1_w1.TIF``."""

import csv
import math
import re
from collections.abc import Collection
from functools import cached_property
from pathlib import Path

import pandas as pd
import tifffile

from wscnn.acquisitions.base import ONLY, Acquisition, walk
from wscnn.core.errors import UserError
from wscnn.core.progress import progress
from wscnn.core.tables import INDEX
from wscnn.core.wells import parse_well, well_name

# What follows the wavelength is an identifier that MetaXpress adds where it exports from its database.
_NAME = re.compile(
    r".+_(?P<well>[A-Z]{1,2}\d{2})(?:_s(?P<site>\d{1,6}))?(?:_w(?P<wave>\d{1,2}))?"
    r"(?:[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12})?\.tiff?",
    re.IGNORECASE | re.ASCII,
)
_STEP = re.compile(r"(?P<kind>TimePoint|ZStep)_(?P<number>\d{1,6})", re.IGNORECASE | re.ASCII)


class ImageXpress(Acquisition):
    """A plate as MetaXpress exports it, with folders ``TimePoint_<n>`` and ``ZStep_<n>`` where there are several.

    The config names a channel by its number (``1`` for ``_w1``) or its name in the ``.HTD`` (``WaveName1``). Where
    MetaXpress projected the z planes, its projection is plane 0 (``ZStep_0``). Positions and pixel size are in the
    headers of the images.
    """

    projection = 0
    positions_in_headers = True

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Return whether there is an ``.HTD`` file."""
        return any(path.suffix.lower() == ".htd" for depth in ("*", "*/*") for path in folder.glob(depth))

    def files(self, plate: str, excluded: Collection[str] = ()) -> pd.DataFrame:
        """Return one row per image; positions and pixel size are not known yet."""
        rows = []
        n_images = 0
        # Where there are folders of planes, an image beside them is a projection, or the only plane of its channel.
        beside = 0 if any("zstep_" in name.lower() for name in self._names) else ONLY
        for name in self._names:
            folders, _, file = name.rpartition("/")
            match = _NAME.fullmatch(file)
            if not match:
                continue
            try:
                well = well_name(*parse_well(match["well"]))
            except ValueError:
                continue
            n_images += 1
            wave = match["wave"] or "1"
            channel = self.channel(wave, f"w{wave}", *filter(None, [self._wave_names.get(int(wave))]))
            if channel is None:
                continue
            steps = {
                step["kind"].lower(): int(step["number"]) for step in map(_STEP.fullmatch, folders.split("/")) if step
            }
            rows.append(
                (
                    plate,
                    well,
                    int(match["site"] or ONLY),
                    channel,
                    steps.get("zstep", beside),
                    steps.get("timepoint", ONLY),
                    str(self.folder / name),
                    0,
                    math.nan,
                    math.nan,
                    math.nan,
                )
            )
        if not n_images:
            raise UserError(
                f"{self.folder}: no image named like <plate>_B02_s1_w1.TIF; give acquisition.format pattern and "
                "a pattern if the files were renamed"
            )
        return pd.DataFrame(rows, columns=list(INDEX))

    def headers(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return an index with positions and pixel size from the header of one image of each field."""
        first = table.drop_duplicates(["well", "field"])
        positions = {
            (row.well, row.field): _header(Path(str(row.path)))
            for row in progress(first.itertuples(), len(first), "headers read")
        }
        known = [positions[key] for key in zip(table["well"], table["field"], strict=True)]
        table[["y_um", "x_um", "pixel_size_um"]] = pd.DataFrame(known, index=table.index, dtype="float64")
        return table

    @cached_property
    def _names(self) -> list[str]:
        """Return the paths of all files, below the folder, which is one plate's.

        The ``.HTD`` may be repeated in each folder of a time point or plane; elsewhere a second is another plate's.
        """
        names = list(walk(self.folder))
        plates: dict[tuple[str, ...], str] = {}
        for name in names:
            if name.lower().endswith(".htd"):
                *folders, _ = name.split("/")
                plates.setdefault(tuple(part for part in folders if not _STEP.fullmatch(part)), name)
        if len(plates) > 1:
            first, second = [self.folder / name for name in plates.values()][:2]
            raise UserError(f"{self.folder}: holds several plates ({first}, {second}); give each plate its own folder")
        return names

    @cached_property
    def _wave_names(self) -> dict[int, str]:
        """Return the names of the wavelengths that the ``.HTD`` gives, by number; none where there is no such file."""
        for name in sorted(self._names, key=lambda name: (name.count("/"), name)):
            if name.lower().endswith(".htd"):
                return read_wave_names(self.folder / name)
        return {}


def read_wave_names(path: Path) -> dict[int, str]:
    """Return ``WaveName<n>`` of an ``.HTD`` file by n.

    Raises
    ------
    UserError
        When the file cannot be read or is not such a file.
    """
    try:
        text = path.read_bytes().decode("latin-1")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if "HTSInfoFile" not in text[:100]:
        raise UserError(f"{path}: not a MetaXpress .HTD file; export the plate again")
    names = {}
    for line in text.splitlines():
        cells = next(csv.reader([line.replace("\0", "")[:10000]], skipinitialspace=True), [])
        match = re.fullmatch(r"WaveName(\d{1,3})", cells[0], re.ASCII) if len(cells) == 2 else None
        if match:
            names[int(match[1])] = cells[1].strip()
    return names


def _header(path: Path) -> tuple[float, float, float]:
    """Return y and x of the stage and the pixel size, all in micrometres, NaN where the header has none.

    The stage's y grows from row A to row H, as the rows of the images do.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            description = tiff.pages.first.description
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # whatever broken bytes lead to is the file's fault
        raise UserError(f"{path}: not a readable TIFF ({' '.join(str(error).split())[:200]})") from None
    found = dict(re.findall(r'<prop id="([\w-]+)" type="\w+" value="([^"]*)"', description))
    calibrated = found.get("spatial-calibration-state") == "on" and found.get("spatial-calibration-units") == "um"
    size = _number(found.get("spatial-calibration-x")) if calibrated else math.nan
    return _number(found.get("stage-position-y")), _number(found.get("stage-position-x")), size


def _number(text: str | None) -> float:
    try:
        value = float(text or "nan")
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan
