"""A device that is asked again: what a pool does for a search, for those who measure one model after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from device_agents.api import BenchmarkSpec, DeviceAgent, DeviceInfo, Measurement, MeasureRequest
from device_agents.pool import DevicePool, PoolSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Somebody waits for the result: a phone may take half a minute to come back, not as long as a search would wait.
PATIENT = PoolSettings(lost_after_s=30.0, together=1000)


class PatientAgent(DeviceAgent):
    """An agent around an agent, which it closes: one whose device is lost or fails is asked again.

    A model that its device is lost with, or fails with, each time is a verdict in the end; a device that does not come
    back is an error. See `pool`.

    Args:
        agent: The device.
        settings: How long it is waited for.

    Raises:
        DeviceError: If the device cannot be reached; it is closed then.
    """

    def __init__(self, agent: DeviceAgent, settings: PoolSettings = PATIENT) -> None:
        self._agent = agent
        self.recorded, self.rounds_at_once = agent.recorded, agent.rounds_at_once
        try:
            self._pool = DevicePool([agent], settings)
        except BaseException:
            agent.close()
            raise

    def info(self) -> DeviceInfo:
        """Returns what the device said when it was first asked."""
        return self._pool.status()[0].info

    def measure(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        """See `DeviceAgent`; raises DeviceUnavailableError if the device is gone and does not come back."""
        return self._pool.submit(model, spec).result()

    def measure_all(self, requests: Sequence[MeasureRequest]) -> list[Measurement]:
        """See `DeviceAgent`; raises DeviceUnavailableError if the device is gone and does not come back."""
        return [future.result() for future in self._pool.submit_all(requests)]

    def take_examples(self, examples: NDArray[Any]) -> str:
        """See `DeviceAgent`."""
        return self._agent.take_examples(examples)

    def cores(self, kind: str) -> tuple[int, ...]:
        """See `DeviceAgent`."""
        return self._agent.cores(kind)

    def run(self, model: bytes, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """See `DeviceAgent`."""
        return self._pool.run(model, inputs).result()

    def close(self) -> None:
        """See `DeviceAgent`."""
        self._pool.close()
