"""The winner meets the limit, or the user learns what is possible."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from device_agents.api import Measurement, Verdict
from nas_edge.controllers.categorical import CategoricalController
from nas_edge.controllers.random_search import RandomSearchController
from nas_edge.errors import InfeasibleError, UnreliableLatencyError
from nas_edge.formatting import ms_text
from nas_edge.latency.answer import LatencyAnswer, LatencyKind
from nas_edge.networks.analysis import analyze
from nas_edge.rewards import Objective
from nas_edge.search.selection import Limits, nearest, predicted_limit_ms, required_ms, select, smallest
from nas_edge.search.trials import Trial, late_trials
from nas_edge.spaces.decisions import Architecture
from tests.support.sources import timed, visited
from tests.support.spaces import small_space

SPACE = small_space()


def judge_by(
    latency_ms: Callable[[Architecture], float], quality: Callable[[Architecture], float]
) -> Callable[[Sequence[Architecture]], list[Trial]]:
    def judge(architectures: Sequence[Architecture]) -> list[Trial]:
        return [
            Trial(0, 0, architecture, quality(architecture), timed(latency_ms(architecture)), None, None)
            for architecture in architectures
        ]

    return judge


def macs_ms(architecture: Architecture) -> float:
    return analyze(SPACE.decode(architecture)).macs / 1e5


class NoPolicy(RandomSearchController):
    def probabilities(self) -> None:  # type: ignore[override]
        return None


def settled_controller() -> CategoricalController:
    """A controller that prefers the last choice of every decision, by differing margins."""
    controller = CategoricalController(SPACE, 10)
    rng = np.random.default_rng(0)
    state = controller.state()
    logits = [[float(rng.uniform(0, 0.1)) for _ in d.choices] for d in SPACE.decisions]
    for row in logits:
        row[-1] += 1.0
    for key, value in state["learned"].items():
        flat = [x for row in logits for x in row]
        if isinstance(value, list) and len(value) == len(flat) and key in ("theta", "logits"):
            state["learned"][key] = flat
        elif isinstance(value, list) and value and isinstance(value[0], list) and len(value) == len(logits):
            state["learned"][key] = logits
    controller.restore(state)
    assert controller.most_likely() != SPACE.canonical(Architecture((0,) * len(SPACE.decisions)))
    return controller


def test_without_a_limit_the_most_likely_architecture_wins() -> None:
    controller = settled_controller()
    selection = select(SPACE, controller, judge_by(macs_ms, lambda _: 0.5), None)
    assert selection.winner.architecture == controller.most_likely()
    assert len(selection.trials) == 1


def test_a_hard_limit_returns_the_most_accurate_that_meets_it() -> None:
    controller = settled_controller()
    slowest = macs_ms(controller.most_likely())
    judge = judge_by(macs_ms, lambda a: macs_ms(a) / 100)  # the slower, the better
    selection = select(SPACE, controller, judge, slowest * 0.97)
    assert selection.winner.latency_ms is not None
    assert selection.winner.latency_ms <= slowest * 0.97
    meeting = [t for t in selection.trials if (t.latency_ms or 0) <= slowest * 0.97]
    assert selection.winner.quality == max(t.quality or 0 for t in meeting)


def test_a_limit_far_below_the_most_likely_is_still_found() -> None:
    least = macs_ms(smallest(SPACE))
    selection = select(SPACE, settled_controller(), judge_by(macs_ms, lambda _: 0.5), least * 1.05)
    assert selection.winner.latency_ms is not None
    assert selection.winner.latency_ms <= least * 1.05


def test_an_infeasible_limit_names_the_fastest_and_its_time() -> None:
    least = macs_ms(smallest(SPACE))
    with pytest.raises(InfeasibleError, match=f"takes {ms_text(least)} ms: {smallest(SPACE)}"):
        select(SPACE, settled_controller(), judge_by(macs_ms, lambda _: 0.5), least / 2)


def test_nothing_measurable_is_said_plainly() -> None:
    def judge(architectures: Sequence[Architecture]) -> list[Trial]:
        return [Trial(0, 0, architecture, 0.5, None, None, None) for architecture in architectures]

    with pytest.raises(InfeasibleError, match="could be timed"):
        select(SPACE, settled_controller(), judge, 1.0)


def test_nearest_changes_the_least_confident_active_decision_first() -> None:
    controller = settled_controller()
    centre = controller.most_likely()
    probabilities = controller.probabilities()
    found = nearest(SPACE, centre, probabilities, 5)
    assert len(set(found)) == 5
    active = SPACE.active(centre)
    for neighbour in found:
        changed = [i for i, (a, b) in enumerate(zip(centre.choices, neighbour.choices, strict=True)) if a != b]
        assert len(changed) == 1
        assert active[changed[0]]


def test_nearest_without_probabilities_changes_many_decisions() -> None:
    centre = settled_controller().most_likely()
    every = nearest(SPACE, centre, None, 1000)
    assert len(every) == sum(
        len(d.choices) - 1 for d, on in zip(SPACE.decisions, SPACE.active(centre), strict=True) if on
    )
    found = nearest(SPACE, centre, None, 4)
    changed = [
        [i for i, (a, b) in enumerate(zip(centre.choices, other.choices, strict=True)) if a != b] for other in found
    ]
    assert all(len(positions) == 1 for positions in changed)
    assert len({positions[0] for positions in changed}) == 4


def test_a_controller_without_a_policy_is_selected_from() -> None:
    controller = NoPolicy(SPACE)
    least = macs_ms(smallest(SPACE))
    selection = select(SPACE, controller, judge_by(macs_ms, lambda _: 0.5), least * 1.05)
    assert (selection.winner.latency_ms or 0) <= least * 1.05


def test_smallest_has_the_least_macs_of_many() -> None:
    rng = np.random.default_rng(1)
    assert all(macs_ms(smallest(SPACE)) <= macs_ms(SPACE.sample(rng)) for _ in range(200))


def trial(architecture: Architecture, latency_ms: float, quality: float | None = 0.5) -> Trial:
    return Trial(0, 0, architecture, quality, LatencyAnswer.measured(timed(latency_ms)), None, None)


def measured_anyway() -> set[Architecture]:
    """The most likely architecture and its neighbours."""
    controller = settled_controller()
    near = nearest(SPACE, controller.most_likely(), controller.probabilities(), 8)
    return {controller.most_likely(), *map(SPACE.canonical, near)}


def others(count: int) -> list[Architecture]:
    """So many further architectures, all different."""
    rng, found = np.random.default_rng(5), dict.fromkeys(measured_anyway())
    while len(found) < 9 + count:
        found[SPACE.canonical(SPACE.sample(rng))] = None
    return list(found)[9:]


def asked_for(earlier: Sequence[Trial], target_ms: float = 10.0, **settings: Any) -> list[Architecture]:
    """What a selection asks for beside what it measures anyway, all of which is fast."""
    asked: list[Architecture] = []

    def evaluate(architectures: Sequence[Architecture]) -> list[Trial]:
        asked.extend(architectures)
        return [trial(architecture, 1.0) for architecture in architectures]

    select(SPACE, settled_controller(), evaluate, target_ms, earlier=earlier, **settings)
    assert len(asked) == len(set(asked)), "each is measured once"
    return [one for one in asked if one not in measured_anyway()]


def test_the_best_of_the_search_under_the_limit_are_measured_again() -> None:
    some = others(6)
    earlier = [
        trial(some[0], 7.0, 0.9),  # the most accurate, not the fastest
        trial(some[1], 10.0, 0.7),  # just within
        trial(some[2], 10.1, 0.99),
        trial(some[3], 5.0, None),
        trial(some[4], 6.0, 0.8),
        trial(some[5], 5.0, 0.8),  # the faster of two equals comes first
    ]
    expected = [some[i] for i in (0, 5, 4, 1)]
    assert asked_for(earlier, quality_drifts=False) == expected
    # With shared weights only the latter half counts, and half as many as there are neighbours at most.
    assert asked_for(earlier) == [some[5], some[4]]
    assert len(asked_for([trial(one, 5.0) for one in others(10)], quality_drifts=False)) == 4
    assert asked_for(earlier, target_ms=20.0, margin=0.5, quality_drifts=False) == expected


def test_the_faster_of_two_equals_wins() -> None:
    judge = judge_by(macs_ms, lambda _: 0.5)
    selection = select(SPACE, settled_controller(), judge, 1e9)
    assert selection.winner.latency_ms == min(one.latency_ms or 0 for one in selection.trials)
    assert len(selection.trials) == 9


def test_head_room_is_kept_below_the_limit_and_named_when_there_is_none() -> None:
    controller = settled_controller()
    slowest = macs_ms(controller.most_likely())
    judge = judge_by(macs_ms, lambda a: macs_ms(a) / 100)
    winner = select(SPACE, controller, judge, slowest, margin=0.1).winner
    assert (winner.latency_ms or 0) <= 0.9 * slowest
    least = macs_ms(smallest(SPACE))
    with pytest.raises(InfeasibleError, match=r"with 20.0% of head-room") as failure:
        select(SPACE, controller, judge, least, margin=0.2)
    again = float(str(failure.value).split("--target-ms ")[1].split()[0])
    assert select(SPACE, controller, judge, again, margin=0.2).winner.latency_ms == pytest.approx(least, rel=0.2)


def visited_trial(architecture: Architecture, latency_ms: float, half_width: float, quality: float = 0.5) -> Trial:
    answer = LatencyAnswer.measured(visited(latency_ms, half_width=half_width))
    return Trial(0, 0, architecture, quality, answer, None, None)


def test_head_room_follows_the_interval_of_each_latency() -> None:
    """The faster one is not known well enough, and the slower one is."""
    wide, narrow = settled_controller().most_likely(), smallest(SPACE)
    assert wide != narrow

    def evaluate(architectures: Sequence[Architecture]) -> list[Trial]:
        known = {wide: (9.0, 0.08, 0.9), narrow: (9.5, 0.01, 0.8)}
        return [visited_trial(one, *known.get(one, (20.0, 0.01, 0.5))) for one in architectures]

    def winner(margin: float | None) -> Architecture:
        selection = select(SPACE, settled_controller(), evaluate, 10.0, margin, finalists=[narrow])
        return selection.winner.architecture

    assert winner(None) == narrow
    assert winner(0.0) == wide, "a fixed margin overrides the intervals"
    assert winner(0.05) == wide


def test_what_a_latency_requires() -> None:
    architecture = smallest(SPACE)
    known = visited_trial(architecture, 10.0, 0.01)
    required = required_ms(known, None)
    assert required is not None
    # Its interval ends at 10.1, and a second measurement may come out another 0.1 * 1.645 * sqrt(2) / 1.96 higher.
    assert required == pytest.approx(10.0 + 0.1 * (1 + 1.187), rel=1e-3)
    assert required_ms(known, 0.2) == pytest.approx(12.5)
    exact = LatencyAnswer.estimated(LatencyKind.LOOKED_UP, 10.0)
    assert required_ms(Trial(0, 0, architecture, 0.5, exact, None, None), None) == 10.0
    assert required_ms(Trial(0, 0, architecture, 0.5, None, None, None), None) is None


def test_a_prediction_has_to_leave_the_usual_head_room() -> None:
    trials = [visited_trial(smallest(SPACE), latency_ms, half) for latency_ms, half in ((5, 0.01), (9, 0.02), (2, 0.4))]
    assert predicted_limit_ms(trials, 10.0, None) == pytest.approx(10.0 / (1 + 0.02 * 2.187), rel=1e-3)
    assert predicted_limit_ms(trials, 10.0, 0.1) == pytest.approx(9.0)
    assert predicted_limit_ms([], 10.0, None) == 10.0


def test_an_earlier_trial_may_be_the_fastest_there_is() -> None:
    earlier = [trial(smallest(SPACE), 0.5)]
    with pytest.raises(InfeasibleError, match=f"takes {ms_text(0.5)} ms"):
        select(SPACE, settled_controller(), judge_by(lambda _: 3.0, lambda _: 0.5), 0.4, earlier=earlier)


def test_a_limit_that_the_search_met_is_not_called_too_low_where_nothing_can_be_timed() -> None:
    """On a machine that was busy during the selection alone; resumed, it may be quiet."""

    def busy(some: Sequence[Architecture]) -> list[Trial]:
        flagged = LatencyAnswer.measured(Measurement(Verdict.CONTENDED, "other programs"))
        return [Trial(1, i, a, 0.5, flagged, None, None) for i, a in enumerate(some)]

    met = trial(smallest(SPACE), 1.0)
    with pytest.raises(UnreliableLatencyError, match=r"could be timed.*contended.*other programs"):
        select(SPACE, settled_controller(), busy, 2.0, earlier=[met])
    with pytest.raises(InfeasibleError, match=r"no architecture meets 0\.5000 ms.*1\.000 ms"):
        select(SPACE, settled_controller(), busy, 0.5, earlier=[met])


@pytest.mark.parametrize(
    ("verdict", "error"), [(Verdict.CONTENDED, UnreliableLatencyError), (Verdict.RUN_FAILED, InfeasibleError)]
)
def test_what_could_not_be_timed_is_told_by_whose_fault_it_is(verdict: Verdict, error: type[Exception]) -> None:
    answer = LatencyAnswer.measured(Measurement(verdict, "other programs"))

    def evaluate(architectures: Sequence[Architecture]) -> list[Trial]:
        return [Trial(0, 0, architecture, 0.5, answer, None, None) for architecture in architectures]

    with pytest.raises(error, match=r"could be timed.*other programs"):
        select(SPACE, settled_controller(), evaluate, 1.0)


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_the_walk_goes_on_from_the_fastest_as_often_as_it_may(rounds: int) -> None:
    asked: list[int] = []
    judge = judge_by(lambda architecture: 100.0 + sum(architecture.choices), lambda _: 0.5)

    def evaluate(architectures: Sequence[Architecture]) -> list[Trial]:
        asked.append(len(architectures))
        return judge(architectures)

    with pytest.raises(InfeasibleError):
        select(SPACE, settled_controller(), evaluate, 1.0, neighbours=2, rounds=rounds)
    # The most likely, its neighbours, the best of earlier, the walk, and what is smallest in every decision.
    assert asked[0] == 1
    assert asked[1] == 2
    assert len(asked) == 4 + rounds
    assert sum(count > 0 for count in asked[3:-1]) >= rounds - 1


def test_what_exceeds_its_most_exceeded_limit_least_is_the_nearest() -> None:
    one = SPACE.canonical(Architecture((0,) * len(SPACE.decisions)))
    used = replace(trial(one, 15.0), usage={"latency_ms": 15.0, "macs": 400.0})
    small = [Objective("macs", 200.0, limit=True)]
    assert Limits(10.0).excess(used) == 1.5
    assert Limits(10.0, resources=small).excess(used) == 2.0
    assert Limits(5.0, resources=small).excess(used) == 3.0
    assert Limits(None).excess(used) == 15.0
    assert Limits(10.0, resources=small).excess(trial(one, 1.0)) == math.inf  # its size is not known


def test_nearest_are_those_whose_alternative_is_hardly_less_likely() -> None:
    controller = settled_controller()
    centre, probabilities = controller.most_likely(), controller.probabilities()

    def less_likely(neighbour: Architecture) -> float:
        (i,) = (i for i, (a, b) in enumerate(zip(centre.choices, neighbour.choices, strict=True)) if a != b)
        row = probabilities[SPACE.decisions[i].path]
        return row[centre.choices[i]] - row[neighbour.choices[i]]

    every = [less_likely(one) for one in nearest(SPACE, centre, probabilities, 1000)]
    assert every == sorted(every)
    assert [less_likely(one) for one in nearest(SPACE, centre, probabilities, 5)] == every[:5]


def test_of_trials_of_shared_weights_the_latter_half_may_be_compared() -> None:
    assert late_trials([1, 2, 3, 4, 5]) == [3, 4, 5]
    assert late_trials([1, 2, 3, 4], quality_drifts=False) == [1, 2, 3, 4]


def size_of(architecture: Architecture) -> float:
    return float(analyze(SPACE.decode(architecture)).parameters)


def judge_sizes(architectures: Sequence[Architecture]) -> list[Trial]:
    """The larger the better."""
    return [
        Trial(0, 0, one, size_of(one), timed(macs_ms(one)), {"file_size_bytes": size_of(one)}, size_of(one))
        for one in architectures
    ]


@pytest.mark.parametrize("target_ms", [1e9, None])
def test_the_winner_keeps_to_the_limits_of_other_resources(target_ms: float | None) -> None:
    controller, least = settled_controller(), size_of(smallest(SPACE))
    most_likely = size_of(SPACE.canonical(controller.most_likely()))
    limit = Objective("file_size_bytes", (least + most_likely) / 2, limit=True)
    selection = select(SPACE, controller, judge_sizes, target_ms, resources=[limit])
    sizes = [size_of(trial.architecture) for trial in selection.trials]
    assert max(sizes) > limit.target, "others were evaluated"
    assert size_of(selection.winner.architecture) == max(size for size in sizes if size <= limit.target)
    with pytest.raises(InfeasibleError, match=r"limits of other resources; the closest has file_size_bytes .*\(at"):
        select(SPACE, controller, judge_sizes, target_ms, resources=[Objective("file_size_bytes", 1.0, limit=True)])
