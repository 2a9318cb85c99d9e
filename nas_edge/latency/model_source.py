"""Latencies that a fitted model predicts, `model:FILE`; see `model_file.py`.

A prediction has an interval, and is never called measured. Where the run has a device, it must be the one that the
model is of, and finalists are measured on it.
"""

from __future__ import annotations

import math
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from device_agents.api import Verdict
from nas_edge.errors import RunError
from nas_edge.latency.answer import LatencyAnswer, LatencyKind
from nas_edge.latency.device import DeviceSource
from nas_edge.latency.model_file import ModelFile, read_model
from nas_edge.latency.models.subject import Subject, subject_of
from nas_edge.latency.settings import LatencySettings
from nas_edge.latency.source import Candidate, LatencySource, resolve
from nas_edge.networks.precisions import Precision
from nas_edge.spaces.decisions import SearchSpace


class ModelSettings(LatencySettings):
    """Settings of `model`."""

    text_field: ClassVar[str] = "file"
    measures_finalists: ClassVar[bool] = True
    predicts: ClassVar[bool] = True

    source: str = "model"
    file: str = Field(min_length=1, description="a latency model, see `nas-edge latency fit`")


class ModelSource(LatencySource):
    """Answers with what a model predicts.

    Args:
        file: the model.
        name: for reports; models that differ have other names.
        space: that is searched.
    """

    def __init__(self, file: ModelFile, name: str, space: SearchSpace) -> None:
        self._file, self._name, self._space = file, name, space
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The file's name and what tells it from others."""
        return self._name

    def submit(self, candidate: Candidate) -> Future[LatencyAnswer]:
        """See `LatencySource`; what the model cannot know is the verdict `not_known`."""
        future: Future[LatencyAnswer] = Future()
        answer = self._predict(subject_of(candidate, self._space))
        if answer.verdict == Verdict.NOT_KNOWN and candidate.architecture is None:
            resolve(future, RunError(f"{self._name} knows the architectures of its space only", fix="name --target-ms"))
        else:
            resolve(future, answer)
        return future

    def _predict(self, subject: Subject) -> LatencyAnswer:
        with self._lock:  # models prepare themselves at the first prediction
            return predicted(self._file, self._name, subject)


def predicted(file: ModelFile, name: str, subject: Subject) -> LatencyAnswer:
    """What a model says of a candidate, with its interval.

    Args:
        file: the model.
        name: of the model, for the message.
        subject: the candidate.
    """
    found = file.model.predict([subject])
    latency_ms = float(found.latency_ms[0])
    if not math.isfinite(latency_ms) or latency_ms <= 0:
        why = f"{name} does not know this network" if math.isnan(latency_ms) else f"{name} predicts {latency_ms:g} ms"
        return LatencyAnswer.failed(LatencyKind.PREDICTED, Verdict.NOT_KNOWN, why)
    half = half_width(file, float(found.relative_error[0]))
    interval_ms = None if half is None else (latency_ms * max(0.0, 1 - half), latency_ms * (1 + half))
    return LatencyAnswer.estimated(LatencyKind.PREDICTED, latency_ms, interval_ms)


def half_width(file: ModelFile, relative_error: float) -> float | None:
    """Half of the 95% interval of a prediction, as a share of it; None where it is not known.

    Args:
        file: the model.
        relative_error: what the model says of it.
    """
    if file.half_width is None or not math.isfinite(relative_error):
        return None
    return file.half_width * relative_error


def open_model(text: str, space: SearchSpace, precision: Precision, device: LatencySource | None) -> ModelSource:
    """Reads a model for a search.

    Args:
        text: the file's path.
        space: that is searched.
        precision: that is delivered.
        device: the run's device, if it has one.

    Raises:
        ConfigError: when it cannot be read, or is of another device, runtime, way of measuring, precision or space.
    """
    path = Path(text).expanduser()
    file = read_model(path)
    name = f"model {path.name} (sha256 {file.digest})"
    file.check_use(path.name, space, precision)
    if isinstance(device, DeviceSource):
        file.check_device(path.name, device.info, device.spec)
    return ModelSource(file, name, space)
