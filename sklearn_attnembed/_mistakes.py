"""Detection of matrices that are probably not what `affinity` says, with the text of a warning.

A few thousand entries are examined, whatever the size of the matrix. Any non-negative matrix can be a matrix of
affinities, so the result is a suspicion only. It rests on several properties that affinities seldom have together.
"""

from typing import Any

import numpy as np
import scipy.sparse as sp

from ._typing import Float64, Integers

# Number of entries examined, number of the largest ones examined more closely, and least number of samples.
_LOOKS, _LARGEST, _FEWEST = 20_000, 100, 20

_DISTANCES = (
    "X looks like distances, {why}, but affinity={affinity!r} takes affinities, which are large where samples are "
    "near. Pass a sparse graph of distances to affinity='precomputed_nearest_neighbors', or make affinities of them, "
    "np.exp(-(X / scale) ** 2) for instance."
)
_FEATURES = (
    "X looks like features, square by accident: entries have nothing to do with their mirror images (correlation "
    "{why}). But affinity={affinity!r} takes affinities of samples by samples. For points use "
    "affinity='nearest_neighbors', for counts affinity='bipartite'."
)
_RELATIONS = (
    "X looks like relations of samples, being square and symmetric, but affinity='nearest_neighbors' takes rows for "
    "points. For affinities or an adjacency use affinity='precomputed', for distances metric='precomputed'."
)


@np.errstate(over="ignore", invalid="ignore")  # sums of huge numbers decide nothing
def given_as_affinities(A: Any, affinity: Any) -> str | None:
    """Return what is suspicious about a square matrix of affinities, or None."""
    if sp.issparse(A):
        return _DISTANCES.format(why="in ascending order in each row", affinity=affinity) if _ascends(A) else None
    if len(A) < _FEWEST:
        return None
    i, j = np.random.default_rng(0).integers(len(A), size=(2, _LOOKS))
    i, j = i[i != j], j[i != j]
    here, mirrored = A[i, j].astype(np.float64), A[j, i].astype(np.float64)
    if np.allclose(here, mirrored, rtol=1e-6):
        why = "with a zero diagonal and the triangle inequality"
        is_distance = not A.diagonal().any() and _is_metric(A, i, j)
        return _DISTANCES.format(why=why, affinity=affinity) if is_distance else None
    correlation = _correlation(here, mirrored)
    if callable(affinity) or abs(correlation) > 0.1 or _has_diagonal(A.diagonal(), here) or _has_equal_sums(A):
        return None
    return _FEATURES.format(why=f"{correlation:.2f}", affinity=affinity)


@np.errstate(over="ignore", invalid="ignore")
def given_as_points(X: Any) -> str | None:
    """Return what is suspicious about a matrix of features, or None."""
    if X.shape[0] != X.shape[1] or X.shape[0] < _FEWEST:
        return None
    if sp.issparse(X):
        return None if abs(X - X.T).sum() else _RELATIONS
    i, j = np.random.default_rng(0).integers(len(X), size=(2, _LOOKS))
    return _RELATIONS if np.allclose(X[i, j], X[j, i], rtol=1e-6) else None


def _ascends(A: Any) -> bool:
    """Return whether all rows have the same number of entries in ascending order, as a search for neighbors returns."""
    A = sp.csr_array(A)
    counts = np.diff(A.indptr)
    if counts.min() < 2 or np.ptp(counts) or A.has_sorted_indices:
        return False
    rows = A.data.reshape(-1, counts[0])
    return bool(np.all(rows[:, 1:] >= rows[:, :-1]) and np.mean(rows[:, -1] > rows[:, 0]) > 0.5)


def _is_metric(A: Any, i: Integers, j: Integers) -> bool:
    """Return whether entries, or their square roots, satisfy the triangle inequality although they differ widely.

    The inequality is checked for the largest of the entries (i, j), by way of every other sample. The largest
    affinities belong to near samples, and most other samples have less than half of that affinity to either of them.
    """
    here = A[i, j].astype(np.float64)
    if np.mean(here == 0) > 0.01 or not here.any():
        return False
    largest = np.argsort(here)[-_LARGEST:]
    ratio = here.max() / here[here > 0].min()
    for power in (1, 0.5):
        ways_round = A[i[largest]].astype(np.float64) ** power + A[j[largest]].astype(np.float64) ** power
        if ratio > 3 ** (1 / power) and np.all(ways_round.min(axis=1) > (1 - 1e-4) * here[largest] ** power):
            return True
    return False


def _has_diagonal(diagonal: Float64, others: Float64) -> bool:
    """Return whether the diagonal differs from the other entries, as relations of samples to themselves do."""
    return not diagonal.any() or bool(np.mean(diagonal > np.median(others)) > 0.9)


def _has_equal_sums(A: Any) -> bool:
    """Return whether rows have been divided by their sums."""
    sums = A.sum(axis=1)
    return bool(np.ptp(sums) < 1e-4 * sums.max())


def _correlation(here: Float64, mirrored: Float64) -> float:
    """Return the correlation of entries with their mirror images, or 1 if they are too few or too alike to tell."""
    if np.mean(here == 0) > 0.8 or len(np.unique(here)) < 3 or not np.ptp(mirrored):
        return 1.0
    largest = max(np.abs(here).max(), np.abs(mirrored).max())
    return float(np.corrcoef(here / largest, mirrored / largest)[0, 1])
