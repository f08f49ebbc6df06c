"""AttentionEmbedding: vectors whose attention reproduces given affinities, in linear time."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike
from scipy.sparse.linalg import LinearOperator
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from . import _explain, _links, _memory, _training
from ._core import parallel
from ._core.loss_bounds import Bounds, loss_bounds
from ._core.normalizers import NORMALIZERS
from ._core.solver import Solution
from ._extras import import_extra
from ._fitted import (
    EMBEDDABLE,
    Samples,
    check_operator,
    embed,
    fitted_value,
    new_samples,
    normalized,
    training_samples,
)
from ._sklearn import (
    BaseEstimator,
    CallbackSupportMixin,
    FitTask,
    Interval,
    StrOptions,
    _fit_context,
    _num_samples,
    _safe_indexing,
    check_array,
    validate_data,
    warn,
    whole_or_as_before,
    with_callbacks,
)
from ._sparse import canonical
from ._typing import Affinity, Float64, Integers, MatrixLike, RandomState, Relations, Vectors, Weighting
from .affinity._sources import SOURCES, Settings, Source, source_of

if TYPE_CHECKING:
    from pandas import DataFrame


class AttentionEmbedding(
    CallbackSupportMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    BaseEstimator,
):
    """Embed samples as unit vectors whose attention reproduces given affinities, in linear time.

    The unit vectors `x_i` minimize the cross entropy between the affinities `P_ij` and the attention
    ``softmax_j(x_i . x_j / temperature)`` [1]_. The normalizer of the attention, which takes quadratic time when it is
    computed exactly, is estimated in linear time by a mixture of Gaussians.

    Read more in the :ref:`User Guide <embedding>`.

    Parameters
    ----------
    n_components : int, default=64
        Dimension of the embedding.

    affinity : str or callable, default="nearest_neighbors"
        Source of the affinities.

        - "nearest_neighbors": the rows of `X` are points. Affinities fall off with the distance to the nearest
          neighbors, as `weighting` says.
        - "precomputed": `X` is a square matrix of non-negative affinities, such as an adjacency matrix, directed or
          not. It is dense, sparse or a :class:`scipy.sparse.linalg.LinearOperator`. An edge of twice the weight has
          twice the share of its row. `transform` takes the affinities of new samples to the fitted ones.
        - "precomputed_nearest_neighbors": `X` is a sparse graph of distances, as returned by
          :class:`sklearn.neighbors.KNeighborsTransformer`.
        - "bipartite": `X` is a table of non-negative counts of samples by features, such as users by items or documents
          by words. Samples and features are embedded together.
        - a callable ``(X, Y) -> affinities`` that returns a dense or sparse matrix of shape (n_X, n_Y).

        Rows are divided by their sums, whatever the source. For the two nearest-neighbor sources, `fit` then averages
        the affinities with their transpose, so that a point also attends to points that have it as a neighbor. The
        functions of :mod:`sklearn_attnembed.affinity` make affinities of texts, contacts in time, tables of edges, and
        of several relations at once: links beside features, types of edges, signed edges.

    n_neighbors : int, default=15
        Number of neighbors, including the point itself, for the two nearest-neighbor sources. It is clipped, with a
        warning, to ``n_samples - 1``.

    weighting : {"perplexity", "self_tuning", "biweight", "uniform"}, default="perplexity"
        Dependence of affinities on distance for the two nearest-neighbor sources: a Gaussian whose bandwidth is chosen
        for each row such that its perplexity is a third of `n_neighbors`; a Gaussian with self-tuning scales; a
        biweight function; or equal weights. See :func:`~sklearn_attnembed.affinity.neighbor_affinity`.

    metric : str or callable, default="euclidean"
        Metric for ``affinity="nearest_neighbors"``, as for :class:`sklearn.neighbors.NearestNeighbors`.

    walk_length : int or "auto", default=1
        Number of powers of the affinities that are averaged. The average contains random walks of up to this many
        steps, and so relates samples that are not direct neighbors. The powers are never formed. On a bipartite graph
        one step leads to the other side and back. "auto" is 3 for a graph of affinities (``affinity="precomputed"``),
        1 if `n_negative` "auto" finds that related samples are of different kinds, and 1 for all other values of
        `affinity`.

    kernel : {"softmax", "expressive"}, default="softmax"
        Attention as a function of the score ``s = x . y / temperature``: ``exp(s)`` or, for "expressive",
        ``s^2 / (1 + s^2)`` plus a background of 0.01 [2]_. "expressive" suits relations that grow with the size of a
        correlation, whatever its sign: vectors of related samples become parallel *or antiparallel*, those of unrelated
        samples orthogonal. Because a vector and its negative are equivalent, put
        ``ExpressiveKernel(method="exact")`` between the embedding and a classifier. Start from a temperature near 1.

        The expressive kernel has many local optima. Four fifths of `max_iter` are always run to search for a good one,
        and a larger `max_iter` finds better ones if there are few relations. `embedding_` and `key_embedding_` agree up
        to signs at temperatures near 1 and in few dimensions, but not at low temperatures, where a single row has many
        optima. This kernel needs explicit affinities and the default `walk_length`, `null_model`, `normalizer`,
        `objective` and `solver`.

    temperature : float, default=0.2
        Temperature of the attention, from 1e-9 to 1e9. Scores are divided by it before the kernel is applied. Lower
        values resolve finer structure and need ``normalizer="neighbors"`` for an accurate normalizer; at 1 the Gaussian
        is as good as exact. The default is the best value for classifying the nodes of graphs.

    n_clusters : int, default=1
        Number of Gaussians in the mixture that represents the keys. The clusters are found by k-means on the vectors
        and renewed as these move. It is clipped, with a warning, to the number of keys.

    null_model : {"uniform", "degree"}, float or array-like of shape (n_samples,), default="uniform"
        Weights of the mean vector that all vectors are repelled from (the mean of their own side, if bipartite): equal
        weights; degrees, which are column sums of the affinities; degrees raised to a non-negative power, if a number
        is given; or an array of weights, for square affinities only.

    key_weight : {"uniform", "degree"} or float, default="uniform"
        Weights of the keys in the normalizer: equal weights, degrees, or degrees raised to a non-negative power.
        Degrees help if keys occur as often as they are linked, as words do. They seldom help on graphs.

    normalizer : {"gaussian", "neighbors", "sampling", "exact"}, default="gaussian"
        Method that computes the log normalizer, log Z.

        - "gaussian": the mixture of Gaussians. It is also the best regularizer for classification.
        - "neighbors": the sum over the `n_exact` nearest keys of each row, plus an estimate for all other keys from
          their moments and from a sample of them. It reaches the loss of "exact" within half a percent, in linear time.
          Use it for likelihoods, `score` and retrieval at temperatures below 1.
        - "sampling": the sum over 2,048 keys drawn anew in each iteration, keys of large weight more often, in linear
          time. It is made for tables of users by items, where few items are popular: see
          :class:`AttentionRecommender`. `transform` uses a sample that is drawn once.
        - "exact": the sum over all keys, in quadratic time.

    n_exact : int, default=64
        Number of nearest keys for ``normalizer="neighbors"``. They are found by an inverted index, which is renewed
        every few iterations.

    objective : {"queries", "joint"}, default="queries"
        Role in which vectors are moved. For "queries" each vector moves as a query and takes the keys as given, until
        each is optimal given the others. For "joint" all vectors move in both of their roles, as queries and as keys,
        until the loss is stationary. "joint" reaches lower losses: with ``normalizer="exact"`` the optimum that L-BFGS
        finds, and with "neighbors" nearly the same. It takes twice as many sparse products and holds the transposed
        affinities. Classifiers are as good with either.

    n_negative : int or "auto", default="auto"
        Number of components whose products count negatively in the scores, the last ones of each vector: samples that
        are related are apart in these. Needed where samples are related to others of another kind, as words to the
        words that follow them, which vectors with positive products alone cannot express [3]_. "auto" is half of the
        components for a graph of affinities (``affinity="precomputed"``) if more than a tenth, in squares, of its
        eigenvalues beyond noise are negative. It is 0 for social, citation, protein and road networks, for graphs of
        less than 320 nodes, for a LinearOperator, and for all other values of `affinity`. Scores are ``embedding_ @
        key_embedding_.T / temperature`` in any case.

    solver : {"accelerated", "gradient"}, default="accelerated"
        Optimization algorithm. "accelerated" is a damped fixed-point iteration with momentum that stops when it has
        converged. "gradient" takes `max_iter` normalized gradient steps of linearly decaying length, as in [1]_.

    max_iter : int, default=100
        Maximum number of iterations. ``solver="gradient"`` runs all of them.

    n_init : int, default=3
        Number of random initializations for ``kernel="expressive"``, of which the one with the lowest loss is kept.
        Many optima have nearly the same loss, and which of them is found can depend on the processor: raise `n_init` if
        results have to agree between machines. ``kernel="softmax"`` finds its optimum from one initialization.

    tol : float, default=1e-2
        Tolerance of the stopping rule. The solver stops if the root mean square displacement of the unit vectors in an
        iteration is below `tol`, or if it is below ``0.2 * sqrt(tol)`` and in each of two consecutive iterations the
        loss changed by less than `tol` times its total decrease. With 0 all iterations are run. Smaller values hardly
        improve classifiers. They improve clusterings with more clusters than dimensions.

    check_loss : bool, default=True
        Whether to compare the loss that is minimized, which rests on an estimate of the normalizer, with the exact loss
        of a sample of rows, in at most a tenth of the time of `fit`. The solver stops if the exact loss clearly rises,
        and warns if more than half of the gain over uniform attention is due to errors of the estimate.

    warm_start : bool, default=False
        Whether `fit` starts from the vectors of the previous fit. Rows may have been appended in the meantime.

    random_state : int, RandomState instance or None, default=None
        Seed of the initial vectors and of k-means. The same seed gives the same bits on the same machine, whatever
        `n_jobs` is.

    n_jobs : int or None, default=None
        Number of threads. None means 1 unless in a :obj:`joblib.parallel_config` context, -1 means all cores.

    verbose : int, default=0
        Verbosity. If positive, each iteration prints its number, its loss, its displacement and an estimate of the time
        left. With scikit-learn 1.9 or newer, `set_callbacks` adds scikit-learn's callbacks
        (:class:`sklearn.callback.ProgressBar`, :class:`sklearn.callback.ScoringMonitor`) or your own, which can also
        stop the fit.

    Attributes
    ----------
    embedding_ : ndarray of shape (n_samples, n_components)
        Vectors of the training samples. They equal the result of `transform` for the training data.

    key_embedding_ : ndarray of shape (n_keys, n_components)
        Vectors of the keys, which are the features if bipartite and the training samples otherwise. Each row of
        `embedding_` is optimal given these. For symmetric affinities `embedding_` and `key_embedding_` agree up to the
        tolerance, but for the signs of the `n_negative_` last components; the more directed the affinities are, the
        more they differ.

    n_negative_ : int
        Number of components that count negatively in the scores.

    key_weight_ : ndarray of shape (n_keys,)
        Weights of the keys: attention is proportional to ``key_weight_ * exp(x . y / temperature)``. Zero for keys
        without any affinity.

    n_iter_ : int
        Number of iterations run.

    loss_curve_ : list of float
        Surrogate loss per row, in nats, at the start of each iteration: the mean over rows of
        ``-sum_j P_ij s_ij + log Z_i + x_i . ybar / temperature``. Whatever `normalizer` is, up to ten initial
        iterations use a single Gaussian, and so do their losses.

    exact_loss_, exact_loss_std_ : float
        Exact counterpart of the last value of `loss_curve_`, estimated from a sample of rows, and its standard error.
        Not available with ``check_loss=False``, or if `X` was a LinearOperator.

    converged_ : bool
        Whether a stopping rule was met (for ``solver="gradient"``, whether all steps were taken) at a loss that can be
        true. A loss is impossible if it is below the entropy of the affinities, which no cross entropy can be. It is
        also not trusted if more than half of its gain over uniform attention is missing in `exact_loss_`.

    isolated_ : ndarray of bool of shape (n_samples,)
        Mask of the samples without any affinity. Their vectors are zero, and they are left out of everything.

    affinity_matrix_ : sparse array or ndarray of shape (n_samples, n_keys)
        Affinities of the training samples to the keys, divided by their row sums. Not available if `X` was a
        LinearOperator.

    n_features_in_ : int
        Number of features seen during `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of features seen during `fit`. Defined only if all feature names of `X` are strings.

    See Also
    --------
    NormalizerEstimator : Estimates log Z for any queries and keys.
    sklearn.manifold.SpectralEmbedding : Eigenvectors of the same affinities, without `transform`.

    Notes
    -----
    Time is linear in the number of nonzero affinities and of rows. Memory holds the affinities and four times the
    embedding (five times with walks, seven times with the expressive kernel), see :meth:`estimate_memory`. With the
    softmax kernel the iterate of the lowest loss is returned.

    A new row is embedded given the keys alone. It does not depend on other rows of its batch or on their order. If the
    attraction by its relations is weaker than the repulsion by all keys, the repulsion is clipped to the size of the
    attraction. With the normalizers "neighbors" and "exact" a row seen in `fit` is recognized by its affinities, and
    gets the vector of its own key.

    References
    ----------
    .. [1] L. Dall'Amico, E. M. Belliardo, "Learning distributed representations with efficient SoftMax
       normalization", TMLR 2025, arXiv:2303.17475, sections 2 and 3.
    .. [2] C. Gros, "Reorganizing attention-space geometry with expressive attention", arXiv:2407.18601.
    .. [3] P. Rubin-Delanchy, J. Cape, M. Tang, C. E. Priebe, "A statistical interpretation of spectral embedding: the
       generalised random dot product graph", JRSS B 84, 2022, section 2.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn_attnembed import AttentionEmbedding
    >>> X, y = load_digits(return_X_y=True)
    >>> model = make_pipeline(AttentionEmbedding(random_state=0), LogisticRegression(C=10))
    >>> score = model.fit(X[:1500], y[:1500]).score(X[1500:], y[1500:])
    >>> round(score, 2)
    0.95
    """

    _parameter_constraints = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "affinity": [StrOptions(set(SOURCES)), callable],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "weighting": [StrOptions({"perplexity", "self_tuning", "biweight", "uniform"})],
        "metric": [str, callable],
        "walk_length": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "kernel": [StrOptions(set(EMBEDDABLE))],
        "temperature": [Interval(Real, 1e-9, 1e9, closed="both")],
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "null_model": [StrOptions({"uniform", "degree"}), Interval(Real, 0, None, closed="left"), "array-like"],
        "key_weight": [StrOptions({"uniform", "degree"}), Interval(Real, 0, None, closed="left")],
        "normalizer": [StrOptions({name for name, method in NORMALIZERS.items() if method.field is not None})],
        "n_exact": [Interval(Integral, 1, None, closed="left")],
        "objective": [StrOptions({"queries", "joint"})],
        "n_negative": [StrOptions({"auto"}), Interval(Integral, 0, None, closed="left")],
        "solver": [StrOptions({"accelerated", "gradient"})],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "check_loss": ["boolean"],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        n_components: int = 64,
        *,
        affinity: Affinity = "nearest_neighbors",
        n_neighbors: int = 15,
        weighting: Weighting = "perplexity",
        metric: str | Callable[..., float] = "euclidean",
        walk_length: int | Literal["auto"] = 1,
        kernel: Literal["softmax", "expressive"] = "softmax",
        temperature: float = 0.2,
        n_clusters: int = 1,
        null_model: Literal["uniform", "degree"] | float | ArrayLike = "uniform",
        key_weight: Literal["uniform", "degree"] | float = "uniform",
        normalizer: Literal["gaussian", "neighbors", "sampling", "exact"] = "gaussian",
        n_exact: int = 64,
        objective: Literal["queries", "joint"] = "queries",
        n_negative: int | Literal["auto"] = "auto",
        solver: Literal["accelerated", "gradient"] = "accelerated",
        max_iter: int = 100,
        n_init: int = 3,
        tol: float = 1e-2,
        check_loss: bool = True,
        warm_start: bool = False,
        random_state: RandomState = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.n_components = n_components
        self.affinity = affinity
        self.n_neighbors = n_neighbors
        self.weighting = weighting
        self.metric = metric
        self.walk_length = walk_length
        self.kernel = kernel
        self.temperature = temperature
        self.n_clusters = n_clusters
        self.null_model = null_model
        self.key_weight = key_weight
        self.normalizer = normalizer
        self.n_exact = n_exact
        self.objective = objective
        self.n_negative = n_negative
        self.solver = solver
        self.max_iter = max_iter
        self.n_init = n_init
        self.tol = tol
        self.check_loss = check_loss
        self.warm_start = warm_start
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    # Fit and transform -------------------------------------------------------------------------------
    @whole_or_as_before("_fitted")
    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Relations, y: None = None) -> Self:
        """Learn the embedding.

        Parameters
        ----------
        X : array-like, sparse matrix or LinearOperator
            Training data of shape (n_samples, n_features), or (n_samples, n_samples) for precomputed affinities, as
            `affinity` says.
        y : Ignored
            Not used, present for API consistency by convention.

        Returns
        -------
        self : AttentionEmbedding
            Fitted estimator.

        Raises
        ------
        ValueError
            If `X` holds NaN, infinity or negative affinities, has the wrong shape, or has no affinity at all.

        Warns
        -----
        ConvergenceWarning
            If `max_iter` was reached before the stopping rule was met, or if the loss is an impossible one, because the
            estimate of log Z is far from the truth.
        UserWarning
            If rows have no affinity, or `n_neighbors` or `n_clusters` was clipped.
        """
        task = FitTask(self, X, y, self.max_iter)
        solution, bounds = self._fit(X, task)
        task.end()
        _warn_isolated(self.isolated_)
        self._warn_of_loss(solution, bounds)
        return self

    @whole_or_as_before("_fitted")
    def _approach(self, X: Relations) -> Self:
        """Fit on the way to other parameters: nothing is checked or embedded, and nothing has to converge."""
        self._fit(X, FitTask(self, X, None, self.max_iter), embeds=False)
        return self

    def _warn_of_loss(self, solution: Solution, bounds: Bounds | None) -> None:
        """Warn if the loss is not true or has not converged."""
        at = f"At temperature={self.temperature:g}, normalizer={self.normalizer!r} is too inaccurate."
        loss, exact = self.loss_curve_[-1], solution.exact
        if bounds is not None and bounds.excludes(self.loss_curve_[-1]):
            warn(
                f"AttentionEmbedding ended at a loss of {loss:.4g}, which is impossible: a true loss lies between "
                f"{bounds.lowest:.4g}, the entropy of the affinities, and {bounds.highest:.4g}. {at} Raise the "
                "temperature, or use normalizer='neighbors'.",
                ConvergenceWarning,
            )
        elif exact is not None and _training.is_overstated(solution):
            stopped = f" It stopped after {self.n_iter_} iterations, because the exact loss rose."
            stopped *= solution.stopped_early
            warn(
                f"AttentionEmbedding ended at a loss of {loss:.4g}, but the exact loss of a sample of {exact.n_rows} "
                f"rows is {exact.mean:.4g} +- {exact.error:.2g}. {at}{stopped} Raise the temperature, "
                "use normalizer='neighbors', or lower max_iter; check_loss=False turns this check off.",
                ConvergenceWarning,
            )
        elif not self.converged_ and self.tol > 0 and self.n_iter_ == self.max_iter:  # not stopped by a callback
            warn(
                f"AttentionEmbedding did not converge in max_iter={self.max_iter} iterations: the last displacement "
                f"was {solution.displacement:.2e}, tol={self.tol:g}. Raise max_iter, tol or the temperature.",
                ConvergenceWarning,
            )

    def _fit(self, X: Any, task: FitTask, embeds: bool = True) -> tuple[Solution, Bounds | None]:
        """Solve and set all fitted attributes; return the solution and the bounds of a possible loss.

        Without `embeds`, samples keep the vectors of the solver, which are near their optima.
        """
        _training.check_kernel(self)
        kind, settings = source_of(self.affinity), Settings(*(getattr(self, name) for name in Settings._fields))
        validated, dtype = self._validated(kind, X)
        source, A = kind.fit(validated, settings, X)
        P, isolated = normalized(A, dtype, self.kernel)
        if isolated.all():
            raise ValueError(
                f"X has no affinity at all: each of its {len(isolated)} rows sums to 0, but at least one has to be "
                "positive. Pass weights of existing relations."
            )
        seeds = check_random_state(self.random_state).randint(np.iinfo(np.int32).max, size=2)
        training = _training.build_training(self, source, A, P, isolated, dtype)
        before = getattr(self, "_fitted", None)
        Y, is_warm = _training.first_vectors(self, before, training, dtype, int(seeds[0]))
        strategy = _training.build_strategy(self, training.problem, int(seeds[1]))
        with parallel.block_runner(self.n_jobs) as run:
            training = _training.with_signature(self, training, A, dtype, int(seeds[1]), run)
            solution = _training.solve(self, training, Y, is_warm, strategy, run, task)
            learned = _training.learned_attributes(self, training, solution, strategy, run)
            # Nothing can be said of a loss that has not converged.
            bounds = loss_bounds(training.problem, solution.keys, solution.vectors) if learned["converged_"] else None
        learned["converged_"] &= bounds is None or not bounds.excludes(learned["loss_curve_"][-1])
        learned["_fitted"] = _links.with_degrees(learned["_fitted"], A)
        learned["converged_"] &= not _training.is_overstated(solution)
        learned["isolated_"] = isolated
        latest = learned["_fitted"].vectors[: len(isolated)]
        learned["embedding_"] = embed(learned["_fitted"], P, isolated, self.n_jobs) if embeds else latest
        if not isinstance(P, LinearOperator):
            learned["affinity_matrix_"] = P
        self.__dict__.update(learned)
        return solution, bounds

    def _validated(self, kind: type[Source], X: Any) -> tuple[Any, Any]:
        """Return the training data as a canonical matrix, and the dtype of the embedding."""
        kind.check_input(X)
        check_operator(X, self.kernel)
        if kind.takes_operators and isinstance(X, LinearOperator):
            self.n_features_in_ = X.shape[1]
            return X, np.float32 if X.dtype == np.float32 else np.float64
        X = validate_data(self, canonical(X), accept_sparse="csr", dtype=[np.float64, np.float32], ensure_min_samples=2)
        return X, X.dtype

    def fit_transform(self, X: Relations, y: None = None) -> Vectors:
        """Learn the embedding and return it.

        The result equals that of ``fit(X).transform(X)``.

        Parameters
        ----------
        X : array-like, sparse matrix or LinearOperator
            Training data, as for `fit`.
        y : Ignored
            Not used, present for API consistency by convention.

        Returns
        -------
        embedding : ndarray of shape (n_samples, n_components)
            Unit vectors; zero for samples without any affinity.
        """
        return self.fit(X, y).embedding_

    def transform(self, X: Relations) -> Vectors:
        """Embed samples, each of them given the fitted keys alone.

        Parameters
        ----------
        X : array-like, sparse matrix or LinearOperator
            Features, counts, or affinities or distances to the fitted samples, in the same form as for `fit`.

        Returns
        -------
        embedding : ndarray of shape (n_samples, n_components)
            Unit vectors; zero for samples without any affinity.

        Raises
        ------
        ValueError
            If `X` is not what `affinity` asks for.
        """
        samples = new_samples(self, X)
        _warn_isolated(samples.isolated)
        return samples.embedding

    def transform_keys(self, X: MatrixLike) -> Vectors:
        """Embed new columns of a table, each of them given the fitted rows alone (``affinity="bipartite"``).

        This is to columns what `transform` is to rows. It embeds new items of known users, or new words of known
        documents.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_new_columns)
            Non-negative counts of the fitted samples, in their order, in the new columns.

        Returns
        -------
        key_embedding : ndarray of shape (n_new_columns, n_components)
            Unit vectors, to be compared with `embedding_`; zero for empty columns.

        Raises
        ------
        ValueError
            If the number of rows is not that of `fit`, or if the model is not bipartite.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn_attnembed import AttentionEmbedding
        >>> counts = np.kron(np.eye(2), np.ones((10, 8)))
        >>> model = AttentionEmbedding(2, affinity="bipartite", random_state=0).fit(counts)
        >>> item = model.transform_keys(np.arange(20)[:, None] < 10)
        >>> scores = model.embedding_ @ item[0]
        >>> bool(scores[:10].min() > scores[10:].max())
        True
        """
        fitted = fitted_value(self)
        if not fitted.source.embeds_columns:
            raise ValueError(
                f"transform_keys embeds new columns of a table, which only affinity='bipartite' has, but affinity="
                f"{fitted.source.affinity!r}. For new samples use transform."
            )
        X = check_array(canonical(X), accept_sparse="csr", dtype=[np.float64, np.float32], input_name="X")
        n_rows = fitted.sizes[0]
        if X.shape[0] != n_rows:
            transposed = " It is probably transposed: pass X.T." if X.shape[1] == n_rows else ""
            raise ValueError(
                f"X has {X.shape[0]} rows, but transform_keys is expecting {n_rows}: one for each sample seen "
                f"in fit, in the same order. Leave none of them out.{transposed}"
            )
        P, isolated = normalized(fitted.source.query(X).T, fitted.keys.dtype, fitted.kernel)
        _warn_isolated(isolated, "columns")
        return embed(fitted, P, isolated, self.n_jobs, columns=True)

    def recommend(self, X: MatrixLike, n_items: int = 10, *, exclude_known: bool = True) -> tuple[Integers, Float64]:
        """Rank the columns that rows attend to most, such as items for users (``affinity="bipartite"``).

        Columns are ranked by attention, that is by ``log key_weight_ + x . y / temperature`` for the softmax kernel.
        With ``key_weight="degree"`` this takes the popularity of items into account, which recommendations need. For a
        user without history, popularity is all there is to rank by. :class:`AttentionRecommender` recommends better,
        with nothing to be set.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Counts of the users, which need not be those of `fit`.
        n_items : int, default=10
            Number of items for each user.
        exclude_known : bool, default=True
            Whether to leave out the items that a user has a count for.

        Returns
        -------
        items : ndarray of int of shape (n_samples, n_items)
            Numbers of columns, the best first; -1 where there are no more.
        scores : ndarray of shape (n_samples, n_items)
            Logarithms of attention, up to a constant for each row; -inf where there are no more.

        Raises
        ------
        ValueError
            If the model is not bipartite, or `n_items` is not from 1 to the number of columns.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn_attnembed import AttentionEmbedding
        >>> plays = np.kron(np.eye(2), np.ones((10, 8)))
        >>> model = AttentionEmbedding(2, affinity="bipartite", key_weight="degree", random_state=0).fit(plays)
        >>> items, scores = model.recommend(np.eye(16)[:1], n_items=7)
        >>> sorted(items[0].tolist())
        [1, 2, 3, 4, 5, 6, 7]
        """
        fitted = fitted_value(self)
        if not fitted.source.embeds_columns:
            raise ValueError(
                f"recommend ranks the columns of a table, which only affinity='bipartite' has, but affinity="
                f"{fitted.source.affinity!r}."
            )
        _explain.check_n_items(n_items, self.n_features_in_)
        queries, P, _ = new_samples(self, X)
        items, scores = np.empty((len(queries), n_items), np.intp), np.empty((len(queries), n_items))
        for rows in parallel.row_blocks([len(queries)], self.n_features_in_):
            rated = _explain.log_ratings(fitted, queries[rows])
            if exclude_known:
                rated[P[rows].nonzero()] = -np.inf
            items[rows], scores[rows] = _explain.best_columns(rated, n_items)
        items[np.isneginf(scores)] = -1
        return items, scores

    # Links -------------------------------------------------------------------------------------------
    def score_links(self, pairs: ArrayLike) -> Float64:
        """Score pairs of training samples by how likely they are to be linked.

        The score is ``x_i . y_j / temperature + log d_i + log e_j``, with the row sum `d_i` and the column sum `e_j` of
        the training affinities: the logarithm, up to a constant, of the affinities that are expected if each row
        distributes its own over all keys in proportion to attention and to their degrees. If the affinities are
        symmetric, so is the score: it is the mean of both directions. Otherwise pairs are directed, from a row to a
        key, which is a column if ``affinity="bipartite"``.

        Parameters
        ----------
        pairs : array-like of int of shape (n_pairs, 2)
            Numbers of a row and of a key, or column, for each pair.

        Returns
        -------
        scores : ndarray of shape (n_pairs,)
            Scores in float64, higher for more likely links; -inf if the row, or the column, has no affinity at all.

        Raises
        ------
        ValueError
            If `pairs` are not such numbers, if the kernel is not softmax, or if affinities were given as a
            LinearOperator.

        See Also
        --------
        AttentionEmbedding.predict_links : The pairs of largest score.

        Notes
        -----
        Scalar products alone predict links badly where degrees differ much: vectors need not repeat what degrees say.

        Examples
        --------
        >>> from sklearn_attnembed import AttentionEmbedding
        >>> from sklearn_attnembed.datasets import make_block_model
        >>> adjacency, communities = make_block_model(200, 4, mean_degree=20, random_state=0)
        >>> model = AttentionEmbedding(16, affinity="precomputed", random_state=0).fit(adjacency)
        >>> same = (communities == communities[0]).nonzero()[0][1]
        >>> other = (communities != communities[0]).nonzero()[0][0]
        >>> model.score_links([[0, same], [0, other], [other, 0]]).round()
        array([9., 5., 5.])
        """
        links = self._link_terms()
        return _links.pair_scores(links, _links.as_pairs(pairs, links))

    def predict_links(self, n_links: int = 10, *, n_candidates: int = 64) -> tuple[Integers, Float64]:
        """Find the most likely links among the pairs that have no affinity yet.

        Parameters
        ----------
        n_links : int, default=10
            Number of links.
        n_candidates : int, default=64
            Number of keys of largest score that are considered for each row. It should exceed the number of links that
            most rows have. Time and memory are proportional to it, and to the number of rows.

        Returns
        -------
        pairs : ndarray of int of shape (n_found, 2)
            Numbers of a row and of a key, or column, for each link, the most likely first. If affinities are symmetric,
            each pair is listed once, the smaller number first. There are fewer than `n_links` if no more candidates
            are left.
        scores : ndarray of shape (n_found,)
            Their scores, as by `score_links`.

        Raises
        ------
        ValueError
            If a number is not an integer >= 1, if the kernel is not softmax, or if affinities were given as a
            LinearOperator.

        See Also
        --------
        AttentionEmbedding.score_links : Scores of given pairs.
        AttentionEmbedding.recommend : The best columns for each row of a table.

        Notes
        -----
        All pairs are never compared. Candidates are the 256 rows, and keys, of largest degree with all others, and for
        each row the nearest keys in the cells of an inverted index around it, of vectors that have the logarithm of the
        degree as one more coordinate. Pairs of a node with itself are left out.

        Examples
        --------
        >>> from sklearn_attnembed import AttentionEmbedding
        >>> from sklearn_attnembed.datasets import make_block_model
        >>> adjacency, communities = make_block_model(200, 4, mean_degree=20, random_state=0)
        >>> model = AttentionEmbedding(16, affinity="precomputed", random_state=0).fit(adjacency)
        >>> pairs, scores = model.predict_links(4)
        >>> communities[pairs].tolist()
        [[3, 3], [0, 0], [2, 2], [3, 3]]
        >>> adjacency[pairs[:, 0], pairs[:, 1]].tolist()
        [0.0, 0.0, 0.0, 0.0]
        """
        for name, number in {"n_links": n_links, "n_candidates": n_candidates}.items():
            if not isinstance(number, Integral) or isinstance(number, bool) or number < 1:
                raise ValueError(f"{name} must be an integer >= 1; got {number!r}. Pass how many are wanted.")
        links = self._link_terms()
        with parallel.block_runner(self.n_jobs) as run:
            return _links.best_links(links, int(n_links), int(n_candidates), run)

    def _link_terms(self) -> _links.Links:
        """Return what the scores of links depend on."""
        return _links.links_of(fitted_value(self), training_samples(self))

    def estimate_memory(
        self, n_samples: int, n_features: int = 0, dtype: DTypeLike = np.float64, *, n_affinities: int = 0
    ) -> int:
        """Estimate the peak memory of `fit` beyond its input, in bytes, without fitting.

        Parameters
        ----------
        n_samples : int
            Number of rows.
        n_features : int, default=0
            Number of columns, if they are embedded too (``affinity="bipartite"``).
        dtype : dtype, default=float64
            Type of the data.
        n_affinities : int, default=0
            Number of nonzero affinities of a sparse matrix, whose copies are counted too. With 0 the result is the
            memory in addition to that of the affinities.

        Returns
        -------
        n_bytes : int
            Peak memory in bytes, within 20 % for sparse affinities with indices of 32 bits. The memory for computing
            affinities, by a search for nearest neighbors or by a callable, is not counted.

        Raises
        ------
        ValueError
            If a number is not an integer >= 0, or `dtype` is not a NumPy dtype.

        Examples
        --------
        >>> from sklearn_attnembed import AttentionEmbedding
        >>> model = AttentionEmbedding(128, n_jobs=1)
        >>> f"{model.estimate_memory(1_000_000, dtype='float32') / 1e9:.2f} GB"
        '2.08 GB'
        """
        numbers = {"n_samples": n_samples, "n_features": n_features, "n_affinities": n_affinities}
        for name, number in numbers.items():
            if not isinstance(number, Integral) or number < 0:
                raise ValueError(f"{name} must be an integer >= 0; got {number!r}. Pass what the data will have.")
        try:
            itemsize = np.dtype(dtype).itemsize
        except TypeError as error:
            raise ValueError(
                f"dtype must be one of NumPy's types, or the name of one; got {dtype!r}. Pass 'float32' or 'float64'."
            ) from error
        kind = source_of(self.affinity)
        return _memory.peak(
            _memory.Size(
                sides=[int(n_samples), int(n_features)] if kind.embeds_columns else [int(n_samples)],
                d=int(self.n_components),
                itemsize=itemsize,
                n_affinities=int(n_affinities),
                kernel=self.kernel,
                normalizer=NORMALIZERS[self.normalizer],
                n_init=self.n_init,
                n_clusters=self.n_clusters,
                n_exact=self.n_exact,
                walk_length=_training.longest_walk(self),
                n_threads=parallel.n_threads(self.n_jobs),
                is_symmetrized=kind.is_symmetrized,
                is_joint=self.objective == "joint",
                checks_loss=self.check_loss,
                finds_kinds=_training.finds_kinds(self),
            )
        )

    # Attention and likelihood ------------------------------------------------------------------------
    def attention_scores(self, X: Relations | None = None, *, rows: Any = None) -> Float64:
        """Compute the exact attention of samples over all keys.

        The result is dense. For large data ask for the rows of interest only.

        Parameters
        ----------
        X : array-like, sparse matrix or LinearOperator, default=None
            Samples, as for `transform`. If None, the training samples are used.
        rows : array-like of int or slice, default=None
            Rows of interest among these samples. If None, all rows are used.

        Returns
        -------
        attention : ndarray of shape (n_rows, n_keys)
            ``key_weight_ * f(x . y / temperature)`` divided by its sum over the keys, so that rows sum to one.

        See Also
        --------
        AttentionEmbedding.explain : The attention of a single row, beside its target.
        sklearn_attnembed.metrics.attention_scores : The attention of any vectors.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from sklearn_attnembed import AttentionEmbedding
        >>> X, y = load_iris(return_X_y=True)
        >>> model = AttentionEmbedding(8, random_state=0).fit(X)
        >>> attention = model.attention_scores(rows=[0, 1])
        >>> attention.shape
        (2, 150)
        >>> (attention[:, y == 0].sum(axis=1) > 0.75).tolist()  # share of the rows' own class
        [True, True]
        """
        fitted = fitted_value(self)
        queries = self.embedding_ if X is None else new_samples(self, X).embedding
        return _explain.attention(fitted, queries[_explain.row_numbers(len(queries), rows)])

    def score(self, X: Relations, y: None = None) -> float:
        """Compute the mean log likelihood of affinities under the attention of their embedding.

        The score is ``mean_i sum_j P_ij log a_ij`` with exactly normalized attention `a`, in nats. Higher is better. It
        needs no labels, and is comparable between temperatures, normalizers and walk lengths (walks are not part of
        what is scored). Rows without any affinity are left out, and so are affinities to samples that have none
        themselves, because these receive no attention. At most 2^31 pairs of a query and a key are evaluated; if there
        are more, rows are taken at even steps.

        The score of a row is computed from the same affinities that embed it, and so increases with `n_components`. To
        choose the dimension, leave some affinities of each row out of `fit` and compute their likelihood by
        :func:`~sklearn_attnembed.metrics.attention_cross_entropy`.

        Parameters
        ----------
        X : array-like, sparse matrix or LinearOperator
            Samples, as for `transform`.
        y : Ignored
            Not used, present for API consistency by convention.

        Returns
        -------
        score : float
            Mean log likelihood of a row, in nats.

        Raises
        ------
        ValueError
            If no row of `X` has any affinity.
        """
        return _explain.score(fitted_value(self), new_samples(self, X), self.n_jobs)

    def perplexity(self, X: Relations) -> float:
        """Compute the effective number of keys that the attention is spread over, ``exp(-score(X))``.

        Parameters
        ----------
        X : array-like, sparse matrix or LinearOperator
            Samples, as for `transform`.

        Returns
        -------
        perplexity : float
            Perplexity of the attention with respect to the affinities. Lower is better. Uniform attention has a
            perplexity equal to the number of keys. At very low temperatures it can overflow to infinity.
        """
        with np.errstate(over="ignore"):
            return float(np.exp(-self.score(X)))

    # Explanations ------------------------------------------------------------------------------------
    def explain(self, i: int, X: MatrixLike | None = None) -> DataFrame:
        """Tabulate the attention of a single row over the keys, beside the affinities that it approximates.

        Parameters
        ----------
        i : int
            Number of the row of `X`, or of the training samples.
        X : array-like or sparse matrix, default=None
            Samples, as for `transform`. If None, the training samples are used.

        Returns
        -------
        table : pandas.DataFrame
            Table with one row for each key, in descending order of attention, and the columns

            - key: number of the key, or its name if the keys are named columns of a DataFrame;
            - target: affinity to the key, averaged over walks, which sums to one;
            - attention: attention to the key, which sums to one;
            - share: share of the row's loss, ``-target * log(attention)`` divided by its sum.

        Raises
        ------
        ValueError
            If `i` is not the number of a row, or if affinities were given as a LinearOperator.
        ImportError
            If pandas is not installed.

        See Also
        --------
        AttentionEmbedding.explain_rows : Rows that the attention fits worst.
        sklearn_attnembed.inspection.AttentionScoresDisplay : Plot of the attention.

        Notes
        -----
        Attention is computed exactly, at a cost linear in the number of keys. A row without any affinity has a target
        of zero, and attends to all keys in proportion to their weights.

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
        fitted = fitted_value(self)
        pandas = import_extra("pandas", "pandas", "explain")
        target, attention, log_attention = explained_row(self, i, X)
        table = {
            "key": key_names(self),
            "target": target,
            "attention": attention,
            "share": _explain.loss_shares(fitted, target, log_attention),
        }
        return pandas.DataFrame(table).sort_values("attention", ascending=False, kind="stable", ignore_index=True)

    def explain_rows(self, X: MatrixLike | None = None, *, rows: Any = None) -> DataFrame:
        """Tabulate how well the attention of each row approximates its affinities.

        Parameters
        ----------
        X : array-like or sparse matrix, default=None
            Samples, as for `transform`. If None, the training samples are used.
        rows : array-like of int or slice, default=None
            Rows of interest. If None, all rows are used, or rows at even steps if there are more than 2^31 pairs of a
            query and a key.

        Returns
        -------
        table : pandas.DataFrame
            Table with one row for each sample that has any affinity, in descending order of divergence, and the
            columns

            - row: number of the row;
            - loss: cross entropy of attention and target, which are the affinities averaged over walks, in nats;
            - entropy: entropy of the target, which no loss can be below, in nats;
            - divergence: difference of loss and entropy, in nats.

        Raises
        ------
        ValueError
            If affinities were given as a LinearOperator.
        ImportError
            If pandas is not installed.

        See Also
        --------
        AttentionEmbedding.explain : The explanation of a single row, key by key.
        AttentionEmbedding.score : The negative mean loss, without walks.

        Notes
        -----
        The entropy grows with the number of relations. Rows with few relations therefore tend to have the largest
        divergence, and rows with many relations the largest loss. Among rows with equally many relations, both show
        which are unusual: ``table.sort_values("loss", ascending=False)``.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from sklearn_attnembed import AttentionEmbedding
        >>> model = AttentionEmbedding(8, random_state=0).fit(load_iris().data)
        >>> table = model.explain_rows()
        >>> list(table), len(table)
        (['row', 'loss', 'entropy', 'divergence'], 150)
        """
        fitted = fitted_value(self)
        pandas = import_extra("pandas", "pandas", "explain_rows")
        samples = self._samples(X)
        steps = _explain.walk_steps(fitted, training_samples(self).affinities)
        table = _explain.rows_table(fitted, samples, rows, steps, self.n_jobs)
        return pandas.DataFrame(table).sort_values("divergence", ascending=False, kind="stable", ignore_index=True)

    def explain_clusters(
        self, X: Relations | None = None, *, labels: ArrayLike | None = None, rows: Any = None
    ) -> DataFrame:
        """Tabulate the share of each cluster of keys in the normalizer Z.

        Parameters
        ----------
        X : array-like, sparse matrix or LinearOperator, default=None
            Samples, as for `transform`. If None, the training samples are used.
        labels : array-like of shape (n_keys,), default=None
            Cluster labels of the keys, for instance classes. If None, the `n_clusters` clusters of the model are used.
        rows : array-like of int or slice, default=None
            Rows of interest. If None, all rows are used, or rows at even steps if there are more than 2^31 pairs of a
            query and a key.

        Returns
        -------
        table : pandas.DataFrame
            Table with one row for each cluster, in descending order of share, and the columns

            - cluster: label of the cluster;
            - n_keys: number of its keys that have any affinity;
            - share: share in Z, averaged over rows, which sums to one;
            - log_z: logarithm of the cluster's part of Z, averaged over rows, in nats.

        Raises
        ------
        ValueError
            If `labels` does not have one entry for each key.
        ImportError
            If pandas is not installed.

        See Also
        --------
        NormalizerEstimator.transform : Estimates the same for any queries and keys, in linear time.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from sklearn_attnembed import AttentionEmbedding
        >>> X, y = load_iris(return_X_y=True)
        >>> model = AttentionEmbedding(8, random_state=0).fit(X)
        >>> table = model.explain_clusters(labels=y, rows=y == 0)
        >>> int(table["cluster"][0]), round(float(table["share"][0]), 1)
        (0, 0.9)
        """
        fitted = fitted_value(self)
        pandas = import_extra("pandas", "pandas", "explain_clusters")
        labels = fitted.labels if labels is None else _explain.as_key_labels(labels, fitted.keys)
        samples = self._samples(X)
        numbers = _explain.chosen_rows(fitted, samples, rows)
        table = _explain.clusters_table(fitted, samples.embedding[numbers], labels)
        return pandas.DataFrame(table).sort_values("share", ascending=False, kind="stable", ignore_index=True)

    def _samples(self, X: Any) -> Samples:
        """Return new samples, or the training samples if `X` is None."""
        return training_samples(self) if X is None else new_samples(self, X)

    # scikit-learn ------------------------------------------------------------------------------------
    @property
    def _n_features_out(self) -> int:
        return self.key_embedding_.shape[1]

    def __sklearn_tags__(self) -> Any:
        tags, kind = super().__sklearn_tags__(), source_of(self.affinity)
        tags.input_tags.sparse = True
        tags.input_tags.pairwise = kind.is_pairwise
        tags.input_tags.positive_only = kind.is_nonnegative
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def explained_row(estimator: AttentionEmbedding, i: Any, X: Any) -> tuple[Float64, Float64, Float64]:
    """Return target, attention and log attention of a single row of `X`, or of the training samples if it is None."""
    fitted, samples = fitted_value(estimator), training_samples(estimator)
    _explain.check_row_number(i, len(samples.isolated) if X is None else _num_samples(X))
    if X is None:
        embedding, P = samples.embedding[[i]], _explain.affinity_rows(samples.affinities, [i])
    else:
        _explain.check_has_rows(X)
        embedding, P, _ = new_samples(estimator, _safe_indexing(canonical(X), [i]))
    return _explain.row_terms(fitted, embedding, P, _explain.walk_steps(fitted, samples.affinities))


def key_names(estimator: AttentionEmbedding) -> Any:
    """Return the names of the keys if they are named columns, or their numbers."""
    names = getattr(estimator, "feature_names_in_", None)
    fitted = fitted_value(estimator)
    is_named = names is not None and fitted.source.has_named_keys()
    return names if is_named else np.arange(len(fitted.keys))


def _warn_isolated(isolated: Any, kind: str = "rows") -> None:
    if isolated.any():
        warn(
            f"{np.count_nonzero(isolated)} of {len(isolated)} {kind} have no affinity: their vectors are zero, "
            "see isolated_. Drop them, or give them an affinity to themselves."
        )
