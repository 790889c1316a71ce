import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wscnn.core.errors import UserError
from wscnn.staging.mosaic import arrange, block_sums, crop_centre


def positions(places: dict[int, tuple[float, float]], well: str = "A01") -> pd.DataFrame:
    return pd.DataFrame(
        [(well, number, y, x) for number, (y, x) in places.items()], columns=["well", "field", "y_um", "x_um"]
    )


def corners(mosaic: object) -> dict[int, tuple[int, int]]:
    table = mosaic.fields  # type: ignore[attr-defined]
    return {f: (y, x) for f, y, x in zip(table["field"], table["y"], table["x"], strict=True)}


def test_touching_fields_lie_as_the_stage_stood() -> None:
    # y downwards: field 1 is the lower right of a 2 x 2 square of fields of 100 x 200 pixels of 0.5 um.
    stage = positions({1: (50.0, 100.0), 2: (0.0, 0.0), 3: (50.0, 0.0), 4: (0.2, 100.3)})
    mosaic = arrange(stage, (100, 200), 0.5, 2, "positions")
    assert mosaic.cell == (50, 100) and mosaic.shape == (100, 200)
    assert corners(mosaic) == {1: (50, 100), 2: (0, 0), 3: (50, 0), 4: (0, 100)}


def test_overlapping_fields_are_cropped_to_the_stages_step() -> None:
    stage = positions({1: (0, 0), 2: (0, 90), 3: (80, 0), 4: (80, 90)})
    mosaic = arrange(stage, (100, 100), 1.0, 1)
    assert mosaic.cell == (80, 90) and mosaic.shape == (160, 180)


@given(y=st.floats(0.3, 2.5), x=st.floats(0.3, 2.5), rows=st.integers(1, 4), columns=st.integers(1, 4))
def test_no_point_of_the_well_is_in_two_fields(y: float, x: float, rows: int, columns: int) -> None:
    places = {r * columns + c: (r * y * 100, c * x * 100) for r in range(rows) for c in range(columns)}
    mosaic = arrange(positions(places), (100, 100), 1.0, 1, "positions")
    for axis, n, step in ((0, rows, y), (1, columns, x)):
        # What a field keeps spans its cell about its centre: no more than the way to the next field's centre, but for
        # the half per cent that passes for the stage's inaccuracy.
        assert n == 1 or mosaic.cell[axis] <= step * 100 * 1.006
    assert len({*corners(mosaic).values()}) == rows * columns


def test_gaps_stay_empty_and_distances_are_not_kept() -> None:
    stage = positions({1: (0, 0), 2: (0, 1000), 5: (500, 1000)})
    mosaic = arrange(stage, (100, 100), 1.0, 1)
    assert mosaic.shape == (200, 200) and corners(mosaic) == {1: (0, 0), 2: (0, 100), 5: (100, 100)}
    assert mosaic.fields["x_um"].tolist() == [0, 1000, 1000]


def test_wells_that_count_from_the_plates_origin_and_miss_fields_share_one_grid() -> None:
    square = {1: (0.0, 0.0), 2: (0.0, 100.0), 3: (100.0, 0.0), 4: (100.0, 100.0)}
    far = {number: (y + 9000, x + 4500) for number, (y, x) in square.items() if number != 1}
    both = pd.concat([positions(square, "A01"), positions(far, "B02")], ignore_index=True)
    mosaic = arrange(both, (100, 100), 1.0, 1, "positions")
    assert corners(mosaic) == {1: (0, 0), 2: (0, 100), 3: (100, 0), 4: (100, 100)}


def test_without_positions_fields_make_a_near_square_grid_in_their_order() -> None:
    mosaic = arrange(positions(dict.fromkeys((3, 1, 7, 9, 4), (np.nan, np.nan))), (10, 20), None, 1)
    assert corners(mosaic) == {1: (0, 0), 3: (0, 20), 4: (0, 40), 7: (10, 0), 9: (10, 20)}
    assert mosaic.shape == (20, 60)


@pytest.mark.parametrize(
    ("places", "pixel", "words"),
    [
        ({1: (np.nan, np.nan)}, 1.0, "not known"),
        ({1: (0, 0)}, None, "pixel size"),
        ({1: (0, 0), 2: (0, 1)}, 1.0, "same position"),
        ({n: (37.0 * n, 153.0 * n) for n in range(12)}, 1.0, "rows and columns"),
    ],
)
def test_where_the_stage_cannot_be_followed_auto_makes_a_grid_and_says_so(
    places: dict, pixel: float | None, words: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(UserError, match=words):
        arrange(positions(places), (100, 100), pixel, 1, "positions")
    assert len({*corners(arrange(positions(places), (100, 100), pixel, 1, "auto")).values()}) == len(places)
    assert "side by side" in (said := capsys.readouterr().err) and words in said


def test_overlapping_fields_that_are_no_grid_are_laid_side_by_side_only_when_asked() -> None:
    scattered = {n: (37.0 * n, 53.0 * n) for n in range(12)}
    with pytest.raises(UserError, match=r"fields 0 and 1 of well A01 overlap, but .* rows and columns, .* grid"):
        arrange(positions(scattered), (100, 100), 1.0, 1, "auto")
    assert arrange(positions(scattered), (100, 100), 1.0, 1, "grid").cell == (100, 100)
    # Numbers that stand for other places in every well: each well is looked at by itself.
    shuffled = pd.concat(
        [positions({1: (0, 0), 2: (0, 80), 3: (80, 0)}, "A01"), positions({1: (80, 0), 2: (0, 0), 3: (0, 80)}, "A02")],
        ignore_index=True,
    )
    with pytest.raises(UserError, match=r"fields 1 and 2 of well A01 overlap, but .* different positions"):
        arrange(shuffled, (100, 100), 1.0, 1, "auto")


def square(step: float) -> dict[int, tuple[float, float]]:
    return {3 * row + column: (row * step, column * step) for row in range(3) for column in range(3)}


@pytest.mark.parametrize(
    ("places", "cell"),
    [
        # A field displaced along both axes: only what it shares with its neighbours is cropped.
        (square(1000) | {4: (1130.0, 1130.0)}, (870, 870)),
        # Bricks: rows are shifted by half a field, and none overlaps.
        ({3 * r + c: (r * 1000.0, c * 1000.0 + r % 2 * 500) for r in range(3) for c in range(3)}, (1000, 1000)),
        ({1: (0.0, 0.0), 2: (1000.0, 130.0)}, (1000, 1000)),
        # Fields that lie diagonally to each other are parted along one axis.
        ({1: (0.0, 0.0), 2: (900.0, 700.0)}, (900, 1000)),
    ],
)
def test_fields_are_cropped_only_where_two_overlap(
    places: dict, cell: tuple[int, int], capsys: pytest.CaptureFixture
) -> None:
    mosaic = arrange(positions(places), (1000, 1000), 1.0, 1)
    assert mosaic.cell == cell and len({*corners(mosaic).values()}) == len(places)
    said = capsys.readouterr().err
    assert ("overlap" in said and f"{cell[0]} x {cell[1]} of 1000 x 1000" in said) == (cell != (1000, 1000))
    for one, (y, x) in places.items():
        for other, (v, u) in places.items():
            assert one == other or abs(y - v) >= cell[0] or abs(x - u) >= cell[1]


def test_cropping_that_loses_much_is_done_only_when_asked() -> None:
    displaced = positions(square(1000) | {4: (1350.0, 1350.0)})
    with pytest.raises(UserError, match=r"fields overlap \(most: 4 and 5\); .* 650 x 650 .* 5\d% of the area lost"):
        arrange(displaced, (1000, 1000), 1.0, 1, "auto")
    assert arrange(displaced, (1000, 1000), 1.0, 1, "positions").cell == (650, 650)
    # As much of each field, but cells in it are shown by others: what is lost is the border around all of them.
    assert arrange(positions(square(650)), (1000, 1000), 1.0, 1, "auto").cell == (650, 650)


def test_fields_smaller_than_a_mosaic_pixel_are_refused() -> None:
    with pytest.raises(UserError, match=r"mosaic\.downsample"):
        arrange(positions({1: (0, 0)}), (10, 10), 1.0, 11)


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    factor=st.integers(1, 9),
    wide=st.booleans(),
    highest=st.sampled_from([3, 255, 4095, 16383, 65535]),
    seed=st.integers(0, 99),
)
def test_block_sums_are_the_sums_of_blocks(
    height: int, width: int, factor: int, wide: bool, highest: int, seed: int
) -> None:
    dtype = np.uint16 if wide else np.uint8
    highest = min(highest, np.iinfo(dtype).max)
    image = np.random.default_rng(seed).integers(0, highest, (height, width), dtype, endpoint=True)
    sums = block_sums(image, factor)
    assert sums.dtype == np.uint32
    assert sums.shape == (height // factor, width // factor)
    for y, x in np.ndindex(sums.shape):
        assert sums[y, x] == sum(
            int(value) for value in image[y * factor : (y + 1) * factor, x * factor : (x + 1) * factor].flat
        )


def test_crop_is_about_the_centre() -> None:
    image = np.arange(36).reshape(6, 6)
    np.testing.assert_array_equal(crop_centre(image, (2, 4)), image[2:4, 1:5])
