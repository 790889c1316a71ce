"""Where results come from: what tables say of themselves, what a run keeps, what `show --provenance` prints."""

import getpass
import hashlib
import json
import platform
import shutil
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from wscnn import __version__
from wscnn.cli import main
from wscnn.core.config import load_config
from wscnn.core.provenance import fold_digest
from wscnn.core.tables import read_notes, read_table, write_table


@pytest.fixture
def results(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished screen's results, without pixels."""
    folder = tmp_path / "small"
    shutil.copytree(finished / "results" / "small", folder, ignore=shutil.ignore_patterns("*.zarr", "logs"))
    return folder


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def states(results: Path) -> dict[str, str]:
    """Return what `show --provenance` says of each output: ``score plate1: ok``, ..."""
    done = CliRunner().invoke(main, ["show", str(results), "--provenance", "--json"])
    assert done.exit_code == 0, done.output
    return {f"{row['stage']} {row['of']}".strip(): row["state"] for row in json.loads(done.output)["outputs"]}


def test_every_table_says_what_its_columns_are_and_nothing_of_where_it_was_made(finished: Path):
    tables = sorted((finished / "results" / "small").rglob("*.parquet"))
    assert len(tables) >= 20
    for path in tables:
        notes = read_notes(path)
        assert list(notes["columns"]) == sorted(pq.read_schema(path).names), path
        assert all(column["meaning"] for column in notes["columns"].values()), path
        text = json.dumps(notes)
        for word in (str(finished), platform.node(), getpass.getuser(), __version__):
            assert not (len(word) > 3 and word in text), (path, word)


def test_inputs_and_settings_are_known_by_their_content(finished: Path):
    results = finished / "results" / "small"
    inputs = {f"qc/{plate}": digest(results / "qc" / f"{plate}.parquet") for plate in ("plate1", "plate2")}
    trained = read_notes(results / "model" / "history-0.parquet")
    encoder = {"model/encoder": fold_digest(results / "model" / "encoder.safetensors")}
    assert trained["inputs"] == {"controls": digest(results / "controls.parquet"), **inputs, **encoder}
    assert set(trained["settings"]) == {"model", "train"}
    called = read_notes(results / "hits.parquet")
    assert called["inputs"] == {
        "layout": digest(results / "layout.parquet"),
        **{f"wells/{plate}": digest(results / "wells" / f"{plate}.parquet") for plate in ("plate1", "plate2")},
    }
    section = load_config(finished / "config.yaml")["hits"]
    assert called["settings"] == {"hits": hashlib.sha256(json.dumps(section, sort_keys=True).encode()).hexdigest()}
    scored = read_notes(results / "wells" / "plate1.parquet")["inputs"]
    assert list(scored) == ["model/fold-0", "model/fold-1", "model/fold-2", "qc/plate1"]
    assert read_notes(results / "layout.parquet")["inputs"] == {"run/layout": digest(finished / "layout.tsv")}


def test_a_run_keeps_its_config_and_tables(finished: Path):
    run = finished / "results" / "small" / "run"
    assert yaml.safe_load((run / "config.yaml").read_text()) == load_config(finished / "config.yaml")
    for name in ("plates.tsv", "layout.tsv"):
        assert (run / name).read_bytes() == (finished / name).read_bytes()
    made_by = {path.stem for path in (run / "made_by").iterdir()}
    of_plates = {f"{stage}-plate{n}" for stage in ("index", "stage", "score") for n in (1, 2)}
    assert made_by == {"check", "encode", "hits", "report", "train-0", "train-1", "train-2", *of_plates}


def test_outputs_whose_inputs_have_changed_are_flagged(results: Path):
    whole = states(results)
    assert set(whole.values()) == {"ok"}
    assert list(whole)[:2] == ["check", "index plate1"] and list(whole)[-2:] == ["hits", "report"]
    quality = results / "qc" / "plate1.parquet"
    write_table(read_table(quality).assign(used=False), quality, read_notes(quality))
    (results / "index" / "plate2.parquet").unlink()
    weights = results / "model" / "fold-1.json"
    weights.write_text(json.dumps(json.loads(weights.read_text()) | {"thresholds": {}}))
    config = yaml.safe_load((results / "run" / "config.yaml").read_text())
    config["hits"]["fdr"] = 0.5
    config["train"]["device"] = "cpu"
    (results / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    found = states(results)
    assert "index plate2" not in found
    assert found["stage plate1"] == "was replaced since it was made"
    assert found["stage plate2"] == "index/plate2 is gone"
    assert found["train 0"] == "qc/plate1 has changed"
    assert found["score plate1"] == "model/fold-1 has changed; qc/plate1 has changed"
    assert found["score plate2"] == "model/fold-1 has changed"
    assert found["hits"] == "hits in the config has changed"
    assert found["check"] == "ok"


def test_what_an_earlier_version_made_is_shown_and_not_made_again(finished: Path, tmp_path: Path, snakemake):
    folder = tmp_path / "screen"
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("images"))
    note = folder / "results" / "small" / "run" / "made_by" / "score-plate2.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"version": "0.0.1", "commit": ""}))
    done = CliRunner().invoke(main, ["show", str(folder / "results" / "small"), "--provenance"])
    assert done.exit_code == 0, done.output
    rows = [line.split() for line in done.output.splitlines()]
    assert ["score", "plate2", "0.0.1", "ok"] in rows
    assert [row[:3] for row in rows if row[:2] == ["score", "plate1"]] == [["score", "plate1", __version__]]
    assert f"config: sha256 {digest(folder / 'results/small/run/config.yaml')}" in done.output
    again = snakemake(folder, "--configfile", "config.yaml", "-n")
    assert "Nothing to be done" in again.stdout + again.stderr


def test_verbs_by_hand_note_nothing_where_no_run_is_kept(results: Path, tmp_path: Path):
    shutil.rmtree(results / "run")
    options = ["--wells", str(results / "wells"), "--layout", str(results / "layout.parquet")]
    done = CliRunner().invoke(main, ["hits", *options, "--output", str(results)])
    assert done.exit_code == 0, done.output
    assert not (results / "run").exists()
    done = CliRunner().invoke(main, ["show", str(results), "--provenance"])
    assert done.exit_code == 1
    assert "no run is kept here; give the results folder of a screen that snakemake ran" in done.output


@pytest.mark.parametrize(
    ("name", "content"),
    [("config.yaml", "{"), ("config.yaml", "[]"), ("made_by/hits.json", "{"), ("made_by/hits.json", "[1]")],
)
def test_damaged_notes_of_a_run_are_named(results: Path, name: str, content: str):
    (results / "run" / name).write_text(content)
    done = CliRunner().invoke(main, ["show", str(results), "--provenance"])
    assert done.exit_code == 1 and Path(name).name in done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)


def test_warnings_of_all_stages_come_out_of_the_workflow(finished: Path):
    results = finished / "results" / "small"
    checked, all_stages = read_table(results / "warnings" / "check.parquet"), read_table(results / "warnings.parquet")
    assert list(checked.columns) == list(all_stages.columns)
    assert all_stages[all_stages["stage"] == "check"].reset_index(drop=True).equals(checked)
    log = (results / "logs" / "hits.log").read_text()
    for message in all_stages.loc[all_stages["stage"] == "hits", "message"]:
        assert message.removeprefix("the plate is kept out of the calls: ") in log
    hits = pd.read_parquet(results / "hits.parquet")
    assert list(hits.columns).index("caution") == list(hits.columns).index("hit") + 1
