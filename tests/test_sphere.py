"""Geometry of rows on the unit sphere, by hand."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_attnembed._core.sphere import batchless_product, padded, row_dots, tangent, unit_rows

RNG = np.random.default_rng(0)


def test_unit_rows_are_divided_in_place():
    X = np.array([[3.0, 4.0], [0.0, 0.0], [0.0, -1e-3]])
    assert unit_rows(X) is X
    assert_allclose(X, [[0.6, 0.8], [0, 0], [0, -1]])


def test_tangents_are_orthogonal_to_their_rows():
    X, G = unit_rows(RNG.standard_normal((5, 3))), RNG.standard_normal((5, 3))
    T = tangent(G, X)
    assert_allclose(row_dots(T, X), 0, atol=1e-14)
    assert_allclose(G - T, np.sum(G * X, axis=1)[:, None] * X)


@pytest.mark.parametrize(("n", "expected"), [(0, 0), (1, 128), (127, 128), (128, 128), (129, 256)])
def test_rows_are_padded_to_full_blocks(n, expected):
    X = RNG.standard_normal((n, 3)).astype(np.float32)
    P = padded(X)
    assert P.shape == (expected, 3)
    assert P.dtype == X.dtype
    assert_array_equal(P[:n], X)
    assert not P[n:].any()
    assert (P is X) == (n % 128 == 0)


@pytest.mark.parametrize("n", [1, 2, 7, 130])
def test_products_have_the_same_bits_whatever_rows_are_with_them(n):
    X, A = RNG.standard_normal((300, 9)), RNG.standard_normal((9, 9))
    assert_array_equal(batchless_product(X[:n], A), batchless_product(X, A)[:n])
    assert_allclose(batchless_product(X, A), X @ A)
