"""
===================================================
Digits: parameters chosen with labels, and without
===================================================

Temperature, dimension and the weighting of neighbours are parameters like any other. Under a classifier they are chosen
by its accuracy; without labels, by the likelihood of held-out affinity rows. Do the two agree?
"""

# %%
# With labels
# -----------
# Neighbours come from scikit-learn's own step, and could come from any other that gives a sparse graph of distances:
# they may be approximate, or kept between fits by the pipeline's `memory`. The graph and the embedding are made inside
# each fold, of the training digits alone; the held-out ones go through `transform`.
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
labelled = GridSearchCV(pipeline, grid, cv=folds, n_jobs=2).fit(X, y)
accuracy = labelled.cv_results_["mean_test_score"].reshape([len(values) for values in grid.values()])
print("with labels:", *labelled.best_params_.values(), f"accuracy {labelled.best_score_:.3f}")
rivals = {"nearest neighbours": KNeighborsClassifier(), "logistic regression": LogisticRegression(C=10, max_iter=1000)}
for name, model in rivals.items():
    rivals[name] = cross_val_score(model, X, y, cv=folds).mean()
    print(f"pixels, {name}: accuracy {rivals[name]:.3f}")

# %%
# Without labels
# --------------
# The same pipeline less its classifier is scored by how well attention predicts the affinities of held-out digits.
# Weightings cannot be compared so: each has affinities of its own to predict.
grid["embedding__weighting"] = ["perplexity"]
unlabelled = GridSearchCV(pipeline[:-1], grid, cv=folds, n_jobs=2).fit(X)
likelihood = unlabelled.cv_results_["mean_test_score"].reshape(accuracy.shape[:2])
chosen = accuracy[..., 0].ravel()[unlabelled.best_index_]
print("without:", *unlabelled.best_params_.values(), f"accuracy {chosen:.3f}")

# %%
# What the searches saw
# ---------------------
# From sixteen dimensions on, "perplexity" and "biweight" make the fewest errors, fewer than nearest neighbours among
# the pixels; "uniform" stays behind. With two or four dimensions it is the other way round. Likelihood goes on rising
# with dimension and at lower temperatures, where the classifier has long stopped caring: it sees that few dimensions
# are not enough, and what it chooses is nearly the best. It rates held-out digits that `transform` has placed by the
# neighbours in question; :ref:`sphx_glr_gallery_plot_choosing.py` has a way that tells too many dimensions as well.
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
