"""Stage `index`."""

from pathlib import Path

import pandas as pd
import pytest
from tiny import tiny_tiff

from wscnn.acquisitions.index import choose, duplicates, index_plate
from wscnn.core.config import section
from wscnn.core.errors import UserError
from wscnn.core.tables import INDEX, ORIGINAL, read_table, write_table

PATTERN = r"(?P<well>[A-Z]+\d+)_s(?P<field>\d+)_z(?P<z>\d+)_t(?P<time>\d+)_w(?P<channel>\d)\.tif"


def acquisition(**keys: object) -> dict[str, object]:
    import json

    return section("acquisition", json.dumps({"channels": {"2": "actin", "1": "DNA"}, "pattern": PATTERN, **keys}))


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        tiny_tiff(folder / name)
    return folder


def test_rows_are_sorted_as_the_config_lists_channels(tmp_path: Path) -> None:
    images = touch(
        tmp_path / "images",
        *(
            f"{well}_s{s}_z{z}_t0_w{w}.tif"
            for well in ("B2", "A10", "A2")
            for s in (10, 9)
            for z in (1, 0)
            for w in (1, 2)
        ),
    )
    index_plate("P", images, acquisition(), tmp_path / "out" / "P.parquet")
    table = read_table(tmp_path / "out" / "P.parquet")
    assert table.dtypes.astype(str).to_dict() == INDEX | ORIGINAL
    assert set(table["plate"]) == {"P"}
    assert table["well"].unique().tolist() == ["A02", "A10", "B02"]
    assert table[["field", "channel", "z"]].head(8).to_numpy().tolist() == [
        [9, "actin", 0], [9, "actin", 1], [9, "DNA", 0], [9, "DNA", 1],
        [10, "actin", 0], [10, "actin", 1], [10, "DNA", 0], [10, "DNA", 1],
    ]  # fmt: skip


def test_same_folder_same_bytes(tmp_path: Path) -> None:
    images = touch(tmp_path / "images", "A1_s1_z1_t1_w1.tif", "A1_s1_z1_t1_w2.tif")
    for name in ("one", "two"):
        index_plate("P", images, acquisition(), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_excluded_wells_are_left_out(tmp_path: Path) -> None:
    images = touch(tmp_path / "images", "A1_s1_z1_t1_w1.tif", "A2_s1_z1_t1_w1.tif", "copy/A2_s1_z1_t1_w1.tif")
    layout = pd.DataFrame(
        {"plate": ["P", "P", "Q"], "well": ["A01", "A02", "A01"], "role": ["sample", *["exclude"] * 2]}
    )
    write_table(layout, tmp_path / "layout.parquet")
    index_plate("P", images, acquisition(), tmp_path / "P.parquet", tmp_path / "layout.parquet")
    assert read_table(tmp_path / "P.parquet")["well"].tolist() == ["A01"]


def test_pixel_size_of_the_config_is_taken_where_files_tell_none(tmp_path: Path) -> None:
    images = touch(tmp_path / "images", "A1_s1_z1_t1_w1.tif")
    index_plate("P", images, acquisition(pixel_size_um=0.65), tmp_path / "P.parquet")
    assert read_table(tmp_path / "P.parquet")["pixel_size_um"].tolist() == [0.65]


def test_two_files_for_one_place(tmp_path: Path) -> None:
    images = touch(tmp_path / "images", "A1_s1_z1_t1_w1.tif", "copy/A01_s01_z1_t1_w1.tif", "A1_s2_z1_t1_w1.tif")
    with pytest.raises(UserError, match=r"A1_s1_z1_t1_w1.tif and .*A01_s01_z1_t1_w1.tif: both are well A01, field 1"):
        index_plate("P", images, acquisition(), tmp_path / "P.parquet")
    assert not (tmp_path / "P.parquet").exists()


def test_many_duplicates_are_counted() -> None:
    rows = [("A01", field, "DNA", 1, 1, f"{n}.tif") for n in (1, 2) for field in range(100)]
    told = duplicates(pd.DataFrame(rows, columns=["well", "field", "channel", "z", "time", "path"]))
    assert len(told) == 6
    assert told[-1] == "95 more files like these"


def test_no_listed_channel(tmp_path: Path) -> None:
    images = touch(tmp_path / "images", "A1_s1_z1_t1_w7.tif")
    with pytest.raises(UserError, match=r"no image of the channels in acquisition.channels \(actin, DNA\)"):
        index_plate("P", images, acquisition(), tmp_path / "P.parquet")


def test_unknown_folder_without_a_pattern(tmp_path: Path) -> None:
    images = touch(tmp_path / "images", "a.tif")
    with pytest.raises(UserError, match="not the export of a known instrument"):
        index_plate("P", images, acquisition(pattern=None), tmp_path / "P.parquet")


def test_choose() -> None:
    table = pd.DataFrame({"z": [0, 1, 0, 1], "time": [3, 3, 4, 4], "channel": "DNA"})
    assert choose(table, "max", None, None).index.tolist() == [0, 1]
    assert choose(table, "max", 4, None).index.tolist() == [2, 3]
    assert choose(table, 1, None, None).index.tolist() == [1]
    with pytest.raises(ValueError, match="no plane 7; there are 0, 1"):
        choose(table, 7, None, None)
    with pytest.raises(ValueError, match="no time point 5; there are 3, 4"):
        choose(table, "max", 5, None)
    assert choose(table.iloc[:0], "max", None, None).empty


def test_choose_leaves_out_the_projection_of_a_stack() -> None:
    table = pd.DataFrame({"z": [0, 1, 2, 0], "time": 1, "channel": ["DNA", "DNA", "DNA", "actin"]})
    assert choose(table, "max", None, 0).index.tolist() == [1, 2, 3]
    assert choose(table, 0, None, 0).index.tolist() == [0, 3]
