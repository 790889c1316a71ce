"""A screen's layout before the experiment: how many wells it takes, and where each perturbation goes."""

from pathlib import Path

import numpy as np
import pandas as pd

from wscnn.core.atomic import atomic_path
from wscnn.core.errors import UserError, listed
from wscnn.core.progress import log
from wscnn.core.screen_folder import ScreenFolder
from wscnn.core.tables import read_table
from wscnn.core.user_tables import as_text, read_user_table
from wscnn.design.maps import make_layout
from wscnn.design.power import Assumptions, choose_design
from wscnn.network.card import read_cards
from wscnn.statistics.rare_fraction import recall_of

#: Columns that the layout has of its own.
_OWN = ("plate", "well", "role", "phenotype")


def design_screen(
    perturbations: Path,
    output: Path,
    *,
    assumed: Assumptions,
    power: float,
    fdr: float,
    wells: int,
    replicates: int | None,
    negatives: int | None,
    positives: int | None,
    fields: int | None,
    negative: str,
    positive: str,
    phenotype: str,
    seed: int,
) -> pd.DataFrame:
    """Choose a design and write its layout.

    Parameters
    ----------
    perturbations
        Table (TSV, CSV or Parquet) with a column ``perturbation``, one row per perturbation; further columns are
        carried into the layout.
    output
        Folder for ``layout.tsv`` and ``designs.tsv``, the designs that were looked at and their predicted power.
    assumed, power, fdr, wells, replicates, negatives, positives, fields, seed
        As for `wscnn.design.power.choose_design`.
    negative, positive, phenotype
        Names of the control perturbations, and the phenotype that the positive one shows.

    Returns
    -------
    tried
        The designs looked at; the last one is the chosen one unless only its number of fields was reduced in vain.

    Raises
    ------
    UserError
        When the table is no list of perturbations, a file exists already, or no design reaches the power.
    """
    if existing := [path.name for name in ("layout.tsv", "designs.tsv") if (path := output / name).exists()]:
        raise UserError(f"{output}: {listed(existing)} is there already; choose another folder, or remove it")
    table = _read(perturbations, negative, positive)
    chosen, tried = choose_design(
        assumed,
        len(table),
        power=power,
        fdr=fdr,
        wells=wells,
        replicates=replicates,
        negatives=negatives,
        positives=positives,
        fields=fields,
        seed=seed,
    )
    controls = pd.DataFrame(
        {"perturbation": [negative, positive], "role": ["negative", "positive"], "phenotype": ["", phenotype]}
    )
    layout = make_layout(table, chosen, controls, seed)
    output.mkdir(parents=True, exist_ok=True)
    for name, part in (("designs.tsv", tried.assign(power=tried["power"].round(3))), ("layout.tsv", layout)):
        with atomic_path(output / name) as partial:
            part.to_csv(partial, sep="\t", index=False, lineterminator="\n")
    same = (tried[list(vars(chosen))] == pd.Series(vars(chosen))).all(axis=1)
    log(
        f"design: {layout['plate'].nunique()} plates of {wells} wells: {chosen.replicates} replicates, "
        f"{chosen.negatives} negative and {chosen.positives} positive controls on each plate, {chosen.fields} fields "
        f"in each well; predicted to find {tried.loc[same, 'power'].iloc[0]:.0%} of the acting perturbations"
    )
    return tried


def _read(path: Path, negative: str, positive: str) -> pd.DataFrame:
    """Return the table of perturbations, all as text."""
    given = read_user_table(path, ["perturbation"], {"perturbation", *_OWN})
    table = pd.DataFrame({name: as_text(given[name]) for name in given.columns}).reset_index(drop=True)
    names = table["perturbation"]
    problems = []
    if names.empty:
        problems.append(f"{path}: lists no perturbation")
    if (names == "").any():
        problems.append(f"{path}: {int((names == '').sum())} rows have no perturbation; fill it in")
    if twice := sorted(set(names[names.duplicated() & (names != "")])):
        problems.append(f"{path}: {listed(twice, 5)}: listed twice; give each perturbation one row")
    if taken := sorted({negative, positive} & set(names)):
        problems.append(f"{path}: {listed(taken)} is a control; name the controls otherwise, or remove the row")
    if negative == positive:
        problems.append(f"both controls are called '{negative}'; give them different names")
    if own := [name for name in table.columns if name in _OWN]:
        problems.append(f"{path}: column {', '.join(own)} is what the layout will have; rename it")
    if problems:
        raise UserError(problems)
    return table


def of_pilot(results: Path, prevalence: float, acting: float) -> Assumptions:
    """Return assumptions whose numbers about cells and wells come from a finished screen.

    Cells per field, the share detected in negative control wells and its spread beyond the chance of counting come from
    ``wells.parquet``; the recall comes from the model's cards.

    Parameters
    ----------
    results
        The results folder of a screen of one phenotype, whose nuclei were counted.
    prevalence, acting
        As in `Assumptions`.

    Raises
    ------
    UserError
        When a table is missing, or lacks counts of cells, negative controls or the recall.
    """
    screen = ScreenFolder(results)
    wells = read_table(screen.table("wells"))
    if (phenotypes := wells["phenotype"].unique()).size > 1:
        raise UserError(f"{results}: holds several phenotypes ({listed(phenotypes)}); give the assumptions by hand")
    control = wells[(wells["role"] == "negative") & wells["used"]]
    counts = control.reindex(columns=["n_objects", "n_cells", "n_fields_used"]).dropna().astype(float)
    counts = counts[(counts["n_cells"] > 0) & (counts["n_fields_used"] > 0)]
    if len(counts) < 3:
        raise UserError(
            f"{screen.table('wells')}: fewer than three negative control wells have counts of cells; name "
            "acquisition.nuclei and run the pilot again, or give the assumptions by hand"
        )
    recall = recall_of(read_cards(screen.model.path)).get(str(phenotypes[0]))
    if recall is None:
        raise UserError(
            f"{screen.model.path}: no card states which share of rare cells is detected; give the assumptions by hand"
        )
    share = counts["n_objects"] / counts["n_cells"]
    mean = float(counts["n_objects"].sum() / counts["n_cells"].sum())
    by_chance = float((mean * (1 - mean) / counts["n_cells"]).mean())
    return Assumptions(
        prevalence=prevalence,
        acting=acting,
        cells_per_field=float(counts["n_cells"].sum() / counts["n_fields_used"].sum()),
        recall=recall.share,
        background=mean,
        well_sd=float(np.sqrt(max(share.var(ddof=1) - by_chance, 0))),
    )
