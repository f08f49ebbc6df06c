"""Import of optional packages, at the call of the functions that need them."""

from importlib import import_module
from typing import Any


def import_extra(module: str, extra: str, what: str) -> Any:
    """Import a module, or raise an error that names the extra of this package that installs it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{what} needs {module.partition('.')[0]}: pip install 'sklearn-attnembed[{extra}]'."
        ) from error
