"""What many tests need: where the real data lie, and the workflow run as a user runs it."""

import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from runs import ROOT, command, environment

SHARED = ROOT.parent / "shared" / "data"


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

    def run(folder: Path, *options: str, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*options), cwd=folder, env=environment(), text=True, capture_output=True, timeout=timeout
        )

    return run
