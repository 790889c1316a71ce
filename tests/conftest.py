"""What many tests need: the real data, a small screen with its results, and the workflow run as a user runs it."""

import os

# Before numpy and torch start: the processes of the tests and the jobs that they run share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import runs
from runs import ROOT, made_once, screen_of

#: Files that take longest, longest first: one that a worker came to last would keep the whole run waiting.
SLOWEST = [
    "test_manual.py",
    "test_run.py",
    "test_sbs96.py",
    "test_slurm.py",
    "test_reruns.py",
    "test_module.py",
    "test_wheel.py",
    "test_run_discovery.py",
    "test_interrupted.py",
    "test_scale_rule.py",
    "test_run_baseline.py",
    "test_train.py",
    "test_hits.py",
    "test_report.py",
    "test_check.py",
    "test_hostile.py",
]
SHARED = ROOT.parent / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that take longest."""
    turns = {name: turn for turn, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: turns.get(item.path.name, len(turns)))


@pytest.fixture(scope="session")
def sbs96(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a real 96-well plate's images (BBBC013), unpacked."""
    archive = SHARED / "sbs96.tar.xz"
    if not archive.is_file():
        pytest.skip(f"the real plate is not here: {archive} is missing")
    folder = tmp_path_factory.mktemp("sbs96")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / "tests" / "core" / "data" / "ExampleSBSImages"


@pytest.fixture(scope="session")
def snakemake() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs the real Snakefile in a folder: ``snakemake(folder, *options)``."""
    return runs.snakemake


@pytest.fixture(scope="session")
def shared_by_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the one folder of this session that all worker processes see."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def screen(shared_by_workers: Path) -> Path:
    """Return a folder with a small screen of two plates and its config, nothing run yet; tests change copies of it."""
    return made_once(shared_by_workers / "raw", screen_of) / "screen"


@pytest.fixture(scope="session")
def finished(screen: Path, shared_by_workers: Path, snakemake) -> Path:
    """Return a copy of the screen on which the whole workflow has run, undisturbed; tests change copies of it."""

    def run(folder: Path) -> None:
        shutil.copytree(screen, folder / "screen")
        done = snakemake(folder / "screen", "--configfile", "config.yaml")
        assert done.returncode == 0, done.stdout + done.stderr

    return made_once(shared_by_workers / "finished", run) / "screen"
