"""What is done on a board beside measuring: sent as text, `python3 -c TEXT WHAT ARGUMENT...`, and answered in JSON.

Python 3.7 and its library only, as the worker. Everything lies in one folder of the user's cache.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

RUNTIMES = ("ai_edge_litert", "tflite_runtime")
_SESSION = "session-"
_UNUSED_S = 30 * 86400
_POWER = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")


def cache_folder() -> Path:
    """Returns where the programs lie."""
    return _base("XDG_CACHE_HOME", ".cache") / "nas_edge"


def venv_folder() -> Path:
    """Returns where setup makes its environment; `board.FIND_PYTHON` looks there."""
    return _base("XDG_DATA_HOME", ".local/share") / "nas_edge" / "venv"


def _base(variable: str, default: str) -> Path:
    given = os.environ.get(variable, "")
    return Path(given) if Path(given).is_absolute() else Path.home() / default


def examine(name: str, sha256: str, *modules: str) -> dict[str, Any]:
    """Returns what there is: this Python, runtimes, missing modules, room, and whether the program is whole."""
    folder = cache_folder()
    place = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    return {
        "python": sys.executable,
        "version": list(sys.version_info[:3]),
        "machine": os.uname().machine,
        "numpy": importlib.util.find_spec("numpy") is not None,
        "runtime": next((found for found in RUNTIMES if importlib.util.find_spec(found) is not None), ""),
        "missing": [module for module in modules if importlib.util.find_spec(module) is None],
        "free_bytes": shutil.disk_usage(str(place)).free,
        "file": str(folder / name),
        "has_program": _digest(folder / name) == sha256,
    }


def install(name: str, sha256: str) -> dict[str, Any]:
    """Puts the program that comes on stdin in place, whole or not at all, and removes other versions of it.

    Not those that may be in use: one of a host that serves devices reads its file now and then.
    """
    data = sys.stdin.buffer.read()
    if hashlib.sha256(data).hexdigest() != sha256:
        return {"error": "what arrived is not what was sent"}
    folder = cache_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = folder / f"{name}.{os.getpid()}"
    try:
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(folder / name)
    finally:
        if new.exists():
            new.unlink()
    kind = name.partition("-")[0]
    for other in folder.glob(kind + "-*"):
        if other.name != name and (kind == "worker" or time.time() - other.stat().st_mtime > _UNUSED_S):
            other.unlink()
    return {}


def start(file: str, *arguments: str) -> None:
    """Becomes the worker, after ending one that an earlier session may have left."""
    record = cache_folder() / "pid"
    end_leftover(record)
    record.write_text(str(os.getpid()))
    os.execv(sys.executable, [sys.executable, file, *arguments])


def serve(file: str, session: str) -> None:
    """Becomes the program that serves devices, after ending one that the same session may have left."""
    folder = cache_folder()
    record = folder / (_SESSION + session)
    end_leftover(record)
    for other in folder.glob(_SESSION + "*"):
        if not running(other):
            other.unlink()
    os.utime(file)
    record.write_text(str(os.getpid()))
    os.execv(sys.executable, [sys.executable, file])


def running(record: Path) -> int:
    """Returns the process id that a file tells, if that program still runs; else 0."""
    try:
        pid = int(record.read_text()[:20])
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return 0
    # Else another process has its number now.
    return pid if any(name in command for name in (b"/nas_edge/worker-", b"/nas_edge/agents-")) else 0


def end_leftover(record: Path) -> bool:
    """Ends the program whose process id a file tells, if it still runs; returns whether it did."""
    pid = running(record)
    if not pid:
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        return False
    for _ in range(100):
        if not Path(f"/proc/{pid}/cmdline").exists():
            break
        time.sleep(0.02)
    return True


def receive(name: str) -> dict[str, Any]:
    """Keeps a file for setup, which comes on stdin."""
    folder = cache_folder() / "wheels"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / Path(name).name
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return {"folder": str(folder), "sha256": _digest(path)}


def forget_wheels() -> dict[str, Any]:
    """Removes what setup had sent."""
    shutil.rmtree(str(cache_folder() / "wheels"), ignore_errors=True)
    return {}


def stored() -> dict[str, Any]:
    """Returns what lies on the board, with its size in bytes."""
    folders = [path for path in (cache_folder(), venv_folder()) if path.is_dir()]
    return {"folders": {str(path): sum(file.lstat().st_size for file in path.rglob("*")) for path in folders}}


def clean() -> dict[str, Any]:
    """Removes all of it, and returns what that was."""
    for record in [cache_folder() / "pid", *cache_folder().glob(_SESSION + "*")]:
        end_leftover(record)
    found = stored()
    for path in found["folders"]:
        shutil.rmtree(path)
    return found


def power() -> dict[str, Any]:
    """Returns what the firmware of a Raspberry Pi says of power and heat, in hexadecimal; "" elsewhere."""
    try:
        return {"throttled": _POWER.read_text()[:40].strip()}
    except OSError:
        return {"throttled": ""}


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def main() -> None:
    """Does what the arguments say."""
    does = {"start": start, "serve": serve}  # type: dict[str, Any]
    does.update({f.__name__: f for f in (examine, install, receive, forget_wheels, stored, clean, power)})
    try:
        answer = does[sys.argv[1]](*sys.argv[2:])
    except OSError as error:
        answer = {"error": error.strerror or str(error)}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
