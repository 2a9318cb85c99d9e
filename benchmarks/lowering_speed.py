"""Claim: writing a candidate's TFLite file directly is at least 100 times faster than converting it, and as good.

For MobileNetV2 and MobileNetV3-Large at 224 px, float32 and int8, in one process:

* the time of `tflite_model` (median of several) against that of `TFLiteConverter.from_keras_model(...).convert()` on
  an already built Keras model;
* the two files' operators, which must be identical: names, order, versions, fused activations, shapes, types;
* the latency of the two files on this machine, run alternately on one thread, which must agree within 3%.

Run `python -m benchmarks.lowering_speed [--quick]`; the last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nas_edge.networks.graph import NetworkSpec
from nas_edge.networks.precisions import Precision
from nas_edge.networks.tflite_model import operators, tflite_model
from nas_edge.spaces.reference import reference_network

NETWORKS = ("mobilenet-v2", "mobilenet-v3-large")
PRECISIONS: tuple[Precision, ...] = ("float32", "int8")
INPUT_SIZE = 224

MINIMUM_SPEEDUP = 100.0
MAXIMUM_LATENCY_DIFFERENCE = 0.03

RUNS_PER_SESSION = 20
PATIENCE_S = 120


@dataclass(frozen=True)
class Result:
    """What was measured for one network in one precision.

    Attributes:
        network: name of the reference network.
        precision: `float32` or `int8`.
        writer_ms: median time of writing the file.
        converter_ms: time of converting the same network once.
        speedup: their ratio.
        same_operators: whether the two files have the same operators.
        written_latency_ms: median latency of the written file.
        converted_latency_ms: median latency of the converted file.
        latency_difference: written over converted latency, minus 1, compared pair by pair.
    """

    network: str
    precision: Precision
    writer_ms: float
    converter_ms: float
    speedup: float
    same_operators: bool
    written_latency_ms: float
    converted_latency_ms: float
    latency_difference: float

    @property
    def passed(self) -> bool:
        """Whether all three claims hold."""
        return (
            self.speedup >= MINIMUM_SPEEDUP
            and self.same_operators
            and abs(self.latency_difference) <= MAXIMUM_LATENCY_DIFFERENCE
        )


def timed(function: Callable[[], bytes]) -> tuple[bytes, float]:
    """A function's result and how long it took, in ms."""
    start = time.perf_counter()
    result = function()
    return result, (time.perf_counter() - start) * 1e3


def convert(model: Any, precision: Precision) -> bytes:
    """The converter's file, quantised with a few random images: their number does not change the graph."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if precision == "int8":
        images = np.random.default_rng(0).uniform(-1, 1, (2, *model.input_shape)).astype(np.float32)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image] for image in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted: bytes = converter.convert()
    return converted


def alternate(files: tuple[bytes, bytes], wanted: int) -> tuple[float, float, float]:
    """Latencies of two files run in turn.

    Runs that follow each other share the machine's state, so the two are compared pair by pair, and the median pair
    counts. A pair is left out when the core was lent to another process meanwhile, which shows in more wall time than
    CPU time. Where a model lands in memory moves its time by some percent, so both are loaded anew for every session,
    in alternating order.

    Args:
        files: two TFLite files with the same input.
        wanted: how many pairs of runs to count at least.

    Returns:
        The median latency of each in ms, and the median pair's ratio of the first to the second.

    Raises:
        SystemExit: when the machine was too busy to tell.
    """
    pairs: list[tuple[float, float]] = []
    end = time.monotonic() + PATIENCE_S
    session = 0
    while len(pairs) < wanted or session % 2:
        if time.monotonic() > end:
            raise SystemExit(f"only {len(pairs)} undisturbed pairs of runs in {PATIENCE_S} s; run this when idle")
        order = (0, 1) if session % 2 == 0 else (1, 0)
        loaded = {which: load(files[which]) for which in order}
        for run in range(RUNS_PER_SESSION):
            latency, disturbed = [0.0, 0.0], False
            for which in order if run % 2 == 0 else order[::-1]:
                start, start_cpu = time.perf_counter(), time.thread_time()
                loaded[which].invoke()
                latency[which], cpu = time.perf_counter() - start, time.thread_time() - start_cpu
                disturbed = disturbed or latency[which] > 1.05 * cpu
            if not disturbed:
                pairs.append((latency[0] * 1e3, latency[1] * 1e3))
        session += 1
    first, second = zip(*pairs, strict=True)
    return statistics.median(first), statistics.median(second), statistics.median(a / b for a, b in pairs)


def load(file: bytes) -> Any:
    """An interpreter on one thread, with random input, warmed up."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=file, num_threads=1)
    interpreter.allocate_tensors()
    details = interpreter.get_input_details()[0]
    image = np.random.default_rng(0).uniform(-1, 1, details["shape"])
    scaled = image if details["dtype"] == np.float32 else image * 127
    interpreter.set_tensor(details["index"], scaled.astype(details["dtype"]))
    for _ in range(5):
        interpreter.invoke()
    return interpreter


def measure(name: str, spec: NetworkSpec, model: Any, precision: Precision, quick: bool) -> Result:
    """Writes, converts and runs one network."""
    writes = [timed(lambda: tflite_model(spec, precision)) for _ in range(5 if quick else 15)]
    written, writer_ms = writes[0][0], statistics.median(ms for _, ms in writes)
    converted, converter_ms = timed(lambda: convert(model, precision))
    written_ms, converted_ms, ratio = alternate((written, converted), wanted=60 if quick else 1000)
    return Result(
        name,
        precision,
        writer_ms,
        converter_ms,
        converter_ms / writer_ms,
        operators(written) == operators(converted),
        written_ms,
        converted_ms,
        ratio - 1,
    )


def main() -> int:
    """Runs the benchmark; the exit status is 0 when every claim holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, under a minute on two cores")
    quick = parser.parse_args().quick
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from nas_edge.networks.keras_model import keras_model

    results = []
    for name in NETWORKS:
        spec = reference_network(name, INPUT_SIZE)
        model = keras_model(spec, batch_size=1)
        for precision in PRECISIONS:
            result = measure(name, spec, model, precision, quick)
            results.append(result)
            print(
                f"{name} {precision}: written in {result.writer_ms:.1f} ms, converted in {result.converter_ms:.0f} ms "
                f"({result.speedup:.0f} times), operators {'identical' if result.same_operators else 'DIFFERENT'}, "
                f"latency {result.written_latency_ms:.2f} and {result.converted_latency_ms:.2f} ms "
                f"({result.latency_difference:+.1%})",
                flush=True,
            )
    passed = all(result.passed for result in results)
    figures = {
        "benchmark": "lowering_speed",
        "results": [asdict(result) for result in results],
        "target": {"speedup": MINIMUM_SPEEDUP, "latency_difference": MAXIMUM_LATENCY_DIFFERENCE},
        "pass": passed,
    }
    print(json.dumps(figures))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
