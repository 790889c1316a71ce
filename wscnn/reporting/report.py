"""The report: one HTML file that opens offline and shows what was run, what was found and how far to trust it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import vl_convert

import wscnn
from wscnn.core.atomic import atomic_path
from wscnn.core.errors import UserError
from wscnn.core.progress import log
from wscnn.reporting.contest import make_contest, side_by_side
from wscnn.reporting.examples import make_examples
from wscnn.reporting.gallery import make_gallery
from wscnn.reporting.packing import pack
from wscnn.reporting.page_data import page_data
from wscnn.reporting.results import Results, read_results
from wscnn.reporting.sprites import pack_gallery
from wscnn.reporting.summary import summarise
from wscnn.reporting.validation import held_out_roc
from wscnn.reporting.volcano import thresholds


def write_report(results: Path, output: Path, *, hits: Mapping[str, Any], models: Path | None = None) -> None:
    """Write the report of a screen.

    Parameters
    ----------
    results
        The screen's results folder.
    output
        The HTML file: self-contained, without a timestamp, so that equal results give equal bytes.
    hits
        The config's section ``hits``, complete, with which the hits were called.
    models
        Folder of the model that scored the screen; None: ``model`` in the results folder.

    Raises
    ------
    UserError
        When the table of hits, wells or plates is missing, a plate is damaged, or the hits were called at another
        false discovery rate.
    """
    found = read_results(results, models)
    _check_rate(found, hits["fdr"])
    log(f"report: {found.wells['plate'].nunique()} plates, {len(found.hits)} rows of hits")
    roc = held_out_roc(found.controls)
    beside = side_by_side(found)
    gallery, sprites = pack_gallery(make_gallery(found))
    data = page_data(found, roc, beside, hits["fdr"]) | {"gallery": gallery}
    content = {
        "screen": found.screen,
        "version": wscnn.__version__,
        "summary": summarise(found, roc, hits),
        "gallery": gallery,
        "sprites": sprites,
        "has_doses": not found.doses.empty,
        "examples": make_examples(found),
        "contest": make_contest(found, beside),
        "thresholds": thresholds(found.hits, hits["fdr"]).to_dict("records"),
        "packed": pack(data),
        "phenotypes": found.phenotypes,
        "plates": sorted(found.wells["plate"].unique()),
        "vega": vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"),
    }
    loader = jinja2.PackageLoader("wscnn.reporting")
    # Every value is escaped unless the template says otherwise: names come from users.
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    with atomic_path(output) as partial:
        partial.write_text(environment.get_template("report.html.j2").render(content), encoding="utf-8")
    log(f"report: {output}, {output.stat().st_size / 1e6:.1f} MB")


def _check_rate(results: Results, fdr: float) -> None:
    """Refuse to state a false discovery rate at which these hits were not called."""
    tested = results.hits[results.hits["q"].notna()]
    if not tested["hit"].astype("bool").eq(tested["q"] <= fdr).all():
        raise UserError(
            f"{results.folder.table('hits')}: its hits were not called at a false discovery rate of {fdr:g}; give "
            "the report the same --hits as `wscnn hits` got"
        )
