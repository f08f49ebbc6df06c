"""Vectors of new rows: minimizers of their own loss, fitted rows recognized, weak attraction lengthened."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_attnembed._core.affinity_matrix import blocked
from sklearn_attnembed._core.fit import fitted_model
from sklearn_attnembed._core.inverted_index import build_cells
from sklearn_attnembed._core.kernels import SOFTMAX
from sklearn_attnembed._core.normalizers import EXACT, GAUSSIAN, NEIGHBORS
from sklearn_attnembed._core.normalizers.mixture import gaussian_field
from sklearn_attnembed._core.normalizers.neighbors import NearKeys
from sklearn_attnembed._core.out_of_sample import Model, fingerprint, out_of_sample_map
from sklearn_attnembed._core.problem import KeyIndex, Problem, Strategy, build_key_index
from sklearn_attnembed._core.solver import Solution
from sklearn_attnembed._core.sphere import unit_rows
from sklearn_attnembed._core.statistics import block_statistics
from sklearn_attnembed._core.sweep import GroupKeys

BETA = 3.0


def keys_and_forces(n=60, d=4, seed=0):
    rng = np.random.default_rng(seed)
    Y = unit_rows(rng.standard_normal((n, d)) + np.array([0.5, 0, 0, 0]))
    return Y, 3 * rng.standard_normal((9, d))


def model_of(Y, **others):
    settings = {"targets": Y, "statistics": block_statistics(Y), "null_mean": 0.2 * np.ones(4), "beta": BETA}
    return Model(**{**settings, **others})


def tangent_of(gradient, X):
    return gradient - np.einsum("ij,ij->i", gradient, X)[:, None] * X


def test_one_gaussian():
    Y, U = keys_and_forces()
    model = model_of(Y)
    assert model.is_closed
    X = out_of_sample_map(model)(U)
    force = U - 0.2 - gaussian_field(model.statistics, BETA)(X, slice(None))[1]
    assert_allclose(tangent_of(force, X), 0, atol=1e-9)
    assert np.all(np.einsum("ij,ij->i", force, X) > 0)


def test_clusters():
    Y, U = keys_and_forces()
    model = model_of(Y, statistics=block_statistics(Y, None, np.arange(60) % 3, 3))
    assert not model.is_closed
    X = out_of_sample_map(model)(U)
    force = U - 0.2 - gaussian_field(model.statistics, BETA)(X, slice(None))[1]
    assert_allclose(tangent_of(force, X), 0, atol=1e-8)
    assert_array_equal(out_of_sample_map(model)(U[3:5]), X[3:5])


@pytest.mark.parametrize("weights", [None, np.linspace(0.5, 2, 60)])
def test_all_keys(weights):
    Y, U = keys_and_forces()
    X = out_of_sample_map(model_of(Y, statistics=block_statistics(Y, weights), keys=Y, weights=weights))(U)
    f = np.exp(BETA * X @ Y.T) * (1 if weights is None else weights)
    force = U - 0.2 - f @ Y / f.sum(axis=1, keepdims=True)
    assert_allclose(tangent_of(force, X), 0, atol=1e-8)


def test_near_keys_are_those_of_all_where_all_are_near():
    Y, U = keys_and_forces(400)
    cells = build_cells(Y, np.arange(400), np.zeros(400, int), lambda points, k: points[:k], map)
    near = NearKeys(np.zeros((0, 400), np.int32), [np.arange(0, 400, 2)], None)
    ours = out_of_sample_map(model_of(Y, keys=Y, n_exact=400, cells=cells, near=near))(U)
    assert_allclose(ours, out_of_sample_map(model_of(Y, keys=Y))(U), atol=1e-6)


def test_fitted_rows_have_their_own_keys():
    """Rows with the affinities of a fitted one get its key; twins get that of the first, others an own vector."""
    Y, U = keys_and_forces()
    rng = np.random.default_rng(1)
    leads = rng.standard_normal((60, 4))
    leads[7] = leads[3]
    model = model_of(Y, keys=Y, fingerprints=fingerprint(leads))
    embed = out_of_sample_map(model)
    assert_array_equal(embed(leads[[5, 3, 7, 59]]), Y[[5, 3, 3, 59]])
    both = embed(np.r_[leads[[5]], U])
    assert_array_equal(both[0], Y[5])
    X = both[1:]
    f, own = np.exp(BETA * X @ Y.T), np.exp(BETA)
    force = U - 0.2 - f @ Y / (f.sum(axis=1, keepdims=True) + own)  # and a term of their own, which moves with them
    assert_allclose(tangent_of(force, X), 0, atol=1e-8)
    assert_array_equal(embed(leads[[5]] + 1e-9), Y[[5]])
    assert np.abs(embed(leads[[5]] + 1e-2) - Y[[5]]).max() > 1e-6


def test_weak_attraction_counts_as_much_as_the_spread_of_the_keys():
    """The vector of a row with hardly any attraction goes along it rather than where keys are fewest."""
    rng = np.random.default_rng(0)
    Y = unit_rows(rng.standard_normal((500, 4)) * np.array([3, 1, 1, 0.2]))
    model = model_of(Y, null_mean=np.zeros(4))
    center = block_statistics(Y).mean[0]
    direction = np.array([[1.0, 0, 0, 0]])
    weak, strong = (out_of_sample_map(model)(center + size * direction) for size in (1e-6, 1e-3))
    assert_allclose(weak, strong, atol=1e-9)
    assert weak[0, 0] > 0.5


# From a solution -------------------------------------------------------------------------------------
def fitted(normalizer, n=700, n_exact=20, queries=True, n_clusters=1):
    rng = np.random.default_rng(0)
    Y = unit_rows(rng.standard_normal((n, 4)))
    P = rng.random((n, n)) * (rng.random((n, n)) < 0.05) + 1e-4
    P /= P.sum(axis=1, keepdims=True)
    affinity = blocked(P, [slice(0, 300), slice(300, n)])
    weight = rng.uniform(0.5, 2, n)
    problem = Problem(
        affinity, affinity if queries else None, [0, 0], [0], [n], np.full(n, 1 / n), weight, SOFTMAX, BETA, 1
    )
    strategy = Strategy(
        normalizer, n_clusters, n_exact, lambda Y: np.arange(len(Y)) % n_clusters, lambda points, k, seed: points[:k], 0
    )
    index = None if not normalizer.keeps_keys else build_key_index(problem, Y, strategy, None, 0, map)
    keys = [GroupKeys(block_statistics(Y, weight), Y.mean(axis=0))]
    return problem, Solution(Y, keys, index, [], 0.0, True), strategy, P


def test_model_of_a_mixture_has_no_keys():
    problem, solution, strategy, _ = fitted(GAUSSIAN)
    model = fitted_model(problem, solution, strategy, solution.vectors, 0, map)
    assert model.keys is None
    assert model.fingerprints is None
    assert model.statistics is solution.keys[0].statistics
    assert_array_equal(model.targets, solution.vectors)
    assert_array_equal(model.null_mean, solution.keys[0].null_mean)


@pytest.mark.parametrize("queries", [True, False])
def test_model_of_exact_sums(queries):
    problem, solution, strategy, P = fitted(EXACT, queries=queries)
    model = fitted_model(problem, solution, strategy, solution.vectors, 0, map)
    assert_array_equal(model.keys, solution.vectors)
    assert_array_equal(model.weights, problem.weight)
    assert model.cells is None
    if queries:
        assert_allclose(model.fingerprints, fingerprint(P @ solution.vectors))
    else:
        assert model.fingerprints is None


def test_model_of_near_keys_can_find_them():
    problem, solution, strategy, _ = fitted(NEIGHBORS, n_clusters=2)
    model = fitted_model(problem, solution, strategy, solution.vectors, 0, map)
    assert model.n_exact == 20
    assert model.near.nearest.shape == (0, 20)
    assert_array_equal(np.sort(model.cells.order), np.arange(700))
    assert_array_equal(model.near.labels, np.arange(700) % 2)
    assert [len(members) for members in model.near.sample] == [128, 128]


def test_few_keys_are_all_summed():
    problem, solution, strategy, _ = fitted(NEIGHBORS, n=276)
    assert solution.key_index.near == [None]
    assert fitted_model(problem, solution, strategy, solution.vectors, 0, map).cells is None
    assert fitted(NEIGHBORS, n=277)[1].key_index.near[0] is not None


def test_lists_are_numbered_within_the_group_of_the_keys():
    """The keys of rows are columns, the keys of columns are rows."""
    rng = np.random.default_rng(0)
    Y, sizes = unit_rows(rng.standard_normal((900, 4))), [400, 500]
    problem = Problem(None, None, [0, 1], [1, 0], sizes, None, rng.uniform(size=900), SOFTMAX, BETA, 1)
    assert problem.group_rows(1) == problem.key_rows(0) == slice(400, 900)
    assert_array_equal(problem.key_weights(1), problem.weight[:400])
    strategy = Strategy(NEIGHBORS, 2, 10, lambda Y: np.arange(len(Y)) % 2, lambda points, k, seed: points[:k], 7)
    index = build_key_index(problem, Y, strategy, None, 0, map)
    assert_array_equal(index.labels, np.r_[np.arange(400) % 2, np.arange(500) % 2])
    for group, (queries, keys) in enumerate([(Y[:400], Y[400:]), (Y[400:], Y[:400])]):
        near = index.near[group]
        assert near.nearest.shape == (len(queries), 10)
        best = np.argsort(-queries @ keys.T, axis=1)[:, :10]
        found = [np.isin(theirs, ours).mean() for theirs, ours in zip(best, near.nearest, strict=True)]
        assert np.mean(found) > 0.9
        for a, members in enumerate(near.sample):
            assert_array_equal(near.labels[members], a)
            assert len(np.unique(members)) == len(members) == 128
    again = build_key_index(problem, Y, strategy, index, 4, map)
    assert isinstance(again, KeyIndex)
    assert np.any(again.near[0].sample[0] != index.near[0].sample[0])
    gaussian = build_key_index(problem, Y, strategy._replace(normalizer=GAUSSIAN), None, 0, map)
    assert gaussian.near == [None, None]
    assert build_key_index(problem, Y, strategy._replace(n_clusters=1), None, 0, map).labels is None


def test_few_near_keys_are_not_all_keys():
    """With a sample in place of the others a row ends next to where it ends with all of them, and not there."""
    Y, U = keys_and_forces(400)
    cells = build_cells(Y, np.arange(400), np.zeros(400, int), lambda points, k: points[:k], map)
    near = NearKeys(np.zeros((0, 8), np.int32), [np.arange(0, 400, 5)], None)
    found = out_of_sample_map(model_of(Y, keys=Y, n_exact=8, cells=cells, near=near))(U)
    exact = out_of_sample_map(model_of(Y, keys=Y))(U)
    assert 1e-6 < np.abs(found - exact).max() < 0.1
