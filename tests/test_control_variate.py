"""Control variates against least squares written out."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_attnembed._core.kernels import KERNELS, SOFTMAX, SQUARED
from sklearn_attnembed._core.normalizers.control_variate import (
    KnownTerms,
    control_variate_estimate,
    no_terms,
    own_terms,
    sampled_rows,
    score_tails,
)
from sklearn_attnembed._core.sampling import KeySample, hash_rows

RNG = np.random.default_rng(0)
KEYS = RNG.standard_normal((400, 3))
KEYS[::2] += [2, 0, -1]
WEIGHTS = RNG.uniform(0.5, 2, 400)
LABELS = np.arange(400) % 2
DRAWN = np.r_[RNG.permutation(400)[:60]]
DRAWN = DRAWN[np.argsort(LABELS[DRAWN], kind="stable")]
SAMPLING_WEIGHT = WEIGHTS[DRAWN] * RNG.uniform(1, 12, 60)
X = RNG.standard_normal((4, 3)) / 2


def sample(labels):
    nothing = np.zeros(60)
    return KeySample(KEYS[DRAWN], WEIGHTS[DRAWN], hash_rows(KEYS[DRAWN]), nothing, DRAWN, labels[DRAWN], nothing)


def moments(scores, labels, n_clusters):
    """Weight, mean and variance of the scores of every query in each cluster."""
    out = np.empty((2, len(scores), n_clusters))
    for a in range(n_clusters):
        inside, w = scores[:, labels == a], WEIGHTS[labels == a]
        out[0, :, a] = np.average(inside, weights=w, axis=1)
        out[1, :, a] = np.average((inside - out[0, :, a, None]) ** 2, weights=w, axis=1)
    return np.bincount(labels, WEIGHTS, n_clusters), *out


def standard_error(residual, u, w, rest, n_fitted):
    used = u > 0
    squares = np.sum(u[used] * (u[used] - w[used]).clip(0) * residual[used] ** 2)
    return rest / u.sum() * np.sqrt(squares * used.sum() / (used.sum() - n_fitted))


def by_least_squares(f, scores, parts, weight, kernel, u, known):
    """Total and error of one query: f less its Gaussian expectation, on two regressors."""
    mean, variance = parts
    offset = np.exp(kernel.log_expectation(mean, variance))
    slope, curvature = kernel.derivatives(mean, variance)
    sd, labels = np.sqrt(variance), LABELS if len(weight) == 2 else np.zeros(400, int)
    t = (scores - mean[labels]) / sd[labels]
    columns = np.stack(
        [np.ones(400), (offset * slope * sd)[labels] * t, (offset * curvature * variance)[labels] * (t * t - 1)]
    )
    A, y, root = columns[:, DRAWN].T, f[DRAWN] - offset[labels[DRAWN]], np.sqrt(u)
    coefficients = np.linalg.lstsq(root[:, None] * A, root * y, rcond=None)[0]
    unknown = np.setdiff1d(np.arange(400), known)
    predicted = (offset[labels] + coefficients @ columns)[unknown] @ WEIGHTS[unknown]
    rest = WEIGHTS[unknown].sum()
    error = standard_error(y - A @ coefficients, u, WEIGHTS[DRAWN], rest, 3)
    return predicted + f[known] @ WEIGHTS[known], error


@pytest.mark.parametrize("n_known", [0, 50])
@pytest.mark.parametrize("n_clusters", [1, 2])
@pytest.mark.parametrize("name", ["softmax", "expressive"])
def test_regression_is_least_squares(name, n_clusters, n_known):
    kernel, scores = KERNELS[name], X @ KEYS.T
    labels = LABELS if n_clusters == 2 else np.zeros(400, int)
    weight, mean, variance = moments(scores, labels, n_clusters)
    near = [np.argsort(-scores[i])[:n_known] for i in range(4)]
    known = None
    if n_known:
        sums = np.zeros((3, 4, n_clusters))
        for i, a in np.ndindex(4, n_clusters):
            inside = near[i][labels[near[i]] == a]
            for power in range(3):
                sums[power, i, a] = WEIGHTS[inside] @ (scores[i, inside] - mean[i, a]) ** power
        f = np.exp(kernel.log_value(scores))
        log_mass = np.log([f[i, near[i]] @ WEIGHTS[near[i]] for i in range(4)])
        known = KnownTerms(log_mass, *sums, np.array([np.isin(DRAWN, near[i]) for i in range(4)]))
    arguments = scores[:, DRAWN], sample(labels), SAMPLING_WEIGHT, kernel, (weight, mean, variance)
    log_z, error = control_variate_estimate(*arguments, known=known)
    means = control_variate_estimate(scores[:, DRAWN], *arguments[1:], known=known, controls=False)
    for i in range(4):
        f = np.exp(kernel.log_value(scores[i]))
        u = np.where(np.isin(DRAWN, near[i]), 0, SAMPLING_WEIGHT)
        rest = WEIGHTS.sum() - WEIGHTS[near[i]].sum()
        average = u @ f[DRAWN] / u.sum()
        z = rest * average + f[near[i]] @ WEIGHTS[near[i]]
        plain = standard_error(f[DRAWN] - average, u, WEIGHTS[DRAWN], rest, 1)
        assert_allclose(means[0][i], np.log(z))
        assert_allclose(means[1][i], plain / z)
        total, expected = by_least_squares(f, scores[i], (mean[i], variance[i]), weight, kernel, u, near[i].astype(int))
        if expected < plain:
            assert_allclose(log_z[i], np.log(total), rtol=1e-6)
            assert_allclose(error[i], expected / total, rtol=1e-4)
        else:
            assert_allclose([log_z[i], error[i]], [means[0][i], means[1][i]])


def test_without_variances_only_means_are_regressors():
    scores = X @ KEYS.T
    weight, mean, variance = moments(scores, np.zeros(400, int), 1)
    linear = control_variate_estimate(
        scores[:, DRAWN],
        sample(np.zeros(400, int)),
        SAMPLING_WEIGHT,
        SQUARED,
        (weight, mean, variance),
        quadratic=False,
    )
    exact = np.log(np.square(scores) @ WEIGHTS)
    both = control_variate_estimate(
        scores[:, DRAWN], sample(np.zeros(400, int)), SAMPLING_WEIGHT, SQUARED, (weight, mean, variance)
    )
    assert_allclose(both[0], exact, atol=1e-7)
    assert np.all(np.abs(linear[0] - exact) > 1e-4)
    assert np.all(linear[1] > both[1])


def test_equal_scores_are_no_regressors():
    """A query of zero sees every key alike: no variance, no error."""
    zero = np.zeros((1, 400))
    weight, mean, variance = moments(zero, np.zeros(400, int), 1)
    log_z, error = control_variate_estimate(
        zero[:, DRAWN], sample(np.zeros(400, int)), SAMPLING_WEIGHT, SOFTMAX, (weight, mean, variance)
    )
    assert_allclose(log_z, np.log(WEIGHTS.sum()))
    assert_allclose(error, 0, atol=1e-12)
    log_z, error = control_variate_estimate(
        zero[:, DRAWN], sample(np.zeros(400, int)), SAMPLING_WEIGHT, SQUARED, (weight, mean, variance)
    )
    assert_array_equal([log_z, error], [[-np.inf], [0]])


def test_z_is_at_least_what_was_seen():
    """A sample whose weights say less than its own terms is not believed."""
    scores = np.full((1, 60), -3.0)
    scores[0, 5] = 4
    tiny = np.full(60, 1e-3)
    moments_ = np.array([60.0]), np.array([[-3.0]]), np.array([[0.0]])
    part = sample(np.zeros(400, int))._replace(weight=np.ones(60))
    log_z, _ = control_variate_estimate(scores.copy(), part, tiny, SOFTMAX, moments_, controls=False)
    assert log_z[0] >= np.log(np.exp(scores).sum())


def test_tails_measure_the_kurtosis():
    scale = np.where(np.arange(400) % 4 < 2, 0.2, 1.5)  # a mixture of two widths has heavy tails
    keys = np.random.default_rng(1).standard_normal((400, 3)) * scale[:, None]
    labels = np.sort(np.arange(400) % 3)
    labels[-1] = 3  # too few keys to tell
    part = sample(LABELS)._replace(keys=keys, labels=labels)
    weight = np.bincount(labels).astype(float)
    mean, variance = np.zeros((4, 4)), np.array([[(keys[labels == a] @ x).var() for a in range(4)] for x in X])
    variance[:, 3] = 1e-3
    tails = score_tails(X, part, (weight, mean, variance))
    for a in range(3):
        kurtosis = [np.mean((keys[labels == a] @ x) ** 4) / variance[i, a] ** 2 for i, x in enumerate(X)]
        assert_allclose(tails[a], np.sqrt(np.clip(np.median(kurtosis) / 3 - 1, 0, 1)))
    assert np.all(tails[:3] > 0)
    assert tails[3] == 0
    assert_array_equal(score_tails(X[:0], part, (weight, mean[:0], variance[:0])), 0)


def test_own_term_of_a_key():
    mean = np.array([[0.5, 1.0], [2.0, 3.0]])
    own = own_terms(np.array([2.0, 0.0]), np.array([4.0, 7.0]), np.array([1, 0]), np.zeros((2, 5), bool), SOFTMAX, mean)
    assert_allclose(own.log_mass, [np.log(2) + 4, -np.inf])
    assert_allclose(own.zeroth, [[0, 2], [0, 0]])
    assert_allclose(own.first, [[0, 6], [0, 0]])
    assert_allclose(own.second, [[0, 18], [0, 0]])


def test_sampled_keys_recognize_themselves():
    part, queries = sample(LABELS), np.vstack([KEYS[DRAWN[[7, 3]]], X[:1], KEYS[DRAWN[:1]]])
    found = sampled_rows(hash_rows(queries), part, np.array([1.0, 2.0, 1.0, 0.0]))
    expected = np.zeros((4, 60), bool)
    expected[0, 7] = expected[1, 3] = True
    assert_array_equal(found, expected)
    empty = KeySample._make(column[:0] for column in part)
    assert sampled_rows(hash_rows(queries), empty, np.ones(4)).shape == (4, 0)
    nothing = no_terms(np.ones((4, 2)), found)
    assert_array_equal(nothing.log_mass, -np.inf)
    assert not any(part.any() for part in nothing[1:4])
    assert nothing.sampled is found


def one_key(n_keys, weight):
    """One key drawn of `n_keys` of weight one, and moments of scores of mean 0.2 and variance 0.3."""
    part = KeySample._make(column[:1] for column in sample(np.zeros(400, int)))._replace(weight=np.ones(1))
    return np.full((1, 1), 0.5), part, np.full(1, weight), SOFTMAX, (n_keys, np.full((1, 1), 0.2), np.full((1, 1), 0.3))


def test_one_key_of_many_leaves_the_mixture():
    log_z, error = control_variate_estimate(*one_key(np.array([50.0]), 50.0))
    # No cluster's mean term is taken above the largest term seen.
    assert_allclose(log_z, np.log(50) + min(0.2 + 0.15, 0.5))
    assert_allclose(error, 1)
    known = KnownTerms(
        np.log([7.0]), np.full((1, 1), 10.0), np.full((1, 1), 1.0), np.full((1, 1), 2.0), np.ones((1, 1), bool)
    )
    log_z, error = control_variate_estimate(*one_key(np.array([50.0]), 50.0), known=known)
    assert_allclose(np.exp(log_z), 40 * np.exp(0.35) + 7)
    assert_allclose(error, 40 * np.exp(0.35) / np.exp(log_z))


@pytest.mark.parametrize("controls", [False, True])
def test_all_keys_seen_leave_no_error(controls):
    """One key of one, and known terms that are all of them."""
    log_z, error = control_variate_estimate(*one_key(np.array([1.0]), 1.0), controls=controls)
    assert_allclose(log_z, 0.5)
    assert error[0] == 0
    known = KnownTerms(
        np.log([7.0]), np.full((1, 1), 50.0), np.full((1, 1), 0.0), np.full((1, 1), 15.0), np.ones((1, 1), bool)
    )
    log_z, error = control_variate_estimate(*one_key(np.array([50.0]), 50.0), controls=controls, known=known)
    assert_allclose(np.exp(log_z), 7)
    assert error[0] == 0


def test_rounding_of_equal_scores_has_no_tails():
    part = sample(np.zeros(400, int))._replace(keys=np.ones((60, 3)))
    scores = X @ np.ones(3)
    moments_ = np.array([60.0]), scores[:, None] * (1 + 1e-14), np.full((4, 1), 1e-30)
    assert_array_equal(score_tails(X, part, moments_), 0)
