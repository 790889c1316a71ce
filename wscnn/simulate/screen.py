"""A whole screen with known truth: plates of images, their tables, a config, and the expected hits."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from os import cpu_count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import tifffile

from wscnn.core.atomic import atomic_path
from wscnn.core.errors import UserError
from wscnn.core.progress import progress
from wscnn.core.tables import conform, write_table
from wscnn.core.wells import PLATE_FORMATS, check_name, well_name
from wscnn.simulate import check_new
from wscnn.simulate.cells import NUCLEI_PHENOTYPES, CellBank, Mixed, Nuclei, check_groups, check_phenotypes
from wscnn.simulate.fields import FAULTS, Optics, compose, expose, optics
from wscnn.simulate.micronuclei import MICRONUCLEI_PHENOTYPES, MicronucleatedNuclei
from wscnn.simulate.multinucleate import MULTINUCLEATE_PHENOTYPES, MultinucleateCells


class Kind(NamedTuple):
    """A kind of cells, and the properties of a screen of them."""

    bank: type[Nuclei] | type[MultinucleateCells] | type[MicronucleatedNuclei]
    phenotypes: dict[str, tuple[str, ...]]  # the possible rare phenotypes, and the classes of cells that count as each
    channel: str
    nuclei: str = "DNA"  # channel in which nuclei are counted
    pixel_size_um: str = "null"
    downsample: str = "auto"
    settings: dict[str, Any] = {}  # noqa: RUF012 - where they differ from the defaults of `ScreenSettings`


#: By name.
KINDS = {
    # 2 takes a quarter of the time of auto, which chooses 1.
    "nuclei": Kind(Nuclei, NUCLEI_PHENOTYPES, channel="DNA", pixel_size_um="0.645", downsample="2"),
    "multinucleate": Kind(
        MultinucleateCells,
        MULTINUCLEATE_PHENOTYPES,
        channel="cytoplasm",
        nuclei="null",
        pixel_size_um="0.325",
    ),
    # Micronuclei are about five pixels wide; the crops come without a pixel size.
    "micronuclei": Kind(
        MicronucleatedNuclei,
        MICRONUCLEI_PHENOTYPES,
        channel="DNA",
        settings={"size": 270, "prevalence": 0.05, "background": 0.005},
    ),
}

#: One row per cell of the truth; positions in raw pixels of the field, boxes half open.
CELLS = {
    "plate": "str",
    "well": "str",
    "field": "int32",
    "cell": "int32",
    "class": "str",
    "phenotype": "str",
    "rare": "bool",
    "y": "float64",
    "x": "float64",
    "y0": "int32",
    "x0": "int32",
    "y1": "int32",
    "x1": "int32",
    "source": "str",
}

# Plates with room for controls of both roles and for samples.
_FORMATS = [wells for wells in PLATE_FORMATS if wells >= 12]

# Prevalence of the phenotype in hits, relative to that in positive controls: graded between these.
_STRONG = (1.35, 0.85)
_WEAK = (0.5, 0.25)


@dataclass(frozen=True, kw_only=True)
class ScreenSettings:
    """Settings of a simulated screen.

    Parameters
    ----------
    plates, wells, fields
        Plates, wells per plate (12, 24, 48, 96, 384 or 1536) and fields per well.
    size
        Side of a field, pixels.
    cells
        ``nuclei``: real mitotic among interphase nuclei. ``multinucleate``: drawn cells stained in the cytoplasm,
        their nuclei as holes. ``micronuclei``: real nuclei, the rare ones with micronuclei.
    phenotypes
        What is rare: for nuclei ``mitotic``, or one or several of ``prometaphase``, ``metaphase``, ``anaphase``; for
        the other cells ``multinucleate`` or ``micronuclei``. Positive controls and hits are distributed evenly over
        them. Empty: the first named here.
    prevalence
        Fraction of the cells of a positive control that show its phenotype. Strong hits are between 0.85 and 1.35 times
        this, weak ones between 0.25 and 0.5 times.
    background
        Fraction of all other cells that show a phenotype.
    negatives, positives
        Control wells of each role on a plate; None: a sixth of the wells.
    strong, weak
        Numbers of strong and weak hits. Both 0: a null screen.
    replicates
        Wells of each perturbation on a plate; wells left over repeat some perturbations.
    label_noise
        Fraction of the fields of negative controls that hold one extra rare cell.
    nuisance
        Strength of all plate, edge, row, well and field effects: 0 for none, at most 3.
    faults
        Fields over the whole screen that get each of `wscnn.simulate.fields.FAULTS` in turn.
    controls_from, samples_from
        Groups of sources that the cells of control and of sample wells are taken from: ``first`` and ``second`` half
        of the source plates for nuclei, acquisition dates for micronuclei. Where one is empty it gets the groups that
        the other leaves; where both are, only the rare cells are: those of controls from half of the groups, which
        half changes with the seed, those of samples from the other half; ordinary cells come from all.
    seed
        The same settings and seed give the same bytes.

    Raises
    ------
    UserError
        Listing every setting out of range.
    """

    plates: int = 2
    wells: int = 96
    fields: int = 4
    size: int = 540
    cells: str = "nuclei"
    phenotypes: tuple[str, ...] = ()
    prevalence: float = 0.06
    background: float = 0.003
    negatives: int | None = None
    positives: int | None = None
    strong: int = 3
    weak: int = 2
    replicates: int = 4
    label_noise: float = 0.0
    nuisance: float = 1.0
    faults: int = 0
    controls_from: tuple[str, ...] = ()
    samples_from: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        kind = KINDS.get(self.cells)
        if kind is None:
            raise UserError(f"cells: '{self.cells}' is not known; use {' or '.join(KINDS)}")
        object.__setattr__(self, "phenotypes", tuple(self.phenotypes) or (next(iter(kind.phenotypes)),))
        check_phenotypes(self.phenotypes, kind.phenotypes)
        for name in ("controls_from", "samples_from"):
            try:
                check_groups(getattr(self, name), kind.bank.groups)
            except UserError as error:
                raise UserError(f"{name}: {error}") from None
        problems = []
        if self.wells not in _FORMATS:
            problems.append(f"wells: {self.wells}; use one of {', '.join(map(str, _FORMATS))}")
        lowest = {"plates": 1, "fields": 1, "size": 64, "strong": 0, "weak": 0, "replicates": 1, "faults": 0, "seed": 0}
        lowest |= {"negatives": 0, "positives": 0}
        for name, low in lowest.items():
            if (getattr(self, name) or 0) < low:
                problems.append(f"{name}: {getattr(self, name)} is too few; use {low} or more")
        highest = {"prevalence": 1, "background": 1, "label_noise": 1, "nuisance": 3}
        for name, high in highest.items():
            if not 0 <= getattr(self, name) <= high:
                problems.append(f"{name}: {getattr(self, name)} is out of range; use a number from 0 to {high}")
        if problems:
            raise UserError(problems)
        if self.n_negatives + self.n_positives >= self.wells:
            raise UserError(
                f"negatives, positives: {self.n_negatives} and {self.n_positives} of {self.wells} wells leave none for "
                "samples; use fewer"
            )
        if self.prevalence * _STRONG[0] + self.background > 1:
            problems.append(f"prevalence: the strongest hit has {_STRONG[0]} times {self.prevalence}; use a lower one")
        if self.strong + self.weak > self.n_perturbations:
            problems.append(
                f"strong, weak: {self.strong} and {self.weak} hits, but {self.wells} wells hold "
                f"{self.n_perturbations} perturbations in {self.replicates} replicates; use fewer hits or replicates, "
                "or more wells"
            )
        n_fields = self.plates * self.wells * self.fields
        if self.faults > n_fields:
            problems.append(f"faults: {self.faults}, but the screen has {n_fields} fields")
        if problems:
            raise UserError(problems)
        controls, samples = _shared_out(kind.bank.groups, self.controls_from, self.samples_from, self.seed)
        object.__setattr__(self, "controls_from", controls)
        object.__setattr__(self, "samples_from", samples)

    @property
    def n_negatives(self) -> int:
        """Negative control wells of a plate."""
        return self.wells // 6 if self.negatives is None else self.negatives

    @property
    def n_positives(self) -> int:
        """Positive control wells of a plate."""
        return self.wells // 6 if self.positives is None else self.positives

    @property
    def n_perturbations(self) -> int:
        """Perturbations on every plate."""
        return max((self.wells - self.n_negatives - self.n_positives) // self.replicates, 1)


def _shared_out(
    groups: tuple[str, ...], controls: tuple[str, ...], samples: tuple[str, ...], seed: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the groups of sources for control and for sample wells (see `ScreenSettings`)."""
    if not controls and not samples:
        halves = list(combinations(groups, len(groups) // 2))
        controls = halves[seed % len(halves)]
    rest = tuple(group for group in groups if group not in (controls or samples))
    if groups and not (controls and samples) and not rest:
        raise UserError("controls_from, samples_from: one names all groups of sources; name those of the other as well")
    return tuple(controls or rest), tuple(samples or rest)


@dataclass(frozen=True)
class _Well:
    """What one well is to show."""

    plate: str
    well: str
    perturbation: str
    role: str
    phenotype: str  # of a positive control
    prevalence: dict[str, float]
    cells_per_field: float
    gain: float
    faults: dict[int, str] = field(default_factory=dict)  # by field
    planted: dict[int, str] = field(default_factory=dict)  # by field: the phenotype of an unexpected cell


def simulate_screen(folder: Path, *, workers: int | None = None, **settings: Any) -> None:
    """Write a screen of simulated fields, ready for `wscnn check` and the workflow, with its truth.

    By default a sixth of each plate's wells are negative and a sixth positive controls; the others hold perturbations,
    each in `replicates` wells of every plate, at positions drawn for each plate. Controls and samples show different
    cells, where the cells have sources. Fields differ as real ones do: in density, stain, background, vignetting and
    noise, by plate, row, edge and well.

    Parameters
    ----------
    folder
        Folder to make. It gets ``config.yaml``, ``plates.tsv``, ``layout.tsv``,
        ``images/<plate>/<plate>_<well>_s<field>_w1.tif`` (uint16), and under ``truth``: ``cells.parquet`` (columns
        `CELLS`), ``hits.tsv`` (perturbation, phenotype, prevalence, hit: none, weak or strong) and ``faults.tsv``
        (plate, well, field, fault). Paths in the tables and the config begin with `folder` as given.
    workers
        Wells simulated in parallel; by default one per core. The files do not depend on it.
    settings
        Those of `ScreenSettings`; where `cells` has other defaults (`Kind.settings`), these.

    Raises
    ------
    UserError
        When a setting is out of range or `folder` exists.
    """
    cells_shown = settings.get("cells", ScreenSettings.cells)
    own = KINDS[cells_shown].settings if cells_shown in KINDS else {}
    chosen = ScreenSettings(**(own | settings))
    check_new(folder)
    try:
        check_name(folder.name)
    except ValueError as error:
        raise UserError(f"{folder}: the screen takes its name, but {error}") from None
    kind = KINDS[chosen.cells]
    controls: CellBank = kind.bank(*chosen.controls_from)
    samples: CellBank = kind.bank(*chosen.samples_from)
    if not (settings.get("controls_from") or settings.get("samples_from")):
        # Negative controls stand for inactive samples, so ordinary cells of both have the same sources.
        controls, samples = (Mixed(kind.bank(), rare) for rare in (controls, samples))
    rng = np.random.default_rng(chosen.seed)
    hits = _draw_hits(rng, chosen)
    plates = [f"plate{i + 1}" for i in range(chosen.plates)]
    light = {plate: optics(rng, chosen.size, chosen.nuisance) for plate in plates}
    wells = [well for plate in plates for well in _draw_plate(rng, chosen, plate, hits, controls.spacing)]
    _plant_faults(rng, chosen, wells)
    with atomic_path(folder) as partial:
        for plate in plates:
            (partial / "images" / plate).mkdir(parents=True)

        def make(number: int) -> pd.DataFrame:
            well = wells[number]
            bank = samples if well.role == "sample" else controls
            rng = np.random.default_rng([chosen.seed, number])
            return _make_well(rng, chosen, well, light[well.plate], bank, partial / "images")

        with ThreadPoolExecutor(workers or cpu_count()) as pool:
            made = progress(pool.map(make, range(len(wells))), len(wells), "wells simulated")
            cells = pd.concat(list(made), ignore_index=True)
        (partial / "truth").mkdir()
        write_table(cells, partial / "truth" / "cells.parquet")
        _write_tsv(hits, partial / "truth" / "hits.tsv")
        faults = [(well.plate, well.well, number, fault) for well in wells for number, fault in well.faults.items()]
        _write_tsv(pd.DataFrame(faults, columns=["plate", "well", "field", "fault"]), partial / "truth" / "faults.tsv")
        images = [(folder / "images" / plate).as_posix() for plate in plates]
        _write_tsv(pd.DataFrame({"plate": plates, "images": images, "batch": "1"}), partial / "plates.tsv")
        layout = ["plate", "well", "perturbation", "role", "phenotype"]
        _write_tsv(pd.DataFrame([vars(well) for well in wells])[layout], partial / "layout.tsv")
        (partial / "config.yaml").write_text(_config(folder, kind), encoding="utf-8")


def _draw_hits(rng: np.random.Generator, settings: ScreenSettings) -> pd.DataFrame:
    """Return one row per perturbation: perturbation, phenotype (empty where it does nothing), prevalence, hit."""
    rows: list[tuple[str, float, str]] = []
    for hit, n, (highest, lowest) in (("strong", settings.strong, _STRONG), ("weak", settings.weak, _WEAK)):
        for part in np.linspace(highest, lowest, n):
            phenotype = settings.phenotypes[len(rows) % len(settings.phenotypes)]
            rows.append((phenotype, round(float(part) * settings.prevalence, 6), hit))
    rows += [("", settings.background, "none")] * (settings.n_perturbations - len(rows))
    # Their order on the plate and in the table carries no information.
    rows = [rows[i] for i in rng.permutation(len(rows))]
    table = pd.DataFrame(rows, columns=["phenotype", "prevalence", "hit"])
    table.insert(0, "perturbation", [f"siRNA{i + 1:03d}" for i in range(len(rows))])
    return table


def _draw_plate(
    rng: np.random.Generator, settings: ScreenSettings, plate: str, hits: pd.DataFrame, spacing: float
) -> Iterator[_Well]:
    """Yield the wells of one plate, row by row: their contents, and the effects of well, row and edge."""
    rows, columns = PLATE_FORMATS[settings.wells]
    none = {phenotype: settings.background / len(settings.phenotypes) for phenotype in settings.phenotypes}
    contents: list[tuple[str, str, str, dict[str, float]]]
    contents = [("scrambled", "negative", "", none)] * settings.n_negatives
    for i in range(settings.n_positives):
        shown = settings.phenotypes[i % len(settings.phenotypes)]
        contents.append((f"{shown}-control", "positive", shown, none | {shown: settings.prevalence}))
    samples = list(zip(hits["perturbation"], hits["phenotype"], hits["prevalence"], strict=True))
    for i in range(settings.wells - len(contents)):
        perturbation, shown, prevalence = samples[i % len(samples)]
        contents.append((perturbation, "sample", "", none | ({shown: prevalence} if shown else {})))
    contents = [contents[i] for i in rng.permutation(settings.wells)]
    planted = _plant_label_noise(rng, settings, [role == "negative" for _, role, _, _ in contents])
    slope = 0.08 * settings.nuisance * rng.normal()
    for i, (perturbation, role, phenotype, chances) in enumerate(contents):
        row, column = divmod(i, columns)
        # Wells at the edge dry out: fewer cells, brighter stain. A dispenser's rows differ steadily.
        edge = settings.nuisance * (row in (0, rows - 1) or column in (0, columns - 1))
        crowd = rng.lognormal(0, 0.12 * settings.nuisance) * (1 - 0.2 * edge)
        gain = (
            rng.lognormal(0, 0.06 * settings.nuisance) * (1 + 0.12 * edge) * np.exp(slope * (2 * row / (rows - 1) - 1))
        )
        yield _Well(
            plate=plate,
            well=well_name(row, column),
            perturbation=perturbation,
            role=role,
            phenotype=phenotype,
            prevalence=chances,
            cells_per_field=(settings.size / spacing) ** 2 * crowd,
            gain=float(gain),
            planted=planted.get(i, {}),
        )


def _plant_label_noise(
    rng: np.random.Generator, settings: ScreenSettings, negative: list[bool]
) -> dict[int, dict[int, str]]:
    """Return, by well and field, the phenotypes planted in a plate's negative controls."""
    positions = [(well, number) for well in np.flatnonzero(negative) for number in range(1, settings.fields + 1)]
    planted: dict[int, dict[int, str]] = {}
    for k, i in enumerate(rng.permutation(len(positions))[: round(settings.label_noise * len(positions))]):
        well, number = positions[i]
        planted.setdefault(well, {})[number] = settings.phenotypes[k % len(settings.phenotypes)]
    return planted


def _plant_faults(rng: np.random.Generator, settings: ScreenSettings, wells: list[_Well]) -> None:
    """Give faults to fields drawn from the whole screen."""
    for i, position in enumerate(rng.choice(len(wells) * settings.fields, settings.faults, replace=False)):
        well, number = divmod(int(position), settings.fields)
        wells[well].faults[number + 1] = FAULTS[i % len(FAULTS)]


def _make_well(
    rng: np.random.Generator, settings: ScreenSettings, well: _Well, light: Optics, bank: CellBank, images: Path
) -> pd.DataFrame:
    """Write the images of one well; return one row per cell, columns `CELLS`."""
    rows: list[dict[str, object]] = []
    for number in range(1, settings.fields + 1):
        fault = well.faults.get(number, "")
        planted = well.planted.get(number, "")
        n_cells = max(rng.poisson(well.cells_per_field * rng.lognormal(0, 0.25 * settings.nuisance)), bool(planted))
        composed = compose(rng, bank, settings.size, 0 if fault == "empty" else n_cells, well.prevalence, planted)
        image = expose(rng, composed.signal, light, well.gain, fault)
        name = f"{well.plate}_{well.well}_s{number}_w1.tif"
        tifffile.imwrite(images / well.plate / name, image, photometric="minisblack", metadata=None)
        where = {"plate": well.plate, "well": well.well, "field": number}
        rows += [where | {"cell": i} | cell for i, cell in enumerate(composed.cells, 1)]
    return conform(pd.DataFrame(rows, columns=list(CELLS)), CELLS)


def _write_tsv(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, sep="\t", index=False, lineterminator="\n")


def _config(folder: Path, kind: Kind) -> str:
    """Return the text of a config as a user would write it."""
    # JSON strings are YAML strings: a folder may be called 2026 or hold a '#'.
    screen, plates, layout = (
        json.dumps(text, ensure_ascii=False, allow_nan=False)
        for text in (folder.name, (folder / "plates.tsv").as_posix(), (folder / "layout.tsv").as_posix())
    )
    return f"""\
# A simulated screen. Paths are relative to the folder that the workflow is started in; every key left out
# has a default (see the docs).

# Results go to <results>/<screen>/.
screen: {screen}
plates: {plates}
layout: {layout}
results: results

acquisition:
  # File names give plate, well, field and channel.
  format: pattern
  pattern: '(?P<plate>[^_]+)_(?P<well>[A-Z]{{1,2}}\\d{{2}})_s(?P<field>\\d+)_w(?P<channel>\\d+)\\.tif'
  # The instrument's channel: its name from here on.
  channels: {{"1": {kind.channel}}}
  # Channel in which nuclei are counted.
  nuclei: {kind.nuclei}
  # Of a raw pixel.
  pixel_size_um: {kind.pixel_size_um}

mosaic:
  # Raw pixels per mosaic pixel, along an axis; auto decides it from the size of the cells.
  downsample: {kind.downsample}

illumination:
  # Vignetting is estimated from each plate's own fields.
  method: retrospective

baseline:
  # Simpler methods that the report shows beside the network.
  methods: [count, forest, novelty]

hits:
  # Scores are compared with each plate's negative controls.
  normalize: auto
  # Fraction of the called hits that may be false.
  fdr: 0.05
"""
