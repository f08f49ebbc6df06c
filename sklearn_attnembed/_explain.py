"""Explanations of a fitted embedding: its exact attention, the likelihood of affinities, and tables of both."""

from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator

from ._core import affinity_matrix
from ._core.kernels import KERNELS
from ._core.normalizers.exact import attention_rows
from ._core.pairwise_objective import attraction_of_pairs, pair_terms
from ._fitted import FittedEmbedding, Samples
from ._typing import Float64, Integers, Vectors
from .metrics import log_normalizer_exact

# Exact log Z is computed for at most so many pairs of a query and a key. Beyond it rows are taken at even steps.
_EXACT_PAIRS = 2**31
# Elements of a block of attention: 32 MB.
_BLOCK_ELEMENTS = 2**22


# Attention -------------------------------------------------------------------------------------------
def attention(fitted: FittedEmbedding, queries: Vectors) -> Float64:
    """Return the exact attention of queries over the keys; keys without affinities have none."""
    log_weights = np.where(fitted.active, _log_weights(fitted, queries), -np.inf)
    return np.asarray(attention_rows(log_weights), np.float64)


def _log_weights(fitted: FittedEmbedding, queries: Vectors) -> Float64:
    """Return ``log(w_j f(s_ij))`` for all keys, with weight 1 for those that have none."""
    scores = fitted.beta * (queries.astype(np.float64) @ fitted.keys.T.astype(np.float64))
    return fitted.kernel_function.log_value(scores) + _log_key_weight(fitted)


def _log_key_weight(fitted: FittedEmbedding) -> Float64:
    """Return the logarithm of the key weights, zero for keys without weight."""
    return np.log(np.where(fitted.key_weight > 0, fitted.key_weight, 1))


def log_ratings(fitted: FittedEmbedding, queries: Vectors) -> Float64:
    """Return ``log(w_j f(s_ij))`` for all keys, -inf for those without weight, in the precision of the queries."""
    scores = (queries * fitted.beta) @ fitted.keys.T
    with np.errstate(divide="ignore"):
        return np.asarray(fitted.kernel_function.log_value(scores) + np.log(fitted.key_weight))


def check_n_items(n_items: Any, n_columns: int) -> None:
    """Raise an error if there are not as many columns as are to be recommended."""
    if not isinstance(n_items, Integral) or not 1 <= int(n_items) <= n_columns:
        raise ValueError(
            f"n_items must be an integer from 1 to the {n_columns} columns; got {n_items!r}. Lower it, or fit more "
            "columns."
        )


def best_columns(ratings: Vectors, n_items: int) -> tuple[Integers, Vectors]:
    """Return the numbers and values of the largest ratings in each row, the largest first."""
    best = np.argpartition(-ratings, n_items - 1, axis=1)[:, :n_items]
    order = np.argsort(-np.take_along_axis(ratings, best, 1), axis=1, kind="stable")
    items = np.take_along_axis(best, order, 1)
    return items, np.take_along_axis(ratings, items, 1)


def attention_blocks(fitted: FittedEmbedding, n_rows: int) -> Iterator[slice]:
    """Yield blocks of rows whose attention is small enough for memory."""
    step = max(_BLOCK_ELEMENTS // len(fitted.keys), 1)
    return (slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step))


# Likelihood ------------------------------------------------------------------------------------------
def score(fitted: FittedEmbedding, samples: Samples, n_jobs: int | None) -> float:
    """Return the mean log likelihood of the affinities under the attention of the samples."""
    embedding, P, isolated = samples
    mass = _active_mass(fitted, P)
    rows = _even_steps(fitted, np.flatnonzero(~isolated & (mass > 0)))
    if len(rows) == 0:
        raise ValueError(
            "X has no row with any affinity to the fitted samples, so there is nothing to score. "
            "Pass rows with a positive entry."
        )
    if isinstance(P, LinearOperator):
        log_weight = _expected_log_weight(fitted, embedding, P)[rows]
    else:
        log_weight = _expected_log_weight(fitted, embedding[rows], P[rows])
    return float(np.mean(log_weight / mass[rows] - _log_z(fitted, embedding[rows], n_jobs)))


def _even_steps(fitted: FittedEmbedding, rows: Integers) -> Integers:
    """Return as many of these rows as exact log Z can be computed for."""
    return rows[:: max(-(-len(rows) * np.count_nonzero(fitted.active) // _EXACT_PAIRS), 1)]


def _active_mass(fitted: FittedEmbedding, P: Any) -> Float64:
    """Return the share of each row's affinities that goes to keys with weight."""
    return np.ones(P.shape[0]) if fitted.active.all() else np.asarray(P @ fitted.active.astype(np.float64))


def _to_active(fitted: FittedEmbedding, P: Any) -> Any:
    """Return the affinities to keys with weight; `P` itself if all keys have weight."""
    return P if fitted.active.all() else P @ sp.diags_array(1.0 * fitted.active)


def _expected_log_weight(fitted: FittedEmbedding, embedding: Vectors, P: Any) -> Float64:
    """Return ``sum_j P_ij log(w_j f(s_ij))`` over the keys with weight."""
    if fitted.is_by_pairs:
        attended = sp.csr_array(_to_active(fitted, P))
        terms = pair_terms(KERNELS[fitted.kernel])
        log_f = -attraction_of_pairs(attended, embedding, fitted.keys, fitted.beta, terms, terms.background).loss
    else:  # the log of the kernel is the score, and the vectors of keys without weight are zero
        log_f = fitted.beta * np.einsum("ij,ij->i", embedding, np.asarray(P @ fitted.keys))
    return log_f + P @ _log_key_weight(fitted)


def _log_z(fitted: FittedEmbedding, embedding: Vectors, n_jobs: int | None) -> Float64:
    """Return exact log Z over the keys with weight."""
    kernel: Any = fitted.kernel
    pairs = KERNELS[kernel].pairs
    return log_normalizer_exact(
        embedding,
        fitted.keys[fitted.active],
        key_weight=fitted.key_weight[fitted.active],
        kernel=kernel,
        background=0.0 if pairs is None else pairs.background,
        temperature=fitted.temperature,
        n_jobs=n_jobs,
    )


# Tables ----------------------------------------------------------------------------------------------
def row_terms(
    fitted: FittedEmbedding, embedding: Vectors, P: Any, steps: list[Any]
) -> tuple[Float64, Float64, Float64]:
    """Return the target, the attention and the log attention of a single row, over the keys."""
    target = affinity_matrix.walked_rows(P, steps, fitted.walk_length)
    target = np.asarray(target.toarray() if sp.issparse(target) else target, np.float64)[0]
    log_weights, active = _log_weights(fitted, embedding)[0], fitted.active
    log_attention = log_weights - np.logaddexp.reduce(log_weights[active])
    return target, np.where(active, np.exp(log_attention), 0), log_attention


def loss_shares(fitted: FittedEmbedding, target: Float64, log_attention: Float64) -> Float64:
    """Return the share of each key in the loss of a row."""
    # Logarithms, because attention may be too small for a number. Keys without weight take no part in the loss.
    loss = np.where(fitted.active, -target * log_attention, 0)
    return np.asarray(loss / (loss.sum() or 1))


def rows_table(
    fitted: FittedEmbedding, samples: Samples, rows: Any, steps: list[Any], n_jobs: int | None
) -> dict[str, Any]:
    """Return the columns of the table of each row's loss and divergence."""
    numbers = chosen_rows(fitted, samples, rows)
    P = affinity_rows(samples.affinities, numbers)
    has_mass = _active_mass(fitted, P) > 0
    P, numbers = P[has_mass], numbers[has_mass]
    embedding = samples.embedding[numbers]
    log_weight, entropy = np.empty(len(numbers)), np.empty(len(numbers))
    for block in attention_blocks(fitted, len(numbers)):
        target = affinity_matrix.walked_rows(P[block], steps, fitted.walk_length)
        mass = _active_mass(fitted, target)
        log_weight[block] = _expected_log_weight(fitted, embedding[block], target) / mass
        entropy[block] = _entropies(_to_active(fitted, target)) / mass + np.log(mass)
    loss = _log_z(fitted, embedding, n_jobs) - log_weight if len(numbers) else log_weight
    return {"row": numbers, "loss": loss, "entropy": entropy, "divergence": loss - entropy}


def clusters_table(fitted: FittedEmbedding, embedding: Vectors, labels: Any) -> dict[str, Any]:
    """Return the columns of the table of each cluster's share of Z, given the vectors of the rows to average over."""
    active = np.flatnonzero(fitted.active)
    order = active[np.argsort(labels[active], kind="stable")]
    clusters, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    share, log_z = np.zeros(len(clusters)), np.zeros(len(clusters))
    for block in attention_blocks(fitted, len(embedding)):
        log_weights = _log_weights(fitted, embedding[block])[:, order]
        of_clusters = np.logaddexp.reduceat(log_weights, starts, axis=1)
        share += np.exp(of_clusters - np.logaddexp.reduce(of_clusters, axis=1, keepdims=True)).sum(axis=0)
        log_z += of_clusters.sum(axis=0)
    n_rows = max(len(embedding), 1)
    return {"cluster": clusters, "n_keys": counts, "share": share / n_rows, "log_z": log_z / n_rows}


def walk_steps(fitted: FittedEmbedding, affinities: Any) -> list[Any]:
    """Return the matrices that a walk is multiplied by to go one step further, made of the training affinities."""
    if fitted.walk_length == 1:
        return []
    A = affinity_rows(affinities, slice(None))
    if fitted.source.embeds_columns:  # to the rows, and back to the columns
        return [affinity_matrix.row_stochastic((sp.diags_array(fitted.row_sums) @ A).T, A.dtype)[0], A]
    return [affinity_matrix.row_stochastic(A + A.T, A.dtype)[0] if fitted.source.is_symmetrized else A]


# Choice of rows --------------------------------------------------------------------------------------
def affinity_rows(affinities: Any, rows: Any) -> Any:
    """Return some rows of affinities, or raise an error if these were given as a LinearOperator."""
    if affinities is None:
        raise ValueError(
            "The affinities of the training samples are not kept where X of fit is a LinearOperator. Pass rows of "
            "them as X, or fit a sparse matrix."
        )
    check_has_rows(affinities)
    return affinities[rows]


def check_has_rows(X: Any) -> None:
    """Raise an error for a LinearOperator, which has products only."""
    if isinstance(X, LinearOperator):
        raise ValueError("X must have rows to be explained, but is a LinearOperator. Pass a sparse matrix.")


def chosen_rows(fitted: FittedEmbedding, samples: Samples, rows: Any) -> Integers:
    """Return the numbers of the rows that `rows` asks for and that have any affinity."""
    numbers = row_numbers(len(samples.embedding), rows)
    numbers = numbers[~samples.isolated[numbers]]
    return _even_steps(fitted, numbers) if rows is None else numbers


def row_numbers(n_rows: int, rows: Any) -> Integers:
    """Return the numbers of the rows that `rows` asks for."""
    numbers = np.arange(n_rows)
    if rows is None or isinstance(rows, slice):
        return numbers if rows is None else numbers[rows]
    rows = np.atleast_1d(np.asarray(rows))
    if rows.size == 0:
        return numbers[:0]
    fits = (
        len(rows) == n_rows
        if rows.dtype == bool
        else rows.dtype.kind in "iu" and np.all((-n_rows <= rows) & (rows < n_rows))
    )
    if rows.ndim != 1 or not fits:
        raise ValueError(
            f"rows must be numbers of rows, integers from 0 to {n_rows - 1}, or one bool for each of the {n_rows}; got "
            f"{rows.dtype} of shape {rows.shape}: {str(rows)[:40]}. Pass existing rows, or None for all."
        )
    return numbers[rows]


def check_row_number(i: Any, n_rows: int) -> None:
    """Raise an error if `i` is not the number of one of the rows."""
    if not isinstance(i, Integral) or isinstance(i, bool) or not 0 <= int(i) < n_rows:
        raise ValueError(
            f"i must be the number of a row, an integer from 0 to {n_rows - 1}, but is {i!r}. Rows count from "
            "0; for new ones pass X."
        )


def as_key_labels(labels: Any, keys: Vectors) -> Any:
    """Return labels as an array, or raise an error if they are not one for each key."""
    labels = np.asarray(labels)
    if labels.shape != (len(keys),):
        raise ValueError(
            f"labels must be one for each of the {len(keys)} keys, but have shape {labels.shape}. Pass an array as "
            "long as key_embedding_."
        )
    return labels


def _entropies(P: Any) -> Float64:
    """Return the entropy of each row, in nats."""
    terms = P.copy()
    if sp.issparse(P):
        terms.data = -P.data * np.log(P.data, where=P.data > 0, out=np.zeros_like(P.data))
    else:
        terms = -P * np.log(P, where=P > 0, out=np.zeros_like(P))
    return np.asarray(terms.sum(axis=1), np.float64)
