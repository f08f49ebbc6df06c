"""Minimizers over the sphere: each row ends in the minimum of its own loss, whatever rows are with it."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize

from sklearn_attnembed._core import row_minimizers, sphere
from sklearn_attnembed._core.normalizers.exact import exact_field
from sklearn_attnembed._core.normalizers.mixture import gaussian_field
from sklearn_attnembed._core.statistics import block_statistics, largest_variance

RNG = np.random.default_rng(0)


def on_sphere(objective, d, starts=20):
    """The lowest value over the unit sphere that a general optimiser finds."""
    rng = np.random.default_rng(1)
    return min(minimize(lambda z: objective(z / np.linalg.norm(z)), rng.standard_normal(d)).fun for _ in range(starts))


@pytest.mark.parametrize("strength", [0.0, 0.3, 3.0, 100.0])
def test_gaussian_response_is_the_global_minimum(strength):
    rng = np.random.default_rng(0)
    B = np.cov(rng.standard_normal((4, 30)) * np.array([[1], [2], [0.3], [0.5]])) * strength
    C = rng.standard_normal((6, 4))
    X = row_minimizers.gaussian_response(C, np.linalg.eigh(B))
    assert_allclose(np.linalg.norm(X, axis=1), 1, rtol=1e-12)
    for c, x in zip(C, X, strict=True):
        best = on_sphere(lambda z, c=c: -c @ z + z @ B @ z / 2, 4)
        assert -c @ x + x @ B @ x / 2 <= best + 1e-6


def test_gaussian_response_without_force():
    """No force, or none along the softest direction (the hard case): a unit vector all the same."""
    B = np.diag([0.1, 1.0, 2.0])
    X = row_minimizers.gaussian_response(np.array([[0.0, 0, 0], [0, 1e-3, 0]]), np.linalg.eigh(B))
    assert_allclose(np.linalg.norm(X, axis=1), 1)
    assert_allclose(np.abs(X[0]), [1, 0, 0])
    assert_allclose(np.abs(X[1]), [np.sqrt(1 - (1e-3 / 0.9) ** 2), 1e-3 / 0.9, 0])


@pytest.mark.parametrize("beta", [2.0, 50.0])
@pytest.mark.parametrize("kind", ["mixture", "exact"])
def test_iterated_response_is_stationary(kind, beta):
    """However sharp the attention is, each row ends where its own loss is stationary."""
    rng = np.random.default_rng(0)
    keys = rng.standard_normal((200, 4)) / 2
    statistics = block_statistics(keys, None, np.arange(200) % 3, 3)
    field = gaussian_field(statistics, beta) if kind == "mixture" else exact_field(keys, None, beta)
    stiffness = beta * largest_variance(statistics)
    C = rng.standard_normal((7, 4))
    X = row_minimizers.iterated_response(C, sphere.unit_rows(C.copy()), field, stiffness)
    force = C - field(X, slice(None))[1]
    tangent = force - np.einsum("ij,ij->i", force, X)[:, None] * X
    assert np.abs(tangent).max() < 1e-8
    alone = np.vstack(
        [row_minimizers.iterated_response(c, sphere.unit_rows(c.copy()), field, stiffness) for c in C[:, None]]
    )
    assert_allclose(alone, X, atol=1e-8)


def inverse_hessian(moved, change, scale):
    """Compute the BFGS estimate as a matrix, from the oldest pair to the newest."""
    H = scale * np.eye(moved.shape[1])
    for s, y in zip(moved, change, strict=True):
        V = np.eye(len(s)) - np.outer(y, s) / (s @ y)
        H = V.T @ H @ V + np.outer(s, s) / (s @ y)
    return H


@pytest.mark.parametrize("n_pairs", [0, 1, 5, 8, 11])
def test_history_is_the_inverse_hessian_of_the_last_eight_pairs(n_pairs):
    rng = np.random.default_rng(0)
    history = row_minimizers.History(np.zeros((8, 3, 5)), np.zeros((8, 3, 5)), np.zeros((8, 3)))
    moved = rng.standard_normal((n_pairs, 3, 5))
    change = moved + 0.3 * rng.standard_normal((n_pairs, 3, 5))
    for iteration, (s, y) in enumerate(zip(moved, change, strict=True)):
        history.put(iteration, np.arange(3), s, y, 1 / np.einsum("ij,ij->i", s, y))
    gradient, scale = rng.standard_normal((3, 5)), np.array([0.5, 1.0, 2.0])
    rows = np.array([2, 0])
    found = history.times_inverse_hessian(gradient, rows, n_pairs, scale)
    for row, vector in zip(rows, found, strict=True):
        assert_allclose(vector, inverse_hessian(moved[-8:, row], change[-8:, row], scale[row]) @ gradient[row])


def test_rows_that_are_not_named_lose_the_oldest_pair():
    history = row_minimizers.History(np.ones((8, 3, 2)), np.ones((8, 3, 2)), np.ones((8, 3)))
    history.put(9, np.array([1]), np.full((1, 2), 2.0), np.full((1, 2), 3.0), np.full(1, 4.0))
    assert [part[1].tolist() for part in history] == [[[0, 0], [2, 2], [0, 0]], [[0, 0], [3, 3], [0, 0]], [0, 4, 0]]
    assert all(np.all(np.delete(part, 1, axis=0) == 1) for part in history)


@pytest.mark.parametrize(("beta", "most"), [(2.0, 15), (50.0, 40)])
def test_few_steps_lead_to_the_minimum(beta, most):
    """Steps of a gradient descent would be many times as many."""
    keys = RNG.standard_normal((200, 4)) / 2
    field, calls = exact_field(keys, None, beta), []

    def counted(X, rows):
        calls.append(len(X))
        return field(X, rows)

    C = RNG.standard_normal((7, 4))
    stiffness = beta * largest_variance(block_statistics(keys))
    row_minimizers.iterated_response(C, sphere.unit_rows(C.copy()), counted, stiffness)
    assert len(calls) <= most
