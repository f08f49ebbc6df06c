"""Types of arrays that the core takes and returns."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


Complex = NDArray[np.complexfloating]


Integers = NDArray[np.integer]


Mask = NDArray[np.bool_]


# Some rows of an array: by number, or lying together.
Rows = Integers | slice


Field = Callable[[Array, Rows], tuple[Array, Array]]


Hashes = NDArray[np.uint64]
