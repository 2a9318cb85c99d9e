"""Each check finds what is wrong, says the fix, and survives a machine that tells nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from device_agents.api import Conditions, Measurement, Verdict
from device_agents.checks import Check, healthy
from device_agents.devices import DeviceRow
from device_agents.errors import DeviceUnavailableError
from nas_edge import cli, doctor

CONDITIONS = Conditions("device", "cpu", "ai_edge_litert", "2.3.0", "cpu", 1, "2020-01-01T00:00:00", delegate_kernels=1)
GOOD = Measurement(Verdict.OK, samples_ms=(0.5,) * 20, conditions=CONDITIONS)


def with_conditions(**changes: object) -> Measurement:
    return replace(GOOD, conditions=replace(CONDITIONS, **changes))  # type: ignore[arg-type]


def put(root: Path, name: str, text: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_this_machine_has_what_the_tests_need(tmp_path: Path) -> None:
    """Everything on the real thing, without loading TensorFlow in the process that asks."""
    code = (
        "import json, pathlib, sys; from nas_edge import doctor\n"
        "print(json.dumps([vars(check) for check in doctor.examine(pathlib.Path.cwd(), watch_s=1.0)]))\n"
        "assert not {'tensorflow', 'keras', 'pandas', 'sklearn'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    checks = [Check(**check) for check in json.loads(done.stdout)]
    found = by_name(checks)
    assert [found[name].state for name in ("python", "packages", "tensorflow")] == ["pass"] * 3
    assert found["tflite runtime"].state in ("pass", "warn")  # machines that run tests are seldom quiet
    assert "runs a small model in" in found["tflite runtime"].found
    assert "imported in" in found["tensorflow"].found
    assert str(tmp_path) in found["disk"].found
    assert "device host:" in found
    assert {"compute probe", "cache probe", "memory probe", "quiet visits", "candidate"} <= set(found)
    assert all(check.fix for check in checks if check.state != "pass")
    assert not list(tmp_path.iterdir())


def test_packages_that_are_missing_or_of_another_version() -> None:
    requirements = [
        "numpy >= 2.0",
        "numpy < 1.0",
        "no-such-package-of-anyone ~= 1.0",
        "not-for-this-python; python_version < '3'",
        "optional-one >= 4; extra == 'tfds'",
        "what is this?",
    ]
    summary, *wrong = doctor.check_packages(requirements)
    assert (summary.state, summary.found) == ("pass", "1 as required")
    assert [(check.name, check.state) for check in wrong] == [("numpy", "fail"), ("no-such-package-of-anyone", "fail")]
    assert wrong[0].found.endswith("; requires <1.0")
    assert wrong[1].fix == 'pip install "no-such-package-of-anyone~=1.0"'


@pytest.mark.parametrize(
    ("code", "out", "log", "state", "expected"),
    [
        (0, "2.21.0 1\n", "", "pass", "2.21.0, imported in 3.2 s; GPUs: 1"),
        (-signal.SIGILL, "", "", "fail", "AVX"),
        (1, "", "Traceback ...\nImportError: libfoo.so: cannot open shared object file\n", "fail", "libfoo.so"),
        (-signal.SIGSEGV, "", "", "fail", "exit code -11"),
        (0, "", "", "fail", "cannot be imported"),
    ],
)
def test_how_the_import_of_tensorflow_ended(code: int, out: str, log: str, state: str, expected: str) -> None:
    check = doctor.tensorflow_result(code, out, log, 3.21)
    assert check.state == state
    assert expected in check.found
    assert bool(check.fix) == (state != "pass")


@pytest.mark.parametrize(
    ("measurement", "state", "expected"),
    [
        (GOOD, "pass", "ai_edge_litert 2.3.0 runs a small model in 0.5000 ms, with XNNPACK"),
        (with_conditions(delegate_kernels=0), "warn", "without XNNPACK"),
        (with_conditions(delegate_kernels=None), "pass", "in 0.5000 ms"),
        (GOOD.with_verdict(Verdict.UNSTEADY, "too wide"), "warn", "unsteady: too wide"),
        (Measurement(Verdict.LOAD_FAILED, "bad bytes"), "fail", "load_failed: bad bytes"),
        (DeviceUnavailableError("no runtime"), "fail", "no runtime"),
    ],
)
def test_the_runtime(measurement: Measurement | DeviceUnavailableError, state: str, expected: str) -> None:
    check = doctor.check_runtime(measurement)
    assert check.state == state
    assert expected in check.found
    assert bool(check.fix) == (state != "pass")


def test_a_processor_that_tells_nothing(tmp_path: Path) -> None:
    for measurement in (DeviceUnavailableError("gone"), Measurement(Verdict.LOAD_FAILED), GOOD):
        assert [check.state for check in doctor.check_cpu(measurement, tmp_path)] == ["pass"]


@pytest.mark.parametrize(
    ("governor", "state"), [("performance", "pass"), ("powersave", "warn"), ("performance,schedutil", "warn")]
)
def test_the_governor(tmp_path: Path, governor: str, state: str) -> None:
    found = by_name(doctor.check_cpu(with_conditions(governor=governor), tmp_path))
    assert found["cpu governor"].state == state


@pytest.mark.parametrize(
    ("file", "content", "state"),
    [
        ("intel_pstate/no_turbo", "0\n", "warn"),
        ("intel_pstate/no_turbo", "1\n", "pass"),
        ("cpufreq/boost", "1\n", "warn"),
        ("cpufreq/boost", "0\n", "pass"),
    ],
)
def test_turbo(tmp_path: Path, file: str, content: str, state: str) -> None:
    switch = put(tmp_path, f"sys/devices/system/cpu/{file}", content)
    check = by_name(doctor.check_cpu(GOOD, tmp_path))["cpu turbo"]
    assert check.state == state
    if state == "warn":  # what the fix writes turns it off
        put(tmp_path, f"sys/devices/system/cpu/{file}", check.fix.split()[1])
        assert check.fix.endswith(str(switch))
        assert by_name(doctor.check_cpu(GOOD, tmp_path))["cpu turbo"].state == "pass"


def test_load_and_heat(tmp_path: Path) -> None:
    quiet = with_conditions(load_average_before=0.0, temperature_c_after=40.0)
    busy = with_conditions(load_average_before=1000.0, temperature_c_after=97.0)
    for measurement, state in ((quiet, "pass"), (busy, "warn")):
        found = by_name(doctor.check_cpu(measurement, tmp_path))
        assert [found["cpu load"].state, found["cpu temperature"].state] == [state, state]


@pytest.mark.parametrize(
    ("available_kb", "state"), [(16_000_000, "pass"), (3_000_000, "warn"), (1_000_000, "fail"), (None, "pass")]
)
def test_memory(tmp_path: Path, available_kb: int | None, state: str) -> None:
    if available_kb is not None:
        put(tmp_path, "proc/meminfo", f"MemTotal: 9 kB\nMemAvailable:   {available_kb} kB\n")
    assert doctor.check_memory(tmp_path).state == state


@pytest.mark.parametrize(("limit", "state"), [("max", "pass"), (str(3 * 2**30), "warn"), (str(2 * 2**30), "fail")])
def test_the_memory_a_container_may_use(tmp_path: Path, limit: str, state: str) -> None:
    put(tmp_path, "proc/meminfo", "MemAvailable: 16000000 kB\n")
    put(tmp_path, "sys/fs/cgroup/memory.max", limit)
    put(tmp_path, "sys/fs/cgroup/memory.stat", f"anon {2**30}\nfile 123\n")
    assert doctor.check_memory(tmp_path).state == state


def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = doctor.check_disk(tmp_path / "nowhere")
    assert (missing.state, bool(missing.fix)) == ("fail", True)
    for free, state in ((10**8, "fail"), (10**9, "warn"), (10**10, "pass")):
        usage = type("Usage", (), {"free": free})()
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _, usage=usage: usage)
        assert doctor.check_disk(tmp_path).state == state


def test_that_there_is_no_device_is_no_fault_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    none = DeviceRow("toy:", "toy", "", "unavailable", "no toy", present=False)
    rows = [none, DeviceRow("toy:X", "toy", "", "offline", "why")]
    monkeypatch.setattr(doctor, "list_devices", lambda: rows)
    assert [(check.name, check.state) for check in doctor.check_devices()] == [("device toy:X", "warn")]


def test_a_check_that_cannot_be_made_fails_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise ModuleNotFoundError("No module named 'adb_shell'")

    monkeypatch.setattr(doctor, "list_devices", broken)
    monkeypatch.setattr(doctor, "_measure_anchor", lambda: GOOD)
    monkeypatch.setattr(doctor, "check_noise", lambda *_: broken())
    monkeypatch.setattr(doctor, "check_tensorflow", lambda: Check("tensorflow", "pass", "2.21.0"))
    found = by_name(doctor.examine(tmp_path))
    assert (found["noise"].state, bool(found["noise"].fix)) == ("fail", True)
    assert (found["devices"].state, found["tensorflow"].state) == ("fail", "pass")
    assert "adb_shell" in found["devices"].found
    assert found["devices"].fix


@pytest.mark.parametrize(
    ("script", "state", "expected"),
    [("echo 'Edge TPU Compiler version 16.0.384591198'", "pass", "16.0"), ("exit 127", "warn", "does not run")],
)
def test_edgetpu_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, state: str, expected: str
) -> None:
    program = put(tmp_path, "edgetpu_compiler", f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(doctor.shutil, "which", lambda _: str(program))
    check = doctor.check_edgetpu_compiler()
    assert check.state == state
    assert expected in check.found


@pytest.mark.parametrize(("given", "seconds"), [([], 30.0), (["--watch", "2.5"], 2.5), (["--watch", "0"], 0.0)])
def test_how_long_it_watches_is_an_option(monkeypatch: pytest.MonkeyPatch, given: list[str], seconds: float) -> None:
    asked: list[tuple[str, float]] = []

    def examine(what: str | Path, watch_s: float) -> list[Check]:
        asked.append((str(what), watch_s))
        return [Check("point", "pass", "found this")]

    monkeypatch.setattr(doctor, "examine", examine)
    monkeypatch.setattr("device_agents.doctor.examine", examine)
    for command in (["doctor", *given], ["devices", "doctor", "host:", *given]):
        assert CliRunner().invoke(cli.nas_edge, command, standalone_mode=False).return_value == 0
    assert asked == [(str(Path.cwd()), seconds), ("host:", seconds)]
    refused = CliRunner().invoke(cli.nas_edge, ["doctor", "--watch", "-1"])
    assert refused.exit_code == 2


def test_where_it_does_not_watch_it_says_nothing_of_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_measure_anchor", lambda: GOOD)
    monkeypatch.setattr(doctor, "check_tensorflow", lambda: Check("tensorflow", "pass", "2.21.0"))
    found = by_name(doctor.examine(tmp_path, watch_s=0.0))
    assert not {"noise", "quiet visits", "memory probe"} & set(found)


@pytest.mark.parametrize(("states", "code"), [(("pass", "warn"), 0), (("pass", "warn", "fail"), 1)])
def test_what_is_printed(monkeypatch: pytest.MonkeyPatch, states: tuple[str, ...], code: int) -> None:
    checks = [Check(f"point {state}", state, "found this", f"do {state}") for state in states]  # type: ignore[arg-type]
    monkeypatch.setattr(doctor, "examine", lambda folder, watch_s: checks)
    assert healthy(checks) == (code == 0)

    as_text = CliRunner().invoke(cli.nas_edge, ["doctor"], standalone_mode=False)
    assert as_text.return_value == code
    assert "warn  point warn  found this\n                  fix: do warn\n" in as_text.output
    assert "do pass" not in as_text.output
    assert "\x1b" not in as_text.output

    as_json = CliRunner().invoke(cli.nas_edge, ["doctor", "--json"], standalone_mode=False)
    assert as_json.return_value == code
    assert json.loads(as_json.output)[1] == {
        "name": "point warn",
        "state": "warn",
        "found": "found this",
        "fix": "do warn",
    }
