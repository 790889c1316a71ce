"""Dose series: curves against simulated truth, and what is refused."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import curve_fit

from wscnn.core.config import section
from wscnn.core.wells import well_name
from wscnn.statistics.attainable import layout_cautions
from wscnn.statistics.doses import fit_curve
from wscnn.statistics.hits import analyse

DOSES = np.repeat(10.0 ** np.linspace(-2, 1.5, 8), 3)


def logistic(dose: np.ndarray, bottom: float, top: float, centre: float, hill: float) -> np.ndarray:
    return bottom + (top - bottom) / (1 + (10**centre / dose) ** hill)


def test_without_noise_the_curve_comes_back() -> None:
    curve = fit_curve(DOSES, logistic(DOSES, 0.0, 10.0, -0.2, 1.5) + 1e-3 * np.random.default_rng(0).normal(size=24))
    assert curve.status == "ok"
    assert curve.ec50 == pytest.approx(10**-0.2, rel=0.01)
    assert (curve.bottom, curve.top) == (pytest.approx(0, abs=0.05), pytest.approx(10, abs=0.05))
    assert curve.ec50_low <= curve.ec50 <= curve.ec50_high


def test_ec50_is_scipys_and_an_outlier_hardly_moves_it() -> None:
    rng = np.random.default_rng(1)
    y = logistic(DOSES, 1.0, 9.0, 0.1, 1.2) + 0.5 * rng.normal(size=24)
    expected, _ = curve_fit(logistic, DOSES, y, p0=[0, 10, 0, 1])
    assert np.log10(fit_curve(DOSES, y).ec50) == pytest.approx(expected[2], abs=0.05)
    y[4] = 30
    assert np.log10(fit_curve(DOSES, y).ec50) == pytest.approx(expected[2], abs=0.12)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(2)
    covered = []
    for _ in range(200):
        centre, hill = rng.uniform(-0.8, 0.5), rng.uniform(0.8, 2.5)
        curve = fit_curve(DOSES, logistic(DOSES, 0, 8, centre, hill) + rng.normal(size=24))
        if curve.status == "ok":
            covered.append(curve.ec50_low <= 10**centre <= curve.ec50_high)
    assert len(covered) > 150
    assert 0.85 <= np.mean(covered) <= 0.99


def test_flat_and_open_curves_are_refused() -> None:
    rng = np.random.default_rng(3)
    flat = [fit_curve(DOSES, rng.normal(size=24)).status for _ in range(100)]
    assert flat.count("ok") <= 5
    assert fit_curve(DOSES, -logistic(DOSES, 0, 8, 0, 1)).status == "flat"
    still_rising = fit_curve(DOSES, logistic(DOSES, 0, 20, 2.5, 1) + 0.3 * rng.normal(size=24))
    assert still_rising.status == "open" and np.isnan(still_rising.ec50) and still_rising.trend_p < 0.05
    assert fit_curve(DOSES[:12], np.arange(12.0)).status == "few doses"
    assert fit_curve(DOSES, np.ones(24)).status == "flat"


def plate(dose: list[object]) -> pd.DataFrame:
    """Return a plate whose first eight columns are the doses of eight compounds, one in each row."""
    rng = np.random.default_rng(4)
    row, column = (index.ravel() for index in np.indices((8, 12)))
    role = np.where(column < 8, "sample", np.where(column < 10, "negative", "positive"))
    values = 10.0 ** (column / 2 - 2)
    effect = np.where((role == "sample") & (row < 4), logistic(values, 0, 8, -0.5, 1.5), 0)
    compound = [f"C{r}" if c < 8 else "control" for r, c in zip(row, column, strict=True)]
    return pd.DataFrame(
        {
            "plate": "P",
            "well": [well_name(r, c) for r, c in zip(row, column, strict=True)],
            "well_row": row,
            "well_column": column,
            "role": role,
            "perturbation": [f"{c} {d}" for c, d in zip(compound, dose, strict=True)],
            "compound": compound,
            "dose": dose,
            "score": effect + 0.5 * rng.normal(size=96),
        }
    )


def test_the_layouts_doses_give_a_row_for_each_compound() -> None:
    doses = [10.0 ** (column / 2 - 2) if column < 8 else np.nan for column in np.tile(range(12), 8)]
    settings = section("hits", json.dumps({"normalize": "robust_z"}))
    table = analyse(plate(doses), None, source="table", hits=settings).doses
    assert table["compound"].tolist() == [f"C{row}" for row in range(8)]
    assert (table["status"][:4] == "ok").all() and (table["status"][4:] != "ok").sum() >= 3
    assert np.log10(table["ec50"][:4]).to_numpy() == pytest.approx(np.full(4, -0.5), abs=0.3)
    assert (table["n_doses"] == 8).all() and (table["highest_dose"] == 10**1.5).all()
    without = analyse(plate(doses).drop(columns="dose"), None, source="table", hits=settings).doses
    assert without.empty and list(without.columns) == list(table.columns)


@pytest.mark.parametrize("wrong", ["10 uM", 0, -1.0])
def test_what_is_no_dose_is_a_warning_and_no_curve(wrong: object) -> None:
    table = plate([wrong] * 96)
    tables = analyse(table, None, source="table", hits=section("hits", "{}"))
    assert tables.doses.empty
    (message,) = tables.warnings.loc[tables.warnings["code"] == "doses", "message"]
    assert f"'{wrong}' (plate 'P', well A01) is not a number above 0, as in 64 sample wells" in message
    codes = [c.code for c in layout_cautions(table.assign(phenotype=""), section("hits", "{}"))]
    assert "doses" in codes
