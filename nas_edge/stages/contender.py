"""`Contender`: a network that is trained to be delivered, or to be compared with what is."""

from __future__ import annotations

from dataclasses import dataclass

from nas_edge.networks.graph import NetworkSpec, Weights
from nas_edge.search.loop import SearchLoop
from nas_edge.search.trials import Trial
from nas_edge.stages.context import RunContext


@dataclass(frozen=True)
class Contender:
    """A network to be trained and compared.

    Attributes:
        name: what it is.
        architecture: its text form, or the published network's name.
        quality: as the search scored it; None for a network from outside the space.
        network: what is trained.
        initial: the weights to start from; None draws them.
    """

    name: str
    architecture: str
    quality: float | None
    network: NetworkSpec
    initial: Weights | None = None


def contender_of(context: RunContext, loop: SearchLoop, name: str, trial: Trial) -> Contender:
    """The network of a trial.

    Args:
        context: of the run.
        loop: after the search.
        name: what the network is.
        trial: of an architecture with a network.

    Raises:
        ConfigError: when it is to start from shared weights that the search does not have.
    """
    network = context.space.build(trial.architecture).needed_network()
    initial = loop.weights_of(network) if context.config.export.weights == "shared" else None
    return Contender(name, str(trial.architecture), trial.quality, network, initial)
