"""`nas-edge doctor`: what this machine lacks for searching, how quiet it is, and the fix.

Each check is a function that looks at one thing and changes nothing, but that the undisturbed times it finds are kept
for the sessions that follow. TensorFlow is imported in a child process: it may
crash on a processor it was not built for, and takes seconds, in which other checks are made.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet

from device_agents.api import PRESETS, Measurement
from device_agents.checks import Check
from device_agents.devices import list_devices
from device_agents.doctor import check_noise
from device_agents.errors import DeviceError
from device_agents.host import HostAgent, pick_cores
from device_agents.noise import WATCH_S
from device_agents.probe_models import compute_model
from device_agents.schemes import loaded_schemes
from device_agents.wording import what_happened
from nas_edge.formatting import command, ms_text, reason

_PACKAGE = "nas-edge"
_GIB = 2**30
_TENSORFLOW_TIMEOUT_S = 120.0
# The demo takes 1.3 GiB of memory and 40 MiB of disk; images of your own and larger supernets take more.
_MEMORY_NEEDED, _MEMORY_EASY = 1.5 * _GIB, 4 * _GIB
_DISK_NEEDED, _DISK_EASY = 0.2 * _GIB, 2 * _GIB
# A processor of a busy or hot machine changes its clock in the middle of a measurement.
_HIGHEST_LOAD = 0.5  # per core
_HIGHEST_TEMPERATURE_C = 85.0


def examine(folder: Path, root: Path = Path("/"), watch_s: float = WATCH_S) -> list[Check]:
    """Looks at everything.

    Args:
        folder: where runs are to be kept.
        root: where /proc and /sys are; tests may supply their own.
        watch_s: how long to watch at most how quiet this machine is, in seconds; 0 for not at all.
    """
    measurement = _measure_anchor()  # before anything else makes this machine busy
    noise = [] if watch_s <= 0 else _found("noise", lambda: check_noise(HostAgent(), watch_s, root))
    with ThreadPoolExecutor() as meanwhile:
        tensorflow = meanwhile.submit(check_tensorflow)
        looks: dict[str, Callable[[], Check | Sequence[Check]]] = {
            "python": check_python,
            "packages": check_packages,
            "tflite runtime": lambda: check_runtime(measurement),
            "cpu": lambda: check_cpu(measurement, root),
            "noise": lambda: noise,
            "memory": lambda: check_memory(root),
            "disk": lambda: check_disk(folder),
            "devices": check_devices,
            "ways to devices": check_ways,
            "edgetpu_compiler": check_edgetpu_compiler,
            "tensorflow": tensorflow.result,
        }
        return [check for name, look in looks.items() for check in _found(name, look)]


def _found(name: str, look: Callable[[], Check | Sequence[Check]]) -> list[Check]:
    """What a look at something found; a doctor must not die of it."""
    try:
        found = look()
    except Exception as error:
        return [Check(name, "fail", reason(error), "install what is missing, or report this")]
    return [found] if isinstance(found, Check) else list(found)


# ---------------------------------------------------------------- what is installed


def check_python() -> Check:
    """Whether this Python is one the package is made for."""
    found = platform.python_version()
    try:
        expected = metadata.metadata(_PACKAGE)["Requires-Python"] or ""
    except metadata.PackageNotFoundError:
        found += f"; {_PACKAGE} is not installed, so what it needs is not known"
        return Check("python", "warn", found, "pip install -e . in its folder")
    if SpecifierSet(expected).contains(found, prereleases=True):
        return Check("python", "pass", found)
    return Check("python", "fail", f"{found}; requires {expected}", "make a virtual environment with such a Python")


def check_packages(requirements: list[str] | None = None) -> list[Check]:
    """Whether the required packages are there in the required versions.

    Args:
        requirements: as in setup.cfg; None for those of the installed package.
    """
    if requirements is None:
        with suppress(metadata.PackageNotFoundError):
            requirements = metadata.requires(_PACKAGE)
    checks, good = [], 0
    for requirement in map(_requirement, requirements or ()):
        if requirement is None or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        fix = f'pip install "{requirement.name}{requirement.specifier}"'
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            checks.append(Check(requirement.name, "fail", "not installed", fix))
            continue
        if requirement.specifier.contains(version, prereleases=True):
            good += 1
        else:
            checks.append(Check(requirement.name, "fail", f"{version}; requires {requirement.specifier}", fix))
    return [Check("packages", "pass", f"{good} as required"), *checks]


def _requirement(text: str) -> Requirement | None:
    try:
        return Requirement(text)
    except InvalidRequirement:  # of another package manager's making
        return None


def check_tensorflow() -> Check:
    """Whether TensorFlow can be imported."""
    code = "import tensorflow as tf; print(tf.__version__, len(tf.config.list_physical_devices('GPU')))"
    started_s = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            timeout=_TENSORFLOW_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Check("tensorflow", "fail", f"not imported within {_TENSORFLOW_TIMEOUT_S:.0f} s", "try again")
    return tensorflow_result(done.returncode, done.stdout, done.stderr, time.monotonic() - started_s)


def tensorflow_result(return_code: int, out: str, log: str, took_s: float) -> Check:
    """What the end of the child process means."""
    if return_code == -signal.SIGILL:
        found = "crashes: it uses instructions (AVX) that this processor does not have"
        return Check("tensorflow", "fail", found, "use a processor with AVX, or a TensorFlow built for this one")
    lines = out.split()
    if return_code != 0 or len(lines) != 2:
        last = (log.strip().splitlines() or [f"exit code {return_code}"])[-1]
        return Check(
            "tensorflow", "fail", f"cannot be imported: {last:.200}", "pip install --force-reinstall tensorflow"
        )
    version, gpus = lines
    return Check("tensorflow", "pass", f"{version}, imported in {took_s:.1f} s; GPUs: {gpus}")


# ---------------------------------------------------------------- this machine as a bench


def _measure_anchor() -> Measurement | Exception:
    """Measures a small model as a search does, in a worker process."""
    try:
        with HostAgent() as agent:
            spec = PRESETS["search"].replace(max_attempts=1, cores=pick_cores(1))
            return agent.measure(compute_model(), spec)
    except Exception as error:  # whatever it is, it is what the check found
        return error


def check_runtime(measurement: Measurement | Exception) -> Check:
    """Whether the TFLite runtime loads and runs a model, and how steadily."""
    name, reinstall = "tflite runtime", "pip install --force-reinstall ai-edge-litert"
    if isinstance(measurement, Exception):
        return Check(name, "fail", str(measurement), reinstall)
    statistics, conditions = measurement.statistics, measurement.conditions
    if statistics is None or conditions is None:
        return Check(name, "fail", f"{measurement.verdict}: {measurement.detail}", reinstall)
    found = (
        f"{conditions.runtime} {conditions.runtime_version} runs a small model in {ms_text(statistics.median_ms)} ms"
    )
    if conditions.delegate_kernels == 0:
        return Check(name, "warn", f"{found}, without XNNPACK, which phones have", reinstall)
    if not measurement.ok:
        doubt = f"{found}, but {measurement.verdict}: {measurement.detail}"
        return Check(name, "warn", doubt, "close other programs; on a laptop, plug in the charger")
    return Check(name, "pass", f"{found}, with XNNPACK" if conditions.delegate_kernels else found)


def check_cpu(measurement: Measurement | Exception, root: Path = Path("/")) -> list[Check]:
    """What makes times of this machine scatter: clocks that change, heat, other programs."""
    conditions = None if isinstance(measurement, Exception) else measurement.conditions
    cores = os.cpu_count() or 1
    checks = [_governor(None if conditions is None else conditions.governor)]
    turbo = _turbo(root)
    if turbo is not None:
        file, is_on = turbo
        fix = f"echo {1 if file.name == 'no_turbo' else 0} | sudo tee {file}"
        checks.append(
            Check("cpu turbo", "warn", "on: clocks depend on heat and on the other cores", fix)
            if is_on
            else Check("cpu turbo", "pass", "off")
        )
    load = None if conditions is None else conditions.load_average_before
    if load is not None:
        busy = load > _HIGHEST_LOAD * cores
        fix = "close other programs, or search on another device" if busy else ""
        checks.append(Check("cpu load", "warn" if busy else "pass", f"{load:.2f} on {cores} cores", fix))
    temperature_c = None if conditions is None else conditions.temperature_c_after
    if temperature_c is not None:
        hot = temperature_c > _HIGHEST_TEMPERATURE_C
        fix = "let it cool down; free its air inlets" if hot else ""
        checks.append(Check("cpu temperature", "warn" if hot else "pass", f"{temperature_c:.0f} °C", fix))
    return checks


def _governor(governor: str | None) -> Check:
    name = "cpu governor"
    if governor is None:
        return Check(name, "pass", "not known here, as is usual in virtual machines and containers")
    if set(governor.split(",")) == {"performance"}:
        return Check(name, "pass", governor)
    return Check(name, "warn", f"{governor}: clocks follow the load", "sudo cpupower frequency-set -g performance")


def _turbo(root: Path) -> tuple[Path, bool] | None:
    """The switch of the processor's turbo and whether it is on; None when there is no such switch."""
    folder = root / "sys/devices/system/cpu"
    for file, on in ((folder / "intel_pstate/no_turbo", "0"), (folder / "cpufreq/boost", "1")):
        with suppress(OSError):
            return file, file.read_text().strip() == on
    return None


def check_memory(root: Path = Path("/")) -> Check:
    """Whether there is memory for training a supernet."""
    with suppress(OSError):
        available = re.search(r"^MemAvailable:\s+(\d+) kB", (root / "proc/meminfo").read_text(), re.MULTILINE)
        if available:
            room = min([int(available[1]) * 1024, *_memory_limit(root)])
            found = f"{room / _GIB:.1f} GiB available"
            return _enough("memory", room, _MEMORY_NEEDED, _MEMORY_EASY, found, "close other programs, or add swap")
    return Check("memory", "pass", "how much is available is not known on this system")


def _memory_limit(root: Path) -> Iterator[int]:
    """What the limit of a container leaves, if this is one. Cached files do not count: they make room when needed."""
    folder = root / "sys/fs/cgroup"
    for limit, statistics, used in (
        ("memory.max", "memory.stat", "anon"),
        ("memory/memory.limit_in_bytes", "memory/memory.stat", "total_rss"),
    ):
        with suppress(OSError, ValueError, KeyError):  # "max" is no limit
            lines = dict(line.split(maxsplit=1) for line in (folder / statistics).read_text().splitlines())
            yield int((folder / limit).read_text()) - int(lines[used])


def check_disk(folder: Path) -> Check:
    """Whether there is room for runs."""
    try:
        room = shutil.disk_usage(folder).free
    except OSError as error:
        return Check("disk", "fail", f"cannot look at {folder}: {error.strerror}", "change to another folder")
    found = f"{room / _GIB:.1f} GiB free in {folder}"
    if not os.access(folder, os.W_OK):
        return Check("disk", "warn", f"{found}, which cannot be written to", "name a folder elsewhere with --out")
    return _enough(
        "disk", room, _DISK_NEEDED, _DISK_EASY, found, "free some room, or name a folder elsewhere with --out"
    )


def _enough(name: str, room: float, needed: float, easy: float, found: str, fix: str) -> Check:
    if room < needed:
        return Check(name, "fail", f"{found}; requires {needed / _GIB:.1f} GiB", fix)
    if room < easy:
        return Check(name, "warn", f"{found}; {easy / _GIB:.0f} GiB leave room for large searches", fix)
    return Check(name, "pass", found)


# ---------------------------------------------------------------- other devices


def check_devices() -> list[Check]:
    """Which devices can be found without being named."""
    checks = []
    for row in list_devices():
        if not row.present:  # what keeps devices away has checks of its own, see `check_ways`
            continue
        words = " ".join(filter(None, (row.model, row.detail)))
        if row.state == "ready":
            checks.append(Check(f"device {row.address}", "pass", words))
        else:
            fix = command("devices", "doctor", row.address)
            checks.append(Check(f"device {row.address}", "warn", f"{row.state}: {words}", fix))
    return checks


def check_ways() -> list[Check]:
    """What this machine lacks for reaching devices, as their schemes see it."""
    looks = {f"{scheme.name}: devices": scheme.check_host for scheme in loaded_schemes()}
    return [check for name, look in looks.items() if look is not None for check in _found(name, look)]


def check_edgetpu_compiler() -> Check:
    """Whether models for the Edge TPU could be compiled."""
    from device_agents.edgetpu.program import COMPILER_VARIABLE, PROGRAM, find_program

    if not os.environ.get(COMPILER_VARIABLE) and shutil.which(PROGRAM) is None:
        return Check(PROGRAM, "pass", "not installed; only Coral Edge TPUs would need it (x86-64 Linux)")
    try:
        program = find_program()
        return Check(PROGRAM, "pass", f"{program}: {' '.join(program.version().split())}")
    except DeviceError as error:
        return Check(PROGRAM, "warn", what_happened(error), error.fix or "install it again")
