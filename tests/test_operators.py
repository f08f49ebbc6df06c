"""Affinities: rows sum to one, dense = sparse = operator, walks, untouched inputs."""

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse.linalg import aslinearoperator

from sklearn_attnembed._core import operators

RNG = np.random.default_rng(0)
A = RNG.random((30, 30)) * (RNG.random((30, 30)) < 0.3)
A[4] = 0
P = np.divide(A, A.sum(axis=1, keepdims=True), out=np.zeros_like(A), where=A.sum(axis=1, keepdims=True) > 0)
Y = RNG.standard_normal((30, 4))
FORMS = {
    "dense": lambda A: A,
    "csr": sp.csr_array,
    "csc": sp.csc_matrix,
    "coo": sp.coo_array,
    "operator": aslinearoperator,
}


def as_operator(A, step=7):
    P, isolated = operators.row_stochastic(A, np.float64)
    bounds = [slice(i, min(i + step, 30)) for i in range(0, 30, step)]
    return operators.blocked(P, bounds), isolated


@pytest.mark.parametrize("form", FORMS)
def test_rows_sum_to_one_in_every_form(form):
    affinity, isolated = as_operator(FORMS[form](A))
    product = operators.products(affinity, Y)
    assert_allclose(np.vstack([product(b) for b in range(len(affinity.bounds))]), P @ Y, atol=1e-12)
    assert_array_equal(isolated, np.arange(30) == 4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("length", [1, 2, 3, 6])
@pytest.mark.parametrize("stride", [1, 2])
def test_walk_average_is_the_mean_of_powers(form, length, stride):
    affinity, _ = as_operator(FORMS[form](A))
    powers = [np.linalg.matrix_power(P, stride * k) for k in range(length)]
    before = Y.copy()
    with operators.block_runner(2) as run:
        targets = operators.walk_targets(affinity, Y, length, stride, run)
    assert_allclose(targets, np.mean(powers, axis=0) @ Y, atol=1e-12)
    assert_array_equal(Y, before)


def test_duplicates_zeros_and_order_do_not_matter():
    messy = sp.coo_array((np.array([2.0, 0.0, 3.0, 1.0]), ([0, 1, 1, 0], [2, 0, 2, 2])), shape=(3, 3))
    P, isolated = operators.row_stochastic(messy, np.float64)
    assert_allclose(P.toarray(), [[0, 0, 1], [0, 0, 1], [0, 0, 0]])
    assert_array_equal(isolated, [False, False, True])
    assert messy.nnz == 4


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
@pytest.mark.parametrize("form", ["dense", "csr"])
def test_scale_of_rows_does_not_matter(form, scale):
    """Not even where sums of rows would overflow or vanish."""
    scaled = FORMS[form](A * (np.where(np.arange(30) % 2, scale, 1)[:, None]) * (1e8 if scale > 1 else 1))
    result = operators.row_stochastic(scaled, np.float64)[0]
    assert_allclose(result.toarray() if sp.issparse(result) else result, P, rtol=1e-9)


def test_pieces_share_memory():
    affinity, _ = as_operator(sp.csr_array(A))
    assert all(np.shares_memory(piece.data, affinity.operator.data) for piece in affinity.pieces)


def test_blocks_do_not_straddle_groups():
    bounds = operators.row_blocks([1000, 3, 5000], 128)
    assert_array_equal(np.concatenate([np.arange(b.start, b.stop) for b in bounds]), np.arange(6003))
    assert {1000, 1003} <= {b.stop for b in bounds}
