"""The lock of a device, its scripts run by this machine's shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from device_agents.device_lock import NOT_OURS, RENEW, STALE_S, DeviceLock
from device_agents.errors import DeviceUnavailableError

HOLDS = """
import sys, time
sys.path.insert(0, sys.argv[2])
from device_agents.device_lock import DeviceLock
from tests.device_agents.test_device_lock import shell
DeviceLock(sys.argv[1], "the board").acquire(shell)
print("held", flush=True)
time.sleep(60)
"""
ANOTHER = {"user": "eve", "host": "lab2", "computer": "f00", "pid": 7, "started": "1", "since_utc": "2026-01-01T00:00"}


def shell(text: str, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(["sh", "-c", text, "sh", *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep/lock"


def lock(folder: Path) -> DeviceLock:
    return DeviceLock(str(folder), "the board")


def put(folder: Path, record: str, age_s: float = 0.0) -> Path:
    """A lock that somebody else has."""
    folder.mkdir(parents=True)
    file = folder / "owner-abc"
    file.write_text(record)
    os.utime(file, (time.time() - age_s, time.time() - age_s))
    return file


def test_one_has_it_until_it_is_released(folder: Path) -> None:
    one, other = lock(folder), lock(folder)
    one.acquire(shell)
    one.acquire(shell)  # still ours
    with pytest.raises(DeviceUnavailableError) as refused:
        other.acquire(shell)
    said = str(refused.value)
    assert said.startswith("the board is being measured by ")
    assert f", process {os.getpid()} since 20" in said
    assert "\n" not in said
    one.release(shell)
    assert list(folder.parent.iterdir()) == []
    other.acquire(shell)
    other.release(shell)


def test_of_many_at_once_exactly_one_gets_it(folder: Path) -> None:
    for _ in range(5):
        locks = [lock(folder) for _ in range(8)]
        taken: list[DeviceLock] = []
        together = threading.Barrier(len(locks))

        def take(one: DeviceLock, taken: list[DeviceLock] = taken, together: threading.Barrier = together) -> None:
            together.wait()
            try:
                one.acquire(shell)
            except DeviceUnavailableError:
                return
            taken.append(one)

        threads = [threading.Thread(target=take, args=(one,)) for one in locks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # Where all came at the same moment, they may all have stepped back.
        assert len(taken) <= 1
        for one in taken:
            one.release(shell)


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_a_killed_owner_of_this_computer_loses_it_at_once(folder: Path) -> None:
    root = str(Path(__file__).parents[2])
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(folder), root], stdout=subprocess.PIPE, text=True) as held:
        assert held.stdout is not None
        assert held.stdout.readline() == "held\n"
        with pytest.raises(DeviceUnavailableError, match=f"process {held.pid} since"):
            lock(folder).acquire(shell)
        held.kill()
    mine = lock(folder)
    mine.acquire(shell)
    assert [str(file) for file in folder.iterdir()] == [mine.file]


@pytest.mark.parametrize("record", [json.dumps(ANOTHER), "", "nonsense", json.dumps({**ANOTHER, "pid": "7; reboot"})])
def test_another_computers_lock_is_broken_only_after_its_silence(folder: Path, record: str) -> None:
    file = put(folder, record)
    with pytest.raises(DeviceUnavailableError, match="eve@lab2, process 7" if 'pid": 7' in record else "another"):
        lock(folder).acquire(shell)
    os.utime(file, (time.time() - STALE_S - 5,) * 2)
    mine = lock(folder)
    mine.acquire(shell)
    assert not file.exists()
    mine.release(shell)


def test_a_lock_that_was_left_half_made_is_in_nobodys_way(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder.parent / "lock.0123").write_text("half")
    mine = lock(folder)
    mine.acquire(shell)
    assert list(folder.parent.iterdir()) == [folder]


def test_a_command_shows_a_sign_of_life_or_finds_the_lock_gone(folder: Path) -> None:
    mine = lock(folder)
    mine.acquire(shell)
    os.utime(mine.file, (0, 0))
    renewing = f"lock=$1\n{RENEW}\n:"
    assert shell(renewing, mine.file)[0] == 0
    assert time.time() - Path(mine.file).stat().st_mtime < STALE_S / 2
    mine.release(shell)
    assert shell(renewing, mine.file)[0] == NOT_OURS


def test_where_it_cannot_be_written_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceUnavailableError, match="cannot be written on the board"):
        lock(tmp_path / "file/lock").acquire(shell)
