"""Which programs are busy: those of a made-up /proc, and one that was started for it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from device_agents.busy import BusyProgram, BusyWatch
from device_agents.worker.system import allowed_cores

TICKS = os.sysconf("SC_CLK_TCK")


def put(root: Path, pid: int, name: str, parent: int, used_s: float) -> None:
    file = root / "proc" / str(pid) / "stat"
    file.parent.mkdir(parents=True, exist_ok=True)
    user, system = int(used_s * TICKS) - 1, 1
    file.write_text(f"{pid} ({name}) S {parent} 1 1 0 -1 0 0 0 0 0 {user} {system} 0 0 20 0 1 0 5 0 0\n")


def watched(root: Path, during: dict[int, tuple[str, int, float]]) -> list[BusyProgram]:
    """Programs that were busy in ten seconds, after which processes are as given."""
    times_s = iter((100.0, 110.0))
    watch = BusyWatch(root, lambda: next(times_s))
    for pid, (name, parent, used_s) in during.items():
        put(root, pid, name, parent, used_s)
    return watch.programs()


def test_the_busiest_come_first_and_the_idle_not_at_all(tmp_path: Path) -> None:
    for pid, name in ((10, "idle"), (11, "browser"), (12, "browser"), (13, "miner")):
        put(tmp_path, pid, name, 1, 50.0)
    after = {10: ("idle", 1, 50.5), 11: ("browser", 1, 53.0), 12: ("browser", 1, 51.0), 13: ("miner", 1, 59.0)}
    found = watched(tmp_path, {**after, 14: ("started meanwhile", 1, 2.0)})
    assert [program.name for program in found] == ["miner", "browser", "started meanwhile"]
    assert [program.cores for program in found] == pytest.approx([0.9, 0.4, 0.2])


def test_neither_this_process_nor_what_it_started_is_named(tmp_path: Path) -> None:
    own = os.getpid()
    put(tmp_path, own, "python", 1, 1.0)
    after = {own: ("python", 1, 9.0), own + 1: ("worker", own, 9.0), own + 2: ("its child", own + 1, 9.0)}
    assert watched(tmp_path, after) == []


@pytest.mark.parametrize(("second", "expected"), [("kthreadd", ["miner"]), ("sh", ["kworker", "miner"])])
def test_threads_of_the_kernel_are_not_named(tmp_path: Path, second: str, expected: list[str]) -> None:
    after = {2: (second, 0, 0.0), 10: ("kworker", 2, 9.0), 11: ("miner", 1, 8.0)}
    assert [program.name for program in watched(tmp_path, after)] == expected


def test_a_process_that_got_the_number_of_another_is_not_confused_with_it(tmp_path: Path) -> None:
    put(tmp_path, 10, "old", 1, 500.0)
    assert watched(tmp_path, {10: ("new", 1, 5.0)}) == [BusyProgram("new", 0.5)]


def test_strange_names_and_files_do_no_harm(tmp_path: Path) -> None:
    put(tmp_path, 10, "a) S 1 (b\x1b[2J", 1, 0.1)
    for pid, text in ((11, ""), (12, "12 no brackets"), (13, "13 (short) S 1"), (14, "14 (words) S 1" + " x" * 40)):
        file = tmp_path / "proc" / str(pid) / "stat"
        file.parent.mkdir()
        file.write_text(text)
    (tmp_path / "proc" / "15").mkdir()
    (program,) = watched(tmp_path, {10: ("a) S 1 (b\x1b[2J", 1, 8.1)})
    assert program.name == "a) S 1 (b?[2J"


def test_processes_that_are_their_own_ancestors_are_followed_once(tmp_path: Path) -> None:
    put(tmp_path, 10, "egg", 11, 0.1)
    put(tmp_path, 11, "hen", 10, 0.1)
    assert [program.name for program in watched(tmp_path, {10: ("egg", 11, 9.0)})] == ["egg"]


@pytest.mark.skipif(allowed_cores() is None, reason="needs a system that pins programs to CPUs")
def test_the_idlest_cpu_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device_agents.busy.allowed_cores", lambda: (0, 1, 2, 3))
    stat = tmp_path / "proc" / "stat"
    stat.parent.mkdir()

    def used(*seconds: float) -> None:
        rows = [f"cpu{core} {int(one * TICKS)} 0 0 9 0 0 0 0 0 0" for core, one in enumerate(seconds)]
        stat.write_text("\n".join(["cpu 1 2 3 4 5 6 7 8 9 10", *rows]))

    used(50, 50, 50, 50)
    now_s = 100.0
    watch = BusyWatch(tmp_path, lambda: now_s)
    now_s = 110.0
    used(59, 50.3, 50.1, 50)
    assert watch.idle_core([3]) == 2
    assert watch.idle_core([2, 3]) == 1
    assert watch.idle_core([1, 2, 3]) is None
    stat.unlink()
    assert watch.idle_core([]) is None


def test_a_system_without_proc_names_nothing(tmp_path: Path) -> None:
    assert BusyWatch(tmp_path).programs() == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
def test_a_program_that_computes_is_found() -> None:
    """It is started by a shell that ends at once, so that it is nobody's child here."""
    code = "import os, time; print(os.getpid(), flush=True)\nwhile os.times().user < 60: pass"
    script = f'"{sys.executable}" -c "$0" & '
    with subprocess.Popen(["sh", "-c", script, code], stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        pid = int(shell.stdout.readline())
        try:
            shell.wait()
            watch = BusyWatch()
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            until_s = time.monotonic() + 60
            while name not in (names := [program.name for program in watch.programs()]):
                assert time.monotonic() < until_s, names
                time.sleep(0.2)
        finally:
            os.kill(pid, 9)
