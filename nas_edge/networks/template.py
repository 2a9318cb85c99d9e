"""Templates: reading a tree of layers with open choices.

`decode` turns a template and one choice per decision into a `NetworkSpec`, `resolve` into a template without open
choices; `occurrences` says where each decision stands and what must be chosen above it for it to matter. Nothing else
interprets templates except the supernet, which runs all their architectures with one set of weights, and `scaling`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from nas_edge.networks import layers as L
from nas_edge.networks.graph import INPUT, GraphBuilder, NetworkSpec, Shape
from nas_edge.networks.open_values import closed_width, open_numbers, resolve_width

# A conjunction: the decision at each path must have chosen that index.
Guard: TypeAlias = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Occurrence:
    """A `OneOf` found in a template, with the choices above it that reach it."""

    one_of: L.OneOf
    guard: Guard


def join(path: str, name: str) -> str:
    """The path of a part inside a composite. Dots, because Keras forbids slashes in layer names."""
    return f"{path}.{name}" if path and name else path or name


def choice_path(path: str, one_of: L.OneOf, index: int) -> str:
    """The path of an alternative. A lone one keeps the path it would have in a fixed network."""
    return path if len(one_of.choices) == 1 else join(path, one_of.labels[index])


def occurrences(layer: L.Layer, guard: Guard = ()) -> list[Occurrence]:
    """Every `OneOf` of a template, parents before children."""
    if isinstance(layer, L.Composite):
        return [found for _, part in layer.inside() for found in occurrences(part, guard)]
    if isinstance(layer, L.OneOf):
        found = [Occurrence(layer, guard)]
        for index, choice in enumerate(layer.layers()):
            found += occurrences(choice, (*guard, (layer.decision, index)))
        return found
    if isinstance(layer, L.Primitive):
        return [Occurrence(number, guard) for number in open_numbers(layer.width)]
    return []


def decode(template: L.Layer, input_shape: Shape, choices: Mapping[str, int]) -> NetworkSpec:
    """The network that `choices` (decision path to choice index) makes of a template.

    Raises:
        ValueError: when the chosen layers do not fit together.
        KeyError: when a decision of the template has no choice.
    """
    builder = GraphBuilder(input_shape)
    _Decoder(builder, choices).emit(template, INPUT, "")
    return builder.build()


def resolve(template: L.Layer, choices: Mapping[str, int]) -> L.Layer:
    """A template without open choices, from which `decode` makes the same network, names included.

    Args:
        template: of a network or of a space.
        choices: choice index by decision path.

    Raises:
        KeyError: when a decision of the template has no choice.
    """
    if isinstance(template, L.Residual):
        body, shortcut = resolve(template.body, choices), resolve(template.shortcut, choices)
        if isinstance(shortcut, L.Zero):
            return body
        if not isinstance(body, L.Zero):
            return L.Residual(body, shortcut)
        return shortcut if isinstance(shortcut, L.Identity) else L.Sequential((("shortcut", shortcut),))
    if isinstance(template, L.Composite):
        return template.changed(lambda layer: resolve(layer, choices))
    if isinstance(template, L.OneOf):
        index = choices[template.decision]
        chosen = resolve(template.layers()[index], choices)
        if len(template.choices) == 1 or isinstance(chosen, (L.Zero, L.Identity)):
            return chosen
        return L.Sequential(((template.labels[index], chosen),))  # the alternative's path, see `choice_path`
    if isinstance(template, L.Primitive):
        width = closed_width(template.width, lambda number: number.numbers()[choices[number.decision]])
        return template if width == template.width else replace(template, **{str(template.width_field): width})
    return template


class _Decoder:
    """Walks a template, adding the chosen primitives to a graph."""

    def __init__(self, builder: GraphBuilder, choices: Mapping[str, int]) -> None:
        self._graph = builder
        self._choices = choices
        self._gate_channels: list[int] = []

    def emit(self, layer: L.Layer, source: str, path: str) -> str | None:
        """Adds `layer` reading node `source`; returns the output node's name, or None for `Zero`."""
        if isinstance(layer, L.Identity):
            return source
        if isinstance(layer, L.Zero):
            return None
        if isinstance(layer, L.Sequential):
            current: str | None = source
            for name, part in layer.parts:
                if current is None:
                    raise ValueError(f"{path}: a Zero layer may only stand directly inside a Residual")
                current = self.emit(part, current, join(path, name))
            return current
        if isinstance(layer, L.Residual):
            body = self.emit(layer.body, source, path)
            shortcut = self.emit(layer.shortcut, source, join(path, "shortcut"))
            if shortcut is None and body is None:
                raise ValueError(f"{path}: body and shortcut cannot both be Zero")
            if shortcut is None or body is None:
                return shortcut or body
            return self._graph.add(join(path, "add"), L.Add(), shortcut, body)
        if isinstance(layer, L.Concatenate):
            made = [self.emit(part, source, join(path, name)) for name, part in layer.inside()]
            nodes = [name for name in made if name is not None]
            if len(nodes) != len(made):
                raise ValueError(f"{path}: a Zero layer may only stand directly inside a Residual")
            return self._graph.add(join(path, "concat"), L.Concat(), *nodes)
        if isinstance(layer, L.Graph):
            return self._emit_graph(layer, source, path)
        if isinstance(layer, L.Gate):
            self._gate_channels.append(self._graph.shape(source)[-1])
            gate = self.emit(layer.body, source, path)
            self._gate_channels.pop()
            if gate is None:
                raise ValueError(f"{path}: a gate cannot be Zero")
            return self._graph.add(join(path, "multiply"), L.Multiply(), source, gate)
        if isinstance(layer, L.OneOf):
            index = self._choices[layer.decision]
            return self.emit(layer.layers()[index], source, choice_path(path, layer, index))
        if isinstance(layer, L.Primitive):
            gate_channels = self._gate_channels[-1] if self._gate_channels else None
            layer = layer.with_width(
                resolve_width(layer.width, self._graph.shape(source)[-1], gate_channels, self._number)
            )
        return self._graph.add(path, layer, source)

    def _emit_graph(self, graph: L.Graph, source: str, path: str) -> str:
        """Adds the nodes that lead to the last one, each after what it reads."""
        made = {INPUT: source}
        edges_of = dict(graph.nodes)

        def node(name: str) -> str:
            if name not in made:
                total: str | None = None
                for edge in edges_of[name]:
                    if not self._is_there(edge.layer) or (edge.unread and self._is_read(graph, edge.source)):
                        continue
                    inner = join(path, name)
                    one = self.emit(edge.layer, node(edge.source), join(inner, edge.name))
                    assert one is not None
                    total = one if total is None else self._graph.add(f"{inner}.add_{edge.name}", L.Add(), total, one)
                if total is None:
                    raise ValueError(f"{join(path, name)}: the edges of a node cannot all be Zero")
                made[name] = total
            return made[name]

        return node(graph.nodes[-1][0])

    def _is_there(self, layer: L.Layer) -> bool:
        while isinstance(layer, L.OneOf):
            layer = layer.layers()[self._choices[layer.decision]]
        return not isinstance(layer, L.Zero)

    def _is_read(self, graph: L.Graph, source: str) -> bool:
        return any(self._is_there(edge.layer) for edge in graph.readers(source))

    def _number(self, one_of: L.OneOf) -> float:
        return one_of.numbers()[self._choices[one_of.decision]]
