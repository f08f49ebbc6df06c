"""Matrices that are probably not what they are given as, and what they seem to be instead, in words.

Some thousand entries are looked at, whatever the size. Affinities may be anything that is not negative, so these are
suspicions, to warn of: each is made of several signs that no usual affinity shows together.
"""

from typing import Any

import numpy as np
import scipy.sparse as sp

from ._typing import Float64, Integers

# Entries looked at, of which so many largest ones more closely; samples below which nothing is concluded.
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


@np.errstate(over="ignore", invalid="ignore")  # sums of the largest numbers say nothing
def given_as_affinities(A: Any, affinity: Any) -> str | None:
    """What is suspicious about a square matrix that is given as affinities."""
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
    """What is suspicious about a matrix that is given as features."""
    if X.shape[0] != X.shape[1] or X.shape[0] < _FEWEST:
        return None
    if sp.issparse(X):
        return None if abs(X - X.T).sum() else _RELATIONS
    i, j = np.random.default_rng(0).integers(len(X), size=(2, _LOOKS))
    return _RELATIONS if np.allclose(X[i, j], X[j, i], rtol=1e-6) else None


def _ascends(A: Any) -> bool:
    """Whether rows hold as many entries each, in the order of neighbours found: their distances ascend."""
    A = sp.csr_array(A)
    counts = np.diff(A.indptr)
    if counts.min() < 2 or np.ptp(counts) or A.has_sorted_indices:
        return False
    rows = A.data.reshape(-1, counts[0])
    return bool(np.all(rows[:, 1:] >= rows[:, :-1]) and np.mean(rows[:, -1] > rows[:, 0]) > 0.5)


def _is_metric(A: Any, i: Integers, j: Integers) -> bool:
    """Whether entries, or their roots, obey the triangle inequality, and so far apart that it is no accident.

    Looked at are the largest of the entries (i, j), and all ways round. Of affinities the largest are those of near
    samples, to which most others have less than half of it.
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
    """Whether the diagonal is something else than the other entries: each sample's relation to itself."""
    return not diagonal.any() or bool(np.mean(diagonal > np.median(others)) > 0.9)


def _has_equal_sums(A: Any) -> bool:
    """Whether the rows were divided by their sums."""
    sums = A.sum(axis=1)
    return bool(np.ptp(sums) < 1e-4 * sums.max())


def _correlation(here: Float64, mirrored: Float64) -> float:
    """Of entries with their mirror images; 1 where that says nothing: in graphs, of few links or without weights."""
    if np.mean(here == 0) > 0.8 or len(np.unique(here)) < 3 or not np.ptp(mirrored):
        return 1.0
    largest = max(np.abs(here).max(), np.abs(mirrored).max())
    return float(np.corrcoef(here / largest, mirrored / largest)[0, 1])
