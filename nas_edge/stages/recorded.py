"""A search whose every step is on disk, so that it can be stopped at any moment and continued bit-identically.

    step -> its trials into the journal -> every so many steps: journal flushed, checkpoint written

Continuing starts from the last checkpoint. The journal may be ahead of it: those steps are made again, with the
latencies the journal holds instead of new ones, and their trials, which come out the same, are not written again. So no
trial is lost or doubled, and no device is asked twice for what it answered.

They come out otherwise only when something was changed in between: settings, versions of packages, the machine. Then
the journal is cut where it differs, and that is said.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import nullcontext

import numpy as np

from nas_edge.errors import RunError, StoppedError
from nas_edge.latency.answer import LatencyAnswer
from nas_edge.latency.source import Candidate, LatencySource, RewardAt, SourceWrapper, resolve
from nas_edge.runs.checkpoints import Checkpoint, Checkpoints
from nas_edge.runs.interrupts import StopSignals
from nas_edge.runs.journal import Journal
from nas_edge.search.loop import SearchLoop, StepReport
from nas_edge.search.trials import Trial
from nas_edge.spaces.decisions import Architecture


class RecordedSearch:
    """Runs a search and keeps it.

    Args:
        loop: as it is before its first step; brought to where the run is.
        journal: open for writing.
        checkpoints: of the same run.
        checkpoint_steps: steps between checkpoints.
        say: is told what a user should know.

    Raises:
        RunError: when journal and checkpoints do not fit the search, or each other.
    """

    def __init__(
        self,
        loop: SearchLoop,
        journal: Journal,
        checkpoints: Checkpoints,
        checkpoint_steps: int,
        say: Callable[[str], object],
    ) -> None:
        self.loop, self._journal, self._checkpoints = loop, journal, checkpoints
        self._checkpoint_steps, self._say = checkpoint_steps, say
        checkpoint = checkpoints.load(say)
        count = 0 if checkpoint is None else int(checkpoint.state["trials"])
        if count > len(journal):
            raise RunError(
                f"{journal.path} holds {len(journal)} trials, and the checkpoint of step "
                f"{checkpoint and checkpoint.step} was written after {count}",
                fix="restore the journal from a copy",
            )
        found = journal.read(Trial.from_json)
        self.trials = found[:count]
        self._ahead = deque(trial.to_json() for trial in found[count:])  # as this version writes them
        loop.evaluator.latency = _Remembering(loop.evaluator.latency, found[count:])
        loop.remember(found)
        for trial in self.trials:
            loop.evaluator.take(trial)
        if checkpoint is not None:
            loop.restore_arrays(checkpoint.arrays)
            loop.restore(checkpoint.state["search"])

    def run(self, on_step: Callable[[StepReport], object] | None = None, stop: StopSignals | None = None) -> None:
        """Makes the remaining steps.

        Raises:
            StoppedError: after a step, when `stop` was requested; a checkpoint was written.
            TrainingError, RunError, DeviceError: see `SearchLoop.run`; also RunError when the run cannot be written.
        """
        steps = self.loop.steps
        with nullcontext() if stop is None else stop.held():
            while self.loop.step < steps:
                report = self.loop.take_step()
                for trial in report.trials:
                    self._record(trial)
                stopping = stop is not None and stop.requested
                if on_step is not None:  # before the checkpoint, after which the step would not be made again
                    on_step(report)
                if stopping or self.loop.step % self._checkpoint_steps == 0 or self.loop.step == steps:
                    self.checkpoint()
                if stopping:
                    raise StoppedError(f"stopped after step {self.loop.step} of {steps}")

    def checkpoint(self) -> None:
        """Writes the state after the last step.

        Raises:
            TrainingError: when weights are no longer numbers; the checkpoints before are of weights that are.
            RunError: when it cannot be written.
        """
        snapshot = self.snapshot()
        self._journal.sync()
        self._checkpoints.save(snapshot)

    def snapshot(self) -> Checkpoint:
        """The state after the last step.

        Raises:
            TrainingError: when weights are no longer numbers.
        """
        arrays = self.loop.arrays()
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise self.loop.diverged(f"{name} holds values that are not numbers")
        state = {"trials": len(self.trials), "search": self.loop.state()}
        return Checkpoint(self.loop.step, state, arrays)

    def _record(self, trial: Trial) -> None:
        record = trial.to_json()
        if self._ahead and self._ahead.popleft() != record:
            self._say(
                f"trial {len(self.trials)} of {self._journal.path} came out otherwise than before, because settings, "
                f"packages or the machine changed; it and the {len(self._ahead)} after it are replaced"
            )
            self._ahead.clear()
            self._journal.cut(len(self.trials))
        if len(self.trials) == len(self._journal):
            self._journal.append(record)
        self.trials.append(trial)


class _Remembering(SourceWrapper):
    """Answers first with what the journal holds of a candidate's step, then asks the source.

    A step's trials have their answers as they were confirmed. Proposals that waited for their latencies when the
    checkpoint was written have been submitted before it, and are confirmed after it; so both are counted apart.
    """

    def __init__(self, source: LatencySource, trials: Iterable[Trial]) -> None:
        super().__init__(source)
        self._to_submit: dict[tuple[int | None, Architecture | None], deque[LatencyAnswer]] = {}
        self._to_confirm: dict[tuple[int | None, Architecture | None], deque[LatencyAnswer]] = {}
        for trial in trials:
            if trial.latency is not None:
                for answers in (self._to_submit, self._to_confirm):
                    answers.setdefault((trial.step, trial.architecture), deque()).append(trial.latency)

    def submit(self, candidate: Candidate) -> Future[LatencyAnswer]:
        """See `LatencySource`."""
        known = self._to_submit.get((candidate.step, candidate.architecture))
        if not known:
            return self._source.submit(candidate)
        future: Future[LatencyAnswer] = Future()
        resolve(future, known.popleft())
        return future

    def confirm(self, candidate: Candidate, answer: LatencyAnswer, reward_at: RewardAt) -> LatencyAnswer:
        """See `LatencySource`."""
        known = self._to_confirm.get((candidate.step, candidate.architecture))
        return known.popleft() if known else self._source.confirm(candidate, answer, reward_at)
