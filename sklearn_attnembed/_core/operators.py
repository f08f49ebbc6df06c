"""Row-stochastic affinities as operators: cut into row blocks, multiplied on threads, walked by Horner's rule."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator
from threadpoolctl import ThreadpoolController

from .kernels import Array

# Elements of one block of embedding rows: about 1 MB in float32.
_BLOCK_ELEMENTS = 2**18

Runner = Callable[[Callable[[int], Any], Iterable[int]], Iterator[Any]]


@lru_cache(maxsize=1)
def _threadpools() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def block_runner(n_jobs: int | None) -> Iterator[Runner]:
    """Run a function over block numbers on threads, results in order; BLAS keeps to one thread inside.

    One thread for each block, whatever `n_jobs`: so the number of threads cannot change a bit of the result.
    """
    with (
        _threadpools().limit(limits=1),
        Parallel(n_jobs=n_jobs, backend="threading", return_as="generator") as parallel,
    ):
        yield lambda function, blocks: parallel(delayed(function)(block) for block in blocks)


def unit_rows(X: Array) -> Array:
    """Divide rows by their norm, in place; zero rows stay zero."""
    norms = np.sqrt(np.einsum("ij,ij->i", X, X))
    X /= np.where(norms > 0, norms, 1)[:, None]
    return X


def momentum(age: Any) -> Any:
    """Nesterov's momentum, so many steps after the restart, up to 0.9."""
    return np.minimum(age / (age + 3), 0.9)


def row_blocks(sizes: Sequence[int], width: int) -> list[slice]:
    """Cut groups of rows, lying one after the other, into blocks that straddle no group."""
    step = int(np.clip(_BLOCK_ELEMENTS // max(width, 1), 64, 8192))
    ends = np.cumsum(sizes)
    return [
        slice(int(start), int(min(start + step, end)))
        for size, end in zip(sizes, ends, strict=True)
        for start in range(end - size, end, step)
    ]


def row_stochastic(A: Any, dtype: Any) -> tuple[Any, NDArray[np.bool_]]:
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


def multiply(affinity: Affinity, H: Array, out: Array, run: Runner, add: Array | None = None) -> Array:
    """P @ H (+ add) into `out`, block by block on threads."""
    product = products(affinity, H)

    def one(block: int) -> None:
        rows = affinity.bounds[block]
        out[rows] = product(block)
        if add is not None:
            out[rows] += add[rows]

    for _ in run(one, range(len(affinity.bounds))):
        pass
    return out


def walk_targets(affinity: Affinity, Y: Array, length: int, stride: int, run: Runner) -> Array:
    """(1 / L) sum_{l < L} P^(l stride) Y by Horner's rule: P times it is the walk average of Y.

    `stride` is 2 on a bipartite graph, where only odd walks lead from rows to columns. Returns `Y` itself for L = 1.
    """
    if length == 1:
        return Y
    H, spare = Y, [np.empty_like(Y), np.empty_like(Y)]
    for _ in range(length - 1):
        for step in range(stride):
            out = spare.pop()
            multiply(affinity, H, out, run, add=Y if step == stride - 1 else None)
            if H is not Y:
                spare.append(H)
            H = out
    H /= length
    return H
