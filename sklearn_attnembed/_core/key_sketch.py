"""What is kept of the keys, in one pass, mergeable, and log Z of queries by every method from it."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from .inverted_index import Cells, build_cells, cells_of, nearest_center
from .kernels import SOFTMAX, Kernel
from .normalizers.control_variate import score_tails
from .normalizers.mixture import score_moments
from .normalizers.random_features import FeatureSums, feature_sums, merge_features, orthogonal_frequencies
from .parallel import Runner, row_blocks
from .sampling import HashIndex, KeySample, add_hashes, draw, hash_rows, merge_samples, rounded, split
from .statistics import KeyStatistics, block_statistics, merge
from .types import Array, Hashes, Integers, Mask

# Keys that clusters are found in, at least so many and so many for each.
_CLUSTERED, _CLUSTERED_EACH = 8192, 64


# Keys drawn from at a time.
_PART = 2**20


# Keys beyond the sample, kept to check on.
N_CHECKS = 512


class Plan(NamedTuple):
    """What to do; the parameters of the estimator under their own names, resolved."""

    kernel: Kernel
    beta: float
    method: str
    n_clusters: int
    covariance_type: str
    n_samples: int
    n_exact: int
    n_heavy: int
    n_components: int
    seed: int

    @property
    def sample_size(self) -> int:
        """Keys drawn in all."""
        return int(self.n_samples) * int(self.n_clusters)

    @property
    def knows_own(self) -> bool:
        """Whether a query that is a key is recognised as one."""
        return self.method in ("control_variate", "sampling")

    @property
    def has_features(self) -> bool:
        """Whether the method is one of random features."""
        return self.method in ("random_fourier", "positive_features")

    def frequencies(self, d: int) -> Array | None:
        """Frequencies of random features in `d` dimensions, always the same; None for other methods."""
        if not self.has_features:
            return None
        return orthogonal_frequencies(d, self.n_components, np.random.RandomState(self.seed))


class KeySketch(NamedTuple):
    """What is kept of the keys.

    Attributes
    ----------
    centers : ndarray of shape (kappa, d)
        Keys belong to the nearest.
    statistics : KeyStatistics
        Of all keys but the heaviest.
    heavy_keys, heavy_weights : ndarray of shape (h, d) and (h,)
        The heaviest keys.
    sample : KeySample
    ledger : list of tuple
        Which keys there are, for methods that know a query to be one.
    features : FeatureSums or None
    cells : Cells or None
        Near keys, for a summary of keys that stay at hand.
    tails : ndarray of shape (kappa,) or None
        Of the scores, for kernels other than softmax, whose Gaussian value stays [DB]'s.
    """

    centers: Array
    statistics: KeyStatistics
    heavy_keys: Array
    heavy_weights: Array
    sample: KeySample
    ledger: HashIndex
    features: FeatureSums | None
    cells: Cells | None
    tails: Array | None


Cluster = Callable[[Array, Array | None, int, int], Array]


def _heaviest(keys: Array, weights: Array | None, plan: Plan, run: Runner) -> Mask:
    """The `n_heavy` keys of the largest term with themselves, w f(beta k.k)."""
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


def _clustered(plan: Plan) -> int:
    """How many keys clusters are found in."""
    return max(_CLUSTERED, _CLUSTERED_EACH * plan.n_clusters) if plan.n_clusters > 1 else 0


def _centers(sample: KeySample, plan: Plan, cluster: Cluster, d: int) -> Array:
    """Centers of the clusters; those of k-means on a sample, the same for keys in float32 and float64."""
    n_clusters = min(plan.n_clusters, len(sample.keys))
    if n_clusters < 2:
        return np.zeros((1, d))
    part, sampling_weight, _ = split(sample, _clustered(plan))
    return cluster(rounded(part.keys), sampling_weight, n_clusters, plan.seed)


def _draw(
    keys: Array, weights: Array | None, heavy: Mask, plan: Plan, size: int, before: HashIndex, run: Runner
) -> tuple[KeySample, HashIndex]:
    """A sample of the light keys and their ledger, given that of keys before; a part of the keys at a time."""
    sample: KeySample | None = None
    own: HashIndex = []
    ledger = before
    for start in range(0, max(len(keys), 1), _PART):
        light = start + np.flatnonzero(~heavy[start : start + _PART])
        bounds = row_blocks([len(light)], keys.shape[1])
        parts = run(partial(_hashes_of, keys, light, bounds), range(len(bounds)))
        marks = np.concatenate([np.empty(0, np.uint64), *parts])
        w = None if weights is None else weights[light]
        if plan.knows_own:
            own = add_hashes(own, marks, w)
            ledger = add_hashes(ledger, marks, w) if before else own
        part = draw(keys, light, w, marks, ledger, size, plan.seed)
        sample = part if sample is None else merge_samples(sample, part, ledger, size)
    assert sample is not None  # of one part at least
    return sample, own


def _hashes_of(keys: Array, rows: Integers, bounds: list[slice], block: int) -> Hashes:
    cut = rows[bounds[block]]
    # Rows that lie together are read together.
    return hash_rows(keys[cut[0] : cut[-1] + 1][cut - cut[0]])


def _pass(
    keys: Array, weights: Array | None, centers: Array, plan: Plan, run: Runner
) -> tuple[Integers, KeyStatistics, FeatureSums | None]:
    """The one pass over all keys: clusters, statistics, sums of features."""
    frequencies = plan.frequencies(keys.shape[1])
    bounds = row_blocks([len(keys)], keys.shape[1] if frequencies is None else max(frequencies.shape))

    def take(block: int) -> tuple[Integers, KeyStatistics, FeatureSums | None]:
        Y, w = keys[bounds[block]], None if weights is None else weights[bounds[block]]
        nearest = nearest_center(Y, centers)
        statistics = block_statistics(Y, w, nearest, len(centers), plan.covariance_type == "diag")
        if frequencies is None:
            return nearest, statistics, None
        return nearest, statistics, feature_sums(Y, w, frequencies, plan.beta, plan.method == "positive_features")

    labels = np.empty(len(keys), np.int32)
    statistics: KeyStatistics | None = None
    features: FeatureSums | None = None
    for rows, (nearest, part, sums) in zip(bounds, run(take, range(len(bounds))), strict=True):
        labels[rows] = nearest
        statistics = part if statistics is None else merge([statistics, part])
        features = sums if features is None else merge_features(features, sums)
    assert statistics is not None  # of one block at least: there are keys
    return labels, statistics, features


def sketch_keys(
    keys: Array, weights: Array | None, plan: Plan, cluster: Cluster, run: Runner, before: KeySketch | None = None
) -> tuple[KeySketch, Integers]:
    """The summary of keys of positive weight, and the cluster of each; about the centers of keys before, if any."""
    heavy = _heaviest(keys, weights, plan, run)
    size = plan.sample_size + N_CHECKS
    wanted = size if before else max(size, _clustered(plan))
    sample, ledger = _draw(keys, weights, heavy, plan, wanted, before.ledger if before else [], run)
    centers = before.centers if before else _centers(sample, plan, cluster, keys.shape[1])
    sample = KeySample._make(part[: size + 1] for part in sample)
    sample = sample._replace(labels=nearest_center(sample.keys, centers))
    light = np.where(heavy, 0.0, 1.0 if weights is None else weights) if heavy.any() else weights
    labels, statistics, features = _pass(keys, light, centers, plan, run)
    cells = None
    if plan.method == "neighbors" and not heavy.all():
        cells = build_cells(
            keys, np.flatnonzero(~heavy), labels, lambda points, k: cluster(points, None, k, plan.seed), run
        )
        sample = sample._replace(cells=cells_of(cells, sample.rows))
    heavy_weights = np.ones(heavy.sum()) if weights is None else weights[heavy].astype(np.float64)
    return KeySketch(
        centers=centers,
        statistics=statistics,
        heavy_keys=keys[heavy].astype(np.float64),
        heavy_weights=heavy_weights,
        sample=sample,
        ledger=ledger,
        features=features,
        cells=cells,
        tails=_tails(sample, statistics, plan),
    ), labels


def _tails(sample: KeySample, statistics: KeyStatistics, plan: Plan) -> Array | None:
    if plan.kernel is SOFTMAX:
        return None
    part, _, others = split(sample, plan.sample_size)
    queries = plan.beta * others.keys
    moments = score_moments(queries, statistics, 1.0)
    return score_tails(queries, part, (statistics.weight, *moments))


def _merge_statistics(a: KeySketch, b: KeySketch) -> KeyStatistics:
    """Cluster by cluster; clusters of `b` about other centers go to the nearest of `a`."""
    if np.array_equal(a.centers, b.centers):
        return merge([a.statistics, b.statistics])
    total = a.statistics
    for weight, mean, scatter in zip(*b.statistics, strict=True):
        part = KeyStatistics(*(np.zeros_like(field) for field in total))
        home = nearest_center(mean[None], a.centers)[0]
        part.weight[home], part.mean[home], part.scatter[home] = weight, mean, scatter
        total = merge([total, part])
    return total


def merge_sketches(a: KeySketch, b: KeySketch, plan: Plan, cluster: Cluster, run: Runner) -> KeySketch:
    """The summary of both sets of keys, about the centers of `a`."""
    ledger = [*a.ledger]
    for marks, weight in b.ledger:
        ledger = add_hashes(ledger, marks, weight)
    home = nearest_center(b.centers, a.centers)
    others = b.sample._replace(labels=home[b.sample.labels])
    statistics = _merge_statistics(a, b)
    sample = merge_samples(a.sample, others, ledger, plan.sample_size + N_CHECKS)
    merged = a._replace(
        statistics=statistics,
        sample=sample,
        tails=_tails(sample, statistics, plan),
        ledger=ledger,
        features=None if a.features is None or b.features is None else merge_features(a.features, b.features),
    )
    if not plan.n_heavy:
        return merged
    # Heavy keys that others outweigh become keys like others.
    keys = np.concatenate([a.heavy_keys, b.heavy_keys])
    weights = np.concatenate([a.heavy_weights, b.heavy_weights])
    heavy = _heaviest(keys, weights, plan, run)
    if not heavy.all():
        light = plan._replace(n_heavy=0)
        rest, _ = sketch_keys(keys[~heavy], weights[~heavy], light, cluster, run, merged)
        merged = merge_sketches(merged, rest, light, cluster, run)
    return merged._replace(heavy_keys=keys[heavy], heavy_weights=weights[heavy])


def needs_softmax(plan: Plan) -> bool:
    """Whether a method is only defined for softmax, and the kernel is another."""
    return plan.has_features and plan.kernel is not SOFTMAX
