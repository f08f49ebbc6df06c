"""NormalizerEstimator: exact twin, limits, error bars, chunks, weights, degenerate keys, precision, grid search."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit, logsumexp
from sklearn.model_selection import GridSearchCV

from sklearn_attnembed import NormalizerEstimator
from sklearn_attnembed._core.kernels import KERNELS
from sklearn_attnembed.metrics import log_normalizer_exact, relative_error

RNG = np.random.default_rng(0)
CENTERS = RNG.standard_normal((5, 20)) / 6
KEYS = CENTERS[RNG.integers(0, 5, 3000)] + RNG.standard_normal((3000, 20)) / 6
QUERIES = RNG.standard_normal((50, 20)) / 4
# More keys than any sample or reach below.
MANY = CENTERS[RNG.integers(0, 5, 12000)] + RNG.standard_t(5, (12000, 20)) / 6
WEIGHTS = RNG.uniform(0, 2, 3000)
WEIGHTS[:100] = 0
METHODS = ["gaussian", "control_variate", "sampling", "neighbors", "random_fourier", "positive_features", "exact"]
SMOOTH = [method for method in METHODS if method not in ("neighbors", "exact")]
EVERY_KERNEL = [*KERNELS, expit]
KINDS = pytest.mark.parametrize("kernel", KERNELS)
EVERY_METHOD = pytest.mark.parametrize("method", METHODS)
DEFINED = pytest.mark.parametrize(
    ("kernel", "method"),
    [
        (k, m)
        for k in EVERY_KERNEL
        for m in METHODS
        if k == "softmax" or m not in ("random_fourier", "positive_features")
    ],
)


def make(method="gaussian", kernel="softmax", **params):
    return NormalizerEstimator(kernel, method=method, **{"random_state": 0, "n_samples": 200, "n_exact": 4, **params})


def error(model, queries=QUERIES, keys=MANY, **params):
    exact = log_normalizer_exact(queries, keys, kernel=model.kernel, temperature=model.temperature, **params)
    return np.median(relative_error(model.score_samples(queries), exact))


@DEFINED
@pytest.mark.parametrize("n_clusters", [1, 4])
def test_close_to_the_exact_value(kernel, method, n_clusters):
    bound = {"exact": 1e-12, "sampling": 0.1, "random_fourier": 0.3, "positive_features": 0.1}.get(method, 0.02)
    assert error(make(method, kernel, n_clusters=n_clusters).fit(MANY)) < bound


def test_squared_is_exact_by_the_mixture():
    assert error(make(kernel="squared", n_clusters=3).fit(MANY)) < 1e-10


def test_each_method_beats_the_cheaper_one():
    methods = ("sampling", "gaussian", "control_variate", "neighbors")
    errors = [error(make(method, temperature=0.5, n_samples=1000, n_exact=16).fit(MANY)) for method in methods]
    assert errors[0] > 1.5 * errors[1]
    assert errors[1] > 1.5 * errors[2]
    assert errors[2] > 1.5 * errors[3]


@pytest.mark.parametrize("method", ["control_variate", "sampling", "neighbors"])
def test_more_is_more_accurate(method):
    name, values = ("n_exact", (1, 60)) if method == "neighbors" else ("n_samples", (50, 2000))
    few, many = (error(make(method, temperature=0.2, **{name: value}).fit(MANY)) for value in values)
    assert few > 2 * many


@DEFINED
def test_transform_is_the_mass_of_clusters(kernel, method):
    model = make(method, kernel, n_clusters=4).fit(KEYS)
    log_mass = model.transform(QUERIES)
    assert log_mass.shape == (50, 4)
    assert_allclose(logsumexp(log_mass, axis=1), model.score_samples(QUERIES))
    if method in ("exact", "gaussian"):
        exact = [log_normalizer_exact(QUERIES, KEYS[model.labels_ == a], kernel=kernel) for a in range(4)]
        assert_allclose(log_mass, np.transpose(exact), rtol=1e-9 if method == "exact" else 0.05)


def test_fitted_attributes_are_moments():
    full, diagonal = (make(n_clusters=3, covariance_type=kind).fit(KEYS) for kind in ("full", "diag"))
    for a in range(3):
        members = KEYS[full.labels_ == a]
        assert full.weights_[a] == len(members)
        assert_allclose(full.means_[a], members.mean(axis=0))
        assert_allclose(full.covariances_[a], np.cov(members.T, bias=True))
        assert_allclose(diagonal.covariances_[a], members.var(axis=0))
    assert full.get_feature_names_out().tolist() == [f"normalizerestimator{a}" for a in range(3)]


@pytest.mark.parametrize("method", ["gaussian", "control_variate", "neighbors"])
def test_diagonal_covariances(method):
    """Exact for keys of independent columns, and never a bias of control variates."""
    keys = np.random.default_rng(0).standard_normal((8000, 4)) / 2
    turned = keys @ np.linalg.qr(np.random.default_rng(1).standard_normal((4, 4)))[0] * [1, 2, 0.5, 0.1]
    model = make(method, covariance_type="diag").fit(keys)
    assert error(model, keys[:200], keys) < 0.01
    assert error(make(method, covariance_type="diag").fit(turned), turned[:200], turned) < 0.05


@DEFINED
def test_one_cluster_per_key_is_exact(kernel, method):
    if method in ("gaussian", "control_variate", "sampling", "neighbors"):
        model = make(method, kernel, n_clusters=60, temperature=0.5).fit(KEYS[:60])
        assert error(model, keys=KEYS[:60]) < 1e-9


@pytest.mark.parametrize("function", [expit, np.exp, np.square, np.abs, lambda s: 1 / (1 + s * s)], ids=str)
@pytest.mark.parametrize("copies", [1, 3])
def test_cluster_of_one_key(function, copies):
    """Its scores have no variance: a regression on them has nothing to say."""
    rng = np.random.default_rng(0)
    keys = np.concatenate([rng.standard_normal((8000, 2)), np.full((copies, 2), 60.3)])
    queries = 3 * rng.standard_normal((300, 2))
    model = make("neighbors", function, n_clusters=3, temperature=10).fit(keys)
    assert copies in model.weights_
    log_z, std = model.score_samples(queries, return_std=True)
    gap = np.abs(log_z - model.score_samples_exact(queries))
    assert np.all(gap < 0.03)
    assert np.all(gap < 10 * std)


@pytest.mark.parametrize("method", ["control_variate", "sampling", "neighbors"])
def test_all_keys_drawn_or_reached_is_exact(method):
    model = make(method, n_samples=3000, n_exact=3000, temperature=0.1).fit(KEYS)
    log_z, std = model.score_samples(QUERIES, return_std=True)
    exact = model.score_samples_exact(QUERIES)
    assert_allclose(log_z, exact, rtol=1e-9)
    assert np.all(np.abs(log_z - exact) < 1.96 * std)
    assert np.all(std < 1e-6)


@pytest.mark.parametrize("method", ["control_variate", "sampling"])
def test_own_key_is_known(method):
    """At sharp temperatures a key's own term outweighs all that a sample can see."""
    unit = MANY / np.linalg.norm(MANY, axis=1, keepdims=True)
    model = make(method, temperature=0.02).fit(unit)
    assert error(model, unit[:100].astype(np.float32), unit) < 0.01
    assert error(model, unit[:100] + 0.01, unit) > 0.5


# Error bars ------------------------------------------------------------------------------------------
@EVERY_METHOD
@pytest.mark.parametrize("apart", [False, True])
def test_error_bars_cover(method, apart):
    keys = MANY[2000:]
    queries = MANY[:2000] if apart else keys[:2000]
    model = make(method, n_components=100).fit(keys)
    log_z, std = model.score_samples(queries, return_std=True)
    assert_array_equal(log_z, model.score_samples(queries))
    exact = log_normalizer_exact(queries, keys)
    if method == "exact":
        assert_array_equal(std, 0)
    else:
        assert 0.9 < np.mean(np.abs(log_z - exact) <= 1.96 * std) < 0.98


def test_error_bars_without_the_keys():
    """After partial_fit they are not scaled: too wide rather than too narrow."""
    model = make("control_variate").partial_fit(MANY)
    log_z, std = model.score_samples(MANY[:1000], return_std=True)
    covered = np.mean(np.abs(log_z - log_normalizer_exact(MANY[:1000], MANY)) < 1.96 * std)
    assert covered > 0.85
    assert np.all(np.isfinite(std))


def test_error_bars_leave_the_estimator_alone():
    def state():
        """Bytes of all that was fitted, so that a number changed in place shows too."""
        return pickle.dumps({name: value for name, value in vars(model).items() if name != "_scale"})

    model = make().fit(KEYS)
    before = state()
    first = model.score_samples(QUERIES, return_std=True)[1]
    assert state() == before
    assert_array_equal(model.score_samples(QUERIES, return_std=True)[1], first)
    assert_array_equal(pickle.loads(pickle.dumps(model)).score_samples(QUERIES, return_std=True)[1], first)


# Auto ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kernel", ["softmax", "expressive", expit])
@pytest.mark.parametrize("temperature", [1.0, 0.2, 0.05])
def test_auto_keeps_its_promise(kernel, temperature):
    for tol in (0.1, 1e-3):
        model = make("auto", kernel, tol=tol, temperature=temperature).fit(MANY)
        assert model.estimated_error_ <= tol
        assert error(model, MANY[:500]) < 1.3 * tol


def test_auto_takes_the_cheapest():
    keys = np.random.default_rng(0).gamma(2, size=(12000, 20)) / 12  # skewed: no few Gaussians will do
    asked = ((1, 0.1), (0.2, 1e-2), (0.1, 0.02), (0.1, 1e-4))
    models = [make("auto", temperature=temperature, tol=tol).fit(keys) for temperature, tol in asked]
    assert [model.method_ for model in models] == ["gaussian", "control_variate", "neighbors", "exact"]
    for model in models:
        found = {"n_clusters": model.n_clusters_, "n_samples": model.n_samples_, "n_exact": model.n_exact_}
        by_hand = make(model.method_, temperature=model.temperature, **found).fit(keys)
        assert_array_equal(by_hand.score_samples(QUERIES), model.score_samples(QUERIES))


# Chunks ----------------------------------------------------------------------------------------------
def chunked(model, keys, order, weights=None):
    for i in order:
        rows = slice(i * 500, (i + 1) * 500)
        model.partial_fit(keys[rows], sample_weight=None if weights is None else weights[rows])
    return model


@pytest.mark.parametrize("method", SMOOTH)
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("n_heavy", [0, 7])
def test_chunks_give_what_fit_gives(method, weights, n_heavy):
    keys = np.concatenate([KEYS[:2500], KEYS[1000:1500]])  # some keys come twice
    whole = make(method, n_heavy=n_heavy).fit(keys, sample_weight=weights)
    expected = whole.score_samples(QUERIES)
    for order in ([0, 1, 2, 3, 4, 5], [3, 0, 5, 1, 4, 2]):
        model = chunked(make(method, n_heavy=n_heavy), keys, order, weights)
        assert_allclose(model.score_samples(QUERIES), expected, atol=1e-6)
    one, other = (chunked(make(method, n_heavy=n_heavy), keys, part, weights) for part in ([1, 2, 5], [0, 4, 3]))
    assert_allclose(one.merge(other).score_samples(QUERIES), expected, atol=1e-6)
    assert_allclose(one.weights_, whole.weights_)
    assert_allclose(one.covariances_, whole.covariances_, atol=1e-12)


@pytest.mark.parametrize("method", SMOOTH)
@pytest.mark.parametrize("weights", [None, WEIGHTS + 0.1], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("cuts", [[110, 113], [3, 50], [1], range(3, 120, 3), range(1, 120)], ids=str)
def test_chunks_of_no_more_than_the_heavy_keys(method, weights, cuts):
    """Such a chunk has nothing to draw from."""
    chunks = np.split(np.arange(120), cuts)

    def fitted(rows, name="fit"):
        return getattr(model, name)(KEYS[rows], sample_weight=None if weights is None else weights[rows])

    model = make(method, n_heavy=5)
    expected = fitted(np.arange(120)).score_samples(QUERIES)
    model = make(method, n_heavy=5)
    for rows in chunks:
        fitted(rows, "partial_fit")
    assert_allclose(model.score_samples(QUERIES), expected, atol=1e-6)
    shards = []
    for rows in chunks:
        model = make(method, n_heavy=5)
        shards.append(fitted(rows))
    model = shards.pop()
    for shard in shards:
        model.merge(shard)
    assert_allclose(model.score_samples(QUERIES), expected, atol=1e-6)


@pytest.mark.parametrize("method", ["gaussian", "control_variate"])
def test_clusters_of_the_first_chunk_stay(method):
    model = make(method, n_clusters=4).partial_fit(MANY[:3000])
    started = pickle.loads(pickle.dumps(model))
    centers = model._summary.centers
    model.partial_fit(MANY[3000:])
    assert_array_equal(model._summary.centers, centers)
    assert model.weights_.sum() == len(MANY)
    assert error(model) < 0.01
    with_other_clusters = make(method, n_clusters=4, random_state=1).partial_fit(MANY[3000:])
    assert error(started.merge(with_other_clusters)) < 0.01
    assert started.weights_.sum() == len(MANY)


def test_memory_map_stays_one(tmp_path):
    np.save(tmp_path / "keys.npy", MANY.astype(np.float32))
    keys = np.load(tmp_path / "keys.npy", mmap_mode="r")
    for method in ("gaussian", "control_variate", "neighbors"):
        model = make(method).fit(keys)
        assert isinstance(model._keys, np.memmap) or isinstance(model._keys.base, np.memmap)
        assert_allclose(model.score_samples(QUERIES), make(method).fit(MANY).score_samples(QUERIES), atol=1e-4)


# Weights and heavy keys ------------------------------------------------------------------------------
@DEFINED
def test_weights_count_as_copies(kernel, method):
    counts = np.random.default_rng(0).integers(0, 4, len(KEYS))
    weighted = make(method, kernel, n_clusters=2).fit(KEYS, sample_weight=counts)
    repeated = make(method, kernel, n_clusters=2).fit(np.repeat(KEYS, counts, axis=0))
    assert_array_equal(weighted.labels_[counts == 0], -1)
    if method == "neighbors":  # cells of other keys
        assert error(weighted, keys=KEYS, key_weight=counts) < 0.01
    else:
        assert_allclose(weighted.score_samples(QUERIES), repeated.score_samples(QUERIES), atol=1e-9)
        assert_allclose(weighted.transform(QUERIES), repeated.transform(QUERIES), atol=1e-9)


@pytest.mark.parametrize("method", ["control_variate", "sampling"])
def test_rare_heavy_weights_are_drawn(method):
    """Weights over six orders of magnitude, as word counts have: drawn in proportion, they do no harm."""
    weights = 1e6 / np.arange(1, len(MANY) + 1) ** 1.2
    model = make(method).fit(MANY, sample_weight=weights)
    assert error(model, key_weight=weights) < (0.05 if method == "sampling" else 0.005)


@DEFINED
def test_heavy_keys_are_summed_exactly(kernel, method):
    keys = MANY.copy()
    keys[:5] *= 40
    queries = keys[5:55]
    plain, heavy = (make(method, kernel, n_heavy=n_heavy, temperature=0.5).fit(keys) for n_heavy in (0, 5))
    assert plain.weights_.sum() == len(keys)
    assert heavy.weights_.sum() == len(keys) - 5
    assert error(heavy, queries, keys) < 0.1
    if kernel == "softmax" and method in ("gaussian", "control_variate", "sampling"):
        assert error(plain, queries, keys) > 0.5
    assert_allclose(logsumexp(heavy.transform(queries), axis=1), heavy.score_samples(queries))


@EVERY_METHOD
def test_every_key_heavy(method):
    model = make(method, n_heavy=100).fit(KEYS[:60])
    assert error(model, keys=KEYS[:60]) < 1e-12
    assert np.all(np.isfinite(np.stack(model.score_samples(QUERIES, return_std=True))))


# Bookkeeping -----------------------------------------------------------------------------------------
OTHERS = {
    "kernel": "squared",
    "method": "exact",
    "temperature": 0.1,
    "n_clusters": 9,
    "covariance_type": "diag",
    "n_samples": 8,
    "n_exact": 500,
    "n_heavy": 40,
    "n_components": 4,
    "tol": 1e-9,
    "random_state": 7,
}


@pytest.mark.parametrize("chunks", [False, True])
@DEFINED
def test_parameters_set_after_fit_wait_for_the_next(kernel, method, chunks):
    def results(model):
        out = [*model.score_samples(QUERIES, return_std=True), model.transform(QUERIES)]
        return out if chunks else [*out, model.score(QUERIES), model.score_samples_exact(QUERIES)]

    def more(model):
        return model.partial_fit(KEYS[2000:]).merge(make(method, kernel, n_clusters=2).fit(KEYS[:500]))

    if chunks and method in ("neighbors", "exact"):
        model = make(method, kernel).fit(KEYS).set_params(method="gaussian")
        assert not hasattr(model, "merge")
        assert not hasattr(model, "partial_fit")
        return
    models = [make(method, kernel, n_clusters=2) for _ in range(3)]
    for model in models:
        _ = model.partial_fit(KEYS[:2000]) if chunks else model.fit(KEYS)
    models[1].set_params(**OTHERS)
    models[2] = pickle.loads(pickle.dumps(models[2].set_params(**OTHERS)))
    if chunks:
        models = [more(model) for model in models]
    for model in models[1:]:
        for ours, expected in zip(results(model), results(models[0]), strict=True):
            assert_array_equal(ours, expected)
        assert model.get_params()["kernel"] == "squared"
    anew = models[1].fit(KEYS)
    assert_array_equal(anew.score_samples(QUERIES), make(**OTHERS).fit(KEYS).score_samples(QUERIES))


def test_merge_compares_what_was_fitted():
    model, other = make().fit(KEYS), make("control_variate", "expressive", temperature=2.0).fit(KEYS)
    other.set_params(**model.get_params())
    with pytest.raises(ValueError, match="kernel is 'softmax' here and 'expressive' there"):
        model.merge(other)


def test_score_is_minus_the_mean_error():
    model = NormalizerEstimator(temperature=0.3).fit(KEYS)
    gap = model.score_samples(QUERIES) - log_normalizer_exact(QUERIES, KEYS, temperature=0.3)
    assert_allclose(model.score(QUERIES), -np.abs(gap).mean())
    assert NormalizerEstimator(method="exact").fit(KEYS).score(QUERIES) == 0


def test_grid_search_over_clusters_and_methods():
    grid = {"n_clusters": [1, 5], "method": ["sampling", "control_variate"]}
    search = GridSearchCV(make(temperature=0.25), grid, cv=3).fit(KEYS)
    assert search.best_params_ == {"n_clusters": 5, "method": "control_variate"}


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("gaussian", {"temperature": 0.5}),
        ("gaussian", {"n_clusters": 5}),
        ("gaussian", {"method": "exact"}),
        ("gaussian", {"kernel": "squared"}),
        ("gaussian", {"covariance_type": "diag"}),
        ("gaussian", {"n_heavy": 50}),
        ("control_variate", {"n_samples": 300}),
        ("control_variate", {"random_state": 1}),
        ("neighbors", {"n_exact": 16}),
        ("random_fourier", {"n_components": 50}),
        ("positive_features", {"n_components": 50}),
        ("auto", {"tol": 1e-6}),
    ],
    ids=str,
)
def test_every_parameter_reaches_the_computation(method, change):
    base, changed = (make(**{"method": method, **p}).fit(MANY).score_samples(QUERIES) for p in ({}, change))
    assert np.abs(base - changed).max() > 1e-7


@EVERY_METHOD
def test_order_of_keys_and_queries_changes_nothing(method):
    order = np.random.default_rng(0).permutation(len(MANY))
    model = make(method).fit(MANY)
    expected = model.score_samples(QUERIES)
    assert_allclose(
        make(method).fit(MANY[order]).score_samples(QUERIES), expected, atol=0.05 if method == "neighbors" else 1e-9
    )
    alone = np.concatenate([model.score_samples(query[None]) for query in QUERIES[:5]])
    assert_allclose(alone, expected[:5], atol=1e-12)


@pytest.mark.parametrize("method", ["gaussian", "exact"])
def test_rotation_changes_nothing(method):
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((20, 20)))[0]
    expected = make(method).fit(KEYS).score_samples(QUERIES)
    assert_allclose(make(method).fit(KEYS @ turn).score_samples(QUERIES @ turn), expected)


@pytest.mark.parametrize("n_clusters", [1, 4])
@EVERY_METHOD
def test_threads_change_no_bit(n_clusters, method):
    one, two = (
        np.stack(make(method, n_clusters=n_clusters, n_jobs=n).fit(MANY).score_samples(MANY[:2000], return_std=True))
        for n in (1, 2)
    )
    assert one.tobytes() == two.tobytes()


@DEFINED
@pytest.mark.parametrize("temperature", [1.0, 0.05])
def test_float32_is_close(kernel, method, temperature):
    single, double = MANY.astype(np.float32), MANY
    fitted = [make(method, kernel, n_clusters=3, temperature=temperature).fit(keys) for keys in (single, double)]
    results = [model.score_samples(keys[:200]) for model, keys in zip(fitted, (single, double), strict=True)]
    assert_allclose(*results, atol=1e-4)
    assert fitted[0].transform(QUERIES.astype(np.float32)).dtype == np.float32


@DEFINED
@pytest.mark.parametrize(
    "keys",
    [KEYS[:1], KEYS[:3], np.repeat(KEYS[:2], 5, axis=0), KEYS[:, :1], KEYS * 1e3, np.zeros((9, 20))],
    ids=["one key", "fewer than clusters", "duplicated", "one column", "norms of 1e3", "zeros"],
)
@pytest.mark.parametrize("temperature", [1.0, 0.01])
def test_degenerate_keys(kernel, method, keys, temperature):
    model = make(method, kernel, n_clusters=4, temperature=temperature).fit(keys)
    queries = QUERIES[:, : keys.shape[1]]
    log_z, std = model.score_samples(queries, return_std=True)
    impossible = not keys.any() and kernel in ("squared", "expressive")
    assert_array_equal(np.isfinite(log_z), not impossible)
    assert np.all(np.isfinite(std))
    assert np.all(std >= 0)
    assert np.all(np.isfinite(model.transform(queries)))
    assert np.all(model.weights_ > 0)
    few = len(np.unique(keys, axis=0)) <= 4 and method not in ("random_fourier", "positive_features")
    if few and not impossible:  # a cluster each: the limit in which the mixture is exact
        exact = log_normalizer_exact(queries, keys, kernel=kernel, temperature=temperature)
        assert_allclose(log_z, exact, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("kernel", ["squared", "expressive"])
@pytest.mark.parametrize("method", ["gaussian", "control_variate", "sampling", "neighbors", "exact", "auto"])
def test_orthogonal_query_has_no_mass(kernel, method):
    model = make(method, kernel).fit(np.eye(3)[:2])
    log_z, std = model.score_samples(np.eye(3)[2:], return_std=True)
    assert_array_equal(log_z, -np.inf)
    assert_array_equal(std, 0)
    assert np.all(np.isfinite(model.transform(np.eye(3)[2:])))
    assert model.score(np.eye(3)[2:]) == 0


# Extremes --------------------------------------------------------------------------------------------
def all_results(model, queries):
    """Everything a fitted model gives; numbers, and no warning of NumPy's."""
    results = [*model.score_samples(queries, return_std=True), model.transform(queries), model.score_samples(queries)]
    results += [model.weights_, model.means_, model.covariances_]
    if model._keys is not None:
        results += [model.score_samples_exact(queries), np.array(model.score(queries))]
    assert not any(np.isnan(part).any() for part in results)
    assert all(np.isfinite(part).all() for part in results[1:3])
    return results


@DEFINED
@pytest.mark.parametrize("size", [1e-300, 1e-160, 1e-80, 1e20, 1e51])
@pytest.mark.parametrize("n_heavy", [0, 3])
def test_keys_of_any_size(kernel, method, size, n_heavy):
    keys, queries = size * KEYS[:300], size * QUERIES
    model = make(method, kernel, n_clusters=2, n_heavy=n_heavy).fit(keys)
    log_z = all_results(model, queries)[0]
    if size < 1 and kernel in ("softmax", expit):
        assert_allclose(log_z, model.score_samples_exact(queries), rtol=1e-9)


@DEFINED
def test_largest_numbers_of_float32(kernel, method):
    keys = (np.sign(KEYS[:300]) * np.finfo(np.float32).max).astype(np.float32)
    all_results(make(method, kernel, n_clusters=2).fit(keys), keys[:20])


@DEFINED
def test_scores_that_would_overflow(kernel, method):
    for factor, temperature in ((1e154, 1.0), (1.7e308, 1.0), (1e60, 1.0), (1.0, 1e-300), (1.0, 5e-324)):
        keys = factor * np.sign(KEYS[:50])
        model = make(method, kernel, temperature=temperature)
        with pytest.raises(ValueError, match="Entries of X, and their products over the temperature, must be below 1e"):
            model.fit(keys)
        if temperature == 1:
            model.fit(KEYS[:50])
            for call in (model.score_samples, model.transform, model.score, model.score_samples_exact):
                with pytest.raises(ValueError, match=r"Entries of X.*raise the temperature"):
                    call(keys)


@pytest.mark.parametrize("kernel", EVERY_KERNEL)
@pytest.mark.parametrize("method", ["gaussian", "control_variate", "sampling", "neighbors", "exact", "auto"])
@pytest.mark.parametrize("n_heavy", [0, 3])
def test_queries_and_norms_of_all_sizes(kernel, method, n_heavy):
    """A query of zero, norms of a lognormal distribution, and a few large keys, which "auto" has to sum exactly."""
    rng = np.random.default_rng(0)
    norms = np.exp(3 * rng.standard_normal((300, 1)))
    for keys in (KEYS[:300], norms * KEYS[:300], np.vstack([KEYS[:300], 1e3 * KEYS[:2]])):
        model = make(method, kernel, n_clusters=3, n_heavy=n_heavy).fit(keys)
        all_results(model, np.vstack([np.zeros(20), QUERIES, keys[:20]]))


@DEFINED
def test_weights_of_any_size(kernel, method):
    """Their size adds to log Z; what is next to nothing beside others does no harm."""

    def fitted(weights):
        return make(method, kernel, n_heavy=2).fit(KEYS, sample_weight=weights)

    weights = WEIGHTS + 0.1
    expected, std, *_ = all_results(fitted(weights), QUERIES)
    for factor in (1e-79, 1e79):
        log_z, same, *_ = all_results(fitted(factor * weights), QUERIES)
        assert_allclose(log_z, expected + np.log(factor), atol=1e-6)
        assert_allclose(same, std, rtol=1e-5, atol=1e-12)
    for factor in (1e-300, 1e100, 1e300):
        with pytest.raises(ValueError, match=r"largest sample_weight must be between 1e-80 and 1e\+80.*Divide all"):
            fitted(factor * weights)
    all_results(fitted(np.where(np.arange(3000) < 1500, 5e-324, weights)), QUERIES)


def test_no_more_is_taken_than_there_is():
    """Ten to the twelfth samples and clusters are all keys; as many random features are refused."""
    model = make("control_variate", n_samples=10**12, n_clusters=10**12, n_heavy=3, n_exact=10**12).fit(KEYS[:40])
    assert error(model, keys=KEYS[:40]) < 1e-9
    with pytest.raises(ValueError, match=r"'n_components' parameter .* in the range \[1, 1048576\]"):
        make("random_fourier", n_components=10**12).fit(KEYS[:40])


def test_small_integers_of_numpy_are_integers():
    X = np.random.default_rng(0).standard_normal((300, 3))
    names = {"n_clusters": 2, "n_samples": 100, "n_exact": 100, "n_heavy": 100}
    for method in ("control_variate", "sampling", "neighbors"):
        small = NormalizerEstimator(method=method, random_state=0, **{k: np.int8(v) for k, v in names.items()})
        usual = NormalizerEstimator(method=method, random_state=0, **names)
        assert_array_equal(small.fit(X).score_samples(X[:5]), usual.fit(X).score_samples(X[:5]))
        assert isinstance(small.n_samples_, int)


def test_no_threads_at_all():
    with pytest.raises(ValueError, match=r"n_jobs must be a number of threads.* got 0"):
        NormalizerEstimator(n_jobs=0).fit(np.ones((3, 2)))


def test_keys_in_no_order_of_memory_are_the_same_in_a_copy():
    rng = np.random.default_rng(0)
    K, Q = rng.standard_normal((1, 5))[::-1, ::-1], rng.standard_normal((50, 5))
    model = NormalizerEstimator(method="exact", random_state=0).fit(K)
    assert pickle.loads(pickle.dumps(model)).score_samples(Q).tobytes() == model.score_samples(Q).tobytes()
