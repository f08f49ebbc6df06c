"""Validation of sparse matrices, and their conversion to canonical CSR arrays."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp

from ._core.types import Mask


def compact(A: Any) -> sp.csr_array:
    """Return `A` as a CSR array with 32-bit indices if these suffice; parts of scikit-learn accept no others."""
    A = sp.csr_array(A)
    if max(A.nnz, *A.shape) <= np.iinfo(np.int32).max:
        A.indices, A.indptr = A.indices.astype(np.int32, copy=False), A.indptr.astype(np.int32, copy=False)
    return A


def canonical(A: Any, name: str = "X") -> Any:
    """Return a sparse matrix as a CSR array of floats with sorted, unique indices, of 32 bits if possible.

    Entries at the same place are summed, and explicit zeros are kept. The input is not changed, and the result shares
    its arrays if these are canonical. Other input than sparse matrices is returned unchanged. An error is raised if the
    arrays are inconsistent, before compiled code reads them and whatever the matrix's flags say.
    """
    if not sp.issparse(A):
        return A
    for defect in _defects(A):
        raise ValueError(
            f"{name} must be a sparse matrix whose arrays fit together, but as {A.format} of shape {A.shape} it has "
            f"{defect}. Build it anew from its entries: scipy.sparse.coo_array((values, (rows, columns)), shape)."
        )
    if A.dtype.kind != "c" and A.dtype not in (np.float32, np.float64):  # sums of small integers could overflow
        with np.errstate(over="ignore"):
            A = A.astype(np.float64)
    A = A.tocsr()
    count = int(A.indptr[-1])
    # A new matrix is built, because the flags of the old one may be wrong.
    A = compact(sp.csr_array((A.data[:count], A.indices[:count], A.indptr), shape=A.shape))
    if not A.has_canonical_format:
        A = A.copy()
        A.sum_duplicates()
    return A


def only(A: sp.csr_array, kept: Mask) -> sp.csr_array:
    """Return a copy of a matrix with the kept entries alone, and without explicit zeros."""
    part = sp.csr_array((np.where(kept, A.data, 0).astype(A.dtype), A.indices, A.indptr), shape=A.shape, copy=True)
    part.eliminate_zeros()
    return part


def _defects(A: Any) -> Iterator[str]:
    """Yield what is wrong with the arrays of a sparse matrix; after the first defect others may not make sense."""
    if A.ndim != 2:
        yield f"{A.ndim} dimensions, not 2"
    elif A.format == "coo":
        if not np.shape(A.row) == np.shape(A.col) == np.shape(A.data) == (np.size(A.data),):
            yield f"{np.shape(A.data)} values, but {np.shape(A.row)} rows and {np.shape(A.col)} columns"
        yield from _outside(A.row, A.shape[0])
        yield from _outside(A.col, A.shape[1])
    elif A.format == "dok":
        for indices, n in zip(np.array(list(A.keys()), np.int64).reshape(-1, 2).T, A.shape, strict=True):
            yield from _outside(indices, n)
    elif A.format == "lil":
        counts, columns = ([len(row) for row in lists] for lists in (A.data, A.rows))
        if counts != columns or len(counts) != A.shape[0]:
            yield "rows with other numbers of values than of columns"
        yield from _outside(np.array([j for row in A.rows for j in row], np.int64), A.shape[1])
    elif A.format == "dia":
        offsets = np.asarray(A.offsets)
        fits = offsets.shape == np.shape(A.data)[:1] == np.unique(offsets).shape and np.ndim(A.data) == 2
        if not fits or offsets.dtype.kind != "i":
            yield f"offsets {offsets} of type {offsets.dtype} for values of shape {np.shape(A.data)}"
        yield from _outside(np.abs(offsets), 2**31)
    else:
        yield from _defects_of_compressed(A)


def _defects_of_compressed(A: Any) -> Iterator[str]:
    """Yield what is wrong with the arrays of a CSR, CSC or BSR matrix."""
    n_dimensions = 3 if A.format == "bsr" else 1
    if np.ndim(A.data) != n_dimensions or np.shape(A.indices) != np.shape(A.data)[:1]:
        yield f"data of shape {np.shape(A.data)}, but indices of shape {np.shape(A.indices)}"
    height, width = A.data.shape[1:] or (1, 1)
    if 0 in (height, width) or A.shape[0] % height or A.shape[1] % width:
        yield f"blocks of shape {height, width}"
    n_major, n_minor = A.shape[0] // height, A.shape[1] // width
    if A.format == "csc":
        n_major, n_minor = n_minor, n_major
    if np.shape(A.indptr) != (n_major + 1,) or A.indptr.dtype.kind not in "iu":
        yield f"indptr of shape {np.shape(A.indptr)} and type {A.indptr.dtype}, not {n_major + 1} integers"
    if A.indptr[0] != 0 or A.indptr[-1] > len(A.indices) or np.any(A.indptr[1:] < A.indptr[:-1]):
        yield f"an indptr that does not rise from 0 to at most its number of indices, {len(A.indices)}"
    yield from _outside(A.indices[: A.indptr[-1]], n_minor)


def _outside(indices: Any, n: int) -> Iterator[str]:
    """Yield what is wrong with indices of `n` rows or columns."""
    if indices.dtype.kind not in "iu":
        yield f"indices of type {indices.dtype}, not integers"
    for index in (indices.min(), indices.max()) if indices.size else ():
        if not 0 <= index < n:
            yield f"index {index}, out of range for {n}"
