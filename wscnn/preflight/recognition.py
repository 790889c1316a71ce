"""What a folder of images holds: the instrument, or what the names of the files say."""

import csv
import io
import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from wscnn.acquisitions import open_acquisition, recognise
from wscnn.acquisitions.base import walk
from wscnn.acquisitions.image_table import ImageTable
from wscnn.acquisitions.index import duplicates
from wscnn.acquisitions.naming import recognise_names
from wscnn.acquisitions.pattern import Pattern
from wscnn.acquisitions.schemes import Naming
from wscnn.core.config import section
from wscnn.core.errors import UserError, listed
from wscnn.core.wells import check_name, parse_well
from wscnn.staging.regions import NUCLEI

#: The table of images that a screen's folder gets where no pattern expresses their names.
LISTED = "images.tsv"
# In place of the channels of a config, to find out which there are.
_NO_CHANNEL = {"channels": {"-": "none"}}


@dataclass(frozen=True)
class Found:
    """What a folder of images holds.

    Attributes
    ----------
    by
        How the images were recognised, in words.
    plates
        The folder of each plate, by the plate's name.
    acquisition
        The keys of the config's section that read them.
    images
        One row per image, as a reader lists them; channels are called as in `acquisition`, paths are below the plate's
        folder.
    left_out
        Image files and folders that are not used.
    notes
        A sentence each on what the user should know.
    table
        The table of images where no pattern can say what the names mean.
    """

    by: str
    plates: dict[str, Path]
    acquisition: dict[str, Any]
    images: pd.DataFrame
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    table: pd.DataFrame | None = None

    @property
    def wells(self) -> dict[str, list[str]]:
        """The wells of each plate, in the order of the plate."""
        by_plate = self.images.groupby("plate")["well"].unique()
        return {plate: sorted(by_plate[plate], key=parse_well) for plate in self.plates}


def look_at(images: Path, pattern: str | None = None, table: Path | None = None, wells: int | None = None) -> Found:
    """Return what a folder of images holds: one plate, or several in folders or by the names of the files.

    Parameters
    ----------
    images
        The folder, or an OME-Zarr plate.
    pattern
        A regular expression for the file names, as ``acquisition.pattern``, where the user gives one.
    table
        A table of the images, as ``acquisition.table``, where the user gives one.
    wells
        How many wells a plate has; needed only where names number the wells through the plate.

    Raises
    ------
    UserError
        When the folder is missing, or its files do not say what they are.
    """
    images = absolute(images)
    if not images.is_dir():
        raise UserError(f"{images}: no such folder; give the folder of the images")
    if table is not None:
        listing = {"format": "table", "table": str(absolute(table))}
        names = ImageTable(images, section("acquisition", json.dumps(listing | _NO_CHANNEL))).plates
        return _found(f"the table {table}", dict.fromkeys(names or [_plate_name(images)], images), listing)
    if pattern is not None:
        return _by_pattern("the pattern", images, pattern)
    return _by_instrument(images) or _by_names(images, wells)


def _by_instrument(images: Path) -> Found | None:
    """Return what an instrument's export holds, here or in the folders below; None where there is none."""
    problems: list[str] = []
    try:
        if name := recognise(images):
            return _found(f"an export of {name}", {_plate_name(images): images}, {"format": name})
    except UserError as error:
        # Of several plates, each in a folder of its own, the folder above is not one.
        problems = error.problems
    below = [path for path in sorted(images.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    formats = {path: name for path in below if (name := recognise(path))}
    if len(formats) < 2 and problems:
        raise UserError(problems)
    if not formats:
        return None
    if len(set(formats.values())) > 1:
        raise UserError(f"{images}: holds exports of {listed(sorted(set(formats.values())))}; start a screen for each")
    plates = {_plate_name(path): path for path in formats}
    if len({name.casefold() for name in plates}) < len(formats):
        raise UserError(f"{images}: two folders have names that differ by special characters alone; rename one")
    name = next(iter(formats.values()))
    found = _found(f"exports of {name}", plates, {"format": name})
    return replace(found, left_out=[f"{path.name}/" for path in below if path not in formats])


def _by_names(images: Path, wells: int | None) -> Found:
    """Return what a folder holds by the names of its files."""
    try:
        naming = recognise_names(walk(images), wells)
    except UserError as error:
        raise UserError(f"{images}: {problem}" for problem in error.problems) from None
    by = f"names as by {naming.scheme.name}" if naming.scheme.name else "names of files"
    plates = sorted({image.plate for image in naming.images})
    if not naming.scheme.expressible or (
        any(name != safe_name(name, "") for name in plates if name) and not naming.within
    ):
        return _by_listing(by, images, naming)
    if naming.within:
        folders = {safe_name(name, "plate"): images / name for name in plates}
        if len(folders) < len(plates):
            raise UserError(f"{images}: two folders have names that differ by special characters alone; rename one")
        found = _found(by, folders, {"format": "pattern", "pattern": naming.within})
    else:
        found = _by_pattern(by, images, naming.scheme.pattern)
    return replace(found, left_out=naming.ignored)


def _by_pattern(by: str, images: Path, pattern: str) -> Found:
    keys = {"format": "pattern", "pattern": pattern}
    names = Pattern(images, section("acquisition", json.dumps(keys | _NO_CHANNEL))).plates
    return _found(by, dict.fromkeys(names or [_plate_name(images)], images), keys)


def _by_listing(by: str, images: Path, naming: Naming) -> Found:
    """Return what a folder holds whose names no pattern expresses, with a table of its images."""
    table = pd.DataFrame(naming.images)
    table["plate"] = [safe_name(name, "plate") if name else "" for name in table["plate"]]
    table = _sorted(table)
    if (table["plate"] == "").all():
        table = table.drop(columns="plate")
    if "z" not in re.compile(naming.scheme.pattern).groupindex:
        # The pages of a file are its planes.
        table = table.drop(columns="z")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / LISTED
        path.write_text(as_tsv(table))
        keys = {"format": "table", "table": str(path)}
        names = sorted(table["plate"].unique()) if "plate" in table else [_plate_name(images)]
        found = _found(by, dict.fromkeys(names, images), keys)
    note = f"no pattern expresses these names, so {LISTED} lists the images: list those that are added later, too"
    return replace(found, left_out=naming.ignored, notes=[note, *found.notes], table=table)


def _found(by: str, plates: Mapping[str, Path], keys: Mapping[str, Any]) -> Found:
    """Return what plates hold that a section ``acquisition`` with these keys reads."""
    for name in plates:
        try:
            check_name(name)
        except ValueError as error:
            raise UserError(f"plate {error}; rename it, or list the images in a table") from None
    called: dict[str, tuple[str, ...]] = {}
    everywhere: set[str] | None = None
    for plate, folder in plates.items():
        reader = open_acquisition(folder, section("acquisition", json.dumps({**keys, **_NO_CHANNEL})))
        reader.files(plate)
        called |= reader.unlisted
        everywhere = set(reader.unlisted) if everywhere is None else everywhere & set(reader.unlisted)
    if called and not everywhere:
        raise UserError(f"no channel is on every plate: there are {listed(sorted(called))}; start several screens")
    # A pattern without a group for the channel has one, which it does not name.
    keys_in_order = sorted(everywhere or (), key=lambda key: (int(key) if key.isdecimal() else 0, key))
    channels = _channel_names({key: called[key] for key in keys_in_order} or {"1": ("1",)})
    acquisition: dict[str, Any] = {**keys, "channels": channels}
    settings = section("acquisition", json.dumps(acquisition))
    tables, notes, sizes = [], [], set()
    for plate, folder in plates.items():
        reader = open_acquisition(folder, settings)
        table = reader.files(plate)
        if problems := duplicates(table):
            raise UserError(problems)
        first = reader.headers(table.iloc[:1].copy()) if reader.positions_in_headers else table
        sizes |= set(first["pixel_size_um"].dropna())
        tables.append(table.assign(path=table["path"].str.removeprefix(f"{folder}/")))
    images = _sorted(pd.concat(tables, ignore_index=True))
    if images.empty:
        raise UserError(f"{next(iter(plates.values()))}: no plate has images of any channel; copy the whole export")
    if some := sorted(set(called) - set(channels)):
        notes.append(f"left out, because not every plate has it: channel {listed(some)}")
    nuclei = [name for key, name in channels.items() if NUCLEI.search(f"{key} {name}")]
    acquisition["nuclei"] = nuclei[0] if nuclei else None
    if not sizes:
        notes.append("the files do not give the size of a pixel: set acquisition.pixel_size_um")
    if len(images["time"].unique()) > 1:
        notes.append("there are several time points: the first is used, unless acquisition.time says another")
    if len(images["z"].unique()) > 1:
        notes.append("there are several planes: their maximum is used, unless acquisition.z says which")
    return Found(by, dict(plates), acquisition, images, [], notes)


def _sorted(images: pd.DataFrame) -> pd.DataFrame:
    """Return images in the order of plates, wells, fields, channels, planes and time points."""
    order = images.assign(well=images["well"].map({well: parse_well(well) for well in images["well"].unique()}))
    rows = order.sort_values(["plate", "well", "field", "channel", "z", "time"]).index
    return images.loc[rows].reset_index(drop=True)


def _plate_name(folder: Path) -> str:
    """Return a plate's name from the name of its folder, made safe for files."""
    return safe_name(folder.name.removesuffix(".zarr"), "plate1")


def _channel_names(called: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return a name for each channel from the instrument's name for it: ``DAPI`` for ``DAPI - DAPI``."""
    names: dict[str, str] = {}
    for key, every in called.items():
        telling = next((name for name in every if not re.fullmatch(r"w?\d+", name)), key)
        # Gen5 notes what it did with an image: Tsf[Stitched[DAPI 377,447]].
        telling = re.sub(r"\w+\[|\]", "", telling)
        parts = telling.split(" - ")
        short = parts[0] if len(set(parts)) == 1 else "_".join(parts)
        name = f"ch{int(short)}" if short.isdecimal() else safe_name(short, "channel")
        known = {other.casefold() for other in names.values()}
        names[key] = name if name.casefold() not in known else f"{name}_{len(names) + 1}"
    return names


def safe_name(text: str, otherwise: str) -> str:
    """Return `text` with ``_`` for what no name may hold."""
    return re.sub(r"[^\w.+-]+", "_", text, flags=re.ASCII).strip("_.+-")[:90] or otherwise


def describe(found: Found) -> str:
    """Return in words what was found: plates, wells, fields, channels, three examples and notes."""
    images = found.images
    wells = {len(wells) for wells in found.wells.values()}
    fields = images.groupby(["plate", "well"])["field"].nunique()
    every = sorted(images["well"].unique(), key=parse_well)
    channels = [f"{name} ('{key}')" if key != name else name for key, name in found.acquisition["channels"].items()]
    lines = [
        f"images:   {len(images)}, recognised by {found.by}",
        f"plates:   {len(found.plates)} ({listed(found.plates, 5)})",
        f"wells:    {_from_to(wells)} per plate, {every[0]} to {every[-1]}",
        f"fields:   {_from_to(set(fields))} per well",
        f"channels: {len(channels)}: {listed(channels)}",
        f"nuclei:   {found.acquisition['nuclei'] or 'no channel is named after them: set acquisition.nuclei'}",
        f"planes:   {images['z'].nunique()}; time points: {images['time'].nunique()}",
        "examples:",
    ]
    lines += [
        f"  {row['path']} is plate {row['plate']}, well {row['well']}, field {row['field']}, channel {row['channel']}, "
        f"plane {row['z']}, time point {row['time']}"
        for row in images.iloc[sorted({0, len(images) // 2, len(images) - 1})].to_dict("records")
    ]
    notes = list(found.notes)
    if found.left_out:
        notes.append(f"left out, because they do not fit: {listed(found.left_out, 3)}")
    return "\n".join([*lines, *(f"note: {note}" for note in notes)])


def _from_to(numbers: set[int]) -> str:
    return str(min(numbers)) if len(numbers) == 1 else f"{min(numbers)} to {max(numbers)}"


def absolute(path: Path) -> Path:
    """Return a path that holds from any folder, without ``..``; links stay."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve follows links


def as_tsv(table: pd.DataFrame) -> str:
    """Return a table as tab-separated text, cells quoted where they need it."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(table.itertuples(index=False, name=None))
    return text.getvalue()
