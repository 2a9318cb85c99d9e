"""An Android phone as a `DeviceAgent`.

    measure: wait until cool -> one errand: send the models that are not there, packed if the link is slow, verify all,
             look at the phone, run benchmark_model N times, look again -> judge -> failed? examine tool and files

An errand is one command on the phone, and the models come on its standard input, so that a candidate costs as few
round trips as ADB allows and nothing but the tool runs between two of its processes (`errand`). The state after an
errand is the state before the next if that follows at once. A phone that was cool is believed to be so still; if the
errand finds it was not, it is waited for and the errand done again.

A model that is measured in one go is run in several processes, and `Measurement.samples_ms` holds one sample for each.
Models that are visited are run in one process each, many of them in one errand; see `benchmark_model`. They stay on
the phone for a while, because they are visited again and again. The run's folder is removed when the agent closes, and
what a crashed run left behind when the next one connects. The tool and the probe models stay, see `stored`.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import itertools
import math
import secrets
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
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
from device_agents.android.energy import read_power
from device_agents.android.errand import (
    AT,
    CHANGED,
    NOT_ARRIVED,
    NOT_CLEARED,
    NOT_PINNED,
    Done,
    Errand,
    Look,
    Parcel,
    Process,
    ProcessReport,
    first_changed,
    read_errand,
)
from device_agents.android.gate import why_not_cool, why_weak
from device_agents.android.signature import TensorSignature, read_signature
from device_agents.android.state import (
    CoolSettings,
    PhoneState,
    big_cores,
    core_mask,
    info_of,
    little_cores,
    read_cpu_list,
    read_phone,
    read_quick_state,
    why_throttled,
)
from device_agents.android.stored import CHECK_PROBES, PROBES, probe_digests, read_probes
from device_agents.android.tool import InstalledTool, another_build, install_tool, run_folders
from device_agents.android.transport import (
    BETTER_LINK,
    Completed,
    LinkLostError,
    RemoteFileError,
    RemoteTimeoutError,
    Transport,
    advice,
)
from device_agents.api import (
    CPU_DELEGATES,
    RANDOM_VALUES,
    BenchmarkSpec,
    Conditions,
    Delegate,
    DeviceAgent,
    DeviceInfo,
    Measurement,
    MeasureRequest,
    Verdict,
)
from device_agents.attempts import measure_fairly, probe, refuse
from device_agents.device_lock import NOT_OURS
from device_agents.errors import (
    BenchFailedError,
    DeviceError,
    DeviceUnavailableError,
    ModelError,
    ProtocolError,
    SpecError,
)
from device_agents.verdicts import assess, blames_candidate

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RUN_TIMEOUT_S = 60.0
_OTHERS_OUT = "keep other programs out of /data/local/tmp"
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

    Attributes:
        rounds_at_once: A command takes round trips, so three rounds, which are enough on a quiet phone, go into one.

    Args:
        transport: The phone; closed with the agent.
        settings: See `AndroidSettings`.
        sleep: Waits for so many seconds; tests may pass their own.
    """

    rounds_at_once = 3

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
        self._seen: tuple[float, PhoneState] | None = None  # when the last errand ended, and the state then

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
        return self._fairly(model, spec, BLOCKS)

    def measure_all(self, requests: Sequence[MeasureRequest]) -> list[Measurement]:
        """See `DeviceAgent`; a visit is one process of the tool, and one errand makes as many as it may.

        A model with which that fails is visited on its own, so that the right one is blamed.
        """
        found: dict[int, Measurement] = {}
        alone: dict[MeasureRequest, Measurement | None] = {}  # those that are suspected, and what was found of them
        while len(found) < len(requests):
            for position, request in enumerate(requests):
                if position not in found and (request in alone or self._is_hopeless(request[0])):
                    found[position] = alone.get(request) or self._fairly(*request, 1)
                    # Guilty once is guilty in each of its visits.
                    alone[request] = found[position] if blames_candidate(found[position].verdict) else None
            remaining = [position for position in range(len(requests)) if position not in found]
            together = remaining[: self._together([requests[position] for position in remaining])]
            done = self._attempt_all([requests[position] for position in together], 1) if together else {}
            for number, measurement in done.items():
                if blames_candidate(measurement.verdict):
                    alone[requests[together[number]]] = None
                else:
                    found[together[number]] = measurement
            lost = next((one for one in found.values() if one.verdict is Verdict.DEVICE_LOST), None)
            if lost is not None:  # whoever asks decides how long it is waited for
                found = {position: found.get(position, lost) for position in range(len(requests))}
        return [found[position] for position in range(len(requests))]

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

    def _fairly(self, model: bytes, spec: BenchmarkSpec, blocks: int) -> Measurement:
        """Measures a model in so many blocks, and blames it only if the bench is sound."""
        try:
            return measure_fairly(
                model,
                spec,
                lambda model, spec: self._attempt(model, spec, blocks),
                lambda failure: self._examine(model, spec.threads),
            )
        except LinkLostError as error:  # while the bench was being examined
            self._phone = None
            return Measurement(Verdict.DEVICE_LOST, str(error))
        except BenchFailedError:
            self._doubtful = True
            raise

    def _is_hopeless(self, model: bytes) -> bool:
        """Whether a model need not be run to be assessed."""
        known = self._phone is not None and _digest(model) in self._phone.models
        return not known and refuse(model) is not None

    def _together(self, requests: Sequence[MeasureRequest]) -> int:
        """Returns how many of the next requests go into one errand: those that ask the same of the phone, and fit."""
        sizes: dict[str, int] = {}
        for count, (model, spec) in enumerate(requests):
            sizes[_digest(model)] = len(model)
            is_full = len(sizes) > _KEPT_MODELS or sum(sizes.values()) > _KEPT_BYTES or count == _MOST_PROCESSES
            if count and (is_full or _asked_of_phone(spec) != _asked_of_phone(requests[0][1])):
                return count
        return len(requests)

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
        info = info_of(self._transport.address, identity, tool.version)
        if self._fingerprint not in ("", info.fingerprint):
            raise DeviceUnavailableError(
                f"Another phone answers at {info.address} now ({info.model})",
                fix="connect the one the session began with",
            )
        self._fingerprint = info.fingerprint
        folder = f"{run_folders()}{secrets.token_hex(4)}"
        big, little = big_cores(identity, state), little_cores(identity, state)
        made = self._transport.script(_MAKE_FOLDER, folder, tool.path)
        probes = read_probes(self._transport.script(CHECK_PROBES, PROBES).output)
        cores = big if self._pins(big) else None
        self._phone = _Phone(
            info, tool, made.output.strip(), folder, self._claim.file, big, little, cores, made.exit_code == 0
        )
        self._phone.models.update({digest: size for digest, size in probes.items() if digest in probe_digests()})
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

    def _attempt(self, model: bytes, spec: BenchmarkSpec, blocks: int = BLOCKS) -> Measurement:
        return self._attempt_all([(model, spec)], blocks)[0]

    def _attempt_all(self, requests: Sequence[MeasureRequest], blocks: int) -> dict[int, Measurement]:
        """Measures models once, in so many blocks each; the phone is asked for the same by all of them.

        Returns:
            What was measured by its position: not all where there was no time for more, or one has failed.
        """
        started_utc = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        spec = requests[0][1]
        try:
            phone = self._prepared()
            while True:
                before, hot = self._cooled(phone, spec)
                if hot:
                    given_up = Measurement(Verdict.THROTTLED, f"{hot}, after waiting {self._settings.cool.wait_s:g} s")
                    return dict.fromkeys(range(len(requests)), given_up)
                measured = self._measured(phone, requests, blocks, before, started_utc)
                if measured is not None:
                    return measured
        except LinkLostError as error:
            self._phone = None
            return dict.fromkeys(range(len(requests)), Measurement(Verdict.DEVICE_LOST, str(error)))
        except _ModelTimeoutError as error:
            position = self._position_at(error.processes)
            self._forget_models()
            return {position: Measurement(Verdict.TIMEOUT, str(error))}
        except ProtocolError:
            self._forget_models()
            raise
        except DeviceUnavailableError as error:
            self._forget_models()
            self._refused = spec, max(len(model) for model, _ in requests)
            if isinstance(error, RemoteFileError):
                self._phone = None  # its folder may be gone
            raise

    def _position_at(self, processes: Sequence[Process]) -> int:
        """Returns which model was running when an errand was ended; the first if the phone does not say."""
        with contextlib.suppress(DeviceError, ValueError, IndexError):
            folder = self._phone.folder if self._phone else ""
            return processes[int(self._transport.script(AT, folder, timeout_s=5.0).output)].position
        return processes[0].position

    def _forget_models(self) -> None:
        """Removes all models: after a fault nobody knows what is whole, and storage that was full needs the room."""
        if self._phone is not None:
            self._phone.models.clear()
            with contextlib.suppress(DeviceError):
                self._transport.script('rm -rf "$1"/model-*', self._phone.folder, timeout_s=5.0)

    def _measured(
        self,
        phone: _Phone,
        requests: Sequence[MeasureRequest],
        blocks: int,
        before: PhoneState | None,
        started_utc: str,
    ) -> dict[int, Measurement] | None:
        """Measures once; returns None if the errand, which looks if `before` is None, found the phone too hot."""
        first = requests[0][1]
        cores = phone.cores if first.cores is None else self._pinned(phone, first.cores)
        processes: list[Process] = []
        for position, (model, spec) in enumerate(requests):
            graph, library = phone.path_of(_digest(model)), self._library(phone, spec)
            invocation = block_invocation(spec, graph, library, blocks)
            _check_known(invocation, library, phone.tool, self._transport.address)
            processes += [Process(position, graph, invocation)] * blocks
        look = self._look(before)
        done = self._run_errand(phone, requests, processes, cores, look)
        if before is None:
            before = done.before
            if look is Look.WHOLE:
                self._check_power(phone, first, before)
            if why_not_cool(before, self._settings.cool, first):
                return None
        measured = {}
        for position, (model, spec) in enumerate(requests):
            count = sum(process.position == position for process in processes[: len(done.processes)])
            if count == 0:
                continue
            at = next(number for number, process in enumerate(processes) if process.position == position)
            own = replace(done, processes=done.processes[at : at + count], before=before)
            one = _assembled(own, processes[at].invocation, spec, phone, cores, started_utc, is_visit=blocks == 1)
            measured[position] = self._profiled(phone, model, spec, cores, one) if spec.profile_ops else one
        return measured

    def _profiled(
        self,
        phone: _Phone,
        model: bytes,
        spec: BenchmarkSpec,
        cores: tuple[int, ...] | None,
        measurement: Measurement,
    ) -> Measurement:
        """Returns a measurement with the times of single operators, from an errand of its own."""
        graph = phone.path_of(_digest(model))
        process = Process(0, graph, profile_invocation(spec, graph, self._library(phone, spec)))
        rows = self._run_errand(phone, [(model, spec)], [process], cores, Look.NONE).processes[-1].report.profile
        return replace(
            measurement, profile=rows, profile_note="" if rows else "benchmark_model printed no times of operators"
        )

    def _look(self, before: PhoneState | None) -> Look:
        """Returns what an errand has to look at first."""
        if before is not None:
            return Look.NONE
        return Look.WHOLE if time.monotonic() - self._looked_s >= self._settings.look_s else Look.QUICK

    def _examine(self, model: bytes | None, threads: int) -> str:
        """Returns why a failure is not the model's, "" if nothing speaks against that; what is wrong is put right next.

        Args:
            model: The one that failed, if it should still be on the phone.
            threads: With how many it ran.
        """
        phone = self._prepared()
        digest = "" if model is None else _digest(model)
        graph = phone.path_of(digest) if digest in phone.models else ""
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

    def _sendable(self, phone: _Phone, models: bytes) -> tuple[bytes, bool]:
        """Returns what is sent of models, and whether that is packed."""
        if phone.unpacks and len(models) / self._bytes_per_s > _UNPACKING_S:
            packed = gzip.compress(models, compresslevel=1, mtime=0)
            # What a search measures packs to a fiftieth; trained weights to nothing worth the phone's time.
            if len(packed) <= len(models) // 2:
                return packed, True
        return models, False

    def _cooled(self, phone: _Phone, spec: BenchmarkSpec) -> tuple[PhoneState | None, str]:
        """Waits until the phone is cool; returns its state, and why it is still too hot, "" if it is not.

        The state is None for a phone that was cool when it was last seen: the errand looks again on the way.

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

    def _run_errand(
        self,
        phone: _Phone,
        requests: Sequence[MeasureRequest],
        processes: Sequence[Process],
        cores: tuple[int, ...] | None,
        look: Look,
    ) -> Done:
        models = {_digest(model): model for model, _ in requests}
        new = {digest: model for digest, model in models.items() if digest not in phone.models}
        gone = phone.make_room({digest: len(model) for digest, model in models.items()})
        file, parcel = None, None
        if new:
            data, packed = self._sendable(phone, b"".join(new.values()))
            parcel = Parcel(
                f"{phone.folder}/parcel", packed, {phone.path_of(digest): len(model) for digest, model in new.items()}
            )
            file = data, parcel.file
        if file is not None and len(file[0]) > _STREAMED_BYTES:
            started_s = time.monotonic()
            self._transport.send(*file)
            self._note_speed(len(file[0]), time.monotonic() - started_s)
            file = None
        timeout_s = max(spec.timeout_s for _, spec in requests)
        # Each model may take its time, also one that comes last.
        begin_within_s = max(1, round(timeout_s / 2)) if len(requests) > 1 else 0
        errand = Errand(
            folder=phone.folder,
            marker=f"@@{secrets.token_hex(8)}",
            lock=phone.lock,
            tool=phone.tool.path,
            models={phone.path_of(digest): digest for digest in models},
            processes=processes,
            parcel=parcel,
            gone=[phone.path_of(digest) for digest in gone],
            cores=cores,
            result=f"{phone.folder}/result" if "result_file_path" in phone.tool.flags else "",
            look=look,
            begin_within_s=begin_within_s,
            power=f"{phone.folder}/power" if requests[0][1].energy else "",
        )
        try:
            done = self._transport.script(*errand.script(), timeout_s=timeout_s + begin_within_s, file=file)
        except RemoteTimeoutError as error:
            raise _ModelTimeoutError(str(error), processes) from error
        if file is not None and done.sent_s is not None:
            self._note_speed(len(file[0]), done.sent_s)
        self._check_done(phone, done, errand)
        read = read_errand(done.output, errand.marker, self._transport.address)
        self._check_tool(phone, read.processes[-1].exit_code, read.processes[-1].report)
        phone.models.update({digest: len(model) for digest, model in models.items()})
        self._seen = time.monotonic(), read.after
        return read

    def _note_speed(self, size_bytes: int, seconds: float) -> None:
        if size_bytes >= _TELLING_BYTES:
            self._bytes_per_s = size_bytes / max(seconds, 1e-9)

    def _check_done(self, phone: _Phone, done: Completed, errand: Errand) -> None:
        """Raises what kept the tool from being run at all."""
        new = () if errand.parcel is None else errand.parcel.sizes
        if done.exit_code == NOT_OURS and self._claim is not None:
            self._phone = None
            self._claim.renew()  # or it is said who has the phone now
            raise DeviceUnavailableError(
                f"The lock of the phone at {self._transport.address} was removed; another process may have measured on "
                "it meanwhile, and the next attempt takes it again"
            )
        if done.exit_code == NOT_PINNED:
            raise DeviceUnavailableError(f"{phone.info.model} no longer pins to cores {errand.cores}: {done.last_line}")
        if done.exit_code not in (NOT_ARRIVED, CHANGED):
            return
        graph = next(iter(new), "") if done.exit_code == NOT_ARRIVED else first_changed(done.output, errand.models)
        why = done.last_line if done.exit_code == NOT_ARRIVED else "its SHA-256 differs from what was sent"
        if graph not in new:
            raise RemoteFileError(
                f"{graph} was changed or removed on the phone at {self._transport.address}: {why}",
                graph,
                fix=_OTHERS_OUT,
            )
        raise RemoteFileError(
            f"{graph} cannot be put in place on {self._transport.address}: {why}",
            graph,
            fix=advice(why) or BETTER_LINK,
        )

    def _check_tool(self, phone: _Phone, exit_code: int, report: ToolReport) -> None:
        """Blames no model for a tool that the shell cannot start; it is installed again the next time."""
        if exit_code in _NOT_STARTED and not report.loaded and report.warmup is None and report.timed is None:
            self._phone = None
            raise DeviceUnavailableError(
                f"benchmark_model on the phone is gone or cannot be started any more: {phone.tool.path} at "
                f"{self._transport.address}, exit status {exit_code}",
                fix=NOT_CLEARED,
            )


class _ModelTimeoutError(RemoteTimeoutError):
    """An errand took longer than a model may.

    Attributes:
        processes: What was to be run in it.
    """

    def __init__(self, what: str, processes: Sequence[Process]) -> None:
        super().__init__(what)
        self.processes = processes


# How long a look at the phone holds good, in seconds.
_FRESH_S = 1.0
# A model that is sent in less is sent as it is. Unpacking 5 MB, and packing them here, took 50 ms on a desktop's CPU;
# sending them took 12 ms over loopback, and takes 0.5 s at the 10 MB/s of Wi-Fi.
_UNPACKING_S = 0.1
# Fewer bytes say little about the speed of the link.
_TELLING_BYTES = 256 << 10
# What is larger is sent on its own: it takes several packets anyway.
_STREAMED_BYTES = 1000 << 10
# So much of what was measured last stays on the phone, and is measured in one errand.
_KEPT_BYTES = 256 << 20
# And so many models: the names of those that go are arguments of one command.
_KEPT_MODELS = 64
# An errand is named by its script, and an adb server takes names of at most 64 KiB.
_MOST_PROCESSES = 128
_NOT_STARTED = (126, 127)  # of the shell; the tool ends so by itself never

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

    def path_of(self, digest: str) -> str:
        """Where a model is on it: the probes stay there, all else is in the run's folder."""
        return f"{PROBES if digest in probe_digests() else self.folder}/model-{digest[:16]}.tflite"

    def make_room(self, needed: Mapping[str, int]) -> list[str]:
        """Forgets what has to go for models of these sizes, those measured longest ago first, and returns them."""
        for digest in needed:
            if digest in self.models:
                self.models[digest] = self.models.pop(digest)
        others = [digest for digest in self.models if digest not in needed and digest not in probe_digests()]
        count, size_bytes = len(others) + len(needed), sum(needed.values()) + sum(self.models[one] for one in others)
        gone = []
        for digest in others:
            if count <= _KEPT_MODELS and size_bytes <= _KEPT_BYTES:
                break
            count, size_bytes = count - 1, size_bytes - self.models.pop(digest)
            gone.append(digest)
        return gone


@functools.lru_cache(maxsize=64)
def _digest(model: bytes) -> str:
    """SHA-256 of a model, which may have megabytes and is asked for at every visit."""
    return hashlib.sha256(model).hexdigest()


def _asked_of_phone(spec: BenchmarkSpec) -> tuple[object, ...]:
    """What all models of one errand have in common."""
    return spec.cores, spec.require_cool, spec.require_charged, spec.energy


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


def _assembled(
    done: Done,
    invocation: Invocation,
    spec: BenchmarkSpec,
    phone: _Phone,
    cores: tuple[int, ...] | None,
    started_utc: str,
    is_visit: bool,
) -> Measurement:
    """Returns the judged measurement of one model; a visit is too short to be judged but for what went wrong."""
    reports = [process.report for process in done.processes]
    first = reports[0]
    timed = [report.timed for report in reports if report.timed is not None]
    measurement = Measurement(
        verdict=Verdict.OK,
        samples_ms=tuple((block.quiet_us if is_visit else block.sample_us) / 1e3 for block in timed),
        # The oldest builds do not say how many.
        runs_per_sample=min((block.count for block in timed), default=0) or None,
        init_ms=_milliseconds(first.init_us),
        first_inference_ms=_milliseconds(first.first_inference_us),
        # The tool counts the first inference as a part of its warm-up.
        warmup_runs=max(0, first.warmup.count - 1) if first.warmup else None,
        busy_s=sum(_busy_us(report) for report in reports) / 1e6,
        startup_ms=_startup_ms(done.processes[0]),
        peak_memory_bytes=first.overall_memory_bytes,
        conditions=_conditions(done, spec, phone, cores, invocation, started_utc),
    )
    measurement = _with_energy(measurement, done.processes)
    for process in done.processes:
        verdict, detail = judge_report(process.report, process.exit_code, invocation, spec.require_delegate)
        if verdict is not Verdict.OK:
            return measurement.with_verdict(verdict, detail)
    throttled = why_throttled(done.before, done.after, cores or ())
    judged = measurement if is_visit else assess(measurement, spec)
    if throttled and judged.verdict in (Verdict.OK, Verdict.UNSTEADY):
        return judged.with_verdict(Verdict.THROTTLED, throttled)
    return judged


def _with_energy(measurement: Measurement, processes: Sequence[ProcessReport]) -> Measurement:
    """The measurement with the energy of a run, if requested: the median over processes."""
    energies_mj: list[float] = []
    note = ""
    for process in processes:
        if process.power is None or process.report.timed is None:
            continue
        watts, said = read_power(process.power)
        note = note if energies_mj else said
        if watts is not None:
            note = said
            energies_mj.append(watts * process.report.timed.mean_us / 1e3)
    energy_mj = statistics.median(energies_mj) if energies_mj else None
    return replace(measurement, energy_mj=energy_mj, energy_note=note)


def _conditions(
    done: Done,
    spec: BenchmarkSpec,
    phone: _Phone,
    cores: tuple[int, ...] | None,
    invocation: Invocation,
    started_utc: str,
) -> Conditions:
    used = done.processes[0].report.use_of(invocation.delegate)
    library = invocation.delegate.library
    governor = done.before.governor(cores or ())
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
        inputs=RANDOM_VALUES,
        delegate_kernels=None if used is None else used.kernels,
        cores=cores,
        governor=governor,
        cpu_mhz_before=done.before.clock_mhz(cores or ()) if steady else None,
        cpu_mhz_after=done.after.clock_mhz(cores or ()) if steady else None,
        temperature_c_before=done.before.hottest_c(),
        temperature_c_after=done.after.hottest_c(),
        load_average_before=done.before.load_average,
        load_average_after=done.after.load_average,
    )


def _busy_us(report: ToolReport) -> float:
    runs = [statistics for statistics in (report.warmup, report.timed) if statistics is not None]
    return sum(statistics.count * statistics.mean_us for statistics in runs)


def _startup_ms(process: ProcessReport) -> float | None:
    """What a process took beyond running the model."""
    return None if process.took_s is None else max(0.0, process.took_s * 1e3 - _busy_us(process.report) / 1e3)


def _milliseconds(microseconds: float | None) -> float | None:
    return None if microseconds is None else microseconds / 1e3


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
