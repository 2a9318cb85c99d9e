"""A stand-in for TFLite's `benchmark_model`: LiteRT's Python interpreter behind the same flags and the same output.

For machines where the real tool cannot be had. It times in Python, so its numbers say nothing. Paths of the phone are
below the folder given by PHONE_ROOT.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from device_agents.worker.profile import profile_ops
from device_agents.worker.runtime import load_runtime
from device_agents.worker.spec import BenchmarkSpec

DEFAULTS = {
    "graph": "",
    "num_runs": "50",
    "min_secs": "1",
    "max_secs": "150",
    "num_threads": "1",
    "warmup_runs": "1",
    "warmup_min_secs": "0.5",
    "enable_op_profiling": "false",
    "input_layer": "",
    "input_layer_shape": "",
    "input_layer_value_files": "",
    "output_filepath": "",
    "use_xnnpack": "true",
    "help": "false",
}


def on_host(path: str) -> str:
    return os.environ.get("PHONE_ROOT", "") + path


def statistics_line(times_us: list[int]) -> str:
    if len(set(times_us)) == 1:
        return f"INFO: count={len(times_us)} curr={times_us[0]}" + ("(all same)" if len(times_us) > 1 else "")
    return (
        f"INFO: count={len(times_us)} first={times_us[0]} curr={times_us[-1]} min={min(times_us)} max={max(times_us)} "
        f"avg={np.mean(times_us):g} std={int(np.std(times_us))}"
    )


def run_for(interpreter: Interpreter, runs: int, seconds: float) -> list[int]:
    times_us: list[int] = []
    started_s = time.perf_counter()
    while len(times_us) < runs or time.perf_counter() - started_s < seconds:
        before_s = time.perf_counter()
        interpreter.invoke()
        times_us.append(max(1, int((time.perf_counter() - before_s) * 1e6)))
    print(statistics_line(times_us) + "\n")
    return times_us


def print_profile(graph: str, threads: int) -> None:
    """The table of operators, in the tool's form, with LiteRT's own times."""
    rows, note = profile_ops(load_runtime(), Path(graph).read_bytes(), BenchmarkSpec(threads=threads))
    if note:
        print(f"ERROR: {note}", file=sys.stderr)
    print("INFO: Operator-wise Profiling Info for Regular Benchmark Runs:")
    print("============================== Run Order ==============================")
    print("\t[node type]\t[first]\t[avg ms]\t[%]\t[cdf%]\t[mem KB]\t[times called]\t[Name]")
    done = 0.0
    for place, row in enumerate(rows):
        done += row["share"]
        times = f"{row['mean_ms']:.3f}\t{row['mean_ms']:.3f}\t{row['share']:.3%}\t{done:.3%}"
        print(f"\t{row['op']}\t{times}\t0.000\t1\t[{row['name']}]:{place}")
    print()


def main() -> int:
    values, unknown = dict(DEFAULTS), []
    for argument in sys.argv[1:]:
        name, _, value = argument.removeprefix("--").partition("=")
        if name in values:
            values[name] = value or "true"
        else:
            unknown.append(argument)
    print("INFO: STARTING!")
    if unknown:
        print("WARN: Unconsumed cmdline flags:", *unknown)
    if values["help"] == "true":
        print(
            "usage: benchmark_model <flags>\nFlags:",
            *(f"\t--{k}={v}\tstring\toptional" for k, v in DEFAULTS.items()),
            sep="\n",
        )
        return 1
    started_s = time.perf_counter()
    resolver = (
        OpResolverType.AUTO if values["use_xnnpack"] == "true" else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    try:
        interpreter = Interpreter(
            on_host(values["graph"]), num_threads=int(values["num_threads"]), experimental_op_resolver_type=resolver
        )
        print(f"INFO: Loaded model {values['graph']}")
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        print(f"ERROR: {str(error).splitlines()[0]}\nERROR: Failed to load model {values['graph']}", file=sys.stderr)
        print("ERROR: Benchmarking failed.", file=sys.stderr)
        return 1
    init_us = (time.perf_counter() - started_s) * 1e6
    print(f"INFO: Initialized session in {init_us / 1e3:g}ms.")
    pairs = [pair.rsplit(":", 1) for pair in values["input_layer_value_files"].split(",") if pair]
    files = {name.replace("::", ":"): file for name, file in pairs}
    for detail in interpreter.get_input_details():
        data = np.zeros(detail["shape"], detail["dtype"])
        if detail["name"] in files:
            raw = Path(on_host(files[detail["name"]])).read_bytes()
            data = np.frombuffer(raw, detail["dtype"]).reshape(detail["shape"])
        interpreter.set_tensor(detail["index"], data)
    warm = []
    if int(values["warmup_runs"]) > 0:
        warm = run_for(interpreter, int(values["warmup_runs"]), float(values["warmup_min_secs"]))
    timed = run_for(interpreter, int(values["num_runs"]), float(values["min_secs"]))
    print(
        f"INFO: Inference timings in us: Init: {init_us:.0f}, First inference: {(warm or timed)[0]}, "
        f"Warmup (avg): {np.mean(warm or [0]):g}, Inference (avg): {np.mean(timed):g}"
    )
    if values["enable_op_profiling"] == "true":
        print_profile(on_host(values["graph"]), int(values["num_threads"]))
    print("INFO: Memory footprint delta from the start of the tool (MB): init=1.5 overall=2.5")
    if values["output_filepath"]:
        outputs = [interpreter.get_tensor(d["index"]).tobytes() for d in interpreter.get_output_details()]
        Path(on_host(values["output_filepath"])).write_bytes(b"".join(outputs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
