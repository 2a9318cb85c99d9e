"""Which choices of a search space cannot run on a kind of hardware, and the space without them.

Every choice is tried in a network: a few architectures that between them make every choice are written as probe files,
and their operators checked. A layer that does not fit is traced back to the choice that brings it in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from nas_edge.errors import SpaceError
from nas_edge.hardware.gate import OperatorProblem, check_file
from nas_edge.hardware.profile import Hardware
from nas_edge.networks import layers as L
from nas_edge.networks.graph import NetworkSpec
from nas_edge.networks.precisions import Precision
from nas_edge.networks.primitives.activation import ACTIVATIONS
from nas_edge.networks.template import choice_path, join, occurrences
from nas_edge.networks.tflite_graph import TFLiteGraph
from nas_edge.networks.tflite_model import tflite_model
from nas_edge.spaces.decisions import Architecture, Decision, NetworkSpace, SearchSpace

SpaceT = TypeVar("SpaceT", bound=SearchSpace)


@dataclass(frozen=True)
class ChoiceProblem:
    """A layer of a space that does not fit.

    Attributes:
        decision: what brings it in, by its path; "" for a layer that every network has.
        choice: the choice's index; None for such a layer.
        value: the choice as users see it; "" for such a layer.
        layer: path of the layer.
        operator: what it becomes in TFLite.
        why: what is wrong.
        runs: whether it can run all the same, only slowly.
    """

    decision: str
    choice: int | None
    value: str
    layer: str
    operator: str
    why: str
    runs: bool = False


def lint_space(space: NetworkSpace, hardware: Hardware, precision: Precision = "int8") -> list[ChoiceProblem]:
    """What of a space does not fit the hardware: what cannot run first, then what is slow, in the space's order.

    Args:
        space: of networks.
        hardware: where they are to run.
        precision: of their files.
    """
    places = list(_places(space.template, ""))
    found: dict[tuple[str, int | None, str, bool], ChoiceProblem] = {}
    for architecture in covering_architectures(space):
        for layer, problem, runs in _problems(space.decode(architecture), hardware, precision):
            inside = [place for place in places if layer == place.path or layer.startswith(f"{place.path}.")]
            deepest = max((len(place.path) for place in inside), default=0)
            # Several choices, where they have a layer in common.
            brings: list[tuple[str, int | None, str]] = [
                (place.decision, place.choice, place.label) for place in inside if len(place.path) == deepest
            ]
            for decision, choice, value in brings or [("", None, "")]:
                key = (decision, choice, problem.why if decision else layer, runs)
                one = ChoiceProblem(decision, choice, value, layer, problem.operator, problem.why, runs)
                found.setdefault(key, one)
    return sorted(found.values(), key=lambda one: (one.runs, space.index.get(one.decision, -1), one.choice or 0))


def covering_architectures(space: NetworkSpace) -> Iterator[Architecture]:
    """Architectures that between them make every choice where it matters."""
    todo = {(i, c) for i, decision in enumerate(space.decisions) for c in range(len(decision.choices))}
    while True:
        chosen: dict[str, int] = {}
        for i, choice in sorted(todo):
            decision = space.decisions[i]
            for guard in decision.guards:
                wanted = {**dict(guard), decision.path: choice}
                if all(chosen.get(path, index) == index for path, index in wanted.items()):
                    chosen |= wanted
                    break
        architecture = Architecture(tuple(chosen.get(decision.path, 0) for decision in space.decisions))
        made = {
            (i, choice)
            for i, (choice, on) in enumerate(zip(architecture.choices, space.active(architecture), strict=True))
            if on
        }
        todo -= made
        yield architecture
        if not todo:
            return


def _problems(
    spec: NetworkSpec, hardware: Hardware, precision: Precision
) -> Iterator[tuple[str, OperatorProblem, bool]]:
    """Layers that do not fit, with the problem, and whether it is only slow."""
    check = check_file(tflite_model(spec, precision), hardware, precision)
    nodes = {operator.output.name: [node.name for node in operator.nodes] for operator in TFLiteGraph(spec).operators}
    for problems, runs in ((check.problems, False), (check.advice, True)):
        for problem in problems:
            for layer in nodes.get(problem.layer, [problem.layer])[:1]:
                yield layer, problem, runs


@dataclass(frozen=True)
class _Place:
    """Where in a network the layers of a choice are."""

    path: str
    decision: str
    choice: int
    label: str


def _places(layer: L.Layer, path: str) -> Iterator[_Place]:
    if isinstance(layer, L.Composite):
        for name, part in layer.inside():
            yield from _places(part, join(path, name))
    elif isinstance(layer, L.OneOf):
        for index, choice in enumerate(layer.layers()):
            below = choice_path(path, layer, index)
            if len(layer.choices) > 1:
                yield _Place(below, layer.decision, index, layer.labels[index])
            yield from _places(choice, below)


# ---------------------------------------------------------------- the space without them


@dataclass(frozen=True)
class FittedSpace:
    """A space, changed so that all of its networks fit.

    Attributes:
        space: of the same name.
        changes: what was changed, in a few lines; none where all of it fit.
    """

    space: NetworkSpace
    changes: tuple[str, ...]


def fit_space(space: NetworkSpace, hardware: Hardware, precision: Precision = "int8") -> FittedSpace:
    """The space without what cannot run on the hardware, or is slow there.

    Choices that do not fit are taken out; where every network has a layer that does not, the profile says what stands
    in for it. Decisions keep their order and paths.

    Raises:
        SpaceError: when something remains that cannot run.
    """
    problems = lint_space(space, hardware, precision)
    if not problems:
        return FittedSpace(space, ())
    replaced = {ACTIVATIONS[name].operator for name in hardware.substitutes}
    refused: dict[str, set[int]] = {}
    for problem in problems:
        if problem.choice is not None and problem.operator not in replaced:
            refused.setdefault(problem.decision, set()).add(problem.choice)
    kept = {
        decision.path: [i for i in range(len(decision.choices)) if i not in refused.get(decision.path, ())]
        for decision in space.decisions
    }
    kept = {path: indices for path, indices in kept.items() if indices}
    _drop_equal(space.template, _Fitting(hardware, kept), kept)
    kept = {path: indices for path, indices in kept.items() if len(indices) < _length(space, path)}
    fitting = _Fitting(hardware, kept)
    template = fitting.layer(space.template)
    decisions = [_narrowed(decision, kept) for decision in space.decisions]
    fitted = space.with_template(template, decisions)
    left = [problem for problem in lint_space(fitted, hardware, precision) if not problem.runs]
    if left:
        where = f"{left[0].decision}={left[0].value}: " if left[0].decision else ""
        raise SpaceError(
            f"{space.name} does not fit {hardware.name}: {where}{left[0].layer}: {left[0].operator}: {left[0].why}",
            fix="choose another space; `nas-edge spaces` lists them",
        )
    return FittedSpace(fitted, (*_left_out(space, kept), *fitting.changes()))


def _length(space: NetworkSpace, path: str) -> int:
    return len(space.decisions[space.index[path]].choices)


def _drop_equal(template: L.Layer, fitting: _Fitting, kept: dict[str, list[int]]) -> None:
    """Takes choices out of `kept` that are the same layer as one before them, once they are made to fit."""
    distinct: dict[str, set[int]] = {}
    for found in occurrences(template):
        one_of = found.one_of
        if one_of.of_numbers or one_of.decision not in kept:
            distinct.setdefault(one_of.decision, set()).update(range(len(one_of.choices)))
            continue
        seen: list[L.Layer] = []
        for i in kept[one_of.decision]:
            layer = fitting.layer(one_of.layers()[i])
            if layer not in seen:
                seen.append(layer)
                distinct.setdefault(one_of.decision, set()).add(i)
    for path, indices in distinct.items():
        if path in kept:
            kept[path] = [i for i in kept[path] if i in indices]


def _narrowed(decision: Decision, kept: dict[str, list[int]]) -> Decision:
    if decision.path not in kept:
        return decision
    choices = tuple(decision.choices[i] for i in kept[decision.path])
    return replace(decision, choices=choices)  # type: ignore[arg-type] # of one type, as they were


def _left_out(space: NetworkSpace, kept: dict[str, list[int]]) -> list[str]:
    counts: dict[str, int] = {}
    for path, indices in kept.items():
        for i, value in enumerate(space.decisions[space.index[path]].choices):
            if i not in indices:
                counts[str(value)] = counts.get(str(value), 0) + 1
    return [f"without {value} ({count} decision{'s' if count > 1 else ''})" for value, count in sorted(counts.items())]


def space_for(space: SpaceT, hardware: Hardware | None, precision: Precision) -> tuple[SpaceT, tuple[str, ...]]:
    """The space of a run that named hardware, or none, and what was changed; a space without networks is left alone.

    Raises:
        SpaceError: see `fit_space`.
    """
    if hardware is None or not isinstance(space, NetworkSpace):
        return space, ()
    fitted = fit_space(space, hardware, precision)
    return fitted.space, fitted.changes  # type: ignore[return-value] # a NetworkSpace, as it was


def fit_template(template: L.Layer, hardware: Hardware | None) -> L.Layer:
    """A template with what the profile says in place of what does not fit, as for a published network."""
    return template if hardware is None else _Fitting(hardware, {}).layer(template)


class _Fitting:
    """Makes a template fit, and counts what it replaces."""

    def __init__(self, hardware: Hardware, kept: dict[str, list[int]]) -> None:
        self._hardware, self._kept = hardware, kept
        self._replaced: dict[str, int] = {}

    def changes(self) -> Sequence[str]:
        """What was replaced."""
        return [f"{what} ({count} layer{'s' if count > 1 else ''})" for what, count in sorted(self._replaced.items())]

    def layer(self, layer: L.Layer) -> L.Layer:
        """The layer as it fits."""
        excites = isinstance(layer, L.Gate) and not isinstance(layer.body, L.Activation)  # which is a swish
        if excites and not self._hardware.keeps_gates:
            self._count("without squeeze-and-excitation")
            return L.Identity()
        if isinstance(layer, L.Composite):
            return layer.changed(self.layer)
        if isinstance(layer, L.OneOf):
            indices = self._kept.get(layer.decision, range(len(layer.choices)))
            choices = tuple(self.layer(layer.layers()[i]) for i in indices)
            return replace(layer, choices=choices, labels=tuple(layer.labels[i] for i in indices))
        if isinstance(layer, L.Activation) and layer.function in self._hardware.substitutes:
            substitute = self._hardware.substitutes[layer.function]
            self._count(f"{substitute} in place of {layer.function}")
            return L.Activation(substitute)
        return layer

    def _count(self, what: str) -> None:
        self._replaced[what] = self._replaced.get(what, 0) + 1
