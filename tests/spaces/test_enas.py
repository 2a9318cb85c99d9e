"""The spaces of ENAS: their sizes, shared weights, and that only what is chosen is run."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from nas_edge.config import load_config
from nas_edge.controllers.recurrent import INDEX, SKIP, steps_of
from nas_edge.hardware import HARDWARE
from nas_edge.hardware.lint import lint_space
from nas_edge.networks.keras_model import keras_model
from nas_edge.networks.template import decode, resolve
from nas_edge.networks.tflite_graph import TFLiteGraph
from nas_edge.spaces import SPACES
from nas_edge.spaces.decisions import NetworkSpace
from nas_edge.supernet.elastic import EXECUTIONS, Execution
from nas_edge.supernet.supernet import Supernet, one_hot_masks

SMALL: dict[str, dict[str, Any]] = {
    "enas-macro": {"layers": 3, "filters": 4},
    "enas-micro": {"cells": 1, "nodes": 2, "filters": 4},
}
IMAGES = np.random.default_rng(7).normal(size=(4, 8, 8, 3)).astype(np.float32)


def made(name: str, **settings: Any) -> NetworkSpace:
    space = SPACES.make(SPACES.settings({"name": name, "input_size": 8, **settings}), 4, 3)
    assert isinstance(space, NetworkSpace)
    return space


def small(name: str) -> NetworkSpace:
    return made(name, **SMALL[name])


@cache
def compiled(name: str, execution: Execution) -> tuple[NetworkSpace, Supernet, Any]:
    """A space, its supernet, and a function that runs it."""
    space = small(name)
    net = Supernet(space, execution, seed=3)
    return space, net, tf.function(lambda masks: net(tf.constant(IMAGES), masks), autograph=False)


def test_the_published_sizes() -> None:
    macro, micro = made("enas-macro"), made("enas-micro")
    assert macro.size == 6**12 * 2**66
    assert macro.size == pytest.approx(1.6e29, rel=0.01)
    assert micro.size == math.prod((5 * (node + 1)) ** 2 for node in range(1, 6)) ** 2


def test_the_recurrent_controller_attends_to_connections() -> None:
    macro, micro = (steps_of(small(name), shared=True) for name in SMALL)
    assert [len(step.decisions) for step in macro if step.kind == SKIP] == [1, 2]
    assert not any(step.is_input for step in macro)
    assert sum(step.kind == INDEX for step in micro) == 2 * 2 * 2
    assert sum(step.is_input for step in micro) == 2 * 2


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_shared_weights_compute_what_the_network_does(name: str, execution: Execution) -> None:
    space, net, run = compiled(name, execution)
    rng = np.random.default_rng(5)
    for _ in range(4):
        architecture = space.sample(rng)
        spec = space.decode(architecture)
        model = keras_model(spec, net.weights_of(spec))
        for layer in model.layers:
            if type(layer).__name__ == "Dropout":
                layer.rate = 0.0
        logits, penalty = run(one_hot_masks(space, architecture))
        np.testing.assert_allclose(logits, model(IMAGES, training=True), rtol=1e-4, atol=1e-4)
        # Of what is chosen, and nothing of the rest.
        weights = [(layer.name, weight) for layer in model.layers for weight in layer.weights]
        kernels = [tf.nn.l2_loss(weight) for layer, weight in weights if "kernel" in weight.name and layer != "logits"]
        assert float(penalty) == pytest.approx(float(sum(kernels)), rel=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_other_branches_do_not_matter(name: str) -> None:
    """Their weights may be NaN."""
    space, net, run = compiled(name, "sliced")
    rng = np.random.default_rng(5)
    base = space.sample(rng)
    before = {path: variable.numpy() for path, variable in net.named_variables().items()}
    # The last one, since the cell before the last may lead nowhere.
    *_, (position, op) = [(i, d) for i, d in enumerate(space.decisions) if d.kind == "op"]
    for choice in range(len(op.choices)):
        architecture = type(base)((*base.choices[:position], choice, *base.choices[position + 1 :]))
        used = {node.name for node in space.decode(architecture).nodes}
        for path, variable in net.named_variables().items():
            unused = path.rpartition("/")[0] not in used
            variable.assign(np.full_like(before[path], np.nan) if unused else before[path])
        assert np.isfinite(run(one_hot_masks(space, architecture))[0]).all()
        other = (choice + 1) % 2  # a convolution, other than the chosen one
        changed = type(base)((*base.choices[:position], other, *base.choices[position + 1 :]))
        assert not np.isfinite(run(one_hot_masks(space, changed))[0]).all()
    for path, variable in net.named_variables().items():
        variable.assign(before[path])


@pytest.mark.parametrize("name", SMALL)
def test_a_resolved_template_makes_the_same_network(name: str) -> None:
    space = small(name)
    rng = np.random.default_rng(1)
    for _ in range(8):
        architecture = space.sample(rng)
        fixed = resolve(space.template, space.choices(architecture))
        assert decode(fixed, space.input_shape, {}) == space.decode(architecture)


def test_cells_that_lead_nowhere_are_left_out() -> None:
    """A reduction cell of nodes that read the cell before the last alone."""
    space = made("enas-micro", cells=1, nodes=1, filters=4)
    names = [f"reduction.node1.source{side}" for side in (1, 2)]
    skipping = space.encode(dict.fromkeys(names, "reduction.input1"))
    reading = space.encode(dict.fromkeys(names, "reduction.input2"))
    assert not any(".cell1." in node.name for node in space.decode(skipping).nodes)
    assert any(".cell1." in node.name for node in space.decode(reading).nodes)


@pytest.mark.parametrize("name", SMALL)
def test_every_operator_is_known(name: str) -> None:
    space = small(name)
    assert lint_space(space, HARDWARE["cpu"]) == []
    for seed in range(4):
        spec = space.decode(space.sample(np.random.default_rng(seed)))
        kinds = {operator.kind for operator in TFLiteGraph(spec).operators}
        assert "STRIDED_SLICE" not in kinds


def test_a_preset_makes_the_spaces_small() -> None:
    for name, expected in (("enas-macro", {"layers": 3}), ("enas-micro", {"cells": 1, "nodes": 2})):
        chosen = load_config("smoke", flags={"space.name": name}).space.model_dump()
        assert expected.items() <= chosen.items()
