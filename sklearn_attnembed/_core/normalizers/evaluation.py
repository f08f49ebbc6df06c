"""Evaluation of any normalizer: blocks of queries on threads, and the heaviest keys summed exactly."""

from collections.abc import Iterator

import numpy as np

from ..inverted_index import nearest_center
from ..key_sketch import FittedKeys, KeySketch, Plan
from ..logsum import log_difference, log_sum
from ..parallel import Runner
from ..sampling import split
from ..types import Array, Integers
from . import EXACT, NORMALIZERS, Normalizer
from .mixture import gaussian_log_mass
from .random_features import orthogonal_frequencies


def frequencies_of(plan: Plan, d: int) -> Array | None:
    """Return the frequencies of random features in `d` dimensions, always the same; None for other methods."""
    if NORMALIZERS[plan.method].feature_sums is None:
        return None
    return orthogonal_frequencies(d, plan.n_components, plan.seed)


def fitted_keys(
    plan: Plan, sketch: KeySketch, keys: Array | None, weights: Array | None, labels: Integers | None
) -> FittedKeys:
    """Gather what queries are evaluated with."""
    # The error of a mixture needs fewer keys than an estimate does.
    size = plan.sample_size if NORMALIZERS[plan.method].uses_sample else plan.n_samples
    sample, sampling_weight, _ = split(sketch.sample, size)
    log_weights = None if weights is None else np.log(weights)
    frequencies = frequencies_of(plan, sketch.centers.shape[1])
    return FittedKeys(plan, sketch, keys, log_weights, labels, sample, sampling_weight, frequencies)


def estimate(fitted: FittedKeys, X: Array, run: Runner, with_error: bool = False) -> tuple[Array, Array]:
    """Estimate log Z of any number of queries and its standard error, which is zero unless asked for or at hand."""
    normalizer = NORMALIZERS[fitted.plan.method]
    blocks = list(_blocks(normalizer, fitted, len(X)))

    def one(block: int) -> tuple[Array, Array]:
        return _log_z(normalizer, fitted, X[blocks[block]].astype(np.float64), with_error)

    log_z, error = (np.concatenate(column) for column in zip(*run(one, range(len(blocks))), strict=True))
    return log_z, error


def exact_log_z(fitted: FittedKeys, X: Array, run: Runner) -> Array:
    """Sum over all keys, which have to be kept, for log Z of any number of queries."""
    return estimate(fitted._replace(plan=fitted.plan._replace(method=EXACT.name)), X, run)[0]


def log_masses(fitted: FittedKeys, X: Array, run: Runner) -> Array:
    """Estimate the log mass of every cluster for any number of queries."""
    normalizer = NORMALIZERS[fitted.plan.method]
    blocks = list(_blocks(normalizer, fitted, len(X)))

    def one(block: int) -> Array:
        return _log_mass(normalizer, fitted, X[blocks[block]].astype(np.float64))

    return np.concatenate(list(run(one, range(len(blocks)))))


def _blocks(normalizer: Normalizer, fitted: FittedKeys, n: int) -> Iterator[slice]:
    step = normalizer.block_rows(fitted, n)
    return (slice(i, min(i + step, n)) for i in range(0, n, step))


def _log_z(normalizer: Normalizer, fitted: FittedKeys, X: Array, with_error: bool) -> tuple[Array, Array]:
    """Estimate log Z of one block, the heaviest keys included."""
    sketch = fitted.sketch
    if normalizer.is_exact or sketch.statistics.weight.any():
        log_z, error = normalizer.estimate(fitted, X, with_error)
    else:  # every key is one of the heaviest
        log_z, error = np.full(len(X), -np.inf), np.zeros(len(X))
    if normalizer.is_exact or not len(sketch.heavy_keys):
        return log_z, error
    with_heavy = np.logaddexp(log_z, log_sum(_heavy_terms(fitted, X)))
    return with_heavy, error * np.exp(log_difference(log_z, with_heavy))


def _log_mass(normalizer: Normalizer, fitted: FittedKeys, X: Array) -> Array:
    """Estimate log masses of one block, the heaviest keys included.

    Unless the normalizer has masses of its own, its Z is split as the mixture splits it.
    """
    plan, sketch = fitted.plan, fitted.sketch
    if normalizer.log_mass is not None:
        log_mass = normalizer.log_mass(fitted, X)
    else:
        log_mass = gaussian_log_mass(X, sketch.statistics, plan.kernel, plan.beta, sketch.tails)
        if sketch.statistics.weight.any():
            mixture = log_sum(log_mass)
            correction = normalizer.estimate(fitted, X, False)[0] - np.where(np.isfinite(mixture), mixture, 0)
            log_mass += np.where(np.isfinite(mixture), correction, 0)[:, None]
    if len(sketch.heavy_keys) and not normalizer.is_exact:
        terms, nearest = _heavy_terms(fitted, X), nearest_center(sketch.heavy_keys, sketch.centers)
        for a in np.unique(nearest):
            log_mass[:, a] = np.logaddexp(log_mass[:, a], log_sum(terms[:, nearest == a]))
    return log_mass


def _heavy_terms(fitted: FittedKeys, X: Array) -> Array:
    """Logarithms of the terms of the heaviest keys."""
    scores = fitted.plan.beta * (X @ fitted.sketch.heavy_keys.T)
    return fitted.plan.kernel.log_value(scores) + np.log(fitted.sketch.heavy_weights)
