"""Latencies of hardware that is not there, `sim:NAME`: to rehearse a search, and to order networks.

    sim:edgetpu         Coral's Edge TPU at USB 3
    sim:edgetpu:pcie    the same at PCIe, as on the Dev Board

An answer of it is `simulated`, never `measured`. What the hardware does not run has no latency: the verdict is
`fallback`, as a Coral's is. New hardware is a line in `SIMULATORS`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

from pydantic import Field

from device_agents.api import Verdict
from nas_edge.errors import ConfigError
from nas_edge.hardware import find_hardware
from nas_edge.hardware.edgetpu_timing import EDGETPU_TIMING, Link
from nas_edge.hardware.gate import check_file
from nas_edge.hardware.lint import lint_space
from nas_edge.hardware.profile import Hardware
from nas_edge.latency.answer import LatencyAnswer, LatencyKind
from nas_edge.latency.roofline import estimate
from nas_edge.latency.settings import LatencySettings
from nas_edge.latency.source import Candidate, LatencySource, resolve
from nas_edge.networks.graph import NetworkSpec
from nas_edge.networks.precisions import Precision
from nas_edge.networks.tflite_model import tflite_model
from nas_edge.networks.work import network_work
from nas_edge.settings import one_of
from nas_edge.spaces.decisions import Architecture, NetworkSpace, SearchSpace


@dataclass(frozen=True)
class Simulator:
    """Says how long networks take on some hardware.

    Attributes:
        name: for people; it differs where the numbers do.
        hardware: which networks run there.
        latency_ms: of an int8 network.
    """

    name: str
    hardware: Hardware
    latency_ms: Callable[[NetworkSpec], float]


# Of the formulas in `roofline.py`. It goes up with every change that changes a latency: no run is continued then.
_ROOFLINE_VERSION = 1


def _edgetpu(link: Link, where: str) -> Simulator:
    constants = hashlib.sha256(f"{_ROOFLINE_VERSION} {EDGETPU_TIMING}".encode()).hexdigest()[:8]
    return Simulator(
        f"Edge TPU simulator at {where} (constants {constants})", find_hardware("edgetpu"), partial(_roofline_ms, link)
    )


def _roofline_ms(link: Link, spec: NetworkSpec) -> float:
    return estimate(network_work(spec), EDGETPU_TIMING, link).latency_ms


SIMULATORS: Mapping[str, Simulator] = {
    "edgetpu": _edgetpu("usb", "USB 3"),
    "edgetpu:pcie": _edgetpu("pcie", "PCIe"),
}


class SimulatedSettings(LatencySettings):
    """Settings of `sim`."""

    text_field: ClassVar[str] = "device"

    source: str = "sim"
    device: Annotated[str, one_of(SIMULATORS)] = Field("edgetpu", description="what is simulated")


class SimulatedSource(LatencySource):
    """Answers with what a simulator says.

    Args:
        simulator: of the hardware.
        checks: whether each candidate has to be checked first: the space has choices that do not run there.
    """

    def __init__(self, simulator: Simulator, checks: bool) -> None:
        self._simulator, self._checks = simulator, checks

    @property
    def name(self) -> str:
        """The simulator's name."""
        return self._simulator.name

    def submit(self, candidate: Candidate) -> Future[LatencyAnswer]:
        """See `LatencySource`; networks from outside the space are simulated, too."""
        future: Future[LatencyAnswer] = Future()
        resolve(future, self._simulate(candidate))
        return future

    def _simulate(self, candidate: Candidate) -> LatencyAnswer:
        if self._checks or candidate.architecture is None:
            check = check_file(tflite_model(candidate.network, "int8"), self._simulator.hardware)
            if not check.passed:
                return LatencyAnswer.failed(LatencyKind.SIMULATED, Verdict.FALLBACK, str(check))
        return LatencyAnswer.estimated(LatencyKind.SIMULATED, self._simulator.latency_ms(candidate.network))


def open_simulated(device: str, space: SearchSpace, precision: Precision) -> SimulatedSource:
    """A simulator of one of `SIMULATORS` for a search.

    Raises:
        ConfigError: when no network of the space could run there.
    """
    simulator = SIMULATORS[device]
    hardware = simulator.hardware
    if space.build(Architecture((0,) * len(space.decisions))).network is None:
        raise ConfigError(
            f"the {simulator.name} times networks, which {space.name} does not describe",
            fix="name where latencies come from, for example --latency-column NAME",
        )
    if precision not in hardware.precisions:
        raise ConfigError(f"the {simulator.name} times int8 networks only", received=precision, fix="--precision int8")
    return SimulatedSource(simulator, checks=_has_others(space, hardware))


def _has_others(space: SearchSpace, hardware: Hardware) -> bool:
    """Whether a space has networks that do not run on the hardware, as far as is known before the search.

    Raises:
        ConfigError: when it has no other.
    """
    if not isinstance(space, NetworkSpace):
        return True  # a joint space, whose choices cannot be traced
    problems = [problem for problem in lint_space(space, hardware) if not problem.runs]
    refused: dict[str, set[int | None]] = {}
    for problem in problems:
        refused.setdefault(problem.decision, set()).add(problem.choice)
        decision = None if problem.choice is None else space.decisions[space.index[problem.decision]]
        # A layer of every network, or the last of the choices of a decision that always matters.
        if decision is None or (() in decision.guards and len(refused[decision.path]) == len(decision.choices)):
            raise ConfigError(
                f"no network of {space.name} runs on {hardware.what}: "
                f"{problem.layer}: {problem.operator}: {problem.why}",
                fix=f"--hardware {hardware.name} searches what does",
            )
    return bool(problems)
