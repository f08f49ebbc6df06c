"""Embeddings of graphs: quality of ours and of the peers, over seeds.

Compares labels or communities found from the vectors of nodes by AttentionEmbedding, EDRep, DeepWalk, ProNE, NetMF,
Cleora, SpectralEmbedding and an SVD of the walks. A seed is one of the method and of the split into training and test
nodes, so that methods can be compared seed by seed. NetMF is exact, with dense matrices. There is no NRP and no STRAP:
their authors' code is C++ and MATLAB, and the package index has neither. Seconds and memory are in bench_speed.py.

Run ``python benchmarks/bench_embedding.py`` from the repository's root. Other work on the machine does not change the
result: every method has one thread, and as many methods run at once as there are cores. With ``--cache FILE`` an
interrupted run is taken up again: the file holds results, and those in it are not computed anew. ``--only``,
``--graphs``, ``--d`` and ``--seeds`` run a part, which is printed only.

Needs ``pip install -e ".[plot]" EDRep==0.1.2 gensim fastnode2vec pycleora``; a peer that is not installed is left out.

Data: ``ATTNEMBED_DATA`` names the folder, which has ppi, cora, lastfm_asia, email_eu_core, amazon, wikitext2, r8 and
word_analogy. The last three make the graphs of words: which follow each other in WikiText-2 and in R8, and their forms.

Takes half an hour on two cores; with ``--quick`` two graphs, three seeds and fewer methods, in less than one minute,
printed only.

Writes ``benchmarks/bench_embedding.md``, ``doc/images/embedding_methods.png``.
"""

import json
import os
import subprocess
import sys
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import scipy.sparse as sp
from _common import THREADS, ahead, apart, leads, loaders, options_of_graphs, protocols, save, spread, write
from _peers import METHODS, PEERS, missing

OURS, WALK_LENGTH, DIMENSION, SEEDS = "attnembed", 3, 128, 3
GRAPHS = ["ppi", "cora", "lastfm_asia", "email_eu_core", "words", "words_r8", "amazon"]
N_WORDS = 5_000
MEASURES = {"micro-F1, 10 %": 0.1, "micro-F1, 50 %": 0.5, "NMI": None}
QUICK_GRAPHS, SLOW, TIMED = ["cora", "email_eu_core"], ["deepwalk", "attnembed-nn"], ["attnembed-20"]
LIMIT = 300  # seconds for all seeds of a method on a graph
ONE_THREAD = dict.fromkeys(THREADS, "1")


# one method on one graph, in its own process ---------------------------------------------------------
# Forms of both words of a pair, by the sections of the analogy questions that have one form in each column.
FORMS = {
    "capital-common-countries": ("name", "name"),
    "capital-world": ("name", "name"),
    "city-in-state": ("name", "name"),
    "family": ("noun", "noun"),
    "gram1-adjective-to-adverb": ("adjective", "adverb"),
    "gram2-opposite": ("adjective", "adjective"),
    "gram3-comparative": ("adjective", "comparative"),
    "gram4-superlative": ("adjective", "superlative"),
    "gram5-present-participle": ("verb", "participle"),
    "gram6-nationality-adjective": ("name", "nationality"),
    "gram7-past-tense": ("participle", "past"),
    "gram8-plural": ("noun", "plural"),
    "gram9-plural-verbs": ("verb", "third person"),
}


def word_transitions(tokens):
    """Frequent words, linked if one follows the other anywhere, and forms of a few, one or several."""
    counts = Counter(token for token in tokens if token not in {"<eos>", "<unk>"})
    row = {word: i for i, (word, _) in enumerate(counts.most_common(N_WORDS))}
    ids = np.array([row.get(token, -1) for token in tokens])
    left, right = ids[:-1], ids[1:]
    kept = (left >= 0) & (right >= 0) & (left != right)
    A = sp.csr_matrix((np.ones(kept.sum(), np.float32), (left[kept], right[kept])), (N_WORDS, N_WORDS))
    forms = sorted({form for pair in FORMS.values() for form in pair})
    Y = np.zeros((N_WORDS, len(forms)), int)
    for section, questions in loaders().word_analogy().sections.items():
        for word, form in zip(np.ravel(questions), FORMS.get(section, ()) * 2 * len(questions), strict=False):
            if word in row:
                Y[row[word], forms.index(form)] = 1
    A = A + A.T
    A.data[:] = 1
    return A, Y


def labelled_graph(name):
    """Adjacency and labels."""
    if name == "words":
        return word_transitions([token.lower() for token in loaders().wikitext2().tokens])
    if name == "words_r8":
        return word_transitions([token for text in loaders().r8().texts for token in text.lower().split()])
    data = getattr(loaders(), name)()
    return sp.csr_matrix(data.A, dtype=np.float32), data.Y.toarray() if hasattr(data, "Y") else data.y


def score(on, X, y, seed):
    """Quality in percent, by measure, of one split or of the best of three starts of k-means."""
    if on == "amazon":
        starts = range(3 * seed, 3 * seed + 3)
        return {"NMI": 100 * float(protocols().community_nmi(X, y, seeds=starts))}
    Y = y if y.ndim == 2 else protocols().one_hot(y)
    ratios = {measure: ratio for measure, ratio in MEASURES.items() if ratio}
    classify = protocols().node_classification
    return {measure: float(classify(X, Y, ratio, seeds=(seed,))["micro_f1"]) for measure, ratio in ratios.items()}


def child(name, on, d, n_seeds):
    """Print quality by measure and seed as JSON."""
    warnings.simplefilter("ignore")
    A, y = labelled_graph(on)
    walk_length = "auto" if package(name) == OURS else WALK_LENGTH
    found = [score(on, METHODS[name][1](A, d, walk_length, seed=seed), y, seed) for seed in range(n_seeds)]
    print(json.dumps({measure: [scores[measure] for scores in found] for measure in found[0]}))


class Results:
    """Quality by method, graph, dimension and number of seeds; kept in a file if there is one."""

    def __init__(self, cache, n_seeds):
        self.cache, self.n_seeds = cache, n_seeds
        lines = cache.read_text().splitlines() if cache and cache.exists() else []
        self.known = {tuple(key): result for key, result in map(json.loads, lines)}

    def get(self, name, on, d):
        """One result, known or new."""
        key = (name, on, d, self.n_seeds)
        if key not in self.known:
            try:
                self.known[key] = apart(__file__, *key, limit=LIMIT, **ONE_THREAD)
            except subprocess.TimeoutExpired:
                self.known[key] = {"failed": f"over {LIMIT} s"}
            if self.cache:
                with self.cache.open("a") as file:
                    file.write(json.dumps([key, self.known[key]]) + "\n")
        return self.known[key]

    def all(self, names, graphs, d):
        """Arrays over seeds by method, for each graph and measure, and failures; the slow methods begin first."""
        jobs = [(name, on) for name in sorted(names, key=SLOW.__contains__, reverse=True) for on in graphs]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            done = dict(zip(jobs, pool.map(lambda job: self.get(*job, d), jobs), strict=True))
        failed = {job: result["failed"] for job, result in done.items() if "failed" in result}
        found = {}
        for name, on in sorted(done, key=lambda job: (graphs.index(job[1]), names.index(job[0]))):
            for measure in [measure for measure in MEASURES if measure in done[name, on]]:
                found.setdefault((on, measure), {})[name] = np.array(done[name, on][measure])
        return found, failed


# tables ----------------------------------------------------------------------------------------------
def package(name):
    """What variants of a method, which are not rivals of each other, have in common."""
    return name.partition("-")[0]


def table(found, failed, graphs):
    """A row per graph and method, the best of the last measure first."""
    for on in graphs:
        runs = {measure: found[on, measure] for measure in MEASURES if (on, measure) in found}
        names = list(next(iter(runs.values())))
        columns = {m: dict(zip(names, ahead(values, spread, package), strict=True)) for m, values in runs.items()}
        last = list(runs.values())[-1]
        for name in sorted(names, key=lambda name: -last[name].mean()):
            yield on, METHODS[name][0], *[columns.get(measure, {}).get(name, "") for measure in MEASURES]
        for name in [name for name, where in failed if where == on]:
            yield on, METHODS[name][0], failed[name, on], *[""] * (len(MEASURES) - 1)


def verdict(ours, theirs):
    """Whether ours is ahead, behind or alike."""
    return "ahead" if leads(ours, theirs) else "behind" if leads(theirs, ours) else "alike"


def best_rivals(found, rivals):
    """Ours against the best of the rivals: a row per graph and measure."""
    for (on, measure), runs in found.items():
        best = max(filter(runs.__contains__, rivals), key=lambda name: runs[name].mean())
        pair = runs[OURS], runs[best]
        gap = runs[OURS] - runs[best]
        difference = f"{gap.mean():+.1f}", f"{gap.std(ddof=1) / len(gap) ** 0.5:.1f}"
        yield on, measure, METHODS[best][0], *map(spread, pair), *difference, verdict(*pair)


def verdicts(found, rivals):
    """Ours against each rival: a row per rival."""
    for rival in rivals:
        pairs = [(runs[OURS], runs[rival]) for runs in found.values() if rival in runs]
        words = [verdict(*pair) for pair in pairs]
        means = [np.mean(ours - theirs) for ours, theirs in pairs]
        counts = [words.count(word) for word in ("ahead", "alike", "behind")]
        yield METHODS[rival][0], *counts, f"{np.mean(means):+.1f}", f"{min(means):+.1f}", f"{max(means):+.1f}"


def picture(found, graphs, is_whole):
    """Means and standard deviations, one panel a graph, by the last measure and the one before."""
    import matplotlib.pyplot as plt

    names = [name for name in METHODS if any(name in runs for runs in found.values())]
    figure, axes = plt.subplots(1, len(graphs), figsize=(15, 4.2), layout="constrained", squeeze=False, sharey=True)
    figure.suptitle("filled: half of the labels, or NMI; hollow: a tenth of the labels", fontsize="medium")
    for ax, on in zip(axes.flat, graphs, strict=True):
        for (where, measure), runs in found.items():
            if where != on:
                continue
            for name, values in runs.items():
                height = -names.index(name)
                *_, color, marker = METHODS[name]
                filled = color if measure != "micro-F1, 10 %" else "none"
                ax.errorbar(values.mean(), height, xerr=values.std(ddof=1), color=color, marker=marker, mfc=filled)
        ax.set_yticks([-height for height in range(len(names))], [METHODS[name][0] for name in names])
        ax.set(title=on, xlabel="NMI, %" if on == "amazon" else "micro-F1, %")
        ax.grid(alpha=0.3)
    save(figure, "embedding_methods", is_whole)


# everything ------------------------------------------------------------------------------------------
SETTING = (
    f'AttentionEmbedding with walk_length="auto", edrep and the SVD with walks of length {WALK_LENGTH}; all else is '
    "default, and the same for all graphs. Rows of AttentionEmbedding with more to their name change that one "
    "parameter. Peers at their own settings: edrep 30 epochs; DeepWalk 10 walks a node of 80 steps, window 10, 5 "
    "negatives; Cleora 40 iterations, whitened; ProNE and NetMF written anew from their papers, NetMF exact, with "
    "dense matrices; SpectralEmbedding of scikit-learn. Quality in percent, mean ± standard deviation of {seeds} seeds "
    "of method and split: micro-F1 of logistic regression on a tenth or half of the nodes, or, for amazon, mutual "
    "information of the best of three starts of k-means with the communities; ordered by the last measure of a graph. "
    "A figure is bold if it exceeds that of every other package by more than two standard errors of the difference "
    "over paired seeds, which have the same split. Other dimensions are not in this table. Graphs words and words_r8: "
    "the 5,000 most frequent words of WikiText-2, and of R8, linked if one follows the other; labels are the twelve "
    "forms, such as plural or past tense, that the analogy questions give some of the words. Seeds of a method on a "
    "graph have {limit} s together, on one thread."
)
BEST = (
    "AttentionEmbedding with its defaults against the rival with the highest mean, which is another one from row to "
    "row: the difference over paired seeds, its standard error, and *ahead* or *behind* where it is more than two."
)
EACH = (
    "The same against each rival: in how many of the rows above it is ahead, alike and behind, and the mean, least "
    "and largest difference of the rows."
)


def sections(results, names, graphs, dimensions, is_whole):
    """All tables, and the picture."""
    for d in dimensions:
        found, failed = results.all(names, graphs, d)
        rivals = [name for name in names if package(name) != package(OURS)]
        header = ["graph", "method", *MEASURES]
        yield (
            f"Quality, d = {d}",
            SETTING.format(seeds=results.n_seeds, limit=LIMIT),
            header,
            list(table(found, failed, graphs)),
        )
        if OURS in names and rivals:
            header = ["graph", "measure", "best rival", "ours", "rival's", "difference", "standard error", "ours is"]
            yield f"Against the best rival, d = {d}", BEST, header, list(best_rivals(found, rivals))
            header = ["rival", "ahead", "alike", "behind", "mean difference", "least", "largest"]
            yield f"Against each rival, d = {d}", EACH, header, list(verdicts(found, rivals))
    picture(found, graphs, is_whole)


def main():
    """Everything."""
    if sys.argv[1:2] == ["--child"]:
        return child(*sys.argv[2:4], *map(int, sys.argv[4:]))
    parser = options_of_graphs(__doc__)
    parser.add_argument("--seeds", type=int, help="number of seeds, at least two")
    chosen = parser.parse_args()
    is_whole = not any([chosen.quick, chosen.only, chosen.graphs, chosen.d, chosen.seeds])
    names = [name for name in METHODS if name not in TIMED and not (chosen.quick and name in SLOW)]
    names = chosen.only.split(",") if chosen.only else names
    graphs = chosen.graphs.split(",") if chosen.graphs else QUICK_GRAPHS if chosen.quick else GRAPHS
    dimensions = list(map(int, chosen.d.split(","))) if chosen.d else [32 if chosen.quick else DIMENSION]
    for name in [name for name in names if missing(name)]:
        print(f"{name} is left out: {', '.join(missing(name))} is not installed", file=sys.stderr)
        names.remove(name)
    results = Results(chosen.cache, chosen.seeds or (3 if chosen.quick else SEEDS))
    found = list(sections(results, names, graphs, dimensions, is_whole))
    threads = "one thread for each method"
    write("bench_embedding", "Embeddings of graphs: quality", found, is_whole, peers=PEERS, threads=threads)


if __name__ == "__main__":
    main()
