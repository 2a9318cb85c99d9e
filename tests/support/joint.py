"""A joint space: networks, and beside each the size of the accelerator that runs it; with latencies of both.

It is a package of its own in the tests that install it, so it uses nothing of the tests.
"""

from __future__ import annotations

import os
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from nas_edge.latency.answer import LatencyAnswer, LatencyKind
from nas_edge.latency.settings import LatencySettings
from nas_edge.latency.source import Candidate, LatencySource
from nas_edge.networks import layers as L
from nas_edge.networks.analysis import analyze
from nas_edge.quality.source import FunctionQuality, Quality, QualityContext, QualitySettings
from nas_edge.registry import Entry
from nas_edge.spaces import NetworkSpaceSettings
from nas_edge.spaces.blocks import Decisions, classifier, conv_norm, number
from nas_edge.spaces.decisions import Architecture, Decision, NetworkSpace, SearchSpace
from nas_edge.spaces.design import Design

ELEMENTS = (64, 128, 256)


class JointSettings(NetworkSpaceSettings):
    """Settings of the space."""

    name: str = "joint"
    input_size: int = 8


class JointSpace(SearchSpace):
    """A network of one layer, and how many processing elements compute it."""

    def __init__(self, networks: NetworkSpace) -> None:
        super().__init__("joint", (*networks.decisions, Decision("accelerator.elements", ELEMENTS, "accelerator")))
        self.networks = networks

    def build(self, architecture: Architecture) -> Design:
        """See `SearchSpace`."""
        self.check(architecture)
        *choices, elements = architecture.choices
        return Design(self.networks.decode(Architecture(tuple(choices))), {"elements": ELEMENTS[elements]})


class NetworksSettings(NetworkSpaceSettings):
    """Settings of the networks alone."""

    name: str = "joint-networks"
    input_size: int = 8


def networks_alone(settings: NetworkSpaceSettings, classes: int, channels: int) -> NetworkSpace:
    """Makes the space of networks; a task without networks has no classes either."""
    decisions = Decisions()
    width = number("stem.filters", (4, 8, 12, 16))
    parts: dict[str, L.Layer] = {"stem": conv_norm(width, "relu", 3, 2)}
    decisions.declare(width)
    parts |= {"pool": L.GlobalAveragePool(), **classifier(max(2, classes), 0.0)}
    shape = (settings.input_size, settings.input_size, channels)
    template = L.Sequential(tuple(parts.items()))
    return NetworkSpace("networks of joint", template, decisions.list, shape, max(2, classes))


def joint_space(settings: JointSettings, classes: int, channels: int) -> JointSpace:
    """Makes the joint space."""
    return JointSpace(networks_alone(settings, classes, channels))


class ElementsSettings(LatencySettings):
    """Settings of the latency source."""

    source: str = "elements"


class Elements(LatencySource):
    """Latency as the work of the network over the elements that do it; notes what it is asked, where told to."""

    @property
    def name(self) -> str:
        """See `LatencySource`."""
        return "work per element"

    def submit(self, candidate: Candidate) -> Future[LatencyAnswer]:
        """See `LatencySource`."""
        if log := os.environ.get("ASKED_LOG"):
            with Path(log).open("a", encoding="utf-8") as file:
                file.write(f"{candidate.design.fingerprint}\n")
        future: Future[LatencyAnswer] = Future()
        elements: Any = candidate.design.extras["elements"]
        latency_ms = analyze(candidate.network).macs / elements
        future.set_result(LatencyAnswer.estimated(LatencyKind.SIMULATED, latency_ms))
        return future


class ParametersSettings(QualitySettings):
    """Settings of the quality source."""

    source: str = "parameters"


def parameters(settings: ParametersSettings, context: QualityContext) -> FunctionQuality:
    """A quality that needs no training: the more parameters, the better."""

    def evaluate(candidate: Candidate) -> Quality:
        return Quality(1 - 1 / analyze(candidate.network).parameters)

    return FunctionQuality("parameters", evaluate)


space = Entry(JointSettings, joint_space, "networks and the accelerator that runs them")
networks = Entry(NetworksSettings, networks_alone, "the networks alone")
latency = Entry(ElementsSettings, lambda settings, context: Elements(), "work per processing element")
quality = Entry(ParametersSettings, parameters, "the number of parameters")
