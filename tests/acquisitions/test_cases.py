"""Small exports that once went wrong without a word; the right value of each is that of the README beside it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr

from wscnn.acquisitions.index import index_plate
from wscnn.core.config import complete_config, section
from wscnn.core.errors import UserError
from wscnn.preflight.check import check_config
from wscnn.staging.stage import stage_plate

CASES = Path(__file__).parents[3] / "shared" / "cases"
DNA = {"channels": {"1": "DNA"}}


@pytest.fixture
def case(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that copies a case; the copy's `plates.tsv` and `config.json` name its own folder."""

    def copy(name: str) -> Path:
        if not CASES.is_dir():
            pytest.skip(f"the cases are not here: {CASES} is missing")
        folder = tmp_path / name
        shutil.copytree(CASES / name, folder)
        for file in ("plates.tsv", "config.json"):
            if (path := folder / file).is_file():
                path.chmod(0o644)
                path.write_text(
                    path.read_text().replace("PLATES", str(folder / "plates.tsv")).replace("HERE", str(folder))
                )
        return folder

    return copy


def checked(folder: Path) -> Any:
    return check_config(complete_config(json.loads((folder / "config.json").read_text()), "config.json"))


def staged(folder: Path, images: str, acquisition: dict[str, Any], downsample: int = 1) -> zarr.Group:
    """Return the plate that `index` and `stage` make of a folder of images."""
    out = folder / "out"
    out.mkdir()
    settings = section("acquisition", json.dumps(acquisition))
    index_plate("P1", folder / images, settings, out / "index.parquet")
    sections = {name: section(name, "{}") for name in ("illumination", "dask")}
    stage_plate(
        "P1", out / "index.parquet", folder / images, out / "P1.zarr", out / "P1.json", out / "qc.parquet",
        acquisition=settings, mosaic=section("mosaic", json.dumps({"downsample": downsample})),
        quality=section("qc", "{}"), **sections,
    )  # fmt: skip
    return zarr.open_group(out / "P1.zarr", mode="r")


def test_channels_may_have_different_numbers_of_planes(case: Callable[[str], Path]) -> None:
    folder = case("harmony_stack_in_one_channel")
    checked(folder)
    plate = staged(folder, "export", {"channels": {"1": "DNA", "2": "BF"}, "format": "phenix"})
    images = folder / "export" / "Images"
    planes = [tifffile.imread(images / f"r02c02f01p0{n}-ch1sk1fk1fl1.tiff") for n in (1, 2, 3)]
    mosaic = plate["B/02/0/0"][:]
    assert np.array_equal(mosaic[0], np.max(planes, axis=0))
    assert np.array_equal(mosaic[1], tifffile.imread(images / "r02c02f01p01-ch2sk1fk1fl1.tiff"))


def test_a_plane_that_one_field_lacks_is_said_before_the_run(case: Callable[[str], Path]) -> None:
    folder = case("harmony_stack_in_one_channel")
    (folder / "export" / "Images" / "r03c04f01p02-ch1sk1fk1fl1.tiff").unlink()
    with pytest.raises(UserError, match=r"p02-ch1.*this plane of well C04, field 1, channel DNA is listed"):
        checked(folder)


def test_a_harmony_index_above_the_images(case: Callable[[str], Path]) -> None:
    folder = case("harmony_v7_index_above")
    assert checked(folder).images["images"].tolist() == [8]
    shutil.rmtree(folder / "export" / "images")
    with pytest.raises(UserError, match=r"none of the 8 images that it lists"):
        checked(folder)


def test_a_projection_is_not_projected_once_more(case: Callable[[str], Path]) -> None:
    folder = case("imagexpress_sum_projection")
    plate = staged(folder, "images", {**DNA, "format": "imagexpress"})
    planes = [
        tifffile.imread(folder / "images" / "TimePoint_1" / f"ZStep_{n}" / "exp_B02_s1_w1.TIF") for n in (0, 1, 2)
    ]
    assert np.array_equal(plate["B/02/0/0"][0], np.maximum(planes[1], planes[2]))


def test_a_projection_is_taken_where_it_is_asked_for_or_alone(case: Callable[[str], Path]) -> None:
    folder = case("imagexpress_sum_projection")
    steps = folder / "images" / "TimePoint_1"
    projection = tifffile.imread(steps / "ZStep_0" / "exp_B02_s1_w1.TIF")
    plate = staged(folder, "images", {**DNA, "format": "imagexpress", "z": 0})
    assert np.array_equal(plate["B/02/0/0"][0], projection)
    shutil.rmtree(folder / "out")
    for number in (1, 2):
        shutil.rmtree(steps / f"ZStep_{number}")
    plate = staged(folder, "images", {**DNA, "format": "imagexpress"})
    assert np.array_equal(plate["B/02/0/0"][0], projection)


def test_an_image_beside_folders_of_planes_is_their_projection(case: Callable[[str], Path]) -> None:
    folder = case("imagexpress_sum_projection")
    steps = folder / "images" / "TimePoint_1"
    for path in (steps / "ZStep_0").iterdir():
        shutil.move(path, steps / path.name)
    plate = staged(folder, "images", {**DNA, "format": "imagexpress"})
    planes = [tifffile.imread(steps / f"ZStep_{n}" / "exp_B02_s1_w1.TIF") for n in (1, 2)]
    assert np.array_equal(plate["B/02/0/0"][0], np.maximum(*planes))


def test_fields_in_one_ome_tiff_are_not_planes(case: Callable[[str], Path]) -> None:
    folder = case("ometiff_fields_as_planes")
    pattern = r"(?P<well>[A-Z]\d{2})\.ome\.tif"
    with pytest.raises(UserError, match=r"B02\.ome\.tif: its 4 pages are 4 images \(fields or positions\)"):
        staged(folder, "images", {**DNA, "format": "pattern", "pattern": pattern})


def test_a_set_of_ome_tiffs_names_all_images_in_each_file(tmp_path: Path) -> None:
    """As Micro-Manager writes it: which image lies in which file is said by ``TiffData``."""
    names = ["B02_s1.ome.tif", "B02_s2.ome.tif"]
    images = "".join(
        f'<Image ID="Image:{i}"><Pixels DimensionOrder="XYZCT" Type="uint16" SizeX="32" SizeY="32" SizeZ="3" SizeC="1" '
        f'SizeT="1" ID="Pixels:{i}"><TiffData FirstZ="0" IFD="0" PlaneCount="3">'
        f'<UUID FileName="{name}">urn:uuid:{i}</UUID></TiffData></Pixels></Image>'
        for i, name in enumerate(names)
    )
    rng = np.random.default_rng(0)
    stacks = [rng.integers(100, 2000, (3, 32, 32)).astype(np.uint16) for _ in names]
    (tmp_path / "images").mkdir()
    for i, (name, stack) in enumerate(zip(names, stacks, strict=True)):
        xml = (
            '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:{i}">{images}</OME>'
        )
        tifffile.imwrite(tmp_path / "images" / name, stack, description=xml, metadata=None, photometric="minisblack")
    pattern = r"(?P<well>[A-Z]\d{2})_s(?P<field>\d)\.ome\.tif"
    plate = staged(tmp_path, "images", {**DNA, "format": "pattern", "pattern": pattern})
    mosaic = plate["B/02/0/0"][0]
    assert np.array_equal(mosaic[:32, :32], stacks[0].max(0))


def test_two_versions_of_a_field_in_a_well_are_refused(case: Callable[[str], Path]) -> None:
    folder = case("zarr_derived_image")
    with pytest.raises(UserError, match="'0_illum_corr' looks like a processed version"):
        staged(folder, "plate.zarr", {"channels": {"DAPI": "DNA"}})


def test_an_excluded_well_may_lack_its_folder(case: Callable[[str], Path]) -> None:
    folder = case("zarr_excluded_well_gone")
    screen = checked(folder)
    assert screen.images["wells"].tolist() == [7]


def test_floating_point_pixels_that_are_whole_numbers_are_taken(case: Callable[[str], Path]) -> None:
    folder = case("zarr_float_whole")
    plate = staged(folder, "plate.zarr", {"channels": {"DAPI": "DNA"}})
    source = zarr.open_array(folder / "plate.zarr" / "B" / "2" / "0" / "0", mode="r")[:]
    mosaic = plate["B/02/0/0"][:]
    assert source.dtype == np.float32
    assert np.array_equal(mosaic[0], source.reshape(source.shape[-2:]))


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.5, "cannot be kept"), (np.nan, "not numbers"), (-1, "cannot be kept"), (7e4, "cannot be kept")],
)
def test_floating_point_pixels_that_16_bits_do_not_hold_are_refused(
    value: float, said: str, case: Callable[[str], Path]
) -> None:
    folder = case("zarr_float_whole")
    for path in (folder / "plate.zarr").rglob("*"):
        path.chmod(0o755)
    array = zarr.open_array(folder / "plate.zarr" / "B" / "2" / "0" / "0", mode="r+")
    array[(0,) * array.ndim] = value
    with pytest.raises(UserError, match=said):
        staged(folder, "plate.zarr", {"channels": {"DAPI": "DNA"}})


@pytest.mark.parametrize("unit", [None, "um", "micron", "pixel"])
def test_positions_without_a_unit_are_used_with_the_pixel_size(unit: str | None, case: Callable[[str], Path]) -> None:
    folder = case("zarr_no_unit")
    for path in (folder / "plate.zarr").rglob(".zattrs"):
        path.chmod(0o644)
        content = json.loads(path.read_text())
        if unit and "multiscales" in content:
            for axis in content["multiscales"][0]["axes"][-2:]:
                axis["unit"] = unit
            path.write_text(json.dumps(content))
    staged(folder, "plate.zarr", {"channels": {"DAPI": "DNA"}, "pixel_size_um": 0.65})
    index = pd.read_parquet(folder / "out" / "index.parquet")
    b02 = index[index["well"] == "B02"].sort_values("field")
    # The README: two fields, 75 % of a field (64 px of 0.65 um) apart.
    assert np.hypot(*(np.diff(b02[axis])[0] for axis in ("y_um", "x_um"))) == pytest.approx(0.75 * 64 * 0.65)


def test_positions_without_a_unit_are_mentioned(
    case: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = case("zarr_no_unit")
    index_plate(
        "P1", folder / "plate.zarr", section("acquisition", '{"channels": {"DAPI": "DNA"}}'), folder / "i.parquet"
    )
    assert "its axes have no known unit of length" in capsys.readouterr().err


@pytest.mark.parametrize("groups", ["", r"_z(?P<z>\d)"])
def test_a_file_that_was_cut_off_before_its_directory_is_named(groups: str, tmp_path: Path) -> None:
    """libtiff writes the directory last: of a file cut before it nothing is left that says what it was."""
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    suffix = "_z1" if groups else ""
    for well in ("B02", "B03"):
        for field in (1, 2):
            path = images / f"{well}_s{field}{suffix}.tif"
            tifffile.imwrite(path, rng.integers(100, 2000, (64, 64)).astype(np.uint16), photometric="minisblack")
    whole = path.read_bytes()
    n = 64 * 64 * 2
    # The pixels first, the directory after them, as libtiff lays them out.
    header, directory = whole[:8], whole[8:-n]
    assert len(header) + len(directory) + n == len(whole)
    offset = 8 + n
    path.write_bytes(header[:4] + offset.to_bytes(4, "little") + whole[-n:])
    pattern = r"(?P<well>[A-Z]\d{2})_s(?P<field>\d)" + groups + r"\.tif"
    with pytest.raises(UserError, match=r"B03_s2.*(truncated|not a readable TIFF)"):
        staged(tmp_path, "images", {**DNA, "format": "pattern", "pattern": pattern})


def test_a_stack_that_was_cut_after_some_pages_is_named(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    for well in ("B02", "B03"):
        with tifffile.TiffWriter(images / f"{well}.tif") as tiff:
            for _ in range(4):
                tiff.write(
                    rng.integers(100, 2000, (64, 64)).astype(np.uint16), photometric="minisblack", metadata=None,
                    contiguous=False,
                )  # fmt: skip
    path = images / "B03.tif"
    with tifffile.TiffFile(path) as tiff:
        third = tiff.pages[2].offset
    path.write_bytes(path.read_bytes()[: third - 10])
    with pytest.raises(UserError, match=r"B03\.tif: the file is truncated"):
        staged(tmp_path, "images", {**DNA, "format": "pattern", "pattern": r"(?P<well>[A-Z]\d{2})\.tif"})


@pytest.mark.parametrize(("key", "instrument"), [("0", "00"), ("00", "0"), ("1", "01"), ("01", "1"), ("000", "00")])
def test_channel_numbers_match_however_they_are_padded(key: str, instrument: str, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    tifffile.imwrite(images / f"B02_w{instrument}.tif", np.arange(4096, dtype=np.uint16).reshape(64, 64))
    pattern = r"(?P<well>[A-Z]\d{2})_w(?P<channel>\d+)\.tif"
    settings = section("acquisition", json.dumps({"channels": {key: "DNA"}, "format": "pattern", "pattern": pattern}))
    index_plate("P1", images, settings, tmp_path / "index.parquet")
    assert pd.read_parquet(tmp_path / "index.parquet")["channel"].tolist() == ["DNA"]
