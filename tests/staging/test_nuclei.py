import numpy as np
import pytest
from scipy.ndimage import find_objects

from wscnn.simulate.cells import Nuclei
from wscnn.simulate.fields import compose, expose, optics
from wscnn.staging.mosaic import block_means
from wscnn.staging.nuclei import count_nuclei, label_cells


@pytest.mark.parametrize("factor", [1, 2])
def test_composed_fields_of_real_nuclei_are_counted_within_a_tenth(factor: int) -> None:
    rng = np.random.default_rng(0)
    counted, true = [], []
    for n in (8, 20, 36, 36, 60):
        picture = expose(rng, compose(rng, Nuclei(), 360, n * 2 // 3, {}, "").signal, optics(rng, 360, 1.0), 1.0)
        small = picture.reshape(360 // factor, factor, 360 // factor, factor).mean((1, 3))
        counted.append(count_nuclei(small.astype(np.uint16)))
        true.append(n * 2 // 3)
    assert np.abs(np.array(counted) / true - 1).mean() < 0.1
    assert sum(counted) == pytest.approx(sum(true), rel=0.05)


def test_touching_nuclei_are_told_apart() -> None:
    y, x = np.mgrid[:120, :120]
    image = np.random.default_rng(0).normal(100, 5, (120, 120))
    for top, left in ((30, 30), (30, 47), (80, 40), (80, 90), (97, 90)):
        image[(y - top) ** 2 + (x - left) ** 2 < 81] = 800
    assert count_nuclei(image) == 5


@pytest.mark.parametrize("level", [0, 300, 60000])
def test_an_empty_field_has_none(level: int) -> None:
    rng = np.random.default_rng(0)
    assert count_nuclei(np.clip(rng.normal(level, 10, (200, 200)), 0, 65535).astype(np.uint16)) == 0
    assert count_nuclei(np.full((50, 50), level, np.uint16)) == 0


def _field(seed: int, n: int = 36, size: int = 400) -> tuple[list[dict[str, object]], np.ndarray]:
    rng = np.random.default_rng(seed)
    composed = compose(rng, Nuclei(), size, n * size**2 // 540**2, {"mitotic": 0.3}, "")
    return composed.cells, expose(rng, composed.signal, optics(rng, size, 1.0), 1.0)


@pytest.mark.parametrize("factor", [1, 2])
def test_outlines_are_those_of_the_cells(factor: int) -> None:
    overlap: dict[str, list[float]] = {}
    for seed in range(50, 58):
        cells, picture = _field(seed)
        labels = label_cells(block_means(picture, factor))
        boxes = find_objects(labels.astype(np.int32))
        for cell in cells:
            true = np.array([cell[side] for side in ("y0", "x0", "y1", "x1")], float) / factor
            at = labels[int((true[0] + true[2]) / 2), int((true[1] + true[3]) / 2)]
            overlap.setdefault(str(cell["class"]), []).append(_iou(true, boxes[at - 1]) if at else 0.0)
    medians = {kind: np.median(values) for kind, values in overlap.items()}
    assert sorted(medians) == ["Anaphase", "Interphase", "Metaphase", "Prometaphase"]
    assert min(medians.values()) > 0.75, medians


def _iou(true: np.ndarray, box: tuple[slice, slice]) -> float:
    found = np.array([box[0].start, box[1].start, box[0].stop, box[1].stop], float)
    shared = np.clip(np.minimum(true[2:], found[2:]) - np.maximum(true[:2], found[:2]), 0, None).prod()
    return float(shared / ((true[2:] - true[:2]).prod() + (found[2:] - found[:2]).prod() - shared))


@pytest.mark.parametrize(("gain", "offset"), [(3.0, 0.0), (0.01, 0.0), (1.0, 5000.0), (0.5, -70.0)])
def test_labels_do_not_depend_on_gain_and_offset(gain: float, offset: float) -> None:
    picture = _field(1)[1].astype(float)
    changed = label_cells(picture * gain + offset) != label_cells(picture)
    assert changed.mean() < 0.001


def test_a_mirrored_field_has_mirrored_outlines() -> None:
    picture = _field(2)[1]
    labels = label_cells(picture)
    for other in (label_cells(picture[:, ::-1])[:, ::-1], label_cells(picture.T).T):
        assert other.max() == labels.max()
        assert ((other > 0) != (labels > 0)).mean() < 0.003


def test_a_dim_nucleus_is_found_beside_a_bright_one() -> None:
    y, x = np.mgrid[:120, :120]
    image = np.random.default_rng(0).normal(100, 5, (120, 120))
    image[(y - 50) ** 2 + (x - 40) ** 2 < 81] += 3000
    image[(y - 50) ** 2 + (x - 64) ** 2 < 81] += 700
    image[(y - 95) ** 2 + (x - 95) ** 2 < 81] += 700
    labels = label_cells(image)
    assert labels.max() == 3
    dim = labels == labels[50, 64]
    assert dim.sum() == pytest.approx(np.pi * 81, rel=0.25)


@pytest.mark.parametrize("kind", ["clipped", "photons", "slope", "bright pixels", "vignetting"])
def test_noise_is_no_cells(kind: str) -> None:
    rng = np.random.default_rng(3)
    shape = 400, 400
    image = rng.normal(300, 15, shape)
    if kind == "clipped":
        image = np.clip(rng.normal(0, 10, shape), 0, None).astype(np.uint16)
    elif kind == "photons":
        image = rng.poisson(0.5, shape).astype(np.uint16)
    elif kind == "slope":
        image += 1.5 * np.arange(400)
    elif kind == "bright pixels":
        image[rng.integers(0, 400, 20), rng.integers(0, 400, 20)] = 4000
    else:
        image = expose(rng, np.zeros(shape, np.float32), optics(rng, 400, 1.0), 1.0)
    assert not label_cells(image).any()


@pytest.mark.parametrize("shape", [(1, 1), (5, 300), (9, 9), (200, 37)])
def test_labels_have_the_shape_of_the_field(shape: tuple[int, int]) -> None:
    labels = label_cells(np.random.default_rng(0).integers(0, 9, shape).astype(np.uint8))
    assert labels.shape == shape
    assert labels.dtype == np.uint32
