"""The links against AOSP's real daemon: over adb-shell, and over AOSP's real adb server."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from adb_shell import exceptions
from adb_shell.transport.base_transport import BaseTransport

from device_agents.android.adb_shell_transport import AdbShellTransport
from device_agents.android.address import address_problem, open_transport
from device_agents.android.keys import own_key_file, public_file
from device_agents.android.server_socket import server_socket
from device_agents.android.shell_protocol import read_shell_packets
from device_agents.android.tool import remove_parts
from device_agents.android.transport import (
    PART,
    LinkLostError,
    RemoteFileError,
    RemoteTimeoutError,
    Transport,
    UnauthorizedError,
)
from device_agents.errors import DeviceAddressError, DeviceError, DeviceUnavailableError, ProtocolError, SpecError
from tests.support.android.adb_server import AdbServer
from tests.support.android.phone import Connect, Phone, PhoneFactory
from tests.support.android.proxy import Proxy

TMP = "/data/local/tmp"


def processes(link: Transport, name: str) -> list[str]:
    return [line for line in link.run(["ps", "-A", "-o", "ARGS"]).output.splitlines() if name in line]


def leftovers(link: Transport, folder: str = TMP) -> list[str]:
    return link.run(["ls", "-A", folder]).output.split()


# Commands


@pytest.mark.parametrize("code", [0, 1, 7, 126, 255])
def test_exit_statuses_arrive(link: Transport, code: int) -> None:
    # Often: the exit status of toybox's `timeout` is wrong now and then.
    assert {link.script('exit "$1"', str(code)).exit_code for _ in range(20)} == {code}


def test_outputs_are_kept_apart_and_whole(link: Transport) -> None:
    done = link.script("printf 'a\\000b\\377\\n'; echo err >&2; printf tail")
    assert (done.stdout, done.stderr) == (b"a\0b\xff\ntail", b"err\n")
    assert done.output == "a\0b\ufffd\ntail"


def test_a_program_that_is_not_there_is_an_exit_status(link: Transport) -> None:
    done = link.run(["nosuchcmd"])
    assert done.exit_code == 127
    assert done.last_line


def test_a_signal_is_an_exit_status(link: Transport) -> None:
    assert link.script("kill -SEGV $$").exit_code == 139


@pytest.mark.parametrize("word", ["a b", "$HOME", "`id`", "'", '"; exit 3; "', "*", "-n", "ünï", "", "a\nb", "\\"])
def test_no_shell_looks_at_arguments(link: Transport, word: str) -> None:
    assert link.run(["printf", "%s", word]).stdout == word.encode()
    assert link.script('printf %s "$2"', "x", word).stdout == word.encode()


@pytest.mark.parametrize("command", [[], [""], ["echo", "a\0b"]])
def test_what_cannot_be_run_is_refused(command: list[str]) -> None:
    with pytest.raises(SpecError):
        AdbShellTransport.tcp("127.0.0.1", 1).run(command)


def test_large_outputs_arrive_whole(link: Transport) -> None:
    done = link.script("head -c 5000000 /dev/zero")
    assert len(done.stdout) == 5_000_000


def test_a_command_that_takes_too_long_is_ended_on_the_phone(link: Transport) -> None:
    with pytest.raises(RemoteTimeoutError, match=r"ended after 0\.3 s"):
        link.run(["sleep", "61.25"], timeout_s=0.3)
    assert not processes(link, "61.25")


def test_a_command_that_ignores_the_polite_request_is_ended_too(link: Transport) -> None:
    with pytest.raises(RemoteTimeoutError):
        link.script("trap '' TERM; sleep 62.25; sleep 62.25; sleep 62.25", timeout_s=0.3)
    assert not processes(link, "62.25")


def test_a_command_ends_when_its_connection_does(
    link: Transport, phone: Phone, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = connect(phone)
    opened = sockets_of(other, monkeypatch)

    def work() -> None:
        with suppress(DeviceError):
            other.run(["sleep", "63.25"], 60)

    thread = threading.Thread(target=work)
    thread.start()
    wait_until(lambda: bool(processes(link, "63.25")))
    wait_until(lambda: bool(opened()))
    opened()[0].shutdown(socket.SHUT_RDWR)
    thread.join(60)
    wait_until(lambda: not processes(link, "63.25"))


def sockets_of(link: Transport, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[socket.socket]]:
    """Where the connections will be that a link opens."""
    if isinstance(link, AdbShellTransport):
        return lambda: [socket_of(link)]
    from device_agents.android import adb_server_transport

    opened: list[socket.socket] = []
    open_ = adb_server_transport._open

    def remember(serial: str, service: str, timeout_s: float) -> socket.socket:
        connection = open_(serial, service, timeout_s)
        if "63.25" in service and "sleep" in service:
            opened.append(connection)
        return connection

    monkeypatch.setattr(adb_server_transport, "_open", remember)
    return lambda: opened


def wait_until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def socket_of(link: AdbShellTransport) -> socket.socket:
    connection: socket.socket = link._link._connection
    return connection


def test_small_packets_are_sent_at_once(phone: Phone) -> None:
    with AdbShellTransport.tcp("127.0.0.1", phone.port) as link:
        link.connect()
        assert socket_of(link).getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)  # 44 ms a command without


def test_two_links_work_side_by_side(phone: Phone, connect: Connect) -> None:
    codes: list[int] = []
    # Each ends only once it has seen the other begin; one after the other, the first would run into its time limit.
    meet = 'touch "$2-$1"; until [ -e "$2-$3" ]; do sleep 0.05; done; exit "$1"'

    def work(code: int) -> None:
        with connect(phone) as link:
            codes.append(link.script(meet, str(code), f"{TMP}/met", str(7 - code), timeout_s=60).exit_code)
            link.run(["rm", f"{TMP}/met-{7 - code}"])
            link.push(os.urandom(100_000), f"{TMP}/side-{code}")
            link.run(["rm", f"{TMP}/side-{code}"])

    threads = [threading.Thread(target=work, args=(code,)) for code in (3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [3, 4]


# Files


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 3_000_000])
def test_files_come_back_as_they_were_sent(link: Transport, size: int) -> None:
    data = os.urandom(size)
    link.push(data, f"{TMP}/new folder/file", mode=0o640)
    found = link.stat(f"{TMP}/new folder/file")
    assert found is not None
    assert (found.size_bytes, stat.S_IMODE(found.mode)) == (size, 0o640)
    assert link.pull(f"{TMP}/new folder/file") == data
    assert leftovers(link, f"{TMP}/new folder") == ["file"]
    link.run(["rm", "-r", f"{TMP}/new folder"])


def test_a_large_push_arrives(link: Transport) -> None:
    data = os.urandom(1 << 20) * 24
    link.push(data, f"{TMP}/large")
    assert link.run(["sha256sum", f"{TMP}/large"]).exit_code == 0
    link.run(["rm", f"{TMP}/large"])


@pytest.mark.parametrize("size", [10, 12_000_000])
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/readonly/file", "Read-only"),
        ("/proc/file", "folder below /data/local/tmp|folders"),
        ("/dev/null/file", "Not a directory|File exists"),
        (TMP, "Is a directory"),
    ],
)
def test_a_place_that_cannot_be_written_says_why_and_leaves_nothing(
    link: Transport, path: str, reason: str, size: int
) -> None:
    with pytest.raises(RemoteFileError, match=reason) as caught:
        link.push(bytes(size), path)
    assert caught.value.path == path
    assert not [name for name in leftovers(link, "/data/local") if "part" in name]
    assert link.alive()


def test_a_full_disk_says_so_and_leaves_nothing(new_phone: PhoneFactory, connect: Connect) -> None:
    with connect(new_phone(data_mib=4)) as link:
        with pytest.raises(RemoteFileError, match=r"No space left.*; free some storage"):
            link.push(bytes(12_000_000), f"{TMP}/large")
        assert leftovers(link) == []
        link.push(b"small", f"{TMP}/small")
        assert link.pull(f"{TMP}/small") == b"small"


def test_a_missing_file_is_no_stat_and_an_error_to_pull(link: Transport) -> None:
    assert link.stat(f"{TMP}/none") is None
    with pytest.raises(RemoteFileError, match="no file"):
        link.pull(f"{TMP}/none")
    with pytest.raises(RemoteFileError, match="too large"):
        link.pull("/system/bin/getprop", max_bytes=3)
    assert link.alive()


@pytest.mark.parametrize("path", ["file", "/a/../b", "/a/", "/a\nb", "/" + "x" * 1000, ""])
def test_strange_paths_are_refused(link: Transport, path: str) -> None:
    with pytest.raises(SpecError):
        link.push(b"", path)


def test_paths_with_commas_and_spaces_work(link: Transport) -> None:
    path = f"{TMP}/a, b'c\",0777"
    link.push(b"x", path)
    assert link.pull(path) == b"x"
    link.run(["rm", path])


def test_a_file_that_arrives_damaged_is_noticed(link: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    send = link._send
    monkeypatch.setattr(link, "_send", lambda data, path: send(data[:-1] + b"?", path))
    with pytest.raises(RemoteFileError, match="SHA-256"):
        link.push(b"0123", f"{TMP}/damaged")
    assert not [name for name in leftovers(link) if "damaged" in name]


# Links


def test_a_refused_port_says_what_to_check() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    link = AdbShellTransport.tcp("127.0.0.1", port)
    with pytest.raises(LinkLostError, match="; nothing listens there"):
        link.connect()
    assert not link.alive()
    link.close()


def test_an_unknown_host_says_so() -> None:
    with pytest.raises(LinkLostError, match=r"no such host|does not answer"):
        AdbShellTransport.tcp("no-such-host.invalid").connect()


@contextmanager
def peer(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A program that listens and is no phone."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            try:
                connection, _ = listener.accept()
                with connection:
                    answer(connection)
            except OSError:
                pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(60)


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", DeviceUnavailableError, "no phone's ADB"),
        (b"STLS\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0\xac\xab\xb3\xb3", DeviceUnavailableError, "adb tcpip 5555"),
        (b"\0" * 24, DeviceUnavailableError, "no phone's ADB"),
        # A token to sign that is too short.
        (b"AUTH\1\0\0\0\0\0\0\0\1\0\0\0\7\0\0\0\xbe\xaa\xab\xb7\7", DeviceUnavailableError, "a token of 1 bytes"),
        (b"CNXN", LinkLostError, "connects anew"),
        (b"", LinkLostError, "broke"),
    ],
)
def test_a_peer_that_is_no_phone_is_told_apart(answer: bytes, error: type[DeviceError], text: str) -> None:
    def reply(connection: socket.socket) -> None:
        connection.recv(24)
        connection.sendall(answer)

    with peer(reply) as port, pytest.raises(error, match=text):
        AdbShellTransport.tcp("127.0.0.1", port).connect()


def test_a_mistake_of_our_own_is_not_blamed_on_the_phone() -> None:
    def open_link() -> BaseTransport:
        raise ValueError("a mistake")

    with pytest.raises(ValueError, match="a mistake"):
        AdbShellTransport("adb:X", open_link).connect()


@pytest.mark.parametrize("rest", ["//..", "//h:port", "//h:0", "//[::1", "//" + "a" * 64])
def test_an_address_that_no_host_can_have_is_refused_in_our_words(rest: str) -> None:
    assert re.fullmatch(r"no host can have that name|the port must be a number from 1 to 65535", address_problem(rest))


def test_a_killed_daemon_is_noticed_at_once_and_its_successor_used(new_phone: PhoneFactory, connect: Connect) -> None:
    phone = new_phone()
    with connect(phone) as link:
        assert link.alive()
        timer = threading.Timer(0.5, phone.order, ["kill"])
        timer.start()
        with pytest.raises(LinkLostError):
            link.run(["sleep", "600"], timeout_s=600)  # longer than a test may take
        timer.join()
        assert not link.alive()
        phone.order("start")
        wait_until(lambda: not processes(link, "sleep 600"))
        assert link.run(["echo", "again"]).output == "again\n"


def test_a_cut_connection_is_made_again(new_phone: PhoneFactory, connect: Connect) -> None:
    phone = new_phone()
    with connect(phone) as link:
        link.run(["true"])
        phone.order("cut")
        if isinstance(link, AdbShellTransport):
            with pytest.raises(LinkLostError, match="next attempt connects anew"):
                link.run(["true"])
        else:
            wait_until(link.alive)  # a server connects again by itself
        assert link.run(["true"]).exit_code == 0


def test_a_silent_phone_is_given_up_in_time(new_phone: PhoneFactory, connect: Connect) -> None:
    phone = new_phone()
    with connect(phone) as link:
        link.run(["true"])
        phone.order("stall")
        with pytest.raises(LinkLostError, match="does not answer"):
            link.run(["true"], timeout_s=0.5)
        phone.order("flow")
        assert link.alive()


def push_in_vain(link: Transport, phone: Phone, path: str, order: str) -> None:
    """Pushes a large file to a phone that gets the order while it is being sent."""

    begun = 'until ls "$1"* >/dev/null 2>&1; do sleep 0.01; done'

    def interrupt() -> None:
        with AdbShellTransport.tcp("127.0.0.1", phone.port) as watching:
            watching.script(begun, f"{path}{PART}", timeout_s=60)
        for step in ("stall", order, "flow"):  # it cannot arrive before the order does
            phone.order(step)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(LinkLostError):
        link.push(bytes(150_000_000), path)
    thread.join(60)


def test_a_push_that_is_cut_leaves_the_old_file(new_phone: PhoneFactory, connect: Connect) -> None:
    phone = new_phone()
    with connect(phone) as link:
        link.push(b"old", f"{TMP}/file")
        push_in_vain(link, phone, f"{TMP}/file", "cut")
        wait_until(link.alive)
        assert link.pull(f"{TMP}/file") == b"old"


def test_a_reboot_during_a_push_leaves_nothing_in_the_end(new_phone: PhoneFactory, connect: Connect) -> None:
    phone = new_phone()
    folder = f"{TMP}/nas_edge/tools/abc"
    with connect(phone) as link:
        assert link.alive()
        push_in_vain(link, phone, f"{folder}/benchmark_model", "kill")
        phone.order("start")
        wait_until(link.alive)
        (part,) = leftovers(link, folder)
        assert "part" in part
        remove_parts(link, f"{TMP}/nas_edge/tools")
        assert leftovers(link, folder) == []
        link.push(b"whole", f"{folder}/benchmark_model")
        assert link.pull(f"{folder}/benchmark_model") == b"whole"


# The adb server


def test_without_an_adb_server_the_way_out_is_named() -> None:
    from device_agents.android.adb_server_transport import AdbServerTransport

    link = AdbServerTransport("ABC")  # the tests' own settings name a port where nothing listens
    with pytest.raises(LinkLostError, match=r"no adb server answers.*adb start-server.*adb-usb:"):
        link.run(["true"])
    assert not link.alive()


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", DeviceUnavailableError, "no adb server"),
        (b"OKAYzz", DeviceError, "adb"),
        (
            b"FAIL0015device offline (test)",
            LinkLostError,
            r"device offline \(test\)\); unlock it",
        ),
        (b"FAIL0016device 'X' not found  ", LinkLostError, "nas-edge devices"),
        (b"FAIL003ano permissions (user in plugdev group); see [http://x.invalid]", DeviceUnavailableError, "udev"),
        (b"FAIL0013device unauthorized", UnauthorizedError, "Allow"),
        (b"", LinkLostError, "lost its connection"),
    ],
)
def test_what_the_adb_server_says_is_told_apart(
    answer: bytes, error: type[DeviceError], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from device_agents.android.adb_server_transport import AdbServerTransport

    def reply(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(answer)

    with peer(reply) as port:
        monkeypatch.setenv("ADB_SERVER_SOCKET", f"tcp:127.0.0.1:{port}")
        with pytest.raises(error, match=text):
            AdbServerTransport("X").run(["true"])


def test_the_only_phone_is_taken_and_several_are_listed(
    new_phone: PhoneFactory, home: Path, phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = AdbServer(home)
    monkeypatch.setenv("ADB_SERVER_SOCKET", server.socket)
    try:
        with pytest.raises(LinkLostError, match=r"knows of no phone.*adb pair"):
            open_transport("adb:").run(["true"])
        first = server.connect(phone)
        assert open_transport("adb:").run(["echo", "hi"]).output == "hi\n"
        second = server.connect(new_phone())
        with pytest.raises(DeviceUnavailableError, match=rf"several.*adb:{first} \(device\)|adb:{second} \(device\)"):
            open_transport("adb:").run(["true"])
        assert open_transport(f"adb:{second}").run(["echo", "hi"]).output == "hi\n"
    finally:
        server.close()


def test_who_is_asked_follows_from_whether_a_server_runs(
    adb_server: AdbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from device_agents.android.adb_server_transport import AdbServerTransport

    assert isinstance(open_transport("adb:X"), AdbShellTransport)
    assert isinstance(open_transport("adb-server:X"), AdbServerTransport)
    monkeypatch.setenv("ADB_SERVER_SOCKET", adb_server.socket)
    assert isinstance(open_transport("adb:X"), AdbServerTransport)
    assert isinstance(open_transport("adb-usb:X"), AdbShellTransport)
    assert isinstance(open_transport("adb://127.0.0.1:1"), AdbShellTransport)


def test_without_adbutils_both_ways_out_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "adbutils", None)
    monkeypatch.delitem(sys.modules, "device_agents.android.adb_server_transport", raising=False)
    monkeypatch.delattr("device_agents.android.adb_server_transport", raising=False)
    with pytest.raises(DeviceUnavailableError, match=r"nas-edge\[adb-server\].*adb kill-server"):
        open_transport("adb-server:")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ("127.0.0.1", 5037)),
        ({"ANDROID_ADB_SERVER_PORT": "6000"}, ("127.0.0.1", 6000)),
        ({"ANDROID_ADB_SERVER_ADDRESS": "bench", "ANDROID_ADB_SERVER_PORT": "6000"}, ("bench", 6000)),
        ({"ADB_SERVER_SOCKET": "tcp:6001", "ANDROID_ADB_SERVER_PORT": "6000"}, ("127.0.0.1", 6001)),
        ({"ADB_SERVER_SOCKET": "tcp:bench:6001"}, ("bench", 6001)),
    ],
)
def test_the_server_is_where_adb_itself_would_look(
    variables: dict[str, str], expected: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ADB_SERVER_SOCKET")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert server_socket() == expected


@pytest.mark.parametrize("value", ["localfilesystem:/x", "tcp:", "6000", "tcp:a b:1"])
def test_a_server_socket_of_another_form_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADB_SERVER_SOCKET", value)
    with pytest.raises(DeviceAddressError, match="ADB_SERVER_SOCKET"):
        open_transport("adb:")


# Keys


def test_the_key_is_private_and_made_once(home: Path) -> None:
    key = own_key_file()
    assert home in key.parents
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert public_file(key).read_text().endswith("\n")
    before = key.read_bytes()
    assert own_key_file().read_bytes() == before
    # The others are of the tests before this one, see `claim`.
    assert {file.name for file in key.parent.iterdir()} - {"computer_id", "phones"} == {"adbkey", "adbkey.pub"}


def test_a_damaged_key_says_what_to_delete() -> None:
    key = own_key_file()
    kept = key.read_bytes()
    key.write_text("nonsense")
    try:
        with pytest.raises(DeviceUnavailableError, match="; delete it"):
            AdbShellTransport.tcp("127.0.0.1", 1).connect()
    finally:
        key.write_bytes(kept)


def test_a_phone_that_asks_for_a_key_accepts_ours_once_it_knows_it(new_phone: PhoneFactory) -> None:
    phone = new_phone(auth=True)
    with AdbShellTransport.tcp("127.0.0.1", phone.port, prompt_timeout_s=1.0) as link:
        with pytest.raises(UnauthorizedError, match="Allow USB debugging") as caught:
            link.connect()
        assert str(own_key_file()) in str(caught.value)
        accept(phone)
        assert link.run(["echo", "hello"]).output == "hello\n"


def test_a_key_that_is_revoked_is_asked_for_again(new_phone: PhoneFactory) -> None:
    phone = new_phone(auth=True)
    accept(phone)
    with AdbShellTransport.tcp("127.0.0.1", phone.port, prompt_timeout_s=1.0) as link:
        assert link.alive()
        phone.order("revoke")
        phone.order("cut")
        with pytest.raises(LinkLostError):
            link.run(["true"])
        with pytest.raises(UnauthorizedError, match="Allow USB debugging"):
            link.run(["true"])
        assert not link.alive()
        accept(phone)
        assert link.alive()


def accept(phone: Phone) -> None:
    """What tapping "Allow" does."""
    phone.order(f"allow {public_file(own_key_file())}")


def test_a_phone_that_does_not_know_the_adb_server_says_so(
    new_phone: PhoneFactory, adb_server: AdbServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from device_agents.android.adb_server_transport import AdbServerTransport, server_phones

    monkeypatch.setenv("ADB_SERVER_SOCKET", adb_server.socket)
    phone = new_phone(auth=True)
    serial = adb_server.connect(phone)
    link = AdbServerTransport(serial)
    with pytest.raises(UnauthorizedError, match=r"Allow USB debugging.*~/\.android/adbkey"):
        link.run(["true"])
    assert {found.state for found in server_phones() if found.serial == serial} <= {"unauthorized", "authorizing"}
    phone.order(f"allow {home / '.android/adbkey.pub'}")
    adb_server.disconnect(serial)
    assert adb_server.connect(phone) == serial
    wait_until(link.alive)


# USB: there is none here, but its absence is ours to explain.


def test_without_usb_the_way_out_is_named() -> None:
    with pytest.raises(DeviceUnavailableError, match=r"nas-edge\[usb\]|No phone at"):
        AdbShellTransport.usb().connect()


@pytest.mark.parametrize(
    ("name", "text"), [("USBErrorBusy", "kill-server"), ("USBErrorAccess", "udev"), ("X", "cable")]
)
def test_what_keeps_usb_from_working_is_told_apart(name: str, text: str) -> None:
    def open_link() -> BaseTransport:
        cause = type(name, (Exception,), {})()  # libusb1's exceptions are told apart by name: it may be missing
        raise exceptions.UsbReadFailedError("it failed", cause)

    with pytest.raises(DeviceUnavailableError, match=text):
        AdbShellTransport("adb:X", open_link).connect()


# Packets


def test_shell_packets_cut_at_every_byte_are_a_lost_link() -> None:
    whole = b"\x01\x03\0\0\0hi\n\x02\x02\0\0\0e\n\x03\x01\0\0\0\x07"
    assert read_shell_packets(whole, "x").exit_code == 7
    for end in range(len(whole)):
        with pytest.raises(LinkLostError):
            read_shell_packets(whole[:end], "x")


@pytest.mark.parametrize("data", [b"\x09\0\0\0\0", b"\x03\x02\0\0\0\0\0", b"\x03\0\0\0\0"])
def test_malformed_shell_packets_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_shell_packets(data, "x")


def test_a_file_that_comes_with_a_command_is_there_when_it_runs(link: Transport) -> None:
    data = bytes(range(256)) * 8192  # more than one packet
    done = link.script('sha256sum < "$1"; rm "$1"', f"{TMP}/with", file=(data, f"{TMP}/with"))
    assert done.output.split()[0] == hashlib.sha256(data).hexdigest()
    assert link.script('wc -c < "$1"; rm "$1"', f"{TMP}/none", file=(b"", f"{TMP}/none")).output.strip() == "0"


@pytest.mark.parametrize("size", [10, 3 << 20])
def test_a_file_that_the_phone_refuses_stops_its_command(link: Transport, size: int) -> None:
    with pytest.raises(RemoteFileError, match="cannot be written"):
        link.script("echo ran > /data/local/tmp/ran", file=(bytes(size), "/readonly/file"))
    assert link.stat("/data/local/tmp/ran") is None
    assert link.alive()


def test_a_link_that_is_cut_while_a_file_comes_with_a_command_is_lost(new_phone: PhoneFactory) -> None:
    phone = new_phone()
    with Proxy(phone.port) as proxy, AdbShellTransport.tcp("127.0.0.1", proxy.port) as link:
        assert link.alive()
        proxy.cut_after(100_000)
        with pytest.raises(LinkLostError):
            link.script("echo ran > /data/local/tmp/ran", file=(bytes(500_000), "/data/local/tmp/file"))
        assert link.alive()
