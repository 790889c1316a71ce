"""Tables for people: hits, the meanings of their columns, wells and plates, in the order of the sheets."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from wscnn.core.tables import described
from wscnn.export.finished import FinishedScreen

# First characters of a text that spreadsheets take for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
# Name of each sheet, and of its table in `wscnn.core.tables.TABLES`.
_SHEETS = {"hits": "hits", "wells": "screen_wells", "plates": "plates"}


def sheets(screen: FinishedScreen) -> dict[str, pd.DataFrame]:
    """Return the tables by the names of their sheets: ``hits, columns, wells, plates``."""
    tables = {"hits": screen.hits, "wells": screen.wells, "plates": screen.plates}
    meanings = pd.DataFrame(
        [row for sheet, table in tables.items() for row in _meanings(sheet, table)],
        columns=["sheet", "column", "unit", "meaning"],
    )
    return {"hits": tables.pop("hits"), "columns": meanings, **tables}


def _meanings(sheet: str, table: pd.DataFrame) -> Iterator[tuple[str, str, str, str]]:
    for name in map(str, table):
        column = described(_SHEETS[sheet], name)
        meaning = "Column of the layout, carried along" if column is None else column.meaning.replace("`", "")
        yield sheet, name, "" if column is None else column.unit, meaning


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table that people open as CSV in UTF-8; text that spreadsheets take for a formula gets an apostrophe."""
    text = {
        str(name): column.mask(column.str.startswith(_FORMULA, na=False), "'" + column)
        for name, column in table.items()
        if column.dtype == "str"
    }
    named = table.assign(**text).rename(columns=lambda name: f"'{name}" if name.startswith(_FORMULA) else name)
    named.to_csv(path, index=False, encoding="utf-8", lineterminator="\n")
