"""Replicates at one position over plates: their p among control positions, and what the layout says of it."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_ind

from wscnn.core.config import section
from wscnn.core.wells import parse_well, well_name
from wscnn.statistics.attainable import layout_cautions
from wscnn.statistics.hits import analyse
from wscnn.statistics.shared_positions import control_position_p, position_p


def controls(means: np.ndarray, plates: int = 2) -> pd.DataFrame:
    """Return the table of controls whose positions have these means over the plates."""
    z = np.concatenate([means - 1, means + 1]) if plates == 2 else means
    position = np.tile(np.arange(len(means)), plates)
    return pd.DataFrame({"plate": np.repeat(range(plates), len(means)), "position": position, "z": z})


def sample(mean: float) -> pd.DataFrame:
    return pd.DataFrame({"perturbation": 0, "plate": [0, 1], "position": 99, "z": [mean - 0.5, mean + 0.5]})


def test_within_the_control_positions_p_is_by_rank_whatever_their_distribution() -> None:
    means = np.exp(np.random.default_rng(0).normal(size=30))
    top = np.sort(means)
    # Five of 30 lie above: (5 + 1) / 31, as for any exchangeable values.
    p, n = position_p(sample((top[-6] + top[-5]) / 2), controls(means), 1)
    assert p[0] == pytest.approx(6 / 31)
    assert n[0] == 30


def test_above_all_control_positions_p_is_students_for_one_new_value() -> None:
    means = np.random.default_rng(1).normal(size=19)
    p, _ = position_p(sample(6.0), controls(means), 1)
    assert p[0] == pytest.approx(ttest_ind([6.0], means, alternative="greater").pvalue)
    # Just above the highest, Student's p may exceed the rank's, which is then right already.
    p, _ = position_p(sample(means.max() + 1e-9), controls(means), 1)
    assert p[0] <= 1 / 20


def test_a_control_position_is_compared_as_a_sample_there_would_be() -> None:
    means = np.random.default_rng(2).normal(size=12)
    table = controls(means)
    p = control_position_p(table)
    for position in range(12):
        own = table["position"] == position
        expected, _ = position_p(table[own].assign(perturbation=0), table[~own], 1)
        assert p[position] == pytest.approx(expected[0])


def plates(columns: bool) -> pd.DataFrame:
    """Return three plates: scores that rise over the rows; each column one dose where `columns`, else each well."""
    rng = np.random.default_rng(0)
    wells = [well_name(row, column) for row in range(8) for column in range(12)]
    place = np.array([parse_well(well) for well in wells])
    role = np.where(place[:, 1] == 0, np.where(place[:, 0] < 4, "negative", "positive"), "sample")
    role[place[:, 1] == 11] = np.where(place[place[:, 1] == 11, 0] < 4, "positive", "negative")
    names = [f"dose {column}" if columns else f"gene {well}" for well, (_, column) in zip(wells, place, strict=True)]
    perturbation = np.where(role == "sample", names, role)
    return pd.concat(
        pd.DataFrame({"plate": f"P{k}", "well": wells, "role": role, "perturbation": perturbation}).assign(
            score=rng.normal(size=96) + place[:, 0] + 9 * (role == "positive")
        )
        for k in range(3)
    )


def test_what_auto_took_is_in_the_table_of_plates_and_uncorrected_columns_are_a_caution() -> None:
    settings = section("hits", json.dumps({}))
    of_doses = analyse(plates(columns=True), None, source="table", hits=settings)
    assert set(of_doses.plates["normalize"]) <= {"surface", "bscore"}
    assert of_doses.plates["normalize_reason"].str.contains("of the variance").all()
    samples = of_doses.hits[of_doses.hits["role"] == "sample"]
    assert samples["caution"].str.contains("position not corrected").all()
    of_genes = analyse(plates(columns=False), None, source="table", hits=settings)
    assert not of_genes.hits["caution"].str.contains("position not corrected").any()
    given = analyse(plates(columns=True), None, source="table", hits=section("hits", '{"normalize": "robust_z"}'))
    assert set(given.plates["normalize_reason"]) == {"as set"}
    assert not given.hits["caution"].str.contains("position not corrected").any()


def test_hits_alone_say_that_class_and_column_are_confounded() -> None:
    table = plates(columns=False)
    column = table["well"].str[1:].astype(int)
    table["role"] = np.where(column == 1, "negative", np.where(column == 12, "positive", "sample"))
    layout = table.assign(phenotype="", well_row=table["well"].str[0].map(ord) - ord("A"), well_column=column - 1)
    settings = section("hits", "{}")
    assert "confounded" in [caution.code for caution in layout_cautions(layout, settings)]
    hits = analyse(table, None, source="table", hits=settings).hits
    assert hits["caution"].str.contains("class and column confounded").all()
