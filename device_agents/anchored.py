"""A device that keeps an eye on itself: an anchor model is measured between candidates.

    anchor  m m m m  anchor  m m m m  anchor ...

For searches, which need every answer at once. `session.MeasuringSession` can take back what it
measured between two anchors that differ; a search has already learnt from it. So here

* every measurement says how the anchor stood (`Conditions.anchor_ratio`);
* while the anchor is off, measurements are `drifted`, and whoever wants a number asks again;
* whoever stores measurements is told from when on they are suspect (`on_drift`);
* a device that stays off has settled at another speed: it is measured as it is now, the ratio still
  saying how it differs from the start. A search of hours must not end because a laptop got warm.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from device_agents.anchor import builtin_anchor_model
from device_agents.api import BenchmarkSpec, DeviceAgent, DeviceInfo, Measurement, Verdict
from device_agents.errors import DeviceError
from device_agents.session import AnchorReading

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class AnchorSettings:
    """When the anchor is measured and what counts as drift.

    A reading costs what a candidate costs, so `every` bounds its share of the measuring, here to 4%.
    `interval_s` matters where a search measures rarely, and costs less than 1% of its time.

    Attributes:
        every: Measurements between two readings.
        interval_s: Seconds after which a reading is due in any case.
        max_drift: Accepted |ratio - 1|. Two medians that are each known to 5% may differ by as much.
        confirmations: Readings that must agree before a drift is believed.
        patience: Drifted measurements after which the device has settled at another speed.
    """

    every: int = 25
    interval_s: float = 60.0
    max_drift: float = 0.10
    confirmations: int = 3
    patience: int = 6


class AnchoredAgent(DeviceAgent):
    """An agent around an agent, which it closes.

    Where the anchor cannot be measured (an accelerator that refuses it), drift is not known and
    `anchor_ratio` stays None.

    Args:
        agent: The device.
        spec: How the anchor is measured; that of the candidates.
        anchor_model: TFLite file of the anchor, or None for the built-in one.
        settings: See `AnchorSettings`.
        on_drift: Called in the measuring thread with the time, by `clock`, since which what was measured is
            suspect.
        clock: Seconds from any origin, never set back; tests may pass their own.
    """

    def __init__(
        self,
        agent: DeviceAgent,
        spec: BenchmarkSpec,
        anchor_model: bytes | None = None,
        settings: AnchorSettings = AnchorSettings(),
        on_drift: Callable[[float], None] = lambda since_s: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._agent, self._spec, self._settings = agent, spec, settings
        self._model_name = agent.info().model
        self._anchor_model = builtin_anchor_model() if anchor_model is None else anchor_model
        self._on_drift, self._clock = on_drift, clock
        self._readings: list[AnchorReading] = []
        self._taken = 0
        self._taken_at_reading = 0
        self._read_s = self._good_s = self._settled_s = clock()
        self._settled_ratio = 1.0  # of the speed that counts as undrifted now
        self._drifted = 0  # measurements since the drift was noticed, that one included
        self._knows = True

    @property
    def readings(self) -> tuple[AnchorReading, ...]:
        """Every reading of the anchor so far."""
        return tuple(self._readings)

    def info(self) -> DeviceInfo:
        """See `DeviceAgent`."""
        return self._agent.info()

    def measure(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        """Measures a model, and the anchor before it when that is due."""
        if self._is_due():
            self._check()
        self._taken += 1
        measurement = self._agent.measure(model, spec)
        if not self._readings or measurement.conditions is None:
            return measurement
        ratio = self._readings[-1].ratio
        measurement = replace(measurement, conditions=replace(measurement.conditions, anchor_ratio=ratio))
        if self._drifted and measurement.ok:
            return measurement.with_verdict(Verdict.DRIFTED, f"{_words(ratio)} as at the start of the session")
        return measurement

    def cores(self, kind: str) -> tuple[int, ...]:
        """See `DeviceAgent`."""
        return self._agent.cores(kind)

    def run(self, model: bytes, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """See `DeviceAgent`."""
        return self._agent.run(model, inputs)

    def close(self) -> None:
        """Reads the anchor a last time, so that a drift at the end does not go unnoticed, and closes."""
        if self._taken > self._taken_at_reading and self._readings:
            with contextlib.suppress(DeviceError):  # it may be closed because it is lost
                self._check()
            self._taken_at_reading = self._taken
        self._agent.close()

    def _is_due(self) -> bool:
        if not self._knows:
            return False
        if not self._readings or self._drifted:
            return True
        taken = self._taken - self._taken_at_reading
        return taken >= self._settings.every or self._clock() - self._read_s >= self._settings.interval_s

    def _check(self) -> None:
        """Reads the anchor and draws the conclusions."""
        for _ in range(1 if self._drifted else self._settings.confirmations):
            ratio = self._read()
            if ratio is None:
                return
            if abs(ratio / self._settled_ratio - 1) <= self._settings.max_drift:
                self._good_s, self._drifted = self._read_s, 0
                return
        assert ratio is not None
        if not self._drifted:
            _LOG.warning("%s: %s as at the start of the session", self._model_name, _words(ratio))
            self._on_drift(self._good_s)
        self._drifted += 1
        if self._drifted > self._settings.patience:
            # Everything measured at the former speed can no longer be compared with what comes.
            self._on_drift(self._settled_s)
            self._settled_ratio, self._drifted = ratio, 0
            self._settled_s = self._good_s = self._read_s

    def _read(self) -> float | None:
        """Measures the anchor; returns its ratio to the first reading, None when that cannot be known."""
        # The first one is what all others are compared with, so it should not be a disturbed one.
        for _ in range(1 if self._readings else self._settings.confirmations):
            measurement = self._agent.measure(self._anchor_model, self._spec)
            if measurement.ok:
                break
        self._read_s, self._taken_at_reading = self._clock(), self._taken
        if measurement.statistics is None:
            # What has never worked is refused; anything else is the bench's trouble of the moment.
            self._knows = bool(self._readings) or measurement.verdict is Verdict.DEVICE_LOST
            return None
        median_ms = measurement.statistics.median_ms
        first_ms = self._readings[0].median_ms if self._readings else median_ms
        self._readings.append(AnchorReading(self._taken, median_ms, median_ms / first_ms))
        return self._readings[-1].ratio


def _words(ratio: float) -> str:
    return f"the anchor model took {ratio:.2f} times as long"
