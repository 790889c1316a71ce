"""Plates that left the screen: results hold what the screen holds, so theirs are put aside, whole."""

from collections.abc import Collection, Iterator
from pathlib import Path

# Where the files of a plate lie in the results, by its name.
_FILES = (
    "index/{}.parquet",
    "qc/{}.parquet",
    "wells/{}.parquet",
    "fields/{}.parquet",
    "objects/{}.parquet",
    "features/{}.parquet",
    "cells/{}.parquet",
    "plates/{}.json",
    "plates/{}.raw.parquet",
    "plates/{}.zarr",
    "logs/index/{}.log",
    "logs/stage/{}.log",
    "logs/score/{}.log",
    "logs/measure/{}.log",
    "logs/benchmarks/index-{}.tsv",
    "logs/benchmarks/stage-{}.tsv",
    "logs/benchmarks/score-{}.tsv",
    "logs/benchmarks/measure-{}.tsv",
    "run/made_by/index-{}.json",
    "run/made_by/stage-{}.json",
    "run/made_by/score-{}.json",
    "run/made_by/measure-{}.json",
)
_LEFT = "left"


def put_aside(results: Path, plates: Collection[str]) -> list[str]:
    """Move all files of plates that are not among `plates` to ``<results>/left/<plate>/``; return their names.

    Times of modification stay, so that nothing is made again when a plate returns (`bring_back`). A move that was cut
    off goes on where it stopped when this is called again.
    """
    gone = sorted(set(_plates_in(results)) - set(plates))
    for plate in gone:
        _move(plate, results, results / _LEFT / plate)
    return gone


def bring_back(results: Path, plates: Collection[str]) -> list[str]:
    """Move the files of those of `plates` that were put aside back into the results; return their names."""
    returned = sorted(set(plates) & {folder.name for folder in (results / _LEFT).glob("*")})
    for plate in returned:
        aside = results / _LEFT / plate
        _move(plate, aside, results)
        for folder in sorted((path for path in aside.rglob("*") if path.is_dir()), reverse=True):
            folder.rmdir()
        aside.rmdir()
    return returned


def _plates_in(results: Path) -> Iterator[str]:
    """Yield the plates that have a file in the results, some more than once."""
    for pattern in _FILES:
        folder, _, name = pattern.rpartition("/")
        before, _, after = name.partition("{}")
        for path in (results / folder).glob(f"{before}*{after}"):
            # A name that begins with a dot is that of an unfinished file.
            if not path.name.startswith("."):
                yield path.name.removeprefix(before).removesuffix(after)


def _move(plate: str, source: Path, target: Path) -> None:
    for pattern in _FILES:
        name = pattern.format(plate)
        if (source / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).rename(target / name)
