"""Cells that the report shows: the highest-scoring of each hit, beside negative-control cells of the same plates."""

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from wscnn.core.screen_folder import ScreenFolder
from wscnn.core.tables import OBJECTS, read_table
from wscnn.plates.store import Plate
from wscnn.reporting.pictures import Picture, cut_pictures, picture_side, random_cells
from wscnn.reporting.results import Results, concat

#: Hits shown, and pictures in a row.
HITS, CELLS = 8, 8
#: Hits shown, whether called or not, where no perturbation is one.
_NEAREST = 3
#: Number of negative wells per plate from which comparison cells are drawn.
_COMPARISON_WELLS = 2


@dataclass(frozen=True)
class Row:
    """Pictures side by side and what they have in common."""

    caption: str
    pictures: list[Picture]


@dataclass(frozen=True)
class Group:
    """What is shown for one hit, or for the controls of one phenotype.

    Attributes
    ----------
    name
        The perturbation, or ``controls`` or ``suspects``.
    phenotype
        Phenotype that was searched for.
    hit
        Its row of the hit table; None for controls and suspects.
    rows
        Rows of pictures; those without a picture are left out.
    unseen
        Whether no cell of the hit was detected.
    """

    name: str
    phenotype: str
    hit: pd.Series | None
    rows: list[Row]
    unseen: bool = False


@dataclass(frozen=True)
class Gallery:
    """All groups, and the side of every picture in pixels and, where known, micrometres."""

    groups: list[Group]
    side: int
    side_um: float | None


def top_cells(objects: pd.DataFrame, n: int) -> pd.DataFrame:
    """Return the `n` objects with the highest scores, spread over wells: none gives more than its share, or two."""
    ranked = objects.sort_values(["score", "plate", "well", "object"], ascending=[False, True, True, True])
    wells = ranked.groupby(["plate", "well"], sort=False)
    share = max(2, -(-n // max(wells.ngroups, 1)))
    return wells.head(share).head(n)


def shown_hits(hits: pd.DataFrame) -> pd.DataFrame:
    """Return the hits that the gallery shows: the best ranked samples, or the nearest where none is a hit."""
    samples = hits[hits["role"] == "sample"] if "role" in hits else hits
    samples = samples[samples["rank"].notna()].sort_values(["rank", "perturbation"])
    called = samples[samples["hit"].astype("bool")]
    return samples.head(_NEAREST) if called.empty else called.head(HITS)


def make_gallery(results: Results) -> Gallery:
    """Return the pictures for a screen; cells whose plate no longer exists are left out."""
    wells, hits = results.wells, shown_hits(results.hits)
    shown = wells["perturbation"].isin(hits["perturbation"]) | wells["role"].isin(["negative", "positive"])
    objects = _objects(results.folder, wells[shown])
    side = picture_side(objects)
    plans = [_control_rows(results, objects, phenotype, side) for phenotype in results.phenotypes]
    plans += [_hit_rows(wells, objects, hit) for _, hit in hits.iterrows()]
    plans += [_suspect_rows(objects, results.suspects, phenotype) for phenotype in results.phenotypes]
    plans = [_with_comparison(plan, results, side, seed) for seed, plan in enumerate(plans)]
    cells = concat(cells for plan in plans for _, cells in plan.rows)
    pictures = iter(cut_pictures(results.folder, cells, side) if len(cells) else [])
    scored = any(results.folder.objects(plate).is_file() for plate in wells["plate"].unique())
    staged = scored and bool(results.folder.plates())
    groups = []
    for plan in plans:
        rows = [
            Row(caption, [p for p in (next(pictures) for _ in range(len(cells))) if p]) for caption, cells in plan.rows
        ]
        rows = [row for row in rows if row.pictures]
        unseen = staged and plan.hit is not None and plan.rows[0][1].empty
        if rows or unseen:
            groups.append(Group(plan.name, plan.phenotype, plan.hit, rows, unseen))
    return Gallery(groups, side, _side_um(results, side))


@dataclass(frozen=True)
class _Plan:
    """A group before its pictures are cut: captions and positions of cells."""

    name: str
    phenotype: str
    hit: pd.Series | None
    rows: list[tuple[str, pd.DataFrame]]


def _control_rows(results: Results, objects: pd.DataFrame, phenotype: str, side: int) -> _Plan:
    wells = results.controls
    rows = [
        (
            f"{role.capitalize()} controls, highest scores",
            top_cells(_of_wells(objects, wells, phenotype, role=role), CELLS),
        )
        for role in ("positive", "negative")
    ]
    if rows[0][1].empty:
        # When nothing was detected, the positive controls are the first thing to check.
        own = wells[(wells["role"] == "positive") & (wells["phenotype"] == phenotype)]
        for name, on_plate in own.groupby("plate"):
            if (store := results.folder.plate(str(name))).is_dir():
                cells = random_cells(store, sorted(on_plate["well"])[:_COMPARISON_WELLS], CELLS, side, seed=0)
                rows[0] = (
                    "Positive controls, nothing detected: cells drawn at random",
                    cells.assign(phenotype=phenotype),
                )
                break
    return _Plan("controls", phenotype, None, rows)


def _hit_rows(wells: pd.DataFrame, objects: pd.DataFrame, hit: pd.Series) -> _Plan:
    own = _of_wells(objects, wells, hit["phenotype"], role="sample", perturbation=hit["perturbation"])
    rows = [("Highest scores", top_cells(own, CELLS))]
    return _Plan(hit["perturbation"], hit["phenotype"], hit, rows)


def _suspect_rows(objects: pd.DataFrame, suspects: pd.DataFrame, phenotype: str) -> _Plan:
    rows = []
    if not suspects.empty:
        suspects = suspects[(suspects["phenotype"] == phenotype) & (suspects["role"] == "negative")].head(CELLS)
        own = objects[objects["phenotype"] == phenotype].merge(suspects[["plate", "well"]], on=["plate", "well"])
        rows = [("Highest scores in negative control wells under suspicion", top_cells(own, CELLS))]
    return _Plan("suspects", phenotype, None, rows)


def _with_comparison(plan: _Plan, results: Results, side: int, seed: int) -> _Plan:
    """Return the plan with one more row: for every cell of the first, a negative-control cell of the same plate."""
    if plan.name == "suspects" or not plan.rows:
        return plan
    wells = results.wells
    drawn = []
    for name, cells in plan.rows[0][1].groupby("plate"):
        store = results.folder.plate(str(name))
        negatives = wells[(wells["plate"] == name) & (wells["role"] == "negative") & wells["score"].notna()]
        chosen = negatives["well"].drop_duplicates().sample(frac=1, random_state=seed)[:_COMPARISON_WELLS]
        if store.is_dir() and len(chosen):
            drawn.append(random_cells(store, sorted(chosen), len(cells), side, seed))
    comparison = concat(drawn).assign(phenotype=plan.phenotype)
    return _Plan(
        plan.name, plan.phenotype, plan.hit, [*plan.rows, ("Negative controls, cells drawn at random", comparison)]
    )


def _of_wells(objects: pd.DataFrame, wells: pd.DataFrame, phenotype: str, **where: str) -> pd.DataFrame:
    """Return the objects of a phenotype in the wells with these values."""
    chosen = wells[wells["phenotype"] == phenotype]
    for column, value in where.items():
        chosen = chosen[chosen[column] == value]
    return objects[objects["phenotype"] == phenotype].merge(chosen[["plate", "well"]], on=["plate", "well"])


def _objects(folder: ScreenFolder, wells: pd.DataFrame) -> pd.DataFrame:
    """Return the objects in these wells, from the plates whose table exists."""

    def of_plates() -> Iterable[pd.DataFrame]:
        for plate, rows in wells.groupby("plate"):
            if (path := folder.objects(str(plate))).is_file():
                table = read_table(path, OBJECTS)
                yield table[table["well"].isin(rows["well"])]

    empty = pd.DataFrame(
        columns=["plate", "well", "field", "phenotype", "object", "y", "x", "y0", "x0", "y1", "x1", "score"]
    )
    found = concat(of_plates())
    return empty if found.empty else found


def _side_um(results: Results, side: int) -> float | None:
    for store in results.folder.plates():
        size = Plate(store).pixel_size_um
        return None if size is None else size * side
    return None
