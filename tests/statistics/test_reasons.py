"""Why a perturbation was called or not, in words."""

import numpy as np
import pandas as pd
import pytest

from wscnn.statistics.reasons import call_reasons

#: A sample that is tested and not called, with nothing that explains it.
PLAIN = {
    "role": "sample",
    "withheld": False,
    "hit": False,
    "p": 0.02,
    "p_position": np.nan,
    "q": 0.4,
    "smallest_p": 0.001,
    "n_wells": 3,
    "n_left_out": 0,
    "shared": False,
    "cell_percent": 98.0,
    "cell_loss": False,
}
_MISSED = "q exceeds the FDR: p is 0.02, the smallest that it can reach 0.001"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, f"{_MISSED}; q uses p"),
        ({"n_wells": 1}, f"{_MISSED}; too few replicates: one well; q uses p"),
        ({"n_left_out": 2}, f"{_MISSED}; 2 of its wells are on plates that failed quality control; q uses p"),
        (
            {"cell_percent": 31.4, "cell_loss": True},
            f"{_MISSED}; cells lost: 31 % of those of negative controls are left; q uses p",
        ),
        (
            {"p_position": 0.2, "shared": True},
            "q exceeds the FDR: p is 0.2, the smallest that it can reach 0.001; q uses p_position, the larger: its "
            "replicates share a position",
        ),
        (
            {"smallest_p": 0.125, "n_wells": 1},
            "too few replicates or controls: the smallest p that it can reach, 0.12, exceeds the FDR; too few "
            "replicates: one well; q uses p",
        ),
        ({"n_wells": 0, "n_left_out": 3, "p": np.nan, "q": np.nan}, "all of its plates failed quality control"),
        ({"n_wells": 0, "p": np.nan, "q": np.nan}, "no well has a score"),
        ({"p": np.nan, "q": np.nan}, "no negative control to compare with"),
        ({"withheld": True, "q": np.nan}, "most perturbations differ from the negative controls"),
        ({"role": "positive", "q": np.nan}, "a control, not tested"),
        # What would explain a miss does not explain a hit.
        ({"hit": True, "q": 0.01, "n_wells": 1, "cell_loss": True}, "q is at most the FDR; q uses p"),
    ],
)
def test_every_perturbation_has_a_reason_in_words(change: dict[str, object], words: str) -> None:
    called = pd.DataFrame([PLAIN, {**PLAIN, **change}])
    assert call_reasons(called, fdr=0.05) == [f"{_MISSED}; q uses p", words]
