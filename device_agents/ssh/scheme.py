"""The scheme of boards. What talks to them is imported when it is needed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from device_agents.api import DeviceAgent
from device_agents.checks import Check
from device_agents.scheme import Scheme, Setup, SetupOption
from device_agents.ssh.address import address_problem, read_address


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


def _check_host() -> Sequence[Check]:
    """Which keys boards could be reached with."""
    keys = sorted(path.stem for path in Path.home().glob(".ssh/id_*.pub"))
    found = ", ".join([*keys, *(["those of an agent"] if os.environ.get("SSH_AUTH_SOCK") else [])])
    if found:
        return [Check("ssh", "pass", f"keys: {found}")]
    return [Check("ssh", "pass", "no keys; only boards reached over SSH would need one (ssh-keygen makes it)")]


SCHEMES = (
    Scheme(
        name="ssh",
        form="ssh://[USER@]HOST[:PORT]",
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
        check_host=_check_host,
    ),
)
