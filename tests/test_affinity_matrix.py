"""Affinities: rows sum to one, dense = sparse = operator, walks, untouched inputs."""

import re

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse.linalg import aslinearoperator

from sklearn_attnembed._core import affinity_matrix, parallel
from sklearn_attnembed._sparse import canonical

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
    P, isolated = affinity_matrix.row_stochastic(A, np.float64)
    bounds = [slice(i, min(i + step, 30)) for i in range(0, 30, step)]
    return affinity_matrix.blocked(P, bounds), isolated


@pytest.mark.parametrize("form", FORMS)
def test_rows_sum_to_one_in_every_form(form):
    affinity, isolated = as_operator(FORMS[form](A))
    product = affinity_matrix.products(affinity, Y)
    assert_allclose(np.vstack([product(b) for b in range(len(affinity.bounds))]), P @ Y, atol=1e-12)
    assert_array_equal(isolated, np.arange(30) == 4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("length", [1, 2, 3, 6])
@pytest.mark.parametrize("stride", [1, 2])
def test_walk_average_is_the_mean_of_powers(form, length, stride):
    affinity, _ = as_operator(FORMS[form](A))
    powers = [np.linalg.matrix_power(P, stride * k) for k in range(length)]
    before = Y.copy()
    with parallel.block_runner(2) as run:
        targets = affinity_matrix.walk_targets(affinity, Y, length, stride, run)
    assert_allclose(targets, np.mean(powers, axis=0) @ Y, atol=1e-12)
    assert_array_equal(Y, before)


def test_duplicates_zeros_and_order_do_not_matter():
    messy = sp.coo_array((np.array([2.0, 0.0, 3.0, 1.0]), ([0, 1, 1, 0], [2, 0, 2, 2])), shape=(3, 3))
    P, isolated = affinity_matrix.row_stochastic(messy, np.float64)
    assert_allclose(P.toarray(), [[0, 0, 1], [0, 0, 1], [0, 0, 0]])
    assert_array_equal(isolated, [False, False, True])
    assert messy.nnz == 4


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
@pytest.mark.parametrize("form", ["dense", "csr"])
def test_scale_of_rows_does_not_matter(form, scale):
    """Not even where sums of rows would overflow or vanish."""
    scaled = FORMS[form](A * (np.where(np.arange(30) % 2, scale, 1)[:, None]) * (1e8 if scale > 1 else 1))
    result = affinity_matrix.row_stochastic(scaled, np.float64)[0]
    assert_allclose(result.toarray() if sp.issparse(result) else result, P, rtol=1e-9)


def test_pieces_share_memory():
    affinity, _ = as_operator(sp.csr_array(A))
    assert all(np.shares_memory(piece.data, affinity.operator.data) for piece in affinity.pieces)


def test_blocks_do_not_straddle_groups():
    bounds = parallel.row_blocks([1000, 3, 5000], np.uint8(128))
    assert_array_equal(np.concatenate([np.arange(b.start, b.stop) for b in bounds]), np.arange(6003))
    assert {1000, 1003} <= {b.stop for b in bounds}


# Canonical copies ------------------------------------------------------------------------------------------
SPARSE = [
    f"{kind}_{flavor}" for kind in ("csr", "csc", "coo", "bsr", "lil", "dok", "dia") for flavor in ("array", "matrix")
]


def arrays(matrix):
    return {name: value.copy() for name, value in vars(matrix).items() if isinstance(value, np.ndarray)}


@pytest.mark.parametrize("kind", SPARSE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, bool])
def test_canonical_of_every_format(kind, dtype):
    wanted = (A > 0).astype(dtype)
    matrix = getattr(sp, kind)(wanted)
    before = arrays(matrix)
    found = canonical(matrix)
    assert isinstance(found, sp.csr_array)
    assert found.dtype == (np.float32 if dtype == np.float32 else np.float64)
    assert found.indices.dtype == found.indptr.dtype == np.int32
    assert np.array_equal(found.toarray(), wanted)
    for name, value in before.items():
        assert_array_equal(getattr(matrix, name), value)


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr"])
@pytest.mark.parametrize("flag", [True, False])
def test_canonical_sums_split_entries_whatever_flags_say(kind, flag):
    parts = np.array([100, 28, 5, 0], np.int8), ([0, 0, 1, 2], [2, 2, 0, 1])
    matrix = sp.csr_array((parts[0], np.array([2, 2, 0, 1]), np.array([0, 2, 3, 4])), shape=(3, 3)).asformat(kind)
    if kind == "coo":
        matrix = sp.coo_array(parts, shape=(3, 3))
    matrix.has_canonical_format = flag
    found = canonical(matrix)
    assert_array_equal(found.toarray(), [[0, 0, 128], [5, 0, 0], [0, 0, 0]])
    assert found.nnz == 3
    assert len(matrix.data) == 4


def test_canonical_sorts_whatever_flags_say():
    matrix = sp.csr_array((np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 1, 3, 2]), np.array([0, 4])), shape=(1, 4))
    matrix.has_sorted_indices = matrix.has_canonical_format = True
    assert_array_equal(canonical(matrix).indices, np.arange(4))
    assert_array_equal(matrix.indices, [0, 1, 3, 2])


@pytest.mark.parametrize("wide", [False, True])
def test_canonical_shares_what_is_canonical(wide):
    matrix = sp.csr_array(A)
    if wide:
        matrix.indices, matrix.indptr = matrix.indices.astype(np.int64), matrix.indptr.astype(np.int64)
    found = canonical(matrix)
    assert np.shares_memory(found.data, matrix.data)
    assert np.shares_memory(found.indices, matrix.indices) is not wide
    assert found.indices.dtype == found.indptr.dtype == np.int32
    assert canonical(A) is A


DEFECTS = {
    "column out of range": ("csr", "indices", [0, 99, 1], "index 99, out of range for 3"),
    "column below zero": ("csr", "indices", [0, -1, 1], "index -1, out of range for 3"),
    "row out of range": ("csc", "indices", [0, 2**31 - 1, 1], "index 2147483647, out of range for 3"),
    "block out of range": ("bsr", "indices", [0, 7, 1], "index 7, out of range for 3"),
    "indices that are no integers": ("csr", "indices", [0.0, 1.0, 2.0], "indices of type float64, not integers"),
    "fewer indices than values": ("csr", "indices", [0, 1], "data of shape (3,), but indices of shape (2,)"),
    "fewer values than indices": ("csc", "data", [1.0, 2.0], "data of shape (2,), but indices of shape (3,)"),
    "flat blocks": ("bsr", "data", [1.0, 2.0, 3.0], "data of shape (3,), but indices of shape (3,)"),
    "blocks that do not fit": ("bsr", "data", np.ones((3, 2, 2)), "blocks of shape (2, 2)"),
    "a short indptr": ("csr", "indptr", [0, 3], "indptr of shape (2,) and type int64, not 4 integers"),
    "an indptr that is none": ("csr", "indptr", [0.0, 1.0, 2.0, 3.0], "type float64, not 4 integers"),
    "an indptr that falls": ("csr", "indptr", [0, 2, 1, 3], "does not rise from 0 to at most its number of indices, 3"),
    "an indptr that starts late": ("csc", "indptr", [1, 2, 3, 3], "does not rise from 0"),
    "an indptr beyond": ("bsr", "indptr", [0, 1, 2, 9], "does not rise from 0"),
    "row of an entry out of range": ("coo", "row", [0, 1, 3], "index 3, out of range for 3"),
    "column of an entry below zero": ("coo", "col", [0, 1, -5], "index -5, out of range for 3"),
    "too few rows": ("coo", "row", [0, 1], "(3,) values, but (2,) rows and (3,) columns"),
    "lists out of range": ("lil", "rows", [[0], [9], [1]], "index 9, out of range for 3"),
    "lists of other lengths": ("lil", "rows", [[0, 1], [1], [1]], "rows with other numbers of values than of columns"),
    "too few diagonals": ("dia", "offsets", [0, 1], "offsets [0 1] of type int64 for values of shape (1, 3)"),
    "a diagonal far away": ("dia", "offsets", [2**40], "out of range for 2147483648"),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_canonical_refuses_arrays_that_do_not_fit_together(name):
    kind, attribute, value, message = DEFECTS[name]
    matrix = sp.eye_array(3).asformat(kind)
    if kind == "lil":
        matrix.rows[:] = value
    else:
        setattr(matrix, attribute, np.array(value))
    with pytest.raises(ValueError, match=f"graph must be .* but as {kind} .*{re.escape(message)}.* Build it anew"):
        canonical(matrix, "graph")


def test_canonical_refuses_keys_out_of_range_and_one_dimension():
    matrix = sp.dok_array((3, 3))
    dict.__setitem__(matrix._dict if hasattr(matrix, "_dict") else matrix, (0, 9), 1.0)
    with pytest.raises(ValueError, match="index 9, out of range for 3"):
        canonical(matrix)
    with pytest.raises(ValueError, match="1 dimensions, not 2"):
        canonical(sp.coo_array(np.ones(3)))


def test_both_directions_are_the_block_matrix():
    P, Q = (
        sp.random_array((5, 3), density=0.5, rng=0, format="csr"),
        sp.random_array((3, 5), density=0.5, rng=1, format="csr"),
    )
    joined = affinity_matrix.both_directions(P, Q)
    np.testing.assert_array_equal(joined.toarray(), sp.block_array([[None, P], [Q, None]]).toarray())
    assert joined.indices.dtype == joined.indptr.dtype == np.int32


KEPT = np.arange(30) % 3 > 0


@pytest.mark.parametrize("form", FORMS)
def test_restriction_to_some_rows_and_columns(form):
    P = affinity_matrix.row_stochastic(FORMS[form](A), np.float64)[0]
    restricted = affinity_matrix.among(P, KEPT)
    whole = P.toarray() if sp.issparse(P) else np.asarray(P @ np.eye(30))
    assert restricted.shape == (20, 20)
    assert_allclose(restricted @ Y[KEPT], whole[KEPT][:, KEPT] @ Y[KEPT], atol=1e-12)
    assert_allclose(restricted @ Y[KEPT][:, 0], whole[KEPT][:, KEPT] @ Y[KEPT][:, 0], atol=1e-12)
    assert affinity_matrix.among(P, np.ones(30, bool)) is P


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("form", FORMS)
def test_products_are_added(form, dtype):
    affinity, _ = as_operator(FORMS[form](A))
    H = Y.astype(dtype)
    add_product, product = affinity_matrix.additions(affinity, H), affinity_matrix.products(affinity, H)
    for block, rows in enumerate(affinity.bounds):
        out = np.full((rows.stop - rows.start, 4), 2.0, dtype)
        assert add_product(block, out) is out
        assert_allclose(out, 2 + P[rows] @ Y, rtol=1e-5)
        assert_allclose(product(block), P[rows] @ Y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("add", [None, Y])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_products_are_written_block_by_block(add, scale):
    affinity, _ = as_operator(sp.csr_array(A))
    out = np.full_like(Y, np.nan)
    assert affinity_matrix.multiply(affinity, Y, out, map, add, scale) is out
    assert_allclose(out, scale * (P @ Y + (0 if add is None else add)), atol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 4])
def test_walks_of_some_rows(length):
    sparse, rows = sp.csr_array(P), [3, 7, 11]
    expected = np.mean([np.linalg.matrix_power(P, k + 1) for k in range(length)], axis=0)[rows]
    assert_allclose(affinity_matrix.walked_rows(sparse[rows], [sparse], length).toarray(), expected, atol=1e-12)
    back = np.mean([np.linalg.matrix_power(P, 2 * k + 1) for k in range(length)], axis=0)[rows]
    assert_allclose(affinity_matrix.walked_rows(sparse[rows], [sparse] * 2, length).toarray(), back, atol=1e-12)


@pytest.mark.parametrize("out", [None, np.empty_like(Y)])
@pytest.mark.parametrize("scratch", [None, np.empty_like(Y)])
def test_walks_use_the_memory_that_is_given(out, scratch):
    affinity, _ = as_operator(sp.csr_array(A))
    targets = affinity_matrix.walk_targets(affinity, Y, 3, 2, map, out, scratch)
    assert out is None or targets is out
    assert_allclose(targets, (Y + P @ P @ Y + P @ P @ P @ P @ Y) / 3, atol=1e-12)
    assert affinity_matrix.walk_targets(affinity, Y, 1, 2, map, out, scratch) is Y
