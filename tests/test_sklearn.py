"""The estimator checks of scikit-learn for every affinity, kernel and method, and its private names."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import BaseEstimator, clone
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_attnembed import AttentionEmbedding, ExpressiveKernel, NormalizerEstimator, _sklearn, save

ESTIMATORS = [
    AttentionEmbedding(),
    AttentionEmbedding(affinity="precomputed"),
    AttentionEmbedding(affinity="precomputed_nearest_neighbors"),
    AttentionEmbedding(affinity="bipartite"),
    AttentionEmbedding(affinity=rbf_kernel),
    AttentionEmbedding(normalizer="exact"),
    AttentionEmbedding(normalizer="neighbors", n_exact=5),
    AttentionEmbedding(solver="gradient", n_clusters=2, walk_length=2, null_model="degree"),
    NormalizerEstimator(),
    NormalizerEstimator("squared", n_clusters=3),
    NormalizerEstimator(method="control_variate", n_clusters=2, n_heavy=2, random_state=0),
    NormalizerEstimator(method="sampling", random_state=0),
    NormalizerEstimator(method="neighbors", n_clusters=2, random_state=0),
    NormalizerEstimator(method="random_fourier", random_state=0),
    NormalizerEstimator(method="positive_features", random_state=0),
    NormalizerEstimator(np.abs, method="auto", random_state=0),
    NormalizerEstimator(covariance_type="diag"),
    NormalizerEstimator("expressive", method="exact"),
    ExpressiveKernel(),
    ExpressiveKernel("softmax", normalize=False),
    ExpressiveKernel("squared", method="exact"),
    ExpressiveKernel(method="sketch"),
]


def expected(estimator):
    if getattr(estimator, "n_heavy", 0):
        reason = "a key of weight two is one of the n_heavy keys, its two copies are two of them"
        return dict.fromkeys(("check_sample_weight_equivalence_on_dense_data",), reason)
    return {}


# The tiny data of the checks lead to clipping, isolated rows and too few iterations.
@pytest.mark.filterwarnings("ignore:n_neighbors=:UserWarning")
@pytest.mark.filterwarnings("ignore:n_components=:UserWarning")
@pytest.mark.filterwarnings("ignore:.*have no affinity:UserWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(ESTIMATORS, legacy=True, expected_failed_checks=expected, xfail_strict=True)
def test_scikit_learn(estimator, check):
    check(estimator)


# Not handed to third parties ---------------------------------------------------------------------------
UNOFFICIAL = [
    "check_dataframe_column_names_consistency",
    "check_get_feature_names_out_error",
    "check_param_validation",
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_global_output_transform_pandas",
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
    "check_inplace_ensure_writeable",
]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("check", UNOFFICIAL)
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_scikit_learn_unofficial(estimator, check):
    getattr(estimator_checks, check)(type(estimator).__name__, clone(estimator))


@pytest.mark.parametrize(
    "estimator",
    [
        AttentionEmbedding(4, random_state=0),
        NormalizerEstimator(n_clusters=2, random_state=0),
        ExpressiveKernel(n_components=5, random_state=0),
    ],
    ids=lambda e: type(e).__name__,
)
def test_pandas_in_and_out(estimator, digits):
    X, _ = digits
    frame = pd.DataFrame(X[:60], columns=[f"pixel {i}" for i in range(64)], index=np.arange(60) * 2)
    plain = clone(estimator).fit_transform(X[:60])
    out = estimator.set_output(transform="pandas").fit_transform(frame)
    assert_allclose(out.to_numpy(), plain)
    assert_array_equal(out.index, frame.index)
    assert_array_equal(out.columns, estimator.get_feature_names_out())
    assert list(estimator.feature_names_in_) == list(frame.columns)
    with pytest.raises(ValueError, match="feature names should match"):
        estimator.transform(frame[frame.columns[::-1]])


def test_array_api_dispatch_was_possible():
    """Without array API dispatch scikit-learn skips some of its checks silently."""
    from scipy._lib._array_api import SCIPY_ARRAY_API

    assert SCIPY_ARRAY_API


def test_html_repr_and_tags():
    for estimator in ESTIMATORS:
        assert type(estimator).__name__ in estimator._repr_html_()
    tags = AttentionEmbedding(affinity="precomputed").__sklearn_tags__()
    assert tags.input_tags.pairwise
    assert tags.input_tags.positive_only
    assert tags.input_tags.sparse
    assert not AttentionEmbedding().__sklearn_tags__().input_tags.pairwise
    with config_context(transform_output="pandas"):
        assert isinstance(ExpressiveKernel(n_components=2).fit_transform(np.eye(3)), pd.DataFrame)


# Private names of scikit-learn and SciPy ---------------------------------------------------------------
PACKAGE = Path(_sklearn.__file__).parent
OTHERS = ("sklearn", "scipy", "numpy", "joblib", "threadpoolctl", "pandas", "matplotlib", "networkx", "torch")
NEEDED = [
    ("sklearn.base", "_fit_context"),
    ("sklearn.utils._param_validation", "Interval"),
    ("sklearn.utils._param_validation", "StrOptions"),
    ("sklearn.utils._param_validation", "validate_params"),
]


def fresh():
    """Return a new copy of the module, which has imported all names again."""
    spec = importlib.util.spec_from_file_location("sklearn_attnembed._fresh", _sklearn.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _is_private(path):
    return any(part.startswith("_") and not part.startswith("__") for part in path.split("."))


def _private_names(tree):
    """Yield the private or experimental names of other packages that a module imports or uses."""
    aliases = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [each.name for each in node.names]
            aliases |= {each.asname or each.name: each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{each.name}" for each in node.names]
            aliases |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
        else:
            continue
        for name in names:
            if name.startswith(OTHERS) and (_is_private(name) or name.startswith("sklearn.callback")):
                yield name
    of_estimators = {name for name in dir(BaseEstimator) if re.match("_[a-z]", name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            root, _, rest = ast.unparse(node).partition(".")
            if aliases.get(root, "").startswith(OTHERS) and _is_private(rest):
                yield ast.unparse(node)
            if node.attr in of_estimators:
                yield node.attr


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_private_names_are_in_one_module(path):
    found = list(_private_names(ast.parse(path.read_text(encoding="utf8"))))
    assert path.name == "_sklearn.py" or found == []


def test_private_names_are_found():
    """The search finds each kind of private name, and nothing else."""
    code = """
import scipy.sparse as sp
import sklearn.utils._tags
from scipy.sparse import _sparsetools
from sklearn.base import _fit_context, clone
from sklearn.callback import with_callbacks
from numpy import linalg
sp._sputils.upcast
model._validate_params()
linalg.norm
self._own
"""
    assert list(_private_names(ast.parse(code))) == [
        "sklearn.utils._tags", "scipy.sparse._sparsetools", "sklearn.base._fit_context",
        "sklearn.callback.with_callbacks", "sp._sputils.upcast", "sp._sputils", "_validate_params",
    ]  # fmt: skip


@pytest.mark.parametrize(("module", "name"), NEEDED)
def test_missing_private_names_are_told(module, name, monkeypatch):
    monkeypatch.delattr(importlib.import_module(module), name)
    message = (
        rf"needs {module}.{name}, which scikit-learn \S+ does not have. It is tested with scikit-learn 1.8 and 1.9"
    )
    with pytest.raises(ImportError, match=message):
        fresh()


def test_missing_private_module_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.utils._param_validation", None)
    with pytest.raises(ImportError, match=r"needs sklearn.utils._param_validation.Interval, which .* install one"):
        fresh()


def test_missing_validation_of_parameters_is_told(monkeypatch, tmp_path):
    model = NormalizerEstimator().fit(np.eye(4))
    monkeypatch.delattr(BaseEstimator, "_validate_params")
    with pytest.raises(ImportError, match=r"needs sklearn.base.BaseEstimator._validate_params"):
        save(model, tmp_path / "model")


def test_callbacks_may_be_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.callback", None)
    module = fresh()
    assert module.with_callbacks(fresh) is fresh
    assert not hasattr(module.CallbackSupportMixin, "set_callbacks")
    assert not module.FitTask(object(), np.eye(3), None, 5).end()


def test_rows_are_selected_and_counted_without_scikit_learn(monkeypatch):
    monkeypatch.delattr(importlib.import_module("sklearn.utils"), "_safe_indexing")
    monkeypatch.delattr(importlib.import_module("sklearn.utils.validation"), "_num_samples")
    module = fresh()
    X = np.arange(6.0).reshape(3, 2)
    for table in (X, X.tolist(), sp.csr_array(X), pd.DataFrame(X)):
        assert module._num_samples(table) == 3
        row = module._safe_indexing(table, [1])
        assert_array_equal(row.toarray() if sp.issparse(row) else row, [[2, 3]])


REPLACED = """
import sys
import numpy as np
from scipy.sparse import _sparsetools
from sklearn import utils
from sklearn.utils import validation
import sklearn_attnembed
import sklearn_attnembed.datasets

def result():
    from sklearn_attnembed import AttentionEmbedding
    from sklearn_attnembed.datasets import make_block_model
    A, _ = make_block_model(200, 3, mean_degree=12, random_state=0)
    model = AttentionEmbedding(4, affinity="precomputed", walk_length=2, random_state=0).fit(A)
    return np.column_stack([model.embedding_, model.explain(3, A[:9]).sort_values("key")["attention"]])

before = result()
for name in [name for name in sys.modules if name.startswith("sklearn_attnembed")]:
    del sys.modules[name]
hidden = (_sparsetools, "csr_matvecs"), (utils, "_safe_indexing"), (validation, "_num_samples")
there = [vars(module).pop(name) for module, name in hidden]
sys.modules["sklearn.callback"] = None
from sklearn_attnembed import _sklearn
for (module, name), value in zip(hidden, there):
    setattr(module, name, value)  # scikit-learn and SciPy themselves need them
after = result()
assert _sklearn.csr_matvecs is None
np.testing.assert_allclose(before, after, rtol=0, atol=1e-12)
"""


def test_results_do_not_depend_on_private_names():
    """All names that have a replacement are hidden at once, in another process."""
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", REPLACED], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
