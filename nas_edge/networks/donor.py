"""`Donor`: weights of other networks to start a training from, layer by layer where they fit.

Layers are matched by name, which in networks of one space is their path in the template. A task may nest layers that
others have at the top level, as segmentation does, so the first parts of an unknown name are dropped until one is
known: `pyramid.sum.block2.conv` matches `block2.conv`. A layer is taken as a whole or not at all: one of other shapes,
such as the head for another number of classes, starts fresh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas_edge.networks.graph import INPUT, NetworkSpec, Weights
from nas_edge.networks.primitives import IN, OUT, Weight

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Start:
    """What a training starts from.

    Attributes:
        taken: names of the layers that a donor gave.
        fresh: those that it does not have, or not in these shapes.
    """

    taken: tuple[str, ...]
    fresh: tuple[str, ...]

    def __str__(self) -> str:
        total = len(self.taken) + len(self.fresh)
        if not self.fresh:
            return f"all {total} layers with weights"
        more = f" and {len(self.fresh) - 5} more" if len(self.fresh) > 5 else ""
        return f"{len(self.taken)} of {total} layers with weights; fresh: {', '.join(self.fresh[:5])}{more}"


@dataclass(frozen=True)
class Donor:
    """Weights to start from.

    Attributes:
        weights: by layer. Of shared weights they are those that are trained, each with as many channels as any
            architecture of its space has: a network with fewer takes the first of them, as it does in the search.
        shared: whether they are of that kind.
    """

    weights: Weights
    shared: bool

    def of(self, name: str) -> tuple[np.ndarray[Any, Any], ...]:
        """The weights that match a layer of that name; empty if there are none."""
        while name not in self.weights and "." in name:
            name = name.split(".", 1)[1]
        return tuple(self.weights.get(name, ()))

    def layer(
        self, name: str, weights: Sequence[Weight], shapes: Sequence[tuple[int, ...]], exact: frozenset[str]
    ) -> list[np.ndarray[Any, Any] | None] | None:
        """What a layer takes of each of its weights.

        Args:
            name: of the layer.
            weights: of which it consists; of those that are not trained, shared weights give None.
            shapes: of each.
            exact: axes (`IN`, `OUT`) along which shared weights may not have more.

        Returns:
            None when it does not fit.
        """
        arrays = self.of(name)
        trained = [weight.trainable for weight in weights]
        if len(arrays) == sum(trained) < len(weights):
            remaining = iter(arrays)
            given = [next(remaining) if is_trained else None for is_trained in trained]
        elif len(arrays) >= len(weights):
            given = list(arrays[: len(weights)])
        else:
            return None
        found: list[np.ndarray[Any, Any] | None] = []
        for weight, array, shape in zip(weights, given, shapes, strict=True):
            if array is None:
                found.append(None)
                continue
            if len(array.shape) != len(shape):
                return None
            for axis, there, needed in zip(weight.shape, array.shape, shape, strict=True):
                if there != needed and not (self.shared and axis in (IN, OUT) and axis not in exact and there > needed):
                    return None
            found.append(array[tuple(map(slice, shape))])
        return found

    def start(self, network: NetworkSpec, fresh: Weights) -> tuple[Weights, Start]:
        """A network's weights to start from.

        Args:
            network: that is to be trained.
            fresh: its weights as they are drawn, for what the donor does not give.
        """
        weighty = [node for node in network.nodes if node.layer.weights()]
        started, taken = dict(fresh), list[str]()
        for node in weighty:
            weights, channels = node.layer.weights(), network.input_shapes(node)[0][-1]
            shapes = [weight.shape_for(channels, node.shape[-1]) for weight in weights]
            # The first channels of another image's, or the first of other classes, would be others.
            ends = {IN} if INPUT in node.inputs else set()
            ends |= {OUT} if node is weighty[-1] else set()
            found = self.layer(node.name, weights, shapes, frozenset(ends))
            if found is not None:
                own = fresh[node.name]
                started[node.name] = tuple(own[i] if array is None else array for i, array in enumerate(found))
                taken.append(node.name)
        return started, Start(tuple(taken), tuple(node.name for node in weighty if node.name not in taken))
