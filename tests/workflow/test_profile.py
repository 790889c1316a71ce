"""The Slurm profile asks for what a job needs: more for a larger plate, by the size of the tables that it reads."""

import re
import shutil
from pathlib import Path

import pandas as pd
from runs import ROOT


def asked(folder: Path, snakemake) -> dict[tuple[str, str], dict[str, str]]:
    """Return the resources of the jobs of each rule and plate, if all were run again."""
    profile = ROOT / "workflow" / "profiles" / "slurm"
    done = snakemake(folder, "--profile", str(profile), "--configfile", "config.yaml", "-n", "--forceall")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {}
    for job in re.split(r"\n(?=rule )", done.stdout + done.stderr):
        rule, plate = re.match(r"rule (\w+)", job), re.search(r"wildcards: plate=(\w+)", job)
        if rule and (resources := re.search(r"resources: (.*)", job)):
            asks = dict(pair.split("=", 1) for pair in resources[1].split(", ") if "=" in pair)
            found[rule[1], plate[1] if plate else ""] = asks
    return found


def test_time_and_memory_grow_with_the_plate(finished: Path, tmp_path: Path, snakemake):
    folder = tmp_path / "screen"
    shutil.copytree(finished, folder)
    results = folder / "results" / "small"
    plate, other = pd.read_csv(folder / "plates.tsv", sep="\t")["plate"]
    for table, megabytes in (("index", 0.4), ("qc", 1.2), ("wells", 100)):
        # Only its size is looked at.
        (results / table / f"{plate}.parquet").write_bytes(bytes(round(megabytes * 2**20)))
    asks = asked(folder, snakemake)
    # 0.4 MB of index and 1.2 MB of quality, and what else the jobs read: a few hundred kB.
    assert int(asks["stage", other]["runtime"]) in (30, 31, 32)
    assert int(asks["stage", plate]["runtime"]) in (70, 71, 72)
    assert 70 <= int(asks["score", plate]["runtime"]) - int(asks["score", other]["runtime"]) <= 74
    # 1.2 MB of quality are 12 GB of fields, beside the 6 GB that all need; the encoder of 0.2 MB counts as if 2 GB.
    assert int(asks["train", ""]["mem_mb"]) in range(18000, 20500)
    assert int(asks["hits", ""]["mem_mb"]) in range(3500, 3520)
    assert {"index", "stage", "encode", "train", "score", "hits", "report"} <= {rule for rule, _ in asks}
    for (rule, _), own in asks.items():
        on_gpu = rule in ("encode", "train", "score")
        assert own["slurm_partition"] == ("gpu" if on_gpu else "cpu"), rule
        assert own.get("gpu") == ("1" if on_gpu else None), rule
