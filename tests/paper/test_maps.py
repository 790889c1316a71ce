"""Pictures of a network's maps: each shows what it is of, where it is."""

from pathlib import Path

import numpy as np
import torch
from matched import matched_filter
from skimage.io import imread

from wscnn.paper.maps import map_values, picture_maps

HEIGHT, WIDTH = 96, 128


def image_with(spots: list[tuple[int, int]]) -> torch.Tensor:
    """Return an image (1, h, w) with a bright 9 x 9 square around each spot."""
    image = torch.full((1, HEIGHT, WIDTH), 0.1)
    for y, x in spots:
        image[0, y - 4 : y + 5, x - 4 : x + 5] = 1.0
    return image


def test_the_nine_pictures_show_the_spot_where_it_is(tmp_path: Path) -> None:
    y, x = 60, 92
    picture_maps(matched_filter(), image_with([(y, x)]), 0.0, tmp_path / "maps.png")
    picture = imread(tmp_path / "maps.png")
    assert picture.shape == (3 * HEIGHT + 8, 3 * WIDTH + 8)
    panels = [
        picture[row * (HEIGHT + 4) :, column * (WIDTH + 4) :][:HEIGHT, :WIDTH]
        for row in range(3)
        for column in range(3)
    ]
    image, detector, gradient, negative, positive, first, *others = panels
    for panel in (image, detector, gradient, positive, first):
        brightest = np.argwhere(panel == panel.max()).mean(0)
        assert np.hypot(*(brightest - (y, x))) < 10
    # This network's negative map is 0 everywhere, on the grey scale of the positive one; one filter alone has a weight.
    assert len(np.unique(negative)) == 1 and positive.min() < negative[0, 0] < positive.max()
    assert all(len(np.unique(panel)) == 1 for panel in others)


def test_values_are_counted_over_all_places_of_each_kind_of_image() -> None:
    fields = torch.stack([image_with([]), image_with([]), image_with([(60, 92)])])
    values = map_values(matched_filter(), fields, np.array([0, 0, 1]))
    assert list(values.columns) == ["map", "image", "low", "high", "share"]
    assert np.allclose(values.groupby(["map", "image"])["share"].sum(), 1)
    phenotype = values[values["map"] == "phenotype"].set_index("image")
    # Empty images say "no" at every place; of the 12 x 16 places of the other a few say "yes".
    assert phenotype.loc[["negative"], "high"].max() < 0
    yes = phenotype.loc["positive"].query("low > 0")["share"].sum()
    assert 1 / 192 <= yes <= 9 / 192
