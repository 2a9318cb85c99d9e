"""A channel whose far side is in this process: a function that answers frames, or the bytes it is to say instead."""

from __future__ import annotations

import io
import queue
from collections.abc import Callable
from dataclasses import dataclass

from device_agents.errors import ProtocolError
from device_agents.remote_frames import LIMITS
from device_agents.worker.frames import Frame, encode_frame, read_frame
from device_agents.worker_link import WorkerChannel

FarSide = Callable[[Frame], "Frame | bytes"]


@dataclass(frozen=True)
class NearAddress:
    """The address of a device of the host "lab"."""

    device: str

    @property
    def of_host(self) -> str:
        return "lab"

    def of_device(self, device: str) -> NearAddress:
        return NearAddress(device)

    def __str__(self) -> str:
        return f"near:lab/{self.device}"


class NearChannel(WorkerChannel):
    """Answers one frame after the other.

    Args:
        far_side: Returns the answer to a frame, b"" for none, or raises EOFError to end.
    """

    def __init__(self, far_side: FarSide) -> None:
        self._far_side = far_side
        self._said: queue.Queue[bytes] = queue.Queue()
        self._rest, self._request = b"", b""
        self._ended = False
        self.asked: list[tuple[str, int]] = []  # what was asked, with how many bytes

    @property
    def alive(self) -> bool:
        return not self._ended

    @property
    def log(self) -> str:
        return ""

    def read(self, count: int) -> bytes:
        if not self._rest:
            self._rest = self._said.get()
        data, self._rest = self._rest[:count], self._rest[count:]
        return data

    def write(self, data: bytes) -> None:
        self._request += data  # the parts of a frame come one after the other
        try:
            frame = read_frame(io.BytesIO(self._request).read, LIMITS)
        except ProtocolError:
            return
        assert frame is not None
        size, self._request = len(self._request), b""
        if frame.header["do"] == "ping":
            return
        self.asked.append((str(frame.header["do"]), size))
        try:
            answer = self._far_side(frame)
        except EOFError:
            self.kill()
            return
        if data := answer if isinstance(answer, bytes) else encode_frame(answer):
            self._said.put(data)

    def wait(self, timeout_s: float) -> int | None:
        return None

    def kill(self) -> None:
        self._ended = True
        self._said.put(b"")

    def close(self) -> None:
        pass
