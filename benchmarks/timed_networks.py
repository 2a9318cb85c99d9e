"""Networks of the size that searches measure, what slows them on this machine, and their time without it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.interference import Interference, streaming
from device_agents.api import BenchmarkSpec
from device_agents.host import HostAgent
from device_agents.quiet import VisitSettings, VisitTime, agreed, time_of
from device_agents.worker.system import allowed_cores
from nas_edge.networks.tflite_model import tflite_model
from nas_edge.spaces.reference import reference_network

SLOWED, SLOWED_SHARE = 1.15, 0.5
# Name, input size, width multiplier, precision.
_NETWORKS = (
    ("mobilenet-v2", 32, 1.0, "float32"),
    ("mobilenet-v2", 64, 1.4, "float32"),
    ("mobilenet-v2", 96, 0.5, "int8"),
    ("mobilenet-v2", 160, 0.5, "float32"),
    ("mobilenet-v3-large", 64, 1.0, "float32"),
    ("mnasnet-b1", 64, 1.0, "int8"),
    ("mnasnet-b1", 96, 1.0, "float32"),
    ("multi-max", 64, 1.0, "float32"),
    ("multi-avg", 96, 0.75, "float32"),
    ("mobilenet-v3-large", 96, 1.0, "float32"),
)
_REFERENCE = ("mobilenet-v2", 96, 0.75, "float32")
_MEGABYTES = 128
_TURN_S = 0.0002
_SETTINGS = VisitSettings()
# A block without interference ends when so many visits of each network lie within this share of its lowest.
_AGREEING, _TOLERANCE = 4, 0.015
_MOST = 6  # times the fewest rounds of a block


@dataclass(frozen=True)
class Case:
    """A network that is timed.

    Attributes:
        name: For people.
        model: Its TFLite file.
    """

    name: str
    model: bytes


@dataclass(frozen=True)
class Place:
    """Where the streaming program runs.

    Attributes:
        name: In words.
        core: The core.
        turn_s: How long it sleeps between two slices, for the measured core; 0 never.
    """

    name: str
    core: int
    turn_s: float

    @contextmanager
    def streaming(self) -> Iterator[Interference]:
        """Yields what controls the program there."""
        with streaming(self.core, _MEGABYTES, self.turn_s) as interference:
            yield interference


def timed_networks(count: int | None = None) -> list[Case]:
    """Returns the first networks, all of the ten for None."""
    return [Case(_name(network), _file(network)) for network in _NETWORKS[:count]]


def reference_file() -> bytes:
    """Returns the TFLite file of the network that serves as probe."""
    return _file(_REFERENCE)


def disturbing_place(host: HostAgent, cases: Sequence[Case], spec: BenchmarkSpec) -> tuple[Place, list[float]]:
    """Returns where the program slows the networks, and each one's time with it over that without.

    That is another core; or, where that slows fewer than half of the networks by 15%, the measured core, in turns.
    """
    assert spec.cores is not None
    other = next(core for core in allowed_cores() or () if core not in spec.cores)
    place = Place("another core", other, 0.0)
    slowdowns = _slowdowns(host, cases, spec, place)
    if share_slowed(slowdowns) < SLOWED_SHARE:
        place = Place("the measured core, in turns", spec.cores[0], _TURN_S)
        slowdowns = _slowdowns(host, cases, spec, place)
    return place, slowdowns


def share_slowed(slowdowns: Sequence[float]) -> float:
    """Returns the share of the networks that are slowed by 15%."""
    return sum(slowdown >= SLOWED for slowdown in slowdowns) / len(slowdowns)


def truth_ms_of(host: HostAgent, cases: Sequence[Case], spec: BenchmarkSpec, rounds: int) -> list[float]:
    """Returns the latency of each network in a block without the program, from its lowest visits, in milliseconds.

    Args:
        host: This machine.
        cases: The networks.
        spec: How they are measured.
        rounds: Visits to each at least; six times as many where other programs of this machine disturb them.
    """
    rows: list[list[float]] = []
    while len(rows) < rounds or (len(rows) < _MOST * rounds and not _is_settled(rows)):
        rows.append(visit_each(host, cases, spec))
    truths = []
    for column in zip(*rows, strict=True):
        quiet = agreed([VisitTime(time_ms, number) for number, time_ms in enumerate(column)], _SETTINGS)
        truths.append(quiet.latency_ms if quiet else statistics.median(sorted(column)[:3]))
    return truths


def visit_each(host: HostAgent, cases: Sequence[Case], spec: BenchmarkSpec) -> list[float]:
    """Visits each network once and returns the times in milliseconds."""
    visit = _SETTINGS.of_visit(spec)
    found = host.measure_all([(case.model, visit) for case in cases])
    return [time_of(measurement.samples_ms, _SETTINGS) for measurement in found]


def _is_settled(rows: Sequence[Sequence[float]]) -> bool:
    columns = [sorted(column) for column in zip(*rows, strict=True)]
    return all(sum(t <= column[0] * (1 + _TOLERANCE) for t in column) >= _AGREEING for column in columns)


def _slowdowns(host: HostAgent, cases: Sequence[Case], spec: BenchmarkSpec, place: Place) -> list[float]:
    with_it: list[list[float]] = []
    without: list[list[float]] = []
    with place.streaming() as interference:
        for _ in range(6):
            interference.start(quiet_share=0.0, staying=0.0, seed=0)
            time.sleep(0.05)
            with_it.append(visit_each(host, cases, spec))
            interference.stop()
            time.sleep(0.05)
            without.append(visit_each(host, cases, spec))
    ratios = [[a / b for a, b in zip(one, two, strict=True)] for one, two in zip(with_it, without, strict=True)]
    return [statistics.median(column) for column in zip(*ratios, strict=True)]


def _file(network: tuple[str, int, float, str]) -> bytes:
    name, size, width, precision = network
    return tflite_model(reference_network(name, size, width), precision)


def _name(network: tuple[str, int, float, str]) -> str:
    name, size, width, precision = network
    return f"{name} {size} px x{width} {precision}"
