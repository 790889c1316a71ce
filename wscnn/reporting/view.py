"""A view of one well: in napari where it is installed, else as a picture; and an occlusion check of the saliency."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import vl_convert

from wscnn.core.atomic import atomic_path
from wscnn.core.errors import UserError
from wscnn.core.progress import log
from wscnn.core.screen_folder import ScreenFolder
from wscnn.core.tables import FIELDS, OBJECTS, read_table
from wscnn.core.wells import SALIENCY, parse_well, well_name
from wscnn.plates.channel_colors import shown_color, text_color
from wscnn.plates.store import BOX, Plate
from wscnn.reporting.pictures import compose, outlines, png_uri, saliency_layer, shrink

#: Pixels along the picture's longer side.
PICTURE_SIDE = 1400
# Style of napari's points, in the colour of the outlines.
_YELLOW = "#ffd400"


@dataclass(frozen=True)
class Covered:
    """Effect of covering parts of a field on its score.

    Attributes
    ----------
    field, phenotype
        The field of the well, and the phenotype of the score.
    side
        Side of the covering squares, in pixels of the mosaic.
    falls
        Fall of the score in log-odds, shape (y, x) of the field: the mean over all squares that cover a pixel.
    """

    field: int
    phenotype: str
    side: int
    falls: np.ndarray


def view_well(
    results: Path, plate: str, well: str, output: Path | None, occlusion: bool = False, models: Path | None = None
) -> None:
    """Show a well with its masks, saliency and objects.

    Parameters
    ----------
    results
        A screen's results folder.
    plate, well
        Which; ``B3`` and ``B03`` are the same well.
    output
        PNG to write; None opens napari where it is installed, and else writes ``<plate>_<well>.png`` here.
    occlusion
        Write the picture in any case, with the result of `cover` beside it.
    models
        For `occlusion`: folder of the folds that scored the well; None takes the screen's own.

    Raises
    ------
    UserError
        When there is no such plate or well; with `occlusion`, when it was not scored by the folds in `models`.
    """
    screen = ScreenFolder(results)
    store = screen.plate(plate)
    if not store.is_dir():
        there = ", ".join(path.stem for path in screen.plates()) or "none"
        raise UserError(f"{results}: no plate '{plate}'; plates there: {there}")
    try:
        name = well_name(*parse_well(well))
    except ValueError as error:
        raise UserError(str(error)) from None
    opened = Plate(store)
    if name not in opened.wells:
        raise UserError(f"plate '{plate}' has no well {name}; it has {_some(opened.wells)}")
    objects = _objects(screen.objects(plate), name)
    if output is None and not occlusion and importlib.util.find_spec("napari"):
        _show(opened, name, objects)
        return
    if output is None and not occlusion:
        log("napari is not installed (pip install -e '.[view]' in the repository): writing a picture instead")
    output = output or Path(f"{plate}_{name}.png")
    covered = cover(opened, name, screen.fields(plate), models or screen.model.path) if occlusion else None
    treatment = _treatment(screen.table("wells"), plate, name)
    with atomic_path(output) as partial:
        partial.write_bytes(draw_well(opened, name, objects, treatment, covered))
    log(f"{output}: plate {plate}, well {name}, {len(objects)} objects")


def cover(plate: Plate, well: str, fields: Path, models: Path) -> Covered:
    """Cover the well's field of the highest score part by part: where does the score fall?

    It uses no gradient, so that it checks the saliency. Squares are as large as the network's receptive field and
    overlap by half; the score is the mean of the folds that scored the well.

    Parameters
    ----------
    plate, well
        Which.
    fields
        The plate's table of fields.
    models
        Folder of the trained folds.

    Raises
    ------
    UserError
        When a file is missing, model and plate do not fit, or no field of the well has a score by these folds.
    """
    # torch takes seconds to import and is needed only here.
    import torch

    from wscnn.network.card import folds_of
    from wscnn.network.device import pick_device
    from wscnn.network.saliency import occlusion, squares
    from wscnn.network.weights import check_fits, load_folds
    from wscnn.plates.fields import read_fields

    folds = load_folds(models)
    card = folds[0][1]
    check_fits(card, [channel.name for channel in plate.channels], plate.pixel_size_um, str(plate.path))
    needed = {name: FIELDS[name] for name in ("well", "field", "phenotype", "score")}
    scored = read_table(fields, needed).query("well == @well and score.notna() and phenotype in @card.phenotypes")
    networks = [folds[k][0] for k in folds_of(f"{plate.name}/{well}", [card for _, card in folds])]
    if scored.empty or not networks:
        raise UserError(
            f"plate '{plate.name}', well {well}: no field has a score by the folds in {models}; name the model that "
            "scored the screen by --models, or choose a well with a score"
        )
    best = scored.sort_values("score", ascending=False).iloc[0]
    box = plate.fields(well).set_index("field").loc[[best["field"]], BOX].to_numpy()
    device = pick_device("auto")
    image = torch.from_numpy(read_fields(plate, well, card.channels, box)[0]).to(device)
    side, number = networks[0].receptive_field, card.phenotypes.index(best["phenotype"])
    log(f"covering field {best['field']} square by square, which may take minutes")
    found = np.mean([occlusion(network.to(device), image, side, side // 2)[number] for network in networks], axis=0)
    total, times = np.zeros((2, *image.shape[-2:]))
    ys, xs = (squares(length, side, side // 2) for length in total.shape)
    for (i, j), fall in np.ndenumerate(found):
        y, x = ys[i], xs[j]
        total[y : y + side, x : x + side] += fall
        times[y : y + side, x : x + side] += 1
    return Covered(int(best["field"]), str(best["phenotype"]), side, total / times)


def draw_well(
    plate: Plate, well: str, objects: pd.DataFrame, treatment: str = "", covered: Covered | None = None
) -> bytes:
    """Return a picture (PNG) of a well: its mosaic in the plate's contrast, masks outlined, field borders and a scale.

    Parameters
    ----------
    plate, well
        Which.
    objects
        Its detected objects, columns of `wscnn.core.tables.OBJECTS`.
    treatment
        What was done to it, for the title.
    covered
        Drawn beside the well, under the saliency of the same field.
    """
    mosaic = plate.read(well)
    height, width = mosaic.shape[1:]
    step = max(1, -(-max(height, width) // PICTURE_SIDE))
    shown = compose(shrink(mosaic, step), plate.channels, [channel.window for channel in plate.channels])
    x = alt.X("x:Q", scale=alt.Scale(domain=[0, width], nice=False), axis=None)
    y = alt.Y("y:Q", scale=alt.Scale(domain=[height, 0], nice=False), axis=None)
    zoom = PICTURE_SIDE / 2 / max(height, width)
    size = {"width": width * zoom, "height": height * zoom}
    center = alt.InlineData([{"x": width / 2, "y": height / 2, "image": png_uri(shown)}])
    layers: list[alt.Chart] = [
        alt.Chart(center).mark_image(**size).encode(x=x, y=y, url="image:N"),
        _borders(plate.fields(well), height, width).encode(x=x, y=y),
    ]
    phenotypes = _phenotypes(plate.labels(well))
    lines = _outline_points(plate, well, phenotypes)
    if lines:
        color = alt.Color(
            "phenotype:N", title=None, scale=alt.Scale(domain=phenotypes, range=[*map(_color, range(len(phenotypes)))])
        )
        layers.append(
            alt.Chart(alt.InlineData(lines))
            .mark_line(strokeWidth=1.4)
            .encode(
                x=x, y=y, detail="line:N", order="order:Q", color=color if len(phenotypes) > 1 else alt.value(_YELLOW)
            )
        )
    if plate.pixel_size_um:
        layers += _scale_bar(plate.pixel_size_um, height, width, x, y)
    counts = objects.groupby("phenotype").size()
    words = ", ".join(f"{counts.get(name, 0)} {name}" for name in phenotypes) or "not scored"
    layers += _legend(plate, height, width, x, y)
    title = alt.TitleParams(" ".join([plate.name, well, treatment]).strip(), subtitle=words, anchor="start", offset=8)
    whole = alt.layer(*layers).properties(**size, title=title)
    chart = alt.hconcat(whole, _checks(plate, well, mosaic, covered), spacing=30) if covered else whole
    chart = (
        chart.configure(font="Liberation Sans, Arial, sans-serif", background="white", padding=12)
        .configure_view(stroke=None)
        .configure_title(fontSize=18, subtitleFontSize=13, subtitleColor="#555")
        .configure_legend(orient="bottom", labelFontSize=13)
    )
    return vl_convert.vegalite_to_png(chart.to_dict(), scale=2)


def _checks(plate: Plate, well: str, mosaic: np.ndarray, covered: Covered) -> alt.VConcatChart:
    """Return two views of a field: with its saliency, and with the fall of the score where it was covered."""
    fields = plate.fields(well).set_index("field")
    y, x, height, width = (int(fields[name][covered.field]) for name in ("y", "x", "height", "width"))
    box = np.s_[y : y + height, x : x + width]
    shown = compose(mosaic[:, *box], plate.channels, [channel.window for channel in plate.channels])
    highest = covered.falls.max()
    layers = {
        f"fall of the score where {covered.side} px are covered, up to {highest:.2g}": np.rint(
            covered.falls.clip(0) * (255 / max(highest, 1e-9))
        ).astype(np.uint8)
    }
    if covered.phenotype + SALIENCY in plate.labels(well):
        layers = {"saliency": plate.read_label(well, covered.phenotype + SALIENCY)[box]} | layers
    zoom = PICTURE_SIDE / 4.5 / max(height, width)
    size: dict[str, Any] = {"width": width * zoom, "height": height * zoom}
    charts = []
    for words, layer in layers.items():
        rgba = saliency_layer(layer)
        part = rgba[..., 3:] / 255
        image = np.rint(shown * (1 - part) + rgba[..., :3] * part).astype(np.uint8)
        data = alt.InlineData([{"x": 0.5, "y": 0.5, "image": png_uri(image)}])
        axes = {name: alt.value(size[side] / 2) for name, side in (("x", "width"), ("y", "height"))}
        title = alt.TitleParams(f"Field {covered.field}, {covered.phenotype}", subtitle=words, anchor="start")
        charts.append(alt.Chart(data).mark_image(**size).encode(url="image:N", **axes).properties(**size, title=title))
    return alt.vconcat(*charts)


def _show(plate: Plate, well: str, objects: pd.DataFrame) -> None:
    """Open a well in napari and wait until its window is closed."""
    import napari

    add_layers(napari.Viewer(title=f"{plate.name} {well}"), plate, well, objects)
    napari.run()


def add_layers(viewer: Any, plate: Plate, well: str, objects: pd.DataFrame) -> None:
    """Add a well's channels, masks, saliency and objects to a napari viewer; the last two are initially hidden."""
    import napari

    known = plate.pixel_size_um is not None
    scale = {"scale": [plate.pixel_size_um or 1.0] * 2, "units": ["um" if known else "pixel"] * 2}
    single = len(plate.channels) == 1
    for image, channel in zip(plate.read(well), plate.channels, strict=True):
        color: Any = "gray" if single else napari.utils.Colormap(["#000000", f"#{channel.color}"], name=channel.name)
        viewer.add_image(
            image, name=channel.name, colormap=color, contrast_limits=channel.window, blending="additive", **scale
        )
    labels = plate.labels(well)
    phenotypes = _phenotypes(labels)
    for label in labels:
        image = plate.read_label(well, label)
        if label in phenotypes:
            # One colour for all objects of a phenotype, as in the picture: differences from cell to cell would be
            # meaningless.
            colors = {0: "transparent", None: _color(phenotypes.index(label))}
            outline = napari.utils.DirectLabelColormap(color_dict=colors)
            layer = viewer.add_labels(image.astype(np.int32), name=label, colormap=outline, opacity=1, **scale)
            layer.contour = 1
        else:
            viewer.add_image(
                image,
                name=label,
                colormap="inferno",
                contrast_limits=(0, 255),
                blending="additive",
                visible=False,
                **scale,
            )
    if len(objects):
        viewer.add_points(
            objects[["y", "x"]].to_numpy(),
            name="objects",
            features=objects[["phenotype", "object", "field", "score"]].reset_index(drop=True),
            face_color="transparent",
            border_color=_YELLOW,
            size=30,
            visible=False,
            **scale,
        )
    viewer.scale_bar.visible = known


def _objects(path: Path, well: str) -> pd.DataFrame:
    """Return the objects of a well; no row where the plate has not been scored."""
    if not path.is_file():
        return pd.DataFrame(columns=["phenotype"])
    table = read_table(path, OBJECTS)
    return table[table["well"] == well]


def _treatment(path: Path, plate: str, well: str) -> str:
    """Return a well's perturbation; empty where hits have not been called yet."""
    if not path.is_file():
        return ""
    wells = read_table(path)
    names = wells.loc[(wells["plate"] == plate) & (wells["well"] == well), "perturbation"]
    return "" if names.empty else f"· {names.iloc[0]}"


def _borders(fields: pd.DataFrame, height: int, width: int) -> alt.Chart:
    """Return the lines between fields."""
    points = [
        {"line": f"{axis}{at}", axis: at, other: end}
        for axis, other, length, far in (("y", "x", height, width), ("x", "y", width, height))
        for at in sorted({int(at) for at in fields[axis]} - {0, length})
        for end in (0, far)
    ]
    # With one field there is no line; a chart needs a row nevertheless.
    points = points or [{"line": "none", "x": 0, "y": 0}]
    return alt.Chart(alt.InlineData(points)).mark_line(color="#777", strokeWidth=0.8).encode(detail="line:N")


def _outline_points(plate: Plate, well: str, phenotypes: list[str]) -> list[dict[str, Any]]:
    points = []
    for phenotype in phenotypes:
        for number, line in enumerate(outlines(plate.read_label(well, phenotype))):
            points += [
                {"x": x + 0.5, "y": y + 0.5, "order": order, "line": f"{phenotype}{number}", "phenotype": phenotype}
                for order, (y, x) in enumerate(line.tolist())
            ]
    return points


def _scale_bar(pixel_size_um: float, height: int, width: int, x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """Return a bar of a round length, about a tenth of the picture, at its lower right."""
    goal = width * pixel_size_um / 10
    length = max(n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if n <= max(goal, 1))
    right, bottom = 0.97 * width, 0.97 * height
    left = right - length / pixel_size_um
    bar = alt.Chart(alt.InlineData([{"x": left, "y": bottom}, {"x": right, "y": bottom}]))
    text = alt.Chart(alt.InlineData([{"x": (left + right) / 2, "y": bottom}]))
    return [
        bar.mark_line(color="white", strokeWidth=4).encode(x=x, y=y),
        text.mark_text(color="white", dy=-12, fontSize=14, text=f"{length} µm").encode(x=x, y=y),
    ]


def _legend(plate: Plate, height: int, width: int, x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """Return the channels' names in their colours, at the lower left, on a dark edge."""
    layers = []
    for number, channel in enumerate(reversed(plate.channels)):
        point = alt.InlineData([{"x": 0.015 * width, "y": (0.975 - 0.03 * number) * height}])
        name = alt.Chart(point).encode(x=x, y=y)
        color = f"#{text_color(shown_color(channel.color, len(plate.channels)))}"
        words: dict[str, Any] = {"align": "left", "fontSize": 16, "fontWeight": 600, "text": channel.name}
        layers += [name.mark_text(stroke="black", strokeWidth=4, **words), name.mark_text(color=color, **words)]
    return layers


def _phenotypes(labels: list[str]) -> list[str]:
    return [label for label in labels if not label.endswith(SALIENCY)]


def _color(number: int) -> str:
    """Return the colour of a phenotype's outlines, by its number."""
    colors = [_YELLOW, "#56B4E9", "#D55E00", "#CC79A7", "#009E73"]
    return colors[number % len(colors)]


def _some(wells: list[str]) -> str:
    return f"{wells[0]} to {wells[-1]}" if len(wells) > 1 else wells[0]
