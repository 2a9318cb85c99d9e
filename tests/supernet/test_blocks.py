"""Layers of a block that decide together, and shortcuts that are chosen, share their weights as all others do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from nas_edge.errors import SpaceError
from nas_edge.networks import layers as L
from nas_edge.networks.keras_model import keras_model
from nas_edge.spaces.decisions import Architecture, Decision, NetworkSpace
from nas_edge.supernet.elastic import EXECUTIONS, Execution
from nas_edge.supernet.supernet import Supernet, one_hot_masks
from tests.support.spaces import block_space

SPACE = block_space()
IMAGES = np.random.default_rng(0).normal(size=(6, *SPACE.input_shape)).astype(np.float32)


class Compiled:
    def __init__(self, execution: Execution) -> None:
        self.net = Supernet(SPACE, execution, seed=1)
        self.step = tf.function(lambda masks: self.net(tf.constant(IMAGES), masks)[0], autograph=False)

    def outputs(self, masks: Any) -> Any:
        return self.step(tf.constant(masks)).numpy()


@pytest.fixture(scope="module")
def compiled() -> dict[Execution, Compiled]:
    return {execution: Compiled(execution) for execution in EXECUTIONS}


def made(layers: int, skip: str, filters: int = 8) -> Architecture:
    return SPACE.encode({"block.layers": layers, "block.skip": skip, "block.filters": filters})


ARCHITECTURES = [made(1, "none"), made(2, "pool", 16), made(3, "identity", 16), made(3, "none"), made(2, "identity")]


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_forward_equals_the_stand_alone_network(
    compiled: dict[Execution, Compiled], execution: Execution, architecture: Architecture
) -> None:
    network = SPACE.decode(architecture)
    expected = keras_model(network, compiled[execution].net.weights_of(network))(IMAGES, training=True)
    received = compiled[execution].outputs(one_hot_masks(SPACE, architecture))
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-4)


def test_a_layer_has_the_same_weights_however_many_follow(compiled: dict[Execution, Compiled]) -> None:
    net = compiled["sliced"].net
    two, three = (net.weights_of(SPACE.decode(made(layers, "none"))) for layers in (2, 3))
    shared = [name for name in two if "norm" not in name and "logits" not in name]
    assert len(shared) == 5  # of the stem and of two layers
    for name in shared:
        np.testing.assert_array_equal(two[name][0], three[name][0])
    assert {name.split(".")[1] for name in net.named_variables() if name.startswith("layer2.")} == {"keep"}


def test_layers_that_are_left_out_are_not_executed(compiled: dict[Execution, Compiled]) -> None:
    poisoned = compiled["sliced"]
    variables = poisoned.net.named_variables()
    inside = {name: variables[name] for name in variables if name.startswith("layer3.") or ".k5." in name}
    kept = {name: variable.numpy() for name, variable in inside.items()}
    for variable in inside.values():
        variable.assign(np.full(variable.shape, np.nan, np.float32))
    assert np.isfinite(poisoned.outputs(one_hot_masks(SPACE, made(2, "pool")))).all()
    assert np.isnan(poisoned.outputs(one_hot_masks(SPACE, made(3, "pool")))).all()
    for name, variable in inside.items():
        variable.assign(kept[name])


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_every_choice_at_once_weighs_a_layer_by_the_numbers_of_layers_that_have_it(execution: Execution) -> None:
    """What a layer adds, times two thirds, as two of three numbers of layers have it; the input, times a third."""
    body, skip = L.Conv2D(2, use_bias=True), L.Identity()
    choice = L.OneOf("layers", (skip, body, body), ("skip", "keep", "keep"))
    space = NetworkSpace("third", choice, [Decision("layers", (0, 1, 2), "op")], (4, 4, 2), 2)
    template = L.sequential(one=choice, pool=L.GlobalAveragePool(), flat=L.Flatten())
    net = Supernet(space.with_template(template), execution)
    images = np.random.default_rng(1).normal(size=(2, 4, 4, 2)).astype(np.float32)
    skipped, kept = (net(images, one_hot_masks(space, Architecture((choice,))))[0] for choice in (0, 2))
    mixed = net(images, np.full((1, 3), 1 / 3, np.float32))[0]
    np.testing.assert_allclose(mixed, skipped / 3 + kept * 2 / 3, rtol=1e-5, atol=1e-6)


def test_choices_of_one_label_have_to_be_the_same_layer() -> None:
    with pytest.raises(ValueError, match="layers: different choices have the label 'keep'"):
        L.OneOf("layers", (L.Identity(), L.Conv2D(8)), ("keep", "keep"))


def test_without_a_shortcut_there_is_the_body_alone() -> None:
    assert [node.name for node in SPACE.decode(made(1, "none")).nodes if "add" in node.name] == []
    assert [node.name for node in SPACE.decode(made(1, "pool")).nodes if "shortcut" in node.name] == [
        "layer1.keep.shortcut.pool"
    ]


def test_body_and_shortcut_cannot_both_be_nothing() -> None:
    template = L.sequential(both=L.Residual(L.Zero(), L.Zero()), pool=L.GlobalAveragePool(), flat=L.Flatten())
    with pytest.raises((ValueError, SpaceError), match="both: body and shortcut cannot both be Zero"):
        NetworkSpace("nothing", template, [], (4, 4, 2), 2).decode(Architecture(()))


def test_distinct_architectures_of_decisions_under_several_choices_of_one() -> None:
    """Of a block with no, one or two further layers: their kind counts where there is one."""
    one, two = (L.sequential(conv=L.OneOf("kind", (L.Conv2D(8), L.Conv2D(8, 3)), ("k1", "k3"))) for _ in range(2))
    further = L.OneOf("layers", (L.Identity(), one, two), ("skip", "keep", "keep"))
    template = L.sequential(stem=L.Conv2D(8), further=further, pool=L.GlobalAveragePool(), flat=L.Flatten())
    decisions = [Decision("kind", ("k1", "k3"), "op"), Decision("layers", (1, 2, 3), "op")]
    space = NetworkSpace("further", template, decisions, (4, 4, 2), 8)
    assert (space.size, space.distinct_size) == (6, 1 + 2 + 2)
