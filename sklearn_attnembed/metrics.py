"""Attention scores, their cross entropy and normalisers, exact, in bounded blocks."""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from ._core import affinity_matrix, parallel
from ._core.kernels import KERNELS, SOFTMAX, as_kernel, check_scores
from ._core.logsum import log_difference
from ._core.normalizers.exact import attention_rows, exact_attention
from ._core.parallel import block_runner
from ._sklearn import Interval, StrOptions, check_array, check_key_weight, validate_params
from ._sparse import canonical
from ._typing import Float64, Integers, KernelLike, MatrixLike, Vectors

__all__ = ["attention_cross_entropy", "attention_scores", "log_normalizer_exact", "relative_error"]

_CONSTRAINTS = {
    "kernel": [StrOptions(set(KERNELS)), callable],
    "temperature": [Interval(Real, 0, None, closed="neither")],
    "n_jobs": [Integral, None],
}


def _queries_and_keys(queries: ArrayLike, keys: ArrayLike | None, temperature: float) -> tuple[Vectors, Vectors]:
    """Both as matrices of equal width, in the precision they are in, whose scores do not overflow."""
    queries = check_array(queries, dtype=[np.float64, np.float32], input_name="queries")
    keys = queries if keys is None else check_array(keys, dtype=[np.float64, np.float32], input_name="keys")
    if queries.shape[1] != keys.shape[1]:
        raise ValueError(
            f"queries and keys need the same number of columns, but have {queries.shape[1]} and {keys.shape[1]}. "
            "Project one of them."
        )
    check_scores(temperature, queries=queries, keys=keys)
    return queries, keys


@validate_params(_CONSTRAINTS, prefer_skip_nested_validation=True)
def log_normalizer_exact(
    queries: ArrayLike,
    keys: ArrayLike | None = None,
    *,
    key_weight: ArrayLike | None = None,
    kernel: KernelLike = "softmax",
    temperature: float = 1.0,
    n_jobs: int | None = None,
) -> Float64:
    """Sum over all keys for log Z of every query, in bounded memory.

    Parameters
    ----------
    queries : array-like of shape (n_queries, d)
        Queries.
    keys : array-like of shape (n_keys, d), default=None
        Keys; the queries if None.
    key_weight : array-like of shape (n_keys,), default=None
        Non-negative weights w of the keys; ones if None.
    kernel : {"softmax", "squared", "expressive"} or callable, default="softmax"
        Attention kernel f, or any non-negative function of an array of scores.
    temperature : float, default=1.0
        Scores are divided by it.
    n_jobs : int or None, default=None
        Threads; the result does not depend on it.

    Returns
    -------
    log_z : ndarray of shape (n_queries,), float64
        ``log sum_j w_j f(q . k_j / temperature)``, in nats.

    See Also
    --------
    sklearn_attnembed.NormalizerEstimator : Close to it, at a cost for a query that does not depend on the keys.
    relative_error : How close.

    Examples
    --------
    >>> from sklearn_attnembed.metrics import log_normalizer_exact
    >>> log_normalizer_exact([[0.0, 0.0]], [[1.0, 2.0], [3.0, 4.0]])
    array([0.69314718])
    """
    queries, keys = _queries_and_keys(queries, keys, temperature)
    bounds = parallel.row_blocks([len(queries)], 512)
    kernel, beta, log_weights = as_kernel(kernel), 1 / temperature, None
    if key_weight is not None:
        with np.errstate(divide="ignore"):
            log_weights = np.log(check_key_weight(key_weight, keys, "key_weight"))

    def log_z(block: int) -> Vectors:
        return exact_attention(queries[bounds[block]].astype(np.float64), keys, None, kernel, beta, log_weights)[0]

    with block_runner(n_jobs) as run:
        return np.concatenate(list(run(log_z, range(len(bounds)))))


@validate_params({k: _CONSTRAINTS[k] for k in ("kernel", "temperature")}, prefer_skip_nested_validation=True)
def attention_scores(
    queries: ArrayLike,
    keys: ArrayLike | None = None,
    *,
    kernel: KernelLike = "softmax",
    temperature: float = 1.0,
) -> Float64:
    """The attention matrix: who attends to whom. It is dense; pass the queries of interest only.

    Parameters
    ----------
    queries : array-like of shape (n_queries, d)
        Queries.
    keys : array-like of shape (n_keys, d), default=None
        Keys; the queries if None.
    kernel : {"softmax", "squared", "expressive"} or callable, default="softmax"
        Attention kernel f, or any non-negative function of an array of scores.
    temperature : float, default=1.0
        Scores are divided by it.

    Returns
    -------
    attention : ndarray of shape (n_queries, n_keys)
        Rows sum to one; uniform for a query whose weights are all zero.

    See Also
    --------
    sklearn_attnembed.attention : What they make of values, without the matrix.
    attention_cross_entropy : How far they are from affinities.

    Examples
    --------
    >>> from sklearn_attnembed.metrics import attention_scores
    >>> attention_scores([[2.0, 0.0]], [[1.0, 1.0], [0.0, 1.0], [-1.0, 0.0]], kernel="squared")
    array([[0.5, 0. , 0.5]])
    """
    queries, keys = _queries_and_keys(queries, keys, temperature)
    scores = queries.astype(np.float64) @ keys.T.astype(np.float64) / temperature
    return np.asarray(attention_rows(as_kernel(kernel).log_value(scores)), np.float64)


@validate_params(
    {
        "temperature": _CONSTRAINTS["temperature"],
        "rows": ["array-like", None],
        "walk_length": [Interval(Integral, 1, None, closed="left")],
        "n_jobs": _CONSTRAINTS["n_jobs"],
    },
    prefer_skip_nested_validation=True,
)
def attention_cross_entropy(
    affinities: MatrixLike,
    queries: ArrayLike,
    keys: ArrayLike | None = None,
    *,
    rows: ArrayLike | None = None,
    temperature: float = 1.0,
    walk_length: int = 1,
    n_jobs: int | None = None,
) -> float:
    """Cross entropy between affinities and softmax attention, exactly normalised: the loss without its surrogate.

    ``mean_i [ -sum_j P_ij x_i . y_j / temperature + log Z_i ]`` over rows with any affinity.

    Parameters
    ----------
    affinities : {array-like, sparse matrix} of shape (n_queries, n_keys)
        Non-negative; rows are divided by their sums.
    queries : array-like of shape (n_queries, d)
        Query vectors x.
    keys : array-like of shape (n_keys, d), default=None
        Key vectors y; the queries if None. Zero rows, as isolated samples have, are no keys.
    rows : array-like of int of shape (n_rows,), default=None
        Look at these rows alone: a sample, where all are too many for an exact sum. All of them if None.
        A mask of them serves too.
    temperature : float, default=1.0
        Scores are divided by it.
    walk_length : int, default=1
        Take the average of the first so many powers of the affinities (square ones only).
    n_jobs : int or None, default=None
        Threads; the result does not depend on it.

    Returns
    -------
    cross_entropy : float
        In nats; ``log(n_keys)`` for attention that knows nothing.

    See Also
    --------
    attention_scores : The attention itself.
    sklearn_attnembed.AttentionEmbedding : Makes it small; its `perplexity` is the exponential of it.

    Examples
    --------
    >>> from sklearn_attnembed.metrics import attention_cross_entropy
    >>> attention_cross_entropy([[0, 1], [1, 0]], [[1.0, 0.0], [-1.0, 0.0]]).__round__(3)
    2.127
    """
    queries, keys = (part.astype(np.float64, copy=False) for part in _queries_and_keys(queries, keys, temperature))
    A = check_array(
        canonical(affinities, "affinities"),
        accept_sparse="csr",
        dtype=[np.float64, np.float32],
        input_name="affinities",
    )
    if A.shape != (len(queries), len(keys)):
        raise ValueError(
            f"affinities need shape (n_queries, n_keys) = {(len(queries), len(keys))}, but have {A.shape}. Pass a row "
            "for each query and a column for each key."
        )
    lowest = (A.data if sp.issparse(A) else A).min(initial=0)  # a sparse matrix's own min() sorts it in place
    if lowest < 0:
        raise ValueError(f"affinities have to be non-negative, but the smallest is {lowest:.4g}. Clip them.")
    if walk_length > 1 and A.shape[0] != A.shape[1]:
        raise ValueError(
            f"walk_length={walk_length} needs square affinities, but they have shape {A.shape}. Use walk_length=1."
        )
    chosen = slice(None) if rows is None else _row_numbers(rows, len(queries))
    P, isolated = affinity_matrix.row_stochastic(sp.csr_array(A), np.float64)
    occupied = keys[keys.any(axis=1)]
    queries, is_target = queries[chosen], ~isolated[chosen]
    if not (is_target.any() and len(occupied)):
        raise ValueError(
            "affinities need a positive entry in one of the rows looked at, and keys a row that is not zero, but "
            f"{np.count_nonzero(is_target)} of {len(is_target)} rows and {len(occupied)} of {len(keys)} keys are such. "
            "Pass other rows, or those that an embedding was trained on."
        )
    affinity = affinity_matrix.blocked(P, parallel.row_blocks([P.shape[0]], queries.shape[1]))
    with block_runner(n_jobs) as run:
        targets = affinity_matrix.walk_targets(affinity, keys, walk_length, 1, run)
        if rows is not None:
            affinity = affinity_matrix.blocked(P[chosen], parallel.row_blocks([len(queries)], queries.shape[1]))
        bounds, product = affinity.bounds, affinity_matrix.products(affinity, targets)
        beta = 1 / temperature

        def loss(block: int) -> Vectors:
            X = queries[bounds[block]]
            log_z = exact_attention(X, occupied, None, SOFTMAX, beta)[0]
            return (log_z - beta * np.einsum("ij,ij->i", X, product(block)))[is_target[bounds[block]]]

        return float(np.mean(np.concatenate(list(run(loss, range(len(bounds)))))))


def _row_numbers(rows: ArrayLike, n: int) -> Integers:
    """Numbers of some of `n` rows, given as such or by a mask."""
    rows = np.asarray(rows)
    rows = np.flatnonzero(rows) if rows.dtype == bool and rows.shape == (n,) else rows
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or not len(rows) or not -n <= rows.min() <= rows.max() < n:
        raise ValueError(
            f"rows must hold whole numbers from 0 to {n - 1}, one at least, but is {np.array2string(rows, threshold=5)}"
            f" of type {rows.dtype}. Number the rows from 0, or leave rows out for all of them."
        )
    return rows


def relative_error(log_estimate: ArrayLike, log_exact: ArrayLike) -> Float64:
    """Relative error of Z from logarithms.

    Parameters
    ----------
    log_estimate, log_exact : array-like of shape (n_queries,)
        Log Z, estimated and exact.

    Returns
    -------
    error : ndarray of shape (n_queries,)
        ``|Z_estimate / Z_exact - 1|``; zero where both are equal, zero or infinite too.

    Raises
    ------
    ValueError
        If the shapes differ, or a number is NaN.

    See Also
    --------
    log_normalizer_exact : The exact log Z.
    sklearn_attnembed.inspection.NormalizerErrorDisplay : Errors as a picture.

    Examples
    --------
    >>> from sklearn_attnembed.metrics import relative_error
    >>> relative_error([0.01], [0.0]).round(5)
    array([0.01005])
    """
    estimate, exact = (
        check_array(
            log_z,
            dtype=np.float64,
            ensure_all_finite=False,
            ensure_2d=False,
            allow_nd=True,
            ensure_min_samples=0,
            input_name=name,
        )
        for name, log_z in (("log_estimate", log_estimate), ("log_exact", log_exact))
    )
    if estimate.shape != exact.shape or np.isnan(estimate).any() or np.isnan(exact).any():
        raise ValueError(
            "log_estimate and log_exact must have one shape and no NaN, but have shapes "
            f"{estimate.shape} and {exact.shape}, with {np.isnan(estimate).sum()} and {np.isnan(exact).sum()} NaN. "
            "Pass both for the same queries."
        )
    with np.errstate(over="ignore"):
        return np.abs(np.expm1(log_difference(estimate, exact)))
