"""Pages of the docs that are made when the site is built: the reference, the notebooks, benchmarks and changes.

mkdocs calls `on_config` and `on_files`; everything else is plain Python, so that tests read the pages without mkdocs.
"""

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from wscnn.cli import main
from wscnn.core.config import schema
from wscnn.core.tables import FILES, TABLES

ROOT = Path(__file__).parents[2]


def settings(rules: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Yield every key of a schema by its full name, with its rules and whether it is required."""
    for key, rule in rules["properties"].items():
        if "properties" in rule:
            yield from settings(rule, f"{before}{key}.")
        else:
            yield before + key, rule, key in rules.get("required", [])


def _values(rule: Mapping[str, Any]) -> str:
    """Return which values a key takes, in words."""
    if "enum" in rule:
        return ", ".join(f"`{'null' if value is None else value}`" for value in rule["enum"])
    names = {"object": "mapping", "array": "list", "string": "text", "boolean": "true or false"}
    types = rule["type"] if isinstance(rule["type"], list) else [rule["type"]]
    words = [names.get(name, f"`{name}`" if name == "null" else name) for name in types]
    if rule.get("pattern") == f"^{rule.get('default')}$":
        words[words.index("text")] = f"`{rule['default']}`"
    if rule.get("format") == "path":
        words[words.index("text")] = "path"
    if "items" in rule and "enum" in rule["items"]:
        words[words.index("list")] = "list of " + ", ".join(f"`{value}`" for value in rule["items"]["enum"])
    if {"integer", "number"} & set(types):
        low, high = rule.get("minimum"), rule.get("maximum")
        bounds = [f">= {low}" if low is not None else f"> {rule['exclusiveMinimum']}"]
        bounds.append(f"<= {high}" if high is not None else f"< {rule['exclusiveMaximum']}")
        words.append(" and ".join(bounds))
    return ", ".join(words)


def _meaning(rule: Mapping[str, Any]) -> str:
    """Return the description of a key for a cell of a table, with its values as code where they are explained."""
    text = rule.get("description", "").replace("<", "&lt;").replace("|", "\\|")
    for value in filter(None, rule.get("enum", [])):
        text = re.sub(rf"(?<![\w`])({re.escape(value)})(?=(, \w+)?: )", r"`\1`", text)
    return text


def config_page() -> str:
    """Return the page of all config keys, one table per section."""
    rules = schema("config")
    sections: dict[str, list[str]] = {}
    for key, rule, required in settings(rules):
        section, _, _ = key.rpartition(".")
        default = "required" if required else f"`{json.dumps(rule['default']).strip(chr(34))}`"
        sections.setdefault(section, []).append(f"| `{key}` | {default} | {_values(rule)} | {_meaning(rule)} |")
    page = [
        "# Config",
        "",
        "Every key of `config.yaml`, made from `workflow/schemas/config.schema.yaml`. Keys left out take their "
        "defaults; unknown keys are refused. Paths are relative to the folder in which the workflow is started. The "
        "settings that matter most are explained in [Choose settings](../how-to/settings.md).",
    ]
    for section, rows in sections.items():
        rule = rules
        for name in section.split(".") if section else ():
            rule = rule["properties"][name]
        page += ["", f"## `{section}`" if section else "## Top level", ""]
        page += [rule["description"], ""] if section and "description" in rule else []
        page += ["| key | default | values | meaning |", "|---|---|---|---|", *rows]
    return "\n".join(page) + "\n"


def tables_page() -> str:
    """Return the page of all tables and their columns."""
    page = [
        "# Tables",
        "",
        "Every table under `results/<screen>/`, made from `wscnn/core/tables.py`. Tables are Parquet; each file also "
        "holds unit and meaning of its columns in its metadata. A name that ends in `*` stands for one column per "
        "channel or feature. Columns of your own in the layout follow those listed for `layout`, `screen_wells` and "
        "`hits`. [Read the results](../how-to/results.md) has examples; [The statistics](../explanation/statistics.md) "
        "explains effects and p-values.",
    ]
    for kind, columns in TABLES.items():
        file, row = FILES[kind]
        page += [
            "",
            f"## `{kind}`",
            "",
            f"`{file}`: {row}.",
            "",
            "| column | type | unit | meaning |",
            "|---|---|---|---|",
        ]
        page += [f"| `{name}` | {column.kind} | {column.unit} | {column.meaning} |" for name, column in columns.items()]
    return "\n".join(page) + "\n"


def _command(command: click.Command, name: str, level: int) -> Iterator[str]:
    context = click.Context(command, info_name=name)
    yield from ("", f"{'#' * level} `{name}`", "")
    yield inspect.cleandoc(command.help or "").replace("\b\n", "")
    arguments = [parameter for parameter in command.params if isinstance(parameter, click.Argument)]
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    usage = " ".join([name, *(["[OPTIONS]"] if options else []), *(item.make_metavar(context) for item in arguments)])
    if not isinstance(command, click.Group):
        yield from ("", "```text", usage, "```")
    rows = [record for option in options if (record := option.get_help_record(context))]
    if rows:
        yield from ("", "| option | meaning |", "|---|---|")
        for flags, text in rows:
            yield f"| `{flags}` | {' '.join(text.split())} |"
    if isinstance(command, click.Group):
        for verb, below in command.commands.items():
            yield from _command(below, f"{name} {verb}", level + 1)


def command_page() -> str:
    """Return the page of all verbs of the command line and their options."""
    lines = [
        "# Command line",
        "",
        "Made from the program's own help. `wscnn VERB --help` prints the same. A verb that succeeds exits with status "
        "0; a problem with your input is reported on standard error, in sentences that begin with `error:`, with "
        "status 1; an unknown option exits with status 2.",
    ]
    for name, command in main.commands.items():
        lines += _command(command, f"wscnn {name}", 2)
    return "\n".join(lines) + "\n"


def packages() -> dict[str, list[str]]:
    """Return the modules of each package of wscnn, by their dotted names."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "wscnn").glob("*/*.py")):
        if path.stem != "__init__":
            found.setdefault(path.parent.name, []).append(f"wscnn.{path.parent.name}.{path.stem}")
    return found


def python_page(package: str, modules: list[str]) -> str:
    """Return the page of a package, which mkdocstrings fills from the docstrings."""
    return "\n\n".join([f"# wscnn.{package}", *(f"::: {module}" for module in modules)]) + "\n"


def notebook_page(path: Path) -> str:
    """Return a notebook as Markdown: its text and code, in order."""
    cells = json.loads(path.read_text())["cells"]
    texts = ("".join(cell["source"]) if cell["cell_type"] == "markdown" else code(cell) for cell in cells)
    return "\n\n".join(texts) + "\n"


def code(cell: Mapping[str, Any]) -> str:
    """Return a code cell of a notebook as a fenced block."""
    return f"```python\n{''.join(cell['source'])}\n```"


def pages() -> dict[str, str]:
    """Return all generated pages by their paths in the site."""
    made = {
        "reference/config.md": config_page(),
        "reference/tables.md": tables_page(),
        "reference/command-line.md": command_page(),
        "benchmark-runs.md": (ROOT / "tests/benchmarks/RESULTS.md")
        .read_text()
        .replace("# Benchmarks", "# Latest runs", 1),
        "changes.md": (ROOT / "CHANGELOG.md").read_text(),
    }
    made |= {f"reference/python/{name}.md": python_page(name, modules) for name, modules in packages().items()}
    notebooks = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
    return made | {f"notebooks/{path.stem}.md": notebook_page(path) for path in notebooks}


def on_config(config: Any) -> Any:
    """Put the packages' pages into the navigation, below Reference."""
    (reference,) = (entry["Reference"] for entry in config.nav if "Reference" in entry)
    reference.append({"Python": [{name: f"reference/python/{name}.md"} for name in packages()]})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages to those of `docs/`."""
    from mkdocs.structure.files import File

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files
