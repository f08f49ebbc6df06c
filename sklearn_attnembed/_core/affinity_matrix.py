"""Row-stochastic affinity matrices: normalized, cut into blocks of rows, multiplied on threads, averaged over walks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator

from .parallel import Runner
from .types import Array, Mask


def row_stochastic(A: Any, dtype: Any) -> tuple[Any, Mask]:
    """Divide rows by their sums; return the result and the mask of rows without any affinity.

    A sparse matrix becomes a canonical CSR array, a LinearOperator stays one, and the input is not changed.
    """
    if isinstance(A, LinearOperator):
        total = np.asarray(A @ np.ones(A.shape[1])).ravel()
        scale = 1 / np.where(total > 0, total, 1)
        P = LinearOperator(
            A.shape,
            matvec=lambda x: scale * np.asarray(A @ np.ravel(x)),
            matmat=lambda X: scale[:, None] * np.asarray(A @ X),
            rmatvec=lambda y: np.asarray(A.rmatvec(scale * np.ravel(y))),
            rmatmat=lambda Y: np.asarray(A.rmatmat(scale[:, None] * Y)),
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
    for reduction in (np.maximum, np.add) if P.nnz else ():  # by the maximum first, so that no sum overflows
        P.data /= np.repeat(reduction.reduceat(P.data, starts), occupied)
    return P.astype(dtype), counts == 0


def among(P: Any, kept: Mask) -> Any:
    """Return the square `P` restricted to some rows and columns; `P` itself if all are kept."""
    if kept.all():
        return P
    if not isinstance(P, LinearOperator):
        return P[kept][:, kept]

    def inside(product: Callable[[Array], Any]) -> Callable[[Array], Array]:
        def restricted(X: Array) -> Array:
            whole = np.zeros((len(kept), *X.shape[1:]), X.dtype)
            whole[kept] = X
            return np.asarray(product(whole))[kept]

        return restricted

    n = np.count_nonzero(kept)
    forward, back = inside(P.dot), (inside(P.rmatvec), inside(P.rmatmat))
    return LinearOperator((n, n), forward, back[0], forward, P.dtype, back[1])


def both_directions(P: sp.csr_array, Q: sp.csr_array) -> sp.csr_array:
    """Return the square matrix [[0, P], [Q, 0]] over the rows and columns of `P`, joined from the CSR arrays."""
    n, m = P.shape
    dtype = np.int32 if max(P.nnz + Q.nnz, n + m) <= np.iinfo(np.int32).max else np.int64
    data, indices = np.concatenate([P.data, Q.data]), np.empty(P.nnz + Q.nnz, dtype)
    np.add(P.indices, n, out=indices[: P.nnz])
    indices[P.nnz :] = Q.indices
    indptr = np.concatenate([P.indptr.astype(dtype), Q.indptr[1:].astype(dtype) + dtype(P.nnz)])
    return sp.csr_array((data, indices, indptr), shape=(n + m, n + m))


class BlockedAffinity(NamedTuple):
    """An affinity matrix cut into blocks of rows.

    Attributes
    ----------
    operator : CSR array, ndarray or LinearOperator of shape (n_rows, n_columns)
    bounds : list of slice
        The rows of each block.
    pieces : list of matrices or None
        The matrix of each block, a view where possible; None for a LinearOperator, which has no rows.
    csr_matvecs : callable or None
        SciPy's ``out += A @ X`` for CSR arrays, which saves an array of zeros and a copy for each block. Without it a
        plain product is taken.
    """

    operator: Any
    bounds: list[slice]
    pieces: list[Any] | None
    csr_matvecs: Callable[..., None] | None = None


def blocked(P: Any, bounds: list[slice], csr_matvecs: Callable[..., None] | None = None) -> BlockedAffinity:
    """Cut `P` into blocks of rows; those of a CSR array share its memory."""
    if isinstance(P, LinearOperator):
        return BlockedAffinity(P, bounds, None)
    if not sp.issparse(P):
        return BlockedAffinity(P, bounds, [P[rows] for rows in bounds])
    pieces = []
    for rows in bounds:
        first, last = P.indptr[rows.start], P.indptr[rows.stop]
        piece = sp.csr_array((rows.stop - rows.start, P.shape[1]), dtype=P.dtype)
        # Set one by one, because the constructor would copy them.
        piece.data, piece.indices = P.data[first:last], P.indices[first:last]
        piece.indptr = P.indptr[rows.start : rows.stop + 1] - first
        pieces.append(piece)
    return BlockedAffinity(P, bounds, pieces, csr_matvecs)


def products(affinity: BlockedAffinity, H: Array) -> Callable[[int], Array]:
    """Return the function ``block -> P[block] @ H``, to be called from any thread."""
    if affinity.pieces is None:
        whole = np.asarray(affinity.operator @ H).astype(H.dtype, copy=False)
        return lambda block: whole[affinity.bounds[block]]
    pieces = affinity.pieces
    return lambda block: pieces[block] @ H


def additions(affinity: BlockedAffinity, H: Array) -> Callable[[int, Array], Array]:
    """Return the function ``(block, out) -> out += P[block] @ H``, to be called from any thread.

    `out` is contiguous.
    """
    product, add_csr = products(affinity, H), affinity.csr_matvecs
    pieces = affinity.pieces
    if pieces is None or add_csr is None or not H.flags.c_contiguous or affinity.operator.dtype != H.dtype:
        return lambda block, out: np.add(out, product(block), out=out)
    flat = H.ravel()

    def add(block: int, out: Array) -> Array:
        piece = pieces[block]
        add_csr(*piece.shape, H.shape[1], piece.indptr, piece.indices, piece.data, flat, out.reshape(-1))
        return out

    return add


def multiply(
    affinity: BlockedAffinity, H: Array, out: Array, run: Runner, add: Array | None = None, scale: float = 1.0
) -> Array:
    """Write ``(P @ H + add) * scale`` into `out`, block by block on threads."""
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
    affinity: BlockedAffinity,
    Y: Array,
    length: int,
    stride: int,
    run: Runner,
    out: Array | None = None,
    scratch: Array | None = None,
) -> Array:
    """Return ``(1 / L) sum_{l < L} P^(l stride) Y`` by Horner's rule: P times it averages Y over walks up to length L.

    `stride` is 2 on a bipartite graph, where only odd walks lead from rows to columns. The result is `Y` itself for
    L = 1 and `out` otherwise; `scratch` is overwritten.
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


def walked_rows(P_rows: Any, steps: list[Any], length: int) -> Any:
    """Average some rows of an affinity matrix over walks up to a length, as a matrix.

    `steps` are the matrices that lead one step further: the affinities themselves or, on a bipartite graph, those to
    the other side and those back.
    """
    total = walk = P_rows
    for _ in range(length - 1):
        for step in steps:
            walk = walk @ step
        total = total + walk
    return total / length
