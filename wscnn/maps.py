"""What a network's maps look like: beside the image that they are of, and their values over many images.

After figure 3 of Sailem et al. (ICCV Workshops 2017): where the phenotype is, the map of its class is high and the map
of the negative class is low, and the highest value of an image tells positive from negative.
"""

from pathlib import Path

import altair as alt
import imagecodecs
import numpy as np
import pandas as pd
import torch
import vl_convert
from torch import Tensor

from wscnn.atomic import atomic_path
from wscnn.model import WSCNN, score_fields
from wscnn.saliency import saliency

#: White lines between the pictures, in pixels.
_GAP = 4


def picture_maps(network: WSCNN, image: Tensor, threshold: float, path: Path) -> None:
    """Write a PNG: the image, its detector's map, and its saliency, side by side.

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
    height, width = image.shape[-2:]
    stride = network.stride
    detector = maps[0, 0].cpu().numpy().repeat(stride, 0).repeat(stride, 1)[:height, :width]
    panels = [_grey(image[0].cpu().numpy()), _grey(detector), _grey(gradients[0, 0].cpu().numpy())]
    line = np.full((height, _GAP), 255, np.uint8)
    picture = np.concatenate([panels[0], line, panels[1], line, panels[2]], axis=1)
    with atomic_path(path) as partial:
        partial.write_bytes(imagecodecs.png_encode(picture, level=9))


@torch.no_grad()
def picture_values(network: WSCNN, fields: Tensor, labels: np.ndarray, path: Path) -> None:
    """Write a PNG: how the highest values of the detector's map spread over negative and positive images.

    Parameters
    ----------
    network
        In evaluation mode; its first phenotype is shown.
    fields
        Shape (n, C, h, w), on the network's device.
    labels
        Shape (n,): 0 is negative.
    path
        The file to write.
    """
    maps = torch.cat([score_fields(network, part.float())[1] for part in fields.split(16)])
    rows = pd.DataFrame(
        {
            "highest": maps[:, 0].amax((1, 2)).cpu().numpy(),
            "image": np.where(labels == 0, "negative", "positive"),
        }
    )
    # Counted here: the chart holds a row a bin, however many images there are.
    edges = np.histogram_bin_edges(rows["highest"], 40)
    counts = pd.concat(
        pd.DataFrame({"from": edges[:-1], "to": edges[1:], "images": np.histogram(part["highest"], edges)[0]}).assign(
            image=image
        )
        for image, part in rows.groupby("image")
    )
    chart = (
        alt.Chart(counts)
        .mark_rect(opacity=0.6)
        .encode(
            x=alt.X("from:Q", title="highest value of the detector's map (log-odds)"),
            x2="to:Q",
            y=alt.Y("images:Q", title="images"),
            y2=alt.value(300),
            color=alt.Color("image:N", title=None, scale=alt.Scale(range=["#0072B2", "#D55E00"])),
        )
        .properties(width=420, height=300)
    )
    with atomic_path(path) as partial:
        partial.write_bytes(vl_convert.vegalite_to_png(chart.to_json(), scale=2))


def _grey(image: np.ndarray) -> np.ndarray:
    low, high = float(image.min()), float(image.max())
    return np.rint((image - low) * (255 / (high - low or 1))).astype(np.uint8)
