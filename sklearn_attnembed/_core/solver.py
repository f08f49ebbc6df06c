"""The blocked sweep and the two solvers that run it."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .kernels import Array
from .normalizer import Field, exact_field, gaussian_field, neighbor_field
from .operators import Affinity, Runner, momentum, products, unit_rows, walk_targets
from .statistics import KeyStatistics, block_statistics, largest_variance, merge

# Damping in units of beta times the largest variance. All rows moving together also move the covariance, which
# triples the curvature of a single row: 1.5 keeps that stable, 2.25 with momentum.
_STIFFNESS = 2.5
# First rate of the paper's gradient steps, [DB].
_FIRST_RATE = 0.85
# Cluster labels and lists of nearest keys are renewed every so many iterations, and so often at most: each renewal
# changes the objective a little, and only a fixed one can be converged on.
_RENEW = 10
_RENEWALS = 5
# Iterations that the loss has to be flat for.
_PATIENCE = 3


class Problem(NamedTuple):
    """What is embedded: affinities between groups of rows, one group (square) or two (bipartite).

    Attributes
    ----------
    affinity : Affinity
        Row-stochastic, over the rows of all groups.
    group : list of int
        The group of each block of rows.
    key_group : list of int
        For each group, the group of its keys.
    sizes : list of int
        Rows of each group.
    active : ndarray of bool of shape (n,)
        Rows with any affinity.
    null : ndarray of shape (n,)
        The null model p0, summing to one over each group.
    beta : float
        1 / temperature.
    walk_length : int
    """

    affinity: Affinity
    group: list[int]
    key_group: list[int]
    sizes: list[int]
    active: NDArray[np.bool_]
    null: Array
    beta: float
    walk_length: int

    def group_rows(self, group: int) -> slice:
        """The rows of one group."""
        start = sum(self.sizes[:group])
        return slice(start, start + self.sizes[group])


class Keys(NamedTuple):
    """Keys of one group as a normaliser sees them, and the mean that the group's own rows are pushed away from.

    Its own, not that of its keys: on a bipartite graph the loss could otherwise be lowered without end by moving
    all queries to one pole and all keys to the other.
    """

    statistics: KeyStatistics
    null_mean: Array


class Solution(NamedTuple):
    """Where a solver ended: vectors, keys of each group and the history."""

    vectors: Array
    keys: list[Keys]
    losses: list[float]
    displacement: float
    converged: bool


class Strategy(NamedTuple):
    """How Z is had: `normalizer` and what it needs from outside.

    Attributes
    ----------
    normalizer : {"gaussian", "neighbors", "exact"}
    n_clusters : int
    partition : callable
        Keys -> cluster labels.
    nearest : callable
        ``(queries, keys) -> indices of the nearest keys``, ndarray of shape (n_queries, n_exact).
    """

    normalizer: str
    n_clusters: int
    partition: Callable[[Array], NDArray[np.integer]]
    nearest: Callable[[Array, Array], NDArray[np.integer]]

    @property
    def renews(self) -> bool:
        """Whether anything has to be looked up anew as the vectors move."""
        return self.normalizer == "neighbors" or self.n_clusters > 1


# Key statistics of the whole -------------------------------------------------------------------------
def _block_keys(problem: Problem, rows: slice, Y: Array, labels: NDArray[np.integer] | None, n_clusters: int) -> Keys:
    """Statistics and share of the null mean of one block of new keys."""
    active = problem.active[rows]
    weights = None if active.all() else active.astype(np.float64)
    block_labels = None if labels is None else labels[rows]
    statistics = block_statistics(Y, weights, block_labels, n_clusters)
    return Keys(statistics, problem.null[rows] @ Y.astype(np.float64))


def _merge_keys(problem: Problem, parts: list[Keys]) -> list[Keys]:
    """Merge blocks into groups, in the order of the blocks."""
    groups = []
    for group in range(len(problem.sizes)):
        members = [part for part, g in zip(parts, problem.group, strict=True) if g == group]
        groups.append(Keys(merge(part.statistics for part in members), sum(part.null_mean for part in members)))
    return groups


def all_keys(problem: Problem, Y: Array, cluster: Callable[[slice, Array], Keys], run: Runner) -> list[Keys]:
    """The keys of each group."""
    bounds = problem.affinity.bounds
    return _merge_keys(problem, list(run(lambda block: cluster(bounds[block], Y[bounds[block]]), range(len(bounds)))))


def _clustered(problem: Problem, Y: Array, strategy: Strategy) -> Callable[[slice, Array], Keys]:
    """Find clusters of the active rows, group by group; return what gathers statistics of a block by them."""
    labels = np.zeros(len(Y), dtype=np.intp)
    for group in range(len(problem.sizes)):
        rows = problem.group_rows(group)
        active = np.flatnonzero(problem.active[rows]) + rows.start
        labels[active] = strategy.partition(Y[active])
    return partial(_block_keys, problem, labels=labels, n_clusters=strategy.n_clusters)


def _nearest(problem: Problem, Y: Array, strategy: Strategy) -> NDArray[np.integer]:
    """Nearest active keys of every row, as numbers of rows of `Y`."""
    found = []
    for group, key_group in enumerate(problem.key_group):
        rows = problem.group_rows(key_group)
        active = np.flatnonzero(problem.active[rows]) + rows.start
        found.append(active[strategy.nearest(Y[problem.group_rows(group)], Y[active])])
    width = min(indices.shape[1] for indices in found)
    return np.concatenate([indices[:, :width] for indices in found])


def fields(
    problem: Problem, Y: Array, keys: list[Keys], strategy: Strategy, nearest: NDArray[np.integer] | None
) -> list[Field]:
    """The field that each group's rows feel: that of its keys."""
    out = []
    for key_group in problem.key_group:
        if strategy.normalizer == "exact":
            rows = problem.group_rows(key_group)
            active = problem.active[rows]
            out.append(exact_field(Y[rows] if active.all() else Y[rows][active], problem.beta))
        elif strategy.normalizer == "neighbors":
            out.append(neighbor_field(keys[key_group].statistics, Y, nearest, problem.beta))
        else:
            out.append(gaussian_field(keys[key_group].statistics, problem.beta, dtype=Y.dtype))
    return out


# The sweep -------------------------------------------------------------------------------------------
class Swept(NamedTuple):
    """What a block, or a sum of blocks, brings back."""

    loss: float
    displacement: float
    turn: float
    torque: Array
    keys: list[Keys]


# (vectors, downhill direction) -> proposals
Step = Callable[[Array, Array], Array]


def _sweep(
    problem: Problem,
    buffers: tuple[Array, Array, Array],
    keys: list[Keys],
    group_fields: list[Field],
    step: Step,
    push: float,
    cluster: Callable[[slice, Array], Keys],
    run: Runner,
) -> Swept:
    """One pass over all blocks: read `current`, write `following`, renew `last`, gather everything else.

    Block by block and in place, so that a block stays in the cache and nothing of full size is made.
    """
    current, last, following = buffers
    targets = walk_targets(problem.affinity, current, problem.walk_length, len(problem.sizes), run)
    product = products(problem.affinity, targets)
    null_means = [group_keys.null_mean.astype(current.dtype) for group_keys in keys]

    def one(block: int) -> Swept:
        rows, group = problem.affinity.bounds[block], problem.group[block]
        active = problem.active[rows]
        Y, back, new = current[rows], last[rows], following[rows]
        direction = product(block) - null_means[group]
        log_z, mean = group_fields[group](Y, rows)
        loss = log_z - problem.beta * np.einsum("ij,ij->i", Y, direction)
        direction -= mean
        proposal = step(Y, direction)
        if not active.all():
            proposal[~active] = 0
        back -= proposal
        unit_rows(np.add(np.multiply(back, -push, out=new), proposal, out=new))
        moved = np.subtract(proposal, Y, out=direction)
        swept = Swept(
            float(loss[active].sum(dtype=np.float64)),
            float(np.vdot(moved, moved)),
            float(np.vdot(moved, back)),
            (Y.T @ moved).astype(np.float64),
            [cluster(rows, new)],
        )
        back[:] = proposal
        return swept

    loss = displacement = turn = 0.0
    torque = np.zeros((current.shape[1], current.shape[1]))
    block_keys: list[Keys] = []
    for part in run(one, range(len(problem.affinity.bounds))):  # in the order of the blocks
        loss += part.loss
        displacement += part.displacement
        turn += part.turn
        torque += part.torque
        block_keys += part.keys
    n_active = max(np.count_nonzero(problem.active), 1)
    return Swept(
        loss / n_active, float(np.sqrt(displacement / n_active)), turn, torque, _merge_keys(problem, block_keys)
    )


def _second_moment(keys: list[Keys]) -> Array:
    """sum_i y_i y_i' over all rows, from the statistics."""
    return sum(
        scatter + weight * np.outer(mean, mean)
        for group in keys
        for weight, mean, scatter in zip(*group.statistics, strict=True)
    )


def _rotation(torque: Array, second_moment: Array) -> Array:
    """The antisymmetric R for which Y R is nearest to the displacements D, given Y'D and Y'Y.

    Solves Y'Y R + R Y'Y = Y'D - D'Y in the eigenbasis of Y'Y, damped where there is hardly any variance.
    """
    variance, basis = np.linalg.eigh(second_moment)
    variance = variance.clip(0)
    skew = basis.T @ (torque - torque.T) @ basis
    return basis @ (skew / (variance[:, None] + variance + 0.02 * max(variance[-1], np.finfo(float).tiny))) @ basis.T


def _accelerated_step(damping: float, rotation: Array) -> Step:
    """Damped fixed point in the co-rotating frame."""

    def step(Y: Array, direction: Array) -> Array:
        proposal = Y @ (damping * np.eye(len(rotation)) - rotation).astype(Y.dtype)
        proposal += direction
        return unit_rows(proposal)

    return step


def _gradient_step(rate: float) -> Step:
    """The paper's step: along the normalised tangent gradient, by an angle whose sine is the rate."""

    def step(Y: Array, direction: Array) -> Array:
        tangent = unit_rows(direction - np.einsum("ij,ij->i", direction, Y)[:, None] * Y)
        return unit_rows(float(np.sqrt(1 - rate**2)) * Y + rate * tangent)

    return step


class Pace(NamedTuple):
    """How the accelerated solver goes on: iterations since the restart, caution about the step, the rotation."""

    age: int
    is_restart: bool
    caution: float
    rotation: Array


def _next_pace(pace: Pace, swept: Swept, damping: float, second_moment: Array) -> Pace:
    """Restart where the step turned back, shorten it if that happens twice in a row, learn the rotation."""
    is_restart = swept.turn > 0
    caution = pace.caution * (1.5 if is_restart and pace.is_restart else 1)
    rotation = pace.rotation + damping * _rotation(swept.torque, second_moment)
    return Pace(0 if is_restart else pace.age + 1, is_restart, caution, rotation)


def _has_settled(losses: list[float], tol: float) -> bool:
    """Whether each of the last iterations brought less than `tol` of the whole decrease of the loss."""
    if tol == 0 or len(losses) < 2 * _PATIENCE:
        return False
    whole = losses[0] - min(losses)
    return bool(np.all(-np.diff(losses[-_PATIENCE - 1 :]) < tol * whole))


def solve(
    problem: Problem,
    Y: Array,
    strategy: Strategy,
    *,
    solver: str,
    max_iter: int,
    tol: float,
    run: Runner,
    report: Callable[[int, float, float], None],
) -> Solution:
    """Minimise the surrogate loss from unit rows `Y`, which are overwritten.

    The query-side force of an asymmetric P has a torque: left alone, the whole configuration goes on rotating
    and never comes to rest. The accelerated solver therefore works in the co-rotating frame: `rotation` is the
    rigid part of the last displacements and is taken out of the next step.
    """
    current, last, following = Y, Y.copy(), np.empty_like(Y)
    cluster = partial(_block_keys, problem, labels=None, n_clusters=1)
    keys = all_keys(problem, current, cluster, run)
    pace = Pace(0, False, 1.0, np.zeros((Y.shape[1], Y.shape[1])))
    losses: list[float] = []
    nearest, displacement, converged = None, np.inf, False

    for iteration in range(max_iter):
        is_renewal = iteration % _RENEW == 0 and iteration <= _RENEW * _RENEWALS
        if strategy.n_clusters > 1 and is_renewal and iteration > 0:
            cluster = _clustered(problem, current, strategy)
            keys = all_keys(problem, current, cluster, run)
        if strategy.normalizer == "neighbors" and is_renewal:
            nearest = _nearest(problem, current, strategy)
        stiffness = problem.beta * max(largest_variance(group.statistics) for group in keys)
        damping = pace.caution * (1 + _STIFFNESS * stiffness)
        if solver == "gradient":
            step, push = _gradient_step(_FIRST_RATE * (1 - iteration / max_iter)), 0.0
        else:
            step, push = _accelerated_step(damping, pace.rotation), float(momentum(pace.age))
        group_fields = fields(problem, current, keys, strategy, nearest)
        swept = _sweep(problem, (current, last, following), keys, group_fields, step, push, cluster, run)
        pace = _next_pace(pace, swept, damping, _second_moment(keys))
        current, following, keys = following, current, swept.keys
        displacement = swept.displacement
        losses.append(swept.loss)
        report(iteration, swept.loss, displacement)
        is_open = solver == "gradient" or (strategy.renews and iteration <= 2 * _RENEW)
        if not is_open and (displacement < tol or _has_settled(losses, tol)):
            converged = True
            break

    if strategy.n_clusters > 1:
        cluster = _clustered(problem, current, strategy)
    return Solution(current, all_keys(problem, current, cluster, run), losses, displacement, converged)
