"""Training: held-out wells stay held out, what is learnt is the rare object, and mistakes are told before it starts."""

import json
import multiprocessing
import shutil
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from wscnn.core.config import section
from wscnn.core.errors import UserError
from wscnn.core.tables import read_table, write_table
from wscnn.network.model import WSCNN
from wscnn.network.weights import load_model
from wscnn.plates.store import Channel, PlateWriter
from wscnn.simulate.concepts import CONCEPTS, SIDE, cross, disc, draw_concept, draw_objects, ring
from wscnn.statistics.roc import auc, auc_error
from wscnn.training.bags import Bags
from wscnn.training.fit import Examples, evaluate, field_auc, fit
from wscnn.training.parts import assign_parts
from wscnn.training.recipe import recipe_of
from wscnn.training.thresholds import field_threshold, place_threshold
from wscnn.training.train import train_fold


def screen(
    folder: Path,
    contents: dict[str, dict],
    n_plates: int = 2,
    n_fields: int = 2,
    side: int = SIDE,
    pixel_sizes: tuple = (1.0, 1.0),
    seed: int | None = None,
) -> dict:
    """Write plates whose row A, B, ... holds six control wells of each class; return the arguments of train_fold.

    With a `seed` the plates are sealed with digests, as `stage` seals them.
    """
    rng = np.random.default_rng(seed or 0)
    rows, stores, qcs = [], [], []
    for number in range(n_plates):
        name = f"plate{number}"
        wells = {f"{'ABCDEF'[i]}{c + 1:02d}": label for i, label in enumerate(contents) for c in range(6)}
        channels = [Channel("DNA", "0000FF", (0, 4000))]
        writer = PlateWriter(folder / f"{name}.zarr", name, list(wells), channels, pixel_sizes[number])
        digests = {}
        for well, label in wells.items():
            images = np.concatenate([draw_objects(rng, contents[label], side) for _ in range(n_fields)], axis=1)
            boxes = [{"field": i + 1, "y": 0, "x": i * side, "height": side, "width": side} for i in range(n_fields)]
            mosaic = np.clip(images * 3000, 0, 65535).astype(np.uint16)[None]
            digests[well] = writer.write_well(well, mosaic, pd.DataFrame(boxes), (side, side))
        notes = {} if seed is None else {"digest": writer.seal(digests, {})}
        for well, label in wells.items():
            role, phenotype = ("negative", "") if label == "negative" else ("positive", label)
            rows.append(
                {"plate": name, "well": well, "well_row": 0, "well_column": 0, "role": role, "phenotype": phenotype}
            )
        quality = pd.DataFrame({"plate": name, "well": list(wells) * n_fields}).sort_values("well", ignore_index=True)
        write_table(
            quality.assign(field=[1, 2] * len(wells), used=True, flags="", n_cells=np.nan),
            folder / f"{name}.qc.parquet",
            notes,
        )
        stores.append(folder / f"{name}.zarr")
        qcs.append(folder / f"{name}.qc.parquet")
    write_table(pd.DataFrame(rows), folder / "controls.parquet")
    return {"controls": folder / "controls.parquet", "stores": stores, "qcs": qcs}


def run(data: dict, output: Path, fold: int = 0, model: dict | None = None, learning_rate=None, **train) -> Path:
    """Train a fold for a few steps, also at a rate that a config may not hold; return the file of its weights."""
    quick = {"steps": 45, "batch": 8, "crop": 64, "evaluations": 3, "device": "cpu"}
    path = output / f"fold-{fold}.safetensors"
    torch.set_num_threads(1)  # sums in another order give other bytes
    train_fold(
        fold,
        data["controls"],
        data["stores"],
        data["qcs"],
        path,
        screen="s",
        model=section("model", json.dumps({"architecture": "compact"} | (model or {}))),
        train=section("train", json.dumps(quick | train)) | {"learning_rate": learning_rate},
    )
    return path


@pytest.fixture(scope="module")
def rings(tmp_path_factory) -> dict:
    """A screen whose positive fields show two rings among discs."""
    return screen(tmp_path_factory.mktemp("rings"), {"negative": {disc: 6}, "ring": {disc: 4, ring: 2}})


@pytest.fixture(scope="module")
def trained(rings, tmp_path_factory) -> Path:
    return run(rings, tmp_path_factory.mktemp("model"))


controls_tables = st.lists(
    st.tuples(st.sampled_from(["p1", "p2", "p3"]), st.sampled_from(["", "a", "b"])), min_size=9, max_size=80
)


@settings(deadline=None, max_examples=60)
@given(rows=controls_tables, seed=st.integers(0, 99), order=st.randoms())
def test_parts_are_even_over_classes_and_plates_and_do_not_depend_on_order(rows, seed, order):
    rows += [("p1", phenotype) for phenotype in ("", "a", "b") for _ in range(3)]
    table = pd.DataFrame(
        {
            "plate": plate,
            "well": f"A{number + 1:02d}",
            "role": "positive" if phenotype else "negative",
            "phenotype": phenotype,
        }
        for number, (plate, phenotype) in enumerate(rows)
    )
    parts = assign_parts(table, seed)
    for keys in (["phenotype"], ["phenotype", "plate"]):
        for _, group in table.assign(part=parts).groupby(keys):
            counts = np.bincount(group["part"], minlength=3)
            assert counts.max() - counts.min() <= 1
    shuffled = table.sample(frac=1, random_state=order.randrange(1000))
    assert assign_parts(shuffled, seed).sort_index().equals(parts)


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        (["negative"] * 5, "no positive control"),
        (["positive"] * 5, "no negative control"),
        (["negative"] * 2 + ["positive"] * 3, "class 'negative' has 2 control wells"),
        (["negative"] * 3 + ["positive"] * 1, "class 'rare' has 1 control wells"),
    ],
)
def test_too_few_controls_are_told(roles, message):
    table = pd.DataFrame(
        {"plate": "p", "well": f"A{i:02d}", "role": role, "phenotype": "rare" if role == "positive" else ""}
        for i, role in enumerate(roles)
    )
    with pytest.raises(UserError, match=message):
        assign_parts(table, 0)


@settings(deadline=None)
@given(
    negative=st.lists(st.integers(-5, 5), min_size=1, max_size=20),
    positive=st.lists(st.integers(-5, 5), min_size=1, max_size=20),
)
def test_area_under_the_curve_counts_pairs(negative, positive):
    pairs = [(p > n) + (p == n) / 2 for p in positive for n in negative]
    assert auc(np.array(negative), np.array(positive)) == pytest.approx(np.mean(pairs))
    threshold = field_threshold(np.array(negative, float), np.array(positive, float))

    def right(cut):
        return np.mean(np.array(positive) > cut) + np.mean(np.array(negative) <= cut)

    # Between the values there is no better cut.
    between = [(a + b) / 2 for a in (*negative, *positive) for b in (*negative, *positive) if a != b]
    if between:
        assert right(threshold) >= max(map(right, between)) - 1e-9


def test_place_threshold_allows_one_false_object_in_ten_fields():
    negative, positive = np.full((20, 9, 9), -5.0), np.full((20, 9, 9), -5.0)
    negative[:5, 4, 4] = [1, 2, 3, 4, 5]
    positive[:, 4, 4] = 6
    assert place_threshold(negative, positive) == 3
    # Where positive fields hold very many, negative ones may hold 1/20 of that: 1.2 of 24, so all.
    many = np.full((20, 40, 40), -5.0)
    many[:, 1::7, 1::10] = 6
    assert place_threshold(negative, many) == 0


def test_a_rare_object_is_learnt_and_held_out_wells_are_told_apart(trained, rings):
    model, card = load_model(trained)
    assert card.metrics["test"]["ring"]["well_auc"] >= 0.95
    assert card.classes == ["negative", "ring"] and card.channels == ["DNA"] and card.pixel_size_um == 1.0
    # The map is highest at the rings, not at the discs.
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:SIDE, :SIDE]
    image = rng.normal(0.1, 0.03, (SIDE, SIDE)) + disc(y, x, (14, 14)) + disc(y, x, (14, 46)) + ring(y, x, (46, 30))
    _, maps = evaluate(model, torch.tensor(image * 0.75, dtype=torch.float32)[None, None])
    place = np.unravel_index(maps[0, 0].argmax(), maps[0, 0].shape)
    assert np.hypot(*(np.array(place) * model.stride + 3.5 - (46, 30))) < 16


def test_the_card_counts_fields_and_tells_how_held_out_ones_are_calibrated(trained):
    card = load_model(trained)[1]
    # Two plates with six wells of each class and two fields a well: eight fields of a class in each part.
    assert card.n_fields == {part: {"negative": 8, "ring": 8} for part in ("train", "select", "test")}
    points = card.metrics["test"]["ring"]["calibration"]
    assert sum(point["n"] for point in points) == 16
    assert sum(point["n"] * point["observed"] for point in points) == pytest.approx(8)
    predicted = [point["predicted"] for point in points]
    assert predicted == sorted(predicted) and 0 <= predicted[0] < predicted[-1] <= 1


def test_parts_on_the_card_share_no_well_and_hold_all(trained, rings):
    card = load_model(trained)[1]
    wells = [well for part in card.parts.values() for well in part]
    table = read_table(rings["controls"])
    assert sorted(wells) == sorted(table["plate"] + "/" + table["well"])
    assert set(card.parts) == {"train", "select", "test"} and {len(part) for part in card.parts.values()} == {8}


def test_folds_rotate_the_parts(trained, rings, tmp_path):
    first = load_model(trained)[1].parts
    second = load_model(run(rings, tmp_path, fold=1, steps=3, evaluations=1))[1].parts
    assert second["train"] == first["select"] and second["select"] == first["test"]


def test_the_standard_error_of_an_area_is_that_of_its_source():
    # Hanley and McNeil, Radiology 1982: images of 58 normal and 51 abnormal patients, area 0.893.
    assert auc_error(0.893, 58, 51) == pytest.approx(0.032, abs=0.0006)
    assert auc_error(1.0, 10, 10) == 0


@pytest.mark.parametrize("seed", range(4))
def test_the_last_weights_are_kept_whose_area_is_within_a_standard_error(seed):
    # Nothing tells the classes apart, so that areas go up and down.
    rng = np.random.default_rng(seed)
    images, labels = draw_concept(rng, 24, [{disc: 4}], [{disc: 4}])
    fields = Examples(torch.from_numpy(images)[:, None], torch.from_numpy(labels), [""] * 48)
    recipe = recipe_of(section("train", '{"steps": 24, "evaluations": 8, "crop": 64}')) | {"patience": 8}
    torch.manual_seed(seed)
    network = WSCNN("compact", "noisy_or", 1, 2, "topk")
    history = fit(network, fields, fields, recipe, seed=seed)
    means = history["select_auc"].rolling(3, min_periods=1).mean()
    near = means >= means.cummax() - [auc_error(area, 24, 24) for area in means.cummax()]
    assert history["best"].tolist() == near.tolist()
    kept = history.loc[history["best"], "select_auc"].iloc[-1]
    assert field_auc(evaluate(network, fields.fields)[0], fields)[0] == pytest.approx(kept, abs=0.01)


def test_history_tells_each_evaluation(trained):
    history = read_table(trained.with_name("history-0.parquet"))
    assert list(history.columns) == ["step", "loss", "select_auc", "learning_rate", "seconds", "best"]
    assert list(history["step"].diff().dropna().unique()) == [15] and history["best"].iloc[0]
    assert history["select_auc"].between(0, 1).all() and history["seconds"].is_monotonic_increasing
    assert sorted(path.name for path in trained.parent.iterdir()) == [
        "fold-0.json",
        "fold-0.safetensors",
        "history-0.parquet",
    ]


def test_same_seed_same_bytes_and_another_seed_others(trained, rings, tmp_path):
    again = run(rings, tmp_path / "again")
    assert again.read_bytes() == trained.read_bytes()
    assert again.with_suffix(".json").read_bytes() == trained.with_suffix(".json").read_bytes()
    first, second = (run(rings, tmp_path / str(seed), seed=seed, steps=2, evaluations=1) for seed in (0, 1))
    assert first.read_bytes() != second.read_bytes()


def test_two_processes_train_one_network(rings, tmp_path):
    # Batch statistics are each process's own, so that the result is not that of one process; it is as good.
    path = run(rings, tmp_path / "whole", gpus=2, batch=16)
    assert load_model(path)[1].metrics["test"]["ring"]["well_auc"] >= 0.95
    assert len(read_table(path.with_name("history-0.parquet"))) == 3
    assert not list((tmp_path / "whole").glob(".*"))
    with pytest.raises(UserError, match=r"train\.gpus: 20 cannot share a batch of 8"):
        run(rings, tmp_path / "many", gpus=20)
    with pytest.raises(UserError, match="diverged"):
        run(rings, tmp_path / "diverged", gpus=2, learning_rate=1e30)


def test_training_ends_early_when_it_gets_no_better(rings, tmp_path):
    # With no rate to speak of only the draws change: the lowest loss of the first evaluations is soon not beaten.
    path = run(rings, tmp_path, steps=60, evaluations=60, patience=3, learning_rate=1e-12)
    history = read_table(path.with_name("history-0.parquet"))
    assert len(history) < 60
    before, last = history.iloc[:-3], history.iloc[-3:]
    assert last["loss"].min() >= before["loss"].min() and last["select_auc"].max() <= before["select_auc"].max()


def test_a_training_does_not_go_on_with_other_pixels(tmp_path):
    contents = {"negative": {disc: 6}, "ring": {disc: 4, ring: 2}}
    quick = {"steps": 2, "evaluations": 2}
    first = screen(tmp_path / "first", contents, n_plates=1, seed=1)
    # Its weights cannot be written, so that it ends with its last state on the disk.
    (tmp_path / "model/fold-0.json/in the way").mkdir(parents=True)
    with pytest.raises(OSError, match="fold-0"):
        run(first, tmp_path / "model", **quick)
    assert (tmp_path / "model/.fold-0.resume").is_file()
    shutil.rmtree(tmp_path / "model/fold-0.json")
    # The same wells and fields, other cells in them.
    second = screen(tmp_path / "second", contents, n_plates=1, seed=2)
    path, fresh = run(second, tmp_path / "model", **quick), run(second, tmp_path / "fresh", **quick)
    assert path.read_bytes() == fresh.read_bytes()


def test_tables_of_fields_belong_to_their_stores(tmp_path):
    data = screen(tmp_path, {"negative": {disc: 6}, "ring": {disc: 4, ring: 2}}, seed=1)
    with pytest.raises(UserError, match=r"plate1\.qc\.parquet: holds fields of plate 'plate1', but .*plate0\.zarr"):
        run(data | {"qcs": data["qcs"][::-1]}, tmp_path / "model")
    with pytest.raises(UserError, match="2 stores, but 1 tables of fields"):
        run(data | {"qcs": data["qcs"][:1]}, tmp_path / "model")
    with pytest.raises(UserError, match="both are plate 'plate0'"):
        run(data | {"stores": data["stores"][:1] * 2}, tmp_path / "model")
    write_table(read_table(data["qcs"][0]), data["qcs"][0], {"digest": "of another run"})
    with pytest.raises(UserError, match=r"plate0\.qc\.parquet and .*plate0\.zarr: were not made by the same run"):
        run(data, tmp_path / "model")


def test_a_killed_training_goes_on_with_the_same_result(trained, rings, tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=run, args=(rings, tmp_path))
    process.start()
    state = tmp_path / ".fold-0.resume"
    deadline = time.monotonic() + 120
    while not state.exists() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.join()
    assert state.exists() and not (tmp_path / "fold-0.safetensors").exists()
    at = torch.load(state, weights_only=True)["rows"][-1]["step"]
    path = run(rings, tmp_path)
    history = read_table(path.with_name("history-0.parquet"))
    assert history["seconds"].iloc[-1] > 0 and at in set(history["step"])
    assert path.read_bytes() == trained.read_bytes()
    assert not state.exists()


def test_a_state_of_other_settings_or_a_broken_one_is_not_gone_on_from(trained, rings, tmp_path):
    (tmp_path / ".fold-0.resume").write_bytes(b"PK\x03\x04 cut short")
    assert run(rings, tmp_path).read_bytes() == trained.read_bytes()


def test_fields_flagged_in_quality_control_are_left_out(rings, tmp_path):
    quality = read_table(rings["qcs"][0])
    bad = (quality["well"] == "A01") | ((quality["well"] == "B01") & (quality["field"] == 1))
    write_table(quality.assign(used=~bad), tmp_path / "qc.parquet")
    data = rings | {"qcs": [tmp_path / "qc.parquet", rings["qcs"][1]]}
    card = load_model(run(data, tmp_path, steps=1, evaluations=1))[1]
    wells = [well for part in card.parts.values() for well in part]
    assert "plate0/A01" not in wells and "plate0/B01" in wells


def test_memory_is_bounded(rings, tmp_path):
    card = load_model(run(rings, tmp_path, steps=1, evaluations=1, max_fields=8))[1]
    # Eight fields, evenly from two plates and two classes: at most eight wells a part, at least four.
    counts = pd.Series([well.split("/")[0] + well.split("/")[1][0] for well in card.parts["train"]]).value_counts()
    assert len(counts) == 4 and counts.max() <= 2


def test_no_class_is_lost_however_few_fields_are_held(tmp_path):
    # Ten plates of two classes: 20 groups of a plate and class share six places.
    data = screen(tmp_path, {"negative": {disc: 6}, "ring": {ring: 6}}, n_plates=10, pixel_sizes=(1.0,) * 10)
    for seed in range(4):
        card = load_model(run(data, tmp_path / str(seed), steps=1, evaluations=1, max_fields=6, seed=seed))[1]
        assert all(counts == {"negative": 3, "ring": 3} for counts in card.n_fields.values())
        assert all(len({well.split("/")[0] for well in part}) >= 3 for part in card.parts.values())


def test_pixel_sizes_may_differ_by_a_hundredth(tmp_path):
    data = screen(tmp_path, {"negative": {disc: 6}, "ring": {ring: 6}}, pixel_sizes=(0.65, 0.6500001))
    assert load_model(run(data, tmp_path, steps=1, evaluations=1))[1].pixel_size_um == 0.65


def test_several_phenotypes_are_learnt_side_by_side(tmp_path):
    contents = {"negative": {disc: 6}, "cross": {disc: 4, cross: 3}, "ring": {disc: 4, ring: 3}}
    data = screen(tmp_path, contents, n_plates=1)
    card = load_model(run(data, tmp_path, steps=100, evaluations=2))[1]
    assert card.classes == ["negative", "cross", "ring"] and set(card.thresholds) == {"cross", "ring"}
    assert all(card.metrics["test"][name]["well_auc"] >= 0.9 for name in ("cross", "ring"))


def test_frozen_layers_stay_and_the_start_is_the_other_model(trained, rings, tmp_path):
    path = run(rings, tmp_path, steps=5, evaluations=1, start_from=str(trained.parent), freeze=2)
    before, after = load_model(trained)[0].state_dict(), load_model(path)[0].state_dict()
    for name, tensor in before.items():
        if name.startswith(("blocks.0", "blocks.1")):
            assert torch.equal(tensor, after[name]), name
    assert not torch.equal(before["classify.weight"], after["classify.weight"])
    with pytest.raises(UserError, match=r"train\.freeze"):
        run(rings, tmp_path / "x", freeze=2)
    with pytest.raises(UserError, match="cannot be the start"):
        run(rings, tmp_path / "y", start_from=str(trained.parent), model={"architecture": "wscnn4"})


def test_to_another_phenotype_the_head_starts_anew_on_the_features_that_there_are(trained, rings, tmp_path):
    other = tmp_path / "controls.parquet"
    controls = read_table(rings["controls"])
    write_table(controls.assign(phenotype=controls["phenotype"].replace("ring", "hoop")), other)
    # With no rate to speak of, what is told apart is told apart by where the training starts.
    still = {"steps": 1, "evaluations": 1, "learning_rate": 1e-12, "start_from": str(trained.parent)}
    before = load_model(trained)[0].state_dict()
    for name, data, model in (("phenotype", rings | {"controls": other}, {}), ("pool", rings, {"pool": "topk"})):
        path = run(data, tmp_path / name, freeze=3, model=model, **still)
        network, card = load_model(path)
        assert card.metrics["test"][card.classes[1]]["field_auc"] >= 0.95, name
        # Even odds for each field would cost log 2.
        assert read_table(path.with_name("history-0.parquet"))["loss"][0] < np.log(2), name
        after = network.state_dict()
        assert all(torch.equal(before[key], after[key]) for key in before if key.startswith("blocks")), name
    # Where classes and pool are the same the last layer is the earlier one.
    after = load_model(run(rings, tmp_path / "same", freeze=3, **still))[0].state_dict()
    assert torch.allclose(before["classify.weight"], after["classify.weight"], atol=1e-6)


def test_a_score_is_what_was_trained_unless_noisy_or_was(rings, tmp_path):
    quick = {"steps": 1, "evaluations": 1}
    for pool, score_pool in (("noisy_or", "topk"), ("avg", "same"), ("max", "same")):
        assert load_model(run(rings, tmp_path / pool, model={"pool": pool}, **quick))[1].score_pool == score_pool
    given = {"pool": "max", "score_pool": "topk"}
    assert load_model(run(rings, tmp_path / "given", model=given, **quick))[1].score_pool == "topk"


def test_papers_preset_trains(rings, tmp_path):
    path = run(
        rings, tmp_path, preset="paper", steps=2, evaluations=1, model={"architecture": "compact", "pool": "max"}
    )
    assert load_model(path)[1].settings["train"]["preset"] == "paper"
    recipe = recipe_of(section("train", '{"preset": "paper"}'))
    assert (recipe["optimizer"], recipe["batch"], recipe["learning_rate"]) == ("sgd", 50, 1e-4)


def test_training_images_may_be_whole_fields(rings, tmp_path):
    path = run(rings, tmp_path, tiles=1)
    assert load_model(path)[1].metrics["test"]["ring"]["well_auc"] >= 0.95
    # Mosaics of the same fields, under the same random numbers, teach something else.
    mosaics, whole = (run(rings, tmp_path / str(n), tiles=n, steps=2, evaluations=1) for n in (2, 1))
    assert mosaics.read_bytes() != whole.read_bytes()
    assert recipe_of(section("train", "{}"))["tiles"] == 2
    with pytest.raises(UserError, match="tiles"):
        section("train", '{"tiles": 3}')


def test_papers_step_is_down_the_whole_gradient_in_full_precision():
    images, labels = draw_concept(np.random.default_rng(0), 8, [{disc: 4}], [{ring: 4}])
    fields = Examples(torch.from_numpy(images)[:, None], torch.from_numpy(labels), [""] * 16)
    recipe = recipe_of(section("train", '{"preset": "paper", "steps": 1, "evaluations": 1, "batch": 8, "crop": 64}'))
    torch.manual_seed(0)
    network = WSCNN("compact", "max", 1, 2, "same")
    with torch.no_grad():
        network.classify.weight *= 30  # so that the gradient is long
    before = deepcopy(network).to(memory_format=torch.channels_last)
    fit(network, fields, fields, recipe, seed=3)
    drawn = Bags(fields.fields, fields.labels, 64, 2, recipe["augmentation"], 3)
    batch, classes = drawn.draw(8)
    before.loss(before(batch.contiguous(memory_format=torch.channels_last)), classes).backward()
    gradients = [weight.grad for weight in before.parameters()]
    assert torch.cat([gradient.flatten() for gradient in gradients]).norm() > 3
    for old, new, gradient in zip(before.parameters(), network.parameters(), gradients, strict=True):
        expected = old - recipe["learning_rate"] * (gradient + recipe["weight_decay"] * old)
        assert torch.allclose(new, expected, atol=1e-7)
    assert not recipe["bfloat16"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("constant", "field 1: all pixels have the same value"),
        ("small", "smaller than the 40 px"),
        ("pixel size", "plates that are trained on together need one pixel size"),
        ("crop", "train.crop: 32 px is too small for the network 'compact', which needs 40"),
        ("max_fields", "train.max_fields: 6 cannot hold a field of each of 7 classes"),
        ("channel", "has no channel GFP"),
        ("no fields", "too few control wells with usable fields"),
        ("no images", "no control well has images"),
    ],
)
def test_bad_input_is_told_before_the_first_step(tmp_path, spoil, message):
    contents: dict = {"negative": {disc: 6}, "ring": {ring: 6}}
    model = {"channels": ["GFP"]} if spoil == "channel" else {}
    sizes = (1.0, 0.5) if spoil == "pixel size" else (1.0, 1.0)
    data = screen(tmp_path, contents, side=32 if spoil == "small" else 48, pixel_sizes=sizes)
    train = {"crop": {"crop": 32}, "max_fields": {"max_fields": 6}}.get(spoil, {})
    if spoil == "max_fields":
        controls = read_table(data["controls"])
        many = np.where(controls["role"] == "positive", "p" + (controls.index % 6).astype(str), "")
        write_table(pd.concat([controls.assign(phenotype=many, plate=f"plate{i}") for i in range(3)]), data["controls"])
    if spoil == "constant":
        plate = zarr.open_array(data["stores"][0] / "A/01/0/0", mode="r+")
        plate[...] = 7
    if spoil == "no fields":
        for path in data["qcs"]:
            quality = read_table(path)
            write_table(quality.assign(used=quality["well"].str.startswith("A")), path)
    if spoil == "no images":
        write_table(read_table(data["controls"]).assign(plate="other"), data["controls"])
    with pytest.raises(UserError, match=message):
        run(data, tmp_path / "out", model=model, **train)
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").glob("*.safetensors"))


def bags(rng: np.random.Generator, n: int, negative, positive) -> Examples:
    """Return `n` images of each class as examples."""
    images, labels = draw_concept(rng, n, negative, positive)
    return Examples(torch.from_numpy(images)[:, None], torch.from_numpy(labels), [str(i) for i in range(2 * n)])


# Not the multi concept: no pool over one detector's places can say "ring and cross"; `wscnn reproduce pools` prints it.
@pytest.mark.parametrize("concept", ["single concept", "false frequency"])
@pytest.mark.parametrize(
    ("network", "settings"),
    [
        (("compact", "noisy_or", 1, 2, "topk"), {"steps": 400, "crop": 64}),
        # As in the paper it starts from random weights.
        pytest.param(("wscnn4", "max", 1, 2, "same"), {"steps": 150, "crop": 80, "heads": 0}, marks=pytest.mark.long),
    ],
    ids=["default", "paper"],
)
def test_presence_is_learnt_and_not_absence_or_frequency(concept, network, settings):
    rng = np.random.default_rng(1)
    contents = CONCEPTS[concept]
    torch.manual_seed(0)
    model = WSCNN(*network)
    recipe = recipe_of(section("train", json.dumps({"evaluations": 3}))) | settings
    train, select = (bags(rng, n, contents.negative, contents.positive) for n in (60, 20))
    fit(model, train, select, recipe, seed=0)
    test_bags = bags(rng, 30, contents.test_negative, contents.test_positive)
    logits, _ = evaluate(model, test_bags.fields)
    assert field_auc(logits, test_bags)[0] >= 0.9


def test_a_fold_holds_out_whole_plates_and_says_so(tmp_path):
    data = screen(tmp_path, {"negative": {disc: 6}, "ring": {disc: 4, ring: 2}}, n_plates=3, pixel_sizes=(1.0,) * 3)
    _, card = load_model(run(data, tmp_path / "model", steps=2, evaluations=1, hold_out="plate"))
    assert card.hold_out == "plate"
    plates = {part: {well.rpartition("/")[0] for well in wells} for part, wells in card.parts.items()}
    assert all(len(own) == 1 for own in plates.values())
    assert set.union(*plates.values()) == {"plate0", "plate1", "plate2"}
