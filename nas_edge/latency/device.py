"""Latency measured on devices: every candidate is written as TFLite and run there."""

from __future__ import annotations

from concurrent.futures import Future

from device_agents.api import BenchmarkSpec, DeviceInfo, Measurement
from device_agents.pool import DevicePool
from nas_edge.latency.source import Candidate, LatencySource
from nas_edge.networks.tflite_model import Precision, tflite_model


class DeviceSource(LatencySource):
    """Measures candidates on a pool of interchangeable devices, which it closes.

    Args:
        pool: devices of one kind.
        precision: `int8` or `float32`: what will be delivered is what is measured.
        spec: how to measure.
    """

    def __init__(self, pool: DevicePool, precision: Precision, spec: BenchmarkSpec) -> None:
        self._pool, self._precision, self.spec = pool, precision, spec
        self._infos = tuple(status.info for status in pool.status())

    @property
    def name(self) -> str:
        """The devices' model."""
        return self._infos[0].model

    @property
    def info(self) -> DeviceInfo:
        """What the devices are."""
        return self._infos[0]

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

    def close(self) -> None:
        """Closes the pool and its devices."""
        self._pool.close()
