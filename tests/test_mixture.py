"""Gaussian mixtures against loops over queries and clusters."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_attnembed._core.kernels import EXPRESSIVE, KERNELS, SOFTMAX
from sklearn_attnembed._core.normalizers.mixture import (
    gaussian_field,
    gaussian_log_mass,
    responsibilities,
    scaled_moments,
    score_moments,
)
from sklearn_attnembed._core.statistics import KeyStatistics, block_statistics

RNG = np.random.default_rng(0)
KEYS, X, WEIGHTS = RNG.standard_normal((60, 3)), RNG.standard_normal((5, 3)), RNG.uniform(0.5, 2, 60)
LABELS = np.arange(60) % 3
BETA = 1.7


@pytest.mark.parametrize("diagonal", [False, True])
def test_moments_of_scores_are_those_of_each_cluster(diagonal):
    keys = KEYS.copy()
    statistics = block_statistics(keys, WEIGHTS, LABELS, 3, diagonal)
    products = []
    mean, variance = score_moments(X, scaled_moments(statistics, BETA), products)
    for i, x in enumerate(X):
        for a in range(3):
            members, w = KEYS[a == LABELS], WEIGHTS[a == LABELS]
            scores = BETA * members @ x
            assert_allclose(mean[i, a], np.average(scores, weights=w))
            covariance = np.cov(members.T, aweights=w, bias=True)
            if diagonal:
                assert_allclose(variance[i, a], BETA**2 * x**2 @ np.diag(covariance))
            else:
                assert_allclose(variance[i, a], np.average((scores - mean[i, a]) ** 2, weights=w))
                assert_allclose(products[a][i], BETA * x @ covariance)
    assert len(products) == (0 if diagonal else 3)


def test_variances_are_not_negative():
    """Rounding of a covariance that is not quite positive is cut off."""
    statistics = KeyStatistics(np.ones(1), np.zeros((1, 2)), -1e-18 * np.eye(2)[None])
    assert_array_equal(score_moments(X[:, :2], scaled_moments(statistics, 1.0))[1], 0)


def test_shares_sum_to_one_or_are_zero():
    log_mass = np.log([[1.0, 3.0], [2.0, 2.0]])
    log_z, share = responsibilities(np.vstack([log_mass, [-np.inf, -np.inf]]))
    assert_allclose(log_z, [np.log(4), np.log(4), -np.inf])
    assert_allclose(share, [[0.25, 0.75], [0.5, 0.5], [0, 0]])


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=list(KERNELS))
def test_masses_and_tails(kernel):
    statistics = block_statistics(KEYS, WEIGHTS, LABELS, 3)
    mean, variance = score_moments(X, scaled_moments(statistics, BETA))
    tails = np.array([0.0, 0.3, 0.9])
    plain, heavy = (gaussian_log_mass(X, statistics, kernel, BETA, t) for t in (None, tails))
    for a in range(3):
        m, v = mean[:, a], variance[:, a]
        assert_allclose(plain[:, a], np.log(statistics.weight[a]) + kernel.log_expectation(m, v))
        halves = [np.exp(kernel.log_expectation(m, v * (1 + sign * tails[a]))) for sign in (1, -1)]
        assert_allclose(np.exp(heavy[:, a]), statistics.weight[a] * (halves[0] + halves[1]) / 2)


@pytest.mark.parametrize("kernel", [SOFTMAX, EXPRESSIVE], ids=["softmax", "expressive"])
def test_field_is_the_sum_over_clusters(kernel):
    labels = np.where(LABELS == 2, 3, LABELS)  # cluster 2 is empty
    statistics = block_statistics(KEYS, WEIGHTS, labels, 4)
    log_z, gradient = gaussian_field(statistics, BETA, kernel)(X, slice(None))
    for i, x in enumerate(X):
        z, total = 0.0, np.zeros(3)
        for a in (0, 1, 3):
            mu, Omega = statistics.mean[a], statistics.covariance[a]
            m, v = np.array([BETA * x @ mu]), np.array([BETA**2 * x @ Omega @ x])
            mass = statistics.weight[a] * np.exp(kernel.log_expectation(m, v)[0])
            by_mean, by_variance = kernel.derivatives(m, v)
            z += mass
            total += mass * (by_mean[0] * mu + 2 * BETA * by_variance[0] * Omega @ x)
        assert_allclose(log_z[i], np.log(z))
        assert_allclose(gradient[i], total / z)


def test_precision_of_the_field_is_asked_for():
    statistics = block_statistics(KEYS)
    for part in gaussian_field(statistics, BETA, dtype=np.float32)(X.astype(np.float32), slice(None)):
        assert part.dtype == np.float32
    for part in gaussian_field(statistics, BETA)(X, slice(None)):
        assert part.dtype == np.float64
