"""The script of mutation testing: what it changes, and the list of changes that no test can notice."""

import importlib.util
import sys
import tomllib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / ".ci"
SOURCE = '''"""Text 1 + 1."""

import numpy as np

SIZE = 3


def mean(x: tuple[int, 2], weights: float = 0.5) -> "1 + 1":
    """Text 2 + 2."""
    # Text 3 + 3.
    if x is None and not weights:
        raise ValueError("4" + "4")
    total = x.sum(axis=0)
    total += 1
    return -total if weights <= 0 else f"{total + 5}"
'''
CHANGES = {
    ("3", "(4)"),
    ("3", "(0)"),
    ("3", "(2)"),
    ("0.5", "(1.5)"),
    ("x is None and not weights", "(x is None or not weights)"),
    ("x is None and not weights", "(not (x is None and (not weights)))"),
    ("x is None", "(x is not None)"),
    ("not weights", "(weights)"),
    ("x.sum", "(x.mean)"),
    ("0", "(1)"),
    ("total += 1", "total -= 1"),
    ("total += 1", "pass"),
    ("1", "(0)"),
    ('-total if weights <= 0 else f"{total + 5}"', "(f'{total + 5}' if weights <= 0 else -total)"),
    ("-total", "(total)"),
    ("weights <= 0", "(weights < 0)"),
    ("weights <= 0", "(weights > 0)"),
}


@pytest.fixture
def mutate(monkeypatch):
    """Return the script as a module."""
    spec = importlib.util.spec_from_file_location("mutate", FOLDER / "mutate.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "mutate", module)
    spec.loader.exec_module(module)
    return module


def test_expressions_are_changed_and_nothing_else(mutate, tmp_path, monkeypatch):
    """Neither docstrings, comments, annotations, imports, errors nor texts are."""
    monkeypatch.setattr(mutate, "CORE", tmp_path)
    path = tmp_path / "example.py"
    path.write_text(SOURCE)
    mutants = mutate.mutants_of(path)
    assert {(SOURCE[mutant.start : mutant.stop], mutant.text) for mutant in mutants} == CHANGES
    assert {mutant.function for mutant in mutants} == {"", "mean"}
    for mutant in mutants:
        compile(SOURCE[: mutant.start] + mutant.text + SOURCE[mutant.stop :], "example.py", "exec")


def test_listed_mutants_are_in_the_source(mutate):
    entries = tomllib.loads((FOLDER / "mutants.toml").read_text())["equivalent"]
    assert not list(mutate.stale(entries))
    assert all(entry["reason"].endswith(".") for entry in entries)
