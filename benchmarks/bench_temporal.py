"""Contacts in time: what vectors of people in time slices know that those of all contacts together do not.

Compares communities and forecasts of contacts from vectors of time slices, of the aggregated graph, by EDRep, DeepWalk
and SpectralEmbedding, and from counts.

Run ``python benchmarks/bench_temporal.py`` from the repository's root.

Needs ``pip install -e ".[plot]" EDRep==0.1.2 gensim fastnode2vec``; a peer that is not installed is left out.

Data: ``ATTNEMBED_DATA`` names the folder, which has primary_school.

Takes about 7 minutes on two cores; with ``--quick`` fewer widths, settings, seeds and slices, in about one, printed
only.

Writes ``benchmarks/bench_temporal.md``, ``doc/images/temporal_methods.png``.
"""

import sys
import time
import warnings
from functools import partial
from importlib.util import find_spec
from itertools import pairwise, product

import numpy as np
import scipy.sparse as sp
from _common import ahead, loaders, options, protocols, save, write
from sklearn.manifold import SpectralEmbedding
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import normalize

from sklearn_attnembed import AttentionEmbedding
from sklearn_attnembed.affinity import temporal

WIDTHS, WIDTH, DIRECTIONS = (600, 1200, 1800, 3600), 1800, ("both", "forward")
SETTING = {"n_components": 64, "walk_length": 3, "temperature": 0.5}
GRID = {"n_components": (32, 64), "walk_length": (1, 3), "temperature": (0.2, 0.5, 1.0)}
PREDICTED_WIDTHS, PICTURE_WIDTH = (600, 1200, 1800), 1200
PEERS = ("EDRep", "fastnode2vec", "gensim")
HALF_LIVES = {"10 min": 600, "1 h": 3600}  # of counts that decay
SUBSETS = ("all", "not now", "never met")
OURS, RIVAL, SIMPLE = "temporal, both", "aggregated", "common neighbours, half-life 10 min"
KATZ = "Katz index, half-life 10 min"


class School:
    """The contacts, and what is made of those until some slice."""

    def __init__(self):
        self.data = loaders().primary_school()
        self.y, self.n = self.data.y, self.data.n
        self.pairs = np.triu_indices(self.n, 1)
        self.start = self.data.t.min()

    def slices(self, width):
        """Slice of each contact: the same that `temporal` makes."""
        return (self.data.t - self.start) // width

    def counts(self, weights):
        """Weights of contacts by pair: the time-aggregated graph."""
        A = sp.coo_array((weights, (self.data.i, self.data.j)), shape=(self.n, self.n)).tocsr()
        return sp.csr_array(A + A.T)

    def graph(self, kept=slice(None)):
        """The time-aggregated graph of some contacts, weighted by their number."""
        weights = np.zeros(len(self.data.t))
        weights[kept] = 1
        return self.counts(weights)

    def walk(self, width, direction, kept=slice(None)):
        """The walk in time on some contacts."""
        contacts = np.column_stack([self.data.t, self.data.i, self.data.j])[kept]
        return temporal(contacts, width=width, direction=direction, nodes=np.arange(self.n))

    def of_pairs(self, matrix):
        """Entries of the pairs."""
        return np.asarray(matrix.todense() if sp.issparse(matrix) else matrix)[self.pairs]


def attnembed(affinity, seed=0, **params):
    """Vectors of nodes or states."""
    model = AttentionEmbedding(affinity="precomputed", n_jobs=2, random_state=seed, **{**SETTING, **params})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* no affinity")  # people who have not come yet
        return model.fit(affinity).embedding_


# peers, given the aggregated graph with its weights --------------------------------------------------
def edrep(affinity, seed, d=SETTING["n_components"], walk_length=SETTING["walk_length"]):
    """edrep at its own settings."""
    from EDRep import CreateEmbedding

    np.random.seed(seed)
    P = sp.csr_matrix(normalize(sp.csr_matrix(affinity), "l1"))
    return CreateEmbedding([P] * walk_length, dim=d, sum_partials=True, verbose=False).X


def deepwalk(A, seed, d=SETTING["n_components"]):
    """DeepWalk as in bench_embedding.py, its walks weighted."""
    from fastnode2vec import Graph
    from fastnode2vec.node2vec import set_seed
    from gensim.models import Word2Vec

    upper = sp.triu(A, 1).tocoo()
    graph = Graph(zip(upper.row, upper.col, upper.data, strict=True), directed=False, weighted=True, verbose=False)
    set_seed(seed)
    rng = np.random.default_rng(seed)
    walks = [graph.generate_random_walk(80, 1, 1, node) for _ in range(10) for node in rng.permutation(A.shape[0])]
    settings = {"window": 10, "sg": 1, "negative": 5, "sample": 0, "min_count": 1, "workers": 2, "epochs": 1}
    words = Word2Vec(walks, vector_size=d, seed=seed, **settings).wv
    return words[np.arange(A.shape[0]).tolist()]


def spectral(A, seed, d=11):
    """Eigenvectors of the normalised Laplacian."""
    return SpectralEmbedding(d, affinity="precomputed", random_state=seed).fit_transform(A.toarray())


# communities -----------------------------------------------------------------------------------------
def clock(function, *arguments, **parameters):
    """Result and seconds."""
    start = time.perf_counter()
    result = function(*arguments, **parameters)
    return result, time.perf_counter() - start


def nmi(school, embed, n_seeds, by_node=np.asarray):
    """Mutual information by seed, and the least seconds of an embedding."""
    runs = [clock(embed, seed=seed) for seed in range(n_seeds)]
    return [protocols().community_nmi(by_node(X), school.y) for X, _ in runs], min(seconds for _, seconds in runs)


def mean(values):
    """Mean over seeds, or over the slices that have a pair to find."""
    return f"{np.nanmean(values):.3f}"


def communities(school, widths, n_seeds):
    """A row per method: the headline setting."""
    A, found = school.graph(), {}
    found["aggregated", "AttentionEmbedding"] = nmi(school, partial(attnembed, A), n_seeds)
    for width, direction in product(widths, DIRECTIONS):
        walk = school.walk(width, direction)
        scores = nmi(school, partial(attnembed, walk.affinity), n_seeds, walk.by_node)
        found[f"temporal, {width} s, {direction}", "AttentionEmbedding"] = scores
    if find_spec("EDRep"):
        walk = school.walk(WIDTH, "both")
        found["aggregated", "edrep"] = nmi(school, partial(edrep, A), n_seeds)
        scores = nmi(school, partial(edrep, walk.affinity), n_seeds, walk.by_node)
        found[f"temporal, {WIDTH} s, both", "edrep"] = scores
    if find_spec("fastnode2vec") and find_spec("gensim"):
        deepwalk(A, 0)  # compiles
        found["aggregated", "DeepWalk"] = nmi(school, partial(deepwalk, A), n_seeds)
    found["aggregated", "SpectralEmbedding, d = 11"] = nmi(school, partial(spectral, A), n_seeds)
    means = ahead({key: np.array(scores) for key, (scores, _) in found.items()}, mean, package=lambda key: key[1])
    names = [[method for _, method in found], [graph for graph, _ in found]]
    rest = [(f"{min(scores):.3f}", f"{seconds:.2f}") for scores, seconds in found.values()]
    return list(zip(*names, means, *zip(*rest, strict=True), strict=True))


def grid(school, widths, n_seeds, settings):
    """A row per setting, a column per graph: means over seeds."""
    walks = {(width, direction): school.walk(width, direction) for width, direction in product(widths, DIRECTIONS)}
    A = school.graph()
    for values in settings:
        params = dict(zip(GRID, values, strict=True))
        means = [np.mean(nmi(school, partial(attnembed, A, **params), n_seeds)[0])]
        for walk in walks.values():
            embed = partial(attnembed, walk.affinity, **params)
            means.append(np.mean(nmi(school, embed, n_seeds, walk.by_node)[0]))
        yield *values, *map("{:.3f}".format, means)


# prediction ------------------------------------------------------------------------------------------
def vectors(school, width, kept=slice(None), directions=(*DIRECTIONS, "backward"), **params):
    """Functions from a slice to vectors, by name: of the aggregated graph and of the walks in time."""
    fixed = attnembed(school.graph(kept), **params)
    found = {RIVAL: lambda now: fixed}
    for direction in directions:
        walk = school.walk(width, direction, kept)
        found[f"temporal, {direction}"] = partial(walk.at, attnembed(walk.affinity, **params))
    return found


def walk_sum(counts):
    """Sum of the powers up to `walk_length` of the counts, which are divided by the roots of their row sums."""
    roots = np.sqrt(counts.sum(axis=1))
    inverse = sp.diags_array(np.divide(1, roots, out=np.zeros_like(roots), where=roots > 0))
    N = (inverse @ counts @ inverse).toarray()
    return sum(np.linalg.matrix_power(N, length) for length in range(1, SETTING["walk_length"] + 1))


def katz(counts):
    """The index of Katz (1953), its damping half of the largest possible: walks of all lengths."""
    A = counts.toarray()
    identity = np.eye(len(A))
    return np.linalg.inv(identity - A / (2 * np.linalg.eigvalsh(A)[-1])) - identity


def simple(school, age, past):
    """Scores of pairs from counts of past contacts alone, and from vectors of counts that decay, by name."""
    scores = {"contacts in the slice": school.counts(1.0 * (age == 0)), "contacts until now": school.counts(1.0 * past)}
    for label, half_life in HALF_LIVES.items():
        decayed = school.counts(np.where(past, 0.5 ** (np.maximum(age, 0) / half_life), 0))
        logs, X = decayed.log1p(), attnembed(decayed)
        scores[f"contacts, half-life {label}"] = decayed
        scores[f"common neighbours, half-life {label}"] = logs @ logs
        scores[f"walks of {SETTING['walk_length']} steps, half-life {label}"] = walk_sum(decayed)
        scores[f"Katz index, half-life {label}"] = katz(decayed)
        scores[f"aggregated, half-life {label}"] = X @ X.T
    return scores


def predict(school, width, step=1, whole=False, with_simple=True, **given):
    """AUC by (method, subset of pairs), one for each slice, and where these slices end."""
    slot = school.slices(width)
    filled = np.unique(slot)
    known = vectors(school, width, **given) if whole else None
    found, ends = {}, []
    for now, following in list(pairwise(filled))[::step]:
        past = slot <= now
        now_known = known or vectors(school, width, past, **given)
        scores = {name: of(now) @ of(now).T for name, of in now_known.items()}
        if with_simple:
            scores |= simple(school, (now - slot) * width, past)
        target, meeting, ever = (
            school.of_pairs(school.graph(kept)) > 0 for kept in (slot == following, slot == now, past)
        )
        for subset, kept in zip(SUBSETS, (np.full(len(target), True), ~meeting, ~ever), strict=True):
            for name, score in scores.items():
                area = roc_auc_score(target[kept], school.of_pairs(score)[kept]) if target[kept].any() else np.nan
                found.setdefault((name, subset), []).append(area)
        ends.append(school.start + (now + 1) * width)
    return {key: np.array(areas) for key, areas in found.items()}, np.array(ends)


def prediction_rows(results, subsets=SUBSETS):
    """A row per method, a column per width and subset: means over slices."""
    names = list(dict.fromkeys(name for found, _ in results.values() for name, _ in found))
    columns = [
        ahead({name: found[name, subset] for name in names}, mean)
        for found, _ in results.values()
        for subset in subsets
    ]
    return list(zip(names, *columns, strict=True))


def difference_rows(results, protocol, rival):
    """How sure the difference of ours and a rival is."""
    for (width, (found, _)), subset in product(results.items(), SUBSETS):
        difference = found[OURS, subset] - found[rival, subset]
        difference = difference[~np.isnan(difference)]
        error = difference.std(ddof=1) / np.sqrt(len(difference))
        won = f"{(difference > 0).sum()} of {len(difference)}"
        yield rival, protocol, width, subset, f"{difference.mean():+.3f}", f"{error:.3f}", won


def setting_rows(school, settings, step):
    """A row per setting: AUC of all pairs, past only."""
    for values in settings:
        params = dict(zip(GRID, values, strict=True))
        found, _ = predict(school, PICTURE_WIDTH, step, False, False, directions=("both", "backward"), **params)
        yield *values, *[mean(areas) for (_, subset), areas in found.items() if subset == SUBSETS[0]]


# picture ---------------------------------------------------------------------------------------------
STYLES = {
    OURS: ("tab:red", "o"),
    RIVAL: ("tab:blue", "s"),
    SIMPLE: ("tab:green", "v"),
    KATZ: ("tab:purple", "D"),
    "contacts, half-life 1 h": ("tab:gray", "."),
}


def picture(found, ends, is_whole):
    """AUC by the time of day, a panel a day and subset."""
    import matplotlib.pyplot as plt

    hours = ends / 3600
    day = hours // 24
    figure, axes = plt.subplots(2, 2, figsize=(13, 6.5), layout="constrained", sharey="row", sharex=True)
    titles = {"all": "all pairs", "not now": "pairs that do not meet now"}
    for row, (subset, title) in zip(axes, titles.items(), strict=True):
        for ax, which in zip(row, np.unique(day), strict=True):
            for name, (color, marker) in STYLES.items():
                shown = day == which
                ax.plot(hours[shown] % 24, found[name, subset][shown], color=color, marker=marker, label=name)
            ax.set(title=f"day {which + 1:.0f}, {title}", ylabel="AUC", xlabel="time of the forecast")
            ax.xaxis.set_major_formatter(lambda hour, _: f"{hour:.0f}:00")
            ax.tick_params(labelbottom=True, labelleft=True)
            ax.grid(alpha=0.3)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(STYLES))
    save(figure, "temporal_methods", is_whole)


# everything ------------------------------------------------------------------------------------------
COMMUNITIES = (
    "Contacts of 242 people in a primary school, 20 s each, over two days; the communities are ten classes and the "
    "teachers. One vector for each person: of the time-aggregated graph, weighted by numbers of contacts, or the mean "
    "over that person's slices (`by_node`) of the vectors of the walk in time, for slices of several widths. "
    "Normalised mutual information of k-means (k = 11, the best of three starts, rows of unit norm) with the "
    "communities, mean and worst of {seeds} seeds; a mean that exceeds those of every other method by more than two "
    "standard errors of the difference would be bold. The setting is one for both graphs and all widths: "
    "AttentionEmbedding(n_components=64, walk_length=3, temperature=0.5), slices of 1800 s where one width is named. "
    "edrep with 30 epochs, d = 64 and three powers; DeepWalk with d = 64, weighted, 10 walks a node "
    "of 80 steps, window 10, 5 negatives. Seconds are those of an embedding, the least over seeds; of temporal ones "
    "the vectors are those of all states."
)
SETTINGS = (
    "Means of {seeds} seeds for other parameters, the same for both graphs; columns of the temporal ones are width in "
    "seconds and direction."
)
PAST = (
    "Who meets in the next slice with any contact: mean over slices of the area under the ROC curve, by width of the "
    "slices, over both days. Nothing that comes later is known: before each prediction both graphs are embedded anew "
    "from the contacts until then, in the setting above. A pair's score is the product of the vectors, for temporal "
    "ones of `walk.at(X, slice)`. Columns are all 29,161 pairs; those that do not meet in the current slice; and those "
    "that never met until then, in slices with any such meeting. People who have not come yet are not left out, nor is "
    "the step over the night. "
    "Simple rivals: numbers of contacts of the pair, all alike or halved after every 10 minutes or hour; common "
    "neighbours in the graph of these, each number c counted as log(1 + c); walks of three steps in it, the sum of the "
    "powers of its adjacency matrix, divided by the roots of the row sums on both sides; its Katz index, with half of "
    "the largest possible damping; and AttentionEmbedding of the graph of these. A figure is bold if it exceeds every "
    "other of its column by more than two standard errors of the difference, slices taken as independent."
)
WHOLE = (
    "The same pairs and slices, all pairs; but both graphs are embedded once, from both days, so that vectors know "
    "the contacts that are asked for: what vectors hold of time, no forecast. Bold as above."
)
DIFFERENCE = (
    "Temporal (both) minus rival: mean over slices, standard error of that mean (slices taken as independent, "
    "which neighbours are not) and slices in which temporal is ahead."
)
OTHERS = (
    "Forecasts as above, past only, all pairs, for other parameters, the same for both graphs: slices of "
    f"{PICTURE_WIDTH} s, one in {{step}}."
)


def community_sections(school, quick):
    """Tables of communities."""
    seeds, widths = (3, (WIDTH,)) if quick else (10, WIDTHS)
    settings = list(product(*GRID.values()))[:: 4 if quick else 1]
    header = ["method", "graph", "mean NMI", "worst NMI", "seconds"]
    yield "Communities", COMMUNITIES.format(seeds=seeds), header, communities(school, widths, seeds)
    seeds = 2 if quick else 5
    header = [*GRID, "aggregated", *(f"{width}, {direction}" for width, direction in product(widths, DIRECTIONS))]
    rows = list(grid(school, widths, seeds, settings))
    yield "Communities, other parameters", SETTINGS.format(seeds=seeds), header, rows


def forecast_sections(school, quick):
    """Tables of forecasts, and the picture."""
    step, predicted = (6, (PICTURE_WIDTH,)) if quick else (1, PREDICTED_WIDTHS)
    past = {width: predict(school, width, step) for width in predicted}
    picture(*past[PICTURE_WIDTH], not quick)
    whole = {width: predict(school, width, step, whole=True, with_simple=False) for width in predicted}
    header = ["method", *(f"{width} s, {subset}" for width, subset in product(predicted, SUBSETS))]
    yield "Forecasts", PAST, header, prediction_rows(past)
    header = ["method", *(f"{width} s" for width in predicted)]
    yield "Both days known", WHOLE, header, prediction_rows(whole, SUBSETS[:1])
    header = ["rival", "known", "width, s", "pairs", "difference", "standard error", "slices ahead"]
    rows = [row for rival in (RIVAL, SIMPLE, KATZ) for row in difference_rows(past, "past", rival)]
    rows += difference_rows(whole, "both days", RIVAL)
    yield "Against aggregated vectors, common neighbours and the Katz index", DIFFERENCE, header, rows


def setting_sections(school, quick):
    """Forecasts for other parameters."""
    step = 12 if quick else 3
    settings = list(product(*GRID.values()))[:: 4 if quick else 1]
    settings = [setting for setting in settings if setting[0] == SETTING["n_components"]]
    rows = list(setting_rows(school, settings, step))
    header = [*GRID, RIVAL, OURS, "temporal, backward"]
    yield "Forecasts, other parameters", OTHERS.format(step=step), header, rows


PARTS = {"communities": community_sections, "forecasts": forecast_sections, "settings": setting_sections}


def main():
    """Everything."""
    parser = options(__doc__)
    parser.add_argument("--part", choices=PARTS, help="this part of the tables alone; prints only")
    chosen = parser.parse_args()
    for module in [module for module in PEERS if not find_spec(module)]:
        print(f"a peer is left out: {module} is not installed", file=sys.stderr)
    school = School()
    parts = [PARTS[chosen.part]] if chosen.part else PARTS.values()
    found = [section for part in parts for section in part(school, chosen.quick)]
    is_whole = not (chosen.quick or chosen.part)
    write("bench_temporal", "Contacts in time: temporal and aggregated vectors", found, is_whole, peers=PEERS)


if __name__ == "__main__":
    main()
