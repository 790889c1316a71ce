"""The user's config: validated, defaults filled in."""

import copy
import json
import math
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from wscnn.core.errors import UserError, listed, short
from wscnn.core.wells import check_name

_PACKAGE = Path(__file__).parent.parent

#: Kinds of JSON Schema that are numbers.
_NUMBERS = {"integer", "number"}

#: Numbers in YAML 1.2 and JSON that YAML 1.1, which Python and Snakemake read, treats as text.
_EXPONENT = re.compile(r"[-+]?[0-9]+([.][0-9]*)?[eE][-+]?[0-9]+")

#: Categories of characters that no name or path may contain: controls, surrogates, separators of lines.
_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}

#: What errors say of names that are equal but for case.
SAME = "the same name where case does not count, as on some file systems and in SQL"


def shipped(name: str) -> Path:
    """Return a file or folder that ships with the package: below ``workflow``, ``envs`` or ``resources``.

    In a wheel these folders are inside the package, in a checkout beside it.

    Raises
    ------
    UserError
        When it is not there.
    """
    for folder in (_PACKAGE, _PACKAGE.parent):
        if (folder / name).exists():
            return folder / name
    raise UserError(f"{_PACKAGE / name}: no such file: the installation is incomplete; install wscnn again with pip")


@cache
def schema(name: str) -> dict[str, Any]:
    """Return the schema ``config``, ``plates`` or ``layout``."""
    return yaml.safe_load(shipped(f"workflow/schemas/{name}.schema.yaml").read_text())


def load_config(path: Path) -> dict[str, Any]:
    """Return the config file at `path` (``-``: from standard input), valid and with all defaults.

    Raises
    ------
    UserError
        When the file is missing, is not a YAML mapping, or holds an unknown key or a wrong value.
    """
    config, problems = draft_config(path)
    if problems:
        raise UserError(problems)
    return config


def draft_config(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the valid part of a config file, and what is wrong with the rest.

    Returns
    -------
    config
        Complete with defaults, but without the top-level keys (sections) that hold a mistake or are missing.
    problems
        One sentence for each mistake.

    Raises
    ------
    UserError
        When the file is missing or is not a YAML mapping, so that nothing is known.
    """
    try:
        text = sys.stdin.read() if path == Path("-") else path.read_text(encoding="utf-8-sig")
        given = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid YAML: {short(error)}") from None
    source = "config" if path == Path("-") else str(path)
    if not isinstance(given, Mapping):
        raise UserError(
            f"{source}: holds no keys such as 'screen: my_screen'; config/config.yaml shows how to write one"
        )
    return _complete(given, schema("config"), source)


class _Loader(yaml.SafeLoader):
    """Strict YAML: no key twice (the first would be lost), no aliases (a few grow beyond memory)."""

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
    config, problems = _complete(given, schema("config"), source)
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
    # "null" is not a valid text for any key.
    return read if valid(read) and (read is None or not valid(value)) else value


def section(name: str, text: str) -> dict[str, Any]:
    """Return one section of the config given as JSON, valid and with its defaults.

    Parameters
    ----------
    name
        The section: ``acquisition``, ``mosaic``, ``train``, ...
    text
        A JSON object, as rules pass it to a command.
    """
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"--{name}: not valid JSON: {error}") from None
    settings, problems = _complete(given, schema("config")["properties"][name], f"--{name}")
    if problems:
        raise UserError(problems)
    return settings


#: Keys that say where and how the work is done, or what to accept: no table and no weights depend on them. Of the table
#: of images, the content counts, not the path (`wscnn.acquisitions.originals`).
WITHOUT_EFFECT = {
    "acquisition": ("missing_fields", "table"),
    "encoder": ("device",),
    "discovery": ("device",),
    "train": ("device",),
    "score": ("device",),
    "dask": ("cluster", "workers", "wait_s", "slurm"),
}


def effective(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those settings of the config's section `name` that its results depend on."""
    return {key: value for key, value in settings.items() if key not in WITHOUT_EFFECT.get(name, ())}


#: Where a mistake is: the keys that lead to it; and a sentence on it, without the name of the file.
_Fault = tuple[tuple[str, ...], str]


def _complete(given: object, rules: Mapping[str, Any], source: str) -> tuple[dict[str, Any], list[str]]:
    """Return `given` with the defaults of `rules`, without the keys that hold a mistake, and all mistakes."""
    faults = list(_unusable(given))
    given = _plain(given, rules)
    validator = jsonschema.Draft202012Validator(rules, format_checker=FORMATS)
    for error in validator.iter_errors(given):
        path = tuple(str(part) for part in error.absolute_path)
        if error.validator == "additionalProperties" and isinstance(error.instance, Mapping):
            known = error.schema["properties"]
            faults += [
                ((*path, key), f"unknown key '{'.'.join((*path, key))}'; known here: {', '.join(known)}")
                for key in sorted(set(error.instance) - set(known))
            ]
        else:
            faults.append((path, f"{'.'.join(path)}: {explained(error)}" if path else explained(error)))
    if not isinstance(given, Mapping):
        return {}, [f"{source}: {sentence}" for _, sentence in faults]
    for path, settings in _acquisitions(given, rules):
        wrong = {fault[len(path)] for fault, _ in faults if fault[: len(path)] == path and len(fault) > len(path)}
        faults += _acquisition_faults({key: value for key, value in settings.items() if key not in wrong}, path)
    wrong = {fault[0] for fault, _ in faults if fault}
    right = _with_defaults({key: value for key, value in given.items() if key not in wrong}, rules)
    # A default is no substitute for what the user meant.
    config = {key: value for key, value in right.items() if key not in wrong}
    return config, [f"{source}: {sentence}" for _, sentence in faults]


def _unusable(value: Any, path: tuple[str, ...] = ()) -> Iterable[_Fault]:
    """Yield what no rule of a schema can express: NaN and infinite numbers, unprintable text, keys that coincide."""
    where = ".".join(path)
    if isinstance(value, Mapping):
        for key, n in Counter(map(str, value)).items():
            if n > 1:
                yield (*path, key), f"{'.'.join((*path, key))}: this key is given as text and as a number; keep one"
        for key, item in value.items():
            yield from _unusable(item, (*path, str(key)))
            yield from _unusable(str(key), (*path, str(key)))
    elif isinstance(value, list):
        for item in value:
            yield from _unusable(item, path)
    elif isinstance(value, float) and not math.isfinite(value):
        yield path, f"{where}: {value} is not a number to work with"
    elif isinstance(value, str) and any(unicodedata.category(letter) in _UNPRINTABLE for letter in value):
        yield (
            path,
            f"{repr(where)[1:-1]}: {short(repr(value))} holds a line break or another control character; remove it",
        )


def _plain(value: Any, rules: Mapping[str, Any]) -> Any:
    """Return `value` with every key as text, and numbers such as 1e-3 as numbers, which YAML reads as text."""
    if isinstance(value, Mapping):
        known = rules.get("properties", {})
        return {str(key): _plain(item, known.get(str(key), {})) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, {}) for item in value]
    if isinstance(value, str) and _NUMBERS & set(_kinds(rules)) and _EXPONENT.fullmatch(value):
        return float(value)
    return value


def explained(error: jsonschema.ValidationError) -> str:
    """Return what is wrong with a value and what to write instead."""
    value, shown = error.instance, short(repr(error.instance))
    rule: Mapping[str, Any] = error.schema if isinstance(error.schema, Mapping) else {}
    kinds = set(_kinds(rule))
    if error.validator == "format":
        return str(error.cause)
    if error.validator == "enum" and isinstance(value, str) and value in rule.get("renamed", {}):
        return f"{shown} is called '{rule['renamed'][value]}' now; write that"
    if value == "" and error.validator in ("minLength", "enum"):
        return "empty; fill it in" + (f" with {listed(rule['enum'])}" if error.validator == "enum" else "")
    if error.validator in ("type", "pattern"):
        if kinds & _NUMBERS and isinstance(value, str) and (number := _as_number(value)) is not None:
            return f"{shown} is text, not a number; write {number}"
        if "string" in kinds and not kinds & _NUMBERS and isinstance(value, bool | int | float | date):
            return f"YAML reads {shown} here, which is not text; put what you wrote in quotes"
        if "object" in kinds and value is None:
            return "no key is given below it; give one, or delete this line"
    if error.validator == "pattern":
        return f"{shown} is not allowed; {rule['description']}"
    return short(error.message)


def _as_number(text: str) -> int | float | None:
    """Return the number that a text holds, None where it holds none."""
    try:
        number = float(text)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() and abs(number) < 1e15 else number


def _kinds(rule: Mapping[str, Any]) -> list[str]:
    """Return the types that a rule allows."""
    kinds = rule.get("type", [])
    return [kinds] if isinstance(kinds, str) else kinds


def _with_defaults(value: Any, rules: Mapping[str, Any]) -> Any:
    """Return a valid `value` with the defaults of every object in `rules`, in the one form that stands for it.

    Equal settings are then equal as JSON too, in which 2 and 2.0, or results and ./results/, differ.
    """
    if isinstance(value, Mapping) and "properties" in rules:
        filled = dict(value)
        for key, rule in rules["properties"].items():
            if key not in filled and "default" in rule:
                filled[key] = copy.deepcopy(rule["default"])
            if key in filled:
                filled[key] = _with_defaults(filled[key], rule)
        return filled
    if isinstance(value, int | float) and not isinstance(value, bool):
        return int(value) if "integer" in _kinds(rules) else float(value) + 0.0
    return str(Path(value)) if rules.get("format") == "path" and isinstance(value, str) else value


def _acquisitions(given: Mapping[str, Any], rules: Mapping[str, Any]) -> Iterable[tuple[tuple[str, ...], Mapping]]:
    """Yield each section ``acquisition`` in `given`, with the keys that lead to it."""
    sections = schema("config")["properties"]
    if rules is sections["acquisition"]:
        yield (), given
    elif isinstance(given.get("acquisition"), Mapping) and "acquisition" in rules["properties"]:
        yield ("acquisition",), given["acquisition"]


def _acquisition_faults(given: Mapping[str, Any], path: tuple[str, ...]) -> list[_Fault]:
    """Return what is wrong between keys of a section ``acquisition`` each of which is right by itself."""
    settings = _with_defaults(given, schema("config")["properties"]["acquisition"])
    channels = list(settings.get("channels", {}).values())
    found = []
    for twins in same_but_for_case(channels):
        found.append(("channels", f"{quoted(twins)} are {SAME}; give each channel its own name"))
    numbers: dict[int, list[str]] = {}
    for key in settings.get("channels", {}):
        if key.isdecimal():
            numbers.setdefault(int(key), []).append(key)
    for same in numbers.values():
        if len(same) > 1:
            found.append(("channels", f"{quoted(same)} are the same number of a channel; keep one of them"))
    if channels and settings["nuclei"] is not None and settings["nuclei"] not in channels:
        found.append(("nuclei", f"'{settings['nuclei']}' is none of the channels {', '.join(channels)}"))
    if settings["format"] == "pattern" and not settings["pattern"]:
        found.append(("pattern", "format 'pattern' needs a regular expression here"))
    if settings["format"] == "table" and not settings["table"]:
        found.append(("table", "format 'table' needs the path of a table of images here"))
    if settings["format"] == "auto" and settings["pattern"] and settings["table"]:
        found.append(("table", "a pattern is given, too; keep one of them, or set format to pattern or table"))
    return [((*path, key), f"{'.'.join((*path, key))}: {sentence}") for key, sentence in found]


def same_but_for_case(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of names that are equal but for case: some file systems and SQL treat them as one."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(name.casefold(), []).append(name)
    return [group for group in alike.values() if len(group) > 1]


def quoted(names: Iterable[str]) -> str:
    return listed(f"'{name}'" for name in names)


FORMATS = jsonschema.FormatChecker(())


@FORMATS.checks("name", ValueError)
def _is_name(value: object) -> bool:
    """Return True, or raise a ValueError that says why a text cannot name a folder."""
    return not isinstance(value, str) or bool(check_name(value))


@FORMATS.checks("path", ValueError)
def _is_path(value: object) -> bool:
    """Return True, or raise a ValueError that says why a text is not a path that every stage reads the same way."""
    if not isinstance(value, str):
        return True
    if not value.strip("/ ") or value != value.strip():
        raise ValueError(f"'{value}' is not a path: it is empty, the root of the disk, or begins or ends with a space")
    if value.startswith("~"):
        raise ValueError(f"'{value}': ~ is not expanded; write the path out in full")
    if "://" in value:
        raise ValueError(f"'{value}' is a URL; give a file or folder of this machine")
    if found := sorted(set(value) & set("{}$\\")):
        raise ValueError(
            f"'{value}' holds {' '.join(found)}: Snakemake takes {{...}} for a wildcard, $ is not expanded and \\ does "
            "not separate folders; write the path out, with / between folders"
        )
    return True
