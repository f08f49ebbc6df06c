"""Calibration and the choice of a method against their definitions."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm

from sklearn_attnembed._core.calibration import (
    NORMAL_95,
    CalibrationSet,
    _candidates,
    calibration,
    calibration_set,
    choose,
    median_error,
)
from sklearn_attnembed._core.kernels import SOFTMAX
from sklearn_attnembed._core.key_sketch import Plan
from sklearn_attnembed._core.normalizers import NORMALIZERS
from sklearn_attnembed._core.normalizers.evaluation import estimate, fitted_keys
from sklearn_attnembed._core.sketching import sketch_keys
from sklearn_attnembed._sklearn import cluster_centers

RNG = np.random.default_rng(0)
KEYS, WEIGHTS = RNG.gamma(2, size=(3000, 3)) / 3, RNG.uniform(0.5, 2, 3000)


def plan(**changes):
    settings = {"kernel": SOFTMAX, "beta": 1.3, "method": "control_variate", "n_clusters": 1, "seed": 0}
    settings |= {"covariance_type": "full", "n_samples": 40, "n_exact": 4, "n_heavy": 0, "n_components": 10}
    return Plan(**{**settings, **changes})


def fitted(keys=KEYS, weights=WEIGHTS, **changes):
    sketch, labels = sketch_keys(keys, weights, plan(**changes), cluster_centers, map)
    return fitted_keys(plan(**changes), sketch, keys, weights, labels)


def test_set_holds_the_last_keys_drawn():
    checks = calibration_set(fitted(), map)
    drawn = fitted().sketch.sample
    assert_array_equal(checks.keys, drawn.keys[-512:])
    assert_array_equal(checks.weight, drawn.weight[-512:])
    z = np.exp(1.3 * checks.keys @ KEYS.T) @ WEIGHTS
    assert_allclose(checks.log_z, np.log(z))
    assert_allclose(checks.own, checks.weight * np.exp(1.3 * np.sum(checks.keys**2, axis=1)) / z)


@pytest.mark.parametrize("method", ["gaussian", "control_variate", "sampling"])
def test_scaled_intervals_cover_their_share(method):
    model = fitted(method=method)
    checks, factor = calibration_set(model, map), calibration(model, map)
    log_z, error = estimate(model, checks.keys, map, True)
    ratio = np.abs(log_z - checks.log_z) / error
    assert_allclose(factor, np.sort(ratio)[int(np.ceil(0.94 * 513)) - 1] / NORMAL_95)


def test_factor_is_of_a_normal_distribution():
    assert_allclose(NORMAL_95, norm.ppf(0.975))


def test_nothing_to_calibrate():
    keys = np.zeros((5, 3))
    assert calibration(fitted(keys, None, n_heavy=5), map) == 1
    assert calibration(fitted(keys, None), map) == 1  # exact estimates, up to rounding
    empty = CalibrationSet(np.empty((0, 3)), *np.empty((3, 0)))
    assert median_error(fitted(), empty, map) == 0


@pytest.mark.parametrize("method", ["gaussian", "control_variate"])
def test_median_error_is_the_larger_of_two(method):
    model = fitted(method=method)
    checks = calibration_set(model, map)
    ratio = np.exp(estimate(model, checks.keys, map)[0] - checks.log_z)
    rank = int(np.ceil(256 + 0.82 * np.sqrt(512))) - 1
    among = np.sort(np.abs(ratio - 1))[rank]
    if method == "gaussian":  # Z without the key, its own term and its weight taken away
        apart = np.abs(ratio * (1 - checks.weight / WEIGHTS.sum()) / (1 - checks.own) - 1)
    else:
        apart = np.abs(ratio - 1) / (1 - checks.own)
    assert_allclose(median_error(model, checks, map), max(among, np.sort(apart)[rank]))


def test_keys_that_are_all_of_z_tell_nothing_of_others():
    model = fitted()
    checks = calibration_set(model, map)
    alone = checks._replace(own=np.ones(len(checks.own)), log_z=checks.log_z + 0.1)
    ratio = np.exp(estimate(model, checks.keys, map)[0] - alone.log_z)
    rank = int(np.ceil(256 + 0.82 * np.sqrt(512))) - 1
    assert_allclose(median_error(model, alone, map), np.sort(np.abs(ratio - 1))[rank])


@pytest.mark.parametrize(("tol", "method"), [(0.5, "gaussian"), (0.015, "control_variate"), (1e-9, "exact")])
def test_cheapest_plan_that_is_accurate_enough(tol, method):
    tried = [plan(method="gaussian", n_clusters=k) for k in (1, 4, 16)]
    pairs = ((1, 250), (1, 1000), (4, 250), (4, 1000), (16, 250))
    tried += [plan(method="control_variate", n_clusters=k, n_samples=n) for k, n in pairs]
    tried += [
        plan(method="neighbors", n_clusters=8, n_samples=125, n_exact=n_exact) for n_exact in (4, 16, 64, 256, 1024)
    ]
    last = plan(method="exact")
    costs = {candidate: NORMALIZERS[candidate.method].cost(candidate, 3000, 3) for candidate in [*tried, last]}
    chosen, error = choose(KEYS, WEIGHTS, plan(), tol, cluster_centers, map)
    assert error <= tol
    for candidate in sorted(tried, key=costs.get):
        if candidate == chosen or costs[candidate] >= costs[last]:
            break
        largest = candidate._replace(n_samples=1000)
        sketch, _ = sketch_keys(KEYS, WEIGHTS, largest, cluster_centers, map)
        model = fitted_keys(candidate, sketch, KEYS, WEIGHTS, None)
        assert median_error(model, calibration_set(model, map), map) > tol
    assert chosen in costs
    assert chosen.method == method


def test_plans_are_tried_in_order_of_cost():
    given = plan(n_components=7, n_heavy=2)
    tried = [given._replace(method="gaussian", n_clusters=k) for k in (1, 4, 16)]
    pairs = ((1, 250), (1, 1000), (4, 250), (4, 1000), (16, 250))
    tried += [given._replace(method="control_variate", n_clusters=k, n_samples=n) for k, n in pairs]
    for n_exact in (4, 16, 64, 256, 1024):
        tried.append(given._replace(method="neighbors", n_clusters=8, n_samples=125, n_exact=n_exact))
    tried.sort(key=lambda candidate: NORMALIZERS[candidate.method].cost(candidate, 10**7, 3))
    last = given._replace(method="exact", n_clusters=1)
    assert list(_candidates(given, 10**7, 3)) == [*tried, last]
    assert list(_candidates(given, 10, 3)) == [tried[0], tried[1], last]  # 36, 90 and 160 multiplications
    assert list(_candidates(given, 2, 3)) == [last]
