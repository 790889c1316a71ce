from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from benchmarks.qc_faults import MEANT, flags_by_fault, judged
from scipy import ndimage

from wscnn.acquisitions.tiff import read_tiff
from wscnn.core.config import section
from wscnn.simulate.cells import Nuclei
from wscnn.simulate.fields import compose, expose, optics
from wscnn.simulate.multinucleate import MultinucleateCells
from wscnn.simulate.screen import simulate_screen
from wscnn.staging.field_qc import NUMBERS, flag, measure
from wscnn.staging.mosaic import block_means

SETTINGS = section("qc", "{}")
SIDE = 480  # raw; fields are measured as they are staged, at half the resolution


def table(fields: list[np.ndarray]) -> pd.DataFrame:
    """Return the numbers of fields of one channel `a`, their pixels taken as raw."""
    highest = max(int(field.max()) for field in fields)
    rows = [measure(field) | {"saturated": float((field == highest).mean())} for field in fields]
    return pd.DataFrame(rows)[list(NUMBERS)].add_suffix("_a").assign(well=[f"well {n}" for n in range(len(rows))])


def flags(fields: list[np.ndarray]) -> list[str]:
    return flag(table(fields), ["a"], SETTINGS)["flags"].tolist()


@pytest.fixture(scope="module", params=["nuclei", "multinucleate"])
def plate(request: pytest.FixtureRequest) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Return good fields of a simulated plate, and one more with each fault."""
    rng = np.random.default_rng(3)
    bank = Nuclei() if request.param == "nuclei" else MultinucleateCells()
    light = optics(rng, SIDE, 0.0)

    def one(fault: str = "") -> np.ndarray:
        n = 0 if fault == "empty" else max(rng.poisson(24), 4)
        raw = expose(rng, compose(rng, bank, SIDE, n, {}, "").signal, light, rng.lognormal(0, 0.15), fault)
        if fault == "row":
            raw[197] = 0
        elif fault == "columns":
            raw[:, 201:206] = 65535
        elif fault == "half":
            raw[SIDE // 2 :] = 0
        return np.rint(block_means(raw, 2)).astype(np.uint16)

    faulty = {name: one(name) for name in ("blurred", "saturated", "empty", "fibre", "row", "columns", "half")}
    return [one() for _ in range(60)], faulty


def test_good_fields_are_not_flagged(plate: tuple) -> None:
    good, _ = plate
    assert sum(text != "" for text in flags(good)) <= 1


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ("blurred", "blurred"),
        ("saturated", "saturated"),
        ("empty", "empty"),
        ("fibre", "debris"),
        ("row", "lines"),
        ("columns", "lines"),
        ("half", "lines"),
    ],
)
def test_each_fault_gets_its_flag(plate: tuple, fault: str, name: str) -> None:
    good, faulty = plate
    *rest, last = flags([*good, faulty[fault]])
    assert name in last.split(",")
    assert sum(text != "" for text in rest) <= 1


def test_a_line_that_is_dead_in_the_whole_plate_flags_nothing(plate: tuple) -> None:
    good = [field.copy() for field in plate[0]]
    for field in good:
        field[:, 120] = 0
    assert sum("lines" in text for text in flags(good)) <= 1


def test_a_strong_phenotype_is_no_fault(plate: tuple) -> None:
    # An eighth of the fields, four times as bright: a reporter switched on.
    good = [field.astype(np.int64) for field in plate[0]]
    bright = [np.clip((field - 300) * 4 + 300, 0, 60000) for field in good[:8]]
    changed = [field.astype(np.uint16) for field in [*bright, *good[8:]]]
    assert sum(text != "" for text in flags(changed)) <= 1


def test_staining_far_from_the_plate_is_flagged(plate: tuple) -> None:
    good, _ = plate
    dark = (good[0] // 40).astype(np.uint16)
    assert "staining" in flags([*good, dark])[-1].split(",")


def test_numbers_rank_blur(plate: tuple) -> None:
    rng = np.random.default_rng(0)
    field = plate[0][0]
    blurred = [
        np.clip(ndimage.gaussian_filter(field.astype(float), sigma) + rng.normal(0, 10, field.shape), 0, 65535)
        for sigma in (0.5, 2, 4)
    ]
    gradients = [measure(image.astype(np.uint16))["focus_gradient"] for image in blurred]
    assert gradients[0] > gradients[1] > gradients[2]


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (16, 16), (40, 300)])
def test_small_fields_and_flat_ones_have_numbers(shape: tuple[int, int]) -> None:
    for field in (np.zeros(shape, np.uint8), np.random.default_rng(0).integers(0, 9, shape).astype(np.uint16)):
        assert np.isfinite(list(measure(field).values())).all()


def test_faults_planted_in_a_screen_are_found_and_nothing_else(tmp_path: Path) -> None:
    """Seed and fields are others than those that the thresholds were chosen on."""
    simulate_screen(tmp_path / "s", plates=1, wells=24, fields=3, size=400, strong=1, weak=1, faults=12, seed=29)
    counts = flags_by_fault(judged(tmp_path / "s", tmp_path / "out"))
    print(counts.to_string())
    assert counts.loc["none", "fields"] == 60 and counts.loc["none", "any"] <= 1
    for fault, meant in MEANT.items():
        assert counts.loc[fault, meant] == counts.loc[fault, "fields"] == 2, fault


@pytest.mark.parametrize("channel", [1, 2])
def test_the_real_plate_is_good(sbs96: Path, channel: int) -> None:
    fields = [read_tiff(path) for path in sorted(sbs96.glob(f"Channel{channel}-*.tif"))]
    assert len(fields) == 96
    assert sum(text != "" for text in flags(fields)) <= 1
