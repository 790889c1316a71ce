"""The ImageXpress reader on real exports; what is expected was read from their .HTD files and TIFF headers by eye."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from wscnn.acquisitions import open_acquisition
from wscnn.acquisitions.imagexpress import ImageXpress, read_wave_names
from wscnn.core.errors import UserError

Settings = Callable[..., dict[str, Any]]


@pytest.fixture
def folder(exports: Path) -> Path:
    return exports / "faim_ipa" / "resources" / "ImageXpress_exported"


def test_z_steps(folder: Path, settings: Settings) -> None:
    reader = open_acquisition(folder / "9987_Plate_3434", settings({"DAPI": "DNA", "2": "GFP", "w3": "red"}, z=0))
    assert isinstance(reader, ImageXpress)
    table = reader.index("3434")
    # Two wells of two sites in three wavelengths, each with the projection (0) and two planes.
    assert len(table) == 2 * 2 * 3 * 3
    assert sorted(table["well"].unique()) == ["B02", "B03"]
    assert sorted(table["field"].unique()) == [1, 2]
    assert sorted(table["z"].unique()) == [0, 1, 2]
    assert table["time"].unique().tolist() == [1]
    assert table.groupby("channel")["path"].first().str[-6:-4].to_dict() == {"DNA": "w1", "GFP": "w2", "red": "w3"}
    assert set(table["pixel_size_um"]) == {1.3672}
    b02 = table[table["well"] == "B02"].drop_duplicates("field")
    assert b02[["field", "y_um", "x_um"]].to_numpy().tolist() == [[1, 19885, 22985], [2, 19885, 23300]]
    image = reader.read(Path(table["path"][0]), 0)
    assert image.shape == (256, 256)
    assert image.dtype == np.uint16


def test_time_points(folder: Path, settings: Settings) -> None:
    table = open_acquisition(folder / "9987_Plate_3435", settings({"1": "DNA", "2": "GFP"})).index("3435")
    assert len(table) == 2 * 2 * 2 * 2
    assert sorted(table["time"].unique()) == [1, 2]
    assert table["z"].unique().tolist() == [1]


def test_single_image_without_site_and_wavelength(folder: Path, settings: Settings) -> None:
    table = open_acquisition(folder / "9987_Plate_3420", settings({"DAPI": "DNA"})).index("3420")
    assert table[["well", "field", "channel", "z", "time"]].to_numpy().tolist() == [["B02", 1, "DNA", 1, 1]]


def test_wave_names(folder: Path) -> None:
    names = read_wave_names(folder / "9987_Plate_3434" / "9987.HTD")
    assert names == {1: "DAPI", 2: "FITC", 3: "Texas Red", 4: "Cy5"}


def test_files_opens_no_image(folder: Path, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "plate.HTD").write_text('"HTSInfoFile", Version 1.0\n"WaveName1", "DAPI"\n')
    (tmp_path / "x_C04_s3_w1.TIF").touch()
    reader = open_acquisition(tmp_path, settings({"1": "DNA"}))
    assert reader.files("x")[["well", "field"]].to_numpy().tolist() == [["C04", 3]]
    with pytest.raises(UserError, match=r"x_C04_s3_w1.TIF: not a readable TIFF"):
        reader.index("x")


def test_names_of_a_database_export_and_thumbnails(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "p.htd").write_text('"HTSInfoFile", Version 1.0\n')
    name = "Week1_B02_s1_w2"
    uuid = "F89C2D4A-8B5E-4C0F-A6DE-1B2C3D4E5F60"
    for file in (f"{name}{uuid}.tif", f"{name}_thumb{uuid}.tif", "Week1_Z99.tif", "Week1_A00.tif"):
        (tmp_path / file).touch()
    table = open_acquisition(tmp_path, settings({"2": "actin"})).files("p")
    assert table["path"].tolist() == [str(tmp_path / f"{name}{uuid}.tif")]


def test_images_without_positions(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "p.htd").write_text('"HTSInfoFile", Version 1.0\n')
    tifffile.imwrite(tmp_path / "p_A01_s1_w1.tif", np.zeros((4, 4), np.uint16))
    table = open_acquisition(tmp_path, settings({"1": "DNA"})).index("p")
    assert table[["y_um", "x_um", "pixel_size_um"]].isna().all(axis=None)


def test_folder_without_images(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "p.htd").write_text('"HTSInfoFile", Version 1.0\n')
    with pytest.raises(UserError, match="no image named like"):
        open_acquisition(tmp_path, settings({"1": "DNA"})).files("p")


def test_two_plates_below_one_folder(settings: Settings, tmp_path: Path) -> None:
    for plate, well in (("PA", "A01"), ("PB", "B02")):
        # Each plate's own .HTD is repeated in the folders of its time points and planes.
        for inner in (".", "TimePoint_1", "TimePoint_1/ZStep_1"):
            (tmp_path / plate / inner).mkdir(parents=True, exist_ok=True)
            (tmp_path / plate / inner / "p.HTD").write_text('"HTSInfoFile", Version 1.0\n')
        (tmp_path / plate / "TimePoint_1" / "ZStep_1" / f"p_{well}_s1_w1.TIF").touch()
    with pytest.raises(UserError, match="several plates") as raised:
        open_acquisition(tmp_path, settings({"1": "DNA"})).files("p")
    assert str(tmp_path / "PA" / "p.HTD") in str(raised.value) and str(tmp_path / "PB" / "p.HTD") in str(raised.value)
    assert open_acquisition(tmp_path / "PB", settings({"1": "DNA"})).files("p")["well"].tolist() == ["B02"]


def test_a_stack_is_refused(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "p.htd").write_text('"HTSInfoFile", Version 1.0\n')
    tifffile.imwrite(tmp_path / "p_A01_s1_w1.tif", np.zeros((2, 4, 4), np.uint16), photometric="minisblack")
    reader = open_acquisition(tmp_path, settings({"1": "DNA"}))
    row = reader.index("p").iloc[0]
    with pytest.raises(UserError, match=r"p_A01_s1_w1\.tif: holds 2 images where one is expected"):
        reader.read(Path(row["path"]), row["page"])
