"""The registry of normalizers, their evaluation in blocks, and near keys against loops."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_attnembed._core.inverted_index import build_cells, n_keys_scanned
from sklearn_attnembed._core.kernels import KERNELS, SOFTMAX, SQUARED, as_kernel
from sklearn_attnembed._core.key_sketch import Plan
from sklearn_attnembed._core.normalizers import NORMALIZERS
from sklearn_attnembed._core.normalizers.control_variate import control_variate_estimate, no_terms
from sklearn_attnembed._core.normalizers.evaluation import estimate, exact_log_z, fitted_keys, log_masses
from sklearn_attnembed._core.normalizers.mixture import scaled_moments, score_moments
from sklearn_attnembed._core.normalizers.neighbors import AttendedKeys, NearKeys, neighbor_field, terms_of_probed_cells
from sklearn_attnembed._core.sketching import sketch_keys
from sklearn_attnembed._core.statistics import block_statistics
from sklearn_attnembed._sklearn import cluster_centers

RNG = np.random.default_rng(0)
KEYS, X = RNG.standard_normal((900, 3)) / 2, RNG.standard_normal((30, 3)) / 2
WEIGHTS = RNG.uniform(0.5, 2, 900)
ACCURATE = ("gaussian", "control_variate", "neighbors", "exact")
METHODS = pytest.mark.parametrize("method", NORMALIZERS)


def plan(**changes):
    settings = {"kernel": SOFTMAX, "beta": 1.3, "method": "control_variate", "n_clusters": 1, "seed": 0}
    settings |= {"covariance_type": "full", "n_samples": 40, "n_exact": 4, "n_heavy": 0, "n_components": 10}
    return Plan(**{**settings, **changes})


def fitted(keys=KEYS, weights=WEIGHTS, **changes):
    chosen = plan(**changes)
    sketch, labels = sketch_keys(keys, weights, chosen, cluster_centers, map)
    return fitted_keys(chosen, sketch, keys, weights, labels)


def exact(X, keys=KEYS, weights=WEIGHTS, kernel="softmax"):
    return np.log(np.exp(KERNELS[kernel].log_value(1.3 * X @ keys.T)) @ weights)


def test_cost_in_multiplications():
    chosen, n, d = plan(n_clusters=3, n_samples=50, n_exact=16, n_components=200), 10_000, 8
    mixture, sample = 2 * 4 * 64, 150 * 56
    scanned = min(n_keys_scanned(16), n) * 46
    expected = {"gaussian": mixture, "control_variate": mixture + sample, "sampling": mixture + sample}
    expected |= {"neighbors": mixture + sample + scanned + n / 256 * 16, "exact": n * 26}
    expected |= dict.fromkeys(("random_fourier", "positive_features"), 200 * 56)
    assert {name: normalizer.cost(chosen, n, d) for name, normalizer in NORMALIZERS.items()} == expected


def test_kernels_of_a_method():
    assert NORMALIZERS["random_fourier"].is_defined_for(SOFTMAX)
    assert not NORMALIZERS["positive_features"].is_defined_for(SQUARED)
    assert not NORMALIZERS["positive_features"].is_defined_for(as_kernel(np.exp))
    assert NORMALIZERS["gaussian"].is_defined_for(SQUARED)


@METHODS
def test_blocks_change_nothing(method):
    """Every block size gives the same, and every row of the queries is computed."""
    model = fitted(method=method, n_components=300)
    blocks = [NORMALIZERS[method].block_rows(model, n) for n in (1, 30, 10_000)]
    assert min(blocks) >= 8
    log_z, error = estimate(model, X, map, True)
    one = [estimate(model, X[i : i + 1], map, True) for i in range(30)]
    assert_allclose(log_z, np.concatenate([part[0] for part in one]), rtol=1e-10)
    assert_allclose(error, np.concatenate([part[1] for part in one]), rtol=1e-6, atol=1e-12)
    assert_allclose(exact_log_z(model, X, map), exact(X))
    if method in ACCURATE:
        assert np.abs(log_z - exact(X)).max() < 0.1


@METHODS
@pytest.mark.parametrize("n_heavy", [0, 9, 900])
def test_heavy_keys_are_summed_exactly(method, n_heavy):
    model = fitted(method=method, n_heavy=n_heavy)
    log_z, error = estimate(model, X, map, True)
    if n_heavy == 900:
        assert_allclose(log_z, exact(X))
        assert_allclose(error, 0)
    elif method == "gaussian":
        order = np.argsort(-WEIGHTS * np.exp(1.3 * np.sum(KEYS**2, axis=1)))
        light, heavy = order[n_heavy:], order[:n_heavy]
        statistics = block_statistics(KEYS[light], WEIGHTS[light])
        mean, variance = 1.3 * X @ statistics.mean[0], 1.69 * np.sum(X @ statistics.covariance[0] * X, axis=1)
        z = statistics.weight[0] * np.exp(mean + variance / 2)
        assert_allclose(log_z, np.log(z + np.exp(1.3 * X @ KEYS[heavy].T) @ WEIGHTS[heavy]))


@METHODS
@pytest.mark.parametrize("n_heavy", [0, 9])
def test_masses_sum_to_z(method, n_heavy):
    model = fitted(method=method, n_heavy=n_heavy, n_clusters=3)
    masses = log_masses(model, X, map)
    assert masses.shape == (30, 3)
    assert_allclose(np.logaddexp.reduce(masses, axis=1), estimate(model, X, map)[0])
    nearest = np.argmin(((KEYS[:, None] - model.sketch.centers) ** 2).sum(axis=2), axis=1)
    each = np.stack([exact(X, KEYS[nearest == a], WEIGHTS[nearest == a]) for a in range(3)], axis=1)
    if method == "exact":
        assert_allclose(masses, each)
    elif method in ACCURATE:
        assert_allclose(masses, each, atol=0.1)


def test_mass_of_one_cluster_is_z():
    for method in ("exact", "gaussian"):
        model = fitted(method=method)
        assert_allclose(log_masses(model, X, map), estimate(model, X, map)[0][:, None])


def test_a_smooth_method_is_split_as_the_mixture_is():
    gaussian, sampled = (log_masses(fitted(method=m, n_clusters=3), X, map) for m in ("gaussian", "control_variate"))
    difference = gaussian - sampled
    assert_allclose(difference, difference[:, :1] * np.ones(3), atol=1e-10)
    assert np.abs(difference).max() > 0


def test_errors_of_the_mixture_are_those_of_the_sample():
    model = fitted(method="gaussian", n_samples=300)
    log_z, error = estimate(model, X, map, True)
    assert_array_equal(estimate(model, X, map)[1], 0)
    assert np.mean(np.abs(log_z - exact(X)) < 2 * error) > 0.7
    assert len(model.sample.keys) == 300
    assert len(fitted(method="gaussian", n_clusters=2).sample.keys) == 40
    assert len(fitted(method="sampling", n_clusters=2).sample.keys) == 80


# Near keys -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
def test_terms_of_probed_cells_are_loops(weights, monkeypatch):
    monkeypatch.setattr("sklearn_attnembed._core.normalizers.neighbors._BLOCK_ELEMENTS", 900)
    labels = np.arange(900) % 2
    cells = build_cells(KEYS, np.arange(900), labels, lambda points, k: points[:k], map)
    probed = RNG.random((30, len(cells.centers))) < 0.6
    probed[3] = False
    mean = RNG.standard_normal((30, 2))
    log_weights = None if weights is None else np.log(weights)
    known = terms_of_probed_cells(X, KEYS, log_weights, cells, probed, SOFTMAX, 2.0, mean)
    w = np.ones(900) if weights is None else weights
    for i, x in enumerate(X):
        z, sums = 0.0, np.zeros((3, 2))
        for c in np.flatnonzero(probed[i]):
            for j in cells.order[cells.starts[c] : cells.starts[c + 1]]:
                score = 2 * x @ KEYS[j]
                z += w[j] * np.exp(score)
                sums[:, labels[j]] += w[j] * (score - mean[i, labels[j]]) ** np.arange(3)
        with np.errstate(divide="ignore"):
            assert_allclose(known.log_mass[i], np.log(z))
        assert_allclose([known.zeroth[i], known.first[i], known.second[i]], sums, atol=1e-12)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("beta", [1.0, 4.0])
def test_far_keys_are_a_regression_in_each_cluster(beta, weights):
    w, labels = np.ones(900) if weights is None else weights, np.arange(900) % 2
    statistics = block_statistics(KEYS, weights, labels, 2)
    nearest = np.argsort(-X @ KEYS.T, axis=1)[:, :6]
    sample = [np.flatnonzero(labels == a)[::5] for a in range(2)]
    near = NearKeys(nearest, sample, labels)
    log_z, gradient = neighbor_field(AttendedKeys(statistics, KEYS, weights, beta), near)(X, slice(None))
    for i, x in enumerate(X):
        scores = beta * KEYS @ x
        z, total = w[nearest[i]] @ np.exp(scores[nearest[i]]), (w * np.exp(scores))[nearest[i]] @ KEYS[nearest[i]]
        for a in range(2):
            far = np.setdiff1d(np.flatnonzero(labels == a), nearest[i])
            rest, s = w[far].sum(), scores[far]
            center = np.average(s, weights=w[far])
            scale = np.sqrt(np.average((s - center) ** 2, weights=w[far]))
            drawn = np.setdiff1d(sample[a], nearest[i])
            t, f, u = (scores[drawn] - center) / scale, np.exp(scores[drawn]), w[drawn] / w[drawn].sum()
            A = np.stack([np.ones(len(t)), t, t * t], axis=1)
            normal, target = A.T @ (u[:, None] * A) + 1e-6 * np.eye(3), A.T @ (u * f)
            value = np.linalg.solve(normal, target)[[0, 2]].sum()
            level, slope = np.linalg.solve(normal[:2, :2], target[:2])
            if value <= np.exp(center):
                z += rest * np.exp(center)
                total += rest * np.exp(center) * np.average(KEYS[far], axis=0, weights=w[far])
                continue
            z += rest * value
            # The weighted mean of f y over far keys: the line over all of them, the residuals over the sample.
            line = level + slope * (s - center) / scale
            total += (w[far] * line) @ KEYS[far] + rest * (u * (f - level - slope * t)) @ KEYS[drawn]
        assert_allclose(log_z[i], np.log(z), rtol=1e-7)
        assert_allclose(gradient[i], total / z, rtol=1e-6, atol=1e-9)


def test_error_of_the_mixture_is_three_parts():
    """Its distance from the sample without the query, that estimate's error, and the term the query may have itself."""
    model = fitted(method="gaussian", n_samples=100)
    queries = model.sample.keys[:20]
    log_z, error = estimate(model, queries, map, True)
    statistics = model.sketch.statistics
    moments = statistics.weight, *score_moments(queries, scaled_moments(statistics, 1.3))
    known = no_terms(moments[1], np.arange(100) == np.arange(20)[:, None])
    scores = 1.3 * queries @ model.sample.keys.T
    sampled, noise = control_variate_estimate(
        scores, model.sample, model.sampling_weight, SOFTMAX, moments, known=known
    )
    own = 1.3 * np.sum(queries**2, axis=1) + np.mean(np.log(model.sample.weight)) - sampled
    parts = log_z - sampled, noise, np.log1p(np.exp(own))
    assert_allclose(error, np.sqrt(sum(np.square(part) for part in parts)))


def test_what_each_normalizer_needs():
    flags = {
        "is_exact": {"exact"},
        "keeps_keys": {"exact", "neighbors"},
        "uses_sample": {"control_variate", "sampling", "neighbors"},
        "has_hash_index": {"control_variate", "sampling"},
        "has_cells": {"neighbors"},
    }
    for flag, names in flags.items():
        assert {name for name, normalizer in NORMALIZERS.items() if getattr(normalizer, flag)} == names


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_weights_of_any_size_have_the_same_field(factor):
    """Weights that are all multiplied by one number add its logarithm to log Z."""
    labels = np.arange(900) % 2
    near = NearKeys(np.argsort(-X @ KEYS.T, axis=1)[:, :6], [np.arange(0, 900, 10), np.arange(1, 900, 10)], labels)
    fields = []
    for weights in (WEIGHTS, factor * WEIGHTS):
        attended = AttendedKeys(block_statistics(KEYS, weights, labels, 2), KEYS, weights, 2.0)
        fields.append(neighbor_field(attended, near)(X, slice(None)))
    assert_allclose(fields[1][0], fields[0][0] + np.log(factor), rtol=1e-9)
    assert_allclose(fields[1][1], fields[0][1], rtol=1e-6, atol=1e-9)


def test_cluster_whose_keys_are_all_near():
    labels = np.where(np.arange(900) < 4, 1, 0)
    others = np.argsort(-X @ KEYS[4:].T, axis=1)[:, :3] + 4
    near = NearKeys(np.hstack([np.tile(np.arange(4), (30, 1)), others]), [np.arange(4, 900), np.arange(4)], labels)
    attended = AttendedKeys(block_statistics(KEYS, WEIGHTS, labels, 2), KEYS, WEIGHTS, 1.0)
    log_z, gradient = neighbor_field(attended, near)(X, slice(None))
    terms = WEIGHTS * np.exp(X @ KEYS.T)
    assert_allclose(log_z, np.log(terms.sum(axis=1)), atol=1e-4)
    assert_allclose(gradient, terms @ KEYS / terms.sum(axis=1, keepdims=True), atol=1e-3)
