"""Errors on keys whose log Z is known exactly: how wide an error bar has to be, and which method is good enough."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .inverted_index import n_keys_scanned
from .key_sketch import N_CHECKS, Cluster, KeySketch, Plan, sketch_keys
from .normalizers.estimator import Estimator
from .parallel import Runner
from .types import Array

# The largest sample that is tried for a cluster.
_LARGEST = 1000


# Share of keys to be covered: of queries that are no keys, which miss the own term, somewhat more are.
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


def calibration_set(estimator: Estimator, run: Runner) -> CalibrationSet:
    """The last keys drawn, and their exact log Z where it is finite."""
    plan, drawn = estimator.plan, estimator.summary.sample
    X, weight = drawn.keys[-N_CHECKS:], drawn.weight[-N_CHECKS:]
    log_z = estimator.estimate(X, "exact", run)[0] if len(X) else np.empty(0)
    finite = np.isfinite(log_z)
    X, weight, log_z = X[finite], weight[finite], log_z[finite]
    own = np.log(weight) + plan.kernel.log_value(plan.beta * np.einsum("ij,ij->i", X, X)) - log_z
    return CalibrationSet(X, weight, np.exp(np.minimum(own, 0)), log_z)


def calibration(estimator: Estimator, run: Runner) -> float:
    """The factor with which 95 % intervals cover their share of the checked keys (split conformal prediction)."""
    X, _, _, exact = calibration_set(estimator, run)
    if not len(X):
        return 1.0
    log_z, raw = estimator.estimate(X, estimator.plan.method, run, True)
    gap = np.minimum(np.abs(log_z - exact), 1e300)  # infinite where the estimate is of nothing
    measurable = gap > 1e-13 * (1 + np.abs(exact))  # beyond rounding
    ratio = np.where(measurable, gap / np.maximum(raw, 1e-12 * gap + 1e-300), 0)
    rank = min(int(np.ceil(_COVERED * (len(ratio) + 1))), len(ratio))
    return float(min(np.sort(ratio)[rank - 1] / NORMAL_95, 1e12)) or 1.0


def median_error(estimator: Estimator, checks: CalibrationSet, run: Runner) -> float:
    """Upper 95 % confidence limit of the median relative error of Z.

    The larger of that for queries that are keys and for queries that are none.
    """
    X, weight, own, exact = checks
    if not len(X):
        return 0.0
    ratio = np.exp(np.clip(estimator.estimate(X, estimator.plan.method, run)[0] - exact, -600, 600))
    among, rest = np.abs(ratio - 1), own < 1
    weight, own, ratio = weight[rest], own[rest], ratio[rest]
    if estimator.plan.knows_own or estimator.plan.method == "neighbors":
        apart = np.abs(ratio - 1) / (1 - own)
    else:
        apart = np.abs(ratio * (1 - weight / _total(estimator)) / (1 - own) - 1)
    return max(_upper_median(among), _upper_median(apart))


def _total(estimator: Estimator) -> float:
    """Weight of all keys."""
    return float(estimator.summary.statistics.weight.sum() + estimator.summary.heavy_weights.sum())


def _upper_median(errors: Array) -> float:
    """The order statistic that lies above the median 95 times in 100; zero for no errors at all."""
    rank = int(np.ceil(len(errors) / 2 + 0.82 * np.sqrt(len(errors))))
    return float(np.sort(errors)[min(rank, len(errors)) - 1]) if len(errors) else 0.0


def _cost(plan: Plan, n_keys: int, d: int) -> float:
    """Multiplications for a query and, as there may be as many of them, a key."""
    mixture = 2 * (1 + plan.n_clusters) * d * d
    sampled = plan.sample_size * (2 * d + 40)
    if plan.method == "gaussian":
        return mixture
    if plan.method == "control_variate":
        return mixture + sampled
    if plan.method == "neighbors":
        return mixture + sampled + min(n_keys_scanned(plan.n_exact), n_keys) * (2 * d + 30) + n_keys / 256 * 2 * d
    return n_keys * (2 * d + 10)


def _candidates(plan: Plan, n_keys: int, d: int) -> Iterator[Plan]:
    """Plans in order of cost, the exact one last."""
    plans = [plan._replace(method="gaussian", n_clusters=k) for k in (1, 4, 16)]
    plans += [
        plan._replace(method="control_variate", n_clusters=k, n_samples=s)
        for k, s in ((1, 250), (1, _LARGEST), (4, 250), (4, _LARGEST), (16, 250))
    ]
    plans += [plan._replace(method="neighbors", n_clusters=8, n_samples=125, n_exact=e) for e in (4, 16, 64, 256, 1024)]
    exact = plan._replace(method="exact", n_clusters=1)
    most = _cost(exact, n_keys, d)
    affordable = sorted((_cost(p, n_keys, d), i) for i, p in enumerate(plans))
    yield from (plans[i] for cost, i in affordable if cost < most)
    yield exact


def choose(
    keys: Array, weights: Array | None, plan: Plan, tol: float, cluster: Cluster, run: Runner
) -> tuple[Plan, float]:
    """The cheapest plan whose estimated median relative error is at most `tol`, and that estimate."""
    families: dict[tuple[str, int], tuple[KeySketch, CalibrationSet]] = {}
    for candidate in _candidates(plan, *keys.shape):
        if candidate.method == "exact":
            error = 0.0
            break
        # A sample holds every smaller one: keys are summarised, and checks summed, once for all of its sizes.
        family = (candidate.method, candidate.n_clusters)
        if family not in families:
            summary, _ = sketch_keys(keys, weights, candidate._replace(n_samples=_LARGEST), cluster, run)
            families[family] = summary, calibration_set(Estimator(candidate, summary, keys, weights, None), run)
        summary, checks = families[family]
        error = median_error(Estimator(candidate, summary, keys, weights, None), checks, run)
        if error <= tol:
            break
    return candidate, error
