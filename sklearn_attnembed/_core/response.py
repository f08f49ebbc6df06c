"""The response of single queries to given keys: each row minimises its own loss and knows of no other row."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from .cells import Cells, nearest_keys
from .kernels import Array
from .normalizer import Field, Near, exact_field, gaussian_field, neighbor_field
from .operators import momentum, unit_rows
from .statistics import KeyStatistics, largest_variance, pool


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


def responder(model: Model) -> Callable[[Array], Array]:
    """From U = P Y, where the affinities of rows lead, to their vectors."""
    center = pool(model.statistics)
    spectrum = np.linalg.eigh(model.beta * center.covariance[0])  # once, not for every block
    crowd = spectrum[0][-1] - spectrum[0][0]
    stiffness = model.beta * largest_variance(model.statistics)
    fitted = None if model.fingerprints is None else cKDTree(model.fingerprints)

    def respond(U: Array) -> Array:
        force = U - model.null_mean
        if model.is_closed:
            return alone(force.astype(model.targets.dtype, copy=False))
        if model.keys is None:
            return iterated_response(force, alone(force), gaussian_field(model.statistics, model.beta), stiffness)
        if fitted is None:
            return among(model.keys, force)
        within = 1e-5 * np.abs(fitted.maxes).max()
        found = fitted.query(fingerprint(U), distance_upper_bound=within)[1]
        new = np.flatnonzero(found == len(model.keys))
        X: Array = model.keys[found % len(model.keys)]
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
        nu = np.maximum(nu + change, tiny - b[0])
        if np.all(np.abs(change) <= 4 * tiny):
            break
    X = C / (b + nu[:, None])
    missing = 1 - np.einsum("ij,ij->i", X, X)
    X[:, 0] += np.sqrt(np.where(missing > 1e-6, missing, 0))  # no force along the softest direction: the hard case
    return unit_rows(_batchless(X, basis.T))


def _batchless(X: Array, A: Array) -> Array:
    """X @ A with every row the same whatever rows are with it: few rows are multiplied by other code than many."""
    missing = -len(X) % 128
    if missing == 0:
        return X @ A
    return (np.concatenate([X, np.zeros((missing, X.shape[1]), X.dtype)]) @ A)[: len(X)]


def iterated_response(
    C: Array, start: Array, field: Field, stiffness: float, *, tol: float = 1e-8, max_iter: int = 300
) -> Array:
    """Unit rows x minimising -c.x + log Z(x) / beta, each row alone, from `start`.

    The damped fixed point with momentum, restart and damping of every row's own: no row knows of another.
    """
    X = start.copy()
    last = X.copy()
    damping = np.full(len(X), max(stiffness, np.finfo(np.float64).tiny))
    age = np.zeros(len(X))
    was_restart = np.zeros(len(X), dtype=bool)
    rows = np.arange(len(X))
    for _ in range(max_iter):
        if len(rows) == 0:
            break
        Y, previous = X[rows], last[rows]
        proposal = unit_rows(C[rows] - field(Y, rows)[1] + damping[rows, None] * Y)
        moved = proposal - Y
        turned = np.einsum("ij,ij->i", moved, proposal - previous) < 0
        damping[rows] *= np.where(turned & was_restart[rows], 2, 1)
        was_restart[rows] = turned
        age[rows] = np.where(turned, 0, age[rows] + 1)
        X[rows] = unit_rows(proposal + momentum(age[rows])[:, None] * (proposal - previous))
        last[rows] = proposal
        rows = rows[np.einsum("ij,ij->i", moved, moved) > tol**2]
    return last
