"""The workflow run as a user runs it, on small made-up screens."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import yaml

ROOT = Path(__file__).parent.parent


def command(*options: str) -> list[str]:
    """Return the command line that runs the workflow on this machine."""
    program = Path(sys.executable).parent / "snakemake"
    return [str(program), "--snakefile", str(ROOT / "Snakefile"), "--cores", "2", *options]


def environment() -> dict[str, str]:
    """Return the environment of jobs: this environment's programs first on the path."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def screen_of(folder: Path, *options: str) -> Path:
    """Make a small screen in `folder`, two plates of 24 wells, whose networks train for a few seconds only."""
    screen = folder / "screen"
    options = [
        "--plates",
        "2",
        "--wells",
        "24",
        "--fields",
        "2",
        "--size",
        "200",
        "--strong",
        "1",
        "--weak",
        "0",
        # Enough that a short training finds cells.
        "--prevalence",
        "0.3",
        *options,
    ]
    made = subprocess.run(
        [str(Path(sys.executable).parent / "wscnn"), "simulate", "screen", "screen", *options],
        cwd=folder,
        text=True,
        capture_output=True,
    )
    assert made.returncode == 0, made.stderr
    config = yaml.safe_load((screen / "config.yaml").read_text())
    # The screen becomes its own working directory, so that it can be copied and run anywhere.
    plates = pd.read_csv(screen / "plates.tsv", sep="\t", dtype=str)
    plates.assign(images="images/" + plates["plate"]).to_csv(screen / "plates.tsv", sep="\t", index=False)
    config |= {"screen": "small", "plates": "plates.tsv", "layout": "layout.tsv"}
    config.pop("train", None)
    config |= {"encoder": {"steps": 20}, "mosaic": {"downsample": 2}}
    # Two more jobs, which tests that are about them ask for.
    config["baseline"] = {"methods": []}
    (screen / "config.yaml").write_text(yaml.safe_dump(config))
    return screen


def tables(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all tables, and of the report, that a screen has so far."""
    results = folder / "results" / "small"
    files = [*results.rglob("*.parquet"), *results.glob("report.html")]
    # Times of training are the one thing that no two runs share.
    return {str(file.relative_to(results)): file.read_bytes() for file in sorted(files) if "history" not in file.name}
