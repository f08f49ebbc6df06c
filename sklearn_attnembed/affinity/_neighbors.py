"""Affinities from graphs of nearest neighbours."""

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

# Weight of neighbors that all lie at the edge of the neighborhood, and of the last one for "uniform": it is so small
# that it does not matter which of several tied neighbors is the last.
_EDGE = 1e-7
# Where nearly all of the last third of neighbours are tied, this share of the edge's distance counts as inside.
_NEXT_TO_EDGE = 0.999
# An exponent whose exponential is zero.
_FAR = 1e300
# Neighbours to one unit of perplexity, as in t-SNE.
_NEIGHBORS_PER_PERPLEXITY = 3
# Below, the nearest has all the weight.
_LEAST_PERPLEXITY = 1.5
# Rows whose bandwidths are sought together.
_BATCH = 8192
# Elements of a temporary block.
_ELEMENTS = 2**19
# The neighbour whose distance is the local scale.
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
    """Turn a graph of nearest-neighbour distances into affinities.

    Row by row the `n_neighbors` nearest get weights. The next one marks where the neighbourhood ends: there, except
    for "uniform", weights fall to zero, so that the affinities, and all that is built on them, are continuous in the
    data and do not depend on how ties are broken.

    Parameters
    ----------
    distances : sparse matrix of shape (n_queries, n_keys)
        Distances to near keys, explicit zeros included, as from
        :class:`sklearn.neighbors.KNeighborsTransformer` or ``kneighbors_graph(mode="distance")``.
        The input is not changed.
    n_neighbors : int, default=15
        Neighbours with weight; a row with more entries is cut after the next one.
    weighting : {"perplexity", "self_tuning", "biweight", "uniform"}, default="perplexity"
        How weights w depend on distances r.

        - "perplexity": ``exp(-b r^2)``, the bandwidth b of each row such that its weights have the given perplexity,
          as in t-SNE [1]_. Over the last third of the neighbours weights are led linearly to zero.
        - "self_tuning": ``exp(-r^2 / (scale_i scale_j))`` [2]_, the local scales of query and key being the distances
          to their seventh neighbour; led to zero likewise.
        - "biweight": ``(1 - (r / edge)^2)^2``, `edge` the distance of the next neighbour.
        - "uniform": all alike.
    perplexity : float or None, default=None
        For "perplexity", at least 1; None is a third of `n_neighbors`, and no less than 1.5.
    key_scale : array-like of shape (n_keys,) or None, default=None
        For "self_tuning", the local scales of the keys (:func:`local_scale` of their own graph). None takes
        `distances` for that graph, which has to be square then.

    Returns
    -------
    affinities : csr_array of shape (n_queries, n_keys)
        Non-negative weights, not yet divided by their row sums.

    Raises
    ------
    ValueError
        If a distance is negative, or "self_tuning" lacks `key_scale`.

    See Also
    --------
    local_scale : What "self_tuning" measures distances by.
    sklearn_attnembed.AttentionEmbedding : ``affinity="nearest_neighbors"`` takes points and does this itself.

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
            with np.errstate(over="ignore"):  # copies have no scale: whatever is not one of them is far
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
    """Distance of each row to its seventh neighbour, the point itself not counted: the scale of "self_tuning".

    Parameters
    ----------
    distances : sparse matrix of shape (n_samples, n_samples)
        Distances to near points, explicit zeros included, the point itself among them.

    Returns
    -------
    scale : ndarray of shape (n_samples,)
        In the unit of the distances; to the last neighbour where there are fewer.

    See Also
    --------
    neighbor_affinity : Takes it as `key_scale`.

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
    """A graph of distances as a CSR array, entries at the same place summed."""
    distances = canonical(distances, "distances")
    distances = check_array(distances, accept_sparse="csr", input_name="distances", ensure_min_samples=0)
    if distances.nnz and distances.data.min() < 0:
        raise ValueError(
            f"distances must be >= 0, but the smallest is {distances.data.min():.4g}. Use another metric, or clip them."
        )
    return distances


def _kept_alive(weights: Float64, present: NDArray[np.bool_]) -> Float64:
    """Weights that are zero at the edge, whichever of tied neighbors is there; rows of nothing else get equal ones."""
    return np.where((weights * present).any(axis=1, keepdims=True), weights, _EDGE)


def pair_distances(X: Any, Y: Any, indices: NDArray[np.integer]) -> Float64:
    """Euclidean distances of each row of `X` to the rows of `Y` that its indices name.

    From differences, a row by itself: the same bits in any batch and on any number of threads.
    """
    out = np.empty(indices.shape)
    for rows in gen_batches(len(indices), max(_ELEMENTS // (indices.shape[1] * X.shape[1]), 1)):
        own = np.repeat(np.arange(rows.start, rows.stop), indices.shape[1])
        gap = Y[indices[rows].ravel()].astype(np.float64) - X[own].astype(np.float64)
        squares = gap.multiply(gap).sum(axis=1) if sp.issparse(gap) else np.einsum("ij,ij->i", gap, gap)
        out[rows] = np.sqrt(squares).reshape(-1, indices.shape[1])
    return out


def _checked_scale(key_scale: ArrayLike, n_keys: int) -> Float64:
    """Local scales of the keys as an array."""
    scale = check_array(key_scale, ensure_2d=False, dtype=np.float64, input_name="key_scale")
    if scale.shape != (n_keys,) or scale.min() < 0:
        raise ValueError(
            f"key_scale must hold a distance >= 0 for each of the {n_keys} keys, but its shape is {scale.shape} and "
            f"its smallest entry {scale.min():.4g}. Pass local_scale(distances_between_keys)."
        )
    return scale


def _nearest(distances: Any, width: int) -> tuple[Any, Float64, NDArray[np.bool_]]:
    """The graph with rows in order of distance, their first `width` distances and which of these there are."""
    counts = np.diff(distances.indptr)
    if len(counts) and not np.ptp(counts):  # as many in each row, as of nearest neighbours: faster
        order = np.argsort(distances.data.reshape(len(counts), -1), axis=1, kind="stable")
        order = (order + distances.indptr[:-1, None]).ravel()
    else:
        order = np.lexsort((distances.data, np.repeat(np.arange(len(counts)), counts)))  # ties by column
    graph = sp.csr_array((distances.data[order], distances.indices[order], distances.indptr), shape=distances.shape)
    present = np.arange(min(width, max(counts.max(initial=0), 1))) < counts[:, None]
    return graph, _dense(graph, graph.data.astype(np.float64), present), present


def _dense(graph: Any, values: NDArray[Any], present: NDArray[np.bool_]) -> NDArray[Any]:
    """The first values of each row of `graph` side by side, zero where there are no more."""
    out = np.zeros(present.shape, values.dtype)
    counts = np.diff(graph.indptr)
    rank = np.arange(graph.nnz) - np.repeat(graph.indptr[:-1], counts)
    out[present] = values[rank < present.shape[1]]
    return out


def _scale(near: Float64, present: NDArray[np.bool_]) -> Float64:
    """Distance to the seventh neighbour, or to the last if there are fewer."""
    place = np.clip(present.sum(axis=1) - 1, 0, _SCALE_NEIGHBOR)
    return np.take_along_axis(near, place[:, None], axis=1)[:, 0]


def _with_perplexity(near: Float64, present: NDArray[np.bool_], perplexity: float, n_steps: int = 40) -> Float64:
    """``exp(-b near^2)``, b such that the entropy of every row, once normalised, is log `perplexity`.

    Newton's method on log b within a bracket. Rows of fewer entries than `perplexity` are left flat.
    """
    largest = np.frexp(near.max(axis=1, keepdims=True, initial=0))[1]
    squares = np.square(np.ldexp(near, -largest))  # in a unit that is a power of two: exact, without overflow
    excess = np.where(present, squares - squares[:, :1], 0)
    typical = excess.sum(axis=1) / np.maximum(present.sum(axis=1), 1)
    excess /= np.where(typical > 0, typical, 1)[:, None]  # so that b is of order one, whatever the unit of distance
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
        log_b = np.where(moving, new, log_b)  # a row that has come to rest does not wait for the others
    return weights
