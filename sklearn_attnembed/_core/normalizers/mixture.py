"""Normalisers: log Z of queries against keys, by the Gaussian mixture, with nearest keys, and exactly.

A *field* is what the solver needs of a normaliser: ``field(X, rows) -> (log Z, gradient of log Z / beta)``,
`rows` telling which of the solver's rows the block `X` holds.
"""

import numpy as np
from numpy.typing import DTypeLike

from ..kernels import SOFTMAX, Kernel, log_of
from ..statistics import KeyStatistics
from ..types import Array, Field, Rows


def score_moments(X: Array, statistics: KeyStatistics, beta: float) -> tuple[Array, Array]:
    """Mean beta x.mu_a and variance beta^2 x'Omega_a x of the scores in each cluster; both of shape (n, kappa)."""
    X = beta * X
    mean = X @ statistics.mean.T
    covariance = statistics.covariance
    if covariance.ndim == 2:
        return mean, (X * X) @ covariance.T
    variance = np.empty_like(mean)
    for a, Omega in enumerate(covariance):
        variance[:, a] = np.einsum("ij,ij->i", X @ Omega, X)
    return mean, np.maximum(variance, 0)


def gaussian_log_mass(
    X: Array, statistics: KeyStatistics, kernel: Kernel, beta: float, tails: Array | None = None
) -> Array:
    """log W_a + g(mean, variance) of the scores: log Z is its logsumexp; ndarray of shape (n, kappa).

    Given `tails`, of shape (kappa,), each Gaussian counts as two halves of 1 + tail and 1 - tail times its variance.
    """
    mean, variance = score_moments(X, statistics, beta)
    if tails is None:
        return log_of(statistics.weight) + kernel.log_expectation(mean, variance)
    wide, narrow = (kernel.log_expectation(mean, variance * factor) for factor in (1 + tails, 1 - tails))
    return log_of(statistics.weight / 2) + np.logaddexp(wide, narrow)


def gaussian_field(
    statistics: KeyStatistics, beta: float, kernel: Kernel = SOFTMAX, dtype: DTypeLike = np.float64
) -> Field:
    """The mixture's log Z and the gradient sum_a r_a (g_m mu_a + 2 beta g_v Omega_a x)."""
    occupied = statistics.weight > 0
    log_weight = np.log(statistics.weight[occupied]).astype(dtype)
    means = statistics.mean[occupied].astype(dtype)
    covariances = (beta * statistics.covariance[occupied]).astype(dtype)

    def field(X: Array, rows: Rows) -> tuple[Array, Array]:
        mean = beta * (X @ means.T)
        spread = [X @ covariance for covariance in covariances]
        variance = np.stack([beta * np.einsum("ij,ij->i", V, X) for V in spread], axis=1).clip(0)
        log_mass = log_weight + kernel.log_expectation(mean, variance)
        top = log_mass.max(axis=1)
        share = np.exp(log_mass - top[:, None])
        total = share.sum(axis=1)
        log_z = np.log(total) + top
        share /= total[:, None]
        by_mean, by_variance = kernel.derivatives(mean, variance)
        gradient = (share * by_mean) @ means
        for V, weight in zip(spread, (2 * share * by_variance).T, strict=True):
            gradient += np.multiply(V, weight[:, None], out=V)
        return log_z, gradient

    return field
