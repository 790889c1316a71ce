"""Plates as OME-Zarr with tables in the form that ngio and Fractal read.

Every image gets a feature table per phenotype, whose rows are the labels of that phenotype's masks; every plate gets a
condition table. See https://biovisioncenter.github.io/ngio/stable/table_specs/overview.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr

from wscnn.core.tables import write_table
from wscnn.core.wells import parse_well, row_letters
from wscnn.export.features import Feature, cells_with_features, features_of
from wscnn.export.finished import FinishedScreen

#: Name of the condition table of a plate.
CONDITION = "condition"


def write(screen: FinishedScreen, path: Path) -> None:
    """Write a plate of the same name into the folder `path` for each plate of the screen.

    Pixels are not copied but linked (hard links) where the file system allows it.

    Raises
    ------
    UserError
        When the images of a plate are no longer there.
    """
    stores = screen.stores()
    features = features_of(screen) if screen.has_objects else []
    cells = cells_with_features(screen, features) if screen.has_objects else None
    for store in stores:
        target = path / store.name
        shutil.copytree(store, target, copy_function=_copy, ignore=shutil.ignore_patterns(".*"))
        if cells is not None:
            _write_features(target, screen, *next(cells), features)
        _write_conditions(target, screen, store.stem)


def _copy(source: str, target: str) -> None:
    """Link pixels, and copy everything that a tool may rewrite: metadata, labels."""
    file = Path(source)
    if file.name == "zarr.json" or "labels" in file.parts:
        shutil.copyfile(source, target)
        return
    try:
        os.link(source, target)
    except OSError:
        # Another file system, or one without hard links.
        shutil.copyfile(source, target)


def _write_features(
    target: Path, screen: FinishedScreen, cells: pd.DataFrame, values: np.ndarray, features: list[Feature]
) -> None:
    """Write the feature tables of the images of a plate, also where no cell was detected."""
    names = [one.name for one in features]
    described = cells[["object", "field", "score", "y", "x"]].rename(columns={"object": "label"})
    table = pd.concat([described, pd.DataFrame(values, cells.index, names)], axis=1)
    groups = {str(well): rows for well, rows in cells.groupby("well").indices.items()}
    for image in sorted(target.glob("*/*/0")):
        well = f"{image.parent.parent.name}{image.parent.name}"
        own = groups.get(well, np.zeros(0, int))
        labels = image / "labels"
        there = [phenotype for phenotype in screen.phenotypes if (labels / phenotype).is_dir()]
        tables = {
            phenotype: table.iloc[own][(cells["phenotype"].iloc[own] == phenotype).to_numpy()] for phenotype in there
        }
        for phenotype, rows in tables.items():
            meta = {"type": "feature_table", "region": {"path": f"../labels/{phenotype}"}, "index_key": "label"}
            meta |= {"index_type": "int", "metadata_columns": ["field"], "measurement_columns": ["score", *names]}
            _write_table(image / "tables" / phenotype, rows, meta)
        if there:
            zarr.create_group(image / "tables", zarr_format=3, attributes={"tables": there})


def _write_conditions(target: Path, screen: FinishedScreen, plate: str) -> None:
    """Write the condition table of a plate: one row per image."""
    own = screen.conditions[screen.conditions["plate"] == plate].drop(columns=["plate", "well_row", "well_column"])
    positions = [parse_well(well) for well in own["well"]]
    place = {
        "row": [row_letters(row) for row, _ in positions],
        "column": [f"{column + 1:02d}" for _, column in positions],
        "path_in_well": "0",
    }
    table = pd.concat([pd.DataFrame(place, index=own.index), own], axis=1).reset_index(drop=True)
    table.insert(0, "index", range(len(table)))
    meta = {"type": "condition_table", "index_key": "index", "index_type": "int"}
    _write_table(target / "tables" / CONDITION, table, meta)
    zarr.create_group(target / "tables", zarr_format=3, attributes={"tables": [CONDITION]})


def _write_table(folder: Path, table: pd.DataFrame, meta: dict[str, Any]) -> None:
    zarr.create_group(folder, zarr_format=3, attributes={"table_version": "1", "backend": "parquet", **meta})
    write_table(table.reset_index(drop=True), folder / "table.parquet")
