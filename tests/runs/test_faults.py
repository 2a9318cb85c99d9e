"""What goes wrong around a search, each on the real component: it ends with one clear error, or goes on, and nothing
of what was found is lost.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_agents.api import BenchmarkSpec, Measurement, Verdict
from device_agents.errors import DeviceUnavailableError
from device_agents.host import HostAgent
from device_agents.pool import DevicePool, PoolSettings
from nas_edge.errors import RunError, TrainingError
from nas_edge.latency.answer import LatencyAnswer
from nas_edge.latency.cache import CachedSource, MeasuringKey, repair
from nas_edge.latency.device import DeviceSource
from nas_edge.latency.retry import RetryingSource
from nas_edge.latency.source import Candidate, LatencySource
from nas_edge.networks.tflite_model import tflite_model
from nas_edge.runs.checkpoints import Checkpoints
from nas_edge.runs.journal import read_journal
from nas_edge.search.loop import StepReport
from tests.support import models
from tests.support.agents import FunctionAgent
from tests.support.batches import SeededBatches
from tests.support.candidates import ManualSource, candidate
from tests.support.faults import Bench, FaultyFiles, Killed, continued
from tests.support.sources import FunctionSource, failed, timed
from tests.support.spaces import tiny_space

KEY = MeasuringKey("int8", "device", "litert", "settings")


def records(folder: Path) -> list[dict[str, Any]]:
    return read_journal(folder / "journal.jsonl").records


# ---------------------------------------------------------------- the device


class Phone:
    """A phone that can be unplugged; how long a model takes follows from its file. Nobody has it here."""

    def __init__(self) -> None:
        self.plugged, self.asked = True, 0

    def measure(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        self.asked += 1
        self.check()
        return timed(len(model) / 1e4)

    def check(self) -> None:
        if not self.plugged:
            raise DeviceUnavailableError("unplugged")

    def source(self) -> LatencySource:
        settings = PoolSettings(quarantine_s=0.01, lost_after_s=0.1)
        agent = FunctionAgent(self.measure, check=self.check)
        agent.recorded = True  # one answer per candidate, without times of visits, so that journals can be compared
        return RetryingSource(DeviceSource([agent], "int8", BenchmarkSpec(), settings))


@pytest.mark.parametrize("settings", [{}, {"reward_delay_steps": 2}])
def test_a_device_that_is_lost_for_ever_stops_the_search_and_costs_no_trial(
    bench: Bench, tmp_path: Path, settings: dict[str, Any]
) -> None:
    phone = Phone()
    with phone.source() as source:
        search = bench.recorded(tmp_path / "whole", bench.loop(source, **settings))
        search.run()
        whole = bench.outcome(tmp_path / "whole", search)

    def unplug(report: StepReport) -> None:
        if report.step == 5:
            phone.plugged, phone.asked = False, 0

    with phone.source() as source:
        search = bench.recorded(tmp_path / "run", bench.loop(source, **settings))
        with pytest.raises(DeviceUnavailableError, match=r"No device of this kind answers any more.*unplugged") as lost:
            search.run(unplug)
    assert "\n" not in str(lost.value)
    assert phone.asked <= 2 * 3  # tries of the pool for each of the candidates under way
    before = records(tmp_path / "run")
    assert before
    assert {record["measurement"]["verdict"] for record in before} == {"ok"}

    phone.plugged = True
    with phone.source() as source:
        assert continued(bench, tmp_path / "run", source=source, **settings) == whole
    assert records(tmp_path / "run")[: len(before)] == before


def test_a_candidate_that_takes_its_device_down_is_a_trial_and_the_search_goes_on(bench: Bench, tmp_path: Path) -> None:
    phone = Phone()
    killers: set[bytes] = set()

    def measure(model: bytes, spec: BenchmarkSpec) -> Measurement:
        if phone.asked == 9:
            killers.add(model)
        measurement = phone.measure(model, spec)
        if model in killers:
            raise DeviceUnavailableError("rebooting")
        return measurement

    settings = PoolSettings(quarantine_s=0.01)
    agent = FunctionAgent(measure)
    agent.recorded = True  # one answer per candidate, so that it is a candidate that is asked for
    device = DeviceSource([agent], "int8", BenchmarkSpec(), settings)
    with RetryingSource(device) as source:
        bench.recorded(tmp_path / "run", bench.loop(source)).run()
    verdicts = [record["measurement"]["verdict"] for record in records(tmp_path / "run")]
    assert len(verdicts) == 14
    assert set(verdicts) == {"ok", "device_lost"}


class Inflated(LatencySource):
    """Measures on this host, with larger images; candidates of one kernel size as a model of a third of a gigabyte."""

    def __init__(self) -> None:
        self._space = tiny_space(96)
        self._pool = DevicePool([HostAgent()])
        self._spec = BenchmarkSpec(
            min_runs=6,
            max_runs=6,
            min_duration_s=0.0,
            warmup_min_duration_s=0.0,
            warmup_max_duration_s=0.01,
            max_relative_half_width=9.0,
            memory_limit_bytes=256 * 2**20,
        )

    @property
    def name(self) -> str:
        return "this host"

    def submit(self, candidate: Candidate) -> Future[LatencyAnswer]:
        assert candidate.architecture is not None
        large = candidate.architecture.choices[0] == 1
        network = self._space.decode(candidate.architecture)
        file = models.huge_model(0.33) if large else tflite_model(network, "int8")
        answer: Future[LatencyAnswer] = Future()
        measured = self._pool.submit(file, self._spec)
        measured.add_done_callback(lambda done: answer.set_result(LatencyAnswer.measured(done.result())))
        return answer

    def close(self) -> None:
        self._pool.close()


def test_candidates_that_do_not_fit_in_memory_are_trials_and_the_search_goes_on(bench: Bench, tmp_path: Path) -> None:
    with Inflated() as source:
        bench.recorded(tmp_path / "run", bench.loop(source, steps=6)).run()
    large = 0
    for record in records(tmp_path / "run"):
        verdict = record["measurement"]["verdict"]
        if record["architecture"].startswith("1:"):
            large += 1
            assert verdict == "out_of_memory"
            assert record["reward"] is None
        else:
            assert verdict in ("ok", "unsteady", "drifted", "throttled")  # as busy as this machine is
    assert 0 < large < len(records(tmp_path / "run"))


def test_every_candidate_failing_is_recorded_and_not_measured_again(bench: Bench, tmp_path: Path) -> None:
    source = FunctionSource(lambda _: failed(Verdict.OUT_OF_MEMORY))
    bench.recorded(tmp_path / "run", bench.loop(source)).run()
    before = (tmp_path / "run" / "journal.jsonl").read_bytes()
    assert [record["reward"] for record in records(tmp_path / "run")] == [None] * 14
    again = FunctionSource(lambda _: pytest.fail("measured again"))
    search = bench.recorded(tmp_path / "run", bench.loop(again), say=pytest.fail)
    search.run()
    assert len(search.trials) == 14
    assert (tmp_path / "run" / "journal.jsonl").read_bytes() == before


# ---------------------------------------------------------------- the weights


class Poisoned(SeededBatches):
    """Batches of which one holds a pixel that is no number."""

    def __init__(self, seed: int, number: int) -> None:
        super().__init__(seed)
        self._poisoned = number

    def __next__(self) -> tuple[Any, Any]:
        images, labels = super().__next__()
        if self.state()["number"] == self._poisoned:
            images[0, 0, 0, 0] = np.nan
        return images, labels


def finite(arrays: Mapping[str, Any]) -> bool:
    return all(np.isfinite(array).all() for array in arrays.values())


@pytest.mark.parametrize("part", ["train", "validation"])
def test_weights_that_diverge_stop_the_search_at_the_last_good_checkpoint(
    bench: Bench, tmp_path: Path, whole: Any, part: str
) -> None:
    loop = bench.loop()
    poisoned = Poisoned({"train": 1, "validation": 2}[part], {"train": 10, "validation": 3}[part])
    setattr(loop.weight_steps, {"train": "train_batches"}.get(part, part), poisoned)
    search = bench.recorded(tmp_path / "run", loop)
    with pytest.raises(TrainingError, match=r"diverged: at step 4 .*--set search.weights.learning_rate=\d") as diverged:
        search.run()
    assert "\n" not in str(diverged.value)
    assert [record["step"] for record in records(tmp_path / "run")] == [2, 2, 3, 3]
    checkpoint = Checkpoints(tmp_path / "run" / "checkpoints").load(pytest.fail)
    assert checkpoint is not None
    assert checkpoint.step == 3
    assert finite(checkpoint.arrays)
    assert continued(bench, tmp_path / "run") == whole  # with data that is in order


def test_weights_that_diverged_unnoticed_are_never_a_checkpoint(bench: Bench, tmp_path: Path, whole: Any) -> None:
    """By the last update before it, say: no loss has shown it yet."""
    loop = bench.loop()

    def poison(report: StepReport) -> None:
        if report.step == 5:
            variable = loop.weights.supernet.trainable_variables[0]
            variable.assign(variable * np.nan)

    search = bench.recorded(tmp_path / "run", loop)
    with pytest.raises(TrainingError, match=r"diverged: at step 6 weights/.* holds values that are not numbers"):
        search.run(poison)
    checkpoint = Checkpoints(tmp_path / "run" / "checkpoints").load(pytest.fail)
    assert checkpoint is not None
    assert checkpoint.step == 3
    assert continued(bench, tmp_path / "run") == whole


# ---------------------------------------------------------------- the machine


def test_a_clock_that_jumps_back_changes_nothing(
    bench: Bench, tmp_path: Path, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = time.time()

    def backwards() -> float:
        nonlocal now_s
        now_s -= 3600
        return now_s

    monkeypatch.setattr(time, "time", backwards)
    for at in (12, 9, 99):
        with CachedSource(FunctionSource(bench.measure), tmp_path / "measurements.sqlite", KEY) as source:
            try:
                bench.recorded(tmp_path / "run", bench.loop(source), FaultyFiles(at, Killed)).run()
            except Killed:
                continue
    assert continued(bench, tmp_path / "run") == whole


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


def test_a_file_system_that_becomes_read_only(bench: Bench, tmp_path: Path, whole: Any, small_disk: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(small_disk)  # a file open for writing would keep it writable

    def protect(report: StepReport) -> None:
        if report.step == 4:
            remount(small_disk, "ro")

    search = bench.recorded(tmp_path / "run", bench.loop())
    with pytest.raises(RunError, match=r"cannot write .*checkpoints.*: Read-only file system.*--resume"):
        search.run(protect)
    remount(small_disk, "rw")
    assert continued(bench, tmp_path / "run") == whole


def test_a_full_disk_leaves_the_stored_latencies_whole(small_disk: Path) -> None:
    def measure(_: Candidate) -> Measurement:
        return Measurement(Verdict.OK, samples_ms=tuple(np.random.default_rng(0).uniform(size=2000)))

    path = small_disk / "measurements.sqlite"
    stored: dict[int, LatencyAnswer] = {}

    def fill() -> None:
        with CachedSource(FunctionSource(measure), path, KEY) as source:
            for index in range(99):
                stored[index] = source.submit(candidate(index)).result(timeout=10)

    with pytest.raises(RunError, match=r"cannot use the cache of latencies .*full"):
        fill()
    assert 3 < len(stored) < 99
    said: list[str] = []
    repair(path, KEY, lambda: (), said.append)
    with CachedSource(ManualSource(), path, KEY) as source:
        for index, answer in stored.items():
            assert source.submit(candidate(index)).result(timeout=10) == answer
    assert not said


# ---------------------------------------------------------------- chance


def test_one_seed_one_search_and_another_another(bench: Bench, tmp_path: Path, whole: Any) -> None:
    def outcome(seed: int) -> Any:
        folder = tmp_path / f"{seed}"
        search = bench.recorded(folder, bench.loop(seed=seed))
        search.run()
        return bench.outcome(folder, search)

    assert outcome(5) == whole
    other = outcome(6)
    assert other[0] != whole[0]
    assert other[2] != whole[2]
    assert other[4] != whole[4]
