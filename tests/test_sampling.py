"""Samples of keys and what they tell: drawing, merging, standing for, regression, and cells of near keys."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_attnembed._core.inverted_index import build_cells, cells_of, n_keys_scanned, nearest_center
from sklearn_attnembed._core.kernels import KERNELS
from sklearn_attnembed._core.normalizers.control_variate import KnownTerms, control_variate_estimate
from sklearn_attnembed._core.normalizers.neighbors import probe
from sklearn_attnembed._core.parallel import block_runner
from sklearn_attnembed._core.sampling import (
    add_hashes,
    draw,
    hash_rows,
    indexed_weight,
    merge_samples,
    rounded,
    split,
    stratified_sample,
)

RNG = np.random.default_rng(0)
KEYS = RNG.standard_normal((3000, 6))
WEIGHTS = RNG.uniform(0.1, 5, 3000)
EVERY = np.arange(3000)


def sample_of(rows, weights=None, size=100, seed=0):
    chosen = None if weights is None else weights[rows]
    return draw(KEYS, rows, chosen, hash_rows(KEYS)[rows], [], size, seed)


# Hashes ----------------------------------------------------------------------------------------------
def test_marks_tell_keys_apart_and_precisions_not():
    hashes = hash_rows(KEYS)
    assert len(np.unique(hashes)) == 3000
    assert_array_equal(hash_rows(KEYS.astype(np.float32)), hashes)
    assert hash_rows(np.array([[0.0, 1.0]])) == hash_rows(np.array([[-0.0, 1.0]]))
    swapped = KEYS[:, [1, 0, 2, 3, 4, 5]]
    assert not np.intersect1d(hash_rows(swapped), hashes).size
    for extreme in (np.zeros((2, 6)), np.full((2, 6), 1e300), np.full((2, 6), 5e-324)):
        assert len(np.unique(hash_rows(extreme))) == 1


def test_marks_are_spread_evenly():
    """Even of keys that differ in one bit of one number."""
    keys = np.zeros((4096, 3))
    keys[:, 1] = np.arange(4096)
    bits = (hash_rows(keys)[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert np.all(np.abs(bits.mean(axis=0) - 0.5) < 0.05)


def test_rounding_is_that_of_float32():
    assert_array_equal(rounded(KEYS), KEYS.astype(np.float32).astype(np.float64))


# Drawing ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
def test_sample_is_that_of_the_union(weights):
    whole = sample_of(EVERY, weights)
    halves = [sample_of(EVERY[part], weights) for part in (slice(None, None, 2), slice(1, None, 2))]
    for pair in (halves, halves[::-1]):
        for a, b in zip(merge_samples(*pair, [], 100), whole, strict=True):
            assert_array_equal(a, b)
    for a, b in zip(sample_of(RNG.permutation(3000), weights), whole, strict=True):
        assert_array_equal(a, b)
    assert not np.array_equal(sample_of(EVERY, weights, seed=1).hashes, whole.hashes)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["unweighted", "weighted"])
def test_totals_are_unbiased(weights):
    """What sampled keys stand for adds up, over seeds, to the total of all."""
    w = np.ones(3000) if weights is None else weights
    value = np.exp(KEYS[:, 0])
    totals = []
    for seed in range(300):
        part, sampling_weight, _ = split(sample_of(EVERY, weights, seed=seed), 100)
        totals.append(sampling_weight @ np.exp(part.keys[:, 0]))
    assert abs(np.mean(totals) - w @ value) < 3 * np.std(totals) / np.sqrt(300)


def test_heavier_keys_are_drawn_more_often():
    heavy = np.where(EVERY < 300, 10.0, 1.0)
    drawn = np.concatenate([sample_of(EVERY, heavy, seed=seed).weight for seed in range(50)])
    assert 0.4 < np.mean(drawn == 10) < 0.55  # 3,000 of 5,700 by weight, less what is drawn already


def test_copies_are_one_key():
    rows = np.repeat(EVERY[:40], 3)
    sample = sample_of(rows)
    assert len(sample.keys) == 40
    assert_array_equal(sample.weight, 3)
    part, sampling_weight, others = split(sample, 100)
    assert_array_equal(sampling_weight, part.weight)
    assert not len(others.keys)


def test_ledger_counts_copies_over_chunks():
    hashes = hash_rows(KEYS)
    index = []
    for start in range(0, 3000, 70):
        index = add_hashes(index, hashes[start : start + 100], None)  # thirty of each chunk come again
    assert len(index) < 8
    expected = 1 + ((EVERY % 70 < 30) & (EVERY >= 70))
    assert_array_equal(indexed_weight(index, hashes), expected)
    assert_array_equal(indexed_weight(index, hashes + np.uint64(1)), 0)
    assert_array_equal(indexed_weight([], hashes), 0)


# Estimating ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("controls", [False, True])
def test_standard_errors_are_those_over_samples(name, controls):
    """The error that one sample tells is the spread of the estimates of many."""
    query = np.full((1, 6), 0.1)
    kernel = KERNELS[name]
    scores = query @ KEYS.T
    truth = np.log(np.exp(kernel.log_value(scores)).sum())
    moments = np.array([3000.0]), scores.mean(axis=1)[:, None], scores.var(axis=1)[:, None]
    estimates, told = [], []
    for seed in range(200):
        part, sampling_weight, _ = split(sample_of(EVERY, size=600, seed=seed), 600)
        log_z, error = control_variate_estimate(
            query @ part.keys.T, part, sampling_weight, kernel, moments, controls=controls
        )
        estimates.append(log_z[0])
        told.append(error[0])
    if name == "squared" and controls:  # a quadratic of the score: nothing is left to be estimated
        assert_allclose(estimates, truth, atol=1e-9)
    else:
        assert_allclose(np.std(estimates), np.mean(told), rtol=0.2)
        assert abs(np.mean(estimates) - truth) < 0.3 * np.std(estimates)


@pytest.mark.parametrize("controls", [False, True])
@pytest.mark.parametrize("n_drawn", [0, 1, 2, 3, 4])
def test_few_keys_leave_an_error(controls, n_drawn):
    """Residuals of as many keys as are fitted vanish: that is no sign of accuracy."""
    query, kernel = np.full((1, 6), 0.3), KERNELS["softmax"]
    scores = query @ KEYS.T
    part, sampling_weight, _ = split(sample_of(EVERY, size=8), 8)
    center = scores.mean(axis=1)[:, None]
    near = np.setdiff1d(
        np.r_[part.rows, EVERY[:500]], part.rows[:n_drawn]
    )  # summed exactly; the others stand for some 2,500 keys
    known = scores[0, near]
    census = KnownTerms(
        np.log(np.exp(known).sum())[None],
        np.full((1, 1), float(len(near))),
        (known - center).sum(axis=1, keepdims=True),
        np.square(known - center).sum(axis=1, keepdims=True),
        np.arange(8)[None] >= n_drawn,
    )
    moments = np.array([3000.0]), center, scores.var(axis=1)[:, None]
    log_z, error = control_variate_estimate(
        query @ part.keys.T, part, sampling_weight, kernel, moments, controls=controls, known=census
    )
    gap = abs(log_z[0] - np.log(np.exp(scores).sum()))
    if controls or n_drawn:
        assert gap < 10 * error[0]
    assert np.isfinite(error[0])


# Cells -----------------------------------------------------------------------------------------------
def first_centers(points, k):
    return points[:: max(len(points) // k, 1)][:k]


def test_cells_are_a_partition_within_clusters():
    labels = RNG.integers(0, 3, 3000)
    active = np.flatnonzero(RNG.random(3000) < 0.9)
    with block_runner(1) as run:
        cells = build_cells(KEYS, active, labels, first_centers, run)
    assert_array_equal(np.sort(cells.order), active)
    for c, (start, stop) in enumerate(zip(cells.starts[:-1], cells.starts[1:], strict=True)):
        members = cells.order[start:stop]
        assert_array_equal(labels[members], cells.cluster[c])
        assert_array_equal(cells_of(cells, members), c)
        assert_allclose(cells.centers[c], KEYS[members].mean(axis=0))


@pytest.mark.parametrize("name", ["softmax", "expressive"])
def test_probed_cells_hold_the_largest_terms(name):
    kernel, queries = KERNELS[name], RNG.standard_normal((200, 6))
    with block_runner(1) as run:
        cells = build_cells(KEYS, EVERY, np.zeros(3000, int), first_centers, run)
    probed = probe(queries, cells, 1, kernel, 1.0)
    sizes = np.diff(cells.starts)
    assert np.all(np.abs(probed @ sizes - n_keys_scanned(1)) <= sizes.max() / 2)
    best = np.argmax(kernel.log_value(queries @ KEYS.T), axis=1)
    assert np.mean(probed[np.arange(200), cells_of(cells, best)]) > 0.5  # of one key in six
    assert np.all(probe(queries, cells, 3000, kernel, 1.0))


def test_nearest_center_in_blocks_of_any_size():
    centers = KEYS[:7]
    expected = np.argmin(((KEYS[:, None] - centers) ** 2).sum(axis=2), axis=1)
    assert_array_equal(nearest_center(KEYS, centers), expected)


def test_sample_of_each_cluster():
    labels = np.repeat([0, 1, 2], [1000, 30, 500])
    for n_clusters, given, sizes in ((1, None, [256]), (3, labels, [85, 30, 85]), (8, labels, [64, 30, 64, *[0] * 5])):
        drawn = stratified_sample(1530, given, n_clusters, [0, 1])
        assert [len(np.unique(part)) for part in drawn] == sizes
        if given is not None:
            assert all(np.all(labels[part] == a) for a, part in enumerate(drawn))
        assert all(np.all(np.diff(part) > 0) for part in drawn)
    again = stratified_sample(1530, labels, 3, [0, 1])
    other = stratified_sample(1530, labels, 3, [0, 2])
    assert_array_equal(again[0], stratified_sample(1530, labels, 3, [0, 1])[0])
    assert not np.array_equal(again[0], other[0])


# Hashes, written out -----------------------------------------------------------------------------------
SPREAD, ALL = 0x9E3779B97F4A7C15, 2**64 - 1


def mixed(h):
    """Compute the finalizer of splitmix64 with Python's integers."""
    h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9 & ALL
    h = (h ^ (h >> 27)) * 0x94D049BB133111EB & ALL
    return h ^ (h >> 31)


def test_hashes_are_the_same_on_every_machine():
    X = np.array([[0.0, -1.5, 3.0], [-0.0, 2.0**-40, 1e30], [5e-324, 7.0, -0.1]], np.float64)
    for row, found in zip(X, hash_rows(X).tolist(), strict=True):
        bits = [int(np.array(value + 0.0).view(np.uint64)) for value in rounded(row).tolist()]
        columns = [mixed((column + 1) * SPREAD & ALL) for column in range(3)]
        assert found == mixed(sum(mixed(b ^ c) * SPREAD for b, c in zip(bits, columns, strict=True)) & ALL)


@pytest.mark.parametrize("seed", [0, 7])
def test_ranks_follow_from_hashes_and_weights(seed):
    sample = sample_of(EVERY[:50], WEIGHTS, size=20, seed=seed)
    exponential = {}
    for row, h in enumerate(hash_rows(KEYS[:50]).tolist()):
        exponential[row] = -np.log1p(-(mixed(h ^ mixed(seed * SPREAD & ALL)) >> 11) / 2**53)
    drawn = sorted(exponential, key=lambda row: exponential[row] / WEIGHTS[row])[:21]
    assert sample.rows.tolist() == drawn
    assert_allclose(sample.exponential, [exponential[row] for row in drawn], rtol=1e-12)
