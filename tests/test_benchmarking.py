"""Benchmark-only mode: interleaving, joining, comparing, rendering, and the command itself."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from device_agents.api import PRESETS, BenchmarkSpec, Conditions, Measurement, OpTime, Verdict, Visit
from device_agents.errors import DeviceAddressError, DeviceUnavailableError
from device_agents.floors import FloorStore
from device_agents.probe_models import PROBE_MODELS
from device_agents.probe_watch import ProbeState
from device_agents.quiet import VisitSettings, VisitTime, agreed
from device_agents.replay import model_key, write_recording
from device_agents.verdicts import FLAGS
from nas_edge import benchmarking, cli
from nas_edge.benchmarking.measure import Request, read_models, run_benchmark, unique_addresses
from nas_edge.benchmarking.probes import change_of_probes
from nas_edge.benchmarking.render import to_csv, to_ops_csv, to_table
from nas_edge.benchmarking.report import BenchmarkRow, DeviceRecord, ModelFile, ProbeRecord, Report, read_report
from nas_edge.errors import UsageError
from tests.support import models
from tests.support.agents import FunctionAgent, fake_info
from tests.support.data import DATA

PROBES = {model() for model in PROBE_MODELS.values()}
SPEC = PRESETS["search"].replace(patience_s=0.001)
CONDITIONS = Conditions("abc", "phone", "litert", "1", "cpu", 1, "2024-01-01", wait_share=0.0)


def samples(median_ms: float, count: int = 24, seed: int = 0) -> tuple[float, ...]:
    noise = np.random.default_rng(seed).normal(0, 0.005, count)
    return tuple(float(x) for x in median_ms * (1 + noise))


def steady(median_ms: float, seed: int = 0, **changes: object) -> Measurement:
    return replace(
        Measurement(Verdict.OK, samples_ms=samples(median_ms, seed=seed), busy_s=1.0, conditions=CONDITIONS),
        **changes,  # type: ignore[arg-type]
    )


# Measuring.


def run(
    measure: Callable[[bytes, BenchmarkSpec], Measurement],
    names: tuple[str, ...] = ("a", "b"),
    threads: tuple[int, ...] = (1,),
    devices: tuple[str, ...] = ("host:",),
    spec: BenchmarkSpec = SPEC,
    floors: FloorStore | None = None,
) -> Report:
    files = [(ModelFile(name, name, model_key(name.encode()), 1), name.encode()) for name in names]
    request = Request(files, devices, threads, "search", spec)
    return run_benchmark(request, open_agent=lambda at: FunctionAgent(measure, fake_info(at)), floors=floors)


def test_models_and_thread_counts_take_turns_in_shuffled_rounds_with_the_probes() -> None:
    calls: list[str] = []

    def measure(model: bytes, spec: BenchmarkSpec) -> Measurement:
        calls.append("probe" if model in PROBES else f"{model.decode()}{spec.threads}")
        return steady(1.0, seed=len(calls))

    report = run(measure, threads=(1, 2))
    files = [call for call in calls if call != "probe"]
    rounds = [files[i : i + 4] for i in range(0, len(files), 4)]
    assert all(sorted(one_round) == ["a1", "a2", "b1", "b2"] for one_round in rounds)
    assert len({tuple(one_round) for one_round in rounds}) > 1
    assert len(calls) > 1.5 * len(files)
    assert [(row.model.name, row.threads) for row in report.rows] == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    assert all(row.measurement.ok and row.complete and row.rounds == len(rounds) for row in report.rows)
    probes = report.devices["host:"].probes
    assert [(probe.threads, probe.state.name) for probe in probes] == [
        (threads, name) for threads in (1, 2) for name in PROBE_MODELS
    ]
    assert all(probe.undisturbed_ms == pytest.approx(1.0, rel=0.01) for probe in probes)


@pytest.mark.parametrize("preset", ["rapid", "quick"])
def test_a_model_gets_at_least_the_runs_and_the_time_of_the_preset(preset: str) -> None:
    specs: list[BenchmarkSpec] = []

    def measure(model: bytes, spec: BenchmarkSpec) -> Measurement:
        specs.append(spec)
        return steady(50.0)

    (row,) = run(measure, names=("a",), spec=PRESETS[preset]).rows
    assert (row.measurement.runs or 0) >= PRESETS[preset].min_runs
    assert sum(row.measurement.samples_ms) / 1e3 >= PRESETS[preset].min_duration_s
    assert not any(spec.profile_ops for spec in specs)


def test_failing_model_is_tried_once_and_does_not_stop_the_others() -> None:
    tried: list[bytes] = []

    def measure(model: bytes, _: BenchmarkSpec) -> Measurement:
        tried.append(model)
        return Measurement(Verdict.LOAD_FAILED, "broken") if model == b"a" else steady(1.0)

    report = run(measure)
    assert tried.count(b"a") == 1
    assert tried.count(b"b") >= 3
    assert [row.measurement.verdict for row in report.rows] == [Verdict.LOAD_FAILED, Verdict.OK]
    assert report.rows[0].failed


def test_lost_device_fails_its_rows_only() -> None:
    def open_agent(address: str) -> FunctionAgent:
        def measure(model: bytes, _: BenchmarkSpec) -> Measurement:
            if address == "host:" and model == b"a":
                raise DeviceUnavailableError("unplugged")
            return steady(1.0)

        return FunctionAgent(measure, fake_info(address))

    request = Request([(ModelFile("a", "a", "", 1), b"a")], ("host:", "replay:x"), (1,), "search", SPEC)
    report = run_benchmark(request, open_agent=open_agent)
    assert [row.measurement.verdict for row in report.rows] == [Verdict.DEVICE_LOST, Verdict.OK]
    assert "unplugged" in report.rows[0].measurement.detail


def test_probes_that_are_all_slow_flag_the_rows(tmp_path: Path) -> None:
    """Undisturbed times of an earlier session tell."""
    floors = FloorStore(tmp_path / "floors.json")
    assert run(lambda model, _: steady(1.0), floors=floors).rows[0].measurement.ok
    report = run(lambda model, _: steady(1.3), names=("a",), floors=floors)
    (row,) = report.rows
    assert row.flagged
    assert row.measurement.verdict is Verdict.THROTTLED
    assert re.search(r"all probes took at least 1\.(29|30|31) times", row.measurement.detail)
    assert report.devices["host:"].undisturbed_ms(1)["compute"] == pytest.approx(1.3, rel=0.01)


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
    assert len(known.measurement.samples_ms) == 24
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
    request = Request([(model, data)], ("host:",), (1,), "search", SPEC)
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
        request = Request(files, ("replay:x",), (1, 2), "search", spec)
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


def visited(latency_ms: float, verdict: Verdict = Verdict.OK, seed: int = 0, visits: int = 20) -> Measurement:
    """A measurement of visits that agree."""
    times = latency_ms * (1 + np.random.default_rng(seed).normal(0, 0.005, visits))
    quiet = agreed([VisitTime(float(time_ms), i) for i, time_ms in enumerate(times)], VisitSettings())
    return Measurement(
        verdict,
        samples_ms=tuple(float(time_ms) for time_ms in times for _ in range(3)),
        visits=tuple(Visit(3, i, 0.1 * i) for i in range(visits)),
        quiet=quiet,
        conditions=CONDITIONS,
    )


def device_record(**undisturbed_ms: float) -> DeviceRecord:
    states = [ProbeState(name, 1.0, time_ms, time_ms, 0.9, 40, time_ms) for name, time_ms in undisturbed_ms.items()]
    return DeviceRecord(fake_info("host:"), tuple(ProbeRecord(1, state) for state in states))


def make_report(
    latency_ms: float = 1.0,
    name: str = "a",
    sha256: str = "1",
    device: DeviceRecord | None = None,
    verdict: Verdict = Verdict.OK,
    **changes: object,
) -> Report:
    """A report of one row; `changes` are to its conditions."""
    conditions = replace(CONDITIONS, **changes)  # type: ignore[arg-type]
    measurement = replace(visited(latency_ms, verdict), conditions=conditions)
    row = BenchmarkRow(ModelFile(name, name, sha256, 10), "host:", conditions.threads, measurement)
    device = device or device_record(compute=1.0, cache=1.0, memory=1.0)
    return Report("0.1", "2024-01-01T00:00:00+00:00", "search", SPEC, {"host:": device}, (row,))


def conclusion(report: Report, baseline: Report) -> str:
    (comparison,) = benchmarking.compare_with_baseline(report, baseline)
    assert (comparison.ratio is None) == comparison.conclusion.startswith("not comparable")
    return "; ".join((comparison.conclusion, *comparison.caveats))


def test_report_survives_writing_and_reading(tmp_path: Path) -> None:
    report = make_report(verdict=Verdict.UNSTEADY, cores=(0, 1))
    file = tmp_path / "report.json"
    file.write_text(benchmarking.to_json(report))
    assert read_report(file) == report


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.pop("rows"),
        lambda data: data.update(schema=3),
        lambda data: data.update(kind="other"),
        lambda data: data["rows"][0]["measurement"]["visits"].pop(),
        lambda data: data["rows"][0].pop("finished"),
        lambda data: data["devices"][0]["probes"][0].update(floor_ms=-1.0),
        lambda data: data["devices"][0]["probes"][0].update(quiet_share=1.1),
        lambda data: data["devices"][0]["probes"][0].pop("level"),
        lambda data: data["rows"][0].update(threads="1"),
        lambda data: data["rows"][0]["model"].pop("sha256"),
        lambda data: data["rows"][0]["measurement"].update(samples_ms=[-1]),
        lambda data: data["devices"][0]["info"].pop("os"),
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
    zeros = replace(row, measurement=replace(row.measurement, samples_ms=(0.0,) * 60))
    none = replace(row, measurement=replace(row.measurement, samples_ms=(), visits=(), quiet=None))
    assert "not above 0" in conclusion(make_report(), replace(baseline, rows=(zeros,)))
    assert "not comparable" in conclusion(make_report(), replace(baseline, rows=(none,)))


def test_doubts_are_told_with_the_comparison() -> None:
    assert "unreliable latency: contended" in conclusion(make_report(2.0), make_report(verdict=Verdict.CONTENDED))
    longer = replace(make_report(), preset="final")
    assert "preset search, baseline final" in conclusion(make_report(), longer)
    unknown = make_report(device=device_record())
    assert "whether the device itself has changed is not known" in conclusion(make_report(), unknown)


def test_a_device_that_is_slower_as_a_whole_does_not_make_a_model_slower() -> None:
    slower = device_record(compute=1.2, cache=1.21, memory=1.19)
    assert conclusion(make_report(1.2, device=slower), make_report(1.0)) == (
        "no significant difference; corrected, as the device itself has changed (compute +20%, cache +21%, memory +19%)"
    )
    (twice,) = benchmarking.compare_with_baseline(make_report(2.4, device=slower), make_report(1.0))
    assert twice.ratio == pytest.approx(2.0, rel=0.01)
    assert twice.significant


def test_a_device_whose_probes_have_changed_differently_is_not_compared() -> None:
    contended = device_record(compute=1.0, cache=1.02, memory=1.18)
    said = conclusion(make_report(1.3, device=contended), make_report(1.0))
    assert said.startswith("not comparable: the device itself has changed, and not alike for all models")
    assert "(compute +0%, cache +2%, memory +18%)" in said


def test_probes_move_a_little_between_any_two_sessions() -> None:
    change = change_of_probes({"compute": 1.02, "memory": 0.98, "new": 3.0}, {"compute": 1.0, "memory": 1.0})
    assert change is not None
    assert change.is_none
    assert change_of_probes({"compute": 1.0}, {"memory": 1.0}) is None


def test_two_sessions_cannot_tell_apart_what_is_closer_than_sessions_are() -> None:
    assert conclusion(make_report(1.03), make_report(1.0)) == "no significant difference"
    assert conclusion(make_report(1.1), make_report(1.0)) == "10.0% slower"


def test_models_are_compared_with_the_first_that_has_a_latency() -> None:
    times = {b"b": 3.0, b"c": 1.0, b"d": 3.0}

    def measure(model: bytes, _: BenchmarkSpec) -> Measurement:
        return Measurement(Verdict.LOAD_FAILED, "broken") if model == b"a" else steady(times.get(model, 1.0))

    report = run(measure, names=("a", "b", "c", "d"), spec=SPEC.replace(min_duration_s=1.0))
    first, second = benchmarking.compare_models(report)
    assert (first.model, first.reference, first.significant) == ("c", "b", True)
    assert first.ratio == pytest.approx(1 / 3, rel=0.01)
    assert (second.model, second.conclusion, second.significant) == ("d", "no significant difference", False)
    table = to_table(report, [first, second])
    assert re.search(r"^c takes 0\.33\d*x \[0\.33\d*, 0\.33\d*\] the time of b$", table, re.M)
    assert re.search(r"^d takes 1\.00\d*x \[.*\] the time of b \(not significant\)$", table, re.M)


def test_ratios_are_of_the_same_device_and_number_of_threads() -> None:
    report = run(lambda model, spec: steady(2.0 / spec.threads), threads=(1, 2), devices=("host:", "replay:x"))
    compared = benchmarking.compare_models(report)
    assert [(c.model, c.device, c.threads, c.significant) for c in compared] == [
        ("b", "host:", 1, False), ("b", "host:", 2, False), ("b", "replay:x", 1, False), ("b", "replay:x", 2, False)
    ]  # fmt: skip
    assert "the time of a on host: with 2 threads" in to_table(report, compared)


def test_where_two_were_hardly_undisturbed_together_their_latencies_are_compared() -> None:
    a = visited(1.0)
    b = replace(visited(2.0), visits=tuple(replace(visit, round=visit.round + 100) for visit in a.visits))
    rows = [BenchmarkRow(ModelFile(n, n, n, 1), "host:", 1, m) for n, m in (("a", a), ("b", b))]
    (comparison,) = benchmarking.compare_models(replace(make_report(), rows=tuple(rows)))
    assert comparison.ratio == pytest.approx(2.0, rel=0.01)
    assert comparison.caveats == ("too few rounds in which both were undisturbed: latencies compared",)


# Files of earlier versions, which measured in one go and had an anchor model in place of the probes.

OLD = Path(__file__).parent / "support" / "old_benchmark.json"


def test_a_report_of_an_earlier_version_is_read() -> None:
    report = read_report(OLD)
    assert (report.complete, report.missing, report.in_visits) == (False, 1, False)
    assert [(row.model.name, row.complete) for row in report.rows] == [("a", True), ("b", False)]
    (probe,) = report.devices["host:"].probes
    assert (probe.state.name, round(probe.undisturbed_ms or 0, 2)) == ("anchor", 1.0)
    table = to_table(report, benchmarking.compare_models(report))
    assert "anchor probe: floor 0.9993 ms" in table
    assert read_report_text(benchmarking.to_json(report)) == report


def test_quiet_latencies_are_not_compared_with_medians_of_an_earlier_version() -> None:
    report = run(lambda model, _: steady(1.0), names=("a",))
    info = read_report(OLD).rows[0].measurement.conditions
    assert info is not None
    (row,) = report.rows
    row = replace(row, measurement=replace(row.measurement, conditions=info))
    said = conclusion(replace(report, rows=(row,)), read_report(OLD))
    assert said.endswith("latency: quiet, baseline median of all runs, as of earlier versions; measure it again")


def read_report_text(text: str) -> Report:
    return Report.from_json(json.loads(text))


# Rendering.


def shaky(seed: int) -> Measurement:
    """A visit that agrees with no other."""
    return steady(1.0 + 0.2 * seed, seed=seed)


def mixed_report(threads: tuple[int, ...] = (1,)) -> Report:
    visits = 0

    def measure(model: bytes, _: BenchmarkSpec) -> Measurement:
        nonlocal visits
        visits += 1
        if model == b"bad":
            return Measurement(Verdict.OUT_OF_MEMORY, "too large " * 20)
        return shaky(visits) if model == b"shaky" else steady(2.0, seed=visits)

    return run(measure, names=("good", "bad", "shaky"), threads=threads)


def test_table_gives_a_failure_one_line_and_marks_doubts() -> None:
    table = to_table(mixed_report())
    lines = {line.split()[0]: line for line in table.splitlines() if line.strip()}
    assert "out_of_memory  too large" in lines["bad"]
    assert "?" not in lines["good"]
    assert " ? " in lines["shaky"]
    assert "contended: the lowest of " in lines["?"]


def test_table_has_both_latencies_and_says_what_they_are() -> None:
    slow = iter([True, False] * 1000)

    def measure(model: bytes, _: BenchmarkSpec) -> Measurement:
        return steady(1.5 if model == b"a" and next(slow) else 1.0)

    report = run(measure, names=("a",))
    (row,) = report.rows
    quiet = row.measurement.quiet
    assert quiet is not None
    assert quiet.latency_ms == pytest.approx(1.0, rel=0.01)
    lines = [line for line in to_table(report).splitlines() if line.startswith(("MODEL ", "a "))]
    cells = dict(zip(*(re.split(r"  +", line) for line in lines), strict=True))
    assert (cells["QUIET ms"], cells["VERDICT"]) == (f"{quiet.latency_ms:.4g}", "ok")
    assert cells["VISITS"] == f"{quiet.visits}/{len(row.measurement.visits)}"
    assert float(cells["P90"]) == pytest.approx(1.5, rel=0.02)
    assert "OBSERVED, P90: median and 90th percentile of all runs" in to_table(report)


def test_table_names_the_probes_and_how_quiet_they_were() -> None:
    table = to_table(run(lambda model, _: steady(1.0), names=("a",)))
    for name in PROBE_MODELS:
        assert re.search(rf"^  {name} probe: floor \S+ ms, lately \+0% at best, \+0% mostly; 100% quiet$", table, re.M)


def test_a_narrow_terminal_keeps_what_matters() -> None:
    table = to_table(mixed_report(), width=80)
    rows = [line for line in table.splitlines() if line.startswith(("MODEL", "good", "shaky"))]
    assert max(len(line) for line in table.splitlines() if "too large" not in line) <= 80
    for name in ("MODEL", "VERDICT", "QUIET ms", "95% INTERVAL", "OBSERVED", "P90"):
        assert name in rows[0]
    assert re.search(r"^bad .*out_of_memory +too large", table, re.M)


def test_a_corrected_latency_counts_and_says_why() -> None:
    measurement = replace(visited(1.0, Verdict.CORRECTED), detail="only 2 of 40 visits agree")
    (row,) = make_report().rows
    report = replace(make_report(), rows=(replace(row, measurement=measurement),))
    assert (report.rows[0].failed, report.rows[0].flagged) == (False, False)
    table = to_table(report)
    assert "a on host: with 1 thread: corrected: only 2 of 40 visits agree" in table
    assert "?" not in table


def test_csv_has_a_line_for_each_row() -> None:
    answers = {b"bad": Measurement(Verdict.TIMEOUT, "hung")}
    report = run(lambda model, _: answers.get(model, steady(1.0)), names=("good", "bad"), threads=(1, 2))
    rows = list(csv.DictReader(io.StringIO(to_csv(report, benchmarking.compare_with_baseline(report, report)))))
    assert [(row["model"], row["threads"], row["verdict"]) for row in rows] == [
        ("good", "1", "ok"), ("good", "2", "ok"), ("bad", "1", "timeout"), ("bad", "2", "timeout")
    ]  # fmt: skip
    quiet = report.rows[0].measurement.quiet
    assert quiet is not None
    assert [float(rows[0][name]) for name in ("quiet_ms", "quiet_low_ms", "quiet_high_ms")] == [
        quiet.latency_ms, *quiet.interval_ms
    ]  # fmt: skip
    assert int(rows[0]["visits_agreeing"]) == quiet.visits == int(rows[0]["visits"])
    assert float(rows[0]["median_ms"]) == pytest.approx(1.0, rel=0.01)
    assert rows[0]["baseline_conclusion"] == "no significant difference"
    assert rows[2]["quiet_ms"] == rows[2]["median_ms"] == rows[2]["baseline_ratio"] == ""


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
    spec = SPEC.replace(max_attempts=1, min_duration_s=0.0, max_duration_s=0.2)
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
    assert verdicts["conv.tflite"] in (Verdict.OK, Verdict.CORRECTED, *FLAGS)

    csv_out = tmp_path / "again.csv"
    options = ("--preset", "search", "--compare", out, "--format", "csv", "--profile-ops", "--out", csv_out)
    assert command(monkeypatch, conv, *options) == 0
    assert "Compared with the baseline" in capsys.readouterr().out
    (row,) = csv.DictReader(io.StringIO(csv_out.read_text()))
    assert row["baseline_conclusion"]  # what it is depends on how busy the machine is
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
    for row in run_benchmark(Request(files, ("host:",), (1,), "search", spec)).rows:
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
