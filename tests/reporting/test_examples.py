"""The fields that the report shows with class map and saliency, from a network whose answers are known."""

import base64
import re
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pandas as pd
import pytest
from cards import card_of
from matched import matched_filter

from wscnn.core.screen_folder import ModelFolder
from wscnn.core.tables import FIELDS, conform, write_table
from wscnn.network.weights import save_model
from wscnn.plates.store import Channel, Plate, PlateWriter
from wscnn.reporting.class_maps import highest_positions
from wscnn.reporting.examples import Example, make_examples
from wscnn.reporting.results import Results, read_results

FIELD = 96
#: Middle of the one bright spot of the second field of A02, in pixels of that field.
SPOT = (40, 60)
#: Each fold's threshold for places; the first tested A01, the second A02, and the third is far from both.
PLACES = (2.0, 1.0, 30.0)


def save_folds(folder: Path, places: tuple[float, ...]) -> None:
    """Write three folds of one network, each with its threshold for places, that tested A01, A02 and A03."""
    for fold in range(3):
        card = card_of(
            "mitotic",
            fold,
            pool="max",
            score_pool="same",
            pixel_size_um=1.0,
            parts={"test": [f"P1/A{fold + 1:02d}"]},
            thresholds={"mitotic": {"field": 0.0, "place": places[fold]}},
        )
        save_model(folder / f"fold-{fold}.safetensors", matched_filter(), card)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A plate of two wells of two fields; one spot, in the positive well A02, masked."""
    results = tmp_path_factory.mktemp("results")
    writer = PlateWriter(results / "plates" / "P1.zarr", "P1", ["A01", "A02"], [Channel("DNA", "FFFFFF", (0, 1000))], 1)
    fields = pd.DataFrame({"field": [1, 2], "y": 0, "x": [0, FIELD], "height": FIELD, "width": FIELD})
    for well in ("A01", "A02"):
        image = np.zeros((1, FIELD, 2 * FIELD), np.uint16)
        if well == "A02":
            y, x = SPOT[0], FIELD + SPOT[1]
            image[0, y - 4 : y + 5, x - 4 : x + 5] = 1000
        writer.write_well(well, image, fields, (FIELD, FIELD))
        plate = Plate(results / "plates" / "P1.zarr")
        plate.write_labels(
            well,
            {"mitotic": (image[0] > 0).astype(np.uint16), "mitotic_saliency": (image[0] > 0).astype(np.uint8) * 255},
        )
    save_folds(results / "model", PLACES)
    wells = pd.DataFrame(
        {"plate": "P1", "well": ["A01", "A02"], "well_row": 0, "well_column": [0, 1], "phenotype": "mitotic"}
    )
    wells = wells.assign(screen="s", role=["negative", "positive"], perturbation=["dmso", "taxol"], score=[-5.0, 4.0])
    wells["fold"] = pd.array([0, 1], "Int8")
    write_table(wells, results / "wells.parquet")
    for name in ("hits", "plates"):
        write_table(wells[["plate"]], results / f"{name}.parquet")
    rows = pd.DataFrame({"well": ["A01", "A01", "A02", "A02"], "field": [1, 2, 1, 2], "score": [-5.0, -6.0, -5.0, 9.0]})
    rows = rows.assign(
        screen="s",
        plate="P1",
        phenotype="mitotic",
        used=True,
        score_sd=0,
        probability=0.5,
        n_objects=0,
        object_area_px=0,
    )
    write_table(conform(rows, FIELDS), results / "fields" / "P1.parquet")
    return read_results(results)


@pytest.fixture(scope="module")
def examples(results: Results) -> list[Example]:
    return make_examples(results)


def pixels(uri: str) -> np.ndarray:
    """Return the image in a data address."""
    kind, data = re.fullmatch(r"data:image/(\w+);base64,(.*)", uri).groups()
    decode = imagecodecs.jpeg8_decode if kind == "jpeg" else imagecodecs.png_decode
    return decode(base64.b64decode(data)).astype(int)


def points(path: str) -> np.ndarray:
    """Return the corners of an SVG path as (n, 2) of y and x."""
    return np.array([(float(y), float(x)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", path)])


def test_the_highest_field_of_positive_and_of_negative_controls_is_shown(examples: list[Example]) -> None:
    shown = [(example.role, example.well, example.field, example.score) for example in examples]
    assert shown == [("positive", "A02", 2, 9.0), ("negative", "A01", 1, -5.0)]


def test_the_class_map_is_bright_and_outlined_where_the_spot_is(examples: list[Example]) -> None:
    positive, negative = examples
    colors = pixels(positive.class_map)
    assert colors.shape == (FIELD, FIELD, 3) == pixels(positive.image).shape
    brightest = np.argwhere((colors == [253, 231, 37]).all(-1))
    assert np.abs(brightest.mean(0) - SPOT).max() < 8  # a place of the map is 8 px wide
    assert np.abs(points(positive.above).mean(0) - SPOT).max() < 8
    assert negative.above == "" and (pixels(negative.class_map) == [68, 1, 84]).all()
    assert (positive.low, positive.high) == (negative.low, negative.high)


def test_a_field_is_outlined_at_the_threshold_of_the_fold_that_scored_it(examples: list[Example]) -> None:
    positive, negative = examples
    assert (negative.threshold, positive.threshold) == PLACES[:2]


def test_mask_and_saliency_lie_on_the_spot_and_are_left_out_where_there_is_none(examples: list[Example]) -> None:
    positive, negative = examples
    assert np.abs(points(positive.masks).mean(0) - SPOT).max() < 1
    assert np.abs(np.argwhere(pixels(positive.saliency)[..., 3] > 0).mean(0) - SPOT).max() < 1
    assert negative.masks == "" and negative.saliency == ""


def test_the_highest_positions_below_the_threshold_are_found_where_nothing_was_detected(
    results: Results, tmp_path: Path
) -> None:
    wells = pd.DataFrame({"plate": "P1", "well": ["A01", "A02"], "phenotype": "mitotic"})
    wanted = [wells[:1], wells[1:]]
    # Nothing is above this threshold, so that the spot is the highest position below it.
    save_folds(tmp_path / "model", (30.0, 30.0, 30.0))
    dark, spot = highest_positions(replace(results, models=ModelFolder(tmp_path / "model")), wanted, 3, side=16)
    best = spot.iloc[0]
    assert best["field"] == 2 and np.hypot(best["y"] - SPOT[0], best["x"] - FIELD - SPOT[1]) < 8
    assert best["score"] == pytest.approx(20 * (1 - 0.6) - 2, abs=0.01)  # the filter's gain and biases
    assert (spot["score"] <= 30).all() and (spot["well"] == "A02").all()
    assert dark.empty  # a flat map has no highest position
    # What is above the threshold is an object, not one of these.
    _, rest = highest_positions(results, wanted, 3, side=16)
    assert (rest["score"] <= PLACES[1]).all()
    # Without a detector, as of novelty, there is no such position.
    [none] = highest_positions(results, [wells.assign(phenotype="novelty")], 3, side=16)
    assert none.empty


def test_without_weights_or_plates_there_is_no_example(tmp_path: Path) -> None:
    wells = pd.DataFrame(
        {"plate": "P1", "well": ["A01"], "well_row": 0, "well_column": 0, "phenotype": "a", "screen": "s"}
    )
    write_table(wells.assign(role="negative", perturbation="x", score=0.0), tmp_path / "wells.parquet")
    for name in ("hits", "plates"):
        write_table(wells[["plate"]], tmp_path / f"{name}.parquet")
    assert make_examples(read_results(tmp_path)) == []
