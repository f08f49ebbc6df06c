"""AttentionEmbedding: embeddings by the linear-time surrogate of the softmax loss."""

from collections.abc import Callable
from functools import cache, partial
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, DTypeLike
from scipy.sparse.linalg import LinearOperator
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from . import _memory
from ._affinity_input import NEIGHBORS, PAIRWISE, AffinityInput, Fitted
from ._core import affinity_matrix, expressive, parallel, solver, sphere
from ._core.loss_bounds import Bounds, loss_bounds
from ._core.out_of_sample import Model, out_of_sample_map
from ._core.parallel import Runner, block_runner, n_threads
from ._core.problem import KeyIndex, Problem, Strategy
from ._explain import ExplainMixin
from ._progress import Progress
from ._sklearn import (
    BaseEstimator,
    CallbackSupportMixin,
    FitTask,
    Interval,
    StrOptions,
    _fit_context,
    check_array,
    cluster_centers,
    partition,
    warn,
    whole_or_as_before,
    with_callbacks,
)
from ._sparse import canonical
from ._typing import Affinity, Float64, Integers, MatrixLike, RandomState, Relations, Vectors, Weighting

# The least power of a degree: a weight of zero would have no logarithm.
_TINY = 1e-290


class AttentionEmbedding(
    AffinityInput,
    ExplainMixin,
    CallbackSupportMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    BaseEstimator,
):
    """Embed whatever has affinities, so that attention reproduces them, in linear time.

    Unit vectors `x_i` are found whose attention ``softmax_j(x_i . x_j / temperature)`` is close to given affinities
    `P_ij`, by minimising the cross entropy [1]_. Its normalisation, quadratic when done exactly, comes from a
    mixture of Gaussians in linear time.

    Read more in the :ref:`User Guide <embedding>`.

    Parameters
    ----------
    n_components : int, default=64
        Dimension of the embedding.

    affinity : str or callable, default="nearest_neighbors"
        Where affinities come from.

        - "nearest_neighbors": rows of `X` are points; affinities fall off with the distance to the nearest
          neighbours (see `weighting`).
        - "precomputed": `X` is square and holds non-negative affinities or an adjacency, dense, sparse or a
          :class:`scipy.sparse.linalg.LinearOperator`, directed or not. `transform` takes rows of affinities of
          new samples to the fitted ones.
        - "precomputed_nearest_neighbors": `X` is a sparse graph of distances, as from
          :class:`sklearn.neighbors.KNeighborsTransformer`.
        - "bipartite": `X` holds non-negative counts of samples by features (users by items, documents by words);
          samples and features are embedded together.
        - a callable ``(X, Y) -> affinities`` of shape (n_X, n_Y), dense or sparse.

        Rows are divided by their sums, whatever the source. Those of nearest neighbours are then averaged, for `fit`,
        with their transpose: a point also attends to points that it is near to. Other sources are found in
        :mod:`sklearn_attnembed.affinity`: texts, contacts in time, tables of edges.

    n_neighbors : int, default=15
        Neighbours, the point itself included, for the two nearest-neighbour affinities. Clipped, with a
        warning, to ``n_samples - 1``.

    weighting : {"perplexity", "self_tuning", "biweight", "uniform"}, default="perplexity"
        How the two nearest-neighbour affinities depend on distance: a Gaussian of a bandwidth of each row's own, such
        that a third of the neighbours count in effect; self-tuning; a biweight; or all neighbours alike. See
        :func:`~sklearn_attnembed.affinity.neighbor_affinity`.

    metric : str or callable, default="euclidean"
        Distance for ``affinity="nearest_neighbors"``, any of :class:`sklearn.neighbors.NearestNeighbors`.

    walk_length : int, default=1
        Embed the average of the first so many powers of the affinities, which sees further than direct neighbours.
        The powers are never formed. On a bipartite graph one step is a step to the other side and back.

    kernel : {"softmax", "expressive"}, default="softmax"
        What attention is of a score ``s = x . y / temperature``: ``exp(s)``, or ``s^2 / (1 + s^2)`` [2]_ and a
        background of 0.01. The latter is for relations that grow with the size of a correlation, whatever its sign:
        vectors of related samples are parallel *or antiparallel*, those of unrelated ones orthogonal. A vector and its
        negative mean the same, so a classifier wants ``ExpressiveKernel(method="exact")`` in between; a temperature
        near 1 is the place to start. The optimum has to be searched: four fifths of `max_iter` are always run, and
        more find it where relations are few. `embedding_` and `key_embedding_` agree, up to signs, at such temperatures
        and where dimensions are few; at sharp ones a row has many optima of its own. Needs explicit affinities, and the
        default `walk_length`, `null_model`, `normalizer` and `solver`.

    temperature : float, default=0.2
        Temperature of the attention: scores are divided by it. Low temperatures resolve finer structure and need
        ``"neighbors"`` for an accurate normalizer; at 1 the Gaussian is as good as exact. The default is what
        classifies nodes of graphs best. From 1e-9 to 1e9.

    n_clusters : int, default=1
        Number of Gaussians in the mixture that stands for the keys. Clusters are found by k-means on the vectors and
        renewed as these move. Clipped, with a warning, to the number of keys.

    null_model : {"uniform", "degree"}, float or array-like of shape (n_samples,), default="uniform"
        What vectors are pushed away from: the mean of all vectors (of their own side, if bipartite), weighted
        equally, by their degree (column sums of the affinities), by the degree to the given non-negative power, or as
        given (square affinities only).

    key_weight : {"uniform", "degree"} or float, default="uniform"
        How much each key counts in Z: the same, by its degree, or by the degree to the given power. Degrees pay where
        keys occur as often as they are linked, as words do; on graphs they seldom do.

    normalizer : {"gaussian", "neighbors", "exact"}, default="gaussian"
        How log Z is had: by the mixture; with each row's `n_exact` nearest keys summed exactly and the rest had from
        their moments and a sample of keys; or exactly, which costs O(n^2). "neighbors" finds what "exact" finds, to
        half a percent of the loss, in linear time: for likelihood, `score` and retrieval at temperatures below 1.
        The Gaussian is the better regulariser for classification.

    n_exact : int, default=64
        Nearest keys for ``normalizer="neighbors"``. They are found by cells, anew every few iterations.

    solver : {"accelerated", "gradient"}, default="accelerated"
        "accelerated" is a damped fixed point with momentum that stops when it has converged; "gradient" takes
        `max_iter` normalised gradient steps at a linearly decaying rate, as in [1]_.

    max_iter : int, default=100
        Iterations at most (all of them for ``solver="gradient"``).

    n_init : int, default=3
        Random starts of the search for ``kernel="expressive"``, of which the one of the lowest loss is kept. Its loss
        has many optima of nearly the same value, and which is found can depend on the processor: raise it where results
        have to agree between machines. ``kernel="softmax"`` finds its optimum from one start.

    tol : float, default=1e-2
        Stop when the root mean square displacement of the unit vectors in one iteration falls below it, or when an
        iteration, twice running, brought less than this share of the whole decrease of the loss. With 0 all iterations
        are run. Classifiers hardly gain from less; clusters do, where there are more of them than dimensions.

    warm_start : bool, default=False
        Whether `fit` goes on from the vectors of the last one. Rows may have been added at the end since then.

    random_state : int, RandomState instance or None, default=None
        Seed of the initial vectors and of k-means. On the same machine the same seed gives the same bits, whatever
        `n_jobs`.

    n_jobs : int or None, default=None
        Threads. None is 1 unless in a :obj:`joblib.parallel_config` context, -1 is all cores.

    verbose : int, default=0
        If positive, print iteration, loss, displacement and the time left, as far as it can be told. With
        scikit-learn 1.9 or newer its callbacks (:class:`sklearn.callback.ProgressBar`,
        :class:`sklearn.callback.ScoringMonitor`, your own to stop early) can be set by `set_callbacks`.

    Attributes
    ----------
    embedding_ : ndarray of shape (n_samples, n_components)
        The vectors of the training samples: what `transform` gives for their rows.

    key_embedding_ : ndarray of shape (n_keys, n_components)
        The vectors attended to: of the features if bipartite, else of the training samples again. `embedding_` is each
        row's answer to these: the two agree where affinities are symmetric, up to the tolerance, and less so the more
        directed they are.

    key_weight_ : ndarray of shape (n_keys,)
        How much each key counts: attention goes as ``key_weight_ * exp(x . y / temperature)``. Zero for keys without
        any affinity.

    n_iter_ : int
        Iterations run.

    loss_curve_ : list of float
        The surrogate loss per row, in nats, at the start of each iteration: the mean over rows of
        ``-sum_j P_ij s_ij + log Z_i + x_i . ybar / temperature``. Whatever the normaliser, up to ten iterations are
        made with one Gaussian first, and their losses are its.

    converged_ : bool
        Whether `tol` was met, or for ``solver="gradient"`` the schedule was run to its end, and the loss is a possible
        one: no cross entropy is below the entropy of the affinities.

    isolated_ : ndarray of bool of shape (n_samples,)
        Samples without any affinity: their vectors are zero and they are left out of everything.

    affinity_matrix_ : sparse array or ndarray of shape (n_samples, n_keys)
        The affinities that `embedding_` answers to, divided by their row sums. Not kept of a LinearOperator.

    n_features_in_ : int
        Columns seen during `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where all are strings.

    See Also
    --------
    NormalizerEstimator : Log Z alone, for any vectors.
    sklearn.manifold.SpectralEmbedding : Eigenvectors of the same affinities, without `transform`.

    Notes
    -----
    Time is linear in the non-zero affinities and the rows; memory is the affinities and four times the embedding,
    five with walks, seven with the expressive kernel, see :meth:`estimate_memory`. With softmax the iterate of the
    lowest loss is kept.

    A new row is embedded given the keys alone: no row sees another, so neither batch nor order matters. Where its
    relations pull less than the crowd of keys pushes, the crowd is let push no more than they pull. With the
    normalisers "neighbors" and "exact" a row seen in `fit` is recognised by where its affinities lead, and gets its
    own key.

    References
    ----------
    .. [1] L. Dall'Amico, E. M. Belliardo, "Learning distributed representations with efficient SoftMax
       normalization", TMLR 2025, arXiv:2303.17475, sections 2 and 3.
    .. [2] C. Gros, "Reorganizing attention-space geometry with expressive attention", arXiv:2407.18601.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn_attnembed import AttentionEmbedding
    >>> X, y = load_digits(return_X_y=True)
    >>> model = make_pipeline(AttentionEmbedding(random_state=0), LogisticRegression(C=10))
    >>> model.fit(X[:1500], y[:1500]).score(X[1500:], y[1500:]) > 0.94
    True
    """

    _parameter_constraints = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "affinity": [
            StrOptions({"nearest_neighbors", "precomputed", "precomputed_nearest_neighbors", "bipartite"}),
            callable,
        ],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "weighting": [StrOptions({"perplexity", "self_tuning", "biweight", "uniform"})],
        "metric": [str, callable],
        "walk_length": [Interval(Integral, 1, None, closed="left")],
        "kernel": [StrOptions({"softmax", "expressive"})],
        "temperature": [Interval(Real, 1e-9, 1e9, closed="both")],
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "null_model": [StrOptions({"uniform", "degree"}), Interval(Real, 0, None, closed="left"), "array-like"],
        "key_weight": [StrOptions({"uniform", "degree"}), Interval(Real, 0, None, closed="left")],
        "normalizer": [StrOptions({"gaussian", "neighbors", "exact"})],
        "n_exact": [Interval(Integral, 1, None, closed="left")],
        "solver": [StrOptions({"accelerated", "gradient"})],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
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
        walk_length: int = 1,
        kernel: Literal["softmax", "expressive"] = "softmax",
        temperature: float = 0.2,
        n_clusters: int = 1,
        null_model: Literal["uniform", "degree"] | float | ArrayLike = "uniform",
        key_weight: Literal["uniform", "degree"] | float = "uniform",
        normalizer: Literal["gaussian", "neighbors", "exact"] = "gaussian",
        n_exact: int = 64,
        solver: Literal["accelerated", "gradient"] = "accelerated",
        max_iter: int = 100,
        n_init: int = 3,
        tol: float = 1e-2,
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
        self.solver = solver
        self.max_iter = max_iter
        self.n_init = n_init
        self.tol = tol
        self.warm_start = warm_start
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    # fit and transform -------------------------------------------------------------------------------
    @whole_or_as_before("_vectors", "_sizes")
    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Relations, y: None = None) -> Self:
        """Learn the embedding.

        Parameters
        ----------
        X : array-like, sparse matrix or LinearOperator
            Of shape (n_samples, n_features), or (n_samples, n_samples) for precomputed affinities: see `affinity`.
        y : Ignored
            Present for API consistency.

        Returns
        -------
        self : AttentionEmbedding
            Fitted.

        Raises
        ------
        ValueError
            If `X` holds NaN, infinity or negative affinities, has the wrong shape, or no affinity at all.

        Warns
        -----
        ConvergenceWarning
            If `max_iter` was reached first, or the loss is not a possible one: the estimate of log Z is then far from
            the truth.
        UserWarning
            If rows have no affinity, or `n_neighbors` or `n_clusters` was clipped.
        """
        task = FitTask(self, X, y, self.max_iter)
        displacement, bounds = self._fit(X, task)
        task.end()
        _warn_isolated(self.isolated_)
        if bounds is not None and bounds.excludes(self.loss_curve_[-1]):
            warn(
                f"AttentionEmbedding ended at a loss of {self.loss_curve_[-1]:.4g}, which is impossible: a true loss "
                f"lies between {bounds.lowest:.4g}, the entropy of the affinities, and {bounds.highest:.4g}. At "
                f"temperature={self.temperature:g}, normalizer={self.normalizer!r} is out of its depth. Raise the "
                "temperature, or use normalizer='neighbors'.",
                ConvergenceWarning,
            )
        elif not self.converged_ and self.tol > 0 and self.n_iter_ == self.max_iter:  # not stopped by a callback
            warn(
                f"AttentionEmbedding did not converge in max_iter={self.max_iter} iterations: the last displacement "
                f"was {displacement:.2e}, tol={self.tol:g}. Raise max_iter, tol or the temperature.",
                ConvergenceWarning,
            )
        return self

    def _fit(self, X: Any, task: FitTask) -> tuple[float, Bounds | None]:
        """Validate, solve, store; return the last displacement, and what a true loss can be."""
        self._check_kernel()
        self._fitted = Fitted(self.affinity, self.kernel, float(self.temperature), int(self.walk_length))
        A, dtype = self._training_affinities(X)
        P, isolated = self._stochastic(A, dtype)
        if isolated.all():
            raise ValueError(
                f"X has no affinity at all: each of its {len(isolated)} rows sums to 0, but at least one has to be "
                "positive. Pass weights of existing relations."
            )
        seeds = check_random_state(self.random_state).randint(np.iinfo(np.int32).max, size=2)
        problem, active, sizes = self._problem(A, P, isolated, dtype)
        Y, is_warm = self._first_vectors(active, sizes, dtype, int(seeds[0]))
        strategy = self._strategy(problem, int(seeds[1]))
        is_softmax = self.kernel == "softmax"
        converges = is_softmax and self.solver == "accelerated"  # before max_iter
        progress = Progress(type(self).__name__, self.max_iter, self.tol if converges else 0)
        with block_runner(self.n_jobs) as run:

            def report(iteration: int, loss: float, displacement: float, so_far: Callable[[], solver.Solution]) -> bool:
                if self.verbose:
                    print(progress.line(iteration, loss, displacement))
                return task.end(lambda: self._attributes(problem, active, sizes, so_far(), strategy, run))

            solve = (
                partial(solver.solve, solver=self.solver)
                if is_softmax
                else partial(expressive.solve, n_init=self.n_init)
            )
            solution = solve(
                problem,
                Y,
                strategy,
                max_iter=self.max_iter,
                tol=self.tol,
                warm=is_warm,
                run=run,
                begin=task.begin,
                report=report,
            )
            self.__dict__.update(self._attributes(problem, active, sizes, solution, strategy, run))
            bounds = None  # of a loss that is still on its way there is nothing to say
            if self.converged_:
                log_f = (-problem.beta, 0, problem.beta) if is_softmax else expressive.LOG_F
                bounds = loss_bounds(problem, solution.keys, solution.vectors, log_f)
        self.converged_ &= bounds is None or not bounds.excludes(self.loss_curve_[-1])
        self.isolated_ = isolated
        self.embedding_ = self._respond(self._model, P, isolated)
        self._keep(A, P)
        return solution.displacement, bounds

    def _keep(self, A: Any, P: Any) -> None:
        """Keep the affinities, to explain them, where they have rows."""
        if not isinstance(P, LinearOperator):
            self.affinity_matrix_ = P
            self._row_sums = np.asarray(A.sum(axis=1)).ravel() if self.affinity == "bipartite" else None

    def fit_transform(self, X: Relations, y: None = None) -> Vectors:
        """Learn the embedding and return it: the same as ``fit(X).transform(X)``.

        Parameters
        ----------
        X : array-like, sparse matrix or LinearOperator
            As for `fit`.
        y : Ignored
            Present for API consistency.

        Returns
        -------
        embedding : ndarray of shape (n_samples, n_components)
            Unit rows; zero for samples without any affinity.
        """
        return self.fit(X, y).embedding_

    def transform(self, X: Relations) -> Vectors:
        """Embed samples, each given the fitted keys alone.

        Parameters
        ----------
        X : array-like, sparse matrix or LinearOperator
            Features, counts, or rows of affinities or distances to the fitted samples, as for `fit`.

        Returns
        -------
        embedding : ndarray of shape (n_samples, n_components)
            Unit rows; zero for samples without any affinity.

        Raises
        ------
        ValueError
            If `X` is not what `affinity` asks for.
        """
        check_is_fitted(self)
        P, isolated = self._query_affinities(X)
        _warn_isolated(isolated)
        return self._respond(self._model, P, isolated)

    def transform_keys(self, X: MatrixLike) -> Vectors:
        """Embed new columns of a table, each given the fitted rows alone (``affinity="bipartite"``).

        What `transform` is for new rows: new items of known users, new words of known documents.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_new_columns)
            Non-negative counts of the fitted samples, in their order, in the new columns.

        Returns
        -------
        key_embedding : ndarray of shape (n_new_columns, n_components)
            Unit rows, to be compared with `embedding_`; zero for empty columns.

        Raises
        ------
        ValueError
            If `X` has other rows than those of `fit`, or `affinity` is another.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn_attnembed import AttentionEmbedding
        >>> counts = np.kron(np.eye(2), np.ones((10, 8)))
        >>> model = AttentionEmbedding(2, affinity="bipartite", random_state=0).fit(counts)
        >>> item = model.transform_keys(np.arange(20)[:, None] < 10)
        >>> scores = model.embedding_ @ item[0]
        >>> bool(scores[:10].mean() > scores[10:].mean())
        True
        """
        check_is_fitted(self)
        if self._fitted.affinity != "bipartite":
            raise ValueError(
                f"transform_keys embeds new columns of a table, which only affinity='bipartite' has, but affinity="
                f"{self._fitted.affinity!r}. For new samples use transform."
            )
        X = check_array(canonical(X), accept_sparse="csr", dtype=[np.float64, np.float32], input_name="X")
        if X.shape[0] != self._sizes[0]:
            transposed = " It is probably transposed: pass X.T." if X.shape[1] == self._sizes[0] else ""
            raise ValueError(
                f"X has {X.shape[0]} rows, but transform_keys is expecting {self._sizes[0]}: one for each sample seen "
                f"in fit, in the same order. Leave none of them out.{transposed}"
            )
        P, isolated = self._stochastic(self._affinities(X).T, self.key_embedding_.dtype)
        _warn_isolated(isolated, "columns")
        return self._respond(self._column_model, P, isolated)

    def recommend(self, X: MatrixLike, n_items: int = 10, *, exclude_known: bool = True) -> tuple[Integers, Float64]:
        """Rank the columns that rows attend to most (``affinity="bipartite"``): items for users, fitted or not.

        Ranked by attention, ``log key_weight_ + x . y / temperature`` (or the kernel's logarithm). With
        ``key_weight="degree"`` that knows how popular items are, which is what recommendations want, and all that there
        is to say to a user without history.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Counts of the users, as for `transform`.
        n_items : int, default=10
            How many for each.
        exclude_known : bool, default=True
            Whether to leave out what a user has a count for already.

        Returns
        -------
        items : ndarray of int of shape (n_samples, n_items)
            Columns, the best first; -1 where there are no more.
        scores : ndarray of shape (n_samples, n_items)
            Log attention up to a constant of the row; -inf where there are no more.

        Raises
        ------
        ValueError
            If `affinity` is another, or `n_items` is not from 1 to the number of columns.

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
        check_is_fitted(self)
        if self._fitted.affinity != "bipartite":
            raise ValueError(
                f"recommend ranks the columns of a table, which only affinity='bipartite' has, but affinity="
                f"{self._fitted.affinity!r}."
            )
        if not isinstance(n_items, Integral) or not 1 <= n_items <= self.n_features_in_:
            raise ValueError(
                f"n_items must be an integer from 1 to the {self.n_features_in_} columns; got {n_items!r}. Lower it, "
                "or fit more columns."
            )
        P, isolated = self._query_affinities(X)
        queries = self._respond(self._model, P, isolated) / self._fitted.temperature
        log_f = (lambda scores: scores) if self._fitted.kernel == "softmax" else expressive.MODEL.log_value
        with np.errstate(divide="ignore"):
            popularity = np.log(self.key_weight_)
        items, scores = np.empty((len(queries), n_items), np.intp), np.empty((len(queries), n_items))
        for rows in parallel.row_blocks([len(queries)], self.n_features_in_):
            rated = log_f(queries[rows] @ self.key_embedding_.T) + popularity
            if exclude_known:
                rated[P[rows].nonzero()] = -np.inf
            best = np.argpartition(-rated, n_items - 1, axis=1)[:, :n_items]
            order = np.argsort(-np.take_along_axis(rated, best, 1), axis=1, kind="stable")
            items[rows] = np.take_along_axis(best, order, 1)
            scores[rows] = np.take_along_axis(rated, items[rows], 1)
        items[np.isneginf(scores)] = -1
        return items, scores

    def estimate_memory(
        self, n_samples: int, n_features: int = 0, dtype: DTypeLike = np.float64, *, n_affinities: int = 0
    ) -> int:
        """Say how many bytes `fit` needs at its peak beyond its input, before fitting.

        Parameters
        ----------
        n_samples : int
            Rows.
        n_features : int, default=0
            Columns, if they are embedded too (``affinity="bipartite"``).
        dtype : dtype, default=float64
            Of the data.
        n_affinities : int, default=0
            Affinities that are not zero, of a sparse matrix: its copies are counted too. Without it the bytes are what
            comes on top of the affinities.

        Returns
        -------
        n_bytes : int
            Within 20 % of the peak, for sparse affinities with indices of 32 bits. What making affinities of nearest
            neighbors or by a callable takes is not counted.

        Raises
        ------
        ValueError
            If a number is not an integer >= 0, or `dtype` is no type of NumPy's.

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
        return _memory.peak(
            _memory.Size(
                sides=[int(n_samples), int(n_features)] if self.affinity == "bipartite" else [int(n_samples)],
                d=int(self.n_components),
                itemsize=itemsize,
                n_affinities=int(n_affinities),
                kernel=self.kernel,
                normalizer=self.normalizer,
                n_init=self.n_init,
                n_clusters=self.n_clusters,
                n_exact=self.n_exact,
                walk_length=self.walk_length,
                n_threads=n_threads(self.n_jobs),
                is_sum=self.affinity in NEIGHBORS,
            )
        )

    # the solver's view -------------------------------------------------------------------------------
    def _problem(self, A: Any, P: Any, isolated: Any, dtype: Any) -> tuple[Problem, Any, list[int]]:
        """The problem to solve, square or bipartite; which of all rows (and columns) it is about, and their number."""
        if self.affinity == "bipartite":
            backward, unused = self._stochastic(A.T, dtype)
            active = ~np.concatenate([isolated, unused])
            sizes = list(A.shape)
            square = affinity_matrix.both_directions(sp.csr_array(P), sp.csr_array(backward))
        else:
            active, sizes, square = ~isolated, [A.shape[0]], P
            if self.affinity in NEIGHBORS:
                square = self._stochastic(P + P.T, dtype)[0]

        @cache
        def degree() -> Float64:
            return np.concatenate([_column_sums(side) for side in ([A.T, A] if len(sizes) == 2 else [A])])

        def shares(parameter: str, whole: bool) -> Float64:
            """Powers of the degree, of each side's active rows, that sum to one or, `whole`, to their number."""
            given = getattr(self, parameter)
            gamma = {"uniform": 0, "degree": 1}.get(given, given)
            powers = degree()[active] if gamma else np.ones(sum(counts))
            sides = np.split(powers, np.cumsum(counts)[:-1])
            if not all(side.any() for side in sides):
                raise ValueError(
                    f"{parameter}={given!r} needs degrees, but no row that has affinities is led to by any: all of "
                    f"these degrees are 0. Set {parameter}='uniform', or embed a table by affinity='bipartite'."
                )
            # No power of these overflows, and of what has a degree none is zero.
            sides = [np.where(side > 0, np.maximum((side / side.max()) ** gamma, _TINY), 0) for side in sides]
            return np.concatenate([side * ((len(side) if whole else 1) / side.sum()) for side in sides])

        counts = [int(np.count_nonzero(side)) for side in np.split(active, np.cumsum(sizes)[:-1])]
        bounds = parallel.row_blocks(counts, self.n_components)
        if self.kernel == "expressive":
            P, square = sp.csr_array(P), sp.csr_array(square)
        is_given = not isinstance(self.null_model, str | Real)
        problem = Problem(
            affinity=affinity_matrix.blocked(affinity_matrix.among(square, active), bounds),
            queries=affinity_matrix.blocked(affinity_matrix.among(P, active), bounds) if len(sizes) == 1 else None,
            group=[int(rows.start >= counts[0]) for rows in bounds],
            key_group=[1, 0] if len(sizes) == 2 else [0],
            sizes=counts,
            null=_given_null(self.null_model, active, len(sizes)) if is_given else shares("null_model", False),
            weight=None if self.key_weight in ("uniform", 0) else shares("key_weight", True),
            beta=1 / self.temperature,
            walk_length=self.walk_length,
        )
        return problem, active, sizes

    def _first_vectors(self, active: Any, sizes: list[int], dtype: Any, seed: int) -> tuple[Vectors, bool]:
        """Where the solver starts, and whether that is where it ended before."""
        Y = _initial_vectors(len(active), int(self.n_components), dtype, seed)
        if not self.warm_start or not hasattr(self, "_vectors"):
            return _only(Y, active), False
        if self._vectors.shape[1] != self.n_components:
            raise ValueError(
                f"warm_start=True goes on from vectors of {self._vectors.shape[1]} dimensions, but n_components="
                f"{self.n_components}. Set it back, or set warm_start=False to start anew."
            )
        starts = zip(np.cumsum([0, *self._sizes]), np.cumsum([0, *sizes]), self._sizes, sizes, strict=False)
        for before, now, n_before, n_now in starts:
            n = min(n_before, n_now)  # rows, or columns, that were there before
            theirs = self._vectors[before : before + n]
            known = np.flatnonzero(theirs.any(axis=1))
            Y[now + known] = theirs[known]
        return _only(Y, active), True

    def _strategy(self, problem: Problem, seed: int) -> Strategy:
        """How the solver has Z."""
        n_clusters = min(self.n_clusters, *problem.sizes)
        if n_clusters < self.n_clusters:
            warn(
                f"n_clusters={self.n_clusters} is more than there are keys with affinities, {n_clusters}, which is "
                f"taken instead. Set n_clusters to {n_clusters} or less."
            )
        return Strategy(
            self.normalizer,
            n_clusters,
            min(self.n_exact, *problem.sizes),
            partial(partition, n_clusters=n_clusters, random_state=seed),
            lambda points, k, round: cluster_centers(points, None, k, seed + round),
            seed,
        )

    def _attributes(
        self,
        problem: Problem,
        active: Any,
        sizes: list[int],
        solution: solver.Solution,
        strategy: Strategy,
        run: Runner,
    ) -> dict[str, Any]:
        """The model: the keys, where walks lead, and their statistics; of both sides, if there are two."""
        n_sides = len(sizes)
        targets = affinity_matrix.walk_targets(problem.affinity, solution.vectors, self.walk_length, n_sides, run)
        vectors, sides = _among_all(solution.vectors, active), np.split(active, np.cumsum(sizes)[:-1])
        keys, active_keys = problem.group_rows(problem.key_group[0]), sides[-1]
        weight = np.ones(problem.sizes[-1]) if problem.weight is None else problem.weight[keys]

        def model(group: int) -> Model:
            known = solver.model(problem, solution, strategy, targets, group, run)
            return known._replace(targets=_among_all(known.targets, sides[problem.key_group[group]]))

        return {
            "key_embedding_": np.ascontiguousarray(vectors[-sizes[-1] :]),
            "loss_curve_": [float(loss) for loss in solution.losses],
            "n_iter_": len(solution.losses),
            "converged_": solution.converged or self.solver == "gradient",
            "_vectors": vectors,
            "_sizes": sizes,
            "_active_keys": active_keys,
            "_key_labels": _labels(solution.look, keys, active_keys),
            "key_weight_": _among_all(weight, active_keys),
            "_model": model(0),
            "_column_model": model(1) if n_sides == 2 else None,
        }

    def _respond(self, model: Model, P: Any, isolated: Any) -> Vectors:
        """Vectors of rows with affinities `P`, each minimising its own loss given the keys; zero where isolated."""
        # A row has a vector for each cluster, and the history of its steps besides.
        bounds = parallel.row_blocks([P.shape[0]], model.targets.shape[1] * len(model.statistics.weight))
        out = np.zeros((len(isolated), model.targets.shape[1]), model.targets.dtype)
        with block_runner(self.n_jobs) as run:
            vectors = self._block_response(model, P, bounds)

            def one(block: int) -> None:
                kept = np.flatnonzero(~isolated[bounds[block]])
                if len(kept):
                    out[bounds[block]][kept] = vectors(block, kept)

            for _ in run(one, range(len(bounds))):
                pass
        return out

    def _block_response(self, model: Model, P: Any, bounds: list[slice]) -> Callable[[int, Any], Vectors]:
        """``(block, rows of it) -> vectors``."""
        if self._fitted.kernel == "expressive":
            pieces: Any = affinity_matrix.blocked(sp.csr_array(P), bounds).pieces
            model = model._replace(targets=model.targets.astype(np.float64, copy=False))  # once, not for every block
            return lambda block, kept: expressive.respond(pieces[block][kept], model)
        # A dense product rounds differently for every batch size, in float32 visibly; and iterations need digits.
        targets = model.targets if sp.issparse(P) and model.is_closed else model.targets.astype(np.float64, copy=False)
        product, respond = (
            affinity_matrix.products(affinity_matrix.blocked(P, bounds), targets),
            out_of_sample_map(model),
        )
        return lambda block, kept: respond(product(block)[kept])

    # scikit-learn ------------------------------------------------------------------------------------
    @property
    def _n_features_out(self) -> int:
        return self.key_embedding_.shape[1]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.pairwise = self.affinity in PAIRWISE
        tags.input_tags.positive_only = self.affinity in (*PAIRWISE, "bipartite")
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _initial_vectors(n_samples: int, n_components: int, dtype: Any, seed: int) -> Vectors:
    """Random unit rows, the same in any precision, drawn a block at a time."""
    generator = np.random.default_rng(seed)
    Y = np.empty((n_samples, n_components), dtype)
    for rows in parallel.row_blocks([n_samples], n_components):
        Y[rows] = generator.random((rows.stop - rows.start, n_components), np.float32) - np.float32(0.5)
    return sphere.unit_rows(Y)


def _only(Y: Vectors, active: Any) -> Vectors:
    """The active rows: `Y` itself if these are all."""
    return Y if active.all() else Y[active]


def _among_all(values: Any, active: Any) -> Any:
    """Values of the active rows among all rows, zero for the others; the values themselves if these are all."""
    if active.all():
        return values
    out = np.zeros((len(active), *values.shape[1:]), values.dtype)
    out[active] = values
    return out


def _labels(look: KeyIndex | None, rows: slice, active: Any) -> Integers:
    """Clusters of the keys, -1 for those without any affinity."""
    n = np.count_nonzero(active)
    labels = np.zeros(n, np.intp) if look is None or look.labels is None else look.labels[rows]
    return _among_all(labels + 1, active) - 1


def _given_null(null_model: Any, active: Any, n_sides: int) -> Float64:
    """A null model given as an array for all rows, checked; its shares among the active ones."""
    p0 = check_array(null_model, ensure_2d=False, dtype=np.float64, input_name="null_model")
    if n_sides == 2 or p0.shape != active.shape:
        raise ValueError(
            f"null_model has shape {p0.shape}, but an array needs one entry for each of the {len(active)} samples of a "
            "square affinity. Pass a power of the degree instead."
        )
    if p0.min() < 0 or not p0[active].sum() > 0:
        raise ValueError(
            f"null_model must be >= 0 with a positive sum; its smallest is {p0.min():.4g}, its sum over "
            f"active rows {p0[active].sum():.4g}. Clip it, or use 'uniform'."
        )
    return p0[active] / p0[active].sum()


def _column_sums(A: Any) -> Float64:
    """Degrees of the keys."""
    if isinstance(A, LinearOperator):
        try:
            return np.asarray(A.rmatvec(np.ones(A.shape[0])))
        except NotImplementedError as error:
            raise ValueError(
                "null_model by degree needs column sums, but the operator has no rmatvec. Give it one, or use "
                "null_model='uniform'."
            ) from error
    largest = (A.data if sp.issparse(A) else A).max(initial=0)
    A = A / largest if largest > np.finfo(np.float32).max else A  # sums of larger numbers could overflow
    return np.asarray(A.sum(axis=0), np.float64).ravel()


def _warn_isolated(isolated: Any, kind: str = "rows") -> None:
    if isolated.any():
        warn(
            f"{np.count_nonzero(isolated)} of {len(isolated)} {kind} have no affinity: their vectors are zero, "
            "see isolated_. Drop them, or give them an affinity to themselves."
        )
