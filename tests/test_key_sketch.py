"""Key sketches: what they hold, and that sketches of parts merge into that of all keys."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_attnembed._core.kernels import KERNELS
from sklearn_attnembed._core.key_sketch import Plan
from sklearn_attnembed._core.normalizers import NORMALIZERS
from sklearn_attnembed._core.sampling import hash_rows, indexed_weight
from sklearn_attnembed._core.sketching import N_CHECKS, merge_sketches, sketch_keys
from sklearn_attnembed._core.statistics import block_statistics
from sklearn_attnembed._sklearn import cluster_centers

RNG = np.random.default_rng(0)
KEYS = RNG.standard_normal((1500, 3))
WEIGHTS = RNG.uniform(0.5, 2, 1500)


def plan(**changes):
    settings = {"kernel": KERNELS["softmax"], "beta": 1.3, "method": "control_variate", "n_clusters": 1, "seed": 0}
    settings |= {"covariance_type": "full", "n_samples": 40, "n_exact": 4, "n_heavy": 0, "n_components": 10}
    return Plan(**{**settings, **changes})


def sketch(rows=slice(None), weights=WEIGHTS, before=None, **changes):
    w = None if weights is None else weights[rows]
    return sketch_keys(KEYS[rows], w, plan(**changes), cluster_centers, map, before)[0]


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("kernel", ["softmax", "squared"])
def test_heaviest_keys_are_apart(kernel, weights):
    made = sketch(weights=weights, kernel=KERNELS[kernel], n_heavy=7)
    w = np.ones(1500) if weights is None else weights
    norms = np.sum(KEYS**2, axis=1) * 1.3
    own = w * (np.exp(norms) if kernel == "softmax" else norms**2)
    heavy = np.argsort(-own)[:7]
    assert_array_equal(np.sort(made.heavy_keys, axis=0), np.sort(KEYS[heavy], axis=0))
    assert_allclose(np.sort(made.heavy_weights), np.sort(w[heavy]))
    light = np.setdiff1d(np.arange(1500), heavy)
    for a, b in zip(made.statistics, block_statistics(KEYS[light], w[light]), strict=True):
        assert_allclose(a, b)
    assert not np.isin(made.sample.rows, heavy).any()
    assert_allclose(made.total_weight, w.sum())
    assert_array_equal(indexed_weight(made.hash_index, hash_rows(KEYS[heavy])), 0)
    assert_allclose(indexed_weight(made.hash_index, hash_rows(KEYS[light])), w[light])


def test_all_keys_may_be_heavy():
    made = sketch(n_heavy=1500)
    assert_array_equal(made.heavy_keys, KEYS)
    assert made.statistics.weight.sum() == 0
    assert not len(made.sample.keys)


def test_clusters_are_those_of_the_nearest_centers():
    made, labels = sketch_keys(KEYS, WEIGHTS, plan(n_clusters=4, covariance_type="diag"), cluster_centers, map)
    nearest = np.argmin(((KEYS[:, None] - made.centers) ** 2).sum(axis=2), axis=1)
    assert_array_equal(labels, nearest)
    for a in range(4):
        assert_allclose(made.statistics.weight[a], WEIGHTS[nearest == a].sum())
        assert_allclose(made.statistics.mean[a], np.average(KEYS[nearest == a], axis=0, weights=WEIGHTS[nearest == a]))
    assert made.statistics.scatter.shape == (4, 3)
    assert_array_equal(made.sample.labels, nearest[made.sample.rows])
    assert_array_equal(made.sample.keys, KEYS[made.sample.rows])
    assert len(made.sample.keys) == 4 * 40 + N_CHECKS + 1
    assert_allclose(np.sort(made.centers, axis=0), np.sort(made.statistics.mean, axis=0), atol=0.3)


def test_few_keys_have_few_clusters():
    assert sketch(slice(2), n_clusters=5).centers.shape == (2, 3)
    assert_array_equal(sketch(slice(1), n_clusters=5).centers, np.zeros((1, 3)))
    assert_array_equal(sketch().centers, np.zeros((1, 3)))


@pytest.mark.parametrize("method", NORMALIZERS)
def test_only_what_is_needed_is_kept(method):
    made, needs = sketch(method=method), NORMALIZERS[method]
    assert bool(made.hash_index) == needs.has_hash_index
    assert (made.cells is not None) == needs.has_cells
    assert (made.features is not None) == (needs.feature_sums is not None)
    assert made.tails is None
    assert sketch(method="gaussian", kernel=KERNELS["expressive"]).tails.shape == (1,)


def test_cells_hold_the_light_keys():
    made = sketch(method="neighbors", n_heavy=5)
    assert len(made.cells.order) == 1495
    for cell, row in zip(made.sample.cells, made.sample.rows, strict=True):
        assert row in made.cells.order[made.cells.starts[cell] : made.cells.starts[cell + 1]]
    assert sketch(method="neighbors", n_heavy=1500).cells is None


def same(a, b):
    """Whether two sketches are equal, wherever the sampled keys stood."""
    assert_allclose(a.centers, b.centers)
    for x, y in zip(a.statistics, b.statistics, strict=True):
        assert_allclose(x, y, rtol=1e-10, atol=1e-10)
    for name in ("keys", "weight", "hashes", "exponential", "labels"):
        assert_allclose(getattr(a.sample, name).astype(float), getattr(b.sample, name).astype(float))
    order, other = (np.lexsort(part.heavy_keys.T) for part in (a, b))
    assert_array_equal(a.heavy_keys[order], b.heavy_keys[other])
    assert_allclose(a.heavy_weights[order], b.heavy_weights[other])
    hashes = hash_rows(KEYS)
    assert_allclose(indexed_weight(a.hash_index, hashes), indexed_weight(b.hash_index, hashes))


@pytest.mark.parametrize("n_heavy", [0, 6])
@pytest.mark.parametrize("kernel", ["softmax", "expressive"])
@pytest.mark.parametrize("method", ["control_variate", "random_fourier", "gaussian"])
def test_parts_merge_to_the_whole(method, kernel, n_heavy):
    changes = {"method": method, "kernel": KERNELS[kernel], "n_heavy": n_heavy}
    first, second = slice(900), slice(700, 1500)  # some keys are in both
    both = np.r_[np.arange(900), np.arange(700, 1500)]
    whole = sketch(both, **changes)
    a, b = sketch(first, **changes), sketch(second, **changes)
    merged = merge_sketches(a, b, plan(**changes), cluster_centers, map)
    if not n_heavy:  # copies of a heavy key are heavy one by one
        same(merged, whole)
        added = sketch(second, before=a, **changes)
        same(merge_sketches(a, added, plan(**changes), cluster_centers, map), whole)
    assert_allclose(merged.total_weight, WEIGHTS[both].sum())
    if method == "random_fourier":
        sums = [part.features.total * np.exp(part.features.reference) for part in (merged, whole)]
        assert_allclose(*sums)
    if kernel == "expressive":
        assert_allclose(merged.tails, whole.tails, rtol=0.5)


def test_heavy_keys_are_those_of_both_parts():
    changes = {"n_heavy": 6}
    a, b = (sketch(part, **changes) for part in (slice(800), slice(800, 1500)))
    same(merge_sketches(a, b, plan(**changes), cluster_centers, map), sketch(**changes))


def test_clusters_about_other_centers_go_to_the_nearest():
    a, b = (sketch(part, n_clusters=3, seed=seed) for part, seed in ((slice(800), 0), (slice(800, 1500), 1)))
    merged = merge_sketches(a, b, plan(n_clusters=3), cluster_centers, map)
    assert_array_equal(merged.centers, a.centers)
    nearest = np.argmin(((b.statistics.mean[:, None] - a.centers) ** 2).sum(axis=2), axis=1)
    weight, first = a.statistics.weight.copy(), a.statistics.weight[:, None] * a.statistics.mean
    np.add.at(weight, nearest, b.statistics.weight)
    np.add.at(first, nearest, b.statistics.weight[:, None] * b.statistics.mean)
    assert_allclose(merged.statistics.weight, weight)
    assert_allclose(merged.statistics.weight[:, None] * merged.statistics.mean, first)


def test_large_sets_are_drawn_in_parts(monkeypatch):
    whole = sketch()
    monkeypatch.setattr("sklearn_attnembed._core.sketching._PART", 400)
    same(sketch(), whole)
