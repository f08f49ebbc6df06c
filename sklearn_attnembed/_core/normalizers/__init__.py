"""Normalizers: log Z of queries against keys, by one method each.

A normalizer is one entry of `NORMALIZERS`. To add one, write its function in `estimates` and add the entry.
"""

from collections.abc import Callable
from typing import NamedTuple

from ..kernels import SOFTMAX, Kernel
from ..key_sketch import FittedKeys, Plan
from ..logsum import LogSum
from ..types import Array, Field
from . import estimates
from .exact import exact_field
from .mixture import gaussian_field
from .neighbors import AttendedKeys, neighbor_field
from .random_features import fourier_sums, positive_sums
from .sampled import sampled_field


class Normalizer(NamedTuple):
    """How log Z is estimated, and what of the keys has to be kept for that.

    Attributes
    ----------
    name : str
        Value of the parameter `method`.
    estimate : callable
        ``(fitted keys, X, with_error) -> (log Z, its standard error)`` of a block of queries in float64.
    cost : callable
        ``(plan, n_keys, d) -> multiplications`` for one query and one key.
    block_rows : callable
        ``(fitted keys, n) -> rows`` of a block of `n` queries.
    log_mass : callable or None
        ``(fitted keys, X) -> log mass of each cluster``; None if the mixture's shares are scaled to log Z.
    kernels : tuple of Kernel or None
        Kernels that the method is defined for; None for all.
    is_exact : bool
        Whether it sums all keys, the heaviest too, without an error.
    keeps_keys : bool
        Whether it needs the keys themselves, so that estimators cannot be merged.
    sums_keys : bool
        Whether `field` sums over keys themselves, all or some of them.
    uses_sample : bool
        Whether estimates, not only their errors, use the sample.
    has_hash_index : bool
        Whether a query that is a key is recognized, for its own term to be summed exactly.
    has_cells : bool
        Whether it needs an inverted index of the keys.
    feature_sums : callable or None
        ``(Y, weights, frequencies, beta) -> LogSum``: sums of random features over keys.
    field : callable or None
        ``AttendedKeys -> Field``: log Z with its gradient, for embeddings; None if the method has no gradient.
    """

    name: str
    estimate: Callable[[FittedKeys, Array, bool], tuple[Array, Array]]
    cost: Callable[[Plan, int, int], float]
    block_rows: Callable[[FittedKeys, int], int] = estimates.small_rows
    log_mass: Callable[[FittedKeys, Array], Array] | None = None
    kernels: tuple[Kernel, ...] | None = None
    is_exact: bool = False
    keeps_keys: bool = False
    sums_keys: bool = False
    uses_sample: bool = False
    has_hash_index: bool = False
    has_cells: bool = False
    feature_sums: Callable[[Array, Array | None, Array, float], LogSum] | None = None
    field: Callable[[AttendedKeys], Field] | None = None

    def is_defined_for(self, kernel: Kernel) -> bool:
        """Whether the method exists for a kernel."""
        return self.kernels is None or any(kernel is own for own in self.kernels)


def exact_field_of(keys: AttendedKeys) -> Field:
    """Return log Z and its gradient over all keys."""
    return exact_field(keys.vectors, keys.weights, keys.beta, keys.with_self)


GAUSSIAN = Normalizer(
    "gaussian",
    estimates.gaussian,
    estimates.mixture_cost,
    log_mass=estimates.mixture_masses,
    field=lambda keys: gaussian_field(keys.statistics, keys.beta, dtype=keys.vectors.dtype),
)
CONTROL_VARIATE = Normalizer(
    "control_variate",
    estimates.control_variate,
    estimates.sample_cost,
    estimates.sample_rows,
    uses_sample=True,
    has_hash_index=True,
)
SAMPLING = CONTROL_VARIATE._replace(name="sampling", estimate=estimates.sampling, sums_keys=True, field=sampled_field)
NEIGHBORS = Normalizer(
    "neighbors",
    estimates.neighbors,
    estimates.neighbors_cost,
    estimates.probing_rows,
    keeps_keys=True,
    sums_keys=True,
    uses_sample=True,
    has_cells=True,
    field=lambda keys: exact_field_of(keys) if keys.near is None else neighbor_field(keys, keys.near),
)
RANDOM_FOURIER = Normalizer(
    "random_fourier", estimates.random_fourier, estimates.features_cost, kernels=(SOFTMAX,), feature_sums=fourier_sums
)
POSITIVE_FEATURES = RANDOM_FOURIER._replace(
    name="positive_features", estimate=estimates.positive_features, feature_sums=positive_sums
)
EXACT = Normalizer(
    "exact",
    estimates.exact,
    estimates.exact_cost,
    estimates.pair_rows,
    estimates.exact_masses,
    is_exact=True,
    keeps_keys=True,
    sums_keys=True,
    field=exact_field_of,
)

NORMALIZERS = {
    normalizer.name: normalizer
    for normalizer in (GAUSSIAN, CONTROL_VARIATE, SAMPLING, NEIGHBORS, RANDOM_FOURIER, POSITIVE_FEATURES, EXACT)
}

# Value of `method` that lets `calibration.choose` take one of these.
AUTO = "auto"
