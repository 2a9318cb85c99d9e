"""The link against AOSP's real daemon."""

from __future__ import annotations

import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from device_agents.android.adb_shell_transport import AdbShellTransport, read_shell_packets
from device_agents.android.keys import own_key_file, public_file
from device_agents.android.transport import (
    LinkLostError,
    RemoteFileError,
    RemoteTimeoutError,
    Transport,
    UnauthorizedError,
)
from device_agents.errors import DeviceError, DeviceUnavailableError, ProtocolError, SpecError
from tests.device_agents.android.conftest import PhoneFactory
from tests.device_agents.android.phone import Phone

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
    started_s = time.monotonic()
    with pytest.raises(RemoteTimeoutError, match=r"ended after 0\.3 s"):
        link.run(["sleep", "61.25"], timeout_s=0.3)
    assert time.monotonic() - started_s < 3
    assert not processes(link, "61.25")


def test_a_command_that_ignores_the_polite_request_is_ended_too(link: Transport) -> None:
    with pytest.raises(RemoteTimeoutError):
        link.script("trap '' TERM; sleep 62.25; sleep 62.25; sleep 62.25", timeout_s=0.3)
    assert not processes(link, "62.25")


def test_a_command_ends_when_its_connection_does(link: Transport, phone: Phone) -> None:
    other = AdbShellTransport.tcp("127.0.0.1", phone.port)

    def work() -> None:
        with suppress(DeviceError):
            other.run(["sleep", "63.25"], 60)

    thread = threading.Thread(target=work)
    thread.start()
    while not processes(link, "63.25"):
        time.sleep(0.02)
    socket_of(other).shutdown(socket.SHUT_RDWR)
    thread.join(10)
    wait_until(lambda: not processes(link, "63.25"))
    other.close()


def wait_until(condition: Callable[[], bool], timeout_s: float = 3.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def socket_of(link: AdbShellTransport) -> socket.socket:
    connection: socket.socket = link._link._connection
    return connection


def test_a_command_takes_milliseconds(link: Transport) -> None:
    link.run(["true"])
    times_s = []
    for _ in range(20):
        started_s = time.perf_counter()
        link.run(["true"])
        times_s.append(time.perf_counter() - started_s)
    # 44 ms is what it takes without TCP_NODELAY.
    assert sorted(times_s)[10] < 0.03


def test_two_links_work_side_by_side(phone: Phone) -> None:
    started_s = time.monotonic()
    codes: list[int] = []

    def work(code: int) -> None:
        with AdbShellTransport.tcp("127.0.0.1", phone.port) as link:
            codes.append(link.script('sleep 0.5; exit "$1"', str(code)).exit_code)
            link.push(os.urandom(100_000), f"{TMP}/side-{code}")
            link.run(["rm", f"{TMP}/side-{code}"])

    threads = [threading.Thread(target=work, args=(code,)) for code in (3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [3, 4]
    assert time.monotonic() - started_s < 4


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
    started_s = time.monotonic()
    with pytest.raises(RemoteFileError, match=reason) as caught:
        link.push(bytes(size), path)
    assert caught.value.path == path
    assert time.monotonic() - started_s < 5
    assert not [name for name in leftovers(link, "/data/local") if "part" in name]
    assert link.alive()


def test_a_full_disk_says_so_and_leaves_nothing(new_phone: PhoneFactory) -> None:
    with AdbShellTransport.tcp("127.0.0.1", new_phone(data_mib=4).port) as link:
        with pytest.raises(RemoteFileError, match=r"No space left.*Free some storage"):
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


def test_a_file_that_arrives_damaged_is_noticed(link: AdbShellTransport, monkeypatch: pytest.MonkeyPatch) -> None:
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
    with pytest.raises(LinkLostError, match="Nothing listens there"):
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
        thread.join(10)


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", DeviceUnavailableError, "no phone's ADB"),
        (b"STLS\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0\xac\xab\xb3\xb3", DeviceUnavailableError, "adb tcpip 5555"),
        (b"\0" * 24, DeviceUnavailableError, "no phone's ADB"),
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


def test_a_killed_daemon_is_noticed_at_once_and_its_successor_used(new_phone: PhoneFactory) -> None:
    phone = new_phone()
    with AdbShellTransport.tcp("127.0.0.1", phone.port) as link:
        assert link.alive()
        timer = threading.Timer(0.5, phone.order, ["kill"])
        timer.start()
        started_s = time.monotonic()
        with pytest.raises(LinkLostError):
            link.run(["sleep", "20"], timeout_s=30)
        assert time.monotonic() - started_s < 3
        timer.join()
        assert not link.alive()
        phone.order("start")
        wait_until(lambda: not processes(link, "sleep 20"))
        assert link.run(["echo", "again"]).output == "again\n"


def test_a_cut_connection_is_made_again(new_phone: PhoneFactory) -> None:
    phone = new_phone()
    with AdbShellTransport.tcp("127.0.0.1", phone.port) as link:
        link.run(["true"])
        phone.order("cut")
        with pytest.raises(LinkLostError, match="next attempt connects anew"):
            link.run(["true"])
        assert link.run(["true"]).exit_code == 0


def test_a_silent_phone_is_given_up_in_time(new_phone: PhoneFactory) -> None:
    phone = new_phone()
    with AdbShellTransport.tcp("127.0.0.1", phone.port) as link:
        link.run(["true"])
        phone.order("stall")
        started_s = time.monotonic()
        with pytest.raises(LinkLostError, match="does not answer"):
            link.run(["true"], timeout_s=0.5)
        assert time.monotonic() - started_s < 5
        phone.order("flow")
        assert link.alive()


def test_a_push_that_is_cut_leaves_the_old_file(new_phone: PhoneFactory) -> None:
    phone = new_phone()
    with AdbShellTransport.tcp("127.0.0.1", phone.port) as link:
        link.push(b"old", f"{TMP}/file")
        timer = threading.Timer(0.1, phone.order, ["cut"])
        timer.start()
        with pytest.raises(LinkLostError):
            link.push(bytes(60_000_000), f"{TMP}/other")
        timer.join()
        assert link.pull(f"{TMP}/file") == b"old"


# Keys


def test_the_key_is_private_and_made_once(home: Path) -> None:
    key = own_key_file()
    assert home in key.parents
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert public_file(key).read_text().endswith("\n")
    before = key.read_bytes()
    assert own_key_file().read_bytes() == before
    assert {file.name for file in key.parent.iterdir()} == {"adbkey", "adbkey.pub"}


def test_a_damaged_key_says_what_to_delete() -> None:
    key = own_key_file()
    kept = key.read_bytes()
    key.write_text("nonsense")
    try:
        with pytest.raises(DeviceUnavailableError, match="Delete it"):
            AdbShellTransport.tcp("127.0.0.1", 1).connect()
    finally:
        key.write_bytes(kept)


def test_a_phone_that_asks_for_a_key_accepts_ours_once_it_knows_it(
    new_phone: PhoneFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device_agents.android.adb_shell_transport._PROMPT_TIMEOUT_S", 1.0)
    phone = new_phone(auth=True)
    with AdbShellTransport.tcp("127.0.0.1", phone.port) as link:
        with pytest.raises(UnauthorizedError, match="Allow USB debugging") as caught:
            link.connect()
        assert str(own_key_file()) in str(caught.value)
        accept(phone)
        assert link.run(["echo", "hello"]).output == "hello\n"


def accept(phone: Phone) -> None:
    """What tapping "Allow" does."""
    phone.order(f"allow {public_file(own_key_file())}")


# USB: there is none here, but its absence is ours to explain.


def test_without_usb_the_way_out_is_named() -> None:
    with pytest.raises(DeviceUnavailableError, match=r"nas-edge\[usb\]|No phone at"):
        AdbShellTransport.usb().connect()


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
