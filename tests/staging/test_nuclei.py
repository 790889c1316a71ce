import numpy as np
import pytest

from wscnn.simulate.cells import Nuclei
from wscnn.simulate.fields import compose, expose, optics
from wscnn.staging.nuclei import count_nuclei


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
