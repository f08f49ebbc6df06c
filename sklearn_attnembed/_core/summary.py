"""What is kept of the keys, in one pass, mergeable, and log Z of queries by every method from it."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy.special import logsumexp

from .cells import Cells, build_cells, cell_census, cells_of, nearest_center, probe, query_rows
from .features import FeatureSums, feature_estimate, feature_sums, merge_features, orthogonal_frequencies
from .kernels import SOFTMAX, Array, Integers, Kernel, Mask
from .normalizer import exact_attention, exact_log_mass, gaussian_log_mass, log_difference, score_moments
from .operators import row_blocks
from .parallel import Runner
from .statistics import KeyStatistics, block_statistics, merge
from .survey import (
    Census,
    KeySample,
    Ledger,
    Marks,
    draw,
    enter,
    key_marks,
    look_up,
    marked,
    merge_samples,
    own_census,
    rounded,
    score_tails,
    split,
    survey,
)

# Keys that clusters are found in, at least so many and so many for each.
_CLUSTERED, _CLUSTERED_EACH = 8192, 64
# Keys drawn from at a time.
_PART = 2**20
# Elements of a temporary block of scores.
_BLOCK_ELEMENTS = 2**18
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


class Summary(NamedTuple):
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
    ledger: Ledger
    features: FeatureSums | None
    cells: Cells | None
    tails: Array | None


Cluster = Callable[[Array, Array | None, int, int], Array]


# Taking in -------------------------------------------------------------------------------------------
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
    part, stands_for, _ = split(sample, _clustered(plan))
    return cluster(rounded(part.keys), stands_for, n_clusters, plan.seed)


def _draw(
    keys: Array, weights: Array | None, heavy: Mask, plan: Plan, size: int, before: Ledger, run: Runner
) -> tuple[KeySample, Ledger]:
    """A sample of the light keys and their ledger, given that of keys before; a part of the keys at a time."""
    sample: KeySample | None = None
    own: Ledger = []
    ledger = before
    for start in range(0, max(len(keys), 1), _PART):
        light = start + np.flatnonzero(~heavy[start : start + _PART])
        bounds = row_blocks([len(light)], keys.shape[1])
        parts = run(partial(_marks_of, keys, light, bounds), range(len(bounds)))
        marks = np.concatenate([np.empty(0, np.uint64), *parts])
        w = None if weights is None else weights[light]
        if plan.knows_own:
            own = enter(own, marks, w)
            ledger = enter(ledger, marks, w) if before else own
        part = draw(keys, light, w, marks, ledger, size, plan.seed)
        sample = part if sample is None else merge_samples(sample, part, ledger, size)
    assert sample is not None  # of one part at least
    return sample, own


def _marks_of(keys: Array, rows: Integers, bounds: list[slice], block: int) -> Marks:
    cut = rows[bounds[block]]
    # Rows that lie together are read together.
    return key_marks(keys[cut[0] : cut[-1] + 1][cut - cut[0]])


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


def summarise(
    keys: Array, weights: Array | None, plan: Plan, cluster: Cluster, run: Runner, before: Summary | None = None
) -> tuple[Summary, Integers]:
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
    return Summary(
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


def _merge_statistics(a: Summary, b: Summary) -> KeyStatistics:
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


def combine(a: Summary, b: Summary, plan: Plan, cluster: Cluster, run: Runner) -> Summary:
    """The summary of both sets of keys, about the centers of `a`."""
    ledger = [*a.ledger]
    for marks, weight in b.ledger:
        ledger = enter(ledger, marks, weight)
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
        rest, _ = summarise(keys[~heavy], weights[~heavy], light, cluster, run, merged)
        merged = combine(merged, rest, light, cluster, run)
    return merged._replace(heavy_keys=keys[heavy], heavy_weights=weights[heavy])


# Giving out ------------------------------------------------------------------------------------------
def _slices(n: int, step: int) -> list[slice]:
    return [slice(i, min(i + step, n)) for i in range(0, n, step)]


class Estimator:
    """log Z of blocks of queries, from a plan, a summary and, for some methods, the keys."""

    def __init__(self, plan: Plan, summary: Summary, keys: Array | None, weights: Array | None, labels: Any):
        self.plan, self.summary, self.keys, self.labels = plan, summary, keys, labels
        self.log_weights = None if weights is None else np.log(weights)
        # A check of a mixture does well with fewer keys than an estimate.
        size = plan.n_samples if plan.method == "gaussian" else plan.sample_size
        self.sample, self.stands_for, _ = split(summary.sample, size)
        self.frequencies = plan.frequencies(summary.centers.shape[1])

    def estimate(self, X: Array, method: str, run: Runner, with_error: bool = False) -> tuple[Array, Array]:
        """`log_z` of any number of queries, block by block on threads."""
        blocks = self._blocks(len(X), method)
        parts = run(lambda b: self.log_z(X[blocks[b]].astype(np.float64), method, with_error), range(len(blocks)))
        log_z, error = (np.concatenate(column) for column in zip(*parts, strict=True))
        return log_z, error

    def masses(self, X: Array, method: str, run: Runner) -> Array:
        """`log_mass` of any number of queries, block by block on threads."""
        blocks = self._blocks(len(X), method)
        parts = run(lambda b: self.log_mass(X[blocks[b]].astype(np.float64), method), range(len(blocks)))
        return np.concatenate(list(parts))

    def _blocks(self, n: int, method: str) -> list[slice]:
        if method == "neighbors" and self.summary.cells is not None:
            return _slices(n, query_rows(n, self.summary.cells, self.plan.n_exact))
        if method == "exact":
            return _slices(n, int(np.clip(-(-n // 8), 64, 256)))
        return self._small_blocks(n, method in ("control_variate", "sampling"))

    def _small_blocks(self, n: int, surveyed: bool) -> list[slice]:
        """Blocks whose scores, with the sampled keys if they are asked for, stay in the cache."""
        n_frequencies = 0 if self.frequencies is None else self.frequencies.shape[1]
        width = max(4 * self.summary.centers.shape[1], len(self.sample.keys) * surveyed, n_frequencies)
        return _slices(n, int(np.clip(_BLOCK_ELEMENTS // width, 8, 4096)))

    def log_z(self, X: Array, method: str, with_error: bool = False) -> tuple[Array, Array]:
        """log Z of queries in float64 and its standard error, which is zero unless asked for or at hand."""
        if method == "exact":
            assert self.keys is not None  # or the caller has refused
            log_z = exact_attention(X, self.keys, None, self.plan.kernel, self.plan.beta, self.log_weights)[0]
            return log_z, np.zeros(len(X))
        if not self.summary.statistics.weight.any():  # every key is a heavy one
            smooth, error = np.full(len(X), -np.inf), np.zeros(len(X))
        else:
            smooth, error = getattr(self, f"_{method}")(X, with_error)
        if not len(self.summary.heavy_keys):
            return smooth, error
        log_z = np.logaddexp(smooth, logsumexp(self._heavy_terms(X), axis=1))
        return log_z, error * np.exp(log_difference(smooth, log_z))

    def log_mass(self, X: Array, method: str) -> Array:
        """log of the attention mass of every cluster.

        Except by `exact`, what there is beside the heavy keys is split as the mixture splits it.
        """
        plan, summary = self.plan, self.summary
        n_clusters = len(summary.centers)
        if method == "exact":
            assert self.keys is not None  # or the caller has refused
            return exact_log_mass(X, self.keys, self.labels, n_clusters, plan.kernel, plan.beta, self.log_weights)
        log_mass = gaussian_log_mass(X, summary.statistics, plan.kernel, plan.beta, summary.tails)
        if method != "gaussian" and summary.statistics.weight.any():
            mixture = logsumexp(log_mass, axis=1)
            log_z = getattr(self, f"_{method}")(X, False)[0]
            log_mass += np.where(np.isfinite(mixture), log_z - np.where(np.isfinite(mixture), mixture, 0), 0)[:, None]
        if len(summary.heavy_keys):
            terms, home = self._heavy_terms(X), nearest_center(summary.heavy_keys, summary.centers)
            for a in np.unique(home):
                log_mass[:, a] = np.logaddexp(log_mass[:, a], logsumexp(terms[:, home == a], axis=1))
        return log_mass

    def _heavy_terms(self, X: Array) -> Array:
        scores = self.plan.beta * (X @ self.summary.heavy_keys.T)
        return self.plan.kernel.log_value(scores) + np.log(self.summary.heavy_weights)

    def _moments(self, X: Array) -> tuple[Array, Array, Array]:
        return self.summary.statistics.weight, *score_moments(X, self.summary.statistics, self.plan.beta)

    def _survey(self, X: Array, moments: tuple[Array, Array, Array], **options: Any) -> tuple[Array, Array]:
        scores = self.plan.beta * (X @ self.sample.keys.T)
        quadratic = self.plan.covariance_type == "full"
        return survey(scores, self.sample, self.stands_for, self.plan.kernel, moments, quadratic=quadratic, **options)

    def _gaussian(self, X: Array, with_error: bool) -> tuple[Array, Array]:
        statistics, kernel = self.summary.statistics, self.plan.kernel
        log_z = logsumexp(gaussian_log_mass(X, statistics, kernel, self.plan.beta, self.summary.tails), axis=1)
        if not with_error:
            return log_z, np.zeros(len(X))
        blocks = self._small_blocks(len(X), True)
        return log_z, np.concatenate([self._mixture_error(X[rows], log_z[rows]) for rows in blocks])

    def _mixture_error(self, X: Array, log_z: Array) -> Array:
        """Standard error of the mixture's log Z, from the sample."""
        moments = self._moments(X)
        sampled, noise = self._survey(X, moments, census=self._not_itself(X, moments[1]))
        residual = log_difference(log_z, sampled)
        # Nobody says whether a query is a key: then its own term is a part of Z that no mixture has.
        weight = np.mean(np.log(self.sample.weight))
        own = self.plan.kernel.log_value(self.plan.beta * np.einsum("ij,ij->i", X, X)) + weight
        own = log_difference(own, sampled)
        itself = np.log1p(np.exp(np.clip(own, None, 700), where=np.isfinite(own), out=np.zeros(len(X))))
        error: Array = np.hypot(np.hypot(np.clip(residual, -700, 700), noise), itself)
        return error

    def _not_itself(self, X: Array, mean: Array) -> Census:
        """No census, but a sample without the query: what it stands for it would stand for with its largest term."""
        nothing = np.zeros(mean.shape)
        itself = marked(key_marks(X), self.sample, np.ones(len(X)))
        return Census(np.full(len(X), -np.inf), nothing, nothing, nothing, itself)

    def _control_variate(self, X: Array, with_error: bool) -> tuple[Array, Array]:
        moments = self._moments(X)
        return self._survey(X, moments, census=self._own(X, moments[1]))

    def _sampling(self, X: Array, with_error: bool) -> tuple[Array, Array]:
        moments = self._moments(X)
        return self._survey(X, moments, census=self._own(X, moments[1]), controls=False)

    def _own(self, X: Array, mean: Array) -> Census | None:
        marks = key_marks(X)
        weight = look_up(self.summary.ledger, marks)
        if not weight.any():
            return None
        score = self.plan.beta * np.einsum("ij,ij->i", X, X)
        cluster = nearest_center(X, self.summary.centers)
        return own_census(weight, score, cluster, marked(marks, self.sample, weight), self.plan.kernel, mean)

    def _neighbors(self, X: Array, with_error: bool) -> tuple[Array, Array]:
        plan, cells, moments = self.plan, self.summary.cells, self._moments(X)
        assert self.keys is not None  # both kept by this method
        assert cells is not None
        probed = probe(X, cells, plan.n_exact, plan.kernel, plan.beta)
        census = cell_census(X, self.keys, self.log_weights, cells, probed, plan.kernel, plan.beta, moments[1])
        parts = []
        for rows in self._small_blocks(len(X), True):
            sampled = probed[rows][:, self.sample.cells]
            part = Census._make(field[rows] for field in census)._replace(sampled=sampled)
            cut = (moments[0], moments[1][rows], moments[2][rows])
            parts.append(self._survey(X[rows], cut, census=part))
        log_z, error = (np.concatenate(column) for column in zip(*parts, strict=True))
        return log_z, error

    def _random_fourier(self, X: Array, with_error: bool) -> tuple[Array, Array]:
        features, frequencies = self.summary.features, self.frequencies
        assert features is not None  # both kept by these methods
        assert frequencies is not None
        positive = self.plan.method == "positive_features"
        return feature_estimate(X, features, frequencies, self.plan.beta, positive, self.summary.statistics)

    _positive_features = _random_fourier


def needs_softmax(plan: Plan) -> bool:
    """Whether a method is only defined for softmax, and the kernel is another."""
    return plan.has_features and plan.kernel is not SOFTMAX
