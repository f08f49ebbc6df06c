"""Control variates: log Z and its standard error from a sample of keys, by regression on their scores.

The mean and variance of the scores over all keys of a cluster are known exactly. The regression of f on the score and
its square, fitted on the sample, therefore has a known mean, and only its residuals have to be estimated.
"""

from typing import NamedTuple

import numpy as np

from ..kernels import Kernel
from ..logsum import LogSum, finite_or_zero, log_of
from ..sampling import KeySample
from ..types import Array, Hashes, Integers, Mask

# A standard deviation of scores below this part of their size is rounding, and so is a determinant below the other.
_ROUNDING, _TINY = 1e-12, np.finfo(np.float64).tiny

# Keys of a cluster that its kurtosis is measured on: at most the first number, and none if there are fewer than the
# second.
_TAIL_KEYS, _FEW = 2000, 50


class KnownTerms(NamedTuple):
    """Keys whose terms a query knows exactly, summed up by cluster.

    Attributes
    ----------
    log_mass : ndarray of shape (n,)
        log of the sum of their terms.
    zeroth, first, second : ndarray of shape (n, kappa)
        Sums of their weights, of the weights times the distance of the score from its cluster's mean, and of the
        weights times the square of that.
    sampled : ndarray of bool of shape (n, s)
        Which keys of the sample are among them.
    """

    log_mass: Array
    zeroth: Array
    first: Array
    second: Array
    sampled: Mask


def no_terms(mean: Array, sampled: Mask) -> KnownTerms:
    """Return no known terms, but keys of the sample that are to be left out; `mean` has the shape (n, kappa)."""
    nothing = np.zeros(mean.shape)
    return KnownTerms(np.full(len(mean), -np.inf), nothing, nothing, nothing, sampled)


class _Controls(NamedTuple):
    """The regressors a_1 t and a_2 (t^2 - 1), t the standardized score in its cluster, and the offset E f.

    Their means over all keys of a cluster are zero. The a are the Hermite coefficients of f under the Gaussian, so that
    a regression with two coefficients for all clusters fits. They are divided by the largest, so that squares neither
    overflow nor underflow, and are zero where all scores of a cluster are equal up to rounding.
    """

    offset: Array
    linear: Array
    quadratic: Array
    mean: Array
    inverse: Array

    @classmethod
    def of(cls, mean: Array, variance: Array, kernel: Kernel, reference: Array, quadratic: bool) -> "_Controls":
        deviation, inverse = _deviation(mean, variance)
        # No cluster's mean term may exceed the largest term seen: the tail of a Gaussian can promise far more.
        offset = np.exp(np.minimum(kernel.log_expectation(mean, variance) - reference[:, None], 0))
        slope, curvature = kernel.derivatives(mean, variance)
        linear, squared = offset * (deviation * slope), offset * (deviation * curvature * deviation) * quadratic
        return cls(offset, _relative(linear), _relative(squared), mean, inverse)

    def of_sample(self, counts: Integers, scores: Array) -> tuple[Array, Array, Array]:
        """Return offset and regressors of every sampled key; `scores` are overwritten."""
        offset, linear, quadratic, mean, inverse = (
            part if len(counts) == 1 else np.repeat(part, counts, axis=1) for part in self
        )
        scores -= mean
        scores *= inverse
        squares = scores * scores
        squares -= 1
        squares *= quadratic
        scores *= linear
        return offset, scores, squares

    def total(self, known: KnownTerms) -> tuple[Array, Array, Array]:
        """Return the sums of offset and regressors over the known terms."""
        t = known.first * self.inverse
        squares = known.second * self.inverse**2 - known.zeroth
        return (
            np.einsum("ij,ij->i", known.zeroth, self.offset),
            np.einsum("ij,ij->i", t, self.linear),
            np.einsum("ij,ij->i", squares, self.quadratic),
        )


def _deviation(mean: Array, variance: Array) -> tuple[Array, Array]:
    """Return the standard deviation of scores, and one over it; both are zero where it is rounding."""
    deviation = np.sqrt(variance)
    deviation *= deviation > np.maximum(_ROUNDING * np.abs(mean), 1e-150)
    return deviation, np.divide(1, deviation, where=deviation > 0, out=np.zeros_like(deviation))


def _relative(coefficients: Array) -> Array:
    """Divide rows by their largest entry in size."""
    largest = np.abs(coefficients).max(axis=1, keepdims=True)
    scaled: Array = coefficients / np.where(largest > 0, largest, 1)
    return scaled


class _Weights(NamedTuple):
    """Weights of sampled keys, for all queries or, of shape (n, s), for each.

    Attributes
    ----------
    sampling_weight : ndarray
        Inverse probability weight of a sampled key times its own weight; zero for those of known terms.
    residual_weight : ndarray
        Factor of squared residuals in the variance of a total; zero for keys drawn with probability one.
    rest : ndarray of shape (n,)
        Total weight of the keys without known terms.
    """

    sampling_weight: Array
    residual_weight: Array
    rest: Array

    def mean(self, values: Array) -> Array:
        """Estimate means over the keys without known terms."""
        return _rows_dot(values, self.sampling_weight) / self._sampled()

    def error(self, residual: Array, n_fitted: int) -> Array:
        """Standard error of the total over the keys without known terms; `residual` is overwritten.

        It is infinite where there are keys beyond those drawn, but too few were drawn to leave residuals.
        """
        squares = _rows_dot(np.square(residual, out=residual), self.residual_weight)
        drawn = np.count_nonzero(self.sampling_weight, axis=-1)
        degrees = drawn / np.maximum(drawn - n_fitted, 1)
        error: Array = self.rest / self._sampled() * np.sqrt(squares * degrees)
        few = drawn <= n_fitted
        if np.any(few):
            error[few & (self.residual_weight.any(axis=-1) | (drawn == 0) & (self.rest > 0))] = np.inf
        return error

    def _sampled(self) -> Array:
        """Total weight that the sample represents; 1 where it is zero, for then all sums are zero."""
        sampled = self.sampling_weight.sum(axis=-1)
        return np.where(sampled > 0, sampled, 1)


def _rows_dot(values: Array, weights: Array) -> Array:
    dots: Array = values @ weights if weights.ndim == 1 else np.einsum("ij,ij->i", values, weights)
    return dots


def _regress(
    f: Array,
    controls: _Controls,
    of_sample: tuple[Array, Array, Array],
    weight: Array,
    weights: _Weights,
    known: KnownTerms | None,
) -> tuple[Array, Array]:
    """Estimate the total of f over the keys without known terms by regression, and its standard error."""
    offset, h, g = of_sample
    y = f - offset
    my, mh, mg = (weights.mean(values) for values in (y, h, g))
    y -= my[:, None]
    h -= mh[:, None]
    g -= mg[:, None]
    hh, gg, hg, hy, gy = (weights.mean(a * b) for a, b in ((h, h), (g, g), (h, g), (h, y), (g, y)))
    hh, gg = hh * (1 + 1e-9), gg * (1 + 1e-9)  # constant or parallel regressors get no coefficient
    determinant = hh * gg - hg**2
    solvable = determinant > _TINY
    determinant = np.where(solvable, determinant, 1)
    by_h = np.where(solvable, (gg * hy - hg * gy) / determinant, hy / np.where(hh > 0, hh, 1))
    by_g = np.where(solvable, (hh * gy - hg * hy) / determinant, 0)
    total = controls.offset @ weight + weights.rest * (my - by_h * mh - by_g * mg)
    if known is not None:
        offsets, hs, gs = controls.total(known)
        total -= offsets + by_h * hs + by_g * gs
    h *= by_h[:, None]
    g *= by_g[:, None]
    y -= h
    y -= g
    return total, weights.error(y, 3)


def control_variate_estimate(
    scores: Array,
    sample: KeySample,
    sampling_weight: Array,
    kernel: Kernel,
    moments: tuple[Array, Array, Array],
    *,
    controls: bool = True,
    quadratic: bool = True,
    known: KnownTerms | None = None,
) -> tuple[Array, Array]:
    """Estimate log Z and its standard error from the scores of a sample, by regression on their known moments.

    `scores`, of shape (n, s), are those of the queries with the sampled keys, sorted by cluster as `split` returns
    them; they are overwritten. `moments` are the weight of each cluster, and mean and variance of the scores in it.
    The sample does not represent the keys whose terms are `known`. Squares of scores are regressors only if the
    variances are exact, `quadratic`. Without `controls` there is no regression, and where its error is the larger one
    it is not used either.
    """
    weight, mean, variance = moments
    log_f = kernel.log_value(scores)
    u, rest, reference = sampling_weight, np.full(len(scores), weight.sum()), np.full(len(scores), -np.inf)
    if known is not None:
        log_f = np.where(known.sampled, -np.inf, log_f)
        u = np.where(known.sampled, 0, sampling_weight)
        rest = np.maximum(rest - known.zeroth.sum(axis=1), 0)
        reference = known.log_mass
    reference = finite_or_zero(np.maximum(reference, log_f.max(axis=1, initial=-np.inf)))
    f = np.exp(log_f - reference[:, None])
    weights = _Weights(u, np.maximum(u * (u - sample.weight), 0), rest)

    average = weights.mean(f)
    total, error = rest * average, weights.error(f - average[:, None], 1)
    if controls:
        regressors = _Controls.of(mean, variance, kernel, reference, quadratic)
        of_sample = regressors.of_sample(np.bincount(sample.labels, minlength=len(weight)), scores)
        regressed, smaller = _regress(f, regressors, of_sample, weight, weights, known)
        better = smaller < error
        total, error = np.where(better, regressed, total), np.where(better, smaller, error)
        if np.isinf(error).any():  # only the mixture is left to estimate the rest
            offset = 0 if known is None else regressors.total(known)[0]
            total = np.where(np.isinf(error), np.maximum(regressors.offset @ weight - offset, 0), total)
    error = np.where(np.isinf(error), total, error)
    total = np.maximum(total, f @ sample.weight)  # Z is at least the sum of the terms that were seen
    total = np.maximum(total + (0 if known is None else np.exp(known.log_mass - reference)), 0)
    return LogSum(reference, total).log(), np.where(total > 0, error / np.where(total > 0, total, 1), 0)


def score_tails(queries: Array, sample: KeySample, moments: tuple[Array, Array, Array]) -> Array:
    """Measure how heavy the tails of the scores in each cluster are: 0 for a Gaussian, 1 for an excess kurtosis of 3.

    Two halves of variances 1 + tail and 1 - tail have an excess kurtosis of 3 tail^2, which is taken to be the median
    over the queries. Clusters of few sampled keys count as Gaussian.
    """
    weight, mean, variance = moments
    tails = np.zeros(len(weight))
    for a in range(len(weight)):
        keys = sample.keys[sample.labels == a][:_TAIL_KEYS]
        if len(queries) and len(keys) >= _FEW:
            t = (queries @ keys.T - mean[:, a : a + 1]) * _deviation(mean, variance)[1][:, a : a + 1]
            tails[a] = np.sqrt(np.clip(np.median(np.mean(t**4, axis=1)) / 3 - 1, 0, 1))
    return tails


def own_terms(
    own_weight: Array, own_score: Array, cluster: Integers, sampled: Mask, kernel: Kernel, mean: Array
) -> KnownTerms:
    """Return the term of each query's own key, if it is a key: the largest term that a sample can miss."""
    rows = np.arange(len(own_weight))
    zeroth = np.zeros_like(mean)
    zeroth[rows, cluster] = own_weight
    distance = (own_score - mean[rows, cluster])[:, None]
    return KnownTerms(
        log_of(own_weight) + kernel.log_value(own_score), zeroth, zeroth * distance, zeroth * distance**2, sampled
    )


def sampled_rows(hashes: Hashes, sample: KeySample, own_weight: Array) -> Mask:
    """Tell which sampled key is the query itself; ndarray of bool of shape (n, s)."""
    out = np.zeros((len(hashes), len(sample.hashes)), bool)
    if len(sample.hashes):
        order = np.argsort(sample.hashes)
        position = order[np.minimum(np.searchsorted(sample.hashes[order], hashes), len(order) - 1)]
        rows = np.flatnonzero((sample.hashes[position] == hashes) & (own_weight > 0))
        out[rows, position[rows]] = True
    return out
