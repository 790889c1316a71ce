"""A well as a picture."""

import importlib.util
import shutil
from pathlib import Path

import imagecodecs
import numpy as np
import pandas as pd
import pytest
from cards import card_of
from click.testing import CliRunner
from matched import matched_filter

from wscnn.cli import main
from wscnn.core.errors import UserError
from wscnn.core.tables import FIELDS, OBJECTS, conform, read_table, write_table
from wscnn.network.weights import save_model
from wscnn.plates.store import Channel, Plate, PlateWriter
from wscnn.reporting.view import add_layers, cover, view_well

FIELD = 64
YELLOW = np.array([255, 212, 0])


def make_plate(results: Path, channels: list[Channel], label: bool) -> None:
    """Write plate P1 with well B03 of 2 x 2 fields: dark, but for one bright square, masked where `label` says so."""
    image = np.full((len(channels), 2 * FIELD, 2 * FIELD), 100, np.uint16)
    image[0, 20:40, 70:90] = 1000
    corners = {"y": [0, 0, FIELD, FIELD], "x": [0, FIELD, 0, FIELD]}
    fields = pd.DataFrame({"field": range(4), **corners, "height": FIELD, "width": FIELD})
    PlateWriter(results / "plates" / "P1.zarr", "P1", ["B03"], channels, 0.5).write_well(
        "B03", image, fields, (FIELD, FIELD)
    )
    if label:
        mask = (image[0] > 500).astype(np.uint16)
        Plate(results / "plates" / "P1.zarr").write_labels(
            "B03", {"mitotic": mask, "mitotic_saliency": mask.astype(np.uint8) * 255}
        )
        found = ("P1", "B03", 1, "mitotic", 1, 29.5, 79.5, 20, 70, 40, 90, 400, 3.0)
        write_table(conform(pd.DataFrame([found], columns=list(OBJECTS)), OBJECTS), results / "objects" / "P1.parquet")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    make_plate(tmp_path, [Channel("DNA", "0000FF", (100.0, 1000.0))], label=True)
    return tmp_path


def draw(results: Path, well: str = "B03") -> np.ndarray:
    """Return the picture of a well, (y, x, 3)."""
    view_well(results, "P1", well, results / "well.png")
    return imagecodecs.png_decode((results / "well.png").read_bytes())[..., :3].astype(int)


def near(picture: np.ndarray, color: np.ndarray | list[int]) -> np.ndarray:
    return np.abs(picture - color).max(-1) < 40


def test_the_picture_shows_the_well_with_its_mask_outlined(results: Path) -> None:
    picture = draw(results)
    assert min(picture.shape[:2]) > 1000
    dark = near(picture, [0, 0, 0])
    rows, columns = (np.flatnonzero(dark.mean(axis) > 0.5) for axis in (1, 0))
    top, left, size = rows[0], columns[0], len(rows)
    outline_y, outline_x = np.nonzero(near(picture, YELLOW))
    place = np.array([outline_y.min() - top, outline_y.max() - top, outline_x.min() - left, outline_x.max() - left])
    assert np.allclose(place / size * 2 * FIELD, [20, 40, 70, 90], atol=1.5)


def test_a_well_can_be_named_in_short(results: Path) -> None:
    assert np.array_equal(draw(results, "b3"), draw(results, "B03"))


def test_the_picture_is_the_same_when_drawn_again(results: Path) -> None:
    view_well(results, "P1", "B03", results / "1.png")
    view_well(results, "P1", "B03", results / "2.png")
    assert (results / "1.png").read_bytes() == (results / "2.png").read_bytes()


def test_channels_have_their_colours(tmp_path: Path) -> None:
    channels = [Channel("actin", "FF0000", (100.0, 1000.0)), Channel("DNA", "0000FF", (100.0, 1000.0))]
    make_plate(tmp_path, channels, label=False)
    picture = draw(tmp_path)
    assert near(picture, [255, 0, 0]).mean() > 0.01
    assert not near(picture, YELLOW).any()


@pytest.fixture
def scored(results: Path) -> Path:
    """Return results with two spots that a network of known answers sees; the field of the second scores highest."""
    image = np.full((1, 2 * FIELD, 2 * FIELD), 100, np.uint16)
    image[0, 10:20, 10:20], image[0, 90:100, 100:110] = 900, 1000
    plate = Plate(results / "plates" / "P1.zarr")
    fields = plate.fields("B03")
    shutil.rmtree(plate.path)
    PlateWriter(plate.path, "P1", ["B03"], plate.channels, 0.5).write_well("B03", image, fields, (FIELD, FIELD))
    plate.write_labels(
        "B03",
        {"mitotic": (image[0] > 950).astype(np.uint16), "mitotic_saliency": (image[0] > 950).astype(np.uint8) * 255},
    )
    card = card_of("mitotic", pool="max", score_pool="max", pixel_size_um=0.5)
    save_model(results / "model" / "fold-0.safetensors", matched_filter(), card)
    scores = pd.DataFrame({"field": range(4), "score": [1.0, -2.0, -2.0, 3.0]})
    scores = scores.assign(
        screen="s", plate="P1", well="B03", phenotype="mitotic", used=True, score_sd=0.1, probability=0.5
    )
    write_table(conform(scores.assign(n_objects=0, object_area_px=0), FIELDS), results / "fields" / "P1.parquet")
    return results


def test_covering_the_best_field_finds_what_its_score_rests_on(scored: Path) -> None:
    plate = Plate(scored / "plates" / "P1.zarr")
    covered = cover(plate, "B03", scored / "fields" / "P1.parquet", scored / "model")
    assert (covered.field, covered.phenotype, covered.side) == (3, "mitotic", 40)
    assert covered.falls.shape == (FIELD, FIELD)
    # Of field 3 the spot lies about (31, 41).
    assert covered.falls[31, 41] == covered.falls.max() > 1
    assert covered.falls[:, :10].max() == pytest.approx(0, abs=1e-4)


def test_the_picture_shows_the_check_beside_the_well(scored: Path) -> None:
    plain = draw(scored)
    options = ["--well", "P1/B03", "--occlusion", "--output", str(scored / "checked.png")]
    done = CliRunner().invoke(main, ["view", str(scored), *options], catch_exceptions=False)
    assert done.exit_code == 0
    checked = imagecodecs.png_decode((scored / "checked.png").read_bytes())[..., :3].astype(int)
    assert checked.shape[1] > plain.shape[1]
    # Saliency above, the fall of the score below, in one colour, both over the spot of the same field.
    orange = (checked[..., 0] > 60) & (checked[..., 2] < 0.5 * checked[..., 0]) & ~near(checked, YELLOW)
    beside = orange[:, plain.shape[1] :]
    rows = np.flatnonzero(beside.any(1))
    split = checked.shape[0] // 2
    assert beside[:split].any() and beside[split:].any() and len(rows) > 50


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        ("fields/P1.parquet", "no such file"),
        ("model/fold-0.safetensors", "holds no model"),
        ("score", "no field has a score"),
    ],
)
def test_what_was_not_scored_cannot_be_covered(scored: Path, lacking: str, message: str) -> None:
    if lacking == "score":
        table = read_table(scored / "fields" / "P1.parquet")
        write_table(table.assign(score=np.nan), scored / "fields" / "P1.parquet")
    else:
        (scored / lacking).unlink()
    with pytest.raises(UserError, match=message):
        view_well(scored, "P1", "B03", scored / "well.png", occlusion=True)
    assert not (scored / "well.png").exists()


@pytest.mark.skipif(importlib.util.find_spec("napari") is not None, reason="napari would open a window")
def test_without_napari_a_picture_is_written_here(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(results)
    view_well(results, "P1", "B03", None)
    assert (results / "P1_B03.png").read_bytes().startswith(b"\x89PNG")


def test_napari_shows_channel_mask_saliency_and_objects(results: Path) -> None:
    pytest.importorskip("napari", reason="napari is not installed")
    from napari.components import ViewerModel

    viewer = ViewerModel()  # what a window shows, without the window
    objects = read_table(results / "objects" / "P1.parquet")
    add_layers(viewer, Plate(results / "plates" / "P1.zarr"), "B03", objects)
    channel, mask, saliency, found = (viewer.layers[name] for name in ("DNA", "mitotic", "mitotic_saliency", "objects"))
    assert tuple(channel.contrast_limits) == (100.0, 1000.0)
    assert channel.colormap.name == "gray" and channel.visible
    assert np.argwhere(mask.data).min(0).tolist() == [20, 70] and mask.contour == 1 and mask.visible
    assert mask.scale.tolist() == [0.5, 0.5] and {str(unit) for unit in mask.units} == {"micrometer"}
    assert np.allclose(mask.get_color(1)[:3], YELLOW / 255, atol=0.01)
    assert not saliency.visible and not found.visible
    assert found.data.tolist() == [[29.5, 79.5]] and found.features["score"].tolist() == [3.0]


def test_napari_ome_zarr_opens_the_well_as_it_is(results: Path) -> None:
    plugin = pytest.importorskip("napari_ome_zarr", reason="napari-ome-zarr is not installed")
    path = str(results / "plates" / "P1.zarr" / "B" / "03" / "0")
    layers = plugin.napari_get_reader(path)(path)
    image = layers[0]
    assert [np.ravel(limits).tolist() for limits in [image[1]["contrast_limits"]]] == [[100.0, 1000.0]]
    assert [kind for _, _, kind in layers] == ["image", "labels", "labels"]


@pytest.mark.parametrize(
    ("plate", "well", "message"),
    [
        ("P2", "B03", "no plate 'P2'; plates there: P1"),
        ("P1", "C04", "plate 'P1' has no well C04; it has B03"),
        ("P1", "Z99", "'Z99' is not a well"),
        ("../P1", "B03", "no plate"),
    ],
)
def test_a_wrong_plate_or_well_is_named(results: Path, plate: str, well: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        view_well(results, plate, well, results / "well.png")
    assert not (results / "well.png").exists()
