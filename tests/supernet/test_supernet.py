"""The shared weights compute exactly what the stand-alone networks compute."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from nas_edge.networks import layers as L
from nas_edge.networks.keras_model import keras_model
from nas_edge.spaces import blocks
from nas_edge.spaces.decisions import Architecture, NetworkSpace
from nas_edge.supernet.elastic import EXECUTIONS, Execution
from nas_edge.supernet.supernet import PRECISIONS, Supernet, one_hot_masks
from tests.support.spaces import small_space, tiny_space

BATCH = 6


SPACE = small_space()
RNG = np.random.default_rng(7)
IMAGES = RNG.normal(size=(BATCH, 12, 12, 3)).astype(np.float32)
LABELS = RNG.integers(5, size=BATCH)


class Compiled:
    """A supernet with one compiled step, which counts its traces."""

    def __init__(self, execution: Execution, rematerialize: bool = False) -> None:
        self.net = Supernet(SPACE, execution, seed=3, rematerialize=rematerialize)
        rng = np.random.default_rng(11)
        for variable in self.net.trainable_variables:  # biases, gamma and beta start at values that hide mistakes
            variable.assign(variable + rng.normal(scale=0.1, size=variable.shape))
        self.traces = 0
        self.step = tf.function(self._step, autograph=False)

    def _step(self, masks: Any) -> Any:
        self.traces += 1
        with tf.GradientTape() as tape:
            logits, penalty = self.net(tf.constant(IMAGES), masks)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS, logits)
            loss = tf.reduce_mean(losses) + 1e-2 * penalty
        gradients = tape.gradient(loss, [v.value for v in self.net.trainable_variables])
        return logits, penalty, gradients

    def run(self, masks: Any) -> tuple[Any, float, dict[str, Any]]:
        logits, penalty, gradients = self.step(tf.constant(masks))
        names = list(self.net.named_variables())
        dense = [tf.convert_to_tensor(g).numpy() for g in gradients]
        return logits.numpy(), float(penalty), dict(zip(names, dense, strict=True))


@pytest.fixture(scope="module")
def compiled() -> dict[Execution, Compiled]:
    return {execution: Compiled(execution) for execution in EXECUTIONS}


@contextmanager
def kept(variables: dict[str, Any]) -> Iterator[None]:
    """Puts the variables' values back afterwards."""
    values = {name: variable.numpy() for name, variable in variables.items()}
    try:
        yield
    finally:
        for name, variable in variables.items():
            variable.assign(values[name])


def all_on() -> Any:
    """Every branch averaged, every width at its largest: the start of warm-up."""
    masks = np.zeros_like(one_hot_masks(SPACE, Architecture((0,) * len(SPACE.decisions))))
    for row, decision in zip(masks, SPACE.decisions, strict=True):
        if decision.kind == "op":
            row[: len(decision.choices)] = 1 / len(decision.choices)
        else:
            row[decision.largest] = 1
    return masks


ARCHITECTURES = [SPACE.sample(RNG) for _ in range(6)]


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_forward_equals_the_stand_alone_network(compiled: dict[Execution, Compiled], execution: Execution) -> None:
    for architecture in ARCHITECTURES:
        spec = SPACE.decode(architecture)
        model = keras_model(spec, compiled[execution].net.weights_of(spec))
        # Batch statistics, as in the search; the dropout layer would add noise.
        for layer in model.layers:
            if type(layer).__name__ == "Dropout":
                layer.rate = 0.0
        expected = model(IMAGES, training=True).numpy()
        logits, _, _ = compiled[execution].run(one_hot_masks(SPACE, architecture))
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_a_residual_that_is_always_there_adds_its_body(execution: Execution) -> None:
    decisions = blocks.Decisions()
    width = blocks.number("filters", (4, 8))
    body = L.sequential(depthwise=L.DepthwiseConv2D(3), norm=L.BatchNorm())
    layers: dict[str, L.Layer] = {"stem": blocks.conv_norm(width, "relu", 3, 2), "residual": L.Residual(body)}
    decisions.declare(width)
    layers |= {"pool": L.GlobalAveragePool(), **blocks.classifier(5, 0.0)}
    space = NetworkSpace("residual", L.Sequential(tuple(layers.items())), decisions.list, (12, 12, 3), 5)
    net = Supernet(space, execution, seed=3)
    for choice in (0, 1):
        spec = space.decode(Architecture((choice,)))
        logits, penalty = net(tf.constant(IMAGES), one_hot_masks(space, Architecture((choice,))))
        model = keras_model(spec, net.weights_of(spec))
        np.testing.assert_allclose(logits, model(IMAGES, training=True), rtol=1e-4, atol=1e-4)
        kernels = [weight for layer in model.layers for weight in layer.weights if "kernel" in weight.name]
        decayed = [kernel for kernel in kernels if kernel.shape[-1] != 5]  # all but the classifier's
        expected = sum(float(tf.reduce_sum(tf.square(kernel))) / 2 for kernel in decayed)
        assert float(penalty) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("mixed", [False, True])
def test_sliced_and_masked_agree(compiled: dict[Execution, Compiled], mixed: bool) -> None:
    for architecture in ARCHITECTURES:
        masks = one_hot_masks(SPACE, architecture)
        if mixed:
            chosen = RNG.random(len(masks)) < 0.5
            masks[chosen] = all_on()[chosen]
        logits, penalty, gradients = compiled["sliced"].run(masks)
        masked_logits, masked_penalty, masked_gradients = compiled["masked"].run(masks)
        np.testing.assert_allclose(logits, masked_logits, rtol=1e-4, atol=1e-4)
        assert penalty == pytest.approx(masked_penalty, rel=1e-5)
        for name, gradient in gradients.items():
            np.testing.assert_allclose(gradient, masked_gradients[name], rtol=2e-3, atol=2e-4, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_rematerialization_changes_nothing(compiled: dict[Execution, Compiled], execution: Execution) -> None:
    again = Compiled(execution, rematerialize=True)
    for masks in [all_on(), *(one_hot_masks(SPACE, architecture) for architecture in ARCHITECTURES)]:
        logits, penalty, gradients = compiled[execution].run(masks)
        same_logits, same_penalty, same_gradients = again.run(masks)
        np.testing.assert_allclose(logits, same_logits, rtol=1e-5, atol=1e-6)
        assert penalty == pytest.approx(same_penalty, rel=1e-6)
        for name, gradient in gradients.items():
            np.testing.assert_allclose(gradient, same_gradients[name], rtol=1e-4, atol=1e-5, err_msg=name)
    assert again.traces == 1


@pytest.mark.slow
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_what_is_run_again_is_not_kept(execution: Execution) -> None:
    """Counts convolutions of one step: a runtime that finds the same one twice runs it once, and keeps its output."""
    counts = [convolutions(Compiled(execution, rematerialize=again)) for again in (False, True)]
    assert counts[1] > 1.3 * counts[0]


def convolutions(compiled: Compiled) -> int:
    """How often a step with every branch on convolves, forward."""
    compiled.run(all_on())  # traces
    with TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            compiled.run(all_on())
        (file,) = Path(folder).rglob("*.xplane.pb")
        names = [
            plane.event_metadata[event.metadata_id].name
            for plane in xplane_pb2.XSpace.FromString(file.read_bytes()).planes
            for line in plane.lines
            for event in line.events
        ]
    return sum(bool(re.search(r":\w*Conv2[dD](Native)?$", name)) for name in names)


@pytest.mark.parametrize("precision", [name for name in PRECISIONS if name != "float32"])
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_a_lower_precision_computes_about_the_same_with_float32_weights(execution: Execution, precision: str) -> None:
    space = tiny_space()
    rng = np.random.default_rng(0)
    images, masks = rng.normal(size=(8, 8, 8, 1)).astype(np.float32), one_hot_masks(space, space.sample(rng))
    exact, penalty = Supernet(space, execution, seed=1)(images, masks)
    net = Supernet(space, execution, seed=1, precision=precision)
    with tf.GradientTape() as tape:
        logits, same_penalty = net(images, masks)
        loss = tf.reduce_sum(logits)
    gradients = tape.gradient(loss, [variable.value for variable in net.trainable_variables])
    assert logits.dtype == tf.float32
    assert {gradient.dtype for gradient in gradients} == {tf.float32}
    assert not np.array_equal(logits, exact)  # it did compute otherwise
    np.testing.assert_allclose(logits, exact, rtol=0.1, atol=0.1 * float(np.abs(exact).max()))
    assert float(same_penalty) == float(penalty)


def test_one_compiled_function_serves_every_architecture(compiled: dict[Execution, Compiled]) -> None:
    for architecture in ARCHITECTURES:
        compiled["sliced"].run(one_hot_masks(SPACE, architecture))
    assert compiled["sliced"].traces == 1


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_with_every_branch_on_each_variable_learns(compiled: dict[Execution, Compiled], execution: Execution) -> None:
    _, _, gradients = compiled[execution].run(all_on())
    assert [name for name, gradient in gradients.items() if not np.any(gradient)] == []


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_a_branch_that_is_off_is_not_executed(compiled: dict[Execution, Compiled], execution: Execution) -> None:
    poisoned = compiled[execution]
    architecture = SPACE.encode({"block2.layer2.op": "skip", "block2.layer3.kernel": "k3", "stem.kernel": "k5"})
    active = set(poisoned.net.weights_of(SPACE.decode(architecture)))
    inactive = {n: v for n, v in poisoned.net.named_variables().items() if n.split("/")[0] not in active}
    with kept(inactive):
        for variable in inactive.values():
            variable.assign(np.full(variable.shape, np.nan, np.float32))
        logits, penalty, gradients = poisoned.run(one_hot_masks(SPACE, architecture))
    assert len(inactive) > 10
    assert np.isfinite(logits).all()
    assert np.isfinite(penalty)
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


def test_sliced_execution_does_not_read_inactive_channels(compiled: dict[Execution, Compiled]) -> None:
    poisoned = compiled["sliced"]
    architecture = SPACE.encode({"stem.filters": 8, "block1.filters": 8, "block2.filters": 16})
    kernel = poisoned.net.named_variables()["stem.k3.conv/kernel"]
    values = kernel.numpy()
    values[..., 8:] = np.nan
    with kept({"kernel": kernel}):
        kernel.assign(values)
        logits, _, _ = poisoned.run(one_hot_masks(SPACE, architecture))
    assert np.isfinite(logits).all()


def test_penalty_is_half_the_squares_of_the_active_kernels(compiled: dict[Execution, Compiled]) -> None:
    architecture = ARCHITECTURES[0]
    spec = SPACE.decode(architecture)
    weights = compiled["sliced"].net.weights_of(spec)
    expected = sum(
        0.5 * float(np.sum(np.square(weights[node.name][0], dtype=np.float64)))
        for node in spec.nodes
        if isinstance(node.layer, L.DepthwiseConv2D) or (isinstance(node.layer, L.Conv2D) and node.layer.regularized)
    )
    _, penalty, _ = compiled["sliced"].run(one_hot_masks(SPACE, architecture))
    assert penalty == pytest.approx(expected, rel=1e-5)


def test_masked_execution_compiles_with_xla(compiled: dict[Execution, Compiled]) -> None:
    net = compiled["masked"].net
    jitted = tf.function(
        lambda images, masks: net(images, masks)[0],
        input_signature=[tf.TensorSpec(IMAGES.shape), tf.TensorSpec(all_on().shape)],
        autograph=False,
        jit_compile=True,
    )
    masks = one_hot_masks(SPACE, ARCHITECTURES[0])
    logits, _, _ = compiled["masked"].run(masks)
    np.testing.assert_allclose(jitted(IMAGES, masks).numpy(), logits, rtol=1e-4, atol=1e-4)


def test_same_seed_same_weights() -> None:
    first, second, other = (Supernet(SPACE, seed=seed).named_variables() for seed in (1, 1, 2))
    name = "stem.k3.conv/kernel"
    np.testing.assert_array_equal(first[name].numpy(), second[name].numpy())
    assert not np.array_equal(first[name].numpy(), other[name].numpy())
