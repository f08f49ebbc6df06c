"""Outcomes of a call: a valid result, an error that explains itself, a documented warning, or a violation."""

import hashlib
import linecache
import traceback
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
import sklearn
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning, NotFittedError
from sklearn.utils._param_validation import InvalidParameterError

import sklearn_attnembed

HERE, OURS, THEIRS = (
    str(Path(file).resolve().parent) for file in (__file__, sklearn_attnembed.__file__, sklearn.__file__)
)
# Modules of scikit-learn that validate inputs.
CHECKS = (
    *(f"{THEIRS}/utils/{name}.py" for name in ("validation", "_param_validation", "metaestimators")),
    "sklearn/metrics/_dist_metrics.pyx",
)
REFUSALS = (ValueError, TypeError, InvalidParameterError, NotFittedError)
WARNINGS = (UserWarning, ConvergenceWarning, DataConversionWarning)


class Violation(AssertionError):
    """Outcome that is not allowed."""


class Refused(Exception):
    """Error for an invalid input, with a message of this package or of scikit-learn's validation."""


class Watch:
    """Caller of the package, which announces the input and records documented warnings."""

    def __init__(self, announce):
        self.announce, self.warned, self.note = announce, False, ""

    def call(self, function, *args, nan=False, **kwargs):
        """Call and return the result; raise Refused or Violation. NaN may come out only where `nan` says so."""
        self.announce(self.note)
        given = [*args, *kwargs.values()]
        before = [fingerprint(value) for value in given]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                result = function(*args, **kwargs)
            except Exception as error:
                check_error(error)
                raise Refused("TypeError" if isinstance(error, TypeError) else "ValueError") from error
            finally:
                expect([fingerprint(value) for value in given] == before, "the input was modified")
        for warning in caught:
            check_warning(warning)
        self.warned |= bool(caught)
        expect(nan or not has_nan(result), f"NaN comes out of {getattr(function, '__qualname__', function)}")
        return result


def expect(condition, message):
    """Raise Violation if the condition is false."""
    if not condition:
        raise Violation(message)


def expect_close(here, there, tolerance, what):
    """Raise Violation unless two results agree within a tolerance, relative for large values, with equal infinities."""
    here, there = (np.asarray(x.toarray() if sp.issparse(x) else x, np.float64) for x in (here, there))
    expect(here.shape == there.shape, f"{what}: shapes {here.shape} and {there.shape}")
    finite = np.isfinite(there)
    expect(np.array_equal(here[~finite], there[~finite]), f"{what}: not finite in other places")
    with np.errstate(over="ignore"):
        error = np.abs(here[finite] / 2 - there[finite] / 2) / np.maximum(np.abs(there[finite]) / 2, 0.5)
    largest = error.max(initial=0)
    expect(largest <= tolerance, f"{what}: they differ by {largest:.1e}, more than {tolerance:.0e}")


def check_error(error):
    """Raise Violation unless the error is a ValueError or TypeError that explains what is wrong with the input."""
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1]
    is_raised = linecache.getline(last.filename, last.lineno).strip().startswith("raise")
    is_said = is_raised and last.filename.startswith((OURS, THEIRS))
    if type(error) in REFUSALS and (is_said or any(map(is_check, frames))):
        return
    inner = [frame for frame in frames if frame.filename.startswith(OURS)] or frames
    place = f"{Path(inner[-1].filename).stem}.{inner[-1].name}:{inner[-1].lineno}"
    raise Violation(f"{type(error).__name__} in {place}: {' '.join(str(error).split())[:120]}") from error


def is_check(frame):
    """Return whether a frame is part of scikit-learn's validation."""
    return frame.filename in CHECKS or (frame.filename.startswith(THEIRS) and frame.name == "check_pairwise_arrays")


def check_warning(warning):
    """Raise Violation unless the warning is documented and points to the line of the caller."""
    message = " ".join(str(warning.message).split())[:120]
    place = Path(warning.filename)
    expect(
        warning.category in WARNINGS, f"leaked {warning.category.__name__} in {place.stem}:{warning.lineno}: {message}"
    )
    is_told = warning.category is DataConversionWarning or str(place) in CHECKS or str(place).startswith(HERE)
    expect(
        is_told, f"{warning.category.__name__} is not of the caller's line but {place.stem}:{warning.lineno}: {message}"
    )


def has_nan(value):
    """Return whether a result contains a NaN."""
    if sp.issparse(value):
        value = value.tocoo().data
    if isinstance(value, pd.DataFrame):
        value = value.select_dtypes("number").to_numpy()
    if isinstance(value, tuple | list):
        return any(has_nan(each) for each in value)
    if isinstance(value, dict):
        return has_nan(list(value.values()))
    if isinstance(value, float | np.floating | np.ndarray):
        value = np.asarray(value)
        return value.dtype.kind in "fc" and bool(np.isnan(value).any())
    return False


def fingerprint(value):
    """Return a hash of entries, indices and layout of an argument."""
    if isinstance(value, np.ndarray):
        content = repr(value.tolist()).encode() if value.dtype.kind == "O" else value.tobytes()
        return value.dtype, value.shape, value.strides, hashlib.sha1(content).hexdigest()
    if sp.issparse(value):
        arrays = {name: part for name, part in vars(value).items() if isinstance(part, np.ndarray | tuple)}
        items = tuple(value.items()) if value.format == "dok" else ()
        return value.shape, repr(items), [(name, fingerprint(part)) for name, part in arrays.items()]
    if isinstance(value, pd.DataFrame):
        return (
            repr(value.index),
            repr(value.columns),
            [fingerprint(value.iloc[:, i].to_numpy()) for i in range(value.shape[1])],
        )
    if isinstance(value, tuple | list):
        return type(value), [fingerprint(each) for each in value]
    return repr(value) if isinstance(value, str | int | float | complex | bytes | dict) else None
