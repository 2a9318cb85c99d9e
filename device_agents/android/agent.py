"""An Android phone as a `DeviceAgent`.

    measure: wait until cool -> one visit: send the model if it is not there, packed if the link is slow, verify it,
             look at the phone, N blocks of benchmark_model, look again -> judge -> failed? examine tool and files

One visit is one command on the phone, and the model comes on its standard input, so that a candidate costs as few round
trips as ADB allows and nothing but the tool runs between two blocks. The state after a visit is the state before the
next if that follows at once. A phone that was cool is believed to be so still; if the visit finds it was not, it is
waited for and visited again.

`Measurement.samples_ms` holds one sample per block, see `benchmark_model`. Models stay on the phone for a while,
because those that are compared are measured in turns, and the anchor again and again. The run's folder is removed when
the agent closes, and what a crashed run left behind when the next one connects. The tool stays: it is what was
installed.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import gzip
import hashlib
import itertools
import math
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agents.android.benchmark_model import (
    BLOCKS,
    Invocation,
    ToolReport,
    block_invocation,
    delegate_flags,
    judge_report,
    profile_invocation,
    read_report,
)
from device_agents.android.claim import BASE, PhoneClaim
from device_agents.android.gate import why_not_cool, why_weak
from device_agents.android.result_file import read_result_file
from device_agents.android.signature import TensorSignature, read_signature
from device_agents.android.state import (
    STATE_FUNCTIONS,
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
    why_throttled,
)
from device_agents.android.tool import InstalledTool, another_build, install_tool, run_folders
from device_agents.android.transport import (
    BETTER_LINK,
    Completed,
    LinkLostError,
    RemoteFileError,
    RemoteTimeoutError,
    Transport,
    advice,
    printable,
)
from device_agents.api import (
    CPU_DELEGATES,
    BenchmarkSpec,
    Conditions,
    Delegate,
    DeviceAgent,
    DeviceInfo,
    Measurement,
    OpTime,
    Verdict,
)
from device_agents.attempts import measure_fairly, probe
from device_agents.device_lock import NOT_OURS, RENEW
from device_agents.errors import (
    BenchFailedError,
    DeviceError,
    DeviceUnavailableError,
    ModelError,
    ProtocolError,
    SpecError,
)
from device_agents.verdicts import assess

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RUN_TIMEOUT_S = 60.0
_OTHERS_OUT = "keep other programs out of /data/local/tmp"
_NOT_CLEARED = "let nobody clear /data/local/tmp meanwhile; the next attempt puts there again what is missing"
# A governor that keeps the clock where it is; with any other, a look between two runs says nothing about them.
_STEADY_GOVERNORS = ("performance", "userspace")


@dataclass(frozen=True)
class AndroidSettings:
    """How phones are measured.

    Attributes:
        tool: benchmark_model on this machine; None for the installed one, see `tool.find_tool`.
        cool: When the phone is cool enough to be measured.
        look_s: Seconds after which the whole state is read again, battery included.
    """

    tool: Path | None = None
    cool: CoolSettings = field(default_factory=CoolSettings)
    look_s: float = 60.0


class AndroidAgent(DeviceAgent):
    """Measures on a phone.

    A phone that is gone in the middle of a measurement is the verdict `device_lost`; the next call connects anew, and
    takes no other phone for the first. Until it is closed, no other agent, here or on another computer, may have the
    phone. Before a model is blamed, tool and files are examined and the model is measured once more, see `attempts`; a
    tool that was replaced is installed again.

    Where `BenchmarkSpec.cores` is None, it runs on the big cores if the phone lets it. The spec asks for more than
    `benchmark_model` can do: `max_runs`, `max_duration_s`, `warmup_max_duration_s` and `target_relative_half_width`
    have no equivalent, and `memory_limit_bytes` is left to Android, whose allocator reserves more address space than
    any limit would allow.

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
        self._claim: PhoneClaim | None = None
        self._fingerprint = ""  # of the phone that answered first
        self._bytes_per_s = math.inf  # of the link, as far as known
        self._looked_s = -math.inf  # when the whole state was last read
        self._whole: PhoneState | None = None  # the whole state, until it has been judged
        self._doubtful = False  # whether the tool failed last
        self._refused: tuple[BenchmarkSpec, int] | None = None  # with what, and how many bytes, the phone failed last
        self._seen: tuple[float, PhoneState] | None = None  # when the last visit ended, and the state then

    def info(self) -> DeviceInfo:
        """See `DeviceAgent`; asks the phone, so it fails if that does not answer, or cannot be measured still."""
        phone = self._prepared()
        if not self._transport.alive():
            # Whatever comes back may be freshly started, or another phone.
            self._phone = None
            phone = self._prepared()
        if self._refused is not None:
            spec, size_bytes = self._refused
            self._check_power(phone, spec, read_phone(self._transport)[1])
            self._transport.push(bytes(size_bytes), f"{phone.folder}/room")
            self._transport.run(["rm", f"{phone.folder}/room"])
            self._refused = None
        if self._doubtful:
            problem = self._tool_problem(1)
            if problem:
                raise BenchFailedError(problem)
            self._doubtful = False
            phone = self._prepared()
        return phone.info

    def measure(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        """See `DeviceAgent`."""
        try:
            return measure_fairly(model, spec, self._attempt, lambda failure: self._examine(model, spec.threads))
        except LinkLostError as error:  # while the bench was being examined
            self._phone = None
            return Measurement(Verdict.DEVICE_LOST, str(error))
        except BenchFailedError:
            self._doubtful = True
            raise

    def cores(self, kind: str) -> tuple[int, ...]:
        """See `DeviceAgent`."""
        phone = self._prepared()
        cores = phone.big if kind == "big" else phone.little
        if not cores or phone.big == phone.little:
            raise SpecError(
                f"{phone.info.model} does not tell big cores from little ones", fix="name ids, for example 4-7"
            )
        return cores

    def run(self, model: bytes, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """See `DeviceAgent`; a build of the tool from 2023 or later is needed."""
        wanted, given = read_signature(model)
        phone = self._prepared()
        if "output_filepath" not in phone.tool.flags:
            raise ModelError(
                "This build of benchmark_model cannot write the model's outputs, as those from 2023 or later can",
                Verdict.RUN_FAILED.value,
                fix=another_build(self._transport.address),
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
                self._check_tool(phone, done.exit_code, report)
                problem = self._examine(None, 1)
                if problem:
                    raise BenchFailedError(problem)
                verdict, detail = judge_report(report, done.exit_code, Invocation((), Delegate("cpu"), 1), False)
                raise ModelError(detail, verdict.value)
            return _split_outputs(self._transport.pull(f"{folder}/outputs"), given)
        except LinkLostError:
            self._phone = None
            raise
        finally:
            with contextlib.suppress(DeviceError):
                self._transport.run(["rm", "-rf", folder])

    def close(self) -> None:
        """See `DeviceAgent`; removes what this run has put on the phone."""
        phone, self._phone = self._phone, None
        for _ in range(2 if phone is not None else 0):
            # The second time over a new connection, in case the link was lost since it was last used.
            with contextlib.suppress(DeviceError):
                self._transport.run(["rm", "-rf", phone.folder if phone else ""], timeout_s=5.0)
                break
        claim, self._claim = self._claim, None
        if claim is not None:
            claim.release()
        self._transport.close()

    def _prepared(self) -> _Phone:
        if self._phone is not None:
            return self._phone
        if self._claim is None:
            self._claim = PhoneClaim(self._transport)
        else:
            # Another phone may answer, or one whose storage was cleared.
            self._claim.renew()
        self._transport.script(_SWEEP, f"{BASE}/run-", timeout_s=20.0)
        identity, state = read_phone(self._transport)
        tool = install_tool(self._transport, identity.abi, self._settings.tool)
        info = _info(self._transport.address, identity, tool)
        if self._fingerprint not in ("", info.fingerprint):
            raise DeviceUnavailableError(
                f"Another phone answers at {info.address} now ({info.model})",
                fix="connect the one the session began with",
            )
        self._fingerprint = info.fingerprint
        folder = f"{run_folders()}{secrets.token_hex(4)}"
        big, little = big_cores(identity, state), little_cores(identity, state)
        made = self._transport.script(_MAKE_FOLDER, folder, tool.path)
        cores = big if self._pins(big) else None
        self._phone = _Phone(
            info, tool, made.output.strip(), folder, self._claim.file, big, little, cores, made.exit_code == 0
        )
        self._whole, self._seen = state, (time.monotonic(), state)
        return self._phone

    def _library(self, phone: _Phone, spec: BenchmarkSpec) -> str:
        """Returns where the spec's delegate library is on the phone, pushing it once; "" if it asks for none."""
        library = Delegate.parse(spec.delegate).library
        if not library or library in phone.libraries:
            return phone.libraries.get(library, "")
        try:
            data = Path(library).expanduser().read_bytes()
        except OSError as error:
            raise SpecError(
                f"The delegate library {library!r} cannot be read: {error.strerror}", fix="check its path"
            ) from None
        path = f"{phone.folder}/delegate-{hashlib.sha256(data).hexdigest()[:16]}.so"
        self._transport.push(data, path, mode=0o755)
        phone.libraries[library] = path
        return path

    def _pins(self, cores: tuple[int, ...]) -> bool:
        """Whether the phone lets a process be pinned to these cores; the process itself is asked."""
        if not cores:
            return False
        done = self._transport.run(["taskset", core_mask(cores), "grep", "Cpus_allowed_list:", "/proc/self/status"])
        return done.exit_code == 0 and read_cpu_list(done.output.partition(":")[2].strip()) == cores

    def _attempt(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        started_utc = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        try:
            phone = self._prepared()
            while True:
                before, hot = self._cooled(phone, spec)
                if hot:
                    return Measurement(Verdict.THROTTLED, f"{hot}, after waiting {self._settings.cool.wait_s:g} s")
                measurement = self._measured(phone, model, spec, before, started_utc)
                if measurement is not None:
                    return measurement
        except LinkLostError as error:
            self._phone = None
            return Measurement(Verdict.DEVICE_LOST, str(error))
        except _ModelTimeoutError as error:
            self._forget_models()
            return Measurement(Verdict.TIMEOUT, str(error))
        except ProtocolError:
            self._forget_models()
            raise
        except DeviceUnavailableError as error:
            self._forget_models()
            self._refused = spec, len(model)
            if isinstance(error, RemoteFileError):
                self._phone = None  # its folder may be gone
            raise

    def _forget_models(self) -> None:
        """Removes all models: after a fault nobody knows what is whole, and storage that was full needs the room."""
        if self._phone is not None:
            self._phone.models.clear()
            with contextlib.suppress(DeviceError):
                self._transport.script('rm -rf "$1"/model-*', self._phone.folder, timeout_s=5.0)

    def _measured(
        self, phone: _Phone, model: bytes, spec: BenchmarkSpec, before: PhoneState | None, started_utc: str
    ) -> Measurement | None:
        """Measures once; returns None if the visit, which looks if `before` is None, found the phone too hot."""
        cores = phone.cores if spec.cores is None else self._pinned(phone, spec.cores)
        library = self._library(phone, spec)
        digest = hashlib.sha256(model).hexdigest()
        invocation = block_invocation(spec, _model_path(phone, digest), library)
        _check_known(invocation, library, phone.tool, self._transport.address)
        look = self._look(before)
        visit = self._visit(phone, model, digest, invocation, cores, BLOCKS, spec.timeout_s, look)
        if before is None:
            before = visit.before
            if look is _Look.WHOLE:
                self._check_power(phone, spec, before)
            if why_not_cool(before, self._settings.cool, spec):
                return None
        measurement = _assemble(visit, spec, phone, cores, invocation, before, started_utc)
        if not spec.profile_ops:
            return measurement
        invocation = profile_invocation(spec, _model_path(phone, digest), library)
        profiled = self._visit(phone, model, digest, invocation, cores, 1, spec.timeout_s, _Look.NONE)
        rows: tuple[OpTime, ...] = profiled.reports[-1].profile if profiled.reports else ()
        note = "" if rows else "benchmark_model printed no times of operators"
        return replace(measurement, profile=rows, profile_note=note)

    def _look(self, before: PhoneState | None) -> _Look:
        """Returns what a visit has to look at first."""
        if before is not None:
            return _Look.NONE
        return _Look.WHOLE if time.monotonic() - self._looked_s >= self._settings.look_s else _Look.QUICK

    def _examine(self, model: bytes | None, threads: int) -> str:
        """Returns why a failure is not the model's, "" if nothing speaks against that; what is wrong is put right next.

        Args:
            model: The one that failed, if it should still be on the phone.
            threads: With how many it ran.
        """
        phone = self._prepared()
        digest = "" if model is None else hashlib.sha256(model).hexdigest()
        graph = _model_path(phone, digest) if digest in phone.models else ""
        libraries = {path: name for name, path in phone.libraries.items()}
        found = _read_files(
            self._transport.script(_EXAMINE, phone.tool.path, *filter(None, [graph, *libraries]), timeout_s=30.0).output
        )
        identity, sha256 = found.get(phone.tool.path, ("", ""))
        if sha256 != phone.tool.sha256 or identity != phone.tool_identity:
            self._phone = None
            return (
                f"benchmark_model on the phone was replaced, changed or removed by somebody else: {phone.tool.path} at "
                f"{self._transport.address}; {_OTHERS_OUT}"
            )
        for path in filter(None, [graph, *libraries]):
            expected = digest if path == graph else _library_digest(path)
            if not found.get(path, ("", ""))[1].startswith(expected):
                phone.models.pop(digest, None)
                phone.libraries.pop(libraries.get(path, ""), None)
                return (
                    f"{path} was changed or removed on the phone at {self._transport.address} while it was measured; "
                    f"{_OTHERS_OUT}"
                )
        return self._tool_problem(threads)

    def _tool_problem(self, threads: int) -> str:
        """Returns why the tool does not run a model that is known to work, "" if it does."""
        why = probe(self._attempt, threads)
        if not why:
            return ""
        path = self._phone.tool.path if self._phone else "benchmark_model"
        self._phone = None
        return (
            f"benchmark_model on the phone at {self._transport.address} does not run the anchor model ({why}): {path}; "
            f"{another_build(self._transport.address)}"
        )

    def _pinned(self, phone: _Phone, cores: tuple[int, ...]) -> tuple[int, ...]:
        if cores not in phone.pinnable:
            if not self._pins(cores):
                raise SpecError(f"{phone.info.model} does not pin to cores {cores}", fix="choose others, or none")
            phone.pinnable.add(cores)
        return cores

    def _sendable(self, phone: _Phone, model: bytes) -> tuple[bytes, str]:
        """Returns what is sent of a model, and whether it is "sent" as it is or "packed"."""
        if phone.unpacks and len(model) / self._bytes_per_s > _UNPACKING_S:
            packed = gzip.compress(model, compresslevel=1, mtime=0)
            # What a search measures packs to a fiftieth; trained weights to nothing worth the phone's time.
            if len(packed) <= len(model) // 2:
                return packed, "packed"
        return model, "sent"

    def _cooled(self, phone: _Phone, spec: BenchmarkSpec) -> tuple[PhoneState | None, str]:
        """Waits until the phone is cool; returns its state, and why it is still too hot, "" if it is not.

        The state is None for a phone that was cool when it was last seen: the visit looks again on the way.

        Raises:
            DeviceUnavailableError: If it has not the power to be measured.
        """
        deadline_s = time.monotonic() + self._settings.cool.wait_s
        if self._whole is not None:
            self._check_power(phone, spec, self._whole)
        seen_s, state = self._seen or (-math.inf, None)
        fresh = time.monotonic() - min(seen_s, self._looked_s + self._settings.look_s - _FRESH_S) <= _FRESH_S
        if state is not None and not fresh and not why_not_cool(state, self._settings.cool, spec):
            return None, ""
        while True:
            state = state if state is not None and fresh else read_quick_state(self._transport)
            hot = why_not_cool(state, self._settings.cool, spec)
            if not hot or time.monotonic() >= deadline_s:
                return state, hot
            self._sleep(self._settings.cool.poll_s)
            fresh = False

    def _check_power(self, phone: _Phone, spec: BenchmarkSpec, state: PhoneState) -> None:
        """Raises an error if the phone's whole state says that it has not the power to be measured."""
        self._whole, self._looked_s = None, -math.inf
        weak = why_weak(state, spec)
        if weak:
            raise DeviceUnavailableError(f"{phone.info.model} at {phone.info.address} cannot be measured: {weak}")
        self._looked_s = time.monotonic()

    def _visit(
        self,
        phone: _Phone,
        model: bytes,
        digest: str,
        invocation: Invocation,
        cores: tuple[int, ...] | None,
        blocks: int,
        timeout_s: float,
        look: _Look,
    ) -> _Visit:
        graph, file, arrival = _model_path(phone, digest), None, "there"
        if digest not in phone.models:
            data, arrival = self._sendable(phone, model)
            file = data, f"{graph}.sent"
        gone = phone.make_room(digest, len(model))
        if file is not None and len(file[0]) > _STREAMED_BYTES:
            started_s = time.monotonic()
            self._transport.send(*file)
            self._note_speed(len(file[0]), time.monotonic() - started_s)
            file = None
        marker = f"@@{secrets.token_hex(8)}"
        result = f"{phone.folder}/result" if "result_file_path" in phone.tool.flags else ""
        try:
            done = self._transport.script(
                _VISIT,
                phone.folder,
                marker,
                graph,
                digest,
                arrival,
                " ".join(_model_path(phone, other) for other in gone),
                core_mask(cores) if cores else "",
                str(blocks),
                result,
                phone.lock,
                str(look.value),
                phone.tool.path,
                *invocation.flags,
                *([f"--result_file_path={result}"] if result else []),
                timeout_s=timeout_s,
                file=file,
            )
        except RemoteTimeoutError as error:
            raise _ModelTimeoutError(str(error)) from error
        if file is not None and done.sent_s is not None:
            self._note_speed(len(file[0]), done.sent_s)
        self._check_visited(phone, done, graph, arrival, cores)
        visit = _read_visit(done.output, marker, self._transport.address)
        self._check_tool(phone, visit.exit_codes[-1], visit.reports[-1])
        phone.models[digest] = len(model)
        self._seen = time.monotonic(), visit.after
        return visit

    def _note_speed(self, size_bytes: int, seconds: float) -> None:
        if size_bytes >= _TELLING_BYTES:
            self._bytes_per_s = size_bytes / max(seconds, 1e-9)

    def _check_visited(
        self, phone: _Phone, done: Completed, graph: str, arrival: str, cores: tuple[int, ...] | None
    ) -> None:
        """Raises what kept the tool from being run at all."""
        if done.exit_code == NOT_OURS and self._claim is not None:
            self._phone = None
            self._claim.renew()  # or it is said who has the phone now
            raise DeviceUnavailableError(
                f"The lock of the phone at {self._transport.address} was removed; another process may have measured on "
                "it meanwhile, and the next attempt takes it again"
            )
        if done.exit_code == _NOT_ARRIVED and arrival == "there":
            raise RemoteFileError(
                f"{graph} was changed or removed on the phone at {self._transport.address}: {done.last_line}",
                graph,
                fix=_OTHERS_OUT,
            )
        if done.exit_code == _NOT_ARRIVED:
            raise RemoteFileError(
                f"{graph} cannot be put in place on {self._transport.address}: {done.last_line}",
                graph,
                fix=advice(done.last_line) or BETTER_LINK,
            )
        if done.exit_code == _NOT_PINNED:
            raise DeviceUnavailableError(f"{phone.info.model} no longer pins to cores {cores}: {done.last_line}")

    def _check_tool(self, phone: _Phone, exit_code: int, report: ToolReport) -> None:
        """Blames no model for a tool that the shell cannot start; it is installed again the next time."""
        if exit_code in _NOT_STARTED and not report.loaded and report.warmup is None and report.timed is None:
            self._phone = None
            raise DeviceUnavailableError(
                f"benchmark_model on the phone is gone or cannot be started any more: {phone.tool.path} at "
                f"{self._transport.address}, exit status {exit_code}",
                fix=_NOT_CLEARED,
            )


class _ModelTimeoutError(RemoteTimeoutError):
    """A visit took longer than the model may."""


class _Look(Enum):
    """What a visit reads of the phone's state before the tool runs."""

    NONE = 0
    QUICK = 1
    WHOLE = 2


# How long a look at the phone holds good, in seconds.
_FRESH_S = 1.0
# A model that is sent in less is sent as it is. Unpacking 5 MB, and packing them here, took 50 ms on a desktop's CPU;
# sending them took 12 ms over loopback, and takes 0.5 s at the 10 MB/s of Wi-Fi.
_UNPACKING_S = 0.1
# Fewer bytes say little about the speed of the link.
_TELLING_BYTES = 256 << 10
# What is larger is sent on its own: it takes several packets anyway.
_STREAMED_BYTES = 1000 << 10
# So much of what was measured last stays on the phone.
_KEPT_BYTES = 64 << 20
# And so many models: the names of those that go are arguments of one command.
_KEPT_MODELS = 64
_NOT_ARRIVED, _NOT_PINNED = 91, 92
_NOT_STARTED = (126, 127)  # of the shell; the tool ends so by itself never
# $1 folder, $2 marker, $3 model, $4 its SHA-256, $5 whether it was sent, sent packed, or is there, $6 models to remove
# first, $7 mask, $8 blocks, $9 result file if there is one, then the lock, a `_Look`, the tool and its arguments.
# What is printed goes in one piece: the phone waits for an answer to every packet, between two blocks as well.
_VISIT = f"""
cd "$1" || exit 125
marker=$2 model=$3 hash=$4 arrival=$5 gone=$6 mask=$7 blocks=$8 result=$9
shift 9
lock=$1 look=$2
shift 2
trap 'rm -f "$model.sent" $result' EXIT
fail() {{ echo "$1" >&2; exit {_NOT_ARRIVED}; }}
{RENEW}
[ -z "$gone" ] || rm -rf $gone
case $arrival in
  packed) zcat "$model.sent" > "$model" || fail;;
  sent) mv "$model.sent" "$model" || fail;;
esac
sum=$(sha256sum < "$model") || fail
[ "${{sum%% *}}" = "$hash" ] || fail "its SHA-256 differs from what was sent"
[ -z "$mask" ] || taskset -p "$mask" $$ >/dev/null || exit {_NOT_PINNED}
{STATE_FUNCTIONS}
visit() {{
  echo "$marker before"
  [ "$look" = {_Look.NONE.value} ] || quick_state 2>/dev/null
  [ "$look" != {_Look.WHOLE.value} ] || power_state 2>/dev/null
  while [ "$blocks" -gt 0 ]; do
    blocks=$((blocks - 1))
    echo "$marker block"
    "$@" 2>&1
    status=$?
    echo
    [ -z "$result" ] || {{ echo "$marker result"; base64 < "$result"; rm -f "$result"; }} 2>/dev/null
    echo "$marker ended $status"
    [ "$status" = 0 ] || break
  done
  echo "$marker after"
  quick_state 2>/dev/null
}}
printed=$(visit "$@")
print -r -- "$printed"
"""

# $1 the run's folder, $2 the tool. Prints what tells this very file from another that is put in its place.
_MAKE_FOLDER = """
mkdir -p "$1" || exit 1
stat -c '%i %s %z' "$2"
command -v zcat >/dev/null
"""

# The files of a run. Three lines for each: its name, what _MAKE_FOLDER prints, its SHA-256.
_EXAMINE = """
for f in "$@"; do
  echo "$f"
  stat -c '%i %s %z' "$f" 2>/dev/null || echo
  sha256sum < "$f" 2>/dev/null || echo
done
:
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
        tool_identity: Tells the tool's very file from another that is put in its place, even one that is put back.
        folder: This run's own folder there.
        lock: The file of this agent's lock on it.
        big: Its fastest cores, () if unknown.
        little: Its slowest.
        cores: Where to measure if the spec does not say; None for anywhere.
        unpacks: Whether it can unpack what is sent packed.
        libraries: Where on it delegate libraries are, by their paths on this machine.
        pinnable: Cores that it was seen to pin to.
        models: Sizes in bytes of the models on it by their SHA-256, the one measured last at the end.
    """

    info: DeviceInfo
    tool: InstalledTool
    tool_identity: str
    folder: str
    lock: str
    big: tuple[int, ...]
    little: tuple[int, ...]
    cores: tuple[int, ...] | None
    unpacks: bool
    libraries: dict[str, str] = field(default_factory=dict)
    pinnable: set[tuple[int, ...]] = field(default_factory=set)
    models: dict[str, int] = field(default_factory=dict)

    def make_room(self, digest: str, size_bytes: int) -> tuple[str, ...]:
        """Forgets what has to go for a model of this size, those measured longest ago first, and returns them."""
        self.models.pop(digest, None)
        gone = []
        while self.models and (
            len(self.models) >= _KEPT_MODELS or sum(self.models.values()) + size_bytes > _KEPT_BYTES
        ):
            oldest = next(iter(self.models))
            del self.models[oldest]
            gone.append(oldest)
        return tuple(gone)


def _model_path(phone: _Phone, digest: str) -> str:
    """Where a model is on the phone."""
    return f"{phone.folder}/model-{digest[:16]}.tflite"


@dataclass(frozen=True)
class _Visit:
    """What one visit brought: a report and an exit status per block, and the states before, if asked for, and after."""

    reports: tuple[ToolReport, ...]
    exit_codes: tuple[int, ...]
    before: PhoneState
    after: PhoneState


def _read_visit(text: str, marker: str, address: str) -> _Visit:
    reports: list[ToolReport] = []
    exit_codes: list[int] = []
    blocks, _, after = text.partition(f"{marker} after\n")
    before = blocks.partition(f"{marker} block\n")[0].partition(f"{marker} before\n")[2]
    for block in blocks.split(f"{marker} block\n")[1:]:
        printed, _, ended = block.partition(f"{marker} ended ")
        match = re.match(r"(\d{1,3})\n", ended)
        if match is None:
            raise ProtocolError(f"A block of the visit to {address} has no end", received=f"{printable(block, 80)!r}")
        output, _, result = printed.partition(f"{marker} result\n")
        reports.append(read_report(output).with_result(_read_result(result)))
        exit_codes.append(int(match[1]))
    if not reports:
        raise DeviceUnavailableError(f"The run's folder on {address} is gone", fix=_NOT_CLEARED)
    return _Visit(tuple(reports), tuple(exit_codes), state_of(split_sections(before)), state_of(split_sections(after)))


def _read_files(text: str) -> dict[str, tuple[str, str]]:
    """Reads what `_EXAMINE` printed: by path what tells the file from others, and its SHA-256; "" where it is gone."""
    lines = text.splitlines()
    return {
        path: (identity.strip(), sha256.partition(" ")[0])
        for path, identity, sha256 in zip(lines[::3], lines[1::3], lines[2::3], strict=False)
    }


def _library_digest(path: str) -> str:
    """The beginning of a library's SHA-256, by its name on the phone."""
    return path.rpartition("/delegate-")[2].removesuffix(".so")


def _read_result(text: str) -> dict[str, float]:
    """Reads a result file that was sent as base64."""
    try:
        return read_result_file(base64.b64decode(text, validate=False))
    except binascii.Error:
        return {}


def _check_known(invocation: Invocation, library: str, tool: InstalledTool, address: str) -> None:
    """Refuses a delegate that the build has no flag for: it would measure the CPU, and say so in a warning only."""
    flags = [flag[2:].partition("=")[0] for flag in delegate_flags(invocation.delegate, library)]
    unknown = [flag for flag in flags if flag not in tool.flags]
    if unknown and invocation.delegate.name not in CPU_DELEGATES:
        raise SpecError(
            f"The benchmark_model on the phone was built without --{unknown[0]}, so it cannot use delegate "
            f"{invocation.delegate.name}",
            fix=f"choose another --delegate, or {another_build(address)}",
        )


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
        # The oldest builds do not say how many.
        runs_per_sample=min((block.count for block in timed), default=0) or None,
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
    judged = assess(measurement, spec)
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
    used = visit.reports[0].use_of(invocation.delegate)
    library = invocation.delegate.library
    governor = before.governor(cores or ())
    steady = governor in _STEADY_GOVERNORS
    return Conditions(
        device_fingerprint=phone.info.fingerprint,
        device_model=phone.info.model,
        runtime=phone.info.runtime,
        runtime_version=phone.info.runtime_version,
        # Where a library was on this machine is nobody's business.
        delegate=spec.delegate.replace(library, Path(library).name, 1) if library else spec.delegate,
        threads=spec.threads,
        started_utc=started_utc,
        delegate_kernels=None if used is None else used.kernels,
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
        raise ModelError(
            "Wrong number of inputs", Verdict.RUN_FAILED.value, expected=f"{len(wanted)}", received=f"{len(inputs)}"
        )
    for tensor, value in zip(wanted, inputs, strict=True):
        if tuple(value.shape) != tensor.shape or str(value.dtype) != tensor.dtype:
            raise ModelError(
                f"Wrong input {tensor.name!r:.80}",
                Verdict.RUN_FAILED.value,
                expected=f"{tensor.dtype} {tensor.shape}",
                received=f"{value.dtype} {value.shape}",
            )


def _run_flags(inputs: Sequence[TensorSignature], folder: str) -> list[str]:
    for tensor in inputs:
        if "," in tensor.name:
            raise ModelError(
                "benchmark_model cannot be given an input of this name",
                Verdict.RUN_FAILED.value,
                expected="no commas",
                received=f"{tensor.name!r:.80}",
            )
    flags = [f"--graph={folder}/model.tflite", "--num_runs=1", "--min_secs=0", "--warmup_runs=0", "--warmup_min_secs=0"]
    flags.append(f"--output_filepath={folder}/outputs")
    if inputs:
        flags += [
            "--input_layer=" + ",".join(tensor.name for tensor in inputs),
            "--input_layer_shape=" + ":".join(",".join(map(str, tensor.shape)) for tensor in inputs),
            "--input_layer_value_files="
            # Only here is a colon a separator, and doubled where it is none.
            + ",".join(f"{t.name.replace(':', '::')}:{folder}/input{index}" for index, t in enumerate(inputs)),
        ]
    return flags


def _split_outputs(data: bytes, outputs: Sequence[TensorSignature]) -> list[NDArray[Any]]:
    """Reads the outputs' bytes, one after another."""
    import numpy as np

    sizes = [math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize for tensor in outputs]
    if sum(sizes) != len(data):
        raise ProtocolError(
            "The phone wrote outputs of another size", expected=f"{sum(sizes)} bytes", received=f"{len(data)}"
        )
    ends = list(itertools.accumulate(sizes))
    return [
        np.frombuffer(data[end - size : end], tensor.dtype).reshape(tensor.shape).copy()
        for tensor, size, end in zip(outputs, sizes, ends, strict=True)
    ]
