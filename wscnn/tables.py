"""The tables between stages: which columns each has, and how they are read and written."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from wscnn.atomic import atomic_path
from wscnn.errors import UserError

#: A row an image file (or plane of one): where field, channel, z plane and time point of a well lie.
INDEX = {
    "plate": "str",
    "well": "str",
    "field": "int32",
    "channel": "str",
    "z": "int32",
    "time": "int32",
    "path": "str",
    "page": "int32",
    "y_um": "float64",
    "x_um": "float64",
    "pixel_size_um": "float64",
}

#: A row a well and phenotype, as `score` writes it; `hits` adds the layout's columns, z and p.
WELLS = {
    "screen": "str",
    "plate": "str",
    "well": "str",
    "well_row": "int16",
    "well_column": "int16",
    "phenotype": "str",
    "n_fields": "Int32",
    "n_fields_used": "Int32",
    "score": "float64",
    "score_sd": "float64",
    "score_max": "float64",
    "fraction_positive_fields": "float64",
    "n_objects": "Int32",
    "object_area_fraction": "float64",
    "n_cells": "Int64",
    "fold": "Int8",
    "why_no_score": "str",
}

#: A row a field and phenotype.
FIELDS = {
    "screen": "str",
    "plate": "str",
    "well": "str",
    "field": "int32",
    "phenotype": "str",
    "used": "bool",
    "score": "float64",
    "score_sd": "float64",
    "probability": "float64",
    "n_objects": "Int32",
    "object_area_px": "int64",
}

#: A row a detected object; places in pixels of the well's mosaic, boxes half open.
OBJECTS = {
    "plate": "str",
    "well": "str",
    "field": "int32",
    "phenotype": "str",
    "object": "int32",
    "y": "float64",
    "x": "float64",
    "y0": "int32",
    "x0": "int32",
    "y1": "int32",
    "x1": "int32",
    "area_px": "int32",
    "score": "float64",
}

#: One row per staged field, as `stage` writes it; its numbers for each channel follow.
QC = {
    "plate": "str",
    "well": "str",
    "field": "int32",
    "used": "bool",
    "flags": "str",
    "n_cells": "Int64",
}
#: One row per control well, as `check` writes it for `train`; the layout's other columns may follow.
CONTROLS = {"plate": "str", "well": "str", "role": "str", "phenotype": "str"}

#: What training noted at each evaluation; further columns may follow.
HISTORY = {"step": "int64", "loss": "float64", "select_auc": "float64", "best": "bool"}

# The key of a Parquet file's metadata under which a table's notes lie.
_NOTES = b"wscnn"


def conform(table: pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    """Return `table` with exactly these columns first, in this order and with these types, then any others."""
    others = [name for name in table.columns if name not in columns]
    return table[[*columns, *others]].astype(columns)


def write_table(table: pd.DataFrame, path: Path, notes: Mapping[str, Any] | None = None) -> None:
    """Write `table` to the Parquet file `path` atomically; equal tables and notes give equal bytes.

    Parameters
    ----------
    table
        Its index is not written.
    path
        The file to write.
    notes
        What is to be known of the table beside its rows, as JSON in the file's metadata (see `read_notes`).
    """
    data = pa.Table.from_pandas(table, preserve_index=False)
    if notes:
        text = json.dumps(dict(notes), sort_keys=True, allow_nan=False)
        data = data.replace_schema_metadata({**(data.schema.metadata or {}), _NOTES: text.encode()})
    with atomic_path(path) as partial:
        # Checksums make a flipped bit an error instead of a wrong number.
        pq.write_table(data, partial, compression="zstd", write_page_checksum=True)


def read_notes(path: Path) -> dict[str, Any]:
    """Return the notes that a Parquet file written by `write_table` holds; none where it has none.

    Raises
    ------
    UserError
        When the file is missing, is no Parquet file, or its notes are damaged.
    """
    try:
        with pq.ParquetFile(path) as file:
            text = (file.schema_arrow.metadata or {}).get(_NOTES, b"{}")
        notes = json.loads(text)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the stage that makes it first") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({error}); delete it and run again") from None
    return notes if isinstance(notes, dict) else {}


def read_table(path: Path, columns: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Return the Parquet file at `path` as a table.

    Parameters
    ----------
    path
        The file.
    columns
        Columns that the table must have, with their types, such as `INDEX`; numbers may be narrower or wider than
        declared. These columns come first, in this order and with these types, then any others.

    Raises
    ------
    UserError
        When it is missing or is no Parquet file, lacks a column, or a column has another type or missing values.
    """
    try:
        # Not `pq.read_table`: it reads a folder as one table, and columns into names such as `screen=1`.
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            data = file.read()
        problems = [_type_problem(data, name, kind) for name, kind in (columns or {}).items()]
        table = data.to_pandas()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the stage that makes it first") from None
    except Exception as error:  # whatever comes of broken metadata or pages is the file's fault
        reason = " ".join(f"{error}".split())[:200]
        raise UserError(f"{path}: not a readable Parquet file ({reason}); delete it and run again") from None
    if found := [problem for problem in problems if problem]:
        raise UserError(f"{path}: {'; '.join(found)}; run the stage that makes it again")
    return table if columns is None else conform(table, dict(columns))


def _type_problem(data: pa.Table, name: str, kind: str) -> str | None:
    """Return why column `name` of `data` cannot be read as `kind`; None where it can."""
    if name not in data.column_names:
        return f"has no column {name}"
    column = data[name]
    found = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    nullable = kind == "float64" or kind.startswith("Int")
    what, fits = {
        "str": ("text", lambda: pa.types.is_string(found) or pa.types.is_large_string(found)),
        "bool": ("true or false", lambda: pa.types.is_boolean(found)),
        "float64": ("numbers", lambda: pa.types.is_floating(found) or pa.types.is_integer(found)),
    }.get(kind, ("whole numbers", lambda: pa.types.is_integer(found)))
    # A column without any value has no type of its own.
    if not fits() and not (pa.types.is_null(found) and (nullable or not len(column))):
        return f"column {name} holds {found} where {what} should be"
    if column.null_count and not nullable:
        return f"column {name} has missing values"
    try:
        column.cast(pa.type_for_alias(kind.lower()))
    except pa.ArrowInvalid:
        return f"column {name} holds numbers that do not fit into {kind}"
    return None
