"""Hits that no control was made for: tests of their own, and what explains them."""

import json

import numpy as np
import pandas as pd
import pytest

from wscnn.core.config import section
from wscnn.core.wells import well_name
from wscnn.statistics.hits import Tables, analyse


def wells(phenotype: str, active: int = 2, seed: int = 0, **columns: np.ndarray) -> pd.DataFrame:
    """Return two 96-well plates of 24 negative controls and 18 perturbations, of which the first ones act."""
    random = np.random.default_rng(seed)
    row, column = (index.ravel() for index in np.indices((8, 12)))
    number = np.random.default_rng(1).permutation(np.repeat(np.arange(-6, 18), 4))
    names = np.where(number < 0, "DMSO", np.char.add("gene", number.astype(str)))
    plate = pd.DataFrame(
        {
            "well": [well_name(r, c) for r, c in zip(row, column, strict=True)],
            "perturbation": names,
            "role": np.where(number < 0, "negative", "sample"),
            "number": number,
        }
    )
    table = pd.concat([plate.assign(plate=name) for name in ("P1", "P2")], ignore_index=True)
    acts = (table["number"] >= 0) & (table["number"] < active)
    table["score"] = random.normal(size=len(table)) + 6 * acts
    table["phenotype"] = phenotype
    return table


def call(*tables: pd.DataFrame) -> Tables:
    table = pd.concat(tables, ignore_index=True).drop(columns="number")
    return analyse(table, None, source="table", hits=section("hits", json.dumps({"normalize": "robust_z"})))


def test_novelty_beside_a_trained_phenotype_leaves_its_q_as_it_was() -> None:
    trained = wells("rare", seed=1)
    alone = call(trained).hits.set_index("perturbation")
    both = call(trained, wells("novelty", active=0, seed=2)).hits.set_index("perturbation")
    beside = both[both["phenotype"] == "rare"]
    for column in ("p", "q", "hit", "smallest_p", "null_kind"):
        pd.testing.assert_series_equal(beside[column].sort_index(), alone[column].sort_index())
    assert beside["hit"].any() and not both.loc[both["phenotype"] == "novelty", "hit"].any()


def test_a_screen_in_which_most_perturbations_differ_is_named_instead_of_called() -> None:
    tables = call(wells("novelty", active=15))
    assert not tables.hits["hit"].any() and tables.hits["q"].isna().all()
    assert (tables.hits["reason"] == "most perturbations differ from the negative controls").all()
    assert tables.hits["p"].notna().all()
    assert tables.hits["caution"].str.contains("most perturbations differ").all()
    [message] = tables.warnings.loc[tables.warnings["code"] == "most_new", "message"]
    assert "controls may differ from samples" in message
    # Trained phenotypes have positive controls that say what acts.
    assert call(wells("rare", active=15)).hits["hit"].sum() >= 15


@pytest.mark.parametrize(
    ("column", "factor", "words"),
    [
        ("n_cells", 0.4, "fewer cells"),
        ("n_cells", 2.0, "more cells"),
        ("cell_intensity", 0.6, "dimmer cells"),
        ("cell_intensity", 1.8, "brighter cells"),
    ],
)
def test_what_simple_measures_explain_is_named(column: str, factor: float, words: str) -> None:
    table = wells("novelty")
    random = np.random.default_rng(3)
    first = (table["number"] == 0).to_numpy()
    # The second plate is stained and seeded otherwise, which explains nothing.
    level = np.where(table["plate"] == "P2", 3.0, 1.0) * random.lognormal(0, 0.1, len(table))
    table = table.assign(n_cells=np.rint(100 * level), cell_intensity=level, n_fields_used=4)
    table.loc[first, column] = (table.loc[first, column] * factor).astype(table[column].dtype)
    table["n_cells"] = table["n_cells"].round()
    explained = call(table).hits.set_index("perturbation")["explained_by"]
    assert explained["gene0"].startswith(f"{words} (AUC ")
    assert (explained.drop("gene0") == "").all()


def test_nothing_is_explained_of_trained_phenotypes() -> None:
    table = wells("rare").assign(n_cells=100, n_fields_used=4)
    table.loc[table["number"] == 0, "n_cells"] = 10
    assert (call(table).hits["explained_by"] == "").all()
