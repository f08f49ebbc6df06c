"""Results of every estimator on fixed seeds, to be compared between two versions of the package.

    PYTHONPATH=/path/to/before python benchmarks/compare_results.py write before.npz
    PYTHONPATH=/path/to/after  python benchmarks/compare_results.py write after.npz
    python benchmarks/compare_results.py compare before.npz after.npz

``write`` uses public names only, so that it runs with old and new versions alike. ``compare`` prints the largest
difference of every result and fails where one is above the tolerance.
"""

import argparse
import sys
import time
import warnings

import numpy as np
import scipy.sparse as sp
from sklearn.datasets import load_digits
from sklearn.metrics.pairwise import rbf_kernel

# Relative to numbers above one: of double precision, and of results in single precision.
TOLERANCE, SINGLE = 1e-6, 1e-4


def embeddings():
    """Name and fitted AttentionEmbedding, with the relations it was fitted on."""
    from sklearn_attnembed import AttentionEmbedding
    from sklearn_attnembed.datasets import make_block_model

    digits = load_digits().data
    blocks, _ = make_block_model(1500, 6, mean_degree=12, random_state=0)
    small, _ = make_block_model(400, 4, mean_degree=10, random_state=1)
    rng = np.random.default_rng(0)
    directed = sp.random_array((600, 600), density=0.02, rng=rng, format="csr")
    table = sp.csr_array(rng.poisson(0.05, (500, 300)).astype(float))
    holes = small.tolil()
    holes[::7] = 0
    holes[:, ::7] = 0
    holes = sp.csr_array(holes)
    pre, two = {"affinity": "precomputed"}, {"affinity": "bipartite"}
    cases = {
        "points": (digits, {}),
        "points, biweight, cosine": (digits[:700], {"weighting": "biweight", "metric": "cosine"}),
        "points, self-tuning": (digits[:700], {"weighting": "self_tuning"}),
        "callable": (digits[:300], {"affinity": lambda X, Y: rbf_kernel(X, Y, 1e-3)}),
        "graph": (blocks, pre),
        "graph, walk 3": (blocks, {**pre, "walk_length": 3}),
        "graph, degrees": (blocks, {**pre, "null_model": "degree", "key_weight": 0.5}),
        "graph, clusters": (blocks, {**pre, "n_clusters": 4}),
        "graph, neighbors": (blocks, {**pre, "normalizer": "neighbors", "n_exact": 32}),
        "graph, neighbors, clusters": (blocks, {**pre, "normalizer": "neighbors", "n_clusters": 3, "n_exact": 16}),
        "graph, exact": (small, {**pre, "normalizer": "exact"}),
        "graph, gradient": (small, {**pre, "solver": "gradient", "max_iter": 30}),
        "graph, expressive": (small, {**pre, "kernel": "expressive", "temperature": 1.0, "n_components": 8}),
        "graph, expressive, clusters": (small, {**pre, "kernel": "expressive", "temperature": 1.0, "n_clusters": 2}),
        "graph, dense": (small.toarray(), pre),
        "graph, isolated rows": (holes, {**pre, "key_weight": "degree"}),
        "directed": (directed, {**pre, "walk_length": 2}),
        "table": (table, two),
        "table, degrees, walk 2": (table, {**two, "key_weight": "degree", "walk_length": 2}),
        "table, neighbors": (table, {**two, "normalizer": "neighbors", "n_exact": 8}),
        "table, exact": (table, {**two, "normalizer": "exact"}),
        "table, clusters": (table, {**two, "n_clusters": 3}),
        "table, expressive": (table, {**two, "kernel": "expressive", "temperature": 1.0, "n_components": 8}),
    }
    for name, (X, params) in cases.items():
        yield name, AttentionEmbedding(**{"n_components": 16, "random_state": 0, **params}).fit(X), X


def results():
    """Name and array of every result."""
    from sklearn_attnembed import ExpressiveKernel, NormalizerEstimator, attention, expressive_kernel, metrics

    for name, model, X in embeddings():
        yield f"{name}: embedding_", model.embedding_
        yield f"{name}: key_embedding_", model.key_embedding_
        yield f"{name}: key_weight_", model.key_weight_
        yield f"{name}: loss_curve_", np.array(model.loss_curve_)
        yield f"{name}: transform", model.transform(X[:40])
        yield f"{name}: score", np.array(model.score(X[:100]))
        yield f"{name}: attention_scores", model.attention_scores(rows=[1, 2])
        if name != "graph, dense":
            yield f"{name}: explain_rows", model.explain_rows(rows=range(1, 30)).sort_values("row").to_numpy()
            yield f"{name}: explain", model.explain(1).sort_values("key")[["target", "attention", "share"]].to_numpy()
        yield f"{name}: explain_clusters", model.explain_clusters().sort_values("cluster").to_numpy()
        if model.affinity == "bipartite":
            yield f"{name}: transform_keys", model.transform_keys(X[:, :20])
            yield f"{name}: recommend", model.recommend(X[:20])[1]

    rng = np.random.default_rng(1)
    keys = rng.standard_normal((6000, 8)) * rng.uniform(0.2, 1, 8)
    keys[:3000] += 0.5
    queries, weight = np.r_[keys[:60], rng.standard_normal((60, 8))], rng.exponential(size=6000)
    methods = ["gaussian", "control_variate", "sampling", "neighbors", "exact", "auto"]
    cases = [(kernel, method) for kernel in ("softmax", "squared", "expressive", np.cosh) for method in methods]
    cases += [("softmax", "random_fourier"), ("softmax", "positive_features")]
    for kernel, method in cases:
        for options in ({}, {"n_clusters": 3, "n_heavy": 5}, {"covariance_type": "diag"}):
            label = getattr(kernel, "__name__", kernel)
            name = f"log Z, {label}, {method}, {options}"
            model = NormalizerEstimator(kernel, method=method, n_samples=200, random_state=0, **options)
            model.fit(keys, sample_weight=weight if options else None)
            yield name, np.stack(model.score_samples(queries, return_std=True))
            yield f"{name}: transform", model.transform(queries)
            if method not in ("neighbors", "exact", "auto"):
                parts = [NormalizerEstimator(**model.get_params()).partial_fit(part) for part in np.split(keys, 2)]
                parts[0].partial_fit(keys[:200])
                if options.get("n_clusters") is None:
                    parts[0].merge(parts[1])
                yield f"{name}: merged", parts[0].score_samples(queries)
    for method, kernel in (
        ("landmarks", "expressive"),
        ("landmarks", "softmax"),
        ("exact", "squared"),
        ("sketch", "squared"),
    ):
        features = ExpressiveKernel(kernel, method=method, n_components=20, random_state=0).fit_transform(keys[:500])
        yield f"features, {method}, {kernel}", features
    yield "expressive_kernel", expressive_kernel(keys[:50], queries)
    for kernel in ("softmax", "squared", "expressive"):
        for options in ({}, {"causal": True}, {"method": "gaussian", "n_clusters": 4, "random_state": 0}):
            output, log_z = attention(
                keys[:300], keys[:300], keys[:300, :3], kernel=kernel, return_log_normalizer=True, **options
            )
            yield f"attention, {kernel}, {options}", np.c_[output, log_z]
        yield f"metrics.log_normalizer_exact, {kernel}", metrics.log_normalizer_exact(queries, keys, kernel=kernel)
        yield f"metrics.attention_scores, {kernel}", metrics.attention_scores(queries, keys[:50], kernel=kernel)
    P = sp.random_array((300, 300), density=0.05, rng=2, format="csr")
    yield "metrics.attention_cross_entropy", np.array(metrics.attention_cross_entropy(P, keys[:300], walk_length=3))
    yield from words()


def words():
    """AttentionWordVectors on a generated corpus."""
    from sklearn_attnembed import AttentionWordVectors

    rng = np.random.default_rng(3)
    texts = [" ".join(f"w{t}{rng.zipf(1.5) % 40}" for _ in range(30)) for t in rng.integers(0, 4, 300)]
    model = AttentionWordVectors(8, random_state=0, min_count=2).fit(texts)
    yield "word vectors", model.embedding_
    yield "documents", model.transform(texts[:20])


def write(target):
    """Compute all results and keep them."""
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    arrays = dict(results())
    np.savez_compressed(target, **arrays)
    print(f"{len(arrays)} results in {time.perf_counter() - start:.0f} s")


def compare(before, after):
    """Print differences; a failure where one is above the tolerance."""
    worst = []
    with np.load(before) as old, np.load(after) as new:
        if set(old) != set(new):
            sys.exit(f"Results differ in name: {set(old) ^ set(new)}")
        for name in old:
            a, b = old[name].astype(float), new[name].astype(float)
            scale = SINGLE / TOLERANCE if old[name].dtype == np.float32 else 1
            if a.shape != b.shape:
                sys.exit(f"{name}: shapes {a.shape} and {b.shape}")
            same = (a == b) | (np.isnan(a) & np.isnan(b))
            gap = np.where(same, 0, np.abs(a - b) / np.maximum(1, np.abs(a)) / scale)
            worst.append((float(np.max(gap, initial=0)), name))
    worst.sort(key=lambda entry: -entry[0] if np.isfinite(entry[0]) else -np.inf)
    equal = sum(gap == 0 for gap, _ in worst)
    print(f"{len(worst)} results, {equal} equal bit by bit; the largest differences:")
    for gap, name in worst[:12]:
        print(f"{gap:10.1e}  {name}")
    if not worst[0][0] <= TOLERANCE:
        sys.exit(f"above {TOLERANCE:g}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("write")
    command.add_argument("target")
    command = commands.add_parser("compare")
    command.add_argument("before")
    command.add_argument("after")
    arguments = vars(parser.parse_args())
    {"write": write, "compare": compare}[arguments.pop("command")](**arguments)
