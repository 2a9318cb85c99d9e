"""What TensorBoard shows of a search: scalars of every step, and the policy now and then.

    RUN/tensorboard/events.out.tfevents.000001.nas_edge    one file per start and resumption, read in this order

Format: records of TensorFlow's `Event` message, as in tensorflow/core/util/event.proto. A file begins with the step
from which it goes on; readers then forget what earlier files say of that step and those after it. So a search that was
killed, and makes the steps since its last checkpoint again, has no step twice.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nas_edge.controllers.base import Controller
from nas_edge.runs.files import writing
from nas_edge.search.loop import StepReport
from nas_edge.search.trials import Trial
from nas_edge.stages.policy_log import is_noted

_NAME = re.compile(r"events\.out\.tfevents\.([0-9]{6,})\.nas_edge")


class TensorBoardLog:
    """Writes the files.

    Args:
        folder: made when it does not exist.
        first_step: the step that is made next.
        steps: of the whole search.
        target_ms: latency to aim at.

    Raises:
        RunError: when it cannot be written.
    """

    def __init__(self, folder: Path, first_step: int, steps: int, target_ms: float) -> None:
        import tensorflow as tf

        self._tf, self._steps, self._target_ms = tf, steps, target_ms
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            number = 1 + max(map(_number, folder.iterdir()), default=0)
            self._path = folder / f"events.out.tfevents.{number:06d}.nas_edge"
            with self._errors():
                self._file = tf.io.TFRecordWriter(str(self._path))
        self._append(file_version="brain.Event:2")
        start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
        self._append(step=first_step, session_log=start)

    def write(self, report: StepReport, controller: Controller) -> None:
        """Adds a step: means over the trials that were rewarded in it, and the controller as it is after it.

        Raises:
            RunError: when it cannot be written.
        """
        trials = report.trials
        latency_ms = _mean(trial.latency_ms for trial in trials)
        conditions = [t.measurement.conditions for t in trials if t.measurement and t.measurement.conditions]
        scalars = {
            "search/loss": report.loss,
            "search/reward": _mean(trial.reward for trial in trials),
            "search/quality": _mean(trial.quality for trial in trials),
            "search/latency_ms": latency_ms,
            "search/observed_median_ms": _mean(_observed_ms(trial) for trial in trials),
            "search/latency_of_target": None if latency_ms is None else latency_ms / self._target_ms,
            "controller/entropy": report.entropy,
            "controller/learning_rate": controller.learning_rate(report.step),
            "device/temperature_c": _mean(c.temperature_c_after for c in conditions),
        }
        if is_noted(report.step, self._steps):
            scalars |= _policy(controller)
        values = [
            self._tf.compat.v1.Summary.Value(tag=tag, simple_value=value)
            for tag, value in scalars.items()
            if value is not None
        ]
        self._append(step=report.step, summary=self._tf.compat.v1.Summary(value=values))

    def close(self) -> None:
        """Closes the file; may be called twice."""
        with writing(self._path), self._errors():
            self._file.close()

    def _append(self, **content: Any) -> None:
        event = self._tf.compat.v1.Event(wall_time=time.time(), **content)
        with writing(self._path), self._errors():
            self._file.write(event.SerializeToString())
            self._file.flush()  # to the system, so that the death of the process loses nothing

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Makes TensorFlow's errors of the system's kind."""
        try:
            yield
        except self._tf.errors.OpError as error:
            raise OSError(error.message.rpartition("; ")[2]) from error


def _policy(controller: Controller) -> Mapping[str, float]:
    """Probabilities by tag: a group for each decision, in it a line for each choice; none without a policy."""
    choices = {decision.path: decision.choices for decision in controller.space.decisions}
    return {
        f"policy {path}/{i}: {choice}": probability
        for path, probabilities in (controller.probabilities() or {}).items()
        if len(probabilities) > 1
        for i, (choice, probability) in enumerate(zip(choices[path], probabilities, strict=True))
    }


def _observed_ms(trial: Trial) -> float | None:
    """Median over all runs, where the latency is the one that nothing disturbs."""
    measured = trial.measurement
    return measured.statistics.median_ms if measured and measured.visits and measured.statistics else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _number(path: Path) -> int:
    """The number of a file of ours, 0 for any other."""
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else 0
