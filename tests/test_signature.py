"""Components that count negatively: when they are taken, what they find, and that all scores go by the same signs."""

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score

from sklearn_attnembed import AttentionEmbedding, load, save
from sklearn_attnembed._core.affinity_matrix import blocked, row_stochastic
from sklearn_attnembed._core.signature import relates_kinds, signs
from sklearn_attnembed.datasets import make_block_model

N, KINDS = 600, 6


def blocks(own, other, n=N, per_row=20, seed=0):
    """Nodes of six kinds in pairs of kinds: weights of links within a kind and to the kind that it is paired with."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % KINDS
    rate = np.full((KINDS, KINDS), 0.05)
    rate[np.arange(KINDS), np.arange(KINDS)] = own
    rate[np.arange(KINDS), np.arange(KINDS) ^ 1] = other
    degree = rng.pareto(3, n) + 0.5
    chance = rate[kind][:, kind] * np.outer(degree, degree)
    upper = sp.triu(sp.csr_array(rng.random((n, n)) < chance * (per_row * n / chance.sum())), 1)
    A = sp.csr_array(upper + upper.T, dtype=np.float64)
    return A, kind


def fit(A, n_components=16, **params):
    return AttentionEmbedding(n_components, affinity="precomputed", random_state=0, **params).fit(A)


def unit_scores(model):
    return model.embedding_ @ model.key_embedding_.T


# When they are taken ---------------------------------------------------------------------------------
def test_signs_are_negative_at_the_end():
    assert signs(4, 0) is None
    assert_array_equal(signs(4, 1), [1, 1, 1, -1])


def stars(n):
    return nx.to_scipy_sparse_array(nx.random_labeled_tree(n, seed=0), dtype=float)


GRAPHS = {
    "kinds": (lambda: blocks(0, 1)[0], True),
    "communities": (lambda: blocks(1, 0)[0], False),
    "weak communities": (lambda: make_block_model(600, 2, mean_degree=10, random_state=0)[0], False),
    "no structure": (lambda: nx.to_scipy_sparse_array(nx.gnm_random_graph(N, 6000, seed=0), dtype=float), False),
    "a tree": (lambda: stars(N), False),
    "a grid": (lambda: nx.to_scipy_sparse_array(nx.grid_2d_graph(25, 25), dtype=float), False),
    "few nodes": (lambda: blocks(0, 1, n=300)[0], False),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_of_kinds_are_told_from_others(name):
    A, expected = GRAPHS[name][0](), GRAPHS[name][1]
    P, isolated = row_stochastic(A, np.float64)
    keep = ~isolated
    P, degrees = sp.csr_array(P[keep][:, keep]), np.asarray(A.sum(axis=1)).ravel()[keep]
    for seed in range(5):
        assert relates_kinds(blocked(P, [slice(0, len(degrees))]), degrees, P.dtype, seed, map) == expected


@pytest.mark.filterwarnings("ignore:.* rows? .* no affinity")
def test_auto_takes_half_of_the_components_and_walks_of_one_step():
    kinds, communities = blocks(0, 1)[0], blocks(1, 0)[0]
    model = fit(kinds, walk_length="auto")
    assert (model.n_negative_, model._fitted.walk_length) == (8, 1)
    model = fit(communities, walk_length="auto")
    assert (model.n_negative_, model._fitted.walk_length) == (0, 3)
    assert fit(kinds, n_negative=0).n_negative_ == 0
    assert_array_equal(fit(kinds, n_negative=8).embedding_, fit(kinds).embedding_)


def test_links_to_nodes_without_links_have_no_kinds():
    A = sp.csr_array((np.ones(N), (np.arange(N), np.full(N, N))), (N + 1, N + 1))
    with pytest.warns(UserWarning, match="1 of 601 rows have no affinity"):
        assert fit(A).n_negative_ == 0


def test_auto_is_plain_for_all_but_graphs():
    points = np.random.default_rng(0).standard_normal((400, 5))
    model = AttentionEmbedding(4, walk_length="auto", random_state=0).fit(points)
    assert (model.n_negative_, model._fitted.walk_length) == (0, 1)
    assert_array_equal(model.embedding_, AttentionEmbedding(4, random_state=0).fit(points).embedding_)


def test_bad_values():
    A = make_block_model(60, 3, random_state=0)[0]
    with pytest.raises(ValueError, match="n_negative must be at most n_components=4, but it is 5"):
        fit(A, n_components=4, n_negative=5)
    with pytest.raises(ValueError, match="n_negative=1 has no effect with affinity='bipartite'"):
        AttentionEmbedding(4, affinity="bipartite", n_negative=1).fit(A)
    with pytest.raises(ValueError, match="needs n_negative='auto'"):
        fit(A, kernel="expressive", n_negative=1)


# What they find --------------------------------------------------------------------------------------
@pytest.mark.parametrize("objective", ["queries", "joint"])
def test_kinds_are_found(objective):
    A, kind = blocks(0, 1)
    with_signs = fit(A, objective=objective)
    found = [
        normalized_mutual_info_score(kind, KMeans(KINDS, n_init=10, random_state=0).fit_predict(model.embedding_))
        for model in (with_signs, fit(A, objective=objective, n_negative=0))
    ]
    assert found[0] > 0.9
    assert found[0] > found[1] + 0.2
    assert with_signs.converged_


# The same signs everywhere ---------------------------------------------------------------------------
@pytest.fixture(scope="module", params=["gaussian", "neighbors", "exact", "clusters"])
def model(request):
    kind = {"n_clusters": 3} if request.param == "clusters" else {"normalizer": request.param}
    return fit(blocks(0, 1)[0], n_components=8, n_negative=3, tol=1e-3, temperature=0.5, **kind)


def test_keys_are_the_vectors_with_the_signs(model):
    signed = model.embedding_ * signs(8, 3)
    assert np.mean(np.sum(signed * model.key_embedding_, axis=1)) > 0.99


def test_new_rows_are_embedded_alike(model):
    P = model.affinity_matrix_
    assert_allclose(model.transform(P), model.embedding_, atol=1e-6)
    new = sp.csr_array(P[:50] + P[6:56])
    scores = np.sum(model.transform(new) * (new @ model.key_embedding_), axis=1)
    by_chance = np.sum(model.transform(new)[::-1] * (new @ model.key_embedding_), axis=1)
    assert scores.mean() > by_chance.mean() + 0.3


def test_exact_loss(model):
    Y = model._fitted.vectors
    scores = 2.0 * (Y * signs(8, 3)) @ Y.T
    P = model.affinity_matrix_.toarray()
    losses = logsumexp(scores, axis=1) - np.sum(P * scores, axis=1) + 2.0 * Y @ Y.mean(axis=0)
    assert abs(model.exact_loss_ - losses.mean()) < 4 * model.exact_loss_std_ + 0.02


def test_attention_likelihood_and_links(model):
    scores = 2.0 * unit_scores(model)
    attention = model.attention_scores(rows=[0, 3])
    assert_allclose(np.log(attention), scores[[0, 3]] - logsumexp(scores[[0, 3]], axis=1)[:, None], rtol=1e-6)
    degrees = np.log(np.asarray(blocks(0, 1)[0].sum(axis=1)).ravel())
    expected = (scores[1, 2] + scores[2, 1]) / 2 + degrees[1] + degrees[2]
    assert_allclose(model.score_links([[1, 2]]), expected, rtol=1e-6)
    assert_allclose(model.score_links([[2, 1]]), expected, rtol=1e-6)


def test_files_keep_the_signs(model, tmp_path):
    save(model, tmp_path / "model.npz")
    again = load(tmp_path / "model.npz")
    new = sp.csr_array(model.affinity_matrix_[:20] + model.affinity_matrix_[6:26])
    assert again.n_negative_ == 3
    assert_array_equal(again.transform(new), model.transform(new))


def test_same_bits_with_more_threads():
    A = blocks(0, 1, n=1200)[0]
    assert_array_equal(fit(A, n_jobs=1).embedding_, fit(A, n_jobs=2).embedding_)


def test_a_warm_start_goes_on_from_the_vectors():
    A = blocks(0, 1)[0]
    model = fit(A, warm_start=True, tol=1e-4, max_iter=300)
    before = model.loss_curve_[-1]
    assert abs(model.fit(A).loss_curve_[0] - before) < 1e-2
