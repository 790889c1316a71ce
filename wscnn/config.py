"""The user's three files: config, plates and layout; validated, defaults filled in."""

import copy
import csv
import io
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import yaml

from wscnn.errors import UserError
from wscnn.tables import WELLS
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


def from_text(value: Any, rules: Mapping[str, Any]) -> Any:
    """Return a value of the command line with text read as JSON where `rules` ask for something else than text."""
    if isinstance(value, Mapping):
        properties = rules.get("properties", {})
        return {key: from_text(item, properties.get(key, {})) for key, item in value.items()}
    if isinstance(value, list):
        return [from_text(item, rules.get("items", {})) for item in value]
    if not isinstance(value, str):
        return value
    try:
        read = json.loads(value)
    except (ValueError, RecursionError):
        return value
    valid = jsonschema.Draft202012Validator(rules).is_valid
    # No text that is wanted anywhere is called "null".
    return read if valid(read) and (read is None or not valid(value)) else value


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
        Naming every row at fault.
    """
    table = _read(path, "plates")
    problems = _value_problems(table, "plates", path)
    for name, lines in _by_value(table["plate"]):
        problems += _name_problem(name, f"{path}, {_lines(lines)}: plate")
        if len(lines) > 1:
            problems.append(f"{path}, {_lines(lines)}: plate '{name}' is listed twice; keep one")
    if table.empty:
        problems.append(f"{path}: lists no plate")
    if problems:
        raise UserError(problems)
    return table.reset_index(drop=True)


def load_layout(path: Path, plates: Sequence[str] | None) -> pd.DataFrame:
    """Return the layout with a row for every plate and well, sorted; its index is the line of the file.

    Columns are ``plate, well, well_row, well_column, perturbation, role, phenotype`` (empty but for positives) and any
    further ones as they are; wells are named as in ``B03``. Rows without a plate hold for every plate that has no
    row of its own for that well. Where `plates` is None, the rows are checked as far as they can be without.

    Raises
    ------
    UserError
        Naming every row at fault.
    """
    table = _read(path, "layout")
    problems = _value_problems(table, "layout", path)
    if reserved := sorted(RESERVED & set(table.columns)):
        problems.append(f"{path}: column {', '.join(reserved)}: the results have columns of that name; rename it")
    if table.empty:
        problems.append(f"{path}: lists no well")
    places = {}
    for well, lines in _by_value(table["well"]):
        try:
            places[well] = parse_well(well)
        except ValueError as error:
            if well:
                problems.append(f"{path}, {_lines(lines)}: {error}")
    for name, lines in _by_value(table["plate"]):
        if name and plates is not None and name not in plates:
            problems.append(f"{path}, {_lines(lines)}: plate '{name}' is not in the table of plates")
    positive = table["role"] == "positive"
    table["phenotype"] = table["phenotype"].where(table["phenotype"] != "", DEFAULT_PHENOTYPE).where(positive, "")
    for phenotype, lines in _by_value(table.loc[positive, "phenotype"]):
        problems += _name_problem(phenotype, f"{path}, {_lines(lines)}: phenotype")
        if phenotype == "negative":
            problems.append(f"{path}, {_lines(lines)}: a phenotype cannot be called 'negative'")
        if phenotype.endswith(SALIENCY):
            problems.append(
                f"{path}, {_lines(lines)}: phenotype '{phenotype}' ends in {SALIENCY}, as the images of saliency do; "
                "rename it"
            )
    if problems:
        raise UserError(problems)
    table.insert(2, "well_row", table["well"].map({well: row for well, (row, _) in places.items()}))
    table.insert(3, "well_column", table["well"].map({well: column for well, (_, column) in places.items()}))
    table["well"] = table["well"].map({well: well_name(*place) for well, place in places.items()})
    repeated = table[table.duplicated(["plate", "well"], keep=False)]
    for place, rows in repeated.groupby(["plate", "well"]):
        name, well = map(str, place)
        where = f"of plate '{name}' " if name else ""
        problems.append(f"{path}, {_lines(rows.index)}: well {well} {where}has several rows; keep one")
    if problems:
        raise UserError(problems)
    everywhere, own = table[table["plate"] == ""], table[table["plate"] != ""]
    # A plate's own rows come first, so that they win over those that hold for every plate.
    expanded = pd.concat([own, *(everywhere.assign(plate=plate) for plate in plates or [])])
    expanded.index.name = "line"
    return expanded.drop_duplicates(["plate", "well"]).sort_values(["plate", "well_row", "well_column"], kind="stable")


def controls(layout: pd.DataFrame) -> pd.DataFrame:
    """Return what training depends on in a layout: the control wells, their places, roles and phenotypes."""
    chosen = layout[layout["role"].isin(["negative", "positive"])]
    return chosen[["plate", "well", "well_row", "well_column", "role", "phenotype"]].reset_index(drop=True)


def _read(path: Path, kind: str) -> pd.DataFrame:
    """Return a TSV, CSV or semicolon-separated table as stripped text, indexed by line of the file."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; save the table as UTF-8") from None
    lines = text.lstrip("\r\n").splitlines()
    separator = max("\t,;", key=lines[0].count) if lines else "\t"
    # Old Macs end lines with a carriage return alone; csv takes all three line ends, also inside quotes.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    body = {}
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                # A quoted cell may span lines; the last one names the row.
                body[reader.line_num] = cells
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}; mend the quotes in this line") from None
    header = body.pop(next(iter(body))) if body else []
    properties = schema(kind)["properties"]
    names = [name.lower() if name.lower() in properties else name for name in header]
    # Spreadsheets leave empty columns at the right.
    while names and not names[-1]:
        names.pop()
    body = {line: row if any(row[len(names) :]) else row[: len(names)] for line, row in body.items()}
    missing = [name for name in schema(kind)["required"] if name not in names]
    if missing:
        raise UserError(f"{path}: no column {', '.join(missing)}; the columns are {_short(', '.join(names)) or 'none'}")
    if len(set(names)) < len(names):
        raise UserError(f"{path}: two columns have the same name; the columns are {_short(', '.join(names))}")
    ragged = [line for line, row in body.items() if len(row) != len(names)]
    if ragged:
        raise UserError(
            f"{path}, line {line}: {len(body[line])} cells where the header has {len(names)}" for line in ragged
        )
    table = pd.DataFrame(list(body.values()), index=list(body), columns=names, dtype="str")
    optional = [key for key, rule in properties.items() if "default" in rule and key not in names]
    table[optional] = ""
    return table[[*properties, *(name for name in table.columns if name not in properties)]]


def _value_problems(table: pd.DataFrame, kind: str, path: Path) -> list[str]:
    """Return what the schema says against the values of each column."""
    return [
        f"{path}, {_lines(lines)}: {column}: {_short(error.message)}"
        for column, rule in schema(kind)["properties"].items()
        for value, lines in _by_value(table[column])
        for error in jsonschema.Draft202012Validator(rule).iter_errors(value)
    ]


def _by_value(column: pd.Series) -> Iterable[tuple[str, list[int]]]:
    """Return each value of a column with the lines it stands in."""
    found: dict[str, list[int]] = {}
    for line, value in zip(column.index.tolist(), column.tolist(), strict=True):
        found.setdefault(value, []).append(line)
    return found.items()


def _name_problem(name: str, where: str) -> list[str]:
    try:
        check_name(name)
    except ValueError as error:
        return [f"{where}: {error}"]
    return []


def _lines(lines: Iterable[int]) -> str:
    """Return line numbers in words, the first few where there are many."""
    every = list(lines)
    more = f" and {len(every) - 5} more" if len(every) > 5 else ""
    return f"line{'s' if len(every) > 1 else ''} {', '.join(map(str, every[:5]))}{more}"
