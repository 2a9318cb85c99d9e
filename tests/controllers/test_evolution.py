"""Regularised evolution: who is in the population, who becomes a parent, and what a child is."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from nas_edge.controllers import EvolutionController, Outcome, as_proposed
from nas_edge.controllers.evolution import EvolutionSettings
from nas_edge.errors import ConfigError
from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.testing.problems import flat_space, nested_space, through_json

FLAT = flat_space(3, 4)


def of(*choices: int) -> Architecture:
    return Architecture(choices)


def evolved(
    members: list[tuple[Architecture, float | None]], size: int, sample: int = 1, space: SearchSpace = FLAT
) -> EvolutionController:
    controller = EvolutionController(space, population_size=size, sample_size=sample)
    controller.update([Outcome(as_proposed(space, architecture), reward) for architecture, reward in members], 0)
    return controller


def changed(parent: Architecture, child: Architecture) -> list[tuple[int, int]]:
    """Positions at which a child differs, and what it has there."""
    pairs = enumerate(zip(parent.choices, child.choices, strict=True))
    return [(position, new) for position, (old, new) in pairs if old != new]


def test_until_the_population_is_full_proposals_are_uniform() -> None:
    controller = evolved([(of(3, 3, 3), 1.0)] * 2, size=3)
    proposals = controller.propose(3000, np.random.default_rng(0))
    for position in range(3):
        counts = Counter(one.choices[position] for one in proposals)
        assert [counts[choice] / 3000 for choice in range(4)] == pytest.approx([0.25] * 4, abs=0.03)


def test_a_child_is_its_parent_with_one_decision_changed_to_any_other_choice() -> None:
    parent = of(3, 0, 2)
    children = evolved([(parent, 1.0)] * 2, size=2).propose(1800, np.random.default_rng(0))
    assert all(len(changed(parent, child)) == 1 for child in children)
    counts = Counter(changed(parent, child)[0] for child in children)
    assert len(counts) == 9
    assert all(count == pytest.approx(200, abs=60) for count in counts.values())


def test_only_decisions_that_are_reached_are_changed() -> None:
    skipped = of(0, 1, 2)
    children = evolved([(skipped, 1.0)], size=1, space=nested_space()).propose(200, np.random.default_rng(0))
    assert {changed(skipped, child)[0][0] for child in children} == {1, 2}


def test_a_parent_without_alternatives_is_proposed_again() -> None:
    space = flat_space(2, 1)
    assert evolved([(of(0, 0), 1.0)], size=1, space=space).propose(3, np.random.default_rng(0)) == [of(0, 0)] * 3


def test_the_best_of_a_sample_becomes_the_parent() -> None:
    members: list[tuple[Architecture, float | None]] = [(of(0, 0, 0), 0.1), (of(3, 3, 3), 0.9)]
    for sample, share in ((1, 0.5), (2, 0.75)):
        children = evolved(members, size=2, sample=sample).propose(2000, np.random.default_rng(0))
        of_the_best = [child for child in children if len(changed(of(3, 3, 3), child)) == 1]
        assert len(of_the_best) / 2000 == pytest.approx(share, abs=0.04)


def test_the_oldest_member_dies_but_the_best_is_remembered() -> None:
    controller = evolved([(of(1, 1, 1), 0.9), (of(2, 0, 0), 0.1), (of(2, 3, 0), 0.2)], size=2)
    assert controller.probabilities()["layer0.filters"] == (0.0, 0.0, 1.0, 0.0)
    assert controller.probabilities()["layer1.filters"] == (0.5, 0.0, 0.0, 0.5)
    assert controller.most_likely() == of(1, 1, 1)


def test_of_equals_the_first_stays_the_best() -> None:
    assert evolved([(of(1, 1, 1), 0.5), (of(2, 2, 2), 0.5)], size=2).most_likely() == of(1, 1, 1)


def test_a_candidate_that_failed_has_no_offspring_and_those_after_it_count() -> None:
    controller = evolved([(of(1, 1, 1), None), (of(2, 2, 2), -1.0)], size=5)
    assert controller.probabilities()["layer0.filters"] == (0.0, 0.0, 1.0, 0.0)
    assert controller.most_likely() == of(2, 2, 2)


def test_before_anything_was_evaluated_all_choices_are_alike() -> None:
    controller = EvolutionController(nested_space())
    assert controller.probabilities()["kernel"] == pytest.approx((1 / 3,) * 3)
    assert controller.probabilities()["op"] == (0.5, 0.5)
    assert controller.most_likely() == of(0, 0, 0)


def test_a_restored_population_goes_on_as_it_would_have() -> None:
    controller = evolved([(of(i, 0, 1), i / 4) for i in range(4)], size=3, sample=2)
    again = EvolutionController(FLAT, population_size=3, sample_size=2)
    again.restore(through_json(controller.state()))
    for one in (controller, again):
        one.update([Outcome(as_proposed(FLAT, of(0, 3, 3)), 0.1)], 1)
    first, second = (one.propose(50, np.random.default_rng(3)) for one in (controller, again))
    assert first == second
    assert controller.probabilities() == again.probabilities()
    assert again.most_likely() == of(3, 0, 1)


@pytest.mark.parametrize("sample_size", [0, 6])
def test_a_sample_that_does_not_fit_into_the_population_is_refused(sample_size: int) -> None:
    with pytest.raises(ConfigError, match="sample_size must be from 1 to population_size"):
        EvolutionController(FLAT, population_size=5, sample_size=sample_size)
    assert EvolutionController(FLAT, population_size=5, sample_size=5).propose(1, np.random.default_rng(0))


def test_sizes_are_those_of_the_paper_and_at_least_one() -> None:
    controller = EvolutionController(FLAT)
    assert (controller._population.maxlen, controller._sample_size) == (100, 25)
    assert EvolutionSettings(population_size=1, sample_size=1).population_size == 1
    for name in ("population_size", "sample_size"):
        with pytest.raises(ValueError, match=name):
            EvolutionSettings(**{name: 0})
