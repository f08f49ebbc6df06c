"""Files that last: what is loaded is what was saved, to the bit; whatever else is in a file is refused."""

import io
import json
import pickle
import re
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse.linalg import aslinearoperator
from sklearn.exceptions import NotFittedError
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import kneighbors_graph
from sklearn.pipeline import make_pipeline

from sklearn_attnembed import (
    AttentionEmbedding,
    AttentionWordVectors,
    ExpressiveKernel,
    NormalizerEstimator,
    _schema,
    _state,
    load,
    save,
)

RNG = np.random.default_rng(0)
POINTS = RNG.random((60, 5))
AFFINITY = rbf_kernel(POINTS) * (RNG.random((60, 60)) < 0.3)
AFFINITY = AFFINITY + AFFINITY.T
COUNTS = RNG.poisson(np.kron(np.eye(2), np.full((15, 10), 2)) + 0.3).astype(np.float64)
KEYS = RNG.standard_normal((1500, 3))
TEXTS = ["tea cup pot", "sea ship port", "tea pot", "ship port"] * 5


def manhattan(x, y):
    return np.abs(x - y).sum()


def words_of(text):
    return [tuple(word) for word in text.split()]


def _embedding(n_components=3, **params):
    return AttentionEmbedding(n_components, **{"tol": 0, "max_iter": 8, "random_state": 0, **params})


def _normalizer(**params):
    return NormalizerEstimator(random_state=0, **params)


def _partial(**params):
    model = _normalizer(**params)
    for chunk in np.array_split(KEYS, 3):
        model.partial_fit(chunk)
    return model


def _named(X):
    return pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])])


def _asked(model, X=KEYS[:5]):
    """Ask for standard errors, which are calibrated then."""
    model.score_samples(X, return_std=True)
    return model


# Each makes a fitted model; what is saved with it is compared by `answers`.
MODELS = {
    "points": lambda: _embedding().fit(POINTS),
    "points, float32": lambda: _embedding().fit(POINTS.astype(np.float32)),
    "points, names": lambda: _embedding().set_output(transform="pandas").fit(_named(POINTS)),
    "points, sparse": lambda: _embedding().fit(sp.csr_array(POINTS * (POINTS > 0.4))),
    "points, function": lambda: _embedding(metric=manhattan).fit(POINTS),
    "points, self-tuning": lambda: _embedding(weighting="self_tuning", walk_length=2).fit(POINTS),
    "points, clusters": lambda: _embedding(n_clusters=3, temperature=0.5).fit(POINTS),
    "precomputed": lambda: _embedding(affinity="precomputed").fit(sp.csr_array(AFFINITY)),
    "precomputed, dense, float32": lambda: _embedding(affinity="precomputed").fit(AFFINITY.astype(np.float32)),
    "precomputed, isolated": lambda: _isolated(),
    "precomputed, operator": lambda: _embedding(affinity="precomputed").fit(aslinearoperator(AFFINITY)),
    "precomputed, exact": lambda: _embedding(affinity="precomputed", normalizer="exact").fit(AFFINITY),
    "precomputed, neighbors": lambda: _near(),
    "precomputed, null model": lambda: _embedding(affinity="precomputed", null_model=np.arange(1, 61)).fit(AFFINITY),
    "precomputed, random state": lambda: _embedding(affinity="precomputed", random_state=np.random.RandomState(5)).fit(
        AFFINITY
    ),
    "precomputed, gradient": lambda: _embedding(affinity="precomputed", solver="gradient", max_iter=5).fit(AFFINITY),
    "expressive": lambda: _embedding(affinity="precomputed", kernel="expressive", temperature=1).fit(AFFINITY),
    "distances": lambda: _embedding(affinity="precomputed_nearest_neighbors", n_neighbors=5).fit(
        kneighbors_graph(POINTS, 8, mode="distance")
    ),
    "function": lambda: _embedding(affinity=rbf_kernel).fit(POINTS),
    "function, sparse": lambda: _embedding(affinity=rbf_kernel).fit(sp.coo_array(POINTS)),
    "bipartite": lambda: _embedding(affinity="bipartite", key_weight="degree").fit(_named(COUNTS)),
    "bipartite, walks": lambda: _embedding(affinity="bipartite", walk_length=2, null_model=0.5).fit(
        sp.csr_matrix(COUNTS)
    ),
    "bipartite, exact": lambda: _embedding(affinity="bipartite", normalizer="exact").fit(COUNTS),
    "log Z": lambda: _asked(_normalizer().fit(KEYS)),
    "log Z, float32, names": lambda: _normalizer().fit(_named(KEYS.astype(np.float32))),
    "log Z, weights": lambda: _normalizer(n_heavy=3).fit(KEYS, sample_weight=np.arange(1500) % 4),
    "log Z, diagonal": lambda: _normalizer(n_clusters=3, covariance_type="diag").fit(KEYS),
    "log Z, squared": lambda: _normalizer(kernel="squared", n_clusters=2).fit(KEYS),
    "log Z, function": lambda: _normalizer(kernel=np.exp, n_samples=100).fit(KEYS),
    "log Z, control_variate": lambda: _normalizer(method="control_variate", n_samples=100, n_clusters=2).fit(KEYS),
    "log Z, sampling": lambda: _asked(_normalizer(method="sampling", n_samples=100).fit(KEYS)),
    "log Z, neighbors": lambda: _normalizer(method="neighbors", n_clusters=2, n_samples=50).fit(KEYS),
    "log Z, random_fourier": lambda: _normalizer(method="random_fourier", n_components=50).fit(KEYS),
    "log Z, positive_features": lambda: _normalizer(method="positive_features", n_components=50).fit(KEYS),
    "log Z, exact": lambda: _normalizer(method="exact", kernel="expressive").fit(KEYS),
    "log Z, auto": lambda: _normalizer(method="auto", n_samples=100).fit(KEYS),
    "log Z, chunks": lambda: _partial(),
    "log Z, chunks, control_variate": lambda: _partial(method="control_variate", n_samples=100, n_heavy=2),
    "log Z, chunks, random_fourier": lambda: _partial(method="random_fourier", n_components=50),
    "log Z, merged": lambda: _partial(method="sampling", n_samples=100).merge(
        _partial(method="sampling", n_samples=100)
    ),
    "landmarks": lambda: ExpressiveKernel(n_components=7, random_state=0).fit(_named(POINTS)),
    "landmarks, given": lambda: ExpressiveKernel(
        "softmax", landmarks=POINTS[:4].tolist(), normalize=False, temperature=np.float32(0.3)
    ).fit(POINTS.astype(np.float32)),
    "products": lambda: ExpressiveKernel(method="exact", temperature=0.5).fit(POINTS),
    "products, sparse": lambda: ExpressiveKernel(method="exact").fit(sp.csr_array(POINTS)),
    "sketch": lambda: ExpressiveKernel(method="sketch", n_components=9, random_state=0).fit(POINTS),
    "words": lambda: AttentionWordVectors(3, min_count=1, tol=0, max_iter=5, random_state=0).fit(TEXTS),
    "words, function": lambda: AttentionWordVectors(
        3, min_count=1, subsample=None, tol=0, max_iter=5, analyzer=words_of, random_state=0
    ).fit(TEXTS),
}
FUNCTIONS = {
    "points, function": {"metric": manhattan},
    "function": {"affinity": rbf_kernel},
    "function, sparse": {"affinity": rbf_kernel},
    "log Z, function": {"kernel": np.exp},
    "words, function": {"analyzer": words_of},
}


def _isolated():
    A = np.zeros((62, 62))
    A[1:61, 1:61] = AFFINITY
    with pytest.warns(UserWarning, match="2 of 62 rows have no affinity"):
        return _embedding(affinity="precomputed", normalizer="exact").fit(sp.csr_array(A))


def _near():
    A = kneighbors_graph(RNG_MANY, 6)
    return _embedding(affinity="precomputed", normalizer="neighbors", n_exact=8, n_clusters=2).fit(A + A.T)


RNG_MANY = np.random.default_rng(1).random((400, 3))
fitted = cache(lambda name: MODELS[name]())


def queries(model):
    """What the model was fitted on, or what is like it."""
    if isinstance(model, AttentionWordVectors):
        return TEXTS[:4]
    n = model.n_features_in_
    X = {5: POINTS, 3: KEYS[:50], 20: COUNTS, 60: AFFINITY, 62: None, 400: None}[n]
    if n == 400:
        X = kneighbors_graph(RNG_MANY, 6).toarray()[:30]
    if n == 62:
        X = np.ones((3, 62))
    if isinstance(model, AttentionEmbedding) and model.affinity == "precomputed_nearest_neighbors":
        X = kneighbors_graph(POINTS, 8, mode="distance")
    return _named(X) if hasattr(model, "feature_names_in_") else X.copy()  # functions may ask whether X is Y


def answers(model):
    """Whatever the methods of a fitted model give."""
    X = queries(model)
    yield "transform", model.transform(X)
    if isinstance(model, AttentionEmbedding):
        yield "score", model.score(X)
        yield "explain", model.explain(0, X=X) if hasattr(model, "affinity_matrix_") else None
        yield "attention_scores", model.attention_scores(X)
        yield "explain_clusters", model.explain_clusters()
        if model.affinity == "bipartite":
            yield "recommend", model.recommend(X, 3)
            yield "transform_keys", model.transform_keys(COUNTS[:, :2])
    if isinstance(model, NormalizerEstimator):
        yield "score_samples", model.score_samples(X)
        yield "std", model.score_samples(X, return_std=True)
        if model._keys is not None:
            yield "exact", model.score_samples_exact(X)
            yield "score", model.score(X)
    if isinstance(model, AttentionWordVectors):
        yield "most_similar", model.most_similar([next(iter(model.vocabulary_))])
    yield "names", model.get_feature_names_out()


def assert_same(one, other, where=""):
    """Equal to the bit, type and dtype, all the way down."""
    assert type(one) is type(other), where
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype, where
        assert one.flags.f_contiguous == other.flags.f_contiguous, where
        assert_array_equal(one, other, err_msg=where)
    elif sp.issparse(one):
        assert one.shape == other.shape, where
        assert_same(one.tocsr().data, other.tocsr().data, where)
        assert_array_equal(one.toarray(), other.toarray(), err_msg=where)
    elif isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    elif isinstance(one, dict):
        assert set(one) == set(other), where
        for key in one:
            assert_same(one[key], other[key], f"{where}[{key!r}]")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}[{i}]")
    elif isinstance(one, np.random.RandomState):
        assert_same(one.get_state(), other.get_state(), where)
    elif hasattr(one, "__dict__") and not callable(one):
        assert_same(vars(one), vars(other), where)
    else:
        np.testing.assert_equal(other, one, err_msg=where)


@pytest.fixture
def saved(tmp_path):
    def saved(model):
        save(model, tmp_path / "model")
        return tmp_path / "model"

    return saved


# There and back --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", MODELS)
def test_there_and_back(name, saved):
    """All methods of a model that was loaded give the bits of the one that was saved."""
    model = fitted(name)
    loaded = load(saved(model), **FUNCTIONS.get(name, {}))
    before, after = dict(answers(model)), dict(answers(loaded))
    assert_same(before, after, name)


@pytest.mark.parametrize("name", MODELS)
def test_parameters(name, saved):
    loaded = load(saved(fitted(name)), **FUNCTIONS.get(name, {}))
    assert_same(fitted(name).get_params(), loaded.get_params(), name)


@pytest.mark.parametrize("name", MODELS)
def test_attributes(name, saved):
    """Every attribute is in the file, follows from what is, or is known not to be of the model."""
    model = fitted(name)
    loaded = load(saved(model), **FUNCTIONS.get(name, {}))
    layout = _state.LAYOUTS[type(model).__name__]
    kept = {place for place, _ in layout.entries.parts.values()} | {"_sklearn_output_config"}
    left = set(vars(model)) - set(model.get_params()) - kept - set(layout.derived)
    assert not left, f"neither in the format nor derived: {left}"
    assert set(vars(loaded)) == set(vars(model))
    assert_same(
        {key: value for key, value in vars(model).items() if key != "_neighbors"},
        {key: vars(loaded)[key] for key in vars(model) if key != "_neighbors"},
        name,
    )


@pytest.mark.parametrize("name", MODELS)
def test_same_bytes(name, saved, tmp_path):
    """A file that is saved again once loaded is the same."""
    content = saved(fitted(name)).read_bytes()
    save(load(tmp_path / "model", **FUNCTIONS.get(name, {})), tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == content
    with np.load(tmp_path / "model", allow_pickle=False) as arrays:  # an npz for everyone
        assert json.loads(bytes(arrays["model"]))["format"] == "sklearn_attnembed"
        assert all(array.dtype.kind in "biuf" for array in arrays.values())
