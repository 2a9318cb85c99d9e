"""Other targets, and other devices, answered from what a run knows: nothing is trained again.

    model   its predictions for every architecture of which the run knows a quality; the best of those whose whole
            interval is below the target
    device  a model of the run's own measurements is brought to the device by ten that are measured there, and predicts
            the others; in the order of quality, those that may meet the target are measured, until one does

What is measured is called measured, and what is not, predicted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from nas_edge.errors import ConfigError
from nas_edge.latency import LATENCY_SOURCES
from nas_edge.latency.answer import LatencyAnswer, LatencyKind
from nas_edge.latency.model_file import read_model
from nas_edge.latency.model_source import ModelSettings, predicted
from nas_edge.latency.models.adapted import adapt
from nas_edge.latency.models.choosing import choose_model
from nas_edge.latency.models.predictor import Predictor
from nas_edge.latency.models.subject import Observation, Subject, subject_of_architecture
from nas_edge.latency.retry import RetryingSource
from nas_edge.latency.source import Candidate as Asked
from nas_edge.latency.source import LatencySource
from nas_edge.pipeline import same_data
from nas_edge.progress import Reporter
from nas_edge.runs.reselect import Candidate, candidates_of
from nas_edge.runs.run import Run, RunFolderError
from nas_edge.search.trials import Trial
from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.stages.context import make_space, open_devices, open_task, timing_inputs
from nas_edge.tasks.base import Task, TaskData
from nas_edge.text import answer_text

# Measured on another device to bring the model there, and then for each target, at most.
_TO_ADAPT, _PER_TARGET = 10, 6


@dataclass(frozen=True)
class Choice:
    """An architecture of a run with its latency somewhere else.

    Attributes:
        candidate: with what the run knows of its quality.
        answer: its latency there, and how that is known.
    """

    candidate: Candidate
    answer: LatencyAnswer

    @property
    def upper_ms(self) -> float:
        """The upper end of its interval."""
        assert self.answer.best_ms is not None
        return self.answer.best_ms if self.answer.interval_ms is None else self.answer.interval_ms[1]


@dataclass(frozen=True)
class Reselection:
    """What became of some targets.

    Attributes:
        where: what the latencies are of.
        choices: by target, in ms; None where nothing meets it.
        fastest: of all that was looked at.
    """

    where: str
    choices: Mapping[float, Choice | None]
    fastest: Choice | None


def reselect_by_model(folder: Path, targets_ms: Sequence[float], latency: str, reporter: Reporter) -> Reselection:
    """Answers targets by what a model predicts.

    Args:
        folder: of the run.
        targets_ms: latencies to meet.
        latency: `model:FILE`.
        reporter: what the user sees.

    Raises:
        ConfigError: when it names no model, or one that does not know the run's networks.
        RunError: when the run cannot be read, or has nothing to choose from.
    """
    settings = LATENCY_SOURCES.settings(latency)
    if not isinstance(settings, ModelSettings):
        raise ConfigError("--latency of select names a model", expected="model:FILE", received=latency)
    known = _known(folder, reporter)
    path = Path(settings.file).expanduser()
    file = read_model(path)
    file.check_use(path.name, known.space, known.run.config.export.precision)

    def choice_of(candidate: Candidate) -> Choice:
        return Choice(candidate, predicted(file, path.name, known.subject(candidate.architecture)))

    found = [[choice for choice in map(choice_of, group) if choice.answer.ok] for group in known.groups]
    if not any(found):
        raise ConfigError(f"{path.name} knows none of the architectures of {folder}", fix="fit one for this space")
    choices = {target_ms: _best_within(found, target_ms) for target_ms in targets_ms}
    return Reselection(
        f"{path.name}, of {file.provenance.device or 'an unnamed device'}",
        choices,
        _fastest(chain.from_iterable(found)),
    )


def reselect_on_device(folder: Path, targets_ms: Sequence[float], address: str, reporter: Reporter) -> Reselection:
    """Answers targets on another device, by measuring a few architectures there.

    Args:
        folder: of the run.
        targets_ms: latencies to meet.
        address: of the device.
        reporter: what the user sees.

    Raises:
        RunError: when the run cannot be read, or has nothing to choose from.
        DeviceError: when the device fails.
    """
    known = _known(folder, reporter)
    config = known.run.config
    if not known.task.delivers:
        raise RunFolderError(f"{folder} searched a table of results: no device can measure its architectures")
    alone = config.device.model_copy(update={"addresses": (address,), "targets": ()})
    config = config.model_copy(update={"device": alone})
    with open_devices(config, inputs=timing_inputs(config, known.data)) as device:
        asking = _Asking(known, RetryingSource(device), reporter)
        model = _adapted(known, asking, reporter)
        choices = {target_ms: asking.best_within(model, target_ms) for target_ms in targets_ms}
        return Reselection(device.name, choices, _fastest(chain.from_iterable(map(asking.choices, known.groups))))


@dataclass(frozen=True)
class _Known:
    """What a run knows.

    Attributes:
        run: that searched.
        task: of it.
        data: likewise.
        space: likewise.
        groups: architectures of which it knows latency and quality, the most accurate first; those known better in a
            group before the others.
    """

    run: Run
    task: Task
    data: TaskData | None
    space: SearchSpace
    groups: tuple[tuple[Candidate, ...], ...]

    def subject(self, architecture: Architecture) -> Subject:
        """What a model is told of an architecture."""
        return subject_of_architecture(self.space, architecture)


def _known(folder: Path, reporter: Reporter) -> _Known:
    run = Run.open(folder)
    task = open_task(run.config)
    data = same_data(run.config, task, reporter)
    found = candidates_of(run)
    groups = [sorted(group, key=lambda one: -one.quality) for group in (found.finalists, found.candidates) if group]
    if not groups:
        raise RunFolderError(f"{folder} has no trial with a latency and a quality yet")
    return _Known(run, task, data, make_space(run.config, task, data), tuple(map(tuple, groups)))


def _best_within(groups: Sequence[Sequence[Choice]], target_ms: float) -> Choice | None:
    """The most accurate of the first group that has one whose interval is below the target; the faster of equals."""
    for group in groups:
        meeting = [choice for choice in group if choice.upper_ms <= target_ms]
        if meeting:
            return max(meeting, key=lambda choice: (choice.candidate.quality, -(choice.answer.best_ms or 0.0)))
    return None


def _fastest(choices: Iterable[Choice]) -> Choice | None:
    return min(choices, key=lambda choice: choice.answer.best_ms or 0.0, default=None)


class _Asking:
    """Measures architectures of a run, each once."""

    def __init__(self, known: _Known, source: LatencySource, reporter: Reporter) -> None:
        self._known, self._source, self._reporter = known, source, reporter
        self._answers: dict[Architecture, LatencyAnswer] = {}

    def measure(self, architectures: Sequence[Architecture]) -> list[LatencyAnswer]:
        """Their latencies; those that are asked for together are measured side by side."""
        new = [one for one in dict.fromkeys(architectures) if one not in self._answers]
        asked = [self._source.submit(Asked(self._known.space.build(one), one)) for one in new]
        for architecture, future in zip(new, asked, strict=True):
            self._answers[architecture] = future.result()
            self._reporter.say(f"{answer_text(self._answers[architecture])}: {architecture}")
        return [self._answers[one] for one in architectures]

    def choices(self, candidates: Sequence[Candidate]) -> list[Choice]:
        """Those that were measured, and have a latency to rely on."""
        answers = [(candidate, self._answers.get(candidate.architecture)) for candidate in candidates]
        return [Choice(candidate, answer) for candidate, answer in answers if answer is not None and answer.ok]

    def best_within(self, model: Predictor | None, target_ms: float) -> Choice | None:
        """The most accurate that is measured to meet a target; of those that may, a few are measured."""
        for group in self._known.groups:
            left = _PER_TARGET
            for candidate in self._likely(group, model, target_ms):
                if candidate.architecture not in self._answers:
                    if not left:
                        break
                    left -= 1
                (answer,) = self.measure([candidate.architecture])
                if answer.ok and Choice(candidate, answer).upper_ms <= target_ms:
                    return Choice(candidate, answer)
            if found := _best_within([self.choices(group)], target_ms):
                return found
        return None

    def _likely(self, group: Sequence[Candidate], model: Predictor | None, target_ms: float) -> list[Candidate]:
        """Those that may meet a target, the most accurate first; all without a model."""
        if model is None:
            return list(group)
        latencies_ms = model.predict([self._known.subject(one.architecture) for one in group]).latency_ms
        return [one for one, ms in zip(group, latencies_ms, strict=True) if not ms > target_ms]


def _adapted(known: _Known, asking: _Asking, reporter: Reporter) -> Predictor | None:
    """A model of the device: that of the run's own measurements, and ten of the device; None where these do not do."""
    measured: dict[Architecture, LatencyAnswer] = {}
    for trial in map(Trial.from_json, known.run.journal()):
        if trial.latency is not None and trial.latency.ok and trial.latency.kind is LatencyKind.MEASURED:
            measured[trial.architecture] = trial.latency
    latencies_ms = {one.architecture: one.latency_ms for group in known.groups for one in group}
    fastest_first = sorted(latencies_ms, key=lambda architecture: latencies_ms[architecture])
    spread = np.linspace(0, len(fastest_first) - 1, min(_TO_ADAPT, len(fastest_first))).round().astype(int).tolist()
    picked = [fastest_first[place] for place in dict.fromkeys(spread)]
    reporter.say(f"measuring {len(picked)} architectures of the run, to know the device")
    answers = zip(picked, asking.measure(picked), strict=True)
    observations = [Observation.of(known.subject(one), answer) for one, answer in answers if answer.ok]
    subjects = {one: known.subject(one) for one in measured}
    try:
        source = choose_model([Observation.of(subjects[one], answer) for one, answer in measured.items()]).model
        return adapt(source, observations, list(subjects.values()))  # type: ignore[arg-type]
    except (ConfigError, ValueError) as error:
        reporter.say(f"nothing is predicted, so more is measured: {error}")
        return None
