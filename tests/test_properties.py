"""What holds for any input: properties of the public surface, on inputs that hypothesis makes up."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from sklearn_attnembed import AttentionEmbedding, ExpressiveKernel, NormalizerEstimator, attention
from sklearn_attnembed.affinity import neighbor_affinity, random_walk
from sklearn_attnembed.metrics import log_normalizer_exact

pytestmark = pytest.mark.filterwarnings("ignore:AttentionEmbedding did not converge", "ignore:.*have no affinity")
few = settings(max_examples=15, deadline=None, derandomize=True, database=None)
seeds, sizes = st.integers(0, 2**32 - 1), st.integers(2, 25)
widths, temperatures = st.integers(1, 6), st.sampled_from([0.1, 0.5, 1.0, 4.0])
kernels = st.sampled_from(["softmax", "squared", "expressive"])
formats = st.sampled_from(["csr_array", "csc_array", "coo_array", "bsr_array", "dia_array", "lil_matrix", "dok_matrix"])


def points(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def weights(seed, n):
    """Affinities of a graph in which every node has one."""
    rng = np.random.default_rng(seed)
    return rng.random((n, n)) * (rng.random((n, n)) < 0.3) + np.eye(n)


def split(A):
    """The same matrix with every entry in two halves, and rows in falling order of columns."""
    A = sp.csr_array(A)
    out = sp.csr_array(A.shape)
    rows = np.repeat(np.arange(A.shape[0]), np.diff(A.indptr))
    order = np.lexsort((-A.indices, rows))
    out.data, out.indices = np.repeat(A.data[order] / 2, 2), np.repeat(A.indices[order], 2)
    out.indptr = A.indptr * 2
    return out


def precomputed(**params):
    return AttentionEmbedding(
        3, **{"affinity": "precomputed", "temperature": 1.0, "max_iter": 3, "random_state": 0, **params}
    )


@few
@given(seed=seeds, n=sizes, width=widths, temperature=temperatures, kernel=kernels)
def test_log_normalizer_of_rotated_and_reordered_keys(seed, n, width, temperature, kernel):
    Q, K = points(seed, 4, width), points(seed + 1, n, width)
    turn, order = np.linalg.qr(points(seed, width, width))[0], np.random.default_rng(seed).permutation(n)
    log_z = log_normalizer_exact(Q, K, kernel=kernel, temperature=temperature)
    rotated = log_normalizer_exact(Q @ turn, K[order] @ turn, kernel=kernel, temperature=temperature)
    np.testing.assert_allclose(rotated, log_z, rtol=1e-9, atol=1e-9)


@few
@given(seed=seeds, n=sizes, width=widths, temperature=temperatures, method=st.sampled_from(["gaussian", "exact"]))
def test_keys_in_any_order_and_twice(seed, n, width, temperature, method):
    Q, K = points(seed, 4, width), points(seed + 1, n, width)
    model = NormalizerEstimator(method=method, temperature=temperature, random_state=0)
    log_z = model.fit(K).score_samples(Q)
    for keys, weight, more in [
        (K[::-1], None, 0),
        (np.repeat(K, 2, 0), None, np.log(2)),
        (K, np.full(n, 2), np.log(2)),
    ]:
        again = model.fit(keys, sample_weight=weight).score_samples(Q)
        np.testing.assert_allclose(again, log_z + more, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(model.score_samples(Q[:1]), again[:1], rtol=1e-9)


@few
@given(seed=seeds, n=sizes, width=widths)
def test_chunks_are_the_whole(seed, n, width):
    Q, K = points(seed, 4, width), points(seed + 1, n, width)
    chunks = NormalizerEstimator(random_state=0)
    for chunk in np.array_split(K, 2):
        chunks.partial_fit(chunk)
    whole = NormalizerEstimator(random_state=0).fit(K)
    np.testing.assert_allclose(chunks.score_samples(Q), whole.score_samples(Q), rtol=1e-8, atol=1e-8)


@few
@given(seed=seeds, n=sizes, width=widths, kernel=kernels, causal=st.booleans())
def test_attention_is_a_mean_of_values(seed, n, width, kernel, causal):
    Q, K, V = (points(seed + i, n, width) for i in range(3))
    before = V.copy()
    out = attention(Q, K, V, kernel=kernel, causal=causal)
    assert (out >= V.min(axis=0) - 1e-9).all()
    assert (out <= V.max(axis=0) + 1e-9).all()
    np.testing.assert_allclose(attention(Q, K, V + 5, kernel=kernel, causal=causal), out + 5, atol=1e-8)
    np.testing.assert_array_equal(V, before)


@few
@given(seed=seeds, n=sizes, form=formats)
def test_walks_of_any_format(seed, n, form):
    A = weights(seed, n)
    P = random_walk(A).toarray()
    np.testing.assert_allclose(P.sum(axis=1), 1)
    np.testing.assert_allclose(random_walk(getattr(sp, form)(A)).toarray(), P, atol=1e-14)
    np.testing.assert_allclose(random_walk(split(A)).toarray(), P, atol=1e-14)


@few
@given(seed=seeds, n=sizes, weighting=st.sampled_from(["perplexity", "self_tuning", "biweight", "uniform"]))
def test_neighbors_of_split_entries(seed, n, weighting):
    D = np.random.default_rng(seed).random((n, n))
    tidy = neighbor_affinity(sp.csr_array(D), 3, weighting=weighting)
    untidy = neighbor_affinity(split(D), 3, weighting=weighting)
    np.testing.assert_allclose(untidy.toarray(), tidy.toarray(), atol=1e-9)


@few
@given(seed=seeds, n=sizes, form=formats)
def test_embedding_of_any_format_and_scale(seed, n, form):
    A = weights(seed, n)
    expected = precomputed().fit_transform(A)
    scale = np.exp(points(seed, n, 1))
    for X in (getattr(sp, form)(A), split(A), A * scale, np.asfortranarray(A)):
        np.testing.assert_allclose(precomputed().fit_transform(X), expected, atol=1e-6)
    norms = np.linalg.norm(expected, axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-9)


@few
@given(seed=seeds, n=sizes, temperature=temperatures, normalizer=st.sampled_from(["gaussian", "neighbors", "exact"]))
def test_rows_alone_together_and_in_another_order(seed, n, temperature, normalizer):
    A = weights(seed, n)
    model = precomputed(temperature=temperature, normalizer=normalizer).fit(A)
    together, order = model.transform(A), np.random.default_rng(seed).permutation(n)
    np.testing.assert_allclose(together, model.embedding_, atol=1e-6)
    np.testing.assert_allclose(model.transform(A[order]), together[order], atol=1e-6)
    np.testing.assert_allclose(model.transform(A[:1]), together[:1], atol=1e-6)
    np.testing.assert_allclose(model.attention_scores().sum(axis=1), 1)


@few
@given(seed=seeds, n=sizes, n_jobs=st.sampled_from([1, 2]))
def test_refit_forgets_and_parameters_wait_for_it(seed, n, n_jobs):
    A, B = weights(seed, n), weights(seed + 1, n + 1)
    model = precomputed().fit(A)
    before = model.transform(A)
    model.set_params(temperature=0.3, walk_length=2, n_jobs=n_jobs)
    np.testing.assert_array_equal(model.transform(A), before)
    fresh = clone(model).fit(B)
    np.testing.assert_array_equal(model.fit(B).embedding_, fresh.embedding_)


@few
@given(seed=seeds, n=sizes, width=widths, temperature=temperatures)
def test_exact_features_are_squared_scores(seed, n, width, temperature):
    X = points(seed, n, width)
    features = ExpressiveKernel(method="exact", temperature=temperature).fit_transform(X)
    np.testing.assert_allclose(features @ features.T, np.square(X @ X.T / temperature), rtol=1e-9, atol=1e-9)
    sparse = ExpressiveKernel(method="exact", temperature=temperature).fit_transform(split(X))
    np.testing.assert_allclose(sparse.toarray(), features, rtol=1e-9, atol=1e-9)


@few
@given(seed=seeds, n=sizes, width=widths)
def test_float32_is_close_to_float64(seed, n, width):
    Q, K = points(seed, 4, width), points(seed + 1, n, width)
    single, double = (
        NormalizerEstimator(method="exact").fit(K.astype(dtype)).score_samples(Q.astype(dtype))
        for dtype in (np.float32, np.float64)
    )
    np.testing.assert_allclose(single, double, atol=1e-4)
