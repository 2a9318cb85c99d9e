"""A worker started by a command, reached over the command's stdin and stdout."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from device_agents.errors import DeviceUnavailableError
from device_agents.worker_link import WorkerChannel

if sys.platform == "linux":
    import fcntl

_F_SETPIPE_SZ = 1031  # fcntl.F_SETPIPE_SZ, which Python 3.10 has not on every build
_PIPE_BYTES = 1 << 20
_LOG_LINES = 50
_LOG_LINE_BYTES = 2000
PACKAGE_ROOT = Path(__file__).resolve().parents[1]
"""The folder that this package lies in, where processes of it are started."""


def start_local_worker(arguments: Sequence[str] = ()) -> ProcessChannel:
    """Starts a worker on this machine, with this Python.

    Args:
        arguments: Of the worker.

    Raises:
        DeviceUnavailableError: If it cannot be started.
    """
    # Where this package lies in a zip file (see `serve`), that is no folder to start in.
    folder = PACKAGE_ROOT if PACKAGE_ROOT.is_dir() else PACKAGE_ROOT.parent
    path = os.pathsep.join(filter(None, (str(PACKAGE_ROOT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "device_agents.worker", *arguments]
    return ProcessChannel(command, folder, {**os.environ, "PYTHONPATH": path})


class ProcessChannel(WorkerChannel):
    """Starts a command; its process is the worker, or passes the bytes on to it.

    Args:
        command: Program and arguments.
        folder: Where it is started; None for the present folder.
        environment: Its environment variables; None for those of this process.

    Raises:
        DeviceUnavailableError: If it cannot be started.
    """

    def __init__(
        self, command: Sequence[str], folder: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        try:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                # A Ctrl-C at the host's terminal is for the host; it ends its workers itself.
                start_new_session=True,
            )
        except OSError as error:
            raise DeviceUnavailableError(f"Cannot start {command[0]!r}: {error}") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        _widen(self._stdin)
        self._log: deque[str] = deque(maxlen=_LOG_LINES)
        self._logger = threading.Thread(target=self._keep_log, daemon=True)
        self._logger.start()

    @property
    def pid(self) -> int:
        """Process id of the command."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """See `WorkerChannel`."""
        return self._process.poll() is None

    @property
    def log(self) -> str:
        """See `WorkerChannel`."""
        return "\n".join(self._log)

    def read(self, count: int) -> bytes:
        """See `WorkerChannel`."""
        return self._stdout.read1(count)  # type: ignore[attr-defined,no-any-return] # it is buffered

    def write(self, data: bytes) -> None:
        """See `WorkerChannel`."""
        self._stdin.write(data)
        self._stdin.flush()

    def wait(self, timeout_s: float) -> int | None:
        """See `WorkerChannel`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout_s)
        self.kill()
        return self._process.wait()

    def kill(self) -> None:
        """See `WorkerChannel`."""
        if self.alive:
            self._process.kill()

    def close(self) -> None:
        """See `WorkerChannel`."""
        self._process.wait()
        self._logger.join()
        for pipe in (self._stdin, self._stdout, self._process.stderr):
            with contextlib.suppress(OSError):  # unsent bytes of a worker that is gone
                if pipe is not None:
                    pipe.close()

    def _keep_log(self) -> None:
        pipe = self._process.stderr
        assert pipe is not None
        while line := pipe.readline(_LOG_LINE_BYTES):
            self._log.append(line.decode(errors="replace").rstrip())


def _widen(pipe: IO[bytes]) -> None:
    """Lets a model of megabytes through in fewer steps, where the system can."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe.fileno(), _F_SETPIPE_SZ, _PIPE_BYTES)
