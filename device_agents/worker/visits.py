"""Visits: models stay loaded and are timed in turns, each for a moment.

A visit is one discarded run, which brings the model back into the caches, and then as many timed runs as its settings
ask for. A model that is not loaded yet is loaded and run a first time before that.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Callable, Iterable, Iterator

from . import system
from .energy import EnergyMeter
from .feeding import Examples, FedModel
from .limits import limited_memory, pinned, return_free_memory
from .measure import CandidateError, Outcome, failures_of, load, metered, no_garbage_collection, time_runs
from .runtime import Runtime
from .spec import BenchmarkSpec

# What stays loaded: models of so many bytes in all, and so many of them. Their tensors take some multiple of that.
MAX_LOADED_BYTES = 256 << 20
MAX_LOADED_MODELS = 48

AnnounceModel = Callable[[str, int], None]
"""Is told the stage ("load", "run") and the model's position before it begins."""


@dataclass(frozen=True)
class VisitedModel:
    """A model of a request.

    Attributes:
        key: Tells it and how it is run from all others.
        data: Its TFLite file, None if it is said to be loaded.
        spec: How it is visited.
        examples: What it is run on; None for random values.
    """

    key: str
    data: bytes | None
    spec: BenchmarkSpec
    examples: Examples | None = None


@dataclass
class _Loaded:
    model: FedModel
    size_bytes: int
    peak_memory_bytes: int | None


class Visitor:
    """Keeps models loaded and visits them.

    Args:
        runtime: What runs them.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._loaded: OrderedDict[str, _Loaded] = OrderedDict()
        self._known_meter: EnergyMeter | None = None

    @property
    def loaded(self) -> list[str]:
        """The keys of the models that are loaded."""
        return list(self._loaded)

    def visit(self, models: list[VisitedModel], order: Iterable[int], announce: AnnounceModel) -> Iterator[Outcome]:
        """Visits models in the given order, and yields what happened in each visit.

        A model that fails is reported in each of its visits, and not run again. What is no longer needed is unloaded
        afterwards.

        Raises:
            OSError: If the cores in the settings cannot be used.
            KeyError: If a model that is said to be loaded is not.
        """
        failed: dict[int, Outcome] = {}
        with no_garbage_collection():
            for position in order:
                outcome = failed.get(position) or self._visit(models[position], position, announce)
                if outcome.failure is not None:
                    failed[position] = outcome
                yield outcome
        self._make_room()

    def _visit(self, model: VisitedModel, position: int, announce: AnnounceModel) -> Outcome:
        outcome = Outcome()
        with pinned(model.spec.cores):
            waited_s = system.wait_s()
            try:
                if model.key not in self._loaded:
                    self._load(model, position, announce, outcome)
                self._loaded.move_to_end(model.key)
                announce("run", position)
                with failures_of("run"):
                    # Also of a model that was loaded for an earlier request.
                    outcome.peak_memory_bytes = self._loaded[model.key].peak_memory_bytes
                    loaded = self._loaded[model.key].model
                    outcome.inputs = loaded.inputs
                    discarded_ms = loaded.invoke_ms()
                    with metered(self._meter(model.spec), outcome):
                        time_runs(loaded, model.spec, outcome.samples_ms)
                outcome.warmup_runs = 1
                outcome.busy_s += (discarded_ms + sum(outcome.samples_ms)) / 1e3
            except CandidateError as failure:
                outcome.failure = failure.report
                self._loaded.pop(model.key, None)
            outcome.waited_s = _since(waited_s)
        return outcome

    def _meter(self, spec: BenchmarkSpec) -> EnergyMeter | None:
        if spec.energy and self._known_meter is None:
            self._known_meter = EnergyMeter(accelerator=self._runtime.accelerator is not None)
        return self._known_meter if spec.energy else None

    def _load(self, model: VisitedModel, position: int, announce: AnnounceModel, outcome: Outcome) -> None:
        if model.data is None:
            raise KeyError(model.key)
        return_free_memory()
        can_reset_peak = system.reset_peak_memory()
        resident_before = system.memory_bytes("VmRSS")
        with limited_memory(model.spec.memory_limit_bytes):
            announce("load", position)
            with failures_of("load"):
                interpreter = load(self._runtime, model.data, model.spec, outcome)
            announce("run", position)
            with failures_of("run"):
                fed = FedModel(interpreter, model.examples)
                outcome.first_inference_ms = fed.invoke_ms()
        outcome.busy_s += outcome.first_inference_ms / 1e3
        peak_bytes = system.memory_bytes("VmHWM") if can_reset_peak else None
        growth_bytes = None if peak_bytes is None or resident_before is None else max(0, peak_bytes - resident_before)
        self._loaded[model.key] = _Loaded(fed, len(model.data), growth_bytes)

    def _make_room(self) -> None:
        while len(self._loaded) > MAX_LOADED_MODELS or (
            len(self._loaded) > 1 and sum(one.size_bytes for one in self._loaded.values()) > MAX_LOADED_BYTES
        ):
            self._loaded.popitem(last=False)


def _since(waited_s: float | None) -> float | None:
    now_s = system.wait_s()
    return None if waited_s is None or now_s is None else max(0.0, now_s - waited_s)
