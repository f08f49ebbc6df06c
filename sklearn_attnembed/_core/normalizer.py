"""Normalisers: log Z of queries against keys, by the Gaussian mixture, with nearest keys, and exactly.

A *field* is what the solver needs of a normaliser: ``field(X, rows) -> (log Z, gradient of log Z / beta)``,
`rows` telling which of the solver's rows the block `X` holds.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.special import logsumexp

from .kernels import SOFTMAX, Array, Kernel, _log
from .statistics import KeyStatistics

Field = Callable[[Array, NDArray[np.integer] | slice], tuple[Array, Array]]

# Elements of a temporary block: 4 MB in float64, small enough for the cache of one core.
_BLOCK_ELEMENTS = 2**19


# Gaussian mixture, [DB] ------------------------------------------------------------------------------
def score_moments(X: Array, statistics: KeyStatistics, beta: float) -> tuple[Array, Array]:
    """Mean beta x.mu_a and variance beta^2 x'Omega_a x of the scores in each cluster; both of shape (n, kappa)."""
    mean = beta * (X @ statistics.mean.T)
    covariance = statistics.covariance
    if covariance.ndim == 2:
        return mean, beta**2 * (X * X) @ covariance.T
    variance = np.empty_like(mean)
    for a, Omega in enumerate(covariance):
        variance[:, a] = beta**2 * np.einsum("ij,ij->i", X @ Omega, X)
    return mean, np.maximum(variance, 0)


def gaussian_log_mass(
    X: Array, statistics: KeyStatistics, kernel: Kernel, beta: float, tails: Array | None = None
) -> Array:
    """log W_a + g(mean, variance) of the scores: log Z is its logsumexp; ndarray of shape (n, kappa).

    Given `tails`, of shape (kappa,), each Gaussian counts as two halves of 1 + tail and 1 - tail times its variance.
    """
    mean, variance = score_moments(X, statistics, beta)
    if tails is None:
        return _log(statistics.weight) + kernel.log_expectation(mean, variance)
    wide, narrow = (kernel.log_expectation(mean, variance * factor) for factor in (1 + tails, 1 - tails))
    return _log(statistics.weight / 2) + np.logaddexp(wide, narrow)


def gaussian_field(statistics: KeyStatistics, beta: float, kernel: Kernel = SOFTMAX, dtype=np.float64) -> Field:
    """The mixture's log Z and the gradient sum_a r_a (g_m mu_a + 2 beta g_v Omega_a x)."""
    occupied = statistics.weight > 0
    log_weight = np.log(statistics.weight[occupied]).astype(dtype)
    means = statistics.mean[occupied].astype(dtype)
    covariances = (beta * statistics.covariance[occupied]).astype(dtype)

    def field(X: Array, rows: NDArray[np.integer] | slice) -> tuple[Array, Array]:
        mean = beta * (X @ means.T)
        spread = [X @ covariance for covariance in covariances]
        variance = np.stack([beta * np.einsum("ij,ij->i", V, X) for V in spread], axis=1).clip(0)
        log_mass = log_weight + kernel.log_expectation(mean, variance)
        log_z = logsumexp(log_mass, axis=1) if len(means) > 1 else log_mass[:, 0]
        share = np.exp(log_mass - log_z[:, None])
        by_mean, by_variance = kernel.derivatives(mean, variance)
        gradient = (share * by_mean) @ means
        for V, weight in zip(spread, (2 * share * by_variance).T, strict=True):
            gradient += np.multiply(V, weight[:, None], out=V)
        return log_z, gradient

    return field


# Exact: the O(n m) twin ------------------------------------------------------------------------------
def attention_rows(log_f: Array) -> Array:
    """Weights divided by their row sums, from their logarithms; uniform where a row has no weight at all."""
    top = log_f.max(axis=1, keepdims=True)
    f = np.exp(np.where(np.isfinite(top), log_f - np.where(np.isfinite(top), top, 0), 0))
    return f / f.sum(axis=1, keepdims=True)


def exact_attention(
    X: Array,
    keys: Array,
    values: Array | None,
    kernel: Kernel,
    beta: float,
    log_weights: Array | None = None,
    own: NDArray[np.integer] | None = None,
) -> tuple[Array, Array]:
    """log Z and sum_j a_ij v_j over all keys, the keys streamed in blocks (log Z alone for values=None).

    A query without any score, Z = 0, attends uniformly. `own` numbers a key for each query that it does not attend
    to, or is -1.
    """
    n, m = len(X), len(keys)
    step = max(_BLOCK_ELEMENTS // max(n, 1), 1)
    top = np.full(n, -np.inf)
    total = np.zeros(n)
    output = np.zeros((n, 0 if values is None else values.shape[1]))
    for start in range(0, m, step):
        log_f = kernel.log_value(beta * (X @ keys[start : start + step].T))
        if log_weights is not None:
            log_f = log_f + log_weights[start : start + step]
        if own is not None:
            inside = np.flatnonzero((own >= start) & (own < start + step))
            log_f[inside, own[inside] - start] = -np.inf
        new_top = np.maximum(top, log_f.max(axis=1))
        shift = np.where(np.isfinite(new_top), new_top, 0)
        scale = np.exp(top - shift)
        f = np.exp(log_f - shift[:, None])
        total = total * scale + f.sum(axis=1)
        if values is not None:
            output = output * scale[:, None] + f @ values[start : start + step]
        top = new_top
    log_z = _log(total) + np.where(np.isfinite(top), top, 0)
    if values is not None:
        empty = total == 0
        output /= np.where(empty, 1, total)[:, None]
        weights = np.ones(m) if log_weights is None else np.exp(log_weights)
        output[empty] = weights @ values / weights.sum()
    return log_z, output


def log_difference(a: Array, b: Array) -> Array:
    """a - b of logarithms; zero where both are -inf."""
    return np.subtract(a, b, where=a != b, out=np.zeros(len(a)))


def exact_log_mass(
    X: Array, keys: Array, labels: NDArray[np.integer], n_clusters: int, kernel: Kernel, beta: float, log_weights: Any
) -> Array:
    """log of the mass of every cluster, summed over all keys; ndarray of shape (n, n_clusters)."""
    if n_clusters == 1:
        return exact_attention(X, keys, None, kernel, beta, log_weights)[0][:, None]
    member = sp.csr_array((np.ones(len(labels)), labels, np.arange(len(labels) + 1)), (len(labels), n_clusters))
    log_z, share = exact_attention(X, keys, member, kernel, beta, log_weights)
    return log_z[:, None] + _log(share)


def exact_field(keys: Array, beta: float, own: NDArray[np.integer] | None = None) -> Field:
    """Softmax attention over every key: log Z and the mean key.

    Given `own`, for each row the key that is the row itself or -1, the row's own term is the constant exp(beta) that it
    is in training, where row and key move together: a key that stayed behind would push its row away.
    """

    def field(X: Array, rows: NDArray[np.integer] | slice) -> tuple[Array, Array]:
        if own is None:
            log_z, mean = exact_attention(X, keys, keys, SOFTMAX, beta)
            return log_z, mean.astype(X.dtype, copy=False)
        log_z, mean = exact_attention(X, keys, keys, SOFTMAX, beta, own=own[rows])
        with_self = np.logaddexp(log_z, beta)
        return with_self, mean * np.exp(log_z - with_self)[:, None]

    return field


# Nearest keys exactly, the mixture for the rest ------------------------------------------------------
def neighbor_field(
    statistics: KeyStatistics,
    keys: Array,
    nearest: NDArray[np.integer],
    beta: float,
    own: NDArray[np.integer] | None = None,
) -> Field:
    """Z ~ Zg + sum_{j near} max(0, exp(s_j) - Zg / W), Zg the mixture's; `nearest` of shape (n, n_exact).

    `own` is as in `exact_field`.
    """
    mixture = gaussian_field(statistics, beta, dtype=keys.dtype)
    total_weight = statistics.weight.sum()
    step = max(_BLOCK_ELEMENTS // (nearest.shape[1] * keys.shape[1]), 1)

    def add_nearest(
        X: Array, near: NDArray[np.integer], itself: NDArray[np.integer] | None, log_g: Array, gradient: Array
    ) -> tuple[Array, Array]:
        Y = keys[near]
        relative = np.exp(beta * np.matmul(Y, X[:, :, None])[:, :, 0].astype(np.float64) - log_g[:, None])
        relative[relative <= 1 / total_weight] = 0
        if itself is not None:
            relative[near == itself[:, None]] = 0
        counted = np.count_nonzero(relative, axis=1) / total_weight
        ratio = 1 - counted + relative.sum(axis=1)
        if itself is not None:
            ratio += np.exp(beta - log_g)
        near_share = (relative / ratio[:, None]).astype(X.dtype)
        gradient = gradient * ((1 - counted) / ratio)[:, None].astype(X.dtype)
        return log_g + np.log(ratio), gradient + np.matmul(near_share[:, None, :], Y)[:, 0]

    def field(X: Array, rows: NDArray[np.integer] | slice) -> tuple[Array, Array]:
        near, itself = nearest[rows], None if own is None else own[rows]
        log_g, gradient = mixture(X, rows)
        parts = [
            add_nearest(X[cut], near[cut], None if itself is None else itself[cut], log_g[cut], gradient[cut])
            for cut in (slice(i, i + step) for i in range(0, len(X), step))
        ]
        return np.concatenate([log_z for log_z, _ in parts]), np.concatenate([pull for _, pull in parts])

    return field
