"""What clusters do to jobs: after each fault the run ends with the tables of an undisturbed one, nothing done twice."""

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from runs import tables
from test_slurm import FOLLOW, on_slurm, screen  # noqa: F401
from test_slurm import pytestmark as needs_slurm

# Two to five minutes each.
pytestmark = [*needs_slurm, pytest.mark.long]

# `locally RULE` and `run RULE` do all up to and with a rule, on this machine and on Slurm; `running RULE` waits until a
# job of the rule runs, and prints its number.
BEGIN = f"""
locally() {{ snakemake --cores 2 --configfile config.yaml --until "$1"; }}
run() {{ snakemake --profile slurm --configfile config.yaml {FOLLOW} --until "$@"; }}
running() {{
  for _ in $(seq 1500); do
    id=$(squeue -h -t R -o '%A %k' | awk -v rule="rule_$1" 'index($2, rule) == 1 {{print $1; exit}}')
    [ -n "$id" ] && echo "$id" && return
    sleep 0.2
  done
  echo "no job of $1 was seen" >&2; exit 9
}}
"""
# The rest is done on this machine, which is quicker, and told apart from what Slurm did.
END = """
status=$?; squeue -h -t all -o %k > jobs.txt; [ $status = 0 ] || exit $status
snakemake --cores 2 --configfile config.yaml > rest.txt 2>&1
"""


@pytest.fixture(scope="module")
def undisturbed(screen: Path, tmp_path_factory: pytest.TempPathFactory, snakemake) -> dict[str, bytes]:  # noqa: F811
    """Return the tables of a run on this machine, without Slurm."""
    folder = tmp_path_factory.mktemp("undisturbed") / "screen"
    shutil.copytree(screen, folder, symlinks=True)
    done = snakemake(folder, "--configfile", "config.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    return tables(folder)


@pytest.fixture
def folder(screen: Path, tmp_path: Path) -> Path:  # noqa: F811
    """Return a copy of the screen, nothing run yet."""
    return Path(shutil.copytree(screen, tmp_path / "screen", symlinks=True))


def jobs_of(folder: Path, script: str) -> Counter[str]:
    """Run a script with a Slurm of its own, then the rest of the workflow here; return how many jobs Slurm had by rule.

    What Slurm finished must not be done again in the rest.
    """
    done = on_slurm(folder, BEGIN + script + END, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    rule = re.compile(r"^rule_([a-z]+)")
    jobs = Counter(rule.match(name)[1] for name in (folder / "jobs.txt").read_text().split())
    rest = set(re.findall(r"^localrule (\w+):$", (folder / "rest.txt").read_text(), re.MULTILINE))
    assert rest and not rest & set(jobs), (rest, jobs)
    return jobs


#: For each fault what brings it about, and the jobs that it takes; a screen of two plates needs 2 of `index`, `stage`
#: and `score`, 3 of `train`.
FAULTS = {
    "cancelled": ('run stage & run=$!; scancel "$(running stage)"; wait $run', {"index": 2, "stage": 3}),
    "killed": (
        'locally train; run score & run=$!; scancel --signal=KILL --full "$(running score)"; wait $run',
        {"score": 3},
    ),
    # Both plates need some hundred MB, which the second attempt has.
    "out of memory": (
        'locally index; run stage --set-resources "stage:mem_mb=100 * 20 ** (attempt - 1)"',
        {"stage": 4},
    ),
    # A job that hangs, here stopped: Slurm ends it after its minute.
    "over its time": (
        "run index --set-resources 'index:runtime=1 if attempt == 1 and \"1\" in wildcards.plate else 10' & run=$!\n"
        "until id=$(squeue -h -t R -o '%A %k' | grep plate1); do sleep 0.2; done\n"
        "kill -STOP $(scontrol listpids ${id%% *} | awk 'NR > 1 {print $1}'); wait $run",
        {"index": 3},
    ),
    # Slurm lets running jobs end, and holds back the others until the node is back.
    "node drained": (
        "run stage & run=$!; running index; node=$(hostname -s)\n"
        "scontrol update NodeName=$node State=DRAIN Reason=test; sleep 30\n"
        "scontrol update NodeName=$node State=RESUME; wait $run",
        {"index": 2, "stage": 2},
    ),
    # Slurm ends what ran on a node that is lost.
    "node lost": (
        "locally index; run stage & run=$!\n"
        "until [ $(squeue -h -t R | wc -l) = 2 ]; do sleep 0.2; done; node=$(hostname -s)\n"
        "scontrol update NodeName=$node State=DOWN Reason=test; sleep 5\n"
        "scontrol update NodeName=$node State=RESUME; wait $run",
        {"stage": 4},
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_mended_within_the_run(fault: str, folder: Path, undisturbed):
    script, jobs = FAULTS[fault]
    assert jobs_of(folder, script) == jobs
    assert tables(folder) == undisturbed


def test_a_training_cut_off_goes_on_from_its_last_evaluation(folder: Path, undisturbed):
    script = """
locally stage
run train & run=$!
until state=$(ls results/small/model/.fold-*.resume 2> /dev/null); do sleep 0.05; done
fold=$(echo $state | sed 's/.*fold-\\(.\\).*/\\1/')
scancel --signal=KILL --full $(squeue -h -t R -o '%A %k' | awk -v fold="_$fold$" '$2 ~ fold {print $1}')
wait $run
"""
    assert jobs_of(folder, script) == {"train": 4}
    logs = [path.read_text() for path in (folder / "results/small/logs/train").iterdir()]
    assert sum("goes on from step" in log for log in logs) == 1
    assert tables(folder) == undisturbed


def test_snakemake_killed_and_started_again_when_its_jobs_had_ended(folder: Path, undisturbed):
    # What the manual tells users to do: wait until `squeue --me` is empty, unlock, start again.
    script = """
run stage & run=$!
running stage
kill -9 $(pgrep -P $run) $run; wait $run
while [ -n "$(squeue -h --me)" ]; do sleep 1; done
snakemake --configfile config.yaml --unlock
run stage
"""
    # What ran when snakemake died is done again, for nobody saw it end.
    assert jobs_of(folder, script) == {"index": 2, "stage": 4}
    assert tables(folder) == undisturbed


def test_snakemake_killed_and_started_again_at_once(folder: Path, undisturbed):
    # Against the manual's word: the first run's jobs and the second's then write the same files, each whole.
    script = """
run stage & run=$!
running stage
kill -9 $(pgrep -P $run) $run; wait $run
snakemake --configfile config.yaml --unlock
run stage
while [ -n "$(squeue -h --me)" ]; do sleep 1; done
"""
    assert jobs_of(folder, script) == {"index": 2, "stage": 4}
    assert tables(folder) == undisturbed


def test_of_two_runs_at_once_the_second_is_refused(folder: Path, undisturbed):
    script = """
run index & run=$!
running index
run index > second.log 2>&1 && exit 8
grep -q LockException second.log || exit 7
wait $run
"""
    assert jobs_of(folder, script) == {"index": 2}
    assert tables(folder) == undisturbed
