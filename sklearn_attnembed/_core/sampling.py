"""Sums over all keys from a sample of them.

The sample is drawn by a hash of what the keys are, not of where they stand: whatever the order, the chunks and the
precision, the same keys make the same sample, and the samples of two sets of keys merge into that of their union.
"""

from typing import Any, NamedTuple

import numpy as np

from .statistics import group_sums
from .types import Array, Hashes, Integers

# Which keys there are, by sorted marks, and their weights; in a few parts.
HashIndex = list[tuple[Hashes, Array]]


_SPREAD = np.uint64(0x9E3779B97F4A7C15)


_TINY = np.finfo(np.float64).tiny


def rounded(X: Array) -> Array:
    """float64 with the 24 significant bits of float32: equal for the same numbers in either precision."""
    bits = np.array(X, dtype=np.float64, order="C").view(np.uint64)
    bits += np.uint64(1 << 28)
    bits &= np.uint64(0xFFFFFFFFE0000000)
    return bits.view(np.float64)


def _mix(h: Hashes) -> Hashes:
    """A bijection of 64 bits in which every input bit moves half of the output bits (splitmix64's finaliser)."""
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


def hash_rows(X: Array) -> Hashes:
    """A 64-bit hash of each row, the same in float32 and float64."""
    bits = (rounded(X) + 0.0).view(np.uint64)  # + 0.0: -0.0 and 0.0 are one number
    columns = _mix(np.arange(1, X.shape[1] + 1, dtype=np.uint64) * _SPREAD)
    return _mix((_mix(bits ^ columns) * _SPREAD).sum(axis=1, dtype=np.uint64))


class KeySample(NamedTuple):
    """Distinct keys drawn with probability in proportion to their weight, in the order they are drawn.

    A key of weight w waits an exponential time of mean 1 / w; those first served are the sample.

    Attributes
    ----------
    keys : ndarray of shape (s, d), float64
    weight : ndarray of shape (s,)
        Total weight of the key, over all its copies.
    marks : ndarray of uint64 of shape (s,)
    waiting : ndarray of shape (s,)
        Exponential of mean 1, to be divided by the weight.
    rows : ndarray of int of shape (s,)
        Where a key, or one of its copies, stood among those it was drawn from.
    labels, cells : ndarray of int of shape (s,)
        Clusters, and cells where there are any.
    """

    keys: Array
    weight: Array
    marks: Hashes
    waiting: Array
    rows: Integers
    labels: Integers
    cells: Integers


def _time(waiting: Any, weight: Any) -> Any:
    """When keys are served; never, where the weight is next to nothing."""
    with np.errstate(over="ignore"):
        return waiting / weight


def draw(
    X: Array, active: Integers, weights: Array | None, marks: Hashes, ledger: HashIndex, size: int, seed: int
) -> KeySample:
    """The first `size` + 1 distinct ones of the active rows of `X`, whose weights and marks are given.

    Copies of a key are one key of their total weight, as far back as the ledger, if there is one.
    """
    distinct, position, copies = np.unique(marks, return_index=True, return_inverse=True)
    total = indexed_weight(ledger, distinct) if ledger else group_sums(copies, weights, len(distinct))
    uniform = (_mix(distinct ^ _mix(np.full(1, seed, np.uint64) * _SPREAD)) >> np.uint64(11)) * 2.0**-53
    waiting = -np.log1p(-uniform) + _TINY
    order = np.argsort(_time(waiting, total), kind="stable")[: size + 1]  # ties fall by mark
    rows = active[position[order]]
    return KeySample(
        X[rows].astype(np.float64),
        total[order],
        distinct[order],
        waiting[order],
        rows,
        *np.zeros((2, len(order)), np.intp),
    )


def merge_samples(a: KeySample, b: KeySample, ledger: HashIndex, size: int) -> KeySample:
    """The first `size` + 1 keys of the union; copies count together, as far back as the ledger of the union, if any."""
    both = KeySample._make(np.concatenate(parts) for parts in zip(a, b, strict=True))
    _, position, copies = np.unique(both.marks, return_index=True, return_inverse=True)
    total = indexed_weight(ledger, both.marks[position]) if ledger else group_sums(copies, both.weight, len(position))
    both = KeySample._make(part[position] for part in both)._replace(weight=total)
    order = np.lexsort((both.marks, _time(both.waiting, both.weight)))[: size + 1]
    return KeySample._make(part[order] for part in both)


def split(sample: KeySample, size: int) -> tuple[KeySample, Array, KeySample]:
    """The first `size` keys sorted by cluster, the weight that each stands for, and the other keys drawn."""
    part, others = (KeySample._make(column[cut] for column in sample) for cut in (slice(size), slice(size, None)))
    # The next in the queue tells how long was served, and so every key's probability of being in.
    time = _time(others.waiting[0], others.weight[0]) if len(others.weight) else np.inf
    sampling_weight = part.weight / -np.expm1(-part.weight * time)
    order = np.argsort(part.labels, kind="stable")
    return KeySample._make(column[order] for column in part), sampling_weight[order], others


def add_hashes(ledger: HashIndex, marks: Hashes, weights: Array | None) -> HashIndex:
    """The ledger of which keys there are, and of what weight, with these ones in it."""
    if not len(marks):
        return ledger
    distinct, copies = np.unique(marks, return_inverse=True)
    ledger = [*ledger, (distinct, group_sums(copies, weights, len(distinct)))]
    # Like a binary counter: every key is sorted anew at most log2(number of chunks) times.
    while len(ledger) > 1 and len(ledger[-1][0]) >= len(ledger[-2][0]):
        (a, b), ledger = ledger[-2:], ledger[:-2]
        distinct, copies = np.unique(np.concatenate([a[0], b[0]]), return_inverse=True)
        ledger.append((distinct, group_sums(copies, np.concatenate([a[1], b[1]]), len(distinct))))
    return ledger


def indexed_weight(ledger: HashIndex, marks: Hashes) -> Array:
    """Weight of the keys with these marks; zero for those that are none."""
    found = np.zeros(len(marks))
    for known, weight in ledger:
        position = np.minimum(np.searchsorted(known, marks), len(known) - 1)
        found += np.where(known[position] == marks, weight[position], 0)
    return found
