"""The block function: one solver step for a block of rows, and the sums over rows that the next step needs.

Arrays go in and arrays come out; nothing is shared. `StepParams` can be pickled, and the sums of any partition of the
rows merge into those of all rows. With one Gaussian as the normalizer the block function needs nothing of an array
library but matmul, sum, sqrt and arithmetic, so that other executors can run it on arrays of their own.
"""

from collections.abc import Callable, Iterable
from functools import reduce
from itertools import groupby
from operator import itemgetter
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import numpy as np

from .sphere import dot, row_dots, unit_rows
from .statistics import KeyStatistics, block_statistics, merge
from .types import Array, Integers

T = TypeVar("T")


class StepParams(NamedTuple):
    """Parameters of one step, the same for all rows of a group.

    Attributes
    ----------
    beta : float
        1 / temperature.
    offset : ndarray of shape (d,)
        The part of the downhill direction that is the same for all rows: minus the mean of the null model and, where
        log Z comes from one Gaussian, minus the mean of the keys.
    loss_offset : ndarray of shape (d,) or None
        That part without what the keys' side adds, where rows move as queries and as keys; None where they move as
        queries only.
    matrix : ndarray of shape (d, d) or None
        The part that is linear in a row: damping, less the co-rotating frame and the covariance of the keys.
    log_z : float
        log Z of one Gaussian less its linear part, averaged over the rows.
    momentum : float
        Share of the last displacement that is added to the proposal.
    rate : float or None
        Sine of the angle by which a row turns along its normalized gradient; None for the damped fixed point.
    with_torque : bool
        Whether to sum the products of rows with their displacements.
    """

    beta: float
    offset: Array
    matrix: Array | None
    log_z: float
    momentum: float
    rate: float | None = None
    with_torque: bool = False
    loss_offset: Array | None = None


class GroupKeys(NamedTuple):
    """Statistics of the rows of one group as keys, and the mean that repels the rows of this group.

    The mean is that of the group itself, not that of its keys: on a bipartite graph the loss could otherwise be lowered
    without end by moving all queries to one pole and all keys to the other.
    """

    statistics: KeyStatistics
    null_mean: Array


class SweepSums(NamedTuple):
    """Sums over rows of one group.

    Attributes
    ----------
    loss : float
        Sum of the surrogate loss, in nats.
    displacement : float
        Sum of the squared distance from each row to its proposal.
    overshoot : float
        Sum of the products of each displacement with the last one, reversed: positive where the step turned back.
    torque : ndarray of shape (d, d)
        Sum of ``y (proposal - y)'``.
    keys : GroupKeys
        Statistics of the new rows.
    """

    loss: float
    displacement: float
    overshoot: float
    torque: Array
    keys: GroupKeys


class RowWeights(NamedTuple):
    """How the rows of a block count as keys.

    Attributes
    ----------
    shares : array of shape (2, n)
        Key weights, and the null model, in the precision of the rows.
    is_weighted : bool
        Whether any key weight differs from one.
    labels : ndarray of int of shape (n,) or None
        Clusters; None for one cluster.
    n_clusters : int
    """

    shares: Array
    is_weighted: bool
    labels: Integers | None = None
    n_clusters: int = 1


def sweep_block(
    Y: Array,
    last: Array,
    attraction: Array,
    params: StepParams,
    rows: RowWeights,
    repulsion: tuple[float, Array] | None = None,
    damping: Array | None = None,
    out: tuple[Array, Array] | None = None,
    xp: ModuleType = np,
) -> tuple[Array, Array, SweepSums]:
    """Take one step with a block of rows; return them with momentum and without it, and their sums.

    Parameters
    ----------
    Y, last, attraction : arrays of shape (n, d)
        Unit rows, the proposals of the last step, and affinities times the vectors that they lead to. Where rows move
        as queries and as keys, the transposed affinities times vectors are added.
    repulsion : tuple of float and array of shape (n, d), or None
        Sum of log Z over the rows, and its gradient divided by beta; None for one Gaussian, which `params` describe.
    damping : array of shape (n,) or None
        Damping of each row, where it is not the same for all rows and in `params`.
    out : tuple of arrays of shape (n, d), or None
        Arrays for the results, in memory that is in the cache; the second may be `attraction`.
    xp : module
        Namespace of the arrays.
    """
    new, proposal = (xp.empty_like(Y), xp.empty_like(Y)) if out is None else out
    if proposal is not attraction:
        proposal[:, :] = attraction
    if params.loss_offset is not None:  # both sides have the same products of affinities and scores
        loss = -params.beta * (dot(Y, proposal, xp) / 2 + dot(xp.sum(Y, axis=0), params.loss_offset, xp))
    proposal += params.offset
    if params.loss_offset is None:
        loss = -params.beta * dot(Y, proposal, xp)
    loss += Y.shape[0] * params.log_z if repulsion is None else repulsion[0]
    if repulsion is not None:
        proposal -= repulsion[1]
    if params.matrix is not None:
        proposal += Y @ params.matrix
    if damping is not None:
        proposal += damping[:, None] * Y
    if params.rate is None:
        unit_rows(proposal, xp)
    else:  # turn along the tangent gradient by an angle whose sine is the rate, [DB]
        tangent = unit_rows(proposal - row_dots(proposal, Y, xp)[:, None] * Y, xp)
        proposal[:, :] = unit_rows(params.rate * tangent + (1 - params.rate**2) ** 0.5 * Y, xp)
    moved = proposal - Y
    new[:, :] = proposal
    new -= last
    overshoot = -dot(moved, new, xp)
    new *= params.momentum
    new += proposal
    unit_rows(new, xp)
    displacement = dot(moved, moved, xp)
    torque = _wide(Y.T @ moved) if params.with_torque else np.zeros((Y.shape[1], Y.shape[1]))
    return new, proposal, SweepSums(loss, displacement, overshoot, torque, key_sums(new, rows, xp))


def _wide(x: Any) -> Array:
    """Bring a sum over a block to the host in double precision."""
    return np.asarray(x, np.float64)


def key_sums(Y: Array, rows: RowWeights, xp: ModuleType = np) -> GroupKeys:
    """Return the statistics of a block of unit rows as keys, and their sum weighted by the null model.

    Products within a block stay in its own precision. On the sphere no mean is far from the origin, so nothing has to
    be centered before it is multiplied.
    """
    weight, null = rows.shares[0, :], rows.shares[1, :]
    if rows.labels is not None:
        statistics = block_statistics(Y, weight if rows.is_weighted else None, rows.labels, rows.n_clusters)
        return GroupKeys(statistics, null @ Y.astype(np.float64))
    total = float(xp.sum(weight))
    first, null_mean = _wide(rows.shares @ Y)
    mean = first / (total or 1)
    moment = _wide(Y.T @ (weight[:, None] * Y if rows.is_weighted else Y))
    scatter = moment - total * np.outer(mean, mean)
    return GroupKeys(KeyStatistics(np.array([total]), mean[None], scatter[None]), null_mean)


def merge_keys(a: GroupKeys, b: GroupKeys) -> GroupKeys:
    """Merge the keys of two blocks of one group."""
    return GroupKeys(merge((a.statistics, b.statistics)), a.null_mean + b.null_mean)


def merge_sums(a: SweepSums, b: SweepSums) -> SweepSums:
    """Merge the sums over two blocks of one group; the order of blocks has to be fixed for the same bits."""
    loss, displacement, overshoot = (x + y for x, y in zip(a[:3], b[:3], strict=True))
    return SweepSums(loss, displacement, overshoot, a.torque + b.torque, merge_keys(a.keys, b.keys))


def merged_by_group(groups: Iterable[int], parts: Iterable[T], merge_two: Callable[[T, T], T]) -> list[T]:
    """Merge what the blocks of each group bring, in the order of the blocks and as they come."""
    together = groupby(zip(groups, parts, strict=True), key=itemgetter(0))
    return [reduce(merge_two, (part for _, part in members)) for _, members in together]
