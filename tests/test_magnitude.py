"""Products of numbers of any size against exact fractions, and scaling by powers of two."""

from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_attnembed._magnitude import bounded_scores, product_features, row_exponents, saturated, scale_rows

FORMS = pytest.mark.parametrize("form", [np.asarray, sp.csr_array], ids=["dense", "sparse"])
X = np.array([[3.0, 0, -8], [0, 0, 0], [0.5, -0.25, 0], [0, 1e-300, 2e-300]])


@FORMS
def test_exponents_bound_the_rows(form):
    assert_array_equal(row_exponents(form(X)), [4, 0, 0, np.frexp(2e-300)[1]])
    assert_array_equal(row_exponents(form(-X)), row_exponents(form(X)))
    assert_array_equal(row_exponents(form(np.zeros((2, 3)))), [0, 0])


@FORMS
def test_rows_are_scaled_by_powers_of_two(form):
    before = X.copy()
    scaled = scale_rows(form(X), np.array([1, 5, -2, 2100]))
    expected = np.array([[6.0, 0, -16], [0, 0, 0], [0.125, -0.0625, 0], [0, *[np.finfo(float).max] * 2]])
    assert_array_equal(scaled.toarray() if sp.issparse(scaled) else scaled, expected)
    assert_array_equal(X, before)
    one = scale_rows(form(X), 3)
    assert_array_equal(one.toarray() if sp.issparse(one) else one, 8 * X)


def test_numbers_beyond_a_type_are_its_largest():
    largest = np.finfo(np.float32).max
    assert_array_equal(saturated(np.array([1e300, -1e300, 1.5]), np.float32), np.float32([largest, -largest, 1.5]))


def score(x, y, temperature):
    """Return x.y / temperature without rounding on the way, bounded by a quarter of the largest number."""
    exact = sum(Fraction(a) * Fraction(b) for a, b in zip(x.tolist(), y.tolist(), strict=True)) / Fraction(temperature)
    bound = Fraction(np.finfo(x.dtype).max.item()) / 4
    return float(min(max(exact, -bound), bound))


@FORMS
@pytest.mark.parametrize("temperature", [1.0, 0.3, 7.0, 1e-300, 1e200, 3e-320])
@pytest.mark.parametrize(("left", "right"), [(1, 1), (1e150, 1e150), (1e-100, 1e-200), (1e300, 1e-300), (1e300, 1e300)])
def test_scores_are_exact_up_to_rounding(form, temperature, left, right):
    rng = np.random.default_rng(0)
    A, B = left * rng.uniform(1, 2, (3, 5)), right * rng.uniform(1, 2, (4, 5))
    A[1] *= -1
    expected = [[score(a, b, temperature) for b in B] for a in A]
    assert_allclose(bounded_scores(form(A), form(B), temperature), expected, rtol=1e-12, atol=1e-322)


@FORMS
def test_scores_of_rows_of_different_size(form):
    A = np.array([[1e200, 2e200], [1e-200, 3e-200], [1.0, 1.0]])
    expected = [[score(a, b, 0.7) for b in A] for a in A]
    assert_allclose(bounded_scores(form(A), form(A), 0.7), expected, rtol=1e-12)


@pytest.mark.parametrize("bits", range(-4, 5))
def test_scores_near_the_largest_number(bits):
    """Whether sums could overflow is decided with room for the sum over columns and the temperature."""
    A = np.full((1, 3), np.ldexp(1.0, 508 + bits))
    for temperature in (0.25, 1.0, 8.0):
        expected = score(A[0], A[0], temperature)
        assert_allclose(bounded_scores(A, A, temperature)[0, 0], expected, rtol=1e-12)


@FORMS
@pytest.mark.parametrize("temperature", [1.0, 0.3, 5.0, 1e-200])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_are_those_of_a_loop(form, temperature, dtype):
    rng = np.random.default_rng(1)
    A = (rng.standard_normal((6, 4)) * (rng.random((6, 4)) < 0.7)).astype(dtype)
    A[2] = 0
    scale = 1e-100 if temperature < 1e-100 else 1
    A = (A * scale).astype(dtype) if dtype == np.float64 else A
    temperature = temperature if dtype == np.float64 else max(temperature, 0.3)
    found = product_features(form(A), temperature)
    pairs = [(a, b) for a in range(4) for b in range(a, 4)]
    expected = [
        [x[a] * (x[b] / temperature) * (1 if a == b else np.sqrt(2)) for a, b in pairs] for x in A.astype(float)
    ]
    assert found.dtype == dtype
    assert_allclose(
        found.toarray() if sp.issparse(found) else found, expected, rtol=1e-6 if dtype == np.float32 else 1e-13
    )
    if sp.issparse(found):
        assert found.has_canonical_format
        assert found.indices.dtype == np.int32
