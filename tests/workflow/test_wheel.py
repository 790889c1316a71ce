"""The package as a wheel, installed away from the repository, runs the workflow from any folder."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from runs import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment of a user who has the wheel, and of the repository nothing."""
    folder = tmp_path_factory.mktemp("wheel")
    # From a copy: a build leaves files beside what it builds.
    source = folder / "source"
    shutil.copytree(
        ROOT, source, ignore=shutil.ignore_patterns(".*", "tests", "results", "demo", "demo_*", "build", "*.egg-info")
    )
    pip = [sys.executable, "-m", "pip", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(source)], check=True)
    (wheel,) = folder.glob("wscnn-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)], check=True)
    shutil.rmtree(source)
    path = f"{folder / 'site' / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PYTHONPATH": str(folder / "site"), "PATH": path}


def call(folder: Path, variables: dict[str, str], *options: str) -> str:
    line = [sys.executable, "-m", "wscnn", *options]
    done = subprocess.run(line, cwd=folder, env=variables, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_wheel_starts_checks_and_stages_a_screen_away_from_the_repository(
    installed: dict[str, str], tmp_path: Path
) -> None:
    small = ["--plates", "1", "--wells", "24", "--fields", "1", "--size", "128", "--strong", "1", "--weak", "0"]
    call(tmp_path, installed, "simulate", "screen", "made", *small)
    call(tmp_path, installed, "simulate", "screen", "rpe1", *small, "--cells", "micronuclei")
    started = ["--images", "made/images/plate1", "--plate-map", "made/layout.tsv"]
    assert "wells:    24 per plate" in call(tmp_path, installed, "init", "screen", *started)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    config = tmp_path / "screen" / "config.yaml"
    assert "no problem found" in call(elsewhere, installed, "check", str(config))
    call(elsewhere, installed, "run", "../screen/config.yaml", "--until", "stage", "--quiet", "rules")
    assert (tmp_path / "screen" / "results" / "screen" / "plates" / "plate1.json").is_file()
    assert list(elsewhere.iterdir()) == []
    planned = call(tmp_path, installed, "run", "screen/config.yaml", "-n")
    assert "rule train" in planned and "rule stage" not in planned
    # A changed setting is noticed, wherever the run was started.
    config.write_text(config.read_text().replace("downsample: 2", "downsample: 1"))
    assert "rule stage" in call(tmp_path, installed, "run", "screen/config.yaml", "-n")
