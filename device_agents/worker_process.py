"""A worker in its own process, reached over pipes, with a limit on every wait."""

from __future__ import annotations

import contextlib
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import IO, Any

from device_agents.errors import DeviceUnavailableError, ProtocolError, SpecError, WorkerError
from device_agents.worker.frames import Frame, frame_parts, read_frame

if sys.platform == "linux":
    import fcntl

PROTOCOL_VERSION = 1
_F_SETPIPE_SZ = 1031  # fcntl.F_SETPIPE_SZ, which Python 3.10 has not on every build
_PIPE_BYTES = 1 << 20
_START_TIMEOUT_S = 60.0
_STDERR_LINES = 50
_STDERR_LINE_BYTES = 2000
_PACKAGE_ROOT = Path(__file__).resolve().parents[1]


class WorkerDiedError(WorkerError):
    """The worker ended while it was answering.

    Attributes:
        stage: What it last said it was doing: "", "load" or "run".
        signal_name: The signal that ended it, for example "SIGSEGV", or "".
        log: The end of what it wrote to stderr.
    """

    def __init__(self, stage: str, return_code: int, log: str) -> None:
        self.stage = stage
        self.signal_name = _signal_name(return_code)
        self.log = log
        how = f"killed by {self.signal_name}" if self.signal_name else f"exit code {return_code}"
        super().__init__(f"The worker ended ({how})")


class WorkerTimeoutError(WorkerError):
    """The worker did not answer in time and was ended.

    Attributes:
        stage: What it last said it was doing: "", "load" or "run".
    """

    def __init__(self, stage: str, timeout_s: float) -> None:
        self.stage = stage
        super().__init__(f"No answer within {timeout_s:g} s")


class WorkerProcess:
    """One running worker. After an exception it is dead; start another one."""

    def __init__(self, command: list[str] | None = None, start_timeout_s: float = _START_TIMEOUT_S):
        """Starts the worker and waits until it answers.

        Args:
            command: What to start; this Python with `device_agents.worker` by default.
            start_timeout_s: How long that may take, in seconds.

        Raises:
            DeviceUnavailableError: If it does not start.
        """
        self._process = _start(command or [sys.executable, "-m", "device_agents.worker"])
        _widen(self._process.stdin)
        self._frames: queue.Queue[Frame | Exception | None] = queue.Queue()
        self._log: deque[str] = deque(maxlen=_STDERR_LINES)
        self._threads = [
            threading.Thread(target=self._receive, daemon=True),
            threading.Thread(target=self._keep_log, daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        self.hello = self._greet(start_timeout_s)

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process is still running."""
        return self._process.poll() is None

    def request(self, frame: Frame, timeout_s: float) -> Frame:
        """Sends a request and returns the frame that answers it.

        Raises:
            WorkerDiedError: If the worker ended instead.
            WorkerTimeoutError: If it took longer than `timeout_s` seconds.
            ProtocolError: If it answered with rubbish.
            SpecError: If it refused the request because of its settings.
            WorkerError: If it refused the request for another reason.
        """
        deadline_s = time.monotonic() + timeout_s
        # In a thread: a worker that hangs stops reading, and the pipe is soon full.
        self._send_in_background(frame_parts(frame))
        stage = ""
        while True:
            answer = self._next_frame(deadline_s, stage, timeout_s)
            if "stage" not in answer.header:
                return _checked(answer)
            stage = str(answer.header["stage"])

    def close(self) -> None:
        """Ends the worker, at once if it is busy; may be called twice."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for thread in self._threads:
            thread.join()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            _close_quietly(pipe)

    def _greet(self, timeout_s: float) -> dict[str, Any]:
        try:
            hello = self.request(Frame({"do": "hello"}), timeout_s).header
        except WorkerError as error:
            log = self._log_text()
            self.close()
            raise DeviceUnavailableError(f"The worker does not start: {error}. {log}") from error
        if hello.get("protocol") != PROTOCOL_VERSION:
            self.close()
            raise DeviceUnavailableError(
                f"The worker speaks another protocol. Expected version {PROTOCOL_VERSION}. "
                f"Received: {hello.get('protocol')!r:.80}. Copy the present worker folder to it"
            )
        return hello

    def _next_frame(self, deadline_s: float, stage: str, timeout_s: float) -> Frame:
        try:
            item = self._frames.get(timeout=max(0.0, deadline_s - time.monotonic()))
        except queue.Empty:
            self.close()
            raise WorkerTimeoutError(stage, timeout_s) from None
        if isinstance(item, Frame):
            return item
        # What ends the stream also tells how the process ended.
        return_code = self._wait_for_end()
        self.close()
        if isinstance(item, ProtocolError):
            raise item
        raise WorkerDiedError(stage, return_code, self._log_text())

    def _wait_for_end(self) -> int:
        try:
            return self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _send_in_background(self, parts: list[bytes]) -> None:
        pipe = self._process.stdin
        assert pipe is not None

        def send() -> None:
            try:
                for part in parts:
                    pipe.write(part)
                pipe.flush()
            except (OSError, ValueError):
                pass  # it died or was closed: the receiving side reports it

        threading.Thread(target=send, daemon=True).start()

    def _receive(self) -> None:
        pipe = self._process.stdout
        assert pipe is not None
        try:
            while (frame := read_frame(pipe.read)) is not None:
                self._frames.put(frame)
            self._frames.put(None)
        except (ProtocolError, OSError, ValueError) as error:
            self._frames.put(error)

    def _keep_log(self) -> None:
        pipe = self._process.stderr
        assert pipe is not None
        while line := pipe.readline(_STDERR_LINE_BYTES):
            self._log.append(line.decode(errors="replace").rstrip())

    def _log_text(self) -> str:
        return "\n".join(self._log)


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            cwd=_PACKAGE_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A Ctrl-C at the host's terminal is for the host; it ends its workers itself.
            start_new_session=True,
        )
    except OSError as error:
        raise DeviceUnavailableError(f"Cannot start {command[0]!r}: {error}") from error


def _widen(pipe: IO[bytes] | None) -> None:
    """Lets a model of megabytes through in fewer steps, where the system can."""
    if pipe is not None and sys.platform == "linux":
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe.fileno(), _F_SETPIPE_SZ, _PIPE_BYTES)


def _checked(answer: Frame) -> Frame:
    if "error" not in answer.header:
        return answer
    kind, message = answer.header["error"], str(answer.header.get("message"))
    if kind in ("SpecError", "OSError", "NotImplementedError"):
        raise SpecError(f"The device cannot measure with these settings: {message}")
    raise WorkerError(f"The worker refused the request: {message}")


def _signal_name(return_code: int) -> str:
    if return_code >= 0:
        return ""
    try:
        return signal.Signals(-return_code).name
    except ValueError:
        return f"signal {-return_code}"


def _close_quietly(pipe: IO[bytes] | None) -> None:
    try:
        if pipe is not None:
            pipe.close()
    except OSError:
        pass  # unsent bytes of a worker that is gone
