"""One function for each normalizer: log Z of a block of queries and its standard error, from the fitted keys."""

import numpy as np

from ..inverted_index import KEYS_PER_CELL, n_keys_scanned, nearest_center, query_rows
from ..key_sketch import FittedKeys, Plan
from ..logsum import LogSum, log_difference, log_sum
from ..sampling import hash_rows, indexed_weight
from ..types import Array
from .control_variate import KnownTerms, control_variate_estimate, no_terms, own_terms, sampled_rows
from .exact import exact_attention, exact_log_mass
from .mixture import gaussian_log_mass, scaled_moments, score_moments
from .neighbors import probe, terms_of_probed_cells
from .random_features import fourier_estimate, positive_estimate

# Elements of a temporary block of scores: 2 MB in float64.
_BLOCK_ELEMENTS = 2**18

Estimate = tuple[Array, Array]


# Rows of a block ---------------------------------------------------------------------------------------
def small_rows(fitted: FittedKeys, n: int, n_scores: int = 0) -> int:
    """Return the rows of a block whose scores, `n_scores` to a row, stay in the cache."""
    n_frequencies = 0 if fitted.frequencies is None else fitted.frequencies.shape[1]
    width = max(4 * fitted.sketch.centers.shape[1], n_scores, n_frequencies)
    return int(np.clip(_BLOCK_ELEMENTS // width, 8, 4096))


def sample_rows(fitted: FittedKeys, n: int) -> int:
    """Return the rows of a block whose scores with the sample stay in the cache."""
    return small_rows(fitted, n, len(fitted.sample.keys))


def probing_rows(fitted: FittedKeys, n: int) -> int:
    """Return the rows of a block that cells are probed for."""
    cells = fitted.sketch.cells
    return small_rows(fitted, n) if cells is None else query_rows(n, cells, fitted.plan.n_exact)


def pair_rows(fitted: FittedKeys, n: int) -> int:
    """Return the rows of a block whose scores with all keys are streamed."""
    return int(np.clip(-(-n // 8), 64, 256))


# Estimates ---------------------------------------------------------------------------------------------
def exact(fitted: FittedKeys, X: Array, with_error: bool) -> Estimate:
    """Sum over all keys."""
    keys, log_weights = _kept(fitted)
    return exact_attention(X, keys, None, fitted.plan.kernel, fitted.plan.beta, log_weights)[0], np.zeros(len(X))


def exact_masses(fitted: FittedKeys, X: Array) -> Array:
    """Sum over the keys of each cluster for its log mass."""
    (keys, log_weights), plan = _kept(fitted), fitted.plan
    assert fitted.labels is not None  # kept with the keys
    n_clusters = len(fitted.sketch.centers)
    return exact_log_mass(X, keys, fitted.labels, n_clusters, plan.kernel, plan.beta, log_weights)


def mixture_masses(fitted: FittedKeys, X: Array) -> Array:
    """Return the log mass of each cluster by the Gaussian mixture."""
    plan, sketch = fitted.plan, fitted.sketch
    return gaussian_log_mass(X, sketch.statistics, plan.kernel, plan.beta, sketch.tails)


def gaussian(fitted: FittedKeys, X: Array, with_error: bool) -> Estimate:
    """Estimate log Z by the Gaussian mixture, and its error from the sample."""
    log_z = log_sum(mixture_masses(fitted, X))
    if not with_error:
        return log_z, np.zeros(len(X))
    step = sample_rows(fitted, len(X))
    blocks = [slice(i, i + step) for i in range(0, len(X), step)]
    return log_z, np.concatenate([_mixture_error(fitted, X[rows], log_z[rows]) for rows in blocks])


def _mixture_error(fitted: FittedKeys, X: Array, log_z: Array) -> Array:
    """Standard error of the mixture's log Z, from the sample without the query itself."""
    moments, plan = _moments(fitted, X), fitted.plan
    # A query that happens to be in the sample is left out: its own, largest term would be weighted as if it were one
    # of many.
    itself = sampled_rows(hash_rows(X), fitted.sample, np.ones(len(X)))
    sampled, noise = _from_sample(fitted, X, moments, known=no_terms(moments[1], itself))
    residual = log_difference(log_z, sampled)
    # It is not known whether a query is a key, whose own term is a part of Z that no mixture contains.
    weight = np.mean(np.log(fitted.sample.weight))
    own = log_difference(plan.kernel.log_value(plan.beta * np.einsum("ij,ij->i", X, X)) + weight, sampled)
    own = np.log1p(np.exp(np.clip(own, None, 700), where=np.isfinite(own), out=np.zeros(len(X))))
    error: Array = np.hypot(np.hypot(np.clip(residual, -700, 700), noise), own)
    return error


def control_variate(fitted: FittedKeys, X: Array, with_error: bool) -> Estimate:
    """Estimate log Z from the sample, by regression on the scores."""
    moments = _moments(fitted, X)
    return _from_sample(fitted, X, moments, known=_own_terms(fitted, X, moments[1]))


def sampling(fitted: FittedKeys, X: Array, with_error: bool) -> Estimate:
    """Estimate log Z by the weighted mean of f over the sample."""
    moments = _moments(fitted, X)
    return _from_sample(fitted, X, moments, known=_own_terms(fitted, X, moments[1]), controls=False)


def neighbors(fitted: FittedKeys, X: Array, with_error: bool) -> Estimate:
    """Sum the keys of the cells around each query, and estimate the sum of the others by a control variate."""
    (keys, log_weights), plan, cells = _kept(fitted), fitted.plan, fitted.sketch.cells
    assert cells is not None  # built by this method
    moments = _moments(fitted, X)
    probed = probe(X, cells, plan.n_exact, plan.kernel, plan.beta)
    known = terms_of_probed_cells(X, keys, log_weights, cells, probed, plan.kernel, plan.beta, moments[1])
    parts, step = [], sample_rows(fitted, len(X))
    for rows in (slice(i, i + step) for i in range(0, len(X), step)):
        sampled = probed[rows][:, fitted.sample.cells]
        part = KnownTerms._make(field[rows] for field in known)._replace(sampled=sampled)
        cut = (moments[0], moments[1][rows], moments[2][rows])
        parts.append(_from_sample(fitted, X[rows], cut, known=part))
    log_z, error = (np.concatenate(column) for column in zip(*parts, strict=True))
    return log_z, error


def random_fourier(fitted: FittedKeys, X: Array, with_error: bool) -> Estimate:
    """Estimate log Z by random Fourier features."""
    return fourier_estimate(X, *_features(fitted), fitted.sketch.statistics)


def positive_features(fitted: FittedKeys, X: Array, with_error: bool) -> Estimate:
    """Estimate log Z by positive random features."""
    return positive_estimate(X, *_features(fitted))


def _features(fitted: FittedKeys) -> tuple[LogSum, Array, float]:
    """Return sums of random features, their frequencies and beta."""
    features, frequencies = fitted.sketch.features, fitted.frequencies
    assert features is not None  # both kept by these methods
    assert frequencies is not None
    return features, frequencies, fitted.plan.beta


def _kept(fitted: FittedKeys) -> tuple[Array, Array | None]:
    """Return the keys themselves and their log weights."""
    assert fitted.keys is not None  # or the caller has raised an error
    return fitted.keys, fitted.log_weights


def _moments(fitted: FittedKeys, X: Array) -> tuple[Array, Array, Array]:
    """Return the weight of each cluster, and mean and variance of the scores in it."""
    statistics = fitted.sketch.statistics
    return statistics.weight, *score_moments(X, scaled_moments(statistics, fitted.plan.beta))


def _from_sample(
    fitted: FittedKeys, X: Array, moments: tuple[Array, Array, Array], known: KnownTerms | None, controls: bool = True
) -> Estimate:
    """Estimate log Z from the scores of the sample."""
    plan, sample, u = fitted.plan, fitted.sample, fitted.sampling_weight
    scores, quadratic = plan.beta * (X @ sample.keys.T), plan.covariance_type == "full"
    return control_variate_estimate(
        scores, sample, u, plan.kernel, moments, controls=controls, quadratic=quadratic, known=known
    )


def _own_terms(fitted: FittedKeys, X: Array, mean: Array) -> KnownTerms | None:
    """Return the own terms of queries that are keys, if there are any."""
    hashes = hash_rows(X)
    weight = indexed_weight(fitted.sketch.hash_index, hashes)
    if not weight.any():
        return None
    score = fitted.plan.beta * np.einsum("ij,ij->i", X, X)
    cluster = nearest_center(X, fitted.sketch.centers)
    itself = sampled_rows(hashes, fitted.sample, weight)
    return own_terms(weight, score, cluster, itself, fitted.plan.kernel, mean)


# Costs -------------------------------------------------------------------------------------------------
def mixture_cost(plan: Plan, n_keys: int, d: int) -> float:
    """Multiplications of the mixture for a query and, as there may be as many of them, a key."""
    return 2 * (1 + plan.n_clusters) * d * d


def sample_cost(plan: Plan, n_keys: int, d: int) -> float:
    """Multiplications of the mixture and of the scores with the sample."""
    return mixture_cost(plan, n_keys, d) + plan.sample_size * (2 * d + 40)


def neighbors_cost(plan: Plan, n_keys: int, d: int) -> float:
    """Multiplications of sample, scanned keys and centers of cells."""
    scanned = min(n_keys_scanned(plan.n_exact), n_keys) * (2 * d + 30)
    return sample_cost(plan, n_keys, d) + scanned + n_keys / KEYS_PER_CELL * 2 * d


def features_cost(plan: Plan, n_keys: int, d: int) -> float:
    """Multiplications of the features of a query and a key."""
    return plan.n_components * (2 * d + 40)


def exact_cost(plan: Plan, n_keys: int, d: int) -> float:
    """Multiplications of the sum over all keys."""
    return n_keys * (2 * d + 10)
