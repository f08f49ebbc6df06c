"""Attention over values: exact in bounded memory, or approximate in linear time."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any, Literal, overload

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state

from ._core.kernels import KERNELS, SQUARED, Kernel, as_kernel
from ._core.linear_attention import causal_squared_sums, gaussian_attention, value_moments
from ._core.normalizers.exact import exact_attention
from ._core.parallel import Runner, block_runner, row_blocks
from ._sklearn import Interval, StrOptions, check_array, check_scores, partition, validate_params
from ._sparse import canonical
from ._typing import Float64, Integers, KernelLike, MatrixLike, RandomState, Vectors

# Values up to this can be multiplied by any squares of scores without overflow.
_LARGEST_VALUE = 1e80


@overload
def attention(
    Q: ArrayLike,
    K: ArrayLike,
    V: ArrayLike,
    *,
    kernel: KernelLike = ...,
    temperature: float = ...,
    mask: MatrixLike | None = ...,
    causal: bool = ...,
    method: Literal["exact", "gaussian"] = ...,
    n_clusters: int = ...,
    return_log_normalizer: Literal[False] = ...,
    random_state: RandomState = ...,
    n_jobs: int | None = ...,
) -> Vectors: ...
@overload
def attention(
    Q: ArrayLike,
    K: ArrayLike,
    V: ArrayLike,
    *,
    kernel: KernelLike = ...,
    temperature: float = ...,
    mask: MatrixLike | None = ...,
    causal: bool = ...,
    method: Literal["exact", "gaussian"] = ...,
    n_clusters: int = ...,
    return_log_normalizer: Literal[True],
    random_state: RandomState = ...,
    n_jobs: int | None = ...,
) -> tuple[Vectors, Float64]: ...
@validate_params(
    {
        "kernel": [StrOptions(set(KERNELS)), callable],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "mask": ["array-like", "sparse matrix", None],
        "causal": ["boolean"],
        "method": [StrOptions({"exact", "gaussian"})],
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "return_log_normalizer": ["boolean"],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
    },
    prefer_skip_nested_validation=True,
)
def attention(
    Q: ArrayLike,
    K: ArrayLike,
    V: ArrayLike,
    *,
    kernel: KernelLike = "softmax",
    temperature: float = 1.0,
    mask: MatrixLike | None = None,
    causal: bool = False,
    method: Literal["exact", "gaussian"] = "exact",
    n_clusters: int = 8,
    return_log_normalizer: bool = False,
    random_state: RandomState = None,
    n_jobs: int | None = None,
) -> Vectors | tuple[Vectors, Float64]:
    """Compute attention of queries over keys, applied to values, in bounded memory.

    The output is ``output_i = sum_j a_ij v_j`` with ``a_ij = f(q_i . k_j / temperature) / Z_i``.

    Parameters
    ----------
    Q : array-like of shape (n_queries, d)
        Queries.
    K : array-like of shape (n_keys, d)
        Keys.
    V : array-like of shape (n_keys, d_v)
        Values.
    kernel : {"softmax", "squared", "expressive"} or callable, default="softmax"
        Attention kernel f: ``exp(s)``, ``s^2`` or ``s^2 / (1 + s^2)`` [1]_, or any non-negative function of scores.
    temperature : float, default=1.0
        Temperature of the attention. Scores are divided by it. Transformers use ``sqrt(d)``.
    mask : {array-like, sparse matrix} of bool of shape (n_queries, n_keys), default=None
        Mask that is True where a query may attend to a key.
    causal : bool, default=False
        Whether query i may attend to keys 0 to i only.
    method : {"exact", "gaussian"}, default="exact"
        Method that computes the output.

        - "exact": sum over all pairs, O(n_queries n_keys (d + d_v)), a block at a time. For ``kernel="squared"``
          without a mask, sums over the keys are computed once, or as running sums if causal, if that is cheaper:
          O((n_queries + n_keys) d^2 d_v). The result is exact too.
        - "gaussian": the scores in each of `n_clusters` clusters of keys are taken to be Gaussian, and the values to be
          a quadratic function of the score; O((n_queries n_clusters + n_keys) d^2 d_v). Neither masked nor causal.
    n_clusters : int, default=8
        Number of clusters of keys, found by k-means, for ``method="gaussian"``.
    return_log_normalizer : bool, default=False
        Whether to return log Z too, which gives the weight of any pair: ``a_ij = f(s_ij) / Z_i``.
    random_state : int, RandomState instance or None, default=None
        Seed of k-means.
    n_jobs : int or None, default=None
        Number of threads. The result does not depend on it.

    Returns
    -------
    output : ndarray of shape (n_queries, d_v)
        Output of each query. A query whose weights are all zero attends uniformly to the keys it may attend to, so that
        its output is their mean value. The output of a query that may attend to none is zero.
    log_normalizer : ndarray of shape (n_queries,), float64
        Log Z of each query in nats, only if `return_log_normalizer` is True.

    Raises
    ------
    ValueError
        If shapes do not match, a number is not finite, the mask is not boolean, or ``method="gaussian"`` is combined
        with a mask or ``causal=True``.

    See Also
    --------
    NormalizerEstimator : Log Z alone, with more methods and standard errors.
    sklearn_attnembed.nn.expressive_attention : Expressive attention in PyTorch, with gradients.

    Notes
    -----
    With ``method="gaussian"``, ``E f(s) v`` of a cluster is expanded in Hermite polynomials of the score, up to the
    second. The coefficients are derivatives of ``log E f`` times moments of keys and values, which are known. Each
    further term would cost a factor of d.

    References
    ----------
    .. [1] C. Gros, "Reorganizing attention-space geometry with expressive attention", arXiv:2407.18601.

    Examples
    --------
    >>> from sklearn_attnembed import attention
    >>> keys, values = [[1.0, 0.0], [0.0, 1.0]], [[1.0], [2.0]]
    >>> attention([[5.0, 0.0], [0.0, -5.0]], keys, values, kernel="expressive")
    array([[1.],
           [2.]])
    """
    Q, K, V = (
        check_array(A, dtype=[np.float64, np.float32], input_name=name) for A, name in ((Q, "Q"), (K, "K"), (V, "V"))
    )
    mask = _check(Q, K, V, mask, causal, method)
    check_scores(temperature, Q=Q, K=K)
    dtype, beta, f = np.result_type(Q, K, V), 1 / temperature, as_kernel(kernel)
    Q, K, V = (A.astype(np.float64, copy=False) for A in (Q, K, V))
    with block_runner(n_jobs) as run:
        if method == "gaussian":
            seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
            log_z, output = _by_clusters(Q, K, V, f, beta, partition(K, n_clusters, seed), run)
        elif kernel == "squared" and mask is None and _is_linear_cheaper(Q, K, V, causal):
            log_z, output = _squared(Q, K, V, beta, causal, run)
        else:
            bounds = row_blocks([len(Q)], 512)
            rows = [np.arange(block.start, block.stop) for block in bounds]
            parts = run(lambda b: _exact(rows[b], Q, K, V, f, beta, mask, causal), range(len(bounds)))
            log_z, output = map(np.concatenate, zip(*parts, strict=True))
    largest = np.finfo(dtype).max  # an approximation may exceed all values
    output = output.clip(-largest, largest).astype(dtype, copy=False)
    return (output, log_z) if return_log_normalizer else output


def _check(Q: Vectors, K: Vectors, V: Vectors, mask: Any, causal: bool, method: str) -> Any:
    """Raise errors for arguments that do not fit; return the mask as an array or in CSR."""
    if Q.shape[1] != K.shape[1]:
        raise ValueError(
            f"Q and K need the same number of columns, but Q has {Q.shape[1]} and K {K.shape[1]}. Project one of them."
        )
    if len(K) != len(V):
        raise ValueError(
            f"K and V need the same number of rows, one for each key, but K has {len(K)} and V {len(V)}. Pass a value "
            "for every key."
        )
    largest = max(float(V.max()), -float(V.min()))
    if largest > _LARGEST_VALUE:
        raise ValueError(
            f"Entries of V must be at most {_LARGEST_VALUE:g} in size, but the largest is {largest:.3g}. Divide V, and "
            "multiply the output by as much."
        )
    if method == "gaussian" and (causal or mask is not None):
        raise ValueError(
            "method='gaussian' sums over all keys alike, but a mask or causal=True was given. Use method='exact', or "
            "kernel='squared', which is exact and causal in linear time."
        )
    if mask is None:
        return None
    mask = mask if sp.issparse(mask) else np.asarray(mask)
    if mask.dtype != bool or mask.shape != (len(Q), len(K)):
        raise ValueError(
            f"mask must be boolean, True where a query may attend, of shape (n_queries, n_keys) = {(len(Q), len(K))}; "
            f"got {mask.dtype} of shape {mask.shape}. Use mask.astype(bool), a row for each query."
        )
    return canonical(mask, "mask").astype(bool, copy=False)


def _exact(
    rows: Integers, Q: Vectors, K: Vectors, V: Vectors, kernel: Kernel, beta: float, mask: Any, causal: bool
) -> tuple[Any, Any]:
    """Compute log Z and output of some queries over all pairs."""
    n_keys = min(int(rows[-1]) + 1, len(K)) if causal else len(K)
    if mask is not None:
        mask = mask[rows].toarray() if sp.issparse(mask) else mask[rows]

    def allowed(keys: slice) -> Any:
        past = np.arange(n_keys)[keys] <= rows[:, None] if causal else True
        return past if mask is None else past & mask[:, :n_keys][:, keys]

    restricted = allowed if causal or mask is not None else None
    return exact_attention(Q[rows], K[:n_keys], V[:n_keys], kernel, beta, allowed=restricted)


def _is_linear_cheaper(Q: Vectors, K: Vectors, V: Vectors, causal: bool) -> bool:
    """Tell whether sums over the keys cost less than pairs; causal sums need a query for each key."""
    n_features = K.shape[1] * (K.shape[1] + 1) // 2
    pairs = len(Q) * len(K) * (K.shape[1] + V.shape[1]) / (1 + causal)
    return (len(Q) + len(K)) * n_features * (V.shape[1] + 1) < pairs and (len(Q) == len(K) or not causal)


def _by_clusters(
    Q: Vectors, K: Vectors, V: Vectors, kernel: Kernel, beta: float, labels: Integers, run: Runner
) -> Iterable[Any]:
    """Compute log Z and output from the moments of clusters of keys."""
    moments = value_moments(K, V, labels, int(labels.max()) + 1)
    bounds = row_blocks([len(Q)], moments.sums.shape[1])
    parts = run(lambda b: gaussian_attention(Q[bounds[b]], moments, kernel, beta), range(len(bounds)))
    return map(np.concatenate, zip(*parts, strict=True))


def _squared(Q: Vectors, K: Vectors, V: Vectors, beta: float, causal: bool, run: Runner) -> tuple[Any, Any]:
    """Compute log Z and output of squared attention in linear time.

    Each query and the keys are divided by their largest entry, which cancels in the output, so that squares stay in
    range. Queries that are orthogonal to nearly all keys are summed over all pairs, because the sums cancel.
    """
    scale, size = np.abs(Q).max(axis=1), np.abs(K).max()
    scale, size = np.where(scale > 0, scale, 1), size if size > 0 else 1.0
    X, Y = Q / scale[:, None], K / size
    if causal:
        sums = np.concatenate(list(causal_squared_sums(X, Y, V)))
        z = sums[:, -1]
        output = sums[:, :-1] / np.where(sums[:, -1:] > 0, sums[:, -1:], 1)
        squares = np.cumsum(np.einsum("ij,ij->i", Y, Y))
    else:
        log_z, output = _by_clusters(X, Y, V, SQUARED, 1.0, np.zeros(len(K), np.intp), run)
        z, squares = np.exp(log_z), np.vdot(Y, Y)
    doubtful = np.flatnonzero(z <= 1e-6 * np.einsum("ij,ij->i", X, X) * squares)  # nearly all digits are lost
    log_z = np.log(np.where(z > 0, z, 1)) + 2 * (np.log(scale) + np.log(size) + np.log(beta))
    for rows in np.array_split(doubtful, -(-len(doubtful) // 512)) if len(doubtful) else []:
        log_z[rows], output[rows] = _exact(rows, Q, K, V, SQUARED, beta, None, causal)
    return log_z, output
