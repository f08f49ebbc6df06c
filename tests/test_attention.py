"""attention: its definition, masks, the linear-time forms, clusters of keys."""

import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax

from sklearn_attnembed import NormalizerEstimator, _attention, attention
from sklearn_attnembed._core import linear_attention
from sklearn_attnembed.metrics import log_normalizer_exact

RNG = np.random.default_rng(0)
Q, K, V = RNG.standard_normal((30, 4)), RNG.standard_normal((700, 4)), RNG.standard_normal((700, 3))
MASK = RNG.random((30, 700)) < 0.3
MASK[[3, 17]] = False


def lorentzian(s):
    return 1 / (1 + (s - 1) ** 2)


NAMED = {"softmax": np.exp, "squared": np.square, "expressive": lambda s: s**2 / (1 + s**2)}
WEIGHTS = {**NAMED, np.abs: np.abs, lorentzian: lorentzian}
KINDS = pytest.mark.parametrize("kernel", NAMED)
ALL_KINDS = pytest.mark.parametrize("kernel", WEIGHTS, ids=lambda k: getattr(k, "__name__", k))


def definition(Q, K, V, kernel, temperature=1.0, allowed=True):
    """Output and log Z, pair by pair."""
    allowed = np.broadcast_to(allowed, (len(Q), len(K)))
    f = WEIGHTS[kernel](Q @ K.T / temperature) * allowed
    with np.errstate(divide="ignore"):
        log_z = np.log(f.sum(axis=1))
    f = np.where(f.any(axis=1, keepdims=True), f, allowed)
    return f @ V / np.maximum(f.sum(axis=1, keepdims=True), 1e-300), log_z


def past(n_queries, n_keys):
    return np.arange(n_keys) <= np.arange(n_queries)[:, None]


def check(ours, expected, rtol=1e-9, atol=1e-11):
    for a, b in zip(ours, expected, strict=True):
        assert_allclose(a, b, rtol=rtol, atol=atol)


# Every pair ----------------------------------------------------------------------------------------------
@ALL_KINDS
@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_attention_is_its_definition(kernel, temperature):
    settings = {"kernel": kernel, "temperature": temperature}
    output, log_z = attention(Q, K, V, return_log_normalizer=True, **settings)
    check((output, log_z), definition(Q, K, V, **settings))
    assert_array_equal(attention(Q, K, V, **settings), output)


def test_softmax_is_the_default():
    assert_allclose(attention(Q, K, V), softmax(Q @ K.T, axis=1) @ V)


def test_attention_needs_no_stability_trick_of_the_users():
    assert np.all(np.isfinite(attention(1e3 * Q, 1e3 * K, V)))


@pytest.mark.parametrize(("name", "function"), NAMED.items())
def test_functions_are_kernels(name, function):
    check(
        attention(Q, K, V, kernel=function, return_log_normalizer=True),
        attention(Q, K, V, kernel=name, return_log_normalizer=True),
    )


@ALL_KINDS
def test_log_normalizer_is_that_of_the_metrics(kernel):
    log_z = attention(Q, K, V, kernel=kernel, temperature=0.7, return_log_normalizer=True)[1]
    assert log_z.dtype == np.float64
    assert_allclose(log_z, log_normalizer_exact(Q, K, kernel=kernel, temperature=0.7))


@ALL_KINDS
@pytest.mark.parametrize("causal", [False, True])
def test_blocks_do_not_matter(kernel, causal, monkeypatch):
    """Keys a few at a time, queries in several blocks."""
    X, mask = RNG.standard_normal((130, 4)), RNG.random((130, 700)) < 0.5
    settings = {"kernel": kernel, "mask": mask, "causal": causal, "return_log_normalizer": True}
    whole = attention(X, K, V, **settings)
    monkeypatch.setattr("sklearn_attnembed._core.normalizers.exact._BLOCK_ELEMENTS", 1000)
    monkeypatch.setattr("sklearn_attnembed._core.parallel._BLOCK_ELEMENTS", 1)
    check(attention(X, K, V, **settings), whole)


def test_memory_is_bounded():
    """All scores at once would be 160 MB."""
    keys = RNG.standard_normal((20_000, 2))
    tracemalloc.start()
    attention(RNG.standard_normal((1000, 2)), keys, keys, kernel="squared", causal=True)
    attention(RNG.standard_normal((1000, 2)), keys, keys, kernel="expressive")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e7


# Masks -----------------------------------------------------------------------------------------------------
@ALL_KINDS
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("form", [np.asarray, np.ndarray.tolist, sp.csr_array, sp.coo_matrix])
def test_mask(kernel, causal, form):
    """Two queries may attend to no key: zeros."""
    output, log_z = attention(Q, K, V, kernel=kernel, mask=form(MASK), causal=causal, return_log_normalizer=True)
    allowed = MASK & past(30, 700) if causal else MASK
    check((output, log_z), definition(Q, K, V, kernel, allowed=allowed))
    assert_array_equal(output[[3, 17]], 0)
    assert_array_equal(log_z[[3, 17]], -np.inf)


def test_explicit_false_in_a_sparse_mask():
    mask = sp.csr_array(np.ones((1, 3), bool))
    mask.data[0] = False
    assert_allclose(attention(np.ones((1, 4)), K[:3], V[:3], mask=mask), attention(np.ones((1, 4)), K[1:3], V[1:3]))


def test_split_entries_of_a_sparse_mask():
    """True where one of them is; indices out of range are refused."""
    mask = sp.csr_array((np.array([True, True, False, True]), [0, 0, 2, 2], [0, 4]), (1, 3))
    assert_allclose(
        attention(np.ones((1, 4)), K[:3], V[:3], mask=mask), attention(np.ones((1, 4)), K[[0, 2]], V[[0, 2]])
    )
    mask.indices[0] = 10**6
    with pytest.raises(ValueError, match="mask must be a sparse matrix whose arrays fit together"):
        attention(np.ones((1, 4)), K[:3], V[:3], mask=mask)


@ALL_KINDS
@pytest.mark.parametrize("n_queries", [5, 40, 60])
def test_causal(kernel, n_queries):
    X = RNG.standard_normal((n_queries, 4))
    expected = definition(X, K[:40], V[:40], kernel, allowed=past(n_queries, 40))
    check(attention(X, K[:40], V[:40], kernel=kernel, causal=True, return_log_normalizer=True), expected)


@ALL_KINDS
def test_future_does_not_matter(kernel):
    changed, values = K.copy(), V.copy()
    changed[200:], values[200:] = 7, -9
    now, then = (attention(K, k, v, kernel=kernel, causal=True)[:200] for k, v in ((K, V), (changed, values)))
    assert_allclose(now, then, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kernel", ["squared", "expressive", np.abs], ids=str)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", [None, MASK[:, :40]], ids=["free", "mask"])
def test_query_without_any_score_attends_uniformly(kernel, causal, mask):
    """To the keys it may attend to."""
    keys = np.hstack([K[:40, :3], np.zeros((40, 1))])
    allowed = (past(30, 40) if causal else True) & (np.ones((30, 40), bool) if mask is None else mask)
    share = allowed / np.maximum(allowed.sum(axis=1, keepdims=True), 1)
    X = np.tile(np.eye(4)[3], (30, 1))
    output, log_z = attention(X, keys, V[:40], kernel=kernel, causal=causal, mask=mask, return_log_normalizer=True)
    assert_allclose(output, share @ V[:40], atol=1e-12)
    assert_array_equal(log_z, -np.inf)


# Squared attention in linear time --------------------------------------------------------------------------
@pytest.mark.parametrize("n", [3, 2000])
def test_linear_and_quadratic_squared_attention_agree(n):
    """Few rows go the quadratic way, many the linear one; a query orthogonal to all keys attends uniformly."""
    keys = np.hstack([np.tile(K[:, :3], (3, 1)), np.zeros((2100, 1))])
    queries = np.vstack([np.hstack([RNG.standard_normal((n, 3)), np.ones((n, 1))]), np.eye(4)[3:]])
    values = np.tile(V, (3, 1))
    weights = np.square(queries[:-1] @ keys.T)
    output = attention(queries, keys, values, kernel="squared")
    assert_allclose(output[:-1], weights @ values / weights.sum(axis=1, keepdims=True), rtol=1e-7, atol=1e-9)
    assert_allclose(output[-1], values.mean(axis=0))


@pytest.fixture
def linear(monkeypatch):
    """Squared attention always from sums over the keys."""
    monkeypatch.setattr(_attention, "_is_linear_cheaper", lambda Q, K, V, causal: True)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.1])
@pytest.mark.parametrize("n", [1, 127, 128, 129, 300])
def test_sums_over_keys_are_exact(n, temperature, causal, linear):
    X, allowed = RNG.standard_normal((n, 4)), past(n, n) if causal else True
    ours = attention(
        X, K[:n], V[:n], kernel="squared", temperature=temperature, causal=causal, return_log_normalizer=True
    )
    check(ours, definition(X, K[:n], V[:n], "squared", temperature, allowed))


@pytest.mark.parametrize("causal", [False, True])
def test_sums_over_keys_far_from_the_origin(causal, linear):
    keys, values = K[:300] + 1e3, V[:300] + 1e3
    allowed = past(300, 300) if causal else True
    ours = attention(K[300:600], keys, values, kernel="squared", causal=causal, return_log_normalizer=True)
    check(ours, definition(K[300:600], keys, values, "squared", allowed=allowed), rtol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("small", [0, 1e-12, 1e-7, 1e-3])
def test_query_orthogonal_to_nearly_all(small, causal, linear):
    """What is left of the sums is digits of one key; or nothing, in which case all count alike."""
    keys = np.hstack([K[:200, :3], np.zeros((200, 1))])
    keys[7, 3] = small
    X = np.tile(np.eye(4)[3], (200, 1))
    output = attention(X, keys, V[:200], kernel="squared", causal=causal)
    expected = V[[7]] if small else V[:200].mean(axis=0, keepdims=True)
    assert_allclose(output[-1:], expected, rtol=1e-9)
    if causal:
        assert_allclose(output[:7], np.cumsum(V[:7], axis=0) / np.arange(1, 8)[:, None], rtol=1e-9)


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e-158, 1e-100, 1e100])
@pytest.mark.parametrize("of_keys", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_scale_does_not_matter(scale, of_keys, causal, linear):
    settings = {"kernel": "squared", "causal": causal, "return_log_normalizer": True}
    X, Y = (K[:200], scale * K[200:400]) if of_keys else (scale * K[:200], K[200:400])
    ours, expected = attention(X, Y, V[:200], **settings), attention(K[:200], K[200:400], V[:200], **settings)
    assert_allclose(ours[0], expected[0], atol=1e-9)
    assert_allclose(ours[1], expected[1] + 2 * np.log(scale))


def test_linear_way_is_taken_where_it_is_cheaper():
    few, many = RNG.standard_normal((3, 4)), RNG.standard_normal((3000, 4))
    assert _attention._is_linear_cheaper(many, many, many, False)
    assert _attention._is_linear_cheaper(many, many, many, True)
    assert not _attention._is_linear_cheaper(few, many, many, False)
    assert not _attention._is_linear_cheaper(many, few, few, False)
    wide = np.ones((300, 200))
    assert not _attention._is_linear_cheaper(wide, wide, wide, False)


# Clusters of keys ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("n_clusters", [1, 3, 8, 50])
@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_clusters_are_exact_for_squared(n_clusters, temperature):
    settings = {"kernel": "squared", "temperature": temperature}
    keys = K + np.array([3, 0, -1, 0])
    ours = attention(
        Q, keys, V, method="gaussian", n_clusters=n_clusters, random_state=0, return_log_normalizer=True, **settings
    )
    check(ours, definition(Q, keys, V, **settings))


@ALL_KINDS
@pytest.mark.parametrize("repeats", [1, 3])
def test_cluster_of_one_key_is_that_key(kernel, repeats):
    keys, values = np.repeat(K[:40], repeats, axis=0), V[: 40 * repeats]
    ours = attention(
        Q,
        keys,
        values,
        kernel=kernel,
        method="gaussian",
        n_clusters=len(keys),
        random_state=0,
        return_log_normalizer=True,
    )
    check(ours, definition(Q, keys, values, kernel))


@ALL_KINDS
@pytest.mark.parametrize("n_clusters", [1, 8])
def test_log_normalizer_is_the_estimators(kernel, n_clusters, monkeypatch):
    """For equal clusters."""
    model = NormalizerEstimator(kernel, temperature=0.7, n_clusters=n_clusters, random_state=0).fit(K)
    monkeypatch.setattr(_attention, "partition", lambda *args: model.labels_)
    log_z = attention(Q, K, V, kernel=kernel, temperature=0.7, method="gaussian", return_log_normalizer=True)[1]
    assert_allclose(log_z, model.score_samples(Q), rtol=1e-9)


@KINDS
def test_error_falls_with_clusters(kernel):
    """Values that are a smooth function of the keys."""
    keys = RNG.standard_normal((2000, 2))
    X, values = RNG.standard_normal((100, 2)), np.stack([np.sin(keys[:, 0]), np.cos(keys.sum(axis=1))], axis=1)
    expected = attention(X, keys, values, kernel=kernel, temperature=0.7)
    error = [
        np.abs(
            attention(X, keys, values, kernel=kernel, temperature=0.7, method="gaussian", n_clusters=n, random_state=0)
            - expected
        ).mean()
        for n in (1, 16, 256)
    ]
    if kernel == "squared":
        assert max(error) < 1e-9
    else:
        assert error[1] < error[0] / 2
        assert error[2] < error[1] / 4
        assert error[2] < 2e-3


def test_one_gaussian_of_keys_shifts_the_mean():
    """exp tilts a Gaussian: the mean key goes by its covariance times the query. Odd moments vanish here."""
    half = RNG.standard_normal((500, 4))
    keys = np.vstack([half, -half]) * [1, 2, 0.5, 0]
    output = attention(Q, keys, keys, method="gaussian", n_clusters=1, temperature=2.0)
    assert_allclose(output, Q / 2 @ np.cov(keys.T, bias=True), atol=1e-9)


@ALL_KINDS
def test_constant_values_come_out(kernel):
    """The weights of any approximation sum to one."""
    output = attention(Q, K, np.full((700, 1), 3.0), kernel=kernel, method="gaussian", n_clusters=5, random_state=0)
    assert_allclose(output, 3, rtol=1e-9)


@pytest.mark.parametrize("kernel", ["squared", "expressive", np.abs], ids=str)
@pytest.mark.parametrize("n_clusters", [1, 8])
def test_clusters_without_any_score(kernel, n_clusters):
    keys = np.hstack([K[:, :3], np.zeros((700, 1))])
    output, log_z = attention(
        np.vstack([np.eye(4)[3], np.zeros(4)]),
        keys,
        V,
        kernel=kernel,
        method="gaussian",
        n_clusters=n_clusters,
        random_state=0,
        return_log_normalizer=True,
    )
    assert_allclose(output, np.tile(V.mean(axis=0), (2, 1)), atol=1e-12)
    assert_array_equal(log_z, -np.inf)


def test_clusters_in_blocks(monkeypatch):
    settings = {"kernel": "expressive", "method": "gaussian", "n_clusters": 5, "random_state": 0}
    X = RNG.standard_normal((400, 4))
    whole = attention(X, K, V, **settings)
    monkeypatch.setattr("sklearn_attnembed._core.parallel._BLOCK_ELEMENTS", 1)
    assert_allclose(attention(X, K, V, **settings), whole, rtol=1e-9, atol=1e-12)


def test_moments_are_sums():
    labels = np.arange(700) % 2
    moments = linear_attention.value_moments(K, V, labels, 2)
    centred = K[labels == 1] - K[labels == 1].mean(axis=0)
    assert_allclose(moments.sums[1, 0], [*V[labels == 1].sum(axis=0), 350])
    assert_allclose(moments.sums[1, 1:5, -1], 0, atol=1e-10)
    assert_allclose(moments.sums[1, 1:5, :-1], centred.T @ V[labels == 1])
    assert_allclose(moments.sums[1, 5], np.square(centred[:, 0]) @ np.hstack([V, np.ones((700, 1))])[labels == 1])


def test_more_clusters_than_keys():
    output = attention(Q, K[:5], V[:5], kernel="expressive", method="gaussian", n_clusters=100)
    assert_allclose(output, attention(Q, K[:5], V[:5], kernel="expressive"), rtol=1e-9)


# Policies --------------------------------------------------------------------------------------------------
WAYS = pytest.mark.parametrize(
    "way",
    [{}, {"causal": True}, {"mask": RNG.random((700, 700)) < 0.5}, {"method": "gaussian", "random_state": 0}],
    ids=["exact", "causal", "mask", "gaussian"],
)


@KINDS
@WAYS
def test_threads_and_dtype(kernel, way):
    one, two = (attention(K, K, V, kernel=kernel, n_jobs=n_jobs, **way) for n_jobs in (1, 2))
    assert one.tobytes() == two.tobytes()
    single, log_z = attention(
        *(A.astype(np.float32) for A in (K, K, V)), kernel=kernel, return_log_normalizer=True, **way
    )
    assert (single.dtype, log_z.dtype) == (np.float32, np.float64)
    assert_allclose(single, one, atol=1e-3)
    assert attention(K.astype(np.float32), K, V, kernel=kernel, **way).dtype == np.float64


def test_seed():
    first, same, other = (
        attention(Q, K, V, method="gaussian", random_state=seed) for seed in (0, np.random.RandomState(0), 1)
    )
    assert_array_equal(first, same)
    assert not np.allclose(first, other)


@KINDS
@WAYS
def test_inputs_are_not_modified(kernel, way):
    arrays = [K.copy(), K.copy(), V.copy()]
    for array in arrays:
        array.flags.writeable = False
    attention(*arrays, kernel=kernel, **way)
    for array, before in zip(arrays, (K, K, V), strict=True):
        assert_array_equal(array, before)


def test_lists_and_integers():
    assert_allclose(attention([[0, 0]], [[1, 2], [3, 4]], [[1], [3]]), [[2]])


@pytest.mark.parametrize(
    ("Q", "K", "V", "match"),
    [
        (Q[:, :3], K, V, r"same number of columns, but Q has 3 and K 4"),
        (Q, K, V[:-1], r"same number of rows, one for each key, but K has 700 and V 699"),
        (np.full_like(Q, np.nan), K, V, "Q contains NaN"),
        (Q, K, np.full_like(V, np.inf), "V contains infinity"),
        (Q, K[0], V, "Expected 2D array"),
        (Q, K, V[:, 0], "Expected 2D array"),
        (Q, K[:0], V[:0], "Found array with 0 sample"),
    ],
    ids=["columns", "values", "nan", "infinity", "1-d", "1-d values", "no keys"],
)
def test_attention_explains_bad_input(Q, K, V, match):
    with pytest.raises(ValueError, match=match):
        attention(Q, K, V)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"kernel": "cosine"}, "'kernel' parameter"),
        ({"temperature": 0.0}, "'temperature' parameter"),
        ({"method": "nystroem"}, "'method' parameter"),
        ({"n_clusters": 0}, "'n_clusters' parameter"),
        ({"causal": 1}, "'causal' parameter"),
        ({"kernel": lambda s: s}, r"finite and non-negative, but is -.*clip it"),
        ({"kernel": np.sum}, r"one value for each score, but made shape \(\)"),
        ({"method": "gaussian", "causal": True}, r"method='gaussian' sums over all keys.*Use method='exact'"),
        ({"method": "gaussian", "mask": MASK}, r"method='gaussian' sums over all keys.*Use method='exact'"),
        ({"mask": MASK.astype(int)}, r"mask must be boolean.*\(30, 700\); got int64 of shape \(30, 700\)"),
        ({"mask": MASK.T}, r"mask must be boolean.*\(30, 700\); got bool of shape \(700, 30\)"),
        ({"mask": MASK[0]}, r"got bool of shape \(700,\)"),
        ({"mask": sp.csr_array(MASK.astype(float))}, "got float64 of shape"),
    ],
    ids=lambda part: "-".join(part) if isinstance(part, dict) else "",
)
def test_attention_explains_bad_settings(settings, match):
    with pytest.raises(ValueError, match=match):
        attention(Q, K, V, **settings)


HUGE = 1.7e308


@ALL_KINDS
@WAYS
def test_huge_numbers(kernel, way):
    """Refused by name, or no NaN, no infinity and no warning of NumPy's."""
    for A, B in ((1e154 * K, K), (K, 1e154 * K), (HUGE * np.sign(K), HUGE * np.sign(K)), (1e60 * K, 1e60 * K)):
        with pytest.raises(ValueError, match="Entries of Q and K, and their products over the temperature"):
            attention(A, B, V, kernel=kernel, **way)
    with pytest.raises(ValueError, match=r"Entries of V must be at most 1e\+80 in size, but the largest is 1.7e\+308"):
        attention(K, K, np.full_like(V, -HUGE), kernel=kernel, **way)
    scaled, plain = (attention(K, K, size * V, kernel=kernel, **way) for size in (1e79, 1))
    assert_allclose(scaled / 1e79, plain, atol=1e-9)
    if kernel in NAMED:
        for size in (1e25, 1e50):
            assert np.all(np.isfinite(attention(size * K, size * K, V, kernel=kernel, **way)))
        largest = np.finfo(np.float32).max
        out = attention(*(np.full(A.shape, largest, np.float32) for A in (K, K, V)), kernel=kernel, **way)
        assert np.all(np.isfinite(out))
