"""Results of simpler methods beside those of the network, for the report."""

from pathlib import Path
from typing import Any

import pandas as pd

from wscnn.core.progress import log
from wscnn.core.provenance import file_digest
from wscnn.core.screen_folder import ScreenFolder
from wscnn.core.tables import BASELINE, BASELINE_FOLDS, read_notes, read_table

# Most perturbations that are listed.
_LISTED = 40
_NETWORK = "network"


def make_contest(folder: Path) -> dict[str, Any] | None:
    """Return what the report shows of simpler methods; None where none was run on these hits.

    Parameters
    ----------
    folder
        The results folder.

    Returns
    -------
    contest
        ``methods``, for each phenotype and method ``phenotype, method, auc`` (mean of the folds), ``low, high`` (of the
        folds), ``n_hits`` and ``n_shared`` (hits that the network calls, too); ``names``, the methods; ``rows``, for
        each perturbation that any of them calls ``perturbation, phenotype`` and ``calls``: for each method None or a
        mapping ``hit, effect, q``; and ``n_more``, those that are not listed.
    """
    screen = ScreenFolder(folder)
    path = screen.table("baseline")
    if not path.is_file():
        return None
    if read_notes(path).get("inputs", {}).get("hits") != file_digest(screen.table("hits")):
        log(f"report: {path} was made for other hits, so simpler methods are left out; run wscnn baseline again")
        return None
    table = read_table(path, BASELINE).query("role == 'sample'")
    folds = read_table(screen.table("baseline_folds"), BASELINE_FOLDS)
    names = [_NETWORK, *(name for name in table["method"].unique() if name != _NETWORK)]
    called = table[table["hit"]]
    keys = list(zip(called["perturbation"], called["phenotype"], strict=True))
    of_network = {key for key, method in zip(keys, called["method"], strict=True) if method == _NETWORK}
    methods = [
        _summary(phenotype, name, folds, called, of_network)
        for phenotype in sorted(table["phenotype"].unique())
        for name in names
    ]
    # The network's hits first, by rank, then those of the others.
    best = list(dict.fromkeys(keys))
    calls = {
        (row["perturbation"], row["phenotype"], row["method"]): {key: row[key] for key in ("hit", "effect", "q")}
        for row in table.to_dict("records")
        if pd.notna(row["q"])
    }
    rows = [
        {
            "perturbation": perturbation,
            "phenotype": phenotype,
            "calls": [calls.get((perturbation, phenotype, name)) for name in names],
        }
        for perturbation, phenotype in best[:_LISTED]
    ]
    return {"methods": methods, "names": names, "rows": rows, "n_more": max(len(best) - _LISTED, 0)}


def _summary(
    phenotype: str, name: str, folds: pd.DataFrame, called: pd.DataFrame, of_network: set[tuple[str, str]]
) -> dict[str, Any]:
    auc = folds.loc[folds["phenotype"].eq(phenotype) & folds["method"].eq(name), "auc"].dropna()
    own = called[called["phenotype"].eq(phenotype) & called["method"].eq(name)]
    keys = set(zip(own["perturbation"], own["phenotype"], strict=True))
    return {
        "phenotype": phenotype,
        "method": name,
        "auc": float(auc.mean()) if len(auc) else None,
        "low": float(auc.min()) if len(auc) else None,
        "high": float(auc.max()) if len(auc) else None,
        "n_hits": len(keys),
        "n_shared": len(keys & of_network),
    }
