"""The blocked sweep and the two solvers that run it."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .affinity_matrix import additions, multiply, products, walk_targets
from .normalizers.exact import exact_field
from .normalizers.mixture import gaussian_field
from .normalizers.neighbors import NearKeys, neighbor_field
from .out_of_sample import Model, fingerprint
from .parallel import Runner
from .problem import KeyIndex, Keys, Problem, Strategy, build_key_index, cells_of_all
from .sphere import unit_rows
from .statistics import KeyStatistics, block_statistics, largest_variance, merge, sphere_statistics
from .types import Array, Field, Integers


def momentum(age: Any) -> Any:
    """Nesterov's momentum, so many steps after the restart, up to 0.9."""
    return np.minimum((age + 1) / (age + 3), 0.9)


# Damping in units of beta times the largest variance. All rows moving together also move the covariance, which
# triples the curvature of a single row: 1.5 keeps that stable, 2.25 with momentum.
_STIFFNESS = 2.5


# First rate of the paper's gradient steps, [DB].
_FIRST_RATE = 0.85


# Cluster labels, lists of nearest keys and samples are renewed so many iterations after the first: each renewal
# changes the objective a little, and only a fixed one can be converged on.
_RENEWALS = (0, 4, 10)


# Iterations with one Gaussian, before anything is looked up, at most.
_FIRST_STAGE = 10


# Share of noise in the smoothed first vectors: what is alike in the graph is not yet alike.
_GRAIN = np.float32(0.1)


# Iterations that the loss has to be flat for.
_PATIENCE = 2


# `block_keys` of one problem and its clusters.
BlockKeys = Callable[[slice, Array], Keys]


# A field of rows that lie together.
BlockField = Callable[[Array, slice], tuple[Array, Array]]


class Solution(NamedTuple):
    """Where a solver ended: vectors, keys of each group and the history."""

    vectors: Array
    keys: list[Keys]
    look: KeyIndex | None
    losses: list[float]
    displacement: float
    converged: bool


# (iteration, loss, displacement, function for the solution so far) -> whether to stop
Report = Callable[[int, float, float, Callable[[], Solution]], bool]


def block_keys(problem: Problem, rows: slice, Y: Array, labels: Integers | None = None, n_clusters: int = 1) -> Keys:
    """Statistics and share of the null mean of one block of new keys."""
    weights = None if problem.weight is None else problem.weight[rows]
    if labels is None:
        return Keys(*sphere_statistics(Y, weights, problem.null[rows]))
    return Keys(block_statistics(Y, weights, labels[rows], n_clusters), problem.null[rows] @ Y.astype(np.float64))


def _merge_keys(problem: Problem, parts: Iterable[Keys]) -> list[Keys]:
    """Merge blocks into groups, in the order of the blocks and as they come."""
    groups: dict[int, Keys] = {}
    for part, group in zip(parts, problem.group, strict=True):
        sofar = groups.get(group)
        groups[group] = (
            part
            if sofar is None
            else Keys(merge((sofar.statistics, part.statistics)), sofar.null_mean + part.null_mean)
        )
    return [groups[group] for group in range(len(problem.sizes))]


def all_keys(problem: Problem, Y: Array, cluster: BlockKeys, run: Runner) -> list[Keys]:
    """The keys of each group."""
    bounds = problem.affinity.bounds
    return _merge_keys(problem, run(lambda block: cluster(bounds[block], Y[bounds[block]]), range(len(bounds))))


def fields(
    problem: Problem, Y: Array, keys: list[Keys], strategy: Strategy, look: KeyIndex | None
) -> "list[BlockField | Force]":
    """The field that each group's rows feel: that of its keys."""
    out: list[BlockField | Force] = []
    for group, key_group in enumerate(problem.key_group):
        statistics, near = keys[key_group].statistics, None if look is None else look.near[group]
        if look is None and problem.weight is None:
            out.append(_force(keys[group].statistics, statistics, problem.beta, Y.dtype))
        elif look is None or strategy.normalizer == "gaussian":
            out.append(gaussian_field(statistics, problem.beta, dtype=Y.dtype))
        elif near is None:
            rows = problem.group_rows(key_group)
            weights = None if problem.weight is None else problem.weight[rows]
            out.append(exact_field(Y[rows], weights, problem.beta))
        else:
            start = problem.group_rows(group).start
            out.append(_shifted(neighbor_field(statistics, Y, problem.weight, near, problem.beta), start))
    return out


def _shifted(field: Field, start: int) -> BlockField:
    """The field of a group whose first row is number `start`."""
    return lambda X, rows: field(X, slice(rows.start - start, rows.stop - start))


def diffuse(problem: Problem, Y: Array, spare: Array, out: Array, run: Runner) -> None:
    """Smooth random vectors over the graph, in place: P^4 Y, less its mean, on the sphere.

    Four products, which save more iterations than they cost.
    """
    for source, target in ((Y, spare), (spare, out), (out, spare), (spare, out)):
        multiply(problem.affinity, source, target, run)
    bounds, means = problem.affinity.bounds, np.zeros((len(problem.sizes), Y.shape[1]))
    for group, block_sum in zip(
        problem.group, run(lambda b: out[bounds[b]].sum(axis=0), range(len(bounds))), strict=True
    ):
        means[group] += block_sum / problem.sizes[group]

    def one(block: int) -> None:
        rows, mean = bounds[block], means[problem.group[block]].astype(out.dtype)
        new = out[rows] - mean
        size = np.einsum("ij,ij->i", new, new)
        least = np.finfo(out.dtype).eps ** 2 * max(float(mean @ mean), float(np.finfo(out.dtype).tiny))
        kept = size > least
        Y[rows][kept] = unit_rows(unit_rows(new[kept]) + _GRAIN * Y[rows][kept])

    for _ in run(one, range(len(bounds))):
        pass


class SweepSums(NamedTuple):
    """What a block, or a sum of blocks, brings back."""

    loss: float
    displacement: float
    turn: float
    torque: Array
    keys: list[Keys]


# (vectors, downhill direction, matrix A of a further direction -Y A) -> proposals
Step = Callable[[Array, Array, Array | None], Array]


class Force(NamedTuple):
    """The field of one Gaussian, `mean` + X `spread`, with what log Z is on average less beta x.mean.

    Known for all rows together from their second moments, so that a sweep needs no pass of its own for it.
    """

    log_z: float
    mean: Array
    spread: Array


def _force(queries: KeyStatistics, keys: KeyStatistics, beta: float, dtype: np.dtype) -> Force:
    """The force of `keys` on queries of given statistics."""
    mean, spread = keys.mean[0], beta * keys.covariance[0]
    moment = queries.covariance[0] + np.outer(queries.mean[0], queries.mean[0])
    log_z = np.log(keys.weight[0]) + beta / 2 * np.vdot(spread, moment)
    return Force(float(log_z), mean.astype(dtype), spread.astype(dtype))


def _propose(field: BlockField | Force, step: Step, Y: Array, rows: slice, direction: Array) -> tuple[float, Array]:
    """Sum of log Z, and where the step sends the rows; `direction` is overwritten."""
    if isinstance(field, Force):
        return len(Y) * field.log_z, step(Y, direction, field.spread)
    log_z, mean = field(Y, rows)
    return float(log_z.sum(dtype=np.float64)), step(Y, np.subtract(direction, mean, out=direction), None)


def _sweep(
    problem: Problem,
    buffers: tuple[Array, Array, Array, Array | None],
    keys: list[Keys],
    group_fields: list[BlockField | Force],
    step: Step,
    push: float,
    cluster: BlockKeys,
    with_torque: bool,
    run: Runner,
) -> SweepSums:
    """One pass over all blocks: read `current`, write `following`, renew `last`, gather everything else.

    Block by block and in place, so that a block stays in the cache and nothing of full size is made.
    """
    current, last, following, spare = buffers
    targets = walk_targets(
        problem.affinity, current, problem.walk_length, len(problem.sizes), run, out=spare, scratch=following
    )
    add_product = additions(problem.affinity, targets)
    d = current.shape[1]
    offsets = [  # what pushes all rows of a group alike
        -group_keys.null_mean.astype(current.dtype) - (field.mean if isinstance(field, Force) else 0)
        for group_keys, field in zip(keys, group_fields, strict=True)
    ]

    def one(block: int) -> SweepSums:
        rows, group = problem.affinity.bounds[block], problem.group[block]
        Y, back, new = current[rows], last[rows], following[rows]
        direction = np.empty_like(Y)
        direction[:] = offsets[group]
        add_product(block, direction)
        gain = problem.beta * float(np.vdot(Y, direction))
        log_z, proposal = _propose(group_fields[group], step, Y, rows, direction)
        back -= proposal
        unit_rows(np.add(np.multiply(back, -push, out=new), proposal, out=new))
        moved = np.subtract(proposal, Y, out=direction)
        swept = SweepSums(
            log_z - gain,
            float(np.vdot(moved, moved)),
            float(np.vdot(moved, back)),
            (Y.T @ moved).astype(np.float64) if with_torque else np.zeros((d, d)),
            [cluster(rows, new)],
        )
        back[:] = proposal
        return swept

    return _gathered(problem, run(one, range(len(problem.affinity.bounds))), d)


def _gathered(problem: Problem, parts: Iterable[SweepSums], d: int) -> SweepSums:
    """Blocks taken together, in their order and as they come."""
    loss = displacement = turn = 0.0
    torque = np.zeros((d, d))

    def block_keys() -> Iterator[Keys]:
        nonlocal loss, displacement, turn
        for part in parts:
            loss += part.loss
            displacement += part.displacement
            turn += part.turn
            torque[:] += part.torque
            yield part.keys[0]

    new_keys = _merge_keys(problem, block_keys())
    n = sum(problem.sizes)
    return SweepSums(loss / n, float(np.sqrt(displacement / n)), turn, torque, new_keys)


def _second_moment(keys: list[Keys]) -> Array:
    """sum_i y_i y_i' over all rows, from the statistics."""
    moment: Array = sum(
        scatter + weight * np.outer(mean, mean)
        for group in keys
        for weight, mean, scatter in zip(*group.statistics, strict=True)
    )
    return moment


def _rotation(torque: Array, second_moment: Array) -> Array:
    """The antisymmetric R for which Y R is nearest to the displacements D, given Y'D and Y'Y.

    Solves Y'Y R + R Y'Y = Y'D - D'Y in the eigenbasis of Y'Y, damped where there is hardly any variance.
    """
    variance, basis = np.linalg.eigh(second_moment)
    variance = variance.clip(0)
    skew = basis.T @ (torque - torque.T) @ basis
    least = 0.02 * max(float(variance[-1]), float(np.finfo(np.float64).tiny))
    rotation: Array = basis @ (skew / (variance[:, None] + variance + least)) @ basis.T
    return rotation


def _accelerated_step(damping: float, rotation: Array) -> Step:
    """Damped fixed point in the co-rotating frame."""
    frame = damping * np.eye(len(rotation)) - rotation

    def step(Y: Array, direction: Array, spread: Array | None) -> Array:
        proposal = Y @ (frame if spread is None else frame - spread).astype(Y.dtype)
        proposal += direction
        return unit_rows(proposal)

    return step


def _gradient_step(rate: float) -> Step:
    """The paper's step: along the normalised tangent gradient, by an angle whose sine is the rate."""

    def step(Y: Array, direction: Array, spread: Array | None) -> Array:
        if spread is not None:
            direction -= Y @ spread
        tangent = unit_rows(direction - np.einsum("ij,ij->i", direction, Y)[:, None] * Y)
        return unit_rows(float(np.sqrt(1 - rate**2)) * Y + rate * tangent)

    return step


class MomentumState(NamedTuple):
    """How the accelerated solver goes on: iterations since the restart, caution about the step, the rotation."""

    age: int
    is_restart: bool
    caution: float
    rotation: Array


def _next_momentum(
    pace: MomentumState, swept: SweepSums, damping: float, keys: list[Keys], with_torque: bool
) -> MomentumState:
    """Restart where the step turned back, shorten it if that happens twice in a row, learn the rotation."""
    is_restart = swept.turn > 0
    caution = pace.caution * (1.5 if is_restart and pace.is_restart else 1)
    rotation = pace.rotation
    if with_torque:
        rotation = rotation + damping * _rotation(swept.torque, _second_moment(keys))
    return MomentumState(0 if is_restart else pace.age + 1, is_restart, caution, rotation)


def _largest_overshoot(problem: Problem) -> float:
    """How negative an eigenvalue of the walk average can be, with a fifth to spare: damping is never less.

    Powers of a row-stochastic P have eigenvalues in the unit disc: -1 at the worst, for one step. Averages over
    more steps hold less, -0.44 for three; but not on a bipartite graph, whose walks are all odd.
    """
    if len(problem.sizes) > 1:
        return 1.0
    angle = np.linspace(0, np.pi, 513)
    average = np.mean([np.cos(step * angle) for step in range(1, problem.walk_length + 1)], axis=0)
    return float(min(1.0, -1.2 * average.min()))


def _floor(backlash: float, keys: list[Keys]) -> float:
    """The least damping: vectors that are all on one side push each other, and themselves, to the other."""
    return max(backlash, 1.2 * max(float(np.linalg.norm(group.null_mean)) for group in keys))


def has_settled(losses: list[float], tol: float, highest: float) -> bool:
    """Whether each of the last iterations brought less than `tol` of the whole decrease of the loss from `highest`."""
    if tol == 0 or len(losses) < 2 * _PATIENCE:
        return False
    return bool(np.all(-np.diff(losses[-_PATIENCE - 1 :]) < tol * (highest - min(losses))))


def uniform_loss(keys: list[Keys]) -> float:
    """The loss of uniform attention."""
    return float(np.mean([np.log(group.statistics.weight.sum()) for group in keys]))


class StoppingRule:
    """When to look things up, and when to stop.

    Whatever has to be looked up is left to a second stage: one Gaussian leads most of the way at a fraction of the
    cost.
    """

    def __init__(self, strategy: Strategy, max_iter: int, tol: float, is_gradient: bool, unknowing: float | None):
        self.strategy, self.tol, self.is_gradient, self.unknowing = strategy, tol, is_gradient, unknowing
        self.losses: list[float] = []
        self.displacement = np.inf
        self.latest = min(max_iter // 2, _FIRST_STAGE)
        self.second: int | None = None if unknowing is None and not is_gradient else 0

    def is_renewal(self) -> bool:
        """Whether the iteration that begins has to look things up."""
        iteration = len(self.losses)
        if self.second is None and (iteration >= self.latest or self.displacement < 10 * self.tol):
            self.second = iteration
        return not self.strategy.is_plain and self.second is not None and iteration - self.second in _RENEWALS

    def is_over(self) -> bool:
        """Whether displacement or loss have come to rest, and nothing is to be looked up any more."""
        start = 0 if self.strategy.is_plain else self.second
        if self.is_gradient or start is None:
            return False
        stage = self.losses[start:]
        if not self.strategy.is_plain and len(stage) <= _RENEWALS[-1] + 1:
            return False
        highest = stage[0] if self.unknowing is None else max(stage[0], self.unknowing)
        return self.displacement < self.tol or has_settled(stage, self.tol, highest)


def solve(
    problem: Problem,
    Y: Array,
    strategy: Strategy,
    *,
    solver: str,
    max_iter: int,
    tol: float,
    warm: bool,
    run: Runner,
    begin: Callable[[], None],
    report: Report,
) -> Solution:
    """Minimise the surrogate loss from unit rows `Y`, which are overwritten.

    The query-side force of an asymmetric P has a torque: left alone, the whole configuration goes on rotating
    and never comes to rest. The accelerated solver therefore works in the co-rotating frame: `rotation` is the
    rigid part of the last displacements and is taken out of the next step.

    `begin` is called before every iteration and `report` after it, with its number, loss, displacement and a function
    for the solution so far; it may return True to stop.
    """
    current, last, following, best = Y, Y.copy(), np.empty_like(Y), np.empty_like(Y)
    spare = np.empty_like(Y) if problem.walk_length > 1 else None
    if not warm:
        diffuse(problem, current, last, following, run)
        np.copyto(last, current)
    cluster = partial(block_keys, problem)
    keys = all_keys(problem, current, cluster, run)
    is_gradient, backlash = solver == "gradient", _largest_overshoot(problem)
    course = StoppingRule(strategy, max_iter, tol, is_gradient, uniform_loss(keys) if warm else None)
    pace = MomentumState(0, False, 1.0, np.zeros((Y.shape[1], Y.shape[1])))
    lowest, look, converged = np.inf, None, False

    def so_far() -> Solution:
        return Solution(current.copy(), keys, look, course.losses, course.displacement, False)

    for iteration in range(max_iter):
        begin()
        is_renewal, is_third = course.is_renewal(), iteration % 3 == 0
        if is_renewal:
            look = build_key_index(problem, current, strategy, look, iteration, run)
            cluster = partial(block_keys, problem, labels=look.labels, n_clusters=strategy.n_clusters)
            keys = all_keys(problem, current, cluster, run)
            pace, lowest = MomentumState(0, False, 1.0, pace.rotation), np.inf
        if is_third or is_renewal:  # eigenvalues change slowly, and cost as much as a sweep of few rows
            stiffness = problem.beta * max(largest_variance(group.statistics) for group in keys)
        damping = pace.caution * (_floor(backlash, keys) + _STIFFNESS * stiffness)
        step, push = _accelerated_step(damping, pace.rotation), float(momentum(pace.age))
        if is_gradient:
            step, push = _gradient_step(_FIRST_RATE * (1 - iteration / max_iter)), 0.0
        group_fields = fields(problem, current, keys, strategy, look)
        buffers, with_torque = (current, last, following, spare), is_third and not is_gradient
        swept = _sweep(problem, buffers, keys, group_fields, step, push, cluster, with_torque, run)
        pace = _next_momentum(pace, swept, damping, keys, with_torque)
        current, following, keys = following, current, swept.keys
        course.losses.append(swept.loss)
        course.displacement = swept.displacement
        if swept.loss < lowest:
            lowest, best, following = swept.loss, following, best
        if report(iteration, swept.loss, swept.displacement, so_far):
            break
        converged = course.is_over()
        if converged:
            break

    vectors = current if course.losses[-1] == lowest else best
    final = all_keys(problem, vectors, cluster, run)
    return Solution(vectors, final, look, course.losses, course.displacement, converged)


def model(problem: Problem, solution: Solution, strategy: Strategy, targets: Array, group: int, run: Runner) -> Model:
    """What a new query of a group has to know."""
    key_group = problem.key_group[group]
    rows = problem.group_rows(key_group)
    known = Model(
        np.ascontiguousarray(targets[rows]),
        solution.keys[key_group].statistics,
        solution.keys[group].null_mean,
        problem.beta,
    )
    if strategy.normalizer == "gaussian" or solution.look is None:
        return known
    keys = solution.vectors[rows].astype(np.float64)
    known = known._replace(keys=keys, weights=None if problem.weight is None else problem.weight[rows])
    if problem.queries is not None:
        product = products(problem.queries, targets)
        leads = run(lambda block: fingerprint(product(block)), range(len(problem.group)))
        known = known._replace(fingerprints=np.concatenate(list(leads)))
    near = solution.look.near[group]
    if near is None:
        return known
    labels = None if near.labels is None else near.labels[rows]
    sample = [members - rows.start for members in near.sample]
    cells = cells_of_all(keys, np.arange(len(keys)), strategy, 0, run)
    return known._replace(
        n_exact=strategy.n_exact, cells=cells, near=NearKeys(np.zeros((0, strategy.n_exact), np.int32), sample, labels)
    )
