"""Checkpoints: the newest whole one, whatever happened to the folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nas_edge.errors import RunError
from nas_edge.runs import checkpoints as module
from nas_edge.runs.checkpoints import Checkpoint, Checkpoints
from tests.support.faults import FaultyFiles, Killed, disk_full


def make(step: int) -> Checkpoint:
    rng = np.random.default_rng(step)
    arrays = {"weights/a b/kernel": rng.normal(size=(3, 4)).astype(np.float32), "optimizer/0/iteration": np.int64(step)}
    return Checkpoint(
        step, {"rng": {"state": 2**127 + step}, "reward": 0.1 + 0.2}, {n: np.asarray(a) for n, a in arrays.items()}
    )


def silent(text: str) -> None:
    pytest.fail(f"nothing should be said, received {text}")


def assert_same(loaded: Checkpoint | None, expected: Checkpoint) -> None:
    assert loaded is not None
    assert (loaded.step, loaded.state) == (expected.step, expected.state)
    assert loaded.arrays.keys() == expected.arrays.keys()
    for name, array in expected.arrays.items():
        assert loaded.arrays[name].dtype == array.dtype
        assert loaded.arrays[name].shape == array.shape
        assert loaded.arrays[name].tobytes() == array.tobytes()


def test_the_last_two_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.load(silent) is None
    assert checkpoints.newest_step() is None
    for step in (3, 6, 9, 12):
        checkpoints.save(make(step))
    assert_same(checkpoints.load(silent), make(12))
    assert checkpoints.newest_step() == 12
    assert sorted(path.name[:8] for path in (tmp_path / "c").iterdir()) == ["00000009", "00000012"]


def test_one_step_has_one_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (3, 6):
        checkpoints.save(make(step))
    other = Checkpoint(6, {"other": True}, make(6).arrays)
    checkpoints.save(other)
    assert_same(checkpoints.load(silent), other)
    assert sorted(path.name[:8] for path in tmp_path.iterdir()) == ["00000003", "00000006"]


@pytest.mark.parametrize("damage", [lambda c: c[:-1], lambda c: b"", lambda c: c[:100] + b"\0" + c[101:]])
def test_a_damaged_one_is_named_and_the_one_before_is_read(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(make(3))
    checkpoints.save(make(6))
    newest = max(tmp_path.iterdir())
    newest.write_bytes(damage(newest.read_bytes()))
    said: list[str] = []
    assert_same(checkpoints.load(said.append), make(3))
    assert len(said) == 1
    assert newest.name in said[0]


def test_when_all_are_damaged_the_search_does_not_start_anew_by_itself(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(make(3))
    next(tmp_path.iterdir()).write_bytes(b"x")
    with pytest.raises(RunError, match="every checkpoint"):
        checkpoints.load(lambda _: None)


def test_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(make(3))
    monkeypatch.setattr(module, "SCHEMA_VERSION", 2)
    with pytest.raises(RunError, match="another version"):
        checkpoints.load(silent)


@pytest.mark.parametrize("partly", [False, True])
@pytest.mark.parametrize("fault", [Killed, disk_full])
def test_stopped_between_any_two_calls_there_is_a_whole_one(tmp_path: Path, fault, partly: bool) -> None:  # type: ignore[no-untyped-def]
    for at in range(20):
        folder = tmp_path / str(at)
        for step in (3, 6):
            Checkpoints(folder).save(make(step))
        files = FaultyFiles(at, fault, partly)
        try:
            Checkpoints(folder, files).save(make(9))
        except (Killed, RunError):
            pass
        else:
            break
        loaded = Checkpoints(folder).load(silent)
        assert loaded is not None
        assert_same(loaded, make(loaded.step))
        assert loaded.step >= 6
        Checkpoints(folder).save(make(12))  # and what was left over is tidied up
        assert len(list(folder.iterdir())) == 2
    assert at > 4
