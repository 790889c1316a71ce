"""A finished screen as exports read it: tables of the whole screen in memory, those of a plate one at a time."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import yaml

from wscnn.core.errors import UserError, listed, short
from wscnn.core.screen_folder import ModelFolder, ScreenFolder
from wscnn.core.tables import OBJECTS, SCREEN_WELLS, read_table

# Tables without which a screen is not finished, and the columns that exports need of them.
_OF_A_WELL = ("plate", "well", "well_row", "well_column", "perturbation", "role", "control_phenotype")
_NEEDED = {
    "hits": ("rank", "perturbation", "phenotype", "role", "hit"),
    "wells": (*_OF_A_WELL, "phenotype", "score"),
    "plates": ("plate", "phenotype", "status"),
}
# Names that exports have for other things than a column of the layout, in lower case.
_TAKEN = {*OBJECTS, "label", "index", "_index", "row", "column", "path_in_well", "treatment", "controlphenotype"}


@dataclass(frozen=True)
class FinishedScreen:
    """Results of a finished screen.

    Attributes
    ----------
    folder
        The results folder.
    hits, wells, plates
        Tables of the whole screen, as `hits` wrote them.
    """

    folder: ScreenFolder
    hits: pd.DataFrame
    wells: pd.DataFrame
    plates: pd.DataFrame

    @property
    def name(self) -> str:
        """Name of the screen."""
        names = self.wells["screen"].dropna() if "screen" in self.wells else pd.Series(dtype=str)
        return str(names.iloc[0]) if len(names) and names.iloc[0] else self.folder.path.resolve().name

    @property
    def plate_names(self) -> list[str]:
        """Names of all plates, sorted."""
        return sorted(self.wells["plate"].unique())

    @property
    def phenotypes(self) -> list[str]:
        """Names of all phenotypes, sorted."""
        return sorted(self.wells["phenotype"].unique())

    @cached_property
    def conditions(self) -> pd.DataFrame:
        """One row per plate and well: what was done to it, with the layout's further columns.

        A further column called like something that exports hold, such as ``row``, becomes ``layout_row``.
        """
        further = [name for name in map(str, self.wells) if name not in SCREEN_WELLS]
        table = self.wells[[*_OF_A_WELL, *(["batch"] if "batch" in self.wells else []), *further]]
        renamed = {name: f"layout_{name}" for name in further if name.lower() in _TAKEN}
        return table.drop_duplicates(["plate", "well"]).reset_index(drop=True).rename(columns=renamed)

    @property
    def config(self) -> dict[str, Any]:
        """The config as it was run; empty where the results folder keeps none."""
        if not self.folder.config.is_file():
            return {}
        try:
            return dict(yaml.safe_load(self.folder.config.read_bytes()))
        except (yaml.YAMLError, UnicodeDecodeError, TypeError, ValueError) as error:
            raise UserError(
                f"{self.folder.config}: not the config of a run ({short(error)}); run the screen again"
            ) from None

    @property
    def models(self) -> ModelFolder:
        """Folder of the model that scored the screen."""
        return ModelFolder(Path((self.config.get("model") or {}).get("checkpoint") or self.folder.model.path))

    @cached_property
    def has_objects(self) -> bool:
        """Whether any cell was detected."""
        paths = map(self.folder.objects, self.plate_names)
        return any(columns_of(path)[1] for path in paths if path.is_file())

    def objects(self, plate: str) -> pd.DataFrame:
        """Return the detected cells of a plate, joined with the conditions of their wells."""
        table = read_table(self.folder.objects(plate), OBJECTS)
        on_plate = self.conditions[self.conditions["plate"] == plate]
        joined = table.merge(on_plate.drop(columns="plate"), on="well", how="inner", validate="many_to_one")
        return joined.sort_values(["well_row", "well_column", "phenotype", "object"], ignore_index=True)

    def stores(self) -> list[Path]:
        """Return the staged plates, in the order of `plate_names`.

        Raises
        ------
        UserError
            Naming the plates whose images are no longer there.
        """
        stores = [self.folder.plate(plate) for plate in self.plate_names]
        if missing := [store.stem for store in stores if not store.is_dir()]:
            raise UserError(
                f"{self.folder.path}: the images of {listed(missing)} are not there (plates/<plate>.zarr), and this "
                "export needs them; run the workflow again, which stages them"
            )
        return stores


def columns_of(path: Path) -> tuple[list[str], int]:
    """Return the names of the columns and the number of rows of a Parquet file, from its metadata alone.

    Raises
    ------
    UserError
        When it cannot be read.
    """
    try:
        found = pq.read_metadata(path)
        return list(found.schema.to_arrow_schema().names), int(found.num_rows)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({short(error)}); delete it and run again") from None


def read_finished(results: Path) -> FinishedScreen:
    """Return a finished screen.

    Parameters
    ----------
    results
        The screen's results folder.

    Raises
    ------
    UserError
        Naming what is missing and what to run, when the screen is not finished; and when a table cannot be read.
    """
    folder = ScreenFolder(results)
    missing = [folder.table(name).name for name in _NEEDED if not folder.table(name).is_file()]
    if missing:
        screens = sorted(path.parent.name for path in results.glob("*/hits.parquet"))
        what = (
            f"give the results folder of one screen, such as {results / screens[0]}"
            if screens
            else "finish the screen with `wscnn run CONFIG`"
            if results.is_dir()
            else "give the results folder of a finished screen"
        )
        raise UserError(f"{results}: not the results of a finished screen ({listed(missing)} missing); {what}")
    hits, wells, plates = (read_table(folder.table(name)) for name in _NEEDED)
    for (name, columns), table in zip(_NEEDED.items(), (hits, wells, plates), strict=True):
        if lacking := [column for column in columns if column not in table]:
            raise UserError(f"{folder.table(name)}: has no column {', '.join(lacking)}; run the stage hits again")
    if wells.empty:
        raise UserError(f"{folder.table('wells')}: holds no well; run the stages score and hits again")
    screen = FinishedScreen(folder, hits, wells, plates)
    without = [plate for plate in screen.plate_names if not folder.objects(plate).is_file()]
    if 0 < len(without) < len(screen.plate_names):
        raise UserError(
            f"{results}: plates {listed(without)} have no table of detected cells (objects/<plate>.parquet), although "
            "others do; run `wscnn run CONFIG`, which scores them"
        )
    return screen
