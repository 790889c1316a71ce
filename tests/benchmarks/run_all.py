"""Run the benchmarks with their quick sizes, and keep what they print in RESULTS.md: ``make benchmark``.

    python tests/benchmarks/run_all.py bench_stage bench_score

runs only those that are named, and leaves what is kept of the others as it is.
"""

import datetime
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"


def machine() -> str:
    """Return what the figures were measured on."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.is_file() else []
    kind = names[0] if names else platform.machine()
    return f"{kind}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} at the start"


def kept() -> dict[str, str]:
    """Return the text of each benchmark in RESULTS.md, by name."""
    parts = re.split(r"^## (.*)\n", RESULTS.read_text() if RESULTS.is_file() else "", flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def main(names: list[str]) -> None:
    """Print and keep what the benchmarks of these names print, all without one."""
    scripts = {path.stem: path for path in sorted(HERE.glob("bench_*.py"))}
    unknown = sorted(set(names) - set(scripts))
    if unknown:
        sys.exit(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(scripts)}")
    failed = []
    for name in names or scripts:
        print(f"== {name}", flush=True)
        where = f"{datetime.date.today()}: {machine()}"
        done = subprocess.run([sys.executable, str(scripts[name])], stdout=subprocess.PIPE, text=True)
        print(done.stdout, flush=True)
        if done.returncode:
            failed.append(name)
            continue
        texts = kept() | {name: f"\n{where}.\n\n```\n{done.stdout.rstrip()}\n```\n\n"}
        RESULTS.write_text("# Benchmarks\n\n" + "".join(f"## {key}\n{texts[key]}" for key in sorted(texts)))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main(sys.argv[1:])
