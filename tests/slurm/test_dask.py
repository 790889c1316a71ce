"""Dask on Slurm's nodes: a plate staged and scored by jobs of workers is the plate that threads make."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from matched import matched_filter
from test_slurm import on_slurm
from test_slurm import pytestmark as needs_slurm

from wscnn.network.card import Card
from wscnn.network.weights import save_model

pytestmark = [*needs_slurm, pytest.mark.long]

WORKERS = {"cluster": "slurm", "slurm": {"jobs": 2, "queue": "cpu", "cores": 1, "memory": "1 GiB", "walltime": "10:00"}}


@pytest.fixture(scope="module")
def screen(screen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(screen, tmp_path_factory.mktemp("dask") / "screen"))


def stage(screen: Path, name: str, dask: dict) -> str:
    """Return the commands that index and stage a plate, with all outputs in the folder `name`."""
    acquisition = json.dumps(yaml.safe_load((screen / "config.yaml").read_text())["acquisition"])
    wscnn = Path(sys.executable).parent / "wscnn"
    plate = f"--plate plate1 --images images/plate1 --acquisition '{acquisition}'"
    return (
        f"mkdir -p {name}; {wscnn} index {plate} --output {name}/index.parquet; {wscnn} stage {plate}"
        f" --index {name}/index.parquet --store {name}/p.zarr --manifest {name}/p.json --quality {name}/qc.parquet"
        f" --dask '{json.dumps(dask)}'"
    )


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_workers_that_are_jobs_make_the_same_plate(screen: Path):
    # The jobs of workers are counted while they are there: they end with the stage.
    done = on_slurm(
        screen,
        f"{stage(screen, 'threads', {'cluster': 'threads'})}\n"
        f"{stage(screen, 'slurm', WORKERS)} & stage=$!\n"
        "most=0; while kill -0 $stage 2> /dev/null; do n=$(squeue -h -t R -n dask-worker | wc -l); "
        "[ $n -gt $most ] && most=$n; sleep 0.2; done; wait $stage || exit 5; echo most $most\n"
        'for _ in $(seq 60); do [ -z "$(squeue -h)" ] && exit 0; sleep 1; done; exit 6',
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "most 2" in done.stdout
    assert content(screen / "slurm") == content(screen / "threads")


def test_workers_that_are_jobs_score_the_same(screen: Path):
    thresholds = {"mitotic": {"field": 0.5, "place": 0.0}}
    card = Card("compact", "max", "max", ["DNA"], None, ["negative", "mitotic"], "s", 0, {}, thresholds)
    save_model(screen / "model" / "fold-0.safetensors", matched_filter(), card)
    score = (
        f"{Path(sys.executable).parent / 'wscnn'} score --screen s --store NAME/p.zarr --quality NAME/qc.parquet"
        " --models model --wells NAME/wells.parquet --fields NAME/fields.parquet --objects NAME/objects.parquet"
    )
    with_threads, with_jobs = (
        f"{score.replace('NAME', name)} --dask '{json.dumps(dask)}'"
        for name, dask in (("one", {"cluster": "threads"}), ("other", WORKERS))
    )
    script = f"{stage(screen, 'one', {'cluster': 'threads'})} && cp -r one other && {with_threads} && {with_jobs}"
    done = on_slurm(screen, script)
    assert done.returncode == 0, done.stdout + done.stderr
    assert content(screen / "other") == content(screen / "one")
    assert list(screen.glob("other/p.zarr/*/*/0/labels/mitotic"))


def test_a_partition_that_is_not_there_is_told_at_once(screen: Path):
    nowhere = WORKERS | {"slurm": WORKERS["slurm"] | {"queue": "nowhere"}}
    done = on_slurm(screen, stage(screen, "refused", nowhere))
    assert done.returncode == 1
    assert "error: dask.slurm: Slurm does not take the workers' jobs" in done.stderr
    assert "Traceback" not in done.stderr and not (screen / "refused" / "p.zarr").exists()


def test_workers_that_do_not_start_are_reported(screen: Path):
    held = WORKERS | {"wait_s": 2, "slurm": WORKERS["slurm"] | {"extra": ["--hold"]}}
    done = on_slurm(screen, stage(screen, "held", held))
    assert done.returncode == 1
    assert "error: dask.cluster: no worker came within 2 s (dask.wait_s); see with squeue --me" in done.stderr
    assert "Traceback" not in done.stderr and not (screen / "held" / "p.zarr").exists()


def test_a_given_scheduler_makes_the_same_plate(screen: Path):
    # A scheduler and workers that someone else started, here each a job of Slurm.
    python = sys.executable
    script = f"""
{stage(screen, "threads", {"cluster": "threads"})}
file="--scheduler-file $PWD/scheduler.json --no-dashboard"
sbatch -p cpu --wrap "exec {python} -m distributed.cli.dask_scheduler --host 127.0.0.1 --port 0 $file"
until [ -s scheduler.json ]; do sleep 0.2; done
sbatch -p cpu --wrap "exec {python} -m distributed.cli.dask_worker --nthreads 2 $file"
address=$({python} -c 'import json; print(json.load(open("scheduler.json"))["address"])')
{stage(screen, "address", {"cluster": "ADDRESS"}).replace('"ADDRESS"', '"' + "'$address'" + '"')}
"""
    done = on_slurm(screen, script)
    assert done.returncode == 0, done.stdout + done.stderr
    assert content(screen / "address") == content(screen / "threads")
