"""The loss of kernels whose scores enter pair by pair: explicit affinities, signs that are free, a fading background.

The attraction of a pair is the slope of log f. For the expressive kernel it has a pole where the score is zero, so that
vectors could never get from one side to the other; a background b takes the pole away. While b is large the objective
is nearly quadratic in the products x x', and long steps find the optimum, which is then followed down to a small b.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from .kernels import Kernel, PairTerms, with_background
from .normalizers.mixture import gaussian_field
from .parallel import Runner
from .problem import Problem, Strategy
from .softmax_objective import momentum
from .solver import Descent, Step, has_settled
from .sphere import row_dots, unit_rows
from .statistics import KeyStatistics, group_sums, largest_variance, pool
from .types import Array, Field, Integers

# Background at first, and where the optimum is found; f itself is below 1.
_FIRST, _FOUND = 1.0, 0.2
# Share of the iterations in which the background fades, and share of these until the optimum is found.
_FADE, _SEARCH = 0.8, 0.85
# Damping, as a share of what would be safe, while the optimum is searched: with more, nothing is found in this time.
_BOLD = 0.25
# Background, step by step, for single rows.
_ROW_STEPS = 15
# Elements of gathered vectors: 4 MB in float64.
PAIR_ELEMENTS = 2**19


class PairwiseSchedule:
    """Search the optimum from several starts while the background fades, then follow the best one to rest."""

    def __init__(self, strategy: Strategy, max_iter: int, tol: float, last: float, *, is_warm: bool):
        n_fading = int(_FADE * max_iter)
        n_search = int(_SEARCH * n_fading)
        search = [(background, _BOLD) for background in np.geomspace(_FIRST, _FOUND, n_search)]
        fading = [(background, 1.0) for background in np.geomspace(_FOUND, last, n_fading - n_search)]
        self.fading = fading if is_warm else search + fading  # vectors of a former fit need no search
        self.has_search = n_search > 0 and not is_warm
        self.is_plain, self.tol, self.last = strategy.is_plain, tol, last

    def step(self, losses: list[float], displacement: float) -> Step:
        """Let the background fade."""
        iteration, n = len(losses), len(self.fading)
        background, damping = self.fading[iteration] if iteration < n else (self.last, 1.0)
        rebuilds_index = iteration == n and not self.is_plain
        return Step(rebuilds_index, is_single=iteration >= n, background=background, damping=damping)

    def is_over(self, losses: list[float], displacement: float, uniform: float) -> bool:
        """Stop where displacement or loss have come to rest since the background is what it stays."""
        settled = losses[len(self.fading) :]
        return len(settled) > 0 and (displacement < self.tol or has_settled(settled, 0.0, self.tol, uniform))


class PairwiseDescent(Descent):
    """Vectors of all groups, moved one group after the other: rows and columns would alternate otherwise."""

    def __init__(self, problem: Problem, strategy: Strategy, following: Array, run: Runner, Y: Array):
        super().__init__(problem, strategy, run, Y)
        self.following, self.age = following, np.zeros(len(Y))

    def step(self, step: Step, iteration: int) -> None:
        """Move all rows once."""
        pairs, beta, loss, moved = self.problem.affinity.pieces, self.problem.beta, 0.0, 0.0
        assert pairs is not None  # explicit affinities
        for group, key_group in enumerate(self.problem.key_group):
            statistics = self.keys[key_group].statistics
            repulsion = gaussian_repulsion(statistics, beta, self.problem.kernel, step.background, self.current.dtype)

            def one(block: int, repulsion: Repulsion = repulsion) -> tuple[float, float]:
                rows = self.problem.affinity.bounds[block]
                before = RowBlock(self.current[rows], self.last[rows], self.age[rows])
                after, losses, moves = pairwise_block(
                    pairs[block], before, self.current, self.problem.kernel, beta, step, repulsion
                )
                self.following[rows], self.last[rows], self.age[rows] = after
                return float(losses.sum()), float(moves.sum())

            for block_loss, block_moved in self.run(one, np.flatnonzero(np.equal(self.problem.group, group))):
                loss += block_loss
                moved += block_moved
            self.current[self.problem.group_rows(group)] = self.following[self.problem.group_rows(group)]
            self.keys = self.keys_of(self.current)
        self.loss, self.displacement = loss / len(self.current), float(np.sqrt(moved / len(self.current)))

    def latest(self) -> Array:
        """Return the vectors without momentum."""
        return self.last


def random_starts(Y: Array, seed: int, n_starts: int) -> list[Array]:
    """Return further random unit vectors of the shape of `Y`."""
    generator = np.random.default_rng(seed)
    shape = (n_starts, *Y.shape)
    return [unit_rows(Z) for Z in generator.standard_normal(shape, np.float32).astype(Y.dtype)]


# The block function ----------------------------------------------------------------------------------
class Attraction(NamedTuple):
    """Attraction of a block of rows: loss of each, minus its gradient / beta, a bound of its curvature / beta."""

    loss: Array
    force: Array
    stiffness: Array


class Repulsion(NamedTuple):
    """log Z of a group with its gradient, and the logarithm of its largest curvature / beta where log Z = 0."""

    field: Field
    log_stiffness: float


class RowBlock(NamedTuple):
    """A block of rows: where they are, their last proposals, and their steps since the last restart."""

    at: Array
    last: Array
    age: Array


def pairwise_block(
    piece: Any, rows: RowBlock, keys: Array, kernel: Kernel, beta: float, step: Step, repulsion: Repulsion
) -> tuple[RowBlock, Array, Array]:
    """Take one step with a block of rows; return them with the loss of each and its squared displacement.

    `piece` holds their affinities to `keys`. Momentum restarts for each row by itself.
    """
    pairs = attraction_of_pairs(piece, rows.at, keys, beta, pair_terms(kernel), step.background)
    log_z, mean = repulsion.field(rows.at, slice(None))
    stiffness = step.damping * (pairs.stiffness + np.exp(repulsion.log_stiffness - log_z))
    target = pairs.force - mean + stiffness[:, None].astype(rows.at.dtype) * rows.at
    proposal = unit_rows(target.astype(rows.at.dtype, copy=False))
    moved = proposal - rows.at
    age = np.where(row_dots(moved, proposal - rows.last) < 0, 0, rows.age + 1)
    new = unit_rows(proposal + momentum(age)[:, None].astype(rows.at.dtype) * (proposal - rows.last))
    return RowBlock(new, proposal, age), pairs.loss + log_z, row_dots(moved, moved)


def pair_terms(kernel: Kernel) -> PairTerms:
    """Return what embedding by pairs needs of a kernel that has it."""
    assert kernel.pairs is not None
    return kernel.pairs


def attraction_of_pairs(piece: Any, X: Array, Y: Array, beta: float, pairs: PairTerms, background: float) -> Attraction:
    """Return ``-sum_j P_ij log (f(s_ij) + background)`` of every row, and how it attracts."""
    rows, scores = pair_scores(piece, X, Y)
    log_f, slope, curvature = pairs.terms(beta * scores, background)
    loss, stiffness = (
        group_sums(rows, piece.data * part, len(X)) for part in (-log_f, beta * np.maximum(-curvature, 0))
    )
    slope = slope.astype(Y.dtype, copy=False)  # or the product would make a copy of all of Y
    return Attraction(loss, _scaled(piece, slope) @ Y, stiffness)


def gaussian_repulsion(
    statistics: KeyStatistics, beta: float, kernel: Kernel, background: float, dtype: Any
) -> Repulsion:
    """Return the repulsion from the keys of one group."""
    center = pool(statistics)
    second_moment = largest_variance(center) + float(center.mean[0] @ center.mean[0])
    largest_curvature = pair_terms(kernel).largest_curvature
    return Repulsion(
        gaussian_field(statistics, beta, with_background(kernel, background), dtype),
        float(np.log(largest_curvature * beta * center.weight[0] * second_moment)),
    )


def pair_scores(piece: Any, X: Array, Y: Array) -> tuple[Integers, Array]:
    """Return the rows and the products x_i . y_j of the non-zeros of a CSR block, computed a part at a time."""
    rows = np.repeat(np.arange(piece.shape[0]), np.diff(piece.indptr))
    scores = np.empty(len(rows), X.dtype)
    size = max(PAIR_ELEMENTS // X.shape[1], 1)
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        np.einsum("ij,ij->i", X[rows[part]], Y[piece.indices[part]], out=scores[part])
    return rows, scores


def _scaled(piece: Any, factors: Array) -> Any:
    """Multiply the non-zeros of a CSR block one by one."""
    return sp.csr_array((piece.data * factors, piece.indices, piece.indptr), piece.shape)


# Out of sample ---------------------------------------------------------------------------------------
def embed_rows(
    piece: Any,
    Y: Array,
    statistics: KeyStatistics,
    kernel: Kernel,
    beta: float,
    *,
    tol: float = 1e-7,
    max_iter: int = 300,
) -> Array:
    """Return unit vectors of rows with affinities `piece` to the keys `Y`, each row for itself."""
    at = _first_guess(piece, Y)
    rows, last = np.arange(len(at)), at.copy()
    state = RowBlock(at, last.copy(), np.zeros(len(at)))
    fading = np.geomspace(_FIRST, pair_terms(kernel).background, _ROW_STEPS)
    for iteration in range(max_iter):
        background = fading[min(iteration, _ROW_STEPS - 1)]
        if iteration < _ROW_STEPS:
            repulsion = gaussian_repulsion(statistics, beta, kernel, background, np.float64)
        state, _, moved = pairwise_block(piece, state, Y, kernel, beta, Step(background=background), repulsion)
        last[rows] = state.last
        going = moved > tol**2
        if iteration >= _ROW_STEPS and not going.all():
            rows, piece, state = rows[going], piece[going], RowBlock(*(part[going] for part in state))
            if len(rows) == 0:
                break
    return last


def _first_guess(piece: Any, Y: Array) -> Array:
    """Return where the neighbors point if each is turned to the side of the nearest one, which settles the sign."""
    if piece.nnz == 0:
        return np.zeros((piece.shape[0], Y.shape[1]))
    rows = np.repeat(np.arange(piece.shape[0]), np.diff(piece.indptr))
    order = np.lexsort((-piece.data, rows))  # of each row, the largest first
    nearest = Y[piece.indices[order[piece.indptr[:-1].clip(max=piece.nnz - 1)]]]
    scores = pair_scores(piece, nearest, Y)[1]
    guess = unit_rows(_scaled(piece, np.where(scores < 0, -1, 1)) @ Y)
    guess[~guess.any(axis=1), 0] = 1  # rows that lead to keys of zero only
    return guess
