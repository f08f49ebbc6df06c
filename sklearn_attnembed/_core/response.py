"""The response of single queries to given keys: each row minimises its own loss and knows of no other row."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from .cells import Cells, nearest_keys
from .kernels import Array, Integers, Rows
from .normalizer import Field, Near, exact_field, gaussian_field, neighbor_field
from .operators import unit_rows
from .statistics import KeyStatistics, largest_variance, pool

# Steps that L-BFGS remembers, and how often it shortens one.
_MEMORY, _SHORTER = 8, 12
# Rows are padded to a multiple of so many: BLAS multiplies few rows by other code than many.
_FULL = 128


class Model(NamedTuple):
    """All that a query has to know.

    Attributes
    ----------
    targets : ndarray of shape (n_all_keys, d)
        Where a step from a query leads, walks included: affinities times it are the query's U.
    statistics : KeyStatistics
    null_mean : ndarray of shape (d,)
        The mean that queries are pushed away from.
    beta : float
        1 / temperature.
    keys : ndarray of shape (n_keys, d), float64, or None
        Active keys; None for the mixture alone.
    weights : ndarray of shape (n_keys,) or None
        Of these keys.
    fingerprints : ndarray of shape (n_keys, 4) or None
        Of the fitted rows, one for each active key, if queries and keys are of one kind.
    n_exact : int
        Nearest keys summed.
    cells : Cells or None
        To find them; None if all keys are summed.
    near : Near or None
        The sample that stands for the others, and the clusters.
    """

    targets: Array
    statistics: KeyStatistics
    null_mean: Array
    beta: float
    keys: Array | None = None
    weights: Array | None = None
    fingerprints: Array | None = None
    n_exact: int = 0
    cells: Cells | None = None
    near: Near | None = None

    @property
    def is_closed(self) -> bool:
        """Whether the response has a closed form."""
        return self.keys is None and len(self.statistics.weight) == 1


def fingerprint(U: Array) -> Array:
    """Four fixed projections, which tell apart where the affinities of rows lead."""
    return U @ np.random.default_rng(0).standard_normal((U.shape[1], 4))


def _within(fitted: Any) -> float:
    """How near fingerprints of the same affinities are, whatever is rounded."""
    return 1e-5 * float(np.abs(fitted.maxes).max())


def _known_rows(fingerprints: Array) -> tuple[Any, Integers]:
    """A tree to look rows up by their fingerprints, and for each the first of its twins: those of the same affinities.

    Twins lie next to each other in the order of any one projection.
    """
    fitted, order = cKDTree(fingerprints), np.argsort(fingerprints[:, 0], kind="stable")
    apart = np.linalg.norm(np.diff(fingerprints[order], axis=0), axis=1) > _within(fitted)
    starts = np.flatnonzero(np.concatenate([[True], apart]))
    first = np.empty(len(order), np.intp)
    first[order] = np.repeat(np.minimum.reduceat(order, starts), np.diff([*starts, len(order)]))
    return fitted, first


def responder(model: Model) -> Callable[[Array], Array]:
    """From U = P Y, where the affinities of rows lead, to their vectors."""
    center = pool(model.statistics)
    spectrum = np.linalg.eigh(model.beta * center.covariance[0])  # once, not for every block
    crowd = spectrum[0][-1] - spectrum[0][0]
    stiffness = model.beta * largest_variance(model.statistics)
    fitted, first = _known_rows(model.fingerprints) if model.fingerprints is not None else (None, np.empty(0, np.intp))

    def respond(U: Array) -> Array:
        force = U - model.null_mean
        if model.is_closed:
            return alone(force.astype(model.targets.dtype, copy=False))
        if model.keys is None:
            return iterated_response(
                force, alone(force), _alone(gaussian_field(model.statistics, model.beta)), stiffness
            )
        if fitted is None:
            return among(model.keys, force)
        found = fitted.query(fingerprint(U), distance_upper_bound=_within(fitted))[1]
        new = np.flatnonzero(found == len(model.keys))
        X: Array = model.keys[first[found % len(model.keys)]]
        if len(new):
            X[new] = among(model.keys, force[new])
        return X

    def alone(force: Array) -> Array:
        """Against one Gaussian."""
        return gaussian_response(_at_least(force - center.mean[0].astype(force.dtype), crowd), spectrum)

    def among(keys: Array, force: Array) -> Array:
        """Against near keys, or all of them."""
        X, near = alone(force), model.near
        if near is None or model.cells is None:
            field = exact_field(keys, model.weights, model.beta, fitted is not None)
            return iterated_response(force, X, field, stiffness)
        nearest = None
        for _ in range(2):  # the nearest keys of where we are, twice
            nearest = nearest_keys(X, keys, model.cells, model.n_exact, map, nearest)
            near = near._replace(nearest=nearest)
            field = neighbor_field(model.statistics, keys, model.weights, near, model.beta, fitted is not None)
            X = iterated_response(force, X, field, stiffness)
        return X

    return respond


def _at_least(C: Array, norm: float) -> Array:
    """Rows no shorter than `norm`: where relations pull less than the crowd pushes, the crowd is let push no more.

    Otherwise whatever has little to say, hubs first of all, would be sent to where there is room, all to one place.
    """
    norms = np.sqrt(np.einsum("ij,ij->i", C, C))
    return C * np.maximum(1, norm / np.where(norms > 0, norms, np.inf)).astype(C.dtype)[:, None]


def gaussian_response(C: Array, spectrum: tuple[Array, Array]) -> Array:
    """Unit rows x minimising -c.x + x'Bx / 2, B positive semi-definite: the trust-region problem, in closed form.

    `spectrum` is ``numpy.linalg.eigh(B)``. In the eigenbasis of B the minimiser is c / (b + nu), nu the root of the
    secular equation |x| = 1 above -b_min; Newton's method on 1 / |x| - 1, which is nearly linear, comes from the left
    and cannot overshoot.
    """
    dtype, (b, basis) = C.dtype, spectrum
    b, basis = b.astype(dtype), basis.astype(dtype)
    C = _batchless(C, basis)
    norm = np.sqrt(np.einsum("ij,ij->i", C, C))
    tiny = 8 * np.finfo(dtype).eps * (norm + b[-1]) + np.finfo(dtype).tiny
    nu = np.maximum(np.maximum(norm - b[-1], np.abs(C[:, 0]) - b[0]), tiny - b[0])
    for _ in range(50):
        inverse = 1 / (b + nu[:, None])
        square = C * inverse
        square *= square
        length = square.sum(axis=1)
        slope = np.einsum("ij,ij->i", square, inverse)
        change = length / np.where(slope > 0, slope, 1) * (np.sqrt(length) - 1)
        moving = np.abs(change) > 4 * tiny
        if not moving.any():
            break
        nu = np.where(moving, np.maximum(nu + change, tiny - b[0]), nu)  # no row waits for another
    X = C / (b + nu[:, None])
    missing = 1 - np.einsum("ij,ij->i", X, X)
    X[:, 0] += np.sqrt(np.where(missing > 1e-6, missing, 0))  # no force along the softest direction: the hard case
    return unit_rows(_batchless(X, basis.T))


def _batchless(X: Array, A: Array) -> Array:
    """X @ A with every row the same whatever rows are with it."""
    return (_padded(X) @ A)[: len(X)]


def _padded(X: Array) -> Array:
    """Rows of zeros put behind, to full blocks."""
    missing = -len(X) % _FULL
    return X if missing == 0 else np.concatenate([X, np.zeros((missing, X.shape[1]), X.dtype)])


def _alone(field: Field) -> Field:
    """A field whose rows do not depend on each other by a bit, where that does not look at their numbers."""

    def padded(X: Array, rows: Rows) -> tuple[Array, Array]:
        log_z, gradient = field(_padded(X), rows)
        return log_z[: len(X)], gradient[: len(X)]

    return padded


def iterated_response(
    C: Array, start: Array, field: Field, stiffness: float, *, tol: float = 1e-9, max_iter: int = 200
) -> Array:
    """Unit rows x minimising -c.x + log Z(x) / beta, each row alone, from `start`.

    L-BFGS on the sphere, with steps, history and end of every row's own: no row knows of another. The line search goes
    by slopes alone, for fields whose log Z and gradient are estimated apart.
    """
    n, d = C.shape
    X, rows = start.copy(), np.arange(n)
    history = History(np.zeros((_MEMORY, n, d)), np.zeros((_MEMORY, n, d)), np.zeros((_MEMORY, n)))
    scale = np.full(n, 1 / max(stiffness, np.finfo(np.float64).tiny))

    def slope_at(Y: Array, rows: Integers) -> Array:
        return _tangent(field(Y, rows)[1] - C[rows], Y)

    gradient = slope_at(X, rows)
    for iteration in range(max_iter):
        rows = rows[_dots(gradient[rows], gradient[rows]) > tol**2]
        if len(rows) == 0:
            break
        before, downhill = gradient[rows], history.times_inverse_hessian(gradient, rows, iteration, scale)
        direction = -_tangent(downhill, X[rows])
        uphill = _dots(direction, before) >= 0
        direction[uphill] = -scale[rows[uphill], None] * before[uphill]
        Y, after = _line_search(X[rows], before, direction, rows, slope_at)
        moved, change = _tangent(Y - X[rows], Y), after - _tangent(before, Y)
        curvature, size = _dots(moved, change), _dots(change, change)
        convex = curvature > 1e-10 * np.sqrt(_dots(moved, moved) * size)
        inverse = np.where(convex, 1 / np.where(convex, curvature, 1), 0)
        history.put(iteration, rows, moved * convex[:, None], change * convex[:, None], inverse)
        scale[rows] = np.where(convex, curvature / np.where(convex, size, 1), scale[rows])
        X[rows], gradient[rows] = Y, after
    return X


class History(NamedTuple):
    """The last displacements of every row, the changes of the gradient in them, and one over the products of both.

    All zero where a row did not move, or found no positive curvature: such entries have no say.
    """

    moved: Array
    change: Array
    inverse: Array

    def put(self, iteration: int, rows: Integers, moved: Array, change: Array, inverse: Array) -> None:
        """Overwrite the oldest entry; rows that are not named get none."""
        place = iteration % _MEMORY
        for part, new in zip(self, (moved, change, inverse), strict=True):
            part[place] = 0
            part[place, rows] = new

    def times_inverse_hessian(self, gradient: Array, rows: Integers, iteration: int, scale: Array) -> Array:
        """The estimated inverse Hessian times the gradient of some rows: the two-loop recursion."""
        q = gradient[rows]
        places = [place % _MEMORY for place in range(max(iteration - _MEMORY, 0), iteration)]
        steps = []
        for place in reversed(places):
            steps.append(self.inverse[place, rows] * _dots(self.moved[place, rows], q))
            q -= steps[-1][:, None] * self.change[place, rows]
        q *= scale[rows, None]
        for place in places:
            back = self.inverse[place, rows] * _dots(self.change[place, rows], q)
            q += (steps.pop() - back)[:, None] * self.moved[place, rows]
        return q


def _line_search(
    X: Array, gradient: Array, direction: Array, rows: Integers, slope_at: Callable[[Array, Integers], Array]
) -> tuple[Array, Array]:
    """Go along each row's direction, shorter until the slope there is not nearly as steep uphill as it was downhill."""
    start = _dots(gradient, direction)
    length = 1 / np.maximum(np.sqrt(_dots(direction, direction)), 1)
    Y, after, todo = X.copy(), gradient.copy(), np.arange(len(X))
    for _ in range(_SHORTER):
        Y[todo] = unit_rows(X[todo] + length[todo, None] * direction[todo])
        after[todo] = slope_at(Y[todo], rows[todo])
        end = _dots(after[todo], direction[todo])
        too_far = end > -0.9 * start[todo]
        todo, end = todo[too_far], end[too_far]
        if len(todo) == 0:
            break
        length[todo] *= np.clip(start[todo] / (start[todo] - end), 0.1, 0.5)
    return Y, after


def _dots(A: Array, B: Array) -> Array:
    """Products of rows with rows."""
    return np.asarray(np.einsum("ij,ij->i", A, B))


def _tangent(G: Array, X: Array) -> Array:
    """The parts of rows that are tangent to the sphere at unit rows."""
    return np.asarray(G - _dots(G, X)[:, None] * X)
