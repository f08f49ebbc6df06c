"""Row-stochastic affinities as operators: cut into row blocks, multiplied on threads, walked by Horner's rule."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator

from .kernels import Array, Mask
from .parallel import Runner

# Elements of one block of embedding rows: about 1 MB in float32.
_BLOCK_ELEMENTS = 2**18

try:
    from scipy.sparse import _sparsetools

    csr_matvecs: Any = _sparsetools.csr_matvecs
except (ImportError, AttributeError):  # not public: a plain product will do
    csr_matvecs = None


def unit_rows(X: Array) -> Array:
    """Divide rows by their norm, in place; zero rows stay zero."""
    norms = np.sqrt(np.einsum("ij,ij->i", X, X))
    X /= np.where(norms > 0, norms, 1)[:, None]
    return X


def momentum(age: Any) -> Any:
    """Nesterov's momentum, so many steps after the restart, up to 0.9."""
    return np.minimum((age + 1) / (age + 3), 0.9)


def row_blocks(sizes: Sequence[int], width: int) -> list[slice]:
    """Cut groups of rows, lying one after the other, into blocks of next to equal size that straddle no group."""
    most = int(np.clip(_BLOCK_ELEMENTS // max(int(width), 1), 64, 8192))
    blocks, start = [], 0
    for size in sizes:
        cuts = start + np.linspace(0, size, -(-size // most) + 1).astype(int) if size else [start]
        blocks += [slice(int(a), int(b)) for a, b in pairwise(cuts)]
        start += size
    return blocks


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


def compact(A: Any) -> sp.csr_array:
    """`A` as a CSR array with 32-bit indices where these will do: some of scikit-learn takes no others."""
    A = sp.csr_array(A)
    if max(A.nnz, *A.shape) <= np.iinfo(np.int32).max:
        A.indices, A.indptr = A.indices.astype(np.int32, copy=False), A.indptr.astype(np.int32, copy=False)
    return A


def canonical(A: Any, name: str = "X") -> Any:
    """A sparse matrix as a CSR array of floats, its indices sorted, none twice and, if possible, of 32 bits.

    Entries at the same place are summed; zeros stay. The input is left as it is, and the result shares its arrays where
    these are canonical. What is not sparse is returned as it is. Arrays that do not fit together are refused before
    compiled code reads them, whatever flags say.
    """
    if not sp.issparse(A):
        return A
    for defect in _defects(A):
        raise ValueError(
            f"{name} must be a sparse matrix whose arrays fit together, but as {A.format} of shape {A.shape} it has "
            f"{defect}. Build it anew from its entries: scipy.sparse.coo_array((values, (rows, columns)), shape)."
        )
    if A.dtype.kind != "c" and A.dtype not in (np.float32, np.float64):  # small integers would overflow in sums
        with np.errstate(over="ignore"):
            A = A.astype(np.float64)
    A = A.tocsr()
    count = int(A.indptr[-1])
    # A new matrix: flags of the old one may be wrong.
    A = compact(sp.csr_array((A.data[:count], A.indices[:count], A.indptr), shape=A.shape))
    if not A.has_canonical_format:
        A = A.copy()
        A.sum_duplicates()
    return A


def _defects(A: Any) -> Iterator[str]:
    """What is wrong with the arrays of a sparse matrix: to be asked for the first alone, others may not make sense."""
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
    """What is wrong with the arrays of a CSR, CSC or BSR matrix."""
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
    """Indices that are none of `n` rows or columns."""
    if indices.dtype.kind not in "iu":
        yield f"indices of type {indices.dtype}, not integers"
    for index in (indices.min(), indices.max()) if indices.size else ():
        if not 0 <= index < n:
            yield f"index {index}, out of range for {n}"


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
