"""Tables of well scores and a screen's layout, read, joined and checked: what hit calling starts from."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from wscnn.config import DEFAULT_PHENOTYPE
from wscnn.errors import UserError
from wscnn.progress import log
from wscnn.tables import WELLS, read_table
from wscnn.wells import parse_well

ROLES = ["negative", "positive", "sample", "exclude"]

#: Columns that the layout brings to a table of wells.
LAYOUT = ["batch", "perturbation", "role", "control_phenotype"]

# How many wells or names a message lists.
_NAMED = 5


def read_wells(paths: Sequence[Path]) -> pd.DataFrame:
    """Return tables of wells as one: Parquet, or text (CSV, TSV), of which plates and wells are read as text.

    Raises
    ------
    UserError
        When a file is missing or is no table.
    """
    parts = [
        _read_text(path) if path.suffix.lower() in (".csv", ".tsv", ".txt") else read_table(path) for path in paths
    ]
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def _read_text(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, sep=None, engine="python", dtype={"plate": "str", "well": "str"}, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a table ({error})") from None


def join_layout(wells: pd.DataFrame, layout: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return `wells` with the layout's columns, and the layout.

    The layout's ``phenotype`` becomes ``control_phenotype``, for a well is scored for every phenotype. Wells that the
    layout does not name get role ``exclude``.
    """
    layout = layout.rename(columns={"phenotype": "control_phenotype"})
    if "batch" not in layout:
        layout = layout.assign(batch="")
    # What was scored comes from the tables of wells, whatever a layout's further columns are called.
    layout = layout[[name for name in layout.columns if name in ("plate", "well") or name not in WELLS]]
    own = [name for name in wells.columns if name in layout.columns and name not in ("plate", "well")]
    joined = wells.drop(columns=own).merge(layout, on=["plate", "well"], how="left", validate="many_to_one")
    unknown = joined["role"].isna()
    if unknown.any():
        log(f"hits: {_some(joined[unknown])}: not in the layout, left out")
    joined["role"] = joined["role"].fillna("exclude")
    joined["perturbation"] = joined["perturbation"].fillna("")
    return joined, layout


def check_wells(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """Return a table of wells with all columns that the statistics need, checked.

    A score that is infinite counts as missing. A perturbation with several roles is taken by the role of each well.

    Raises
    ------
    UserError
        Naming what is missing, unknown or there twice.
    """
    missing = [name for name in ("plate", "well", "perturbation", "role", "score") if name not in table]
    if missing:
        raise UserError(f"{source}: no column {', '.join(missing)}; the columns are {', '.join(table.columns)}")
    if "control_phenotype" not in table:
        table = table.assign(control_phenotype="")
    if "phenotype" not in table:
        table = table.assign(phenotype=DEFAULT_PHENOTYPE)
    table = table.assign(**{name: "" for name in ("screen", "batch") if name not in table})
    problems = []
    for name in ("plate", "well", "role", "perturbation", "phenotype"):
        empty = table[name].isna() | ((table[name] == "") & ~((name == "perturbation") & (table["role"] == "exclude")))
        if empty.any():
            problems.append(f"{source}: {int(empty.sum())} rows have no {name}; fill it in")
    unknown = sorted(set(table["role"].dropna().astype(str)) - {*ROLES, ""})
    if unknown:
        problems.append(f"{source}: role {', '.join(unknown)} does not exist; the roles are {', '.join(ROLES)}")
    if not pd.api.types.is_numeric_dtype(table["score"]):
        problems.append(f"{source}: column score holds text; it must hold numbers")
    if problems:
        raise UserError(problems)
    text = ["screen", "plate", "batch", "well", "perturbation", "role", "control_phenotype", "phenotype"]
    table = table.astype(dict.fromkeys(text, "str"))
    table["control_phenotype"] = table["control_phenotype"].fillna("")
    table["batch"] = table["batch"].fillna("")
    if not {"well_row", "well_column"} <= set(table.columns):
        try:
            places = {well: parse_well(well) for well in table["well"].unique()}
        except ValueError as error:
            raise UserError(f"{source}: {error}") from None
        table["well_row"] = table["well"].map({well: place[0] for well, place in places.items()})
        table["well_column"] = table["well"].map({well: place[1] for well, place in places.items()})
    twice = table.duplicated(["plate", "well_row", "well_column", "phenotype"])
    if twice.any():
        raise UserError(f"{source}: {_some(table[twice])}: scored twice for one phenotype; keep one row")
    score = table["score"].to_numpy(dtype=float, na_value=np.nan)
    if np.isinf(score).any():
        log(f"hits: {_some(table[np.isinf(score)])}: score is infinite, taken as missing")
    table["score"] = np.where(np.isfinite(score), score, np.nan)
    roles = table[table["role"] != "exclude"].groupby("perturbation")["role"].nunique()
    for name in roles.index[roles > 1][:_NAMED]:
        log(f"hits: perturbation '{name}' has several roles; each of its wells counts by its own role")
    return table


def _some(rows: pd.DataFrame) -> str:
    """Return the first wells of `rows` by name, and how many more there are."""
    names = (rows["plate"].astype(str) + " " + rows["well"].astype(str)).drop_duplicates()
    more = f" and {len(names) - _NAMED} more wells" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
