"""Shared by the benchmarks: where the real data is, and how results are written."""

import importlib.util
import os
import platform
import sys
from pathlib import Path

import numpy
import scipy
import sklearn

import sklearn_attnembed

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("ATTNEMBED_DATA", HERE.parents[1] / "shared" / "data"))


def module(path):
    """A Python file outside any package."""
    if not path.exists():
        sys.exit(f"no real data: {path} is missing, set ATTNEMBED_DATA")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def loaders():
    """Loaders of the real data sets."""
    return module(DATA / "loaders.py")


def protocols():
    """How embeddings are scored."""
    return module(DATA.parent / "protocols.py")


def setting():
    """Versions and machine, for below a table."""
    versions = ", ".join(f"{m.__name__} {m.__version__}" for m in (sklearn_attnembed, sklearn, numpy, scipy))
    return f"{versions}; Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}, 2 threads"


def write(name, title, sections):
    """Write ``benchmarks/name.md`` from (heading, text, header, rows) and print it."""
    lines = [f"# {title}", "", setting(), ""]
    for heading, text, header, rows in sections:
        lines += [f"## {heading}", "", text, "", "| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
        lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows] + [""]
    text = "\n".join(lines)
    (HERE / f"{name}.md").write_text(text)
    print(text)
