"""Tables of well scores and a screen's layout, read, joined and checked: what hit calling starts from."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wscnn.core.errors import UserError, listed, merged
from wscnn.core.progress import log
from wscnn.core.screen_tables import DEFAULT_PHENOTYPE
from wscnn.core.tables import WELLS
from wscnn.core.user_tables import SUFFIXES, Lines, as_numbers, as_text, at, by_value, read_user_table, typed
from wscnn.core.wells import parse_well, well_name

ROLES = ["negative", "positive", "sample", "exclude"]

#: Columns that the layout brings to a table of wells.
LAYOUT = ["batch", "perturbation", "role", "control_phenotype"]

#: Beyond this, scores cannot be squared and summed.
LARGEST_SCORE = 1e100

# How many wells or names a message lists.
_NAMED = 5
# Columns that are text, whatever they look like.
_TEXT = [*(name for name, kind in WELLS.items() if kind == "str"), *LAYOUT]


def well_tables(paths: Sequence[Path]) -> list[Path]:
    """Return the files of tables that `paths` are or, being folders, hold; what else a folder holds is logged.

    Raises
    ------
    UserError
        When there is none.
    """
    files = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        inside = sorted(file for file in path.iterdir() if not file.name.startswith("."))
        tables = [file for file in inside if file.suffix.lower() in SUFFIXES]
        if not tables:
            raise UserError(f"{path}: no table ({', '.join(SUFFIXES)}) in this folder; score the plates first")
        if others := [file.name for file in inside if file not in tables]:
            log(f"hits: {path}: not read, because their names do not end in {', '.join(SUFFIXES)}: {listed(others)}")
        files += tables
    return files


def read_wells(paths: Sequence[Path], treated: bool) -> pd.DataFrame:
    """Return the users' or the stages' tables of wells as one.

    Wells are named as in ``B03``. Columns of `wscnn.core.tables.WELLS` have their types; further columns of text files
    become numbers where `wscnn.core.user_tables.typed` says so of all files together.

    Parameters
    ----------
    paths
        Parquet, CSV or TSV files.
    treated
        Whether the tables have to say what was done to each well (columns ``perturbation, role``).

    Raises
    ------
    UserError
        With one sentence for each kind of mistake in each file, naming the lines.
    """
    # Tables of the same columns, as the stages write them, are checked together: one by one, thousands take long.
    alike: dict[tuple, list[tuple[Path, pd.DataFrame]]] = {}
    problems: list[str] = []
    for path in paths:
        try:
            table = read_user_table(path, _required(treated), {*WELLS, *LAYOUT})
        except UserError as error:
            problems += error.problems
            continue
        # An empty table beside others is no mistake: a plate may have no well left.
        if len(table):
            alike.setdefault((table.index.name, *table.dtypes.items()), []).append((path, table))
    parts = []
    for tables in alike.values():
        try:
            parts.append(_unrepeated(pd.concat([table for _, table in tables]), listed(paths, 3), treated))
        except UserError as error:
            # Looked at one by one, each names its own lines; what is wrong only between them does not.
            problems += [text for path, table in tables for text in _problems(table, path, treated)] or error.problems
    if problems:
        raise UserError(problems)
    if not parts:
        raise UserError(f"{listed(paths, _NAMED)}: lists no well")
    return _joined(parts)


def _problems(table: pd.DataFrame, path: Path, treated: bool) -> list[str]:
    """Return what is wrong in the table of one file."""
    try:
        _unrepeated(table, str(path), treated)
    except UserError as error:
        return error.problems
    return []


def _unrepeated(table: pd.DataFrame, source: str, treated: bool) -> pd.DataFrame:
    """Return what `_scored` does; no well may have several rows for one phenotype."""
    table = _scored(table, source, treated)
    twice = table.duplicated(["plate", "well", "phenotype"], keep=False)
    if twice.any():
        where = f", {Lines.of(table.index[twice])}" if table.index.is_unique and table.index.name else ""
        raise UserError(f"{source}{where}: {_some(table[twice])}: scored twice for one phenotype; keep one row")
    return table


def _required(treated: bool) -> list[str]:
    return ["plate", "well", *(["perturbation", "role"] if treated else []), "score"]


def _joined(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the tables below each other, each further column of one type."""
    own = {*WELLS, *LAYOUT}
    further = list(dict.fromkeys(name for part in parts for name in part.columns if name not in own))
    # Of text in a text file it is not known whether it means a number; of text in a Parquet file it is.
    open_types = [name for name in further if any(name in part and part.index.name == "line" for part in parts)]
    closed = {
        name
        for name in open_types
        for part in parts
        if name in part and part.index.name == "row" and isinstance(part[name].dtype, pd.StringDtype)
    }
    texts = [part.assign(**{name: as_text(part[name]) for name in open_types if name in part}) for part in parts]
    table = pd.concat(texts, ignore_index=True)
    for name in open_types:
        table[name] = table[name].fillna("")
        if name not in closed:
            table[name] = typed(table[name])
    return table


def _scored(table: pd.DataFrame, source: str, treated: bool) -> pd.DataFrame:
    """Return a table of wells with the columns of WELLS and LAYOUT in their types, its wells in one spelling.

    Position comes from the well's name alone.
    """
    if missing := [name for name in _required(treated) if name not in table]:
        raise UserError(
            f"{source}: no column {', '.join(missing)}; the columns are {', '.join(map(str, table.columns))}"
        )
    given = table
    table = table.assign(**{name: as_text(table[name]) for name in _TEXT if name in table})
    if "phenotype" not in table:
        table["phenotype"] = DEFAULT_PHENOTYPE
    problems = []
    advice = {"phenotype": " (the phenotype that was scored; that of a positive control is in control_phenotype)"}
    for name in ["plate", "well", "phenotype", *(["perturbation", "role"] if treated else [])]:
        empty = (table[name] == "").to_numpy()
        if name == "perturbation":
            empty = empty & (table["role"] != "exclude").to_numpy()
        if empty.any():
            rows = Lines.of(table.index[empty])
            problems.append(
                f"{source}, {rows}: {int(empty.sum())} rows have no {name}{advice.get(name, '')}; fill it in"
            )
    problems += _refused(table["well"], parse_well, source)
    if treated:
        problems += _refused(table["role"], _check_role, source)
    for name, kind in WELLS.items():
        if name in table and kind != "str" and name not in ("well_row", "well_column"):
            table[name], wrong = _numbers(table[name], kind)
            if wrong.any():
                wanted = (
                    "a number; write numbers with a decimal point and leave cells without a value empty"
                    if kind == "float64"
                    else f"a whole number from 0 to {_largest(kind)}; give the whole well's, or rename the column"
                )
                cells = listed((f"'{cell}'" for cell in as_text(given[name])[wrong].unique()), _NAMED)
                rows = Lines.of(table.index[wrong])
                problems.append(f"{source}, {rows}: column {name}: {cells} is not {wanted}")
    if problems:
        raise UserError(problems)
    places = {well: parse_well(well) for well in table["well"].unique()}
    for axis, name in enumerate(("well_row", "well_column")):
        table[name] = table["well"].map({well: place[axis] for well, place in places.items()})
        if name in given and (as_text(given[name]) != as_text(table[name])).any():
            log(f"hits: {source}: column {name} differs from the position that column well names, which is taken")
    table["well"] = table["well"].map({well: well_name(*place) for well, place in places.items()})
    return table.astype({name: kind for name, kind in WELLS.items() if name in table})


def _numbers(column: pd.Series, kind: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return a column as numbers of a type, and which of its cells hold none; whole numbers are not negative."""
    values, wrong = as_numbers(column)
    if kind != "float64":
        with np.errstate(invalid="ignore"):
            wrong |= ~(np.isnan(values) | ((values >= 0) & (values <= _largest(kind)) & (values % 1 == 0)))
    return values, wrong


def _largest(kind: str) -> int:
    """Return the largest number of an integer type of numpy or pandas that a float holds exactly."""
    return min(np.iinfo(kind.lower()).max, 2**53)


def _refused(column: pd.Series, check: Callable[[str], object], source: str) -> list[str]:
    """Return a sentence about the values of a column that `check` refuses with a ValueError; empty cells are left."""
    found = []
    for value, rows in by_value(column):
        try:
            if value:
                check(value)
        except ValueError as error:
            found.append(("", f"{source}, {rows}: {error}", at(value, rows)))
    return merged(found)


def _check_role(role: str) -> None:
    if role not in ROLES:
        raise ValueError(f"role '{role}' does not exist; the roles are {', '.join(ROLES)}")


def join_layout(wells: pd.DataFrame, layout: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return `wells` with the layout's columns, and the layout.

    Both name wells as in ``B03``. The layout's ``phenotype`` becomes ``control_phenotype``, for a well is scored for
    every phenotype. Wells that the layout does not name get role ``exclude``.

    Raises
    ------
    UserError
        When the layout names none of the wells.
    """
    layout = layout.rename(columns={"phenotype": "control_phenotype"})
    if "batch" not in layout:
        layout = layout.assign(batch="")
    # What was scored comes from the tables of wells, whatever a layout's further columns are called.
    layout = layout[[name for name in layout.columns if name in ("plate", "well") or name not in WELLS]]
    own = [name for name in wells.columns if name in layout.columns and name not in ("plate", "well")]
    if own:
        log(f"hits: column {', '.join(own)}: taken from the layout, not from the tables of wells")
    joined = wells.drop(columns=own).merge(layout, on=["plate", "well"], how="left", validate="many_to_one")
    unknown = joined["role"].isna()
    if unknown.all():
        raise UserError(
            f"no well of the tables is in the layout: their plates are {listed(wells['plate'].unique(), 5)}, the "
            f"layout's are {listed(layout['plate'].unique(), 5)}; give both the same names"
        )
    if unknown.any():
        log(f"hits: {_some(joined[unknown])}: not in the layout, left out")
    joined["role"] = joined["role"].fillna("exclude")
    joined["perturbation"] = joined["perturbation"].fillna("")
    return joined, layout


def check_wells(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """Return a table of wells with all columns that the statistics need, checked, its wells named as in ``B03``.

    A score that is infinite, or too large to be squared, counts as missing. A perturbation with several roles is taken
    by the role of each well.

    Raises
    ------
    UserError
        Naming what is missing, unknown or there twice.
    """
    table = _unrepeated(table, source, treated=True)
    if table.empty:
        raise UserError(f"{source}: lists no well")
    table = table.assign(**{name: "" for name in ("screen", "batch", "control_phenotype") if name not in table})
    large = table["score"].abs() > LARGEST_SCORE
    if large.any():
        log(
            f"hits: {_some(table[large])}: score is infinite, taken as missing (as are scores beyond {LARGEST_SCORE:g})"
        )
    table["score"] = table["score"].mask(large)
    roles = table[table["role"] != "exclude"].groupby("perturbation")["role"].nunique()
    for name in roles.index[roles > 1][:_NAMED]:
        log(f"hits: perturbation '{name}' has several roles; each of its wells counts by its own role")
    return table


def _some(rows: pd.DataFrame) -> str:
    """Return the first wells of `rows` by name, and how many more there are."""
    names = (rows["plate"].astype(str) + " " + rows["well"].astype(str)).drop_duplicates()
    return listed(names, _NAMED)
