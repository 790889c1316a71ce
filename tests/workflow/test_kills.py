"""Kill -9 of a whole run at moments spread over all its stages, then start again: nothing differs in the end."""

import os
import shutil
import signal
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest
from runs import command, environment, tables

#: Kills of one screen, one after the other; by hand with `-m long`.
MANY = 30


def everything(folder: Path) -> dict[str, str]:
    """Return digests of all tables, the report, and every file of the plates: pixels, masks and saliency."""
    results = folder / "results" / "small"
    contents = tables(folder) | {
        str(file.relative_to(results)): file.read_bytes() for file in (results / "plates").rglob("*") if file.is_file()
    }
    return {name: sha256(content).hexdigest() for name, content in contents.items()}


def run_for(seconds: float, folder: Path) -> bool:
    """Run the workflow for so long, then kill it with all its processes; return whether it ended before."""
    run = subprocess.Popen(
        command("--configfile", "config.yaml", "--rerun-incomplete"),
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert run.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        return False
    return True


def kill_often(folder: Path, kills: int, snakemake) -> int:
    """Kill runs in `folder`, each a moment later in its work than the last, until one ends; return how often."""
    killed = 0
    # A run needs some seconds to start; jobs take a few each, so that further kills meet every stage.
    while killed < kills and not run_for(6 + 1.7 * (killed % 7), folder):
        killed += 1
        unlocked = snakemake(folder, "--configfile", "config.yaml", "--unlock")
        assert unlocked.returncode == 0, unlocked.stdout + unlocked.stderr
    return killed


@pytest.mark.parametrize("kills", [3, pytest.param(MANY, marks=pytest.mark.long)])
def test_killed_and_started_again_a_run_ends_as_if_undisturbed(
    screen: Path, finished: Path, tmp_path: Path, snakemake, kills: int
) -> None:
    killed = 0
    for number in range(kills):
        folder = tmp_path / f"screen-{number}"
        shutil.copytree(screen, folder)
        killed += kill_often(folder, kills - killed, snakemake)
        done = snakemake(folder, "--configfile", "config.yaml", "--rerun-incomplete")
        assert done.returncode == 0, done.stdout + done.stderr
        assert everything(folder) == everything(finished)
        left = [*folder.rglob(".*.partial"), *folder.rglob(".*.old")]
        assert not left
        if killed == kills:
            return
    pytest.fail(f"runs ended after {killed} kills")
