"""Objects from maps: every planted one once, masks that measure right."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from matched import matched_filter
from scipy import ndimage
from skimage.measure import regionprops

from wscnn.network.saliency import saliency
from wscnn.plates.store import Channel, Plate, PlateWriter
from wscnn.scoring.masks import Extent, extent, find_objects, write_masks

STRIDE = 8
LENGTHS = Extent(distance=16, reach=20, sigma=1.0, fraction=0.3)


@limits(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), unique=True, max_size=8),
    st.integers(0, 10_000),
)
def test_every_planted_spot_is_found_once_where_it_is_also_at_borders(grid: list[tuple[int, int]], seed: int) -> None:
    # Spots in cells of 28 px, jittered by up to 4: they are never nearer than 20 px, and touch the image's border.
    jitter = np.random.default_rng(seed).integers(-4, 5, (len(grid), 2))
    places = [
        (int(4 + 28 * i + max(dy, 0)), int(4 + 28 * j + max(dx, 0)))
        for (i, j), (dy, dx) in zip(grid, jitter, strict=True)
    ]
    image = torch.full((1, 1, 96, 128), 0.1)
    for y, x in places:
        image[0, 0, y - 4 : y + 5, x - 4 : x + 5] = 1.0
    model = matched_filter()
    _, maps, gradient = saliency([model], image, [0.0])
    labels, _, objects = find_objects(maps[0, 0].numpy(), gradient[0, 0].numpy(), 0.0, STRIDE, LENGTHS)
    assert len(objects) == len(places)
    for y, x in places:
        distance = np.hypot(objects["y"] - y, objects["x"] - x)
        assert (distance < 5).sum() == 1
    assert set(np.unique(labels)) == set(range(len(places) + 1))


def test_nothing_above_the_threshold_is_no_object() -> None:
    labels, smooth, objects = find_objects(np.full((4, 5), -1.0), np.ones((32, 40)), 0.0, STRIDE, LENGTHS)
    assert objects.empty
    assert not labels.any()
    assert not smooth.any()


@pytest.mark.parametrize("sigma", [0.0, 1.0, 3.5])
def test_saliency_is_smoothed_as_by_scipy(sigma: float) -> None:
    gradient, detector = np.zeros((70, 90), np.float32), np.zeros((9, 12), np.float32)
    # One spot reaches the field's corner.
    rng = np.random.default_rng(0)
    gradient[:6, 80:] = rng.random((6, 10))
    gradient[30:41, 22:35] = rng.random((11, 13))
    detector[4, 3] = 1
    _, smooth, _ = find_objects(detector, gradient, 0.5, STRIDE, Extent(16, 20, sigma, 0.3))
    np.testing.assert_array_equal(smooth, ndimage.gaussian_filter(gradient, sigma))


@limits(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.floats(0.05, 0.9), st.floats(0, 4))
def test_measures_are_those_of_the_labels(seed: int, fraction: float, sigma: float) -> None:
    rng = np.random.default_rng(seed)
    detector, gradient = rng.normal(size=(7, 9)), rng.random((53, 70)) ** 4
    lengths = Extent(distance=12, reach=18, sigma=sigma, fraction=fraction)
    labels, smooth, objects = find_objects(detector, gradient, 0.5, STRIDE, lengths)
    props = regionprops(labels)
    assert [prop.label for prop in props] == list(range(1, len(objects) + 1))
    for prop, row in zip(props, objects.itertuples(), strict=True):
        assert (row.y0, row.x0, row.y1, row.x1) == prop.bbox
        assert (row.y, row.x) == pytest.approx(prop.centroid)
        assert row.area_px == prop.area
        assert row.score > 0.5
    assert smooth.shape == gradient.shape


def test_of_two_near_maxima_the_higher_stays() -> None:
    detector = np.full((8, 8), -5.0)
    detector[3, 3], detector[3, 4], detector[6, 6] = 2.0, 3.0, 1.0
    _, _, objects = find_objects(detector, np.ones((64, 64)), 0.0, STRIDE, LENGTHS)
    assert objects["score"].tolist() == [3.0, 1.0]


def test_a_plateau_is_one_object() -> None:
    detector = np.full((8, 8), -5.0)
    detector[2:5, 2:5] = 1.0
    _, _, objects = find_objects(detector, np.ones((64, 64)), 0.0, STRIDE, LENGTHS)
    assert len(objects) == 1


def test_without_a_gradient_the_place_itself_is_the_mask() -> None:
    detector = np.full((4, 5), -1.0)
    detector[1, 2] = 1.0
    _, _, objects = find_objects(detector, np.zeros((32, 40)), 0.0, STRIDE, LENGTHS)
    assert objects[["y0", "x0", "y1", "x1"]].to_numpy().tolist() == [[8, 16, 16, 24]]


@pytest.mark.parametrize(
    ("positions", "pixel", "expected"),
    [
        # Fields of 64 px of half a micrometre that touch, the stage a micrometre off.
        ([(0.0, 0.0), (0.0, 33.0), (32.0, 0.0)], 0.5, [3.0, 1.0, 2.0]),
        # The mosaic does not keep distances: fields that lie side by side there are far from each other.
        ([(0.0, 0.0), (0.0, 500.0), (700.0, 0.0)], 0.5, [2.0, 3.0, 1.0, 2.0]),
        ([(np.nan, np.nan)] * 3, 0.5, [2.0, 3.0, 1.0, 2.0]),
        ([(0.0, 0.0), (0.0, 33.0), (32.0, 0.0)], None, [2.0, 3.0, 1.0, 2.0]),
    ],
)
def test_a_cell_cut_by_the_seam_of_two_fields_that_touch_counts_once(
    positions: list, pixel: float | None, expected: list[float], tmp_path: Path
) -> None:
    writer = PlateWriter(tmp_path / "p.zarr", "p", ["A01"], [Channel("DNA", "FFFFFF", (0.0, 1.0))], pixel)
    fields = pd.DataFrame({"field": [1, 2, 3], "y": [0, 0, 64], "x": [0, 64, 0], "height": 64, "width": 64})
    fields[["y_um", "x_um"]] = positions
    writer.write_well("A01", np.zeros((1, 128, 128), np.uint16), fields, (64, 64))
    maps = np.full((3, 1, 8, 8), -5.0)
    maps[0, 0, 2, 7], maps[1, 0, 3, 0] = 2.0, 3.0  # one cell on the seam of fields 1 and 2
    maps[1, 0, 6, 5] = 1.0
    maps[2, 0, 2, 3] = 2.0
    gradients = np.ones((3, 1, 64, 64))
    plate = Plate(tmp_path / "p.zarr")
    rows = fields.to_records(index=False)
    objects = write_masks(plate, "A01", rows, (128, 128), maps, gradients, {"rare": 0.0}, STRIDE, LENGTHS)
    assert objects["score"].tolist() == expected
    assert objects["object"].tolist() == list(range(1, len(expected) + 1))
    assert np.unique(plate.read_label("A01", "rare")).tolist() == [0, *objects["object"]]


def test_lengths_come_from_the_network_unless_given() -> None:
    given_none = extent(40, {"min_distance_px": None, "sigma_px": 2, "mask_fraction": 0.3})
    assert given_none == Extent(distance=10, reach=30, sigma=2, fraction=0.3)
    assert extent(40, {"min_distance_px": 30, "sigma_px": 1, "mask_fraction": 0.5}).distance == 30


def test_an_object_beside_the_place_that_sees_it_best_is_covered_whole() -> None:
    # The place (5, 5) is centred on pixel (43.5, 43.5), right of all the object's pixels.
    detector, gradient = np.full((12, 12), -5.0), np.zeros((96, 96), np.float32)
    detector[5, 5] = 5.0
    box = np.s_[30:52, 20:42]
    gradient[box] = 1.0
    labels, _, objects = find_objects(
        detector, gradient, 0.0, 8, extent(40, {"min_distance_px": None, "sigma_px": 2, "mask_fraction": 0.3})
    )
    assert len(objects) == 1
    assert (labels[box] == 1).all()
