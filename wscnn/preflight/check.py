"""Before anything runs: do config, tables and file names agree? All problems are found at once."""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from wscnn.acquisitions import open_acquisition
from wscnn.acquisitions.base import Acquisition, entry_is
from wscnn.acquisitions.index import choose, duplicates, plane_problems, read_index, sets_by
from wscnn.core.config import draft_config
from wscnn.core.errors import UserError, listed, merged
from wscnn.core.progress import log, progress
from wscnn.core.provenance import made_from, note_version
from wscnn.core.screen_folder import N_FOLDS, ScreenFolder
from wscnn.core.screen_tables import controls as control_wells
from wscnn.core.screen_tables import load_layout, load_plates
from wscnn.core.tables import HITS, LAYOUT, SUSPECTS, conform, write_table
from wscnn.core.wells import DISCOVERED, LEAST_NEGATIVES, parse_well
from wscnn.plates.fields import same_pixel_size
from wscnn.preflight.claim import claim_problems
from wscnn.staging.scale import FALLBACK
from wscnn.statistics.attainable import layout_cautions
from wscnn.statistics.cautions import Caution, tabulate
from wscnn.training.parts import group_problems

T = TypeVar("T")

#: Control wells of a class that three folds need: one each for training, validation and test.
MIN_CONTROLS = N_FOLDS
#: Height and width of a field, in pixels of the mosaic, that are enough for every network.
LARGE_FIELD = 200


@dataclass(frozen=True)
class Screen:
    """A screen whose config, tables and file names agree.

    Attributes
    ----------
    config
        Complete with defaults.
    plates
        One row per plate: ``plate, images, batch``.
    layout
        One row per plate and well: ``plate, well, row, column, perturbation, role, phenotype, batch`` and the user's
        further columns; the index is the line of the layout file.
    warnings
        One sentence for each thing that will run, but perhaps not give useful results.
    cautions
        The same for the tables: without paths, one for each plate and kind.
    images
        One row per plate: ``plate``; how many ``rows, wells, fields, images`` will be staged; ``path`` and ``page`` of
        the first image.
    """

    config: dict[str, Any]
    plates: pd.DataFrame
    layout: pd.DataFrame
    warnings: list[str]
    cautions: list[Caution]
    images: pd.DataFrame


def check_screen(config_path: Path) -> Screen:
    """Return the screen that a config file describes; see `check_config`."""
    path = Path(config_path)
    config, problems = draft_config(path)
    return check_config(config, problems, path.parent, [] if path == Path("-") else [path])


def check_config(
    config: dict[str, Any],
    problems: Iterable[str] = (),
    beside: Path | None = None,
    configs: Sequence[Path] = (),
) -> Screen:
    """Return the screen that a config describes, after checking names, headers and a few fields.

    Parameters
    ----------
    config
        Complete with defaults, but for the sections that hold a mistake: what depends on these is not checked.
    problems
        What is wrong with those sections.
    beside
        The folder of the config file, where a table is looked for that is not where the config says.
    configs
        The config files that it was read from: no other one may have made the screen's results.

    Raises
    ------
    UserError
        With a sentence for every kind of problem found: where it is, what is wrong, what to do.
    """
    problems, warnings = list(problems), []
    if {"results", "screen"} <= set(config) and (
        found := _results_problems(Path(config["results"]) / config["screen"])
    ):
        problems += found
        config = {name: value for name, value in config.items() if name != "results"}
    elif {"results", "screen"} <= set(config):
        problems += claim_problems(Path(config["results"]) / config["screen"], config["screen"], configs)

    def known(*sections: str) -> bool:
        return all(name in config for name in sections)

    plates = layout = None
    if known("plates"):
        plates = _load(problems, config["plates"], beside, load_plates)
    if known("layout"):
        names = None if plates is None else plates["plate"].tolist()
        layout = _load(problems, config["layout"], beside, lambda path: load_layout(path, names))
    if layout is not None:
        problems += _column_problems(layout, config["layout"])
    cautions: list[Caution] = []
    images: list[dict[str, Any]] = []
    pixel_sizes: dict[str, float | None] = {}
    shape: tuple[int, int] | None = None
    if plates is not None:
        faults: list[tuple[str, str, str]] = []
        doubts: list[tuple[str, str, str]] = []
        # Rows that hold for every plate are known only where the plates are.
        layout = None if layout is None else _with_batch(layout, plates)
        rows_of = {} if layout is None else {str(plate): rows for plate, rows in layout.groupby("plate")}
        excluded = {plate: set(rows.loc[rows["role"] == "exclude", "well"]) for plate, rows in rows_of.items()}
        for plate, acquisition, table in _read_names(plates, config, excluded, faults):
            if layout is None or not known("results", "screen", "mosaic", "qc", "illumination"):
                continue
            rows = rows_of.get(plate, layout.iloc[:0])
            table = table[~table["well"].isin(excluded.get(plate, set()))]
            if len(rows) and (rows["role"] == "exclude").all():
                problem = (
                    f"{config['layout']}: plate '{plate}': every well has role exclude; leave out the plate instead"
                )
                faults.append(("excluded", problem, f"plate '{plate}'"))
                continue
            wrong, doubtful = _plate_problems(plate, acquisition, table, rows, config)
            if not wrong:
                images.append({"plate": plate, **_counts(table, acquisition, config["acquisition"])})
                wrong = _stage_problems(plate, acquisition, table, config)
                shape = shape or _shape(acquisition, table)
            if doubtful:
                lack = "wells lack fields that most wells of the plate have; they are empty in the mosaics"
                cautions.append(Caution("missing_fields", lack, plate=plate))
            for sentences, kinds in ((wrong, faults), (doubtful, doubts)):
                kinds += [(_kind(text, plate, acquisition.folder), text, f"plate '{plate}'") for text in sentences]
            told = table["pixel_size_um"].astype(float).median()
            pixel_sizes[plate] = config["acquisition"]["pixel_size_um"] if pd.isna(told) else told
        problems += merged(faults)
        warnings += merged(doubts)
    if shape is not None and known("mosaic", "model"):
        small = _field_size_warnings(shape, config)
        warnings += small
        cautions += [Caution("small_fields", warning) for warning in small]
    if plates is not None and layout is not None and known("discovery", "model", "hits"):
        problems += _discovery_problems(layout, config)
    discovers = known("discovery") and config["discovery"]["method"] != "none"
    if known("model") and config["model"]["checkpoint"] is None:
        if plates is not None and layout is not None:
            lacking = _training_problems(layout, config["layout"], discovers)
            problems += lacking
            if known("train") and not lacking and config["train"]["hold_out"] != "well":
                hold_out = config["train"]["hold_out"]
                problems += group_problems(control_wells(layout, hold_out), hold_out)
            problems += _pixel_size_problems(pixel_sizes)
        if known("train", "acquisition"):
            problems += _network_problems(layout, config)
            recipe = _recipe_warnings(config)
            warnings += recipe
            cautions += [Caution("recipe", warning) for warning in recipe]
    elif known("model", "acquisition", "mosaic"):
        problems += _model_problems(config, {size for size in pixel_sizes.values() if size is not None})
    if plates is not None and layout is not None and known("hits"):
        problems += _normalisation_problems(layout, config)
    if problems or plates is None or layout is None:
        raise UserError(problems)
    if odd := _cell_size_warnings(plates, layout, config):
        warnings += odd
        cautions += [Caution("cell_size", warning) for warning in odd]
    about_layout = layout_cautions(layout, config["hits"])
    warnings += [*_ignored(config), *(f"{config['layout']}: {caution.message}" for caution in about_layout)]
    return Screen(config, plates, layout, warnings, [*cautions, *about_layout], pd.DataFrame(images))


def write_screen(screen: Screen, layout: Path | None, controls: Path | None, warnings: Path | None = None) -> None:
    """Write the screen's layout, its control wells by themselves, and the warnings, as Parquet; None writes none.

    Training depends on the control wells alone: a changed name of a sample does not require a new model. So equal
    control wells give equal bytes, whatever layout they come from.
    """
    if layout is not None:
        notes = made_from({}, [("run/layout", Path(screen.config["layout"]))])
        write_table(screen.layout, layout, notes, kind="layout")
        note_version(layout.parent, "check", "", layout)
    if controls is not None:
        rows = control_wells(screen.layout, screen.config["train"]["hold_out"])
        write_table(rows, controls, kind="controls")
    if warnings is not None:
        write_table(tabulate("check", screen.cautions), warnings, kind="warnings")


def _load(problems: list[str], path: str, beside: Path | None, load: Callable[[Path], T]) -> T | None:
    """Return the table at `path`, or None after noting its problems, and where it may be instead."""
    try:
        return load(Path(path))
    except UserError as error:
        hint = _elsewhere(Path(path), beside)
        problems += [problem + hint for problem in error.problems]
        return None


def _elsewhere(path: Path, folder: Path | None) -> str:
    """Return where a path leads that does not exist, were it relative to another folder; nothing where it does not."""
    if folder is None or path.is_absolute():
        return ""
    try:
        if path.exists() or not (folder / path).exists():
            return ""
    except OSError:
        return ""
    return (
        f"; paths are relative to the folder in which the program is started, but there is {folder / path}: write that"
    )


def _kind(problem: str, plate: str, folder: Path) -> str:
    """Return a problem without the names of its plate and folder, equal for a mistake that several plates share."""
    general = problem.replace(f"plate '{plate}'", "")
    # A folder called by a plain word or number may stand for something else in the sentence.
    return general.replace(str(folder), "") if "/" in str(folder) else general


def _with_batch(layout: pd.DataFrame, plates: pd.DataFrame) -> pd.DataFrame:
    """Return the layout with the plate's batch after its own columns, before the user's further ones."""
    layout = layout.copy()
    layout.insert(
        list(layout.columns).index("phenotype") + 1, "batch", layout["plate"].map(plates.set_index("plate")["batch"])
    )
    return conform(layout, LAYOUT)


def _column_problems(layout: pd.DataFrame, path: str) -> list[str]:
    """Return which of the user's further columns could not stand beside the results' own."""
    own = list(layout.columns)[list(layout.columns).index("phenotype") + 1 :]
    taken = [name for name in own if name.lower() in {*HITS, *SUSPECTS, "used", "control_phenotype"}]
    if not taken:
        return []
    return [f"{path}: column {', '.join(taken)}: the results have columns of that name; rename it"]


class _PutAway(Acquisition):
    """A folder that no longer exists: for a plate that was staged before, its index lists the images."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        super().__init__(folder, config.get("acquisition", {}))
        self.results = ScreenFolder(Path(config.get("results", "")) / config.get("screen", ""))

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        # For a path that cannot be read, `open_acquisition` reports why.
        return entry_is(lambda: not folder.exists())

    def files(self, plate: str, excluded: Collection[str] = ()) -> pd.DataFrame:
        index = self.results.index(plate)
        if not (index.is_file() and self.results.manifest(plate).is_file()):
            raise UserError(f"{self.folder}: no such folder; correct column images in the table of plates")
        log(f"plate '{plate}': {self.folder} is gone; the plate is used as it was staged")
        return read_index(index, self.folder)


def _open(images: Path, config: Mapping[str, Any]) -> Acquisition | None:
    """Return the reader of a folder, whether it exists or not; None where the config does not say how to read it."""
    if _PutAway.recognises(images):
        return _PutAway(images, config)
    return open_acquisition(images, config["acquisition"]) if "acquisition" in config else None


def _read_names(
    plates: pd.DataFrame,
    config: Mapping[str, Any],
    excluded: Mapping[str, Collection[str]],
    found: list[tuple[str, str, str]],
) -> Iterable[tuple[str, Acquisition, pd.DataFrame]]:
    """Yield each plate with its reader and the table of its files; note what cannot be read, as `merged` takes it.

    Where the config's section ``acquisition`` holds a mistake, folders are looked for, but not into.
    """
    first_seen: dict[str, str] = {}
    # Plates that share a folder share its listing.
    order = sorted(zip(plates["images"], plates["plate"], strict=True), key=lambda pair: pair[0])
    before, acquisition = None, None
    for images, plate in progress(order, len(order), "plates checked"):

        def note(problem: str, images: str = images, plate: str = plate) -> None:
            found.append((_kind(problem, plate, Path(images)), problem, f"plate '{plate}'"))

        try:
            if images != before:
                before, acquisition = images, None
                acquisition = _open(Path(images), config)
            if acquisition is None:
                continue
            table = acquisition.files(plate, excluded.get(plate, ()))
        except UserError as error:
            hint = _elsewhere(Path(images), Path(config["plates"]).parent)
            for problem in error.problems:
                note(f"plate '{plate}': {problem}{hint}")
            continue
        if table.empty:
            note(
                f"plate '{plate}': {images} has no image of the channels in acquisition.channels; "
                f"the instrument's channels here are {listed(sorted(acquisition.unlisted))}"
            )
            continue
        other = first_seen.setdefault(table["path"].iloc[0], plate)
        if other != plate:
            found.append(
                (
                    f"same images as {other}",
                    f"plates '{other}' and '{plate}' have the same images, in {images}; give each its own folder, or "
                    "let the group (?P<plate>...) in acquisition.pattern distinguish them",
                    f"plate '{plate}'",
                )
            )
            continue
        yield plate, acquisition, table


def _plate_problems(
    plate: str, acquisition: Acquisition, table: pd.DataFrame, rows: pd.DataFrame, config: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """Return problems and warnings about the files of one plate, but for its excluded wells, beside its layout."""
    settings, layout_path = config["acquisition"], config["layout"]
    where = f"plate '{plate}'"
    problems = duplicates(table)
    try:
        staged = choose(table, settings["z"], settings["time"], acquisition.projection)
    except ValueError as error:
        return [*problems, f"{where}: {acquisition.folder}: {error}; correct it"], []
    keys = {name: key for key, name in settings["channels"].items()}
    channels_there = set(staged["channel"].unique())
    absent = [name for name in keys if name not in channels_there]
    for name in absent:
        problems.append(
            f"{where}: {acquisition.folder} has no image of channel {name} ('{keys[name]}' in acquisition.channels); "
            f"unlisted channels there are {listed(sorted(acquisition.unlisted))}"
        )
    imaged: set[str] = set(staged["well"].unique())
    known = set(rows["well"])
    wanted = rows[rows["role"] != "exclude"]
    lacking = wanted[~wanted["well"].isin(imaged)]
    if len(lacking):
        wells = listed(f"{well} (line {line})" for line, well in lacking["well"].items())
        problems.append(
            f"{layout_path}: {where}: no image of well {wells} in {acquisition.folder}; "
            "copy the images there, or give the wells role exclude"
        )
    if unknown := sorted(imaged - known, key=parse_well):
        problems.append(
            f"{layout_path}: {where}: no row for well {listed(unknown)}, of which there are images in "
            f"{acquisition.folder}; add rows (role exclude leaves wells out)"
        )
    present = staged[staged["well"].isin(set(wanted["well"]))]
    channels = [name for name in keys if name not in absent]
    advice = "or give the wells role exclude"
    problems += [f"{where} ({layout_path}): {problem}, {advice}" for problem in plane_problems(present, channels)]
    problems += _header_problems(where, acquisition, present)
    missing = _missing(present)
    lines = dict(zip(wanted["well"], wanted.index, strict=True))

    def together(lacks: Mapping[str, T], words: Callable[[T], str]) -> list[str]:
        """Return one sentence for all wells that lack the same."""
        alike: dict[str, list[str]] = {}
        for well, what in lacks.items():
            alike.setdefault(words(what), []).append(f"{well} (line {lines[well]})")
        return [f"{layout_path}: {where}, well {listed(wells)}: {text}" for text, wells in alike.items()]

    sentences = together(missing, lambda fields: f"field {listed(fields)} is missing in {acquisition.folder}")
    if settings["missing_fields"] == "accept":
        return problems, sentences
    advice = "copy the images there, give the wells role exclude, or set acquisition.missing_fields to accept"
    return problems + [f"{sentence}; {advice}" for sentence in sentences], []


def _stage_problems(plate: str, acquisition: Acquisition, table: pd.DataFrame, config: Mapping[str, Any]) -> list[str]:
    """Return which settings of the stage `stage` require what a plate's images cannot give."""
    where, problems = f"plate '{plate}'", []
    staged = choose(table, config["acquisition"]["z"], config["acquisition"]["time"], acquisition.projection)
    most, least = int(staged.groupby("well")["field"].nunique().max()), config["qc"]["min_fields"]
    if most < least:
        problems.append(
            f"{where}: no well has more than {most} fields, but qc.min_fields requires {least} good ones; lower it"
        )
    unknown = staged["y_um"].isna().all() and not acquisition.positions_in_headers
    if config["mosaic"]["arrange"] == "positions" and unknown:
        problems.append(
            f"{where}: nothing in {acquisition.folder} gives the stage positions that mosaic.arrange: positions needs; "
            "set it to auto or grid"
        )
    if config["illumination"]["method"] == "instrument" and not isinstance(acquisition, _PutAway):
        for channel in config["acquisition"]["channels"].values():
            try:
                profile = acquisition.flatfield(channel)
            except UserError as error:
                problems += [f"{where}: {problem}" for problem in error.problems]
                continue
            if profile is None:
                problems.append(
                    f"{where}: {acquisition.folder} holds no illumination profile of channel {channel}; set "
                    "illumination.method to retrospective or none"
                )
    return problems


def _shape(acquisition: Acquisition, table: pd.DataFrame) -> tuple[int, int] | None:
    """Return the height and width of a plate's first image; None where it cannot be read, which `stage` reports."""
    if isinstance(acquisition, _PutAway):
        return None
    try:
        (height, width), _ = acquisition.inspect(Path(table["path"].iloc[0]), int(table["page"].iloc[0]))
    except (UserError, ValueError):
        return None
    return height, width


def _field_size_warnings(shape: tuple[int, int], config: Mapping[str, Any]) -> list[str]:
    """Return whether raw images of this height and width make fields that the network is too large for."""
    if config["mosaic"]["downsample"] == "auto":  # which never takes one that does
        return []
    height, width = (side // config["mosaic"]["downsample"] for side in shape)
    if min(height, width) >= LARGE_FIELD:
        return []
    # torch takes seconds to import and is needed only here.
    from wscnn.preflight.scale import smallest_field

    try:
        network, needed = smallest_field(config["model"])
    except UserError:
        # That the model cannot be loaded is a problem of its own.
        return []
    if min(height, width) >= needed:
        return []
    return [
        f"mosaic.downsample: {config['mosaic']['downsample']} makes fields of {height} x {width} pixels out of "
        f"{shape[0]} x {shape[1]}, but the network '{network.architecture}' needs {needed} and will refuse them; "
        "lower it or choose another model.architecture"
    ]


def _cell_size_warnings(plates: pd.DataFrame, layout: pd.DataFrame, config: Mapping[str, Any]) -> list[str]:
    """Return whether a factor that was given makes cells too small or too large, from a few fields' pixels."""
    factor = config["mosaic"]["downsample"]
    if factor == "auto":
        return []
    # torch takes seconds to import and is needed only here.
    from wscnn.preflight.scale import given_factor_warning

    return given_factor_warning(factor, plates, layout, config["acquisition"], config["model"])


def _results_problems(results: Path) -> list[str]:
    """Return why nothing can be written to the folder of the screen's results."""
    try:
        nearest = next(folder for folder in (results, *results.parents) if folder.exists())
        if not nearest.is_dir():
            return [f"results: {nearest} is a file, but the results go to the folder {results}; give another folder"]
        if not os.access(nearest, os.W_OK | os.X_OK):
            return [f"results: {nearest} may not be written to, but the results go to {results}; give another folder"]
    except OSError as error:
        return [f"results: {results} cannot be a folder ({error.strerror}); give another one"]
    return []


def _header_problems(where: str, acquisition: Acquisition, present: pd.DataFrame) -> list[str]:
    """Return what is wrong with the first image of each channel, by its header."""
    if isinstance(acquisition, _PutAway):
        return []
    problems: list[str] = []
    seen: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
    for row in present.drop_duplicates("channel").to_dict("records"):
        try:
            seen[str(row["channel"])] = acquisition.inspect(Path(row["path"]), int(row["page"]))
        except UserError as error:
            problems += [f"{where}: {problem}" for problem in error.problems]
    if len(set(seen.values())) > 1:
        kinds = ", ".join(f"{name} {shape[0]} x {shape[1]} {dtype}" for name, (shape, dtype) in seen.items())
        problems.append(
            f"{where}: the channels' images differ in size or type ({kinds}); list channels that agree in "
            "acquisition.channels, or export them alike"
        )
    return problems


def _counts(table: pd.DataFrame, acquisition: Acquisition, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return how many rows, wells, fields and images of a plate will be staged, and where the first image is."""
    staged = choose(table, settings["z"], settings["time"], acquisition.projection)
    wells = staged["well"].unique()
    return {
        "rows": len({parse_well(well)[0] for well in wells}),
        "wells": len(wells),
        "fields": len(staged[["well", "field"]].drop_duplicates()),
        "images": len(staged),
        "path": next(iter(staged["path"]), ""),
        "page": next(iter(staged["page"]), 0),
    }


def _missing(present: pd.DataFrame) -> dict[str, list[int]]:
    """Return, by well, which of the fields that most wells of the plate have are missing."""
    fields = {well: found for (well,), found in sets_by(present, ["well"], "field").items()}
    counts = Counter(fields.values())
    # Where two sets are equally common, the larger is the plan and the smaller what came of it.
    usual: frozenset[int] = max(counts, key=lambda found: (counts[found], len(found)), default=frozenset())
    return {well: sorted(usual - fields[well]) for well in sorted(fields, key=parse_well) if usual - fields[well]}


def _discovery_problems(layout: pd.DataFrame, config: Mapping[str, Any]) -> list[str]:
    """Return why cells unlike those of negative controls cannot be looked for."""
    if config["discovery"]["method"] == "none":
        return []
    problems = []
    path = config["layout"]
    if config["model"]["checkpoint"] is not None:
        problems.append(
            "discovery.method: needs an encoder that learns from this screen, but model.checkpoint applies a model of "
            "another one; set one of them to none"
        )
    if config["hits"]["normalize"] == "control_percent":
        problems.append(
            "hits.normalize: control_percent needs positive controls, which discovery.method has none of; use auto"
        )
    named = sorted(set(layout.loc[layout["role"] == "positive", "phenotype"]) & set(DISCOVERED))
    if named:
        problems.append(f"{path}: phenotype {listed(named)} is a name that discovery.method uses; rename it")
    # Plates with a sample, each needs its own negative controls.
    negatives = layout["role"].eq("negative").groupby(layout["plate"]).sum()
    sampled = layout["role"].eq("sample").groupby(layout["plate"]).any()
    few = negatives[sampled & (negatives < LEAST_NEGATIVES)]
    if len(few):
        names = listed((f"'{plate}' ({n})" for plate, n in few.items()), 5)
        problems.append(
            f"{path}: discovery.method compares wells with negative controls of their own plate, held out in three "
            f"parts of two wells or more, but fewer than {LEAST_NEGATIVES} wells have role negative on plate {names}; "
            "mark more negative controls, or leave out these plates"
        )
    return problems


def _training_problems(layout: pd.DataFrame, path: str, discovers: bool = False) -> list[str]:
    """Return which classes have too few control wells to train on; with `discovers`, there need not be any."""
    if discovers and not layout["role"].eq("positive").any():
        return []
    counts = {"negative": int((layout["role"] == "negative").sum())}
    counts |= Counter(sorted(layout.loc[layout["role"] == "positive", "phenotype"]))
    problems = [
        f"{path}: {count} well{'s' if count != 1 else ''} of class {name}, but three folds need at least "
        f"{MIN_CONTROLS}; add control wells, or apply a trained model (model.checkpoint)"
        for name, count in counts.items()
        if count < MIN_CONTROLS
    ]
    if len(counts) == 1:
        problems.append(
            f"{path}: no well has role positive, so there is no phenotype to learn; "
            "mark the positive controls, apply a trained model (model.checkpoint), or look for cells unlike those of "
            "negative controls (discovery.method: novelty)"
        )
    return problems


def _network_problems(layout: pd.DataFrame | None, config: Mapping[str, Any]) -> list[str]:
    """Return why no network can be trained as the sections ``model`` and ``train`` say, whatever the layout if None."""
    model, train, staged = config["model"], config["train"], list(config["acquisition"]["channels"].values())
    channels = staged if model["channels"] is None else model["channels"]
    problems = [
        f"model.channels: '{name}' is none of the channels {', '.join(staged)} in acquisition.channels; correct it"
        for name in channels
        if name not in staged
    ]
    phenotypes = [] if layout is None else sorted(set(layout.loc[layout["role"] == "positive", "phenotype"]))
    classes = ["negative", *phenotypes]
    if layout is not None and not phenotypes:
        return problems  # that there is nothing to learn is a problem of its own, or none where cells are discovered
    if (
        all(train[key] is None for key in ("batch", "crop", "tiles", "patience", "start_from"))
        and train["preset"] == "default"
        and (model["pool"] == "noisy_or" or model["architecture"] != "encoder")
        and not train["freeze"]
        and train["gpus"] == 1
        and len(classes) <= train["max_fields"]
    ):
        return problems
    # torch takes seconds to import and is needed only here.
    from wscnn.training.start import start_network

    # Problems that all three folds share are reported once.
    found: dict[str, str] = {}
    for fold in range(N_FOLDS):
        try:
            start_network(model, train, len(channels), classes, fold)
        except UserError as error:
            for problem in error.problems:
                found.setdefault(problem.replace(f"fold-{fold}", ""), problem)
    return problems + list(found.values())


def _pixel_size_problems(pixel_sizes: Mapping[str, float | None]) -> list[str]:
    """Return which plates cannot be trained on with the first, for another size of a raw pixel (um, by plate)."""
    known = [(plate, size) for plate, size in pixel_sizes.items() if size is not None]
    odd = [f"'{plate}' ({size:g} um)" for plate, size in known if not same_pixel_size(size, known[0][1])]
    if not odd:
        return []
    first, size = known[0]
    return [
        f"plate {listed(odd)}: a raw pixel has another size than on plate '{first}' ({size:g} um); plates that are "
        "trained on together need one pixel size: make them a screen of their own"
    ]


def _recipe_warnings(config: Mapping[str, Any]) -> list[str]:
    """Return which settings make the preset ``paper`` differ from the paper."""
    model = config["model"]
    paper = {"architecture": ("wscnn4", "wscnn4_cells", "wscnn6"), "pool": ("max", "avg", "fc")}
    other = [
        f"model.{key} is {model[key]}, not {' or '.join(names)}"
        for key, names in paper.items()
        if model[key] not in names
    ]
    if config["train"]["preset"] != "paper" or not other:
        return []
    return [f"train.preset: paper trains as the paper did, but another network than the paper's: {'; '.join(other)}"]


def _normalisation_problems(layout: pd.DataFrame, config: Mapping[str, Any]) -> list[str]:
    """Return which plates lack the controls that their scores are normalised by."""
    method = config["hits"]["normalize"]
    needed = {"none": [], "control_percent": ["negative", "positive"]}.get(method, ["negative"])
    roles = layout.groupby("plate")["role"].agg(set)
    return merged(
        (
            role,
            f"{config['layout']}: plate '{plate}' has no well with role {role}, against which its scores are "
            f"normalised (hits.normalize: {method}); mark its {role} controls",
            f"plate '{plate}'",
        )
        for role in needed
        for plate, there in roles.items()
        if role not in there
    )


def _ignored(config: Mapping[str, Any]) -> list[str]:
    """Return which settings have no effect beside others."""
    settings = config["acquisition"]
    return [
        f"acquisition.{key} has no effect with acquisition.format: {settings['format']}"
        for key in ("pattern", "table")
        if settings[key] and settings["format"] not in ("auto", key)
    ]


def _model_problems(config: Mapping[str, Any], pixel_sizes: set[float]) -> list[str]:
    """Return why the trained model that the config names cannot be applied to this screen."""
    # torch takes seconds to import and is needed only here.
    from wscnn.network.weights import check_fits, load_folds
    from wscnn.preflight.scale import factor_of_card

    folder = Path(config["model"]["checkpoint"])
    channels = list(config["acquisition"]["channels"].values())
    sizes: list[float | None] = [*sorted(pixel_sizes)] or [None]
    problems: list[str] = []
    try:
        _, card = load_folds(folder)[0]
        for size in sizes:
            factor = config["mosaic"]["downsample"]
            if factor == "auto":
                factor = factor_of_card(card, size) or FALLBACK
            mosaic_size = None if size is None else size * factor
            check_fits(card, channels, mosaic_size, "this screen")
    except UserError as error:
        problems += error.problems
    return problems
