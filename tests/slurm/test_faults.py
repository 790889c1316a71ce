"""What clusters do to jobs: after each fault the run ends with the tables of an undisturbed one, nothing done twice."""

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from runs import tables
from test_slurm import FOLLOW, clone_of, on_slurm
from test_slurm import pytestmark as needs_slurm

from wscnn.core.atomic import remove

# About a minute each.
pytestmark = [*needs_slurm, pytest.mark.long]

#: What each rule leaves, in the order of the data.
OUTPUTS = {
    "index": ["index"],
    "stage": ["plates", "qc"],
    "train": ["model"],
    "score": ["wells", "fields", "objects"],
    "hits": ["hits.parquet", "wells.parquet", "plates.parquet", "suspects.parquet"],
    "report": ["report.html"],
}

# `run RULE` does what is missing up to and with a rule; `running RULE` waits until a job of the rule runs, and prints
# its number; `quiet` waits until no job is left.
BEGIN = f"""
run() {{ snakemake --profile slurm --configfile config.yaml {FOLLOW} --until "$@"; }}
running() {{
  for _ in $(seq 1500); do
    id=$(squeue -h -t R -o '%A %k' | awk -v rule="rule_$1" 'index($2, rule) == 1 {{print $1; exit}}')
    [ -n "$id" ] && echo "$id" && return
    sleep 0.2
  done
  echo "no job of $1 was seen" >&2; exit 9
}}
quiet() {{ while [ -n "$(squeue -h --me)" ]; do sleep 1; done; }}
"""
END = "\nstatus=$?; squeue -h -t all -o %k > jobs.txt; exit $status\n"


@pytest.fixture(scope="module")
def undisturbed(screen: Path, tmp_path_factory: pytest.TempPathFactory, snakemake) -> Path:
    """Return a copy of the screen on which the workflow has run on this machine, without Slurm."""
    folder = tmp_path_factory.mktemp("undisturbed") / "screen"
    clone_of(screen, folder)
    done = snakemake(folder, "--configfile", "config.yaml", timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Disturbed:
    """A finished screen, of which all from one rule on has been taken away, to be done again under a fault."""

    def __init__(self, undisturbed: Path, folder: Path, rule: str) -> None:
        self.undisturbed = undisturbed
        self.folder = Path(shutil.copytree(undisturbed, folder, symlinks=True))
        self.wanted = tables(undisturbed)
        rules = list(OUTPUTS)
        for later in rules[rules.index(rule) :]:
            for name in OUTPUTS[later]:
                remove(self.folder / "results/small" / name)

    def jobs(self, script: str) -> Counter[str]:
        """Run a script with a Slurm of its own, to its good end; return how many jobs of each rule Slurm had."""
        done = on_slurm(self.folder, BEGIN + script + END, timeout=1200)
        assert done.returncode == 0, done.stdout + done.stderr
        names = (self.folder / "jobs.txt").read_text().split()
        return Counter(name.split("_")[1] for name in names)

    def is_as_undisturbed(self, snakemake, last: str) -> bool:
        """Return whether all up to and with the rule `last` is as wanted, and nothing is left to do."""
        done = snakemake(self.folder, "--configfile", "config.yaml", "-n", "--until", last, timeout=1800)
        found, rules = tables(self.folder), list(OUTPUTS)
        names = {name for rule in rules[: rules.index(last) + 1] for name in OUTPUTS[rule]}
        there = {name for name in self.wanted if name.split("/")[0] in names} <= set(found)
        same = all(self.wanted[name] == found[name] for name in found)
        pixels = [path.relative_to(self.folder) for path in self.folder.glob("results/small/plates/**/*")]
        same &= all(
            (self.folder / path).read_bytes() == (self.undisturbed / path).read_bytes()
            for path in pixels
            if (self.folder / path).is_file()
        )
        nothing = re.search(r"^total +0$|Nothing to be done", done.stdout + done.stderr, re.MULTILINE)
        return nothing is not None and there and same


@pytest.fixture
def disturb(undisturbed: Path, tmp_path: Path):
    """Return a function that gives the screen of which all from a rule on has been taken away."""
    return lambda rule: Disturbed(undisturbed, tmp_path / "screen", rule)


#: For each fault: the rule that it hits, the last rule to run, what brings it about, and the jobs that it takes. A
#: screen of two plates needs 2 of `index`, `stage` and `score`, 3 of `train`.
FAULTS = {
    "cancelled": ("stage", "stage", 'run stage & run=$!; scancel "$(running stage)"; wait $run', {"stage": 3}),
    "killed": (
        "score",
        "score",
        'run score & run=$!; scancel --signal=KILL --full "$(running score)"; wait $run',
        {"score": 3},
    ),
    # Both plates need some hundred MB, which the second attempt has.
    "out of memory": (
        "stage",
        "stage",
        'run stage --set-resources "stage:mem_mb=100 * 20 ** (attempt - 1)"',
        {"stage": 4},
    ),
    # A job that hangs, here stopped: Slurm ends it after its minute.
    "over its time": (
        "index",
        "index",
        "run index --set-resources 'index:runtime=1 if attempt == 1 and \"1\" in wildcards.plate else 10' & run=$!\n"
        "until id=$(squeue -h -t R -o '%A %k' | grep plate1); do sleep 0.2; done\n"
        "kill -STOP $(scontrol listpids ${id%% *} | awk 'NR > 1 {print $1}'); wait $run",
        {"index": 3},
    ),
    # Slurm lets running jobs end, and holds back the others until the node is back.
    "node drained": (
        "index",
        "stage",
        "run stage & run=$!; running index; node=$(hostname -s)\n"
        "scontrol update NodeName=$node State=DRAIN Reason=test; sleep 30\n"
        "scontrol update NodeName=$node State=RESUME; wait $run",
        {"index": 2, "stage": 2},
    ),
    # Slurm queues by itself what ran on a node that is lost, as the same job (a site can set that otherwise).
    "node lost": (
        "stage",
        "stage",
        "run stage & run=$!; running stage; node=$(hostname -s)\n"
        "scontrol update NodeName=$node State=DOWN Reason=test; sleep 5\n"
        "scontrol update NodeName=$node State=RESUME; wait $run && scontrol show job -o | grep -q Restarts=1",
        {"stage": 2},
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_mended_within_the_run(fault: str, disturb, snakemake):
    rule, last, script, jobs = FAULTS[fault]
    screen = disturb(rule)
    assert screen.jobs(script) == jobs
    assert screen.is_as_undisturbed(snakemake, last)


def test_a_training_cut_off_goes_on_from_its_last_evaluation(disturb, snakemake):
    screen = disturb("train")
    script = """
run train & run=$!
until state=$(ls results/small/model/.fold-*.resume 2> /dev/null); do sleep 0.05; done
fold=$(echo $state | sed 's/.*fold-\\(.\\).*/\\1/')
scancel --signal=KILL --full $(squeue -h -t R -o '%A %k' | awk -v fold="_$fold$" '$2 ~ fold {print $1}')
wait $run
"""
    assert screen.jobs(script) == {"train": 4}
    logs = [path.read_text() for path in (screen.folder / "results/small/logs/train").iterdir()]
    assert sum("resumes from step" in log for log in logs) == 1
    assert screen.is_as_undisturbed(snakemake, "train")
    for fold in range(3):
        weights = f"results/small/model/fold-{fold}.safetensors"
        assert (screen.folder / weights).read_bytes() == (screen.undisturbed / weights).read_bytes()


# What the manual tells users to do: wait until `squeue --me` is empty, unlock, start again. Then what its jobs finished
# is kept. Some will start again at once: two jobs of a plate then write the same files, each whole.
# At once: again what had been given to Slurm and had not ended.
@pytest.mark.parametrize(
    ("wait", "counts"), [("quiet", {2}), ("true", {2, 3, 4})], ids=["when its jobs had ended", "at once"]
)
def test_snakemake_killed_and_started_again(wait: str, counts: set[int], disturb, snakemake):
    screen = disturb("stage")
    script = f"""
run stage & run=$!
running stage
kill -9 $(pgrep -P $run) $run; wait $run
{wait}
snakemake --configfile config.yaml --unlock
run stage
status=$?; quiet; (exit $status)
"""
    jobs = screen.jobs(script)
    assert set(jobs) == {"stage"}
    assert jobs["stage"] in counts
    assert screen.is_as_undisturbed(snakemake, "stage")


def test_of_two_runs_at_once_the_second_is_refused(disturb, snakemake):
    screen = disturb("index")
    script = """
run index & run=$!
running index
run index > second.log 2>&1 && exit 8
grep -q LockException second.log || exit 7
wait $run
"""
    assert screen.jobs(script) == {"index": 2}
    assert screen.is_as_undisturbed(snakemake, "index")
