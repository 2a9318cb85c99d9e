"""Whether a board is fit to be measured, point by point, with the fix."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

from device_agents.checks import Check
from device_agents.errors import DeviceError
from device_agents.measuring_checks import check_measuring, failed
from device_agents.ssh.address import BoardAddress
from device_agents.ssh.agent import SshAgent
from device_agents.ssh.board import Board, BoardFacts, check_python

_ROUND_TRIPS = 7
_SLOW_MS = 100.0
_STORAGE_NEEDED_BYTES = 20 << 20
# Bits of a Raspberry Pi's `get_throttled`: now, and the same 16 higher: since it was started.
_POWER = {
    0: "its voltage is too low",
    1: "its clock is capped",
    2: "it is throttled",
    3: "it is at its soft heat limit",
}


def examine_board(address: BoardAddress) -> list[Check]:
    """Looks at a board and measures on it twice; what needs an answer is left out where there is none."""
    with Board(address) as board:
        try:
            checks = [_check_link(board)]
            board.claim()
            facts = board.examine()
        except DeviceError as error:
            return [failed("connection", error)]
        checks += [_check_python(board, facts), _check_storage(facts), _check_program(facts, "worker")]
        try:
            checks += [*_check_power(board), *_check_stored(board, "kept on the board")]
        except DeviceError as error:
            return [*checks, failed("state", error)]
    if any(check.state == "fail" for check in checks):
        return checks
    agent = SshAgent(address)
    try:
        info = agent.info()
        system = f"{info.model}, {info.cores} cores, {info.os}; {info.runtime} {info.runtime_version}"
        return [*checks, Check("system", "pass", system), *check_measuring(agent)]
    except DeviceError as error:
        return [*checks, failed("measuring", error)]
    finally:
        agent.close()


def check_host(board: Board, modules: Mapping[str, str]) -> list[Check]:
    """Looks at a host that is to serve its devices, up to them.

    Args:
        board: The host.
        modules: What its Python should have, see `setup.install_packages`.
    """
    try:
        checks = [_check_link(board)]
        facts = board.examine(*modules)
        checks += [_check_python(board, facts), _check_storage(facts), _check_program(facts, "program")]
        return [*checks, *_check_missing(board, facts, modules), *_check_stored(board, "kept there")]
    except DeviceError as error:
        return [failed("connection", error)]


def _check_missing(board: Board, facts: BoardFacts, modules: Mapping[str, str]) -> list[Check]:
    if not facts.missing:
        return []
    found = f"{facts.python} has no {', '.join(modules[name] for name in facts.missing if name in modules)}"
    fix = f"nas-edge devices setup '{board.address}' installs it, in an environment of its own"
    return [Check("packages", "warn", f"{found}: not every way to a device works", fix)]


def _check_link(board: Board) -> Check:
    board.connection.connect()
    times_ms = []
    for _ in range(_ROUND_TRIPS):
        started_s = time.perf_counter()
        board.connection.run(["true"])
        times_ms.append((time.perf_counter() - started_s) * 1e3)
    found = f"a command takes {statistics.median(times_ms):.0f} ms"
    if statistics.median(times_ms) > _SLOW_MS:
        return Check("connection", "warn", found, "use a cable: each request to the worker waits for it")
    return Check("connection", "pass", found)


def _check_python(board: Board, facts: BoardFacts) -> Check:
    try:
        check_python(facts, board.program, board.address)
    except DeviceError as error:
        return failed("python", error)
    runtime = f", with {facts.runtime}" if facts.runtime else ""
    return Check("python", "pass", f"{facts.version_text}, {facts.python}{runtime}")


def _check_storage(facts: BoardFacts) -> Check:
    found = f"{facts.free_bytes / 1e6:.0f} MB free"
    if facts.free_bytes < _STORAGE_NEEDED_BYTES:
        return Check("storage", "fail", found, "free some in the home folder")
    return Check("storage", "pass", found)


def _check_program(facts: BoardFacts, name: str) -> Check:
    return Check(name, "pass", f"{facts.file} {'is there' if facts.has_program else 'is copied when it is needed'}")


def _check_power(board: Board) -> list[Check]:
    text = str(board.ask("power").get("throttled", ""))
    try:
        bits = int(text, 16)
    except ValueError:
        return []  # no Raspberry Pi
    now = [words for bit, words in _POWER.items() if bits >> bit & 1]
    before = [words for bit, words in _POWER.items() if bits >> (bit + 16) & 1]
    if now:
        return [Check("power", "fail", f"now {', '.join(now)}", "use a stronger supply, and cool it")]
    if before:
        said = f"since it was started, at times {', '.join(before)}"
        return [Check("power", "warn", said, "use a stronger supply, and cool it")]
    return [Check("power", "pass", "neither voltage nor heat has slowed it since it was started")]


def _check_stored(board: Board, name: str) -> list[Check]:
    folders = board.ask("stored").get("folders")
    if not isinstance(folders, dict) or not folders:
        return []
    found = "; ".join(f"{path} ({int(size) / 1e6:.1f} MB)" for path, size in folders.items())
    return [Check(name, "pass", f"{found}; `nas-edge devices clean '{board.address.of_host}'` removes it")]
