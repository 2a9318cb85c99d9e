"""The agent for whatever can run a worker: this machine, and boards.

    start() -> WorkerChannel -> WorkerLink (framed requests) -> WorkerAgent (a `DeviceAgent`)

What starts the worker is all that differs from device to device: `worker_process.start_local_worker`, or a command that
passes stdin and stdout on to a board.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from device_agents.api import (
    CPU_DELEGATES,
    BenchmarkSpec,
    DeviceAgent,
    DeviceInfo,
    Measurement,
    MeasureRequest,
    Verdict,
)
from device_agents.attempts import measure_fairly, probe, refuse
from device_agents.errors import DeviceUnavailableError, ModelError, ProtocolError, SpecError
from device_agents.results import read_capacities, read_failure, read_measurement, read_visits, stage_verdict
from device_agents.tflite_file import inspect_model
from device_agents.verdicts import is_failure
from device_agents.worker.frames import Frame, packed
from device_agents.worker_link import StartWorker, WorkerDiedError, WorkerLink, WorkerTimeoutError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RUN_TIMEOUT_S = 60.0
_PAUSE_S = 0.1
# What C++ and Python print when memory is refused and they then give up.
_MEMORY_WORDS = re.compile(r"bad_alloc|MemoryError|[Cc]annot allocate memory|out of memory")


class Accelerator(ABC):
    """What a worker uses beside the CPU, for models that are compiled for it.

    Attributes:
        arguments: With which the worker is started.
    """

    arguments: tuple[str, ...]

    @abstractmethod
    def attach(self, worker: WorkerLink) -> None:
        """Makes sure that a worker that was just started can use it.

        Raises:
            DeviceUnavailableError: With what is missing.
        """

    @abstractmethod
    def describe(self, info: DeviceInfo) -> DeviceInfo:
        """Returns what the device is with it, once it is attached."""

    @abstractmethod
    def refuse(self, model: bytes) -> Measurement | None:
        """Returns the verdict on a model that it does not run; None for one that it does."""


class WorkerAgent(DeviceAgent):
    """Measures with a worker, wherever that runs.

    The worker starts when it is first needed and stays warm. A candidate that hangs or crashes it becomes a verdict,
    and the next one gets a new worker. If the way to it is lost, that is an exception and no candidate's fault.

    Args:
        start: Starts a worker.
        info: What the device is; or what reads that from what its worker says of itself, see
            `results.read_device_info`.
        accelerator: What the worker uses beside the CPU; `start` passes it the arguments. None for nothing.
    """

    packs_models = False
    """Whether models are packed on their way; those of candidates, being untrained, become a fraction."""

    def __init__(
        self,
        start: StartWorker,
        info: DeviceInfo | Callable[[Mapping[str, Any]], DeviceInfo],
        accelerator: Accelerator | None = None,
    ) -> None:
        self._start, self._read_info, self._accelerator = start, info, accelerator
        self._info: DeviceInfo | None = info if isinstance(info, DeviceInfo) else None
        self._worker: WorkerLink | None = None
        self._loaded: set[str] = set()  # keys of the models that the worker has
        self._examples: NDArray[Any] | None = None

    def info(self) -> DeviceInfo:
        """See `DeviceAgent`."""
        if self._info is None:
            assert not isinstance(self._read_info, DeviceInfo)
            self._info = self._accelerated(self._read_info(self._warm_worker().hello))
        return self._info

    def measure(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        """See `DeviceAgent`."""
        _check_supported(spec, self.info())
        refusal = self._refuse(model)
        return refusal if refusal is not None else measure_fairly(model, spec, self._attempt, self._examine, _PAUSE_S)

    def measure_all(self, requests: Sequence[MeasureRequest]) -> list[Measurement]:
        """See `DeviceAgent`; the worker keeps the models loaded, and is asked for all of them at once.

        A model with which that fails is measured on its own, so that the right one is blamed.
        """
        for spec in {spec for _, spec in requests}:
            _check_supported(spec, self.info())
        found: dict[int, Measurement] = {}
        suspects: set[MeasureRequest] = set()
        while len(found) < len(requests):
            for position, request in enumerate(requests):
                if position not in found and (request in suspects or self._is_hopeless(request)):
                    found[position] = self.measure(*request)
            remaining = [position for position in range(len(requests)) if position not in found]
            visited, suspect = self._visit([requests[position] for position in remaining])
            found.update(
                (position, one) for position, one in zip(remaining, visited, strict=False) if not is_failure(one)
            )
            suspects |= {requests[remaining[i]] for i, one in enumerate(visited) if is_failure(one)}
            suspects |= set() if suspect is None else {suspect}
        return [found[position] for position in range(len(requests))]

    def take_examples(self, examples: NDArray[Any]) -> str:
        """See `DeviceAgent`; each worker gets them when it starts."""
        from device_agents.worker.feeding import Examples

        digest = Examples.of(examples).digest
        self._examples = examples
        if self._worker is not None and self._worker.alive:
            self._send_examples(self._worker)
        return digest

    def cores(self, kind: str) -> tuple[int, ...]:
        """See `DeviceAgent`."""
        return cores_of_kind(kind, read_capacities(self._warm_worker().hello), self.info().model)

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
                raise ProtocolError("A failure must be an object", received=f"{failure!r:.80}")
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
            return Measurement(*_verdict_of(error))
        return read_measurement(answer, self.info(), spec, started_utc)

    def _visit(self, requests: Sequence[MeasureRequest]) -> tuple[list[Measurement], MeasureRequest | None]:
        """Has models visited; returns what was measured, or the model that is suspected of having ended the worker."""
        if not requests:
            return [], None
        started_utc = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        worker = self._warm_worker()
        models = list(dict.fromkeys(requests))
        keys = [_visit_key(*request) for request in models]
        sent = [key not in self._loaded for key in keys]
        positions = {request: position for position, request in enumerate(models)}
        rows = [
            {"key": key, "sent": is_sent, "packed": self.packs_models, "spec": spec.to_json()}
            for key, is_sent, (_, spec) in zip(keys, sent, models, strict=True)
        ]
        order = [positions[request] for request in requests]
        blobs = tuple(
            packed(model) if self.packs_models else model
            for (model, _), is_sent in zip(models, sent, strict=True)
            if is_sent
        )
        try:
            answer = worker.request(
                Frame({"do": "visit", "models": rows, "order": order}, blobs),
                max(spec.timeout_s for _, spec in requests),
                each_stage=True,
            )
        except (WorkerDiedError, WorkerTimeoutError) as error:
            known = error.model is not None and 0 <= error.model < len(models)
            return [], models[error.model] if known and error.model is not None else models[0]
        visits, self._loaded = read_visits(answer, self.info(), [spec for _, spec in requests], started_utc)
        return visits, None

    def _is_hopeless(self, request: MeasureRequest) -> bool:
        """Whether a model need not be run to be assessed."""
        return _visit_key(*request) not in self._loaded and (self._refuse(request[0]) or refuse(request[0])) is not None

    def _refuse(self, model: bytes) -> Measurement | None:
        return None if self._accelerator is None else self._accelerator.refuse(model)

    def _accelerated(self, info: DeviceInfo) -> DeviceInfo:
        return info if self._accelerator is None else self._accelerator.describe(info)

    def _examine(self, failure: Measurement) -> str:
        """Returns what is wrong with the worker, "" if it still runs a model."""
        why = probe(self._attempt)
        return f"the worker on {self.info().model} does not run the anchor model any more ({why})" if why else ""

    def _warm_worker(self) -> WorkerLink:
        if self._worker is not None and not self._worker.alive:
            self.close()
        if self._worker is None:
            worker, self._loaded = WorkerLink(self._start()), set()
            try:
                if self._accelerator is not None:
                    self._accelerator.attach(worker)
                self._send_examples(worker)
            except BaseException:
                worker.close()
                raise
            self._worker = worker
        return self._worker

    def _send_examples(self, worker: WorkerLink) -> None:
        if self._examples is None:
            return
        from device_agents.worker.tensors import encode_arrays

        descriptions, blobs = encode_arrays([self._examples])
        try:
            worker.request(Frame({"do": "keep", "inputs": descriptions}, blobs), _RUN_TIMEOUT_S)
        except (WorkerDiedError, WorkerTimeoutError) as error:
            raise DeviceUnavailableError(f"The worker does not take the examples to time on: {error}") from error


def _visit_key(model: bytes, spec: BenchmarkSpec) -> str:
    """Tells a model and how it is loaded from all others."""
    loaded_as = [spec.threads, spec.delegate, spec.cores, spec.input_shapes, spec.inputs]
    return f"{_digest(model)} {json.dumps(loaded_as)}"


@functools.lru_cache(maxsize=64)
def _digest(model: bytes) -> str:
    """SHA-256 of a model, which may have megabytes and is asked for at every visit."""
    return hashlib.sha256(model).hexdigest()


def cores_of_kind(kind: str, capacities: Mapping[int, int], device: str) -> tuple[int, ...]:
    """Returns the CPUs of the highest ("big") or the lowest ("little") capacity.

    Args:
        kind: "big" or "little".
        capacities: Relative speed of the usable CPUs, by id, as far as the system says.
        device: What to call the device in an error.

    Raises:
        SpecError: If the system does not say, or all are alike.
    """
    if len(set(capacities.values())) < 2:
        raise SpecError(
            f"{device} has no {kind} cores: its system does not say that its CPUs differ",
            fix="name ids, for example 0,1",
        )
    chosen = (max if kind == "big" else min)(capacities.values())
    return tuple(sorted(core for core, capacity in capacities.items() if capacity == chosen))


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


def _check_supported(spec: BenchmarkSpec, info: DeviceInfo) -> None:
    """Refuses settings that a worker cannot follow."""
    if spec.delegate not in CPU_DELEGATES:
        raise SpecError(
            f"{info.address} runs models on its CPU only",
            expected=f"delegate {' or '.join(CPU_DELEGATES)}",
            received=f"{spec.delegate!r:.80}",
            fix="name another device for it, for example a phone",
        )
    if spec.require_cool or spec.require_charged:
        raise SpecError(
            f"{info.address} does not say whether it is cool or charged, as phones do",
            fix="leave out --require-cool and --require-charged",
        )
