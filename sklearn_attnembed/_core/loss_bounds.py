"""Bounds of the loss: no cross entropy is below the entropy of its targets."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from .affinity_matrix import walked_rows
from .kernels import embedded
from .problem import Problem
from .sweep import GroupKeys
from .types import Array

# Number of rows whose targets are formed where walks give them more entries than the affinities, and how many at once.
_ROWS, _AT_ONCE = 64, 16
# Error of a Gaussian, in nats, that is not worth a warning.
_SLACK = 0.01


class Bounds(NamedTuple):
    """Bounds of the loss of a problem.

    Attributes
    ----------
    lowest : float
        The loss of attention that equals the targets. No loss is lower.
    error : float
        Standard error of `lowest`: zero unless it comes from a sample of rows.
    highest : float
        The loss of attention with the worst scores there are. No loss is higher.
    """

    lowest: float
    error: float
    highest: float

    def excludes(self, loss: float) -> bool:
        """Return whether a loss is impossible, beyond what estimates and rounding may add."""
        return not self.lowest - 3 * self.error - _SLACK <= loss <= self.highest + _SLACK


def loss_bounds(problem: Problem, keys: list[GroupKeys], vectors: Array) -> Bounds | None:
    """Return the bounds of the loss with given vectors; None where a LinearOperator hides its entries.

    The scores of keys that are left out, because they have no affinities of their own, count as zero.
    """
    n, weight = sum(problem.sizes), problem.weight
    if problem.affinity.pieces is None:
        return None
    log_f = embedded(problem.kernel).log_value(
        problem.beta * np.array([-1.0, 0.0, 1.0])
    )  # extremes of kernels on unit vectors
    log_weight = np.zeros(n) if weight is None else np.log(weight, where=weight > 0, out=np.zeros(n))
    targets = problem.affinity.pieces if problem.walk_length == 1 else _sampled_targets(problem, n)
    span = float(log_f[1] - log_f.min())
    lowest = np.concatenate([_entropies(part, log_weight, span) for part in targets])
    error = 0.0 if len(lowest) == n else float(lowest.std() / np.sqrt(len(lowest)))
    repulsion = (
        problem.beta
        / n
        * sum(
            float(vectors[problem.group_rows(group)].sum(axis=0, dtype=np.float64) @ keys[group].null_mean)
            for group in range(len(problem.sizes))
        )
    )
    uniform = np.average([np.log(side.statistics.weight.sum()) for side in keys], weights=problem.sizes[::-1])
    highest = float(uniform + log_f.max() - log_f.min())
    return Bounds(float(lowest.mean()) + repulsion, error, highest + repulsion)


def _sampled_targets(problem: Problem, n: int) -> Iterator[Any]:
    """Yield the targets of some rows, averaged over walks, a few rows at a time."""
    P, rows = problem.affinity.operator, np.unique(np.linspace(0, n - 1, _ROWS).astype(int))
    steps = [P] * len(problem.sizes)  # on a bipartite graph to the other side, and back
    for start in range(0, len(rows), _AT_ONCE):
        yield walked_rows(P[rows[start : start + _AT_ONCE]], steps, problem.walk_length)


def _entropies(targets: Any, log_weight: Array, span: float) -> Array:
    """Return the least loss of each row: the entropy of its targets plus their mean log key weight."""
    T = sp.csr_array(targets, dtype=np.float64)
    mass = np.asarray(T.sum(axis=1))
    logs = T.copy()
    logs.data = T.data * (log_weight[T.indices] - np.log(T.data, where=T.data > 0, out=np.zeros(T.nnz)))
    there = np.where(mass > 0, mass, 1)
    return np.asarray(logs.sum(axis=1)) / there + np.log(there) - span * (1 - mass).clip(0)
