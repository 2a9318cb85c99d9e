"""Floors of probes: their undisturbed times on a device, kept across sessions on this machine.

A session that begins while something else is busy would take the disturbed times of its probes for undisturbed ones;
what an earlier session has seen tells. Floors expire, because devices change.

The file is replaced as a whole, so it is never seen half written; processes that write at the same time wait for each
other, so that what one of them has learnt is not lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from device_agents.api import BenchmarkSpec, DeviceInfo
from device_agents.files import write_atomically

EXPIRE_AFTER = timedelta(hours=12)
SCHEMA_VERSION = 1
_MAX_BYTES = 4 << 20
_LOCK_TRIES, _LOCK_PAUSE_S = 200, 0.01

_Floors = dict[str, dict[str, tuple[float, datetime]]]


@dataclass(frozen=True)
class FloorKey:
    """What has to be the same for times to be comparable."""

    device: str
    runtime: str
    threads: int
    delegate: str
    cores: tuple[int, ...] | None

    @classmethod
    def of(cls, info: DeviceInfo, spec: BenchmarkSpec) -> FloorKey:
        """Returns the key of a device and settings."""
        runtime = f"{info.runtime} {info.runtime_version}"
        return cls(info.fingerprint, runtime, spec.threads, spec.delegate, spec.cores)

    def __str__(self) -> str:
        return json.dumps([self.device, self.runtime, self.threads, self.delegate, self.cores])


@dataclass(frozen=True)
class KeptFloor:
    """A floor as it is kept.

    Attributes:
        probe: Name of the probe.
        floor_ms: Its undisturbed time in milliseconds.
        measured: When that was measured.
        threads: What it was measured with, see `FloorKey`.
        cores: The same.
    """

    probe: str
    floor_ms: float
    measured: datetime
    threads: int
    cores: tuple[int, ...] | None


def default_floors() -> Path:
    """Returns the file that floors are kept in, below XDG_STATE_HOME."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "nas_edge" / "floors.json"


class FloorStore:
    """Floors in a JSON file; one that cannot be read or written is as good as none.

    Args:
        file: Where they are; None keeps none.
    """

    def __init__(self, file: Path | None) -> None:
        self.file = file

    def read(self, key: FloorKey, now: datetime | None = None) -> dict[str, float]:
        """Returns the floors that have not expired, in milliseconds by the probe's name."""
        now = now or datetime.now(timezone.utc)
        kept = self._load().get(str(key), {})
        return {name: floor_ms for name, (floor_ms, measured) in kept.items() if _is_fresh(measured, now)}

    def kept(self, info: DeviceInfo, now: datetime | None = None) -> list[KeptFloor]:
        """Returns the floors of a device that have not expired, with whatever settings they were measured."""
        now = now or datetime.now(timezone.utc)
        found = []
        for text, floors in self._load().items():
            device, _, threads, _, cores = json.loads(text)
            if device == info.fingerprint:
                pinned = None if cores is None else tuple(cores)
                found += [KeptFloor(name, *floor, threads, pinned) for name, floor in floors.items()]
        return [floor for floor in found if _is_fresh(floor.measured, now)]

    def keep(self, key: FloorKey, floors_ms: Mapping[str, float], now: datetime | None = None) -> None:
        """Keeps floors in place of those that the file has for these probes; drops what has expired."""
        if self.file is None or not floors_ms:
            return
        now = now or datetime.now(timezone.utc)
        with self._alone():
            every = self._load()
            every.setdefault(str(key), {}).update({name: (floor_ms, now) for name, floor_ms in floors_ms.items()})
            fresh = {
                text: {name: kept for name, kept in floors.items() if _is_fresh(kept[1], now)}
                for text, floors in every.items()
            }
            self._write({text: floors for text, floors in fresh.items() if floors})

    def forget(self, info: DeviceInfo) -> int:
        """Forgets the floors of a device, and returns how many there were."""
        if self.file is None or not self.file.exists():
            return 0
        with self._alone():
            every = self._load()
            of_device = {text: floors for text, floors in every.items() if json.loads(text)[0] == info.fingerprint}
            if of_device:
                self._write({text: floors for text, floors in every.items() if text not in of_device})
                # It may not be writable; what is still there has not been forgotten.
                of_device = {text: floors for text, floors in of_device.items() if text not in self._load()}
        return sum(map(len, of_device.values()))

    def _load(self) -> _Floors:
        try:
            if self.file is None or self.file.stat().st_size > _MAX_BYTES:
                return {}
            raw = json.loads(self.file.read_text(encoding="utf-8"))
            if raw["schema"] != SCHEMA_VERSION:
                return {}
            return {
                _read_key(text): {str(name): _read_floor(kept) for name, kept in floors.items()}
                for text, floors in raw["floors"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            return {}

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Makes other processes that write wait; where the system has no such locks, the last one wins."""
        with contextlib.ExitStack() as held:
            # Measuring does not depend on it: where there is no lock to be had, it is written without.
            with contextlib.suppress(ImportError, OSError):
                import fcntl

                assert self.file is not None
                self.file.parent.mkdir(parents=True, exist_ok=True)
                lock = held.enter_context((self.file.parent / f".{self.file.name}.lock").open("ab"))
                for _ in range(_LOCK_TRIES):
                    try:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        time.sleep(_LOCK_PAUSE_S)  # writing takes milliseconds, unless that process was stopped
                    else:
                        break
            yield

    def _write(self, every: _Floors) -> None:
        assert self.file is not None
        floors = {
            text: {name: [floor_ms, measured.isoformat()] for name, (floor_ms, measured) in kept.items()}
            for text, kept in every.items()
        }
        text = json.dumps({"schema": SCHEMA_VERSION, "floors": floors}, allow_nan=False)
        with contextlib.suppress(OSError):  # measuring does not depend on it
            write_atomically(self.file, text.encode())


def forget_floors(info: DeviceInfo, store: FloorStore | None = None) -> list[str]:
    """Forgets what is kept of a device on this machine, and returns lines that say so, for `Scheme.clean`.

    Args:
        info: The device.
        store: Where it is kept; None for where it is by default.
    """
    store = store or FloorStore(default_floors())
    count = store.forget(info)
    return [f"{count} undisturbed times of the probes, kept in {store.file}"] if count else []


def _is_fresh(measured: datetime, now: datetime) -> bool:
    """Whether a floor counts; one of the future was kept under a clock that has been wrong since or was wrong then."""
    return abs(now - measured) < EXPIRE_AFTER


def _read_key(text: str) -> str:
    device, runtime, threads, delegate, cores = json.loads(text)
    if not all(isinstance(one, str) for one in (device, runtime, delegate)) or not isinstance(threads, int):
        raise ValueError(f"not a device and settings: {text!r:.80}")
    if cores is not None and not all(isinstance(core, int) for core in cores):
        raise ValueError(f"not CPU ids: {cores!r:.80}")
    return text


def _read_floor(kept: Any) -> tuple[float, datetime]:
    floor_ms, measured = kept
    when = datetime.fromisoformat(measured)
    if not 0 < float(floor_ms) < 1e9 or when.tzinfo is None:
        raise ValueError(f"not a floor: {kept!r:.80}")
    return float(floor_ms), when
