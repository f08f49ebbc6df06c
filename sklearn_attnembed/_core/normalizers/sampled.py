"""Sampled keys: log Z and its gradient as a weighted sum over some of the keys, drawn anew in each iteration."""

import numpy as np

from ..logsum import log_of
from ..sampling import systematic_sample
from ..types import Array, Field, Integers, Rows
from .neighbors import AttendedKeys

# Number of keys that log Z is summed over. Twice as many take twice the time and find recommendations that are as good
# within the noise; half as many find worse ones.
N_SAMPLED = 2048
# Queries of a block, whose scores fit in the cache.
_ROWS = 128


def draw_keys(weights: Array, size: int, seed: tuple[int, ...]) -> tuple[Integers, Array]:
    """Draw about `size` keys, likely ones being those of large weight; return their numbers and weights in the sum."""
    drawn, chance = systematic_sample(weights, size, seed)
    return drawn, weights[drawn] / chance


def sampled_field(attended: AttendedKeys) -> Field:
    """Return the field of softmax attention by a sample of the keys; by all keys if these are no more than a sample."""
    keys = attended.vectors
    weights = np.ones(len(keys)) if attended.weights is None else attended.weights
    if len(keys) > N_SAMPLED:
        drawn, weights = draw_keys(weights, N_SAMPLED, attended.seed)
        keys = keys[drawn]
    return field_of_few(keys, weights, attended.beta)


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
