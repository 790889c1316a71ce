"""Images listed in a table of the user's own, for names that no pattern can express."""

from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wscnn.acquisitions.base import ONLY, walk
from wscnn.acquisitions.stacks import Stacks
from wscnn.core.errors import UserError, listed, merged
from wscnn.core.tables import INDEX
from wscnn.core.user_tables import Lines, as_numbers, as_text, at, by_value, read_user_table
from wscnn.core.wells import parse_well, well_name

_REQUIRED = ("path", "well", "field", "channel")
_COUNTED = ("field", "z", "time")
_MEASURED = ("y_um", "x_um", "pixel_size_um")
#: Columns of a table of images.
COLUMNS = (*_REQUIRED, "plate", "z", "time", *_MEASURED)
_LARGEST = 2**31 - 1


class ImageTable(Stacks):
    """Images listed by the table ``acquisition.table``, one row per image.

    Columns ``path`` (below the plate's folder), ``well``, ``field``, ``channel``; where needed ``plate``, ``z``,
    ``time``, ``y_um``, ``x_um`` and ``pixel_size_um``. Without the column ``plate`` the table holds for every plate.
    Without the column ``z``, the pages of a file are its planes, counted from 1. Further columns are ignored.

    The table is one for all plates, relative to the folder in which the program is started, or one in each plate's
    folder.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        super().__init__(folder, settings)
        self.table = table_path(folder, settings["table"])
        self.pages = "z" not in self._content

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Return False: only a config can say that a table lists the images."""
        return False

    @property
    def plates(self) -> list[str]:
        """Plates that the table names, sorted; none where it holds for every plate."""
        content = self._content
        return sorted(content["plate"].unique()) if "plate" in content else []

    def listed(self, plate: str, excluded: Collection[str]) -> pd.DataFrame:
        """Return one row per image of `plate`; all files must exist, except those of excluded wells."""
        content = self._content
        rows = content[content["plate"] == plate] if "plate" in content else content
        if rows.empty:
            plates = listed((f"'{name}'" for name in content["plate"].unique()), 3)
            raise UserError(f"{self.table}: lists no image of plate '{plate}'; the plates there are {plates}")
        paths = rows["path"].str.removeprefix(f"{self.folder.absolute()}/")
        wanted = ~rows["well"].isin(excluded)
        gone = wanted & ~paths.isin(set(walk(self.folder)))
        if gone.any():
            lines = Lines.of(rows.index[gone])
            raise UserError(
                f"{self.table}, {lines}: no file '{rows.loc[gone, 'path'].iloc[0]}' below {self.folder}, the plate's "
                "folder of images in the table of plates; copy it there, or correct the path"
            )
        channels = {key: self.channel(key) for key in rows["channel"].unique()}
        table = pd.DataFrame(
            {
                "plate": plate,
                "well": rows["well"],
                "field": rows["field"],
                "channel": rows["channel"].map(channels),
                "z": rows.get("z", ONLY),
                "time": rows.get("time", ONLY),
                "path": f"{self.folder}/" + paths,
                "page": 0,
                **{name: rows.get(name, np.nan) for name in _MEASURED},
            }
        )[list(INDEX)]
        return table[table["channel"].notna()].reset_index(drop=True)

    @property
    def _content(self) -> pd.DataFrame:
        try:
            status = self.table.stat()
        except OSError as error:
            raise UserError(f"{self.table}: cannot be read ({error.strerror})") from None
        return _read(self.table, status.st_size, status.st_mtime_ns)


def table_path(folder: Path, table: str) -> Path:
    """Return where the table of the images in `folder` is: in that folder, or where the program was started.

    Raises
    ------
    UserError
        When it is in neither, or two different ones are in both.
    """
    found = [path for path in (folder / table, Path(table)) if path.is_file()]
    if not found:
        raise UserError(
            f"{table}: no such file; acquisition.table is relative to the folder in which the program is started, or "
            f"to each plate's folder of images ({folder})"
        )
    if not found[0].samefile(found[-1]):
        raise UserError(
            f"acquisition.table: there are both {found[0]} and {found[-1]}; rename one, or give an absolute path"
        )
    return found[0]


# Plates share a table, and reading that of a large screen takes seconds.
@lru_cache(maxsize=1)
def _read(path: Path, size: int, mtime_ns: int) -> pd.DataFrame:
    """Return the valid rows of a table of images; `size` and time distinguish versions of the file."""
    given = read_user_table(path, _REQUIRED, COLUMNS)
    problems = [f"{path}: lists no image"] if given.empty else []
    table = pd.DataFrame(index=given.index)
    for name in ("plate", *_REQUIRED):
        if name in given:
            table[name] = as_text(given[name])
            if (empty := table[name] == "").any():
                problems.append(f"{path}, {Lines.of(table.index[empty])}: {name} is empty; fill it in")
    problems += merged(
        ("path", f"{path}, {lines}: path {sentence}", at(value, lines))
        for value, lines in by_value(table["path"])
        for sentence in _path_faults(value, len(lines))
    )
    wells = {}
    misnamed = []
    for value, lines in by_value(table["well"]):
        try:
            wells[value] = well_name(*parse_well(value))
        except ValueError as error:
            if value:
                misnamed.append(("well", f"{path}, {lines}: {error}", at(value, lines)))
    problems += merged(misnamed)
    table["well"] = table["well"].map(wells)
    for name in _COUNTED:
        if name not in given:
            continue
        numbers, wrong = as_numbers(given[name])
        wrong |= ~((numbers >= 0) & (numbers <= _LARGEST) & (numbers == np.rint(numbers)))
        if name == "field":
            # Empty cells were named above.
            wrong &= (as_text(given[name]) != "").to_numpy()
        if wrong.any():
            problems += _wrong(path, given.loc[wrong, name], f"{name} is not a whole number from 0")
        table[name] = np.where(wrong | np.isnan(numbers), 0, numbers).astype(np.int64)
    for name in _MEASURED:
        if name not in given:
            continue
        numbers, wrong = as_numbers(given[name])
        wrong |= np.isinf(numbers) | ((numbers <= 0) if name == "pixel_size_um" else False)
        if wrong.any():
            problems += _wrong(path, given.loc[wrong, name], f"{name} is not a number of micrometres")
        table[name] = numbers
    if ("y_um" in table) != ("x_um" in table):
        problems.append(f"{path}: has one of the columns y_um and x_um; give both, or none")
    elif "y_um" in table and (half := table["y_um"].isna() != table["x_um"].isna()).any():
        problems.append(f"{path}, {Lines.of(table.index[half])}: gives one of y_um and x_um; give both, or none")
    if problems:
        raise UserError(problems)
    return table


def _wrong(path: Path, cells: pd.Series, what: str) -> list[str]:
    """Return one sentence on the cells of a column that hold an invalid value."""
    found = by_value(as_text(cells))
    return merged((what, f"{path}, {lines}: {what}: '{value}'", at(value, lines)) for value, lines in found)


def _path_faults(value: str, n: int) -> list[str]:
    """Return what is wrong with a path that occurs in `n` rows, in words."""
    faults = []
    if "\\" in value:
        faults.append(f"'{value}' has \\ between folders; write /")
    elif ".." in value.split("/"):
        faults.append(f"'{value}' leads out of the plate's folder; give in the table of plates a folder that holds all")
    if n > 1 and value:
        faults.append(f"'{value}' is listed {n} times; an image has one row")
    return faults
