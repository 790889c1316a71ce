"""Circles among ellipses: what is drawn is measured again with scikit-image."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import label, regionprops

from wscnn.core.errors import UserError
from wscnn.simulate.circles import BOXES, draw_circles, simulate_circles


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), fraction=st.floats(0.02, 1.0), circles=st.none() | st.integers(1, 30)
)  # fmt: skip
def test_every_image_holds_what_is_asked_for(seed: int, fraction: float, circles: int | None) -> None:
    images, labels, boxes = draw_circles(1, fraction, circles=circles, seed=seed)
    assert images.shape == (2, 210, 280)
    assert images.dtype == np.uint8
    assert labels.tolist() == [0, 1]
    assert list(boxes.columns) == list(BOXES)
    n = boxes.groupby("image").size()
    assert n.between(30, 48).all()
    assert not boxes.loc[boxes["image"] == 0, "circle"].any()
    expected = circles or max(1, round(fraction * n[1]))
    assert boxes.loc[boxes["image"] == 1, "circle"].sum() == expected
    assert (boxes["y0"] >= 0).all()
    assert (boxes["x0"] >= 0).all()
    assert (boxes["y1"] <= 210).all()
    assert (boxes["x1"] <= 280).all()


@pytest.fixture(scope="module")
def measured() -> pd.DataFrame:
    """Objects as scikit-image sees them, beside what the truth says of them; touching ones left out."""
    images, _, boxes = draw_circles(12, 0.3, seed=7)
    rows = []
    for number, image in enumerate(images):
        truth = boxes[boxes["image"] == number]
        for region in regionprops(label(image > 127)):
            inside = truth[
                truth["y"].between(region.bbox[0], region.bbox[2]) & truth["x"].between(region.bbox[1], region.bbox[3])
            ]
            if len(inside) == 1:
                rows.append(
                    inside.iloc[0].to_dict()
                    | {
                        "area": region.area,
                        "ratio": region.axis_minor_length / region.axis_major_length,
                        "seen": region.bbox,
                        "centroid": region.centroid,
                    }
                )
    table = pd.DataFrame(rows)
    # Next to nothing is lost to touching neighbours.
    assert len(table) > 0.9 * len(boxes)
    return table


def test_a_circle_is_told_from_an_ellipse_by_its_axes(measured: pd.DataFrame) -> None:
    circle = measured["circle"].astype(bool)
    assert measured.loc[circle, "ratio"].min() > 0.93
    assert measured.loc[~circle, "ratio"].between(0.45, 0.75).all()


def test_area_does_not_tell_a_circle_from_an_ellipse(measured: pd.DataFrame) -> None:
    circle = measured["circle"].astype(bool)
    diameter = np.sqrt(4 * measured["area"] / np.pi)
    assert diameter.between(14.5, 20.5).all()
    assert diameter[circle].mean() == pytest.approx(diameter[~circle].mean(), rel=0.03)


def test_boxes_hold_their_object(measured: pd.DataFrame) -> None:
    seen = np.array(measured["seen"].tolist())
    truth = measured[["y0", "x0", "y1", "x1"]].to_numpy()
    assert np.abs(seen - truth).max() <= 1
    centroid = np.array(measured["centroid"].tolist()) + 0.5
    assert np.abs(centroid - measured[["y", "x"]].to_numpy()).max() < 0.5


def test_objects_lie_within_their_move_of_a_grid_place(measured: pd.DataFrame) -> None:
    grid = np.stack(np.meshgrid(np.arange(6) * 35 + 17.5, np.arange(8) * 35 + 17.5, indexing="ij"), -1).reshape(-1, 2)
    far = np.linalg.norm(measured[["y", "x"]].to_numpy()[:, None] - grid, axis=2).min(1)
    assert far.max() <= 20


def test_the_seed_decides_and_more_images_begin_with_the_same() -> None:
    few, _, _ = draw_circles(2, seed=1)
    many, _, _ = draw_circles(3, seed=1)
    np.testing.assert_array_equal(few[:2], many[:2])
    np.testing.assert_array_equal(few[2:], many[3:5])
    other, _, _ = draw_circles(2, seed=2)
    assert (few != other).any()


def test_the_folder_holds_the_images_and_their_truth(tmp_path: Path) -> None:
    folder = tmp_path / "circles"
    simulate_circles(folder, n_per_class=3, circles=1, seed=4)
    images, labels, boxes = draw_circles(3, circles=1, seed=4)
    table = pd.read_csv(folder / "labels.tsv", sep="\t")
    for row in table.itertuples():
        np.testing.assert_array_equal(tifffile.imread(folder / row.file, key=row.page), images[row.image])
        assert row.label == ("negative", "positive")[labels[row.image]]
    assert len(table) == 6
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "boxes.parquet"), boxes)
    with pytest.raises(UserError, match="exists already"):
        simulate_circles(folder, n_per_class=3)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"n_per_class": 0}, "n_per_class"),
        ({"n_per_class": 1, "fraction": 0.0}, "fraction"),
        ({"n_per_class": 1, "circles": 31}, "circles"),
        ({"n_per_class": 1, "circles": 0}, "circles"),
        ({"n_per_class": 1, "axis_ratio": (0.5, 1.0)}, "axis_ratio"),
        ({"n_per_class": 1, "axis_ratio": (0.7, 0.5)}, "axis_ratio"),
    ],
)
def test_a_number_out_of_range_is_named(settings: dict, named: str) -> None:
    with pytest.raises(UserError, match=named):
        draw_circles(**settings)
