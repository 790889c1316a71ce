"""The ScanR reader on a real export (embl-cba/plateviewer); what is expected was read from its file names."""

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tifffile

from wscnn.acquisitions import open_acquisition
from wscnn.acquisitions.scanr import ScanR
from wscnn.core.errors import UserError

Settings = Callable[..., dict[str, Any]]
ARCHIVE = Path(__file__).parents[3] / "shared" / "data" / "scanr_export.tar.xz"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not ARCHIVE.is_file():
        pytest.skip(f"the real export is not here: {ARCHIVE} is missing")
    unpacked = tmp_path_factory.mktemp("scanr")
    with tarfile.open(ARCHIVE) as tar:
        tar.extractall(unpacked, filter="data")
    return unpacked / "SCANR-C2-S1-T1"


def test_wells_channels_and_pixels(folder: Path, settings: Settings) -> None:
    reader = open_acquisition(folder, settings({"GFP": "reporter", "mcherry": "DNA"}, pixel_size_um=0.65))
    assert isinstance(reader, ScanR)
    table = reader.index("P1")
    assert sorted(zip(table["well"], table["field"], table["channel"], strict=True)) == [
        ("A01", 1, "DNA"), ("A01", 1, "reporter"), ("B02", 1, "DNA"), ("B02", 1, "reporter"),
    ]  # fmt: skip
    path = Path(table.loc[(table["well"] == "B02") & (table["channel"] == "DNA"), "path"].item())
    assert path.name == "B2--W00014--P00001--Z00000--T00000--mcherry.tif"
    image = reader.read(path, 0)
    assert image.shape == (1024, 1344)
    assert (image == tifffile.imread(path)).all()


def test_a_channel_that_is_not_listed_is_left_out(folder: Path, settings: Settings) -> None:
    reader = open_acquisition(folder, settings({"GFP": "reporter"}))
    assert set(reader.index("P1")["channel"]) == {"reporter"}
    assert set(reader.unlisted) == {"mcherry"}


def test_images_may_lie_in_a_folder_data(folder: Path, settings: Settings, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "data")
    assert len(open_acquisition(tmp_path, settings({"GFP": "reporter"})).index("P1")) == 2


def test_a_well_that_is_only_numbered_is_refused(folder: Path, settings: Settings, tmp_path: Path) -> None:
    for path in folder.iterdir():
        shutil.copy(path, tmp_path / path.name.partition("--")[2])
    with pytest.raises(UserError, match="numbers its wells through the plate"):
        open_acquisition(tmp_path, settings({"GFP": "reporter"}, format="scanr")).files("P1")
