"""Random features of the exponential kernel, exp(q.k) = E phi(q) phi(k), to compare with.

Fourier and positive features both take orthogonal frequencies in pairs, their best known forms. Only sums over the keys
are kept: for each frequency a `LogSum` of two features, of shape (2, r).
"""

import numpy as np

from ..logsum import LogSum, exponentials, log_of, log_sum
from ..statistics import KeyStatistics
from ..types import Array


def orthogonal_frequencies(d: int, n_components: int, seed: int) -> Array:
    """Draw Gaussian frequencies, one for two components, orthogonal in blocks of d; ndarray of shape (d, r)."""
    rng, wanted = np.random.RandomState(seed), -(-n_components // 2)
    blocks = [
        np.linalg.qr(rng.standard_normal((d, d)))[0] * np.sqrt(rng.chisquare(d, d)) for _ in range(-(-wanted // d))
    ]
    return np.concatenate(blocks, axis=1)[:, :wanted]


def _projections(X: Array, frequencies: Array, beta: float) -> tuple[Array, Array]:
    """Return projections on the frequencies, and half the squared norms."""
    return np.sqrt(beta) * (X @ frequencies), beta / 2 * np.einsum("ij,ij->i", X, X)


def _prepared(Y: Array, weights: Array | None, frequencies: Array, beta: float) -> tuple[Array, Array, Array]:
    """Return projections of keys, half their squared norms and their log weights."""
    phase, half = _projections(Y.astype(np.float64), frequencies, beta)
    return phase, half, np.zeros(len(Y)) if weights is None else log_of(weights)


def fourier_sums(Y: Array, weights: Array | None, frequencies: Array, beta: float) -> LogSum:
    """Sum exp(|k|^2 / 2) (cos w.k, sin w.k) over one block of keys."""
    phase, half, log_weights = _prepared(Y, weights, frequencies, beta)
    reference, amplitude = exponentials(log_weights + half)
    total = np.stack([amplitude @ np.cos(phase), amplitude @ np.sin(phase)])
    return LogSum(np.full(phase.shape[1], reference), total)


def positive_sums(Y: Array, weights: Array | None, frequencies: Array, beta: float) -> LogSum:
    """Sum exp(-|k|^2 / 2) (exp w.k, exp -w.k) over one block of keys, the features of Performers."""
    phase, half, log_weights = _prepared(Y, weights, frequencies, beta)
    log_terms = (log_weights - half)[:, None]
    reference, terms = exponentials(np.concatenate([log_terms + phase, log_terms - phase]), axis=0)
    return LogSum(reference, terms.reshape(2, *phase.shape).sum(axis=1))


def _error(terms: Array) -> Array:
    """Standard error of row means; the size of the term where there is only one."""
    count = terms.shape[1]
    return terms.std(axis=1, ddof=1) / np.sqrt(count) if count > 1 else np.abs(terms[:, 0])


def fourier_estimate(
    X: Array, features: LogSum, frequencies: Array, beta: float, statistics: KeyStatistics
) -> tuple[Array, Array]:
    """Estimate log Z and its standard error by Fourier features."""
    phase, half = _projections(X, frequencies, beta)
    one, other = features.total
    terms = np.cos(phase) * one + np.sin(phase) * other
    # Jensen: no sum of exponentials lies below that of its mean score. Fourier features can, even below zero.
    total = statistics.weight.sum()
    least = log_of(total) + beta * (X @ (statistics.weight @ statistics.mean)) / total
    scale = features.reference[0] + half
    log_z = np.maximum(log_of(np.maximum(terms.mean(axis=1), 0)) + scale, least)
    return log_z, np.exp(np.minimum(log_of(_error(terms)) + scale - log_z, 300))


def positive_estimate(X: Array, features: LogSum, frequencies: Array, beta: float) -> tuple[Array, Array]:
    """Estimate log Z and its standard error by positive features."""
    phase, half = _projections(X, frequencies, beta)
    one, other = features.log()
    log_terms = np.logaddexp(phase + one, other - phase) - np.log(2)
    log_z = log_sum(log_terms) - np.log(phase.shape[1])
    return log_z - half, _error(np.exp(log_terms - log_z[:, None]))
