"""Key sketch: everything that is kept of the keys for estimates of log Z, whatever the normalizer."""

from typing import NamedTuple

from .inverted_index import Cells
from .kernels import Kernel
from .logsum import LogSum
from .sampling import HashIndex, KeySample
from .statistics import KeyStatistics
from .types import Array, Integers


class Plan(NamedTuple):
    """Parameters of NormalizerEstimator under their own names, resolved."""

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
        """Number of keys drawn for all clusters."""
        return int(self.n_samples) * int(self.n_clusters)


class KeySketch(NamedTuple):
    """Statistics, sample and index of the keys.

    Attributes
    ----------
    centers : ndarray of shape (kappa, d)
        Centers of the clusters; a key belongs to the nearest.
    statistics : KeyStatistics
        Statistics of all keys but the heaviest.
    heavy_keys, heavy_weights : ndarray of shape (h, d) and (h,)
        The heaviest keys.
    sample : KeySample
        Sample of all keys but the heaviest.
    hash_index : list of tuple
        Hashes and weights of all keys, for normalizers that recognize a query that is a key.
    features : LogSum or None
        Sums of random features.
    cells : Cells or None
        Inverted index of the keys.
    tails : ndarray of shape (kappa,) or None
        How heavy the tails of the scores are; None for softmax, whose Gaussian value is that of the publication.
    """

    centers: Array
    statistics: KeyStatistics
    heavy_keys: Array
    heavy_weights: Array
    sample: KeySample
    hash_index: HashIndex
    features: LogSum | None
    cells: Cells | None
    tails: Array | None

    @property
    def total_weight(self) -> float:
        """Weight of all keys."""
        return float(self.statistics.weight.sum() + self.heavy_weights.sum())


class FittedKeys(NamedTuple):
    """Everything that log Z of a query is estimated from.

    Attributes
    ----------
    plan : Plan
    sketch : KeySketch
    keys : ndarray of shape (m, d) or None
        The keys themselves, where they are kept.
    log_weights : ndarray of shape (m,) or None
        Logarithms of their weights; None for equal weights.
    labels : ndarray of int of shape (m,) or None
        Their clusters.
    sample : KeySample
        The part of the sketch's sample that estimates use, sorted by cluster.
    sampling_weight : ndarray of shape (s,)
        Weights of its keys over their inclusion probabilities.
    frequencies : ndarray of shape (d, r) or None
        Frequencies of random features.
    """

    plan: Plan
    sketch: KeySketch
    keys: Array | None
    log_weights: Array | None
    labels: Integers | None
    sample: KeySample
    sampling_weight: Array
    frequencies: Array | None
