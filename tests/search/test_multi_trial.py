"""Multi-trial search: every architecture evaluated once, whatever interrupts it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_agents.api import Measurement, Verdict
from nas_edge.controllers import CONTROLLERS, EvolutionController, Outcome, RandomSearchController, SearchPlan
from nas_edge.controllers.random_search import RandomSettings
from nas_edge.errors import RunError, StoppedError
from nas_edge.latency.answer import AdjustedLatency, LatencyAnswer
from nas_edge.latency.source import Candidate
from nas_edge.networks.analysis import analyze
from nas_edge.quality.column import ColumnQualitySettings
from nas_edge.quality.source import FunctionQuality, Quality
from nas_edge.registry import Entry
from nas_edge.rewards import REWARDS, Objective, soft
from nas_edge.runs.checkpoints import Checkpoints
from nas_edge.runs.journal import Journal
from nas_edge.search.evaluation import Evaluator
from nas_edge.search.faults import ALIKE_IN_A_ROW, UNUSABLE_IN_A_ROW
from nas_edge.search.methods import SearchContext, make_controller, make_search
from nas_edge.search.multi_trial import MultiTrialSearch, MultiTrialSettings
from nas_edge.search.one_shot import OneShotSettings
from nas_edge.search.trials import Trial
from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.stages.recorded import RecordedSearch
from nas_edge.testing.problems import table_context
from tests.support.faults import Stop
from tests.support.sources import FunctionSource, failed, timed
from tests.support.spaces import tiny_space

SPACE = tiny_space()
STEPS = 6


def macs(candidate: Candidate) -> float:
    return analyze(candidate.network).macs / 1e5


class Bench:
    """Makes the same search again and again, and remembers what was asked."""

    def __init__(
        self,
        quality: Callable[[Candidate], Quality] = lambda candidate: Quality(macs(candidate) / 100),
        measure: Callable[[Candidate], Measurement] = lambda candidate: timed(macs(candidate)),
    ) -> None:
        self.scored: list[str] = []
        self._quality, self._measure = quality, measure

    def search(self, controller: str = "evolution", seed: int = 5, **settings: Any) -> MultiTrialSearch:
        def scored(candidate: Candidate) -> Quality:
            self.scored.append(str(candidate.architecture))
            return self._quality(candidate)

        config = MultiTrialSettings(**{"steps": STEPS, "samples_per_step": 3, **settings})
        plan = SearchPlan(config.steps, 0, config.samples_per_step)
        evaluator = Evaluator(
            SPACE,
            FunctionQuality("a function", scored),
            FunctionSource(self._measure),
            [Objective("latency_ms", 1.0)],
            REWARDS[config.reward],
        )
        made = CONTROLLERS.make(CONTROLLERS.settings(controller), SPACE, plan)
        return MultiTrialSearch(made, evaluator, np.random.default_rng(seed), config)


def trials_of(search: MultiTrialSearch) -> list[Trial]:
    trials: list[Trial] = []
    search.run(lambda report: trials.extend(report.trials))
    return trials


def test_every_proposal_becomes_a_trial_with_a_reward() -> None:
    trials = trials_of(Bench().search())
    assert [trial.step for trial in trials] == [step for step in range(STEPS) for _ in range(3)]
    for trial in trials:
        expected_ms = macs(Candidate(SPACE.build(trial.architecture), trial.architecture))
        assert trial.rewarded_step == trial.step
        assert trial.latency_ms == expected_ms
        assert trial.quality == expected_ms / 100
        assert trial.usage == {"latency_ms": expected_ms}
        assert trial.reward is not None


def test_a_step_trains_nothing() -> None:
    report = Bench().search().take_step()
    assert (report.loss, report.step, len(report.trials)) == (None, 0, 3)


def test_a_controller_learns_what_rewards_are_made_of_and_how(monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[SearchPlan] = []
    told: list[Outcome] = []

    class Told(RandomSearchController):
        def update(self, outcomes: Sequence[Outcome], step: int) -> None:
            told.extend(outcomes)

    def make(settings: RandomSettings, space: SearchSpace, plan: SearchPlan) -> Told:
        plans.append(plan)
        return Told(space)

    monkeypatch.setitem(CONTROLLERS.entries, "random", Entry(RandomSettings, make))
    settings = MultiTrialSettings(
        steps=20, controller=RandomSettings(), quality=ColumnQualitySettings(column="quality"), reward="soft"
    )
    make_search(settings, table_context(FunctionSource(lambda _: timed(1.0)))).run()
    assert any(outcome.reward is None and outcome.usage == {"latency_ms": 1.0} for outcome in told), "no quality"
    known = [outcome for outcome in told if outcome.quality is not None]
    assert [o.reward for o in known] == [plans[0].reward(o.quality, o.usage) for o in known]  # type: ignore[misc,arg-type]
    assert known[0].reward == soft(known[0].quality or 0.0, {"latency_ms": 1.0}, [Objective("latency_ms", 2.0)])


def test_an_architecture_that_comes_up_again_is_not_scored_again() -> None:
    bench = Bench()
    trials = trials_of(bench.search("random", steps=40))
    assert len(trials) == 120 > SPACE.size
    assert len(bench.scored) == len(set(bench.scored)) == len({trial.architecture for trial in trials})


@pytest.mark.parametrize("controller", ["reinforce", "evolution", "random"])
def test_the_same_seed_gives_the_same_trials(controller: str) -> None:
    first, again = (trials_of(Bench().search(controller)) for _ in range(2))
    assert first == again
    assert trials_of(Bench().search(controller, seed=6)) != first


def test_a_candidate_without_a_quality_is_told_to_the_controller_and_stops_nothing() -> None:
    bench = Bench(quality=lambda _: Quality(None, "diverged"))
    trials = trials_of(bench.search())
    assert len(trials) == 3 * STEPS
    assert all((trial.quality, trial.reward) == (None, None) for trial in trials)
    assert all(trial.latency_ms is not None for trial in trials)


def test_candidates_that_do_not_run_each_in_its_way_stop_nothing() -> None:
    verdicts = itertools.cycle((Verdict.LOAD_FAILED, Verdict.OUT_OF_MEMORY))
    bench = Bench(measure=lambda _: failed(next(verdicts)))
    trials = trials_of(bench.search(steps=UNUSABLE_IN_A_ROW))
    assert len(trials) == 3 * UNUSABLE_IN_A_ROW
    assert {trial.reward for trial in trials} == {None}


def test_candidates_that_all_fail_alike_end_the_search() -> None:
    bench = Bench(measure=lambda _: failed(Verdict.LOAD_FAILED))
    with pytest.raises(RunError, match="candidates failed in the same way on a function: load_failed"):
        bench.search(steps=ALIKE_IN_A_ROW).run()


def test_a_bench_that_gives_nothing_usable_ends_the_search() -> None:
    bench = Bench(measure=lambda _: failed(Verdict.UNSTEADY))
    with pytest.raises(RunError, match="measurements on a function cannot be used: unsteady"):
        bench.search(steps=UNUSABLE_IN_A_ROW).run()


def test_what_was_found_out_before_an_interruption_is_remembered() -> None:
    earlier = trials_of(Bench().search())
    bench = Bench()
    search = bench.search()
    search.remember(earlier)
    assert trials_of(search) == earlier
    assert bench.scored == []


def test_a_failure_is_not_remembered() -> None:
    earlier = trials_of(Bench(quality=lambda _: Quality(None, "diverged")).search())
    bench = Bench()
    search = bench.search()
    search.remember(earlier)
    assert all(trial.quality is not None for trial in trials_of(search))
    assert bench.scored


def recorded(bench: Bench, folder: Path, stop: Stop | None = None, controller: str = "evolution") -> bytes:
    """Runs or continues the search of a folder; the journal that it leaves."""
    folder.mkdir(exist_ok=True)
    with closing(Journal(folder / "journal.jsonl", pytest.fail)) as journal:
        search = RecordedSearch(bench.search(controller), journal, Checkpoints(folder / "checkpoints"), 2, pytest.fail)
        search.run(None if stop is None else stop.count, stop)
    return (folder / "journal.jsonl").read_bytes()


@pytest.mark.parametrize("controller", ["reinforce", "lstm", "evolution"])
def test_stopped_after_any_step_it_goes_on_as_if_nothing_had_happened(tmp_path: Path, controller: str) -> None:
    whole = recorded(Bench(), tmp_path / "whole", controller=controller)
    for after in range(2, STEPS + 1):
        folder, bench = tmp_path / str(after), Bench()
        with pytest.raises(StoppedError):
            recorded(bench, folder, Stop(after), controller)
        assert recorded(bench, folder, controller=controller) == whole
        assert len(bench.scored) == len(set(bench.scored)), "nothing is scored twice, before and after"


def test_steps_after_the_last_checkpoint_are_made_again_from_the_journal(tmp_path: Path) -> None:
    whole = recorded(Bench(), tmp_path / "run")
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    newest.unlink()
    bench = Bench()
    assert recorded(bench, tmp_path / "run") == whole
    assert bench.scored == []


def test_weights_of_another_method_are_refused() -> None:
    with pytest.raises(RunError, match="holds weights, which this search method does not have"):
        Bench().search().restore_arrays({"kernel": np.zeros(1)})


class Steadied:
    """Stands for `PooledLatency`: makes a latency out of any answer, and remembers what it took in."""

    def __init__(self) -> None:
        self.taken: list[Architecture] = []

    def adjust(self, architecture: Architecture, answer: LatencyAnswer | None) -> AdjustedLatency:
        return AdjustedLatency(2.0, (1.9, 2.1), Verdict.CORRECTED)

    def take(self, architecture: Architecture, answer: LatencyAnswer | None) -> None:
        self.taken.append(architecture)


def test_noisy_latencies_that_others_steady_do_not_end_the_search() -> None:
    bench, pooled = Bench(measure=lambda _: failed(Verdict.UNSTEADY)), Steadied()
    search = bench.search(steps=UNUSABLE_IN_A_ROW)
    evaluator = search.evaluator
    search.evaluator = Evaluator(
        SPACE, evaluator.quality, evaluator.latency, evaluator.objectives, REWARDS["absolute"], pooled  # type: ignore[arg-type]
    )  # fmt: skip
    trials = trials_of(search)
    assert {trial.latency_ms for trial in trials} == {2.0}
    assert all(trial.reward is not None for trial in trials)
    assert pooled.taken == [trial.architecture for trial in trials]


@pytest.mark.parametrize(
    ("settings", "population"),
    [
        (MultiTrialSettings(steps=40, samples_per_step=3, controller={"name": "evolution"}), 30),  # type: ignore[arg-type]
        (OneShotSettings(steps=40, samples_per_step=3, controller={"name": "evolution"}), 22),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_a_controller_is_made_for_the_evaluations_of_the_whole_search(settings: Any, population: int) -> None:
    context = SearchContext(SPACE, None, None, FunctionSource(lambda _: timed(1.0)), (), 0)  # type: ignore[arg-type]
    controller = make_controller(settings, context)
    assert isinstance(controller, EvolutionController)
    assert controller._population.maxlen == population
