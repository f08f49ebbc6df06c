"""The exact loss of a sample of rows: by hand, its standard error, the early stop, and what estimators say of it."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse.linalg import aslinearoperator
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning

from sklearn_attnembed import AttentionEmbedding
from sklearn_attnembed._core.affinity_matrix import blocked
from sklearn_attnembed._core.exact_loss import LossCheck, row_losses, rows_per_iteration, sample_rows, sampled_loss
from sklearn_attnembed._core.kernels import EXPRESSIVE, SOFTMAX
from sklearn_attnembed._core.problem import Problem
from sklearn_attnembed.datasets import make_block_model

N, D, BETA = 50, 5, 2.5


def problem_of(sizes=(N,), kernel=SOFTMAX, weighted=False):
    rng = np.random.default_rng(0)
    P = rng.random((N, N)) * (rng.random((N, N)) < 0.3) + 1e-3
    if len(sizes) > 1:
        P[: sizes[0], : sizes[0]] = P[sizes[0] :, sizes[0] :] = 0
    P = sp.csr_array(P / P.sum(axis=1, keepdims=True))
    bounds = [slice(0, sizes[0]), slice(sizes[0], N)][: len(sizes)]
    null = np.concatenate([np.full(size, 1 / size) for size in sizes])
    key_group = [1, 0] if len(sizes) > 1 else [0]
    weight = rng.random(N) + 0.1 if weighted else None
    affinity = blocked(P, bounds)
    return Problem(affinity, None, list(range(len(sizes))), key_group, list(sizes), null, weight, kernel, BETA, 1)


def vectors():
    Y = np.random.default_rng(1).standard_normal((N, D))
    return Y / np.linalg.norm(Y, axis=1, keepdims=True)


# Losses of rows ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_of_one_group(weighted):
    problem, Y = problem_of(weighted=weighted), vectors()
    targets, rows = Y[::-1], np.array([3, 17, 20, 49])
    weight = np.ones(N) if problem.weight is None else problem.weight
    attraction = BETA * np.sum(Y * (problem.affinity.operator @ targets), axis=1)
    expected = logsumexp(BETA * Y @ Y.T, axis=1, b=weight) - attraction + BETA * Y @ Y.mean(axis=0)
    assert_allclose(row_losses(problem, Y, targets, rows, map), expected[rows], rtol=1e-12)


def test_rows_of_two_groups():
    problem, Y = problem_of((30, 20)), vectors()
    rows = np.array([0, 12, 29, 30, 45])
    P = problem.affinity.operator.toarray()
    for row, loss in zip(rows, row_losses(problem, Y, Y, rows, map), strict=True):
        own, keys = (Y[:30], Y[30:]) if row < 30 else (Y[30:], Y[:30])
        attraction, repulsion = BETA * Y[row] @ (P[row] @ Y), BETA * Y[row] @ own.mean(axis=0)
        assert_allclose(loss, logsumexp(BETA * keys @ Y[row]) - attraction + repulsion, rtol=1e-12)


def test_rows_by_the_expressive_kernel():
    problem, Y = problem_of(kernel=EXPRESSIVE), vectors()
    scores = BETA * Y @ Y.T
    f = scores**2 / (1 + scores**2) + 0.01
    expected = np.log(f.sum(axis=1)) - np.sum(problem.affinity.operator.toarray() * np.log(f), axis=1)
    assert_allclose(row_losses(problem, Y, Y, np.arange(N), map), expected, rtol=1e-10)


# Samples -----------------------------------------------------------------------------------------------
def test_a_sample_is_drawn_without_replacement():
    rows = sample_rows(10_000, 300.7, 0)
    assert len(np.unique(rows)) == 300
    assert np.all(np.diff(rows) > 0)
    assert_array_equal(rows, sample_rows(10_000, 300.7, 0))
    assert not np.array_equal(rows, sample_rows(10_000, 300.7, 1))
    assert_array_equal(sample_rows(40, 1e9, 0), np.arange(40))
    assert len(sample_rows(10**7, 0.1, 0)) == 2


def test_standard_error_of_a_sample():
    losses = np.random.default_rng(0).normal(3, 0.5, 5000)
    samples = [sampled_loss(losses[sample_rows(5000, 400, seed)], 5000) for seed in range(300)]
    off = np.array([(sample.mean - losses.mean()) / sample.error for sample in samples])
    assert 0.85 < off.std() < 1.15
    assert sampled_loss(losses, 5000)[1:] == (0, 5000)
    assert sampled_loss(losses[:1], 5000)[1:] == (0, 1)


def test_rows_that_an_iteration_is_worth_grow_with_walks_and_both_sides():
    problem = problem_of()
    plain = rows_per_iteration(problem, 64)
    assert rows_per_iteration(problem._replace(walk_length=3), 64) > 1.5 * plain
    assert rows_per_iteration(problem._replace(backward=problem.affinity), 64) > 1.2 * plain


# The early stop ------------------------------------------------------------------------------------------
def checked(curve, uniform=5.0, **options):
    """The iteration after which a check stops, given the mean exact loss at every iteration."""
    check, noise = LossCheck(problem_of(), D, 0, **{"stops_early": True, **options}), np.linspace(-0.1, 0.1, N)
    for iteration, mean in enumerate(curve):
        if check.has_risen(lambda rows, mean=mean: mean + noise[rows], iteration, uniform):
            return iteration
    return None


def test_a_clear_rise_stops():
    falling = np.linspace(4, 3, 10)
    rising = np.concatenate([falling, np.linspace(3, 4, 20)])
    assert checked(falling) is None
    assert checked(rising) == 14
    assert checked(np.concatenate([falling, np.full(20, 3.19)])) is None  # less than a tenth of the gain of two
    assert checked(np.concatenate([falling, np.full(20, 3.21)])) == 14
    assert checked(np.concatenate([falling, np.full(20, 3.05)]), uniform=2.0) == 14  # there is no gain to speak of
    assert checked(rising, stops_early=False) is None


def test_a_rise_within_the_noise_does_not_stop():
    check, rng = LossCheck(problem_of(), D, 0, stops_early=True), np.random.default_rng(0)
    noise = [rng.normal(0, 3, N) for _ in range(2)]
    noise[1] += 0.3 - noise[1].mean() + noise[0].mean()
    assert not check.has_risen(lambda rows: noise[0][rows] - noise[0][check.rows].mean(), 4, 0.0)
    assert not check.has_risen(lambda rows: noise[1][rows] - noise[1][check.rows].mean() + 0.3, 9, 0.0)


# Estimators ------------------------------------------------------------------------------------------------
def graph(n=300, mean_degree=20, n_communities=6):
    return sp.csr_array(
        make_block_model(n, n_communities, mean_degree=mean_degree, random_state=0)[0] + sp.eye_array(n)
    )


@pytest.mark.parametrize("params", [{}, {"walk_length": 3}, {"objective": "joint"}, {"normalizer": "exact"}], ids=str)
def test_it_is_the_exact_loss_where_the_last_loss_was_computed(params):
    """With one iteration this is at the start, whatever the normalizer; with the exact one it is the loss itself."""
    A = graph(60, 8)
    options = {"affinity": "precomputed", "temperature": 0.5, "random_state": 0, "max_iter": 7, "tol": 0, **params}
    model = AttentionEmbedding(8, **options).fit(A)
    exact = AttentionEmbedding(8, **{**options, "normalizer": "exact"}).fit(A)
    assert exact.exact_loss_std_ < 0.2
    assert abs(exact.exact_loss_ - exact.loss_curve_[-1]) < 4 * exact.exact_loss_std_ + 1e-9
    assert abs(model.exact_loss_ - model.loss_curve_[-1]) < 0.1 + 4 * model.exact_loss_std_


def test_all_rows_of_few_have_no_error():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AttentionEmbedding(4, affinity="precomputed", normalizer="exact", tol=0, max_iter=40, random_state=0)
        model.fit(graph(20, 5, 2))
    assert model.exact_loss_std_ == 0
    assert_allclose(model.exact_loss_, model.loss_curve_[-1], rtol=1e-9)


def test_it_can_be_switched_off_and_operators_have_none():
    A = graph()
    model = AttentionEmbedding(8, affinity="precomputed", random_state=0).fit(A)
    off = AttentionEmbedding(8, affinity="precomputed", check_loss=False, random_state=0).fit(A)
    assert not hasattr(off, "exact_loss_")
    assert_array_equal(off.embedding_, model.embedding_)
    assert not hasattr(AttentionEmbedding(8, affinity="precomputed").fit(aslinearoperator(A)), "exact_loss_")


def test_losses_that_are_not_true_are_told():
    """At this temperature one Gaussian is far from the truth; the exact loss is worse than that of no attention."""
    A = graph(600, 40, 3)
    model = AttentionEmbedding(16, affinity="precomputed", temperature=0.06, random_state=0)
    with pytest.warns(
        ConvergenceWarning, match=r"ended at a loss of .*, but the exact loss of a sample of \d+ rows is"
    ):
        model.fit(A)
    assert not model.converged_
    assert model.exact_loss_ > max(np.log(600), model.loss_curve_[-1] + 0.1)


def test_a_rise_of_the_exact_loss_ends_the_fit():
    A = graph(600, 40, 3)
    options = {"affinity": "precomputed", "temperature": 0.06, "tol": 1e-6, "random_state": 0}
    model = AttentionEmbedding(16, **options)
    with pytest.warns(ConvergenceWarning, match=r"It stopped after \d+ iterations, because the exact loss rose"):
        model.fit(A)
    assert model.n_iter_ % 5 == 0
    assert model.n_iter_ < 100
    accurate = AttentionEmbedding(16, normalizer="neighbors", max_iter=30, **{**options, "tol": 1e-2}).fit(A)
    assert accurate.exact_loss_ < model.exact_loss_
