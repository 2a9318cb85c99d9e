"""The agent for this machine: a warm worker process that is replaced when it dies."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agents.api import CPU_DELEGATES, BenchmarkSpec, DeviceAgent, DeviceInfo, Measurement, Verdict
from device_agents.attempts import measure_in_attempts
from device_agents.errors import ModelError, ProtocolError, SpecError
from device_agents.results import read_failure, read_measurement, stage_verdict
from device_agents.tflite_file import inspect_model
from device_agents.worker.frames import Frame
from device_agents.worker.probes import allowed_cores
from device_agents.worker.runtime import find_runtime
from device_agents.worker_process import WorkerDiedError, WorkerProcess, WorkerTimeoutError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RUN_TIMEOUT_S = 60.0
_PAUSE_S = 0.1
# What C++ and Python print when memory is refused and they then give up.
_MEMORY_WORDS = re.compile(r"bad_alloc|MemoryError|[Cc]annot allocate memory|out of memory")


class HostAgent(DeviceAgent):
    """Measures on this machine.

    The worker starts with the first measurement and stays warm. A candidate that hangs or
    crashes it becomes a verdict, and the next one gets a new worker.
    """

    def __init__(self) -> None:
        self._worker: WorkerProcess | None = None
        self._info = host_info()

    def info(self) -> DeviceInfo:
        """See `DeviceAgent`."""
        return self._info

    def measure(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        """See `DeviceAgent`."""
        _check_supported(spec)
        return measure_in_attempts(model, spec, self._attempt, _PAUSE_S)

    def cores(self, kind: str) -> tuple[int, ...]:
        """See `DeviceAgent`."""
        return cores_of_kind(kind)

    def run(self, model: bytes, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """See `DeviceAgent`."""
        # NumPy is loaded only by those who run models, so that listing devices is quick.
        from device_agents.worker.tensors import decode_arrays, encode_arrays

        inspect_model(model)
        descriptions, blobs = encode_arrays(inputs)
        request = Frame({"do": "run", "inputs": descriptions}, (model, *blobs))
        try:
            answer = self._warm_worker().request(request, _RUN_TIMEOUT_S)
        except (WorkerDiedError, WorkerTimeoutError) as error:
            verdict, detail = _verdict_of(error)
            raise ModelError(detail, verdict.value) from error
        failure = answer.header.get("failure")
        if failure is not None:
            if not isinstance(failure, dict):
                raise ProtocolError(f"A failure must be an object. Received: {failure!r:.80}")
            verdict, detail = read_failure(failure)
            raise ModelError(detail, verdict.value)
        return decode_arrays(answer.header.get("outputs"), answer.blobs)

    def close(self) -> None:
        """See `DeviceAgent`."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def _attempt(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        started_utc = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        request = Frame({"do": "measure", "spec": spec.to_json()}, (model,))
        try:
            answer = self._warm_worker().request(request, spec.timeout_s)
        except (WorkerDiedError, WorkerTimeoutError) as error:
            verdict, detail = _verdict_of(error)
            return Measurement(verdict, detail)
        return read_measurement(answer, self._info, spec, started_utc)

    def _warm_worker(self) -> WorkerProcess:
        if self._worker is not None and not self._worker.alive:
            self.close()
        if self._worker is None:
            self._worker = WorkerProcess()
        return self._worker


def _verdict_of(error: WorkerDiedError | WorkerTimeoutError) -> tuple[Verdict, str]:
    doing = {"load": "loading", "run": "running"}.get(error.stage, "receiving")
    if isinstance(error, WorkerTimeoutError):
        return Verdict.TIMEOUT, f"{error} while {doing} the model"
    if error.signal_name == "SIGALRM":
        return Verdict.TIMEOUT, f"the worker ended itself, overdue while {doing} the model"
    detail = f"{error} while {doing} the model"
    # SIGKILL that is not ours is the system running out of memory.
    if error.signal_name == "SIGKILL" or _MEMORY_WORDS.search(error.log):
        return Verdict.OUT_OF_MEMORY, detail
    return stage_verdict(error.stage), detail


def host_info() -> DeviceInfo:
    """Returns what this machine is.

    Raises:
        DeviceUnavailableError: If no TFLite runtime is installed.
    """
    runtime, version = find_runtime()
    return DeviceInfo(
        address="host:",
        kind="host",
        model=_cpu_model(),
        soc=platform.machine() or "unknown",
        cores=len(allowed_cores() or ()) or os.cpu_count() or 1,
        memory_bytes=_memory_bytes(),
        # The patch level of a kernel does not make two machines different devices.
        os=f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        runtime=runtime,
        runtime_version=version,
        measures_on_host=True,
    )


def pick_cores(threads: int) -> tuple[int, ...] | None:
    """Returns CPU ids to measure on that leave at least one core for everything else.

    Args:
        threads: Threads the models will run with.

    Returns:
        The last `threads` usable cores (interrupts and other programs tend to the first
        ones), or None if there are too few cores or the system cannot pin.
    """
    usable = allowed_cores()
    if usable is None or len(usable) <= threads:
        return None
    return usable[-threads:]


def cores_of_kind(kind: str, root: Path = Path("/")) -> tuple[int, ...]:
    """Returns the usable CPUs of the highest ("big") or the lowest ("little") capacity.

    Args:
        kind: "big" or "little".
        root: Where /sys is.

    Raises:
        SpecError: If the system does not say, or all are alike.
    """
    capacities = {}
    for core in allowed_cores() or ():
        with contextlib.suppress(OSError, ValueError):
            capacities[core] = int((root / f"sys/devices/system/cpu/cpu{core}/cpu_capacity").read_text())
    if len(set(capacities.values())) < 2:
        raise SpecError(
            f"This machine has no {kind} cores: its system does not say that its CPUs differ. Name ids, for example 0,1"
        )
    chosen = (max if kind == "big" else min)(capacities.values())
    return tuple(sorted(core for core, capacity in capacities.items() if capacity == chosen))


def _check_supported(spec: BenchmarkSpec) -> None:
    """Refuses settings that only phones know what to do with."""
    if spec.delegate not in CPU_DELEGATES:
        raise SpecError(
            f"This machine measures with delegate {' or '.join(CPU_DELEGATES)}. For {spec.delegate!r:.80} name a phone "
            "as the device"
        )
    if spec.require_cool or spec.require_charged:
        raise SpecError("This machine does not say whether it is cool or charged; only phones can be asked for that")


def _cpu_model() -> str:
    for path, pattern in (
        ("/proc/device-tree/model", r"^(?P<model>[^\0\n]+)"),
        ("/proc/cpuinfo", r"^model name\s*:\s*(?P<model>.+)$"),
    ):
        try:
            text = Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        match = re.search(pattern, text, re.MULTILINE)
        if match:
            return match["model"].strip()
    return platform.processor() or "unknown CPU"


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
