"""The pattern reader on names that users have."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from test_stage import stage
from tiny import tiny_tiff

from wscnn.acquisitions import open_acquisition
from wscnn.acquisitions import pattern as reader
from wscnn.acquisitions.base import walk
from wscnn.acquisitions.pattern import compile_pattern
from wscnn.core.errors import UserError
from wscnn.plates.store import Plate

Settings = Callable[..., dict[str, Any]]
PATTERN = r"(?P<plate>[^_]+)_(?P<well>[A-Z]{1,2}\d{2})_s(?P<field>\d+)_w(?P<channel>\d+)\.tif"


def make(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tiny_tiff(path)
    return folder


def test_real_plate_has_96_wells_of_each_channel(sbs96: Path, settings: Settings) -> None:
    pattern = r"Channel(?P<channel>\d)-\d+-(?P<row>[A-P])-(?P<column>\d+)\.tif"
    table = open_acquisition(sbs96, settings({"1": "GFP", "2": "DNA"}, pattern=pattern)).index("1049")
    assert table.groupby("channel")["well"].nunique().to_dict() == {"DNA": 96, "GFP": 96}
    assert len(table) == 192
    b05 = table[(table["well"] == "B05") & (table["channel"] == "GFP")]
    assert b05["path"].tolist() == [str(sbs96 / "Channel1-17-B-05.tif")]
    assert set(table["field"]) == set(table["z"]) == set(table["time"]) == {1}
    assert table[["y_um", "x_um", "pixel_size_um"]].isna().all(axis=None)


def test_all_groups(tmp_path: Path, settings: Settings) -> None:
    make(tmp_path, "T07/P1_b3_f012_z2_ch01.tiff")
    pattern = r"T(?P<time>\d+)/(?P<plate>\w+?)_(?P<well>\w+?)_f(?P<field>\d+)_z(?P<z>\d+)_ch(?P<channel>\d+)\.tiff"
    row = open_acquisition(tmp_path, settings({"1": "DNA"}, pattern=pattern)).index("P1").iloc[0].to_dict()
    assert row["path"] == str(tmp_path / "T07/P1_b3_f012_z2_ch01.tiff")
    del row["path"], row["y_um"], row["x_um"], row["pixel_size_um"]
    assert row == {
        "plate": "P1", "well": "B03", "field": 12, "channel": "DNA", "z": 2, "time": 7, "page": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "well"),
    [("AF48.tif", "AF48"), ("b003.tif", "B03"), ("h12.tif", "H12")],
)
def test_spellings_of_wells(tmp_path: Path, settings: Settings, name: str, well: str) -> None:
    make(tmp_path, name)
    table = open_acquisition(tmp_path, settings({"-": "DNA"}, pattern=r"(?P<well>\w+)\.tif")).index("P")
    assert table["well"].tolist() == [well]


@pytest.mark.parametrize(("name", "well"), [("r03c04.tif", "C04"), ("r32c48.tif", "AF48"), ("rHc12.tif", "H12")])
def test_rows_and_columns(tmp_path: Path, settings: Settings, name: str, well: str) -> None:
    make(tmp_path, name)
    pattern = r"r(?P<row>\d+|[A-Z])c(?P<column>\d+)\.tif"
    assert open_acquisition(tmp_path, settings({"-": "DNA"}, pattern=pattern)).index("P")["well"].tolist() == [well]


def test_several_plates_in_one_folder(tmp_path: Path, settings: Settings) -> None:
    make(tmp_path, "P1_A01_s1_w1.tif", "P2_A01_s1_w1.tif", "P2_A02_s1_w1.tif", "P2_A02_s1_w2.tif", "notes.txt")
    reader = open_acquisition(tmp_path, settings({"1": "DNA"}, pattern=PATTERN))
    assert reader.files("P2")["well"].tolist() == ["A01", "A02"]
    assert len(reader.files("P1")) == 1
    assert set(reader.unlisted) == {"2"}
    with pytest.raises(UserError, match=r"no file of plate 'P3'.*'P1', 'P2'"):
        reader.files("P3")


def test_pattern_is_for_the_whole_file_name(tmp_path: Path, settings: Settings) -> None:
    make(tmp_path, "A01.tif", "A01.tif.bak", "xA02.tif", "deep/er/A03.tif")
    table = open_acquisition(tmp_path, settings({"-": "DNA"}, pattern=r"(?P<well>A\d\d)\.tif")).index("P")
    assert sorted(table["well"]) == ["A01", "A03"]


def test_no_match_shows_two_names(tmp_path: Path, settings: Settings) -> None:
    make(tmp_path, "log.txt", "x_1.tif", "x_2.tif", "x_3.tif")
    with pytest.raises(UserError, match=r"'x_1.tif' and 'x_2.tif' \(4 in all\)"):
        open_acquisition(tmp_path, settings({"1": "DNA"}, pattern=PATTERN)).index("P1")


def test_empty_folder(tmp_path: Path, settings: Settings) -> None:
    with pytest.raises(UserError, match="holds no file"):
        open_acquisition(tmp_path, settings({"1": "DNA"}, pattern=PATTERN)).index("P1")


@pytest.mark.parametrize(
    ("name", "told"), [("P_Q99_s1_w1.tif", "not a well"), ("P_A01_sx_w1.tif", "'x' is not a field number")]
)
def test_names_that_cannot_be(tmp_path: Path, settings: Settings, name: str, told: str) -> None:
    make(tmp_path, name)
    pattern = r"(?P<plate>[^_]+)_(?P<well>\w+?)_s(?P<field>\w+)_w(?P<channel>\d+)\.tif"
    with pytest.raises(UserError, match=told) as raised:
        open_acquisition(tmp_path, settings({"1": "DNA"}, pattern=pattern)).index("P")
    assert name in raised.value.problems[0]


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("(", "not a regular expression"),
        (r"(?P<channel>\d)\.tif", r"needs the group \(\?P<well>"),
        (r"(?P<row>\w)(?P<channel>\d)\.tif", r"needs the group \(\?P<well>"),
        (r"(?P<well>\w\d\d)\.tif", r"needs the group \(\?P<channel>"),
        (r"(?P<well>\w\d\d)_(?P<chanel>\d)", "unknown group chanel"),
        (r"(?P<well>\w\d\d)(?P<row>\w)(?P<channel>\d)", "keep one"),
    ],
)
def test_patterns_that_cannot_be(pattern: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        compile_pattern(pattern, n_channels=2)


def test_endless_pattern_is_stopped(tmp_path: Path, settings: Settings) -> None:
    make(tmp_path, "a" * 60 + ".tif")
    start = time.monotonic()
    with pytest.raises(UserError, match="takes too long"):
        open_acquisition(tmp_path, settings({"-": "DNA"}, pattern=r"(?P<well>(a+)+)!")).index("P")
    assert time.monotonic() - start < 30


def test_awkward_folder_names(tmp_path: Path, settings: Settings) -> None:
    folder = make(tmp_path / 'it\'s a "plate" — µ é 日本', "A01 w'1\".tif")
    table = open_acquisition(folder, settings({"1": "DNA"}, pattern=r"(?P<well>A01) w'(?P<channel>\d)\"\.tif")).index(
        "P"
    )
    assert Path(table["path"][0]).is_file()


def test_links_in_a_circle_and_hidden_files(tmp_path: Path) -> None:
    make(tmp_path, "b/1.tif", "a/2.tif", ".hidden.tif", ".cache/3.tif", "a/._2.tif")
    (tmp_path / "b" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "b" / "self").symlink_to(tmp_path / "b", target_is_directory=True)
    (tmp_path / "gone.tif").symlink_to(tmp_path / "nowhere")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    assert list(walk(tmp_path)) == ["a/2.tif", "b/1.tif"]


def test_linked_folder_is_entered(tmp_path: Path) -> None:
    make(tmp_path / "far", "1.tif")
    make(tmp_path / "near", "0.tif")
    (tmp_path / "near" / "link").symlink_to(tmp_path / "far", target_is_directory=True)
    assert list(walk(tmp_path / "near")) == ["0.tif", "link/1.tif"]


@pytest.fixture
def stacks(tmp_path: Path) -> Path:
    """Return a folder of two files of three planes; planes of page p hold 10 p and the well's number."""
    for number, well in enumerate(("A01", "A02")):
        planes = np.stack([np.full((6, 8), 10 * page + number, np.uint16) for page in range(3)])
        tifffile.imwrite(tmp_path / f"{well}.tif", planes, photometric="minisblack")
    return tmp_path


def test_pages_are_planes_where_the_pattern_names_none(stacks: Path, settings: Settings) -> None:
    reader = open_acquisition(stacks, settings({"-": "DNA"}, pattern=r"(?P<well>A\d\d)\.tif"))
    for table in (reader.files("P"), reader.index("P")):
        assert table[["well", "z", "page"]].to_numpy().tolist() == [
            [well, page + 1, page] for well in ("A01", "A02") for page in range(3)
        ]
    values = [int(reader.read(Path(row.path), row.page).max()) for row in table.itertuples()]
    assert values == [0, 10, 20, 1, 11, 21]


@pytest.mark.parametrize(("z", "expected"), [("max", [20, 21]), (2, [10, 11])])
def test_a_stack_is_staged_as_its_projection_or_one_plane(
    stacks: Path, tmp_path_factory: pytest.TempPathFactory, z: str | int, expected: list[int]
) -> None:
    acquisition = {"channels": {"-": "DNA"}, "pattern": r"(?P<well>A\d\d)\.tif", "z": z}
    out = stage(stacks, tmp_path_factory.mktemp("out"), acquisition=acquisition, mosaic={"downsample": 1})
    plate = Plate(out / "p.zarr")
    assert [plate.read(well).tolist() for well in ("A01", "A02")] == [[[[value] * 8] * 6] for value in expected]


def test_each_file_tells_how_many_planes_it_has(stacks: Path, settings: Settings) -> None:
    # The first, of a well that is excluded, is no stack.
    tifffile.imwrite(stacks / "A01.tif", np.zeros((6, 8), np.uint16), photometric="minisblack")
    reader = open_acquisition(stacks, settings({"-": "DNA"}, pattern=r"(?P<well>A\d\d)\.tif"))
    assert reader.index("P").groupby("well").size().to_dict() == {"A01": 1, "A02": 3}
    assert len(reader.index("P", excluded={"A01"})) == 3


def test_a_stack_is_refused_where_the_pattern_names_planes(stacks: Path, settings: Settings) -> None:
    reader = open_acquisition(stacks, settings({"-": "DNA"}, pattern=r"(?P<well>A\d\d)(_z(?P<z>\d+))?\.tif"))
    row = reader.index("P").iloc[0]
    with pytest.raises(UserError, match=r"A01\.tif: holds 3 images"):
        reader.read(Path(row["path"]), row["page"])


def test_missing_folder(tmp_path: Path, settings: Settings) -> None:
    with pytest.raises(UserError, match="no such folder"):
        open_acquisition(tmp_path / "none", settings({"1": "DNA"}, pattern=PATTERN))
    with pytest.raises(UserError, match="cannot be read"):
        open_acquisition(tmp_path / ("x" * 300), settings({"1": "DNA"}, pattern=PATTERN))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_unreadable_folder(tmp_path: Path, settings: Settings) -> None:
    make(tmp_path, "in/P1_A01_s1_w1.tif")
    (tmp_path / "in").chmod(0)
    try:
        with pytest.raises(UserError, match="cannot be read"):
            open_acquisition(tmp_path, settings({"1": "DNA"}, pattern=PATTERN)).index("P1")
    finally:
        (tmp_path / "in").chmod(0o700)


@given(st.text(max_size=40))
def test_any_text_is_a_pattern_or_refused(pattern: str) -> None:
    try:
        compile_pattern(pattern, n_channels=1)
    except UserError as error:
        assert "acquisition.pattern" in str(error)


def test_the_limit_on_slow_patterns_counts_cpu_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_PATIENCE_S", 0.05)
    with reader._patience("a", 0):
        time.sleep(0.2)
