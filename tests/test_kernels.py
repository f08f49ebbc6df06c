"""Kernels: expectation against quadrature and sampling, derivatives against finite differences, limits."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import norm

from sklearn_attnembed._core.kernels import (
    EXPRESSIVE,
    KERNELS,
    SOFTMAX,
    SQUARED,
    as_kernel,
    expressive,
    squared_features,
    with_background,
)

GRID = [(m, v) for m in (-3.0, -0.4, 0.0, 1e-3, 0.7, 5.0) for v in (1e-6, 0.05, 0.1, 0.3, 2.0, 40.0)]
KINDS = pytest.mark.parametrize("kernel", KERNELS.values(), ids=list(KERNELS))


def integral(kernel, m, v):
    """E f(s) by adaptive quadrature."""
    width = np.sqrt(v)

    def integrand(t):
        return np.exp(kernel.log_value(np.array(m + width * t))) * norm.pdf(t)

    return quad(integrand, -12 - width, 12 + width, points=[0, -m / width][: 1 + (abs(m) < 10 * width)], limit=400)[0]


@KINDS
@pytest.mark.parametrize(("m", "v"), GRID)
def test_expectation_is_the_integral(kernel, m, v):
    assert_allclose(np.exp(kernel.log_expectation(np.array([m]), np.array([v])))[0], integral(kernel, m, v), rtol=1e-6)


@KINDS
@pytest.mark.parametrize(("m", "v"), [(m, v) for m, v in GRID if v > 1e-5 and m * m + v > 1e-2])
def test_derivatives_are_finite_differences(kernel, m, v):
    def g(m, v):
        return kernel.log_expectation(np.array([m]), np.array([v]))[0]

    h = 1e-5
    dm, dv = kernel.derivatives(np.array([m]), np.array([v]))
    assert_allclose(dm[0], (g(m + h, v) - g(m - h, v)) / (2 * h), rtol=1e-5, atol=1e-7)
    assert_allclose(dv[0], (g(m, v * (1 + h)) - g(m, v * (1 - h))) / (2 * h * v), rtol=1e-5, atol=1e-7)


LITTLE = pytest.mark.parametrize("v", [0.0, 5e-324, 1e-300, 1e-40, 1e-20, 1e-10])


@LITTLE
@pytest.mark.parametrize("m", [-600.0, -3.0, 0.7, 40.0, 500.0])
def test_derivatives_of_functions_at_no_variance(m, v):
    """In the limit they are those of log f, not rounding divided by nothing."""
    where = np.array([m]), np.array([v])
    assert_allclose(np.ravel(as_kernel(np.exp).derivatives(*where)), [1, 0.5], rtol=1e-4)
    p = expit(-m)
    slope, curvature = np.ravel(as_kernel(expit).derivatives(*where))
    assert_allclose(slope, p, rtol=1e-4, atol=1e-6)
    assert_allclose(curvature, p * (2 * p - 1) / 2, rtol=1e-4, atol=1e-5)


@LITTLE
@pytest.mark.parametrize("m", [0.0, 1e-30, -1e-9])
def test_derivatives_of_functions_near_zero(m, v):
    """Rounding stays rounding in a Taylor series."""
    slope, curvature = np.ravel(as_kernel(np.exp).derivatives(np.array([m]), np.array([v])))
    assert abs(slope - 1) * np.sqrt(v) < 1e-13
    assert abs(curvature - 0.5) * v < 1e-13


@KINDS
def test_no_variance_is_the_value(kernel):
    s = np.array([-30.0, -0.5, 1e-8, 2.0, 1e4 if kernel is not SOFTMAX else 30.0])
    assert_allclose(kernel.log_expectation(s, np.zeros(5)), kernel.log_value(s), rtol=1e-9, atol=1e-12)


def test_expressive_branches_meet():
    """Quadrature below and Faddeeva above the switch give the same value and derivatives."""
    m = np.linspace(-4, 4, 17)
    below, above = 0.1 * (1 - 1e-12), 0.1
    assert_allclose(
        EXPRESSIVE.log_expectation(m, np.full(17, below)), EXPRESSIVE.log_expectation(m, np.full(17, above)), rtol=1e-8
    )
    for low, high in zip(
        EXPRESSIVE.derivatives(m, np.full(17, below)), EXPRESSIVE.derivatives(m, np.full(17, above)), strict=True
    ):
        assert_allclose(low, high, rtol=1e-7, atol=1e-10)


def test_zero_score_has_no_weight():
    zero = np.zeros(1)
    assert SQUARED.log_value(zero)[0] == EXPRESSIVE.log_value(zero)[0] == -np.inf
    assert SQUARED.log_expectation(zero, zero)[0] == EXPRESSIVE.log_expectation(zero, zero)[0] == -np.inf
    assert SOFTMAX.log_value(zero)[0] == 0


def test_huge_scores_stay_finite():
    s = np.array([1e150, -1e150])
    assert_allclose(EXPRESSIVE.log_value(s), 0, atol=1e-15)
    assert np.all(np.isfinite(SQUARED.log_value(s)))


def test_squared_features_have_squared_inner_products():
    X, Y = np.random.default_rng(0).standard_normal((2, 7, 5))
    assert_allclose(squared_features(X) @ squared_features(Y).T, np.square(X @ Y.T), rtol=1e-12)


def test_functions_may_vanish_but_not_be_negative():
    kernel = as_kernel(lambda s: np.maximum(s, 0))
    assert_allclose(kernel.log_value(np.array([-1.0, 0.0, 2.0])), [-np.inf, -np.inf, np.log(2)])
    with pytest.raises(ValueError, match="finite and non-negative, but is -1 at a score of -1"):
        as_kernel(lambda s: s).log_value(np.array([2.0, -1.0]))


def test_pair_terms_are_bounded_as_they_say():
    """log f and its derivatives follow from f, whose second derivative is largest at zero."""
    s = np.linspace(-3, 3, 61)
    pairs = EXPRESSIVE.pairs
    f, slope = s**2 / (1 + s**2) + 0.3, 2 * s / (1 + s**2) ** 2
    curvature = (2 - 6 * s**2) / (1 + s**2) ** 3
    log_f, by_score, twice = pairs.terms(s, 0.3)
    assert_allclose(log_f, np.log(f), atol=1e-12)
    assert_allclose(by_score, slope / f, atol=1e-12)
    assert_allclose(twice, curvature / f - (slope / f) ** 2, atol=1e-12)
    assert pairs.largest_curvature == curvature.max() == 2
    assert pairs.background == 0.01


def test_background_is_added():
    s, v = np.linspace(-2, 2, 9), np.full(9, 0.4)
    kernel = with_background(EXPRESSIVE, 0.2)
    assert_allclose(np.exp(kernel.log_value(s)), expressive(s) + 0.2)
    assert_allclose(expressive(s, 0.2), expressive(s) + 0.2)
    assert_allclose(np.exp(kernel.log_expectation(s, v)), np.exp(EXPRESSIVE.log_expectation(s, v)) + 0.2)
    h = 1e-6
    for part, step in zip(kernel.derivatives(s, v), ((h, 0), (0, h)), strict=True):
        above, below = (kernel.log_expectation(s + sign * step[0], v + sign * step[1]) for sign in (1, -1))
        assert_allclose(part, (above - below) / (2 * h), atol=1e-8)
    assert with_background(EXPRESSIVE, 0) is EXPRESSIVE
    assert np.isfinite(with_background(SOFTMAX, 0.1).log_value(np.array([1e4]))[0])


def test_squared_features_belong_to_kernels_of_the_squared_score():
    assert {name for name, kernel in KERNELS.items() if kernel.has_squared_features} == {"squared", "expressive"}
    assert not as_kernel(np.exp).has_squared_features
