"""Fits side by side: in threads and processes the bits of a lone fit, thread pools left as they were, no more threads
than cores."""

import hashlib
import multiprocessing
import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.model_selection import GridSearchCV
from threadpoolctl import threadpool_info, threadpool_limits

from sklearn_attnembed import AttentionEmbedding, AttentionWordVectors, ExpressiveKernel, NormalizerEstimator
from sklearn_attnembed._core import parallel
from sklearn_attnembed.datasets import make_block_model

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(0)
POINTS = RNG.standard_normal((700, 6))
GRAPH = make_block_model(900, 4, mean_degree=12, random_state=0)[0].tocsr()
GRAPH += sp.eye_array(900, format="csr")
TEXTS = [f"{a} {b} and {c}" for a in ("cats", "dogs", "cows") for b in ("run", "eat") for c in ("sleep", "play")] * 20


def embedding(affinity="precomputed", n_jobs=2, **params):
    return AttentionEmbedding(32, affinity=affinity, random_state=0, max_iter=15, n_jobs=n_jobs, **params)


def normalizer(method, **params):
    return NormalizerEstimator(method=method, n_samples=50, n_clusters=3, random_state=0, n_jobs=2, **params)


# Name: an estimator and what it is fitted to and asked.
CASES = {
    "points": (embedding("nearest_neighbors"), POINTS),
    "gaussian": (embedding(), GRAPH),
    "clusters": (embedding(n_clusters=3, walk_length=3), GRAPH),
    "neighbors": (embedding(normalizer="neighbors", n_exact=8), GRAPH),
    "exact": (embedding(normalizer="exact"), GRAPH),
    "gradient": (embedding(solver="gradient"), GRAPH),
    "expressive": (embedding(kernel="expressive", temperature=1), GRAPH),
    "bipartite": (embedding("bipartite"), abs(POINTS)),
    **{
        f"log Z {method}": (normalizer(method), POINTS)
        for method in ("gaussian", "control_variate", "sampling", "random_fourier", "auto")
    },
    "landmarks": (ExpressiveKernel(n_components=20, random_state=0), POINTS),
    "sketch": (ExpressiveKernel(method="sketch", n_components=20, random_state=0), POINTS),
    "words": (AttentionWordVectors(8, min_count=1, random_state=0, n_jobs=2), TEXTS),
}


def pools():
    """Threads of each library, as the calling thread sees them."""
    return {each["filepath"]: each["num_threads"] for each in threadpool_info()}


def bits(model, X):
    """What a fitted model gives, to the bit."""
    parts = [model.transform(X), getattr(model, "loss_curve_", [])]
    if hasattr(model, "score_samples"):
        parts += model.score_samples(X, return_std=True)
    return hashlib.sha256(b"".join(np.asarray(part).tobytes() for part in parts)).hexdigest()


def fitted(name):
    model, X = CASES[name]
    return bits(pickle.loads(pickle.dumps(model)).fit(X), X)


def fitted_beside(name):
    """The bits of a fit, and whether it has left thread pools as they were."""
    before = pools()
    return fitted(name), before == pools()


@pytest.fixture(scope="module")
def lone():
    """The bits of every case, fitted in the main thread, one after the other."""
    return {name: fitted(name) for name in CASES}


@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_fits_in_workers_have_the_bits_of_a_lone_fit(backend, lone):
    before = pools()
    with joblib.parallel_config(backend=backend):
        results = joblib.Parallel(2)(joblib.delayed(fitted_beside)(name) for name in CASES)
    assert [name for name, (result, _) in zip(CASES, results, strict=True) if result != lone[name]] == []
    if backend != "threading":  # where workers are threads another fit may be under way
        assert [name for name, (_, are_as_before) in zip(CASES, results, strict=True) if not are_as_before] == []
    assert pools() == before


def test_fits_in_threads_have_the_bits_of_a_lone_fit(lone):
    before = pools()
    with ThreadPoolExecutor(4) as executor:
        results = dict(zip([*CASES] * 2, executor.map(fitted, [*CASES] * 2), strict=False))
        own = list(executor.map(lambda _: pools(), range(8)))
    assert [name for name in CASES if results[name] != lone[name]] == []
    assert pools() == before
    assert all(each == before for each in own)


def test_one_model_answers_many_threads(lone):
    for name, (model, X) in CASES.items():
        fitted_model = pickle.loads(pickle.dumps(model)).fit(X)
        with ThreadPoolExecutor(4) as executor:
            answers = list(executor.map(bits, [fitted_model] * 4, [X] * 4))
        assert answers == [lone[name]] * 4, name


# pools of threads -----------------------------------------------------------------------------------
class Steps:
    """Threads that take turns: each says what it has done, and waits for what others do."""

    def __init__(self):
        self.events = {}

    def __call__(self, name, *, wait):
        event = self.events.setdefault(name, threading.Event())
        assert event.wait(60) if wait else event.set() is None, name


def overlap(body, first=parallel.block_runner, second=parallel.block_runner):
    """Two threads enter and leave one after the other: first in, second in, first out, second out."""
    step, seen = Steps(), []

    def one():
        with first(2):
            step("first in", wait=False)
            step("second in", wait=True)
        step("first out", wait=False)

    def two():
        step("first in", wait=True)
        with second(2):
            step("second in", wait=False)
            step("first out", wait=True)
            seen.append(body())

    with ThreadPoolExecutor(2) as executor:
        for future in [executor.submit(one), executor.submit(two)]:
            future.result()
    return seen[0]


def test_overlapping_fits_leave_pools_as_they_were():
    before = pools()
    with threadpool_limits(3):
        assert set(overlap(pools).values()) == {1}
        assert set(pools().values()) == {3}
    assert pools() == before
    assert (parallel._inside, parallel._limited) == ([], {})


def test_workers_are_limited_too():
    with parallel.block_runner(2) as run:
        assert all(set(each.values()) == {1} for each in [pools(), *run(lambda _: pools(), range(4))])


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_pools_as_they_were(error):
    def fail(_):
        raise error

    before = pools()
    for body in (lambda run: list(run(fail, range(4))), fail):
        with pytest.raises(error), parallel.block_runner(2) as run:
            body(run)
    assert pools() == before


def test_what_others_set_meanwhile_stays():
    with threadpool_limits(4):
        with parallel.block_runner(1):
            threadpool_limits(3, user_api="blas")
        assert {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"} == {3}


class Library:
    """A library of the given kind, as threadpoolctl shows it; its number of threads the thread's own or not."""

    check_symbols = ()

    def __init__(self, is_own, **kind):
        self.state = threading.local() if is_own else SimpleNamespace()
        self.user_api, self.filepath = "blas", str(kind)
        self.__dict__.update(kind)

    @property
    def num_threads(self):
        return getattr(self.state, "number", 8)

    def set_num_threads(self, number):
        self.state.number = number


LIBRARIES = {
    "OpenMP": Library(True, user_api="openmp"),
    "OpenBLAS": Library(False, threading_layer="pthreads", clear_controlling_thread=lambda force: None),
    "OpenBLAS of OpenMP": Library(True, threading_layer="openmp", clear_controlling_thread=lambda force: None),
    "OpenBLAS of OpenMP, threadpoolctl before 3.8": Library(False, threading_layer="openmp"),
    "MKL": Library(True, check_symbols=("MKL_Set_Num_Threads_Local",)),
    "MKL, threadpoolctl before 3.8": Library(False, check_symbols=("MKL_Set_Num_Threads",)),
}


@pytest.mark.parametrize("name", LIBRARIES)
def test_any_library_is_limited_and_restored(name, monkeypatch):
    library = LIBRARIES[name]
    controller = SimpleNamespace(lib_controllers=[library])
    monkeypatch.setattr(parallel, "ThreadpoolController", lambda: controller)
    parallel._libraries_of.cache_clear()
    try:
        numbers = []
        with ThreadPoolExecutor(1) as executor:
            assert overlap(lambda: library.num_threads) == 1
            executor.submit(lambda: None).result()
            with parallel.block_runner(2) as run:
                numbers += [library.num_threads, *run(lambda _: library.num_threads, range(2))]
            numbers.append(executor.submit(lambda: library.num_threads).result())
        assert [*numbers, library.num_threads] == [1, 1, 1, 8, 8]
    finally:
        parallel._libraries_of.cache_clear()


def test_libraries_loaded_later_are_limited_too(monkeypatch):
    late = Library(False)
    with parallel.block_runner(1):
        pass
    real = parallel.ThreadpoolController
    monkeypatch.setattr(
        parallel, "ThreadpoolController", lambda: SimpleNamespace(lib_controllers=[*real().lib_controllers, late])
    )
    monkeypatch.setitem(parallel.sys.modules, "imported_meanwhile", parallel)
    with parallel.block_runner(1):
        assert late.num_threads == 1
    assert late.num_threads == 8
    parallel._libraries_of.cache_clear()


# forks ----------------------------------------------------------------------------------------------
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")


def in_child(body):
    """What `body` gives in a process forked by the calling thread."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=lambda: sender.send(body()))
    process.start()
    assert receiver.poll(60), "the child died, or hangs"
    result = receiver.recv()
    process.join()
    return result


@needs_fork
def test_a_child_forked_beside_a_fit_is_not_limited():
    step, before = Steps(), pools()

    def elsewhere():
        with parallel.block_runner(2):
            step("inside", wait=False)
            step("forked", wait=True)

    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(elsewhere)
        step("inside", wait=True)
        try:
            assert in_child(lambda: (pools(), fitted("gaussian"), pools())) == (before, fitted("gaussian"), before)
        finally:
            step("forked", wait=False)
        future.result()
    assert pools() == before


@needs_fork
def test_a_child_forked_inside_a_fit_is_limited_until_it_leaves():
    before = pools()
    inside, after = [], []

    def body():
        inside.append(pools())
        runner.__exit__(None, None, None)
        after.append(pools())
        return set(inside[0].values()), after[0]

    runner = parallel.block_runner(1)
    with runner:
        assert in_child(body) == ({1}, before)
        assert set(pools().values()) == {1}
    assert pools() == before


@needs_fork
def test_many_forks_beside_fits():
    """No fork finds a lock held for ever."""
    stop = threading.Event()

    def enter_and_leave():
        while not stop.is_set():
            with parallel.block_runner(1):
                pass

    before = pools()
    with ThreadPoolExecutor(2) as executor:
        futures = [executor.submit(enter_and_leave) for _ in range(2)]
        try:
            assert [in_child(lambda: (enter_once(), pools())[1]) for _ in range(10)] == [before] * 10
        finally:
            stop.set()
        for future in futures:
            future.result()
    assert pools() == before


def enter_once():
    with parallel.block_runner(1):
        pass


# nested parallelism ---------------------------------------------------------------------------------
SEEN = set()


def noted(scores):
    """The softmax kernel, which notes the threads that it is called in."""
    SEEN.add(threading.get_ident())
    time.sleep(0.001)
    return np.exp(scores)


def n_seen(model, X):
    """Threads that the kernel was called in to estimate, which more than one could have shared."""
    SEEN.clear()
    model.score_samples(X)
    return len(SEEN)


def n_used(n_jobs):
    """Threads that blocks are run in, the calling one among them."""
    idents = set()

    def one(_):
        idents.add(threading.get_ident())
        time.sleep(0.002)

    with parallel.block_runner(n_jobs) as run:
        list(run(one, range(40)))
    return len(idents)


def search(n_jobs):
    """Ask GridSearchCV's workers how many threads their fits use."""
    model = NormalizerEstimator(noted, method="sampling", n_samples=64, random_state=0)
    grid = {"n_jobs": [n_jobs], "temperature": [1.0, 2.0]}
    return GridSearchCV(model, grid, cv=2, n_jobs=2, scoring=n_seen, refit=False).fit(MANY).cv_results_


MANY = RNG.standard_normal((12_000, 8))
SHARE = {"loky": max(joblib.cpu_count() // 2, 1), "multiprocessing": 1, "threading": 1}


@pytest.mark.parametrize("n_jobs", [2, -1])
@pytest.mark.parametrize("backend", SHARE)
def test_workers_of_joblib_use_no_more_than_their_share_of_the_cores(backend, n_jobs):
    with joblib.parallel_config(backend=backend):
        used = joblib.Parallel(2)(joblib.delayed(n_used)(n_jobs) for _ in range(4))
    assert max(used) <= SHARE[backend]


@pytest.mark.parametrize("n_jobs", [2, -1])
def test_grid_search_uses_no_more_threads_than_cores(n_jobs):
    results = search(n_jobs)
    assert max(results["split0_test_score"]) <= SHARE["loky"]


def test_the_share_of_a_worker_can_be_set():
    with joblib.parallel_config(backend="loky", inner_max_num_threads=3):
        used = joblib.Parallel(2)(joblib.delayed(parallel.n_threads)(n_jobs) for n_jobs in (None, 1, 2, 4, -1))
    assert used[:4] == [1, 1, 2, 3]


def test_threads_outside_of_workers():
    assert [parallel.n_threads(n_jobs) for n_jobs in (None, 1, 3)] == [1, 1, 3]
    assert parallel.n_threads(-1) == joblib.cpu_count()
    with joblib.parallel_config(n_jobs=3):
        assert parallel.n_threads(None) == 3
    assert joblib.Parallel(1)([joblib.delayed(parallel.n_threads)(3)]) == [3]


@needs_fork
def test_a_worker_that_may_have_no_children_fits_on_one_thread_without_a_warning():
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(parallel.n_threads, (2,)) == 1
        assert pool.apply(fitted, ("gaussian",)) == fitted("gaussian")
