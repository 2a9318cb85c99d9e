"""The link over adb-shell: TCP and USB, no adb program needed.

adb-shell 0.4 speaks the protocol but leaves some of it out, and its repository rests. What is done about that here:

* commands use the shell protocol's second version (`shell,v2,raw:`), which adb-shell has no method for: it carries
  the exit status, keeps the outputs apart, and the phone ends the command when the connection closes;
* the socket has TCP_NODELAY (44 ms per command without), writes everything it is given (`send` may write less), sees
  a closed connection as an error (it would read nothing until a timeout) and keeps one deadline for a whole call;
* a phone that refuses a file tells so while it is being sent; adb-shell overlooks that and waits for a timeout.

Format: packages/modules/adb/{protocol.txt, SYNC.TXT} of AOSP.
"""

from __future__ import annotations

import contextlib
import importlib
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from adb_shell import constants, exceptions
from adb_shell.adb_device import AdbDevice
from adb_shell.adb_message import AdbMessage
from adb_shell.auth.sign_cryptography import CryptographySigner
from adb_shell.transport.base_transport import BaseTransport
from adb_shell.transport.tcp_transport import TcpTransport

from device_agents.android.keys import key_files
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
from device_agents.errors import DeviceError, DeviceUnavailableError, ProtocolError
from device_agents.wording import words_of

_CONNECT_TIMEOUT_S = 5.0
# How long a person may take to read the question on the phone and tap "Allow".
PROMPT_TIMEOUT_S = 30.0
_FILE_TIMEOUT_S = 120.0
_ALIVE_TIMEOUT_S = 3.0
_TCP_PORT = 5555
# A phone that is gone without a word (out of range, battery out) is noticed after about this many seconds.
_KEEPALIVE = {"TCP_KEEPIDLE": 4, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 10_000}

_ADB_ERRORS = tuple(
    kind for kind in vars(exceptions).values() if isinstance(kind, type) and issubclass(kind, Exception)
)
# What the bytes of a peer that is no phone, or of one gone mad, make of adb-shell.
_NONSENSE = (
    exceptions.InvalidCommandError,
    exceptions.InvalidChecksumError,
    exceptions.InvalidResponseError,
)
_FOREIGN: tuple[type[Exception], ...] = (*_ADB_ERRORS, OSError, EOFError)
_USB_ERROR: tuple[type[Exception], ...] = ()
with contextlib.suppress(ImportError, OSError):  # the package, or the libusb it loads, is not there
    _USB_ERROR = (importlib.import_module("usb1").USBError,)


class AdbShellTransport(Transport):
    """A link to one phone.

    Args:
        address: As shown in messages.
        open_link: Returns the connection adb-shell is to use; called for each attempt to connect.
        keys: Returns the private key files to offer, best first; called when a connection is made.
        prompt_timeout_s: How long to wait for the key to be accepted, in seconds.
    """

    def __init__(
        self,
        address: str,
        open_link: Callable[[], BaseTransport],
        keys: Callable[[], list[Path]] = key_files,
        prompt_timeout_s: float = PROMPT_TIMEOUT_S,
    ) -> None:
        self._address = address
        self._open_link = open_link
        self._keys = keys
        self._prompt_timeout_s = prompt_timeout_s
        self._device: _Device | None = None
        self._link: Any = None

    @classmethod
    def tcp(cls, host: str, port: int = _TCP_PORT, prompt_timeout_s: float = PROMPT_TIMEOUT_S) -> AdbShellTransport:
        """Returns a link to a phone that listens at a host and port."""
        shown = f"[{host}]" if ":" in host else host
        return cls(f"adb://{shown}:{port}", lambda: _TcpLink(host, port), prompt_timeout_s=prompt_timeout_s)

    @classmethod
    def usb(cls, serial: str = "", prompt_timeout_s: float = PROMPT_TIMEOUT_S) -> AdbShellTransport:
        """Returns a link to the phone with this serial number, "" for the only one."""
        return cls(f"adb:{serial}", lambda: _find_usb(serial), prompt_timeout_s=prompt_timeout_s)

    @property
    def address(self) -> str:
        """See `Transport`."""
        return self._address

    def connect(self) -> None:
        """Makes the connection, if it is not there.

        Raises:
            UnauthorizedError: If the phone has not accepted the key.
            DeviceUnavailableError: If there is no phone, or what answers is none.
        """
        self._connected()

    def alive(self) -> bool:
        """See `Transport`."""
        try:
            return self.run(["true"], timeout_s=_ALIVE_TIMEOUT_S).exit_code == 0
        except DeviceError:
            return False

    def stat(self, path: str) -> FileStat | None:
        """See `Transport`."""
        with self._session(f"looking for {path}", _CONNECT_TIMEOUT_S) as device:
            mode, size, modified = device.stat(path, **_timeouts(_CONNECT_TIMEOUT_S))
        return FileStat(mode, size, modified) if mode else None

    def close(self) -> None:
        """See `Transport`."""
        device, self._device, self._link = self._device, None, None
        if device is not None:
            with contextlib.suppress(*_FOREIGN, *_USB_ERROR):
                device.close()

    def _run(self, command_line: str, timeout_s: float, file: tuple[bytes, str] | None) -> Completed:
        started_s = sent_s = time.monotonic()
        listen_s = timeout_s + GRACE_S
        service = f"{SERVICE}:{wrapped(command_line, timeout_s, file)}".encode()
        doing = "running a command" if file is None else f"pushing {file[1]}"
        wait_s = listen_s if file is None else max(listen_s, _FILE_TIMEOUT_S)

        def sent() -> None:
            nonlocal sent_s
            sent_s = time.monotonic()
            self._set_deadline(listen_s)

        with self._session(doing, wait_s) as device:
            answer = bytearray()
            for part in device.converse(service, b"" if file is None else stdin_packet(file[0]), wait_s, sent):
                answer += part
                if len(answer) > MAX_OUTPUT_BYTES:
                    raise ProtocolError(f"A command on {self._address} wrote more than {MAX_OUTPUT_BYTES} bytes")
        done = completed(bytes(answer), self._address, timeout_s, time.monotonic() - started_s)
        return done if file is None else replace(done, sent_s=sent_s - started_s)

    def _send(self, data: bytes, path: str) -> None:
        with self._session(f"pushing {path}", _FILE_TIMEOUT_S) as device:
            device.push(BytesIO(data), path, st_mode=0o100600, **_timeouts(_FILE_TIMEOUT_S))

    def _receive(self, path: str, max_bytes: int) -> bytes:
        stream = _LimitedBytes(max_bytes)
        with self._session(f"pulling {path}", _FILE_TIMEOUT_S) as device:
            device.pull(path, stream, **_timeouts(_FILE_TIMEOUT_S))
        return stream.getvalue()

    @contextlib.contextmanager
    def _session(self, doing: str, timeout_s: float) -> Iterator[_Device]:
        """The connected device for one call; whatever goes wrong in it becomes ours.

        A connection in which something went wrong is closed: its streams cannot be trusted any more, and closing it
        ends what still runs on the phone.
        """
        device = self._connected()
        self._set_deadline(timeout_s)
        try:
            yield device
        except (exceptions.PushFailedError, exceptions.AdbCommandFailureException) as error:
            if isinstance(error, exceptions.AdbCommandFailureException):
                self.close()  # its stream was left half read
            raise RefusedError(_reason(error)) from error
        except (*_FOREIGN, *_USB_ERROR) as error:
            self.close()
            raise self._ours(error, doing) from error
        except BaseException:
            self.close()
            raise
        finally:
            self._set_deadline(None)

    def _connected(self) -> _Device:
        if self._device is not None:
            return self._device
        asked = False

        def asks(_: object) -> None:
            nonlocal asked
            asked = True
            self._set_deadline(self._prompt_timeout_s)

        signers = [_signer(file) for file in self._keys()]
        try:
            self._link = self._open_link()
            device = _Device(self._link, default_transport_timeout_s=_CONNECT_TIMEOUT_S, banner="nas_edge")
            self._set_deadline(_CONNECT_TIMEOUT_S)
            device.connect(
                rsa_keys=signers,
                auth_timeout_s=self._prompt_timeout_s,
                auth_callback=asks,
                **_timeouts(_CONNECT_TIMEOUT_S),
            )
        except (*_FOREIGN, *_USB_ERROR) as error:
            link, self._link = self._link, None
            if link is not None:
                with contextlib.suppress(*_FOREIGN, *_USB_ERROR):
                    link.close()
            raise self._unauthorized() if asked else self._ours(error, "connecting") from error
        self._set_deadline(None)
        self._device = device
        return device

    def _set_deadline(self, timeout_s: float | None) -> None:
        if isinstance(self._link, _TcpLink):
            self._link.deadline_s = None if timeout_s is None else time.monotonic() + timeout_s

    def _unauthorized(self) -> UnauthorizedError:
        return UnauthorizedError(
            f"{self._address} does not know this computer",
            fix="unlock it, tap 'Allow' where it asks 'Allow USB debugging?' (tick 'Always allow'), then try again; "
            f"the key is {self._keys()[0]}",
        )

    def _ours(self, error: Exception, doing: str) -> DeviceError:
        """Returns what an exception of somebody else's means here, and what to do about it."""
        text = printable(words_of(error))
        if isinstance(error, exceptions.DeviceAuthError):
            return self._unauthorized()
        if isinstance(error, exceptions.InvalidCommandError) and "STLS" in text:
            return DeviceUnavailableError(
                f"{self._address} wants an encrypted connection (wireless debugging with pairing), which this link "
                "does not speak",
                fix="plug it in by USB, run `adb tcpip 5555` once, and use port 5555",
            )
        if isinstance(error, _NONSENSE):
            return DeviceUnavailableError(
                f"What answers at {self._address} is no phone's ADB ({doing}: {text:.120})", fix="check host and port"
            )
        if isinstance(error, exceptions.UsbDeviceNotFoundError):
            return LinkLostError(
                f"No phone at {self._address}",
                fix="plug it in, switch on USB debugging in its developer options, and use a cable that carries data",
            )
        usb = _usb_problem(error)
        if usb:
            return usb
        return LinkLostError(f"The connection to {self._address} broke ({doing}: {text})", fix=_link_advice(error))


def _reason(error: Exception) -> str:
    given = error.args[0] if error.args else ""
    text = bytes(given).decode("utf-8", "replace") if isinstance(given, (bytes, bytearray)) else str(given)
    return printable(text.removeprefix("Command failed: "))


def _link_advice(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there: check the port, and that the phone allows debugging over the network"
    if isinstance(error, socket.gaierror):
        return "there is no such host: check its name"
    if isinstance(error, TimeoutError | exceptions.TcpTimeoutException | exceptions.AdbTimeoutError):
        return "it does not answer: check that it is on, unlocked and reachable"
    return "check cable or network; the next attempt connects anew"


def _usb_problem(error: Exception) -> DeviceError | None:
    """Returns what a USB error means, None if it is none or an ordinary loss of the link."""
    inner = getattr(error, "usb_error", error)
    name = type(inner).__name__
    if name == "USBErrorBusy":
        return DeviceUnavailableError(
            "Another program holds the phone's USB interface, most likely an adb server",
            fix="run `adb kill-server`, or quit Android Studio, and try again",
        )
    if name == "USBErrorAccess":
        return DeviceUnavailableError(
            "This user may not open the phone's USB interface",
            fix="on Linux add a udev rule (package android-sdk-platform-tools-common has them), plug the phone in "
            "again, and try again",
        )
    return None


class _Device(AdbDevice):  # type: ignore[misc]  # adb_shell ships no types
    """adb-shell's device, with standard input for commands, and ears for a refusal while a file is being sent."""

    def converse(self, service: bytes, data: bytes, timeout_s: float, sent: Callable[[], None]) -> Iterator[bytes]:
        """Opens a service of the phone, writes to it, and yields what it answers.

        Args:
            service: Its name and arguments.
            data: What is written first, in packets as large as the phone takes.
            timeout_s: How long each wait may take, in seconds.
            sent: Is called once all is written.
        """
        stream = self._open(service, timeout_s, timeout_s, None)
        for start in range(0, len(data), self._maxdata):
            part = data[start : start + self._maxdata]
            self._io_manager.send(_Message(constants.WRTE, stream.local_id, stream.remote_id, part), stream)
            command = constants.WRTE
            while command == constants.WRTE:
                command, answer = self._read_until([constants.OKAY, constants.WRTE, constants.CLSE], stream)
                yield answer
            if command == constants.CLSE:  # the phone has ended the service, and wants no more
                self._io_manager.send(AdbMessage(constants.CLSE, stream.local_id, stream.remote_id), stream)
                return
        sent()
        yield from self._read_until_close(stream)

    def _filesync_flush(self, adb_info: Any, filesync_info: Any) -> None:
        data = bytes(filesync_info.send_buffer[: filesync_info.send_idx])
        self._io_manager.send(_Message(constants.WRTE, adb_info.local_id, adb_info.remote_id, data), adb_info)
        filesync_info.send_idx = 0
        while True:
            command, answer = self._read_until([constants.OKAY, constants.WRTE, constants.CLSE], adb_info)
            if command == constants.OKAY:
                return
            if command == constants.CLSE:
                raise ConnectionResetError("the file service ended")
            # While sending, nothing but FAIL comes: [b"FAIL"][length: 4][reason].
            filesync_info.recv_buffer += answer
            received = bytes(filesync_info.recv_buffer)
            if received[:4] == b"FAIL" and len(received) >= 8:
                (length,) = struct.unpack_from("<I", received, 4)
                if len(received) >= 8 + length:
                    raise _EarlyRefusalError(received[8 : 8 + length])

    def _filesync_read(self, expected_ids: Any, adb_info: Any, filesync_info: Any) -> Any:
        try:
            return super()._filesync_read(expected_ids, adb_info, filesync_info)
        except KeyError as error:  # adb-shell looks it up in a table
            raise exceptions.InvalidResponseError(f"unknown answer {error} of the file service") from error


class _Message(AdbMessage):  # type: ignore[misc]  # adb_shell ships no types
    """A message whose checksum, the sum of its bytes, is not added up in Python: that takes longer than sending it."""

    @property
    def checksum(self) -> int:
        return int(np.frombuffer(self.data, np.uint8).sum(dtype=np.uint64)) & 0xFFFFFFFF


class _EarlyRefusalError(exceptions.AdbCommandFailureException):  # type: ignore[misc]  # adb_shell ships no types
    """The phone refused a file while it was still being sent."""


class _LimitedBytes(BytesIO):
    """A buffer that a phone cannot fill beyond what its file was said to hold."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self._max_bytes:
            raise ConnectionAbortedError(f"the phone sent more than {self._max_bytes} bytes")
        return super().write(data)


class _TcpLink(TcpTransport):  # type: ignore[misc]  # adb_shell ships no types
    """adb-shell's TCP connection, made prompt and strict.

    Attributes:
        deadline_s: `time.monotonic()` after which reading and writing fail, or None.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.deadline_s: float | None = None

    def connect(self, transport_timeout_s: float | None) -> None:
        """Connects, with small packets sent at once and a dead peer noticed."""
        super().connect(transport_timeout_s)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):  # not every system has them
                self._connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def bulk_read(self, numbytes: int, transport_timeout_s: float | None) -> bytes:
        """Returns at least one byte; a closed connection is an error."""
        self._wait(True, transport_timeout_s)
        data: bytes = self._connection.recv(numbytes)
        if not data:
            raise ConnectionResetError("the other side closed the connection")
        return data

    def bulk_write(self, data: bytes, transport_timeout_s: float | None) -> int:
        """Writes all of it."""
        rest = memoryview(data)
        while rest:
            self._wait(False, transport_timeout_s)
            rest = rest[self._connection.send(rest) :]
        return len(data)

    def _wait(self, to_read: bool, timeout_s: float | None) -> None:
        if self._connection is None:
            raise ConnectionResetError("the connection is closed")
        if self.deadline_s is not None:
            left_s = max(0.0, self.deadline_s - time.monotonic())
            timeout_s = left_s if timeout_s is None else min(timeout_s, left_s)
        wanted = [self._connection]
        ready = select.select(wanted if to_read else [], [] if to_read else wanted, [], timeout_s)
        if not any(ready):
            raise exceptions.TcpTimeoutException(f"no answer within {timeout_s:.1f} s")


def _timeouts(timeout_s: float) -> dict[str, float]:
    return {"transport_timeout_s": timeout_s, "read_timeout_s": timeout_s}


class _Signer(CryptographySigner):  # type: ignore[misc]  # adb_shell ships no types
    """adb-shell's signer, for which a token of the wrong length is an answer that makes no sense."""

    def Sign(self, data: bytes) -> bytes:  # noqa: N802 - adb-shell calls it so
        """Returns the signature of the token that a phone sends, 20 bytes."""
        try:
            signature: bytes = super().Sign(data)
        except ValueError as error:
            raise exceptions.InvalidResponseError(f"a token of {len(data)} bytes") from error
        return signature


def _signer(file: Path) -> _Signer:
    try:
        signer = _Signer(str(file))
    except (OSError, ValueError, TypeError) as error:
        raise DeviceUnavailableError(
            f"The key {file} cannot be used: {words_of(error)}",
            fix=f"delete it and {file}.pub; a new one will be made",
        ) from error
    signer.public_key = signer.public_key.strip()  # a phone keeps what it is sent, line ends included
    return signer


def usb_serials() -> list[str]:
    """Returns the serial numbers of the phones on USB.

    Raises:
        DeviceUnavailableError: If USB cannot be used, or a phone on it may not be opened.
    """
    try:
        return sorted(str(phone.serial_number) for phone in _usb().find_all_adb_devices())
    except (*_FOREIGN, *_USB_ERROR) as error:
        text = printable(words_of(error))
        raise _usb_problem(error) or DeviceUnavailableError(
            f"A phone on USB does not tell its serial number ({text})",
            fix="unlock it, plug it in again, and try again",
        ) from error


def _usb() -> Any:
    """Returns adb-shell's class for USB."""
    from adb_shell import adb_device

    if adb_device.UsbTransport is not None:
        return adb_device.UsbTransport
    way_out = "or reach the phone over the network, as adb://HOST:PORT"
    if find_spec("usb1") is None:
        raise DeviceUnavailableError(
            "USB needs the package libusb1", fix=f"install it: pip install 'nas-edge[usb]'; {way_out}"
        )
    raise DeviceUnavailableError(
        "USB needs the library libusb 1.0",
        fix=f"install it (Linux: sudo apt install libusb-1.0-0); {way_out}",
    )


def _find_usb(serial: str) -> BaseTransport:
    if not serial:
        serials = usb_serials()
        if len(serials) > 1:
            raise DeviceUnavailableError(
                "Several phones are plugged in",
                fix=f"name one: {', '.join(f'adb:{printable(s)}' for s in serials)}",
            )
    return _usb().find_adb(serial or None, None, _CONNECT_TIMEOUT_S)
