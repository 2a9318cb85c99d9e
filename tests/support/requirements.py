"""What some tests need beside Python packages, and what becomes of a test where it is missing.

Such a test is skipped, and says why. Where the environment variable NAS_EDGE_REQUIRE names what is missing, as in
`NAS_EDGE_REQUIRE=adbd,benchmark_model,chromium`, it fails: what CI prepares must not silently go untested.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

import pytest

from tests.support.data import DATA, NO_DATA
from tests.support.farm import ray_missing


def _chromium() -> str:
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"needs {' and '.join(missing)} (packages chromium, chromium-driver)" if missing else ""


# What each of the Pythons that `tools/prepare_board_python.py` makes is called there, and where in its cache it lies.
_BOARD_PYTHONS = {
    "board_python": ("old", "python3.[789]-*/bin/python"),
    "aarch64_python": ("aarch64", "aarch64-*/usr/bin/python3-emulated"),
}


def board_python(name: str = "board_python") -> str:
    """A Python as boards have it, with NumPy and a TFLite runtime, named by NAS_EDGE_(NAME) or cached; "" for none."""
    named = os.environ.get(f"NAS_EDGE_{name.upper()}", "")
    if named:
        return shutil.which(named) or ""
    found = sorted((_cache() / "board-python").glob(_BOARD_PYTHONS[name][1]))
    return str(found[-1]) if found else ""


def _cache() -> Path:
    """Where the tools keep what they made, see tools/debian.py."""
    root = os.environ.get("NAS_EDGE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "nas_edge"
    return Path(root).expanduser()


def _no_python(name: str) -> str:
    prepare = f"tools/prepare_board_python.py {_BOARD_PYTHONS[name][0]}"
    return "" if board_python(name) else f"needs {prepare}, or NAS_EDGE_{name.upper()}"


# By name, what says that it is missing, or "". Those that tell only once they are started call `missing` themselves.
CHECKS: Mapping[str, Callable[[], str]] = {
    "adbd": lambda: "",  # tools/prepare_adbd.py
    "aarch64_python": lambda: _no_python("aarch64_python"),
    "board_python": lambda: _no_python("board_python"),
    "benchmark_model": lambda: "",  # tools/build_benchmark_model.py
    "cc": lambda: "" if shutil.which("cc") else "needs a C compiler, cc (package gcc)",
    "chromium": _chromium,
    "ray": ray_missing,
    "sshd": lambda: "",  # tests/support/ssh.py
    "data": lambda: "" if DATA.is_dir() else NO_DATA,
}


def required() -> frozenset[str]:
    """The names in NAS_EDGE_REQUIRE."""
    names = frozenset(filter(None, os.environ.get("NAS_EDGE_REQUIRE", "").replace(" ", "").split(",")))
    if unknown := names - set(CHECKS):
        raise pytest.UsageError(f"NAS_EDGE_REQUIRE: supported: {', '.join(CHECKS)}; received {', '.join(unknown)}")
    return names


def missing(name: str, reason: str) -> NoReturn:
    """Ends a test for lack of what it needs: as skipped, or as failed where that is required."""
    if name in required():
        pytest.fail(f"{name} is required (NAS_EDGE_REQUIRE) but missing: {reason}", pytrace=False)
    pytest.skip(reason)


def check(name: str) -> None:
    """Ends a test that needs something which is missing."""
    if reason := CHECKS[name]():
        missing(name, reason)
