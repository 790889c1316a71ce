"""Cells that are shown of a screen: of every hit, beside negative-control cells of the same plates, and of controls."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from wscnn.core.errors import UserError, listed
from wscnn.core.screen_folder import ScreenFolder
from wscnn.core.tables import OBJECTS, read_table
from wscnn.plates.store import Channel, Plate
from wscnn.reporting.class_maps import highest_positions
from wscnn.reporting.pictures import Picture, cut_pictures, picture_side, random_cells
from wscnn.reporting.results import Results, concat

#: Pictures in a row; of many hits there are fewer each, but at least `FEWEST`.
CELLS, FEWEST = 8, 3
# Pictures of hits in all from which on there are fewer of each.
_MANY = 1600
#: Hits shown, whether called or not, where no perturbation is one.
_NEAREST = 3
#: Number of wells per plate from which cells are drawn at random.
_RANDOM_WELLS = 2
_CONTROLS = "Negative controls of the same plates, cells drawn at random"


@dataclass(frozen=True)
class Row:
    """Pictures side by side and what they have in common.

    Attributes
    ----------
    caption
        What they show.
    pictures
        At least one.
    below
        Whether they show positions below the detector's threshold, not detected cells.
    """

    caption: str
    pictures: list[Picture]
    below: bool = False


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
        Rows of pictures.
    """

    name: str
    phenotype: str
    hit: pd.Series | None
    rows: list[Row]


@dataclass(frozen=True)
class Gallery:
    """All groups, the side of every picture in pixels and, where known, micrometres, and the channels shown."""

    groups: list[Group]
    side: int
    side_um: float | None
    channels: list[Channel]


def top_cells(objects: pd.DataFrame, n: int) -> pd.DataFrame:
    """Return the `n` objects with the highest scores, spread over wells: none gives more than its share, or two."""
    ranked = objects.sort_values(["score", "plate", "well", "object"], ascending=[False, True, True, True])
    wells = ranked.groupby(["plate", "well"], sort=False)
    share = max(2, -(-n // max(wells.ngroups, 1)))
    return wells.head(share).head(n)


def shown_hits(hits: pd.DataFrame) -> pd.DataFrame:
    """Return the hits that the gallery shows: all samples that were called, or the nearest where none is a hit."""
    samples = hits[hits["role"] == "sample"] if "role" in hits else hits
    samples = samples[samples["rank"].notna()].sort_values(["rank", "perturbation"])
    called = samples[samples["hit"].astype("bool")]
    return samples.head(_NEAREST) if called.empty else called


def make_gallery(results: Results) -> Gallery:
    """Return the pictures for a screen; cells whose plate no longer exists are left out.

    A hit without a detected cell is shown by its highest positions below the detector's threshold or, without a
    detector, by cells of its wells that are drawn at random.
    """
    wells, hits = results.wells, shown_hits(results.hits)
    n = max(FEWEST, min(CELLS, _MANY // max(len(hits), 1)))
    shown = wells["perturbation"].isin(hits["perturbation"]) | wells["role"].isin(["negative", "positive"])
    objects = _objects(results.folder, wells[shown])
    side = picture_side(objects)
    plans = [_control_rows(results, objects, phenotype, side) for phenotype in results.phenotypes]
    plans += _sample_rows(results, wells[wells["role"] == "sample"], objects, hits, n, side)
    plans += [_suspect_rows(objects, results.suspects, phenotype) for phenotype in results.phenotypes]
    return _cut(results, plans, side)


def perturbation_gallery(results: Results, perturbation: str, n: int) -> Gallery:
    """Return `n` pictures of a perturbation for each phenotype, by score, and as many of controls, for `draw_sheet`.

    Raises
    ------
    UserError
        When no well has this perturbation, or none of its plates is there.
    """
    own = results.wells[results.wells["perturbation"] == perturbation]
    if own.empty:
        known = sorted(results.wells["perturbation"].dropna().unique())
        near = [name for name in known if perturbation.lower() in name.lower()] or known
        raise UserError(
            f"{results.folder.path}: no well has the perturbation '{perturbation}'; there are {listed(near)}"
        )
    if not own["plate"].isin(_staged(results.folder)).any():
        raise UserError(
            f"{results.folder.path}: no plate of '{perturbation}' is in its folder plates; stage them again"
        )
    phenotypes = pd.DataFrame({"perturbation": perturbation, "phenotype": sorted(own["phenotype"].unique())})
    rows = phenotypes.merge(results.hits, on=["perturbation", "phenotype"], how="left")
    objects = _objects(results.folder, own)
    side = picture_side(objects)
    return _cut(results, _sample_rows(results, own, objects, rows, n, side), side)


@dataclass(frozen=True)
class _Plan:
    """A group before its pictures are cut: captions and positions of cells, and how many controls beside."""

    name: str
    phenotype: str
    hit: pd.Series | None
    rows: list[tuple[str, pd.DataFrame]]
    below: bool = False
    compared: bool = True


def _cut(results: Results, plans: Sequence[_Plan], side: int) -> Gallery:
    """Return the pictures of all plans; each plate's are cut at once, so that they share one contrast."""
    plans = [replace(plan, rows=[(caption, cells) for caption, cells in plan.rows if len(cells)]) for plan in plans]
    plans = [plan for plan in plans if plan.rows]
    compared = [plan for plan in plans if plan.compared]
    controls = _controls(results, compared, side)
    cells = concat([cells for plan in plans for _, cells in plan.rows] + list(controls.values()))
    pictures = iter(cut_pictures(results.folder, cells, side) if len(cells) else [])
    rows = [[(caption, [next(pictures) for _ in range(len(own))]) for caption, own in plan.rows] for plan in plans]
    beside = {key: [next(pictures) for _ in range(len(own))] for key, own in controls.items()}
    groups = []
    for plan, own in zip(plans, rows, strict=True):
        shown = [Row(caption, [p for p in found if p], plan.below) for caption, found in own]
        if plan.compared:
            counts = plan.rows[0][1]["plate"].value_counts(sort=False)
            drawn = [p for plate, n in counts.items() for p in beside.get((plan.phenotype, str(plate)), [])[:n] if p]
            shown.append(Row(_CONTROLS, drawn))
        if shown := [row for row in shown if row.pictures]:
            groups.append(Group(plan.name, plan.phenotype, plan.hit, shown))
    stores = results.folder.plates()
    plate = Plate(stores[0]) if stores else None
    size = plate.pixel_size_um if plate else None
    return Gallery(groups, side, size and size * side, plate.channels if plate else [])


def _controls(results: Results, plans: Sequence[_Plan], side: int) -> dict[tuple[str, str], pd.DataFrame]:
    """Return negative-control cells by phenotype and plate, drawn once, as many as any plan shows of the plate."""
    most: dict[tuple[str, str], int] = {}
    for plan in plans:
        for plate, n in plan.rows[0][1]["plate"].value_counts(sort=False).items():
            key = (plan.phenotype, str(plate))
            most[key] = max(most.get(key, 0), n)
    drawn: dict[tuple[str, str], pd.DataFrame] = {}
    for seed, plate in enumerate(sorted({plate for _, plate in most})):
        wells = results.wells[(results.wells["plate"] == plate) & (results.wells["role"] == "negative")]
        cells = _drawn(results.folder, wells[wells["score"].notna()], max(most.values()), side, seed)
        drawn |= {key: cells.head(n).assign(phenotype=key[0]) for key, n in most.items() if key[1] == plate}
    return {key: cells for key, cells in drawn.items() if len(cells)}


def _drawn(folder: ScreenFolder, wells: pd.DataFrame, n: int, side: int, seed: int = 0) -> pd.DataFrame:
    """Return up to `n` cells drawn at random in a few of these wells, which are on one plate."""
    if not wells["plate"].isin(_staged(folder)).any():
        return pd.DataFrame(columns=["plate", "well", "field", "y", "x"])
    names = wells["well"].drop_duplicates().sample(frac=1, random_state=seed)[:_RANDOM_WELLS]
    return random_cells(folder.plate(str(wells["plate"].iloc[0])), sorted(names), n, side, seed)


def _staged(folder: ScreenFolder) -> list[str]:
    """Return the names of the plates whose images are there."""
    return [path.stem for path in folder.plates()]


def _control_rows(results: Results, objects: pd.DataFrame, phenotype: str, side: int) -> _Plan:
    wells = results.controls
    rows = [
        (
            f"{role.capitalize()} controls, highest scores",
            top_cells(_of_wells(objects, wells[wells["role"] == role], phenotype), CELLS),
        )
        for role in ("positive", "negative")
    ]
    if rows[0][1].empty:
        # When nothing was detected, the positive controls are the first thing to check.
        own = wells[(wells["role"] == "positive") & (wells["phenotype"] == phenotype)]
        for _, on_plate in own.groupby("plate"):
            cells = _drawn(results.folder, on_plate.sort_values("well"), CELLS, side)
            if len(cells):
                caption = "Positive controls, nothing detected: cells drawn at random"
                rows[0] = (caption, cells.assign(phenotype=phenotype))
                break
    return _Plan("controls", phenotype, None, rows)


def _sample_rows(
    results: Results, wells: pd.DataFrame, objects: pd.DataFrame, hits: pd.DataFrame, n: int, side: int
) -> list[_Plan]:
    """Return a plan for each row of `hits`, of its cells in `wells`."""
    keys = ["perturbation", "phenotype"]
    # What lies on plates that are gone cannot be shown.
    own = wells[wells["plate"].isin(_staged(results.folder))].merge(hits[keys], on=keys)
    found = objects.merge(own[["plate", "well", *keys]], on=["plate", "well", "phenotype"])
    cells = {key: top_cells(table, n) for key, table in found.groupby(keys)}
    wells_of = dict(iter(own.groupby(keys)))
    rows = [(row, (row["perturbation"], row["phenotype"])) for _, row in hits.iterrows()]
    weak = [key for _, key in rows if key not in cells and key in wells_of]
    below = dict(zip(weak, highest_positions(results, [wells_of[key] for key in weak], n, side), strict=True))
    plans = []
    for hit, key in rows:
        if key in cells:
            plans.append(_Plan(*key, hit, [("Highest scores", cells[key])]))
        elif key in wells_of and len(below[key]):
            caption = "No cell was detected: the highest positions below the detector's threshold"
            plans.append(_Plan(*key, hit, [(caption, below[key])], below=True))
        elif key in wells_of:
            first = wells_of[key].query("plate == plate.iloc[0]").sort_values("well")
            drawn = _drawn(results.folder, first, n, side).assign(phenotype=key[1])
            plans.append(_Plan(*key, hit, [("No cell was detected: cells drawn at random in its wells", drawn)]))
    return plans


def _suspect_rows(objects: pd.DataFrame, suspects: pd.DataFrame, phenotype: str) -> _Plan:
    rows = []
    if not suspects.empty:
        suspects = suspects[(suspects["phenotype"] == phenotype) & (suspects["role"] == "negative")].head(CELLS)
        own = _of_wells(objects, suspects, phenotype)
        rows = [("Highest scores in negative control wells under suspicion", top_cells(own, CELLS))]
    return _Plan("suspects", phenotype, None, rows, compared=False)


def _of_wells(objects: pd.DataFrame, wells: pd.DataFrame, phenotype: str) -> pd.DataFrame:
    """Return the objects of a phenotype in these wells."""
    chosen = wells.loc[wells["phenotype"] == phenotype, ["plate", "well"]]
    return objects[objects["phenotype"] == phenotype].merge(chosen, on=["plate", "well"])


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
