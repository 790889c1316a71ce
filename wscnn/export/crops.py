"""Images of the highest-scoring cells of each hit and of the controls, for people and for other networks.

Each cell is written twice: all channels as they were staged (TIFF, for measurements), and as a viewer shows them (PNG).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pandas as pd
import tifffile

from wscnn.core.errors import UserError
from wscnn.core.progress import progress
from wscnn.export.finished import FinishedScreen
from wscnn.export.sheets import write_csv
from wscnn.plates.store import Plate
from wscnn.reporting.pictures import compose, contrast, crop_box, picture_side

#: Most cells of a perturbation, and of the controls of each kind.
CELLS = 48
_DESCRIBED = ["perturbation", "role", "phenotype", "rank_in_group", "score", "plate", "well", "field", "object"]
_BOX = ["y0", "x0", "y1", "x1"]


def write(screen: FinishedScreen, path: Path) -> None:
    """Write ``crops.csv``, and below ``tiff`` and ``png`` one image per row, into the folder `path`.

    Raises
    ------
    UserError
        When no cell was detected, or the images of a plate are no longer there.
    """
    if not screen.has_objects:
        raise UserError(
            f"{screen.folder.path}: no cell was detected (objects/<plate>.parquet), so there is none to cut out; the "
            "model card (model/README.md) says how well the model finds the phenotype"
        )
    screen.stores()
    chosen = _chosen(screen)
    if chosen.empty:
        raise UserError(f"{screen.folder.path}: no cell was detected in any hit or control; there is none to cut out")
    side = picture_side(chosen)
    for folder in ("tiff", "png"):
        (path / folder).mkdir()
    table = _table(chosen)
    write_csv(table, path / "crops.csv")
    for _ in progress(_cut(screen, chosen.assign(crop=table["crop"]), side, path), chosen["plate"].nunique(), "plates"):
        pass


def _chosen(screen: FinishedScreen) -> pd.DataFrame:
    """Return the cells to cut out: of each hit, and of the controls of each phenotype, the highest scores.

    Plates are read one after another; no more than the highest of each group are held.
    """
    hits = screen.hits[screen.hits["hit"].astype(bool)]
    called = pd.MultiIndex.from_frame(hits[["perturbation", "phenotype"]])
    best = pd.DataFrame()
    for plate in screen.plate_names:
        cells = screen.objects(plate)
        hit = pd.MultiIndex.from_frame(cells[["perturbation", "phenotype"]]).isin(called) & (cells["role"] == "sample")
        # A positive control of another phenotype is none for this one.
        own = (cells["control_phenotype"] == "") | (cells["control_phenotype"] == cells["phenotype"])
        positive = (cells["role"] == "positive") & own
        kept = cells[hit | positive | (cells["role"] == "negative")]
        group = kept["perturbation"].where(kept["role"] == "sample", "")
        best = pd.concat([best, kept.assign(group=group)], ignore_index=True)
        if not best.empty:
            best = best.sort_values(
                ["score", "plate", "well", "object"], ascending=[False, True, True, True], kind="stable"
            )
            best = best.groupby(["phenotype", "role", "group"], sort=False).head(CELLS)
    if best.empty:
        return best
    best["rank_in_group"] = best.groupby(["phenotype", "role", "group"], sort=False).cumcount() + 1
    rank = hits[["perturbation", "phenotype", "rank"]].astype({"rank": "float64"})
    best = best.merge(rank, on=["perturbation", "phenotype"], how="left")
    # Hits in their order, then positive and negative controls.
    best["order"] = best["role"].map({"sample": 0, "positive": 1, "negative": 2})
    return best.sort_values(["phenotype", "order", "rank", "group", "rank_in_group"], ignore_index=True)


def _table(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the table of crops: where each cell is, and the files of its images."""
    name = cells["phenotype"] + "_" + cells["plate"] + "_" + cells["well"] + "_" + cells["object"].astype(str)
    table = cells[[*_DESCRIBED, "y", "x", *_BOX, "area_px"]].copy()
    table.insert(0, "crop", name)
    return table.assign(tiff="tiff/" + name + ".tif", png="png/" + name + ".png")


def _cut(screen: FinishedScreen, cells: pd.DataFrame, side: int, path: Path) -> Iterator[str]:
    """Write the images of each plate, one well in memory at a time; yield the plate when it is done."""
    for name, on_plate in cells.groupby("plate", sort=True):
        plate = Plate(screen.folder.plate(str(name)))
        crops = {}
        for well, own in on_plate.groupby("well", sort=True):
            mosaic, fields = plate.read(str(well)), plate.fields(str(well)).set_index("field")
            for cell in own.to_dict("records"):
                rows, columns = crop_box(cell["y"], cell["x"], side, fields.loc[cell["field"]])
                crops[cell["crop"]] = mosaic[:, rows, columns].copy()
        # One contrast for all crops of a plate.
        shown = contrast(list(crops.values()), plate.channels)
        for crop, image in crops.items():
            _write_tiff(path / "tiff" / f"{crop}.tif", image, plate)
            png = imagecodecs.png_encode(compose(image, plate.channels, shown), level=6)
            (path / "png" / f"{crop}.png").write_bytes(png)
        yield str(name)


def _write_tiff(path: Path, image: np.ndarray, plate: Plate) -> None:
    metadata: dict[str, Any] = {"axes": "CYX", "Labels": [channel.name for channel in plate.channels]}
    if len(image) > 1:
        metadata["mode"] = "composite"
    resolution = None
    if (size := plate.pixel_size_um) is not None:
        metadata["unit"] = "um"
        resolution = (1 / size, 1 / size)
    # As ImageJ writes them: OME-TIFF would hold a random identifier, so that equal crops differed.
    tifffile.imwrite(path, image, imagej=True, metadata=metadata, resolution=resolution)
