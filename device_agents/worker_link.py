"""Requests to a worker and its answers, with a limit on every wait; where it runs is its channel's business."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from device_agents.errors import DeviceError, DeviceUnavailableError, SpecError, WorkerError
from device_agents.worker.frames import PROTOCOL_VERSION, Frame, frame_parts, read_frame

_START_TIMEOUT_S = 60.0
_END_TIMEOUT_S = 5.0
_LONGEST_TEXT = 2000


class WorkerChannel(ABC):
    """A worker that was started somewhere: the bytes to and from it, and its end.

    One thread reads, another writes; `kill` and `close` come from a third.
    """

    @abstractmethod
    def read(self, count: int) -> bytes:
        """Returns up to `count` bytes as soon as there are some; b"" once the worker has ended.

        Raises:
            DeviceUnavailableError: If the way to the worker is lost, which is not the fault of what it was doing.
        """

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Sends all of the bytes.

        Raises:
            OSError: If the worker has ended; `read` will tell.
        """

    @abstractmethod
    def wait(self, timeout_s: float) -> int | None:
        """Returns the worker's exit status, minus the number of the signal that ended it, or None if not known.

        Args:
            timeout_s: How long to wait for the end, in seconds; a worker that has not ended by then is killed.

        Raises:
            DeviceUnavailableError: If the way to the worker is lost.
        """

    @abstractmethod
    def kill(self) -> None:
        """Ends the worker at once, also one that hangs; `read` then returns b"". May be called twice."""

    @abstractmethod
    def close(self) -> None:
        """Frees what the channel holds, after the worker has ended; may be called twice."""

    @property
    @abstractmethod
    def alive(self) -> bool:
        """Whether the worker is still running, as far as is known."""

    @property
    @abstractmethod
    def log(self) -> str:
        """The end of what the worker wrote to stderr."""


StartWorker = Callable[[], WorkerChannel]
"""Starts a worker. Raises DeviceUnavailableError if it cannot be started."""


class WorkerDiedError(WorkerError):
    """The worker ended while it was answering.

    Attributes:
        stage: What it last said it was doing: "", "load" or "run".
        model: Which model of the request that was about, None where it did not say.
        signal_name: The signal that ended it, for example "SIGSEGV", or "".
        log: The end of what it wrote to stderr.
    """

    def __init__(self, stage: str, model: int | None, return_code: int | None, log: str) -> None:
        self.stage, self.model = stage, model
        self.signal_name = _signal_name(return_code)
        self.log = log
        known = "exit code not known" if return_code is None else f"exit code {return_code}"
        how = f"killed by {self.signal_name}" if self.signal_name else known
        super().__init__(f"The worker ended ({how})")


class WorkerTimeoutError(WorkerError):
    """The worker did not answer in time and was ended.

    Attributes:
        stage: What it last said it was doing: "", "load" or "run".
        model: Which model of the request that was about, None where it did not say.
    """

    def __init__(self, stage: str, model: int | None, timeout_s: float) -> None:
        self.stage, self.model = stage, model
        super().__init__(f"No answer within {timeout_s:g} s")


class WorkerLink:
    """One running worker. After an exception it is dead; start another one.

    Args:
        channel: The worker; closed with the link.
        start_timeout_s: How long it may take to answer at first, in seconds.
        if_outdated: What to do if it speaks another protocol.

    Raises:
        DeviceUnavailableError: If it does not answer.
    """

    def __init__(
        self,
        channel: WorkerChannel,
        start_timeout_s: float = _START_TIMEOUT_S,
        if_outdated: str = "copy the present worker folder to it",
    ) -> None:
        self.channel, self._if_outdated = channel, if_outdated
        self._sending = threading.Lock()  # held while a frame is being sent
        self._frames: queue.Queue[Frame | Exception | None] = queue.Queue()
        self._receiver = threading.Thread(target=self._receive, daemon=True)
        self._receiver.start()
        self.hello = self._greet(start_timeout_s)
        """What the worker says of itself and of its device, unchecked."""

    @property
    def alive(self) -> bool:
        """Whether the worker is still running."""
        return self.channel.alive

    def request(self, frame: Frame, timeout_s: float, each_stage: bool = False) -> Frame:
        """Sends a request and returns the frame that answers it.

        Args:
            frame: The request.
            timeout_s: How long the answer may take, in seconds.
            each_stage: That limit is for each of the stages that the worker announces.

        Raises:
            WorkerDiedError: If the worker ended instead.
            DeviceUnavailableError: If the way to it was lost.
            WorkerTimeoutError: If it took longer than `timeout_s` seconds.
            ProtocolError: If it answered with rubbish.
            SpecError: If it refused the request because of its settings.
            WorkerError: If it refused the request for another reason.
        """
        deadline_s = time.monotonic() + timeout_s
        # In a thread: a worker that hangs stops reading, and the pipe is soon full.
        threading.Thread(target=self.tell, args=(frame,), daemon=True).start()
        doing = _Doing()
        while True:
            answer = self._next_frame(deadline_s, doing, timeout_s)
            if "stage" not in answer.header:
                return _checked(answer)
            doing = _Doing.read(answer.header)
            if each_stage:
                deadline_s = time.monotonic() + timeout_s

    def tell(self, frame: Frame) -> None:
        """Sends a frame that nothing answers, once those before it are sent; another thread may be waiting for one."""
        # A worker that died or was closed is reported by the receiving side.
        with self._sending, contextlib.suppress(OSError, ValueError):
            for part in frame_parts(frame):
                self.channel.write(part)

    def close(self) -> None:
        """Ends the worker, at once if it is busy; may be called twice."""
        self.channel.kill()
        self._receiver.join()
        self.channel.close()

    def _greet(self, timeout_s: float) -> dict[str, Any]:
        try:
            hello = self.request(Frame({"do": "hello"}), timeout_s).header
        except WorkerError as error:
            self.close()
            raise DeviceUnavailableError(f"The worker does not start: {error}. {self.channel.log}") from error
        if hello.get("protocol") != PROTOCOL_VERSION:
            self.close()
            raise DeviceUnavailableError(
                "The worker speaks another protocol",
                expected=f"version {PROTOCOL_VERSION}",
                received=f"{hello.get('protocol')!r:.80}",
                fix=self._if_outdated,
            )
        return hello

    def _next_frame(self, deadline_s: float, doing: _Doing, timeout_s: float) -> Frame:
        try:
            item = self._frames.get(timeout=max(0.0, deadline_s - time.monotonic()))
        except queue.Empty:
            self.close()
            raise WorkerTimeoutError(doing.stage, doing.model, timeout_s) from None
        if isinstance(item, Frame):
            return item
        try:
            # What ends the stream also tells how the worker ended.
            return_code = self.channel.wait(_END_TIMEOUT_S)
        finally:
            self.close()
        if isinstance(item, DeviceError):
            raise item
        raise WorkerDiedError(doing.stage, doing.model, return_code, self.channel.log)

    def _receive(self) -> None:
        try:
            while (frame := read_frame(self.channel.read)) is not None:
                self._frames.put(frame)
            self._frames.put(None)
        except (DeviceError, OSError, ValueError) as error:
            self._frames.put(error)


@dataclass(frozen=True)
class _Doing:
    """What the worker last announced."""

    stage: str = ""
    model: int | None = None

    @classmethod
    def read(cls, header: Mapping[str, Any]) -> _Doing:
        model = header.get("model")
        return cls(str(header["stage"]), model if type(model) is int else None)


def _checked(answer: Frame) -> Frame:
    if "error" not in answer.header:
        return answer
    kind, message = answer.header["error"], " ".join(str(answer.header.get("message"))[:_LONGEST_TEXT].split())
    message = "".join(c if c.isprintable() else "?" for c in message)
    if kind in ("SpecError", "OSError", "NotImplementedError"):
        raise SpecError(f"The device cannot measure with these settings: {message}")
    raise WorkerError(f"The worker refused the request: {message}")


def _signal_name(return_code: int | None) -> str:
    if return_code is None or return_code >= 0:
        return ""
    try:
        return signal.Signals(-return_code).name
    except ValueError:
        return f"signal {-return_code}"
