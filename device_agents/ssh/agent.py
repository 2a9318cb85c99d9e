"""The agent of a board: a `WorkerAgent` whose worker runs there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from device_agents.accelerators import compiler_for, open_accelerator
from device_agents.api import DeviceAgent, DeviceInfo
from device_agents.compiling import CompilingAgent
from device_agents.errors import DeviceUnavailableError
from device_agents.results import read_device_info
from device_agents.ssh.address import BoardAddress, read_address
from device_agents.ssh.board import Board
from device_agents.worker_agent import WorkerAgent


class SshAgent(WorkerAgent):
    """Measures on a board.

    Args:
        address: Where it is.
    """

    packs_models = True

    def __init__(self, address: BoardAddress) -> None:
        accelerator = open_accelerator(address.accelerator) if address.accelerator else None
        self._board = Board(address, () if accelerator is None else accelerator.arguments)
        self._first: DeviceInfo | None = None
        super().__init__(self._board.start_worker, self._read, accelerator)

    def info(self) -> DeviceInfo:
        """See `DeviceAgent`; connects again where the link was lost.

        Raises:
            DeviceUnavailableError: Also if another board answers at this address now.
        """
        found = self._accelerated(self._read(self._warm_worker().hello))
        if self._first is None:
            self._first = found
        if found.fingerprint != self._first.fingerprint:
            raise DeviceUnavailableError(
                f"Another board answers at {self._board.address} now",
                expected=f"{self._first.model} with {self._first.runtime} {self._first.runtime_version}",
                received=f"{found.model} with {found.runtime} {found.runtime_version}",
                fix="connect the first one again, or start anew",
            )
        return found

    def _read(self, hello: Mapping[str, Any]) -> DeviceInfo:
        return read_device_info(hello, str(self._board.address), "ssh")

    def close(self) -> None:
        """See `DeviceAgent`."""
        super().close()
        self._board.close()


def open_board(rest: str) -> DeviceAgent:
    """Returns the agent of the board at an address; it connects when it is first asked something.

    For an accelerator, models are compiled on this machine.

    Raises:
        DeviceAddressError: If the address is malformed.
    """
    address = read_address(rest)
    agent = SshAgent(address)
    return CompilingAgent(agent, compiler_for(address.accelerator)) if address.accelerator else agent
