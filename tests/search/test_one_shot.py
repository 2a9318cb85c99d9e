"""The TuNAS loop, with real shared weights and injected latencies."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future
from threading import Timer
from typing import Any

import keras
import numpy as np
import pytest

from device_agents.api import Measurement, Verdict
from nas_edge.controllers.categorical import CategoricalController
from nas_edge.errors import RunError
from nas_edge.latency.answer import LatencyAnswer
from nas_edge.latency.pooled import PooledLatency, PooledSettings
from nas_edge.latency.source import Candidate
from nas_edge.networks.analysis import analyze
from nas_edge.rewards import Objective
from nas_edge.search.evaluation import Evaluator
from nas_edge.search.faults import UNUSABLE_IN_A_ROW
from nas_edge.search.loop import StepReport
from nas_edge.search.one_shot import OneShotSearch, OneShotSettings
from nas_edge.search.trials import Trial
from nas_edge.spaces.decisions import Architecture
from nas_edge.spaces.extremes import largest
from nas_edge.supernet.shared_weights import SharedWeights
from nas_edge.supernet.supernet import Supernet, one_hot_masks
from tests.support.batches import BrightnessBatches
from tests.support.faults import Bench
from tests.support.searches import one_shot_search
from tests.support.sources import FunctionSource, failed, timed, visited
from tests.support.spaces import tiny_space
from tests.support.tasks import CLASSIFICATION, OPTIMIZATION

SPACE = tiny_space()


@pytest.fixture(scope="module")
def shared() -> SharedWeights:
    """Compiled once; tests that train it further do not care where it stands."""
    return SharedWeights(Supernet(SPACE, seed=0), keras.optimizers.SGD(0.05), CLASSIFICATION, OPTIMIZATION)


def make_search(
    shared: SharedWeights, measure: Callable[[Candidate], Measurement], seed: int = 0, **settings: Any
) -> OneShotSearch:
    config = OneShotSettings(**{"steps": 8, "delay_fraction": 0.25, **settings})
    controller = CategoricalController(SPACE, config.steps, delay_steps=config.delay_steps)
    rng = np.random.default_rng(seed)
    objectives = [Objective("latency_ms", 1.0)]
    source = FunctionSource(measure)
    return one_shot_search(
        shared, controller, source, objectives, BrightnessBatches(1), BrightnessBatches(2), rng, config
    )


def run(search: OneShotSearch) -> list[StepReport]:
    reports: list[StepReport] = []
    search.run(reports.append)
    return reports


def test_only_weights_are_trained_during_the_delay(shared: SharedWeights) -> None:
    search = make_search(shared, lambda _: timed(1.0))
    reports = run(search)
    assert [len(report.trials) for report in reports] == [0, 0, 1, 1, 1, 1, 1, 1]
    assert len(search.evaluator.latency.asked) == 6  # type: ignore[attr-defined]


def test_in_a_sandwich_the_largest_network_teaches_each_proposal(
    shared: SharedWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught = []
    step = SharedWeights.train_taught_step

    def noted(weights: SharedWeights, images: Any, targets: Any, masks: Any, teacher: Any) -> float:
        taught.append((masks.copy(), teacher))
        return step(weights, images, targets, masks, teacher)

    monkeypatch.setattr(SharedWeights, "train_taught_step", noted)
    reports = run(make_search(shared, lambda _: timed(1.0), steps=4, samples_per_step=2, sandwich=True))
    assert len(taught) == 8
    assert all(np.array_equal(teacher, one_hot_masks(SPACE, largest(SPACE))) for _, teacher in taught)
    proposed = [one_hot_masks(SPACE, trial.architecture) for report in reports for trial in report.trials]
    for (masks, _), architecture in zip(taught[-len(proposed) :], proposed, strict=True):
        active = SPACE.active(Architecture(tuple(architecture.argmax(axis=1))))
        assert np.array_equal(masks[np.array(active)], architecture[np.array(active)])


def test_a_sandwich_is_of_one_proposal() -> None:
    with pytest.raises(ValueError, match="sandwich=true requires weight_updates=sequential"):
        OneShotSettings(sandwich=True, weight_updates="averaged")


def test_every_sampled_candidate_is_measured_and_its_latency_enters_its_reward(shared: SharedWeights) -> None:
    def measure(candidate: Candidate) -> Measurement:
        return timed(analyze(candidate.network).macs / 1e5)

    for report in run(make_search(shared, measure, samples_per_step=3)):
        for trial in report.trials:
            expected_ms = analyze(SPACE.decode(trial.architecture)).macs / 1e5
            assert trial.latency_ms == expected_ms
            assert trial.quality is not None
            assert trial.reward == pytest.approx(trial.quality - 0.1 * abs(expected_ms - 1.0))


def test_failed_candidate_does_not_stop_the_search(shared: SharedWeights) -> None:
    verdicts = iter([Verdict.RUN_FAILED, Verdict.TIMEOUT, Verdict.OUT_OF_MEMORY])

    def measure(_: Candidate) -> Measurement:
        verdict = next(verdicts, None)
        return timed(1.0) if verdict is None else failed(verdict)

    trials = [trial for report in run(make_search(shared, measure)) for trial in report.trials]
    assert [trial.reward is None for trial in trials] == [True] * 3 + [False] * 3
    assert trials[0].measurement is not None
    assert trials[0].measurement.verdict is Verdict.RUN_FAILED


def test_what_the_bench_could_not_time_teaches_the_controller_nothing(shared: SharedWeights) -> None:
    search = make_search(shared, lambda _: failed(Verdict.DEVICE_LOST))
    run(search)
    assert all(len(set(row)) == 1 for row in search.controller.probabilities().values())


def test_a_bench_that_never_answers_ends_the_search_with_the_reason(shared: SharedWeights) -> None:
    search = make_search(shared, lambda _: failed(Verdict.UNSTEADY), steps=UNUSABLE_IN_A_ROW + 8)
    with pytest.raises(RunError, match="unsteady"):
        run(search)


def test_a_broken_bench_is_an_exception(shared: SharedWeights) -> None:
    def measure(_: Candidate) -> Measurement:
        raise ConnectionError("unplugged")

    with pytest.raises(ConnectionError):
        run(make_search(shared, measure))


def test_shared_weights_learn_and_the_controller_hits_the_target(shared: SharedWeights) -> None:
    target_macs = 5_000  # of 300 to 13,000
    search = make_search(
        shared,
        lambda c: timed(analyze(c.network).macs / target_macs),
        steps=240,
        samples_per_step=2,
    )
    search.controller = CategoricalController(
        SPACE, 240, base_learning_rate=0.1, delay_steps=60, accumulate_during_delay=False
    )
    reports = run(search)
    late = [trial for report in reports[-20:] for trial in report.trials]
    assert np.mean([trial.quality for trial in late]) > 0.8
    # Other processors round otherwise, which makes of it another search: with six seeds it came to 0.81 to 1.13 of it.
    winner = SPACE.decode(search.controller.most_likely())
    assert analyze(winner).macs == pytest.approx(target_macs, rel=0.5)


def test_an_averaged_step_makes_one_update_with_the_mean_gradient_of_its_proposals(shared: SharedWeights) -> None:
    before = shared.arrays()
    search = make_search(shared, lambda _: timed(1.0), samples_per_step=3, weight_updates="averaged", steps=4)
    proposed: list[Any] = []
    average = shared.train_averaged

    def averaged(samples: Any, count: int) -> list[float]:
        proposed.extend(samples)
        return average(proposed, count)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared, "train_averaged", averaged)
        report = search.take_step()
    after = shared.arrays()
    alone, losses = [], []
    for sample in proposed:
        shared.restore(before)
        losses.append(shared.train_step(*sample))
        alone.append(shared.arrays())
    assert report.loss == pytest.approx(np.mean(losses), rel=1e-5)
    for name, array in after.items():
        if name.startswith("weights/"):  # SGD moves them in proportion to the gradient
            np.testing.assert_allclose(array, np.mean([one[name] for one in alone], axis=0), rtol=1e-5, atol=1e-6)
    iterations = next(name for name in after if name.endswith("iteration"))
    assert after[iterations] == before[iterations] + 1
    shared.restore(before)


def test_a_search_with_averaged_updates_resumes_exactly() -> None:
    bench = Bench()
    whole = bench.loop(weight_updates="averaged")
    whole.run()
    expected = whole.arrays()
    part = bench.loop(weight_updates="averaged")
    for _ in range(4):
        part.take_step()
    state, arrays = json.loads(json.dumps(part.state())), part.arrays()
    resumed = bench.loop(weight_updates="averaged")
    resumed.restore(state)
    resumed.restore_arrays(arrays)
    resumed.run()
    assert resumed.state() == whole.state()
    for name, array in resumed.arrays().items():
        np.testing.assert_array_equal(array, expected[name])


def test_the_schedule_of_the_weights_counts_updates_and_goes_by_the_images_of_one() -> None:
    sequential = OneShotSettings(steps=10, samples_per_step=4, weight_updates="sequential")
    averaged = OneShotSettings(steps=10, samples_per_step=4, weight_updates="averaged")
    assert (sequential.updates_per_step, averaged.updates_per_step) == (4, 1)
    assert averaged.peak_learning_rate == pytest.approx(4 * sequential.peak_learning_rate)
    published = OneShotSettings(samples_per_step=32, weight_updates="averaged")  # 4,096 images per update
    assert published.peak_learning_rate == pytest.approx(2.64)


def test_a_late_reward_is_late_by_the_same_number_of_steps_and_none_is_lost(shared: SharedWeights) -> None:
    reports = run(make_search(shared, lambda _: timed(1.0), reward_delay_steps=2))
    assert [len(report.trials) for report in reports] == [0, 0, 0, 0, 1, 1, 1, 3]
    trials = [trial for report in reports for trial in report.trials]
    assert [trial.step for trial in trials] == [2, 3, 4, 5, 6, 7]
    assert [trial.rewarded_step for trial in trials] == [4, 5, 6, 7, 7, 7]


def test_candidates_on_this_host_are_measured_together_when_the_first_of_them_is_due(shared: SharedWeights) -> None:
    source = FunctionSource(lambda _: timed(1.0), on_host=True)
    search = make_search(shared, lambda _: timed(1.0), reward_delay_steps=2, samples_per_step=2)
    search.evaluator.latency = source
    asked: list[int] = []
    reports: list[StepReport] = []
    search.run(lambda report: (asked.append(len(source.asked)), reports.append(report)))  # type: ignore[func-returns-value]
    assert asked == [0, 0, 0, 0, 6, 6, 6, 12]
    assert [len(report.trials) for report in reports] == [0, 0, 0, 0, 2, 2, 2, 6]
    trials = [trial for report in reports for trial in report.trials]
    assert [trial.architecture for trial in trials] == [candidate.architecture for candidate in source.asked]


def test_nothing_trains_while_this_host_measures(shared: SharedWeights) -> None:
    search = make_search(shared, lambda _: timed(1.0), reward_delay_steps=1)
    measuring: list[Future[LatencyAnswer]] = []

    class Slow(FunctionSource):
        def submit(self, candidate: Candidate) -> Future[LatencyAnswer]:
            future: Future[LatencyAnswer] = Future()
            measuring.append(future)
            Timer(0.02, lambda: future.set_result(LatencyAnswer.measured(timed(1.0)))).start()
            return future

    search.evaluator.latency = Slow(lambda _: timed(1.0), on_host=True)
    train, idle = shared.train_step, []

    def trained(*arguments: Any) -> float:
        idle.append(all(future.done() for future in measuring))
        return train(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared, "train_step", trained)
        run(search)
    assert len(measuring) == 6
    assert all(idle)


def test_a_noisy_latency_is_steadied_by_those_of_other_candidates_and_the_trial_has_both(shared: SharedWeights) -> None:
    answers = iter([*[Verdict.OK] * 20, *[Verdict.CORRECTED] * 10])

    def measure(candidate: Candidate) -> Measurement:
        verdict = next(answers)
        noise = 1.0 if verdict is Verdict.OK else 1.05
        return visited(noise * analyze(candidate.network).macs / 1e5, verdict, 0.01 if noise == 1.0 else 0.04)

    search = make_search(shared, measure, steps=40, delay_fraction=0.25)
    search.evaluator = Evaluator(
        SPACE, search.evaluator.quality, search.evaluator.latency, search.evaluator.objectives,
        search.evaluator._reward, PooledLatency(SPACE, PooledSettings(fewest=5)),
    )  # fmt: skip
    trials = [trial for report in run(search) for trial in report.trials]
    assert all(trial.adjusted is None for trial in trials[:20])
    steadied = [trial for trial in trials[20:] if trial.adjusted is not None]
    assert len(steadied) >= 5
    for trial in steadied:
        assert trial.latency is not None
        assert trial.usage == {"latency_ms": trial.latency_ms}
        assert trial.latency_ms != trial.latency.latency_ms
        assert trial.reward == pytest.approx((trial.quality or 0) - 0.1 * abs((trial.latency_ms or 0) - 1.0))
        assert Trial.from_json(trial.to_json()) == trial


def test_trial_survives_the_journal(shared: SharedWeights) -> None:
    trial = run(make_search(shared, lambda _: timed(1.25)))[-1].trials[0]
    assert Trial.from_json(trial.to_json()) == trial
