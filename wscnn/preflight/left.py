"""Plates that left the screen: the results contain only plates of the screen, so theirs are moved aside as a whole."""

from collections.abc import Collection
from pathlib import Path

from wscnn.core.screen_folder import ScreenFolder


def put_aside(results: Path, plates: Collection[str]) -> list[str]:
    """Move all files of plates that are not among `plates` to ``<results>/left/<plate>/``; return their names.

    Times of modification stay, so that nothing is made again when a plate returns (`bring_back`). An interrupted move
    resumes when this is called again.
    """
    screen = ScreenFolder(results)
    gone = sorted(set(screen.plates_with_files()) - set(plates))
    for plate in gone:
        _move(plate, screen, screen.left(plate))
    return gone


def bring_back(results: Path, plates: Collection[str]) -> list[str]:
    """Move the files of those of `plates` that were put aside back into the results; return their names."""
    screen = ScreenFolder(results)
    returned = sorted(set(plates) & screen.plates_left())
    for plate in returned:
        aside = screen.left(plate)
        _move(plate, aside, screen)
        for folder in sorted((path for path in aside.path.rglob("*") if path.is_dir()), reverse=True):
            folder.rmdir()
        aside.path.rmdir()
    return returned


def _move(plate: str, source: ScreenFolder, target: ScreenFolder) -> None:
    for old, new in zip(source.of_plate(plate), target.of_plate(plate), strict=True):
        if old.exists():
            new.parent.mkdir(parents=True, exist_ok=True)
            old.rename(new)
