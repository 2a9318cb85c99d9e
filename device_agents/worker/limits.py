"""Limits the worker puts on itself around a candidate: memory, cores, core dumps."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .system import memory_bytes

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_C_LIBRARY = ctypes.CDLL(None) if sys.platform == "linux" else None


@contextmanager
def limited_memory(limit_bytes: int) -> Iterator[None]:
    """Lets the process allocate at most so many bytes more inside the block.

    RLIMIT_DATA counts private writable memory, so a mapped model file or the runtime's
    code do not eat up the allowance as they would with RLIMIT_AS. Thread stacks count.
    """
    used = memory_bytes("VmData")
    if resource is None or used is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = used + limit_bytes
    for present in (soft, hard):
        limit = limit if present == resource.RLIM_INFINITY else min(limit, present)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@contextmanager
def pinned(cores: tuple[int, ...] | None) -> Iterator[None]:
    """Runs the block, and threads started in it, on these cores only.

    Raises:
        OSError: If none of the cores exists or may be used.
        NotImplementedError: If the system cannot pin.
    """
    if cores is None:
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        raise NotImplementedError("this system cannot pin a process to cores")
    before = os.sched_getaffinity(0)
    missing = sorted(set(cores) - before)
    if missing:
        raise OSError(f"cores {missing} cannot be used; available are {sorted(before)}")
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def return_free_memory() -> None:
    """Gives what earlier candidates left in the allocator back to the system.

    Otherwise the next one would fill those pages again and seem to need no memory.
    """
    trim = getattr(_C_LIBRARY, "malloc_trim", None)
    if trim is not None:
        trim(0)


def no_core_dumps() -> None:
    """Keeps a crashing candidate from writing gigabytes to disk."""
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
