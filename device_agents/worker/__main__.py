"""`python -m device_agents.worker [edgetpu DEVICE]`: answers framed requests on stdin and stdout.

Requests are {"do": "hello" | "accelerator" | "keep" | "measure" | "visit" | "run", ...}; each is answered by any number
of {"stage": ...} and then exactly one {"done": ...} or {"error": ...}. It ends at once when stdin does, in the middle
of a request too, and so does not outlive the host.
"""

from __future__ import annotations

import dataclasses
import gc
import math
import os
import platform
import queue
import signal
import struct
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from . import system
from .edgetpu import EdgeTpu
from .errors import DeviceError, ProtocolError
from .feeding import Examples
from .frames import PROTOCOL_VERSION, Frame, encode_frame, pop_blobs, read_frame, unpacked
from .limits import no_core_dumps
from .measure import CandidateError, measure_model, run_model
from .runtime import Runtime, load_runtime
from .spec import BenchmarkSpec
from .stdio import take_over_stdio, write_all
from .tensors import decode_arrays, encode_arrays
from .visits import VisitedModel, Visitor

# The host ends an overdue worker itself; this is for a worker whose host is gone.
_ALARM_GRACE_S = 10


class Worker:
    """Answers requests one after the other."""

    def __init__(self, runtime: Runtime, send: Callable[[Frame], None]) -> None:
        self._runtime = runtime
        self._send = send
        self._visitor = Visitor(runtime)
        self._examples: Examples | None = None

    def answer(self, request: Frame) -> None:
        """Answers one request; a mistake in it is reported, not raised."""
        handlers = {
            "hello": self._hello,
            "keep": self._keep,
            "accelerator": self._accelerator,
            "measure": self._measure,
            "visit": self._visit,
            "run": self._run,
        }
        handler = handlers.get(str(request.header.get("do")))
        try:
            if handler is None:
                raise ProtocolError("Unknown request", expected=f"one of {sorted(handlers)}")
            self._send(handler(request))
        except (DeviceError, OSError, NotImplementedError) as error:
            self._send(Frame({"error": type(error).__name__, "message": str(error)}))

    def _hello(self, _: Frame) -> Frame:
        return Frame(
            {
                "done": "hello",
                "protocol": PROTOCOL_VERSION,
                "runtime": self._runtime.name,
                "runtime_version": self._runtime.version,
                "python": platform.python_version(),
                "device": system.describe(),
            }
        )

    def _keep(self, request: Frame) -> Frame:
        """Keeps examples that settings name by their digest, in place of those it had."""
        arrays = decode_arrays(request.header.get("inputs"), request.blobs)
        if len(arrays) != 1:
            raise ProtocolError("Examples must be one array", received=f"{len(arrays)}")
        try:
            self._examples = Examples.of(arrays[0])
        except ValueError as error:
            raise ProtocolError(str(error)) from None
        return Frame({"done": "keep", "inputs": self._examples.digest})

    def _examples_for(self, spec: BenchmarkSpec) -> Examples | None:
        if not spec.inputs:
            return None
        if self._examples is None or self._examples.digest != spec.inputs:
            raise ProtocolError(f"The examples {spec.inputs} were not sent")
        return self._examples

    def _accelerator(self, request: Frame) -> Frame:
        """Tries the accelerator on a model for the CPU; says what there is, and what comes of it."""
        (model, *_) = pop_blobs(request, at_least=1)
        accelerator = self._runtime.accelerator
        if accelerator is None:
            raise ProtocolError("This worker was started without an accelerator")
        return Frame({"done": "accelerator", **accelerator.examine(self._runtime.module, model)})

    def _measure(self, request: Frame) -> Frame:
        (model, *_) = pop_blobs(request, at_least=1)
        spec = BenchmarkSpec.from_json(request.header.get("spec", {}))
        with _alarm(spec.timeout_s + _ALARM_GRACE_S):
            outcome = measure_model(self._runtime, model, spec, self._announce, self._examples_for(spec))
        facts = dataclasses.asdict(outcome)
        samples_ms = facts.pop("samples_ms")
        return Frame({"done": "measure", **facts}, (pack_samples(samples_ms),))

    def _visit(self, request: Frame) -> Frame:
        """Visits models in turns; those that are loaded already come without their bytes."""
        rows, order = request.header.get("models"), request.header.get("order")
        if not isinstance(rows, list) or not isinstance(order, list):
            raise ProtocolError("A visit needs models and their order")
        blobs = list(pop_blobs(request, at_least=0))
        specs = [BenchmarkSpec.from_json(row["spec"]) for row in rows]
        models = [
            VisitedModel(str(row["key"]), _sent_model(row, blobs), spec, self._examples_for(spec))
            for row, spec in zip(rows, specs)
        ]
        cores = models[0].spec.cores if models else None
        before = system.snapshot(cores)
        facts, samples_ms = [], []  # type: list[dict[str, Any]], list[float]
        with _alarm(sum(models[position].spec.timeout_s for position in order) + _ALARM_GRACE_S):
            for outcome in self._visitor.visit(models, order, self._announce_model):
                fact = dataclasses.asdict(outcome)
                taken = fact.pop("samples_ms")
                facts.append({**fact, "runs": len(taken)})
                samples_ms += taken
        after = system.snapshot(cores)
        header = {"done": "visit", "visits": facts, "before": before, "after": after, "loaded": self._visitor.loaded}
        return Frame(header, (pack_samples(samples_ms),))

    def _announce_model(self, stage: str, position: int) -> None:
        self._send(Frame({"stage": stage, "model": position}))

    def _run(self, request: Frame) -> Frame:
        (model, *blobs) = pop_blobs(request, at_least=1)
        inputs = decode_arrays(request.header.get("inputs"), blobs)
        try:
            outputs = run_model(self._runtime, model, inputs)
        except CandidateError as failure:
            return Frame({"done": "run", "failure": failure.report})
        descriptions, data = encode_arrays(outputs)
        return Frame({"done": "run", "failure": None, "outputs": descriptions}, data)

    def _announce(self, stage: str) -> None:
        self._send(Frame({"stage": stage}))


def _sent_model(row: dict[str, Any], blobs: list[bytes]) -> bytes | None:
    """Takes a model that came with the request out of its blobs."""
    if not row["sent"]:
        return None
    blob = blobs.pop(0)
    return unpacked(blob) if row["packed"] else blob


def pack_samples(samples_ms: Iterable[float]) -> bytes:
    """Returns the samples as little-endian float64."""
    values = list(samples_ms)
    return struct.pack(f"<{len(values)}d", *values)


# By the first argument that starts the worker; the second says which of them.
_ACCELERATORS = {"edgetpu": EdgeTpu}


def main() -> None:
    """Serves stdin and stdout until stdin ends."""
    name, device = [*sys.argv[1:], "", ""][:2]
    no_core_dumps()
    read_fd, write_fd = take_over_stdio()
    requests: queue.Queue[Frame] = queue.Queue()
    threading.Thread(target=_receive, args=(read_fd, requests), daemon=True).start()
    runtime = load_runtime(_ACCELERATORS[name](device) if name else None)
    # What is loaded now stays; collecting garbage before each timing need not walk it.
    gc.freeze()
    with os.fdopen(write_fd, "wb", buffering=0) as sink:
        worker = Worker(runtime, lambda frame: write_all(sink, encode_frame(frame)))
        while True:
            worker.answer(requests.get())


def _receive(read_fd: int, requests: queue.Queue[Frame]) -> None:
    """Queues requests. The end of stdin, or rubbish in it, ends the process.

    A thread, because the main one cannot look at stdin during an inference. It sleeps in
    `read` while a model is timed and so does not disturb.
    """
    try:
        while True:
            request = read_frame(lambda count: os.read(read_fd, count))
            if request is None:
                break
            requests.put(request)
    except ProtocolError as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(2)
    os._exit(0)


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Lets the system end this process if the block takes longer, even in native code."""
    if not hasattr(signal, "alarm"):
        yield
        return
    signal.alarm(math.ceil(seconds))
    try:
        yield
    finally:
        signal.alarm(0)


if __name__ == "__main__":
    main()
