"""
==========================================
Communities, up to where they can be found
==========================================

Graphs with four planted communities get an increasing share of random edges. Beyond a threshold, no fast method is
known to find the communities. This example shows how close to the threshold embeddings find them.
"""

# %%
# Where the threshold is
# ----------------------
# Let there be `k` equal communities, mean degree `c` and a share `mixing` of edges that ignore communities. Then a node
# has ``c_in / k`` edges to its own community, with ``c_in = c (k (1 - mixing) + mixing)``, and ``c_out / k`` to each
# other one, with ``c_out = c mixing``. The threshold of Kesten and Stigum, ``c_in - c_out = k sqrt(c)``, becomes
# ``(1 - mixing) sqrt(c) = 1``. If degrees vary, `c` is replaced by ``E[d^2] / E[d]`` of the expected degrees, because a
# neighbor has more edges than a node. For observed degrees this is ``E[d (d - 1)] / E[d]``, the mean number of further
# edges at the end of an edge.
import matplotlib.pyplot as plt
import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import eigsh
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.metrics import normalized_mutual_info_score
from sklearn.preprocessing import normalize

from sklearn_attnembed import AttentionEmbedding
from sklearn_attnembed.datasets import make_block_model
from sklearn_attnembed.inspection import EmbeddingDisplay

n_classes, mixings = 4, np.array([0.2, 0.4, 0.5, 0.6, 0.7, 0.8])


def make_graph(mixing, seed):
    """Return the largest component of a graph, because spectral clustering needs a connected one."""
    A, y = make_block_model(1500, n_classes, mean_degree=12, mixing=mixing, random_state=seed)
    component = connected_components(A)[1]
    kept = component == np.bincount(component).argmax()
    return A[kept][:, kept], y[kept]


def regularized_spectral(A):
    """Return the leading eigenvectors of the normalized adjacency matrix with the mean degree added to degrees."""
    degree = A.sum(axis=1)
    scale = sp.diags_array((degree + degree.mean()) ** -0.5)
    return normalize(eigsh(scale @ A @ scale, n_classes, v0=np.ones(len(degree)))[1])


model = AttentionEmbedding(
    32, affinity="precomputed", walk_length=3, temperature=1, tol=3e-3, max_iter=300, random_state=0
)
kmeans = KMeans(n_classes, n_init=3, random_state=0)

# %%
# Two graphs for each mixing
# --------------------------
# All methods find communities that are clearly separated. Spectral clustering is the first to fail, because its
# eigenvectors concentrate on small, weakly connected parts of the graph. Regularization is the known remedy; with it,
# spectral clustering gets about as far as the attention embedding. All methods fail at the threshold.
names = ["attention embedding", "spectral clustering", "regularized spectral"]
scores, thresholds = np.empty((2, len(mixings), len(names))), []
for seed in range(2):
    for row, mixing in enumerate(mixings):
        A, y = make_graph(mixing, seed)
        degree = A.sum(axis=1)
        thresholds.append(1 - np.sqrt(degree.mean() / (degree * (degree - 1)).mean()))
        found = [
            kmeans.fit_predict(model.fit_transform(A)),
            SpectralClustering(n_classes, affinity="precomputed", n_init=3, random_state=0).fit_predict(A),
            kmeans.fit_predict(regularized_spectral(A)),
        ]
        scores[seed, row] = [normalized_mutual_info_score(y, classes) for classes in found]
threshold = np.mean(thresholds)
print(f"threshold: mixing {threshold:.3f}")
print("mixing", *names, sep="  ")
for mixing, row in zip(mixings, scores.mean(axis=0), strict=True):
    print(f"{mixing:<6g}", *(f"{score:{len(name)}.2f}" for score, name in zip(row, names, strict=True)), sep="  ")

# %%
# The curve, and two embeddings on it
# -----------------------------------
figure, axes = plt.subplot_mosaic("aab;aac", figsize=(10, 5.5), layout="constrained")
for name, marker, values in zip(names, "os^", np.moveaxis(scores, 2, 0), strict=True):
    axes["a"].errorbar(mixings, values.mean(axis=0), values.std(axis=0), marker=marker, capsize=3, label=name)
axes["a"].axvline(threshold, color="k", linestyle="--", label="threshold")
axes["a"].axvspan(threshold, mixings[-1] + 0.03, color="k", alpha=0.07, linewidth=0)
axes["a"].set(xlabel="mixing: share of edges that ignore communities", ylabel="NMI of clusters with communities")
axes["a"].set(title="communities found", xlim=(mixings[0] - 0.03, mixings[-1] + 0.03), ylim=(-0.02, 1.02))
axes["a"].legend()
for panel, mixing in (("b", 0.4), ("c", 0.6)):
    A, y = make_graph(mixing, 0)
    EmbeddingDisplay.from_estimator(model.fit(A), y=y, ax=axes[panel])
    axes[panel].set_title(f"embedding at mixing {mixing:g}")
plt.show()
