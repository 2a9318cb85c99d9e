"""Devices of another host, reached over SSH: `ssh://HOST?device=ADDRESS`.

All of this package is copied to that host, as the worker is to a board, and run there as `serve`. So both sides always
have the same version, and no port is opened.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from device_agents.api import DeviceInfo
from device_agents.checks import Check, healthy
from device_agents.errors import DeviceError, SpecError
from device_agents.measuring_checks import failed
from device_agents.remote_agent import RemoteAgent, RemoteProgram, clean_remote, connected
from device_agents.remote_frames import read_rows
from device_agents.scheme import DeviceRow, Scheme
from device_agents.ssh.address import BoardAddress
from device_agents.ssh.board import Board, agents_program
from device_agents.ssh.doctor import check_host
from device_agents.ssh.setup import install_packages
from device_agents.wording import words_of

_SETUP_MODULES = {"numpy": "numpy"}


class RemoteSshAgent(RemoteAgent):
    """Measures on a device of a host that is reached over SSH.

    Args:
        address: Of the device.
    """

    def __init__(self, address: BoardAddress) -> None:
        self._board = Board(address, program=agents_program())
        # Whatever an earlier link of this agent left running there has the device, and is ended.
        session = secrets.token_hex(8)
        super().__init__(lambda: self._board.start_serving(session), address)

    def info(self) -> DeviceInfo:
        """See `RemoteAgent`; where the device shares the host's CPU, takes the host as one takes a board."""
        found = super().info()
        if self.measures_on_its_host:
            self._board.claim()
        return found

    def close(self) -> None:
        """See `DeviceAgent`."""
        super().close()
        self._board.close()


def open_remote(address: BoardAddress) -> RemoteSshAgent:
    """Returns the agent of a device of another host, once that host has opened it.

    Raises:
        DeviceError: If the host cannot be reached, or its device not opened.
    """
    return connected(RemoteSshAgent(address))


@contextlib.contextmanager
def _serving(address: BoardAddress) -> Iterator[RemoteProgram]:
    """The program that serves a host's devices."""
    with Board(address, program=agents_program()) as board:
        channel = board.start_serving(secrets.token_hex(8))
        with contextlib.closing(RemoteProgram(channel, address)) as program:
            yield program


def list_remote(address: BoardAddress) -> list[DeviceRow]:
    """Returns the devices that a host finds, with the addresses that they have here."""
    with _serving(address) as program:
        rows = read_rows(program.ask("list").header.get("rows"))
        return [
            replace(
                row,
                address=str(address.of_device(row.address)),
                detail=program.as_here(row.detail, row.address),
                fix=program.as_here(row.fix, row.address),
            )
            for row in rows
        ]


def examine_remote(address: BoardAddress, scheme: Scheme) -> list[Check]:
    """Looks at a host, then has it look at its device.

    Args:
        address: The device.
        scheme: Of the device.
    """
    with Board(address, program=agents_program()) as board:
        checks = [replace(check, name=f"host {check.name}") for check in check_host(board, _modules(scheme))]
    if not healthy(checks):
        return checks
    try:
        with _serving(address) as program:
            return [*checks, *program.checks()]
    except DeviceError as error:
        return [*checks, failed("device", error)]


def set_up_remote(address: BoardAddress, scheme: Scheme, options: Mapping[str, str]) -> Sequence[tuple[str, str]]:
    """Makes a host ready to measure on its device, then the device.

    Args:
        address: The device.
        scheme: Of the device.
        options: Those of a board, and those of the scheme.

    Raises:
        SpecError: If an option cannot be followed.
        DeviceError: If it fails.
    """
    if "runtime" in options:
        raise SpecError("--runtime is for boards; what a device of another host takes is installed without it")
    files = {option.name for option in (() if scheme.setup is None else scheme.setup.options) if option.is_file}
    of_device = {name: value for name, value in options.items() if name != "wheels"}
    sent = {name: _read(value) for name, value in of_device.items() if name in files and "://" not in value}
    with Board(address, program=agents_program()) as board:
        facts = install_packages(board, _modules(scheme), options.get("wheels"))
        done = [("host", str(address.of_host)), ("python", f"{facts.version_text}, {facts.python}")]
    if scheme.setup is None:
        return done
    with _serving(address) as program:
        return [*done, *program.set_up(of_device, sent)]


def clean_of_host(address: BoardAddress) -> list[str]:
    """Has a host remove what stays on its device, and forgets what is kept of the device here; a line for each."""
    return clean_remote(lambda: _serving(address), RemoteSshAgent(address))


def _modules(scheme: Scheme) -> dict[str, str]:
    return {**_SETUP_MODULES, **scheme.packages}


def _read(file: str) -> bytes:
    try:
        return Path(file).expanduser().read_bytes()
    except OSError as error:
        raise SpecError(f"{file} cannot be read: {words_of(error)}", fix="check its path") from error
