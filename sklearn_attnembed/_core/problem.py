"""What is embedded, how its normaliser is had, and what has to be looked up for that."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .affinity_matrix import Affinity
from .inverted_index import Cells, build_cells, nearest_keys
from .normalizers.neighbors import NearKeys
from .parallel import Runner
from .statistics import KeyStatistics
from .types import Array, Integers

# Keys of the sample that stands for those not near; of each cluster, so many at least.
_SAMPLE, _CLUSTER_SAMPLE = 256, 64


class Problem(NamedTuple):
    """What is embedded: affinities between groups of rows, one group (square) or two (bipartite).

    Rows without any affinity have no part in it.

    Attributes
    ----------
    affinity : Affinity
        Row-stochastic, over the rows of all groups.
    queries : Affinity or None
        Affinities of the rows as they would come to be transformed, if there is one group: `affinity` may have been
        made symmetric.
    group : list of int
        The group of each block of rows.
    key_group : list of int
        For each group, the group of its keys.
    sizes : list of int
        Rows of each group.
    null : ndarray of shape (n,)
        The null model p0, summing to one over each group.
    weight : ndarray of shape (n,) or None
        Key weights; None for equal weights.
    beta : float
        1 / temperature.
    walk_length : int
    """

    affinity: Affinity
    queries: Affinity | None
    group: list[int]
    key_group: list[int]
    sizes: list[int]
    null: Array
    weight: Array | None
    beta: float
    walk_length: int

    def group_rows(self, group: int) -> slice:
        """The rows of one group."""
        start = sum(self.sizes[:group])
        return slice(start, start + self.sizes[group])

    def group_numbers(self, group: int) -> Integers:
        """Numbers of the rows of one group."""
        rows = self.group_rows(group)
        return np.arange(rows.start, rows.stop)


class Keys(NamedTuple):
    """Keys of one group as a normaliser sees them, and the mean that the group's own rows are pushed away from.

    Its own, not that of its keys: on a bipartite graph the loss could otherwise be lowered without end by moving
    all queries to one pole and all keys to the other.
    """

    statistics: KeyStatistics
    null_mean: Array


class Strategy(NamedTuple):
    """How Z is had: `normalizer` and what it needs from outside.

    Attributes
    ----------
    normalizer : {"gaussian", "neighbors", "exact"}
    n_clusters : int
    n_exact : int
    partition : callable
        Keys -> cluster labels.
    centers : callable
        ``(points, k, seed) -> at most k centers``.
    seed : int
        Of the samples.
    """

    normalizer: str
    n_clusters: int
    n_exact: int
    partition: Callable[[Array], Integers]
    centers: Callable[[Array, int, int], Array]
    seed: int

    @property
    def is_plain(self) -> bool:
        """Whether one Gaussian is all there is, so that nothing has to be looked up as the vectors move."""
        return self.normalizer == "gaussian" and self.n_clusters == 1


class KeyIndex(NamedTuple):
    """What was looked up of the vectors, and goes stale as they move.

    Attributes
    ----------
    labels : ndarray of int of shape (n,) or None
        Clusters.
    near : list of Near or None
        For each group what its queries sum one by one; None where all keys are summed.
    """

    labels: Integers | None
    near: list[NearKeys | None]


def build_key_index(
    problem: Problem, Y: Array, strategy: Strategy, before: KeyIndex | None, round: int, run: Runner
) -> KeyIndex:
    """Clusters, near keys and samples of the vectors as they are now."""
    labels = None
    if strategy.n_clusters > 1:
        labels = np.zeros(len(Y), dtype=np.intp)
        for group in range(len(problem.sizes)):
            rows = problem.group_rows(group)
            labels[rows] = strategy.partition(Y[rows])
    near: list[NearKeys | None] = [None] * len(problem.sizes)
    if strategy.normalizer == "neighbors":
        for group, key_group in enumerate(problem.key_group):
            last = None if before is None else before.near[group]
            known = None if last is None else last.nearest
            keys = problem.group_numbers(key_group)
            near[group] = find_near_keys(Y[problem.group_rows(group)], Y, keys, labels, strategy, known, round, run)
    return KeyIndex(labels, near)


def cells_of_all(keys: Array, active: Integers, strategy: Strategy, round: int, run: Runner) -> Cells:
    """Cells of the active keys, whatever their clusters."""
    labels = np.zeros(len(keys), np.intp)
    return build_cells(keys, active, labels, lambda points, k: strategy.centers(points, k, round), run)


def find_near_keys(
    X: Array,
    keys: Array,
    active: Integers,
    labels: Integers | None,
    strategy: Strategy,
    known: Integers | None,
    round: int,
    run: Runner,
) -> NearKeys | None:
    """Near keys of the queries and the sample of the others; None if there are too few keys for others."""
    if len(active) <= strategy.n_exact + _SAMPLE:
        return None
    all_labels = np.zeros(len(keys), np.intp) if labels is None else labels
    cells = cells_of_all(keys, active, strategy, round, run)
    nearest = nearest_keys(X, keys, cells, strategy.n_exact, run, known)
    generator = np.random.default_rng([strategy.seed, round])
    wanted = max(_SAMPLE // strategy.n_clusters, _CLUSTER_SAMPLE)
    members = [active[all_labels[active] == a] for a in range(strategy.n_clusters)]
    sample = [np.sort(generator.choice(m, min(wanted, len(m)), replace=False)) for m in members]
    return NearKeys(nearest, sample, labels)
