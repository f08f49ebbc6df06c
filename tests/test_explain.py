"""attention_scores, score and the tables of AttentionEmbedding, against formulas written out by hand."""

import pickle
import tracemalloc
from functools import cache

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose
from scipy.sparse.linalg import aslinearoperator
from scipy.special import logsumexp
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import KNeighborsTransformer

from sklearn_attnembed import AttentionEmbedding, _explain
from sklearn_attnembed.affinity import neighbor_affinity
from sklearn_attnembed.datasets import make_block_model
from sklearn_attnembed.metrics import attention_cross_entropy, log_normalizer_exact

# A Gaussian fails for few rows at low temperatures and warns, which is not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.* ended at a loss:sklearn.exceptions.ConvergenceWarning")


# Inputs and models ------------------------------------------------------------------------------------------
def _frozen(X):
    """Return an array or sparse matrix that cannot be written to."""
    for part in (X.data, X.indices, X.indptr) if sp.issparse(X) else (X,):
        part.flags.writeable = False
    return X


def _directed(n):
    """A directed graph with different weights, in which each sample has a link to the next."""
    rng = np.random.default_rng(0)
    A = np.triu(rng.random((n, n)) < 0.15, 1) * rng.integers(1, 5, (n, n)) + 2 * np.roll(np.eye(n), 1, axis=1)
    return A.astype(np.float64)


def _table():
    """Counts of two groups of users, and an empty last column."""
    rng = np.random.default_rng(0)
    return np.c_[rng.poisson(0.3 + 2 * np.kron(np.eye(2), np.ones((18, 12)))) + np.eye(36, 24), np.zeros(36)]


POINTS = _frozen(np.random.default_rng(0).standard_normal((45, 4)))
DIRECTED = _frozen(_directed(40))
SPARSE = _frozen(sp.csr_array(DIRECTED))
COUNTS = _frozen(_table())
DISTANCES = _frozen(sp.csr_array(KNeighborsTransformer(n_neighbors=8).fit_transform(POINTS)))
LINKED_BOTH_WAYS = _frozen(DIRECTED + DIRECTED.T)
Y = np.arange(40) % 3  # classes of the keys


def _rbf(A, B):
    return rbf_kernel(A, B, gamma=0.5)


# Name: parameters, X of fit.
CASES = {
    "sparse": ({"affinity": "precomputed"}, SPARSE),
    "dense": ({"affinity": "precomputed"}, DIRECTED),
    "float32": ({"affinity": "precomputed"}, _frozen(SPARSE.astype(np.float32))),
    "cold": ({"affinity": "precomputed", "temperature": 0.01}, SPARSE),
    "degree": ({"affinity": "precomputed", "key_weight": "degree"}, SPARSE),
    "neighbors": ({"affinity": "precomputed", "normalizer": "neighbors", "n_exact": 5}, SPARSE),
    "walks": ({"affinity": "precomputed", "walk_length": 3}, SPARSE),
    "walks, dense": ({"affinity": "precomputed", "walk_length": 3}, DIRECTED),
    "expressive": ({"affinity": "precomputed", "kernel": "expressive", "temperature": 1}, SPARSE),
    "expressive, dense": ({"affinity": "precomputed", "kernel": "expressive", "temperature": 0.5}, DIRECTED),
    "expressive, degree": ({"affinity": "precomputed", "kernel": "expressive", "key_weight": "degree"}, SPARSE),
    "table": ({"affinity": "bipartite"}, COUNTS),
    "table, sparse, degree": ({"affinity": "bipartite", "key_weight": "degree"}, _frozen(sp.csr_array(COUNTS))),
    "table, walks": ({"affinity": "bipartite", "walk_length": 3}, COUNTS),
    "table, sparse, walks": ({"affinity": "bipartite", "walk_length": 2}, _frozen(sp.csr_array(COUNTS))),
    "table, expressive": ({"affinity": "bipartite", "kernel": "expressive", "temperature": 1}, COUNTS),
    "points": ({"affinity": "nearest_neighbors", "n_neighbors": 8}, POINTS),
    "points, walks": ({"affinity": "nearest_neighbors", "n_neighbors": 8, "walk_length": 3}, POINTS),
    "distances": ({"affinity": "precomputed_nearest_neighbors", "n_neighbors": 8}, DISTANCES),
    "callable": ({"affinity": _rbf}, POINTS),
    "callable, walks": ({"affinity": _rbf, "walk_length": 3}, POINTS),
}
every = pytest.mark.parametrize("name", CASES)
WITHOUT_WALKS = [name for name in CASES if "walks" not in name]


def embedding(**params):
    return AttentionEmbedding(**{"n_components": 5, "max_iter": 30, "tol": 0, "random_state": 0, **params})


@cache
def fitted(name, **others):
    """A fitted model whose arrays cannot be written to."""
    params, X = CASES[name]
    model = embedding(**params, **others).fit(X)
    for array in (model.embedding_, model.key_embedding_, model.key_weight_, model.affinity_matrix_):
        _frozen(array)
    return model


# The same by hand -------------------------------------------------------------------------------------------
def dense(A):
    return np.asarray(A.toarray() if sp.issparse(A) else A, np.float64)


def stochastic(A):
    total = A.sum(axis=1, keepdims=True)
    return A / np.where(total > 0, total, 1)


def affinities_by_hand(name):
    """Affinities of the training samples, with rows that sum to one."""
    params, X = CASES[name]
    if params["affinity"] == "nearest_neighbors":
        graph = KNeighborsTransformer(n_neighbors=8).fit_transform(X)  # the point itself is the ninth
        return stochastic(dense(neighbor_affinity(sp.csr_array(graph), 8)))
    if params["affinity"] == "precomputed_nearest_neighbors":
        return stochastic(dense(neighbor_affinity(X, 8)))
    return stochastic(_rbf(X, X) if callable(params["affinity"]) else dense(X))


def step_by_hand(name):
    """The matrix that a walk is multiplied by for one more step."""
    P = affinities_by_hand(name)
    if name.startswith("table"):
        return stochastic(dense(CASES[name][1]).T) @ P
    return stochastic(P + P.T) if name.startswith(("points", "distances")) else P


def target_by_hand(name, P=None):
    P, step = affinities_by_hand(name) if P is None else P, step_by_hand(name)
    length = CASES[name][0].get("walk_length", 1)
    return sum(P @ np.linalg.matrix_power(step, power) for power in range(length)) / length


def log_weights_by_hand(model, queries=None):
    """``log(w_j f(s_ij))``; -inf for keys without weight."""
    queries = model.embedding_ if queries is None else queries
    s = queries.astype(np.float64) @ model.key_embedding_.T.astype(np.float64) / model.temperature
    log_f = s if model.kernel == "softmax" else np.log(s**2 / (1 + s**2) + 0.01)
    with np.errstate(divide="ignore"):
        return log_f + np.log(model.key_weight_)


def log_attention_by_hand(model, queries=None):
    log_weights = log_weights_by_hand(model, queries)
    return log_weights - logsumexp(log_weights, axis=1, keepdims=True)


def minus_times(P, log_a):
    """``-P log a``, with zero where P is zero."""
    return -P * np.where(P > 0, log_a, 0)


def entropy(P):
    return minus_times(P, np.log(np.where(P > 0, P, 1))).sum(axis=1)


# Affinities that are kept -----------------------------------------------------------------------------------
@every
def test_affinities_are_kept_row_stochastic(name):
    model = fitted(name)
    assert sp.issparse(model.affinity_matrix_) == (sp.issparse(CASES[name][1]) or name.startswith(("points", "dist")))
    assert model.affinity_matrix_.dtype == model.embedding_.dtype
    assert_allclose(dense(model.affinity_matrix_), affinities_by_hand(name), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", ["sparse", "dense", "walks", "expressive", "table", "table, walks"])
def test_affinities_kept_are_those_that_the_embedding_answers_to(name):
    model = fitted(name)
    assert_allclose(model.transform(model.affinity_matrix_), model.embedding_, atol=1e-7)
    assert not np.shares_memory(getattr(model.affinity_matrix_, "data", None), getattr(CASES[name][1], "data", None))


# attention_scores -------------------------------------------------------------------------------------------
@every
def test_attention_is_that_by_hand(name):
    model = fitted(name)
    attention = model.attention_scores()
    assert attention.dtype == np.float64
    assert_allclose(attention.sum(axis=1), 1)
    assert_allclose(attention, np.exp(log_attention_by_hand(model)), rtol=1e-7, atol=1e-12)
    rows = [7, 2, 2]
    assert_allclose(model.attention_scores(rows=rows), attention[rows])
    assert_allclose(model.attention_scores(rows=slice(3, 6)), attention[3:6])
    assert_allclose(model.attention_scores(rows=np.arange(len(attention)) < 4), attention[:4])


@every
def test_attention_of_new_rows_is_that_of_their_embedding(name):
    model, X = fitted(name), CASES[name][1][:6]
    assert_allclose(
        model.attention_scores(X), np.exp(log_attention_by_hand(model, model.transform(X))), rtol=1e-6, atol=1e-12
    )
    assert_allclose(model.attention_scores(X, rows=[4]), model.attention_scores(X)[[4]])


def test_no_rows_have_no_attention():
    assert fitted("sparse").attention_scores(rows=[]).shape == (0, 40)


def test_keys_without_weight_are_not_attended_to():
    model = fitted("table")
    assert model.key_weight_[-1] == 0
    assert not model.attention_scores()[:, -1].any()
    assert model.explain(0).iloc[-1].tolist() == [24, 0, 0, 0]


# explain ----------------------------------------------------------------------------------------------------
@every
def test_table_of_a_row_is_that_by_hand(name):
    model = fitted(name)
    target, log_attention = target_by_hand(name), log_attention_by_hand(model)
    for i in (0, 11, 35):
        table = model.explain(i)
        assert list(table) == ["key", "target", "attention", "share"]
        assert table["attention"].is_monotonic_decreasing
        assert sorted(table["key"]) == list(range(len(model.key_embedding_)))
        by_key = table.sort_values("key")
        assert_allclose(by_key["target"], target[i], rtol=1e-5, atol=1e-9)
        assert_allclose(by_key["attention"], np.exp(log_attention[i]), rtol=1e-6, atol=1e-12)
        loss = minus_times(target[i], log_attention[i])
        assert_allclose(by_key["share"], loss / loss.sum(), rtol=1e-5, atol=1e-8)
        assert_allclose(table[["target", "attention", "share"]].sum(), 1, rtol=1e-6)


def test_shares_know_what_is_too_small_for_a_number():
    model = fitted("sparse", temperature=1e-3)
    worst = model.explain_rows()["row"][0]
    table = model.explain(worst)
    lost = table[(table["attention"] == 0) & (table["target"] > 0)]
    assert len(lost) > 0
    assert np.all(np.isfinite(table["share"]))
    assert lost["share"].sum() > 0.5


@pytest.mark.parametrize("name", [*WITHOUT_WALKS, "walks", "walks, dense", "table, walks", "points, walks"])
def test_table_of_a_new_row_is_that_by_hand(name):
    model, X = fitted(name), CASES[name][1]
    new = X[:5] if name in ("points", "points, walks", "distances", "callable") else X[:5] + X[5:10]
    table = model.explain(3, X=new).sort_values("key")
    log_attention = log_attention_by_hand(model, model.transform(new[[3]]))[0]
    assert_allclose(table["attention"], np.exp(log_attention), rtol=1e-5, atol=1e-12)
    if name in ("points", "points, walks", "distances", "callable"):
        assert_allclose(table["target"], target_by_hand(name)[3], rtol=1e-6, atol=1e-9)
    else:
        assert_allclose(table["target"], target_by_hand(name, stochastic(dense(new)))[3], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("form", [sp.csr_array, sp.coo_array, sp.csc_matrix, pd.DataFrame, np.ndarray.tolist, np.array])
def test_new_rows_of_any_form(form):
    model, new = fitted("sparse"), DIRECTED[:5] + DIRECTED[5:10]
    expected = model.explain(3, X=new)
    pd.testing.assert_frame_equal(model.explain(3, X=form(new)), expected)
    pd.testing.assert_frame_equal(model.explain_rows(form(new)), model.explain_rows(new))
    pd.testing.assert_frame_equal(model.explain_clusters(form(new), labels=Y), model.explain_clusters(new, labels=Y))


@pytest.mark.parametrize("name", ["sparse", "walks", "expressive", "table, walks", "neighbors", "points"])
def test_rows_do_not_see_each_other(name):
    model, X = fitted(name), CASES[name][1][:8]
    pd.testing.assert_frame_equal(model.explain(5, X=X), model.explain(0, X=X[[5]]))
    alone = model.explain_rows(X[[5]]).drop(columns="row")
    among = model.explain_rows(X).set_index("row").loc[[5]].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, among)


def test_keys_have_the_names_of_columns():
    names = [f"node {i}" for i in range(40)]
    model = embedding(affinity="precomputed").fit(pd.DataFrame(DIRECTED, columns=names))
    expected = fitted("dense").explain(3)
    pd.testing.assert_series_equal(model.explain(3)["key"], expected["key"].map(names.__getitem__))
    assert_allclose(model.explain(3)["attention"], expected["attention"], rtol=1e-6)
    items = [f"item {i}" for i in range(25)]
    table = embedding(affinity="bipartite").fit(pd.DataFrame(COUNTS, columns=items))
    assert set(table.explain(0)["key"]) == set(items)
    assert set(table.explain(0, X=pd.DataFrame(COUNTS[:2], columns=items))["key"]) == set(items)


def test_columns_of_features_are_no_keys():
    model = embedding(n_neighbors=8).fit(pd.DataFrame(POINTS, columns=list("abcd")))
    assert sorted(model.explain(0)["key"]) == list(range(45))


@pytest.mark.parametrize(
    "i",
    [-1, 40, 1.0, "0", None, [0], True],
    ids=repr,
)
def test_no_row(i):
    with pytest.raises(ValueError, match="i must be the number of a row, an integer from 0 to 39"):
        fitted("sparse").explain(i)
    with pytest.raises(ValueError, match="an integer from 0 to 1"):
        fitted("sparse").explain(2, X=SPARSE[:2])
    fitted("sparse").explain(np.int64(39))


# explain_rows -----------------------------------------------------------------------------------------------
@every
def test_table_of_rows_is_that_by_hand(name):
    model, target = fitted(name), target_by_hand(name)
    table = model.explain_rows()
    assert list(table) == ["row", "loss", "entropy", "divergence"]
    assert table["divergence"].is_monotonic_decreasing
    assert sorted(table["row"]) == list(range(len(target)))
    by_row = table.sort_values("row")
    assert_allclose(by_row["loss"], minus_times(target, log_attention_by_hand(model)).sum(axis=1), rtol=1e-5, atol=1e-9)
    assert_allclose(by_row["entropy"], entropy(target), rtol=1e-5, atol=1e-6)
    assert_allclose(by_row["divergence"], by_row["loss"] - by_row["entropy"])
    assert table["divergence"].min() > -1e-6


@pytest.mark.parametrize("name", WITHOUT_WALKS)
def test_mean_loss_is_minus_the_score(name):
    model, X = fitted(name), CASES[name][1]
    assert_allclose(model.explain_rows()["loss"].mean(), -model.score(X), rtol=1e-5)
    assert_allclose(model.explain_rows(X[:7])["loss"].mean(), -model.score(X[:7]), rtol=1e-6)
    assert_allclose(model.perplexity(X), np.exp(-model.score(X)))


@pytest.mark.parametrize("name", ["sparse", "walks", "walks, dense", "callable, walks", "cold"])
def test_mean_loss_is_the_cross_entropy(name):
    model = fitted(name)
    expected = attention_cross_entropy(
        affinities_by_hand(name),
        model.embedding_,
        model.key_embedding_,
        temperature=model.temperature,
        walk_length=model.walk_length,
    )
    assert_allclose(model.explain_rows()["loss"].mean(), expected)


@pytest.mark.parametrize("name", ["sparse", "dense", "walks", "table, sparse, walks", "expressive"])
def test_rows_that_are_asked_for(name):
    model, X = fitted(name), CASES[name][1]
    for given in ({}, {"X": X[:20]}):
        whole = model.explain_rows(**given).set_index("row")
        for rows in ([4, 17, 9], slice(2, 9), np.arange(len(whole)) % 5 == 0):
            table = model.explain_rows(**given, rows=rows).set_index("row")
            assert set(table.index) == set(np.arange(len(whole))[rows])
            assert table["divergence"].is_monotonic_decreasing
            pd.testing.assert_frame_equal(table, whole.loc[table.index])
    assert model.explain_rows(rows=[]).shape == (0, 4)


def test_many_rows_are_looked_at_in_even_steps(monkeypatch):
    model = fitted("sparse")
    expected = model.explain_rows(rows=slice(None, None, 3))
    some = model.explain_clusters(labels=Y, rows=slice(None, None, 3))
    monkeypatch.setattr(_explain, "_EXACT_PAIRS", 40 * 40 // 3 + 40)
    pd.testing.assert_frame_equal(model.explain_rows(), expected)
    pd.testing.assert_frame_equal(model.explain_clusters(labels=Y), some)
    assert_allclose(model.score(SPARSE), -expected["loss"].mean())
    assert len(model.explain_rows(rows=slice(None))) == 40, "rows that were asked for are not left out"


@pytest.mark.parametrize("name", ["sparse", "walks", "table, walks", "expressive", "dense"])
def test_blocks_change_nothing(name, monkeypatch):
    model = fitted(name)
    labels = np.arange(len(model.key_embedding_)) % 3
    rows, clusters = model.explain_rows(), model.explain_clusters(labels=labels)
    monkeypatch.setattr(_explain, "_BLOCK_ELEMENTS", 7 * len(labels) + 1)
    pd.testing.assert_frame_equal(model.explain_rows(), rows)
    pd.testing.assert_frame_equal(model.explain_clusters(labels=labels), clusters)


@pytest.mark.parametrize("walk_length", [1, 2])
def test_memory_is_bounded_by_blocks(walk_length, monkeypatch):
    n = 5000
    ring = sp.diags_array([np.ones(n), np.ones(n)], offsets=[0, 1], shape=(n, n), format="csr")
    model = embedding(affinity="precomputed", max_iter=2, walk_length=walk_length).fit(ring)
    monkeypatch.setattr(_explain, "_BLOCK_ELEMENTS", 2**16)
    labels = np.arange(n) % 5
    tracemalloc.start()
    try:
        model.explain_rows()
        model.explain_clusters(labels=labels)
        model.explain(7)
        model.score(ring)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < n * n * 8 / 4


# explain_clusters -------------------------------------------------------------------------------------------
@every
def test_table_of_clusters_is_that_by_hand(name):
    model = fitted(name)
    n_keys = len(model.key_embedding_)
    labels = np.array(["one", "two", "three"])[np.arange(n_keys) % 3]
    table = model.explain_clusters(labels=labels)
    assert list(table) == ["cluster", "n_keys", "share", "log_z"]
    assert table["share"].is_monotonic_decreasing
    assert_allclose(table["share"].sum(), 1)
    log_weights, attention = log_weights_by_hand(model), np.exp(log_attention_by_hand(model))
    for _, row in table.iterrows():
        members = labels == row["cluster"]
        assert row["n_keys"] == np.count_nonzero(members & (model.key_weight_ > 0))
        assert_allclose(row["share"], attention[:, members].sum(axis=1).mean(), rtol=1e-6)
        assert_allclose(row["log_z"], logsumexp(log_weights[:, members], axis=1).mean(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["sparse", "degree", "expressive, degree", "table, sparse, degree"])
def test_parts_of_z_add_up(name):
    model = fitted(name)
    kernel = "softmax" if model.kernel == "softmax" else lambda s: s**2 / (1 + s**2) + 0.01
    has_weight = model.key_weight_ > 0
    log_z = log_normalizer_exact(
        model.embedding_,
        model.key_embedding_[has_weight],
        key_weight=model.key_weight_[has_weight],
        kernel=kernel,
        temperature=model.temperature,
    )
    for i in (0, 20):
        table = model.explain_clusters(labels=np.arange(len(model.key_embedding_)) % 4, rows=[i])
        assert_allclose(logsumexp(table["log_z"]), log_z[i])
        assert_allclose(np.log(table["share"]), table["log_z"] - log_z[i])


def test_clusters_of_the_model():
    X, y = make_block_model(120, 3, mean_degree=20, mixing=0.05, random_state=0)
    model = embedding(affinity="precomputed", n_clusters=3).fit(X)
    table = model.explain_clusters()
    assert table["cluster"].tolist() == list(pd.unique(table["cluster"]))
    assert set(table["cluster"]) == {0, 1, 2}
    assert table["n_keys"].sum() == 120
    assert_allclose(table["share"].sum(), 1)
    own = [model.explain_clusters(rows=y == k)["share"][0] for k in range(3)]
    assert min(own) > 0.8, "a community attends to one cluster"


def test_parts_of_z_too_small_for_a_number():
    model = fitted("sparse", temperature=1e-3)
    table = model.explain_clusters(labels=np.arange(40), rows=[0]).sort_values("cluster")
    assert_allclose(table["log_z"], log_weights_by_hand(model)[0], rtol=1e-6)


def test_one_gaussian_holds_all():
    table = fitted("sparse").explain_clusters()
    assert table[["cluster", "n_keys"]].to_numpy().tolist() == [[0, 40]]
    assert_allclose(table["share"], 1)


def test_keys_without_affinity_are_in_no_cluster():
    model = fitted("table", n_clusters=2)
    table = model.explain_clusters()
    assert -1 not in set(table["cluster"])
    assert table["n_keys"].sum() == 24
    labels = np.r_[np.zeros(24, int), 9]  # of the empty column
    assert model.explain_clusters(labels=labels)["cluster"].tolist() == [0]


@pytest.mark.parametrize("form", [list, tuple, pd.Series, pd.Categorical, np.asarray], ids=lambda form: form.__name__)
def test_labels_of_any_form(form):
    labels = np.array(["a", "b", "c"], object)[Y]
    pd.testing.assert_frame_equal(
        fitted("sparse").explain_clusters(labels=form(labels)).astype({"cluster": str}),
        fitted("sparse").explain_clusters(labels=labels).astype({"cluster": str}),
    )


@pytest.mark.parametrize("labels", [Y[:-1], Y[:, None], [0]], ids=["fewer", "2-d", "one"])
def test_labels_that_are_not_one_for_each_key(labels):
    with pytest.raises(ValueError, match="labels must be one for each of the 40 keys"):
        fitted("sparse").explain_clusters(labels=labels)


# Rows without affinity --------------------------------------------------------------------------------------
@cache
def with_isolated(**params):
    """Sample 3 has no affinity."""
    A = DIRECTED.copy()
    A[3] = A[:, 3] = 0
    with pytest.warns(UserWarning, match="1 of 40 rows have no affinity"):
        return embedding(affinity="precomputed", **params).fit(sp.csr_array(A))


@pytest.mark.parametrize("params", [{}, {"walk_length": 3}, {"kernel": "expressive"}], ids=str)
def test_isolated_rows(params):
    model = with_isolated(**params)
    others = np.arange(40) != 3
    assert_allclose(model.attention_scores(rows=[3])[0], others / 39)
    table = model.explain(3)
    assert not table["target"].any()
    assert not table["share"].any()
    assert_allclose(table["attention"].sum(), 1)
    assert sorted(model.explain_rows()["row"]) == np.flatnonzero(others).tolist()
    assert model.explain_rows(rows=[3, 5])["row"].tolist() == [5]
    assert_allclose(model.explain_clusters(labels=Y)["share"].sum(), 1)
    assert model.explain_clusters(labels=Y)["n_keys"].sum() == 39
    assert_allclose(
        model.explain_clusters(labels=Y)["share"].max(),
        max(model.attention_scores(rows=others)[:, label == Y].sum(axis=1).mean() for label in range(3)),
    )
    if "walk_length" not in params:
        assert_allclose(model.score(model.affinity_matrix_), -model.explain_rows()["loss"].mean())


def test_nothing_to_score():
    with pytest.raises(ValueError, match="nothing to score"):
        with_isolated().score(np.zeros((2, 40)))


# Operators, and what a fit leaves ---------------------------------------------------------------------------
@cache
def of_operator(**params):
    return embedding(affinity="precomputed", **params).fit(aslinearoperator(DIRECTED))


def test_operator_has_attention_but_no_rows():
    model, same = of_operator(), fitted("dense")
    assert not hasattr(model, "affinity_matrix_")
    assert_allclose(model.attention_scores(), same.attention_scores(), rtol=1e-6)
    assert_allclose(model.score(aslinearoperator(DIRECTED)), same.score(DIRECTED))
    pd.testing.assert_frame_equal(model.explain_clusters(labels=Y), same.explain_clusters(labels=Y))
    pd.testing.assert_frame_equal(model.explain(2, X=SPARSE[:4]), same.explain(2, X=SPARSE[:4]))
    pd.testing.assert_frame_equal(model.explain_rows(DIRECTED[:4]), same.explain_rows(DIRECTED[:4]))
    for call in (lambda: model.explain(0), model.explain_rows):
        with pytest.raises(ValueError, match="not kept where X of fit is a LinearOperator"):
            call()


def test_walks_on_an_operator_cannot_be_told():
    model = of_operator(walk_length=3)
    assert_allclose(model.attention_scores(SPARSE[:4]).sum(axis=1), 1)
    with pytest.raises(ValueError, match="not kept"):
        model.explain(0, X=SPARSE[:1])


@pytest.mark.parametrize("ask", ["explain", "explain_rows"])
def test_operator_as_new_rows_cannot_be_told(ask):
    X = aslinearoperator(DIRECTED[:3])
    with pytest.raises(ValueError, match="LinearOperator"):
        fitted("sparse").explain(0, X=X) if ask == "explain" else fitted("sparse").explain_rows(X)


def test_fits_leave_nothing_of_earlier_ones():
    model = embedding(affinity="precomputed", warm_start=True).fit(SPARSE)
    model.fit(aslinearoperator(DIRECTED))
    assert not hasattr(model, "affinity_matrix_")
    with pytest.raises(ValueError, match="not kept"):
        model.explain(0)
    model.fit(SPARSE[:30, :30] + sp.eye_array(30))
    assert model.affinity_matrix_.shape == (30, 30)
    assert len(model.explain(29)) == 30
    model.set_params(affinity="bipartite", warm_start=False, walk_length=2).fit(COUNTS)
    assert len(model.explain(35)) == 25
    assert_allclose(model.explain(35)["target"].sum(), 1)


@pytest.mark.parametrize("name", ["sparse", "table, walks", "points, walks", "expressive"])
def test_clones_know_nothing_and_pickles_all(name):
    model = fitted(name)
    with pytest.raises(NotFittedError):
        clone(model).explain(0)
    again = pickle.loads(pickle.dumps(model))
    pd.testing.assert_frame_equal(again.explain(3), model.explain(3))
    pd.testing.assert_frame_equal(again.explain_rows(), model.explain_rows())
    pd.testing.assert_frame_equal(again.explain_clusters(), model.explain_clusters())


def test_operators_of_fit_are_not_pickled():
    again = pickle.loads(pickle.dumps(of_operator()))
    assert_allclose(again.attention_scores(), of_operator().attention_scores())


def test_failed_fit_keeps_what_is_explained():
    model = embedding(affinity="precomputed").fit(SPARSE)
    expected = model.explain(0)
    with pytest.raises(ValueError, match="no affinity at all"):
        model.fit(np.zeros((40, 40)))
    pd.testing.assert_frame_equal(model.explain(0), expected)


@pytest.mark.parametrize("ask", ["attention_scores", "explain_rows", "explain_clusters"])
def test_not_fitted(ask):
    with pytest.raises(NotFittedError):
        getattr(AttentionEmbedding(), ask)()
