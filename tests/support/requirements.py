"""What some tests need beside Python packages, and what becomes of a test where it is missing.

Such a test is skipped, and says why. Where the environment variable NAS_EDGE_REQUIRE names what is missing, as in
`NAS_EDGE_REQUIRE=adbd,benchmark_model,chromium`, it fails: what CI prepares must not silently go untested.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from typing import NoReturn

import pytest

from tests.support.data import DATA, NO_DATA
from tests.support.farm import ray_missing


def _chromium() -> str:
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"needs {' and '.join(missing)} (packages chromium, chromium-driver)" if missing else ""


def board_python() -> str:
    """The old Python of a board, with NumPy and a TFLite runtime, as NAS_EDGE_BOARD_PYTHON names it; "" without."""
    return shutil.which(os.environ.get("NAS_EDGE_BOARD_PYTHON", "")) or ""


def _board_python() -> str:
    what = "a Python 3.7 to 3.9 with numpy and tflite-runtime, named by NAS_EDGE_BOARD_PYTHON"
    return "" if board_python() else f"needs {what}"


# By name, what says that it is missing, or "". Those that tell only once they are started call `missing` themselves.
CHECKS: Mapping[str, Callable[[], str]] = {
    "adbd": lambda: "",  # tools/prepare_adbd.py
    "board_python": _board_python,
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
