"""A screen without positive controls runs through: novelty alone, from images to report."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from wscnn.cli import main
from wscnn.core.tables import read_table
from wscnn.discovery.novelty import load_novelty
from wscnn.plates.store import Plate

#: Stages that only a trained screen has, or that are run again here.
LATER = ("train", "score", "hits", "report")


@pytest.fixture(scope="module")
def explored(finished: Path, tmp_path_factory: pytest.TempPathFactory, snakemake) -> Path:
    """Return the results of a screen of two plates with eight negative and no positive controls each.

    Images are staged and the encoder has learned; nothing else has run.
    """
    folder = Path(shutil.copytree(finished, tmp_path_factory.mktemp("explored") / "screen"))
    results = folder / "results" / "small"
    later = ["*.parquet", "report.html", "wells/*", "fields/*", "objects/*", "model/*-?.*", "model/README.md"]
    notes = [f"{kind}/{stage}*" for kind in ("run/made_by", "logs/benchmarks") for stage in LATER]
    for path in [path for pattern in [*later, *notes] for path in results.glob(pattern)]:
        path.unlink()
    layout = pd.read_csv(folder / "layout.tsv", sep="\t", dtype=str, keep_default_na=False)
    # Known from folder / "truth": of this perturbation nothing comes.
    layout.loc[layout["perturbation"] == "siRNA001", ["perturbation", "role"]] = "scrambled", "negative"
    layout.loc[layout["role"] == "positive", ["role", "phenotype"]] = "sample", ""
    assert layout["role"].eq("negative").groupby(layout["plate"]).sum().eq(8).all()
    layout.to_csv(folder / "layout.tsv", sep="\t", index=False)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    # Methods to compare with a model are left out where there is no model.
    config |= {"discovery": {"method": "novelty"}, "baseline": {"methods": ["count"]}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    done = snakemake(folder, "--configfile", "config.yaml")
    log = done.stdout + done.stderr
    assert done.returncode == 0, log
    assert "wscnn novelty " in log and not re.search(r"wscnn (stage|encode|train) ", log)
    again = snakemake(folder, "--configfile", "config.yaml")
    assert "Nothing to be done" in again.stdout + again.stderr
    return results


def test_tables_have_novelty_alone(explored: Path) -> None:
    hits, wells = read_table(explored / "hits.parquet"), read_table(explored / "wells.parquet")
    assert set(hits["phenotype"]) == set(wells["phenotype"]) == {"novelty"}
    assert wells["score"].between(0, 1).all() and hits["q"].notna().all()
    # A negative control is judged by the reference that it had no share in, a sample by all.
    negative = wells["role"] == "negative"
    assert set(wells.loc[negative, "fold"]) == {0, 1, 2} and wells.loc[~negative, "fold"].isna().all()
    parts = load_novelty(explored / "model" / "novelty.safetensors").parts
    own = wells[negative]
    named = own.set_index(own["plate"] + "/" + own["well"])["fold"]
    assert named.to_dict() == parts
    # About a twentieth of the cells of held-out negative controls lie above the limit, here of very few cells.
    assert 0 < wells.loc[negative, "score"].mean() < 0.2


def test_novel_cells_have_masks_and_feature_vectors(explored: Path) -> None:
    objects = read_table(explored / "objects" / "plate1.parquet")
    features = read_table(explored / "features" / "plate1.parquet")
    assert len(objects) and features[["well", "object"]].equals(objects[["well", "object"]])
    # Mean and maximum of 64 features of the encoder, and the measures of a cell where cells are outlined.
    n_expected = 128 + load_novelty(explored / "model" / "novelty.safetensors").n_measures
    assert {len(vector) for vector in features["feature"]} == {n_expected}
    plate = Plate(explored / "plates" / "plate1.zarr")
    row = objects.iloc[0]
    mask = plate.read_label(row["well"], "novelty") == row["object"]
    y, x = np.nonzero(mask)
    assert (y.min(), x.min(), y.max() + 1, x.max() + 1) == tuple(row[["y0", "x0", "y1", "x1"]])
    assert mask.sum() == row["area_px"]
    assert plate.read_label(row["well"], "novelty_saliency")[mask].min() > 0


def test_report_show_and_plan_know_of_it(explored: Path) -> None:
    report = (explored / "report.html").read_text()
    assert "novelty" in report
    shown = CliRunner().invoke(main, ["show", str(explored), "--json"])
    assert shown.exit_code == 0, shown.output
    assert {row["phenotype"] for row in json.loads(shown.output)} == {"novelty"}
    jobs = CliRunner().invoke(main, ["show", str(explored), "--jobs", "--json"])
    assert "novelty" in {row["stage"] for row in json.loads(jobs.output)}
    made = CliRunner().invoke(main, ["show", str(explored), "--provenance", "--json"])
    outputs = pd.DataFrame(json.loads(made.output)["outputs"])
    assert "novelty" in set(outputs["stage"]) and set(outputs["state"]) == {"ok"}
