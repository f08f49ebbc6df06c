"""Affinities from graphs of nearest neighbors."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import gen_batches

from .._sklearn import Interval, StrOptions, check_array, validate_params
from .._sparse import canonical
from .._typing import Float64, SparseMatrix, Weighting

# Weight of neighbors that all lie at the edge of the neighborhood, and of the last neighbor for "uniform". It is so
# small that it does not matter which of several tied neighbors is the last.
_EDGE = 1e-7
# Share of the distance to the edge that is always inside, even if the last third of the neighbors are nearly tied.
_NEXT_TO_EDGE = 0.999
# Exponent so large that the exponential of its negative is zero.
_FAR = 1e300
# Number of neighbors for one unit of perplexity, as in t-SNE.
_NEIGHBORS_PER_PERPLEXITY = 3
# Least default perplexity. With less, nearly all the weight goes to the nearest neighbor.
_LEAST_PERPLEXITY = 1.5
# Number of rows whose bandwidths are computed at a time.
_BATCH = 8192
# Elements of a temporary block: 4 MB in float64, small enough for the cache of one core.
_ELEMENTS = 2**19
# Rank of the neighbor whose distance is the local scale.
_SCALE_NEIGHBOR = 7


@validate_params(
    {
        "distances": ["sparse matrix"],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "weighting": [StrOptions({"perplexity", "self_tuning", "biweight", "uniform"})],
        "perplexity": [None, Interval(Real, 1, None, closed="left")],
        "key_scale": [None, "array-like"],
    },
    prefer_skip_nested_validation=True,
)
def neighbor_affinity(
    distances: SparseMatrix,
    n_neighbors: int = 15,
    *,
    weighting: Weighting = "perplexity",
    perplexity: float | None = None,
    key_scale: ArrayLike | None = None,
) -> sp.csr_array:
    """Compute affinities from a graph of nearest-neighbor distances.

    In each row the `n_neighbors` nearest keys get weights. The distance of the next key is the edge of the
    neighborhood, where weights fall to zero, except for "uniform". The affinities are therefore continuous functions of
    the data, and do not depend on how ties are broken.

    Parameters
    ----------
    distances : sparse matrix of shape (n_queries, n_keys)
        Distances to near keys, including explicit zeros, as returned by
        :class:`sklearn.neighbors.KNeighborsTransformer` or ``kneighbors_graph(mode="distance")``.
        The input is not modified.
    n_neighbors : int, default=15
        Number of neighbors that get weights. Entries of a row beyond the next one are ignored.
    weighting : {"perplexity", "self_tuning", "biweight", "uniform"}, default="perplexity"
        Weights as a function of the distance r.

        - "perplexity": ``exp(-b r^2)``, where b is chosen for each row such that its weights have the given perplexity,
          as in t-SNE [1]_. Over the last third of the neighbors the weights are tapered linearly to zero.
        - "self_tuning": ``exp(-r^2 / (scale_i scale_j))`` [2]_, where the local scale of a query or a key is the
          distance to its seventh neighbor, tapered in the same way.
        - "biweight": ``(1 - (r / edge)^2)^2``, where `edge` is the distance of the next neighbor.
        - "uniform": equal weights.
    perplexity : float or None, default=None
        Perplexity of the weights for "perplexity", at least 1. If None, it is a third of `n_neighbors`, but not less
        than 1.5.
    key_scale : array-like of shape (n_keys,) or None, default=None
        Local scales of the keys for "self_tuning", as computed by :func:`local_scale` from the distances between keys.
        If None, `distances` is taken to be the graph of the keys, and has to be square.

    Returns
    -------
    affinities : csr_array of shape (n_queries, n_keys)
        Non-negative weights, which are not divided by their row sums.

    Raises
    ------
    ValueError
        If a distance is negative, or if `key_scale` is missing for "self_tuning".

    See Also
    --------
    local_scale : Local scales for "self_tuning".
    sklearn_attnembed.AttentionEmbedding : Computes these affinities itself with ``affinity="nearest_neighbors"``.

    References
    ----------
    .. [1] L. van der Maaten, G. Hinton, "Visualizing data using t-SNE", JMLR 2008, section 2.
    .. [2] L. Zelnik-Manor, P. Perona, "Self-tuning spectral clustering", NeurIPS 2004, section 2.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> from sklearn_attnembed.affinity import neighbor_affinity
    >>> distances = sp.csr_array([[1.0, 2.0, 4.0]])
    >>> neighbor_affinity(distances, n_neighbors=2, weighting="biweight").toarray().round(2)
    array([[0.88, 0.56, 0.  ]])
    """
    if weighting == "self_tuning" and key_scale is None and distances.shape[0] != distances.shape[1]:
        raise ValueError(
            f"weighting='self_tuning' needs key_scale, the local scales of the keys, unless distances is square, but "
            f"its shape is {distances.shape}. Pass key_scale=local_scale(distances_between_keys)."
        )
    distances = _checked_distances(distances)
    graph, near, present = _nearest(distances, n_neighbors + 1)
    last = np.maximum(present.sum(axis=1, keepdims=True) - 1, 0)
    edge = np.take_along_axis(near, last, axis=1)
    if weighting == "uniform":
        weights = np.where(np.arange(near.shape[1]) < np.maximum(last, 1), 1.0, _EDGE)
    elif weighting == "biweight":
        weights = _kept_alive(np.square(1 - np.square(np.minimum(near / np.where(edge > 0, edge, 1), 1))), present)
    else:
        full = np.minimum(np.take_along_axis(near, 2 * last // 3, axis=1), _NEXT_TO_EDGE * edge)
        inside = (edge - near) / np.where(edge > full, edge - full, 1)
        if weighting == "perplexity":
            target = perplexity or max(n_neighbors / _NEIGHBORS_PER_PERPLEXITY, _LEAST_PERPLEXITY)
            weights = np.empty_like(near)
            for rows in gen_batches(len(near), _BATCH):
                weights[rows] = _with_perplexity(near[rows], present[rows], target)
        else:
            scale = _scale(*_nearest(distances, _SCALE_NEIGHBOR + 1)[1:])
            keys = scale if key_scale is None else _checked_scale(key_scale, distances.shape[1])
            tiny = np.finfo(float).tiny
            with np.errstate(over="ignore"):  # copies of a point have scale zero, and all others are far
                exponent = np.minimum(near / np.maximum(scale, tiny)[:, None], _FAR)
                exponent *= np.minimum(near / np.maximum(_dense(graph, keys[graph.indices], present), tiny), _FAR)
            exponent = np.minimum(exponent, _FAR)
            exponent -= np.where(present, exponent, np.inf).min(axis=1, initial=_FAR, keepdims=True)
            weights = np.exp(-np.where(present, exponent, 0))
        weights *= _kept_alive(np.clip(inside, 0, 1), present)
    indptr = np.concatenate([[0], np.cumsum(present.sum(axis=1))])
    indices = _dense(graph, graph.indices, present)[present]
    dtype = graph.dtype if graph.dtype == np.float32 else np.float64
    return canonical(sp.csr_array((weights[present].astype(dtype), indices, indptr), shape=graph.shape))


@validate_params({"distances": ["sparse matrix"]}, prefer_skip_nested_validation=True)
def local_scale(distances: SparseMatrix) -> Float64:
    """Compute the distance of each point to its seventh neighbor, the local scale for "self_tuning".

    The point itself is not counted as a neighbor.

    Parameters
    ----------
    distances : sparse matrix of shape (n_samples, n_samples)
        Distances to near points, including the point itself and other explicit zeros.

    Returns
    -------
    scale : ndarray of shape (n_samples,)
        Distance to the seventh neighbor, in the unit of `distances`; to the last neighbor if there are fewer.

    See Also
    --------
    neighbor_affinity : Takes the scales as `key_scale`.

    Examples
    --------
    >>> from sklearn.neighbors import kneighbors_graph
    >>> from sklearn_attnembed.affinity import local_scale
    >>> points = [[float(i)] for i in range(20)]
    >>> local_scale(kneighbors_graph(points, 8, mode="distance", include_self=True))[:3].tolist()
    [7.0, 6.0, 5.0]
    """
    return _scale(*_nearest(_checked_distances(distances), _SCALE_NEIGHBOR + 1)[1:])


def _checked_distances(distances: SparseMatrix) -> Any:
    """Return a graph of distances as a CSR array, with entries at the same place summed."""
    distances = canonical(distances, "distances")
    distances = check_array(distances, accept_sparse="csr", input_name="distances", ensure_min_samples=0)
    if distances.nnz and distances.data.min() < 0:
        raise ValueError(
            f"distances must be >= 0, but the smallest is {distances.data.min():.4g}. Use another metric, or clip them."
        )
    return distances


def _kept_alive(weights: Float64, present: NDArray[np.bool_]) -> Float64:
    """Return weights with rows of zeros replaced by equal ones: all neighbors in such a row are at the edge."""
    return np.where((weights * present).any(axis=1, keepdims=True), weights, _EDGE)


def pair_distances(X: Any, Y: Any, indices: NDArray[np.integer]) -> Float64:
    """Compute the Euclidean distances of each row of `X` to the rows of `Y` that `indices` names.

    They are computed from differences, row by row, and so are the same to the bit in any batch and on any number of
    threads.
    """
    out = np.empty(indices.shape)
    for rows in gen_batches(len(indices), max(_ELEMENTS // (indices.shape[1] * X.shape[1]), 1)):
        own = np.repeat(np.arange(rows.start, rows.stop), indices.shape[1])
        gap = Y[indices[rows].ravel()].astype(np.float64) - X[own].astype(np.float64)
        squares = gap.multiply(gap).sum(axis=1) if sp.issparse(gap) else np.einsum("ij,ij->i", gap, gap)
        out[rows] = np.sqrt(squares).reshape(-1, indices.shape[1])
    return out


def _checked_scale(key_scale: ArrayLike, n_keys: int) -> Float64:
    """Return the local scales of the keys as an array, or raise an error if they are not valid."""
    scale = check_array(key_scale, ensure_2d=False, dtype=np.float64, input_name="key_scale")
    if scale.shape != (n_keys,) or scale.min() < 0:
        raise ValueError(
            f"key_scale must hold a distance >= 0 for each of the {n_keys} keys, but its shape is {scale.shape} and "
            f"its smallest entry {scale.min():.4g}. Pass local_scale(distances_between_keys)."
        )
    return scale


def _nearest(distances: Any, width: int) -> tuple[Any, Float64, NDArray[np.bool_]]:
    """Sort rows by distance; return the graph, the first `width` distances of each row, and which of these exist."""
    counts = np.diff(distances.indptr)
    if len(counts) and not np.ptp(counts):  # a faster way for rows of equal length
        order = np.argsort(distances.data.reshape(len(counts), -1), axis=1, kind="stable")
        order = (order + distances.indptr[:-1, None]).ravel()
    else:
        order = np.lexsort((distances.data, np.repeat(np.arange(len(counts)), counts)))  # ties are broken by column
    graph = sp.csr_array((distances.data[order], distances.indices[order], distances.indptr), shape=distances.shape)
    present = np.arange(min(width, max(counts.max(initial=0), 1))) < counts[:, None]
    return graph, _dense(graph, graph.data.astype(np.float64), present), present


def _dense(graph: Any, values: NDArray[Any], present: NDArray[np.bool_]) -> NDArray[Any]:
    """Return the first values of each row of `graph` as a dense array, padded with zeros."""
    out = np.zeros(present.shape, values.dtype)
    counts = np.diff(graph.indptr)
    rank = np.arange(graph.nnz) - np.repeat(graph.indptr[:-1], counts)
    out[present] = values[rank < present.shape[1]]
    return out


def _scale(near: Float64, present: NDArray[np.bool_]) -> Float64:
    """Return the distance to the seventh neighbor, or to the last one if there are fewer."""
    place = np.clip(present.sum(axis=1) - 1, 0, _SCALE_NEIGHBOR)
    return np.take_along_axis(near, place[:, None], axis=1)[:, 0]


def _with_perplexity(near: Float64, present: NDArray[np.bool_], perplexity: float, n_steps: int = 40) -> Float64:
    """Return ``exp(-b near^2)``, with b chosen for each row such that its perplexity, once normalized, is as given.

    This is Newton's method on log b within a bracket. Rows with fewer entries than `perplexity` get equal weights.
    """
    largest = np.frexp(near.max(axis=1, keepdims=True, initial=0))[1]
    squares = np.square(np.ldexp(near, -largest))  # a power of two as the unit is exact and prevents overflow
    excess = np.where(present, squares - squares[:, :1], 0)
    typical = excess.sum(axis=1) / np.maximum(present.sum(axis=1), 1)
    excess /= np.where(typical > 0, typical, 1)[:, None]  # makes b of order one in any unit
    low, high, log_b = np.full(len(excess), -30.0), np.full(len(excess), 60.0), np.zeros(len(excess))
    for _ in range(n_steps):
        scaled = np.exp(log_b)[:, None] * excess
        weights = np.exp(-scaled) * present
        share = weights / np.maximum(weights.sum(axis=1), np.finfo(float).tiny)[:, None]
        mean = np.einsum("ij,ij->i", share, scaled)
        surplus = np.log(np.maximum(weights.sum(axis=1), np.finfo(float).tiny)) + mean - np.log(perplexity)
        low, high = np.where(surplus > 0, log_b, low), np.where(surplus > 0, high, log_b)
        variance = np.einsum("ij,ij,ij->i", share, scaled, scaled) - mean**2
        step = log_b + surplus / np.maximum(variance, 1e-9)
        new = np.where((step > low) & (step < high), step, (low + high) / 2)
        moving = np.abs(new - log_b) >= 1e-13
        if not moving.any():
            break
        log_b = np.where(moving, new, log_b)  # converged rows do not change while others go on
    return weights
