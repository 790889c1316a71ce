"""Profiles with the names of CytoTable: ``Metadata_`` columns and features named after what they are measured on.

pycytominer reads them: each file holds one kind of row, and its features begin with ``Cells_``, ``Nuclei_`` or
``Image_``.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from wscnn.core.tables import CELLS, read_table
from wscnn.export.features import DESCRIBED, TEXTBOOK, WELL_FEATURES, cells_with_features, features_of, textbook
from wscnn.export.finished import FinishedScreen

# Names of metadata that the tools of Cell Painting know; other columns keep theirs.
_METADATA = {
    "plate": "Metadata_Plate",
    "well": "Metadata_Well",
    "field": "Metadata_Site",
    "object": "Metadata_ObjectNumber",
    "y": "Metadata_Location_Center_Y",
    "x": "Metadata_Location_Center_X",
}


def write(screen: FinishedScreen, path: Path) -> None:
    """Write the profiles into the folder `path`: wells, and where there are any detected cells and nuclei."""
    names = [name for name in WELL_FEATURES if name in screen.wells]
    values = screen.wells[names].to_numpy(np.float64, na_value=np.nan)
    features = pd.DataFrame(values, columns=[f"Image_{name}" for name in names])
    metadata = [name for name in screen.wells if name not in names]
    _write([pd.concat([_metadata(screen.wells[metadata]), features], axis=1)], path / "wells.parquet")
    if screen.has_objects:
        _write(_detected(screen), path / "cells.parquet")
    if any(screen.folder.cells(plate).is_file() for plate in screen.plate_names):
        _write(_nuclei(screen), path / "nuclei.parquet")


def _metadata(table: pd.DataFrame) -> pd.DataFrame:
    return table.rename(columns=lambda name: _METADATA.get(name, f"Metadata_{name}")).reset_index(drop=True)


def _detected(screen: FinishedScreen) -> Iterable[pd.DataFrame]:
    """Yield the detected cells of each plate."""
    features = features_of(screen)
    names = [f"{one.kind}_{one.name.removeprefix('nucleus_')}" for one in features]
    described = [*DESCRIBED, *(name for name in screen.conditions if name not in DESCRIBED)]
    for cells, values in cells_with_features(screen, features):
        yield pd.concat([_metadata(cells[described]), pd.DataFrame(values, columns=names)], axis=1)


def _nuclei(screen: FinishedScreen) -> Iterable[pd.DataFrame]:
    """Yield all nuclei of each plate that were measured, detected or not."""
    names = [f"{TEXTBOOK}{name}" for name in textbook(screen)]
    for plate in screen.plate_names:
        if not (path := screen.folder.cells(plate)).is_file():
            continue
        on_plate = screen.conditions[screen.conditions["plate"] == plate].drop(columns="plate")
        table = read_table(path, CELLS).merge(on_plate, on="well", validate="many_to_one")
        features = table.reindex(columns=names).astype(np.float32)
        named = features.rename(columns=lambda name: f"Nuclei_{name.removeprefix(TEXTBOOK)}")
        others = [name for name in table.columns.astype(str) if not name.startswith(TEXTBOOK)]
        yield pd.concat([_metadata(table[others]), named], axis=1)


def _write(tables: Iterable[pd.DataFrame], path: Path) -> None:
    """Write tables one below the other to a Parquet file, one at a time."""
    writer: pq.ParquetWriter | None = None
    try:
        for table in tables:
            data = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata()
            if writer is None:
                writer = pq.ParquetWriter(path, data.schema, compression="zstd")
            writer.write_table(data.cast(writer.schema))
    finally:
        if writer is not None:
            writer.close()
