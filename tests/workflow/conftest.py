"""A small screen, and what the whole workflow makes of it, for all tests of this folder."""

import shutil
from pathlib import Path

import pytest
from runs import screen_of


@pytest.fixture(scope="session")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a small screen of two plates and its config, nothing run yet."""
    return screen_of(tmp_path_factory.mktemp("screen"))


@pytest.fixture(scope="session")
def finished(screen: Path, tmp_path_factory: pytest.TempPathFactory, snakemake) -> Path:
    """Return a copy of the screen on which the whole workflow has run, undisturbed."""
    folder = tmp_path_factory.mktemp("finished") / "screen"
    shutil.copytree(screen, folder)
    done = snakemake(folder, "--configfile", "config.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder
