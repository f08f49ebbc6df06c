"""Between what values a true loss lies: no cross entropy is below the entropy of its targets."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from .problem import Keys, Problem
from .types import Array

# Rows whose targets are formed, where walks make them of more than the affinities; and so many at a time.
_ROWS, _AT_ONCE = 64, 16


# What a Gaussian may be wrong by without a word, in nats.
_SLACK = 0.01


class Bounds(NamedTuple):
    """What the loss of a problem can be.

    Attributes
    ----------
    lowest : float
        The loss of attention that is equal to the targets: less is impossible.
    error : float
        Its standard error, where it is known of a sample of rows; zero where of all.
    highest : float
        The loss of attention that is as wrong as it can be: more is impossible too.
    """

    lowest: float
    error: float
    highest: float

    def excludes(self, loss: float) -> bool:
        """Whether a loss is impossible, whatever was estimated or rounded."""
        return not self.lowest - 3 * self.error - _SLACK <= loss <= self.highest + _SLACK


def loss_bounds(problem: Problem, keys: list[Keys], vectors: Array, log_f: tuple[float, float, float]) -> Bounds | None:
    """The bounds of the loss with vectors that were found; None where a LinearOperator hides its entries.

    `log_f` is the lowest value of log f, that at a score of zero, and the highest. At zero are the scores of keys that
    are not there, having no affinities of their own.
    """
    n, weight, span = sum(problem.sizes), problem.weight, log_f[1] - log_f[0]
    if problem.affinity.pieces is None:
        return None
    log_weight = np.zeros(n) if weight is None else np.log(weight, where=weight > 0, out=np.zeros(n))
    targets = problem.affinity.pieces if problem.walk_length == 1 else _sampled_targets(problem, n)
    lowest = np.concatenate([_entropies(part, log_weight, span) for part in targets])
    error = 0.0 if len(lowest) == n else float(lowest.std() / np.sqrt(len(lowest)))
    away = problem.beta * sum(
        float(vectors[problem.group_rows(group)].sum(axis=0, dtype=np.float64) @ keys[group].null_mean)
        for group in range(len(problem.sizes))
    )
    highest = np.average([np.log(side.statistics.weight.sum()) for side in keys], weights=problem.sizes[::-1])
    return Bounds(float(lowest.mean()) + away / n, error, float(highest) + log_f[2] - log_f[0] + away / n)


def _sampled_targets(problem: Problem, n: int) -> Iterator[Any]:
    """What the attention of some rows is to reproduce, a few at a time: the averages of their walks."""
    P, rows = problem.affinity.operator, np.unique(np.linspace(0, n - 1, _ROWS).astype(int))
    for start in range(0, len(rows), _AT_ONCE):
        total = walk = P[rows[start : start + _AT_ONCE]]
        for _ in range(problem.walk_length - 1):
            for _ in problem.sizes:  # on a bipartite graph to the other side, and back
                walk = walk @ P
            total = total + walk
        yield total / problem.walk_length


def _entropies(targets: Any, log_weight: Array, span: float) -> Array:
    """The least loss of each row: the entropy of its targets and, by them, the mean log weight of keys."""
    T = sp.csr_array(targets, dtype=np.float64)
    mass = np.asarray(T.sum(axis=1))
    logs = T.copy()
    logs.data = T.data * (log_weight[T.indices] - np.log(T.data, where=T.data > 0, out=np.zeros(T.nnz)))
    there = np.where(mass > 0, mass, 1)
    return np.asarray(logs.sum(axis=1)) / there + np.log(there) - span * (1 - mass).clip(0)
