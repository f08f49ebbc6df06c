"""Lines that `verbose` prints, with loss, displacement and remaining time."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from sklearn_attnembed import AttentionEmbedding, AttentionWordVectors, _progress
from sklearn_attnembed._progress import Progress

LINE = re.compile(
    r"\[(\w+)\] iteration +(\d+) of at most (\d+)  loss (-?\d+\.\d{6})  displacement (\d\.\d\de[+-]\d\d)  "
    r"(about|at most) (\d+\.\d s|\d+ min \d+ s|\d+ h \d+ min) left"
)


@pytest.fixture
def clock(monkeypatch):
    """Return a clock that the test sets."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(_progress, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def lines_of(clock, displacements, max_iter=100, tol=1e-2, pace=2.0):
    """Return the lines of a fit whose iterations take `pace` seconds."""
    progress = Progress("Model", max_iter, tol)
    lines = []
    for iteration, displacement in enumerate(displacements):
        clock.now += pace
        lines.append(LINE.fullmatch(progress.line(iteration, 5.25, displacement)).groups())
    return lines


def left(line):
    """Return the kind of bound and the seconds."""
    units = {"s": 1, "min": 60, "h": 3600}
    return line[5], sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+) (\w+)", line[6]))


# Lines of fits ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"tol": 0, "max_iter": 7},
        {"solver": "gradient", "max_iter": 12},
        {"kernel": "expressive", "temperature": 1, "max_iter": 15, "tol": 0},
        {"normalizer": "neighbors"},
        {"walk_length": 2},
    ],
    ids=str,
)
def test_a_line_for_each_iteration(params, graph, capsys):
    model = AttentionEmbedding(8, affinity="precomputed", random_state=0, verbose=1, **params).fit(graph[0])
    lines = [LINE.fullmatch(line).groups() for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == model.n_iter_
    assert {line[0] for line in lines} == {"AttentionEmbedding"}
    assert [int(line[1]) for line in lines] == list(range(1, model.n_iter_ + 1))
    assert {int(line[2]) for line in lines} == {model.max_iter}
    assert [float(line[3]) for line in lines] == [round(loss, 6) for loss in model.loss_curve_]
    if len(lines) == model.max_iter:
        assert left(lines[-1])[1] == 0


def test_the_last_displacement_is_below_tol(graph, capsys):
    AttentionEmbedding(8, affinity="precomputed", random_state=0, verbose=1, tol=0.05).fit(graph[0])
    line = LINE.fullmatch(capsys.readouterr().out.splitlines()[-1]).groups()
    assert float(line[4]) <= 0.05
    assert left(line) == ("about", 0)


def test_words_are_told_of(capsys):
    texts = ["tea cup pot"] * 5 + ["sea ship port"] * 5
    AttentionWordVectors(2, min_count=1, max_iter=3, tol=0, random_state=0, verbose=1).fit(texts)
    assert len([line for line in capsys.readouterr().out.splitlines() if LINE.fullmatch(line)]) == 3


def test_silent_unless_asked(graph, capsys):
    AttentionEmbedding(4, affinity="precomputed", random_state=0).fit(graph[0])
    assert capsys.readouterr().out == ""


# Time left --------------------------------------------------------------------------------------------------
def test_displacements_that_fall_geometrically_are_foreseen(clock):
    displacements = 0.5 ** np.arange(8)  # 1/128 at last, the first below 1e-2
    lines = lines_of(clock, displacements)
    assert left(lines[0]) == ("at most", 99 * 2), "one says nothing of the next"
    exact = np.log(displacements[1:] / 1e-2) / np.log(2) * 2
    for line, expected in zip(lines[1:], np.maximum(exact, 0), strict=True):
        assert left(line) == ("about", pytest.approx(expected, abs=0.051))
    assert left(lines[-1]) == ("about", 0)


def test_no_more_iterations_than_there_are(clock):
    lines = lines_of(clock, 0.99 ** np.arange(20), max_iter=20)
    assert [left(line) for line in lines] == [("at most", 2 * n) for n in range(19, -1, -1)]


def test_displacements_that_grow_say_nothing(clock):
    lines = lines_of(clock, [0.5, 0.6, 0.5], max_iter=10)
    assert [left(line) for line in lines] == [("at most", 18), ("at most", 16), ("at most", 14)]


def test_all_iterations_are_run_without_tol(clock):
    lines = lines_of(clock, 0.5 ** np.arange(5), max_iter=10, tol=0)
    assert [left(line) for line in lines] == [("about", 2 * n) for n in range(9, 4, -1)]


def test_all_iterations_are_run_without_tol_though_nothing_moves(clock):
    assert left(lines_of(clock, [0.5, 0.0], max_iter=10, tol=0)[-1]) == ("about", 16)


def test_displacement_below_tol_is_the_end(clock):
    assert left(lines_of(clock, [1e-3])[0]) == ("about", 0)
    assert left(lines_of(clock, [1e-2])[0]) == ("about", 0)


def test_pace_is_the_mean_so_far(clock):
    progress = Progress("Model", 10, 0)
    for iteration, seconds in enumerate([1, 3, 8]):
        clock.now += seconds
        line = progress.line(iteration, 0.0, 0.5)
    assert line.endswith("about 28.0 s left")  # 12 s for three, seven are left


def test_numbers_stand_below_each_other(clock):
    progress = Progress("Model", 100, 1e-2)
    lines = [progress.line(iteration, 4.0, 0.5) for iteration in (0, 10, 99)]
    assert len({line.index("of at most") for line in lines}) == 1
    assert lines[0].startswith("[Model] iteration   1 of at most 100  loss 4.000000  displacement 5.00e-01  ")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.04, "0.0 s"),
        (12.34, "12.3 s"),
        (59.9, "59.9 s"),
        (60, "1 min 0 s"),
        (119.6, "2 min 0 s"),
        (3599, "59 min 59 s"),
        (3599.7, "1 h 0 min"),
        (3660, "1 h 1 min"),
        (100_000, "27 h 46 min"),
    ],
)
def test_durations(seconds, text):
    assert _progress._duration(seconds) == text
