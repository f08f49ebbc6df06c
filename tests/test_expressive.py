"""ExpressiveKernel, expressive_kernel and attention."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.datasets import make_classification
from sklearn.model_selection import cross_val_score
from sklearn.svm import SVC

from sklearn_attnembed import ExpressiveKernel, attention, expressive_kernel

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((2, 40, 6))
Q, K, V = RNG.standard_normal((30, 4)), RNG.standard_normal((700, 4)), RNG.standard_normal((700, 3))
WEIGHTS = {"softmax": np.exp, "squared": np.square, "expressive": lambda z: z**2 / (1 + z**2)}
KINDS = pytest.mark.parametrize("kernel", WEIGHTS)


@KINDS
@pytest.mark.parametrize("normalize", [True, False])
def test_landmarks_are_attended_to(kernel, normalize):
    model = ExpressiveKernel(kernel, n_components=7, temperature=0.7, normalize=normalize, random_state=0).fit(X)
    expected = WEIGHTS[kernel](Y @ model.landmarks_.T / 0.7)
    if normalize:
        expected /= expected.sum(axis=1, keepdims=True)
    assert model.landmarks_.shape == (7, 6)
    assert_allclose(model.transform(Y), expected, rtol=1e-9)


def test_exact_features_have_squared_scores():
    model = ExpressiveKernel(method="exact", temperature=0.5).fit(X)
    assert model.transform(X).shape == (40, 21)
    assert_allclose(model.transform(X) @ model.transform(Y).T, np.square(X @ Y.T / 0.5))


def test_sketch_is_close_to_exact():
    model = ExpressiveKernel(method="sketch", n_components=3000, temperature=2.0, random_state=0).fit(X)
    expected = np.square(X @ Y.T / 2)
    assert np.abs(model.transform(X) @ model.transform(Y).T - expected).mean() < 0.1 * expected.mean()


def test_sign_does_not_matter():
    for method in ("landmarks", "exact", "sketch"):
        model = ExpressiveKernel(method=method, random_state=0, n_components=10).fit(X)
        assert_allclose(model.transform(-Y), model.transform(Y), atol=1e-9)


def test_row_without_any_score_attends_uniformly():
    model = ExpressiveKernel(n_components=2, random_state=0).fit(np.eye(3)[:2])
    assert_allclose(model.transform(np.eye(3)[2:]), 0.5)


def test_landmarks_are_clipped_with_a_warning():
    with pytest.warns(UserWarning, match="n_components=100 is more than n_samples=40"):
        assert ExpressiveKernel().fit_transform(X).shape == (40, 40)


@pytest.mark.parametrize("method", ["exact", "sketch"])
def test_softmax_has_no_features_of_the_squared_score(method):
    with pytest.raises(ValueError, match=r"kernel='softmax'.*Use kernel='expressive'"):
        ExpressiveKernel("softmax", method=method).fit(X)


def test_expressive_kernel_matrix():
    assert_allclose(expressive_kernel(X, Y, temperature=2.0), WEIGHTS["expressive"](X @ Y.T / 2))
    assert_allclose(expressive_kernel(X), expressive_kernel(X, X))
    assert expressive_kernel(X, X).max() < 1


def test_expressive_kernel_in_a_support_vector_machine():
    """Two opposite blobs are one class: the sign has to be forgotten."""
    data, y = make_classification(300, 4, n_informative=2, n_redundant=0, n_clusters_per_class=1, random_state=1)
    signs = np.where(np.arange(300) % 2, 1, -1)[:, None]
    linear = cross_val_score(SVC(kernel="linear"), data * signs, y, cv=3).mean()
    assert cross_val_score(SVC(kernel=expressive_kernel), data * signs, y, cv=3).mean() > linear + 0.1


# attention ---------------------------------------------------------------------------------------------
@KINDS
@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_attention_is_its_definition(kernel, temperature):
    weights = WEIGHTS[kernel](Q @ K.T / temperature)
    weights /= weights.sum(axis=1, keepdims=True)
    assert_allclose(attention(Q, K, V, kernel=kernel, temperature=temperature), weights @ V, rtol=1e-8, atol=1e-10)


def test_softmax_is_the_default():
    assert_allclose(attention(Q, K, V), softmax(Q @ K.T, axis=1) @ V)


def test_attention_needs_no_stability_trick_of_the_users():
    assert np.all(np.isfinite(attention(1e3 * Q, 1e3 * K, V)))


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


@KINDS
def test_attention_threads_and_dtype(kernel):
    one, two = (attention(Q, K, V, kernel=kernel, n_jobs=n_jobs) for n_jobs in (1, 2))
    assert_array_equal(one, two)
    single = attention(*(A.astype(np.float32) for A in (Q, K, V)), kernel=kernel)
    assert single.dtype == np.float32
    assert_allclose(single, one, atol=1e-4)


@pytest.mark.parametrize(
    ("Q", "K", "V", "match"),
    [
        (Q[:, :3], K, V, "same number of columns"),
        (Q, K, V[:-1], "same number of rows"),
        (np.full_like(Q, np.nan), K, V, "Q contains NaN"),
        (Q, K[0], V, "Expected 2D array"),
    ],
    ids=["columns", "values", "nan", "1-d"],
)
def test_attention_explains_bad_input(Q, K, V, match):
    with pytest.raises(ValueError, match=match):
        attention(Q, K, V)
    with pytest.raises(ValueError, match="'kernel' parameter"):
        attention(Q, K, V, kernel="cosine")
