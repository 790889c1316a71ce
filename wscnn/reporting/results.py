"""Results of a finished screen, read from its results folder."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from wscnn.core.errors import UserError
from wscnn.core.screen_folder import ModelFolder, ScreenFolder
from wscnn.core.tables import DOSES, FIELDS, HISTORY, QC, WARNINGS, WELLS, conform, read_table
from wscnn.core.wells import DISCOVERED
from wscnn.network.card import Card, read_cards


@dataclass(frozen=True)
class Results:
    """Results of a finished screen; tables that a stage may leave out are empty."""

    folder: ScreenFolder
    models: ModelFolder
    hits: pd.DataFrame
    wells: pd.DataFrame
    plates: pd.DataFrame
    suspects: pd.DataFrame
    doses: pd.DataFrame
    warnings: pd.DataFrame
    quality: pd.DataFrame
    history: pd.DataFrame
    cards: list[Card]

    @property
    def controls(self) -> pd.DataFrame:
        """The control wells; a positive control has a row for its own phenotype alone."""
        other = (self.wells["control_phenotype"] != "") & (self.wells["control_phenotype"] != self.wells["phenotype"])
        positive = (self.wells["role"] == "positive") & ~other
        return self.wells[(self.wells["role"] == "negative") | positive]

    @property
    def control_fields(self) -> pd.DataFrame:
        """The scored fields of control wells; no row where the stage `score` wrote none."""

        def of_plates() -> Iterable[pd.DataFrame]:
            for plate, wells in self.controls.groupby("plate"):
                if (path := self.folder.fields(str(plate))).is_file():
                    # Fields scored by an earlier version lack a column.
                    table = read_table(path, {name: kind for name, kind in FIELDS.items() if name != "probability"})
                    yield table[table["well"].isin(wells["well"])].reindex(columns=list(FIELDS))

        found = concat(of_plates())
        return conform(pd.DataFrame(columns=list(FIELDS)), FIELDS) if found.empty else found

    @property
    def held_out_fields(self) -> pd.DataFrame:
        """The fields that have a score, with `role` and `fold`, of control wells that no scoring network had seen."""
        wells = self.controls.query("held_out")[["plate", "well", "phenotype", "role", "fold"]]
        return self.control_fields.merge(wells, on=["plate", "well", "phenotype"]).dropna(subset="score")

    @property
    def screen(self) -> str:
        name = self.wells["screen"].iloc[0]
        return self.folder.path.name if pd.isna(name) or not name else str(name)

    @property
    def phenotypes(self) -> list[str]:
        return sorted(self.wells["phenotype"].unique())


def read_results(folder: Path, models: Path | None = None) -> Results:
    """Return the tables and model cards in a screen's results folder.

    Parameters
    ----------
    folder
        The results folder.
    models
        Folder of the model that scored the screen; None: ``model`` in the results folder.

    Raises
    ------
    UserError
        When the table of hits, wells or plates is missing or empty, or a card cannot be read.
    """
    screen = ScreenFolder(folder)
    model = screen.model if models is None else ModelFolder(models)
    wells = read_table(screen.table("wells"))
    if wells.empty:
        raise UserError(f"{screen.table('wells')}: holds no well; run the stages score and hits first")
    # Cards beside wells that no network scored are of an earlier run, before the positive controls were left out.
    cards = read_cards(model.path) if not wells["phenotype"].isin(DISCOVERED).all() else []
    wells = _complete(wells)
    wells["held_out"] = _held_out(wells, cards)
    suspects, doses, warnings = (screen.table(name) for name in ("suspects", "doses", "warnings"))
    histories = model.histories() if cards else {}
    return Results(
        folder=screen,
        models=model,
        hits=read_table(screen.table("hits")),
        wells=wells,
        plates=read_table(screen.table("plates")),
        suspects=read_table(suspects) if suspects.is_file() else pd.DataFrame(),
        doses=read_table(doses, DOSES) if doses.is_file() else pd.DataFrame(),
        warnings=read_table(warnings) if warnings.is_file() else pd.DataFrame(columns=list(WARNINGS)),
        quality=concat(read_table(path, QC) for path in screen.qualities()),
        history=concat(read_table(path, HISTORY).assign(fold=fold) for fold, path in histories.items()),
        cards=cards,
    )


def _held_out(wells: pd.DataFrame, cards: list[Card]) -> pd.Series:
    """Return for each row of `wells` whether no network that scored it had used it in training or validation.

    That is the case where a single fold, the one that held it out for testing, scored it, and where it is in no part of
    a model that was trained elsewhere. Scores of unknown origin are treated as not held out.
    """
    seen = {well for card in cards for part in card.parts.values() for well in part}
    unseen = ~(wells["plate"] + "/" + wells["well"]).isin(seen) & bool(cards)
    return wells["fold"].notna() | unseen


def _complete(wells: pd.DataFrame) -> pd.DataFrame:
    """Return `wells` with all columns: tables of the user's own scores need not have all of them."""
    columns = [*wells.columns, *(name for name in [*WELLS, "control_phenotype"] if name not in wells)]
    counts = ["n_fields", "n_fields_used", "n_objects", "n_cells"]
    table = wells.reindex(columns=columns).astype({**dict.fromkeys(counts, "Float64"), "fold": "Int8"})
    table["control_phenotype"] = table["control_phenotype"].astype("str").fillna("")
    if "used" not in table:
        table["used"] = table["score"].notna()
    return table


def failed(plates: pd.DataFrame) -> pd.Series:
    """Return for each row of plate QC whether the plate is kept out of the calls."""
    if "status" in plates:
        return plates["status"].ne("ok")
    return pd.Series(False, index=plates.index)


def concat(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    tables = [table for table in tables if not table.empty]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
