"""Products of numbers of any size, without overflow or underflow of intermediate results.

Rows are scaled by powers of two, which is exact: where nothing would overflow, the result is the same to the bit.
"""

import math
from typing import Any

import numpy as np
import scipy.sparse as sp

from ._core.types import Array, Integers

# Products of sparse rows that are computed at a time.
_PRODUCTS = 2**17


def row_exponents(X: Any) -> Integers:
    """Return the least k of each row of a dense or CSR matrix such that its numbers are below 2^k in size."""
    if sp.issparse(X):
        largest, occupied = np.zeros(X.shape[0], X.dtype), np.diff(X.indptr) > 0
        if X.nnz:
            largest[occupied] = np.maximum.reduceat(np.abs(X.data), X.indptr[:-1][occupied])
    else:
        largest = np.maximum(X.max(axis=1, initial=0), -X.min(axis=1, initial=0))
    exponents: Integers = np.frexp(largest)[1]
    return exponents


def scale_rows(X: Any, exponents: Any) -> Any:
    """Multiply rows by 2^exponents into a new matrix; overflow gives the largest finite number."""
    exponents = np.broadcast_to(np.asarray(exponents, np.intc), X.shape[:1])
    with np.errstate(over="ignore", under="ignore"):
        if not sp.issparse(X):
            return saturated(np.ldexp(X, exponents[:, None]), X.dtype)
        data = saturated(np.ldexp(X.data, np.repeat(exponents, np.diff(X.indptr))), X.dtype)
    return sp.csr_array((data, X.indices, X.indptr), shape=X.shape, copy=True)  # indices may be read-only


def saturated(x: Array, dtype: Any) -> Array:
    """Convert `x`, which is overwritten, to a dtype and clip it to the largest finite number."""
    largest = np.finfo(dtype).max
    return np.clip(x, -largest, largest, out=x).astype(dtype, copy=False)


def bounded_scores(X: Any, Y: Any, temperature: float) -> Array:
    """Compute X Y' / temperature, at most a quarter of the largest number, so that differences are finite too."""
    limits = np.finfo(X.dtype)
    mantissa, exponent = math.frexp(temperature)
    rows, columns = row_exponents(X), row_exponents(Y)
    highest = int(rows.max(initial=0)) + int(columns.max(initial=0)) + X.shape[1].bit_length()
    if limits.minexp < exponent < limits.maxexp and highest + max(1 - exponent, 0) <= limits.maxexp - 2:
        scores = _product(X, Y) / X.dtype.type(temperature)
    else:
        scores = _product(scale_rows(X, -rows), scale_rows(Y, -columns)) / X.dtype.type(mantissa)
        with np.errstate(over="ignore", under="ignore"):
            scores = np.ldexp(scores, np.add.outer(rows, columns) - np.intc(exponent))
    bounded: Array = np.clip(scores, -limits.max / 4, limits.max / 4, out=scores)
    return bounded


def _product(X: Any, Y: Any) -> Array:
    """Return X Y' as a dense array."""
    product = X @ Y.T
    return np.asarray(product.toarray() if sp.issparse(product) else product)


def product_features(X: Any, temperature: float) -> Any:
    """Return the d (d + 1) / 2 products x_a x_b over the temperature, those with a < b times sqrt(2).

    Their inner product is the squared score. Dense rows give a dense array, CSR rows with sorted indices a CSR array.
    """
    half = -(math.frexp(temperature)[1] // 2)
    unit = math.ldexp(temperature, 2 * half)  # about 1
    square, cross = (X.dtype.type(factor / unit) for factor in (1.0, np.sqrt(2)))
    X = scale_rows(X, half)
    with np.errstate(over="ignore", under="ignore"):
        return _sparse_products(X, square, cross) if sp.issparse(X) else _dense_products(X, square, cross)


def _dense_products(X: Array, square: Any, cross: Any) -> Array:
    d = X.shape[1]
    out = np.empty((len(X), d * (d + 1) // 2), X.dtype)
    start = 0
    for a in range(d):
        part = np.multiply(X[:, a, None], X[:, a:], out=out[:, start : start + d - a])
        part[:, 0] *= square
        part[:, 1:] *= cross
        start += d - a
    return saturated(out, X.dtype)


def _sparse_products(X: Any, square: Any, cross: Any) -> sp.csr_array:
    """Multiply each entry by itself and those right of it."""
    d = X.shape[1]
    n_partners = np.repeat(X.indptr[1:].astype(np.int64), np.diff(X.indptr)) - np.arange(X.nnz)
    ends = np.concatenate([[0], np.cumsum(n_partners)])
    shape = X.shape[0], d * (d + 1) // 2
    data = np.empty(ends[-1], X.dtype)
    indices = np.empty(ends[-1], np.int32 if max(ends[-1], *shape) < 2**31 else np.int64)
    step = _PRODUCTS // int(n_partners.max(initial=1)) + 1
    for first in range(0, X.nnz, step):
        counts = n_partners[first : first + step]
        made = slice(ends[first], ends[first + len(counts)])
        entry = np.repeat(np.arange(first, first + len(counts)), counts)
        partner = np.arange(made.start, made.stop) - np.repeat(ends[first : first + len(counts)], counts) + entry
        a, b = X.indices[entry].astype(np.int64), X.indices[partner]
        indices[made] = a * (2 * d - a - 1) // 2 + b
        data[made] = saturated(X.data[entry] * X.data[partner] * np.where(a == b, square, cross), X.dtype)
    return sp.csr_array((data, indices, ends[X.indptr].astype(indices.dtype)), shape=shape)
