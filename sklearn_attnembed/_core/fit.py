"""Fit the vectors of a problem: choose objective, schedule and starts for its kernel, and run the solver."""

from collections.abc import Callable
from functools import partial

import numpy as np

from .affinity_matrix import products
from .exact_loss import LossCheck
from .joint_objective import JointDescent
from .normalizers.neighbors import NearKeys
from .normalizers.sampled import N_SAMPLED, few_keys
from .out_of_sample import Model, fingerprint
from .pairwise_objective import PairwiseDescent, PairwiseSchedule, random_starts
from .parallel import Runner
from .problem import Problem, Strategy, build_cells_of_all
from .softmax_objective import SoftmaxDescent, SoftmaxSchedule
from .solver import Report, Solution, minimize
from .types import Array


def fit_vectors(
    problem: Problem,
    Y: Array,
    strategy: Strategy,
    *,
    is_gradient: bool,
    is_warm: bool,
    max_iter: int,
    tol: float,
    n_init: int,
    checks_loss: bool,
    run: Runner,
    begin: Callable[[], None],
    report: Report,
) -> Solution:
    """Minimize the surrogate loss of a problem from unit rows `Y`, which are overwritten.

    Parameters
    ----------
    problem : Problem
    Y : ndarray of shape (n, d)
        Random rows, or those of a former fit.
    strategy : Strategy
        How log Z is estimated.
    is_gradient : bool
        Whether to take normalized gradient steps in place of the damped fixed point.
    is_warm : bool
        Whether `Y` comes from a former fit.
    max_iter, tol, n_init
        Parameters of the estimator.
    checks_loss : bool
        Whether to compute the exact loss of a sample of rows, and to stop where it rises.
    run : callable
        Runs blocks on threads.
    begin, report : callable
        Arguments of `minimize`.

    Returns
    -------
    solution : Solution
    """
    pairs, check = problem.kernel.pairs, None
    if checks_loss and problem.affinity.pieces is not None:  # a LinearOperator has no rows
        stops_early = pairs is None and not is_gradient and tol > 0 and not strategy.normalizer.is_exact
        check = LossCheck(problem, Y.shape[1], strategy.seed, stops_early=stops_early)
    solve = partial(minimize, max_iter=max_iter, begin=begin, report=report, check=check)
    if pairs is None:
        plain = SoftmaxSchedule(strategy, max_iter, tol, is_gradient=is_gradient, is_warm=is_warm)
        descent = SoftmaxDescent if problem.backward is None else JointDescent
        return solve(partial(descent, problem, strategy, is_warm, run), plain, [Y])
    fading = PairwiseSchedule(strategy, max_iter, tol, pairs.background, is_warm=is_warm)
    starts = [Y, *(random_starts(Y, strategy.seed, n_init - 1) if fading.has_search else [])]
    return solve(partial(PairwiseDescent, problem, strategy, np.empty_like(Y), run), fading, starts)


def fitted_model(
    problem: Problem, solution: Solution, strategy: Strategy, targets: Array, group: int, run: Runner
) -> Model:
    """Return all that embedding new rows of a group needs."""
    key_group, rows = problem.key_group[group], problem.key_rows(group)
    model = Model(
        np.ascontiguousarray(targets[rows]),
        solution.keys[key_group].statistics,
        solution.keys[group].null_mean,
        problem.beta,
        signature=problem.signature,
    )
    if not strategy.normalizer.sums_keys or solution.key_index is None:
        return model
    keys, weights = solution.vectors[rows].astype(np.float64), problem.key_weights(group)
    if not strategy.normalizer.keeps_keys and len(keys) > N_SAMPLED:
        keys, weights = few_keys(keys, weights, (strategy.seed,))
        return model._replace(keys=keys, weights=weights)
    model = model._replace(keys=keys, weights=weights)
    if problem.queries is not None:
        product = products(problem.queries, targets)
        parts = run(lambda block: fingerprint(product(block)), range(len(problem.group)))
        model = model._replace(fingerprints=np.concatenate(list(parts)))
    near = solution.key_index.near[group]
    if near is None:
        return model
    cells = build_cells_of_all(keys, strategy, 0, run)
    unsearched = NearKeys(np.zeros((0, strategy.n_exact), np.int32), near.sample, near.labels)
    return model._replace(n_exact=strategy.n_exact, cells=cells, near=unsearched)
