"""Few files, few jobs, few reads and writes: counts of a plate against the numbers that are promised."""

import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from wscnn.core.atomic import remove
from wscnn.core.config import load_config, section
from wscnn.core.screen_folder import N_FOLDS
from wscnn.core.wells import well_name
from wscnn.plates.store import Channel, Plate, PlateWriter
from wscnn.preflight.check import check_screen
from wscnn.preflight.jobs import UNITS
from wscnn.preflight.plan import PLANNED, plan, size_by_numbers, size_of
from wscnn.scoring.score import score_plate
from wscnn.staging.stage import stage_plate

#: Files of a 384-well plate of five channels with masks and saliency of one phenotype: the plate's group and those of
#: 16 rows; for each well 3 groups, 5 shards, and for the labels a group and 3 files each. The promise is 10,000.
FILES_384 = 1 + 16 + 384 * (3 + 5 + 1 + 2 * 3)


def files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


def test_a_plate_of_384_wells_with_masks_is_some_thousand_files(tmp_path: Path):
    wells = [well_name(row, column) for row in range(16) for column in range(24)]
    fields = pd.DataFrame({"field": [1], "y": [0], "x": [0], "height": [8], "width": [8]})
    channels = [Channel(name, "FFFFFF", (0.0, 1.0)) for name in "ABCDE"]
    writer = PlateWriter(tmp_path / "p.zarr", "p", wells, channels, 0.65)
    for well in wells:
        writer.write_well(well, np.ones((5, 8, 8), np.uint16), fields, (8, 8))
    plate = Plate(tmp_path / "p.zarr")
    for well in wells:
        plate.write_labels(well, {"rare": np.ones((8, 8), np.uint32), "rare_saliency": np.ones((8, 8), np.uint8)})
    assert files(tmp_path) == FILES_384 == 5777
    by_plan = plan(
        size_by_numbers(plates=1, wells=384, fields=9, channels=5, planes=1, size=1080, controls=24),
        {name: section(name, "{}") for name in PLANNED},
    ).set_index("stage")["files"]
    # The plan's `stage` and `score` also count the manifest, 5 tables, and of each job a log, a benchmark and a note of
    # the version that ran it.
    assert by_plan["stage"] + by_plan["score"] == FILES_384 + 1 + 5 + 6


def test_a_plate_takes_three_jobs_and_a_screen_five_more(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snakemake
):
    for name in ("config.yaml", "plates.tsv", "layout.tsv", "images"):
        (tmp_path / name).symlink_to(finished / name)
    done = snakemake(tmp_path, "--configfile", "config.yaml", "-n")
    stats = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout + done.stderr, re.MULTILINE))
    # What runs where snakemake runs costs the cluster nothing.
    counted = Counter({rule: int(n) for rule, n in stats.items() if rule in UNITS})
    assert [counted[stage] for stage in ("index", "stage", "score")] == [2, 2, 2]
    assert [counted[stage] for stage in ("encode", "train", "hits", "report")] == [1, N_FOLDS, 1, 1]
    # One plate: 9 of the 12 that it may take.
    assert counted.total() - 3 == 9
    monkeypatch.chdir(finished)
    screen = check_screen(Path("config.yaml"))
    made = plan(size_of(screen), screen.config).set_index("stage")["jobs"]
    # A stage without a job is a row of 0 in the plan and is not in the dry run.
    assert Counter(made.drop("total").to_dict()) == counted


def test_the_plan_is_what_a_run_leaves(finished: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(finished)
    results = finished / "results" / "small"
    screen = check_screen(Path("config.yaml"))
    made = plan(size_of(screen), screen.config).set_index("stage")
    left = {
        "index": files(results / "index"),
        "stage+score": sum(files(results / name) for name in ("plates", "qc", "wells", "fields", "objects")),
        "hits": sum(
            (results / f"{name}.parquet").is_file() for name in ("hits", "wells", "plates", "suspects", "warnings")
        ),
    }
    # Of each job a log, a benchmark and a note of the version; the check of the screen is no job.
    assert files(results / "run" / "made_by") == made.loc["total", "jobs"] + 1
    without_logs = made["files"] - 3 * made["jobs"]
    assert without_logs["index"] == left["index"]
    assert without_logs["stage"] + without_logs["score"] == left["stage+score"]
    assert without_logs["hits"] == left["hits"]
    raw = sum(path.stat().st_size for path in (finished / "images").rglob("*.tif"))
    assert made.loc["stage", "read"] == raw
    image = sum(
        path.stat().st_size
        for path in (results / "plates").rglob("*")
        if path.is_file() and "labels" not in path.parts and path.suffix != ".json"
    )
    # Another screen than the one that the packing was measured on.
    assert made.loc["stage", "written"] == pytest.approx(image, rel=0.5)


class Opened:
    """Counts of files opened to read and to write, below the folder `under` while there is one."""

    def __init__(self) -> None:
        self.under: str | None = None
        self.counts: Counter[str] = Counter()
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple) -> None:
        if self.under is None or event != "open" or isinstance(arguments[0], int):
            return
        path = os.path.abspath(os.fsdecode(arguments[0]))  # noqa: PTH100 - links stay
        if path.startswith(self.under):
            writes = arguments[2] & (os.O_WRONLY | os.O_RDWR)
            self.counts["write" if writes else "read"] += 1

    @contextmanager
    def below(self, folder: Path) -> Iterator[Counter[str]]:
        """Count below `folder` in the block."""
        self.counts, self.under = Counter(), str(folder)
        try:
            yield self.counts
        finally:
            self.under = None


OPENED = Opened()


def test_raw_images_are_read_once_and_the_store_is_written_once(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(finished)
    config = load_config(Path("config.yaml"))
    results, images = finished / "results" / "small", finished / "images"
    rows, wells, fields = 4, 24, 48
    outputs = (tmp_path / "plate1.zarr", tmp_path / "plate1.json", tmp_path / "qc.parquet")
    sections = {name: config[name] for name in ("acquisition", "mosaic", "illumination", "dask")}

    def stage() -> None:
        index = results / "index" / "plate1.parquet"
        stage_plate("plate1", index, images / "plate1", *outputs, **sections, quality=config["qc"])

    with OPENED.below(images) as opened:
        stage()
    # One image is opened beforehand, for shape and type; each for its digest, and then, from memory, for its pixels.
    assert opened == {"read": 2 * fields + 1}

    remove(outputs[0])
    with OPENED.below(tmp_path) as opened:
        stage()
    # The plate's group and those of its rows, the manifest and the record of raw images; of a well its group, that of
    # its image (once more for the display window, which all wells decide), the array and one shard per channel.
    assert opened["write"] == 1 + rows + 2 + wells * (1 + 2 + 1 + 1)
    # Besides each well's group for the window: of the plate's attributes and of one well's, when the store is sealed.
    assert opened["read"] == wells + 3

    tables = [tmp_path / f"{name}.parquet" for name in ("wells", "fields", "objects")]
    with OPENED.below(tmp_path) as opened:
        score_plate(
            outputs[0], outputs[2], results / "model", *tables, screen="s", score=config["score"], dask=config["dask"]
        )
    # Of each of the two labels its group, array and shard; and the list of labels.
    assert opened["write"] == wells * (2 * 3 + 1)
    # Of a well 4 times metadata, and its shard; of the plate its group and first image; the table of quality, for its
    # digest, and the manifest, which carries the same.
    assert opened["read"] == 2 + wells * (4 + 1) + 2
