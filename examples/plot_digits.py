"""
===================================================
Grid search: with labels, and without
===================================================

Temperature, dimension and the source of the affinities are parameters like any other. Under a classifier they are
chosen by its accuracy; without labels, by the likelihood of held-out affinity rows.
"""

# %%
# With labels: digits
# -------------------
# The embedding is fitted inside each fold, on the training digits alone; the held-out ones go through `transform`.
import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline

from sklearn_attnembed import AttentionEmbedding
from sklearn_attnembed.datasets import make_block_model


def gaussian_affinity(X, Y):
    """All pairs, with a bandwidth for digits scaled to [0, 1]: any function of (X, Y) will do."""
    return rbf_kernel(X, Y, gamma=0.5)


X, y = load_digits(return_X_y=True)
X = X[:900] / 16
y = y[:900]
pipeline = make_pipeline(AttentionEmbedding(max_iter=300, random_state=0), LogisticRegression(max_iter=1000))
dimensions, temperatures = [4, 16, 64], [0.25, 0.5, 1.0]
labelled = GridSearchCV(
    pipeline,
    {
        "attentionembedding__temperature": temperatures,
        "attentionembedding__n_components": dimensions,
        "attentionembedding__affinity": ["nearest_neighbors", gaussian_affinity],
    },
    cv=StratifiedKFold(3, shuffle=True, random_state=0),
    n_jobs=2,
).fit(X, y)
print("digits:", labelled.best_params_, f"accuracy {labelled.best_score_:.3f}")

# %%
# Without labels: a graph with four communities
# ---------------------------------------------
# Cross-validation takes rows *and* columns of a precomputed affinity: the model learns the graph among the training
# nodes, and is asked how well its attention predicts where the edges of unseen nodes lead.
A, _ = make_block_model(600, 4, mean_degree=40, mixing=0.1, random_state=0)
graph_dimensions, graph_temperatures = [1, 2, 4, 8, 16], [1 / 64, 1 / 16, 1 / 4, 1, 4]
unlabelled = GridSearchCV(
    AttentionEmbedding(affinity="precomputed", walk_length=3, max_iter=300, random_state=0),
    {"n_components": graph_dimensions, "temperature": graph_temperatures},
    cv=3,
    n_jobs=2,
).fit(A)
print("graph:", unlabelled.best_params_, f"log likelihood {unlabelled.best_score_:.3f}")

# %%
# What the searches saw
# ---------------------
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")

results = labelled.cv_results_
for affinity, style in (("nearest_neighbors", "-"), (gaussian_affinity, "--")):
    for color, temperature in enumerate(temperatures):
        chosen = (results["param_attentionembedding__temperature"] == temperature) & [
            a == affinity for a in results["param_attentionembedding__affinity"]
        ]
        name = affinity if isinstance(affinity, str) else "gaussian"
        left.plot(
            dimensions,
            results["mean_test_score"][chosen],
            style,
            marker="o",
            color=f"C{color}",
            label=f"{name}, temperature {temperature:g}",
        )
left.set(xscale="log", xlabel="n_components", ylabel="accuracy", title="digits: accuracy of a classifier on top")
left.set_xticks(dimensions, dimensions)
left.minorticks_off()
left.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.15))

table = unlabelled.cv_results_["mean_test_score"].reshape(len(graph_dimensions), len(graph_temperatures))
right.imshow(table, aspect="auto", origin="lower", vmin=-10)
right.set_xticks(range(len(graph_temperatures)), ["1/64", "1/16", "1/4", "1", "4"])
right.set_yticks(range(len(graph_dimensions)), graph_dimensions)
for row in range(table.shape[0]):
    for column in range(table.shape[1]):
        is_low = table[row, column] < -7
        right.text(column, row, f"{table[row, column]:.2f}", ha="center", va="center", color="w" if is_low else "k")
right.set(xlabel="temperature", ylabel="n_components", title="graph: held-out log likelihood, no labels")
plt.show()
