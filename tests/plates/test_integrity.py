"""Stores, tables of fields and models that do not belong together are refused; what belongs together is not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import tifffile
from matched import matched_filter

from wscnn.acquisitions.index import index_plate
from wscnn.core.config import complete_config
from wscnn.core.errors import UserError
from wscnn.core.tables import read_notes, read_table, write_table
from wscnn.network.card import Card
from wscnn.network.weights import save_model
from wscnn.plates.store import Plate
from wscnn.scoring.score import score_plate
from wscnn.staging.stage import stage_plate

SIDE = 64
WELLS = ("A01", "B02")


def config(**sections: Any) -> dict[str, Any]:
    acquisition = {"pattern": r"(?P<well>[A-Z]\d\d)_s(?P<field>\d+)\.tif", "channels": {"1": "DNA"}}
    given = {"screen": "s", "plates": "p", "layout": "l", "acquisition": acquisition, "mosaic": {"downsample": 1}}
    return complete_config(given | sections, "test")


def stage(images: Path, out: Path, plate: str, **sections: Any) -> dict[str, Any]:
    """Index and stage a plate as the workflow does; return its manifest."""
    settings = config(**sections)
    index_plate(plate, images, settings["acquisition"], out / "index" / f"{plate}.parquet")
    stage_plate(
        plate,
        out / "index" / f"{plate}.parquet",
        images,
        out / "plates" / f"{plate}.zarr",
        out / "plates" / f"{plate}.json",
        out / "qc" / f"{plate}.parquet",
        **{key: settings[key] for key in ("acquisition", "mosaic", "illumination", "dask")},
        quality=settings["qc"],
    )
    return json.loads((out / "plates" / f"{plate}.json").read_text())


def write_images(folder: Path, seed: int) -> Path:
    folder.mkdir(parents=True)
    for number, well in enumerate(WELLS):
        for field in (1, 2):
            image = np.random.default_rng((seed, number, field)).integers(100, 4000, (SIDE, SIDE)).astype(np.uint16)
            tifffile.imwrite(folder / f"{well}_s{field}.tif", image, photometric="minisblack")
    return folder


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two staged plates, P1 and P2, and a model of two folds."""
    folder = tmp_path_factory.mktemp("screen")
    for seed, plate in enumerate(("P1", "P2")):
        stage(write_images(folder / "images" / plate, seed), folder, plate)
    for fold in (0, 1):
        card = Card(
            "compact", "max", "max", ["DNA"], None, ["negative", "rare"], "s", fold, {},
            {"rare": {"field": 0.5, "place": 0.0}}, {"rare": {"slope": 1.0, "offset": 0.0}},
        )  # fmt: skip
        save_model(folder / "model" / f"fold-{fold}.safetensors", matched_filter(20.0 + fold), card)
    return folder


def score(folder: Path, plate: str = "P1") -> dict[str, pd.DataFrame]:
    paths = {name: folder / name / f"{plate}.parquet" for name in ("wells", "fields", "objects")}
    settings = config()
    score_plate(
        folder / "plates" / f"{plate}.zarr",
        folder / "qc" / f"{plate}.parquet",
        folder / "model",
        **paths,
        screen="s",
        score=settings["score"] | {"device": "cpu"},
        dask=settings["dask"],
    )
    return {name: read_table(path) for name, path in paths.items()}


def test_manifest_store_and_table_carry_one_digest_of_settings_and_pixels(screen: Path, tmp_path: Path) -> None:
    manifest = json.loads((screen / "plates/P1.json").read_text())
    assert manifest["digest"] == Plate(screen / "plates/P1.zarr").digest
    assert manifest["digest"] == read_notes(screen / "qc/P1.parquet")["digest"]
    images = shutil.copytree(screen / "images/P1", tmp_path / "images")
    same = stage(images, tmp_path / "same", "P1", dask={"workers": 1})
    assert same == manifest
    assert (tmp_path / "same/qc/P1.parquet").read_bytes() == (screen / "qc/P1.parquet").read_bytes()
    # A threshold that flags no field leaves pixels and numbers as they are: only the digest tells.
    other = stage(images, tmp_path / "other", "P1", qc={"blur_slope": 9.0})
    assert other | {"digest": ""} == manifest | {"digest": ""} and other["digest"] != manifest["digest"]
    image = tifffile.imread(images / "B02_s2.tif")
    image[5, 5] += 1
    tifffile.imwrite(images / "B02_s2.tif", image, photometric="minisblack")
    assert stage(images, tmp_path / "pixel", "P1")["digest"] not in (manifest["digest"], other["digest"])


def edit(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def change_table(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    write_table(change(read_table(path)), path, read_notes(path))


def exchange(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


STORE, TABLE, SHARD = "plates/P1.zarr", "qc/P1.parquet", "0/0/c/0/0/0"
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a shard of another well": (
        lambda at: exchange(at / STORE / "A/01" / SHARD, at / STORE / "B/02" / SHARD),
        r"well A01: damaged pixels \(ValueError: the shard c/0/0/0 is of other pixels",
    ),
    "the array of another well": (
        lambda at: exchange(at / STORE / "A/01/0/0", at / STORE / "B/02/0/0"),
        r"well A01: damaged pixels \(ValueError: this is not what was staged",
    ),
    "the folder of another well": (
        lambda at: exchange(at / STORE / "A/01", at / STORE / "B/02"),
        r"A/01/0: damaged metadata \(ValueError: this is the image of well B02",
    ),
    "the well of another plate": (
        lambda at: exchange(at / STORE / "B/02", at / "plates/P2.zarr/B/02"),
        r"well B02: damaged pixels \(ValueError: this is not what was staged",
    ),
    "fields that lie elsewhere": (
        lambda at: edit(
            at / STORE / "A/01/0/zarr.json", lambda group: group["attributes"]["wscnn"]["fields"]["x"].reverse()
        ),
        r"A/01/0: damaged metadata \(ValueError: this is not what was staged",
    ),
    "another window": (
        lambda at: edit(
            at / STORE / "A/01/0/zarr.json",
            lambda group: group["attributes"]["ome"]["omero"]["channels"][0]["window"].update(end=1.0),
        ),
        r"P1\.zarr: damaged metadata \(ValueError: name, channels, pixel size or wells",
    ),
    "another name": (
        lambda at: edit(at / STORE / "zarr.json", lambda group: group["attributes"]["ome"]["plate"].update(name="P2")),
        r"P1\.zarr: damaged metadata \(ValueError: name, channels, pixel size or wells",
    ),
    "a well less": (
        lambda at: edit(at / STORE / "zarr.json", lambda group: group["attributes"]["ome"]["plate"]["wells"].pop()),
        r"P1\.zarr: damaged metadata \(ValueError: name, channels, pixel size or wells",
    ),
    "another plate whole": (
        lambda at: (
            exchange(at / STORE, at / "plates/P2.zarr"),
            exchange(at / TABLE, at / "qc/P2.parquet"),
        ),
        r"P1\.json and .*P1\.zarr: were not made by the same run of stage .* stage plate 'P1' again",
    ),
    "the table of another plate": (
        lambda at: exchange(at / TABLE, at / "qc/P2.parquet"),
        r"qc/P1\.parquet: holds fields of plate 'P2', but .*P1\.zarr is plate 'P1'",
    ),
    "the table of another run": (
        lambda at: stage_table_only(at),
        r"qc/P1\.parquet and .*P1\.zarr: were not made by the same run of stage .* stage plate 'P1' again",
    ),
    "a table without a digest": (
        lambda at: write_table(read_table(at / TABLE), at / TABLE),
        r"qc/P1\.parquet and .*P1\.zarr: were not made by the same run of stage",
    ),
    "used as text": (
        lambda at: change_table(at / TABLE, lambda table: table.assign(used=["True", "False", "True", "True"])),
        r"qc/P1\.parquet: column used holds .*string where true or false should be",
    ),
    "used missing": (
        lambda at: change_table(at / TABLE, lambda table: table.assign(used=[True, None, True, True])),
        r"qc/P1\.parquet: column used has missing values",
    ),
    "a column less": (
        lambda at: change_table(at / TABLE, lambda table: table.drop(columns="n_cells")),
        r"qc/P1\.parquet: has no column n_cells",
    ),
    "a field twice": (
        lambda at: change_table(at / TABLE, lambda table: pd.concat([table, table[:1]])),
        r"qc/P1\.parquet: well A01, field 1 has two rows",
    ),
    "weights of another fold": (
        lambda at: shutil.copy(at / "model/fold-0.safetensors", at / "model/fold-1.safetensors"),
        r"fold-1\.safetensors: not the weights that fold-1\.json describes",
    ),
    "a fold twice": (
        lambda at: [
            shutil.copy(at / f"model/fold-0.{kind}", at / f"model/fold-1.{kind}") for kind in ("json", "safetensors")
        ],
        r"fold-1\.json: fold: 0 under the name of another fold",
    ),
}


def stage_table_only(at: Path) -> None:
    """Put a table of fields beside the store that another setting has led to."""
    stage(at / "images/P1", at / "other", "P1", qc={"blur_slope": 9.0})
    (at / "other/qc/P1.parquet").replace(at / TABLE)


@pytest.mark.parametrize("what", DAMAGE)
def test_what_does_not_belong_together_is_refused(screen: Path, tmp_path: Path, what: str) -> None:
    spoil, message = DAMAGE[what]
    folder = shutil.copytree(screen, tmp_path / "screen")
    spoil(folder)
    with pytest.raises(UserError, match=message):
        score(folder)
    assert not (folder / "wells").exists()


def test_plates_staged_by_an_earlier_version_are_scored_with_a_warning(
    screen: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = shutil.copytree(screen, tmp_path / "screen")
    expected = score(folder)
    edit(folder / STORE / "zarr.json", lambda group: group["attributes"].pop("wscnn"))
    edit(folder / "plates/P1.json", lambda manifest: manifest.pop("digest"))
    for well in ("A/01", "B/02"):
        edit(folder / STORE / well / "0/0/zarr.json", lambda array: array["attributes"].clear())
    write_table(read_table(folder / TABLE), folder / TABLE)
    for fold in (0, 1):
        edit(folder / f"model/fold-{fold}.json", lambda card: card.pop("digest"))
    capsys.readouterr()
    for name, table in score(folder).items():
        pd.testing.assert_frame_equal(table, expected[name])
    told = capsys.readouterr().err
    assert f"{folder / STORE}: staged by an earlier version, without a digest" in told
    assert "fold-0.safetensors: the card was written by an earlier version, without a digest" in told


@pytest.mark.parametrize("kind", ["qc", "fields", "objects", "wells"])
def test_a_flipped_bit_in_a_table_changes_no_number(screen: Path, tmp_path: Path, kind: str) -> None:
    folder = shutil.copytree(screen, tmp_path / "screen")
    tables = score(folder)
    path = folder / kind / "P1.parquet"
    whole, expected = path.read_bytes(), tables.get(kind, read_table(path))
    pages = len(whole) - pq.ParquetFile(path).metadata.serialized_size - 8
    for place in np.linspace(4, pages - 1, 60).astype(int):
        broken = bytearray(whole)
        broken[place] ^= 16
        path.write_bytes(broken)
        try:
            pd.testing.assert_frame_equal(read_table(path), expected)
        except UserError as error:
            assert str(path) in str(error)
