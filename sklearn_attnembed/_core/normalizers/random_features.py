"""Random features of the exponential kernel, exp(q.k) = E phi(q) phi(k): the rivals.

Both take orthogonal frequencies in pairs, their best known forms. Only sums over the keys are kept.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from ..kernels import log_of
from ..statistics import KeyStatistics
from ..types import Array


class FeatureSums(NamedTuple):
    """Sums of features over keys, times exp(-reference).

    Attributes
    ----------
    reference : ndarray of shape (r,)
        Of each frequency.
    sums : ndarray of shape (2, r)
        Of the two features of each frequency.
    """

    reference: Array
    sums: Array


def orthogonal_frequencies(d: int, n_components: int, rng: np.random.RandomState) -> Array:
    """Gaussian frequencies, one for two components, orthogonal in blocks of d; ndarray of shape (d, r)."""
    wanted = -(-n_components // 2)
    blocks = [
        np.linalg.qr(rng.standard_normal((d, d)))[0] * np.sqrt(rng.chisquare(d, d)) for _ in range(-(-wanted // d))
    ]
    return np.concatenate(blocks, axis=1)[:, :wanted]


def _projections(X: Array, frequencies: Array, beta: float) -> tuple[Array, Array]:
    """Projections on the frequencies, and half the squared norms."""
    return np.sqrt(beta) * (X @ frequencies), beta / 2 * np.einsum("ij,ij->i", X, X)


def feature_sums(Y: Array, weights: Array | None, frequencies: Array, beta: float, positive: bool) -> FeatureSums:
    """Sums over one block of keys.

    Fourier: exp(|k|^2 / 2) (cos w.k, sin w.k). Positive: exp(-|k|^2 / 2) (exp w.k, exp -w.k), Performer's.
    """
    phase, half = _projections(Y.astype(np.float64), frequencies, beta)
    log_weights = np.zeros(len(Y)) if weights is None else log_of(weights)
    if positive:
        log_weights = log_weights - half
        exponents = phase + log_weights[:, None], log_weights[:, None] - phase
        top = np.maximum(exponents[0].max(axis=0), exponents[1].max(axis=0))
        reference = np.where(np.isfinite(top), top, 0)
        return FeatureSums(reference, np.stack([np.exp(part - reference).sum(axis=0) for part in exponents]))
    log_weights = log_weights + half
    highest = log_weights.max()
    level = highest if np.isfinite(highest) else 0.0
    amplitude = np.exp(log_weights - level)
    sums = np.stack([amplitude @ np.cos(phase), amplitude @ np.sin(phase)])
    return FeatureSums(np.full(phase.shape[1], level), sums)


def merge_features(a: FeatureSums, b: FeatureSums) -> FeatureSums:
    """Sums over both sets of keys."""
    reference = np.maximum(a.reference, b.reference)
    return FeatureSums(reference, a.sums * np.exp(a.reference - reference) + b.sums * np.exp(b.reference - reference))


def _error(terms: Array) -> Array:
    """Standard error of row means; of one term all that can be said is its size."""
    count = terms.shape[1]
    return terms.std(axis=1, ddof=1) / np.sqrt(count) if count > 1 else np.abs(terms[:, 0])


def feature_estimate(
    X: Array, features: FeatureSums, frequencies: Array, beta: float, positive: bool, statistics: KeyStatistics
) -> tuple[Array, Array]:
    """log Z and its standard error."""
    phase, half = _projections(X, frequencies, beta)
    reference, (one, other) = features
    if positive:
        exponents = np.stack([phase + log_of(one) + reference, log_of(other) + reference - phase])
        log_terms = logsumexp(exponents, axis=0) - np.log(2)
        log_z = logsumexp(log_terms, axis=1) - np.log(phase.shape[1])
        return log_z - half, _error(np.exp(log_terms - log_z[:, None]))
    terms = np.cos(phase) * one + np.sin(phase) * other
    mean = terms.mean(axis=1)
    # Jensen: no sum of exponentials lies below that of its mean score. Waves can, and even below zero.
    least = (
        log_of(statistics.weight.sum()) + beta * (X @ (statistics.weight @ statistics.mean)) / statistics.weight.sum()
    )
    log_z = np.maximum(log_of(np.maximum(mean, 0)) + reference[0] + half, least)
    log_error = log_of(_error(terms)) + reference[0] + half
    return log_z, np.exp(np.minimum(log_error - log_z, 300))
