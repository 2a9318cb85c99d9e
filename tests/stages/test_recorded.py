"""A search that was interrupted, in any way and anywhere, and continued is the search that was not."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_agents.api import Measurement, Verdict
from nas_edge.errors import RunError, StoppedError
from nas_edge.latency.answer import LatencyAnswer, LatencyKind
from nas_edge.latency.cache import CachedSource, MeasuringKey
from nas_edge.latency.hybrid import HybridSettings, HybridSource
from nas_edge.latency.pooled import PooledSettings
from nas_edge.latency.source import Candidate, LatencySource, RewardAt
from nas_edge.networks.analysis import analyze
from nas_edge.runs.interrupts import StopSignals
from nas_edge.runs.journal import read_journal
from nas_edge.search.faults import UNUSABLE_IN_A_ROW
from nas_edge.search.one_shot import OneShotSearch
from nas_edge.search.trials import Trial
from nas_edge.spaces.decisions import Architecture
from tests.support.faults import SPACE, Bench, FaultyFiles, Killed, Stop, adam_weights, continued, disk_full
from tests.support.sources import FunctionSource, failed, timed, visited

KEY = MeasuringKey("int8", "device", "litert", "settings")


def killed_and_continued(
    bench: Bench, folder: Path, source: Callable[[], LatencySource], settings: dict[str, Any], *killed_at: int
) -> list[Trial]:
    """Trials of a search that came out the same when it was killed at any of these calls that write, and continued."""
    search = bench.recorded(folder / "whole", bench.loop(source(), **settings))
    search.run()
    trials, whole = search.trials, bench.outcome(folder / "whole", search)
    for at in killed_at:
        with pytest.raises(Killed):
            bench.recorded(folder / str(at), bench.loop(source(), **settings), FaultyFiles(at, Killed)).run()
        search = bench.recorded(folder / str(at), bench.loop(source(), **settings), say=pytest.fail)
        search.run()
        assert bench.outcome(folder / str(at), search) == whole
    return trials


@pytest.mark.parametrize("settings", [{}, {"reward_delay_steps": 2}])
def test_stopped_after_any_step(bench: Bench, tmp_path: Path, settings: dict[str, Any]) -> None:
    search = bench.recorded(tmp_path / "whole", bench.loop(**settings))
    search.run()
    whole = bench.outcome(tmp_path / "whole", search)
    for after in range(2, 9):
        folder = tmp_path / str(after)
        stop = Stop(after)
        search = bench.recorded(folder, bench.loop(**settings))
        with pytest.raises(StoppedError, match=f"after step {after} of 9"):
            search.run(stop.count, stop)
        found = continued(bench, folder, **settings)
        assert found[0] == whole[0]
        assert found[2:] == whole[2:]


@pytest.mark.parametrize("partly", [False, True])
@pytest.mark.parametrize("fault", [Killed, disk_full])
def test_stopped_at_any_call_that_writes(bench: Bench, tmp_path: Path, fault: Any, partly: bool) -> None:
    search = bench.recorded(tmp_path / "whole", bench.loop(steps=5), checkpoint_steps=2)
    search.run()
    whole = bench.outcome(tmp_path / "whole", search)
    at, finished = 0, False
    while not finished:
        folder = tmp_path / str(at)
        try:
            bench.recorded(folder, bench.loop(steps=5), FaultyFiles(at, fault, partly), checkpoint_steps=2).run()
            finished = True
        except (Killed, RunError):
            pass
        said: list[str] = []
        search = bench.recorded(folder, bench.loop(steps=5), say=said.append, checkpoint_steps=2)
        search.run()
        assert bench.outcome(folder, search) == whole
        assert all("dropped the last record" in text for text in said)
        at += 1 if fault is Killed and not partly else 4  # the others differ in a few of the places only
    assert at > 25


def test_killed_again_and_again(bench: Bench, tmp_path: Path, whole: Any) -> None:
    rng = np.random.default_rng(0)
    for _ in range(12):
        try:
            files = FaultyFiles(int(rng.integers(1, 16)), Killed, bool(rng.integers(2)))
            bench.recorded(tmp_path / "run", bench.loop(), files).run()
        except Killed:
            continue
    assert continued(bench, tmp_path / "run") == whole


def test_no_device_is_asked_again_for_what_it_answered(bench: Bench, tmp_path: Path, whole: Any) -> None:
    """Not even when the answer is one that no cache keeps, or when the device would now answer otherwise."""
    answers = iter(
        [failed(Verdict.UNSTEADY), timed(0.5), failed(Verdict.RUN_FAILED), *map(timed, np.linspace(1, 2, 40))]
    )
    log: list[str] = []

    def measure(candidate: Candidate) -> Measurement:
        log.append(str(candidate.architecture))
        return next(answers)

    search = bench.recorded(tmp_path / "run", bench.loop(FunctionSource(measure)), FaultyFiles(16, Killed))
    with pytest.raises(Killed):
        search.run()
    assert 3 < len(log) < 14
    before = read_journal(tmp_path / "run" / "journal.jsonl").records
    asked = len(log)
    search = bench.recorded(tmp_path / "run", bench.loop(FunctionSource(measure)), say=pytest.fail)
    search.run()
    trials = read_journal(tmp_path / "run" / "journal.jsonl").records
    assert trials[: len(before)] == before
    assert len(trials) == 14
    # Of the step in which it was killed, what was not in the journal yet had to be asked again.
    assert len(log) - asked == 14 - len(before)


def test_with_a_cache_nothing_at_all_is_measured_twice(bench: Bench, tmp_path: Path) -> None:
    log: list[str] = []

    def measure(candidate: Candidate) -> Measurement:
        log.append(candidate.network.fingerprint)
        return timed(analyze(candidate.network).macs / 1e5)

    for at in (9, 7, 6, 99):
        with CachedSource(FunctionSource(measure), tmp_path / "measurements.sqlite", KEY) as source:
            try:
                bench.recorded(tmp_path / "run", bench.loop(source), FaultyFiles(at, Killed)).run()
            except Killed:
                continue
    assert len(read_journal(tmp_path / "run" / "journal.jsonl").records) == 14
    assert len(log) == len(set(log))


@pytest.mark.parametrize(("on_host", "attends_delay"), [(False, False), (True, False), (False, True)])
def test_steadied_latencies_come_out_the_same_wherever_it_was_killed(
    bench: Bench, tmp_path: Path, on_host: bool, attends_delay: bool
) -> None:
    """The model that steadies them is that of the trials before, which are in the journal; the delay has none."""
    settings: Any = {"pooled": PooledSettings(fewest=4), "steps": 12, "reward_delay_steps": 2}
    settings["attends_delay"] = attends_delay

    def source() -> FunctionSource:
        """Of an architecture it always says the same, as a cache would have it; every third is noisy."""

        def measure(candidate: Candidate) -> Measurement:
            true_ms = analyze(candidate.network).macs / 1e5
            if sum(candidate.architecture.choices if candidate.architecture else ()) % 3 == 0:
                return visited(1.05 * true_ms, Verdict.CORRECTED, 0.04)
            return visited(true_ms)

        return FunctionSource(measure, on_host)

    trials = killed_and_continued(bench, tmp_path, source, settings, 10, 14, 19, 24, 31)
    assert sum(trial.adjusted is not None for trial in trials) >= 3


@pytest.mark.parametrize("on_host", [False, True])
def test_what_is_predicted_and_what_measured_follows_from_the_journal(
    bench: Bench, tmp_path: Path, on_host: bool
) -> None:
    settings: Any = {"steps": 24, "delay_fraction": 0.0, "op_warmup_fraction": 0.0, "filter_warmup_fraction": 0.0}
    settings["reward_delay_steps"] = 2

    def source() -> HybridSource:
        return HybridSource(FunctionSource(bench.measure, on_host), SPACE, HybridSettings(first=10, share=0.4))

    trials = killed_and_continued(bench, tmp_path, source, settings, 30, 47)
    kinds = [trial.latency and trial.latency.kind for trial in trials]
    assert kinds.count(LatencyKind.MEASURED) >= 10
    assert kinds.count(LatencyKind.PREDICTED) >= 5


def test_what_waited_at_a_kill_is_neither_answered_nor_measured_again(bench: Bench, tmp_path: Path) -> None:
    """Predictions change as models are fitted again, and no cache keeps a `corrected` latency."""
    settings: Any = {"steps": 24, "delay_fraction": 0.0, "op_warmup_fraction": 0.0, "filter_warmup_fraction": 0.0}
    settings["reward_delay_steps"] = 3
    asked: list[str] = []

    def measure(candidate: Candidate) -> Measurement:
        """Never twice the same."""
        asked.append(str(candidate.architecture))
        return visited(analyze(candidate.network).macs / 1e5 * (1 + 0.003 * len(asked)), Verdict.CORRECTED, 0.04)

    def loop() -> OneShotSearch:
        return bench.loop(HybridSource(FunctionSource(measure), SPACE, HybridSettings(first=10, share=0.6)), **settings)

    folder = tmp_path / "run"
    with pytest.raises(Killed):
        bench.recorded(folder, loop(), FaultyFiles(20, Killed), checkpoint_steps=6).run()
    before, count = read_journal(folder / "journal.jsonl").records, len(asked)
    search = bench.recorded(folder, loop(), say=pytest.fail, checkpoint_steps=6)
    search.run()
    trials = read_journal(folder / "journal.jsonl").records
    assert trials[: len(before)] == before
    assert len(trials) == 48
    new = [trial.latency and trial.latency.kind for trial in search.trials[len(before) :]]
    assert LatencyKind.PREDICTED in new
    assert len(asked) - count <= new.count(LatencyKind.MEASURED)


class Refitted(FunctionSource):
    """Predicts otherwise after each trial that it is told of."""

    def __init__(self) -> None:
        super().__init__(lambda _: LatencyAnswer.estimated(LatencyKind.PREDICTED, 1 + 0.01 * self.told))
        self.told = 0

    def take(self, architecture: Architecture, answer: LatencyAnswer, reward_at: RewardAt) -> None:
        self.told += 1


def test_an_answer_of_before_a_kill_is_given_to_its_own_proposal_only(bench: Bench, tmp_path: Path) -> None:
    settings: Any = {"reward_delay_steps": 2, "samples_per_step": 4, "delay_fraction": 0.0}
    settings |= {"op_warmup_fraction": 0.0, "filter_warmup_fraction": 0.0}
    killed_and_continued(bench, tmp_path, Refitted, settings, 22, 36)


def test_latencies_under_way_are_asked_for_again(bench: Bench, tmp_path: Path) -> None:
    """With late rewards a checkpoint may hold proposals whose latencies have not arrived."""
    settings = {"reward_delay_steps": 3, "samples_per_step": 1}

    class Slow(FunctionSource):
        """Answers when the next but one is asked for."""

        def __init__(self) -> None:
            super().__init__(bench.measure)
            self._late: list[tuple[Future[LatencyAnswer], Candidate]] = []

        def submit(self, candidate: Candidate) -> Future[LatencyAnswer]:
            self._late.append((Future(), candidate))
            if len(self._late) > 2:
                future, earlier = self._late[-3]
                future.set_result(LatencyAnswer.measured(bench.measure(earlier)))
            return self._late[-1][0]

    search = bench.recorded(tmp_path / "run", bench.loop(Slow(), **settings))
    stop = Stop(5)
    with pytest.raises(StoppedError):
        search.run(stop.count, stop)
    assert isinstance(search.loop, OneShotSearch)
    assert any(not future.done() for pending in search.loop._pending for future in pending.latencies if future)
    found = continued(bench, tmp_path / "run", **settings)
    search = bench.recorded(tmp_path / "whole", bench.loop(**settings))
    search.run()
    whole = bench.outcome(tmp_path / "whole", search)
    assert found[0] == whole[0]
    assert found[2:] == whole[2:]


def test_the_newest_checkpoint_damaged(bench: Bench, tmp_path: Path, whole: Any) -> None:
    with pytest.raises(Killed):
        bench.recorded(tmp_path / "run", bench.loop(), FaultyFiles(28, Killed)).run()
    newest = max((tmp_path / "run" / "checkpoints").glob("*.npz"))
    newest.write_bytes(newest.read_bytes()[:-1])
    said: list[str] = []
    search = bench.recorded(tmp_path / "run", bench.loop(), say=said.append)
    search.run()
    assert bench.outcome(tmp_path / "run", search) == whole
    assert newest.name in said[0]


def test_a_journal_that_lost_what_the_checkpoint_speaks_of_is_refused(bench: Bench, tmp_path: Path) -> None:
    bench.recorded(tmp_path / "run", bench.loop()).run()
    path = tmp_path / "run" / "journal.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(RunError, match="holds 13 trials"):
        bench.recorded(tmp_path / "run", bench.loop())


def test_more_steps_follow_the_new_schedule_and_lose_no_trial(bench: Bench, tmp_path: Path) -> None:
    stop = Stop(6)
    search = bench.recorded(tmp_path / "run", bench.loop())
    with pytest.raises(StoppedError):
        search.run(stop.count, stop)
    before = (tmp_path / "run" / "journal.jsonl").read_bytes()
    search = bench.recorded(tmp_path / "run", bench.loop(steps=12), say=pytest.fail)
    search.run()
    assert search.loop.step == 12
    assert (tmp_path / "run" / "journal.jsonl").read_bytes().startswith(before)


def test_steps_that_come_out_otherwise_are_replaced_and_that_is_said(bench: Bench, tmp_path: Path) -> None:
    stop = Stop(5)
    with pytest.raises(StoppedError):
        bench.recorded(tmp_path / "run", bench.loop(seed=5)).run(stop.count, stop)
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.unlink()
    said: list[str] = []
    search = bench.recorded(tmp_path / "run", bench.loop(seed=6), say=said.append)
    search.run()
    assert [text for text in said if "came out otherwise" in text]
    records = read_journal(tmp_path / "run" / "journal.jsonl").records
    assert records == [trial.to_json() for trial in search.trials]


def test_a_checkpoint_of_another_search_is_refused(bench: Bench, tmp_path: Path) -> None:
    bench.recorded(tmp_path / "run", bench.loop()).run()
    loop = bench.loop()
    loop.weight_steps.weights = adam_weights()
    with pytest.raises(RunError, match="do not fit"):
        bench.recorded(tmp_path / "run", loop)


def test_a_bench_that_stays_broken_does_not_get_a_new_budget_by_resuming(bench: Bench, tmp_path: Path) -> None:
    source = FunctionSource(lambda _: failed(Verdict.DEVICE_LOST))
    settings = {"steps": 2 * UNUSABLE_IN_A_ROW, "samples_per_step": 1}
    stop = Stop(22)
    search = bench.recorded(tmp_path / "run", bench.loop(source, **settings))
    with pytest.raises(StoppedError):
        search.run(stop.count, stop)
    count = len(read_journal(tmp_path / "run" / "journal.jsonl").records)
    assert 0 < count < UNUSABLE_IN_A_ROW
    search = bench.recorded(tmp_path / "run", bench.loop(source, **settings))
    with pytest.raises(RunError, match=f"last {UNUSABLE_IN_A_ROW} measurements"):
        search.run()


@pytest.fixture
def stop() -> Iterator[StopSignals]:
    with StopSignals() as stop:
        yield stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_and_a_second_one_ends_it_at_once(
    bench: Bench, tmp_path: Path, whole: Any, stop: StopSignals, number: signal.Signals
) -> None:
    search = bench.recorded(tmp_path / "run", bench.loop(), checkpoint_steps=100)
    with pytest.raises(StoppedError, match="after step 4 of 9"):
        search.run(lambda report: signal.raise_signal(number) if report.step == 2 else None, stop)
    search = bench.recorded(tmp_path / "run", bench.loop(), checkpoint_steps=100)
    assert search.loop.step == 4

    def impatient(_: object) -> None:
        stop.requested = False
        signal.raise_signal(number)
        signal.raise_signal(number)

    with pytest.raises(KeyboardInterrupt):
        search.run(impatient, stop)
    assert continued(bench, tmp_path / "run")[2:] == whole[2:]


def test_outside_the_loop_a_signal_stops_at_once(stop: StopSignals) -> None:
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == stop._handle
