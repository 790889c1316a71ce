"""Images that a user's table lists: what it says is what is indexed, and mistakes are named by line."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from tiny import tiny_tiff

from wscnn.acquisitions import open_acquisition
from wscnn.acquisitions.index import index_plate, read_index
from wscnn.acquisitions.originals import Watch
from wscnn.cli import main
from wscnn.core.config import complete_config
from wscnn.core.errors import UserError

Settings = Callable[..., dict[str, Any]]
HEADER = "path\twell\tfield\tchannel\n"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a folder of images whose names say nothing."""
    (tmp_path / "images" / "more").mkdir(parents=True)
    for name in ("a.tif", "b.tif", "more/c.tif", "more/d.tif"):
        tiny_tiff(tmp_path / "images" / name)
    return tmp_path / "images"


def table(path: Path, *rows: str, header: str = HEADER) -> str:
    """Write a table of images and return its path; cells are separated by spaces here."""
    path.write_text(header + "".join("\t".join(row.split(" ")) + "\n" for row in rows))
    return str(path)


def test_every_column_reaches_the_index(images: Path, settings: Settings) -> None:
    listed = table(
        images.parent / "images.tsv",
        "P1 a.tif b3 7 405 2 0 -10.5 20 0.65 yes",
        f"P1 {images}/more/c.tif B03 7 488 0 0 -10.5 20 0.65 yes",
        "P2 b.tif AF48 1 405 1 3    no",
        header="plate\tPATH\twell\tfield\tchannel\tz\ttime\ty_um\tx_um\tpixel_size_um\tchecked\n",
    )
    known = settings({"405": "DNA", "488": "actin"}, format="table", table=listed)
    output = images.parent / "P1.parquet"
    index_plate("P1", images, known, output)
    rows = read_index(output, images).drop(columns=["size", "mtime_ns"]).to_dict("records")
    same = {"plate": "P1", "well": "B03", "field": 7, "time": 0, "page": 0, "y_um": -10.5, "x_um": 20.0}
    same["pixel_size_um"] = 0.65
    assert rows == [
        same | {"channel": "DNA", "z": 2, "path": f"{images}/a.tif"},
        same | {"channel": "actin", "z": 0, "path": f"{images}/more/c.tif"},
    ]
    other = open_acquisition(images, known).files("P2").iloc[0]
    assert (other["well"], other["time"]) == ("AF48", 3)
    assert np.isnan([other["y_um"], other["x_um"], other["pixel_size_um"]]).all()
    with pytest.raises(UserError, match=r"lists no image of plate 'P3'; the plates there are 'P1', 'P2'"):
        open_acquisition(images, known).files("P3")


def test_without_a_column_z_the_pages_of_a_file_are_its_planes(images: Path, settings: Settings) -> None:
    tifffile.imwrite(images / "a.tif", np.zeros((3, 160, 160), np.uint16), photometric="minisblack")
    listed = table(images.parent / "images.csv", "a.tif A1 1 1", "b.tif A2 1 1")
    found = open_acquisition(images, settings({"1": "DNA"}, table=listed)).index("P1")
    assert found[["well", "z", "page"]].values.tolist() == [["A01", 1, 0], ["A01", 2, 1], ["A01", 3, 2], ["A02", 1, 0]]
    # With the column, a file is one image.
    listed = table(images.parent / "images.csv", "a.tif A1 1 1 1", header="path\twell\tfield\tchannel\tz\n")
    reader = open_acquisition(images, settings({"1": "DNA"}, table=listed))
    with pytest.raises(UserError, match="holds 3 images where one is expected"):
        reader.inspect(images / "a.tif", 0)


def test_each_plate_may_have_a_table_in_its_folder(
    images: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    table(images / "images.tsv", "a.tif A1 1 1")
    table(images / "more" / "images.tsv", "c.tif A2 1 1")
    known = settings({"1": "DNA"}, table="images.tsv")
    assert open_acquisition(images, known).files("P1")["well"].tolist() == ["A01"]
    assert open_acquisition(images / "more", known).files("P2")["well"].tolist() == ["A02"]
    # One that lies where the program is started, too, may be meant.
    table(images.parent / "images.tsv", "b.tif A3 1 1")
    monkeypatch.chdir(images.parent)
    with pytest.raises(UserError, match=r"there are both .*images/images\.tsv and images\.tsv; rename one"):
        open_acquisition(images, known)
    with pytest.raises(UserError, match=r"missing\.tsv: no such file; acquisition\.table is relative to"):
        open_acquisition(images, settings({"1": "DNA"}, table="missing.tsv"))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["a.tif A1 1 1", "gone.tif A2 1 1"], r"line 3: no file 'gone.tif' below .*images, the plate's folder"),
        (["../x.tif A1 1 1"], r"line 2: path '\.\./x\.tif' leads out of the plate's folder"),
        (["more\\c.tif A1 1 1"], r"line 2: path 'more\\c\.tif' has \\ between folders; write /"),
        (["/etc/passwd A1 1 1"], r"line 2: no file '/etc/passwd' below"),
        (["a.tif A1 1 1", "a.tif A2 1 1"], r"lines 2, 3: path 'a\.tif' is listed 2 times"),
        (["a.tif A1 1 1", "b.tif A1 1 1"], r"a\.tif and .*b\.tif: both are well A01, field 1, channel DNA"),
        (["a.tif 13 1 1", "b.tif 14 1 1"], r"line 2: '13' is not a well.*the same holds for '14' \(line 3\)"),
        (["a.tif A1 one 1"], r"line 2: field is not a whole number from 0: 'one'"),
        (["a.tif A1 -1 1"], r"line 2: field is not a whole number from 0: '-1'"),
        (["a.tif A1  1"], r"line 2: field is empty; fill it in"),
        (["a.tif A1 1 "], r"line 2: channel is empty; fill it in"),
        ([], "lists no image"),
    ],
)
def test_mistakes_are_named_by_line(images: Path, settings: Settings, rows: list[str], said: str) -> None:
    listed = table(images.parent / "images.tsv", *rows)
    with pytest.raises(UserError, match=said):
        index_plate("P1", images, settings({"1": "DNA"}, table=listed), images.parent / "P1.parquet")


@pytest.mark.parametrize(
    ("column", "cell", "said"),
    [
        ("pixel_size_um", "0", "line 2: pixel_size_um is not a number of micrometres: '0'"),
        ("z", "", "line 2: z is not a whole number from 0: ''"),
        ("z", "1.5", "line 2: z is not a whole number from 0: '1.5'"),
        ("plate", "", "line 2: plate is empty; fill it in"),
        ("y_um", "1", "has one of the columns y_um and x_um; give both"),
    ],
)
def test_mistakes_in_columns_that_may_be_left_out(
    images: Path, settings: Settings, column: str, cell: str, said: str
) -> None:
    listed = table(images.parent / "images.tsv", f"a.tif A1 1 1 {cell}", header=f"{HEADER.strip()}\t{column}\n")
    with pytest.raises(UserError, match=said):
        open_acquisition(images, settings({"1": "DNA"}, table=listed)).files("P1")


def test_images_of_excluded_wells_may_be_missing(images: Path, settings: Settings) -> None:
    listed = table(images.parent / "images.tsv", "a.tif A1 1 1 1", "gone.tif A2 1 1 1", header=f"{HEADER.strip()}\tz\n")
    found = open_acquisition(images, settings({"1": "DNA"}, table=listed)).index("P1", {"A02"})
    assert found["well"].tolist() == ["A01"]


def test_the_config_asks_for_one_way_to_read_names(tmp_path: Path) -> None:
    def problems(**acquisition: str) -> str:
        config = {"screen": "s", "plates": "p", "layout": "l", "acquisition": {"channels": {"1": "DNA"}, **acquisition}}
        with pytest.raises(UserError) as raised:
            complete_config(config, "c.yaml")
        return str(raised.value)

    assert "acquisition.table: format 'table' needs the path of a table of images here" in problems(format="table")
    assert "acquisition.table: a pattern is given, too" in problems(pattern="x", table="t.tsv")


def test_the_table_counts_by_content(images: Path, settings: Settings) -> None:
    results = images.parent / "results"
    first, second = "a.tif A1 1 1", "b.tif A2 1 1"
    path = images.parent / "images.tsv"
    known = settings({"1": "DNA"}, table=table(path, first, second))

    def state(**keys: Any) -> str:
        return Watch({"P": str(images)}, known | keys, {}, results).states["P"]

    index_plate("P", images, known, results / "index" / "P.parquet")
    assert state() == ""
    table(path, second, first)
    assert state() == ""
    # As another user's copy, with an older time, and elsewhere.
    os.utime(path, (1_500_000_000, 1_500_000_000))
    path.rename(images.parent / "moved.tsv")
    assert state(table=str(images.parent / "moved.tsv")) == ""
    table(path, first, "b.tif A3 1 1")
    assert state() != ""
    table(path, first, second)
    assert state() == ""


def test_check_and_index_on_the_command_line(images: Path) -> None:
    folder = images.parent
    wells = [f"{row}{column}" for row in "AB" for column in range(1, 6)]
    for well in wells:
        tiny_tiff(images / f"{well}.tif")
    table(folder / "images.tsv", *(f"{well}.tif {well} 1 1" for well in wells))
    (folder / "plates.tsv").write_text(f"plate\timages\nP\t{images}\n")
    roles = ["negative"] * 4 + ["positive"] * 3 + ["sample"] * 3
    rows = [f"{well}\t{role}\t{role}\n" for well, role in zip(wells, roles, strict=True)]
    (folder / "layout.tsv").write_text("".join(["well\tperturbation\trole\n", *rows]))
    config = {
        "screen": "s",
        "plates": str(folder / "plates.tsv"),
        "layout": str(folder / "layout.tsv"),
        "results": str(folder / "results"),
        "acquisition": {"channels": {"1": "DNA"}, "format": "table", "table": str(folder / "images.tsv")},
        "model": {"architecture": "compact"},
    }
    (folder / "config.yaml").write_text(json.dumps(config))
    done = CliRunner().invoke(main, ["check", str(folder / "config.yaml")], catch_exceptions=False)
    assert done.exit_code == 0 and "1 plates, 10 wells, no problem found" in done.output
    config["mosaic"] = {"arrange": "positions"}
    (folder / "config.yaml").write_text(json.dumps(config))
    done = CliRunner().invoke(main, ["check", str(folder / "config.yaml")], catch_exceptions=False)
    assert "gives the stage positions that mosaic.arrange: positions needs" in done.output
