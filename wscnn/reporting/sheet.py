"""A sheet of a perturbation's cells: crops by score, with a row of negative controls of the same plates beside them."""

from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import vl_convert

from wscnn.core.atomic import atomic_path
from wscnn.core.errors import UserError
from wscnn.core.progress import log
from wscnn.plates.channel_colors import shown_color
from wscnn.reporting.gallery import Gallery, perturbation_gallery
from wscnn.reporting.pictures import Picture, png_uri
from wscnn.reporting.results import read_results

# Pictures side by side; of controls there is one such row.
_ACROSS = 8
# Of the sheet: side of a picture, gap between pictures, room for the text under one and for a caption.
_SIDE, _GAP, _TEXT, _CAPTION = 150, 12, 34, 30
_FONT = "Liberation Sans, Arial, sans-serif"


def write_sheet(results: Path, perturbation: str, n: int, output: Path, models: Path | None = None) -> None:
    """Write pictures of a perturbation's cells, the highest scores first.

    Parameters
    ----------
    results
        A screen's results folder.
    perturbation
        Which, as in the layout; hit or not.
    n
        Pictures for each phenotype.
    output
        The PNG to write.
    models
        Folder of the model that scored the screen, for perturbations in which no cell was detected; None: ``model`` in
        the results folder.

    Raises
    ------
    UserError
        When `output` is no PNG, no well has the perturbation, or its plates are gone.
    """
    if output.suffix.lower() != ".png":
        raise UserError(f"--output: {output} is not named .png, and only PNG is written")
    gallery = perturbation_gallery(read_results(results, models), perturbation, n)
    with atomic_path(output) as partial:
        partial.write_bytes(vl_convert.svg_to_png(draw_sheet(gallery), scale=2))
    log(f"{output}: {sum(len(group.rows[0].pictures) for group in gallery.groups)} pictures of {perturbation}")


def draw_sheet(gallery: Gallery) -> str:
    """Return the sheet of a gallery as SVG: for each phenotype the crops, then the row of controls."""
    parts: list[str] = []
    top = _GAP
    for group in gallery.groups:
        title = f"{group.name} · {group.phenotype}"
        if group.hit is not None and group.hit["hit"] == True:  # noqa: E712 (it may be missing)
            title += f" · hit, rank {group.hit['rank']}"
        parts.append(_text(_GAP, top + 20, title, 18, "#000"))
        parts.append(_legend(gallery, top + 40))
        top += 54
        for number, row in enumerate(group.rows):
            pictures = row.pictures if number == 0 else row.pictures[:_ACROSS]
            parts.append(_text(_GAP, top + 18, row.caption, 13, "#555"))
            top += _CAPTION
            for i, picture in enumerate(pictures):
                x = _GAP + i % _ACROSS * (_SIDE + _GAP)
                parts.append(_picture(picture, gallery.side, x, top + i // _ACROSS * (_SIDE + _TEXT), row.below))
            top += -(-len(pictures) // _ACROSS) * (_SIDE + _TEXT)
        top += _GAP
    width = _ACROSS * (_SIDE + _GAP) + _GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{width}" '
        f'height="{top}"><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>'
    )


def _picture(picture: Picture, side: int, x: int, y: int, below: bool) -> str:
    zoom = _SIDE / side
    outline = ""
    if picture.outline:
        style = f'fill="none" stroke="#ffd400" stroke-width="{1.4 / zoom:.3f}"'
        outline = f'<path transform="translate({x} {y}) scale({zoom:.5f})" d={quoteattr(picture.outline)} {style}/>'
    dashed = 'fill="none" stroke="#d55e00" stroke-width="2" stroke-dasharray="6 4"'
    frame = f'<rect x="{x}" y="{y}" width="{_SIDE}" height="{_SIDE}" {dashed}/>' if below else ""
    score = "" if picture.score is None else f"{picture.score:.3g}{', below threshold' if below else ''}"
    return (
        f'<image x="{x}" y="{y}" width="{_SIDE}" height="{_SIDE}" xlink:href="{png_uri(picture.image)}"/>'
        + f"{outline}{frame}"
        + _text(x, y + _SIDE + 13, f"{picture.plate} {picture.well}, field {picture.field}", 11, "#000")
        + _text(x, y + _SIDE + 26, score, 11, "#555")
    )


def _legend(gallery: Gallery, y: int) -> str:
    """Return the channels' names beside squares of their colours."""
    parts, x = [], _GAP
    for channel in gallery.channels:
        square = f'width="11" height="11" fill="#{shown_color(channel.color, len(gallery.channels))}" stroke="#777"'
        parts.append(f'<rect x="{x}" y="{y - 10}" {square}/>' + _text(x + 16, y, channel.name, 13, "#333"))
        x += 32 + 8 * len(channel.name)
    return "".join(parts)


def _text(x: float, y: float, text: str, size: int, color: str) -> str:
    # Characters that XML does not allow, such as control characters, cannot be written even as escapes.
    allowed = "".join(letter if letter.isprintable() else " " for letter in text)
    return f'<text x="{x}" y="{y}" font-family="{_FONT}" font-size="{size}" fill="{color}">{escape(allowed)}</text>'
