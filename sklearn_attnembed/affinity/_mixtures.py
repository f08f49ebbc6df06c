"""Affinities from several relations of the same samples: types of edges, or links beside features."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.utils import check_random_state, gen_batches

from .._core.affinity_matrix import row_stochastic
from .._sklearn import Interval, StrOptions, check_array, validate_params
from .._sparse import canonical, compact, only
from .._typing import Float64, Integers, MatrixLike, RandomState
from ._relations import _check_weights

# Shares of the total weight by which the search changes one weight, in turn.
_STEPS = (0.25, 0.125, 0.0625)
# Share of uniform attention that is mixed in, so that an edge to a key without attention has a finite likelihood.
_BACKGROUND = 0.01
# Powers of attention, of which the one with the largest likelihood counts. Because of the power 0 no likelihood is
# lower than that of uniform attention, and a relation that cannot be predicted has no influence on the weights.
_POWERS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.12, 0.0)
# Number of rows whose held-out edges are scored, and number of scores computed at a time.
_ROWS, _SCORES = 1024, 2**20


class MixedAffinities(NamedTuple):
    """Mixture of affinities, the result of :func:`mix_affinities`.

    Parameters
    ----------
    affinity : csr_array of shape (n_queries, n_keys)
        Mixture, whose rows sum to one, or to zero if no relation has an entry in them.
    weights : ndarray of shape (n_relations,)
        Weights of the relations, which sum to one.

    See Also
    --------
    mix_affinities : Compute the mixture.

    Examples
    --------
    >>> from sklearn_attnembed.affinity import mix_affinities
    >>> mixed = mix_affinities([[[0, 1], [1, 0]], [[1, 0], [0, 1]]], weights=[3, 1])
    >>> mixed.affinity.toarray().tolist(), mixed.weights.tolist()
    ([[0.25, 0.75], [0.75, 0.25]], [0.75, 0.25])
    """

    affinity: sp.csr_array
    weights: Float64


@validate_params(
    {
        "affinities": "no_validation",
        "weights": [None, StrOptions({"held_out"}), "array-like"],
        "estimator": "no_validation",
        "held_out_share": [Interval(Real, 0, 1, closed="neither")],
        "max_fits": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def mix_affinities(
    affinities: Sequence[MatrixLike],
    weights: Literal["held_out"] | ArrayLike | None = None,
    *,
    estimator: Any = None,
    held_out_share: float = 0.2,
    max_fits: int = 20,
    random_state: RandomState = None,
) -> MixedAffinities:
    """Mix several relations of the same samples to the same keys, such as types of edges, into one.

    The rows of each relation are divided by their sums, multiplied by its weight and added. A row that a relation has
    no entry in is a mixture of the other relations.

    Parameters
    ----------
    affinities : sequence of {array-like, sparse matrix} of shape (n_queries, n_keys)
        Relations, as matrices of non-negative affinities of one shape. The input is not changed.
    weights : array-like of shape (n_relations,), "held_out" or None, default=None
        Weights of the relations, of any positive sum. With "held_out" those are searched for with which `estimator`
        gives the largest likelihood to edges that it has not seen. None means equal weights.
    estimator : AttentionEmbedding or None, default=None
        Estimator with ``affinity="precomputed"`` that is cloned and fitted to mixtures if `weights` is "held_out".
        Give it a `random_state`, so that differences between fits are due to weights alone.
    held_out_share : float in (0, 1), default=0.2
        Share of the pairs of samples whose edges are held out, in both directions and of all relations.
    max_fits : int, default=20
        Maximum number of fits. Two relations take about ten.
    random_state : int, RandomState instance or None, default=None
        Seed of the choice of held-out pairs.

    Returns
    -------
    result : MixedAffinities
        Named tuple of `affinity` and `weights`. Pass `weights` to mix the affinities of new samples in the same way.

    Raises
    ------
    ValueError
        If shapes differ, if affinities or weights are negative or not finite, or if weights cannot be learned: without
        an estimator, for matrices that are not square, or with too few edges to hold any out.

    See Also
    --------
    concatenate_affinities : Put relations to different keys, such as links and features, side by side.

    Notes
    -----
    The search starts from equal weights and raises or lowers one of them at a time, by a quarter of the total weight,
    then by an eighth and a sixteenth, as long as the mean log attention of held-out edges increases. The edges of at
    most 1024 rows are scored, with exact attention.

    The temperature of that attention is calibrated for each relation: it is raised until the likelihood is the largest,
    which makes up for overfitting. Then the mean over relations is taken. A relation whose edges cannot be predicted,
    such as noise, is given uniform attention by all weights, and so does not influence them. If relations contradict
    each other, so that no vectors suit both, the one that can be predicted best may get all the weight: pass weights to
    keep the others.

    Examples
    --------
    >>> from sklearn_attnembed import AttentionEmbedding
    >>> from sklearn_attnembed.affinity import mix_affinities
    >>> from sklearn_attnembed.datasets import make_block_model
    >>> friends, _ = make_block_model(200, 4, mean_degree=20, random_state=0)
    >>> strangers, _ = make_block_model(200, 1, mean_degree=20, random_state=1)
    >>> model = AttentionEmbedding(8, affinity="precomputed", random_state=0)
    >>> mixed = mix_affinities(
    ...     [friends, strangers], "held_out", estimator=model, random_state=0
    ... )
    >>> mixed.weights.tolist()
    [1.0, 0.0]
    >>> model.fit_transform(mixed.affinity).shape
    (200, 8)
    """
    relations = _relations(affinities)
    shapes = {A.shape for A in relations}
    if len(shapes) > 1:
        raise ValueError(
            f"affinities must be of one shape, but are of {[A.shape for A in relations]}. Put relations to different "
            "keys side by side, by concatenate_affinities."
        )
    if isinstance(weights, str):
        search = _HeldOut(relations, estimator, held_out_share, check_random_state(random_state))
        shares = search.best_weights(max_fits)
    else:
        shares = _shares(weights, len(relations))
    return MixedAffinities(_mixture(relations, shares), shares)


@validate_params({"affinities": "no_validation", "weights": [None, "array-like"]}, prefer_skip_nested_validation=True)
def concatenate_affinities(affinities: Sequence[MatrixLike], weights: ArrayLike | None = None) -> sp.csr_array:
    """Put several relations of the same samples side by side, such as links and features.

    The rows of each relation are divided by their sums and multiplied by its weight. The result can be embedded by
    ``AttentionEmbedding(affinity="bipartite")``, in which each column gets a vector: that of a node that is linked to,
    or of a feature. Samples are related by common links and features. Rows are treated one by one, so a table of all
    samples can be split for cross-validation, and new samples are described by their links and features alone.

    Parameters
    ----------
    affinities : sequence of {array-like, sparse matrix} of shape (n_samples, n_keys_k)
        Relations, as matrices of non-negative affinities with the same number of rows. The input is not changed.
    weights : array-like of shape (n_relations,) or None, default=None
        Weights of the relations, of any positive sum. None means equal weights.

    Returns
    -------
    affinity : csr_array of shape (n_samples, sum of n_keys_k)
        Relations side by side. Rows sum to one, or to zero if no relation has an entry in them.

    Raises
    ------
    ValueError
        If numbers of rows differ, or if affinities or weights are negative or not finite.

    See Also
    --------
    mix_affinities : Add relations to the same keys.

    Notes
    -----
    Add the identity to the links of a graph: a node then has its own column in common with those that link to it.

    Signed edges are two relations, friends and foes, each with columns of its own. If `S` holds weights of either sign,
    ``concatenate_affinities([abs(S) + S, abs(S) - S])`` relates nodes that have the same friends and the same foes.

    Examples
    --------
    >>> from sklearn_attnembed.affinity import concatenate_affinities
    >>> links, features = [[1, 1, 0], [1, 1, 0], [0, 0, 0]], [[2, 0], [1, 1], [0, 3]]
    >>> concatenate_affinities([links, features]).toarray()
    array([[0.25, 0.25, 0.  , 0.5 , 0.  ],
           [0.25, 0.25, 0.  , 0.25, 0.25],
           [0.  , 0.  , 0.  , 0.  , 1.  ]])
    """
    relations = _relations(affinities)
    if len({A.shape[0] for A in relations}) > 1:
        raise ValueError(
            f"affinities must have one number of rows, but have {[A.shape[0] for A in relations]}. Pass a row for each "
            "sample, empty if a relation has none."
        )
    shares = _shares(weights, len(relations))
    parts = [share * _rows(A) for A, share in zip(relations, shares, strict=True)]
    return compact(row_stochastic(sp.hstack(parts, "csr"), _dtype(relations))[0])


# Validation ------------------------------------------------------------------------------------------
def _relations(affinities: Any) -> list[sp.csr_array]:
    """Return the relations as validated CSR arrays."""
    if sp.issparse(affinities) or len(np.shape(affinities[0] if len(affinities) else ())) != 2:
        raise ValueError(
            f"affinities must be a sequence of matrices, but is of type {type(affinities).__name__}. Pass a list, "
            "[affinities] if there is one relation."
        )
    relations = []
    for number, given in enumerate(affinities):
        name = f"affinities[{number}]"
        A = check_array(canonical(given, name), accept_sparse="csr", dtype=[np.float64, np.float32], input_name=name)
        _check_weights(A.data if sp.issparse(A) else A, name)
        relations.append(sp.csr_array(A))
    return relations


def _shares(weights: Any, count: int) -> Float64:
    """Return validated weights, divided by their sum."""
    if weights is None:
        return np.full(count, 1 / count)
    given = np.asarray(weights, np.float64)
    if given.shape != (count,) or not (np.isfinite(given).all() and given.min() >= 0 < given.max()):
        raise ValueError(
            f"weights must hold a finite number >= 0 for each of the {count} affinities, and not only zeros, but is "
            f"{given.tolist()}. Pass None for equal weights."
        )
    given = given / given.max()
    return given / given.sum()


# Mixtures --------------------------------------------------------------------------------------------
def _rows(A: sp.csr_array) -> sp.csr_array:
    """Return affinities divided by their row sums, in float64."""
    P: sp.csr_array = row_stochastic(A, np.float64)[0]
    return P


def _dtype(relations: list[sp.csr_array]) -> Any:
    return np.result_type(*(A.dtype for A in relations))


def _mixture(relations: list[sp.csr_array], shares: Float64) -> sp.csr_array:
    """Return the mixture of the relations, whose rows sum to one or zero."""
    total = sp.csr_array(relations[0].shape)
    for A, share in zip(relations, shares, strict=True):
        if share > 0:
            total = total + share * _rows(A)
    return compact(row_stochastic(total, _dtype(relations))[0])


# Learned weights -------------------------------------------------------------------------------------
class _HeldOut:
    """The mean log attention of held-out edges, as a function of the weights of the relations."""

    def __init__(self, relations: list[sp.csr_array], estimator: Any, share: float, generator: Any) -> None:
        _check_learnable(relations, estimator)
        self.estimator = estimator
        chosen = _chosen_pairs(relations, share, generator)
        is_held = [np.isin(_pair_numbers(A), chosen) for A in relations]
        self.seen = [only(A, ~held) for A, held in zip(relations, is_held, strict=True)]
        hidden = [_rows(only(A, held)) for A, held in zip(relations, is_held, strict=True)]
        self.hidden = [A for A in hidden if A.nnz]
        if not self.hidden or not any(A.nnz for A in self.seen):
            raise ValueError(
                f"weights='held_out' needs edges to hold out and edges to learn from, but held_out_share={share:g} of "
                f"{sum(A.nnz for A in relations)} leaves none on one side. Change held_out_share, or pass weights."
            )
        rows = np.flatnonzero(sum(np.diff(A.indptr) for A in self.hidden))
        rows = np.sort(generator.permutation(rows)[:_ROWS])
        self.batches = [rows[batch] for batch in gen_batches(len(rows), max(_SCORES // self.seen[0].shape[0], 1))]
        self.known: dict[tuple[float, ...], float] = {}

    def best_weights(self, max_fits: int) -> Float64:
        """Return the best weights found by changing one at a time."""
        best = _shares(None, len(self.seen))
        value = self(best)
        for step in _STEPS:
            while True:
                moves = [move for move in _moves(best, step) if _key(move) not in self.known]
                values = [self(move) for move in moves[: max_fits - len(self.known)]]
                if not values or max(values) <= value:
                    break
                value, best = max(values), moves[int(np.argmax(values))]
        return best

    def __call__(self, shares: Float64) -> float:
        """Return the mean log attention of held-out edges after a fit to the mixture of the others."""
        model = clone(self.estimator).fit(_mixture(self.seen, shares))
        totals, masses = np.zeros((len(self.hidden), len(_POWERS))), np.zeros(len(self.hidden))
        for rows in self.batches:
            attention = model.attention_scores(rows=rows)
            attention *= 1 - _BACKGROUND
            attention += np.where(model.isolated_[rows], 1, _BACKGROUND)[:, None] / attention.shape[1]
            edges = [sp.coo_array(A[rows]) for A in self.hidden]
            masses += [A.data.sum() for A in edges]
            for column, power in enumerate(_POWERS):
                powers = attention**power
                log_sums = np.log(powers.sum(axis=1))
                totals[:, column] += [
                    A.data @ (np.log(powers[A.row, A.col]) - log_sums[A.row]) if A.nnz else 0.0 for A in edges
                ]
        likelihoods = (totals[masses > 0] / masses[masses > 0, None]).max(axis=1)
        self.known[_key(shares)] = float(np.mean(likelihoods))
        return self.known[_key(shares)]


def _check_learnable(relations: list[sp.csr_array], estimator: Any) -> None:
    """Raise an error if weights cannot be learned from these arguments."""
    if getattr(estimator, "affinity", None) != "precomputed":
        raise ValueError(
            "weights='held_out' needs an estimator that is fitted to mixtures, but estimator is "
            f"{estimator!r}. Pass AttentionEmbedding(affinity='precomputed'), with your parameters."
        )
    n, m = relations[0].shape
    if n != m:
        raise ValueError(
            f"weights='held_out' needs square affinities of samples by samples, but their shape is {(n, m)}. Learn the "
            "weights from training samples, and pass them."
        )


def _pair_numbers(A: sp.csr_array) -> NDArray[np.int64]:
    """Return a number for the pair of samples of each entry, the same in both directions."""
    i = np.repeat(np.arange(A.shape[0], dtype=np.int64), np.diff(A.indptr))
    j = A.indices.astype(np.int64)
    return np.minimum(i, j) * A.shape[0] + np.maximum(i, j)


def _chosen_pairs(relations: list[sp.csr_array], share: float, generator: Any) -> Integers:
    """Return the numbers of a random share of the pairs that any relation has an entry for."""
    pairs = np.unique(np.concatenate([_pair_numbers(A) for A in relations]))
    return pairs[generator.random_sample(len(pairs)) < share]


def _moves(shares: Float64, step: float) -> list[Float64]:
    """Return the weights after one of them was raised or lowered and the others scaled to the rest."""
    moves = []
    for k, share in enumerate(shares):
        others = np.where(np.arange(len(shares)) == k, 0, shares)
        others = others if others.any() else np.where(np.arange(len(shares)) == k, 0, 1.0)
        for changed in (min(share + step, 1), max(share - step, 0)):
            move = others * ((1 - changed) / others.sum())
            move[k] = changed
            moves.append(move)
    return list({_key(move): move for move in moves}.values())


def _key(shares: Float64) -> tuple[float, ...]:
    return tuple(shares.round(9).tolist())
