"""Pictures of a network's maps beside their image, and charts of their values over many images.

After figure 3 of Sailem et al. (ICCV Workshops 2017): where the phenotype is, the map of its class is high and the map
of the negative class is low, and a few high positions of an image distinguish positive from negative.
"""

from pathlib import Path

import altair as alt
import imagecodecs
import numpy as np
import pandas as pd
import torch
import vl_convert
from torch import Tensor

from wscnn.core.atomic import atomic_path
from wscnn.network.model import WSCNN, score_fields
from wscnn.network.saliency import saliency

#: White lines between the pictures, in pixels.
_GAP = 4
#: Maps of the last layer that are shown; with five other pictures they fill three rows of three.
_FEATURES = 4
#: Bins of the values of a class's map.
_BINS = 60


def picture_maps(network: WSCNN, image: Tensor, threshold: float, path: Path) -> None:
    """Write a PNG of three rows of three pictures, which show how the network arrives at its score.

    The image, its detector's map, its saliency; the maps of the negative class and of the phenotype, on one scale of
    grey; the four maps of the last layer that raise the detector most, by their weights. Except for the two class maps,
    each picture has its own contrast.

    Parameters
    ----------
    network
        In evaluation mode; its first phenotype is shown.
    image
        Shape (C, h, w), on the network's device; its first channel is shown.
    threshold
        The detector's value from which saliency starts.
    path
        The file to write.
    """
    _, maps, gradients = saliency([network], image[None], [threshold])
    classes, features = _look(network, image[None])
    weights = network.classify.weight.sum((2, 3))
    chosen = (weights[1] - weights[0]).topk(_FEATURES).indices
    height, width = image.shape[-2:]

    def enlarged(places: Tensor) -> np.ndarray:
        """Return maps (..., h', w') in the size of the image."""
        every = places.cpu().numpy().repeat(network.stride, -2).repeat(network.stride, -1)
        return every[..., :height, :width]

    panels = [
        _grey(image[0].cpu().numpy()),
        _grey(enlarged(maps[0, 0])),
        _grey(gradients[0, 0].cpu().numpy()),
        *_grey(enlarged(classes[0, :2])),
        *(_grey(feature) for feature in enlarged(features[0, chosen])),
    ]
    padded = [np.pad(panel, [(0, _GAP), (0, _GAP)], constant_values=255) for panel in panels]
    picture = np.concatenate([np.concatenate(padded[row : row + 3], axis=1) for row in (0, 3, 6)])
    with atomic_path(path) as partial:
        partial.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(picture[:-_GAP, :-_GAP]), level=9))


def map_values(network: WSCNN, fields: Tensor, labels: np.ndarray) -> pd.DataFrame:
    """Return the distribution of both classes' map values over all positions of negative and of positive images.

    Parameters
    ----------
    network
        In evaluation mode; its first phenotype counts.
    fields
        Shape (n, C, h, w), on the network's device.
    labels
        Shape (n,): 0 is negative.

    Returns
    -------
    pandas.DataFrame
        One row per class, kind of image and bin of values that is not empty: ``map`` (negative, phenotype), ``image``
        (negative, positive), ``low, high`` (the bin), ``share`` (of the positions of these images, 0 to 1).
    """
    maps = torch.cat([_look(network, part.float())[0][:, :2].cpu() for part in fields.split(16)]).numpy()
    tables = []
    for number, name in enumerate(("negative", "phenotype")):
        edges = np.histogram_bin_edges(maps[:, number], _BINS)
        for image, chosen in (("negative", labels == 0), ("positive", labels != 0)):
            # Counted here: the chart holds one row per bin, however many positions there are.
            places = np.histogram(maps[chosen, number], edges)[0]
            table = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "share": places / max(places.sum(), 1)})
            tables.append(table[table["share"] > 0].assign(map=name, image=image))
    return pd.concat(tables, ignore_index=True)[["map", "image", "low", "high", "share"]]


def picture_values(network: WSCNN, fields: Tensor, labels: np.ndarray, path: Path) -> None:
    """Write a PNG of `map_values`, the classes side by side. The vertical axis is logarithmic: few positions decide.

    Parameters
    ----------
    network, fields, labels
        As for `map_values`.
    path
        The file to write.
    """
    values = map_values(network, fields, labels)
    base = (
        alt.Chart(values)
        .mark_rect(opacity=0.6)
        .encode(
            x=alt.X("low:Q", title="value at a position", scale=alt.Scale(zero=False)),
            x2="high:Q",
            y=alt.Y("share:Q", title="share of all positions", scale=alt.Scale(type="log"), axis=alt.Axis(format="~e")),
            y2=alt.value(300),
            color=alt.Color("image:N", title="images", scale=alt.Scale(range=["#0072B2", "#D55E00"])),
        )
        .properties(width=360, height=300)
    )
    chart = alt.hconcat(
        *(
            base.transform_filter(alt.datum["map"] == name).properties(title=f"Map of the class {name}")
            for name in ("negative", "phenotype")
        )
    )
    with atomic_path(path) as partial:
        partial.write_bytes(vl_convert.vegalite_to_png(chart.to_json(), scale=2))


@torch.no_grad()
def _look(network: WSCNN, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return class maps (n, K, h', w') and last-layer maps (n, F, h', w') at the positions of `score_fields`."""
    seen: list[Tensor] = []
    handle = network.classify.register_forward_hook(lambda _, inputs, output: seen.extend([output, inputs[0]]))
    try:
        _, detector = score_fields(network, images)
    finally:
        handle.remove()
    height, width = detector.shape[-2:]
    cuts = []
    for maps in seen:
        # Fields are padded equally at both sides.
        top, left = (maps.shape[-2] - height) // 2, (maps.shape[-1] - width) // 2
        cuts.append(maps[..., top : top + height, left : left + width].float())
    return cuts[0], cuts[1]


def _grey(image: np.ndarray) -> np.ndarray:
    low, high = float(image.min()), float(image.max())
    return np.rint((image - low) * (255 / (high - low or 1))).astype(np.uint8)
