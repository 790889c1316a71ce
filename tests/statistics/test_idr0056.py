"""Real well values: the lncRNA screen idr0056 (Stojic et al. 2020, CC BY 4.0), its indices used as scores."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from wscnn.core.config import section
from wscnn.statistics.hits import analyse

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "idr0056"
INDICES = {"mitotic": "Mitotic Index", "multinucleate": "Multinucleation Index"}

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"the real screen is not here: {FOLDER} is missing")


@pytest.fixture(scope="module")
def screen_a():
    """Return screen A: ten 384-well plates, each lncRNA once; untreated cells negative, CH-TOG positive."""
    pytest.importorskip("openpyxl")
    raw = pd.read_excel(FOLDER / "screenA" / "idr0056-screenA-results.xlsx", na_values=["n.d."])
    raw = raw.rename(columns={"Plate ID screen A": "plate", "WellName": "well", "Gene": "perturbation"})
    roles = {"HeLa cells": "negative", "CH-TOG SMART pool siRNA": "positive"}
    roles |= dict.fromkeys(["Control siRNA (Ambion)", "1xsiRNA buffer+cells only"], "exclude")
    parts = [
        raw[["plate", "well", "perturbation"]].assign(
            role=raw["perturbation"].map(roles).fillna("sample"),
            phenotype=phenotype,
            score=raw[f"Raw Data_{index}"],
            published_z=raw[f"Z-score_{index}"],
        )
        for phenotype, index in INDICES.items()
    ]
    return pd.concat(parts).astype({"plate": "str"})


@pytest.fixture(scope="module")
def called(screen_a):
    # Three plates have fewer than six untreated wells; none has fewer than three.
    return analyse(
        screen_a, None, source="screen A", hits=section("hits", '{"min_controls": 3, "normalize": "robust_z"}')
    )


def test_controls_separate_on_every_plate(called):
    plates = called.plates[called.plates["phenotype"] == "mitotic"]
    assert len(plates) == 10
    assert (plates["auc"] == 1).all()
    assert plates["ssmd"].median() > 3


def test_published_z_is_a_straight_line_of_ours_within_every_plate(called):
    wells = called.wells.dropna(subset=["z", "published_z"])
    for _, plate in wells.groupby(["plate", "phenotype"]):
        slope, intercept = np.polyfit(plate["z"], plate["published_z"], 1)
        assert slope > 0
        np.testing.assert_allclose(slope * plate["z"] + intercept, plate["published_z"], atol=1e-6)


@pytest.mark.parametrize(("normalize", "rank"), [("robust_z", 25), ("bscore", 1)])
def test_the_mitotic_hit_that_screen_c_confirmed_ranks_high_of_2235(screen_a, normalize, rank):
    """LOC100289019: the highest mitotic index of all lncRNAs in the validation, 5.6 % against 2.7 % untreated."""
    keys = section("hits", f'{{"min_controls": 3, "normalize": "{normalize}"}}')
    hits = analyse(screen_a, None, source="screen A", hits=keys).hits
    samples = hits[(hits["role"] == "sample") & (hits["phenotype"] == "mitotic")].set_index("perturbation")
    effects = samples["effect"].rank(ascending=False)
    assert len(effects) == 2235
    assert effects["LOC100289019"] <= rank
    assert validation().set_index("Gene").filter(like="LOC", axis=0)["Mitotic Index_plate 1"].idxmax() == "LOC100289019"


def test_one_well_and_few_controls_call_nothing(called):
    """55 untreated wells on ten plates: no single well reaches 0.05 / 4470. Replicated GNG12-AS1 does, and acts."""
    samples = called.hits[called.hits["role"] == "sample"]
    assert set(samples.loc[samples["hit"], "perturbation"]) == {"GNG12-AS1 siRNA (exon1)"}
    assert samples.loc[samples["n_wells"] == 1, "smallest_p"].min() > 0.01


def test_positive_controls_are_stronger_than_every_sample(called):
    mitotic = called.hits[called.hits["phenotype"] == "mitotic"].set_index("role")["effect"]
    assert mitotic["positive"] > mitotic["sample"].quantile(0.999)


def test_controls_unlike_samples_are_told(screen_a, capfd):
    """Samples are transfected and untreated cells are not, and lie in a column without a sample."""
    keys = section("hits", '{"normalize": "bscore"}')
    analyse(screen_a, None, source="screen A", hits=keys)
    assert "controls differ from samples in something else" in capfd.readouterr().err


def validation():
    """Return screen C: each condition's mean on each of two plates."""
    pytest.importorskip("openpyxl")
    return pd.read_excel(FOLDER / "screenC" / "idr0056-screenC-results.xlsx")


def test_ect2_tops_multinucleation_in_screen_c():
    raw = validation()
    wells = pd.concat(
        pd.DataFrame(
            {
                "plate": f"plate{plate}",
                "well": [f"{chr(65 + i // 24)}{i % 24 + 1:02d}" for i in range(len(raw))],
                "perturbation": raw["Gene"],
                "role": "sample",
                "score": raw[f"Multinucleation Index_plate {plate}"],
            }
        )
        for plate in (1, 2)
    )
    wells.loc[wells["perturbation"].isin(["HeLa cells", "Control siRNA (Ambion)"]), "role"] = "negative"
    # The published table holds means of conditions, two of them negative, too few to scale by: ranked within plates.
    tables = analyse(
        wells, None, source="screen C", hits=section("hits", '{"normalize": "none", "compare_with": "plate"}')
    )
    hits = tables.hits.sort_values("effect", ascending=False)
    assert hits["perturbation"].tolist()[:2] == ["ECT2 SMART pool siRNA", "CH-TOG SMART pool siRNA"]
    assert 39 < hits["effect"].iloc[0] < 42.2
    assert hits["p"].iloc[0] == pytest.approx(1 / 9)  # above both controls on both plates: one of 3 x 3 assignments
