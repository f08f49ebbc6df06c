"""Sums over all keys from a sample of them.

The sample is drawn by a hash of what the keys are, not of where they stand: whatever the order, the chunks and the
precision, the same keys make the same sample, and the samples of two sets of keys merge into that of their union.
"""

from typing import NamedTuple

import numpy as np

from ..kernels import Kernel
from ..sampling import _TINY, KeySample
from ..types import Array, Hashes, Integers, Mask

# A standard deviation of scores below this part of their size is rounding.
_ROUNDING = 1e-12


# Keys that tell a kurtosis: so many are enough, fewer than so many are not.
_TAIL_KEYS, _FEW = 2000, 50


class KnownTerms(NamedTuple):
    """Keys whose terms a query knows exactly, summed up by cluster.

    Attributes
    ----------
    log_mass : ndarray of shape (n,)
        log of the sum of their terms.
    zeroth, first, second : ndarray of shape (n, kappa)
        Sums of their weights, times the score's distance from its cluster's mean, times the square of that.
    sampled : ndarray of bool of shape (n, s)
        Which keys of the sample are among them.
    """

    log_mass: Array
    zeroth: Array
    first: Array
    second: Array
    sampled: Mask


class _Controls(NamedTuple):
    """The regressors a_1 t and a_2 (t^2 - 1), t the score standardised in its cluster, and the offset E f.

    Their means over all keys of a cluster are zero. The a are the Hermite coefficients of f under the Gaussian, so that
    a regression with two coefficients for all clusters fits; divided by the largest, so that squares neither overflow
    nor vanish. They are zero where all scores of a cluster are one to rounding.
    """

    offset: Array
    linear: Array
    quadratic: Array
    mean: Array
    inverse: Array

    @classmethod
    def of(cls, mean: Array, variance: Array, kernel: Kernel, reference: Array, quadratic: bool) -> "_Controls":
        deviation, inverse = _deviation(mean, variance)
        # No cluster's mean term is taken above the largest term seen: a Gaussian's tail may promise far more.
        offset = np.exp(np.minimum(kernel.log_expectation(mean, variance) - reference[:, None], 0))
        slope, curvature = kernel.derivatives(mean, variance)
        linear, squared = offset * (deviation * slope), offset * (deviation * curvature * deviation) * quadratic
        return cls(offset, _to_one(linear), _to_one(squared), mean, inverse)

    def spread(self, counts: Integers, scores: Array) -> tuple[Array, Array, Array]:
        """Offset and regressors of every sampled key; `scores` are overwritten."""
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

    def total(self, census: KnownTerms) -> tuple[Array, Array, Array]:
        """Sums of offset and regressors over a census."""
        t = census.first * self.inverse
        squares = census.second * self.inverse**2 - census.zeroth
        return (
            np.einsum("ij,ij->i", census.zeroth, self.offset),
            np.einsum("ij,ij->i", t, self.linear),
            np.einsum("ij,ij->i", squares, self.quadratic),
        )


def _deviation(mean: Array, variance: Array) -> tuple[Array, Array]:
    """Standard deviation of scores, and one over it; zero both where it is rounding."""
    deviation = np.sqrt(variance)
    deviation *= deviation > np.maximum(_ROUNDING * np.abs(mean), 1e-150)
    return deviation, np.divide(1, deviation, where=deviation > 0, out=np.zeros_like(deviation))


def _to_one(coefficients: Array) -> Array:
    """Rows divided by their largest entry in size."""
    largest = np.abs(coefficients).max(axis=1, keepdims=True)
    scaled: Array = coefficients / np.where(largest > 0, largest, 1)
    return scaled


class _Weights(NamedTuple):
    """How sampled keys count, for all queries or, of shape (n, s), for each.

    Attributes
    ----------
    stands_for : ndarray
        Key weight that a sampled key stands for, zero for those of a census.
    unseen : ndarray
        Factor of squared residuals in the variance of a total; zero for keys drawn for certain.
    rest : ndarray of shape (n,)
        Weight of all keys that the sample stands for.
    """

    sampling_weight: Array
    unseen: Array
    rest: Array

    def mean(self, values: Array) -> Array:
        """Estimated means over the rest."""
        return _rows_dot(values, self.sampling_weight) / self._known()

    def error(self, residual: Array, n_fitted: int) -> Array:
        """Standard error of the total of the rest; `residual` is overwritten.

        Infinite where there are keys beyond those drawn, of which there are too few to leave residuals.
        """
        squares = _rows_dot(np.square(residual, out=residual), self.unseen)
        drawn = np.count_nonzero(self.sampling_weight, axis=-1)
        degrees = drawn / np.maximum(drawn - n_fitted, 1)
        error: Array = self.rest / self._known() * np.sqrt(squares * degrees)
        few = drawn <= n_fitted
        if np.any(few):
            error[few & (self.unseen.any(axis=-1) | (drawn == 0) & (self.rest > 0))] = np.inf
        return error

    def _known(self) -> Array:
        """Weight that the sample stands for, 1 where there is none left: all sums are zero then."""
        known = self.sampling_weight.sum(axis=-1)
        return np.where(known > 0, known, 1)


def _rows_dot(values: Array, weights: Array) -> Array:
    dots: Array = values @ weights if weights.ndim == 1 else np.einsum("ij,ij->i", values, weights)
    return dots


def _regress(
    f: Array,
    control: _Controls,
    spread: tuple[Array, Array, Array],
    weight: Array,
    weights: _Weights,
    census: KnownTerms | None,
) -> tuple[Array, Array]:
    """The total of f over all keys but a census, plus the census' own controls taken off, and its error."""
    offset, h, g = spread
    y = f - offset
    my, mh, mg = (weights.mean(values) for values in (y, h, g))
    y -= my[:, None]
    h -= mh[:, None]
    g -= mg[:, None]
    hh, gg, hg, hy, gy = (weights.mean(a * b) for a, b in ((h, h), (g, g), (h, g), (h, y), (g, y)))
    hh, gg = hh * (1 + 1e-9), gg * (1 + 1e-9)  # regressors that are constant or parallel have no say
    determinant = hh * gg - hg**2
    solvable = determinant > _TINY
    determinant = np.where(solvable, determinant, 1)
    by_h = np.where(solvable, (gg * hy - hg * gy) / determinant, hy / np.where(hh > 0, hh, 1))
    by_g = np.where(solvable, (hh * gy - hg * hy) / determinant, 0)
    total = control.offset @ weight + weights.rest * (my - by_h * mh - by_g * mg)
    if census is not None:
        offsets, hs, gs = control.total(census)
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
    census: KnownTerms | None = None,
) -> tuple[Array, Array]:
    """log Z and its standard error from the scores of a sample, by regression on the scores' known moments.

    Parameters
    ----------
    scores : ndarray of shape (n, s)
        Of the queries with the sampled keys, which are sorted by cluster; overwritten.
    sample, stands_for : KeySample and ndarray of shape (s,)
        From `split`.
    kernel : Kernel
    moments : tuple of ndarray
        Weight of each cluster (kappa,), mean and variance of the scores in it (n, kappa).
    controls : bool
        Whether to regress at all; where it makes the error larger it is not done either.
    quadratic : bool
        Whether the variances are exact, so that squares of scores can serve.
    census : Census or None
        Keys summed exactly, which the sample does not stand for.
    """
    weight, mean, variance = moments
    log_f = kernel.log_value(scores)
    u, rest, top = sampling_weight, np.full(len(scores), weight.sum()), np.full(len(scores), -np.inf)
    if census is not None:
        log_f = np.where(census.sampled, -np.inf, log_f)
        u = np.where(census.sampled, 0, sampling_weight)
        rest = np.maximum(rest - census.zeroth.sum(axis=1), 0)
        top = census.log_mass
    top = np.maximum(top, log_f.max(axis=1))
    reference = np.where(np.isfinite(top), top, 0)
    f = log_f - reference[:, None]
    np.exp(f, out=f)
    exact = 0 if census is None else np.exp(census.log_mass - reference)
    weights = _Weights(u, np.maximum(u * (u - sample.weight), 0), rest)

    average = weights.mean(f)
    total, error = rest * average, weights.error(f - average[:, None], 1)
    if controls:
        control = _Controls.of(mean, variance, kernel, reference, quadratic)
        spread = control.spread(np.bincount(sample.labels, minlength=len(weight)), scores)
        regressed, smaller = _regress(f, control, spread, weight, weights, census)
        better = smaller < error
        total, error = np.where(better, regressed, total), np.where(better, smaller, error)
        if np.isinf(error).any():  # the mixture alone speaks for the rest
            known = 0 if census is None else control.total(census)[0]
            total = np.where(np.isinf(error), np.maximum(control.offset @ weight - known, 0), total)
    error = np.where(np.isinf(error), total, error)
    total = np.maximum(total, f @ sample.weight) + exact  # the terms that were seen are there
    empty = total <= 0
    return (
        np.where(empty, -np.inf, reference + np.log(np.where(empty, 1, total))),
        np.where(empty, 0, error / np.where(empty, 1, total)),
    )


def score_tails(queries: Array, sample: KeySample, moments: tuple[Array, Array, Array]) -> Array:
    """How heavy the tails of the scores are in each cluster: 0 for a Gaussian's, 1 for an excess kurtosis of three.

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
    own_weight: Array,
    own_score: Array,
    cluster: Integers,
    sampled: Mask,
    kernel: Kernel,
    mean: Array,
) -> KnownTerms:
    """Each query's own key, where it is one: the largest term that a sample can miss."""
    rows = np.arange(len(own_weight))
    count = np.zeros_like(mean)
    count[rows, cluster] = own_weight
    distance = (own_score - mean[rows, cluster])[:, None]
    with np.errstate(divide="ignore"):
        log_mass = np.log(own_weight) + kernel.log_value(own_score)
    return KnownTerms(log_mass, count, count * distance, count * distance**2, sampled)


def sampled_rows(marks: Hashes, sample: KeySample, own_weight: Array) -> Mask:
    """Which sampled key is the query itself; ndarray of bool of shape (n, s)."""
    out = np.zeros((len(marks), len(sample.marks)), bool)
    if len(sample.marks):
        order = np.argsort(sample.marks)
        position = order[np.minimum(np.searchsorted(sample.marks[order], marks), len(order) - 1)]
        rows = np.flatnonzero((sample.marks[position] == marks) & (own_weight > 0))
        out[rows, position[rows]] = True
    return out
