"""NormalizerEstimator: exact twin, bounds, limits, degenerate keys, precision, grid search."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp
from sklearn.model_selection import GridSearchCV

from sklearn_attnembed import NormalizerEstimator
from sklearn_attnembed._core.kernels import KERNELS
from sklearn_attnembed.metrics import log_normalizer_exact, relative_error

RNG = np.random.default_rng(0)
CENTERS = RNG.standard_normal((5, 20)) / 6
KEYS = CENTERS[RNG.integers(0, 5, 3000)] + RNG.standard_normal((3000, 20)) / 6
QUERIES = RNG.standard_normal((50, 20)) / 4
KINDS = pytest.mark.parametrize("kernel", KERNELS)


@KINDS
@pytest.mark.parametrize(("n_clusters", "bound"), [(1, 0.02), (8, 0.01)])
def test_close_to_the_exact_value(kernel, n_clusters, bound):
    model = NormalizerEstimator(kernel, n_clusters=n_clusters, random_state=0).fit(KEYS)
    exact = NormalizerEstimator(kernel, method="exact").fit(KEYS).score_samples(QUERIES)
    assert_allclose(exact, log_normalizer_exact(QUERIES, KEYS, kernel=kernel), rtol=1e-12)
    assert np.median(relative_error(model.score_samples(QUERIES), exact)) < (1e-10 if kernel == "squared" else bound)


@KINDS
@pytest.mark.parametrize("method", ["gaussian", "exact"])
def test_transform_is_the_mass_of_clusters(kernel, method):
    model = NormalizerEstimator(kernel, method=method, n_clusters=4, random_state=0).fit(KEYS)
    log_mass = model.transform(QUERIES)
    assert log_mass.shape == (50, 4)
    assert_allclose(logsumexp(log_mass, axis=1), model.score_samples(QUERIES))
    exact = [log_normalizer_exact(QUERIES, KEYS[model.labels_ == a], kernel=kernel) for a in range(4)]
    assert_allclose(log_mass, np.transpose(exact), rtol=1e-9 if method == "exact" else 0.05)


def test_fitted_attributes_are_moments():
    model = NormalizerEstimator(n_clusters=3, random_state=0).fit(KEYS)
    for a in range(3):
        members = KEYS[model.labels_ == a]
        assert model.weights_[a] == len(members)
        assert_allclose(model.means_[a], members.mean(axis=0))
        assert_allclose(model.covariances_[a], np.cov(members.T, bias=True))


def test_score_is_minus_the_mean_error():
    model = NormalizerEstimator(temperature=0.3).fit(KEYS)
    error = model.score_samples(QUERIES) - log_normalizer_exact(QUERIES, KEYS, temperature=0.3)
    assert_allclose(model.score(QUERIES), -np.abs(error).mean())
    assert NormalizerEstimator(method="exact").fit(KEYS).score(QUERIES) == 0


def test_grid_search_over_clusters():
    search = GridSearchCV(NormalizerEstimator(temperature=0.25, random_state=0), {"n_clusters": [1, 5]}, cv=3).fit(KEYS)
    assert search.best_params_ == {"n_clusters": 5}


@pytest.mark.parametrize(
    "change", [{"temperature": 0.5}, {"n_clusters": 5}, {"method": "exact"}, {"kernel": "squared"}], ids=str
)
def test_every_parameter_reaches_the_computation(change):
    base, changed = (NormalizerEstimator(**params).fit(KEYS).score_samples(QUERIES) for params in ({}, change))
    assert np.abs(base - changed).max() > 1e-5


def test_rotation_and_order_change_nothing():
    turn = np.linalg.qr(RNG.standard_normal((20, 20)))[0]
    expected = NormalizerEstimator().fit(KEYS).score_samples(QUERIES)
    assert_allclose(NormalizerEstimator().fit(KEYS[::-1] @ turn).score_samples(QUERIES @ turn), expected)


@pytest.mark.parametrize("n_clusters", [1, 4])
@pytest.mark.parametrize("method", ["gaussian", "exact"])
def test_threads_change_no_bit(n_clusters, method):
    one, two = (
        NormalizerEstimator(method=method, n_clusters=n_clusters, n_jobs=n_jobs, random_state=0)
        .fit(KEYS)
        .score_samples(QUERIES)
        for n_jobs in (1, 2)
    )
    assert one.tobytes() == two.tobytes()


@KINDS
def test_float32_is_close(kernel):
    single = NormalizerEstimator(kernel, n_clusters=3, random_state=0).fit(KEYS.astype(np.float32))
    double = NormalizerEstimator(kernel, n_clusters=3, random_state=0).fit(KEYS)
    assert_allclose(single.score_samples(QUERIES.astype(np.float32)), double.score_samples(QUERIES), atol=1e-4)
    assert single.transform(QUERIES.astype(np.float32)).dtype == np.float32


@KINDS
@pytest.mark.parametrize("method", ["gaussian", "exact"])
@pytest.mark.parametrize(
    "keys",
    [KEYS[:1], KEYS[:3], np.repeat(KEYS[:2], 5, axis=0), KEYS[:, :1], KEYS * 1e3],
    ids=["one key", "fewer than clusters", "duplicated", "one column", "norms of 1e3"],
)
@pytest.mark.parametrize("temperature", [1.0, 0.01])
def test_degenerate_keys(kernel, method, keys, temperature):
    model = NormalizerEstimator(kernel, method=method, n_clusters=4, temperature=temperature, random_state=0).fit(keys)
    queries = QUERIES[:, : keys.shape[1]]
    log_z = model.score_samples(queries)
    assert np.all(np.isfinite(log_z))
    assert np.all(model.weights_ > 0)
    if len(np.unique(keys, axis=0)) <= 4:  # a cluster each: the limit in which the mixture is exact
        assert_allclose(log_z, log_normalizer_exact(queries, keys, kernel=kernel, temperature=temperature), rtol=1e-6)


@pytest.mark.parametrize("kernel", ["squared", "expressive"])
def test_orthogonal_query_has_no_mass(kernel):
    model = NormalizerEstimator(kernel).fit(np.eye(3)[:2])
    assert_array_equal(model.score_samples(np.eye(3)[2:]), -np.inf)
    assert np.all(np.isfinite(model.transform(np.eye(3)[2:])))
    assert model.score(np.eye(3)[2:]) == 0
