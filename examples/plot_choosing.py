"""
=================================================
Choosing dimension, temperature and walk length
=================================================

This example chooses dimension, temperature and walk length for a graph with eight communities. With labels, the
accuracy of a classifier is the criterion. Without labels, links that were hidden from the model are. The score of
held-out nodes is not a good criterion.
"""

# %%
# A graph, and three parameters
# -----------------------------
# The graph has one thousand nodes with fourteen links each on average, of which a third ignore the communities.
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
# The grid search splits both rows and columns of the graph, as it does with every precomputed kernel. The model is
# fitted on the links among the training nodes. The other nodes reach the classifier through `transform`, which uses
# their links to training nodes.
pipeline = Pipeline(
    [
        ("embedding", AttentionEmbedding(affinity="precomputed", random_state=0)),
        ("classifier", LogisticRegression(C=10, max_iter=1000)),
    ]
)
folds = list(StratifiedKFold(3, shuffle=True, random_state=0).split(adjacency, communities))
labeled = GridSearchCV(pipeline, grid, cv=folds, n_jobs=2).fit(adjacency, communities)
accuracy = labeled.cv_results_["mean_test_score"].reshape(shape)

# %%
# Without labels, the wrong way: held-out nodes
# ---------------------------------------------
# The same search without the classifier rates models by their own `score`, the log likelihood of the links of held-out
# nodes. `transform` computes the vectors of these nodes from the same links that are scored, so models with more
# freedom always score better: the largest dimension and the lowest temperature of any grid win.
by_rows = GridSearchCV(pipeline[:-1], grid, cv=folds, n_jobs=2).fit(adjacency)
likelihood = by_rows.cv_results_["mean_test_score"].reshape(shape)


# %%
# Without labels, the right way: hidden links
# -------------------------------------------
# Hide one link in five, fit on the others, and compute the cross entropy between hidden links and attention. The model
# knows all nodes, but not the hidden links, so a model that fits the noise of the visible links scores worse. Many
# models of the grid do, and `fit` would warn of them: ``check_loss=False`` turns that off.
def symmetric(links, chosen):
    """Return the graph of the chosen links."""
    half = sp.coo_array((links.data[chosen], (links.row[chosen], links.col[chosen])), adjacency.shape)
    return (half + half.T).tocsr()


links = sp.triu(adjacency, 1).tocoo()
losses = np.empty((2, *shape))
for seed in range(2):
    is_hidden = np.random.default_rng(seed).random(links.nnz) < 0.2
    seen, hidden = symmetric(links, ~is_hidden), symmetric(links, is_hidden)
    for place in np.ndindex(shape):
        d, t, w = dimensions[place[0]], temperatures[place[1]], walks[place[2]]
        model = AttentionEmbedding(
            d, affinity="precomputed", temperature=t, walk_length=w, check_loss=False, random_state=0
        ).fit(seen)
        losses[seed, *place] = attention_cross_entropy(hidden, model.embedding_, model.key_embedding_, temperature=t)
loss = losses.mean(axis=0)

# %%
# What each criterion chooses
# ---------------------------
# From eight dimensions on, the number of communities, the accuracy of the classifier differs by little more than its
# spread over the folds. Hidden links choose eight dimensions, and walks of three steps rather than one. Held-out nodes
# choose the corner of the grid, which does badly on hidden links: at a low temperature a model is certain of the links
# that it has seen, and wrong about the rest. A ring marks each choice.
ways = [
    ("labels", accuracy, labeled.best_index_, "accuracy of held-out nodes"),
    ("held-out nodes", likelihood, by_rows.best_index_, "score of held-out nodes (nats)"),
    ("hidden links", loss, loss.argmin(), "cross entropy of hidden links (nats)"),
]
spread = labeled.cv_results_["std_test_score"][labeled.best_index_]
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
