"""Mutation testing of `sklearn_attnembed._core`: change one expression, and some test has to fail.

    python .ci/mutate.py [--modules statistics,sampling] [--mutants 300] [--seconds 1500] [--seed 0] [--jobs 2]

A first run of the tests without any change records which lines each of them executes and how long it takes. Each mutant
then is a copy of the package with one change, against which the tests that execute the changed statement run until one
fails: one case of each test function first, up to `CASES` cases of a function and `BUDGET` seconds in all. A run that
takes far longer than it should counts as a failure. Mutants are a random sample, and none is started after the given
seconds. Those that no test can tell from the original are listed, with reasons, in `mutants.toml`; they are left out.
The exit status is 1 where fewer than 90 % of the others are killed. Every run is a fork of one process that has already
imported SciPy and scikit-learn, which takes longer than most tests. mutmut and cosmic-ray neither sample mutants nor
bound the time.
"""

import argparse
import ast
import compileall
import copy
import hashlib
import importlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import tomllib
import traceback
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "sklearn_attnembed" / "_core"
LISTED = Path(__file__).with_name("mutants.toml")
# Test files of the estimators that show most of what the core computes; those that import from the core run too.
TESTS = ["attention", "expressive", "metrics", "properties", "embedding", "expressive_embedding", "normalizer"]
BUDGET = 10.0  # seconds of tests for one mutant, as they take without a change
CASES = 10  # of a parametrized test function, spread over all of them
REQUIRED = 0.9
# Imported once, before the forks.
PRELOADED = [
    "scipy.stats",
    "scipy.optimize",
    "sklearn.datasets",
    "sklearn.pipeline",
    "matplotlib",
    "hypothesis",
    "pytest",
]

OPERATORS = {
    **{ast.Add: [ast.Sub], ast.Sub: [ast.Add], ast.Mult: [ast.Div], ast.Div: [ast.Mult], ast.Pow: [ast.Mult]},
    **{ast.FloorDiv: [ast.Mult], ast.Mod: [ast.FloorDiv], ast.BitAnd: [ast.BitOr], ast.BitOr: [ast.BitAnd]},
    **{ast.BitXor: [ast.BitOr], ast.LShift: [ast.RShift], ast.RShift: [ast.LShift]},
    **{ast.Lt: [ast.LtE, ast.GtE], ast.LtE: [ast.Lt, ast.Gt], ast.Gt: [ast.GtE, ast.LtE], ast.GtE: [ast.Gt, ast.Lt]},
    **{ast.Eq: [ast.NotEq], ast.NotEq: [ast.Eq], ast.Is: [ast.IsNot], ast.IsNot: [ast.Is], ast.In: [ast.NotIn]},
    **{ast.NotIn: [ast.In], ast.And: [ast.Or], ast.Or: [ast.And]},
}
PAIRS = [
    *[("min", "max"), ("minimum", "maximum"), ("argmin", "argmax"), ("sum", "mean"), ("any", "all"), ("sin", "cos")],
    *[("floor", "ceil"), ("zeros", "ones"), ("zeros_like", "ones_like")],
]
NAMES = dict([*PAIRS, *((b, a) for a, b in PAIRS)])


class Mutant(NamedTuple):
    """One change: the text that replaces the bytes from `start` to `stop` of a file."""

    module: str
    function: str
    line: int
    statement: range
    start: int
    stop: int
    text: str


def module_name(path):
    return ".".join(path.relative_to(CORE).with_suffix("").parts).removesuffix(".__init__")


def changed_nodes(node):
    """Yield what one expression or statement may become."""

    def having(**fields):
        other = copy.copy(node)
        for name, value in fields.items():
            setattr(other, name, value)
        return other

    match node:
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op):
            yield from (having(op=new()) for new in OPERATORS.get(type(op), []))
        case ast.Compare(ops=[op]):
            yield from (having(ops=[new()]) for new in OPERATORS[type(op)])
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert(), operand=operand):
            yield operand
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield ast.IfExp(test, orelse, body)
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield ast.Constant(1 - value if value in (0, 1) else value + 1)
            if value > 1:
                yield ast.Constant(0)
                yield ast.Constant(value - 1)
        case ast.Attribute(attr=name) if name in NAMES:
            yield having(attr=NAMES[name])
        case ast.Name(id=name, ctx=ast.Load()) if name in NAMES:
            yield having(id=NAMES[name])
    match node:
        case ast.AugAssign() | ast.Assign(targets=[ast.Subscript()]) | ast.Expr(value=ast.Call()):
            yield ast.Pass()
        case ast.If(test=test):
            yield ast.UnaryOp(ast.Not(), test)


def mutants_of(path):
    """All mutants of one file; none of docstrings, annotations, imports, fields, decorators and errors."""
    source = path.read_bytes()
    offsets = [0]
    for text in source.splitlines(keepends=True):
        offsets.append(offsets[-1] + len(text))
    found = []

    def walk(node, statement, function):
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Raise | ast.Assert | ast.JoinedStr):
            return
        if isinstance(node, ast.keyword) and node.arg == "strict":  # of zip, whose arguments are equally long
            return
        if isinstance(node, ast.ClassDef):
            node.body = [child for child in node.body if not isinstance(child, ast.AnnAssign)]
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            statement = range(node.lineno, (body[0].lineno if body else node.end_lineno + 1))
        if isinstance(node, ast.FunctionDef):
            function = function or node.name
        for new in changed_nodes(node):
            place = node.test if isinstance(node, ast.If) else node
            start = offsets[place.lineno - 1] + place.col_offset
            stop = offsets[place.end_lineno - 1] + place.end_col_offset
            text = ast.unparse(ast.fix_missing_locations(new))
            text = text if isinstance(new, ast.stmt) else f"({text})"
            found.append(Mutant(module_name(path), function, place.lineno, statement, start, stop, text))
        is_cast = isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "astype"  # copies have equal values
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "bases") or (name == "keywords" and is_cast):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    walk(child, statement, function)

    walk(ast.parse(source), range(0), "")
    return found


def source_of(module, core=CORE):
    """Return the file of a module."""
    path = core.joinpath(*module.split(".")) if module else core
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def difference(mutant):
    """Return the line of the change, and what it replaces by what."""
    source = source_of(mutant.module).read_bytes()
    old = source[mutant.start : mutant.stop].decode()
    line = source.splitlines()[mutant.line - 1].decode().strip()
    return line, " ".join(old.split()), " ".join(mutant.text.split())


def listed(mutant, entries):
    """Return the reason in `mutants.toml` why no test tells this mutant, or None."""
    line, old, new = difference(mutant)
    for entry in entries:
        in_line = any(text in line for text in entry.get("lines", []))
        in_place = in_line or mutant.function in entry.get("functions", [])
        is_change = entry.get("old", old) == old and entry.get("new", new) == new
        if entry["module"] == mutant.module and in_place and is_change:
            return entry["reason"]
    return None


def stale(entries):
    """Yield lines and functions of `mutants.toml` that are no longer in the source."""
    for entry in entries:
        source = source_of(entry["module"])
        text = source.read_text(encoding="utf8") if source.exists() else ""
        for wanted in [*entry.get("lines", []), *(f"def {name}(" for name in entry.get("functions", []))]:
            if wanted not in text:
                yield f"{entry['module']}: {wanted}"


class Plugin:
    """Run the given tests alone, in the given order; record times, lines and the first failure."""

    def __init__(self, chosen=None, recorder=None):
        self.chosen, self.recorder, self.seconds, self.failed = chosen, recorder, defaultdict(float), []

    def pytest_collection_modifyitems(self, items):
        if self.chosen is None:
            cases = defaultdict(list)
            for item in items:
                cases[item.nodeid.partition("[")[0]].append(item)
            items[:] = [item for some in cases.values() for item in some[:: -(-len(some) // CASES)]]
        else:
            order = {name: i for i, name in enumerate(self.chosen)}
            items[:] = sorted((item for item in items if item.nodeid in order), key=lambda item: order[item.nodeid])

    def pytest_runtest_setup(self, item):
        if self.recorder is not None:
            self.recorder.switch_context(item.nodeid)

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] += report.duration
        if report.failed:
            self.failed.append(report.nodeid)


def run_pytest(folder, files, plugin):
    """Run pytest in this process on the package in `folder`; return its exit status."""
    import pytest

    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = str(folder)
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(folder / "hypothesis")
    arguments = [
        "-q",
        "-p",
        "no:cacheprovider",
        "--no-header",
        f"--rootdir={ROOT}",
        f"-c{ROOT / 'pyproject.toml'}",
    ]
    return pytest.main([*arguments, *(["-x"] if plugin.chosen else []), *files], plugins=[plugin])


def in_child(work):
    """Fork and run `work`; return the child's process id."""
    child = os.fork()
    if child:
        return child
    status = 99
    try:
        os.setsid()
        status = work()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(int(status))


def fresh_copy(mutant=None):
    """A temporary folder with the package, and the mutant's change in it."""
    folder = Path(tempfile.mkdtemp(prefix="mutant-"))
    shutil.copytree(CORE.parent, folder / CORE.parent.name)
    if mutant is not None:
        path = source_of(mutant.module, folder / CORE.parent.name / CORE.name)
        source = path.read_bytes()
        path.write_bytes(source[: mutant.start] + mutant.text.encode() + source[mutant.stop :])
    return folder


def record(files):
    """Seconds and executed lines of every test, from one run without a change; kept for the same files."""
    sources = [*sorted(CORE.parent.rglob("*.py")), *files]
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    kept = Path(tempfile.gettempdir()) / f"mutants-{os.getuid()}-{digest}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    folder = fresh_copy()

    def work():
        import coverage

        recorder = coverage.Coverage(data_file=None, config_file=False, include=f"{folder}/*/_core/*")
        recorder.start()
        plugin = Plugin(recorder=recorder)
        status = run_pytest(folder, map(str, files), plugin)
        recorder.stop()
        data, lines = recorder.get_data(), {}
        for path in data.measured_files():
            name = ".".join(Path(path).relative_to(folder / CORE.parent.name / "_core").with_suffix("").parts)
            contexts = data.contexts_by_lineno(path)
            lines[name.removesuffix(".__init__")] = {line: [c for c in tests if c] for line, tests in contexts.items()}
        kept.write_text(json.dumps({"seconds": plugin.seconds, "lines": lines, "failed": plugin.failed}))
        return status

    os.waitpid(in_child(work), 0)
    log = (folder / "log").read_text()
    shutil.rmtree(folder)
    if not kept.exists():
        raise SystemExit(f"the tests do not run without any change:\n{log[-3000:]}")
    return json.loads(kept.read_text())


def tests_for(mutant, known):
    """Tests that execute the changed statement, one case of each function first, fastest first, within the budget."""
    lines = known["lines"].get(mutant.module, {})
    names = {name for line in mutant.statement for name in lines.get(str(line), [])}
    if not names:  # executed on import alone: all tests of the module, those in files that name it first
        names = {name for tests in lines.values() for name in tests}
    is_named = re.compile(rf"\b{mutant.module.rpartition('.')[2]}\b").search
    files = {name.partition("::")[0] for name in names}
    others = {name for name in files if not is_named((ROOT / name).read_text(encoding="utf8"))}
    seen, order = defaultdict(int), []
    for name in sorted(names - set(known["failed"]), key=lambda name: (known["seconds"].get(name, 0.0), name)):
        function = name.partition("[")[0]
        order.append((seen[function], name.partition("::")[0] in others, known["seconds"].get(name, 0.0), name))
        seen[function] += 1
    chosen, total = [], 0.0
    for *_, seconds, name in sorted(order):
        if total + seconds <= BUDGET or not chosen:
            chosen.append(name)
            total += seconds
    return chosen, total


def start(mutant, known):
    """Start the tests of one mutant; return the process, its folder and the time at which it must have ended."""
    chosen, total = tests_for(mutant, known)
    folder = fresh_copy(mutant)

    def work():
        plugin = Plugin(chosen)
        files = sorted({str(ROOT / name.partition("::")[0]) for name in chosen})
        status = run_pytest(folder, files, plugin)
        (folder / "failed").write_text((*plugin.failed, "at collection" if status else "")[0])
        return status

    if not chosen:
        return None, folder, 0.0
    return in_child(work), folder, time.monotonic() + 20 + 4 * total


def run(mutants, known, seconds, jobs):
    """Run mutants until the time is over; yield each with what killed it, or an empty string."""
    waiting, running, begin = list(mutants), {}, time.monotonic()
    while waiting or running:
        while waiting and len(running) < jobs and time.monotonic() - begin < seconds:
            mutant = waiting.pop(0)
            child, folder, deadline = start(mutant, known)
            if child is None:
                shutil.rmtree(folder)
                yield mutant, ""
            else:
                running[child] = mutant, folder, deadline
        if not running and time.monotonic() - begin >= seconds:
            return
        time.sleep(0.02)
        for child, (mutant, folder, deadline) in list(running.items()):
            done, _ = os.waitpid(child, os.WNOHANG)
            late = not done and time.monotonic() > deadline
            if late:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
            if done or late:
                del running[child]
                failed = folder / "failed"
                yield mutant, failed.read_text() if failed.exists() else "late" if late else "crash"
                shutil.rmtree(folder)


def test_files():
    """Return the test files that are run, those of the core first."""
    every = sorted((ROOT / "tests").glob("test_*.py"))
    of_core = [path for path in every if "from sklearn_attnembed._core" in path.read_text(encoding="utf8")]
    return of_core + [path for path in every if path.stem[5:] in TESTS and path not in of_core]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", help="comma-separated names as normalizers.exact, or folders; all by default")
    parser.add_argument("--mutants", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--tests", help="comma-separated names of test files, without test_ and .py")
    options = parser.parse_args()
    entries = tomllib.loads(LISTED.read_text())["equivalent"] if LISTED.exists() else []
    wanted = options.modules.split(",") if options.modules else None
    paths = [
        path
        for path in sorted(CORE.rglob("*.py"))
        if not wanted or any(f"{module_name(path)}.".startswith(f"{name}.") for name in wanted)
    ]
    if old := list(stale(entries)):
        raise SystemExit("in mutants.toml, but not in the source any more:\n" + "\n".join(old))
    every = [mutant for path in paths for mutant in mutants_of(path)]
    drawn = random.Random(options.seed).sample(every, min(options.mutants, len(every)))
    sample = [mutant for mutant in drawn if listed(mutant, entries) is None]
    files = [ROOT / "tests" / f"test_{name}.py" for name in options.tests.split(",")] if options.tests else test_files()
    compileall.compile_dir(CORE.parent, quiet=2)  # so that the copies need not be
    for name in PRELOADED:
        importlib.import_module(name)
    known = record(files)
    if known["failed"]:
        print("these fail without any change, and are left out:", *known["failed"], sep="\n    ")
    counts = defaultdict(lambda: [0, 0])
    for mutant, killer in run(sample, known, options.seconds, options.jobs):
        counts[mutant.module][0] += bool(killer)
        counts[mutant.module][1] += 1
        line, old, new = difference(mutant)
        what = f"killed by {killer.rpartition('/')[2]}" if killer else "SURVIVED"
        print(
            f"{mutant.module}:{mutant.line}: {old} -> {new}  {what}" + ("" if killer else f"\n    {line}"), flush=True
        )
    for module, (killed, tried) in sorted(counts.items()):
        print(f"{module:30} {killed:4} of {tried:4} killed")
    killed, tried = (sum(count[i] for count in counts.values()) for i in (0, 1))
    print(
        f"{killed} of {tried} killed, {killed / max(tried, 1):.1%}; {len(drawn)} drawn of {len(every)} mutants, "
        f"of which {len(drawn) - len(sample)} are listed as equivalent and left out"
    )
    return int(killed < REQUIRED * tried)


if __name__ == "__main__":
    os.environ.setdefault("SCIPY_ARRAY_API", "1")
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(main())
