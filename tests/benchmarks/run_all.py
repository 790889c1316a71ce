"""Run all benchmarks with their quick sizes, and keep what they print in RESULTS.md: ``make benchmark``."""

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


def main() -> None:
    """Print and keep what every benchmark prints."""
    parts = [f"# Benchmarks\n\n`make benchmark`, {datetime.date.today()}: {machine()}.\n"]
    for script in sorted(HERE.glob("bench_*.py")):
        print(f"== {script.name}", flush=True)
        done = subprocess.run([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
        print(done.stdout, flush=True)
        if done.returncode:
            sys.exit(f"{script}: failed")
        parts.append(f"## {script.name}\n\n```\n{done.stdout.rstrip()}\n```\n")
    RESULTS.write_text("\n".join(parts))


if __name__ == "__main__":
    main()
