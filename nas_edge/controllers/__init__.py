"""Controllers: what proposes architectures and learns from how they did. Start reading at `base.py`."""

from __future__ import annotations

from nas_edge.controllers.base import Controller, Outcome, Proposal
from nas_edge.controllers.categorical import CategoricalController
from nas_edge.controllers.evolution import EvolutionController
from nas_edge.controllers.random_search import RandomSearchController

CONTROLLERS: dict[str, type[Controller]] = {
    "reinforce": CategoricalController,
    "random": RandomSearchController,
    "evolution": EvolutionController,
}

__all__ = [
    "CONTROLLERS",
    "CategoricalController",
    "Controller",
    "EvolutionController",
    "Outcome",
    "Proposal",
    "RandomSearchController",
]
