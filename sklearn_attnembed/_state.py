"""Files of fitted estimators that later versions can read: the format, `save` and `load`.

The tables below are version 1 of the format, which ``doc/state_format.rst`` describes. The names in the file, on the
left, never change. The places in memory, on the right, may change from version to version.
"""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import scipy
import sklearn
from sklearn.kernel_approximation import PolynomialCountSketch
from sklearn.utils.validation import check_is_fitted

from ._core.inverted_index import Cells
from ._core.key_sketch import KeySketch
from ._core.logsum import LogSum
from ._core.normalizers.neighbors import NearKeys
from ._core.out_of_sample import Model
from ._core.sampling import KeySample
from ._core.statistics import KeyStatistics
from ._embedding import AttentionEmbedding
from ._fitted import EMBEDDABLE, FittedEmbedding
from ._kernel import ExpressiveKernel, FittedKernel
from ._normalizer import NormalizerEstimator
from ._recommend import AttentionRecommender, share_attributes
from ._schema import (
    BOOL,
    FLOAT64,
    FLOATS,
    INTEGERS,
    UINT64,
    FileError,
    Group,
    Kind,
    Listing,
    Matrix,
    Maybe,
    Numbers,
    Reader,
    Scalar,
    Sizes,
    Value,
    Writer,
    numbers,
)
from ._sklearn import BaseEstimator, check_params, output_container, whole_or_as_before
from ._text import AttentionWordVectors
from ._version import __version__
from .affinity._sources import SOURCES, Source, neighbor_index, source_of

FORMAT, FORMAT_VERSION = "sklearn_attnembed", 1


# Words, names of columns and sketches ------------------------------------------------------------------
class _Names(Kind):
    """Names of features."""

    def write(self, value: Any, file: Writer, name: str) -> Any:
        return [str(each) for each in value]

    def read(self, node: Any, file: Reader, name: str, sizes: Sizes) -> Any:
        return np.array(Listing(Scalar(str), "n_features").read(node, file, name, sizes), dtype=object)


class _Vocabulary(Kind):
    """Vocabulary of word vectors: words in the order of their rows."""

    def write(self, value: Any, file: Writer, name: str) -> Any:
        words = sorted(value, key=value.__getitem__)
        return [_word(word, file, f"{name}[{word!r}]") for word in words]

    def read(self, node: Any, file: Reader, name: str, sizes: Sizes) -> Any:
        words = Listing(Value(""), "n_words").read(node, file, name, sizes)
        vocabulary = {word: row for row, word in enumerate(words)}
        if len(vocabulary) != len(words):
            file.fail(name, "made of words that differ", f"of {len(words)}, of which {len(vocabulary)} differ")
        return vocabulary


def _word(word: Any, file: Writer, name: str) -> Any:
    word = word.item() if isinstance(word, np.generic) else word
    if isinstance(word, tuple):
        return {"tuple": [_word(part, file, name) for part in word]}
    if not (word is None or isinstance(word, str | int | float)):
        file.refuse(name, f"a {type(word).__name__}")
    return Value("").write(word, file, name)


def _sketch(values: dict[str, Any]) -> PolynomialCountSketch:
    sketch = PolynomialCountSketch(n_components=values["n_components"], random_state=0).set_output(transform="default")
    sketch.fit(np.zeros((1, values["indexHash_"].shape[1])))
    vars(sketch).update(values)
    return sketch


# Groups that estimators share -----------------------------------------------------------------------------
def _record(kind: Callable[..., Any]) -> Callable[[dict[Any, Any]], Any]:
    return lambda values: kind(**values)


def _statistics(width: str) -> Group:
    """Return the group of the moments of clusters of keys."""
    scatter = (("n_clusters", "width", "width"), ("n_clusters", "width"))
    parts: dict[str, tuple[Any, Kind]] = {
        "weight": ("weight", numbers(FLOAT64, "n_clusters")),
        "mean": ("mean", numbers(FLOAT64, "n_clusters", "width")),
        "scatter": ("scatter", Numbers(FLOAT64, scatter)),
    }
    return Group(parts, _record(KeyStatistics), (f"width={width}",))


def _cells(width: str, n_keys: str) -> Group:
    """Return the group of a partition of keys into cells."""
    parts: dict[str, tuple[Any, Kind]] = {
        "centers": ("centers", numbers(FLOAT64, "n_cells", "width")),
        "cluster": ("cluster", numbers(INTEGERS, "n_cells", below="n_clusters")),
        "keys": ("order", numbers(INTEGERS, "n_members", below="n_keys")),
        "starts": ("starts", numbers(INTEGERS, "n_starts")),
    }
    return Group(parts, _record(Cells), (f"width={width}", f"n_keys={n_keys}", "n_clusters"))


_COLUMNS: dict[str, tuple[Any, Kind]] = {
    "n_features": ("n_features_in_", Scalar(int, "n_features")),
    "feature_names": ("feature_names_in_", Maybe(_Names())),
}


# AttentionEmbedding ------------------------------------------------------------------------------------
def _model(values: dict[Any, Any]) -> Model:
    if values["near"] is not None:  # nearest keys are searched for each query
        values["near"] = NearKeys(np.zeros((0, values["n_exact"]), np.int32), **values["near"])
    return Model(**values)


def _out_of_sample(n_targets: str) -> Group:
    """Return the group of what new rows (or columns) are embedded by."""
    far: dict[str, tuple[Any, Kind]] = {
        "sample": ("sample", Listing(numbers(INTEGERS, "n_drawn", below="n_active"))),
        "labels": ("labels", Maybe(numbers(INTEGERS, "n_active"))),
    }
    parts: dict[str, tuple[Any, Kind]] = {
        "targets": ("targets", numbers(FLOATS, "n_targets", "n_components")),
        "key_statistics": ("statistics", _statistics("n_components")),
        "null_mean": ("null_mean", numbers(FLOAT64, "n_components")),
        "inverse_temperature": ("beta", Scalar(float)),
        "keys": ("keys", Maybe(numbers(FLOAT64, "n_active", "n_components"))),
        "key_weights": ("weights", Maybe(numbers(FLOAT64, "n_active"))),
        "fingerprints": ("fingerprints", Maybe(numbers(FLOAT64, "n_active", 4))),
        "n_exact": ("n_exact", Scalar(int)),
        "cells": ("cells", Maybe(_cells("n_components", "n_active"))),
        "signature": ("signature", Maybe(numbers(FLOAT64, "n_components"))),
        "far_keys": ("near", Maybe(Group(far, dict, ("n_active",)))),
    }
    return Group(parts, _model, (f"n_targets={n_targets}", "n_components"))


_PARAMETERS: dict[str, tuple[Any, Kind]] = {
    "affinity": ("source.affinity", Value("affinity", tuple(SOURCES))),
    "kernel": ("kernel", Scalar(str, choices=tuple(EMBEDDABLE))),
    "temperature": ("temperature", Scalar(float)),
    "walk_length": ("walk_length", Scalar(int)),
}
_NEIGHBORS: dict[str, tuple[Any, Kind]] = {
    "metric": ("metric", Value("metric")),
}
_EMBEDDING: dict[str, tuple[Any, Kind]] = {
    **_COLUMNS,
    "embedding": ("embedding_", numbers(FLOATS, "n_samples", "n_components")),
    "isolated": ("isolated_", numbers(BOOL, "n_samples")),
    "key_embedding": ("key_embedding_", numbers(FLOATS, "n_keys", "n_components")),
    "key_weight": ("key_weight_", numbers(FLOAT64, "n_keys")),
    "key_is_active": ("_fitted.active", numbers(BOOL, "n_keys")),
    "key_cluster": ("_fitted.labels", numbers(INTEGERS, "n_keys", below="n_keys", lowest=-1)),
    "affinity_matrix": ("affinity_matrix_", Maybe(Matrix("n_samples", "n_keys"))),
    "row_sums": ("_fitted.row_sums", Maybe(numbers(FLOATS, "n_samples"))),
    "column_sums": ("_fitted.column_sums", Maybe(numbers(FLOAT64, "n_keys"))),
    "loss_curve": ("loss_curve_", Listing(Scalar(float))),
    "exact_loss": ("exact_loss_", Maybe(Scalar(float))),
    "exact_loss_std": ("exact_loss_std_", Maybe(Scalar(float))),
    "n_iter": ("n_iter_", Scalar(int)),
    "n_negative": ("n_negative_", Maybe(Scalar(int))),
    "converged": ("converged_", Scalar(bool)),
    "parameters": ("_fitted", Group(_PARAMETERS)),
    "vectors": ("_fitted.vectors", numbers(FLOATS, "n_vectors", "n_components")),
    "sizes": ("_fitted.sizes", Listing(Scalar(int))),
    "out_of_sample": ("_fitted.row_model", _out_of_sample("n_keys")),
    "out_of_sample_columns": ("_fitted.column_model", Maybe(_out_of_sample("n_samples"))),
    "points": ("_fitted.source.points", Maybe(Matrix("n_samples", "n_features"))),
    "neighbors": ("_fitted.source.index", Maybe(Group(_NEIGHBORS))),
    "n_neighbors": ("_fitted.source.n_neighbors", Maybe(Scalar(int))),
    "weighting": ("_fitted.source.weighting", Maybe(Scalar(str))),
    "key_scale": ("_fitted.source.key_scale", Maybe(numbers(FLOAT64, "n_keys"))),
}


def _assemble_embedding(model: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of a model: entries whose places have a dot are parts of its fitted value."""
    attributes = {place: value for place, value in values.items() if "." not in place}
    parts: dict[str, Any] = {place.removeprefix("_fitted."): value for place, value in values.items() if "." in place}
    parts |= attributes.pop("_fitted")
    source = {place.removeprefix("source."): value for place, value in parts.items() if place.startswith("source.")}
    fitted = {name: parts[name] for name in FittedEmbedding._fields if name in parts}
    fitted |= {"keys": attributes["key_embedding_"], "key_weight": attributes["key_weight_"]}
    fitted["source"] = _source({"key_scale": None, **source}, model.n_jobs)
    attributes["_fitted"] = FittedEmbedding(**{"column_model": None, **fitted})
    return attributes


def _source(values: dict[str, Any], n_jobs: int | None) -> Source:
    """Return the source of affinities with these attributes; a search for nearest neighbors is built anew."""
    kind = source_of(values["affinity"])
    names = [field.name for field in dataclasses.fields(cast(Any, kind))]
    if "index" in names:
        values["index"] = neighbor_index(values["points"], values["index"]["metric"], n_jobs)
    return kind(**{name: values[name] for name in names})


# NormalizerEstimator -----------------------------------------------------------------------------------
_SAMPLE: dict[str, tuple[Any, Kind]] = {
    "keys": ("keys", numbers(FLOAT64, "n_drawn", "width")),
    "weight": ("weight", numbers(FLOAT64, "n_drawn")),
    "hash": ("hashes", numbers(UINT64, "n_drawn")),
    "exponential_rank": ("exponential", numbers(FLOAT64, "n_drawn")),
    "rows": ("rows", numbers(INTEGERS, "n_drawn")),
    "cluster": ("labels", numbers(INTEGERS, "n_drawn", below="n_clusters")),
    "cell": ("cells", numbers(INTEGERS, "n_drawn")),
}
_HASH_INDEX: dict[str, tuple[Any, Kind]] = {
    "hash": (0, numbers(UINT64, "n_distinct")),
    "weight": (1, numbers(FLOAT64, "n_distinct")),
}
_FEATURES: dict[str, tuple[Any, Kind]] = {
    "reference": ("reference", numbers(FLOAT64, "n_frequencies")),
    "sums": ("total", numbers(FLOAT64, 2, "n_frequencies")),
}
_SUMMARY: dict[str, tuple[Any, Kind]] = {
    "centers": ("centers", numbers(FLOAT64, "n_clusters", "width")),
    "key_statistics": ("statistics", _statistics("width")),
    "heavy_keys": ("heavy_keys", numbers(FLOAT64, "n_heavy", "width")),
    "heavy_weights": ("heavy_weights", numbers(FLOAT64, "n_heavy")),
    "sample": ("sample", Group(_SAMPLE, _record(KeySample), ("width", "n_clusters"))),
    "key_counts": ("hash_index", Listing(Group(_HASH_INDEX, lambda values: (values[0], values[1])))),
    "feature_sums": ("features", Maybe(Group(_FEATURES, _record(LogSum)))),
    "cells": ("cells", Maybe(_cells("width", "n_keys"))),
    "tails": ("tails", Maybe(numbers(FLOAT64, "n_clusters"))),
}
_SETTINGS: dict[str, tuple[Any, Kind]] = {
    "kernel": ("kernel", Value("kernel")),
    "inverse_temperature": ("beta", Scalar(float)),
    "method": ("method", Scalar(str)),
    "n_clusters": ("n_clusters", Scalar(int)),
    "covariance_type": ("covariance_type", Scalar(str)),
    "n_samples": ("n_samples", Scalar(int)),
    "n_exact": ("n_exact", Scalar(int)),
    "n_heavy": ("n_heavy", Scalar(int)),
    "n_components": ("n_components", Scalar(int)),
    "seed": ("seed", Scalar(int)),
}
_NORMALIZER: dict[str, tuple[Any, Kind]] = {
    **_COLUMNS,
    "keys": ("_keys", Maybe(numbers(FLOATS, "n_keys", "n_features"))),
    "key_weights": ("_key_weights", Maybe(numbers(FLOAT64, "n_keys"))),
    "key_cluster": ("_key_labels", Maybe(numbers(INTEGERS, "n_keys"))),
    "labels": ("labels_", numbers(INTEGERS, "n_samples")),
    "estimated_error": ("estimated_error_", Scalar(float)),
    "calibration": ("_scale", Listing(Scalar(float))),
    "method": ("_method", Scalar(str)),
    "parameters": ("_settings", Group(_SETTINGS)),
    "summary": ("_summary", Group(_SUMMARY, _record(KeySketch), ("width=n_features", "n_keys"))),
}


def _finish_normalizer(model: Any) -> None:
    """Set the attributes that follow from the others."""
    calibration = model._scale
    model._store(model._fitted_plan(), model._summary, model.labels_)
    model._scale = calibration


# The others --------------------------------------------------------------------------------------------
_SKETCH: dict[str, tuple[Any, Kind]] = {
    "gamma": ("gamma", Scalar(float)),
    "degree": ("degree", Scalar(int, "degree")),
    "coef0": ("coef0", Scalar(float)),
    "n_components": ("n_components", Scalar(int, "n_components")),
    "random_state": ("random_state", Value("random_state")),
    "index_hash": ("indexHash_", numbers(INTEGERS, "degree", "n_features", below="n_components")),
    "sign_hash": ("bitHash_", numbers((*FLOATS, *INTEGERS), "degree", "n_features")),
}
_FITTED_KERNEL: dict[str, tuple[Any, Kind]] = {
    "method": ("method", Scalar(str)),
    "kernel": ("kernel", Scalar(str)),
    "temperature": ("temperature", Scalar(float)),
    "normalize": ("normalize", Scalar(bool)),
}
_KERNEL: dict[str, tuple[Any, Kind]] = {
    **_COLUMNS,
    "parameters": ("_fitted", Group(_FITTED_KERNEL, _record(FittedKernel))),
    "landmarks": ("landmarks_", Maybe(numbers(FLOATS, "n_landmarks", "n_features"))),
    "sketch": ("sketch_", Maybe(Group(_SKETCH, _sketch, ("n_features",)))),
}
_WORDS: dict[str, tuple[Any, Kind]] = {
    "words": ("vocabulary_", _Vocabulary()),
    "embedding": ("embedding_", numbers(FLOATS, "n_words", "n_components")),
    "isolated": ("isolated_", numbers(BOOL, "n_words")),
    "n_iter": ("n_iter_", Maybe(Scalar(int))),
    "loss_curve": ("loss_curve_", Maybe(Listing(Scalar(float)))),
    "analyzer": ("_analyzer", Value("analyzer")),
}


class _Embedding(Kind):
    """A fitted AttentionEmbedding that is a part of another estimator."""

    def write(self, value: Any, file: Writer, name: str) -> Any:
        params = value.get_params(deep=False)
        return {
            "params": {key: Value(key).write(each, file, f"{name}/params/{key}") for key, each in params.items()},
            "fitted": Group(_EMBEDDING).write(value, file, f"{name}/fitted"),
        }

    def read(self, node: Any, file: Reader, name: str, sizes: Sizes) -> Any:
        params = {key: Value(key).read(each, file, f"{name}/params", {}) for key, each in node["params"].items()}
        model = AttentionEmbedding(**params)
        check_params(model)
        entries = Group(_EMBEDDING).read(node["fitted"], file, f"{name}/fitted", {})
        _fill(model, entries, LAYOUTS["AttentionEmbedding"])
        return model


_RECOMMENDER: dict[str, tuple[Any, Kind]] = {
    **_COLUMNS,
    "model": ("model_", _Embedding()),
    "item_attention": ("item_attention_", Maybe(Matrix("n_features", "n_features"))),
    "item_share": ("_item_share", Scalar(float)),
    "validation": ("validation_", Value("validation")),
}


class _Layout(NamedTuple):
    """The layout of an estimator in a file.

    Attributes
    ----------
    kind : class
        Class of the estimator.
    entries : Group
        Content of the file.
    assemble : callable
        ``(estimator without attributes, entries by their place) -> attributes``.
    finish : callable
        Function that sets the attributes that follow from the others.
    derived : tuple of str
        Names of the attributes that `finish` sets.
    """

    kind: type[BaseEstimator]
    entries: Group
    assemble: Callable[[Any, dict[str, Any]], dict[str, Any]] = lambda model, values: values
    finish: Callable[[Any], None] = lambda model: None
    derived: tuple[str, ...] = ()


_DERIVED = ("method_", "n_clusters_", "n_samples_", "n_exact_", "weights_", "means_", "covariances_")
_SHARED = ("temperature_", "normalizer_", "n_iter_", "embedding_", "item_embedding_")
LAYOUTS = {
    layout.kind.__name__: layout
    for layout in (
        _Layout(AttentionEmbedding, Group(_EMBEDDING), _assemble_embedding),
        _Layout(NormalizerEstimator, Group(_NORMALIZER), finish=_finish_normalizer, derived=_DERIVED),
        _Layout(ExpressiveKernel, Group(_KERNEL)),
        _Layout(AttentionWordVectors, Group(_WORDS)),
        _Layout(AttentionRecommender, Group(_RECOMMENDER), finish=share_attributes, derived=_SHARED),
    )
}


# Saving and loading ------------------------------------------------------------------------------------
def save(model: Any, path: str | PathLike[str]) -> None:
    """Write a fitted estimator to a file that this and later versions can read.

    The file is an npz of numbers and text, which :ref:`state_format` describes. It is not a pickle, and nothing in it
    is ever executed. It is written completely or not at all.

    Parameters
    ----------
    model : AttentionEmbedding, AttentionRecommender, AttentionWordVectors, ExpressiveKernel or NormalizerEstimator
        Fitted estimator. The steps of a pipeline have to be saved one by one.
    path : str or path-like
        Path of the file, which is replaced if it exists. No suffix is added.

    Raises
    ------
    TypeError
        If `model` is another estimator, or contains objects that are not data, such as words of a class of your own.
    ValueError
        If a parameter is not valid, or is another function than in `fit`.
    sklearn.exceptions.NotFittedError
        If `model` is not fitted.

    See Also
    --------
    load : Reads the file.

    Notes
    -----
    Functions that are parameters cannot be saved. Their names are written, and the functions themselves have to be
    passed to `load`. Callbacks and metadata requests are not saved. The same model gives the same bytes.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from pathlib import Path
    >>> from sklearn_attnembed import NormalizerEstimator, load, save
    >>> keys = np.random.default_rng(0).standard_normal((1000, 4))
    >>> model = NormalizerEstimator(random_state=0).fit(keys)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(model, Path(folder, "model.npz"))
    ...     loaded = load(Path(folder, "model.npz"))
    >>> bool(np.all(loaded.score_samples(keys[:5]) == model.score_samples(keys[:5])))
    True
    """
    name = type(model).__name__
    if name not in LAYOUTS or type(model) is not LAYOUTS[name].kind:
        raise TypeError(
            f"model must be one of {', '.join(LAYOUTS)}, but is of {type(model)}. Save the steps of a pipeline one by "
            "one, or use pickle."
        )
    check_is_fitted(model)
    check_params(model)
    params = model.get_params(deep=False)
    file = Writer(params)
    versions = {"numpy": np.__version__, "scipy": scipy.__version__, "scikit-learn": sklearn.__version__}
    tree = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "estimator": name,
        "versions": {FORMAT: __version__, **versions},
        "params": {key: Value(key).write(value, file, f"params/{key}") for key, value in params.items()},
        "output": output_container(model),
        "fitted": LAYOUTS[name].entries.write(model, file, "fitted"),
    }
    file.save(Path(path), tree)


def load(path: str | PathLike[str], **params: Any) -> Any:
    """Read a fitted estimator from a file that was written by `save`, by this version or an earlier one.

    On the same machine and with the same versions, results of the estimator equal those of the saved one to the bit.

    Parameters
    ----------
    path : str or path-like
        Path of the file.
    **params : dict
        Parameters that are functions, which a file does not contain, as in ``load(path, affinity=rbf_kernel)``. Other
        parameters are set as by `set_params`.

    Returns
    -------
    model : AttentionEmbedding, AttentionRecommender, AttentionWordVectors, ExpressiveKernel or NormalizerEstimator
        Fitted estimator.

    Raises
    ------
    ValueError
        If the file was not written by `save`, is damaged, has a later format, or needs a function that is not passed.
    OSError
        If the file cannot be read.

    See Also
    --------
    save : Writes the file.

    Notes
    -----
    Nothing in the file is executed or imported, so files from others can be opened safely. Names, types, shapes,
    indices and checksums are all checked.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from pathlib import Path
    >>> from sklearn.metrics.pairwise import rbf_kernel
    >>> from sklearn_attnembed import AttentionEmbedding, load, save
    >>> points = np.random.default_rng(0).standard_normal((100, 3))
    >>> model = AttentionEmbedding(4, affinity=rbf_kernel, random_state=0).fit(points)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(model, Path(folder, "model.npz"))
    ...     loaded = load(Path(folder, "model.npz"), affinity=rbf_kernel)
    >>> bool(np.all(loaded.transform(points[:5]) == model.transform(points[:5])))
    True
    """
    path = Path(path)
    with open(path, "rb") as stream:
        try:
            model = _read(Reader(path, stream, params))
        except (FileError, MemoryError):
            raise
        except Exception as error:  # a damaged file can cause any error
            if isinstance(error, OSError) and error.errno != errno.EINVAL:  # a position before the file
                raise
            raise FileError(
                f"{path} has to be a file of sklearn_attnembed.save, whole and unchanged, but reading it gave "
                f"{type(error).__name__}: {error}. Copy it again, or write it anew."
            ) from error
    return model.set_params(**params)


def _read(file: Reader) -> Any:
    """Return the model in a file."""
    tree = file.tree()
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        file.fail("the format", repr(FORMAT), repr(tree.get("format") if isinstance(tree, dict) else tree))
    version = Scalar(int).read(tree["format_version"], file, "format_version", {})
    if version > FORMAT_VERSION:
        raise FileError(
            f"{file.path} is of format {version}, of sklearn_attnembed {tree.get('versions', {}).get(FORMAT)}, but "
            f"this version, {__version__}, reads formats up to {FORMAT_VERSION}. Upgrade sklearn_attnembed."
        )
    if tree["estimator"] not in LAYOUTS:
        file.fail("the estimator", f"one of {', '.join(LAYOUTS)}", repr(tree["estimator"]))
    layout = LAYOUTS[tree["estimator"]]
    names = set(layout.kind().get_params(deep=False))
    if not names.issuperset(tree["params"]):  # parameters that are missing have their defaults
        file.fail("params", f"among {', '.join(sorted(names))}", f"made of {', '.join(sorted(tree['params']))}")
    params = {key: Value(key).read(node, file, f"params/{key}", {}) for key, node in tree["params"].items()}
    model: Any = layout.kind(**params)
    check_params(model)
    _fill(model, layout.entries.read(tree["fitted"], file, "fitted", {}), layout)
    return model.set_output(transform=tree["output"])


@whole_or_as_before()
def _fill(model: Any, entries: dict[str, Any], layout: _Layout) -> None:
    """Set the attributes that `fit` sets."""
    vars(model).update(layout.assemble(model, entries))
    layout.finish(model)
