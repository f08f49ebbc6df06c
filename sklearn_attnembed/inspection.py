"""Pictures, in scikit-learn's from_estimator manner (extra `plot`)."""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.utils.validation import check_is_fitted

from .metrics import relative_error

__all__ = ["EmbeddingDisplay", "LossCurveDisplay", "NormalizerErrorDisplay"]


def _axes(ax, *shape, **figure):
    """`ax`, or new axes in a figure of that shape."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("Pictures need matplotlib: pip install 'sklearn-attnembed[plot]'.") from error
    return plt.subplots(*shape, **figure)[1] if ax is None else ax


class EmbeddingDisplay:
    """Two-dimensional view of an embedding.

    Parameters
    ----------
    points : ndarray of shape (n_samples, 2)
        Where to draw.
    y : array-like of shape (n_samples,) or None, default=None
        Classes, one colour each.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn.

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

    def __init__(self, points, *, y=None):
        self.points = points
        self.y = y

    def plot(self, ax=None, *, s=8, cmap="tab10"):
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            New ones if None.
        s : float, default=8
            Size of the points.
        cmap : str or Colormap, default="tab10"
            Colours of the classes.

        Returns
        -------
        self : EmbeddingDisplay
        """
        ax = _axes(ax)
        if self.y is None:
            ax.scatter(*self.points.T, s=s, linewidths=0)
        else:
            classes, codes = np.unique(self.y, return_inverse=True)
            ax.scatter(
                *self.points.T, s=s, c=codes, cmap=cmap, vmin=-0.5, vmax=max(len(classes), 10) - 0.5, linewidths=0
            )
            for code, name in enumerate(classes):
                center = np.median(self.points[codes == code], axis=0)
                box = {"boxstyle": "circle,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.7}
                ax.annotate(str(name), center, ha="center", va="center", fontweight="bold", bbox=box)
        ax.set(xticks=[], yticks=[], aspect="equal")
        self.ax_ = ax
        return self

    @classmethod
    def from_estimator(cls, estimator, X=None, *, y=None, reducer=None, ax=None, **kwargs):
        """Draw the embedding of a fitted estimator.

        Parameters
        ----------
        estimator : AttentionEmbedding
            Fitted.
        X : array-like or sparse matrix, default=None
            What to transform; the training samples if None.
        y : array-like of shape (n_samples,), default=None
            Classes.
        reducer : transformer, default=None
            To two dimensions; principal components if None.
        ax : matplotlib Axes, default=None
            New ones if None.
        **kwargs : dict
            For `plot`.

        Returns
        -------
        display : EmbeddingDisplay
        """
        check_is_fitted(estimator)
        vectors = estimator.embedding_ if X is None else estimator.transform(X)
        reducer = PCA(2, random_state=0) if reducer is None else reducer
        points = vectors if vectors.shape[1] == 2 else reducer.fit_transform(vectors)
        return cls(points, y=y).plot(ax, **kwargs)


class LossCurveDisplay:
    """Loss against iteration.

    Parameters
    ----------
    losses : array-like of shape (n_iter,)
        Loss per row, in nats.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it was drawn.

    Examples
    --------
    >>> from sklearn_attnembed.inspection import LossCurveDisplay
    >>> LossCurveDisplay([3.0, 2.0, 1.9]).plot().ax_.get_xlabel()
    'iteration'
    """

    def __init__(self, losses):
        self.losses = losses

    def plot(self, ax=None, **kwargs):
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            New ones if None.
        **kwargs : dict
            For ``ax.plot``.

        Returns
        -------
        self : LossCurveDisplay
        """
        ax = _axes(ax)
        ax.plot(np.arange(1, len(self.losses) + 1), self.losses, **{"marker": ".", **kwargs})
        ax.set(xlabel="iteration", ylabel="loss per row (nats)")
        self.ax_ = ax
        return self

    @classmethod
    def from_estimator(cls, estimator, *, ax=None, **kwargs):
        """Draw the loss curve of a fitted estimator.

        Parameters
        ----------
        estimator : AttentionEmbedding
            Fitted.
        ax : matplotlib Axes, default=None
            New ones if None.
        **kwargs : dict
            For ``ax.plot``.

        Returns
        -------
        display : LossCurveDisplay
        """
        check_is_fitted(estimator)
        return cls(estimator.loss_curve_).plot(ax, **kwargs)


class NormalizerErrorDisplay:
    """Estimated log Z against exact, and the distribution function of the relative error of Z.

    Parameters
    ----------
    log_z, log_z_exact : array-like of shape (n_queries,)
        Estimated and exact, in nats. Queries whose Z is zero in either are left out.
    std : array-like of shape (n_queries,) or None, default=None
        Standard errors of `log_z`, drawn as 95 % bars.

    Attributes
    ----------
    error : ndarray of shape (n_queries,)
        ``|Z_estimate / Z_exact - 1|``.
    axes_ : ndarray of two matplotlib Axes
        Where it was drawn.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_attnembed import NormalizerEstimator
    >>> from sklearn_attnembed.inspection import NormalizerErrorDisplay
    >>> keys = np.random.default_rng(0).standard_normal((5000, 8)) / 2
    >>> model = NormalizerEstimator(method="control_variate", random_state=0).fit(keys)
    >>> display = NormalizerErrorDisplay.from_estimator(model, keys[:200])
    >>> bool(np.median(display.error) < 1e-2)
    True
    """

    def __init__(self, log_z, log_z_exact, *, std=None):
        log_z, log_z_exact = np.asarray(log_z, np.float64), np.asarray(log_z_exact, np.float64)
        kept = np.isfinite(log_z) & np.isfinite(log_z_exact)
        self.log_z, self.log_z_exact = log_z[kept], log_z_exact[kept]
        self.std = None if std is None else np.asarray(std, np.float64)[kept]
        self.error = relative_error(self.log_z, self.log_z_exact)

    def plot(self, axes=None, *, name=None, color=None):
        """Draw.

        Parameters
        ----------
        axes : sequence of two matplotlib Axes, default=None
            New ones if None. Give those of another display to compare.
        name : str, default=None
            For the legend.
        color : matplotlib color, default=None
            The next in the cycle if None.

        Returns
        -------
        self : NormalizerErrorDisplay
        """
        points, curve = self.axes_ = np.asarray(_axes(axes, 1, 2, figsize=(9.6, 4.2), layout="constrained"))
        share = np.arange(1, len(self.error) + 1) / max(len(self.error), 1)
        (line,) = curve.step(np.sort(self.error), share, where="post", label=name, color=color)
        color = line.get_color()
        if self.std is not None:
            points.errorbar(self.log_z_exact, self.log_z, 1.96 * self.std, fmt="none", ecolor=color, alpha=0.4)
        points.scatter(self.log_z_exact, self.log_z, s=8, linewidths=0, color=color, label=name)
        if len(self.error):
            points.axline((self.log_z_exact[0], self.log_z_exact[0]), slope=1, color="k", linewidth=0.7, zorder=0)
        points.set(xlabel="exact log Z", ylabel="estimated log Z")
        curve.set(xlabel="relative error of Z", ylabel="share of queries", xscale="log", ylim=(0, 1))
        if name is not None:
            curve.legend()
        return self

    @classmethod
    def from_estimator(cls, estimator, X, *, return_std=False, axes=None, **kwargs):
        """Draw the errors of a fitted estimator on queries.

        Parameters
        ----------
        estimator : NormalizerEstimator
            Fitted by `fit`, so that it has the keys.
        X : array-like of shape (n_queries, n_features)
            Queries. The exact value costs O(n_queries * n_keys).
        return_std : bool, default=False
            Whether to draw 95 % bars.
        axes : sequence of two matplotlib Axes, default=None
            New ones if None.
        **kwargs : dict
            For `plot`.

        Returns
        -------
        display : NormalizerErrorDisplay
        """
        exact = estimator.score_samples_exact(X)
        log_z, std = estimator.score_samples(X, return_std=True) if return_std else (estimator.score_samples(X), None)
        return cls(log_z, exact, std=std).plot(axes, **kwargs)
