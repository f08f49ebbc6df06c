"""ExpressiveKernel and expressive_kernel."""

import pickle
import re
import tracemalloc
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import make_circles, make_classification
from sklearn.decomposition import KernelPCA
from sklearn.exceptions import NotFittedError
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import polynomial_kernel
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.svm import SVC

from sklearn_attnembed import ExpressiveKernel, expressive_kernel

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((2, 40, 6))
WEIGHTS = {"softmax": np.exp, "squared": np.square, "expressive": lambda z: z**2 / (1 + z**2)}
KINDS = pytest.mark.parametrize("kernel", WEIGHTS)
METHODS = pytest.mark.parametrize("method", ["landmarks", "exact", "sketch"])
FORMS = pytest.mark.parametrize("form", [sp.csr_matrix, sp.csr_array, sp.csc_array, sp.coo_array])


def dense(features):
    return features.toarray() if sp.issparse(features) else features


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


@KINDS
def test_given_landmarks(kernel):
    """Taken as they are, whatever `n_components`; not shared with whom they come from."""
    landmarks = Y[:3].copy()
    model = ExpressiveKernel(kernel, landmarks=landmarks, n_components=500, temperature=2.0).fit(X)
    weights = WEIGHTS[kernel](X @ Y[:3].T / 2)
    assert_allclose(model.transform(X), weights / weights.sum(axis=1, keepdims=True))
    assert model.get_feature_names_out().tolist() == ["expressivekernel0", "expressivekernel1", "expressivekernel2"]
    landmarks[:] = 0
    assert_array_equal(model.landmarks_, Y[:3])
    assert_array_equal(clone(model).landmarks, 0)


@pytest.mark.parametrize("form", [np.ndarray.tolist, pd.DataFrame, lambda L: L.astype(np.float32)], ids=str)
def test_landmarks_of_any_kind(form):
    model = ExpressiveKernel(landmarks=form(Y[:3])).fit(X)
    assert_allclose(model.transform(X), ExpressiveKernel(landmarks=Y[:3]).fit(X).transform(X), rtol=1e-4)


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"landmarks": Y[:3, :2]}, r"landmarks need the 6 columns of X, but have 2. Pass points of the same space"),
        ({"landmarks": np.full((2, 6), np.nan)}, "landmarks contains NaN"),
        ({"landmarks": Y[0]}, "Expected 2D array"),
        ({"landmarks": Y[:0]}, "0 sample"),
        (
            {"landmarks": Y[:3], "method": "exact"},
            r"method='exact' has none. Use method='landmarks', or leave them out",
        ),
        ({"landmarks": Y[:3], "method": "sketch"}, "method='sketch' has none"),
        ({"landmarks": 3}, "'landmarks' parameter"),
        ({"kernel": "rbf"}, "'kernel' parameter"),
        ({"method": "nystroem"}, "'method' parameter"),
        ({"temperature": 0.0}, "'temperature' parameter"),
        ({"n_components": 0}, "'n_components' parameter"),
        ({"normalize": "yes"}, "'normalize' parameter"),
    ],
    ids=lambda part: "-".join(part) if isinstance(part, dict) else "",
)
def test_features_explain_bad_parameters(params, match):
    model = ExpressiveKernel(**params)
    with pytest.raises(ValueError, match=match):
        model.fit(X)


@pytest.mark.parametrize(
    "params",
    [{"landmarks": Y[:3, :2]}, {"landmarks": Y[:3], "method": "exact"}, {"kernel": "softmax", "method": "sketch"}],
    ids="-".join,
)
def test_failed_fit_is_no_fit(params):
    model = ExpressiveKernel(**params)
    with pytest.raises(ValueError, match=r"Use|Pass"):
        model.fit(X)
    with pytest.raises(NotFittedError):
        model.transform(X)


def test_landmarks_are_centres():
    """Three tight bunches, three landmarks."""
    bunches = np.repeat(5 * np.eye(3), 20, axis=0)
    points = bunches + 0.01 * RNG.standard_normal((60, 3))
    model = ExpressiveKernel(n_components=3, random_state=0).fit(points)
    order = np.argsort(-model.landmarks_.argmax(axis=1))[::-1]
    assert_allclose(model.landmarks_[order], 5 * np.eye(3), atol=0.05)
    assert_array_equal(model.transform(points)[:, order].argmax(axis=1), bunches.argmax(axis=1))


def test_fewer_distinct_rows_than_landmarks():
    """Without a warning."""
    features = ExpressiveKernel(n_components=10, random_state=0).fit_transform(np.tile(X[:2], (10, 1)))
    assert features.shape == (20, 10)
    assert_allclose(features.sum(axis=1), 1)


@KINDS
def test_rows_of_weights_sum_to_one(kernel):
    """Huge and tiny scores too."""
    points = np.vstack([X, 1e3 * X, 1e-3 * X, np.zeros((1, 6))])
    features = ExpressiveKernel(kernel, n_components=5, random_state=0).fit(X).transform(points)
    assert_allclose(features.sum(axis=1), 1)
    assert features.min() >= 0
    assert_allclose(features[-1], 0.2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_that_are_not_divided_stay_finite(dtype):
    """Those of softmax end at the largest number there is."""
    points = (1e4 * X).astype(dtype)
    features = {
        kernel: ExpressiveKernel(kernel, landmarks=X[:5], normalize=False).fit(points).transform(points)
        for kernel in ("softmax", "expressive")
    }
    assert np.all(np.isfinite(features["softmax"]))
    assert features["softmax"].max() > np.finfo(dtype).max / 2
    assert 0 <= features["expressive"].min() < features["expressive"].max() <= 1


@METHODS
@FORMS
def test_sparse_rows(method, form):
    """Their features are those of the dense ones, and sparse where the method is exact."""
    points = np.where(X > 0.5, X, 0)
    plain, sparse = (ExpressiveKernel(method=method, n_components=9, random_state=0) for _ in range(2))
    expected = plain.fit_transform(points)
    features = sparse.fit_transform(form(points))
    assert_allclose(dense(features), expected, atol=1e-12)
    assert_allclose(dense(plain.transform(form(points))), expected, atol=1e-12)
    assert isinstance(features, sp.csr_array if method == "exact" else np.ndarray)
    if method == "exact":
        assert features.nnz == np.count_nonzero(expected)


@METHODS
@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_float32_stays_and_is_close(method, form):
    model = ExpressiveKernel(method=method, n_components=9, random_state=0)
    single = model.fit_transform(form(X.astype(np.float32)))
    assert single.dtype == np.float32
    assert model.transform(form(X)).dtype == np.float64
    expected = dense(model.fit_transform(form(X)))
    assert_allclose(dense(single), expected, atol=1e-4 * max(np.abs(expected).max(), 1))


@METHODS
def test_seed_copy_and_pickle(method):
    model = ExpressiveKernel(method=method, n_components=5, random_state=0)
    features = model.fit_transform(X)
    assert_array_equal(clone(model).fit(X).transform(X), features)
    assert_array_equal(pickle.loads(pickle.dumps(model)).transform(X), features)
    assert len(model.get_feature_names_out()) == features.shape[1]
    model.set_params(random_state=np.random.RandomState(1))
    assert np.allclose(model.fit_transform(X), features) == (method == "exact")


@METHODS
def test_temperature_divides_scores(method):
    cold, scaled = (ExpressiveKernel(method=method, temperature=t, n_components=5, random_state=0) for t in (0.5, 1.0))
    if method == "landmarks":
        cold.landmarks, scaled.landmarks = Y[:3], 2 * Y[:3]
        assert_allclose(cold.fit(X).transform(X), scaled.fit(X).transform(X))
    else:
        assert_allclose(cold.fit(X).transform(X), 2 * scaled.fit(X).transform(X))


def test_exact_features_in_one_dimension():
    assert_allclose(ExpressiveKernel(method="exact").fit_transform([[3.0], [-2.0]]), [[9], [4]])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("temperature", [1.0, 0.37])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_array, sp.csc_matrix], ids=lambda form: form.__name__)
def test_exact_features_are_products_in_lexicographic_order(form, temperature, dtype):
    points = np.where(X > 0.3, X, 0).astype(dtype)
    products = PolynomialFeatures((2, 2), include_bias=False).fit(points)
    factor = np.where((products.powers_ == 2).any(axis=1), 1, np.sqrt(2)) / temperature
    model = ExpressiveKernel(method="exact", temperature=temperature).fit(form(points))
    features = model.transform(form(points))
    assert_array_equal(dense(features), products.transform(points) * factor.astype(dtype))
    assert features.dtype == dtype
    assert model.get_feature_names_out().tolist() == [f"expressivekernel{i}" for i in range(21)]
    if form is not np.asarray:
        assert features.has_canonical_format


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array], ids=lambda form: form.__name__)
def test_exact_features_need_little_more_memory_than_they_take(form):
    """Not the square of their number."""
    points = form(np.ones((2, 800)))
    tracemalloc.start()
    try:
        features = ExpressiveKernel(method="exact").fit(points).transform(points)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert features.shape == (2, 800 * 801 // 2)
    size = features.data.nbytes + features.indices.nbytes if sp.issparse(features) else features.nbytes
    assert peak < 2 * size + 1e7


def split(matrix):
    """Every entry as two that add up to it, with 64-bit indices, not in order."""
    matrix = sp.csr_array(matrix)
    order = np.repeat(np.arange(matrix.nnz), 2).reshape(-1, 2)[:, ::-1].ravel()
    out = sp.csr_array(matrix.shape)
    out.data = matrix.data[order] * np.tile([0.75, 0.25], matrix.nnz)
    out.indices, out.indptr = matrix.indices[order].astype(np.int64), 2 * matrix.indptr.astype(np.int64)
    return out


@METHODS
def test_split_entries_add_up(method):
    points = np.where(X > 0.5, X, 0)
    messy, given = split(points), split(points)
    plain, sparse = (ExpressiveKernel(method=method, n_components=9, random_state=0) for _ in range(2))
    assert_allclose(dense(sparse.fit_transform(messy)), plain.fit_transform(points), atol=1e-12)
    assert_allclose(expressive_kernel(messy, split(Y)), expressive_kernel(points, Y), atol=1e-12)
    for name in ("data", "indices", "indptr"):
        assert_array_equal(getattr(messy, name), getattr(given, name))


@pytest.mark.parametrize("call", [lambda X: ExpressiveKernel(n_components=2).fit(X), lambda X: expressive_kernel(Y, X)])
def test_sparse_rows_whose_indices_are_out_of_range(call):
    points = sp.csr_array(X)
    points.indices[-1] = 10**9
    with pytest.raises(ValueError, match=r"[XY] must be .* index 1000000000, out of range for 6"):
        call(points)


OTHERS = [{"method": "exact"}, {"method": "sketch"}, {"kernel": "softmax"}, {"temperature": 9.0}, {"normalize": False}]


@METHODS
@pytest.mark.parametrize("params", OTHERS, ids=str)
def test_parameters_set_after_fit_wait_for_the_next(method, params):
    model = ExpressiveKernel(method=method, n_components=5, random_state=0).fit(X)
    features, names = model.transform(Y), model.get_feature_names_out()
    model.set_params(**params)
    assert_array_equal(model.transform(Y), features)
    assert_array_equal(model.get_feature_names_out(), names)


# Numbers of any size -----------------------------------------------------------------------------------------
SIZES = pytest.mark.parametrize("exponent", [-500, -300, 300, 520, 1000])


@METHODS
@SIZES
@pytest.mark.parametrize("form", [np.asarray, sp.csr_array], ids=lambda form: form.__name__)
def test_unit_of_length_does_not_matter_however_large(method, exponent, form):
    """Points, and the temperature with their square: squares of distances and scores may be no numbers."""
    unit, squared = 2.0**exponent, 2.0 ** min(2 * exponent, 1000)
    plain = ExpressiveKernel(method=method, n_components=5, temperature=2.0 ** (min(2 * exponent, 1000) - 2 * exponent))
    scaled = ExpressiveKernel(method=method, n_components=5, temperature=squared)
    plain, scaled = (model.set_params(random_state=0) for model in (plain, scaled))
    assert_allclose(dense(scaled.fit_transform(form(X * unit))), dense(plain.fit_transform(form(X))), rtol=1e-12)
    assert_allclose(
        expressive_kernel(form(X * unit), form(Y * unit), temperature=squared),
        expressive_kernel(form(X), form(Y), temperature=plain.temperature),
        rtol=1e-12,
    )


@pytest.mark.parametrize(
    ("method", "kernel", "normalize"),
    [("exact", "squared", True), ("sketch", "expressive", True), *product(["landmarks"], WEIGHTS, [False, True])],
)
@pytest.mark.parametrize(("dtype", "size"), [(np.float64, 1e154), (np.float64, 1e308), (np.float32, 1e38)], ids=str)
@pytest.mark.parametrize("temperature", [1e-310, 1.0, 1e200])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_array], ids=lambda form: form.__name__)
def test_largest_numbers(method, kernel, normalize, dtype, size, temperature, form):
    points = (X / np.abs(X).max() * size).astype(dtype)
    points[0] = 0
    model = ExpressiveKernel(
        kernel, method=method, n_components=5, temperature=temperature, normalize=normalize, random_state=0
    )
    features = dense(model.fit_transform(form(points)))
    assert np.all(np.isfinite(features))
    assert features.dtype == dtype
    if normalize and method == "landmarks":
        assert_allclose(features.sum(axis=1), 1, rtol=1e-6)
    weights = expressive_kernel(form(points), temperature=temperature)
    assert np.all((weights >= 0) & (weights <= 1))
    assert not weights[0].any()
    if temperature <= 1:
        assert np.diagonal(weights)[1:].min() > 0.99


# What they are good for --------------------------------------------------------------------------------------
@METHODS
def test_lines_through_the_origin_are_classified(method):
    """By the axis a point lies on, whatever its sign."""
    y = np.arange(200) % 2
    points = RNG.choice([-1, 1], (200, 1)) * np.eye(2)[y] + 0.1 * RNG.standard_normal((200, 2))
    features = ExpressiveKernel(method=method, n_components=20, random_state=0)
    assert cross_val_score(LogisticRegression(), points, y, cv=3).mean() < 0.8
    assert (
        cross_val_score(make_pipeline(features, StandardScaler(), LogisticRegression()), points, y, cv=3).mean() > 0.97
    )


def test_grid_search_over_the_features():
    data, y = make_classification(150, 4, n_informative=2, n_redundant=0, random_state=1)
    model = make_pipeline(ExpressiveKernel(n_components=5, random_state=0), StandardScaler(), LogisticRegression())
    grid = {"expressivekernel__kernel": list(WEIGHTS), "expressivekernel__temperature": [0.3, 3.0]}
    search = GridSearchCV(model, grid, cv=3, error_score="raise").fit(data, y)
    assert np.all(np.isfinite(search.cv_results_["mean_test_score"]))


# The kernel matrix ---------------------------------------------------------------------------------------
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


@FORMS
def test_expressive_kernel_of_sparse_rows(form):
    points = np.where(X > 0.5, X, 0)
    kernel = expressive_kernel(form(points), form(Y), temperature=2.0)
    assert isinstance(kernel, np.ndarray)
    assert_allclose(kernel, expressive_kernel(points, Y, temperature=2.0))
    assert_allclose(expressive_kernel(form(points)), expressive_kernel(points))


def test_expressive_kernel_of_single_rows():
    assert expressive_kernel(X[0], Y[1], temperature=2.0) == expressive_kernel(X, Y, temperature=2.0)[0, 1]
    assert isinstance(expressive_kernel(X[0].tolist(), Y[1].tolist()), float)
    assert expressive_kernel(X[0]) == expressive_kernel(X[0], X[0])


def test_expressive_kernel_does_not_overflow():
    assert_allclose(
        expressive_kernel(
            [[1e150]],
            [
                [
                    1e150,
                ],
                [-1e-150],
                [0.0],
            ],
        ),
        [[1, 0.5, 0]],
    )


@pytest.mark.parametrize("temperature", [0, -1.0, np.nan, "x", [1.0]])
def test_expressive_kernel_explains_bad_temperatures(temperature):
    with pytest.raises(ValueError, match=re.escape(f"temperature must be > 0; got {temperature!r}")):
        expressive_kernel(X, temperature=temperature)


@pytest.mark.parametrize(
    ("X", "Y", "match"),
    [(X, Y[:, :2], "Incompatible dimension"), (np.full((2, 2), np.nan), None, "contains NaN"), (X, Y[0], "1D array")],
    ids=["columns", "NaN", "1-d"],
)
def test_expressive_kernel_explains_bad_rows(X, Y, match):
    with pytest.raises(ValueError, match=match):
        expressive_kernel(X, Y)


# What its documentation says ------------------------------------------------------------------------------
def spectrum(temperature):
    return np.linalg.eigvalsh(expressive_kernel(X, temperature=temperature))


def test_not_positive_definite():
    kernel = expressive_kernel(X)
    assert_array_equal(kernel, kernel.T)
    assert spectrum(1.0)[0] < -0.05 * spectrum(1.0)[-1]
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
        np.linalg.cholesky(kernel + 1e-6 * np.eye(40))
    with pytest.raises(ValueError, match="significant negative eigenvalues"):
        KernelPCA(kernel="precomputed").fit(kernel)


def test_negative_part_vanishes_where_scores_are_small():
    """There the kernel comes close to z^2, which has none."""
    negative = [
        -values[values < 0].sum() / np.abs(values).sum() for values in map(spectrum, (1.0, 10.0, 100.0, 1000.0))
    ]
    assert negative[0] > 0.1
    assert negative[2] < 1e-2
    assert negative[3] < 1e-4
    assert_allclose(1e6 * expressive_kernel(X, temperature=1000.0), np.square(X @ X.T), rtol=1e-3)


def test_positive_definite_alternatives():
    squared = polynomial_kernel(X, Y, degree=2, coef0=0)
    assert_allclose(36 * squared, np.square(X @ Y.T))
    for features in (ExpressiveKernel(method="exact"), ExpressiveKernel(method="sketch", random_state=0)):
        products = features.fit_transform(X) @ features.transform(X).T
        assert np.linalg.eigvalsh(products)[0] > -1e-9 * np.linalg.eigvalsh(products)[-1]


def test_kernel_ridge():
    """With a function it is what it is with a matrix; alpha above minus the smallest eigenvalue is safe."""
    y = np.sin(X[:, 0])
    alpha = 1.5 * -spectrum(1.0)[0]
    called = KernelRidge(alpha=alpha, kernel=expressive_kernel).fit(X, y)
    given = KernelRidge(alpha=alpha, kernel="precomputed").fit(expressive_kernel(X), y)
    assert_allclose(called.predict(Y), given.predict(expressive_kernel(Y, X)))
    assert np.abs(called.predict(X)).max() < 3


def test_kernel_ridge_explodes_near_an_eigenvalue():
    y = np.sin(X[:, 0])
    model = KernelRidge(alpha=-spectrum(1.0)[0] * (1 + 1e-7), kernel="precomputed").fit(expressive_kernel(X), y)
    assert np.abs(model.predict(expressive_kernel(X))).max() > 1e3


def test_support_vector_machine_with_a_temperature():
    """A function of two tables, or the matrix: the same."""
    data, y = make_circles(200, factor=0.4, noise=0.05, random_state=0)
    kernel = partial(expressive_kernel, temperature=0.5)
    called = SVC(kernel=kernel).fit(data[::2], y[::2])
    given = SVC(kernel="precomputed").fit(kernel(data[::2]), y[::2])
    assert_allclose(called.decision_function(data), given.decision_function(kernel(data, data[::2])))
    assert called.score(data[1::2], y[1::2]) > 0.8


def test_one_landmark_however_it_is_counted():
    one, true = (ExpressiveKernel(n_components=n, random_state=0).fit(X).landmarks_ for n in (1, True))
    assert_array_equal(one, true)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_landmarks_of_a_sparse_matrix_that_cannot_be_written(dtype):
    S = sp.csr_array(X.astype(dtype))
    expected = ExpressiveKernel(n_components=3, random_state=0).fit_transform(S)
    for part in (S.data, S.indices, S.indptr):
        part.flags.writeable = False
    assert_array_equal(ExpressiveKernel(n_components=3, random_state=0).fit_transform(S), expected)


def test_rows_of_several_lengths_are_refused_by_name():
    with pytest.raises(ValueError, match="setting an array element with a sequence") as refusal:
        expressive_kernel([[1.0], [1.0, 2.0]])
    assert any(entry.name == "check_array" for entry in refusal.traceback)
