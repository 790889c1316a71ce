"""Detectors on an encoder: wells that were held out stay so, rare objects are found, and chance is recognised."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, norm
from test_train import screen

from wscnn.core.config import section
from wscnn.core.errors import UserError
from wscnn.core.tables import read_table
from wscnn.encoder.encode import encode
from wscnn.network.card import read_card
from wscnn.network.weights import load_model
from wscnn.simulate.concepts import disc, ring
from wscnn.statistics.roc import auc
from wscnn.training.detector import Cells, _positions, fit_detectors, learned
from wscnn.training.thresholds import cell_threshold, recall
from wscnn.training.train import train_fold

MODEL, TRAIN = section("model", "{}"), section("train", '{"device": "cpu"}')


def learn(data: dict, output: Path, **encoder) -> Path:
    torch.set_num_threads(1)  # sums in another order give other bytes
    settings = section("encoder", json.dumps({"steps": 60, "device": "cpu"} | encoder))
    encode(data["stores"], data["qcs"], output, screen="s", model=MODEL, encoder=settings)
    return output


def train(data: dict, encoder: Path, output: Path, fold: int = 0, **changed) -> Path:
    path = output / f"fold-{fold}.safetensors"
    arguments = {"screen": "s", "model": MODEL, "train": TRAIN | changed, "encoder": encoder}
    train_fold(fold, data["controls"], data["stores"], data["qcs"], path, **arguments)
    return path


@pytest.fixture(scope="module")
def rings(tmp_path_factory) -> dict:
    contents = {"negative": {disc: 9}, "ring": {disc: 8, ring: 1}}
    return screen(tmp_path_factory.mktemp("rings"), contents, side=96)


@pytest.fixture(scope="module")
def encoder(rings, tmp_path_factory) -> Path:
    return learn(rings, tmp_path_factory.mktemp("model") / "encoder.safetensors")


@pytest.fixture(scope="module")
def fold(rings, encoder) -> Path:
    return train(rings, encoder, encoder.parent)


def test_one_ring_among_discs_is_learned_from_labels_of_wells(fold):
    card = read_card(fold.with_suffix(".json"))
    assert card.metrics["test"]["ring"]["well_auc"] > 0.9
    assert card.learned == {"ring": True} and card.outlined
    assert card.settings["encoder"]["steps"] == 60
    history = read_table(fold.with_name("history-0.parquet"))
    assert history["best"].sum() == 1 and history["step"].tolist()[0] == 150


def test_a_cell_that_differs_in_its_measures_alone_is_found_from_labels_of_wells():
    random = torch.Generator().manual_seed(0)
    n_wells, n_cells = 24, 20
    well = torch.arange(n_wells).repeat_interleave(n_cells)
    labels = (torch.arange(n_wells) % 2).long()
    measures = torch.randn((n_wells * n_cells, 3), generator=random)
    rare = (torch.arange(n_wells * n_cells) % n_cells == 0) & (labels[well] == 1)
    measures[rare, 1] += 6
    features = torch.randn((n_wells * n_cells, 4, 8), generator=random).half()
    names = [f"p/{n}" for n in range(n_wells)]
    cells = Cells(features, measures, well, labels, names, None)
    detectors = fit_detectors(cells, 2, {"steps": 150, "learning_rate": 0.02}, 0)
    scores = detectors.scores(cells)[:, 0]
    assert auc(scores[~rare].numpy(), scores[rare].numpy()) > 0.99
    assert detectors.cell_weights[0].abs().argmax() == 1
    # Squares that stand in for cells have no measures.
    squares = replace(cells, measures=measures[:, :0])
    assert fit_detectors(squares, 2, {"steps": 2, "learning_rate": 0.02}, 0).cell_weights.shape == (1, 0)


def test_the_same_seed_gives_the_same_bytes(rings, encoder, fold, tmp_path):
    one, other = (learn(rings, tmp_path / f"{name}.safetensors", steps=5) for name in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()
    assert train(rings, encoder, tmp_path).read_bytes() == fold.read_bytes()


def test_roles_do_not_count_for_the_encoder_but_its_layers_do_for_the_fold(encoder, fold):
    network, card = load_model(encoder)
    trained, _ = load_model(fold)
    assert card.parts == {} and card.classes == ["negative", "pasted"]
    for name, weights in network.blocks.state_dict().items():
        assert torch.equal(weights, trained.blocks.state_dict()[name])


def test_where_classes_do_not_differ_nothing_counts_as_learned(tmp_path):
    same = screen(tmp_path, {"negative": {disc: 9}, "ring": {disc: 9}}, side=96)
    path = train(same, learn(same, tmp_path / "encoder.safetensors", steps=5), tmp_path, seed=1)
    assert read_card(path.with_suffix(".json")).learned == {"ring": False}
    assert len(read_table(tmp_path / "history-0.parquet")) == 3


def test_an_encoder_is_taken_as_it_is(rings, encoder, fold, tmp_path):
    taken = learn(rings, tmp_path / "encoder.safetensors", start_from=str(encoder))
    assert load_model(taken)[0].state_dict().keys() == load_model(encoder)[0].state_dict().keys()
    assert torch.equal(load_model(taken)[0].classify.weight, load_model(encoder)[0].classify.weight)
    with pytest.raises(UserError, match=r"start_from: .*missing\.json: cannot be read"):
        learn(rings, tmp_path / "other.safetensors", start_from=str(tmp_path / "missing.safetensors"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch": 8}, "train.batch: has no effect on model.architecture 'encoder'"),
        ({"preset": "paper"}, "train.preset: 'paper' trains the paper's networks"),
        ({"freeze": 1}, "train.freeze: has no effect"),
    ],
)
def test_settings_of_layers_are_refused_where_layers_are_not_trained(rings, encoder, tmp_path, changed, message):
    with pytest.raises(UserError, match=message):
        train(rings, encoder, tmp_path, **changed)


def test_without_an_encoder_the_message_says_what_to_run(rings, tmp_path):
    with pytest.raises(UserError, match="run `wscnn encode` first"):
        train(rings, None, tmp_path)
    shutil.copy(rings["controls"], tmp_path / "encoder.json")
    with pytest.raises(UserError, match=r"encoder\.json"):
        train(rings, tmp_path / "encoder.safetensors", tmp_path)


@given(st.integers(6, 60), st.integers(6, 60))
def test_chance_is_that_of_the_rank_sum(n_negative, n_positive):
    # scipy's Mann-Whitney test by the normal approximation without continuity correction, one-sided, at 5 %.
    area = min(0.5 + norm.isf(0.05) * np.sqrt((n_negative + n_positive + 1) / (12 * n_negative * n_positive)), 0.65)
    assert learned(area + 0.005, n_negative, n_positive)
    assert not learned(area - 0.01, n_negative, n_positive)
    # Five wells are too few to say.
    assert learned(0.0, 5, n_positive)


def test_the_rank_sum_agrees_with_scipy():
    rng = np.random.default_rng(0)
    negative, positive = rng.normal(0, 1, 30), rng.normal(0.5, 1, 20)
    area = mannwhitneyu(positive, negative).statistic / 600
    p = mannwhitneyu(positive, negative, alternative="greater", method="asymptotic", use_continuity=False).pvalue
    assert learned(area, 30, 20) == (p < 0.05)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 6))
def test_each_cell_keeps_positions_of_its_own(region, kept):
    region = np.array(region)
    chosen = _positions(region, kept, np.random.default_rng(0))
    cells = [number for number in np.unique(region) if number]
    assert chosen.shape == (len(cells), kept)
    for number, positions in zip(cells, chosen, strict=True):
        assert set(region[positions]) == {number}
        assert len(set(positions.tolist())) == min(kept, (region == number).sum())


def test_the_threshold_of_cells_holds_its_rates():
    rng = np.random.default_rng(1)
    negative = [rng.normal(0, 1, 40) for _ in range(200)]
    positive = [np.concatenate([rng.normal(0, 1, 38), rng.normal(5, 1, 2)]) for _ in range(100)]
    threshold = cell_threshold(negative, positive)
    false = np.mean([(own > threshold).sum() for own in negative])
    true = np.mean([(own > threshold).sum() for own in positive])
    assert false <= max(0.1, 0.1 * true) < false + 0.02
    # 2 of 40 cells of N(5, 1): the share above the threshold, known from the normal distribution.
    assert abs(recall(np.concatenate(negative), np.concatenate(positive), threshold) - norm.sf(threshold, 5)) < 0.05


def test_recall_is_unknown_where_positive_wells_hold_nothing_else():
    rng = np.random.default_rng(2)
    assert np.isnan(recall(rng.normal(0, 1, 20), rng.normal(0, 1, 20), 1.0))
    assert np.isnan(recall(np.zeros(100), rng.normal(0, 1, 100), 1.0))
