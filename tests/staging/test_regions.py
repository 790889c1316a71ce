"""Positions of a map belong to the cell that they lie on or beside."""

import itertools

import numpy as np

from wscnn.staging.regions import REACH, nuclear_channel, outline, regions, signal, tiles


def test_positions_belong_to_the_nearest_cell_within_reach():
    labels = np.zeros((100, 120), np.uint32)
    labels[40:60, 20:40] = 1
    labels[40:60, 60:80] = 2
    found = regions(labels, 4)
    assert found.shape == (25, 30)
    y, x = np.meshgrid(np.arange(25) * 4 + 1.5, np.arange(30) * 4 + 1.5, indexing="ij")

    def distance(left: int) -> np.ndarray:
        return np.hypot(np.maximum(np.maximum(40 - y, y - 59), 0), np.maximum(np.maximum(left - x, x - left - 19), 0))

    one, two = distance(20), distance(60)
    # Distances are counted from position to position: a stride more or less does not count.
    assert (found[(one < REACH - 4) & (one < two - 4)] == 1).all()
    assert (found[(two < REACH - 4) & (two < one - 4)] == 2).all()
    assert (found[(one > REACH + 6) & (two > REACH + 6)] == 0).all()


def test_without_cells_there_are_no_regions_and_squares_cover_all():
    assert not regions(np.zeros((64, 64), np.uint32), 4).any()
    squares = tiles((20, 17), 8)
    assert squares.min() == 1 and len(np.unique(squares)) == 9
    assert (np.bincount(squares.ravel())[1:] <= 64).all()


def test_a_cell_in_any_channel_is_signal():
    image = np.full((2, 60, 60), 100.0)
    image[0, 10:20, 10:20], image[1, 40:50, 40:50] = 200, 5000
    seen = signal(image)
    assert seen[15, 15] > 0.9 and seen[45, 45] > 0.9 and seen[30, 30] == 0


def test_cells_are_the_nuclei_of_the_channel_that_is_named_after_them() -> None:
    assert nuclear_channel(["GFP", "Hoechst 33342"]) == 1 and nuclear_channel(["DNA"]) == 0
    assert nuclear_channel(["GFP", "actin"]) is None
    random = np.random.default_rng(0)
    image = random.normal(0.05, 0.005, (2, 160, 160)).astype(np.float32)
    for y, x in itertools.product(range(20, 160, 40), repeat=2):
        image[1, y - 5 : y + 5, x - 5 : x + 5] = 0.5
    # A cytoplasmic stain covers half of the field, brighter than any nucleus.
    image[0, :, :80] = 1.0
    assert outline(image, 1).max() == 16
    assert outline(image).max() != 16
