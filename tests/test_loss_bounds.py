"""Bounds of the loss, by hand."""

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose
from scipy.sparse.linalg import aslinearoperator

from sklearn_attnembed._core.affinity_matrix import blocked
from sklearn_attnembed._core.kernels import EXPRESSIVE, SOFTMAX
from sklearn_attnembed._core.loss_bounds import Bounds, loss_bounds
from sklearn_attnembed._core.problem import Problem
from sklearn_attnembed._core.statistics import block_statistics
from sklearn_attnembed._core.sweep import GroupKeys


def problem_of(P, kernel=SOFTMAX, weight=None, beta=1.0, walk_length=1):
    n = P.shape[0]
    affinity = blocked(P, [slice(0, n)])
    return Problem(affinity, affinity, [0], [0], [n], np.full(n, 1 / n), weight, kernel, beta, walk_length)


def keys_of(Y, weight=None, null_mean=0.0):
    return [GroupKeys(block_statistics(Y, weight), np.full(Y.shape[1], null_mean))]


def test_targets_of_two_weighted_keys():
    """The lowest loss is that of attention equal to the targets, 0.9 and 0.1, of keys of weights 3 and 1."""
    P, weight, Y = sp.csr_array([[0.9, 0.1], [0.9, 0.1]]), np.array([3.0, 1.0]), np.zeros((2, 3))
    bounds = loss_bounds(problem_of(P, weight=weight), keys_of(Y, weight), Y)
    expected = -(0.9 * np.log(0.9 / 3) + 0.1 * np.log(0.1))
    assert_allclose([bounds.lowest, bounds.error, bounds.highest], [expected, 0, np.log(4) + 2])


def test_repulsion_counts():
    P, Y = sp.csr_array([[0.5, 0.5], [0.5, 0.5]]), np.array([[1.0, 0], [1.0, 0]])
    without, with_ = (loss_bounds(problem_of(P, beta=3.0), keys_of(Y, null_mean=m), Y) for m in (0.0, 0.4))
    assert_allclose([with_.lowest - without.lowest, with_.highest - without.highest], 3 * 0.4)


def test_range_of_the_expressive_kernel():
    """From its background, at orthogonal vectors, to f and the background, at parallel ones."""
    P, Y = sp.csr_array([[0.5, 0.5], [0.5, 0.5]]), np.zeros((2, 3))
    bounds = loss_bounds(problem_of(P, EXPRESSIVE, beta=2.0), keys_of(Y), Y)
    assert_allclose([bounds.lowest, bounds.highest], [np.log(2), np.log(2) + np.log(0.81 / 0.01)])


@pytest.mark.parametrize("walk_length", [2, 3])
def test_walks_are_averaged_over_a_sample_of_rows(walk_length):
    rng = np.random.default_rng(0)
    P = rng.random((200, 200))
    P /= P.sum(axis=1, keepdims=True)
    average = sum(np.linalg.matrix_power(P, length + 1) for length in range(walk_length)) / walk_length
    entropy = -(average * np.log(average)).sum(axis=1)[np.linspace(0, 199, 64).astype(int)]
    bounds = loss_bounds(problem_of(sp.csr_array(P), walk_length=walk_length), keys_of(P[:, :3]), np.zeros((200, 3)))
    assert_allclose([bounds.lowest, bounds.error], [entropy.mean(), entropy.std() / 8])


def test_affinities_to_keys_that_are_left_out():
    """Their scores are zero: the attention that the rest can have is less than all."""
    P, Y = sp.csr_array([[0.5, 0.0], [0.25, 0.25]]), np.zeros((2, 3))
    bounds = loss_bounds(problem_of(P, beta=2.0), keys_of(Y), Y)
    expected = [0 - 2 * 0.5, np.log(2) - 2 * 0.5]
    assert_allclose(bounds.lowest, np.mean(expected))


def test_nothing_is_known_of_an_operator():
    P = aslinearoperator(np.full((2, 2), 0.5))
    assert loss_bounds(problem_of(P), keys_of(np.zeros((2, 3))), np.zeros((2, 3))) is None


@pytest.mark.parametrize(("loss", "excluded"), [(0.95, False), (0.65, True), (2.005, False), (2.02, True)])
def test_errors_and_rounding_exclude_nothing(loss, excluded):
    assert Bounds(1.0, 0.1, 2.0).excludes(loss) == excluded


def test_two_groups_have_each_other_as_keys():
    P = sp.csr_array(np.block([[np.zeros((2, 2)), np.full((2, 3), 1 / 3)], [np.full((3, 2), 1 / 2), np.zeros((3, 3))]]))
    affinity = blocked(P, [slice(0, 2), slice(2, 5)])
    problem = Problem(affinity, None, [0, 1], [1, 0], [2, 3], np.full(5, 0.4), None, SOFTMAX, 1.0, 1)
    bounds = loss_bounds(problem, keys_of(np.zeros((2, 4))) + keys_of(np.zeros((3, 4))), np.zeros((5, 4)))
    uniform = (2 * np.log(3) + 3 * np.log(2)) / 5
    assert_allclose([bounds.lowest, bounds.highest], [uniform, uniform + 2])


def test_clusters_of_keys_count_together():
    P, Y = sp.csr_array([[0.5, 0.5], [0.5, 0.5]]), np.zeros((2, 3))
    keys = [GroupKeys(block_statistics(Y, None, np.arange(2), 2), np.zeros(3))]
    assert_allclose(loss_bounds(problem_of(P), keys, Y), loss_bounds(problem_of(P), keys_of(Y), Y))
