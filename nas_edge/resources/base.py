"""`Resource`: something that a network uses and that a search may aim at or limit.

    network, precision, answer of the latency source  --Resource.use-->  ResourceUse: value, kind, note

The same function serves candidates and delivered files. A new resource is one file with a `Resource`, and one line in
`RESOURCES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from device_agents.api import Measurement
from nas_edge.latency.answer import LatencyAnswer, LatencyKind
from nas_edge.networks.analysis import Analysis, analyze
from nas_edge.networks.graph import NetworkSpec
from nas_edge.networks.precisions import PRECISIONS, Precision

# The kind of a use that follows from the network alone; all others have the kinds of latencies.
COMPUTED = "computed"
MEASURED = LatencyKind.MEASURED.value


@dataclass(frozen=True)
class ResourceUse:
    """What one network uses of a resource.

    Attributes:
        value: in the resource's unit; None where it is not available.
        kind: how it is known: `computed` from the network, or as a latency is: `measured`, `predicted`, ...
        note: what exactly was measured; without a value, why there is none.
    """

    value: float | None
    kind: str
    note: str = ""

    def __str__(self) -> str:
        return f"not available: {self.note}" if self.value is None else self.kind


@dataclass(frozen=True)
class Used:
    """A network whose use of resources is asked for.

    Attributes:
        network: what runs; None for spaces without networks.
        precision: in which it runs.
        answer: of the latency source, measurement included; None if no latency was asked for.
        latency_ms: the latency that counts, if it is not the answer's own.
        made: its TFLite file, if there is one already.
    """

    network: NetworkSpec | None
    precision: Precision
    answer: LatencyAnswer | None = None
    latency_ms: float | None = None
    made: bytes | None = field(default=None, repr=False)

    @cached_property
    def analysis(self) -> Analysis | None:
        """What follows from the network; cached, because it takes longer than building the network."""
        return None if self.network is None else analyze(self.network, PRECISIONS[self.precision].activation_bytes)

    @cached_property
    def file(self) -> bytes | None:
        """The TFLite file that is measured, or was delivered."""
        if self.made is not None or self.network is None:
            return self.made
        from nas_edge.networks.tflite_model import tflite_model

        return tflite_model(self.network, self.precision)

    @property
    def measurements(self) -> list[Measurement]:
        """What was measured, on each of several models of devices; empty if nothing was."""
        answers = () if self.answer is None else (self.answer.parts or (self.answer,))
        return [answer.measurement for answer in answers if answer.measurement is not None]


@dataclass(frozen=True)
class Resource:
    """Something that a network uses.

    Attributes:
        summary: what it is, for people.
        unit: of its values; empty for counts.
        use: what a network uses of it.
        kind: how it is usually known, see `ResourceUse`; for the latency, the answer says.
        with_latency: whether its value comes from the answer of the latency source.
        measured: whether that answer has to be a measurement.
        device_settings: settings of `device` that measuring it requires.
        of_networks: whether every network uses it, on any device.
    """

    summary: str
    unit: str
    use: Callable[[Used], ResourceUse]
    kind: str = MEASURED
    with_latency: bool = False
    measured: bool = False
    device_settings: Mapping[str, bool] = field(default_factory=dict)
    of_networks: bool = True

    def text(self, value: float) -> str:
        """A value with its unit, as people read it."""
        shown = f"{value:,.0f}" if value.is_integer() or value >= 10_000 else f"{value:.4g}"
        return f"{shown} {self.unit}".rstrip()


def computed(summary: str, unit: str, read: Callable[[Analysis], int]) -> Resource:
    """A resource that follows from the network alone.

    Args:
        summary: see `Resource`.
        unit: likewise.
        read: gets it from an analysis.
    """

    def use(used: Used) -> ResourceUse:
        analysis = used.analysis
        if analysis is None:
            return ResourceUse(None, COMPUTED, "the space describes no networks")
        return ResourceUse(float(read(analysis)), COMPUTED)

    return Resource(summary, unit, use, COMPUTED)


def simulated_use(name: str) -> Callable[[Used], ResourceUse]:
    """A resource whose value the latency source gives beside the latency, as a simulator does.

    Args:
        name: of the resource.
    """

    def use(used: Used) -> ResourceUse:
        if used.answer is None or name not in used.answer.further:
            return ResourceUse(None, LatencyKind.SIMULATED.value, "the latency source does not report it")
        return ResourceUse(used.answer.further[name], used.answer.kind.value)

    return use


def most_used(uses: Sequence[ResourceUse]) -> ResourceUse:
    """The highest of several uses, as on several models of devices; if one is not available, that one."""
    return next((use for use in uses if use.value is None), max(uses, key=lambda use: use.value or 0.0))


def measured_use(used: Used, read: Callable[[Measurement], ResourceUse]) -> ResourceUse:
    """What was measured with the latency; of several models of devices, the highest value.

    Args:
        used: the network.
        read: gets it from a measurement.
    """
    uses = [read(measurement) for measurement in used.measurements]
    return most_used(uses) if uses else ResourceUse(None, MEASURED, "nothing was measured")
