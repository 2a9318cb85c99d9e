"""Latency measured on devices: every candidate is written as TFLite and run there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any

from device_agents.api import BenchmarkSpec, DeviceAgent, DeviceInfo, Measurement, MeasureRequest
from device_agents.floors import FloorStore, default_floors
from device_agents.pool import DevicePool, DeviceStatus, PoolSettings
from device_agents.probe_watch import REFERENCE, Probe, ProbeState
from device_agents.quiet import VisitSettings
from device_agents.visiting import VisitingAgent, builtin_probes
from nas_edge.errors import ConfigError
from nas_edge.latency.answer import LatencyAnswer
from nas_edge.latency.cache import MeasuringKey
from nas_edge.latency.source import Candidate, LatencySource, resolve
from nas_edge.networks.graph import NetworkSpec
from nas_edge.networks.precisions import Precision
from nas_edge.networks.tflite_model import tflite_model
from nas_edge.spaces.design import Design

if TYPE_CHECKING:
    from numpy.typing import NDArray


class DeviceSource(LatencySource):
    """Measures candidates on interchangeable devices, in visits; each device is watched by probes.

    A search cannot take back what it has learnt, so answers are given at once and a drift found later is told to
    `on_drift`; see `device_agents.visiting`.

    Args:
        agents: interchangeable devices; closed with the source.
        precision: `int8` or `float32`: what will be delivered is what is measured.
        spec: how to measure.
        settings: of the pool; how long it waits for a device that is away, for example.
        reference: a network of the kind that is measured, which tells how quiet the devices are; None for none.
        measuring: precision and spec for a design, if designs decide these; None: the same for all.

    Raises:
        ConfigError: when the devices differ; they are closed then.
        DeviceError: when one cannot be reached.
    """

    def __init__(
        self,
        agents: Sequence[DeviceAgent],
        precision: Precision,
        spec: BenchmarkSpec,
        settings: PoolSettings | None = None,
        reference: NetworkSpec | None = None,
        measuring: Callable[[Design], tuple[Precision, BenchmarkSpec]] | None = None,
    ) -> None:
        self._precision, self.spec = precision, spec
        self._measuring = measuring or (lambda design: (precision, spec))
        self._listeners: list[Callable[[float], None]] = []
        floors = FloorStore(default_floors())
        of_kind = [] if reference is None else [Probe(REFERENCE, tflite_model(reference, precision))]
        self._agents = [
            VisitingAgent(agent, probes=[*builtin_probes(), *of_kind], floors=floors, on_drift=self._tell_drift)
            for agent in agents
        ]
        self._pool = DevicePool(self._agents, settings or PoolSettings())
        self._infos = tuple(status.info for status in self._pool.status())
        kinds = {(info.fingerprint, info.runtime, info.runtime_version): info for info in self._infos}
        if len(kinds) > 1:
            self._pool.close()
            listed = ", ".join(
                f"{i.address}: {i.model}, {i.os}, {i.runtime} {i.runtime_version}" for i in kinds.values()
            )
            raise ConfigError(
                "the devices of one search must be interchangeable, since its latencies are compared",
                fix=f"name devices of one model and runtime, or search on each: {listed}",
            )

    @property
    def name(self) -> str:
        """The devices' model."""
        return self._infos[0].model

    @property
    def agent(self) -> DeviceAgent:
        """One of the devices, for what can be asked of any."""
        return self._agents[0]

    @property
    def info(self) -> DeviceInfo:
        """What the devices are."""
        return self._infos[0]

    def status(self) -> list[DeviceStatus]:
        """What each device is doing at the moment."""
        return self._pool.status()

    @property
    def queued(self) -> int:
        """Candidates that wait for a device."""
        return self._pool.queued

    @property
    def key(self) -> MeasuringKey:
        """What else than the network decides about a latency."""
        runtime = f"{self.info.runtime} {self.info.runtime_version}"
        settings = f"{self.spec.settings_hash} {VisitSettings().digest}"
        return MeasuringKey(self._precision, self.info.fingerprint, runtime, settings)

    @property
    def measures_on_host(self) -> bool:
        """Whether one of them is this machine."""
        return any(info.measures_on_host for info in self._infos)

    def submit(self, candidate: Candidate) -> Future[LatencyAnswer]:
        """Queues a candidate; its file is written while the device is busy with the one before."""
        network = candidate.network
        precision, spec = self._measuring(candidate.design)
        future: Future[LatencyAnswer] = Future()
        asked = self._pool.submit(lambda: tflite_model(network, precision), spec)
        asked.add_done_callback(lambda done: resolve(future, _answer(done)))
        return future

    def measure_file(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        """Measures a TFLite file, for models that are delivered rather than probed."""
        return self._pool.submit(model, spec).result()

    def measure_files(self, files: Sequence[MeasureRequest]) -> list[Measurement]:
        """Measures TFLite files side by side."""
        asked = [self._pool.submit(model, spec) for model, spec in files]
        return [future.result() for future in asked]

    def probe_states(self) -> list[ProbeState]:
        """How the probes of each device stand."""
        return [state for agent in self._agents for state in agent.probe_states()]

    def run_file(self, model: bytes, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Runs a TFLite file once and returns its outputs; see `DeviceAgent.run`."""
        return self._pool.run(model, inputs).result()

    def on_drift(self, listener: Callable[[float], None]) -> None:
        """Has a function told when a device drifted: the time (`time.monotonic()`) since which answers are suspect."""
        self._listeners.append(listener)

    def close(self) -> None:
        """Closes the devices."""
        self._pool.close()

    def _tell_drift(self, since_s: float) -> None:
        for listener in self._listeners:
            listener(since_s)


def _answer(done: Future[Measurement]) -> LatencyAnswer | BaseException:
    if done.cancelled():
        return CancelledError("the measurement was cancelled, because its device was closed")
    return done.exception() or LatencyAnswer.measured(done.result())
