"""What a fitted AttentionEmbedding attends to, how likely that makes affinities, and what fits badly."""

from collections.abc import Iterator
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator
from sklearn.utils.validation import check_is_fitted

from ._affinity_input import NEIGHBORS, PAIRWISE, Fitted
from ._core import affinity_matrix, expressive
from ._core.normalizers.exact import attention_rows
from ._extras import import_extra
from ._sklearn import _num_samples, _safe_indexing
from ._sparse import canonical
from ._typing import Float64, Integers, MatrixLike, Vectors
from .metrics import log_normalizer_exact

if TYPE_CHECKING:
    from pandas import DataFrame

# The exact log Z is taken on at most so many query-key pairs: rows beyond it are left out at even steps.
_EXACT_PAIRS = 2**31
# Elements of a block of attention: 32 MB.
_BLOCK_ELEMENTS = 2**22


class ExplainMixin:
    """The part of AttentionEmbedding that looks back: exact attention, likelihood, and tables of both."""

    _fitted: Fitted
    n_jobs: int | None
    embedding_: Vectors
    key_embedding_: Vectors
    key_weight_: Float64
    isolated_: Any
    _active_keys: Any
    _key_labels: Integers
    _row_sums: Float64 | None

    # attention ---------------------------------------------------------------------------------------
    def attention_scores(self, X: MatrixLike | None = None, *, rows: Any = None) -> Float64:
        """Attention of samples over all keys: who attends to whom.

        Dense, so ask for the rows of interest only.

        Parameters
        ----------
        X : array-like, sparse matrix or LinearOperator, default=None
            As for `transform`; the training samples if None.
        rows : array-like of int or slice, default=None
            Which of these samples; all of them if None.

        Returns
        -------
        attention : ndarray of shape (n_rows, n_keys)
            ``key_weight_ * f(x . y / temperature)`` over its sum: rows sum to one.

        See Also
        --------
        AttentionEmbedding.explain : The same for one row, beside what it should be.
        sklearn_attnembed.metrics.attention_scores : Of any vectors.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from sklearn_attnembed import AttentionEmbedding
        >>> X, y = load_iris(return_X_y=True)
        >>> model = AttentionEmbedding(8, random_state=0).fit(X)
        >>> attention = model.attention_scores(rows=[0, 1])
        >>> attention.shape, bool(attention[:, y == 0].sum(axis=1).min() > 0.8)
        ((2, 150), True)
        """
        check_is_fitted(self)
        queries = self.embedding_ if X is None else self._embed(X)[0]
        return self._attention(queries[_numbers(len(queries), rows)])

    def _attention(self, queries: Vectors) -> Float64:
        """Rows of attention."""
        return np.asarray(attention_rows(np.where(self._active_keys, self._log_weights(queries), -np.inf)), np.float64)

    def _log_weights(self, queries: Vectors) -> Float64:
        """``log(w_j f(s_ij))``, over all keys; those without weight count as if they had it."""
        scores = queries.astype(np.float64) @ self.key_embedding_.T.astype(np.float64) / self._fitted.temperature
        log_f = scores if self._fitted.kernel == "softmax" else expressive.MODEL.log_value(scores)
        return log_f + self._log_key_weight()

    # likelihood --------------------------------------------------------------------------------------
    def score(self, X: Any, y: None = None) -> float:
        """Mean log likelihood of affinity rows under the attention of their embedding, exactly normalised.

        ``mean_i sum_j P_ij log a_ij``, in nats, higher is better: label-free and comparable between temperatures, walk
        lengths (walks are not part of what is scored) and normalisers. Rows without affinity are left out, and so are
        affinities to samples that have none themselves, for nothing can attend to these. At most
        2^31 query-key pairs are looked at, with rows at even steps if there are more.

        A row is embedded by the relations that are scored, so more dimensions describe them better, without end. To
        choose a dimension, hide some relations of each row from `fit`, and look at the likelihood of these:
        :func:`~sklearn_attnembed.metrics.attention_cross_entropy`.

        Parameters
        ----------
        X : array-like, sparse matrix or LinearOperator
            As for `transform`.
        y : Ignored
            Present for API consistency.

        Returns
        -------
        score : float
            Log likelihood per row, in nats.

        Raises
        ------
        ValueError
            If no row of `X` has any affinity.
        """
        check_is_fitted(self)
        embedding, P, isolated = self._embed(X)
        mass = self._mass(P)
        rows = self._even_steps(np.flatnonzero(~isolated & (mass > 0)))
        if len(rows) == 0:
            raise ValueError(
                "X has no row with any affinity to the fitted samples, so there is nothing to score. "
                "Pass rows with a positive entry."
            )
        has_rows = not isinstance(P, LinearOperator)
        pull = self._pull(embedding[rows], P[rows]) if has_rows else self._pull(embedding, P)[rows]
        return float(np.mean(pull / mass[rows] - self._log_z(embedding[rows])))

    def perplexity(self, X: Any) -> float:
        """``exp(-score(X))``: among how many keys, in effect, the attention of the true ones is lost.

        Parameters
        ----------
        X : array-like, sparse matrix or LinearOperator
            As for `transform`.

        Returns
        -------
        perplexity : float
            The number of keys for attention that knows nothing; lower is better. Infinite where it is beyond the
            largest number, as it can be at very low temperatures.
        """
        with np.errstate(over="ignore"):
            return float(np.exp(-self.score(X)))

    def _even_steps(self, rows: Integers) -> Integers:
        """Of these rows as many as the exact log Z is affordable for."""
        return rows[:: max(-(-len(rows) * np.count_nonzero(self._active_keys) // _EXACT_PAIRS), 1)]

    def _mass(self, P: Any) -> Float64:
        """How much of each row's affinities goes to keys that have weight: all of it, but for keys that have none."""
        active = self._active_keys
        return np.ones(P.shape[0]) if active.all() else np.asarray(P @ active.astype(np.float64))

    def _attended(self, P: Any) -> Any:
        """Affinities to the keys that have weight alone; `P` itself if these are all."""
        return P if self._active_keys.all() else P @ sp.diags_array(1.0 * self._active_keys)

    def _pull(self, embedding: Vectors, P: Any) -> Float64:
        """``sum_j P_ij log(w_j f(s_ij))`` over the keys that have weight."""
        if self._fitted.kernel == "softmax":  # vectors of keys without weight are zero
            pull = np.einsum("ij,ij->i", embedding, np.asarray(P @ self.key_embedding_)) / self._fitted.temperature
        else:
            P = sp.csr_array(self._attended(P))
            pull = -expressive.attraction_of_pairs(P, embedding, self.key_embedding_, 1 / self._fitted.temperature).loss
        return pull + P @ self._log_key_weight()

    def _log_key_weight(self) -> Float64:
        """Zero for keys without weight."""
        return np.log(np.where(self.key_weight_ > 0, self.key_weight_, 1))

    def _log_z(self, embedding: Vectors) -> Float64:
        """Over the keys with any affinity, exactly."""
        return log_normalizer_exact(
            embedding,
            self.key_embedding_[self._active_keys],
            key_weight=self.key_weight_[self._active_keys],
            kernel="softmax" if self._fitted.kernel == "softmax" else expressive.weight,
            temperature=self._fitted.temperature,
            n_jobs=self.n_jobs,
        )

    # tables ------------------------------------------------------------------------------------------
    def explain(self, i: int, X: Any = None) -> "DataFrame":
        """One row's attention over the keys, beside the affinities that it was to reproduce.

        Parameters
        ----------
        i : int
            Row of `X`, or of the training samples.
        X : array-like or sparse matrix, default=None
            As for `transform`; the training samples if None.

        Returns
        -------
        table : pandas.DataFrame
            One row for each key, most attended first:

            - key: its number, or its name where columns of a DataFrame are keys;
            - target: the affinity, with walks averaged; sums to one;
            - attention: sums to one;
            - share: of the row's loss, ``-target * log(attention)`` over its sum: where it is lost.

        Raises
        ------
        ValueError
            If `i` is no row, or affinities were given as a LinearOperator, which has none.
        ImportError
            If pandas is missing.

        See Also
        --------
        AttentionEmbedding.explain_rows : Which rows fit worst.
        sklearn_attnembed.inspection.AttentionScoresDisplay : A picture.

        Notes
        -----
        Needs pandas. Attention is exact, so the cost is linear in the keys. A row without any affinity has no target,
        and attends to all keys alike.

        Examples
        --------
        >>> from sklearn_attnembed import AttentionEmbedding
        >>> from sklearn_attnembed.datasets import make_block_model
        >>> adjacency, communities = make_block_model(200, 4, mean_degree=20, random_state=0)
        >>> model = AttentionEmbedding(16, affinity="precomputed", random_state=0).fit(adjacency)
        >>> table = model.explain(0)
        >>> list(table)
        ['key', 'target', 'attention', 'share']
        >>> by_community = table.groupby(communities[table["key"]])["attention"].sum()
        >>> bool(by_community.idxmax() == communities[0])
        True
        """
        check_is_fitted(self)
        pandas = import_extra("pandas", "pandas", "explain")
        target, attention, log_attention = self._one_row(i, X)
        # In logarithms: attention may be too small for a number. Keys without weight have no part in it.
        loss = np.where(self._active_keys, -target * log_attention, 0)
        table = {
            "key": self._key_names(),
            "target": target,
            "attention": attention,
            "share": loss / (loss.sum() or 1),
        }
        return pandas.DataFrame(table).sort_values("attention", ascending=False, kind="stable", ignore_index=True)

    def _one_row(self, i: int, X: Any) -> tuple[Float64, Float64, Float64]:
        """Target, attention and its logarithm of one row, over the keys."""
        n_rows = len(self.isolated_) if X is None else _num_samples(X)
        if not isinstance(i, Integral) or isinstance(i, bool) or not 0 <= i < n_rows:
            raise ValueError(
                f"i must be the number of a row, an integer from 0 to {n_rows - 1}, but is {i!r}. Rows count from "
                "0; to look at new ones pass X."
            )
        if X is None:
            query, P = self.embedding_[[i]], self._training_rows([i])
        else:
            _check_rows(X)
            query, P, _ = self._embed(_safe_indexing(canonical(X), [i]))
        target = self._walk(P, self._steps())
        target = np.asarray(target.toarray() if sp.issparse(target) else target, np.float64)[0]
        log_weights, active = self._log_weights(query)[0], self._active_keys
        log_attention = log_weights - np.logaddexp.reduce(log_weights[active])
        return target, np.where(active, np.exp(log_attention), 0), log_attention

    def _key_names(self) -> Any:
        """Names of the keys, where columns are keys and have names, or their numbers."""
        names = getattr(self, "feature_names_in_", None) if self._fitted.affinity in (*PAIRWISE, "bipartite") else None
        return np.arange(len(self.key_embedding_)) if names is None else names

    def explain_rows(self, X: Any = None, *, rows: Any = None) -> "DataFrame":
        """How well each row's attention reproduces its affinities, the worst first.

        Parameters
        ----------
        X : array-like or sparse matrix, default=None
            As for `transform`; the training samples if None.
        rows : array-like of int or slice, default=None
            Look at these alone. If None, at all rows, or at even steps where there are more than 2^31 query-key pairs.

        Returns
        -------
        table : pandas.DataFrame
            One row for each sample that has any affinity, the largest divergence first, all in nats:

            - row: its number;
            - loss: the cross entropy of attention to target, walks averaged;
            - entropy: of the target, below which no loss can be;
            - divergence: the loss less the entropy.

        Raises
        ------
        ValueError
            If affinities were given as a LinearOperator, which has no rows.
        ImportError
            If pandas is missing.

        See Also
        --------
        AttentionEmbedding.explain : One row, key by key.
        AttentionEmbedding.score : Their mean, without walks.

        Notes
        -----
        The entropy grows with the number of relations, so that rows with few of them have the largest divergence, and
        rows with many the largest loss. Among rows with as many relations both tell which are odd:
        ``table.sort_values("loss", ascending=False)``.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from sklearn_attnembed import AttentionEmbedding
        >>> model = AttentionEmbedding(8, random_state=0).fit(load_iris().data)
        >>> table = model.explain_rows()
        >>> table.shape, bool(table["divergence"].is_monotonic_decreasing)
        ((150, 4), True)
        """
        check_is_fitted(self)
        pandas = import_extra("pandas", "pandas", "explain_rows")
        embedding, P, numbers = self._chosen(X, rows)
        pull, entropy = np.empty(len(numbers)), np.empty(len(numbers))
        steps = self._steps()
        for block in self._blocks(len(numbers)):
            target = self._walk(P[block], steps)
            mass = self._mass(target)
            pull[block] = self._pull(embedding[block], target) / mass
            entropy[block] = _entropy(self._attended(target)) / mass + np.log(mass)
        loss = self._log_z(embedding) - pull if len(numbers) else pull
        table = {"row": numbers, "loss": loss, "entropy": entropy, "divergence": loss - entropy}
        return pandas.DataFrame(table).sort_values("divergence", ascending=False, kind="stable", ignore_index=True)

    def explain_clusters(self, X: Any = None, *, labels: Any = None, rows: Any = None) -> "DataFrame":
        """How much of Z each cluster of keys holds.

        Parameters
        ----------
        X : array-like, sparse matrix or LinearOperator, default=None
            As for `transform`; the training samples if None.
        labels : array-like of shape (n_keys,), default=None
            Clusters of the keys, classes for instance; those of the model, of which there are `n_clusters`, if None.
        rows : array-like of int or slice, default=None
            Look at these alone. If None, at all rows, or at even steps where there are more than 2^31 query-key pairs.

        Returns
        -------
        table : pandas.DataFrame
            One row for each cluster, the largest share first:

            - cluster: its label;
            - n_keys: the keys in it that have any affinity;
            - share: of Z, the mean over rows; sums to one;
            - log_z: the logarithm of its part of Z, in nats, the mean over rows.

        Raises
        ------
        ValueError
            If `labels` are not one for each key.
        ImportError
            If pandas is missing.

        See Also
        --------
        NormalizerEstimator.transform : The same of any queries and keys, for each query, in linear time.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from sklearn_attnembed import AttentionEmbedding
        >>> X, y = load_iris(return_X_y=True)
        >>> model = AttentionEmbedding(8, random_state=0).fit(X)
        >>> table = model.explain_clusters(labels=y, rows=y == 0)
        >>> int(table["cluster"][0]), bool(table["share"][0] > 0.9)
        (0, True)
        """
        check_is_fitted(self)
        pandas = import_extra("pandas", "pandas", "explain_clusters")
        labels = self._key_labels if labels is None else as_key_labels(labels, self.key_embedding_)
        active = np.flatnonzero(self._active_keys)
        order = active[np.argsort(labels[active], kind="stable")]
        clusters, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
        embedding = self._chosen(X, rows, with_affinities=False)[0]
        share, log_z = np.zeros(len(clusters)), np.zeros(len(clusters))
        for block in self._blocks(len(embedding)):
            log_weights = self._log_weights(embedding[block])[:, order]
            top = np.maximum.reduceat(log_weights, starts, axis=1)
            weights = np.exp(log_weights - np.repeat(top, counts, axis=1))
            part = np.log(np.add.reduceat(weights, starts, axis=1)) + top
            share += np.exp(part - np.logaddexp.reduce(part, axis=1, keepdims=True)).sum(axis=0)
            log_z += part.sum(axis=0)
        n_rows = max(len(embedding), 1)
        table = {"cluster": clusters, "n_keys": counts, "share": share / n_rows, "log_z": log_z / n_rows}
        return pandas.DataFrame(table).sort_values("share", ascending=False, kind="stable", ignore_index=True)

    # their parts -------------------------------------------------------------------------------------
    def _embed(self, X: Any) -> tuple[Vectors, Any, Any]:
        """Vectors, row-stochastic affinities and which rows have none."""
        P, isolated = self._query_affinities(X)  # type: ignore[attr-defined]
        return self._respond(self._model, P, isolated), P, isolated  # type: ignore[attr-defined]

    def _training_rows(self, rows: Any) -> Any:
        """Affinities of training samples."""
        if not hasattr(self, "affinity_matrix_"):
            raise ValueError(
                "The affinities of the training samples are not kept where X of fit is a LinearOperator. Pass rows of "
                "them as X, or fit a sparse matrix."
            )
        return self.affinity_matrix_[rows]

    def _chosen(self, X: Any, rows: Any, with_affinities: bool = True) -> tuple[Vectors, Any, Integers]:
        """Vectors, affinities and numbers of those of the rows wanted that have any affinity."""
        if X is None:
            embedding, P, isolated = self.embedding_, None, self.isolated_
        else:
            embedding, P, isolated = self._embed(X)
        numbers = _numbers(len(embedding), rows)
        numbers = numbers[~isolated[numbers]]
        numbers = self._even_steps(numbers) if rows is None else numbers
        if with_affinities:
            _check_rows(P)
            P = self._training_rows(numbers) if P is None else P[numbers]
            scored = self._mass(P) > 0
            P, numbers = P[scored], numbers[scored]
        return embedding[numbers], P, numbers

    def _blocks(self, n_rows: int) -> Iterator[slice]:
        """Blocks of rows whose attention is small enough to hold."""
        step = max(_BLOCK_ELEMENTS // len(self.key_embedding_), 1)
        return (slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step))

    def _walk(self, P: Any, steps: list[Any]) -> Any:
        """The average of walks from rows with affinities `P`: what their attention is to reproduce."""
        total = walk = P
        for _ in range(self._fitted.walk_length - 1):
            for step in steps:
                walk = walk @ step
            total = total + walk
        return total / self._fitted.walk_length

    def _steps(self) -> list[Any]:
        """What one step of a walk multiplies by: the keys' own relations; to the other side, and back."""
        if self._fitted.walk_length == 1:
            return []
        A = self._training_rows(slice(None))
        if self._fitted.affinity == "bipartite":
            return [affinity_matrix.row_stochastic((sp.diags_array(self._row_sums) @ A).T, A.dtype)[0], A]
        return [affinity_matrix.row_stochastic(A + A.T, A.dtype)[0] if self._fitted.affinity in NEIGHBORS else A]


def _numbers(n_rows: int, rows: Any) -> Integers:
    """Numbers of the rows that `rows` asks for."""
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


def _check_rows(X: Any) -> None:
    """A LinearOperator has products only."""
    if isinstance(X, LinearOperator):
        raise ValueError("X must have rows to be explained, but is a LinearOperator. Pass a sparse matrix.")


def as_key_labels(labels: Any, keys: Vectors) -> Any:
    """Labels as an array, one for each key."""
    labels = np.asarray(labels)
    if labels.shape != (len(keys),):
        raise ValueError(
            f"labels must be one for each of the {len(keys)} keys, but have shape {labels.shape}. Pass an array as "
            "long as key_embedding_."
        )
    return labels


def _entropy(P: Any) -> Float64:
    """Of each row, in nats."""
    terms = P.copy()
    if sp.issparse(P):
        terms.data = -P.data * np.log(P.data, where=P.data > 0, out=np.zeros_like(P.data))
    else:
        terms = -P * np.log(P, where=P > 0, out=np.zeros_like(P))
    return np.asarray(terms.sum(axis=1), np.float64)
