"""Fits with some functions of the softmax objective replaced."""

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose
from sklearn.exceptions import ConvergenceWarning

from sklearn_attnembed import AttentionEmbedding
from sklearn_attnembed import _embedding as embedding_module
from sklearn_attnembed._core import out_of_sample, row_minimizers, softmax_objective


def embedding(affinity="precomputed", **params):
    return AttentionEmbedding(**{"n_components": 16, "affinity": affinity, "random_state": 0, **params})


def test_co_rotating_frame_comes_to_rest(hubs, monkeypatch):
    """The force has a torque here. Without the co-rotating frame the solver takes far longer to converge."""
    monkeypatch.setattr(softmax_objective, "has_settled", lambda *args: False)
    n_iter = embedding(max_iter=200, tol=1e-3).fit(hubs).n_iter_
    assert n_iter < 100
    monkeypatch.setattr(softmax_objective, "fitted_rotation", lambda torque, second_moment: np.zeros_like(torque))
    with pytest.warns(ConvergenceWarning):
        embedding(max_iter=2 * n_iter, tol=1e-3).fit(hubs)


def test_best_iterate_is_kept(hubs, monkeypatch):
    """With too little damping the solver diverges, but it returns the best iterate."""
    damping = lambda descent: 0.05  # noqa: E731
    monkeypatch.setattr(softmax_objective.SoftmaxDescent, "_damping", damping)
    model = embedding(max_iter=30, tol=0, warm_start=True).fit(hubs)
    best = min(model.loss_curve_)
    assert model.loss_curve_[-1] > best + 0.1
    model.set_params(max_iter=1).fit(hubs)
    assert_allclose(model.loss_curve_[0], best, rtol=1e-9)


def test_walks_are_walks(graph, monkeypatch):
    """`walk_length` on P equals `walk_length=1` on the average of its powers, with equal starts and damping."""
    monkeypatch.setattr(softmax_objective, "smooth_over_graph", lambda *args: None)
    monkeypatch.setattr(softmax_objective, "smallest_damping", lambda problem: 1.0)
    P = graph[0].toarray() / graph[0].sum(axis=1)[:, None]
    average = (P + P @ P + P @ P @ P) / 3
    assert_allclose(embedding(walk_length=3).fit(P).embedding_, embedding().fit(average).embedding_, atol=1e-6)


@pytest.mark.parametrize("affinity", ["precomputed", "bipartite"])
@pytest.mark.parametrize("normalizer", ["gaussian", "neighbors", "exact"])
@pytest.mark.filterwarnings("ignore:.* rows have no affinity")
def test_rows_without_affinity_cost_nothing(affinity, normalizer, graph, counts, monkeypatch):
    """Rows without affinity are neither swept nor embedded."""
    looked_at = []
    sweep, respond = softmax_objective.sweep_block, row_minimizers.iterated_response
    monkeypatch.setattr(softmax_objective, "sweep_block", lambda Y, *rest: looked_at.append(len(Y)) or sweep(Y, *rest))
    monkeypatch.setattr(
        out_of_sample, "iterated_response", lambda C, *rest: looked_at.append(len(C)) or respond(C, *rest)
    )
    small = (graph[0] if affinity == "precomputed" else sp.csr_array(counts)).tocoo()
    shape = [2000, 2000] if affinity == "precomputed" else [1500, 1000]
    large = sp.csr_array((small.data, (small.coords[0] + 500, small.coords[1] + 500)), shape=shape)
    embedding(affinity, normalizer=normalizer, temperature=0.5, n_clusters=2).fit(large)
    assert max(looked_at) <= max(small.shape)


@pytest.mark.parametrize("params", [{}, {"walk_length": 3}, {"key_weight": "degree"}, {"null_model": 1.0}], ids=str)
@pytest.mark.parametrize("affinity", ["precomputed", "bipartite"])
def test_true_losses_are_within_their_bounds(affinity, params, graph, counts, monkeypatch):
    found = []
    bounds_of = embedding_module.loss_bounds
    monkeypatch.setattr(embedding_module, "loss_bounds", lambda *args: found.append(bounds_of(*args)) or found[-1])
    X = graph[0] if affinity == "precomputed" else counts
    model = embedding(affinity, normalizer="exact", temperature=0.5, **params).fit(X)
    assert model.converged_
    assert found[0].lowest < model.loss_curve_[-1] < found[0].highest
    assert (found[0].error > 0) == (params == {"walk_length": 3})
