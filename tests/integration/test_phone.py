"""The command line on a phone: AOSP's real daemon, with a stand-in for the tool that is quick (see `sized_script`)."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from device_agents.android.adb_shell_transport import AdbShellTransport
from device_agents.android.agent import AndroidAgent
from device_agents.android.benchmark_model import BLOCKS
from device_agents.android.transport import Completed
from device_agents.api import PRESETS, BenchmarkSpec, Verdict
from device_agents.errors import DeviceError
from device_agents.pool import PoolSettings
from nas_edge import cli
from nas_edge.benchmarking import Request, run_benchmark
from nas_edge.benchmarking.report import ModelFile
from nas_edge.export.bundle import verify_bundle
from nas_edge.latency import device as device_source
from nas_edge.networks.tflite_model import tflite_model
from nas_edge.runs.run import Run
from nas_edge.search.trials import Trial
from nas_edge.spaces import SPACES
from tests.support import models
from tests.support.android.phone import Phone, files_of, start, write_overlay
from tests.support.android.phones import PIXEL, TWO_CORES
from tests.support.android.tools import sized_script, write_tool
from tests.support.spaces import TINY, tiny_space

STEPS = 8


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    overlay = write_overlay(
        tmp_path_factory.mktemp("phone") / "overlay",
        PIXEL.texts,
        {**TWO_CORES, "sys/devices/system/cpu/possible": "0-1\n"},
    )
    phone = start(overlay, host=True)
    yield phone
    phone.close()


@pytest.fixture(autouse=True)
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_EDGE_BENCHMARK_MODEL", str(write_tool(tmp_path, sized_script())))


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli.nas_edge, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def blocks_measured(phone: Phone) -> Counter[str]:
    """How many blocks the tool has finished, by the beginning of the model's hash."""
    with AdbShellTransport.tcp("127.0.0.1", phone.port) as link:
        names = link.run(["cat", "/data/local/tmp/tool_log"]).output.split()
    return Counter(re.fullmatch(r"model-(\w+)\.tflite", name)[1] for name in names)  # type: ignore[index]


def restart_after(phone: Phone, journal: Path, records: int) -> threading.Thread:
    """Kills the daemon once the search has got somewhere, and starts it again."""

    def restart() -> None:
        while not journal.is_file() or journal.read_bytes().count(b"\n") <= records:
            time.sleep(0.005)
        phone.order("kill")
        time.sleep(0.3)
        phone.order("start")

    thread = threading.Thread(target=restart)
    thread.start()
    return thread


def test_a_search_measures_every_candidate_on_the_phone_though_that_starts_again(
    phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SPACES.entries, "tiny", TINY)
    out = tmp_path / "run"
    restarting = restart_after(phone, out / "journal.jsonl", records=3)
    short = ["--space", "tiny", "--steps", str(STEPS), "--set", "training.epochs=0.5", "--limit", "none"]
    output = run("search", "--preset", "smoke", "--device", phone.address, *short, "--out", str(out))
    restarting.join(20)

    trials = [Trial.from_json(record) for record in Run.open(out).journal()]
    assert [trial.step for trial in trials] == [step for step in range(STEPS // 4, STEPS) for _ in range(2)]
    space = tiny_space(16, 1, 10)
    log = blocks_measured(phone)
    for trial in trials:
        model = tflite_model(space.decode(trial.architecture), "int8")
        assert trial.measurement is not None
        assert trial.latency_ms == (len(model) // 10) / 1e3
        assert trial.measurement.conditions is not None
        assert trial.measurement.conditions.runtime == "benchmark_model"
        assert len(trial.measurement.visits) >= 3
        assert trial.measurement.runs is not None
        assert trial.measurement.runs >= 3 * len(trial.measurement.visits)
        # A visit that was cut short is made again, and adds at most what it had finished.
        assert log[hashlib.sha256(model).hexdigest()[:16]] >= 3
    with sqlite3.connect(out / "measurements.sqlite") as database:
        ((kept,),) = database.execute("SELECT count(*) FROM measurements")
    database.close()
    assert kept == len({trial.architecture for trial in trials})

    # The tool's stand-in runs LiteRT for outputs, as the host does.
    result = json.loads((out / "result.json").read_text())
    for precision, model_bytes in verify_bundle(out / "bundle").models.items():
        assert model_bytes
        check = result["on_device_check"][precision]
        assert (check["agrees"], check["images"], check["same_answer"]) == (True, 4, 1.0)
    assert "outputs match this machine's" in output
    assert files_of(phone) == []


def test_a_benchmark_on_a_phone_prints_the_table_it_prints_for_this_machine(
    phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "search", PRESETS["search"].replace(max_risk=1.0, patience_s=0.0))
    model = tmp_path / "net.tflite"
    model.write_bytes(models.conv_model(layers=2, channels=8, side=16))
    output = run(
        *("benchmark", str(model), "--preset", "search", "--profile-ops"),
        *("--device", phone.address, "--device", "host:", "--format", "json", "--out", str(tmp_path / "out.json")),
    )
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    on_phone, on_host = (row["measurement"] for row in rows)
    assert on_host["runs_per_sample"] == 1
    assert on_phone["runs_per_sample"] >= 1
    assert on_phone["conditions"]["device_model"] == "Google Pixel 6 Pro"
    assert [op["op"] for op in on_phone["profile"]] == [op["op"] for op in on_host["profile"]]
    assert np.isclose(sum(op["share"] for op in on_phone["profile"]), 1, atol=0.02)
    lines = output.splitlines()
    # A busy machine may flag its own row with a question mark.
    cells = {line.split()[1]: line.replace(" ?", "").split() for line in lines if line.startswith("net.tflite ")}
    assert len(cells[phone.address]) == len(cells["host:"])
    each = f"x{on_phone['runs_per_sample']}" if on_phone["runs_per_sample"] > 1 else ""
    assert re.search(rf" {len(on_phone['samples_ms'])}{each} ", "\n".join(lines))
    assert len(re.findall(r"OPERATOR\b", output)) == 2


def cut_after(phone: Phone, blocks: int) -> threading.Thread:
    """Cuts the link once the tool has finished so many blocks."""

    def cut() -> None:
        deadline_s = time.monotonic() + 60
        while blocks_measured(phone).total() < blocks and time.monotonic() < deadline_s:
            time.sleep(0.02)
        phone.order("cut")

    thread = threading.Thread(target=cut)
    thread.start()
    return thread


def test_a_benchmark_goes_on_after_its_link_was_cut(phone: Phone, tmp_path: Path) -> None:
    sizes = (8, 16)
    files = [tmp_path / f"net{size}.tflite" for size in sizes]
    for file, size in zip(files, sizes, strict=True):
        file.write_bytes(models.conv_model(layers=2, channels=8, side=size))
    before = blocks_measured(phone).total()
    cutting = cut_after(phone, before + BLOCKS)
    out = tmp_path / "out.json"
    run(
        "benchmark",
        *map(str, files),
        "--preset",
        "search",
        "--device",
        phone.address,
        "--format",
        "json",
        "--out",
        str(out),
    )
    cutting.join(20)
    rows = json.loads(out.read_text())["rows"]
    assert [row["finished"] for row in rows] == [True, True]
    assert all(row["measurement"]["quiet"] is not None for row in rows)
    assert files_of(phone) == []


class RuiningLink(AdbShellTransport):
    """Changes one byte of one model whenever that is sent."""

    ruins: bytes = b""

    def _run(self, command_line: str, timeout_s: float, file: tuple[bytes, str] | None) -> Completed:
        if file is not None and self.ruins in file[0]:
            end = file[0].index(self.ruins) + len(self.ruins)
            file = file[0][: end - 1] + bytes([file[0][end - 1] ^ 1]) + file[0][end:], file[1]
        return super()._run(command_line, timeout_s, file)


def test_a_push_that_is_ruined_each_time_is_told_of_the_model_it_ruins_alone(phone: Phone) -> None:
    good, ruined = (models.conv_model(layers=2, channels=8, side=side) for side in (8, 16))
    link = RuiningLink.tcp("127.0.0.1", phone.port)
    assert isinstance(link, RuiningLink)
    link.ruins = ruined
    files = [(ModelFile(name, name, name, 1), data) for name, data in (("good", good), ("ruined", ruined))]
    request = Request(files, (phone.address,), (1,), "search", PRESETS["search"])
    report = run_benchmark(request, open_agent=lambda _: AndroidAgent(link), patience=PoolSettings(quarantine_s=0.1))
    rows = {row.model.name: row for row in report.rows}
    assert rows["good"].measurement.samples_ms
    told = rows["ruined"].measurement
    assert told.verdict is Verdict.DEVICE_LOST
    assert f"model-{hashlib.sha256(ruined).hexdigest()[:16]}.tflite cannot be put in place" in told.detail
    assert "its SHA-256 differs from what was sent" in told.detail


def test_a_benchmark_that_is_stopped_leaves_nothing_on_the_phone_and_goes_on(phone: Phone, tmp_path: Path) -> None:
    file, out = tmp_path / "net.tflite", tmp_path / "out.json"
    file.write_bytes(models.conv_model(layers=2, channels=8, side=24))
    key = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    measuring = ["benchmark", str(file), "--preset", "rapid", "--device", phone.address]
    command = [sys.executable, "-m", "nas_edge.cli", *measuring, "--format", "json", "--out", str(out)]
    deadline_s = time.monotonic() + 60
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    # The probes come first; what is kept are whole rounds.
    while blocks_measured(phone)[key] < 3 * BLOCKS and time.monotonic() < deadline_s:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert json.loads(out.read_text())["complete"] is False
    assert files_of(phone) == []
    assert "to make them, run the same command again" in said
    again = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, again.stderr
    report = json.loads(out.read_text())
    assert report["complete"] is True
    assert [row["finished"] for row in report["rows"]] == [True]
    assert files_of(phone) == []


def breaking_script() -> str:
    """As `sized_script` for as many runs as /data/local/tmp/left says; then it prints nonsense, and ends with 0."""
    first, rest = sized_script().split("graph=${1#", 1)
    counts = "left=$(cat /data/local/tmp/left); echo $((left - 1)) > /data/local/tmp/left\n"
    return f"{first}{counts}[ $left -gt 0 ] || {{ head -c 2000 /dev/urandom; exit 0; }}\ngraph=${{1#{rest}"


def let_run(phone: Phone, times: int) -> None:
    with AdbShellTransport.tcp("127.0.0.1", phone.port) as link:
        link.script("echo $1 > /data/local/tmp/left", str(times))


@pytest.mark.slow
def test_a_tool_that_breaks_for_good_stops_the_search_and_is_held_against_no_candidate(
    phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SPACES.entries, "tiny", TINY)
    monkeypatch.setattr(device_source, "PoolSettings", partial(PoolSettings, quarantine_s=0.2, lost_after_s=1.0))
    monkeypatch.setenv("NAS_EDGE_BENCHMARK_MODEL", str(write_tool(tmp_path / "breaking", breaking_script())))
    out = tmp_path / "my run"
    short = ["--space", "tiny", "--steps", "12", "--target-ms", "50", "--limit", "none", "--set=training.epochs=0.5"]
    let_run(phone, 10 * BLOCKS)
    command = ["search", "--preset", "smoke", "--device", phone.address, *short, "--out", str(out)]
    stopped = CliRunner().invoke(cli.nas_edge, command)
    assert isinstance(stopped.exception, DeviceError), stopped.output
    assert "benchmark_model on the phone" in str(stopped.exception)
    assert "does not run the anchor model" in str(stopped.exception)
    answers = [Trial.from_json(record).latency for record in Run.open(out).journal()]
    assert answers
    assert {answer and answer.verdict for answer in answers} <= {Verdict.OK, Verdict.BENCH_FAILED}

    let_run(phone, 100_000)
    _, _, advised = stopped.output.partition("to continue it: nas-edge ")
    run(*shlex.split(advised.splitlines()[0]))
    assert "ok" in Run.open(out).trials().verdict
    assert Run.open(out).finished


@pytest.mark.slow
def test_a_broken_tool_and_no_model_is_blamed_by_a_benchmark(
    phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It lists its flags, and prints nonsense for every model.
    script = "#!/system/bin/sh\ncase $1 in --help) echo '\t--graph='; exit 1;; esac\nhead -c 2000 /dev/urandom\n"
    monkeypatch.setenv("NAS_EDGE_BENCHMARK_MODEL", str(write_tool(tmp_path / "broken", script)))
    data = models.conv_model(layers=2, channels=8, side=16)
    request = Request([(ModelFile("net", "net", "", 1), data)], (phone.address,), (1,), "search", BenchmarkSpec())
    (row,) = run_benchmark(request, patience=PoolSettings(quarantine_s=0.1, lost_after_s=0.5)).rows
    assert row.measurement.verdict is Verdict.BENCH_FAILED
    assert "benchmark_model on the phone" in row.measurement.detail
    assert "does not run the anchor model" in row.measurement.detail
