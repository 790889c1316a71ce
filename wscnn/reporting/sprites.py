"""Pictures of a gallery as the page reads them: sprites, each decoded when it comes into view, and what they show."""

from typing import Any

import numpy as np

from wscnn.plates.channel_colors import shown_color, text_color
from wscnn.reporting.gallery import Gallery
from wscnn.reporting.pictures import Picture, png_text, saliency_layer, shrink, webp_text

# Pixels of all pictures together beyond which each is halved along both sides.
_MOST_PIXELS = 20e6


def pack_gallery(gallery: Gallery) -> tuple[dict[str, Any], list[str]]:
    """Return what the page's script shows of a gallery, and its sprites.

    Returns
    -------
    shown
        ``side``, ``side_um``; ``channels`` (name, and colour of the name); ``pictures``, a table by column, with number
        and position of each picture's sprite; and ``groups``, whose rows name pictures by their numbers.
    sprites
        Each row of pictures that are not in an earlier one side by side: WebP and, after a space, where there is any
        the saliency as a transparent PNG of half the size, both in base64.
    """
    pictures: list[Picture] = []
    known: dict[int, int] = {}
    places: list[tuple[int, int]] = []
    strips: list[list[Picture]] = []
    groups = []
    for group in gallery.groups:
        rows = []
        for row in group.rows:
            new = [picture for picture in row.pictures if id(picture) not in known]
            for at, picture in enumerate(new):
                known[id(picture)] = len(pictures)
                pictures.append(picture)
                places.append((len(strips), at))
            if new:
                strips.append(new)
            numbers = [known[id(picture)] for picture in row.pictures]
            rows.append({"caption": row.caption, "below": row.below, "pictures": numbers})
        hit = None if group.hit is None else {"rank": int(group.hit["rank"]), "called": bool(group.hit["hit"])}
        groups.append({"name": group.name, "phenotype": group.phenotype, "hit": hit, "rows": rows})
    step = 1 if len(pictures) * gallery.side**2 <= _MOST_PIXELS else 2
    columns = {
        "sprite": [sprite for sprite, _ in places],
        "at": [at for _, at in places],
        **{name: [getattr(picture, name) for picture in pictures] for name in ("plate", "well", "field", "outline")},
        "y": [round(picture.y) for picture in pictures],
        "x": [round(picture.x) for picture in pictures],
        "score": [None if picture.score is None else float(f"{picture.score:.3g}") for picture in pictures],
    }
    shown = {
        "side": gallery.side,
        "side_um": gallery.side_um,
        "channels": [
            {"name": channel.name, "color": text_color(shown_color(channel.color, len(gallery.channels)))}
            for channel in gallery.channels
        ],
        "pictures": {"n": len(pictures), "columns": columns},
        "groups": groups,
    }
    return shown, [_sprite(strip, step) for strip in strips]


def _sprite(pictures: list[Picture], step: int) -> str:
    image = np.concatenate([picture.image for picture in pictures], axis=1)
    if step > 1:
        image = np.rint(shrink(image.transpose(2, 0, 1), step)).astype(np.uint8).transpose(1, 2, 0)
    layers = [np.zeros(p.image.shape[:2], np.uint8) if p.saliency is None else p.saliency for p in pictures]
    saliency = np.concatenate(layers, axis=1)[::2, ::2]
    return f"{webp_text(image)} {png_text(saliency_layer(saliency)) if saliency.any() else ''}"
