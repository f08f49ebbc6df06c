"""Command line: ``python -m sklearn_attnembed demo`` and ``embed``."""

import argparse
import importlib.util
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_validate, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from . import AttentionEmbedding, NormalizerEstimator, __version__
from ._sparse import canonical
from ._typing import Float64, Integers, Vectors
from .metrics import log_normalizer_exact, relative_error


def _classify(X: Vectors, y: Integers, n_jobs: int | None) -> Iterator[tuple[str, Float64, float]]:
    """Yield name, cross-validated accuracies and seconds for raw features and for the embedding."""
    models = {
        "raw pixels, scaled": StandardScaler(),
        "AttentionEmbedding": AttentionEmbedding(random_state=0, n_jobs=n_jobs),
    }
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    for name, transformer in models.items():
        model = make_pipeline(transformer, LogisticRegression(max_iter=1000))
        result = cross_validate(model, X, y, cv=folds)
        yield name, result["test_score"], result["fit_time"].sum() + result["score_time"].sum()


def _normalize(keys: Vectors, temperature: float) -> Iterator[tuple[str, Float64, float]]:
    """Yield name, relative errors and seconds of the exact and the Gaussian normalizer on given keys."""
    start = time.perf_counter()
    exact = log_normalizer_exact(keys, temperature=temperature)
    yield "exact", np.zeros(1), time.perf_counter() - start
    for n_clusters in (1, 8):
        start = time.perf_counter()
        model = NormalizerEstimator(temperature=temperature, n_clusters=n_clusters, random_state=0).fit(keys)
        estimate = model.score_samples(keys)
        yield (
            f"gaussian, {n_clusters} cluster{'s'[: n_clusters > 1]}",
            relative_error(estimate, exact),
            time.perf_counter() - start,
        )


def demo(picture: Path | None = None, n_jobs: int | None = 2) -> None:
    """Show classification, perplexity and the normalizer on digits, with a picture if Matplotlib is installed."""
    X, y = load_digits(return_X_y=True)
    print(f"sklearn_attnembed {__version__}: {len(X)} handwritten digits of {X.shape[1]} pixels\n")

    print(f"{'LogisticRegression, 5-fold CV, on':36}{'accuracy':>18}{'seconds':>9}")
    for name, scores, seconds in _classify(X, y, n_jobs):
        print(f"  {name:34}{scores.mean():10.4f} +- {scores.std():.4f}{seconds:9.2f}")

    train, test, y_train, _ = train_test_split(X, y, test_size=0.2, random_state=0, stratify=y)
    start = time.perf_counter()
    model = AttentionEmbedding(random_state=0, n_jobs=n_jobs).fit(train)
    seconds = time.perf_counter() - start
    print(f"\n{'AttentionEmbedding on four fifths':45}")
    print(f"  {'fit':34}{seconds:10.2f} s, {model.n_iter_} iterations, converged: {model.converged_}")
    print(f"  {'held-out perplexity':34}{model.perplexity(test):10.1f} of {len(train)} keys (knowing nothing)")

    temperature = 0.25
    print(f"\n{f'log Z of all digits, temperature {temperature}':36}{'median error':>14}{'95 %':>10}{'seconds':>9}")
    keys = X / np.linalg.norm(X, axis=1).mean()
    for name, error, seconds in _normalize(keys, temperature):
        print(f"  {name:34}{np.median(error):14.1e}{np.quantile(error, 0.95):10.1e}{seconds:9.3f}")

    if picture is not None:
        print(f"\n{_draw(model, train, y_train, picture)}")


def _draw(model: AttentionEmbedding, X: Vectors, y: Integers, picture: Path) -> str:
    """Save a two-dimensional picture of the embedding and return a line that says so."""
    if importlib.util.find_spec("matplotlib") is None:
        return "No picture without matplotlib: pip install 'sklearn-attnembed[plot]'."
    from matplotlib.figure import Figure
    from sklearn.manifold import TSNE

    from .inspection import EmbeddingDisplay

    figure = Figure(figsize=(6, 6), layout="constrained")
    reducer = TSNE(random_state=0, init="pca", n_jobs=1)
    display = EmbeddingDisplay.from_estimator(model, y=y, reducer=reducer, ax=figure.subplots(), s=12)
    display.ax_.set_title("Handwritten digits: 64 embedding dimensions, seen in 2 by t-SNE", fontsize=11)
    figure.savefig(picture, dpi=120)
    return f"Picture: {picture}"


def _read(path: Path) -> Any:
    """Read a matrix from .npy, .npz (SciPy sparse) or delimited text."""
    try:
        if path.suffix in (".npy", ".npz"):
            with open(path, "rb") as file:
                is_dense = path.suffix == ".npy"
                X = np.load(file, allow_pickle=False) if is_dense else canonical(sp.load_npz(file), str(path))
        else:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*input contained no data")
                X = np.loadtxt(path, delimiter="," if path.suffix == ".csv" else None, ndmin=2)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # whatever a damaged file makes NumPy, SciPy and zipfile raise
        raise ValueError(f"{path} cannot be read ({error}). It may be damaged: write it anew.") from error
    if X.ndim != 2 or X.dtype.kind not in "biuf" or 0 in X.shape:
        raise ValueError(
            f"{path} must hold a matrix of numbers, but holds shape {X.shape} of type {X.dtype}. Write a plain matrix."
        )
    return X


def _try_to_write(target: Path) -> Path:
    """Return the path of the temporary file to write to; raise an error if it cannot be created."""
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder. Name a file in it.")
    partial = target.with_name(target.name + ".part")
    partial.open("wb").close()
    return partial


def embed(source: Path, target: Path, **params: Any) -> None:
    """Embed the matrix in one file and write the vectors to another, which is never left incomplete."""
    X = _read(source)
    partial = _try_to_write(target)
    try:
        vectors = AttentionEmbedding(**params).fit_transform(X)
        with open(partial, "wb") as handle:
            if target.suffix == ".npy":
                np.save(handle, vectors)
            else:
                np.savetxt(handle, vectors, delimiter=",")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    print(f"{vectors.shape[0]} vectors of {vectors.shape[1]} dimensions in {target}")


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and run the command."""
    parser = argparse.ArgumentParser(prog="sklearn_attnembed", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser("demo", help="show accuracy, perplexity and normalizer on digits")
    command.add_argument("--picture", type=Path, default=Path("attnembed_demo.png"), help="file of the picture")
    command.add_argument("--n-jobs", type=int, default=2, help="threads (default: 2)")

    command = commands.add_parser("embed", help="embed the rows of a matrix in a file")
    command.add_argument("source", type=Path, help="matrix: .npy, .npz (SciPy sparse), .csv or text")
    command.add_argument("target", type=Path, help="vectors: .npy or .csv")
    command.add_argument(
        "--affinity", default="nearest_neighbors", help="affinity of AttentionEmbedding (default: %(default)s)"
    )
    command.add_argument("--n-components", type=int, default=64)
    command.add_argument("--walk-length", type=int, default=1)
    command.add_argument("--temperature", type=float, default=0.2)
    command.add_argument("--random-state", type=int, default=0)
    command.add_argument("--n-jobs", type=int, default=None)
    command.add_argument("--verbose", action="store_true")

    arguments = vars(parser.parse_args(argv))
    functions: dict[str, Callable[..., None]] = {"demo": demo, "embed": embed}
    run = functions[arguments.pop("command")]
    try:
        run(**arguments)
    except (OSError, ValueError, TypeError) as error:
        sys.exit(f"sklearn_attnembed: {error}")
    except MemoryError as error:
        sys.exit(f"sklearn_attnembed: not enough memory. {error}".rstrip())
    except KeyboardInterrupt:
        print("sklearn_attnembed: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
