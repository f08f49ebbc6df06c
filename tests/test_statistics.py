"""Key statistics: one pass equals blocks merged in any order; float64 sums; degenerate clusters."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sklearn_attnembed._core.statistics import (
    block_statistics,
    group_sums,
    largest_variance,
    merge,
    pool,
)

RNG = np.random.default_rng(0)
Y = RNG.standard_normal((101, 6)) + 5
LABELS = RNG.integers(0, 3, 101)
WEIGHTS = RNG.uniform(0.1, 3, 101)


def assert_same(a, b, rtol=1e-10):
    for x, y in zip(a, b, strict=True):
        assert_allclose(x, y, rtol=rtol, atol=1e-10)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("labels", [None, LABELS], ids=["one", "clusters"])
def test_blocks_merge_to_the_whole(weights, labels):
    def part(rows):
        return block_statistics(
            Y[rows], None if weights is None else weights[rows], None if labels is None else labels[rows], 3
        )

    whole, parts = part(slice(None)), [part(slice(i, i + 17)) for i in range(0, 101, 17)]
    assert_same(merge(parts), whole)
    assert_same(merge(parts[::-1]), whole)


def test_moments_are_numpys():
    statistics = block_statistics(Y, WEIGHTS)
    assert_allclose(statistics.mean[0], np.average(Y, axis=0, weights=WEIGHTS))
    assert_allclose(statistics.covariance[0], np.cov(Y.T, aweights=WEIGHTS, bias=True))


def test_weights_are_repetitions():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 4, 101)
    assert_same(block_statistics(Y, counts.astype(float)), block_statistics(np.repeat(Y, counts, axis=0)))


def test_pool_forgets_clusters():
    assert_same(pool(block_statistics(Y, WEIGHTS, LABELS, 3)), block_statistics(Y, WEIGHTS))


def test_empty_and_singleton_clusters():
    statistics = block_statistics(Y[:3], None, np.array([0, 0, 2]), 4)
    assert_allclose(statistics.weight, [2, 0, 1, 0])
    assert_allclose(statistics.covariance[1:], 0)
    assert np.all(np.isfinite(pool(statistics).scatter))


def test_far_mean_costs_no_digits():
    """Centred sums in float64: float32 keys at a distance of 1e4 keep their covariance."""
    rng = np.random.default_rng(0)
    far = (rng.standard_normal((5000, 3)) + 1e4).astype(np.float32)
    parts = [block_statistics(far[i : i + 500]) for i in range(0, 5000, 500)]
    assert_allclose(merge(parts).covariance[0], np.cov(far.T.astype(np.float64), bias=True), rtol=1e-9, atol=1e-9)


def test_largest_variance_sees_between_clusters():
    apart = np.array([[-3.0, 0], [-3.0, 0], [3.0, 0], [3.0, 0]])
    assert_allclose(largest_variance(block_statistics(apart, None, np.array([0, 0, 1, 1]), 2)), 9)


def test_diagonal_blocks_merge_to_the_whole():
    whole = block_statistics(Y, WEIGHTS, LABELS, 3, diagonal=True)
    parts = [
        block_statistics(Y[i : i + 17], WEIGHTS[i : i + 17], LABELS[i : i + 17], 3, True) for i in range(0, 101, 17)
    ]
    assert_same(merge(parts), whole)
    full = block_statistics(Y, WEIGHTS, LABELS, 3)
    assert_allclose(whole.scatter, np.einsum("aii->ai", full.scatter))
    assert_allclose(whole.covariance, np.einsum("aii->ai", full.covariance))
    assert_allclose(pool(whole).scatter, np.einsum("aii->ai", pool(full).scatter))


@pytest.mark.parametrize("diagonal", [False, True])
def test_clusters_that_are_empty_in_both_parts(diagonal):
    parts = [block_statistics(Y[i : i + 2], None, np.array([0, 2]), 4, diagonal) for i in (0, 2)]
    merged = merge(parts)
    assert_allclose(merged.weight, [2, 0, 2, 0])
    assert_allclose(merged.mean[1::2], 0)
    assert_allclose(merged.scatter[1::2], 0)
    assert_allclose(merged.mean[0], Y[[0, 2]].mean(axis=0))


def test_keys_of_no_weight():
    statistics = block_statistics(Y[:4], np.zeros(4))
    assert_allclose(statistics.weight, [0])
    assert_allclose(statistics.scatter, np.zeros((1, 6, 6)))


def test_labels_of_one_cluster_do_not_matter():
    assert_same(block_statistics(Y, WEIGHTS, np.zeros(101, int), 1), block_statistics(Y, WEIGHTS))


def test_group_sums():
    assert_allclose(group_sums(np.array([2, 0, 2]), np.array([1.5, 2, 3]), 4), [2, 0, 4.5, 0])
    counts = group_sums(np.array([2, 0, 2]), None, 4)
    assert_allclose(counts, [1, 0, 2, 0])
    assert counts.dtype == np.float64
    given = np.array([1.5, 2, 3])
    group_sums(np.array([0, 1, 2]), given, 3)[:] = 0
    assert_allclose(given, [1.5, 2, 3])


def test_largest_variance_of_one_cluster():
    assert_allclose(
        largest_variance(block_statistics(Y, WEIGHTS)), np.linalg.eigvalsh(np.cov(Y.T, aweights=WEIGHTS, bias=True))[-1]
    )
    assert largest_variance(block_statistics(Y[:1])) == 0


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_weights_of_any_size_merge(factor):
    parts = [block_statistics(Y[rows], factor * WEIGHTS[rows]) for rows in (slice(40), slice(40, 101))]
    whole = block_statistics(Y, WEIGHTS)
    assert_same(merge(parts), (factor * whole.weight, whole.mean, factor * whole.scatter))
