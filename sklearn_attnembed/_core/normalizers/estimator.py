"""What is kept of the keys, in one pass, mergeable, and log Z of queries by every method from it."""

from typing import Any

import numpy as np
from scipy.special import logsumexp

from ..inverted_index import nearest_center, query_rows
from ..key_sketch import KeySketch, Plan
from ..normalizers.control_variate import KnownTerms, control_variate_estimate, own_terms, sampled_rows
from ..normalizers.exact import exact_attention, exact_log_mass, log_difference
from ..normalizers.mixture import gaussian_log_mass, score_moments
from ..normalizers.neighbors import probe, terms_of_probed_cells
from ..normalizers.random_features import feature_estimate
from ..parallel import Runner
from ..sampling import hash_rows, indexed_weight, split
from ..types import Array

# Elements of a temporary block of scores.
_BLOCK_ELEMENTS = 2**18


def _slices(n: int, step: int) -> list[slice]:
    return [slice(i, min(i + step, n)) for i in range(0, n, step)]


class Estimator:
    """log Z of blocks of queries, from a plan, a summary and, for some methods, the keys."""

    def __init__(self, plan: Plan, summary: KeySketch, keys: Array | None, weights: Array | None, labels: Any):
        self.plan, self.summary, self.keys, self.labels = plan, summary, keys, labels
        self.log_weights = None if weights is None else np.log(weights)
        # A check of a mixture does well with fewer keys than an estimate.
        size = plan.n_samples if plan.method == "gaussian" else plan.sample_size
        self.sample, self.sampling_weight, _ = split(summary.sample, size)
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

    def _control_variate_estimate(
        self, X: Array, moments: tuple[Array, Array, Array], **options: Any
    ) -> tuple[Array, Array]:
        scores = self.plan.beta * (X @ self.sample.keys.T)
        quadratic = self.plan.covariance_type == "full"
        return control_variate_estimate(
            scores, self.sample, self.sampling_weight, self.plan.kernel, moments, quadratic=quadratic, **options
        )

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
        sampled, noise = self._control_variate_estimate(X, moments, census=self._not_itself(X, moments[1]))
        residual = log_difference(log_z, sampled)
        # Nobody says whether a query is a key: then its own term is a part of Z that no mixture has.
        weight = np.mean(np.log(self.sample.weight))
        own = self.plan.kernel.log_value(self.plan.beta * np.einsum("ij,ij->i", X, X)) + weight
        own = log_difference(own, sampled)
        itself = np.log1p(np.exp(np.clip(own, None, 700), where=np.isfinite(own), out=np.zeros(len(X))))
        error: Array = np.hypot(np.hypot(np.clip(residual, -700, 700), noise), itself)
        return error

    def _not_itself(self, X: Array, mean: Array) -> KnownTerms:
        """No census, but a sample without the query: what it stands for it would stand for with its largest term."""
        nothing = np.zeros(mean.shape)
        itself = sampled_rows(hash_rows(X), self.sample, np.ones(len(X)))
        return KnownTerms(np.full(len(X), -np.inf), nothing, nothing, nothing, itself)

    def _control_variate(self, X: Array, with_error: bool) -> tuple[Array, Array]:
        moments = self._moments(X)
        return self._control_variate_estimate(X, moments, census=self._own(X, moments[1]))

    def _sampling(self, X: Array, with_error: bool) -> tuple[Array, Array]:
        moments = self._moments(X)
        return self._control_variate_estimate(X, moments, census=self._own(X, moments[1]), controls=False)

    def _own(self, X: Array, mean: Array) -> KnownTerms | None:
        marks = hash_rows(X)
        weight = indexed_weight(self.summary.ledger, marks)
        if not weight.any():
            return None
        score = self.plan.beta * np.einsum("ij,ij->i", X, X)
        cluster = nearest_center(X, self.summary.centers)
        return own_terms(weight, score, cluster, sampled_rows(marks, self.sample, weight), self.plan.kernel, mean)

    def _neighbors(self, X: Array, with_error: bool) -> tuple[Array, Array]:
        plan, cells, moments = self.plan, self.summary.cells, self._moments(X)
        assert self.keys is not None  # both kept by this method
        assert cells is not None
        probed = probe(X, cells, plan.n_exact, plan.kernel, plan.beta)
        census = terms_of_probed_cells(
            X, self.keys, self.log_weights, cells, probed, plan.kernel, plan.beta, moments[1]
        )
        parts = []
        for rows in self._small_blocks(len(X), True):
            sampled = probed[rows][:, self.sample.cells]
            part = KnownTerms._make(field[rows] for field in census)._replace(sampled=sampled)
            cut = (moments[0], moments[1][rows], moments[2][rows])
            parts.append(self._control_variate_estimate(X[rows], cut, census=part))
        log_z, error = (np.concatenate(column) for column in zip(*parts, strict=True))
        return log_z, error

    def _random_fourier(self, X: Array, with_error: bool) -> tuple[Array, Array]:
        features, frequencies = self.summary.features, self.frequencies
        assert features is not None  # both kept by these methods
        assert frequencies is not None
        positive = self.plan.method == "positive_features"
        return feature_estimate(X, features, frequencies, self.plan.beta, positive, self.summary.statistics)

    _positive_features = _random_fourier
