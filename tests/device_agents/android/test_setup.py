"""`nas-edge devices`, `devices setup` and `devices doctor` against the real daemon, with the real tool."""

from __future__ import annotations

import datetime
import hashlib
import http.server
import json
import ssl
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from adb_shell import exceptions
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from device_agents.android.adb_shell_transport import AdbShellTransport
from device_agents.android.listing import list_phones
from device_agents.android.setup import set_up
from device_agents.android.tool import TOOLS, elf_problem, find_tool, install_tool, keep, kept_file
from device_agents.api import PRESETS
from device_agents.checks import Check
from device_agents.devices import open_device
from device_agents.doctor import examine
from device_agents.errors import BenchFailedError, DeviceUnavailableError, SpecError
from device_agents.probe_models import compute_model
from nas_edge.cli import nas_edge
from tests.support.android.adb_server import AdbServer
from tests.support.android.phone import Phone, PhoneFactory, start, write_overlay
from tests.support.android.phones import OLD, SAMSUNG, SILENT
from tests.support.android.tools import canned_script, write_tool

# ELF headers: class, byte order, version, padding; type, machine.
ARM64 = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00\xb7\x00"
X86_64 = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\x3e\x00"


def link_to(phone: Phone) -> AdbShellTransport:
    return AdbShellTransport.tcp("127.0.0.1", phone.port)


# Setting up


def test_the_tool_is_installed_tried_and_kept(ready_phone: Phone, tool_file: Path, settings: Path) -> None:
    data = tool_file.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    with link_to(ready_phone) as link:
        done = set_up(link, str(tool_file), digest.upper())
        assert done.tool.sha256 == digest
        assert "graph" in done.tool.flags
        assert done.latency_ms > 0
        assert link.run(["sha256sum", done.tool.path]).output.split()[0] == digest
        assert link.run(["ls", "/data/local/tmp/nas_edge"]).output.split() == ["tools"]
        # Later runs need no file, and neither does another set-up.
        assert find_tool(done.identity.abi) == done.kept == kept_file(done.identity.abi)
        assert install_tool(link, done.identity.abi).path == done.tool.path
        assert set_up(link).source == str(done.kept)
    record = json.loads((settings / f"benchmark_model-{done.identity.abi}.json").read_text())
    assert (record["sha256"], record["size_bytes"], record["source"]) == (digest, len(data), str(tool_file))
    assert record["checked_on"] == "Google Pixel 6 Pro, Android 14"
    assert {stat.S_IMODE(file.stat().st_mode) for file in settings.glob("benchmark_model*")} == {0o600}


def test_a_kept_tool_that_was_changed_is_not_used(phone: Phone, settings: Path) -> None:
    kept = keep(b"one", "arm64-v8a", "a file", "a phone")
    kept.write_bytes(b"other")
    with (
        link_to(phone) as link,
        pytest.raises(DeviceUnavailableError, match=r"not what was set up.*; install it again"),
    ):
        install_tool(link, "arm64-v8a")
    kept.with_name(f"{kept.name}.json").write_text("{")
    with link_to(phone) as link, pytest.raises(DeviceUnavailableError, match=r"damaged.*devices setup"):
        install_tool(link, "arm64-v8a")


def advised(error: DeviceUnavailableError, tool: Path) -> list[str]:
    """The command that an error advises, with this file for FILE."""
    return str(error).partition("nas-edge ")[2].replace("FILE", str(tool)).split()


@pytest.mark.parametrize("record", [None, "{"], ids=["the tool was changed", "its record is damaged"])
def test_what_is_advised_about_a_kept_tool_that_was_changed_helps(
    ready_phone: Phone, tool_file: Path, settings: Path, record: str | None
) -> None:
    with link_to(ready_phone) as link:
        done = set_up(link, str(tool_file))
        assert done.kept is not None
        if record is None:
            done.kept.write_bytes(done.kept.read_bytes() + b"more")
        else:
            done.kept.with_name(f"{done.kept.name}.json").write_text(record)
        with pytest.raises(DeviceUnavailableError) as caught:
            install_tool(link, done.identity.abi)
    run = CliRunner().invoke(nas_edge, advised(caught.value, tool_file))
    assert run.exit_code == 0, run.output
    with link_to(ready_phone) as link:
        assert install_tool(link, done.identity.abi).sha256 == done.tool.sha256


def test_what_is_advised_where_the_environment_names_a_tool_that_does_not_work_helps(
    ready_phone: Phone, tool_file: Path, settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = write_tool(tmp_path, canned_script("ERROR: nothing works", exit_code=3))
    monkeypatch.setenv("NAS_EDGE_BENCHMARK_MODEL", str(broken))
    with open_device(ready_phone.address) as agent, pytest.raises(BenchFailedError) as caught:
        agent.measure(compute_model(), PRESETS["search"])
    assert "; use another build: name it in NAS_EDGE_BENCHMARK_MODEL; or unset that and: " in str(caught.value)
    with link_to(ready_phone) as link:
        link.run(["rm", "-rf", f"{TOOLS}/{hashlib.sha256(broken.read_bytes()).hexdigest()[:16]}"])
    monkeypatch.delenv("NAS_EDGE_BENCHMARK_MODEL")
    run = CliRunner().invoke(nas_edge, advised(caught.value, tool_file))
    assert run.exit_code == 0, run.output
    with open_device(ready_phone.address) as agent:
        assert agent.measure(compute_model(), PRESETS["search"]).samples_ms
    monkeypatch.setenv("NAS_EDGE_BENCHMARK_MODEL", str(tmp_path / "nowhere"))
    with open_device(ready_phone.address) as agent, pytest.raises(DeviceUnavailableError) as caught:
        agent.info()
    assert caught.value.what == f"the benchmark_model {tmp_path / 'nowhere'} cannot be read: No such file or directory"
    assert "name it in NAS_EDGE_BENCHMARK_MODEL" in str(caught.value.fix)


@pytest.mark.parametrize("abi", ["../../evil", "", "a/b", "x" * 40, ".."])
def test_what_a_phone_calls_its_abi_leads_nowhere_else(abi: str, settings: Path) -> None:
    assert find_tool(abi) is None
    with pytest.raises(DeviceUnavailableError, match="instruction set"):
        keep(b"", abi, "a file", "a phone")
    assert not settings.exists()


def test_without_a_tool_it_says_where_it_comes_from(phone: Phone, settings: Path) -> None:
    with link_to(phone) as link, pytest.raises(DeviceUnavailableError, match=r"arm64-v8a.*android_aarch64.*setup"):
        set_up(link)


@pytest.mark.parametrize(
    ("data", "abi", "problem"),
    [
        (ARM64, "arm64-v8a", ""),
        (X86_64, "x86_64", ""),
        (ARM64, "unheard-of", ""),
        (ARM64, "armeabi-v7a", "it is for arm64-v8a"),
        (X86_64, "arm64-v8a", "it is for x86_64"),
        (b"PK\x03\x04" + bytes(30), "arm64-v8a", "expected an ELF file"),
        (b"<html>", "arm64-v8a", "expected an ELF file"),
        (b"", "arm64-v8a", "expected an ELF file"),
        (ARM64[:16] + b"\x01\x00\xb7\x00", "arm64-v8a", "another kind"),
    ],
)
def test_programs_for_other_processors_are_told_apart(data: bytes, abi: str, problem: str) -> None:
    assert problem in elf_problem(data, abi)
    assert bool(problem) == bool(elf_problem(data, abi))


def test_what_is_no_tool_for_the_phone_is_not_kept(ready_phone: Phone, settings: Path, tmp_path: Path) -> None:
    file = tmp_path / "benchmark_model"
    with link_to(ready_phone) as link:
        file.write_bytes(b"#!/system/bin/sh\n")
        with pytest.raises(DeviceUnavailableError, match="expected an ELF file"):
            set_up(link, str(file))
        file.write_bytes(X86_64 + bytes(100))
        with pytest.raises(DeviceUnavailableError, match=r"(not a|no) benchmark_model for this phone"):
            set_up(link, str(file))
        with pytest.raises(SpecError, match="64 hexadecimal"):
            set_up(link, str(file), "abc")
        with pytest.raises(DeviceUnavailableError, match="expected SHA-256 0000"):
            set_up(link, str(file), "0" * 64)
        with pytest.raises(SpecError, match="cannot be read"):
            set_up(link, str(tmp_path / "none"))
        assert not link.run(["sh", "-c", "ls -d /data/local/tmp/nas_edge/tools/*/*part*"]).output
        kept = set(link.run(["ls", "-A", "/data/local/tmp/nas_edge/tools"]).output.split()) - {"probes"}
        assert len(kept) <= 1  # the real one
    assert not settings.exists() or not list(settings.glob("benchmark_model*"))


@pytest.mark.parametrize("url", ["http://127.0.0.1/x", "file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_only_https_is_fetched(phone: Phone, url: str) -> None:
    with link_to(phone) as link, pytest.raises(SpecError, match="https only"):
        set_up(link, url)


@pytest.fixture
def https(tmp_path: Path, tool_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server on loopback whose certificate is trusted: /tool, and /away, which leads to plain http."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = tool_file.read_bytes() if self.path == "/tool" else b""
            self.send_response(200 if data else 302 if self.path == "/away" else 404)
            if self.path == "/away":
                self.send_header("Location", "http://127.0.0.1:1/tool")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    certificate = write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"https://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(60)


def write_certificate(folder: Path) -> Path:
    """A key and a certificate of its own for 127.0.0.1."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return file


def test_a_tool_is_fetched_by_https(ready_phone: Phone, tool_file: Path, settings: Path, https: str) -> None:
    digest = hashlib.sha256(tool_file.read_bytes()).hexdigest()
    with link_to(ready_phone) as link:
        assert set_up(link, f"{https}/tool", digest).tool.sha256 == digest
        with pytest.raises(DeviceUnavailableError, match="not https"):
            set_up(link, f"{https}/away")
        with pytest.raises(DeviceUnavailableError, match="404"):
            set_up(link, f"{https}/nothing")


def test_a_file_that_is_too_large_is_not_read_whole(phone: Phone, tmp_path: Path) -> None:
    file = tmp_path / "large"
    with file.open("wb") as stream:
        stream.truncate((256 << 20) + 1)
    with link_to(phone) as link, pytest.raises(SpecError, match="256 MiB"):
        set_up(link, str(file))


# Listing


def test_phones_of_the_server_are_listed_with_what_is_missing(
    phone: Phone, new_phone: PhoneFactory, home: Path, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = AdbServer(home)
    monkeypatch.setenv("ADB_SERVER_SOCKET", server.socket)
    try:
        (none,) = list_phones()
        assert (none.address, none.state) == ("adb:", "unavailable")
        assert "server knows of no phone" in none.detail
        assert "adb pair" in none.fix
        known, locked = server.connect(phone), server.connect(new_phone(auth=True))
        rows = {row.address: row for row in list_phones()}
        assert set(rows) == {f"adb:{known}", f"adb:{locked}"}
        row = rows[f"adb:{known}"]
        assert (row.model, row.state) == ("Google Pixel 6 Pro", "not set up")
        assert row.detail == "Tensor, Android 14, arm64-v8a; lacks benchmark_model"
        assert row.fix.endswith(f"nas-edge devices setup adb:{known} --benchmark-model FILE")
        assert rows[f"adb:{locked}"].state == "unauthorised"
        assert "tap 'Allow'" in rows[f"adb:{locked}"].detail
        keep(b"", "arm64-v8a", "a file", "a phone")
        assert {row.state for row in list_phones() if row.address == f"adb:{known}"} == {"ready"}
        output = CliRunner().invoke(nas_edge, ["devices"]).output
        assert "host:" in output
        assert f"adb:{known}" in output
    finally:
        server.close()


@pytest.mark.parametrize(
    ("listing", "state", "words"),
    [
        ("X  offline usb:1-1", "offline", "unlock it"),
        ("X  no permissions (missing udev rules? user is in the plugdev group); see [x]", "no permission", "udev"),
        ("X  unauthorized usb:1-1 transport_id:1", "unauthorised", "Allow"),
        ("X  recovery usb:1-1 product:raven model:Pixel_6_Pro", "not booted", "start Android"),
        ("X  rescue", "rescue", "start Android"),
    ],
)
def test_what_the_server_says_of_a_phone_is_told(listing: str, state: str, words: str) -> None:
    from device_agents.android.adb_server_transport import _read_phone
    from device_agents.android.listing import _of_server

    phone = _read_phone(listing)
    assert phone is not None
    row = _of_server(phone)
    assert (row.address, row.state) == ("adb:X", state)
    assert words in row.detail
    assert row.model == ("Pixel 6 Pro" if "Pixel" in listing else "")


def test_phones_on_usb_are_asked_side_by_side_and_none_is_waited_for(
    phone: Phone, new_phone: PhoneFactory, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no USB here: phones on the network stand in for those on it."""
    silent = new_phone()
    silent.order("stall")
    ports = {"KNOWN": phone.port, "LOCKED": new_phone(auth=True).port, "SILENT": silent.port, "GONE": 1}

    def open_transport(address: str, prompt_timeout_s: float) -> AdbShellTransport:
        return AdbShellTransport.tcp("127.0.0.1", ports[address.removeprefix("adb:")], prompt_timeout_s)

    monkeypatch.setattr("device_agents.android.adb_shell_transport.usb_serials", lambda: list(ports))
    monkeypatch.setattr("device_agents.android.listing.open_transport", open_transport)
    rows = {row.address: row for row in list_phones()}
    assert {address: row.state for address, row in rows.items()} == {
        "adb:KNOWN": "not set up",
        "adb:LOCKED": "unauthorised",
        "adb:SILENT": "unavailable",
        "adb:GONE": "unavailable",
    }
    assert "does not answer" in rows["adb:SILENT"].fix
    silent.order("flow")


@given(st.text())
def test_any_listing_of_the_server_is_read_without_an_error(line: str) -> None:
    from device_agents.android.adb_server_transport import _read_phone

    phone = _read_phone(line)
    assert phone is None or (phone.serial + phone.state + phone.model).isprintable()


def listed(monkeypatch: pytest.MonkeyPatch, usb: type | None) -> str:
    """What `nas-edge devices` prints with a stand-in for adb-shell's access to USB."""
    monkeypatch.setattr("adb_shell.adb_device.UsbTransport", usb)
    run = CliRunner().invoke(nas_edge, ["devices"], catch_exceptions=False)
    assert run.exit_code == 0
    # Whatever the table above holds, such as the name of this machine's processor.
    advice = run.output.partition("Addresses:")[0].partition("fix:")[2].splitlines()
    assert max(map(len, advice)) <= 80
    return " ".join(run.output.split())


def test_where_there_is_no_phone_the_list_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    class NotAllowed:
        @staticmethod
        def find_all_adb_devices() -> list[object]:
            # Told apart by name: libusb1 may be missing here.
            raise exceptions.UsbReadFailedError("no access", type("USBErrorAccess", (Exception,), {})())

    class Empty:
        @staticmethod
        def find_all_adb_devices() -> list[object]:
            return []

    monkeypatch.setattr("device_agents.android.adb_shell_transport.find_spec", lambda _: None)
    assert "adb: fix: install it: pip install 'nas-edge[usb]'" in listed(monkeypatch, None)
    monkeypatch.setattr("device_agents.android.adb_shell_transport.find_spec", lambda _: "there")
    assert "apt install libusb-1.0-0" in listed(monkeypatch, None)
    assert "udev rule" in listed(monkeypatch, NotAllowed)
    output = listed(monkeypatch, Empty)
    assert "adb: adb unavailable no phone on USB, and no adb server" in output
    assert "cable that carries data" in output
    assert "devices doctor adb://HOST:PORT" in output


# The doctor


def by_name(checks: list[Check]) -> dict[str, Check]:
    assert all(check.fix for check in checks if check.state != "pass")
    return {check.name: check for check in checks}


def test_a_healthy_phone_passes(ready_phone: Phone, tool_file: Path, settings: Path) -> None:
    with link_to(ready_phone) as link:
        set_up(link, str(tool_file))
    checks = by_name(examine(ready_phone.address, watch_s=1.0))
    passing = (
        "connection", "authorisation", "system", "benchmark_model", "storage", "battery", "battery saver", "screen",
        "airplane mode", "heat", "cpus", "clocks",
    )  # fmt: skip
    assert {name: checks[name].state for name in passing} == dict.fromkeys(passing, "pass")
    assert checks["system"].found.startswith("Google Pixel 6 Pro, Tensor, Android 14 (API level 34)")
    # What this machine does meanwhile decides how steady it is; but it measures.
    assert checks["measuring"].state in ("pass", "warn")
    assert "ms for the same model" in checks["repeatability"].found
    assert {"compute probe", "cache probe", "memory probe", "quiet visits", "candidate"} <= set(checks)
    with link_to(ready_phone) as link:
        assert link.run(["ls", "/data/local/tmp/nas_edge"]).output.split() == ["tools"]


def doctored(overlay: Path) -> dict[str, Check]:
    phone = start(overlay)
    try:
        return by_name(examine(phone.address, watch_s=0.0))
    finally:
        phone.close()


def test_a_phone_in_a_bad_state_is_told_what_to_do(tmp_path: Path, settings: Path) -> None:
    checks = doctored(write_overlay(tmp_path / "overlay", SAMSUNG.texts, SAMSUNG.files))
    states = {name: check.state for name, check in checks.items()}
    assert states["benchmark_model"] == states["battery saver"] == "fail"
    assert states["battery"] == states["screen"] == states["heat"] == "warn"
    assert "dumpsys battery reset" in checks["battery"].fix
    assert "thermal status light" in checks["heat"].found
    assert "Stay awake" in checks["screen"].fix
    assert "measuring" not in checks


def test_a_phone_that_says_little_is_not_refused_for_it(tmp_path: Path, settings: Path) -> None:
    checks = doctored(write_overlay(tmp_path / "overlay", SILENT.texts, SILENT.files))
    unknown = ("battery", "battery saver", "screen", "heat", "cpus", "system")
    assert {name: checks[name].state for name in unknown if checks[name].state == "fail"} == {}
    checks = doctored(write_overlay(tmp_path / "old", OLD.texts, OLD.files))
    assert checks["system"].found.startswith("HTC 10, MT6797, Android 8.1.0 (API level 27)")


def test_a_phone_that_cannot_be_reached_fails_at_once(new_phone: PhoneFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device_agents.android.adb_shell_transport.PROMPT_TIMEOUT_S", 1.0)
    (connection,) = examine("adb://127.0.0.1:1")
    assert (connection.name, connection.state) == ("connection", "fail")
    assert "nothing listens there" in connection.fix
    monkeypatch.setattr("adb_shell.adb_device.UsbTransport", None)
    (connection,) = examine("adb:")
    assert connection.found.startswith("USB needs the")
    assert connection.fix.startswith("install it")
    connection, authorisation = examine(new_phone(auth=True).address)
    assert (connection.state, authorisation.state) == ("pass", "fail")
    assert "tap 'Allow'" in authorisation.fix


def test_a_tool_that_does_not_work_fails_the_measuring(
    tmp_path: Path, settings: Path, phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = write_tool(tmp_path, canned_script("ERROR: nothing works", exit_code=3))
    monkeypatch.setenv("NAS_EDGE_BENCHMARK_MODEL", str(tool))
    checks = by_name(examine(phone.address))
    assert checks["benchmark_model"].state == "pass"
    assert checks["measuring"].state == "fail"
    assert "use another build: name it in NAS_EDGE_BENCHMARK_MODEL" in checks["measuring"].found


# The command line


def test_the_commands_say_what_they_did(ready_phone: Phone, tool_file: Path, settings: Path) -> None:
    run = CliRunner().invoke(nas_edge, ["devices", "setup", ready_phone.address, "--benchmark-model", str(tool_file)])
    assert run.exit_code == 0, run.output
    assert "Google Pixel 6 Pro (Tensor, Android 14" in run.output
    assert hashlib.sha256(tool_file.read_bytes()).hexdigest() in run.output
    assert f"nas-edge devices doctor {ready_phone.address}" in run.output
    run = CliRunner().invoke(nas_edge, ["devices", "doctor", "adb://127.0.0.1:1"], standalone_mode=False)
    assert run.return_value == 1
    assert "fix: " in run.output
    run = CliRunner().invoke(nas_edge, ["devices", "adb://10.0.0.7:5555"])
    assert run.exit_code == 2
    assert "nas-edge devices doctor adb://10.0.0.7:5555" in run.output
