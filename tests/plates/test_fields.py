"""Fields read from a plate: cut out of the mosaic and scaled by the plate's windows."""

import numpy as np
import pandas as pd
import pytest

from wscnn.core.errors import UserError
from wscnn.plates.fields import read_fields
from wscnn.plates.store import BOX, Channel, Plate, PlateWriter


@pytest.fixture
def plate(tmp_path) -> Plate:
    channels = [Channel("DNA", "0000FF", (100, 300)), Channel("flat", "00FF00", (7, 7))]
    writer = PlateWriter(tmp_path / "p.zarr", "p", ["A01"], channels, 0.5)
    boxes = [(1, 0, 0), (2, 0, 16), (4, 16, 0)]
    fields = pd.DataFrame([{"field": f, "y": y, "x": x, "height": 10, "width": 12} for f, y, x in boxes])
    mosaic = np.full((2, 32, 32), 7, dtype=np.uint16)
    for number, (_, y, x) in enumerate(boxes):
        mosaic[0, y : y + 10, x : x + 12] = 100 + 50 * number
        mosaic[0, y, x] = 500
    writer.write_well("A01", mosaic, fields, (16, 16))
    return Plate(tmp_path / "p.zarr")


def boxes(plate: Plate) -> np.ndarray:
    return plate.fields("A01")[BOX].to_numpy()


def test_window_becomes_0_to_1_and_what_is_outside_it_is_kept(plate):
    fields = read_fields(plate, "A01", ["DNA"], boxes(plate))
    assert fields.shape == (3, 1, 10, 12) and fields.dtype == np.float32
    np.testing.assert_allclose(fields[:, 0, 5, 5], [0, 0.25, 0.5])
    np.testing.assert_allclose(fields[:, 0, 0, 0], 2)


def test_fields_come_as_asked(plate):
    fields = read_fields(plate, "A01", ["DNA"], boxes(plate)[[2, 1]])
    np.testing.assert_allclose(fields[:, 0, 5, 5], [0.5, 0.25])


def test_channels_come_as_asked_and_one_without_contrast_is_zero(plate):
    fields = read_fields(plate, "A01", ["flat", "DNA"], boxes(plate))
    assert fields.shape == (3, 2, 10, 12)
    assert (fields[:, 0] == 0).all() and fields[:, 1].max() == 2


def test_what_is_not_there_is_named(plate):
    with pytest.raises(UserError, match="no channel GFP"):
        read_fields(plate, "A01", ["GFP"], boxes(plate))


@pytest.mark.parametrize("box", [(31, 0, 10, 12), (0, 21, 10, 12), (0, 0, 10, 11)])
def test_a_box_that_is_not_in_the_mosaic_or_of_another_size_is_told(plate, box):
    with pytest.raises(
        UserError, match="well A01: fields differ in size or lie outside the mosaic; stage the plate again"
    ):
        read_fields(plate, "A01", ["DNA"], np.array([(0, 0, 10, 12), box]))
