"""
===============================================
What a model attends to, and what fits badly
===============================================

A graph has two kinds of odd nodes: strays, whose links were drawn at random, and bridges, half of whose links lead to
another community. Which rows does a model fit badly, are they these, and what does it make of them?
"""

# %%
# Five communities, ten strays, ten bridges
# -----------------------------------------
# An odd node keeps the number of its links, so counting links does not find it.
import matplotlib.pyplot as plt
import numpy as np
import scipy.sparse as sp

from sklearn_attnembed import AttentionEmbedding
from sklearn_attnembed.datasets import make_block_model
from sklearn_attnembed.inspection import AttentionScoresDisplay, LossCurveDisplay

rng = np.random.default_rng(0)
adjacency, communities = make_block_model(1000, 5, mean_degree=20, mixing=0.1, degree_spread=0.2, random_state=0)
odd = rng.choice(1000, 20, replace=False)
strays, bridges = odd[:10], odd[10:]
adjacency = adjacency.tolil()
for node in odd:
    is_bridge = node in bridges
    others = np.flatnonzero(communities == (communities[node] + 1) % 5) if is_bridge else np.arange(1000)
    old = adjacency.rows[node][:: 2 if is_bridge else 1]
    free = np.setdiff1d(others, [node, *adjacency.rows[node]])
    new = rng.choice(free, len(old), replace=False)
    adjacency[node, old] = adjacency[old, node] = 0
    adjacency[node, new] = adjacency[new, node] = 1
adjacency = sp.csr_array(adjacency)

model = AttentionEmbedding(16, affinity="precomputed", temperature=1, random_state=0).fit(adjacency)
print(f"{model.n_iter_} iterations, loss {model.loss_curve_[0]:.2f} to {model.loss_curve_[-1]:.2f} nats")

# %%
# Which rows fit badly
# --------------------
# `explain_rows` has the loss of each row, the entropy of its affinities, below which no loss can be, and the divergence,
# which is the difference. The largest divergence comes first. Where all links weigh the same, though, the entropy is
# the logarithm of their number, and a model that spreads attention over a community is far from it wherever links are
# few: the divergence mostly says who has few links. Sorted by loss, the ten strays come first, and the bridges follow,
# among ordinary nodes that have some links to elsewhere by chance.
rows = model.explain_rows()
kind = np.full(1000, "ordinary")
kind[strays], kind[bridges] = "stray", "bridge"
rows["links"], rows["kind"] = np.diff(adjacency.indptr)[rows["row"]], kind[rows["row"]]
worst = rows.sort_values("loss", ascending=False, ignore_index=True)
print("By divergence:", rows.head(5).round(2).to_string(index=False), sep="\n")
print("By loss:", worst.head(12).round(2).to_string(index=False), sep="\n")
for count in (10, 20, 40):
    print(f"among the worst {count} by loss:", *worst["kind"].head(count).value_counts().items())

# %%
# One row, key by key
# -------------------
# `explain` lays a row's attention beside its target. `share` says where the loss comes from. Summed over communities it
# shows what is wrong with the worst bridge: it attends to two communities, as its links ask for. A stray has links to
# all five, attends a little to each, and can hit none.
stray = worst["row"][worst["kind"] == "stray"].iloc[0]
bridge = worst["row"][worst["kind"] == "bridge"].iloc[0]
ordinary = worst["row"][worst["kind"] == "ordinary"].iloc[-1]
print("The bridge:", model.explain(bridge).head(5).round(4).to_string(index=False), sep="\n")
for name, row in (("ordinary", ordinary), ("bridge", bridge), ("stray", stray)):
    table = model.explain(row)
    sums = table.groupby(communities[table["key"]])[["target", "attention", "share"]].sum()
    print(f"\n{name} node {row}, of community {communities[row]}", sums.round(2).T.to_string(), sep="\n")

# %%
# Whole communities
# -----------------
# How much of Z each community holds, for the nodes of the first one, and for its odd nodes alone.
for name, chosen in (("all", communities == 0), ("ten strays", strays), ("ten bridges", bridges)):
    print(name, model.explain_clusters(labels=communities, rows=chosen).round(3).to_string(index=False), sep="\n")

figure, axes = plt.subplot_mosaic("ab;cd", figsize=(11, 8.5), layout="constrained")
LossCurveDisplay.from_estimator(model, ax=axes["a"])
AttentionScoresDisplay.from_estimator(model, labels=communities, ax=axes["b"])
for name, marker, color in (("ordinary", ".", "0.6"), ("bridge", "s", "C0"), ("stray", "^", "C1")):
    chosen = rows[rows["kind"] == name]
    axes["c"].plot(chosen["links"], chosen["loss"], marker, color=color, label=name)
AttentionScoresDisplay.from_estimator(model, query=bridge, ax=axes["d"])
plt.show()
