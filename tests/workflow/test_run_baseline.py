"""Simpler methods in the real workflow."""

import shutil
from pathlib import Path

import pandas as pd
import yaml


def test_methods_in_the_config_are_run_and_reported(finished: Path, tmp_path: Path, snakemake) -> None:
    folder = tmp_path / "screen"
    shutil.copytree(finished, folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["baseline"] = {"methods": ["count", "novelty", "forest"]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    done = snakemake(folder, "--configfile", "config.yaml")
    log = done.stdout + done.stderr
    assert done.returncode == 0, log
    verbs = ["index", "stage", "train", "score", "hits", "measure", "baseline", "report"]
    assert [verb for verb in verbs if f"wscnn {verb} " in log] == ["measure", "baseline", "report"]
    results = folder / "results" / "small"
    table = pd.read_parquet(results / "baseline.parquet")
    assert set(table["method"]) == {"network", "count", "novelty", "forest"}
    hits = pd.read_parquet(results / "hits.parquet")
    own = table[table["method"] == "network"].reset_index(drop=True)
    pd.testing.assert_series_equal(own["q"], hits["q"])
    # The same controls in the same folds.
    wells = pd.read_parquet(results / "baseline_wells.parquet").set_index(["plate", "well"])
    network, forest = (wells.loc[wells["method"] == name, "fold"] for name in ("network", "forest"))
    pd.testing.assert_series_equal(network, forest, check_index=True)
    assert '<section id="simpler">' in (results / "report.html").read_text()
    again = snakemake(folder, "--configfile", "config.yaml", "-n")
    assert "Nothing to be done" in again.stdout + again.stderr
