"""One feature vector per cell, from the positions of the encoder's map that are its own."""

import numpy as np
import torch

from wscnn.discovery.cells import MOST_CELLS, describe
from wscnn.network.model import WSCNN, field_features
from wscnn.staging.cell_measures import cell_measures, n_measures
from wscnn.staging.regions import SIDE, outline, regions


def image_with_cells(seed: int = 0, size: int = 160) -> np.ndarray:
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    image = random.normal(0.05, 0.01, (size, size))
    for row in range(24, size, 40):
        for column in range(24, size, 40):
            image += random.uniform(0.5, 1) * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 50)
    return image[None].astype(np.float32)


def network() -> WSCNN:
    torch.manual_seed(0)
    return WSCNN("encoder", "noisy_or", 1, 2).eval()


def test_features_are_mean_and_maximum_over_the_positions_of_a_cell() -> None:
    image, encoder = image_with_cells(), network()
    [cells] = describe(encoder, image[None], outlined=True)
    labels = outline(image)
    np.testing.assert_array_equal(cells.labels, labels)
    region = regions(labels, encoder.stride)
    with torch.no_grad():
        maps = field_features(encoder, torch.from_numpy(image[None]))[0].numpy()
    assert len(cells.numbers) >= 9
    for number, vector in zip(cells.numbers, cells.features, strict=True):
        own = maps[:, region == number]
        expected = np.concatenate([own.mean(1), own.max(1), cell_measures(image, labels)[number - 1]])
        np.testing.assert_allclose(vector, expected, rtol=2e-3, atol=1e-3)
        assert (labels == number).sum() == cells.area[list(cells.numbers).index(number)]


def test_without_outlines_a_field_is_cut_into_squares() -> None:
    image, encoder = image_with_cells(), network()
    [cells] = describe(encoder, image[None], outlined=False)
    side = SIDE * encoder.stride
    assert len(cells.numbers) == (160 // side) ** 2 == 25
    assert (cells.area == side**2).all()
    np.testing.assert_allclose(cells.intensity[0], image[0, :side, :side].mean(), rtol=1e-5)


def test_an_empty_field_has_no_cell() -> None:
    [cells] = describe(network(), np.zeros((1, 1, 160, 160), np.float32), outlined=True)
    assert cells.features.shape == (0, 128 + n_measures(1)) and not cells.labels.any()


def test_a_crowded_field_keeps_cells_all_over_it(monkeypatch) -> None:
    monkeypatch.setattr("wscnn.discovery.cells.MOST_CELLS", 5)
    assert MOST_CELLS > 5
    image, encoder = image_with_cells(), network()
    [cells] = describe(encoder, image[None], outlined=True)
    assert len(cells.numbers) == 5 and cells.features.shape == (5, 128 + n_measures(1))
    assert cells.numbers[-1] == cells.labels.max()
