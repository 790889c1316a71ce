"""Measures of cells: known values of drawn shapes, and what they must not depend on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.draw import disk, ellipse

from wscnn.staging.cell_measures import OF_CHANNEL, OF_SHAPE, cell_measures, find_cells, n_measures

NAMES = [*OF_SHAPE, *OF_CHANNEL]


@pytest.fixture(scope="module")
def shapes() -> tuple[np.ndarray, np.ndarray]:
    """A disc of radius 10, an ellipse of half-axes 20 and 8 and a square ring, of brightness 2, 4 and 4."""
    labels = np.zeros((80, 160), np.uint32)
    labels[disk((30, 30), 10)] = 1
    labels[ellipse(40, 80, 20, 8)] = 2
    labels[20:60, 110:150] = 3
    labels[30:50, 120:150] = 0
    return np.choose(labels, [1.0, 2.0, 4.0, 4.0])[None], labels


def test_drawn_shapes_have_their_known_measures(shapes):
    table = dict(zip(NAMES, cell_measures(*shapes).T, strict=True))
    assert n_measures(1) == len(NAMES)
    assert np.exp(table["log_area"]) == pytest.approx([np.pi * 10**2, np.pi * 20 * 8, 40 * 40 - 20 * 30], rel=0.04)
    assert np.exp(table["log_aspect"])[:2] == pytest.approx([1, 20 / 8], rel=0.04)
    # A convex shape fills its hull; the ring, open to one side, fills 1000 of 1600 pixels.
    assert table["solidity"] == pytest.approx([1, 1, 1000 / 1600], abs=0.05)
    assert table["form_factor"][0] == pytest.approx(1, abs=0.05) and table["form_factor"][2] < 0.5
    # 0 is the background of 1, and 1 the median cell's mean of 4.
    assert table["mean"] == pytest.approx([1 / 3, 1, 1])
    assert table["cv"] == pytest.approx([0, 0, 0], abs=1e-6)


@given(st.floats(0.1, 100), st.floats(-10, 1000))
def test_neither_gain_nor_background_counts(gain, offset):
    rng = np.random.default_rng(0)
    labels = np.zeros((60, 60), np.uint32)
    labels[5:25, 5:25], labels[30:50, 10:50] = 1, 2
    image = rng.normal(0, 0.1, (2, 60, 60)) + (labels > 0)
    assert cell_measures(gain * image + offset, labels) == pytest.approx(cell_measures(image, labels), abs=1e-3)


def test_a_field_without_cells_has_no_row():
    found = find_cells(np.zeros((2, 64, 64), np.float32), 4)
    assert found.measures.shape == (0, n_measures(2)) and not found.outlines.any() and not found.regions.any()
