"""Which cells are shown, and what their pictures hold."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from wscnn.core.screen_folder import ScreenFolder
from wscnn.plates.store import Channel, Plate, PlateWriter
from wscnn.reporting.gallery import shown_hits, top_cells
from wscnn.reporting.pictures import Picture, compose, cut_pictures, outlines, picture_side, random_cells

SIDE = 20
FIELD = 60


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One plate, one well of two fields: four cells in the first, the third of them masked; the other is empty."""
    folder = tmp_path_factory.mktemp("screen") / "plates"
    folder.mkdir()
    writer = PlateWriter(folder / "P1.zarr", "P1", ["B03"], [Channel("DNA", "0000FF", (100.0, 1100.0))], 0.5)
    y, x = np.mgrid[:FIELD, : 2 * FIELD]
    image = np.full(y.shape, 100.0)
    for top, left in CELLS:
        image += 1000 * np.exp(-((y - top) ** 2 + (x - left) ** 2) / 8)
    image[:, FIELD:] = 100
    fields = pd.DataFrame({"field": [1, 2], "y": 0, "x": [0, FIELD], "height": FIELD, "width": FIELD})
    writer.write_well("B03", image.astype(np.uint16)[None], fields, (FIELD, FIELD))
    mask = ((y - CELLS[2][0]) ** 2 + (x - CELLS[2][1]) ** 2 <= 9).astype(np.uint16)
    Plate(folder / "P1.zarr").write_labels("B03", {"mitotic": mask, "mitotic_saliency": (mask * 200).astype(np.uint8)})
    return folder


CELLS = [(12, 12), (12, 48), (40, 30), (58, 58)]


def place(y: float, x: float, **more: object) -> dict[str, object]:
    return {"plate": "P1", "well": "B03", "field": 1, "y": y, "x": x, "phenotype": "mitotic", **more}


def cut(plates: Path, *places: dict[str, object]) -> list[Picture | None]:
    return cut_pictures(ScreenFolder(plates.parent), pd.DataFrame(list(places)), SIDE)


def test_a_picture_shows_its_cell_in_the_middle(plates: Path) -> None:
    (picture,) = cut(plates, place(40, 30, score=2.5))
    image = picture.image[..., 0]
    assert image.shape == (SIDE, SIDE)
    assert np.unravel_index(image.argmax(), image.shape) == (SIDE // 2, SIDE // 2)
    assert image.max() > 240
    assert image.min() < 10
    assert (picture.plate, picture.well, picture.field, picture.y, picture.x, picture.score) == (
        ("P1", "B03", 1, 40.0, 30.0, 2.5)
    )


def test_a_picture_does_not_reach_over_its_fields_border(plates: Path) -> None:
    (picture,) = cut(plates, place(58, 58))
    image = picture.image[..., 0]
    # Moved up and left until it ends with the field: the cell at (58, 58) lies 2 px from the lower right corner.
    assert np.unravel_index(image.argmax(), image.shape) == (SIDE - 2, SIDE - 2)


def test_a_picture_larger_than_its_field_is_filled_with_black(plates: Path) -> None:
    (picture,) = cut_pictures(ScreenFolder(plates.parent), pd.DataFrame([place(40, 30)]), 100)
    image = picture.image[..., 0]
    assert image.shape == (100, 100)
    assert image[70:, 70:].max() < 10


def test_outline_and_saliency_lie_on_the_masked_cell_alone(plates: Path) -> None:
    masked, plain = cut(plates, place(40, 30), place(12, 12))
    points = np.array(re.findall(r"([\d.]+) ([\d.]+)", masked.outline), dtype=float)
    assert np.allclose(points.mean(0), SIDE / 2 + 0.5, atol=0.5)
    assert np.abs(points - SIDE / 2).max() < 5
    assert masked.saliency[SIDE // 2, SIDE // 2] > 150
    assert plain.outline == ""
    assert plain.saliency.max() == 0
    assert plain.score is None


def test_pictures_of_one_plate_have_one_contrast(plates: Path) -> None:
    alone = cut(plates, place(12, 12))[0].image
    empty, _ = cut(plates, place(30, 90, field=2), place(12, 12))
    assert empty.image.max() < 10
    assert alone.max() > 240


def test_places_on_plates_that_are_gone_have_no_picture(plates: Path) -> None:
    gone, there = cut(plates, place(40, 30, plate="P9"), place(40, 30))
    assert gone is None
    assert there is not None


def test_random_cells_are_the_cells_that_are_there(plates: Path) -> None:
    cells = random_cells(plates / "P1.zarr", ["B03"], 10, SIDE, seed=0)
    first = cells[cells["field"] == 1]
    assert np.allclose(sorted(zip(first["y"], first["x"], strict=True)), CELLS, atol=1)
    # A field without a cell gives its centre.
    assert cells.loc[cells["field"] == 2, ["y", "x"]].to_numpy().tolist() == [[30, 90]]


def test_random_cells_are_as_many_as_asked_for_and_the_same_for_a_seed(plates: Path) -> None:
    draws = [random_cells(plates / "P1.zarr", ["B03"], 2, SIDE, seed) for seed in (1, 1, *range(2, 9))]
    assert all(len(cells) == 2 for cells in draws)
    assert draws[0].equals(draws[1])
    assert not all(cells.equals(draws[0]) for cells in draws)


def test_top_cells_are_spread_over_wells() -> None:
    scores = {"A01": [9.0, 8.0, 7.0, 6.0], "A02": [1.0], "A03": [2.0]}
    rows = [("P1", well, number, score) for well, values in scores.items() for number, score in enumerate(values)]
    objects = pd.DataFrame(rows, columns=["plate", "well", "object", "score"])
    assert top_cells(objects, 4)["score"].tolist() == [9, 8, 2, 1]
    assert top_cells(objects, 3)["score"].tolist() == [9, 8, 2]
    # One well alone may give all.
    assert top_cells(objects[objects["well"] == "A01"], 4)["score"].tolist() == [9, 8, 7, 6]


def test_hits_shown_are_the_best_samples_or_the_nearest() -> None:
    hits = pd.DataFrame({"perturbation": list("abcdef"), "role": ["positive"] + ["sample"] * 5, "rank": range(1, 7)})
    called = hits.assign(hit=[True, True, False, True, False, False])
    assert shown_hits(called)["perturbation"].tolist() == ["b", "d"]
    many = pd.DataFrame({"perturbation": [f"{n:04d}" for n in range(1000)], "rank": range(1000), "hit": True})
    assert len(shown_hits(many)) == 1000
    assert shown_hits(hits.assign(hit=False))["perturbation"].tolist() == ["b", "c", "d"]
    # What could not be tested is near nothing.
    untested = hits.assign(hit=False, rank=pd.array([1, None, 3, None, None, None], "Int32"))
    assert shown_hits(untested)["perturbation"].tolist() == ["c"]


def test_pictures_are_three_times_as_wide_as_objects() -> None:
    boxes = pd.DataFrame({"y0": 0, "x0": 0, "y1": [10, 25, 25], "x1": [12, 20, 30]})
    assert picture_side(boxes) == 74  # three times 25, to an even number
    assert picture_side(boxes.assign(y1=1000)) == 160
    assert picture_side(boxes[:0]) == 64


def test_one_channel_is_grey_and_several_have_their_colours() -> None:
    image = np.array([[[0.0, 100.0]], [[50.0, 200.0]]])
    red, green = Channel("a", "FF0000", (0, 1)), Channel("b", "00FF00", (0, 1))
    assert compose(image[:1], [red], [(0.0, 100.0)]).tolist() == [[[0, 0, 0], [255, 255, 255]]]
    both = compose(image, [red, green], [(0.0, 100.0), (0.0, 100.0)])
    assert both.tolist() == [[[0, 128, 0], [255, 255, 0]]]


def test_outlines_surround_each_object_also_at_the_border() -> None:
    mask = np.zeros((8, 8), np.uint16)
    mask[0:3, 0:3], mask[5:7, 4:8] = 1, 2
    first, second = sorted(outlines(mask), key=lambda line: line[:, 0].min())
    assert (first.min(0).tolist(), first.max(0).tolist()) == ([-0.5, -0.5], [2.5, 2.5])
    assert (second.min(0).tolist(), second.max(0).tolist()) == ([4.5, 3.5], [6.5, 7.5])
