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
