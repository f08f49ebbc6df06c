"""Packages that are needed by some functions alone, imported where these are called."""

from importlib import import_module
from typing import Any


def import_extra(module: str, extra: str, what: str) -> Any:
    """The module, or an error that says which extra of ours brings it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{what} needs {module.partition('.')[0]}: pip install 'sklearn-attnembed[{extra}]'."
        ) from error
