"""Warnings about matrices that are probably not what `affinity` says, and cases without a warning."""

import warnings

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import aslinearoperator
from sklearn.metrics import pairwise_distances
from sklearn.metrics.pairwise import (
    cosine_distances,
    cosine_similarity,
    euclidean_distances,
    laplacian_kernel,
    linear_kernel,
    manhattan_distances,
    rbf_kernel,
)
from sklearn.neighbors import KNeighborsTransformer, kneighbors_graph
from sklearn.pipeline import make_pipeline

from sklearn_attnembed import AttentionEmbedding
from sklearn_attnembed.datasets import make_block_model

# A Gaussian fails for few rows at low temperatures and warns, which is not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.* ended at a loss:sklearn.exceptions.ConvergenceWarning")


SIZES = [20, 50, 150]


def _suspicion(X, **params):
    """Return the warning of a fit that says what `X` looks like, or None."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            AttentionEmbedding(1, max_iter=1, tol=0, random_state=0, **params).fit(X)
        except ValueError as error:
            assert "X has no affinity at all" in str(error)  # noqa: PT017, an error for some of the matrices
    assert not any(issubclass(each.category, RuntimeWarning) for each in caught)
    texts = [str(each.message) for each in caught if str(each.message).startswith("X looks like")]
    assert len(texts) <= 1
    return texts[0] if texts else None


def given_as_affinities(A, affinity="precomputed"):
    if callable(affinity):
        return _suspicion(np.zeros((A.shape[0], 1)), affinity=lambda X, Y: A)
    return _suspicion(A, affinity=affinity)


def given_as_points(X):
    return _suspicion(X, n_neighbors=min(5, X.shape[0] - 1))


# Matrices of n by n -----------------------------------------------------------------------------------------
def _points(n):
    return np.random.default_rng(n).random((n, 5))


def _normal(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def _without_diagonal(A):
    A = np.array(A, np.float64)
    np.fill_diagonal(A, 0)
    return A


def _markov(A):
    return A / A.sum(axis=1, keepdims=True)


def _symmetric(A):
    return np.triu(A, 1) + np.triu(A, 1).T


def _cliques(n):
    return np.kron(np.eye(2), np.ones((n // 2, n // 2)))


def _star(n):
    A = np.zeros((n, n))
    A[0, 1:] = A[1:, 0] = 1
    return A


def _gravity(n):
    """Flows between places of different sizes."""
    size = np.random.default_rng(n).lognormal(size=n)
    return np.random.default_rng(n).poisson(20 * np.outer(size, size)).astype(np.float64)


def _scores(n):
    """Attention scores of queries over keys."""
    return _normal(n, 8) @ _normal(8, n + 1)[:, :n]


DISTANCES = {
    "Euclidean": lambda n: euclidean_distances(_points(n)),
    "Euclidean, float32": lambda n: euclidean_distances(_points(n)).astype(np.float32),
    "Euclidean, squared": lambda n: euclidean_distances(_points(n), squared=True),
    "Euclidean, of clusters": lambda n: euclidean_distances(_points(n) + 5 * (np.arange(n) % 2)[:, None]),
    "Manhattan": lambda n: manhattan_distances(_points(n)),
    "cosine": lambda n: cosine_distances(_normal(n, 5)),
    "Chebyshev": lambda n: pairwise_distances(_points(n), metric="chebyshev"),
    "on a line": lambda n: np.abs(np.subtract.outer(np.arange(n), np.arange(n))).astype(np.float64),
    "shortest paths": lambda n: np.asarray(nx.floyd_warshall_numpy(nx.cycle_graph(n))),
    "neighbours": lambda n: kneighbors_graph(_points(n), 5, mode="distance"),
    "neighbours and self": lambda n: KNeighborsTransformer(n_neighbors=5).fit_transform(_points(n)),
}

FEATURES = {
    "uniform": lambda n: np.random.default_rng(n).random((n, n)),
    "uniform, float32": lambda n: np.random.default_rng(n).random((n, n), np.float32),
    "exponential": lambda n: np.random.default_rng(n).exponential(size=(n, n)),
    "of unlike scales": lambda n: np.random.default_rng(n).random((n, n)) * np.geomspace(1, 100, n),
}

AFFINITIES = {
    "kernel": lambda n: rbf_kernel(_points(n)),
    "kernel, narrow": lambda n: rbf_kernel(_normal(n, 5), gamma=3),
    "kernel, without diagonal": lambda n: _without_diagonal(rbf_kernel(_points(n), gamma=1)),
    "Laplacian kernel, without diagonal": lambda n: _without_diagonal(laplacian_kernel(_normal(n, 5))),
    "linear kernel": lambda n: linear_kernel(_points(n)),
    "cosines": lambda n: cosine_similarity(_points(n)),
    "cosines, without diagonal": lambda n: _without_diagonal(cosine_similarity(_points(n))),
    "inverse distances": lambda n: _without_diagonal(1 / (1 + euclidean_distances(_normal(n, 3)))),
    "correlations": lambda n: np.abs(np.corrcoef(_normal(n, 9))),
    "correlations, without diagonal": lambda n: _without_diagonal(np.abs(np.corrcoef(_normal(n, 9)))),
    "adjacency": lambda n: make_block_model(n, 2, random_state=0)[0],
    "adjacency, dense": lambda n: make_block_model(n, 2, random_state=0)[0].toarray(),
    "weighted adjacency": lambda n: make_block_model(n, 2, random_state=0)[0] * 2.5,
    "directed adjacency": lambda n: _without_diagonal(np.random.default_rng(n).random((n, n)) < 0.2),
    "directed adjacency, sparse": lambda n: sp.csr_array((np.random.default_rng(n).random((n, n)) < 0.2) * 1.0),
    "complete graph": lambda n: _without_diagonal(np.ones((n, n))),
    "complete graph, weighted": lambda n: _symmetric(np.random.default_rng(n).uniform(1, 2, (n, n))),
    "ones": lambda n: np.ones((n, n)),
    "identity": np.eye,
    "cycle": lambda n: np.roll(np.eye(n), 1, axis=1),
    "star": _star,
    "complete bipartite": lambda n: 1 - _cliques(n),
    "cliques": _cliques,
    "cliques, without diagonal": lambda n: _without_diagonal(_cliques(n)),
    "Markov": lambda n: _markov(np.random.default_rng(n).random((n, n))),
    "Markov, without diagonal": lambda n: _markov(_without_diagonal(np.random.default_rng(n).random((n, n)))),
    "attention": lambda n: _markov(np.exp(_scores(n))),
    "attention, causal": lambda n: _markov(np.tril(np.exp(_scores(n)))),
    "attention, causal, not normalised": lambda n: np.tril(np.exp(_scores(n))),
    "neighbours": lambda n: kneighbors_graph(_points(n), 5),
    "neighbours and self": lambda n: kneighbors_graph(_points(n), 5, include_self=True),
    "neighbours, dense": lambda n: kneighbors_graph(_points(n), 5).toarray(),
    "neighbours, of distances sorted": lambda n: kneighbors_graph(_points(n), 5, mode="distance").tocsc(),
    "bigrams": _gravity,
    "flows without diagonal": lambda n: _without_diagonal(_gravity(n)),
    "symmetric": lambda n: _symmetric(np.random.default_rng(n).random((n, n))) + np.diag(np.arange(n)),
    "symmetric, without diagonal": lambda n: _symmetric(np.random.default_rng(n).random((n, n))),
    "ratings of pairs": lambda n: _symmetric(np.random.default_rng(n).integers(1, 6, (n, n)).astype(np.float64)),
    "zeros": lambda n: np.zeros((n, n)),
    "nothing, sparse": lambda n: sp.csr_array((n, n)),
}

POINTS = {
    "tall": _points,
    "square": lambda n: _normal(n, n),
    "square counts": lambda n: np.random.default_rng(n).poisson(1, (n, n)).astype(np.float64),
    "square, sparse": lambda n: sp.random_array((n, n), density=0.2, rng=np.random.default_rng(n), format="csr"),
    "wide, sparse": lambda n: sp.random_array((n, 2 * n), density=0.2, rng=np.random.default_rng(n), format="csr"),
}

RELATIONS = {
    "kernel": AFFINITIES["kernel"],
    "kernel, float32": lambda n: AFFINITIES["kernel"](n).astype(np.float32),
    "adjacency": AFFINITIES["adjacency"],
    "adjacency, dense": AFFINITIES["adjacency, dense"],
    "correlations": AFFINITIES["correlations"],
    "distances": DISTANCES["Euclidean"],
}


# What is said -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", DISTANCES)
def test_distances_are_no_affinities(name, n):
    text = given_as_affinities(DISTANCES[name](n), "precomputed")
    assert text.startswith("X looks like distances")
    assert "affinity='precomputed' takes affinities, which are large where samples are near" in text
    assert "affinity='precomputed_nearest_neighbors', or make affinities of them, np.exp(" in text


@pytest.mark.parametrize("n", [50, 150])
@pytest.mark.parametrize("name", FEATURES)
def test_features_are_no_affinities(name, n):
    text = given_as_affinities(FEATURES[name](n), "precomputed")
    assert text.startswith("X looks like features")
    assert "affinity='precomputed' takes affinities of samples by samples" in text
    assert "affinity='nearest_neighbors', for counts affinity='bipartite'" in text


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", RELATIONS)
def test_relations_are_no_points(name, n):
    text = given_as_points(RELATIONS[name](n))
    assert text.startswith("X looks like relations of samples, being square and symmetric")
    assert "affinity='nearest_neighbors' takes rows for points" in text
    assert "use affinity='precomputed', for distances metric='precomputed'" in text


@pytest.mark.parametrize("n", [2, 5, *SIZES, 400])
@pytest.mark.parametrize("name", AFFINITIES)
def test_affinities_are_not_suspected(name, n):
    if n < 6 and name.startswith(("neighbours", "adjacency", "weighted")):
        pytest.skip("needs more samples")
    assert given_as_affinities(AFFINITIES[name](n), "precomputed") is None


@pytest.mark.parametrize(
    "A",
    [
        np.triu(np.random.default_rng(0).random((50, 50)) < 0.08).astype(np.float64),
        (np.random.default_rng(0).random((50, 50)) < 0.08).astype(np.float64),
        _without_diagonal(rbf_kernel(np.random.default_rng(1).standard_normal((200, 5)), gamma=0.02)),
    ],
    ids=["citations and loops", "links and loops", "wide kernel, without diagonal"],
)
def test_affinities_that_are_hard_to_tell_are_not_suspected(A):
    assert given_as_affinities(A, "precomputed") is None


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", POINTS)
def test_points_are_not_suspected(name, n):
    assert given_as_points(POINTS[name](n)) is None


@pytest.mark.parametrize("n", [2, 19])
def test_of_few_samples_nothing_is_concluded(n):
    assert given_as_affinities(DISTANCES["Euclidean"](n), "precomputed") is None
    assert given_as_affinities(FEATURES["uniform"](n), "precomputed") is None
    assert given_as_points(RELATIONS["kernel"](n)) is None


def test_what_a_function_returns_may_lack_symmetry():
    assert given_as_affinities(FEATURES["uniform"](50), np.dot) is None
    assert "X looks like distances" in given_as_affinities(DISTANCES["Euclidean"](50), euclidean_distances)


@pytest.mark.parametrize("name", ["neighbours", "neighbours and self"])
def test_what_is_looked_at_stays_as_it_is(name):
    X = DISTANCES[name](50)
    before = X.copy()
    given_as_affinities(X, "precomputed")
    assert not X.has_sorted_indices
    assert np.array_equal(X.indices, before.indices)
    assert np.array_equal(X.data, before.data)


# Where it is said -------------------------------------------------------------------------------------------
def embedding(affinity="precomputed", **params):
    return AttentionEmbedding(2, affinity=affinity, tol=0, max_iter=2, random_state=0, **params)


MISTAKEN = {
    "distances": (lambda: embedding().fit(DISTANCES["Euclidean"](30)), "distances"),
    "graph": (lambda: embedding().fit(DISTANCES["neighbours"](30)), "distances"),
    "callable": (lambda: embedding(euclidean_distances).fit(_points(30)), "distances"),
    "features": (lambda: embedding().fit(FEATURES["uniform"](30)), "features"),
    "kernel": (lambda: embedding("nearest_neighbors").fit(RELATIONS["kernel"](30)), "relations"),
    "adjacency": (lambda: embedding("nearest_neighbors").fit(RELATIONS["adjacency"](30)), "relations"),
    "expressive": (lambda: embedding(kernel="expressive").fit(FEATURES["uniform"](30)), "features"),
    "pipeline": (lambda: make_pipeline(embedding()).fit(FEATURES["uniform"](30))[0], "features"),
}


@pytest.mark.parametrize("name", MISTAKEN)
def test_fit_warns_once_and_points_at_the_line_of_the_call(name):
    call, what = MISTAKEN[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = call()
    (warning,) = caught
    assert str(warning.message).startswith(f"X looks like {what}")
    assert (warning.filename, warning.lineno) == (__file__, call.__code__.co_firstlineno)
    assert model.embedding_.shape == (30, 2), "a suspicion, no error"


@pytest.mark.parametrize(
    ("X", "affinity", "params"),
    [
        (DISTANCES["Euclidean"](30), "nearest_neighbors", {"metric": "precomputed"}),
        (DISTANCES["neighbours"](30), "precomputed_nearest_neighbors", {"n_neighbors": 5}),
        (DISTANCES["Euclidean"](30), "precomputed_nearest_neighbors", {}),
        (FEATURES["uniform"](30), "bipartite", {}),
        (RELATIONS["kernel"](30), "bipartite", {}),
        (aslinearoperator(DISTANCES["Euclidean"](30)), "precomputed", {}),
        (_points(30), rbf_kernel, {}),
        (FEATURES["uniform"](30), "nearest_neighbors", {}),
    ],
    ids=["metric", "neighbours", "all distances", "table", "square table", "operator", "callable", "points"],
)
def test_fit_is_silent_where_all_is_right(X, affinity, params):
    embedding(affinity, **params).fit(X)  # warnings are errors


def test_new_rows_are_not_suspected():
    model = embedding().fit(AFFINITIES["kernel"](30))
    model.transform(DISTANCES["Euclidean"](30))
    model.score(FEATURES["uniform"](30))


@pytest.mark.parametrize("size", [1e155, 1e308])
def test_largest_numbers_are_looked_at_without_warnings(size):
    X = np.random.default_rng(0).random((50, 50))
    assert "X looks like features" in given_as_affinities(X / X.max() * size, "precomputed")
    largest = 0.99 * np.sqrt(np.finfo(np.float64).max / 50) / 2  # squares of larger ones may overflow
    assert given_as_points((X - 0.5) * min(size, largest)) is None
    assert given_as_points((X + X.T) / 4 * min(size, largest)) is not None
