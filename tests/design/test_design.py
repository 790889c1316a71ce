"""`wscnn design`: maps without the faults that `check` warns of, and a power that simulated screens confirm."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cards import card_of
from click.testing import CliRunner

from wscnn.cli import main
from wscnn.core.config import section
from wscnn.core.tables import write_table
from wscnn.core.wells import parse_well
from wscnn.design.maps import Design, make_layout
from wscnn.design.plan import of_pilot
from wscnn.design.power import Assumptions, choose_design, predicted_power
from wscnn.network.card import card_text
from wscnn.statistics.attainable import layout_cautions

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from design_power import CONTROLS, assumed, library, simulated

ASSUMED = Assumptions(prevalence=0.02, acting=0.1, cells_per_field=100, recall=0.8, background=0.004, well_sd=0.002)


def with_positions(layout: pd.DataFrame) -> pd.DataFrame:
    place = np.array([parse_well(well) for well in layout["well"]])
    return layout.assign(well_row=place[:, 0], well_column=place[:, 1])


@pytest.mark.parametrize("design", [Design(96, 3, 16, 8, 4), Design(384, 4, 32, 16, 1), Design(96, 2, 8, 4, 4)])
def test_maps_spread_controls_and_move_replicates(design: Design) -> None:
    n = 150
    layout = with_positions(make_layout(library(n), design, CONTROLS, seed=3))
    assert not layout.duplicated(["plate", "well"]).any()
    samples = layout[layout["role"] == "sample"]
    assert (samples["perturbation"].value_counts() == design.replicates).all()
    assert samples["perturbation"].nunique() == n
    # No position is repeated, and no plate holds a perturbation twice.
    assert not samples.duplicated(["perturbation", "well"]).any()
    assert not samples.duplicated(["perturbation", "plate"]).any()
    assert (samples["vendor"] == "V1").all()
    for _, plate in layout.groupby("plate"):
        for role, count in (("negative", design.negatives), ("positive", design.positives)):
            own = plate[plate["role"] == role]
            assert len(own) == count
            for axis in ("well_row", "well_column"):
                assert own[axis].value_counts().max() <= np.ceil(count / (8 if axis == "well_row" else 12)) + 1
    codes = {caution.code for caution in layout_cautions(layout, section("hits", "{}"))}
    assert not codes & {"confounded", "shared_positions", "edge_controls", "few_replicates"}


def test_predicted_power_is_that_of_the_whole_statistics() -> None:
    design = Design(96, 3, 16, 8, 4)
    weak = assumed(prevalence=0.022)
    predicted = predicted_power(weak, design, 72, fdr=0.05, seed=1)
    assert 0.2 < predicted < 0.9
    assert simulated(weak, design, 72, screens=12) == pytest.approx(predicted, abs=0.15)


def test_the_design_with_the_fewest_plates_is_taken() -> None:
    design, tried = choose_design(ASSUMED, 72, power=0.7, fdr=0.05, wells=96)
    assert predicted_power(ASSUMED, design, 72, fdr=0.05) >= 0.7
    # All designs that were looked at with fewer plates fall short.
    plates = design.sets(72) * design.replicates
    assert (tried.loc[tried["plates"] < plates, "power"] < 0.7).all()


def test_the_command_writes_a_layout_once(tmp_path: Path) -> None:
    library(40).to_csv(tmp_path / "genes.tsv", sep="\t", index=False)
    command = ["design", str(tmp_path / "genes.tsv"), str(tmp_path / "out"), "--prevalence", "0.05", "--acting", "0.1"]
    numbers = ["--cells-per-field", "100", "--recall", "0.8", "--background", "0.004", "--well-sd", "0.002"]
    command += ["--wells", "96", "--power", "0.5", "--negative", "DMSO", "--positive", "taxol"]
    runner = CliRunner()
    assert runner.invoke(main, command).exit_code == 2
    done = runner.invoke(main, [*command, *numbers])
    assert done.exit_code == 0, done.output
    layout = pd.read_csv(tmp_path / "out" / "layout.tsv", sep="\t", keep_default_na=False)
    assert list(layout.columns) == ["plate", "well", "perturbation", "role", "phenotype", "vendor"]
    assert set(layout.loc[layout["role"] == "positive", "phenotype"]) == {"rare"}
    content = (tmp_path / "out" / "layout.tsv").read_bytes()
    again = runner.invoke(main, [*command, *numbers])
    assert again.exit_code == 1 and "is there already" in again.output
    for name in ("layout.tsv", "designs.tsv"):
        (tmp_path / "out" / name).unlink()
    assert runner.invoke(main, [*command, *numbers]).exit_code == 0
    assert (tmp_path / "out" / "layout.tsv").read_bytes() == content


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("perturbation\na\na\n", "a: listed twice"),
        ("perturbation\nnegative\nb\n", "negative is a control"),
        ("perturbation\trole\na\tx\n", "column role is what the layout will have"),
        ("gene\na\n", "no column perturbation"),
        ("perturbation\n", "lists no perturbation"),
        ("perturbation\tx\n\t1\nb\t2\n", "1 rows have no perturbation"),
    ],
)
def test_what_is_no_list_of_perturbations_is_named(tmp_path: Path, rows: str, words: str) -> None:
    (tmp_path / "genes.tsv").write_text(rows)
    numbers = ["--prevalence", "0.05", "--cells-per-field", "100", "--recall", "0.8", "--background", "0.004"]
    command = ["design", str(tmp_path / "genes.tsv"), str(tmp_path / "out"), *numbers, "--well-sd", "0.002"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1 and words in done.output
    assert not (tmp_path / "out").exists()


def test_a_power_that_nothing_reaches_names_the_best_design(tmp_path: Path) -> None:
    library(40).to_csv(tmp_path / "genes.tsv", sep="\t", index=False)
    numbers = ["--prevalence", "0.0001", "--cells-per-field", "10", "--recall", "0.8", "--background", "0.01"]
    command = ["design", str(tmp_path / "genes.tsv"), str(tmp_path / "out"), *numbers, "--well-sd", "0.01"]
    done = CliRunner().invoke(main, [*command, "--wells", "96", "--replicates", "2", "--negatives", "16"])
    assert done.exit_code == 1 and "no design reaches a power of 0.8; the best of 1 finds" in done.output
    done = CliRunner().invoke(main, [*command, "--wells", "24", "--negatives", "20"])
    assert done.exit_code == 1 and "leaves half of them to samples" in done.output


def test_a_pilot_gives_back_what_it_was_drawn_from(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n_cells = rng.poisson(400, size=400)
    share = np.clip(0.01 + 0.004 * rng.normal(size=400), 0, 1)
    wells = pd.DataFrame(
        {"phenotype": "rare", "role": "negative", "used": True, "n_cells": n_cells, "n_fields_used": 4}
    )
    (tmp_path / "model").mkdir()
    write_table(wells.assign(n_objects=rng.binomial(n_cells, share)), tmp_path / "wells.parquet")
    done = CliRunner().invoke(
        main, ["design", "x.tsv", str(tmp_path / "out"), "--prevalence", "0.1", "--pilot", str(tmp_path)]
    )
    assert done.exit_code == 1 and "no card states which share of rare cells is detected" in done.output
    card = card_of(screen="pilot", recall={"rare": 0.7})
    path = tmp_path / "model" / "fold-0.json"
    path.write_text(card_text(card, path))
    found = of_pilot(tmp_path, 0.1, 0.05)
    assert found.recall == pytest.approx(0.7)
    assert found.cells_per_field == pytest.approx(100, rel=0.05)
    assert found.background == pytest.approx(0.01, rel=0.1)
    assert found.well_sd == pytest.approx(0.004, rel=0.25)
