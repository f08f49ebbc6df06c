"""
============================
Recommendations to new users
============================

Users and items are embedded together, and users that the model has never seen get recommendations based on what they
have heard so far. This example measures how many of the artists that they listen to next are recommended, in comparison
with a truncated SVD and with the most popular artists.
"""

# %%
# A long table of who heard what
# ------------------------------
# The data are those of real listeners, if the environment variable ATTNEMBED_DATA names a folder with ``loaders.py``.
# Otherwise they are generated: there are twenty genres, of which each user likes a few, and some artists are heard far
# more often than others. A part of what each user has heard is held out and has to be predicted.
import importlib.util
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.decomposition import TruncatedSVD

from sklearn_attnembed import AttentionRecommender
from sklearn_attnembed.affinity import bipartite


def load_listeners(folder):
    """Return pairs of listener and artist, known and held out."""
    spec = importlib.util.spec_from_file_location("loaders", Path(folder) / "loaders.py")
    loaders = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaders)
    data = loaders.lastfm()
    return data.train, data.test


def make_listeners(n_users=2000, n_artists=2000, n_genres=20, seed=0):
    """Generate pairs of listener and artist, known and held out."""
    rng = np.random.default_rng(seed)
    taste = rng.dirichlet(np.full(n_genres, 0.15), size=n_users)
    genre = np.arange(n_artists) % n_genres
    popularity = rng.permutation(1 / np.arange(10, n_artists + 10))
    pairs = []
    for user, likes in enumerate(taste):
        chance = (likes + 0.1 / n_genres)[genre] * popularity
        heard = rng.choice(n_artists, size=40, replace=False, p=chance / chance.sum())
        pairs.extend((user, artist) for artist in heard)
    pairs = np.array(pairs)
    held_out = rng.random(len(pairs)) < 0.2
    return pairs[~held_out], pairs[held_out]


folder = os.environ.get("ATTNEMBED_DATA")
print("listeners of Last.fm" if folder else "ATTNEMBED_DATA is not set: generated listeners instead")
known, held_out = (
    pd.DataFrame(pairs, columns=["user", "artist"])
    for pairs in (load_listeners(folder) if folder else make_listeners())
)

# %%
# Training users and new users
# ----------------------------
# The model is fitted on four users in five. The others are new: what they have heard, and what is held out, is
# converted to rows with the columns that the model knows.
users = np.random.default_rng(0).permutation(np.intersect1d(known.user, held_out.user))
is_new = known.user.isin(users[: len(users) // 5])
table = bipartite(known[~is_new])
new = bipartite(known[is_new], columns=table.columns)
wanted = bipartite(held_out, rows=new.rows, columns=table.columns).affinity.toarray()
print(f"{table.affinity.shape[0]} users to learn from, {len(new.rows)} new, {len(table.columns)} artists")

# %%
# Embedding, singular vectors, popularity
# ---------------------------------------
# `recommend` ranks artists by attention: that of the user, which accounts for their popularity, and that of the artists
# that the user has heard. The temperature is found on artists that are held out of the known ones.
n_items = 50
model = AttentionRecommender(64, random_state=0).fit(table.affinity)
print(f"temperature {model.temperature_}")
found = {"attention, 64": model.recommend(new.affinity, n_items)[0]}
popularity = table.affinity.sum(axis=0)
scores = {}
for n_components in (64, 20):
    svd = TruncatedSVD(n_components, random_state=0).fit(table.affinity)
    scores[f"SVD, {n_components}"] = svd.inverse_transform(svd.transform(new.affinity))
scores["popularity"] = np.tile(popularity, (len(new.rows), 1))
for name, score in scores.items():
    found[name] = np.argsort(np.where(new.affinity.toarray() > 0, np.inf, -score), axis=1)[:, :n_items]

# %%
# Recall, and how popular the recommendations are
# -----------------------------------------------
# On the generated listeners, an SVD with as many components as there are genres is as good, but with real listeners
# that number is unknown. None of the methods recommends rare artists as often as users listen to them; the embedding
# comes closest.
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
has_any = wanted.sum(axis=1) > 0
rank = np.argsort(np.argsort(-popularity, kind="stable"))
among = np.arange(1, len(rank) + 1)


def plot_popularity(weights, **style):
    """Plot the share of the given artists that is among the k most popular, for all k."""
    counts = np.bincount(rank, weights, minlength=len(rank))
    right.plot(among, counts.cumsum() / counts.sum(), **style)


style_of = dict(zip(found, ("-", "--", "-.", ":"), strict=True))
for name, items in found.items():
    recall = np.take_along_axis(wanted, items, 1).cumsum(axis=1)[has_any] / wanted.sum(axis=1)[has_any, None]
    left.plot(np.arange(1, n_items + 1), recall.mean(axis=0), linestyle=style_of[name], label=name)
    print(f"recall@20 {recall[:, 19].mean():.3f} +- {recall[:, 19].std() / len(recall) ** 0.5:.3f}  {name}")
    plot_popularity(np.bincount(items[:, :20].ravel(), minlength=len(rank)), linestyle=style_of[name])
plot_popularity(wanted.sum(axis=0), label="held-out artists", color="k", linewidth=1)
left.set(xlabel="recommendations for each user", ylabel="recall", title="held-out artists that are found", ylim=0)
right.set(xscale="log", xlabel="most popular artists", ylabel="their share of recommendations", ylim=(0, 1.02))
right.set_title("popularity of the twenty best")
left.legend(loc="upper left")
right.legend(loc="lower right")
plt.show()
