"""Simpler methods beside the network: on made-up tables of nuclei, and on pixels."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cards import card_of
from scipy.ndimage import gaussian_filter

from wscnn.baselines.contest import run_baselines
from wscnn.baselines.measure import measure_plate
from wscnn.core.config import section
from wscnn.core.errors import UserError
from wscnn.core.tables import CELLS, conform, read_table, write_table
from wscnn.core.wells import well_name
from wscnn.network.card import card_text
from wscnn.plates.store import Channel, PlateWriter
from wscnn.statistics.hits import call_hits

CALLING = section("hits", "{}")
ALL = section("baseline", '{"methods": ["count", "forest", "novelty"]}')
PLATES = ("P1", "P2")


class Screen:
    """Two plates of 32 wells with 60 nuclei of six features; in positive wells and those of `acts`, 6 % are rare."""

    def __init__(self, folder: Path, shift: float = 5.0, positive: bool = True) -> None:
        self.folder, random = folder, np.random.default_rng(0)
        rows = [(plate, well_name(r, c), r, c) for plate in PLATES for r in range(4) for c in range(8)]
        layout = pd.DataFrame(rows, columns=["plate", "well", "well_row", "well_column"])
        role = layout["well_column"].map({0: "negative", 1: "negative", 7: "positive"}).fillna("sample")
        layout["role"] = role if positive else role.replace("positive", "sample")
        layout["perturbation"] = np.where(role == "sample", "s" + layout["well_column"].astype(str), role)
        layout["phenotype"] = np.where(layout["role"] == "positive", "mitotic", "")
        layout["batch"] = "1"
        write_table(layout, folder / "layout.parquet")
        tables = []
        for row in layout.itertuples():
            values = random.normal(size=(60, 6)).astype(np.float32)
            rare = random.random(60) < (0.06 if row.perturbation in ("positive", "s3") else 0.0)
            values[rare, :2] += shift
            # Plates differ in scale and offset.
            values = values * 3 + 100 if row.plate == "P2" else values
            place = {"plate": row.plate, "well": row.well, "field": 1, "y": 0.0, "x": 0.0}
            tables.append(pd.DataFrame({f"feature_{i}": values[:, i] for i in range(6)}).assign(**place))
        cells = conform(pd.concat(tables, ignore_index=True), CELLS)
        for plate, own in cells.groupby("plate"):
            write_table(own.reset_index(drop=True), folder / "cells" / f"{plate}.parquet", kind="cells")
        scores = layout[["plate", "well"]].assign(
            phenotype="mitotic", score=random.normal(size=len(layout)), n_fields=1, n_fields_used=1, screen="made-up"
        )
        for name in ("score_sd", "score_max", "fraction_positive_fields", "object_area_fraction"):
            scores[name] = np.nan
        scores = scores.assign(
            n_objects=0,
            n_cells=60,
            cell_intensity=np.nan,
            fold=pd.array([pd.NA] * len(scores), "Int8"),
            why_no_score="",
        )
        write_table(scores, folder / "scores.parquet")
        call_hits([folder / "scores.parquet"], folder / "layout.parquet", folder, hits=CALLING)

    def run(self, output: Path, baseline: dict[str, Any] = ALL, models: Path | None = None) -> dict[str, pd.DataFrame]:
        cells = [self.folder / "cells" / f"{plate}.parquet" for plate in PLATES]
        run_baselines(
            cells,
            self.folder / "wells.parquet",
            self.folder / "hits.parquet",
            models or self.folder / "model",
            output,
            baseline=baseline,
            calling=CALLING,
        )
        return {path.stem: read_table(path) for path in output.glob("*.parquet")}


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Screen:
    return Screen(tmp_path_factory.mktemp("screen"))


@pytest.fixture(scope="module")
def tables(screen: Screen) -> dict[str, pd.DataFrame]:
    return screen.run(screen.folder / "out")


def test_forest_and_novelty_find_what_was_planted_and_counts_do_not(tables: dict[str, pd.DataFrame]) -> None:
    auc = tables["baseline_folds"].groupby("method")["auc"].mean()
    assert auc["forest"] > 0.95
    assert auc["novelty"] > 0.95
    assert abs(auc["count"] - 0.5) < 0.2
    table = tables["baseline"]
    assert set(table["method"]) == {"network", "count", "forest", "novelty"}
    samples = table[table["role"] == "sample"]
    best = samples[samples["rank"] == 1].set_index("method")["perturbation"]
    assert best["forest"] == best["novelty"] == "s3"
    assert not samples.loc[samples["method"] == "count", "hit"].any()


def test_all_methods_have_the_wells_and_perturbations_of_the_network(tables: dict[str, pd.DataFrame]) -> None:
    keys = (
        tables["baseline"]
        .groupby("method")[["perturbation", "role"]]
        .apply(lambda own: sorted(own.to_numpy().tolist()))
    )
    assert all(keys[name] == keys["network"] for name in keys.index)
    wells = tables["baseline_wells"]
    assert set(wells["method"].value_counts()) == {64}
    own = wells[(wells["method"] == "forest") & wells["role"].isin(["negative", "positive"])]
    # Three folds, dealt evenly by class.
    assert own["fold"].value_counts().tolist() == [8, 8, 8]
    assert wells.loc[(wells["method"] == "forest") & (wells["role"] == "sample"), "fold"].isna().all()


def test_all_wells_of_a_held_out_plate_are_scored_by_its_fold(screen: Screen, tmp_path: Path) -> None:
    layout = read_table(screen.folder / "layout.parquet")
    control = layout[layout["role"] != "sample"]
    own = {plate: (plate + "/" + rows["well"]).tolist() for plate, rows in control.groupby("plate")}
    for fold, (tested, other) in enumerate((PLATES, PLATES[::-1])):
        card = card_of(
            "mitotic",
            fold,
            screen="made-up",
            parts={"train": own[other], "select": [], "test": own[tested]},
            settings={"train": {"hold_out": "plate"}},
        )
        path = tmp_path / "model" / f"fold-{fold}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(card_text(card, path))
    tables = screen.run(tmp_path / "out", ALL | {"methods": ["count"]}, tmp_path / "model")
    wells = tables["baseline_wells"].query("method == 'count'")
    assert wells.groupby("plate")["fold"].agg(set).to_dict() == {"P1": {0}, "P2": {1}}


def test_without_a_difference_nothing_is_learned(tmp_path: Path) -> None:
    """What a well is judged by never saw its label: with labels that mean nothing, AUCs lie around a half."""
    tables = Screen(tmp_path, shift=0.0).run(tmp_path / "out")
    auc = tables["baseline_folds"].groupby("method")["auc"].mean()
    assert 0.2 < auc["forest"] < 0.8
    assert 0.2 < auc["novelty"] < 0.8


def test_equal_inputs_give_equal_bytes(screen: Screen, tables: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    screen.run(tmp_path)
    for name in tables:
        assert (tmp_path / f"{name}.parquet").read_bytes() == (screen.folder / "out" / f"{name}.parquet").read_bytes()


def test_without_positive_controls_the_contest_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = Screen(tmp_path, positive=False).run(tmp_path / "out")
    assert set(tables["baseline"]["method"]) == {"network"}
    assert "there is no positive control well" in capsys.readouterr().err


def test_without_a_nucleus_only_the_network_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(tmp_path)
    for plate in PLATES:
        empty = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in CELLS.items()})
        write_table(empty, tmp_path / "cells" / f"{plate}.parquet", kind="cells")
    assert set(screen.run(tmp_path / "out")["baseline"]["method"]) == {"network"}
    assert "no nucleus was found on any plate" in capsys.readouterr().err


def test_plates_with_other_features_are_refused(tmp_path: Path) -> None:
    screen = Screen(tmp_path)
    path = tmp_path / "cells" / "P2.parquet"
    write_table(read_table(path).drop(columns="feature_5"), path, kind="cells")
    with pytest.raises(UserError, match=r"P2\.parquet: has other features than the plates before it"):
        screen.run(tmp_path / "out")


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A staged plate: ten round nuclei in each of two fields of A01, none in A02; A01's second field is dropped."""
    folder = tmp_path_factory.mktemp("plate")
    writer = PlateWriter(folder / "P1.zarr", "P1", ["A01", "A02"], [Channel("DNA", "FFFFFF", (0.0, 1000.0))], 0.65)
    fields = pd.DataFrame({"field": [1, 2], "y": [0, 0], "x": [0, 128], "height": 128, "width": 128})
    random = np.random.default_rng(0)
    for well, bright in (("A01", 60_000.0), ("A02", 0.0)):
        image = np.zeros((128, 256))
        spots = [(y, x) for x in (20, 60, 100, 148, 188) for y in (25, 55, 85, 105)]
        for y, x in spots[:10] + [(y, x + 128) for y, x in spots[:10]]:
            image[y, min(x, 250)] = bright
        noisy = gaussian_filter(image, 4) + random.normal(300, 10, image.shape)
        writer.write_well(well, noisy.clip(0).astype(np.uint16)[None], fields, (128, 128))
    quality = pd.DataFrame({"plate": "P1", "well": ["A01", "A01", "A02", "A02"], "field": [1, 2, 1, 2]})
    quality = quality.assign(used=[True, False, True, True], flags="", n_cells=pd.array([10, 10, 0, 0], "Int64"))
    write_table(quality, folder / "qc.parquet")
    return folder


def test_nuclei_of_used_fields_are_measured_the_same_on_any_workers(plate: Path, tmp_path: Path) -> None:
    for n in (1, 3):
        measure_plate(
            plate / "P1.zarr",
            plate / "qc.parquet",
            tmp_path / f"{n}.parquet",
            nuclei="DNA",
            dask=section("dask", f'{{"workers": {n}}}'),
        )
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "3.parquet").read_bytes()
    table = read_table(tmp_path / "1.parquet", CELLS)
    assert set(table["well"]) == {"A01"}
    assert set(table["field"]) == {1}
    assert len(table) == 10
    assert table["feature_area"].between(30, 300).all()


def test_a_channel_that_is_not_there_is_told(plate: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no channel RNA, in which nuclei are to be found; it has DNA"):
        measure_plate(
            plate / "P1.zarr", plate / "qc.parquet", tmp_path / "t.parquet", nuclei="RNA", dask=section("dask", "{}")
        )
