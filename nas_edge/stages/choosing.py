"""Another network of a search than its winner, delivered later: usually one of its Pareto front.

What is delivered lies in a run folder of its own, `RUN/delivered/NAME` by default, so that it can be stopped,
continued, reported and exported like any other:

    config.json           the settings of the search, with those that were changed for the delivery
    stages/chosen.json    which architecture of which run it is, and what that run knew of it
    winner/, bundle/, result.json, report/ ...    as in any run
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nas_edge.config import RunConfig, load_config
from nas_edge.errors import ConfigError
from nas_edge.latency.source import Candidate
from nas_edge.networks.graph import NetworkSpec, Weights
from nas_edge.runs.reselect import CHOSEN, candidates_of
from nas_edge.runs.result import RunResult
from nas_edge.runs.run import Run, RunFolderError, differing_settings
from nas_edge.search.trials import Trial
from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.stages.contender import Contender
from nas_edge.stages.context import RunContext
from nas_edge.stages.delivering import deliver
from nas_edge.stages.searching import make_loop

# What may differ from the search: how the network is trained, delivered and measured, not what it is or learns from.
_MAY_DIFFER = ("device.", "export.", "final_measure.", "measure.", "runs.", "target.", "training.", "data.workers")


@dataclass(frozen=True)
class Choice:
    """An architecture of a run.

    Attributes:
        run: that searched.
        architecture: canonical.
        quality: as the run scored it; None where it was not evaluated.
        latency_ms: as the run knows it; likewise.
    """

    run: Run
    architecture: Architecture
    quality: float | None
    latency_ms: float | None

    @property
    def folder(self) -> Path:
        """Where it is delivered, if nothing else is asked for. An architecture's text may be too long for a name."""
        return self.run.path("delivered") / hashlib.sha256(str(self.architecture).encode()).hexdigest()[:12]

    def to_json(self) -> dict[str, Any]:
        """As the delivery keeps it."""
        known = {"quality": self.quality, "latency_ms": self.latency_ms}
        return {
            "schema_version": 1,
            "run": self.run.folder.resolve().name,
            "architecture": str(self.architecture),
            **known,
        }


def choose(run: Run, space: SearchSpace, text: str) -> Choice:
    """An architecture of a run, with what its journals know.

    Raises:
        SpaceError: when it is none of the space.
        RunError: when a journal is damaged.
    """
    architecture = space.canonical(space.parse(text))
    known = candidates_of(run).find(architecture)
    if known is None:
        return Choice(run, architecture, None, None)
    return Choice(run, architecture, known.quality, known.latency_ms)


@contextmanager
def open_delivery(
    choice: Choice, folder: Path, target_ms: float | None, change: Callable[[RunConfig], RunConfig]
) -> Iterator[tuple[Run, RunConfig]]:
    """Yields the folder of a delivery, new or continued, with its lock held, and the settings to go on with.

    Args:
        choice: what is delivered.
        folder: where to.
        target_ms: a limit for it; None for none.
        change: returns the settings of the delivery, given those of the search, or of the delivery so far.

    Raises:
        ConfigError: when a setting may not differ.
        RunError: when the folder holds something else, is finished or in use.
    """
    if not (folder / "config.json").exists():
        config = _settings(choice, target_ms, change)
        with Run.create(folder, config) as run:
            run.once(CHOSEN, choice.to_json)
            yield run, config
        return
    run = Run.open(folder)
    if run.once(CHOSEN, choice.to_json).get("architecture") != str(choice.architecture):
        raise RunFolderError(f"{folder} holds the delivery of another architecture", fix="choose another --out")
    if run.finished:
        raise RunFolderError(
            f"{choice.architecture} is delivered already: its bundle is {run.path('bundle')}",
            fix="to deliver it anew, name a new folder with --out",
        )
    with run.lock():
        if target_ms is not None:  # nothing that was done so far depends on it
            limit = {"target.latency_ms": target_ms, "target.limit": "hard"}
            run.write_config(load_config(flags=limit, base=run.config))
        config = change(run.config)
        run.changed_settings(config)
        yield run, config


def _settings(choice: Choice, target_ms: float | None, change: Callable[[RunConfig], RunConfig]) -> RunConfig:
    """The settings of a new delivery. Where no limit is given, the search's target is shown, and is none."""
    base = choice.run.config
    config = change(base)
    if config.device.targets and target_ms is not None:
        raise ConfigError("each device has a target of its own (device.targets)", fix="leave out --target-ms")
    aimed_ms = target_ms or choice.run.target_ms or choice.latency_ms
    if aimed_ms is None:
        raise ConfigError(
            f"{choice.run.folder} has no target yet, nor a latency of this architecture", fix="name a --target-ms"
        )
    flags: dict[str, Any] = {"target.limit": "none" if target_ms is None else "hard"}
    if not config.device.targets:
        flags["target.latency_ms"] = aimed_ms
    config = load_config(flags=flags, base=config)
    check_delivery(base, config)
    return config


def check_delivery(searched: RunConfig, config: RunConfig) -> None:
    """Refuses settings of a delivery that cannot differ from those of the search.

    Raises:
        ConfigError: when there are some.
    """
    if fixed := [path for path in differing_settings(searched, config) if not path.startswith(_MAY_DIFFER)]:
        may = ", ".join(f"{prefix}*" if prefix.endswith(".") else prefix for prefix in _MAY_DIFFER)
        raise ConfigError(f"{', '.join(fixed[:5])} cannot differ from the search; what may: {may}")


def deliver_choice(context: RunContext, choice: Choice) -> RunResult:
    """Trains, converts, measures and bundles an architecture that was chosen.

    Args:
        context: of the delivery.
        choice: what is delivered.

    Raises:
        ConfigError: when its training is to start from shared weights that the search does not have.
        TrainingError, ExportError, RunError, DeviceError: see there.
    """
    design = context.space.build(choice.architecture)
    network, latency = design.needed_network(), None
    if not context.bench.measures_candidates:
        latency = context.bench.latency_source.submit(Candidate(design, choice.architecture)).result()
    trial = Trial(0, 0, choice.architecture, choice.quality, latency, None, None)
    # What was trained before an interruption needs no weights to start from.
    starts = context.config.export.weights == "shared" and not context.run.path("winner/weights.npz").exists()
    initial = _shared_weights(context, choice.run, network) if starts else None
    contender = Contender("winner", str(choice.architecture), choice.quality, network, initial)
    return deliver(context, _target_ms(context), trial, [contender])


def _target_ms(context: RunContext) -> float:
    if context.bench.parts:
        return context.bench.parts[0].target_ms
    assert context.config.target.latency_ms is not None
    return context.config.target.latency_ms


def _shared_weights(context: RunContext, searched: Run, network: NetworkSpec) -> Weights:
    """The network's part of the weights that the search ended with, or has so far."""
    checkpoint = searched.checkpoints.load(context.reporter.say)
    if checkpoint is None:
        raise ConfigError(f"{searched.folder} has no checkpoint with shared weights", fix="use --weights scratch")
    loop = make_loop(replace(context, run=searched), context.bench.latency_source, _target_ms(context))
    loop.restore_arrays(checkpoint.arrays)
    return loop.weights_of(network)
