"""The command line on a board: OpenSSH's real server, and the real worker with the real runtime."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from device_agents.api import PRESETS
from device_agents.ssh import board
from nas_edge import cli
from nas_edge.export.bundle import verify_bundle
from nas_edge.runs.run import Run
from nas_edge.search.trials import Trial
from nas_edge.spaces import SPACES
from tests.support import models
from tests.support.spaces import TINY
from tests.support.ssh import SshServer, serving

STEPS = 8


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[SshServer]:
    with serving(tmp_path_factory.mktemp("ssh"), home) as server:
        yield server


def run(*arguments: str, codes: tuple[int, ...] = (0,)) -> str:
    result = CliRunner().invoke(cli.nas_edge, arguments, catch_exceptions=False)
    assert result.exit_code in codes, result.output
    return result.output


def nothing_is_left(server: SshServer) -> bool:
    return not server.workers() and not Path(board.LOCK).exists()


def test_a_board_is_among_the_addresses_that_are_listed() -> None:
    assert "ssh://[USER@]HOST[:PORT]" in run("devices", codes=(0, 1))


def test_a_benchmark_on_a_board_prints_the_table_it_prints_for_this_machine(
    server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "search", PRESETS["search"].replace(max_risk=1.0, patience_s=0.0))
    model, out = tmp_path / "net.tflite", tmp_path / "out.json"
    model.write_bytes(models.conv_model(layers=2, channels=8, side=16))
    devices = ("--device", server.address, "--device", "host:")
    run("benchmark", str(model), "--preset", "search", *devices, "--format", "json", "--out", str(out))
    on_board, on_host = (row["measurement"] for row in json.loads(out.read_text())["rows"])
    assert on_board["samples_ms"]
    assert on_board["conditions"]["device_model"] == on_host["conditions"]["device_model"]
    assert nothing_is_left(server)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["cut", "kill"])
def test_a_search_on_a_board_loses_no_candidate_when_its_link_or_worker_goes(
    server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setitem(SPACES.entries, "tiny", TINY)
    out = tmp_path / "run"
    striking = strike_after(out / "journal.jsonl", 3, lambda: strike(server, fault))
    short = ["--space", "tiny", "--steps", str(STEPS), "--set", "training.epochs=0.5", "--limit", "none"]
    # The tiny space's networks take less than a microsecond on some machines.
    short += ["--set", "space.input_size=32"]
    output = run("search", "--preset", "smoke", "--device", server.address, *short, "--out", str(out), codes=(0, 3, 4))
    striking.join(20)
    trials = [Trial.from_json(record) for record in Run.open(out).journal()]
    assert [trial.step for trial in trials] == [step for step in range(STEPS // 4, STEPS) for _ in range(2)]
    assert all(trial.measurement is not None and trial.measurement.samples_ms for trial in trials), output
    assert {trial.measurement.conditions.runtime for trial in trials} == {"ai_edge_litert"}  # type: ignore[union-attr]
    result = json.loads((out / "result.json").read_text())
    for precision in verify_bundle(out / "bundle").models:
        assert result["on_device_check"][precision]["agrees"]
    assert nothing_is_left(server)


def strike(server: SshServer, fault: str) -> None:
    if fault == "cut":
        server.cut()
    for pid in server.workers() if fault == "kill" else []:
        os.kill(pid, signal.SIGKILL)


def strike_after(journal: Path, records: int, does: Callable[[], None]) -> threading.Thread:
    """Does something once a search has got somewhere."""

    def wait() -> None:
        deadline_s = time.monotonic() + 120
        while not journal.is_file() or journal.read_bytes().count(b"\n") <= records:
            if time.monotonic() > deadline_s:
                return
            time.sleep(0.005)
        does()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread
