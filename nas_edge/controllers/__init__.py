"""Controllers: what proposes architectures and learns from how they did. Start reading at `base.py`."""

from __future__ import annotations

from nas_edge.controllers.base import Controller, Outcome, Proposal, SearchPlan, as_proposed
from nas_edge.controllers.categorical import CategoricalController, ReinforceSettings, make_reinforce
from nas_edge.controllers.evolution import EvolutionController, EvolutionSettings, make_evolution
from nas_edge.controllers.lstm import LstmController, LstmSettings, make_lstm
from nas_edge.controllers.optuna_settings import OptunaSettings, make_optuna
from nas_edge.controllers.random_search import RandomSearchController, RandomSettings, make_random
from nas_edge.controllers.surrogate import SurrogateSettings, make_surrogate
from nas_edge.registry import Entry, Registry

# An entry is made for a `SearchSpace` and a `SearchPlan`.
CONTROLLERS: Registry[Controller] = Registry(
    "name",
    "controller",
    "nas_edge.controllers",
    {
        "reinforce": Entry(ReinforceSettings, make_reinforce, "TuNAS's policy gradient; a policy that converges"),
        "evolution": Entry(EvolutionSettings, make_evolution, "regularised evolution"),
        "surrogate": Entry(
            SurrogateSettings, make_surrogate, "model-guided: Gaussian processes of quality and latency"
        ),
        "lstm": Entry(LstmSettings, make_lstm, "ENAS's LSTM: each decision depends on those before it"),
        "random": Entry(RandomSettings, make_random, "random search, the baseline"),
        "optuna": Entry(OptunaSettings, make_optuna, "a sampler of Optuna: optuna:tpe, optuna:nsga2, optuna:gp"),
    },
)

__all__ = [
    "CONTROLLERS",
    "CategoricalController",
    "Controller",
    "EvolutionController",
    "LstmController",
    "Outcome",
    "Proposal",
    "RandomSearchController",
    "SearchPlan",
    "as_proposed",
]
