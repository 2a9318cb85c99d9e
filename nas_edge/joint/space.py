"""`JointSpace`: networks, and what is decided beside each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from nas_edge.networks import layers as L
from nas_edge.settings import ChoiceSettings
from nas_edge.spaces.decisions import Architecture, Decision, NetworkSpace, SearchSpace
from nas_edge.spaces.design import Design, Extra


class JointSettings(ChoiceSettings):
    """The settings of any kind of joint search; on their own, of `none`.

    Attributes:
        widens: whether anything is searched beside the network.
        measured: whether latencies measured on the run's device depend on it.
    """

    widens: ClassVar[bool] = False
    measured: ClassVar[bool] = False

    kind: str = "none"


class JointSpace(NetworkSpace):
    """A space of networks with more decisions, which come last and change no network.

    Args:
        kind: of the joint search, see `JOINTS`.
        networks: the space of networks.
        beside: the further decisions; a design has their values as its extras, by path.
    """

    def __init__(self, kind: str, networks: NetworkSpace, beside: Sequence[Decision]) -> None:
        # Not the parent's: these decisions are in no template.
        SearchSpace.__init__(self, f"{networks.name} with {kind}", (*networks.decisions, *beside))
        self.kind, self.networks, self.beside = kind, networks, tuple(beside)
        self.template, self.input_shape, self.outputs = networks.template, networks.input_shape, networks.outputs

    def with_template(self, template: L.Layer, decisions: Sequence[Decision] | None = None) -> JointSpace:
        """See `NetworkSpace`."""
        return JointSpace(self.kind, self.networks_with(template, decisions), self.beside)

    def networks_with(self, template: L.Layer, decisions: Sequence[Decision] | None) -> NetworkSpace:
        """See `with_template`; the space of the networks alone, with their decisions only."""
        beside = {decision.path for decision in self.beside}
        theirs = None if decisions is None else [d for d in decisions if d.path not in beside]
        return self.networks.with_template(template, theirs)

    def build(self, architecture: Architecture) -> Design:
        """See `SearchSpace`; a network with the chosen values beside it."""
        _, beside = self.split(architecture)
        return Design(self.decode(architecture), self.extras(beside))

    def extras(self, beside: Sequence[int]) -> dict[str, Extra]:
        """The values that choices of the further decisions stand for."""
        return {decision.path: decision.choices[c] for decision, c in zip(self.beside, beside, strict=True)}

    def of_network(self, architecture: Architecture) -> Architecture:
        """See `SearchSpace`."""
        network, _ = self.split(architecture)
        return self.join(network, (0,) * len(self.beside))

    def split(self, architecture: Architecture) -> tuple[Architecture, tuple[int, ...]]:
        """The architecture of `networks`, and the choices beside it."""
        count = len(self.networks.decisions)
        return Architecture(architecture.choices[:count]), architecture.choices[count:]

    def join(self, network: Architecture, beside: Sequence[int]) -> Architecture:
        """The inverse of `split`."""
        return Architecture((*network.choices, *beside))
