"""Blocks of rows, and threads to run them on while BLAS and OpenMP are limited to one thread each."""

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
    """Cut consecutive groups of rows into blocks of nearly equal size, none of which has rows of two groups."""
    most = int(np.clip(_BLOCK_ELEMENTS // max(int(width), 1), 64, 8192))
    blocks, start = [], 0
    for size in sizes:
        cuts = start + np.linspace(0, size, -(-size // most) + 1).astype(int) if size else [start]
        blocks += [slice(int(a), int(b)) for a, b in pairwise(cuts)]
        start += size
    return blocks


Runner = Callable[[Callable[[int], Any], Iterable[int]], Iterator[Any]]


# Held while these two are read or written, and during a fork.
_lock = RLock()


# Threads inside `_one_thread_each`, once for each time that they have entered it.
_inside: list[int] = []


# Libraries that they limit to one thread, by file, and their limits before.
_limited: dict[str, tuple[Any, int]] = {}


@contextmanager
def block_runner(n_jobs: int | None) -> Iterator[Runner]:
    """Run a function over block numbers on threads, with results in order and BLAS limited to one thread.

    Each block is computed by one thread, whatever `n_jobs` is, so that the number of threads changes no bit.
    """
    n = n_threads(n_jobs)
    with _one_thread_each(), ThreadPoolExecutor(n, initializer=_limit_own) as pool:
        yield map if n == 1 else pool.map  # joblib's own threads wait for each other in steps of 10 ms


def n_threads(n_jobs: int | None) -> int:
    """Return the number of threads that `n_jobs` asks for; inside a worker of joblib at most its share of the cores.

    In a process of its own that share is what joblib has left to OpenMP. It is one where workers are threads or
    daemons, because the number of other workers is not known there.
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
    """Limit BLAS and OpenMP to one thread, in any number of threads at once, and restore the limits afterwards.

    Where the limit belongs to the calling thread, as with OpenMP, each thread sets and restores it. Where it belongs to
    the process, as with OpenBLAS, the first thread that enters sets it and the last one that leaves restores it.
    Libraries that are loaded in the meantime are limited from the next call on.
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
    """Set the limits that belong to the calling thread."""
    for lib in _libraries()[1]:
        lib.set_num_threads(1)


def _restore_after_the_last() -> None:
    """Restore the limits of libraries that nothing else has changed since."""
    while _limited and not _inside:
        lib, number = _limited.popitem()[1]
        if lib.num_threads == 1:
            _set_shared(lib, number)


def _set_shared(lib: Any, number: int) -> None:
    """Set a limit of the process. Without a release threadpoolctl ignores all threads but the first that set one."""
    release = getattr(lib, "clear_controlling_thread", lambda force: None)
    release(force=True)
    lib.set_num_threads(number)
    release(force=True)


def _libraries() -> tuple[list[Any], list[Any]]:
    """Return the libraries whose limit belongs to the process, and those where it belongs to the calling thread."""
    return _libraries_of(len(sys.modules))


@lru_cache(maxsize=1)
def _libraries_of(n_modules: int) -> tuple[list[Any], list[Any]]:
    """Return the same from a cache that is renewed when modules have been imported; a search takes milliseconds."""
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
    """Forget the threads that a fork has not copied."""
    _inside[:] = [thread for thread in _inside if thread == get_ident()]
    _restore_after_the_last()
    _lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_forget_other_threads)
