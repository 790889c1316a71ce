"""A small finished screen to export, and the tools that read the exports, in environments of their own."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up import make_results
from runs import ROOT

from wscnn.core.tables import read_table, write_table

#: What perturbations are called instead, so that a spreadsheet would calculate them.
FORMULAS = {"compound 3": "=1+1", "compound 14": "-siRNA", "compound 15": "@sum", "compound 16": "+5 uM"}


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two plates of 24 wells, two phenotypes, features of novel cells and of nuclei on the first plate."""
    folder = make_results(tmp_path_factory.mktemp("results") / "made-up", 2, 24, {0, 1}, ("mitotic", "novelty"))
    for name in ("hits", "wells"):
        table = read_table(folder / f"{name}.parquet")
        # Columns of the layout whose names exports have for other things, or that are paths to Zarr.
        table["row"], table["x"], table["conc/uM"], table["Treatment"] = "north", "none", 0.5, "knock-down"
        table["perturbation"] = table["perturbation"].replace(FORMULAS)
        if name == "hits":
            # However the calls went, two perturbations are hits: one whose name looks like a formula.
            samples = table["role"] == "sample"
            table["hit"] = samples & table["perturbation"].isin(["=1+1", "compound 22"])
        write_table(table, folder / f"{name}.parquet")
    objects = read_table(folder / "objects" / "P000.parquet")
    novel = objects[objects["phenotype"] == "novelty"]
    vectors = [np.array([number, -number], np.float32) for number in novel["object"]]
    write_table(novel[["plate", "well", "object"]].assign(feature=vectors), folder / "features" / "P000.parquet")
    nuclei = objects[["plate", "well", "field", "y", "x"]].drop_duplicates(["well", "y", "x"])
    write_table(
        nuclei.assign(feature_solidity=(nuclei["y"] / 1000).astype("float32")), folder / "cells" / "P000.parquet"
    )
    return folder


@pytest.fixture(scope="session")
def objects(results: Path) -> pd.DataFrame:
    """The detected cells of both plates, as the results hold them."""
    return pd.concat([read_table(path) for path in sorted((results / "objects").glob("*.parquet"))], ignore_index=True)


@pytest.fixture(scope="session")
def read_by() -> Callable[..., Any]:
    """Return a function that runs Python in the environment of another tool and returns what it prints as JSON."""

    def run(environment: str, code: str, *arguments: object) -> Any:
        python = ROOT / ".venv" / "readers" / environment / "bin" / "python"
        if not python.exists():
            pytest.skip(f"the tools that read this export are not installed: `make readers` makes {python}")
        line = [str(python), "-W", "ignore", "-c", code, *map(str, arguments)]
        done = subprocess.run(line, capture_output=True, text=True, timeout=300, env={"HOME": "/nonexistent"})
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run
