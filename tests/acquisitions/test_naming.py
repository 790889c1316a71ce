"""File names of instruments, `naming_schemes.tsv`: what each name means was written down by hand."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from wscnn.acquisitions import open_acquisition
from wscnn.acquisitions.naming import recognise_names
from wscnn.acquisitions.pattern import compile_pattern
from wscnn.core.errors import UserError

TABLE = pd.read_csv(Path(__file__).parent / "naming_schemes.tsv", sep="\t", dtype=str, keep_default_na=False)


@pytest.mark.parametrize("scheme", TABLE["scheme"].unique())
def test_names_of_instruments_are_read_right_or_asked_about(scheme: str) -> None:
    rows = TABLE[TABLE["scheme"] == scheme]
    wells, asks = rows["wells"].iloc[0], rows["asks"].iloc[0]
    if asks:
        with pytest.raises(UserError, match=re.escape(asks)):
            recognise_names(rows["name"])
        return
    naming = recognise_names(rows["name"], int(wells) if wells else None)
    assert not naming.ignored
    found = {
        image.path: (image.plate, image.well, str(image.field), image.channel, str(image.z), str(image.time))
        for image in naming.images
    }
    columns = ["plate", "well", "field", "channel", "z", "time"]
    assert found == dict(zip(rows["name"], rows[columns].itertuples(index=False, name=None), strict=True))
    pattern = re.compile(naming.scheme.pattern)
    names = rows["name"] if "/" in naming.scheme.pattern else rows["name"].str.rpartition("/")[2]
    assert all(map(pattern.fullmatch, names))
    if naming.scheme.expressible:
        compile_pattern(naming.scheme.pattern, rows["channel"].nunique())


def test_a_well_number_beyond_the_plate_is_named() -> None:
    names = [f"W{well}F00{field}T0001Z01C1.tif" for well in (1, 13, 96) for field in (1, 2)]
    with pytest.raises(UserError, match="a plate of 48 wells has no well number 96; correct --wells"):
        recognise_names(names, wells=48)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["img_0001.tif", "img_0002.tif", "img_0003.tif"], "which part names the well"),
        ([f"{w}_{a}_{b}.tif" for w in ("B03", "C12") for a in (1, 2, 3) for b in (1, 2)], "not clear what"),
        (["B03_s1.tif", "C12-f2-x.tif", "mean.tif"], "named in several ways"),
        (["notes.txt", "B03.png"], "holds no file that ends in .tif"),
        ([], "holds no file"),
        ([f"{word}/{w}.tif" for word in ("left", "right") for w in ("B03", "C12")], "not clear what"),
    ],
)
def test_names_that_leave_it_open_are_a_question(names: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        recognise_names(names)


def test_thumbnails_and_a_few_other_images_are_left_out() -> None:
    names = [f"exp_{w}_s{f}_w1.TIF" for w in ("A01", "C12", "D05") for f in (1, 2)]
    naming = recognise_names([*names, "exp_A01_s1_w1_thumb0123.TIF", "overview.tif"])
    assert [image.path for image in naming.images] == names
    assert naming.ignored == ["overview.tif"]


def test_check_says_that_no_pattern_expresses_names(tmp_path: Path, settings: Callable[..., dict[str, Any]]) -> None:
    for well in (0, 1):
        (tmp_path / f"row{well}_col2_DAPI.tif").touch()
    with pytest.raises(UserError, match=r"in a way that no pattern expresses .*; wscnn init lists them in a table"):
        open_acquisition(tmp_path, settings({"1": "DNA"}))


def test_a_folder_of_plain_files_gets_a_pattern_proposed(
    tmp_path: Path, settings: Callable[..., dict[str, Any]]
) -> None:
    for well in ("B03", "C12"):
        for channel in (1, 2):
            (tmp_path / f"exp_{well}_s1_w{channel}.TIF").touch()
    with pytest.raises(UserError) as raised:
        open_acquisition(tmp_path, settings({"1": "DNA"}))
    pattern = re.search(r"set acquisition\.pattern to '(.*)', by which", str(raised.value))
    assert pattern and "exp_B03_s1_w1.TIF is well B03, field 1, channel 1, plane 1" in str(raised.value)
    # The proposal works as it stands.
    files = open_acquisition(tmp_path, settings({"1": "DNA"}, pattern=pattern[1])).files("P1")
    assert files["well"].tolist() == ["B03", "C12"]
