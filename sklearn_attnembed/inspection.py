"""Pictures, in scikit-learn's from_estimator manner (extra `plot`)."""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.utils.validation import check_is_fitted

__all__ = ["EmbeddingDisplay", "LossCurveDisplay"]


def _axes(ax):
    """`ax`, or new axes."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("Pictures need matplotlib: pip install 'sklearn-attnembed[plot]'.") from error
    return plt.subplots()[1] if ax is None else ax


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
