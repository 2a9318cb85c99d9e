"""Visits on a phone: many models in one command, probes that stay there, and what all that says of the phone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agents.android.adb_shell_transport import AdbShellTransport
from device_agents.android.agent import AndroidAgent
from device_agents.android.errand import first_changed, read_errand
from device_agents.android.stored import PROBES, probe_digests, remove_stored, stored_on
from device_agents.android.tool import TOOLS
from device_agents.android.transport import Completed
from device_agents.api import BenchmarkSpec, Verdict
from device_agents.devices import scheme_of
from device_agents.doctor import examine
from device_agents.errors import BenchFailedError, DeviceUnavailableError, ProtocolError
from device_agents.floors import FloorStore, default_floors
from device_agents.patient import PatientAgent
from device_agents.probe_models import PROBE_MODELS, compute_model, memory_model
from device_agents.quiet import VisitSettings
from device_agents.visiting import VisitingAgent
from tests.support import models
from tests.support.android.agents import Connect, connect, fast_spec
from tests.support.android.phone import BASE, Phone, PhoneFactory, files_of, start, write_overlay
from tests.support.android.phones import PIXEL
from tests.support.android.proxy import Proxy
from tests.support.android.tools import canned_script, disturbed_script, transcript, write_tool

__all__ = ["connect", "fast_spec"]  # fixtures

VISIT = VisitSettings().of_visit(BenchmarkSpec())
# Enough once it has 2 ms of timed runs: times that are made up take no time.
SPEC = BenchmarkSpec(min_runs=9, min_duration_s=0.002, max_duration_s=0.01, patience_s=0.0)


def model(channels: int = 4) -> bytes:
    return models.conv_model(layers=1, channels=channels, side=4)


def name_of(data: bytes) -> str:
    """A part of its name on the phone."""
    return hashlib.sha256(data).hexdigest()[:16]


def on_phone(phone: Phone, script: str) -> str:
    with AdbShellTransport.tcp("127.0.0.1", phone.port) as link:
        return link.script(script, timeout_s=5.0).output


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of each command in which the tool ran, the bytes of the models that came along."""
    commands: list[int] = []
    run = AdbShellTransport._run

    def counting(
        self: AdbShellTransport, command_line: str, timeout_s: float, file: tuple[bytes, str] | None
    ) -> Completed:
        if "quick_state" in command_line and "use0" in command_line:
            commands.append(0 if file is None else len(file[0]))
        return run(self, command_line, timeout_s, file)

    monkeypatch.setattr(AdbShellTransport, "_run", counting)
    return commands


# One command


def test_many_visits_are_one_command(connect: Connect, sent: list[int]) -> None:
    agent = connect(script=disturbed_script())
    one, other = model(4), model(8)
    on = [one, other, compute_model(), other, one]
    agent.info()
    measurements = agent.measure_all([(data, VISIT) for data in on])
    assert [measurement.samples_ms for measurement in measurements] == [(1.0,)] * 5
    assert [measurement.verdict for measurement in measurements] == [Verdict.OK] * 5
    (size,) = sent
    assert len(one) + len(other) <= size <= len(one) + len(other) + len(compute_model())
    agent.measure_all([(data, VISIT) for data in on])
    assert sent[1:] == [0]


def test_each_visit_is_its_own_models(connect: Connect, phone: Phone, sent: list[int]) -> None:
    agent = connect(script=disturbed_script())
    on = [model(channels) for channels in (4, 8, 12)]
    lines = "\n".join(f"{name_of(data)} {us}" for data, us in zip(on, (4000, 8000, 12000), strict=True))
    on_phone(phone, f"echo '{lines}' > /data/local/tmp/slow")
    found = agent.measure_all([(on[number], VISIT) for number in (2, 0, 1, 2)])
    on_phone(phone, "rm /data/local/tmp/slow")
    assert [measurement.best_ms for measurement in found] == [12.0, 4.0, 8.0, 12.0]
    assert len(sent) == 1


def test_a_visit_is_its_fastest_run_and_its_start_is_told_apart(connect: Connect) -> None:
    agent = connect("quantiles", seconds=0.05)
    (visit,) = agent.measure_all([(model(), VISIT)])
    agent.close()
    assert (visit.samples_ms, visit.runs_per_sample, visit.init_ms) == ((0.849,), 40, 1.2)
    assert visit.startup_ms is not None
    # The transcript says of 39 ms that the model ran; the rest is the process.
    assert visit.startup_ms > 10
    (old,) = connect("oldest").measure_all([(model(), VISIT)])
    assert (old.samples_ms, old.runs_per_sample) == ((66.7676,), None)


def test_the_tool_is_asked_for_a_short_visit(connect: Connect, phone: Phone) -> None:
    script = canned_script(transcript("tf_2_14"), before='echo "$*" > /data/local/tmp/asked')
    connect(script=script).measure_all([(model(), VISIT)])
    asked = on_phone(phone, "cat /data/local/tmp/asked; rm /data/local/tmp/asked").split()
    assert {"--num_runs=3", "--min_secs=0.03", "--warmup_runs=1", "--warmup_min_secs=0"} <= set(asked)


def test_models_that_are_large_together_are_shared_out(
    connect: Connect, sent: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device_agents.android.agent._KEPT_BYTES", 3 * len(model(8)))
    agent = connect(script=disturbed_script())
    on = [model(8) + bytes(number) for number in range(4)]
    assert all(one.ok for one in agent.measure_all([(data, VISIT) for data in on]))
    assert len(sent) == 2


def test_what_asks_for_other_cores_is_another_command(connect: Connect, sent: list[int]) -> None:
    agent = connect(script=disturbed_script())
    found = agent.measure_all([(model(), VISIT.replace(cores=(core,))) for core in (0, 0, 1)])
    assert [one.conditions.cores for one in found if one.conditions] == [(0,), (0,), (1,)]
    assert len(sent) == 2


def test_what_takes_long_is_shared_out_and_nobody_is_blamed_for_it(connect: Connect, sent: list[int]) -> None:
    agent = connect(seconds=0.4)
    found = agent.measure_all([(model(channels), VISIT.replace(timeout_s=2.0)) for channels in range(4, 10)])
    assert [one.verdict for one in found] == [Verdict.OK] * 6
    assert len(sent) > 1


# Faults


def test_a_model_that_fails_among_others_is_examined_and_blamed_alone(connect: Connect) -> None:
    good, bad = model(4), model(8)
    fails = f'case "$1" in *{name_of(bad)}*) echo "ERROR: Node number 0 failed to invoke" >&2; exit 1;; esac'
    agent = connect(script=canned_script(transcript("tf_2_14"), before=fails))
    found = agent.measure_all([(data, VISIT) for data in (good, bad, good, bad, good, b"no model")])
    failed, hopeless = found[1], found[5]
    assert [one.verdict for one in found] == [Verdict.OK, failed.verdict, Verdict.OK, failed.verdict, Verdict.OK,
                                              Verdict.LOAD_FAILED]  # fmt: skip
    assert (failed.verdict, failed.attempts) == (Verdict.LOAD_FAILED, 2)
    assert "Node number 0" in failed.detail
    assert "TFLite" in hopeless.detail or hopeless.detail


def test_a_model_that_hangs_among_others_is_the_one_that_is_blamed(connect: Connect, phone: Phone) -> None:
    good, bad = model(4), model(8)
    hangs = f'case "$1" in *{name_of(bad)}*) sleep 61.5;; esac'
    agent = connect(script=canned_script(transcript("tf_2_14"), before=hangs))
    found = agent.measure_all([(data, VISIT.replace(timeout_s=1.0)) for data in (good, good, bad, good)])
    assert [one.verdict for one in found] == [Verdict.OK, Verdict.OK, Verdict.TIMEOUT, Verdict.OK]
    assert "61.5" not in on_phone(phone, "ps -A -o ARGS")


def test_a_tool_that_breaks_among_others_blames_none(connect: Connect, phone: Phone) -> None:
    agent = connect(script=disturbed_script())
    requests = [(model(channels), VISIT) for channels in (4, 8)]
    assert all(one.ok for one in agent.measure_all(requests))
    on_phone(phone, f"for t in {TOOLS}/*/benchmark_model; do echo 'echo nonsense' > $t.new; chmod 755 $t.new; "
                    "mv $t.new $t; done")  # fmt: skip
    # It is installed again, and all is well.
    assert [one.verdict for one in agent.measure_all(requests)] == [Verdict.OK] * 2
    agent.close()
    broken = connect(script=canned_script("x"))
    with pytest.raises(BenchFailedError, match=r"benchmark_model .* does not run the anchor model"):
        broken.measure_all(requests)


def test_a_link_that_is_lost_loses_what_was_not_measured(new_phone: PhoneFactory, connect: Connect) -> None:
    phone = new_phone()
    agent = connect(port=phone.port)
    agent.info()
    phone.order("kill")
    found = agent.measure_all([(b"no model", VISIT), *[(model(), VISIT)] * 2])
    assert [one.verdict for one in found] == [Verdict.LOAD_FAILED, Verdict.DEVICE_LOST, Verdict.DEVICE_LOST]
    phone.order("start")
    assert agent.measure_all([(model(), VISIT)])[0].ok


def test_a_model_that_was_changed_is_named(connect: Connect, phone: Phone) -> None:
    agent = connect(script=disturbed_script())
    requests = [(model(channels), VISIT) for channels in (4, 8, 12)]
    agent.measure_all(requests)
    on_phone(phone, f"for f in {BASE}/run-*/model-{name_of(model(8))}*; do echo x >> $f; done")
    with pytest.raises(DeviceUnavailableError, match=f"{name_of(model(8))}.* was changed or removed on the phone"):
        agent.measure_all(requests)
    assert all(one.ok for one in agent.measure_all(requests))


@pytest.mark.parametrize("text", ["", "M before\nM process\nx", "M before\nM process\nx\nM ended 1e3\nM after\n"])
def test_what_makes_no_sense_is_no_measurement(text: str) -> None:
    with pytest.raises((ProtocolError, DeviceUnavailableError)):
        read_errand(text, "M", "adb:1")


def test_which_file_differs_is_read_from_whatever_is_printed() -> None:
    expected = {"/a": "1", "/b": "2"}
    assert first_changed("1  /a\n3  /b\n", expected) == "/b"
    assert first_changed("1  /a\nsha256sum: /b: No such file\n", expected) == "/b"
    assert first_changed("nonsense", expected) == "/a"


# What stays


def test_probes_travel_once_and_stay(connect: Connect, phone: Phone, sent: list[int], settings: Path) -> None:
    on_phone(phone, f"rm -rf {PROBES}")
    probes = [(data(), VISIT) for data in PROBE_MODELS.values()]
    total = sum(len(data) for data, _ in probes)
    agent = connect(script=disturbed_script())
    agent.measure_all(probes)
    agent.close()
    assert files_of(phone) == []
    assert on_phone(phone, f"ls {PROBES} | wc -l").strip() == str(len(probe_digests()))
    agent = connect(script=disturbed_script())
    assert all(one.ok for one in agent.measure_all([*probes, (model(), VISIT)]))
    agent.close()
    assert sent == [total, len(model())]
    # One that is not what its name says, and what else is there, is removed; it is sent again.
    on_phone(phone, f"cd {PROBES} && echo x >> model-{name_of(memory_model())}.tflite && mkdir model-x.tflite")
    agent = connect(script=disturbed_script())
    assert all(one.ok for one in agent.measure_all(probes))
    assert sent[2:] == [len(memory_model())]
    assert on_phone(phone, f"ls {PROBES} | wc -l").strip() == str(len(probe_digests()))


def test_what_lies_on_a_phone_is_listed_and_removed(
    new_phone: PhoneFactory, connect: Connect, settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("NAS_EDGE_BENCHMARK_MODEL", str(write_tool(tmp_path, disturbed_script())))
    phone = new_phone()
    on_phone(phone, "echo mine > /data/local/tmp/benchmark_model")
    with VisitingAgent(connect(port=phone.port, script=disturbed_script()), floors=FloorStore(default_floors())) as one:
        assert one.measure(model(), SPEC).ok
        # Not under somebody who measures.
        with (
            AdbShellTransport.tcp("127.0.0.1", phone.port) as link,
            pytest.raises(DeviceUnavailableError, match="is being measured"),
        ):
            remove_stored(link)
        with AdbShellTransport.tcp("127.0.0.1", phone.port) as link:
            kinds = {stored.kind: stored.count for stored in stored_on(link)}
        assert kinds == {"benchmark_model": 1, "probe models": 3, "lock": 1, "files of runs": kinds["files of runs"]}
    scheme, rest = scheme_of(phone.address)
    (check,) = [check for check in examine(phone.address) if check.name == "kept on it"]
    assert "probe models: 3" in check.found
    assert f"nas-edge devices clean {phone.address}" in check.found
    assert scheme.clean is not None
    removed = list(scheme.clean(rest))
    assert [line.partition(":")[0] for line in removed[:2]] == ["benchmark_model", "probe models"]
    assert "3 undisturbed times" in removed[-1]
    assert on_phone(phone, "ls /data/local/tmp").split() == ["benchmark_model"]
    assert list(scheme.clean(rest)) == []


# In rounds


def test_a_candidate_costs_few_round_trips_with_all_its_visits(connect: Connect, phone: Phone, sent: list[int]) -> None:
    # Weights that do not pack, and as much as a packet takes.
    data = models.conv_model(layers=1, channels=84, side=4)
    assert 248 << 10 < len(data) <= 256 << 10
    with (
        Proxy(phone.port, delay_s=0.02) as proxy,
        VisitingAgent(connect(port=proxy.port, script=disturbed_script())) as agent,
    ):
        assert agent.measure(model(), SPEC).ok  # after the probes were seen undisturbed
        sent.clear()
        before = proxy.round_trips
        measurement = agent.measure(data, SPEC)
        trips = proxy.round_trips - before
    assert measurement.ok
    assert len(measurement.visits) == 3
    assert len({visit.round for visit in measurement.visits}) == 3
    times_s = [visit.at_s for visit in measurement.visits]
    assert times_s == sorted(set(times_s))
    assert sent == [len(data)]
    assert trips <= 5


def test_rounds_are_asked_for_at_once_through_an_agent_that_asks_again(connect: Connect) -> None:
    assert PatientAgent(connect()).rounds_at_once == AndroidAgent.rounds_at_once > 1


@pytest.fixture
def watched(new_phone: PhoneFactory, connect: Connect, tmp_path: Path) -> Iterator[tuple[Phone, VisitingAgent]]:
    """A phone whose probes were seen undisturbed in an earlier session."""
    phone, floors = new_phone(), FloorStore(tmp_path / "floors.json")
    with VisitingAgent(connect(port=phone.port, script=disturbed_script()), floors=floors) as agent:
        assert agent.measure(model(), SPEC).verdict is Verdict.OK
    with VisitingAgent(connect(port=phone.port, script=disturbed_script()), floors=floors) as agent:
        yield phone, agent


def test_slow_memory_beside_fast_arithmetic_is_contention(watched: tuple[Phone, VisitingAgent]) -> None:
    phone, agent = watched
    on_phone(phone, f"echo '{name_of(memory_model())} 1500' > /data/local/tmp/slow")
    measurement = agent.measure(model(), SPEC)
    assert (measurement.verdict, measurement.best_ms) == (Verdict.CONTENDED, 1.0)
    assert "the memory probe takes 1.50 times as long" in measurement.detail


def test_a_phone_on_which_all_is_slow_is_throttled(watched: tuple[Phone, VisitingAgent]) -> None:
    phone, agent = watched
    on_phone(phone, "echo '* 1500' > /data/local/tmp/slow")
    measurement = agent.measure(model(), SPEC)
    assert (measurement.verdict, measurement.best_ms) == (Verdict.THROTTLED, 1.5)
    assert "all probes took at least 1.50 times as long" in measurement.detail


def test_a_phone_that_becomes_slow_in_the_middle_of_a_session_is_throttled(
    watched: tuple[Phone, VisitingAgent],
) -> None:
    phone, agent = watched
    for channels in (4, 8, 12, 16):
        assert agent.measure(model(channels), SPEC).verdict is Verdict.OK
    on_phone(phone, "echo '* 1500' > /data/local/tmp/slow")
    slow = agent.measure(model(20), SPEC)
    assert (slow.verdict, slow.best_ms, slow.latency_ms) == (Verdict.THROTTLED, 1.5, None)
    on_phone(phone, "rm /data/local/tmp/slow")
    assert agent.measure(model(20), SPEC).latency_ms == 1.0


def test_what_the_phone_says_of_its_heat_wins(tmp_path: Path, connect: Connect) -> None:
    phone = start(write_overlay(tmp_path / "warming", PIXEL.texts, PIXEL.files))
    # Its clocks fall each time the model itself runs, and nothing is slower for it.
    policy = "/sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq"
    sinks = f"read -r khz < {policy}; echo $((khz - 100000)) > {policy}"
    script = disturbed_script().replace("us=1000\n", f'us=1000\ncase "$1" in *{name_of(model())}*) {sinks};; esac\n')
    try:
        with VisitingAgent(connect(port=phone.port, script=script)) as agent:
            measurement = agent.measure(model(), SPEC.replace(cores=(0,), patience_s=0.0))
        assert measurement.verdict is Verdict.THROTTLED
        assert "the highest clock allowed fell from" in measurement.detail
    finally:
        phone.close()
