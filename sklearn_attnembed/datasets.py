"""Generators: graphs with known communities, delayed modular sequences."""

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
    """Degree-corrected stochastic block model: an undirected graph with communities.

    Edges are drawn one by one: the first end by its propensity, the second, by its propensity, from the same
    community or, with probability `mixing`, from all nodes. Repeated edges and self-loops are dropped, so the
    mean degree comes out a little lower than asked for.

    Parameters
    ----------
    n_samples : int, default=1000
        Nodes.
    n_classes : int, default=5
        Communities, of equal size up to one.
    mean_degree : float, default=10.0
        Mean number of neighbours.
    mixing : float in [0, 1], default=0.2
        Share of edges that ignore communities; 1 leaves no structure.
    degree_spread : float, default=0.5
        Standard deviation of the logarithm of the propensities; 0 makes all alike.
    random_state : int, RandomState instance or None, default=None
        Seed.

    Returns
    -------
    adjacency : csr_array of shape (n_samples, n_samples)
        Symmetric, 0 or 1, float64. Nodes may be isolated.
    y : ndarray of int of shape (n_samples,)
        Communities.

    Raises
    ------
    ValueError
        If there are more communities than nodes.

    See Also
    --------
    sklearn_attnembed.AttentionEmbedding : ``affinity="precomputed"`` embeds the graph.
    sklearn.datasets.make_blobs : Points, not a graph.

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
    propensity = np.exp(log_propensity - max(log_propensity.max() - 300, 0))  # sums stay finite
    n_edges = int(n_samples * mean_degree / 2)

    # Inverse sampling on the cumulative propensity: within a class it runs over an interval of the whole.
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
    """Delayed autoregressive sequences in modular arithmetic, ``x(t) = x(t - 1) + x(t - delay) mod base``.

    The tasks that expressive attention [1]_ was tested on: to tell the next number a model has to look at just two of
    the numbers before it, and base and delay set how hard that is. The first `delay` numbers are uniform.

    Parameters
    ----------
    n_sequences : int, default=100
        Sequences.
    base : int, default=2
        Numbers are 0 to ``base - 1``.
    delay : int, default=5
        How far back a sequence looks.
    length : int, default=None
        Numbers in each; ``delay + 1`` if None: all that can be chosen freely, and the first that follows from it.
    random_state : int, RandomState instance or None, default=None
        Seed.

    Returns
    -------
    sequences : ndarray of int64 of shape (n_sequences, length)
        ``sequences[:, :-1]`` are contexts, ``sequences[:, 1:]`` what comes next.

    See Also
    --------
    sklearn_attnembed.nn.ExpressiveMultiheadAttention : A layer to learn them with.

    References
    ----------
    .. [1] C. Gros, "Reorganizing attention-space geometry with expressive attention", arXiv:2407.18601.

    Examples
    --------
    >>> from sklearn_attnembed.datasets import make_modular_sequences
    >>> x = make_modular_sequences(3, base=4, delay=2, length=6, random_state=0)
    >>> x.shape
    (3, 6)
    >>> bool(((x[:, 4] + x[:, 3]) % 4 == x[:, 5]).all())
    True
    """
    rng = check_random_state(random_state)
    sequences = np.zeros((n_sequences, max(delay + 1 if length is None else length, delay)), np.int64)
    sequences[:, :delay] = rng.randint(base, size=(n_sequences, delay))
    for t in range(delay, sequences.shape[1]):
        sequences[:, t] = (sequences[:, t - 1] + sequences[:, t - delay]) % base
    return sequences[:, : delay + 1 if length is None else length]
