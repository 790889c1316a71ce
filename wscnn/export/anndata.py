"""AnnData as a Zarr group: one observation per detected cell, or per well where no cell was detected.

Written with zarr alone by AnnData's on-disk format (https://anndata.readthedocs.io/en/stable/fileformat-prose.html), in
Zarr's second version, which all releases of anndata read. Plates follow each other, so that memory holds one block of
observations however many plates there are.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr

from wscnn.core.tables import OBJECTS, described
from wscnn.export.features import DESCRIBED, WELL_FEATURES, cells_with_features, features_of
from wscnn.export.finished import FinishedScreen

# Observations of a chunk, and of a block in memory.
_ROWS = 16_384


def write(screen: FinishedScreen, path: Path) -> None:
    """Write the AnnData object to the Zarr group at `path`."""
    root = zarr.open_group(path, mode="a", zarr_format=2)
    root.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    for name in ("layers", "obsm", "obsp", "varm", "varp"):
        _group(root, name, "dict", "0.1.0")
    parts: Iterable[tuple[pd.DataFrame, np.ndarray]]
    if screen.has_objects:
        features = features_of(screen)
        var = pd.DataFrame(
            {"measured_on": [one.kind for one in features], "meaning": [one.meaning for one in features]}
        )
        var.index = pd.Index([one.name for one in features])
        key = ["plate", "well", "phenotype", "object"]
        known = {"phenotype": screen.wells["phenotype"], **{str(name): own for name, own in screen.conditions.items()}}
        columns = list(dict.fromkeys([*DESCRIBED, *known]))
        parts = cells_with_features(screen, features)
    else:
        names = [name for name in WELL_FEATURES if name in screen.wells]
        meanings = [column.meaning if (column := described("screen_wells", name)) else "" for name in names]
        var = pd.DataFrame({"measured_on": "Wells", "meaning": meanings}, index=pd.Index(names))
        key = ["plate", "well", "phenotype"]
        known = {str(name): column for name, column in screen.wells.items() if name not in names}
        columns = list(known)
        parts = [(screen.wells, screen.wells[names].to_numpy(np.float32, na_value=np.nan))]
    uns = _group(root, "uns", "dict", "0.1.0")
    _string(uns, "screen", screen.name)
    _string(uns, "observation", key[-1])
    _write_var(root, var)
    writer = _ObservationWriter(root, len(var), columns, key, known)
    for cells, values in _blocks(parts):
        writer.append(cells, values)
    zarr.consolidate_metadata(path, zarr_format=2)


def _blocks(parts: Iterable[tuple[pd.DataFrame, np.ndarray]]) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
    """Yield the rows of all parts in blocks of whole chunks, but for the last."""
    held: list[tuple[pd.DataFrame, np.ndarray]] = []
    for part in parts:
        held.append(part)
        n = sum(len(table) for table, _ in held)
        if n >= _ROWS:
            table, values = _joined(held)
            whole = n - n % _ROWS
            yield table[:whole], values[:whole]
            held = [(table[whole:], values[whole:])]
    if held:
        yield _joined(held)


def _joined(parts: list[tuple[pd.DataFrame, np.ndarray]]) -> tuple[pd.DataFrame, np.ndarray]:
    return pd.concat([table for table, _ in parts], ignore_index=True), np.concatenate([values for _, values in parts])


class _ObservationWriter:
    """Appends observations: ``X`` and the columns of ``obs``, text as categories that are known beforehand."""

    def __init__(
        self, root: zarr.Group, n_features: int, columns: list[str], key: list[str], known: dict[str, pd.Series]
    ) -> None:
        self._key = key
        self._x = _array(root, "X", (0, n_features), np.float32)
        self._obs = _group(root, "obs", "dataframe", "0.2.0")
        self._obs.attrs.update({"_index": "_index", "column-order": [_key(name) for name in columns]})
        self._index = _array(self._obs, "_index", (0,), str)
        self._categories: dict[str, pd.Index] = {}
        self._columns: dict[str, zarr.Array] = {}
        for name in columns:
            if name in known and known[name].dtype == "str":
                group = _group(self._obs, _key(name), "categorical", "0.2.0")
                group.attrs["ordered"] = False
                categories = pd.Index(sorted(known[name].dropna().unique()), dtype=object)
                _array(group, "categories", (0,), str).append(categories.to_numpy())
                self._categories[name] = categories
                self._columns[name] = _array(group, "codes", (0,), np.int32)
            else:
                dtype = known[name].dtype if name in known else _DTYPES[name]
                self._columns[name] = _array(self._obs, _key(name), (0,), _plain(dtype))

    def append(self, table: pd.DataFrame, values: np.ndarray) -> None:
        """Append observations, one per row of `table`."""
        if table.empty:
            return
        self._x.append(values)
        index = ["/".join(map(str, row)) for row in table[self._key].itertuples(index=False)]
        self._index.append(np.array(index, object))
        for name, column in self._columns.items():
            if name in self._categories:
                column.append(self._categories[name].get_indexer(pd.Index(table[name])).astype(np.int32))
            else:
                column.append(np.asarray(table[name], column.dtype))


# Columns of detected cells that are not those of wells.
_DTYPES = {name: np.dtype(OBJECTS[name]) for name in ("field", "object", "y", "x", "score")}


def _key(name: str) -> str:
    """Return the name of a column as Zarr can hold it, to which a slash is a step into a group."""
    return name.replace("/", "_")


def _plain(dtype: Any) -> np.dtype[Any]:
    """Return the type of NumPy that holds a column, missing values included."""
    if isinstance(dtype, np.dtype) and dtype.kind in "bif":
        return dtype
    return np.dtype(np.float64)


def _write_var(root: zarr.Group, var: pd.DataFrame) -> None:
    group = _group(root, "var", "dataframe", "0.2.0")
    group.attrs.update({"_index": "_index", "column-order": [str(name) for name in var]})
    for name, values in {"_index": var.index, **var}.items():
        _array(group, str(name), (0,), str).append(np.asarray(values, object))


def _group(parent: zarr.Group, name: str, kind: str, version: str) -> zarr.Group:
    group = parent.create_group(name)
    group.attrs.update({"encoding-type": kind, "encoding-version": version})
    return group


def _array(parent: zarr.Group, name: str, shape: tuple[int, ...], dtype: Any) -> zarr.Array:
    """Return a new array of AnnData, to be appended to along its first axis."""
    array = parent.create_array(name, shape=shape, chunks=(_ROWS, *shape[1:]), dtype=dtype)
    kind = "string-array" if dtype is str else "array"
    array.attrs.update({"encoding-type": kind, "encoding-version": "0.2.0"})
    return array


def _string(parent: zarr.Group, name: str, text: str) -> None:
    array = parent.create_array(name, shape=(), dtype=str)
    array[()] = text
    array.attrs.update({"encoding-type": "string", "encoding-version": "0.2.0"})
