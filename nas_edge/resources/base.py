"""`Resource`: something that a network uses, that a search may aim at, and that may be limited.

    network, precision, answer of the latency source  --Resource.use-->  ResourceUse: value, kind, note

Candidates and delivered files are told of alike. A new resource is one file with a `Resource`, and one line in
`RESOURCES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from device_agents.api import Measurement
from nas_edge.latency.answer import LatencyAnswer, LatencyKind
from nas_edge.networks.analysis import Analysis, analyze
from nas_edge.networks.graph import NetworkSpec
from nas_edge.networks.precisions import PRECISIONS, Precision

# How a use is known that follows from the network alone; all others are known as latencies are.
COMPUTED = "computed"
MEASURED = LatencyKind.MEASURED.value


@dataclass(frozen=True)
class ResourceUse:
    """What one network uses of a resource.

    Attributes:
        value: in the resource's unit; None where it is not available.
        kind: how it is known: `computed` from the network, or as a latency is: `measured`, `predicted`, ...
        note: what exactly was measured; where there is no value, why.
    """

    value: float | None
    kind: str
    note: str = ""

    def __str__(self) -> str:
        return f"not available: {self.note}" if self.value is None else self.kind


@dataclass(frozen=True)
class Used:
    """A network of which it is asked what it uses.

    Attributes:
        network: what runs; None where a space describes none.
        precision: in which it runs.
        answer: of the latency source, measurement included; None where no latency was asked for.
        latency_ms: that counts, where that is not the answer's own.
        made: its TFLite file, where there is one already.
    """

    network: NetworkSpec | None
    precision: Precision
    answer: LatencyAnswer | None = None
    latency_ms: float | None = None
    made: bytes | None = field(default=None, repr=False)

    @cached_property
    def analysis(self) -> Analysis | None:
        """What follows from the network; kept, because it takes longer than building the network does."""
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
        """What was measured with the latency, on each of several models of devices; empty where nothing was."""
        answers = () if self.answer is None else (self.answer.parts or (self.answer,))
        return [answer.measurement for answer in answers if answer.measurement is not None]


@dataclass(frozen=True)
class Resource:
    """Something that a network uses.

    Attributes:
        summary: what it is, for people.
        unit: of its values; empty for numbers of things.
        use: what a network uses of it.
        kind: how it is known where it is known, see `ResourceUse`; of the latency, the answer says.
        with_latency: whether it is known by the answer of the latency source only.
        measured: whether that has to be a measurement.
        device_settings: settings of `device` that it takes to be measured.
        of_networks: whether any network uses it, on any device.
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
        read: takes it out of an analysis.
    """

    def use(used: Used) -> ResourceUse:
        analysis = used.analysis
        if analysis is None:
            return ResourceUse(None, COMPUTED, "the space describes no networks")
        return ResourceUse(float(read(analysis)), COMPUTED)

    return Resource(summary, unit, use, COMPUTED)


def simulated_use(name: str) -> Callable[[Used], ResourceUse]:
    """What the latency source says of a resource beside the latency, as a simulator does.

    Args:
        name: of the resource.
    """

    def use(used: Used) -> ResourceUse:
        if used.answer is None or name not in used.answer.further:
            return ResourceUse(None, LatencyKind.SIMULATED.value, "the latency source says nothing of it")
        return ResourceUse(used.answer.further[name], used.answer.kind.value)

    return use


def measured_use(used: Used, read: Callable[[Measurement], ResourceUse]) -> ResourceUse:
    """What was measured with the latency; of several models of devices, where it is most.

    Args:
        used: the network.
        read: takes it out of a measurement.
    """
    uses = [read(measurement) for measurement in used.measurements]
    if not uses:
        return ResourceUse(None, MEASURED, "nothing was measured")
    return next((use for use in uses if use.value is None), max(uses, key=lambda use: use.value or 0.0))
