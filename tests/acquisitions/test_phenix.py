"""The Harmony reader on a real Operetta export; what is expected was read from its Index.idx.xml by eye."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wscnn.acquisitions import open_acquisition
from wscnn.acquisitions.phenix import Phenix, gain_map
from wscnn.core.errors import UserError

Settings = Callable[..., dict[str, Any]]


@pytest.fixture
def folder(exports: Path) -> Path:
    return exports / "operetta_compose" / "tests" / "operetta_plate"


def test_real_export(folder: Path, settings: Settings) -> None:
    reader = open_acquisition(folder, settings({"Fluorescein (FITC)": "GFP"}))
    assert isinstance(reader, Phenix)
    table = reader.index("BALL")
    assert table["well"].tolist() == ["C03", "C03"]
    assert table["field"].tolist() == [1, 2]
    assert table["channel"].tolist() == ["GFP", "GFP"]
    assert table["z"].tolist() == [1, 1]
    assert table["time"].tolist() == [0, 0]
    assert table["pixel_size_um"].to_numpy() == pytest.approx([1.1959521619135234] * 2)
    # PositionY is +645.8 um for both, upwards; PositionX -645.8 and +645.8.
    assert table["y_um"].to_numpy() == pytest.approx([-645.814, -645.814])
    assert table["x_um"].to_numpy() == pytest.approx([-645.814, 645.814])
    assert reader.read(Path(table["path"][0]), 0).shape == (1080, 1080)


@pytest.mark.parametrize("inner", [".", "Images"])
def test_channel_by_number_and_either_folder(folder: Path, settings: Settings, inner: str) -> None:
    assert len(open_acquisition(folder / inner, settings({"1": "GFP"})).index("BALL")) == 2


def test_flat_field_of_the_background(folder: Path, settings: Settings) -> None:
    reader = open_acquisition(folder, settings({"1": "GFP", "2": "DNA"}))
    gain = reader.flatfield("GFP")
    assert gain is not None
    assert gain.shape == (1080, 1080)
    assert gain.mean() == pytest.approx(1, abs=1e-6)
    # By hand at row 0, column 1079: x = 0.5 - 1/2160 and y = -x, on the coefficients in the file.
    x = 539.5 * 0.00092592593
    y = -x
    by_hand = (
        1.1282 - 0.0165 * x + 0.0298 * y - 0.8004 * x**2 - 0.0792 * x * y - 0.2953 * y**2
        - 0.3127 * x**3 + 0.1014 * x**2 * y - 0.0155 * x * y**2 + 0.0063 * y**3
        - 0.7439 * x**4 + 0.2779 * x**3 * y - 1.4485 * x**2 * y**2 - 0.2966 * x * y**3 - 1.4036 * y**4
    )  # fmt: skip
    assert gain[0, -1] == pytest.approx(by_hand, abs=1e-3)
    assert reader.flatfield("DNA") is None


def test_flat_field_fits_the_images_it_came_with(folder: Path, settings: Settings) -> None:
    """The darker tenth of each part of the two fields, their background, follows the profile and not its transpose."""
    reader = open_acquisition(folder, settings({"1": "GFP"}))
    gain = reader.flatfield("GFP")
    assert gain is not None
    fields = [reader.read(Path(path), 0).reshape(20, 54, 20, 54) for path in reader.index("BALL")["path"]]
    background = np.minimum(*(np.percentile(field, 10, axis=(1, 3)) for field in fields))
    grid = gain.reshape(20, 54, 20, 54).mean((1, 3))
    straight = np.corrcoef(grid.ravel(), background.ravel())[0, 1]
    assert straight > 0.7
    assert straight > np.corrcoef(grid.T.ravel(), background.ravel())[0, 1] + 0.05


def test_facts_of_a_channel_given_once(folder: Path, settings: Settings, tmp_path: Path) -> None:
    """Harmony 5 writes name and pixel size once a channel instead of in every image."""
    text = (folder / "Images" / "Index.idx.xml").read_text(encoding="utf-8-sig")
    lines = text.splitlines()
    lines = [line for line in lines if "<ChannelName>" not in line and "<ImageResolution" not in line]
    entry = next(i for i, line in enumerate(lines) if "<Entry ChannelID" in line)
    lines[entry + 1 : entry + 1] = [
        "<ChannelName>Fluorescein (FITC)</ChannelName>",
        '<ImageResolutionX Unit="m">1.1959521619135234E-06</ImageResolutionX>',
    ]
    (tmp_path / "Index.xml").write_text("\n".join(lines))
    for path in (folder / "Images").glob("*.tiff"):
        shutil.copy(path, tmp_path)
    reader = open_acquisition(tmp_path, settings({"Fluorescein (FITC)": "GFP"}))
    assert reader.index("BALL")["pixel_size_um"].to_numpy() == pytest.approx([1.1959521619135234] * 2)
    assert reader.flatfield("GFP") is not None


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("<Row>3</Row>", "<Row>0</Row>", "no plate has row 0"),
        ("<FieldID>1</FieldID>", "<FieldID>one</FieldID>", "'one' is not a whole number"),
        ("r03c03f01p01-ch1sk1fk1fl1.tiff", "../../etc/passwd", "is not a file name"),
        ("-0.000645814", "NaN", "'NaN' is not a number"),
        ('PositionX Unit="m"', 'PositionX Unit="furlong"', "has the unit 'furlong'"),
        ("<Images>", "<Images", "not valid XML"),
        ("<State>Ok</State>", "<State>&lol;</State>", "not valid XML"),
    ],
)
def test_broken_index(folder: Path, settings: Settings, tmp_path: Path, before: str, after: str, told: str) -> None:
    text = (folder / "Images" / "Index.idx.xml").read_text(encoding="utf-8-sig")
    assert before in text
    (tmp_path / "Index.idx.xml").write_text(text.replace(before, after))
    with pytest.raises(UserError, match=told) as raised:
        open_acquisition(tmp_path, settings({"1": "GFP"})).index("BALL")
    assert str(tmp_path / "Index.idx.xml") in str(raised.value)


INDEX = """<EvaluationInputData><Images><Image><URL>a.tiff</URL><Row>1</Row><Col>1</Col><FieldID>1</FieldID>{}
</Image></Images></EvaluationInputData>"""


def test_an_image_without_any_channel(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "Index.xml").write_text(INDEX.format("<ChannelID/>"))
    with pytest.raises(UserError, match=r"Index\.xml: Image 1: has neither ChannelID nor ChannelName"):
        open_acquisition(tmp_path, settings({"1": "DNA"})).index("P")


def test_links_in_a_circle_beside_the_images(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "Images").mkdir()
    (tmp_path / "Images" / "Index.xml").write_text(INDEX.format("<ChannelID>1</ChannelID>"))
    (tmp_path / "Images" / "a.tiff").touch()
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    assert len(open_acquisition(tmp_path, settings({"1": "DNA"})).index("P")) == 1


def test_two_measurements_in_one_folder(folder: Path, settings: Settings, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shutil.copy(folder / "Images" / "Index.idx.xml", tmp_path / name)
    with pytest.raises(UserError, match="several plates"):
        open_acquisition(tmp_path, settings({"1": "GFP"}))


@pytest.mark.parametrize(
    "profile",
    [
        "",
        "{Background: {Character: Flat}, Foreground: {Profile: {Coefficients: [[1]], Dims: [2, 2], Origin: [0, 0]}}}",
        "Coefficients: [[1]], Dims: [100000, 100000], Origin: [0, 0], Scale: [1, 1]",
        "Coefficients: [[-1]], Dims: [2, 2], Origin: [0, 0], Scale: [1, 1]",
        "Coefficients: [1], Dims: [2, 2], Origin: [0, 0], Scale: [1, 1]",
        "Coefficients: [[1], Dims: [2, 2], Origin: [0, 0], Scale: [1, 1]",
        "Coefficients: [[1]], Dims: [2], Origin: [0, 0], Scale: [1, 1]",
    ],
)
def test_profiles_that_cannot_be(profile: str) -> None:
    with pytest.raises(ValueError):
        gain_map(profile)


@given(st.text(max_size=60), st.lists(st.lists(st.floats(), max_size=3), max_size=3))
def test_any_profile_is_a_gain_or_refused(text: str, coefficients: list[list[float]]) -> None:
    for profile in (text, f"Coefficients: {coefficients}, Dims: [3, 2], Origin: [1, 0.5], Scale: [0.3, 0.5] {text}"):
        try:
            gain = gain_map(profile)
        except ValueError:
            continue
        assert gain.shape == (2, 3)
        assert np.isfinite(gain).all()
