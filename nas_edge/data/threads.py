"""Work for several threads, its results in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

# More than one thread for a processor, since they wait for files and for each other; but what of decoding is Python
# runs in one of them at a time.
_FOR_A_PROCESSOR, _MOST = 2, 16

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


def usable_threads(wanted: int | None = None) -> int:
    """How many threads read and decode.

    Args:
        wanted: a setting; None for two per processor that this process may use, up to 16.
    """
    return min(_MOST, _FOR_A_PROCESSOR * usable_processors()) if wanted is None else wanted


def usable_processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(work: Callable[[_Task], _Result], tasks: Iterable[_Task], threads: int) -> Iterator[_Result]:
    """Yields `work(task)` of every task, in order; of tasks ahead, only a few are begun.

    Args:
        work: is called from several threads at once.
        tasks: for it.
        threads: 0 and 1 for none beside the caller's.
    """
    if threads < 2:
        yield from map(work, tasks)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="nas-edge-data") as pool:
        begun: deque[Future[_Result]] = deque()
        try:
            for task in tasks:
                begun.append(pool.submit(work, task))
                if len(begun) >= 2 * threads:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()
