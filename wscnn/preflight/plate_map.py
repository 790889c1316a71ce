"""A lab's own plate map, as a grid of the plate or as a table, from text or a spreadsheet."""

import io
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path

import pandas as pd

from wscnn.core.errors import UserError, listed, merged
from wscnn.core.screen_tables import RESERVED
from wscnn.core.tables import HITS, SUSPECTS
from wscnn.core.user_tables import read_cells
from wscnn.core.wells import parse_well, row_letters, well_name

# Headings of tables, compared without case and separators.
_PERTURBATION = (
    "perturbation",
    "treatment",
    "compound",
    "compoundname",
    "compoundid",
    "drug",
    "sirna",
    "sgrna",
    "gene",
    "genesymbol",
    "sample",
    "samplename",
    "content",
    "name",
)
_WELL = ("well", "wellid", "wellname", "wellposition", "position", "destinationwell")
_PLATE = ("plate", "plateid", "platename", "barcode", "platebarcode")
_ROW, _COLUMN = ("row", "wellrow"), ("column", "col", "wellcolumn", "wellcol")
#: Columns of every plate map.
COLUMNS = ("plate", "well", "perturbation", "role", "phenotype")
_TAKEN = {name.lower() for name in (*RESERVED, *HITS, *SUSPECTS, "used", "control_phenotype", *COLUMNS)}

_MAX_BYTES = 2**26
_MAX_UNPACKED = 2**28
_SPREADSHEET = b"PK\x03\x04"
# Spreadsheets turn names of genes such as SEPT2 into dates.
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}.*|\d{1,2}-(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)", re.IGNORECASE)


def read_plate_map(path: Path, perturbation: str | None = None) -> pd.DataFrame:
    """Return what a plate map says about each well, in its order.

    Parameters
    ----------
    path
        ``.xlsx``, or text with tabs, commas or semicolons. A grid has the column numbers in one row and the row
        letters to the left of the cells below; several grids may follow each other, each right under a line with its
        plate's name. A table has a heading for the well (or for row and column) and one for the perturbation; lines
        above the headings are ignored.
    perturbation
        The heading of the perturbations in a table; by default the usual one that it has.

    Returns
    -------
    table
        One row per well with a perturbation, columns `COLUMNS`, all text; of a table its other columns, too, with
        ``_given`` after names that the results have. `plate` is empty where the row holds for every plate.

    Raises
    ------
    UserError
        When the file cannot be read, is neither, or leaves open which sheet or column is meant.
    """
    sheets = _sheets(path)
    found: dict[str, pd.DataFrame] = {}
    problems: list[str] = []
    for name, rows in sheets.items():
        try:
            table = _grids(rows, path)
            found[name] = _table(rows, path, perturbation) if table.empty else table
        except UserError as error:
            problems += error.problems
    if len(found) > 1:
        raise UserError(f"{path}: sheets {listed(found)} all hold a plate map; save the one to use as CSV")
    if not found:
        raise UserError(problems or f"{path}: is empty")
    (table,) = found.values()
    if table.empty:
        raise UserError(f"{path}: lists no well with a perturbation")
    twice = table[table.duplicated(["plate", "well"])].head(5)
    if len(twice):
        raise UserError(
            f"{path}: well {well}{f' of plate {plate}' if plate else ''} is listed twice; keep one"
            for plate, well in zip(twice["plate"], twice["well"], strict=True)
        )
    if dates := [name for name in table["perturbation"].unique() if _DATE.fullmatch(name)]:
        raise UserError(
            f"{path}: the perturbations {listed(dates, 3)} are dates, which spreadsheets make of names such as SEPT2; "
            "write the names as text"
        )
    return table.reset_index(drop=True)


#: A sheet: the cells of each line that is not empty, by the number of the line.
_Rows = Mapping[int, Sequence[str]]


def _sheets(path: Path) -> dict[str, _Rows]:
    """Return the sheets of a file that are not empty."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if start != _SPREADSHEET:
        return {"": read_cells(path)}
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile:
        raise UserError(f"{path}: not a readable .xlsx file; save the plate map again, or as CSV") from None
    if size > _MAX_BYTES or unpacked > _MAX_UNPACKED:
        raise UserError(f"{path}: too large for a plate map; save the sheet as CSV")
    return _workbook(path)


def _workbook(path: Path) -> dict[str, _Rows]:
    """Return the sheets of a spreadsheet that are not empty; formulas must have been calculated."""
    import openpyxl

    data = path.read_bytes()
    sheets: dict[str, _Rows] = {}
    problems = []
    try:
        # Once for the values that were saved and once for the formulas that should have one.
        values = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        formulas = openpyxl.load_workbook(io.BytesIO(data), read_only=True)
        for sheet in values.worksheets:
            rows = {}
            both = zip(
                sheet.iter_rows(values_only=True), formulas[sheet.title].iter_rows(values_only=True), strict=True
            )
            for number, (row, written) in enumerate(both, 1):
                cells = [_text(cell) for cell in row]
                for column, (cell, formula) in enumerate(zip(cells, written, strict=True), 1):
                    unsaved = not cell and isinstance(formula, str) and formula.startswith("=")
                    if unsaved or cell.startswith(("#N/A", "#REF!", "#VALUE!", "#NAME?", "#DIV/0!")):
                        where = f"{path}, sheet {sheet.title}, row {number}, column {column}"
                        problems.append(f"{where}: a formula without a value; open the file, calculate and save it")
                if any(cells):
                    rows[number] = cells
            if rows:
                sheets[sheet.title] = rows
    except Exception as error:  # whatever a damaged spreadsheet leads to is the file's fault
        raise UserError(f"{path}: not a readable .xlsx file ({' '.join(str(error).split())[:200]})") from None
    if problems:
        raise UserError(problems[:5])
    return sheets


def _text(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, date):  # also a datetime
        return cell.isoformat()[:10]
    # Spreadsheets keep whole numbers as floats.
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()


def _grids(rows: _Rows, path: Path) -> pd.DataFrame:
    """Return the wells of all grids; no row where there is no grid."""
    entries: list[tuple[str, ...]] = []
    plate = ""
    columns: dict[int, int] = {}
    for number, row in rows.items():
        letter = row[min(columns) - 1] if columns and min(columns) <= len(row) else ""
        if re.fullmatch(r"[A-Pa-p]|A[A-Fa-f]", letter):
            wells = ((f"{letter}{n}", row[i]) for i, n in columns.items() if i < len(row))
            entries += [(plate, well_name(*parse_well(well)), cell, "", "") for well, cell in wells if cell]
            continue
        grids = _numbered(row)
        if len(grids) > 1:
            raise UserError(f"{path}, line {number}: two grids beside each other; put them below each other")
        columns = grids[0] if grids else {}
        if grids:
            above = [cell for cell in rows.get(number - 1, ()) if cell]
            plate = above[0] if len(above) == 1 else ""
    return pd.DataFrame(entries, columns=list(COLUMNS), dtype="str")


def _numbered(row: Sequence[str]) -> list[dict[int, int]]:
    """Return the runs 1, 2, 3, ... of a row, each with the column number of a plate by the position of the cell."""
    runs: list[dict[int, int]] = []
    for i, cell in enumerate(row):
        number = int(cell) if re.fullmatch(r"0?[1-9]|[1-4]\d", cell) else 0
        if number and runs and runs[-1].get(i - 1) == number - 1:
            runs[-1][i] = number
        elif number and i:
            runs.append({i: number})
    return [run for run in runs if len(run) > 2 and max(run.values()) <= 48]


def _table(rows: _Rows, path: Path, perturbation: str | None) -> pd.DataFrame:
    """Return the wells of a table."""
    for line, row in rows.items():
        names = [re.sub(r"[^a-z0-9]", "", name.lower()) for name in row]
        well, row_at, column_at = _first(names, _WELL), _first(names, _ROW), _first(names, _COLUMN)
        if well is not None or (row_at is not None and column_at is not None):
            start, header = line, row
            break
    else:
        first = next(iter(rows.values()))
        raise UserError(
            f"{path}: neither a grid of the plate (column numbers above, row letters at the left) nor a table with a "
            f"column 'well'; its first row is {', '.join(filter(None, first[:8]))}"
        )
    named = _perturbations(header, names, path, perturbation)
    own = {"perturbation": named, "plate": _first(names, _PLATE)}
    own |= {name: _first(names, (name,)) for name in ("role", "phenotype")}
    used = {well, row_at, column_at, *own.values()}
    further = {i: name for i, name in enumerate(header) if name and i not in used}
    # The results have columns of these names.
    others = {i: f"{name}_given" if name.lower() in _TAKEN else name for i, name in further.items()}
    if len({name.lower() for name in others.values()}) < len(others):
        raise UserError(f"{path}, line {start}: two columns have the same name; rename one")
    entries, misnamed = [], []
    for number, row in rows.items():
        if number <= start:
            continue
        cells = [*row, *[""] * (len(header) - len(row))]
        text = cells[well] if well is not None else _joined(cells[row_at or 0], cells[column_at or 0])
        try:
            place = well_name(*parse_well(text))
        except ValueError as error:
            misnamed.append(("well", f"{path}, line {number}: {error}", f"'{text}' (line {number})"))
            continue
        entry = {name: cells[i] if i is not None else "" for name, i in own.items()}
        if entry["perturbation"]:
            entries.append({"well": place} | entry | {name: cells[i] for i, name in others.items()})
    if misnamed:
        raise UserError(merged(misnamed))
    return pd.DataFrame(entries, columns=[*COLUMNS, *others.values()], dtype="str")


def _perturbations(header: Sequence[str], names: Sequence[str], path: Path, wanted: str | None) -> int:
    """Return which column of a table holds the perturbations."""
    if wanted is not None:
        if wanted not in header:
            raise UserError(f"{path}: no column '{wanted}'; the columns are {', '.join(filter(None, header))}")
        return list(header).index(wanted)
    known = [i for i, name in enumerate(names) if name in _PERTURBATION]
    if "perturbation" in names:
        return names.index("perturbation")
    if len(known) != 1:
        among = known or [i for i, name in enumerate(header) if name]
        raise UserError(
            f"{path}: it is not clear which column holds the perturbations; give --perturbation with one of "
            f"{', '.join(header[i] for i in among)}"
        )
    return known[0]


def _first(names: Sequence[str], known: Iterable[str]) -> int | None:
    """Return the position of the first of the `known` headings."""
    return next((names.index(name) for name in known if name in names), None)


def _joined(row: str, column: str) -> str:
    """Return a well's name from its row, a letter or counted from 1, and its column."""
    return f"{row_letters(int(row) - 1) if row.isdecimal() and 1 <= int(row) <= 32 else row}{column}"
