"""Near keys by cells: recall, warm start, weights of what is found."""

import numpy as np
import pytest

from sklearn_attnembed._core.inverted_index import build_cells, n_keys_scanned, nearest_keys
from sklearn_attnembed._core.parallel import block_runner
from sklearn_attnembed._sklearn import cluster_centers


@pytest.fixture(scope="module")
def points():
    """12,000 unit vectors in 200 loose groups: many cells."""
    rng = np.random.default_rng(0)
    X = np.repeat(rng.standard_normal((200, 16)), 60, axis=0) + rng.standard_normal((12_000, 16))
    return (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)


def search(points, queries, seed, known=None, n_exact=10, n_jobs=1):
    with block_runner(n_jobs) as run:
        active, labels = np.arange(len(points)), np.zeros(len(points), int)
        cells = build_cells(points, active, labels, lambda p, k: cluster_centers(p, None, k, seed), run)
        return nearest_keys(queries, points, cells, n_exact, run, known)


def recall(found, points, queries):
    exact = np.argpartition(-queries @ points.T, found.shape[1], axis=1)[:, : found.shape[1]]
    return np.mean([len(np.intersect1d(a, b)) for a, b in zip(found, exact, strict=True)]) / found.shape[1]


def test_recall_and_warm_start(points):
    """Most of the nearest keys are found, each once; lists known before, of other cells, make it more."""
    queries = points[::20]
    first = search(points, queries, 0)
    assert recall(first, points, queries) > 0.6
    second = search(points, queries, 1, known=first)
    assert recall(second, points, queries) > recall(first, points, queries)
    assert all(len(set(row)) == 10 for row in second.tolist())


def test_few_keys_are_found_exactly(points):
    assert recall(search(points[:1000], points[:50], 0), points[:1000], points[:50]) == 1


def test_threads_find_the_same(points):
    one, two = (search(points, points[:500], 0, n_jobs=n_jobs) for n_jobs in (1, 2))
    assert one.tobytes() == two.tobytes()


def test_best_keys_of_the_cells_around_are_found():
    """Cells are scanned in order of the distance of their centers until there are enough keys."""
    rng = np.random.default_rng(0)
    keys, queries = rng.standard_normal((3000, 4)) + np.eye(4)[0], rng.standard_normal((50, 4)) * 2
    cells = build_cells(keys, np.arange(3000), np.zeros(3000, int), lambda points, k: points[:k], map)
    found = nearest_keys(queries, keys, cells, 2, map)
    known = np.tile([0, 1], (50, 1))
    better = nearest_keys(queries, keys, cells, 2, map, known)
    sizes = np.diff(cells.starts)

    def best(x, wanted, others=()):
        home = np.argmin(((cells.centers - x) ** 2).sum(axis=1))
        order = np.argsort(((cells.centers - cells.centers[home]) ** 2).sum(axis=1))
        n_cells = 1 + np.searchsorted(np.cumsum(sizes[order]), wanted)
        scanned = np.concatenate([cells.order[cells.starts[c] : cells.starts[c + 1]] for c in order[:n_cells]])
        candidates = np.union1d(scanned, others).astype(int)
        return set(candidates[np.argsort(-keys[candidates] @ x)[:2]])

    assert n_keys_scanned(2) == 512 * 2**0.5
    assert n_keys_scanned(10**6) == 2e6
    for i, x in enumerate(queries):
        assert set(found[i]) == best(x, 512 * 2**0.5)
        # Of each list the two best: those scanned, and those known.
        assert set(better[i]) == best(x, 128 * 2**0.5, known[i])
