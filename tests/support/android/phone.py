"""A stand-in for a phone: AOSP's real daemon, contained, with Android's own shell and tools (mksh, toybox).

What it is not: it has no Android framework, so `getprop`, `dumpsys` and `settings` are scripts that print the text
files given; no USB; and its CPU is this machine's. See tools/prepare_adbd.py.
"""

from __future__ import annotations

import queue
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from device_agents.android.adb_shell_transport import AdbShellTransport
from device_agents.android.transport import Transport
from tests.support.requirements import missing

BASE = "/data/local/tmp/nas_edge"
TOOL = Path(__file__).parents[3] / "tools/prepare_adbd.py"
_SCRIPTS = {
    # `getprop` alone prints [key]: [value]; a key that is unset prints an empty line.
    "getprop": """#!/system/bin/sh
[ $# = 0 ] && exec cat /phone/getprop
while IFS= read -r line; do
  case "$line" in "[$1]: ["*) line=${line#*: \\[}; echo "${line%]}"; exit 0;; esac
done < /phone/getprop
echo
""",
    "dumpsys": """#!/system/bin/sh
[ -f "/phone/dumpsys-$1" ] && exec cat "/phone/dumpsys-$1"
echo "Can't find service: $1"
""",
    "settings": """#!/system/bin/sh
[ -f "/phone/settings-$3" ] && exec cat "/phone/settings-$3"
echo null
""",
}


class Phone:
    """A running daemon. Ends with `close`, or when this process ends."""

    def __init__(self, overlay: Path, *, auth: bool = False, data_mib: int = 256, host: bool = False) -> None:
        command = [sys.executable, str(TOOL), "serve", "--overlay", str(overlay), "--data-mib", str(data_mib)]
        command += ["--auth"] if auth else []
        command += ["--host"] if host else []
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._answers: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.address = self._answer(120)
        except PhoneUnavailableError:
            self._process.wait(60)
            assert self._process.stderr is not None
            problem = self._process.stderr.read()
            self.close()
            raise PhoneUnavailableError(problem.strip()[-400:]) from None
        self.port = int(self.address.rpartition(":")[2])

    def order(self, order: str) -> None:
        """kill, start, cut, stall or flow; see tools/prepare_adbd.py."""
        assert self._process.stdin is not None
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()
        answer = self._answer(20)
        assert answer == "ok", answer

    def close(self) -> None:
        for pipe in (self._process.stdin,):
            assert pipe is not None
            pipe.close()
        self._process.wait(20)
        self._reader.join(20)
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line.strip())
        self._answers.put("")

    def _answer(self, timeout_s: float) -> str:
        answer = self._answers.get(timeout=timeout_s)
        if not answer:
            raise PhoneUnavailableError("it ended")
        return answer


class PhoneUnavailableError(Exception):
    """The daemon cannot be had or not be contained here."""


def write_overlay(folder: Path, texts: Mapping[str, str], files: Mapping[str, str] | None = None) -> Path:
    """Writes the folder that makes the daemon look like a certain phone.

    Args:
        folder: Where.
        texts: What the scripts print: "getprop", "dumpsys-battery", "settings-low_power", ...
        files: Any other files, by path in the root.
    """
    (folder / "phone").mkdir(parents=True)
    for name, text in texts.items():
        (folder / "phone" / name).write_text(text)
    for name, text in _SCRIPTS.items():
        write_executable(folder / "system/bin" / name, text)
    for name, text in (files or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def write_executable(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(file.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def start(overlay: Path, **options: object) -> Phone:
    """Starts a phone; without a daemon, the test ends."""
    try:
        return Phone(overlay, **options)  # type: ignore[arg-type]
    except PhoneUnavailableError as error:
        missing("adbd", f"no ADB daemon here: {error}")


def files_of(phone: Phone) -> list[str]:
    """What agents have left on a phone, but for what they keep there."""
    with AdbShellTransport.tcp("127.0.0.1", phone.port) as link:
        return link.script(
            'find "$1" -type f ! -path "*/tools/*"; ls -d "$1"/run-* 2>/dev/null; :', BASE
        ).output.split()


PhoneFactory = Callable[..., Phone]
Connect = Callable[[Phone], Transport]
