"""Hits, meanings of their columns, wells and plates as an Excel workbook."""

import math
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
from openpyxl import Workbook
from openpyxl.cell import WriteOnlyCell
from openpyxl.styles import Font
from openpyxl.utils import get_column_letter

from wscnn.core.errors import UserError
from wscnn.export.finished import FinishedScreen
from wscnn.export.sheets import sheets

# Limits of the format: rows of a sheet, characters of a cell.
_ROWS, _CHARACTERS = 1_048_576, 32_767
# Characters that XML, and so a workbook, cannot hold.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
# Rows in memory as Python's objects.
_BLOCK = 10_000
# Widest column, in characters.
_WIDEST = 60


def write(screen: FinishedScreen, path: Path) -> None:
    """Write the workbook."""
    write_workbook(sheets(screen), path)


def write_workbook(tables: dict[str, pd.DataFrame], path: Path) -> None:
    """Write tables as sheets of a workbook: numbers as numbers, text as text, missing values as empty cells.

    Raises
    ------
    UserError
        When a table has more rows than a sheet holds.
    """
    book = Workbook(write_only=True)
    for name, table in tables.items():
        if len(table) >= _ROWS:
            raise UserError(
                f"the table of {name} has {len(table)} rows, but a sheet of Excel holds {_ROWS - 1}; use --to csv"
            )
        sheet = book.create_sheet(name)
        sheet.freeze_panes = "A2"
        for number, column in enumerate(map(str, table), 1):
            longest = max(map(len, map(str, table[column].head(200))), default=0)
            sheet.column_dimensions[get_column_letter(number)].width = min(max(len(column), longest) + 2, _WIDEST)
        header = [_text(sheet, str(column)) for column in table]
        for cell in header:
            cell.font = Font(bold=True)
        for row in chain([header], _rows(sheet, table)):
            sheet.append(row)
        if len(table.columns):
            sheet.auto_filter.ref = f"A1:{get_column_letter(len(table.columns))}{len(table) + 1}"
    with path.open("wb") as file:
        book.save(file)


def _rows(sheet: Any, table: pd.DataFrame) -> Iterator[list[Any]]:
    for start in range(0, len(table), _BLOCK):
        block = table[start : start + _BLOCK]
        columns = [block[name].astype(object).where(block[name].notna(), None).tolist() for name in block]
        for row in zip(*columns, strict=True):
            yield [_value(sheet, value) for value in row]


def _value(sheet: Any, value: Any) -> Any:
    if isinstance(value, str):
        return _text(sheet, value)
    # A workbook has no infinite numbers.
    return _text(sheet, str(value)) if isinstance(value, float) and not math.isfinite(value) else value


def _text(sheet: Any, text: str) -> WriteOnlyCell:
    """Return a cell that stays text, whatever it looks like, also when it is edited."""
    cell = WriteOnlyCell(sheet, _CONTROL.sub("\ufffd", text)[:_CHARACTERS])
    cell.data_type = "s"
    cell.quotePrefix = True
    return cell
