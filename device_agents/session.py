"""A measuring session: an anchor model tells whether the device is still the same.

    anchor  m m m m  anchor  m m m m  anchor ...
            `-----'  drifted? then these are measured again

The same operators on the same phone model differed by 18% (median) between two sessions,
while repeated runs agreed far better; see `MeasuringSession.anchors` for what happened here.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from device_agents.anchor_watch import AnchorReading, AnchorSettings, AnchorWatch, drift_detail
from device_agents.api import BenchmarkSpec, DeviceAgent, Measurement, Verdict
from device_agents.errors import BenchFailedError, DeviceUnavailableError


class MeasuringSession:
    """Measures models and repeats what an anchor model shows to have drifted.

    `measure` answers at once and provisionally; `finish` returns the final measurements in
    the order of the calls. What still drifts after `repetitions` gets the verdict
    `drifted`.

    Args:
        agent: The device; stays open.
        spec: How the anchor is measured, and every model that comes without a spec of its own.
        anchor_model: TFLite file of the anchor, or None for the built-in one.
        settings: When to check and what to accept; None for the usual ones.
        clock: Seconds from any origin; tests may pass their own.
    """

    def __init__(
        self,
        agent: DeviceAgent,
        spec: BenchmarkSpec,
        anchor_model: bytes | None = None,
        settings: AnchorSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._agent, self._spec = agent, spec
        self._anchor = AnchorWatch(agent, spec, anchor_model, settings, clock)
        self._results: list[Measurement] = []
        self._unchecked: list[tuple[int, bytes, BenchmarkSpec]] = []  # the first: position in results

    @property
    def anchors(self) -> tuple[AnchorReading, ...]:
        """Every reading of the anchor so far."""
        return self._anchor.readings

    @property
    def results(self) -> tuple[Measurement, ...]:
        """What was measured so far, in the order of the calls; provisional since the last reading of the anchor."""
        return tuple(self._results)

    def measure(self, model: bytes, spec: BenchmarkSpec | None = None) -> Measurement:
        """Returns a provisional measurement of a model.

        Args:
            model: A TFLite file.
            spec: How to measure it; None for the session's.

        Raises:
            DeviceError: If the bench is broken, the anchor not being measurable included.
        """
        if not self.anchors:
            self._read_anchor()
        spec = spec or self._spec
        measurement = self._agent.measure(model, spec)
        self._results.append(measurement)
        if measurement.samples_ms:
            self._unchecked.append((len(self._results) - 1, model, spec))
        if self._anchor.is_due(len(self._unchecked)):
            self._check()
        return self._results[-1]

    def finish(self) -> list[Measurement]:
        """Checks what has not been checked and returns the final measurements, in order."""
        if self._unchecked:
            self._check()
        return list(self._results)

    def _check(self) -> None:
        """Accepts the unchecked measurements, or takes them again, or marks them."""
        drifted = self._read_anchor()
        for _ in range(self._anchor.settings.repetitions):
            if not drifted:
                break
            for position, model, spec in self._unchecked:
                self._results[position] = self._agent.measure(model, spec)
            drifted = self._read_anchor()
        if drifted:
            self._mark_drifted(self.anchors[-1].ratio)
        self._unchecked.clear()

    def _mark_drifted(self, ratio: float) -> None:
        for position, _, _ in self._unchecked:
            if self._results[position].ok:
                self._results[position] = self._results[position].with_verdict(Verdict.DRIFTED, drift_detail(ratio))

    def _read_anchor(self) -> bool:
        """Measures the anchor and returns whether the device has drifted."""
        measurement = self._anchor.confirm(len(self._results))
        if measurement.statistics is None:
            broken = measurement.verdict is Verdict.BENCH_FAILED
            raise (BenchFailedError if broken else DeviceUnavailableError)(
                f"The anchor model cannot be measured ({measurement.verdict}: {measurement.detail})",
                fix=self._what_to_do(measurement.verdict),
            )
        return self._anchor.has_drifted()

    def _what_to_do(self, verdict: Verdict) -> str | None:
        """About an anchor model that cannot be measured; None where the verdict's detail says it."""
        if verdict is Verdict.BENCH_FAILED:
            return None
        if verdict is Verdict.FALLBACK:
            return "measure with another --delegate"
        return f"look at the device: nas-edge devices doctor {self._agent.info().address}"
