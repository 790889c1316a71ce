"""A disk that fills up: each stage says so in a sentence, and with room the run goes on as if nothing had been."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from runs import command, environment, screen_of, tables

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="a small disk of its own needs root (mount namespace, tmpfs)"),
    pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare on this machine"),
]


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


def test_a_plate_that_finds_no_room_leaves_nothing_behind(tmp_path: Path):
    screen = screen_of(tmp_path)
    [said] = run_on_disks(screen, [1000], "--until", "stage")
    assert "Error in rule stage:" in said and "Traceback" not in said, said
    assert "No space left on device; make room and start again" in said, said
    # `run_on_disks` has seen that no unfinished plate was left; a finished one may have fitted.
    plates = {path.stem for path in (screen / "results/small/plates").iterdir() if path.suffix == ".zarr"}
    assert plates == {path.stem for path in (screen / "results/small/plates").glob("*.json")}
    assert len(plates) < 2


@pytest.mark.long
def test_a_run_goes_on_where_the_disk_was_full(tmp_path: Path, snakemake):
    screen = screen_of(tmp_path)
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(screen, undisturbed)
    done = snakemake(undisturbed, "--configfile", "config.yaml")
    assert done.returncode == 0, done.stdout + done.stderr

    # Too small for the plates (1.8 MB); for the trainings' states; for the masks; large enough.
    said = run_on_disks(screen, [1000, 2000, 3000, 50_000])
    for rule, text in zip(["stage", "train", "score"], said, strict=False):
        assert f"Error in rule {rule}:" in text and text.endswith("\n1\n"), text
        assert "Traceback" not in text, text
    assert any("No space left on device; make room and start again" in text for text in said[:3]), said
    assert said[3].endswith("\n0\n"), said[3]
    assert tables(screen) == tables(undisturbed)
    # Nothing that was finished was done again: each run starts with what failed in the one before.
    assert "index" not in jobs(said[1])
    assert not {"index", "stage"} & set(jobs(said[2]))
    assert not {"index", "stage", "train"} & set(jobs(said[3]))
