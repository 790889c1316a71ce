"""Outputs appear whole or not at all: written beside their target, then renamed."""

import glob
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a path beside `target` to write a file or a folder to; rename it to `target` on success.

    An earlier `target` stays in place until the new one is whole. When the block raises, what it wrote is removed
    and `target` is untouched. What a killed process left beside `target` is cleared first (`recover`).

    Parameters
    ----------
    target
        The file or folder to make. Its parent folder is made when missing.

    Raises
    ------
    OSError
        Naming `target`, when it cannot be written: a full disk by itself does not say what did not fit.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    recover(target)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        yield partial
        if partial.is_dir() and target.is_dir():
            # A folder cannot be renamed over a folder that holds something: step the old one aside first. A process
            # killed between the two renames leaves no `target`; `recover` puts the old one back.
            old = partial.with_suffix(".old")
            target.rename(old)
            partial.rename(target)
            shutil.rmtree(old)
        else:
            partial.replace(target)
    except OSError as error:
        if error.filename is not None and not str(error.filename).startswith(str(partial)):
            raise
        raise OSError(error.errno, error.strerror or str(error), str(target)) from error
    finally:
        remove(partial)


def recover(target: Path) -> None:
    """Put the earlier version back where a killed process left no `target`, and remove what else it left beside it.

    A process that is still writing the same `target` fails when it is done: one output belongs to one job.
    """
    left = target.parent.glob(f".{glob.escape(target.name)}.{'[0-9a-f]' * 8}.*")
    # Names do not order versions; at most one of them can be the only good copy, since every start ends here.
    for path in sorted(left):
        if path.suffix == ".old" and not target.exists():
            path.rename(target)
        elif path.suffix in (".old", ".partial"):
            remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder with all it holds; nothing happens where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
