"""Work on threads: how many of them, and those of BLAS and OpenMP kept to one meanwhile."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from multiprocessing import current_process
from threading import RLock, current_thread, get_ident, main_thread
from typing import Any

import numpy as np
from joblib.parallel import get_active_backend
from threadpoolctl import ThreadpoolController

# Elements of one block of embedding rows: about 1 MB in float32.
_BLOCK_ELEMENTS = 2**18


def row_blocks(sizes: Sequence[int], width: int) -> list[slice]:
    """Cut groups of rows, lying one after the other, into blocks of next to equal size that straddle no group."""
    most = int(np.clip(_BLOCK_ELEMENTS // max(int(width), 1), 64, 8192))
    blocks, start = [], 0
    for size in sizes:
        cuts = start + np.linspace(0, size, -(-size // most) + 1).astype(int) if size else [start]
        blocks += [slice(int(a), int(b)) for a, b in pairwise(cuts)]
        start += size
    return blocks


Runner = Callable[[Callable[[int], Any], Iterable[int]], Iterator[Any]]


# Held by whoever reads or writes these two, and whoever forks.
_lock = RLock()


# The threads inside `_one_thread_each`, once for each time that they entered it.
_inside: list[int] = []


# The libraries that these keep to one thread, by file, and how many threads they had before.
_limited: dict[str, tuple[Any, int]] = {}


@contextmanager
def block_runner(n_jobs: int | None) -> Iterator[Runner]:
    """Run a function over block numbers on threads, results in order; BLAS keeps to one thread inside.

    One thread for each block, whatever `n_jobs`: so the number of threads cannot change a bit of the result.
    """
    n = n_threads(n_jobs)
    with _one_thread_each(), ThreadPoolExecutor(n, initializer=_limit_own) as pool:
        yield map if n == 1 else pool.map  # joblib's own threads wait in steps of 10 ms for each other


def n_threads(n_jobs: int | None) -> int:
    """Threads that `n_jobs` stands for; inside a worker of joblib no more than its share of the cores.

    That is what joblib has left to OpenMP in a process of its own, and one where workers are threads or daemons: there
    nothing says how many others there are.
    """
    if n_jobs == 0:
        raise ValueError("n_jobs must be a number of threads, or negative to count from all cores down; got 0. Pass 1.")
    backend, default = get_active_backend()
    if current_process().daemon or (backend.nesting_level and current_thread() is not main_thread()):
        return 1
    wanted = backend.effective_n_jobs(default if n_jobs is None else n_jobs)
    share = [lib.num_threads for lib in _libraries()[1]] if backend.nesting_level else []
    return int(min([wanted, *share]))


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Keep the threads of BLAS and OpenMP to one, in as many threads at once as there are; all is as before after.

    Where the number is the calling thread's own, as of OpenMP, each sets and restores it. Where it is the process's, as
    of OpenBLAS, the first to come sets it and the last to leave restores it, whoever that is. Libraries loaded
    meanwhile are limited from the next call on.
    """
    shared, own = _libraries()
    before = [(lib, lib.num_threads) for lib in own]
    try:
        with _lock:
            _inside.append(get_ident())
            for lib in shared:
                _limited.setdefault(lib.filepath, (lib, lib.num_threads))
                _set_shared(lib, 1)
        _limit_own()
        yield
    finally:
        for lib, number in before:
            lib.set_num_threads(number)
        with _lock:
            _inside.remove(get_ident())
            _restore_after_the_last()


def _limit_own() -> None:
    """Limit, for the calling thread, what is limited thread by thread."""
    for lib in _libraries()[1]:
        lib.set_num_threads(1)


def _restore_after_the_last() -> None:
    """Give libraries the threads back that they had, unless somebody else has changed their number since."""
    while _limited and not _inside:
        lib, number = _limited.popitem()[1]
        if lib.num_threads == 1:
            _set_shared(lib, number)


def _set_shared(lib: Any, number: int) -> None:
    """Set a number of threads of the process; threadpoolctl ignores all threads but the first that ever did."""
    release = getattr(lib, "clear_controlling_thread", lambda force: None)
    release(force=True)
    lib.set_num_threads(number)
    release(force=True)


def _libraries() -> tuple[list[Any], list[Any]]:
    """Libraries whose number of threads is the process's, and those where it is the calling thread's own."""
    return _libraries_of(len(sys.modules))


@lru_cache(maxsize=1)
def _libraries_of(n_modules: int) -> tuple[list[Any], list[Any]]:
    """The same, looked up anew where modules have been imported since, for that takes milliseconds."""
    shared: list[Any] = []
    own: list[Any] = []
    for lib in ThreadpoolController().lib_controllers:
        is_new = hasattr(lib, "clear_controlling_thread")  # threadpoolctl that limits such an OpenBLAS by thread
        is_own = (
            lib.user_api == "openmp"
            or (is_new and lib.threading_layer == "openmp")
            or "MKL_Set_Num_Threads_Local" in lib.check_symbols
        )
        (own if is_own else shared).append(lib)
    return shared, own


def _forget_other_threads() -> None:
    """In a process just forked, where one thread alone is left."""
    _inside[:] = [thread for thread in _inside if thread == get_ident()]
    _restore_after_the_last()
    _lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_forget_other_threads)
