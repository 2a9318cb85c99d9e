"""Which samplers of Optuna there are; `optuna_controller.py` asks them.

Source: Akiba et al., "Optuna: A Next-generation Hyperparameter Optimization Framework", KDD 2019, arXiv:1907.10902.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Sampler:
    """One of Optuna's samplers.

    Attributes:
        class_name: in `optuna.samplers`.
        options: what it is made with, beside a seed.
        in_generations: whether it also takes a `population_size`.
        requires: packages it needs beside Optuna.
    """

    class_name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    in_generations: bool = False
    requires: tuple[str, ...] = ()


SAMPLERS: dict[str, Sampler] = {
    # Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011.
    "tpe": Sampler("TPESampler"),
    # Deb et al., "A fast and elitist multiobjective genetic algorithm", 2002 (doi:10.1109/4235.996017).
    "nsga2": Sampler("NSGAIISampler", in_generations=True),
    # Gaussian process with expected improvement. It would warn of each of its first, random proposals.
    "gp": Sampler("GPSampler", {"warn_independent_sampling": False}, requires=("scipy", "torch")),
}
