"""The run folder: one writer, never misread, and it says why when it cannot be used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas_edge.config import RunConfig, load_config
from nas_edge.errors import ConfigError, RunError
from nas_edge.runs.environment import environment
from nas_edge.runs.run import CHANGEABLE, Run
from tests.support.faults import FaultyFiles, Killed, disk_full, permission_lost, read_only

KEY = {"precision": "int8", "device": "0123", "runtime": "litert 2", "settings": "abc"}


# Another effort of measuring, of which everything differs from every preset.
EFFORT_AS = {
    "min_runs": 7,
    "max_runs": 77,
    "min_duration_s": 0.7,
    "max_duration_s": 7,
    "target_relative_half_width": 0.07,
    "max_relative_half_width": 0.077,
    "max_risk": 0.7,
    "patience_s": 7,
    "max_attempts": 7,
    "timeout_s": 77,
    "max_wait_share": 0.7,
    "max_shift": 0.7,
    "min_clock_ratio": 0.7,
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    with Run.create(tmp_path / "run", load_config("smoke")) as run:
        return run


def test_settings_come_back(run: Run) -> None:
    assert Run.open(run.folder).config == load_config("smoke")


@pytest.mark.parametrize(("version", "reason"), [(0, "another version"), (4, "another version"), (None, "another")])
def test_other_versions_are_refused_with_the_reason(run: Run, version: int | None, reason: str) -> None:
    settings = run.read_json("config.json")
    run.write_json("config.json", {**settings, "schema_version": version})
    with pytest.raises(RunError, match=reason):
        Run.open(run.folder)


def test_what_may_change_and_what_may_not(run: Run) -> None:
    def changed(*settings: str) -> RunConfig:
        return load_config(settings=settings, base=run.config)

    assert run.changed_settings(run.config) == []
    allowed = changed(
        "data.workers=3",
        "data.processes=2",
        "search.steps=99",
        "device.addresses=['replay:x.json']",
        "runs.checkpoint_steps=5",
        "runs.tensorboard=false",
        *(f"{group}.{name}={value}" for group in ("measure", "final_measure") for name, value in EFFORT_AS.items()),
    )
    assert run.changed_settings(allowed) == sorted(CHANGEABLE)
    run.write_config(allowed)
    assert run.config == allowed
    for setting in ("seed=3", "data.source=photos", "target.beta=-0.2", "search.weights.epochs=3"):
        path, _, value = setting.partition("=")
        with pytest.raises(ConfigError, match=f" {path} is .*{value.strip('-')}.*may change: search.steps, device"):
            run.changed_settings(changed(setting))
    with pytest.raises(ConfigError, match=r"seed is 0 .* become 3, target.beta is -0.1 .* become -0.2: what"):
        run.changed_settings(changed("seed=3", "target.beta=-0.2", "search.steps=99"))
    with pytest.raises(ConfigError, match=r"and so for [0-9]+ other settings:") as refusal:
        run.changed_settings(load_config("full"))
    assert len(str(refusal.value)) < 1000


def test_how_networks_are_trained_may_change_until_one_is(run: Run) -> None:
    """So that a training that diverged does not cost the search before it."""
    config = load_config(settings=["training.learning_rate=0.01"], base=run.config)
    assert run.changed_settings(config) == ["training.learning_rate"]
    run.write_weights("winner/weights.npz", {})
    with pytest.raises(ConfigError, match=r"training.learning_rate is .*as long as no network has been trained"):
        run.changed_settings(config)


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


def test_a_run_that_goes_by_a_table_keeps_to_its_device_and_its_table(run: Run) -> None:
    phone = {"model": "phone", "fingerprint": "0123", "runtime": "litert", "runtime_version": "2"}
    by_table = {**KEY, "latency_source": "table a"}
    run.add_session(environment(phone, by_table))
    for other in ({**by_table, "device": "4567"}, {**by_table, "latency_source": "table b"}, KEY):
        with pytest.raises(RunError, match="their latencies cannot be compared"):
            run.add_session(environment(phone, other))
    run.add_session(environment(phone, by_table))

    # Earlier manifests had the table's name in the device's place, and nothing of runtime and settings.
    run.path("environment.json").unlink()
    run.add_session(environment(phone, {"precision": "int8", "device": "table a", "runtime": "", "settings": ""}))
    for what in ("precision", "device", "runtime", "latency_source"):
        with pytest.raises(RunError, match=f"measured with {what} .* cannot be compared"):
            run.add_session(environment(phone, {**by_table, what: "other"}))
    run.add_session(environment(phone, by_table))


def test_a_manifest_that_still_says_judge_is_understood(run: Run) -> None:
    earlier = environment({"model": "phone"}, {**KEY, "judge": "table a"})
    run.write_json("environment.json", {"schema_version": 1, "sessions": [earlier]})
    assert run.add_session(environment({"model": "phone"}, {**KEY, "latency_source": "table a"})) == []
    for other in ({**KEY, "latency_source": "table b"}, KEY):
        with pytest.raises(RunError, match=r"measured with latency_source table a .* cannot be compared"):
            run.add_session(environment({"model": "phone"}, other))


@pytest.mark.parametrize("sessions", [None, {}, [3]])
def test_damaged_sessions_are_refused(run: Run, sessions: object) -> None:
    run.write_json("environment.json", {"schema_version": 1, "sessions": sessions})
    with pytest.raises(RunError, match=r"environment.json is damaged; expected a list of sessions"):
        run.add_session(environment({}, KEY))


def test_sessions_may_differ_in_effort_and_say_so(run: Run) -> None:
    run.add_session(environment({}, KEY, measuring={"measure": {"max_duration_s": 0.1}}))
    run.add_session(environment({}, KEY, measuring={"measure": {"max_duration_s": 2.0}}))
    efforts = [session["measuring"]["measure"] for session in run.read_json("environment.json")["sessions"]]
    assert efforts == [{"max_duration_s": 0.1}, {"max_duration_s": 2.0}]


def test_settings_of_an_earlier_version_which_counted_the_effort_among_them_do_not_stop_a_run(run: Run) -> None:
    earlier = environment({}, {**KEY, "settings": "with effort"})
    del earlier["measuring"]
    run.add_session(earlier)
    run.add_session(environment({}, KEY))
    with pytest.raises(RunError, match="measured with runtime"):
        run.add_session(environment({}, {**KEY, "runtime": "other"}))


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


@pytest.mark.parametrize("fault", [disk_full, read_only, permission_lost])
def test_a_file_that_cannot_be_written_leaves_the_one_before(run: Run, fault: Callable[[], OSError]) -> None:
    run.write_json("stages/target.json", {"target_ms": 1})
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    for at in range(3):
        broken = Run(run.folder, FaultyFiles(at, fault, partly=True))
        with pytest.raises(RunError, match=rf"target.json: {fault().strerror}.*--resume"):
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


def test_of_two_that_start_in_one_folder_at_once_one_does_and_its_settings_stay(tmp_path: Path) -> None:
    configs = [load_config("smoke", settings=[f"seed={seed}"]) for seed in range(2)]

    def start(folder: Path, config: RunConfig, together: threading.Barrier, hold: bool) -> int | None:
        together.wait()
        try:
            with Run.create(folder, config) as run:
                if hold:
                    together.wait()  # until the other was refused
                assert run.config == config
            return config.seed
        except RunError:
            if hold:
                together.wait()
            return None

    with ThreadPoolExecutor(2) as pool:
        for turn in range(60):
            folder, together = tmp_path / str(turn), threading.Barrier(2, timeout=60)
            begun = list(pool.map(partial(start, folder, together=together, hold=turn % 10 == 0), configs))
            (seed,) = [seed for seed in begun if seed is not None]
            assert Run.open(folder).config.seed == seed


def test_a_start_that_was_killed_before_its_settings_were_there_leaves_the_folder_free(tmp_path: Path) -> None:
    with pytest.raises(Killed), Run.create(tmp_path / "run", load_config("smoke"), FaultyFiles(2, Killed)):
        pass
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["lock"]
    with Run.create(tmp_path / "run", load_config("smoke")) as run:
        assert run.in_use
    with pytest.raises(RunError, match="already exists"), Run.create(run.folder, load_config("smoke")):
        pass


def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    with Run.create(small_disk / "run", load_config("smoke")) as run:
        pass
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
