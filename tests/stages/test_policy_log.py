"""The record of how a controller settled: the same after any interruption, and never in a search's way."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nas_edge.controllers.random_search import RandomSearchController
from nas_edge.errors import RunError
from nas_edge.runs.files import FILES, Files
from nas_edge.runs.journal import Journal, read_journal
from nas_edge.stages.policy_log import POLICY_RECORDS, PolicyLog, is_noted, set_damaged_aside
from nas_edge.testing.problems import nested_space
from tests.support.faults import Bench, FaultyFiles, Killed, disk_full


def search(bench: Bench, folder: Path, files: Files = FILES) -> bytes:
    """Runs or continues the search of a folder, of which only the policy's record may be hard to write."""
    recorded = bench.recorded(folder, bench.loop(), say=pytest.fail)
    loop = recorded.loop
    with closing(Journal(folder / "policy.jsonl", lambda _: None, files)) as journal:
        log = PolicyLog(journal, loop.step, loop.steps)
        recorded.run(lambda report: log.write(report.step, loop.controller))
    return (folder / "policy.jsonl").read_bytes()


@pytest.mark.parametrize("partly", [False, True])
@pytest.mark.parametrize("fault", [Killed, disk_full])
def test_stopped_at_any_call_that_writes_it(bench: Bench, tmp_path: Path, fault: Any, partly: bool) -> None:
    whole = search(bench, tmp_path / "whole")
    at, finished = 0, False
    while not finished:
        files = FaultyFiles(at, fault, partly)
        try:
            search(bench, tmp_path / str(at), files)
            finished = True
        except (Killed, RunError):
            pass
        assert search(bench, tmp_path / str(at)) == whole
        # In the search each step is an append and a sync; the first calls make the file.
        at += 1 if fault is Killed or at < 4 else 3
    assert at > 20


def test_it_is_noted_at_the_first_step_now_and_then_and_at_the_last() -> None:
    assert [step for step in range(9) if is_noted(step, 9)] == list(range(9))
    steps = 5 * POLICY_RECORDS + 3
    noted = [step for step in range(steps) if is_noted(step, steps)]
    assert noted == [*range(0, steps, 5), steps - 1]


def written(path: Path, *records: dict[str, Any]) -> bytes:
    with closing(Journal(path, pytest.fail)) as journal:
        for record in records:
            journal.append(record)
    return path.read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(written(path, {"step": 1}).replace(b'"step"', b'"steq"')),
        lambda path: path.write_bytes(b"\0" * 100 + b"\n"),
        lambda path: written(path, {"step": "first"}),
        lambda path: written(path, {}),
        lambda path: path.mkdir(),
    ],
)
def test_a_damaged_one_is_set_aside_and_that_is_said(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    path = tmp_path / "policy.jsonl"
    for number in (1, 2):
        damage(path)
        kept = path.is_file() and path.read_bytes()
        said: list[str] = []
        set_damaged_aside(path, said.append)
        assert not path.exists()
        aside = tmp_path / f"policy.jsonl.damaged-{number}"
        assert (aside.is_file() and aside.read_bytes()) == kept
        (line,) = said
        assert f"it is kept as {aside.name}" in line
        assert "\n" not in line


def test_a_good_one_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "policy.jsonl"
    set_damaged_aside(path, pytest.fail)
    content = written(path, {"step": 1, "probabilities": [[1.0]]}) + b'{"seq":2'
    path.write_bytes(content)  # its end is torn, as a killed process leaves it
    set_damaged_aside(path, pytest.fail)
    assert path.read_bytes() == content
    assert len(read_journal(path).records) == 1


def test_a_controller_without_a_policy_is_not_noted(tmp_path: Path) -> None:
    class NoPolicy(RandomSearchController):
        def probabilities(self) -> None:  # type: ignore[override]
            return None

    path = tmp_path / "policy.jsonl"
    with closing(Journal(path, pytest.fail)) as journal:
        PolicyLog(journal, 0, 1).write(0, NoPolicy(nested_space()))
    assert read_journal(path).records == []
