"""Hits, meanings of their columns, wells and plates as CSV files in UTF-8."""

from pathlib import Path

from wscnn.export.finished import FinishedScreen
from wscnn.export.sheets import sheets, write_csv


def write(screen: FinishedScreen, path: Path) -> None:
    """Write one CSV file per table into the folder `path`."""
    for name, table in sheets(screen).items():
        write_csv(table, path / f"{name}.csv")
