"""Benchmark-only mode: interleaving, joining, comparing, rendering, and the command itself."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from device_agents.anchor_watch import AnchorReading
from device_agents.api import PRESETS, BenchmarkSpec, Conditions, Measurement, OpTime, Verdict
from device_agents.errors import DeviceAddressError, DeviceUnavailableError
from device_agents.probe_models import compute_model
from device_agents.replay import model_key, write_recording
from nas_edge import benchmarking, cli
from nas_edge.benchmarking.comparison import across_sessions, ratio_of_medians
from nas_edge.benchmarking.measure import Request, read_models, run_benchmark, unique_addresses
from nas_edge.benchmarking.render import to_csv, to_ops_csv, to_table
from nas_edge.benchmarking.report import BenchmarkRow, DeviceRecord, ModelFile, Report, read_report
from nas_edge.errors import UsageError
from tests.support import models
from tests.support.agents import FunctionAgent, fake_info
from tests.support.data import DATA

ANCHOR = compute_model()
SPEC = PRESETS["search"]
CONDITIONS = Conditions("abc", "phone", "litert", "1", "cpu", 1, "2024-01-01", wait_share=0.0)


def samples(median_ms: float, count: int = 24, seed: int = 0) -> tuple[float, ...]:
    noise = np.random.default_rng(seed).normal(0, 0.005, count)
    return tuple(float(x) for x in median_ms * (1 + noise))


def steady(median_ms: float, seed: int = 0, **changes: object) -> Measurement:
    return replace(
        Measurement(Verdict.OK, samples_ms=samples(median_ms, seed=seed), busy_s=1.0, conditions=CONDITIONS),
        **changes,  # type: ignore[arg-type]
    )


# Statistics.


def test_ratio_of_constant_times_is_exact() -> None:
    ratio, interval = ratio_of_medians([[2.0] * 10] * 4, [[1.0] * 10] * 4, paired=True)
    assert ratio == 2.0
    assert interval == (2.0, 2.0)


def test_interval_of_one_round_agrees_with_normal_theory() -> None:
    """The median of n normal values has the standard deviation 1.2533 sigma / sqrt(n)."""
    rng = np.random.default_rng(0)
    widths = []
    for _ in range(30):
        a, b = rng.normal(10, 0.5, (2, 200))
        _, (low, high) = ratio_of_medians([a], [b], paired=False)
        widths.append(high - low)
    expected = 2 * 1.96 * np.sqrt(2) * 1.2533 * 0.05 / np.sqrt(200)
    assert np.mean(widths) == pytest.approx(expected, rel=0.25)


@pytest.mark.parametrize("between_rounds", [0.0, 0.01, 0.05])
def test_a_model_seldom_differs_from_itself(between_rounds: float) -> None:
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(60):
        a, b = (
            [
                np.exp(rng.normal(0, between_rounds) + rng.normal(0, 0.01, 30))
                for _ in range(benchmarking.measure.ROUNDS)
            ]
            for _ in range(2)
        )
        _, (low, high) = ratio_of_medians(a, b, paired=False)
        wrong += not low <= 1 <= high
    assert wrong <= 6


def test_pairs_of_rounds_cancel_what_slowed_both() -> None:
    rng = np.random.default_rng(2)
    weather = np.exp(rng.normal(0, 0.2, 8))
    a = [1.05 * w * np.exp(rng.normal(0, 0.005, 30)) for w in weather]
    b = [w * np.exp(rng.normal(0, 0.005, 30)) for w in weather]
    _, (low, _) = ratio_of_medians(a, b, paired=True)
    _, (wide_low, wide_high) = ratio_of_medians(a, b, paired=False)
    assert wide_low < 1 < wide_high
    assert low > wide_low


def test_interval_contains_the_ratio() -> None:
    rng = np.random.default_rng(3)
    for rounds in (1, 2, 8, 20):
        a, b = rng.exponential(1, (2, rounds, 7)) + 0.1
        ratio, (low, high) = ratio_of_medians(a, b, paired=True)
        assert low <= ratio <= high


# Measuring.


def run(
    measure: Callable[[bytes, BenchmarkSpec], Measurement],
    names: tuple[str, ...] = ("a", "b"),
    rounds: int = 4,
    threads: tuple[int, ...] = (1,),
    devices: tuple[str, ...] = ("host:",),
    spec: BenchmarkSpec = SPEC,
) -> Report:
    files = [(ModelFile(name, name, model_key(name.encode()), 1), name.encode()) for name in names]
    request = Request(files, devices, threads, "search", spec, rounds)
    return run_benchmark(request, open_agent=lambda address: FunctionAgent(measure, fake_info(address)))


def test_models_take_turns_and_the_anchor_comes_first_and_last() -> None:
    calls: list[str] = []

    def measure(model: bytes, spec: BenchmarkSpec) -> Measurement:
        calls.append("anchor" if model == ANCHOR else f"{model.decode()}{spec.threads}")
        return steady(1.0, seed=len(calls))

    report = run(measure, rounds=4, threads=(1, 2))
    one_round = ["a1", "a2", "b1", "b2"]
    assert calls == ["anchor", *one_round * 2, "anchor", *one_round * 2, "anchor"]
    assert [(row.model.name, row.threads) for row in report.rows] == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    assert all(row.measurement.ok and row.round_runs == (24,) * 4 for row in report.rows)
    assert len(report.devices["host:"].anchors) == 3


def test_rounds_share_the_budget_of_the_preset() -> None:
    specs: list[BenchmarkSpec] = []

    def measure(model: bytes, spec: BenchmarkSpec) -> Measurement:
        if model != ANCHOR:
            specs.append(spec)
        return steady(1.0)

    run(measure, names=("a",), rounds=8, spec=PRESETS["quick"])
    assert sum(spec.min_runs for spec in specs) >= PRESETS["quick"].min_runs
    assert sum(spec.min_duration_s for spec in specs) == pytest.approx(PRESETS["quick"].min_duration_s)
    assert not any(spec.profile_ops for spec in specs)


def test_failing_model_is_tried_once_and_does_not_stop_the_others() -> None:
    tried: list[bytes] = []

    def measure(model: bytes, _: BenchmarkSpec) -> Measurement:
        tried.append(model)
        return Measurement(Verdict.LOAD_FAILED, "broken") if model == b"a" else steady(1.0)

    report = run(measure)
    assert tried.count(b"a") == 1
    assert tried.count(b"b") == 4
    assert [row.measurement.verdict for row in report.rows] == [Verdict.LOAD_FAILED, Verdict.OK]
    assert report.rows[0].failed


def test_lost_device_fails_its_rows_only() -> None:
    def open_agent(address: str) -> FunctionAgent:
        def measure(model: bytes, _: BenchmarkSpec) -> Measurement:
            if address == "host:" and model == b"a":
                raise DeviceUnavailableError("unplugged")
            return steady(1.0)

        return FunctionAgent(measure, fake_info(address))

    request = Request([(ModelFile("a", "a", "", 1), b"a")], ("host:", "replay:x"), (1,), "search", SPEC, 2)
    report = run_benchmark(request, open_agent=open_agent)
    assert [row.measurement.verdict for row in report.rows] == [Verdict.DEVICE_LOST, Verdict.OK]
    assert "unplugged" in report.rows[0].measurement.detail


def test_drift_of_the_anchor_flags_the_rows() -> None:
    anchors = 0

    def measure(model: bytes, _: BenchmarkSpec) -> Measurement:
        nonlocal anchors
        anchors += model == ANCHOR
        return steady(1.0 if anchors < 2 else 1.3)

    report = run(measure, names=("a",), rounds=2)
    (row,) = report.rows
    assert row.flagged
    assert row.measurement.verdict is Verdict.DRIFTED
    assert "anchor model took 1.30 times" in row.measurement.detail


def test_profile_comes_from_a_run_of_its_own_and_its_crash_spoils_nothing() -> None:
    names = {"delegate operator 1": 0.75, "out": 0.25, "delegate operator 9": 0.0}
    ops = tuple(OpTime("CONV_2D", name, ms, ms) for name, ms in names.items())

    def measure(model: bytes, spec: BenchmarkSpec) -> Measurement:
        if not spec.profile_ops:
            return steady(1.0)
        return steady(9.0, profile=ops) if model == b"a" else Measurement(Verdict.RUN_FAILED, "crashed")

    report = run(measure, spec=SPEC.replace(profile_ops=True))
    good, bad = (row.measurement for row in report.rows)
    assert good.profile == ops
    assert 9.0 not in {round(x) for x in good.samples_ms}
    assert bad.ok
    assert bad.profile_note == "run_failed: crashed"
    table = to_table(report)
    assert "no times: run_failed: crashed" in table
    assert "1 operators took less than that" in table
    assert "--delegate none" in table
    assert re.search(r"1\.000 +100\.0% +2 +CONV_2D", table)
    assert "delegate operator 9" not in table
    assert next(csv.DictReader(io.StringIO(to_ops_csv(report))))["op"] == "CONV_2D"


def test_recorded_device_is_asked_once(tmp_path: Path) -> None:
    file = tmp_path / "times.json"
    write_recording(file, fake_info(), {model_key(b"a"): steady(2.0, busy_s=0.0)})
    request = Request(
        [(ModelFile("a", "a", "", 1), b"a"), (ModelFile("b", "b", "", 1), b"b")],
        (f"replay:{file}",), (1,), "search", SPEC,
    )  # fmt: skip
    known, unknown = run_benchmark(request).rows
    assert known.round_runs == (24,)
    assert unknown.measurement.verdict is Verdict.LOAD_FAILED


def test_names_are_unique(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    files = [tmp_path / "a", tmp_path / "x/a", tmp_path / "b", tmp_path / "c", tmp_path / "c"]
    for file in files:
        file.write_bytes(b"1")
    names = [model.name for model, _ in read_models(files)]
    assert names == [str(files[0]), str(files[1]), "b", f"{files[3]} #1", f"{files[3]} #2"]


def test_file_too_large_to_be_a_model_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "large.tflite"
    with file.open("wb") as sink:
        sink.truncate(1 << 34)  # sparse: takes no space
    small = tmp_path / "small"
    small.write_bytes(b"1")
    (model, data), _ = read_models([file, small])
    assert data == f"{1 << 34} bytes; a model may have {1 << 30}"
    request = Request([(model, data)], ("host:",), (1,), "search", SPEC, 1)
    (row,) = run_benchmark(request, open_agent=lambda _: FunctionAgent(lambda m, s: steady(1.0))).rows
    assert row.measurement.verdict is Verdict.LOAD_FAILED


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are of POSIX systems")
def test_pipe_is_refused_without_waiting_on_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="not a regular file"):
        read_models([tmp_path / "pipe"])


@pytest.mark.usefixtures("hasty")
def test_what_cannot_be_read_costs_a_line_and_not_the_batch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, conv: Path
) -> None:
    assert command(monkeypatch, tmp_path / "missing", conv, tmp_path, "--preset", "search", "--format", "json") == 1
    output = capsys.readouterr()
    assert "2 of 3 measurements failed: missing" in output.err
    missing, measured, folder = Report.from_json(json.loads(output.out)).rows
    assert (missing.measurement.verdict, missing.measurement.detail) == (
        Verdict.LOAD_FAILED,
        "No such file or directory",
    )
    assert "is a directory" in folder.measurement.detail
    assert not measured.failed


def test_open_dimensions_are_said_to_be_taken_as_1(tmp_path: Path) -> None:
    (tmp_path / "open").write_bytes(models.binary_model(shape=(1, 4), signature=(-1, 4)))
    (tmp_path / "fixed").write_bytes(models.binary_model(shape=(1, 4)))
    files = read_models([tmp_path / "open", tmp_path / "fixed"])
    names = files[0][0].open_inputs
    assert names
    assert files[1][0].open_inputs == ()

    def table(spec: BenchmarkSpec) -> str:
        request = Request(files, ("replay:x",), (1, 2), "search", spec, 1)
        report = run_benchmark(request, open_agent=lambda _: FunctionAgent(lambda m, s: steady(1.0)))
        assert Report.from_json(json.loads(benchmarking.to_json(report))).rows == report.rows
        return to_table(report)

    note = f"open: open dimensions of {', '.join(names)} were taken as 1; others with --input-shape {names[0]}=N,N..."
    assert table(SPEC).count(note) == 1
    assert "fixed: open" not in table(SPEC)
    assert "taken as 1" not in table(SPEC.replace(input_shapes=dict.fromkeys(names, (8, 4))))


def test_addresses_are_taken_once() -> None:
    assert unique_addresses(("host", "host:", "replay:a.json")) == ("host:", "replay:a.json")
    with pytest.raises(DeviceAddressError, match="received 'nope:'"):
        unique_addresses(("nope:",))


# The record and comparisons with an earlier one.


def make_report(
    median_ms: float = 1.0, name: str = "a", sha256: str = "1", anchor_ms: float = 1.0, **changes
) -> Report:
    """A report of one row; `changes` are to its conditions or its verdict."""
    verdict = changes.pop("verdict", Verdict.OK)
    measurement = steady(median_ms, verdict=verdict, conditions=replace(CONDITIONS, **changes))
    row = BenchmarkRow(ModelFile(name, name, sha256, 10), "host:", changes.get("threads", 1), measurement, (12, 12))
    device = DeviceRecord(fake_info("host:"), (AnchorReading(0, anchor_ms, 1.0),))
    return Report("0.1", "2024-01-01T00:00:00+00:00", "search", SPEC, {"host:": device}, (row,))


def conclusion(report: Report, baseline: Report) -> str:
    (comparison,) = benchmarking.compare_with_baseline(report, baseline)
    assert (comparison.ratio is None) == comparison.conclusion.startswith("not comparable")
    return comparison.conclusion


def test_report_survives_writing_and_reading(tmp_path: Path) -> None:
    report = make_report(verdict=Verdict.UNSTEADY, cores=(0, 1))
    file = tmp_path / "report.json"
    file.write_text(benchmarking.to_json(report))
    assert read_report(file) == report


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.pop("rows"),
        lambda data: data.update(schema=2),
        lambda data: data.update(kind="other"),
        lambda data: data["rows"][0].update(round_runs=[1]),
        lambda data: data["rows"][0].update(threads="1"),
        lambda data: data["rows"][0]["model"].pop("sha256"),
        lambda data: data["rows"][0]["measurement"].update(samples_ms=[-1]),
        lambda data: data["devices"][0]["info"].pop("os"),
        lambda data: data["devices"][0]["anchors"][0].update(median_ms=0),
        lambda data: data.update(devices=None),
    ],
)
def test_spoilt_baseline_is_refused(tmp_path: Path, spoil: Callable[[dict], object]) -> None:
    data = json.loads(benchmarking.to_json(make_report()))
    spoil(data)
    file = tmp_path / "spoilt.json"
    file.write_text(json.dumps(data))
    with pytest.raises(UsageError, match=r"spoilt\.json is not a baseline"):
        read_report(file)


def test_baseline_is_found_by_hash_and_else_by_name() -> None:
    now = make_report(1.2)
    assert conclusion(now, make_report(1.0, name="renamed")) == "20.0% slower"
    assert "another file of the same name" in conclusion(now, make_report(1.0, sha256="2"))
    assert "does not have this model" in conclusion(now, make_report(1.0, name="z", sha256="2"))
    assert conclusion(now, make_report(1.2)) == "no significant difference"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"threads": 4}, "threads: 1, baseline 4"),
        ({"device_fingerprint": "xyz"}, "device: phone abc, baseline phone xyz"),
        ({"runtime_version": "2"}, "runtime: litert 1, baseline litert 2"),
        ({"delegate": "none"}, "delegate: cpu, baseline none"),
        ({"cores": (1,)}, r"cores: None, baseline \(1,\)"),
        ({"verdict": Verdict.TIMEOUT}, "ended with timeout there"),
    ],
)
def test_unlike_conditions_are_not_compared(changes: dict[str, object], why: str) -> None:
    assert re.search(why, conclusion(make_report(), make_report(**changes)))


def test_impossible_times_in_a_baseline_are_not_compared() -> None:
    baseline = make_report()
    (row,) = baseline.rows
    zeros = replace(row, measurement=replace(row.measurement, samples_ms=(0.0,) * 24))
    none = replace(row, measurement=replace(row.measurement, samples_ms=()), round_runs=())
    assert "not above 0" in conclusion(make_report(), replace(baseline, rows=(zeros,)))
    assert "not comparable" in conclusion(make_report(), replace(baseline, rows=(none,)))


def test_doubts_are_told_with_the_comparison() -> None:
    assert "unreliable latency: unsteady" in conclusion(make_report(2.0), make_report(verdict=Verdict.UNSTEADY))
    longer = replace(make_report(), preset="final")
    assert "preset search, baseline final" in conclusion(make_report(), longer)
    assert "the device itself has changed by +20%" in conclusion(make_report(2.0, anchor_ms=1.2), make_report())


def test_models_are_compared_with_the_fastest() -> None:
    report = run(lambda model, _: steady({b"a": 3.0, b"b": 1.0, b"c": 1.0}.get(model, 1.0)), names=("a", "b", "c"))
    first, second = benchmarking.compare_models(report)
    assert (first.model, first.reference, first.conclusion) == ("a", "b", "200.0% slower")
    assert (second.model, second.conclusion, second.significant) == ("c", "no significant difference", False)


def test_a_reference_that_is_doubtful_itself_is_not_called_reliable() -> None:
    shaky = steady(1.0, conditions=replace(CONDITIONS, wait_share=0.5))
    for answer, doubtful in ((shaky, True), (steady(1.0), False)):
        report = run(lambda model, _, answer=answer: answer, names=("a", "b"))
        table = to_table(report, benchmarking.compare_models(report))
        assert ("or the fastest of all where none is" in table) == doubtful


# Rendering.


def test_table_gives_a_failure_one_line_and_marks_doubts() -> None:
    answers = {
        b"good": steady(2.0),
        b"bad": Measurement(Verdict.OUT_OF_MEMORY, "too large " * 20),
        b"shaky": steady(1.0, conditions=replace(CONDITIONS, wait_share=0.5)),
    }
    table = to_table(run(lambda model, _: answers.get(model, steady(1.0)), names=("good", "bad", "shaky")))
    lines = {line.split()[0]: line for line in table.splitlines() if line.strip()}
    assert "out_of_memory  too large" in lines["bad"]
    assert "?" not in lines["good"]
    assert " ? " in lines["shaky"]
    assert "waited for a core 50%" in lines["?"]


def test_csv_has_a_line_for_each_row() -> None:
    answers = {b"bad": Measurement(Verdict.TIMEOUT, "hung")}
    report = run(lambda model, _: answers.get(model, steady(1.0)), names=("good", "bad"), threads=(1, 2))
    rows = list(csv.DictReader(io.StringIO(to_csv(report, benchmarking.compare_with_baseline(report, report)))))
    assert [(row["model"], row["threads"], row["verdict"]) for row in rows] == [
        ("good", "1", "ok"), ("good", "2", "ok"), ("bad", "1", "timeout"), ("bad", "2", "timeout")
    ]  # fmt: skip
    assert float(rows[0]["median_ms"]) == pytest.approx(1.0, rel=0.01)
    assert rows[0]["baseline_conclusion"] == "no significant difference"
    assert rows[2]["median_ms"] == rows[2]["baseline_ratio"] == ""


# The command.


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["nas-edge", "benchmark", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_info:
        cli.main()
    assert isinstance(exit_info.value.code, int)
    return exit_info.value.code


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine makes everything unsteady and measured again; the tests do not wait for that."""
    spec = SPEC.replace(max_attempts=1, min_duration_s=0.0, max_duration_s=0.2, warmup_max_duration_s=0.1)
    monkeypatch.setitem(PRESETS, "search", spec)


@pytest.fixture
def conv(tmp_path: Path) -> Path:
    file = tmp_path / "conv.tflite"
    file.write_bytes(models.conv_model())
    return file


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing argument"),
        (("{tmp}/missing.tflite",), "No such file"),
        (("{tmp}",), "is a directory"),
        (("{conv}", "--device", "nope:"), "Unknown device address"),
        (("{conv}", "--preset", "nope"), "is not one of"),
        (("{conv}", "--threads", "0"), "threads must be"),
        (("{conv}", "--threads", "1,x"), "expects whole numbers"),
        (("{conv}", "--cores", "a"), "expected cores to be big"),
        (("{conv}", "--cores", "4000", "--preset", "search"), "4000"),
        (("{conv}", "--input-shape", "x"), "expects NAME="),
        (("{conv}", "--input-shape", "x=1,a"), "whole dimensions"),
        (("{conv}", "--input-shape", "x=0,1"), "above 0"),
        (("{conv}", "--compare", "{tmp}/missing.json"), "cannot read the baseline"),
        (("{conv}", "--compare", "{conv}"), "is not a baseline"),
        (("{conv}", "--out", "{conv}"), "exists already"),
        (("{conv}", "--out", "{tmp}/no/folder.json"), "cannot be written"),
    ],
)
def test_misuse_ends_with_2_and_one_clear_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    conv: Path,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    filled = [argument.format(tmp=tmp_path, conv=conv) for argument in arguments]
    assert command(monkeypatch, *filled) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert "Traceback" not in output.err
    assert output.out == ""


@pytest.mark.usefixtures("hasty")
def test_batch_goes_on_past_broken_files_and_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, conv: Path
) -> None:
    broken = {
        "truncated": models.conv_model()[:5000],
        "empty": b"",
        "random": np.random.default_rng(0).bytes(5000),
        "huge": models.huge_model(),
    }
    for name, data in broken.items():
        (tmp_path / f"{name}.tflite").write_bytes(data)
    files = [tmp_path / f"{name}.tflite" for name in broken]
    out = tmp_path / "report.json"
    assert command(monkeypatch, *files, conv, "--preset", "search", "--format", "json", "--out", out) == 1
    output = capsys.readouterr()
    assert "4 of 5 measurements failed" in output.err
    assert "conv.tflite" in output.out
    verdicts = {row.model.name: row.measurement.verdict for row in read_report(out).rows}
    for name in ("truncated", "empty", "random"):
        assert verdicts[f"{name}.tflite"] is Verdict.LOAD_FAILED
    assert verdicts["huge.tflite"] is Verdict.OUT_OF_MEMORY
    assert verdicts["conv.tflite"] in (Verdict.OK, *benchmarking.report.FLAGS)

    csv_out = tmp_path / "again.csv"
    options = ("--preset", "search", "--compare", out, "--format", "csv", "--profile-ops", "--out", csv_out)
    assert command(monkeypatch, conv, *options) == 0
    assert "Compared with the baseline" in capsys.readouterr().out
    (row,) = csv.DictReader(io.StringIO(csv_out.read_text()))
    assert float(row["baseline_ratio"]) > 0
    operators = list(csv.DictReader(io.StringIO((tmp_path / "again.ops.csv").read_text())))
    assert len(operators) == 4 or row["profile_note"]


def test_any_inputs_are_filled_in(tmp_path: Path) -> None:
    kinds = {
        "two_inputs": models.binary_model(shape=(1, 100_000)),
        "integers": models.binary_model(shape=(1, 100_000), dtype=models.T.INT32),
        "open_batch": models.binary_model(shape=(1, 100_000), signature=(-1, 100_000)),
        "strings": models.string_model(),
    }
    for name, data in kinds.items():
        (tmp_path / name).write_bytes(data)
    files = read_models([tmp_path / name for name in kinds])
    spec = SPEC.replace(max_attempts=1, profile_ops=True)
    for row in run_benchmark(Request(files, ("host:",), (1,), "search", spec, rounds=1)).rows:
        assert row.measurement.samples_ms, row.measurement.detail


@pytest.mark.needs("data")
@pytest.mark.usefixtures("hasty")
def test_real_models(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        command(monkeypatch, *sorted((DATA / "coral").glob("*.tflite")), "--preset", "search", "--format", "json") == 1
    )
    report = Report.from_json(json.loads(capsys.readouterr().out))
    rows = {row.model.name: row for row in report.rows}
    assert rows["mobilenet_v1_0.25_128_quant.tflite"].measurement.samples_ms
    assert "edgetpu-custom-op" in rows["mobilenet_v1_0.25_128_quant_edgetpu.tflite"].measurement.detail
    assert rows["model_invoking_error.tflite"].failed


def test_benchmarking_does_not_load_tensorflow() -> None:
    code = "import sys, nas_edge.benchmarking; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_two_sessions_cannot_tell_apart_what_is_closer_than_sessions_are() -> None:
    low, high = across_sessions(1.007, (1.006, 1.008))
    assert low < 1 < high
    low, high = across_sessions(1.05, (1.049, 1.051))
    assert 1 < low < 1.05 < high
