"""
===============
A day at school
===============

Contacts at school are recorded minute by minute: in the classes, in the yard and at lunch. Each pupil gets a vector for
the whole day and one for each twenty minutes.
"""

# %%
# Contacts
# --------
# The contacts are measured ones, if the environment variable ATTNEMBED_DATA names a folder with ``loaders.py``.
# Otherwise they are generated for ten classes, each with a teacher. In breaks, the younger and the older classes use
# different yards. At lunch, half of every class joins one of two sittings, for younger and older classes, and half
# stays in its room.
import importlib.util
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection
from sklearn.cluster import KMeans
from sklearn.manifold import TSNE
from sklearn.metrics import normalized_mutual_info_score

from sklearn_attnembed import AttentionEmbedding
from sklearn_attnembed.affinity import random_walk, temporal


def load_contacts(folder):
    """Return time of day in hours and both persons of the contacts of one day, and the class of each person."""
    spec = importlib.util.spec_from_file_location("loaders", Path(folder) / "loaders.py")
    loaders = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaders)
    data = loaders.primary_school()
    day = data.t < 24 * 3600
    return data.t[day] / 3600, data.i[day], data.j[day], np.array(data.label_names)[data.y]


def make_contacts(n_contacts=40_000, seed=0):
    """Generate the same for ten rooms of 24 people, of whom the first is a teacher."""
    rng = np.random.default_rng(seed)
    room = np.arange(240) // 24
    yard = (room >= 6).astype(int)
    lunch = np.where(rng.random(240) < 0.5, yard, 2 + room)
    time = rng.uniform(8.67, 17.33, n_contacts)
    is_lunch, is_break = (time > 12) & (time < 14), ((time > 10.5) & (time < 11)) | ((time > 16) & (time < 16.4))
    strays = rng.random(n_contacts) > np.where(is_break, 0.6, 0.97)
    first, chance = rng.choice(240, n_contacts, p=rng.dirichlet(np.full(240, 3.0))), rng.random(n_contacts)

    def meet(place):
        """Return a random person at the same place."""
        size = np.bincount(place)
        rank = (np.cumsum(size) - size)[place[first]] + (chance * size[place[first]]).astype(int)
        return np.argsort(place, kind="stable")[rank]

    second = np.select([is_lunch, strays], [meet(lunch), meet(yard)], meet(room))
    names = np.array([f"{grade}{letter}" for grade in range(1, 6) for letter in "AB"])
    return time, first, second, np.where(np.arange(240) % 24, names[room], "Teachers")


folder = os.environ.get("ATTNEMBED_DATA")
print("a primary school" if folder else "ATTNEMBED_DATA is not set: a generated school instead")
time, i, j, label = load_contacts(folder) if folder else make_contacts()
contacts = pd.DataFrame({"time": time, "i": i, "j": j})

# %%
# A vector for each person and slice of time
# ------------------------------------------
# `temporal` distinguishes the same person at different times, and `by_node` averages over times. Clusters of the
# vectors of the whole day agree with the classes of the pupils. Teachers are clustered with the class that they teach,
# but count as a class of their own, so the agreement over all persons is lower than over pupils. A graph of all
# contacts of the day, without their times, also finds the classes, slightly less well for the measured contacts.
walk = temporal(contacts, width=1 / 3, advance=0.2)
model = AttentionEmbedding(32, affinity="precomputed", temperature=0.3, tol=1e-3, random_state=0)
vectors = model.fit_transform(walk.affinity)
graph, nodes = random_walk(contacts[["i", "j"]], return_nodes=True)


def agreement(vectors, classes):
    """Return the NMI of clusters with classes, over the persons with contacts."""
    seen = vectors.any(axis=1)
    kmeans = KMeans(len(set(classes)), n_init=3, random_state=0).fit(vectors[seen])
    return normalized_mutual_info_score(classes[seen], kmeans.labels_)


print(f"{len(contacts)} contacts, {len(walk.nodes)} people, {len(walk.node)} states in {len(walk.edges) - 1} slices")
for name, embedding, people in (
    ("means over the day", walk.by_node(vectors), walk.nodes),
    ("graph of all contacts", model.fit_transform(graph), nodes),
):
    of_pupil = label[people] != "Teachers"
    pupils = agreement(embedding[of_pupil], label[people][of_pupil])
    print(f"{name:22} NMI {agreement(embedding, label[people]):.3f}, pupils alone {pupils:.3f}")

# %%
# Lesson, break, lunch
# --------------------
# `at` returns the vectors of all persons in a slice of time, and t-SNE reduces them to two dimensions; some jitter is
# added. Lines are contacts of the slice, colors are classes and crosses are teachers. In lessons, people are with their
# class. In the break, classes that share a yard meet. At lunch, each class splits into those who eat with others of
# their age and the rest. After lunch, people are with their class again.
hours = (walk.edges[:-1] + walk.edges[1:]) / 2
at = np.digitize(time, walk.edges[1:-1])
inside = np.bincount(at, label[i] == label[j]) / np.bincount(at)
states = [walk.at(vectors, k) for k in range(len(hours))]
found = [agreement(state, label[walk.nodes]) for state in states]

figure, axes = plt.subplot_mosaic("abc;ddd", figsize=(11, 7), layout="constrained", height_ratios=(3, 2))
names, color = np.unique(label[walk.nodes], return_inverse=True)
palette = np.array(plt.get_cmap("Paired").colors)
jitter = np.random.default_rng(0).standard_normal((len(walk.nodes), 2))
place = np.argsort(walk.nodes)  # rows of the vectors by number of the person
for panel, name, hour in (("a", "lesson", 9.5), ("b", "break", 10.75), ("c", "lunch", 12.75)):
    k = np.argmin(np.abs(hours - hour))
    print(f"{name:7} contacts within classes {inside[k]:.2f}, NMI {found[k]:.2f}")
    seen = states[k].any(axis=1)
    plane = np.full((len(seen), 2), np.nan)
    plane[seen] = TSNE(perplexity=15, metric="cosine", init="random", random_state=0).fit_transform(states[k][seen])
    plane += 0.035 * np.nanmax(np.ptp(plane[seen], axis=0)) * jitter  # so that everyone can be seen
    pairs = np.unique(np.sort(place[np.searchsorted(walk.nodes[place], np.stack([i, j], 1)[at == k])], axis=1), axis=0)
    axes[panel].add_collection(LineCollection(plane[pairs], colors="k", linewidths=0.3, alpha=0.25, zorder=1))
    is_teacher = label[walk.nodes] == "Teachers"
    for people, style in ((seen & ~is_teacher, "o"), (seen & is_teacher, "x")):
        shades = palette[color[people]] if style == "o" else "k"
        axes[panel].scatter(*plane[people].T, c=shades, marker=style, s=16, zorder=2)
    axes[panel].set(xticks=[], yticks=[])
    axes[panel].set_title(f"{name}, {walk.edges[k] // 1:.0f}:{walk.edges[k] % 1 * 60:02.0f}")
    axes["d"].axvspan(walk.edges[k], walk.edges[k + 1], color="k", alpha=0.12, linewidth=0)
    axes["d"].annotate(name, (hours[k], 0.05), ha="center")
markers = [
    plt.Line2D(
        [],
        [],
        linestyle="",
        **({"color": "k", "marker": "x"} if name == "Teachers" else {"color": shade, "marker": "o"}),
    )
    for name, shade in zip(names, palette, strict=False)
]
figure.legend(markers, names, loc="outside right upper", title="class")
axes["d"].step(hours, inside, where="mid", label="share of contacts within classes")
axes["d"].plot(hours, found, marker="o", label="NMI of clusters with classes")
axes["d"].set(xlabel="hour of the day", ylabel="share, NMI", ylim=(0, 1.02))
axes["d"].legend(loc="lower right")
plt.show()
