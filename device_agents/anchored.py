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
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from device_agents.anchor_watch import AnchorReading, AnchorSettings, AnchorWatch, drift_detail
from device_agents.api import BenchmarkSpec, DeviceAgent, DeviceInfo, Measurement, Verdict
from device_agents.errors import DeviceError
from device_agents.verdicts import DEVICE_FAULTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOG = logging.getLogger(__name__)


class AnchoredAgent(DeviceAgent):
    """An agent around an agent, which it closes.

    Where the anchor cannot be measured (an accelerator that refuses it), drift is not known and
    `anchor_ratio` stays None.

    Args:
        agent: The device.
        spec: How the anchor is measured; that of the candidates.
        anchor_model: TFLite file of the anchor, or None for the built-in one.
        settings: None for the usual ones.
        on_drift: Called in the measuring thread with the time, by `clock`, since which what was measured is
            suspect.
        clock: Seconds from any origin, never set back; tests may pass their own.
    """

    def __init__(
        self,
        agent: DeviceAgent,
        spec: BenchmarkSpec,
        anchor_model: bytes | None = None,
        settings: AnchorSettings | None = None,
        on_drift: Callable[[float], None] = lambda since_s: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._agent, self._on_drift = agent, on_drift
        self.recorded = agent.recorded
        self._model_name = agent.info().model
        self._anchor = AnchorWatch(agent, spec, anchor_model, settings, clock)
        self._taken = 0
        self._taken_at_reading = 0
        self._good_s = self._settled_s = self._anchor.read_s
        self._settled_ratio = 1.0  # of the speed that counts as undrifted now
        self._drifted = 0  # measurements since the drift was noticed, that one included
        self._knows = True

    @property
    def readings(self) -> tuple[AnchorReading, ...]:
        """Every reading of the anchor so far."""
        return self._anchor.readings

    def info(self) -> DeviceInfo:
        """See `DeviceAgent`."""
        return self._agent.info()

    def measure(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        """Measures a model, and the anchor before it when that is due."""
        if self._is_due():
            self._check()
        self._taken += 1
        measurement = self._agent.measure(model, spec)
        if not self.readings or measurement.conditions is None:
            return measurement
        ratio = self.readings[-1].ratio
        measurement = replace(measurement, conditions=replace(measurement.conditions, anchor_ratio=ratio))
        if self._drifted and measurement.ok:
            return measurement.with_verdict(Verdict.DRIFTED, drift_detail(ratio))
        return measurement

    def cores(self, kind: str) -> tuple[int, ...]:
        """See `DeviceAgent`."""
        return self._agent.cores(kind)

    def run(self, model: bytes, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """See `DeviceAgent`."""
        return self._agent.run(model, inputs)

    def close(self) -> None:
        """Reads the anchor a last time, so that a drift at the end does not go unnoticed, and closes."""
        if self._taken > self._taken_at_reading and self.readings:
            with contextlib.suppress(DeviceError):  # it may be closed because it is lost
                self._check()
            self._taken_at_reading = self._taken
        self._agent.close()

    def _is_due(self) -> bool:
        if not self._knows:
            return False
        return not self.readings or bool(self._drifted) or self._anchor.is_due(self._taken - self._taken_at_reading)

    def _check(self) -> None:
        """Reads the anchor and draws the conclusions."""
        once = 1 if self._drifted else None  # a drift that is already known need not be confirmed
        measurement = self._anchor.confirm(self._taken, self._settled_ratio, once)
        self._taken_at_reading = self._taken
        if measurement.statistics is None:
            # What has never worked is refused; anything else is the bench's trouble of the moment.
            self._knows = bool(self.readings) or measurement.verdict in DEVICE_FAULTS
            return
        if not self._anchor.has_drifted(self._settled_ratio):
            self._good_s, self._drifted = self._anchor.read_s, 0
            return
        ratio = self.readings[-1].ratio
        if not self._drifted:
            _LOG.warning("%s: %s", self._model_name, drift_detail(ratio))
            self._on_drift(self._good_s)
        self._drifted += 1
        if self._drifted > self._anchor.settings.patience:
            # Everything measured at the former speed can no longer be compared with what comes.
            self._on_drift(self._settled_s)
            self._settled_ratio, self._drifted = ratio, 0
            self._settled_s = self._good_s = self._anchor.read_s
