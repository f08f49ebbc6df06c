"""From raw relations to affinities."""

import numpy as np
import scipy.sparse as sp
from sklearn.neighbors import sort_graph_by_row_values

__all__ = ["neighbor_affinity", "random_walk"]

# Weight of a neighbour at the edge of the bandwidth: keeps rows of equidistant neighbours alive, and is so small
# that it does not matter which of several tied neighbours is the last.
_EDGE = 1e-7


def neighbor_affinity(distances, n_neighbors=15):
    """Affinities from a graph of nearest-neighbour distances.

    Row by row the `n_neighbors` nearest get the biweight ``(1 - (distance / bandwidth)^2)^2``, the bandwidth being
    the distance of the next one: weights fall to zero where the neighbourhood ends, so the affinities, and all that
    is built on them, are continuous in the data and do not depend on how ties are broken.

    Parameters
    ----------
    distances : sparse matrix of shape (n_queries, n_keys)
        Distances to near keys, explicit zeros included, as from
        :class:`sklearn.neighbors.KNeighborsTransformer` or ``kneighbors_graph(mode="distance")``.
        The input is not changed.
    n_neighbors : int, default=15
        Neighbours with weight; a row with more entries is cut, the furthest kept entry marks the bandwidth.

    Returns
    -------
    affinities : csr_array of shape (n_queries, n_keys)
        Non-negative weights, not yet divided by their row sums.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> from sklearn_attnembed.affinity import neighbor_affinity
    >>> distances = sp.csr_array([[1.0, 2.0, 4.0]])
    >>> neighbor_affinity(distances, n_neighbors=2).toarray().round(3)
    array([[0.879, 0.563, 0.   ]])
    """
    graph = sort_graph_by_row_values(sp.csr_matrix(distances, copy=True), copy=False, warn_when_not_sorted=False)
    counts = np.diff(graph.indptr)
    rank = np.arange(graph.nnz) - np.repeat(graph.indptr[:-1], counts)
    last = graph.indptr[:-1] + np.minimum(counts, n_neighbors + 1) - 1
    occupied = counts > 0
    bandwidth = np.repeat(graph.data[last[occupied]], counts[occupied])
    kept = rank <= n_neighbors
    ratio = graph.data[kept] / np.where(bandwidth[kept] > 0, bandwidth[kept], 1)
    weights = np.square(1 - np.square(np.minimum(ratio, 1))) + _EDGE
    indptr = np.concatenate([[0], np.cumsum(np.minimum(counts, n_neighbors + 1))])
    return sp.csr_array((weights.astype(graph.dtype), graph.indices[kept], indptr), shape=graph.shape)


def random_walk(adjacency, *, teleport=0.0):
    """Transition probabilities of the random walk on a graph.

    Parameters
    ----------
    adjacency : sparse matrix or ndarray of shape (n, n)
        Non-negative weights; entry (i, j) leads from i to j. The input is not changed.
    teleport : float in [0, 1), default=0
        Probability of a jump back to the node itself, and the way out for nodes without any: with
        ``teleport > 0`` a sink stays where it is instead of being isolated.

    Returns
    -------
    P : csr_array of shape (n, n)
        Rows sum to one, or to zero for isolated nodes when `teleport` is 0.

    Examples
    --------
    >>> from sklearn_attnembed.affinity import random_walk
    >>> random_walk([[0, 3, 1], [1, 0, 0], [0, 0, 0]]).toarray()
    array([[0.  , 0.75, 0.25],
           [1.  , 0.  , 0.  ],
           [0.  , 0.  , 0.  ]])
    """
    from ._core.operators import row_stochastic

    A = sp.csr_array(adjacency)
    P, isolated = row_stochastic(A, np.float32 if A.dtype == np.float32 else np.float64)
    if teleport:
        P = (1 - teleport) * P + sp.diags_array(np.where(isolated, 1, teleport).astype(P.dtype))
    return sp.csr_array(P)
