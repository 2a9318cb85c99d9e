"""The scheme of boards. What talks to them is imported when it is needed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from device_agents.api import DeviceAgent
from device_agents.checks import Check
from device_agents.scheme import Scheme, Setup, SetupOption
from device_agents.ssh.address import FORM, address_problem, read_address


def _open(rest: str) -> DeviceAgent:
    from device_agents.ssh.agent import open_board

    return open_board(rest)


def _doctor(rest: str) -> Sequence[Check]:
    from device_agents.ssh.doctor import examine_board

    return examine_board(read_address(rest))


def _clean(rest: str) -> Sequence[str]:
    from device_agents.ssh.setup import clean_board

    return clean_board(read_address(rest))


def _set_up(rest: str, options: Mapping[str, str]) -> Sequence[tuple[str, str]]:
    from device_agents.ssh.setup import set_up_board

    return set_up_board(read_address(rest), options.get("runtime"), options.get("wheels"))


def _complete(_: str) -> Sequence[str]:
    """The hosts that the user's SSH configuration names."""
    try:
        text = (Path.home() / ".ssh" / "config").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    lines = re.findall(r"^\s*host\s+(.+)$", text, re.IGNORECASE | re.MULTILINE)
    return [f"//{name}" for line in lines for name in line.split() if re.fullmatch(r"[\w.-]+", name)]


SCHEMES = (
    Scheme(
        name="ssh",
        form=FORM,
        what="a Linux board reached over SSH",
        open=_open,
        problem=address_problem,
        doctor=_doctor,
        setup=Setup(
            _set_up,
            options=(
                SetupOption("runtime", "NAME", "The TFLite runtime: ai-edge-litert, or tflite-runtime on old boards."),
                SetupOption("wheels", "FOLDER", "Wheels to install from, for a board without a network."),
            ),
            example="ssh://pi@raspberrypi",
        ),
        complete=_complete,
        clean=_clean,
    ),
)
