"""A board: OpenSSH's real server on loopback, with keys of its own; what it runs are this machine's programs.

What a board keeps goes to a folder of the test's, by the environment the server gives to its sessions.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agents.ssh import board
from tests.support.requirements import missing

_SSHD = next(filter(None, (shutil.which("sshd"), shutil.which("sshd", path="/usr/sbin:/usr/local/sbin"))), None)
_START_TIMEOUT_S = 10.0


class SshServer:
    """The server, running; its clients find keys and known hosts in the test's home folder.

    Args:
        folder: For its keys, its configuration and what its sessions keep.
        home: The client's home folder.
    """

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder, self.home = folder, home
        self.kept = folder / "kept"
        self.kept.mkdir()
        self.port = _free_port()
        make_key(folder / "host_key")
        user_key = home / ".ssh" / "id_ed25519"
        user_key.parent.mkdir(mode=0o700, exist_ok=True)
        if not user_key.exists():
            make_key(user_key)
        self.authorized = folder / "authorized_keys"
        self.allow()
        self.trust()
        # Also what its own devices would be asked for is the test's: no settings, no adb server.
        self.variables = {
            f"XDG_{name.upper()}_HOME": str(self.kept / name) for name in ("cache", "config", "data", "state")
        }
        self.variables["ADB_SERVER_SOCKET"] = "tcp:1"
        """Environment of its sessions, from the next start on."""
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def address(self) -> str:
        """What `open_device` takes."""
        return f"ssh://127.0.0.1:{self.port}?python={sys.executable}"

    @property
    def cache(self) -> Path:
        """Where the board keeps the worker."""
        return self.kept / "cache" / "nas_edge"

    def allow(self) -> None:
        """Lets the user's key in."""
        shutil.copy(self.home / ".ssh" / "id_ed25519.pub", self.authorized)

    def revoke(self) -> None:
        """Lets nobody in any more; sessions that are open go on."""
        self.authorized.write_text("")

    def trust(self) -> None:
        """Makes the host's present key a known one."""
        kind, key = (self.folder / "host_key.pub").read_text().split()[:2]
        (self.home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {kind} {key}\n")

    def distrust(self) -> None:
        """Makes its key an unknown one."""
        (self.home / ".ssh" / "known_hosts").write_text("")

    def change_key(self) -> None:
        """Gives the host another key."""
        self.stop()
        for file in self.folder.glob("host_key*"):
            file.unlink()
        make_key(self.folder / "host_key")
        self.start()

    def start(self) -> None:
        """Starts the server."""
        assert _SSHD is not None
        environment = " ".join(f'{name}="{value}"' for name, value in self.variables.items())
        config = self.folder / "sshd_config"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.folder / 'host_key'}\n"
            f"AuthorizedKeysFile {self.authorized}\nPidFile none\nStrictModes no\nUsePAM no\nUseDNS no\n"
            f"PermitRootLogin yes\nPasswordAuthentication no\nMaxStartups 100\nMaxSessions 100\nSetEnv {environment}\n"
        )
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([_SSHD, "-D", "-e", "-f", str(config)], stderr=log, start_new_session=True)
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                self.stop()
                missing("sshd", f"sshd does not start: {(self.folder / 'log').read_text()[-500:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Ends the server and the connections it has, as a board that is switched off."""
        if self._process is None:
            return
        for pid in [*_children(self._process.pid), self._process.pid]:
            _kill(pid)
        self._process.wait()
        self._process = None

    def restart(self) -> None:
        """Ends every connection; what ran over them ends as its input does."""
        self.stop()
        self.start()

    def cut(self) -> None:
        """Ends the connections only."""
        self.signal_sessions(signal.SIGKILL)

    def signal_sessions(self, number: signal.Signals) -> None:
        """Sends a signal to the processes that serve connections."""
        assert self._process is not None
        for pid in _children(self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def workers(self) -> list[int]:
        """Process ids of the workers that run for this server's sessions."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if len(command) > 1 and command[1].startswith(bytes(self.cache)):
                    found.append(int(entry.name))
        return found

    def close(self) -> None:
        """Ends all of it."""
        self.stop()
        for pid in self.workers():
            _kill(pid)


def start_server(folder: Path, home: Path, patch: pytest.MonkeyPatch) -> SshServer:
    """Returns a server, running; skips the test where there is none.

    Args:
        folder: An empty one, for the server.
        home: The client's home folder.
        patch: What it changes is this process's idea of where a board's lock lies, so that tests do not share one.
    """
    if _SSHD is None or shutil.which("ssh-keygen") is None:
        missing("sshd", "needs OpenSSH's server (package openssh-server)")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    patch.setattr(board, "LOCK", str(folder / "lock"))
    patch.delenv("SSH_AUTH_SOCK", raising=False)
    return SshServer(folder, home)


@contextlib.contextmanager
def serving(folder: Path, home: Path) -> Iterator[SshServer]:
    """Yields a server, see `start_server`; it ends with the block."""
    with pytest.MonkeyPatch.context() as patch:
        server = start_server(folder, home, patch)
        try:
            yield server
        finally:
            server.close()


def make_key(file: Path) -> None:
    """Makes a key pair without a passphrase."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _children(pid: int) -> list[int]:
    """The processes that a process has started, and theirs, as far as they are servers: not what they run."""
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in _read(file).split():
            if _read(Path(f"/proc/{child}/comm")).startswith("sshd"):
                found += [int(child), *_children(int(child))]
    return found


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:  # that process has just ended
        return ""


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
