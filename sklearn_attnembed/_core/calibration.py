"""Calibration on keys whose log Z is known exactly: the scale of standard errors, and the choice of a method."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .key_sketch import FittedKeys, KeySketch, Plan
from .normalizers import CONTROL_VARIATE, EXACT, GAUSSIAN, NEIGHBORS, NORMALIZERS
from .normalizers.evaluation import estimate, exact_log_z, fitted_keys
from .parallel import Runner
from .sketching import N_CHECKS, Cluster, sketch_keys
from .types import Array

# The largest sample for a cluster that is tried.
_LARGEST = 1000

# Share of keys that intervals are made to cover. Queries that are not keys have no own term, and more are covered.
_COVERED = 0.94

# Two-sided 95 % of a normal distribution.
NORMAL_95 = 1.959963984540054


class CalibrationSet(NamedTuple):
    """Keys whose log Z is known.

    Attributes
    ----------
    keys : ndarray of shape (n, d)
    weight, own, log_z : ndarray of shape (n,)
        Weight of the key, its own term relative to Z, and exact log Z.
    """

    keys: Array
    weight: Array
    own: Array
    log_z: Array


def calibration_set(fitted: FittedKeys, run: Runner) -> CalibrationSet:
    """Return the last keys drawn, and their exact log Z where it is finite."""
    plan, drawn = fitted.plan, fitted.sketch.sample
    X, weight = drawn.keys[-N_CHECKS:], drawn.weight[-N_CHECKS:]
    log_z = exact_log_z(fitted, X, run) if len(X) else np.empty(0)
    finite = np.isfinite(log_z)
    X, weight, log_z = X[finite], weight[finite], log_z[finite]
    own = np.log(weight) + plan.kernel.log_value(plan.beta * np.einsum("ij,ij->i", X, X)) - log_z
    return CalibrationSet(X, weight, np.exp(np.minimum(own, 0)), log_z)


def calibration(fitted: FittedKeys, run: Runner) -> float:
    """Find the factor with which 95 % intervals cover their share of the set (split conformal prediction)."""
    X, _, _, exact = calibration_set(fitted, run)
    if not len(X):
        return 1.0
    log_z, raw = estimate(fitted, X, run, with_error=True)
    gap = np.minimum(np.abs(log_z - exact), 1e300)  # infinite where the estimate is log 0
    measurable = gap > 1e-13 * (1 + np.abs(exact))  # more than rounding
    ratio = np.where(measurable, gap / np.maximum(raw, 1e-12 * gap + 1e-300), 0)
    rank = min(int(np.ceil(_COVERED * (len(ratio) + 1))), len(ratio))
    return float(min(np.sort(ratio)[rank - 1] / NORMAL_95, 1e12)) or 1.0


def median_error(fitted: FittedKeys, checks: CalibrationSet, run: Runner) -> float:
    """Upper 95 % confidence limit of the median relative error of Z.

    It is the larger of those for queries that are keys and for queries that are not.
    """
    X, weight, own, exact = checks
    if not len(X):
        return 0.0
    ratio = np.exp(np.clip(estimate(fitted, X, run)[0] - exact, -600, 600))
    among, rest = np.abs(ratio - 1), own < 1
    weight, own, ratio = weight[rest], own[rest], ratio[rest]
    normalizer = NORMALIZERS[fitted.plan.method]
    if normalizer.has_hash_index or normalizer.has_cells:  # the own term is summed exactly
        apart = np.abs(ratio - 1) / (1 - own)
    else:
        apart = np.abs(ratio * (1 - weight / fitted.sketch.total_weight) / (1 - own) - 1)
    return max(_upper_median(among), _upper_median(apart))


def _upper_median(errors: Array) -> float:
    """Return the order statistic that lies above the median 95 times in 100; zero without any errors."""
    rank = int(np.ceil(len(errors) / 2 + 0.82 * np.sqrt(len(errors))))
    return float(np.sort(errors)[min(rank, len(errors)) - 1]) if len(errors) else 0.0


def _candidates(plan: Plan, n_keys: int, d: int) -> Iterator[Plan]:
    """Return plans in order of cost, the exact one last."""
    plans = [plan._replace(method=GAUSSIAN.name, n_clusters=k) for k in (1, 4, 16)]
    plans += [
        plan._replace(method=CONTROL_VARIATE.name, n_clusters=k, n_samples=s)
        for k, s in ((1, 250), (1, _LARGEST), (4, 250), (4, _LARGEST), (16, 250))
    ]
    plans += [
        plan._replace(method=NEIGHBORS.name, n_clusters=8, n_samples=125, n_exact=e) for e in (4, 16, 64, 256, 1024)
    ]
    exact = plan._replace(method=EXACT.name, n_clusters=1)
    costs = [NORMALIZERS[p.method].cost(p, n_keys, d) for p in plans]
    most = EXACT.cost(exact, n_keys, d)
    yield from (plans[i] for i in np.argsort(costs, kind="stable") if costs[i] < most)
    yield exact


def choose(
    keys: Array, weights: Array | None, plan: Plan, tol: float, cluster: Cluster, run: Runner
) -> tuple[Plan, float]:
    """Return the cheapest plan whose estimated median relative error is at most `tol`, and that estimate."""
    families: dict[tuple[str, int], tuple[KeySketch, CalibrationSet]] = {}
    for candidate in _candidates(plan, *keys.shape):
        if NORMALIZERS[candidate.method].is_exact:
            error = 0.0
            break
        # A sample contains every smaller one, so one sketch and one calibration set serve all sizes.
        family = (candidate.method, candidate.n_clusters)
        if family not in families:
            sketch, _ = sketch_keys(keys, weights, candidate._replace(n_samples=_LARGEST), cluster, run)
            checks = calibration_set(fitted_keys(candidate, sketch, keys, weights, None), run)
            families[family] = sketch, checks
        sketch, checks = families[family]
        error = median_error(fitted_keys(candidate, sketch, keys, weights, None), checks, run)
        if error <= tol:
            break
    return candidate, error
