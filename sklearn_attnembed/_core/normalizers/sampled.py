"""Sampled keys: log Z and its gradient as a weighted sum over some of the keys, drawn anew in each iteration."""

import numpy as np

from ..logsum import log_of
from ..sampling import systematic_sample
from ..types import Array, Field, Rows
from .neighbors import AttendedKeys

# Number of keys that log Z is summed over. Twice as many take twice the time and find recommendations that are as good
# within the noise; half as many find worse ones.
N_SAMPLED = 2048
# Queries of a block, whose scores fit in the cache.
_ROWS = 128


def few_keys(keys: Array, weights: Array | None, seed: tuple[int, ...]) -> tuple[Array, Array]:
    """Draw keys if there are many, those of large weight more often; return them with their weights in the sum."""
    weights = np.ones(len(keys)) if weights is None else weights
    if len(keys) <= N_SAMPLED:
        return keys, weights
    drawn, chance = systematic_sample(weights, N_SAMPLED, seed)
    return keys[drawn], weights[drawn] / chance


def sampled_field(attended: AttendedKeys) -> Field:
    """Return the field of softmax attention by a sample of the keys; by all keys if these are no more than a sample."""
    return field_of_few(*few_keys(attended.vectors, attended.weights, attended.seed), attended.beta)


def field_of_few(keys: Array, weights: Array, beta: float) -> Field:
    """Return the field of softmax attention over keys that are few enough to be summed at once."""
    log_weights = log_of(weights).astype(keys.dtype)
    scaled = np.ascontiguousarray((keys * np.asarray(beta, keys.dtype)).T)

    def field(X: Array, rows: Rows) -> tuple[Array, Array]:
        log_z, gradient = np.empty(len(X)), np.empty_like(X)
        for start in range(0, len(X), _ROWS):
            block = slice(start, start + _ROWS)
            f = X[block] @ scaled  # all in place: allocation of scores takes as long as their exponentials
            f += log_weights
            reference = f.max(axis=1)
            f -= reference[:, None]
            np.exp(f, out=f)
            total = f.sum(axis=1)
            log_z[block] = np.log(total) + reference
            gradient[block] = (f @ keys) / total[:, None]
        return log_z, gradient

    return field
