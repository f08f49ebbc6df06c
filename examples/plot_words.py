"""
=======================================
Words that occur together, and the rest
=======================================

Word vectors from documents, the words most similar to a few, and documents classified by the mean vector of their
words.
"""

# %%
# Documents
# ---------
# Five of the 20 newsgroups, if scikit-learn has them already: nothing is downloaded. Otherwise text is generated, by
# one grammar for six topics. Some words belong to two of them, "bass" to the sea and to music, and function words to
# all. Every other sentence of a document strays to a topic drawn at random.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import fetch_20newsgroups
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline

from sklearn_attnembed import AttentionWordVectors
from sklearn_attnembed.inspection import EmbeddingDisplay

# Adjectives, nouns, verbs and places of each topic.
TOPICS = {
    "sea": "salty stormy calm / ship whale sailor anchor bass / sails dives drifts / harbour reef island",
    "music": "loud gentle jazzy / violin drum singer choir bass / plays hums rehearses / stage concert studio",
    "space": "distant bright orbital / rocket planet comet probe star / launches orbits glows / galaxy moon crater",
    "film": "funny dramatic silent / actor director scene script star / films acts edits / cinema festival screen",
    "kitchen": "spicy fresh sweet / cook soup onion bread pepper / boils tastes bakes / oven pot restaurant",
    "garden": "green leafy wild / gardener rose seed tomato pepper / grows blooms digs / lawn greenhouse meadow",
}


def write_documents(n_documents, rng):
    """Documents of four sentences, their topics by number, and the names of these."""
    grammar = [[part.split() for part in words.split("/")] for words in TOPICS.values()]
    topic = rng.integers(len(grammar), size=n_documents)
    texts = [""] * n_documents
    for document, main in enumerate(topic):
        for strays in rng.random(4) < 1 / 2:
            adjectives, nouns, verbs, places = map(
                rng.permutation, grammar[rng.integers(len(grammar)) if strays else main]
            )
            joint, where = rng.choice(["and", "or", "with"]), rng.choice(["near", "behind", "under"])
            subject = f"the {adjectives[0]} {nouns[0]} {joint} the {nouns[1]}"
            texts[document] += f"{subject} {verbs[0]} {where} the {places[0]}. "
    return texts, topic, list(TOPICS)


try:
    groups = fetch_20newsgroups(
        subset="train",
        categories=["rec.autos", "rec.sport.hockey", "sci.med", "sci.space", "talk.politics.mideast"],
        remove=("headers", "footers", "quotes"),
        download_if_missing=False,
    )
    long = [place for place, text in enumerate(groups.data) if len(text.split()) > 30]
    texts, y, topics = [groups.data[place] for place in long], groups.target[long], groups.target_names
    asked, params = {"doctor": [], "orbit": [], "engine": []}, {"n_components": 64, "min_count": 10}
    print("20 newsgroups, five of them")
except OSError:
    texts, y, topics = write_documents(800, np.random.default_rng(0))
    asked = {"whale": [], "star": [], "bass": [], "bass without violin": ["violin"]}
    params = {"n_components": 16, "window": 2}
    print("20 newsgroups are not there: generated text instead")

# %%
# Similar words
# -------------
# Of a word that belongs to two topics the most similar words may all be of one. Subtracting a word of that one leaves
# the other.
model = AttentionWordVectors(**params, temperature=0.3, random_state=0).fit(texts)
print(f"{len(texts)} documents, {len(model.vocabulary_)} words")
for question, negative in asked.items():
    similar = model.most_similar(question.split()[0], topn=8, negative=negative)
    print(f"{question:20}", *[word for word, _ in similar])

# %%
# Documents by the mean vector of their words
# -------------------------------------------
# The vectors are learned within each fold. On the generated text they classify as well as a column for each word,
# within the spread over the folds, with far fewer columns.
for name, features in (
    ("word vectors", AttentionWordVectors(**params, temperature=0.3, random_state=0)),
    ("tf-idf", TfidfVectorizer(min_df=5)),
):
    classifier = make_pipeline(features, LogisticRegression(max_iter=1000))
    accuracy = cross_val_score(classifier, texts, y, cv=StratifiedKFold(3, shuffle=True, random_state=0))
    n_columns = features.fit_transform(texts).shape[1]
    print(f"{name:13} {n_columns:6} columns, accuracy {accuracy.mean():.3f} +- {accuracy.std():.3f}")

# %%
# A map of words
# --------------
# The words typical of each topic, and the most frequent. Colours are mixed by how often a word occurs in documents of
# each topic; the vectors were learned without these. Function words have all colours, which is brown. With a window of
# two words the vectors of the generated text know grammar too: places lie apart from the other words of their topic.
# A dot is a word whose name would cover others.
words = np.array(list(model.vocabulary_))
counts = CountVectorizer(vocabulary=model.vocabulary_).transform(texts)
rate = np.array([np.asarray(counts[y == topic].mean(axis=0)).ravel() for topic in range(len(topics))])
share = rate / rate.sum(axis=0)
typical = np.argsort(-rate * np.log(len(topics) * share + 1e-9), axis=1)[:, :14]
drawn = np.unique(np.append(typical, np.arange(7)))
place = TSNE(perplexity=25, metric="cosine", random_state=0).fit_transform(model.embedding_[drawn])
palette = plt.colormaps["Dark2"](range(len(topics)))[:, :3]
mixture = share[:, drawn].T ** 2
colors = mixture / mixture.sum(axis=1, keepdims=True) @ palette
figure, ax = plt.subplots(figsize=(10, 8.5), layout="constrained")
for name, color in zip(topics, palette, strict=True):
    ax.scatter([], [], color=color, label=name)
figure.legend(loc="outside lower center", ncols=len(topics))
EmbeddingDisplay(place, names=words[drawn]).plot(ax, c=colors, s=8)
color_of = dict(zip(words[drawn], colors, strict=True))
for text in ax.texts:
    text.set_color(color_of[text.get_text()])
ax.set_title("words by their vectors, in two dimensions")
plt.show()
