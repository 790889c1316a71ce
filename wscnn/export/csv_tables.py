"""Hits, meanings of their columns, wells and plates as CSV files in UTF-8."""

from pathlib import Path

import pandas as pd

from wscnn.export.finished import FinishedScreen
from wscnn.export.sheets import FORMULA, sheets


def write(screen: FinishedScreen, path: Path) -> None:
    """Write one CSV file per table into the folder `path`."""
    for name, table in sheets(screen).items():
        _plain(table).to_csv(path / f"{name}.csv", index=False, encoding="utf-8", lineterminator="\n")


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose text no spreadsheet takes for a formula: an apostrophe is put before what it would."""
    columns = {
        name: column.mask(column.str.startswith(FORMULA, na=False), "'" + column) if column.dtype == "str" else column
        for name, column in table.items()
    }
    return pd.DataFrame(columns, index=table.index).rename(
        columns=lambda name: f"'{name}" if name.startswith(FORMULA) else name
    )
