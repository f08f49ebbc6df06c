"""The block function: what it returns is what its definition says, on any array library, for any cut into blocks."""

import pickle

import array_api_strict
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_attnembed._core.sphere import unit_rows
from sklearn_attnembed._core.statistics import block_statistics
from sklearn_attnembed._core.sweep import (
    RowWeights,
    StepParams,
    key_sums,
    merge_keys,
    merge_sums,
    merged_by_group,
    sweep_block,
)

N, D = 40, 5


def block(seed=0, dtype=np.float64):
    """Rows, their last proposals and their attraction."""
    rng = np.random.default_rng(seed)
    Y, last = (unit_rows(rng.standard_normal((N, D))).astype(dtype) for _ in range(2))
    return Y, last, rng.standard_normal((N, D)).astype(dtype)


def parameters(rng, **others):
    settings = {"beta": 3.0, "offset": rng.standard_normal(D), "matrix": rng.standard_normal((D, D)), "log_z": 0.7}
    return StepParams(**{**settings, "momentum": 0.6, "with_torque": True, **others})


def weights(rng, **others):
    shares = np.stack([rng.uniform(0.5, 2, N), rng.uniform(size=N)])
    return RowWeights(**{"shares": shares, "is_weighted": True, **others})


def unit(x):
    return x / np.linalg.norm(x)


@pytest.mark.parametrize("has_repulsion", [False, True])
@pytest.mark.parametrize("rate", [None, 0.3])
def test_step_of_each_row(has_repulsion, rate):
    rng = np.random.default_rng(1)
    Y, last, attraction = block()
    params, rows = parameters(rng, rate=rate, momentum=0.0 if rate else 0.6), weights(rng)
    repulsion = (11.0, rng.standard_normal((N, D))) if has_repulsion else None
    new, proposal, sums = sweep_block(Y, last, attraction.copy(), params, rows, repulsion)
    loss = 11.0 if has_repulsion else N * 0.7
    displacement, overshoot, torque = 0.0, 0.0, np.zeros((D, D))
    for i in range(N):
        force = attraction[i] + params.offset
        loss -= 3.0 * Y[i] @ force
        force = force - (repulsion[1][i] if has_repulsion else 0) + Y[i] @ params.matrix
        expected = unit(force)
        if rate:
            tangent = unit(force - (force @ Y[i]) * Y[i])
            expected = np.sqrt(1 - rate**2) * Y[i] + rate * tangent
            assert_allclose(Y[i] @ proposal[i], np.sqrt(1 - rate**2))
        assert_allclose(proposal[i], expected)
        assert_allclose(new[i], unit(expected + params.momentum * (expected - last[i])))
        moved = expected - Y[i]
        displacement += moved @ moved
        overshoot -= moved @ (expected - last[i])
        torque += np.outer(Y[i], moved)
    assert_allclose([sums.loss, sums.displacement, sums.overshoot], [loss, displacement, overshoot])
    assert_allclose(sums.torque, torque)
    expected_keys = block_statistics(new, rows.shares[0])
    for ours, theirs in zip(sums.keys.statistics, expected_keys, strict=True):
        assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)
    assert_allclose(sums.keys.null_mean, rows.shares[1] @ new)


def test_torque_is_summed_where_it_is_asked_for():
    rng = np.random.default_rng(1)
    sums = sweep_block(*block(), parameters(rng, with_torque=False), weights(rng))[2]
    assert_array_equal(sums.torque, np.zeros((D, D)))


def test_rows_that_nothing_moves_stay_finite():
    rng = np.random.default_rng(1)
    Y, last, _ = block()
    params = parameters(rng, offset=np.zeros(D), matrix=None)
    new, proposal, _ = sweep_block(Y, last, np.zeros((N, D)), params, weights(rng))
    assert_array_equal(proposal, 0)
    assert np.isfinite(new).all()


@pytest.mark.parametrize("rate", [None, 0.3])
@pytest.mark.parametrize("library", ["array_api_strict", "torch"])
def test_any_array_library(library, rate):
    """The default path needs matmul, sum, sqrt and arithmetic, nothing more."""
    if library == "torch":
        xp = pytest.importorskip("torch")
        convert = xp.from_numpy
    else:
        xp, convert = array_api_strict, array_api_strict.asarray
    rng = np.random.default_rng(1)
    arrays, params, rows = block(), parameters(rng, rate=rate), weights(rng)
    expected = sweep_block(*(part.copy() for part in arrays), params, rows)
    theirs = params._replace(offset=convert(params.offset), matrix=convert(params.matrix))
    found = sweep_block(*map(convert, arrays), theirs, rows._replace(shares=convert(rows.shares)), xp=xp)
    for ours, other in zip(found[:2], expected[:2], strict=True):
        assert type(ours) is type(convert(arrays[0]))
        assert_allclose(np.asarray(ours), other, rtol=1e-12, atol=1e-14)
    assert_allclose(found[2][:3], expected[2][:3], rtol=1e-12)
    assert_allclose(found[2].torque, expected[2].torque, rtol=1e-10, atol=1e-12)
    assert_allclose(found[2].keys.statistics.scatter, expected[2].keys.statistics.scatter, rtol=1e-10, atol=1e-12)


def test_parameters_and_sums_can_be_sent_to_other_processes():
    rng = np.random.default_rng(1)
    arrays, params, rows = block(), parameters(rng), weights(rng)
    expected = sweep_block(*(part.copy() for part in arrays), params, rows)
    sent = pickle.loads(pickle.dumps((sweep_block, arrays, params, rows)))
    new, proposal, sums = pickle.loads(pickle.dumps(sent[0](*sent[1], *sent[2:])))
    assert_array_equal(new, expected[0])
    assert_array_equal(proposal, expected[1])
    assert sums.loss == expected[2].loss


@pytest.mark.parametrize("labels", [None, np.arange(N) % 3])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_sums_of_blocks_merge_into_those_of_all_rows(labels, is_weighted):
    rng = np.random.default_rng(1)
    Y, last, attraction = block()
    params, n_clusters = parameters(rng), 1 if labels is None else 3
    shares = weights(rng).shares if is_weighted else np.stack([np.ones(N), rng.uniform(size=N)])
    whole = RowWeights(shares, is_weighted, labels, n_clusters)
    new, _, expected = sweep_block(Y, last, attraction.copy(), params, whole)
    cuts = [slice(0, 7), slice(7, 30), slice(30, N)]
    parts = []
    for cut in cuts:
        rows = RowWeights(shares[:, cut], is_weighted, None if labels is None else labels[cut], n_clusters)
        parts.append(sweep_block(Y[cut], last[cut], attraction[cut].copy(), params, rows))
    assert_allclose(np.concatenate([part[0] for part in parts]), new, rtol=1e-12)
    merged = merged_by_group([0, 0, 0], [part[2] for part in parts], merge_sums)
    assert len(merged) == 1
    assert_allclose(merged[0][:3], expected[:3])
    assert_allclose(merged[0].torque, expected.torque, atol=1e-12)
    assert_allclose(merged[0].keys.null_mean, expected.keys.null_mean)
    for ours, theirs in zip(merged[0].keys.statistics, expected.keys.statistics, strict=True):
        assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)
    weight = shares[0] if is_weighted else None
    for ours, theirs in zip(merged[0].keys.statistics, block_statistics(new, weight, labels, n_clusters), strict=True):
        assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_groups_are_merged_apart():
    rng = np.random.default_rng(1)
    Y, _, _ = block()
    rows = weights(rng)
    cuts = [slice(0, 10), slice(10, 25), slice(25, N)]
    parts = [key_sums(Y[cut], rows._replace(shares=rows.shares[:, cut])) for cut in cuts]
    first, second = merged_by_group([0, 0, 1], iter(parts), merge_keys)
    assert_allclose(first.null_mean, rows.shares[1, :25] @ Y[:25])
    assert_allclose(second.null_mean, rows.shares[1, 25:] @ Y[25:])
    assert_allclose(first.statistics.weight, rows.shares[0, :25].sum())


@pytest.mark.parametrize("is_weighted", [False, True])
def test_statistics_on_the_sphere(is_weighted):
    rng = np.random.default_rng(1)
    Y, shares = block()[0], weights(rng).shares if is_weighted else np.stack([np.ones(N), rng.uniform(size=N)])
    expected = block_statistics(Y, shares[0])
    found = key_sums(Y, RowWeights(shares, is_weighted))
    for ours, theirs in zip(found.statistics, expected, strict=True):
        assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)
    assert_allclose(found.null_mean, shares[1] @ Y)
    single = key_sums(Y.astype(np.float32), RowWeights(shares.astype(np.float32), is_weighted))
    assert_allclose(single.statistics.scatter, expected.scatter, atol=1e-4)


def test_keys_of_no_weight():
    Y, found = block()[0], key_sums(block()[0], RowWeights(np.stack([np.zeros(N), np.ones(N)]), True))
    assert_array_equal(found.statistics.mean, np.zeros((1, D)))
    assert_allclose(found.null_mean, Y.sum(axis=0))


def test_single_precision_stays():
    rng = np.random.default_rng(1)
    params, rows = parameters(rng), weights(rng)
    params = params._replace(offset=params.offset.astype(np.float32), matrix=params.matrix.astype(np.float32))
    rows = rows._replace(shares=rows.shares.astype(np.float32))
    new, proposal, sums = sweep_block(*block(dtype=np.float32), params, rows)
    assert new.dtype == proposal.dtype == np.float32
    assert sums.torque.dtype == sums.keys.null_mean.dtype == sums.keys.statistics.scatter.dtype == np.float64
