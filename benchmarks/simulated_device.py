"""A simulated device for the measuring logic: disturbed in a two-state pattern, in virtual time."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from device_agents.api import BenchmarkSpec, Conditions, DeviceAgent, DeviceInfo, Measurement, Verdict

_INFO = DeviceInfo("sim:", "sim", "simulated", "none", 1, None, "none", "none", "0")
_CONDITIONS = Conditions(_INFO.fingerprint, "simulated", "none", "0", "cpu", 1, "2020-01-01T00:00:00")
_SAMPLES = 5


@dataclass(frozen=True)
class SimulatedModel:
    """A model on the simulated device.

    Attributes:
        quiet_ms: Its undisturbed latency.
        sensitivity: By which share of that it is slowed by a disturbance of strength 1.
    """

    quiet_ms: float
    sensitivity: float


class SimulatedDevice(DeviceAgent):
    """Answers visits with times that a two-state chain disturbs; the chain goes on with every visit.

    Args:
        models: What it knows, by the bytes of the "file".
        quiet_share: Share of the visits that are undisturbed.
        staying: Probability that the state stays as it is instead of being drawn anew.
        alike: Whether all disturbances are of strength 1, the hardest case; else they are between 0.4 and 1.6.
        seed: Of everything random.

    Attributes:
        now_s: Virtual time.
    """

    def __init__(
        self, models: dict[bytes, SimulatedModel], quiet_share: float, staying: float, alike: bool, seed: int
    ) -> None:
        self._models, self._quiet_share, self._staying, self._alike = models, quiet_share, staying, alike
        self._random = random.Random(seed)
        self.now_s = 0.0
        self._draw()

    def info(self) -> DeviceInfo:
        """See `DeviceAgent`."""
        return _INFO

    def measure(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        """One visit."""
        if self._random.random() >= self._staying:
            self._draw()
        known = self._models[model]
        # Without disturbance visits scatter by about a percent, and upwards more than downwards.
        time_ms = known.quiet_ms * math.exp(self._random.gauss(0, 0.008) + self._random.expovariate(1) * 0.006)
        if not self._is_quiet:
            time_ms *= 1 + known.sensitivity * self._strength * math.exp(self._random.gauss(0, 0.05))
        samples_ms = tuple(time_ms * math.exp(self._random.gauss(0, 0.004)) for _ in range(_SAMPLES))
        busy_s = max(spec.min_duration_s, spec.min_runs * time_ms / 1e3)
        self.now_s += busy_s
        return Measurement(Verdict.OK, samples_ms=samples_ms, runs_per_sample=1, busy_s=busy_s, conditions=_CONDITIONS)

    def run(self, model: bytes, inputs: Sequence[Any]) -> list[Any]:
        """See `DeviceAgent`; nothing is computed here."""
        raise NotImplementedError

    def close(self) -> None:
        """See `DeviceAgent`."""

    def _draw(self) -> None:
        self._is_quiet = self._random.random() < self._quiet_share
        self._strength = 1.0 if self._alike else self._random.uniform(0.4, 1.6)
