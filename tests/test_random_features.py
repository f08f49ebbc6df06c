"""Random features against loops over keys and frequencies, written out."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sklearn_attnembed._core.normalizers.random_features import (
    fourier_estimate,
    fourier_sums,
    orthogonal_frequencies,
    positive_estimate,
    positive_sums,
)
from sklearn_attnembed._core.statistics import block_statistics

RNG = np.random.default_rng(0)
KEYS, QUERIES = RNG.standard_normal((40, 3)), RNG.standard_normal((5, 3))
WEIGHTS = RNG.uniform(0.5, 2, 40)
FREQUENCIES = orthogonal_frequencies(3, 14, seed=0)
WEIGHTED = pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])


def features(X, w, beta, sign):
    """Return the two features of one frequency, with the factor exp(sign |x|^2 beta / 2)."""
    phase, scale = np.sqrt(beta) * X @ w, np.exp(sign * beta * np.sum(X * X, axis=-1) / 2)
    pair = [np.cos(phase), np.sin(phase)] if sign > 0 else [np.exp(phase) / np.sqrt(2), np.exp(-phase) / np.sqrt(2)]
    return scale * np.array(pair)


def terms_of(weights, beta, sign):
    """Estimate Z by each frequency alone, in a loop: rows are queries."""
    c = np.ones(40) if weights is None else weights
    terms = np.zeros((len(QUERIES), FREQUENCIES.shape[1]))
    for k, w in enumerate(FREQUENCIES.T):
        for j, key in enumerate(KEYS):
            phi = features(key, w, beta, sign)
            terms[:, k] += c[j] * (features(QUERIES, w, beta, sign).T @ phi)
    return terms


@pytest.mark.parametrize(("d", "n_components", "r"), [(3, 14, 7), (3, 13, 7), (5, 4, 2), (2, 1, 1), (4, 8, 4)])
def test_frequencies_are_orthogonal_in_blocks(d, n_components, r):
    frequencies = orthogonal_frequencies(d, n_components, seed=1)
    assert frequencies.shape == (d, r)
    for start in range(0, r, d):
        block = frequencies[:, start : start + d]
        assert_allclose(block.T @ block, np.diag(np.square(block).sum(axis=0)), atol=1e-12)
    assert not np.array_equal(frequencies, orthogonal_frequencies(d, n_components, seed=2))


def test_frequencies_have_the_norms_of_gaussian_vectors():
    squares = np.square(orthogonal_frequencies(4, 4000, seed=0)).sum(axis=0)
    assert_allclose([squares.mean(), squares.var()], [4, 8], rtol=0.1)


@WEIGHTED
@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_positive_features_are_their_definition(weights, beta):
    sums = positive_sums(KEYS, weights, FREQUENCIES, beta)
    log_z, error = positive_estimate(QUERIES, sums, FREQUENCIES, beta)
    terms = terms_of(weights, beta, -1)
    assert_allclose(np.exp(log_z), terms.mean(axis=1), rtol=1e-10)
    assert_allclose(error, terms.std(axis=1, ddof=1) / np.sqrt(7) / terms.mean(axis=1), rtol=1e-10)


@WEIGHTED
def test_fourier_features_are_their_definition(weights):
    beta = 0.5
    statistics = block_statistics(KEYS, weights)
    log_z, error = fourier_estimate(
        QUERIES, fourier_sums(KEYS, weights, FREQUENCIES, beta), FREQUENCIES, beta, statistics
    )
    terms = terms_of(weights, beta, +1)
    least = statistics.weight.sum() * np.exp(beta * QUERIES @ np.average(KEYS, axis=0, weights=weights))
    expected = np.maximum(terms.mean(axis=1), least)
    assert np.any(terms.mean(axis=1) > least)
    assert_allclose(np.exp(log_z), expected, rtol=1e-10)
    assert_allclose(error, terms.std(axis=1, ddof=1) / np.sqrt(7) / expected, rtol=1e-10)


def test_fourier_features_are_no_less_than_the_bound_of_jensen():
    """With one frequency estimates fall below it, even below zero."""
    frequencies, statistics = FREQUENCIES[:, :1], block_statistics(KEYS, WEIGHTS, np.arange(40) % 2, 2)
    log_z, error = fourier_estimate(
        QUERIES, fourier_sums(KEYS, WEIGHTS, frequencies, 2.0), frequencies, 2.0, statistics
    )
    least = np.log(WEIGHTS.sum()) + 2 * QUERIES @ np.average(KEYS, axis=0, weights=WEIGHTS)
    assert np.all(log_z >= least - 1e-12)
    assert np.any(np.abs(log_z - least) < 1e-12)
    assert np.all(np.isfinite(error))


@pytest.mark.parametrize("sums_of", [fourier_sums, positive_sums])
def test_sums_of_blocks_merge_to_those_of_all_keys(sums_of):
    parts = [
        sums_of(KEYS[rows] * scale, None, FREQUENCIES, 1.0) for rows, scale in ((slice(25), 1), (slice(25, 40), 9))
    ]
    whole = sums_of(np.concatenate([KEYS[:25], 9 * KEYS[25:]]), None, FREQUENCIES, 1.0)
    merged = parts[0].merge(parts[1])
    scale = np.exp(merged.reference - whole.reference)
    assert_allclose(merged.total * scale, whole.total, rtol=1e-9, atol=1e-12)


def test_one_frequency_has_the_size_of_its_term_as_error():
    frequencies = FREQUENCIES[:, :1]
    _, error = positive_estimate(QUERIES, positive_sums(KEYS, None, frequencies, 1.0), frequencies, 1.0)
    assert_allclose(error, 1, rtol=1e-12)


def test_huge_scores_do_not_overflow():
    keys, queries = 100 * KEYS, 100 * QUERIES
    statistics = block_statistics(keys)
    for log_z, error in (
        positive_estimate(queries, positive_sums(keys, None, FREQUENCIES, 1.0), FREQUENCIES, 1.0),
        fourier_estimate(queries, fourier_sums(keys, None, FREQUENCIES, 1.0), FREQUENCIES, 1.0, statistics),
    ):
        assert np.all(np.isfinite(log_z))
        assert np.all(np.isfinite(error))
