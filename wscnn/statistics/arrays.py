"""Types of the arrays that the statistics compute with."""

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


Numbers = NDArray[np.int64]


Array = NDArray[np.float64]
