"""Raw images that change, and those that only seem to."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr

from wscnn.acquisitions.index import index_plate, read_index
from wscnn.acquisitions.originals import Watch, stamp, stamps
from wscnn.core.config import section
from wscnn.core.errors import UserError
from wscnn.core.tables import read_table, write_table
from wscnn.staging.stage import stage_plate

SETTINGS = section(
    "acquisition", json.dumps({"channels": {"1": "DNA"}, "pattern": r"(?P<well>[A-Z]\d+)_s(?P<field>\d)\.tif"})
)


def image(value: int) -> np.ndarray:
    return np.random.default_rng(value).integers(100, 1000, (64, 64), np.uint16)


@pytest.fixture
def screen(tmp_path: Path) -> Path:
    """Return a folder with the images of a plate of two wells x two fields, and its index."""
    for number, name in enumerate(("A1_s1", "A1_s2", "A2_s1", "below/A2_s2")):
        path = tmp_path / "images" / f"{name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, image(number))
    index(tmp_path)
    return tmp_path


def index(screen: Path) -> None:
    index_plate("P", screen / "images", SETTINGS, screen / "results" / "index" / "P.parquet")


def stage(screen: Path, images: str = "images") -> dict[str, bytes]:
    out = screen / "results"
    outputs = (out / "plates" / "P.zarr", out / "plates" / "P.json", out / "qc" / "P.parquet")
    sections = {name: section(name, "{}") for name in ("illumination", "dask")}
    sections["mosaic"] = section("mosaic", '{"downsample": 2}')
    index = out / "index" / "P.parquet"
    stage_plate("P", index, screen / images, *outputs, acquisition=SETTINGS, quality=section("qc", "{}"), **sections)
    return {path.name: path.read_bytes() for path in outputs[1:]}


def state(screen: Path, images: str = "images", excluded: tuple[str, ...] = ()) -> str:
    return Watch({"P": str(screen / images)}, SETTINGS, {"P": excluded}, screen / "results").states["P"]


def overwrite(path: Path, other: int = 9) -> None:
    """Write another image of the same size; its time differs, as that of a file from elsewhere does, but is older."""
    size = path.stat().st_size
    tifffile.imwrite(path, image(other))
    os.utime(path, ns=(1, 1_500_000_000_000_000_000))
    assert path.stat().st_size == size


@pytest.mark.parametrize("name", ["A1_s2.tif", "below/A2_s2.tif"])
def test_an_image_overwritten_in_place_is_noticed(name: str, screen: Path):
    stage(screen)
    assert state(screen) == ""
    overwrite(screen / "images" / name)
    first = state(screen)
    assert first != ""
    # Not because it was looked at, but because of what is there.
    assert state(screen) == first
    index(screen)
    stage(screen)
    # The state is kept where it was when the index was made.
    assert state(screen) == ""


def test_images_added_and_removed_are_noticed_and_other_files_are_not(screen: Path):
    (screen / "images" / "notes.txt").write_text("nothing of the plate's")
    assert state(screen) == ""
    shutil.copy2(screen / "images" / "A1_s1.tif", screen / "images" / "A1_s3.tif")
    added = state(screen)
    assert added != ""
    (screen / "images" / "A1_s3.tif").unlink()
    assert state(screen) == ""
    (screen / "images" / "A1_s2.tif").unlink()
    assert state(screen) not in ("", added)
    assert state(screen, excluded=("A01",)) != ""


def test_touched_moved_and_copied_images_are_the_same(screen: Path):
    staged = stage(screen)
    (screen / "images" / "A1_s1.tif").touch()
    assert state(screen) == ""
    # Without `copy2` every file gets another time.
    shutil.copytree(screen / "images", screen / "elsewhere", copy_function=shutil.copy)
    shutil.rmtree(screen / "images")
    assert state(screen, "elsewhere") == ""
    # Nothing is read again where nothing was changed since: the content is not even looked at.
    moved = screen / "elsewhere" / "A1_s1.tif"
    before = moved.stat()
    moved.write_bytes(bytes(before.st_size))
    os.utime(moved, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert state(screen, "elsewhere") == ""
    tifffile.imwrite(moved, image(0))
    # Another setting would stage it again, from there, though times are others than in the index.
    assert stage(screen, "elsewhere") == staged


def test_a_folder_that_is_gone_counts_as_it_was(screen: Path):
    shutil.rmtree(screen / "images")
    assert state(screen) == ""


def test_what_was_changed_is_known_until_it_is_made(screen: Path):
    stage(screen)
    overwrite(screen / "images" / "A1_s1.tif")
    watch = Watch({"P": str(screen / "images")}, SETTINGS, {}, screen / "results")
    watch.keep()
    index(screen)
    stage(screen)
    assert state(screen) == watch.states["P"] != ""
    (screen / "images" / "A2_s1.tif").touch()
    assert state(screen) == watch.states["P"]


@pytest.mark.parametrize("damage", ["index", "record", "watch"])
def test_damaged_records_are_made_again_not_trusted(damage: str, screen: Path):
    stage(screen)
    results = screen / "results"
    (screen / "images" / "A1_s1.tif").touch()
    path = {"index": "index/P.parquet", "record": "plates/P.raw.parquet", "watch": "images.json"}[damage]
    (results / path).write_text("{nothing of the kind")
    assert (state(screen) == "") == (damage == "watch")


def test_stage_refuses_an_image_that_was_replaced_after_it_was_indexed(screen: Path):
    overwrite(screen / "images" / "A2_s1.tif")
    with pytest.raises(UserError, match=r"A2_s1.tif: was changed after the plate was indexed; start again"):
        stage(screen)
    assert not (screen / "results" / "plates" / "P.json").exists()


def test_the_index_tells_size_and_time_and_no_folder(screen: Path):
    table = read_table(screen / "results" / "index" / "P.parquet")
    assert table["path"].tolist() == ["A1_s1.tif", "A1_s2.tif", "A2_s1.tif", "below/A2_s2.tif"]
    for row in table.itertuples():
        status = (screen / "images" / row.path).stat()
        assert (row.size, row.mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert read_index(screen / "results" / "index" / "P.parquet", Path("x"))["path"].tolist()[0] == "x/A1_s1.tif"


def test_an_index_of_an_earlier_version_is_not_read(screen: Path):
    path = screen / "results" / "index" / "P.parquet"
    write_table(read_table(path).drop(columns=["size", "mtime_ns"]), path)
    with pytest.raises(UserError, match="made by an earlier version; index the plate again"):
        stage(screen)


def test_a_well_that_lost_its_images_is_no_index(screen: Path):
    layout = pd.DataFrame({"plate": "P", "well": ["A01", "A02", "A03"], "role": ["sample", "sample", "exclude"]})
    write_table(layout, screen / "layout.parquet")
    arguments = ("P", screen / "images", SETTINGS, screen / "P.parquet", screen / "layout.parquet")
    index_plate(*arguments)
    for name in ("A2_s1.tif", "below/A2_s2.tif"):
        (screen / "images" / name).unlink()
    with pytest.raises(UserError, match="no image of 1 wells of the layout, the first is A02"):
        index_plate(*arguments)


def test_a_chunk_of_an_array_that_is_exchanged_for_an_older_one_changes_its_stamp(tmp_path: Path):
    array = zarr.create_array(tmp_path / "array", shape=(8, 8), chunks=(4, 4), dtype="uint16", compressors=None)
    array[:] = 7
    chunk, *_ = sorted(path for path in (tmp_path / "array").rglob("*") if path.name != "zarr.json" and path.is_file())
    before = stamp(str(tmp_path / "array"))
    assert stamps([str(tmp_path / "array"), str(tmp_path / "none")]) == [before, (-1, -1)]
    chunk.write_bytes(bytes(chunk.stat().st_size))
    os.utime(chunk, ns=(1, 1_500_000_000_000_000_000))
    after = stamp(str(tmp_path / "array"))
    assert after[0] == before[0] and after[1] != before[1]
