import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from benchmarks.flatness import light, staged, unevenness, write_harmony

from wscnn.acquisitions.index import index_plate
from wscnn.core.config import complete_config
from wscnn.core.errors import UserError
from wscnn.core.tables import write_table
from wscnn.plates.store import Plate
from wscnn.staging.stage import stage_plate

PATTERN = r"(?P<well>[A-Z]\d\d)_s(?P<field>\d+)_w(?P<channel>\d)(?:_z(?P<z>\d+))?\.tif"


def write(folder: Path, name: str, image: np.ndarray, **options: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(folder / name, image, photometric="minisblack", **options)


def raw(*key: int) -> np.ndarray:
    """Return a raw field of 24 x 36 pixels, a different one for every key."""
    return np.random.default_rng(key).integers(100, 4000, (24, 36)).astype(np.uint16)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a plate of 3 wells x 3 fields x 2 channels; the last well misses field 2."""
    for w, well in enumerate(("A01", "B02", "B11")):
        for field in (1, 2, 3):
            for channel in (1, 2):
                if (well, field) != ("B11", 2):
                    write(tmp_path / "images", f"{well}_s{field}_w{channel}.tif", raw(w, field, channel))
    return tmp_path / "images"


def stage(
    images: Path,
    out: Path,
    layout: Path | None = None,
    indexed: Callable[[Path], None] = lambda index: None,
    **sections: dict[str, Any],
) -> Path:
    """Index and stage a folder as plate `p`, with `indexed` called in between; return the folder of results."""
    acquisition = {"pattern": PATTERN, "channels": {"1": "DNA", "2": "GFP"}} | sections.pop("acquisition", {})
    given = {"screen": "s", "plates": "p", "layout": "l", "acquisition": acquisition, "mosaic": {"downsample": 2}}
    config = complete_config(given | sections, "test")
    index_plate("p", images, config["acquisition"], out / "index.parquet")
    indexed(out / "index.parquet")
    stage_plate(
        "p",
        out / "index.parquet",
        images,
        out / "p.zarr",
        out / "p.json",
        out / "qc.parquet",
        acquisition=config["acquisition"],
        mosaic=config["mosaic"],
        illumination=config["illumination"],
        quality=config["qc"],
        dask=config["dask"],
        layout=layout,
    )
    return out


def means(image: np.ndarray, factor: int) -> np.ndarray:
    """Return block means, rounded half up."""
    height, width = image.shape
    blocks = image.reshape(height // factor, factor, width // factor, factor).astype(np.float64)
    return np.floor(blocks.mean((1, 3)) + 0.5).astype(np.uint16)


def outcome(out: Path) -> tuple[dict[str, np.ndarray], bytes, dict]:
    plate = Plate(out / "p.zarr")
    pixels = {well: plate.read(well) for well in plate.wells}
    return pixels, (out / "qc.parquet").read_bytes(), json.loads((out / "p.json").read_text())


def test_every_pixel_is_where_it_belongs(images: Path, tmp_path: Path) -> None:
    out = stage(images, tmp_path / "out", mosaic={"downsample": 2})
    plate = Plate(out / "p.zarr")
    assert plate.wells == ["A01", "B02", "B11"] and [channel.name for channel in plate.channels] == ["DNA", "GFP"]
    for w, well in enumerate(plate.wells):
        mosaic = plate.read(well)
        assert mosaic.shape == (2, 24, 36) and mosaic.dtype == np.uint16
        fields = plate.fields(well)
        assert fields["field"].tolist() == ([1, 3] if well == "B11" else [1, 2, 3])
        for field, y, x in zip(fields["field"], fields["y"], fields["x"], strict=True):
            for c in (0, 1):
                np.testing.assert_array_equal(mosaic[c, y : y + 12, x : x + 18], means(raw(w, field, c + 1), 2))
    assert (plate.read("B11")[:, :12, 18:] == 0).all(), "a place without a field stays empty"


def test_tables_say_what_was_staged(images: Path, tmp_path: Path) -> None:
    out = stage(images, tmp_path / "out", mosaic={"downsample": 1})
    table = pd.read_parquet(out / "qc.parquet")
    assert table.columns[:6].tolist() == ["plate", "well", "field", "used", "flags", "n_cells"]
    assert list(zip(table["well"], table["field"], strict=True))[:4] == [("A01", 1), ("A01", 2), ("A01", 3), ("B02", 1)]
    assert len(table) == 8 and table["used"].dtype == bool and table["n_cells"].isna().all()
    assert table.loc[0, "mean_DNA"] == pytest.approx(raw(0, 1, 1).mean())
    manifest = json.loads((out / "p.json").read_text())
    assert manifest["wells"] == ["A01", "B02", "B11"] and manifest["channels"] == ["DNA", "GFP"]
    assert manifest["fields"] == 8 and manifest["images"] == 16 and manifest["bytes"] == 16 * 24 * 36 * 2


def test_a_well_with_too_few_good_fields_is_not_used_and_says_why(images: Path, tmp_path: Path) -> None:
    table = pd.read_parquet(stage(images, tmp_path / "out", qc={"min_fields": 3}) / "qc.parquet")
    few = table["well"] == "B11"  # two fields, both good
    assert table.loc[few, "flags"].tolist() == ["few_fields", "few_fields"] and not table.loc[few, "used"].any()
    assert (table.loc[~few, "flags"] == "").all() and table.loc[~few, "used"].all()
    assert pd.read_parquet(stage(images, tmp_path / "two", qc={"min_fields": 2}) / "qc.parquet")["used"].all()
    with pytest.raises(UserError, match=r"qc\.min_fields: 4 good fields .* no well of plate p has more than 3"):
        stage(images, tmp_path / "none", qc={"min_fields": 4})


def two_channels(folder: Path, first: np.ndarray | None, second: np.ndarray | None, n: int = 6) -> Path:
    """Write a plate of `n` wells of one field; None stands for an image of cells, another one in each well."""
    for w in range(n):
        for channel, image in ((1, first), (2, second)):
            y, x = np.random.default_rng((w, channel)).integers(5, 59, (2, 12))
            cells = np.random.default_rng((w, channel, 1)).normal(300, 10, (64, 64))
            for dy, dx in np.ndindex(4, 4):
                cells[y + dy, x + dx] += 2000
            write(folder, f"A{w + 1:02d}_s1_w{channel}.tif", cells.astype(np.uint16) if image is None else image)
    return folder


def test_a_black_channel_hides_neither_good_fields_nor_empty_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    black = np.zeros((64, 64), np.uint16)
    two_channels(tmp_path / "one", None, black)
    write(tmp_path / "one", "A03_s1_w1.tif", np.random.default_rng(0).normal(300, 10, (64, 64)).astype(np.uint16))
    table = pd.read_parquet(stage(tmp_path / "one", tmp_path / "out") / "qc.parquet")
    assert table["flags"].tolist() == ["", "", "empty", "", "", ""]
    assert "channel GFP is black in every field" in capsys.readouterr().err
    two_channels(tmp_path / "both", black, black)
    assert set(pd.read_parquet(stage(tmp_path / "both", tmp_path / "no") / "qc.parquet")["flags"]) == {"empty"}


@pytest.mark.parametrize(("limit", "flagged"), [(255, True), (200, True), (4, False)])
def test_many_pixels_at_the_highest_value_are_saturation_only_at_a_cameras_limit(
    tmp_path: Path, limit: int, flagged: bool
) -> None:
    rng = np.random.default_rng(0)
    for w in range(4):
        image = rng.integers(0, limit + 1, (64, 64)).astype(np.uint8)
        if limit > 4:
            image[:8] = limit
        write(tmp_path / "images", f"A0{w + 1}_s1_w1.tif", image)
    table = pd.read_parquet(
        stage(tmp_path / "images", tmp_path / "out", acquisition={"channels": {"1": "DNA"}}) / "qc.parquet"
    )
    assert table["flags"].str.contains("saturated").tolist() == [flagged] * 4


def positioned(folder: Path, scene: np.ndarray, side: int, step: int, out: Path, **sections: dict[str, Any]) -> Path:
    """Stage a well of 2 x 2 fields of a scene, a micrometre a pixel, where the stage stood `step` apart."""
    corners = [(y, x) for y in (0, step) for x in (0, step)]
    for number, (y, x) in enumerate(corners, 1):
        write(folder, f"A01_s{number}_w1.tif", scene[y : y + side, x : x + side])
    acquisition = {"channels": {"1": "DNA"}, "nuclei": "DNA"}

    def place(index: Path) -> None:
        table = pd.read_parquet(index)
        table["y_um"], table["x_um"] = np.array([corners[field - 1] for field in table["field"]], float).T
        write_table(table.assign(pixel_size_um=1.0), index)

    return stage(folder, out, acquisition=acquisition, mosaic={"downsample": 1}, indexed=place, **sections)


def test_nuclei_are_counted_where_the_mosaic_shows_them(tmp_path: Path) -> None:
    scene = np.random.default_rng(0).normal(100, 5, (180, 180))
    y, x = np.mgrid[:180, :180]
    # One in the middle of what each field keeps, and one where all four overlap.
    for top, left in ((50, 50), (50, 130), (130, 50), (130, 130), (78, 78)):
        scene[(y - top) ** 2 + (x - left) ** 2 < 50] = 800
    out = positioned(tmp_path / "images", scene.astype(np.uint16), 100, 80, tmp_path / "out")
    assert Plate(out / "p.zarr").read("A01").shape == (1, 160, 160)
    assert pd.read_parquet(out / "qc.parquet")["n_cells"].tolist() == [2, 1, 1, 1]


def test_one_field_with_planes_too_many_is_named_alone(tmp_path: Path) -> None:
    for well in ("A01", "A02", "A03"):
        for z in (1, 2, 3) if well == "A02" else (1, 2):
            write(tmp_path / "images", f"{well}_s1_w1_z{z}.tif", raw(z))
    with pytest.raises(UserError, match=r"A02, field 1: 3 planes where other fields have 2.*remove") as caught:
        stage(tmp_path / "images", tmp_path / "out", acquisition={"channels": {"1": "DNA"}})
    assert len(caught.value.problems) == 1


def test_the_window_is_the_plates_range(images: Path, tmp_path: Path) -> None:
    plate = Plate(stage(images, tmp_path / "out", mosaic={"downsample": 1}) / "p.zarr")
    pixels = np.concatenate([raw(w, field, 1).ravel() for w in range(3) for field in (1, 2, 3) if (w, field) != (2, 2)])
    low, high = np.percentile(pixels, [1, 99.5])
    assert plate.channels[0].window == (pytest.approx(low, abs=40), pytest.approx(high, abs=40))


@pytest.mark.parametrize("cluster", [{"workers": 1}, {"workers": 3}, {"cluster": "local", "workers": 2}], ids=str)
def test_any_number_of_workers_gives_the_same(images: Path, tmp_path: Path, cluster: dict) -> None:
    usual = outcome(stage(images, tmp_path / "one", illumination={"method": "retrospective"}))
    other = outcome(stage(images, tmp_path / "two", illumination={"method": "retrospective"}, dask=cluster))
    assert usual[1:] == other[1:]
    for well, pixels in usual[0].items():
        np.testing.assert_array_equal(pixels, other[0][well])


def test_planes_are_projected_or_chosen(tmp_path: Path) -> None:
    for z in (1, 2, 3):
        write(tmp_path / "images", f"A01_s1_w1_z{z}.tif", raw(z))
    channels = {"channels": {"1": "DNA"}}
    projected = stage(tmp_path / "images", tmp_path / "max", acquisition=channels, mosaic={"downsample": 1})
    np.testing.assert_array_equal(Plate(projected / "p.zarr").read("A01")[0], np.max([raw(1), raw(2), raw(3)], axis=0))
    chosen = stage(tmp_path / "images", tmp_path / "z", acquisition=channels | {"z": 2}, mosaic={"downsample": 1})
    np.testing.assert_array_equal(Plate(chosen / "p.zarr").read("A01")[0], raw(2))
    with pytest.raises(UserError, match="no plane 7"):
        stage(tmp_path / "images", tmp_path / "no", acquisition=channels | {"z": 7})


def test_all_bad_files_are_named_and_nothing_is_left(images: Path, tmp_path: Path) -> None:
    out = stage(images, tmp_path / "out")
    (images / "A01_s1_w2.tif").write_bytes((images / "A01_s1_w2.tif").read_bytes()[:300])
    (images / "B02_s3_w1.tif").write_bytes(b"")
    write(images, "B11_s1_w1.tif", raw(1)[:12])
    write(images, "B11_s3_w2.tif", raw(1).astype(np.uint8))
    shutil.rmtree(out / "p.zarr")
    with pytest.raises(UserError) as caught:
        stage(images, out)
    assert len(caught.value.problems) == 4
    for name in ("A01_s1_w2.tif", "B02_s3_w1.tif", "B11_s1_w1.tif", "B11_s3_w2.tif"):
        assert sum(name in problem for problem in caught.value.problems) == 1
    # The record of raw images stays: it knows which files have not changed.
    assert sorted(entry.name for entry in out.iterdir()) == ["index.parquet", "p.raw.parquet", "qc.parquet"]


def test_excluded_wells_are_neither_read_nor_staged(images: Path, tmp_path: Path) -> None:
    (images / "B02_s3_w1.tif").write_bytes(b"")
    layout = pd.DataFrame({"plate": "p", "well": ["A01", "B02", "B11"], "role": ["sample", "exclude", "negative"]})
    write_table(layout, tmp_path / "layout.parquet")
    out = stage(images, tmp_path / "out", tmp_path / "layout.parquet")
    assert Plate(out / "p.zarr").wells == ["A01", "B11"]
    assert set(pd.read_parquet(out / "qc.parquet")["well"]) == {"A01", "B11"}


def test_a_bad_file_stops_the_flat_field_as_well(images: Path, tmp_path: Path) -> None:
    (images / "A01_s1_w2.tif").write_bytes(b"")
    with pytest.raises(UserError, match=r"A01_s1_w2\.tif: the file is empty"):
        stage(images, tmp_path / "out", illumination={"method": "retrospective"})
    assert not (tmp_path / "out" / "p.zarr").exists()


def test_a_missing_channel_or_plane_of_a_field_is_named(images: Path, tmp_path: Path) -> None:
    (images / "B02_s2_w2.tif").unlink()
    with pytest.raises(UserError, match="well B02, field 2: no image of channel GFP"):
        stage(images, tmp_path / "out")


def test_instrument_flat_field_that_is_not_there_is_an_error(images: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no flat field of channel DNA"):
        stage(images, tmp_path / "out", illumination={"method": "instrument"})


def test_the_instruments_profile_is_taken_off(tmp_path: Path) -> None:
    """A Harmony export with a real measurement's profile: the scene comes out as it was, and where the stage stood."""
    rng = np.random.default_rng(0)
    gain = light(60) / light(60).mean()
    assert gain.max() / gain.min() > 1.5
    scenes = [2000 + 3000 * (rng.random((60, 60)) < 0.1) for _ in range(8)]
    write_harmony(tmp_path / "images", [np.rint(scene * gain).astype(np.uint16) for scene in scenes])
    channels = {"channels": {"1": "GFP"}}
    plates = {method: staged(tmp_path / "images", tmp_path, method, channels, 1) for method in ("none", "instrument")}
    assert unevenness(plates["none"], "GFP") > 0.1 > 0.001 > unevenness(plates["instrument"], "GFP")
    plate = plates["instrument"]
    assert plate.wells == ["A01", "A02"] and plate.pixel_size_um == pytest.approx(1.2)
    for well, four in (("A01", scenes[:4]), ("A02", scenes[4:])):
        # Positions: 1 and 2 above, 3 and 4 below, since Harmony's y points up.
        expected = np.block([four[:2], four[2:]])
        np.testing.assert_allclose(plate.read(well)[0], expected, atol=2)


def test_a_profile_of_another_size_is_refused(tmp_path: Path) -> None:
    write_harmony(tmp_path / "images", [np.full((60, 60), 1000, np.uint16)] * 4)
    index = tmp_path / "images" / "Index.idx.xml"
    index.write_text(index.read_text().replace("Dims: [60, 60]", "Dims: [61, 60]"))
    with pytest.raises(UserError, match="flat field of channel GFP has another size"):
        staged(tmp_path / "images", tmp_path, "instrument", {"channels": {"1": "GFP"}})


def test_vignetting_is_taken_off_before_downsampling_or_after_alike(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y, x = (np.mgrid[:60, :60] + 0.5) / 30 - 1
    gain = 1 - 0.3 * (y**2 + x**2)
    gain /= gain.mean()
    for well in range(12):
        for field in range(1, 9):
            scene = 2000 + 1500 * (rng.random((60, 60)) < 0.05)
            write(tmp_path / "images", f"A{well + 1:02d}_s{field}_w1.tif", rng.poisson(scene * gain).astype(np.uint16))
    flatness = {}
    for method in ("none", "retrospective"):
        out = stage(
            tmp_path / "images",
            tmp_path / method,
            acquisition={"channels": {"1": "DNA"}},
            illumination={"method": method},
            mosaic={"downsample": 2},
        )
        plate = Plate(out / "p.zarr")
        mean = np.mean(
            [
                plate.read(well)[0, a : a + 30, b : b + 30]
                for well in plate.wells
                for a, b in zip(plate.fields(well)["y"], plate.fields(well)["x"], strict=True)
            ],
            axis=0,
        )
        coarse = mean.reshape(5, 6, 5, 6).mean((1, 3))
        flatness[method] = coarse.std() / coarse.mean()
    print(flatness)
    assert flatness["retrospective"] < flatness["none"] / 8


def test_the_real_plate_is_staged(sbs96: Path, tmp_path: Path) -> None:
    out = stage(
        sbs96,
        tmp_path / "out",
        acquisition={
            "pattern": r"Channel(?P<channel>\d)-\d+-(?P<row>[A-H])-(?P<column>\d+)\.tif",
            "channels": {"1": "GFP", "2": "DNA"},
            "nuclei": "DNA",
        },
    )
    plate = Plate(out / "p.zarr")
    assert len(plate.wells) == 96 and plate.shape == (8, 12)
    assert plate.read("H12").shape == (2, 320, 320) and plate.read("H12").dtype == np.uint8
    first = tifffile.imread(sbs96 / "Channel2-01-A-01.tif")
    np.testing.assert_array_equal(plate.read("A01", ["DNA"])[0], means(first, 2))
    table = pd.read_parquet(out / "qc.parquet")
    assert table["used"].sum() >= 95 and table["n_cells"].between(50, 500).all()
