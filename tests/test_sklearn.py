"""scikit-learn's own checks, over every affinity, kernel and method, and those it keeps to itself."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import clone
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_attnembed import AttentionEmbedding, ExpressiveKernel, NormalizerEstimator

ESTIMATORS = [
    AttentionEmbedding(),
    AttentionEmbedding(affinity="precomputed"),
    AttentionEmbedding(affinity="precomputed_nearest_neighbors"),
    AttentionEmbedding(affinity="bipartite"),
    AttentionEmbedding(affinity=rbf_kernel),
    AttentionEmbedding(normalizer="exact"),
    AttentionEmbedding(normalizer="neighbors", n_exact=5),
    AttentionEmbedding(solver="gradient", n_clusters=2, walk_length=2, null_model="degree"),
    NormalizerEstimator(),
    NormalizerEstimator("squared", n_clusters=3),
    NormalizerEstimator(method="control_variate", n_clusters=2, n_heavy=2, random_state=0),
    NormalizerEstimator(method="sampling", random_state=0),
    NormalizerEstimator(method="neighbors", n_clusters=2, random_state=0),
    NormalizerEstimator(method="random_fourier", random_state=0),
    NormalizerEstimator(method="positive_features", random_state=0),
    NormalizerEstimator(np.abs, method="auto", random_state=0),
    NormalizerEstimator(covariance_type="diag"),
    NormalizerEstimator("expressive", method="exact"),
    ExpressiveKernel(),
    ExpressiveKernel("softmax", normalize=False),
    ExpressiveKernel("squared", method="exact"),
    ExpressiveKernel(method="sketch"),
]


def expected(estimator):
    if getattr(estimator, "n_heavy", 0):
        reason = "a key of weight two is one of the n_heavy keys, its two copies are two of them"
        return dict.fromkeys(("check_sample_weight_equivalence_on_dense_data",), reason)
    return {}


# What the checks' tiny data provoke on purpose: clipping, isolated rows, iterations cut short.
@pytest.mark.filterwarnings("ignore:n_neighbors=:UserWarning")
@pytest.mark.filterwarnings("ignore:n_components=:UserWarning")
@pytest.mark.filterwarnings("ignore:.*have no affinity:UserWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(ESTIMATORS, legacy=True, expected_failed_checks=expected, xfail_strict=True)
def test_scikit_learn(estimator, check):
    check(estimator)


# Not handed to third parties ---------------------------------------------------------------------------
UNOFFICIAL = [
    "check_dataframe_column_names_consistency",
    "check_get_feature_names_out_error",
    "check_param_validation",
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_global_output_transform_pandas",
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
    "check_inplace_ensure_writeable",
]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("check", UNOFFICIAL)
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_scikit_learn_unofficial(estimator, check):
    getattr(estimator_checks, check)(type(estimator).__name__, clone(estimator))


@pytest.mark.parametrize(
    "estimator",
    [
        AttentionEmbedding(4, random_state=0),
        NormalizerEstimator(n_clusters=2, random_state=0),
        ExpressiveKernel(n_components=5, random_state=0),
    ],
    ids=lambda e: type(e).__name__,
)
def test_pandas_in_and_out(estimator, digits):
    X, _ = digits
    frame = pd.DataFrame(X[:60], columns=[f"pixel {i}" for i in range(64)], index=np.arange(60) * 2)
    plain = clone(estimator).fit_transform(X[:60])
    out = estimator.set_output(transform="pandas").fit_transform(frame)
    assert_allclose(out.to_numpy(), plain)
    assert_array_equal(out.index, frame.index)
    assert_array_equal(out.columns, estimator.get_feature_names_out())
    assert list(estimator.feature_names_in_) == list(frame.columns)
    with pytest.raises(ValueError, match="feature names should match"):
        estimator.transform(frame[frame.columns[::-1]])


def test_array_api_dispatch_was_possible():
    """Or scikit-learn skips checks without a word."""
    from scipy._lib._array_api import SCIPY_ARRAY_API

    assert SCIPY_ARRAY_API


def test_html_repr_and_tags():
    for estimator in ESTIMATORS:
        assert type(estimator).__name__ in estimator._repr_html_()
    tags = AttentionEmbedding(affinity="precomputed").__sklearn_tags__()
    assert tags.input_tags.pairwise
    assert tags.input_tags.positive_only
    assert tags.input_tags.sparse
    assert not AttentionEmbedding().__sklearn_tags__().input_tags.pairwise
    with config_context(transform_output="pandas"):
        assert isinstance(ExpressiveKernel(n_components=2).fit_transform(np.eye(3)), pd.DataFrame)
