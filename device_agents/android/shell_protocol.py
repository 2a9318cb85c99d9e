"""Commands on a phone with their exit status: the shell protocol's second version, spoken over any link.

    wrapped(command) --service shell,v2,raw:--> packets --completed--> Completed
    a file           --its standard input-----'

Format: packages/modules/adb/shell_protocol.h of AOSP.
"""

from __future__ import annotations

import re
import shlex
import struct

from device_agents.android.transport import Completed, LinkLostError, RefusedError, RemoteTimeoutError
from device_agents.errors import ProtocolError

SERVICE = "shell,v2,raw"
# The phone ends a command itself; this is how much later we stop listening.
GRACE_S = 3.0
# Runs what it is given on the phone, and reports how that ended in the last line of standard error: the exit status
# of `timeout` itself is not to be relied on (toybox 0.8.9, which phones have, answers 127 for quick commands now and
# then). `timeout` ends what takes too long, even if we cannot, but not what outlives its connection. So `read` waits
# for the end of standard input, which comes with that of the connection or the daemon, and then the process group that
# `timeout` has made is ended.
_MARKER = b"nas_edge exit status: "
_RUN = shlex.quote(
    '"$@" </dev/null 3<&- & p=$!; (read -r _ <&3; kill -9 -$$ || kill -9 $p $$) >/dev/null 2>&1 & w=$!; '
    f'wait $p; s=$?; kill -9 $w; echo "{_MARKER.decode()}$s" >&2'
)
_REFUSED = b"nas_edge file refused\n"
# $1 bytes that come on standard input, $2 the file they are for; then a wrapped command. The file is received before
# `timeout` starts counting, and before anything else reads standard input.
_RECEIVE = shlex.quote(
    f'head -c "$1" > "$2" || {{ rm -f "$2"; echo "{_REFUSED.decode().strip()}" >&2; exit 1; }}; shift 2; exec "$@" 3<&0'
)
_STDIN, _STDOUT, _STDERR, _EXIT = 0, 1, 2, 3


def wrapped(command_line: str, timeout_s: float, file: tuple[bytes, str] | None = None) -> str:
    """Returns a quoted command line made to end on the phone in time, and to tell how it ended.

    Args:
        command_line: What runs there.
        timeout_s: How long it may, in seconds.
        file: Bytes that are sent as `stdin_packet` and the file they go to before the command runs.
    """
    ends = f"timeout -s KILL {timeout_s:.3f} sh -c {_RUN} sh {command_line}"
    return f"{ends} 3<&0" if file is None else f"sh -c {_RECEIVE} sh {len(file[0])} {shlex.quote(file[1])} {ends}"


def stdin_packet(data: bytes) -> bytes:
    """Returns what a command reads from standard input, as a packet."""
    return struct.pack("<BI", _STDIN, len(data)) + data


def completed(answer: bytes, address: str, timeout_s: float, took_s: float) -> Completed:
    """Reads what the phone sent for a command that was `wrapped`.

    Args:
        answer: All of it.
        address: The phone, for messages.
        timeout_s: What the command was given, in seconds.
        took_s: What it took, in seconds, with the time in which a file was sent.

    Raises:
        RemoteTimeoutError: If it was ended for taking too long.
        LinkLostError: If it ended without an exit status.
        ProtocolError: If the answer is malformed.
        RefusedError: If the file that came with it could not be written.
    """
    done = read_shell_packets(answer, address)
    if done.stderr.endswith(_REFUSED):
        raise RefusedError(Completed(1, b"", done.stderr.removesuffix(_REFUSED)).last_line)
    errors, marker, status = done.stderr.rpartition(_MARKER)
    if marker and re.fullmatch(rb"\d{1,3}\n", status) and int(status) < 256:
        return Completed(int(status), done.stdout, errors)
    if took_s >= timeout_s:
        raise RemoteTimeoutError(f"A command on {address} was ended after {timeout_s:g} s")
    raise LinkLostError(
        f"A command on {address} ended without an exit status ({done.last_line})",
        fix="the phone may be short of memory, or older than Android 8: it needs sh and timeout",
    )


def read_shell_packets(data: bytes, address: str) -> Completed:
    """Reads packets of [id: 1][length: 4, little endian][data].

    Raises:
        LinkLostError: If they end before the exit status.
        ProtocolError: If they are malformed.
    """
    outputs = {_STDOUT: bytearray(), _STDERR: bytearray()}
    position = 0
    while position + 5 <= len(data):
        kind, length = struct.unpack_from("<BI", data, position)
        content = data[position + 5 : position + 5 + length]
        position += 5 + length
        if position > len(data):
            break
        if kind == _EXIT:
            if len(content) != 1:
                raise ProtocolError("An exit status has one byte", received=f"{len(content)} from {address}")
            return Completed(content[0], bytes(outputs[_STDOUT]), bytes(outputs[_STDERR]))
        if kind not in outputs:
            raise ProtocolError("Unknown packet of the shell", expected="1, 2 or 3", received=f"{kind} from {address}")
        outputs[kind] += content
    raise LinkLostError(f"The shell of {address} ended without an exit status", fix="check that it is still connected")
