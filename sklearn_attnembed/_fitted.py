"""A fitted embedding as one value, and the vectors of new rows given it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator
from sklearn.utils.validation import check_is_fitted

from ._core import affinity_matrix
from ._core.kernels import KERNELS, Kernel, embedded
from ._core.out_of_sample import Model, out_of_sample_map
from ._core.pairwise_objective import embed_rows
from ._core.parallel import block_runner, row_blocks
from ._core.sampling import rounded
from ._core.types import Mask
from ._sklearn import validate_data
from ._sparse import canonical
from ._typing import Float64, Integers, Vectors
from .affinity._sources import Source

# Kernels that an embedding can have: the exponential, whose logarithm is linear in scores, or one with terms of pairs.
EMBEDDABLE = [name for name, kernel in KERNELS.items() if name == "softmax" or kernel.pairs is not None]


class FittedEmbedding(NamedTuple):
    """All that the methods of a fitted AttentionEmbedding depend on: no parameter is read after `fit`.

    Attributes
    ----------
    kernel : str
    walk_length : int
    source : Source
        Source of the affinities of queries.
    keys : ndarray of shape (n_keys, n_components)
    key_weight : ndarray of shape (n_keys,)
    active : ndarray of bool of shape (n_keys,)
        The keys that have any affinity.
    labels : ndarray of int of shape (n_keys,)
        Clusters of the keys, -1 for those without any affinity.
    row_model : Model
        Model that new rows are embedded by.
    column_model : Model or None
        Model that new columns are embedded by, if columns are embedded.
    sizes : list of int
        Number of rows and, if they are embedded, of columns.
    vectors : ndarray of shape (sum of sizes, n_components)
        Vectors that the solver ended with, from which a warm start begins.
    row_sums : ndarray of shape (n_samples,) or None
        Sums of the training affinities that they were divided by; None for a LinearOperator.
    column_sums : ndarray of shape (n_keys,) or None
        Sums of the columns of these affinities, the degrees of the keys; None for a LinearOperator.
    """

    kernel: str
    walk_length: int
    source: Source
    keys: Vectors
    key_weight: Float64
    active: Mask
    labels: Integers
    row_model: Model
    column_model: Model | None
    sizes: list[int]
    vectors: Vectors
    row_sums: Float64 | None = None
    column_sums: Float64 | None = None

    @property
    def beta(self) -> float:
        """One over the temperature."""
        return self.row_model.beta

    @property
    def temperature(self) -> float:
        """The temperature."""
        return 1 / self.beta

    @property
    def kernel_function(self) -> Kernel:
        """The kernel, with its background."""
        return embedded(KERNELS[self.kernel])

    @property
    def is_by_pairs(self) -> bool:
        """Whether the kernel needs the score of each affinity, rather than the sum of a row's."""
        return is_by_pairs(self.kernel)


def is_by_pairs(kernel: str) -> bool:
    """Return whether a kernel needs the score of each affinity, rather than the sum of a row's."""
    return KERNELS[kernel].pairs is not None


def normalized(A: Any, dtype: Any, kernel: str) -> tuple[Any, Mask]:
    """Divide affinities by their row sums; return them and the mask of the rows that have none.

    The search of a kernel that works by pairs is chaotic: the same relations, however they are written, have to give
    the same bits. Quotients are therefore rounded, which takes a second division to make rows sum to one again.
    """
    P, isolated = affinity_matrix.row_stochastic(A, dtype)
    if not is_by_pairs(kernel):
        return P, isolated
    exact = sp.csr_array(P)
    exact.data = rounded(exact.data)
    exact, isolated = affinity_matrix.row_stochastic(exact, dtype)
    return exact if sp.issparse(P) else exact.toarray(), isolated


def embed(fitted: FittedEmbedding, P: Any, isolated: Mask, n_jobs: int | None, *, columns: bool = False) -> Vectors:
    """Return the vectors of rows with affinities `P`, each at its own optimum given the keys; zero where isolated.

    With `columns` these are new columns, which have affinities to the training rows.
    """
    model = fitted.column_model if columns else fitted.row_model
    assert model is not None
    # A row has a vector for each cluster, and the history of its iterations besides.
    bounds = row_blocks([P.shape[0]], model.targets.shape[1] * len(model.statistics.weight))
    out = np.zeros((len(isolated), model.targets.shape[1]), model.targets.dtype)
    with block_runner(n_jobs) as run:
        vectors = _block_map(fitted.kernel, model, P, bounds)

        def one(block: int) -> None:
            kept = np.flatnonzero(~isolated[bounds[block]])
            if len(kept):
                out[bounds[block]][kept] = vectors(block, kept)

        for _ in run(one, range(len(bounds))):
            pass
    return out


def _block_map(kernel: str, model: Model, P: Any, bounds: list[slice]) -> Callable[[int, Integers], Vectors]:
    """Return the function ``(block, numbers of rows in it) -> vectors``."""
    if is_by_pairs(kernel):
        pieces: Any = affinity_matrix.blocked(sp.csr_array(P), bounds).pieces
        targets = model.targets.astype(np.float64, copy=False)  # once, not for every block
        known = targets, model.statistics, KERNELS[kernel], model.beta
        return lambda block, kept: embed_rows(pieces[block][kept], *known)
    # A dense product rounds differently in every batch, visibly so in float32, and iterations need the digits.
    targets = model.targets if sp.issparse(P) and model.is_closed else model.targets.astype(np.float64, copy=False)
    product = affinity_matrix.products(affinity_matrix.blocked(P, bounds), targets)
    respond = out_of_sample_map(model)
    return lambda block, kept: respond(product(block)[kept])


class Samples(NamedTuple):
    """Samples with their vectors and affinities to the keys.

    Attributes
    ----------
    embedding : ndarray of shape (n_samples, n_components)
    affinities : sparse array, ndarray or LinearOperator of shape (n_samples, n_keys), or None
        Normalized affinities; None for training samples that were given by a LinearOperator.
    isolated : ndarray of bool of shape (n_samples,)
        The samples without any affinity.
    """

    embedding: Vectors
    affinities: Any
    isolated: Mask


def fitted_value(estimator: Any) -> FittedEmbedding:
    """Return what a fitted AttentionEmbedding has learned."""
    check_is_fitted(estimator)
    fitted: FittedEmbedding = estimator._fitted
    return fitted


def training_samples(estimator: Any) -> Samples:
    """Return the samples that an AttentionEmbedding was fitted to."""
    return Samples(estimator.embedding_, getattr(estimator, "affinity_matrix_", None), estimator.isolated_)


def new_samples(estimator: Any, X: Any) -> Samples:
    """Validate new samples, relate them to the keys of a fitted AttentionEmbedding, and embed them."""
    fitted = fitted_value(estimator)
    affinities = fitted.source.query(_validated(estimator, fitted, X))
    P, isolated = normalized(affinities, fitted.keys.dtype, fitted.kernel)
    return Samples(embed(fitted, P, isolated, estimator.n_jobs), P, isolated)


def _validated(estimator: Any, fitted: FittedEmbedding, X: Any) -> Any:
    """Return new samples as a canonical matrix, or raise an error if they do not fit the training samples."""
    check_operator(X, fitted.kernel)
    if isinstance(X, LinearOperator) and fitted.source.takes_operators:
        if X.shape[1] != estimator.n_features_in_:
            raise ValueError(
                f"X has {X.shape[1]} columns, but AttentionEmbedding is expecting {estimator.n_features_in_}: pass "
                "affinities to each sample seen in fit."
            )
        return X
    try:
        return validate_data(estimator, canonical(X), accept_sparse="csr", dtype=[np.float64, np.float32], reset=False)
    except ValueError as error:
        shape: Any = getattr(X, "shape", ())
        if len(shape) == 2 and shape[0] == estimator.n_features_in_ != shape[1]:
            raise ValueError(f"{error} X has {shape[0]} rows, so it is probably transposed: pass X.T.") from error
        raise


def check_operator(X: Any, kernel: str) -> None:
    """Raise an error for a LinearOperator if the kernel needs the score of each affinity."""
    if is_by_pairs(kernel) and isinstance(X, LinearOperator):
        raise ValueError(
            f"kernel={kernel!r} needs affinities one by one, but X is a LinearOperator, which has products "
            "only. Pass a sparse matrix, or use kernel='softmax'."
        )
