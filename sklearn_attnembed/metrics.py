"""Attention scores, their cross entropy with affinities and their normalizers: exact, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from ._core import affinity_matrix, parallel
from ._core.kernels import KERNELS, SOFTMAX, Kernel, as_kernel, with_background
from ._core.logsum import log_difference
from ._core.normalizers.exact import attention_rows, exact_attention
from ._core.pairwise_objective import pair_scores
from ._core.parallel import Runner, block_runner
from ._core.statistics import group_sums
from ._sklearn import Interval, StrOptions, check_array, check_key_weight, check_scores, validate_params
from ._sparse import canonical
from ._typing import Float64, Integers, KernelLike, MatrixLike, Vectors

__all__ = ["attention_cross_entropy", "attention_scores", "log_normalizer_exact", "relative_error"]

_CONSTRAINTS = {
    "kernel": [StrOptions(set(KERNELS)), callable],
    "background": [Interval(Real, 0, None, closed="left")],
    "temperature": [Interval(Real, 0, None, closed="neither")],
    "n_jobs": [Integral, None],
}


def _queries_and_keys(queries: ArrayLike, keys: ArrayLike | None, temperature: float) -> tuple[Vectors, Vectors]:
    """Validate queries and keys: matrices of equal width, in their own precision, whose scores do not overflow."""
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
    background: float = 0.0,
    temperature: float = 1.0,
    n_jobs: int | None = None,
) -> Float64:
    """Compute log Z of every query by the sum over all keys, in bounded memory.

    Parameters
    ----------
    queries : array-like of shape (n_queries, d)
        Queries.
    keys : array-like of shape (n_keys, d), default=None
        Keys. The queries are the keys if None.
    key_weight : array-like of shape (n_keys,), default=None
        Non-negative weights w of the keys. All are 1 if None.
    kernel : {"softmax", "squared", "expressive"} or callable, default="softmax"
        Attention kernel f, or any non-negative function of an array of scores.
    background : float, default=0.0
        Constant added to f. ``AttentionEmbedding(kernel="expressive")`` is trained with 0.01.
    temperature : float, default=1.0
        Temperature of the attention. Scores are divided by it.
    n_jobs : int or None, default=None
        Number of threads. The result does not depend on it.

    Returns
    -------
    log_z : ndarray of shape (n_queries,), float64
        ``log sum_j w_j f(q . k_j / temperature)``, in nats.

    See Also
    --------
    sklearn_attnembed.NormalizerEstimator : Estimates at a cost for a query that does not depend on the keys.
    relative_error : Relative error of such estimates.

    Examples
    --------
    >>> from sklearn_attnembed.metrics import log_normalizer_exact
    >>> log_normalizer_exact([[0.0, 0.0]], [[1.0, 2.0], [3.0, 4.0]])
    array([0.69314718])
    """
    queries, keys = _queries_and_keys(queries, keys, temperature)
    bounds = parallel.row_blocks([len(queries)], 512)
    kernel, beta, log_weights = with_background(as_kernel(kernel), background), 1 / temperature, None
    if key_weight is not None:
        with np.errstate(divide="ignore"):
            log_weights = np.log(check_key_weight(key_weight, keys, "key_weight"))

    def log_z(block: int) -> Vectors:
        return exact_attention(queries[bounds[block]].astype(np.float64), keys, None, kernel, beta, log_weights)[0]

    with block_runner(n_jobs) as run:
        return np.concatenate(list(run(log_z, range(len(bounds)))))


@validate_params(
    {k: _CONSTRAINTS[k] for k in ("kernel", "background", "temperature")}, prefer_skip_nested_validation=True
)
def attention_scores(
    queries: ArrayLike,
    keys: ArrayLike | None = None,
    *,
    kernel: KernelLike = "softmax",
    background: float = 0.0,
    temperature: float = 1.0,
) -> Float64:
    """Compute the attention matrix, the weight of every key for every query.

    The matrix is dense, so pass only the queries of interest.

    Parameters
    ----------
    queries : array-like of shape (n_queries, d)
        Queries.
    keys : array-like of shape (n_keys, d), default=None
        Keys. The queries are the keys if None.
    kernel : {"softmax", "squared", "expressive"} or callable, default="softmax"
        Attention kernel f, or any non-negative function of an array of scores.
    background : float, default=0.0
        Constant added to f. ``AttentionEmbedding(kernel="expressive")`` is trained with 0.01.
    temperature : float, default=1.0
        Temperature of the attention. Scores are divided by it.

    Returns
    -------
    attention : ndarray of shape (n_queries, n_keys)
        Rows sum to one. The row of a query whose weights are all zero is uniform.

    See Also
    --------
    sklearn_attnembed.attention : Output of attention over values, without the matrix.
    attention_cross_entropy : Cross entropy between affinities and attention.

    Examples
    --------
    >>> from sklearn_attnembed.metrics import attention_scores
    >>> attention_scores([[2.0, 0.0]], [[1.0, 1.0], [0.0, 1.0], [-1.0, 0.0]], kernel="squared")
    array([[0.5, 0. , 0.5]])
    """
    queries, keys = _queries_and_keys(queries, keys, temperature)
    scores = queries.astype(np.float64) @ keys.T.astype(np.float64) / temperature
    return np.asarray(attention_rows(with_background(as_kernel(kernel), background).log_value(scores)), np.float64)


@validate_params(
    {
        **_CONSTRAINTS,
        "rows": ["array-like", None],
        "walk_length": [Interval(Integral, 1, None, closed="left")],
    },
    prefer_skip_nested_validation=True,
)
def attention_cross_entropy(
    affinities: MatrixLike,
    queries: ArrayLike,
    keys: ArrayLike | None = None,
    *,
    kernel: KernelLike = "softmax",
    background: float = 0.0,
    rows: ArrayLike | None = None,
    temperature: float = 1.0,
    walk_length: int = 1,
    n_jobs: int | None = None,
) -> float:
    """Compute the cross entropy between affinities and attention with its exact normalizer.

    This is the loss of an embedding without the approximation of log Z:
    ``mean_i [ -sum_j P_ij log f(x_i . y_j / temperature) + log Z_i ]`` over rows with any affinity.

    Parameters
    ----------
    affinities : {array-like, sparse matrix} of shape (n_queries, n_keys)
        Non-negative affinities. Rows are divided by their sums.
    queries : array-like of shape (n_queries, d)
        Query vectors x.
    keys : array-like of shape (n_keys, d), default=None
        Key vectors y. The queries are the keys if None. Zero rows, as isolated samples have, are not keys, and count
        with log f = 0.
    kernel : {"softmax", "squared", "expressive"} or callable, default="softmax"
        Attention kernel f, or any non-negative function of an array of scores.
    background : float, default=0.0
        Constant added to f. ``AttentionEmbedding(kernel="expressive")`` is trained with 0.01.
    rows : array-like of int of shape (n_rows,), default=None
        Rows that the mean is taken over, as numbers or as a mask: a sample, where all are too many for an exact sum.
        All rows if None.
    temperature : float, default=1.0
        Temperature of the attention. Scores are divided by it.
    walk_length : int, default=1
        Number of powers of the affinities, from the first, that are averaged. Needs square affinities if above 1.
    n_jobs : int or None, default=None
        Number of threads. The result does not depend on it.

    Returns
    -------
    cross_entropy : float
        Cross entropy in nats; ``log(n_keys)`` for uniform attention, infinite where f vanishes for a pair with any
        affinity.

    See Also
    --------
    attention_scores : The attention itself.
    sklearn_attnembed.AttentionEmbedding : Minimizes it; its `perplexity` is the exponential of it.

    Notes
    -----
    Softmax needs the product of the affinities with the keys alone. Other kernels, or a background, need the score of
    every pair with any affinity, of the averaged powers if there are any, whose number may be large.

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
    with block_runner(n_jobs) as run:
        arguments = P, queries, keys, chosen, walk_length
        f, beta = with_background(as_kernel(kernel), background), 1 / temperature
        bounds = parallel.row_blocks([len(queries)], queries.shape[1])
        log_f = _linear_log_f(*arguments, beta, run) if f is SOFTMAX else _log_f_of_pairs(*arguments, f, beta)

        def loss(block: int) -> Vectors:
            rows = bounds[block]
            log_z = exact_attention(queries[rows], occupied, None, f, beta)[0]
            return (log_z - log_f(rows))[is_target[rows]]

        return float(np.mean(np.concatenate(list(run(loss, range(len(bounds)))))))


def _linear_log_f(
    P: Any, queries: Vectors, keys: Vectors, chosen: Any, walk_length: int, beta: float, run: Runner
) -> Callable[[slice], Vectors]:
    """Return ``sum_j P_ij s_ij`` of rows: one product, because log f of softmax is linear in the keys."""
    affinity = affinity_matrix.blocked(P, parallel.row_blocks([P.shape[0]], keys.shape[1]))
    targets = affinity_matrix.walk_targets(affinity, keys, walk_length, 1, run)
    P = P[chosen] if isinstance(chosen, np.ndarray) else P
    return lambda rows: beta * np.einsum("ij,ij->i", queries[rows], P[rows] @ targets)


def _log_f_of_pairs(
    P: Any, queries: Vectors, keys: Vectors, chosen: Any, walk_length: int, kernel: Kernel, beta: float
) -> Callable[[slice], Vectors]:
    """Return ``sum_j P_ij log f(s_ij)`` of rows, pair by pair."""
    numbers, occupied = np.arange(P.shape[0])[chosen], np.flatnonzero(keys.any(axis=1))
    keys = keys[occupied]

    def log_f(rows: slice) -> Vectors:
        walked = affinity_matrix.walked_rows(P[numbers[rows]], [P], walk_length)
        pairs = sp.csr_array(walked[:, occupied])
        pairs.eliminate_zeros()  # a weight of zero is no loss without affinity
        row, scores = pair_scores(pairs, queries[rows], keys)
        return group_sums(row, pairs.data * kernel.log_value(beta * scores), pairs.shape[0])

    return log_f


def _row_numbers(rows: ArrayLike, n: int) -> Integers:
    """Return the numbers of some of `n` rows, given as numbers or by a mask."""
    rows = np.asarray(rows)
    rows = np.flatnonzero(rows) if rows.dtype == bool and rows.shape == (n,) else rows
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or not len(rows) or not -n <= rows.min() <= rows.max() < n:
        raise ValueError(
            f"rows must hold whole numbers from 0 to {n - 1}, one at least, but is {np.array2string(rows, threshold=5)}"
            f" of type {rows.dtype}. Number the rows from 0, or leave rows out for all of them."
        )
    return rows


def relative_error(log_estimate: ArrayLike, log_exact: ArrayLike) -> Float64:
    """Compute the relative error of Z from logarithms.

    Parameters
    ----------
    log_estimate, log_exact : array-like of shape (n_queries,)
        Estimated and exact log Z.

    Returns
    -------
    error : ndarray of shape (n_queries,)
        ``|Z_estimate / Z_exact - 1|``; zero where both are equal, also if both are zero or infinite.

    Raises
    ------
    ValueError
        If the shapes differ, or a number is NaN.

    See Also
    --------
    log_normalizer_exact : The exact log Z.
    sklearn_attnembed.inspection.NormalizerErrorDisplay : Plot of the errors.

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
