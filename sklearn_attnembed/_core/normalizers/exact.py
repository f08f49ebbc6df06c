"""Exact attention: log Z, weights and outputs summed over every key, the keys streamed in blocks."""

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from ..kernels import SOFTMAX, Kernel
from ..logsum import LogSum, exponentials, log_of
from ..types import Array, Field, Integers, Mask, Rows

# Elements of a temporary block: 4 MB in float64, small enough for the cache of one core.
_BLOCK_ELEMENTS = 2**19


def attention_rows(log_f: Array) -> Array:
    """Divide weights, given by their logarithms, by their row sums; uniform where a row has no weight at all."""
    reference, f = exponentials(log_f)
    f[~np.isfinite(reference)] = 1
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
    """Compute log Z and sum_j a_ij v_j over all keys, or log Z alone for values=None.

    `allowed` tells which keys of a slice each query may attend to. A query whose weights are all zero attends uniformly
    to these; the output of one that may attend to none is zero.
    """
    n, m = len(X), len(keys)
    step = max(_BLOCK_ELEMENTS // max(n, 1), 1)
    sums = LogSum.empty(n, None if values is None else values.shape[1])
    for start in range(0, m, step):
        block = slice(start, start + step)
        log_f = kernel.log_value(beta * (X @ keys[block].T))
        if log_weights is not None:
            log_f = log_f + log_weights[block]
        if allowed is not None:
            log_f = np.where(allowed(block), log_f, -np.inf)
        sums = sums.add_terms(log_f, None if values is None else values[block])
    if values is None or sums.weighted is None:
        return sums.log(), np.zeros((n, 0))
    empty = sums.total == 0
    output: Array = sums.weighted / np.where(empty, 1, sums.total)[:, None]
    weights = np.ones((1, m)) if log_weights is None else np.exp(log_weights)[None]
    if allowed is not None and empty.any():
        weights = weights * allowed(slice(None))[empty]
    weight = weights.sum(axis=1, keepdims=True)
    output[empty] = weights @ values / np.where(weight > 0, weight, 1)
    return sums.log(), output


def exact_log_mass(
    X: Array, keys: Array, labels: Integers, n_clusters: int, kernel: Kernel, beta: float, log_weights: Array | None
) -> Array:
    """Compute the log mass of every cluster, summed over all keys; ndarray of shape (n, n_clusters)."""
    if n_clusters == 1:
        return exact_attention(X, keys, None, kernel, beta, log_weights)[0][:, None]
    member = sp.csr_array((np.ones(len(labels)), labels, np.arange(len(labels) + 1)), (len(labels), n_clusters))
    log_z, share = exact_attention(X, keys, member, kernel, beta, log_weights)
    return log_z[:, None] + log_of(share)


def exact_field(keys: Array, weights: Array | None, beta: float, with_self: bool = False) -> Field:
    """Return the field of softmax attention over every key: log Z and the mean key.

    `with_self` adds the constant exp(beta), the term of a query that is a key itself and that moves with it.
    """
    log_weights = None if weights is None else log_of(weights)

    def field(X: Array, rows: Rows) -> tuple[Array, Array]:
        log_z, mean = exact_attention(X, keys, keys, SOFTMAX, beta, log_weights)
        if with_self:
            log_z, others = np.logaddexp(log_z, beta), log_z
            mean *= np.exp(others - log_z)[:, None]
        return log_z, mean.astype(X.dtype, copy=False)

    return field
