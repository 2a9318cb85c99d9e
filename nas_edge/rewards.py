"""Rewards: one number from a quality and the resources a network uses. Pure functions.

    Symbol  Meaning
    Q       quality, usually accuracy in [0, 1]
    T, T0   a resource's measured value and its target, in the same unit
    x       T / T0: 1 on target, 2 when twice as slow
    beta    how much a deviation costs; negative

    absolute    r = Q + sum_i beta_i * |x_i - 1|              TuNAS, arXiv:2008.06120; patent US11347995
    soft        r = Q * prod_i x_i ** beta_i                  MnasNet, arXiv:1807.11626, equation 2 (alpha = beta)
    hard        r = Q * prod_i min(x_i ** beta_i, 1)          MnasNet, arXiv:1807.11626 (alpha = 0)

`absolute` is the default of the search because one beta serves every task and target: its peak is on the target, so
a search ends there, while the exponent forms trade quality for time at a rate that must be tuned per task. MnasNet's
rates are -0.07 of the soft form, by which twice the time is worth 5% more accuracy, and -1 of the hard one.

Staying below a limit (`Objective.limit`) neither gains nor costs anything: its x is max(x, 1) in every form.

All forms work elementwise: of arrays of qualities and values of resources they are arrays of rewards.

With no objective every form is `r = Q`, the unconstrained search. A candidate that could not be measured has no
reward: it is reported to a controller as such, never as a number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from nas_edge.errors import ConfigError

Usage: TypeAlias = Mapping[str, float]  # what one network uses, by name of the resource, see `nas_edge.resources`

Value = TypeVar("Value", float, NDArray[np.float64])


@dataclass(frozen=True)
class Objective:
    """A resource and how much of it a network should use.

    Attributes:
        resource: a name in `nas_edge.resources.RESOURCES`; its unit is in its name.
        target: the value aimed at, `T0`.
        beta: what a deviation costs. The default is that of the TuNAS code.
        limit: whether the target is a limit: using less is as good, and using more is not allowed.

    Raises:
        ConfigError: for a target that is not positive or a beta that is not negative.
    """

    resource: str
    target: float
    beta: float = -0.10
    limit: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.target) and self.target > 0):
            raise ConfigError(f"the target of {self.resource} must be a positive number", received=f"{self.target}")
        if not (math.isfinite(self.beta) and self.beta < 0):
            raise ConfigError(
                f"beta of {self.resource} must be negative",
                received=f"{self.beta}",
                fix="leave the objective out to ignore it",
            )

    def ratio(self, usage: Mapping[str, Value]) -> Value:
        """`x = T / T0`; of a limit at least 1.

        Raises:
            ValueError: when the resource is missing or its value is not a positive number.
        """
        value = usage.get(self.resource)
        if value is None or not np.all(np.isfinite(value) & (value > 0)):
            raise ValueError(
                f"expected a positive {self.resource}, received {value}; what was not measured has no reward"
            )
        ratio = value / self.target
        return np.maximum(ratio, 1.0) if self.limit else ratio

    def allows(self, usage: Usage | None) -> bool:
        """Whether a network may be selected: it is known to meet the limit, or this is not a limit."""
        return not self.limit or (usage is not None and usage.get(self.resource, math.inf) <= self.target)


def absolute(quality: Value, usage: Mapping[str, Value], objectives: Sequence[Objective]) -> Value:
    """`Q + sum_i beta_i * |x_i - 1|`; falls with the distance from the target on either side.

    Args:
        quality: `Q`.
        usage: measured value per resource.
        objectives: what is aimed at.

    Source: TuNAS, arXiv:2008.06120.
    """
    reward = _finite(quality)
    for objective in objectives:
        reward = reward + objective.beta * abs(objective.ratio(usage) - 1.0)
    return reward


def soft(quality: Value, usage: Mapping[str, Value], objectives: Sequence[Objective]) -> Value:
    """`Q * prod_i x_i ** beta_i`; being faster than the target is rewarded too. Arguments as `absolute`.

    Source: MnasNet, arXiv:1807.11626, the soft constraint.
    """
    reward = _finite(quality)
    for objective in objectives:
        reward = reward * objective.ratio(usage) ** objective.beta
    return reward


def hard(quality: Value, usage: Mapping[str, Value], objectives: Sequence[Objective]) -> Value:
    """`Q * prod_i min(x_i ** beta_i, 1)`; only exceeding a target costs. Arguments as `absolute`.

    Source: MnasNet, arXiv:1807.11626, the hard constraint.
    """
    reward = _finite(quality)
    for objective in objectives:
        reward = reward * np.minimum(objective.ratio(usage) ** objective.beta, 1.0)
    return reward


class Reward(Protocol):
    """A form of the reward."""

    def __call__(self, quality: Value, usage: Mapping[str, Value], objectives: Sequence[Objective], /) -> Value:
        """The reward of a quality and what was used of each resource."""


REWARDS: dict[str, Reward] = {"absolute": absolute, "soft": soft, "hard": hard}


def _finite(quality: Value) -> Value:
    if not np.all(np.isfinite(quality)):
        raise ValueError(f"expected a finite quality, received {quality}; a candidate without one has no reward")
    return quality
