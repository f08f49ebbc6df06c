"""Exact metrics against their definitions."""

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax, logsumexp

from sklearn_attnembed import AttentionEmbedding, metrics
from sklearn_attnembed.metrics import attention_cross_entropy

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((20, 4)), RNG.standard_normal((30, 4))
A = RNG.random((20, 30)) * (RNG.random((20, 30)) < 0.4)


def test_log_normalizer():
    assert_allclose(metrics.log_normalizer_exact(X, Y, temperature=0.5), logsumexp(2 * X @ Y.T, axis=1))
    assert_allclose(metrics.log_normalizer_exact(X), logsumexp(X @ X.T, axis=1))


@pytest.mark.parametrize("kernel", ["softmax", "squared", "expressive"])
def test_attention_scores_are_weights_over_z(kernel):
    scores = metrics.attention_scores(X, Y, kernel=kernel)
    assert_allclose(scores.sum(axis=1), 1)
    z = X @ Y.T
    f = {"softmax": np.exp(z), "squared": z**2, "expressive": z**2 / (1 + z**2)}[kernel]
    assert_allclose(scores, f / np.exp(metrics.log_normalizer_exact(X, Y, kernel=kernel))[:, None])


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_cross_entropy(form):
    affinities = A.copy()
    affinities[3] = 0
    P = affinities[np.arange(20) != 3]
    P /= P.sum(axis=1, keepdims=True)
    expected = -np.mean(np.sum(P * log_softmax(X[np.arange(20) != 3] @ Y.T / 0.7, axis=1), axis=1))
    assert_allclose(metrics.attention_cross_entropy(form(affinities), X, Y, temperature=0.7), expected)


def test_cross_entropy_of_walks():
    P = RNG.random((20, 20))
    P /= P.sum(axis=1, keepdims=True)
    average = (P + P @ P) / 2
    assert_allclose(metrics.attention_cross_entropy(P, X, walk_length=2), metrics.attention_cross_entropy(average, X))


def test_isolated_vectors_are_no_keys():
    padded = np.vstack([Y, np.zeros((2, 4))])
    wide = np.hstack([A, np.zeros((20, 2))])
    assert_allclose(metrics.attention_cross_entropy(wide, X, padded), metrics.attention_cross_entropy(A, X, Y))


@pytest.mark.parametrize("background", [0.0, 0.3])
@pytest.mark.parametrize("kernel", ["softmax", "squared", "expressive", np.cosh])
def test_metrics_of_any_kernel_and_background_are_loops(kernel, background):
    functions = {"softmax": np.exp, "squared": np.square, "expressive": lambda s: s**2 / (1 + s**2)}
    f = functions.get(kernel, kernel)
    P = A[:5] / np.maximum(A[:5].sum(axis=1, keepdims=True), 1e-300)
    expected = []
    for i in range(5):
        weights = [f(sum(x * y for x, y in zip(X[i], key, strict=True)) / 0.7) + background for key in Y]
        z = sum(weights)
        expected.append(-sum(p * np.log(w / z) for p, w in zip(P[i], weights, strict=True) if p > 0))
        options = {"kernel": kernel, "background": background, "temperature": 0.7}
        assert_allclose(metrics.log_normalizer_exact(X[i : i + 1], Y, **options), [np.log(z)])
        assert_allclose(metrics.attention_scores(X[i : i + 1], Y, **options)[0], np.array(weights) / z)
    assert_allclose(attention_cross_entropy(A[:5], X[:5], Y, **options), np.mean(expected))
    some = attention_cross_entropy(A[:5], X[:5], Y, rows=[3, 1], **options)
    assert_allclose(some, np.mean([expected[3], expected[1]]))


def test_cross_entropy_of_walks_pair_by_pair():
    """Softmax written as a function goes pair by pair and gives what one product gives."""
    P = sp.random_array((40, 40), density=0.1, rng=0, format="csr")
    vectors = np.random.default_rng(1).standard_normal((40, 3))
    vectors[5] = 0
    for options in ({"walk_length": 3}, {"walk_length": 2, "rows": [7, 3, 5]}, {"n_jobs": 2}):
        a, b = (attention_cross_entropy(P, vectors, kernel=kernel, **options) for kernel in ("softmax", np.exp))
        assert_allclose(a, b)


def test_cross_entropy_is_infinite_where_a_weight_vanishes():
    assert attention_cross_entropy(np.eye(2)[::-1], np.eye(2), kernel="squared") == np.inf
    assert attention_cross_entropy(np.eye(2), np.eye(2), kernel="squared") == 0
    assert attention_cross_entropy(np.eye(2)[::-1], np.eye(2), kernel="squared", background=1.0) < np.inf


def test_expressive_embedding_is_scored_from_outside():
    graph = sp.random_array((60, 60), density=0.1, rng=0, format="csr")
    graph = graph + graph.T
    model = AttentionEmbedding(4, affinity="precomputed", kernel="expressive", temperature=0.5, random_state=0)
    model.fit(graph)
    options = {"kernel": "expressive", "background": 0.01, "temperature": 0.5}
    loss = attention_cross_entropy(graph, model.embedding_, model.key_embedding_, **options)
    assert_allclose(-model.score(graph), loss)


def test_relative_error():
    assert_allclose(metrics.relative_error(np.log([1.1, 0.9, 1]), np.zeros(3)), [0.1, 0.1, 0])


def test_relative_error_of_no_array():
    with pytest.raises(TypeError, match=r"Sparse data was passed for log_exact"):
        metrics.relative_error([0.0], sp.csr_array([[0.0]]))


def test_relative_error_of_nothing_and_everything():
    inf = np.inf
    estimate, exact = [-inf, -inf, 0.0, inf, inf, 0.0, 1e9], [-inf, 0.0, -inf, inf, 0.0, inf, 0.0]
    assert_array_equal(metrics.relative_error(estimate, exact), [0, 1, inf, 0, inf, 1, inf])


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: metrics.log_normalizer_exact(X, Y[:, :2]), "same number of columns"),
        (lambda: metrics.attention_cross_entropy(A.T, X, Y), r"shape \(n_queries, n_keys\) = \(20, 30\)"),
        (lambda: metrics.attention_cross_entropy(-A, X, Y), "non-negative, but the smallest is -"),
        (lambda: metrics.attention_cross_entropy(A, X, Y, walk_length=2), "walk_length=2 needs square"),
        (lambda: metrics.attention_scores(X, Y, temperature=0.0), "'temperature' parameter"),
        (lambda: metrics.attention_scores(X, Y, background=-1.0), "'background' parameter"),
        (lambda: attention_cross_entropy(A, X, Y, kernel="cosine"), "'kernel' parameter"),
        (lambda: metrics.relative_error([0.0, np.nan], [0.0, 0.0]), "no NaN.* with 1 and 0 NaN"),
        (lambda: metrics.relative_error([0.0, 1.0], [0.0]), r"one shape.*\(2,\) and \(1,\)"),
        (lambda: attention_cross_entropy(np.zeros((2, 2)), np.eye(2)), "positive entry.*but 0 of 2 rows"),
        (lambda: attention_cross_entropy(np.diag([1.0, 0]), np.eye(2), rows=[1]), "positive entry.*but 0 of 1 rows"),
        (lambda: attention_cross_entropy(np.eye(2), np.zeros((2, 2))), "0 of 2 keys are such"),
        (lambda: attention_cross_entropy(A, X, Y, rows=[99]), r"rows must hold whole numbers from 0 to 19.*\[99\]"),
        (lambda: attention_cross_entropy(A, X, Y, rows=[-21]), "rows must hold whole numbers"),
        (lambda: attention_cross_entropy(A, X, Y, rows=[]), r"one at least, but is \[\]"),
        (lambda: attention_cross_entropy(A, X, Y, rows=[0.5]), "of type float64"),
        (lambda: attention_cross_entropy(A, X, Y, rows=[[0]]), "rows must hold"),
        (lambda: attention_cross_entropy(A, X, Y, rows=[True]), "of type bool"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(ValueError, match=match):
        call()


@pytest.mark.parametrize("walk_length", [1, 3])
def test_cross_entropy_of_a_sample_of_rows(walk_length):
    rng = np.random.default_rng(0)
    P, X = rng.random((30, 30)), rng.standard_normal((30, 4))
    each = [attention_cross_entropy(P, X, rows=[i], walk_length=walk_length) for i in range(30)]
    assert_allclose(np.mean(each), attention_cross_entropy(P, X, walk_length=walk_length))
    sample = attention_cross_entropy(P, X, rows=np.array([3, 7, 8]), walk_length=walk_length)
    assert_allclose(sample, np.mean([each[i] for i in (3, 7, 8)]))


def test_cross_entropy_of_rows_by_a_mask():
    mask = np.arange(20) % 3 == 0
    assert attention_cross_entropy(A, X, Y, rows=mask) == attention_cross_entropy(A, X, Y, rows=np.flatnonzero(mask))


def test_cross_entropy_of_split_entries():
    """The same affinity twice counts as their sum, and the input stays as it is."""
    whole = sp.csr_array(A)
    split = sp.csr_array((np.repeat(whole.data / 2, 2), np.repeat(whole.indices, 2), 2 * whole.indptr), whole.shape)
    before = split.data.copy()
    assert_allclose(attention_cross_entropy(split, X, Y), attention_cross_entropy(A, X, Y))
    assert_array_equal(split.data, before)


def test_cross_entropy_of_indices_out_of_range():
    wrong = sp.csr_array(A)
    wrong.indices[0] = 10**6
    with pytest.raises(ValueError, match=r"affinities must be a sparse matrix whose arrays fit together.*out of range"):
        attention_cross_entropy(wrong, X, Y)


@pytest.mark.parametrize("kernel", ["softmax", "squared", "expressive"])
@pytest.mark.parametrize("function", ["log_normalizer_exact", "attention_scores"])
def test_scores_that_would_overflow(function, kernel):
    """Refused by name up to the largest number; what is below the limit comes out finite."""
    call = getattr(metrics, function)
    for size in (1e154, 1.7e308, -1.7e308):
        for queries, keys in ((size * np.sign(X), Y), (X, size * np.sign(Y)), (X, np.full_like(Y, size))):
            with pytest.raises(ValueError, match=r"Entries of queries and keys, and their products .*raise the temp"):
                call(queries, keys, kernel=kernel)
    for temperature in (1e-300, 5e-324):
        with pytest.raises(ValueError, match="raise the temperature"):
            call(X, Y, kernel=kernel, temperature=temperature)
    for factor, temperature in ((1e50, 1.0), (1e100, 1e100), (1e30, 1e-40), (1e-300, 1.0), (1.0, 1e308)):
        assert np.all(
            np.isfinite(call(factor * X, factor * Y, kernel=kernel, temperature=temperature))
            | (factor < 1)
            | (temperature > 1e300)
        )


def test_largest_numbers_of_float32():
    huge = np.full((3, 4), np.finfo(np.float32).max)
    huge[1] *= -1
    assert np.all(np.isfinite(metrics.log_normalizer_exact(huge, huge)))
    assert_allclose(metrics.attention_scores(huge), [[0.5, 0, 0.5], [0, 1, 0], [0.5, 0, 0.5]])


def test_key_weights_of_any_size():
    for factor in (1e-300, 1e300):
        log_z = metrics.log_normalizer_exact(X, Y, key_weight=np.full(30, factor))
        assert_allclose(log_z, metrics.log_normalizer_exact(X, Y) + np.log(factor))
