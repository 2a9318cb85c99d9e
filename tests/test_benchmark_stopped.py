"""`nas-edge benchmark` that is stopped: nothing measured is lost, and the rest can be measured later."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from device_agents.api import PRESETS, BenchmarkSpec, Measurement, Verdict
from device_agents.errors import DeviceUnavailableError
from device_agents.replay import model_key
from nas_edge.benchmarking import read_report
from nas_edge.benchmarking.measure import Request, run_benchmark
from nas_edge.benchmarking.report import BenchmarkStoppedError, ModelFile, Report
from nas_edge.errors import UsageError
from tests.support import models
from tests.support.agents import FunctionAgent, fake_info
from tests.test_benchmarking import OLD, PROBES, steady

WAIT_S = 120
# Four visits of 24 ms to each file.
SPEC = PRESETS["search"].replace(min_duration_s=0.08, patience_s=0.001)
ROUNDS = 4


class Device:
    """Counts its visits to files, and is interrupted at one of them."""

    def __init__(self, interrupt_at: int = 10**6, median_ms: float = 1.0) -> None:
        self.calls: list[str] = []
        self._interrupt_at, self._median_ms = interrupt_at, median_ms
        self.agents: list[FunctionAgent] = []

    def measure(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        if model in PROBES:
            return steady(self._median_ms)
        self.calls.append(model.decode())
        if len(self.calls) == self._interrupt_at:
            # The signal comes while the main thread waits for the device.
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.05)
        if model == b"broken":
            return Measurement(Verdict.LOAD_FAILED, "not a model")
        return steady(self._median_ms, seed=len(self.calls))

    def open(self, address: str) -> FunctionAgent:
        self.agents.append(FunctionAgent(self.measure, fake_info(address)))
        return self.agents[-1]


def request(*names: str, spec: BenchmarkSpec = SPEC, threads: tuple[int, ...] = (1,)) -> Request:
    files = [(ModelFile(name, name, model_key(name.encode()), 1), name.encode()) for name in names]
    return Request(files, ("host:",), threads, "search", spec)


def stopped(device: Device, wanted: Request, earlier: Report | None = None) -> Report:
    told: list[Report] = []
    with pytest.raises(BenchmarkStoppedError) as stop:
        run_benchmark(wanted, open_agent=device.open, earlier=earlier, on_stop=told.append)
    assert told == [stop.value.report]
    assert all(agent.closed for agent in device.agents)
    return stop.value.report


@pytest.mark.parametrize("interrupt_at", range(1, 3 * ROUNDS + 2))
def test_stopped_at_any_visit_and_continued_no_visit_is_lost(interrupt_at: int, tmp_path: Path) -> None:
    wanted, device = request("a", "b", "broken", "c"), Device(interrupt_at)
    report = stopped(device, wanted)
    assert not report.complete
    assert 0 < report.missing <= 4
    file = tmp_path / "report.json"
    file.write_text(json.dumps(report.to_json()))
    again = Device()
    whole = run_benchmark(wanted, open_agent=again.open, earlier=Report.from_json(json.loads(file.read_text())))
    assert whole.complete
    assert [len(row.measurement.visits) for row in whole.rows] == [ROUNDS, ROUNDS, 1, ROUNDS]
    assert [row.measurement.verdict for row in whole.rows] == ["ok", "ok", "load_failed", "ok"]
    kept = sum(len(row.measurement.visits) for row in report.rows)
    assert len(again.calls) == 3 * ROUNDS + 1 - kept
    # Of the round that was under way nothing is kept: its visits were not all made.
    assert kept == (0 if interrupt_at <= 4 else 4 + (interrupt_at - 5) // 3 * 3)
    for row in report.rows:
        (same,) = [other for other in whole.rows if other.model == row.model]
        assert same.measurement.samples_ms[: len(row.measurement.samples_ms)] == row.measurement.samples_ms
        assert same.measurement.visits[: len(row.measurement.visits)] == row.measurement.visits
    assert (whole.created_utc, len(whole.continued_utc)) == (report.created_utc, 1)


def test_models_are_compared_only_within_the_rounds_of_one_session() -> None:
    wanted = request("a", "b")
    report = stopped(Device(4), wanted)
    whole = run_benchmark(wanted, open_agent=Device().open, earlier=report)
    first, second = ([visit.round for visit in row.measurement.visits] for row in whole.rows)
    assert first == second == sorted(set(first))


def test_a_device_that_changed_in_between_shows_in_its_probes_and_in_the_verdict() -> None:
    wanted = request("a", "b")
    report = stopped(Device(4), wanted)
    assert report.rows
    whole = run_benchmark(wanted, open_agent=Device(median_ms=1.5).open, earlier=report)
    assert whole.devices["host:"].undisturbed_ms(1)["compute"] == pytest.approx(1.5, rel=0.02)
    assert {row.measurement.verdict for row in whole.rows} == {"drifted"}
    assert "between which the device has changed (compute +50%" in whole.rows[0].measurement.detail


def test_a_change_between_two_sessions_is_not_forgotten_in_a_third() -> None:
    wanted = request("a", "b", spec=SPEC.replace(min_duration_s=0.2, max_duration_s=0.3))
    first = stopped(Device(4), wanted)
    second = stopped(Device(4, median_ms=1.5), wanted, first)
    assert {row.measurement.verdict for row in second.rows} == {"drifted"}
    whole = run_benchmark(wanted, open_agent=Device(median_ms=1.5).open, earlier=second)
    assert whole.complete
    assert {row.measurement.verdict for row in whole.rows} == {"drifted"}


def test_a_device_that_did_not_change_in_between_leaves_the_verdict_alone() -> None:
    wanted = request("a", "b")
    whole = run_benchmark(wanted, open_agent=Device().open, earlier=stopped(Device(4), wanted))
    assert {row.measurement.verdict for row in whole.rows} == {"ok"}


def test_a_device_that_was_lost_keeps_its_visits_and_goes_on_with_them() -> None:
    device = Device()

    def lost_at_the_fifth(model: bytes, spec: BenchmarkSpec) -> Measurement:
        if len(device.calls) >= 4 and model not in PROBES:
            raise DeviceUnavailableError("unplugged")
        return device.measure(model, spec)

    def open_agent(address: str) -> FunctionAgent:
        return FunctionAgent(lost_at_the_fifth, fake_info(address))

    wanted = request("a", "b")
    report = run_benchmark(wanted, open_agent=open_agent)
    assert (report.complete, report.missing) == (False, 2)
    assert {row.measurement.verdict for row in report.rows} == {Verdict.DEVICE_LOST}
    samples = [row.measurement.samples_ms for row in report.rows]
    assert min(map(len, samples)) >= 48
    whole = run_benchmark(wanted, open_agent=Device().open, earlier=report)
    assert (whole.complete, {row.measurement.verdict for row in whole.rows}) == (True, {Verdict.OK})
    for row, before in zip(whole.rows, samples, strict=True):
        assert row.measurement.samples_ms[: len(before)] == before


def test_what_an_earlier_version_began_is_not_continued() -> None:
    report = read_report(OLD)
    with pytest.raises(UsageError, match=r"begun by nas_edge 0\.1\.0, which measured in another way.*name a new file"):
        run_benchmark(request("a", "b"), open_agent=Device().open, earlier=report)


def test_other_benchmarks_are_not_continued() -> None:
    report = stopped(Device(4), request("a", "b"))
    for other, what in (
        (request("a"), "models"),
        (request("a", "b", spec=SPEC.replace(delegate="none")), "settings"),
        (request("a", "b", threads=(2,)), "threads"),
    ):
        with pytest.raises(UsageError, match=f"cannot be continued with other {what};"):
            run_benchmark(other, open_agent=Device().open, earlier=report)
    with pytest.raises(UsageError, match="was begun on phone with litert 1"):
        run_benchmark(
            request("a", "b"),
            open_agent=lambda address: FunctionAgent(Device().measure, fake_info(address, "another phone")),
            earlier=report,
        )
    more = run_benchmark(request("a", "b", "c"), open_agent=Device().open, earlier=report)
    assert [row.model.name for row in more.rows] == ["a", "b", "c"]


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    names = ("one.tflite", "two\nlines.tflite")
    for name in names:
        (tmp_path / name).write_bytes(models.conv_model())
    return [str(tmp_path / name) for name in names]


def start(*arguments: str, **popen: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "nas_edge.cli", "benchmark", "--preset=rapid", *arguments]
    return subprocess.Popen(command, text=True, **popen)  # type: ignore[call-overload,no-any-return]


def await_first(err: Path) -> None:
    """Waits until a measurement was told."""
    give_up_s = time.monotonic() + WAIT_S
    while not re.search(r"measuring \d", err.read_text()):
        assert time.monotonic() < give_up_s, err.read_text()
        time.sleep(0.05)


def workers(process: subprocess.Popen[str]) -> list[int]:
    """Children of a process."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(child) for child in children.read_text().split()]


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(
    ("number", "goes_on"),
    [
        (signal.SIGTERM, False),
        pytest.param(signal.SIGINT, False, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, True, marks=pytest.mark.slow),
    ],
)
def test_a_signal_prints_and_writes_what_was_measured_and_the_same_command_goes_on(
    number: signal.Signals, goes_on: bool, files: list[str], tmp_path: Path
) -> None:
    out, err = tmp_path / "out.json", tmp_path / "err.txt"
    command = ("--format=json", f"--out={out}", *files)
    with err.open("w") as errors:
        process = start(*command, stdout=subprocess.PIPE, stderr=errors)
        await_first(err)
        children = workers(process)
        process.send_signal(number)
        printed, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130
    said = err.read_text()
    assert "Traceback" not in said
    assert "missing or not finished; to make them, run the same command again" in said
    assert "INCOMPLETE: " in printed
    assert "one.tflite" in printed
    assert "two\n" not in printed
    assert not [child for child in children if is_there(child)]
    before = read_report(out)
    assert not before.complete
    assert json.loads(out.read_text())["complete"] is False

    if not goes_on:  # what follows is the same for all, and takes half a minute
        return
    process = start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    printed, said = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, said
    assert "INCOMPLETE" not in printed
    assert "measured in 2 sessions" in printed
    after = read_report(out)
    assert after.complete
    first = before.rows[0].measurement.samples_ms
    assert after.rows[0].measurement.samples_ms[: len(first)] == first

    process = start(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert "exists already" in process.communicate(timeout=WAIT_S)[1]
    assert process.returncode == 2


@pytest.mark.parametrize("form", ["csv", pytest.param("table", marks=pytest.mark.slow)])
def test_in_a_terminal_ctrl_c_ends_with_the_table(files: list[str], tmp_path: Path, form: str) -> None:
    out = tmp_path / "out"
    master, slave = pty.openpty()
    process = start(f"--format={form}", f"--out={out}", *files, stdin=slave, stdout=slave, stderr=slave, **_OF_ITS_OWN)
    os.close(slave)
    seen = read_until(master, lambda text: "one.tflite x1" in text)
    os.write(master, b"\x03")
    seen += read_until(master, lambda text: "nas-edge: stopped" in text)
    assert process.wait(WAIT_S) == 130
    os.close(master)
    assert "stopping; press Ctrl-C again not to wait for the device" in seen
    assert seen.count("INCOMPLETE") == 1
    assert seen.index("INCOMPLETE") < seen.index("nas-edge: stopped; ")
    if form == "table":
        assert "INCOMPLETE" in out.read_text()
        return
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert [row["complete"] for row in rows] == ["False"] * len(rows) != []


def test_a_terminal_that_is_closed_costs_nothing(files: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    master, slave = pty.openpty()
    process = start("--format=json", f"--out={out}", *files, stdin=slave, stdout=slave, stderr=slave, **_OF_ITS_OWN)
    os.close(slave)
    read_until(master, lambda text: "one.tflite x1" in text)
    os.close(master)
    assert process.wait(WAIT_S) == 130
    assert read_report(out).rows


def _control_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


# A session whose terminal it is, as a shell's.
_OF_ITS_OWN = {"start_new_session": True, "preexec_fn": _control_terminal}


def read_until(master: int, seen_enough: Callable[[str], bool]) -> str:
    text, give_up_s = "", time.monotonic() + WAIT_S
    while not seen_enough(text):
        assert time.monotonic() < give_up_s, text
        try:
            text += os.read(master, 4096).decode(errors="replace")
        except OSError:  # the process has ended
            break
    return text
