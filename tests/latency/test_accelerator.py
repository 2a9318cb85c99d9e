"""Latencies of designs that name their accelerator: simulated, and milliseconds only after a calibration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_agents.api import Verdict
from nas_edge.accelerators.simulator import simulate
from nas_edge.accelerators.space import PARAMETERS, accelerators
from nas_edge.errors import ConfigError, RunError
from nas_edge.joint.accelerator import AcceleratorSpace
from nas_edge.latency import LATENCY_SOURCES, LatencyContext, open_latency_source
from nas_edge.latency.answer import LatencyAnswer, LatencyKind
from nas_edge.latency.model_file import MeasuredNetwork, ModelFile, Provenance, SpaceRecord
from nas_edge.latency.models.decisions import DecisionModel
from nas_edge.latency.source import Candidate, LatencySource
from nas_edge.networks.precisions import Precision
from nas_edge.quality.source import FunctionQuality, Quality
from nas_edge.rewards import REWARDS, Objective
from nas_edge.search.evaluation import Evaluator
from nas_edge.spaces import find_space
from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.testing import check_latency_source
from nas_edge.testing.problems import flat_space, nested_space

NETWORKS = flat_space(layers=3)
SPACE = AcceleratorSpace(NETWORKS)
BESIDE = SPACE.first_beside
# Whose networks take different times on the baseline.
LARGE = AcceleratorSpace(find_space("proxylessnas")(64, 0.5, 10, 3))


def opened(space: SearchSpace = SPACE, precision: Precision = "int8", **settings: Any) -> LatencySource:
    made = LATENCY_SOURCES.settings({"source": "accelerator", **settings})
    return open_latency_source(made, LatencyContext(space, precision, None))  # type: ignore[arg-type]


def asked(architecture: Architecture) -> LatencyAnswer:
    return opened().submit(Candidate(SPACE.build(architecture), architecture)).result()


def test_it_keeps_the_promises_of_a_latency_source() -> None:
    check_latency_source(opened, SPACE)


def test_an_answer_says_latency_area_and_energy() -> None:
    architecture = SPACE.join(Architecture((1, 2, 3)), (1, 2, 0, 1, 2, 0, 4))
    answer = asked(architecture)
    values = {name: p.values[c] for (name, p), c in zip(PARAMETERS.items(), (1, 2, 0, 1, 2, 0, 4), strict=True)}
    simulated = simulate(NETWORKS.decode(Architecture((1, 2, 3))), accelerators([values]))
    assert answer.kind is LatencyKind.SIMULATED
    assert answer.latency_ms == simulated.latency_ms[0]
    assert answer.further == {"relative_area": simulated.area[0], "energy_mj": simulated.energy_mj[0]}
    assert "not calibrated" in opened().name


def test_an_accelerator_that_is_too_large_is_the_candidates_fault() -> None:
    answer = asked(SPACE.join(Architecture((0, 0, 0)), (4,) * 2 + (3,) * 2 + (4,) * 3))
    assert answer.verdict is Verdict.FALLBACK
    assert "above joint.max_area" in answer.detail


def test_a_reward_goes_by_three_resources() -> None:
    objectives = [Objective("latency_ms", 0.01), Objective("relative_area", 0.5), Objective("energy_mj", 0.001)]
    quality = FunctionQuality("constant", lambda candidate: Quality(0.5))
    evaluator = Evaluator(SPACE, quality, opened(), objectives, REWARDS["soft"])
    trial = evaluator.evaluate(SPACE.join(Architecture((0, 1, 2)), BESIDE), 0)
    assert trial.usage is not None
    assert list(trial.usage) == ["latency_ms", "relative_area", "energy_mj"]
    assert trial.reward == REWARDS["soft"](0.5, trial.usage, objectives)


def test_a_resource_that_the_source_does_not_report_is_named() -> None:
    quality = FunctionQuality("constant", lambda candidate: Quality(0.5))
    space = nested_space()
    sim = LATENCY_SOURCES.settings("sim:edgetpu")
    source = open_latency_source(sim, LatencyContext(space, "int8", None))  # type: ignore[arg-type]
    evaluator = Evaluator(space, quality, source, [Objective("relative_area", 1.0)], REWARDS["absolute"])
    with pytest.raises(RunError, match="relative_area of a candidate is not available: the latency source does not"):
        evaluator.evaluate(Architecture((0, 0, 0)), 0)


def test_designs_without_an_accelerator_are_refused() -> None:
    with pytest.raises(ConfigError, match="require designs with an accelerator"):
        opened(NETWORKS)
    with pytest.raises(ConfigError, match="int8 networks only"):
        opened(precision="float32")


def latency_file(
    folder: Path, count: int, order: int = 1, space: SearchSpace = NETWORKS, precision: str = "int8"
) -> str:
    """A file of latencies of a device that takes 20 times as long as simulated, or the other way round."""
    rng = np.random.default_rng(0)
    texts = list(dict.fromkeys(str(LARGE.networks.sample(rng)) for _ in range(4 * count)))[:count]
    networks = []
    for text in texts:
        (ms,) = LARGE.simulate(LARGE.networks.build(Architecture.parse(text))).latency_ms
        networks.append(MeasuredNetwork(architecture=text, latency_ms=20 * ms**order))
    networks.append(MeasuredNetwork(architecture=texts[0], latency_ms=None, verdict="run_failed"))
    provenance = Provenance(source="fit", device="a chip", precision=precision, space=SpaceRecord.of(LARGE.networks))
    model = DecisionModel(bias_ms=1.0, terms=())
    file = folder / "chip.latency.json"
    file.write_text(ModelFile(provenance=provenance, model=model, measurements=tuple(networks)).to_text(), "utf-8")
    return str(file)


def test_a_calibrated_simulator_claims_the_devices_milliseconds(tmp_path: Path) -> None:
    source = opened(LARGE, calibration=latency_file(tmp_path, 30))
    assert "calibrated to a chip: Spearman's correlation 1.00 over 30 networks" in source.name
    architecture = LARGE.canonical(LARGE.sample(np.random.default_rng(1)))
    design = LARGE.build(LARGE.join(LARGE.split(architecture)[0], LARGE.first_beside))
    answer = source.submit(Candidate(design)).result()
    assert answer.latency_ms == pytest.approx(20 * LARGE.simulate(design).latency_ms[0])


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ({"count": 29}, "29 measured networks are too few"),
        ({"count": 30, "order": -1}, "does not rank networks as the device does"),
        ({"count": 1, "space": flat_space(layers=4)}, "no latencies of networks of proxylessnas"),
        ({"count": 30, "precision": "float32"}, "latencies of another precision"),
    ],
)
def test_without_a_calibration_that_holds_no_milliseconds_are_claimed(
    file: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    if "space" in file:  # whose architectures are none of the other
        provenance = Provenance(source="fit", space=SpaceRecord.of(file["space"]))
        path = tmp_path / "other.latency.json"
        path.write_text(ModelFile(provenance=provenance, model=DecisionModel(bias_ms=1.0, terms=())).to_text(), "utf-8")
        given = str(path)
    else:
        given = latency_file(tmp_path, **file)
    with pytest.raises(ConfigError, match=expected):
        opened(LARGE, calibration=given)
