"""Users and items: recommendations, seconds and memory of ours and of the peers, and documents with their words.

Compares recall and NDCG of held-out pairs, also for users that were not fitted and for those with few items, seconds
and memory of AttentionRecommender, alternating least squares, BPR, EASE, SLIM, GF-CF, singular vectors, nearest items
and popularity, with parameters chosen on validation pairs; what counts, ratings, times and attributes add; topics of
documents and their held-out words; and growth on made tables. Every method has a process of its own.

Run ``python benchmarks/bench_bipartite.py`` from the repository's root, on Linux with nothing else running: threads
that wait for each other get a hundred times slower otherwise.

Needs ``pip install -e ".[plot]" implicit irspack`` and ``pip install --no-deps recbole`` for the ratings that it
ships; what is not installed is left out.

Data: ``ATTNEMBED_DATA`` names the folder, which has gowalla, lastfm, r8 and wikitext2.

Takes about 40 minutes on two cores; with ``--quick`` Last.fm, fewer methods and the smallest table, in less than two,
printed only.

Writes ``benchmarks/bench_bipartite.md``, ``doc/images/bipartite_methods.png``.
"""

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from _common import apart, fastest, loaders, measure, options, plain, save, write
from sklearn.decomposition import NMF, TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.utils.extmath import randomized_svd

from sklearn_attnembed import AttentionEmbedding, AttentionRecommender

D = 64
TABLES = [(10_000, 2_000, 500_000), (30_000, 6_000, 1_500_000), (100_000, 20_000, 5_000_000)]
LIMIT = 2400  # seconds of a process


# data: users by items ----------------------------------------------------------------------------------
def movielens():
    """The log of MovieLens-100k as recbole ships it: user, item, rating and time."""
    folder = Path(find_spec("recbole").origin).parent / "dataset_example" / "ml-100k"
    log = pd.read_csv(folder / "ml-100k.inter", sep="\t")
    log.columns = ["user", "item", "rating", "time"]
    genres = pd.read_csv(folder / "ml-100k.item", sep="\t").set_index("item_id:token")["class:token_seq"]
    log["user"], names = pd.factorize(log["user"])[0], pd.factorize(log["item"])[1]
    log["item"] = pd.factorize(log["item"])[0]
    return log, genres[names].str.get_dummies(" ").to_numpy(np.float32)


def counts(pairs, shape, weights=None):
    """A table of pairs."""
    weights = np.ones(len(pairs)) if weights is None else weights
    return sp.csr_matrix((weights.astype(np.float32), np.transpose(pairs)), shape)


def data_of(name):
    """Table for tuning, pairs to tune by, table of the test, and its pairs."""
    if name == "movielens":
        log, _ = movielens()
        pairs, part = log[["user", "item"]].to_numpy(), np.random.default_rng(0).random(len(log))
        shape = pairs.max(axis=0) + 1
        train, valid, test = pairs[part < 0.7], pairs[(part >= 0.7) & (part < 0.8)], pairs[part >= 0.8]
        return SimpleNamespace(B=counts(train, shape), valid=valid, whole=counts(train, shape), test=test)
    data = getattr(loaders(), name)()
    whole = data.B
    if name == "gowalla":  # as in the published figures
        whole = counts(np.concatenate([data.train, data.valid]), data.B.shape)
    return SimpleNamespace(B=data.B, valid=data.valid, whole=whole, test=data.test)


# methods: (users by items, seed, parameters) -> (rows of users, their numbers or None) -> scores of all items
def attnembed(B, seed, **params):
    """Ours."""
    model = AttentionRecommender(D, random_state=seed, n_jobs=2, **params).fit(B)
    return lambda rows, users: chances(model, rows)


def chances(model, rows, n_items=20):
    """Chances of the first items that a user does not have; -inf for all others."""
    items, values = model.recommend(rows, n_items)
    out = np.full(rows.shape, -np.inf)
    out[np.arange(len(items))[:, None], items] = np.where(items < 0, -np.inf, values)
    return out


def ials(B, seed, **params):
    """Alternating least squares, as in "Revisiting the performance of iALS", of irspack."""
    from irspack import IALSRecommender

    model = IALSRecommender(B, n_components=D, random_seed=seed, n_threads=2, **params)
    model.learn()
    return lambda rows, users: model.get_score_cold_user(rows)


def als(B, seed, **params):
    """Alternating least squares of implicit."""
    from implicit.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(factors=D, iterations=15, num_threads=2, random_state=seed, **params)
    model.fit(B, show_progress=False)

    def scores(rows, users):
        vectors = model.user_factors[users] if users is not None else model.recalculate_user(range(rows.shape[0]), rows)
        return vectors @ model.item_factors.T

    return scores


def bpr(B, seed, **params):
    """Bayesian personalised ranking of implicit, which has no vectors for users that it was not fitted to."""
    from implicit.bpr import BayesianPersonalizedRanking

    model = BayesianPersonalizedRanking(factors=D - 1, num_threads=2, random_state=seed, **params)
    model.fit(B, show_progress=False)
    return lambda rows, users: model.user_factors[users] @ model.item_factors.T


def slim(B, seed, **params):
    """SLIM of irspack."""
    from irspack import SLIMRecommender

    model = SLIMRecommender(B, n_threads=2, **params)
    model.learn()
    return lambda rows, users: model.get_score_cold_user(rows)


def ease(B, seed, regularization):
    """EASE, by the smaller of the two Gram matrices."""
    B = B.astype(np.float64)
    if B.shape[1] <= B.shape[0]:
        P = np.linalg.inv((B.T @ B).toarray() + regularization * np.eye(B.shape[1]))
        diagonal, times = np.diag(P), lambda rows: rows @ P
    else:  # the inverse by Woodbury's identity, which is never formed
        inner = np.linalg.inv((B @ B.T).toarray() + regularization * np.eye(B.shape[0]))
        half = sp.csr_matrix(B.T) @ inner
        diagonal = (1 - np.ravel(B.T.multiply(half).sum(axis=1))) / regularization
        times = lambda rows: (rows.toarray() - (rows @ half) @ B) / regularization  # noqa: E731
    return lambda rows, users: rows.toarray() - times(rows) / diagonal


def normalized(B):
    """The table divided by roots of the sums of its rows and columns, and those of the columns."""
    users, items = (np.maximum(np.ravel(B.sum(axis=axis)), 1) ** -0.5 for axis in (1, 0))
    return sp.csr_matrix(sp.diags(users) @ B @ sp.diags(items)).astype(np.float32), items.astype(np.float32)


def svd(B, seed, power, d=D):
    """Singular vectors of the table divided by roots of its sums; scores times a power of popularity."""
    R, items = normalized(B)
    V = randomized_svd(R, d, n_iter=4, random_state=seed)[2].astype(np.float32)
    return lambda rows, users: ((rows @ sp.diags(items)) @ V.T) @ V * items ** (-2 * power)


def svd_powers(B, seed, power):
    """Singular vectors of the table divided by a power of the popularity of items."""
    items = (np.maximum(np.ravel(B.sum(axis=0)), 1) ** -power).astype(np.float32)
    V = randomized_svd(sp.csr_matrix(B @ sp.diags(items)), D, n_iter=4, random_state=seed)[2].astype(np.float32)
    return lambda rows, users: ((rows @ sp.diags(items)) @ V.T) @ V


def gfcf(B, seed, share):
    """GF-CF: products of items, and 256 singular vectors."""
    R, items = normalized(B)
    G, ideal = sp.csr_matrix(R.T @ R), svd(B, seed, power=0.5, d=256)

    def scores(rows, users):
        length = sp.diags(np.maximum(np.ravel(rows.sum(axis=1)), 1) ** -0.5)
        out = (length @ rows @ sp.diags(items) @ G).toarray()
        return out + share * (ideal(length @ rows, users) if share else 0)

    return scores


def knn(B, seed, **params):
    """Nearest items by BM25, of implicit."""
    from implicit.nearest_neighbours import BM25Recommender

    model = BM25Recommender(num_threads=2, **params)
    model.fit(B, show_progress=False)
    return lambda rows, users: (rows @ model.similarity).toarray()


def popularity(B, seed):
    """The same for all."""
    popular = np.ravel(B.sum(axis=0))
    return lambda rows, users: np.tile(popular, (rows.shape[0], 1))


class Method(NamedTuple):
    """What is run, how it is drawn, parameters it is tuned over, module it needs, and most items it can take."""

    label: str
    call: Callable
    color: str
    marker: str
    grid: dict = {}
    needs: str = "sklearn_attnembed"
    most_items: int = 10**9
    embeds_new: bool = True


OURS, PLAIN = "attnembed", "attnembed-embedding"
METHODS = {
    OURS: Method("**AttentionRecommender**", attnembed, "tab:red", "o"),
    PLAIN: Method("**AttentionRecommender, item_share=0**", partial(attnembed, item_share=0), "tab:orange", "^"),
    "ials": Method(
        "iALS (irspack)",
        ials,
        "tab:green",
        "v",
        {"alpha0": [0.003, 0.01, 0.03, 0.1, 0.3, 1], "reg": [3e-4, 1e-3, 3e-3, 1e-2, 3e-2]},
        "irspack",
    ),
    "als": Method(
        "ALS (implicit)", als, "olive", "<", {"alpha": [3, 10, 30], "regularization": [1, 10, 80, 150]}, "implicit"
    ),
    "bpr": Method(
        "BPR (implicit)",
        bpr,
        "tab:brown",
        ">",
        {"iterations": [200], "learning_rate": [0.01, 0.05], "regularization": [0.003, 0.01, 0.03]},
        "implicit",
        embeds_new=False,
    ),
    "ease": Method("EASE", ease, "black", "x", {"regularization": [30, 100, 200, 400, 800]}, most_items=20_000),
    "slim": Method(
        "SLIM (irspack)", slim, "gray", "+", {"alpha": [0.001, 0.01, 0.1], "l1_ratio": [0.01, 0.1]}, "irspack", 2_000
    ),
    "gfcf": Method("GF-CF", gfcf, "tab:purple", "p", {"share": [0, 0.1, 0.2, 0.3, 0.5, 0.7]}),
    "svd": Method("SVD, rows and columns normalized", svd, "tab:blue", "P", {"power": [0, 0.125, 0.25, 0.375, 0.5]}),
    "svd-powers": Method(
        "SVD, popularity to a power", svd_powers, "navy", "*", {"power": [0, 0.125, 0.25, 0.375, 0.5]}
    ),
    "knn": Method("item kNN, BM25 (implicit)", knn, "tab:cyan", "X", {"K": [20, 50, 100, 200, 500]}, "implicit"),
    "popularity": Method("popularity", popularity, "tab:gray", "h"),
}
SETS = {"gowalla": "Gowalla", "lastfm": "Last.fm", "movielens": "MovieLens-100k"}
GROWN = [OURS, PLAIN, "ials", "svd-powers"]


# children ----------------------------------------------------------------------------------------------
def judged(scores, B, pairs, rows=None, known=True, k=20, most=10**9):
    """Recall and NDCG of the first k items that a user does not have, for each user with pairs, in percent."""
    wanted = counts(pairs, B.shape)
    users = np.intersect1d(np.flatnonzero(np.diff(wanted.indptr)), np.arange(B.shape[0]) if rows is None else rows)
    users = users[:: -(-len(users) // most)]
    discount, out = 1 / np.log2(np.arange(2, k + 2)), []
    for part in np.array_split(users, -(-len(users) // 512)):
        score = np.array(scores(B[part], part if known else None), np.float32)
        score[B[part].nonzero()] = -np.inf
        top = np.argpartition(-score, k, axis=1)[:, :k]
        top = np.take_along_axis(top, np.argsort(-np.take_along_axis(score, top, 1), axis=1), 1)
        hits, n = np.take_along_axis(wanted[part].toarray() > 0, top, 1), np.diff(wanted[part].indptr)
        out.append(np.stack([hits.sum(axis=1) / n, hits @ discount / discount.cumsum()[np.minimum(n, k) - 1]], axis=1))
    return users, 100 * np.concatenate(out)


def child_recall(name, dataset):
    """Parameters chosen, seconds, peak, recall and NDCG, of users with few items and of users not fitted, too."""
    data, method = data_of(dataset), METHODS[name]
    choices = [dict(zip(method.grid, values, strict=True)) for values in product(*method.grid.values())]
    method.call(data.B[:300], 0, **choices[0])  # imports and compiles

    def validated(params):
        return judged(method.call(data.B, 0, **params), data.B, data.valid, most=4000)[1][:, 0].mean()

    chosen = max(choices, key=validated) if len(choices) > 1 else {}
    scores, seconds, peak = measure(partial(method.call, data.whole, 0, **chosen))
    users, found = judged(scores, data.whole, data.test)
    few = np.diff(data.whole.indptr)[users] <= 10
    result = {"params": chosen, "seconds": seconds, "peak": peak, "error": found.std(axis=0).tolist(), "n": len(users)}
    result |= {
        "recall": found[:, 0].mean(),
        "ndcg": found[:, 1].mean(),
        "few": found[few, 0].mean() if few.any() else None,
    }
    held, kept = np.split(np.random.default_rng(0).permutation(data.whole.shape[0]), [data.whole.shape[0] // 10])
    result["known"] = judged(scores, data.whole, data.test, held)[1][:, 0].mean()
    if method.embeds_new:
        del scores
        scores = method.call(data.whole[kept], 0, **chosen)
        result["unseen"] = judged(scores, data.whole, data.test, held, known=False)[1][:, 0].mean()
    return result


# what holds the embedding back -------------------------------------------------------------------------
PARTS = {
    "one Gaussian": {},
    "8 Gaussians": {"n_clusters": 8},
    "neighbors": {"normalizer": "neighbors"},
    "sampling": {"normalizer": "sampling"},
    "exact": {"normalizer": "exact"},
    "exact, both sides": {"normalizer": "exact", "objective": "joint"},
}
COOL = [0.1, 0.15, 0.2]


def child_parts(name, temperature):
    """Exact loss, recall of the validation pairs and seconds of an embedding of 1,500 users of Gowalla."""
    data = loaders().gowalla()
    rows = np.sort(np.random.default_rng(0).permutation(data.B.shape[0])[:1500])
    B = data.B[rows]
    used = np.flatnonzero(B.getnnz(axis=0))
    B, wanted = B[:, used], counts(data.valid, data.B.shape)[rows][:, used]
    params = {"affinity": "bipartite", "key_weight": "degree", "temperature": float(temperature), **PARTS[name]}
    model, seconds, _ = measure(lambda: AttentionEmbedding(D, random_state=0, n_jobs=2, **params).fit(B))
    vectors, weights = model.embedding_ / model.temperature, np.log(np.maximum(model.key_weight_, 1e-30))
    found = judged(
        lambda _, users: vectors[users] @ model.key_embedding_.T + weights, B, np.transpose(wanted.nonzero())
    )[1]
    return {"loss": model.exact_loss_, "recall": found[:, 0].mean(), "seconds": seconds, "shape": B.shape}


# what a table can hold ---------------------------------------------------------------------------------
def child_holds(name, part):
    """Recall and NDCG on MovieLens-100k where later, or any, ratings are predicted from tables of several kinds."""
    log, genres = movielens()
    log = log.sort_values("time", kind="stable")
    shape = log[["user", "item"]].to_numpy().max(axis=0) + 1
    is_test = (
        np.arange(len(log)) >= 0.8 * len(log) if part == "later" else np.random.default_rng(1).random(len(log)) > 0.8
    )
    train, test = log[~is_test], log[is_test & (log["rating"] >= 4).to_numpy()]
    days, pairs = train["time"].to_numpy() / 86400, train[["user", "item"]].to_numpy()
    one = counts(pairs, shape)
    tables = {
        "all pairs": lambda: one,
        "pairs rated 4 or 5": lambda: counts(pairs[train["rating"] >= 4], shape),
        "ratings": lambda: counts(pairs, shape, train["rating"].to_numpy()),
        "ratings squared": lambda: counts(pairs, shape, train["rating"].to_numpy() ** 2),
        "recent pairs count more, half-life 30 days": lambda: counts(pairs, shape, 0.5 ** ((days.max() - days) / 30)),
        "pairs, and genres as further users": lambda: sp.csr_matrix(sp.vstack([one, genres.T])),
    }
    B = tables[name]()
    model = AttentionRecommender(D, random_state=0, n_jobs=2).fit(B)
    rows = B[: shape[0]]
    seen = one + (rows != 0)

    def scores(_, users):
        out = chances(model, rows[users], 900)
        out[seen[users].nonzero()] = -np.inf
        return out

    fresh = test[np.isin(test["user"], train["user"])][["user", "item"]].to_numpy()
    found = judged(scores, sp.csr_matrix(one), fresh)[1]
    return {"recall": found[:, 0].mean(), "ndcg": found[:, 1].mean(), "n": len(found)}


HOLDS = [
    "all pairs",
    "pairs rated 4 or 5",
    "ratings",
    "ratings squared",
    "recent pairs count more, half-life 30 days",
    "pairs, and genres as further users",
]


# documents and words -----------------------------------------------------------------------------------
def articles():
    """Articles of WikiText-2, which begin with a title between single equals signs."""
    texts, lines = [], " ".join(loaders().wikitext2().tokens).split("<eos>")
    for line in map(str.strip, lines):
        if line.startswith("= ") and not line.startswith("= ="):
            texts.append([])
        if texts:
            texts[-1].append(line)
    return [" ".join(text) for text in texts]


def child_words(name, dataset):
    """Recall of a fifth of each document's words by the others, accuracy of topics if known, and seconds."""
    data = loaders().r8() if dataset == "r8" else None
    texts = data.texts if data else articles()
    table = CountVectorizer(min_df=5, stop_words="english").fit_transform(texts).astype(np.float32)
    rng, hidden = np.random.default_rng(0), table.copy()
    out = rng.random(table.nnz) < 0.2
    wanted = np.column_stack([np.repeat(np.arange(table.shape[0]), np.diff(table.indptr))[out], table.indices[out]])
    hidden.data[out] = 0
    hidden.eliminate_zeros()
    if name == "attnembed":
        (scores, vectors), seconds, _ = measure(lambda: of_recommender(hidden))
    else:
        model = TruncatedSVD(D, random_state=0) if name == "svd" else NMF(D, random_state=0, max_iter=200)
        (scores, vectors), seconds, _ = measure(lambda: of_factors(model, hidden))
    found = judged(scores, hidden, wanted)[1]
    result = {"recall": found[:, 0].mean(), "ndcg": found[:, 1].mean(), "seconds": seconds, "shape": table.shape}
    if data:
        split = np.array(data.split) == "train"
        model = LogisticRegression(max_iter=3000, C=10).fit(vectors[split], data.y[split])
        result["accuracy"] = 100 * model.score(vectors[~split], data.y[~split])
    return result


def of_recommender(table):
    """Ours, scaled like the others."""
    model = AttentionRecommender(D, random_state=0, n_jobs=2).fit(table)
    return lambda rows, users: chances(model, rows), np.sqrt(D) * model.embedding_


def of_factors(model, table):
    """Factors of the TF-IDF, each scaled to a variance of one."""
    weigh = TfidfTransformer(sublinear_tf=True).fit(table).transform
    vectors = model.fit_transform(weigh(table))
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return lambda rows, users: model.transform(weigh(rows)) @ model.components_, np.sqrt(D) * unit


WORDS = {"attnembed": "**AttentionRecommender**", "svd": "TF-IDF, TruncatedSVD", "nmf": "TF-IDF, NMF"}


# growth ------------------------------------------------------------------------------------------------
def table(n_users, n_items, n_draws):
    """Users in 50 groups, items in as many; seven in ten draws are of the own group, popular items more often."""
    rng = np.random.default_rng(0)
    users, shares = rng.integers(n_users, size=n_draws), np.cumsum((np.arange(n_items) + 20.0) ** -0.7)
    items = np.searchsorted(shares, shares[-1] * rng.random(n_draws))
    items = np.where(rng.random(n_draws) < 0.7, items // 50 * 50 + users % 50, items)
    B = sp.csr_matrix((np.ones(n_draws, np.float32), (users, items)), (n_users, n_items))
    B.data[:] = 1
    return B


def child_growth(name, size, params):
    """Seconds and peak of a fit, the best of three if short."""
    method, params = METHODS[name], json.loads(params)
    method.call(table(*TABLES[0])[:300], 0, **params)
    B, runs = table(*TABLES[int(size)]), []
    while not runs or (runs[0][0] < 5 and len(runs) < 3):
        runs.append(measure(partial(method.call, B, 0, **params))[1:])
    return {"seconds": min(runs)[0], "peak": runs[0][1], "nnz": int(B.nnz)}


# tables ------------------------------------------------------------------------------------------------
def ask(kind, name, *arguments, limit=LIMIT):
    """What a child finds; implicit asks for one thread of OpenBLAS."""
    threads = {"OPENBLAS_NUM_THREADS": "1"} if name in ("als", "bpr") else {}
    return apart(__file__, kind, name, *arguments, limit=limit, **threads)


def spell(params):
    """Parameters for reading."""
    return ", ".join(f"{key}={value:g}" for key, value in params.items())


def recall_section(found, dataset):
    """A row per method, the best first."""
    done = {name: result for (name, of), result in found.items() if of == dataset}
    done = dict(sorted(done.items(), key=lambda item: -item[1]["recall"]))
    any_of = next(iter(done.values()))
    data = data_of(dataset)
    first = (
        ""
        if dataset != "gowalla"
        else (
            "Split, training and test pairs are those of LightGCN. Published recall for 64 dimensions: MF-BPR 16.3, "
            "LightGCN 18.2, UltraGCN 18.6, SimpleX 18.7; EASE 17.65 and SLIM 17.0, which are too large for this run. "
        )
    )
    text = (
        f"{data.whole.shape[0]:,} users, {data.whole.shape[1]:,} items, {data.whole.nnz:,} training pairs. {first}"
        "Recall@20 and NDCG@20 in percent over all users with test pairs, of one seed. AttentionRecommender at its "
        "defaults, which are the same for all data sets, is in bold; other parameters are chosen by recall of the "
        "validation pairs of up to 4,000 users, of "
        + ", ".join(
            f"{len(list(product(*METHODS[name].grid.values())))} for {METHODS[name].label}"
            for name in done
            if METHODS[name].grid
        )
        + f". All have {D} dimensions but for GF-CF (256), item kNN, EASE and SLIM. Seconds and memory are of one fit. "
        "Few: recall of users with at most ten items. Known and unseen: recall of a tenth of the users, fitted with "
        "the others, and embedded afterwards by a model that was not fitted to them. The standard error of recall is "
        f"{any_of['error'][0] / any_of['n'] ** 0.5:.2f}, less between methods, which have the same users."
    )
    rows = []
    seconds = dict(zip(done, (plain(result["seconds"], 3) for result in done.values()), strict=True))
    for name, result in done.items():
        cells = [result[key] for key in ("recall", "ndcg", "few", "known")] + [result.get("unseen")]
        rows.append([METHODS[name].label, spell(result["params"]), *("" if c is None else f"{c:.2f}" for c in cells)])
        rows[-1] += [seconds[name], f"{result['peak']:.0f}"]
    header = ["method", "chosen", "recall", "NDCG", "few", "known", "unseen", "seconds", "MB"]
    return SETS[dataset], text, header, rows


def parts_section(found):
    """A row per way to compute log Z, columns by temperature."""
    n_users, n_items = next(iter(found.values()))["shape"]
    text = (
        f'AttentionEmbedding(affinity="bipartite", key_weight="degree") of {n_users:,} users of Gowalla and their '
        f"{n_items:,} items, where log Z over all items can be summed exactly: the exact loss in nats, recall@20 of "
        "the validation pairs in percent and seconds, by temperature. Both sides: vectors move as queries and as keys, "
        "as gradient descent moves them. The standard error of recall is about 0.6."
    )
    rows = [
        [name]
        + [f"{found[name, t]['loss']:.2f}" for t in COOL]
        + [f"{found[name, t]['recall']:.2f}" for t in COOL]
        + [plain(sum(found[name, t]["seconds"] for t in COOL), 3)]
        for name in PARTS
    ]
    header = ["log Z", *(f"loss, {t:g}" for t in COOL), *(f"recall, {t:g}" for t in COOL), "seconds, all three"]
    return "What holds the embedding back", text, header, rows


def holds_section(found):
    """A row per table."""
    text = (
        "MovieLens-100k, AttentionRecommender at its defaults, fitted to tables with different contents. What is to be "
        "found are pairs rated 4 or 5: of the last fifth in time by users known before, or of a fifth at random. "
        "Recall@20 and NDCG@20 in percent, over "
        + " and ".join(f"{found[HOLDS[0], part]['n']}" for part in ("later", "any"))
        + " users; the standard error is about 2.5 and 1."
    )
    rows = [
        [name, *(f"{found[name, part][key]:.2f}" for part in ("later", "any") for key in ("recall", "ndcg"))]
        for name in HOLDS
    ]
    return "What the table holds", text, ["table", "later: recall", "later: NDCG", "any: recall", "any: NDCG"], rows


def words_section(found):
    """A row per method."""
    r8, wiki = (next(r["shape"] for (_, of), r in found.items() if of == name) for name in ("r8", "wikitext2"))
    text = (
        f"Counts of words in the {r8[0]:,} documents of R8 ({r8[1]:,} words) and in the {wiki[0]:,} articles of "
        f"WikiText-2 ({wiki[1]:,} words), without stop words and rare words. A fifth of the entries is taken out; "
        "recall@20 and NDCG@20 of these in percent. Accuracy: topics of the test documents of R8 by logistic "
        f"regression on the vectors. {D} dimensions; AttentionRecommender at its defaults."
    )
    rows = []
    for name, label in WORDS.items():
        a, b = found[name, "r8"], found[name, "wikitext2"]
        cells = [a["recall"], a["ndcg"], a["accuracy"], a["seconds"], b["recall"], b["ndcg"], b["seconds"]]
        rows.append([label, *(f"{cell:.2f}" for cell in cells)])
    header = ["method", *(f"R8: {name}" for name in ("recall", "NDCG", "accuracy", "seconds"))]
    header += [f"WikiText-2: {name}" for name in ("recall", "NDCG", "seconds")]
    return "Documents and words", text, header, rows


def grow(names, tables, params):
    """Results by method and table; none larger once a method took too long."""
    found = {}
    for name in names:
        for size in range(len(tables)):
            try:
                found[name, size] = ask("growth", name, size, json.dumps(params[name]))
            except subprocess.TimeoutExpired:
                break
    return found


def growth_section(found, names, tables, params):
    """A row per method, a column per table."""
    nnz = {size: result["nnz"] for (_, size), result in found.items()}
    header = [f"{tables[size][0]:,} x {tables[size][1]:,}, {plain(n / 1e6)}M" for size, n in nnz.items()]
    columns = [[METHODS[name].label for name in names], [spell(params[name]) for name in names]]
    for size in nnz:
        cells = [found.get((name, size)) for name in names]
        seconds = fastest([cell and cell["seconds"] for cell in cells])
        columns.append([f"{s} s, {c['peak']:.0f} MB" if c else "" for s, c in zip(seconds, cells)])  # noqa: B905
    text = (
        "Made tables, users x items and entries: 50 groups of users and of items, seven in ten entries within the own "
        f"group, popular items more often. Seconds of one fit with {D} dimensions, for AttentionRecommender with the "
        "search for the temperature, and the peak beyond what was resident before, table excluded."
    )
    return "Growth", text, ["method", "parameters", *header], list(zip(*columns, strict=True))


# picture -----------------------------------------------------------------------------------------------
def picture(found, is_whole):
    """Recall against seconds, a panel for each data set."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator

    sets = [name for name in SETS if any(of == name for _, of in found)]
    figure, axes = plt.subplots(len(sets), 1, figsize=(9.5, 4 * len(sets)), layout="constrained", squeeze=False)
    for axis, dataset in zip(axes[:, 0], sets, strict=True):
        for name, method in METHODS.items():
            if (result := found.get((name, dataset))) is None:
                continue
            label = method.label.strip("*")
            style = {"marker": method.marker, "alpha": 0.85, "label": label}
            axis.scatter(max(result["seconds"], 1e-3), result["recall"], 90, method.color, **style)
        axis.set(xscale="log", xlabel="seconds", ylabel="recall@20, percent", title=SETS[dataset])
        axis.xaxis.set_major_locator(LogLocator())
        axis.xaxis.set_major_formatter("{x:,g}")
        axis.grid(alpha=0.3)
        axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    save(figure, "bipartite_methods", is_whole)


# everything --------------------------------------------------------------------------------------------
def main():
    """Everything."""
    if sys.argv[1:2] == ["--child"]:
        warnings.simplefilter("ignore")
        kind, name, *arguments = sys.argv[2:]
        children = {"recall": child_recall, "growth": child_growth, "holds": child_holds, "words": child_words}
        children["parts"] = child_parts
        return print("\n" + json.dumps(children[kind](name, *arguments)))
    quick = options(__doc__).parse_args().quick
    sets, tables = (["lastfm"], TABLES[:1]) if quick else (list(SETS), TABLES)
    names = [OURS, PLAIN, "ials", "svd-powers", "popularity"] if quick else list(METHODS)
    if find_spec("recbole") is None and not quick:
        print("MovieLens-100k is left out: recbole, which ships it, is not installed", file=sys.stderr)
        sets.remove("movielens")
    for name in [name for name in names if find_spec(METHODS[name].needs) is None]:
        print(f"{METHODS[name].label} is left out: {METHODS[name].needs} is not installed", file=sys.stderr)
        names.remove(name)
    found = {}
    for dataset in sets:
        n_items = data_of(dataset).B.shape[1]
        for name in names:
            if n_items <= METHODS[name].most_items:
                found[name, dataset] = ask("recall", name, dataset)
    sections = [recall_section(found, dataset) for dataset in sets]
    if "movielens" in sets:
        sections.append(holds_section({(n, p): ask("holds", n, p) for n in HOLDS for p in ("later", "any")}))
    if not quick:
        sections.append(parts_section({(n, t): ask("parts", n, t) for n in PARTS for t in COOL}))
        sections.append(words_section({(n, of): ask("words", n, of) for n in WORDS for of in ("r8", "wikitext2")}))
    grown = [name for name in GROWN if name in names]
    params = {name: found[name, "lastfm"]["params"] for name in grown}
    sections.append(growth_section(grow(grown, tables, params), grown, tables, params))
    picture(found, not quick)
    title = "Users and items: recommendations, seconds and memory"
    write("bench_bipartite", title, sections, not quick, peers=["implicit", "irspack", "recbole"])


if __name__ == "__main__":
    main()
