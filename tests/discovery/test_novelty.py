"""Cells unlike those of negative controls: what is new stands out, and what is not does not."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.spatial import KDTree

from wscnn.core.errors import UserError
from wscnn.discovery.novelty import (
    NoveltyModel,
    deal,
    fit_references,
    load_novelty,
    nearest,
    save_novelty,
    scales_of,
)

FEATURES = 6


def wells_of(random: np.random.Generator, n: int, novel: float = 0.0, cells: int = 60) -> dict[str, np.ndarray]:
    """Return made-up features of the cells of `n` wells of a plate, a share of them new, with effects of wells."""
    made = {}
    for well in range(n):
        features = random.normal(random.normal(0, 0.3, FEATURES), 1, (cells, FEATURES))
        features[: round(novel * cells), :2] += 6
        made[f"p/A{well + 1:02d}"] = features
    return made


def shares(negatives: dict, samples: dict, seed: int = 0) -> tuple[list[float], list[float]]:
    """Return the shares of novel cells of negative controls, each by its own part's reference, and of samples."""
    parts = {f"p/{well}": part for well, part in deal([key[2:] for key in negatives], seed).items()}
    references, _ = fit_references(negatives, parts, seed)
    scales = scales_of(negatives, parts)
    assert scales is not None

    def share(cells: np.ndarray, part: int) -> float:
        return float((references[part].score(scales[part](cells)) > 1).mean())

    held_out = [share(cells, parts[well]) for well, cells in negatives.items()]
    return held_out, [float(np.mean([share(cells, part) for part in range(3)])) for cells in samples.values()]


def test_inactive_samples_score_as_held_out_negative_controls_do() -> None:
    """Judged by references that hold their own cells, negative controls would score lower than any sample."""
    above = []
    for seed in range(40):
        random = np.random.default_rng(seed)
        held_out, inactive = (np.array(own) for own in shares(wells_of(random, 12), wells_of(random, 12), seed))
        difference = inactive[:, None] - held_out[None]
        above.append((difference > 0).mean() + 0.5 * (difference == 0).mean())
    # The standard error over 40 screens is about 0.02.
    assert np.mean(above) == pytest.approx(0.5, abs=0.05)


def test_samples_with_new_cells_score_higher() -> None:
    random = np.random.default_rng(0)
    held_out, active = shares(wells_of(random, 12), wells_of(random, 8, novel=0.2))
    assert min(active) > max(held_out)
    assert np.mean(held_out) == pytest.approx(0.05, abs=0.02)


def test_a_few_odd_cells_of_negative_controls_do_not_hide_new_ones() -> None:
    random = np.random.default_rng(0)
    negatives = wells_of(random, 12, novel=1 / 60)
    held_out, active = shares(negatives, wells_of(random, 8, novel=0.2))
    assert np.mean(np.subtract.outer(active, held_out) > 0) > 0.95


def test_distances_are_those_to_the_five_nearest() -> None:
    random = np.random.default_rng(0)
    reference, cells = (random.normal(size=(n, FEATURES)).astype(np.float32) for n in (700, 1200))
    expected = KDTree(reference).query(cells, k=5)[0].mean(1)
    np.testing.assert_allclose(nearest(cells, reference), expected, rtol=1e-3)


def test_a_plate_without_two_wells_in_every_part_has_no_scale() -> None:
    random = np.random.default_rng(0)
    negatives = wells_of(random, 6)
    parts = {well: n % 3 for n, well in enumerate(negatives)}
    assert scales_of(negatives, parts) is not None
    negatives["p/A01"] = negatives["p/A01"][:0]
    assert scales_of(negatives, parts) is None


def test_parts_do_not_depend_on_the_order_of_wells() -> None:
    wells = [f"A{n:02d}" for n in range(1, 9)]
    assert deal(wells, 3) == deal(wells[::-1], 3)
    assert np.bincount(list(deal(wells, 3).values())).tolist() == [3, 3, 2]


def test_a_model_is_read_back_and_other_files_are_refused(tmp_path: Path) -> None:
    negatives = wells_of(np.random.default_rng(0), 6)
    parts = {well: n % 3 for n, well in enumerate(negatives)}
    references, objects = fit_references(negatives, parts, 0)
    model = NoveltyModel(references, objects, "s", ["DNA"], 0.65, "abc", True, parts, settings={"method": "novelty"})
    save_novelty(tmp_path / "novelty.safetensors", model)
    back = load_novelty(tmp_path / "novelty.safetensors")
    assert (back.parts, back.objects, back.channels) == (parts, objects, ["DNA"])
    for one, other in zip(back.references, references, strict=True):
        np.testing.assert_array_equal(one.cells, other.cells)
        assert (one.middle, one.limit) == (other.middle, other.limit)
    save_file({"scale": np.zeros(3)}, tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    for name in ("other", "text", "missing"):
        with pytest.raises(
            UserError, match=rf"{name}\.safetensors: is not a model of novelty .*run `wscnn novelty` again"
        ):
            load_novelty(tmp_path / f"{name}.safetensors")
