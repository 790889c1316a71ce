"""Cells to paste: real nuclei cut out of their crops, and drawn multinucleate cells."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from skimage.io import imread
from skimage.morphology import disk

from wscnn.core.errors import UserError
from wscnn.simulate.cells import NUCLEI_PHENOTYPES, Nuclei, cut_out, pair, read_tiles
from wscnn.simulate.multinucleate import MultinucleateCells, draw_multinucleate

SHARED = Path(__file__).parents[2] / "../shared/data/mitocheck_cells"


def blob(shape: tuple[int, int], y: float, x: float, sigma_y: float, sigma_x: float) -> np.ndarray:
    rows, columns = np.indices(shape)
    return np.exp(-0.5 * (((rows - y) / sigma_y) ** 2 + ((columns - x) / sigma_x) ** 2))


def test_the_packed_crops_are_the_released_ones() -> None:
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not here")
    images, rows = read_tiles("nuclei")
    for image, row in zip(images, rows, strict=True):
        np.testing.assert_array_equal(image, imread(SHARED / row["class"] / f"{row['name']}.png"))
    assert len(rows) == len(list(SHARED.glob("*/*.png")))


def test_the_crops_have_the_classes_that_their_source_states() -> None:
    _, rows = read_tiles("nuclei")
    assert Counter(row["class"] for row in rows) == {
        "Interphase": 148,
        "Prometaphase": 44,
        "Metaphase": 11,
        "Anaphase": 32,
    }


def test_the_halves_share_no_source_and_both_have_every_class() -> None:
    _, rows = read_tiles("nuclei")
    sources = {half: {row["source"] for row in rows if row["half"] == half} for half in ("first", "second")}
    assert not sources["first"] & sources["second"]
    for half in sources:
        assert len({row["class"] for row in rows if row["half"] == half}) == 4
        rng = np.random.default_rng(0)
        drawn = [Nuclei(half).draw(rng, phenotype) for phenotype in ("", "mitotic") for _ in range(50)]
        assert {nucleus.source for nucleus in drawn} <= sources[half]


def test_cut_out_keeps_the_middle_nucleus_alone() -> None:
    rows, columns = np.indices((64, 64)) - 31.5
    disc = np.hypot(rows, columns) < 9
    crop = 12.0 + 80 * disc + 110 * (np.hypot(rows - 2, columns - 22) < 8) + 90 * (np.hypot(rows + 16, columns) < 8)
    crop = ndimage.gaussian_filter(crop, 1.0)
    signal = cut_out(crop)
    assert signal[ndimage.binary_erosion(disc, iterations=3)].min() > 0.85
    assert signal[np.hypot(rows, columns) > 14].max() < 0.02
    # It fades: no step between neighbouring pixels is larger than the blur of the crop makes it.
    assert np.abs(np.diff(signal, axis=1)).max() < 1.3 * np.abs(np.diff(crop, axis=1)).max() / 80


def test_a_pair_is_two_mirrored_daughters_side_by_side() -> None:
    daughter = ndimage.rotate(blob((64, 64), 31.5, 31.5, 6, 2), 35, reshape=False, order=1)
    both = pair(daughter, 18)
    np.testing.assert_allclose(both, both[:, ::-1])
    assert both.sum() == pytest.approx(2 * daughter.sum(), rel=0.01)
    half = both[:, :32]
    assert (half * np.arange(32)).sum() / half.sum() == pytest.approx(31.5 - 9, abs=0.5)
    # The plates stand across the line between them.
    assert both.max(1).sum() / both.max(0)[:32].sum() == pytest.approx(3, rel=0.25)


@pytest.mark.parametrize("phenotype", ["", *NUCLEI_PHENOTYPES])
def test_a_nucleus_shows_its_phenotype_and_has_no_cut_edge(phenotype: str) -> None:
    rng = np.random.default_rng(1)
    drawn = [Nuclei().draw(rng, phenotype) for _ in range(150)]
    assert {nucleus.kind for nucleus in drawn} == set(NUCLEI_PHENOTYPES.get(phenotype, ("Interphase",)))
    for nucleus in drawn:
        border = [nucleus.signal[0], nucleus.signal[-1], nucleus.signal[:, 0], nucleus.signal[:, -1]]
        assert max(edge.max() for edge in border) < 0.02 * nucleus.signal.max()
        assert nucleus.mask.any()


def test_mitotic_nuclei_are_brighter_but_not_apart() -> None:
    """Condensed chromatin is about twice as bright in the crops; brightness alone must not sort the classes."""
    rng = np.random.default_rng(2)
    level = {}
    for phenotype in ("", "mitotic"):
        nuclei = [Nuclei().draw(rng, phenotype) for _ in range(300)]
        level[phenotype] = [np.percentile(nucleus.signal[nucleus.mask], 80) for nucleus in nuclei]
    assert 1.5 < np.median(level["mitotic"]) / np.median(level[""]) < 2.3
    assert np.percentile(level["mitotic"], 10) < np.percentile(level[""], 95)


def test_no_other_half_is_known() -> None:
    with pytest.raises(UserError, match="third"):
        Nuclei("third")


def count_holes(signal: np.ndarray, mask: np.ndarray) -> int:
    """Count dark discs inside a cell; its grain hides or feigns one now and then."""
    smooth = ndimage.gaussian_filter(signal, 2)
    around = ndimage.gaussian_filter(signal, 14) / np.maximum(ndimage.gaussian_filter(mask.astype(float), 14), 0.1)
    dark = (smooth < 0.65 * around) & ndimage.binary_erosion(mask, iterations=5)
    holes, n = ndimage.label(ndimage.binary_opening(dark, disk(4)))
    depth = ndimage.distance_transform_edt(mask)
    return int((ndimage.maximum(depth, holes, range(1, n + 1)) > 12).sum()) if n else 0


def test_drawn_cells_have_the_nuclei_that_they_say() -> None:
    rng = np.random.default_rng(3)
    bank = MultinucleateCells()
    counted: dict[int, list[int]] = {1: [], 2: [], 3: [], 4: []}
    for phenotype in ("", "multinucleate"):
        for _ in range(60):
            cell = bank.draw(rng, phenotype)
            n = int(cell.kind[0])
            assert (n > 1) == bool(phenotype)
            counted[n].append(count_holes(cell.signal, cell.mask))
    for n, counts in counted.items():
        assert np.mean(counts) == pytest.approx(n, abs=0.7), n


def test_multinucleate_fields_have_the_label_noise_asked_for() -> None:
    images, labels, boxes = draw_multinucleate(10, size=200, label_noise=0.2, fraction=0.2, seed=5)
    assert images.shape == (20, 200, 200)
    assert images.dtype == np.uint16
    rare = boxes.groupby("image")["rare"].sum()
    assert sorted(rare[labels == 0])[-3:] == [0, 1, 1]
    assert (rare[labels == 1] >= 1).all()
    assert boxes.groupby("image").size().between(5, 30).all()
    again, _, _ = draw_multinucleate(10, size=200, label_noise=0.2, fraction=0.2, seed=5)
    np.testing.assert_array_equal(images, again)


def test_multinucleate_fields_refuse_numbers_out_of_range() -> None:
    with pytest.raises(UserError, match="label_noise"):
        draw_multinucleate(2, label_noise=1.5)
    with pytest.raises(UserError, match="n_per_class"):
        draw_multinucleate(0)
