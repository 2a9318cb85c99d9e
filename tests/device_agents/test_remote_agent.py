"""An agent and `serve` at the other side, without a way between: what crosses, and what if rubbish comes back."""

from __future__ import annotations

import json
import sys
import textwrap
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from device_agents import remote_agent
from device_agents.api import BenchmarkSpec, DeviceAgent, Measurement
from device_agents.errors import (
    BenchFailedError,
    DeviceError,
    DeviceUnavailableError,
    ModelError,
    ProtocolError,
    SpecError,
    WorkerError,
)
from device_agents.host import HostAgent
from device_agents.remote_agent import RemoteAgent, connected
from device_agents.remote_frames import info_json, measurements_blob
from device_agents.serve import Server
from device_agents.worker.frames import MAGIC, PROTOCOL_VERSION, Frame, encode_frame, packed
from device_agents.worker_process import PACKAGE_ROOT, ProcessChannel
from nas_edge.testing import check_device_agent
from tests.support.agents import FunctionAgent, fake_info, steady
from tests.support.near import FarSide, NearAddress, NearChannel

ADDRESS = NearAddress("fake:1")
SPEC = BenchmarkSpec()


def server_of(agent: DeviceAgent) -> Server:
    return Server(lambda _: agent)


class Host:
    """Serves a device; another `Server` can take the place of the first while the link lasts, as Ray does it."""

    def __init__(self, agent: DeviceAgent) -> None:
        self.server = server_of(agent)
        self.channel = NearChannel(lambda frame: self.server.answer(frame))
        self.agent = RemoteAgent(lambda: self.channel, ADDRESS)


def test_a_real_device_conforms_through_it() -> None:
    check_device_agent(lambda: Host(HostAgent()).agent)


def test_answers_come_in_the_order_asked_and_models_travel_once() -> None:
    host = Host(FunctionAgent(lambda model, spec: steady(float(len(model)) * spec.threads)))
    large, small, two = np.random.default_rng(0).bytes(100_000), b"y" * 10, BenchmarkSpec(threads=2)
    requests = [(large, SPEC), (small, two), (large, two), (small, SPEC), (large, SPEC)]
    for _ in range(2):
        assert [m.latency_ms for m in host.agent.measure_all(requests)] == [100_000, 20, 200_000, 10, 100_000]
    (_, first_bytes), (_, second_bytes) = [asked for asked in host.channel.asked if asked[0] == "measure"]
    assert first_bytes > 100_000 > second_bytes


class Device(FunctionAgent):
    """Says how often it was given examples."""

    examples_taken = 0

    def take_examples(self, examples: np.ndarray) -> str:
        self.examples_taken += 1
        return f"{int(examples.sum()):016x}"


def test_what_was_started_anew_is_given_what_the_first_had_once_the_loss_was_told() -> None:
    devices = [Device(lambda model, spec: steady(float(len(model)))) for _ in range(2)]
    host = Host(devices[0])
    host.agent.connect()
    digest = host.agent.take_examples(np.ones(7, np.float32))
    assert host.agent.measure(b"model", SPEC.replace(inputs=digest)).latency_ms == 5
    host.server = server_of(devices[1])
    with pytest.raises(DeviceUnavailableError, match="was started anew"):
        host.agent.measure(b"model", SPEC.replace(inputs=digest))
    assert host.agent.measure(b"model", SPEC.replace(inputs=digest)).latency_ms == 5
    assert (devices[1].examples_taken, digest) == (1, f"{7:016x}")


def test_another_device_at_the_same_address_is_refused() -> None:
    host = Host(FunctionAgent(lambda model, spec: steady(1.0)))
    assert host.agent.info().address == "near:lab/fake:1"
    host.server = server_of(FunctionAgent(lambda model, spec: steady(1.0), fake_info(model="tablet")))
    with pytest.raises(DeviceUnavailableError, match="was started anew"):
        host.agent.info()
    with pytest.raises(DeviceUnavailableError, match=r"Another device .* expected phone, received tablet"):
        host.agent.info()


@pytest.mark.parametrize(
    "error",
    [
        ModelError("no kernel", "out_of_memory", expected="less"),
        SpecError("no such core", received="7", fix="name another"),
        DeviceUnavailableError("unplugged"),
        BenchFailedError("full"),
    ],
)
def test_what_goes_wrong_there_is_the_same_error_here(error: DeviceError) -> None:
    def fail(model: bytes, spec: BenchmarkSpec) -> Measurement:
        raise error

    with pytest.raises(type(error)) as found:
        Host(FunctionAgent(fail)).agent.measure(b"", SPEC)
    assert vars(found.value) == vars(error)
    assert str(found.value) == str(error)


def test_a_bug_there_is_a_device_error_here() -> None:
    def fail(model: bytes, spec: BenchmarkSpec) -> Measurement:
        raise ZeroDivisionError("division by zero")

    with pytest.raises(WorkerError, match="What serves the device failed: ZeroDivisionError: division by zero"):
        Host(FunctionAgent(fail)).agent.measure(b"", SPEC)


@pytest.mark.parametrize("header", [{}, {"do": "what?"}, {"do": "measure"}, {"do": "open"}, {"do": "setup"}])
def test_a_malformed_request_is_answered(header: dict[str, Any]) -> None:
    assert "raised" in server_of(FunctionAgent(lambda model, spec: steady(1.0))).answer(Frame(header)).header


def test_a_host_is_this_machine_only_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Host(FunctionAgent(lambda model, spec: steady(1.0), fake_info(on_host=True))).agent
    assert agent.info().measures_on_host
    monkeypatch.setattr(remote_agent, "running_machine", lambda: "another")
    assert not agent.info().measures_on_host
    assert agent.measures_on_its_host


# What comes from another host is not believed: one clear error, never a hang, and never a number that is none.

GOOD = steady(1.0).to_json()


def raw(header: bytes, *blobs: bytes) -> bytes:
    """A frame around any header."""
    lengths = b"".join(len(blob).to_bytes(8, "little") for blob in blobs)
    sizes = len(header).to_bytes(4, "little") + len(blobs).to_bytes(4, "little")
    return MAGIC + sizes + lengths + header + b"".join(blobs)


def measured(blob: bytes) -> Frame:
    return Frame({"done": "measure", "opened": True}, (blob,))


def rows(*rows: object) -> Frame:
    return measured(packed(json.dumps(rows).encode()))


def about(**changed: object) -> Frame:
    return Frame({"done": "info", "opened": True, "info": {**info_json(fake_info()), **changed}})


def raised(error: object) -> Frame:
    return Frame({"done": "info", "opened": True, "raised": error})


MALFORMED: list[tuple[str, Frame | bytes, str]] = [
    ("info", b"Permission denied (publickey).", "Not a frame"),
    ("info", raw(b'{"done": "info"'), "header is not JSON"),
    ("info", raw(b'{"done": NaN}'), "NaN is not a JSON number"),
    ("info", raw(b"[" * 100_000), "header is not JSON"),
    ("info", raw(b"[1]"), "header must be an object"),
    ("info", raw(b"\xff\xfe{}"), "header is not JSON"),
    (
        "info",
        MAGIC + (1 << 31).to_bytes(4, "little") + bytes(4),
        "Frame too large; .*header bytes, received 2147483648",
    ),
    ("info", MAGIC + bytes(4) + (1 << 31).to_bytes(4, "little"), "Frame too large; .*blobs, received 2147483648"),
    ("info", MAGIC + bytes(4) + b"\1\0\0\0" + b"\xff" * 8, "Frame too large; .*blob bytes"),
    ("info", Frame({"done": "measure"}), "expected the answer to 'info', received 'measure'"),
    ("info", Frame({}), "expected the answer to 'info', received None"),
    ("info", Frame({"done": "info"}), "The device must be an object; received None"),
    ("info", Frame({"done": "info", "info": [1]}), r"The device must be an object; received \[1\]"),
    ("info", about(model=7), "model must be text; received 7"),
    ("info", about(cores=0), "cores must be a whole number >= 1; received 0"),
    ("info", about(cores=True), "cores must be a whole number >= 1; received True"),
    ("info", about(memory_bytes=1 << 70), "memory_bytes must be a whole number"),
    ("info", about(measures_on_host="yes"), "measures_on_host must be true or false; received 'yes'"),
    ("info", raised("no"), "The error must be an object; received 'no'"),
    ("info", raised({"kind": "SystemExit", "what": "1"}), "Unknown error; received 'SystemExit'"),
    ("info", raised({"kind": "SpecError", "what": ["a"]}), r"what must be text; received \['a'\]"),
    ("info", raised({"kind": "ModelError", "what": "a", "verdict": "fine"}), "Unknown verdict; received 'fine'"),
    (
        "info",
        Frame({"done": "info", "error": "X", "message": "a\nb\x1b[31m" + "c" * 5000}),
        r"refused the request: a b\?\[31mc",
    ),
    ("measure", Frame({"done": "measure"}), "Measurements are not JSON"),
    ("measure", measured(b"no"), "A packed blob is damaged"),
    ("measure", measured(packed(b"{}")[:-1]), "A packed blob is too large or not whole"),
    ("measure", measured(zlib.compress(bytes(1 << 30) + b"0", 1)), "A packed blob is too large"),
    ("measure", measured(packed(b"[" * 100_000)), "Measurements are not JSON"),
    ("measure", measured(packed(b"{}")), "expected 1 measurements, received 0"),
    ("measure", rows(GOOD, GOOD), "expected 1 measurements, received 2"),
    ("measure", rows("fast"), "."),
    ("measure", rows({**GOOD, "joules": 3}), "joules"),
    ("measure", rows({**GOOD, "samples_ms": [-1.0]}), "samples_ms"),
    ("measure", rows({name: GOOD[name] for name in GOOD if name != "samples_ms"}), "samples_ms"),
    ("measure", rows({**GOOD, "verdict": "great"}), "great"),
    ("cores", Frame({"done": "cores", "cores": "all"}), "cores must be a list; received 'all'"),
    ("cores", Frame({"done": "cores", "cores": [-1]}), "core must be a whole number >= 0"),
    ("keep", Frame({"done": "keep", "inputs": "../../x"}), "must be hexadecimal"),
    ("run", Frame({"done": "run", "outputs": [{"dtype": "object", "shape": [1]}]}, (b"x",)), "."),
    ("run", Frame({"done": "run", "outputs": [{"dtype": "float32", "shape": [9]}]}, (b"x",)), "."),
]

ASKED: dict[str, Callable[[RemoteAgent], object]] = {
    "info": lambda agent: agent.info(),
    "measure": lambda agent: agent.measure(b"model", SPEC),
    "cores": lambda agent: agent.cores("big"),
    "keep": lambda agent: agent.take_examples(np.ones(1, np.float32)),
    "run": lambda agent: agent.run(b"model", []),
}


def once(do: str, answer: Frame | bytes, after: FarSide) -> FarSide:
    """A far side that gives one answer of its own."""
    left = [answer]
    return lambda frame: left.pop() if left and frame.header["do"] == do else after(frame)


@pytest.mark.parametrize(("do", "answer", "words"), MALFORMED, ids=[f"{do}: {words}" for do, _, words in MALFORMED])
def test_a_malformed_answer_is_one_clear_error_and_the_next_one_counts(
    do: str, answer: Frame | bytes, words: str
) -> None:
    device = Device(lambda model, spec: steady(5.0))
    far_side = once(do, answer, server_of(device).answer)
    agent = connected(RemoteAgent(lambda: NearChannel(far_side), ADDRESS))
    with pytest.raises(DeviceError, match=words) as caught:
        ASKED[do](agent)
    said = str(caught.value)
    assert said.isprintable()
    assert len(said) < 3000
    assert agent.measure(b"model", SPEC).latency_ms == 5.0
    agent.close()


def test_an_answer_too_many_does_not_become_that_of_the_next_request() -> None:
    server = server_of(FunctionAgent(lambda model, spec: steady(float(len(model)))))
    doubled = encode_frame(measured(measurements_blob([steady(1.0)]))) * 2
    far_side = once("measure", doubled, server.answer)
    agent = connected(RemoteAgent(lambda: NearChannel(far_side), ADDRESS))
    assert agent.measure(b"x", SPEC).latency_ms == 1.0
    with pytest.raises(ProtocolError, match="the answer to 'info'"):
        agent.info()
    assert agent.measure(b"xx", SPEC).latency_ms == 2.0


def interrupted(*_: object) -> Frame:
    raise KeyboardInterrupt  # as Ctrl-C does while an answer is waited for


def test_an_answer_that_was_not_waited_for_does_not_become_that_of_the_next_request() -> None:
    server = server_of(FunctionAgent(lambda model, spec: steady(float(len(model)))))
    agent = connected(RemoteAgent(lambda: NearChannel(server.answer), ADDRESS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("device_agents.worker_link.WorkerLink._next_frame", interrupted)
        with pytest.raises(KeyboardInterrupt):
            agent.measure(b"x", SPEC)
    assert agent.measure(b"xx", SPEC).latency_ms == 2.0


@pytest.mark.parametrize(
    ("hello", "words"),
    [
        (Frame({"done": "hello", "protocol": PROTOCOL_VERSION + 1}), "another protocol; expected version"),
        (Frame({"done": "hello"}), "another protocol; .*received None"),
        (b"Welcome to lab!\n" * 3, "does not start: Not a frame; .*received b'Welc'"),
    ],
)
def test_what_does_not_greet_is_refused(hello: Frame | bytes, words: str) -> None:
    agent = RemoteAgent(lambda: NearChannel(lambda frame: hello), ADDRESS)
    with pytest.raises(DeviceUnavailableError, match=words):
        agent.info()


def test_what_ends_or_says_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_agent, "ANSWER_S", 0.2)

    def end(frame: Frame) -> Frame:
        raise EOFError

    server = server_of(FunctionAgent(lambda model, spec: steady(1.0)))
    for far_side, words in ((once("info", b"", server.answer), "No answer within 0.2 s"), (end, "does not start")):
        agent = RemoteAgent(lambda far_side=far_side: NearChannel(far_side), ADDRESS)
        with pytest.raises(DeviceUnavailableError, match=words):
            agent.info()


# The other way round: `serve` whose parent fell silent.

SERVE = """
import threading
from device_agents import request_loop
from device_agents.serve import Server
from tests.support.agents import FunctionAgent

class Device(FunctionAgent):
    def close(self):
        if self.in_use:
            print("the device is free", file=__import__("sys").stderr, flush=True)
        self.in_use = False
    in_use = True

request_loop.SILENCE_S = 0.5
request_loop.run(Server(lambda _: Device(lambda model, spec: threading.Event().wait())))
"""


@pytest.mark.parametrize("busy", [False, True])
def test_a_program_whose_other_side_fell_silent_frees_its_device_and_ends(busy: bool) -> None:
    channel = ProcessChannel([sys.executable, "-c", textwrap.dedent(SERVE)], PACKAGE_ROOT)
    requests = [Frame({"do": "open", "address": "fake:1"})]
    if busy:
        facts = {"models": [["m", True]], "specs": [SPEC.to_json()], "order": [["m", 0]], "together": False}
        requests.append(Frame({"do": "measure", **facts}, (packed(b"model"),)))
    for request in requests:
        channel.write(encode_frame(request))
    # Its stdin stays open, as by a link that was lost without a word.
    assert channel.wait(60.0) is not None
    log = channel.log
    channel.close()
    assert "Nothing was heard of the other side" in log
    assert "the device is free" in log
