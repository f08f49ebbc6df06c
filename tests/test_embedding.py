"""AttentionEmbedding: identities, invariants, parameters that reach the computation, policies."""

import pickle
import re
import typing

import joblib
import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, InconsistentVersionWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import normalized_mutual_info_score
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsTransformer
from sklearn.pipeline import make_pipeline

from sklearn_attnembed import AttentionEmbedding, NormalizerEstimator
from sklearn_attnembed.datasets import make_block_model
from sklearn_attnembed.metrics import attention_cross_entropy, attention_scores


def embedding(affinity="precomputed", **params):
    return AttentionEmbedding(**{"n_components": 16, "affinity": affinity, "random_state": 0, **params})


def effective_dimension(X):
    variance = np.linalg.eigvalsh(X.T @ X).clip(0)
    return variance.sum() ** 2 / np.square(variance).sum()


def training_data(affinity, digits, graph, counts):
    return {
        "nearest_neighbors": digits[0],
        "precomputed": graph[0],
        "bipartite": counts,
        "precomputed_nearest_neighbors": KNeighborsTransformer(mode="distance", n_neighbors=15).fit_transform(
            digits[0]
        ),
    }.get(affinity, digits[0])


AFFINITIES = pytest.mark.parametrize(
    "affinity", ["nearest_neighbors", "precomputed", "precomputed_nearest_neighbors", "bipartite", rbf_kernel], ids=str
)

# A Gaussian fails for few rows at low temperatures and warns, which is not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.* ended at a loss:sklearn.exceptions.ConvergenceWarning")


# Out of sample -----------------------------------------------------------------------------------------
@AFFINITIES
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"walk_length": 3},
        {"n_clusters": 3, "temperature": 0.5},
        {"normalizer": "exact"},
        {"normalizer": "neighbors", "n_exact": 10},
    ],
    ids=str,
)
def test_transform(affinity, params, digits, graph, counts):
    """The training rows get the embedding, also one at a time or in another order."""
    X = training_data(affinity, digits, graph, counts)
    model = embedding(affinity, max_iter=300, **params).fit(X)
    vectors = model.transform(X)
    assert_allclose(vectors, model.embedding_, atol=1e-9)
    assert_allclose(np.linalg.norm(vectors, axis=1), 1)
    rows = np.random.default_rng(0).permutation(X.shape[0])[:30]
    assert_allclose(model.transform(X[rows]), vectors[rows], atol=1e-6)
    assert_allclose(np.vstack([model.transform(X[[row]]) for row in rows[:8]]), vectors[rows[:8]], atol=1e-6)


def test_one_set_of_vectors(graph):
    """At convergence the vectors that are optimal given the keys are the keys."""
    model = embedding(tol=1e-7, max_iter=2000).fit(graph[0])
    assert model.converged_
    assert np.sqrt(np.mean(np.sum(np.square(model.embedding_ - model.key_embedding_), axis=1))) < 0.05


def test_fit_transform_is_fit_then_transform(digits):
    assert_allclose(
        embedding("nearest_neighbors").fit_transform(digits[0]),
        embedding("nearest_neighbors").fit(digits[0]).transform(digits[0]),
        atol=1e-9,
    )


def test_neighbors_graph_is_neighbors(digits):
    """KNeighborsTransformer in a pipeline gives the result of the built-in search, also for new points."""
    X, _ = digits
    pipeline = make_pipeline(
        KNeighborsTransformer(mode="distance", n_neighbors=15), embedding("precomputed_nearest_neighbors")
    )
    built_in = embedding("nearest_neighbors").fit(X[:300])
    assert_allclose(pipeline.fit(X[:300]).transform(X[300:]), built_in.transform(X[300:]), atol=1e-6)


# Dense, sparse, operator; precision; threads; permutation -------------------------------------------------
@pytest.mark.parametrize(
    "form",
    [sp.csr_matrix, sp.csc_array, sp.coo_array, sp.dok_array, sp.lil_matrix, aslinearoperator, lambda A: A.toarray()],
    ids=str,
)
@pytest.mark.parametrize("walk_length", [1, 3])
def test_form_of_the_affinities_does_not_matter(form, walk_length, graph):
    A, _ = graph
    expected = embedding(walk_length=walk_length).fit(A)
    model = embedding(walk_length=walk_length).fit(form(A))
    assert_allclose(model.embedding_, expected.embedding_, atol=1e-8)
    assert_allclose(model.transform(form(A)), expected.embedding_, atol=1e-8)
    assert_allclose(model.score(form(A)), expected.score(A))


def test_operator_without_adjoint_is_enough(graph):
    A, _ = graph
    operator = LinearOperator(A.shape, matvec=lambda x: A @ x, dtype=A.dtype)
    assert_allclose(embedding().fit(operator).embedding_, embedding().fit(A).embedding_, atol=1e-8)


def test_int64_indices_unsorted_duplicates_and_explicit_zeros(graph):
    A = graph[0].tocoo()
    rows, columns = (np.concatenate([c, c, [0, 5]])[::-1].astype(np.int64) for c in A.coords)
    messy = sp.csr_array((np.concatenate([A.data, A.data, [0, 0]])[::-1] / 2, (rows, columns)), shape=A.shape)
    raw = sp.csr_array(A.shape)
    raw.data, raw.indices, raw.indptr = messy.data, messy.indices.astype(np.int64), messy.indptr.astype(np.int64)
    before = [part.copy() for part in (raw.data, raw.indices, raw.indptr)]
    assert_allclose(embedding().fit(raw).embedding_, embedding().fit(graph[0]).embedding_, atol=1e-8)
    for part, old in zip((raw.data, raw.indices, raw.indptr), before, strict=True):
        assert_array_equal(part, old)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"walk_length": 3},
        {"n_clusters": 4},
        {"normalizer": "exact"},
        {"normalizer": "neighbors"},
        {"solver": "gradient"},
    ],
    ids=str,
)
def test_threads_change_no_bit(params, graph, monkeypatch):
    monkeypatch.setattr("sklearn_attnembed._core.parallel._BLOCK_ELEMENTS", 2**10)
    one, two, again = (embedding(n_jobs=n_jobs, **params).fit(graph[0]) for n_jobs in (1, 2, 2))
    assert one.embedding_.tobytes() == two.embedding_.tobytes() == again.embedding_.tobytes()
    assert one.loss_curve_ == two.loss_curve_
    assert one.transform(graph[0]).tobytes() == two.transform(graph[0]).tobytes()


def test_random_state_matters(graph):
    assert not np.allclose(embedding(random_state=1).fit(graph[0]).embedding_, embedding().fit(graph[0]).embedding_)


def test_float32_stays_and_is_close(graph):
    A, _ = graph
    single, double = embedding(max_iter=10, tol=0).fit(A.astype(np.float32)), embedding(max_iter=10, tol=0).fit(A)
    assert (
        single.embedding_.dtype
        == single.key_embedding_.dtype
        == single.transform(A.astype(np.float32)).dtype
        == np.float32
    )
    assert double.embedding_.dtype == np.float64
    assert_allclose(single.embedding_, double.embedding_, atol=1e-3)
    assert_allclose(single.loss_curve_, double.loss_curve_, atol=1e-5)


def test_scale_of_rows_does_not_matter(graph):
    scale = sp.diags_array(np.random.default_rng(0).uniform(1e-3, 1e3, graph[0].shape[0]))
    assert_allclose(embedding().fit(scale @ graph[0]).embedding_, embedding().fit(graph[0]).embedding_, atol=1e-6)


def test_permuted_queries_are_permuted_vectors(graph):
    model = embedding().fit(graph[0])
    order = np.random.default_rng(0).permutation(graph[0].shape[0])
    assert_allclose(model.transform(graph[0][order]), model.embedding_[order], atol=1e-9)


# Limits and the exact twin -------------------------------------------------------------------------------
def test_surrogate_finds_the_exact_optimum(graph):
    """At temperature 1 both solutions have the same exact objective."""
    A, _ = graph
    losses = {
        normalizer: attention_cross_entropy(
            A, embedding(normalizer=normalizer, temperature=1.0, tol=1e-5, max_iter=500).fit(A).embedding_
        )
        for normalizer in ("gaussian", "exact")
    }
    assert_allclose(losses["gaussian"], losses["exact"], rtol=2e-3)


def test_loss_curve_is_the_loss(graph):
    """The first loss of a warm start is the exact loss of the vectors it starts from."""
    A, _ = graph
    model = embedding(normalizer="exact", temperature=1.0, max_iter=3, tol=0, warm_start=True).fit(A)
    Y = model.key_embedding_
    expected = attention_cross_entropy(A, Y) + np.sum(Y.mean(axis=0) ** 2)
    assert_allclose(model.set_params(max_iter=1).fit(A).loss_curve_[0], expected, rtol=1e-10)


@pytest.mark.parametrize("key_weight", ["uniform", "degree"])
def test_loss_of_the_gaussian_is_the_loss(key_weight, graph):
    """The loss is computed from second moments for equal key weights, and row by row otherwise."""
    A, _ = graph
    model = embedding(temperature=1.0, max_iter=3, tol=0, warm_start=True, key_weight=key_weight).fit(A)
    Y, P = model.key_embedding_, A / A.sum(axis=1)[:, None]
    log_z = NormalizerEstimator(temperature=1.0).fit(Y, sample_weight=model.key_weight_).score_samples(Y)
    expected = np.mean(log_z - np.sum(Y * (P @ Y - Y.mean(axis=0)), axis=1))
    assert_allclose(model.set_params(max_iter=1).fit(A).loss_curve_[0], expected, rtol=1e-10)


@pytest.mark.parametrize("solver", ["accelerated", "gradient"])
@pytest.mark.parametrize("normalizer", ["gaussian", "exact", "neighbors"])
def test_solvers_minimise(solver, normalizer, graph):
    model = embedding(solver=solver, normalizer=normalizer, temperature=0.5).fit(graph[0])
    assert model.loss_curve_[-1] < model.loss_curve_[0] - 0.2
    assert np.all(np.isfinite(model.embedding_))
    assert len(model.loss_curve_) == model.n_iter_


def test_accelerated_needs_fewer_iterations(graph):
    gradient = embedding(solver="gradient", max_iter=100).fit(graph[0])
    accelerated = embedding().fit(graph[0])
    assert gradient.n_iter_ == 100
    assert accelerated.n_iter_ < 50
    losses = [attention_cross_entropy(graph[0], model.key_embedding_) for model in (accelerated, gradient)]
    assert losses[0] <= losses[1] + 0.01


@pytest.mark.parametrize("normalizer", ["exact", "neighbors"])
def test_own_key_does_not_push_its_row_away(normalizer, hubs):
    """At a low temperature the vectors of the training rows are as good as the keys."""
    model = embedding(normalizer=normalizer, temperature=1 / 16, max_iter=300).fit(hubs)
    ours, keys = (
        attention_cross_entropy(hubs, X, temperature=1 / 16) for X in (model.embedding_, model.key_embedding_)
    )
    assert ours < keys + 0.5
    assert np.einsum("ij,ij->i", model.embedding_, model.key_embedding_).mean() > 0.8


GRAPHS = {
    "path": sp.diags_array([np.ones(99), np.ones(99)], offsets=[1, -1]).tocsr(),
    "cycle, directed": sp.csr_array((np.ones(100), (np.arange(100), (np.arange(100) + 1) % 100))),
    "bipartite": sp.block_array([[None, np.eye(50) + np.eye(50, k=1)], [np.eye(50) + np.eye(50, k=-1), None]]).tocsr(),
    "complete": sp.csr_array(np.ones((100, 100)) - np.eye(100)),
    "two components": sp.block_diag([sp.csr_array(np.ones((50, 50)))] * 2).tocsr(),
    "self-loops": sp.csr_array(np.eye(100) + np.eye(100, k=1) + np.eye(100, k=-1)),
    "six orders of magnitude": sp.csr_array(10 ** np.random.default_rng(0).uniform(-3, 3, (100, 100))),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("temperature", [1.0, 1 / 8, 1 / 64])
@pytest.mark.parametrize("walk_length", [1, 4, 10])
@pytest.mark.parametrize("name", GRAPHS)
def test_nothing_collapses(name, walk_length, temperature):
    model = embedding(n_components=8, walk_length=walk_length, temperature=temperature).fit(GRAPHS[name])
    assert np.all(np.isfinite(model.embedding_))
    # "two components" can be told apart by a single direction
    assert effective_dimension(model.key_embedding_) > (1 if name == "two components" else 3)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("temperature", [1.0, 1 / 4, 1 / 64])
@pytest.mark.parametrize("walk_length", [1, 2, 3, 10])
def test_star(walk_length, temperature):
    """Leaves have the same affinities, and so the same vector, but the keys do not collapse."""
    star = sp.csr_array((np.ones(49), (np.zeros(49, int), np.arange(1, 50))), shape=(50, 50))
    model = embedding(walk_length=walk_length, temperature=temperature).fit(star + star.T)
    assert_allclose(model.embedding_[1:], np.tile(model.embedding_[1], (49, 1)), atol=1e-9)
    assert np.linalg.norm(model.key_embedding_.mean(axis=0)) < 0.97


def test_weak_relations_are_not_sent_to_one_place():
    """The rows of a complete graph are nearly uniform, but differ."""
    vectors = embedding(n_components=8).fit_transform(GRAPHS["complete"])
    assert effective_dimension(vectors) > 3


# Near keys -------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def communities():
    """A graph with too many nodes to sum over all of them."""
    return make_block_model(900, 12, mean_degree=15, mixing=0.2, random_state=1)[0].astype(np.float32)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("params", [{}, {"n_clusters": 3}, {"key_weight": "degree"}], ids=str)
@pytest.mark.parametrize(("temperature", "rtol"), [(1 / 4, 5e-3), (1 / 16, 1e-2)])
def test_neighbors_find_what_exact_finds(params, temperature, rtol, communities):
    """The exact objective is compared at a temperature where one Gaussian fails."""
    objective = {}
    for normalizer in ("exact", "neighbors", "gaussian"):
        model = embedding(normalizer=normalizer, temperature=temperature, walk_length=3, max_iter=40, tol=0, **params)
        objective[normalizer] = model.fit(communities).score(communities)
    assert_allclose(objective["neighbors"], objective["exact"], rtol=rtol)
    assert objective["gaussian"] < objective["neighbors"]


def test_neighbors_of_a_table(counts):
    """Rows and columns of a table both have nearest keys."""
    X = np.random.default_rng(0).poisson(np.kron(np.eye(4), np.ones((60, 70))) + 0.05).astype(float)
    model = embedding("bipartite", normalizer="neighbors", n_exact=20, walk_length=2).fit(X)
    assert model.embedding_.shape == (240, 16)
    assert_allclose(model.transform(X[:30]), model.embedding_[:30], atol=1e-6)
    exact = embedding("bipartite", normalizer="exact", walk_length=2).fit(X)
    assert_allclose(model.score(X), exact.score(X), rtol=1e-2)


# Going on, watching ------------------------------------------------------------------------------------------
def test_warm_start_goes_on(graph):
    A, _ = graph
    model = embedding(warm_start=True, tol=1e-3).fit(A)
    cold, lowest = model.n_iter_, min(model.loss_curve_)
    model.fit(A)
    assert model.n_iter_ < cold / 2
    assert model.loss_curve_[0] < lowest + 1e-2


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore:1 of 200 rows:UserWarning")
def test_warm_start_with_new_rows(graph):
    """Known rows and columns start from their last vectors, and new ones at random."""
    A, _ = graph
    model = embedding(warm_start=True, max_iter=1, tol=0).fit(A[:200, :200])
    before = model.key_embedding_
    Y = model.fit(A).key_embedding_
    assert np.einsum("ij,ij->i", Y[:200], before).mean() > 0.5
    assert_allclose(np.linalg.norm(Y, axis=1), 1)
    X = np.random.default_rng(0).poisson(1.0, (30, 20))
    table = embedding("bipartite", n_components=4, warm_start=True).fit(X[:25, :15])
    assert table.fit(X).key_embedding_.shape == (20, 4)


def test_warm_start_in_another_dimension_is_an_error(graph):
    model = embedding(warm_start=True).fit(graph[0])
    with pytest.raises(ValueError, match=r"16 dimensions, but n_components=8. Set it back, or set warm_start=False"):
        model.set_params(n_components=8).fit(graph[0])
    assert model.embedding_.shape[1] == 16


@pytest.mark.parametrize("normalizer", ["gaussian", "neighbors"])
def test_callbacks(normalizer, graph, watcher_class):
    pytest.importorskip("sklearn.callback")
    watcher = watcher_class()
    model = embedding(normalizer=normalizer, temperature=0.5).set_callbacks(watcher).fit(graph[0])
    assert watcher.events.count("begin") == watcher.events.count("end") == model.n_iter_ + 1
    assert (watcher.events[0], watcher.events[-1]) == ("setup", "teardown")
    assert len(watcher.scores) == model.n_iter_
    assert watcher.scores[-1] > watcher.scores[0]


def test_callback_stops_early(graph, watcher_class):
    pytest.importorskip("sklearn.callback")
    model = embedding().set_callbacks(watcher_class(last=2)).fit(graph[0])  # warnings are errors
    assert model.n_iter_ == 3
    assert not model.converged_


def test_scoring_monitor(graph):
    callback = pytest.importorskip("sklearn.callback")
    monitor = callback.ScoringMonitor(scoring={"likelihood": lambda model, X, y: model.score(X)})
    model = embedding().set_callbacks(monitor).fit(graph[0])
    assert monitor.get_logs().data_as_pandas["likelihood"].is_monotonic_increasing
    assert len(monitor.get_logs().data_as_pandas) == model.n_iter_


# Parameters ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "change",
    [
        {"n_components": 5},
        {"walk_length": 2},
        {"temperature": 0.5},
        {"n_clusters": 4},
        {"null_model": 1.0},
        {"null_model": 0.5},
        {"key_weight": "degree"},
        {"key_weight": 0.5},
        {"normalizer": "exact"},
        {"normalizer": "neighbors", "temperature": 0.2},
        {"solver": "gradient"},
        {"max_iter": 3, "tol": 0},
        {"tol": 1e-5},
    ],
    ids=str,
)
def test_every_parameter_reaches_the_computation(change, graph):
    base, changed = (embedding(**params).fit(graph[0]).embedding_ for params in ({}, change))
    assert base.shape != changed.shape or np.abs(base - changed).max() > 1e-6


@pytest.mark.parametrize("name", ["affinity", "kernel"])
def test_types_name_what_is_valid(name):
    """A type checker accepts the names that `fit` accepts."""
    hint = typing.get_type_hints(AttentionEmbedding.__init__)[name]
    names = next(part for part in (hint, *typing.get_args(hint)) if typing.get_origin(part) is typing.Literal)
    with pytest.raises(ValueError, match=f"The '{name}' parameter") as error:
        embedding(**{name: "unknown"}).fit(np.eye(3))
    valid = re.search("among {(.*?)}", str(error.value))[1]
    assert set(re.findall("'(.*?)'", valid)) == set(typing.get_args(names))


def test_n_exact_and_neighbor_parameters(digits, graph):
    few, many = (
        embedding(normalizer="neighbors", n_exact=k, temperature=0.1).fit(graph[0]).embedding_ for k in (2, 40)
    )
    assert not np.allclose(few, many)
    X, _ = digits
    results = [
        embedding("nearest_neighbors", **p).fit(X).embedding_ for p in ({}, {"n_neighbors": 5}, {"metric": "manhattan"})
    ]
    assert not np.allclose(results[0], results[1])
    assert not np.allclose(results[0], results[2])


def test_null_model_powers(graph):
    A, _ = graph
    assert_array_equal(embedding(null_model=0.0).fit(A).embedding_, embedding().fit(A).embedding_)
    assert_array_equal(embedding(null_model=1.0).fit(A).embedding_, embedding(null_model="degree").fit(A).embedding_)


def test_verbose_prints_each_iteration(graph, capsys):
    model = embedding(verbose=1).fit(graph[0])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == model.n_iter_
    assert "loss" in lines[0]
    embedding().fit(graph[0])
    assert capsys.readouterr().out == ""


# Convergence, likelihood -------------------------------------------------------------------------------------
def test_not_converged_warns_with_numbers(graph):
    with pytest.warns(ConvergenceWarning, match=r"max_iter=2 iterations: the last displacement was .*tol=0.01.*Raise"):
        model = embedding(max_iter=2).fit(graph[0])
    assert not model.converged_
    assert model.n_iter_ == 2


def test_tol_zero_runs_all_iterations_without_a_warning(graph):
    model = embedding(max_iter=60, tol=0).fit(graph[0])
    assert model.n_iter_ == 60


def test_score_is_the_exact_likelihood(graph):
    A, _ = graph
    model = embedding(temperature=0.5).fit(A)
    P = A.toarray() / A.sum(axis=1)[:, None]
    log_attention = np.log(attention_scores(model.embedding_, model.key_embedding_, temperature=0.5))
    assert_allclose(model.score(A), np.mean(np.sum(P * log_attention, axis=1)))
    assert_allclose(model.perplexity(A), np.exp(-model.score(A)))
    assert model.perplexity(A) < A.shape[0]


def test_score_of_many_rows_is_taken_at_even_steps(graph, monkeypatch):
    model = embedding().fit(graph[0])
    expected = model.score(graph[0][::3])
    monkeypatch.setattr("sklearn_attnembed._explain._EXACT_PAIRS", graph[0].shape[0] ** 2 // 3 + graph[0].shape[0])
    assert_allclose(model.score(graph[0]), expected)


def test_cross_validation_slices_rows_and_columns(graph):
    dense = graph[0] + sp.eye_array(graph[0].shape[0])  # no slice has an isolated row
    scores = cross_val_score(embedding(), dense.tocsr(), cv=3)
    assert np.all(scores > -np.log(graph[0].shape[0]))


# Policies ----------------------------------------------------------------------------------------------------
def test_isolated_rows_are_zero_and_left_out(graph):
    A, _ = graph
    padded = sp.block_diag([A, sp.csr_array((3, 3))]).tocsr()
    with pytest.warns(UserWarning, match=f"3 of {A.shape[0] + 3} rows have no affinity"):
        model = embedding().fit(padded)
    assert_array_equal(np.flatnonzero(model.isolated_), A.shape[0] + np.arange(3))
    assert_array_equal(model.embedding_[-3:], 0)
    assert_allclose(np.linalg.norm(model.embedding_[:-3], axis=1), 1)
    assert model.key_weight_.sum() == A.shape[0]
    with pytest.warns(UserWarning, match="1 of 2 rows"):
        assert_array_equal(model.transform(padded[[0, -1]])[1], 0)


def test_sinks_and_those_who_lead_to_nothing_else():
    """Node 1 leads only to the sink 2. It has an affinity, so it is not isolated and has a vector."""
    A = sp.csr_array(([1.0, 1, 1, 1, 1], ([0, 0, 1, 3, 4], [1, 3, 2, 4, 0])), shape=(5, 5))
    with pytest.warns(UserWarning, match="1 of 5 rows"):
        model = embedding(max_iter=5, tol=0).fit(A)
    assert_array_equal(np.flatnonzero(model.isolated_), [2])
    assert_allclose(np.linalg.norm(model.embedding_, axis=1), [1, 1, 0, 1, 1])


def test_bipartite_embeds_both_sides(counts):
    model = embedding("bipartite", n_components=8, temperature=1.0).fit(counts)
    assert model.embedding_.shape == (60, 8)
    assert model.key_embedding_.shape == (40, 8)
    scores = model.embedding_ @ model.key_embedding_.T
    own = np.kron(np.eye(2, dtype=bool), np.ones((30, 20), dtype=bool))
    assert scores[own].mean() > scores[~own].mean() + 0.5
    assert_allclose(model.transform(3 * counts[:5]), model.embedding_[:5], atol=1e-9)


def test_new_columns(counts):
    """Columns of fit that are embedded again get nearly the same vectors, independently of each other."""
    model = embedding("bipartite", n_components=8, temperature=1.0, tol=1e-4, max_iter=500).fit(counts)
    again = model.transform_keys(counts)
    assert np.sum(again * model.key_embedding_, axis=1).min() > 0.95
    assert_allclose(model.transform_keys(sp.csc_array(counts[:, 5:7])), again[5:7], atol=1e-6)
    with pytest.warns(UserWarning, match="1 of 3 columns have no affinity"):
        assert_array_equal(model.transform_keys(counts[:, :3] * [1, 0, 1])[1], 0)


def test_new_columns_of_what_has_none(graph, counts):
    with pytest.raises(ValueError, match=r"only affinity='bipartite' has, but affinity='precomputed'.*use transform"):
        embedding().fit(graph[0]).transform_keys(graph[0])
    with pytest.raises(ValueError, match=r"X has 10 rows, but transform_keys is expecting 60"):
        embedding("bipartite").fit(counts).transform_keys(counts[:10])


def test_bipartite_empty_rows_and_columns(counts):
    X = counts.copy()
    X[3], X[:, 7] = 0, 0
    with pytest.warns(UserWarning, match="1 of 60 rows"):
        model = embedding("bipartite", n_components=8).fit(X)
    assert_array_equal(model.embedding_[3], 0)
    assert_array_equal(model.key_embedding_[7], 0)
    assert model.key_weight_.sum() == 39


def test_duplicated_points(digits):
    X = np.repeat(digits[0][:40], 5, axis=0)
    vectors = embedding("nearest_neighbors", n_neighbors=10).fit_transform(X)
    assert np.all(np.isfinite(vectors))
    assert_allclose(vectors[::5], vectors[1::5], atol=1e-6)


def test_all_points_alike():
    vectors = embedding("nearest_neighbors").fit_transform(np.ones((30, 3)))
    assert_allclose(np.linalg.norm(vectors, axis=1), 1)


def test_n_neighbors_is_clipped_with_a_warning(digits):
    with pytest.warns(UserWarning, match="n_neighbors=15 is more than n_samples - 1 = 7"):
        model = embedding("nearest_neighbors").fit(digits[0][:8])
    assert np.all(np.isfinite(model.embedding_))


@pytest.mark.parametrize("affinity", ["nearest_neighbors", "precomputed", "bipartite"])
def test_inputs_are_not_modified(affinity, digits, graph, counts):
    """Neither read-only fixtures nor writable copies of them change."""
    X = training_data(affinity, digits, graph, counts)
    embedding(affinity).fit_transform(X)
    writeable = X.copy()
    embedding(affinity).fit_transform(writeable)
    assert abs(writeable - X).max() == 0


def test_readonly_memmap(tmp_path, digits):
    np.save(tmp_path / "X.npy", digits[0])
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    assert_array_equal(
        embedding("nearest_neighbors").fit_transform(X), embedding("nearest_neighbors").fit_transform(digits[0])
    )


def test_interruption_leaves_nothing_half_written(graph, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    model = embedding(verbose=1)
    monkeypatch.setattr("builtins.print", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(graph[0])
    assert set(vars(model)) == set(model.get_params())


@pytest.mark.parametrize("n_products", [1, 4, 8])
def test_failed_refit_leaves_the_model_as_it_was(n_products, graph):
    A, _ = graph
    model = embedding().fit(A)
    left = n_products

    def product(X):
        nonlocal left
        left -= 1
        return X / 1 if left else 1 / 0

    with pytest.raises(ZeroDivisionError):
        model.fit(LinearOperator((50, 50), matvec=product, matmat=product, dtype=np.float64))
    assert_array_equal(model.affinity_matrix_.toarray(), (A / A.sum(axis=1)[:, None]).toarray())
    assert_allclose(model.transform(A), model.embedding_, atol=1e-9)


@pytest.mark.parametrize(
    "params", [{"n_components": 1}, {"temperature": 1e-6}, {"temperature": 1e6}, {"n_components": 400}], ids=str
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_extreme_parameters_stay_finite(params, graph):
    model = embedding(**params).fit(graph[0])
    assert np.all(np.isfinite(model.embedding_))
    assert np.isfinite(model.score(graph[0]))


def test_saved_and_loaded(tmp_path, digits):
    X, _ = digits
    model = embedding("nearest_neighbors").fit(X)
    joblib.dump(model, tmp_path / "model.joblib")
    for copy in (pickle.loads(pickle.dumps(model)), joblib.load(tmp_path / "model.joblib")):
        assert_array_equal(copy.transform(X[:5]), model.transform(X[:5]))
    state = model.__getstate__()
    assert state["_attnembed_version"]
    for version in ("0.0.9", "99.0", "2.dev0"):
        with pytest.warns(InconsistentVersionWarning, match=f"sklearn_attnembed {version}"):
            clone(model).__setstate__({**state, "_attnembed_version": version})


def test_classifies_better_than_raw_pixels(digits):
    X, y = digits
    raw = cross_val_score(LogisticRegression(max_iter=1000), X, y, cv=5).mean()
    ours = cross_val_score(
        make_pipeline(embedding("nearest_neighbors", n_components=64), LogisticRegression()), X, y, cv=5
    ).mean()
    assert ours > raw


def test_finds_communities(graph):
    from sklearn.cluster import KMeans

    A, y = graph
    labels = KMeans(4, n_init=3, random_state=0).fit_predict(embedding(walk_length=3).fit_transform(A))
    assert normalized_mutual_info_score(y, labels) > 0.9


# What was fitted ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("affinity", ["precomputed", "bipartite", "nearest_neighbors"])
def test_parameters_set_after_fit_wait_for_the_next_fit(affinity, digits, graph, counts):
    """Every method uses the parameters that the model was fitted with."""
    X = training_data(affinity, digits, graph, counts)

    def answers(model):
        found = [model.transform(X[:7]), model.score(X[:20]), model.attention_scores(X[:3])]
        found += [model.explain_rows(rows=range(5)).to_numpy(), model.explain(0)["target"].to_numpy()]
        if affinity == "bipartite":
            found += [*model.recommend(X[:4], 5), model.transform_keys(X[:, :2])]
        return found

    model = embedding(affinity, walk_length=2).fit(X)
    before = answers(model)
    model.set_params(
        temperature=0.9, walk_length=1, kernel="expressive", n_components=3, normalizer="exact", n_clusters=2,
        affinity="bipartite" if affinity == "precomputed" else "precomputed", n_neighbors=2, weighting="uniform",
    )  # fmt: skip
    for here, there in zip(answers(model), before, strict=True):
        assert_array_equal(here, there)


@pytest.mark.parametrize("normalizer", ["gaussian", "neighbors", "exact"])
@pytest.mark.parametrize("n_clusters", [1, 3])
@pytest.mark.filterwarnings("ignore:.* rows have no affinity")
def test_rows_without_affinity_change_nothing(n_clusters, normalizer, graph):
    """Vectors and losses are the same to the bit, however many rows without affinity follow."""
    A, n = graph[0], graph[0].shape[0]
    model = embedding(normalizer=normalizer, temperature=0.5, n_clusters=n_clusters)
    alone, padded = (clone(model).fit(X) for X in (A, sp.block_diag([A, sp.csr_array((700, 700))]).tocsr()))
    assert alone.loss_curve_ == padded.loss_curve_
    assert_array_equal(padded.key_embedding_[:n], alone.key_embedding_)
    assert_array_equal(padded.key_weight_[:n], alone.key_weight_)
    assert_array_equal(padded.embedding_[:n], alone.embedding_)
    assert not padded.embedding_[n:].any()
    assert not padded.key_weight_[n:].any()


@pytest.mark.parametrize("normalizer", ["gaussian", "neighbors", "exact"])
@pytest.mark.filterwarnings("ignore:.* rows have no affinity")
def test_rows_and_columns_without_affinity_are_left_out(normalizer, counts):
    small = sp.csr_array(counts).tocoo()
    kept = [np.arange(n) + 500 for n in small.shape]
    large = sp.csr_array((small.data, (small.coords[0] + 500, small.coords[1] + 500)), shape=[1500, 1000])
    model = embedding("bipartite", normalizer=normalizer, temperature=0.5, n_clusters=2).fit(large)
    assert_array_equal(np.flatnonzero(~model.isolated_), kept[0])
    assert_array_equal(np.flatnonzero(model.key_weight_), kept[1])
    assert not model.embedding_[model.isolated_].any()
    assert_allclose(np.linalg.norm(model.embedding_[kept[0]], axis=1), 1)
    assert_allclose(model.transform(large[kept[0]]), model.embedding_[kept[0]], atol=1e-6)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    "params",
    [
        {"n_clusters": 8, "temperature": 0.02},
        {"n_clusters": 8, "temperature": 0.005},
        {"n_clusters": 4},
        {"normalizer": "exact", "temperature": 0.05},
        {"normalizer": "neighbors", "temperature": 0.05},
    ],
    ids=str,
)
def test_rows_do_not_see_each_other(params, digits):
    X, _ = digits
    model = embedding("nearest_neighbors", **params).fit(X[:300])
    together = model.transform(X[300:])
    assert_allclose(np.vstack([model.transform(x[None]) for x in X[300::4]]), together[::4], atol=1e-6)
    assert_allclose(model.transform(X[::-1]), model.transform(X)[::-1], atol=1e-6)


def test_twins_are_one_row(graph):
    """Rows with the same affinities get the same vector, whatever the rounding of their products."""
    A = graph[0].toarray()
    twice = np.r_[np.arange(len(A)), np.arange(0, len(A), 2)]
    model = embedding(normalizer="exact", temperature=0.1).fit(A[np.ix_(twice, twice)])
    rng = np.random.default_rng(0)
    for _ in range(5):
        noisy = A * (1 + 1e-14 * rng.standard_normal(A.shape))
        vectors = model.transform(noisy[np.ix_(twice, twice)])
        assert_array_equal(vectors[len(A) :], vectors[: len(A) : 2])
        assert_array_equal(vectors, model.embedding_)


# Losses that cannot be ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("affinity", "params"),
    [
        ("nearest_neighbors", {}),
        ("nearest_neighbors", {"walk_length": 3}),
        ("precomputed", {}),
        ("precomputed", {"walk_length": 3}),
        ("precomputed", {"solver": "gradient"}),
        ("precomputed", {"key_weight": "degree"}),
    ],
    ids=str,
)
def test_impossible_losses_are_not_converged(affinity, params, digits, graph, counts):
    """A loss below the entropy of the affinities comes from a wrong log Z, and is reported."""
    X = training_data(affinity, digits, graph, counts)
    with pytest.warns(ConvergenceWarning, match="which is impossible"):
        model = embedding(affinity, n_components=64, temperature=0.05, **params).fit(X)
    assert not model.converged_


@pytest.mark.parametrize("params", [{}, {"walk_length": 3}, {"key_weight": "degree"}, {"null_model": 1.0}], ids=str)
@pytest.mark.parametrize("affinity", ["precomputed", "bipartite"])
def test_true_losses_are_possible(affinity, params, graph, counts):
    X = graph[0] if affinity == "precomputed" else counts
    assert embedding(affinity, normalizer="exact", temperature=0.5, **params).fit(X).converged_


# Degrees, weights, sizes -------------------------------------------------------------------------------
@pytest.mark.parametrize("parameter", ["null_model", "key_weight"])
@pytest.mark.parametrize(("power", "size"), [(200.0, 1.0), (2.0, 1e160), (2.0, 1e-170), (1.0, 1e307), (1e300, 1.0)])
def test_no_power_of_degrees_overflows(parameter, power, size, graph):
    model = embedding(**{parameter: power}, max_iter=5, tol=0).fit(graph[0] * size)
    assert np.isfinite(model.embedding_).all()
    expected = embedding(**{parameter: power}, max_iter=5, tol=0).fit(graph[0])
    assert_allclose(model.embedding_, expected.embedding_, atol=1e-6)


@pytest.mark.parametrize("parameter", ["null_model", "key_weight"])
@pytest.mark.filterwarnings("ignore:.* rows have no affinity")
def test_degrees_of_rows_that_nobody_leads_to(parameter):
    """Users lead to items, which lead to no node."""
    A = np.zeros((7, 7))
    A[:4, 4:] = 1
    with pytest.raises(ValueError, match=rf"{parameter}='degree' needs degrees, but no row .* affinity='bipartite'"):
        embedding(n_components=2, **{parameter: "degree"}).fit(A)
    assert np.isfinite(embedding(n_components=2).fit(A).embedding_).all()


@pytest.mark.parametrize("affinity", ["precomputed", "bipartite"])
def test_n_clusters_is_clipped_with_a_warning(affinity, graph, counts):
    X = graph[0] if affinity == "precomputed" else counts
    with pytest.warns(UserWarning, match=r"n_clusters=1000000000 is more than there are .* is taken instead"):
        model = embedding(affinity, n_clusters=10**9, max_iter=3, tol=0).fit(X)
    expected = embedding(affinity, n_clusters=min(X.shape), max_iter=3, tol=0).fit(X)
    assert_array_equal(model.embedding_, expected.embedding_)


@pytest.mark.filterwarnings("ignore:.* rows have no affinity")
def test_keys_without_weight_have_no_likelihood():
    """A node without affinities gets no attention, so affinities to it are left out of the score."""
    A = np.array([[0.0, 1, 1], [1, 0, 1], [0, 0, 0]])
    model = embedding(n_components=2).fit(A)
    attention = model.attention_scores()
    assert_allclose(model.score(A), np.log(attention[[0, 1], [1, 0]]).mean())
    table = model.explain_rows()
    assert_allclose(-table["loss"].mean(), model.score(A))
    assert (table["divergence"] > -1e-9).all()
    assert_allclose(model.explain(0)["share"].sum(), 1)
    with pytest.raises(ValueError, match="nothing to score"):
        model.score([[0, 0, 1]])
    with pytest.raises(ValueError, match="nothing to score"):
        embedding(n_components=2).fit([[0, 1], [0, 0]]).score([[0, 1]])


def test_perplexity_may_be_beyond_numbers(graph):
    model = embedding(temperature=1e-6, max_iter=3, tol=0).fit(graph[0])
    assert model.perplexity(graph[0]) == np.inf


@pytest.mark.parametrize("rows", [[300], [-301], "x", [0.5], [True, False], [[0, 1]]], ids=str)
@pytest.mark.parametrize("method", ["attention_scores", "explain_rows", "explain_clusters"])
def test_rows_that_are_none(method, rows, graph):
    model = embedding(max_iter=2, tol=0).fit(graph[0][:300, :300])
    with pytest.raises(ValueError, match="rows must be numbers of rows, integers from 0 to"):
        getattr(model, method)(rows=rows)


def test_no_rows_and_rows_by_mask(graph):
    model = embedding().fit(graph[0])
    assert model.attention_scores(rows=[]).shape == (0, graph[0].shape[0])
    assert len(model.explain_rows(rows=[])) == 0
    mask = np.arange(graph[0].shape[0]) < 3
    assert_array_equal(model.attention_scores(rows=mask), model.attention_scores(rows=[0, 1, 2]))


@pytest.mark.parametrize("affinity", ["precomputed", "bipartite", "nearest_neighbors", "precomputed_nearest_neighbors"])
def test_split_entries_add_up(affinity, digits, graph, counts):
    """Entries at the same place are summed, and the input is not changed."""
    whole = sp.csr_array(training_data(affinity, digits, graph, counts))
    twice = np.repeat(np.arange(whole.nnz), 2)
    split = sp.csr_array(whole.shape)
    split.data, split.indices, split.indptr = whole.data[twice] / 2, whole.indices[twice], 2 * whole.indptr
    before = split.data.copy(), split.indices.copy()
    model, expected = embedding(affinity).fit(split), embedding(affinity).fit(whole)
    assert_allclose(model.embedding_, expected.embedding_, atol=1e-6)
    assert_allclose(model.transform(split), expected.embedding_, atol=1e-6)
    assert_array_equal(split.data, before[0])
    assert_array_equal(split.indices, before[1])


@pytest.mark.parametrize("affinity", ["precomputed", "bipartite", "nearest_neighbors", "precomputed_nearest_neighbors"])
def test_indices_out_of_range_are_refused(affinity, digits, graph, counts):
    whole = sp.csr_array(training_data(affinity, digits, graph, counts))
    model, broken = embedding(affinity).fit(whole), whole.copy()
    broken.indices[3] = 10**6
    for call in (embedding(affinity).fit, model.transform):
        with pytest.raises(ValueError, match="index 1000000, out of range"):
            call(broken)


def test_long_indices_with_any_metric(digits):
    X = sp.csr_array(digits[0])
    expected = embedding("nearest_neighbors", metric="manhattan").fit(X).embedding_
    X.indices, X.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int64)
    assert_allclose(embedding("nearest_neighbors", metric="manhattan").fit(X).embedding_, expected, atol=1e-9)


def test_no_bit_of_distances_depends_on_batch_or_ties(digits):
    """Points with integer coordinates have many ties, which scikit-learn's search breaks arbitrarily."""
    X = np.round(digits[0] * 16)
    model = embedding("nearest_neighbors").fit(X)
    vectors, table = model.transform(X), model.explain_rows(X).sort_values("row", ignore_index=True)
    assert len(table) == len(X)
    for row in range(40):
        assert_array_equal(model.transform(X[[row]])[0], vectors[row])
        assert model.explain_rows(X[[row]])["entropy"][0] == table["entropy"][row]


def test_no_key_with_affinities_is_without_weight():
    """Powers of degrees that underflow must not give a likelihood above one."""
    A = np.diag([2.0, 1.0])
    model = embedding("bipartite", key_weight=5000.0).fit(A)
    assert (model.key_weight_ > 0).all()
    assert model.score(A) < 0


@pytest.mark.parametrize("one", [True, np.int8(1)], ids=repr)
def test_one_dimension_however_it_is_counted(one, graph):
    params = {"affinity": "precomputed", "max_iter": 2, "tol": 0, "random_state": 0}
    expected = AttentionEmbedding(1, **params).fit(graph[0]).embedding_
    assert_array_equal(AttentionEmbedding(one, **params).fit(graph[0]).embedding_, expected)


def test_squares_beyond_float32_are_no_warning():
    X = np.random.default_rng(0).standard_normal((40, 2)).astype(np.float32)
    X[3, 0] = 1e20
    model = embedding("nearest_neighbors").fit(sp.csr_array(X))
    assert np.isfinite(model.embedding_).all()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("normalizer", ["gaussian", "neighbors", "exact"])
def test_every_row_with_affinities_has_a_vector(normalizer):
    """Small tables in few dimensions, where attraction and repulsion may cancel, have no zero vectors."""
    rng = np.random.default_rng(0)
    for seed in range(60):
        X = (rng.random(rng.integers(2, 7, 2)) < 0.5) * rng.choice([1.0, 1.0, 2.0])
        X[0, 0] = 1
        params = {"n_components": 1 + seed % 3, "normalizer": normalizer, "n_exact": 2, "walk_length": 1 + seed % 2}
        model = embedding("bipartite", temperature=[0.2, 0.02, 50][seed % 3], max_iter=1 + seed % 20, **params).fit(X)
        assert_allclose(np.linalg.norm(model.embedding_, axis=1), X.any(axis=1))
        assert_allclose(np.linalg.norm(model.key_embedding_, axis=1), X.any(axis=0))
