"""The user's tables of plates and of the layout: validated, wells named alike."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import jsonschema
import pandas as pd

from wscnn.core.config import FORMATS, SAME, explained, quoted, same_but_for_case, schema
from wscnn.core.errors import UserError, merged
from wscnn.core.tables import WELLS
from wscnn.core.user_tables import Lines, as_text, at, by_value, read_user_table, typed
from wscnn.core.wells import SALIENCY, check_name, parse_well, well_name

#: The phenotype of a positive control whose layout row names none.
DEFAULT_PHENOTYPE = "rare"

#: Columns of the results, which a layout's own further columns must not be called.
RESERVED = {*WELLS, "batch", "z", "p", "q", "hit", "rank"} - {"plate", "well", "phenotype"}


def load_plates(path: Path) -> pd.DataFrame:
    """Return the table of plates: ``plate, images, batch`` and any further columns, all as text.

    Raises
    ------
    UserError
        Naming every row at fault.
    """
    table = _read(path, "plates")
    problems = _value_problems(table, "plates", path)
    by_name = by_value(table["plate"])
    for name, lines in by_name:
        if len(lines) > 1:
            problems.append(f"{path}, {lines}: plate '{name}' is listed twice; keep one")
    for twins in same_but_for_case(name for name, _ in by_name):
        problems.append(f"{path}: plates {quoted(twins)} are {SAME}; rename one, also in the layout")
    if table.empty:
        problems.append(f"{path}: lists no plate")
    if problems:
        raise UserError(problems)
    return table.reset_index(drop=True)


def load_layout(path: Path, plates: Sequence[str] | None, *, checked: bool = False) -> pd.DataFrame:
    """Return the layout with one row per plate and well, sorted; its index is the line of the file.

    Columns are ``plate, well, well_row, well_column, perturbation, role, phenotype`` (empty but for positives) and any
    further ones, which become numbers where `wscnn.core.user_tables.typed` says so; wells are named as in ``B03``. Rows
    without a plate hold for every plate that has no row of its own for that well. Where `plates` is None, the rows are
    checked as far as they can be without.

    Parameters
    ----------
    path
        The file.
    plates
        Names of the plates; None where they are not known.
    checked
        Whether the file may be one that `check` wrote: its columns ``well_row, well_column`` are derived again, others
        that the results have are kept, and it may name plates beyond `plates`. Positive wells without a phenotype keep
        none.

    Raises
    ------
    UserError
        Naming every row at fault.
    """
    table = _read(path, "layout")
    problems = _value_problems(table, "layout", path)
    if checked:
        table = table.drop(columns=["well_row", "well_column"], errors="ignore")
    elif reserved := sorted(name for name in table.columns if name.lower() in RESERVED):
        problems.append(f"{path}: column {', '.join(reserved)}: the results have columns of that name; rename it")
    if table.empty:
        problems.append(f"{path}: lists no well")
    positions, misnamed = _positions(table["well"], path)
    problems += misnamed
    problems += merged(
        ("plate", f"{path}, {lines}: plate '{name}' is not in the table of plates", at(name, lines))
        for name, lines in by_value(table["plate"])
        if name and plates is not None and not checked and name not in plates
    )
    positive = table["role"] == "positive"
    default = "" if checked else DEFAULT_PHENOTYPE
    table["phenotype"] = table["phenotype"].where(table["phenotype"] != "", default).where(positive, "")
    problems += _phenotype_problems(table.loc[positive & (table["phenotype"] != ""), "phenotype"], path)
    if problems:
        raise UserError(problems)
    for axis, name in enumerate(("well_row", "well_column")):
        table.insert(2 + axis, name, table["well"].map({well: position[axis] for well, position in positions.items()}))
    table = table.astype({name: WELLS[name] for name in ("well_row", "well_column")})
    table["well"] = table["well"].map({well: well_name(*position) for well, position in positions.items()})
    if repeated := _repeated_wells(table, path):
        raise UserError(repeated)
    everywhere, own = table[table["plate"] == ""], table[table["plate"] != ""]
    # A plate's own rows come first, so that they take precedence over those that hold for every plate.
    expanded = pd.concat([own, *(everywhere.assign(plate=plate) for plate in plates or [])])
    return expanded.drop_duplicates(["plate", "well"]).sort_values(["plate", "well_row", "well_column"], kind="stable")


def _positions(wells: pd.Series, path: Path) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """Return row and column of each well by its name in the table, and what is wrong with the other names."""
    positions, misnamed = {}, []
    for well, lines in by_value(wells):
        try:
            positions[well] = parse_well(well)
        except ValueError as error:
            if well:
                misnamed.append(("well", f"{path}, {lines}: {error}", at(well, lines)))
    return positions, merged(misnamed)


def _phenotype_problems(names: pd.Series, path: Path) -> list[str]:
    """Return what is wrong with the names of phenotypes."""
    phenotypes = by_value(names)
    problems = merged(
        (kind, f"{path}, {lines}: {sentence}", at(name, lines))
        for name, lines in phenotypes
        for kind, sentence in _phenotype_faults(name)
    )
    for twins in same_but_for_case(name for name, _ in phenotypes):
        problems.append(f"{path}: phenotypes {quoted(twins)} are {SAME}; write them alike")
    return problems


def _repeated_wells(table: pd.DataFrame, path: Path) -> list[str]:
    """Return which wells have several rows."""
    repeated = []
    for key, rows in table[table.duplicated(["plate", "well"], keep=False)].groupby(["plate", "well"]):
        name, well = map(str, key)
        of_plate, there = f" of plate '{name}'" if name else "", Lines.of(rows.index)
        sentence = f"{path}, {there}: well {well}{of_plate} has several rows; keep one"
        repeated.append((name, sentence, f"well {well} ({there})"))
    return merged(repeated)


def controls(layout: pd.DataFrame, hold_out: str = "well") -> pd.DataFrame:
    """Return what training depends on in a layout: the control wells, their positions, roles and phenotypes.

    The column ``batch`` is part of it where `hold_out`, the config's ``train.hold_out``, is ``batch``.
    """
    chosen = layout[layout["role"].isin(["negative", "positive"])]
    columns = ["plate", "well", "well_row", "well_column", "role", "phenotype"]
    return chosen[[*columns, *(["batch"] if hold_out == "batch" else [])]].reset_index(drop=True)


def _read(path: Path, kind: str) -> pd.DataFrame:
    """Return a user's table with all columns of its schema, which are text, before any others."""
    rules = schema(kind)
    properties = rules["properties"]
    table = read_user_table(path, rules["required"], properties)
    # Cells of a text file may be numbers; a Parquet file declares its types.
    further = typed if table.index.name == "line" and kind == "layout" else lambda column: column
    own = {name: as_text(table[name]) if name in table else "" for name in properties}
    others = {name: further(table[name]) for name in table.columns if name not in properties}
    return pd.DataFrame({**own, **others}, index=table.index)


def _value_problems(table: pd.DataFrame, kind: str, path: Path) -> list[str]:
    """Return what the schema says against the values of each column."""
    return merged(
        ((column, error.validator), f"{path}, {lines}: {column}: {explained(error)}", at(value, lines))
        for column, rule in schema(kind)["properties"].items()
        for validator in [jsonschema.Draft202012Validator(rule, format_checker=FORMATS)]
        for value, lines in by_value(table[column])
        for error in validator.iter_errors(value)
    )


def _phenotype_faults(name: str) -> Iterable[tuple[str, str]]:
    """Yield why a phenotype cannot be called `name`: the kind of fault, and a sentence."""
    try:
        check_name(name)
    except ValueError as error:
        yield "name", f"phenotype: {error}"
    if name.casefold() == "negative":
        yield "negative", f"a phenotype cannot be called '{name}', as the class of negative controls is"
    if name.endswith(SALIENCY):
        yield "saliency", f"phenotype '{name}' ends in {SALIENCY}, as the images of saliency do; rename it"
