"""The softmax objective: schedule, damping, momentum, co-rotating frame, smoothing, and steps by hand."""

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_attnembed._core.affinity_matrix import blocked
from sklearn_attnembed._core.kernels import SOFTMAX
from sklearn_attnembed._core.normalizers import EXACT, GAUSSIAN, NORMALIZERS
from sklearn_attnembed._core.problem import Problem, Strategy
from sklearn_attnembed._core.softmax_objective import (
    MomentumState,
    SoftmaxDescent,
    SoftmaxSchedule,
    fitted_rotation,
    momentum,
    next_momentum,
    smallest_damping,
    smooth_over_graph,
)
from sklearn_attnembed._core.solver import Step
from sklearn_attnembed._core.sphere import unit_rows
from sklearn_attnembed._core.statistics import block_statistics, largest_variance
from sklearn_attnembed._core.sweep import GroupKeys, SweepSums

N, D = 30, 3
PLAIN = Strategy(GAUSSIAN, 1, 1, None, None, 0)
INDEXED = PLAIN._replace(normalizer=NORMALIZERS["neighbors"])


def problem_of(P, weight=None, beta=2.0, walk_length=1):
    n = P.shape[0]
    affinity = blocked(P, [slice(0, n // 2), slice(n // 2, n)])
    null = np.random.default_rng(5).uniform(size=n)
    return Problem(affinity, affinity, [0, 0], [0], [n], null / null.sum(), weight, SOFTMAX, beta, walk_length)


def data(seed=0):
    rng = np.random.default_rng(seed)
    P = rng.random((N, N)) * (rng.random((N, N)) < 0.4) + 1e-3
    return P / P.sum(axis=1, keepdims=True), unit_rows(rng.standard_normal((N, D)))


# Schedule --------------------------------------------------------------------------------------------
def steps(schedule, n, displacement=1.0):
    return [schedule.step([5.0] * i, displacement) for i in range(n)]


def test_index_is_built_in_the_second_stage():
    schedule = SoftmaxSchedule(INDEXED, 100, 1e-2, is_gradient=False, is_warm=False)
    assert [i for i, step in enumerate(steps(schedule, 40)) if step.rebuilds_index] == [10, 14, 20]
    schedule = SoftmaxSchedule(INDEXED, 8, 1e-2, is_gradient=False, is_warm=False)
    assert [i for i, step in enumerate(steps(schedule, 8)) if step.rebuilds_index] == [4]
    schedule = SoftmaxSchedule(INDEXED, 100, 1e-2, is_gradient=False, is_warm=False)
    assert [i for i, step in enumerate(steps(schedule, 20, 0.05)) if step.rebuilds_index] == [0, 4, 10]
    schedule = SoftmaxSchedule(PLAIN, 100, 1e-2, is_gradient=False, is_warm=False)
    assert not any(step.rebuilds_index for step in steps(schedule, 40))


@pytest.mark.parametrize("options", [{"is_gradient": True, "is_warm": False}, {"is_gradient": False, "is_warm": True}])
def test_index_is_built_at_once(options):
    schedule = SoftmaxSchedule(INDEXED, 100, 1e-2, **options)
    assert [i for i, step in enumerate(steps(schedule, 40)) if step.rebuilds_index] == [0, 4, 10]


def test_rate_of_the_gradient_falls_to_zero():
    rates = [step.rate for step in steps(SoftmaxSchedule(PLAIN, 10, 1e-2, is_gradient=True, is_warm=False), 10)]
    assert_allclose(rates, 0.85 * (1 - np.arange(10) / 10))
    assert steps(SoftmaxSchedule(PLAIN, 10, 1e-2, is_gradient=False, is_warm=False), 1)[0].rate is None


def test_over_at_rest():
    schedule = SoftmaxSchedule(PLAIN, 100, 1e-2, is_gradient=False, is_warm=False)
    assert schedule.is_over([5.0, 4.0, 3.99], 0.009, 5.0)
    assert not schedule.is_over([5.0, 4.0, 3.97], 0.009, 5.0)  # vectors that hardly move near a saddle
    assert not schedule.is_over([5.0, 4.0], 0.011, 5.0)
    assert schedule.is_over([5.0, 4.0, 4.0, 4.0], 0.019, 5.0)
    assert not schedule.is_over([5.0, 4.0, 4.0, 4.0], 0.021, 5.0)
    assert not SoftmaxSchedule(PLAIN, 100, 1e-2, is_gradient=True, is_warm=False).is_over([5.0] * 9, 0.0, 5.0)


def test_decrease_of_a_warm_start_counts_from_uniform_attention():
    losses = [4.0, 3.99, 3.98, 3.97]
    assert not SoftmaxSchedule(PLAIN, 100, 1e-2, is_gradient=False, is_warm=False).is_over(losses, 0.019, 9.0)
    assert SoftmaxSchedule(PLAIN, 100, 1e-2, is_gradient=False, is_warm=True).is_over(losses, 0.019, 9.0)


def test_not_over_before_the_last_index():
    schedule = SoftmaxSchedule(INDEXED, 100, 1e-2, is_gradient=False, is_warm=False)
    assert not schedule.is_over([5.0] * 30, 0.0, 5.0)
    steps(schedule, 11)
    assert schedule.second_stage == 10
    assert not schedule.is_over([5.0] * 21, 0.0, 5.0)
    assert schedule.is_over([5.0] * 22, 0.0, 5.0)


# Damping, momentum, frame ----------------------------------------------------------------------------
def test_damping_is_no_less_than_walks_can_overshoot():
    """One step can have an eigenvalue of -1, longer averages cannot; on a bipartite graph all walks are odd."""
    P, _ = data()
    least = [smallest_damping(problem_of(P, walk_length=length)) for length in (1, 2, 3, 10)]
    assert least[0] == 1
    assert np.all(np.diff(least) < 0)
    assert_allclose(least[1], 1.2 * 0.5625, rtol=1e-4)
    assert smallest_damping(problem_of(P, walk_length=3)._replace(sizes=[10, 20])) == 1


def test_momentum_rises_to_nine_tenths():
    assert_allclose(momentum(np.array([0, 1, 3, 100])), [1 / 3, 1 / 2, 2 / 3, 0.9])


def sums_of(overshoot, torque=None):
    keys = GroupKeys(block_statistics(np.eye(D)), np.zeros(D))
    return [SweepSums(0.0, 0.0, overshoot, np.zeros((D, D)) if torque is None else torque, keys)]


def test_restarts():
    state = MomentumState(3, False, 1.0, np.zeros((D, D)))
    assert next_momentum(state, sums_of(-1.0), 1.0, None)[:3] == (4, False, 1.0)
    first = next_momentum(state, sums_of(1.0), 1.0, None)
    assert first[:3] == (0, True, 1.0)
    assert next_momentum(first, sums_of(1.0), 1.0, None)[:3] == (0, True, 1.5)
    assert next_momentum(first, sums_of(0.0), 1.0, None)[:3] == (1, False, 1.0)
    assert next_momentum(state, sums_of(-1.0) + sums_of(2.0), 1.0, None).is_restart
    assert next_momentum(state, sums_of(-1.0), 1.0, None, is_unstable=True)[:3] == (0, True, 1.0)
    assert next_momentum(first, sums_of(-1.0), 1.0, None, is_unstable=True)[:3] == (0, True, 1.5)


def test_rotation_is_learned_from_the_torque_of_all_groups():
    rng = np.random.default_rng(0)
    Y, torques = rng.standard_normal((50, D)), rng.standard_normal((2, D, D))
    keys = [
        GroupKeys(block_statistics(Y[:20]), None),
        GroupKeys(block_statistics(Y[20:], None, np.arange(30) % 2, 2), None),
    ]
    state = MomentumState(0, False, 1.0, rng.standard_normal((D, D)))
    after = next_momentum(state, [*sums_of(0.0, torques[0]), *sums_of(0.0, torques[1])], 3.0, keys)
    assert_allclose(after.rotation, state.rotation + 3 * fitted_rotation(torques.sum(axis=0), Y.T @ Y))


def test_rotation_is_found():
    """Displacements of a rigid rotation give back its generator, whatever the shape of the cloud."""
    rng = np.random.default_rng(0)
    Y = rng.standard_normal((500, 5)) * np.array([2, 1, 1, 0.7, 0.4])
    generator = rng.standard_normal((5, 5))
    generator -= generator.T
    found = fitted_rotation(Y.T @ (Y @ generator), Y.T @ Y)
    assert_allclose(found, generator, atol=0.1 * np.abs(generator).max())
    assert_allclose(found, -found.T, atol=1e-12)
    assert_array_equal(fitted_rotation(np.zeros((5, 5)), np.zeros((5, 5))), 0)
    assert_allclose(fitted_rotation(1e-6 * (Y.T @ (Y @ generator)), 1e-6 * (Y.T @ Y)), found, atol=1e-9)


# Steps -----------------------------------------------------------------------------------------------
def test_smoothing_is_four_products_less_the_mean():
    P, Y = data()
    smooth = np.linalg.matrix_power(P, 4) @ Y
    smooth -= smooth.mean(axis=0)
    expected = unit_rows(unit_rows(smooth) + np.float32(0.1) * Y)
    smooth_over_graph(problem_of(sp.csr_array(P)), Y, map)
    assert_allclose(Y, expected, rtol=1e-6)


def test_smoothing_keeps_vectors_where_nothing_is_left():
    P, Y = np.full((N, N), 1 / N), np.tile([[1.0, 0, 0], [-1.0, 0, 0]], (N // 2, 1))
    expected = Y.copy()
    smooth_over_graph(problem_of(P), Y, map)
    assert_array_equal(Y, expected)


@pytest.mark.parametrize("weight", [None, np.linspace(0.5, 1.5, N)])
@pytest.mark.parametrize("walk_length", [1, 3])
def test_first_step_by_hand(weight, walk_length):
    """The damped fixed point with one Gaussian: its loss, its vectors, the statistics after it."""
    P, Y = data()
    problem, beta = problem_of(sp.csr_array(P), weight, walk_length=walk_length), 2.0
    descent = SoftmaxDescent(problem, PLAIN, True, map, Y.copy())
    descent.step(Step(), 0)
    average = sum(np.linalg.matrix_power(P, length + 1) for length in range(walk_length)) / walk_length
    statistics, null_mean = block_statistics(Y, weight), problem.null @ Y
    mean, covariance = statistics.mean[0], statistics.covariance[0]
    log_z = np.log(statistics.weight[0]) + beta * Y @ mean + beta**2 / 2 * np.einsum("ij,jk,ik->i", Y, covariance, Y)
    loss = np.mean(log_z - beta * np.einsum("ij,ij->i", Y, average @ Y) + beta * Y @ null_mean)
    assert_allclose(descent.loss, loss, rtol=1e-10)
    damping = max(smallest_damping(problem), 1.2 * np.linalg.norm(null_mean)) + 2.5 * beta * largest_variance(
        statistics
    )
    proposal = unit_rows(average @ Y - null_mean - mean - beta * Y @ covariance + damping * Y)
    assert_allclose(descent.last, proposal, rtol=1e-10, atol=1e-12)
    assert_allclose(descent.current, unit_rows(proposal + (proposal - Y) / 3), rtol=1e-10, atol=1e-12)
    assert_allclose(descent.displacement, np.sqrt(np.mean(np.square(proposal - Y).sum(axis=1))), rtol=1e-10)
    expected = block_statistics(descent.current, weight)
    assert_allclose(descent.keys[0].statistics.scatter, expected.scatter, rtol=1e-9, atol=1e-12)
    assert_allclose(descent.keys[0].null_mean, problem.null @ descent.current, rtol=1e-10)
    assert descent.latest() is descent.current
    assert descent.best() is descent.current
    assert descent.momentum.age == 1
    assert np.abs(descent.momentum.rotation).max() > 0


def test_best_iterate_is_the_one_of_the_lowest_loss():
    P, Y = data()
    descent = SoftmaxDescent(problem_of(P), PLAIN, True, map, Y.copy())
    descent.step(Step(), 0)
    best, descent.lowest = descent.best_iterate.copy(), -100.0
    assert_array_equal(best, Y)
    descent.step(Step(), 1)
    assert_array_equal(descent.best(), Y)


def test_gradient_steps_have_no_momentum_and_no_frame():
    P, Y = data()
    descent = SoftmaxDescent(problem_of(P), PLAIN, True, map, Y.copy())
    descent.step(Step(rate=0.6), 0)
    assert_allclose(np.einsum("ij,ij->i", descent.current, Y), 0.8)
    assert_allclose(descent.current, descent.last, rtol=1e-14)
    assert_array_equal(descent.momentum.rotation, 0)


def test_exact_normalizer_after_the_index_is_built():
    P, Y = data()
    problem, beta = problem_of(P), 2.0
    descent = SoftmaxDescent(problem, PLAIN._replace(normalizer=EXACT), True, map, Y.copy())
    descent.rebuild_index(0)
    descent.step(Step(rebuilds_index=True), 0)
    log_z = np.log(np.exp(beta * Y @ Y.T).sum(axis=1))
    loss = np.mean(log_z - beta * np.einsum("ij,ij->i", Y, P @ Y) + beta * Y @ (problem.null @ Y))
    assert_allclose(descent.loss, loss, rtol=1e-10)


def test_building_the_index_starts_momentum_and_the_best_iterate_anew():
    P, Y = data()
    descent = SoftmaxDescent(problem_of(P), PLAIN._replace(normalizer=EXACT), True, map, Y.copy())
    for iteration in range(3):
        descent.step(Step(), iteration)
    rotation = descent.momentum.rotation
    descent.rebuild_index(3)
    assert descent.momentum[:3] == (0, False, 1.0)
    assert descent.momentum.rotation is rotation
    assert descent.lowest == np.inf
    assert_allclose(descent.keys[0].statistics.mean, block_statistics(descent.current).mean)


def test_gradient_step_by_hand():
    """Rows turn towards their normalized downhill direction."""
    P, Y = data()
    problem, beta = problem_of(P), 2.0
    descent = SoftmaxDescent(problem, PLAIN, True, map, Y.copy())
    descent.step(Step(rate=0.6), 0)
    statistics = block_statistics(Y)
    direction = P @ Y - problem.null @ Y - statistics.mean[0] - beta * Y @ statistics.covariance[0]
    direction -= np.einsum("ij,ij->i", direction, Y)[:, None] * Y
    assert_allclose(descent.current, 0.8 * Y + 0.6 * unit_rows(direction), rtol=1e-9, atol=1e-12)
