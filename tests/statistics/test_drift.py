"""Drift: plates like those of training are not flagged, others are, and what differs is named."""

import json

import numpy as np
import pandas as pd
import pytest

from wscnn.core.config import section
from wscnn.core.tables import DRIFT, conform
from wscnn.core.wells import well_name
from wscnn.statistics.drift import MEASURES, drift_of, summarise_plates
from wscnn.statistics.hits import analyse


def plate(rng: np.random.Generator, shift: dict[str, float] | None = None) -> np.ndarray:
    """Return eight wells of an ordinary plate of two channels: twelve features, wells and plates differ by 5 %."""
    level = np.r_[np.tile([6.0, 7.0, -2.0, -0.5], 2), np.full(12, 2.0)]
    spread = np.r_[np.tile(np.array(list(MEASURES.values())) / 2, 2), np.full(12, 0.02)]
    measures = [f"{measure} of {channel}" for channel in ("DNA", "actin") for measure in MEASURES]
    for name, by in (shift or {}).items():
        level[slice(8, None) if name == "features of the network" else measures.index(name)] += by
    return level + spread * rng.normal(size=20) + spread * rng.normal(size=(8, 20))


@pytest.mark.parametrize("n_plates", [1, 2, 5])
def test_ordinary_plates_are_not_flagged(n_plates: int) -> None:
    rng = np.random.default_rng(0)
    summary = summarise_plates({f"P{n}": plate(rng) for n in range(n_plates)})
    found = [drift_of(plate(rng), summary, ["DNA", "actin"]) for _ in range(50)]
    assert not any(one.value > one.threshold for one in found)
    assert json.loads(json.dumps(summary)) == summary


@pytest.mark.parametrize("n_plates", [1, 2, 5])
@pytest.mark.parametrize(
    ("what", "by"),
    [
        ("background of DNA", np.log(3)),
        ("sharpness of actin", -0.6),
        ("noise of actin", -0.6),
        ("features of the network", 1.0),
    ],
)
def test_what_differs_is_flagged_and_named(n_plates: int, what: str, by: float) -> None:
    rng = np.random.default_rng(1)
    summary = summarise_plates({f"P{n}": plate(rng) for n in range(n_plates)})
    for _ in range(10):
        drift = drift_of(plate(rng, {what: by}), summary, ["DNA", "actin"])
        assert drift.value > drift.threshold
        assert drift.largest == what


def test_training_plates_that_differ_much_let_others_differ_as_much() -> None:
    rng = np.random.default_rng(2)
    shifts = [-0.6, 0.6, -0.3, 0.3, 0.5, -0.5]
    varied = summarise_plates({str(by): plate(rng, {"background of DNA": by}) for by in shifts})
    alike = summarise_plates({str(by): plate(rng) for by in shifts})
    other = plate(rng, {"background of DNA": 0.6})
    assert drift_of(other, varied, ["DNA", "actin"]).value < drift_of(other, varied, ["DNA", "actin"]).threshold
    assert drift_of(other, alike, ["DNA", "actin"]).value > drift_of(other, alike, ["DNA", "actin"]).threshold


def test_features_that_are_always_zero_do_not_count() -> None:
    wells = plate(np.random.default_rng(3))
    wells[:, 8:] = 0
    drift = drift_of(wells, summarise_plates({"P0": wells}), ["DNA", "actin"])
    assert drift.value == pytest.approx(0, abs=1e-3)


def test_hits_flags_the_plate_and_warns() -> None:
    rng = np.random.default_rng(4)
    wells = [well_name(row, column) for row in range(4) for column in range(6)]
    table = pd.concat(
        pd.DataFrame(
            {
                "plate": name,
                "well": wells,
                "perturbation": [f"gene{n}" for n in range(24)],
                "role": ["negative"] * 8 + ["sample"] * 16,
                "score": rng.normal(size=24),
            }
        )
        for name in ("P1", "P2", "P3")
    )
    drift = pd.DataFrame(
        {
            "plate": ["P2", "P1", "P3"],
            "drift": [9.5, 1.5, np.nan],
            "drift_threshold": [4.2, 4.2, np.nan],
            "drift_of": ["noise of DNA", "background of DNA", ""],
        }
    )
    tables = analyse(table, None, source="table", hits=section("hits", "{}"), drift=conform(drift, DRIFT))
    found = tables.plates.set_index("plate")
    assert found.loc["P2", ["drift", "drift_threshold", "drift_of"]].tolist() == [9.5, 4.2, "noise of DNA"]
    assert np.isnan(found.loc["P3", "drift"])
    (warning,) = tables.warnings.query("code == 'drift'").itertuples()
    assert warning.plate == "P2"
    assert "9.5 SDs between training plates, most in noise of DNA (the threshold is 4.2)" in warning.message
    assert analyse(table, None, source="table", hits=section("hits", "{}")).plates["drift"].isna().all()
