"""The model card says what the folds' cards hold, in Markdown that renders as it is meant."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from wscnn.cli import main
from wscnn.network.card import Card
from wscnn.statistics.calibration import fit_probability, probability, reliability

RANGES = {"train": range(1, 7), "select": range(7, 13), "test": range(13, 19)}


def fold_card(fold: int, **changes: Any) -> dict[str, Any]:
    """Return a fold's card as training writes it; figures differ from fold to fold so that a mix-up shows."""
    points = [{"predicted": 0.1, "observed": 0.2, "n": 10}, {"predicted": 0.8, "observed": 0.6 + 0.1 * fold, "n": 10}]
    areas = {"field_auc": 0.8 + 0.01 * fold, "well_auc": 0.9 + 0.01 * fold, "calibration": points}
    card = Card(
        architecture="compact",
        pool="noisy_or",
        score_pool="topk",
        channels=["DNA", "actin"],
        pixel_size_um=1.29,
        classes=["negative", "mitotic"],
        screen="screen_1",
        fold=fold,
        parts={part: [f"P{n % 2}/A{n:02d}" for n in numbers] for part, numbers in RANGES.items()},
        thresholds={"mitotic": {"field": -1.5 + fold, "place": 0.25}},
        n_fields={part: {"negative": 12 + fold, "mitotic": 13} for part in RANGES},
        metrics={"select": {"mitotic": areas | {"field_auc": 0.95}}, "test": {"mitotic": areas}},
        settings={"model": {"pool": "noisy_or"}, "train": {"seed": 7}},
        version="0.1.0",
    )
    return asdict(card) | changes


def write(folder: Path, *cards: dict[str, Any]) -> str:
    """Write cards to a model folder and return its model card."""
    folder.mkdir(exist_ok=True)
    for card in cards:
        (folder / f"fold-{card['fold']}.json").write_text(json.dumps(card))
    done = CliRunner().invoke(main, ["card", "--models", str(folder), "--output", str(folder / "README.md")])
    assert done.exit_code == 0, done.output
    return (folder / "README.md").read_text()


def table(text: str, heading: str) -> list[list[str]]:
    """Return the cells of the Markdown table whose heading row begins so, without heading and rule."""
    lines = iter(text.splitlines())
    head = next(line for line in lines if line.startswith(f"| {heading} |"))
    rule = next(lines)
    assert re.fullmatch(r"(\|---)+\|", rule), rule
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    # A row with another number of cells breaks the table for a reader.
    assert {len(row) for row in rows} == {rule.count("---")} == {head.strip("|").count("|") + 1}
    return rows


def test_the_card_tells_data_splits_and_figures_of_every_fold(tmp_path: Path) -> None:
    text = write(tmp_path / "model", *(fold_card(fold) for fold in range(3)))
    assert text.startswith("# Model of the screen `screen_1`")
    assert "18 control wells on 2 plates of the screen `screen_1`: `P0`, `P1`." in text
    facts = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", text, re.M))
    assert facts["classes"] == "`negative`, `mitotic`"
    assert facts["channels, in this order"] == "`DNA`, `actin`"
    assert facts["pixel size of the mosaics"] == "1.29 µm"
    splits = table(text, "fold | part | wells")
    assert [row[:3] for row in splits[:3]] == [["0", "train", "6"], ["0", "select", "6"], ["0", "test", "6"]]
    assert splits[8] == ["2", "test", "6", "14", "13"]
    figures = table(text, "fold | fields, select")
    assert figures[0] == ["0", "0.950", "0.900", "0.800", "0.900", "-1.50", "0.25"]
    assert figures[2] == ["2", "0.950", "0.920", "0.820", "0.920", "0.50", "0.25"]
    assert figures[3][:5] == ["mean", "0.950", "0.910", "0.810", "0.910"]


def test_calibration_is_pooled_over_the_folds(tmp_path: Path) -> None:
    text = write(tmp_path / "model", *(fold_card(fold) for fold in range(3)))
    rows = table(text, "predicted probability | share from positive wells | fields")
    # By hand: shares 0.6, 0.7, 0.8 in groups of ten; errors 0.1 (thrice), 0.2, 0.1, 0.0.
    assert rows == [["0.10", "0.20", "30"], ["0.80", "0.70", "30"]]
    assert "60 fields of `test` (mean error 0.100)" in text


def test_every_phenotype_has_its_own_figures(tmp_path: Path) -> None:
    cards = []
    for fold in range(3):
        card = fold_card(fold, classes=["negative", "mitotic", "giant"])
        for values in (card["thresholds"], *card["metrics"].values()):
            values["giant"] = values["mitotic"]
        for counts in card["n_fields"].values():
            counts["giant"] = 99
        cards.append(card)
    text = write(tmp_path / "model", *cards)
    assert "### `mitotic`" in text and "### `giant`" in text
    assert table(text, "fold | part | wells")[0][-1] == "99"


def test_what_is_not_known_is_said_to_be(tmp_path: Path) -> None:
    card = fold_card(0, pixel_size_um=None)
    card["metrics"]["test"]["mitotic"]["well_auc"] = float("nan")
    text = write(tmp_path / "model", card)
    assert "| pixel size of the mosaics | not known |" in text
    assert table(text, "fold | fields, select")[0][4] == "not known"
    assert "1 network that distinguishes `mitotic`" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no card of a fold"),
        ("{", "fold-0.json: not the card of a model"),
        ("{}", "fold-0.json: not the card of a model (no key architecture, pool,"),
        (json.dumps(fold_card(0, metrics={})), "a fold's card is incomplete"),
    ],
)
def test_a_folder_without_whole_cards_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "fold-0.json").write_text(content)
    done = CliRunner().invoke(main, ["card", "--models", str(tmp_path), "--output", str(tmp_path / "README.md")])
    assert done.exit_code == 1
    assert message in done.output and "Traceback" not in done.output
    assert not (tmp_path / "README.md").exists()


def test_a_fold_that_learned_nothing_is_a_warning_in_the_card(tmp_path: Path) -> None:
    weak = fold_card(1)
    weak["metrics"]["test"]["mitotic"]["well_auc"] = 0.51
    assert "**Warning:**" not in write(tmp_path / "good", fold_card(0), fold_card(1))
    text = write(tmp_path / "weak", fold_card(0), weak)
    assert text.count("**Warning:** the network of fold 1 learned next to nothing") == 1
    assert "an AUC of 0.51" in text


def test_reliability_groups_predictions_in_order_and_in_equal_parts() -> None:
    predicted = np.linspace(0, 0.99, 100)[::-1]
    points = reliability(predicted, predicted > 0.5)
    assert points["n"].tolist() == [10] * 10
    assert np.allclose(points["predicted"], np.arange(10) / 10 + 0.045)
    assert points["observed"].tolist() == [0] * 5 + [0.9] + [1] * 4
    # Fewer predictions than groups: each is its own.
    assert reliability(np.array([0.3, 0.3, 0.1]), np.array([1, 0, 0]))["n"].tolist() == [1, 1, 1]
    assert reliability(np.array([]), np.array([])).empty


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 999), apart=st.floats(0, 5), scale=st.floats(0.1, 10), shift=st.floats(-20, 20))
def test_probabilities_are_fitted_to_labels_whatever_the_unit_of_the_score(seed, apart, scale, shift):
    rng = np.random.default_rng(seed)
    negative, positive = rng.normal(size=30), rng.normal(size=20) + apart
    slope, offset = fit_probability(negative, positive)
    both = np.concatenate([negative, positive])
    predicted = probability(both, slope, offset)
    # What the likeliest logistic curve has to satisfy: its mean is that of Platt's labels, 1/32 and 21/22.
    assert predicted.mean() == pytest.approx((30 / 32 + 20 * 21 / 22) / 50, abs=1e-3)
    assert slope >= 0
    other = fit_probability(negative * scale + shift, positive * scale + shift)
    assert np.allclose(probability(both * scale + shift, *other), predicted, atol=1e-3)
    # The logistic of 0 is one half, of log 3 three quarters.
    assert np.allclose(probability(np.array([1.0, 1 + np.log(3) / 2]), 2.0, -2.0), [0.5, 0.75])


def test_the_card_says_what_was_held_out(tmp_path: Path) -> None:
    assert "three parts by well, all fields of a well together" in write(tmp_path / "wells", fold_card(0))
    settings = {"model": {"pool": "noisy_or"}, "train": {"seed": 7, "hold_out": "batch"}}
    text = write(tmp_path / "batches", fold_card(0, settings=settings))
    assert "three parts by batch, all wells of a plate together" in text
