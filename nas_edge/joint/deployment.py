"""How a network is deployed, searched along with it and measured: threads, delegate, cores, precision.

The best network for one thread is not the best for four, nor is the best in int8 the best in float32. In contrast to
`accelerator.py`, the configurations are those of a real device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

from device_agents.api import BenchmarkSpec, Delegate, parse_cores
from device_agents.errors import SpecError, in_one_line
from nas_edge.errors import ConfigError
from nas_edge.joint.space import JointSettings, JointSpace
from nas_edge.networks.precisions import PRECISIONS
from nas_edge.settings import one_of
from nas_edge.spaces.decisions import Decision, NetworkSpace
from nas_edge.spaces.design import Design, Extra

_PREFIX = "deployment."
# The setting of a run that each decision stands for.
_SETTINGS = {
    "threads": "device.threads",
    "delegate": "device.delegate",
    "cores": "device.cores",
    "precision": "export.precision",
}


class DeploymentSettings(JointSettings):
    """Settings of `deployment`: the choices of each decision. An empty one leaves it to the run's other settings."""

    widens: ClassVar[bool] = True
    measured: ClassVar[bool] = True

    kind: str = "deployment"
    threads: tuple[int, ...] = Field((1, 2), description="threads of the TFLite runtime")
    delegate: tuple[str, ...] = Field(("cpu", "none"), description="as device.delegate")
    cores: tuple[str, ...] = Field((), description="as device.cores: big, little, ids or a mask; empty: not searched")
    precision: tuple[Annotated[str, one_of(PRECISIONS)], ...] = Field(
        ("int8", "float32"), description="of the network; qualities are those of the float network in any case"
    )

    @field_validator("threads", "delegate", "cores", "precision", mode="before")
    @classmethod
    def _one_or_several(cls, given: Any) -> Any:
        return given if isinstance(given, (list, tuple)) else (given,)

    @field_validator("threads", "delegate", "cores", "precision")
    @classmethod
    def _fits(cls, given: tuple[Any, ...], info: Any) -> tuple[Any, ...]:
        checks: dict[str, Any] = {
            "threads": lambda count: BenchmarkSpec(threads=count),
            "cores": parse_cores,
            "delegate": Delegate.parse,
        }
        try:
            for value in given:
                checks.get(info.field_name, lambda _: None)(value)
        except SpecError as error:
            raise ValueError(in_one_line(error.what, error.expected)) from None
        if len(set(given)) != len(given):
            raise ValueError("the same choice is given twice")
        return given


def with_deployments(settings: DeploymentSettings, space: NetworkSpace) -> JointSpace:
    """Makes the space.

    Raises:
        ConfigError: when nothing is left to decide.
    """
    offered = {name: getattr(settings, name) for name in _SETTINGS}
    beside = [Decision(f"{_PREFIX}{name}", tuple(values), "deployment") for name, values in offered.items() if values]
    if all(len(decision.choices) == 1 for decision in beside):
        raise ConfigError(
            "a joint search of deployments has nothing to choose between",
            fix="set several values, for example joint.threads=[1,2], or leave out --joint",
        )
    return JointSpace("deployment", space, beside)


def deployment_settings(design: Design) -> Mapping[str, Extra]:
    """The settings of a run that a design decides beside its network, by dotted name; empty where it decides none."""
    return {
        setting: design.extras[f"{_PREFIX}{name}"]
        for name, setting in _SETTINGS.items()
        if f"{_PREFIX}{name}" in design.extras
    }
