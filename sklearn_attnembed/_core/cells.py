"""Near keys found by cells: each query sums the cells around it exactly and leaves the rest to others.

Cells are small clusters within the clusters of the mixture. A query ranks them by f at their centre and goes down the
list until it has met enough keys, so its cost does not grow with the number of keys.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .kernels import Array, Kernel
from .operators import Runner
from .survey import Census

Cluster = Callable[[Array, int], Array]

# Keys in a cell, up to _LARGE keys; beyond that cells grow with the square root, as their number does.
_CELL = 256
_LARGE = 2**16
# Keys of each cell that its center is found from.
_PER_CELL = 32
# Rows assigned at once.
_ROWS = 4096


class Cells(NamedTuple):
    """A partition of the keys.

    Attributes
    ----------
    order : ndarray of int of shape (m,)
        Numbers of the keys, cell by cell.
    starts : ndarray of int of shape (n_cells + 1,)
        Where each cell begins in `order`.
    centers : ndarray of shape (n_cells, d)
    cluster : ndarray of int of shape (n_cells,)
        Which of the mixture's clusters a cell is a part of.
    """

    order: NDArray[np.integer]
    starts: NDArray[np.integer]
    centers: Array
    cluster: NDArray[np.integer]


def nearest_center(Y: Array, centers: Array) -> NDArray[np.integer]:
    """The nearest center of each row."""
    if len(centers) == 1:
        return np.zeros(len(Y), np.intp)
    return np.argmax(Y @ centers.T - 0.5 * np.einsum("ij,ij->i", centers, centers), axis=1)


def build_cells(
    keys: Array, active: NDArray[np.integer], labels: NDArray[np.integer], cluster: Cluster, run: Runner
) -> Cells:
    """Cut the active keys of every cluster into cells; `cluster(points, k)` gives at most k centers."""
    size = _CELL * max(1.0, len(active) / _LARGE) ** 0.5
    parts, owner = [], []
    for a in np.unique(labels[active]):
        members = active[labels[active] == a]
        cell = np.zeros(len(members), np.intp)
        n_cells = round(len(members) / size)
        if n_cells > 1:
            step = max(len(members) // (_PER_CELL * n_cells), 1)
            middle = cluster(keys[members[::step]].astype(np.float64), n_cells)
            blocks = [members[i : i + _ROWS] for i in range(0, len(members), _ROWS)]
            cell = np.concatenate(list(run(partial(_assign, keys, blocks, middle), range(len(blocks)))))
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


def _assign(keys: Array, blocks: list[NDArray[np.integer]], centers: Array, block: int) -> NDArray[np.integer]:
    return nearest_center(keys[blocks[block]], centers)


def cells_of(cells: Cells, keys: NDArray[np.integer]) -> NDArray[np.integer]:
    """The cells of active keys, given by number."""
    cell = np.zeros(cells.order.max(initial=0) + 1, np.intp)
    cell[cells.order] = np.repeat(np.arange(len(cells.centers)), np.diff(cells.starts))
    return cell[keys]


def reach(n_exact: int) -> float:
    """How many keys a query sums for its `n_exact` nearest to be among them nine times out of ten."""
    return max(512 * n_exact**0.5, 2 * n_exact)


def probe(X: Array, cells: Cells, n_exact: int, kernel: Kernel, beta: float) -> NDArray[np.bool_]:
    """The cells that each query sums; ndarray of bool of shape (n, n_cells)."""
    sizes = np.diff(cells.starts)
    wanted = reach(n_exact)
    probed = np.zeros((len(X), len(sizes)), bool)
    if wanted >= sizes.sum():
        probed[:] = True
        return probed
    rank = -kernel.log_value(beta * (X @ cells.centers.T))
    rows = np.arange(len(X))[:, None]
    # Twice the cells of mean size hold enough, or next to enough.
    n_first = min(int(np.ceil(2 * wanted / sizes.mean())), len(sizes))
    first = np.argpartition(rank, n_first - 1, axis=1)[:, :n_first]
    first = np.take_along_axis(first, np.argsort(rank[rows, first], axis=1, kind="stable"), axis=1)
    before = np.cumsum(sizes[first], axis=1) - sizes[first]
    probed[rows, first] = before < wanted
    return probed


def cell_census(
    X: Array,
    keys: Array,
    log_weights: Array | None,
    cells: Cells,
    probed: NDArray[np.bool_],
    kernel: Kernel,
    beta: float,
    mean: Array,
) -> Census:
    """Sums over the keys of the probed cells; no key of the sample is known to be among them yet."""
    n, log_mass = len(X), np.full(len(X), -np.inf)
    count, first, second = np.zeros((3, *mean.shape))
    for c in np.flatnonzero(probed.any(axis=0)):
        rows, members = np.flatnonzero(probed[:, c]), cells.order[cells.starts[c] : cells.starts[c + 1]]
        scores = beta * (X[rows] @ keys[members].T)
        log_f = kernel.log_value(scores)
        weights = np.ones(len(members))
        if log_weights is not None:
            log_f, weights = log_f + log_weights[members], np.exp(log_weights[members])
        top = np.maximum(log_mass[rows], log_f.max(axis=1))
        shift = np.where(np.isfinite(top), top, 0)
        total = np.exp(log_mass[rows] - shift) + np.exp(log_f - shift[:, None]).sum(axis=1)
        with np.errstate(divide="ignore"):
            log_mass[rows] = shift + np.log(total)
        a = cells.cluster[c]
        distance = scores - mean[rows, a][:, None]
        count[rows, a] += weights.sum()
        first[rows, a] += distance @ weights
        second[rows, a] += np.square(distance, out=distance) @ weights
    return Census(log_mass, count, first, second, np.zeros((n, 0), bool))
