"""Every seam is used by another package, through the command line; see the benchmark."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_no_file_changes_for_what_another_package_adds() -> None:
    command = [sys.executable, "-m", "benchmarks.extension_cost", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["pass"]
    assert last["figures"]["working"] == last["figures"]["seams"] == 10
