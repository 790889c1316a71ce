"""Make micronuclei.png and micronuclei.tsv from the crops of RPE-1 nuclei.

``python resources/pack_micronuclei.py CROPS OUT``: CROPS holds ``cells.npz`` (``images``: (n, 64, 64) uint8; ``masks``:
0 nothing, 1 the nucleus, 2 its own micronuclei) and ``cells.tsv`` (one row per crop), made from hatch-lab/mnfinder.
``resources/README.md`` describes both files and which nuclei are left out.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage

# Grey level of the 80th percentile of a nucleus: bright micronuclei are twice as bright.
_LEVEL = 120
# Alpha of the nucleus and of its micronuclei.
_NUCLEUS, _MICRONUCLEUS = 255, 128
_TILES_PER_ROW = 32
# Below these a nucleus is too dim: grey levels over the background, and multiples of the background's noise.
_LOWEST_CONTRAST, _LOWEST_RATIO = 25.0, 10.0
# Where more than this share of the pixels just beyond the cut is brighter than this part of the nucleus, the cut goes
# through a neighbour or a blurred nucleus and would show as a seam.
_SEAM_SHARE, _SEAM_BRIGHTNESS = 0.1, 0.3


def surroundings(image: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Return the background pixels 4 to 8 px around the mask `own`, without neighbouring nuclei."""
    around = ndimage.binary_dilation(own, iterations=8) & ~ndimage.binary_dilation(own, iterations=3)
    values = image[around]
    for _ in range(5):
        middle = np.median(values)
        spread = 1.4826 * np.median(np.abs(values - middle)) + 0.5
        values = values[values < middle + 3 * spread]
    return values


def cut_out(image: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """Return a crop without background and neighbours, 80th percentile of the nucleus at `_LEVEL`.

    None if the nucleus is too dim or the cut would show.
    """
    own = mask > 0
    background = surroundings(image, own)
    signal = image - background.mean()
    level = np.percentile(signal[mask == 1], 80)
    if level < max(_LOWEST_CONTRAST, _LOWEST_RATIO * background.std()):
        return None
    # One pixel beyond the mask, where the light still fades, and smoothed so that the cut itself is no edge.
    inside = ndimage.binary_dilation(own)
    beyond = ndimage.binary_dilation(inside) & ~inside
    if (ndimage.gaussian_filter(signal, 0.7)[beyond] > _SEAM_BRIGHTNESS * level).mean() > _SEAM_SHARE:
        return None
    reach = ndimage.gaussian_filter(inside.astype(float), 0.5)
    return np.clip(np.rint(signal * reach * (_LEVEL / level)), 0, 255).astype(np.uint8)


def pack(crops: Path, out: Path) -> None:
    """Write both files to the folder `out`."""
    with np.load(crops / "cells.npz", allow_pickle=False) as arrays:
        images, masks = arrays["images"], arrays["masks"]
    cells = pd.read_csv(crops / "cells.tsv", sep="\t")
    cells["date"] = cells["dataset"].str.removesuffix("_RPE1")
    cells["source"] = cells["date"] + "/" + cells["image"].str.removesuffix(".tif")
    cells["class"] = np.where(cells["has_micronucleus"] == 1, "Micronucleated", "Ordinary")
    cells = cells.sort_values(["date", "class", "image", "y", "x"], kind="stable")
    tiles, rows = [], []
    for number, cell in cells.iterrows():
        image, mask = images[number].astype(float), masks[number]
        inside = np.zeros(mask.shape, bool)
        inside[2:-2, 2:-2] = True
        # Cut by the border of the crop, or label and mask disagree.
        if (mask[~inside] > 0).any() or (mask == 2).any() != (cell["class"] == "Micronucleated"):
            continue
        signal = cut_out(image, mask)
        if signal is not None:
            tiles.append(np.stack([signal, np.array([0, _NUCLEUS, _MICRONUCLEUS], np.uint8)[mask]], -1))
            rows.append(cell)
    table = pd.DataFrame(rows)
    table["tile"] = np.arange(len(table))
    table = table.rename(columns={"n_micronuclei": "micronuclei", "micronuclei_area_px": "micronuclei_area"})
    columns = ["tile", "class", "date", "source", "y", "x", "micronuclei", "micronuclei_area"]
    table[columns].to_csv(out / "micronuclei.tsv", sep="\t", index=False, lineterminator="\n")
    down = -(-len(tiles) // _TILES_PER_ROW)
    side = tiles[0].shape[0]
    sheet = np.zeros((down * _TILES_PER_ROW, side, side, 2), np.uint8)
    sheet[: len(tiles)] = tiles
    sheet = sheet.reshape(down, _TILES_PER_ROW, side, side, 2).swapaxes(1, 2)
    Image.fromarray(sheet.reshape(down * side, _TILES_PER_ROW * side, 2)).save(out / "micronuclei.png", optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crops", type=Path, metavar="CROPS")
    parser.add_argument("out", type=Path, metavar="OUT")
    given = parser.parse_args()
    pack(given.crops, given.out)
