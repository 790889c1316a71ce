"""`mosaic.downsample: auto` on the real Snakefile: decided once, and what stages again when it changes."""

import json
import shutil
from pathlib import Path

import pytest
from test_reruns import RESULTS, add_plate, configure, planned


@pytest.fixture(scope="module")
def staged(finished: Path, tmp_path_factory: pytest.TempPathFactory, snakemake) -> Path:
    """Return a screen that is staged at the scale that its cells asked for."""
    folder = Path(shutil.copytree(finished, tmp_path_factory.mktemp("scale") / "screen"))
    configure(folder, mosaic={"downsample": "auto"})
    done = snakemake(folder, "--configfile", "config.yaml", "--until", "stage")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def decided(folder: Path) -> Path:
    return folder / RESULTS / "scale.json"


def test_the_scale_is_that_of_the_cells(staged: Path) -> None:
    scale = json.loads(decided(staged).read_text())
    assert scale["downsample"] == 1
    assert scale["diameter_px"] == pytest.approx(26.5, rel=0.08)
    assert set(scale["plates"]) == {"plate1", "plate2"}


@pytest.mark.parametrize(
    ("change", "plates"),
    [
        ("nothing", set()),
        ("touched", set()),
        ("edited", {"plate1", "plate2"}),
        ("plate added", {"plate3"}),
        ("deleted", {"plate1", "plate2"}),
    ],
)
def test_plates_are_staged_again_when_the_scale_changed(
    staged: Path, tmp_path: Path, change: str, plates: set[str]
) -> None:
    folder = Path(shutil.copytree(staged, tmp_path / "screen"))
    if change == "touched":
        decided(folder).touch()
    elif change == "edited":
        decided(folder).write_text(decided(folder).read_text().replace('"downsample": 1', '"downsample": 2'))
    elif change == "plate added":
        add_plate(folder)
    elif change == "deleted":
        decided(folder).unlink()
    found, scales = planned(folder), decided(folder).exists()
    assert found["stage"] == plates
    assert scales == (change != "deleted")
