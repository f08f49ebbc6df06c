"""Scores of links, and the search for the best new ones against a comparison of all pairs."""

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import roc_auc_score

from sklearn_attnembed import AttentionEmbedding, load, save
from sklearn_attnembed.datasets import make_block_model

GRAPH = sp.csr_array(make_block_model(300, 4, mean_degree=20, random_state=0)[0])
RNG = np.random.default_rng(0)
WEIGHTED = sp.csr_array(GRAPH.multiply(GRAPH.toarray() * RNG.integers(1, 9, size=(300, 1))))
COUNTS = sp.csr_array(RNG.poisson(np.kron(np.eye(2), np.full((150, 20), 0.4)) + 0.05).astype(float))


def fitted(X=GRAPH, affinity="precomputed", **params):
    return AttentionEmbedding(8, **{"affinity": affinity, "max_iter": 15, "tol": 0, "random_state": 0, **params}).fit(X)


def all_scores(model, X, *, is_symmetric=False):
    """Compute the scores of all pairs from public attributes."""
    X = X.toarray()
    with np.errstate(divide="ignore"):
        out, into = np.log(X.sum(axis=1)), np.log(X.sum(axis=0))
    products = model.embedding_.astype(float) @ model.key_embedding_.T.astype(float)
    products = (products + products.T) / 2 if is_symmetric else products
    return products / model.temperature + out[:, None] + into


def best_new(scores, X, *, is_symmetric=False, is_square=True):
    """Rank all pairs that are not linked."""
    allowed = X.toarray() == 0
    if is_square:
        np.fill_diagonal(allowed, False)
    allowed = np.triu(allowed) if is_symmetric else allowed
    pairs = np.argwhere(allowed & np.isfinite(scores))
    values = scores[tuple(pairs.T)]
    order = np.argsort(-values, kind="stable")
    return pairs[order], values[order]


def pairs_of(X):
    return np.argwhere(np.ones(X.shape))


CASES = {
    "symmetric": (GRAPH, "precomputed", True),
    "directed": (WEIGHTED, "precomputed", False),
    "table": (COUNTS, "bipartite", False),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    X, affinity, is_symmetric = CASES[request.param]
    return fitted(X, affinity), X, is_symmetric


def test_scores_are_products_and_degrees(case):
    model, X, is_symmetric = case
    scores = model.score_links(pairs_of(X)).reshape(X.shape)
    assert_allclose(scores, all_scores(model, X, is_symmetric=is_symmetric), rtol=1e-9)
    if X.shape[0] == X.shape[1]:
        assert np.array_equal(scores, scores.T) == is_symmetric


@pytest.mark.parametrize("n_links", [1, 40, 3000])
def test_best_links_are_those_of_all_pairs(case, n_links):
    model, X, is_symmetric = case
    pairs, scores = model.predict_links(n_links)
    is_square = X.shape[0] == X.shape[1]
    expected, values = best_new(
        all_scores(model, X, is_symmetric=is_symmetric), X, is_symmetric=is_symmetric, is_square=is_square
    )
    n_links = min(n_links, len(values))
    assert pairs.shape == (n_links, 2)
    assert_allclose(scores, values[:n_links], rtol=1e-6)
    assert_allclose(model.score_links(pairs), scores, rtol=1e-12)
    assert len(np.unique(pairs, axis=0)) == n_links
    found = set(map(tuple, pairs.tolist())) & set(map(tuple, expected[:n_links].tolist()))
    assert len(found) >= n_links - 2  # equal scores


@pytest.mark.parametrize("is_symmetric", [True, False])
def test_recall_of_the_index(is_symmetric):
    """Most rows are not among those of largest degree, and cells around a query are a part of all."""
    n, n_links = 4000, 500
    A = sp.csr_array(make_block_model(n, 20, mean_degree=6, random_state=1)[0]) + sp.eye_array(n, format="csr")
    if not is_symmetric:
        A = sp.csr_array(sp.triu(A) + sp.tril(A, -1) * (np.arange(n) % 3 > 0))
    model = fitted(A.astype(np.float32), max_iter=8)
    pairs, scores = model.predict_links(n_links, n_candidates=16)
    exact = all_scores(model, A, is_symmetric=is_symmetric)
    exact[A.nonzero()] = -np.inf
    if is_symmetric:
        exact[np.tril_indices(n)] = -np.inf
    worst = -np.partition(-exact.ravel(), n_links)[n_links - 1]
    assert np.mean(scores >= worst - 1e-4) >= 0.97
    assert not A[pairs[:, 0], pairs[:, 1]].any()


def test_degrees_predict_held_out_links():
    rng = np.random.default_rng(1)
    popularity = rng.pareto(1.5, size=400) + 0.3
    A = rng.random((400, 400)) < np.minimum(popularity[:, None] * popularity / 60, 1)
    A = np.triu(A, 1)
    edges = rng.permutation(np.argwhere(A))
    train = np.zeros((400, 400))
    train[tuple(edges[len(edges) // 10 :].T)] = 1
    train += train.T + np.eye(400)
    others = np.argwhere(np.triu(~A, 1))
    pairs = np.concatenate([edges[: len(edges) // 10], rng.choice(others, len(edges) // 10)])
    model = fitted(train)
    is_link = np.arange(len(pairs)) < len(edges) // 10
    products = np.einsum("ij,ij->i", model.embedding_[pairs[:, 0]], model.key_embedding_[pairs[:, 1]])
    assert roc_auc_score(is_link, model.score_links(pairs)) > roc_auc_score(is_link, products) + 0.05


def test_no_affinity_is_never_linked():
    A = np.zeros((12, 12))
    A[:10, :10] = 1 - np.eye(10)
    A[0, 1] = A[1, 0] = 0
    with pytest.warns(UserWarning, match="2 of 12 rows"):
        model = fitted(A, temperature=1)
    assert np.isneginf(model.score_links([[0, 11], [11, 3]])).all()
    assert_array_equal(model.predict_links(5)[0], [[0, 1]])


def test_storage_threads_and_precision_change_nothing():
    pairs, scores = fitted(n_jobs=1).predict_links(200)
    for other in (fitted(n_jobs=2), fitted(GRAPH.toarray()), fitted(GRAPH * 3.0)):
        theirs = other.predict_links(200)[1]
        shift = theirs[0] - scores[0]
        assert_allclose(theirs - shift, scores, rtol=1e-6)
    again = fitted(n_jobs=2).predict_links(200)
    assert again[0].tobytes() == pairs.tobytes()
    assert again[1].tobytes() == scores.tobytes()
    single = fitted(GRAPH.astype(np.float32)).predict_links(200)[1]
    assert_allclose(single, scores, atol=0.05)


def test_files_of_earlier_versions_have_no_degrees(tmp_path):
    model = fitted()
    save(model, tmp_path / "model")
    assert_array_equal(load(tmp_path / "model").score_links([[0, 1]]), model.score_links([[0, 1]]))
    model._fitted = model._fitted._replace(row_sums=None, column_sums=None)
    save(model, tmp_path / "earlier")
    earlier = load(tmp_path / "earlier")
    assert_array_equal(earlier.transform(GRAPH), model.embedding_)
    with pytest.raises(ValueError, match="of an earlier version"):
        earlier.score_links([[0, 1]])


@pytest.mark.parametrize("pairs", [[1, 2], [[0.5, 1.0]], [[0, 1, 2]], [[0, 300]], [[-1, 0]], [["a", "b"]]])
def test_bad_pairs(pairs):
    with pytest.raises(ValueError, match="pairs must be"):
        fitted(max_iter=1).score_links(pairs)
