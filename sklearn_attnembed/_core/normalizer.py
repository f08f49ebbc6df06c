"""Normalisers: log Z of queries against keys, by the Gaussian mixture, with nearest keys, and exactly.

A *field* is what the solver needs of a normaliser: ``field(X, rows) -> (log Z, gradient of log Z / beta)``,
`rows` telling which of the solver's rows the block `X` holds.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import DTypeLike

from .kernels import SOFTMAX, Array, Integers, Kernel, Mask, Rows, _log
from .statistics import KeyStatistics

Field = Callable[[Array, Rows], tuple[Array, Array]]

# Elements of a temporary block: 4 MB in float64, small enough for the cache of one core.
_BLOCK_ELEMENTS = 2**19


# Gaussian mixture, [DB] ------------------------------------------------------------------------------
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
        return _log(statistics.weight) + kernel.log_expectation(mean, variance)
    wide, narrow = (kernel.log_expectation(mean, variance * factor) for factor in (1 + tails, 1 - tails))
    return _log(statistics.weight / 2) + np.logaddexp(wide, narrow)


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


# Exact: the O(n m) twin ------------------------------------------------------------------------------
def attention_rows(log_f: Array) -> Array:
    """Weights divided by their row sums, from their logarithms; uniform where a row has no weight at all."""
    top = log_f.max(axis=1, keepdims=True)
    f: Array = np.exp(np.where(np.isfinite(top), log_f - np.where(np.isfinite(top), top, 0), 0))
    f /= f.sum(axis=1, keepdims=True)
    return f


def exact_attention(
    X: Array,
    keys: Array,
    values: Array | None,
    kernel: Kernel,
    beta: float,
    log_weights: Array | None = None,
    allowed: Callable[[slice], Mask] | None = None,
) -> tuple[Array, Array]:
    """log Z and sum_j a_ij v_j over all keys, the keys streamed in blocks (log Z alone for values=None).

    `allowed` tells which of a slice of the keys each query may attend to. A query without any score, Z = 0, attends
    uniformly to these; one that may attend to none gets zeros.
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
        if allowed is not None:
            log_f = np.where(allowed(slice(start, start + step)), log_f, -np.inf)
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
        weights = np.ones((1, m)) if log_weights is None else np.exp(log_weights)[None]
        if allowed is not None and empty.any():
            weights = weights * allowed(slice(None))[empty]
        weight = weights.sum(axis=1, keepdims=True)
        output[empty] = weights @ values / np.where(weight > 0, weight, 1)
    return log_z, output


def log_difference(a: Array, b: Array) -> Array:
    """a - b of logarithms; zero where both are -inf."""
    return np.subtract(a, b, where=a != b, out=np.zeros(np.shape(a)))


def exact_log_mass(
    X: Array,
    keys: Array,
    labels: Integers,
    n_clusters: int,
    kernel: Kernel,
    beta: float,
    log_weights: Array | None,
) -> Array:
    """log of the mass of every cluster, summed over all keys; ndarray of shape (n, n_clusters)."""
    if n_clusters == 1:
        return exact_attention(X, keys, None, kernel, beta, log_weights)[0][:, None]
    member = sp.csr_array((np.ones(len(labels)), labels, np.arange(len(labels) + 1)), (len(labels), n_clusters))
    log_z, share = exact_attention(X, keys, member, kernel, beta, log_weights)
    return log_z[:, None] + _log(share)


def exact_field(keys: Array, weights: Array | None, beta: float, with_self: bool = False) -> Field:
    """Softmax attention over every key: log Z and the mean key.

    `with_self` adds the constant exp(beta), for a query that would be a key of itself, and moves with it.
    """
    log_weights = None if weights is None else _log(weights)

    def field(X: Array, rows: Rows) -> tuple[Array, Array]:
        log_z, mean = exact_attention(X, keys, keys, SOFTMAX, beta, log_weights)
        if with_self:
            log_z, others = np.logaddexp(log_z, beta), log_z
            mean *= np.exp(others - log_z)[:, None]
        return log_z, mean.astype(X.dtype, copy=False)

    return field


# Nearest keys exactly, moments and a sample for the rest ----------------------------------------------
class Near(NamedTuple):
    """What a query looks at one by one.

    Attributes
    ----------
    nearest : ndarray of int of shape (n_queries, n_exact)
        Near keys of each query, distinct.
    sample : list of ndarray of int
        Keys of each cluster drawn at random, the same for all queries.
    labels : ndarray of int of shape (n_keys,) or None
        Clusters of the keys.
    """

    nearest: Integers
    sample: Sequence[Integers]
    labels: Integers | None


class Far(NamedTuple):
    """Mass of a cluster without its near keys, and the sum of its keys by mass in terms of everything known.

    That sum is ``by_mean mu + by_spread Omega x - sum_near (level + slope s_j) w_j y_j + sum_sample by_sample_j y_j``.
    """

    mass: Array
    by_mean: Array
    by_spread: Array
    level: Array
    slope: Array
    by_sample: Array


def _far_mass(
    moments: tuple[float, Array, Array], near: tuple[Array, Array], sample: tuple[Array, Array], beta: float, top: Array
) -> Far:
    """Sum of exp(s_j - top) over the far keys of one cluster, by regression on a sample of them.

    Their weight, mean score and variance are known: those of all keys less those of the near ones. The scores of the
    sample, standardised, carry a regression of exp(s) on (1, t, t^2); its value at the known moments is the estimate,
    which is nowhere less than the exponential of the mean score (Jensen). The gradient is the same with (1, t) alone.
    """
    (weight, mean, variance), (s, w), (sampled, alive) = moments, near, sample
    rest = weight - w.sum(axis=1)
    rest = np.where(rest > 1e-9 * weight, rest, 0)
    per = 1 / np.where(rest > 0, rest, 1)
    center = (weight * mean - (w * s).sum(axis=1)) * per
    spread = (weight * (variance + mean**2) - (w * s * s).sum(axis=1)) * per - center**2
    scale = np.sqrt(spread.clip(1e-12))
    dtype = sampled.dtype
    t = (sampled - center[:, None].astype(dtype)) / scale[:, None].astype(dtype)
    f = np.exp(np.minimum(sampled - top[:, None].astype(dtype), 50))
    powers = [alive]
    for _ in range(4):
        powers.append(powers[-1] * t)
    total = np.maximum(alive.sum(axis=1), np.finfo(dtype).tiny).astype(np.float64)
    targets = np.stack([np.einsum("ij,ij->i", power, f) / total for power in powers[:3]], axis=1)
    means = [power.sum(axis=1) / total for power in powers]
    normal = np.stack([np.stack(means[i : i + 3], axis=1) for i in range(3)], axis=1)
    normal += 1e-6 * np.eye(3)
    quadratic = np.linalg.solve(normal, targets[:, :, None])[:, :, 0]
    value = quadratic[:, 0] + quadratic[:, 2]
    a, b = np.linalg.solve(normal[:, :2, :2], targets[:, :2, None])[:, :, 0].T
    least = np.exp(center - top)
    bounded = value <= least
    value, a, b = np.where(bounded, least, value), np.where(bounded, least, a), np.where(bounded, 0, b / scale)
    here = rest > 0
    level, slope = np.where(here, a - b * center, 0), np.where(here, b, 0)
    by_sample = alive * (f - level[:, None].astype(dtype) - slope[:, None].astype(dtype) * sampled)
    by_sample *= np.where(bounded, 0, rest / total)[:, None].astype(dtype)
    return Far(rest * value, weight * (level + slope * mean), weight * slope * beta, level, slope, by_sample)


def neighbor_field(
    statistics: KeyStatistics,
    keys: Array,
    weights: Array | None,
    near: Near,
    beta: float,
    with_self: bool = False,
) -> Field:
    """Z with the near keys summed exactly, and the others estimated from their moments and a shared sample of keys.

    `with_self` is as in `exact_field`.
    """
    means, covariances = statistics.mean.astype(keys.dtype), statistics.covariance.astype(keys.dtype)
    sampled = [keys[members] for members in near.sample]
    sample_weight = [np.ones(len(m)) if weights is None else weights[m] for m in near.sample]
    places = np.full(len(keys), -1, np.int32)
    for members in near.sample:
        places[members] = np.arange(len(members))
    step = max(2 * _BLOCK_ELEMENTS // (near.nearest.shape[1] * keys.shape[1]), 1)

    def look(X: Array, nearest: Integers) -> tuple[Array, Array]:
        Y, w = keys[nearest], np.ones(nearest.shape) if weights is None else weights[nearest]
        s = beta * np.matmul(Y, X[:, :, None])[:, :, 0].astype(np.float64)
        top = s.max(axis=1)
        share = w * np.exp(s - top[:, None])
        total = share.sum(axis=1) + with_self * np.exp(beta - top)
        labels = np.zeros(nearest.shape, np.intp) if near.labels is None else near.labels[nearest]
        gradient = np.zeros_like(X)
        for a in np.flatnonzero(statistics.weight > 0):
            inside = np.where(labels == a, w, 0)
            row, key = np.nonzero((labels == a) & (places[nearest] >= 0))
            alive = np.tile(sample_weight[a].astype(keys.dtype), (len(X), 1))
            alive[row, places[nearest[row, key]]] = 0
            V = X @ covariances[a]
            variance = beta**2 * np.einsum("ij,ij->i", V, X).astype(np.float64).clip(0)
            mean = beta * (X @ means[a]).astype(np.float64)
            sample = beta * (X @ sampled[a].T)
            far = _far_mass((statistics.weight[a], mean, variance), (s, inside), (sample, alive), beta, top)
            total += far.mass
            share -= inside * (far.level[:, None] + far.slope[:, None] * s)
            gradient += far.by_mean[:, None].astype(X.dtype) * means[a] + far.by_spread[:, None].astype(X.dtype) * V
            gradient += far.by_sample @ sampled[a]
        gradient += np.matmul(share[:, None, :].astype(X.dtype), Y)[:, 0]
        return top + np.log(total), gradient / total[:, None].astype(X.dtype)

    def field(X: Array, rows: Rows) -> tuple[Array, Array]:
        nearest = near.nearest[rows]
        parts = [look(X[i : i + step], nearest[i : i + step]) for i in range(0, len(X), step)]
        return np.concatenate([log_z for log_z, _ in parts]), np.concatenate([pull for _, pull in parts])

    return field
