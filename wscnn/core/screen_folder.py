"""Paths of the files in a screen's results folder; no other module spells out their names."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Folds of the cross-validation: each trains on one part of the control wells; its weights are chosen on another and
#: tested on the last.
N_FOLDS = 3


def record_of(manifest: Path) -> Path:
    """Return where `stage` records the raw images that it read, beside its manifest."""
    return manifest.with_suffix(".raw.parquet")


@dataclass(frozen=True)
class ModelFolder:
    """The files of a trained model: those of its folds, and the encoder.

    Parameters
    ----------
    path
        The folder; that of a screen's own model is ``ScreenFolder.model``.
    """

    path: Path

    def fold(self, fold: int | str) -> Path:
        """Return the weights of a fold."""
        return self.path / f"fold-{fold}.safetensors"

    def card(self, fold: int | str) -> Path:
        """Return the card of a fold."""
        return self.path / f"fold-{fold}.json"

    def history(self, fold: int | str) -> Path:
        """Return the table of a fold's training."""
        return self.path / f"history-{fold}.parquet"

    @property
    def encoder(self) -> Path:
        """The weights of the encoder; its card is stored beside them."""
        return self.path / "encoder.safetensors"

    @property
    def encoder_card(self) -> Path:
        """The card of the encoder."""
        return self.path / "encoder.json"

    @property
    def novelty(self) -> Path:
        """What cells of negative controls look like."""
        return self.path / "novelty.safetensors"

    @property
    def readme(self) -> Path:
        """The model card of all folds, in Markdown."""
        return self.path / "README.md"

    def folds(self) -> list[Path]:
        """Return the weights that are there."""
        return sorted(self.path.glob("fold-*.safetensors"))

    def cards(self) -> list[Path]:
        """Return the cards that are there."""
        return sorted(self.path.glob("fold-*.json"))

    def histories(self) -> dict[str, Path]:
        """Return the tables of training that are there, by fold."""
        return {path.stem.removeprefix("history-"): path for path in sorted(self.path.glob("history-*.parquet"))}


@dataclass(frozen=True)
class ScreenFolder:
    """The files of a screen's results folder.

    A name may be one of Snakemake's wildcards, such as ``{plate}``.

    Parameters
    ----------
    path
        The folder, ``<results>/<screen>``.
    """

    path: Path

    # Of each plate.

    def index(self, plate: str) -> Path:
        """Return the table of a plate's images."""
        return self.path / "index" / f"{plate}.parquet"

    def plate(self, plate: str) -> Path:
        """Return the OME-Zarr plate."""
        return self.path / "plates" / f"{plate}.zarr"

    def manifest(self, plate: str) -> Path:
        """Return the file that says what was staged of a plate; it is written last."""
        return self.path / "plates" / f"{plate}.json"

    def quality(self, plate: str) -> Path:
        """Return the table of a plate's fields and their quality."""
        return self.path / "qc" / f"{plate}.parquet"

    def well_scores(self, plate: str) -> Path:
        """Return the table of a plate's wells, as `score` writes it."""
        return self.path / "wells" / f"{plate}.parquet"

    def fields(self, plate: str) -> Path:
        """Return the table of a plate's scored fields."""
        return self.path / "fields" / f"{plate}.parquet"

    def objects(self, plate: str) -> Path:
        """Return the table of a plate's detected objects."""
        return self.path / "objects" / f"{plate}.parquet"

    def features(self, plate: str) -> Path:
        """Return the table of a plate's novel cells with their features."""
        return self.path / "features" / f"{plate}.parquet"

    def cells(self, plate: str) -> Path:
        """Return the table of a plate's nuclei, as `measure` writes it."""
        return self.path / "cells" / f"{plate}.parquet"

    def of_plate(self, plate: str) -> list[Path]:
        """Return all files of a plate, whether they exist or not."""
        tables = [
            self.index(plate),
            self.quality(plate),
            self.well_scores(plate),
            self.fields(plate),
            self.objects(plate),
            self.features(plate),
            self.cells(plate),
        ]
        staged = [self.manifest(plate), record_of(self.manifest(plate)), self.plate(plate)]
        stages = ("index", "stage", "score", "measure")
        return [
            *tables,
            *staged,
            *(of(stage, plate) for of in (self.log, self.benchmark, self.made_by) for stage in stages),
        ]

    def plates(self) -> list[Path]:
        """Return the OME-Zarr plates that are there."""
        return sorted((self.path / "plates").glob("*.zarr"))

    def manifests(self) -> list[Path]:
        """Return the manifests that are there."""
        return sorted((self.path / "plates").glob("*.json"))

    def qualities(self) -> list[Path]:
        """Return the tables of fields and their quality that are there."""
        return sorted((self.path / "qc").glob("*.parquet"))

    # Of the model.

    @property
    def model(self) -> ModelFolder:
        """The screen's own model."""
        return ModelFolder(self.path / "model")

    def fold(self, fold: int | str) -> Path:
        """Return the weights of a fold of the screen's own model."""
        return self.model.fold(fold)

    # Of the screen.

    def table(self, name: str) -> Path:
        """Return a table of the whole screen: ``layout, controls, hits, wells, plates, suspects, warnings, ...``."""
        return self.path / f"{name}.parquet"

    @property
    def check_warnings(self) -> Path:
        """The warnings of `check`, which `hits` takes into those of the screen."""
        return self.path / "warnings" / "check.parquet"

    @property
    def scale(self) -> Path:
        """The scale that ``mosaic.downsample: auto`` stands for."""
        return self.path / "scale.json"

    @property
    def report(self) -> Path:
        """The report."""
        return self.path / "report.html"

    # Of the run.

    def log(self, stage: str, of: str = "") -> Path:
        """Return the log of a stage's job, `of` a plate or fold."""
        return self.path / "logs" / stage / f"{of}.log" if of else self.path / "logs" / f"{stage}.log"

    @property
    def benchmarks(self) -> Path:
        """The folder of Snakemake's benchmarks."""
        return self.path / "logs" / "benchmarks"

    def benchmark(self, stage: str, of: str = "") -> Path:
        """Return the benchmark of a stage's job, `of` a plate or fold."""
        return self.benchmarks / (f"{stage}-{of}.tsv" if of else f"{stage}.tsv")

    @property
    def run(self) -> Path:
        """The folder of the config and tables as they were run."""
        return self.path / "run"

    @property
    def config(self) -> Path:
        """The config as it was run."""
        return self.run / "config.yaml"

    def made_by(self, stage: str, of: str = "") -> Path:
        """Return the note of which version made an output."""
        return self.run / "made_by" / (f"{stage}-{of}.json" if of else f"{stage}.json")

    @property
    def images(self) -> Path:
        """What is known of the raw images."""
        return self.path / "images.json"

    @property
    def checked(self) -> Path:
        """The digest of what was checked last."""
        return self.path / "checked.txt"

    @property
    def config_files(self) -> Path:
        """The config files that the results are made with."""
        return self.path / "config-files.txt"

    @property
    def lock(self) -> Path:
        """The lock of the run that works here."""
        return self.path / ".lock"

    # Of plates that are no longer part of the screen.

    def left(self, plate: str) -> "ScreenFolder":
        """Return the folder that the files of a plate that left the screen are moved to."""
        return ScreenFolder(self.path / "left" / plate)

    def plates_left(self) -> set[str]:
        """Return the plates that left the screen."""
        return {folder.name for folder in (self.path / "left").glob("*")}

    def plates_with_files(self) -> Iterator[str]:
        """Yield the plates that have any file, some more than once."""
        for pattern in self.of_plate("*"):
            before, _, after = pattern.name.partition("*")
            for path in pattern.parent.glob(pattern.name):
                # A name that begins with a dot is that of an unfinished file.
                if not path.name.startswith("."):
                    yield path.name.removeprefix(before).removesuffix(after)
