"""The CellVoyager reader on a real export; what is expected was read from its .mlf and .mrf by eye."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wscnn.acquisitions import open_acquisition
from wscnn.acquisitions.cellvoyager import CellVoyager
from wscnn.core.errors import UserError

Settings = Callable[..., dict[str, Any]]


@pytest.fixture
def folder(exports: Path) -> Path:
    name = "CV8000-Minimal-DataSet-2C-3W-4S-FP2-stack"
    return exports / "faim_ipa" / "resources" / "CV8000" / f"{name}_20230918_135839"


def test_stack(folder: Path, settings: Settings) -> None:
    reader = open_acquisition(folder, settings({"1": "DNA", "BP525/50": "GFP"}))
    assert isinstance(reader, CellVoyager)
    table = reader.index("CV")
    # Three wells of four fields in two channels and four planes.
    assert len(table) == 3 * 4 * 2 * 4
    assert sorted(table["well"].unique()) == ["D08", "E03", "F08"]
    assert sorted(table["field"].unique()) == [1, 2, 3, 4]
    assert sorted(table["z"].unique()) == [1, 2, 3, 4]
    assert table["time"].unique().tolist() == [1]
    assert set(table["pixel_size_um"]) == {0.325}
    # .mlf: field 1 at X -567.1, Y 402.9; field 4 at X 82.8, Y -247.0; its Y points up.
    d08 = table[table["well"] == "D08"].drop_duplicates("field").set_index("field")
    assert d08.loc[1, ["y_um", "x_um"]].tolist() == [-402.9, -567.1]
    assert d08.loc[4, ["y_um", "x_um"]].tolist() == [247.0, 82.8]
    gfp = table[(table["well"] == "E03") & (table["field"] == 2) & (table["channel"] == "GFP") & (table["z"] == 3)]
    assert Path(gfp["path"].item()).name == "CV8000-Minimal-DataSet-2C-3W-4S-FP2-stack_E03_T0001F002L01A02Z03C02.tif"
    assert reader.read(Path(gfp["path"].item()), 0).shape == (2000, 2000)


def test_correction_images_are_no_fields(folder: Path, settings: Settings) -> None:
    table = open_acquisition(folder, settings({"1": "DNA"})).index("CV")
    assert len(table) == 48
    assert not table["path"].str.contains("SC_BP|DC_DCAM").any()


def test_image_that_is_listed_but_gone(folder: Path, settings: Settings, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(next(path for path in folder.iterdir() if path.is_dir()), copy)
    next(copy.glob("*_D08_T0001F003L01A01Z02C01.tif")).unlink()
    reader = open_acquisition(copy, settings({"1": "DNA"}))
    with pytest.raises(
        UserError, match=r"F003L01A01Z02C01.tif: this plane of well D08, field 3, channel DNA is listed"
    ):
        reader.index("CV")
    assert reader.index("CV", {"D08"})["well"].nunique() > 0
    # One plane alone does not need the others.
    assert len(open_acquisition(copy, settings({"1": "DNA"}, z=1)).index("CV")) == 47


def test_records_alone_tell_no_pixel_size(folder: Path, settings: Settings, tmp_path: Path) -> None:
    source = next(path for path in folder.iterdir() if path.is_dir())
    for name in ("MeasurementData.mlf", "CV8000-Minimal-DataSet-2C-3W-4S-FP2-stack_D08_T0001F001L01A01Z01C01.tif"):
        shutil.copy(source / name, tmp_path)
    table = open_acquisition(tmp_path, settings({"1": "DNA"}, z=1)).index("CV")
    assert len(table) == 1
    assert table["pixel_size_um"].isna().all()
