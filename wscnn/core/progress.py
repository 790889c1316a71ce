"""Progress of long work: a bar on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

#: Seconds between two lines in a log.
LOG_EVERY = 15.0


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield `items`, showing how many of `total` are done on standard error.

    Parameters
    ----------
    items
        What to go through.
    total
        How many there are.
    what
        The unit and work in words, such as ``wells staged``.
    """
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=what, leave=False)
        return
    start = last = time.monotonic()
    done = 0
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= LOG_EVERY:
            last = now
            remaining = (now - start) / done * (total - done)
            log(f"{done}/{total} {what}, about {remaining:.0f} s to go")
    log(f"{done}/{total} {what} in {time.monotonic() - start:.1f} s")


def log(message: str) -> None:
    """Write one line for the log to standard error."""
    print(message, file=sys.stderr, flush=True)
