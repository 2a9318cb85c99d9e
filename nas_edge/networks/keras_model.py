"""The stand-alone Keras model of a `NetworkSpec`: what is trained, converted and exported.

One Keras layer per node, named like the node, so weights travel by name between this model, the supernet and the
directly written TFLite file. Weight decay is the trainer's business.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import keras

from nas_edge.networks.graph import INPUT, NetworkSpec, Weights, without_ranges

if TYPE_CHECKING:
    import numpy as np


def keras_model(
    spec: NetworkSpec,
    weights: Weights | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    precision: str = "float32",
) -> keras.Model:
    """Builds the functional Keras model of a network.

    Args:
        spec: the network; node names become layer names.
        weights: initial weights by node name; drawn at random when None.
        seed: seed of the random weights; each layer's own seed follows from it and the layer's name, so equal layers
            of different architectures start equal.
        batch_size: fixed batch, as converting for a device wants it (1), or None for any.
        precision: Keras' name of what layers compute with, for example `mixed_bfloat16`; weights are float32 in any.

    Returns:
        A model from `[batch, height, width, channels]` to the output of the last node.

    Raises:
        ValueError: when `weights` does not fit the network.
    """
    tensors = {INPUT: keras.Input(spec.input_shape, batch_size=batch_size, name=INPUT)}
    for node in spec.nodes:
        layer = node.layer.keras_layer(node.name, layer_seed(seed, node.name))
        layer.dtype_policy = keras.DTypePolicy(precision)
        inputs = [tensors[name] for name in node.inputs]
        tensors[node.name] = layer(inputs if len(inputs) > 1 else inputs[0])
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
        weights: arrays by node name; names that are not in the model are an error, and so are missing ones. Ranges of
            activations are of no use here.

    Raises:
        ValueError: when names or shapes do not agree; the layer is named.
    """
    weights = without_ranges(weights)
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


def layer_seed(seed: int, name: str) -> int:
    """A 31-bit seed for one layer, from the model's seed and the layer's name."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=4).digest(), "big") >> 1
