"""The response of single queries to given keys: each row minimises its own loss and knows of no other row."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from .kernels import Array
from .normalizer import Field, exact_field, gaussian_field, neighbor_field
from .operators import momentum, unit_rows
from .statistics import KeyStatistics, largest_variance, pool


class Model(NamedTuple):
    """All that a query has to know.

    Attributes
    ----------
    statistics : KeyStatistics
    null_mean : ndarray of shape (d,)
        The mean that queries are pushed away from.
    beta : float
        1 / temperature.
    normalizer : {"gaussian", "neighbors", "exact"}
    keys : ndarray of shape (n_keys, d) or None
        Active keys; not needed by "gaussian".
    fingerprints : ndarray of shape (n_keys, 4) or None
        Of the fitted rows, one for each active key, if queries and keys are of one kind.
    nearest : callable
        ``(queries, keys) -> indices of the nearest keys``.
    """

    statistics: KeyStatistics
    null_mean: Array
    beta: float
    normalizer: str
    keys: Array | None
    fingerprints: Array | None
    nearest: Callable[[Array, Array], NDArray[np.integer]]


def fingerprint(U: Array) -> Array:
    """Four fixed projections, which tell apart where the affinities of rows lead."""
    return U @ np.random.default_rng(0).standard_normal((U.shape[1], 4))


def responder(model: Model) -> Callable[[Array], Array]:
    """From U = P Y, float64, where the affinities of rows lead, to their vectors."""
    center = pool(model.statistics)
    spectrum = np.linalg.eigh(model.beta * center.covariance[0])  # once, not for every block
    stiffness = model.beta * largest_variance(model.statistics)
    fitted = None if model.normalizer == "gaussian" or model.fingerprints is None else cKDTree(model.fingerprints)

    def respond(U: Array) -> Array:
        force = U - model.null_mean
        X = gaussian_response(force - center.mean[0], spectrum)
        if model.normalizer == "gaussian":
            if len(model.statistics.weight) == 1:
                return X
            return iterated_response(force, X, gaussian_field(model.statistics, model.beta), stiffness)
        own = None
        if fitted is not None:
            reach = 1e-5 * np.abs(fitted.maxes).max()
            own = fitted.query(fingerprint(U), distance_upper_bound=reach)[1]
            own[own == len(model.keys)] = -1
            X = np.where(own[:, None] >= 0, model.keys[own], X)
        if model.normalizer == "exact":
            return iterated_response(force, X, exact_field(model.keys, model.beta, own), stiffness)
        for _ in range(2):  # the nearest keys of where we are, twice
            nearest = model.nearest(X, model.keys)
            field = neighbor_field(model.statistics, model.keys, nearest, model.beta, own)
            X = iterated_response(force, X, field, stiffness)
        return X

    return respond


def gaussian_response(C: Array, spectrum: tuple[Array, Array]) -> Array:
    """Unit rows x minimising -c.x + x'Bx / 2, B positive semi-definite: the trust-region problem, in closed form.

    `spectrum` is ``numpy.linalg.eigh(B)``. In the eigenbasis of B the minimiser is c / (b + nu), nu the root of the
    secular equation |x| = 1 above -b_min; Newton's method on 1 / |x| - 1, which is nearly linear, comes from the left
    and cannot overshoot.
    """
    b, basis = spectrum
    C = C @ basis
    norm = np.sqrt(np.einsum("ij,ij->i", C, C))
    tiny = np.finfo(np.float64).eps * (norm + b[-1]) + np.finfo(np.float64).tiny
    nu = np.maximum(np.maximum(norm - b[-1], np.abs(C[:, 0]) - b[0]), tiny - b[0])
    for _ in range(50):
        gap = b + nu[:, None]
        square = np.square(C / gap)
        length = square.sum(axis=1)
        slope = (square / gap).sum(axis=1)
        change = length / np.where(slope > 0, slope, 1) * (np.sqrt(length) - 1)
        nu = np.maximum(nu + change, tiny - b[0])
        if np.all(np.abs(change) <= 4 * tiny):
            break
    X = C / (b + nu[:, None])
    missing = 1 - np.einsum("ij,ij->i", X, X)
    X[:, 0] += np.sqrt(np.where(missing > 1e-6, missing, 0))  # no force along the softest direction: the hard case
    return unit_rows(X @ basis.T)


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
