"""`search.distribution=mirrored` from the command line, on two logical CPUs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nas_edge.runs.run import Run

COMMAND = """
import atexit
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
from tests.support.spaces import TINY
from nas_edge import cli
from nas_edge.spaces import SPACES
from nas_edge.supernet.distribution import make_strategy
SPACES.entries["tiny"] = TINY
atexit.register(lambda: print(make_strategy("mirrored").num_replicas_in_sync, "replicas"))
cli.main()
"""
SETTINGS = (
    "space.name=tiny",
    "space.reference=proxylessnas-mobile",
    "search.distribution=mirrored",
    "search.weight_updates=averaged",
    "search.steps=6",
    "target.latency_ms=0.5",
    "target.limit=none",
    "training.epochs=1",
    # The machines that run tests are shared; what is worth what on them is tested elsewhere.
    *(f"{stage}.{limit}" for stage in ("measure", "final_measure") for limit in ("max_risk=1", "patience_s=0")),
)


def search(out: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    assignments = [part for setting in settings for part in ("--set", setting)]
    arguments = [sys.executable, "-c", COMMAND, "search", "--preset", "smoke", "--out", str(out), *assignments]
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_search_on_two_replicas_delivers(tmp_path: Path) -> None:
    done = search(tmp_path / "run", *SETTINGS, "search.samples_per_step=2")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "2 replicas" in done.stdout
    run = Run.open(tmp_path / "run")
    assert run.finished
    assert max(run.trials().rewarded_step) == 5


@pytest.mark.slow
def test_proposals_that_replicas_cannot_share_out_are_refused(tmp_path: Path) -> None:
    done = search(tmp_path / "run", *SETTINGS, "search.samples_per_step=3")
    assert done.returncode == 2
    assert "search.samples_per_step=3 cannot be shared out among the 2 replicas" in done.stderr
