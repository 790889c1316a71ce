"""Scoring a plate: planted cells are found where they are, and every score comes from the folds that may give it."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from matched import matched_filter

from wscnn.core.config import complete_config
from wscnn.core.errors import UserError
from wscnn.core.tables import FIELDS, OBJECTS, WELLS, write_table
from wscnn.core.wells import well_name
from wscnn.network.card import Card, folds_of
from wscnn.network.model import WSCNN, score_fields
from wscnn.network.weights import load_folds, load_model, save_model
from wscnn.plates.fields import read_fields
from wscnn.plates.store import BOX, Channel, Plate, PlateWriter
from wscnn.scoring.score import score_plate
from wscnn.scoring.summaries import align_folds
from wscnn.statistics.calibration import probability

SIZE = 96
CONTROLS = [well_name(row, column) for row in range(3) for column in range(2)]
SAMPLES = [well_name(row, column) for row in range(3) for column in range(2, 6)]
UNUSED_WELL, UNUSED_FIELD = "C06", ("A03", 2)


def settings(device: str = "cpu", **dask: object) -> dict:
    config = {"screen": "s", "plates": "p", "layout": "l", "acquisition": {"channels": {"1": "DNA"}}, "dask": dask}
    complete = complete_config(config, "test")
    return {"score": complete["score"] | {"device": device}, "dask": complete["dask"]}


class Screen:
    """A plate with planted cells, its quality and three folds, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store, self.qc, self.models = folder / "P1.zarr", folder / "qc.parquet", folder / "model"
        rng = np.random.default_rng(7)
        writer = PlateWriter(self.store, "P1", CONTROLS + SAMPLES, [Channel("DNA", "FFFFFF", (100.0, 1100.0))], 0.5)
        truth, quality = [], []
        for number, well in enumerate(sorted(CONTROLS + SAMPLES)):
            mosaic = rng.normal(200, 10, (1, 2 * SIZE, 2 * SIZE))
            # The last place of the grid is empty: a well has three fields of four.
            fields = pd.DataFrame(
                {"field": [1, 2, 3], "y": [0, 0, SIZE], "x": [0, SIZE, 0], "height": SIZE, "width": SIZE}
            )
            for field, top, left, *_ in fields.itertuples(index=False):
                cells = rng.permutation(9)[: rng.integers(0, 4) + (number % 4 == 0)]
                for cell in cells:
                    # On a coarse grid of 32 px that reaches the field's borders, where a cell may be cut by up to half.
                    y, x = (np.array(divmod(int(cell), 3)) * 46 + rng.integers(0, 4, 2)).clip(0, SIZE - 1)
                    brightness = rng.uniform(950, 1150)
                    y0, x0, y1, x1 = max(y - 5, 0), max(x - 5, 0), min(y + 6, SIZE), min(x + 6, SIZE)
                    mosaic[0, top + y0 : top + y1, left + x0 : left + x1] = brightness
                    truth.append((well, field, y0 + top, x0 + left, y1 + top, x1 + left))
                used = well != UNUSED_WELL and (well, field) != UNUSED_FIELD
                quality.append(("P1", well, field, used, "" if used else "blurred", 10.0 * field))
            writer.write_well(well, mosaic.round().astype(np.uint16), fields, (SIZE, SIZE))
        self.truth = pd.DataFrame(truth, columns=["well", "field", "y0", "x0", "y1", "x1"])
        self.quality = pd.DataFrame(quality, columns=["plate", "well", "field", "used", "flags", "n_cells"])
        write_table(self.quality, self.qc)
        for fold, gain in enumerate((20.0, 30.0, 60.0)):
            parts = [[f"P1/{well}" for well in CONTROLS[k::3]] for k in range(3)]
            card = Card(
                architecture="compact",
                pool="noisy_or",
                score_pool="max",
                channels=["DNA"],
                pixel_size_um=0.5,
                classes=["negative", "mitotic"],
                screen="s",
                fold=fold,
                parts={"train": parts[fold], "select": parts[(fold + 1) % 3], "test": parts[(fold + 2) % 3]},
                thresholds={"mitotic": {"field": 0.5, "place": 0.0}},
                probabilities={"mitotic": {"slope": 2.0 / gain, "offset": fold - 1.0}},
            )
            network = matched_filter(gain, pool="noisy_or")
            network.score_pool = "max"
            save_model(self.models / f"fold-{fold}.safetensors", network, card)

    def score(self, output: Path, **dask: object) -> dict[str, pd.DataFrame]:
        paths = {name: output / f"{name}.parquet" for name in ("wells", "fields", "objects")}
        score_plate(self.store, self.qc, self.models, **paths, screen="s", **settings(**dask))
        return {name: pd.read_parquet(path) for name, path in paths.items()}


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Screen:
    return Screen(tmp_path_factory.mktemp("screen"))


@pytest.fixture(scope="module")
def tables(screen: Screen) -> dict[str, pd.DataFrame]:
    return screen.score(screen.folder / "tables")


def test_every_planted_cell_is_found_and_nothing_else(screen: Screen, tables: dict[str, pd.DataFrame]) -> None:
    used = screen.quality[screen.quality["used"]]
    truth = screen.truth.merge(used[["well", "field"]], on=["well", "field"])
    assert truth.groupby(["well", "field"]).size().max() >= 3
    objects = tables["objects"]
    assert len(objects) == len(truth)
    for true in truth.itertuples():
        near = objects[(objects["well"] == true.well) & (objects["field"] == true.field)]
        inside = near["y"].between(true.y0 - 3, true.y1 + 2) & near["x"].between(true.x0 - 3, true.x1 + 2)
        assert inside.sum() == 1


def test_boxes_lie_in_their_field_and_on_their_cell(screen: Screen, tables: dict[str, pd.DataFrame]) -> None:
    plate = Plate(screen.store)
    fields = pd.concat(plate.fields(well).assign(well=well) for well in plate.wells)
    objects = tables["objects"].merge(fields, on=["well", "field"], suffixes=("", "_field"))
    assert (objects["y0"] >= objects["y_field"]).all()
    assert (objects["x0"] >= objects["x_field"]).all()
    assert (objects["y1"] <= objects["y_field"] + objects["height"]).all()
    assert (objects["x1"] <= objects["x_field"] + objects["width"]).all()
    assert ((objects["y1"] > objects["y0"]) & (objects["x1"] > objects["x0"])).all()


def test_labels_hold_the_objects(screen: Screen, tables: dict[str, pd.DataFrame]) -> None:
    plate = Plate(screen.store)
    for well in plate.wells:
        objects = tables["objects"][tables["objects"]["well"] == well]
        if well == UNUSED_WELL:
            assert plate.labels(well) == []
            continue
        assert plate.labels(well) == ["mitotic", "mitotic_saliency"]
        masks, saliency = plate.read_label(well, "mitotic"), plate.read_label(well, "mitotic_saliency")
        assert masks.shape == saliency.shape == plate.read(well).shape[1:]
        assert saliency.dtype == np.uint8
        areas = np.bincount(masks.ravel())
        assert areas[1:].tolist() == objects["area_px"].tolist()
        assert objects["object"].tolist() == list(range(1, len(objects) + 1))
        for row in objects.itertuples():
            y, x = np.nonzero(masks == row.object)
            assert (y.min(), x.min(), y.max() + 1, x.max() + 1) == (row.y0, row.x0, row.y1, row.x1)
            assert saliency[y, x].min() > 0
        assert saliency.max() == (255 if len(objects) else 0)


def test_masks_of_an_earlier_scoring_do_not_stay(tmp_path: Path) -> None:
    screen, plate = Screen(tmp_path), Plate(tmp_path / "P1.zarr")
    screen.score(tmp_path)
    own = np.ones(plate.mosaic_shape("B03"), np.uint8)
    plate.write_labels("B03", {"nuclei": own})
    change_card(
        lambda card: replace(
            card, classes=["negative", "round"], thresholds={"round": card.thresholds["mitotic"]}, probabilities={}
        )
    )(screen)
    screen.quality.loc[screen.quality["well"] == "B04", "used"] = False
    write_table(screen.quality, screen.qc)
    screen.score(tmp_path)
    assert plate.labels("B03") == ["nuclei", "round", "round_saliency"]
    assert (plate.read_label("B03", "nuclei") == own).all()
    assert plate.labels("B04") == []
    left = {path.name for path in (tmp_path / "P1.zarr").glob("*/*/0/labels/*") if path.is_dir()}
    assert left == {"nuclei", "round", "round_saliency"}


def test_tables_are_complete_sorted_and_add_up(screen: Screen, tables: dict[str, pd.DataFrame]) -> None:
    wells, fields, objects = tables["wells"], tables["fields"], tables["objects"]
    for table, columns in ((wells, WELLS), (fields, FIELDS), (objects, OBJECTS)):
        assert list(table.columns) == list(columns)
    assert wells["well"].tolist() == sorted(CONTROLS + SAMPLES)
    assert fields[["well", "field"]].apply(tuple, axis=1).tolist() == [
        (well, field) for well in sorted(CONTROLS + SAMPLES) for field in (1, 2, 3)
    ]
    counts = objects.groupby(["well", "field"]).agg(n=("object", "size"), area=("area_px", "sum"))
    joined = fields.join(counts, on=["well", "field"]).fillna({"n": 0, "area": 0})
    assert (joined["n_objects"] == joined["n"]).all()
    assert (joined["object_area_px"] == joined["area"]).all()
    by_well = fields.groupby("well").agg(mean=("score", "mean"), top=("score", "max"), n=("n_objects", "sum"))
    merged = wells.join(by_well, on="well")
    np.testing.assert_allclose(merged["score"], merged["mean"])
    np.testing.assert_allclose(merged["score_max"], merged["top"])
    assert (merged["n_objects"] == merged["n"]).all()
    area = objects.groupby("well")["area_px"].sum().reindex(wells["well"]).fillna(0).to_numpy()
    fraction = area / (wells["n_fields_used"] * SIZE * SIZE)
    np.testing.assert_allclose(wells["object_area_fraction"], fraction.where(wells["n_fields_used"] > 0))


def test_a_field_is_positive_where_a_cell_was_planted(screen: Screen, tables: dict[str, pd.DataFrame]) -> None:
    used = screen.quality[screen.quality["used"]]
    planted = used.merge(screen.truth[["well", "field"]].drop_duplicates(), how="left", indicator=True)
    expected = planted["_merge"].eq("both").groupby(planted["well"]).mean()
    given_ = tables["wells"].set_index("well")["fraction_positive_fields"].dropna()
    pd.testing.assert_series_equal(given_, expected, check_names=False)


def test_dropped_fields_and_wells_have_no_score(tables: dict[str, pd.DataFrame]) -> None:
    fields, wells = tables["fields"].set_index(["well", "field"]), tables["wells"].set_index("well")
    assert not fields.loc[UNUSED_FIELD, "used"]
    assert fields.loc[UNUSED_FIELD, ["score", "score_sd"]].isna().all()
    assert wells.loc["A03", ["n_fields", "n_fields_used", "n_cells"]].tolist() == [3, 2, 40]
    lost = wells.loc[UNUSED_WELL]
    assert lost[["n_fields_used", "n_objects"]].tolist() == [0, 0]
    assert lost[["score", "score_sd", "score_max", "fraction_positive_fields", "object_area_fraction"]].isna().all()
    assert pd.isna(lost["n_cells"])
    assert fields["score"].notna().sum() == fields["used"].sum()
    assert wells.drop(UNUSED_WELL)["score"].notna().all()


def test_wells_without_a_score_say_why(tmp_path: Path) -> None:
    screen = Screen(tmp_path)
    (screen.models / "fold-1.safetensors").unlink()
    few = screen.quality["well"] == SAMPLES[0]
    screen.quality.loc[few, ["used", "flags"]] = [(False, flag) for flag in ("few_fields", "blurred", "few_fields")]
    write_table(screen.quality, screen.qc)
    wells = screen.score(tmp_path / "tables")["wells"].set_index("well")
    untested = CONTROLS[0::3]  # fold 1 alone tested them
    expected = {
        UNUSED_WELL: "no good field",
        SAMPLES[0]: "too few good fields",
        **dict.fromkeys(untested, "no fold may score it"),
    }
    assert wells["why_no_score"].to_dict() == dict.fromkeys(wells.index, "") | expected
    assert wells["score"].isna().equals(wells["why_no_score"] != "")
    assert Plate(screen.store).labels(SAMPLES[0]) == []


def test_controls_are_scored_by_the_fold_that_tested_them_and_all_others_by_all(tmp_path: Path) -> None:
    screen = Screen(tmp_path)
    # Few wells in common: scores are the networks' own.
    screen.quality.loc[screen.quality["well"].isin(SAMPLES[:5]), "used"] = False
    write_table(screen.quality, screen.qc)
    wells = screen.score(tmp_path)["wells"].set_index("well")
    folds, plate = load_folds(screen.models), Plate(screen.store)

    def own(fold: int, well: str) -> float:
        with torch.no_grad():
            logits, _ = score_fields(
                folds[fold][0], torch.from_numpy(read_fields(plate, well, ["DNA"], plate.fields(well)[BOX].to_numpy()))
            )
        return logits[:, 0].double().mean().item()

    for well in CONTROLS:
        (held_out,) = (k for k, (_, card) in enumerate(folds) if f"P1/{well}" in card.parts["test"])
        assert wells.loc[well, "fold"] == held_out
        assert wells.loc[well, "score"] == pytest.approx(own(held_out, well), rel=1e-6)
        assert np.isnan(wells.loc[well, "score_sd"])
    for well in SAMPLES[5:-1]:
        scores = [own(fold, well) for fold in range(3)]
        assert pd.isna(wells.loc[well, "fold"])
        assert wells.loc[well, "score"] == pytest.approx(np.mean(scores), rel=1e-6)
        assert wells.loc[well, "score_sd"] == pytest.approx(np.std(scores, ddof=1), rel=1e-6)


def test_folds_are_brought_to_one_scale(tables: dict[str, pd.DataFrame]) -> None:
    # The folds are one filter at three gains, so on a common scale they say the same of each well.
    samples = tables["wells"].set_index("well").loc[SAMPLES[:-1]]
    assert samples["score_sd"].max() < 1e-3 * samples["score"].std()


def test_a_probability_is_the_mean_of_what_each_fold_makes_of_its_own_score(
    screen: Screen, tables: dict[str, pd.DataFrame]
) -> None:
    # What folds add and multiply is undone in `score`, but slope and offset are of each fold's own scores.
    folds, plate = load_folds(screen.models), Plate(screen.store)
    given_ = tables["fields"].set_index(["well", "field"])["probability"]
    for well in (CONTROLS[1], SAMPLES[1]):
        images = torch.from_numpy(read_fields(plate, well, ["DNA"], plate.fields(well)[BOX].to_numpy()))
        predicted = []
        for fold in folds_of(f"P1/{well}", [card for _, card in folds]):
            network, card = folds[fold]
            with torch.no_grad():
                logits = score_fields(network, images)[0][:, 0].double().numpy()
            predicted.append(probability(logits, **card.probabilities["mitotic"]))
        np.testing.assert_allclose(given_[well], np.mean(predicted, axis=0), rtol=1e-5)
    assert np.isnan(given_[UNUSED_FIELD]) and given_.dropna().between(0, 1).all()


def test_networks_that_tell_no_probability_score_without(tmp_path: Path) -> None:
    screen = Screen(tmp_path)
    change_card(lambda card: replace(card, probabilities={}))(screen)
    fields = screen.score(tmp_path)["fields"]
    assert fields["probability"].isna().all() and fields["score"].notna().any()


@limits(deadline=None, max_examples=50)
@given(
    st.integers(0, 10_000),
    st.lists(st.tuples(st.floats(-5, 5), st.floats(0.2, 5)), min_size=2, max_size=4),
    st.integers(8, 30),
)
def test_alignment_undoes_what_folds_add_and_multiply(
    seed: int, folds: list[tuple[float, float]], n_common: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = []
    for well in range(n_common + 6):
        values = rng.normal(size=3)
        may = range(len(folds)) if well < n_common else [int(rng.integers(len(folds)))]
        rows += [
            (f"W{well}", field, "rare", fold, folds[fold][0] + folds[fold][1] * value, value)
            for fold in may
            for field, value in enumerate(values)
        ]
    table = pd.DataFrame(rows, columns=["well", "field", "phenotype", "fold", "logit", "value"])
    aligned = align_folds(table)
    # One line maps what was there before the folds to what is aligned, whichever fold a value came through.
    slope, offset = np.polyfit(table["value"], aligned, 1)
    assert slope == pytest.approx(np.mean([scale for _, scale in folds]), rel=1e-6)
    np.testing.assert_allclose(aligned, slope * table["value"] + offset, atol=1e-6)


def test_alignment_needs_enough_common_wells() -> None:
    table = pd.DataFrame(
        [(f"W{well}", "rare", fold, well * (1.0 + fold)) for well in range(7) for fold in range(3)],
        columns=["well", "phenotype", "fold", "logit"],
    )
    pd.testing.assert_series_equal(align_folds(table), table["logit"])


def test_a_model_applied_to_other_plates_scores_with_all_folds(screen: Screen) -> None:
    cards = [card for _, card in load_folds(screen.models)]
    assert folds_of("P2/A01", cards) == [0, 1, 2]
    assert [folds_of(f"P1/{well}", cards) for well in CONTROLS[:3]] == [[1], [2], [0]]
    # A single fold that has trained on the well may not score it.
    assert folds_of(f"P1/{CONTROLS[0]}", cards[:1]) == []


def test_a_well_that_no_fold_may_score_has_no_score(tmp_path: Path) -> None:
    screen = Screen(tmp_path)
    for fold in (1, 2):
        (screen.models / f"fold-{fold}.safetensors").unlink()
    wells = screen.score(tmp_path)["wells"].set_index("well")
    assert wells.loc[CONTROLS[2::3], "score"].notna().all()
    assert (wells.loc[CONTROLS[2::3], "fold"] == 0).all()
    assert wells.loc[[*CONTROLS[0::3], *CONTROLS[1::3]], "score"].isna().all()
    assert wells.loc[SAMPLES, "fold"].isna().all()


def test_cells_that_were_not_counted_before_are_those_that_the_detector_judges(tmp_path: Path) -> None:
    screen = Screen(tmp_path)
    write_table(screen.quality.assign(n_cells=np.nan), screen.qc)
    for path in screen.models.glob("*.safetensors"):
        card = replace(load_model(path)[1], architecture="encoder", score_pool="share", outlined=True)
        card.thresholds["mitotic"]["place"] = -1.0
        network = WSCNN("encoder", "noisy_or", 1, 2, "share").eval()
        network.cell_spread.fill_(1.0)
        for parameter in network.classify.parameters():
            parameter.detach().zero_()
        save_model(path, network, card)
    tables = screen.score(tmp_path / "tables")
    # Every position scores 0, above the threshold, so every cell is an object.
    scored = tables["wells"].dropna(subset="score")
    assert (scored["n_cells"] == scored["n_objects"]).all() and (scored["n_cells"] > 0).any()
    assert tables["wells"].loc[tables["wells"]["score"].isna(), "n_cells"].isna().all()
    # Log-odds of a half, but for the one cell more that is never positive.
    one = tables["fields"].query("n_objects == 1")["score"].iloc[0]
    assert one == pytest.approx(np.log(0.25 / 0.75), abs=0.01)


@pytest.mark.parametrize("dask", [{"workers": 1}, {"workers": 2}, {"cluster": "local", "workers": 2}], ids=str)
def test_tables_do_not_depend_on_the_workers(
    screen: Screen, tables: dict[str, pd.DataFrame], tmp_path: Path, dask: dict
) -> None:
    screen.score(tmp_path, **dask)
    for name in tables:
        assert (tmp_path / f"{name}.parquet").read_bytes() == (
            screen.folder / "tables" / f"{name}.parquet"
        ).read_bytes()


def test_damaged_pixels_stop_the_plate_and_leave_no_table(tmp_path: Path) -> None:
    screen = Screen(tmp_path)
    shard = next(path for path in (screen.store / "C" / "05" / "0" / "0" / "c").rglob("*") if path.is_file())
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 0xFF
    shard.write_bytes(content)
    with pytest.raises(UserError, match="well C05: damaged pixels"):
        screen.score(tmp_path / "tables")
    assert not (tmp_path / "tables").exists()


def test_killed_half_way_leaves_no_table_and_a_rerun_is_whole(
    screen: Screen, tables: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    fresh = Screen(tmp_path)
    inputs = {"store": fresh.store, "quality": fresh.qc, "models": fresh.models, "screen": "s"}
    outputs = {name: tmp_path / "out" / f"{name}.parquet" for name in tables}
    options = [f"--{key}={value}" for key, value in (inputs | outputs).items()]
    process = subprocess.Popen([str(Path(sys.executable).parent / "wscnn"), "score", *options])
    while not any(fresh.store.rglob("labels")) and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    fresh.score(tmp_path / "out")
    for name in tables:
        assert (tmp_path / "out" / f"{name}.parquet").read_bytes() == (
            screen.folder / "tables" / f"{name}.parquet"
        ).read_bytes()


def change_card(change: Callable[[Card], Card]) -> Callable[[Screen], None]:
    def apply(screen: Screen) -> None:
        for (network, card), fold in zip(load_folds(screen.models), range(3), strict=True):
            save_model(screen.models / f"fold-{fold}.safetensors", network, change(card))

    return apply


def drop_row(screen: Screen) -> None:
    write_table(screen.quality.drop(4), screen.qc)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (change_card(lambda card: replace(card, channels=["actin"])), "has no channel actin"),
        (change_card(lambda card: replace(card, pixel_size_um=0.8)), "trained at 0.8 um"),
        (drop_row, "first well A02, field 2; stage the plate again"),
    ],
)
def test_what_does_not_fit_is_told(spoil: Callable[[Screen], None], message: str, tmp_path: Path) -> None:
    screen = Screen(tmp_path)
    spoil(screen)
    with pytest.raises(UserError, match=message):
        screen.score(tmp_path / "tables")
    assert not (tmp_path / "tables").exists()


def test_what_workers_run_comes_without_torch() -> None:
    told = "import sys; import wscnn.scoring.tasks; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", told], capture_output=True, text=True).stdout.strip() == "False"
