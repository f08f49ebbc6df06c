"""Several relations of the same samples: mixed, side by side, with weights that are given or learned; signed edges."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from sklearn_attnembed import AttentionEmbedding
from sklearn_attnembed.affinity import concatenate_affinities, mix_affinities, random_walk
from sklearn_attnembed.datasets import make_block_model

A = np.array([[0, 3, 1], [2, 0, 0], [0, 0, 0]], float)
B = np.array([[1, 0, 1], [0, 0, 0], [0, 0, 0]], float)
FORMS = [np.asarray, np.ndarray.tolist, sp.csr_array, sp.coo_matrix, sp.lil_array]


@pytest.fixture(scope="module")
def types():
    """Two types of edges between the same 200 nodes: within communities and at random; and the communities."""
    friends, y = make_block_model(200, 4, mean_degree=20, random_state=0)
    return friends, make_block_model(200, 1, mean_degree=20, random_state=1)[0], y


@pytest.fixture(scope="module")
def model():
    return AttentionEmbedding(8, affinity="precomputed", random_state=0)


# Given weights -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("form", FORMS)
def test_mixture(form):
    mixed, weights = mix_affinities([form(A), form(B)], weights=[3, 1])
    expected = [[0.125, 0.5625, 0.3125], [1, 0, 0], [0, 0, 0]]  # the second row is in one relation alone
    assert_allclose(mixed.toarray(), expected, rtol=1e-12)
    assert_array_equal(weights, [0.75, 0.25])


@pytest.mark.parametrize("form", FORMS)
def test_side_by_side(form):
    joined = concatenate_affinities([form(A), form(B[:, :2])], weights=[3, 1])
    assert_allclose(joined.toarray(), [[0, 0.5625, 0.1875, 0.25, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]], rtol=1e-12)


def test_scales_of_relations_do_not_matter():
    for function in (mix_affinities, concatenate_affinities):
        one, other = function([A, B]), function([1e200 * A, 1e-200 * B])
        one, other = (found[0] if isinstance(found, tuple) else found for found in (one, other))
        assert_allclose(one.toarray(), other.toarray(), rtol=1e-12)


def test_no_weight_is_no_relation():
    assert_allclose(mix_affinities([A, B], [1, 0]).affinity.toarray(), random_walk(A).toarray(), rtol=1e-15)
    assert_allclose(concatenate_affinities([A, B], [1, 0]).toarray()[:, :3], random_walk(A).toarray(), rtol=1e-15)


@pytest.mark.parametrize("dtypes", [("f4", "f4"), ("f4", "f8"), ("f8", "f8"), ("i4", "f4")])
def test_precision(dtypes):
    given = [X.astype(dtype) for X, dtype in zip((A, B), dtypes, strict=True)]
    expected = np.float32 if dtypes == ("f4", "f4") else np.float64
    assert mix_affinities(given).affinity.dtype == concatenate_affinities(given).dtype == expected


def test_input_is_not_changed():
    given = [sp.csr_array(A), sp.csr_array(B)]
    for X in given:
        X.data.flags.writeable = X.indices.flags.writeable = X.indptr.flags.writeable = False
    mix_affinities(given), concatenate_affinities(given)


def test_new_rows_are_mixed_in_the_same_way(types, model):
    friends, others, _ = types
    mixed, weights = mix_affinities([friends, others], [0.8, 0.2])
    new = mix_affinities([friends[:5], others[:5]], weights).affinity
    assert_allclose(model.fit(mixed).transform(new), model.embedding_[:5], atol=1e-6)


# Learned weights -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("seed", [0, 1])
def test_noise_gets_no_weight(types, model, order, seed):
    friends, noise, _ = types
    weights = mix_affinities([friends, noise][::order], "held_out", estimator=model, random_state=seed).weights
    assert weights[::order][1] <= 0.0625
    assert_allclose(weights.sum(), 1)


def test_two_halves_of_the_edges_both_get_weight(types, model):
    edges = sp.coo_array(sp.triu(types[0]))
    is_first = np.random.default_rng(0).random(edges.nnz) < 0.5
    halves = [
        sp.csr_array((edges.data[kept], (edges.row[kept], edges.col[kept])), edges.shape)
        for kept in (is_first, ~is_first)
    ]
    halves = [half + half.T for half in halves]
    weights = mix_affinities(halves, "held_out", estimator=model, random_state=0).weights
    assert 0.25 <= weights[0] <= 0.75


def test_learned_weights_are_those_of_the_mixture(types, model):
    mixed = mix_affinities(types[:2], "held_out", estimator=model, random_state=0)
    again = mix_affinities(types[:2], "held_out", estimator=model, random_state=0)
    assert_array_equal(mixed.weights, again.weights)
    assert_array_equal(mixed.affinity.toarray(), mix_affinities(types[:2], mixed.weights).affinity.toarray())


def test_number_of_fits_is_bounded(types):
    class Counted(AttentionEmbedding):
        fits = 0

        def fit(self, X, y=None):
            Counted.fits += 1
            return super().fit(X)

    counted = Counted(4, affinity="precomputed", random_state=0)
    assert_array_equal(mix_affinities(types[:2], "held_out", estimator=counted, max_fits=1).weights, [0.5, 0.5])
    assert Counted.fits == 1
    mix_affinities(types[:2], "held_out", estimator=counted, max_fits=4, random_state=0)
    assert Counted.fits <= 1 + 4
    assert not hasattr(counted, "embedding_")  # clones are fitted


# Features and signs --------------------------------------------------------------------------------------
def test_features_beside_links_classify_unseen_nodes():
    links, y = make_block_model(300, 3, mean_degree=6, random_state=0)
    features = np.random.default_rng(0).poisson(0.5 + np.eye(3).repeat(5, axis=1)[y])
    both = concatenate_affinities([links + sp.eye_array(300), features])
    pipeline = make_pipeline(
        AttentionEmbedding(16, affinity="bipartite", walk_length=3, random_state=0), LogisticRegression()
    )
    score, alone = (cross_val_score(pipeline, X, y, cv=3).mean() for X in (both, features))
    assert score > alone + 0.02


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_remedy_for_signed_edges(form):
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=200)
    is_friend = y[:, None] == y
    S = np.triu(rng.random((200, 200)) < np.where(is_friend, 0.03, 0.1), 1) * np.where(is_friend, 1.0, -1.0)
    X = form(S + S.T)
    with pytest.raises(ValueError, match=r"concatenate_affinities\(\[abs\(X\) \+ X, abs\(X\) - X\]\)"):
        AttentionEmbedding(affinity="precomputed").fit(X)
    joined = concatenate_affinities([abs(X) + X, abs(X) - X])
    vectors = AttentionEmbedding(8, affinity="bipartite", random_state=0).fit_transform(joined)
    assert adjusted_rand_score(y, KMeans(2, n_init=3, random_state=0).fit_predict(vectors)) > 0.9


# Weights of edges ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("source", ["precomputed", "random_walk", "table"])
def test_heavier_edges_are_attended_to_more(graph, source):
    edges = sp.coo_array(sp.triu(graph[0], 1))
    heavy = np.random.default_rng(0).random(edges.nnz) < 0.5
    table = pd.DataFrame({"i": edges.row, "j": edges.col, "weight": np.where(heavy, 5.0, 1.0)})
    n = graph[0].shape[0]
    W = sp.coo_array((table["weight"], (table["i"], table["j"])), shape=(n, n))
    X = {
        "precomputed": W + W.T,
        "random_walk": random_walk(W + W.T),
        "table": random_walk(table, nodes=np.arange(n)),
    }[source]
    attention = AttentionEmbedding(16, affinity="precomputed", random_state=0).fit(X).attention_scores()
    given = attention[edges.row, edges.col]
    assert given[heavy].mean() > 1.5 * given[~heavy].mean()
