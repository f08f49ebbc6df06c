"""Attention applied to values in linear time: from moments of keys with values, and from running sums."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .kernels import Kernel, squared_features
from .normalizers.mixture import responsibilities
from .parallel import row_blocks
from .types import Array, Integers

# Number of queries in a block of causal squared attention.
_CHUNK = 128


class ValueMoments(NamedTuple):
    """Moments of clusters of keys with their values.

    Attributes
    ----------
    mean : ndarray of shape (kappa, d)
        Mean mu_a of the keys.
    sums : ndarray of shape (kappa, 1 + d + d (d + 1) / 2, d_v + 1)
        Sums of (1, k - mu_a, all products of two of its components) times (value, 1).
    """

    mean: Array
    sums: Array


def _powers(X: Array) -> Array:
    """Return 1, the components and their products as columns."""
    return np.hstack([np.ones((len(X), 1)), X, squared_features(X)])


def value_moments(K: Array, V: Array, labels: Integers, n_clusters: int) -> ValueMoments:
    """Compute the moments of float64 keys and values, a block at a time."""
    d = K.shape[1]
    mean = np.zeros((n_clusters, d))
    sums = np.zeros((n_clusters, 1 + d + d * (d + 1) // 2, V.shape[1] + 1))
    for a in range(n_clusters):
        members = np.flatnonzero(labels == a)
        mean[a] = K[members].mean(axis=0)
        for block in row_blocks([len(members)], sums.shape[1]):
            rows = members[block]
            sums[a] += _powers(K[rows] - mean[a]).T @ np.hstack([V[rows], np.ones((len(rows), 1))])
    return ValueMoments(mean, sums)


def gaussian_attention(Q: Array, moments: ValueMoments, kernel: Kernel, beta: float) -> tuple[Array, Array]:
    """Compute log Z and output by the Gaussian mixture.

    In each cluster E f(s) v is expanded in Hermite polynomials of the score, up to the second: with t the score less
    its mean, it is E f (E v + g_m E t v + g_v E (t^2 - var) v), where g = log E f. Exact for the squared kernel.
    """
    # The variances of the scores are the last column of a product that the values need anyway, so they are not computed
    # by `score_moments`.
    powers = _powers(beta * Q)
    d = Q.shape[1]
    log_mass, parts = [], []
    for mu, sums in zip(*moments, strict=True):
        total = sums[0, -1]
        level, linear, square = (
            sums[0] / total,
            powers[:, 1 : d + 1] @ sums[1 : d + 1],
            powers[:, d + 1 :] @ sums[d + 1 :],
        )
        mean, variance = powers[:, 1 : d + 1] @ mu, (square[:, -1] / total).clip(0)
        by_mean, by_variance = kernel.derivatives(mean, variance)
        curved = square / total - variance[:, None] * level
        parts.append(level + by_mean[:, None] * linear / total + by_variance[:, None] * curved)
        log_mass.append(np.log(total) + kernel.log_expectation(mean, variance))
    log_z, share = responsibilities(np.stack(log_mass, axis=1))
    output = np.einsum("ia,aij->ij", share, np.stack(parts)[:, :, :-1])
    output[np.isneginf(log_z)] = moments.sums[:, 0, :-1].sum(axis=0) / moments.sums[:, 0, -1].sum()
    return log_z, output


def causal_squared_sums(Q: Array, K: Array, V: Array) -> Iterator[Array]:
    """Yield sum_{j <= i} (q_i . k_j)^2 (v_j, 1) for chunks of queries, from a running sum over earlier keys."""
    U = np.hstack([V, np.ones((len(V), 1))])
    before = np.zeros((K.shape[1] * (K.shape[1] + 1) // 2, U.shape[1]))
    for start in range(0, len(Q), _CHUNK):
        rows = slice(start, start + _CHUNK)
        q, k, u = Q[rows], K[rows], U[rows]
        own = np.tril(np.square(q @ k.T))
        yield squared_features(q) @ before + own @ u
        before += squared_features(k).T @ u
