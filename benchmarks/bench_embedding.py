"""Embeddings of graphs: quality, seconds and memory of ours and of the peers.

Compares labels or communities found from the vectors of nodes, seconds and memory of AttentionEmbedding, EDRep,
DeepWalk, ProNE, Cleora, SpectralEmbedding and an SVD of the walks; and growth to a million nodes. Every embedding has
a process of its own; standard error tells the cores that others took, which have to be near 0.

Run ``python benchmarks/bench_embedding.py`` from the repository's root, on Linux with nothing else running: threads
that wait for each other get a hundred times slower otherwise. With ``--cache FILE`` an interrupted run is taken up
again: the file holds results, and those in it are not measured anew. ``--only``, ``--graphs``, ``--d`` and
``--skip-growth`` run a part, which is printed only.

Needs ``pip install -e ".[plot]" EDRep==0.1.2 gensim fastnode2vec pycleora``; a peer that is not installed is left out.

Data: ``ATTNEMBED_DATA`` names the folder, which has ppi, cora, lastfm_asia, email_eu_core and amazon.

Takes more than half an hour on two cores; with ``--quick`` two graphs, fewer methods and no growth, in less than one
minute, printed only.

Writes ``benchmarks/bench_embedding.md``, ``doc/images/embedding_methods.png``, ``doc/images/embedding_growth.png``.
"""

import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from _common import THREADS, loaders, options, plain, protocols, save, write
from _peers import LARGEST, METHODS, PEERS, missing

from sklearn_attnembed.datasets import make_block_model

OURS, OURS_20 = "attnembed", "attnembed-20"
WALK_LENGTH = 3
GRAPHS = ["ppi", "cora", "lastfm_asia", "email_eu_core", "amazon", "block-50k"]
SIZES = {"block-10k": 10_000, "block-30k": 30_000, "block-100k": 100_000, "block-300k": 300_000, "block-1M": 1_000_000}
MEASURES = {"micro-F1, 10 %": 0.1, "micro-F1, 50 %": 0.5, "NMI": None}
QUICK_GRAPHS, SLOW = ["cora", "email_eu_core"], ["deepwalk", "attnembed-nn"]
LIMIT, GROWTH_LIMIT = 120, 60
MEMORY = 0.8  # of the machine's, for one process


# one embedding, in its own process -------------------------------------------------------------------
def resident(key):
    """Megabytes of this process, now (VmRSS) or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def others():
    """Core seconds of everything on the machine but this process."""
    ticks = Path("/proc/stat").read_text().split()[1:4]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK") - time.process_time()


def child(name, path, d, walk_length):
    """Print seconds and megabytes as JSON and save the vectors beside the graph."""
    warnings.simplefilter("ignore")
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (int(MEMORY * total), -1))
    method = METHODS[name][1]
    method(sp.csr_matrix(make_block_model(300, 3, random_state=0)[0], dtype=np.float32), 8, 2)  # imports and compiles
    A = sp.load_npz(path)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is again what is resident now
    before, seconds, began, foreign = resident("VmRSS"), [], time.perf_counter(), others()
    while not seconds or (seconds[0] < 5 and len(seconds) < 3):
        start = time.perf_counter()
        X = method(A, d, walk_length)
        seconds.append(time.perf_counter() - start)
        if len(seconds) == 1:
            peak = resident("VmHWM") - before
            np.save(Path(path).with_suffix(".npy"), X)
    foreign = (others() - foreign) / (time.perf_counter() - began)
    print(json.dumps({"seconds": min(seconds), "peak": peak, "others": foreign}))


def embed(name, path, d, walk_length, limit):
    """Run the child: what it prints, or why it does not."""
    command = [sys.executable, __file__, "--child", name, str(path), str(d), str(walk_length)]
    settings = {**os.environ, **THREADS, "PYTHONWARNINGS": "ignore"}
    late = {"failed": f"over {limit} s"}
    try:
        done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=limit + 20, check=False)
    except subprocess.TimeoutExpired:
        return late
    if done.returncode == 0:
        result = json.loads(done.stdout.splitlines()[-1])
        return result if result["seconds"] <= limit else late
    reason = done.stderr.strip().rpartition("\n")[2]
    memory = done.returncode == -9 or any(word in reason for word in ("memory", "Memory", "malloc", "allocate"))
    return {"failed": "out of memory"} if memory else {"failed": "failed", "reason": reason}


# graphs and scores -----------------------------------------------------------------------------------
def labelled_graph(name):
    """Adjacency and labels."""
    if name.startswith("block"):
        return make_block_model({**SIZES, "block-50k": 50_000}[name], 50, mean_degree=20, mixing=0.3, random_state=0)
    data = getattr(loaders(), name)()
    return data.A, data.Y.toarray() if hasattr(data, "Y") else data.y


def score(name, X, y):
    """Quality in percent, by measure."""
    if name == "amazon":
        return {"NMI": 100 * protocols().community_nmi(X, y)}
    if len(X) > 10_000:
        rows = np.random.default_rng(0).choice(len(X), 5_000, replace=False)
        X, y = X[rows], y[rows]
    Y = y if y.ndim == 2 else protocols().one_hot(y)
    ratios = {measure: ratio for measure, ratio in MEASURES.items() if ratio}
    return {measure: float(protocols().node_classification(X, Y, r)["micro_f1"]) for measure, r in ratios.items()}


class Results:
    """Results by method, graph, dimension, walk length and limit; kept in a file if there is one."""

    def __init__(self, cache):
        self.cache = cache
        self.folder = tempfile.TemporaryDirectory()
        self.graphs = {}
        lines = cache.read_text().splitlines() if cache and cache.exists() else []
        self.known = {tuple(key): result for key, result in map(json.loads, lines)}

    def graph(self, name):
        """File, sizes and labels."""
        if name not in self.graphs:
            A, y = labelled_graph(name)
            path = Path(self.folder.name) / f"{name}.npz"
            sp.save_npz(path, sp.csr_matrix(A, dtype=np.float32), compressed=False)
            self.graphs[name] = path, {"n": A.shape[0], "nnz": A.nnz}, y
        return self.graphs[name]

    def get(self, name, on, d, walk_length=WALK_LENGTH, limit=LIMIT):
        """One result, known or new; failures without a good reason are not kept."""
        key = (name, on, d, walk_length, limit)
        if key not in self.known:
            path, sizes, y = self.graph(on)
            is_large = sizes["n"] > LARGEST.get(name, sizes["n"])
            result = sizes | ({"failed": "dense"} if is_large else embed(name, path, d, walk_length, limit))
            if "failed" not in result and on in GRAPHS:
                result["quality"] = score(on, np.load(path.with_suffix(".npy")), y)
            print(*key, result, file=sys.stderr, flush=True)
            self.known[key] = result
            if self.cache and "reason" not in result:
                with self.cache.open("a") as file:
                    file.write(json.dumps([key, result]) + "\n")
        return self.known[key]


# tables ----------------------------------------------------------------------------------------------
def bold(values, form, choose):
    """Cells of numbers, the best in bold; None is an empty cell."""
    top = choose((value for value in values if value is not None), default=None)
    return ["" if v is None else f"**{form(v)}**" if v == top else form(v) for v in values]


def fastest(values):
    """Cells of seconds."""
    return bold(values, lambda v: plain(v, 3) if v < 100 else f"{v:.0f}", min)


def highest(values):
    """Cells of quality."""
    return bold(values, lambda v: f"{v:.1f}", max)


def table(found, graphs):
    """A row per graph and method, the best quality first."""
    for on in graphs:
        results = {name: result for (name, where), result in found.items() if where == on}
        done = {name: r for name, r in results.items() if "failed" not in r}
        done = dict(sorted(done.items(), key=lambda item: -list(item[1]["quality"].values())[-1]))
        columns = [[METHODS[name][0] for name in done], fastest([r["seconds"] for r in done.values()])]
        columns += [[f"{r['peak']:.0f}" for r in done.values()]]
        columns += [highest([r["quality"].get(measure) for r in done.values()]) for measure in MEASURES]
        yield from zip([on] * len(done), *columns, strict=True)
        for name in [name for name in results if name not in done]:
            yield on, METHODS[name][0], results[name]["failed"], "", *[""] * len(MEASURES)


def versus(found, graphs, rivals):
    """Ours against rivals: a row per graph, measure and rival."""
    for on in graphs:
        for measure in MEASURES:
            for rival in rivals:
                a, b = found.get((OURS, on), {}), found.get((rival, on), {})
                x, y = (r.get("quality", {}).get(measure) for r in (a, b))
                if x is not None and y is not None:
                    seconds = fastest([a["seconds"], b["seconds"]])
                    ratio = plain(b["seconds"] / a["seconds"])
                    yield on, measure, METHODS[rival][0], *highest([x, y]), f"{x - y:+.1f}", *seconds, ratio


def growth(results, methods, d):
    """Results by method and graph; none larger once a method failed."""
    found = {}
    for name in methods:
        for on in SIZES:
            found[name, on] = results.get(name, on, d, limit=GROWTH_LIMIT)
            if "failed" in found[name, on]:
                break
    return found


def growth_table(found, methods):
    """A row per method, a column per graph."""
    columns = [[METHODS[name][0] for name in methods]]
    for on in SIZES:
        cells = [found.get((name, on), {}) for name in methods]
        seconds = fastest([cell.get("seconds") for cell in cells])
        texts = [f"{s} s, {c['peak'] / 1024:.2f} GB" if s else c.get("failed", "") for s, c in zip(seconds, cells)]  # noqa: B905
        columns.append(texts)
    return list(zip(*columns, strict=True))


# pictures --------------------------------------------------------------------------------------------
def picture_quality(found, graphs, is_whole):
    """Quality against seconds, one panel a graph."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(13, 6.5), layout="constrained", sharex=True)
    points = {}
    for ax, on in zip(axes.flat, graphs, strict=False):
        for (name, where), result in found.items():
            if where == on and "failed" not in result:
                label, *_, color, marker = METHODS[name]
                measure, value = list(result["quality"].items())[-1]
                points[label] = ax.scatter(result["seconds"], value, 80, color, marker, alpha=0.85, edgecolors="none")
                ax.set(xscale="log", xlabel="seconds", ylabel=measure, title=f"{on}, {result['n']:,} nodes")
        middle, half = np.mean(ax.get_ylim()), np.ptp(ax.get_ylim()) / 2
        ax.set_ylim(middle - max(half, 0.75), middle + max(half, 0.75))  # less is noise
        ax.tick_params(labelbottom=True)
        ax.grid(alpha=0.3)
    for ax in axes.flat[len(graphs) :]:
        ax.set_axis_off()
    figure.legend(points.values(), points.keys(), loc="outside right center")
    save(figure, "embedding_methods", is_whole)


def picture_growth(found, methods, is_whole):
    """Seconds and gigabytes against nodes."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(13, 4.6), layout="constrained")
    for ax, key, unit, ylabel in zip(axes, ("seconds", "peak"), (1, 1024), ("seconds", "peak GB"), strict=True):
        for name in methods:
            done = [r for (method, _), r in found.items() if method == name and "failed" not in r]
            label, *_, color, marker = METHODS[name]
            ax.loglog([r["n"] for r in done], [r[key] / unit for r in done], color=color, marker=marker, label=label)
        ax.set(xlabel="nodes", ylabel=ylabel)
        ax.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    save(figure, "embedding_growth", is_whole)


# everything ------------------------------------------------------------------------------------------
SETTING = (
    f"Walks of length {WALK_LENGTH} for AttentionEmbedding, edrep and the SVD; all else is default, and the same for "
    "all graphs. Rows of AttentionEmbedding with more to their name change that one parameter. Peers at their own "
    "settings: edrep 30 epochs; DeepWalk 10 walks a node of 80 steps, window 10, 5 negatives (with two "
    "threads not reproducible to the bit); Cleora 40 iterations, whitened; ProNE written anew from its paper; "
    "SpectralEmbedding of scikit-learn. Every embedding has a process of its own and two threads. Seconds are of the "
    "embedding alone, once a small graph has had everything imported and compiled, and the best of three if below 5; "
    "MB are the peak beyond what was resident before, graph included. Quality, in percent, is of the first: micro-F1 "
    "of logistic regression on a tenth or half of the nodes, or, for amazon, mutual information of k-means with the "
    "communities. Graph block-50k is `make_block_model(50_000, 50, mean_degree=20, mixing=0.3)`, scored on 5,000 of "
    "its nodes. The best of a graph is bold, ordered by the last measure; limits are "
    f"{LIMIT} s and {MEMORY:.0%} of the machine's memory."
)


def quality_sections(results, methods, graphs, dimensions, is_whole):
    """Tables of quality, and the picture of the largest dimension."""
    for d in dimensions:
        there = [on for on in graphs if d == dimensions[-1] or not on.startswith("block")]
        found = {(name, on): results.get(name, on, d) for on in there for name in methods}
        text = SETTING if d == dimensions[0] else "The same."
        yield (
            f"Quality, d = {d}",
            text,
            ["graph", "method", "seconds", "peak MB", *MEASURES],
            list(table(found, there)),
        )
    picture_quality(found, graphs, is_whole)
    header = ["graph", "measure", "rival", "ours", "rival's", "difference", "our s", "rival's s", "times as fast"]
    for title, rivals in {"edrep": ["edrep"], "DeepWalk and ProNE": ["deepwalk", "prone"]}.items():
        text = "The same figures side by side, for AttentionEmbedding with its defaults."
        yield f"Against {title}, d = {d}", text, header, list(versus(found, graphs, rivals))


def growth_sections(results, methods, d, is_whole):
    """Tables of growth, and the picture."""
    found = growth(results, methods, d)
    picture_growth(found, methods, is_whole)
    text = (
        f"Block models as above, d = {d}: seconds and peak gigabytes. A method that took more than {GROWTH_LIMIT} s or "
        "failed is not run on larger ones."
    )
    yield "Growth", text, ["method", *SIZES], growth_table(found, methods)
    rows = []
    for walk_length in (1, 3):
        r = results.get(OURS_20, "block-1M", d, walk_length)
        cells = ["", r["failed"]] if "failed" in r else [f"{r['seconds']:.1f}", f"{r['peak'] / 1024:.2f}"]
        rows.append([walk_length, f"{r['n']:,}", f"{r['nnz']:,}", *cells])
    text = f"AttentionEmbedding({d}, max_iter=20, tol=0)."
    yield "Twenty iterations", text, ["walk length", "nodes", "non-zeros", "seconds", "peak GB"], rows


def main():
    """Everything."""
    if sys.argv[1:2] == ["--child"]:
        return child(*sys.argv[2:4], *map(int, sys.argv[4:]))
    parser = options(__doc__)
    parser.add_argument("--cache", type=Path, help="JSON lines of results, read and added to")
    parser.add_argument("--only", help="methods, with commas between")
    parser.add_argument("--graphs", help="the same of graphs")
    parser.add_argument("--d", help="the same of dimensions")
    parser.add_argument("--skip-growth", action="store_true")
    chosen = parser.parse_args()
    is_whole = not any([chosen.quick, chosen.only, chosen.graphs, chosen.d, chosen.skip_growth])
    methods = [name for name in METHODS if name != OURS_20 and not (chosen.quick and name in SLOW)]
    methods = chosen.only.split(",") if chosen.only else methods
    graphs = chosen.graphs.split(",") if chosen.graphs else QUICK_GRAPHS if chosen.quick else GRAPHS
    dimensions = sorted(map(int, chosen.d.split(","))) if chosen.d else [32] if chosen.quick else [32, 128]
    for name in [name for name in methods if missing(name)]:
        print(f"{name} is left out: {', '.join(missing(name))} is not installed", file=sys.stderr)
        methods.remove(name)
    results = Results(chosen.cache)
    sections = list(quality_sections(results, methods, graphs, dimensions, is_whole))
    if not (chosen.skip_growth or chosen.quick):
        sections += growth_sections(results, methods, dimensions[-1], is_whole)
    write("bench_embedding", "Embeddings of graphs: quality, seconds and memory", sections, is_whole, peers=PEERS)


if __name__ == "__main__":
    main()
