"""Detected cells with their features, plate by plate: the rows of AnnData, CytoTable and Fractal exports.

Nothing is measured here. Shape comes from the table of objects; the features of novel cells from what discovery wrote;
textbook features from the table of nuclei, of the nucleus whose centre lies in the cell's box.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from wscnn.core.tables import CELLS, FEATURES, read_table
from wscnn.core.wells import NOVELTY
from wscnn.export.finished import FinishedScreen, columns_of

#: Prefix of the textbook features in the table of nuclei.
TEXTBOOK = "feature_"
#: Columns that describe a detected cell, other than its features.
DESCRIBED = ["plate", "well", "field", "phenotype", "object", "y", "x", "score"]
#: Features that every detected cell has, and what they are.
SHAPE = {
    "area_px": "Area of the mask, mosaic pixels",
    "height_px": "Height of the mask's box, mosaic pixels",
    "width_px": "Width of the mask's box, mosaic pixels",
    "extent": "Area of the mask over that of its box",
}
#: Scores of a well that stand for its features where no cell was detected.
WELL_FEATURES = [
    "score",
    "score_sd",
    "score_max",
    "fraction_positive_fields",
    "n_objects",
    "object_area_fraction",
    "n_cells",
    "cell_intensity",
    "z",
]


@dataclass(frozen=True)
class Feature:
    """A feature of detected cells.

    Attributes
    ----------
    name
        Its name, unique among all features.
    kind
        What it is measured on: ``Cells`` (the mask) or ``Nuclei``, as CellProfiler calls compartments.
    meaning
        One sentence.
    """

    name: str
    kind: str
    meaning: str


def features_of(screen: FinishedScreen) -> list[Feature]:
    """Return the features that the screen's detected cells have, those of all plates, in a fixed order."""
    n_learned = 0
    for plate in screen.plate_names:
        path = screen.folder.features(plate)
        if n_learned == 0 and path.is_file() and columns_of(path)[1]:
            n_learned = len(read_table(path, FEATURES)["feature"].iloc[0])
    return [
        *(Feature(name, "Cells", meaning) for name, meaning in SHAPE.items()),
        *(
            Feature(_learned(i), "Cells", "Feature of the encoder, or at the end measure of the cell; novel cells only")
            for i in range(n_learned)
        ),
        *(
            Feature(f"nucleus_{name}", "Nuclei", f"Textbook feature of the nucleus: {name}")
            for name in textbook(screen)
        ),
    ]


def textbook(screen: FinishedScreen) -> list[str]:
    """Return the names of the textbook features in the tables of nuclei of all plates, without their prefix."""
    names: dict[str, None] = {}
    for plate in screen.plate_names:
        if (path := screen.folder.cells(plate)).is_file():
            own, _ = columns_of(path)
            names |= dict.fromkeys(name.removeprefix(TEXTBOOK) for name in own if name.startswith(TEXTBOOK))
    return list(names)


def _learned(number: int) -> str:
    return f"encoder_{number:04d}"


def cells_with_features(screen: FinishedScreen, features: list[Feature]) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
    """Yield for each plate the detected cells, and their features as float32, shape (cell, feature).

    Parameters
    ----------
    screen
        The screen.
    features
        Those of `features_of`; a value that a cell does not have is NaN.
    """
    for plate in screen.plate_names:
        objects = screen.objects(plate)
        yield objects, measured(screen, plate, objects, features)


def measured(screen: FinishedScreen, plate: str, objects: pd.DataFrame, features: list[Feature]) -> np.ndarray:
    """Return the features of the detected cells of a plate as float32, shape (cell, feature)."""
    height, width = objects["y1"] - objects["y0"], objects["x1"] - objects["x0"]
    shape = pd.DataFrame(
        {
            "area_px": objects["area_px"],
            "height_px": height,
            "width_px": width,
            "extent": objects["area_px"] / (height * width),
        }
    )
    table = pd.concat([shape, _of_novelty(screen, plate, objects), _of_nuclei(screen, plate, objects)], axis=1)
    return table.reindex(columns=[feature.name for feature in features]).to_numpy(np.float32)


def _of_novelty(screen: FinishedScreen, plate: str, objects: pd.DataFrame) -> pd.DataFrame:
    """Return the encoder's features of the novel cells among the objects."""
    path = screen.folder.features(plate)
    if not path.is_file() or not len(known := read_table(path, FEATURES)):
        return pd.DataFrame(index=objects.index)
    values = np.stack(known["feature"].to_list())
    keys = pd.MultiIndex.from_frame(known[["well", "object"]])
    table = pd.DataFrame(values, keys, [_learned(i) for i in range(values.shape[1])])
    novel = objects[objects["phenotype"] == NOVELTY]
    found = table.reindex(pd.MultiIndex.from_frame(novel[["well", "object"]])).set_axis(novel.index)
    return found.reindex(objects.index)


def _of_nuclei(screen: FinishedScreen, plate: str, objects: pd.DataFrame) -> pd.DataFrame:
    """Return the textbook features of the nearest nucleus whose centre lies in each object's box."""
    path = screen.folder.cells(plate)
    if not path.is_file() or objects.empty or not len(nuclei := read_table(path, CELLS)):
        return pd.DataFrame(index=objects.index)
    codes = {well: code for code, well in enumerate(objects["well"].unique())}
    nuclei = nuclei[nuclei["well"].isin(codes)]
    names = [name for name in nuclei.columns.astype(str) if name.startswith(TEXTBOOK)]
    if nuclei.empty:
        return pd.DataFrame(index=objects.index)
    # Wells lie too far apart along a third axis for a nucleus of another one to be the nearest.
    apart = 4 * max(objects[["y", "x"]].to_numpy().max(), nuclei[["y", "x"]].to_numpy().max()) + 1

    def positions(table: pd.DataFrame) -> np.ndarray:
        return np.column_stack([table["well"].map(codes) * apart, table["y"], table["x"]])

    _, nearest = KDTree(positions(nuclei)).query(positions(objects))
    of = nuclei.iloc[np.asarray(nearest)].set_axis(objects.index)
    inside = (of["well"] == objects["well"]) & (of["field"] == objects["field"])
    for axis in ("y", "x"):
        inside &= (of[axis] >= objects[f"{axis}0"] - 0.5) & (of[axis] < objects[f"{axis}1"] - 0.5)
    return of[names].where(inside).rename(columns=lambda name: f"nucleus_{name.removeprefix(TEXTBOOK)}")
