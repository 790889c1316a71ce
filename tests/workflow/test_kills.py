"""Kill -9 of a whole run at moments spread over all its stages, then start again: nothing differs in the end."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from runs import command, environment, everything

#: Kills of one screen, one after the other.
KILLS = 30


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


# One kill in each stage is in test_run.py.
@pytest.mark.long
def test_killed_and_started_again_a_run_ends_as_if_undisturbed(
    screen: Path, finished: Path, tmp_path: Path, snakemake
) -> None:
    killed = 0
    for number in range(KILLS):
        folder = tmp_path / f"screen-{number}"
        shutil.copytree(screen, folder)
        killed += kill_often(folder, KILLS - killed, snakemake)
        done = snakemake(folder, "--configfile", "config.yaml", "--rerun-incomplete")
        assert done.returncode == 0, done.stdout + done.stderr
        assert everything(folder) == everything(finished)
        left = [*folder.rglob(".*.partial"), *folder.rglob(".*.old")]
        assert not left
        if killed == KILLS:
            return
    pytest.fail(f"runs ended after {killed} kills")
