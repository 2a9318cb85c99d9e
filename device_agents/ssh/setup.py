"""Making a board ready: a Python environment of its own with NumPy and a TFLite runtime; and removing everything."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from device_agents.errors import DeviceUnavailableError, SpecError
from device_agents.floors import forget_floors
from device_agents.ssh.address import BoardAddress
from device_agents.ssh.board import Board, BoardFacts
from device_agents.ssh_connection import Completed

# What is installed of each. tflite-runtime was built for NumPy 1.
RUNTIMES = {"ai-edge-litert": ("ai-edge-litert", "numpy"), "tflite-runtime": ("tflite-runtime", "numpy<2")}
_LITERT_PYTHON = (3, 10)
_LITERT_MACHINES = ("x86_64", "aarch64")
_VENV = "${XDG_DATA_HOME:-$HOME/.local/share}/nas_edge/venv"
_MAKE_VENV = f'exec "${{1:-python3}}" -m venv --clear "{_VENV}"'
_PIP = f'exec "{_VENV}/bin/python" -m pip install --disable-pip-version-check --no-input --quiet "$@"'
_VENV_TIMEOUT_S, _INSTALL_TIMEOUT_S, _SEND_TIMEOUT_S = 120.0, 900.0, 600.0
_MAX_WHEEL_BYTES = 500 << 20


def set_up_board(
    address: BoardAddress, runtime: str | None = None, wheels: str | None = None
) -> Sequence[tuple[str, str]]:
    """Makes a board ready for measuring.

    Args:
        address: The board.
        runtime: A key of `RUNTIMES`; None for the one that fits the board's Python.
        wheels: A folder of wheels that are sent to the board, which then needs no network.

    Returns:
        What was done, as pairs of a word and a fact.

    Raises:
        SpecError: If the runtime or the folder does not exist.
        DeviceUnavailableError: If the board cannot be reached, or installing fails.
    """
    if runtime is not None and runtime not in RUNTIMES:
        raise SpecError("Unknown TFLite runtime", expected=" or ".join(RUNTIMES), received=f"{runtime!r}")
    files = _wheels(wheels)
    with Board(address) as board:
        board.claim()
        facts = board.examine()
        if facts.version < board.program.least_python or not (facts.runtime and facts.numpy) or runtime or files:
            _install(board, facts, RUNTIMES[runtime or _fitting(facts)], files)
            facts = board.examine()
        facts = board.ready()
        return [
            ("board", str(address)),
            ("python", f"{facts.version_text}, {facts.python}"),
            ("runtime", facts.runtime),
            ("worker", f"{board.program.file} in {facts.file.rpartition('/')[0]}"),
        ]


def install_packages(board: Board, modules: Mapping[str, str], wheels: str | None = None) -> BoardFacts:
    """Installs what a host's Python lacks for its devices, and returns what is there then.

    Args:
        board: The host.
        modules: What is needed: requirements for pip, by the module that tells whether they are there.
        wheels: See `set_up_board`.

    Raises:
        SpecError: If the folder does not exist.
        DeviceUnavailableError: If the host cannot be reached, or installing fails.
    """
    files = _wheels(wheels)
    facts = board.examine(*modules)
    if facts.version < board.program.least_python or facts.missing or files:
        _install(board, facts, list(modules.values()), files)
        facts = board.examine(*modules)
    return board.ready()


def clean_board(address: BoardAddress) -> Sequence[str]:
    """Removes everything that measuring and setup leave on a board or keep about it; returns a line for each."""
    lines: list[str] = []
    with Board(address) as board:
        facts = board.examine()
        if facts.has_program and facts.runtime and facts.numpy:  # else nothing was ever measured with it
            from device_agents.ssh.agent import SshAgent

            agent = SshAgent(address)
            try:
                lines += forget_floors(agent.info())
            finally:
                agent.close()
        board.claim()
        folders = board.ask("clean", timeout_s=120.0).get("folders")
        if isinstance(folders, dict):
            lines += [f"{path} ({int(size) / 1e6:.1f} MB) on the board" for path, size in folders.items()]
    return lines


def _fitting(facts: BoardFacts) -> str:
    modern = facts.version >= _LITERT_PYTHON and facts.machine in _LITERT_MACHINES
    return "ai-edge-litert" if modern else "tflite-runtime"


def _install(board: Board, facts: BoardFacts, requirements: Sequence[str], files: Sequence[Path]) -> None:
    """Makes an environment of its own with packages; the first names what it is for."""
    made = board.connection.run(["sh", "-c", _MAKE_VENV, "sh", board.address.python], timeout_s=_VENV_TIMEOUT_S)
    if made.exit_code:
        raise _failed(board, "making a Python environment", made, "on Debian: apt install python3-venv")
    options: list[str] = []
    try:
        for file in files:
            data = file.read_bytes()
            kept = board.ask("receive", file.name, data=data, timeout_s=_SEND_TIMEOUT_S)
            if kept.get("sha256") != hashlib.sha256(data).hexdigest():
                raise DeviceUnavailableError(f"{file.name} did not arrive whole", fix="try again")
            options = ["--no-index", "--find-links", str(kept.get("folder"))]
        done = board.connection.run(["sh", "-c", _PIP, "sh", *options, *requirements], timeout_s=_INSTALL_TIMEOUT_S)
    finally:
        if files:
            board.ask("forget_wheels")
    if done.exit_code:
        major_minor = "".join(map(str, facts.version[:2]))
        download = (
            f"pip download --only-binary :all: --python-version {major_minor} --platform ... {shlex.join(requirements)}"
        )
        raise _failed(
            board,
            f"installing {requirements[0]}",
            done,
            f"has the board a network? If not, get the wheels here (`{download}`) and pass --wheels FOLDER",
        )


def _failed(board: Board, doing: str, done: Completed, fix: str) -> DeviceUnavailableError:
    said = (done.log or done.output.decode(errors="replace")).splitlines()
    return DeviceUnavailableError(
        f"On the {board.address.called}, {doing} failed (exit status {done.exit_code}): {' '.join(said[-2:])[:400]}",
        fix=fix,
    )


def _wheels(folder: str | None) -> list[Path]:
    if folder is None:
        return []
    files = sorted(Path(folder).glob("*.whl"))
    if not files:
        raise SpecError("No wheels", expected="a folder with .whl files", received=f"{folder!r}")
    large = [file.name for file in files if file.stat().st_size > _MAX_WHEEL_BYTES]
    if large:
        raise SpecError(f"{large[0]} is larger than {_MAX_WHEEL_BYTES >> 20} MiB")
    return files
