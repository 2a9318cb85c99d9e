"""The command line as a user types it, in this process: a fresh one takes seconds to load TensorFlow.

What ends a process, and what it loads, is tested with processes (`tests/runs/test_processes.py`).
"""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from subprocess import CompletedProcess

import pytest

from nas_edge import cli


def nas_edge(*arguments: str) -> CompletedProcess[str]:
    """Runs `nas-edge` with these arguments; what a terminal would show is in `stdout` and `stderr`."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["nas-edge", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
    assert isinstance(end.value.code, int)
    return CompletedProcess(arguments, end.value.code, out.getvalue(), err.getvalue())
