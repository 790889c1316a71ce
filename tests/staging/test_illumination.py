import numpy as np
import pytest

from wscnn.staging.illumination import correct, estimate, tiles

SIDE = 160


def light(vignetting: float, tilt: float) -> np.ndarray:
    """Return a gain map: brightness falls from the middle, and from one side to the other."""
    y, x = (np.mgrid[:SIDE, :SIDE] + 0.5) / SIDE * 2 - 1
    gain = 1 - vignetting * (y**2 + x**2) + tilt * x
    return gain / gain.mean()


def fields(
    n: int,
    gain: np.ndarray,
    seed: int,
    *,
    cells: float = 14,
    background: float = 300,
    offset: float = 0,
    dirt: float = 0.05,
) -> np.ndarray:
    """Return fields of round cells of varied brightness; some are crossed by a very bright bar of dirt."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-9:10, -9:10]
    disc = y**2 + x**2 < 49
    shown = []
    for _ in range(n):
        scene = np.full((SIDE + 40, SIDE + 40), background * rng.lognormal(0, 0.05))
        for _ in range(rng.poisson(cells * (SIDE + 18) ** 2 / SIDE**2)):
            top, left = rng.integers(2, SIDE + 20, 2)
            scene[top : top + 19, left : left + 19] += disc * 800 * rng.lognormal(0, 0.4)
        if rng.random() < dirt:
            scene[rng.integers(20, SIDE) :][:15] += 8000
        shown.append(rng.poisson(scene[20:-20, 20:-20] * gain + offset))
    return np.stack(shown)


def unevenness(gain: np.ndarray, estimated: np.ndarray) -> float:
    """Return what unevenness (relative standard deviation over the field) is left after correction."""
    left = gain / estimated
    return float(left.std() / left.mean())


@pytest.mark.parametrize(
    ("n", "scene", "least"),
    [
        (96, {}, 12),
        (96, {"cells": 1}, 12),
        (96, {"cells": 110, "background": 100}, 5),
        (96, {"background": 300, "offset": 100}, 8),
        (24, {}, 8),
        (12, {}, 4),
    ],
    ids=["usual", "sparse", "confluent", "camera offset", "24 fields", "12 fields"],
)
def test_vignetting_shrinks_many_times(n: int, scene: dict, least: float) -> None:
    gain = light(0.3, 0.1)
    shown = fields(n, gain, 1, **scene)
    estimated, offset = estimate(np.stack([tiles(field) for field in shown]), gain.shape)
    assert estimated.dtype == np.float32 and estimated.shape == gain.shape
    assert estimated.mean() == pytest.approx(1, abs=1e-4)
    before, after = unevenness(gain, np.ones_like(gain)), unevenness(gain, estimated)
    print(f"unevenness {before:.4f} -> {after:.4f}, offset {offset:.0f}")
    assert after < before / least
    assert offset == pytest.approx(scene.get("offset", 0), abs=25)


@pytest.mark.parametrize("n", [4, 8, 30, 96])
@pytest.mark.parametrize("cells", [0, 2, 14])
def test_a_flat_plate_stays_flat(n: int, cells: float) -> None:
    gain = light(0, 0)
    estimated, _ = estimate(np.stack([tiles(field) for field in fields(n, gain, n, cells=cells)]), gain.shape)
    assert unevenness(gain, estimated) < 0.01


def test_too_few_or_black_fields_are_left_alone() -> None:
    grids = np.random.default_rng(0).uniform(100, 200, (3, 20, 20))
    assert (estimate(grids, (30, 40))[0] == 1).all()
    assert (estimate(np.zeros((50, 20, 20)), (30, 40))[0] == 1).all()


def test_tiles_are_means_over_parts_of_the_field() -> None:
    field = np.arange(60 * 40, dtype=np.uint16).reshape(60, 40)
    grid = tiles(field)
    assert grid.shape == (20, 20) and grid[3, 5] == field[9:12, 10:12].mean()
    assert tiles(field[:7, :5]).shape == (7, 5)


def test_correction_divides_what_lies_above_the_offset() -> None:
    gain = np.array([[0.5, 1.5]], np.float32)
    np.testing.assert_allclose(correct(np.array([[150, 250]], np.uint16), gain, 100.0), [[200, 200]])
