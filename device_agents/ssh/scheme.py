"""The scheme of boards, and of devices at other hosts. What talks to them is imported when it is needed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

from device_agents.api import DeviceAgent
from device_agents.checks import Check
from device_agents.errors import DeviceAddressError, SpecError
from device_agents.scheme import DeviceRow, Scheme, Setup, SetupOption
from device_agents.ssh.address import BoardAddress, address_problem, read_address

_BOARD_OPTIONS = (
    SetupOption("runtime", "NAME", "The TFLite runtime: ai-edge-litert, or tflite-runtime on old boards."),
    SetupOption("wheels", "FOLDER", "Wheels to install from, for a board without a network."),
)


_Find: TypeAlias = Callable[[str], Scheme]


def schemes(find: _Find, every: Callable[[], Sequence[Scheme]]) -> tuple[Scheme, ...]:
    """Returns the scheme.

    Args:
        find: Returns the scheme of a name, for what another host has; see `schemes.find_scheme`.
        every: Returns all of them.
    """

    def problem(rest: str) -> str:
        found = address_problem(rest)
        device = "" if found else read_address(rest).device
        if not device:
            return found
        name, _, at_host = device.partition(":")
        try:
            found = find(name).problem(at_host)
        except DeviceAddressError as error:
            found = str(error)
        return f"device={device}: {found}" if found else ""

    def options_at(rest: str) -> Sequence[SetupOption]:
        address = read_address(rest)
        setup = _scheme_at(find, address).setup if address.device else None
        return () if setup is None else setup.options

    def complete(rest: str) -> Sequence[str]:
        """The hosts that the user's SSH configuration names; then the kinds of devices that a host may have."""
        host, asked, _ = rest.partition("?device=")
        if not asked:
            return _hosts()
        return [f"{host}{asked}{one.name}:" for one in every() if not problem(f"{host}{asked}{one.name}:")]

    return (
        Scheme(
            name="ssh",
            form="ssh://[USER@]HOST[:PORT][?device=ADDRESS]",
            what="a Linux board reached over SSH, or a device at another host",
            open=_open,
            problem=problem,
            doctor=partial(_doctor, find),
            setup=Setup(partial(_set_up, find), _BOARD_OPTIONS, "ssh://pi@raspberrypi", options_at),
            complete=complete,
            clean=_clean,
            check_host=_check_host,
            list_at=_list_at,
        ),
    )


def _scheme_at(find: _Find, address: BoardAddress) -> Scheme:
    return find(address.device.partition(":")[0])


def _doctor(find: _Find, rest: str) -> Sequence[Check]:
    address = read_address(rest)
    if address.device:
        from device_agents.ssh.remote import examine_remote

        return examine_remote(address, _scheme_at(find, address))
    from device_agents.ssh.doctor import examine_board

    return examine_board(address)


def _set_up(find: _Find, rest: str, options: Mapping[str, str]) -> Sequence[tuple[str, str]]:
    address = read_address(rest)
    if address.device:
        from device_agents.ssh.remote import set_up_remote

        return set_up_remote(address, _scheme_at(find, address), options)
    from device_agents.ssh.setup import set_up_board

    return set_up_board(address, options.get("runtime"), options.get("wheels"))


def _open(rest: str) -> DeviceAgent:
    address = read_address(rest)
    if address.device:
        from device_agents.ssh.remote import open_remote

        return open_remote(address)
    from device_agents.ssh.agent import open_board

    return open_board(rest)


def _clean(rest: str) -> Sequence[str]:
    address = read_address(rest)
    if address.device:
        from device_agents.ssh.remote import clean_of_host

        return clean_of_host(address)
    from device_agents.ssh.setup import clean_board

    return clean_board(address)


def _list_at(rest: str) -> Sequence[DeviceRow]:
    from device_agents.ssh.remote import list_remote

    address = read_address(rest)
    if address.device or address.accelerator:
        raise SpecError("Devices are listed at a host", expected=f"{address.of_host}", received=f"{address}")
    return list_remote(address)


def _hosts() -> list[str]:
    try:
        text = (Path.home() / ".ssh" / "config").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    lines = re.findall(r"^\s*host\s+(.+)$", text, re.IGNORECASE | re.MULTILINE)
    return [f"//{name}" for line in lines for name in line.split() if re.fullmatch(r"[\w.-]+", name)]


def _check_host() -> Sequence[Check]:
    """Which keys boards could be reached with."""
    keys = sorted(path.stem for path in Path.home().glob(".ssh/id_*.pub"))
    found = ", ".join([*keys, *(["those of an agent"] if os.environ.get("SSH_AUTH_SOCK") else [])])
    if found:
        return [Check("ssh", "pass", f"keys: {found}")]
    return [Check("ssh", "pass", "no keys; only boards reached over SSH would need one (ssh-keygen makes it)")]
