"""A results folder as a finished screen leaves it, made up, and the browser that its report is opened in."""

import json
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter
from scipy.special import expit

from wscnn.core.config import section
from wscnn.core.tables import FIELDS, OBJECTS, WELLS, conform, read_table, write_table
from wscnn.core.wells import PLATE_FORMATS, well_name
from wscnn.plates.store import Channel, Plate, PlateWriter
from wscnn.statistics.hits import call_hits

CHROMIUM = Path("/usr/bin/chromium")
#: Names that would break a page that writes them as HTML, script or SVG, or a spreadsheet that computes them.
HOSTILE = [
    "<script>alert(1)</script>",
    "\"quoted\" & 'single' </script><img src=x onerror=alert(2)>",
    "ünïcode µ π 细胞 🔬",
    "long " * 40,
    "={{ 7 * 7 }} ${7*7} __proto__",
]
#: How hits are called in all these screens.
# A plate whose controls do not separate is kept out.
CALLING = section("hits", '{"min_auc": 0.7}')
FIELD = 96
PHENOTYPE = "mitotic"
SCREEN = "made-up <b>screen</b>"


def make_results(
    folder: Path,
    n_plates: int,
    n_wells: int,
    staged: Container[int] = (),
    phenotypes: tuple[str, ...] = (PHENOTYPE,),
) -> Path:
    """Return a results folder as a finished screen leaves it; every tenth perturbation acts.

    Of the plates whose numbers (from 0) are in `staged` there are images.
    """
    generator = np.random.default_rng(0)
    rows, columns = PLATE_FORMATS[n_wells]
    plates = [f"P{number:03d}" for number in range(n_plates)]
    layout = pd.DataFrame(
        [(plate, well_name(r, c), r, c) for plate in plates for r in range(rows) for c in range(columns)]
    )
    layout.columns = ["plate", "well", "well_row", "well_column"]
    role = layout["well_column"].map({0: "negative", 1: "negative", columns - 1: "positive"}).fillna("sample")
    compound = layout["well_row"] * columns + layout["well_column"] + layout["plate"].map(plates.index) // 2 * n_wells
    layout["perturbation"] = np.where(role == "sample", "compound " + compound.astype("str"), role + " control")
    for number, name in enumerate(HOSTILE):
        layout.loc[(layout["well_row"] == 1) & (layout["well_column"] == 2 + number), "perturbation"] = name
    layout = layout.assign(role=role, batch="1")
    acts = (role == "sample") & (compound % 10 == 3)
    scored = {name: _wells(layout, acts, name, generator) for name in phenotypes}
    for plate in plates:
        wells = pd.concat([table[table["plate"] == plate] for table in scored.values()])
        write_table(conform(wells, WELLS)[list(WELLS)], folder / "wells" / f"{plate}.parquet")
    layout["phenotype"] = np.where(role == "positive", phenotypes[0], "")
    write_table(layout, folder / "layout.parquet")
    call_hits(
        [folder / "wells" / f"{plate}.parquet" for plate in plates],
        folder / "layout.parquet",
        folder,
        hits=CALLING,
    )
    wells = read_table(folder / "wells.parquet")
    _model(folder / "model", phenotypes)
    for number, plate in enumerate(plates):
        on_plate = wells[wells["plate"] == plate]
        objects = _objects(on_plate, generator)
        write_table(_fields(on_plate, generator), folder / "fields" / f"{plate}.parquet")
        write_table(objects, folder / "objects" / f"{plate}.parquet")
        qc = on_plate[on_plate["phenotype"] == phenotypes[0]][["plate", "well"]].assign(
            field=0, used=True, flags="", n_cells=40.0
        )
        qc.loc[qc.index[:1], ["used", "flags"]] = [False, "out_of_focus"]
        write_table(pd.concat([qc, qc.assign(field=1)]), folder / "qc" / f"{plate}.parquet")
        if number in staged:
            _plate_images(folder / "plates" / f"{plate}.zarr", plate, on_plate, objects, generator)
    return folder


def _wells(layout: pd.DataFrame, acts: pd.Series, phenotype: str, generator: np.random.Generator) -> pd.DataFrame:
    strength = np.where(layout["role"] == "positive", 8.0, np.where(acts, 4.0, 0.0))
    z = generator.normal(strength, 1)
    control = layout["role"].ne("sample")
    table = layout.assign(
        screen=SCREEN,
        phenotype=phenotype,
        n_fields=4,
        n_fields_used=generator.integers(2, 5, len(layout)),
        score=z * 0.7 - 4,
        score_sd=0.2,
        score_max=z,
        fraction_positive_fields=0.1,
        n_objects=generator.poisson(1 + strength),
        object_area_fraction=0.01,
        n_cells=generator.poisson(150, len(layout)),
        cell_intensity=np.nan,
        fold=pd.Series(np.where(control, layout["well_row"] % 3, np.nan)),
        why_no_score="",
    )
    # On the third plate the controls do not separate, and two negative wells hold what they should not.
    failed = (table["plate"] == "P002") & table["role"].eq("positive")
    table.loc[failed, "score"] = generator.normal(-4, 0.7, failed.sum())
    table.loc[(table["plate"] == "P002") & table["well"].isin(["A01", "B01"]), "score"] = 2.0
    return table


def _fields(wells: pd.DataFrame, generator: np.random.Generator) -> pd.DataFrame:
    four = wells.loc[wells.index.repeat(4)]
    score = four["score"] + generator.normal(0, 1, len(four))
    fields = four.assign(field=np.tile(range(4), len(wells)), used=True, score=score, probability=expit(score + 2))
    return conform(fields.assign(object_area_px=0), FIELDS)[list(FIELDS)]


def _objects(wells: pd.DataFrame, generator: np.random.Generator) -> pd.DataFrame:
    objects = []
    for well in wells.itertuples():
        for number in range(well.n_objects):
            field = int(generator.integers(4))
            y, x = generator.integers(12, FIELD - 12, 2) + np.array(divmod(field, 2)) * FIELD
            score = well.score + generator.normal()
            objects.append(
                (well.plate, well.well, field, well.phenotype, number + 1, y, x, y - 7, x - 7, y + 8, x + 8, 150, score)
            )
    return conform(pd.DataFrame(objects, columns=list(OBJECTS)), OBJECTS)


def _plate_images(
    path: Path, name: str, wells: pd.DataFrame, objects: pd.DataFrame, generator: np.random.Generator
) -> None:
    """Write a plate of 2 x 2 fields: dim round cells everywhere, a bright one with mask and saliency at each object."""
    names = sorted(wells["well"].unique())
    writer = PlateWriter(path, name, names, [Channel("DNA", "00FFFF", (200.0, 3000.0))], 0.65)
    corners = {"y": [0, 0, FIELD, FIELD], "x": [0, FIELD, 0, FIELD]}
    fields = pd.DataFrame({"field": range(4), **corners, "height": FIELD, "width": FIELD})
    for well in names:
        own = objects[objects["well"] == well]
        dim, bright = np.zeros((2, 2 * FIELD, 2 * FIELD))
        dim[tuple(generator.integers(0, 2 * FIELD, (2, 60)))] = 90_000
        bright[own["y"].astype(int), own["x"].astype(int)] = 200_000
        image = gaussian_filter(dim, 4) + gaussian_filter(bright, (2.5, 5)) + generator.normal(300, 30, dim.shape)
        mask = gaussian_filter(bright, (2.5, 5)) > 500
        writer.write_well(well, image.clip(0, 65535).astype(np.uint16)[None], fields, (FIELD, FIELD))
        for phenotype in wells["phenotype"].unique():
            plate = Plate(path)
            plate.write_labels(
                well, {phenotype: mask.astype(np.uint16), f"{phenotype}_saliency": mask.astype(np.uint8) * 200}
            )


def _model(folder: Path, phenotypes: tuple[str, ...]) -> None:
    folder.mkdir(parents=True)
    for fold in range(3):
        card: dict[str, Any] = {
            "architecture": "wscnn4",
            "pool": "noisy_or",
            "score_pool": "topk",
            "parts": {},
            "channels": ["DNA"],
            "pixel_size_um": 0.65,
            "screen": SCREEN,
        }
        card |= {"classes": ["negative", *phenotypes], "fold": fold}
        card["thresholds"] = {phenotype: {"field": 0.0, "place": 0.0} for phenotype in phenotypes}
        # Of the network's own scores: those in the tables are on a scale common to the folds.
        card["probabilities"] = {phenotype: {"slope": 1.0 + fold, "offset": 5.0 * fold} for phenotype in phenotypes}
        (folder / f"fold-{fold}.json").write_text(json.dumps(card))
        step = np.arange(10, 210, 10)
        history = pd.DataFrame(
            {
                "step": step,
                "loss": np.exp(-step / 80) + fold / 50,
                "select_auc": 1 - 0.5 * np.exp(-step / (60 + 9 * fold)),
                "best": True,
            }
        )
        write_table(history, folder / f"history-{fold}.parquet")


@contextmanager
def chromium() -> Iterator[Any]:
    """Yield a headless browser that asks the network for nothing of its own."""
    from playwright.sync_api import sync_playwright

    quiet = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-sync", *quiet],
        )
        yield browser
        browser.close()


@dataclass
class Opened:
    """A page and what it complained about or asked for."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def open_report(browser: Any, path: Path) -> Opened:
    opened = Opened(browser.new_page(viewport={"width": 1280, "height": 900}))
    opened.page.on("console", lambda message: opened.complaints.append(message.text))
    opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.page.on("dialog", lambda dialog: opened.complaints.append(f"dialog {dialog.message}"))
    opened.page.on("request", lambda request: opened.requests.append(request.url))
    opened.page.goto(path.as_uri())
    opened.page.wait_for_selector("html[data-ready=yes]", timeout=60_000)
    return opened
