"""Row-stochastic affinities as operators: cut into row blocks, multiplied on threads, walked by Horner's rule."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator

from .parallel import Runner
from .types import Array, Mask

try:
    from scipy.sparse import _sparsetools

    csr_matvecs: Any = _sparsetools.csr_matvecs
except (ImportError, AttributeError):  # not public: a plain product will do
    csr_matvecs = None


def row_stochastic(A: Any, dtype: Any) -> tuple[Any, Mask]:
    """Rows divided by their sums, in canonical CSR if sparse, and the mask of rows without any affinity.

    The input is left as it is. A LinearOperator stays one.
    """
    if isinstance(A, LinearOperator):
        total = np.asarray(A @ np.ones(A.shape[1])).ravel()
        scale = 1 / np.where(total > 0, total, 1)
        P = LinearOperator(
            A.shape,
            matvec=lambda x: scale * np.asarray(A @ np.ravel(x)),
            matmat=lambda X: scale[:, None] * np.asarray(A @ X),
            dtype=np.result_type(A.dtype, dtype),
        )
        return P, total == 0
    if not sp.issparse(A):
        A = np.asarray(A, np.float64)
        scale = A.max(axis=1, initial=0)
        P = A / np.where(scale > 0, scale, 1)[:, None]
        P /= np.where(scale > 0, P.sum(axis=1), 1)[:, None]
        return P.astype(dtype), scale == 0
    P = sp.csr_array(A, dtype=np.float64, copy=True)
    P.sum_duplicates()
    P.eliminate_zeros()
    counts = np.diff(P.indptr)
    occupied, starts = counts[counts > 0], P.indptr[:-1][counts > 0]
    for reduction in (np.maximum, np.add) if P.nnz else ():  # by the largest first: sums cannot overflow
        P.data /= np.repeat(reduction.reduceat(P.data, starts), occupied)
    return P.astype(dtype), counts == 0


def among(P: Any, kept: Mask) -> Any:
    """The square `P` among the rows kept alone; `P` itself if these are all."""
    if kept.all():
        return P
    if not isinstance(P, LinearOperator):
        return P[kept][:, kept]

    def product(X: Array) -> Array:
        whole = np.zeros((len(kept), *X.shape[1:]), X.dtype)
        whole[kept] = X
        return np.asarray(P @ whole)[kept]

    n = np.count_nonzero(kept)
    return LinearOperator((n, n), matvec=product, matmat=product, dtype=P.dtype)


def both_directions(P: sp.csr_array, Q: sp.csr_array) -> sp.csr_array:
    """The square matrix [[0, P], [Q, 0]] over the rows and the columns of `P`, put together from the CSR arrays."""
    n, m = P.shape
    dtype = np.int32 if max(P.nnz + Q.nnz, n + m) <= np.iinfo(np.int32).max else np.int64
    data, indices = np.concatenate([P.data, Q.data]), np.empty(P.nnz + Q.nnz, dtype)
    np.add(P.indices, n, out=indices[: P.nnz])
    indices[P.nnz :] = Q.indices
    indptr = np.concatenate([P.indptr.astype(dtype), Q.indptr[1:].astype(dtype) + dtype(P.nnz)])
    return sp.csr_array((data, indices, indptr), shape=(n + m, n + m))


class Affinity(NamedTuple):
    """Affinities cut into row blocks.

    Attributes
    ----------
    operator : CSR array, ndarray or LinearOperator of shape (n_rows, n_columns)
    bounds : list of slice
        The blocks of rows.
    pieces : list of matrices or None
        The rows of each block, views where possible; None for a LinearOperator, which has no rows.
    """

    operator: Any
    bounds: list[slice]
    pieces: list[Any] | None


def blocked(P: Any, bounds: list[slice]) -> Affinity:
    """Cut `P` into row blocks; the pieces of a CSR array share its memory."""
    if isinstance(P, LinearOperator):
        return Affinity(P, bounds, None)
    if not sp.issparse(P):
        return Affinity(P, bounds, [P[rows] for rows in bounds])
    pieces = []
    for rows in bounds:
        first, last = P.indptr[rows.start], P.indptr[rows.stop]
        piece = sp.csr_array((rows.stop - rows.start, P.shape[1]), dtype=P.dtype)
        # Set one by one: the constructor would copy them.
        piece.data, piece.indices = P.data[first:last], P.indices[first:last]
        piece.indptr = P.indptr[rows.start : rows.stop + 1] - first
        pieces.append(piece)
    return Affinity(P, bounds, pieces)


def products(affinity: Affinity, H: Array) -> Callable[[int], Array]:
    """``block -> P[block] @ H``, to be called from any thread."""
    if affinity.pieces is None:
        whole = np.asarray(affinity.operator @ H).astype(H.dtype, copy=False)
        return lambda block: whole[affinity.bounds[block]]
    pieces = affinity.pieces
    return lambda block: pieces[block] @ H


def additions(affinity: Affinity, H: Array) -> Callable[[int, Array], Array]:
    """``(block, out) -> out += P[block] @ H``, to be called from any thread; `out` is contiguous."""
    product = products(affinity, H)
    pieces, P = affinity.pieces, affinity.operator
    is_sparse = csr_matvecs is not None and sp.issparse(P)
    if pieces is None or not (is_sparse and H.flags.c_contiguous and P.dtype == H.dtype):
        return lambda block, out: np.add(out, product(block), out=out)
    flat = H.ravel()

    def add(block: int, out: Array) -> Array:  # what scipy's product does, less its array of zeros and a copy
        piece = pieces[block]
        csr_matvecs(*piece.shape, H.shape[1], piece.indptr, piece.indices, piece.data, flat, out.reshape(-1))
        return out

    return add


def multiply(
    affinity: Affinity, H: Array, out: Array, run: Runner, add: Array | None = None, scale: float = 1.0
) -> Array:
    """(P @ H (+ add)) * scale into `out`, block by block on threads."""
    add_product = additions(affinity, H)

    def one(block: int) -> None:
        rows = affinity.bounds[block]
        new = out[rows]
        new[:] = 0 if add is None else add[rows]
        add_product(block, new)
        if scale != 1:
            new *= scale

    for _ in run(one, range(len(affinity.bounds))):
        pass
    return out


def walk_targets(
    affinity: Affinity,
    Y: Array,
    length: int,
    stride: int,
    run: Runner,
    out: Array | None = None,
    scratch: Array | None = None,
) -> Array:
    """(1 / L) sum_{l < L} P^(l stride) Y by Horner's rule: P times it is the walk average of Y.

    `stride` is 2 on a bipartite graph, where only odd walks lead from rows to columns. Returns `Y` itself for L = 1,
    otherwise `out`; `scratch` is overwritten.
    """
    if length == 1:
        return Y
    n_steps = (length - 1) * stride
    out = np.empty_like(Y) if out is None else out
    if scratch is None:
        scratch = np.empty_like(Y) if n_steps > 1 else out
    H = Y
    for step in range(n_steps, 0, -1):  # the last step, number 1, is into `out`
        into = out if step % 2 else scratch
        add, scale = (Y if (step - 1) % stride == 0 else None), (1 / length if step == 1 else 1.0)
        H = multiply(affinity, H, into, run, add, scale)
    return H
