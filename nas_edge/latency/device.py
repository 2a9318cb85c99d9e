"""Latency measured on devices: every candidate is written as TFLite and run there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future

from device_agents.anchored import AnchoredAgent
from device_agents.api import BenchmarkSpec, DeviceAgent, DeviceInfo, Measurement
from device_agents.pool import DevicePool
from nas_edge.latency.cache import MeasuringKey
from nas_edge.latency.source import Candidate, LatencySource
from nas_edge.networks.tflite_model import Precision, tflite_model


class DeviceSource(LatencySource):
    """Measures candidates on interchangeable devices, each watched by an anchor model.

    A search cannot take back what it has learnt, so answers are given at once and a drift found later is told to
    `on_drift`; see `device_agents.anchored`.

    Args:
        agents: devices of one kind; closed with the source.
        precision: `int8` or `float32`: what will be delivered is what is measured.
        spec: how to measure.
    """

    def __init__(self, agents: Sequence[DeviceAgent], precision: Precision, spec: BenchmarkSpec) -> None:
        self._precision, self.spec = precision, spec
        self._listeners: list[Callable[[float], None]] = []
        self._pool = DevicePool([AnchoredAgent(agent, spec, on_drift=self._tell_drift) for agent in agents])
        self._infos = tuple(status.info for status in self._pool.status())

    @property
    def name(self) -> str:
        """The devices' model."""
        return self._infos[0].model

    @property
    def info(self) -> DeviceInfo:
        """What the devices are."""
        return self._infos[0]

    @property
    def key(self) -> MeasuringKey:
        """What else than the network decides about a latency."""
        runtime = f"{self.info.runtime} {self.info.runtime_version}"
        return MeasuringKey(self._precision, self.info.fingerprint, runtime, self.spec.settings_hash)

    @property
    def measures_on_host(self) -> bool:
        """Whether one of them is this machine."""
        return any(info.measures_on_host for info in self._infos)

    def submit(self, candidate: Candidate) -> Future[Measurement]:
        """Queues a candidate; its file is written while the device is busy with the one before."""
        return self._pool.submit(lambda: tflite_model(candidate.network, self._precision), self.spec)

    def measure_file(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        """Measures a TFLite file, for models that are delivered rather than probed."""
        return self._pool.submit(model, spec).result()

    def on_drift(self, listener: Callable[[float], None]) -> None:
        """Has a function told when a device drifted: the time (`time.time()`) since which answers are suspect."""
        self._listeners.append(listener)

    def close(self) -> None:
        """Closes the devices."""
        self._pool.close()

    def _tell_drift(self, since_s: float) -> None:
        for listener in self._listeners:
            listener(since_s)
