"""What is left when `wscnn stage` cannot finish: a full disk, a folder that may not be written to, a killed job."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from runs import environment

from wscnn.acquisitions.index import index_plate
from wscnn.cli import main
from wscnn.core.config import section
from wscnn.plates.store import Plate

ACQUISITION = json.dumps({"pattern": r"(?P<well>[A-Z]\d\d)_s(?P<field>\d+)\.tif", "channels": {"1": "DNA"}})
WELLS = [f"{row}{column:02d}" for row in "ABCDEFGH" for column in range(1, 13)]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a plate of 96 wells, a field of noise each: it packs badly."""
    folder = tmp_path_factory.mktemp("plate") / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for well in WELLS:
        tifffile.imwrite(folder / f"{well}_s1.tif", rng.integers(0, 60000, (160, 160), np.uint16))
    index_plate("p", folder, section("acquisition", ACQUISITION), folder.parent / "index.parquet")
    return folder


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return a small disk of its own; only root can make one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def arguments(images: Path, out: Path) -> list[str]:
    """Return the command line, after `wscnn`, that stages the plate into `out`."""
    inputs = ["--plate", "p", "--images", str(images), "--index", str(images.parent / "index.parquet")]
    outputs = ["--store", str(out / "p.zarr"), "--manifest", str(out / "p.json"), "--quality", str(out / "qc.parquet")]
    settings = ["--acquisition", ACQUISITION, "--mosaic", '{"downsample": 1}', "--dask", '{"workers": 1}']
    return ["stage", *inputs, *outputs, *settings]


def start(images: Path, out: Path, before: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    """Start the stage as a program of its own, after `before` in the new process."""
    program = str(Path(sys.executable).parent / "wscnn")
    return subprocess.Popen(
        [program, *arguments(images, out)], stderr=subprocess.PIPE, text=True, env=environment(), preexec_fn=before
    )


def stage(images: Path, out: Path) -> None:
    """Run the stage to its good end."""
    done = CliRunner().invoke(main, arguments(images, out))
    assert done.exit_code == 0, done.output


def refused(images: Path, out: Path, before: Callable[[], None] | None = None) -> str:
    """Return the one sentence in which the stage gives up; nothing of it may be left."""
    if before is None:
        done = CliRunner().invoke(main, arguments(images, out))
        said, status = done.stderr, done.exit_code
    else:
        process = start(images, out, before)
        said, status = process.communicate(timeout=300)[1], process.returncode
    assert status == 1, said
    assert "Traceback" not in said
    assert not out.exists() or os.listdir(out) == []  # noqa: PTH208 - hidden ones too
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    return line


def test_a_full_disk(images: Path, disk: Path) -> None:
    said = refused(images, disk)
    assert str(disk) in said and "No space left on device" in said


def test_a_file_that_may_not_grow(images: Path, tmp_path: Path) -> None:
    """Of quotas and limits: every user can set one."""
    said = refused(images, tmp_path / "out", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)))
    assert str(tmp_path / "out") in said and "File too large" in said


def test_a_folder_that_may_not_be_written_to(images: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if os.geteuid() == 0:  # whom permissions do not stop
        folder = request.getfixturevalue("disk")
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        words = "Read-only file system"
    else:
        folder = tmp_path / "closed"
        folder.mkdir(mode=0o500)
        words = "Permission denied"
    told = refused(images, folder)
    assert str(folder) in told and words in told


def test_a_killed_job_leaves_nothing_that_looks_finished(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stage(images, out)
    pixels = {well: Plate(out / "p.zarr").read(well) for well in WELLS}
    tables = {name: (out / name).read_bytes() for name in ("p.json", "qc.parquet")}

    process = start(images, out)
    until = time.monotonic() + 300
    while not list(out.glob(".p.zarr.*.partial/B/*")):
        assert process.poll() is None and time.monotonic() < until, "it was not caught in the middle"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    assert not (out / "p.json").exists(), "the workflow would take the plate for staged"
    assert len(list(out.glob(".*.partial"))) == 1

    stage(images, out)
    assert sorted(path.name for path in out.iterdir()) == ["p.json", "p.raw.parquet", "p.zarr", "qc.parquet"]
    for well in WELLS:
        np.testing.assert_array_equal(Plate(out / "p.zarr").read(well), pixels[well])
    assert {name: (out / name).read_bytes() for name in tables} == tables
