"""Memory: what a fit takes is what estimate_memory says, nothing is left behind, and keys cost what the notes say."""

import gc
import tracemalloc
import warnings

import numpy as np
import pytest
import scipy.sparse as sp

from sklearn_attnembed import AttentionEmbedding, NormalizerEstimator

# Rows and columns, dimensions and affinities of a row: many of either.
LARGE, LINKED = (20_000, 15_000, 64, 10), (10_000, 7_500, 32, 50)
# For what takes longer.
SMALL, TINY = (8_000, 3_000, 32, 20), (2_000, 1_500, 48, 10)


def affinities(n, m, per_row, dtype):
    rng = np.random.default_rng(0)
    rows, columns = np.repeat(np.arange(n), per_row), rng.integers(0, m, n * per_row)
    A = sp.csr_array((rng.random(n * per_row) + 0.1, (rows.astype(np.int32), columns.astype(np.int32))), (n, m), dtype)
    A.sum_duplicates()
    return A


def peak_of(function):
    """Bytes at the peak of a function beyond what there was before."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        result = function()
        return tracemalloc.get_traced_memory()[1] - before, tracemalloc.get_traced_memory()[0] - before, result
    finally:
        tracemalloc.stop()


# What estimate_memory says -----------------------------------------------------------------------------------
@pytest.mark.parametrize("affinity", ["precomputed", "bipartite"])
@pytest.mark.parametrize(
    ("size", "params", "dtype"),
    [
        (LARGE, {}, np.float32),
        (LINKED, {}, np.float64),
        (LARGE, {"walk_length": 3}, np.float64),
        (LINKED, {"walk_length": 3}, np.float32),
        (LINKED, {"objective": "joint"}, np.float64),
        (LARGE, {"objective": "joint", "walk_length": 3}, np.float32),
        (LARGE, {"n_clusters": 8, "max_iter": 4}, np.float32),
        (LINKED, {"n_clusters": 8, "max_iter": 4}, np.float64),
        (SMALL, {"normalizer": "neighbors", "max_iter": 10}, np.float32),
        (SMALL, {"normalizer": "sampling", "max_iter": 10}, np.float32),
        (TINY, {"normalizer": "neighbors"}, np.float64),
        (TINY, {"normalizer": "exact"}, np.float32),
        (TINY, {"normalizer": "exact"}, np.float64),
        (TINY, {"kernel": "expressive", "temperature": 1.0, "max_iter": 5}, np.float64),
    ],
    ids=lambda value: (
        value.__name__
        if isinstance(value, type)
        else "-".join(map(str, value.values() if isinstance(value, dict) else value)) or "default"
    ),
)
def test_a_fit_takes_what_is_estimated(size, params, dtype, affinity):
    n, n_columns, d, per_row = size
    if affinity == "bipartite" and params.get("normalizer") in ("neighbors", "sampling"):
        n = 2_000  # each row is iterated
    m = min(n, n_columns) if affinity == "bipartite" else n
    model = AttentionEmbedding(d, affinity=affinity, tol=0, random_state=0, n_jobs=1, **{"max_iter": 3, **params})
    AttentionEmbedding(**{**model.get_params(), "max_iter": 2}).fit(affinities(400, 400, 5, dtype))  # imports
    A = affinities(n, m, per_row, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peak, _, _ = peak_of(lambda: model.fit(A))
    estimate = model.estimate_memory(n, m if affinity == "bipartite" else 0, dtype, n_affinities=A.nnz)
    assert estimate / 1.2 < peak < estimate * 1.2, (peak / 1e6, estimate / 1e6, peak / estimate)


def test_an_estimate_grows_with_rows_affinities_and_walks():
    model = AttentionEmbedding(10, affinity="precomputed", n_negative=0)
    n_bytes = model.estimate_memory(100_000, dtype=np.float32)
    assert 4 * 100_000 * 10 * 4 < n_bytes < 2 * model.estimate_memory(100_000, dtype=np.float32, n_affinities=10)
    for params in ({"walk_length": 5, "n_negative": 0}, {"n_negative": "auto"}):
        more = AttentionEmbedding(10, affinity="precomputed", **params)
        assert more.estimate_memory(100_000, dtype=np.float32) > n_bytes
    assert AttentionEmbedding(10, affinity="bipartite").estimate_memory(100_000, 50_000, np.float32) > n_bytes
    assert model.estimate_memory(100_000, dtype=np.float32, n_affinities=10**7) > n_bytes + 8 * 10**7


# Nothing is left behind --------------------------------------------------------------------------------------
@pytest.mark.parametrize("normalizer", ["gaussian", "neighbors"])
def test_many_fits_leave_nothing_behind(normalizer):
    n = 60 if normalizer == "gaussian" else 280  # enough for a sample besides the near ones
    A = affinities(n, n, 5, np.float64)
    model = AttentionEmbedding(
        3, affinity="precomputed", normalizer=normalizer, n_exact=5, max_iter=2, tol=0, random_state=0
    )

    def fits(count):
        for _ in range(count):
            model.fit(A).transform(A[:5])
        gc.collect()
        return tracemalloc.get_traced_memory()[0], len(gc.get_objects())

    tracemalloc.start()
    try:
        (size, count), (later_size, later_count) = fits(20), fits(100)
    finally:
        tracemalloc.stop()
    assert later_size - size < 50_000  # the interpreter keeps some; one array a fit would be half a million
    assert later_count - count < 50


# NormalizerEstimator -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("method", "bytes_a_key"), [("gaussian", 4), ("neighbors", 12), ("control_variate", 20), ("sampling", 20)]
)
def test_keys_cost_what_the_notes_say(method, bytes_a_key):
    kept = []
    for n in (100_000, 200_000):
        keys = np.random.default_rng(0).standard_normal((n, 8))
        model = NormalizerEstimator(method=method, n_samples=100, random_state=0)
        peak, after, _ = peak_of(lambda keys=keys, model=model: model.fit(keys))
        assert peak - after < 80 * 1.1 * n or method == "neighbors"  # k-means on some keys besides
        kept.append(after)
    assert (kept[1] - kept[0]) / 100_000 == pytest.approx(bytes_a_key, rel=0.1)


def test_more_than_a_million_keys_are_taken_in_a_part_at_a_time():
    peaks = []
    for n in (1_200_000, 2_400_000):
        keys = np.random.default_rng(0).standard_normal((n, 2), np.float32)
        peaks.append(peak_of(lambda keys=keys: NormalizerEstimator(random_state=0).fit(keys))[0])
    assert peaks[1] - peaks[0] < 5 * 1_200_000
