"""Time of `snakemake -n` for a large screen: ``python tests/benchmarks/bench_dry_run.py [plates]``.

Plates of 384 wells share one folder with an image; the layout is one for all. Seconds by the clock and of processors.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def write_screen(folder: Path, plates: int) -> None:
    """Write config and tables of a screen, and a folder for each plate's images."""
    for plate in range(plates):
        (folder / "images" / f"P{plate}").mkdir(parents=True)
    rows = [f"P{plate}\timages/P{plate}\t" for plate in range(plates)]
    (folder / "plates.tsv").write_text("\n".join(["plate\timages\tbatch", *rows]) + "\n")
    wells = [f"{letter}{column:02d}" for letter in "ABCDEFGHIJKLMNOP" for column in range(1, 25)]
    roles = ["negative", "positive", *["sample"] * 10]
    lines = [f"{well}\tg{i}\t{roles[i % 12]}\t" for i, well in enumerate(wells)]
    (folder / "layout.tsv").write_text("\n".join(["well\tperturbation\trole\tphenotype", *lines]) + "\n")
    acquisition = {"pattern": r"(?P<well>[A-Z]\d+)_s(?P<field>\d+)\.tif", "channels": {"1": "DNA"}}
    config = {"screen": "large", "plates": "plates.tsv", "layout": "layout.tsv", "acquisition": acquisition}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def main() -> None:
    """Print how long the dry run takes."""
    plates = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_screen(folder, plates)
        command = [Path(sys.executable).parent / "snakemake", "-n", "--quiet", "--snakefile", ROOT / "Snakefile"]
        start = time.perf_counter()
        done = subprocess.run(
            [*map(str, command), "--configfile", "config.yaml"],
            cwd=folder,
            env=os.environ,
            capture_output=True,
            text=True,
        )
        took = time.perf_counter() - start
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"dry run of {plates} plates: {took:.1f} s, {used.ru_utime + used.ru_stime:.1f} s of processor, "
        f"peak {used.ru_maxrss / 1024:.0f} MiB"
    )


if __name__ == "__main__":
    main()
