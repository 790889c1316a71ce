"""The report's charts, as Vega-Lite specifications without data: the page passes the rows to each."""

from collections.abc import Sequence
from typing import Any

import altair as alt

#: Colours and marks of roles: from Okabe and Ito's palette, distinguished by shape as well, for printing in grey.
ROLES = {"negative": "#0072B2", "positive": "#D55E00", "sample": "#8c8c8c", "exclude": "#cccccc"}
_MARKS = {"negative": "circle", "positive": "cross", "exclude": "M-1,-1L1,1M-1,1L1,-1"}
_HIT, _NO_HIT = "#D55E00", "#9aa0a6"
_FOLDS = ["#0072B2", "#E69F00", "#009E73"]
#: Of z: blue - white - orange, with ends light enough for a dark mark to show on them.
DIVERGING = ["#2b6ca3", "#8fbbdc", "#f7f7f7", "#f5b36b", "#d9730d"]
# Two charts, or three plate maps, fit side by side.
_WIDTH = 420
# Room for the labels of the y axis, so that charts over one another line up.
_EXTENT = 44
_MAP_WIDTH = 318


def volcano(effects: Sequence[float], significances: Sequence[float]) -> dict[str, Any]:
    """Return effect against significance; rows as `wscnn.reporting.volcano.volcano_rows` returns them.

    A line is drawn at the largest p of a hit, and one at the smallest p that any perturbation could reach.

    Parameters
    ----------
    effects, significances
        Range of each axis; values beyond it are drawn at its end, so that controls do not compress the samples.
    """
    tooltip = [_text("perturbation"), _number("effect"), _number("p"), _number("q"), _number("n_wells", "wells")]
    base = alt.Chart(alt.NamedData("rows")).transform_calculate(significance="-log(datum.p) / LN10")
    position = {
        "x": alt.X(
            "effect:Q", title="effect", scale=alt.Scale(domain=list(effects), clamp=True), axis=alt.Axis(tickCount=10)
        ),
        "y": alt.Y(
            "significance:Q",
            title="significance (−log₁₀ p)",
            scale=alt.Scale(domain=list(significances), clamp=True),
        ),
    }
    groups = ["hit", "not a hit", "positive control"]
    points = base.mark_point(filled=True, size=55, opacity=0.8).encode(
        **position,
        color=alt.Color(
            "group:N",
            title=None,
            scale=alt.Scale(domain=groups, range=[_HIT, _NO_HIT, "#000000"]),
        ),
        shape=alt.Shape("group:N", title=None, scale=alt.Scale(domain=groups, range=["circle", "circle", "cross"])),
        tooltip=tooltip,
    )
    names = (
        base.transform_filter("datum.label")
        .mark_text(align="right", dx=5, dy=-11, fontSize=11, limit=140)
        .encode(**position, text="perturbation:N", tooltip=tooltip)
    )
    lines = []
    for field, label, dy in (
        ("p_called", "FDR: hits are above", 11),
        ("p_reachable", "smallest p that can be reached", -6),
    ):
        line = (
            alt.Chart(alt.NamedData("rows"))
            # Under a name of its own: Vega-Lite merges aggregates of the same data.
            .transform_aggregate([alt.AggregatedFieldDef.from_dict({"as": field, "field": field, "op": "min"})])
            .transform_calculate(significance=f"-log(datum.{field}) / LN10")
            .transform_filter(f"isValid(datum.{field}) && datum.significance <= {significances[1]}")
        )
        lines.append(line.mark_rule(color="#777", strokeDash=[4, 3]).encode(y=position["y"]))
        lines.append(
            line.mark_text(align="left", x=4, dy=dy, color="#555", fontSize=11, text=label).encode(y=position["y"])
        )
    return _spec(
        alt.layer(*lines, points, names).properties(width=760, height=380),
        "Effect against significance, one point per perturbation.",
    )


def plate_map(
    field: str, title: str, domain: Sequence[float], rows: Sequence[str], columns: Sequence[int]
) -> dict[str, Any]:
    """Return a heat map of `field` over the wells of one plate; the page's signal ``chosen`` rings a well.

    Parameters
    ----------
    field
        ``z`` is shown from blue through white to orange, anything else in viridis.
    title
        Title above the map.
    domain
        The values of the first and the last colour, the same for every plate, so that plates are comparable.
    rows, columns
        All of the plate's, also those without a well.
    """
    diverging = field == "z"
    scale = alt.Scale(domain=list(domain), clamp=True, **({"range": DIVERGING} if diverging else {"scheme": "viridis"}))
    position = {
        "x": alt.X(
            "column:O",
            title=None,
            scale=alt.Scale(domain=list(columns)),
            axis=alt.Axis(orient="top", labelAngle=0, labelOverlap=True, ticks=False, domain=False),
        ),
        "y": alt.Y("row:O", title=None, scale=alt.Scale(domain=list(rows)), axis=alt.Axis(ticks=False, domain=False)),
    }
    tooltip = [
        _text("well"),
        _text("perturbation"),
        _text("role"),
        _number("z"),
        _number("score"),
        _number("n_objects", "objects"),
        _number("n_cells", "cells"),
        _text("fields"),
        _text("flags"),
    ]
    size = 150 if len(columns) <= 12 else 40
    base = alt.Chart(alt.NamedData("rows"))
    wells = base.mark_rect(stroke="white", strokeWidth=1).encode(
        **position,
        color=alt.Color(
            f"{field}:Q",
            title=None,
            scale=scale,
            legend=alt.Legend(
                orient="bottom", direction="horizontal", gradientLength=_MAP_WIDTH - 20, gradientThickness=8
            ),
        ),
        tooltip=tooltip,
    )
    shape = alt.Shape("role:N", scale=alt.Scale(domain=list(_MARKS), range=list(_MARKS.values())), legend=None)
    marked = base.transform_filter("datum.role !== 'sample'")
    halo = marked.mark_point(size=size, color="white", strokeWidth=3.5).encode(**position, shape=shape, tooltip=tooltip)
    marks = marked.mark_point(size=size, color="#111", strokeWidth=1.4).encode(**position, shape=shape, tooltip=tooltip)
    ring = (
        base.transform_filter("datum.well === chosen")
        .mark_rect(fillOpacity=0, stroke="#111", strokeWidth=2.5)
        .encode(**position, tooltip=tooltip)
    )
    chart = alt.layer(wells, halo, marks, ring).add_params(alt.param(name="chosen", value=""))
    height = _MAP_WIDTH * len(rows) / len(columns)
    chart = chart.properties(
        width=_MAP_WIDTH, height=height, title=title, view=alt.ViewConfig(fill="#eeeeee", stroke=None)
    )
    return _spec(chart, f"{title}, one square per well of the chosen plate.")


def control_strip(plates: Sequence[str], value: str) -> dict[str, Any]:
    """Return the control wells' `value` by plate; rows ``plate, role, well, perturbation`` and `value`."""
    chart = (
        alt.Chart(alt.NamedData("rows"))
        .mark_point(opacity=0.8, size=28, filled=True)
        .encode(
            x=_plate_axis(plates, labels=True),
            xOffset=alt.XOffset("role:N", scale=alt.Scale(domain=["negative", "positive"])),
            y=alt.Y(f"{value}:Q", title=f"{value} of control wells", axis=alt.Axis(minExtent=_EXTENT)),
            color=_role_color(["negative", "positive"]),
            shape=_role_shape(["negative", "positive"]),
            tooltip=[_text("plate"), _text("well"), _text("perturbation"), _text("role"), _number(value)],
        )
    )
    return _spec(chart.properties(width=_plates_width(plates), height=190), "Control wells by plate.")


def plate_quality(
    plates: Sequence[str], measure: str, title: str, lines: Sequence[float], domain: Sequence[float]
) -> dict[str, Any]:
    """Return one measure of control separation by plate, with reference `lines`; rows ``plate, state`` and it.

    Values outside `domain` are drawn at its ends.
    """
    states = ["used", "left out"]
    points = (
        alt.Chart(alt.NamedData("rows"))
        .mark_point(size=60, filled=True)
        .encode(
            x=_plate_axis(plates, labels=False),
            y=alt.Y(
                f"{measure}:Q",
                title=title,
                axis=alt.Axis(tickCount=5, minExtent=_EXTENT),
                scale=alt.Scale(domain=list(domain), clamp=True),
            ),
            color=alt.Color("state:N", title=None, scale=alt.Scale(domain=states, range=["#222222", "#D55E00"])),
            shape=alt.Shape("state:N", title=None, scale=alt.Scale(domain=states, range=["circle", "cross"])),
            tooltip=[_text("plate"), _number(measure, title), _text("state")],
        )
    )
    rules = [
        alt.Chart(alt.InlineData([{"line": line}])).mark_rule(color="#999", strokeDash=[4, 3]).encode(y="line:Q")
        for line in lines
    ]
    chart = alt.layer(*rules, points).properties(width=_plates_width(plates), height=110)
    return _spec(chart, f"{title} by plate.")


def replicates() -> dict[str, Any]:
    """Return one replicate's z against another's; rows ``perturbation, role, z1, z2, well1, well2``."""
    points = (
        alt.Chart(alt.NamedData("rows"))
        .mark_point(filled=True, opacity=0.7, size=40)
        .encode(
            x=alt.X("z1:Q", title="z of one replicate well"),
            y=alt.Y("z2:Q", title="z of another"),
            color=_role_color(["positive", "sample"]),
            shape=_role_shape(["positive", "sample"]),
            tooltip=[
                _text("perturbation"),
                _text("well1", "first"),
                _number("z1"),
                _text("well2", "second"),
                _number("z2"),
            ],
        )
    )
    # The line on which replicates agree, over the whole range of both.
    same = (
        alt.Chart(alt.NamedData("rows"))
        .transform_fold(["z1", "z2"], as_=["which", "z"])
        .transform_aggregate(low="min(z)", high="max(z)")
        .mark_rule(color="#bbb", strokeDash=[4, 3])
        .encode(x="low:Q", y="low:Q", x2="high:Q", y2="high:Q")
    )
    chart = alt.layer(same, points)
    return _spec(chart.properties(width=420, height=360), "Replicate agreement, one point per pair of wells.")


def side_by_side() -> dict[str, Any]:
    """Return the effect by other methods against the network's; rows ``method, perturbation, network_effect, effect``.

    Points are coloured by ``called``.
    """
    called = ["both", "network alone", "other alone", "neither"]
    chart = (
        alt.Chart(alt.NamedData("rows"))
        .mark_point(filled=True, size=40, opacity=0.8)
        .encode(
            x=alt.X("network_effect:Q", title="effect by the network"),
            y=alt.Y("effect:Q", title="effect by the other method"),
            color=alt.Color(
                "called:N",
                title="called by",
                scale=alt.Scale(domain=called, range=["#D55E00", "#0072B2", "#009E73", "#9aa0a6"]),
            ),
            shape=alt.Shape(
                "called:N",
                title="called by",
                scale=alt.Scale(domain=called, range=["circle", "square", "triangle-up", "circle"]),
            ),
            facet=alt.Facet("method:N", title=None, columns=3),
            tooltip=[
                _text("perturbation"),
                _number("network_effect"),
                _number("effect"),
                _number("q"),
                _text("called"),
            ],
        )
        .properties(width=230, height=200)
        .resolve_scale(y="independent")
    )
    return _spec(chart, "Effect by other methods against that by the network, one point per perturbation.")


def losses() -> dict[str, Any]:
    """Return the loss of each fold in training; rows ``fold, step, loss``."""
    chart = (
        alt.Chart(alt.NamedData("rows"))
        .mark_line(strokeWidth=1.6)
        .encode(
            x=alt.X("step:Q", title="training step"),
            y=alt.Y("loss:Q", title="loss"),
            color=_fold_color(),
            tooltip=[_text("fold"), _number("step"), _number("loss")],
        )
    )
    return _spec(chart.properties(width=_WIDTH, height=220), "Loss during training, one line per fold.")


def selection() -> dict[str, Any]:
    """Return the AUC by which the weights were chosen; rows ``fold, step, select_auc, kept``."""
    base = alt.Chart(alt.NamedData("rows")).encode(
        x=alt.X("step:Q", title="training step"),
        y=alt.Y("select_auc:Q", title="AUC over validation fields", scale=alt.Scale(zero=False)),
        color=_fold_color(),
        tooltip=[_text("fold"), _number("step"), _number("select_auc", "AUC")],
    )
    chosen = base.transform_filter("datum.kept").mark_point(filled=True, size=70)
    chart = alt.layer(base.mark_line(strokeWidth=1.6), chosen).properties(width=_WIDTH, height=220)
    return _spec(
        chart, "Validation AUC during training, one line per fold; the point marks the weights that were kept."
    )


def roc() -> dict[str, Any]:
    """Return true against false positive rate on held-out control wells; rows ``fold, fpr, tpr, cutoff``."""
    chance = alt.Chart(alt.InlineData([{"fpr": 0, "tpr": 0}, {"fpr": 1, "tpr": 1}])).mark_line(
        color="#bbb", strokeDash=[4, 3], strokeWidth=1
    )
    curves = (
        alt.Chart(alt.NamedData("rows"))
        .mark_line(interpolate="step-after", strokeWidth=1.8)
        .encode(color=_fold_color(), order="step:Q", tooltip=[_text("fold"), _number("fpr"), _number("tpr")])
    )
    chart = alt.layer(
        chance.encode(x=alt.X("fpr:Q", title="false positive rate"), y=alt.Y("tpr:Q", title="true positive rate")),
        curves.encode(x="fpr:Q", y="tpr:Q"),
    )
    return _spec(
        chart.properties(width=_WIDTH, height=220), "Receiver operating characteristic on held-out control wells."
    )


def calibration() -> dict[str, Any]:
    """Return how often fields of a predicted probability are positive; rows ``predicted, observed, n``."""
    ideal = alt.Chart(alt.InlineData([{"predicted": 0, "observed": 0}, {"predicted": 1, "observed": 1}])).mark_line(
        color="#bbb", strokeDash=[4, 3], strokeWidth=1
    )
    x = alt.X("predicted:Q", title="predicted probability", scale=alt.Scale(domain=[0, 1]))
    y = alt.Y("observed:Q", title="share from positive wells", scale=alt.Scale(domain=[0, 1]))
    points = (
        alt.Chart(alt.NamedData("rows"))
        .mark_line(color="#222", strokeWidth=1.2, point=alt.OverlayMarkDef(filled=True, size=45, color="#222"))
        .encode(x=x, y=y, tooltip=[_number("predicted"), _number("observed"), _number("n", "fields")])
    )
    chart = alt.layer(ideal.encode(x=x, y=y), points).properties(width=_WIDTH, height=220)
    return _spec(chart, "Calibration on held-out control fields.")


def _spec(chart: alt.Chart | alt.LayerChart | alt.FacetChart, description: str) -> dict[str, Any]:
    """Return the specification in the report's style."""
    font = "system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', Arial, sans-serif"
    chart = (
        chart.properties(description=description)
        .configure(font=font, background="white")
        .configure_view(stroke=None)
        .configure_axis(
            labelColor="#333",
            titleColor="#333",
            titleFontWeight="normal",
            titleFontSize=12,
            labelFontSize=11,
            gridColor="#ececec",
            domainColor="#999",
            tickColor="#999",
            titlePadding=8,
        )
        .configure_legend(
            labelColor="#333", labelFontSize=11, titleFontSize=11, titleFontWeight="normal", symbolSize=60
        )
        .configure_title(anchor="start", fontSize=13, fontWeight=600, color="#222", offset=10)
    )
    return chart.to_dict()


def _plates_width(plates: Sequence[str]) -> float:
    return min(max(100 * len(plates), 240), 900)


def _plate_axis(plates: Sequence[str], labels: bool) -> alt.X:
    angle = 0 if len(plates) <= 6 else -60
    axis = alt.Axis(labelAngle=angle, labelLimit=90, labelOverlap=True, labels=labels, ticks=False)
    return alt.X("plate:N", title=None, scale=alt.Scale(type="band", domain=list(plates)), axis=axis)


def _role_color(roles: Sequence[str]) -> alt.Color:
    return alt.Color("role:N", title=None, scale=alt.Scale(domain=list(roles), range=[ROLES[role] for role in roles]))


def _role_shape(roles: Sequence[str]) -> alt.Shape:
    shapes = {"negative": "square", "positive": "cross", "sample": "circle"}
    return alt.Shape("role:N", title=None, scale=alt.Scale(domain=list(roles), range=[shapes[role] for role in roles]))


def _fold_color() -> alt.Color:
    return alt.Color("fold:N", title="fold", scale=alt.Scale(range=_FOLDS), legend=alt.Legend(orient="bottom"))


def _text(field: str, title: str | None = None) -> alt.Tooltip:
    return alt.Tooltip(f"{field}:N", title=title or field.replace("_", " "))


def _number(field: str, title: str | None = None) -> alt.Tooltip:
    return alt.Tooltip(f"{field}:Q", title=title or field.replace("_", " "), format=".3~g")
