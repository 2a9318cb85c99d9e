"""An Android phone as a `DeviceAgent`.

    measure: wait until cool -> push the model -> one visit: N blocks of benchmark_model, state after -> judge

One visit is one command on the phone, so that nothing but the tool runs between two blocks. `Measurement.samples_ms`
holds one sample per block, see `benchmark_model`. The model is removed at the end of the visit, the run's folder when
the agent closes, and what a crashed run left behind when the next one connects. The tool stays: it is what was
installed.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import re
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agents.android.benchmark_model import (
    BLOCKS,
    Invocation,
    ToolReport,
    block_invocation,
    judge_report,
    profile_invocation,
    read_report,
)
from device_agents.android.signature import TensorSignature, read_signature
from device_agents.android.state import (
    QUICK_SCRIPT,
    CoolSettings,
    PhoneIdentity,
    PhoneState,
    big_cores,
    core_mask,
    little_cores,
    read_cpu_list,
    read_phone,
    read_quick_state,
    split_sections,
    state_of,
    why_hot,
    why_throttled,
)
from device_agents.android.tool import BASE, InstalledTool, install_tool
from device_agents.android.transport import (
    LinkLostError,
    RemoteTimeoutError,
    Transport,
    printable,
)
from device_agents.api import BenchmarkSpec, Conditions, DeviceAgent, DeviceInfo, Measurement, OpTime, Verdict
from device_agents.attempts import measure_in_attempts
from device_agents.errors import (
    DeviceError,
    DeviceUnavailableError,
    ModelError,
    ProtocolError,
    SpecError,
)
from device_agents.verdicts import judge

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RUN_TIMEOUT_S = 60.0
# A governor that keeps the clock where it is; with any other, a look between two runs says nothing about them.
_STEADY_GOVERNORS = ("performance", "userspace")


@dataclass(frozen=True)
class AndroidSettings:
    """How phones are measured.

    Attributes:
        tool: benchmark_model on this machine; None for the installed one, see `tool.find_tool`.
        cores: Where the spec names none: "big", "little", "all", or a hexadecimal mask as for taskset.
        delegate: A key of `benchmark_model.DELEGATE_FLAGS` used instead of the spec's, "" for the spec's.
        external_delegate: A delegate library on this machine, pushed along, or None.
        external_options: Its options, "key:value;key:value".
        cool: When the phone is cool enough to be measured.
    """

    tool: Path | None = None
    cores: str = "big"
    delegate: str = ""
    external_delegate: Path | None = None
    external_options: str = ""
    cool: CoolSettings = field(default_factory=CoolSettings)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"big|little|all|[0-9a-fA-F]{1,64}", self.cores):
            raise SpecError(f"Expected cores to be big, little, all or a mask such as f0. Received: {self.cores!r:.80}")


class AndroidAgent(DeviceAgent):
    """Measures on a phone.

    A phone that is gone in the middle of a measurement is the verdict `device_lost`; the next call connects anew.

    `BenchmarkSpec` asks for more than `benchmark_model` can do: `max_runs`, `max_duration_s`, `warmup_max_duration_s`
    and `target_relative_half_width` have no equivalent, and `memory_limit_bytes` is left to Android, whose allocator
    reserves more address space than any limit would allow.

    Args:
        transport: The phone; closed with the agent.
        settings: See `AndroidSettings`.
        sleep: Waits for so many seconds; tests may pass their own.
    """

    def __init__(
        self,
        transport: Transport,
        settings: AndroidSettings = AndroidSettings(),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._transport = transport
        self._settings = settings
        self._sleep = sleep
        self._phone: _Phone | None = None

    def info(self) -> DeviceInfo:
        """See `DeviceAgent`; asks the phone, so it fails if that does not answer."""
        phone = self._prepared()
        if not self._transport.alive():
            # Whatever comes back may be freshly started, or another phone.
            self._phone = None
            phone = self._prepared(expected=phone.info.fingerprint)
        return phone.info

    def measure(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        """See `DeviceAgent`."""
        return measure_in_attempts(model, spec, self._attempt)

    def run(self, model: bytes, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """See `DeviceAgent`; a build of the tool from 2023 or later is needed."""
        wanted, given = read_signature(model)
        phone = self._prepared()
        if "output_filepath" not in phone.tool.flags:
            raise ModelError(
                "This build of benchmark_model cannot write the model's outputs. Install one from 2023 or later",
                Verdict.RUN_FAILED.value,
            )
        _check_inputs(wanted, inputs)
        folder = f"{phone.folder}/outputs-{secrets.token_hex(4)}"
        try:
            self._transport.push(model, f"{folder}/model.tflite")
            for index, value in enumerate(inputs):
                self._transport.push(value.tobytes(), f"{folder}/input{index}")
            done = self._transport.run([phone.tool.path, *_run_flags(wanted, folder)], timeout_s=_RUN_TIMEOUT_S)
            if done.exit_code != 0:
                report = read_report(done.output + done.errors)
                verdict, detail = judge_report(report, done.exit_code, Invocation((), "cpu", 1), False)
                raise ModelError(detail, verdict.value)
            return _split_outputs(self._transport.pull(f"{folder}/outputs"), given)
        finally:
            with contextlib.suppress(DeviceError):
                self._transport.run(["rm", "-rf", folder])

    def close(self) -> None:
        """See `DeviceAgent`; removes what this run has put on the phone."""
        phone, self._phone = self._phone, None
        if phone is not None:
            with contextlib.suppress(DeviceError):
                self._transport.run(["rm", "-rf", phone.folder], timeout_s=5.0)
        self._transport.close()

    def _prepared(self, expected: str = "") -> _Phone:
        if self._phone is not None:
            return self._phone
        self._sweep()
        identity, state = read_phone(self._transport)
        tool = install_tool(self._transport, identity.abi, self._settings.tool)
        info = _info(self._transport.address, identity, tool)
        if expected and info.fingerprint != expected:
            raise DeviceUnavailableError(
                f"Another phone answers at {info.address} now ({info.model}). Connect the one the session began with"
            )
        folder = f"{_run_folders()}{secrets.token_hex(4)}"
        cores = self._pinned(self._default_cores(identity, state))
        external = ""
        if self._settings.external_delegate is not None:
            external = self._push_delegate(self._settings.external_delegate)
        self._transport.run(["mkdir", "-p", folder])
        self._phone = _Phone(info, tool, folder, cores, external)
        return self._phone

    def _sweep(self) -> None:
        """Ends and removes what an earlier run of this computer left behind."""
        self._transport.script(_SWEEP, _run_folders(), timeout_s=20.0)

    def _push_delegate(self, file: Path) -> str:
        try:
            data = file.read_bytes()
        except OSError as error:
            raise DeviceUnavailableError(f"The delegate library cannot be read: {error}. Check its path") from error
        path = f"{BASE}/tools/{hashlib.sha256(data).hexdigest()[:16]}/delegate.so"
        found = self._transport.stat(path)
        if found is None or found.size_bytes != len(data):
            self._transport.push(data, path, mode=0o755)
        return path

    def _default_cores(self, identity: PhoneIdentity, state: PhoneState) -> tuple[int, ...]:
        wanted = self._settings.cores
        if wanted == "all":
            return ()
        if wanted in ("big", "little"):
            return (big_cores if wanted == "big" else little_cores)(identity, state)
        mask = int(wanted, 16)
        return tuple(core for core in range(mask.bit_length()) if mask >> core & 1)

    def _pinned(self, cores: tuple[int, ...]) -> tuple[int, ...] | None:
        """Returns the cores if the phone lets a process be pinned to them, else None."""
        if not cores:
            return None
        done = self._transport.run(["taskset", core_mask(cores), "grep", "Cpus_allowed_list:", "/proc/self/status"])
        allowed = read_cpu_list(done.output.partition(":")[2].strip())
        if done.exit_code == 0 and allowed == cores:
            return cores
        if self._settings.cores in ("big", "little"):
            return None  # the choice was ours; the measurement's conditions say that there is none
        raise SpecError(f"The phone does not pin to cores {cores}: {done.last_line}. Choose others, or 'big' or 'all'")

    def _attempt(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        started_utc = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        try:
            phone = self._prepared()
            before, hot = self._cooled()
            if hot:
                return Measurement(Verdict.THROTTLED, f"{hot}, after waiting {self._settings.cool.wait_s:g} s")
            return self._measured(phone, model, spec, before, started_utc)
        except LinkLostError as error:
            self._phone = None
            return Measurement(Verdict.DEVICE_LOST, str(error))
        except RemoteTimeoutError as error:
            return Measurement(Verdict.TIMEOUT, str(error))

    def _measured(
        self, phone: _Phone, model: bytes, spec: BenchmarkSpec, before: PhoneState, started_utc: str
    ) -> Measurement:
        cores = self._pinned_as_asked(spec.cores) if spec.cores else phone.cores
        path = f"{phone.folder}/model-{hashlib.sha256(model).hexdigest()[:16]}.tflite"
        invocation = block_invocation(
            spec, path, self._settings.delegate, phone.external, self._settings.external_options
        )
        self._transport.push(model, path)
        visit = self._visit(phone, path, invocation, cores, BLOCKS, spec.timeout_s, last=not spec.profile_ops)
        measurement = _assemble(visit, spec, phone, cores, invocation, before, started_utc)
        if not spec.profile_ops:
            return measurement
        invocation = profile_invocation(
            spec, path, self._settings.delegate, phone.external, self._settings.external_options
        )
        profiled = self._visit(phone, path, invocation, cores, 1, spec.timeout_s, last=True)
        rows: tuple[OpTime, ...] = profiled.reports[-1].profile if profiled.reports else ()
        note = "" if rows else "benchmark_model printed no times of operators"
        return replace(measurement, profile=rows, profile_note=note)

    def _pinned_as_asked(self, cores: tuple[int, ...]) -> tuple[int, ...]:
        pinned = self._pinned(cores)
        if pinned is None:
            raise SpecError(f"The phone does not pin to cores {cores}. Choose others, or none")
        return pinned

    def _cooled(self) -> tuple[PhoneState, str]:
        """Waits until the phone is cool; returns its state, and why it is still too hot, "" if it is not."""
        deadline_s = time.monotonic() + self._settings.cool.wait_s
        while True:
            state = read_quick_state(self._transport)
            hot = why_hot(state, self._settings.cool)
            if not hot or time.monotonic() >= deadline_s:
                return state, hot
            self._sleep(self._settings.cool.poll_s)

    def _visit(
        self,
        phone: _Phone,
        model_path: str,
        invocation: Invocation,
        cores: tuple[int, ...] | None,
        blocks: int,
        timeout_s: float,
        last: bool,
    ) -> _Visit:
        marker = f"@@{secrets.token_hex(8)}"
        done = self._transport.script(
            _VISIT,
            phone.folder,
            marker,
            model_path if last else "",
            core_mask(cores) if cores else "",
            str(blocks),
            phone.tool.path,
            *invocation.flags,
            timeout_s=timeout_s,
        )
        return _read_visit(done.output, marker, self._transport.address)


# $1 folder, $2 marker, $3 file to remove in the end, $4 mask, $5 blocks, then the tool and its arguments.
_VISIT = f"""
cd "$1" || exit 125
marker=$2 model=$3 mask=$4 blocks=$5
shift 5
trap '[ -z "$model" ] || rm -f "$model"' EXIT
while [ "$blocks" -gt 0 ]; do
  blocks=$((blocks - 1))
  echo "$marker block"
  if [ -n "$mask" ]; then taskset "$mask" "$@" 2>&1; else "$@" 2>&1; fi
  status=$?
  echo
  echo "$marker ended $status"
  [ "$status" = 0 ] || break
done
echo "$marker after"
{QUICK_SCRIPT}
"""

# $1 beginning of the names of run folders. What still runs in one of them is ended by its process id.
_SWEEP = """
for d in "$1"*; do
  [ -d "$d" ] || continue
  ls -ld /proc/[0-9]*/cwd 2>/dev/null | while read -r line; do
    case "$line" in *" -> $d"|*" -> $d/"*)
      line=${line#*/proc/}; kill -9 "${line%%/*}" 2>/dev/null;;
    esac
  done
  rm -rf "$d"
done
:
"""


@dataclass(frozen=True)
class _Phone:
    """What is prepared on a phone.

    Attributes:
        info: What it is.
        tool: The tool on it.
        folder: This run's own folder there.
        cores: Where to measure if the spec does not say; None for anywhere.
        external: The delegate library there, "" for none.
    """

    info: DeviceInfo
    tool: InstalledTool
    folder: str
    cores: tuple[int, ...] | None
    external: str


@dataclass(frozen=True)
class _Visit:
    """What one visit brought: a report and an exit status per block, and the state after."""

    reports: tuple[ToolReport, ...]
    exit_codes: tuple[int, ...]
    after: PhoneState


def _run_folders() -> str:
    """The beginning of the names of this computer's folders on any phone."""
    return f"{BASE}/run-{hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]}-"


def _read_visit(text: str, marker: str, address: str) -> _Visit:
    reports: list[ToolReport] = []
    exit_codes: list[int] = []
    blocks, _, after = text.partition(f"{marker} after\n")
    for block in blocks.split(f"{marker} block\n")[1:]:
        output, _, ended = block.partition(f"{marker} ended ")
        match = re.match(r"(\d{1,3})\n", ended)
        if match is None:
            raise ProtocolError(f"A block of the visit to {address} has no end. Received: {printable(block, 80)!r}")
        reports.append(read_report(output))
        exit_codes.append(int(match[1]))
    if not reports:
        raise DeviceUnavailableError(f"The run's folder on {address} is gone. Did somebody clear /data/local/tmp?")
    return _Visit(tuple(reports), tuple(exit_codes), state_of(split_sections(after)))


def _assemble(
    visit: _Visit,
    spec: BenchmarkSpec,
    phone: _Phone,
    cores: tuple[int, ...] | None,
    invocation: Invocation,
    before: PhoneState,
    started_utc: str,
) -> Measurement:
    """Returns the judged measurement of a visit."""
    first = visit.reports[0]
    timed = [report.timed for report in visit.reports if report.timed is not None]
    measurement = Measurement(
        verdict=Verdict.OK,
        samples_ms=tuple(block.sample_us / 1e3 for block in timed),
        init_ms=_milliseconds(first.init_us),
        first_inference_ms=_milliseconds(first.first_inference_us),
        # The tool counts the first inference as a part of its warm-up.
        warmup_runs=max(0, first.warmup.count - 1) if first.warmup else None,
        busy_s=sum(_busy_us(report) for report in visit.reports) / 1e6,
        peak_memory_bytes=first.overall_memory_bytes,
        conditions=_conditions(visit, spec, phone, cores, invocation, before, started_utc),
    )
    for report, exit_code in zip(visit.reports, visit.exit_codes, strict=True):
        verdict, detail = judge_report(report, exit_code, invocation, spec.require_delegate)
        if verdict is not Verdict.OK:
            return measurement.with_verdict(verdict, detail)
    throttled = why_throttled(before, visit.after, cores or ())
    judged = judge(measurement, spec)
    if throttled and judged.verdict in (Verdict.OK, Verdict.UNSTEADY):
        return judged.with_verdict(Verdict.THROTTLED, throttled)
    return judged


def _conditions(
    visit: _Visit,
    spec: BenchmarkSpec,
    phone: _Phone,
    cores: tuple[int, ...] | None,
    invocation: Invocation,
    before: PhoneState,
    started_utc: str,
) -> Conditions:
    used = visit.reports[0].delegates
    governor = before.governor(cores or ())
    steady = governor in _STEADY_GOVERNORS
    return Conditions(
        device_fingerprint=phone.info.fingerprint,
        device_model=phone.info.model,
        runtime=phone.info.runtime,
        runtime_version=phone.info.runtime_version,
        delegate=invocation.delegate,
        threads=spec.threads,
        started_utc=started_utc,
        delegate_kernels=used[-1].kernels if used else None,
        cores=cores,
        governor=governor,
        cpu_mhz_before=before.clock_mhz(cores or ()) if steady else None,
        cpu_mhz_after=visit.after.clock_mhz(cores or ()) if steady else None,
        temperature_c_before=before.hottest_c(),
        temperature_c_after=visit.after.hottest_c(),
        load_average_before=before.load_average,
        load_average_after=visit.after.load_average,
    )


def _busy_us(report: ToolReport) -> float:
    runs = [statistics for statistics in (report.warmup, report.timed) if statistics is not None]
    return sum(statistics.count * statistics.mean_us for statistics in runs)


def _milliseconds(microseconds: float | None) -> float | None:
    return None if microseconds is None else microseconds / 1e3


def _info(address: str, identity: PhoneIdentity, tool: InstalledTool) -> DeviceInfo:
    return DeviceInfo(
        address=address,
        kind="adb",
        model=identity.model or "unknown phone",
        soc=identity.soc or identity.abi or "unknown",
        cores=len(identity.cpus) or 1,
        memory_bytes=identity.memory_bytes,
        # Not the build: a security update does not make it another device.
        os=f"Android {identity.android}" if identity.android else f"Linux {identity.kernel}".strip(),
        runtime="benchmark_model",
        runtime_version=tool.version,
    )


def _check_inputs(wanted: Sequence[TensorSignature], inputs: Sequence[NDArray[Any]]) -> None:
    if len(wanted) != len(inputs):
        raise ModelError(f"Expected {len(wanted)} inputs. Received: {len(inputs)}", Verdict.RUN_FAILED.value)
    for tensor, value in zip(wanted, inputs, strict=True):
        if tuple(value.shape) != tensor.shape or str(value.dtype) != tensor.dtype:
            raise ModelError(
                f"Wrong input {tensor.name!r:.80}. Expected {tensor.dtype} {tensor.shape}. "
                f"Received: {value.dtype} {value.shape}",
                Verdict.RUN_FAILED.value,
            )


def _run_flags(inputs: Sequence[TensorSignature], folder: str) -> list[str]:
    # The tool splits its lists at commas and colons; a colon in a name can be escaped in one of its flags only.
    for tensor in inputs:
        if re.search(r"[,:]", tensor.name):
            raise ModelError(
                f"benchmark_model cannot be given an input of this name. Expected no commas or colons. "
                f"Received: {tensor.name!r:.80}",
                Verdict.RUN_FAILED.value,
            )
    flags = [f"--graph={folder}/model.tflite", "--num_runs=1", "--min_secs=0", "--warmup_runs=0", "--warmup_min_secs=0"]
    flags.append(f"--output_filepath={folder}/outputs")
    if inputs:
        flags += [
            "--input_layer=" + ",".join(tensor.name for tensor in inputs),
            "--input_layer_shape=" + ":".join(",".join(map(str, tensor.shape)) for tensor in inputs),
            "--input_layer_value_files="
            + ",".join(f"{tensor.name}:{folder}/input{index}" for index, tensor in enumerate(inputs)),
        ]
    return flags


def _split_outputs(data: bytes, outputs: Sequence[TensorSignature]) -> list[NDArray[Any]]:
    """Reads the outputs' bytes, one after another."""
    import numpy as np

    sizes = [math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize for tensor in outputs]
    if sum(sizes) != len(data):
        raise ProtocolError(
            f"The phone wrote outputs of another size. Expected {sum(sizes)} bytes. Received: {len(data)}"
        )
    ends = list(itertools.accumulate(sizes))
    return [
        np.frombuffer(data[end - size : end], tensor.dtype).reshape(tensor.shape).copy()
        for tensor, size, end in zip(outputs, sizes, ends, strict=True)
    ]
