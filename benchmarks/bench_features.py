"""Embeddings of features: accuracy, seconds and memory of ours, UMAP and PCA.

Compares the accuracy of classifiers on held-out points from the vectors of AttentionEmbedding, UMAP and PCA and from
raw features, on the folds that a setting was chosen on and on others; and ways to the neighbours of 70,000 points.
Every method has a process of its own on every data set; standard error tells the cores that others took, which have to
be near 0.

Run ``python benchmarks/bench_features.py`` from the repository's root, on Linux with nothing else running: threads
that wait for each other get a hundred times slower otherwise. ``--skip-large`` leaves out the 70,000 points, and
prints only.

Needs ``pip install -e ".[plot]" umap-learn``; a peer that is not installed is left out.

Data: ``ATTNEMBED_DATA`` names the folder, which has coil20 and isolet.

Takes about 11 minutes on two cores, half of it for the 70,000 points; with ``--quick`` one seed, one data set and
5,000 points, in about one, printed only.

Writes ``benchmarks/bench_features.md``, ``doc/images/features_methods.png``.
"""

import ctypes
import gc
import json
import os
import subprocess
import sys
import time
import warnings
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from _common import THREADS, ahead, fastest, loaders, options, plain, save, write
from bench_speed import others, resident
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier, KNeighborsTransformer, NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sklearn_attnembed import AttentionEmbedding

D, N_SPLITS, SEEDS, FRESH = 16, 3, (0, 1, 2), (100, 101, 102)
SETTING = {"n_neighbors": 36}
WEIGHTINGS = ("perplexity", "self_tuning", "biweight", "uniform")
MEASURES = ("kNN", "LR, standardised", "LR, C = 100")
DATA = ("digits", "COIL-20", "ISOLET")
LARGE, LARGE_D, LARGE_NEIGHBORS, LIMIT = 70_000, 64, 15, 550
WAYS = ("nearest_neighbors", "KNeighborsTransformer", "PyNNDescentTransformer")


# methods and data ------------------------------------------------------------------------------------
def attnembed(**params):
    """Ours, with the defaults of everything else."""
    return AttentionEmbedding(D, n_jobs=2, random_state=0, **params)


def umap():
    """UMAP at its defaults, without a seed: with one it takes a single thread."""
    from umap import UMAP

    return UMAP(n_components=D)


# name: (label, model, module beyond ours, colour, marker)
METHODS = {
    "setting": ("AttentionEmbedding, n_neighbors=36", partial(attnembed, **SETTING), None, "tab:red", "o"),
    "default": ("AttentionEmbedding", attnembed, None, "tab:orange", "^"),
    "clusters": (
        "AttentionEmbedding, n_neighbors=36, n_clusters=4",
        partial(attnembed, **SETTING, n_clusters=4),
        None,
        "tab:pink",
        "s",
    ),
    "exact": (
        "AttentionEmbedding, n_neighbors=36, exact",
        partial(attnembed, **SETTING, normalizer="exact"),
        None,
        "darkred",
        "D",
    ),
    "umap": ("UMAP", umap, "umap", "tab:blue", "v"),
    "pca": ("PCA", partial(PCA, D, random_state=0), None, "tab:gray", "p"),
    "raw": ("raw features", FunctionTransformer, None, "k", "."),
}
METHODS |= {w: (w, partial(attnembed, **SETTING, weighting=w), None, "", "") for w in WEIGHTINGS}
CHOSEN = ("setting", "clusters", "default")
SHOWN = [name for name in METHODS if name not in WEIGHTINGS]


def points(on):
    """Features, in single precision, and classes."""
    if on == "digits":
        X, y = load_digits(return_X_y=True)
    else:
        data = {"COIL-20": loaders().coil20, "ISOLET": loaders().isolet}[on]()
        X, y = data.X, data.y
    return np.asarray(X, np.float32), y


def many_points(n):
    """Ten blobs of twenty dimensions, mapped to 784 with noise."""
    rng = np.random.default_rng(0)
    centres = 4 * rng.standard_normal((10, 20), dtype=np.float32)
    low = centres[rng.integers(10, size=n)] + rng.standard_normal((n, 20), dtype=np.float32)
    X = rng.standard_normal((n, 784), dtype=np.float32)
    X += low @ rng.standard_normal((20, 784), dtype=np.float32)
    return X


# one method, in its own process ----------------------------------------------------------------------
def accuracies(A, y, B, z):
    """In percent, of classifiers that learn from vectors A, on the vectors B, by measure."""
    length = np.linalg.norm(A, axis=1).mean()
    regression = partial(LogisticRegression, max_iter=3000)
    scores = (
        KNeighborsClassifier(5).fit(A, y).score(B, z),
        make_pipeline(StandardScaler(), regression()).fit(A, y).score(B, z),
        regression(C=100).fit(A / length, y).score(B / length, z),
    )
    return dict(zip(MEASURES, (100 * score for score in scores), strict=True))


def child(name, on, *seeds):
    """Print accuracies and seconds by fold as JSON."""
    start = time.perf_counter()
    make = METHODS[name][1]
    X, y = points(on)
    make().fit(X[:300]).transform(X[300:400])  # imports and compiles
    found = {"first": time.perf_counter() - start, "folds": []}
    began, foreign = time.perf_counter(), others()
    for seed in seeds:
        for train, test in StratifiedKFold(N_SPLITS, shuffle=True, random_state=int(seed)).split(X, y):
            start = time.perf_counter()
            model = make()
            A = model.fit_transform(X[train])
            B = model.transform(X[test])
            seconds = time.perf_counter() - start
            found["folds"].append({"seconds": seconds, **accuracies(A, y[train], B, y[test])})
    found["others"] = (others() - foreign) / (time.perf_counter() - began)
    print(json.dumps(found))


def child_large(way, n):
    """Print seconds and peak megabytes of each step as JSON."""
    affinity = "nearest_neighbors" if way == WAYS[0] else "precomputed_nearest_neighbors"
    model = AttentionEmbedding(LARGE_D, n_neighbors=LARGE_NEIGHBORS, affinity=affinity, n_jobs=2, random_state=0)
    steps = [model]
    if way == WAYS[1]:
        graph = KNeighborsTransformer(n_neighbors=LARGE_NEIGHBORS, mode="distance", algorithm="brute", n_jobs=2)
        steps = [graph, model]
    if way == WAYS[2]:
        from pynndescent import PyNNDescentTransformer

        steps = [PyNNDescentTransformer(n_neighbors=LARGE_NEIGHBORS, n_jobs=2), model]
    X = points = many_points(n)
    make_pipeline(*steps).fit(X[:1000])  # imports and compiles
    found = {"data": X.nbytes / 2**20, "steps": []}
    began, foreign = time.perf_counter(), others()
    for step in steps:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what was freed must not hide what is taken
        Path("/proc/self/clear_refs").write_text("5")  # the peak is again what is resident now
        before, start = resident("VmRSS"), time.perf_counter()
        X = step.fit_transform(X)
        seconds = time.perf_counter() - start
        found["steps"].append({"seconds": seconds, "peak": resident("VmHWM") - before, "dtype": X.dtype.name})
        if step is not model:
            graph = X
    found["others"] = (others() - foreign) / (time.perf_counter() - began)
    if way == WAYS[2]:
        found["recall"] = recall(graph.tocsr(), points)
    print(json.dumps(found))


def recall(graph, X, n_rows=500):
    """Share of the true neighbours of some rows that a graph has."""
    rows = np.random.default_rng(0).choice(len(X), n_rows, replace=False)
    found = [set(graph.indices[graph.indptr[row] : graph.indptr[row + 1]]) - {row} for row in rows]
    order = NearestNeighbors(n_neighbors=LARGE_NEIGHBORS + 1, algorithm="brute").fit(X).kneighbors(X[rows])[1]
    true = [[i for i in near if i != row][: len(some)] for near, row, some in zip(order, rows, found, strict=True)]
    return sum(len(some & set(near)) for some, near in zip(found, true, strict=True)) / sum(map(len, true))


def run(*arguments, limit=LIMIT):
    """What a child prints, or why it does not."""
    settings = {**os.environ, **THREADS, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, __file__, *map(str, arguments)]
    try:
        done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        result = {"failed": f"over {limit} s"}
    else:
        reason = done.stderr.strip().rpartition("\n")[2]
        result = {"failed": reason} if done.returncode else json.loads(done.stdout.splitlines()[-1])
    print(*arguments[1:], {key: value for key, value in result.items() if key != "folds"}, file=sys.stderr, flush=True)
    return result


# tables ----------------------------------------------------------------------------------------------
def mean(result, measure):
    """Over folds."""
    return np.mean([fold[measure] for fold in result["folds"]])


def folds(result, measure):
    """Accuracies by fold."""
    return np.array([fold[measure] for fold in result["folds"]])


def package(name):
    """What variants of a method, which are not rivals of each other, have in common."""
    return name if name in {"umap", "pca", "raw", *WEIGHTINGS} else "attnembed"


def seconds(name, result):
    """Of the fastest fold; None where nothing is fitted."""
    return None if name == "raw" else min(fold["seconds"] for fold in result["folds"])


def table(found, on, names, is_timed=True):
    """A row per method, the best for kNN first."""
    results = {name: found[name, on] for name in names}
    done = [name for name in names if "failed" not in results[name]]
    done.sort(key=lambda name: -mean(results[name], MEASURES[0]))
    columns = [[METHODS[name][0] for name in done]]
    columns += [ahead({name: folds(results[name], m) for name in done}, package=package) for m in MEASURES]
    if is_timed:
        times = [seconds(name, results[name]) for name in done]
        theirs = times[done.index("umap")] if "umap" in done else None
        columns += [fastest(times), [plain(theirs / own) if theirs and own else "" for own in times]]
    yield from zip([on] * len(done), *columns, strict=True)
    for name in [name for name in names if name not in done]:
        yield on, METHODS[name][0], results[name]["failed"], *[""] * (len(columns) - 2)


def versus(found, data):
    """Ours against UMAP fold by fold: a row per data set, measure and one of ours."""
    for on in data:
        for measure in MEASURES:
            for name in CHOSEN:
                if "failed" not in found[name, on] | found["umap", on]:
                    ours, theirs = (folds(found[key, on], measure) for key in (name, "umap"))
                    gap = ours - theirs
                    won = f"{(gap > 0).sum()} of {len(gap)}"
                    cells = ahead({name: ours, "umap": theirs}, lambda values: f"{values.mean():.1f}")
                    error = gap.std(ddof=1) / len(gap) ** 0.5
                    yield on, measure, METHODS[name][0], *cells, f"{gap.mean():+.1f}", f"{error:.1f}", won


def large_rows(n, recalls):
    """A row per way to the neighbours; the recall of approximate ones is noted."""
    for way in WAYS:
        if way == WAYS[2] and not find_spec("pynndescent"):
            continue
        result = run("--large-child", way, n)
        if "failed" in result:
            yield way, result["failed"], *[""] * 5
            continue
        if "recall" in result:
            recalls.append(result["recall"])
        *graph, embedding = result["steps"]
        bound = n * (LARGE_NEIGHBORS + 1) * 100 / 2**20
        bound += AttentionEmbedding(LARGE_D).estimate_memory(n, dtype=embedding["dtype"]) / 2**20
        cells = [f"{graph[0]['seconds']:.1f}", f"{graph[0]['peak']:.0f}"] if graph else ["", ""]
        yield way, *cells, f"{embedding['seconds']:.1f}", f"{embedding['peak']:.0f}", embedding["dtype"], f"{bound:.0f}"


# picture ---------------------------------------------------------------------------------------------
def picture(found, names, data, is_whole):
    """Accuracy of kNN against seconds, one panel a data set; raw features as a line."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(data), figsize=(13, 4.6), layout="constrained", squeeze=False)
    handles = {}
    for ax, on in zip(axes.flat, data, strict=True):
        for name in [name for name in names if "failed" not in found[name, on]]:
            label, *_, color, marker = METHODS[name]
            value, time_taken = mean(found[name, on], MEASURES[0]), seconds(name, found[name, on])
            if time_taken is None:
                handles[label] = ax.axhline(value, color=color, linestyle=":")
            else:
                handles[label] = ax.scatter(time_taken, value, 80, color, marker, alpha=0.85, edgecolors="none")
        ax.set(
            xscale="log", xlim=(0.01, None), xlabel="seconds, fit and transform", ylabel="accuracy of kNN, %", title=on
        )
        ax.grid(alpha=0.3)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    save(figure, "features_methods", is_whole)


# everything ------------------------------------------------------------------------------------------
TEXT = (
    "Points are embedded from two thirds of them (`fit`), the others given these (`transform`), in 16 dimensions and "
    "single precision. Accuracy, in percent, on the others: of five nearest neighbours; of logistic regression "
    "(max_iter=3000) on standardised vectors; and of logistic regression with C=100 on vectors divided by the mean "
    "norm. Means ± standard deviations of {n} stratified folds, the same for all methods. Sizes: digits 1,797 x 64, "
    "COIL-20 1,440 x 1,024, ISOLET 1,560 x 617. Each method has one setting for the three; rows of AttentionEmbedding "
    "with more to their name change that one parameter or two. {umap}Seconds are of fit and transform in the fastest "
    "fold, after a small one that has everything imported and compiled; each method has a process of its own and two "
    "threads. Rows are ordered by kNN. An accuracy is bold if it exceeds that of every other method, variants of "
    "AttentionEmbedding aside, by more than two standard errors of the difference over folds. n_neighbors=36 and "
    "n_clusters=4 were chosen on these very folds."
)
VERSUS = (
    "The same figures side by side, the standard error of the difference over folds, which have points in common, and "
    "in how many of the folds ours is more accurate. Bold as above."
)
OTHERS = (
    "The same on {n} stratified folds of other seeds, {seeds}, which had no part in choosing n_neighbors=36 and "
    "n_clusters=4."
)
WEIGHTED = "AttentionEmbedding(16, n_neighbors=36) with each `weighting`; folds as above."
LARGE_TEXT = (
    f"AttentionEmbedding({LARGE_D}, n_neighbors={LARGE_NEIGHBORS}) of {{n:,}} points in 784 dimensions: ten blobs of "
    "20 dimensions, mapped by a random matrix, with noise; single precision, {megabytes:.0f} MB. Neighbours are found "
    'by the model itself (brute force of scikit-learn); by `KNeighborsTransformer(mode="distance", '
    'algorithm="brute")` before it, for `affinity="precomputed_nearest_neighbors"`; or, approximately, by '
    "PyNNDescentTransformer{recall}. Peak MB are beyond what was resident before the step: the data, for the "
    "second step the graph too. The last column is the bound that the user guide states: 100 bytes for each "
    "neighbour and `estimate_memory` for the embedding, whose precision is that of the step's input."
)


def main():
    """Everything."""
    warnings.simplefilter("ignore")
    if sys.argv[1:2] == ["--child"]:
        return child(*sys.argv[2:])
    if sys.argv[1:2] == ["--large-child"]:
        return child_large(sys.argv[2], int(sys.argv[3]))
    parser = options(__doc__)
    parser.add_argument("--skip-large", action="store_true", help="not the many points; prints only")
    chosen = parser.parse_args()
    is_whole = not (chosen.quick or chosen.skip_large)
    n_seeds, data, n = (1, DATA[:1], 5_000) if chosen.quick else (len(SEEDS), DATA, LARGE)
    names = [name for name in SHOWN if not METHODS[name][2] or find_spec(METHODS[name][2])]
    for name in [name for name in SHOWN if name not in names]:
        print(f"{name} is left out: {METHODS[name][2]} is not installed", file=sys.stderr)

    found = {(name, on): run("--child", name, on, *SEEDS[:n_seeds]) for on in data for name in [*names, *WEIGHTINGS]}
    picture(found, names, data, is_whole)
    text = ""
    if "umap" in names:
        first = [found["umap", on]["first"] for on in data if "first" in found["umap", on]]
        text = "UMAP has its defaults, without a seed, so that it takes both "
        text += f"threads; a process's first call takes it {min(first, default=np.nan):.0f} s to compile. "
    text = TEXT.format(n=n_seeds * N_SPLITS, umap=text)
    header = ["data", "method", *MEASURES, "seconds", "times as fast as UMAP"]
    sections = [("Held-out points", text, header, [row for on in data for row in table(found, on, names)])]
    if "umap" in names:
        header = ["data", "measure", "method", "ours", "UMAP's", "difference", "standard error", "folds won"]
        sections.append(("Against UMAP", VERSUS, header, list(versus(found, data))))
        fresh = FRESH[:n_seeds]
        other = {(name, on): run("--child", name, on, *fresh) for on in data for name in (*CHOSEN, "umap")}
        text = OTHERS.format(n=n_seeds * N_SPLITS, seeds=", ".join(map(str, fresh)))
        sections.append(("Against UMAP, folds of other seeds", text, header, list(versus(other, data))))
    header = ["data", "weighting", *MEASURES]
    rows = [row for on in data for row in table(found, on, WEIGHTINGS, is_timed=False)]
    sections.append(("Weightings", WEIGHTED, header, rows))
    if not chosen.skip_large:
        recalls = []
        rows = list(large_rows(n, recalls))
        text = "".join(f" (recall {value:.3f} on 500 of the points)" for value in recalls)
        text = LARGE_TEXT.format(n=n, megabytes=n * 784 * 4 / 2**20, recall=text)
        header = ["neighbours by", "graph, s", "graph, peak MB", "fit, s", "fit, peak MB", "precision", "bound, MB"]
        sections.append(("Many points", text, header, rows))
    title = "Embeddings of features: accuracy, seconds and memory"
    write("bench_features", title, sections, is_whole, peers=["umap-learn", "pynndescent"])


if __name__ == "__main__":
    main()
