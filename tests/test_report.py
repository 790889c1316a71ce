"""The report of a small made-up screen, read as text and in a real browser."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from wscnn.config import section
from wscnn.errors import UserError
from wscnn.hits import call_hits
from wscnn.report import compact, held_out_roc, replicate_pairs, write_report
from wscnn.results import read_results
from wscnn.store import Channel, Plate, PlateWriter
from wscnn.tables import FIELDS, OBJECTS, WELLS, conform, read_table, write_table
from wscnn.wells import PLATE_FORMATS, parse_well, well_name

CHROMIUM = Path("/usr/bin/chromium")
#: Names that would break a page that writes them as HTML, script or SVG.
HOSTILE = [
    "<script>alert(1)</script>",
    "\"quoted\" & 'single' </script><img src=x onerror=alert(2)>",
    "ünïcode µ π 细胞 🔬",
    "long " * 40,
    "{{ 7 * 7 }} ${7*7} __proto__",
]
#: How hits are called in all these screens.
CALLING = section("hits", "{}")
FIELD = 96
PHENOTYPE = "mitotic"
SCREEN = "made-up <b>screen</b>"


def make_results(
    folder: Path, n_plates: int, n_wells: int, images: bool = True, phenotypes: tuple[str, ...] = (PHENOTYPE,)
) -> Path:
    """Return a results folder as a finished screen leaves it; every tenth perturbation acts."""
    generator = np.random.default_rng(0)
    rows, columns = PLATE_FORMATS[n_wells]
    plates = [f"P{number:03d}" for number in range(n_plates)]
    layout = pd.DataFrame(
        [(plate, well_name(r, c), r, c) for plate in plates for r in range(rows) for c in range(columns)]
    )
    layout.columns = ["plate", "well", "row", "column"]
    role = layout["column"].map({0: "negative", 1: "negative", columns - 1: "positive"}).fillna("sample")
    compound = layout["row"] * columns + layout["column"] + layout["plate"].map(plates.index) // 2 * n_wells
    layout["perturbation"] = np.where(role == "sample", "compound " + compound.astype("str"), role + " control")
    for number, name in enumerate(HOSTILE):
        layout.loc[(layout["row"] == 1) & (layout["column"] == 2 + number), "perturbation"] = name
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
        if images and number != 1:
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
        fold=pd.Series(np.where(control, layout["row"] % 3, np.nan)),
    )
    # On the third plate the controls do not separate, and two negative wells hold what they should not.
    failed = (table["plate"] == "P002") & table["role"].eq("positive")
    table.loc[failed, "score"] = generator.normal(-4, 0.7, failed.sum())
    table.loc[(table["plate"] == "P002") & table["well"].isin(["A01", "B01"]), "score"] = 2.0
    return table


def _fields(wells: pd.DataFrame, generator: np.random.Generator) -> pd.DataFrame:
    four = wells.loc[wells.index.repeat(4)]
    fields = four.assign(
        field=np.tile(range(4), len(wells)), used=True, score=four["score"] + generator.normal(0, 1, len(four))
    )
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
            plate.write_label(well, phenotype, mask.astype(np.uint16))
            plate.write_label(well, f"{phenotype}_saliency", mask.astype(np.uint8) * 200)


def _model(folder: Path, phenotypes: tuple[str, ...]) -> None:
    folder.mkdir(parents=True)
    for fold in range(3):
        card = {
            "architecture": "wscnn4",
            "pool": "noisy_or",
            "channels": ["DNA"],
            "pixel_size_um": 0.65,
            "screen": "made-up",
        }
        card |= {"classes": ["negative", *phenotypes], "fold": fold}
        (folder / f"fold-{fold}.json").write_text(json.dumps(card))
        step = np.arange(10, 210, 10)
        history = pd.DataFrame(
            {
                "step": step,
                "loss": np.exp(-step / 80) + fold / 50,
                "start": 0,
                "select_auc": 1 - 0.5 * np.exp(-step / (60 + 9 * fold)),
                "best": True,
            }
        )
        write_table(history, folder / f"history-{fold}.parquet")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three plates of 96 wells: the images of the second are gone, the controls of the third do not separate."""
    return make_results(tmp_path_factory.mktemp("results") / "made-up", 3, 96)


@pytest.fixture(scope="module")
def report(results: Path) -> Path:
    write_report(results, results / "report.html", hits=CALLING)
    return results / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    quiet = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
    with sync_api.sync_playwright() as playwright:
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


@pytest.fixture
def opened(browser: Any, report: Path) -> Iterator[Opened]:
    opened = open_report(browser, report)
    yield opened
    opened.page.close()


def column(page: Any, table: str, heading: str) -> list[str]:
    """Return what a column of a table on the page says, row by row."""
    headings = page.locator(f"#{table}-table th").all_inner_texts()
    number = [text.split()[0] for text in headings].index(heading) + 1
    return page.locator(f"#{table}-table tbody td:nth-child({number})").all_inner_texts()


def test_report_loads_without_a_complaint_or_a_request(opened: Opened, report: Path) -> None:
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith(("data:", "blob:"))] == [report.as_uri()]


def test_report_is_small_and_the_same_when_written_again(results: Path, report: Path, tmp_path: Path) -> None:
    write_report(results, tmp_path / "again.html", hits=CALLING)
    assert (tmp_path / "again.html").read_bytes() == report.read_bytes()
    assert report.stat().st_size < 3e6


def test_summary_counts_what_is_in_the_tables(opened: Opened, results: Path) -> None:
    hits = pd.read_parquet(results / "hits.parquet")
    called = hits[hits["hit"]]["perturbation"]
    assert len(called) >= 3
    text = " ".join(opened.page.inner_text("#summary").split())
    assert f"{len(called)} of 139 perturbations are hits: {', '.join(called)}." in text
    assert "3 plates with 288 wells: 48 negative controls, 24 positive controls and 216 samples" in text
    assert "Plate P002 is left out of the calls: AUC of the controls below 0.7." in text


def test_summary_says_how_hits_are_called_and_what_failed(opened: Opened, results: Path) -> None:
    text = " ".join(opened.page.inner_text("#summary").split())
    assert "Hits are called at a false discovery rate of 5 %" in text
    hits = pd.read_parquet(results / "hits.parquet")
    assert f"{hits['q'].notna().sum()} tests are corrected for together" in text
    assert "A hit has a q of at most 0.05." in text
    # One field of each plate is out of focus, in each of its two rows of the quality table.
    assert "passed quality control (of the others 6 out of focus)" in text


def test_a_rate_at_which_the_hits_were_not_called_is_refused(results: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not called at a false discovery rate of 0\.9; give the report the same"):
        write_report(results, tmp_path / "report.html", hits=CALLING | {"fdr": 0.9})
    assert not (tmp_path / "report.html").exists()


def test_a_model_trained_elsewhere_is_named_and_its_controls_are_all_held_out(
    results: Path, tmp_path: Path, browser: Any
) -> None:
    folder = tmp_path / "applied"
    shutil.copytree(results, folder, ignore=shutil.ignore_patterns("plates", "model", "report.html"))
    wells = read_table(folder / "wells.parquet")
    write_table(wells.assign(fold=pd.array([None] * len(wells), "Int8")), folder / "wells.parquet")
    write_report(folder, folder / "report.html", hits=CALLING, models=results / "model")
    opened = open_report(browser, folder / "report.html")
    summary = " ".join(opened.page.inner_text("#summary").split())
    assert "learned from the control wells' labels alone in the screen made-up; nothing was trained here" in summary
    assert "all (AUC" in opened.page.inner_html("#roc")
    assert opened.complaints == []
    opened.page.close()


def test_hit_table_sorts_searches_and_filters(opened: Opened, results: Path) -> None:
    page, hits = opened.page, pd.read_parquet(results / "hits.parquet")
    assert column(page, "hits", "rank")[:3] == ["1", "2", "3"]
    page.click("#hits-table th button:text-is('effect')")
    effects = [float(text) for text in column(page, "hits", "effect")]
    assert effects == sorted(effects)
    page.click("#hits-table th button:text-is('effect')")
    effects = [float(text) for text in column(page, "hits", "effect")]
    assert effects == sorted(effects, reverse=True)
    assert page.get_attribute("#hits-table th:has(button:text-is('effect'))", "aria-sort") == "descending"
    page.fill("#hits-search", "COMPOUND 43")
    assert set(column(page, "hits", "perturbation")) == {name for name in hits["perturbation"] if "compound 43" in name}
    page.fill("#hits-search", "")
    page.check("#hits-only")
    assert sorted(column(page, "hits", "perturbation")) == sorted(hits[hits["hit"]]["perturbation"])


def test_hostile_names_come_out_as_text(opened: Opened) -> None:
    page = opened.page
    page.click("#hits-table button:text-is('Show more')")
    shown = {" ".join(text.split()) for text in column(page, "hits", "perturbation")}
    assert {" ".join(name.split()) for name in HOSTILE} <= shown
    assert page.inner_text("h1") == SCREEN
    assert page.locator("h1 b").count() == 0
    hover_well(page, "B03")
    assert HOSTILE[0] in page.inner_text("#vg-tooltip-element")
    assert opened.complaints == []


def hover_well(page: Any, well: str) -> None:
    """Put the mouse over the middle of a well on the first plate map."""
    row, number = parse_well(well)
    page.locator("#map-z").scroll_into_view_if_needed()
    box = page.locator("#map-z .mark-rect.role-mark").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] * (number + 0.4) / 12, box["y"] + box["height"] * (row + 0.4) / 8)
    page.wait_for_selector("#vg-tooltip-element.visible")


def test_plates_can_be_chosen_and_hovering_names_the_well(opened: Opened, results: Path) -> None:
    page, wells = opened.page, pd.read_parquet(results / "wells.parquet").set_index(["plate", "well"])
    for plate in ("P000", "P001", "P002"):
        page.select_option("#plate", plate)
        page.wait_for_timeout(100)
        hover_well(page, "D08")
        text = page.inner_text("#vg-tooltip-element")
        assert "D08" in text
        assert wells.loc[(plate, "D08"), "perturbation"] in text
        assert f"{abs(wells.loc[(plate, 'D08'), 'z']):.3g}" in text
        page.mouse.move(0, 0)
    assert "left out" in page.inner_text("#plate-state")
    page.click("#next")
    assert page.input_value("#plate") == "P000"
    assert page.inner_text("#plate-state") == ""


def test_gallery_shows_cells_beside_controls(opened: Opened, results: Path) -> None:
    page, hits = opened.page, pd.read_parquet(results / "hits.parquet")
    wells = pd.read_parquet(results / "wells.parquet")
    group = page.locator("article.group", has_text=hits["perturbation"][0]).first
    assert group.locator("h4").all_inner_texts() == ["Highest scores", "Negative controls, cells drawn at random"]
    assert page.locator("#suspects-mitotic").count() == 1
    spread = page.evaluate(
        """() => [...document.querySelectorAll('.frame img:not(.saliency)')].map((image) => {
            const canvas = Object.assign(document.createElement('canvas'), {width: 48, height: 48});
            const context = canvas.getContext('2d');
            context.drawImage(image, 0, 0, 48, 48);
            const values = [...context.getImageData(0, 0, 48, 48).data].filter((_, i) => i % 4 === 0);
            return Math.max(...values) - Math.min(...values);
        })"""
    )
    assert len(spread) > 30
    assert min(spread) > 20
    link = group.locator("figcaption a").first
    plate, well = link.inner_text().split()
    link.click()
    assert page.input_value("#plate") == plate == "P000"
    assert wells[wells["plate"].eq(plate) & wells["well"].eq(well)]["perturbation"].tolist() == [
        hits["perturbation"][0]
    ]


def test_layers_of_the_gallery_can_be_switched(opened: Opened) -> None:
    page = opened.page
    assert page.locator("svg.outlines").first.is_visible()
    assert not page.locator("img.saliency").first.is_visible()
    page.uncheck("input[data-layer=outlines]")
    page.check("input[data-layer=saliency]")
    assert not page.locator("svg.outlines").first.is_visible()
    assert page.locator("img.saliency").first.is_visible()


def test_every_chart_is_drawn(opened: Opened) -> None:
    empty = opened.page.evaluate(
        "() => [...document.querySelectorAll('.chart')].filter((c) => !c.querySelector('svg, canvas')).map((c) => c.id)"
    )
    assert empty == []


def test_one_phenotype_is_shown_at_a_time(browser: Any, tmp_path: Path) -> None:
    folder = make_results(tmp_path / "two", 2, 96, images=False, phenotypes=("mitotic", "multinucleate"))
    write_report(folder, folder / "report.html", hits=CALLING)
    opened = open_report(browser, folder / "report.html")
    assert set(column(opened.page, "hits", "phenotype")) == {"mitotic"}
    opened.page.select_option("#phenotype", "multinucleate")
    assert set(column(opened.page, "hits", "phenotype")) == {"multinucleate"}
    assert opened.complaints == []
    opened.page.close()


def test_report_needs_only_the_tables_of_hits(results: Path, tmp_path: Path, browser: Any) -> None:
    for name in ("hits", "wells", "plates"):
        shutil.copy(results / f"{name}.parquet", tmp_path)
    write_report(tmp_path, tmp_path / "report.html", hits=CALLING)
    opened = open_report(browser, tmp_path / "report.html")
    assert opened.complaints == []
    assert "no pictures" in opened.page.inner_text("#gallery")
    opened.page.close()


def test_missing_tables_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"wells\.parquet: no such file"):
        write_report(tmp_path, tmp_path / "report.html", hits=CALLING)
    assert not (tmp_path / "report.html").exists()


def test_roc_is_that_of_a_small_table_worked_by_hand() -> None:
    # Positives 3 and 1, negatives 2 and 0: of the four pairs three are in order, so the area is 3/4.
    wells = pd.DataFrame({"score": [3.0, 1.0, 2.0, 0.0], "role": ["positive"] * 2 + ["negative"] * 2, "fold": 0})
    roc = held_out_roc(wells.assign(phenotype="mitotic", held_out=True))
    assert roc["auc"].unique().tolist() == [0.75]
    assert roc[["fpr", "tpr"]].to_numpy().tolist() == [[0, 0], [0, 0.5], [0.5, 0.5], [0.5, 1], [1, 1]]


def test_wells_are_held_out_by_their_fold_or_when_the_model_never_met_them(tmp_path: Path) -> None:
    wells = pd.DataFrame({"plate": "P1", "well": ["A01", "A02", "A03"], "phenotype": "a", "score": [0.0, 1.0, 2.0]})
    wells = wells.assign(row=0, column=[0, 1, 2], perturbation="x", role=["negative", "positive", "negative"])
    write_table(wells.assign(screen="s", fold=pd.array([0, None, None], "Int8")), tmp_path / "wells.parquet")
    for name in ("hits", "plates"):
        write_table(wells[["plate"]], tmp_path / f"{name}.parquet")
    # Scores of unknown origin: only the well with a fold is known to be held out.
    assert read_results(tmp_path).wells["held_out"].tolist() == [True, False, False]
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "fold-0.json").write_text(json.dumps({"parts": {"train": ["P1/A02"]}}))
    found = read_results(tmp_path, tmp_path / "model")
    assert found.wells["held_out"].tolist() == [True, False, True]
    assert held_out_roc(found.controls).empty  # the positive well that is left was learned from


def test_pairs_of_replicates_lie_on_two_plates_where_they_can() -> None:
    places = [("P1", "A01"), ("P1", "A02"), ("P2", "A01"), ("P2", "A02"), ("P3", "A01")]
    wells = pd.DataFrame(places, columns=["plate", "well"]).assign(
        phenotype="a", perturbation="x", role="sample", z=range(5), used=True
    )
    pairs = replicate_pairs(wells)
    assert list(zip(pairs["well1"], pairs["well2"], strict=True)) == [("P1 A01", "P2 A01"), ("P3 A01", "P1 A02")]


def test_compact_keeps_values_and_writes_missing_ones_as_null() -> None:
    table = pd.DataFrame({"x": [1.23456, np.nan, np.inf], "n": [1, 2, 3], "name": ["a", None, "a"]})
    columns = compact(table.assign(hit=[True, False, True]))["columns"]
    assert columns["x"] == [1.235, None, None]
    assert columns["n"] == [1, 2, 3]
    assert columns["name"] == {"levels": ["a"], "codes": [0, -1, 0]}
    assert columns["hit"] == [True, False, True]
