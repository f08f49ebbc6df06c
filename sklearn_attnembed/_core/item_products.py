"""Attention of items to each other: products of the columns of a table, of which the largest are kept."""

from typing import Any

import numpy as np
import scipy.sparse as sp

from .parallel import Runner

# Products of a block of items with all others, at most.
_BLOCK_PRODUCTS = 2**23


def largest_products(A: sp.csr_array, k: int, run: Runner) -> sp.csr_array:
    """Return the k largest entries in each row of ``A.T @ A`` without its diagonal, block by block on threads.

    Time is the sum over rows of `A` of their squared numbers of entries; memory holds a block and the result.
    """
    columns = sp.csr_array(A.T)
    counts = np.diff(A.indptr)
    work = np.cumsum(np.bincount(A.indices, np.repeat(counts, counts), A.shape[1]))  # products of each column
    bounds = np.searchsorted(work, np.arange(_BLOCK_PRODUCTS, work[-1], _BLOCK_PRODUCTS))
    cuts = np.unique([0, *bounds, columns.shape[0]])

    def one(block: int) -> Any:
        start, stop = cuts[block], cuts[block + 1]
        products = sp.csr_array(columns[start:stop] @ A)
        rows = np.repeat(np.arange(start, stop), np.diff(products.indptr))
        products.data[products.indices == rows] = 0
        return _largest_of_rows(products, k)

    return sp.csr_array(sp.vstack(list(run(one, range(len(cuts) - 1))), format="csr"))


def _largest_of_rows(A: sp.csr_array, k: int) -> sp.csr_array:
    """Return the k largest positive entries of each row."""
    kept = A.data > 0
    for row in np.flatnonzero(np.diff(A.indptr) > k):
        entries = slice(A.indptr[row], A.indptr[row + 1])
        least = np.argpartition(A.data[entries], -k)[:-k]
        kept[entries.start + least] = False
    indptr = np.concatenate([[0], np.cumsum(kept)])[A.indptr]
    return sp.csr_array((A.data[kept], A.indices[kept], indptr), A.shape)
