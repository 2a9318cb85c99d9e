"""The controller on published data: the Pixel-1 table of the ProxylessNAS space and the 84 ms target of TuNAS."""

import os
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from nas_edge.controllers import CategoricalController, RandomSearchController
from nas_edge.latency.table import LinearTable, read_tunas_pixel1
from nas_edge.rewards import Objective, absolute
from nas_edge.spaces import find_space
from nas_edge.spaces.decisions import Architecture, NetworkSpace
from nas_edge.testing.problems import search

DATA = Path(os.environ.get("NAS_EDGE_DATA", Path(__file__).parents[2] / "../shared/data")) / "tunas_pixel1"
TABLE = DATA / "proxylessnas_search_pixel1_cost_model.csv"
TARGET_MS = 84.0

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"needs the published Pixel-1 table in {DATA}; set NAS_EDGE_DATA to the data folder"
)


@pytest.fixture(scope="module")
def space() -> NetworkSpace:
    return find_space("proxylessnas")(224, 1.0, 1001, 3)


@pytest.fixture(scope="module")
def table(space: NetworkSpace) -> LinearTable:
    return read_tunas_pixel1(TABLE, space)


def reward_of(space: NetworkSpace, table: LinearTable, architecture: Architecture) -> float:
    """Quality grows with kernels, ratios and depth, later blocks repaying more per millisecond."""
    quality = 0.70
    for decision, choice, on in zip(space.decisions, architecture.choices, space.active(architecture), strict=True):
        if on and len(decision.choices) > 1:
            block = int(decision.path[5])
            quality += 0.0004 * block * (choice if not decision.path.endswith(".op") else 2 * (1 - choice))
    return absolute(quality, {"latency_ms": table.latency_ms(architecture)}, [Objective("latency_ms", TARGET_MS, -0.3)])


@pytest.mark.parametrize(("samples", "steps"), [(1, 400), (4, 100)])
def test_controller_meets_the_target_and_beats_random_search(
    space: NetworkSpace, table: LinearTable, samples: int, steps: int
) -> None:
    noise = np.random.default_rng(7)

    def reward(architecture: Architecture) -> float:
        return reward_of(space, table, architecture) + 0.005 * float(noise.normal())

    found, by_chance = [], []
    for seed in range(3):
        learner = CategoricalController(space, steps, samples_per_step=samples)
        random = RandomSearchController(space)
        search(learner, reward, steps, np.random.default_rng(seed), samples)
        search(random, reward, steps, np.random.default_rng(seed), samples)
        found.append(learner.most_likely())
        by_chance.append(random.most_likely())
    assert median(map(table.latency_ms, found)) == pytest.approx(TARGET_MS, rel=0.05)
    rewards, of_chance = ([reward_of(space, table, a) for a in group] for group in (found, by_chance))
    assert median(rewards) > max(of_chance)


def test_random_search_accepts_only_a_latency_window(space: NetworkSpace, table: LinearTable) -> None:
    """About 4.3% of uniform draws lie in 83..85 ms."""
    draws = 0

    def inside(architecture: Architecture) -> bool:
        nonlocal draws
        draws += 1
        return 83.0 <= table.latency_ms(architecture) <= 85.0

    proposals = RandomSearchController(space, accept=inside).propose(100, np.random.default_rng(0))
    assert all(83.0 <= table.latency_ms(a) <= 85.0 for a in proposals)
    assert 100 / draws == pytest.approx(0.043, abs=0.01)
