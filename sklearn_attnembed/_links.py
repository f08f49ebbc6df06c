"""Links of a fitted embedding: scores of pairs from attention and degrees, and the best pairs that are not linked."""

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator

from ._core.inverted_index import build_cells, nearest_keys
from ._core.parallel import Runner, row_blocks
from ._fitted import FittedEmbedding, Samples
from ._sklearn import cluster_centers
from ._training import column_sums
from ._typing import Float64, Integers, Vectors

# Rows, and keys, of largest degree, that all others are compared with.
_N_HUBS = 256
# Relative difference of two affinities that rounding can cause.
_ROUNDING = 1e-5
# Elements of a block of scores.
_BLOCK_ELEMENTS = 2**21


class Links(NamedTuple):
    """What the scores of pairs of a row and a key depend on.

    Attributes
    ----------
    queries : ndarray of shape (n_samples, n_components)
    keys : ndarray of shape (n_keys, n_components)
    log_out : ndarray of shape (n_samples,)
        Logarithms of the row sums of the affinities; -inf for rows without any.
    log_in : ndarray of shape (n_keys,)
        Logarithms of the column sums of the affinities; -inf for keys without any.
    beta : float
        One over the temperature.
    known : sparse array or ndarray of shape (n_samples, n_keys)
        Positive for the pairs that are linked already.
    is_square : bool
        Whether rows and keys are the same nodes.
    is_symmetric : bool
        Whether the links have no direction.
    """

    queries: Vectors
    keys: Vectors
    log_out: Float64
    log_in: Float64
    beta: float
    known: Any
    is_square: bool
    is_symmetric: bool


def with_degrees(fitted: FittedEmbedding, A: Any) -> FittedEmbedding:
    """Return a fitted model that knows the row and column sums of its affinities, unless these are an operator."""
    if isinstance(A, LinearOperator):
        return fitted
    row_sums = column_sums(A.T) if fitted.row_sums is None else fitted.row_sums
    return fitted._replace(row_sums=row_sums, column_sums=column_sums(A))


def links_of(fitted: FittedEmbedding, samples: Samples) -> Links:
    """Return what the scores of pairs depend on, or raise an error for a model without such scores."""
    if fitted.kernel != "softmax":
        raise ValueError(f"Scores of links need kernel='softmax', but kernel={fitted.kernel!r}. Fit with 'softmax'.")
    if samples.affinities is None:
        raise ValueError(
            "Scores of links need the affinities one by one, which are not kept where X of fit is a LinearOperator. "
            "Fit a sparse matrix."
        )
    if fitted.row_sums is None or fitted.column_sums is None:
        raise ValueError(
            "Scores of links need the degrees of the training data, which the model, of an earlier version, does not "
            "have. Fit it again."
        )
    is_square = not fitted.source.embeds_columns
    is_symmetric = is_square and _is_symmetric(samples.affinities, fitted.row_sums)
    with np.errstate(divide="ignore"):
        log_out, log_in = np.log(fitted.row_sums, dtype=np.float64), np.log(fitted.column_sums)
    return Links(
        samples.embedding,
        fitted.keys,
        log_out,
        log_out if is_symmetric else log_in,
        fitted.beta,
        samples.affinities,
        is_square,
        is_symmetric,
    )


def _is_symmetric(P: Any, row_sums: Float64) -> bool:
    """Return whether affinities that were divided by their row sums were symmetric, but for rounding."""
    A = sp.diags_array(np.asarray(row_sums, np.float64)) @ sp.csr_array(P)
    return bool((abs(A - A.T) > _ROUNDING * A.maximum(A.T)).nnz == 0)


# Scores ----------------------------------------------------------------------------------------------
def as_pairs(pairs: Any, links: Links) -> Integers:
    """Return pairs as an array of integers, or raise an error if they are not pairs of a row and a key."""
    pairs = np.asarray(pairs)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not (pairs.dtype.kind in "iu" or pairs.size == 0):
        raise ValueError(
            f"pairs must be integers of shape (n_pairs, 2), but have dtype {pairs.dtype} and shape {pairs.shape}. Pass "
            "numbers of a row and a column for each link."
        )
    sizes = len(links.queries), len(links.keys)
    if len(pairs) and (pairs.min() < 0 or (pairs.max(axis=0) >= sizes).any()):
        raise ValueError(
            f"pairs must be from 0 to the {sizes[0]} rows and {sizes[1]} columns seen in fit; the least number is "
            f"{pairs.min()}, the largest are {tuple(pairs.max(axis=0).tolist())}. Drop pairs of unseen nodes."
        )
    return pairs.astype(np.intp)


def pair_scores(links: Links, pairs: Integers) -> Float64:
    """Return the score of each pair, the mean of both directions if links have none."""
    out = np.empty(len(pairs))
    for block in row_blocks([len(pairs)], links.keys.shape[1]):
        i, j = pairs[block].T
        products = _products(links, i, j)
        if links.is_symmetric:
            products = (products + _products(links, j, i)) / 2
        out[block] = products * links.beta + (links.log_out[i] + links.log_in[j])
    return out


def _products(links: Links, i: Integers, j: Integers) -> Float64:
    """Return the products of the vectors of rows `i` and keys `j`."""
    return np.einsum("ij,ij->i", links.queries[i].astype(np.float64), links.keys[j].astype(np.float64))


# Search ----------------------------------------------------------------------------------------------
def best_links(links: Links, n_links: int, n_candidates: int, run: Runner) -> tuple[Integers, Float64]:
    """Return the pairs of largest score that are not linked, best first, and their scores.

    Compared are the nodes of largest degree with all others, and each row with the keys of largest score that an
    inverted index finds for it.
    """
    pairs = _from_hubs(links, n_links, run)
    if not links.is_symmetric:
        pairs += [found[:, ::-1] for found in _from_hubs(_reversed(links), n_links, run)]
    if len(links.queries) > _N_HUBS:
        pairs += _from_index(links, n_links, n_candidates, run)
    return _best(links, np.concatenate(pairs), n_links)


def _reversed(links: Links) -> Links:
    """Return the same links with rows and keys exchanged."""
    return Links(links.keys, links.queries, links.log_in, links.log_out, links.beta, links.known.T, *links[-2:])


def _from_hubs(links: Links, n_links: int, run: Runner) -> list[Integers]:
    """Return the best new pairs of the rows of largest degree and any key, block by block."""
    hubs = np.sort(np.argsort(-links.log_out, kind="stable")[:_N_HUBS])
    known = sp.csr_array(links.known)[hubs]
    n_kept = n_links * (1 + links.is_symmetric)  # a pair of two of these rows is met twice

    def one(start: int) -> Integers:
        rows = hubs[start : start + step]
        scores = _row_scores(links, rows)
        scores[known[start : start + step].nonzero()] = -np.inf
        if links.is_square:
            scores[np.arange(len(rows)), rows] = -np.inf
        best = np.argpartition(-scores, min(n_kept, scores.size) - 1, axis=None)[:n_kept]
        i, j = np.unravel_index(best, scores.shape)
        return np.stack([rows[i], j], axis=1)[np.isfinite(scores[i, j])]

    step = max(_BLOCK_ELEMENTS // len(links.keys), 1)
    return list(run(one, range(0, len(hubs), step)))


def _row_scores(links: Links, rows: Integers) -> Vectors:
    """Return the scores of rows with all keys."""
    products = links.queries[rows] @ links.keys.T
    if links.is_symmetric:
        products = (products + links.keys[rows] @ links.queries.T) / 2
    return np.asarray(products * links.beta + (links.log_out[rows, None] + links.log_in))


def _from_index(links: Links, n_links: int, n_candidates: int, run: Runner) -> list[Integers]:
    """Return the best new pairs of each block of rows with their nearest keys in the search space."""
    Q, K = search_space(links)
    rows, active = np.flatnonzero(np.isfinite(links.log_out)), np.flatnonzero(np.isfinite(links.log_in))
    cells = build_cells(K, active, np.zeros(len(K), np.intp), _centers, run)
    nearest = nearest_keys(Q[rows], K, cells, min(n_candidates, len(active)), run)
    bounds = row_blocks([len(rows)], nearest.shape[1] * K.shape[1])

    def one(block: int) -> Integers:
        i, j = np.broadcast_arrays(rows[bounds[block], None], nearest[bounds[block]])
        return _best(links, np.stack([i.ravel(), j.ravel()], axis=1), n_links)[0]

    return list(run(one, range(len(bounds))))


def _centers(points: Vectors, n_cells: int) -> Vectors:
    return cluster_centers(points, None, n_cells, 0)


def search_space(links: Links) -> tuple[Vectors, Vectors]:
    """Return vectors of rows and keys whose product orders the keys of a row by score.

    The last coordinate makes keys equally long, so that the key of largest product is the nearest one.
    """
    X, Y, is_finite = links.queries, links.keys, np.isfinite(links.log_in)
    if links.is_symmetric:
        X, Y = np.hstack([X, Y]), np.hstack([Y, X]) / 2
    degree = np.where(is_finite, links.log_in - links.log_in[is_finite].mean(), 0) / links.beta
    squares = np.einsum("ij,ij->i", Y, Y) + degree**2
    rest = np.sqrt(np.maximum(squares.max() - squares, 0))
    scale = np.sqrt(squares.max() / (2 + links.is_symmetric))  # rows are as long as keys
    Q = np.hstack([X, np.ones((len(X), 1)), np.zeros((len(X), 1))]) * scale
    return Q.astype(X.dtype), np.hstack([Y, degree[:, None], rest[:, None]]).astype(X.dtype)


def _best(links: Links, pairs: Integers, n_links: int) -> tuple[Integers, Float64]:
    """Return the pairs of largest score among candidates, each new and once, best first, and their scores."""
    if links.is_square:
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    if links.is_symmetric:
        pairs = np.sort(pairs, axis=1)
    numbers = np.unique(pairs[:, 0] * len(links.keys) + pairs[:, 1])
    pairs = np.stack(np.divmod(numbers, len(links.keys)), axis=1)
    pairs = pairs[~_are_linked(links, pairs)]
    scores = pair_scores(links, pairs)
    order = np.argsort(-scores, kind="stable")[:n_links]
    order = order[np.isfinite(scores[order])]
    return pairs[order], scores[order]


def _are_linked(links: Links, pairs: Integers) -> Any:
    """Return whether pairs have any affinity."""
    if not len(pairs):
        return np.zeros(0, bool)
    return np.asarray(links.known[pairs[:, 0], pairs[:, 1]]).ravel() > 0
