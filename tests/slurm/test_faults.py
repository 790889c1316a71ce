"""What clusters do to jobs: after each fault a rerun ends with the tables of an undisturbed run."""

import shutil
from pathlib import Path

import pytest
from runs import tables
from test_slurm import FOLLOW, on_slurm, screen  # noqa: F401
from test_slurm import pytestmark as needs_slurm

# A minute or two each.
pytestmark = [*needs_slurm, pytest.mark.long]

# Waits until a job of a rule runs, and prints its number.
RUNNING = """
running() {
  for _ in $(seq 600); do
    id=$(squeue -h -t R -o '%A %k' | awk -v rule="rule_$1" 'index($2, rule) == 1 {print $1; exit}')
    [ -n "$id" ] && echo "$id" && return
    sleep 0.2
  done
  echo "no job of $1 was seen" >&2; exit 9
}
"""
RUN = f"snakemake --profile slurm --configfile config.yaml {FOLLOW}"


@pytest.fixture(scope="module")
def undisturbed(screen: Path, tmp_path_factory: pytest.TempPathFactory, snakemake) -> dict[str, bytes]:  # noqa: F811
    """Return the tables of a run on this machine, without Slurm."""
    folder = tmp_path_factory.mktemp("undisturbed") / "screen"
    shutil.copytree(screen, folder, symlinks=True)
    done = snakemake(folder, "--configfile", "config.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    return tables(folder)


FAULTS = {
    # Retries of the profile mend these within one run.
    "cancelled": 'scancel "$(running stage)"',
    "killed": 'scancel --signal=KILL --full "$(running train)"',
    "node drained": "running score; n=$(hostname -s); scontrol update NodeName=$n State=DRAIN Reason=test; sleep 8; "
    "scontrol update NodeName=$n State=RESUME",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_mended_within_the_run(fault: str, screen: Path, undisturbed, tmp_path: Path):  # noqa: F811
    folder = tmp_path / "screen"
    shutil.copytree(screen, folder, symlinks=True)
    done = on_slurm(folder, f"{RUNNING}\n{RUN} & run=$!\n{FAULTS[fault]}\nwait $run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert tables(folder) == undisturbed


def test_snakemake_killed_and_started_again(screen: Path, undisturbed, tmp_path: Path):  # noqa: F811
    folder = tmp_path / "screen"
    shutil.copytree(screen, folder, symlinks=True)
    # What the manual tells users to do: wait until `squeue --me` is empty, unlock, start again.
    script = f"""{RUNNING}
{RUN} & run=$!
running train > /dev/null
kill -9 $run; wait $run
while [ -n "$(squeue -h --me)" ]; do sleep 1; done
snakemake --configfile config.yaml --unlock
{RUN}
"""
    done = on_slurm(folder, script)
    assert done.returncode == 0, done.stdout + done.stderr
    assert tables(folder) == undisturbed


def test_two_runs_at_once_the_second_is_refused(screen: Path, undisturbed, tmp_path: Path):  # noqa: F811
    folder = tmp_path / "screen"
    shutil.copytree(screen, folder, symlinks=True)
    script = f"""{RUNNING}
{RUN} & run=$!
running index > /dev/null
{RUN} > second.log 2>&1 && exit 8
grep -q LockException second.log || exit 7
wait $run
"""
    done = on_slurm(folder, script)
    assert done.returncode == 0, done.stdout + done.stderr
    assert tables(folder) == undisturbed
