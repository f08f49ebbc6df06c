"""Near keys: the keys around each query are summed exactly, and a regression on the others adds their share."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..inverted_index import _ROWS, Cells, n_keys_scanned
from ..kernels import Kernel
from ..logsum import LogSum, exponentials, log_sum
from ..statistics import KeyStatistics
from ..types import Array, Field, Integers, Mask, Rows
from .control_variate import KnownTerms
from .exact import _BLOCK_ELEMENTS
from .mixture import scaled_moments, score_moments


def probe(X: Array, cells: Cells, n_exact: int, kernel: Kernel, beta: float) -> Mask:
    """Choose the cells that each query sums; ndarray of bool of shape (n, n_cells)."""
    sizes = np.diff(cells.starts)
    wanted = n_keys_scanned(n_exact)
    probed = np.zeros((len(X), len(sizes)), bool)
    if wanted >= sizes.sum():
        probed[:] = True
        return probed
    # Twice the number of cells of mean size holds enough keys, or nearly enough.
    n_first = min(int(np.ceil(2 * wanted / sizes.mean())), len(sizes))
    for start in range(0, len(X), _ROWS):
        rank = -kernel.log_value(beta * (X[start : start + _ROWS] @ cells.centers.T))
        first = np.argpartition(rank, n_first - 1, axis=1)[:, :n_first]
        order = np.argsort(np.take_along_axis(rank, first, axis=1), axis=1, kind="stable")
        first = np.take_along_axis(first, order, axis=1)
        before = np.cumsum(sizes[first], axis=1) - sizes[first] / 2
        before[:, 0] = 0
        np.put_along_axis(probed[start : start + _ROWS], first, before < wanted, axis=1)
    return probed


def terms_of_probed_cells(
    X: Array,
    keys: Array,
    log_weights: Array | None,
    cells: Cells,
    probed: Mask,
    kernel: Kernel,
    beta: float,
    mean: Array,
) -> KnownTerms:
    """Sum over the keys of the probed cells; which keys of the sample are among them is for the caller to say."""
    n, log_mass = len(X), np.full(len(X), -np.inf)
    zeroth, first, second = np.zeros((3, *mean.shape))
    cell_of_pair, query_of_pair = np.nonzero(probed.T)
    ends = np.searchsorted(cell_of_pair, np.arange(len(cells.centers) + 1))
    for c in np.unique(cell_of_pair):
        a, members = cells.cluster[c], cells.order[cells.starts[c] : cells.starts[c + 1]]
        Y, log_w = keys[members], 0.0 if log_weights is None else log_weights[members]
        weights = np.broadcast_to(np.exp(log_w), len(members))
        step = max(_BLOCK_ELEMENTS // len(members), 1)
        for start in range(ends[c], ends[c + 1], step):
            rows = query_of_pair[start : min(start + step, ends[c + 1])]
            scores = beta * (X[rows] @ Y.T)
            log_mass[rows] = np.logaddexp(log_mass[rows], log_sum(kernel.log_value(scores) + log_w))
            scores -= mean[rows, a][:, None]
            zeroth[rows, a] += weights.sum()
            first[rows, a] += scores @ weights
            second[rows, a] += np.square(scores, out=scores) @ weights
    return KnownTerms(log_mass, zeroth, first, second, np.zeros((n, 0), bool))


class NearKeys(NamedTuple):
    """Keys that the queries of a field sum one by one.

    Attributes
    ----------
    nearest : ndarray of int of shape (n_queries, n_exact)
        Near keys of each query, distinct.
    sample : list of ndarray of int
        Keys of each cluster drawn at random, the same for all queries.
    labels : ndarray of int of shape (n_keys,) or None
        Clusters of the keys.
    """

    nearest: Integers
    sample: Sequence[Integers]
    labels: Integers | None


class AttendedKeys(NamedTuple):
    """Keys as the normalizer of an embedding sees them.

    Attributes
    ----------
    statistics : KeyStatistics
    vectors : ndarray of shape (n_keys, d)
    weights : ndarray of shape (n_keys,) or None
    beta : float
        1 / temperature.
    near : NearKeys or None
        Keys that queries sum one by one; None where all keys are summed.
    with_self : bool
        Whether to add the term of a query that is a key itself, and moves with it.
    seed : tuple of int
        Seed of a sample of these keys.
    """

    statistics: KeyStatistics
    vectors: Array
    weights: Array | None
    beta: float
    near: NearKeys | None = None
    with_self: bool = False
    seed: tuple[int, ...] = ()


class FarKeys(NamedTuple):
    """Mass of a cluster without its near keys, and the terms of its gradient.

    The sum of these keys times their mass is
    ``by_mean mu + by_product (beta Omega x) - sum_near (level + slope s_j) w_j y_j + sum_sample by_sample_j y_j``.
    """

    mass: Array
    by_mean: Array
    by_product: Array
    level: Array
    slope: Array
    by_sample: Array


def _far_mass(
    moments: tuple[float, Array, Array], near: tuple[Array, Array], sample: tuple[Array, Array], reference: Array
) -> FarKeys:
    """Sum exp(s_j - reference) over the far keys of one cluster, by regression on a sample of them.

    Their weight, mean score and variance are known: those of all keys less those of the near ones. On the sample,
    exp(s) is regressed on (1, t, t^2), t the standardized score. The value of the regression at the known moments is
    the estimate, which is at least the exponential of the mean score (Jensen). The gradient is the same with (1, t).
    """
    # `control_variate_estimate` is as accurate, but has two coefficients for all clusters and no gradient. The solver
    # needs the gradient of this very value, in the precision of the keys.
    (weight, mean, variance), (s, w), (sampled, sample_weight) = moments, near, sample
    rest = weight - w.sum(axis=1)
    rest = np.where(rest > 1e-9 * weight, rest, 0)
    per = 1 / np.where(rest > 0, rest, 1)
    center = (weight * mean - (w * s).sum(axis=1)) * per
    spread = (weight * (variance + mean**2) - (w * s * s).sum(axis=1)) * per - center**2
    scale = np.sqrt(spread.clip(1e-12))
    dtype = sampled.dtype
    t = (sampled - center[:, None].astype(dtype)) / scale[:, None].astype(dtype)
    f = np.exp(np.minimum(sampled - reference[:, None].astype(dtype), 50))
    powers = [sample_weight]
    for _ in range(4):
        powers.append(powers[-1] * t)
    total = np.maximum(sample_weight.sum(axis=1), np.finfo(dtype).tiny).astype(np.float64)
    targets = np.stack([np.einsum("ij,ij->i", power, f) / total for power in powers[:3]], axis=1)
    means = [power.sum(axis=1) / total for power in powers]
    normal = np.stack([np.stack(means[i : i + 3], axis=1) for i in range(3)], axis=1)
    normal += 1e-6 * np.eye(3)
    quadratic = np.linalg.solve(normal, targets[:, :, None])[:, :, 0]
    value = quadratic[:, 0] + quadratic[:, 2]
    a, b = np.linalg.solve(normal[:, :2, :2], targets[:, :2, None])[:, :, 0].T
    least = np.exp(center - reference)
    bounded = value <= least
    value, a, b = np.where(bounded, least, value), np.where(bounded, least, a), np.where(bounded, 0, b / scale)
    here = rest > 0
    level, slope = np.where(here, a - b * center, 0), np.where(here, b, 0)
    by_sample = sample_weight * (f - level[:, None].astype(dtype) - slope[:, None].astype(dtype) * sampled)
    by_sample *= np.where(bounded, 0, rest / total)[:, None].astype(dtype)
    return FarKeys(rest * value, weight * (level + slope * mean), weight * slope, level, slope, by_sample)


def neighbor_field(attended: AttendedKeys, near: NearKeys) -> Field:
    """Return the field of softmax attention with near keys summed exactly, the others by regression on a sample."""
    statistics, keys, weights, beta, _, with_self, _ = attended
    moments = scaled_moments(statistics, beta, keys.dtype)
    sampled = [keys[members] for members in near.sample]
    sample_weight = [np.ones(len(m)) if weights is None else weights[m] for m in near.sample]
    places = np.full(len(keys), -1, np.int32)
    for members in near.sample:
        places[members] = np.arange(len(members))
    step = max(2 * _BLOCK_ELEMENTS // (near.nearest.shape[1] * keys.shape[1]), 1)

    def block_field(X: Array, nearest: Integers) -> tuple[Array, Array]:
        Y, w = keys[nearest], np.ones(nearest.shape) if weights is None else weights[nearest]
        s = beta * np.matmul(Y, X[:, :, None])[:, :, 0].astype(np.float64)
        reference, share = exponentials(s)
        share *= w
        total = share.sum(axis=1) + with_self * np.exp(beta - reference)
        labels = np.zeros(nearest.shape, np.intp) if near.labels is None else near.labels[nearest]
        products: list[Array] = []
        mean, variance = (part.astype(np.float64) for part in score_moments(X, moments, products))
        gradient = np.zeros_like(X)
        for a in np.flatnonzero(statistics.weight > 0):
            inside = np.where(labels == a, w, 0)
            row, key = np.nonzero((labels == a) & (places[nearest] >= 0))
            far_weight = np.tile(sample_weight[a].astype(keys.dtype), (len(X), 1))
            far_weight[row, places[nearest[row, key]]] = 0
            cluster = statistics.weight[a], mean[:, a], variance[:, a]
            far = _far_mass(cluster, (s, inside), (beta * (X @ sampled[a].T), far_weight), reference)
            total += far.mass
            share -= inside * (far.level[:, None] + far.slope[:, None] * s)
            gradient += far.by_mean[:, None].astype(X.dtype) * moments.means[a]
            gradient += far.by_product[:, None].astype(X.dtype) * products[a]
            gradient += far.by_sample @ sampled[a]
        gradient += np.matmul(share[:, None, :].astype(X.dtype), Y)[:, 0]
        return LogSum(reference, total).log(), gradient / total[:, None].astype(X.dtype)

    def field(X: Array, rows: Rows) -> tuple[Array, Array]:
        nearest = near.nearest[rows]
        parts = [block_field(X[i : i + step], nearest[i : i + step]) for i in range(0, len(X), step)]
        return np.concatenate([log_z for log_z, _ in parts]), np.concatenate([gradient for _, gradient in parts])

    return field
