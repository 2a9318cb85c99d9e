"""A real adb server on a port of its own, so that one the user runs is never touched."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.support.android.phone import TOOL, Phone


class AdbServer:
    """A running server. Ends with `close`.

    Args:
        home: Where it makes and keeps its key, .android/adbkey.
    """

    def __init__(self, home: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.socket = f"tcp:127.0.0.1:{self._port}"
        self._log = home / "adb.log"
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("ADB_", "ANDROID_"))},
            "HOME": str(home),
            # Emulators are not looked for, nor phones on the network.
            "ADB_LOCAL_TRANSPORT_MAX_PORT": "5553",
            "ADB_MDNS": "0",
        }
        server = [sys.executable, str(TOOL), "adb", "-L", f"tcp:{self._port}", "nodaemon", "server"]
        command = ["setpriv", "--pdeathsig", "KILL", *server]  # it does not outlive the tests, however they end
        with self._log.open("w") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        self._wait_until_it_listens()

    def connect(self, phone: Phone) -> str:
        """What `adb connect` does; returns the serial number the server gives the phone."""
        answer = self.ask(f"host:connect:127.0.0.1:{phone.port}")
        assert "connected to" in answer or "authenticate" in answer, answer
        return f"127.0.0.1:{phone.port}"

    def disconnect(self, serial: str) -> None:
        self.ask(f"host:disconnect:{serial}")

    def ask(self, request: str) -> str:
        with socket.create_connection(("127.0.0.1", self._port), timeout=20) as connection:
            connection.sendall(f"{len(request):04x}{request}".encode())
            with connection.makefile("rb") as answer:
                assert answer.read(4) == b"OKAY", answer.read()
                return answer.read(int(answer.read(4), 16)).decode()

    def close(self) -> None:
        self._process.kill()
        self._process.wait(60)

    def _wait_until_it_listens(self) -> None:
        deadline_s = time.monotonic() + 30
        while time.monotonic() < deadline_s and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        self.close()
        raise AssertionError(f"the adb server does not start: {self._log.read_text()[-500:]}")
