"""The largest architecture of a space."""

from __future__ import annotations

from nas_edge.spaces.decisions import Architecture, SearchSpace


def largest(space: SearchSpace) -> Architecture:
    """The architecture with every number at its largest, nothing skipped and every operator at its last choice."""
    choices = []
    for decision in space.decisions:
        running = [i for i, choice in enumerate(decision.choices) if choice != "skip"]
        choices.append(decision.largest if decision.kind == "filters" else running[-1])
    return space.canonical(Architecture(tuple(choices)))
