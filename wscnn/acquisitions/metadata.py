"""Reading what instruments write beside their images: finding the files, parsing numbers and names."""

import math
import os
from collections.abc import Collection
from pathlib import Path

from wscnn.acquisitions.base import entry_is
from wscnn.core.errors import UserError
from wscnn.core.wells import well_name


def find(folder: Path, names: Collection[str]) -> Path | None:
    """Return the file called any of `names` (lower case) in `folder` or in a folder right below it, None if none is.

    Raises
    ------
    UserError
        When several folders hold one: then it is not clear which the plate is.
    """
    try:
        below = sorted(
            entry.path for entry in os.scandir(folder) if entry_is(entry.is_dir) and not entry.name.startswith(".")
        )
        found: list[Path] = []
        for candidate in (folder, *map(Path, below)):
            here = {name.lower(): name for name in os.listdir(candidate)}  # noqa: PTH208 - names alone
            found += [candidate / here[name] for name in names if name in here][:1]
            if candidate == folder and found:
                break
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from None
    if len(found) > 1:
        raise UserError(f"{folder}: holds several plates ({found[0]}, {found[1]}); give each plate its own folder")
    return found[0] if found else None


def whole(text: str | None) -> int:
    """Return a whole number that an index can hold.

    Raises
    ------
    ValueError
        When the text is not such a number.
    """
    text = (text or "").strip()
    if not text.isdecimal() or int(text[:20]) > 2**31 - 1:
        raise ValueError(f"'{text[:50]}' is not a whole number")
    return int(text)


def real(text: str | None) -> float:
    """Return a finite number.

    Raises
    ------
    ValueError
        When the text is not such a number.
    """
    text = (text or "").strip()
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"'{text[:50]}' is not a number")
    return value


def well_at(row: str | None, column: str | None) -> str:
    """Return the name of the well at a row and column that are counted from 1."""
    position = whole(row), whole(column)
    if not (1 <= position[0] <= 32 and 1 <= position[1] <= 48):
        raise ValueError(f"no plate has row {position[0]} and column {position[1]}")
    return well_name(position[0] - 1, position[1] - 1)


def plain_name(text: str | None) -> str:
    """Return the name of a file that metadata list, verified to stay in its folder.

    Raises
    ------
    ValueError
        When it is empty or leads elsewhere.
    """
    name = (text or "").strip()
    if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise ValueError(f"'{name[:100]}' is not a file name")
    return name
