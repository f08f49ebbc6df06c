"""Types of arrays and callables that recur in the core."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Complex = NDArray[np.complexfloating]
Integers = NDArray[np.integer]
Mask = NDArray[np.bool_]
Hashes = NDArray[np.uint64]

# Rows of an array, by number or as a slice.
Rows = Integers | slice

# ``(X, rows) -> (log Z, gradient of log Z / beta)`` of the solver's rows that the block `X` holds.
Field = Callable[[Array, Rows], tuple[Array, Array]]
