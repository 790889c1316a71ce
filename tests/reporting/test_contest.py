"""The report's section on simpler methods."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from made_up import CALLING, HOSTILE, make_results

from wscnn.core.provenance import made_from
from wscnn.core.tables import BASELINE, BASELINE_FOLDS, conform, read_table, write_table
from wscnn.reporting.report import write_report


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A screen whose network and forest call some hits; the forest calls one perturbation more and another one less."""
    folder = make_results(tmp_path_factory.mktemp("results") / "made-up", 1, 96)
    hits = read_table(folder / "hits.parquet")
    hits.loc[hits["role"].eq("sample"), "hit"] = False
    hits.loc[hits["rank"].isin([1, 2]), "hit"] = True
    forest = hits.copy()
    forest.loc[forest["rank"] == 2, "hit"] = False
    forest.loc[forest["perturbation"] == HOSTILE[0], ["hit", "q"]] = [True, 0.0123]
    table = pd.concat([hits.assign(method="network"), forest.assign(method="forest")])
    notes = made_from({}, [("hits", folder / "hits.parquet")])
    write_table(conform(table, BASELINE)[list(BASELINE)], folder / "baseline.parquet", notes, kind="baseline")
    folds = pd.DataFrame(
        [
            (method, "mitotic", fold, auc + fold / 100, 5, 5)
            for method, auc in (("network", 0.9), ("forest", 0.8))
            for fold in range(3)
        ],
        columns=list(BASELINE_FOLDS),
    )
    write_table(folds.astype(BASELINE_FOLDS), folder / "baseline_folds.parquet", notes, kind="baseline_folds")
    return folder


def section(results: Path) -> str:
    write_report(results, results / "report.html", hits=CALLING)
    page = (results / "report.html").read_text()
    found = re.search(r'<section id="simpler">.*?</section>', page, re.S)
    return found[0] if found else ""


def rows(text: str, table: str) -> list[list[str]]:
    """Return the cells of a table of the page, as text."""
    body = re.search(rf'<table id="{table}">.*?<tbody>(.*?)</tbody>', text, re.S)
    assert body
    lines = re.findall(r"<tr>(.*?)</tr>", body[1], re.S)
    return [
        [re.sub(r"<.*?>", "", cell).strip() for cell in re.findall(r"<td.*?>(.*?)</td>", line, re.S)] for line in lines
    ]


def test_methods_stand_side_by_side(results: Path) -> None:
    text = section(results)
    assert rows(text, "simpler-methods") == [
        ["the network", "0.910 (0.900 to 0.920)", "2", "2"],
        ["random forest on features of nuclei", "0.810 (0.800 to 0.820)", "2", "1"],
    ]
    listed = rows(text, "simpler-hits")
    assert len(listed) == 3
    assert listed[-1][0] == "&lt;script&gt;alert(1)&lt;/script&gt;"
    assert listed[-1][2] == "0.012"
    assert text.count("<strong>") == 4


def test_novelty_of_cells_stands_beside_what_was_trained(results: Path, tmp_path: Path) -> None:
    for name in ("hits", "wells", "plates"):
        shutil.copy(results / f"{name}.parquet", tmp_path)
    hits = read_table(tmp_path / "hits.parquet")
    novel = hits.assign(phenotype="novelty", effect=5.0, q=0.25, hit=False)
    novel.loc[novel["perturbation"] == HOSTILE[0], ["q", "hit"]] = [0.0123, True]
    write_table(pd.concat([hits, novel[novel["role"] == "sample"]]), tmp_path / "hits.parquet")
    text = section(tmp_path)
    *_, called = rows(text, "simpler-hits")
    assert called[0] == "&lt;script&gt;alert(1)&lt;/script&gt;" and called[2] == "0.012"
    assert rows(text, "simpler-methods")[1][0] == "cells unlike those of any negative control (novelty)"
    assert rows(text, "simpler-methods")[1][-2:] == ["1", "0"]


def test_a_contest_beside_other_hits_is_left_out(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hits = read_table(results / "hits.parquet")
    write_table(hits.assign(new=1), results / "hits.parquet", kind="hits")
    assert section(results) == ""
    assert "was made for other hits" in capsys.readouterr().err
