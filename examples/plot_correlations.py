"""
======================================
Links that do not know the sign
======================================

Two stocks are strongly related if their prices move together or exactly against each other, and unrelated if they are
uncorrelated. A network of such relations records the size of a correlation, but not its sign. Softmax attention can
place related nodes in one direction only. Expressive attention is high for parallel and antiparallel vectors alike, so
it can represent both signs.
"""

# %%
# Links in proportion to a squared correlation
# --------------------------------------------
# Each of 1,000 nodes has a hidden unit vector in three dimensions. About fifty links for each node are drawn in
# proportion to the squared inner product of these vectors. Half of the links are between vectors with a negative inner
# product.
import matplotlib.pyplot as plt
import numpy as np
import scipy.sparse as sp
from sklearn.preprocessing import normalize

from sklearn_attnembed import AttentionEmbedding

rng = np.random.default_rng(0)
hidden = normalize(rng.standard_normal((1000, 3)))
correlation = hidden @ hidden.T
truth = np.square(correlation)
np.fill_diagonal(truth, 0)
truth /= truth.sum(axis=1, keepdims=True)
links = sp.csr_array(rng.poisson(25 * truth).astype(float))
links += links.T
print(
    f"{links.sum() / 1000:.0f} links for each node, {np.mean(correlation[links.nonzero()] < 0):.0%} of pairs opposite"
)

# %%
# How well attention fits
# -----------------------
# The divergence of attention from the true proportions is the mean over the nodes, in nats. For softmax, the best of
# several temperatures is taken in each dimension. Softmax cannot represent the graph in three dimensions. Its best
# dimension is six, the number of products of two coordinates.


def weights(model):
    """Return the attention of each node to the others, because no node is linked to itself."""
    A = model.attention_scores()
    np.fill_diagonal(A, 0)
    return A / A.sum(axis=1, keepdims=True)


def divergence(A):
    """Return the mean divergence of attention from the true proportions."""
    inside = truth > 0
    return np.sum(truth[inside] * np.log(truth[inside] / A[inside])) / len(truth)


def fitted(kernel, n_components, temperatures):
    """Return the model with the best temperature."""
    models = [
        AttentionEmbedding(n_components, affinity="precomputed", kernel=kernel, temperature=t, random_state=0).fit(
            links
        )
        for t in temperatures
    ]
    return min(models, key=lambda model: divergence(weights(model)))


expressive = fitted("expressive", 3, [1.0])
softmax = {d: fitted("softmax", d, [0.2, 0.35, 0.5, 1.0]) for d in (2, 3, 4, 6, 9, 16)}
nothing = divergence(np.full_like(truth, 1 / 999))
print(f"uniform                  {nothing:.3f}")
print(f"expressive,  3 dimensions {divergence(weights(expressive)):.3f}")
for d, model in softmax.items():
    print(f"softmax,    {d:2} dimensions {divergence(weights(model)):.3f}")

# %%
# Recovery of the hidden vectors
# ------------------------------
# The embedding recovers the hidden vectors up to a rotation and to signs, which the links do not determine.
found = np.abs(expressive.embedding_ @ expressive.embedding_.T)
print(f"correlation of found and hidden |cos|: {np.corrcoef(found.ravel(), np.abs(correlation).ravel())[0, 1]:.3f}")

pairs = rng.integers(1000, size=(2, 4000))
figure, panels = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
for panel, model, color in zip(panels, (expressive, softmax[3]), ("C0", "C1"), strict=False):
    panel.plot(correlation[*pairs], 999 * weights(model)[*pairs], ".", color=color, markersize=2, alpha=0.5)
    grid = np.linspace(-1, 1, 201)
    panel.plot(grid, 3 * grid**2, "k--", label="truth")
    panel.set(xlabel="correlation of hidden vectors", ylim=(0, 4), title=f"{model.kernel}, three dimensions")
    panel.legend(loc="upper center")
panels[0].set_ylabel("attention, in units of uniform")
panels[2].plot(
    list(softmax), [divergence(weights(model)) for model in softmax.values()], "o-", color="C1", label="softmax"
)
panels[2].plot(3, divergence(weights(expressive)), "o", color="C0", markersize=9, label="expressive")
panels[2].axhline(nothing, color="gray", linestyle=":", label="uniform")
panels[2].set(xlabel="dimensions", ylabel="divergence from the truth (nats)", ylim=(0, None), title="dimensions needed")
panels[2].legend(loc="lower right")
plt.show()
