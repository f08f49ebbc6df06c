"""Users and items: recommendations, seconds and memory of ours and of the peers.

Compares recall of held-out pairs for listeners that were fitted and for others, seconds and memory of
AttentionEmbedding, alternating least squares, SVDs and popularity, with parameters chosen on the same pairs; and
growth on made tables. Every method has a process of its own.

Run ``python benchmarks/bench_bipartite.py`` from the repository's root, on Linux with nothing else running: threads
that wait for each other get a hundred times slower otherwise.

Needs ``pip install -e ".[plot]" implicit``; a peer that is not installed is left out.

Data: ``ATTNEMBED_DATA`` names the folder, which has lastfm.

Takes about 6 minutes on two cores; with ``--quick`` one seed, fewer methods and the smallest table, in less than two,
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
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from _common import apart, fastest, loaders, measure, options, plain, protocols, save, write
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer

from sklearn_attnembed import AttentionEmbedding

D = 64
SEEDS = {1: "one seed", 3: "three seeds"}
TABLES = [(10_000, 2_000, 500_000), (30_000, 6_000, 1_500_000), (100_000, 20_000, 5_000_000)]
LIMIT = 240  # seconds of a process with a made table


class Fitted(NamedTuple):
    """Vectors whose dot products rank items, and how rows of other users become vectors."""

    users: Any
    items: Any
    embed: Callable


# methods: (users by items, seed, parameters) -> Fitted -------------------------------------------------
def attnembed(B, seed, d=D, **params):
    """Ours: dot products are what `recommend` ranks by. The last column is the popularity."""
    model = AttentionEmbedding(d, affinity="bipartite", random_state=seed, n_jobs=2, **params).fit(B)

    def users(X):
        return np.column_stack([X / model.temperature, np.ones(len(X), X.dtype)])

    popularity = np.log(np.maximum(model.key_weight_, 1e-30))
    items = np.column_stack([model.key_embedding_, popularity]).astype(model.embedding_.dtype)
    return Fitted(users(model.embedding_), items, lambda rows: users(model.transform(rows)))


def als(B, seed, **params):
    """Alternating least squares of implicit."""
    from implicit.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(factors=D, iterations=15, num_threads=2, random_state=seed, **params)
    model.fit(B, show_progress=False)

    def embed(rows):
        return model.recalculate_user(np.arange(rows.shape[0]), rows)

    return Fitted(model.user_factors, model.item_factors, embed)


def svd(B, seed, weighting=None, **params):
    """Truncated SVD of the table, its rows weighted by `weighting(B)` first."""
    weigh = weighting(B, **params) if weighting else sp.csr_matrix
    model = TruncatedSVD(D, random_state=seed)
    return Fitted(model.fit_transform(weigh(B)), model.components_.T, lambda rows: model.transform(weigh(rows)))


def tfidf(B):
    """TF-IDF."""
    return TfidfTransformer().fit(B).transform


def bm25(B):
    """BM25 with the settings and the rarity of implicit's `bm25_weight`."""
    length, rarity = B.sum(axis=1).mean(), np.log(B.shape[0]) - np.log1p(np.ravel(B.sum(axis=0)))

    def weigh(rows):
        long = 0.2 + 0.8 * np.ravel(rows.sum(axis=1)) / length
        rows = rows.tocoo()
        data = 101 * rows.data / (100 * long[rows.row] + rows.data) * rarity[rows.col]
        return sp.csr_matrix((data, (rows.row, rows.col)), rows.shape)

    return weigh


def powers(B, power):
    """Items divided by a power of their popularity."""
    scale = sp.diags_array(np.maximum(np.ravel(B.sum(axis=0)), 1) ** -power)
    return lambda rows: sp.csr_matrix(rows @ scale)


def popularity(B, seed):
    """The same for all."""
    return Fitted(np.ones((B.shape[0], 1)), np.ravel(B.sum(axis=0))[:, None], lambda rows: np.ones((rows.shape[0], 1)))


class Method(NamedTuple):
    """What is run, how it is drawn, parameters it is tuned over and module it needs."""

    label: str
    call: Callable
    color: str
    marker: str
    grid: dict = {}
    needs: str = "sklearn_attnembed"


RANKING = {"key_weight": "degree", "tol": 1e-3}
GRID = {"temperature": [1 / 8, 0.16, 0.2, 0.25, 0.35], "walk_length": [1, 2]}
ALS_GRID = {"alpha": [3, 10, 20, 40], "regularization": [1, 10, 30, 60, 80, 100, 150]}
POWERS = {"power": [1 / 8, 1 / 4, 3 / 8, 1 / 2]}
OURS = "attnembed"
METHODS = {
    OURS: Method("AttentionEmbedding, d = 64", partial(attnembed, **RANKING), "tab:red", "o", GRID),
    "attnembed-63": Method("AttentionEmbedding, d = 63", partial(attnembed, d=63, **RANKING), "tab:orange", "^", GRID),
    "attnembed-degree": Method(
        'AttentionEmbedding, key_weight="degree"', partial(attnembed, key_weight="degree"), "darkred", "s"
    ),
    "attnembed-default": Method("AttentionEmbedding, defaults", attnembed, "tab:pink", "D"),
    "als": Method("implicit ALS", als, "tab:green", "v", ALS_GRID, "implicit"),
    "svd": Method("TruncatedSVD", svd, "tab:blue", "P"),
    "svd-tfidf": Method("TruncatedSVD, TF-IDF", partial(svd, weighting=tfidf), "tab:cyan", "X"),
    "svd-bm25": Method("TruncatedSVD, BM25", partial(svd, weighting=bm25), "tab:purple", "p"),
    "svd-powers": Method("TruncatedSVD, popularity to a power", partial(svd, weighting=powers), "navy", "*", POWERS),
    "popularity": Method("popularity", popularity, "tab:gray", "h"),
}
GROWN = [OURS, "attnembed-default", "als", "svd"]


# children ----------------------------------------------------------------------------------------------
def recall(users, items, B, pairs, rows=None):
    """Recall@20 in percent; of some rows of the table, whose vectors `users` are."""
    if rows is not None:
        place = np.full(B.shape[0], -1)
        place[rows] = np.arange(len(rows))
        pairs = np.column_stack([place[pairs[:, 0]], pairs[:, 1]])
        B, pairs = B[rows], pairs[pairs[:, 0] >= 0]
    return 100 * protocols().recall_at_k(users, items, B, pairs, k=20)


def child_recall(name, n_seeds):
    """Parameters chosen and, by seed, seconds, recall, and recall of users that were not fitted."""
    data, method = loaders().lastfm(), METHODS[name]
    B = data.B
    choices = [dict(zip(method.grid, values, strict=True)) for values in product(*method.grid.values())]
    method.call(B[:300], 0, **choices[0])  # imports and compiles

    def validate(params):
        fitted = method.call(B, 0, **params)
        return recall(fitted.users, fitted.items, B, data.valid)

    chosen = max(choices, key=validate) if len(choices) > 1 else {}
    runs = []
    for seed in range(n_seeds):
        fitted, seconds, _ = measure(partial(method.call, B, seed, **chosen))
        valid, test = (recall(fitted.users, fitted.items, B, pairs) for pairs in (data.valid, data.test))
        order = np.random.default_rng(seed).permutation(B.shape[0])
        held, kept = np.split(order, [B.shape[0] // 10])
        known = recall(fitted.users[held], fitted.items, B, data.test, held)
        fitted = method.call(B[kept], seed, **chosen)
        fitted.embed(B[held])
        users, milliseconds, _ = measure(partial(fitted.embed, B[held]))
        unseen = recall(users, fitted.items, B, data.test, held)
        runs.append({"seconds": seconds, "valid": valid, "test": test, "known": known, "unseen": unseen})
        runs[-1]["milliseconds"] = 1000 * milliseconds
    return {"params": chosen, "runs": runs}


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
    while not runs or (runs[0][0] < 10 and len(runs) < 3):
        runs.append(measure(partial(method.call, B, 0, **params))[1:])
    return {"seconds": min(runs)[0], "peak": runs[0][1], "nnz": B.nnz}


# tables ------------------------------------------------------------------------------------------------
def ask(kind, name, *arguments, limit=None):
    """What a child finds; implicit asks for one thread of OpenBLAS."""
    threads = {"OPENBLAS_NUM_THREADS": "1"} if name == "als" else {}
    return apart(__file__, kind, name, *arguments, limit=limit, **threads)


def mean(result, key):
    """Mean over seeds."""
    return float(np.mean([run[key] for run in result["runs"]]))


def percent(values):
    """Cells of recall, none of them bold: the best ones are within the noise that the text states."""
    return [f"{value:.2f}" for value in values]


def least(result, key="seconds"):
    """Of the fastest run."""
    return min(run[key] for run in result["runs"])


def spell(params):
    """Parameters for reading."""
    return ", ".join(f"{key}={value:g}" for key, value in params.items())


def recall_section(found, n_seeds):
    """A row per method, the best first."""
    done = dict(sorted(found.items(), key=lambda item: -mean(item[1], "test")))
    columns = [[METHODS[name].label for name in done], [spell(result["params"]) for result in done.values()]]
    columns += [percent([mean(result, key) for result in done.values()]) for key in ("valid", "test")]
    columns.append(fastest([least(result) for result in done.values()]))
    text = (
        "Last.fm: 1,885 listeners, 17,388 artists, 64,315 training pairs; recall@20 in percent. Parameters in the "
        "table are chosen with one seed by the validation pairs, of "
        f'{len(list(product(*GRID.values())))} choices for AttentionEmbedding (with key_weight="degree", tol=1e-3), '
        f"{len(list(product(*ALS_GRID.values())))} for ALS and {len(POWERS['power'])} powers. Recall is the mean of "
        f"{SEEDS[n_seeds]}; seconds are of one fit, the best of the seeds, after a warm-up on 300 listeners. All have "
        f"{D} dimensions but where 63 is said: AttentionEmbedding ranks by one number more, the popularity of an "
        "artist. implicit makes 15 iterations with two threads. BM25 as of implicit; a power divides the columns by "
        "the number of their listeners to it. The standard error over listeners is about 0.4, "
        "and 0.2 of a difference, which is between the same listeners: differences below 0.4 say nothing."
    )
    header = ["method", "chosen", "validation", "test", "seconds"]
    return "Recommendations", text, header, list(zip(*columns, strict=True))


def unseen_section(found, n_seeds):
    """A row per method, the best first."""
    done = dict(sorted(found.items(), key=lambda item: -mean(item[1], "unseen")))
    columns = [[METHODS[name].label for name in done]]
    columns += [percent([mean(result, key) for result in done.values()]) for key in ("unseen", "known")]
    columns.append(fastest([least(result, "milliseconds") for result in done.values()]))
    text = (
        "A tenth of the listeners, 188, is taken out of the fit; their training pairs make their vectors afterwards "
        "(`transform`, implicit's `recalculate_user`), and their test pairs are the score: recall@20 in percent, "
        f"mean of {SEEDS[n_seeds]} and choices of listeners. Known: the same listeners with a model fitted to all. "
        "Parameters are those of the table above. Milliseconds are for the vectors of the 188. The standard error is "
        "about 0.8, less between methods, which are scored on the same listeners."
    )
    return (
        "Listeners not seen in fit",
        text,
        ["method", "unseen", "known", "milliseconds"],
        list(zip(*columns, strict=True)),
    )


def grow(names, tables, params):
    """Results by method and table; none larger once a method took too long."""
    found = {}
    for name in names:
        for size in range(len(tables)):
            try:
                found[name, size] = ask("growth", name, size, json.dumps(params[name]), limit=LIMIT)
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
        columns.append([f"{s} s, {c['peak']:.0f} MB" if c else f"over {LIMIT} s" for s, c in zip(seconds, cells)])  # noqa: B905
    text = (
        "Made tables, users x items and entries: 50 groups of users and of items, seven in ten entries within the own "
        f"group, popular items more often. Seconds of one fit with {D} dimensions and the peak beyond what was "
        "resident before, table excluded. AttentionEmbedding stops when it has converged, ALS after 15 iterations."
    )
    return "Growth", text, ["method", "parameters", *header], list(zip(*columns, strict=True))


# picture -----------------------------------------------------------------------------------------------
def picture(found, grown, is_whole):
    """Recall against seconds, and seconds against entries."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator

    figure, axes = plt.subplots(2, 1, figsize=(9.5, 8), layout="constrained")
    for name, result in found.items():
        label, _, color, marker, *_ = METHODS[name]
        if name == "popularity":
            axes[0].axhline(mean(result, "test"), color=color, linestyle="dashed", label=label)
        else:
            point = least(result), mean(result, "test")
            axes[0].scatter(*point, 90, color, marker=marker, alpha=0.85, edgecolors="none", label=label)
    for name in dict.fromkeys(name for name, _ in grown):
        label, _, color, marker, *_ = METHODS[name]
        results = [result for (method, _), result in grown.items() if method == name]
        points = zip(*((result["nnz"], result["seconds"]) for result in results), strict=True)
        axes[1].loglog(*points, color=color, marker=marker, label=label)
    axes[0].set(xscale="log", xlabel="seconds", ylabel="recall@20, percent", title="Last.fm, 1,885 x 17,388")
    axes[1].set(xlabel="entries", ylabel="seconds", title="Made tables")
    for axis in (axes[0].xaxis, axes[1].xaxis, axes[1].yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:,g}")
        axis.set_minor_formatter("")
    axes[1].xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    for ax in axes:
        ax.grid(alpha=0.3)
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    save(figure, "bipartite_methods", is_whole)


# everything --------------------------------------------------------------------------------------------
def main():
    """Everything."""
    if sys.argv[1:2] == ["--child"]:
        warnings.simplefilter("ignore")
        kind, name, *arguments = sys.argv[2:]
        child = {"recall": child_recall, "growth": child_growth}[kind]
        return print(json.dumps(child(name, int(arguments[0]), *arguments[1:])))
    quick = options(__doc__).parse_args().quick
    n_seeds, tables = (1, TABLES[:1]) if quick else (3, TABLES)
    names = [OURS, "attnembed-default", "als", "svd", "svd-powers", "popularity"] if quick else list(METHODS)
    for name in [name for name in names if find_spec(METHODS[name].needs) is None]:
        print(f"{METHODS[name].label} is left out: {METHODS[name].needs} is not installed", file=sys.stderr)
        names.remove(name)
    found = {name: ask("recall", name, n_seeds) for name in names}
    grown = [name for name in GROWN if name in names]
    params = {name: found[name]["params"] for name in grown}
    growth = grow(grown, tables, params)
    picture(found, growth, not quick)
    title = "Users and items: recommendations, seconds and memory"
    sections = [recall_section(found, n_seeds), unseen_section(found, n_seeds)]
    sections.append(growth_section(growth, grown, tables, params))
    write("bench_bipartite", title, sections, not quick, peers=["implicit"])


if __name__ == "__main__":
    main()
