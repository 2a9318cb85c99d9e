"""Floors of probes: their undisturbed times on a device, kept across sessions on this machine.

A session that begins while something else is busy would take the disturbed times of its probes for undisturbed ones;
what an earlier session has seen tells. Floors expire, because devices change.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from device_agents.api import BenchmarkSpec, DeviceInfo

EXPIRE_AFTER = timedelta(hours=12)
SCHEMA_VERSION = 1
_MAX_BYTES = 4 << 20


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
        self._file = file

    def read(self, key: FloorKey, now: datetime | None = None) -> dict[str, float]:
        """Returns the floors that have not expired, in milliseconds by the probe's name."""
        now = now or datetime.now(timezone.utc)
        kept = self._load().get(str(key), {})
        return {name: floor_ms for name, (floor_ms, measured) in kept.items() if now - measured < EXPIRE_AFTER}

    def keep(self, key: FloorKey, floors_ms: Mapping[str, float], now: datetime | None = None) -> None:
        """Keeps floors in place of those that the file has for these probes; drops what has expired."""
        if self._file is None or not floors_ms:
            return
        now = now or datetime.now(timezone.utc)
        every = self._load()
        every.setdefault(str(key), {}).update({name: (floor_ms, now) for name, floor_ms in floors_ms.items()})
        fresh = {
            text: {name: kept for name, kept in floors.items() if now - kept[1] < EXPIRE_AFTER}
            for text, floors in every.items()
        }
        self._write({text: floors for text, floors in fresh.items() if floors})

    def forget(self, info: DeviceInfo) -> int:
        """Forgets the floors of a device, and returns of how many probes there were some."""
        every = self._load()
        of_device = {text: floors for text, floors in every.items() if json.loads(text)[0] == info.fingerprint}
        if of_device:
            self._write({text: floors for text, floors in every.items() if text not in of_device})
        return sum(map(len, of_device.values()))

    def _load(self) -> dict[str, dict[str, tuple[float, datetime]]]:
        try:
            if self._file is None or self._file.stat().st_size > _MAX_BYTES:
                return {}
            raw = json.loads(self._file.read_text(encoding="utf-8"))
            if raw["schema"] != SCHEMA_VERSION:
                return {}
            return {
                str(text): {str(name): _read_floor(kept) for name, kept in floors.items()}
                for text, floors in raw["floors"].items()
                if isinstance(json.loads(text), list)
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}

    def _write(self, every: Mapping[str, Mapping[str, tuple[float, datetime]]]) -> None:
        assert self._file is not None
        floors = {
            text: {name: [floor_ms, measured.isoformat()] for name, (floor_ms, measured) in kept.items()}
            for text, kept in every.items()
        }
        # Measuring does not depend on it, and another process may write at the same time.
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                "w", encoding="utf-8", dir=self._file.parent, prefix=".floors.", delete=False
            ) as written:
                json.dump({"schema": SCHEMA_VERSION, "floors": floors}, written)
            Path(written.name).replace(self._file)


def _read_floor(kept: Any) -> tuple[float, datetime]:
    floor_ms, measured = kept
    when = datetime.fromisoformat(measured)
    if not 0 < float(floor_ms) < 1e9 or when.tzinfo is None:
        raise ValueError(f"not a floor: {kept!r:.80}")
    return float(floor_ms), when
