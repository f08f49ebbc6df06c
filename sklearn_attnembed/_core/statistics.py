"""Key statistics: weight, mean and scatter of each cluster of keys, computed by blocks and merged.

Sums are accumulated in float64 and about the block's own mean, so that a mean far from the origin costs no digits.
"""

from collections.abc import Iterable
from functools import reduce
from typing import NamedTuple

import numpy as np

from .types import Array, Integers


class KeyStatistics(NamedTuple):
    """Moments of `kappa` clusters of keys, all float64.

    Attributes
    ----------
    weight : ndarray of shape (kappa,)
        Total key weight W_a.
    mean : ndarray of shape (kappa, d)
        Mean mu_a; zero for an empty cluster.
    scatter : ndarray of shape (kappa, d, d) or (kappa, d)
        Sum of w_j (y_j - mu_a)(y_j - mu_a)', which is W_a times the covariance Omega_a, or the diagonal of that.
    """

    weight: Array
    mean: Array
    scatter: Array

    @property
    def covariance(self) -> Array:
        """Covariance Omega_a of each cluster, of the shape of `scatter`."""
        return (self.scatter.T / np.where(self.weight > 0, self.weight, 1)).T


def group_sums(groups: Integers, weights: Array | None, n_groups: int) -> Array:
    """Return the sum of the weights of each group in float64, or its size without weights."""
    return np.bincount(groups, weights, minlength=n_groups).astype(np.float64, copy=False)


def _moments(Y: Array, weights: Array | None, diagonal: bool) -> tuple[float, Array, Array]:
    """Return weight, mean and scatter of one cluster."""
    Y = Y.astype(np.float64)  # a copy, centered in place below
    total = float(len(Y)) if weights is None else float(weights.sum())
    if total == 0:
        return 0.0, np.zeros(Y.shape[1]), np.zeros(Y.shape[1:] * (1 if diagonal else 2))
    mean = Y.mean(axis=0) if weights is None else weights @ Y / total
    Y -= mean
    if weights is not None:
        Y *= np.sqrt(weights)[:, None]
    return total, mean, np.einsum("ij,ij->j", Y, Y) if diagonal else Y.T @ Y


def block_statistics(
    Y: Array, weights: Array | None = None, labels: Integers | None = None, n_clusters: int = 1, diagonal: bool = False
) -> KeyStatistics:
    """Return the statistics of one block of keys; weights are 1 and the cluster is 0 unless given."""
    if labels is None or n_clusters == 1:
        parts = [_moments(Y, weights, diagonal)]
    else:
        members = [np.flatnonzero(labels == a) for a in range(n_clusters)]
        parts = [_moments(Y[rows], None if weights is None else weights[rows], diagonal) for rows in members]
    weight, mean, scatter = (np.array(part) for part in zip(*parts, strict=True))
    return KeyStatistics(weight, mean, scatter)


def _merge_two(a: KeyStatistics, b: KeyStatistics) -> KeyStatistics:
    weight = a.weight + b.weight
    share = b.weight / np.where(weight > 0, weight, 1)
    gap = b.mean - a.mean
    outer = gap**2 if a.scatter.ndim == 2 else gap[:, :, None] * gap[:, None, :]
    shift = ((a.weight * share) * outer.T).T
    return KeyStatistics(weight, a.mean + share[:, None] * gap, a.scatter + b.scatter + shift)


def merge(parts: Iterable[KeyStatistics]) -> KeyStatistics:
    """Return the statistics of the union, cluster by cluster, merged in the given order."""
    return reduce(_merge_two, parts)


def pool(statistics: KeyStatistics) -> KeyStatistics:
    """Return the statistics of all clusters as one."""
    return merge(KeyStatistics(w[None], m[None], s[None]) for w, m, s in zip(*statistics, strict=True))


def largest_variance(statistics: KeyStatistics) -> float:
    """Return the largest eigenvalue of any cluster's covariance and of the pooled one."""
    covariances = statistics.covariance
    if len(covariances) > 1:
        covariances = np.concatenate([covariances, pool(statistics).covariance])
    return max(float(np.linalg.eigvalsh(covariances)[:, -1].max()), 0.0)
