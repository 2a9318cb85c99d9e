"""An agent around an agent: what it measures is compiled for the device first.

CompilingAgent(agent, compiler).measure(model) -> agent.measure(what the compiler made of it)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from device_agents.api import BenchmarkSpec, DeviceAgent, DeviceInfo, Measurement, MeasureRequest, Verdict
from device_agents.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class CompiledModel:
    """What a compiler made of a model.

    Attributes:
        file: What the device runs; None where there is nothing that it may be asked to run.
        verdict: On a model without a file: `compile_failed`, or `fallback` for one that the device would run in part.
        detail: Why.
    """

    file: bytes | None
    verdict: Verdict = Verdict.OK
    detail: str = ""


class Compiler(ABC):
    """What turns a TFLite file into one that a device runs."""

    @abstractmethod
    def compiled(self, model: bytes) -> CompiledModel:
        """Compiles a model; one that needs no compiling is its own file.

        Raises:
            DeviceError: If the compiler itself is missing or does not work.
        """


class CompilingAgent(DeviceAgent):
    """Measures what a compiler makes of models.

    Args:
        agent: The device; closed with this one.
        compiler: Is asked once for each model of a request, so it should remember what it made.
    """

    def __init__(self, agent: DeviceAgent, compiler: Compiler) -> None:
        self._agent, self._compiler = agent, compiler
        self.recorded, self.rounds_at_once = agent.recorded, agent.rounds_at_once

    def info(self) -> DeviceInfo:
        """See `DeviceAgent`."""
        return self._agent.info()

    def measure(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        """See `DeviceAgent`; a model that is not compiled as a whole has no latency."""
        made = self._compiler.compiled(model)
        return _refusal(made) if made.file is None else self._agent.measure(made.file, spec)

    def measure_all(self, requests: Sequence[MeasureRequest]) -> list[Measurement]:
        """See `DeviceAgent`."""
        made = {model: self._compiler.compiled(model) for model in {model for model, _ in requests}}
        files = [(file, spec) for model, spec in requests if (file := made[model].file) is not None]
        measured = iter(self._agent.measure_all(files) if files else [])
        return [_refusal(made[model]) if made[model].file is None else next(measured) for model, _ in requests]

    def run(self, model: bytes, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """See `DeviceAgent`."""
        made = self._compiler.compiled(model)
        if made.file is None:
            raise ModelError(made.detail, made.verdict.value)
        return self._agent.run(made.file, inputs)

    def take_examples(self, examples: NDArray[Any]) -> str:
        """See `DeviceAgent`."""
        return self._agent.take_examples(examples)

    def cores(self, kind: str) -> tuple[int, ...]:
        """See `DeviceAgent`."""
        return self._agent.cores(kind)

    def close(self) -> None:
        """See `DeviceAgent`."""
        self._agent.close()


def _refusal(made: CompiledModel) -> Measurement:
    return Measurement(made.verdict, made.detail)
