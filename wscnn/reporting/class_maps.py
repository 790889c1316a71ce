"""The detector's maps of single fields, as the folds that may score their wells give them together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from skimage.feature import peak_local_max

from wscnn.core.screen_folder import ScreenFolder
from wscnn.core.tables import read_table
from wscnn.core.wells import DISCOVERED
from wscnn.plates.fields import read_fields
from wscnn.plates.store import BOX, Plate
from wscnn.reporting.results import Results, concat

# Fields per perturbation in which positions are looked for.
_FIELDS = 3


@dataclass(frozen=True)
class ClassMap:
    """A detector's map of one field.

    Attributes
    ----------
    values
        Log-odds at each position, shape (h', w').
    stride
        Pixels between two positions.
    threshold
        Log-odds above which a position belongs to a detected object.
    """

    values: np.ndarray
    stride: int
    threshold: float

    def pixels(self, height: int, width: int) -> np.ndarray:
        """Return one value per pixel of the field, shape (height, width)."""
        wide = self.values.repeat(self.stride, axis=0).repeat(self.stride, axis=1)
        return wide[:height, :width]


def class_maps(results: Results, rows: Sequence[Any]) -> list[ClassMap]:
    """Return the detector's map of each row's field: the mean over the folds that may score the well, as in scoring.

    Parameters
    ----------
    results
        The screen, with the model's weights and the staged plates of the rows.
    rows
        Each with ``plate, well, field, phenotype``.
    """
    import torch

    from wscnn.network.card import folds_of
    from wscnn.network.model import cells_in, score_fields
    from wscnn.network.weights import load_folds

    # There are few fields: one thread always sums in the same order, so that equal results make equal reports.
    torch.set_num_threads(1)
    folds = load_folds(results.models.path)
    cards = [card for _, card in folds]
    plates = {name: Plate(results.folder.plate(name)) for name in sorted({row.plate for row in rows})}
    maps = []
    for row in rows:
        plate = plates[row.plate]
        box = plate.fields(row.well).set_index("field").loc[[row.field], BOX].to_numpy()
        field = torch.from_numpy(read_fields(plate, row.well, cards[0].channels, box))
        chosen = [folds[k] for k in folds_of(f"{row.plate}/{row.well}", cards)]
        with torch.inference_mode():
            cells = cells_in([model for model, _ in chosen], field)
            seen = torch.stack([score_fields(model, field, cells)[1] for model, _ in chosen]).mean(0)
        values = seen[0, cards[0].phenotypes.index(row.phenotype)].numpy()
        threshold = float(np.mean([card.thresholds[row.phenotype]["place"] for _, card in chosen]))
        maps.append(ClassMap(values, chosen[0][0].stride, threshold))
    return maps


def highest_positions(results: Results, wanted: Sequence[pd.DataFrame], n: int, side: int) -> list[pd.DataFrame]:
    """Return for each set of wells its `n` highest positions that are not above the detector's threshold.

    They are those of the wells' highest-scoring fields, one field per well first.

    Parameters
    ----------
    results
        The screen.
    wanted
        Each the wells of one perturbation: ``plate, well, phenotype``.
    n
        Positions per set.
    side
        Side of a picture in pixels; positions of one field are at least half of it apart.

    Returns
    -------
    positions
        For each set ``plate, well, field, phenotype, y, x, score``, in pixels of the mosaics; without a row where the
        phenotype has no detector, or the weights, the staged plates or the tables of fields are missing.
    """
    empty = pd.DataFrame(columns=["plate", "well", "field", "phenotype", "y", "x", "score"])
    if not wanted or not results.models.folds():
        return [empty] * len(wanted)
    fields = _scored_fields(results.folder, sorted({plate for wells in wanted for plate in wells["plate"]}))
    chosen = [_best_fields(fields, wells) for wells in wanted]
    rows: list[Any] = [row for best in chosen for row in best]
    maps = iter(class_maps(results, rows) if rows else [])
    found = [concat(_positions(results.folder, row, next(maps), n, side) for row in best) for best in chosen]
    return [
        empty if table.empty else table.sort_values("score", ascending=False, kind="stable").head(n) for table in found
    ]


def _scored_fields(folder: ScreenFolder, plates: Iterable[str]) -> pd.DataFrame:
    names = ["plate", "well", "field", "phenotype", "score"]
    tables = [
        read_table(path)[names].dropna(subset="score")
        for plate in plates
        if folder.plate(plate).is_dir() and (path := folder.fields(plate)).is_file()
    ]
    fields = concat(tables)
    return pd.DataFrame(columns=names) if fields.empty else fields[~fields["phenotype"].isin(DISCOVERED)]


def _best_fields(fields: pd.DataFrame, wells: pd.DataFrame) -> list[Any]:
    own = fields.merge(wells[["plate", "well", "phenotype"]].drop_duplicates(), on=["plate", "well", "phenotype"])
    own = own.sort_values(["score", "plate", "well", "field"], ascending=[False, True, True, True])
    own["turn"] = own.groupby(["plate", "well"]).cumcount()
    return list(own.sort_values("turn", kind="stable").head(_FIELDS).itertuples())


def _positions(folder: ScreenFolder, row: Any, found: ClassMap, n: int, side: int) -> pd.DataFrame:
    below = np.where(found.values > found.threshold, -np.inf, found.values)
    apart = max(1, side // 2 // found.stride)
    peaks = peak_local_max(below, min_distance=apart, num_peaks=n, exclude_border=False)
    corner = Plate(folder.plate(row.plate)).fields(row.well).set_index("field").loc[row.field]
    y, x = (peaks * found.stride + (found.stride - 1) / 2).T
    return pd.DataFrame({"y": y + corner["y"], "x": x + corner["x"], "score": below[tuple(peaks.T)]}).assign(
        plate=row.plate, well=row.well, field=row.field, phenotype=row.phenotype
    )
