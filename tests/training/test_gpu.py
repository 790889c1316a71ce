"""What a GPU does otherwise than a CPU: it trains and scores to the same end, and to the same bytes every time."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from test_score import Screen
from test_train import rings, run  # noqa: F401

from wscnn.core.config import section
from wscnn.core.tables import read_table
from wscnn.network.model import ARCHITECTURES, POOLS, WSCNN
from wscnn.network.weights import load_model
from wscnn.simulate.concepts import disc, draw_concept, ring
from wscnn.training import fit as training
from wscnn.training.fit import Examples, fit
from wscnn.training.recipe import recipe_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def fitted(pool: str, architecture: str = "compact", times: int = 1, **train) -> dict:
    """Return the weights after a few steps on rings among discs, in fields that show them so many times a side."""
    images, labels = draw_concept(np.random.default_rng(0), 12, [{disc: 6}], [{disc: 4, ring: 2}])
    shown = torch.from_numpy(images)[:, None].half().repeat(1, 1, times, times)
    fields = Examples(shown, torch.from_numpy(labels), [""] * 24).to(torch.device("cuda"))
    quick = {"steps": 12, "batch": 8, "crop": 96, "evaluations": 3}
    torch.manual_seed(0)
    network = WSCNN(architecture, pool, 1, 2).cuda()
    history = fit(network, fields, fields, recipe_of(section("train", json.dumps(quick | train))), seed=1)
    assert np.isfinite(history["loss"]).all()
    return {name: weight.cpu() for name, weight in network.state_dict().items()}


def test_a_rare_object_is_learnt_to_the_same_bytes_every_time(rings, tmp_path):  # noqa: F811
    first, second = (run(rings, tmp_path / name, device="cuda") for name in ("first", "second"))
    assert load_model(first)[1].metrics["test"]["ring"]["well_auc"] >= 0.95
    assert first.read_bytes() == second.read_bytes()


def cut_off(rings, folder, monkeypatch, **train) -> None:  # noqa: F811
    """Train up to the first evaluation."""
    keep = training.save_checkpoint

    def keep_and_stop(*state):
        keep(*state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "save_checkpoint", keep_and_stop)
        run(rings, folder, **train)


def test_a_training_that_was_cut_off_goes_on_with_the_same_result(rings, tmp_path, monkeypatch):  # noqa: F811
    whole = run(rings, tmp_path / "whole", device="cuda")
    cut_off(rings, tmp_path / "cut", monkeypatch, device="cuda")
    path = run(rings, tmp_path / "cut", device="cuda")
    assert read_table(path.with_name("history-0.parquet"))["step"].iloc[0] == 15
    assert path.read_bytes() == whole.read_bytes()


def test_a_training_that_a_cpu_began_goes_on(rings, tmp_path, monkeypatch):  # noqa: F811
    with monkeypatch.context() as patch:
        patch.setattr("wscnn.training.train.pick_device", lambda name: torch.device("cpu"))
        cut_off(rings, tmp_path, monkeypatch, device="auto")
    path = run(rings, tmp_path, device="auto")
    assert load_model(path)[1].metrics["test"]["ring"]["well_auc"] >= 0.95
    assert len(read_table(path.with_name("history-0.parquet"))) == 3


@pytest.mark.parametrize("recipe", [{}, {"preset": "paper"}, {"tiles": 1}], ids=str)
@pytest.mark.parametrize("pool", POOLS)
def test_a_recorded_step_is_the_step(pool, recipe, monkeypatch):
    recorded = fitted(pool, **recipe)
    monkeypatch.setattr(training, "CudaGraphStep", lambda step: step)
    plain = fitted(pool, **recipe)
    for name, weight in plain.items():
        torch.testing.assert_close(
            recorded[name], weight, rtol=0.02, atol=2e-3, msg=lambda text, name=name: name + text
        )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_network_trains(architecture):
    torch.manual_seed(0)
    before = WSCNN(architecture, "noisy_or", 1, 2).state_dict()
    after = fitted("noisy_or", architecture, times=3, crop=150)
    assert not [name for name, weight in before.items() if torch.equal(weight, after[name])]


def test_scores_objects_and_masks_are_those_of_a_cpu(tmp_path):
    screen = Screen(tmp_path)
    tables = {name: screen.score(tmp_path / name, device=name[:4]) for name in ("cpu", "cuda", "cuda again")}
    for name, table in tables["cpu"].items():
        pd.testing.assert_frame_equal(tables["cuda"][name], table, rtol=1e-3, atol=1e-3)
        pd.testing.assert_frame_equal(tables["cuda"][name], tables["cuda again"][name])
