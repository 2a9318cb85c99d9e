"""How one of Optuna's samplers is chosen: `optuna:SAMPLER`. Optuna itself is imported when one is made."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Any, Literal

from pydantic import Field

from nas_edge.controllers.base import Controller, SearchPlan
from nas_edge.controllers.optuna_samplers import SAMPLERS
from nas_edge.errors import ConfigError
from nas_edge.settings import ChoiceSettings, one_of
from nas_edge.spaces.decisions import SearchSpace


class OptunaSettings(ChoiceSettings):
    """The settings of Optuna's samplers; `optuna:tpe` is short for one."""

    name: Literal["optuna"] = "optuna"
    sampler: Annotated[str, one_of(SAMPLERS)] = Field("tpe", description=", ".join(SAMPLERS))

    @classmethod
    def from_text(cls, rest: str) -> dict[str, Any]:
        """The sampler of `optuna:SAMPLER`; the default without one."""
        return {"sampler": rest} if rest else {}


def make_optuna(settings: OptunaSettings, space: SearchSpace, plan: SearchPlan) -> Controller:
    """Makes the controller for a search.

    Raises:
        ConfigError: when a package is not installed.
    """
    sampler = SAMPLERS[settings.sampler]
    installed_by = {"optuna": "'nas-edge[optuna]'", **{package: package for package in sampler.requires}}
    missing = [name for package, name in installed_by.items() if find_spec(package) is None]
    if missing:
        raise ConfigError(
            f"the controller optuna:{settings.sampler} requires packages that are not installed: "
            f"pip install {' '.join(missing)}"
        )
    from nas_edge.controllers.optuna_controller import OptunaController

    # Optuna's default generation of 50, scaled down so that short searches have ten generations.
    generation_size = max(2, min(50, plan.evaluations // 10))
    return OptunaController(space, f"optuna:{settings.sampler}", sampler, generation_size=generation_size)
