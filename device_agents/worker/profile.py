"""Times of single operators, as the runtime's own profiler gives them.

Operators that a delegate took over appear as the delegate's kernels: XNNPACK fuses and
reorders, so they are not one to one those of the file.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from .litert_c import (
    CHECKED_VERSIONS,
    DELEGATE_OPERATOR,
    DELEGATE_PROFILED_OPERATOR,
    OPERATOR,
    Event,
    LiteRtError,
    ProfiledModel,
)
from .runtime import Runtime
from .spec import BenchmarkSpec
from .tensors import Array, random_input, wanted_shapes

_WARMUP_RUNS = 3
_MIN_RUNS = 3
_MAX_RUNS = 50
_MAX_DURATION_S = 1.0
_INPUT_SEED = 0


def profile_ops(runtime: Runtime, model: bytes, spec: BenchmarkSpec) -> tuple[list[dict[str, Any]], str]:
    """Returns rows (op, name, mean_ms, share) in the order of running, or none and why not.

    The times include what the profiler costs, and each is a whole number of microseconds
    before the mean is taken.
    """
    if runtime.name != "ai_edge_litert" or not runtime.version.startswith(CHECKED_VERSIONS):
        return [], f"{runtime.name} {runtime.version} does not tell the times of single operators to Python"
    try:
        interpreter = runtime.interpreter(model, threads=1, delegate="none")
        inputs = _inputs(interpreter, spec)
        with ProfiledModel(model, spec.threads, spec.delegate) as profiled:
            profiled.prepare([inputs[name] for name in profiled.input_names])
            return summarize_runs(_collect(profiled), _output_names(interpreter)), ""
    except (LiteRtError, OSError, MemoryError, RuntimeError, ValueError, KeyError) as error:
        return [], f"the profiler of {runtime.name} {runtime.version} does not take this model: {error}"


def summarize_runs(runs: Sequence[Sequence[Event]], output_names: dict[int, str]) -> list[dict[str, Any]]:
    """Returns the mean time of each operator over several runs of a model.

    Args:
        runs: The profiler's events of each run.
        output_names: Output tensor of each operator of the graph, by its index.

    Raises:
        LiteRtError: If there is no operator, or the runs do not have the same ones.
    """
    operators = [_operators(run) for run in runs]
    sequence = [(event.tag, event.kind, event.node) for event in operators[0]]
    if not sequence:
        raise LiteRtError("it recorded no operator")
    if any([(e.tag, e.kind, e.node) for e in run] != sequence for run in operators):
        raise LiteRtError("it recorded other operators in each run")
    means_ms = np.array([[event.elapsed_us for event in run] for run in operators]).mean(axis=0) / 1e3
    total_ms = float(means_ms.sum())
    return [
        {
            "op": tag,
            "name": output_names.get(node, f"operator {node}") if kind == OPERATOR else f"delegate operator {node}",
            "mean_ms": float(mean_ms),
            "share": float(mean_ms) / total_ms if total_ms > 0 else 0.0,
        }
        for (tag, kind, node), mean_ms in zip(sequence, means_ms)
    ]


def _operators(run: Sequence[Event]) -> list[Event]:
    """The events of operators, without those inside another one, as in the body of a loop."""
    kept: list[Event] = []
    end_us = -1
    for event in run:
        if event.kind not in (OPERATOR, DELEGATE_OPERATOR, DELEGATE_PROFILED_OPERATOR) or event.start_us < end_us:
            continue
        kept.append(event)
        # A delegate reports its kernels afterwards, all with one start.
        if event.kind == OPERATOR:
            end_us = event.start_us + event.elapsed_us
    return kept


def _collect(profiled: ProfiledModel) -> list[list[Event]]:
    for _ in range(_WARMUP_RUNS):
        profiled.run()
    runs: list[list[Event]] = []
    start_s = time.perf_counter()
    while len(runs) < _MIN_RUNS or (len(runs) < _MAX_RUNS and time.perf_counter() - start_s < _MAX_DURATION_S):
        runs.append(profiled.profile())
    return runs


def _inputs(interpreter: Any, spec: BenchmarkSpec) -> dict[str, Array]:
    rng = np.random.default_rng(_INPUT_SEED)
    details = interpreter.get_input_details()
    shapes = wanted_shapes(details, spec.input_shapes)
    if any(np.dtype(detail["dtype"]).kind in "SUO" for detail in details):
        raise LiteRtError("it has a string input")
    return {
        str(detail["name"]): random_input({**detail, "shape": shapes.get(int(detail["index"]), detail["shape"])}, rng)
        for detail in details
    }


def _output_names(interpreter: Any) -> dict[int, str]:
    # Not public, but there for years; without it the operators have numbers only.
    list_ops = getattr(interpreter, "_get_ops_details", None)
    if list_ops is None:
        return {}
    names = {int(t["index"]): str(t["name"]) for t in interpreter.get_tensor_details()}
    return {int(op["index"]): names.get(int(op["outputs"][0]), "") for op in list_ops() if len(op["outputs"])}
