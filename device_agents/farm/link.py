"""The way to a farm: a driver process, what it is asked, and its end."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from device_agents.device_lock import user_name
from device_agents.errors import DeviceError, DeviceUnavailableError, ProtocolError, WorkerError
from device_agents.farm.address import FarmAddress
from device_agents.farm.messages import pack, read_error, unpack_answer, unpack_list
from device_agents.worker.frames import Frame
from device_agents.worker_link import WorkerChannel, WorkerLink
from device_agents.worker_process import PACKAGE_ROOT, ProcessChannel

_CONNECT_S = 60.0
_CLOSE_S = 10.0
# What the driver may take beyond the wait that it was asked for.
_GRACE_S = 10.0


@dataclass(frozen=True)
class OfferedDevice:
    """A device that a host offers.

    Attributes:
        address: Its address.
        user: Who uses it now, "" for nobody.
    """

    address: FarmAddress
    user: str


def start_driver() -> WorkerChannel:
    """Starts a driver.

    Raises:
        DeviceUnavailableError: If it cannot be started.
    """
    return ProcessChannel([sys.executable, "-m", "device_agents.farm.driver"], PACKAGE_ROOT)


class FarmLink:
    """A driver, started when it is first needed, and again after it was lost."""

    def __init__(self) -> None:
        self._driver: WorkerLink | None = None

    def devices(self, head: str = "") -> tuple[list[OfferedDevice], Mapping[str, Any]]:
        """Returns what the hosts of a cluster offer, and `nodes` and `ray`: their number, and the version of Ray.

        Args:
            head: HOST:PORT of its head node; "" for the cluster that this machine has joined.

        Raises:
            DeviceUnavailableError: If the cluster cannot be reached.
        """
        header = self._request({"do": "list", "head": head}, (), _CONNECT_S).header
        rows = header.get("devices")
        if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 3 for row in rows):
            raise ProtocolError("Not a list of devices", received=f"{rows!r:.80}")
        return [OfferedDevice(FarmAddress(node, device, head), user) for node, device, user in rows], header

    def open(self, address: FarmAddress) -> None:
        """Takes a device, unless it is ours.

        Raises:
            DeviceUnavailableError: If it is not there, or in use.
        """
        user = f"{user_name()}@{socket.gethostname()}"
        place = {"node": address.node, "device": address.device, "head": address.head}
        self._request({"do": "open", **place, "user": user}, (), _CONNECT_S)

    def ask(self, header: Mapping[str, Any], blobs: Sequence[bytes], limit_s: float) -> Frame:
        """Passes a message to the device that was opened and returns the answer.

        Raises:
            DeviceError: As the far side says, or if the device is lost.
        """
        answered = self._request({"do": "ask", "limit_s": limit_s}, (pack(header, blobs),), limit_s)
        return unpack_answer(answered.blobs[0])

    def ask_for_list(self, header: Mapping[str, Any], limit_s: float) -> list[Any]:
        """Passes a message on that is answered by a list; see `ask`."""
        answer = self.ask(header, (), limit_s)
        if len(answer.blobs) != 1:
            raise ProtocolError("An answer without a list")
        return unpack_list(answer.blobs[0])

    def close(self) -> None:
        """Frees the device; may be called twice."""
        if self._driver is not None:
            with contextlib.suppress(DeviceError):  # it is gone, and the device with it
                self._request({"do": "close"}, (), _CLOSE_S)
        self._end()

    def __enter__(self) -> FarmLink:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _request(self, header: Mapping[str, Any], blobs: tuple[bytes, ...], limit_s: float) -> Frame:
        if self._driver is None or not self._driver.alive:
            self._end()
            self._driver = WorkerLink(start_driver())
        log = self._driver.channel
        try:
            answer = self._driver.request(Frame(dict(header), blobs), limit_s + _GRACE_S)
        except WorkerError as error:  # the link is dead now
            self._driver = None
            said = log.log.strip().splitlines()[-1:]
            raise DeviceUnavailableError(f"The link to the farm is lost: {error}. {' '.join(said)[:300]}") from error
        failed = answer.header.get("failed")
        if isinstance(failed, dict):
            raise read_error(failed)
        return answer

    def _end(self) -> None:
        if self._driver is not None:
            self._driver.close()
            self._driver = None
