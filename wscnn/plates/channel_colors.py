"""Colours in which viewers show channels: by the stain that a name says, or by its wavelength."""

import re
from collections.abc import Sequence

#: A single channel is grey.
GREY = "FFFFFF"

_BLUE, _GREEN, _ORANGE, _RED, _MAGENTA = "0000FF", "00FF00", "FF8000", "FF0000", "FF00FF"
_CYAN, _YELLOW = "00FFFF", "FFFF00"

# Parts of names, in lower case, by colour: dyes and fluorescent proteins by their light, then structures by how they
# are mostly shown. What is earlier is looked for first.
_DYES = {
    _BLUE: "dapi|hoechst|bfp|violet",
    _CYAN: "cfp|cerulean|turquoise",
    _GREEN: "e?gfp|fitc|neongreen|clover|green",
    _YELLOW: "yfp|venus|citrine|yellow",
    _ORANGE: "cy3|tritc|orange|kusabira",
    _MAGENTA: "cy5|irfp|draq5|apc|far.?red|magenta",
    _RED: "rfp|mcherry|tdtomato|mkate|scarlet|texas.?red|rhodamine|red",
}
_STRUCTURES = {
    _BLUE: "dna|nucle(?:us|i|ar)|chromatin|h2b",
    _GREEN: "tubulin|microtubules?|er|concanavalin",
    _YELLOW: "rna|syto",
    _ORANGE: "agp|golgi|wga",
    _RED: "f?-?actin|phalloidin",
    _MAGENTA: "mito(?:chondria|tracker)?",
}
# Excitation or emission in nm below which a channel has the colour.
_WAVELENGTHS = (
    (465, _BLUE),
    (485, _CYAN),
    (530, _GREEN),
    (550, _YELLOW),
    (580, _ORANGE),
    (625, _RED),
    (1000, _MAGENTA),
)
# What is given to channels whose names say nothing, in order: the first is mostly DNA.
_OTHERS = (_BLUE, _GREEN, _RED, _YELLOW, _MAGENTA, _CYAN, _ORANGE, GREY)


def channel_colors(names: Sequence[str]) -> list[str]:
    """Return a colour, RRGGBB, for each channel of a plate; no two have the same while there are colours left.

    Parameters
    ----------
    names
        The channels' names, such as ``DNA``, ``GFP``, ``Alexa 568`` or ``w2``.
    """
    if len(names) == 1:
        return [GREY]
    colors: dict[int, str] = {}
    for number, name in enumerate(names):
        if (color := _named(name)) and color not in colors.values():
            colors[number] = color
    left = [color for color in _OTHERS if color not in colors.values()]
    for number in range(len(names)):
        if number not in colors:
            colors[number] = left.pop(0) if left else GREY
    return [colors[number] for number in range(len(names))]


def shown_color(color: str, n: int) -> str:
    """Return the colour, RRGGBB, in which a channel of `n` is drawn: alone it is grey, whatever its own is."""
    return GREY if n == 1 else color


def text_color(color: str) -> str:
    """Return the tone, RRGGBB, of a colour in which a name can be read on a dark image: blue on black cannot."""
    return "".join(f"{round(0.6 * int(color[i : i + 2], 16) + 0.4 * 255):02X}" for i in (0, 2, 4))


def _named(name: str) -> str | None:
    """Return the colour of the stain or wavelength in a name; None where it says neither."""
    text = name.lower()
    for colors in (_DYES, _STRUCTURES):
        for color, words in colors.items():
            if re.search(rf"(?<![a-z])(?:{words})(?![a-z])", text):
                return color
    found = re.search(r"(?<!\d)[3-8]\d\d(?!\d)", text)
    return next(color for limit, color in _WAVELENGTHS if int(found[0]) < limit) if found else None
