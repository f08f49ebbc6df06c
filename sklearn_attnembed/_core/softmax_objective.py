"""The softmax loss: attraction is one sparse product, log Z comes from a normalizer with a gradient.

The force on the queries of an asymmetric P has a torque: left alone, the whole configuration goes on rotating and never
comes to rest. The accelerated solver therefore works in the co-rotating frame: the rigid part of the last displacements
is learned and taken out of the next step.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .affinity_matrix import additions, multiply, walk_targets
from .exact_loss import row_losses
from .normalizers import GAUSSIAN
from .normalizers.neighbors import AttendedKeys
from .parallel import Runner
from .problem import Problem, Strategy
from .solver import Descent, Step, has_settled, is_at_rest
from .sphere import row_dots, unit_rows
from .statistics import largest_variance
from .sweep import GroupKeys, StepParams, SweepSums, merge_sums, merged_by_group, sweep_block
from .types import Array, Field, Integers, Rows

# Damping in units of beta times the largest variance. All rows moving together also move the covariance, which
# triples the curvature of a single row: 1.5 keeps that stable, 2.25 with momentum.
_STIFFNESS = 2.5
# First rate of the normalized gradient steps of [DB].
_FIRST_RATE = 0.85
# Largest number of iterations with one Gaussian before an index is built.
_FIRST_STAGE = 10
# Iterations after which the largest variance and the rotation are estimated again: they change slowly, and cost as much
# as a sweep over few rows.
_EVERY = 3
# Root mean square displacement of vectors that jump to the other side, and back.
_JUMP = 1.0
# Share of noise in the smoothed first vectors, which tells apart what is alike in the graph.
_NOISE = np.float32(0.1)


class SoftmaxSchedule:
    """Iterate with one Gaussian first, then build the index, which costs far more, and stop at rest."""

    def __init__(self, strategy: Strategy, max_iter: int, tol: float, *, is_gradient: bool, is_warm: bool):
        self.is_plain, self.max_iter, self.tol = strategy.is_plain, max_iter, tol
        self.is_gradient, self.is_warm, self.renewals = is_gradient, is_warm, strategy.renewals
        self.second_stage: int | None = 0 if is_warm or is_gradient else None

    def step(self, losses: list[float], displacement: float) -> Step:
        """Build the index at the start of the second stage and twice after it."""
        iteration = len(losses)
        is_due = iteration >= min(self.max_iter // 2, _FIRST_STAGE) or displacement < 10 * self.tol
        if self.second_stage is None and is_due:
            self.second_stage = iteration
        second = self.second_stage
        return Step(
            rebuilds_index=not self.is_plain and second is not None and iteration - second in self.renewals,
            rate=_FIRST_RATE * (1 - iteration / self.max_iter) if self.is_gradient else None,
        )

    def is_over(self, losses: list[float], displacement: float, uniform: float) -> bool:
        """Stop where displacement or loss have come to rest and the index is built for the last time."""
        start = 0 if self.is_plain else self.second_stage
        if self.is_gradient or start is None:
            return False
        stage = losses[start:]
        if not self.is_plain and len(stage) <= self.renewals[-1] + 1:
            return False
        highest = max(stage[0], uniform) if self.is_warm else stage[0]
        return is_at_rest(stage, displacement, self.tol, highest) or has_settled(stage, displacement, self.tol, highest)


class MomentumState(NamedTuple):
    """How the accelerated solver goes on.

    Attributes
    ----------
    age : int
        Iterations since the last restart.
    is_restart : bool
        Whether the last iteration restarted the momentum.
    caution : float
        Factor of the damping, raised where one restart follows another.
    rotation : ndarray of shape (d, d)
        Antisymmetric generator of the co-rotating frame.
    """

    age: int
    is_restart: bool
    caution: float
    rotation: Array


def momentum(age: Array | int) -> Array:
    """Return Nesterov's momentum, so many steps after a restart, up to 0.9."""
    return np.minimum((age + 1) / (age + 3), 0.9)


class SoftmaxDescent(Descent):
    """Vectors of all groups, moved by sweeps over blocks of rows on threads; the best iterate is kept."""

    def __init__(self, problem: Problem, strategy: Strategy, is_warm: bool, run: Runner, Y: Array):
        if not is_warm:
            smooth_over_graph(problem, Y, run)
        super().__init__(problem, strategy, run, Y)
        self.following, self.best_iterate = np.empty_like(Y), np.empty_like(Y)
        self.walked = np.empty_like(Y) if problem.walk_length > 1 else None
        self.least_damping = smallest_damping(problem)
        self.momentum = MomentumState(0, False, 1.0, np.zeros((Y.shape[1], Y.shape[1])))
        self.lowest, self.iteration = np.inf, 0

    def rebuild_index(self, iteration: int) -> None:
        """Build the index, which changes the loss: momentum and the best iterate start anew."""
        super().rebuild_index(iteration)
        self.momentum, self.lowest = MomentumState(0, False, 1.0, self.momentum.rotation), np.inf

    def step(self, step: Step, iteration: int) -> None:
        """Sweep over all rows once."""
        self.iteration = iteration
        is_due = iteration % _EVERY == 0
        if is_due or step.rebuilds_index:
            variance = max(largest_variance(group.statistics) for group in self.keys)
            self.stiffness = _STIFFNESS * (self.problem.beta * variance)
        damping = self._damping()
        with_torque = is_due and step.rate is None
        sums = self._sweep(damping, step.rate, with_torque)
        n, before = len(self.current), self.loss
        self.loss = sum(part.loss for part in sums) / n
        self.displacement = float(np.sqrt(sum(part.displacement for part in sums) / n))
        rounding = 4 * float(np.finfo(self.current.dtype).eps) * abs(self.loss)
        has_risen = self.loss > before + rounding and not step.rebuilds_index
        is_unstable = step.rate is None and (has_risen or self.displacement > _JUMP)
        self.momentum = next_momentum(self.momentum, sums, damping, self.keys if with_torque else None, is_unstable)
        self.keys = [part.keys for part in sums]
        self.current, self.following = self.following, self.current
        self.evaluated = self.following  # what the loss belongs to
        if self.loss < self.lowest:
            self.lowest = self.loss
            self.best_iterate, self.following = self.following, self.best_iterate

    def latest(self) -> Array:
        """Return the vectors after the last iteration, with momentum."""
        return self.current

    def best(self) -> Array:
        """Return the iterate of the lowest loss, or the one after it if that was the last."""
        return self.current if self.loss == self.lowest else self.best_iterate

    def exact_losses(self, rows: Integers) -> Array:
        """Return the exact losses of some rows where the last loss was computed."""
        targets = self.evaluated if self.walked is None else self.walked
        return row_losses(self.problem, self.evaluated, targets, rows, self.run)

    def _damping(self) -> float:
        """Return the damping: vectors that are all on one side repel each other, and themselves, to the other side."""
        one_sided = 1.2 * max(float(np.linalg.norm(group.null_mean)) for group in self.keys)
        return self.momentum.caution * (max(self.least_damping, one_sided) + self.stiffness)

    def _sweep(self, damping: float, rate: float | None, with_torque: bool) -> list[SweepSums]:
        """Read `current`, write `following` and renew `last`, block by block, so that a block stays in the cache."""
        problem, current, last, following = self.problem, self.current, self.last, self.following
        add_attraction, bounds, groups = self._attraction(), problem.affinity.bounds, range(len(problem.sizes))
        fields = [self._field(group) for group in groups]
        params = [self._params(group, fields[group] is None, damping, rate, with_torque) for group in groups]

        def one(block: int) -> SweepSums:
            rows, group = bounds[block], problem.group[block]
            Y = current[rows]
            attraction = problem.signed(add_attraction(block, np.zeros_like(Y)))
            repulsion = None
            if (field := fields[group]) is not None:
                log_z, mean = field(Y, problem.rows_within_group(block))
                repulsion = float(log_z.sum(dtype=np.float64)), mean
            out, weights = (following[rows], attraction), self.row_weights(rows)
            _, last[rows], sums = sweep_block(
                Y, last[rows], attraction, params[group], weights, repulsion, self._row_damping(rows), out
            )
            return sums

        return merged_by_group(problem.group, self.run(one, range(len(bounds))), merge_sums)

    def _attraction(self) -> Callable[[int, Array], Array]:
        """Return the function that adds the attraction of a block of rows; `following` is overwritten."""
        walk = self.problem.walk_length, len(self.problem.sizes)
        affinity = self.problem.affinity
        targets = walk_targets(affinity, self.current, *walk, self.run, self.walked, self.following)
        return additions(affinity, targets)

    def _row_damping(self, rows: slice) -> Array | None:
        """Return the damping of each row of a block, where it is not the same for all rows."""
        return None

    def _field(self, group: int) -> Field | None:
        """Return log Z and its gradient for the rows of a group; None for one Gaussian that `StepParams` describe."""
        is_closed = self.key_index is None and self.problem.weight is None
        return None if is_closed else self._query_field(group)

    def _query_field(self, group: int) -> Field:
        """Return log Z and its gradient for the queries of a group."""
        problem, index = self.problem, self.key_index
        statistics = self.keys[problem.key_group[group]].statistics
        normalizer = GAUSSIAN if index is None else self.strategy.normalizer  # the first stage needs no more
        assert normalizer.field is not None
        vectors, near = self.current[problem.key_rows(group)], None if index is None else index.near[group]
        weights, seed = problem.key_weights(group), self.seed_of(group)
        field = normalizer.field(AttendedKeys(statistics, vectors, weights, problem.beta, near, seed=seed))
        return field if problem.signature is None else signed_field(field, problem.signed)

    def seed_of(self, number: int) -> tuple[int, ...]:
        """Return the seed of what is drawn in this iteration, one of several by their number."""
        return self.strategy.seed, self.iteration, number

    def _params(self, group: int, is_closed: bool, damping: float, rate: float | None, with_torque: bool) -> StepParams:
        """Return the parameters of a step; log Z of one Gaussian follows from the second moments of the queries."""
        beta, dtype = self.problem.beta, self.current.dtype
        offset, log_z = -self.keys[group].null_mean, 0.0
        rotation = self.momentum.rotation
        if (signature := self.problem.signature) is not None:  # scores change if the two kinds of components mix
            rotation = rotation * (np.outer(signature, signature) > 0)
        matrix = damping * np.eye(len(rotation)) - rotation if rate is None else np.zeros_like(rotation)
        if is_closed:
            queries, keys = self.keys[group].statistics, self.keys[self.problem.key_group[group]].statistics
            signed = self.problem.signed
            spread = beta * signed(signed(keys.covariance[0]).T)
            moment = queries.covariance[0] + np.outer(queries.mean[0], queries.mean[0])
            log_z = float(np.log(keys.weight[0]) + beta / 2 * np.vdot(spread, moment))
            offset, matrix = offset - signed(keys.mean[0]), matrix - spread
        share = 0.0 if rate is not None else float(momentum(self.momentum.age))
        return StepParams(beta, offset.astype(dtype), matrix.astype(dtype), log_z, share, rate, with_torque)


def signed_field(field: Field, signed: Callable[[Array], Array]) -> Field:
    """Return log Z and its gradient for rows whose products with keys have a signature."""

    def one(Y: Array, rows: Rows) -> tuple[Array, Array]:
        log_z, gradient = field(signed(Y), rows)
        return log_z, signed(gradient)

    return one


def smooth_over_graph(problem: Problem, Y: Array, run: Runner) -> None:
    """Smooth random vectors over the graph, in place: P^4 Y, less its mean, on the sphere.

    Four products, which save more iterations than they cost.
    """
    spare, out = np.empty_like(Y), np.empty_like(Y)
    for source, target in ((Y, spare), (spare, out), (out, spare), (spare, out)):
        multiply(problem.affinity, source, target, run)
    bounds = problem.affinity.bounds
    sums = run(lambda block: out[bounds[block]].sum(axis=0) / problem.sizes[problem.group[block]], range(len(bounds)))
    means = merged_by_group(problem.group, sums, np.add)

    def one(block: int) -> None:
        rows, mean = bounds[block], means[problem.group[block]].astype(out.dtype)
        new = out[rows] - mean
        size = row_dots(new, new)
        least = np.finfo(out.dtype).eps ** 2 * max(float(mean @ mean), float(np.finfo(out.dtype).tiny))
        kept = size > least
        Y[rows][kept] = unit_rows(unit_rows(new[kept]) + _NOISE * Y[rows][kept])

    for _ in run(one, range(len(bounds))):
        pass


def next_momentum(
    state: MomentumState, sums: list[SweepSums], damping: float, keys: list[GroupKeys] | None, is_unstable: bool = False
) -> MomentumState:
    """Restart where the step turned back or was unstable, raise the damping if that happens twice in a row, learn the
    rotation.

    `keys` are those before the step, where the torque was summed.
    """
    is_restart = is_unstable or sum(part.overshoot for part in sums) > 0
    caution = state.caution * (1.5 if is_restart and state.is_restart else 1)
    rotation = state.rotation
    if keys is not None:
        torque = np.sum([part.torque for part in sums], axis=0)
        rotation = rotation + damping * fitted_rotation(torque, _second_moment(keys))
    return MomentumState(0 if is_restart else state.age + 1, is_restart, caution, rotation)


def _second_moment(keys: list[GroupKeys]) -> Array:
    """Return the sum of ``y y'`` over all rows, from the statistics."""
    moment: Array = sum(
        scatter + weight * np.outer(mean, mean)
        for group in keys
        for weight, mean, scatter in zip(*group.statistics, strict=True)
    )
    return moment


def fitted_rotation(torque: Array, second_moment: Array) -> Array:
    """Return the antisymmetric R for which Y R is nearest to the displacements D, given Y'D and Y'Y.

    Solves Y'Y R + R Y'Y = Y'D - D'Y in the eigenbasis of Y'Y, damped where there is hardly any variance.
    """
    variance, basis = np.linalg.eigh(second_moment)
    variance = variance.clip(0)
    skew = basis.T @ (torque - torque.T) @ basis
    least = 0.02 * max(float(variance[-1]), float(np.finfo(np.float64).tiny))
    rotation: Array = basis @ (skew / (variance[:, None] + variance + least)) @ basis.T
    return rotation


def smallest_damping(problem: Problem) -> float:
    """Return how negative an eigenvalue of the walk average can be, with a fifth to spare; damping is never less.

    Powers of a row-stochastic P have eigenvalues in the unit disc: -1 at the worst, for one step. Averages over more
    steps hold less, -0.44 for three; but not on a bipartite graph, whose walks are all odd.
    """
    if len(problem.sizes) > 1 or problem.signature is not None:
        return 1.0
    angle = np.linspace(0, np.pi, 513)
    average = np.mean([np.cos(step * angle) for step in range(1, problem.walk_length + 1)], axis=0)
    return float(min(1.0, -1.2 * average.min()))
