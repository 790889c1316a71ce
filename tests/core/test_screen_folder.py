"""The names of a results folder's files: one place knows them, and a plate that leaves takes all of its files along."""

import re
from pathlib import Path

import pytest

import wscnn
from wscnn.core.screen_folder import ModelFolder, ScreenFolder, record_of
from wscnn.preflight.left import bring_back, put_aside

PACKAGE = Path(wscnn.__file__).parent
RULES = sorted((PACKAGE.parent / "workflow").rglob("*.smk"))


def test_all_files_that_rules_make_of_a_plate_are_moved_with_it() -> None:
    screen = ScreenFolder(Path("results/small"))
    calls = {
        call for rules in RULES for call in re.findall(r'SCREEN\.(\w+)\(((?:"\w+", )?)"\{plate\}"\)', rules.read_text())
    }
    assert len(calls) >= 10
    made = {getattr(screen, name)(*re.findall(r"\w+", stage), "P1") for name, stage in calls}
    assert made <= set(screen.of_plate("P1"))


def test_a_plates_files_leave_and_return_whole(tmp_path: Path) -> None:
    screen = ScreenFolder(tmp_path)
    files = [*screen.of_plate("P1"), *screen.of_plate("P1.b")]
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    assert record_of(screen.manifest("P1.b")).name == "P1.b.raw.parquet"
    assert put_aside(tmp_path, ["P1.b"]) == ["P1"]
    assert not any(path.exists() for path in screen.of_plate("P1"))
    assert all(path.exists() for path in screen.of_plate("P1.b"))
    assert bring_back(tmp_path, ["P1", "P1.b"]) == ["P1"]
    assert all(path.read_text() == path.name for path in files)
    assert not (tmp_path / "left" / "P1").exists()


@pytest.mark.parametrize("name", ["fold-", "history-", "scale.json", "report.html", "checked.txt", "images.json"])
def test_no_other_module_joins_these_names_to_a_path(name: str) -> None:
    joined = re.compile(rf'(?:/|with_name\(|glob\() ?f?"{re.escape(name)}')
    spelled = [path for path in [*PACKAGE.rglob("*.py"), *RULES] if joined.search(path.read_text())]
    assert spelled == [PACKAGE / "core" / "screen_folder.py"]


def test_a_models_files_are_found_by_fold(tmp_path: Path) -> None:
    model = ModelFolder(tmp_path)
    for path in (model.fold(1), model.card(0), model.history(2)):
        path.touch()
    assert (model.folds(), model.cards(), model.histories()) == (
        [model.fold(1)],
        [model.card(0)],
        {"2": model.history(2)},
    )
