"""The command line, a data generator and the imports of the package."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

import sklearn_attnembed
from sklearn_attnembed import AttentionEmbedding, datasets
from sklearn_attnembed.__main__ import main

ROOT = Path(__file__).resolve().parents[1]


def test_demo(capsys, tmp_path):
    main(["demo", "--picture", str(tmp_path / "digits.png")])
    text = capsys.readouterr().out
    raw, ours = (
        float(re.search(rf"{name}\s+([\d.]+) \+-", text)[1]) for name in ("raw pixels, scaled", "AttentionEmbedding")
    )
    assert ours > raw
    assert ours >= 0.984
    assert "converged: True" in text
    assert float(re.search(r"perplexity\s+([\d.]+)", text)[1]) < 1437
    errors = [float(e) for e in re.findall(r"gaussian, \d clusters?\s+(\S+)", text)]
    assert errors[1] < errors[0] < 0.01
    assert (tmp_path / "digits.png").stat().st_size > 10_000


def test_embed(tmp_path, capsys):
    A, _ = datasets.make_block_model(60, 2, random_state=0)
    sp.save_npz(tmp_path / "graph.npz", (A + sp.eye_array(60)).tocsr())
    target = tmp_path / "vectors.npy"
    main(["embed", str(tmp_path / "graph.npz"), str(target), "--affinity", "precomputed", "--n-components", "8"])
    assert np.load(target).shape == (60, 8)
    assert "60 vectors of 8 dimensions" in capsys.readouterr().out
    np.savetxt(tmp_path / "points.csv", np.random.default_rng(0).random((30, 4)), delimiter=",")
    main(["embed", str(tmp_path / "points.csv"), str(tmp_path / "out.csv"), "--n-components", "3"])
    assert np.loadtxt(tmp_path / "out.csv", delimiter=",").shape == (30, 3)


@pytest.mark.parametrize("source", ["missing.npy", "nan.csv"])
def test_embed_says_what_is_wrong_and_writes_nothing(source, tmp_path):
    (tmp_path / "nan.csv").write_text("1,nan\n2,3\n")
    with pytest.raises(SystemExit, match=r"sklearn_attnembed: .*(No such file|NaN)"):
        main(["embed", str(tmp_path / source), str(tmp_path / "out.npy")])
    assert not list(tmp_path.glob("out*"))


def damaged(path):
    """Return files whose content does not match their names."""
    good = np.random.default_rng(0).random((30, 4))
    np.save(path / "good.npy", good)
    whole = (path / "good.npy").read_bytes()
    (path / "cut.npy").write_bytes(whole[:200])
    (path / "short.npy").write_bytes(whole[:20])
    for name in ("empty.npy", "empty.npz", "empty.csv", "empty.txt"):
        (path / name).write_bytes(b"")
    (path / "words.csv").write_text("a,b\nc,d\n")
    np.save(path / "fields.npy", np.zeros(5, [("x", float), ("y", int)]))
    np.save(path / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    np.save(path / "complex.npy", good + 1j)
    np.save(path / "line.npy", good[0])
    np.savez(path / "other.npz", good=good)
    graph = sp.csr_array(good)
    sp.save_npz(path / "graph.npz", graph)
    (path / "cut.npz").write_bytes((path / "graph.npz").read_bytes()[:300])
    graph.indices[3] = 10**6
    sp.save_npz(path / "range.npz", graph)


DAMAGED = ["cut.npy", "short.npy", "empty.npy", "empty.npz", "empty.csv", "empty.txt", "words.csv", "fields.npy"]
DAMAGED += ["objects.npy", "complex.npy", "line.npy", "other.npz", "cut.npz", "range.npz"]


@pytest.mark.parametrize("source", DAMAGED)
def test_embed_names_a_damaged_file(source, tmp_path):
    damaged(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["embed", str(tmp_path / source), str(tmp_path / "out.npy")])
    assert str(caught.value).startswith("sklearn_attnembed: ")
    assert source in str(caught.value)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("target", ["nowhere/out.npy", "folder"])
def test_embed_tries_the_target_before_it_fits(target, tmp_path, monkeypatch):
    damaged(tmp_path)
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(AttentionEmbedding, "fit_transform", lambda *args: pytest.fail("fitted"))
    with pytest.raises(SystemExit, match=r"sklearn_attnembed: .*(No such file|is a folder)"):
        main(["embed", str(tmp_path / "good.npy"), str(tmp_path / target)])


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt(), 130), (MemoryError("8 GB"), "sklearn_attnembed: not enough memory. 8 GB"),
     (OSError("disk full"), "sklearn_attnembed: disk full")],
    ids=["interrupt", "memory", "disk"],
)  # fmt: skip
@pytest.mark.parametrize("place", ["fit_transform", "save"])
def test_embed_leaves_nothing_half_written(place, error, code, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise error

    damaged(tmp_path)
    monkeypatch.setattr(*((AttentionEmbedding, place) if place == "fit_transform" else (np, place)), fail)
    with pytest.raises(SystemExit) as caught:
        main(["embed", str(tmp_path / "good.npy"), str(tmp_path / "out.npy"), "--n-components", "2"])
    assert caught.value.code == code
    assert not list(tmp_path.glob("out*"))


def test_block_model():
    A, y = datasets.make_block_model(2000, 4, mean_degree=8, mixing=0.1, random_state=0)
    assert (A != A.T).nnz == 0
    assert A.diagonal().sum() == 0
    assert set(A.data) == {1.0}
    assert 7 < A.sum() / 2000 <= 8
    rows, columns = A.nonzero()
    assert abs(np.mean(y[rows] == y[columns]) - (0.9 + 0.1 / 4)) < 0.02
    assert np.bincount(y).tolist() == [500] * 4
    same, _ = datasets.make_block_model(2000, 4, mean_degree=8, mixing=0.1, random_state=0)
    assert (same != A).nnz == 0
    spread = [np.std(datasets.make_block_model(2000, degree_spread=s, random_state=0)[0].sum(axis=1)) for s in (0, 1)]
    assert spread[1] > 2 * spread[0]


def test_import_brings_no_extra():
    """Matplotlib, pandas and PyTorch are imported where they are used."""
    code = "import sys, sklearn_attnembed; print(*({'matplotlib', 'torch', 'dask', 'gensim'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""


def test_core_does_not_know_scikit_learn():
    core = ROOT / "sklearn_attnembed" / "_core"
    paths = list(core.rglob("*.py"))
    assert len(paths) > 20
    for path in paths:
        above = r"\." * (len(path.relative_to(core).parts) + 1)  # what lies outside the core
        assert not re.search(rf"^\s*(from|import) (sklearn\b|{above})", path.read_text(), re.MULTILINE), path


def test_version():
    assert importlib.metadata.version("sklearn-attnembed") == sklearn_attnembed.__version__
    assert f"## {sklearn_attnembed.__version__}" in (ROOT / "CHANGES.md").read_text()
    assert f"version: {sklearn_attnembed.__version__}" in (ROOT / "CITATION.cff").read_text()
