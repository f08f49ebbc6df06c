"""Inverted index of the keys: cells of nearby keys, and the nearest keys of queries found in the cells around them.

Cells are small clusters within the clusters of the mixture. A query scans cells in order of their centers until it has
met enough keys, so its cost does not grow with the number of keys.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from .parallel import Runner
from .sampling import rounded
from .types import Array, Integers

# ``(points, k) -> at most k centers``.
Cluster = Callable[[Array, int], Array]

# Keys in a cell, up to _LARGE keys. Beyond that, the size of cells and their number both grow with the square root.
KEYS_PER_CELL, _LARGE = 256, 2**16

# Keys of each cell that its center is found from.
_PER_CELL = 32

# Share of the keys that are scanned again where lists are known.
SHARE_OF_RESCAN = 0.25

# Rows assigned at once; pairs of query and cell held at once; elements of a temporary block.
_ROWS, _PAIRS, _BLOCK_ELEMENTS = 4096, 2**17, 2**18


class Cells(NamedTuple):
    """Partition of the keys into cells.

    Attributes
    ----------
    order : ndarray of int of shape (m,)
        Numbers of the keys, cell by cell.
    starts : ndarray of int of shape (n_cells + 1,)
        Position in `order` at which each cell begins.
    centers : ndarray of shape (n_cells, d)
    cluster : ndarray of int of shape (n_cells,)
        The cluster of the mixture that a cell is part of.
    """

    order: Integers
    starts: Integers
    centers: Array
    cluster: Integers


def nearest_center(Y: Array, centers: Array) -> Integers:
    """Return the nearest center of each row."""
    if len(centers) == 1:
        return np.zeros(len(Y), np.intp)
    nearest: Integers = np.argmax(Y @ centers.T - 0.5 * np.einsum("ij,ij->i", centers, centers), axis=1)
    return nearest


def build_cells(keys: Array, active: Integers, labels: Integers, cluster: Cluster, run: Runner) -> Cells:
    """Partition the active keys of every cluster into cells."""
    size = KEYS_PER_CELL * max(1.0, len(active) / _LARGE) ** 0.5
    parts, owner = [], []
    for a in np.unique(labels[active]):
        members = active[labels[active] == a]
        cell = np.zeros(len(members), np.intp)
        n_cells = round(len(members) / size)
        if n_cells > 1:
            step = max(len(members) // (_PER_CELL * n_cells), 1)
            middle = cluster(rounded(keys[members[::step]]), n_cells)
            nearest = partial(_nearest_of_block, keys, members, middle)
            cell = np.concatenate(list(run(nearest, range(0, len(members), _ROWS))))
        order = np.argsort(cell, kind="stable")
        inside = np.split(members[order], np.cumsum(np.bincount(cell))[:-1])
        parts += [part for part in inside if len(part)]
        owner += [a] * sum(map(bool, map(len, inside)))
    return Cells(
        np.concatenate(parts),
        np.cumsum([0, *map(len, parts)]),
        np.array(list(run(lambda c: keys[parts[c]].mean(axis=0, dtype=np.float64), range(len(parts))))),
        np.array(owner),
    )


def _nearest_of_block(X: Array, rows: Integers, centers: Array, start: int) -> Integers:
    return nearest_center(X[rows[start : start + _ROWS]], centers)


def cells_of(cells: Cells, keys: Integers) -> Integers:
    """Return the cells of active keys, given by number."""
    cell: Integers = np.zeros(int(cells.order.max(initial=0)) + 1, np.intp)
    cell[cells.order] = np.repeat(np.arange(len(cells.centers)), np.diff(cells.starts))
    return cell[keys]


def n_keys_scanned(n_exact: int) -> float:
    """Return how many keys a query scans for its `n_exact` nearest to be among them nine times out of ten."""
    return float(max(512 * n_exact**0.5, 2 * n_exact))


def query_rows(n: int, cells: Cells, n_exact: int) -> int:
    """Return how many of `n` queries to take at once: many, because a cell is gathered once for all of them."""
    n_probed = min(n_keys_scanned(n_exact) / len(cells.order), 1.0) * len(cells.centers)
    most = max(_PAIRS // n_probed, 1024)
    return max(-(-n // (8 * int(np.ceil(n / (8 * most))))), 1024)  # eighths, so that threads end together


def nearest_keys(
    X: Array, keys: Array, cells: Cells, n_exact: int, run: Runner, known: Integers | None = None
) -> Integers:
    """Find the `n_exact` keys of largest x.y among those in the cells around each query; int32.

    Queries that are nearest to the same center scan the same cells, so that their scores are one dense product. `known`
    are lists found earlier, in other cells: the best of both are kept, and fewer cells are scanned.
    """
    wanted = max(n_keys_scanned(n_exact) * (1 if known is None else SHARE_OF_RESCAN), n_exact)
    sizes, centers = np.diff(cells.starts), cells.centers.astype(X.dtype, copy=False)
    center = np.concatenate(list(run(lambda i: nearest_center(X[i : i + _ROWS], centers), range(0, len(X), _ROWS))))
    order = np.argsort(center, kind="stable")
    ends = np.searchsorted(center[order], np.arange(len(sizes) + 1))
    near = np.argsort(-(cells.centers @ cells.centers.T) + np.einsum("ij,ij->i", cells.centers, cells.centers) / 2)
    out = np.empty((len(X), n_exact), np.int32)

    def one(cell: int) -> None:
        rows = order[ends[cell] : ends[cell + 1]]
        around = near[cell, : np.searchsorted(np.cumsum(sizes[near[cell]]), wanted) + 1]
        members = np.concatenate([cells.order[cells.starts[c] : cells.starts[c + 1]] for c in around])
        Y, step = keys[members], max(_BLOCK_ELEMENTS // len(members), 1)
        for cut in (rows[i : i + step] for i in range(0, len(rows), step)):
            scores = X[cut] @ Y.T
            best = np.argpartition(scores, len(members) - n_exact, axis=1)[:, len(members) - n_exact :]
            found = members[best]
            if known is not None:
                found = _better(found, np.take_along_axis(scores, best, axis=1), known[cut], X[cut], keys)
            out[cut] = found

    for _ in run(one, range(len(sizes))):
        pass
    return out


def _better(found: Integers, scores: Array, known: Integers, X: Array, keys: Array) -> Integers:
    """Return the best keys of two lists, each key once."""
    n_exact = found.shape[1]
    both = np.concatenate([found, known], axis=1)
    scores = np.concatenate([scores, np.matmul(keys[known], X[:, :, None])[:, :, 0]], axis=1)
    order = np.argsort(both, axis=1, kind="stable")
    both, scores = np.take_along_axis(both, order, axis=1), np.take_along_axis(scores, order, axis=1)
    scores[:, 1:][both[:, 1:] == both[:, :-1]] = -np.inf
    return np.take_along_axis(both, np.argpartition(scores, n_exact, axis=1)[:, n_exact:], axis=1)
