"""What each job took, from the benchmarks of a real run; and rates for the next plan."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from wscnn.cli import main
from wscnn.core.errors import UserError
from wscnn.network.card import read_card
from wscnn.preflight.jobs import read_jobs
from wscnn.preflight.plan import RATES, measured


@pytest.fixture
def results(finished: Path, tmp_path: Path) -> Path:
    """Return the results of the small screen, two plates of 24 wells x 2 fields of 200 x 200, to be changed."""
    return Path(shutil.copytree(finished / "results" / "small", tmp_path / "results"))


def write_times(results: Path, job: str, seconds: float, core_seconds: float) -> None:
    """Give a job other times."""
    path = results / "logs" / "benchmarks" / f"{job}.tsv"
    table = pd.read_csv(path, sep="\t").assign(s=seconds, cpu_time=core_seconds)
    table.to_csv(path, sep="\t", index=False)


def test_a_row_a_job_with_time_memory_and_rate(results: Path):
    write_times(results, "stage-plate1", 2.0, 3.0)
    write_times(results, "score-plate2", 12.0, 3.0)
    write_times(results, "train-fold-1", 10.0, 3.0)
    jobs = read_jobs(results)
    assert list(zip(jobs["stage"], jobs["of"], strict=True)) == [
        *(("index", plate) for plate in ("plate1", "plate2")),
        *(("stage", plate) for plate in ("plate1", "plate2")),
        ("encode", ""),
        *(("train", fold) for fold in "012"),
        *(("score", plate) for plate in ("plate1", "plate2")),
        ("hits", ""),
        ("report", ""),
    ]
    rows = jobs.set_index(["stage", "of"])
    # 48 images of 200 x 200 pixels of two bytes in two seconds.
    assert rows.loc[("stage", "plate1"), ["amount", "unit", "rate", "core_seconds"]].tolist() == [3.84, "MB", 1.92, 3.0]
    assert rows.loc[("score", "plate2"), ["amount", "unit", "rate"]].tolist() == [48, "fields", 4.0]
    # 5 steps of 32 tiles.
    assert rows.loc[("encode", ""), "amount"] == 160
    card = read_card(results / "model" / "fold-1.json")
    n_fields = sum(sum(of_class.values()) for of_class in card.n_fields.values())
    assert 20 < n_fields <= 32 and rows.loc[("train", "1"), "rate"] == n_fields / 10
    assert (jobs["peak_mb"].dropna() > 50).all()


def test_the_command_line_prints_them(results: Path):
    said = CliRunner().invoke(main, ["show", str(results), "--jobs"])
    assert said.exit_code == 0 and len(said.output.splitlines()) == 1 + 12
    rows = json.loads(CliRunner().invoke(main, ["show", str(results), "--jobs", "--json"]).output)
    pd.testing.assert_frame_equal(pd.DataFrame(rows), read_jobs(results), check_dtype=False)


def test_a_job_too_short_to_be_measured_has_no_time(results: Path):
    write_times(results, "hits", float("nan"), float("nan"))
    path = results / "logs" / "benchmarks" / "hits.tsv"
    path.write_text(path.read_text().replace("\t\t", "\tNA\t"))
    assert read_jobs(results).set_index("stage").loc["hits", ["seconds", "rate"]].isna().all()


@pytest.mark.parametrize("content", ["", "s\th:m:s\n", "nothing\nof this\n"])
def test_a_broken_benchmark_is_named(content: str, results: Path):
    (results / "logs" / "benchmarks" / "stage-plate1.tsv").write_text(content)
    with pytest.raises(UserError, match=r"stage-plate1\.tsv: not a benchmark"):
        read_jobs(results)


def test_rates_of_a_screen_are_those_of_the_next_plan(results: Path):
    for plate, core in (("plate1", 200.0), ("plate2", 300.0)):
        write_times(results, f"stage-{plate}", 100.0, core)
    write_times(results, "hits", 0.6, 0.6)
    rates = measured(results)
    start = RATES["stage"].start
    # Both plates together are 7.68 MB.
    assert rates["stage"].core == pytest.approx((500 - 2 * start) / 7.68)
    assert rates["stage"].clock == pytest.approx((200 - 2 * start) / 7.68)
    # Of a job that did little more than start nothing is learnt.
    assert "hits" not in rates
    said = CliRunner().invoke(main, ["plan", "--plates", "1", "--measured", str(results)])
    assert said.exit_code == 0 and "stage" not in said.output.split("Rates of ")[1].split(":")[0]
