"""Plots of fitted models, with `from_estimator` as in scikit-learn (extra `plot`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.utils.validation import check_is_fitted

from ._embedding import explained_row
from ._embedding import key_names as names_of_keys
from ._explain import as_key_labels, attention_blocks
from ._explain import attention as exact_attention
from ._extras import import_extra
from ._fitted import fitted_value
from ._sklearn import partition
from ._typing import Integers
from .metrics import relative_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["AttentionScoresDisplay", "EmbeddingDisplay", "LossCurveDisplay", "NormalizerErrorDisplay"]

# Largest number of rows and of columns of a heat map, and of names in the plot of an embedding.
_PIXELS, _NAMES = 400, 1000


def _axes(ax: Any, *shape: int, **figure: Any) -> Any:
    """Return `ax` or, if it is None, new axes."""
    pyplot = import_extra("matplotlib.pyplot", "plot", "A display")
    return pyplot.subplots(*shape, **{"layout": "constrained", **figure})[1] if ax is None else ax


# Attention -------------------------------------------------------------------------------------------
class AttentionScoresDisplay:
    """Plot of attention scores: a heat map in the order of clusters, or the keys that a single query attends to most.

    Parameters
    ----------
    attention : array-like of shape (n_queries, n_keys)
        Attention of the queries over the keys. Rows sum to one.
    query_labels, key_labels : array-like of shape (n_queries,) or (n_keys,), default=None
        Cluster labels. The heat map is drawn in the order of clusters, with lines between them.
    key_names : array-like of shape (n_keys,), default=None
        Names of the keys. If None, their numbers are used.
    target : array-like of shape (n_queries, n_keys), default=None
        Affinities that the attention approximates, which `plot_query` draws beside the attention.
    key_sizes : array-like of shape (n_keys,), default=None
        Number of keys that each column is a sum over. If None, each column is a single key.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the plot.
    figure_ : matplotlib Figure
        Figure of the plot.

    See Also
    --------
    sklearn_attnembed.AttentionEmbedding.attention_scores : Attention scores as an array.
    sklearn_attnembed.AttentionEmbedding.explain : Attention scores of a single query as a table.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_attnembed import AttentionEmbedding
    >>> from sklearn_attnembed.inspection import AttentionScoresDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> model = AttentionEmbedding(8, random_state=0).fit(X)
    >>> AttentionScoresDisplay.from_estimator(model, labels=y).attention.shape
    (150, 150)
    >>> AttentionScoresDisplay.from_estimator(model, query=7).ax_.get_xlabel()
    'attention of query 7'
    """

    def __init__(
        self,
        attention: ArrayLike,
        *,
        query_labels: ArrayLike | None = None,
        key_labels: ArrayLike | None = None,
        key_names: ArrayLike | None = None,
        target: ArrayLike | None = None,
        key_sizes: ArrayLike | None = None,
    ) -> None:
        self.attention = np.asarray(attention)
        self.query_labels = query_labels
        self.key_labels = key_labels
        self.key_names = key_names
        self.target = target
        self.key_sizes = key_sizes

    def plot(self, ax: Axes | None = None, *, cmap: Any = "magma_r", colorbar: bool = True, **kwargs: Any) -> Self:
        """Draw the heat map of attention relative to uniform attention, on a logarithmic scale.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is made.
        cmap : str or Colormap, default="magma_r"
            Color map.
        colorbar : bool, default=True
            Whether to draw a color bar.
        **kwargs : dict
            Keyword arguments for ``ax.imshow``.

        Returns
        -------
        self : AttentionScoresDisplay
            The display, with `ax_` and `figure_`.
        """
        from matplotlib.colors import LogNorm

        ax = _axes(ax, figsize=(6.2, 5.2))
        sizes = np.ones(self.attention.shape[1]) if self.key_sizes is None else np.asarray(self.key_sizes)
        ratio = self.attention / (sizes / sizes.sum())
        orders = [
            np.arange(n) if labels is None else np.argsort(np.asarray(labels), kind="stable")
            for n, labels in zip(ratio.shape, (self.query_labels, self.key_labels), strict=True)
        ]
        lowest, highest = np.quantile(ratio, (0.05, 0.999)) if ratio.size else (0.1, 10.0)
        lowest = np.clip(lowest, 0.05, 0.5)
        image = ax.imshow(
            ratio[np.ix_(*orders)],
            **{
                "norm": LogNorm(lowest, max(highest, 4 * lowest), clip=True),
                "cmap": cmap,
                "aspect": "auto",
                "interpolation": "none",
                **kwargs,
            },
        )
        for axis, labels, line in (
            (ax.yaxis, self.query_labels, ax.axhline),
            (ax.xaxis, self.key_labels, ax.axvline),
        ):
            _mark_clusters(axis, labels, line)
        ax.set(xlabel="keys", ylabel="queries")
        if colorbar:
            ax.figure.colorbar(image, ax=ax, label="attention / uniform attention", extend="both")
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def plot_query(self, query: int = 0, ax: Axes | None = None, *, n_keys: int = 10, **kwargs: Any) -> Self:
        """Draw the keys that a query attends to most, as bars, with the target affinities as marks.

        Parameters
        ----------
        query : int, default=0
            Row of `attention` to draw.
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is made.
        n_keys : int, default=10
            Number of keys.
        **kwargs : dict
            Keyword arguments for ``ax.barh``.

        Returns
        -------
        self : AttentionScoresDisplay
            The display, with `ax_` and `figure_`.
        """
        ax = _axes(ax, figsize=(5.2, 0.8 + 0.28 * min(n_keys, self.attention.shape[1])))
        row = self.attention[query]
        top = np.argsort(-row, kind="stable")[:n_keys]
        places = np.arange(len(top))
        ax.barh(places, row[top], **{"height": 0.7, "color": "C0", "label": "attention", **kwargs})
        limit = 1.3 * row[top].max(initial=1e-12)
        if self.target is not None:
            target = np.asarray(self.target)[query][top]
            near = target <= limit
            ax.scatter(target[near], places[near], marker="|", s=180, linewidths=2, color="k", label="target", zorder=3)
            for place, value in zip(places[~near], target[~near], strict=True):  # a longer axis would hide the bars
                ax.annotate(f"{value:.2g} ►", (limit, place), ha="right", va="center", fontsize=9)
            ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
        names = top if self.key_names is None else np.asarray(self.key_names)[top]
        ax.set(yticks=places, xlabel="attention", xlim=(0, limit))
        ax.set_yticklabels([str(name) for name in names], parse_math=False)
        ax.invert_yaxis()
        ax.spines[["top", "right"]].set_visible(False)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any = None,
        *,
        labels: ArrayLike | None = None,
        query: int | None = None,
        key_names: ArrayLike | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the attention of a fitted estimator.

        Parameters
        ----------
        estimator : AttentionEmbedding
            Fitted estimator.
        X : array-like or sparse matrix, default=None
            Queries, as for `transform`. If None, the training samples are used.
        labels : array-like of shape (n_keys,), default=None
            Cluster labels of the keys, which determine the order. If None, their vectors are clustered by k-means with
            eight clusters. Queries that are not keys belong to the cluster that they attend to most.
        query : int, default=None
            Number of a single query. If given, the keys that it attends to most are drawn instead of the heat map.
        key_names : array-like of shape (n_keys,), default=None
            Names of the keys in the plot of a single query. If None, they are the names of columns, if the columns are
            keys and have names, or numbers.
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is made.
        **kwargs : dict
            Keyword arguments for `plot` or, if `query` is given, `plot_query`.

        Returns
        -------
        display : AttentionScoresDisplay
            Display that has been drawn. Of more than 400 queries only 400 are shown, at even steps. Of more than 400
            keys, sums over adjacent keys are shown.

        Examples
        --------
        >>> from sklearn_attnembed import AttentionEmbedding
        >>> from sklearn_attnembed.datasets import make_block_model
        >>> from sklearn_attnembed.inspection import AttentionScoresDisplay
        >>> adjacency, communities = make_block_model(600, 4, mean_degree=20, random_state=0)
        >>> model = AttentionEmbedding(16, affinity="precomputed", random_state=0).fit(adjacency)
        >>> display = AttentionScoresDisplay.from_estimator(model, labels=communities)
        >>> display.attention.shape, round(float(display.attention.sum(axis=1).mean()), 6)
        ((400, 400), 1.0)
        """
        fitted = fitted_value(estimator)
        if query is not None:
            display = cls._of_query(estimator, X, query, key_names).plot_query(ax=ax, **kwargs)
            display.ax_.set_xlabel(f"attention of query {query}")
            return display
        keys = estimator.key_embedding_
        if labels is None:
            labels = partition(keys, 8, 0)
        labels = as_key_labels(labels, keys)
        queries = estimator.embedding_ if X is None else estimator.transform(X)
        are_keys = X is None and not fitted.source.embeds_columns
        order = _along(keys, labels)
        edges = np.linspace(0, len(keys), min(len(keys), _PIXELS) + 1).astype(int)
        rows = order[_even(len(order))] if are_keys else _even(len(queries))
        shown, key_labels = queries[rows], labels[order][edges[:-1]]
        parts = [
            np.add.reduceat(exact_attention(fitted, shown[block])[:, order], edges[:-1], axis=1)
            for block in attention_blocks(fitted, len(rows))
        ]
        attention, names = np.concatenate(parts), np.unique(key_labels)
        of_clusters = attention @ (key_labels[:, None] == names)
        query_labels = labels[rows] if are_keys else names[of_clusters.argmax(axis=1)]
        sizes = np.diff(edges)
        return cls(attention, query_labels=query_labels, key_labels=key_labels, key_sizes=sizes).plot(ax, **kwargs)

    @classmethod
    def _of_query(cls, estimator: Any, X: Any, query: int, key_names: ArrayLike | None) -> Self:
        """Return the display of a single query, with its target if that is known."""
        names = names_of_keys(estimator) if key_names is None else key_names
        if X is None and not hasattr(estimator, "affinity_matrix_"):  # a LinearOperator has no rows
            return cls(estimator.attention_scores(rows=[query]), key_names=names)
        target, attention, _ = explained_row(estimator, query, X)
        return cls(attention[None], key_names=names, target=target[None])


def _even(n: int, most: int = _PIXELS) -> Integers:
    """Return at most `most` numbers below `n`, at even steps."""
    return np.linspace(0, n - 1, min(n, most)).astype(int)


def _along(keys: Any, labels: Any) -> Integers:
    """Return the order of keys by cluster and, within a cluster, by the first principal component."""
    order = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        centred = keys[members] - keys[members].mean(axis=0)
        order.append(members[np.argsort(centred @ np.linalg.svd(centred.T @ centred)[0][:, 0], kind="stable")])
    return np.concatenate(order)


def _mark_clusters(axis: Any, labels: Any, line: Any) -> None:
    """Write the names of clusters at their middle if there is room, and draw lines between clusters."""
    if labels is None:
        axis.set_ticks([])
        return
    names, counts = np.unique(np.asarray(labels), return_counts=True)
    ends = np.cumsum(counts) - 0.5
    for end in ends[:-1] if len(ends) <= _PIXELS // 10 else ():
        line(end, color="0.4", linewidth=0.5)
    texts, middles = _as_text(names), ends - counts / 2
    is_long = axis.axis_name == "x" and sum(map(len, texts)) > 40
    room = 0.05 * ends[-1]  # for a line of text
    shown = [0]
    for k in range(1, len(middles)):
        if middles[k] - middles[shown[-1]] > room:
            shown.append(k)
    axis.set_ticks(middles[shown], [texts[k] for k in shown], rotation=90 if is_long else 0, parse_math=False)
    axis.set_tick_params(length=0)


# Embeddings ------------------------------------------------------------------------------------------
class EmbeddingDisplay:
    """Plot of an embedding in two dimensions.

    Parameters
    ----------
    points : array-like of shape (n_samples, 2)
        Positions of the samples.
    y : array-like of shape (n_samples,), default=None
        Classes, which are drawn in one color each, with the name at the median of the class; or numbers with fractions,
        which are drawn on a color scale.
    names : array-like of shape (n_samples,), default=None
        Names of samples. A name is written if it does not overlap with those before it.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the plot.
    figure_ : matplotlib Figure
        Figure of the plot.

    See Also
    --------
    AttentionScoresDisplay : Plot of the attention scores of a fitted embedding.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_attnembed import AttentionEmbedding
    >>> from sklearn_attnembed.inspection import EmbeddingDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> model = AttentionEmbedding(8, random_state=0).fit(X)
    >>> display = EmbeddingDisplay.from_estimator(model, y=y)
    >>> display.points.shape
    (150, 2)
    """

    def __init__(
        self, points: ArrayLike, *, y: ArrayLike | None = None, names: Sequence[Any] | ArrayLike | None = None
    ) -> None:
        self.points = np.asarray(points)
        self.y = _one_each(y, len(self.points), "y")
        self.names = _one_each(names, len(self.points), "names")

    def plot(self, ax: Axes | None = None, *, s: float | None = None, cmap: Any = None, **kwargs: Any) -> Self:
        """Draw the points.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is made.
        s : float, default=None
            Size of the points. If None, it depends on their number.
        cmap : str or Colormap, default=None
            Color map of the classes or numbers. If None, it depends on the number of classes.
        **kwargs : dict
            Keyword arguments for ``ax.scatter``.

        Returns
        -------
        self : EmbeddingDisplay
            The display, with `ax_` and `figure_`.
        """
        ax = _axes(ax, figsize=(5.6, 5.2))
        s = float(np.clip(6e3 / max(len(self.points), 1), 2, 24)) if s is None else s
        style = {"s": s, "linewidths": 0, **kwargs}
        y = self.y
        ax.set(xticks=[], yticks=[], aspect="equal")
        ax.spines[:].set_color("0.8")
        boxes: list[Any] = []
        if y is None:
            ax.scatter(*self.points.T, **style)
        elif y.dtype.kind == "f" and np.any(y[np.isfinite(y)] % 1):
            ax.figure.colorbar(ax.scatter(*self.points.T, c=y, cmap=cmap or "viridis", **style), ax=ax, shrink=0.8)
        else:
            boxes = self._plot_classes(ax, y, cmap, style)
        if self.names is not None:
            _write(ax, self.points[:_NAMES], self.names[:_NAMES], boxes, fontsize=8)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _plot_classes(self, ax: Any, y: Any, cmap: Any, style: dict[str, Any]) -> list[Any]:
        """Draw points in the colors of their classes, gray if missing, with names; return the boxes of the names."""
        from matplotlib import colormaps

        is_known = ~_is_missing(y)
        classes, codes = np.unique(y[is_known], return_inverse=True)
        if cmap is None:
            cmap = "tab10" if len(classes) <= 10 else "tab20" if len(classes) <= 20 else "turbo"
        cmap = colormaps[cmap] if isinstance(cmap, str) else cmap
        n_colors = max(cmap.N, len(classes)) if cmap.N <= 20 else len(classes)  # a list, or a continuous scale
        if not is_known.all():
            ax.scatter(*self.points[~is_known].T, **{**style, "color": "0.8"})
        points = self.points[is_known]
        ax.scatter(*points.T, **{"c": codes, "cmap": cmap, "vmin": -0.5, "vmax": n_colors - 0.5, **style})
        centers = np.array([np.median(points[codes == code], axis=0) for code in range(len(classes))])
        size = 11 if len(classes) <= 20 else 8
        return _write(ax, centers, _as_text(classes), always=True, fontweight="bold", fontsize=size)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any = None,
        *,
        y: ArrayLike | None = None,
        names: Sequence[Any] | ArrayLike | None = None,
        reducer: Any = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the embedding of a fitted estimator.

        Parameters
        ----------
        estimator : AttentionEmbedding
            Fitted estimator.
        X : array-like or sparse matrix, default=None
            Samples, as for `transform`. If None, the training samples are used.
        y : array-like of shape (n_samples,), default=None
            Classes or numbers, which determine the colors.
        names : array-like of shape (n_samples,), default=None
            Names of samples.
        reducer : transformer, default=None
            Reduction to two dimensions, such as :class:`sklearn.manifold.TSNE`, of which a clone is fitted. If None,
            principal components are used. Vectors of two dimensions are drawn as they are.
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is made.
        **kwargs : dict
            Keyword arguments for `plot`.

        Returns
        -------
        display : EmbeddingDisplay
            Display that has been drawn.
        """
        check_is_fitted(estimator)
        vectors = estimator.embedding_ if X is None else estimator.transform(X)
        reducer = PCA(2, random_state=0) if reducer is None else clone(reducer)
        points = vectors if vectors.shape[1] == 2 else reducer.fit_transform(vectors)
        return cls(points, y=y, names=names).plot(ax, **kwargs)


def _write(
    ax: Any, places: Any, names: Iterable[Any], boxes: Sequence[Any] = (), always: bool = False, **text: Any
) -> list[Any]:
    """Write names at positions of the data without overlap, also with `boxes`, and return all boxes.

    Names are shifted a little if necessary. If that is not enough, they are left out unless `always` is true.
    """
    from matplotlib.patheffects import withStroke

    ax.get_figure(root=True).draw_without_rendering()  # determines the sizes of texts in pixels
    ring = [(np.cos(angle), np.sin(angle)) for angle in np.arange(8) * np.pi / 4]
    moves = [(0, 0), *((14 * size * across, 11 * size * up) for size in (1, 2, 3) for across, up in ring)]
    style = {"ha": "center", "va": "center", "parse_math": False, **text}
    halo, taken = [withStroke(linewidth=2.5, foreground="white", alpha=0.85)], list(boxes)
    for place, name in zip(places, names, strict=True):
        note = ax.annotate(str(name), place, (0, 0), textcoords="offset points", path_effects=halo, **style)
        for move in moves if always else moves[1:9]:
            note.set_position(move)
            box = note.get_window_extent()
            if not box.padded(1.5).count_overlaps(taken):
                taken.append(box)
                break
        else:
            if always:
                note.set_position((0, 0))
            else:
                note.remove()
    return taken


def _one_each(values: Any, n: int, name: str) -> Any:
    """Return values as an array, or raise an error if they are not one for each point."""
    values = None if values is None else np.asarray(values)
    if values is not None and values.shape != (n,):
        raise ValueError(
            f"{name} must have one entry for each of the {n} points, but has shape {values.shape}. Pass an array as "
            "long as points."
        )
    return values


def _is_missing(y: Any) -> Any:
    """Return the mask of the classes that are NaN or None."""
    return np.array(
        [each is None or (isinstance(each, float | np.floating) and np.isnan(each)) for each in y], dtype=bool
    )


def _as_text(classes: Any) -> list[str]:
    """Return the names of classes, without a decimal point if they are whole numbers."""
    return [f"{each:.0f}" if isinstance(each, float) and each == round(each) else str(each) for each in classes]


# Fits ------------------------------------------------------------------------------------------------
class LossCurveDisplay:
    """Plot of the loss against the iteration.

    Parameters
    ----------
    losses : array-like of shape (n_iter,)
        Loss per row at each iteration, in nats.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes of the plot.
    figure_ : matplotlib Figure
        Figure of the plot.

    See Also
    --------
    sklearn_attnembed.AttentionEmbedding : Stores the losses in `loss_curve_`.

    Examples
    --------
    >>> from sklearn_attnembed.inspection import LossCurveDisplay
    >>> LossCurveDisplay([3.0, 2.0, 1.9]).plot().ax_.get_xlabel()
    'iteration'
    """

    def __init__(self, losses: ArrayLike) -> None:
        self.losses = losses

    def plot(self, ax: Axes | None = None, *, name: str | None = None, **kwargs: Any) -> Self:
        """Draw the losses, with a dot at the lowest.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on, such as those of another display to compare with. If None, a new figure is made.
        name : str, default=None
            Name in the legend.
        **kwargs : dict
            Keyword arguments for ``ax.plot``.

        Returns
        -------
        self : LossCurveDisplay
            The display, with `ax_` and `figure_`.
        """
        ax = _axes(ax, figsize=(5.2, 3.6))
        losses = np.asarray(self.losses)
        (line,) = ax.plot(np.arange(1, len(losses) + 1), losses, **{"label": name, **kwargs})
        best = np.flatnonzero(losses == losses.min(initial=np.inf))[:1]
        ax.scatter(best + 1, losses[best], s=24, color=line.get_color(), zorder=3)
        ax.set(xlabel="iteration", ylabel="loss per row (nats)")
        if ax.get_xscale() == "linear":
            ax.xaxis.get_major_locator().set_params(integer=True)
        ax.spines[["top", "right"]].set_visible(False)
        if name is not None:
            ax.legend(frameon=False)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Axes | None = None, **kwargs: Any) -> Self:
        """Draw the loss curve of a fitted estimator.

        Parameters
        ----------
        estimator : AttentionEmbedding or AttentionWordVectors
            Fitted estimator.
        ax : matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is made.
        **kwargs : dict
            Keyword arguments for `plot`.

        Returns
        -------
        display : LossCurveDisplay
            Display that has been drawn.
        """
        check_is_fitted(estimator)
        return cls(estimator.loss_curve_).plot(ax, **kwargs)


class NormalizerErrorDisplay:
    """Plots of the error of log Z against exact log Z, and of the distribution of the relative error of Z.

    Parameters
    ----------
    log_z, log_z_exact : array-like of shape (n_queries,)
        Estimated and exact log Z, in nats. Queries with an estimated or exact Z of zero are left out.
    std : array-like of shape (n_queries,), default=None
        Standard errors of `log_z`. They are drawn as 95 % error bars of forty queries, and the legend says how many of
        all error bars cover the exact value.

    Attributes
    ----------
    error : ndarray of shape (n_queries,)
        Relative error of Z, ``|Z_estimate / Z_exact - 1|``.
    axes_ : ndarray of two matplotlib Axes
        Axes of the plots.
    figure_ : matplotlib Figure
        Figure of the plots.

    See Also
    --------
    sklearn_attnembed.NormalizerEstimator : Estimates log Z.
    sklearn_attnembed.metrics.relative_error : Computes the error.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_attnembed import NormalizerEstimator
    >>> from sklearn_attnembed.inspection import NormalizerErrorDisplay
    >>> keys = np.random.default_rng(0).standard_normal((5000, 8)) / 2
    >>> model = NormalizerEstimator(method="control_variate", random_state=0).fit(keys)
    >>> display = NormalizerErrorDisplay.from_estimator(model, keys[:200])
    >>> display.error.shape
    (200,)
    """

    def __init__(self, log_z: ArrayLike, log_z_exact: ArrayLike, *, std: ArrayLike | None = None) -> None:
        log_z, log_z_exact = np.asarray(log_z, np.float64), np.asarray(log_z_exact, np.float64)
        kept = np.isfinite(log_z) & np.isfinite(log_z_exact)
        self.log_z, self.log_z_exact = log_z[kept], log_z_exact[kept]
        self.std = None if std is None else np.asarray(std, np.float64)[kept]
        self.error = relative_error(self.log_z, self.log_z_exact)

    def plot(self, axes: Sequence[Axes] | None = None, *, name: str | None = None, color: Any = None) -> Self:
        """Draw both plots.

        Parameters
        ----------
        axes : sequence of two matplotlib Axes, default=None
            Axes to draw on, such as those of another display to compare with. If None, a new figure is made.
        name : str, default=None
            Name in the legend.
        color : matplotlib color, default=None
            Color of points and curve. If None, the next color of the cycle is used.

        Returns
        -------
        self : NormalizerErrorDisplay
            The display, with `axes_` and `figure_`.
        """
        points, curve = self.axes_ = np.asarray(_axes(axes, 1, 2, figsize=(9.6, 3.8)))
        deviation = self.log_z - self.log_z_exact
        label = name
        if self.std is not None and len(deviation):
            covered = np.mean(np.abs(deviation) <= 1.96 * self.std)
            label = f"{'' if name is None else name + ', '}95 % bars cover {100 * covered:.0f} %"
        share = np.arange(1, len(self.error) + 1) / max(len(self.error), 1)
        (line,) = curve.step(np.sort(self.error), share, where="post", label=label, color=color)
        color = line.get_color()
        points.axhline(0, color="k", linewidth=0.7, zorder=0)
        points.scatter(self.log_z_exact, deviation, s=6, linewidths=0, color=color, label=name, alpha=0.7)
        if self.std is not None:
            shown = np.argsort(self.log_z_exact)[_even(len(deviation), 40)]
            points.errorbar(
                *(self.log_z_exact[shown], deviation[shown], 1.96 * self.std[shown]),
                **{"fmt": "none", "ecolor": color, "elinewidth": 0.8, "alpha": 0.5},
            )
        points.set(xlabel="exact log Z (nats)", ylabel="error of log Z (nats)")
        curve.set(xlabel="relative error of Z", ylabel="share of queries", ylim=(0, 1))
        if self.error.any():
            curve.set_xscale("log")
        for ax in self.axes_:
            ax.spines[["top", "right"]].set_visible(False)
        if label is not None:
            curve.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.24))
        self.figure_ = curve.figure
        return self

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        *,
        return_std: bool = False,
        axes: Sequence[Axes] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Draw the errors of a fitted estimator on queries.

        Parameters
        ----------
        estimator : NormalizerEstimator
            Estimator that has been fitted by `fit`, and therefore has the keys.
        X : array-like of shape (n_queries, n_features)
            Queries. Exact values take O(n_queries * n_keys) time.
        return_std : bool, default=False
            Whether to draw 95 % error bars.
        axes : sequence of two matplotlib Axes, default=None
            Axes to draw on. If None, a new figure is made.
        **kwargs : dict
            Keyword arguments for `plot`.

        Returns
        -------
        display : NormalizerErrorDisplay
            Display that has been drawn.
        """
        exact = estimator.score_samples_exact(X)
        log_z, std = estimator.score_samples(X, return_std=True) if return_std else (estimator.score_samples(X), None)
        return cls(log_z, exact, std=std).plot(axes, **kwargs)
