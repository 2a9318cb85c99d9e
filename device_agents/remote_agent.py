"""A device at another host: what is asked of it is done by that host's own agent, see `serve`.

    RemoteAgent -> RemoteProgram -> WorkerLink -> the channel to the host -> serve -> agent -> device

Nothing but the way to it is known here. The device has the fingerprint that it would have at this host, so latencies of
phones of one model share a column wherever they are plugged in.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from device_agents.api import BenchmarkSpec, DeviceAgent, DeviceInfo, Measurement, MeasureRequest
from device_agents.errors import DeviceError, DeviceUnavailableError, ProtocolError
from device_agents.remote_frames import read_count, read_error, read_flag, read_info, read_measurements
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


class RemoteProgram:
    """The program `serve`, while it runs on another host.

    Args:
        channel: The program; closed with this.
        host: What that host is called here.
        device: The address there of the device that it is asked about; "" for none.
        name: Gives the address that a device has here, from the one that it has there.

    Raises:
        DeviceUnavailableError: If it does not answer.
    """

    def __init__(self, channel: WorkerChannel, host: str, device: str, name: Callable[[str], str]) -> None:
        self._host, self._device, self._name = host, device, name
        self._waiting = False  # for an answer, which an interrupted request leaves behind
        self._link = WorkerLink(channel, if_outdated=f"nas-edge devices clean '{host}', so that it is copied anew")
        self._ended = threading.Event()
        threading.Thread(target=self._ping, daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether it is still running, as far as is known."""
        return self._link.alive

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
                f"What serves the devices of {self._host} failed: {said}",
                fix="it is started anew when it is asked again",
            ) from error
        self._waiting = False
        if answer.header.get("done") != do:
            raise ProtocolError(expected=f"the answer to {do!r}", received=f"{answer.header.get('done')!r:.80}")
        if "raised" in answer.header:
            raise read_error(answer.header["raised"], self.as_here)
        return answer

    def as_here(self, text: str, device: str = "") -> str:
        """Returns a text that says what to do here instead of there.

        Args:
            text: Its commands of this toolkit name devices as that host does.
            device: Which device it is about; "" for the one that is asked about.
        """
        text = _COMMAND.sub(lambda found: f"{found[1]}'{self._name(found[2])}'", text)
        set_up = f"nas-edge devices setup '{self._name(device or self._device)}'"
        return _EXTRA.sub(lambda _: set_up, text)

    def close(self) -> None:
        """Ends it, once it has freed its device if it is not busy; may be called twice."""
        self._ended.set()
        with contextlib.suppress(DeviceError):
            if self.alive and not self._waiting:
                self._link.request(Frame({"do": "close"}), _CLOSE_S)
        self._link.close()

    def _ping(self) -> None:
        while not self._ended.wait(PING_S) and self.alive:
            self._link.tell(Frame({"do": "ping"}))


class RemoteAgent(DeviceAgent):
    """A device at another host.

    A program or a link that is lost costs no candidate: what is asked next starts it anew. Models that were sent for
    the last measurement, and examples, are not sent again.

    Args:
        start: Starts the program `serve` on that host.
        device: The address that the device has there.
        host: See `RemoteProgram`.
        name: Likewise.
    """

    def __init__(self, start: StartWorker, device: str, host: str, name: Callable[[str], str]) -> None:
        self._start, self._device, self._host, self._name = start, device, host, name
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
        found = read_info(self._connected().ask("info").header.get("info"))
        self.measures_on_its_host = found.measures_on_host
        found = replace(found, address=self._name(self._device), measures_on_host=False)
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
            program = RemoteProgram(self._start(), self._host, self._device, self._name)
            try:
                opened = program.ask("open", {"address": self._device}).header
                self.recorded, self.rounds_at_once = (
                    read_flag(opened, "recorded"),
                    read_count(opened, "rounds_at_once", 1),
                )
                self._send_examples(program)
            except BaseException:
                program.close()
                raise
            self._program, self._kept = program, frozenset()
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
