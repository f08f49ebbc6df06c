"""The exact loss of a sample of rows, which tells what the surrogate loss is worth.

A solver that minimizes an estimate of the loss also exploits the errors of this estimate. Where they matter, the exact
loss of some rows rises while the surrogate loss falls.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from .kernels import SOFTMAX, embedded
from .logsum import log_of
from .normalizers.exact import exact_attention
from .parallel import Runner
from .problem import Problem
from .statistics import group_sums
from .types import Array, Integers

# Iterations from one check to the next.
_INTERVAL = 5
# Share of the time of all iterations that the checks may take, and that the sample at the end may take.
_SHARE = 0.05
# Number of scores that take no time, compared with what else a fit does.
_FREE = 2**17
# Number of rows whose losses tell whether they rise.
LEAST_ROWS = 8
# Rows at a time.
AT_ONCE = 16
# Rise of the exact loss, as a share of its gain over uniform attention, that is worth stopping for. Smaller ones are
# common, and classifiers do not mind them.
_RISE = 0.1
# Rise, in nats, that is not worth stopping for.
_SLACK = 0.01


class Sampled(NamedTuple):
    """Mean exact loss of a sample of rows, its standard error, and the number of rows."""

    mean: float
    error: float
    n_rows: int


def rows_per_iteration(problem: Problem, d: int) -> float:
    """Return how many rows of exact attention take as long as one iteration.

    A multiplication of a sparse product takes four times as long as one of a dense product, or more, because vectors
    are gathered from memory, and an exponential takes as long as 125.
    """
    affinity, n = problem.affinity.operator, sum(problem.sizes)
    n_affinities = affinity.nnz if sp.issparse(affinity) else n * n / 4
    steps = problem.walk_length * (1 if problem.backward is None else 2)
    return float((4 * steps * n_affinities / n * d + d * d) / (d + 125))


def sample_rows(n: int, n_rows: float, seed: int) -> Integers:
    """Draw some of `n` rows without replacement, at least as many as take no time."""
    size = int(np.clip(n_rows, min(n, 30, 2 + _FREE // n), n))
    return np.sort(np.random.default_rng([seed, size]).choice(n, size, replace=False))


def row_losses(problem: Problem, vectors: Array, targets: Array, rows: Integers, run: Runner) -> Array:
    """Return the exact loss of some rows in float64, given `targets`, the averages of the vectors over walks."""
    groups = np.searchsorted(np.cumsum(problem.sizes), rows, side="right")
    null_means = [
        problem.null[own] @ vectors[own].astype(np.float64)
        for own in map(problem.group_rows, range(len(problem.sizes)))
    ]
    parts = [
        (group, members[start : start + AT_ONCE])
        for group in range(len(problem.sizes))
        for members in [rows[groups == group]]
        for start in range(0, len(members), AT_ONCE)
    ]

    def one(part: int) -> Array:
        group, members = parts[part]
        X, keys, weights = vectors[members], vectors[problem.key_rows(group)], problem.key_weights(group)
        kernel, log_weights = embedded(problem.kernel), None if weights is None else log_of(weights)
        log_z = exact_attention(problem.signed(X), keys, None, kernel, problem.beta, log_weights)[0]
        X = X.astype(np.float64)
        if kernel is not SOFTMAX:
            return np.asarray(log_z - _mean_log_value(problem, vectors, members))
        force = problem.signed(np.asarray(problem.affinity.operator[members] @ targets)) - null_means[group]
        return np.asarray(log_z - problem.beta * np.einsum("ij,ij->i", X, force))

    return np.concatenate(list(run(one, range(len(parts)))))


def _mean_log_value(problem: Problem, vectors: Array, members: Integers) -> Array:
    """Return the mean logarithm of the kernel under the affinities of some rows."""
    P = sp.csr_array(problem.affinity.operator[members])
    row = np.repeat(np.arange(len(members)), np.diff(P.indptr))
    scores = problem.beta * np.einsum("ij,ij->i", vectors[members[row]], vectors[P.indices])
    return group_sums(row, P.data * embedded(problem.kernel).log_value(scores), len(members))


def sampled_loss(losses: Array, n: int) -> Sampled:
    """Return the mean loss of rows that were drawn without replacement from `n`, and its standard error."""
    spread = float(losses.std(ddof=1)) if len(losses) > 1 else 0.0
    return Sampled(float(losses.mean()), spread * float(np.sqrt((1 - len(losses) / n) / len(losses))), len(losses))


class LossCheck:
    """Exact losses of the same few rows, every few iterations, and of more rows at the end.

    Parameters
    ----------
    problem : Problem
    d : int
        Dimension of the vectors.
    seed : int
        Seed of the samples.
    stops_early : bool
        Whether to look for a rise of the exact loss; without it only the loss at the end is computed.
    """

    def __init__(self, problem: Problem, d: int, seed: int, *, stops_early: bool):
        self.n, self.seed = sum(problem.sizes), seed
        self.rows_per_iteration = _SHARE * rows_per_iteration(problem, d)
        self.rows = sample_rows(self.n, _INTERVAL * self.rows_per_iteration, seed)
        self.stops_early = stops_early and len(self.rows) >= LEAST_ROWS
        self.lowest: Array | None = None

    def has_risen(self, exact_losses: Callable[[Integers], Array], iteration: int, uniform: float) -> bool:
        """Whether the exact loss of the rows has clearly risen from its lowest value before; `uniform` is the loss of
        uniform attention."""
        if not self.stops_early or iteration % _INTERVAL != _INTERVAL - 1:
            return False
        losses = exact_losses(self.rows)
        if self.lowest is None or losses.mean() <= self.lowest.mean():
            self.lowest = losses
            return False
        rise, gain = losses - self.lowest, max(uniform - float(self.lowest.mean()), 0.0)
        error = float(rise.std() / np.sqrt(len(rise)))
        return float(rise.mean()) > max(_RISE * gain, 2 * error, _SLACK)

    def at_the_end(self, exact_losses: Callable[[Integers], Array], n_iter: int) -> Sampled:
        """Return the exact loss after so many iterations."""
        return sampled_loss(exact_losses(sample_rows(self.n, n_iter * self.rows_per_iteration, self.seed)), self.n)
