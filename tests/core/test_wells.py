"""Wells and names."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wscnn.core.wells import PLATE_FORMATS, check_name, one_of, parse_well, plate_format, row_letters, well_name

ROWS = st.integers(0, 31)
COLUMNS = st.integers(0, 47)


@given(ROWS, COLUMNS)
def test_a_well_is_read_as_it_is_written(row: int, column: int) -> None:
    assert parse_well(well_name(row, column)) == (row, column)


@given(ROWS, COLUMNS, st.integers(0, 3))
def test_spelling_does_not_matter(row: int, column: int, zeros: int) -> None:
    text = f" {row_letters(row).lower()}{'0' * zeros}{column + 1} "
    assert parse_well(text) == (row, column)


@pytest.mark.parametrize(
    ("text", "place"),
    [("B3", (1, 2)), ("b03", (1, 2)), ("B003", (1, 2)), ("AA01", (26, 0)), ("af48", (31, 47)), ("Z1", (25, 0))],
)
def test_wells(text: str, place: tuple[int, int]) -> None:
    assert parse_well(text) == place


@pytest.mark.parametrize(
    "text", ["", "B", "3", "B0", "B49", "AG01", "BA01", "B-1", "B1.0", "B٣", "B3\n4", "nan", "A1E5"]
)
def test_what_is_no_well(text: str) -> None:
    with pytest.raises(ValueError, match="not a well"):
        parse_well(text)


@given(st.text(max_size=8))
def test_any_text_is_a_well_or_refused(text: str) -> None:
    try:
        row, column = parse_well(text)
    except ValueError:
        return
    assert 0 <= row < 32
    assert 0 <= column < 48


def test_every_format_is_its_own() -> None:
    for n_wells, (rows, columns) in PLATE_FORMATS.items():
        assert rows * columns == n_wells
        assert plate_format([(rows - 1, columns - 1)]) == (rows, columns)
    assert plate_format([(0, 0), (1, 11)]) == (8, 12)
    with pytest.raises(ValueError, match="no plate"):
        plate_format([(40, 0)])


@pytest.mark.parametrize("name", ["P1", "plate_2.b+c-d", "платa", "日本", "0", "a" * 100])
def test_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "a/b", "../x", "a\\b", "a b", "a\n", "a'", '"', "<b>", "a" * 101, "日" * 99, "-x"],
)  # fmt: skip
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a folder"):
        check_name(name)


@given(st.text(max_size=120))
def test_a_name_stays_in_its_folder(name: str) -> None:
    try:
        check_name(name)
    except ValueError:
        return
    assert "/" not in name
    assert name not in (".", "..")
    assert "\0" not in name
    assert len(name.encode()) <= 200


@given(st.lists(st.text("aB1.+-_", min_size=1, max_size=6), min_size=1), st.text("aB1.+-_", max_size=7))
def test_a_pattern_of_names_matches_these_alone(names: list[str], other: str) -> None:
    pattern = re.compile(f"(?P<plate>{one_of(names)})/x")
    assert all(pattern.fullmatch(f"{name}/x") for name in names)
    assert bool(pattern.fullmatch(f"{other}/x")) == (other in names)
