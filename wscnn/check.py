"""Before anything runs: do config, tables and file names agree? All problems are found at once."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from wscnn.acquisitions import open_acquisition
from wscnn.acquisitions.base import Acquisition, entry_is
from wscnn.claim import claim_problems
from wscnn.config import controls as control_wells
from wscnn.config import load_config, load_layout, load_plates
from wscnn.errors import UserError
from wscnn.fields import same_pixel_size
from wscnn.hits import HITS, SUSPECTS, reachable
from wscnn.index import choose, duplicates
from wscnn.progress import log, progress
from wscnn.tables import read_table, write_table
from wscnn.wells import parse_well, plate_format

T = TypeVar("T")

#: Control wells of a class that three folds need: one to train on, one to select on, one to test on.
MIN_CONTROLS = 3


@dataclass(frozen=True)
class Screen:
    """A screen whose config, tables and file names agree.

    Attributes
    ----------
    config
        Complete with defaults.
    plates
        A row a plate: ``plate, images, batch``.
    layout
        A row a plate and well: ``plate, well, row, column, perturbation, role, phenotype, batch`` and the user's
        further columns; the index is the line of the layout file.
    warnings
        A sentence each about what will run, but perhaps not tell what the user hopes for.
    images
        A row a plate: ``plate``; how many ``rows, wells, fields, images`` will be staged; ``path`` and ``page`` of the
        first image.
    """

    config: dict[str, Any]
    plates: pd.DataFrame
    layout: pd.DataFrame
    warnings: list[str]
    images: pd.DataFrame


def check_screen(config_path: Path) -> Screen:
    """Return the screen that a config file describes; see `check_config`."""
    path = Path(config_path)
    return check_config(load_config(path), [] if path == Path("-") else [path])


def check_config(config: dict[str, Any], configs: Sequence[Path] = ()) -> Screen:
    """Return the screen that a complete config describes, after checking all that can be known from headers and names.

    Parameters
    ----------
    config
        The config, complete with defaults.
    configs
        The config files that it was read from: no other one may have made the screen's results.

    Raises
    ------
    UserError
        With a sentence for every problem found: where it is, what is wrong, what to do.
    """
    problems = claim_problems(Path(config["results"]) / config["screen"], config["screen"], configs)
    plates = _attempt(problems, lambda: load_plates(Path(config["plates"])))
    names = None if plates is None else plates["plate"].tolist()
    layout = _attempt(problems, lambda: load_layout(Path(config["layout"]), names))
    if plates is None or layout is None:
        raise UserError(problems)
    problems += _column_problems(layout, config["layout"])
    layout = _with_batch(layout, plates)
    warnings: list[str] = []
    images = []
    pixel_sizes: dict[str, float | None] = {}
    by_plate = dict(list(layout.groupby("plate")))
    for plate, acquisition, table in _read_names(plates, config, problems):
        rows = by_plate.get(plate, layout.iloc[:0])
        table = table[~table["well"].isin(rows.loc[rows["role"] == "exclude", "well"])]
        found, doubtful = _plate_problems(plate, acquisition, table, rows, config)
        problems += found + _unstaged(plate, rows, config)
        warnings += doubtful
        told = table["pixel_size_um"].astype(float).median()
        pixel_sizes[plate] = config["acquisition"]["pixel_size_um"] if pd.isna(told) else told
        if not found:
            images.append({"plate": plate, **_counts(table, config["acquisition"])})
    if config["model"]["checkpoint"] is None:
        problems += _training_problems(layout, config["layout"])
        problems += _network_problems(layout, config)
        problems += _pixel_size_problems(pixel_sizes)
        warnings += _recipe_warnings(config)
    else:
        problems += _model_problems(config, {size for size in pixel_sizes.values() if size is not None})
    problems += _normalisation_problems(layout, config)
    if problems:
        raise UserError(problems)
    return Screen(config, plates, layout, warnings + _layout_warnings(layout, config), pd.DataFrame(images))


def write_screen(screen: Screen, layout: Path, controls: Path) -> None:
    """Write the screen's layout, and its control wells by themselves, as Parquet files.

    Training depends on the control wells alone: a mended name of a sample does not ask for a new model.
    """
    write_table(screen.layout, layout)
    write_table(control_wells(screen.layout), controls)


def _attempt(problems: list[str], load: Callable[[], T]) -> T | None:
    """Return what `load` returns, or None after noting the problems that it raises."""
    try:
        return load()
    except UserError as error:
        problems += error.problems
        return None


def _with_batch(layout: pd.DataFrame, plates: pd.DataFrame) -> pd.DataFrame:
    """Return the layout with the plate's batch after its own columns, before the user's further ones."""
    layout = layout.copy()
    layout.insert(
        list(layout.columns).index("phenotype") + 1, "batch", layout["plate"].map(plates.set_index("plate")["batch"])
    )
    return layout


def _column_problems(layout: pd.DataFrame, path: str) -> list[str]:
    """Return which of the user's further columns could not stand beside the results' own."""
    own = list(layout.columns)[list(layout.columns).index("phenotype") + 1 :]
    taken = [name for name in own if name in HITS or name in SUSPECTS or name in ("used", "control_phenotype")]
    if not taken:
        return []
    return [f"{path}: column {', '.join(taken)}: the results have columns of that name; rename it"]


class _PutAway(Acquisition):
    """A folder that is gone: of a plate that was staged before, its index tells which images there were."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        super().__init__(folder, config["acquisition"])
        self.results = Path(config["results"]) / config["screen"]

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        # Of a path that cannot be looked at `open_acquisition` tells why.
        return entry_is(lambda: not folder.exists())

    def files(self, plate: str) -> pd.DataFrame:
        index = self.results / "index" / f"{plate}.parquet"
        if not (index.is_file() and (self.results / "plates" / f"{plate}.json").is_file()):
            raise UserError(f"{self.folder}: no such folder; mend column images in the table of plates")
        log(f"plate '{plate}': {self.folder} is gone; the plate is used as it was staged")
        return read_table(index)


def _open(images: Path, config: Mapping[str, Any]) -> Acquisition:
    """Return the reader of a folder, be it there or not."""
    return _PutAway(images, config) if _PutAway.recognises(images) else open_acquisition(images, config["acquisition"])


def _read_names(
    plates: pd.DataFrame, config: Mapping[str, Any], problems: list[str]
) -> Iterable[tuple[str, Acquisition, pd.DataFrame]]:
    """Yield each plate with its reader and the table of its files; note what cannot be read."""
    first_seen: dict[str, str] = {}
    # Plates that share a folder share its listing.
    order = sorted(zip(plates["images"], plates["plate"], strict=True), key=lambda pair: pair[0])
    before, acquisition = None, None
    for images, plate in progress(order, len(order), "plates checked"):
        try:
            if images != before:
                before, acquisition = images, None
                acquisition = _open(Path(images), config)
            if acquisition is None:
                continue
            table = acquisition.files(plate)
        except UserError as error:
            problems += [f"plate '{plate}': {problem}" for problem in error.problems]
            continue
        if table.empty:
            problems.append(
                f"plate '{plate}': {images} has no image of the channels in acquisition.channels; "
                f"the instrument's channels here are {_listed(sorted(acquisition.unlisted))}"
            )
            continue
        other = first_seen.setdefault(table["path"].iloc[0], plate)
        if other != plate:
            problems.append(
                f"plates '{other}' and '{plate}' have the same images, in {images}; give each its own folder, or let "
                "the group (?P<plate>...) in acquisition.pattern tell them apart"
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
        staged = choose(table, settings["z"], settings["time"])
    except ValueError as error:
        return [*problems, f"{where}: {acquisition.folder}: {error}; correct it"], []
    keys = {name: key for key, name in settings["channels"].items()}
    absent = [name for name in keys if name not in set(staged["channel"])]
    for name in absent:
        problems.append(
            f"{where}: {acquisition.folder} has no image of channel {name} ('{keys[name]}' in acquisition.channels); "
            f"unlisted channels there are {_listed(sorted(acquisition.unlisted))}"
        )
    imaged: set[str] = set(staged["well"])
    known = set(rows["well"])
    wanted = rows[rows["role"] != "exclude"]
    lacking = wanted[~wanted["well"].isin(imaged)]
    if len(lacking):
        wells = _listed(f"{well} (line {line})" for line, well in lacking["well"].items())
        problems.append(
            f"{layout_path}: {where}: no image of well {wells} in {acquisition.folder}; "
            "copy the images there, or give the wells role exclude"
        )
    if unknown := sorted(imaged - known, key=parse_well):
        problems.append(
            f"{layout_path}: {where}: no row for well {_listed(unknown)}, of which there are images in "
            f"{acquisition.folder}; add rows (role exclude leaves wells out)"
        )
    present = staged[staged["well"].isin(set(wanted["well"]))]
    missing, incomplete = _missing(present, [name for name in keys if name not in absent])
    lines = dict(zip(wanted["well"], wanted.index, strict=True))
    for well, fields in incomplete.items():
        problems.append(
            f"{where}, well {well} ({layout_path}, line {lines[well]}): "
            + "; ".join(f"field {field} has no channel {_listed(names)}" for field, names in fields.items())
            + f"; copy the images to {acquisition.folder}, or give the well role exclude"
        )
    sentences = [
        f"{where}, well {well} ({layout_path}, line {lines[well]}): field {_listed(fields)} is missing in "
        f"{acquisition.folder}"
        for well, fields in missing.items()
    ]
    if settings["missing_fields"] == "accept":
        return problems, sentences
    advice = "copy the images there, give the well role exclude, or set acquisition.missing_fields to accept"
    return problems + [f"{sentence}; {advice}" for sentence in sentences], []


def _unstaged(plate: str, rows: pd.DataFrame, config: Mapping[str, Any]) -> list[str]:
    """Return which wells are wanted now but were excluded when the plate was staged: no rule would stage them."""
    results = Path(config["results"]) / config["screen"]
    manifest = results / "plates" / f"{plate}.json"
    if not manifest.is_file():
        return []
    try:
        staged = set(json.loads(manifest.read_bytes())["wells"])
    except (OSError, ValueError, KeyError, TypeError):
        return [f"{manifest}: not a readable list of what was staged; delete it, and the plate is staged again"]
    late = [well for well in rows.loc[rows["role"] != "exclude", "well"] if well not in staged]
    if not late:
        return []
    return [
        f"plate '{plate}': well {_listed(late)} was excluded when the plate was staged; "
        f"delete {results / 'index' / plate}.parquet, and the plate is staged again"
    ]


def _counts(table: pd.DataFrame, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return how many rows, wells, fields and images of a plate will be staged, and where the first image is."""
    staged = choose(table, settings["z"], settings["time"])
    wells = set(staged["well"])
    return {
        "rows": len({parse_well(well)[0] for well in wells}),
        "wells": len(wells),
        "fields": len(set(zip(staged["well"], staged["field"], strict=True))),
        "images": len(staged),
        "path": next(iter(staged["path"]), ""),
        "page": next(iter(staged["page"]), 0),
    }


def _missing(
    present: pd.DataFrame, channels: list[str]
) -> tuple[dict[str, list[int]], dict[str, dict[int, list[str]]]]:
    """Return what wells lack of the fields that most wells of the plate have, and of the channels.

    Returns
    -------
    tuple
        Missing fields by well; missing channels by well and field.
    """
    images: dict[str, dict[int, set[str]]] = {}
    for well, field, channel in present[["well", "field", "channel"]].to_numpy(object).tolist():
        images.setdefault(well, {}).setdefault(field, set()).add(channel)
    counts = Counter(frozenset(fields) for fields in images.values())
    # Where two sets are equally common, the larger is the plan and the smaller what came of it.
    usual = max(counts, key=lambda fields: (counts[fields], len(fields)), default=frozenset())
    missing, incomplete = {}, {}
    for well in sorted(images, key=parse_well):
        if usual - set(images[well]):
            missing[well] = sorted(usual - set(images[well]))
        lacks = {
            field: [name for name in channels if name not in found]
            for field, found in sorted(images[well].items())
            if len(found) < len(channels)
        }
        if lacks:
            incomplete[well] = lacks
    return missing, incomplete


def _training_problems(layout: pd.DataFrame, path: str) -> list[str]:
    """Return which classes have too few control wells to train on."""
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
            "mark the positive controls, or apply a trained model (model.checkpoint)"
        )
    return problems


def _network_problems(layout: pd.DataFrame, config: Mapping[str, Any]) -> list[str]:
    """Return why no network can be trained as the sections ``model`` and ``train`` say."""
    model, train, staged = config["model"], config["train"], list(config["acquisition"]["channels"].values())
    channels = staged if model["channels"] is None else model["channels"]
    problems = [
        f"model.channels: '{name}' is none of the channels {', '.join(staged)} in acquisition.channels; correct it"
        for name in channels
        if name not in staged
    ]
    if train["crop"] is None and train["start_from"] is None and not train["freeze"]:
        return problems
    # torch takes seconds to import, and only this needs it.
    from wscnn.train import NEGATIVE, start_network

    classes = [NEGATIVE, *sorted(set(layout.loc[layout["role"] == "positive", "phenotype"]))]
    for fold in range(3):
        try:
            start_network(model, train, len(channels), classes, fold)
        except UserError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    return problems


def _pixel_size_problems(pixel_sizes: Mapping[str, float | None]) -> list[str]:
    """Return which plates cannot be trained on with the first, for another size of a raw pixel (um, by plate)."""
    known = [(plate, size) for plate, size in pixel_sizes.items() if size is not None]
    odd = [f"'{plate}' ({size:g} um)" for plate, size in known if not same_pixel_size(size, known[0][1])]
    if not odd:
        return []
    first, size = known[0]
    return [
        f"plate {_listed(odd)}: a raw pixel has another size than on plate '{first}' ({size:g} um); plates that are "
        "trained on together need one pixel size: make them a screen of their own"
    ]


def _recipe_warnings(config: Mapping[str, Any]) -> list[str]:
    """Return what keeps the preset ``paper`` from being the paper's way."""
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
    """Return which plates have no negative control to be normalised against."""
    if config["hits"]["normalize"] == "none":
        return []
    negative = set(layout.loc[layout["role"] == "negative", "plate"])
    return [
        f"{config['layout']}: plate '{plate}' has no well with role negative, against which its scores are normalised "
        f"(hits.normalize: {config['hits']['normalize']}); mark its negative controls"
        for plate in layout["plate"].unique()
        if plate not in negative
    ]


def _model_problems(config: Mapping[str, Any], pixel_sizes: set[float]) -> list[str]:
    """Return why the trained model that the config names cannot be applied to this screen."""
    # torch takes seconds to import, and only this needs it.
    from wscnn.model import check_fits, load_folds

    folder = Path(config["model"]["checkpoint"])
    channels = list(config["acquisition"]["channels"].values())
    sizes: list[float | None] = [*sorted(pixel_sizes)] or [None]
    problems: list[str] = []
    try:
        _, card = load_folds(folder)[0]
        for size in sizes:
            mosaic_size = None if size is None else size * config["mosaic"]["downsample"]
            check_fits(card, channels, mosaic_size, "this screen")
    except UserError as error:
        problems += error.problems
    return problems


def _layout_warnings(layout: pd.DataFrame, config: Mapping[str, Any]) -> list[str]:
    """Return what the layout makes hard to tell."""
    statistics = [f"{config['layout']}: {warning}" for warning in reachable(layout, config["hits"])]
    return [*statistics, *_replicate_warnings(layout, config), *_edge_warnings(layout, config)]


def _replicate_warnings(layout: pd.DataFrame, config: Mapping[str, Any]) -> list[str]:
    counts = layout.loc[layout["role"] == "sample", "perturbation"].value_counts()
    single = int((counts == 1).sum())
    if not single:
        return []
    return [
        f"{config['layout']}: {single} of {len(counts)} perturbations have one well only; "
        "without replicates a bad well cannot be told from a hit"
    ]


def _edge_warnings(layout: pd.DataFrame, config: Mapping[str, Any]) -> list[str]:
    """Return which classes of controls lie at the plate's left and right edges alone."""
    widths = {
        plate: plate_format(list(zip(rows["well_row"], rows["well_column"], strict=True)))[1]
        for plate, rows in layout.groupby("plate")
    }
    from_right = layout["plate"].map(widths) - 1 - layout["well_column"]
    at_edge = (layout["well_column"] < 2) | (from_right < 2)
    classes = layout["phenotype"].where(layout["role"] == "positive", layout["role"])
    warnings = []
    for name in sorted(set(classes[layout["role"].isin(["negative", "positive"])])):
        of_class = (classes == name) & layout["role"].isin(["negative", "positive"])
        if at_edge[of_class].all():
            warnings.append(
                f"{config['layout']}: all control wells of class {name} lie in the two outermost columns of a side: "
                "what the plate's edge does to cells may pass for the phenotype; see the plate heat maps of the report"
            )
    return warnings


def _listed(items: Iterable[object]) -> str:
    """Return items in words, the first ten where there are many."""
    every = [str(item) for item in items]
    if len(every) > 10:
        return f"{', '.join(every[:10])} and {len(every) - 10} more"
    return ", ".join(every) or "none"
