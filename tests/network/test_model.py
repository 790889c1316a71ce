"""The network: what each position sees, the pools, and files that load without running code."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wscnn.core.errors import UserError
from wscnn.network.card import Card
from wscnn.network.cells import ImageCells
from wscnn.network.model import ARCHITECTURES, POOLS, SCORE_POOLS, WSCNN
from wscnn.network.model import score_fields as score
from wscnn.network.weights import check_fits, load_folds, load_model, save_model
from wscnn.staging.cell_measures import find_cells

# Worked out by hand from the layers: pixels a place sees along an axis.
RECEPTIVE_FIELDS = {"encoder": 28, "wscnn4": 70, "wscnn4_cells": 78, "wscnn6": 90, "compact": 40, "compact6": 64}


def network(
    architecture: str = "compact", pool: str = "noisy_or", channels: int = 1, classes: int = 2, **more
) -> WSCNN:
    torch.manual_seed(0)
    return WSCNN(architecture, pool, channels, classes, **more).eval()


def card(model: WSCNN, fold: int = 0, **changes) -> Card:
    values = {
        "architecture": model.architecture,
        "pool": model.pool,
        "score_pool": model.score_pool,
        "channels": [f"c{i}" for i in range(model.n_channels)],
        "pixel_size_um": 1.29,
        "classes": ["negative", *(f"p{i}" for i in range(1, model.n_classes))],
        "screen": "s",
        "fold": fold,
        "parts": {"train": ["a/A01"], "select": ["a/A02"], "test": ["a/A03"]},
        "thresholds": {f"p{i}": {"field": 0.5, "place": 1.0} for i in range(1, model.n_classes)},
    }
    return Card(**(values | changes))


def test_papers_layers():
    shapes = [
        list(w.shape) for name, w in network("wscnn4").named_parameters() if name.endswith("weight") and w.ndim == 4
    ]
    assert shapes == [[50, 1, 11, 11], [100, 50, 3, 3], [100, 100, 5, 5], [2, 100, 5, 5]]
    shapes = [list(w.shape) for w in network("wscnn4_cells", channels=3).parameters() if w.ndim == 4]
    assert shapes == [[50, 3, 11, 11], [100, 50, 7, 7], [100, 100, 5, 5], [2, 100, 5, 5]]
    assert sum(w.ndim == 4 for w in network("wscnn6").parameters()) == 6


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_place_sees_its_receptive_field_about_its_centre(architecture):
    model = network(architecture)
    image = torch.rand(1, 1, 216, 200, requires_grad=True)
    _, maps = score(model, image)
    i, j = 13, 12
    maps[0, 0, i, j].backward()
    seen = image.grad[0, 0].abs()
    for place, sums in ((i, seen.sum(1)), (j, seen.sum(0))):
        reached = torch.nonzero(sums).flatten()
        assert reached[-1] - reached[0] + 1 == model.receptive_field == RECEPTIVE_FIELDS[architecture]
        assert (reached[0] + reached[-1]) / 2 == place * model.stride + (model.stride - 1) / 2


@settings(deadline=None, max_examples=20)
@given(height=st.integers(60, 110), width=st.integers(60, 110), architecture=st.sampled_from(sorted(ARCHITECTURES)))
def test_map_covers_the_field_whatever_its_size(height, width, architecture):
    model = network(architecture, classes=3)
    with torch.no_grad():
        logits, maps = score(model, torch.rand(2, 1, height, width))
    assert logits.shape == (2, 2)
    assert maps.shape == (2, 2, -(-height // model.stride), -(-width // model.stride))
    assert torch.isfinite(logits).all()


def test_map_inside_a_field_does_not_depend_on_what_is_around_it():
    model = network("wscnn4")
    image = torch.rand(1, 1, 240, 240)
    with torch.no_grad():
        whole = score(model, image)[1]
        part = score(model, image[..., 40:200, 40:200])[1]
    # Places further from the edge than half a receptive field, 35 px: five places of 8 px.
    torch.testing.assert_close(part[..., 5:-5, 5:-5], whole[..., 10:20, 10:20])


@pytest.mark.parametrize(("pool", "score_pool"), list(itertools.product(POOLS, SCORE_POOLS)))
def test_every_pool_scores_and_lets_gradients_through(pool, score_pool):
    model = network(pool=pool, channels=2, classes=3, score_pool=score_pool)
    image = torch.rand(2, 2, 70, 81, requires_grad=True)
    logits, _ = score(model, image)
    logits.sum().backward()
    assert torch.isfinite(logits).all() and image.grad.abs().sum() > 0


@pytest.mark.parametrize("value", [-1e5, -50.0, -6.0, 0.0, 6.0, 50.0, 1e4])
def test_noisy_or_is_the_chance_of_any_place_and_never_infinite(value):
    model = network()
    with torch.no_grad():
        model.classify.weight.zero_()
        model.classify.bias.copy_(torch.tensor([0.0, value]))
    image = torch.rand(1, 1, 64, 64, requires_grad=True)
    logit, maps = score(model, image)
    logit.sum().backward()
    assert torch.isfinite(logit).all() and torch.isfinite(image.grad).all()
    p = 1 / (1 + np.exp(-np.float64(min(max(value, -700), 700))))
    if 1e-6 < p < 0.5:
        chance = 1 - (1 - p) ** maps[0].numel()
        if chance < 1 - 1e-12:
            assert logit.item() == pytest.approx(np.log(chance / (1 - chance)), rel=1e-3)


@pytest.mark.parametrize("place", [-30.0, -9.0, -7.0])
@pytest.mark.parametrize("leak", [0.02, 0.25, 0.6])
def test_a_leak_is_a_place_more_while_training_alone(place, leak):
    model = network(pool="leaky_noisy_or")
    maps = torch.zeros(1, 2, 20, 20)
    maps[:, 1] = place
    with torch.no_grad():
        model.leak.mul_(np.log(leak / (1 - leak)) / network_leak(model))
        alone, with_leak = (model.train(training).pooled(maps).item() for training in (False, True))
    p = 1 / (1 + np.exp(-place))
    # Henrion, Some practical issues in constructing belief networks, UAI 1987.
    expected = 1 - (1 - leak) * (1 - p) ** 400
    assert 1 / (1 + np.exp(-with_leak)) == pytest.approx(expected, rel=1e-4)
    assert 1 / (1 + np.exp(-alone)) == pytest.approx(1 - (1 - p) ** 400, rel=1e-3, abs=1e-12)


def network_leak(model: WSCNN) -> float:
    """Return the log-odds of a network's leak, which an image shows that has nothing else."""
    return model.train().pooled(torch.tensor([0.0, -200.0])[None, :, None, None]).item()


def test_a_leak_learns_how_often_an_empty_image_is_called_positive():
    model = network(pool="leaky_noisy_or").train()
    empty = torch.tensor([0.0, -200.0]).repeat(10, 1)[:, :, None, None]
    labels = torch.tensor([1] * 4 + [0] * 6)
    optimizer = torch.optim.Adam([model.leak], 1e-3)
    for _ in range(600):
        optimizer.zero_grad()
        model.loss(model.pooled(empty), labels).backward()
        optimizer.step()
    assert 1 / (1 + np.exp(-network_leak(model))) == pytest.approx(0.4, abs=0.01)


def test_noisy_or_goes_on_rising_where_the_chance_is_one_to_the_last_digit():
    model, logits = network(), []
    image = torch.rand(1, 1, 64, 64)
    for value in (2.0, 3.0, 4.0, 8.0):
        with torch.no_grad():
            model.classify.weight.zero_()
            model.classify.bias.copy_(torch.tensor([0.0, value]))
            logits.append(score(model, image)[0].item())
    assert logits == sorted(set(logits))


def test_fresh_noisy_or_calls_an_empty_place_negative():
    maps = score(network(), torch.zeros(1, 1, 64, 64))[1]
    assert maps.max() < -4


def test_losses_are_softmax_and_binary_cross_entropy():
    labels = torch.tensor([0, 1, 2])
    for pool in ("max", "noisy_or"):
        model = network(pool=pool, classes=3).train()
        logits = model(torch.rand(3, 1, 64, 64))
        z = logits.detach().double().numpy()
        if pool == "max":
            full = np.concatenate([np.zeros((3, 1)), z], axis=1)
            expected = -np.mean(
                [np.log(np.exp(row[k]) / np.exp(row).sum()) for row, k in zip(full, labels, strict=True)]
            )
        else:
            p, truth = 1 / (1 + np.exp(-z)), np.array([[0, 0], [1, 0], [0, 1]])
            expected = -np.mean(truth * np.log(p) + (1 - truth) * np.log1p(-p))
        assert model.loss(logits, labels).item() == pytest.approx(expected, rel=1e-4)


def test_max_is_the_difference_of_the_class_maps_maxima():
    model = network(pool="max").train()
    images = torch.rand(2, 1, 80, 80)
    with torch.no_grad():
        maps = model.class_map(images)
        torch.testing.assert_close(model(images)[:, 0], maps[:, 1].amax((1, 2)) - maps[:, 0].amax((1, 2)))


def test_the_dense_layer_begins_as_the_mean_over_places_and_learns_each_place():
    maps = torch.randn(3, 2, 21, 30)
    dense = WSCNN("compact", "fc", 1, 2)
    torch.testing.assert_close(dense.pooled(maps), WSCNN("compact", "avg", 1, 2).pooled(maps))
    dense.pooled(maps).sum().backward()
    assert dense.dense.grad.unique().numel() > 21 * 30


def test_too_small_a_field_and_unknown_names_are_told():
    with pytest.raises(UserError, match="too small"):
        score(network("wscnn4"), torch.rand(1, 1, 40, 40))
    for arguments in (("nope", "max", 1, 2), ("compact", "nope", 1, 2), ("compact", "max", 1, 2, "nope")):
        with pytest.raises(UserError, match="'nope' is unknown; choose one of"):
            WSCNN(*arguments)


@pytest.mark.parametrize("pool", POOLS)
def test_saved_model_scores_the_same(tmp_path, pool):
    model = network("compact", pool, channels=2, classes=3)
    path = tmp_path / "fold-1.safetensors"
    save_model(path, model, card(model, 1))
    again, read = load_model(path)
    image = torch.rand(1, 2, 64, 64)
    assert read == card(model, 1) and not again.training
    assert torch.equal(score(again, image)[0], score(model, image)[0])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["fold-1.json", "fold-1.safetensors"]


def broken(path: Path, how: str) -> Path:
    weights, text = path, path.with_suffix(".json")
    match how:
        case "cut":
            weights.write_bytes(weights.read_bytes()[:-100])
        case "empty":
            weights.write_bytes(b"")
        case "missing":
            weights.unlink()
        case "other network":
            other = network("wscnn4")
            save_model(weights, other, card(other))
            text.write_text(json.dumps(json.loads(text.read_text()) | {"architecture": "compact"}))
        case "no card":
            text.unlink()
            return text
        case "card is no JSON":
            text.write_text("{")
            return text
        case "card lacks a key":
            content = json.loads(text.read_text())
            del content["thresholds"]
            text.write_text(json.dumps(content))
            return text
        case "unknown architecture":
            text.write_text(json.dumps(json.loads(text.read_text()) | {"architecture": "nope"}))
            return text
    return weights


@pytest.mark.parametrize(
    "how",
    [
        "cut",
        "empty",
        "missing",
        "other network",
        "no card",
        "card is no JSON",
        "card lacks a key",
        "unknown architecture",
    ],
)
def test_a_broken_model_is_named(tmp_path, how):
    path = tmp_path / "fold-0.safetensors"
    save_model(path, network(), card(network()))
    guilty = broken(path, how)
    with pytest.raises(UserError, match=guilty.name):
        load_model(path)


def test_folds_come_in_order_and_must_agree(tmp_path):
    model = network()
    for fold in (2, 0, 1):
        save_model(tmp_path / f"fold-{fold}.safetensors", model, card(model, fold))
    assert [read.fold for _, read in load_folds(tmp_path)] == [0, 1, 2]
    save_model(tmp_path / "fold-1.safetensors", model, card(model, 1, pixel_size_um=0.65))
    with pytest.raises(UserError, match=r"fold-1\.json and fold-0\.json differ in pixel_size_um"):
        load_folds(tmp_path)
    with pytest.raises(UserError, match="holds no model"):
        load_folds(tmp_path / "nowhere")


def test_a_model_is_not_applied_to_other_channels_or_pixels():
    told = card(network(channels=2))
    check_fits(told, ["c1", "more", "c0"], 1.29)
    check_fits(told, ["c0", "c1"], None)
    with pytest.raises(UserError) as caught:
        check_fits(told, ["c0"], 0.645, "plate P1")
    assert len(caught.value.problems) == 2
    assert "plate P1: has no channel c1" in caught.value.problems[0]
    assert "0.645 um" in caught.value.problems[1] and "1.29 um" in caught.value.problems[1]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"fold": 1}, "fold: 1 under the name of another fold"),
        ({"fold": "0"}, "fold: '0' is not a whole number"),
        ({"fold": True}, "fold: True is not a whole number"),
        ({"parts": "a/A01"}, "parts: 'a/A01' is not a mapping"),
        ({"parts": {"train": "a/A01"}}, r"parts\.train: 'a/A01' is not a list"),
        ({"parts": {"tests": ["a/A01"]}}, r"parts\.tests: no such part"),
        ({"parts": {"train": ["a/A01"], "test": ["a/A01"]}}, "parts: well a/A01 is listed twice"),
        ({"parts": {"train": ["A01"]}}, "parts: 'A01' is not plate/well"),
        ({"thresholds": {}}, "thresholds: of no phenotype, not of p1"),
        ({"thresholds": {"p1": {"field": 0.5}}}, r"thresholds\.p1: has to hold field and place"),
        (
            {"thresholds": {"p1": {"field": float("nan"), "place": 0}}},
            r"thresholds\.p1\.field: nan is not a finite number",
        ),
        ({"thresholds": {"p1": {"field": 0.5, "place": float("inf")}}}, r"thresholds\.p1\.place: inf is not a finite"),
        (
            {"thresholds": {"p1": {"field": 10**400, "place": 0}}},
            r"thresholds\.p1\.field: 1000+ is not a finite number",
        ),
        ({"thresholds": {"p1": {"field": None, "place": 0}}}, r"thresholds\.p1\.field: None is not a number"),
        ({"thresholds": [0.5, 1.0]}, "thresholds: .* is not a mapping"),
        ({"probabilities": {"p1": {"slope": "1", "offset": 0}}}, r"probabilities\.p1\.slope: '1' is not a number"),
        ({"probabilities": {"p2": {"slope": 1, "offset": 0}}}, "probabilities: of p2, not of p1"),
        ({"channels": "DNA"}, "channels: 'DNA' is not a list"),
        ({"channels": []}, "channels: none, or one twice"),
        ({"classes": ["p1", "negative"]}, "classes: these have to be negative and at least one phenotype"),
        ({"classes": ["negative", "../x"]}, "classes: '../x' cannot name a folder"),
        ({"pixel_size_um": -1.0}, "pixel_size_um: -1.0 is not above 0"),
        ({"pixel_size_um": "1.29"}, "pixel_size_um: '1.29' is not a number"),
        ({"architecture": 4}, "architecture: 4 is not a text"),
        ({"digest": "0" * 64}, r"not the weights that fold-0\.json describes"),
        ({"digest": "abc"}, "digest: not a SHA-256"),
        ({"n_fields": {"train": {"p1": 1.5}}}, r"n_fields\.train\.p1: 1\.5 is not a whole number"),
    ],
)
def test_a_card_that_cannot_be_is_named_with_its_key(tmp_path, change, told):
    path = tmp_path / "fold-0.safetensors"
    save_model(path, network(), card(network()))
    text = path.with_suffix(".json")
    text.write_text(json.dumps(json.loads(text.read_text()) | change))
    with pytest.raises(UserError, match=rf"fold-0\.(json|safetensors): {told}"):
        load_model(path)


def test_a_flipped_bit_of_the_weights_is_an_error(tmp_path):
    path = tmp_path / "fold-0.safetensors"
    save_model(path, network(), card(network()))
    whole = path.read_bytes()
    for place in range(100, len(whole), len(whole) // 20):
        broken = bytearray(whole)
        broken[place] ^= 1
        path.write_bytes(broken)
        with pytest.raises(UserError, match=r"fold-0\.safetensors: not the weights that fold-0\.json describes"):
            load_model(path)


def test_figures_that_are_not_known_are_null_in_the_card(tmp_path):
    path = tmp_path / "fold-0.safetensors"
    save_model(path, network(), card(network(), metrics={"test": {"p1": {"well_auc": float("nan")}}}))
    assert '"well_auc": null' in path.with_suffix(".json").read_text()
    assert np.isnan(load_model(path)[1].metrics["test"]["p1"]["well_auc"])
    with pytest.raises(UserError, match=r"thresholds\.p1\.field: nan is not a finite number"):
        save_model(path, network(), card(network(), thresholds={"p1": {"field": float("nan"), "place": 0.0}}))


def test_the_share_of_positive_cells_and_what_their_measures_add():
    rng = np.random.default_rng(0)
    image = np.full((1, 96, 96), 0.1, np.float32)
    for y, x in ((24, 24), (24, 70), (70, 46)):
        image[0, y - 9 : y + 9, x - 9 : x + 9] = 0.8
    image += rng.normal(0, 0.01, image.shape).astype(np.float32)
    model = WSCNN("encoder", "noisy_or", 1, 3, "share").eval()
    field = torch.from_numpy(image)[None]
    with torch.no_grad():
        _, plain = score(model, field)
        assert not model.judges_cells
        model.cell_spread.fill_(2.0)
        model.cell_weight.normal_()
        model.cell_share.fill_(0.25)
        logits, maps = score(model, field)
    found = find_cells(image, model.stride)
    assert len(found.measures) == 3
    added = np.clip(found.measures / 2, -6, 6) @ model.cell_weight.detach().numpy().T  # (cells, P)
    expected = plain[0].numpy() + np.concatenate([np.zeros((1, 2)), added])[found.regions].transpose(2, 0, 1)
    assert maps[0].numpy() == pytest.approx(expected, abs=1e-4)
    highest = np.array([[expected[p][found.regions == cell].max() for p in (0, 1)] for cell in (1, 2, 3)])
    share = ((1 / (1 + np.exp(-highest))).sum(0) + 0.25) / 4
    assert logits[0].numpy() == pytest.approx(np.log(share / (1 - share)), abs=1e-4)
    given = score(model, field, ImageCells.of([found]))[0].detach()
    assert torch.equal(given, logits)
