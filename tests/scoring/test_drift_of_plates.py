"""Plates of real nuclei that a model is applied to: those imaged as in training are not flagged, changed ones are."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from scipy import ndimage

from wscnn.cli import main
from wscnn.core.config import section
from wscnn.core.tables import DRIFT, read_table, write_table
from wscnn.network.weights import load_model
from wscnn.plates.store import Channel, PlateWriter
from wscnn.simulate.fields import compose, expose, optics
from wscnn.simulate.micronuclei import MicronucleatedNuclei
from wscnn.training.train import train_fold

SIDE = 160
DATES = MicronucleatedNuclei.groups
NEGATIVES = [f"A{column:02d}" for column in range(1, 7)]
POSITIVES = [f"B{column:02d}" for column in range(1, 4)]


def make_plate(
    folder: Path, name: str, seed: int, date: str, change: Callable[[np.ndarray], np.ndarray] | None = None
) -> None:
    """Write a staged plate of nuclei of one acquisition date, and its table of quality."""
    rng = np.random.default_rng(seed)
    bank, light = MicronucleatedNuclei(date), optics(rng, SIDE, 1.0)._replace(flat=np.ones((SIDE, SIDE), np.float32))
    images = {
        well: np.stack(
            [
                expose(
                    rng,
                    compose(rng, bank, SIDE, 10, {"micronuclei": 0.4 if well in POSITIVES else 0.0}, "").signal,
                    light,
                    rng.lognormal(0, 0.05),
                ).astype(float)
                for _ in range(2)
            ]
        )
        for well in [*NEGATIVES, *POSITIVES]
    }
    if change is not None:
        images = {well: change(fields) for well, fields in images.items()}
    window = tuple(np.percentile(np.stack(list(images.values())), [1, 99.5]))
    writer = PlateWriter(folder / f"{name}.zarr", name, list(images), [Channel("DNA", "0000FF", window)], None)
    for well, fields in images.items():
        boxes = [{"field": n + 1, "y": 0, "x": n * SIDE, "height": SIDE, "width": SIDE} for n in range(2)]
        mosaic = np.concatenate(list(fields), axis=1).clip(0, 65535).astype(np.uint16)[None]
        writer.write_well(well, mosaic, pd.DataFrame(boxes), (SIDE, SIDE))
    quality = pd.DataFrame([(name, well, field) for well in images for field in (1, 2)])
    quality.columns = ["plate", "well", "field"]
    write_table(quality.assign(used=True, flags="", n_cells=np.nan), folder / f"{name}.parquet")


def write_controls(folder: Path, plates: list[str]) -> Path:
    rows = [
        (plate, well, "ABC".index(well[0]), int(well[1:]) - 1)
        + (("negative", "") if well in NEGATIVES else ("positive", "micronuclei"))
        for plate in plates
        for well in [*NEGATIVES, *POSITIVES]
    ]
    table = pd.DataFrame(rows, columns=["plate", "well", "well_row", "well_column", "role", "phenotype"])
    write_table(table, folder / "controls.parquet")
    return folder / "controls.parquet"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a fold trained on three plates of two dates."""
    folder = tmp_path_factory.mktemp("trained")
    names = ["T1", "T2", "T3"]
    for seed, name in enumerate(names):
        make_plate(folder, name, seed, DATES[seed % 2])
    torch.set_num_threads(1)
    train_fold(
        0,
        write_controls(folder, names),
        [folder / f"{name}.zarr" for name in names],
        [folder / f"{name}.parquet" for name in names],
        folder / "model" / "fold-0.safetensors",
        screen="earlier",
        model=section("model", json.dumps({"architecture": "compact"})),
        train=section("train", json.dumps({"steps": 2, "evaluations": 1, "crop": 64, "batch": 4, "device": "cpu"})),
    )
    return folder / "model"


def drift(folder: Path, model: Path, plates: list[str]) -> pd.DataFrame:
    """Run the stage on plates in a folder."""
    arguments = ["drift", "--controls", str(write_controls(folder, plates)), "--models", str(model)]
    for plate in plates:
        arguments += ["--store", str(folder / f"{plate}.zarr"), "--quality", str(folder / f"{plate}.parquet")]
    arguments += ["--output", str(folder / "drift.parquet"), "--score", json.dumps({"device": "cpu"})]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return read_table(folder / "drift.parquet", DRIFT).set_index("plate")


def test_changed_plates_are_flagged_and_those_of_other_dates_are_not(model: Path, tmp_path: Path) -> None:
    changes: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "gamma": lambda fields: np.percentile(fields, 99.9) * (fields / np.percentile(fields, 99.9)) ** 0.6,
        "background": lambda fields: fields + np.quantile(fields, 0.2),
        "blur": lambda fields: ndimage.gaussian_filter(fields, (0, 1, 1)),
    }
    ordinary = [f"N{n}" for n in range(4)]
    for n, name in enumerate(ordinary):
        make_plate(tmp_path, name, 20 + n, DATES[n])
    for name, change in changes.items():
        make_plate(tmp_path, name, 20, DATES[0], change)
    found = drift(tmp_path, model, [*ordinary, *changes])
    flagged = found["drift"] > found["drift_threshold"]
    assert set(found.index[flagged]) == set(changes)
    assert found["drift_of"].str.endswith("of DNA").all()
    before = (tmp_path / "drift.parquet").read_bytes()
    drift(tmp_path, model, [*ordinary, *changes])
    assert (tmp_path / "drift.parquet").read_bytes() == before


def test_a_plate_without_negatives_and_a_model_of_an_earlier_version_are_not_compared(
    model: Path, tmp_path: Path
) -> None:
    make_plate(tmp_path, "N0", 20, DATES[0])
    quality = read_table(tmp_path / "N0.parquet")
    write_table(quality.assign(used=quality["well"].isin(POSITIVES)), tmp_path / "N0.parquet")
    assert drift(tmp_path, model, ["N0"])["drift"].isna().all()
    _, card = load_model(model / "fold-0.safetensors")
    assert card.negatives["plates"] == [3]
    folder = tmp_path / "old"
    folder.mkdir()
    content = json.loads((model / "fold-0.json").read_text())
    del content["negatives"]
    (folder / "fold-0.json").write_text(json.dumps(content))
    (folder / "fold-0.safetensors").write_bytes((model / "fold-0.safetensors").read_bytes())
    write_table(quality, tmp_path / "N0.parquet")
    assert drift(tmp_path, folder, ["N0"])["drift"].isna().all()
