"""What the defaults rest on: quality and cost of the three estimators, and of choices made inside.

Compares iterations with the co-rotating frame and without it, the surrogate with its exact twin, weights of
neighbours, an iteration with a sparse product, and the expansion of log Z with its exact value.

Run ``python benchmarks/bench_foundation.py`` from the repository's root.

Needs ``pip install -e .``.

Data: ``ATTNEMBED_DATA`` names the folder, which has amazon, cora, lastfm_asia, ppi, email_eu_core and glove60k.

Takes about 5 minutes on two cores; with ``--quick`` one graph and one temperature, in less than one, printed only.

Writes ``benchmarks/bench_foundation.md``.
"""

import time
import warnings

import numpy as np
import scipy.sparse as sp
from _common import loaders, options, protocols, write
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_attnembed import AttentionEmbedding, NormalizerEstimator
from sklearn_attnembed._core import softmax_objective
from sklearn_attnembed.metrics import attention_cross_entropy, log_normalizer_exact, relative_error

GRAPHS = ("amazon", "cora", "lastfm_asia", "ppi", "email_eu_core")
TWINS, QUICK = ("amazon", "ppi", "cora", "email_eu_core"), ("email_eu_core",)
TEMPERATURES = (1.0, 0.25, 1 / 16)


def walks(d, **params):
    """The setting of all graphs here."""
    return AttentionEmbedding(d, affinity="precomputed", walk_length=3, n_jobs=2, **{"random_state": 0, **params})


def clock(function, *arguments, **parameters):
    """Seconds and result."""
    start = time.perf_counter()
    result = function(*arguments, **parameters)
    return time.perf_counter() - start, result


def frames(graphs, temperatures):
    """Iterations to a displacement of 1e-3, in the co-rotating frame and without it, the stop on the loss off."""
    data = loaders()
    original, settled = softmax_objective.fitted_rotation, softmax_objective.has_settled
    for name in graphs:
        A = getattr(data, name)().A
        for temperature in temperatures:
            row = []
            for rotation in (original, lambda torque, moment: np.zeros_like(torque)):
                softmax_objective.fitted_rotation, softmax_objective.has_settled = rotation, lambda *args: False
                model = walks(64, temperature=temperature, max_iter=300, tol=1e-3).fit(A)
                row += [model.n_iter_ if model.converged_ else "never (300)", f"{model.loss_curve_[-1]:.4f}"]
            yield name, f"{temperature:g}", *row
    softmax_objective.fitted_rotation, softmax_objective.has_settled = original, settled


def twins(graphs, temperatures):
    """Exact objective, seconds and downstream quality of surrogate and exact solutions, d = 64, 40 iterations."""
    data, score = loaders(), protocols()
    ways = {
        "exact": {"normalizer": "exact"},
        "gaussian": {},
        "gaussian, 8 clusters": {"n_clusters": 8},
        "neighbors": {"normalizer": "neighbors"},
        "neighbors, 8 clusters": {"normalizer": "neighbors", "n_clusters": 8},
    }
    for name in graphs:
        graph = getattr(data, name)()
        A = graph.A.astype(np.float32)
        for temperature in temperatures:
            for way, params in ways.items():
                model = walks(64, temperature=temperature, max_iter=40, tol=0, **params)
                seconds, _ = clock(model.fit, A)
                x = model.embedding_[~model.isolated_].astype(np.float64)
                loss = attention_cross_entropy(A, model.embedding_, temperature=temperature, walk_length=3, n_jobs=2)
                loss += np.mean(x @ x.mean(axis=0)) / temperature - np.log(len(x))
                if name == "amazon":
                    quality = 100 * score.community_nmi(model.embedding_, graph.y)
                else:
                    labels = graph.Y if hasattr(graph, "Y") else score.one_hot(graph.y)
                    quality = score.node_classification(model.embedding_, labels, 0.5)["micro_f1"]
                yield name, f"{temperature:g}", way, f"{loss:.4f}", f"{seconds:.2f}", f"{quality:.1f}"


def weights():
    """Digits, 5-fold accuracy of logistic regression, by `weighting`; and that of the raw pixels, scaled."""
    X, y = load_digits(return_X_y=True)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)

    def accuracy(*steps):
        model = make_pipeline(*steps, LogisticRegression(max_iter=1000))
        return f"{cross_val_score(model, X, y, cv=folds).mean():.4f}"

    yield "raw pixels", "", accuracy(StandardScaler())
    for weighting in ("perplexity", "self_tuning", "biweight", "uniform"):
        for n_neighbors in (10, 15, 30):
            model = AttentionEmbedding(n_neighbors=n_neighbors, weighting=weighting, random_state=0, n_jobs=2)
            yield weighting, n_neighbors, accuracy(model)


def cost(n):
    """One iteration against one single-threaded scipy product: n nodes, 20 n non-zeros, d = 128, float32."""
    rng = np.random.default_rng(0)
    m, d = 20 * n, 128
    A = sp.coo_array((np.ones(m, np.float32), rng.integers(0, n, (2, m))), shape=(n, n)).tocsr()
    X = rng.standard_normal((n, d)).astype(np.float32)
    product = min(clock(A.dot, X)[0] for _ in range(3))
    for n_jobs in (1, 2):
        model = AttentionEmbedding(d, affinity="precomputed", tol=0, n_jobs=n_jobs)
        few, many = (clock(model.set_params(max_iter=max_iter).fit, A)[0] for max_iter in (2, 12))
        yield n_jobs, f"{(many - few) / 10:.3f} s", f"{product:.3f} s", f"{(many - few) / 10 / product:.2f}"


def normalizers():
    """GloVe 60k, mean norm 1, 2,000 queries."""
    X = loaders().glove60k().X
    X = X / np.linalg.norm(X, axis=1).mean()
    queries = X[np.random.default_rng(0).choice(len(X), 2000, replace=False)]
    for temperature in (1.0, 0.2):
        seconds, exact = clock(log_normalizer_exact, queries, X, temperature=temperature, n_jobs=2)
        yield temperature, "exact", "0", "0", f"{seconds:.2f}"
        for n_clusters in (1, 8):
            model = NormalizerEstimator(temperature=temperature, n_clusters=n_clusters, random_state=0, n_jobs=2)
            seconds, estimate = clock(lambda: model.fit(X).score_samples(queries))  # noqa: B023
            error = relative_error(estimate, exact)
            name = f"gaussian, {n_clusters} cluster(s)"
            yield temperature, name, f"{np.median(error):.1e}", f"{np.quantile(error, 0.95):.1e}", f"{seconds:.2f}"


def main():
    """Everything."""
    quick = options(__doc__).parse_args().quick
    graphs, pairs, temperatures, n = (
        (QUICK, QUICK, TEMPERATURES[:1], 20_000) if quick else (GRAPHS, TWINS, TEMPERATURES, 200_000)
    )
    warnings.simplefilter("ignore")
    write(
        "bench_foundation",
        "What the defaults rest on",
        [
            (
                "The co-rotating frame",
                "Iterations until the rms displacement is below 1e-3, and the surrogate loss there; d = 64, walks of "
                "length 3.",
                ("graph", "temperature", "iterations, with", "loss", "iterations, without", "loss"),
                list(frames(graphs, temperatures)),
            ),
            (
                "Surrogate against the exact twin",
                "Exact objective of the solutions after 40 iterations, d = 64, walks of length 3, in nats per row over "
                "log n (lower is better); seconds to fit; and, in percent, micro-F1 with half of the labels, or NMI "
                "for Amazon.",
                ("graph", "temperature", "normaliser", "objective", "seconds", "quality"),
                list(twins(pairs, temperatures)),
            ),
            (
                "Weights of neighbours",
                "Digits, five-fold accuracy of logistic regression, by `weighting`; raw pixels are scaled.",
                ("weights", "n_neighbors", "accuracy"),
                list(weights()),
            ),
            (
                "Cost of an iteration",
                f"{n:,} nodes, {20 * n:,} non-zeros, d = 128, float32, against one single-threaded scipy product.",
                ("threads", "iteration", "product", "ratio"),
                list(cost(n)),
            ),
            (
                "Normaliser",
                "GloVe, 60,000 words, mean norm 1, 2,000 queries; relative error of Z; seconds to fit and evaluate.",
                ("temperature", "method", "median", "95 %", "seconds"),
                list(normalizers()),
            ),
        ],
        not quick,
    )


if __name__ == "__main__":
    main()
