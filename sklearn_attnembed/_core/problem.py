"""What an embedding is fitted to: affinities between groups of rows, and how log Z is estimated."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .affinity_matrix import BlockedAffinity
from .inverted_index import Cells, build_cells, nearest_keys
from .kernels import Kernel
from .normalizers import Normalizer
from .normalizers.neighbors import NearKeys
from .parallel import Runner
from .sampling import SAMPLE_SIZE, stratified_sample
from .types import Array, Integers

# The index is built anew so many iterations after the first time: each time changes the objective a little, and only a
# fixed one can be converged on.
_RENEWALS = (0, 4, 10)


class Problem(NamedTuple):
    """Affinities between one group of rows (square) or two (bipartite).

    Rows without any affinity are left out.

    Attributes
    ----------
    affinity : BlockedAffinity
        Row-stochastic affinities over the rows of all groups.
    queries : BlockedAffinity or None
        Affinities of the rows as `transform` gets them, where there is one group: `affinity` may have been made
        symmetric.
    group : list of int
        The group of each block of rows.
    key_group : list of int
        For each group, the group of its keys.
    sizes : list of int
        Number of rows of each group.
    null : ndarray of shape (n,)
        The null model p0, which sums to one over each group.
    weight : ndarray of shape (n,) or None
        Key weights; None for equal weights.
    kernel : Kernel
    beta : float
        1 / temperature.
    walk_length : int
        Number of powers of the affinities that are averaged.
    backward : BlockedAffinity or None
        The transpose of `affinity`, where vectors move as queries and as keys; None where they move as queries only.
    signature : ndarray of shape (d,) or None
        Signs of the components in the product of a query and a key; None if all are positive.
    """

    affinity: BlockedAffinity
    queries: BlockedAffinity | None
    group: list[int]
    key_group: list[int]
    sizes: list[int]
    null: Array
    weight: Array | None
    kernel: Kernel
    beta: float
    walk_length: int
    backward: BlockedAffinity | None = None
    signature: Array | None = None

    def signed(self, vectors: Array) -> Array:
        """Return vectors, or products with them, with the signs of the signature."""
        return vectors if self.signature is None else vectors * self.signature.astype(vectors.dtype)

    def group_rows(self, group: int) -> slice:
        """Return the rows of one group."""
        start = sum(self.sizes[:group])
        return slice(start, start + self.sizes[group])

    def rows_within_group(self, block: int) -> slice:
        """Return the rows of a block, numbered within its group."""
        rows, first = self.affinity.bounds[block], self.group_rows(self.group[block]).start
        return slice(rows.start - first, rows.stop - first)

    def key_rows(self, group: int) -> slice:
        """Return the rows that are the keys of one group."""
        return self.group_rows(self.key_group[group])

    def key_weights(self, group: int) -> Array | None:
        """Return the weights of the keys of one group."""
        return None if self.weight is None else self.weight[self.key_rows(group)]


class Strategy(NamedTuple):
    """How log Z is estimated, and what that needs from outside the core.

    Attributes
    ----------
    normalizer : Normalizer
        One that has a gradient.
    n_clusters : int
        Gaussians of the mixture.
    n_exact : int
        Near keys that are summed exactly.
    partition : callable
        ``keys -> cluster labels``.
    centers : callable
        ``(points, k, seed) -> at most k centers``.
    seed : int
        Seed of the samples.
    """

    normalizer: Normalizer
    n_clusters: int
    n_exact: int
    partition: Callable[[Array], Integers]
    centers: Callable[[Array, int, int], Array]
    seed: int

    @property
    def is_plain(self) -> bool:
        """Whether log Z comes from a single Gaussian, so that no index has to follow the vectors."""
        return not self.normalizer.sums_keys and self.n_clusters == 1

    @property
    def renewals(self) -> tuple[int, ...]:
        """Iterations after the first one with an index at which it is built anew; a sample is none to be renewed."""
        return _RENEWALS if self.normalizer.keeps_keys or self.n_clusters > 1 else (0,)


class KeyIndex(NamedTuple):
    """Clusters and lists of near keys, built from the vectors at one iteration and out of date as they move.

    Attributes
    ----------
    labels : ndarray of int of shape (n,) or None
        Cluster of each row; None for one cluster.
    near : list of NearKeys or None
        For each group the keys that its queries sum one by one, numbered within the group of the keys; None where all
        keys are summed.
    """

    labels: Integers | None
    near: list[NearKeys | None]


def build_key_index(
    problem: Problem, Y: Array, strategy: Strategy, before: KeyIndex | None, iteration: int, run: Runner
) -> KeyIndex:
    """Cluster the vectors and find the near keys of each row, starting from the lists found before."""
    labels = None
    if strategy.n_clusters > 1:
        parts = [strategy.partition(Y[problem.group_rows(group)]) for group in range(len(problem.sizes))]
        labels = np.concatenate(parts)
    near: list[NearKeys | None] = []
    for group in range(len(problem.sizes)):
        keys, known = problem.key_rows(group), None if before is None else before.near[group]
        key_labels = None if labels is None else labels[keys]
        X = problem.signed(Y[problem.group_rows(group)])
        near.append(_near_keys(X, Y[keys], key_labels, strategy, known, iteration, run))
    return KeyIndex(labels, near)


def build_cells_of_all(keys: Array, strategy: Strategy, iteration: int, run: Runner) -> Cells:
    """Cut all keys into cells, whatever their clusters."""
    everyone, labels = np.arange(len(keys)), np.zeros(len(keys), np.intp)
    return build_cells(keys, everyone, labels, lambda points, k: strategy.centers(points, k, iteration), run)


def _near_keys(
    X: Array,
    keys: Array,
    labels: Integers | None,
    strategy: Strategy,
    known: NearKeys | None,
    iteration: int,
    run: Runner,
) -> NearKeys | None:
    """Find the near keys of queries and sample the others; None if all keys are summed, being few or by the method."""
    if not strategy.normalizer.has_cells or len(keys) <= strategy.n_exact + SAMPLE_SIZE:
        return None
    cells, lists = build_cells_of_all(keys, strategy, iteration, run), None if known is None else known.nearest
    nearest = nearest_keys(X, keys, cells, strategy.n_exact, run, lists)
    sample = stratified_sample(len(keys), labels, strategy.n_clusters, [strategy.seed, iteration])
    return NearKeys(nearest, sample, labels)
