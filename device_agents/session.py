"""A measuring session: an anchor model tells whether the device is still the same.

    anchor  m m m m  anchor  m m m m  anchor ...
            `-----'  drifted? then these are measured again

The same operators on the same phone model differed by 18% (median) between two sessions,
while repeated runs agreed far better; see `MeasuringSession.anchors` for what happened here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from device_agents.anchor import builtin_anchor_model
from device_agents.api import BenchmarkSpec, DeviceAgent, Measurement, Verdict
from device_agents.errors import DeviceUnavailableError


@dataclass(frozen=True)
class AnchorReading:
    """One measurement of the anchor model.

    Attributes:
        after: How many measurements had been taken before it.
        median_ms: Its median in milliseconds.
        ratio: That median over the first one of the session; 1.0 is no drift.
    """

    after: int
    median_ms: float
    ratio: float


@dataclass(frozen=True)
class SessionSettings:
    """When the anchor is measured and what counts as drift.

    Attributes:
        every: Measurements between two anchor readings.
        interval_s: Seconds after which the anchor is due in any case.
        max_drift: Accepted |ratio - 1| of the anchor.
        rounds: How often drifted measurements are taken again.
    """

    every: int = 20
    interval_s: float = 60.0
    max_drift: float = 0.05
    rounds: int = 2


class MeasuringSession:
    """Measures models and repeats what an anchor model shows to have drifted.

    `measure` answers at once and provisionally; `finish` returns the final measurements in
    the order of the calls. What still drifts after `rounds` repetitions gets the verdict
    `drifted`.

    Args:
        agent: The device; stays open.
        spec: How the anchor is measured, and every model that comes without a spec of its own.
        anchor_model: TFLite file of the anchor, or None for the built-in one.
        settings: When to check and what to accept.
        clock: Seconds from any origin; tests may pass their own.
    """

    def __init__(
        self,
        agent: DeviceAgent,
        spec: BenchmarkSpec,
        anchor_model: bytes | None = None,
        settings: SessionSettings = SessionSettings(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._agent = agent
        self._spec = spec
        self._anchor_model = builtin_anchor_model() if anchor_model is None else anchor_model
        self._settings = settings
        self._clock = clock
        self._results: list[Measurement] = []
        self._unchecked: list[tuple[int, bytes, BenchmarkSpec]] = []  # the first: position in results
        self._anchors: list[AnchorReading] = []
        self._anchor_read_s = clock()

    @property
    def anchors(self) -> tuple[AnchorReading, ...]:
        """Every reading of the anchor so far."""
        return tuple(self._anchors)

    def measure(self, model: bytes, spec: BenchmarkSpec | None = None) -> Measurement:
        """Returns a provisional measurement of a model.

        Args:
            model: A TFLite file.
            spec: How to measure it; None for the session's.

        Raises:
            DeviceError: If the bench is broken, the anchor not being measurable included.
        """
        if not self._anchors:
            self._read_anchor()
        spec = spec or self._spec
        measurement = self._agent.measure(model, spec)
        self._results.append(measurement)
        if measurement.samples_ms:
            self._unchecked.append((len(self._results) - 1, model, spec))
        if self._is_anchor_due():
            self._check()
        return self._results[-1]

    def finish(self) -> list[Measurement]:
        """Checks what has not been checked and returns the final measurements, in order."""
        if self._unchecked:
            self._check()
        return list(self._results)

    def _is_anchor_due(self) -> bool:
        waited_s = self._clock() - self._anchor_read_s
        return len(self._unchecked) >= self._settings.every or waited_s >= self._settings.interval_s

    def _check(self) -> None:
        """Accepts the unchecked measurements, or takes them again, or marks them."""
        ratio = self._read_anchor()
        for _ in range(self._settings.rounds):
            if self._is_accepted(ratio):
                break
            for position, model, spec in self._unchecked:
                self._results[position] = self._agent.measure(model, spec)
            ratio = self._read_anchor()
        if not self._is_accepted(ratio):
            self._mark_drifted(ratio)
        self._unchecked.clear()

    def _is_accepted(self, ratio: float) -> bool:
        return abs(ratio - 1) <= self._settings.max_drift

    def _mark_drifted(self, ratio: float) -> None:
        detail = f"the anchor model took {ratio:.2f} times as long as at the start of the session"
        for position, _, _ in self._unchecked:
            if self._results[position].ok:
                self._results[position] = self._results[position].with_verdict(Verdict.DRIFTED, detail)

    def _read_anchor(self) -> float:
        """Measures the anchor and returns its ratio to the first reading."""
        measurement = self._agent.measure(self._anchor_model, self._spec)
        if measurement.statistics is None:
            raise DeviceUnavailableError(
                f"The anchor model cannot be measured ({measurement.verdict}: "
                f"{measurement.detail}). Check the device, or pass another anchor model"
            )
        median_ms = measurement.statistics.median_ms
        first_ms = self._anchors[0].median_ms if self._anchors else median_ms
        self._anchors.append(AnchorReading(len(self._results), median_ms, median_ms / first_ms))
        self._anchor_read_s = self._clock()
        return self._anchors[-1].ratio
