"""Use from other workflows and from the command line: as a module, with values of the config given there."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from runs import ROOT, environment, tables

from wscnn.cli import main
from wscnn.core.tables import read_table

INCLUDING = """
module wscnn:
    snakefile: "{snakefile}"
    config: {config}

use rule * from wscnn

rule both:
    default_target: True
    input: "results/small/hits.parquet"
    output: touch("done")
"""


def test_as_a_module_with_a_dict_config_the_screen_is_checked_and_run_to_hits(
    screen: Path, finished: Path, tmp_path: Path, snakemake
) -> None:
    folder = Path(shutil.copytree(screen, tmp_path / "screen"))
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").unlink()

    def run_including(config: dict[str, Any], *options: str) -> subprocess.CompletedProcess[str]:
        text = INCLUDING.format(snakefile=ROOT / "workflow" / "Snakefile", config=config)
        (folder / "Including").write_text(text)
        return snakemake(folder, *options, snakefile=folder / "Including")

    # What only the check finds, before any job.
    wrong = config | {"acquisition": config["acquisition"] | {"channels": {"77": "DNA"}}}
    failed = run_including(wrong)
    assert failed.returncode != 0
    assert "has no image of the channels" in failed.stdout.partition("Fix these problems first:")[2], failed.stdout
    assert not (folder / "results/small/index").exists()

    planned = run_including(config, "-n", "--printshellcmds")
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert all(f"wscnn train --screen small --fold {fold} " in planned.stdout + planned.stderr for fold in range(3))

    # With the folds that the workflow trained by itself: training them again would take most of the time.
    shutil.copytree(finished / "results/small/model", folder / "model")
    done = run_including(config | {"model": {"checkpoint": "model"}})
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "done").is_file() and (folder / "results/small/checked.txt").is_file()
    ours, theirs = tables(folder), tables(finished)
    assert "hits.parquet" in ours
    # An applied model has been compared with the plates, too: tables that `hits` writes have a note of it.
    noted = {name for name in ours if "/" not in name and name.endswith(".parquet")} & set(theirs)
    for name in noted:
        one, other = (read_table(screen / "results" / "small" / name) for screen in (folder, finished))
        compared = [column for column in one if column.startswith("drift")]
        pd.testing.assert_frame_equal(one.drop(columns=compared), other.drop(columns=compared, errors="ignore"))
    rest = [name for name in ours if name in theirs and name not in noted]
    assert rest and {name: ours[name] for name in rest} == {name: theirs[name] for name in rest}


def test_nested_values_of_the_command_line_have_their_types_and_leave_the_other_keys(
    finished: Path, tmp_path: Path, snakemake
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "screen"))
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["hits"] = {"normalize": "bscore"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    given = ["--config", 'hits={"fdr": 0.01, "min_auc": null}']
    planned = snakemake(folder, "--configfile", "config.yaml", "-n", "--printshellcmds", *given)
    said = planned.stdout + planned.stderr
    assert planned.returncode == 0, said
    assert '"fdr": 0.01' in said and '"min_auc": null' in said and '"normalize": "bscore"' in said, said
    wrong = snakemake(folder, "--configfile", "config.yaml", "-n", "--config", 'hits={"fdr": "often"}')
    assert wrong.returncode != 0 and "hits.fdr: 'often' is not of type 'number'" in wrong.stdout + wrong.stderr


def test_another_config_file_of_the_same_screen_is_refused_by_name(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snakemake
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "screen"))
    monkeypatch.chdir(folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    other = config | {"score": {"mask_fraction": 0.9}}
    (folder / "other.yaml").write_text(yaml.safe_dump(other))
    before = tables(folder)
    refused = snakemake(folder, "--configfile", "other.yaml")
    checked = CliRunner().invoke(main, ["check", "other.yaml"])
    assert refused.returncode != 0 and checked.exit_code != 0
    for said in (refused.stdout, checked.output):
        assert f"other.yaml: its screen 'small' is also the screen of {folder / 'config.yaml'}" in said, said
    assert tables(folder) == before
    # The first one renamed, or naming another screen, is no reason to refuse.
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"screen": "large"}))
    done = CliRunner().invoke(main, ["check", "other.yaml"])
    assert done.exit_code == 0, done.output


def test_a_second_run_from_another_folder_is_refused_while_the_first_lasts(
    finished: Path, tmp_path: Path, snakemake
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "screen"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("config.yaml", "plates.tsv", "layout.tsv", "images", "results"):
        (elsewhere / name).symlink_to(folder / name)
    (folder / "results/small/hits.parquet").unlink()
    hold = (
        "import sys; from pathlib import Path; from wscnn.preflight.claim import lock\n"
        "held = lock(Path(sys.argv[1])); print('held'); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-u", "-c", hold, str(folder / "results/small")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
    )
    assert holder.stdout is not None and holder.stdout.readline()
    refused = snakemake(elsewhere, "--configfile", "config.yaml")
    said = refused.stdout + refused.stderr
    assert refused.returncode != 0
    assert "results/small/.lock: another run is working in results/small" in said and str(holder.pid) in said, said
    assert not (folder / "results/small/hits.parquet").exists()
    # Killed outright, the holder leaves nothing to be deleted by hand.
    holder.kill()
    holder.communicate()
    done = snakemake(elsewhere, "--configfile", "config.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(pd.read_parquet(folder / "results/small/hits.parquet"))
