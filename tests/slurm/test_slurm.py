"""`snakemake --profile slurm` on a real Slurm that only these tests see."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from runs import ROOT, environment

from wscnn.core.atomic import remove

HERE = Path(__file__).parent
NEEDED = ["slurmctld", "slurmd", "sbatch", "munged", "unshare"]
SLURM_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="a private Slurm needs root (mount namespace, munged)"),
    *(
        pytest.mark.skipif(shutil.which(program, path=SLURM_PATH) is None, reason=f"no {program} on this machine")
        for program in NEEDED
    ),
]

# There is no accounting database here, so jobs are followed by squeue.
FOLLOW = "--slurm-status-command squeue --slurm-init-seconds-before-status-checks 1 --seconds-between-status-checks 1"


def on_slurm(folder: Path, script: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run a bash script in `folder`, with a Slurm of its own."""
    private = ["unshare", "-m", "--propagation", "private", sys.executable, str(HERE / "private_slurm.py")]
    return subprocess.run(
        [*private, "bash", "-c", script],
        cwd=folder,
        env=environment(),
        text=True,
        capture_output=True,
        timeout=timeout,
    )


def jobs(text: str) -> dict[str, dict[str, str]]:
    """Return what ``scontrol show job -o`` says of each job, by the rule and plate or fold it was for."""
    found = {}
    for line in text.splitlines():
        entries = dict(re.findall(r"(\S+?)=(\S*)", line))
        if "Comment" in entries:
            found[entries["Comment"]] = entries
    return found


def clone_of(screen: Path, folder: Path) -> Path:
    """Return a copy of a screen in a folder that looks like a clone: Snakefile, workflow and profile link."""
    shutil.copytree(screen, folder)
    for name in ("Snakefile", "workflow", "envs", "slurm", "profiles"):
        (folder / name).symlink_to(ROOT / name)
    return folder


# Two plates: one job per plate and stage, one per fold, one each for encoder, hits and report; `check` runs here.
@pytest.mark.parametrize(
    ("removed", "counts"),
    [
        pytest.param(
            # What is missing is made again only where something that needs it is missing, too.
            ["model/fold-*", "wells/*", "hits.parquet"],
            {"train": 3, "score": 2, "hits": 1, "report": 1},
            id="from the training on",
        ),
        pytest.param(
            ["*"],
            {"index": 2, "stage": 2, "encode": 1, "train": 3, "score": 2, "hits": 1, "report": 1},
            id="from the images on",
            marks=pytest.mark.long,
        ),
    ],
)
def test_a_small_screen_runs_to_its_end_with_gpus_for_train_and_score(
    finished: Path, tmp_path: Path, removed: list[str], counts: dict[str, int]
):
    folder = clone_of(finished, tmp_path / "screen")
    results = folder / "results" / "small"
    for path in [path for pattern in removed for path in results.glob(pattern)]:
        remove(path)
    done = on_slurm(
        folder,
        f"snakemake --profile slurm --configfile config.yaml {FOLLOW} && scontrol show job -o > jobs.txt",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (results / "hits.parquet").is_file()
    assert (results / "report.html").is_file()
    seen = jobs((folder / "jobs.txt").read_text())
    assert Counter(re.split(r"_wildcards_|rule_", name)[1] for name in seen) == counts
    for name, job in seen.items():
        wants_gpu = "gpu" in job.get("TresPerJob", "")
        assert wants_gpu == any(rule in name for rule in ("encode", "train", "score")), (name, job)
        assert job["Partition"] == ("gpu" if wants_gpu else "cpu")
        assert job["JobState"] == "COMPLETED"
