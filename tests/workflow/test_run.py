"""The whole way through the real Snakefile, on a small made-up screen: undisturbed, killed, and with a broken plate."""

import os
import shutil
import time
from itertools import pairwise
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml
import zarr
from ome_zarr_models.v05 import HCS
from runs import everything, start_snakemake, tables

VERBS = ["index", "stage", "train", "score", "hits", "report"]


def test_all_that_is_promised_is_there(finished: Path):
    results = finished / "results" / "small"
    for table in ("hits", "wells", "plates", "suspects", "layout", "controls"):
        assert (results / f"{table}.parquet").is_file(), table
    for plate in ("plate1", "plate2"):
        for stage in ("index", "qc", "wells", "fields", "objects"):
            assert (results / stage / f"{plate}.parquet").is_file(), (stage, plate)
        HCS.from_zarr(zarr.open_group(results / "plates" / f"{plate}.zarr", mode="r"))
    layout = pd.read_csv(finished / "layout.tsv", sep="\t")
    samples = set(layout.loc[layout["role"] == "sample", "perturbation"])
    hits = pd.read_parquet(results / "hits.parquet")
    assert samples <= set(hits["perturbation"])
    assert hits["q"].dropna().between(0, 1).all()
    assert len(pd.read_parquet(results / "wells.parquet")) == 2 * 24
    assert "| 2 | test |" in (results / "model" / "README.md").read_text()
    assert not list(results.rglob("*.partial")), "unfinished files were left behind"


def test_nothing_is_to_be_done_after_a_finished_run(finished: Path, snakemake):
    again = snakemake(finished, "--configfile", "config.yaml", "-n")
    assert "Nothing to be done" in again.stdout + again.stderr


def test_a_new_column_in_the_layout_neither_stages_nor_trains_again(finished: Path, tmp_path: Path, snakemake):
    folder = tmp_path / "screen"
    shutil.copytree(finished, folder)
    layout = pd.read_csv(folder / "layout.tsv", sep="\t")
    layout.assign(gene="unknown").to_csv(folder / "layout.tsv", sep="\t", index=False)
    # Raw images go back to tape once they are staged.
    shutil.rmtree(folder / "images")
    done = snakemake(folder, "--configfile", "config.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    log = done.stdout + done.stderr
    assert {verb for verb in VERBS if f"wscnn {verb} " in log} == {"hits", "report"}
    assert (pd.read_parquet(folder / "results" / "small" / "wells.parquet")["gene"] == "unknown").all()


def test_folds_of_an_applied_model_that_change_ask_for_new_scores_and_no_training(
    finished: Path, tmp_path: Path, snakemake
):
    folder = tmp_path / "screen"
    shutil.copytree(finished, folder)
    config = yaml.safe_load((folder / "config.yaml").read_text()) | {"model": {"checkpoint": "results/small/model"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))

    def planned() -> set[str]:
        # A profile may name rules that there is no need of.
        done = snakemake(folder, "--configfile", "config.yaml", "-n", "--set-resources", "train:mem_mb=1")
        assert done.returncode == 0, done.stdout + done.stderr
        return {verb for verb in VERBS if f"wscnn {verb} " in done.stdout + done.stderr}

    assert not planned() & {"train", "score"}
    shutil.copy(folder / "results/small/model/fold-0.safetensors", folder / "results/small/model/fold-1.safetensors")
    assert planned() == {"score", "hits", "report"}


def test_an_applied_models_card_and_weights_count_by_content(finished: Path, tmp_path: Path, snakemake):
    folder = tmp_path / "screen"
    shutil.copytree(finished, folder)
    shutil.copytree(folder / "results/small/model", folder / "elsewhere")
    config = yaml.safe_load((folder / "config.yaml").read_text()) | {"model": {"checkpoint": "elsewhere"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    done = snakemake(folder, "--configfile", "config.yaml", "--until", "score")
    log = done.stdout + done.stderr
    assert done.returncode == 0 and "wscnn score " in log and "wscnn train " not in log, log
    # The same folds on the same pixels.
    for table in ("wells", "fields", "objects"):
        before, after = (pd.read_parquet(at / f"results/small/{table}/plate1.parquet") for at in (finished, folder))
        pd.testing.assert_frame_equal(before, after)
    for name in ("fold-1.json", "fold-1.safetensors"):
        path = folder / "elsewhere" / name
        whole, times = path.read_bytes(), path.stat()
        path.write_bytes(whole + b"\n")
        # As `cp -p` and `rsync -t` leave it: older than the tables.
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        done = snakemake(folder, "--configfile", "config.yaml", "-n", "--until", "score")
        assert "wscnn score " in done.stdout + done.stderr, name
        path.write_bytes(whole)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        done = snakemake(folder, "--configfile", "config.yaml", "-n", "--until", "score")
        assert "wscnn score " not in done.stdout + done.stderr, name


def test_a_changed_setting_runs_its_stage_and_what_follows(finished: Path, tmp_path: Path, snakemake):
    folder = tmp_path / "screen"
    shutil.copytree(finished, folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for changed, options, verbs in (
        # A plate that is scored again is in the test above.
        ({"score": {"mask_fraction": 0.9}}, ["-n"], {"score", "hits", "report"}),
        ({"hits": {"fdr": 0.2}}, ["-n"], {"hits", "report"}),
        ({"hits": {"fdr": 0.2}}, [], {"hits", "report"}),
    ):
        (folder / "config.yaml").write_text(yaml.safe_dump(config | changed))
        done = snakemake(folder, "--configfile", "config.yaml", *options)
        log = done.stdout + done.stderr
        assert done.returncode == 0, log
        assert {verb for verb in VERBS if f"wscnn {verb} " in log} == verbs, (changed, options)
    again = snakemake(folder, "--configfile", "config.yaml", "-n")
    assert "Nothing to be done" in again.stdout + again.stderr


def test_a_run_stopped_after_stage_scores_and_trains_by_what_was_staged(finished: Path, tmp_path: Path, snakemake):
    folder = tmp_path / "screen"
    shutil.copytree(finished, folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    # Stage positions are not known, so that fields lie as before: pixels and numbers stay, all but the digest.
    config["mosaic"]["arrange"] = "grid"
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    done = snakemake(folder, "--configfile", "config.yaml", "--until", "stage")
    assert done.returncode == 0, done.stdout + done.stderr
    before, after = (pd.read_parquet(at / "results/small/qc/plate1.parquet") for at in (finished, folder))
    pd.testing.assert_frame_equal(before, after)
    done = snakemake(folder, "--configfile", "config.yaml", "-n")
    planned = {verb for verb in VERBS if f"wscnn {verb} " in done.stdout + done.stderr}
    assert planned == {"train", "score", "hits", "report"}


def test_killed_in_each_stage_a_run_ends_as_if_undisturbed(screen: Path, finished: Path, tmp_path: Path, snakemake):
    folder = tmp_path / "screen"
    shutil.copytree(screen, folder)
    for verb in VERBS:
        kill_during(verb, folder)
        unlocked = snakemake(folder, "--configfile", "config.yaml", "--unlock")
        assert unlocked.returncode == 0, unlocked.stdout
    done = snakemake(folder, "--configfile", "config.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert everything(folder) == everything(finished)
    assert not [*folder.rglob(".*.partial"), *folder.rglob(".*.old")]


def kill_during(verb: str, folder: Path) -> None:
    """Start the workflow in `folder` and kill it with all its processes while `verb` is running."""
    run = start_snakemake(folder, "--configfile", "config.yaml")
    workflow = psutil.Process(run.pid)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert run.is_alive(), f"the workflow ended before `wscnn {verb}` was seen"
        family = workflow.children(recursive=True)
        if any(is_running(process, verb) for process in family):
            # Long enough to be in the middle of the work, which begins with a second or more of imports.
            time.sleep(1.5)
            for process in [workflow, *workflow.children(recursive=True)]:
                kill(process)
            run.join()
            return
        time.sleep(0.05)
    pytest.fail(f"`wscnn {verb}` was not seen within five minutes")


def is_running(process: psutil.Process, verb: str) -> bool:
    """Return whether `process` is the program `wscnn` at work on `verb`, not the shell that started it."""
    try:
        line = process.cmdline()
    except psutil.Error:
        return False
    return any(a.endswith("/wscnn") and b == verb for a, b in pairwise(line))


def kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def test_a_broken_image_stops_its_plate_only(screen: Path, finished: Path, tmp_path: Path, snakemake):
    folder = tmp_path / "screen"
    shutil.copytree(screen, folder)
    victim = sorted((folder / "images" / "plate2").glob("*.tif"))[7]
    whole, times = victim.read_bytes(), victim.stat()
    victim.write_bytes(whole[: len(whole) // 2])
    until = ("--configfile", "config.yaml", "--until", "stage")
    failed = snakemake(folder, *until, "--keep-going")
    assert failed.returncode != 0
    assert victim.name in failed.stdout + failed.stderr
    assert "Traceback" not in failed.stdout + failed.stderr
    plates = folder / "results" / "small" / "plates"
    assert sorted(path.name for path in plates.iterdir()) == ["plate1.json", "plate1.raw.parquet", "plate1.zarr"]

    victim.write_bytes(whole)
    # The tables hold the times of the images.
    os.utime(victim, ns=(times.st_atime_ns, times.st_mtime_ns))
    done = snakemake(folder, *until)
    log = done.stdout + done.stderr
    assert done.returncode == 0, log
    assert "--plate plate2" in log and "wscnn stage --plate plate1" not in log
    made, wanted = tables(folder), tables(finished)
    assert {"qc/plate1.parquet", "qc/plate2.parquet"} <= set(made)
    assert made == {name: wanted[name] for name in made}


def test_a_mistake_in_the_config_is_named_before_any_job(screen: Path, tmp_path: Path, snakemake):
    config = yaml.safe_load((screen / "config.yaml").read_text())
    config["mosaic"]["downsampel"] = 2
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    failed = snakemake(tmp_path, "--configfile", "config.yaml")
    assert failed.returncode != 0
    assert "unknown key 'mosaic.downsampel'" in failed.stderr + failed.stdout
