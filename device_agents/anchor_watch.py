"""Whether a device is still the same: an anchor model is measured again and again, and its times compared.

`anchored` (searches, which need every answer at once) and `session` (benchmarks, which can measure again what was
measured while the device differed) watch a device by it; they differ in what they conclude.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from device_agents.api import BenchmarkSpec, DeviceAgent, Measurement
from device_agents.probe_models import compute_model


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
class AnchorSettings:
    """When the anchor is measured and what counts as drift.

    A reading costs what a candidate costs, so `every` bounds its share of the measuring, here to 4%.
    `interval_s` matters where a device is measured rarely, and costs less than 1% of the time.

    Attributes:
        every: Measurements between two readings.
        interval_s: Seconds after which a reading is due in any case.
        max_drift: Accepted |ratio - 1|. Two medians that are each known to 5%, as measurements have to be, may differ
            by as much.
        confirmations: Readings that must agree before a drift is believed.
        patience: In a search: drifted measurements after which the device has settled at another speed.
        repetitions: In a benchmark: how often drifted measurements are taken again.
    """

    every: int = 25
    interval_s: float = 60.0
    max_drift: float = 0.10
    confirmations: int = 3
    patience: int = 6
    repetitions: int = 2

    def is_drift(self, ratio: float) -> bool:
        """Whether a device that takes so many times as long is no longer the same."""
        return abs(ratio - 1) > self.max_drift


class AnchorWatch:
    """Measures the anchor model on a device and keeps the readings.

    Args:
        agent: The device.
        spec: How the anchor is measured.
        model: TFLite file of the anchor, or None for the built-in one.
        settings: None for the usual ones.
        clock: Seconds from any origin, never set back; tests may pass their own.
    """

    def __init__(
        self,
        agent: DeviceAgent,
        spec: BenchmarkSpec,
        model: bytes | None = None,
        settings: AnchorSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._agent, self._spec, self._clock = agent, spec, clock
        self._model = compute_model() if model is None else model
        self._readings: list[AnchorReading] = []
        self.settings = settings or AnchorSettings()
        self.read_s = clock()
        """When the anchor was last measured, by the clock."""

    @property
    def readings(self) -> tuple[AnchorReading, ...]:
        """Every reading so far."""
        return tuple(self._readings)

    def is_due(self, taken: int) -> bool:
        """Whether the anchor should be measured now.

        Args:
            taken: Measurements since it was measured last.
        """
        return taken >= self.settings.every or self._clock() - self.read_s >= self.settings.interval_s

    def read(self, after: int) -> Measurement:
        """Measures the anchor, and adds a reading if it could be timed.

        The first reading is what all others are compared with: one that was disturbed is taken again.

        Args:
            after: Measurements taken before, in all.

        Raises:
            DeviceError: If the bench itself is broken.
        """
        for _ in range(1 if self._readings else self.settings.confirmations):
            measurement = self._agent.measure(self._model, self._spec)
            if measurement.ok:
                break
        self.read_s = self._clock()
        if measurement.statistics is not None:
            median_ms = measurement.statistics.median_ms
            first_ms = self._readings[0].median_ms if self._readings else median_ms
            self._readings.append(AnchorReading(after, median_ms, median_ms / first_ms))
        return measurement

    def confirm(self, after: int, usual_ratio: float = 1.0, readings: int | None = None) -> Measurement:
        """Reads the anchor until a reading is no drift, at most as often as it takes to believe a drift.

        Args:
            after: Measurements taken before, in all.
            usual_ratio: The ratio that is no drift at present.
            readings: How often at most; None for `confirmations`.

        Returns:
            The last of these measurements; one without samples if the anchor cannot be timed.
        """
        for _ in range(readings or self.settings.confirmations):
            measurement = self.read(after)
            if measurement.statistics is None or not self.has_drifted(usual_ratio):
                break
        return measurement

    def has_drifted(self, usual_ratio: float = 1.0) -> bool:
        """Whether the last reading is a drift."""
        return self.settings.is_drift(self._readings[-1].ratio / usual_ratio)


def drift_detail(ratio: float) -> str:
    """Returns the reason of the verdict `drifted`."""
    return f"the anchor model took {ratio:.2f} times as long as at the start of the session"
