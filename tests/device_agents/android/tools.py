"""The tools that tests install on the stand-in for a phone."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tests.device_agents.android.phone import write_executable

_STAND_IN = Path(__file__).with_name("stand_in_benchmark_model.py")


def real_bundle(cache: str) -> Path | None:
    """The real tool with the libraries it was linked to: bin/benchmark_model and lib/, if somebody has put it there."""
    folder = Path(os.environ.get("NAS_EDGE_BENCHMARK_BUNDLE") or Path(cache) / "benchmark_model")
    return folder if (folder / "bin/benchmark_model").is_file() else None


def install_real_bundle(bundle: Path, overlay: Path) -> str:
    """Lays the bundle into the phone's root; returns the script that is pushed as the tool."""
    shutil.copytree(bundle, overlay / "bench", dirs_exist_ok=True)
    loader = next((bundle / "lib").glob("ld-linux-*.so.*")).name
    return f"""#!/system/bin/sh
exec /bench/lib/{loader} --library-path /bench/lib /bench/bin/benchmark_model "$@"
"""


def stand_in_script() -> str:
    """Runs the stand-in with this Python, outside of the phone's root (see `prepare_adbd.py serve --host`)."""
    return f"""#!/system/bin/sh
exec chroot /host /usr/bin/env PHONE_ROOT="$(cat /host-root)" {sys.executable} {_STAND_IN} "$@"
"""


def canned_script(transcript: str, seconds: float = 0.0, exit_code: int = 0) -> str:
    """Prints a transcript; for tests of what happens around the tool."""
    assert "'" not in transcript
    return f"""#!/system/bin/sh
case "$1" in --help) echo "Flags:"; echo "	--graph="; echo "	--output_filepath="; exit 1;; esac
[ -s "${{1#--graph=}}" ] || {{ echo "ERROR: Could not open model" >&2; exit 1; }}
sleep {seconds}
echo '{transcript}'
exit {exit_code}
"""


def write_tool(folder: Path, script: str) -> Path:
    write_executable(folder / "tool", script)
    return folder / "tool"
