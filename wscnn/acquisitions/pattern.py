"""Images whose names give plate, well, field and channel."""

import math
import re
import signal
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from types import FrameType
from typing import Any

import pandas as pd

from wscnn.acquisitions.base import ONLY, walk
from wscnn.acquisitions.stacks import Stacks
from wscnn.core.errors import UserError, first_problems
from wscnn.core.tables import INDEX
from wscnn.core.wells import parse_well, row_letters, well_name

_GROUPS = {"plate", "well", "row", "column", "field", "channel", "z", "time"}
_LARGEST = 2**31 - 1
# Matching a name takes a microsecond or two; a pattern that needs longer than this backtracks excessively.
_PATIENCE_S = 2.0
_PATIENCE_PER_NAME_S = 1e-4


class Pattern(Stacks):
    """Files whose names match the config's regular expression ``acquisition.pattern``.

    The expression has to match the whole file name, or the whole path below the folder where it holds a ``/``.
    Named groups: ``well`` (or ``row`` and ``column``), ``channel``, ``plate``, ``field``, ``z``, ``time``. Files that
    do not match are ignored. Without the group ``z``, the pages of a file are its planes, counted from 1.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        super().__init__(folder, settings)
        self._regex = compile_pattern(settings["pattern"], len(settings["channels"]))
        self.pages = "z" not in self._regex.groupindex

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Return False: only a config can say that names follow a pattern."""
        return False

    def listed(self, plate: str, excluded: Collection[str]) -> pd.DataFrame:
        """Return one row per file of `plate`; positions are not known, the pixel size is the config's."""
        every, named = self._rows
        if named and plate not in named:
            examples = ", ".join(f"'{name}'" for name in sorted(named)[:3])
            raise UserError(
                f"{self.folder}: no file of plate '{plate}'; by acquisition.pattern the plates here are {examples}"
            )
        return pd.DataFrame(named.get(plate, every), columns=list(INDEX)).assign(plate=plate)

    @property
    def plates(self) -> list[str]:
        """Plates that the files name, sorted; none where the pattern has no group ``plate``."""
        return sorted(self._rows[1])

    @cached_property
    def _rows(self) -> tuple[list[tuple], dict[str, list[tuple]]]:
        """Return the rows of files that name no plate, and those of files that do by plate."""
        names = list(walk(self.folder))
        whole_path = "/" in self._regex.pattern
        rows: list[tuple] = []
        named: dict[str, list[tuple]] = {}
        problems = []
        n_matched = 0
        with _patience(self._regex.pattern, len(names)):
            for name in names:
                match = self._regex.fullmatch(name if whole_path else name.rpartition("/")[2])
                if not match:
                    continue
                n_matched += 1
                groups = match.groupdict()
                try:
                    row = self._row(groups, name)
                except ValueError as error:
                    problems.append(f"{self.folder / name}: {error}")
                    continue
                if row:
                    plate = groups.get("plate")
                    (rows if plate is None else named.setdefault(plate, [])).append(row)
        if problems:
            raise UserError(first_problems(problems, 5, of=str(self.folder)))
        if not n_matched:
            raise UserError(self._none_matched(names))
        return rows, named

    def _row(self, groups: Mapping[str, str | None], name: str) -> tuple | None:
        """Return a row of the index for the file `name`, None when its channel is not listed."""
        key = groups.get("channel")
        channel = self.channel(key) if key is not None else next(iter(self.settings["channels"].values()))
        if channel is None:
            return None
        field = _number(groups.get("field"), "field")
        z, time = _number(groups.get("z"), "z"), _number(groups.get("time"), "time")
        well = _well(groups.get("well"), groups.get("row"), groups.get("column"))
        # Joined as text: a screen has millions of files, and a Path takes longer than everything else here.
        return "", well, field, channel, z, time, f"{self.folder}/{name}", 0, math.nan, math.nan, math.nan

    def _none_matched(self, names: list[str]) -> str:
        if not names:
            return f"{self.folder}: holds no file"
        images = [name for name in names if name.lower().endswith((".tif", ".tiff"))] or names
        examples = " and ".join(f"'{name}'" for name in images[:2])
        return (
            f"{self.folder}: no file matches acquisition.pattern '{self._regex.pattern}'; "
            f"files here are named {examples} ({len(names)} in all)"
        )


def compile_pattern(pattern: str, n_channels: int) -> re.Pattern[str]:
    """Return the compiled pattern.

    Parameters
    ----------
    pattern
        A regular expression with named groups.
    n_channels
        How many channels the config lists; where it is one, the group ``channel`` may be missing.

    Raises
    ------
    UserError
        When it is not a regular expression or its groups do not give well and channel.
    """
    try:
        regex = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(f"acquisition.pattern: '{pattern}' is not a regular expression ({error})") from None
    groups = set(regex.groupindex)
    problems = []
    if unknown := sorted(groups - _GROUPS):
        problems.append(f"unknown group {', '.join(unknown)}; known are {', '.join(sorted(_GROUPS))}")
    if "well" not in groups and not {"row", "column"} <= groups:
        problems.append("needs the group (?P<well>...), or both (?P<row>...) and (?P<column>...)")
    if "well" in groups and groups & {"row", "column"}:
        problems.append("has the group well as well as row or column; keep one of the two ways")
    if "channel" not in groups and n_channels > 1:
        problems.append(f"needs the group (?P<channel>...), for {n_channels} channels are listed")
    if problems:
        raise UserError(f"acquisition.pattern '{pattern}' {problem}" for problem in problems)
    return regex


@lru_cache(maxsize=10_000)
def _well(well: str | None, row: str | None, column: str | None) -> str:
    """Return the name of the well that the groups of a match give."""
    if well is None:
        letters = row_letters(int(row) - 1) if row and row.isdecimal() and 1 <= int(row) <= 32 else row or ""
        well = f"{letters}{column or ''}"
    return well_name(*parse_well(well))


@lru_cache(maxsize=10_000)
def _number(text: str | None, group: str) -> int:
    """Return the number in a group, `ONLY` where the pattern has none."""
    if text is None:
        return ONLY
    if not text.isdecimal() or int(text) > _LARGEST:
        raise ValueError(f"'{text}' is not a {group} number; let the group (?P<{group}>...) hold digits only")
    return int(text)


@contextmanager
def _patience(pattern: str, n_names: int) -> Iterator[None]:
    """Stop a block that matches names when it takes unreasonably long.

    A pattern with nested repeats may need an exponential number of steps for one name. Only the main thread can be
    stopped this way; in others the block runs without a limit.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise UserError(
            f"acquisition.pattern '{pattern}' takes too long to match; avoid repeats inside repeats, such as (a+)+"
        )

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # CPU time, so that a suspended or waiting process is not stopped.
    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, _PATIENCE_S + n_names * _PATIENCE_PER_NAME_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
