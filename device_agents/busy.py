"""Which other programs are busy on this machine, as far as /proc tells (Linux)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from device_agents.worker.system import allowed_cores, busy_s

# What takes less of a core is not worth closing; more names than these nobody reads.
_LEAST_CORES, _MOST_NAMES = 0.1, 4
_IDLE = 0.05
# Whose children the kernel's threads are; in a container another process may have the number.
_KERNEL = (2, "kthreadd")


@dataclass(frozen=True)
class BusyProgram:
    """A program that was busy.

    Attributes:
        name: As the system calls it.
        cores: How many cores it took on average, all its processes together.
    """

    name: str
    cores: float


@dataclass(frozen=True)
class _Process:
    name: str
    parent: int
    used_s: float


class BusyWatch:
    """Watches from when it is made.

    Args:
        root: Where /proc is; tests may supply their own.
        clock: Seconds from any origin; the same.
    """

    def __init__(self, root: Path = Path("/"), clock: Callable[[], float] = time.monotonic) -> None:
        self._root, self._clock = root, clock
        self._before, self._started_s = _processes(root), clock()
        self._used_s = {core: busy_s((core,), root) for core in allowed_cores() or ()}

    def idle_core(self, measured: Collection[int]) -> int | None:
        """Returns the CPU that was idle since then, the idlest if there are several; None if there is none.

        Args:
            measured: CPU ids that are not asked for.
        """
        elapsed_s = max(self._clock() - self._started_s, 1e-9)
        shares = {}
        for core, before_s in self._used_s.items():
            after_s = busy_s((core,), self._root)
            if core not in measured and before_s is not None and after_s is not None:
                shares[core] = (after_s - before_s) / elapsed_s
        idlest = min(shares, key=lambda core: shares[core], default=None)
        return idlest if idlest is not None and shares[idlest] < _IDLE else None

    def programs(self) -> list[BusyProgram]:
        """Returns the programs that were busy since then, the busiest first.

        Without this process and its children, and without the kernel's own threads, which nobody can close.
        """
        elapsed_s = max(self._clock() - self._started_s, 1e-9)
        after = _processes(self._root)
        left_out = [os.getpid(), *(pid for pid, process in after.items() if (pid, process.name) == _KERNEL)]
        cores: dict[str, float] = {}
        for pid, process in after.items():
            earlier = self._before.get(pid)
            used_s = process.used_s - (earlier.used_s if earlier is not None and earlier.name == process.name else 0.0)
            if not any(_is_of(pid, ancestor, after) for ancestor in left_out):
                cores[process.name] = cores.get(process.name, 0.0) + used_s / elapsed_s
        found = [BusyProgram(name, used) for name, used in cores.items() if used >= _LEAST_CORES]
        return sorted(found, key=lambda program: -program.cores)[:_MOST_NAMES]


def _processes(root: Path) -> dict[int, _Process]:
    found = {}
    for file in root.glob("proc/[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):  # it has ended meanwhile
            text = file.read_text(encoding="utf-8", errors="replace")
            name = text[text.index("(") + 1 : text.rindex(")")]
            fields = text[text.rindex(")") + 1 :].split()
            ticks = int(fields[11]) + int(fields[12])
            found[int(file.parent.name)] = _Process(_printable(name), int(fields[1]), ticks / os.sysconf("SC_CLK_TCK"))
    return found


def _printable(name: str) -> str:
    """A process may call itself anything."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def _is_of(pid: int, ancestor: int, processes: dict[int, _Process]) -> bool:
    seen: set[int] = set()
    while pid not in seen and pid in processes:
        if pid == ancestor:
            return True
        seen.add(pid)
        pid = processes[pid].parent
    return False
