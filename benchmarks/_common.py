"""Shared by the benchmarks: where the real data is, and how results are written."""

import ctypes
import gc
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy
import scipy
import sklearn

import sklearn_attnembed

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("ATTNEMBED_DATA", HERE.parents[1] / "shared" / "data"))

THREADS = {f"{library}_NUM_THREADS": "2" for library in ("OMP", "OPENBLAS", "MKL", "NUMBA", "RAYON")}


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


def measure(call):
    """Result of a call, its seconds, and the megabytes that were resident at most beyond those before (Linux)."""

    def resident(key):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024

    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed is not resident any more
    Path("/proc/self/clear_refs").write_text("5")  # the peak is again what is resident now
    before, start = resident("VmRSS"), time.perf_counter()
    result = call()
    return result, time.perf_counter() - start, resident("VmHWM") - before


def apart(script, *arguments, limit=None, **environment):
    """What ``python script --child arguments`` prints last, as JSON, in a process of its own with two threads."""
    command = [sys.executable, script, "--child", *map(str, arguments)]
    settings = os.environ | THREADS | {"PYTHONWARNINGS": "ignore"} | environment
    done = subprocess.run(command, env=settings, stdout=subprocess.PIPE, text=True, timeout=limit, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    print(*arguments, result, file=sys.stderr, flush=True)
    return result
