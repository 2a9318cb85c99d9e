"""A device at another host: what is asked of it is done by that host's own agent, see `serve`.

    RemoteAgent -> RemoteProgram -> WorkerLink -> the channel to the host -> serve -> agent -> device

Nothing of the way to it is known here: `ssh` and `farm` bring channels. The device has the fingerprint that it would
have at this host, so latencies of phones of one model share a column wherever they are plugged in.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from device_agents.api import BenchmarkSpec, DeviceAgent, DeviceInfo, Measurement, MeasureRequest
from device_agents.checks import Check
from device_agents.device_lock import running_machine
from device_agents.errors import DeviceError, DeviceUnavailableError, ProtocolError
from device_agents.floors import forget_floors
from device_agents.remote_frames import (
    read_checks,
    read_count,
    read_error,
    read_facts,
    read_flag,
    read_info,
    read_lines,
    read_measurements,
)
from device_agents.worker.frames import Frame, packed
from device_agents.worker_link import StartWorker, WorkerChannel, WorkerDiedError, WorkerLink, WorkerTimeoutError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# How often the program is asked whether it is still busy, and how long it may say nothing.
PING_S, ANSWER_S = 5.0, 60.0
_CLOSE_S = 10.0
# A link slower than this is of no use for measuring.
_LEAST_BYTES_PER_S = 50e3
_COMMAND = re.compile(r"(nas-edge devices (?:setup|doctor|clean) )'?([a-z][a-z0-9-]*:[^\s'`;,)]*)'?")
# What sets a device up installs there what this toolkit's extras are here.
_EXTRA = re.compile(r"pip install '?nas-edge\[[a-z-]+\]'?")


class RemoteAddress(Protocol):
    """The address that a device of another host has here: its text is one."""

    @property
    def device(self) -> str:
        """The address that the device has there; "" for none."""

    @property
    def of_host(self) -> object:
        """What the host is called here: the text of this."""

    def of_device(self, device: str) -> RemoteAddress:
        """Returns the address of another device there."""


class RemoteProgram:
    """The program `serve`, while it runs on another host.

    Args:
        channel: The program; closed with this.
        address: The device that it is asked about.

    Raises:
        DeviceUnavailableError: If it does not answer.
    """

    def __init__(self, channel: WorkerChannel, address: RemoteAddress) -> None:
        self._address = address
        self.opened = False
        """Whether it has the device open, as far as is known: it may have been started anew meanwhile."""
        self._waiting = False  # for an answer, which an interrupted request leaves behind
        outdated = f"nas-edge devices clean '{address.of_host}', so that it is copied anew"
        self._link = WorkerLink(channel, if_outdated=outdated)
        self._ended = threading.Event()
        threading.Thread(target=self._ping, daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether it can be asked: it is still running, as far as is known, and owes no answer."""
        return self._link.alive and not self._waiting

    def ask(self, do: str, facts: Mapping[str, Any] | None = None, blobs: Sequence[bytes] = ()) -> Frame:
        """Has something done and returns the answer, unchecked.

        Raises:
            DeviceError: What it raised there; DeviceUnavailableError if the program or the link to it is gone.
        """
        timeout_s = ANSWER_S + sum(map(len, blobs)) / _LEAST_BYTES_PER_S
        self._waiting = True
        try:
            answer = self._link.request(Frame({"do": do, **(facts or {})}, tuple(blobs)), timeout_s, each_stage=True)
        except (WorkerDiedError, WorkerTimeoutError) as error:
            log = error.log.strip().splitlines()[-1:] if isinstance(error, WorkerDiedError) else []
            said = f"{error}: {log[0][:300]}" if log else str(error)
            raise DeviceUnavailableError(
                f"What serves the devices of {self._address.of_host} failed: {said}",
                fix="it is started anew when it is asked again",
            ) from error
        self._waiting = False
        self.opened = answer.header.get("opened") is True
        if answer.header.get("done") != do:
            self._link.close()  # else the next answer might be to this
            raise ProtocolError(expected=f"the answer to {do!r}", received=f"{answer.header.get('done')!r:.80}")
        if "raised" in answer.header:
            raise read_error(answer.header["raised"], self.as_here)
        return answer

    def checks(self) -> list[Check]:
        """Has the host look at its device."""
        found = read_checks(self.ask("doctor", {"address": self._address.device}).header.get("checks"))
        return [replace(check, found=self.as_here(check.found), fix=self.as_here(check.fix)) for check in found]

    def set_up(self, options: Mapping[str, str], files: Mapping[str, bytes] | None = None) -> list[tuple[str, str]]:
        """Has the host make its device ready.

        Args:
            options: As `devices.set_up_device` takes them.
            files: What is in the files that options name, by option.
        """
        files = files or {}
        facts = {"address": self._address.device, "options": dict(options), "files": list(files)}
        return read_facts(self.ask("setup", facts, list(files.values())).header.get("facts"))

    def clean(self) -> list[str]:
        """Has the host remove what stays on its device or is kept about it there; a line for each."""
        found = read_lines(self.ask("clean", {"address": self._address.device}).header.get("lines"))
        return [f"{line}, of {self._address.of_host}" for line in found]

    def as_here(self, text: str, device: str = "") -> str:
        """Returns a text that says what to do here instead of there.

        Args:
            text: Its commands of this toolkit name devices as that host does.
            device: Which device it is about; "" for the one that is asked about.
        """
        text = _COMMAND.sub(lambda found: f"{found[1]}'{self._address.of_device(found[2])}'", text)
        set_up = f"nas-edge devices setup '{self._address.of_device(device or self._address.device)}'"
        return _EXTRA.sub(lambda _: set_up, text)

    def close(self) -> None:
        """Ends it, once it has freed its device if it is not busy; may be called twice."""
        self._ended.set()
        with contextlib.suppress(DeviceError):
            if self.alive:
                self._link.request(Frame({"do": "close"}), _CLOSE_S)
        self._link.close()

    def _ping(self) -> None:
        while not self._ended.wait(PING_S) and self._link.alive:
            self._link.tell(Frame({"do": "ping"}))


class RemoteAgent(DeviceAgent):
    """A device at another host.

    A program or a link that is lost costs no candidate: what is asked next starts it anew. Models that were sent for
    the last measurement, and examples, are not sent again.

    Args:
        start: Starts the program `serve` on that host.
        address: The device.
    """

    def __init__(self, start: StartWorker, address: RemoteAddress) -> None:
        self._start, self._address = start, address
        self._program: RemoteProgram | None = None
        self._first: DeviceInfo | None = None
        self._kept: frozenset[str] = frozenset()
        self._examples: NDArray[Any] | None = None
        self.measures_on_its_host = False
        """Whether what else that host does disturbs the measurement, once `info` was asked."""

    def connect(self) -> None:
        """Starts the program, and has it open the device, if that is not so already.

        Raises:
            DeviceError: If that fails.
        """
        self._connected()

    def info(self) -> DeviceInfo:
        """See `DeviceAgent`; asks the device.

        Raises:
            DeviceUnavailableError: Also if another device has its address now.
        """
        answer = self._connected().ask("info").header
        found = read_info(answer.get("info"))
        self.measures_on_its_host = found.measures_on_host
        is_here = answer.get("machine") == running_machine()
        found = replace(found, address=str(self._address), measures_on_host=found.measures_on_host and is_here)
        if self._first is None:
            self._first = found
        if found.fingerprint != self._first.fingerprint:
            raise DeviceUnavailableError(
                f"Another device answers at {found.address} now",
                expected=self._first.model,
                received=found.model,
                fix="connect the first one again, or start anew",
            )
        return found

    def measure(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        """See `DeviceAgent`."""
        return self._measured([(model, spec)], together=False)[0]

    def measure_all(self, requests: Sequence[MeasureRequest]) -> list[Measurement]:
        """See `DeviceAgent`."""
        return self._measured(requests, together=True)

    def run(self, model: bytes, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """See `DeviceAgent`."""
        from device_agents.worker.tensors import decode_arrays, encode_arrays

        descriptions, blobs = encode_arrays(inputs)
        answer = self._connected().ask("run", {"inputs": descriptions}, [packed(model), *blobs])
        return decode_arrays(answer.header.get("outputs"), answer.blobs)

    def take_examples(self, examples: NDArray[Any]) -> str:
        """See `DeviceAgent`."""
        self._examples = examples
        return self._send_examples(self._connected())

    def cores(self, kind: str) -> tuple[int, ...]:
        """See `DeviceAgent`."""
        found = self._connected().ask("cores", {"kind": kind}).header.get("cores")
        if not isinstance(found, list):
            raise ProtocolError("cores must be a list", received=f"{found!r:.80}")
        return tuple(read_count({"core": core}, "core") for core in found)

    def close(self) -> None:
        """See `DeviceAgent`."""
        program, self._program = self._program, None
        if program is not None:
            program.close()

    def _measured(self, requests: Sequence[MeasureRequest], together: bool) -> list[Measurement]:
        program = self._connected()
        keys = {model: hashlib.sha256(model).hexdigest() for model, _ in requests}
        specs = list(dict.fromkeys(spec for _, spec in requests))
        positions = {spec: position for position, spec in enumerate(specs)}
        facts = {
            "models": [[key, key not in self._kept] for key in keys.values()],
            "specs": [spec.to_json() for spec in specs],
            "order": [[keys[model], positions[spec]] for model, spec in requests],
            "together": together,
        }
        blobs = [packed(model) for model, key in keys.items() if key not in self._kept]
        self._kept = frozenset()  # not known if this fails
        measurements = read_measurements(program.ask("measure", facts, blobs).blobs, len(requests))
        self._kept = frozenset(keys.values())
        return measurements

    def _connected(self) -> RemoteProgram:
        if self._program is not None and not self._program.alive:
            self.close()
        if self._program is None:
            self._program = RemoteProgram(self._start(), self._address)
        if not self._program.opened:
            self._kept = frozenset()
            try:
                opened = self._program.ask("open", {"address": self._address.device}).header
                self.recorded = read_flag(opened, "recorded")
                self.rounds_at_once = read_count(opened, "rounds_at_once", 1)
                self._send_examples(self._program)
            except BaseException:
                self.close()
                raise
        return self._program

    def _send_examples(self, program: RemoteProgram) -> str:
        if self._examples is None:
            return ""
        from device_agents.worker.tensors import encode_arrays

        descriptions, blobs = encode_arrays([self._examples])
        digest = program.ask("keep", {"inputs": descriptions}, blobs).header.get("inputs")
        if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{0,64}", digest):
            raise ProtocolError("The digest of examples must be hexadecimal", received=f"{digest!r:.80}")
        return digest


Agent = TypeVar("Agent", bound=RemoteAgent)


def connected(agent: Agent) -> Agent:
    """Returns an agent once its host has opened the device; it is closed where that fails.

    Raises:
        DeviceError: If the host cannot be reached, or its device not opened.
    """
    try:
        agent.connect()
    except BaseException:
        agent.close()
        raise
    return agent


def clean_remote(serving: Callable[[], AbstractContextManager[RemoteProgram]], agent: RemoteAgent) -> list[str]:
    """Has a host remove what stays on its device, and forgets what is kept of the device here; a line for each.

    Args:
        serving: Starts the program that serves the host's devices.
        agent: Of the device; closed.
    """
    with serving() as program:
        lines = program.clean()
    # Who asks a phone what it is has put the tool there again.
    with contextlib.suppress(DeviceError):  # what cannot be measured on has nothing here
        with contextlib.closing(agent):
            lines += forget_floors(agent.info())
        with serving() as program:
            program.clean()
    return lines
