"""The agent of a farm's device: passes on what it is asked, and reads the answers."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from device_agents.api import BenchmarkSpec, DeviceAgent, DeviceInfo, Measurement, MeasureRequest
from device_agents.device_lock import running_machine
from device_agents.errors import DeviceUnavailableError, ProtocolError
from device_agents.farm.address import FarmAddress
from device_agents.farm.link import FarmLink
from device_agents.farm.messages import (
    PROTOCOL,
    pack_json,
    read_measurement,
    spec_to_json,
    unpack_list,
)
from device_agents.results import read_device_info
from device_agents.worker.frames import Frame
from device_agents.worker.tensors import decode_arrays, encode_arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What a device may take beyond measuring: a phone that is starting again, for example.
_ASK_S = 120.0
# Models that are kept at the far side, so that those visited in many rounds travel once.
_KEPT_BYTES = 256 << 20


class FarmAgent(DeviceAgent):
    """Measures on a device that is plugged in at another host.

    Args:
        address: Where it is.
        link: The way there; tests may pass their own.

    Raises:
        DeviceError: If it cannot be reached, or is in use.
    """

    def __init__(self, address: FarmAddress, link: FarmLink | None = None) -> None:
        self._address, self._link = address, link or FarmLink()
        self._session: Mapping[str, Any] = {}
        self._kept: OrderedDict[str, int] = OrderedDict()  # digests and sizes of the models at the far side
        self._examples: NDArray[Any] | None = None
        self._first: DeviceInfo | None = None
        try:
            self.info()
            self.recorded = self._session.get("recorded") is True
            self.rounds_at_once = max(1, int(self._session.get("rounds_at_once", 1)))
        except BaseException:
            self._link.close()
            raise

    def info(self) -> DeviceInfo:
        """See `DeviceAgent`; connects again where the device was lost.

        Raises:
            DeviceUnavailableError: Also if another device answers at this address now.
        """
        found = self._greet()
        if self._first is None:
            self._first = found
        if (found.fingerprint, found.runtime, found.runtime_version) != (
            self._first.fingerprint,
            self._first.runtime,
            self._first.runtime_version,
        ):
            raise DeviceUnavailableError(
                f"Another device answers at {self._address} now",
                expected=f"{self._first.model} with {self._first.runtime} {self._first.runtime_version}",
                received=f"{found.model} with {found.runtime} {found.runtime_version}",
                fix="connect the first one again, or start anew",
            )
        return found

    def measure(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        """See `DeviceAgent`."""
        return self._measure([(model, spec)], in_one_go=True)[0]

    def measure_all(self, requests: Sequence[MeasureRequest]) -> list[Measurement]:
        """See `DeviceAgent`; models that were sent before do not travel again."""
        return self._measure(requests, in_one_go=False) if requests else []

    def run(self, model: bytes, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """See `DeviceAgent`."""
        descriptions, data = encode_arrays(inputs)
        answer = self._ask({"do": "run", "inputs": descriptions}, lambda: (model, *data))
        return decode_arrays(answer.header.get("outputs"), answer.blobs)

    def take_examples(self, examples: NDArray[Any]) -> str:
        """See `DeviceAgent`."""
        self._examples = examples
        return self._send_examples()

    def cores(self, kind: str) -> tuple[int, ...]:
        """See `DeviceAgent`."""
        found = self._ask({"do": "cores", "kind": kind}).header.get("cores")
        return tuple(int(core) for core in found) if isinstance(found, list) else ()

    def close(self) -> None:
        """See `DeviceAgent`."""
        self._link.close()

    def _measure(self, requests: Sequence[MeasureRequest], in_one_go: bool) -> list[Measurement]:
        models = {hashlib.sha256(model).hexdigest()[:32]: model for model in {model for model, _ in requests}}
        digests = {model: digest for digest, model in models.items()}
        specs = list(dict.fromkeys(spec for _, spec in requests))
        known = [str(name) for name in self._session.get("spec_fields", ())]
        settings = [spec_to_json(spec, known, self._address.node) for spec in specs]
        order = [[digests[model], specs.index(spec)] for model, spec in requests]
        listing = pack_json([settings, order])
        header: dict[str, Any] = {"do": "measure", "in_one_go": in_one_go}

        def blobs() -> Sequence[bytes]:  # what is there already depends on the session
            header["sent"] = [digest for digest in models if digest not in self._kept]
            header["forget"] = self._make_room(models)
            return (listing, *(models[digest] for digest in header["sent"]))

        limit_s = _ASK_S + sum(spec.timeout_s * spec.max_attempts + spec.patience_s for _, spec in requests)
        answer = self._ask(header, blobs, limit_s)
        self._kept.update((digest, len(models[digest])) for digest in header["sent"])
        found = [read_measurement(data) for data in unpack_list(answer.blobs[0])]
        if len(found) != len(requests):
            raise ProtocolError(
                "Not as many answers as requests", expected=f"{len(requests)}", received=f"{len(found)}"
            )
        return found

    def _make_room(self, models: Mapping[str, bytes]) -> list[str]:
        """Forgets models that were not asked for in the longest time, and returns their digests."""
        for digest in models:
            if digest in self._kept:
                self._kept.move_to_end(digest)
        new_bytes = sum(len(model) for digest, model in models.items() if digest not in self._kept)
        forgotten = []
        while self._kept and new_bytes + sum(self._kept.values()) > _KEPT_BYTES:
            digest = next(iter(self._kept))
            if digest in models:
                break
            del self._kept[digest]
            forgotten.append(digest)
        return forgotten

    def _ask(
        self,
        header: Mapping[str, Any],
        blobs: Callable[[], Sequence[bytes]] = tuple,
        limit_s: float = _ASK_S,
    ) -> Frame:
        """Asks the far side; once more if Ray had started it again meanwhile, which is before it did anything."""
        if not self._session:
            self._greet()
        for _ in range(2):
            data = blobs()
            try:
                answer = self._link.ask({**header, "session": self._session["session"]}, data, limit_s)
            except DeviceUnavailableError:
                self._session = {}
                raise
            if not answer.header.get("restarted"):
                return answer
            self._greet()
        raise DeviceUnavailableError(f"{self._address} is started again and again")

    def _greet(self) -> DeviceInfo:
        """Opens the device if it is not open, and says what it is; a new session is given what the old one had."""
        self._link.open(self._address)
        before = self._session.get("session")
        hello = self._link.ask({"do": "hello"}, (), _ASK_S).header
        if hello.get("protocol") != PROTOCOL:
            raise DeviceUnavailableError(
                f"What serves the devices of {self._address.node} cannot be understood",
                expected=f"protocol {PROTOCOL}",
                received=f"{hello.get('protocol')!r:.40} of version {hello.get('version')!r:.40}",
                fix="install the same version on both",
            )
        info = read_device_info(hello, str(self._address), str(hello.get("kind", "farm"))[:40])
        here = hello.get("measures_on_host") is True and hello.get("machine") == running_machine()
        self._session = hello
        if hello.get("session") != before:
            self._kept.clear()
            self._send_examples()
        return replace(info, measures_on_host=here)

    def _send_examples(self) -> str:
        if self._examples is None:
            return ""
        descriptions, data = encode_arrays([self._examples])
        header = {"do": "examples", "inputs": descriptions, "session": self._session.get("session", "")}
        return str(self._link.ask(header, data, _ASK_S).header.get("digest", ""))
