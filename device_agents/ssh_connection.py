"""One SSH connection, for code that does not run in an event loop.

asyncssh reads the user's own configuration, agent, keys and known hosts. Its event loop runs in one background thread
for all connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import shlex
import socket
import sys
import threading
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import asyncssh

from device_agents.errors import DeviceUnavailableError
from device_agents.ssh_host import SshHost

_CONNECT_TIMEOUT_S = 15.0
# A cable that was pulled out is noticed in two ways. Each second a question travels, so that the system always has
# something whose arrival the other side must confirm; where nothing at all is confirmed for so long, the link is lost.
# A slow link goes on confirming. Answers do not tell the two apart, since they wait behind all that is being sent: so
# they may take long, and are for a server that hangs, and for systems without this option of TCP.
KEEPALIVE_S, KEEPALIVES = 1.0, 60
LINK_LOST_S = 4.0
# What a command may print that is not a worker's: what it says is small, and the board is not trusted.
_MAX_OUTPUT_BYTES = 4 << 20

_T = TypeVar("_T")


@dataclass(frozen=True)
class Completed:
    """A command that has ended.

    Attributes:
        exit_code: Its exit status; minus the number of the signal that ended it.
        output: What it wrote to stdout.
        log: What it wrote to stderr.
    """

    exit_code: int
    output: bytes
    log: str


class SshConnection:
    """The way to a host; connects when it is first used, and anew after it was lost.

    Args:
        address: The host.
    """

    def __init__(self, address: SshHost) -> None:
        self.address = address
        self._connection: asyncssh.SSHClientConnection | None = None
        self._watching = _Watching()

    @property
    def alive(self) -> bool:
        """Whether there is a connection that is not known to be lost."""
        return self._connection is not None and self._watching.lost is None and not self._connection.is_closed()

    def connect(self) -> bool:
        """Connects if there is no connection; returns whether there was none.

        Raises:
            DeviceUnavailableError: If that fails, with the reason and what to do.
        """
        if self.alive:
            return False
        self.close()
        self._watching = _Watching()  # the end of the last one may be told yet
        try:
            self._connection = run_in_loop(self._connected(), _CONNECT_TIMEOUT_S + 5)
        except Exception as error:  # asyncssh, the system and timeouts: each is explained
            raise unavailable(error, self.address) from error
        return True

    def run(
        self,
        command: Sequence[str],
        data: bytes = b"",
        timeout_s: float = 30.0,
        max_output_bytes: int = _MAX_OUTPUT_BYTES,
    ) -> Completed:
        """Runs a command and waits for its end.

        Args:
            command: Program and arguments.
            data: What it reads from stdin.
            timeout_s: How long it may take, in seconds.
            max_output_bytes: How much it may print.

        Raises:
            DeviceUnavailableError: If the connection cannot be made or is lost, or the command takes too long.
        """
        self.connect()
        try:
            return run_in_loop(self._run(command, data, max_output_bytes), timeout_s)
        except Exception as error:
            raise unavailable(error, self.address, f"while running {command[0]}") from error

    def start(self, command: Sequence[str]) -> asyncssh.SSHClientProcess[bytes]:
        """Starts a command that is spoken to, see `channel.SshChannel`.

        Raises:
            DeviceUnavailableError: If the connection cannot be made or is lost.
        """
        self.connect()
        assert self._connection is not None
        try:
            return run_in_loop(_started(self._connection, command), _CONNECT_TIMEOUT_S)
        except Exception as error:
            raise unavailable(error, self.address, f"while starting {command[0]}") from error

    def why_lost(self) -> DeviceUnavailableError | None:
        """Returns what became of the connection, None while it holds."""
        if self.alive:
            return None
        return unavailable(self._watching.lost or ConnectionError("the connection is closed"), self.address)

    def close(self) -> None:
        """Ends the connection; may be called twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):  # it may be lost already
                run_in_loop(_closed(connection), 5.0)

    async def _connected(self) -> asyncssh.SSHClientConnection:
        address = self.address
        options: dict[str, Any] = {"keepalive_interval": KEEPALIVE_S, "keepalive_count_max": KEEPALIVES}
        if address.user is not None:
            options["username"] = address.user
        if address.port is not None:
            options["port"] = address.port
        config = Path.home() / ".ssh" / "config"
        connection = await asyncssh.connect(
            address.host,
            config=[str(config)] if config.is_file() else None,
            client_factory=lambda: self._watching,
            connect_timeout=_CONNECT_TIMEOUT_S,
            login_timeout=_CONNECT_TIMEOUT_S,
            # What is worth packing is packed already.
            compression_algs=["none"],
            # Nobody is asked for a password while a search runs.
            password_auth=False,
            kbdint_auth=False,
            **options,
        )
        _limit_silence(connection)
        return connection

    async def _run(self, command: Sequence[str], data: bytes, limit: int) -> Completed:
        assert self._connection is not None
        process = await _started(self._connection, command)
        try:
            output, log = bytearray(), bytearray()
            await asyncio.gather(
                _send(process, data), _collect(process.stdout, output, limit), _collect(process.stderr, log, limit)
            )
            await process.wait_closed()
        finally:
            process.close()
        if process.returncode is None:
            raise self._watching.lost or ConnectionError("the connection was lost")
        return Completed(process.returncode, bytes(output), log.decode(errors="replace").strip())


def _limit_silence(connection: asyncssh.SSHClientConnection) -> None:
    """Has the system end a connection over which nothing is confirmed any more."""
    link = connection.get_extra_info("socket")
    if sys.platform == "linux" and link is not None:  # None: through another program, as ProxyCommand
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(LINK_LOST_S * 1e3))


class _Watching(asyncssh.SSHClient):
    """Knows whether its connection is lost, and why."""

    def __init__(self) -> None:
        self.lost: Exception | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = exc or ConnectionError("the board closed the connection")


def command_line(command: Sequence[str]) -> str:
    """Returns the line for the board's login shell that becomes a program with exactly these arguments."""
    # `exec`, so that the program's own exit status and signal arrive.
    return f"exec {shlex.join(command)}"


async def _started(
    connection: asyncssh.SSHClientConnection, command: Sequence[str]
) -> asyncssh.SSHClientProcess[bytes]:
    return await connection.create_process(command_line(command), encoding=None)


async def _send(process: asyncssh.SSHClientProcess[bytes], data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionError):  # it has ended; its exit status tells
        process.stdin.write(data)
        await process.stdin.drain()
        process.stdin.write_eof()


async def _collect(reader: asyncssh.SSHReader[bytes], into: bytearray, limit: int) -> None:
    while part := await reader.read(1 << 16):
        if len(into) + len(part) > limit:
            raise ConnectionError(f"the host sent more than {limit >> 20} MiB")
        into += part


async def _closed(connection: asyncssh.SSHClientConnection) -> None:
    connection.close()
    try:
        await asyncio.wait_for(connection.wait_closed(), 2.0)
    except (asyncio.TimeoutError, TimeoutError):
        connection.abort()


# The event loop.


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True, name="ssh").start()
    return loop


def run_in_loop(task: Coroutine[Any, Any, _T], timeout_s: float | None = None) -> _T:
    """Runs a coroutine in the event loop of all connections and returns what it returns.

    Raises:
        TimeoutError: If it takes longer; it is cancelled then.
    """
    future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(task, timeout_s), _loop())
    try:
        return future.result()
    except asyncio.TimeoutError as error:  # not the built-in one before Python 3.11
        if isinstance(error, OSError) and error.errno is not None:
            raise ConnectionError(error.strerror) from error  # the system gave the link up, not the caller the wait
        raise TimeoutError(f"no answer within {timeout_s:g} s") from error
    except BaseException:
        future.cancel()  # Ctrl-C
        raise


# What went wrong, in words.


def unavailable(error: Exception, address: SshHost, doing: str = "") -> DeviceUnavailableError:
    """Returns the error of a board that cannot be reached, with the reason and what to do."""
    if isinstance(error, DeviceUnavailableError):
        return error
    where, login = f"The {address.called}", f"ssh {address.for_ssh}"
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return _key_not_trusted(address)
    if isinstance(error, asyncssh.PermissionDenied):
        return DeviceUnavailableError(
            f"{where} refuses the login",
            fix=f"`ssh-copy-id {address.for_ssh}`, or load your key with ssh-add; `{login}` must ask for nothing",
        )
    if isinstance(error, asyncssh.KeyEncryptionError):
        return DeviceUnavailableError(
            f"The key for the {address.called} has a passphrase", fix="load it into the agent: ssh-add"
        )
    if isinstance(error, asyncssh.ConfigParseError):
        return DeviceUnavailableError(f"The SSH configuration cannot be read: {error}", fix="mend ~/.ssh/config")
    said = str(error) or type(error).__name__
    during = f" {doing}" if doing else ""
    return DeviceUnavailableError(
        f"{where} does not answer{during}: {said}", fix=f"see whether `{login}` works; is it on and in the network?"
    )


def _key_not_trusted(address: SshHost) -> DeviceUnavailableError:
    name = address.host if address.port in (None, 22) else f"[{address.host}]:{address.port}"
    if _is_known(address):
        return DeviceUnavailableError(
            f"The host key of {address} is not the one in known_hosts",
            fix=f"if the board was set up anew: ssh-keygen -R '{name}', then `ssh {address.for_ssh}`; "
            "if not, somebody may be in between",
        )
    return DeviceUnavailableError(
        f"The host key of {address} is not known",
        fix=f"connect once with `ssh {address.for_ssh}`, compare the fingerprint with the board's, and accept it",
    )


def _is_known(address: SshHost) -> bool:
    """Whether the user's known hosts have another key of this host."""
    try:
        known = asyncssh.read_known_hosts([str(Path.home() / ".ssh" / "known_hosts")])
        keys, *_ = known.match(address.host, "", address.port or 22)
    except (OSError, ValueError):
        return False
    return bool(keys)
