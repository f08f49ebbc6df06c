"""The solver loop: descent of an objective from one or several starts, until a schedule says that it is over."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from .exact_loss import LossCheck, Sampled, row_losses
from .parallel import Runner
from .problem import KeyIndex, Problem, Strategy, build_key_index
from .sweep import GroupKeys, RowWeights, key_sums, merge_keys, merged_by_group
from .types import Array, Integers

# Number of iterations that the loss has to be flat for.
_PATIENCE = 2
# Displacement, in roots of the tolerance, that a flat loss may still have.
_NEARLY = 0.2
# Change of the loss in the last iteration, in units of the tolerance, that vectors at rest may still have.
_SLOWLY = 2.0
# Rounding of a loss, relative to it.
_ROUNDING = 1e-6


class Solution(NamedTuple):
    """Vectors that the solver ended with, statistics of the keys of each group, and the history.

    `exact` is the exact loss of a sample of rows, whose surrogate loss is the last of `losses`; None if it was not
    asked for. `stopped_early` tells whether the solver stopped because it had risen.
    """

    vectors: Array
    keys: list[GroupKeys]
    key_index: KeyIndex | None
    losses: list[float]
    displacement: float
    converged: bool
    exact: Sampled | None = None
    stopped_early: bool = False


class Step(NamedTuple):
    """What a schedule asks of one iteration.

    Attributes
    ----------
    rebuilds_index : bool
        Whether clusters and lists of near keys are built anew first.
    is_single : bool
        Whether the best start alone goes on.
    rate : float or None
        Rate of a normalized gradient step; None for the damped fixed point.
    background : float
        Constant that is added to the kernel.
    damping : float
        Damping, as a share of what would be safe.
    """

    rebuilds_index: bool = False
    is_single: bool = False
    rate: float | None = None
    background: float = 0.0
    damping: float = 1.0


class Descent(ABC):
    """Vectors on their way from one start, and how an iteration moves them.

    Attributes
    ----------
    current, last : ndarray of shape (n, d)
        Unit rows, and the same without momentum; `current` starts as the rows given, which are overwritten.
    keys : list of GroupKeys
        Statistics of each group of rows as keys.
    key_index : KeyIndex or None
    loss, displacement : float
        The loss at the start of the last iteration, and the root mean square displacement in it.
    """

    def __init__(self, problem: Problem, strategy: Strategy, run: Runner, Y: Array):
        self.problem, self.strategy, self.run = problem, strategy, run
        self.current, self.last = Y, Y.copy()
        weight = np.ones(len(Y)) if problem.weight is None else problem.weight
        self.shares = np.stack([weight, problem.null]).astype(Y.dtype)
        self.key_index: KeyIndex | None = None
        self.keys = self.keys_of(Y)
        self.loss = self.displacement = np.inf

    @abstractmethod
    def step(self, step: Step, iteration: int) -> None:
        """Move all vectors once."""

    @abstractmethod
    def latest(self) -> Array:
        """Return the vectors after the last iteration."""

    def best(self) -> Array:
        """Return the best vectors so far: the latest, unless the objective keeps others."""
        return self.latest()

    def exact_losses(self, rows: Integers) -> Array:
        """Return the exact losses of some rows where the last loss was computed, or where that led to."""
        return row_losses(self.problem, self.latest(), self.latest(), rows, self.run)

    def rebuild_index(self, iteration: int) -> None:
        """Build clusters and lists of near keys from the vectors as they are."""
        self.key_index = build_key_index(self.problem, self.current, self.strategy, self.key_index, iteration, self.run)
        self.keys = self.keys_of(self.current)

    def row_weights(self, rows: slice) -> RowWeights:
        """Return how the rows of a block count as keys."""
        labels = None if self.key_index is None or self.key_index.labels is None else self.key_index.labels[rows]
        return RowWeights(self.shares[:, rows], self.problem.weight is not None, labels, self.strategy.n_clusters)

    def keys_of(self, Y: Array) -> list[GroupKeys]:
        """Return the statistics of each group of the rows `Y` as keys."""
        bounds = self.problem.affinity.bounds
        parts = self.run(lambda block: key_sums(Y[bounds[block]], self.row_weights(bounds[block])), range(len(bounds)))
        return merged_by_group(self.problem.group, parts, merge_keys)


class Schedule(Protocol):
    """What each iteration does, and when to stop."""

    def step(self, losses: list[float], displacement: float) -> Step:
        """Return what the iteration that begins does, given those before."""

    def is_over(self, losses: list[float], displacement: float, uniform: float) -> bool:
        """Return whether the solver has converged; `uniform` is the loss of uniform attention."""


# Receives iteration, loss, displacement and a function for the solution so far; returns whether to stop.
Report = Callable[[int, float, float, Callable[[], Solution]], bool]


def minimize(
    objective: Callable[[Array], Descent],
    schedule: Schedule,
    starts: list[Array],
    *,
    max_iter: int,
    begin: Callable[[], None],
    report: Report,
    check: LossCheck | None = None,
) -> Solution:
    """Minimize an objective from unit rows, which are overwritten, and follow the start of the lowest loss.

    `begin` is called before every iteration and `report` after it. With a `check` the exact loss of a sample of rows is
    computed, and the solver stops where it rises.
    """
    descents = [objective(Y) for Y in starts]
    best, losses, displacement, converged, stopped_early = descents[0], list[float](), np.inf, False, False

    def so_far() -> Solution:
        return Solution(best.latest().copy(), best.keys, best.key_index, losses, displacement, False)

    for iteration in range(max_iter):
        begin()
        step = schedule.step(losses, displacement)
        if step.is_single:
            descents = [best]
        for descent in descents:
            if step.rebuilds_index:
                descent.rebuild_index(iteration)
            descent.step(step, iteration)
        best = min(descents, key=lambda descent: descent.loss)
        displacement = best.displacement
        losses.append(best.loss)
        if report(iteration, best.loss, displacement, so_far):
            break
        uniform = uniform_loss(best.keys)
        converged = schedule.is_over(losses, displacement, uniform)
        stopped_early = not converged and check is not None and check.has_risen(best.exact_losses, iteration, uniform)
        if converged or stopped_early:
            break
    exact = None if check is None else check.at_the_end(best.exact_losses, len(losses))
    vectors = best.best()
    return Solution(
        vectors, best.keys_of(vectors), best.key_index, losses, displacement, converged, exact, stopped_early
    )


def uniform_loss(keys: list[GroupKeys]) -> float:
    """Return the loss of uniform attention."""
    return float(np.mean([np.log(group.statistics.weight.sum()) for group in keys]))


def has_settled(losses: list[float], displacement: float, tol: float, highest: float) -> bool:
    """Whether each of the last iterations changed the loss by less than `tol` of its whole decrease from `highest`.

    A loss can also pass through a minimum on the way, so the last displacement has to be small, too. As changes of the
    loss are quadratic in displacements near a minimum, its bound goes by the root of `tol`.
    """
    if tol == 0 or len(losses) < 2 * _PATIENCE or displacement > _NEARLY * np.sqrt(tol):
        return False
    return is_flat(losses[-_PATIENCE - 1 :], tol * (highest - min(losses)))


def is_at_rest(losses: list[float], displacement: float, tol: float, highest: float) -> bool:
    """Whether the last displacement was below `tol`, and the loss no longer falls.

    Where the loss has a saddle, vectors hardly move for a while: there it falls by more than it does near a minimum.
    """
    slack = _ROUNDING * abs(losses[-1])
    return displacement < tol and is_flat(losses[-2:], _SLOWLY * tol * (highest - min(losses)) + slack)


def is_flat(losses: list[float], change: float) -> bool:
    """Whether each of the losses differs from the one before by less than `change`."""
    return bool(np.all(np.abs(np.diff(losses)) < change))
