"""
===============================================
What a model attends to, and what fits badly
===============================================

A graph has two kinds of unusual nodes: strays, whose links are drawn at random, and bridges, half of whose links lead
to another community. This example finds the rows that a model fits badly, compares them with the unusual nodes, and
shows what these attend to.
"""

# %%
# Five communities, ten strays, ten bridges
# -----------------------------------------
# An unusual node keeps its number of links, so degrees do not reveal it.
import matplotlib.pyplot as plt
import numpy as np
import scipy.sparse as sp
from matplotlib.colors import LogNorm

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

model = AttentionEmbedding(8, affinity="precomputed", temperature=1, random_state=0).fit(adjacency)
print(f"{model.n_iter_} iterations, loss {model.loss_curve_[0]:.2f} to {model.loss_curve_[-1]:.2f} nats")

# %%
# Which rows fit badly
# --------------------
# `explain_rows` returns the loss of each row, the entropy of its affinities, which is a lower bound of the loss, and
# their difference, the divergence. Rows are sorted by decreasing divergence. If all links have the same weight, the
# entropy is the logarithm of the degree, and a model that spreads attention over a community has a large divergence for
# all nodes of low degree. The loss is more informative here: the ten strays have the largest losses. The bridges
# follow, among ordinary nodes that happen to have links to other communities; all ten are among the worst forty rows.
# At a lower temperature the model also fits the random links of the strays and no longer distinguishes them.
rows = model.explain_rows()
kind = np.full(1000, "ordinary")
kind[strays], kind[bridges] = "stray", "bridge"
rows["links"], rows["kind"] = np.diff(adjacency.indptr)[rows["row"]], kind[rows["row"]]
worst = rows.sort_values("loss", ascending=False, ignore_index=True)
print("By divergence:", rows.head(5).round(2).to_string(index=False), sep="\n")
print("By loss:", worst.head(12).round(2).to_string(index=False), sep="\n")
for count in (10, 20, 40):
    print(f"the worst {count} by loss:", worst["kind"].head(count).value_counts().to_dict())

# %%
# One row, key by key
# -------------------
# `explain` compares the attention of a row with its target. This row is a bridge from community 0 to community 1. After
# itself, it attends most to the three other bridges between these communities, though it is linked to none of them,
# because their vectors are similar. Sums over communities show the difference between the two kinds: the bridge attends
# to two communities, like its links, and a stray to all five. The column `share` splits the loss among the keys.
bridge = min(bridges[communities[bridges] == 0], key=lambda node: adjacency.indptr[node + 1] - adjacency.indptr[node])
table = model.explain(bridge)
table["kind"], table["community"] = kind[table["key"]], communities[table["key"]]
print(f"bridge {bridge}", table.head(6).round(4).to_string(index=False), sep="\n")
stray, ordinary = worst["row"].iloc[0], worst["row"].iloc[-1]
for name, row in (("an ordinary node", ordinary), ("the bridge", bridge), ("the worst stray", stray)):
    sums = model.explain(row).sort_values("key").groupby(communities)[["target", "attention", "share"]].sum()
    print(f"\n{name}, of community {communities[row]}", sums.round(2).T.to_string(), sep="\n")

# %%
# Whole communities
# -----------------
# `explain_clusters` returns the share of Z of each community. For the nodes of community 0, their own community has by
# far the largest share. For its four bridges, community 1 has as large a share.
for name, chosen in (("community 0", communities == 0), ("its bridges", bridges[communities[bridges] == 0])):
    held = model.explain_clusters(labels=communities, rows=chosen)
    print(name, held.round(2).to_string(index=False), sep="\n")

# %%
# Pictures
# --------
# The loss has converged, so rows that fit badly are not due to too few iterations. In the heat map, strays and bridges
# are stripes across communities.
figure, axes = plt.subplot_mosaic("ab;dc", figsize=(11, 8.5), layout="constrained")
LossCurveDisplay.from_estimator(model, ax=axes["a"])
axes["a"].set_title("has the solver come to rest?")
for name, marker, color, size in (("ordinary", "o", "0.75", 3), ("bridge", "s", "C0", 7), ("stray", "^", "C1", 8)):
    chosen = rows[rows["kind"] == name]
    axes["b"].plot(chosen["links"], chosen["loss"], marker, color=color, markersize=size, label=name)
axes["b"].set(xlabel="links of the node", ylabel="loss of its row (nats)", title="which rows fit badly?")
axes["b"].legend(loc="upper right")
axes["b"].spines[["top", "right"]].set_visible(False)
AttentionScoresDisplay.from_estimator(model, labels=communities, norm=LogNorm(0.3, 3), ax=axes["c"])
axes["c"].set(xlabel="keys, by community", ylabel="queries, by community", title="who attends to whom?")
names = [f"{node}, {what}, of {home}" for node, (what, home) in enumerate(zip(kind, communities, strict=True))]
AttentionScoresDisplay(model.attention_scores(rows=[bridge]), key_names=names).plot_query(ax=axes["d"], n_keys=12)
axes["d"].set(xlabel="attention", title=f"what does bridge {bridge} attend to?")
plt.show()
