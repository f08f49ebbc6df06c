"""AttentionRecommender: items for users, by the attention of users and by that of the items that they know."""

from __future__ import annotations

import copy
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import scipy.sparse as sp
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from . import _explain
from ._core import parallel
from ._core.item_products import largest_products
from ._core.normalizers.exact import attention_rows
from ._embedding import AttentionEmbedding, _warn_isolated
from ._fitted import fitted_value, new_samples
from ._sklearn import BaseEstimator, Interval, StrOptions, _fit_context, validate_data, whole_or_as_before
from ._sparse import canonical, only
from ._training import column_sums
from ._typing import Float64, Integers, MatrixLike, RandomState, Vectors

# Temperatures from smooth to sharp. Each fit starts from the vectors of the one before.
_TEMPERATURES = (0.3, 0.22, 0.16, 0.12, 0.09, 0.07)
# The one that is taken where fewer users than this have items to be held out.
_USUAL, _LEAST_JUDGES = 0.2, 20
# Iterations at the first temperature, where rankings that have not converged would look worse than they are, and at
# those that follow.
_FIRST_ITERATIONS, _ITERATIONS = 16, 8
# Temperatures that a Gaussian is tried at: below these it is a poor stand-in for log Z.
_GAUSSIAN_STEPS = 3
# Users whose items are held out, the share that is held out, and the length of the lists that are judged.
_MOST_JUDGES, _HELD_OUT, _LIST = 2000, 0.2, 20


class AttentionRecommender(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Recommend items to users, known or new, from a table of what users have chosen, in linear time.

    Users and items are embedded by :class:`AttentionEmbedding` such that users attend to the items that they have
    chosen [1]_: the chance of an item is proportional to ``w exp(x . y / temperature)``, where the weight w is its
    popularity. To this attention of users is added that of items:
    items that many users have chosen together attend to each other [2]_, and a user attends to the items that the
    chosen ones attend to. Temperature and normalizer are found on items that are held out.

    Read more in the :ref:`User Guide <recommendations>`.

    Parameters
    ----------
    n_components : int, default=64
        Dimension of the embedding.
    temperature : float or "auto", default="auto"
        Temperature of the attention, from 1e-9 to 1e9. "auto" holds out a fifth of the items of up to 2,000 users,
        lowers the temperature from 0.3 step by step until their rankings get worse by normalized discounted cumulative
        gain (NDCG@20), and then fits all items at the best temperature. With less than 20 users to judge by it is 0.2.
    normalizer : {"auto", "gaussian", "sampling"}, default="auto"
        Method that computes log Z, see :class:`AttentionEmbedding`. "sampling" is accurate at low temperatures, which
        large sparse tables want. "gaussian" is smooth, which helps where most items have few users. "auto" tries both
        on the same held-out items. With less than 20 users to judge by it is "gaussian".
    popularity_power : float, default=1.0
        Power of the popularity that an item is weighted by. Lower values recommend rare items more often.
    item_share : float, default=0.5
        Share, from 0 to 1, of the attention of items in the ranking. With 0 it is not computed, and the ranking is that
        of the embedding alone.
    user_power : float, default=0.5
        Power of the sum of a row that its counts are divided by before the attention of items is computed from them:
        how much less each choice of a user of many items counts.
    item_power : float, default=0.5
        Power of the sum of a column that its counts are divided by likewise: how much less each choice of a popular
        item counts.
    n_neighbors : int, default=200
        Number of other items that each item attends to at most.
    max_iter : int, default=100
        Maximum number of iterations at the last temperature.
    tol : float, default=1e-2
        Tolerance of the stopping rule, see :class:`AttentionEmbedding`; a tenth of it with ``normalizer="gaussian"``.
    random_state : int, RandomState instance or None, default=None
        Seed of initial vectors, samples and held-out items. The same seed gives the same bits on the same machine,
        whatever `n_jobs` is.
    n_jobs : int or None, default=None
        Number of threads. None means 1 unless in a :obj:`joblib.parallel_config` context, -1 means all cores.
    verbose : int, default=0
        Verbosity. If positive, each temperature is printed with its NDCG, and each of the last iterations.

    Attributes
    ----------
    embedding_ : ndarray of shape (n_users, n_components)
        Vectors of the users of `fit`; zero for users without items.
    item_embedding_ : ndarray of shape (n_items, n_components)
        Vectors of the items.
    item_attention_ : csr_array of shape (n_items, n_items) or None
        Attention of items to each other, at most `n_neighbors` in a row. None if `item_share` is 0.
    temperature_ : float
        The temperature.
    normalizer_ : str
        The method that computes log Z.
    validation_ : list of tuple
        Normalizers and temperatures that were tried, each with the NDCG@20 of held-out items.
    n_iter_ : int
        Number of iterations at the last temperature.
    model_ : AttentionEmbedding
        The fitted embedding, which explains single users and has the loss.
    n_features_in_ : int
        Number of items.
    feature_names_in_ : ndarray of shape (n_items,)
        Names of the items. Defined only if `X` was a DataFrame whose column names are all strings.

    See Also
    --------
    sklearn_attnembed.affinity.bipartite : Make the table from a long one of user, item and weight.
    sklearn_attnembed.affinity.concatenate_affinities : Put attributes of users beside their items.
    AttentionEmbedding : The embedding itself, of tables of any kind.

    Notes
    -----
    Time is linear in the number of counts, users and items, but for the attention of items, which takes the sum over
    users of their squared numbers of items. Memory is that of :class:`AttentionEmbedding` with
    ``normalizer="sampling"``, and `n_neighbors` numbers for each item.

    References
    ----------
    .. [1] L. Dall'Amico, E. M. Belliardo, "Learning distributed representations with efficient SoftMax
       normalization", TMLR 2025, arXiv:2303.17475.
    .. [2] Y. Shen et al., "How powerful is graph convolution for recommendation?", CIKM 2021, arXiv:2108.07567.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_attnembed import AttentionRecommender
    >>> plays = np.kron(np.eye(2), np.ones((10, 8)))  # two groups of listeners, each with eight songs of its own
    >>> model = AttentionRecommender(4, random_state=0).fit(plays)
    >>> items, chances = model.recommend(np.eye(16)[:1], n_items=7)
    >>> sorted(items[0].tolist())
    [1, 2, 3, 4, 5, 6, 7]
    """

    _parameter_constraints = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "temperature": [StrOptions({"auto"}), Interval(Real, 1e-9, 1e9, closed="both")],
        "normalizer": [StrOptions({"auto", "gaussian", "sampling"})],
        "popularity_power": [Interval(Real, 0, None, closed="left")],
        "item_share": [Interval(Real, 0, 1, closed="both")],
        "user_power": [Interval(Real, 0, None, closed="left")],
        "item_power": [Interval(Real, 0, None, closed="left")],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        n_components: int = 64,
        *,
        temperature: float | Literal["auto"] = "auto",
        normalizer: Literal["auto", "gaussian", "sampling"] = "auto",
        popularity_power: float = 1.0,
        item_share: float = 0.5,
        user_power: float = 0.5,
        item_power: float = 0.5,
        n_neighbors: int = 200,
        max_iter: int = 100,
        tol: float = 1e-2,
        random_state: RandomState = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.n_components = n_components
        self.temperature = temperature
        self.normalizer = normalizer
        self.popularity_power = popularity_power
        self.item_share = item_share
        self.user_power = user_power
        self.item_power = item_power
        self.n_neighbors = n_neighbors
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    # Fit and transform -------------------------------------------------------------------------------
    @whole_or_as_before()
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: MatrixLike, y: None = None) -> Self:
        """Learn vectors of users and items, and the attention of items to each other.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_users, n_items)
            Non-negative counts or ratings: how often, or how much, each user has chosen each item.
        y : Ignored
            Not used, present for API consistency by convention.

        Returns
        -------
        self : AttentionRecommender
            Fitted estimator.

        Raises
        ------
        ValueError
            If `X` holds NaN, infinity or negative numbers, or no positive number at all.

        Warns
        -----
        ConvergenceWarning
            If `max_iter` was reached before the stopping rule was met.
        UserWarning
            If users have no item.
        """
        table = self._validated(X, reset=True)
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        self.model_, self.validation_ = self._fitted_model(table, seed)
        ranking = self._ranking(self.model_, table)
        self.item_attention_, self._item_share = ranking.item_attention, ranking.share
        share_attributes(self)
        return self

    def _validated(self, X: Any, reset: bool) -> sp.csr_array:
        """Return the table as a CSR array of counts."""
        options: dict[str, Any] = {"accept_sparse": "csr", "dtype": np.float32, "ensure_non_negative": True}
        table = sp.csr_array(validate_data(self, canonical(X), reset=reset, **options))
        return only(table, table.data != 0) if (table.data == 0).any() else table

    def _fitted_model(
        self, table: sp.csr_array, seed: int
    ) -> tuple[AttentionEmbedding, list[tuple[str, float, float]]]:
        """Return the fitted embedding, and what was tried with its NDCG."""
        model = AttentionEmbedding(
            self.n_components,
            affinity="bipartite",
            key_weight=self.popularity_power,
            max_iter=_FIRST_ITERATIONS,
            check_loss=False,
            warm_start=True,
            random_state=seed,
            n_jobs=self.n_jobs,
        )
        normalizers = ["gaussian", "sampling"] if self.normalizer == "auto" else [self.normalizer]
        tried = list[tuple[str, float, float]]()
        rows, kept, held_out = hold_out(table, seed)
        is_open = self.temperature == "auto" or self.normalizer == "auto"
        if is_open and len(rows) >= _LEAST_JUDGES:
            judged = self._ranking(model, kept), kept, rows, held_out
            best = None
            for normalizer in normalizers:
                best = self._descend(model, normalizer, judged, best, tried)
            assert best is not None
            model = best[1]
        else:
            temperature = _USUAL if self.temperature == "auto" else self.temperature
            for warmer in self._steps(normalizers[0], temperature)[:-1]:
                self._approach(model, normalizers[0], warmer, table)
            model.set_params(normalizer=normalizers[0], temperature=temperature)
        tol = self._tolerance(model.normalizer)
        model.set_params(tol=tol, max_iter=self.max_iter, verbose=self.verbose).fit(table)
        return model.set_params(warm_start=False), tried

    def _steps(self, normalizer: str, temperature: float | str) -> list[float]:
        """Return the temperatures to go through, which end with the one that is given, if any."""
        if temperature != "auto":
            return [*(each for each in _TEMPERATURES if each > float(temperature)), float(temperature)]
        return list(_TEMPERATURES[:_GAUSSIAN_STEPS] if normalizer == "gaussian" else _TEMPERATURES)

    def _tolerance(self, normalizer: str) -> float:
        """Return the tolerance; that of sampling is larger, because its loss changes from iteration to iteration."""
        return self.tol / 10 if normalizer == "gaussian" else self.tol

    def _approach(self, model: AttentionEmbedding, normalizer: str, temperature: float, table: sp.csr_array) -> None:
        """Go on to a temperature, from the vectors so far."""
        tol = self._tolerance(normalizer)
        model.set_params(normalizer=normalizer, temperature=temperature, tol=tol)
        model._approach(table).set_params(max_iter=_ITERATIONS)

    def _descend(
        self,
        model: AttentionEmbedding,
        normalizer: str,
        judged: tuple[Ranking, sp.csr_array, Integers, sp.csr_array],
        best: tuple[Float64, AttentionEmbedding] | None,
        tried: list[tuple[str, float, float]],
    ) -> tuple[Float64, AttentionEmbedding] | None:
        """Lower the temperature until rankings of held-out items get worse; return the best model and its NDCG.

        If two models do not differ beyond the noise, the first is kept, which is the smoother one.
        """
        (ranking, kept, rows, held_out), highest = judged, -np.inf
        for temperature in self._steps(normalizer, self.temperature):
            self._approach(model, normalizer, temperature, kept)
            if self.temperature not in ("auto", temperature):
                continue
            gains = ranking._replace(model=model).gains(kept[rows], model.embedding_[rows], held_out, self.n_jobs)
            tried.append((normalizer, temperature, float(gains.mean())))
            if self.verbose:
                print(
                    f"[AttentionRecommender] {normalizer}, temperature {temperature:g}: NDCG@{_LIST} {gains.mean():.4f}"
                )
            change = gains if best is None else gains - best[0]
            if best is None or change.mean() > change.std() / np.sqrt(len(rows)):
                best = gains, copy.copy(model)
            if gains.mean() < highest:
                break
            highest = float(gains.mean())
        return best

    def _ranking(self, model: AttentionEmbedding, table: sp.csr_array) -> Ranking:
        """Return what items are ranked by, from a fitted embedding and the table."""
        if self.item_share == 0:
            return Ranking(model, None, 0.0)
        scaled, sums = table.copy(), (column_sums(table.T), column_sums(table))
        by_user, by_item = (
            np.where(total > 0, total, 1) ** -power
            for total, power in zip(sums, (self.user_power, self.item_power), strict=True)
        )
        scaled.data *= (np.repeat(by_user, np.diff(table.indptr)) * by_item[table.indices]).astype(table.dtype)
        with parallel.block_runner(self.n_jobs) as run:
            return Ranking(model, largest_products(scaled, self.n_neighbors, run), float(self.item_share))

    def transform(self, X: MatrixLike) -> Vectors:
        """Compute the vectors of users from what they have chosen.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_users, n_items)
            Counts of users, which need not be those of `fit`.

        Returns
        -------
        embedding : ndarray of shape (n_users, n_components)
            Unit vectors; zero for users without items.
        """
        check_is_fitted(self)
        samples = new_samples(self.model_, self._validated(X, reset=False))
        _warn_isolated(samples.isolated)
        return samples.embedding

    # Recommendations ---------------------------------------------------------------------------------
    def recommend(self, X: MatrixLike, n_items: int = 10, *, exclude_known: bool = True) -> tuple[Integers, Float64]:
        """Find the best items for users, known or new.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_users, n_items)
            Counts of users, which need not be those of `fit`. A user without any gets the most popular items.
        n_items : int, default=10
            Number of items for each user.
        exclude_known : bool, default=True
            Whether to leave out the items that a user has a count for.

        Returns
        -------
        items : ndarray of int of shape (n_users, n_items)
            Numbers of columns, the best first; -1 where there are no more.
        chances : ndarray of shape (n_users, n_items)
            Chances of these items among all items, those that a user knows included; 0 where there are no more.

        Raises
        ------
        ValueError
            If `n_items` is not from 1 to the number of columns.
        """
        check_is_fitted(self)
        _explain.check_n_items(n_items, self.n_features_in_)
        table = self._validated(X, reset=False)
        ranking = Ranking(self.model_, self.item_attention_, self._item_share)
        return ranking.best(table, new_samples(self.model_, table).embedding, int(n_items), exclude_known, self.n_jobs)

    def score(self, X: MatrixLike, y: None = None) -> float:
        """Compute how well a fifth of the items of each user is predicted from the others, for users of any kind.

        It needs no labels and no second table, so that :class:`sklearn.model_selection.GridSearchCV` can choose
        parameters by users that were not in `fit`.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_users, n_items)
            Counts of users, at most 2,000 of which are judged.
        y : Ignored
            Not used, present for API consistency by convention.

        Returns
        -------
        score : float
            Mean normalized discounted cumulative gain of the first 20 items, NDCG@20, from 0 to 1.

        Raises
        ------
        ValueError
            If no user has two items.
        """
        check_is_fitted(self)
        rows, kept, held_out = hold_out(self._validated(X, reset=False), 0)
        if len(rows) == 0:
            raise ValueError(
                "X must have a user with two items, one of which is predicted from the other, but has none. Pass users "
                "with more items."
            )
        ranking = Ranking(self.model_, self.item_attention_, self._item_share)
        embedding = new_samples(self.model_, kept[rows]).embedding
        return float(ranking.gains(kept[rows], embedding, held_out, self.n_jobs).mean())

    # scikit-learn ------------------------------------------------------------------------------------
    @property
    def _n_features_out(self) -> int:
        return self.item_embedding_.shape[1]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = tags.input_tags.positive_only = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def share_attributes(recommender: AttentionRecommender) -> None:
    """Set the attributes that are those of the fitted embedding."""
    model = recommender.model_
    recommender.temperature_, recommender.normalizer_ = float(model.temperature), model.normalizer
    recommender.n_iter_ = model.n_iter_
    recommender.embedding_, recommender.item_embedding_ = model.embedding_, model.key_embedding_


class Ranking(NamedTuple):
    """What items are ranked by.

    Attributes
    ----------
    model : AttentionEmbedding
    item_attention : csr_array of shape (n_items, n_items) or None
        Attention of items to each other.
    share : float
        Share of it in the chances of items.
    """

    model: AttentionEmbedding
    item_attention: Any
    share: float

    def chances(self, table: sp.csr_array, embedding: Vectors) -> Vectors:
        """Return the chance of each item for users with these counts and vectors."""
        chances = attention_rows(_explain.log_ratings(fitted_value(self.model), embedding))
        if self.item_attention is None:
            return chances
        of_items = (table @ self.item_attention).toarray()
        total = of_items.sum(axis=1, keepdims=True)
        share = np.where(total > 0, self.share, 0).astype(chances.dtype)  # none where known items attend to nothing
        chances *= 1 - share
        chances += of_items * (share / np.where(total > 0, total, 1))
        return chances

    def best(
        self, table: sp.csr_array, embedding: Vectors, n_items: int, exclude_known: bool, n_jobs: int | None
    ) -> tuple[Integers, Float64]:
        """Return the numbers and chances of the best items for users."""
        blocks = parallel.row_blocks([table.shape[0]], table.shape[1])
        items, values = (np.zeros((table.shape[0], n_items), dtype) for dtype in (np.intp, np.float64))

        def one(number: int) -> None:
            rows = blocks[number]
            chances = self.chances(table[rows], embedding[rows])
            if exclude_known:
                chances[table[rows].nonzero()] = -1
            items[rows], values[rows] = _explain.best_columns(chances, n_items)

        with parallel.block_runner(n_jobs) as run:
            for _ in run(one, range(len(blocks))):
                pass
        items[values < 0] = -1
        return items, values.clip(0)

    def gains(self, table: sp.csr_array, embedding: Vectors, held_out: sp.csr_array, n_jobs: int | None) -> Float64:
        """Return the NDCG of the best items of each user with respect to those held out."""
        length = min(_LIST, table.shape[1])
        items, _ = self.best(table, embedding, length, True, n_jobs)
        relevant = np.zeros(items.shape, bool)
        for row, wanted in enumerate(np.split(held_out.indices, held_out.indptr[1:-1])):
            relevant[row] = np.isin(items[row], wanted)
        discount = 1 / np.log2(np.arange(2, length + 2))
        ideal = np.cumsum(discount)[np.minimum(np.diff(held_out.indptr), length) - 1]
        return np.asarray(relevant @ discount / ideal)


def hold_out(table: sp.csr_array, seed: int) -> tuple[Integers, sp.csr_array, sp.csr_array]:
    """Hold out a fifth of the items of some users, at least one and not all.

    Returns
    -------
    rows : ndarray of int
        These users.
    kept : csr_array
        The table without what was held out.
    held_out : csr_array of shape (len(rows), n_items)
    """
    generator, counts = np.random.default_rng(seed), np.diff(table.indptr)
    rows = np.flatnonzero(counts > 1)
    rows = np.sort(generator.choice(rows, min(len(rows), _MOST_JUDGES), replace=False))
    is_held_out = np.zeros(table.nnz, bool)
    for row in rows:
        entries = generator.permutation(counts[row])[: max(int(_HELD_OUT * counts[row]), 1)]
        is_held_out[table.indptr[row] + entries] = True
    return rows, only(table, ~is_held_out), only(table, is_held_out)[rows]
