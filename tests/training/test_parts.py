"""Which control wells a fold trains on and which it holds out: wells, whole plates or whole batches."""

import numpy as np
import pandas as pd
import pytest
from cards import card_of

from wscnn.core.errors import UserError
from wscnn.core.screen_tables import controls as control_wells
from wscnn.network.card import Card, folds_of
from wscnn.training.parts import assign_parts, class_of


def controls(n_plates: int, phenotypes: tuple[str, ...] = ("rare",)) -> pd.DataFrame:
    """Return plates of batches of two, more wells on the later plates."""
    return pd.DataFrame(
        {
            "plate": f"P{plate:02d}",
            "well": f"{'ABC'[row]}{column + 1:02d}",
            "role": "positive" if phenotype else "negative",
            "phenotype": phenotype,
            "batch": f"b{plate // 2}",
        }
        for plate in range(n_plates)
        for row, phenotype in enumerate(("", *phenotypes))
        for column in range(2 + plate)
    )


@pytest.mark.parametrize("hold_out", ["plate", "batch"])
def test_plates_and_batches_are_held_out_whole(hold_out: str) -> None:
    table = controls(7, ("lobed", "multinucleate"))
    parts = assign_parts(table, 0, hold_out)
    assert table.assign(part=parts).groupby(hold_out)["part"].nunique().eq(1).all()
    wells = pd.crosstab(parts, class_of(table))
    assert wells.shape == (3, 3)
    assert (wells > 0).all(axis=None)
    shuffled = table.sample(frac=1, random_state=1)
    assert assign_parts(shuffled, 0, hold_out).sort_index().equals(parts)
    assert len({tuple(assign_parts(table, seed, hold_out)) for seed in range(20)}) > 1


def test_plates_are_divided_evenly_by_their_wells() -> None:
    """A single random division of these plates can give a part a tenth of the wells; the most even one does not."""
    table = controls(9)
    for seed in range(10):
        wells = np.bincount(assign_parts(table, seed, "plate"))
        assert wells.min() >= 0.3 * wells.sum()


def test_fewer_than_three_groups_with_both_controls_are_refused() -> None:
    table = controls(3)
    with pytest.raises(UserError, match=r"train\.hold_out: batch needs at least 3 batches .* of 'rare'.* there are 2"):
        assign_parts(table, 0, "batch")
    table = table[~(table["plate"].eq("P02") & table["role"].eq("negative"))]
    with pytest.raises(UserError, match=r"train\.hold_out: plate needs at least 3 plates .* there are 2"):
        assign_parts(table, 0, "plate")
    with pytest.raises(UserError, match=r"train\.hold_out: batch, but .* no batch for plate P01"):
        assign_parts(controls(6).replace({"batch": {"b0": ""}}).query("plate != 'P00'"), 0, "batch")


def test_training_depends_on_batches_only_where_these_are_held_out() -> None:
    layout = controls(2).assign(well_row=0, well_column=0)
    assert "batch" in control_wells(layout, "batch")
    assert control_wells(layout, "plate").equals(control_wells(layout.assign(batch="other"), "plate"))


def test_each_part_needs_every_phenotype() -> None:
    table = controls(6, ("lobed", "multinucleate"))
    # One phenotype on the first three plates, the other one on the last three: any part lacks one if it takes two.
    first = table["plate"] < "P03"
    table = table[table["role"].eq("negative") | (table["phenotype"].eq("lobed") == first)]
    parts = assign_parts(table, 0, "plate")
    assert (pd.crosstab(parts, class_of(table)) > 0).all(axis=None)


def card(fold: int, hold_out: str) -> Card:
    names = [f"P{(fold + part) % 3}" for part in range(3)]
    parts = {part: [f"{name}/A01"] for part, name in zip(("train", "select", "test"), names, strict=True)}
    return card_of(fold=fold, parts=parts, settings={"train": {"hold_out": hold_out}})


def test_all_wells_of_a_held_out_plate_are_scored_by_the_fold_that_has_not_seen_it() -> None:
    whole, single = ([card(fold, hold_out) for fold in range(3)] for hold_out in ("plate", "well"))
    for name, fold in (("P2", 0), ("P0", 1), ("P1", 2)):
        assert folds_of(f"{name}/A01", whole) == folds_of(f"{name}/A01", single) == [fold]
        assert folds_of(f"{name}/B07", whole) == [fold]
        assert folds_of(f"{name}/B07", single) == [0, 1, 2]
    assert folds_of("new/A01", whole) == [0, 1, 2]
    # The weights of the fold that held the plate out are missing.
    assert folds_of("P2/B07", whole[1:]) == []
