"""Bottom-k sampling by hash: a weighted sample of the keys that does not depend on order, chunks or precision.

Keys are hashed by their values, so that the same keys make the same sample wherever they are, and the samples of two
sets of keys merge into that of their union.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .statistics import group_sums
from .types import Array, Hashes, Integers

# Sorted hashes of all distinct keys with their total weights, in a few parts.
HashIndex = list[tuple[Hashes, Array]]

# An odd number near 2^64 over the golden ratio, whose multiples are spread evenly.
_SPREAD = np.uint64(0x9E3779B97F4A7C15)

_TINY = np.finfo(np.float64).tiny


def rounded(X: Array) -> Array:
    """Round to the 24 significant bits of float32, in float64; the same for the same numbers in either precision."""
    bits = np.array(X, dtype=np.float64, order="C").view(np.uint64)
    bits += np.uint64(1 << 28)
    bits &= np.uint64(0xFFFFFFFFE0000000)
    return bits.view(np.float64)


def _mix(h: Hashes) -> Hashes:
    """Apply a bijection of 64 bits in which every input bit changes half of the output bits (splitmix64)."""
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


def hash_rows(X: Array) -> Hashes:
    """Return a 64-bit hash of each row, the same in float32 and float64."""
    bits = (rounded(X) + 0.0).view(np.uint64)  # + 0.0 turns -0.0 into 0.0
    columns = _mix(np.arange(1, X.shape[1] + 1, dtype=np.uint64) * _SPREAD)
    return _mix((_mix(bits ^ columns) * _SPREAD).sum(axis=1, dtype=np.uint64))


class KeySample(NamedTuple):
    """Distinct keys drawn without replacement, with probability in proportion to their weight, in the order drawn.

    Every key has an exponential rank of mean one over its weight, a function of its hash; the smallest ranks are drawn.

    Attributes
    ----------
    keys : ndarray of shape (s, d), float64
    weight : ndarray of shape (s,)
        Total weight of the key, over all its copies.
    hashes : ndarray of uint64 of shape (s,)
    exponential : ndarray of shape (s,)
        Exponential variable of mean 1; divided by the weight it is the rank.
    rows : ndarray of int of shape (s,)
        Row of the key, or of one of its copies, in the matrix it was drawn from.
    labels, cells : ndarray of int of shape (s,)
        Clusters, and cells where there are any.
    """

    keys: Array
    weight: Array
    hashes: Hashes
    exponential: Array
    rows: Integers
    labels: Integers
    cells: Integers


def _rank(exponential: Any, weight: Any) -> Any:
    """Return the ranks of keys; infinite where the weight is nearly zero."""
    with np.errstate(over="ignore"):
        return exponential / weight


def draw(
    X: Array, active: Integers, weights: Array | None, hashes: Hashes, index: HashIndex, size: int, seed: int
) -> KeySample:
    """Draw `size` + 1 distinct keys among the active rows of `X`, whose weights and hashes are given.

    Copies of a key are one key of their total weight, over all keys in the index if there is one.
    """
    distinct, position, copies = np.unique(hashes, return_index=True, return_inverse=True)
    total = indexed_weight(index, distinct) if index else group_sums(copies, weights, len(distinct))
    uniform = (_mix(distinct ^ _mix(np.full(1, seed, np.uint64) * _SPREAD)) >> np.uint64(11)) * 2.0**-53
    exponential = -np.log1p(-uniform) + _TINY
    order = np.argsort(_rank(exponential, total), kind="stable")[: size + 1]  # ties are broken by hash
    rows = active[position[order]]
    return KeySample(
        X[rows].astype(np.float64),
        total[order],
        distinct[order],
        exponential[order],
        rows,
        *np.zeros((2, len(order)), np.intp),
    )


def merge_samples(a: KeySample, b: KeySample, index: HashIndex, size: int) -> KeySample:
    """Draw `size` + 1 keys from the union of what two samples were drawn from; `index` is that of the union, if any."""
    both = KeySample._make(np.concatenate(parts) for parts in zip(a, b, strict=True))
    _, position, copies = np.unique(both.hashes, return_index=True, return_inverse=True)
    total = indexed_weight(index, both.hashes[position]) if index else group_sums(copies, both.weight, len(position))
    both = KeySample._make(part[position] for part in both)._replace(weight=total)
    order = np.lexsort((both.hashes, _rank(both.exponential, both.weight)))[: size + 1]
    return KeySample._make(part[order] for part in both)


def split(sample: KeySample, size: int) -> tuple[KeySample, Array, KeySample]:
    """Return the first `size` keys sorted by cluster, their inverse probability weights, and the other keys."""
    part, others = (KeySample._make(column[cut] for column in sample) for cut in (slice(size), slice(size, None)))
    # The smallest rank that was not drawn is the threshold that gives every key's inclusion probability.
    threshold = _rank(others.exponential[0], others.weight[0]) if len(others.weight) else np.inf
    sampling_weight = part.weight / -np.expm1(-part.weight * threshold)
    order = np.argsort(part.labels, kind="stable")
    return KeySample._make(column[order] for column in part), sampling_weight[order], others


def add_hashes(index: HashIndex, hashes: Hashes, weights: Array | None) -> HashIndex:
    """Return the index with more keys, given by hash and weight."""
    if not len(hashes):
        return index
    distinct, copies = np.unique(hashes, return_inverse=True)
    index = [*index, (distinct, group_sums(copies, weights, len(distinct)))]
    # Like a binary counter: every key is sorted anew at most log2(number of chunks) times.
    while len(index) > 1 and len(index[-1][0]) >= len(index[-2][0]):
        (a, b), index = index[-2:], index[:-2]
        distinct, copies = np.unique(np.concatenate([a[0], b[0]]), return_inverse=True)
        index.append((distinct, group_sums(copies, np.concatenate([a[1], b[1]]), len(distinct))))
    return index


def indexed_weight(index: HashIndex, hashes: Hashes) -> Array:
    """Return the weights of the keys with these hashes; zero where there is no such key."""
    found = np.zeros(len(hashes))
    for known, weight in index:
        position = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
        found += np.where(known[position] == hashes, weight[position], 0)
    return found


# Drawing for an embedding ----------------------------------------------------------------------------
# Number of keys that represent those that are not near, in all and at least in each cluster.
SAMPLE_SIZE, _CLUSTER_SAMPLE = 256, 64


def stratified_sample(n: int, labels: Integers | None, n_clusters: int, seed: list[int]) -> list[Integers]:
    """Draw numbers of keys from each cluster, with equal probability and without replacement.

    The keys of an embedding move between draws, so that bottom-k sampling would have to hash all of them each time,
    which takes hundreds of times as long as drawing numbers. Their order, unlike that of given keys, does not change.
    """
    generator = np.random.default_rng(seed)
    labels = np.zeros(n, np.intp) if labels is None else labels
    wanted = max(SAMPLE_SIZE // n_clusters, _CLUSTER_SAMPLE)
    members = [np.flatnonzero(labels == a) for a in range(n_clusters)]
    return [np.sort(generator.choice(m, min(wanted, len(m)), replace=False)) for m in members]


def systematic_sample(weights: Array, size: int, seed: Sequence[int]) -> tuple[Integers, Array]:
    """Draw about `size` distinct numbers, with chances proportional to `weights`; return them and their chances.

    Numbers whose chance would be above one are all drawn. The others are passed in random order by steps of equal
    weight, so that sums of ``x / chance`` over the sample estimate sums of x over all without bias.
    """
    chance, certain = np.zeros(len(weights)), np.zeros(len(weights), bool)
    while True:  # those that are certain leave fewer draws to the others, of which more can then be certain
        others = ~certain & (weights > 0)
        total = float(weights[others].sum())
        if total > 0:
            chance[others] = np.minimum((size - np.count_nonzero(certain)) / total * weights[others], 2)
        too_likely = others & (chance >= 1)
        chance[too_likely] = 1
        if not too_likely.any():
            break
        certain |= too_likely
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(weights))
    steps = np.floor(np.cumsum(np.where(certain, 0, chance)[order]) + generator.random())
    drawn = order[np.diff(steps, prepend=0) > 0]
    numbers = np.sort(np.concatenate([np.flatnonzero(certain), drawn]))
    return numbers, chance[numbers]
