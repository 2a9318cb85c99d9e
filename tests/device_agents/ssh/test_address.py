"""Addresses of boards."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_agents.devices import completions, parse_address
from device_agents.errors import DeviceAddressError
from device_agents.schemes import SCHEMES
from device_agents.ssh.address import BoardAddress, address_problem, read_address


@pytest.mark.parametrize(
    ("rest", "address"),
    [
        ("//pi", BoardAddress("pi")),
        ("//pi@raspberrypi.local", BoardAddress("raspberrypi.local", "pi")),
        ("//pi@10.0.0.7:2222", BoardAddress("10.0.0.7", "pi", 2222)),
        ("//Lab-Board", BoardAddress("Lab-Board")),
        ("//[fe80::1]:22", BoardAddress("fe80::1", None, 22)),
        ("//pi?python=/opt/py/bin/python3.9", BoardAddress("pi", python="/opt/py/bin/python3.9")),
    ],
)
def test_an_address_is_read_and_written_the_same(rest: str, address: BoardAddress) -> None:
    assert read_address(rest) == address
    assert str(address) == f"ssh:{rest}"
    assert address_problem(rest) == ""


@pytest.mark.parametrize(
    ("rest", "problem"),
    [
        ("", "'//' must follow"),
        ("pi@host", "'//' must follow"),
        ("//", "a host name must follow"),
        ("//-oProxyCommand=x", "a host name must follow"),
        ("//pi:secret@host", "a password must not stand in an address"),
        ("//host:70000", "Port out of range"),
        ("//host/path", "nothing but"),
        ("//host?key=1", "unknown option 'key'; supported: python"),
        ("//host?python=", "python= must name"),
        ("//host?python=-c", "python= must name"),
        ("//a b", "a host name must follow"),
    ],
)
def test_what_is_wrong_with_an_address_is_told(rest: str, problem: str) -> None:
    assert problem in address_problem(rest)
    with pytest.raises(DeviceAddressError, match="Bad device address"):
        parse_address(f"ssh:{rest}")


def test_hosts_of_the_configuration_complete_an_address() -> None:
    config = Path.home() / ".ssh" / "config"
    config.parent.mkdir(exist_ok=True)
    config.write_text("Host pi dev-board\n  User mendel\nHost *.lab\nhost lab2\n")
    try:
        assert completions("ssh:") == ["ssh://pi", "ssh://dev-board", "ssh://lab2"]
        assert completions("ssh://d") == ["ssh://dev-board"]
    finally:
        config.unlink()


def test_the_keys_that_a_board_could_be_reached_with_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    look = SCHEMES["ssh"].check_host
    assert look is not None
    assert look()[0].found.startswith("no keys")
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519.pub").touch()
    assert look()[0].found == "keys: id_ed25519"
