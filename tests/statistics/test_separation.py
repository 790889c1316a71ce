"""AUCs of position and of plate from negative controls alone."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import mannwhitneyu, norm

from wscnn.core.config import section
from wscnn.core.wells import well_name
from wscnn.statistics.hits import analyse
from wscnn.statistics.separation import between_plates, within_plates


def test_within_one_plate_the_auc_and_its_range_are_those_of_scipys_rank_sum():
    rng = np.random.default_rng(0)
    scores, group = rng.normal(size=40), rng.random(40) < 0.3
    found = within_plates(scores, np.zeros(40, dtype=int), group)
    u = mannwhitneyu(scores[group], scores[~group]).statistic
    assert found.auc == pytest.approx(u / (group.sum() * (~group).sum()))
    # A rank sum at the upper end has a two-sided p of 5 % by the normal approximation.
    sd = np.sqrt(41 / 12 / (group.sum() * (~group).sum()))
    assert 2 * norm.sf((found.chance - 0.5) / sd) == pytest.approx(0.05, abs=1e-4)


def test_plates_do_not_enter_the_auc_of_a_position():
    plate = np.repeat([0, 1], 20)
    group = np.r_[np.arange(20) < 15, np.arange(20) < 5]  # mostly on the first plate
    scores = np.random.default_rng(1).normal(size=40)
    assert within_plates(scores + 100 * plate, plate, group) == within_plates(scores, plate, group)


def test_by_chance_the_aucs_exceed_their_ranges_in_about_one_of_twenty():
    plate, group = np.repeat(np.arange(4), 12), np.tile(np.arange(12) < 4, 4)
    rng = np.random.default_rng(2)
    positions, plates = [], []
    for _ in range(100):
        scores = rng.normal(size=48)
        one, other = within_plates(scores, plate, group), between_plates(scores, plate)
        positions.append(abs(one.auc - 0.5) > one.chance - 0.5)
        plates.append(other.auc > other.chance)
    assert 0.01 <= np.mean(positions) <= 0.11
    assert 0.01 <= np.mean(plates) <= 0.11


def test_nothing_to_compare_gives_nan():
    scores, plate = np.arange(5.0), np.zeros(5, dtype=int)
    assert np.isnan(within_plates(scores, plate, np.ones(5, dtype=bool)).auc)
    assert np.isnan(between_plates(scores, plate).auc)


def table(edge: float, side: float, plate: float) -> pd.DataFrame:
    """Return scores of three 24-well plates in which nothing acts; effects are in standard deviations."""
    rng = np.random.default_rng(3)
    row, column = (index.ravel() for index in np.indices((4, 6)))
    border = (row % 3 == 0) | (column % 5 == 0)
    role = np.where((row + column) % 2 == 0, "negative", "sample").astype(object)
    role[[1, 10]] = "positive"
    return pd.concat(
        pd.DataFrame(
            {
                "plate": f"P{number}",
                "well": [well_name(r, c) for r, c in zip(row, column, strict=True)],
                "perturbation": [f"gene{n}" for n in range(24)],
                "role": role,
                "score": rng.normal(size=24)
                + edge * border
                + side * (column >= 3)
                + plate * number
                + 20 * (role == "positive"),
            }
        )
        for number in range(3)
    )


@pytest.mark.parametrize("effect", ["edge", "side", "plate"])
def test_hits_reports_what_the_score_shows_besides_the_phenotype(effect, capsys):
    effects = {"edge": 0.0, "side": 0.0, "plate": 0.0} | {effect: 8.0}
    tables = analyse(table(**effects), None, source="table", hits=section("hits", json.dumps({})))
    quality = tables.plates.iloc[0]
    assert quality["auc_phenotype"] == 1
    assert (tables.plates["auc_plate"] == quality["auc_plate"]).all()
    found = {name for name in effects if quality[f"auc_{name}"] > quality[f"auc_{name}_chance"]}
    assert found == {effect}
    assert f"{quality[f'auc_{effect}']:.2f} (by chance" in capsys.readouterr().err
