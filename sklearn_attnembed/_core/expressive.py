"""Embeddings by expressive attention: explicit affinities, scores whose sign is free, a background that fades.

The attraction of a pair is the slope of log f, which has a pole where the score is zero: vectors could never get from
one side to the other. A background, f + b, takes the pole away. While b is large the objective is nearly quadratic in
the products x x', and long steps find the optimum; it is then followed down to a small b.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from .kernels import EXPRESSIVE, Kernel, expressive_terms, with_background
from .normalizers.mixture import gaussian_field
from .out_of_sample import Model
from .parallel import Runner
from .problem import KeyIndex, Problem, Strategy, build_key_index
from .solver import BlockKeys, Report, Solution, all_keys, block_keys, has_settled, momentum, uniform_loss
from .sphere import unit_rows
from .statistics import KeyStatistics, group_sums, largest_variance, pool
from .types import Array, Field, Integers

# Background at first, when the optimum is found, and at last; f itself is below 1.
_FIRST, _FOUND, LAST_BACKGROUND = 1.0, 0.2, 0.01


# Share of the iterations that it fades for, and share of these until the optimum is found.
_FADE, _SEARCH = 0.8, 0.85


# Damping, of what would be safe, while the optimum is searched: with more, nothing is found in this time.
_BOLD = 0.25


# Elements of gathered vectors: 4 MB in float64.
_PAIR_ELEMENTS = 2**19


MODEL = with_background(EXPRESSIVE, LAST_BACKGROUND)


# log f at its lowest, which is at a score of zero, there, and at its highest.
LOG_F = (float(np.log(LAST_BACKGROUND)), float(np.log(LAST_BACKGROUND)), float(np.log(1 + LAST_BACKGROUND)))


def weight(scores: Array) -> Array:
    """f and its background."""
    return np.exp(MODEL.log_value(scores))


def schedule(n_iter: int) -> list[tuple[float, float]]:
    """Background and damping, of what would be safe, of each iteration that the background fades in."""
    n_search = int(_SEARCH * n_iter)
    search = [(background, _BOLD) for background in np.geomspace(_FIRST, _FOUND, n_search)]
    return search + [(background, 1.0) for background in np.geomspace(_FOUND, LAST_BACKGROUND, n_iter - n_search)]


def pair_scores(piece: Any, X: Array, Y: Array) -> tuple[Integers, Array]:
    """Rows and products x_i . y_j of the non-zeros of a CSR block, a part at a time."""
    rows = np.repeat(np.arange(piece.shape[0]), np.diff(piece.indptr))
    scores = np.empty(len(rows), X.dtype)
    step = max(_PAIR_ELEMENTS // X.shape[1], 1)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        np.einsum("ij,ij->i", X[rows[part]], Y[piece.indices[part]], out=scores[part])
    return rows, scores


def _times(piece: Any, factors: Array) -> Any:
    """A CSR block with its non-zeros multiplied one by one."""
    return sp.csr_array((piece.data * factors, piece.indices, piece.indptr), piece.shape)


class Attraction(NamedTuple):
    """Attraction of a block of rows: its loss, minus its gradient / beta, and a bound of its curvature / beta."""

    loss: Array
    force: Array
    stiffness: Array


def attraction_of_pairs(piece: Any, X: Array, Y: Array, beta: float, background: float = LAST_BACKGROUND) -> Attraction:
    """-sum_j P_ij log (f(s_ij) + background) of every row, and what it does."""
    rows, scores = pair_scores(piece, X, Y)
    log_f, slope, curvature = expressive_terms(beta * scores, background)
    loss, stiffness = (
        group_sums(rows, piece.data * part, len(X)) for part in (-log_f, beta * np.maximum(-curvature, 0))
    )
    slope = slope.astype(Y.dtype, copy=False)  # or the product would make a copy of all of Y
    return Attraction(loss, _times(piece, slope) @ Y, stiffness)


class Repulsion(NamedTuple):
    """What pushes: log Z with its gradient, and how stiff it is at most where log Z = 0."""

    field: Field
    log_stiffness: float


def crowd(statistics: KeyStatistics, beta: float, background: float, dtype: Any) -> Repulsion:
    """The keys of one group as a crowd; f'' is nowhere above 2."""
    kernel: Kernel = with_background(EXPRESSIVE, background)
    center = pool(statistics)
    second_moment = largest_variance(center) + float(center.mean[0] @ center.mean[0])
    return Repulsion(
        gaussian_field(statistics, beta, kernel, dtype), float(np.log(2 * beta * center.weight[0] * second_moment))
    )


def propose(X: Array, attraction: Attraction, others: Repulsion, damping: float) -> tuple[Array, Array]:
    """Loss of every row, and where the fixed point sends it, with so much of the damping that is safe."""
    log_z, push = others.field(X, slice(None))
    stiffness = damping * (attraction.stiffness + np.exp(others.log_stiffness - log_z))
    target = attraction.force - push + stiffness[:, None].astype(X.dtype) * X
    return attraction.loss + log_z, unit_rows(target.astype(X.dtype, copy=False))


def advance(at: Array, last: Array, age: Array, proposal: Array) -> tuple[Array, Array, Array]:
    """Go on from proposals with momentum of every row's own: new places, their ages, squared displacements."""
    moved = proposal - at
    age = np.where(np.einsum("ij,ij->i", moved, proposal - last) < 0, 0, age + 1)
    new = unit_rows(proposal + momentum(age)[:, None].astype(at.dtype) * (proposal - last))
    return new, age, np.einsum("ij,ij->i", moved, moved)


class Candidate:
    """Vectors on their way from one start, with the statistics of their keys."""

    def __init__(self, problem: Problem, Y: Array, run: Runner):
        self.problem, self.run = problem, run
        self.at, self.last, self.age, self.loss = Y, Y.copy(), np.zeros(len(Y)), np.inf
        self.cluster: BlockKeys = partial(block_keys, problem)
        self.keys = all_keys(problem, Y, self.cluster, run)

    def look(self, strategy: Strategy, iteration: int) -> KeyIndex:
        """Find clusters."""
        look = build_key_index(self.problem, self.at, strategy, None, iteration, self.run)
        self.cluster = partial(block_keys, self.problem, labels=look.labels, n_clusters=strategy.n_clusters)
        self.keys = all_keys(self.problem, self.at, self.cluster, self.run)
        return look

    def sweep(self, following: Array, background: float, damping: float) -> float:
        """One step of all rows; their mean loss before it is kept, the root mean square displacement returned."""
        problem, pieces, loss, moved = self.problem, self.problem.affinity.pieces, 0.0, 0.0
        assert pieces is not None  # explicit affinities
        for group, key_group in enumerate(problem.key_group):  # one after the other: rows and columns would alternate
            others = crowd(self.keys[key_group].statistics, problem.beta, background, self.at.dtype)

            def one(block: int) -> tuple[float, float]:
                rows = problem.affinity.bounds[block]
                X = self.at[rows]
                attraction = attraction_of_pairs(pieces[block], X, self.at, problem.beta, background)
                losses, proposal = propose(X, attraction, others, damping)  # noqa: B023, run right away
                following[rows], self.age[rows], moves = advance(X, self.last[rows], self.age[rows], proposal)
                self.last[rows] = proposal
                return float(losses.sum()), float(moves.sum())

            for block_loss, block_moved in self.run(one, np.flatnonzero(np.equal(problem.group, group))):
                loss += block_loss
                moved += block_moved
            self.at[problem.group_rows(group)] = following[problem.group_rows(group)]
            self.keys = all_keys(problem, self.at, self.cluster, self.run)
        n = len(self.at)
        self.loss = loss / n
        return float(np.sqrt(moved / n))


def solve(
    problem: Problem,
    Y: Array,
    strategy: Strategy,
    *,
    max_iter: int,
    tol: float,
    warm: bool,
    n_init: int,
    run: Runner,
    begin: Callable[[], None],
    report: Report,
) -> Solution:
    """Minimise the surrogate loss from unit rows `Y`, which are overwritten; called as `solver.solve` is.

    `n_init` candidates go on side by side until the background has faded, and the one of the lowest loss is followed.
    Vectors from a former fit need no search.
    """
    fading = schedule(int(_FADE * max_iter))
    n_search = sum(damping < 1 for _, damping in fading)
    starts = [Y]
    if warm:
        fading = fading[n_search:]
    elif n_search:
        starts += _further_starts(Y, strategy.seed, n_init)
    candidates = [Candidate(problem, start, run) for start in starts]
    following, best = np.empty_like(Y), candidates[0]
    look: KeyIndex | None = None
    losses: list[float] = []
    displacement, converged = np.inf, False

    def so_far() -> Solution:
        return Solution(best.last.copy(), best.keys, look, losses, displacement, False)

    for iteration in range(max_iter):
        begin()
        if iteration == len(fading):
            candidates = [best]
            if not strategy.is_plain:
                look = best.look(strategy, iteration)
        background, damping = fading[iteration] if iteration < len(fading) else (LAST_BACKGROUND, 1.0)
        moves = [candidate.sweep(following, background, damping) for candidate in candidates]
        best = min(candidates, key=lambda candidate: candidate.loss)
        displacement = moves[candidates.index(best)]
        losses.append(best.loss)
        if report(iteration, losses[-1], displacement, so_far):
            break
        settled = has_settled(losses[len(fading) :], tol, uniform_loss(best.keys))
        converged = iteration >= len(fading) and (displacement < tol or settled)
        if converged:
            break
    keys = all_keys(problem, best.last, best.cluster, run)
    return Solution(best.last, keys, look, losses, displacement, converged)


def _further_starts(Y: Array, seed: int, n_init: int) -> list[Array]:
    """Other random vectors."""
    generator = np.random.default_rng(seed)
    shape = (n_init - 1, *Y.shape)
    return [unit_rows(Z) for Z in generator.standard_normal(shape, np.float32).astype(Y.dtype)]


def respond(piece: Any, model: Model, *, tol: float = 1e-7, max_iter: int = 300) -> Array:
    """Unit vectors of rows with affinities `piece`, given the keys alone: each row for itself, as in `solve`."""
    Y = model.targets.astype(np.float64, copy=False)
    X = _first_guess(piece, Y)
    last, age = X.copy(), np.zeros(len(X))
    fading = np.geomspace(_FIRST, LAST_BACKGROUND, 15)
    rows = np.arange(len(X))
    for iteration in range(max_iter):
        background = fading[iteration] if iteration < len(fading) else LAST_BACKGROUND
        if iteration <= len(fading):
            others = crowd(model.statistics, model.beta, background, np.float64)
        proposal = propose(X[rows], attraction_of_pairs(piece, X[rows], Y, model.beta, background), others, 1.0)[1]
        X[rows], age[rows], moved = advance(X[rows], last[rows], age[rows], proposal)
        last[rows] = proposal
        going = moved > tol**2
        if iteration >= len(fading) and not going.all():
            rows, piece = rows[going], piece[going]
            if len(rows) == 0:
                break
    return last


def _first_guess(piece: Any, Y: Array) -> Array:
    """Where the neighbours point if each is turned to the side of the nearest one; it settles the sign."""
    if piece.nnz == 0:
        return np.zeros((piece.shape[0], Y.shape[1]))
    rows = np.repeat(np.arange(piece.shape[0]), np.diff(piece.indptr))
    order = np.lexsort((-piece.data, rows))  # of each row, the largest first
    nearest = Y[piece.indices[order[piece.indptr[:-1].clip(max=piece.nnz - 1)]]]
    scores = pair_scores(piece, nearest, Y)[1]
    guess = unit_rows(_times(piece, np.where(scores < 0, -1, 1)) @ Y)
    guess[~guess.any(axis=1), 0] = 1  # rows that lead to keys of zero only
    return guess
