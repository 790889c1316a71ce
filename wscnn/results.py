"""What a finished screen left in its results folder."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from wscnn.errors import UserError
from wscnn.tables import FIELDS, WELLS, read_table


@dataclass(frozen=True)
class Results:
    """What a finished screen left in its results folder; tables that a stage may leave out are empty."""

    folder: Path
    hits: pd.DataFrame
    wells: pd.DataFrame
    plates: pd.DataFrame
    suspects: pd.DataFrame
    quality: pd.DataFrame
    history: pd.DataFrame
    cards: list[dict[str, Any]]

    @property
    def controls(self) -> pd.DataFrame:
        """The control wells; a positive control has a row for its own phenotype alone."""
        other = (self.wells["control_phenotype"] != "") & (self.wells["control_phenotype"] != self.wells["phenotype"])
        positive = (self.wells["role"] == "positive") & ~other
        return self.wells[(self.wells["role"] == "negative") | positive]

    @property
    def control_fields(self) -> pd.DataFrame:
        """The scored fields of control wells; no row where the stage `score` left none."""

        def of_plates() -> Iterable[pd.DataFrame]:
            for plate, wells in self.controls.groupby("plate"):
                if (path := self.folder / "fields" / f"{plate}.parquet").is_file():
                    table = read_table(path)
                    yield table.loc[table["well"].isin(wells["well"]), list(FIELDS)]

        return concat(of_plates()).reindex(columns=list(FIELDS))

    @property
    def screen(self) -> str:
        name = self.wells["screen"].iloc[0]
        return self.folder.name if pd.isna(name) or not name else str(name)

    @property
    def phenotypes(self) -> list[str]:
        return sorted(self.wells["phenotype"].unique())


def read_results(folder: Path) -> Results:
    """Return the tables and model cards in a screen's results folder."""
    wells = read_table(folder / "wells.parquet")
    if wells.empty:
        raise UserError(f"{folder / 'wells.parquet'}: holds no well; run the stages score and hits first")
    wells = _complete(wells)
    suspects = folder / "suspects.parquet"
    histories = sorted((folder / "model").glob("history-*.parquet"))
    return Results(
        folder=folder,
        hits=read_table(folder / "hits.parquet"),
        wells=wells,
        plates=read_table(folder / "plates.parquet"),
        suspects=read_table(suspects) if suspects.is_file() else pd.DataFrame(),
        quality=concat(read_table(path) for path in sorted((folder / "qc").glob("*.parquet"))),
        history=concat(read_table(path).assign(fold=path.stem.removeprefix("history-")) for path in histories),
        cards=[json.loads(path.read_text()) for path in sorted((folder / "model").glob("fold-*.json"))],
    )


def _complete(wells: pd.DataFrame) -> pd.DataFrame:
    """Return `wells` with all columns: tables of the user's own scores need not have all of them."""
    columns = [*wells.columns, *(name for name in [*WELLS, "control_phenotype"] if name not in wells)]
    counts = ["n_fields", "n_fields_used", "n_objects", "n_cells"]
    table = wells.reindex(columns=columns).astype({**dict.fromkeys(counts, "Float64"), "fold": "Int8"})
    table["control_phenotype"] = table["control_phenotype"].fillna("").astype("str")
    if "used" not in table:
        table["used"] = table["score"].notna()
    return table


def concat(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    tables = [table for table in tables if not table.empty]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
