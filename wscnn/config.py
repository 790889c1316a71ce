"""The user's three files: config, plates and layout; validated, defaults filled in."""

import copy
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import yaml

from wscnn.errors import UserError
from wscnn.tables import WELLS
from wscnn.user_tables import as_text, located, named, read_user_table, typed, value_problems
from wscnn.wells import SALIENCY, check_name, parse_well, well_name

_HERE = Path(__file__).parent

#: The phenotype of a positive control whose layout row names none.
DEFAULT_PHENOTYPE = "rare"

#: Columns of the results, which a layout's own further columns must not be called.
RESERVED = {*WELLS, "batch", "z", "p", "q", "hit", "rank"} - {"plate", "well", "phenotype"}


def shipped(name: str) -> Path:
    """Return a file that ships beside the package: ``workflow/schemas/...`` or ``resources/...``.

    Raises
    ------
    UserError
        When the package was taken out of its repository.
    """
    path = _HERE.parent / name
    if not path.is_file():
        raise UserError(
            f"{path}: no such file: the program was installed without its repository; install it in the repository's "
            "folder by pip install -e . (the -e is needed) and leave that folder where it is"
        )
    return path


@cache
def schema(name: str) -> dict[str, Any]:
    """Return the schema ``config``, ``plates`` or ``layout``."""
    return yaml.safe_load(shipped(f"workflow/schemas/{name}.schema.yaml").read_text())


def load_config(path: Path) -> dict[str, Any]:
    """Return the config file at `path` (``-``: from standard input), valid and with all defaults.

    Raises
    ------
    UserError
        When the file is missing, is no YAML mapping, or holds an unknown key or a wrong value.
    """
    try:
        text = sys.stdin.read() if path == Path("-") else path.read_text(encoding="utf-8-sig")
        given = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid YAML: {_short(error)}") from None
    return complete_config(given, "config" if path == Path("-") else str(path))


class _Loader(yaml.SafeLoader):
    """YAML that means what it shows: no key twice (the first would be lost), no aliases (a few grow beyond memory)."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Return the next node, which must not be an alias."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not supported; write it out", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping whose keys all differ."""
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for i, key in enumerate(keys):
            if key in keys[:i]:
                raise yaml.MarkedYAMLError(problem=f"key '{key[1]}' is given twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def complete_config(given: object, source: str) -> dict[str, Any]:
    """Return the config mapping `given`, valid and with all defaults; `source` names it in errors."""
    config = _complete(given, schema("config"), source)
    problems = []
    problems += _name_problem(config["screen"], f"{source}: screen")
    problems += _acquisition_problems(config["acquisition"], f"{source}: acquisition")
    if problems:
        raise UserError(problems)
    return config


def section(name: str, text: str) -> dict[str, Any]:
    """Return one section of the config given as JSON, valid and with its defaults.

    Parameters
    ----------
    name
        The section: ``acquisition``, ``mosaic``, ``train``, ...
    text
        A JSON object, as a rule passes it to a verb.
    """
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"--{name}: not valid JSON: {error}") from None
    settings = _complete(given, schema("config")["properties"][name], f"--{name}")
    if name == "acquisition" and (problems := _acquisition_problems(settings, f"--{name}")):
        raise UserError(problems)
    return settings


def _acquisition_problems(acquisition: Mapping[str, Any], source: str) -> list[str]:
    """Return what is wrong between the keys of a section ``acquisition`` that the schema finds right."""
    problems = []
    channels = list(acquisition["channels"].values())
    for key, name in acquisition["channels"].items():
        problems += _name_problem(name, f"{source}.channels.{key}")
    if len(set(channels)) < len(channels):
        problems.append(f"{source}.channels: two channels have the same name; give each its own")
    if acquisition["nuclei"] is not None and acquisition["nuclei"] not in channels:
        problems.append(f"{source}.nuclei: '{acquisition['nuclei']}' is none of the channels {', '.join(channels)}")
    if acquisition["format"] == "pattern" and not acquisition["pattern"]:
        problems.append(f"{source}.pattern: format 'pattern' needs a regular expression here")
    return problems


def _complete(given: object, rules: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return `given` with the defaults of `rules`, or raise a UserError that lists all that is wrong."""
    problems: list[str] = []
    given = _plain(given, source, problems)
    for error in jsonschema.Draft202012Validator(rules).iter_errors(given):
        where = ".".join(str(part) for part in error.absolute_path)
        if error.validator == "additionalProperties" and isinstance(error.instance, Mapping):
            known = error.schema["properties"]
            for key in sorted(set(map(str, error.instance)) - set(known)):
                full = f"{where}.{key}" if where else key
                problems.append(f"{source}: unknown key '{full}'; known here: {', '.join(known)}")
        else:
            problems.append(f"{source}: {where + ': ' if where else ''}{_short(error.message)}")
    if problems:
        raise UserError(problems)
    return _with_defaults(given, rules)


def _plain(value: Any, where: str, problems: list[str]) -> Any:
    """Return `value` with every key as text, for YAML reads ``1: DNA`` as a number; note numbers that are none."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}: {key}", problems) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, where, problems) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        problems.append(f"{where}: {value} is not a number to work with")
    return value


def _short(message: object) -> str:
    """Return a library's message on one line and of bearable length."""
    text = " ".join(str(message).split())
    return text if len(text) <= 300 else f"{text[:150]} ... {text[-150:]}"


def _with_defaults(value: Any, rules: Mapping[str, Any]) -> Any:
    """Return `value` with the defaults of every object in `rules` filled in."""
    if not isinstance(value, Mapping) or "properties" not in rules:
        return value
    filled = dict(value)
    for key, rule in rules["properties"].items():
        if key not in filled and "default" in rule:
            filled[key] = copy.deepcopy(rule["default"])
        if key in filled:
            filled[key] = _with_defaults(filled[key], rule)
    return filled


def load_plates(path: Path) -> pd.DataFrame:
    """Return the table of plates: ``plate, images, batch`` and any further columns, all as text.

    Raises
    ------
    UserError
        With one sentence for each kind of mistake, naming the lines.
    """
    table = _read(path, "plates")
    problems = _schema_problems(table, "plates", path)
    problems += value_problems(table["plate"], check_name, path, "plate: ")
    if (twice := table["plate"].duplicated(keep=False) & (table["plate"] != "")).any():
        names = table.loc[twice, "plate"].unique().tolist()
        told = f"plate {named(names)} is" if len(names) == 1 else f"plates {named(names)} are"
        problems.append(f"{located(path, table.index, twice)}: {told} listed twice; keep one")
    if table.empty:
        problems.append(f"{path}: lists no plate")
    if problems:
        raise UserError(problems)
    return table.reset_index(drop=True)


def load_layout(path: Path, plates: Sequence[str] | None, *, checked: bool = False) -> pd.DataFrame:
    """Return the layout with one row per plate and well, sorted; its index is the line (or row) of the file.

    Columns are ``plate, well, well_row, well_column, perturbation, role, phenotype`` (empty but for positives) and any
    further ones, which become numbers where `wscnn.user_tables.typed` says so; wells are named as in ``B03``. Rows
    without a plate hold for every plate that has no row of its own for that well. Where `plates` is None, the rows are
    checked as far as they can be without.

    Parameters
    ----------
    path
        The file.
    plates
        Names of the plates; None where they are not known.
    checked
        Whether the file may be one that `check` wrote, with the columns ``well_row, well_column, batch`` (the first two
        are derived anew) and others that the results have, and may name plates beyond `plates`. Positive wells without
        a phenotype then keep none.

    Raises
    ------
    UserError
        With one sentence for each kind of mistake, naming the lines.
    """
    table = _read(path, "layout")
    problems = _schema_problems(table, "layout", path)
    if checked:
        table = table.drop(columns=["well_row", "well_column"], errors="ignore")
    elif reserved := sorted(name for name in table.columns if name.lower() in RESERVED):
        problems.append(f"{path}: column {', '.join(reserved)}: the results have columns of that name; rename it")
    if table.empty:
        problems.append(f"{path}: lists no well")
    problems += value_problems(table["well"], parse_well, path, where=(table["well"] != "").to_numpy())
    if plates is not None and not checked:
        problems += value_problems(table["plate"], _one_of(plates), path)
    positive = (table["role"] == "positive").to_numpy()
    default = "" if checked else DEFAULT_PHENOTYPE
    table["phenotype"] = table["phenotype"].where(table["phenotype"] != "", default).where(positive, "")
    for check in (_check_phenotype, _not_negative, _not_saliency):
        problems += value_problems(table["phenotype"], check, path, where=positive)
    if problems:
        raise UserError(problems)
    wells = {well: parse_well(well) for well in table["well"].unique()}
    table.insert(2, "well_row", table["well"].map({well: row for well, (row, _) in wells.items()}))
    table.insert(3, "well_column", table["well"].map({well: column for well, (_, column) in wells.items()}))
    table["well"] = table["well"].map({well: well_name(*place) for well, place in wells.items()})
    if (twice := table.duplicated(["plate", "well"], keep=False)).any():
        places = table.loc[twice, ["plate", "well"]].drop_duplicates()
        names = [f"{well} of plate '{plate}'" if plate else well for plate, well in places.itertuples(index=False)]
        more = f" and {len(names) - 5} more wells" if len(names) > 5 else ""
        told = f"well {names[0]} has" if len(names) == 1 else f"wells {', '.join(names[:5])}{more} have"
        raise UserError(f"{located(path, table.index, twice)}: {told} several rows; keep one")
    everywhere, own = table[table["plate"] == ""], table[table["plate"] != ""]
    # A plate's own rows come first, so that they win over those that hold for every plate.
    expanded = pd.concat([own, *(everywhere.assign(plate=plate) for plate in plates or [])])
    return expanded.drop_duplicates(["plate", "well"]).sort_values(["plate", "well_row", "well_column"], kind="stable")


def controls(layout: pd.DataFrame) -> pd.DataFrame:
    """Return what training depends on in a layout: the control wells, their places, roles and phenotypes."""
    chosen = layout[layout["role"].isin(["negative", "positive"])]
    return chosen[["plate", "well", "well_row", "well_column", "role", "phenotype"]].reset_index(drop=True)


def _read(path: Path, kind: str) -> pd.DataFrame:
    """Return the table of plates or the layout with all columns of its schema, which are text, before any others."""
    rules = schema(kind)
    properties = rules["properties"]
    table = read_user_table(path, rules["required"], properties)
    # Cells of a text file may be numbers; a Parquet file says itself what they are.
    further = typed if table.index.name == "line" and kind == "layout" else lambda column: column
    own = {name: as_text(table[name]) if name in table else "" for name in properties}
    others = {name: further(table[name]) for name in table.columns if name not in properties}
    return pd.DataFrame({**own, **others}, index=table.index)


def _schema_problems(table: pd.DataFrame, kind: str, path: Path) -> list[str]:
    """Return what the schema says against the values of each column."""
    problems = []
    for column, rule in schema(kind)["properties"].items():
        validator = jsonschema.Draft202012Validator(rule)

        def check(value: str, validator: jsonschema.Draft202012Validator = validator) -> None:
            for error in validator.iter_errors(value):
                raise ValueError(_short(error.message))

        problems += value_problems(table[column], check, path, f"{column}: ")
    return problems


def _one_of(plates: Sequence[str]) -> Callable[[str], None]:
    """Return a function that raises a ValueError for a name that is given and is none of `plates`."""

    def check(name: str) -> None:
        if name and name not in known:
            raise ValueError(f"plate '{name}' is not in the table of plates")

    known = set(plates)
    return check


def _check_phenotype(name: str) -> None:
    if name:
        try:
            check_name(name)
        except ValueError as error:
            raise ValueError(f"phenotype: {error}") from None


def _not_negative(phenotype: str) -> None:
    if phenotype == "negative":
        raise ValueError("a phenotype cannot be called 'negative'")


def _not_saliency(phenotype: str) -> None:
    if phenotype.endswith(SALIENCY):
        raise ValueError(f"phenotype '{phenotype}' ends in {SALIENCY}, as the images of saliency do; rename it")


def _name_problem(name: str, where: str) -> list[str]:
    try:
        check_name(name)
    except ValueError as error:
        return [f"{where}: {error}"]
    return []
