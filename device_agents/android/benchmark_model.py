"""TFLite's `benchmark_model`: its command line, and what it prints.

The tool prints no single runs, only their count, mean, extremes and deviation (newer builds: quantiles, too). So a
model that is measured in one go is timed in several short processes, called blocks here, and each block gives one
sample: the median of its runs where the tool prints it, else their mean. What differs from one process to the next
(where memory lies, what the scheduler does) is then part of the spread, and the interval of the median over blocks is
an honest one. A visit is one process, and gives one sample, too: its fastest run, which is what a neighbour disturbs
least; the mean of a visit under contention was seen to be twice as much, and to repeat hardly ever.

Sources: tensorflow/lite/tools/benchmark of TensorFlow 1.15 to 2.21 and google-ai-edge/LiteRT; traps by number:
1. A statistics line is `count=1 curr=N` for one run and `count=N curr=X(all same)` for equal ones.
2. Builds before 2.5 print no `INFO: `; still older ones another summary line.
3. The first `count=` line is the warm-up, the second the measurement; profiling tables have more of their own.
4. `min_secs` and `warmup_min_secs` have defaults that run far more often than `num_runs`.
5. A flag the build does not know is a warning, exit status 0 and a CPU number. So is a delegate that takes no operator.
6. A delegate plugin that fails ends the tool by SIGSEGV.
7. Profiling tables have one more column in old builds, and an operator's name may hold anything.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from device_agents.android.transport import printable
from device_agents.api import CPU_DELEGATES, BenchmarkSpec, Delegate, OpTime, Verdict
from device_agents.errors import SpecError
from device_agents.worker.statistics import MIN_SAMPLES_FOR_INTERVAL

# With nine samples the 95% interval of the median leaves out the smallest and the largest: one disturbed block does no
# harm.
BLOCKS = 9
PROFILE_RUNS = 10
_MAX_PROFILE_ROWS = 10_000
_SAFE_NAME = re.compile(r"[^,\s\"'\\]+")

# Flags of each delegate. `cpu` is what the build does by itself: XNNPACK where it was linked in.
_DELEGATE_FLAGS: Mapping[str, tuple[str, ...]] = {
    "cpu": (),
    "none": ("--use_xnnpack=false",),
    "gpu": ("--use_gpu=true",),
    "nnapi": ("--use_nnapi=true",),
}
# A build without XNNPACK does not know this flag, and does what it asks for.
_HARMLESS_IF_UNKNOWN = ("--use_xnnpack=false",)
# How the tool calls each delegate where it says what became of it.
_PRINTED_NAMES = {"cpu": "XNNPACK", "gpu": "GPU", "nnapi": "NNAPI", "external": "EXTERNAL"}
# The runtime's own words name the delegate's class; one of XNNPACK's does not say what became of another.
_CPU_DELEGATE = re.compile("xnnpack", re.IGNORECASE)


@dataclass(frozen=True)
class RunStatistics:
    """One `count=` line; times in microseconds, None where not printed."""

    count: int
    mean_us: float
    min_us: float | None = None
    max_us: float | None = None
    std_us: float | None = None
    median_us: float | None = None
    p5_us: float | None = None
    p95_us: float | None = None

    @property
    def sample_us(self) -> float:
        """What stands for the block: the median if the tool prints it, else the mean."""
        return self.mean_us if self.median_us is None else self.median_us

    @property
    def quiet_us(self) -> float:
        """What stands for a visit: its fastest run if the tool prints it, else what stands for a block."""
        return self.sample_us if self.min_us is None else self.min_us


@dataclass(frozen=True)
class DelegateUse:
    """What became of a delegate that was asked for.

    Attributes:
        name: As printed: GPU, NNAPI, XNNPACK, EXTERNAL, or the name of a class.
        extent: "complete", "partial" or "none".
        kernels: Parts of the graph it took over, None if not said.
        nodes: Operators it took over, out of how many; None if not said.
    """

    name: str
    extent: str
    kernels: int | None
    nodes: tuple[int, int] | None = None

    @property
    def share(self) -> str:
        """How much it took, for messages, as far as that is known."""
        if self.nodes is not None:
            return f" ({self.nodes[0]} of {self.nodes[1]} operators)"
        return "" if self.kernels is None else f" ({self.kernels} kernel{'s' * (self.kernels != 1)})"


@dataclass(frozen=True)
class ToolReport:
    """What one process of the tool printed. Times in microseconds, sizes in bytes; None: not printed.

    Attributes:
        warmup: Statistics of the warm-up.
        timed: Statistics of the timed runs.
        init_us: Time to create the interpreter.
        first_inference_us: Time of the first inference.
        model_bytes: Size of the model file.
        init_memory_bytes: Growth of resident memory until the model was ready.
        overall_memory_bytes: Growth of resident memory until the end.
        unknown_flags: Flags the build does not know and has ignored.
        delegates: Delegates and what they took.
        loaded: Whether it says that it has read the model.
        ready: Whether it says that the interpreter is ready.
        profile: Times of single operators.
        problem: The line that says best why it failed, "" if none does.
    """

    warmup: RunStatistics | None = None
    timed: RunStatistics | None = None
    init_us: float | None = None
    first_inference_us: float | None = None
    model_bytes: int | None = None
    init_memory_bytes: int | None = None
    overall_memory_bytes: int | None = None
    unknown_flags: tuple[str, ...] = ()
    delegates: tuple[DelegateUse, ...] = ()
    loaded: bool = False
    ready: bool = False
    profile: tuple[OpTime, ...] = ()
    problem: str = ""

    def use_of(self, delegate: Delegate) -> DelegateUse | None:
        """Returns what became of a delegate that was asked for by name, None if nothing is said of it."""
        told = [use for use in self.delegates if use.name == _PRINTED_NAMES.get(delegate.name)]
        # What the runtime says, which counts operators; LiteRT's tool says nothing else.
        counted = [use for use in self.delegates if use.nodes is not None and not _CPU_DELEGATE.search(use.name)]
        if told and counted:
            return replace(told[-1], nodes=counted[-1].nodes)
        return next(reversed(told or counted), None)

    def with_result(self, numbers: Mapping[str, float]) -> ToolReport:
        """Returns the report with what a result file knows, see `result_file.read_result_file`."""
        known = {name.removesuffix("_ms"): value * 1e3 for name, value in numbers.items() if name.endswith("_ms")}
        known |= {name.removesuffix("_kb"): value * 1024 for name, value in numbers.items() if name.endswith("_kb")}
        timed = self.timed
        if "avg" in known:
            timed = RunStatistics(
                count=int(numbers.get("num_runs", 0)) or (timed.count if timed else 0),
                mean_us=known["avg"],
                min_us=known.get("min"),
                max_us=known.get("max"),
                std_us=known.get("stddev"),
                median_us=known.get("median"),
                p5_us=known.get("p5"),
                p95_us=known.get("p95"),
            )
        init_bytes, overall_bytes = known.get("init_footprint"), known.get("overall_footprint")
        return replace(
            self,
            timed=timed,
            init_us=known.get("init", self.init_us),
            first_inference_us=known.get("first_inference", self.first_inference_us),
            init_memory_bytes=self.init_memory_bytes if init_bytes is None else int(init_bytes),
            overall_memory_bytes=self.overall_memory_bytes if overall_bytes is None else int(overall_bytes),
        )


# ------------------------------------------------------------------------------------------------------ command line


@dataclass(frozen=True)
class Invocation:
    """What the tool is asked to do.

    Attributes:
        flags: Its arguments, one after another.
        delegate: What is to execute the model.
        runs: Timed runs at least.
    """

    flags: tuple[str, ...]
    delegate: Delegate
    runs: int


def block_invocation(spec: BenchmarkSpec, graph: str, library: str = "", blocks: int = BLOCKS) -> Invocation:
    """Returns how one block of a measurement is run, or with a single block a visit.

    Args:
        spec: How to measure; its runs and times are shared out among the blocks.
        graph: The model file on the phone.
        library: Where the spec's external delegate is on the phone, if it asks for one.
        blocks: How many there are.

    Raises:
        SpecError: If the settings cannot be expressed.
    """
    runs = max(1, math.ceil(spec.min_runs / blocks))
    return _invocation(
        spec,
        graph,
        library,
        runs,
        # Exactly as often, and as long, as was asked: the tool's own minimum times would be 1 s and 0.5 s. Its maximum
        # would end a slow model before its runs are in.
        [
            f"--min_secs={_decimal(spec.min_duration_s / blocks)}",
            f"--max_secs={_decimal(spec.timeout_s)}",
            f"--warmup_runs={max(1, spec.warmup_min_runs)}",
            f"--warmup_min_secs={_decimal(spec.warmup_min_duration_s)}",
        ],
    )


def profile_invocation(spec: BenchmarkSpec, graph: str, library: str = "") -> Invocation:
    """Returns how operators are profiled, in a process of its own, since profiling slows the runs down."""
    flags = ["--min_secs=0", "--warmup_runs=1", "--warmup_min_secs=0", "--enable_op_profiling=true"]
    return _invocation(spec, graph, library, PROFILE_RUNS, flags)


def delegate_flags(delegate: Delegate, library: str) -> tuple[str, ...]:
    """Returns the arguments that ask for a delegate."""
    if delegate.name != "external":
        return _DELEGATE_FLAGS[delegate.name]
    options = ";".join(f"{key}:{value}" for key, value in delegate.options)
    return (f"--external_delegate_path={library}", *([f"--external_delegate_options={options}"] if options else []))


def _invocation(spec: BenchmarkSpec, graph: str, library: str, runs: int, more: Sequence[str]) -> Invocation:
    delegate = Delegate.parse(spec.delegate)
    return Invocation(
        (
            f"--graph={graph}",
            f"--num_runs={runs}",
            f"--num_threads={spec.threads}",
            *more,
            *delegate_flags(delegate, library),
            *_shape_flags(spec.input_shapes),
        ),
        delegate,
        runs,
    )


def _shape_flags(shapes: Sequence[tuple[str, Sequence[int]]]) -> list[str]:
    if not shapes:
        return []
    for name, _ in shapes:
        if not _SAFE_NAME.fullmatch(name):
            raise SpecError(
                "benchmark_model cannot be given the shape of an input with this name",
                expected="no commas, quotes or spaces",
                received=f"{name!r:.80}",
            )
    names = ",".join(name for name, _ in shapes)
    return [
        f"--input_layer={names}",
        "--input_layer_shape=" + ":".join(",".join(map(str, shape)) for _, shape in shapes),
    ]


def _decimal(seconds: float) -> str:
    # The tool's flags are not read in scientific notation by every build.
    return f"{seconds:.6f}".rstrip("0").rstrip(".") or "0"


# ------------------------------------------------------------------------------------------------------------ output

# Lines come from a phone: whatever is searched for must be found, or not, without trying every length of every part.
_MAX_LINE = 1000
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
# LiteRT's own tool adds where in its source a line comes from.
_PREFIX = re.compile(r"^(?:INFO|WARN|WARNING|ERROR): (?:\[[\w./-]+:\d+\] ?)?")
_COUNT_LINE = re.compile(r"^count=(\d+)\b(.*)$")
_KEY_VALUE = re.compile(rf"\b(\w{{1,40}})=({_NUMBER})(\(all same\))?(?=\s|$)")
_TIMINGS = re.compile(r"^(?:Average inference|Inference) timings in us: (.*)$")
_TIMING = re.compile(rf"([A-Za-z ()]{{1,40}}): ({_NUMBER})")
_MEMORY = re.compile(
    rf"^(?:Memory footprint delta from the start of the tool|Peak memory footprint) \(MB\): "
    rf"init=({_NUMBER}) overall=({_NUMBER})"
)
_MODEL_SIZE = re.compile(rf"^The input model file size \(MB\): ({_NUMBER})")
# The block that LiteRT's tool prints in the end.
_RESULT = re.compile(rf"^([A-Z][a-z]+(?: \(\w+\)| \w+)):\s+({_NUMBER})(?: ms| MB)?(?: \((\d+) runs\))?$")
_UNKNOWN_FLAGS = re.compile(r"^Unconsumed cmdline flags: (.*)$")
_DELEGATED = re.compile(
    r"^Explicitly applied (\w+) delegate, and the model graph will be (partially|completely) executed by the delegate"
    r"(?: w/ (\d+) delegate kernels)?"
)
_REPLACED = re.compile(r"^Replacing (\d+) out of (\d+) node\(s\) with delegate \(([\w ]+)\) node")
_NOT_DELEGATED = re.compile(r"^Though (\w+) delegate is explicitly applied, the model graph will not be executed")
_PROFILE_START = re.compile(r"^Operator-wise Profiling Info for Regular Benchmark Runs:|^Profiling Info for Regular")
# The most telling first; all of them are of a tool that failed.
_PROBLEMS = (
    re.compile(r"bad_alloc|[Oo]ut of memory|[Cc]annot allocate memory"),
    re.compile(r"unresolved custom op|Didn't find op for builtin|[Uu]nsupported"),
    re.compile(r"Could not open|model allocation is null|not a valid Flatbuffer|Failed to load model|does not exist"),
    re.compile(r"Failed to (?:apply|create|initialize|allocate|construct|resize)|failed to (?:prepare|invoke)"),
    re.compile(r"Node number \d+"),
    re.compile(r"[Ff]ailed|[Ee]rror"),
)


def read_report(text: str) -> ToolReport:
    """Reads what one process of the tool printed; lines that mean nothing to it are skipped."""
    lines = [_PREFIX.sub("", line[:_MAX_LINE].rstrip("\r")) for line in text.splitlines()]
    profile_at = next((i for i, line in enumerate(lines) if _PROFILE_START.match(line)), len(lines))
    tables_at = next((i for i, line in enumerate(lines) if line.startswith("Profiling Info")), len(lines))
    head = lines[: min(profile_at, tables_at)]
    counts = [found for line in head if (found := _read_count(line)) is not None]
    timings = _read_timings(head)
    results = {match[1]: match for line in head if (match := _RESULT.match(line)) is not None}
    memory = _first(_MEMORY, head)
    size = _first(_MODEL_SIZE, head)
    timed = counts[1] if len(counts) >= 2 else None
    return ToolReport(
        warmup=counts[0] if counts else None,
        timed=timed or _from_summary(timings) or _from_results(results),
        init_us=timings.get("Init", _number_of(results, "Model initialization", 1e3)),
        first_inference_us=timings.get("First inference", _number_of(results, "Warmup (first)", 1e3)),
        model_bytes=_mebibytes(size[1]) if size else None,
        init_memory_bytes=_mebibytes(memory[1]) if memory else _bytes_of(results, "Init footprint"),
        overall_memory_bytes=_mebibytes(memory[2]) if memory else _bytes_of(results, "Overall footprint"),
        unknown_flags=_read_unknown_flags(head),
        delegates=tuple(use for line in head if (use := _read_delegate(line)) is not None),
        loaded=any(line.startswith("Loaded model") for line in head),
        ready=any(line.startswith("Initialized session") for line in head),
        profile=_read_profile(lines[profile_at:]),
        problem=_problem(lines),
    )


def _read_count(line: str) -> RunStatistics | None:
    match = _COUNT_LINE.match(line)
    if match is None or not 1 <= int(match[1]) < 10**9:
        return None
    values = {key: float(value) for key, value, _ in _KEY_VALUE.findall(match[2])}
    if any(not 0 <= value < 1e15 for value in values.values()):
        return None
    # One run, or several of equal length: only `curr` is printed.
    mean = values.get("avg", values.get("curr"))
    if mean is None:
        return None
    return RunStatistics(
        count=int(match[1]),
        mean_us=mean,
        min_us=values.get("min", mean if "avg" not in values else None),
        max_us=values.get("max", mean if "avg" not in values else None),
        std_us=values.get("std"),
        median_us=values.get("median"),
        p5_us=values.get("p5"),
        p95_us=values.get("p95"),
    )


def _read_timings(lines: Sequence[str]) -> dict[str, float]:
    match = _first(_TIMINGS, lines)
    pairs = _TIMING.findall(match[1]) if match else []
    return {name.strip(): float(value) for name, value in pairs if 0 <= float(value) < 1e15}


def _from_summary(timings: Mapping[str, float]) -> RunStatistics | None:
    """The oldest builds print no statistics of the runs, only this mean, and not how many runs it is of."""
    mean = timings.get("no stats")
    return None if mean is None else RunStatistics(count=0, mean_us=mean)


def _from_results(results: Mapping[str, re.Match[str]]) -> RunStatistics | None:
    """What LiteRT's tool prints for people; rounded, so only what nothing else says."""
    mean_us = _number_of(results, "Inference (avg)", 1e3)
    if mean_us is None:
        return None
    count = results["Inference (avg)"][3]
    return RunStatistics(
        count=int(count) if count and len(count) < 10 else 0,
        mean_us=mean_us,
        min_us=_number_of(results, "Inference (min)", 1e3),
        max_us=_number_of(results, "Inference (max)", 1e3),
        std_us=_number_of(results, "Inference (std)", 1e3),
    )


def _number_of(results: Mapping[str, re.Match[str]], name: str, scale: float) -> float | None:
    value = float(results[name][2]) * scale if name in results else None
    return value if value is not None and 0 <= value < 1e15 else None


def _bytes_of(results: Mapping[str, re.Match[str]], name: str) -> int | None:
    return _mebibytes(results[name][2]) if name in results else None


def _read_unknown_flags(lines: Sequence[str]) -> tuple[str, ...]:
    match = _first(_UNKNOWN_FLAGS, lines)
    return tuple(printable(flag) for flag in match[1].split()) if match else ()


def _read_delegate(line: str) -> DelegateUse | None:
    replaced = _REPLACED.match(line)
    if replaced:
        nodes = int(replaced[1]), int(replaced[2])
        extent = "complete" if nodes[0] == nodes[1] else "partial" if nodes[0] else "none"
        return DelegateUse(replaced[3], extent, None, nodes)
    taken = _DELEGATED.match(line)
    if taken:
        extent = {"partially": "partial", "completely": "complete"}[taken[2]]
        return DelegateUse(taken[1], extent, int(taken[3]) if taken[3] else None)
    refused = _NOT_DELEGATED.match(line)
    return DelegateUse(refused[1], "none", 0) if refused else None


def _read_profile(lines: Sequence[str]) -> tuple[OpTime, ...]:
    """Reads the rows under "Run Order": tab-separated, the columns named in the line before them."""
    rows: list[OpTime] = []
    columns: list[str] = []
    for line in lines:
        cells = [cell.strip() for cell in line.strip("\r\n").split("\t")]
        cells = cells[1:] if cells and not cells[0] else cells
        names = [cell.strip("[]") for cell in cells]
        if "node type" in names and "avg ms" in names:
            columns = names
        elif columns and len(cells) >= len(columns):
            row = _read_row(columns, cells)
            if row is not None and len(rows) < _MAX_PROFILE_ROWS:
                rows.append(row)
        elif columns and rows:
            break  # the empty line after the table; "Top by Computation Time" repeats the rows in another order
    return tuple(rows)


def _read_row(columns: Sequence[str], cells: Sequence[str]) -> OpTime | None:
    # A name may hold tabs, so what is left over belongs to the last column.
    last = len(columns) - 1
    row = dict(zip(columns, [*cells[:last], "\t".join(cells[last:])], strict=True))
    mean, share = _to_float(row.get("avg ms", "")), _to_float(row.get("%", "").removesuffix("%"))
    if mean is None or share is None:
        return None
    return OpTime(printable(row["node type"]), printable(row.get("Name", "")), mean, share / 100)


def _to_float(text: str) -> float | None:
    return float(text) if re.fullmatch(_NUMBER, text) and 0 <= float(text) < 1e15 else None


def _first(pattern: re.Pattern[str], lines: Sequence[str]) -> re.Match[str] | None:
    return next((match for line in lines if (match := pattern.match(line)) is not None), None)


def _mebibytes(text: str) -> int:
    return int(min(max(float(text), 0.0), 1e9) * 2**20)


def _problem(lines: Sequence[str]) -> str:
    for pattern in _PROBLEMS:
        for line in lines:
            if pattern.search(line) and "Benchmarking failed" not in line:
                return printable(line)
    return ""


# ---------------------------------------------------------------------------------------------------------- verdicts

_SIGNALS = {
    4: "SIGILL",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    9: "SIGKILL",
    11: "SIGSEGV",
    15: "SIGTERM",
    31: "SIGSYS",
}


def judge_report(
    report: ToolReport, exit_code: int, invocation: Invocation, require_delegate: bool
) -> tuple[Verdict, str]:
    """Returns whether the tool did what was asked, and if not, why.

    Args:
        report: What it printed.
        exit_code: How it ended.
        invocation: What it was asked to do.
        require_delegate: Whether it matters that XNNPACK took no operator, if nothing else was asked for.
    """
    if exit_code != 0:
        return _judge_failure(report, exit_code)
    unknown = [flag for flag in report.unknown_flags if flag not in _HARMLESS_IF_UNKNOWN]
    if unknown:
        return Verdict.FALLBACK, (
            f"this build of benchmark_model does not know {' '.join(unknown)}, so it measured something else; "
            "install one that was built with it"
        )
    fallback = _judge_delegate(report, invocation, require_delegate)
    if fallback:
        return Verdict.FALLBACK, fallback
    if report.timed is None:
        missing = "the warm-up, but no timed runs" if report.warmup else "no runs"
        return Verdict.RUN_FAILED, f"benchmark_model reported {missing}; {report.problem or 'it says not why'}"
    # No model is too slow for this: the tool may take as long as the whole measurement.
    if 0 < report.timed.count < invocation.runs:
        return Verdict.RUN_FAILED, (
            f"benchmark_model ran the model {report.timed.count} times, {invocation.runs} were asked for"
        )
    return Verdict.OK, ""


def _judge_failure(report: ToolReport, exit_code: int) -> tuple[Verdict, str]:
    doing = "running" if report.ready else "loading"
    verdict = Verdict.RUN_FAILED if report.ready else Verdict.LOAD_FAILED
    how = f"exit status {exit_code}"
    if exit_code > 128:
        how = f"killed by {_SIGNALS.get(exit_code - 128, f'signal {exit_code - 128}')}"
    detail = f"benchmark_model ended ({how}) while {doing} the model"
    # A SIGKILL that is not ours is Android's low memory killer.
    if exit_code == 128 + 9 or _PROBLEMS[0].search(report.problem):
        verdict = Verdict.OUT_OF_MEMORY
    return verdict, f"{detail}: {report.problem}" if report.problem else detail


def _judge_delegate(report: ToolReport, invocation: Invocation, require_delegate: bool) -> str:
    """Returns why the number is not the delegate's, "" if it is or none was asked for."""
    delegate = invocation.delegate
    if delegate.name in CPU_DELEGATES:
        none = any(use.extent == "none" for use in report.delegates)
        return "XNNPACK took over no operator" if require_delegate and none else ""
    use = report.use_of(delegate)
    if use is None:
        return f"benchmark_model does not say that the {delegate.name} delegate was used"
    if use.extent == "none":
        return f"the {delegate.name} delegate took over no operator"
    if use.extent == "partial" and not delegate.partial:
        return (
            f"the {delegate.name} delegate took over only a part of the model{use.share}; if the CPU may execute the "
            f"rest, ask for {delegate.name}+cpu"
        )
    return ""


assert BLOCKS >= MIN_SAMPLES_FOR_INTERVAL
