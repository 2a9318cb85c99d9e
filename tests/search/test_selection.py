"""The winner meets the limit, or the user learns what is possible."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from nas_edge.controllers.categorical import CategoricalController
from nas_edge.controllers.random_search import RandomSearchController
from nas_edge.errors import InfeasibleError
from nas_edge.formatting import ms_text
from nas_edge.networks.analysis import analyze
from nas_edge.search.selection import nearest, select, smallest
from nas_edge.search.trials import Trial
from nas_edge.spaces.decisions import Architecture
from tests.support.sources import timed
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
