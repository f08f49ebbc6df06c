"""Expressive attention without PyTorch: its output in linear time, and embeddings with it.

Compares the expansion of the output with exact attention and with a sample of the keys, squared attention in linear
time with all pairs, and embeddings with the expressive and the softmax kernel of relations made for it.

Run ``python benchmarks/bench_expressive.py`` from the repository's root.

Needs ``pip install -e ".[plot]"``.

Data: ``ATTNEMBED_DATA`` names the folder, which has glove60k.

Takes about 3 minutes on two cores; with ``--quick`` fewer words, seeds and dimensions, in less than one, printed only.

Writes ``benchmarks/bench_expressive.md``, ``doc/images/expressive_geometry.png``.
"""

import time

import matplotlib.pyplot as plt
import numpy as np
import scipy.sparse as sp
from _common import loaders, options, save, write
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import normalized_mutual_info_score
from sklearn.preprocessing import normalize

from sklearn_attnembed import AttentionEmbedding, ExpressiveKernel, attention
from sklearn_attnembed.metrics import log_normalizer_exact

SEEDS, N_WORDS = (0, 1, 2), 60_000
TEMPERATURES = {"softmax": (0.2, 0.35, 0.5, 1.0, 2.0), "expressive": (0.5, 1.0, 2.0)}


# output of attention ---------------------------------------------------------------------------------
def timed(function, *arguments, repeats=1, **settings):
    """Result and the best of some times."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function(*arguments, **settings)
        seconds.append(time.perf_counter() - start)
    return result, min(seconds)


def output_errors(K, queries, V, kernel, temperature, values="of the words"):
    """Rows of a table: what each method gets wrong on some queries, and its time for all keys as queries."""
    exact, seconds = timed(attention, queries, K, V, kernel=kernel, temperature=temperature, n_jobs=2)
    log_z = log_normalizer_exact(queries, K, kernel=kernel, temperature=temperature, n_jobs=2)
    spread = np.median(np.linalg.norm(exact - V.mean(axis=0), axis=1))
    rows = [[kernel, temperature, values, "exact", "0", "0", f"{seconds * len(K) / len(queries):.1f}"]]

    def add(name, output, estimate, seconds):
        error = np.median(np.linalg.norm(output - exact, axis=1)) / spread
        z = np.median(np.abs(np.expm1(estimate - log_z)))
        rows.append([kernel, temperature, values, name, f"{error:.1e}", f"{z:.1e}", f"{seconds:.1f}"])

    for n_clusters in (1, 8, 64):
        settings = {"method": "gaussian", "n_clusters": n_clusters, "return_log_normalizer": True, "random_state": 0}
        settings |= {"kernel": kernel, "temperature": temperature, "n_jobs": 2}
        output, estimate = attention(queries, K, V, **settings)
        _, seconds = timed(attention, K, K, V, **settings)
        add(f"gaussian, {n_clusters} cluster{'s' * (n_clusters > 1)}", output, estimate, seconds)
    some = np.random.default_rng(0).choice(len(K), 1000, replace=False)
    settings = {"kernel": kernel, "temperature": temperature, "return_log_normalizer": True, "n_jobs": 2}
    output, estimate = attention(queries, K[some], V[some], **settings)
    _, seconds = timed(attention, K, K[some], V[some], **settings)
    add("1,000 of the keys", output, estimate + np.log(len(K) / 1000), seconds)
    return rows


def outputs(n, temperatures):
    """Attention of words over words, the first n; by temperature of the expressive kernel."""
    X = loaders().glove60k().X[:n].astype(np.float64)
    K = PCA(32, random_state=0).fit_transform(X)
    K /= np.linalg.norm(K, axis=1).mean()
    queries = K[np.random.default_rng(1).choice(len(K), 2000, replace=False)]
    rows = []
    for kernel, temperature in (*(("expressive", t) for t in temperatures), ("softmax", 1.0)):
        rows += output_errors(K, queries, K, kernel, temperature)
    signs = np.random.default_rng(2).choice([-1.0, 1.0], K.shape)
    return rows + output_errors(K, queries, signs, "expressive", 1.0, "random signs")


def squared_times(lengths):
    """The squared kernel: all pairs against sums over the keys."""
    rows, rng = [], np.random.default_rng(0)
    for n in lengths:
        Q, K, V = rng.standard_normal((3, n, 16))
        for causal in (False, True):
            linear, fast = timed(attention, Q, K, V, kernel="squared", causal=causal, n_jobs=2, repeats=3)
            pairs, slow = timed(attention, Q, K, V, kernel=np.square, causal=causal, n_jobs=2)
            error = np.abs(linear - pairs).max()
            rows.append(
                [
                    f"{n:,}",
                    "yes" if causal else "no",
                    f"{slow:.2f}",
                    f"{fast:.3f}",
                    f"{slow / fast:.0f}",
                    f"{error:.0e}",
                ]
            )
    return rows


# embeddings ------------------------------------------------------------------------------------------
def unit(rng, n, d):
    return normalize(rng.standard_normal((n, d)))


def squared_correlations(u, v):
    """Of each row, the distribution over columns that goes with the squared inner product."""
    P = np.square(u @ v.T)
    if u is v:
        np.fill_diagonal(P, 0)
    return P / P.sum(axis=1, keepdims=True)


def correlated_graph(seed, n=2000, k=5, degree=50):
    """Links drawn in proportion to the squared correlation of hidden vectors, and these proportions."""
    rng = np.random.default_rng(seed)
    u = unit(rng, n, k)
    P = squared_correlations(u, u)
    A = sp.csr_array(rng.poisson(degree / 2 * P).astype(float))
    return A + A.T, P


def correlated_table(seed, n=1500, m=600, k=4, degree=30):
    """The same between rows and columns."""
    rng = np.random.default_rng(seed)
    P = squared_correlations(unit(rng, n, k), unit(rng, m, k))
    return sp.csr_array(rng.poisson(degree * P).astype(float)), P


def divergence(model, P):
    """Mean Kullback-Leibler divergence of the true distributions from attention, in nats."""
    A = model.attention_scores()
    if P.shape[0] == P.shape[1]:  # nobody is linked to himself
        np.fill_diagonal(A, 0)
        A /= A.sum(axis=1, keepdims=True)
    inside = P > 0
    return float(np.sum(P[inside] * np.log(P[inside] / A[inside])) / len(P))


def embeddings(make, affinity, dimensions, seeds):
    """Divergence and seconds for each kernel, dimension and temperature; the best temperature of each is shown."""
    worlds = [make(seed) for seed in seeds]
    knows_nothing = np.mean([np.log(P.shape[1]) + np.sum(P[P > 0] * np.log(P[P > 0])) / len(P) for _, P in worlds])
    rows = [["uniform attention", "", "", f"{knows_nothing:.3f}", ""]]
    for kernel, d in [("expressive", dimensions[0]), *(("softmax", d) for d in dimensions)]:
        found = {}
        for temperature in TEMPERATURES[kernel]:
            results = []
            for seed, (A, P) in zip(seeds, worlds, strict=True):
                model = AttentionEmbedding(
                    d,
                    affinity=affinity,
                    kernel=kernel,
                    temperature=temperature,
                    max_iter=200,
                    random_state=seed,
                    n_jobs=2,
                )
                _, seconds = timed(model.fit, A)
                results.append((divergence(model, P), seconds))
            found[temperature] = np.array(results)
        best = min(found, key=lambda t: found[t][:, 0].mean())
        values, seconds = found[best].T
        spread = f"{values.mean():.3f} [{values.min():.3f}-{values.max():.3f}]"
        rows.append([kernel, d, best, spread, f"{seconds.mean():.2f}"])
    return rows


def poles_graph(seed, n=1200, n_axes=8, degree=14):
    """Each node is on one side of one axis, and linked to the other side of it; a tenth of the links are random."""
    rng = np.random.default_rng(seed)
    axis, side = rng.integers(n_axes, size=n), rng.integers(2, size=n)
    i, j = rng.integers(n, size=(2, n * degree * 2 * n_axes))
    kept = (axis[i] == axis[j]) & (side[i] != side[j]) | (rng.random(len(i)) < 0.1 / (2 * n_axes))
    kept[np.cumsum(kept) > n * degree // 2] = False
    A = sp.csr_array((np.ones(kept.sum()), (i[kept], j[kept])), (n, n))
    return A + A.T, axis, side


def axes_alone(seeds):
    """NMI of the 16 poles with the axes, each cut in two at random: what one finds who knows the axes alone."""
    found = []
    for seed in seeds:
        _, axis, side = poles_graph(seed)
        guess = np.random.default_rng(seed + 1000).integers(2, size=len(axis))
        found.append(normalized_mutual_info_score(2 * axis + side, 2 * axis + guess))
    return np.mean(found)


def poles(seeds):
    """Which structure each kernel finds where links go to the opposite."""
    rows = []
    for affinity in ("precomputed", "bipartite"):
        for kernel, temperature in (("softmax", 0.2), ("expressive", 1.0)):
            found = []
            for seed in seeds:
                A, axis, side = poles_graph(seed)
                settings = {"affinity": affinity, "kernel": kernel, "temperature": temperature, "random_state": seed}
                X = AttentionEmbedding(16, **settings).fit_transform(A)
                if kernel == "expressive":
                    X = ExpressiveKernel(method="exact").fit_transform(X)
                labels = [KMeans(k, n_init=3, random_state=seed).fit_predict(X) for k in (8, 16)]
                truths = axis, 2 * axis + side
                found.append([normalized_mutual_info_score(*pair) for pair in zip(truths, labels, strict=True)])
            rows.append([kernel, affinity, *(f"{value:.2f}" for value in np.mean(found, axis=0))])
    return rows


# picture ---------------------------------------------------------------------------------------------
def geometry(is_whole):
    """Weights against the angle between query and key: for one pair, and shared among three keys."""
    angle = np.linspace(0, np.pi, 361)
    cosine = np.cos(angle)
    kernels = {"softmax": np.exp, "expressive": lambda z: z**2 / (1 + z**2)}
    figure = plt.figure(figsize=(11, 3.6), layout="constrained")
    for place, (name, f) in enumerate(kernels.items(), 1):
        panel = figure.add_subplot(1, 3, place, projection="polar")
        for size, style in ((1, ":"), (3, "--"), (10, "-")):
            panel.plot(angle, f(size * cosine) / f(size), style, color=f"C{place - 1}", label=f"|q||k| = {size}")
        panel.set(thetamin=0, thetamax=180, title=name, yticks=[0.5, 1], xticks=np.deg2rad([0, 45, 90, 135, 180]))
        panel.legend(loc="lower center", bbox_to_anchor=(0.5, -0.12), ncols=3, fontsize=8)
    panel = figure.add_subplot(1, 3, 3)
    keys = np.deg2rad([0, 60, 120])
    for place, (name, f) in enumerate(kernels.items()):
        weight = f(3 * np.cos(angle[:, None] - keys))
        panel.plot(np.rad2deg(angle), (weight / weight.sum(axis=1, keepdims=True))[:, 0], color=f"C{place}", label=name)
    panel.set(xlabel="angle of the query, degrees", ylabel="attention to the key at 0", xticks=[0, 45, 90, 135, 180])
    panel.set(title="among keys at 0, 60 and 120 degrees")
    panel.legend()
    save(figure, "expressive_geometry", is_whole)
    plt.close(figure)


def main():
    """All sections."""
    quick = options(__doc__).parse_args().quick
    geometry(not quick)
    n, temperatures, lengths = (5_000, (1.0,), (2000,)) if quick else (N_WORDS, (1.0, 0.5, 0.2), (2000, 8000, 32000))
    seeds, graph, table = (SEEDS[:1], (5, 15), (4, 10)) if quick else (SEEDS, (5, 10, 15, 30), (4, 10, 20))
    sections = [
        (
            f"Output of attention, {n:,} words over {n:,} words",
            TEXT_OUTPUT.format(n=n, ratio=n / 2000),
            ["kernel", "temperature", "values", "method", "error of output", "error of Z", f"seconds, {n:,} queries"],
            outputs(n, temperatures),
        ),
        (
            "Squared attention in linear time",
            TEXT_SQUARED,
            ["queries and keys", "causal", "all pairs, s", "sums, s", "times as fast", "largest difference"],
            squared_times(lengths),
        ),
        (
            "Links between correlated and anti-correlated nodes",
            TEXT_GRAPH,
            HEADER,
            embeddings(correlated_graph, "precomputed", graph, seeds),
        ),
        (
            "The same between rows and columns of a table",
            TEXT_TABLE,
            HEADER,
            embeddings(correlated_table, "bipartite", table, seeds),
        ),
        (
            "Links to the opposite pole",
            TEXT_POLES.format(alone=axes_alone(seeds)),
            ["kernel", "affinity", "NMI of the 8 axes", "NMI of the 16 poles"],
            poles(seeds),
        ),
    ]
    write("bench_expressive", "Expressive attention: output and embeddings", sections, not quick)


HEADER = ["kernel", "dimensions", "temperature", "KL divergence, mean [of three graphs]", "seconds"]
TEXT_OUTPUT = (
    "GloVe vectors, their first 32 principal components, divided by their mean norm. Every word is a key; values "
    "are the vectors themselves, or signs drawn at random. Errors are medians over 2,000 queries: of the output, "
    "its distance from the exact one in units of the exact one's distance from the mean value; of Z, relative. "
    "Seconds are those of all {n:,} words as queries, for the exact method {ratio:g} times those of 2,000. The last "
    "row of each block is exact attention to a random sample of the keys. Random signs have nothing to do with "
    "keys, so that the exact output is close to the mean value: the expansion still gets most of the rest, the "
    "sample is lost in its own noise."
)
TEXT_SQUARED = (
    "Normal queries, keys and values of 16 columns. All pairs in bounded memory, against sums over the keys, of "
    "which the best of 3."
)
TEXT_GRAPH = (
    "2,000 nodes with hidden unit vectors in five dimensions; 50 links a node, drawn in proportion to the squared "
    "inner product: nodes are linked if they are correlated or anti-correlated. The measure is the "
    "Kullback-Leibler divergence of attention from the true proportions, in nats a node. For each kernel and "
    "dimension the temperature that is best by this measure, of 0.2, 0.35, 0.5, 1, 2 for softmax and 0.5, 1, 2 "
    "for the expressive kernel. At most 200 iterations. Seconds are those of fit: the expressive kernel searches "
    "from three starts."
)
TEXT_TABLE = "1,500 rows and 600 columns with hidden vectors in four dimensions, 30 counts a row; the rest as above."
TEXT_POLES = (
    "1,200 nodes on one of two sides of one of eight axes, 14 links a node, nine of ten of them to the other side "
    "of the same axis. 16 dimensions, temperature 0.2 for softmax and 1 for expressive, k-means on the vectors "
    "or, for expressive, on their products. As one set of vectors both kernels find the axes and neither finds "
    "the sides: the true axes, each cut in two at random, have {alone:.2f} with the poles. A node is "
    "close to its neighbours' neighbours then, and an "
    'expressive score has no sign to tell them by. As a table of rows and columns (affinity="bipartite"), queries '
    "and keys have vectors of their own, and both find all sixteen poles; eight clusters are then pairs of these."
)

if __name__ == "__main__":
    main()
