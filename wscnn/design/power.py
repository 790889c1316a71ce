"""Which share of the acting perturbations a design finds, predicted from a few numbers about cells and wells."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from wscnn.core.errors import UserError
from wscnn.design.maps import Design
from wscnn.statistics.arrays import Array
from wscnn.statistics.conformal import choose_null, false_discovery_q, rank_sum_p
from wscnn.statistics.normalize import median, spread

#: Designs that are looked through: replicates, negative controls on a plate, fields in a well.
REPLICATES = range(1, 9)
NEGATIVES = (8, 12, 16, 24, 32, 48, 64)
FIELDS = (1, 2, 4, 6, 9, 16)

#: Screens simulated for a prediction.
SCREENS = 60


@dataclass(frozen=True)
class Assumptions:
    """What is assumed of a screen.

    Attributes
    ----------
    prevalence
        Share of rare cells that an acting perturbation adds.
    acting
        Share of the perturbations that act.
    cells_per_field
        Mean number of cells in a field.
    recall
        Share of rare cells that are detected.
    background
        Detected cells in negative control wells, as a share of all cells.
    well_sd
        Standard deviation of that share from well to well, beyond the chance of counting.
    """

    prevalence: float
    acting: float
    cells_per_field: float
    recall: float
    background: float
    well_sd: float

    def draw(self, acts: Array, fields: int, rng: np.random.Generator) -> Array:
        """Return the share of detected cells in wells that act (1) or do not (0), each by the chance of counting."""
        mean = self.background + acts * self.prevalence * (self.recall - self.background)
        share = np.clip(mean + self.well_sd * rng.normal(size=acts.shape), 0, 1)
        cells = np.maximum(rng.poisson(fields * self.cells_per_field, size=acts.shape), 1)
        return np.asarray(rng.binomial(cells, share) / cells, dtype=np.float64)


def predicted_power(
    assumed: Assumptions, design: Design, n_perturbations: int, *, fdr: float, seed: int = 0, screens: int = SCREENS
) -> float:
    """Return which share of the acting perturbations is called, on average over simulated screens.

    Wells are ranked among negative controls as `wscnn hits` ranks them, of their plate or of all plates (normalised by
    the median and spread of samples and controls), and called at the false discovery rate. Positions have no effect.

    Parameters
    ----------
    assumed, design
        What is assumed, and how the screen is laid out.
    n_perturbations
        Perturbations tested.
    fdr
        False discovery rate at which hits are called.
    seed, screens
        For the simulation.
    """
    rng = np.random.default_rng(seed)
    n, r = n_perturbations, design.replicates
    n_plates = design.sets(n) * r
    first = np.arange(n) * design.sets(n) // n * r
    plate = first[:, None] + np.arange(r)
    cells = pd.DataFrame({"perturbation": np.repeat(np.arange(n), r), "plate": plate.ravel(), "n": 1})
    around = np.full(n_plates, design.negatives)
    pooled = bool(choose_null(cells, around, 0, n, fdr, "auto")["pooled"].iloc[0])
    strata = ((n_plates * design.negatives, r),) if pooled else ((design.negatives, 1),) * r
    found = []
    for _ in range(screens):
        acts = rng.random(n) < assumed.acting
        if not acts.any():
            continue
        own = assumed.draw(np.repeat(acts[:, None].astype(float), r, axis=1), design.fields, rng)
        null = np.sort(assumed.draw(np.zeros((n_plates, design.negatives)), design.fields, rng), axis=1)
        if pooled:
            # Over plates, the error of each plate's centre and spread counts.
            for number in range(n_plates):
                every = np.append(null[number], own[plate == number])
                centre, scale = median(every), spread(every)
                own = np.where(plate == number, (own - centre) / scale, own)
                null[number] = (null[number] - centre) / scale
            u = null.size - np.searchsorted(np.sort(null, axis=None), own, side="left")
        else:
            u = (null[plate] >= own[:, :, None]).sum(axis=2)
        q = false_discovery_q(rank_sum_p(u.sum(axis=1).astype(float), [strata] * n))
        found.append((q[acts] <= fdr).mean())
    return float(np.mean(found)) if found else 0.0


def choose_design(
    assumed: Assumptions,
    n_perturbations: int,
    *,
    power: float,
    fdr: float,
    wells: int,
    replicates: int | None = None,
    negatives: int | None = None,
    positives: int | None = None,
    fields: int | None = None,
    seed: int = 0,
) -> tuple[Design, pd.DataFrame]:
    """Return the design with the fewest plates, then controls, then fields, that reaches a power.

    Parameters
    ----------
    assumed
        What is assumed of the screen.
    n_perturbations, power, fdr
        Perturbations, the share of the acting ones that should be called, and the false discovery rate.
    wells
        Wells of a plate.
    replicates, negatives, positives, fields
        As given; what is None is chosen. Positive controls are half of the negative ones, at least 4.
    seed
        For the simulation.

    Returns
    -------
    design, tried
        The design, and the designs looked at with their predicted ``power``.

    Raises
    ------
    UserError
        When no design reaches the power.
    """
    tried = []

    def reaches(design: Design) -> bool:
        reached = predicted_power(assumed, design, n_perturbations, fdr=fdr, seed=seed)
        plates = design.sets(n_perturbations) * design.replicates
        tried.append({**vars(design), "plates": plates, "power": reached})
        return reached >= power

    for candidate in _candidates(wells, n_perturbations, replicates, negatives, positives):
        most = replace(candidate, fields=max(FIELDS) if fields is None else fields)
        if not reaches(most):
            continue
        # The most fields suffice: the fewest that do are looked for.
        fewer = (replace(candidate, fields=number) for number in FIELDS[:-1]) if fields is None else iter(())
        return next((design for design in fewer if reaches(design)), most), pd.DataFrame(tried)
    if not tried:
        raise UserError(
            f"no design of plates with {wells} wells leaves half of them to samples; ask for fewer controls, or larger "
            "plates"
        )
    best = max(tried, key=lambda row: row["power"])
    raise UserError(
        f"no design reaches a power of {power:g}; the best of {len(tried)} finds {best['power']:.0%} of the acting "
        f"perturbations, with {best['replicates']} replicates, {best['negatives']} negative controls on a plate and "
        f"{best['fields']} fields; look for a larger prevalence, ask for less power, or give more replicates or fields"
    )


def _candidates(
    wells: int, n_perturbations: int, replicates: int | None, negatives: int | None, positives: int | None
) -> Iterator[Design]:
    """Yield designs (of one field) that leave at least half of the wells to samples, those of fewest plates first."""
    designs = [
        Design(wells, r, n, max(n // 2, 4) if positives is None else positives, 1)
        for r in (REPLICATES if replicates is None else (replicates,))
        for n in (NEGATIVES if negatives is None else (negatives,))
    ]
    designs = [design for design in designs if 2 * design.samples >= wells]
    yield from sorted(designs, key=lambda design: (design.sets(n_perturbations) * design.replicates, design.negatives))
