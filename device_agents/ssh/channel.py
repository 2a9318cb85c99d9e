"""A program on a board, spoken to over SSH."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Coroutine
from typing import Any, TypeVar

import asyncssh

from device_agents.errors import DeviceUnavailableError
from device_agents.ssh_connection import SshConnection, run_in_loop, unavailable
from device_agents.worker_link import WorkerChannel

_T = TypeVar("_T")
_LOG_PARTS, _LOG_PART_BYTES = 50, 2000


class SshChannel(WorkerChannel):
    """The bytes to and from a program on a board.

    Args:
        process: The program, started.
        connection: What it was started over.
    """

    def __init__(self, process: asyncssh.SSHClientProcess[bytes], connection: SshConnection) -> None:
        self._process, self._connection = process, connection
        self._log: deque[str] = deque(maxlen=_LOG_PARTS)
        self._killed = asyncio.Event()
        run_in_loop(self._keep_log_in_background())

    @property
    def alive(self) -> bool:
        """See `WorkerChannel`."""
        return not self._killed.is_set() and self._process.returncode is None and self._connection.alive

    @property
    def log(self) -> str:
        """See `WorkerChannel`."""
        return "".join(self._log).strip()

    def read(self, count: int) -> bytes:
        """See `WorkerChannel`."""
        try:
            return run_in_loop(self._unless_killed(self._process.stdout.read(count))) or b""
        except (OSError, asyncssh.Error, ValueError) as error:
            if self._killed.is_set():
                return b""
            raise unavailable(error, self._connection.address) from error

    def write(self, data: bytes) -> None:
        """See `WorkerChannel`."""
        try:
            run_in_loop(self._unless_killed(self._write(data)))
        except asyncssh.Error as error:
            raise OSError(str(error)) from error

    def wait(self, timeout_s: float) -> int | None:
        """See `WorkerChannel`."""
        try:
            run_in_loop(self._process.wait_closed(), timeout_s)
        except TimeoutError:
            self.kill()
        except (OSError, asyncssh.Error) as error:
            raise unavailable(error, self._connection.address) from error
        if self._process.returncode is None and not self._killed.is_set():
            lost = self._connection.why_lost()
            raise lost or DeviceUnavailableError(f"The {self._connection.address.called} ended the worker's channel")
        return self._process.returncode

    def kill(self) -> None:
        """See `WorkerChannel`."""
        with contextlib.suppress(OSError, asyncssh.Error, TimeoutError):
            run_in_loop(self._kill(), 5.0)

    def close(self) -> None:
        """See `WorkerChannel`."""
        self.kill()

    async def _write(self, data: bytes) -> None:
        self._process.stdin.write(data)
        await self._process.stdin.drain()

    async def _unless_killed(self, task: Coroutine[Any, Any, _T]) -> _T | None:
        """Does something unless the channel is killed first; None then.

        A board that does not answer any more, or a program that is stopped, never ends the channel from its side.
        """
        doing, killed = asyncio.ensure_future(task), asyncio.ensure_future(self._killed.wait())
        try:
            await asyncio.wait((doing, killed), return_when=asyncio.FIRST_COMPLETED)
            return doing.result() if doing.done() else None
        finally:
            doing.cancel()
            killed.cancel()

    async def _kill(self) -> None:
        self._killed.set()
        if self._process.returncode is None:
            with contextlib.suppress(OSError):  # the channel is closed
                self._process.kill()
        # A worker whose stdin ends does so too, also where the server passes on no signals.
        self._process.channel.abort()

    async def _keep_log_in_background(self) -> None:
        self._keeping = asyncio.ensure_future(self._keep_log())

    async def _keep_log(self) -> None:
        with contextlib.suppress(OSError, asyncssh.Error):
            while part := await self._process.stderr.read(_LOG_PART_BYTES):
                self._log.append(part.decode(errors="replace"))
