"""Recordings are replayed as they were; tables answer like devices."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from device_agents.api import Measurement, Verdict
from nas_edge.errors import RunError
from nas_edge.latency.replay import DelayedSource, RecordingSource, ReplaySource, TableSource
from nas_edge.latency.source import Candidate, LatencySource
from nas_edge.latency.table import LinearTable, Term
from tests.fakes import FunctionSource, failed, timed
from tests.latency.candidates import SPACE, ManualSource, candidate


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "latencies.jsonl"


def ask(source: LatencySource, index: int) -> Measurement:
    return source.submit(candidate(index)).result(timeout=10)


def record(path: Path, *answers: tuple[int, Measurement]) -> None:
    remaining = iter([answer for _, answer in answers])
    with RecordingSource(FunctionSource(lambda _: next(remaining)), path, "int8") as source:
        for index, answer in answers:
            assert ask(source, index) == answer


def test_what_was_recorded_is_replayed(path: Path) -> None:
    answers = [Measurement(Verdict.OK, samples_ms=(1.0, 1.5), busy_s=0.25), failed(Verdict.LOAD_FAILED)]
    record(path, *enumerate(answers))
    source = ReplaySource(path, "int8")
    assert len(source) == 2
    assert [ask(source, i) for i in (1, 0, 1)] == [answers[1], answers[0], answers[1]]


def test_a_recording_is_continued(path: Path) -> None:
    record(path, (0, timed(1.0)))
    record(path, (1, timed(2.0)))
    assert len(ReplaySource(path, "int8")) == 2


def test_of_several_answers_the_first_good_one_counts(path: Path) -> None:
    record(path, (0, failed(Verdict.UNSTEADY)), (0, timed(1.0)), (0, timed(2.0)), (1, failed(Verdict.TIMEOUT)))
    source = ReplaySource(path, "int8")
    assert [ask(source, 0).latency_ms for _ in range(3)] == [1.0] * 3
    assert ask(source, 1).verdict is Verdict.TIMEOUT


def test_a_network_that_was_not_recorded_is_an_error_that_names_it(path: Path) -> None:
    record(path, (0, timed(1.0)))
    source = ReplaySource(path, "int8")
    with pytest.raises(RunError, match=f"architecture {candidate(1).architecture}"):
        ask(source, 1)
    network = candidate(1).network
    with pytest.raises(RunError, match=network.fingerprint):
        source.submit(Candidate(network)).result()


def test_another_precision_is_another_latency(path: Path) -> None:
    record(path, (0, timed(1.0)))
    with pytest.raises(RunError, match="has no float32 latency"):
        ask(ReplaySource(path, "float32"), 0)


def test_a_recording_cut_off_anywhere_keeps_its_whole_lines_and_can_be_continued(path: Path) -> None:
    record(path, (0, timed(1.0)), (1, timed(2.0)))
    content = path.read_bytes()
    ends = [at + 1 for at, byte in enumerate(content) if byte == ord("\n")]
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        whole = sum(end <= length for end in ends)
        assert len(ReplaySource(path, "int8")) == whole
        record(path, (2, timed(3.0)))
        assert len(ReplaySource(path, "int8")) == whole + 1


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '{"schema": 2}', '{"schema": 1, "network": "x"}', "\xff"])
def test_damage_is_an_error_that_names_the_line(path: Path, damage: str) -> None:
    record(path, (0, timed(1.0)))
    path.write_bytes(path.read_bytes() + damage.encode("latin-1") + b"\n")
    with pytest.raises(RunError, match="line 2"):
        ReplaySource(path, "int8")


def test_another_file_is_not_touched(path: Path) -> None:
    path.write_text("my notes")
    with pytest.raises(RunError, match="not a recording"):
        RecordingSource(ManualSource(), path, "int8")
    assert path.read_text() == "my notes"


def test_files_that_cannot_be_opened_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot read the recording"):
        ReplaySource(tmp_path / "missing", "int8")
    with pytest.raises(RunError, match="cannot write the recording"):
        RecordingSource(ManualSource(), tmp_path / "missing" / "file", "int8")


def test_answers_are_recorded_with_their_architecture_and_errors_are_not(path: Path) -> None:
    inner = ManualSource()
    with RecordingSource(inner, path, "int8") as source:
        futures = [source.submit(candidate(i)) for i in range(2)]
        inner.futures[1].set_exception(ConnectionError("unplugged"))
        inner.futures[0].set_result(timed(1.0))
        assert futures[0].result(timeout=1) == timed(1.0)
        assert isinstance(futures[1].exception(timeout=1), ConnectionError)
    (line,) = path.read_text().splitlines()
    assert json.loads(line)["architecture"] == str(candidate(0).architecture)
    assert inner.closed


def test_delayed_answers_take_as_long_as_the_device_took_and_come_one_by_one() -> None:
    slept: list[float] = []
    at_once = threading.Lock()

    def sleep(seconds: float) -> None:
        assert at_once.acquire(blocking=False)
        slept.append(seconds)
        at_once.release()

    inner = FunctionSource(lambda c: Measurement(Verdict.OK, samples_ms=(1.0,), busy_s=len(c.network.nodes) / 100))
    with DelayedSource(inner, sleep=sleep) as source:
        futures = [source.submit(candidate(i)) for i in range(5)]
        busy_s = [future.result(timeout=10).busy_s for future in futures]
    assert slept == busy_s


def test_a_table_answers_for_architectures_of_its_space() -> None:
    path = SPACE.decisions[0].path
    values = SPACE.decisions[0].choices
    table = LinearTable(SPACE, [Term({path: value}, float(i)) for i, value in enumerate(values)], bias_ms=2.0)
    with TableSource(table, "a table") as source:
        assert not source.measures_on_host
        for index in range(len(values)):
            architecture = candidate(index).architecture
            assert architecture is not None
            assert ask(source, index).latency_ms == 2.0 + architecture.choices[0]
        with pytest.raises(RunError, match="a table knows the architectures of its space only"):
            source.submit(Candidate(candidate(0).network)).result()
