"""Networks with what is searched beside them: one space, of which the networks' part can be told apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nas_edge.accelerators.space import PARAMETERS, baseline
from nas_edge.config import RunConfig, load_config
from nas_edge.controllers.categorical import CategoricalController
from nas_edge.errors import ConfigError
from nas_edge.joint import JOINTS, joint_space
from nas_edge.joint.accelerator import AcceleratorSpace
from nas_edge.joint.deployment import DeploymentSettings, deployment_settings, with_deployments
from nas_edge.joint.space import JointSettings
from nas_edge.search.alternating import AlternatingSettings
from nas_edge.spaces.decisions import Architecture
from nas_edge.spaces.design import Design
from nas_edge.spaces.table import TableSpace
from nas_edge.stages.context import space_of
from nas_edge.stages.deployed import deployed
from nas_edge.testing.problems import nested_space, results_table

NETWORKS = nested_space()
SPACE = AcceleratorSpace(NETWORKS)


def test_what_is_beside_a_network_comes_last_and_changes_no_network() -> None:
    network = Architecture((1, 0, 2))
    one, other = (SPACE.join(network, (choice,) * len(PARAMETERS)) for choice in (0, 1))
    assert SPACE.split(one) == (network, (0,) * len(PARAMETERS))
    assert (
        SPACE.of_network(one)
        == SPACE.of_network(other)
        != SPACE.of_network(SPACE.join(Architecture((0, 0, 2)), (0,) * 7))
    )
    designs = [SPACE.build(architecture) for architecture in (one, other)]
    assert designs[0].network == designs[1].network == NETWORKS.decode(network)
    assert designs[0].fingerprint != designs[1].fingerprint
    assert designs[0].extras == {f"accelerator.{name}": p.values[0] for name, p in PARAMETERS.items()}


def test_decisions_of_networks_keep_their_guards() -> None:
    skipped = SPACE.join(Architecture((2, 1, 0)), (3,) * 7)
    assert SPACE.canonical(skipped) == SPACE.join(Architecture((0, 1, 0)), (3,) * 7)
    assert SPACE.size == NETWORKS.size * 50_000
    assert SPACE.distinct_size == NETWORKS.distinct_size * 50_000


def test_a_joint_space_keeps_its_networks_of_another_template() -> None:
    changed = SPACE.with_template(NETWORKS.template)
    architecture = SPACE.join(Architecture((1, 0, 2)), (0,) * 7)
    assert changed.build(architecture) == SPACE.build(architecture)
    assert isinstance(changed, AcceleratorSpace)


def test_a_policy_begins_at_the_baseline() -> None:
    policy = CategoricalController(SPACE, 100, temperature=2.0).probabilities()
    for name, parameter in PARAMETERS.items():
        row = policy[f"accelerator.{name}"]
        assert row[parameter.values.index(parameter.baseline)] == pytest.approx(0.9)
        assert sum(row) == pytest.approx(1.0)
    assert policy["width"] == pytest.approx((1 / 3,) * 3)


def test_an_accelerator_that_is_too_large_is_not_begun_with() -> None:
    assert SPACE.extras(SPACE.first_beside) == {f"accelerator.{name}": value for name, value in baseline().items()}
    small = AcceleratorSpace(NETWORKS, max_area=0.5)
    assert small.accelerator_of(Design(None, small.extras(small.first_beside))).area[0] < 0.5


def test_nothing_is_beside_a_network_unless_asked_for() -> None:
    assert joint_space(JointSettings(), NETWORKS) is NETWORKS


@pytest.mark.parametrize("kind", ["accelerator", "deployment"])
def test_a_table_has_no_networks_to_search_jointly(kind: str) -> None:
    settings: Any = JOINTS.settings(kind)
    with pytest.raises(ConfigError, match=f"joint.kind={kind} requires a space of networks"):
        joint_space(settings, TableSpace(results_table()))


def config_of(*settings: str, **flags: Any) -> RunConfig:
    return load_config(
        "smoke", flags={"joint.kind": "accelerator", "target.latency_ms": 1.0, **flags}, settings=settings
    )


def test_a_joint_search_of_accelerators_alternates_on_the_simulator() -> None:
    config = config_of()
    assert config.latency.source == "accelerator"
    assert isinstance(config.search, AlternatingSettings)
    assert config_of(**{"search.method": "multi-trial"}).search.method == "multi-trial"
    assert isinstance(space_of(config, 10, 3), AcceleratorSpace)


def test_a_run_is_read_back_with_what_it_searches_jointly(tmp_path: Path) -> None:
    config = config_of("joint.max_area=0.7")
    file = tmp_path / "config.json"
    file.write_text(config.model_dump_json(), encoding="utf-8")
    assert load_config(file=file) == config


@pytest.mark.parametrize(
    ("kind", "latency"), [("accelerator", "device"), ("accelerator", "model:x.json"), ("deployment", "sim:edgetpu")]
)
def test_latencies_have_to_depend_on_what_is_searched_jointly(kind: str, latency: str) -> None:
    with pytest.raises(ConfigError, match=f"do not depend on what joint.kind={kind} decides"):
        config_of(**{"joint.kind": kind, "latency.source": latency})


DEPLOYMENTS = DeploymentSettings(threads=(1, 2), delegate=("cpu", "none"), precision=("int8", "float32"))


def test_a_deployment_is_measured_and_delivered_by_its_settings() -> None:
    space = with_deployments(DEPLOYMENTS, NETWORKS)
    design = space.build(space.encode({"deployment.threads": 2, "deployment.precision": "float32"}))
    assert deployment_settings(design) == {
        "device.threads": 2,
        "device.delegate": "cpu",
        "export.precision": "float32",
    }
    config = config_of(**{"joint.kind": "deployment", "export.quantization": "aware"})
    changed = deployed(config, design)
    assert (changed.device.threads, changed.device.delegate, changed.export.precision) == (2, "cpu", "float32")
    assert changed.export.quantization == "post-training", "there is nothing to quantise"
    assert deployed(config, Design(design.network)) is config


def test_one_value_is_no_choice() -> None:
    alone = DeploymentSettings(threads=(2,), delegate=(), precision=("int8",))
    with pytest.raises(ConfigError, match="nothing to choose between"):
        with_deployments(alone, NETWORKS)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("joint.threads=[1,1]", "given twice"),
        ("joint.threads=0", "joint.threads"),
        ("joint.delegate=[cpu,tpu]", "joint.delegate"),
        ("joint.precision=[int4]", "expected one of"),
        ("joint.cores=[some]", "joint.cores"),
        ("joint.max_area=1", "joint.kind=accelerator"),
        ("joint.kind=imaginary", "accelerator, deployment"),
    ],
)
def test_a_wrong_choice_is_named(setting: str, expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        config_of(setting, **{"joint.kind": "deployment"})
    assert expected in str(error.value)
