"""The report of a small made-up screen, read as text and in a real browser."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pandas as pd
import pytest
import vl_convert
from click.testing import CliRunner
from made_up import CALLING, CHROMIUM, HOSTILE, PHENOTYPE, SCREEN, Opened, chromium, make_results, open_report

from wscnn.cli import main
from wscnn.core.errors import UserError
from wscnn.core.tables import DOSES, WARNINGS, conform, read_table, write_table
from wscnn.core.wells import parse_well
from wscnn.reporting import charts
from wscnn.reporting.packing import compact
from wscnn.reporting.report import write_report
from wscnn.reporting.results import read_results
from wscnn.reporting.validation import calibration, held_out_roc, replicate_pairs
from wscnn.reporting.volcano import thresholds


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three plates of 96 wells: the images of the second are gone, the controls of the third do not separate."""
    return make_results(tmp_path_factory.mktemp("results") / "made-up", 3, 96, staged={0, 2})


@pytest.fixture(scope="module")
def report(results: Path) -> Path:
    write_report(results, results / "report.html", hits=CALLING)
    return results / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    with chromium() as browser:
        yield browser


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
    reason = "AUC of positive controls against samples and negatives below 0.7"
    assert f"Plate P002 is left out of the calls: {reason}." in text


def test_summary_says_how_hits_are_called_and_what_failed(opened: Opened, results: Path) -> None:
    text = " ".join(opened.page.inner_text("#summary").split())
    assert "Hits are called at a false discovery rate of 5 %" in text
    hits = pd.read_parquet(results / "hits.parquet")
    assert f"{hits['q'].notna().sum()} tests are corrected for together" in text
    assert "A hit has a q of at most 0.05." in text
    below = pd.read_parquet(results / "plates.parquet")["controls_below"].iloc[0]
    assert f"your negative controls against each other: {100 * below:.0f} % below 0.05 (5 % is expected)" in text
    plates = pd.read_parquet(results / "plates.parquet").iloc[0]
    edge, chance = plates["auc_edge"], plates["auc_edge_chance"]
    assert f"inside with an AUC of {edge:.2f} (by chance {1 - chance:.2f} to {chance:.2f})" in text
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
    shutil.copytree(results / "model", tmp_path / "model")
    for path in (tmp_path / "model").glob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"screen": "earlier"}))
    write_report(folder, folder / "report.html", hits=CALLING, models=tmp_path / "model")
    opened = open_report(browser, folder / "report.html")
    summary = " ".join(opened.page.inner_text("#summary").split())
    assert "trained on the control wells' labels alone in the screen earlier; nothing was trained here" in summary
    assert "all (AUC" in opened.page.inner_html("#roc")
    assert opened.complaints == []
    opened.page.close()


def test_hit_table_sorts_searches_and_filters(opened: Opened, results: Path) -> None:
    page, hits = opened.page, pd.read_parquet(results / "hits.parquet")
    assert column(page, "hits", "rank")[:3] == ["1", "2", "3"]
    page.click("#hits-table th button:text-is('effect')")
    effects = [float(text.split()[0]) for text in column(page, "hits", "effect")]
    assert effects == sorted(effects)
    page.click("#hits-table th button:text-is('effect')")
    effects = [float(text.split()[0]) for text in column(page, "hits", "effect")]
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
    assert group.locator(".picture").count() == 0  # decoded when it comes near the view
    group.scroll_into_view_if_needed()
    group.locator("h4").first.wait_for()
    assert group.locator("h4").all_inner_texts() == [
        "Highest scores",
        "Negative controls of the same plates, cells drawn at random",
    ]
    assert group.locator(".channels").first.inner_text() == "DNA"
    assert page.locator("#suspects-mitotic").count() == 1
    page.emulate_media(media="print")  # shows all
    page.wait_for_function("() => document.querySelectorAll('.picture').length > 30")
    page.emulate_media(media="screen")
    spread = page.evaluate(
        """() => Promise.all([...document.querySelectorAll('#groups img.cell')].map(async (image) => {
            await image.decode();
            const canvas = Object.assign(document.createElement('canvas'), {width: 48, height: 48});
            const context = canvas.getContext('2d');
            const side = image.naturalHeight;
            const at = Math.round(-parseFloat(image.style.left) / 100);
            context.drawImage(image, at * side, 0, side, side, 0, 0, 48, 48);
            const values = [...context.getImageData(0, 0, 48, 48).data].filter((_, i) => i % 4 === 0);
            return Math.max(...values) - Math.min(...values);
        }))"""
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
    page.locator("#groups").scroll_into_view_if_needed()
    page.locator("svg.outlines").first.wait_for()
    assert page.locator("svg.outlines").first.is_visible()
    assert not page.locator("img.saliency").first.is_visible()
    page.uncheck("input[data-layer=outlines]")
    page.check("input[data-layer=saliency]")
    assert not page.locator("svg.outlines").first.is_visible()
    assert page.locator("img.saliency").first.is_visible()


def test_on_paper_tables_and_pictures_stay_whole_and_controls_go(opened: Opened, report: Path) -> None:
    page = opened.page
    gone = ("nav", "input", ".tools button", "button:text-is('Show more')", ".vega-embed details")
    assert all(page.locator(control).count() for control in gone)
    page.emulate_media(media="print")
    page.locator("svg.outlines").first.wait_for()
    for kept in (
        "#hits-table td",
        "#plates-table td",
        "#gallery .picture img",
        "svg.outlines",
        "#volcano svg, #volcano canvas",
    ):
        assert page.locator(kept).first.is_visible(), kept
    for control in gone:
        assert page.locator(f"{control} >> visible=true").count() == 0, control
    # Nothing is cut off that could be scrolled to on a screen.
    boxes = "[...document.querySelectorAll('.scroll')]"
    assert page.evaluate(f"() => {boxes}.filter((box) => box.scrollHeight > box.clientHeight + 1).length") == 0
    page.set_viewport_size({"width": 680, "height": 900})  # of A4 less its margins
    assert page.evaluate(f"() => {boxes}.filter((box) => box.scrollWidth > box.clientWidth + 1).length") == 0
    # Rows that "Show more" would show are there, too.
    assert len(column(page, "hits", "rank")) == len(pd.read_parquet(report.parent / "hits.parquet"))
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_every_chart_is_drawn(opened: Opened) -> None:
    empty = opened.page.evaluate(
        "() => [...document.querySelectorAll('.chart')].filter((c) => !c.querySelector('svg, canvas')).map((c) => c.id)"
    )
    assert empty == []


def test_a_screen_in_which_nothing_could_be_tested_says_so(results: Path, tmp_path: Path, browser: Any) -> None:
    folder = tmp_path / "failed"
    shutil.copytree(results, folder, ignore=shutil.ignore_patterns("report.html"))
    hits, plates, wells = (read_table(folder / f"{name}.parquet") for name in ("hits", "plates", "wells"))
    none = pd.array([None] * len(hits), "Int32")
    write_table(hits.assign(hit=False, p=np.nan, q=np.nan, rank=none), folder / "hits.parquet")
    write_table(plates.assign(status="failed", reasons="AUC of the controls below 0.7"), folder / "plates.parquet")
    write_table(wells.assign(used=False), folder / "wells.parquet")
    for table in (folder / "objects").iterdir():
        write_table(read_table(table)[:0], table)
    write_report(folder, folder / "report.html", hits=CALLING)
    opened = open_report(browser, folder / "report.html")
    page = opened.page
    assert "No perturbation could be tested: every plate is left out of the calls." in page.inner_text("#summary")
    assert "No perturbation has two wells that count." in page.inner_text("#controls")
    # Whether the phenotype is visible at all is the question then.
    page.locator("#groups").scroll_into_view_if_needed()
    page.locator("article.group h4").first.wait_for()
    captions = page.locator("article.group h4").all_inner_texts()
    assert captions == [
        "Positive controls, nothing detected: cells drawn at random",
        "Negative controls of the same plates, cells drawn at random",
    ]
    wells = wells[wells["role"] == "positive"]
    shown = page.locator("article.group .pictures").first.locator("figcaption a").all_inner_texts()
    assert len(shown) == 8 and set(shown) <= set(wells["plate"] + " " + wells["well"])
    assert "nan" not in page.inner_text("main").lower().split()
    assert opened.complaints == []
    page.close()


def test_every_hit_has_its_part_with_pictures_wells_and_a_reason(opened: Opened, results: Path) -> None:
    page, hits = opened.page, pd.read_parquet(results / "hits.parquet")
    wells = pd.read_parquet(results / "wells.parquet")
    for name, reason in hits.loc[hits["hit"], ["perturbation", "reason"]].itertuples(index=False):
        page.evaluate("(name) => { location.hash = encodeURIComponent(name); }", name)
        page.wait_for_function("(name) => document.querySelector('#perturbation h2')?.textContent === name", arg=name)
        assert page.locator("#perturbation .picture img.cell").count() >= 2
        assert f"Why it was called: {reason}." in page.inner_text("#perturbation")
        own = wells[wells["perturbation"] == name]
        listed = page.locator("#perturbation table").first.locator("tbody td:nth-child(2)").all_inner_texts()
        assert listed == own["well"].tolist()
        assert page.locator("#perturbation .overview canvas").count() == own["plate"].nunique()
        assert page.locator("#perturbation circle.well").count() == own["z"].notna().sum()
    assert opened.complaints == []


def test_why_one_was_not_called_is_found_in_two_clicks(opened: Opened, results: Path) -> None:
    page, hits = opened.page, pd.read_parquet(results / "hits.parquet").set_index("perturbation")
    name = HOSTILE[1]
    page.fill("#hits-search", name[:12])
    page.locator("#hits-table tbody a").first.click()
    heading = page.locator("#perturbation h2")
    heading.wait_for()
    assert heading.inner_text() == name and heading.evaluate("(h) => h === document.activeElement")
    assert f"Why it was not called: {hits.loc[name, 'reason']}." in page.inner_text("#perturbation")
    assert "wscnn gallery RESULTS --perturbation" in page.inner_text("#perturbation")
    page.locator("#perturbation table a").first.click()
    assert page.evaluate("() => location.hash") == "#plates"
    assert opened.complaints == []


@pytest.mark.parametrize("width", [1400, 390])
def test_the_page_and_its_hit_table_fit_their_width(opened: Opened, width: int) -> None:
    page = opened.page
    page.set_viewport_size({"width": width, "height": 900})
    # The table is drawn again when the page becomes narrow.
    page.wait_for_function(
        "() => { const box = document.querySelector('#hits-table').parentElement; "
        "return box.scrollWidth <= box.clientWidth; }"
    )
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    headings = [text.split()[0] for text in page.locator("#hits-table th").all_inner_texts()]
    assert headings[:2] == ["rank", "perturbation"] and {"effect", "q", "cells"} <= set(headings)
    assert ("reason" in headings) == (width == 1400)
    # Others are shown on demand.
    page.click("#hits .columns summary")
    page.check("#hits .columns label:text-is('p') input")
    assert "p" in page.locator("#hits-table th").all_inner_texts()


def test_hits_are_downloaded_as_a_table_that_no_spreadsheet_computes(
    opened: Opened, results: Path, tmp_path: Path
) -> None:
    with opened.page.expect_download() as started:
        opened.page.click("#hits-csv")
    started.value.save_as(tmp_path / "hits.csv")
    got, hits = pd.read_csv(tmp_path / "hits.csv"), pd.read_parquet(results / "hits.parquet")
    assert started.value.suggested_filename == "hits.csv"
    assert list(got) == list(hits)
    assert got["effect"].to_numpy() == pytest.approx(hits["effect"].to_numpy(), rel=1e-3, nan_ok=True)
    assert got["perturbation"].tolist() == [f"'{n}" if n.startswith("=") else n for n in hits["perturbation"]]
    assert got["perturbation"].str.startswith("'=").sum() == 1


def test_lines_of_the_volcano_are_the_threshold_and_the_smallest_p(opened: Opened) -> None:
    labels = opened.page.locator("#volcano text").all_text_contents()
    assert "FDR: hits are above" in labels and "smallest p that can be reached" in labels
    rows = [{"effect": 1.0, "p": 0.005, "group": "hit", "label": False, "p_called": 0.01, "p_reachable": 0.0001}]
    chart = charts.volcano([0.0, 2.0], [0.0, 5.0]) | {"datasets": {"rows": rows}}
    drawn = vl_convert.vegalite_to_svg(chart)
    places = {
        text: float(y) for y, text in re.findall(r"translate\([\d.]+,([\d.]+)\)[^>]*>([^<]+ [^<]+)</text>", drawn)
    }
    # On an axis from 0 to 5, 380 pixels high: 2 and 4; the labels are below and above their lines.
    assert places["FDR: hits are above"] == pytest.approx(380 * 3 / 5 + 11, abs=5)
    assert places["smallest p that can be reached"] == pytest.approx(380 / 5 - 6, abs=5)
    # Benjamini and Hochberg (1995), table of section 3.2: of 15 p-values 4 are rejected at 0.05, the largest 0.0095.
    p = [
        0.0001,
        0.0004,
        0.0019,
        0.0095,
        0.0201,
        0.0278,
        0.0298,
        0.0344,
        0.0459,
        0.3240,
        0.4262,
        0.5719,
        0.6528,
        0.7590,
        1,
    ]
    hits = pd.DataFrame({"p": p, "q": p, "role": "sample", "phenotype": "mitotic", "smallest_p": 0.00005})
    hits["hit"] = hits["p"] <= 0.0095
    assert thresholds(hits, 0.05).to_numpy().tolist() == [["mitotic", 0.0095, 0.00005]]
    assert thresholds(hits.assign(hit=False), 0.05)["p_called"].tolist() == [pytest.approx(0.05 / 15)]


def test_all_plates_are_shown_small_and_one_is_chosen(opened: Opened) -> None:
    page = opened.page
    assert page.locator("#overview button").all_inner_texts() == ["P000", "P001", "P002, left out"]
    page.locator("#overview button").nth(1).click()
    assert page.input_value("#plate") == "P001"
    assert page.locator("#overview button[aria-pressed=true]").all_inner_texts() == ["P001"]


def test_dose_curves_are_drawn_with_their_ec50(results: Path, tmp_path: Path, browser: Any) -> None:
    for name in ("hits", "wells", "plates"):
        shutil.copy(results / f"{name}.parquet", tmp_path)
    wells = read_table(tmp_path / "wells.parquet")
    dose = wells["well_column"].where(wells["role"] == "sample")
    write_table(wells.assign(dose=10.0 ** (dose - 5), compound="acid <b>"), tmp_path / "wells.parquet")
    curve = {"status": "ok", "trend_p": 0.001, "ec50": 1.5, "ec50_low": 0.5, "ec50_high": 4.25, "hill": 1.0}
    ends = {"lowest_dose": 1e-3, "highest_dose": 1e5, "bottom": 0.0, "top": 4.0, "n_doses": 9, "n_wells": 20}
    fitted = pd.DataFrame([{"compound": "acid <b>", "phenotype": PHENOTYPE, **curve, **ends}])
    flat = fitted.assign(compound="base", status="flat", ec50=np.nan)
    write_table(conform(pd.concat([flat, fitted]), DOSES)[list(DOSES)], tmp_path / "doses.parquet")
    write_report(tmp_path, tmp_path / "report.html", hits=CALLING)
    opened = open_report(browser, tmp_path / "report.html")
    said = opened.page.locator("#doses figcaption").all_inner_texts()
    assert said == ["acid <b>: EC50 1.50 (0.500 to 4.25)", "base: no rising response"]
    assert opened.page.locator("#doses path.curve").count() == 1
    assert opened.page.locator("#doses circle").count() > 100
    assert opened.complaints == []
    opened.page.close()


def test_gallery_of_a_perturbation_is_written_by_the_command_line(results: Path, tmp_path: Path) -> None:
    def run(name: str, output: str) -> Any:
        given = ["gallery", str(results), "--perturbation", name, "--output", str(tmp_path / output), "--cells", "5"]
        return CliRunner().invoke(main, given)

    done = run(HOSTILE[1], "cells.png")
    assert done.exit_code == 0, done.output
    sheet = imagecodecs.png_decode((tmp_path / "cells.png").read_bytes())
    assert min(sheet.shape[:2]) > 400 and len(np.unique(sheet[..., 0])) > 50
    unknown = run("compound 999", "none.png")
    assert unknown.exit_code == 1
    assert "no well has the perturbation 'compound 999'; there are" in unknown.output
    assert "is not named .png" in run("compound 43", "cells.jpg").output
    assert [path.name for path in tmp_path.iterdir()] == ["cells.png"]


def test_one_phenotype_is_shown_at_a_time(browser: Any, tmp_path: Path) -> None:
    folder = make_results(tmp_path / "two", 2, 96, phenotypes=("mitotic", "multinucleate"))
    write_report(folder, folder / "report.html", hits=CALLING)
    opened = open_report(browser, folder / "report.html")
    assert set(column(opened.page, "hits", "phenotype")) == {"mitotic"}
    opened.page.select_option("#phenotype", "multinucleate")
    assert set(column(opened.page, "hits", "phenotype")) == {"multinucleate"}
    assert opened.complaints == []
    opened.page.close()


def test_warnings_stand_at_the_top_and_are_text(results: Path, tmp_path: Path, browser: Any) -> None:
    for name in ("hits", "wells", "plates"):
        shutil.copy(results / f"{name}.parquet", tmp_path)
    rows = [("check", "", None, "", "few_controls", HOSTILE[0])]
    rows += [("hits", "P000", None, "mitotic", "plate_failed", "told with a link")]
    rows += [("hits", f"P{n:03d}", None, "mitotic", "other", HOSTILE[1]) for n in range(14)]
    write_table(conform(pd.DataFrame(rows, columns=list(WARNINGS)), WARNINGS), tmp_path / "warnings.parquet")
    write_report(tmp_path, tmp_path / "report.html", hits=CALLING)
    opened = open_report(browser, tmp_path / "report.html")
    told = opened.page.locator("#summary .notice li").all_inner_texts()
    assert f"{HOSTILE[0]}. (check)" in told
    assert f"Plate P000, mitotic: {HOSTILE[1]}. (hits)" in told
    # Twelve of them, a link to the failed plate that is not told twice, and that there are more.
    assert sum(text.endswith("(hits)") for text in told) == 11
    assert told[-1].split() == ["3", "more", "warnings", "in", "warnings.parquet."]
    assert opened.page.locator("#summary .notice a").count() == 1
    assert opened.complaints == []
    opened.page.close()


def test_cautions_stand_in_the_hit_table(opened: Opened, results: Path) -> None:
    hits = pd.read_parquet(results / "hits.parquet")
    assert column(opened.page, "hits", "caution")[:5] == hits["caution"].tolist()[:5]
    assert "edge controls" in hits["caution"].iloc[0]


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


def test_wells_are_held_out_by_their_fold_or_when_the_model_never_met_them(results: Path, tmp_path: Path) -> None:
    wells = pd.DataFrame({"plate": "P1", "well": ["A01", "A02", "A03"], "phenotype": "a", "score": [0.0, 1.0, 2.0]})
    wells = wells.assign(well_row=0, well_column=[0, 1, 2], perturbation="x", role=["negative", "positive", "negative"])
    write_table(wells.assign(screen="s", fold=pd.array([0, None, None], "Int8")), tmp_path / "wells.parquet")
    for name in ("hits", "plates"):
        write_table(wells[["plate"]], tmp_path / f"{name}.parquet")
    # Scores of unknown origin: only the well with a fold is known to be held out.
    assert read_results(tmp_path).wells["held_out"].tolist() == [True, False, False]
    (tmp_path / "model").mkdir()
    card = json.loads((results / "model" / "fold-0.json").read_text())
    (tmp_path / "model" / "fold-0.json").write_text(json.dumps(card | {"parts": {"train": ["P1/A02"]}}))
    found = read_results(tmp_path, tmp_path / "model")
    assert found.wells["held_out"].tolist() == [True, False, True]
    assert held_out_roc(found.controls).empty  # the positive well that is left was learned from


def test_calibration_is_of_the_probabilities_that_scoring_gave(results: Path) -> None:
    found = read_results(results)
    fields = found.held_out_fields
    points = calibration(found)
    assert points["phenotype"].unique().tolist() == ["mitotic"] and len(points) == 10
    assert points["n"].sum() == len(fields) > 100
    assert (points["predicted"] * points["n"]).sum() == pytest.approx(fields["probability"].sum())
    assert (points["observed"] * points["n"]).sum() == pytest.approx((fields["role"] == "positive").sum())
    assert points["predicted"].iloc[0] == pytest.approx(fields["probability"].nsmallest(points["n"][0]).mean())


def test_fields_scored_by_an_earlier_version_have_no_calibration(results: Path, tmp_path: Path) -> None:
    folder = tmp_path / "earlier"
    shutil.copytree(results, folder, ignore=shutil.ignore_patterns("report.html"))
    for path in (folder / "fields").iterdir():
        write_table(read_table(path).drop(columns="probability"), path)
    assert calibration(read_results(folder)).empty


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
