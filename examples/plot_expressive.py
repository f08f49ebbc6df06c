"""
===================================
Lines, not arrows: the sign is free
===================================

The axis of a crystal or of a fiber has no front and back: `x` and `-x` mean the same. Expressive attention is high for
parallel and antiparallel vectors alike, so a linear model on its features need not learn the two sides separately.
"""

# %%
# Noisy axes of either sign
# -------------------------
import matplotlib.pyplot as plt
import numpy as np
from sklearn.inspection import DecisionBoundaryDisplay
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import normalize

from sklearn_attnembed import ExpressiveKernel


def make_axes(n_samples, axes, noise, rng):
    """Return points near one of the axes, on either side, and the index of the axis."""
    y = rng.integers(len(axes), size=n_samples)
    X = axes[y] + noise * rng.standard_normal((n_samples, axes.shape[1]))
    return rng.choice([-1, 1], (n_samples, 1)) * X, y


def make_models(n_landmarks):
    """Return a logistic regression for each kind of features."""
    features = {
        "no features": [],
        "Nystroem, RBF": [Nystroem(gamma=0.5, n_components=n_landmarks, random_state=0)],
        "expressive, landmarks": [
            ExpressiveKernel(temperature=0.5, n_components=n_landmarks, normalize=False, random_state=0)
        ],
        "squared score, exact": [ExpressiveKernel(method="exact")],
        "squared score, sketch": [ExpressiveKernel(method="sketch", n_components=100, random_state=0)],
    }
    return {name: make_pipeline(*steps, LogisticRegression(C=10, max_iter=500)) for name, steps in features.items()}


# %%
# Eight axes in twenty dimensions
# -------------------------------
# The figure shows the accuracy on new points, the mean of three draws. Attention to landmarks and all ``20 * 21 / 2``
# exact features of the squared score are equally good. A sketch of 100 features is less accurate. The RBF kernel has to
# see both sides of every axis: it is far less accurate with few points, and as good if each point is given together
# with its negative. Weights are not divided by their sum here, because such small numbers would need less
# regularization.
sizes, n_draws = [50, 100, 200, 400, 800], 3
scores = {}
for draw in range(n_draws):
    rng = np.random.default_rng(draw)
    axes = normalize(rng.standard_normal((8, 20)))
    X_test, y_test = make_axes(2000, axes, 0.25, rng)
    for size in sizes:
        X, y = make_axes(size, axes, 0.25, rng)
        models = make_models(min(size, 100))
        for name, model in models.items():
            scores.setdefault(name, []).append(model.fit(X, y).score(X_test, y_test))
        mirrored = models["Nystroem, RBF"].fit(np.concatenate([X, -X]), np.concatenate([y, y]))
        scores.setdefault("Nystroem, RBF, of x and -x", []).append(mirrored.score(X_test, y_test))
print(f"{'points':26}", *(f"{size:5}" for size in sizes))
for name, values in scores.items():
    scores[name] = np.reshape(values, (n_draws, len(sizes))).mean(axis=0)
    print(f"{name:26}", *(f"{score:5.3f}" for score in scores[name]))

# %%
# Three axes in the plane
# -----------------------
# The decision regions from thirty points are symmetric with expressive features and not symmetric with the RBF kernel.
# A linear model cannot represent them.
rng = np.random.default_rng(3)
angle = np.deg2rad([10, 70, 130])
X, y = make_axes(30, np.column_stack([np.cos(angle), np.sin(angle)]), 0.2, rng)
figure, panels = plt.subplot_mosaic("abc;ddd", figsize=(10, 7.5), layout="constrained", height_ratios=(5, 4))
models, colors = make_models(20), ["tab:green", "tab:orange", "tab:purple"]
for panel, name in zip("abc", models, strict=False):
    DecisionBoundaryDisplay.from_estimator(
        models[name].fit(X, y),
        X,
        response_method="predict",
        multiclass_colors=colors,
        grid_resolution=200,
        eps=0.6,
        alpha=0.25,
        ax=panels[panel],
    )
    panels[panel].scatter(*X.T, c=np.array(colors)[y], edgecolor="k", s=25)
    panels[panel].set(title=name, aspect="equal", xticks=[], yticks=[])
del scores["no features"]  # far below
for (name, accuracy), marker in zip(scores.items(), "os^Dv", strict=True):
    panels["d"].plot(sizes, accuracy, marker=marker, label=name)
panels["d"].set(xscale="log", xlabel="points to learn from", ylabel="accuracy", title="eight axes in twenty dimensions")
panels["d"].set_xticks(sizes, sizes)
panels["d"].minorticks_off()
panels["d"].legend(loc="lower right")
plt.show()
