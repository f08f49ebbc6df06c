"""Gaussian mixture: log Z and its gradient if the scores of each cluster of keys are taken to be Gaussian.

A *field* is what the solver needs of a normalizer: ``field(X, rows) -> (log Z, gradient of log Z / beta)``, where
`rows` tells which of the solver's rows the block `X` holds.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from ..kernels import SOFTMAX, Kernel
from ..logsum import LogSum, exponentials, log_of
from ..statistics import KeyStatistics
from ..types import Array, Field, Rows


class ScaledMoments(NamedTuple):
    """Means mu_a (kappa, d) of clusters of keys, and their covariances times beta (kappa, d, d) or (kappa, d)."""

    means: Array
    covariances: Array
    beta: float


def scaled_moments(statistics: KeyStatistics, beta: float, dtype: DTypeLike = np.float64) -> ScaledMoments:
    """Return the moments of clusters in the precision of the queries, once for all blocks of them."""
    covariances = (beta * statistics.covariance).astype(dtype, copy=False)
    return ScaledMoments(statistics.mean.astype(dtype, copy=False), covariances, beta)


def score_moments(X: Array, moments: ScaledMoments, products: list[Array] | None = None) -> tuple[Array, Array]:
    """Compute mean beta x.mu_a and variance beta^2 x'Omega_a x of the scores in each cluster, both (n, kappa).

    The products beta x'Omega_a with full covariances are appended to `products`, for gradients need them too.
    """
    means, covariances, beta = moments
    mean = beta * (X @ means.T)
    if covariances.ndim == 2:
        return mean, beta * ((X * X) @ covariances.T)
    variance = np.empty_like(mean)
    for a, covariance in enumerate(covariances):
        product = X @ covariance
        variance[:, a] = beta * np.einsum("ij,ij->i", product, X)
        if products is not None:
            products.append(product)
    return mean, variance.clip(0)


def responsibilities(log_mass: Array) -> tuple[Array, Array]:
    """Return log Z and the share of it that each cluster has, from log masses; zero shares where Z = 0."""
    reference, share = exponentials(log_mass)
    total = share.sum(axis=1)
    share /= np.where(total > 0, total, 1)[:, None]
    return LogSum(reference, total).log(), share


def gaussian_log_mass(
    X: Array, statistics: KeyStatistics, kernel: Kernel, beta: float, tails: Array | None = None
) -> Array:
    """Compute log W_a + g(mean, variance) of the scores, whose logsumexp is log Z; ndarray of shape (n, kappa).

    Given `tails`, of shape (kappa,), each Gaussian counts as two halves of 1 + tail and 1 - tail times its variance.
    """
    mean, variance = score_moments(X, scaled_moments(statistics, beta))
    if tails is None:
        return log_of(statistics.weight) + kernel.log_expectation(mean, variance)
    wide, narrow = (kernel.log_expectation(mean, variance * factor) for factor in (1 + tails, 1 - tails))
    return log_of(statistics.weight / 2) + np.logaddexp(wide, narrow)


def gaussian_field(
    statistics: KeyStatistics, beta: float, kernel: Kernel = SOFTMAX, dtype: DTypeLike = np.float64
) -> Field:
    """Return the mixture's log Z and the gradient sum_a r_a (g_m mu_a + 2 beta g_v Omega_a x), r_a its shares."""
    occupied = KeyStatistics._make(part[statistics.weight > 0] for part in statistics)
    log_weight = np.log(occupied.weight).astype(dtype)
    moments = scaled_moments(occupied, beta, dtype)

    def field(X: Array, rows: Rows) -> tuple[Array, Array]:
        products: list[Array] = []
        mean, variance = score_moments(X, moments, products)
        log_z, share = responsibilities(log_weight + kernel.log_expectation(mean, variance))
        by_mean, by_variance = kernel.derivatives(mean, variance)
        gradient = (share * by_mean) @ moments.means
        for product, weight in zip(products, (2 * share * by_variance).T, strict=True):
            gradient += np.multiply(product, weight[:, None], out=product)
        return log_z, gradient

    return field
