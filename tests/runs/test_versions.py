"""Run folders of other versions: gone on with or refused with the reason, never misread.

In `folders/` are what earlier versions wrote; `test_old_runs.py` uses and continues them all.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from device_agents.api import Verdict
from nas_edge.errors import RunError
from nas_edge.runs.environment import environment
from nas_edge.runs.listing import list_runs
from nas_edge.runs.run import Run
from nas_edge.search.trials import Trial

FOLDERS = Path(__file__).parent / "folders"


@pytest.fixture
def old(tmp_path: Path) -> Callable[[str], Path]:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(FOLDERS / name, tmp_path / "runs" / name))

    return copy


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_of_the_second_version_goes_on(old: Callable[[str], Path]) -> None:
    """Settings and fields that came later have the values that were meant then."""
    run = Run.open(old("schema_2"))
    assert run.changed_settings(run.config) == []
    assert run.config.device.timing_inputs == 0
    with run.lock(), closing(run.open_journal(pytest.fail)) as journal:
        trials = journal.read(Trial.from_json)
    first, second = (trial.measurement for trial in trials)
    assert first is not None
    assert second is not None
    assert (first.latency_ms, first.runs_per_sample, second.verdict) == (1.25, 1, Verdict.OUT_OF_MEMORY)
    columns = run.trials()
    assert (columns.latency_ms, columns.reward) == ([1.25, None], [0.4833, None])
    first_session = run.read_json("environment.json")["sessions"][0]
    run.add_session(environment({}, first_session["measured_with"]))
    (summary,) = list_runs(run.folder.parent)
    assert summary.row()[1:-1] == ("stopped", "proxylessnas", "1.500", "best trial", "1.250", "50.00%", "7/24")


def changed(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def lines(path: Path, *records: Any) -> None:
    """Writes a journal with these records, their checksums right."""
    bodies = [json.dumps(record, separators=(",", ":")) for record in records]
    path.write_text(
        "".join(
            f'{{"seq":{seq},"crc":"{zlib.crc32(f"{seq}:{body}".encode()):08x}","record":{body}}}\n'
            for seq, body in enumerate(bodies)
        )
    )


HEADER = {"format": "nas_edge journal", "schema_version": 1}


def test_newer_versions_are_refused_with_the_reason(old: Callable[[str], Path]) -> None:
    folder = old("schema_2")
    config, journal, sessions = folder / "config.json", folder / "journal.jsonl", folder / "environment.json"
    before = contents(folder)

    changed(sessions, schema_version=2)
    with pytest.raises(RunError, match=r"environment.json was written by another version: schema 2, expected 1"):
        Run.open(folder).add_session(environment({}, {}))

    lines(journal, {**HEADER, "schema_version": 2})
    for read in (Run.open(folder).trials, lambda: list(Run.open(folder).journal())):
        with pytest.raises(RunError, match="journal of another version"):
            read()

    changed(config, colour="blue")
    with pytest.raises(RunError, match="setting colour, which this version does not know; use the nas_edge that wrote"):
        _ = Run.open(folder).config

    changed(config, schema_version=4)
    with pytest.raises(RunError, match="schema 4, expected 3; use the version of nas_edge that wrote it"):
        Run.open(folder)
    assert contents(folder).keys() == before.keys()


@pytest.mark.parametrize(
    "change",
    [
        {"measurement": {"schema": 2}},
        {"measurement": {"schema": 1, "verdict": "splendid", "samples_ms": [1.0]}},
        {"architecture": "a:b"},
        {"architecture": None},
        {"measurement": 3},
    ],
)
def test_a_record_this_version_cannot_read_is_refused_with_its_place(
    old: Callable[[str], Path], change: dict[str, Any]
) -> None:
    run = Run.open(old("schema_2"))
    good = next(run.journal())
    lines(run.path("journal.jsonl"), HEADER, good, {**good, **change})
    with (
        closing(run.open_journal(pytest.fail)) as journal,
        pytest.raises(RunError, match=r"record 1 of .*journal.jsonl is not in this version's format"),
    ):
        journal.read(Trial.from_json)


@pytest.mark.parametrize(
    "record",
    [{}, [], 3, None, {"measurement": None}, {"measurement": {"samples_ms": [1.0]}}, {"step": "1"}, {"quality": "x"}],
)
def test_trials_as_columns_are_no_less_careful(old: Callable[[str], Path], record: Any) -> None:
    run = Run.open(old("schema_2"))
    good = next(run.journal())
    partly = isinstance(record, dict) and not {"measurement"} & record.keys() and record
    lines(run.path("journal.jsonl"), HEADER, good, {**good, **record} if partly else record)
    with pytest.raises(RunError, match=r"journal.jsonl (is not (a trial|in)|holds)"):
        run.trials()
