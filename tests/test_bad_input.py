"""Invalid input: every error names the argument, the rule, the value and the remedy, before any computation."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from sklearn.exceptions import NotFittedError
from sklearn.utils._param_validation import InvalidParameterError

from sklearn_attnembed import AttentionEmbedding, ExpressiveKernel, NormalizerEstimator
from sklearn_attnembed.metrics import log_normalizer_exact

X = np.random.default_rng(0).random((12, 12))
NAN, INF = X.copy(), X.copy()
NAN[2, 3], INF[4, 5] = np.nan, np.inf

EVERYONE = {
    **{
        affinity: AttentionEmbedding(4, affinity=affinity, n_neighbors=5)
        for affinity in ("precomputed", "bipartite", "precomputed_nearest_neighbors")
    },
    "nearest_neighbors": AttentionEmbedding(4, n_neighbors=5),
    "NormalizerEstimator": NormalizerEstimator(),
    "ExpressiveKernel": ExpressiveKernel(n_components=3),
}


@pytest.mark.parametrize("name", EVERYONE)
@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (NAN, "contains NaN"),
        (INF, "contains infinity"),
        (X[0], "Expected 2D array, got 1D array instead"),
        (np.array([["a", "b"], ["c", "d"]]), "could not convert string to float|dtype='numeric'"),
        (np.empty((0, 3)), "Found array with 0 sample"),
        (X * 1j, "Complex data not supported"),
    ],
    ids=["NaN", "infinity", "1-d", "strings", "empty", "complex"],
)
def test_no_matrix_of_finite_numbers(name, bad, match):
    model = EVERYONE[name]
    with pytest.raises(ValueError, match=match):
        model.fit(bad)
    assert not hasattr(model, "embedding_")


@pytest.mark.parametrize("affinity", ["precomputed", "bipartite", "precomputed_nearest_neighbors"])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_array, sp.coo_matrix])
def test_negative_affinity(affinity, form):
    with pytest.raises(ValueError, match=r"Negative values in data.*smallest is -\d.*>= 0.*Clip them"):
        AttentionEmbedding(4, affinity=affinity, n_neighbors=5).fit(form(X - 0.5))


@pytest.mark.parametrize("affinity", ["precomputed", "precomputed_nearest_neighbors"])
def test_not_square(affinity):
    with pytest.raises(ValueError, match=rf"{affinity}.*square.*shape \(12, 5\).*nearest_neighbors"):
        AttentionEmbedding(4, affinity=affinity).fit(X[:, :5])
    if affinity == "precomputed":
        with pytest.raises(ValueError, match=r"square.*shape \(12, 5\)"):
            AttentionEmbedding(4, affinity=affinity).fit(aslinearoperator(X[:, :5]))


@pytest.mark.parametrize("bad", [NAN, INF, X - 0.5], ids=["NaN", "infinity", "negative"])
def test_operator_with_bad_sums(bad):
    with pytest.raises(ValueError, match=r"needs finite row sums >= 0, but .* ranges from"):
        AttentionEmbedding(4, affinity="precomputed").fit(aslinearoperator(bad))


def test_degree_of_an_operator_without_adjoint():
    operator = LinearOperator(X.shape, matvec=lambda x: X @ x, dtype=X.dtype)
    with pytest.raises(ValueError, match=r"no rmatvec. Give it one, or use null_model='uniform'"):
        AttentionEmbedding(4, affinity="precomputed", null_model="degree").fit(operator)
    assert AttentionEmbedding(4, affinity="precomputed", null_model="degree").fit(aslinearoperator(X)).converged_


@pytest.mark.parametrize("affinity", ["precomputed", "bipartite"])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_no_affinity_at_all(affinity, form):
    with pytest.raises(ValueError, match="no affinity at all: each of its 5 rows sums to 0"):
        AttentionEmbedding(4, affinity=affinity).fit(form(np.zeros((5, 5))))


@pytest.mark.parametrize("name", EVERYONE)
def test_wrong_columns_in_transform(name):
    with pytest.raises(ValueError, match=r"X has 11 features, but \w+ is expecting 12"):
        EVERYONE[name].fit(X).transform(X[:, :11])


@pytest.mark.parametrize("affinity", ["precomputed", "bipartite", "nearest_neighbors"])
@pytest.mark.parametrize(
    ("bad", "match"), [(NAN, "NaN"), (INF, "infinity"), (X[0], "Expected 2D")], ids=["NaN", "infinity", "1-d"]
)
def test_bad_rows_in_transform(affinity, bad, match):
    with pytest.raises(ValueError, match=match):
        EVERYONE[affinity].fit(X).transform(bad)


def test_negative_rows_in_transform():
    with pytest.raises(ValueError, match="Negative values in data"):
        AttentionEmbedding(4, affinity="precomputed").fit(X).transform(-X)


@pytest.mark.parametrize("method", ["transform", "score", "perplexity", "get_feature_names_out"])
def test_not_fitted(method):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(AttentionEmbedding(), method)(*(() if method == "get_feature_names_out" else (X,)))


@pytest.mark.parametrize(
    "model", [NormalizerEstimator(), ExpressiveKernel(), ExpressiveKernel(method="exact")], ids=str
)
def test_others_not_fitted(model):
    with pytest.raises(NotFittedError):
        model.transform(X)


@pytest.mark.parametrize("result", [X[:5], np.ones((12, 3)), -X], ids=["rows", "columns", "negative"])
def test_callable_that_returns_nonsense(result):
    with pytest.raises(ValueError, match=r"must return shape \(12, 12\)|Negative values in data"):
        AttentionEmbedding(4, affinity=lambda A, B: result).fit(X)


@pytest.mark.parametrize(
    "params",
    [
        {"n_components": 0},
        {"affinity": "rbf"},
        {"n_neighbors": 0},
        {"metric": 3},
        {"walk_length": 0},
        {"temperature": 0.0},
        {"n_clusters": 0},
        {"null_model": "none"},
        {"null_model": -1.0},
        {"normalizer": "auto"},
        {"n_exact": 0},
        {"solver": "sgd"},
        {"objective": "keys"},
        {"check_loss": "always"},
        {"max_iter": 0},
        {"tol": -1.0},
        {"random_state": "seed"},
        {"n_jobs": 1.5},
        {"verbose": -1},
    ],
    ids=str,
)
def test_bad_parameters(params):
    (name,) = params
    with pytest.raises(InvalidParameterError, match=f"The '{name}' parameter of AttentionEmbedding must be"):
        AttentionEmbedding(**params).fit(X)


def test_one_sample():
    with pytest.raises(ValueError, match="minimum of 2 is required"):
        AttentionEmbedding().fit(X[:1])


@pytest.mark.parametrize(
    "params",
    [
        {"kernel": "rbf"},
        {"method": "nystroem"},
        {"temperature": 0.0},
        {"n_clusters": 0},
        {"covariance_type": "tied"},
        {"n_samples": 7},
        {"n_exact": 0},
        {"n_heavy": -1},
        {"n_components": 0},
        {"tol": 0.0},
        {"random_state": "seed"},
        {"n_jobs": 1.5},
    ],
    ids=str,
)
def test_bad_parameters_of_the_normalizer(params):
    (name,) = params
    with pytest.raises(InvalidParameterError, match=f"The '{name}' parameter of NormalizerEstimator must be"):
        NormalizerEstimator(**params).fit(X)


@pytest.mark.parametrize("kernel", ["squared", "expressive", np.abs])
@pytest.mark.parametrize("method", ["random_fourier", "positive_features"])
def test_random_features_of_other_kernels(kernel, method):
    model = NormalizerEstimator(kernel, method=method)
    with pytest.raises(ValueError, match=rf"{method}.*softmax' alone, got kernel=.*: use method='control_variate'"):
        model.fit(X)
    assert not hasattr(model, "n_features_in_")


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda s: s, r"finite and non-negative, but is -.* at a score of -.*: clip it"),
        (lambda s: np.exp(np.abs(s) * 1e6), "finite and non-negative, but is inf at a score of"),
        (np.sqrt, "finite and non-negative, but is nan at a score of"),
        (lambda s: s.sum(), r"one value for each score, but made shape \(\) of \("),
    ],
    ids=["negative", "infinite", "NaN", "shape"],
)
@pytest.mark.parametrize("method", ["gaussian", "control_variate", "neighbors", "exact", "auto"])
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_kernel_functions_that_are_none(function, match, method):
    with pytest.raises(ValueError, match=match):
        NormalizerEstimator(function, method=method).fit(X).score_samples(-X)


@pytest.mark.parametrize("method", ["neighbors", "exact", "auto"])
def test_chunks_where_keys_are_needed(method):
    model = NormalizerEstimator(method=method)
    assert not hasattr(model, "merge")
    with pytest.raises(AttributeError) as caught:
        model.partial_fit(X)
    assert f"method='{method}' needs them: use fit" in str(caught.value.__cause__)


@pytest.mark.parametrize("call", ["score", "score_samples_exact"])
def test_exact_value_without_keys(call):
    with pytest.raises(ValueError, match="need the keys, and partial_fit and merge keep none: use fit"):
        getattr(NormalizerEstimator().partial_fit(X), call)(X)


@pytest.mark.parametrize(
    ("other", "error", "match"),
    [
        (NormalizerEstimator(temperature=2.0), ValueError, "equal parameters, but temperature is 1 here and 2 there"),
        (
            NormalizerEstimator("squared"),
            ValueError,
            "equal parameters, but kernel is 'softmax' here and 'squared' there",
        ),
        (NormalizerEstimator(method="sampling"), ValueError, "but method is 'gaussian' here and 'sampling' there"),
        (NormalizerEstimator(n_heavy=3), ValueError, "but n_heavy is 0 here and 3 there"),
        (ExpressiveKernel(n_components=3), TypeError, "other must be a NormalizerEstimator, got ExpressiveKernel"),
    ],
    ids=str,
)
def test_merge_of_different_things(other, error, match):
    model = NormalizerEstimator().fit(X)
    before = model.score_samples(X)
    with pytest.raises(error, match=match):
        model.merge(other.fit(X))
    with pytest.raises(ValueError, match="keys of equal width, but they have 12 and 5 features"):
        model.merge(NormalizerEstimator().fit(X[:, :5]))
    with pytest.raises(NotFittedError):
        model.merge(NormalizerEstimator())
    np.testing.assert_array_equal(model.score_samples(X), before)


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        (np.zeros(12), r"_weight must hold a weight >= 0 for each of the 12 keys, and not zero for all; .* 0 to 0\. "),
        (-np.ones(12), r"_weight must hold a weight >= 0 .* entries from -1 to -1\. Clip it"),
        (np.ones(11), r"_weight must hold a weight >= 0 for each of the 12 keys.* got shape \(11,\)"),
        (np.full(12, np.nan), "_weight contains NaN"),
    ],
    ids=["zero", "negative", "length", "NaN"],
)
def test_bad_key_weights(weights, match):
    for fit in (NormalizerEstimator().fit, NormalizerEstimator().partial_fit):
        with pytest.raises(ValueError, match=match):
            fit(X, sample_weight=weights)
    with pytest.raises(ValueError, match=match):
        log_normalizer_exact(X, X, key_weight=weights)
