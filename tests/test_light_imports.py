"""What answers at once, or runs without a network, loads neither TensorFlow nor other heavy packages."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "tensorflow",
    "keras",
    "asyncssh",
    "optuna",
    "torch",
    "scipy",
    "sklearn",
    "adb_shell",
    "adbutils",
    "pandas",
    "ray",
)
LIGHT = (
    "nas_edge.api",
    "nas_edge.benchmarking",
    "nas_edge.cli",
    "nas_edge.config",
    "nas_edge.doctor",
    "nas_edge.pipeline",
    "nas_edge.search.methods",
    "nas_edge.stages.context",
    "nas_edge.stages.searching",
    "device_agents.devices",
)


@pytest.mark.parametrize("module", LIGHT)
def test_importing_it_is_quick(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert loaded == []
