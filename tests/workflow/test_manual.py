"""README and docs, followed literally: what stands in their code blocks is run, in order, in a fresh copy."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import duckdb
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from runs import ROOT, environment
from tiny import tiny_tiff

from wscnn.cli import main


def nav_pages(nav: list[Any]) -> list[str]:
    """Return the hand-written pages of the site's navigation, in order."""
    found = []
    for entry in nav:
        (target,) = entry.values()
        found += nav_pages(target) if isinstance(target, list) else [f"docs/{target}"]
    return [page for page in found if (ROOT / page).is_file()]


INSTRUMENT = "docs/how-to/instrument.md"
MANUALS = (
    "README.md",
    "config/README.md",
    *nav_pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]),
)

#: Commands that are not run here, and why.
NOT_RUN = {
    "make demo": "makes an environment of its own and takes minutes; its parts are run here and in test_run.py",
    "make test": "would run this test again",
    "python3 -m venv .venv && . .venv/bin/activate": "the environment that runs the tests stands for it",
    "pip install .": "as above; tests/workflow/test_wheel.py installs a wheel",
    "snakemake --profile slurm": "needs Slurm; run by tests/slurm where there is one",
    "source .venv/bin/activate": "as above",
    "wscnn view results/my_screen --well plate1/B03": "opens a window where napari is installed; see test_view.py",
}

#: What the blocks hold.
LANGUAGES = {"bash", "python", "yaml", "text"}


def blocks(manual: str) -> list[tuple[str, str]]:
    """Return language and content of the code blocks of a page, in order."""
    return re.findall(r"^```(.*)\n((?:(?!```).*\n)*)```$", (ROOT / manual).read_text(), re.M)


def contents(language: str, *manuals: str) -> list[str]:
    return [content for manual in manuals or MANUALS for found, content in blocks(manual) if found == language]


def commands() -> list[str]:
    """Return the command lines of all pages, without comments."""
    lines = [re.sub(r"(^|\s+)#.*", "", line).strip() for block in contents("bash") for line in block.splitlines()]
    return [line for line in lines if line]


def spans() -> list[str]:
    """Return what stands between backquotes in the text and tables of all pages."""
    prose = [re.sub(r"^```.*?^```$", "", (ROOT / manual).read_text(), flags=re.M | re.S) for manual in MANUALS]
    return [span for text in prose for span in re.findall(r"`([^`\n]+)`", text)]


@pytest.fixture(scope="module")
def folder(screen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a fresh copy of the repository in which the user has filled in the three files of `config/`."""
    folder = tmp_path_factory.mktemp("manual") / "wscnn"
    unwanted = shutil.ignore_patterns(".*", "tests", "results", "logs", "demo", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, folder, ignore=unwanted, symlinks=True)
    # The first plate of the small screen.
    shutil.copytree(screen / "images" / "plate1", folder / "images" / "plate1")
    for table in ("plates", "layout"):
        rows = pd.read_csv(screen / f"{table}.tsv", sep="\t", dtype=str, keep_default_na=False)
        rows[rows["plate"] == "plate1"].to_csv(folder / "config" / f"{table}.tsv", sep="\t", index=False)
    own = yaml.safe_load((folder / "config" / "config.yaml").read_text())
    # The images are plain TIFFs, which the example of a pattern is for.
    own |= yaml.safe_load(contents("yaml", INSTRUMENT)[0])
    own |= {"encoder": {"steps": 5}, "mosaic": {"downsample": 2}}
    # Trained for seconds, the networks need not tell the controls apart; the plate counts all the same.
    own["hits"] = {"min_auc": None}
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(own))
    # Commands about the demo are run on this screen.
    (folder / "results").mkdir()
    (folder / "results" / "demo").symlink_to("my_screen")
    return folder


def closure(*names: str) -> set[str]:
    """Return the distributions that pip installs for the requirements `names`, by their normalised names."""
    found: set[tuple[str, str]] = set()
    wanted = [(Requirement(name), "") for name in names]
    while wanted:
        requirement, extra = wanted.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for chosen in {"", *requirement.extras}:
            if (name, chosen) not in found:
                found.add((name, chosen))
                try:
                    lines = metadata.distribution(name).requires or []
                except metadata.PackageNotFoundError:
                    continue  # needed on another system only
                wanted += [(Requirement(line), chosen) for line in lines]
    return {name for name, _ in found}


#: Put before a user's programs: modules that only the tests' requirements bring are not found.
HIDE = """
import sys
from importlib.machinery import PathFinder
class Hiding(PathFinder):
    modules = {modules}
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in cls.modules else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Hiding
"""


@cache
def users_modules() -> str:
    """Return a folder which, on PYTHONPATH, leaves Python programs what `pip install -e .` installs, and no more."""
    lines = [line for line in (ROOT / "envs/requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    allowed = closure(*lines) | {"wscnn", "pip", "setuptools"}
    hidden = {
        module
        for module, names in metadata.packages_distributions().items()
        if not allowed & {canonicalize_name(name) for name in names}
    }
    folder = tempfile.mkdtemp(prefix="users-modules-")
    Path(folder, "sitecustomize.py").write_text(HIDE.format(modules=hidden))
    return folder


def run(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line as a user's shell would, where there is only what a user has installed."""
    shell = ["bash", "-e", "-o", "pipefail", "-c", line]
    path = os.pathsep.join(filter(None, [users_modules(), os.environ.get("PYTHONPATH")]))
    variables = environment() | {"PYTHONPATH": path}
    return subprocess.run(shell, cwd=folder, env=variables, text=True, capture_output=True, timeout=900)


def test_the_commands_find_what_a_user_has_and_nothing_of_the_tests(tmp_path: Path) -> None:
    users, ours = "torch wscnn snakemake pygments openpyxl", "duckdb polars pytest"
    code = "import sys; from importlib.util import find_spec; print(*filter(find_spec, sys.argv[1:]))"
    assert run(f"python -c '{code}' {users} {ours}", tmp_path).stdout.strip() == users
    assert "No module named" in run("python -c 'import duckdb'", tmp_path).stderr


@pytest.fixture(scope="module")
def followed(folder: Path) -> dict[str, subprocess.CompletedProcess[str]]:
    """Return what each command of the manuals said, all run one after the other."""
    said: dict[str, subprocess.CompletedProcess[str]] = {}
    for line in commands():
        if line not in NOT_RUN and line not in said:
            said[line] = run(line, folder)
            assert said[line].returncode == 0, f"{line}\n{said[line].stdout}{said[line].stderr}"
    return said


def test_every_block_says_what_it_holds() -> None:
    for manual in MANUALS:
        text = (ROOT / manual).read_text()
        assert {language for language, _ in blocks(manual)} <= LANGUAGES
        assert text.count("\n```") == 2 * len(blocks(manual)), "a block is not closed"
        outside = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
        assert not re.search(r"\n\n {4,}\S", outside), "a block without a language would not be run"


def test_what_is_not_run_still_stands_in_the_manuals() -> None:
    assert set(NOT_RUN) <= set(commands())


def test_the_shipped_files_are_content_once_there_are_images(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "config", tmp_path / "config")
    config = yaml.safe_load((tmp_path / "config" / "config.yaml").read_text())
    config |= yaml.safe_load(contents("yaml", INSTRUMENT)[0])
    (tmp_path / "config" / "config.yaml").write_text(yaml.safe_dump(config))
    plate, images = pd.read_csv(tmp_path / "config" / "plates.tsv", sep="\t").loc[0, ["plate", "images"]]
    (tmp_path / images).mkdir(parents=True)
    for well in pd.read_csv(tmp_path / "config" / "layout.tsv", sep="\t")["well"]:
        tiny_tiff(tmp_path / images / f"{plate}_{well}_s1_w1.tif")
    done = run("wscnn check config/config.yaml", tmp_path)
    assert done.returncode == 0 and "warning" not in done.stderr, done.stderr


def test_every_command_works(followed: dict[str, subprocess.CompletedProcess[str]], folder: Path) -> None:
    assert {"wscnn check config/config.yaml", "snakemake --cores all"} <= set(followed)
    results = folder / "results" / "my_screen"
    assert (results / "report.html").is_file() and (results / "model" / "README.md").is_file()
    assert (folder / "B03.png").read_bytes().startswith(b"\x89PNG")
    assert "no problem found" in followed["wscnn check config/config.yaml"].stderr
    assert "report:   results/my_screen/report.html" in followed["wscnn show results/my_screen"].stdout


@pytest.mark.parametrize("command", ["wscnn init my_screen --images images/plate1", "wscnn plan --plates 2000"])
def test_output_that_is_shown_is_real(followed: dict[str, subprocess.CompletedProcess[str]], command: str) -> None:
    printed = followed[command].stdout + followed[command].stderr
    first = printed.splitlines()[0]
    (shown,) = (block for block in contents("text") if first in block.splitlines())
    assert [line for line in shown.splitlines() if line != "  ..." and line not in printed.splitlines()] == []


def test_json_is_all_that_is_printed(followed: dict[str, subprocess.CompletedProcess[str]], folder: Path) -> None:
    assert json.loads(followed["wscnn check config/config.yaml --json"].stdout)["problems"] == []
    rows = json.loads(followed["wscnn show results/my_screen --json"].stdout)
    hits = pd.read_parquet(folder / "results" / "my_screen" / "hits.parquet")
    assert [row["perturbation"] for row in rows] == hits["perturbation"].head(10).tolist()


def test_the_report_comes_along_in_snakemakes(
    followed: dict[str, subprocess.CompletedProcess[str]], folder: Path
) -> None:
    with zipfile.ZipFile(folder / "my_screen.zip") as archive:
        (ours,) = (name for name in archive.namelist() if "data/raw" in name and name.endswith("/report.html"))
        assert archive.read(ours) == (folder / "results" / "my_screen" / "report.html").read_bytes()
        (index,) = (name for name in archive.namelist() if name.count("/") == 1)
        assert "Hits of the screen my_screen" in archive.read(index).decode()


@pytest.fixture(scope="module")
def python(followed: dict[str, subprocess.CompletedProcess[str]], folder: Path) -> dict[str, Any]:
    """Return the names that the manuals' Python leaves, run in order as in one session."""
    names: dict[str, Any] = {}
    before = Path.cwd()
    os.chdir(folder)
    try:
        for block in contents("python"):
            exec(block, names)
    finally:
        os.chdir(before)
    return names


def test_pandas_and_duckdb_read_the_same_hits_and_cells(python: dict[str, Any], folder: Path) -> None:
    results = folder / "results" / "my_screen"
    hits = duckdb.sql(f"select * from '{results}/hits.parquet'").df()
    assert len(python["hits"]) == len(hits)
    assert python["called"]["perturbation"].tolist() == python["called_too"]["perturbation"].tolist()
    assert len(python["called"]) == hits["hit"].sum()
    best = hits.loc[hits["rank"] == 1, "perturbation"].item()
    assert python["wells"]["perturbation"].unique().tolist() == [best]
    place = ["plate", "well", "phenotype", "object"]
    cells, too = (python[name][place].sort_values(place).to_numpy().tolist() for name in ("cells", "cells_too"))
    assert cells == too


def test_the_plate_is_read_with_zarr_alone(python: dict[str, Any], folder: Path) -> None:
    objects = pd.read_parquet(folder / "results" / "my_screen" / "objects" / "plate1.parquet")
    numbers = {0, *objects.loc[objects["well"] == "B03", "object"]}
    # Two fields of 200 x 200 px, brought down by 2, one channel.
    assert python["mosaic"].ndim == 3 and python["mosaic"].size == 2 * 100 * 100
    assert python["mask"].shape == python["mosaic"].shape[1:]
    assert set(python["mask"].ravel().tolist()) == numbers


def run_notebook(name: str, folder: Path) -> str:
    """Run a notebook's code, in order, as one program; return what it printed."""
    cells = json.loads((ROOT / "docs" / "notebooks" / name).read_text())["cells"]
    code = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    (folder / "notebook.py").write_text(code)
    done = run("python notebook.py", folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_notebook_reads_hits(followed: dict[str, subprocess.CompletedProcess[str]], folder: Path) -> None:
    printed = run_notebook("read_hits.ipynb", folder)
    hits = pd.read_parquet(folder / "results" / "my_screen" / "hits.parquet")
    wells = pd.read_parquet(folder / "results" / "my_screen" / "wells.parquet")
    best = hits.loc[hits["rank"] == 1, "perturbation"].item()
    rows = wells.loc[wells["perturbation"] == best, ["plate", "well"]]
    assert all(re.search(rf"{plate} +{well} ", printed) for plate, well in rows.itertuples(index=False))


def test_the_notebook_applies_a_model_to_the_next_screen(
    followed: dict[str, subprocess.CompletedProcess[str]], folder: Path
) -> None:
    run_notebook("next_screen.ipynb", folder)
    (checkpoint,) = (yaml.safe_load(block) for block in contents("yaml") if "checkpoint" in block)
    assert yaml.safe_load((folder / "next.yaml").read_text())["model"] == checkpoint["model"]
    first, second = (folder / "results" / name for name in ("my_screen", "next"))
    assert not (second / "model").exists()
    assert "nothing was trained here" in (second / "report.html").read_text()
    # The same images, scored by the same folds.
    scores = [pd.read_parquet(results / "wells.parquet")["score"] for results in (first, second)]
    assert scores[0].equals(scores[1])


def test_notebooks_hold_no_output() -> None:
    for path in (ROOT / "docs" / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells), path.name


def test_yaml_in_the_manual_is_valid(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    config = yaml.safe_load((folder / "config" / "config.yaml").read_text())
    for number, block in enumerate(contents("yaml")):
        given = yaml.safe_load(block)
        if "checkpoint" in block:
            continue  # followed above
        # A screen of its own, for results belong to one config file.
        merged = {
            **config,
            "screen": f"block{number}",
            **{key: {**config.get(key, {}), **values} for key, values in given.items()},
        }
        (folder / f"block{number}.yaml").write_text(yaml.safe_dump(merged))
        done = CliRunner().invoke(main, ["check", f"block{number}.yaml"])
        assert done.exit_code == 0, done.output


def test_commands_in_the_text_have_the_verbs_and_options_that_there_are() -> None:
    mentioned = {span for span in spans() if span.startswith("wscnn ")}
    assert len(mentioned) > 5
    for span in mentioned:
        command: click.Command = main
        words = re.sub(r"[\[\]]", " ", span).split()[1:]
        while words and isinstance(command, click.Group) and not words[0].startswith("-") and words[0] != "VERB":
            assert words[0] in command.commands, f"`{span}`: there is no such verb"
            command = command.commands[words.pop(0)]
        options = {flag for option in command.params for flag in option.opts} | {"--help", "--version"}
        assert {word for word in words if word.startswith("--")} <= options, f"`{span}`: there is no such option"


def test_scripts_and_tests_named_in_the_text_are_there() -> None:
    named = [path for span in spans() for path in re.findall(r"\btests/\S+", span)]
    assert len(named) > 5
    for path in named:
        assert (ROOT / path).exists(), path
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    for span in spans():
        if made := re.match(r"make (\w+)", span):
            assert made[1] in targets, span


@pytest.mark.parametrize(("words", "completed"), [("sco", "score"), ("show --to", "--top"), ("simulate c", "circles")])
def test_the_shell_completes_verbs_and_options(words: str, completed: str) -> None:
    line = f"wscnn {words}"
    asked = {"_WSCNN_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    program = Path(sys.executable).parent / "wscnn"
    done = subprocess.run([program], env=environment() | asked, text=True, capture_output=True, timeout=60)
    assert [entry.split(",")[1] for entry in done.stdout.split()] == [completed]


def test_help_names_every_verb_with_a_sentence() -> None:
    program = Path(sys.executable).parent / "wscnn"
    text = subprocess.run([program, "--help"], env=environment(), text=True, capture_output=True, timeout=60).stdout
    verbs = text.partition("Commands:")[2]
    for verb in main.commands:
        (line,) = (line for line in verbs.splitlines() if line.startswith(f"  {verb} "))
        assert line.rstrip().endswith("."), f"the sentence of '{verb}' is cut: {line}"
    assert "Traceback" not in text and max(map(len, text.splitlines())) <= 100
