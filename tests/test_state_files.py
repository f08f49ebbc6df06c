"""Files of models from this version and earlier ones give the results of then, see data/make_state_files.py."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sklearn_attnembed import __version__, load, save

DATA = Path(__file__).parent / "data"
FILES = sorted(path for path in DATA.glob("*/*.npz") if path.stem != "expected")


def _script():
    spec = importlib.util.spec_from_file_location("make_state_files", DATA / "make_state_files.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}, {path.stem}")
def test_files_that_lasted(path):
    """Models from files of another machine give the stored results within the promised tolerance."""
    script = _script()
    with np.load(path.parent / "expected.npz") as file:
        expected = {key.partition("/")[2]: file[key] for key in file if key.startswith(f"{path.stem}/")}
    model = load(path, **script.FUNCTIONS.get(path.stem, {}))
    X = expected.pop("X")
    X = X.tolist() if X.dtype.kind == "U" else script.frame(X) if hasattr(model, "feature_names_in_") else X
    given = script.answers(model, X)
    assert set(given) >= set(expected)
    for key, value in expected.items():
        tolerance = 1e-4 if value.dtype == np.float32 else 1e-6
        rtol = 1e-9 if key == "log_z" else tolerance
        assert given[key].dtype == value.dtype, key
        assert_allclose(given[key], value, rtol=rtol, atol=0 if key == "log_z" else tolerance, err_msg=key)


def test_files_of_this_version():
    """Each model of the script has a small file of this version."""
    here = {path.stem: path for path in FILES if path.parent.name == __version__}
    assert set(here) == set(_script().models())
    for path in [*here.values(), DATA / __version__ / "expected.npz"]:
        assert path.stat().st_size < 50_000


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.parent.name == __version__], ids=lambda path: path.stem
)
def test_file_is_of_this_state(path, tmp_path):
    """Files of this version have all current entries. If not, run data/make_state_files.py again."""
    save(load(path, **_script().FUNCTIONS.get(path.stem, {})), tmp_path / "again")
    before, after = (_places(_tree(file)["fitted"]) for file in (path, tmp_path / "again"))
    assert before == after


def _tree(path):
    with np.load(path) as arrays:
        return json.loads(bytes(arrays["model"]))


def _places(tree):
    """Return the keys of a tree of dicts."""
    return {key: _places(value) for key, value in tree.items()} if isinstance(tree, dict) else None
