"""Normalisers: log Z of queries against keys, by the Gaussian mixture, with nearest keys, and exactly.

A *field* is what the solver needs of a normaliser: ``field(X, rows) -> (log Z, gradient of log Z / beta)``,
`rows` telling which of the solver's rows the block `X` holds.
"""

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from ..kernels import SOFTMAX, Kernel, log_of
from ..types import Array, Field, Integers, Mask, Rows

# Elements of a temporary block: 4 MB in float64, small enough for the cache of one core.
_BLOCK_ELEMENTS = 2**19


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
    log_z = log_of(total) + np.where(np.isfinite(top), top, 0)
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
    return log_z[:, None] + log_of(share)


def exact_field(keys: Array, weights: Array | None, beta: float, with_self: bool = False) -> Field:
    """Softmax attention over every key: log Z and the mean key.

    `with_self` adds the constant exp(beta), for a query that would be a key of itself, and moves with it.
    """
    log_weights = None if weights is None else log_of(weights)

    def field(X: Array, rows: Rows) -> tuple[Array, Array]:
        log_z, mean = exact_attention(X, keys, keys, SOFTMAX, beta, log_weights)
        if with_self:
            log_z, others = np.logaddexp(log_z, beta), log_z
            mean *= np.exp(others - log_z)[:, None]
        return log_z, mean.astype(X.dtype, copy=False)

    return field
