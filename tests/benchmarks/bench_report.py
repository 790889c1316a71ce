"""Size of the report, time to write and to open it: ``python tests/benchmarks/bench_report.py [--plates 2 100]``.

Made-up screens; the first two plates have images. "Opened" is from the start of loading in headless Chromium until
every chart is drawn. The last line is the largest screen against the smallest, measured in one run.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))
from made_up import CALLING, chromium, make_results, open_report

from wscnn.reporting.report import write_report


def measure(n_plates: int, n_wells: int, repeats: int) -> dict[str, float]:
    """Return size in MB, and the least seconds of several to write and to open the report of a made-up screen."""
    with tempfile.TemporaryDirectory() as folder:
        results = make_results(Path(folder) / "bench", n_plates, n_wells, staged={0, 1})
        report = results / "report.html"
        written, opened = [], []
        with chromium() as browser:
            for _ in range(repeats):
                start = time.perf_counter()
                write_report(results, report, hits=CALLING)
                written.append(time.perf_counter() - start)
                start = time.perf_counter()
                page = open_report(browser, report).page
                opened.append(time.perf_counter() - start)
                page.close()
        rows = len(pd.read_parquet(results / "hits.parquet", columns=["rank"]))
        return {"rows": rows, "MB": report.stat().st_size / 1e6, "written": min(written), "opened": min(opened)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plates", type=int, nargs="+", default=[2, 100])
    parser.add_argument("--wells", type=int, default=384)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    figures = {n: measure(n, given.wells, given.repeats) for n in sorted(given.plates)}
    print("plates  rows of hits     MB   written s   opened s")
    for n, found in figures.items():
        print(f"{n:6}  {found['rows']:12,.0f}  {found['MB']:5.2f}  {found['written']:10.1f}  {found['opened']:9.1f}")
    first, last = figures[min(figures)], figures[max(figures)]
    ratios = ", ".join(f"{name} {last[name] / first[name]:.2f}" for name in ("MB", "written", "opened"))
    print(f"{max(figures)} plates against {min(figures)}: {ratios}")


if __name__ == "__main__":
    main()
