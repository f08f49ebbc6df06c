"""The solver loop: which start goes on, when it stops, and what it reports."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sklearn_attnembed._core.affinity_matrix import blocked
from sklearn_attnembed._core.kernels import SOFTMAX
from sklearn_attnembed._core.normalizers import GAUSSIAN
from sklearn_attnembed._core.problem import Problem, Strategy
from sklearn_attnembed._core.solver import Descent, Step, has_settled, minimize, uniform_loss

PROBLEM = Problem(blocked(np.eye(4), [slice(0, 2), slice(2, 4)]), None, [0, 0], [0], [4], np.full(4, 0.25), None,
                  SOFTMAX, 1.0, 1)  # fmt: skip
STRATEGY = Strategy(GAUSSIAN, 1, 1, None, None, 0)


class Halving(Descent):
    """Vectors that are halved in each step; the loss is their size."""

    def __init__(self, Y):
        super().__init__(PROBLEM, STRATEGY, map, Y)
        self.steps, self.rebuilt = [], []

    def step(self, step, iteration):
        self.loss, self.displacement = float(self.current.max()), float(self.current.max()) / 2
        self.steps.append(iteration)
        self.current *= 0.5

    def rebuild_index(self, iteration):
        self.rebuilt.append(iteration)

    def latest(self):
        return self.current

    def best(self):
        return self.current * 2


class Plan:
    """A schedule that rebuilds the index and goes on alone at given iterations, and stops at a loss."""

    def __init__(self, rebuilds=(), single=100, least=0.0):
        self.rebuilds, self.single, self.least, self.seen = rebuilds, single, least, []

    def step(self, losses, displacement):
        self.seen.append((list(losses), displacement))
        return Step(rebuilds_index=len(losses) in self.rebuilds, is_single=len(losses) >= self.single)

    def is_over(self, losses, displacement, uniform):
        assert uniform == np.log(4)
        return losses[-1] < self.least


def run(plan, starts, max_iter=6, report=lambda *args: False):
    made, begun = [], []
    solution = minimize(lambda Y: made.append(Halving(Y)) or made[-1], plan, [np.full((4, 2), s) for s in starts],
                        max_iter=max_iter, begin=lambda: begun.append(1), report=report)  # fmt: skip
    return solution, made, len(begun)


def test_losses_are_those_of_the_best_start():
    solution, made, begun = run(Plan(), [8.0, 4.0, 16.0])
    assert solution.losses == [4.0, 2.0, 1.0, 0.5, 0.25, 0.125]
    assert (solution.displacement, solution.converged, begun) == (0.0625, False, 6)
    assert_array_equal(solution.vectors, 0.125)
    assert all(descent.steps == list(range(6)) for descent in made)
    assert solution.keys[0].statistics.mean[0, 0] == 0.125


def test_one_start_goes_on_alone():
    plan = Plan(rebuilds=(3, 4), single=3)
    solution, made, _ = run(plan, [8.0, 4.0])
    assert [len(descent.steps) for descent in made] == [3, 6]
    assert [descent.rebuilt for descent in made] == [[], [3, 4]]
    assert plan.seen[0] == ([], np.inf)
    assert plan.seen[2] == ([4.0, 2.0], 1.0)
    assert len(solution.losses) == 6


def test_it_stops_where_the_schedule_says():
    solution, made, _ = run(Plan(least=1.5), [4.0])
    assert solution.converged
    assert solution.losses == [4.0, 2.0, 1.0]
    assert made[0].steps == [0, 1, 2]


def test_a_report_can_stop_it():
    seen = []

    def report(iteration, loss, displacement, so_far):
        solution = so_far()
        seen.append((iteration, loss, displacement, solution))
        return iteration == 1

    solution = run(Plan(), [4.0], report=report)[0]
    assert [entry[:3] for entry in seen] == [(0, 4.0, 2.0), (1, 2.0, 1.0)]
    assert not solution.converged
    assert_array_equal(seen[0][3].vectors, 2.0)  # a copy: later steps leave it alone
    assert not seen[0][3].converged
    assert_array_equal(seen[1][3].vectors, 1.0)


def test_keys_of_blocks_are_merged():
    Y = np.random.default_rng(0).standard_normal((4, 2))
    keys = Halving(Y).keys
    assert len(keys) == 1
    np.testing.assert_allclose(keys[0].statistics.mean[0], Y.mean(axis=0))
    np.testing.assert_allclose(keys[0].null_mean, Y.mean(axis=0))
    assert uniform_loss(keys) == np.log(4)


@pytest.mark.parametrize(
    ("losses", "tol", "expected"),
    [
        ([5.0, 4, 3, 2.5, 2.4, 2.399, 2.2], 1e-2, False),
        ([5.0, 4, 3, 2.5, 2.4, 2.399, 2.398, 2.3979], 1e-2, True),
        ([1.0] * 20, 0, False),
        ([1.0] * 3, 1e-2, False),
        ([5.0, 1.0, 1.0, 1.0], 1e-2, True),
        ([5.0, 1.0, 1.0, 0.9], 1e-2, False),
    ],
)
def test_settled_needs_a_flat_stretch(losses, tol, expected):
    assert has_settled(losses, 0.0, tol, 5.0) == expected


def test_settled_means_two_small_decreases():
    assert not has_settled([5.0, 4.0, 3.0, 1.0, 1.0], 0.0, 0.1, 5.0)
    assert has_settled([5.0, 4.0, 1.0, 1.0, 1.0], 0.0, 0.1, 5.0)


def test_a_loss_that_rises_has_not_settled():
    assert not has_settled([5.0, 1.0, 1.2, 1.4], 0.0, 1e-2, 5.0)
    assert has_settled([5.0, 1.0, 1.01, 1.02], 0.0, 1e-2, 5.0)


def test_a_flat_loss_has_not_settled_while_vectors_move():
    assert has_settled([5.0, 1.0, 1.0, 1.0], 0.02, 1e-2, 5.0)
    assert not has_settled([5.0, 1.0, 1.0, 1.0], 0.021, 1e-2, 5.0)
    assert not has_settled([5.0, 1.0, 1.0, 1.0], 0.02, 1e-3, 5.0)
