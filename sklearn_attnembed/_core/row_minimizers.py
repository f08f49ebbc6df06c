"""Minimizers over the unit sphere, each row by itself: in closed form for one Gaussian, by L-BFGS otherwise."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .sphere import batchless_product, row_dots, tangent, unit_rows
from .types import Array, Field, Integers

# Number of steps that L-BFGS remembers, and how often it may shorten one.
_MEMORY, _SHORTER = 8, 12


def gaussian_response(C: Array, spectrum: tuple[Array, Array]) -> Array:
    """Return the unit rows x that minimize -c.x + x'Bx / 2, for a positive semi-definite B.

    This is the trust-region problem. `spectrum` is ``numpy.linalg.eigh(B)``. In the eigenbasis of B the minimizer is
    c / (b + nu), where nu is the root of the secular equation |x| = 1 above -b_min. Newton's method on 1 / |x| - 1,
    which is nearly linear, comes from the left and cannot overshoot.
    """
    dtype, (b, basis) = C.dtype, spectrum
    b, basis = b.astype(dtype), basis.astype(dtype)
    C = batchless_product(C, basis)
    norm = np.sqrt(row_dots(C, C))
    tiny = 8 * np.finfo(dtype).eps * (norm + b[-1]) + np.finfo(dtype).tiny
    nu = np.maximum(np.maximum(norm - b[-1], np.abs(C[:, 0]) - b[0]), tiny - b[0])
    for _ in range(50):
        inverse = 1 / (b + nu[:, None])
        square = C * inverse
        square *= square
        length = square.sum(axis=1)
        slope = row_dots(square, inverse)
        change = length / np.where(slope > 0, slope, 1) * (np.sqrt(length) - 1)
        moving = np.abs(change) > 4 * tiny
        if not moving.any():
            break
        nu = np.where(moving, np.maximum(nu + change, tiny - b[0]), nu)  # a row at rest does not wait for the others
    X = C / (b + nu[:, None])
    missing = 1 - row_dots(X, X)
    X[:, 0] += np.sqrt(np.where(missing > 1e-6, missing, 0))  # no force along the softest direction: the hard case
    return unit_rows(batchless_product(X, basis.T))


def iterated_response(
    C: Array, start: Array, field: Field, stiffness: float, *, tol: float = 1e-9, max_iter: int = 200
) -> Array:
    """Return unit rows x that minimize -c.x + log Z(x) / beta, starting from `start`.

    L-BFGS on the sphere. Every row has its own steps, history and end, so that no row depends on another. The line
    search goes by slopes alone, because some normalizers estimate log Z and its gradient separately.
    """
    n, d = C.shape
    X, rows = start.copy(), np.arange(n)
    history = History(np.zeros((_MEMORY, n, d)), np.zeros((_MEMORY, n, d)), np.zeros((_MEMORY, n)))
    scale = np.full(n, 1 / max(stiffness, np.finfo(np.float64).tiny))

    def slope_at(Y: Array, rows: Integers) -> Array:
        return tangent(field(Y, rows)[1] - C[rows], Y)

    gradient = slope_at(X, rows)
    for iteration in range(max_iter):
        rows = rows[row_dots(gradient[rows], gradient[rows]) > tol**2]
        if len(rows) == 0:
            break
        before, downhill = gradient[rows], history.times_inverse_hessian(gradient, rows, iteration, scale)
        direction = -tangent(downhill, X[rows])
        uphill = row_dots(direction, before) >= 0
        direction[uphill] = -scale[rows[uphill], None] * before[uphill]
        Y, after = _line_search(X[rows], before, direction, rows, slope_at)
        moved, change = tangent(Y - X[rows], Y), after - tangent(before, Y)
        curvature, size = row_dots(moved, change), row_dots(change, change)
        convex = curvature > 1e-10 * np.sqrt(row_dots(moved, moved) * size)
        inverse = np.where(convex, 1 / np.where(convex, curvature, 1), 0)
        history.put(iteration, rows, moved * convex[:, None], change * convex[:, None], inverse)
        scale[rows] = np.where(convex, curvature / np.where(convex, size, 1), scale[rows])
        X[rows], gradient[rows] = Y, after
    return X


class History(NamedTuple):
    """The last displacements of every row, the changes of the gradient in them, and one over the products of both.

    All are zero where a row did not move or found no positive curvature, so that such entries have no effect.
    """

    moved: Array
    change: Array
    inverse: Array

    def put(self, iteration: int, rows: Integers, moved: Array, change: Array, inverse: Array) -> None:
        """Overwrite the oldest entry; rows that are not named get zeros."""
        place = iteration % _MEMORY
        for part, new in zip(self, (moved, change, inverse), strict=True):
            part[place] = 0
            part[place, rows] = new

    def times_inverse_hessian(self, gradient: Array, rows: Integers, iteration: int, scale: Array) -> Array:
        """Return the estimated inverse Hessian times the gradient of some rows, by the two-loop recursion."""
        q = gradient[rows]
        places = [place % _MEMORY for place in range(max(iteration - _MEMORY, 0), iteration)]
        steps = []
        for place in reversed(places):
            steps.append(self.inverse[place, rows] * row_dots(self.moved[place, rows], q))
            q -= steps[-1][:, None] * self.change[place, rows]
        q *= scale[rows, None]
        for place in places:
            back = self.inverse[place, rows] * row_dots(self.change[place, rows], q)
            q += (steps.pop() - back)[:, None] * self.moved[place, rows]
        return q


def _line_search(
    X: Array, gradient: Array, direction: Array, rows: Integers, slope_at: Callable[[Array, Integers], Array]
) -> tuple[Array, Array]:
    """Backtrack along each row's direction until the slope there is clearly less steep uphill than it was downhill."""
    start = row_dots(gradient, direction)
    length = 1 / np.maximum(np.sqrt(row_dots(direction, direction)), 1)
    Y, after, todo = X.copy(), gradient.copy(), np.arange(len(X))
    for _ in range(_SHORTER):
        Y[todo] = unit_rows(X[todo] + length[todo, None] * direction[todo])
        after[todo] = slope_at(Y[todo], rows[todo])
        end = row_dots(after[todo], direction[todo])
        too_far = end > -0.9 * start[todo]
        todo, end = todo[too_far], end[too_far]
        if len(todo) == 0:
            break
        length[todo] *= np.clip(start[todo] / (start[todo] - end), 0.1, 0.5)
    return Y, after
