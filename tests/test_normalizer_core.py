"""Normalisers of the core: gradients, limits and the exact twin."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp

from sklearn_attnembed._core.kernels import KERNELS
from sklearn_attnembed._core.normalizers import NORMALIZERS
from sklearn_attnembed._core.normalizers.exact import exact_attention, exact_field
from sklearn_attnembed._core.normalizers.mixture import gaussian_field, gaussian_log_mass
from sklearn_attnembed._core.normalizers.neighbors import AttendedKeys, NearKeys, neighbor_field
from sklearn_attnembed._core.statistics import block_statistics

RNG = np.random.default_rng(0)
KEYS = RNG.standard_normal((80, 5)) / 2
X = RNG.standard_normal((9, 5))
LABELS = RNG.integers(0, 3, 80)
STATISTICS = block_statistics(KEYS, None, LABELS, 3)
ROWS = np.arange(9)
KINDS = pytest.mark.parametrize("name", KERNELS)


def naive_log_z(X, keys, kernel, beta, weights=1.0):
    return logsumexp(kernel.log_value(beta * X @ keys.T), b=weights, axis=1)


@KINDS
def test_one_cluster_per_key_is_exact(name):
    statistics = block_statistics(KEYS, None, np.arange(80), 80)
    log_z = logsumexp(gaussian_log_mass(X, statistics, KERNELS[name], 0.7), axis=1)
    assert_allclose(log_z, naive_log_z(X, KEYS, KERNELS[name], 0.7), rtol=1e-9)


def test_squared_is_exact_with_any_clusters():
    log_z = logsumexp(gaussian_log_mass(X, STATISTICS, KERNELS["squared"], 2.0), axis=1)
    assert_allclose(log_z, naive_log_z(X, KEYS, KERNELS["squared"], 2.0), rtol=1e-10)


@KINDS
def test_gaussian_gradient(name):
    beta, h = 0.8, 1e-6
    field = gaussian_field(STATISTICS, beta, KERNELS[name])
    log_z, gradient = field(X, ROWS)
    assert_allclose(log_z, logsumexp(gaussian_log_mass(X, STATISTICS, KERNELS[name], beta), axis=1), rtol=1e-12)
    for axis in range(5):
        step = h * np.eye(5)[axis]
        slope = (field(X + step, ROWS)[0] - field(X - step, ROWS)[0]) / (2 * h)
        assert_allclose(beta * gradient[:, axis], slope, rtol=1e-5, atol=1e-8)


def test_softmax_field_gradient():
    beta, h = 3.0, 1e-6
    field = exact_field(KEYS, None, beta)
    gradient = field(X, ROWS)[1]
    for axis in range(5):
        step = h * np.eye(5)[axis]
        slope = (field(X + step, ROWS)[0] - field(X - step, ROWS)[0]) / (2 * h)
        assert_allclose(beta * gradient[:, axis], slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("with_self", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n_clusters", [1, 3])
def test_near_keys_and_all_others_are_all(n_clusters, weighted, with_self):
    """With every key in the sample value and gradient are exact, whatever is near."""
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.5, 2, len(KEYS)) if weighted else None
    labels = np.arange(len(KEYS)) % n_clusters
    statistics = block_statistics(KEYS, weights, labels, n_clusters)
    nearest = np.array([rng.choice(len(KEYS), 6, replace=False) for _ in X])
    near = NearKeys(nearest, [np.flatnonzero(labels == a) for a in range(n_clusters)], labels)
    value, gradient = neighbor_field(AttendedKeys(statistics, KEYS, weights, 2.0, None, with_self), near)(X, ROWS)
    expected = exact_field(KEYS, weights, 2.0, with_self)(X, ROWS)
    assert_allclose(value, expected[0], atol=1e-4)
    assert_allclose(gradient, expected[1], atol=1e-4)


@KINDS
@pytest.mark.parametrize("weighted", [False, True])
def test_exact_streams_over_keys(name, weighted, monkeypatch):
    """Keys in many blocks give what one sum gives, and weights count as repetitions."""
    rng = np.random.default_rng(0)
    monkeypatch.setattr("sklearn_attnembed._core.normalizers.exact._BLOCK_ELEMENTS", 50)
    counts = rng.integers(1, 4, 80) if weighted else np.ones(80, int)
    log_weights = np.log(counts) if weighted else None
    values = rng.standard_normal((80, 3))
    log_z, output = exact_attention(X, KEYS, values, KERNELS[name], 1.3, log_weights)
    f = counts * np.exp(KERNELS[name].log_value(1.3 * X @ KEYS.T))
    assert_allclose(log_z, np.log(f.sum(axis=1)), rtol=1e-12)
    assert_allclose(output, f @ values / f.sum(axis=1, keepdims=True), rtol=1e-10)


def test_query_without_scores_attends_uniformly():
    keys, values = np.eye(3)[:2], np.array([[1.0], [5.0]])
    log_z, output = exact_attention(np.eye(3)[2:], keys, values, KERNELS["squared"], 1.0)
    assert log_z[0] == -np.inf
    assert output[0, 0] == 3


def test_nearest_keys_make_sharp_attention_accurate():
    rng = np.random.default_rng(0)
    keys = np.repeat(rng.standard_normal((20, 40)), 20, axis=0) + 0.3 * rng.standard_normal((400, 40))
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    statistics, beta, rows = block_statistics(keys), 10.0, np.arange(400)
    exact = exact_attention(keys, keys, None, KERNELS["softmax"], beta)[0]
    mixture = gaussian_field(statistics, beta)(keys, rows)[0]
    errors = [np.median(np.abs(mixture - exact))]
    for n_exact in (10, 100):
        near = np.argsort(-keys @ keys.T, axis=1)[:, :n_exact]
        lists = NearKeys(near, [np.arange(0, 400, 2)], None)
        log_z = neighbor_field(AttendedKeys(statistics, keys, None, beta), lists)(keys, rows)[0]
        errors.append(np.median(np.abs(log_z - exact)))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.1


def test_no_overflow():
    """Scores of a million, from norms of 1e3 at temperature 1 or 1e2 at 0.01."""
    big = KEYS * 1e3
    log_z = exact_attention(big[:4], big, None, KERNELS["softmax"], 1.0)[0]
    assert np.all(np.isfinite(log_z))
    assert np.all(np.isfinite(gaussian_log_mass(big[:4], block_statistics(big), KERNELS["softmax"], 1.0)))


@pytest.mark.parametrize("name", ["gaussian", "neighbors", "exact"])
def test_fields_of_the_registry(name):
    """The entry of each method that embeddings can have is its field; without near keys all are summed."""
    weights = np.random.default_rng(0).uniform(0.5, 2, len(KEYS))
    statistics = block_statistics(KEYS, weights)
    near = NearKeys(np.argsort(-X @ KEYS.T, axis=1)[:, :10], [np.arange(0, len(KEYS), 2)], None)
    fields = {
        "gaussian": gaussian_field(statistics, 2.0),
        "neighbors": neighbor_field(AttendedKeys(statistics, KEYS, weights, 2.0), near),
        "exact": exact_field(KEYS, weights, 2.0),
    }
    attended = AttendedKeys(statistics, KEYS, weights, 2.0, near)
    for ours, theirs in zip(NORMALIZERS[name].field(attended)(X, ROWS), fields[name](X, ROWS), strict=True):
        assert_array_equal(ours, theirs)
    unsearched = NORMALIZERS["neighbors"].field(attended._replace(near=None))(X, ROWS)
    assert_array_equal(unsearched[1], fields["exact"](X, ROWS)[1])


def test_methods_without_a_gradient_are_not_for_embeddings():
    assert {name for name, method in NORMALIZERS.items() if method.field} == {
        "gaussian",
        "neighbors",
        "sampling",
        "exact",
    }
