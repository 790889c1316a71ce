"""RPE-1 nuclei with and without micronuclei: what ships, and what is drawn from it."""

import csv
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from skimage.io import imread

from wscnn.core.errors import UserError
from wscnn.simulate.cells import read_tiles
from wscnn.simulate.micronuclei import MicronucleatedNuclei
from wscnn.statistics.roc import auc

ROOT = Path(__file__).parents[2]
SHARED = ROOT / "../shared/data/micronuclei"
DATES = ("2022-03-18", "2022-04-14", "2022-05-25", "2022-05-26")


@pytest.fixture(scope="module")
def crops() -> tuple[np.ndarray, np.ndarray, dict[tuple[str, ...], int]]:
    """Return the images and masks that the sheet was made from, and the number of each by source and position."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not here")
    with (SHARED / "cells.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    names = [(row["dataset"][:10] + "/" + row["image"].removesuffix(".tif"), row["y"], row["x"]) for row in rows]
    with np.load(SHARED / "cells.npz") as arrays:
        return arrays["images"], arrays["masks"], {name: i for i, name in enumerate(names)}


def test_the_script_makes_the_files_that_ship(crops, tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "resources/pack_micronuclei.py", SHARED, tmp_path], check=True)
    assert (tmp_path / "micronuclei.tsv").read_bytes() == (ROOT / "resources/micronuclei.tsv").read_bytes()
    made, shipped = (imread(folder / "micronuclei.png") for folder in (tmp_path, ROOT / "resources"))
    # A grey level of room for the rounding of other versions of SciPy.
    np.testing.assert_allclose(made.astype(int), shipped.astype(int), rtol=0, atol=1)


def test_tiles_are_the_source_crops_without_background_and_neighbours(crops) -> None:
    images, masks, number = crops
    tiles, rows = read_tiles("micronuclei")
    for tile, row in zip(tiles, rows, strict=True):
        i = number[row["source"], row["y"], row["x"]]
        signal, mask = tile[..., 0], masks[i]
        np.testing.assert_array_equal(tile[..., 1], np.array([0, 255, 128])[mask])
        assert (mask == 2).any() == (row["class"] == "Micronucleated") == (int(row["micronuclei"]) > 0)
        # Away from its edge the nucleus is the source's, but for an offset and a factor.
        inside = ndimage.binary_erosion(mask == 1, iterations=2) & (signal < 255)
        assert np.corrcoef(signal[inside], images[i][inside])[0, 1] > 0.99
        assert np.percentile(signal[mask == 1], 80) == pytest.approx(120, abs=4)
        # Beyond three pixels nothing is left.
        assert signal[~ndimage.binary_dilation(mask > 0, iterations=3)].max(initial=0) == 0


def test_every_image_of_every_date_ships_nuclei_of_both_classes_and_the_whole_stays_small() -> None:
    _, rows = read_tiles("micronuclei")
    assert {row["date"] for row in rows} == set(DATES) == set(MicronucleatedNuclei.groups)
    counts = Counter((row["source"], row["class"]) for row in rows)
    assert len(counts) == 2 * 12 and min(counts.values()) >= 5
    assert all(row["source"].startswith(row["date"]) for row in rows)
    assert sum(path.stat().st_size for path in (ROOT / "resources").iterdir()) < 5e6
    assert "Copyright (c) 2023 Lucian DiPeso" in (ROOT / "resources/micronuclei.LICENSE.txt").read_text()


def test_no_cut_goes_through_light() -> None:
    """A cut through a neighbour ends in a bright straight edge, where a natural edge has faded."""
    for tile in read_tiles("micronuclei")[0]:
        mask = tile[..., 1] > 0
        outline = ndimage.binary_dilation(mask) & ~mask
        assert (tile[..., 0][outline] > 60).mean() < 0.1


@pytest.mark.parametrize("phenotype", ["", "micronuclei"])
def test_a_nucleus_is_of_its_dates_and_class_and_has_no_cut_edge(phenotype: str) -> None:
    rng = np.random.default_rng(1)
    bank = MicronucleatedNuclei("2022-04-14", "2022-05-25")
    drawn = [bank.draw(rng, phenotype) for _ in range(300)]
    assert {nucleus.kind for nucleus in drawn} == {"Micronucleated" if phenotype else "Ordinary"}
    assert {nucleus.source[:10] for nucleus in drawn} == {"2022-04-14", "2022-05-25"}
    for nucleus in drawn:
        border = [nucleus.signal[0], nucleus.signal[-1], nucleus.signal[:, 0], nucleus.signal[:, -1]]
        assert max(edge.max() for edge in border) < 0.02 * nucleus.signal.max()
        assert 80 < nucleus.mask.sum() < 2500
        # What is bright lies in the mask or beside it.
        near = ndimage.binary_dilation(nucleus.mask, iterations=3)
        assert nucleus.signal[~near].max(initial=0) < 0.35 * nucleus.signal.max()


def test_source_brightness_and_size_of_the_nucleus_do_not_reveal_the_class() -> None:
    rng = np.random.default_rng(2)
    bank = MicronucleatedNuclei()
    drawn = {phenotype: [bank.draw(rng, phenotype) for _ in range(600)] for phenotype in ("", "micronuclei")}
    ordinary, rare = (Counter(nucleus.source for nucleus in nuclei) for nuclei in drawn.values())
    assert ordinary.keys() == rare.keys() and len(rare) == 12
    for source in rare:
        assert rare[source] == pytest.approx(ordinary[source], abs=5 * np.sqrt(ordinary[source] + rare[source]))
    dates = Counter(source[:10] for source in rare.elements())
    assert all(dates[date] == pytest.approx(150, abs=50) for date in DATES)

    def main_part(nucleus) -> np.ndarray:
        parts, n = ndimage.label(nucleus.mask)
        sizes = ndimage.sum_labels(nucleus.mask, parts, range(1, n + 1))
        return nucleus.signal[parts == 1 + np.argmax(sizes)]

    for feature in (np.sum, np.size, lambda light: np.percentile(light, 80)):
        of_class = [np.array([feature(main_part(nucleus)) for nucleus in nuclei]) for nuclei in drawn.values()]
        assert 0.42 < auc(*of_class) < 0.6


def test_a_date_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match="2022-05-27"):
        MicronucleatedNuclei("2022-05-27")
