"""Exact metrics against their definitions."""

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose
from scipy.special import log_softmax, logsumexp

from sklearn_attnembed import metrics
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


def test_relative_error():
    assert_allclose(metrics.relative_error(np.log([1.1, 0.9, 1]), np.zeros(3)), [0.1, 0.1, 0])


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: metrics.log_normalizer_exact(X, Y[:, :2]), "same number of columns"),
        (lambda: metrics.attention_cross_entropy(A.T, X, Y), r"shape \(n_queries, n_keys\) = \(20, 30\)"),
        (lambda: metrics.attention_cross_entropy(-A, X, Y), "non-negative, but the smallest is -"),
        (lambda: metrics.attention_cross_entropy(A, X, Y, walk_length=2), "walk_length=2 needs square"),
        (lambda: metrics.attention_scores(X, Y, temperature=0.0), "'temperature' parameter"),
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
