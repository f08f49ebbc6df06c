"""The joint objective: fixed points where the loss is stationary, by every normalizer, and as low as L-BFGS finds."""

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from scipy.special import logsumexp

from sklearn_attnembed import AttentionEmbedding
from sklearn_attnembed._core.affinity_matrix import blocked
from sklearn_attnembed._core.joint_objective import JointDescent
from sklearn_attnembed._core.kernels import SOFTMAX
from sklearn_attnembed._core.normalizers import EXACT, GAUSSIAN
from sklearn_attnembed._core.problem import Problem, Strategy
from sklearn_attnembed._core.signature import signs
from sklearn_attnembed._core.solver import Step
from sklearn_attnembed.datasets import make_block_model

N, D, BETA = 60, 4, 3.0


def unit(X):
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def stochastic(A):
    return A / A.sum(axis=1, keepdims=True)


def problem_of(rng, sizes, walk_length=1, weighted=False, n_negative=0):
    """A directed, weighted graph, or a table whose two directions are unlike."""
    n, first = sum(sizes), sizes[0]
    P = rng.random((n, n)) * (rng.random((n, n)) < 0.2) + 1e-3
    if len(sizes) > 1:
        P[:first, :first] = P[first:, first:] = 0
    P = sp.csr_array(stochastic(P))
    bounds = [slice(0, first // 2), slice(first // 2, first)] + ([slice(first, n)] if len(sizes) > 1 else [])
    group, key_group = [int(rows.start >= first) for rows in bounds], [1, 0] if len(sizes) > 1 else [0]
    null, weight = np.ones(n), None
    if weighted:
        null, weight = rng.random(n) + 0.1, rng.random(n) + 0.2
    for side in np.split(np.arange(n), [first]) if len(sizes) > 1 else [np.arange(n)]:
        null[side] /= null[side].sum()
    affinity, backward = blocked(P, bounds), blocked(sp.csr_array(P.T), bounds)
    signature = signs(D, n_negative)
    return Problem(
        affinity, None, group, key_group, sizes, null, weight, SOFTMAX, BETA, walk_length, backward, signature
    )


def loss_of(problem, Y, labels=None, is_exact=False):
    """The loss of a row, written out: attraction, null model, and log Z of a mixture of Gaussians or of all keys."""
    P, L, stride = problem.affinity.operator.toarray(), problem.walk_length, len(problem.sizes)
    powers = sum(np.linalg.matrix_power(P, 1 + stride * step) for step in range(L)) / L
    signed = Y if problem.signature is None else Y * problem.signature
    total = -BETA * np.sum(signed * (powers @ Y))
    weight = np.ones(len(Y)) if problem.weight is None else problem.weight
    for group in range(len(problem.sizes)):
        own, keys = problem.group_rows(group), problem.key_rows(group)
        X, K, w = Y[own], Y[keys], weight[keys]
        total += BETA * np.sum(X @ (problem.null[own] @ X))
        X = signed[own]
        if is_exact:
            total += logsumexp(BETA * X @ K.T, axis=1, b=w).sum()
            continue
        of_keys, masses = np.zeros(len(K), int) if labels is None else labels[keys], []
        for a in np.unique(of_keys):
            y, v = K[of_keys == a], w[of_keys == a]
            mean = v @ y / v.sum()
            covariance = (v[:, None] * (y - mean)).T @ (y - mean) / v.sum()
            masses.append(np.log(v.sum()) + BETA * X @ mean + BETA**2 / 2 * np.sum((X @ covariance) * X, axis=1))
        total += logsumexp(masses, axis=0).sum()
    return total / len(Y)


def slopes(problem, Y, **kind):
    """Derivatives of the loss along random tangent directions, by finite differences."""
    rng, out = np.random.default_rng(9), []
    for _ in range(8):
        V = rng.standard_normal(Y.shape)
        V -= np.sum(V * Y, axis=1, keepdims=True) * Y
        V *= np.sqrt(len(Y)) / np.linalg.norm(V)
        ahead, behind = (loss_of(problem, unit(Y + h * V), **kind) for h in (1e-4, -1e-4))
        out.append((ahead - behind) / 2e-4)
    return np.abs(out)


CASES = {
    "one Gaussian": ([N], GAUSSIAN, 1, {}),
    "walks": ([N], GAUSSIAN, 1, {"walk_length": 3}),
    "weights": ([N], GAUSSIAN, 1, {"weighted": True}),
    "clusters": ([N], GAUSSIAN, 3, {}),
    "clusters and weights": ([N], GAUSSIAN, 3, {"weighted": True}),
    "exact": ([N], EXACT, 1, {}),
    "exact, weights": ([N], EXACT, 1, {"weighted": True}),
    "signature": ([N], GAUSSIAN, 1, {"n_negative": 2}),
    "signature, walks and weights": ([N], GAUSSIAN, 1, {"n_negative": 1, "walk_length": 3, "weighted": True}),
    "signature, clusters": ([N], GAUSSIAN, 3, {"n_negative": 2}),
    "signature, exact": ([N], EXACT, 1, {"n_negative": 2, "weighted": True}),
    "table": ([36, 24], GAUSSIAN, 1, {"walk_length": 2}),
    "table, weights": ([36, 24], GAUSSIAN, 1, {"weighted": True}),
    "table, clusters": ([36, 24], GAUSSIAN, 2, {}),
    "table, exact": ([36, 24], EXACT, 1, {"weighted": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_it_comes_to_rest_where_the_loss_is_stationary(case):
    sizes, normalizer, n_clusters, options = CASES[case]
    rng = np.random.default_rng(0)
    problem = problem_of(rng, sizes, **options)

    def halves(Y):
        return np.arange(len(Y)) * n_clusters // len(Y)

    strategy = Strategy(normalizer, n_clusters, 1, halves, None, 0)
    start = unit(rng.standard_normal((sum(sizes), D)))
    descent = JointDescent(problem, strategy, False, map, start.copy())
    if not strategy.is_plain:
        descent.rebuild_index(0)
    losses = []
    for iteration in range(600 if len(sizes) > 1 or problem.signature is not None else 300):
        descent.step(Step(), iteration)
        losses.append(descent.loss)
    labels = None if descent.key_index is None else descent.key_index.labels
    kind = {"labels": labels, "is_exact": normalizer is EXACT}
    Y = descent.latest()
    assert_allclose(losses[-1], loss_of(problem, Y, **kind), rtol=1e-6)
    assert slopes(problem, Y, **kind).max() < 1e-3 * slopes(problem, start, **kind).max()
    assert losses[-1] < losses[0]


def test_queries_alone_do_not_make_the_loss_stationary():
    A = graph(100)
    options = {"affinity": "precomputed", "temperature": 1 / BETA, "tol": 1e-9, "max_iter": 1000, "random_state": 0}
    problem = problem_of(np.random.default_rng(0), [100])
    P = sp.csr_array(A / A.sum(axis=1)[:, None])
    problem = problem._replace(affinity=blocked(P, [slice(0, 100)]), null=np.full(100, 0.01))
    queries, joint = (
        AttentionEmbedding(D, objective=objective, **options).fit(A).key_embedding_
        for objective in ("queries", "joint")
    )
    assert slopes(problem, joint).max() < 1e-4
    assert slopes(problem, queries).max() > 1e-2
    assert loss_of(problem, joint) < loss_of(problem, queries)


# Against L-BFGS --------------------------------------------------------------------------------------
def exact_loss(P, Y, beta):
    mean = Y.mean(axis=0)
    return float(np.mean(logsumexp(beta * Y @ Y.T, axis=1) - beta * np.sum(Y * (P @ Y), axis=1)) + beta * mean @ mean)


def by_lbfgs(P, beta, start):
    """The optimum that L-BFGS finds, over vectors of any length that are divided by it."""
    n = len(start)

    def objective(flat):
        V = flat.reshape(start.shape)
        norm = np.linalg.norm(V, axis=1, keepdims=True)
        Y = V / norm
        scores = beta * Y @ Y.T
        attention = np.exp(scores - logsumexp(scores, axis=1, keepdims=True)) - P
        gradient = beta / n * (attention @ Y + attention.T @ Y + 2 * Y.mean(axis=0))
        gradient -= np.sum(gradient * Y, axis=1, keepdims=True) * Y
        return exact_loss(P, Y, beta), (gradient / norm).ravel()

    return minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 200, "ftol": 1e-10}).fun


@pytest.mark.parametrize("temperature", [1.0, 0.3, 0.15])
def test_exact_is_the_optimum_and_neighbors_near_it(temperature):
    A = make_block_model(320, 8, mean_degree=20, random_state=0)[0].toarray()
    P, beta = stochastic(A + np.eye(len(A))), 1 / temperature
    best = by_lbfgs(P, beta, np.random.default_rng(1).standard_normal((len(P), 8)))
    options = {"affinity": "precomputed", "temperature": temperature, "tol": 1e-4, "max_iter": 300, "random_state": 0}
    for normalizer, slack in (("exact", 0.002), ("neighbors", 0.005)):
        model = AttentionEmbedding(8, objective="joint", normalizer=normalizer, n_exact=40, **options).fit(P)
        assert exact_loss(P, model.key_embedding_, beta) < best * (1 + slack), normalizer


# What it takes -----------------------------------------------------------------------------------------
def graph(n=200):
    return sp.csr_array(make_block_model(n, 4, mean_degree=15, random_state=0)[0] + sp.eye_array(n))


@pytest.mark.parametrize("walk_length", [1, 3])
def test_any_form_of_the_affinities(walk_length):
    A = graph().toarray()
    A[7] = A[:, 7] = 0
    options = {"affinity": "precomputed", "walk_length": walk_length, "objective": "joint", "random_state": 0}
    with pytest.warns(UserWarning, match="1 of 200 rows have no affinity"):
        models = [AttentionEmbedding(8, **options).fit(form(A)) for form in (np.array, sp.csr_array, aslinearoperator)]
    with pytest.warns(UserWarning, match="1 of 200 rows have no affinity"):
        assert_array_equal(models[0].transform(A), models[0].embedding_)
    for model in models[1:]:
        assert_allclose(model.embedding_, models[0].embedding_, atol=1e-8)
    assert not models[0].embedding_[7].any()


def test_an_operator_needs_its_transpose():
    A = graph().toarray()
    operator = LinearOperator(A.shape, matvec=lambda x: A @ x, dtype=float)
    with pytest.raises(ValueError, match=r"objective='joint' needs products with the transposed .* no rmatvec"):
        AttentionEmbedding(8, affinity="precomputed", objective="joint").fit(operator)


@pytest.mark.parametrize(
    "params", [{}, {"n_clusters": 3}, {"normalizer": "neighbors", "n_exact": 20}, {"solver": "gradient"}]
)
def test_same_bits_for_any_number_of_threads_and_single_precision_stays(params):
    A = graph(600).astype(np.float32)
    model = AttentionEmbedding(
        8, affinity="precomputed", objective="joint", random_state=0, max_iter=20, tol=0, **params
    )
    one, two = (model.set_params(n_jobs=n_jobs).fit(A).key_embedding_.copy() for n_jobs in (1, 2))
    assert_array_equal(one, two)
    assert one.dtype == np.float32
