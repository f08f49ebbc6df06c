"""Attention in linear time against loops over keys."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sklearn_attnembed._core.kernels import KERNELS
from sklearn_attnembed._core.linear_attention import causal_squared_sums, gaussian_attention, value_moments

RNG = np.random.default_rng(0)
K, V, Q = RNG.standard_normal((90, 3)), RNG.standard_normal((90, 2)), RNG.standard_normal((6, 3))
LABELS = np.arange(90) % 3
BETA = 0.6


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=list(KERNELS))
def test_hermite_expansion_of_each_cluster(kernel):
    log_z, output = gaussian_attention(Q, value_moments(K, V, LABELS, 3), kernel, BETA)
    for i, q in enumerate(Q):
        z, total = 0.0, np.zeros(2)
        for a in range(3):
            s, v = BETA * K[a == LABELS] @ q, V[a == LABELS]
            m, variance = s.mean(keepdims=True), s.var(keepdims=True)
            by_mean, by_variance = kernel.derivatives(m, variance)
            t = s - m
            value = v + by_mean * t[:, None] * v + by_variance * (t**2 - variance)[:, None] * v
            mass = len(s) * np.exp(kernel.log_expectation(m, variance)[0])
            z += mass
            total += mass * value.mean(axis=0)
        assert_allclose(log_z[i], np.log(z))
        assert_allclose(output[i], total / z)


def test_no_weight_is_uniform():
    keys = np.pad(K[:, :2], [(0, 0), (0, 1)])
    log_z, output = gaussian_attention(np.eye(3)[2:], value_moments(keys, V, LABELS, 3), KERNELS["squared"], 1.0)
    assert log_z[0] == -np.inf
    assert_allclose(output[0], V.mean(axis=0))


def test_running_sums(monkeypatch):
    monkeypatch.setattr("sklearn_attnembed._core.linear_attention._CHUNK", 7)
    queries = RNG.standard_normal((90, 3))
    sums = np.concatenate(list(causal_squared_sums(queries, K, V)))
    for i in range(90):
        squares = np.square(K[: i + 1] @ queries[i])
        assert_allclose(sums[i], [*(squares @ V[: i + 1]), squares.sum()])
