"""Generators of synthetic data: graphs with known communities and delayed modular sequences."""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from ._sklearn import Interval, validate_params
from ._sparse import compact
from ._typing import RandomState

__all__ = ["make_block_model", "make_modular_sequences"]


@validate_params(
    {
        "n_samples": [Interval(Integral, 2, None, closed="left")],
        "n_classes": [Interval(Integral, 1, None, closed="left")],
        "mean_degree": [Interval(Real, 0, 1e9, closed="right")],
        "mixing": [Interval(Real, 0, 1, closed="both")],
        "degree_spread": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_block_model(
    n_samples: int = 1000,
    n_classes: int = 5,
    *,
    mean_degree: float = 10.0,
    mixing: float = 0.2,
    degree_spread: float = 0.5,
    random_state: RandomState = None,
) -> tuple[sp.csr_array, NDArray[np.int64]]:
    """Generate an undirected graph with communities, by the degree-corrected stochastic block model.

    Edges are drawn independently [1]_. The first end of an edge is drawn in proportion to the propensities of the
    nodes; the second end likewise, but from the same community or, with probability `mixing`, from all nodes. Repeated
    edges and self-loops are dropped, so the mean degree is slightly lower than `mean_degree`.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of nodes.
    n_classes : int, default=5
        Number of communities, whose sizes differ by at most one.
    mean_degree : float, default=10.0
        Mean number of neighbors.
    mixing : float in [0, 1], default=0.2
        Fraction of the edges that ignore communities. With 1 the graph has no communities.
    degree_spread : float, default=0.5
        Standard deviation of the logarithm of the propensities. With 0 all propensities are equal.
    random_state : int, RandomState instance or None, default=None
        Seed of the random number generator.

    Returns
    -------
    adjacency : csr_array of shape (n_samples, n_samples)
        Symmetric adjacency matrix with entries 0 and 1, float64. Nodes may be isolated.
    y : ndarray of int of shape (n_samples,)
        Community of each node.

    Raises
    ------
    ValueError
        If there are more communities than nodes.

    See Also
    --------
    sklearn_attnembed.AttentionEmbedding : Embed the graph, with ``affinity="precomputed"``.
    sklearn.datasets.make_blobs : Generate points instead of a graph.

    References
    ----------
    .. [1] B. Karrer, M. E. J. Newman, "Stochastic blockmodels and community structure in networks", 2011.

    Examples
    --------
    >>> from sklearn_attnembed.datasets import make_block_model
    >>> A, y = make_block_model(100, 4, random_state=0)
    >>> A.shape, len(set(y.tolist()))
    ((100, 100), 4)
    """
    if n_classes > n_samples:
        raise ValueError(
            f"n_classes must be at most n_samples={n_samples}, for each community has a node; got {n_classes}. Lower "
            "n_classes, or raise n_samples."
        )
    rng = check_random_state(random_state)
    y = np.arange(n_samples) * n_classes // n_samples
    log_propensity = min(degree_spread, 1e300) * rng.standard_normal(n_samples)
    propensity = np.exp(log_propensity - max(log_propensity.max() - 300, 0))  # so that sums stay finite
    n_edges = int(n_samples * mean_degree / 2)

    # Inverse transform sampling from the cumulative propensity, of which each community covers an interval.
    cumulative = np.concatenate([[0], np.cumsum(propensity)])
    ends = np.searchsorted(y, np.arange(n_classes + 1))
    low, high = cumulative[ends[:-1]], cumulative[ends[1:]]
    first = np.searchsorted(cumulative[1:], rng.uniform(0, cumulative[-1], n_edges), side="right")
    stays = rng.uniform(size=n_edges) >= mixing
    target = rng.uniform(np.where(stays, low[y[first]], 0), np.where(stays, high[y[first]], cumulative[-1]))
    second = np.minimum(np.searchsorted(cumulative[1:], target, side="right"), n_samples - 1)

    kept = first != second
    A = sp.coo_array((np.ones(kept.sum()), (first[kept], second[kept])), shape=(n_samples, n_samples)).tocsr()
    A = (A + A.T).tocsr()
    A.data[:] = 1
    return compact(A), y


@validate_params(
    {
        "n_sequences": [Interval(Integral, 1, None, closed="left")],
        "base": [Interval(Integral, 2, None, closed="left")],
        "delay": [Interval(Integral, 1, None, closed="left")],
        "length": [Interval(Integral, 1, None, closed="left"), None],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_modular_sequences(
    n_sequences: int = 100,
    base: int = 2,
    delay: int = 5,
    length: int | None = None,
    *,
    random_state: RandomState = None,
) -> NDArray[np.int64]:
    """Generate delayed autoregressive sequences in modular arithmetic.

    The recursion is ``x(t) = x(t - 1) + x(t - delay) mod base``, after `delay` numbers that are drawn uniformly. These
    are the sequences on which expressive attention was tested [1]_: the next number depends on just two earlier ones,
    and `base` and `delay` set the difficulty.

    Parameters
    ----------
    n_sequences : int, default=100
        Number of sequences.
    base : int, default=2
        Modulus. Numbers run from 0 to ``base - 1``.
    delay : int, default=5
        Distance of the earlier of the two terms in the recursion.
    length : int, default=None
        Length of each sequence; ``delay + 1`` if None, which is the random numbers and the first that follows from
        them.
    random_state : int, RandomState instance or None, default=None
        Seed of the random number generator.

    Returns
    -------
    sequences : ndarray of int64 of shape (n_sequences, length)
        Sequences. To learn the next number, use ``sequences[:, :-1]`` as inputs and ``sequences[:, 1:]`` as targets.

    See Also
    --------
    sklearn_attnembed.nn.ExpressiveMultiheadAttention : Attention layer for models that learn these sequences.

    References
    ----------
    .. [1] C. Gros, "Reorganizing attention-space geometry with expressive attention", arXiv:2407.18601.

    Examples
    --------
    >>> from sklearn_attnembed.datasets import make_modular_sequences
    >>> make_modular_sequences(3, base=4, delay=2, length=6, random_state=0)
    array([[0, 3, 3, 2, 1, 3],
           [1, 0, 1, 1, 2, 3],
           [3, 3, 2, 1, 3, 0]])
    """
    rng = check_random_state(random_state)
    sequences = np.zeros((n_sequences, max(delay + 1 if length is None else length, delay)), np.int64)
    sequences[:, :delay] = rng.randint(base, size=(n_sequences, delay))
    for t in range(delay, sequences.shape[1]):
        sequences[:, t] = (sequences[:, t - 1] + sequences[:, t - delay]) % base
    return sequences[:, : delay + 1 if length is None else length]
