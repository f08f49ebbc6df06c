"""Several relations of the same samples: links beside features, types of edges with learned weights, signed edges.

Compares the classification of nodes from links, from features, and from both, by the weight of the features; tells
which weights are learned for real relations and for noise; and finds the camps of signed graphs.

Run ``python benchmarks/bench_relations.py`` from the repository's root.

Data: ``ATTNEMBED_DATA`` names the folder, which has cora, email_eu_core and r8.

Takes about 6 minutes on two cores; with ``--quick`` one seed, in about two, printed only.

Writes ``benchmarks/bench_relations.md``.
"""

import warnings

import numpy as np
import scipy.sparse as sp
from _common import loaders, options, protocols, write
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import kneighbors_graph
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import normalize

from sklearn_attnembed import AttentionEmbedding
from sklearn_attnembed.affinity import concatenate_affinities, mix_affinities
from sklearn_attnembed.datasets import make_block_model

D, WEIGHTS = 128, (0.25, 0.5, 0.75)
SEEDS = (0, 1, 2)


def spread(values, digits=1):
    """Mean and standard deviation over seeds."""
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=len(values) > 1):.{digits}f}"


def model(seed, affinity, d=D):
    """The estimator of all rows."""
    return AttentionEmbedding(d, affinity=affinity, walk_length=3, random_state=seed)


def text_neighbors(X, k):
    """Symmetric graph of nearest neighbors by the cosine."""
    A = kneighbors_graph(normalize(X), k)
    return sp.csr_array(A + A.T)


def with_self(A):
    """Links, and one of each node to itself."""
    return sp.csr_array(A) + sp.eye_array(A.shape[0])


def classified(y, vectors, seeds):
    """Micro-F1 at 10 and 50 % of the labels, for ``vectors(seed)``."""
    score, Y = protocols().node_classification, protocols().one_hot(y)
    found = []
    for seed in seeds:
        X = vectors(seed)
        found.append([score(X, Y, share, seeds=(seed,))["micro_f1"] for share in (0.1, 0.5)])
    return [spread(column) for column in np.transpose(found)]


def links_and_features(A, F, y, seeds):
    """Rows of the tables of classification."""
    neighbors = text_neighbors(F, 10)

    def joined(weight):
        return concatenate_affinities([with_self(A), F], [1 - weight, weight])

    def beside(seed):
        found = model(seed, "precomputed", D // 2).fit_transform(A)
        features = normalize(TruncatedSVD(D // 2, random_state=seed).fit_transform(F))
        return np.hstack([found, features])

    ways = {
        "links": lambda seed: model(seed, "precomputed").fit_transform(A),
        "features": lambda seed: model(seed, "bipartite").fit_transform(F),
        f"SVD of the features, d = {D}": lambda seed: TruncatedSVD(D, random_state=seed).fit_transform(F),
        "links and SVD of the features, 64 dimensions each": beside,
    }
    for weight in WEIGHTS:
        ways[f"links and features side by side, weight of features {weight:g}"] = lambda seed, weight=weight: model(
            seed, "bipartite"
        ).fit_transform(joined(weight))
    ways["links mixed with ten nearest neighbors by features"] = lambda seed: model(seed, "precomputed").fit_transform(
        mix_affinities([A, neighbors]).affinity
    )
    return [[name, *classified(y, vectors, seeds)] for name, vectors in ways.items()]


def unseen_nodes(A, F, y, seeds):
    """Accuracy on nodes of another fold, which neither the embedding nor the classifier was fitted to."""
    found = {
        "links": ("precomputed", sp.csr_array(A)),
        "features": ("bipartite", sp.csr_array(F)),
        "links and features side by side": ("bipartite", concatenate_affinities([with_self(A), F])),
    }
    rows = []
    for name, (affinity, X) in found.items():
        scores = [
            100
            * cross_val_score(
                make_pipeline(model(seed, affinity), LogisticRegression(C=10, max_iter=300)),
                X, y, cv=StratifiedKFold(5, shuffle=True, random_state=seed),
            ).mean()
            for seed in seeds
        ]  # fmt: skip
        rows.append([name, spread(scores)])
    return rows


def noise(n, n_edges, seed):
    """Edges between random pairs of nodes."""
    ends = np.random.default_rng(seed).integers(n, size=(2, n_edges))
    A = sp.csr_array((np.ones(n_edges), ends), shape=(n, n))
    return A + A.T


def learned_weights(A, F, seeds):
    """Weights of types of edges, learned by the likelihood of held-out edges."""
    mail = sp.csr_array(loaders().email_eu_core().directed)
    neighbors, n, m = text_neighbors(F, 10), A.shape[0], mail.shape[0]

    def blocks(seed):
        return make_block_model(600, 6, mean_degree=20, random_state=seed)[0]

    cases = {
        "Cora: links, text neighbors": lambda seed: [A, neighbors],
        "Cora: links, as many random edges": lambda seed: [A, noise(n, A.nnz // 2, seed)],
        "Cora: links, text neighbors, random edges": lambda seed: [A, neighbors, noise(n, neighbors.nnz // 2, seed)],
        "e-mail: sent, received": lambda seed: [mail, mail.T],
        "e-mail: sent, as many random edges": lambda seed: [mail, noise(m, mail.nnz // 2, seed)],
        "block model: edges, as many random edges": lambda seed: [blocks(seed), noise(600, 6000, seed)],
        "block models of the same classes: two": lambda seed: [blocks(seed), blocks(seed + 100)],
    }
    rows = []
    for name, relations in cases.items():
        weights = [
            mix_affinities(
                relations(seed), "held_out", estimator=model(seed, "precomputed", 32), random_state=seed
            ).weights
            for seed in seeds
        ]
        rows.append([name, ", ".join(spread(column, 2) for column in np.transpose(weights))])
    return rows


def camps(n, seed, wrong):
    """Signed edges of two camps, most of them between foes, a share of them of the wrong sign; and the camps."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n)
    is_friend = (y[:, None] == y) ^ (rng.random((n, n)) < wrong)
    known = np.triu(rng.random((n, n)) < np.where(is_friend, 0.03, 0.08), 1)
    S = np.where(is_friend, 1.0, -1.0) * known
    return sp.csr_array(S + S.T), y


def signed_edges(seeds):
    """Adjusted Rand index of the camps, by k-means."""
    rows = []
    for wrong in (0.1, 0.2):
        found = []
        for seed in seeds:
            S, y = camps(300, seed, wrong)
            friends, foes = abs(S) + S, abs(S) - S
            ways = [
                ("precomputed", friends),
                ("bipartite", concatenate_affinities([with_self(friends), foes])),
            ]
            vectors = [model(seed, affinity, 8).fit_transform(X) for affinity, X in ways]
            groups = [KMeans(2, n_init=5, random_state=seed).fit_predict(X) for X in vectors]
            found.append([adjusted_rand_score(y, labels) for labels in groups])
        rows.append([f"{100 * wrong:.0f} %", *(spread(column, 2) for column in np.transpose(found))])
    return rows


def halves(seed=0, n=2000):
    """Reuters documents: links by one half of the words, features by the other half, and classes."""
    data, rng = loaders().r8(), np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(data.texts))[:n])
    counts = TfidfVectorizer(min_df=3, stop_words="english").fit_transform([data.texts[i] for i in chosen])
    first, second = np.array_split(rng.permutation(counts.shape[1]), 2)
    kept = counts[:, first].getnnz(axis=1) * counts[:, second].getnnz(axis=1) > 0
    counts = counts[kept]
    return text_neighbors(counts[:, first], 5), sp.csr_array(counts[:, second]), data.y[chosen][kept]


if __name__ == "__main__":
    is_quick = options(__doc__).parse_args().quick
    seeds = SEEDS[:1] if is_quick else SEEDS
    warnings.simplefilter("ignore")
    data = loaders().cora()
    A, F = sp.csr_array(data.A, dtype=float), sp.csr_array(TfidfTransformer().fit_transform(data.X))
    header = ["vectors of", "micro-F1, 10 % of labels", "micro-F1, 50 % of labels"]
    what = (
        f"d = {D}, walks of up to 3 steps; mean and standard deviation over {len(seeds)} seeds of vectors and splits. "
    )
    sections = [
        ("Cora", what + "Features are TF-IDF of 1,433 words. The default weight, 0.5, was chosen here.", header,
         links_and_features(A, F, data.y, seeds)),
        ("Reuters", what + "2,000 documents of R8: links lead to the five nearest neighbors by a random half of the "
         "words, features are TF-IDF of the other half. Nothing was chosen here.", header,
         links_and_features(*halves(), seeds)),
        ("New nodes of Cora", "Five folds: the embedding too is fitted to the other folds alone. Accuracy in %, mean "
         "and standard deviation over seeds.", ["vectors of", "accuracy"], unseen_nodes(A, F, data.y, seeds)),
        ("Learned weights", "Weights of types of edges by ``mix_affinities(relations, 'held_out')``, d = 32; mean and "
         "standard deviation over seeds of the vectors, of the held-out pairs and of the noise.",
         ["relations", "weights"], learned_weights(A, F, seeds)),
        ("Signed edges", "Two camps of about 150 nodes; 3 % of the pairs of friends and 8 % of those of foes are "
         "known, some with the wrong sign. Adjusted Rand index of k-means, d = 8, mean and standard deviation over "
         "seeds.", ["wrong signs", "friends alone", "friends and foes side by side"], signed_edges(seeds)),
    ]  # fmt: skip
    write("bench_relations", "Several relations of the same samples", sections, not is_quick)
