"""Key statistics: one pass equals blocks merged in any order; float64 sums; degenerate clusters."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sklearn_attnembed._core.statistics import block_statistics, largest_variance, merge, pool, sphere_statistics

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


@pytest.mark.parametrize("weighted", [False, True])
def test_statistics_on_the_sphere(weighted):
    Y = np.random.default_rng(0).standard_normal((300, 5))
    Y /= np.linalg.norm(Y, axis=1, keepdims=True)
    weights = np.random.default_rng(1).uniform(0, 2, 300) if weighted else None
    null, expected = np.arange(300) / 300, block_statistics(Y, weights)
    statistics, null_mean = sphere_statistics(Y, weights, null)
    assert_same(statistics, expected)
    assert_allclose(null_mean, null @ Y)
    assert_allclose(sphere_statistics(Y.astype(np.float32), weights, null)[0].scatter, expected.scatter, atol=1e-4)
