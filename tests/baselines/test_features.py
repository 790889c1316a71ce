"""Features of nuclei against geometry and scikit-image."""

import numpy as np
import pytest
from skimage.draw import disk, ellipse
from skimage.feature import graycomatrix, graycoprops
from skimage.measure import label, regionprops

from wscnn.baselines.features import nucleus_features


@pytest.fixture(scope="module")
def field() -> np.ndarray:
    """A round nucleus, a long one, and a round one with a micronucleus; noise of 1 % of their brightness."""
    image = np.zeros((120, 240))
    image[disk((60, 40), 14)] = 1000
    image[ellipse(60, 120, 10, 24)] = 1000
    image[disk((60, 200), 14)] = 1000
    image[disk((40, 200), 2)] = 800
    return image + 200 + np.random.default_rng(0).normal(0, 10, image.shape)


def nuclei_of(field: np.ndarray) -> np.ndarray:
    """Return the three nuclei from left to right, without the micronucleus."""
    pieces = label(field > 600)
    large = sorted((region for region in regionprops(pieces) if region.area > 100), key=lambda one: one.centroid[1])
    return sum((i + 1) * (pieces == region.label).astype(int) for i, region in enumerate(large))


def test_shape_is_what_scikit_image_measures(field: np.ndarray) -> None:
    labels = label(field > 600)
    found = nucleus_features({"DNA": field}, labels)
    for i, region in enumerate(regionprops(labels)):
        for name, expected in {
            "area": region.area,
            "major_axis": region.axis_major_length,
            "minor_axis": region.axis_minor_length,
            "eccentricity": region.eccentricity,
            "extent": region.extent,
        }.items():
            assert found[name][i] == pytest.approx(expected, rel=1e-6, abs=1e-4), name
        # scikit-image takes other hulls of pixels.
        assert found["solidity"][i] == pytest.approx(region.solidity, abs=0.1)
        assert found["perimeter"][i] == pytest.approx(region.perimeter_crofton, rel=0.03)


def test_intensities_do_not_depend_on_stain_and_background(field: np.ndarray) -> None:
    labels = nuclei_of(field)
    one, other = (nucleus_features({"DNA": image}, labels) for image in (field, 3 * field + 500))
    assert one["level_DNA"] * 3 == pytest.approx(other["level_DNA"])
    for name in one:
        if name != "level_DNA":
            np.testing.assert_allclose(one[name], other[name], rtol=1e-6, atol=1e-9, err_msg=name)


def test_texture_is_that_of_scikit_image() -> None:
    grey = np.random.default_rng(0).integers(0, 8, (24, 24))
    grey[0, 0], grey[0, 1] = 0, 8  # the levels' range, of which the highest counts as the last level
    labels = np.zeros((40, 40), np.int64)
    labels[8:32, 8:32] = 1
    image = np.zeros(labels.shape)
    image[8:32, 8:32] = grey
    found = nucleus_features({"DNA": image}, labels)
    table = graycomatrix(
        grey.clip(0, 7).astype(np.uint8), [1, 2], [0, np.pi / 2], levels=8, symmetric=True, normed=False
    )
    diagonal = graycomatrix(grey.clip(0, 7).astype(np.uint8), [1], [np.pi / 4, 3 * np.pi / 4], 8, symmetric=True)
    pairs = table[:, :, 0].sum(axis=-1) + diagonal[:, :, 0].sum(axis=-1)
    whole = pairs[:, :, None, None].astype(float)
    for ours, theirs in {"contrast": "contrast", "energy": "ASM", "homogeneity": "homogeneity"}.items():
        assert found[f"{ours}_1_DNA"][0] == pytest.approx(graycoprops(whole, theirs)[0, 0]), ours


def test_a_micronucleus_is_a_spot_in_the_ring(field: np.ndarray) -> None:
    found = nucleus_features({"DNA": field}, nuclei_of(field))
    plain, long, with_spot = found["ring_spot_DNA"]
    assert with_spot > 4 * max(plain, long)


def test_nuclei_that_touch_are_measured_apart() -> None:
    labels = np.zeros((80, 120), np.int64)
    labels[20:40, 20:50] = 1
    labels[20:40, 50:60] = 2
    found = nucleus_features({"DNA": np.where(labels == 1, 900.0, labels * 150.0)}, labels)
    assert found["area"].tolist() == [600, 200]
    assert found["solidity"] == pytest.approx([1, 1])
    # By the shorter side: the border between them counts for both.
    assert found["max_radius"].tolist() == [10, 5]
    assert found["mean_DNA"] == pytest.approx([900 / 600, 300 / 600])
    assert found["nearest"] == pytest.approx(20 / np.sqrt(400 / np.pi))


def test_a_field_without_nuclei_has_no_features() -> None:
    assert nucleus_features({"DNA": np.ones((64, 64))}, np.zeros((64, 64), np.int64)) == {}
