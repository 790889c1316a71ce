"""The workflow run as a user runs it, on small simulated screens."""

import fcntl
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from hashlib import sha256
from multiprocessing.process import BaseProcess
from pathlib import Path

import pandas as pd
import yaml

from wscnn.core.atomic import remove

ROOT = Path(__file__).parent.parent

#: A process that has imported Snakemake and what the Snakefile imports, and is forked for each run: these imports take
#: longer than most dry runs.
_IMPORTED = multiprocessing.get_context("forkserver")
_IMPORTED.set_forkserver_preload(
    ["snakemake.cli", "snakemake.workflow", "snakemake.report", "wscnn.core.screen_tables", "wscnn.preflight.check"]
)


def made_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """Return `folder` with what `make` puts into it, made by the first of the test processes that need it."""
    made = folder.with_suffix(".made")
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            remove(folder)
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


def command(*options: str) -> list[str]:
    """Return the command line that runs the workflow on this machine."""
    program = Path(sys.executable).parent / "snakemake"
    return [str(program), "--snakefile", str(ROOT / "Snakefile"), "--cores", "2", *options]


def environment() -> dict[str, str]:
    """Return the environment of jobs: this environment's programs first on the path."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def start_snakemake(
    folder: Path, *options: str, snakefile: Path = ROOT / "Snakefile", said: Path = Path(os.devnull)
) -> BaseProcess:
    """Start the real Snakefile in `folder`; return its process, whose stdout and stderr go to the file `said`."""
    line = command(*options)
    line[line.index("--snakefile") + 1] = str(snakefile)
    process = _IMPORTED.Process(target=_become_snakemake, args=(line, folder, environment(), said))
    process.start()
    return process


def snakemake(
    folder: Path, *options: str, snakefile: Path = ROOT / "Snakefile", timeout: float = 900
) -> subprocess.CompletedProcess[str]:
    """Run the real Snakefile in `folder` to its end; return its exit status and, as stdout, all that it said."""
    with tempfile.NamedTemporaryFile("r") as said:
        process = start_snakemake(folder, *options, snakefile=snakefile, said=Path(said.name))
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(list(options), timeout)
        return subprocess.CompletedProcess(options, process.exitcode, said.read(), "")


def _become_snakemake(line: list[str], folder: Path, variables: dict[str, str], said: Path) -> None:
    """Be the program `snakemake`, started by `line` in `folder`."""
    output = os.open(said, os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = line
    from snakemake.cli import main

    main()


def screen_of(folder: Path) -> Path:
    """Make a small screen in `folder`, two plates of 24 wells, whose networks train for a few seconds only."""
    screen = folder / "screen"
    size = {"plates": 2, "wells": 24, "fields": 2, "size": 200, "strong": 1, "weak": 0}
    # Enough that a short training finds cells.
    options = [f"--{name}={value}" for name, value in (size | {"prevalence": 0.3}).items()]
    made = subprocess.run(
        [str(Path(sys.executable).parent / "wscnn"), "simulate", "screen", "screen", *options],
        cwd=folder,
        text=True,
        capture_output=True,
    )
    assert made.returncode == 0, made.stderr
    config = yaml.safe_load((screen / "config.yaml").read_text())
    # The screen becomes its own working directory, so that it can be copied and run anywhere.
    plates = pd.read_csv(screen / "plates.tsv", sep="\t", dtype=str)
    plates.assign(images="images/" + plates["plate"]).to_csv(screen / "plates.tsv", sep="\t", index=False)
    config |= {"screen": "small", "plates": "plates.tsv", "layout": "layout.tsv"}
    config.pop("train", None)
    config |= {"encoder": {"steps": 5}, "mosaic": {"downsample": 2}}
    # Two more jobs, which tests that are about them ask for.
    config["baseline"] = {"methods": []}
    (screen / "config.yaml").write_text(yaml.safe_dump(config))
    return screen


def tables(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all tables, and of the report, that a screen has so far."""
    results = folder / "results" / "small"
    files = [*results.rglob("*.parquet"), *results.glob("report.html")]
    # Times of training are the one thing that no two runs share.
    return {str(file.relative_to(results)): file.read_bytes() for file in sorted(files) if "history" not in file.name}


def everything(folder: Path) -> dict[str, str]:
    """Return digests of all tables, the report, and every file of the plates: pixels, masks and saliency."""
    results = folder / "results" / "small"
    contents = tables(folder) | {
        str(file.relative_to(results)): file.read_bytes() for file in (results / "plates").rglob("*") if file.is_file()
    }
    return {name: sha256(content).hexdigest() for name, content in contents.items()}
