"""The measuring loop: load, first inference, warm up until stable, time until sure.

It only reports what happened; what the numbers are worth is assessed on the host
(`device_agents.verdicts`).
"""

from __future__ import annotations

import gc
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator, Sequence

from . import system
from .energy import EnergyMeter
from .feeding import Examples, FedModel
from .limits import limited_memory, pinned, return_free_memory
from .profile import profile_ops
from .runtime import Runtime, count_delegate_kernels
from .spec import BenchmarkSpec
from .statistics import median_of, relative_half_width
from .tensors import Array, wanted_shapes

Announce = Callable[[str], None]

# Warm-up is over when the last runs are no longer faster than those before them.
_WARMUP_WINDOW = 4
_WARMUP_TOLERANCE = 0.03
# The interval is computed again only after so many more runs, so that sorting the
# samples stays a small part of the time and leaves the caches to the model.
_CHECK_GROWTH = 1.2


@dataclass
class Outcome:
    """What happened to one model, field by field as it became known.

    Attributes:
        failure: None, or stage ("load" or "run"), kind ("error" or "out_of_memory")
            and message of what went wrong.
        inputs: What it was run on, see `FedModel.inputs`; None if it was not run.
        waited_s: Seconds in which this process was runnable but had no core; of a visit only.
        busy_s: Seconds spent in the first inference, warming up and timing.
        energy_mj: Energy of one timed run, in millijoules.
        energy_note: See `EnergyMeter.note`; "" if not requested.
        before: `system.snapshot` just before timing.
        after: The same just after.
    """

    samples_ms: list[float] = field(default_factory=list)
    inputs: str | None = None
    waited_s: float | None = None
    failure: dict[str, str] | None = None
    init_ms: float | None = None
    first_inference_ms: float | None = None
    warmup_runs: int | None = None
    busy_s: float = 0.0
    peak_memory_bytes: int | None = None
    energy_mj: float | None = None
    energy_note: str = ""
    delegate_kernels: int | None = None
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    profile: list[dict[str, Any]] = field(default_factory=list)
    profile_note: str = ""


class CandidateError(Exception):
    """The model does not work; carries where and how."""

    def __init__(self, stage: str, kind: str, message: str) -> None:
        super().__init__(message)
        self.report = {"stage": stage, "kind": kind, "message": message}


def measure_model(
    runtime: Runtime, model: bytes, spec: BenchmarkSpec, announce: Announce, examples: Examples | None = None
) -> Outcome:
    """Measures one model; a model that fails is reported in the outcome.

    Args:
        runtime: What runs it.
        model: A TFLite file.
        spec: How to measure.
        announce: Is told the stage ("load", "run") before it begins, so that the host
            knows it should this process die.
        examples: What it is run on; None for random values.

    Raises:
        OSError: If the cores in the settings cannot be used.
    """
    outcome = Outcome()
    return_free_memory()
    can_reset_peak = system.reset_peak_memory()
    resident_before = system.memory_bytes("VmRSS")
    with pinned(spec.cores), limited_memory(spec.memory_limit_bytes):
        try:
            announce("load")
            with failures_of("load"):
                interpreter = load(runtime, model, spec, outcome)
            announce("run")
            with failures_of("run"):
                _time(FedModel(interpreter, examples), spec, outcome, runtime.accelerator is not None)
        except CandidateError as failure:
            outcome.failure = failure.report
    if can_reset_peak:
        outcome.peak_memory_bytes = _growth(resident_before, system.memory_bytes("VmHWM"))
    # After the peak is read: the profiler loads the model once more.
    if spec.profile_ops and outcome.failure is None:
        with pinned(spec.cores), limited_memory(spec.memory_limit_bytes):
            outcome.profile, outcome.profile_note = profile_ops(runtime, model, spec)
    return outcome


def run_model(runtime: Runtime, model: bytes, inputs: Sequence[Array]) -> list[Array]:
    """Runs a model once on given inputs and returns its outputs, in the model's order.

    Raises:
        CandidateError: If the model or the inputs do not work.
    """
    with failures_of("load"):
        interpreter = runtime.interpreter(model, threads=1, delegate="cpu")
        details = interpreter.get_input_details()
        if len(details) != len(inputs):
            raise ValueError(f"The model has {len(details)} inputs; received {len(inputs)}")
        for detail, value in zip(details, inputs):
            if tuple(detail["shape"]) != value.shape:
                interpreter.resize_tensor_input(detail["index"], value.shape)
        interpreter.allocate_tensors()
    with failures_of("run"):
        for detail, value in zip(details, inputs):
            interpreter.set_tensor(detail["index"], value)
        interpreter.invoke()
        return [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]


@contextmanager
def failures_of(stage: str) -> Iterator[None]:
    """Turns whatever the runtime raises into a `CandidateError` of this stage."""
    try:
        yield
    except MemoryError as error:
        raise CandidateError(stage, "out_of_memory", str(error) or "out of memory") from error
    except Exception as error:
        message = " ".join(str(error).split())
        if isinstance(error, RuntimeError) and not message:
            # The runtime explains every failure but one: tensors it cannot allocate.
            message = "the tensors do not fit into the memory allowed"
            raise CandidateError(stage, "out_of_memory", message) from error
        raise CandidateError(stage, "error", message or "the runtime gave no reason") from error


def load(runtime: Runtime, model: bytes, spec: BenchmarkSpec, outcome: Outcome) -> Any:
    """Returns an interpreter with its tensors allocated, and notes what that took."""
    start_s = time.perf_counter()
    interpreter = runtime.interpreter(model, spec.threads, spec.delegate)
    shapes = wanted_shapes(interpreter.get_input_details(), spec.input_shapes)
    for index, shape in shapes.items():
        interpreter.resize_tensor_input(index, shape)
    interpreter.allocate_tensors()
    outcome.init_ms = (time.perf_counter() - start_s) * 1e3
    outcome.delegate_kernels = count_delegate_kernels(interpreter)
    return interpreter


def _time(model: FedModel, spec: BenchmarkSpec, outcome: Outcome, accelerator: bool) -> None:
    outcome.inputs = model.inputs
    with no_garbage_collection():
        start_s = time.perf_counter()
        outcome.first_inference_ms = model.invoke_ms()
        outcome.warmup_runs = _warm_up(model, spec)
        outcome.before = system.snapshot(spec.cores)
        with metered(EnergyMeter(accelerator=accelerator) if spec.energy else None, outcome):
            time_runs(model, spec, outcome.samples_ms)
        outcome.after = system.snapshot(spec.cores)
        outcome.busy_s = time.perf_counter() - start_s


def _warm_up(model: FedModel, spec: BenchmarkSpec) -> int:
    """Runs until times stop falling or the time for warming up is over."""
    times_ms: list[float] = []
    start_s = time.perf_counter()
    while True:
        elapsed_s = time.perf_counter() - start_s
        if elapsed_s >= spec.warmup_max_duration_s:
            return len(times_ms)
        enough = len(times_ms) >= spec.warmup_min_runs and elapsed_s >= spec.warmup_min_duration_s
        if enough and _is_stable(times_ms):
            return len(times_ms)
        times_ms.append(model.invoke_ms())


def _is_stable(times_ms: Sequence[float]) -> bool:
    if len(times_ms) < 2 * _WARMUP_WINDOW:
        return False
    recent = median_of(times_ms[-_WARMUP_WINDOW:])
    before = median_of(times_ms[-2 * _WARMUP_WINDOW : -_WARMUP_WINDOW])
    return recent >= before * (1 - _WARMUP_TOLERANCE)


def time_runs(model: FedModel, spec: BenchmarkSpec, samples_ms: list[float]) -> None:
    """Adds timed runs to `samples_ms` until the settings are satisfied."""
    next_check = spec.min_runs
    spent_ms = 0.0
    while len(samples_ms) < spec.max_runs:
        sample_ms = model.invoke_ms()
        samples_ms.append(sample_ms)
        spent_ms += sample_ms
        count = len(samples_ms)
        if count >= spec.min_runs and spent_ms >= spec.max_duration_s * 1e3:
            return
        if count >= next_check and spent_ms >= spec.min_duration_s * 1e3:
            width = relative_half_width(samples_ms)
            if width is not None and width <= spec.target_relative_half_width:
                return
            next_check = max(count + 1, int(count * _CHECK_GROWTH))


@contextmanager
def metered(meter: EnergyMeter | None, outcome: Outcome) -> Iterator[None]:
    """Records the mean energy of the runs timed in the block in the outcome; without a meter, nothing."""
    before = None if meter is None else meter.read()
    yield
    if meter is None:
        return
    spent_mj = meter.since(before)
    outcome.energy_note = meter.note
    if spent_mj is not None and outcome.samples_ms:
        outcome.energy_mj = spent_mj / len(outcome.samples_ms)
    elif before is not None:
        outcome.energy_note = "the CPU's energy counters stood still"


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keeps Python from collecting garbage while models are timed."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _growth(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else max(0, after - before)
