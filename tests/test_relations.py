"""Graphs and tables with labels of any kind, recommendations, and custom null models."""

import copy
import datetime

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.utils._param_validation import InvalidParameterError

from sklearn_attnembed import AttentionEmbedding
from sklearn_attnembed.affinity import bipartite, random_walk

# Three nodes and a sink.
A = np.array([[0, 3, 1, 0], [1, 0, 0, 4], [2, 0, 2, 0], [0, 0, 0, 0]], float)
P = np.array([[0, 0.75, 0.25, 0], [0.2, 0, 0, 0.8], [0.5, 0, 0.5, 0], [0, 0, 0, 0]])
ODD = ["Ann", 7, (1, 2), frozenset("ab"), datetime.date(2020, 2, 2), 2.5]


def table(*rows, columns=("from", "to", "weight")):
    """Return a table of pairs, whose columns are of objects, so that labels keep their types."""
    width = len(rows[0]) if rows else 2
    frame = pd.DataFrame(
        {name: pd.Series([row[i] for row in rows], dtype=object) for i, name in enumerate(columns[:width])}
    )
    return frame if width < 3 else frame.astype({columns[2]: float})


def random_table(n=200, seed=0):
    """Return weighted pairs of labels of many types, some repeated and some of a node with itself."""
    rng = np.random.default_rng(seed)
    ends = rng.integers(len(ODD), size=(n, 2))
    return table(*[(ODD[i], ODD[j], rng.uniform()) for i, j in ends])


def dense_walk(edges, nodes, directed):
    """Compute the result of `random_walk` for a table by a loop."""
    W = np.zeros((len(nodes), len(nodes)))
    for i, j, weight in edges.itertuples(index=False):
        W[nodes.index(i), nodes.index(j)] += weight
        if not directed and i != j:
            W[nodes.index(j), nodes.index(i)] += weight
    total = W.sum(axis=1, keepdims=True)
    return W / np.where(total > 0, total, 1)


# Matrices ------------------------------------------------------------------------------------------------
FORMS = [
    sp.csr_array,
    sp.csr_matrix,
    sp.coo_array,
    sp.coo_matrix,
    sp.csc_array,
    sp.lil_array,
    np.asarray,
    np.ndarray.tolist,
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_walk_on_a_matrix(form):
    walk = random_walk(form(A))
    assert isinstance(walk, sp.csr_array)
    assert_allclose(walk.toarray(), P)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, bool])
def test_precision_is_that_of_the_matrix(dtype):
    for form in (np.asarray, sp.csr_array):
        walk = random_walk(form(A.astype(dtype)), teleport=0.1)
        assert walk.dtype == (np.float32 if dtype == np.float32 else np.float64)
        assert_allclose(walk.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("teleport", [0.1, 0.9])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_teleport_is_a_jump_back_and_the_way_out_of_sinks(form, teleport):
    walk = random_walk(form(A), teleport=teleport).toarray()
    assert_allclose(walk, (1 - teleport) * P + np.diag([teleport] * 3 + [1]))
    assert_allclose(walk.sum(axis=1), 1)


def test_matrices_know_their_direction():
    assert_array_equal(random_walk(A, directed=True).toarray(), random_walk(A).toarray())


def test_labels_of_a_matrix_are_handed_through():
    assert_array_equal(random_walk(A, return_nodes=True)[1], range(4))
    labels = [(1, 2), (3, 4), (5, 6), "x"]
    walk, nodes = random_walk(A, nodes=labels, return_nodes=True)
    assert_allclose(walk.toarray(), P)
    assert nodes.tolist() == labels


@pytest.mark.parametrize("form", FORMS[:-1], ids=lambda form: form.__name__)
def test_matrices_are_not_modified(form):
    X = form(A)
    before = copy.deepcopy(X)
    random_walk(X, teleport=0.5)
    assert abs(X - before).max() == 0
    if isinstance(X, sp.csr_array):
        assert_array_equal(X.indices, before.indices)


def test_large_weights_do_not_overflow():
    assert_allclose(random_walk(A * 4e307).toarray(), P)


# Tables of edges --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("teleport", [0, 0.3])
@pytest.mark.parametrize("directed", [False, True])
def test_walk_on_a_table_of_odd_labels(directed, teleport):
    edges = random_table()
    before = edges.copy(deep=True)
    walk, nodes = random_walk(edges, directed=directed, teleport=teleport, return_nodes=True)
    assert nodes.tolist() == list(dict.fromkeys(edges[["from", "to"]].to_numpy().ravel()))  # by first appearance
    expected = dense_walk(edges, nodes.tolist(), directed)
    assert_allclose(walk.toarray(), (1 - teleport) * expected + teleport * np.eye(len(nodes)))
    pd.testing.assert_frame_equal(edges, before)


def test_nodes_give_the_order_and_those_without_edges():
    edges = table(("b", "a"), ("b", "c"))
    walk, nodes = random_walk(edges, nodes=["lone", "c", "b", "a"], return_nodes=True)
    assert nodes.tolist() == ["lone", "c", "b", "a"]
    assert_allclose(walk.toarray(), [[0, 0, 0, 0], [0, 0, 1, 0], [0, 0.5, 0, 0.5], [0, 0, 1, 0]])
    assert random_walk(edges, nodes=nodes, teleport=0.5).toarray()[0, 0] == 1


def test_nodes_returned_are_nodes_to_pass():
    """This holds for labels of every type; the labels of a table of one type have that type."""
    edges = random_table()
    walk, nodes = random_walk(edges, return_nodes=True)
    assert_array_equal(random_walk(edges, nodes=nodes).toarray(), walk.toarray())
    for labels in (["x", "y"], [3, 4], [(1, 2), (3, 4)], [1.5, 2.5], pd.to_datetime(["2020-01-02", "2021-01-02"])):
        edges = pd.DataFrame({"i": labels, "j": labels[::-1]})
        walk, nodes = random_walk(edges, return_nodes=True)
        assert nodes.tolist() == list(labels)
        assert_array_equal(random_walk(edges, nodes=nodes).toarray(), [[0, 1], [1, 0]])
    assert random_walk(pd.DataFrame({"i": [3], "j": [4]}), return_nodes=True)[1].dtype == np.int64


@pytest.mark.parametrize("directed", [False, True])
def test_self_loops_count_once(directed):
    walk = random_walk(table(("a", "a", 1), ("a", "b", 3)), directed=directed)
    assert_allclose(walk.toarray()[0], [0.25, 0.75])


def test_repeated_edges_add_up():
    walk = random_walk(table(("a", "b", 1), ("a", "c", 2), ("b", "a", 1), ("a", "b", 4)))
    assert_allclose(walk.toarray()[0], [0, 6 / 8, 2 / 8])


def test_weights_are_of_their_column_or_ones():
    edges = table(("a", "b", 3), ("a", "c", 1))
    assert_allclose(random_walk(edges).toarray()[0], [0, 0.75, 0.25])
    assert_allclose(random_walk(edges, weight=None).toarray()[0], [0, 0.5, 0.5])
    renamed = edges.rename(columns={"weight": "km"})
    assert_allclose(random_walk(renamed, weight="km").toarray()[0], [0, 0.75, 0.25])
    assert_allclose(random_walk(renamed).toarray()[0], [0, 0.5, 0.5])


def test_columns_count_by_place_and_rows_whatever_their_index():
    edges = pd.DataFrame({3: [1, 2], 1: [2, 3], "weight": [1.0, 3.0]}, index=[5, 5])
    assert_allclose(random_walk(edges).toarray(), [[0, 1, 0], [0.25, 0, 0.75], [0, 1, 0]])


def test_empty_table_is_an_empty_walk():
    walk, nodes = random_walk(table(), return_nodes=True)
    assert walk.shape == (0, 0)
    assert len(nodes) == 0
    assert not random_walk(table(), nodes=["a", "b"]).nnz


def test_embeds_by_label():
    """Edges between names give vectors in the order of the names."""
    clique = [(f"{side}{i}", f"{side}{j}") for side in "lr" for i in range(8) for j in range(i)]
    walk, nodes = random_walk(table(*clique, ("l0", "r0")), return_nodes=True)
    vectors = AttentionEmbedding(4, affinity="precomputed", random_state=0).fit_transform(walk)
    left = np.char.startswith(nodes, "l")
    cosine = vectors @ vectors.T
    assert cosine[np.ix_(left, left)].mean() > cosine[np.ix_(left, ~left)].mean() + 0.5


# NetworkX ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["Graph", "DiGraph", "MultiGraph", "MultiDiGraph"])
def test_walk_on_a_networkx_graph(kind):
    """Direction and order are those of the graph; parallel edges are added, and self-loops count once."""
    networkx = pytest.importorskip("networkx")
    graph = getattr(networkx, kind)()
    graph.add_nodes_from(["lone", *ODD])
    edges = random_table(60) if "Multi" in kind else random_table(60).drop_duplicates(["from", "to"])
    if kind == "Graph":
        unordered = edges[["from", "to"]].map(ODD.index).apply(sorted, axis=1).astype(str)
        edges = edges[~unordered.duplicated()]
    for i, j, weight in edges.itertuples(index=False):
        graph.add_edge(i, j, weight=weight)
    walk, nodes = random_walk(graph, return_nodes=True)
    assert nodes.tolist() == ["lone", *ODD]
    assert_allclose(walk.toarray(), dense_walk(edges, nodes.tolist(), "Di" in kind))
    order = [*ODD[::-1], "lone"]
    again, nodes = random_walk(graph, nodes=order, return_nodes=True)
    assert nodes.tolist() == order
    assert_allclose(again.toarray(), walk.toarray()[::-1, ::-1][np.ix_([*range(6), 6], [*range(6), 6])])


def test_networkx_weights_by_name_or_ones():
    networkx = pytest.importorskip("networkx")
    graph = networkx.Graph()
    graph.add_edge("a", "b", weight=3, km=1)
    graph.add_edge("a", "c", km=4)
    assert_allclose(random_walk(graph).toarray()[0], [0, 0.75, 0.25])
    assert_allclose(random_walk(graph, weight="km").toarray()[0], [0, 0.2, 0.8])
    assert_allclose(random_walk(graph, weight=None).toarray()[0], [0, 0.5, 0.5])


def test_empty_networkx_graph():
    networkx = pytest.importorskip("networkx")
    assert random_walk(networkx.Graph()).shape == (0, 0)
    graph = networkx.empty_graph(3)
    assert random_walk(graph, teleport=0.5).toarray().tolist() == np.eye(3).tolist()


def test_nodes_that_are_not_those_of_the_networkx_graph():
    networkx = pytest.importorskip("networkx")
    graph = networkx.path_graph(["a", "b"])
    with pytest.raises(ValueError, match="nodes must be those of the graph, but 'b' is in one of the two alone"):
        random_walk(graph, nodes=["a"])
    with pytest.raises(ValueError, match="nodes must be those of the graph, but 'c'"):
        random_walk(graph, nodes=["a", "b", "c"])
    with pytest.raises(ValueError, match="nodes must name each label once, but has 'a' twice"):
        random_walk(graph, nodes=["a", "a", "b"])
    graph.add_edge("a", "b", weight=-1)
    with pytest.raises(ValueError, match=r"adjacency must hold finite weights >= 0, but holds -1\.0"):
        random_walk(graph)


# Long tables ------------------------------------------------------------------------------------------------
PLAYS = table(("Ann", "blues", 5), ("Bob", 7, 2), ("Ann", 7, 1), ("Ann", "blues", 2), ((1, 2), "blues", 0.5))


def test_counts_by_label():
    before = PLAYS.copy(deep=True)
    counts, rows, columns = bipartite(PLAYS)
    assert isinstance(counts, sp.csr_array)
    assert_array_equal(counts.toarray(), [[7, 1], [0, 2], [0.5, 0]])
    assert rows.tolist() == ["Ann", "Bob", (1, 2)]
    assert columns.tolist() == ["blues", 7]
    pd.testing.assert_frame_equal(PLAYS, before)


def test_a_label_of_both_sides_is_two():
    counts, rows, columns = bipartite(table(("a", "b"), ("b", "a"), ("a", "a")))
    assert_array_equal(counts.toarray(), [[1, 1], [0, 1]])
    assert rows.tolist() == ["a", "b"]
    assert columns.tolist() == ["b", "a"]


def test_meetings_without_weight_count_one_each():
    counts = bipartite(PLAYS, weight=None).affinity
    assert_array_equal(counts.toarray(), [[2, 1], [0, 1], [1, 0]])
    assert_array_equal(bipartite(PLAYS.drop(columns="weight")).affinity.toarray(), counts.toarray())


def test_labels_wanted_are_those_there_are():
    """Rows and columns are in the given order, some of them empty; pairs with other labels are dropped."""
    counts, rows, columns = bipartite(PLAYS, rows=["Bob", "Zoe", "Ann"], columns=["jazz", "blues"])
    assert_array_equal(counts.toarray(), [[0, 0], [0, 0], [0, 7]])
    assert rows.tolist() == ["Bob", "Zoe", "Ann"]
    assert columns.tolist() == ["jazz", "blues"]
    assert_array_equal(bipartite(PLAYS, rows=["Bob"]).affinity.toarray(), [[0, 2]])


def test_labels_returned_are_labels_to_pass():
    rng = np.random.default_rng(0)
    meetings = table(*[(ODD[i], ODD[j], w) for i, j, w in zip(*rng.integers(1, 6, (3, 50)), strict=True)])
    result = bipartite(meetings)
    again = bipartite(meetings, rows=result.rows, columns=result.columns)
    assert_array_equal(again.affinity.toarray(), result.affinity.toarray())
    assert again.rows.tolist() == result.rows.tolist()


def test_empty_long_table():
    assert bipartite(table()).affinity.shape == (0, 0)
    assert bipartite(table(), rows=["a"], columns=[1, 2]).affinity.toarray().tolist() == [[0, 0]]


def test_new_users_of_known_items(counts):
    """New users get recommendations by name from tables alone."""
    users, items = np.nonzero(counts)
    plays = pd.DataFrame({"user": users, "item": [f"i{j}" for j in items], "weight": counts[users, items]})
    known, _, columns = bipartite(plays[plays.user < 50])
    model = AttentionEmbedding(8, affinity="bipartite", random_state=0).fit(known)
    new = plays[plays.user >= 50]
    vectors = model.transform(bipartite(new, columns=columns).affinity)
    order = [int(name[1:]) for name in columns]
    assert_allclose(vectors, model.transform(counts[50:, order]), atol=1e-9)


# Wide tables ------------------------------------------------------------------------------------------------
def test_wide_table_is_embedded_as_it_is(counts):
    frame = pd.DataFrame(counts, index=[f"user {i}" for i in range(60)], columns=[f"item {j}" for j in range(40)])
    plain = AttentionEmbedding(8, affinity="bipartite", random_state=0).fit(counts)
    model = clone(plain).set_output(transform="pandas")
    out = model.fit_transform(frame)
    assert_array_equal(model.feature_names_in_, frame.columns)
    assert_array_equal(out.index, frame.index)
    assert_allclose(out, plain.embedding_, atol=1e-9)
    assert_array_equal(model.recommend(frame[:5], 3)[0], plain.recommend(counts[:5], 3)[0])
    with pytest.raises(ValueError, match="feature names should match"):
        model.recommend(frame[frame.columns[::-1]])


# Recommendations --------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def plays():
    """Return a sparse table of 50 users of two groups by 30 items, of which nobody has the last."""
    rng = np.random.default_rng(1)
    taste = np.kron(np.eye(2), np.ones((25, 15)))
    X = rng.poisson(0.05 + 0.6 * taste * rng.uniform(0.3, 1.5, 30)).astype(float)
    X[:, 0] = X[:, 15] = 1
    X[:, -1] = 0
    X.flags.writeable = False
    return X


def recommender(**params):
    return AttentionEmbedding(
        8, **{"affinity": "bipartite", "key_weight": "degree", "temperature": 0.5, "random_state": 0, **params}
    )


def brute_force(model, X, exclude_known):
    """Compute the log attention of every column, -inf for items that must not be recommended."""
    with np.errstate(divide="ignore"):
        scores = np.log(model.key_weight_) + model.transform(X) @ model.key_embedding_.T / model.temperature
    scores[(X > 0) & exclude_known] = -np.inf
    return scores


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array, sp.coo_matrix])
@pytest.mark.parametrize("exclude_known", [True, False])
@pytest.mark.parametrize(
    "params",
    [{}, {"key_weight": "uniform"}, {"key_weight": 0.5}, {"normalizer": "exact"}, {"walk_length": 2}],
    ids=str,
)
def test_recommends_what_is_attended_to_most(params, exclude_known, form, plays):
    """This holds for users of the training data and for new users."""
    model = recommender(**params).fit(form(plays[:40]))
    items, scores = model.recommend(form(plays), 30, exclude_known=exclude_known)
    expected = brute_force(model, plays, exclude_known)
    there = np.isfinite(expected)
    assert_array_equal(np.sum(items >= 0, axis=1), there.sum(axis=1))
    assert_allclose(scores, -np.sort(-expected, axis=1), atol=1e-10)
    assert_array_equal(np.isneginf(scores), items == -1)
    rows, places = np.nonzero(items >= 0)
    assert_allclose(expected[rows, items[rows, places]], scores[rows, places], atol=1e-10)
    assert all(len(set(row[row >= 0])) == np.sum(row >= 0) for row in items)


@pytest.mark.parametrize("n_items", [1, 7, 30])
def test_n_items_are_the_first_of_all(n_items, plays):
    model = recommender().fit(plays)
    items, scores = model.recommend(plays, n_items, exclude_known=False)
    assert items.shape == scores.shape == (50, n_items)
    everything, all_scores = model.recommend(plays, 30, exclude_known=False)
    assert_array_equal(items, everything[:, :n_items])
    assert_array_equal(scores, all_scores[:, :n_items])


def test_the_best_of_many_items_come_first():
    X = np.random.default_rng(0).poisson(0.1, (40, 2000)).astype(float)
    model = recommender().fit(X)
    items, scores = model.recommend(X, 700)
    expected = brute_force(model, X, True)
    assert_allclose(scores, -np.sort(-expected, axis=1)[:, :700], atol=1e-10)
    assert_allclose(np.take_along_axis(expected, items, axis=1), scores, atol=1e-10)


def test_nothing_left_to_recommend_is_minus_one(plays):
    model = recommender().fit(plays)
    items, scores = model.recommend(np.ones((1, 30)), 3)
    assert_array_equal(items, [[-1, -1, -1]])
    assert_array_equal(scores, [[-np.inf] * 3])
    all_but_two = np.ones((1, 30))
    all_but_two[0, [4, 29]] = 0  # nobody has item 29
    assert_array_equal(model.recommend(all_but_two, 3)[0], [[4, -1, -1]])


@pytest.mark.filterwarnings("ignore:1 of 1 rows have no affinity")
def test_users_without_history_get_what_is_popular(plays):
    model = recommender().fit(plays)
    items, scores = model.recommend(np.zeros((1, 30)), 29)
    popularity = plays.sum(axis=0)
    assert_allclose(scores[0], np.sort(np.log(model.key_weight_[:29]))[::-1])
    assert np.all(np.diff(popularity[items[0]]) <= 0)


def test_new_users_get_what_is_to_their_taste(plays):
    model = recommender(key_weight="uniform").fit(plays[[*range(20), *range(25, 45)]])
    own = np.kron(np.eye(2, dtype=bool), np.ones((25, 15), bool))
    new = [*range(20, 25), *range(45, 50)]
    items, _ = model.recommend(plays[new], 3)
    assert np.mean(own[np.array(new)[:, None], items]) > 0.9


def test_blocks_of_users_change_nothing(plays, monkeypatch):
    model = recommender().fit(plays)
    whole = model.recommend(np.tile(plays, (3, 1)), 4)
    monkeypatch.setattr("sklearn_attnembed._core.parallel._BLOCK_ELEMENTS", 1)
    for result, expected in zip(model.recommend(np.tile(plays, (3, 1)), 4), whole, strict=True):
        assert_allclose(result, expected)


def test_recommend_leaves_its_input(plays):
    X = sp.csr_array(plays)
    before = X.copy()
    recommender().fit(X).recommend(X, 5)
    assert abs(X - before).max() == 0


@pytest.mark.parametrize("n_items", [0, -1, 31])
def test_n_items_out_of_bounds(n_items, plays):
    with pytest.raises(ValueError, match=f"n_items must be an integer from 1 to the 30 columns; got {n_items}"):
        recommender().fit(plays).recommend(plays, n_items)


@pytest.mark.parametrize("affinity", ["precomputed", "nearest_neighbors"])
def test_recommend_of_what_has_no_items(affinity, plays):
    X = plays @ plays.T if affinity == "precomputed" else plays
    model = recommender(affinity=affinity).fit(X)
    with pytest.raises(ValueError, match=f"only affinity='bipartite' has, but affinity='{affinity}'"):
        model.recommend(X)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (np.ones((2, 29)), "X has 29 features, but AttentionEmbedding is expecting 30"),
        (-np.ones((2, 30)), "Negative values in data"),
        (np.full((2, 30), np.nan), "contains NaN"),
        (np.ones(30), "Expected 2D array"),
    ],
    ids=["columns", "negative", "NaN", "1-d"],
)
def test_bad_users(bad, match, plays):
    with pytest.raises(ValueError, match=match):
        recommender().fit(plays).recommend(bad)


# A null model of one's own ----------------------------------------------------------------------------------
def graph_embedding(**params):
    return AttentionEmbedding(**{"n_components": 8, "affinity": "precomputed", "random_state": 0, **params})


@pytest.mark.parametrize("form", [np.asarray, list, tuple, pd.Series], ids=lambda form: form.__name__)
def test_null_model_of_ones_is_uniform(form, graph):
    X, _ = graph
    expected = graph_embedding().fit(X)
    model = graph_embedding(null_model=form(np.full(X.shape[0], 3.0))).fit(X)
    assert_allclose(model.embedding_, expected.embedding_, atol=1e-8)
    assert_allclose(model.transform(X[:9]), expected.embedding_[:9], atol=1e-8)
    assert_allclose(model.loss_curve_, expected.loss_curve_)


@pytest.mark.parametrize("power", [0.5, 1.0])
@pytest.mark.parametrize("params", [{}, {"walk_length": 3}, {"normalizer": "exact"}], ids=str)
def test_null_model_of_degrees_is_by_degree(params, power, graph):
    """The degrees are column sums, not row sums."""
    X, _ = graph
    X = X @ sp.diags_array(np.linspace(1, 9, X.shape[0]))
    model = graph_embedding(null_model=X.sum(axis=0) ** power, **params).fit(X)
    assert_allclose(model.embedding_, graph_embedding(null_model=power, **params).fit(X).embedding_, atol=1e-6)
    assert not np.allclose(model.embedding_, graph_embedding(**params).fit(X).embedding_, atol=1e-2)


def test_null_model_of_nearest_neighbours(digits):
    X, _ = digits
    ones, uniform = (
        AttentionEmbedding(8, null_model=null, random_state=0).fit(X).embedding_
        for null in (np.ones(len(X)), "uniform")
    )
    assert_allclose(ones, uniform, atol=1e-8)


@pytest.mark.filterwarnings("ignore:2 of .* rows have no affinity")
def test_null_model_of_isolated_rows_does_not_matter(graph):
    X = sp.block_diag([graph[0], sp.csr_array((2, 2))]).tocsr()
    n = X.shape[0]
    null = np.arange(1.0, n + 1)
    other = null.copy()
    other[-2:] = [0, 1e9]
    assert_allclose(
        graph_embedding(null_model=null).fit(X).embedding_,
        graph_embedding(null_model=other).fit(X).embedding_,
        atol=1e-8,
    )


def test_null_model_stays_and_is_cloned(graph):
    X, _ = graph
    null = np.arange(1.0, X.shape[0] + 1)
    before = null.copy()
    model = graph_embedding(null_model=null).fit(X)
    assert_array_equal(null, before)
    assert model.get_params()["null_model"] is null
    copied = clone(model)
    assert_array_equal(copied.null_model, null)
    assert_array_equal(copied.fit(X).embedding_, model.embedding_)
    assert "null_model" in repr(model)
    assert "null_model" in model._repr_html_()
    assert model.set_params(null_model="degree").null_model == "degree"


@pytest.mark.parametrize(
    ("null_model", "match"),
    [
        (np.ones(4), r"null_model has shape \(4,\), but .* one entry for each of the 5 samples"),
        (np.ones((5, 1)), r"null_model has shape \(5, 1\), but .* one entry for each of the 5 samples"),
        ([1, 1, 1, 1, -0.5], r"null_model must be >= 0 with a positive sum; its smallest is -0.5"),
        (np.zeros(5), "null_model must be >= 0 with a positive sum"),
        ([1, 1, 1, 1, np.nan], "null_model contains NaN"),
        ([1, 1, 1, 1, np.inf], "null_model contains infinity"),
    ],
    ids=["length", "2-d", "negative", "zero", "NaN", "infinity"],
)
def test_bad_null_models(null_model, match):
    model = graph_embedding(null_model=null_model)
    with pytest.raises(ValueError, match=match):
        model.fit(np.ones((5, 5)))
    assert not hasattr(model, "embedding_")


def test_null_model_of_one_side_of_a_table(counts):
    with pytest.raises(ValueError, match=r"square affinity. Pass a power of the degree"):
        graph_embedding(affinity="bipartite", null_model=np.ones(60)).fit(counts)


# Bad input --------------------------------------------------------------------------------------------------
NAN = A.copy()
NAN[1, 2] = np.nan


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array, sp.coo_matrix])
@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (NAN, "adjacency contains NaN"),
        (np.where(np.isnan(NAN), np.inf, A), "adjacency contains infinity"),
        (-A, r"adjacency must hold finite weights >= 0, but holds -3.0. Clip or drop"),
        (A[:, :3], r"adjacency must be square, nodes by nodes, but its shape is \(4, 3\). Embed a table"),
    ],
    ids=["NaN", "infinity", "negative", "not square"],
)
def test_bad_matrices(form, bad, match):
    with pytest.raises(ValueError, match=match):
        random_walk(form(bad))


@pytest.mark.parametrize("labels", [["a", "b", "c", "a"], ["a", "b", "c", None], ["a", "b", "c", np.nan]], ids=str)
def test_labels_of_a_matrix_have_to_be_distinct_and_there(labels):
    with pytest.raises(ValueError, match=r"twice|missing"):
        random_walk(A, nodes=labels)


MISSING = {
    "None": None,
    "NaN": np.nan,
    "NaT": pd.NaT,
    "NA": pd.NA,
}


@pytest.mark.parametrize("column", [0, 1])
@pytest.mark.parametrize("name", ["None", "NaN", "NaT", "NA"])
@pytest.mark.parametrize(("function", "argument"), [(random_walk, "nodes"), (bipartite, "rows|columns")])
def test_missing_labels(function, argument, name, column):
    pairs = table(("a", "b"), ("b", "c"))
    pairs.iloc[1, column] = MISSING[name]
    with pytest.raises(ValueError, match=rf"({argument}): a label is missing .*Drop or fill"):
        function(pairs)


@pytest.mark.parametrize(("function", "name"), [(random_walk, "adjacency"), (bipartite, "table")])
@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (table(("a", "b", 1), ("b", "c", np.nan)), r"NAME\['weight'\] must hold finite weights >= 0, but holds nan"),
        (table(("a", "b", 1), ("b", "c", -2)), r"NAME\['weight'\] must hold finite weights >= 0, but holds -2.0"),
        (table(("a", "b", np.inf)), r"NAME\['weight'\] must hold finite weights >= 0, but holds inf"),
        (pd.DataFrame({"i": ["a"]}), r"NAME needs two columns, one for each end, but has 1: \['i'\]"),
        (
            pd.DataFrame({"i": ["a"], "weight": [1], "j": ["b"]}),
            "weight='weight' is one of the first two columns of NAME, which are labels. Reorder",
        ),
    ],
    ids=["NaN", "negative", "infinite", "one column", "weight among labels"],
)
def test_bad_tables(function, name, bad, match):
    with pytest.raises(ValueError, match=match.replace("NAME", name)):
        function(bad)


@pytest.mark.parametrize(
    ("nodes", "match"),
    [
        (["a", "b"], "nodes must name every node, but lacks 'c'. Add it, or drop its edges"),
        (["a", "b", "c", "a"], "nodes must name each label once, but has 'a' twice"),
        (["a", "b", "c", None], "nodes: a label is missing"),
    ],
    ids=["lacking", "twice", "missing"],
)
def test_bad_nodes(nodes, match):
    with pytest.raises(ValueError, match=match):
        random_walk(table(("a", "b"), ("b", "c")), nodes=nodes)


@pytest.mark.parametrize("side", ["rows", "columns"])
def test_bad_rows_and_columns(side):
    with pytest.raises(ValueError, match=f"{side} must name each label once, but has 'a' twice"):
        bipartite(table(("a", "b")), **{side: ["a", "b", "a"]})
    with pytest.raises(ValueError, match=f"{side}: a label is missing"):
        bipartite(table(("a", "b")), **{side: ["a", None]})


@pytest.mark.parametrize("bad", [[["a", "b"]], np.ones((3, 2)), sp.csr_array(np.eye(2)), {"a": ["b"]}, None], ids=type)
def test_no_long_table(bad):
    with pytest.raises(ValueError, match=f"table must be a pandas DataFrame.* is of type {type(bad).__name__}"):
        bipartite(bad)


@pytest.mark.parametrize(
    ("function", "params"),
    [
        (random_walk, {"teleport": 1.0}),
        (random_walk, {"teleport": -0.1}),
        (random_walk, {"directed": "yes"}),
        (random_walk, {"weight": 3}),
        (random_walk, {"nodes": 4}),
        (random_walk, {"return_nodes": None}),
        (bipartite, {"weight": 3}),
        (bipartite, {"rows": 4}),
        (bipartite, {"columns": "ab"}),
    ],
    ids=str,
)
def test_bad_parameters(function, params):
    (name,) = params
    with pytest.raises(InvalidParameterError, match=f"The '{name}' parameter of {function.__name__} must be"):
        function(table(("a", "b")), **params)


def test_indices_out_of_range_and_split_entries():
    adjacency = sp.csr_array((np.array([1.0, 2.0, 1.0]), np.array([1, 0, 1]), np.array([0, 3, 3])), shape=(2, 2))
    assert_allclose(random_walk(adjacency).toarray(), [[0.5, 0.5], [0, 0]])
    adjacency.indices[0] = 2
    with pytest.raises(ValueError, match=r"adjacency must be .* index 2, out of range for 2"):
        random_walk(adjacency)
