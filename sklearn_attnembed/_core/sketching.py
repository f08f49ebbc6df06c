"""Building and merging key sketches: one pass over the keys, in any order and in chunks."""

from collections.abc import Callable
from functools import partial

import numpy as np

from .inverted_index import Cells, build_cells, cells_of, nearest_center
from .kernels import SOFTMAX
from .key_sketch import KeySketch, Plan
from .logsum import LogSum
from .normalizers import NORMALIZERS
from .normalizers.control_variate import score_tails
from .normalizers.evaluation import frequencies_of
from .normalizers.mixture import scaled_moments, score_moments
from .parallel import Runner, row_blocks
from .sampling import HashIndex, KeySample, add_hashes, draw, hash_rows, merge_samples, rounded, split
from .statistics import KeyStatistics, block_statistics, merge
from .types import Array, Hashes, Integers, Mask

# Keys that clusters are found in: at least so many, and so many for each cluster.
_CLUSTERED, _CLUSTERED_EACH = 8192, 64

# Keys drawn from at a time.
_PART = 2**20

# Keys drawn beyond the sample, on which estimates are checked.
N_CHECKS = 512

# ``(points, weights, k, seed) -> at most k centers``.
Cluster = Callable[[Array, Array | None, int, int], Array]


def _heaviest(keys: Array, weights: Array | None, plan: Plan, run: Runner) -> Mask:
    """Mark the `n_heavy` keys of the largest term with themselves, w f(beta k.k)."""
    heavy = np.zeros(len(keys), bool)
    if plan.n_heavy >= len(keys):
        return ~heavy
    if plan.n_heavy:
        bounds = row_blocks([len(keys)], keys.shape[1])

        def own_term(block: int) -> Array:
            rows = keys[bounds[block]].astype(np.float64)
            log_f = plan.kernel.log_value(plan.beta * np.einsum("ij,ij->i", rows, rows))
            return log_f if weights is None else log_f + np.log(weights[bounds[block]])

        own = np.concatenate(list(run(own_term, range(len(bounds)))))
        heavy[np.argpartition(own, -plan.n_heavy)[-plan.n_heavy :]] = True
    return heavy


def _n_clustered(plan: Plan) -> int:
    """Return the number of keys that clusters are found in."""
    return max(_CLUSTERED, _CLUSTERED_EACH * plan.n_clusters) if plan.n_clusters > 1 else 0


def _centers(sample: KeySample, plan: Plan, cluster: Cluster, d: int) -> Array:
    """Find the centers of clusters by k-means on a sample; the same for keys in float32 and float64."""
    n_clusters = min(plan.n_clusters, len(sample.keys))
    if n_clusters < 2:
        return np.zeros((1, d))
    part, sampling_weight, _ = split(sample, _n_clustered(plan))
    return cluster(rounded(part.keys), sampling_weight, n_clusters, plan.seed)


def _draw(
    keys: Array, weights: Array | None, light: Mask, plan: Plan, size: int, before: HashIndex, run: Runner
) -> tuple[KeySample, HashIndex]:
    """Draw a sample of the light keys and index them, given the index of earlier keys; a part of the keys at a time."""
    sample: KeySample | None = None
    own: HashIndex = []
    index = before
    for start in range(0, len(keys), _PART):
        rows = start + np.flatnonzero(light[start : start + _PART])
        bounds = row_blocks([len(rows)], keys.shape[1])
        parts = run(partial(_hashes_of, keys, rows, bounds), range(len(bounds)))
        hashes = np.concatenate([np.empty(0, np.uint64), *parts])
        w = None if weights is None else weights[rows]
        if NORMALIZERS[plan.method].has_hash_index:
            own = add_hashes(own, hashes, w)
            index = add_hashes(index, hashes, w) if before else own
        part = draw(keys, rows, w, hashes, index, size, plan.seed)
        sample = part if sample is None else merge_samples(sample, part, index, size)
    assert sample is not None  # there is at least one part
    return sample, own


def _hashes_of(keys: Array, rows: Integers, bounds: list[slice], block: int) -> Hashes:
    cut = rows[bounds[block]]
    return hash_rows(keys[cut[0] : cut[-1] + 1][cut - cut[0]])  # neighboring rows are read as one slice


def _pass(
    keys: Array, weights: Array | None, centers: Array, plan: Plan, run: Runner
) -> tuple[Integers, KeyStatistics, LogSum | None]:
    """Compute clusters, statistics and sums of features in the one pass over all keys."""
    frequencies, feature_sums = frequencies_of(plan, keys.shape[1]), NORMALIZERS[plan.method].feature_sums
    bounds = row_blocks([len(keys)], keys.shape[1] if frequencies is None else max(frequencies.shape))

    def one(block: int) -> tuple[Integers, KeyStatistics, LogSum | None]:
        Y, w = keys[bounds[block]], None if weights is None else weights[bounds[block]]
        nearest = nearest_center(Y, centers)
        statistics = block_statistics(Y, w, nearest, len(centers), plan.covariance_type == "diag")
        if frequencies is None or feature_sums is None:
            return nearest, statistics, None
        return nearest, statistics, feature_sums(Y, w, frequencies, plan.beta)

    labels = np.empty(len(keys), np.int32)
    statistics: KeyStatistics | None = None
    features: LogSum | None = None
    for rows, (nearest, part, sums) in zip(bounds, run(one, range(len(bounds))), strict=True):
        labels[rows] = nearest
        statistics = part if statistics is None else merge([statistics, part])
        features = sums if features is None or sums is None else features.merge(sums)
    assert statistics is not None  # there is at least one block, for there are keys
    return labels, statistics, features


def sketch_keys(
    keys: Array, weights: Array | None, plan: Plan, cluster: Cluster, run: Runner, before: KeySketch | None = None
) -> tuple[KeySketch, Integers]:
    """Sketch keys of positive weight, about the centers of an earlier sketch if any; return their clusters too."""
    heavy = _heaviest(keys, weights, plan, run)
    size = plan.sample_size + N_CHECKS
    wanted = size if before else max(size, _n_clustered(plan))
    sample, index = _draw(keys, weights, ~heavy, plan, wanted, before.hash_index if before else [], run)
    centers = before.centers if before else _centers(sample, plan, cluster, keys.shape[1])
    sample = KeySample._make(part[: size + 1] for part in sample)
    sample = sample._replace(labels=nearest_center(sample.keys, centers))
    light = np.where(heavy, 0.0, 1.0 if weights is None else weights) if heavy.any() else weights
    labels, statistics, features = _pass(keys, light, centers, plan, run)
    cells: Cells | None = None
    if NORMALIZERS[plan.method].has_cells and not heavy.all():
        cells = build_cells(
            keys, np.flatnonzero(~heavy), labels, lambda points, k: cluster(points, None, k, plan.seed), run
        )
        sample = sample._replace(cells=cells_of(cells, sample.rows))
    sketch = KeySketch(
        centers=centers,
        statistics=statistics,
        heavy_keys=keys[heavy].astype(np.float64),
        heavy_weights=np.ones(heavy.sum()) if weights is None else weights[heavy].astype(np.float64),
        sample=sample,
        hash_index=index,
        features=features,
        cells=cells,
        tails=_tails(sample, statistics, plan),
    )
    return sketch, labels


def _tails(sample: KeySample, statistics: KeyStatistics, plan: Plan) -> Array | None:
    """Measure the tails of the scores of drawn keys that are not in the sample."""
    if plan.kernel is SOFTMAX:
        return None
    part, _, others = split(sample, plan.sample_size)
    queries = plan.beta * others.keys
    moments = score_moments(queries, scaled_moments(statistics, 1.0))
    return score_tails(queries, part, (statistics.weight, *moments))


def _merge_statistics(a: KeySketch, b: KeySketch) -> KeyStatistics:
    """Merge cluster by cluster; clusters of `b` about other centers are added to the nearest of `a`."""
    if np.array_equal(a.centers, b.centers):
        return merge([a.statistics, b.statistics])
    total = a.statistics
    for weight, mean, scatter in zip(*b.statistics, strict=True):
        part = KeyStatistics(*(np.zeros_like(field) for field in total))
        nearest = nearest_center(mean[None], a.centers)[0]
        part.weight[nearest], part.mean[nearest], part.scatter[nearest] = weight, mean, scatter
        total = merge([total, part])
    return total


def merge_sketches(a: KeySketch, b: KeySketch, plan: Plan, cluster: Cluster, run: Runner) -> KeySketch:
    """Merge the sketches of two sets of keys, about the centers of the first."""
    index = [*a.hash_index]
    for hashes, weight in b.hash_index:
        index = add_hashes(index, hashes, weight)
    nearest = nearest_center(b.centers, a.centers)
    others = b.sample._replace(labels=nearest[b.sample.labels])
    statistics = _merge_statistics(a, b)
    sample = merge_samples(a.sample, others, index, plan.sample_size + N_CHECKS)
    merged = a._replace(
        statistics=statistics,
        sample=sample,
        tails=_tails(sample, statistics, plan),
        hash_index=index,
        features=None if a.features is None or b.features is None else a.features.merge(b.features),
    )
    if not plan.n_heavy:
        return merged
    # Heavy keys that are no longer among the heaviest are added like any others.
    keys = np.concatenate([a.heavy_keys, b.heavy_keys])
    weights = np.concatenate([a.heavy_weights, b.heavy_weights])
    heavy = _heaviest(keys, weights, plan, run)
    if not heavy.all():
        light = plan._replace(n_heavy=0)
        rest, _ = sketch_keys(keys[~heavy], weights[~heavy], light, cluster, run, merged)
        merged = merge_sketches(merged, rest, light, cluster, run)
    return merged._replace(heavy_keys=keys[heavy], heavy_weights=weights[heavy])
