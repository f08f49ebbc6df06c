"""
=================================================
Choosing dimension, temperature and walk length
=================================================

A graph with eight communities: which dimension, temperature and walk length does it want? With labels a classifier
says so; without, links that were hidden from the model do. The score of held-out nodes does not.
"""

# %%
# A graph, and three parameters
# -----------------------------
# One thousand nodes with fourteen links each on average, a third of which ignore the communities.
import matplotlib.pyplot as plt
import numpy as np
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline

from sklearn_attnembed import AttentionEmbedding
from sklearn_attnembed.datasets import make_block_model
from sklearn_attnembed.metrics import attention_cross_entropy

adjacency, communities = make_block_model(1000, 8, mean_degree=14, mixing=0.35, degree_spread=0, random_state=0)
dimensions, temperatures, walks = [2, 4, 6, 8, 12, 16, 32, 64], [0.2, 0.5, 1], [1, 3]
shape = len(dimensions), len(temperatures), len(walks)
grid = {
    "embedding__n_components": dimensions,
    "embedding__temperature": temperatures,
    "embedding__walk_length": walks,
}

# %%
# With labels: a classifier's accuracy
# ------------------------------------
# The grid search cuts the graph in rows and columns, as it does with every precomputed kernel: the model is fitted on
# the links among the training nodes, the others reach the classifier through `transform`, by their links to these.
pipeline = Pipeline(
    [
        ("embedding", AttentionEmbedding(affinity="precomputed", random_state=0)),
        ("classifier", LogisticRegression(C=10, max_iter=1000)),
    ]
)
folds = list(StratifiedKFold(3, shuffle=True, random_state=0).split(adjacency, communities))
labelled = GridSearchCV(pipeline, grid, cv=folds, n_jobs=2).fit(adjacency, communities)
accuracy = labelled.cv_results_["mean_test_score"].reshape(shape)

# %%
# Without labels, the wrong way: held-out nodes
# ---------------------------------------------
# The same search less the classifier rates models by their own `score`, the log likelihood of the links of held-out
# nodes. `transform` has placed these nodes by the very links that are rated, so the more freely a node can be placed,
# the better: the largest dimension and the lowest temperature win, and would whatever they were.
by_rows = GridSearchCV(pipeline[:-1], grid, cv=folds, n_jobs=2).fit(adjacency)
likelihood = by_rows.cv_results_["mean_test_score"].reshape(shape)


# %%
# Without labels, the right way: hidden links
# -------------------------------------------
# Hide one link in five, fit on the others, and take the cross entropy between hidden links and attention: all nodes are
# known to the model, the links in question are not. What fits the noise of the links seen is punished here.
def symmetric(links, chosen):
    """The graph of some of the links."""
    half = sp.coo_array((links.data[chosen], (links.row[chosen], links.col[chosen])), adjacency.shape)
    return (half + half.T).tocsr()


links = sp.triu(adjacency, 1).tocoo()
losses = np.empty((2, *shape))
for seed in range(2):
    is_hidden = np.random.default_rng(seed).random(links.nnz) < 0.2
    seen, hidden = symmetric(links, ~is_hidden), symmetric(links, is_hidden)
    for place in np.ndindex(shape):
        d, t, w = dimensions[place[0]], temperatures[place[1]], walks[place[2]]
        model = AttentionEmbedding(d, affinity="precomputed", temperature=t, walk_length=w, random_state=0).fit(seen)
        losses[seed, *place] = attention_cross_entropy(hidden, model.embedding_, model.key_embedding_, temperature=t)
loss = losses.mean(axis=0)

# %%
# What each of them chooses
# -------------------------
# From eight dimensions on, as many as there are communities, the classifier hardly cares: accuracies differ by little
# more than the spread over the folds. Hidden links choose eight, and walks of three steps rather than of
# one. Held-out nodes choose the corner of the grid, which does badly on hidden links: at a low temperature a model is
# sure of the links that it has seen, and wrong about the rest. A ring marks each choice.
ways = [
    ("labels", accuracy, labelled.best_index_, "accuracy of held-out nodes"),
    ("held-out nodes", likelihood, by_rows.best_index_, "score of held-out nodes (nats)"),
    ("hidden links", loss, loss.argmin(), "cross entropy of hidden links (nats)"),
]
spread = labelled.cv_results_["std_test_score"][labelled.best_index_]
print(f"spread of the accuracy over folds: {spread:.3f}")
print("chosen by       n_components  temperature  walk_length  accuracy  cross entropy of hidden links")
figure, panels = plt.subplots(1, 3, figsize=(12, 4.4), layout="constrained")
for panel, (name, values, index, label) in zip(panels, ways, strict=True):
    best = np.unravel_index(index, shape)
    d, t, w = dimensions[best[0]], temperatures[best[1]], walks[best[2]]
    print(f"{name:14} {d:13} {t:12} {w:12} {accuracy[best]:9.3f} {loss[best]:30.3f}")
    for column, (color, marker) in enumerate(zip(("C0", "C1", "k"), "os^", strict=True)):
        for place, style in enumerate((":", "-")):
            text = f"temperature {temperatures[column]:g}, walks of {walks[place]}"
            line = {"color": color, "linestyle": style, "marker": marker, "markersize": 4, "label": text}
            panel.plot(dimensions, values[:, column, place], **line)
    panel.plot(d, values[best], "o", markersize=14, fillstyle="none", color="tab:red", markeredgewidth=2)
    panel.set(xscale="log", xlabel="n_components", ylabel=label, title=f"by {name}: {d}")
    panel.set_xticks(dimensions, dimensions)
    panel.minorticks_off()
    panel.spines[["top", "right"]].set_visible(False)
panels[2].set_ylim(top=7.5)  # low temperatures in few dimensions are far above
figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
plt.show()
