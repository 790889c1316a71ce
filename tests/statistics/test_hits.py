"""Hit calling: calibration on screens without hits, power, every column, bad input, and the files that come out."""

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from cards import card_of
from click.testing import CliRunner
from scipy.stats import kstest

from wscnn.cli import main
from wscnn.core.config import section
from wscnn.core.errors import UserError
from wscnn.core.tables import HITS, PLATES, SCREEN_WELLS, SUSPECTS, WARNINGS, read_notes, read_table, write_table
from wscnn.core.wells import well_name
from wscnn.network.card import card_text
from wscnn.staging.scale import Scale, write_scale
from wscnn.statistics.attainable import layout_cautions, reachable, smallest_p
from wscnn.statistics.cautions import of_models, tabulate
from wscnn.statistics.hits import analyse, call_hits
from wscnn.statistics.well_tables import join_layout

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from power_hits import NULLS, compare, independent, made_up_screen, null_p

FILES = ("hits.parquet", "wells.parquet", "plates.parquet", "suspects.parquet", "doses.parquet", "warnings.parquet")


def settings(**keys):
    """Return the config's section with its defaults."""
    return section("hits", json.dumps(keys))


def screen(n_plates=3, n_negative=16, effect=0.0, seed=1):
    """Return 96-well plates with the same perturbations; those named ``hit-...`` act."""
    rng = np.random.default_rng(seed)
    row, column = (index.ravel() for index in np.indices((8, 12)))
    wells = [well_name(r, c) for r, c in zip(row, column, strict=True)]
    order = np.random.default_rng(1).permutation(96)
    role = np.full(96, "sample", dtype=object)
    role[order[:n_negative]], role[order[n_negative : n_negative + 4]] = "negative", "positive"
    acts = (role == "sample") & (np.arange(96) % 13 == 0)  # on a diagonal: no row or column effect
    names = np.array([f"{'hit' if act else 'gene'}-{well}" for well, act in zip(wells, acts, strict=True)])
    names = np.where(role == "sample", names, role.astype(str))
    plates = [
        pd.DataFrame(
            {
                "plate": f"P{plate}",
                "well": wells,
                "well_row": row,
                "well_column": column,
                "perturbation": names,
                "role": role,
                "score": plate + (1 + plate / 4) * (rng.normal(size=96) + effect * acts + 8 * (role == "positive")),
            }
        )
        for plate in range(n_plates)
    ]
    return pd.concat(plates, ignore_index=True)


def call(table, **keys):
    return analyse(table, None, source="table", hits=settings(**keys))


#: Perturbations that act.
ACTING = {name for name in screen()["perturbation"] if name.startswith("hit-")}
N_ACTING = len(ACTING)


@pytest.fixture(scope="module")
def called():
    return call(screen(effect=8.0))


# ------------------------------------------------------------------------------------------------ calibration, power

CORRECTED = [name for name in NULLS if "uncorrected" not in name]


@pytest.fixture(scope="module")
def null_screens():
    """Return for each kind of screen without hits the p-values, screens by perturbations, and which screens call."""
    return {name: null_p(*NULLS[name], screens=24) for name in CORRECTED}


@pytest.mark.parametrize("name", CORRECTED)
def test_p_values_of_screens_without_hits_are_no_smaller_than_uniform(null_screens, name):
    p, _ = null_screens[name]
    assert kstest(independent(p), "uniform", alternative="greater").pvalue > 0.01
    for level in (0.5, 0.1, 0.05, 0.01):
        a_screen = (p <= level).mean(axis=1)
        assert a_screen.mean() <= level + 3 * a_screen.std() / np.sqrt(len(a_screen))


def test_screens_without_hits_rarely_call_one(null_screens):
    """In 120 screens every call is false, so the false discovery rate is the share of screens with a call."""
    any_called = np.concatenate([calls for _, calls in null_screens.values()])
    assert len(any_called) == 120
    assert any_called.mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 120)


def test_strong_hits_are_found_where_other_ways_call_more_false_ones():
    runs = [compare(made_up_screen(3, 16, 4.0, 0.1, seed)) for seed in range(6)]
    found = {way: np.mean([run[way] for run in runs], axis=0) for way in runs[0]}
    assert found["wscnn"][0] > 0.9
    assert found["wscnn"][1] < 0.1
    assert found["wscnn"][1] <= found["Student's t"][1]


def test_position_effects_that_robust_z_takes_for_hits_are_told_and_bscore_takes_them_off(capfd):
    table = made_up_screen(3, 16, 0.0, 0.0, 5, edge=3.0)
    uncorrected = call(table, normalize="robust_z").hits
    assert "normalize: surface or bscore removes effects of position" in capfd.readouterr().err
    assert call(table).hits["hit"].sum() == 0
    assert "normalize: auto takes surface" in capfd.readouterr().err
    assert (uncorrected["p"] <= 0.05).mean() > 0.15
    # Replicates share positions here: where the p of wells fails, that of positions does not.
    assert uncorrected["hit"].sum() == call(table, normalize="bscore").hits["hit"].sum() == 0


def test_replicates_that_share_a_position_count_as_one():
    """Without noise of their own, positions of inactive wells differ as those of controls do (Student, 1908)."""
    rng = np.random.default_rng(3)
    table = screen(n_plates=5)
    table["score"] = table["well"].map(dict(zip(table["well"].iloc[:96], rng.normal(size=96), strict=True)))
    table["score"] += 0.2 * rng.normal(size=len(table)) + 8 * table["role"].eq("positive")
    hits = call(table).hits.query("role == 'sample'")
    assert (hits["p"] <= 0.01).mean() > 0.1
    assert (hits["p_position"] <= 0.05).mean() < 0.11
    assert not hits["hit"].any()
    assert hits["n_controls"].eq(16).all()
    assert hits["reason"].str.contains("uses p_position, the larger: its replicates share a position").any()


def test_calls_do_not_depend_on_the_seed():
    keys = {"compare_with": "pooled"}
    table = screen(n_plates=2, n_negative=8, effect=3.0)
    table["perturbation"] = np.where(
        table["role"] == "sample", table.groupby("plate").cumcount() // 2 % 30, table["role"]
    ).astype(str)
    one, two = (call(table, seed=seed, **keys).hits for seed in (0, 1))
    np.testing.assert_array_equal(one["p"], two["p"])


# --------------------------------------------------------------------------------------------------- the tables


def test_exactly_the_acting_perturbations_are_called(called):
    hits = called.hits
    assert set(hits.loc[hits["hit"], "perturbation"]) == ACTING
    assert hits["rank"].iloc[: hits["hit"].sum()].tolist() == list(range(1, hits["hit"].sum() + 1))


def test_columns_have_their_types_and_ranges(called):
    hits = called.hits
    assert hits.dtypes.astype(str).to_dict() == HITS
    samples = hits[hits["role"] == "sample"]
    assert samples["p"].between(0, 1).all()
    assert (samples["p"] >= samples["smallest_p"] * (1 - 1e-12)).all()
    assert (samples["q"] >= samples["p"]).all()
    assert (hits["effect_low"] <= hits["effect"]).all()
    assert (hits["effect"] <= hits["effect_high"]).all()
    assert (hits["n_agree"] <= hits["n_wells"]).all()
    assert called.suspects.columns.tolist() == list(SUSPECTS)


def test_positive_controls_are_told_but_are_no_tests(called):
    positive = called.hits[called.hits["role"] == "positive"].iloc[0]
    assert positive["n_wells"] == 12
    assert positive["p"] < 1e-6
    assert np.isnan(positive["q"])
    assert not positive["hit"]
    assert pd.isna(positive["rank"])


def test_effect_and_its_spread_by_hand():
    # Negative controls of both plates: median 3, MAD 1. The perturbation lies 3 and 5 above.
    scores = [1, 2, 3, 4, 10]
    one = pd.DataFrame(
        {
            "plate": "A",
            "well": [f"A0{i}" for i in range(1, 8)],
            "perturbation": ["n"] * 5 + ["x", "y"],
            "role": ["negative"] * 5 + ["sample"] * 2,
            "score": [*scores, 6.0, 3.0],
            "n_fields_used": 4,
            "n_objects": [0] * 5 + [8, 0],
            "n_cells": [400] * 5 + [100, 400],
            "score_sd": 0.5,
        }
    )
    two = one.assign(plate="B", score=[*scores, 8.0, 3.0])
    hits = call(pd.concat([one, two]), compare_with="plate", normalize="robust_z").hits.set_index("perturbation")
    z = np.array([3, 5]) / 1.4826022
    assert hits.loc["x", "effect"] == pytest.approx(z.mean())
    assert hits.loc["x", "effect_sd"] == pytest.approx(z.std(ddof=1))
    assert hits.loc["x", ["effect_low", "effect_high"]].tolist() == pytest.approx(z.tolist())
    # One of five controls beats each well: U = 2. Of 6 x 6 assignments those with ranks summing to at most 2: 6.
    assert hits.loc["x", "p"] == pytest.approx(6 / 36)
    assert hits.loc["x", "n_objects_per_field"] == pytest.approx(2)
    assert hits.loc["x", "rare_fraction"] == pytest.approx(16 / 200)
    assert hits.loc["x", "cell_percent"] == pytest.approx(25)
    assert hits.loc["x", "cell_loss"]
    assert not hits.loc["y", "cell_loss"]
    assert hits.loc["x", "model_sd"] == pytest.approx(0.5)


def test_every_phenotype_has_its_rows_and_the_rate_is_controlled_over_all():
    table = screen(effect=8.0)
    # The second phenotype acts nowhere but in its own positive controls.
    other = screen(effect=0.0, seed=3)
    both = pd.concat([table.assign(phenotype="mitotic"), other.assign(phenotype="large")])
    positive = both["role"] == "positive"
    both["control_phenotype"] = np.where(positive, both["phenotype"], "")
    hits = call(both).hits
    assert hits.groupby("phenotype")["hit"].sum().to_dict() == {"large": 0, "mitotic": N_ACTING}
    alone = call(table.assign(phenotype="mitotic")).hits
    merged = hits[hits["phenotype"] == "mitotic"].merge(alone, on="perturbation").set_index("perturbation")
    # Twice as many tests, and none of the second phenotype ranks above the first's strongest.
    best = merged["q_y"].idxmin()
    assert merged.loc[best, "q_x"] == pytest.approx(2 * merged.loc[best, "q_y"])


def test_wells_carry_the_layouts_columns_and_hits_those_that_hold_for_a_perturbation(tmp_path):
    table = screen(effect=8.0)
    layout = table.drop(columns="score").assign(phenotype="", batch="b1", gene=table["perturbation"].str.upper())
    layout["dose"] = np.arange(len(layout))
    layout.loc[layout["role"] == "positive", "phenotype"] = "rare"
    layout.to_parquet(tmp_path / "layout.parquet")
    table[["plate", "well", "well_row", "well_column", "score"]].assign(phenotype="rare").to_parquet(
        tmp_path / "w.parquet"
    )
    call_hits([tmp_path / "w.parquet"], tmp_path / "layout.parquet", tmp_path / "out", hits=settings())
    wells, hits = (pd.read_parquet(tmp_path / "out" / f"{name}.parquet") for name in ("wells", "hits"))
    assert {"gene", "dose", "batch", "control_phenotype", "phenotype", "z", "p"} <= set(wells.columns)
    assert (wells["phenotype"] == "rare").all()
    assert (hits["gene"] == hits["perturbation"].str.upper()).all()
    assert "dose" not in hits


def test_a_plain_text_table_of_own_features_is_enough(tmp_path):
    screen(effect=8.0).drop(columns=["well_row", "well_column"]).to_csv(tmp_path / "mine.csv", index=False)
    call_hits([tmp_path / "mine.csv"], None, tmp_path / "out", hits=settings())
    assert pd.read_parquet(tmp_path / "out" / "hits.parquet")["hit"].sum() == N_ACTING


def test_plates_whose_cells_have_another_size_are_warned_of(tmp_path):
    screen().to_csv(tmp_path / "mine.csv", index=False)
    plate = screen()["plate"].iloc[0]
    write_scale(Scale(2, "cells", 40.0, {plate: 60.0, "other": 45.0, "empty": None}), tmp_path / "scale.json")
    call_hits([tmp_path / "mine.csv"], None, tmp_path / "out", hits=settings(), scale=tmp_path / "scale.json")
    warnings = read_table(tmp_path / "out" / "warnings.parquet").query("code == 'other_scale'")
    assert warnings[["stage", "plate"]].to_numpy().tolist() == [["scale", plate]]


def test_same_input_gives_same_bytes_in_any_order_of_files(tmp_path):
    table = screen(n_plates=4, effect=8.0)
    paths = []
    for plate, rows in table.groupby("plate"):
        paths.append(tmp_path / f"{plate}.parquet")
        rows.to_parquet(paths[-1])
    for name, order in (("a", paths), ("b", paths[::-1])):
        call_hits(order, None, tmp_path / name, hits=settings())
    for file in FILES:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_pandas_polars_and_duckdb_read_the_same(tmp_path):
    screen(effect=8.0).to_parquet(tmp_path / "w.parquet")
    call_hits([tmp_path / "w.parquet"], None, tmp_path, hits=settings())
    for file in FILES:
        frame, polars = pd.read_parquet(tmp_path / file), pl.read_parquet(tmp_path / file)
        duck = duckdb.sql(f"select * from '{tmp_path / file}'").pl()
        assert polars.columns == frame.columns.tolist()
        assert duck.equals(polars)
        for column in frame:
            if pd.api.types.is_float_dtype(frame[column]):
                np.testing.assert_array_equal(polars[column].to_numpy(), frame[column].to_numpy())


def test_a_filter_reads_the_row_groups_it_needs(tmp_path):
    table = pd.concat([screen(n_plates=1, seed=i).assign(plate=f"P{i:04d}") for i in range(400)])
    table["perturbation"] = np.where(table["role"] == "sample", table["plate"] + table["well"], table["role"])
    table.to_parquet(tmp_path / "w.parquet")
    call_hits([tmp_path / "w.parquet"], None, tmp_path, hits=settings())
    file = pq.ParquetFile(tmp_path / "wells.parquet")
    column = file.schema_arrow.names.index("plate")
    groups = [file.metadata.row_group(i).column(column) for i in range(file.num_row_groups)]
    assert len(groups) > 2
    hold = [g for g in groups if g.statistics.min <= "P0005" <= g.statistics.max]
    assert len(hold) == 1
    # A perturbation is looked up in Bloom filters, which rule out the groups that lack it but for one in a hundred.
    names = table.loc[table["role"] == "sample", "perturbation"].iloc[::2000]
    probe = "select * from parquet_bloom_probe('{}', 'perturbation', '{}')"
    left = [
        duckdb.sql(probe.format(tmp_path / "wells.parquet", name)).pl()["bloom_filter_excludes"].not_().sum()
        for name in names
    ]
    assert min(left) == 1
    assert np.mean(left) < 1.3


# ---------------------------------------------------------------------------------------------------- bad input


def test_a_plate_without_negative_controls_is_named_and_left_out(capfd):
    table = screen(effect=8.0)
    table = table[~((table["plate"] == "P1") & (table["role"] == "negative"))]
    tables = call(table)
    plate = tables.plates.set_index("plate").loc["P1"]
    assert plate["status"] == "failed"
    assert "fewer than 4 negative controls" in plate["reasons"]
    assert "plate 'P1' is kept out" in capfd.readouterr().err
    assert tables.wells.loc[tables.wells["plate"] == "P1", "p"].isna().all()
    assert (tables.hits.loc[tables.hits["role"] == "sample", "n_plates"] == 2).all()


def test_controls_that_fail_keep_their_plate_out():
    table = screen(effect=8.0)
    broken = (table["plate"] == "P2") & (table["role"] == "positive")
    table.loc[broken, "score"] -= 100
    assert (call(table).plates["status"] == "ok").all()
    tables = call(table, min_auc=0.7)
    reasons = tables.plates.set_index("plate")["reasons"]
    assert reasons["P2"] == "AUC of positive controls against samples and negatives below 0.7"
    assert set(tables.suspects["plate"]) == {"P2"}


def test_one_replicate_has_no_spread_but_a_p_value():
    hits = call(screen(n_plates=1, effect=8.0)).hits
    samples = hits[hits["role"] == "sample"]
    assert samples[["effect_sd", "effect_low", "effect_high"]].isna().all(axis=None)
    assert samples["p"].min() == pytest.approx(1 / 17)
    assert not samples["hit"].any()


def test_equal_scores_call_nothing():
    tables = call(screen().assign(score=1.0))
    assert not tables.hits["hit"].any()
    assert tables.hits["p"].isna().all()
    assert tables.plates["reasons"].str.contains("all have the same score").all()


@pytest.mark.parametrize("normalize", ["robust_z", "bscore", "control_percent", "none"])
def test_missing_and_infinite_scores_count_as_missing(normalize, capfd):
    table = screen(effect=8.0)
    victims = table.index[(table["perturbation"] == "gene-A02") | (table["perturbation"] == "gene-A03")]
    table.loc[victims[:2], "score"] = [np.nan, np.inf]
    tables = call(table, normalize=normalize)
    assert "score is infinite, taken as missing" in capfd.readouterr().err
    assert tables.plates["n_missing"].sum() == 2
    wells = tables.hits.set_index("perturbation")["n_wells"]
    assert wells[["gene-A02", "gene-A03"]].sum() == 4
    assert tables.hits["hit"].sum() == N_ACTING


def test_a_perturbation_without_any_score_stays_in_the_table():
    table = screen()
    name = table.loc[table["role"] == "sample", "perturbation"].iloc[0]
    table.loc[table["perturbation"] == name, "score"] = np.nan
    row = call(table).hits.set_index("perturbation").loc[name]
    assert row["n_wells"] == 0
    assert np.isnan(row["p"])
    assert not row["hit"]


def test_a_perturbation_of_several_roles_counts_by_well(capfd):
    table = screen()
    table.loc[(table["plate"] == "P0") & (table["role"] == "negative"), "perturbation"] = "gene-A02"
    row = call(table).hits.set_index("perturbation").loc["gene-A02"]
    assert "'gene-A02' has several roles" in capfd.readouterr().err
    assert row["n_wells"] == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: pd.concat([t, t.iloc[[5]]]), "P0 A06: scored twice"),
        (lambda t: t.drop(columns="score"), "no column score"),
        (lambda t: t.assign(role=t["role"].replace("sample", "treated")), "role 'treated' does not exist"),
        (lambda t: t.assign(plate=t["plate"].where(t["well"] != "A01")), "3 rows have no plate"),
        (lambda t: t.assign(score="high"), "column score: 'high' is not a number"),
        (lambda t: t.assign(well="Z99"), "'Z99' is not a well"),
    ],
)
def test_what_cannot_be_mended_is_an_error_that_names_it(change, words):
    with pytest.raises(UserError, match=words):
        call(change(screen()))


def test_wells_outside_the_layout_are_named_and_left_out(capfd):
    table = screen()
    layout = table.drop(columns="score").assign(phenotype="")
    joined, _ = join_layout(
        table[["plate", "well", "well_row", "well_column", "score"]], layout[layout["well"] != "A01"]
    )
    assert "P0 A01, P1 A01, P2 A01: not in the layout" in capfd.readouterr().err
    assert (joined.loc[joined["well"] == "A01", "role"] == "exclude").all()


# ------------------------------------------------------------------------------------------- before the first image


def test_smallest_p_is_what_the_hits_reach():
    table = screen(n_plates=3, effect=30.0)
    expected = smallest_p(table.assign(phenotype=""), settings())
    hits = call(table).hits.query("role == 'sample'").set_index("perturbation")
    pd.testing.assert_series_equal(hits["smallest_p"].sort_index(), expected, check_names=False)
    assert hits["p"].min() == pytest.approx(expected.min())


def test_a_layout_that_can_reach_nothing_is_told():
    layout = screen(n_plates=1, n_negative=16).assign(phenotype="")
    (warning,) = reachable(layout, settings())
    assert warning.code == "unreachable_p"
    assert warning.message.startswith("no perturbation can be called at a false discovery rate of 0.05")
    assert "0.059" in warning.message
    assert reachable(screen(n_plates=3).assign(phenotype=""), settings()) == []


def test_plates_with_too_few_negative_controls_are_named_with_the_key_that_keeps_them_out():
    few = screen(n_plates=1, n_negative=3).assign(plate="few", phenotype="")
    warnings = [warning.message for warning in reachable(few, settings())]
    assert warnings[0].startswith("no perturbation can be called")
    assert warnings[1].startswith("fewer negative controls than hits.min_controls (4) on plate 'few' (3): ")
    both = pd.concat([screen(n_plates=3).assign(phenotype=""), few])
    assert any("on plate 'few' (3): " in warning.message for warning in reachable(both, settings()))
    # Where controls do not normalise, the key says nothing.
    assert not any("min_controls" in warning.message for warning in reachable(few, settings(normalize="bscore")))


def test_negative_controls_where_bscore_is_blind_are_told():
    table = screen(n_plates=3).assign(phenotype="")
    table.loc[(table["well_column"] == 0), "role"] = "negative"
    warnings = reachable(table, settings(normalize="bscore"))
    assert any("24 of" in w.message and "columns without a sample well" in w.message for w in warnings)


def edge_screen(**keys):
    """Return a screen whose controls all are in the two outermost columns of a side."""
    table = screen(**keys)
    at_edge = table["well_column"].isin([0, 1])
    role = np.where(at_edge, "negative", np.where(table["well_column"] >= 10, "positive", "sample"))
    names = np.where(role == "sample", "gene-" + table["well"], role)
    score = np.where(role == "positive", 8.0, 0.0) + np.random.default_rng(0).normal(size=len(table))
    return table.assign(role=role, perturbation=names, score=score + table["plate"].str[1:].astype(int))


def weak(fold=1, auc=0.5):
    return card_of(
        fold=fold,
        screen="made-up",
        parts={"train": ["P0/A01"], "select": ["P0/A02"], "test": ["P0/A03"]},
        metrics={"test": {"rare": {"well_auc": auc, "field_auc": auc}}},
    )


def test_warnings_of_the_layout_stand_beside_each_row_they_are_about():
    tables = analyse(edge_screen(), None, source="wells", hits=settings())
    edge = tables.warnings[tables.warnings["code"] == "edge_controls"]
    assert [message[:33] for message in edge["message"]] == [
        "all control wells of class negati",
        "all control wells of class positi",
    ]
    assert set(tables.hits["caution"]) == {
        "class and column confounded; edge controls",
        "shared position; class and column confounded; edge controls",
    }
    assert analyse(screen(), None, source="wells", hits=settings()).hits["caution"].unique().tolist() == [
        "shared position",
        "",
    ]


def test_a_class_of_positive_controls_at_the_edge_is_about_its_phenotype():
    layout = edge_screen().assign(phenotype=lambda table: np.where(table["role"] == "positive", "ring", ""))
    found = {caution.phenotype for caution in layout_cautions(layout, settings()) if caution.code == "edge_controls"}
    assert found == {"", "ring"}


def test_cautions_say_what_is_wrong_with_one_perturbation():
    table = screen(n_plates=2, n_negative=8)
    name = table.loc[table["role"] == "sample", "perturbation"].iloc[0]
    lonely = table["perturbation"].eq(name) & table["plate"].eq("P1")
    table.loc[lonely, "score"] = np.nan
    # The controls of the second plate do not separate.
    table.loc[table["plate"].eq("P1") & table["role"].eq("positive"), "score"] = -99
    failed = analyse(table, None, source="wells", hits=settings(min_auc=0.7))
    assert failed.hits["caution"].str.startswith("few replicates; p cannot reach the FDR; plates left out").sum() > 50
    assert failed.warnings.query("code == 'plate_failed'")["plate"].tolist() == ["P1"]
    one = analyse(table, None, source="wells", hits=settings(min_auc=None))
    caution = one.hits.set_index("perturbation")["caution"]
    assert caution[name] == "few replicates; p cannot reach the FDR"
    assert (caution.drop([name, "positive"]) == "shared position").all()


def test_doubts_about_plates_are_cautions_of_their_phenotype():
    table = screen()
    table.loc[table["role"] == "sample", "score"] += 20
    tables = analyse(table, None, source="wells", hits=settings())
    assert tables.warnings["code"].tolist() == ["shared_positions", "unlike_controls"]
    assert tables.warnings["stage"].tolist() == ["check", "hits"]
    assert tables.warnings["phenotype"].tolist() == ["", "rare"]
    assert set(tables.hits["caution"]) == {"samples unlike controls", "shared position; samples unlike controls"}


def test_folds_that_learned_nothing_are_named_whoever_trained_them():
    cards = [weak(0, 0.9), weak(1, 0.52), weak(2, 0.6)]
    tables = analyse(screen(), None, source="wells", hits=settings(), cards=cards)
    # Its replicates share their positions, which is said besides.
    warned = tables.warnings[tables.warnings["code"] != "shared_positions"]
    assert warned[["stage", "code", "phenotype"]].to_numpy().tolist() == [["train", "learned_nothing", "rare"]]
    assert warned["fold"].tolist() == [1]
    assert set(tables.hits["caution"]) == {"weak model", "shared position; weak model"}
    assert of_models([weak(1, np.nan)]) == []
    # A fold that its own training part shows to be at chance scores nothing, however well it does by luck.
    (caution,) = of_models([replace(weak(1, 0.9), learned={"rare": False})])
    assert "it scores no well" in caution.message and caution.fold == 1


@pytest.mark.parametrize(
    ("option", "content", "message"),
    [
        ("--models", None, "holds no card of a fold"),
        ("--models", "[1]", "not the card of a model"),
        ("--models", '{"fold": 1, "metrics": {"test": {"a": {}}}}', "not the card of a model"),
        ("--models", "{", "not the card of a model"),
        ("--warnings", "{", "not a readable Parquet file"),
        ("--warnings", None, "has no column stage; has no column plate; has no column fold"),
    ],
)
def test_warnings_that_cannot_be_read_are_named(tmp_path: Path, option: str, content: str | None, message: str):
    screen().to_csv(tmp_path / "scores.csv", index=False)
    file = tmp_path / "given" / "fold-1.json"
    file.parent.mkdir()
    if content is not None:
        file.write_text(content)
    elif option == "--warnings":
        write_table(pd.DataFrame({"code": ["x"], "phenotype": [""], "message": [""]}), file)
    given = str(file if option == "--warnings" else file.parent)
    options = ["--wells", str(tmp_path / "scores.csv"), "--output", str(tmp_path / "out"), option, given]
    done = CliRunner().invoke(main, ["hits", *options])
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit)
    assert message in done.output
    assert not (tmp_path / "out").exists()


def test_what_check_warned_of_is_gathered_and_the_same_bytes_come_out_again(tmp_path: Path):
    edge_screen().to_csv(tmp_path / "scores.csv", index=False)
    checked = tabulate("check", reachable(screen(n_plates=1).assign(phenotype=""), settings()))
    write_table(checked, tmp_path / "check.parquet")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "fold-1.json").write_text(card_text(weak(), Path("fold-1.json")))
    for output in ("one", "two"):
        options = ["--wells", "scores.csv", "--output", output, "--warnings", "check.parquet", "--models", "model"]
        options = [str(tmp_path / option) if not option.startswith("--") else option for option in options]
        done = CliRunner().invoke(main, ["hits", *options])
        assert done.exit_code == 0, done.output
    found = read_table(tmp_path / "one" / "warnings.parquet")
    assert found.dtypes.astype(str).to_dict() == WARNINGS
    # The layout is not looked at again: that its controls lie at the edge is for `check` to say.
    assert found[["stage", "code"]].to_numpy().tolist() == [["check", "unreachable_p"], ["train", "learned_nothing"]]
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_tables_say_what_they_were_made_from_without_a_path(tmp_path: Path):
    screen().to_csv(tmp_path / "scores.csv", index=False)
    call_hits([tmp_path / "scores.csv"], None, tmp_path / "out", hits=settings())
    digest = hashlib.sha256((tmp_path / "scores.csv").read_bytes()).hexdigest()
    for name, columns in (("hits", HITS), ("wells", SCREEN_WELLS), ("plates", PLATES), ("suspects", SUSPECTS)):
        notes = read_notes(tmp_path / "out" / f"{name}.parquet")
        assert notes["inputs"] == {"wells/scores": digest}
        assert list(notes["settings"]) == ["hits"]
        assert set(notes["columns"]) <= {*columns}, name
        assert str(tmp_path) not in json.dumps(notes)
    other = read_notes(tmp_path / "out" / "hits.parquet")["settings"]
    call_hits([tmp_path / "scores.csv"], None, tmp_path / "other", hits=settings(fdr=0.1))
    assert read_notes(tmp_path / "other" / "hits.parquet")["settings"] != other
