"""The supernet: one set of weights for every architecture of a space.

It interprets a space's template as `networks.template.decode` does, but keeps all alternatives and runs those that a
*mask* selects. A mask is a float32 array `[decisions, most choices]`, one row per decision in the space's order:

* one-hot selects an architecture;
* a uniform row of an `op` decision runs all its branches and averages them (op warm-up).

Masks enter as tensors, so one compiled function serves every architecture, and a branch of weight zero is not
executed. Parts of the template that have the same form (the layers of mobile networks mostly do) share one traced
function that takes weights, widths and masks as arguments: tracing and optimising the graph otherwise takes longer
than a small search.

With rematerialisation such a part keeps only its input for the backward pass and is run again there. It is what makes
the all-branches steps of warm-up fit in memory on large images, for about a third more work.

Source: TuNAS, US11347995 and reference code `rematlib/layers.py` (Switch) and `mobile_model_v3.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nas_edge.networks import layers as L
from nas_edge.networks.graph import INPUT, NetworkSpec, Shape, Weights
from nas_edge.networks.keras_model import layer_seed
from nas_edge.networks.open_values import resolve_width
from nas_edge.networks.primitives import Weight
from nas_edge.networks.template import choice_path, join
from nas_edge.spaces.decisions import Architecture, NetworkSpace
from nas_edge.supernet.elastic import (
    ElasticLayer,
    Execution,
    Tensor,
    active_index,
    run_elastic,
    trainable_weights,
)

# What a network computes with.
PRECISIONS = {"float32": "float32", "mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}


def one_hot_masks(space: NetworkSpace, architecture: Architecture) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The mask that selects one architecture."""
    masks = np.zeros((len(space.decisions), max(len(d.choices) for d in space.decisions)), np.float32)
    masks[np.arange(len(space.decisions)), architecture.choices] = 1.0
    return masks


@dataclass(frozen=True)
class _Features:
    """A tensor on its way through the network.

    Attributes:
        values: `[batch, height, width, channels]`; inactive channels are absent when sliced, zero when masked.
        channels: active channels, scalar int32.
        penalty: half the sum of squares of the regularised kernels used so far, scalar.
    """

    values: Tensor
    channels: Tensor
    penalty: Tensor


@dataclass(frozen=True)
class _Environment:
    """What a part of the template reads besides its input.

    Attributes:
        weights: values of the variables per leaf path, see `Supernet.active_weights`.
        numbers: the chosen number per decision of a width or ratio, scalar float64.
        masks: weight of each alternative per decision between layers, `[choices]`.
        gate_channels: channels at the input of the enclosing `Gate`.
    """

    weights: dict[str, tuple[Tensor, ...]]
    numbers: dict[str, Tensor]
    masks: dict[str, Tensor]
    gate_channels: Tensor


@dataclass(frozen=True)
class _Part:
    """A part of the template that has traced functions of its own.

    Attributes:
        layer: the part.
        path: where it is.
        counts: number of variables per leaf inside.
        numbers: decisions inside between numbers.
        masks: decisions inside between layers.
    """

    layer: L.Layer
    path: str
    counts: dict[str, int]
    numbers: list[str]
    masks: list[str]


@dataclass(frozen=True)
class _Alternative:
    """One layer that an edge of a graph may have.

    Attributes:
        layer: the layer.
        path: where it is.
        weight: of its output in the node's sum, scalar.
    """

    layer: L.Layer
    path: str
    weight: Tensor


class Supernet(keras.Model):  # type: ignore[misc]
    """Runs any architecture of `space`.

    Args:
        space: the search space.
        execution: `sliced` computes active channels only; `masked` keeps static shapes.
        seed: of the weights; each layer's own seed follows from it and the layer's path.
        rematerialize: whether layers are run again in the backward pass instead of keeping what they computed.
        precision: a name in `PRECISIONS`. Variables, their gradients, batch statistics and outputs are always float32.
    """

    def __init__(
        self,
        space: NetworkSpace,
        execution: Execution = "sliced",
        seed: int = 0,
        rematerialize: bool = False,
        precision: str = "float32",
    ) -> None:
        super().__init__(name="supernet")
        self.space = space
        self.execution: Execution = execution
        self._rematerialize = rematerialize
        self._values_dtype = tf.as_dtype(PRECISIONS[precision])
        self._functions: dict[Hashable, Any] = {}
        self._depth = 0  # how many shared functions are being traced inside one another
        leaves: dict[str, ElasticLayer] = {}
        _build(space.template, space.input_shape[-1], None, "", leaves, seed)
        self.leaves = leaves
        self.built = True

    def call(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs and L2 penalty of the network that `masks` selects.

        Args:
            images: `[batch, height, width, channels]`, float32.
            masks: `[decisions, most choices]`, float32.

        Returns:
            Outputs `[batch, *space.output_shape]`, and half the sum of squares of the active regularised kernels
            (scalar).
        """
        return self.run(images, masks, self.active_weights(masks))

    def active_weights(self, masks: Tensor) -> list[Tensor]:
        """What the network of `masks` has of each variable, in the order of `trainable_variables`.

        Sliced, these are the active channels, and nothing of a branch that is off, so that gradients by them are as
        small as the network; masked, it is all.
        """
        if self.execution == "masked":
            return [tf.convert_to_tensor(variable) for variable in self.trainable_variables]
        widths: dict[str, tuple[Tensor, Tensor]] = {}
        channels = tf.constant(self.space.input_shape[-1])
        self._find_widths(self.space.template, channels, "", self._environment(masks, {}), tf.constant(1), widths)
        return [
            variable[active_index(weight, *widths[path])]
            for path, leaf in self.leaves.items()
            for weight, variable in zip(trainable_weights(leaf.primitive), leaf.weights, strict=True)
        ]

    def run(self, images: Tensor, masks: Tensor, values: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """As `call`, with weights as `active_weights` returns them."""
        remaining = iter(values)
        weights = {path: tuple(next(remaining) for _ in leaf.weights) for path, leaf in self.leaves.items()}
        features = _Features(tf.cast(images, self._values_dtype), tf.constant(self.space.input_shape[-1]), tf.zeros([]))
        result = self._run(self.space.template, features, "", self._environment(masks, weights))
        outputs = tf.cast(result.values, tf.float32)
        return tf.ensure_shape(outputs, [None, *self.space.output_shape]), result.penalty

    def _environment(self, masks: Tensor, weights: dict[str, tuple[Tensor, ...]]) -> _Environment:
        rows = tf.unstack(masks, num=len(self.space.decisions))
        return _Environment(
            weights=weights,
            numbers={
                decision.path: tf.gather(tf.constant(decision.choices, tf.float64), tf.argmax(row))
                for decision, row in zip(self.space.decisions, rows, strict=True)
                if decision.kind == "filters"
            },
            masks={
                decision.path: row[: len(decision.choices)]
                for decision, row in zip(self.space.decisions, rows, strict=True)
                if decision.kind != "filters"
            },
            gate_channels=tf.zeros([], tf.int32),
        )

    def _find_widths(
        self,
        layer: L.Layer,
        channels: Tensor,
        path: str,
        env: _Environment,
        on: Tensor,
        found: dict[str, tuple[Tensor, Tensor]],
    ) -> Tensor:
        """Collects the active input and output channels of every leaf, and returns those that `layer` makes.

        Args:
            layer: a part of the template.
            channels: that come in, scalar int32.
            path: where the part is.
            env: the decisions.
            on: 1 for a part that is run, 0 for one in a branch that is off, whose leaves have no active channels.
            found: by leaf path.
        """
        if isinstance(layer, L.Sequential):
            for name, part in layer.parts:
                channels = self._find_widths(part, channels, join(path, name), env, on, found)
            return channels
        if isinstance(layer, (L.Residual, L.Concatenate)):
            below = [(part, join(path, name)) for name, part in layer.inside()]
            return [self._find_widths(part, channels, there, env, on, found) for part, there in below][-1]
        if isinstance(layer, L.Graph):
            made = {INPUT: channels}
            there = _graph_weights(layer, env)
            for name, edges in layer.nodes:
                for edge in edges:
                    run = on * tf.cast(_if_unread(layer, edge, there[name], env) > 0, tf.int32)
                    inner_path = join(join(path, name), edge.name)
                    made[name] = self._find_widths(edge.layer, made[edge.source], inner_path, env, run, found)
            return made[layer.nodes[-1][0]]
        if isinstance(layer, L.Gate):
            inner = dataclasses.replace(env, gate_channels=channels)
            self._find_widths(layer.body, channels, path, inner, on, found)
            return channels
        if isinstance(layer, L.OneOf):
            for indices in layer.alternatives():
                chosen = on
                if len(layer.choices) > 1:
                    chosen = on * tf.cast(_sum_of(env.masks[layer.decision], indices) > 0, tf.int32)
                choice, inner_path = layer.layers()[indices[0]], choice_path(path, layer, indices[0])
                self._find_widths(choice, channels, inner_path, env, chosen, found)
            return _channels(layer, channels, env)
        if isinstance(layer, L.Primitive):
            made = _width(layer.width, channels, env)
            found[path] = (on * channels, on * made)
            return made
        return channels

    # ------------------------------------------------------------ interpreting the template

    def _run(self, layer: L.Layer, x: _Features, path: str, env: _Environment) -> _Features:
        return (
            self._run_shared(layer, x, path, env)
            if path and _is_shared(layer)
            else self._run_inline(layer, x, path, env)
        )

    def _run_inline(self, layer: L.Layer, x: _Features, path: str, env: _Environment) -> _Features:
        if isinstance(layer, L.Identity):
            return x
        if isinstance(layer, L.Zero):
            return _Features(*self._zero(layer, x, env), x.penalty)
        if isinstance(layer, L.Sequential):
            for name, part in layer.parts:
                x = self._run(part, x, join(path, name), env)
            return x
        if isinstance(layer, (L.Residual, L.OneOf)):
            return self._run_choice(layer, x, path, env)
        if isinstance(layer, L.Concatenate):
            first = self._run(layer.first, x, join(path, "first"), env)
            second = self._run(layer.second, dataclasses.replace(x, penalty=first.penalty), join(path, "second"), env)
            return dataclasses.replace(second, values=L.Concat().run((), first.values, second.values))
        if isinstance(layer, L.Graph):
            return self._run_graph(layer, x, path, env)
        if isinstance(layer, L.Gate):
            inner = _Environment(env.weights, env.numbers, env.masks, x.channels)
            gate = self._run(layer.body, x, path, inner)
            return _Features(L.Multiply().run((), x.values, gate.values), x.channels, gate.penalty)
        if isinstance(layer, L.Primitive):
            out = _width(layer.width, x.channels, env)
            weights = env.weights.get(path, ())
            values, penalty = run_elastic(layer, weights, x.values, x.channels, out, self.execution)
            return _Features(values, out, x.penalty + penalty)
        raise TypeError(f"{path}: the supernet cannot run {type(layer).__name__}")

    def _run_choice(self, layer: L.Residual | L.OneOf, x: _Features, path: str, env: _Environment) -> _Features:
        """A residual or a choice: what comes in, or zero, plus the mask-weighted sum of the alternatives.

        Each alternative is a conditional that adds to what came before, so what is off costs nothing.
        """
        body: L.Layer = layer
        start = x
        if isinstance(layer, L.Residual):
            body = layer.body
            start = self._run(layer.shortcut, x, join(path, "shortcut"), env)
        if isinstance(body, L.OneOf) and len(body.choices) == 1:
            (body,) = body.layers()
        if not isinstance(body, L.OneOf):
            result = self._run(body, dataclasses.replace(x, penalty=start.penalty), path, env)
            if isinstance(layer, L.Residual):
                return _Features(L.Add().run((), start.values, result.values), start.channels, result.penalty)
            return result
        adds = isinstance(layer, L.Residual)
        total, channels = (start.values, start.channels) if adds else self._zero(body, x, env)
        penalty = start.penalty
        for indices in body.alternatives():
            index = indices[0]
            if isinstance(body.layers()[index], L.Zero):
                continue
            weight = _sum_of(env.masks[body.decision], indices)

            def on(
                index: int = index, weight: Tensor = weight, total: Tensor = total, penalty: Tensor = penalty
            ) -> tuple[Tensor, Tensor]:
                inner = _Features(x.values, x.channels, tf.zeros([]))
                result = self._run(body.layers()[index], inner, choice_path(path, body, index), env)
                values = result.values
                # Of a single architecture there is nothing to weight, nor, but for a residual, to add to.
                total = tf.cond(
                    weight == 1,
                    lambda: total + values if adds else values,
                    lambda: total + tf.cast(weight, values.dtype) * values,
                )
                return total, penalty + weight * result.penalty

            def off(total: Tensor = total, penalty: Tensor = penalty) -> tuple[Tensor, Tensor]:
                return total, penalty

            total, penalty = tf.cond(weight > 0, on, off)
        return _Features(tf.ensure_shape(total, [None] * 4), channels, penalty)

    def _run_graph(self, graph: L.Graph, x: _Features, path: str, env: _Environment) -> _Features:
        """The nodes one after another, each the sum of its edges, weighted by whether they are there.

        An edge of a node that leads nowhere costs nothing, like an edge that is not there.
        """
        made, penalty = {INPUT: x}, x.penalty
        leads = _graph_weights(graph, env)
        shapes = _graph_shapes(graph, tuple(x.values.shape[1:])) if self.execution == "masked" else {}
        for name, edges in graph.nodes:
            shape = [1, 1, 1, 1]
            if self.execution == "masked":
                shape = [tf.shape(x.values)[0] if x.values.shape[0] is None else x.values.shape[0], *shapes[name]]
            total = tf.zeros(shape, x.values.dtype)
            for edge in edges:
                source = made[edge.source]
                inner = join(join(path, name), edge.name)
                channels = _channels(edge.layer, source.channels, env)
                for one in _alternatives(edge.layer, inner, env):
                    if isinstance(one.layer, L.Zero):
                        continue
                    weight = _if_unread(graph, edge, one.weight, env)
                    there = tf.where(leads[name] > 0, weight, tf.zeros([]))
                    part = dataclasses.replace(one, weight=there)
                    total, penalty = self._add_part(part, source, total, penalty, env)
            made[name] = _Features(tf.ensure_shape(total, [None] * 4), channels, penalty)
        return dataclasses.replace(made[graph.nodes[-1][0]], penalty=penalty)

    def _add_part(
        self, part: _Alternative, x: _Features, total: Tensor, penalty: Tensor, env: _Environment
    ) -> tuple[Tensor, Tensor]:
        """A sum, and the penalty, with a part added as it weighs."""

        def on() -> tuple[Tensor, Tensor]:
            made = self._run(part.layer, dataclasses.replace(x, penalty=tf.zeros([])), part.path, env)
            return total + tf.cast(part.weight, made.values.dtype) * made.values, penalty + part.weight * made.penalty

        return tf.cond(part.weight > 0, on, lambda: (total, penalty))  # type: ignore[no-any-return]

    def _zero(self, body: L.OneOf | L.Zero, x: _Features, env: _Environment) -> tuple[Tensor, Tensor]:
        """What a sum of alternatives starts from, and its active channels.

        Sliced, something that broadcasts does; masked, the shape must be the sum's, for XLA.
        """
        if self.execution == "sliced":
            return tf.zeros([1, 1, 1, 1], x.values.dtype), _channels(body, x.channels, env)
        batch, *image = x.values.shape
        shape = [tf.shape(x.values)[0] if batch is None else batch, *_most_shape(body, tuple(image))]
        return tf.zeros(shape, x.values.dtype), _channels(body, x.channels, env)

    # ------------------------------------------------------------ sharing traced functions

    def _run_shared(self, layer: L.Layer, x: _Features, path: str, env: _Environment) -> _Features:
        """Runs a part through the traced functions of its form, tracing them at the first use."""
        prefix = path + "."
        names = [name for name in env.weights if name.startswith(prefix)]
        decisions: list[str] = []
        form = _form(layer, decisions)
        part = _Part(
            layer,
            path,
            counts={name: len(env.weights[name]) for name in names},
            numbers=[d for d in decisions if d in env.numbers],
            masks=[d for d in decisions if d in env.masks],
        )
        weights = [value for name in names for value in env.weights[name]]
        fixed = (
            x.channels,
            env.gate_channels,
            [env.numbers[d] for d in part.numbers],
            [env.masks[d] for d in part.masks],
        )
        static = (tuple(x.values.shape), *(tuple(w.shape) for w in weights)) if self.execution == "masked" else None
        # Inside a part that is run again, everything is: once is enough.
        again = self._rematerialize and self._depth == 0
        key = (form, static, again)
        if key not in self._functions:
            self._functions[key] = self._trace(part, x, weights, fixed, again)
        values, penalty = self._functions[key](x.values, x.penalty, weights, fixed)
        return _Features(values, _channels(layer, x.channels, env), penalty)

    def _trace(self, part: _Part, x: _Features, weights: list[Tensor], fixed: Any, again: bool) -> Any:
        """The function of a part's form, its shapes left open when sliced."""

        def run(values: Tensor, penalty: Tensor, weights: list[Tensor], fixed: Any) -> tuple[Tensor, Tensor]:
            channels, gate_channels, numbers, masks = fixed
            remaining = iter(weights)
            env = _Environment(
                {name: tuple(next(remaining) for _ in range(count)) for name, count in part.counts.items()},
                dict(zip(part.numbers, numbers, strict=True)),
                dict(zip(part.masks, masks, strict=True)),
                gate_channels,
            )
            self._depth += 1
            result = self._run_inline(part.layer, _Features(values, channels, penalty), part.path, env)
            self._depth -= 1
            return result.values, result.penalty

        def open_shape(tensor: Tensor) -> tf.TensorSpec:
            shape = tensor.shape if self.execution == "masked" else [None] * tensor.shape.rank
            return tf.TensorSpec(shape, tensor.dtype)

        values_shape = x.values.shape if self.execution == "masked" else [None] * 4
        signature = [
            tf.TensorSpec(values_shape, x.values.dtype),
            tf.TensorSpec([], tf.float32),
            [open_shape(value) for value in weights],
            tf.nest.map_structure(lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), fixed),
        ]
        # Not inlined, so that the runtime optimises each form once instead of once per use, and does not find that what
        # is run again was computed before, which it would then keep.
        apart = self.execution == "sliced" or self._rematerialize
        attributes = {"_noinline": True} if apart else None
        compiled = partial(tf.function, autograph=False, experimental_attributes=attributes)
        forward = compiled(run, input_signature=signature)
        return _run_again(run, forward, signature, compiled) if again else forward

    # ------------------------------------------------------------ handing weights over

    def weights_of(self, spec: NetworkSpec) -> Weights:
        """The weights that a decoded architecture of this space has in the supernet.

        Batch-norm statistics are those of an untrained layer; re-estimate them before evaluating
        (`training.trainer.recalibrate_batch_norm`).
        """
        weights = {}
        for node in spec.nodes:
            leaf = self.leaves.get(node.name)
            if leaf is not None:
                weights[node.name] = leaf.active_weights(spec.input_shapes(node)[0][-1], node.shape[-1])
        return weights

    def trained_weights(self) -> dict[str, list[Weight]]:
        """What each layer has of weights, by path."""
        return {path: trainable_weights(leaf.primitive) for path, leaf in self.leaves.items()}

    def named_variables(self) -> dict[str, Any]:
        """Every variable by path and name, for example `stem.conv/kernel`."""
        return {f"{path}/{variable.name}": variable for path, leaf in self.leaves.items() for variable in leaf.weights}


def _run_again(
    run: Callable[..., Any], forward: Callable[..., Any], signature: list[Any], compiled: Callable[..., Any]
) -> Callable[..., Any]:
    """As `forward`, but the backward pass runs the part again instead of keeping what it computed.

    Args:
        run: the part, as a function of values, penalty, weights and what is fixed.
        forward: `run`, compiled.
        signature: of `run`'s arguments.
        compiled: compiles a function.
    """

    def run_backward(
        values: Tensor, penalty: Tensor, weights: list[Tensor], fixed: Any, d_values: Tensor, d_penalty: Tensor
    ) -> list[Tensor]:
        with tf.GradientTape() as tape:
            sources = [values, penalty, *weights]
            tape.watch(sources)
            outputs = run(values, penalty, weights, fixed)
        zero = tf.UnconnectedGradients.ZERO
        gradients: list[Tensor] = tape.gradient(outputs, sources, [d_values, d_penalty], unconnected_gradients=zero)
        return gradients

    results = [tf.TensorSpec([None] * 4, signature[0].dtype), tf.TensorSpec([], tf.float32)]
    backward = compiled(run_backward, input_signature=[*signature, *results])

    def run_again(values: Tensor, penalty: Tensor, weights: list[Tensor], fixed: Any) -> Any:
        @tf.custom_gradient  # type: ignore[untyped-decorator]
        def call(values: Tensor, penalty: Tensor, *weights: Tensor) -> Any:
            def gradient(d_values: Tensor, d_penalty: Tensor) -> list[Tensor]:
                return backward(values, penalty, list(weights), fixed, d_values, d_penalty)  # type: ignore[no-any-return]

            return forward(values, penalty, list(weights), fixed), gradient

        return call(values, penalty, *weights)

    return run_again


def _build(layer: L.Layer, most: int, gate: int | None, path: str, leaves: dict[str, ElasticLayer], seed: int) -> int:
    """Creates the variables of `layer` at maximum width and returns its most output channels."""
    if isinstance(layer, L.Sequential):
        for name, part in layer.parts:
            most = _build(part, most, gate, join(path, name), leaves, seed)
        return most
    if isinstance(layer, (L.Residual, L.Concatenate)):
        return [_build(part, most, gate, join(path, name), leaves, seed) for name, part in layer.inside()][-1]
    if isinstance(layer, L.Graph):
        made = {INPUT: most}
        for name, edges in layer.nodes:
            for edge in edges:
                made[name] = _build(
                    edge.layer, made[edge.source], gate, join(join(path, name), edge.name), leaves, seed
                )
        return made[layer.nodes[-1][0]]
    if isinstance(layer, L.Gate):
        return _build(layer.body, most, most, path, leaves, seed)
    if isinstance(layer, L.OneOf):
        choices, firsts = layer.layers(), [indices[0] for indices in layer.alternatives()]
        return max(_build(choices[i], most, gate, choice_path(path, layer, i), leaves, seed) for i in firsts)
    if isinstance(layer, L.Primitive):
        most_out = resolve_width(layer.width, most, gate, _largest)
        if trainable_weights(layer):
            leaves[path] = ElasticLayer(layer, most, most_out, layer_seed(seed, path), path)
        return most_out
    return most


def _is_shared(layer: L.Layer) -> bool:
    """Whether a part gets traced functions of its own: choices, residuals, and layers that hold a choice.

    A residual with another shortcut than the identity, or a choice of one, joins large parts of a network, and is there
    once.
    """
    if isinstance(layer, L.Sequential):
        return any(isinstance(part, L.OneOf) and len(part.choices) > 1 for _, part in layer.parts)
    if isinstance(layer, L.Residual):
        return layer.shortcut == L.Identity() or isinstance(layer.shortcut, L.OneOf)
    return isinstance(layer, L.OneOf)


def _sum_of(weights: Tensor, indices: tuple[int, ...]) -> Tensor:
    """How much an alternative weighs: as much as its choices together, scalar."""
    return weights[indices[0]] if len(indices) == 1 else tf.add_n([weights[index] for index in indices])


def _largest(one_of: L.OneOf) -> float:
    return max(one_of.numbers())


def _width(width: L.Width | None, in_channels: Tensor, env: _Environment) -> Tensor:
    """The active channels a layer produces, scalar int32: `resolve_width` on tensors."""
    if width is None:
        return in_channels
    if isinstance(width, L.OneOf):
        return tf.cast(env.numbers[width.decision], tf.int32)
    if isinstance(width, L.GateChannels):
        return env.gate_channels
    if isinstance(width, L.Scaled):
        ratio, per = (
            env.numbers[one.decision] if isinstance(one, L.OneOf) else one for one in (width.ratio, width.per)
        )
        product = tf.cast(in_channels, tf.float64) * ratio / per
        divisor = 1.0 if width.rounding == "whole" else 8.0
        rounded = tf.maximum(divisor * tf.floor(product / divisor + 0.5), divisor)
        if width.rounding == "divisible":
            rounded += tf.where(rounded < 0.9 * product, tf.constant(8.0, tf.float64), tf.constant(0.0, tf.float64))
        return tf.cast(rounded, tf.int32)
    return tf.constant(width)


def _channels(layer: L.Layer, channels: Tensor, env: _Environment) -> Tensor:
    """Active output channels of a template layer, without running it."""
    if isinstance(layer, L.Sequential):
        for _, part in layer.parts:
            channels = _channels(part, channels, env)
        return channels
    if isinstance(layer, L.OneOf):
        return _channels(layer.layers()[0], channels, env)
    if isinstance(layer, L.Residual):
        return _channels(layer.shortcut, channels, env)
    if isinstance(layer, L.Concatenate):
        return _channels(layer.second, channels, env)
    if isinstance(layer, L.Graph):
        made = {INPUT: channels}
        for name, edges in layer.nodes:
            made[name] = _channels(edges[0].layer, made[edges[0].source], env)
        return made[layer.nodes[-1][0]]
    return _width(layer.width, channels, env) if isinstance(layer, L.Primitive) else channels


def _most_shape(layer: L.Layer, shape: Shape) -> Shape:
    """Output shape of a template layer, every width inside at its largest."""
    if isinstance(layer, L.Sequential):
        for _, part in layer.parts:
            shape = _most_shape(part, shape)
        return shape
    if isinstance(layer, L.OneOf):
        return _most_shape(layer.layers()[0], shape)
    if isinstance(layer, L.Residual):
        return _most_shape(layer.shortcut, shape)
    if isinstance(layer, L.Concatenate):
        return L.Concat().output_shape(_most_shape(layer.first, shape), _most_shape(layer.second, shape))
    if isinstance(layer, L.Graph):
        return _graph_shapes(layer, shape)[layer.nodes[-1][0]]
    if isinstance(layer, L.Primitive):
        return layer.with_width(resolve_width(layer.width, shape[-1], None, _largest)).output_shape(shape)
    return shape  # the others keep it


def _graph_shapes(graph: L.Graph, shape: Shape) -> dict[str, Shape]:
    """Output shape per node of a graph, every width inside at its largest."""
    made = {INPUT: shape}
    for name, edges in graph.nodes:  # a sum, so any edge will do that is not always absent
        made[name] = _most_shape(_first_there(edges[0].layer), made[edges[0].source])
    return made


def _first_there(layer: L.Layer) -> L.Layer:
    """A layer that an edge may have."""
    while isinstance(layer, L.OneOf):
        layer = next(one for one in layer.layers() if not isinstance(one, L.Zero))
    return layer


def _weight(layer: L.Layer, env: _Environment) -> Tensor:
    """How much of an edge is there, scalar."""
    if not isinstance(layer, L.OneOf):
        return tf.zeros([]) if isinstance(layer, L.Zero) else tf.ones([])
    there = tuple(i for i, one in enumerate(layer.layers()) if not isinstance(one, L.Zero))
    return _sum_of(env.masks[layer.decision], there)


def _alternatives(layer: L.Layer, path: str, env: _Environment) -> list[_Alternative]:
    """The layers that an edge may have."""
    if not isinstance(layer, L.OneOf):
        return [_Alternative(layer, path, tf.ones([]))]
    return [
        _Alternative(
            layer.layers()[indices[0]],
            choice_path(path, layer, indices[0]),
            _sum_of(env.masks[layer.decision], indices),
        )
        for indices in layer.alternatives()
    ]


def _if_unread(graph: L.Graph, edge: L.Edge, weight: Tensor, env: _Environment) -> Tensor:
    """The weight of an edge; of one that leads from a loose end, times how much of that is loose."""
    return weight * _loose(graph, edge.source, env) if edge.unread else weight


def _loose(graph: L.Graph, source: str, env: _Environment) -> Tensor:
    """How much of a node is a loose end: what remains of 1 after all edges that read it, scalar."""
    remains = tf.ones([])
    for edge in graph.readers(source):
        remains *= 1.0 - _weight(edge.layer, env)
    return remains


def _graph_weights(graph: L.Graph, env: _Environment) -> dict[str, Tensor]:
    """Per node more than 0 where it leads to the graph's output, scalar."""
    leads = {name: tf.zeros([]) for name, _ in graph.nodes} | {INPUT: tf.zeros([])}
    leads[graph.nodes[-1][0]] = tf.ones([])
    for name, edges in reversed(graph.nodes):
        for edge in edges:
            weight = _if_unread(graph, edge, _weight(edge.layer, env), env)
            there = tf.cast((weight > 0) & (leads[name] > 0), tf.float32)
            leads[edge.source] = tf.maximum(leads[edge.source], there)
    return leads


def _form(layer: Any, decisions: list[str]) -> Hashable:
    """What two parts must have in common to share a traced function.

    Decisions are numbered in order of appearance and collected in `decisions`; numbers that are open are arguments of
    the function, so what they offer is left out.
    """
    if isinstance(layer, L.OneOf):
        if layer.decision not in decisions:
            decisions.append(layer.decision)
        if layer.of_numbers:
            return ("number", decisions.index(layer.decision))
        choices = tuple(_form(choice, decisions) for choice in layer.layers())
        return ("choice", decisions.index(layer.decision), layer.alternatives(), choices)
    if isinstance(layer, L.Sequential):
        return tuple((name, _form(part, decisions)) for name, part in layer.parts)
    if isinstance(layer, L.Residual):
        return ("Residual", _form(layer.body, decisions), _form(layer.shortcut, decisions))
    if isinstance(layer, L.Concatenate):
        return ("Concatenate", _form(layer.first, decisions), _form(layer.second, decisions))
    if isinstance(layer, L.Graph):
        return (
            "Graph",
            tuple(
                (name, tuple((edge.name, edge.source, edge.unread, _form(edge.layer, decisions)) for edge in edges))
                for name, edges in layer.nodes
            ),
        )
    if isinstance(layer, L.Gate):
        return ("Gate", _form(layer.body, decisions))
    if isinstance(layer, L.Scaled):
        return ("scaled", _form(layer.ratio, decisions), layer.rounding, _form(layer.per, decisions))
    if isinstance(layer, L.Primitive):
        values = (getattr(layer, field.name) for field in dataclasses.fields(layer))
        return (type(layer), *(_form(value, decisions) for value in values))
    hashable: Hashable = layer
    return hashable
