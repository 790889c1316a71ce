"""Outputs appear whole or not at all."""

import subprocess
import sys
from pathlib import Path

import pytest

from wscnn.core.atomic import atomic_path, remove


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_appears_when_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "table.txt"
    with atomic_path(target) as partial:
        partial.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert names(target.parent) == ["table.txt"]


def test_file_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "table.txt"
    target.write_text("old")
    with atomic_path(target) as partial:
        partial.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert names(tmp_path) == ["table.txt"]


def test_folder_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "plate.zarr"
    for content in ("old", "new"):
        with atomic_path(target) as partial:
            partial.mkdir()
            (partial / content).touch()
    assert names(target) == ["new"]
    assert names(tmp_path) == ["plate.zarr"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_nothing_is_left_of_what_failed(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "target"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as partial:
        if kind == "file":
            partial.write_text("half")
        else:
            partial.mkdir()
            (partial / "half").touch()
        raise RuntimeError
    assert target.read_text() == "old"
    assert names(tmp_path) == ["target"]


def test_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "target"):
        pass
    assert names(tmp_path) == []


def test_killed_job_leaves_no_target(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from wscnn.core.atomic import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as partial:\n"
        "    partial.write_text('half'); os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "target")], check=False)
    assert done.returncode == -9
    assert not (tmp_path / "target").exists()


def killed(code: str, target: Path) -> None:
    """Run `code`, which writes to the path `target` and kills itself."""
    start = (
        "import os, sys; from pathlib import Path; from wscnn.core.atomic import atomic_path\n"
        "target = Path(sys.argv[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", start + code, str(target)], check=False)
    assert done.returncode == -9


BETWEEN_THE_RENAMES = """
rename = Path.rename
def rename_and_die(path, to):
    rename(path, to)
    os.kill(os.getpid(), 9)
Path.rename = rename_and_die
with atomic_path(target) as partial:
    partial.mkdir()
    (partial / "new").touch()
"""

AFTER_THE_RENAMES = """
import shutil
shutil.rmtree = lambda *_, **__: os.kill(os.getpid(), 9)
with atomic_path(target) as partial:
    partial.mkdir()
    (partial / "new").touch()
"""


def test_a_kill_between_the_renames_loses_no_good_copy(tmp_path: Path) -> None:
    target = tmp_path / "plate.zarr"
    target.mkdir()
    (target / "old").touch()
    killed(BETWEEN_THE_RENAMES, target)
    assert not target.exists()
    # The next job fails, too; the earlier version is back all the same, and nothing is left beside it.
    with pytest.raises(RuntimeError), atomic_path(target):
        raise RuntimeError
    assert names(target) == ["old"]
    assert names(tmp_path) == ["plate.zarr"]


@pytest.mark.parametrize("code", [BETWEEN_THE_RENAMES, AFTER_THE_RENAMES])
def test_the_next_job_clears_what_a_killed_one_left(tmp_path: Path, code: str) -> None:
    target = tmp_path / "plate[1].zarr"
    target.mkdir()
    (target / "old").touch()
    killed(code, target)
    other = tmp_path / ".plate1.zarr.0123abcd.partial"
    other.touch()
    with atomic_path(target) as partial:
        partial.mkdir()
        (partial / "newest").touch()
    assert names(target) == ["newest"]
    assert names(tmp_path) == [other.name, "plate[1].zarr"]


def test_remove_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "kept", target_is_directory=True)
    remove(tmp_path / "link")
    remove(tmp_path / "nothing")
    assert names(tmp_path / "kept") == ["file"]
    assert names(tmp_path) == ["kept"]
