"""The normaliser, log Z of attention: error against seconds and memory, for every method and for EDRep.

Compares the relative error of Z, seconds and megabytes of the methods of NormalizerEstimator, random features among
them, and of EDRep, by temperature and kernel.

Run ``python benchmarks/bench_normalizer.py`` from the repository's root.

Needs ``pip install -e ".[plot]" EDRep==0.1.2``.

Data: ``ATTNEMBED_DATA`` names the folder, which has glove60k.

Takes about 10 minutes on two cores; with ``--quick`` one temperature and fewer kernels and keys, in less than one,
printed only.

Writes ``benchmarks/bench_normalizer.md``, ``doc/images/normalizer_methods.png``.
"""

import time
import tracemalloc
import warnings

import matplotlib.pyplot as plt
import numpy as np
from _common import loaders, options, save, write
from EDRep import computeZest
from scipy.special import expit

from sklearn_attnembed import NormalizerEstimator
from sklearn_attnembed.metrics import log_normalizer_exact, relative_error

N_QUERIES = 2000
SIZES = (30_000, 60_000, 120_000, 240_000, 480_000)
TEMPERATURES = {"1": 1, "1/3": 1 / 3, "1/5": 1 / 5, "1/10": 1 / 10, "1/20": 1 / 20, "1/50": 1 / 50}
OURS = {
    "sampling": {},
    "gaussian": {},
    "gaussian, 8 clusters": {"n_clusters": 8},
    "gaussian, 32 clusters": {"n_clusters": 32},
    "control_variate": {},
    "control_variate, 8 clusters": {"n_clusters": 8},
    "neighbors": {},
    "neighbors, 8 clusters": {"n_clusters": 8},
    "auto, tol 1e-2": {"tol": 1e-2},
    "auto, tol 1e-3": {"tol": 1e-3},
    "exact": {},
}
# Scores do not change when queries are multiplied and keys divided by one number, random features do.
SCALES = (0.35, 0.5, 0.7, 1.0, 1.4)


def words(unit):
    """GloVe, 60,000 words in 100 dimensions: keys, queries among them; keys, queries apart."""
    X = loaders().glove60k().X
    norms = np.linalg.norm(X, axis=1, keepdims=True)
    X = (X / (norms if unit else norms.mean())).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(X))
    apart = order[:N_QUERIES]
    return {"set": (X, X[apart]), "apart": (X[order[N_QUERIES:]], X[apart])}


def estimator(name, **params):
    """The estimator of a row."""
    return NormalizerEstimator(method=name.split(",")[0], random_state=0, n_jobs=2, **{**OURS.get(name, {}), **params})


def clock(function, *arguments, **parameters):
    """Seconds and result."""
    start = time.perf_counter()
    result = function(*arguments, **parameters)
    return time.perf_counter() - start, result


def peak(model, keys, queries):
    """Megabytes allocated at most beyond the input."""
    tracemalloc.start()
    model.fit(keys).score_samples(queries)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most / 2**20


def errors(log_z, exact):
    """Median, 95th percentile and maximum."""
    return [f"{value:.1e}" for value in np.quantile(relative_error(log_z, exact), [0.5, 0.95, 1])]


def one(model, keys, queries, exact):
    """Columns of one of our methods."""
    fit, model = clock(model.fit, keys)
    score, log_z = clock(model.score_samples, queries)
    std = model.score_samples(queries, return_std=True)[1]
    covered = f"{100 * np.mean(np.abs(log_z - exact) <= 1.96 * std):.0f} %" if std.any() else ""
    return model, [*errors(log_z, exact), f"{fit:.2f}", f"{score:.3f}", covered]


def features(method, keys, queries, exact, temperature):
    """Random features with the scale that serves them best."""
    results = []
    for scale in SCALES:
        model = NormalizerEstimator(method=method, temperature=temperature, random_state=0, n_jobs=2)
        row = one(model, keys / scale, queries * scale, exact)[1]
        results.append((float(row[0]), scale, row))
    _, scale, row = min(results)
    return scale, [*row[:-1], ""]  # error bars are for queries of the keys' scale


def edrep(keys, indices, temperature, n_clusters):
    """The peer: log Z of keys, given by number, and seconds."""
    X = np.asarray(keys, np.float64) / np.sqrt(temperature)
    seconds, result = clock(computeZest, X, indices, k=n_clusters)
    return seconds, np.log(np.maximum(result.Zest, np.finfo(float).tiny))


def table(unit, curves, temperatures):
    """Every method at all temperatures; medians are noted in `curves`."""
    for place, (keys, queries) in words(unit).items():
        for label, temperature in temperatures.items():
            if not unit and temperature < 1 / 10:
                continue
            exact = log_normalizer_exact(queries, keys, temperature=temperature, n_jobs=2)
            for name in OURS:
                model, row = one(estimator(name, temperature=temperature), keys, queries, exact)
                note = f" ({model.method_}, {model.n_clusters_})" if name.startswith("auto") else ""
                curves[place, name, temperature] = float(row[0])
                yield place, label, name + note, *row
            for method in ("random_fourier", "positive_features"):
                scale, row = features(method, keys, queries, exact, temperature)
                curves[place, method, temperature] = float(row[0])
                yield place, label, f"{method}, scale {scale:g}", *row
            for n_clusters in (1, 8) if place == "set" else ():
                indices = np.random.default_rng(0).permutation(len(keys))[:N_QUERIES]
                seconds, log_z = edrep(keys, indices, temperature, n_clusters)
                row = errors(log_z, exact)
                curves[place, f"edrep, {n_clusters} clusters", temperature] = float(row[0])
                yield place, label, f"edrep computeZest, k = {n_clusters}", *row, f"{seconds:.2f}", "", ""


def memory():
    """Megabytes beyond the keys, which take 23."""
    keys, queries = words(True)["set"]
    for name in [*OURS, "random_fourier", "positive_features"]:
        yield name, f"{peak(estimator(name, temperature=0.2), keys, queries):.0f}"


def kernels(kernels):
    """Kernels other than softmax, mean norm 1, temperature 1."""
    keys, queries = words(False)["set"]
    for kernel in kernels:
        exact = log_normalizer_exact(queries, keys, kernel=kernel, n_jobs=2)
        for method in ("sampling", "gaussian", "control_variate", "neighbors"):
            for n_clusters in (1, 5):
                row = one(estimator(method, kernel=kernel, n_clusters=n_clusters), keys, queries, exact)[1]
                yield getattr(kernel, "__name__", kernel), method, n_clusters, *row


def growth(sizes):
    """Seconds and megabytes for as many queries as keys, copies of the words with noise."""
    X = words(True)["set"][0]
    rng = np.random.default_rng(0)
    for name in ("gaussian", "gaussian, 8 clusters", "control_variate", "neighbors"):
        before = None
        for n in sizes:
            keys = np.concatenate([X + 0.02 * rng.standard_normal(X.shape, np.float32) for _ in range(-(-n // len(X)))])
            keys = keys[rng.permutation(len(keys))[:n]]
            model = estimator(name, temperature=0.2)
            seconds = min(clock(lambda m, k: m.fit(k).score_samples(k), model, keys)[0] for _ in range(2))
            ratio = "" if before is None else f"{seconds / before:.2f}"
            yield name, n, f"{seconds:.2f}", ratio, f"{peak(model, keys, keys):.0f}", f"{keys.nbytes / 2**20:.0f}"
            before = seconds


def picture(curves):
    """Median error against temperature."""
    styles = {
        "random_fourier": ("tab:gray", ":"),
        "positive_features": ("tab:brown", ":"),
        "edrep, 8 clusters": ("tab:red", ":"),
        "sampling": ("tab:olive", "--"),
        "gaussian": ("tab:blue", "-"),
        "gaussian, 8 clusters": ("tab:blue", "--"),
        "control_variate": ("tab:orange", "-"),
        "control_variate, 8 clusters": ("tab:orange", "--"),
        "neighbors": ("tab:green", "-"),
        "neighbors, 8 clusters": ("tab:green", "--"),
    }
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.6), sharey=True, layout="constrained")
    x = [1 / t for t in TEMPERATURES.values()]
    for ax, place, title in zip(axes, ("set", "apart"), ("queries are keys", "queries are no keys"), strict=True):
        for name, (color, line) in styles.items():
            y = [curves.get((place, name, t)) for t in TEMPERATURES.values()]
            if None not in y:
                ax.plot(x, np.maximum(y, 1e-7), line, color=color, label=name, marker=".")
        y = [curves[place, "auto, tol 1e-2", t] for t in TEMPERATURES.values()]
        ax.plot(x, np.maximum(y, 1e-7), "k*", label="auto, tol 1e-2", markersize=9)
        ax.axhline(1e-2, color="k", linewidth=0.5)
        ax.set(xscale="log", yscale="log", xlabel="1 / temperature", title=title, ylim=(1e-7, 3), xticks=x)
        ax.set_xticks([], minor=True)
        ax.set_xticklabels([label.replace("1/", "") for label in TEMPERATURES])
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("median relative error of Z")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    save(figure, "normalizer_methods")


def main():
    """Everything."""
    quick = options(__doc__).parse_args().quick
    warnings.simplefilter("ignore")  # EDRep's
    temperatures = {"1": 1} if quick else TEMPERATURES
    others, sizes = (("squared",), SIZES[:2]) if quick else (("squared", "expressive", expit), SIZES)
    curves = {}
    columns = ["queries", "temperature", "method", "median", "95 %", "max", "fit s", "score s", "95 % bars cover"]
    text = (
        "60,000 GloVe vectors of 100 dimensions, float32, 2,000 queries, which are keys (set) or words held out "
        "(apart). Relative error of Z. `n_samples`, `n_exact` and `n_components` are the defaults, 1,000, 64 and "
        f"1,000. Random features are given the best of the scales {SCALES}. edrep takes keys as queries only, and its "
        "seconds hold all it does."
    )
    mean = list(table(False, {}, temperatures))
    unit = list(table(True, curves, temperatures))
    if not quick:
        picture(curves)
    write(
        "bench_normalizer",
        "The normaliser: error against seconds and memory",
        [
            ("Mean norm 1", text, columns, mean),
            ("Unit norms", "The same.", columns, unit),
            (
                "Other kernels",
                "Mean norm 1, temperature 1, queries are keys.",
                ["kernel", "method", "clusters", *columns[3:]],
                list(kernels(others)),
            ),
            (
                "Memory",
                "Peak megabytes beyond the input, unit norms, temperature 1/5, fit and 2,000 queries.",
                ["method", "MB"],
                list(memory()),
            ),
            (
                "Growth",
                "As many queries as keys, the same; copies of the words with noise, temperature 1/5; seconds of fit "
                "and score together, the better of two.",
                ["method", "keys", "seconds", "times half as many", "peak MB beyond the keys", "keys' MB"],
                list(growth(sizes)),
            ),
        ],
        not quick,
        peers=["EDRep"],
    )


if __name__ == "__main__":
    main()
