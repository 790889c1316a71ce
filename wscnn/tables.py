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

#: One row per image file (or plane of one): where field, channel, z plane and time point of a well lie. Readers list
#: paths with their folder; the index of a plate holds them without it.
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

#: Further columns of an index, which tell whether a file is still the one that was indexed: its size in bytes and its
#: time of modification. For an OME-Zarr array, which is a folder, the sums over its files (of times modulo 2^63).
ORIGINAL = {"size": "int64", "mtime_ns": "int64"}

#: A row a well and phenotype, as `score` writes it; `hits` adds the layout's columns, z and p.
WELLS = {
    "screen": "str",
    "plate": "str",
    "well": "str",
    "well_row": "int16",
    "well_column": "int16",
    "phenotype": "str",
    "n_fields": "int32",
    "n_fields_used": "int32",
    "score": "float64",
    "score_sd": "float64",
    "score_max": "float64",
    "fraction_positive_fields": "float64",
    "n_objects": "int32",
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
    "n_objects": "int32",
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
        pq.write_table(data, partial, compression="zstd")


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


def read_table(path: Path) -> pd.DataFrame:
    """Return the Parquet file at `path` as a table.

    Raises
    ------
    UserError
        When it is missing or is no Parquet file.
    """
    try:
        # Not `pq.read_table`: it reads a folder as one table, and columns into names such as `screen=1`.
        with pq.ParquetFile(path) as file:
            return file.read().to_pandas()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the stage that makes it first") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({error}); delete it and run again") from None
