"""Sums of exponentials in the log domain against sums written out."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_attnembed._core.logsum import LogSum, exponentials, finite_or_zero, log_difference, log_of, log_sum

RNG = np.random.default_rng(0)
TERMS, VALUES = RNG.standard_normal((4, 9)), RNG.standard_normal((9, 3))
NOTHING = np.full(4, -np.inf)


def test_logarithms_at_zero():
    assert_array_equal(log_of(np.array([0.0, 1.0, np.e])), [-np.inf, 0, 1])
    assert_array_equal(
        log_difference(np.array([-np.inf, 3.0, -np.inf]), np.array([-np.inf, 1.0, 0.0])), [0, 2, -np.inf]
    )
    assert_array_equal(finite_or_zero(np.array([-np.inf, 2.0])), [0, 2])


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_log_sum_along_an_axis(axis):
    assert_allclose(log_sum(TERMS, axis), np.log(np.exp(TERMS).sum(axis=axis)), rtol=1e-12)
    reference, terms = exponentials(TERMS, axis)
    assert_array_equal(reference, TERMS.max(axis=axis))
    assert_allclose(terms, np.exp(TERMS - np.expand_dims(reference, axis)), rtol=1e-12)


@pytest.mark.parametrize("offset", [0, 1e4, -1e4])
def test_terms_may_be_added_and_merged_in_any_parts(offset):
    whole = np.log(np.exp(TERMS).sum(axis=1)) + offset
    first, rest = LogSum.of(TERMS[:, :2] + offset), TERMS[:, 2:] + offset
    for sums in (first.add_terms(rest), LogSum.of(rest).merge(first), LogSum.empty(4).add_terms(TERMS + offset)):
        assert_allclose(sums.log(), whole, rtol=1e-12)
        assert sums.weighted is None


def test_weighted_sums():
    expected = np.exp(TERMS) @ VALUES
    sums = LogSum.empty(4, 3)
    assert_array_equal(sums.weighted, np.zeros((4, 3)))
    for part in (slice(2), slice(2, 3), slice(3, 9)):
        sums = sums.add_terms(TERMS[:, part], VALUES[part])
    assert_allclose(sums.weighted * np.exp(sums.reference)[:, None], expected, rtol=1e-12)
    assert_allclose(
        sums.weighted / sums.total[:, None], expected / np.exp(TERMS).sum(axis=1, keepdims=True), rtol=1e-12
    )
    assert sums.merge(LogSum.of(TERMS)).weighted is None
    assert LogSum.of(TERMS).merge(sums).weighted is None


def test_sums_of_nothing_are_zero():
    empty = LogSum.empty(4)
    assert_array_equal(empty.log(), NOTHING)
    assert_array_equal(empty.merge(empty).log(), NOTHING)
    assert_array_equal(empty.add_terms(np.full((4, 5), -np.inf)).log(), NOTHING)
    assert_array_equal(LogSum.of(np.empty((4, 0))).log(), NOTHING)
    assert_allclose(empty.add_terms(TERMS).log(), log_sum(TERMS), rtol=1e-12)


def test_no_digit_is_lost_to_a_larger_block():
    small, large = np.full((1, 3), -800.0), np.full((1, 2), 800.0)
    assert_allclose(LogSum.of(small).add_terms(large).log(), 800 + np.log(2), rtol=1e-15)
    assert_allclose(LogSum.of(small).log(), -800 + np.log(3), rtol=1e-15)
