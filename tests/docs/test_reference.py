"""The generated reference: every key, column, verb and option is there, with what it means."""

import re
from pathlib import Path

import click
import pytest
import yaml
from runs import ROOT
from site_pages import command_page, config_page, packages, pages, settings, tables_page

from wscnn.cli import main
from wscnn.core.config import schema
from wscnn.core.tables import FILES, TABLES
from wscnn.statistics.cautions import SHORT


def lines(page: str) -> list[str]:
    """Return all rows of a page's tables that begin with code."""
    return [line for line in page.splitlines() if line.startswith("| `")]


def rows(page: str) -> list[list[str]]:
    """Return the cells of these rows."""
    return [line.strip("| ").split(" | ") for line in lines(page)]


def test_every_key_of_the_config_has_its_default_values_and_meaning() -> None:
    listed = {key.strip("`"): cells for key, *cells in rows(config_page())}
    known = {key: (rule, required) for key, rule, required in settings(schema("config"))}
    assert set(listed) == set(known)
    for key, (rule, required) in known.items():
        default, values, meaning = listed[key]
        assert len(meaning) > 10 and meaning.endswith((".", ").")), key
        assert default == "required" if required else default.startswith("`"), key
        if {"integer", "number"} & set(rule.get("type", [])):
            assert re.search(r">=? -?[\d.]+ and <=? [\d.]+", values), f"{key}: no bounds"
    assert listed["hits.fdr"][0] == "`0.05`" and listed["mosaic.downsample"][0] == "`auto`"
    assert listed["train.steps"][0] == "`null`" and listed["dask.slurm.walltime"][0] == "`01:00:00`"


@pytest.mark.parametrize("kind", TABLES)
def test_every_column_of_a_table_has_its_unit_and_meaning(kind: str) -> None:
    section = tables_page().partition(f"\n## `{kind}`\n")[2].partition("\n## ")[0]
    assert f"`{FILES[kind][0]}`" in section
    assert lines(section) == [
        f"| `{name}` | {column.kind} | {column.unit} | {column.meaning} |" for name, column in TABLES[kind].items()
    ]


def commands(group: click.Group, before: str = "wscnn") -> dict[str, click.Command]:
    """Return all commands of a group by their full names."""
    found = {}
    for name, command in group.commands.items():
        found[f"{before} {name}"] = command
        if isinstance(command, click.Group):
            found |= commands(command, f"{before} {name}")
    return found


def test_every_verb_and_option_has_a_sentence() -> None:
    sections = dict(re.findall(r"^#+ `(wscnn [^`]+)`\n\n((?:(?!^#+ `).*\n)*)", command_page(), re.M))
    assert set(sections) == set(commands(main))
    for name, command in commands(main).items():
        assert sections[name].strip(), name
        for option in command.params:
            if isinstance(option, click.Option):
                assert any(f"`{flag}" in sections[name] for flag in option.opts), f"{name} {option.opts}"


def test_every_package_has_a_page_of_its_modules() -> None:
    site = pages()
    named = {path.parent.name for path in ROOT.glob("wscnn/*/__init__.py")}
    assert set(packages()) == named
    assert "::: wscnn.statistics.hits" in site["reference/python/statistics.md"]


def test_all_pages_are_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    generated = {path for path in pages() if not path.startswith("reference/python/")}
    written = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert yaml.safe_load(text)["use_directory_urls"] is False
    assert {path for path in generated | written if f": {path}\n" not in text} == set()


@pytest.mark.parametrize("name", ["README.md", "config/README.md", "CONTRIBUTING.md", "resources/README.md"])
def test_links_outside_of_the_site_lead_somewhere(name: str) -> None:
    page = ROOT / name
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    for link in links:
        if not link.startswith("http"):
            assert (page.parent / link.partition("#")[0]).exists(), f"{name}: {link}"


def test_the_site_asks_no_other_host() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert config["theme"]["font"] is False
    assert not {"extra_javascript", "custom_dir"} & set(config)
    for path in Path(ROOT / "docs").rglob("*.md"):
        assert not re.search(r"!\[[^]]*\]\(http|<script|<img", path.read_text()), path


def test_pictures_are_small() -> None:
    pictures = [*(ROOT / "docs" / "images").iterdir(), *(ROOT / "resources").iterdir()]
    assert sum(path.stat().st_size for path in pictures) < 2_000_000


def test_the_readme_fits_on_two_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 80


def test_every_figure_names_its_command() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    tables = re.findall(r"^\|(.*)\|\n\|[-|]+\|\n((?:\|.*\n)+)", page, re.M)
    with_commands = [body.splitlines() for header, body in tables if header.split("|")[-1].strip() == "command"]
    assert len(with_commands) >= 4
    for line in (line for body in with_commands for line in body):
        command = line.strip("| ").split(" | ")[-1]
        assert re.search(r"`(?:wscnn|python|pytest|make) |the same|^none: trial", command), line


def test_every_warning_is_explained() -> None:
    page = (ROOT / "docs" / "how-to" / "troubleshooting.md").read_text().partition("\n## Warnings\n")[2]
    explained = {code for cells in rows(page) for code in re.findall(r"`(\w+)`", cells[0])}
    sources = "\n".join(path.read_text() for path in (ROOT / "wscnn").rglob("*.py"))
    assert set(re.findall(r'Caution\(\s*"(\w+)"', sources)) <= explained
    assert {code for code in explained if f'"{code}"' not in sources} == set()


def test_every_word_of_caution_is_explained() -> None:
    page = (ROOT / "docs" / "how-to" / "results.md").read_text()
    assert {words for words in SHORT.values() if f"`{words}`" not in page} == set()
