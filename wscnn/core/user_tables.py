"""Tables that users write (plates, layout, well scores): one reader for text and Parquet, which does not guess types.

Cells of a text file are text, as written apart from surrounding spaces; only `as_numbers` and `typed` make numbers of
them. Columns of a Parquet file have the types they were written with; `as_text` makes text of them.
"""

import csv
import io
import math
import re
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wscnn.core.errors import UserError, listed, short

#: Tables are read as a whole; larger files (in bytes) are refused.
MAX_BYTES = 2**30

#: How a folder's tables of well scores are distinguished from its other files.
SUFFIXES = (".parquet", ".csv", ".tsv", ".txt")

#: Cells that mean a missing value in a column of numbers, in lower case.
MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "none"})

# First bytes of other files that are often given as tables, and what to do about them.
_OTHER_FORMATS = {
    b"PK\x03\x04": "a spreadsheet (or another zip archive); save the sheet as CSV or TSV",
    b"\xd0\xcf\x11\xe0": "a spreadsheet (old Excel format); save the sheet as CSV or TSV",
    b"\x1f\x8b": "a compressed file (gzip); unpack it, and give Parquet, CSV or TSV",
}
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?inf(?:inity)?", re.ASCII | re.IGNORECASE)
# Numbers as programs write them. Not 007 or 1E1, which may be names: plate 7, well E1.
_PLAIN = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-][0-9]+)?"
_WHOLE = r"-?[0-9]+"


def read_user_table(path: Path, required: Collection[str], known: Collection[str]) -> pd.DataFrame:
    """Return the table in a text file (TSV, CSV or semicolon-separated; UTF-8 or UTF-16) or a Parquet file.

    Parameters
    ----------
    path
        The file; its content decides what it is, not its name.
    required
        Columns that must be there.
    known
        Columns whose names are recognised in any case.

    Returns
    -------
    table
        Indexed by ``line`` of the text file, or ``row`` of the Parquet file (counted from 1). All columns of a text
        file are text, "" where empty.

    Raises
    ------
    UserError
        When the file cannot be read, is not such a table, or lacks a column.
    """
    content = _content(path)
    table = _parquet(content, path) if content[:4] == b"PAR1" else _text(content, path)
    by_lower = {name.lower(): name for name in known}
    names = [by_lower.get(name.lower(), name) for name in table.columns]
    if missing := [name for name in required if name not in names]:
        raise UserError(f"{path}: no column {', '.join(missing)}; the columns are {short(', '.join(names)) or 'none'}")
    if len({name.lower() for name in names}) < len(names):
        raise UserError(f"{path}: two columns have the same name; the columns are {short(', '.join(names))}")
    return table.set_axis(names, axis=1)


def as_text(column: pd.Series) -> pd.Series:
    """Return a column as text without surrounding spaces, "" where missing; whole numbers have no decimal point."""
    if isinstance(column.dtype, pd.StringDtype):
        return column.fillna("").str.strip().astype("str")
    codes, values = pd.factorize(column)
    names = [
        f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value).strip()
        for value in values.tolist()
    ]
    return pd.Series(np.array([*names, ""], dtype=object)[codes], index=column.index, name=column.name, dtype="str")


def as_numbers(column: pd.Series) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return a column as numbers, NaN where missing (see `MISSING`), and which of its cells hold something else."""
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return column.to_numpy(dtype=np.float64, na_value=np.nan), np.zeros(len(column), dtype=bool)
    cells = as_text(column).tolist()
    wrong = np.array([cell.lower() not in MISSING and _NUMBER.fullmatch(cell) is None for cell in cells], dtype=bool)
    numbers = [
        math.nan if bad or cell.lower() in MISSING else float(cell) for cell, bad in zip(cells, wrong, strict=True)
    ]
    return np.array(numbers, dtype=np.float64), wrong


def typed(column: pd.Series) -> pd.Series:
    """Return a column of a text file as numbers where every cell that is not empty is one, else unchanged.

    Numbers count as such in the form in which programs write them: ``12``, ``-0.5``, ``1e-05``; not ``007``, ``+5``,
    ``1E1`` or ``NaN``. Whole numbers become integers, and empty cells are missing.
    """
    filled = column != ""
    cells = column[filled]
    if cells.empty or not cells.str.fullmatch(_PLAIN).all():
        return column
    if cells.str.fullmatch(_WHOLE).all():
        numbers = [int(cell) for cell in cells]
        if max(map(abs, numbers)) >= 2**63:
            return column
        return pd.Series(numbers, index=cells.index, name=column.name, dtype="Int64").reindex(column.index)
    values = np.full(len(column), np.nan)
    values[filled.to_numpy()] = cells.astype("float64")
    return column if np.isinf(values).any() else pd.Series(values, index=column.index, name=column.name)


@dataclass(frozen=True)
class Lines:
    """Lines of a text file, or rows of a Parquet file; ``str`` lists the first few.

    Attributes
    ----------
    numbers
        Which ones.
    word
        What one is called: ``line`` or ``row``.
    """

    numbers: list[int]
    word: str

    @classmethod
    def of(cls, index: pd.Index) -> "Lines":
        """Return those of a table's rows by their index, which `read_user_table` names."""
        return cls(index.tolist(), str(index.name or "row"))

    def __len__(self) -> int:
        return len(self.numbers)

    def __str__(self) -> str:
        return f"{self.word}{'s' if len(self) > 1 else ''} {listed(self.numbers, 5)}"


def by_value(column: pd.Series) -> list[tuple[str, Lines]]:
    """Return each value of a column with the lines in which it occurs."""
    word = Lines.of(column.index[:0]).word
    code, values = pd.factorize(column, use_na_sentinel=False)
    order, ends = np.argsort(code, kind="stable"), np.cumsum(np.bincount(code, minlength=len(values))).tolist()
    numbers = column.index.to_numpy()[order].tolist()
    runs = zip(values.tolist(), [0, *ends], ends, strict=False)
    return [(value, Lines(numbers[start:end], word)) for value, start, end in runs]


def at(value: str, lines: Lines) -> str:
    """Return a value and the lines in which it occurs, in words."""
    return f"{short(repr(value))} ({lines})"


def _content(path: Path) -> bytes:
    """Return the bytes of a regular file of at most `MAX_BYTES`."""
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise UserError(f"{path}: cannot be read (a folder); give a file: Parquet, CSV or TSV")
        if not stat.S_ISREG(found.st_mode):
            raise UserError(f"{path}: not a regular file; give a file: Parquet, CSV or TSV")
        if found.st_size > MAX_BYTES:
            raise UserError(
                f"{path}: {found.st_size / 2**30:.1f} GiB; tables of up to {MAX_BYTES / 2**30:g} GiB are read: leave "
                "out columns that are not needed, or give several files"
            )
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path!r}: not the path of a file ({error})") from None
    for first, advice in _OTHER_FORMATS.items():
        if content.startswith(first):
            raise UserError(f"{path}: {advice}")
    return content


def read_cells(path: Path) -> dict[int, list[str]]:
    """Return the stripped cells of each line of a text file that is not empty, whatever they mean.

    Raises
    ------
    UserError
        When the file cannot be read or is not text.
    """
    return _cells(_content(path), path)


def _cells(content: bytes, path: Path) -> dict[int, list[str]]:
    """Return the cells of each line, counted from 1, in the bytes of a text file."""
    try:
        text = content.decode("utf-16" if content.startswith(_UTF_16) else "utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; save the table as UTF-8 text (CSV or TSV) or as Parquet") from None
    if "\0" in text:
        raise UserError(f"{path}: holds NUL characters, so it is not text; save the table as UTF-8 text (CSV or TSV)")
    header = re.split(r"[\r\n]", text.lstrip("\r\n"), maxsplit=1)[0]
    # A plate map may begin with a title.
    first = header if re.search(r"[\t,;]", header) else text
    separator = max("\t,;", key=re.sub(r'"[^"]*"', "", first).count)
    # Old Macs end lines with a carriage return alone; csv takes all three line ends, also inside quotes.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    body = {}
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                # A quoted cell may span lines; the last one names the row.
                body[reader.line_num] = cells
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}; fix the quotes in this line") from None
    return body


def _text(content: bytes, path: Path) -> pd.DataFrame:
    """Return the table in the bytes of a text file."""
    body = _cells(content, path)
    names = body.pop(next(iter(body))) if body else []
    # Spreadsheets leave empty columns at the right.
    while names and not names[-1]:
        names.pop()
    body = {line: row if any(row[len(names) :]) else row[: len(names)] for line, row in body.items()}
    index = pd.Index(list(body), name="line", dtype="int64")
    length = np.array([len(row) for row in body.values()], dtype=np.int64)
    if ragged := [
        f"{path}, {Lines.of(index[length == n])}: {n} cells where the header has {len(names)}"
        for n in dict.fromkeys(length.tolist())
        if n != len(names)
    ]:
        raise UserError(ragged)
    columns = zip(*body.values(), strict=True) if body else [()] * len(names)
    # Not a dictionary of columns: names may repeat, which `read_user_table` reports.
    parts = [pd.Series(list(column), index=index, dtype="str") for column in columns]
    table = pd.concat(parts, axis=1).set_axis(names, axis=1) if parts else pd.DataFrame(index=index)
    if "" in names:
        if not _numbered(table.iloc[:, 0]) or names.count("") > 1 or names[0]:
            raise UserError(f"{path}: column {names.index('') + 1} has no name; name it or leave it out")
        table = table.iloc[:, 1:]
    return table


def _numbered(column: pd.Series) -> bool:
    """Return whether a column counts the rows from 0 or 1, as data frames write their index."""
    return any(column.tolist() == [str(row + start) for row in range(len(column))] for start in (0, 1))


def _parquet(content: bytes, path: Path) -> pd.DataFrame:
    """Return the table in the bytes of a Parquet file, whatever its pandas metadata says."""
    try:
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            data = file.read()
        data.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(
            f"{path}: not a readable Parquet file ({short(error)}); write it again, or give CSV or TSV"
        ) from None
    # A data frame's numbered index carries no information.
    data = data.select(
        [i for i, name in enumerate(data.column_names) if not re.fullmatch(r"__index_level_\d+__", name)]
    )
    index = pd.RangeIndex(1, len(data) + 1, name="row")
    names, columns, problems = [], [], []
    for name, cells in zip(data.column_names, data.columns, strict=True):
        if not name.strip():
            problems.append(f"{path}: a column has no name; name it or leave it out")
        elif (column := _column(cells)) is None:
            problems.append(f"{path}: column {name} holds {short(cells.type)}; leave it out, or write text or numbers")
        else:
            names.append(name.strip())
            columns.append(column.array)
    if problems:
        raise UserError(problems)
    # At once: to give each column its index takes longer than to read it.
    table = pd.DataFrame(dict(enumerate(columns)), index=index, copy=False)
    table.columns = pd.Index(names)
    return table


def _column(cells: pa.ChunkedArray) -> pd.Series | None:
    """Return a column of a Parquet file, or None where it holds neither text, numbers, truth values nor times."""
    kind = cells.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        cells = cells.cast(kind)
    if pa.types.is_null(kind):
        return pd.Series([""] * len(cells), dtype="str")
    if pa.types.is_decimal(kind) or pa.types.is_float16(kind):
        cells = cells.cast(pa.float64())
        kind = cells.type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        # With gaps, numpy's types would become floats, or objects.
        return cells.to_pandas(types_mapper=_NULLABLE.get) if cells.null_count else cells.to_pandas()
    if pa.types.is_floating(kind) or pa.types.is_temporal(kind):
        return cells.to_pandas()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return cells.cast(pa.large_string()).to_pandas().astype("str")
    return None


_NULLABLE = {
    pa.bool_(): pd.BooleanDtype(),
    pa.int8(): pd.Int8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint8(): pd.UInt8Dtype(),
    pa.uint16(): pd.UInt16Dtype(),
    pa.uint32(): pd.UInt32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
}
