"""What interrupts a run from without: a full disk, and the signal that clusters send before they end a job."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from runs import command, environment, tables

needs_a_disk = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="a small disk of its own needs root and unshare (mount namespace, tmpfs)",
)


def run_on_disks(folder: Path, sizes: list[int], *options: str) -> list[str]:
    """Run the workflow with its results on a disk of its own, given more room (KB) each time; return what each said.

    What is on the disk in the end stays in `folder`.
    """
    run = " ".join(command("--configfile", "config.yaml", *options))
    lines = [f"mkdir results && mount -t tmpfs -o size={sizes[0]}k tmpfs results"]
    for turn, size in enumerate(sizes):
        # A log that found no room is empty, so what a job says is shown with the workflow's own words.
        lines += [f"mount -o remount,size={size}k results", f"{run} > said-{turn}.txt 2>&1; echo $? >> said-{turn}.txt"]
        lines += ["find results -name '*.partial' > left.txt; test -s left.txt && cat left.txt && exit 9"]
    lines += ["cp -a results kept"]
    private = ["unshare", "-m", "--propagation", "private", "bash", "-c", "\n".join(lines)]
    done = subprocess.run(private, cwd=folder, env=environment(), text=True, capture_output=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "results").rmdir()
    (folder / "kept").rename(folder / "results")
    return [(folder / f"said-{turn}.txt").read_text() for turn in range(len(sizes))]


def jobs(said: str) -> list[str]:
    """Return the rule of every job that a run started, in alphabetical order."""
    return sorted(re.findall(r"^(?:local)?rule (\w+):$", said, re.MULTILINE))


@needs_a_disk
def test_a_plate_that_finds_no_room_leaves_nothing_behind(screen: Path, tmp_path: Path):
    folder = Path(shutil.copytree(screen, tmp_path / "screen"))
    [said] = run_on_disks(folder, [1000], "--until", "stage")
    assert "Error in rule stage:" in said and "Traceback" not in said, said
    assert re.search(r"No space left on device.*make room", said), said
    # `run_on_disks` has seen that no unfinished plate was left; a finished one may have fitted.
    plates = {path.stem for path in (folder / "results/small/plates").iterdir() if path.suffix == ".zarr"}
    assert plates == {path.stem for path in (folder / "results/small/plates").glob("*.json")}
    assert len(plates) < 2


@needs_a_disk
@pytest.mark.long
def test_a_run_goes_on_where_the_disk_was_full(screen: Path, finished: Path, tmp_path: Path):
    folder = Path(shutil.copytree(screen, tmp_path / "screen"))
    # Too small for the plates (1.8 MB); for the trainings' states; for the masks; large enough.
    said = run_on_disks(folder, [1000, 2000, 3000, 50_000])
    for rule, text in zip(["stage", "train", "score"], said, strict=False):
        assert f"Error in rule {rule}:" in text and text.endswith("\n1\n"), text
        assert "Traceback" not in text, text
    assert any(re.search(r"No space left on device.*make room", text) for text in said[:3]), said
    assert said[3].endswith("\n0\n"), said[3]
    assert tables(folder) == tables(finished)
    # Nothing that was finished was done again: each run starts with what failed in the one before.
    assert "index" not in jobs(said[1])
    assert not {"index", "stage"} & set(jobs(said[2]))
    assert not {"index", "stage", "train"} & set(jobs(said[3]))


def test_a_job_that_is_told_to_end_clears_up(screen: Path, tmp_path: Path):
    acquisition = json.dumps(yaml.safe_load((screen / "config.yaml").read_text())["acquisition"])
    program = str(Path(sys.executable).parent / "wscnn")
    plate = ["--plate", "plate1", "--images", str(screen / "images/plate1"), "--acquisition", acquisition]
    index = tmp_path / "index.parquet"
    subprocess.run([program, "index", *plate, "--output", str(index)], check=True, capture_output=True)
    outputs = [f"--{name}={tmp_path / name}" for name in ("store", "manifest", "quality")]
    options = [f"--index={index}", "--mosaic", '{"downsample": 2}']
    job = subprocess.Popen([program, "stage", *plate, *options, *outputs], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".store.*.partial/*/*")):
        assert time.monotonic() < deadline and job.poll() is None, "no well was seen before the job ended"
        time.sleep(0.005)
    # What Slurm sends first to a job that is cancelled or over its time.
    job.terminate()
    assert job.wait(60) == 128 + signal.SIGTERM
    assert [path.name for path in tmp_path.iterdir()] == ["index.parquet"]
