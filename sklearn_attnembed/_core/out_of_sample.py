"""The response of single queries to given keys: each row minimises its own loss and knows of no other row."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from .inverted_index import Cells, nearest_keys
from .normalizers.exact import exact_field
from .normalizers.mixture import gaussian_field
from .normalizers.neighbors import NearKeys, neighbor_field
from .row_minimizers import gaussian_response, iterated_response
from .sphere import _padded
from .statistics import KeyStatistics, largest_variance, pool
from .types import Array, Field, Integers, Rows


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
    near: NearKeys | None = None

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


def out_of_sample_map(model: Model) -> Callable[[Array], Array]:
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


def _alone(field: Field) -> Field:
    """A field whose rows do not depend on each other by a bit, where that does not look at their numbers."""

    def padded(X: Array, rows: Rows) -> tuple[Array, Array]:
        log_z, gradient = field(_padded(X), rows)
        return log_z[: len(X)], gradient[: len(X)]

    return padded
