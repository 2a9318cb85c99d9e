"""The run folder: one writer, never misread, and it says why when it cannot be used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas_edge.config import RunConfig, load_config
from nas_edge.errors import ConfigError, RunError
from nas_edge.runs.environment import environment
from nas_edge.runs.run import CHANGEABLE, Run
from tests.runs.faults import FaultyFiles, disk_full

KEY = {"precision": "int8", "device": "0123", "runtime": "litert 2", "settings": "abc"}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", load_config("smoke"))


def test_settings_come_back(run: Run) -> None:
    assert Run.open(run.folder).config == load_config("smoke")


@pytest.mark.parametrize(("version", "reason"), [(1, "earlier nas_edge"), (3, "another version"), (None, "another")])
def test_other_versions_are_refused_with_the_reason(run: Run, version: int | None, reason: str) -> None:
    settings = run.read_json("config.json")
    run.write_json("config.json", {**settings, "schema_version": version})
    with pytest.raises(RunError, match=reason):
        Run.open(run.folder)


def test_what_may_change_and_what_may_not(run: Run) -> None:
    def changed(*settings: str) -> RunConfig:
        return load_config(settings=settings, base=run.config)

    assert run.changed_settings(run.config) == []
    allowed = changed("search.steps=99", "device.addresses=['replay:x.json']", "runs.checkpoint_steps=5")
    assert run.changed_settings(allowed) == sorted(CHANGEABLE)
    run.write_config(allowed)
    assert run.config == allowed
    for setting in ("seed=3", "data.source=photos", "target.beta=-0.2", "search.weights.epochs=3"):
        path, _, value = setting.partition("=")
        with pytest.raises(ConfigError, match=f"^{path} is .*{value.strip('-')}.*search.steps, device.addresses"):
            run.changed_settings(changed(setting))


def test_latencies_of_another_device_or_runtime_are_refused(run: Run) -> None:
    first = environment({"model": "phone"}, KEY)
    assert run.add_session(first) == []
    assert run.add_session(environment({"model": "the same kind of phone"}, KEY)) == []
    for what in KEY:
        with pytest.raises(RunError, match=f"{what}.*phone.*other phone"):
            run.add_session(environment({"model": "other phone"}, {**KEY, what: "other"}))
    sessions = run.read_json("environment.json")["sessions"]
    assert len(sessions) == 2
    assert sessions[0]["packages"]["numpy"] == np.__version__
    assert sessions[0]["measured_with"] == KEY


def test_changed_packages_are_told(run: Run) -> None:
    first = environment({}, KEY)
    run.add_session({**first, "packages": {**first["packages"], "keras": "1.0"}})
    assert [text.split()[:2] for text in run.add_session(first)] == [["keras", "1.0"]]


def test_a_stage_is_done_once(run: Run) -> None:
    done: list[int] = []

    def work() -> dict[str, Any]:
        done.append(1)
        return {"target_ms": 0.1 + 0.2}

    assert [run.once("target", work) for _ in range(2)] == [{"target_ms": 0.1 + 0.2}] * 2
    assert done == [1]
    run.path("stages/target.json").write_text("{")
    with pytest.raises(RunError, match=r"target\.json"):
        run.once("target", work)


def test_trained_weights_are_kept_to_the_bit(run: Run) -> None:
    weights = {"a/b": (np.float32([[0.1, 0.2]]), np.float32([3])), "c": (np.zeros((0, 2), np.float32),)}
    first = run.weights_once("winner/weights.npz", lambda: weights)
    again = run.weights_once("winner/weights.npz", lambda: pytest.fail("trained twice"))
    for found in (first, again):
        assert {n: [a.tobytes() for a in g] for n, g in found.items()} == {
            n: [a.tobytes() for a in g] for n, g in weights.items()
        }
    path = run.path("winner/weights.npz")
    content = bytearray(path.read_bytes())
    content[content.index(np.float32(0.2).tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match="remove it"):
        run.read_weights("winner/weights.npz")


def test_a_file_that_cannot_be_written_leaves_the_one_before(run: Run) -> None:
    run.write_json("stages/target.json", {"target_ms": 1})
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    for at in range(3):
        broken = Run(run.folder, FaultyFiles(at, disk_full, partly=True))
        with pytest.raises(RunError, match=r"target.json: No space left on device.*--resume"):
            broken.write_json("stages/target.json", {"target_ms": 2})
        for path, content in before.items():
            assert path.read_bytes() == content


HOLD = "import sys; from pathlib import Path; from nas_edge.runs.lock import RunLock\n"
HOLD += "with RunLock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"


def holder(run: Run) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, str(run.path("lock"))]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_writer_is_told_who_the_first_is_and_a_killed_one_holds_nothing(run: Run) -> None:
    with holder(run) as process:
        assert run.in_use
        with pytest.raises(RunError, match=f"in use by process {process.pid} on"), run.lock():
            pass
        process.kill()
    assert not run.in_use
    with run.lock():
        assert run.in_use
        assert json.loads(run.path("lock").read_text())["pid"] == os.getpid()
        with pytest.raises(RunError, match=f"process {os.getpid()}"), run.lock():
            pass
    assert not run.in_use


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A folder on a file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"cannot mount a small file system: {error}")
    if done.returncode:
        pytest.skip(f"cannot mount a small file system: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    run = Run.create(small_disk / "run", load_config("smoke"))
    run.write_json("stages/target.json", {"target_ms": 1})
    journal = run.open_journal(pytest.fail)
    journal.append({"step": 0})
    for _ in range(4):
        journal.append({"samples_ms": [0.5] * 40_000})
    with pytest.raises(RunError, match="No space left on device"):
        journal.append({"samples_ms": [0.5] * 100_000})
    with pytest.raises(RunError, match="No space left on device"):
        run.write_json("stages/target.json", {"text": "x" * 2**20})
    journal.close()
    assert run.read_json("stages/target.json") == {"target_ms": 1}
    assert not list(run.folder.rglob("*.tmp"))
    count = len(list(run.journal()))
    journal = run.open_journal(pytest.fail)
    journal.append({"step": 1})  # the room that the half-written record took is there again
    journal.close()
    assert next(run.journal()) == {"step": 0}
    assert len([*run.journal()]) == count + 1
