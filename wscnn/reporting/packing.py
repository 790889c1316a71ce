"""Tables and other data as the page's script unpacks them."""

import base64
import gzip
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd


def pack(data: Mapping[str, Any]) -> str:
    """Return `data` as the page's script unpacks it: JSON, gzip, base64; equal data give equal text."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def compact(table: pd.DataFrame) -> dict[str, Any]:
    """Return a table for the page: numbers to four significant digits, each text once, missing values as null."""
    return {"n": len(table), "columns": {name: _compact_column(table[name]) for name in table.columns}}


def _compact_column(column: pd.Series) -> dict[str, Any] | list[Any]:
    if pd.api.types.is_bool_dtype(column):
        return [bool(value) for value in column]
    if pd.api.types.is_numeric_dtype(column):
        return [_short(float(value)) for value in column.astype("Float64").to_numpy(dtype=float, na_value=np.nan)]
    codes, levels = pd.factorize(column.astype("str").where(column.notna(), None))
    return {"levels": [str(level) for level in levels], "codes": codes.tolist()}


def _short(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    short = float(f"{value:.4g}")
    return int(short) if short.is_integer() else short
