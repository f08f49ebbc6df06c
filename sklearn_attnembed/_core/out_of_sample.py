"""Vectors of single rows given the fitted keys: each row minimizes its own loss and depends on no other row.

Kernels with scores that enter pair by pair have an iteration of their own, in `pairwise_objective`: their loss has many
optima, so that a row has to follow the background as it fades, and L-BFGS from one start would end in another one.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from .inverted_index import Cells, nearest_keys
from .normalizers import exact_field_of
from .normalizers.mixture import gaussian_field
from .normalizers.neighbors import AttendedKeys, NearKeys, neighbor_field
from .normalizers.sampled import N_SAMPLED, field_of_few
from .row_minimizers import gaussian_response, iterated_response
from .sphere import padded, row_dots
from .statistics import KeyStatistics, largest_variance, pool
from .types import Array, Field, Integers, Rows

# Slope of the loss of a row, against a sample of the keys, at which it goes on in double precision, and at its end.
_ROUGH, _SLOPE = 1e-3, {"float32": 1e-6, "float64": 1e-9}


class Model(NamedTuple):
    """All that embedding a row needs.

    Attributes
    ----------
    targets : ndarray of shape (n_all_keys, d)
        The vectors that affinities lead to, averaged over walks: affinities times them attract a row.
    statistics : KeyStatistics
        Statistics of the keys.
    null_mean : ndarray of shape (d,)
        The mean that repels a row.
    beta : float
        1 / temperature.
    keys : ndarray of shape (n_keys, d), float64, or None
        Keys with any affinity; None for the mixture, which needs their statistics only.
    weights : ndarray of shape (n_keys,) or None
        Weights of these keys.
    fingerprints : ndarray of shape (n_keys, 4) or None
        Fingerprints of the fitted rows, one for each of these keys, where queries and keys are of one kind.
    n_exact : int
        Number of near keys that are summed exactly.
    cells : Cells or None
        Index to find them by; None if all keys are summed.
    near : NearKeys or None
        The sample that represents the other keys, and the clusters.
    signature : ndarray of shape (d,) or None
        Signs of the components in the product of a row and a key; None if all are positive.
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
    near: NearKeys | None = None
    signature: Array | None = None

    @property
    def is_closed(self) -> bool:
        """Whether the vector of a row has a closed form."""
        return self.keys is None and len(self.statistics.weight) == 1


def fingerprint(U: Array) -> Array:
    """Project the vectors that affinities lead to on four fixed directions, which tells rows apart."""
    return U @ np.random.default_rng(0).standard_normal((U.shape[1], 4))


class _KnownRows:
    """The fitted rows, recognized by their fingerprints; rows with equal affinities count as the first of them."""

    def __init__(self, fingerprints: Array):
        self.tree, order = cKDTree(fingerprints), np.argsort(fingerprints[:, 0], kind="stable")
        # Fingerprints of the same affinities are equal up to rounding.
        self.radius = 1e-5 * float(np.abs(self.tree.maxes).max())
        # Equal ones lie next to each other in the order of any one projection.
        apart = np.linalg.norm(np.diff(fingerprints[order], axis=0), axis=1) > self.radius
        starts = np.flatnonzero(np.concatenate([[True], apart]))
        self.first = np.empty(len(order), np.intp)
        self.first[order] = np.repeat(np.minimum.reduceat(order, starts), np.diff([*starts, len(order)]))

    def find(self, U: Array) -> tuple[Integers, Integers]:
        """Return the fitted row of each query, and the numbers of the queries that are none."""
        found = self.tree.query(fingerprint(U), distance_upper_bound=self.radius)[1]
        return self.first[found % len(self.first)], np.flatnonzero(found == len(self.first))


def out_of_sample_map(model: Model) -> Callable[[Array], Array]:
    """Return the function from ``U = P @ targets`` to the vectors of rows with affinities P."""
    center = pool(model.statistics)
    spectrum = np.linalg.eigh(model.beta * center.covariance[0])  # once, not for every block
    largest_repulsion = spectrum[0][-1] - spectrum[0][0]
    stiffness = model.beta * largest_variance(model.statistics)
    known = None if model.fingerprints is None else _KnownRows(model.fingerprints)
    gaussians = gaussian_field(model.statistics, model.beta)
    signature = None if model.signature is None else model.signature.astype(model.targets.dtype)

    def embed(U: Array) -> Array:
        return responses(U) if signature is None else responses(U) * signature

    def responses(U: Array) -> Array:
        """Return the vectors with the signs of the signature, whose products with keys are scores."""
        force = U - (model.null_mean if signature is None else model.null_mean * signature)
        if model.is_closed:
            return against_gaussian(force.astype(model.targets.dtype, copy=False))
        if model.keys is None:
            return iterated_response(force, against_gaussian(force), mixture, stiffness)
        if known is None:
            return against_keys(model.keys, force)
        fitted, new = known.find(U)
        X: Array = model.keys[fitted] if signature is None else model.keys[fitted] * signature
        if len(new):
            X[new] = against_keys(model.keys, force[new])
        return X

    def mixture(X: Array, rows: Rows) -> tuple[Array, Array]:
        """Return log Z and its gradient with the same bits whatever rows are in the block."""
        log_z, gradient = gaussians(padded(X), rows)
        return log_z[: len(X)], gradient[: len(X)]

    def against_gaussian(force: Array) -> Array:
        """Return the vectors where all keys count as one Gaussian."""
        return gaussian_response(_at_least(force - center.mean[0].astype(force.dtype), largest_repulsion), spectrum)

    def against_keys(keys: Array, force: Array) -> Array:
        """Return the vectors where near keys, or all of them, are summed exactly."""
        X, near = against_gaussian(force), model.near
        attended = AttendedKeys(model.statistics, keys, model.weights, model.beta, None, known is not None)
        if near is None or model.cells is None:
            if model.weights is None or len(keys) > N_SAMPLED or known is not None:
                return iterated_response(force, X, exact_field_of(attended), stiffness)
            X = iterated_response(force, X, few_in_single(keys, model.weights), stiffness, tol=_ROUGH)
            tol = _SLOPE[model.targets.dtype.name]
            return iterated_response(force, X, field_of_few(keys, model.weights, model.beta), stiffness, tol=tol)
        nearest = None
        for _ in range(2):  # the keys near where a row is now, and again near where it then is
            nearest = nearest_keys(X, keys, model.cells, model.n_exact, map, nearest)
            X = iterated_response(force, X, neighbor_field(attended, near._replace(nearest=nearest)), stiffness)
        return X

    def few_in_single(keys: Array, weights: Array) -> Field:
        """Return the sum over all keys in single precision, which takes a third of the time."""
        field = field_of_few(keys.astype(np.float32), weights, model.beta)
        return lambda X, rows: field(X.astype(np.float32), rows)

    return embed


def _at_least(force: Array, least: float) -> Array:
    """Lengthen rows to a least norm, the largest force with which the spread of the keys can repel.

    Otherwise rows with little attraction, those of hubs above all, would all be sent to the one place where keys are
    fewest.
    """
    norms = np.sqrt(row_dots(force, force))
    return force * np.maximum(1, least / np.where(norms > 0, norms, np.inf)).astype(force.dtype)[:, None]
