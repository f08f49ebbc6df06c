"""Embeddings of graphs: seconds and memory of ours and of the peers.

Compares seconds and memory of AttentionEmbedding, EDRep, DeepWalk, ProNE, NetMF, Cleora, SpectralEmbedding and an SVD
of the walks on the graphs of bench_embedding.py, which measures the quality, and growth to a million nodes. Every
embedding has a process of its own; standard error tells the cores that others took, which have to be near 0.

Run ``python benchmarks/bench_speed.py`` from the repository's root, on Linux with nothing else running: threads that
wait for each other get a hundred times slower otherwise. With ``--cache FILE`` an interrupted run is taken up again:
the file holds results, and those in it are not measured anew. ``--only``, ``--graphs``, ``--d`` and ``--skip-growth``
run a part, which is printed only.

Needs ``pip install -e ".[plot]" EDRep==0.1.2 gensim fastnode2vec pycleora``; a peer that is not installed is left out.

Data: ``ATTNEMBED_DATA`` names the folder, which has ppi, cora, lastfm_asia, email_eu_core and amazon.

Takes more than half an hour on two cores; with ``--quick`` two graphs, fewer methods and no growth, in less than one
minute, printed only.

Writes ``benchmarks/bench_speed.md``, ``doc/images/embedding_growth.png``.
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
from _common import THREADS, fastest, loaders, options_of_graphs, plain, save, write
from _peers import LARGEST, METHODS, NETMF_NODES, PEERS, missing

from sklearn_attnembed.datasets import make_block_model

OURS, OURS_20 = "attnembed", "attnembed-20"
WALK_LENGTH = 3
GRAPHS = ["ppi", "cora", "lastfm_asia", "email_eu_core", "amazon", "block-50k"]
SIZES = {"block-10k": 10_000, "block-30k": 30_000, "block-100k": 100_000, "block-300k": 300_000, "block-1M": 1_000_000}
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
    """Print seconds and megabytes as JSON."""
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
        method(A, d, walk_length)
        seconds.append(time.perf_counter() - start)
        if len(seconds) == 1:
            peak = resident("VmHWM") - before
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


# graphs ----------------------------------------------------------------------------------------------
def adjacency(name):
    """A real graph or a block model."""
    if name.startswith("block"):
        n = {**SIZES, "block-50k": 50_000}[name]
        return make_block_model(n, 50, mean_degree=20, mixing=0.3, random_state=0)[0]
    return getattr(loaders(), name)().A


class Results:
    """Results by method, graph, dimension, walk length and limit; kept in a file if there is one."""

    def __init__(self, cache):
        self.cache = cache
        self.folder = tempfile.TemporaryDirectory()
        self.graphs = {}
        lines = cache.read_text().splitlines() if cache and cache.exists() else []
        self.known = {tuple(key): result for key, result in map(json.loads, lines)}

    def graph(self, name):
        """File and sizes."""
        if name not in self.graphs:
            A = adjacency(name)
            path = Path(self.folder.name) / f"{name}.npz"
            sp.save_npz(path, sp.csr_matrix(A, dtype=np.float32), compressed=False)
            self.graphs[name] = path, {"n": A.shape[0], "nnz": A.nnz}
        return self.graphs[name]

    def get(self, name, on, d, walk_length=WALK_LENGTH, limit=LIMIT):
        """One result, known or new; failures without a good reason are not kept."""
        key = (name, on, d, walk_length, limit)
        if key not in self.known:
            path, sizes = self.graph(on)
            is_large = sizes["n"] > LARGEST.get(name, sizes["n"])
            result = sizes | ({"failed": "dense"} if is_large else embed(name, path, d, walk_length, limit))
            print(*key, result, file=sys.stderr, flush=True)
            self.known[key] = result
            if self.cache and "reason" not in result:
                with self.cache.open("a") as file:
                    file.write(json.dumps([key, result]) + "\n")
        return self.known[key]


# tables ----------------------------------------------------------------------------------------------
def table(found, graphs):
    """A row per graph and method, the fastest first."""
    for on in graphs:
        results = {name: result for (name, where), result in found.items() if where == on}
        done = {name: r for name, r in results.items() if "failed" not in r}
        done = dict(sorted(done.items(), key=lambda item: item[1]["seconds"]))
        seconds = [r["seconds"] for r in done.values()]
        ours = done.get(OURS, {}).get("seconds")
        ratios = [plain(own / ours) if ours else "" for own in seconds]
        columns = [METHODS[name][0] for name in done], fastest(seconds), ratios
        yield from zip([on] * len(done), *columns, [f"{r['peak']:.0f}" for r in done.values()], strict=True)
        for name in [name for name in results if name not in done]:
            yield on, METHODS[name][0], results[name]["failed"], "", ""


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
    f"Walks of length {WALK_LENGTH} for AttentionEmbedding, edrep and the SVD; all else as in bench_embedding. Every "
    "embedding has a process of its own and two threads. Seconds are of the embedding alone, once a small graph has "
    "had everything imported and compiled, and the best of three if below 5; the fastest of a graph is bold, and the "
    "next column divides by the seconds of AttentionEmbedding. MB are the peak beyond what was resident before, graph "
    "included. Graph block-50k is `make_block_model(50_000, 50, mean_degree=20, mixing=0.3)`. Limits are "
    f"{LIMIT} s and {MEMORY:.0%} of the machine's memory; NetMF, which is dense, is for {NETMF_NODES:,} nodes at most."
)


def cost_sections(results, methods, graphs, dimensions):
    """Tables of seconds and memory."""
    for d in dimensions:
        there = [on for on in graphs if d == dimensions[-1] or not on.startswith("block")]
        found = {(name, on): results.get(name, on, d) for on in there for name in methods}
        text = SETTING if d == dimensions[0] else "The same."
        header = ["graph", "method", "seconds", "times ours", "peak MB"]
        yield f"Seconds and memory, d = {d}", text, header, list(table(found, there))


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
    parser = options_of_graphs(__doc__)
    parser.add_argument("--skip-growth", action="store_true")
    chosen = parser.parse_args()
    is_whole = not any([chosen.quick, chosen.only, chosen.graphs, chosen.d, chosen.skip_growth])
    methods = [
        name for name in METHODS if name not in {OURS_20, "attnembed-plain"} and not (chosen.quick and name in SLOW)
    ]
    methods = chosen.only.split(",") if chosen.only else methods
    graphs = chosen.graphs.split(",") if chosen.graphs else QUICK_GRAPHS if chosen.quick else GRAPHS
    dimensions = sorted(map(int, chosen.d.split(","))) if chosen.d else [32] if chosen.quick else [32, 128]
    for name in [name for name in methods if missing(name)]:
        print(f"{name} is left out: {', '.join(missing(name))} is not installed", file=sys.stderr)
        methods.remove(name)
    results = Results(chosen.cache)
    sections = list(cost_sections(results, methods, graphs, dimensions))
    if not (chosen.skip_growth or chosen.quick):
        sections += growth_sections(results, methods, dimensions[-1], is_whole)
    write("bench_speed", "Embeddings of graphs: seconds and memory", sections, is_whole, peers=PEERS)


if __name__ == "__main__":
    main()
