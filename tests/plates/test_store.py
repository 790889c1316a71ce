import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorstore
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ome_zarr_models.v05 import HCS
from ome_zarr_models.v05.image_label import ImageLabel

from wscnn.core.errors import UserError
from wscnn.plates.store import Channel, Plate, PlateWriter

CELL = (20, 30)
CHANNELS = [Channel("DNA", "0000FF", (0.0, 100.0)), Channel("GFP", "00FF00", (1.0, 2.0))]


def mosaic(seed: int, dtype: type = np.uint16) -> np.ndarray:
    """Return a mosaic of 2 x 2 cells; one cell of the first channel holds only zeros."""
    image = np.random.default_rng(seed).integers(0, 250, (2, 40, 60)).astype(dtype)
    image[0, :20, :30] = 0
    return image


def fields() -> pd.DataFrame:
    return pd.DataFrame(
        {"field": [1, 2, 3], "y": [0, 0, 20], "x": [0, 30, 0], "height": 20, "width": 30, "y_um": [0.5, 0.5, np.nan]}
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "p.zarr"
    writer = PlateWriter(path, "p", ["B03", "A01"], CHANNELS, 0.65)
    for seed, well in enumerate(("A01", "B03")):
        writer.write_well(well, mosaic(seed), fields(), CELL)
    writer.set_windows([(3.0, 200.0), (4.0, 150.0)])
    return path


def test_what_is_written_is_read_back(path: Path) -> None:
    plate = Plate(path)
    assert plate.name == "p" and plate.wells == ["A01", "B03"] and plate.pixel_size_um == 0.65
    assert [(channel.name, channel.window) for channel in plate.channels] == [
        ("DNA", (3.0, 200.0)),
        ("GFP", (4.0, 150.0)),
    ]
    np.testing.assert_array_equal(plate.read("B03"), mosaic(1))
    np.testing.assert_array_equal(plate.read("B03", ["GFP"]), mosaic(1)[1:])
    np.testing.assert_array_equal(plate.read("A01", ["GFP", "DNA"]), mosaic(0)[::-1])
    pd.testing.assert_frame_equal(plate.fields("A01"), fields())
    assert plate.cell("A01") == CELL and plate.mosaic_shape("A01") == (40, 60)


def test_eight_bit_plates_stay_eight_bit(tmp_path: Path) -> None:
    writer = PlateWriter(tmp_path / "p", "p", ["A01"], CHANNELS, None)
    writer.write_well("A01", mosaic(0, np.uint8), fields(), CELL)
    plate = Plate(tmp_path / "p")
    assert plate.read("A01").dtype == np.uint8 and plate.pixel_size_um is None
    np.testing.assert_array_equal(plate.read("A01"), mosaic(0, np.uint8))


def test_another_reader_sees_the_same_pixels(path: Path) -> None:
    for inside, expected in (("A/01/0/0", mosaic(0)), ("B/03/0/0", mosaic(1))):
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path / inside)}}
        np.testing.assert_array_equal(tensorstore.open(spec).result().read().result(), expected)


def test_the_schema_accepts_plate_wells_images_and_labels(path: Path) -> None:
    import zarr

    Plate(path).write_labels("A01", {"rare": np.ones((40, 60), np.uint32)})
    hcs = HCS.from_zarr(zarr.open_group(path, mode="r"))
    assert len(hcs.ome_attributes.plate.wells) == 2
    label = ImageLabel.from_zarr(zarr.open_group(path / "A/01/0/labels/rare", mode="r"))
    assert label.ome_attributes.image_label is not None


def test_masks_carry_the_color_of_their_name_and_saliency_none(path: Path) -> None:
    import zarr

    masks = np.zeros((40, 60), np.uint32)
    masks[3:5, 3:5], masks[10:12, 10:12] = 1, 7
    plate = Plate(path)
    plate.write_labels("A01", {"rare": masks, "other": masks, "rare_saliency": masks.astype(np.uint8)})

    def colors(name: str) -> dict[int, tuple[int, ...]]:
        label = ImageLabel.from_zarr(zarr.open_group(path / "A/01/0/labels" / name, mode="r"))
        return {int(one.label_value): tuple(one.rgba) for one in label.ome_attributes.image_label.colors or []}

    rare, other = colors("rare"), colors("other")
    assert list(rare) == list(other) == [1, 7]
    assert len(set(rare.values())) == len(set(other.values())) == 1 and set(rare.values()) != set(other.values())
    assert colors("rare_saliency") == {}


def test_a_well_costs_seven_files_with_two_channels(path: Path) -> None:
    files = [entry for entry in path.rglob("*") if entry.is_file()]
    # Plate and two rows; for each well its group, image and array's metadata, and a shard a channel.
    assert len(files) == 3 + 2 * (3 + 2)


def test_a_missing_shard_is_an_error(path: Path) -> None:
    next(entry for entry in sorted((path / "A/01/0/0/c").rglob("*")) if entry.is_file()).unlink()
    with pytest.raises(UserError, match="pixels are missing"):
        Plate(path).read("A01")
    np.testing.assert_array_equal(Plate(path).read("B03"), mosaic(1))


def test_fields_of_all_wells_are_those_of_each(path: Path) -> None:
    plate = Plate(path)
    edit(path / "B/03/0/zarr.json", lambda group: group["attributes"]["wscnn"]["fields"].update(z_um=[2.5] * 3))
    expected = pd.concat([plate.fields(well).assign(well=well) for well in plate.wells], ignore_index=True)
    assert expected["z_um"].isna().any() and expected["z_um"].notna().any()
    pd.testing.assert_frame_equal(plate.all_fields(), expected, check_like=True)


def test_a_flipped_bit_anywhere_is_an_error(path: Path) -> None:
    shard = next(entry for entry in sorted((path / "A/01/0/0/c").rglob("*")) if entry.is_file())
    whole = shard.read_bytes()
    for place in np.linspace(0, len(whole) - 1, 25).astype(int):
        broken = bytearray(whole)
        broken[place] ^= 4
        shard.write_bytes(broken)
        with pytest.raises(UserError, match="A01"):
            Plate(path).read("A01")


def test_a_truncated_shard_is_an_error(path: Path) -> None:
    shard = next(entry for entry in sorted((path / "A/01/0/0/c").rglob("*")) if entry.is_file())
    shard.write_bytes(shard.read_bytes()[:-30])
    with pytest.raises(UserError, match="A01"):
        Plate(path).read("A01")


def test_labels_are_replaced_and_listed_once(path: Path) -> None:
    plate = Plate(path)
    assert plate.labels("A01") == []
    for value in (1, 2):
        plate.write_labels("A01", {"rare": np.full((40, 60), value, np.uint32)})
    plate.write_labels("A01", {"rare_saliency": np.full((40, 60), 9, np.uint8)})
    assert plate.labels("A01") == ["rare", "rare_saliency"]
    assert (plate.read_label("A01", "rare") == 2).all() and plate.read_label("A01", "rare").dtype == np.uint32
    assert (plate.read_label("A01", "rare_saliency") == 9).all()
    np.testing.assert_array_equal(plate.read("A01"), mosaic(0))
    assert not list(path.rglob("*.partial*"))


def test_what_is_no_plate_is_named(tmp_path: Path, path: Path) -> None:
    with pytest.raises(UserError, match="nothing"):
        Plate(tmp_path / "nothing")
    (path / "zarr.json").write_text('{"attributes": {"ome": {}}}')
    with pytest.raises(UserError, match=r"p\.zarr"):
        Plate(path)
    shutil.rmtree(path / "A")
    (path / "zarr.json").write_text("{")
    with pytest.raises(UserError, match=r"p\.zarr"):
        Plate(path)


def everything(path: Path) -> dict[str, Any]:
    """Return all that can be read of a plate with labels."""
    plate = Plate(path)
    read: dict[str, Any] = {}
    for well in plate.wells:
        read[well] = plate.read(well).tolist()
        read[f"{well} label"] = plate.read_label(well, "rare").tolist()
        plate.cell(well), plate.mosaic_shape(well), plate.fields(well), plate.labels(well)
    return read


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("A/01/0/0", lambda array: array.clear(), r"A/01/0/0, well A01: damaged"),
        ("A/01/0/0", lambda array: array.update(data_type="uint99"), r"A/01/0/0, well A01: damaged"),
        ("A/01/0/0", lambda array: array.update(data_type="int16"), r"A/01/0/0, well A01: damaged"),
        ("A/01/0/0", lambda array: array["codecs"][0].update(name="none"), r"A/01/0/0, well A01: damaged"),
        ("A/01/0/0", lambda array: array.update(shape=[2, 80, 60]), r"A/01/0/0, well A01: damaged"),
        ("A/01/0/0", lambda array: array.update(shape=[2, 20, 30]), r"A/01/0/0, well A01: damaged"),
        ("A/01/0/0", lambda array: array.update(shape=[1, 40, 60]), r"A/01/0/0, well A01: damaged"),
        (
            "A/01/0/0",
            lambda array: array["chunk_key_encoding"]["configuration"].update(separator="."),
            r"A/01/0/0, well A01: damaged",
        ),
        ("A/01/0", lambda group: group["attributes"].pop("wscnn"), r"A/01/0: damaged metadata"),
        ("A/01/0", lambda group: group["attributes"]["wscnn"].pop("cell"), r"A/01/0: damaged metadata"),
        ("A/01/0", lambda group: group["attributes"]["wscnn"]["fields"]["y"].pop(), r"A/01/0: damaged metadata"),
        ("A/01/0", lambda group: group["attributes"]["wscnn"]["fields"].update(x="a"), r"A/01/0: damaged metadata"),
        ("A/01/0", lambda group: group["attributes"]["wscnn"]["fields"].update(x=[0, 2**70, 0]), r"A/01/0: damaged"),
        ("A/01/0", lambda group: group["attributes"]["wscnn"]["fields"].update(x=[0, 30.0, 0]), r"A/01/0: damaged"),
        ("A/01/0", lambda group: group["attributes"]["wscnn"]["fields"].update(y_um="123"), r"A/01/0: damaged"),
        (
            "A/01/0",
            lambda group: group["attributes"]["wscnn"]["fields"].update(y_um=["1", "2", "3"]),
            r"A/01/0: damaged",
        ),
        ("A/01/0", lambda group: group["attributes"]["wscnn"]["fields"].update(y_um={"a": 1}), r"A/01/0: damaged"),
        ("A/01/0/labels", lambda group: group["attributes"].clear(), r"A/01/0/labels: damaged metadata"),
        (
            "A/01/0/labels/rare/0",
            lambda array: array.clear(),
            r"rare/0, well A01: damaged pixels .* score the plate again",
        ),
        (".", lambda group: group["attributes"]["ome"]["plate"]["wells"][1].update(path="Z/99"), r"p\.zarr: damaged"),
        (".", lambda group: group["attributes"]["ome"]["plate"].update(wells=[]), r"p\.zarr: damaged metadata"),
        (".", lambda group: group["attributes"].update(ome=[1]), r"p\.zarr: damaged metadata"),
    ],
)
def test_metadata_that_cannot_be(path: Path, file: str, change: Callable[[dict[str, Any]], object], told: str) -> None:
    label = np.ones((40, 60), np.uint32)
    for well in ("A01", "B03"):
        Plate(path).write_labels(well, {"rare": label})
    everything(path)
    edit(path / file / "zarr.json", change)
    with pytest.raises(UserError, match=told) as raised:
        everything(path)
    assert "the plate again" in str(raised.value) or "stage it again" in str(raised.value)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"{}", b"[]", b"[" * 100_000, b"\xff"], ids=lambda content: str(content[:3])
)
@pytest.mark.parametrize("file", [".", "A/01/0", "A/01/0/0"])
def test_metadata_that_are_none(path: Path, file: str, content: bytes) -> None:
    for well in ("A01", "B03"):
        Plate(path).write_labels(well, {"rare": np.ones((40, 60), np.uint32)})
    (path / file / "zarr.json").write_bytes(content)
    with pytest.raises(UserError, match=r"p\.zarr.*stage the plate again"):
        everything(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 99) | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["name", "path", "plate"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), file=st.sampled_from([".", "A/01/0", "A/01/0/0", "A/01/0/labels", "A/01/0/labels/rare/0"]))
def test_broken_metadata_are_told_or_change_no_pixel(path: Path, data: st.DataObject, file: str) -> None:
    if not (path / "A/01/0/labels").is_dir():
        for well in ("A01", "B03"):
            Plate(path).write_labels(well, {"rare": np.ones((40, 60), np.uint32)})
    expected = everything(path)
    whole = (path / file / "zarr.json").read_bytes()
    content = json.loads(whole)
    # A value, however deep, is exchanged or removed.
    inside, key = {"": content}, ""
    while isinstance(inside[key], dict | list) and inside[key] and (key == "" or data.draw(st.booleans())):
        inside = inside[key]
        key = data.draw(st.sampled_from(list(inside) if isinstance(inside, dict) else range(len(inside))))
    if data.draw(st.booleans()):
        inside[key] = data.draw(JSON)
    else:
        del inside[key]
    (path / file / "zarr.json").write_text(json.dumps(content))
    try:
        read = everything(path)
        assert read.items() <= expected.items()
    except UserError as error:
        assert str(path) in str(error)
    finally:
        (path / file / "zarr.json").write_bytes(whole)
