"""Shared by the benchmarks: where the real data is, their options, and how results are written.

``ATTNEMBED_DATA`` names the data folder, which has ``loaders.py``, with ``protocols.py``, how embeddings are scored,
beside the folder. Without it the folder is ``shared/data`` beside the repository.
"""

import argparse
import ctypes
import gc
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy
import scipy
import sklearn
from threadpoolctl import threadpool_limits

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


def busy():
    """Core seconds of everything on the machine but this process and what it has started (Linux)."""
    ticks = map(int, Path("/proc/stat").read_text().split()[1:4])
    return sum(ticks) / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


LINUX = Path("/proc/stat").exists()
BEGAN, BUSY = time.perf_counter(), busy() if LINUX else 0.0


def processor():
    """Model of the CPU."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if LINUX else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown CPU"


def installed(packages):
    """Versions of those packages that are there."""
    for name in packages:
        with suppress(PackageNotFoundError):
            yield f"{name} {version(name)}"


def setting(peers=(), threads="2 threads"):
    """Versions, machine and threads of a run, for below the title of its tables."""
    ours = [f"{m.__name__} {m.__version__}" for m in (sklearn_attnembed, sklearn, numpy, scipy)]
    versions = ", ".join([*ours, *installed(peers)])
    machine = f"{processor()}, {os.cpu_count()} cores, {platform.machine()}"
    parts = [versions, f"Python {platform.python_version()}", machine, threads]
    if LINUX:
        cores = (busy() - BUSY) / (time.perf_counter() - BEGAN)
        parts.append(f"other work on the machine took {max(cores, 0):.1f} cores meanwhile, on average")
    return "; ".join(parts) + "."


def options(script):
    """Parser of a script's options: its docstring, and ``--quick``, the same for all. Two threads from here on."""
    threadpool_limits(2)
    parser = argparse.ArgumentParser(description=script, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="little of everything: prints only, and writes nothing")
    return parser


def options_of_graphs(script):
    """Parser of a script that runs methods on graphs: which of them, and where results are kept."""
    parser = options(script)
    parser.add_argument("--cache", type=Path, help="JSON lines of results, read and added to")
    parser.add_argument("--only", help="methods, with commas between")
    parser.add_argument("--graphs", help="the same of graphs")
    parser.add_argument("--d", help="the same of dimensions")
    return parser


def save(figure, name, is_whole=True):
    """Write a picture of the documentation; not of a run in part."""
    if is_whole:
        figure.savefig(HERE.parent / "doc" / "images" / f"{name}.png", dpi=110)


def write(name, title, sections, is_whole=True, **settings):
    """Print (heading, text, header, rows) and write them as ``benchmarks/name.md``; not those of a run in part."""
    lines = [f"# {title}", "", setting(**settings), ""]
    for heading, text, header, rows in sections:
        lines += [f"## {heading}", "", text, "", "| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
        lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows] + [""]
    text = "\n".join(lines)
    print(text)
    print(f"{time.perf_counter() - BEGAN:.0f} s", file=sys.stderr)
    if is_whole:
        (HERE / f"{name}.md").write_text(text)
    else:
        print(f"in part: {name}.md and its pictures are left as they are", file=sys.stderr)


def plain(value, digits=2):
    """A number to some digits, never as a power of ten."""
    return numpy.format_float_positional(value, digits, unique=False, fractional=False, trim="-")


def bold(values, form, choose):
    """Cells of numbers, the best in bold; None is an empty cell."""
    top = choose((value for value in values if value is not None), default=None)
    return ["" if v is None else f"**{form(v)}**" if v == top else form(v) for v in values]


def fastest(values):
    """Cells of seconds."""
    return bold(values, lambda v: plain(v, 3) if v < 100 else f"{v:.0f}", min)


def leads(ours, theirs):
    """Whether paired figures are higher by more than two standard errors of the gap, over seeds."""
    gap = numpy.subtract(ours, theirs)
    gap = gap[~numpy.isnan(gap)]
    return len(gap) > 1 and gap.mean() > 2 * gap.std(ddof=1) / len(gap) ** 0.5


def spread(values, digits=1):
    """Mean and standard deviation."""
    return f"{numpy.mean(values):.{digits}f} ± {numpy.std(values, ddof=1):.{digits}f}"


def ahead(runs, form=spread, package=str):
    """Cells of paired figures by name; bold are those that lead all of other packages by more than the noise."""
    cells = []
    for name, values in runs.items():
        rivals = [other for key, other in runs.items() if package(key) != package(name)]
        is_ahead = bool(rivals) and all(leads(values, other) for other in rivals)
        cells.append(f"**{form(values)}**" if is_ahead else form(values))
    return cells


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
