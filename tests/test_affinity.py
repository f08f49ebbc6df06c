"""Affinities from distances and adjacencies."""

import numpy as np
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_attnembed.affinity import neighbor_affinity, random_walk


def graph(*rows, width=6):
    """A graph of distances, every entry explicit."""
    indptr = np.cumsum([0] + [len(row) for row in rows])
    indices = np.concatenate([np.arange(len(row)) for row in rows])
    return sp.csr_array((np.concatenate(rows).astype(float), indices, indptr), shape=(len(rows), width))


def test_biweight_up_to_the_next_neighbour():
    """Of five neighbours two count, the third marks the bandwidth, the rest is cut."""
    weights = neighbor_affinity(
        graph([3.0, 0.0, 1.0, 2.0, 9.0], [4.0, 5.0, 1.0, 2.0], [0.0, 2.0, 1.0]), n_neighbors=2, weighting="biweight"
    )
    assert weights.nnz == 9
    assert_allclose(weights.toarray()[0], [0, 1, (1 - 1 / 4) ** 2, 0, 0, 0], atol=2e-7)
    assert_allclose(weights.toarray()[1], [0, 0, (1 - 1 / 16) ** 2, (1 - 1 / 4) ** 2, 0, 0], atol=2e-7)
    assert_allclose(weights.toarray()[2], [1, 0, (1 - 1 / 4) ** 2, 0, 0, 0], atol=2e-7)


def test_short_rows_use_what_they_have():
    weights = neighbor_affinity(graph([0.0, 1.0, 2.0], [0.0], []), n_neighbors=5, weighting="biweight").toarray()
    assert_allclose(weights[0, :3], [1, 9 / 16, 0], atol=2e-7)
    assert_allclose(weights[1, 0], 1, atol=2e-7)
    assert not weights[2].any()


def test_equidistant_and_coincident_neighbours_count_alike():
    weights = neighbor_affinity(graph([2.0, 2, 2, 2], [0.0, 0, 0, 0]), n_neighbors=3).toarray()
    for row in weights:
        assert_allclose(row[:4], row[0])
        assert row[0] > 0


def test_ties_at_the_edge_do_not_matter():
    """The last neighbour, whichever of the tied ones it is, has hardly any weight."""
    one = neighbor_affinity(graph([0.0, 1, 2, 2]), n_neighbors=2).toarray()
    other = neighbor_affinity(graph([0.0, 1, 2.0000001, 2]), n_neighbors=2).toarray()
    assert_allclose(one, other, atol=1e-6)


def test_scale_does_not_matter_and_input_stays():
    distances = graph([0.0, 3, 1, 2], [1.0, 2, 3, 4])
    before = distances.copy()
    assert_allclose(neighbor_affinity(7 * distances, 2).toarray(), neighbor_affinity(distances, 2).toarray())
    assert_array_equal(distances.toarray(), before.toarray())
    assert_array_equal(distances.indices, before.indices)


def test_random_walk_and_teleport():
    A = np.array([[0, 3, 1], [1, 0, 0], [0, 0, 0]])
    assert_allclose(random_walk(A).toarray(), [[0, 0.75, 0.25], [1, 0, 0], [0, 0, 0]])
    assert_allclose(random_walk(A, teleport=0.2).toarray(), [[0.2, 0.6, 0.2], [0.8, 0.2, 0], [0, 0, 1]])
    assert random_walk(A.astype(np.float32)).dtype == np.float32
