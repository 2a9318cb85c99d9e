"""The link over an adb server, the program that `adb` leaves running: phones paired over Wi-Fi, and any it holds.

A server that runs owns the USB interface of the phones, so nobody else can open them. Nothing here starts or ends one.
adbutils (`pip install 'nas-edge[adb-server]'`) speaks to the server. Commands and files go over the plain connection it
opens, because adbutils knows neither why a phone refuses a file nor how to end a command on the phone that takes too
long.

Format: packages/modules/adb/{OVERVIEW.TXT, SERVICES.TXT, SYNC.TXT} of AOSP.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

from adbutils import AdbClient, AdbConnection, AdbError

from device_agents.android.server_socket import server_socket
from device_agents.android.shell_protocol import GRACE_S, SERVICE, completed, stdin_packet, wrapped
from device_agents.android.transport import (
    MAX_OUTPUT_BYTES,
    Completed,
    FileStat,
    LinkLostError,
    RefusedError,
    Transport,
    UnauthorizedError,
    printable,
)
from device_agents.errors import DeviceError, DeviceUnavailableError, ProtocolError, SpecError
from device_agents.wording import words_of

_ANSWER_TIMEOUT_S = 5.0
_FILE_TIMEOUT_S = 120.0
_ALIVE_TIMEOUT_S = 3.0
_CHUNK_BYTES = 64 << 10  # the file service takes no larger ones
_REGULAR_FILE = 0o100600


@dataclass(frozen=True)
class ServerPhone:
    """A phone as the server lists it.

    Attributes:
        serial: What it is called there: a serial number, HOST:PORT, or the name of a Wi-Fi pairing.
        state: "device" when it can be used, else "unauthorized", "offline", "no permissions", ...
        model: Product name, "" if the server has not been told.
    """

    serial: str
    state: str
    model: str


def server_phones() -> list[ServerPhone]:
    """Returns the phones the server knows of, by serial; none of them is asked anything.

    Raises:
        DeviceUnavailableError: If there is no server, or what answers is none.
    """
    try:
        with _Client(*server_socket()).make_connection(_ANSWER_TIMEOUT_S) as connection:
            connection.send_command("host:devices-l")
            connection.check_okay()
            listing = connection.read_string_block()
    except _FOREIGN as error:
        raise _ours(error, "the adb server", "listing phones") from error
    return sorted(filter(None, map(_read_phone, listing.splitlines())), key=lambda phone: phone.serial)


def _read_phone(line: str) -> ServerPhone | None:
    """Reads SERIAL, a state of one word or "no permissions (why); see [URL]", and KEY:VALUE pairs."""
    serial, _, rest = line.strip().partition(" ")
    words = rest.split()
    if not serial or not words:
        return None
    pairs = dict(word.split(":", 1) for word in words[1:] if ":" in word)
    state = "no permissions" if words[0] == "no" else words[0]
    return ServerPhone(printable(serial), printable(state), printable(pairs.get("model", "").replace("_", " ")))


class AdbServerTransport(Transport):
    """A link to one phone that an adb server holds.

    Args:
        serial: What the server calls it, "" for the only one.
    """

    def __init__(self, serial: str = "") -> None:
        self._serial = serial

    @property
    def address(self) -> str:
        """See `Transport`."""
        return f"adb:{self._serial}"

    def alive(self) -> bool:
        """See `Transport`."""
        try:
            return self.run(["true"], timeout_s=_ALIVE_TIMEOUT_S).exit_code == 0
        except DeviceError:
            return False

    def stat(self, path: str) -> FileStat | None:
        """See `Transport`."""
        with self._service("sync:", f"looking for {path}", _ANSWER_TIMEOUT_S) as stream:
            stream.send(_request(b"STAT", path.encode()))
            kind, mode, size, modified = struct.unpack("<4sIII", stream.receive(16))
            if kind != b"STAT":
                raise ProtocolError(expected="the state of a file", received=f"{kind!r} from {self.address}")
        return FileStat(mode, size, modified) if mode else None

    def close(self) -> None:
        """See `Transport`; every call has a connection of its own, which ends with it."""

    def _run(self, command_line: str, timeout_s: float, file: tuple[bytes, str] | None) -> Completed:
        started_s = time.monotonic()
        answer = bytearray()
        command = f"{SERVICE}:{wrapped(command_line, timeout_s, file)}"
        doing = "running a command" if file is None else f"pushing {file[1]}"
        # The server takes a file at once, and hands it on as fast as the link lets it.
        listen_s = timeout_s + GRACE_S + (0.0 if file is None else _FILE_TIMEOUT_S)
        with self._service(command, doing, listen_s) as stream:
            if file is not None:
                # A phone that refuses the file ends the stream while it is being sent, and says why.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    stream.send(stdin_packet(file[0]))
            while part := stream.receive_some():
                answer += part
                if len(answer) > MAX_OUTPUT_BYTES:
                    raise ProtocolError(f"A command on {self.address} wrote more than {MAX_OUTPUT_BYTES} bytes")
        return completed(bytes(answer), self.address, timeout_s, time.monotonic() - started_s)

    def _send(self, data: bytes, path: str) -> None:
        with self._service("sync:", f"pushing {path}", _FILE_TIMEOUT_S) as stream:
            stream.send(_request(b"SEND", f"{path},{_REGULAR_FILE}".encode()))
            for start in range(0, len(data), _CHUNK_BYTES):
                if stream.has_answer():  # while sending, only a refusal comes
                    break
                stream.send(_request(b"DATA", data[start : start + _CHUNK_BYTES]))
            stream.send(struct.pack("<4sI", b"DONE", int(time.time())))
            kind, length = struct.unpack("<4sI", stream.receive(8))
            if kind != b"OKAY":
                raise _refusal(stream, kind, length)

    def _receive(self, path: str, max_bytes: int) -> bytes:
        data = bytearray()
        with self._service("sync:", f"pulling {path}", _FILE_TIMEOUT_S) as stream:
            stream.send(_request(b"RECV", path.encode()))
            while True:
                kind, length = struct.unpack("<4sI", stream.receive(8))
                if kind == b"DONE":
                    return bytes(data)
                if kind != b"DATA":
                    raise _refusal(stream, kind, length)
                if len(data) + length > max_bytes:
                    raise ProtocolError(f"{self.address} sent more than {max_bytes} bytes for {path}")
                data += stream.receive(length)

    @contextlib.contextmanager
    def _service(self, service: str, doing: str, timeout_s: float) -> Iterator[_Stream]:
        """A connection to a service of the phone for one call; whatever goes wrong in it becomes ours."""
        if len(service.encode()) > 0xFFFF:
            raise SpecError("A command for a phone has at most 65535 bytes", received=f"{len(service.encode())}")
        self._serial = self._serial or _only_phone()
        try:
            # The socket itself is closed: adbutils waits for 10 ms when it closes one.
            deadline_s = time.monotonic() + timeout_s
            with contextlib.closing(self._opened(service, min(timeout_s, _ANSWER_TIMEOUT_S))) as connection:
                yield _Stream(connection, deadline_s)
        except _FOREIGN as error:
            raise _ours(error, self.address, doing) from error

    def _opened(self, service: str, timeout_s: float) -> socket.socket:
        try:
            return _open(self._serial, service, timeout_s)
        except _FOREIGN as error:
            # A phone on the network that went away and came back is not looked for by every server.
            if not (re.search(r"offline|not found", str(error)) and re.fullmatch(r"\S+:\d{1,5}", self._serial)):
                raise
            client = _Client(*server_socket())
            client.disconnect(self._serial)
            client.connect(self._serial, timeout=timeout_s)
            return _open(self._serial, service, timeout_s)


class _Stream:
    """A connection to a service, with one deadline for all that is done with it."""

    def __init__(self, connection: socket.socket, deadline_s: float) -> None:
        self._connection = connection
        self._deadline_s = deadline_s

    def send(self, data: bytes) -> None:
        self._set_timeout()
        self._connection.sendall(data)

    def receive(self, length: int) -> bytes:
        """Returns exactly so many bytes."""
        data = bytearray()
        while len(data) < length:
            self._set_timeout()
            part = self._connection.recv(min(length - len(data), 1 << 18))
            if not part:
                raise EOFError("the adb server closed the connection")
            data += part
        return bytes(data)

    def receive_some(self) -> bytes:
        """Returns what comes next, b"" at the end."""
        self._set_timeout()
        return self._connection.recv(1 << 18)

    def has_answer(self) -> bool:
        return bool(select.select([self._connection], [], [], 0)[0])

    def _set_timeout(self) -> None:
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("no answer in time")
        self._connection.settimeout(left_s)


def _request(kind: bytes, content: bytes) -> bytes:
    return struct.pack("<4sI", kind, len(content)) + content


def _refusal(stream: _Stream, kind: bytes, length: int) -> Exception:
    if kind != b"FAIL" or length > 1 << 16:
        return ProtocolError("Unknown answer of the phone's file service", received=f"{kind!r}")
    return RefusedError(printable(stream.receive(length).decode("utf-8", "replace")))


def _only_phone() -> str:
    phones = server_phones()
    if not phones:
        raise LinkLostError(
            "The adb server knows of no phone",
            fix="plug one in with USB debugging switched on, or pair one over Wi-Fi: adb pair HOST:PORT",
        )
    if len(phones) > 1:
        listed = ", ".join(f"adb:{phone.serial} ({phone.state})" for phone in phones)
        raise DeviceUnavailableError("The adb server knows of several phones", fix=f"name one: {listed}")
    return phones[0].serial


def _open(serial: str, service: str, timeout_s: float) -> socket.socket:
    """Returns a connection that the server passes on to a service of the phone."""
    connection = _Client(*server_socket()).make_connection(timeout_s)
    opened: socket.socket = connection.conn
    try:
        for request in (f"host:transport:{serial}", service):
            content = request.encode()
            opened.sendall(b"%04x" % len(content) + content)
            connection.check_okay()
    except BaseException:
        opened.close()
        raise
    return opened


class _Connection(AdbConnection):  # type: ignore[misc]  # adbutils ships no types
    """adbutils' connection, which would start a server where there is none."""

    def _safe_connect(self) -> socket.socket:
        return socket.create_connection(server_socket(), _ANSWER_TIMEOUT_S)


class _Client(AdbClient):  # type: ignore[misc]  # adbutils ships no types
    """adbutils' client, whose every wait is bounded."""

    def make_connection(self, timeout: float | None = None) -> _Connection:
        connection = _Connection(self.host, self.port)
        connection.conn.settimeout(timeout or _ANSWER_TIMEOUT_S)
        connection.conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


# ValueError: what answers is no adb server.
_FOREIGN = (AdbError, OSError, EOFError, ValueError, struct.error)
# What the server says, what it means, and what to do about it. The first that fits.
_ANSWERS: tuple[tuple[str, type[DeviceUnavailableError], str, str], ...] = (
    (
        r"unauthorized|authorizing",
        UnauthorizedError,
        "does not know this computer",
        "unlock it, tap 'Allow' where it asks 'Allow USB debugging?' (tick 'Always allow'), then try again; the key is "
        "the adb server's, ~/.android/adbkey",
    ),
    (
        r"no permissions|insufficient permissions",
        DeviceUnavailableError,
        "may not be opened by the adb server's user",
        "on Linux add a udev rule (package android-sdk-platform-tools-common has them), plug the phone in again, and "
        "run `adb kill-server`",
    ),
    (
        r"offline|connecting",
        LinkLostError,
        "is offline",
        "unlock it; if that does not help, plug it in again or switch USB debugging off and on",
    ),
    (
        r"not found|no devices",
        LinkLostError,
        "is not there",
        "`nas-edge devices` lists the phones the adb server knows of",
    ),
    (
        r"closed|unknown host service|protocol fault",
        LinkLostError,
        "closed the connection",
        "try again; Android 8 or newer and an adb of 2017 or newer are needed",
    ),
    (
        r"[Cc]onnection refused",
        LinkLostError,
        "cannot be reached: no adb server answers",
        "start one with `adb start-server`, or stop using one: name the phone adb-usb:SERIAL",
    ),
    (
        r"Unknown data: b'(?!')|invalid literal",
        DeviceUnavailableError,
        "cannot be reached: what answers is no adb server",
        "check ADB_SERVER_SOCKET and ANDROID_ADB_SERVER_PORT",
    ),
    (
        r"time[d ]*out|in time",
        LinkLostError,
        "does not answer",
        "check that it is on, unlocked and reachable",
    ),
    (
        r"",
        LinkLostError,
        "has lost its connection",
        "the next attempt connects anew; if this goes on, two versions of adb may be ending each other's server: use "
        "one",
    ),
)


def _ours(error: Exception, address: str, doing: str) -> DeviceError:
    """Returns what an answer of the server means here, and what to do about it."""
    text = printable(words_of(error))
    kind, meaning, fix = next((kind, meaning, fix) for words, kind, meaning, fix in _ANSWERS if re.search(words, text))
    return kind(f"{address} {meaning} ({doing}: {text:.120})", fix=fix)
