"""The keys' side of the gradient: how the sum of log Z over all queries changes where a key moves.

A key y_j that is attended to by the queries x_i with shares a_ij has the gradient beta sum_i a_ij x_i. It is
w_j N(y_j) times the gradient of log N(y_j), where N(y) = sum_i exp(beta x_i . y) / Z_i is a normalizer too: that of the
queries, weighted by 1 / Z_i. What estimates log Z of queries therefore estimates the keys' side as well.
"""

from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

import numpy as np

from .kernels import SOFTMAX
from .logsum import log_of
from .normalizers import Normalizer
from .normalizers.mixture import responsibilities, scaled_moments, score_moments
from .normalizers.neighbors import AttendedKeys, NearKeys
from .parallel import Runner
from .statistics import KeyStatistics, block_statistics, merge
from .types import Array, Integers

# ``(Y, rows) -> (attention, gradient of the sum of log Z / beta)`` of the keys that the block `Y` holds, where the
# attention of a key is summed over all queries.
KeySide = Callable[[Array, slice], tuple[Array, Array]]


class Attended(NamedTuple):
    """Keys of one group, and the queries that attend to them.

    Attributes
    ----------
    statistics : KeyStatistics
        Statistics of the keys.
    key_labels, key_weights : ndarray of shape (n_keys,) or None
        Clusters of the keys; None for one cluster. Their weights; None for equal weights.
    queries : ndarray of shape (n_queries, d)
    query_labels : ndarray of int of shape (n_queries,) or None
    log_z : ndarray of shape (n_queries,)
    near : NearKeys or None
        The queries that are near to each key, as a normalizer sums them one by one; None where it sums all of them.
    beta : float
        1 / temperature.
    bounds : list of slice
        Blocks of the queries.
    seed : tuple of int
        Seed of a sample of the queries.
    """

    statistics: KeyStatistics
    key_labels: Integers | None
    key_weights: Array | None
    queries: Array
    query_labels: Integers | None
    log_z: Array
    near: NearKeys | None
    beta: float
    bounds: list[slice]
    seed: tuple[int, ...] = ()


def key_side(normalizer: Normalizer, attended: Attended, run: Runner) -> KeySide:
    """Return the keys' side of the gradient, as a normalizer estimates log Z."""
    return mirrored_side(normalizer, attended, run) if normalizer.sums_keys else gaussian_side(attended, run)


def mirrored_side(normalizer: Normalizer, attended: Attended, run: Runner) -> KeySide:
    """Return the keys' side where near keys, or all of them, are summed: queries and keys change places."""
    queries, labels, lowest = attended.queries, attended.query_labels, float(attended.log_z.min())
    weights = np.exp(lowest - attended.log_z)
    n_clusters = len(attended.statistics.weight)

    def one(block: int) -> KeyStatistics:
        rows = attended.bounds[block]
        return block_statistics(queries[rows], weights[rows], None if labels is None else labels[rows], n_clusters)

    statistics = merge(run(one, range(len(attended.bounds))))
    assert normalizer.field is not None
    field = normalizer.field(
        AttendedKeys(statistics, queries, weights, attended.beta, attended.near, seed=attended.seed)
    )

    def side(Y: Array, rows: slice) -> tuple[Array, Array]:
        log_n, gradient = field(Y, rows)
        attention = np.exp(log_n - lowest) * _weights(attended, rows)
        return attention, gradient * attention[:, None].astype(Y.dtype)

    return side


def gaussian_side(attended: Attended, run: Runner) -> KeySide:
    """Return the keys' side for a mixture of Gaussians: the derivative by its means and covariances.

    With r_ia the share of cluster a in Z_i, a key of this cluster has the gradient ``w_j / W_a sum_i r_ia (x_i + beta
    x_i x_i' (y_j - mu_a))``.
    """
    statistics, beta, dtype = attended.statistics, attended.beta, attended.queries.dtype
    moments, log_weight = scaled_moments(statistics, beta, dtype), log_of(statistics.weight).astype(dtype)

    def one(block: int) -> list[Array]:
        X = attended.queries[attended.bounds[block]]
        share = responsibilities(log_weight + SOFTMAX.log_expectation(*score_moments(X, moments)))[1]
        second = np.stack([(X * part[:, None]).T @ X for part in share.T])
        return [part.astype(np.float64) for part in (share.sum(axis=0), share.T @ X, second)]

    parts = run(one, range(len(attended.bounds)))
    sums = reduce(lambda a, b: [x + y for x, y in zip(a, b, strict=True)], parts)
    per = 1 / np.where(statistics.weight > 0, statistics.weight, 1)
    attention, first = sums[0] * per, sums[1] * per[:, None]
    matrices = beta * sums[2] * per[:, None, None]
    offsets = first - np.einsum("aij,aj->ai", matrices, statistics.mean)
    offsets, matrices = offsets.astype(dtype), matrices.astype(dtype)

    def side(Y: Array, rows: slice) -> tuple[Array, Array]:
        labels = np.zeros(len(Y), np.intp) if attended.key_labels is None else attended.key_labels[rows]
        gradient, weights = np.empty_like(Y), _weights(attended, rows)
        for a in np.unique(labels):
            members = labels == a
            gradient[members] = offsets[a] + Y[members] @ matrices[a]
        gradient *= weights[:, None].astype(dtype)
        return attention[labels] * weights, gradient

    return side


def _weights(attended: Attended, rows: slice) -> Array:
    """Return the weights of some keys."""
    return np.ones(rows.stop - rows.start) if attended.key_weights is None else attended.key_weights[rows]
