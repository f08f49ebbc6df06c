"""
===================================================
Digits: parameters chosen with labels, and without
===================================================

Temperature, dimension and the weighting of neighbors can be chosen by a grid search, like all parameters. With labels,
the criterion is the accuracy of a classifier. Without labels, it is the likelihood of held-out rows of affinities. This
example compares the two choices.
"""

# %%
# With labels
# -----------
# Neighbors come from a transformer of scikit-learn. They could come from any other transformer that returns a sparse
# graph of distances: they may be approximate, or be cached by the `memory` of the pipeline. The graph and the embedding
# are computed inside each fold from the training digits alone. The held-out digits go through `transform`.
import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier, KNeighborsTransformer
from sklearn.pipeline import Pipeline

from sklearn_attnembed import AttentionEmbedding

X, y = load_digits(return_X_y=True)
X, y = X[:1200] / 16, y[:1200]
folds = list(StratifiedKFold(3, shuffle=True, random_state=0).split(X, y))
pipeline = Pipeline(
    [
        ("neighbors", KNeighborsTransformer(n_neighbors=15, mode="distance")),
        ("embedding", AttentionEmbedding(affinity="precomputed_nearest_neighbors", n_neighbors=15, random_state=0)),
        ("classifier", LogisticRegression(C=10, max_iter=1000)),
    ]
)
weightings = ["perplexity", "self_tuning", "biweight", "uniform"]
dimensions, temperatures = [2, 4, 8, 16, 64], [0.3, 0.5, 1]
grid = {
    "embedding__n_components": dimensions,
    "embedding__temperature": temperatures,
    "embedding__weighting": weightings,
}
labeled = GridSearchCV(pipeline, grid, cv=folds, n_jobs=2).fit(X, y)
accuracy = labeled.cv_results_["mean_test_score"].reshape([len(values) for values in grid.values()])
print("with labels:", *labeled.best_params_.values(), f"accuracy {labeled.best_score_:.3f}")
rivals = {"nearest neighbors": KNeighborsClassifier(), "logistic regression": LogisticRegression(C=10, max_iter=1000)}
for name, model in rivals.items():
    rivals[name] = cross_val_score(model, X, y, cv=folds).mean()
    print(f"pixels, {name}: accuracy {rivals[name]:.3f}")

# %%
# Without labels
# --------------
# The same pipeline without its classifier is scored by how well attention predicts the affinities of held-out digits.
# Weightings cannot be compared this way, because each defines different affinities to predict.
grid["embedding__weighting"] = ["perplexity"]
unlabeled = GridSearchCV(pipeline[:-1], grid, cv=folds, n_jobs=2).fit(X)
likelihood = unlabeled.cv_results_["mean_test_score"].reshape(accuracy.shape[:2])
chosen = accuracy[..., 0].ravel()[unlabeled.best_index_]
print("without:", *unlabeled.best_params_.values(), f"accuracy {chosen:.3f}")

# %%
# Results of the searches
# -----------------------
# From sixteen dimensions on, "perplexity" and "biweight" make the fewest errors, fewer than nearest neighbors in pixel
# space, and "uniform" makes the most. With two or four dimensions the order is reversed. The likelihood keeps
# increasing with the dimension and at lower temperatures, where the accuracy no longer changes. It shows that few
# dimensions are not enough, and its choice is nearly the best. It cannot detect too many dimensions, because
# `transform` computes the vectors of held-out digits from the same neighbors that are scored; for a criterion that can,
# see :ref:`sphx_glr_gallery_plot_choosing.py`.
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.5), layout="constrained", sharey=True)
for place, (weighting, marker) in enumerate(zip(weightings, "os^D", strict=True)):
    left.plot(dimensions, 1 - accuracy[..., place].max(axis=1), marker=marker, label=weighting)
for (name, score), style in zip(rivals.items(), ("--", ":"), strict=True):
    left.axhline(1 - score, color="k", linestyle=style, label=f"pixels, {name}")
left.set(xscale="log", yscale="log", xlabel="n_components", ylabel="share of errors", title="at the best temperature")
left.set_xticks(dimensions, dimensions)
left.set_yticks([0.01, 0.02, 0.05, 0.1, 0.2, 0.5], ["1 %", "2 %", "5 %", "10 %", "20 %", "50 %"])
left.minorticks_off()
for column, temperature in enumerate(temperatures):
    right.plot(
        likelihood[:, column], 1 - accuracy[:, column, 0], marker="os^"[column], label=f"temperature {temperature:g}"
    )
for row, dimension in enumerate(dimensions):
    place = likelihood[row, 0], 1 - accuracy[row, 0, 0]
    right.annotate(f"{dimension}", place, xytext=(5, 5), textcoords="offset points")
right.set(xlabel="log likelihood of held-out digits (nats)", title="likelihood and errors; numbers are n_components")
right.set_xlim(right=-1)
right.set_ylim(top=1.1)
left.legend()
right.legend(loc="upper right")
plt.show()
