"""How a single network is trained, by name.

A new method of this package is one file with its settings and a function, and one line in `TRAINING_METHODS`. Other
packages add theirs by entry points of the group `nas_edge.training_methods`.
"""

from __future__ import annotations

from typing import Any

from nas_edge.registry import Entry, Registry
from nas_edge.training.settings import TrainingSettings


def _standard(settings: TrainingSettings, *arguments: Any) -> Any:
    from nas_edge.training import trainer

    return trainer.train_network(settings, *arguments)


TRAINING_METHODS: Registry[Any] = Registry(
    "method", "training method", "nas_edge.training_methods", {"standard": Entry(TrainingSettings, _standard)}
)

__all__ = ["TRAINING_METHODS", "TrainingSettings"]
