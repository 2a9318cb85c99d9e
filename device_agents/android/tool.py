"""Installs `benchmark_model` on a phone: finds it on this machine, pushes it once, checks that it runs there.

`keep` leaves a copy per instruction set in the settings folder, with a record of what it is; `nas-edge devices setup`
does that once it has seen the tool work.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from device_agents.android.claim import BASE, computer_tag
from device_agents.android.keys import config_folder
from device_agents.android.transport import PART, Transport
from device_agents.errors import DeviceUnavailableError
from device_agents.files import write_atomically
from device_agents.wording import words_of

TOOLS = f"{BASE}/tools"
ENVIRONMENT = "NAS_EDGE_BENCHMARK_MODEL"
# Where TensorFlow's own instructions put it.
_USUAL_PLACE = "/data/local/tmp/benchmark_model"
_START_TIMEOUT_S = 20.0
_RECORD_SCHEMA_VERSION = 1
_HOW_TO_GET = (
    "TensorFlow's page on performance measurement offers it for Android as a native binary (for arm64-v8a "
    "android_aarch64_benchmark_model), or build it; then {name_it}"
)
# Android's name of an instruction set, and the class and machine an ELF file has for it (elf.h).
_ELF = {
    "arm64-v8a": (2, 183),
    "armeabi-v7a": (1, 40),
    "armeabi": (1, 40),
    "x86_64": (2, 62),
    "x86": (1, 3),
    "riscv64": (2, 243),
}
_ELF_TYPES = (2, 3)  # an executable, or one that can be loaded anywhere


class NoToolError(DeviceUnavailableError):
    """What was taken for the tool does not run on the phone as such."""


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


@dataclass(frozen=True)
class ToolRecord:
    """What is known of a kept tool.

    Attributes:
        abi: The instruction set it is for.
        sha256: Of the file.
        size_bytes: Its length.
        source: The file or URL it came from.
        checked_on: The phone it was seen working on.
        kept_utc: When, ISO 8601.
        schema: Of this record.
    """

    abi: str
    sha256: str
    size_bytes: int
    source: str
    checked_on: str
    kept_utc: str
    schema: int = _RECORD_SCHEMA_VERSION


def run_folders() -> str:
    """Returns how the folders on a phone begin that are this computer's: removed when it connects, if not before."""
    return f"{BASE}/run-{computer_tag()}-"


def find_tool(abi: str) -> Path | None:
    """Returns the tool on this machine: named by $NAS_EDGE_BENCHMARK_MODEL, else kept in the settings folder."""
    named = os.environ.get(ENVIRONMENT)
    if named:
        return Path(named).expanduser()
    return kept_file(abi) if _is_abi(abi) and kept_file(abi).is_file() else None


def kept_file(abi: str) -> Path:
    """Returns where the tool for an instruction set is kept; it need not exist."""
    return config_folder() / f"benchmark_model-{abi}"


def keep(data: bytes, abi: str, source: str, checked_on: str) -> Path:
    """Keeps a tool for later runs on phones of this instruction set.

    Raises:
        DeviceUnavailableError: If it cannot be written.
    """
    if not _is_abi(abi):
        raise DeviceUnavailableError("The phone does not tell its instruction set", received=f"{abi!r:.40}")
    file, now = kept_file(abi), datetime.now(timezone.utc).isoformat(timespec="seconds")
    record = ToolRecord(abi, hashlib.sha256(data).hexdigest(), len(data), source, checked_on, now)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The record first: a tool is never found without it.
        write_atomically(_record_file(file), json.dumps(asdict(record), indent=1).encode())
        write_atomically(file, data)
    except OSError as error:
        raise DeviceUnavailableError(
            f"The tool cannot be kept: {words_of(error)}",
            fix=f"make {file.parent} writable, or set XDG_CONFIG_HOME",
        ) from error
    return file


def install_tool(transport: Transport, abi: str, file: Path | None = None) -> InstalledTool:
    """Returns the tool on the phone, pushing it unless this very build is there.

    Args:
        transport: The phone.
        abi: Its instruction set, for messages and for choosing a file.
        file: The tool on this machine; None for whatever `find_tool` finds, else one that is on the phone.

    Raises:
        DeviceUnavailableError: If there is no tool or it does not run there.
    """
    remove_parts(transport, TOOLS)
    file = file or find_tool(abi)
    if file is None:
        return _already_there(transport, abi)
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DeviceUnavailableError(
            f"the benchmark_model {file} cannot be read: {words_of(error)}", fix=how_to_get(abi, transport.address)
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    _check_record(file, digest, transport.address)
    path = f"{TOOLS}/{digest[:16]}/benchmark_model"
    found = transport.stat(path)
    if found is None or found.size_bytes != len(data) or _hash_of(transport, path) != digest:
        transport.push(data, path, mode=0o755)
    try:
        return InstalledTool(path, digest, _check(transport, path, abi))
    except NoToolError:
        transport.run(["rm", "-rf", f"{TOOLS}/{digest[:16]}"])
        raise


def remove_parts(transport: Transport, folder: str) -> None:
    """Removes what pushes of this computer have left half-written in the folders below a folder."""
    transport.script('rm -f "$1"/*/*"$2"*', folder, f"{PART}{computer_tag()}-")


def is_on_phone(transport: Transport) -> bool:
    """Returns whether there is a tool that was not put there by this program."""
    return transport.stat(_USUAL_PLACE) is not None


def no_tool(abi: str, address: str) -> DeviceUnavailableError:
    """Returns the error of a phone for which there is no tool."""
    return DeviceUnavailableError(
        f"TFLite's benchmark_model is needed for the phone (ABI {abi or 'unknown'})", fix=how_to_get(abi, address)
    )


def how_to_get(abi: str, address: str) -> str:
    """Returns where the tool for the instruction set of a phone comes from, and how to name it."""
    return _HOW_TO_GET.format(name_it=_name_it(address))


def another_build(address: str) -> str:
    """Returns how to measure with another build of the tool."""
    return f"use another build: {_name_it(address)}"


def _name_it(address: str) -> str:
    """Returns how to say which tool to use: one that is named in the environment is preferred to all that is set up."""
    set_up = f"nas-edge devices setup {address} --benchmark-model FILE"
    return f"name it in {ENVIRONMENT}; or unset that and: {set_up}" if os.environ.get(ENVIRONMENT) else set_up


def elf_problem(data: bytes, abi: str) -> str:
    """Returns why a file cannot be a program for an instruction set, "" if nothing speaks against it."""
    if len(data) < 20 or data[:4] != b"\x7fELF":
        return "it is not a program: expected an ELF file"
    kind, machine = struct.unpack_from("<HH", data, 16)
    if kind not in _ELF_TYPES:
        return "it is not a program but another kind of ELF file"
    expected = _ELF.get(abi)
    if expected and (data[4], machine) != expected:
        others = [name for name, elf in _ELF.items() if elf == (data[4], machine)]
        return f"it is for {others[0] if others else f'machine {machine}'}, the phone is {abi}"
    return ""


def _is_abi(abi: str) -> bool:
    return bool(re.fullmatch(r"\w[\w.-]{0,31}", abi))  # a phone's word becomes a file's name


def _record_file(file: Path) -> Path:
    return file.with_name(file.name + ".json")


def _check_record(file: Path, digest: str, address: str) -> None:
    try:
        recorded = json.loads(_record_file(file).read_text(encoding="utf-8"))["sha256"]
    except FileNotFoundError:
        return  # named by the user, or put there by hand
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeviceUnavailableError(
            f"{_record_file(file)} is damaged: {words_of(error)}", fix=f"install it again: {_name_it(address)}"
        ) from error
    if recorded != digest:
        raise DeviceUnavailableError(
            f"{file} is not what was set up",
            expected=f"SHA-256 {recorded:.16}...",
            received=f"{digest[:16]}...",
            fix=f"install it again: {_name_it(address)}",
        )


def _already_there(transport: Transport, abi: str) -> InstalledTool:
    if not is_on_phone(transport):
        raise no_tool(abi, transport.address)
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
        raise NoToolError(
            f"{path} on {transport.address} is not a benchmark_model for this phone (status {done.exit_code}: "
            f"{done.last_line})",
            fix=how_to_get(abi, transport.address),
        )
    return flags
