"""What is left out of a network at random while it trains: dropout before the classifier, and whole residual layers.

The network that is trained has the nodes of the one that is delivered, with the same names, and some without weights
between them; so the weights of one are those of the other.

Source: TuNAS reference code, `mobile_train_eval.py`; leaving out layers: Huang et al., 2016 (arXiv:1603.09382).
"""

from __future__ import annotations

import dataclasses

from nas_edge.networks import layers as L
from nas_edge.networks.graph import GraphBuilder, NetworkSpec
from nas_edge.training.settings import TrainingSettings


def for_training(network: NetworkSpec, settings: TrainingSettings) -> NetworkSpec:
    """The network as it is trained.

    Args:
        network: as it is delivered.
        settings: `dropout_from_epochs` and `path_dropout` are read.
    """
    keeps_dropout = settings.epochs >= settings.dropout_from_epochs
    builder = GraphBuilder(network.input_shape)
    for node in network.nodes:
        layer, inputs = node.layer, node.inputs
        if isinstance(layer, L.Dropout) and not keeps_dropout:
            layer = dataclasses.replace(layer, rate=0.0)
        if isinstance(layer, L.Add) and settings.path_dropout > 0:
            kept, body = inputs
            inputs = (kept, builder.add(f"{node.name}.path_dropout", L.PathDropout(settings.path_dropout), body))
        builder.add(node.name, layer, *inputs)
    return builder.build()
