"""The host agent with real worker processes and models that misbehave."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import device_agents.worker
from device_agents.api import PRESETS, BenchmarkSpec, Measurement, Verdict
from device_agents.errors import (
    DeviceUnavailableError,
    ModelError,
    ModelFileError,
    ProtocolError,
    SpecError,
)
from device_agents.host import HostAgent, pick_cores
from device_agents.worker.frames import PROTOCOL_VERSION, Frame, encode_frame, read_frame
from device_agents.worker.system import cpu_capacities
from device_agents.worker_agent import cores_of_kind
from device_agents.worker_link import WorkerLink
from device_agents.worker_process import ProcessChannel
from tests.support import models
from tests.support.models import OP, T

# Lasts until something happens to it, however busy the machine is.
SLOW = PRESETS["full"].replace(timeout_s=200.0)

READABLE = {
    "float": models.conv_model(),
    "two inputs": models.binary_model(shape=(64, 1024)),
    "int32": models.binary_model(dtype=T.INT32, shape=(64, 1024)),
    "float16": models.unary_model(OP.DEQUANTIZE, (64, 1024), dtype=T.FLOAT16, out_dtype=T.FLOAT32),
    "bool": models.unary_model(OP.LOGICAL_NOT, (64, 1024), dtype=T.BOOL),
    "dynamic batch": models.binary_model(shape=(1, 65536), signature=(-1, 65536)),
}


@pytest.mark.parametrize("name", READABLE)
@pytest.mark.parametrize("delegate", ["cpu", "none"])
def test_any_users_model_is_measured(agent: HostAgent, spec: BenchmarkSpec, name: str, delegate: str) -> None:
    measurement = agent.measure(READABLE[name], spec.replace(delegate=delegate))
    # A busy test machine may well make it unsteady; what counts is that it was timed.
    assert measurement.verdict in (Verdict.OK, Verdict.UNSTEADY), measurement.detail
    assert len(measurement.samples_ms) >= 6
    assert measurement.init_ms is not None
    assert measurement.first_inference_ms is not None
    assert measurement.conditions is not None
    assert measurement.conditions.device_fingerprint == agent.info().fingerprint
    assert Measurement.from_json(measurement.to_json()) == measurement
    if delegate == "none":
        assert measurement.conditions.delegate_kernels == 0


def test_string_inputs_are_fed_and_the_tiny_graph_is_refused(agent: HostAgent, spec: BenchmarkSpec) -> None:
    measurement = agent.measure(models.string_model(), spec)
    assert len(measurement.samples_ms) >= 6


def test_int8_model_of_coral_is_measured(agent: HostAgent, spec: BenchmarkSpec, coral: Path) -> None:
    model = (coral / "mobilenet_v1_0.25_128_quant.tflite").read_bytes()
    assert agent.measure(model, spec).statistics is not None


def test_models_the_runtime_cannot_run_get_its_reason(agent: HostAgent, spec: BenchmarkSpec, coral: Path) -> None:
    for name, op in (
        ("mobilenet_v1_0.25_128_quant_edgetpu", "edgetpu-custom-op"),
        ("model_invoking_error", "fake-op-double"),
    ):
        measurement = agent.measure((coral / f"{name}.tflite").read_bytes(), spec)
        assert measurement.verdict is Verdict.LOAD_FAILED
        assert op in measurement.detail
        assert "\n" not in measurement.detail


def test_input_shapes_are_overridden(agent: HostAgent, spec: BenchmarkSpec) -> None:
    model = models.binary_model(shape=(1, 65536), signature=(-1, 65536))
    wider = spec.replace(input_shapes={"a": (3, 65536), "b": (3, 65536)})
    assert agent.measure(model, wider).samples_ms
    unknown = agent.measure(model, spec.replace(input_shapes={"zzz": (1,)}))
    assert unknown.verdict is Verdict.LOAD_FAILED
    assert "zzz" in unknown.detail


def test_graph_without_operators_is_refused(agent: HostAgent, spec: BenchmarkSpec) -> None:
    assert agent.measure(models.empty_model(), spec).verdict is Verdict.RUN_FAILED


def test_profile_says_why_there_is_none(agent: HostAgent, spec: BenchmarkSpec) -> None:
    measurement = agent.measure(models.conv_model(), spec.replace(profile_ops=True))
    assert measurement.profile or measurement.profile_note


def test_a_model_that_does_not_fit_is_out_of_memory_and_the_worker_lives_on(
    agent: HostAgent, spec: BenchmarkSpec
) -> None:
    small = spec.replace(memory_limit_bytes=256 * 2**20)
    for gib in (0.2, 0.3, 64.0):
        for delegate in ("cpu", "none"):
            measurement = agent.measure(models.huge_model(gib), small.replace(delegate=delegate))
            assert measurement.verdict is Verdict.OUT_OF_MEMORY, (gib, measurement.detail)
    assert agent.measure(models.conv_model(), spec).samples_ms


def test_truncated_and_bit_flipped_files_are_verdicts(spec: BenchmarkSpec) -> None:
    model = models.conv_model(1, 2, 4)
    rng = np.random.default_rng(0)
    quick = spec.replace(timeout_s=5.0, memory_limit_bytes=2**30)
    with HostAgent() as agent:
        for _ in range(60):
            data = bytearray(model[: rng.integers(8, len(model))] if rng.random() < 0.3 else model)
            for position in rng.integers(0, len(data), rng.integers(1, 6)):
                data[position] ^= 1 << int(rng.integers(8))
            measurement = agent.measure(bytes(data), quick)
            assert isinstance(measurement.verdict, Verdict)
            assert measurement.ok or measurement.detail
        assert agent.measure(models.conv_model(), spec).samples_ms


@pytest.mark.parametrize(
    ("sent", "verdict"),
    [
        (signal.SIGSEGV, Verdict.RUN_FAILED),
        (signal.SIGABRT, Verdict.RUN_FAILED),
        (signal.SIGKILL, Verdict.OUT_OF_MEMORY),
    ],
)
def test_a_worker_that_dies_is_a_verdict_and_is_replaced(
    spec: BenchmarkSpec, sent: signal.Signals, verdict: Verdict
) -> None:
    with HostAgent() as agent:
        with disturbed(agent, sent):
            measurement = agent._attempt(models.conv_model(), SLOW)
        assert measurement.verdict is verdict
        assert sent.name in measurement.detail
        assert measurement.latency_ms is None
        assert agent.measure(models.conv_model(), spec).samples_ms


def test_a_worker_that_is_killed_costs_no_candidate(spec: BenchmarkSpec) -> None:
    with HostAgent() as agent:
        with disturbed(agent, signal.SIGKILL):
            measurement = agent.measure(models.conv_model(), SLOW.replace(max_duration_s=2.0, min_duration_s=2.0))
        assert measurement.samples_ms, measurement.detail
        assert measurement.attempts >= 2


def test_a_worker_that_hangs_is_a_timeout_and_is_replaced(spec: BenchmarkSpec) -> None:
    with HostAgent() as agent:
        with disturbed(agent, signal.SIGSTOP) as pids:
            measurement = agent.measure(models.conv_model(), SLOW.replace(timeout_s=2.0))
        assert measurement.verdict is Verdict.TIMEOUT
        assert "running" in measurement.detail
        assert not exists(pids[0])
        assert agent.measure(models.conv_model(), spec).samples_ms


def test_a_worker_that_stopped_reading_is_a_timeout_too(spec: BenchmarkSpec) -> None:
    with HostAgent() as agent:
        agent.measure(models.conv_model(), spec)
        os.kill(worker_of(agent), signal.SIGSTOP)
        large = models.conv_model() + b"\0" * 2**22
        assert agent._attempt(large, spec.replace(timeout_s=1.0)).verdict is Verdict.TIMEOUT


def test_a_worker_that_died_between_candidates_costs_nothing(spec: BenchmarkSpec) -> None:
    with HostAgent() as agent:
        agent.measure(models.conv_model(), spec)
        os.kill(worker_of(agent), signal.SIGKILL)
        wait_until(lambda: not agent._worker or not agent._worker.alive)
        assert agent.measure(models.conv_model(), spec).samples_ms


def test_cores_that_do_not_exist_are_the_callers_error(agent: HostAgent, spec: BenchmarkSpec) -> None:
    with pytest.raises(SpecError, match="4095"):
        agent.measure(models.conv_model(), spec.replace(cores=(4095,)))
    assert agent.measure(models.conv_model(), spec).samples_ms


def test_pinning_is_recorded_and_leaves_a_core_for_others(agent: HostAgent, spec: BenchmarkSpec) -> None:
    assert pick_cores(threads=10_000) is None
    cores = pick_cores(threads=1)
    if cores is None:
        pytest.skip("this system has one core or cannot pin")
    measurement = agent.measure(models.conv_model(), spec.replace(cores=cores))
    assert measurement.conditions is not None
    assert measurement.conditions.cores == cores


def test_run_returns_what_the_model_computes(agent: HostAgent) -> None:
    a, b = np.float32([[1, 2, 3, 4]]), np.float32([[10, 20, 30, 40]])
    (out,) = agent.run(models.binary_model(), [a, b])
    np.testing.assert_array_equal(out, a + b)
    words = np.array([b"a", b"bb", b"ccc"], dtype=object)
    (picked,) = agent.run(models.string_model(), [words, np.int32([2, 0])])
    assert picked.tolist() == [b"ccc", b"a"]


def test_run_refuses_bad_models_and_inputs(agent: HostAgent) -> None:
    with pytest.raises(ModelFileError):
        agent.run(b"not a model, only text", [])
    with pytest.raises(ModelError, match="2 inputs"):
        agent.run(models.binary_model(), [np.zeros((1, 4), np.float32)])
    with pytest.raises(ModelError):
        agent.run(models.binary_model(), [np.zeros((1, 4), np.int32)] * 2)


def test_closing_ends_the_worker_and_may_be_repeated(spec: BenchmarkSpec) -> None:
    agent = HostAgent()
    agent.measure(models.conv_model(), spec)
    pid = worker_of(agent)
    agent.close()
    agent.close()
    assert not exists(pid)


def test_the_worker_dies_with_its_host_even_while_measuring() -> None:
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from device_agents.worker_link import WorkerLink\n"
        "from device_agents.worker_process import start_local_worker\n"
        "from device_agents.worker.frames import Frame\n"
        "from device_agents.api import PRESETS\n"
        "from tests.support.models import conv_model\n"
        "worker = WorkerLink(start_local_worker()); print(worker.channel.pid, flush=True)\n"
        "request = Frame({'do': 'measure', 'spec': PRESETS['full'].to_json()}, (conv_model(),))\n"
        "worker.request(request, 60)\n"
    )
    root = Path(__file__).parents[2]
    host = subprocess.Popen([sys.executable, "-c", script, str(root)], stdout=subprocess.PIPE, text=True)
    assert host.stdout is not None
    pid = int(host.stdout.readline())
    time.sleep(0.3)
    host.kill()
    host.communicate()
    wait_until(lambda: not exists(pid))


def test_a_program_that_is_no_worker_is_an_unavailable_device() -> None:
    for code in (
        "raise SystemExit('no runtime here')",
        "print('hello')",
        "import time; time.sleep(9)",
    ):
        with pytest.raises(DeviceUnavailableError):
            WorkerLink(ProcessChannel([sys.executable, "-c", code]), start_timeout_s=2.0)
    with pytest.raises(DeviceUnavailableError, match="Cannot start"):
        ProcessChannel(["/no/such/python"])


def test_rubbish_in_the_middle_of_an_answer_is_a_protocol_error() -> None:
    hello = encode_frame(Frame({"done": "hello", "protocol": PROTOCOL_VERSION}))
    code = f"import sys; sys.stdout.buffer.write({hello!r} + b'rubbish' * 99)"
    worker = WorkerLink(ProcessChannel([sys.executable, "-c", code]))
    with pytest.raises(ProtocolError):
        worker.request(Frame({"do": "measure"}), 10.0)


def test_the_worker_folder_runs_when_copied_alone(tmp_path: Path) -> None:
    shutil.copytree(
        Path(device_agents.worker.__file__).parent,
        tmp_path / "worker",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "worker"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(encode_frame(Frame({"do": "hello"})))
    process.stdin.flush()
    answer = read_frame(process.stdout.read)
    process.communicate()
    assert answer is not None
    assert answer.header["done"] == "hello"
    assert process.returncode == 0


class disturbed:  # noqa: N801 - reads as a statement
    """Sends a signal to the agent's worker once it is busy measuring."""

    def __init__(self, agent: HostAgent, sent: signal.Signals) -> None:
        self._agent = agent
        self._signal = sent
        self._pids: list[int] = []
        self._thread = threading.Thread(target=self._send)

    def _send(self) -> None:
        wait_until(lambda: self._agent._worker is not None)
        pid = worker_of(self._agent)
        self._pids.append(pid)
        # A second of CPU time is beyond starting and loading, and well within `SLOW`.
        with suppress(OSError):  # on a very busy machine its time may be up before
            wait_until(lambda: cpu_s(pid) > 1.0)
            os.kill(pid, self._signal)

    def __enter__(self) -> list[int]:
        self._thread.start()
        return self._pids

    def __exit__(self, *_: object) -> None:
        self._thread.join()


def worker_of(agent: HostAgent) -> int:
    assert agent._worker is not None
    assert isinstance(agent._worker.channel, ProcessChannel)
    return agent._worker.channel.pid


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def exists(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until(condition: object) -> None:
    deadline_s = time.monotonic() + 120
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline_s, "it never happened"
        time.sleep(0.01)


# What only some devices have


@pytest.mark.parametrize("change", [{"delegate": "gpu"}, {"require_cool": True}, {"require_charged": True}])
def test_what_only_phones_can_do_is_refused(agent: HostAgent, spec: BenchmarkSpec, change: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="phone"):
        agent.measure(models.conv_model(), spec.replace(**change))


def test_kinds_of_cores_are_told_from_the_systems_files(tmp_path: Path) -> None:
    for core, capacity in enumerate((400, 1024, 1024, 400)):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{core}"
        folder.mkdir(parents=True)
        (folder / "cpu_capacity").write_text(f"{capacity}\n")
    capacities = cpu_capacities((0, 1, 2, 3), tmp_path)
    assert cores_of_kind("big", capacities, "pi") == (1, 2)
    assert cores_of_kind("little", capacities, "pi") == (0, 3)
    with pytest.raises(SpecError, match="pi has no big cores"):
        cores_of_kind("big", cpu_capacities((0, 1), tmp_path / "empty"), "pi")
