"""The accelerator that is to run a network, searched along with it: for hardware that is still to be chosen.

Sources: NAHAS, patent US20240005129A1, arXiv:2102.08619.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from nas_edge.accelerators.enumeration import fastest_within
from nas_edge.accelerators.simulator import Simulated, simulate
from nas_edge.accelerators.space import PARAMETERS, Accelerators, accelerators, all_accelerators, choices_of
from nas_edge.joint.space import JointSettings, JointSpace
from nas_edge.networks import layers as L
from nas_edge.networks.graph import NetworkSpec
from nas_edge.rewards import Objective
from nas_edge.spaces.decisions import Decision, NetworkSpace
from nas_edge.spaces.design import Design

_PREFIX = "accelerator."


class AcceleratorSettings(JointSettings):
    """Settings of `accelerator`."""

    widens: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {"latency.source": "accelerator", "search.method": "alternating"}
    # Each step of alternation trains its networks on their own.
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"smoke": {"search.steps": 2}}

    kind: str = "accelerator"
    max_area: float = Field(1.0, gt=0, description="largest area of an accelerator, relative to the baseline's")


class AcceleratorSpace(JointSpace):
    """Networks, each with an accelerator of `accelerators.space`.

    Args:
        networks: the space of networks.
        max_area: largest area, relative to the baseline's.
    """

    def __init__(self, networks: NetworkSpace, max_area: float = 1.0) -> None:
        super().__init__("accelerator", networks, _decisions())
        self.max_area = max_area

    def with_template(self, template: L.Layer, decisions: Sequence[Decision] | None = None) -> AcceleratorSpace:
        """See `NetworkSpace`."""
        return AcceleratorSpace(self.networks_with(template, decisions), self.max_area)

    @property
    def first_beside(self) -> tuple[int, ...]:
        """See `alternating`: the baseline or, if that is too large, the smallest accelerator."""
        start = tuple(decision.start or 0 for decision in self.beside)
        fits = self.accelerator_of(Design(None, self.extras(start))).area[0] <= self.max_area
        return start if fits else (0,) * len(self.beside)

    def best_beside(self, network: NetworkSpec, objectives: Sequence[Objective]) -> tuple[int, ...]:
        """See `alternating`: the fastest of all accelerators within the targets of other resources."""
        largest = Objective("relative_area", self.max_area)
        return choices_of(fastest_within(simulate(network, all_accelerators()), [*objectives, largest]))

    def accelerator_of(self, design: Design) -> Accelerators:
        """The accelerator that a design specifies; the baseline for designs without one, such as reference networks."""
        chosen = {name: design.extras.get(f"{_PREFIX}{name}", p.baseline) for name, p in PARAMETERS.items()}
        return accelerators([chosen])

    def simulate(self, design: Design) -> Simulated:
        """A design's network on its accelerator."""
        return simulate(design.needed_network(), self.accelerator_of(design))


def with_accelerators(settings: AcceleratorSettings, space: NetworkSpace) -> AcceleratorSpace:
    """Makes the space."""
    return AcceleratorSpace(space, settings.max_area)


def _decisions() -> list[Decision]:
    return [
        Decision(f"{_PREFIX}{name}", parameter.values, "accelerator", start=parameter.values.index(parameter.baseline))
        for name, parameter in PARAMETERS.items()
    ]
