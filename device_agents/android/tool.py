"""Installs `benchmark_model` on a phone: finds it on this machine, pushes it once, checks that it runs there."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from device_agents.android.keys import config_folder
from device_agents.android.transport import Transport
from device_agents.errors import DeviceUnavailableError

BASE = "/data/local/tmp/nas_edge"
ENVIRONMENT = "NAS_EDGE_BENCHMARK_MODEL"
# Where TensorFlow's own instructions put it.
_USUAL_PLACE = "/data/local/tmp/benchmark_model"
_START_TIMEOUT_S = 20.0
_HOW_TO_GET = (
    "TFLite's benchmark_model is needed for the phone (ABI {abi}). Get the native benchmark binary that TensorFlow's "
    "page on performance measurement offers for Android, or build it, and name the file in the environment variable "
    f"{ENVIRONMENT}"
)


@dataclass(frozen=True)
class InstalledTool:
    """The tool on a phone.

    Attributes:
        path: Where it is there.
        sha256: Of the file; numbers of two builds are not comparable.
        flags: Names of the flags it knows, without dashes; () if it does not list them.
    """

    path: str
    sha256: str
    flags: tuple[str, ...]

    @property
    def version(self) -> str:
        """What tells this build from others; it prints no version of its own."""
        return f"sha256:{self.sha256[:16]}"


def find_tool(abi: str) -> Path | None:
    """Returns the tool on this machine: named by $NAS_EDGE_BENCHMARK_MODEL, else kept in the settings folder."""
    named = os.environ.get(ENVIRONMENT)
    if named:
        return Path(named).expanduser()
    kept = config_folder() / f"benchmark_model-{abi}"
    return kept if kept.is_file() else None


def install_tool(transport: Transport, abi: str, file: Path | None = None) -> InstalledTool:
    """Returns the tool on the phone, pushing it unless this very build is there.

    Args:
        transport: The phone.
        abi: Its instruction set, for messages and for choosing a file.
        file: The tool on this machine; None for whatever `find_tool` finds, else one that is on the phone.

    Raises:
        DeviceUnavailableError: If there is no tool or it does not run there.
    """
    file = file or find_tool(abi)
    if file is None:
        return _already_there(transport, abi)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DeviceUnavailableError(
            f"benchmark_model cannot be read: {error}. {_HOW_TO_GET.format(abi=abi)}"
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    path = f"{BASE}/tools/{digest[:16]}/benchmark_model"
    found = transport.stat(path)
    if found is None or found.size_bytes != len(data) or _hash_of(transport, path) != digest:
        transport.push(data, path, mode=0o755)
    return InstalledTool(path, digest, _check(transport, path, abi))


def _already_there(transport: Transport, abi: str) -> InstalledTool:
    if transport.stat(_USUAL_PLACE) is None:
        raise DeviceUnavailableError(_HOW_TO_GET.format(abi=abi or "unknown"))
    digest = _hash_of(transport, _USUAL_PLACE)
    return InstalledTool(_USUAL_PLACE, digest, _check(transport, _USUAL_PLACE, abi))


def _hash_of(transport: Transport, path: str) -> str:
    return transport.script('sha256sum < "$1"', path).output.partition(" ")[0].strip()


def _check(transport: Transport, path: str, abi: str) -> tuple[str, ...]:
    """Runs its --help, which ends with status 0 or 1, and returns the flags it lists."""
    done = transport.run([path, "--help"], timeout_s=_START_TIMEOUT_S)
    lines = [line.strip() for line in (done.output + done.errors).splitlines()]
    flags = tuple(sorted({line[2:].partition("=")[0] for line in lines if line.startswith("--")}))
    if done.exit_code not in (0, 1) or "graph" not in flags:
        raise DeviceUnavailableError(
            f"{path} on {transport.address} is no benchmark_model for this phone (status {done.exit_code}: "
            f"{done.last_line}). {_HOW_TO_GET.format(abi=abi or 'unknown')}"
        )
    return flags
