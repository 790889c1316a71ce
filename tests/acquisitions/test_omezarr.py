"""The OME-Zarr reader on plates of both versions, which the models of the format's authors find valid."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import ome_zarr_models.v04.hcs
import ome_zarr_models.v05.hcs
import pytest
import zarr

from wscnn.acquisitions import open_acquisition
from wscnn.acquisitions.index import index_plate
from wscnn.acquisitions.omezarr import OmeZarr
from wscnn.core.errors import UserError
from wscnn.core.tables import read_table

Settings = Callable[..., dict[str, Any]]
#: Shape of an image: time, channel, z, y, x.
SHAPE = (2, 2, 3, 8, 10)


def field_image(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 60000, SHAPE).astype(np.uint16)


def multiscales(number: int, version: str) -> list[dict[str, Any]]:
    kinds = {"t": "time", "c": "channel"}
    axes: list[dict[str, str]] = [
        {"name": name, "type": kinds[name]} if name in kinds else {"name": name, "type": "space", "unit": "nanometer"}
        for name in "tczyx"
    ]
    transformations = [
        {"type": "scale", "scale": [1, 1, 1000, 650, 650]},
        {"type": "translation", "translation": [0, 0, 0, 0, 6500 * number]},
    ]
    content = {
        "axes": axes,
        "datasets": [{"path": "0", "coordinateTransformations": transformations}],
        "name": str(number),
    }
    return [content | ({"version": version} if version == "0.4" else {})]


def make_plate(folder: Path, version: str) -> Path:
    """Write a plate of two wells of two fields."""

    def attributes(content: dict[str, Any]) -> dict[str, Any]:
        return content if version == "0.4" else {"ome": {"version": version, **content}}

    zarr_format = 2 if version == "0.4" else 3
    plate = {
        "name": "P",
        "rows": [{"name": "B"}],
        "columns": [{"name": "2"}, {"name": "03"}],
        "wells": [
            {"path": "B/2", "rowIndex": 0, "columnIndex": 0},
            {"path": "B/03", "rowIndex": 0, "columnIndex": 1},
        ],
        "version": version,
    }
    root = zarr.create_group(folder, zarr_format=zarr_format, attributes=attributes({"plate": plate}))
    root.create_group("B")
    for n, well in enumerate(("B/2", "B/03")):
        images = {"images": [{"path": "0"}, {"path": "1"}]} | ({"version": version} if version == "0.4" else {})
        root.create_group(well, attributes=attributes({"well": images}))
        for field in (0, 1):
            omero = {"channels": [omero_channel("DAPI", "A01_C01"), omero_channel("GFP", "A02_C02")]}
            content = {"multiscales": multiscales(field, version), "omero": omero}
            group = root.create_group(f"{well}/{field}", attributes=attributes(content))
            array = group.create_array("0", shape=SHAPE, chunks=(1, 1, 1, 8, 10), dtype="uint16", **separator(version))
            array[:] = field_image(10 * n + field)
    return folder


def separator(version: str) -> dict[str, Any]:
    return (
        {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if version == "0.4" else {"dimension_names": "tczyx"}
    )


def omero_channel(label: str, wavelength: str) -> dict[str, Any]:
    window = {"min": 0, "max": 65535, "start": 0, "end": 1000}
    return {"label": label, "wavelength_id": wavelength, "color": "00FF00", "window": window, "active": True}


@pytest.fixture(scope="module", params=["0.4", "0.5"])
def plate(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_plate(tmp_path_factory.mktemp("zarr") / "P.zarr", request.param)
    models = ome_zarr_models.v04.hcs if request.param == "0.4" else ome_zarr_models.v05.hcs
    models.HCS.from_zarr(zarr.open_group(folder, mode="r"))
    return folder


def test_every_plane_is_listed_and_read(plate: Path, settings: Settings) -> None:
    reader = open_acquisition(plate, settings({"GFP": "actin", "A01_C01": "DNA"}))
    assert isinstance(reader, OmeZarr)
    table = reader.index("P")
    assert len(table) == 2 * 2 * np.prod(SHAPE[:3])
    assert sorted(table["well"].unique()) == ["B02", "B03"]
    assert sorted(table["field"].unique()) == [0, 1]
    names = {"DNA": 0, "actin": 1}
    for row in table[(table["well"] == "B03") & (table["field"] == 1)].to_dict("records"):
        expected = field_image(11)[row["time"], names[row["channel"]], row["z"]]
        assert np.array_equal(reader.read(Path(row["path"]), row["page"]), expected)


def test_position_is_the_centre_and_units_are_turned_to_micrometres(plate: Path, settings: Settings) -> None:
    table = open_acquisition(plate, settings({"0": "DNA"})).index("P")
    assert set(table["channel"]) == {"DNA"}
    assert set(table["pixel_size_um"]) == {0.65}
    place = table.drop_duplicates("field").set_index("field")[["y_um", "x_um"]]
    # The translation is the place of the first pixel's centre; the field spans 8 x 10 pixels of 0.65 um.
    assert place.loc[0].tolist() == pytest.approx([3.5 * 0.65, 4.5 * 0.65])
    assert place.loc[1].tolist() == pytest.approx([3.5 * 0.65, 6.5 + 4.5 * 0.65])


def test_index_holds_all_planes_and_the_array(plate: Path, settings: Settings, tmp_path: Path) -> None:
    index_plate("P", plate, settings({"DAPI": "DNA"}), tmp_path / "P.parquet")
    table = read_table(tmp_path / "P.parquet")
    assert len(table) == 2 * 2 * 2 * 3
    assert table["path"].iloc[0] == "B/2/0/0"


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content.get("attributes", {}).get("ome", content))
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("zarr.json", lambda ome: ome.pop("plate"), "not an OME-Zarr plate"),
        ("zarr.json", lambda ome: ome["plate"]["wells"][0].update(path="../../etc"), "leads out of its folder"),
        ("zarr.json", lambda ome: ome["plate"]["wells"][0].update(path="Q/99"), "not a well"),
        ("zarr.json", lambda ome: ome["plate"].update(wells=3), "broken metadata of the plate"),
        ("B/2/zarr.json", lambda ome: ome.pop("well"), "broken metadata of the well"),
        ("B/2/zarr.json", lambda ome: ome["well"]["images"][0].update(path="/0"), "leads out of its folder"),
        ("B/2/0/zarr.json", lambda ome: ome["multiscales"].clear(), "broken metadata of the image"),
        ("B/2/0/zarr.json", lambda ome: ome["multiscales"][0]["axes"].reverse(), "axes"),
        ("B/2/0/zarr.json", lambda ome: ome["multiscales"][0].update(datasets=[{"path": "9"}]), "cannot be read"),
        ("B/2/0/0/zarr.json", lambda array: array.update(shape=[1, 1, 1, 10**9, 10**9]), "an array of shape"),
        ("B/2/0/0/zarr.json", lambda array: array.pop("shape"), "broken metadata of the image"),
    ],
)
def test_broken_metadata(
    settings: Settings, tmp_path: Path, file: str, change: Callable[[dict[str, Any]], None], told: str
) -> None:
    folder = make_plate(tmp_path / "P.zarr", "0.5")
    edit(folder / file, change)
    with pytest.raises(UserError, match=told) as raised:
        open_acquisition(folder, settings({"DAPI": "DNA"})).index("P")
    assert str(folder) in str(raised.value)


def test_broken_pixels(settings: Settings, tmp_path: Path) -> None:
    folder = make_plate(tmp_path / "P.zarr", "0.5")
    reader = open_acquisition(folder, settings({"DAPI": "DNA"}))
    row = reader.index("P").iloc[0]
    next(path for path in Path(row["path"]).rglob("*") if path.is_file() and path.name != "zarr.json").write_bytes(b"x")
    with pytest.raises(UserError, match="cannot be read"):
        for page in range(12):
            reader.read(Path(row["path"]), page)


def test_pixels_beyond_16_bits(settings: Settings, tmp_path: Path) -> None:
    folder = make_plate(tmp_path / "P.zarr", "0.5")
    path = folder / "B/2/0/0"
    array = zarr.create_array(path, shape=(4, 4), dtype="int32", overwrite=True)
    array[:] = -1
    with pytest.raises(UserError, match="int32 pixels from -1 to -1 cannot be kept"):
        open_acquisition(folder, settings({"DAPI": "DNA"})).read(path, 0)


def test_first_acquisition_is_taken(settings: Settings, tmp_path: Path) -> None:
    folder = make_plate(tmp_path / "P.zarr", "0.5")
    images = [{"path": "0", "acquisition": 2}, {"path": "1", "acquisition": 1}]
    edit(folder / "B/2/zarr.json", lambda ome: ome["well"].update(images=images))
    table = open_acquisition(folder, settings({"DAPI": "DNA"})).index("P")
    assert table[table["well"] == "B02"]["field"].unique().tolist() == [1]


def test_absent_chunks_are_told(
    plate: Path, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "P.zarr"
    shutil.copytree(plate, folder)
    open_acquisition(folder, settings({"DAPI": "DNA"})).index("P")
    assert "chunks" not in capsys.readouterr().err
    for image in ("B/2/0/0", "B/03/1/0"):
        next(path for path in sorted((folder / image).rglob("[0-9]")) if path.is_file()).unlink()
    open_acquisition(folder, settings({"DAPI": "DNA"})).index("P")
    assert f"{folder}: 2 of 4 fields lack files of chunks" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("chunks", "dtype", "told"), [((2**15, 2**15), "uint16", "too large"), ((8, 8), "complex64", "only 8 and 16 bit")]
)
def test_chunks_that_would_fill_the_memory_are_not_read(
    settings: Settings, tmp_path: Path, chunks: tuple[int, int], dtype: str, told: str
) -> None:
    folder = make_plate(tmp_path / "P.zarr", "0.5")
    path = folder / "B/2/0/0"
    zarr.create_array(path, shape=(8, 8), chunks=chunks, dtype=dtype, overwrite=True)
    with pytest.raises(UserError, match=rf"B/2/0/0: .*{told}"):
        open_acquisition(folder, settings({"DAPI": "DNA"})).read(path, 0)


@pytest.mark.parametrize("version", [2, 3])
def test_a_blosc_chunk_that_was_cut_off_is_an_error(version: int, settings: Settings, tmp_path: Path) -> None:
    """Blosc itself reads behind the end of such a chunk and gives whatever lies there."""
    folder = make_plate(tmp_path / "P.zarr", "0.5")
    path = folder / "B/2/0/0"
    packed = {2: {"compressors": numcodecs.Blosc()}, 3: {"compressors": zarr.codecs.BloscCodec()}}[version]
    noise = np.random.default_rng(0).integers(0, 60_000, (64, 64)).astype(np.uint16)
    array = zarr.create_array(
        path, shape=noise.shape, chunks=noise.shape, dtype="uint16", zarr_format=version, overwrite=True, **packed
    )
    array[:] = noise
    reader = open_acquisition(folder, settings({"DAPI": "DNA"}))
    assert (reader.read(path, 0) == noise).all()
    (chunk,) = (
        file for file in path.rglob("*") if file.is_file() and file.name not in ("zarr.json", ".zarray", ".zattrs")
    )
    chunk.write_bytes(chunk.read_bytes()[:-100])
    for action in ("read", "inspect"):
        with pytest.raises(UserError, match=r"B/2/0/0/.*: was cut off \(\d+ bytes of \d+\)"):
            getattr(open_acquisition(folder, settings({"DAPI": "DNA"})), action)(path, 0)
