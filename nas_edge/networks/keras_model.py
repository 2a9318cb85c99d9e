"""The stand-alone Keras model of a `NetworkSpec`: what is trained, converted and exported.

One Keras layer per node, named like the node, so weights travel by name between this model, the supernet and the
directly written TFLite file. Initialisation and batch norm follow the TuNAS reference code
(`rematlib/layers.py`, `depthwise_initializers.py`). Weight decay is the trainer's business.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras

from nas_edge.networks import layers as L
from nas_edge.networks.graph import INPUT, NetworkSpec, Node, Weights

if TYPE_CHECKING:
    import numpy as np

BATCH_NORM_MOMENTUM = 0.99

CLASSIFIER_STDDEV = 0.01

# Standard deviation of a unit normal truncated at two standard deviations.
_TRUNCATED_STDDEV = 0.87962566


def keras_model(
    spec: NetworkSpec, weights: Weights | None = None, seed: int = 0, batch_size: int | None = None
) -> keras.Model:
    """Builds the functional Keras model of a network.

    Args:
        spec: the network; node names become layer names.
        weights: initial weights by node name; drawn at random when None.
        seed: seed of the random weights; each layer's own seed follows from it and the layer's name, so equal layers
            of different architectures start equal.
        batch_size: fixed batch, as converting for a device wants it (1), or None for any.

    Returns:
        A model from `[batch, height, width, channels]` to the output of the last node.

    Raises:
        ValueError: when a layer is unknown or `weights` does not fit the network.
    """
    tensors = {INPUT: keras.Input(spec.input_shape, batch_size=batch_size, name=INPUT)}
    for node in spec.nodes:
        try:
            make = _LAYERS[type(node.layer)]
        except KeyError:
            raise ValueError(f"{node.name}: no Keras layer is known for {type(node.layer).__name__}") from None
        inputs = [tensors[name] for name in node.inputs]
        tensors[node.name] = make(node, seed)(inputs if len(inputs) > 1 else inputs[0])
    # A name of its own would count up, and end in the converted file.
    model = keras.Model(tensors[INPUT], tensors[spec.nodes[-1].name], name="network")
    if weights is not None:
        set_weights(model, weights)
    return model


def get_weights(model: keras.Model, spec: NetworkSpec) -> dict[str, tuple[np.ndarray[Any, Any], ...]]:
    """The model's weights by node name, in the order of the layers' docstrings; nodes without weights are left out."""
    arrays = {node.name: tuple(model.get_layer(node.name).get_weights()) for node in spec.nodes}
    return {name: values for name, values in arrays.items() if values}


def set_weights(model: keras.Model, weights: Weights) -> None:
    """Sets every weight of the model.

    Args:
        model: made by `keras_model`.
        weights: arrays by node name; names that are not in the model are an error, and so are missing ones.

    Raises:
        ValueError: when names or shapes do not agree; the layer is named.
    """
    holders = {layer.name: layer for layer in model.layers if layer.weights}
    for kind, names in (("missing", set(holders) - set(weights)), ("unknown", set(weights) - set(holders))):
        if names:
            raise ValueError(f"weights of {len(names)} layer(s) are {kind}, the first being {min(names)!r}")
    for name, layer in holders.items():
        expected = [tuple(variable.shape) for variable in layer.weights]
        received = [array.shape for array in weights[name]]
        if expected != received:
            raise ValueError(f"{name}: expected weights of shapes {expected}, received {received}")
        layer.set_weights(list(weights[name]))


@keras.saving.register_keras_serializable(package="nas_edge")  # type: ignore[untyped-decorator]  # Keras has no types
def hard_swish(x: Any) -> Any:
    """`x * relu6(x + 3) / 6` (MobileNetV3, arXiv:1905.02244).

    The factors stand in the order in which the TFLite converter recognises one HARD_SWISH operator.
    """
    return x * keras.ops.relu6(x + 3.0) * (1.0 / 6.0)


def layer_seed(seed: int, name: str) -> int:
    """A 31-bit seed for one layer, from the model's seed and the layer's name."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=4).digest(), "big") >> 1


def depthwise_he_normal(kernel_size: int, seed: int) -> keras.initializers.Initializer:
    """He-normal for a depthwise kernel, whose fan-in is `k * k`; Keras would count the channels as well."""
    stddev = math.sqrt(2.0) / kernel_size / _TRUNCATED_STDDEV
    return keras.initializers.TruncatedNormal(stddev=stddev, seed=seed)


# ---------------------------------------------------------------- one function per layer


def _conv(node: Node, seed: int) -> keras.layers.Layer:
    layer = node.layer
    assert isinstance(layer, L.Conv2D)
    own_seed = layer_seed(seed, node.name)
    if layer.kernel_init == "classifier":
        initializer = keras.initializers.RandomNormal(stddev=CLASSIFIER_STDDEV, seed=own_seed)
    else:
        initializer = keras.initializers.HeNormal(seed=own_seed)
    return keras.layers.Conv2D(
        layer.filters,
        layer.kernel_size,
        layer.strides,
        padding="same",
        use_bias=layer.use_bias,
        kernel_initializer=initializer,
        name=node.name,
    )


def _depthwise(node: Node, seed: int) -> keras.layers.Layer:
    layer = node.layer
    assert isinstance(layer, L.DepthwiseConv2D)
    return keras.layers.DepthwiseConv2D(
        layer.kernel_size,
        layer.strides,
        padding="same",
        use_bias=False,
        depthwise_initializer=depthwise_he_normal(layer.kernel_size, layer_seed(seed, node.name)),
        name=node.name,
    )


def _batch_norm(node: Node, seed: int) -> keras.layers.Layer:
    return keras.layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, epsilon=L.BATCH_NORM_EPSILON, name=node.name)


def _activation(node: Node, seed: int) -> keras.layers.Layer:
    layer = node.layer
    assert isinstance(layer, L.Activation)
    function = hard_swish if layer.function == "hard_swish" else layer.function
    return keras.layers.Activation(function, name=node.name)


def _dropout(node: Node, seed: int) -> keras.layers.Layer:
    layer = node.layer
    assert isinstance(layer, L.Dropout)
    return keras.layers.Dropout(layer.rate, seed=layer_seed(seed, node.name), name=node.name)


_LAYERS: dict[type[L.Primitive], Callable[[Node, int], keras.layers.Layer]] = {
    L.Conv2D: _conv,
    L.DepthwiseConv2D: _depthwise,
    L.BatchNorm: _batch_norm,
    L.Activation: _activation,
    L.GlobalAveragePool: lambda node, _: keras.layers.GlobalAveragePooling2D(keepdims=True, name=node.name),
    L.Dropout: _dropout,
    L.Flatten: lambda node, _: keras.layers.Flatten(name=node.name),
    L.Add: lambda node, _: keras.layers.Add(name=node.name),
    L.Multiply: lambda node, _: keras.layers.Multiply(name=node.name),
}
