"""Latencies that are predicted, and measured where that matters: `hybrid`.

    submit    the model's prediction, with its interval; the measured latency of an architecture that was measured
    confirm   once the quality is known: measured, if the prediction does not do
    take      what a trial went by; the model is fitted again whenever there is a fifth more to fit it to

Measured are the first candidates, each of which the model knows nothing, and of the others at most a share: those that
may improve on the best that was measured, for all that their interval leaves open, and those whose interval is widest.

    gain = mean over what the latency may be of max(0, reward at it - best reward that was measured)

(expected improvement: Jones, Schonlau and Welch, "Efficient global optimization of expensive black-box functions",
Journal of Global Optimization 1998). How wide an interval is follows from errors at networks that the model was not
fitted to, among them all that were measured since it was: a model that turns out to be wrong has wide intervals.

All of this follows from the trials in their order, so a run that is resumed goes on as it would have. What the search
ends with is measured, whatever was predicted of it.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist, fmean
from typing import ClassVar

import numpy as np
from pydantic import Field

from device_agents.api import Verdict
from nas_edge.errors import ConfigError
from nas_edge.latency.answer import LatencyAnswer, LatencyKind
from nas_edge.latency.device import DeviceSource
from nas_edge.latency.model_file import read_model
from nas_edge.latency.models.choosing import choose_model, error_scores, half_width_of
from nas_edge.latency.models.predictor import Predictor
from nas_edge.latency.models.subject import Observation, Subject, subject_of, subject_of_architecture
from nas_edge.latency.settings import LatencySettings
from nas_edge.latency.source import Candidate, LatencySource, RewardAt, SourceWrapper, resolve
from nas_edge.networks.precisions import Precision
from nas_edge.spaces.decisions import Architecture, SearchSpace

# The model is fitted again whenever so many times as many networks were measured.
_GROWTH = 1.2
# A standard deviation, as the share of errors that lie within one.
_ONE_DEVIATION = 0.683
# What the latency may be, in standard deviations; all equally likely.
_MAY_BE = tuple(NormalDist().inv_cdf((place + 0.5) / 15) for place in range(15))
# However far off a prediction may be, no latency is below this share of it.
_LEAST_SHARE = 0.05
# Observations that a model is fitted to at most.
_FITTED_TO = 1000
# Candidates that another one is compared with, and measured ones that its reward is.
_COMPARED, _BEST_OF = 64, 256
# Of what may be measured, the share that goes to those of which least is known.
_OF_UNCERTAIN = 0.25


class HybridSettings(LatencySettings):
    """Settings of `hybrid`."""

    text_field: ClassVar[str] = "of"
    measures_some: ClassVar[bool] = True

    source: str = "hybrid"
    of: str = Field(
        "device", min_length=1, description="what measures: device, or to rehearse, column:NAME, table:FILE"
    )
    share: float = Field(0.15, gt=0, le=1, description="of the architectures that are proposed, how many are measured")
    first: int = Field(16, ge=10, description="architectures that are measured before any is predicted")
    model: str | None = Field(None, min_length=1, description="a latency model to start from, nas-edge latency fit")
    pooled: bool = Field(True, description="steady noisy latencies by those of the run's other candidates")

    @property
    def asks_device(self) -> bool:
        """See `LatencySettings`."""
        return self.of == "device"

    @property
    def text(self) -> str:
        """As a user writes it: `hybrid`, `hybrid:column:NAME`."""
        return self.source if self.of == "device" else f"{self.source}:{self.of}"

    def around(
        self, source: LatencySource, space: SearchSpace, precision: Precision, device: LatencySource | None
    ) -> LatencySource:
        """See `LatencySettings` and `open_hybrid`."""
        return open_hybrid(source, space, self, precision, device)


@dataclass(frozen=True)
class Guess:
    """What a latency may be.

    Attributes:
        latency_ms: most likely, in milliseconds.
        deviation: its standard deviation, as a share of that.
        half_width: half of the 95% interval, likewise.
    """

    latency_ms: float
    deviation: float
    half_width: float

    @property
    def answer(self) -> LatencyAnswer:
        """As a trial has it."""
        low, high = max(0.0, 1 - self.half_width), 1 + self.half_width
        interval_ms = (self.latency_ms * low, self.latency_ms * high)
        return LatencyAnswer.estimated(LatencyKind.PREDICTED, self.latency_ms, interval_ms)

    def gain(self, best: float, reward_at: RewardAt) -> float:
        """By how much the reward may be expected to be above another one."""
        may_be_ms = [self.latency_ms * max(_LEAST_SHARE, 1 + self.deviation * place) for place in _MAY_BE]
        rewards = [reward for ms in may_be_ms if (reward := reward_at(ms)) is not None]
        return fmean(max(0.0, reward - best) for reward in rewards) if rewards else 0.0


@dataclass
class Fit:
    """A model, and how far off it was where it was not fitted.

    Attributes:
        model: what predicts.
        scores: see `error_scores`; those of what was measured since are added.
        count: observations that there were then.
    """

    model: Predictor
    scores: list[float]
    count: int = 0

    def guess(self, subject: Subject) -> Guess | None:
        """What is said of a candidate; None where the model does not know it."""
        found = self.model.predict([subject])
        latency_ms, error = float(found.latency_ms[0]), float(found.relative_error[0])
        if not (math.isfinite(error) and 0 < latency_ms < math.inf):
            return None
        # Never less than the model says itself: those it was tested on may all be alike.
        one, two = max(0.5, half_width_of(self.scores, _ONE_DEVIATION)), max(1.0, half_width_of(self.scores))
        return Guess(latency_ms, error * one, error * two)

    def add(self, one: Observation) -> None:
        """Takes in how far off it was."""
        found = self.model.predict([one.subject])
        if np.isfinite(found.latency_ms).all():
            self.scores += error_scores(found, [one]).tolist()


class HybridSource(SourceWrapper):
    """Predicts latencies, and has some measured.

    Args:
        source: what measures; closed with this.
        space: that is searched.
        settings: when it measures.
        start: a model to go by until what was measured makes a better one; None for none.
    """

    def __init__(
        self, source: LatencySource, space: SearchSpace, settings: HybridSettings, start: Fit | None = None
    ) -> None:
        super().__init__(source)
        self._space, self._settings, self._start, self._fit = space, settings, start, start
        self._lock = threading.Lock()  # models prepare themselves at the first prediction
        self._measured: dict[Architecture, LatencyAnswer] = {}
        self._observations: list[Observation] = []
        self._seen: set[Architecture] = set()
        self._spent = 0
        self._rewards: deque[float] = deque(maxlen=_BEST_OF)
        self._gains: deque[float] = deque(maxlen=_COMPARED)
        self._deviations: deque[float] = deque(maxlen=_COMPARED)

    @property
    def name(self) -> str:
        """What measures."""
        return f"{self._source.name}, some predicted"

    @property
    def measures_some(self) -> bool:
        """See `LatencySource`."""
        return True

    def submit(self, candidate: Candidate) -> Future[LatencyAnswer]:
        """See `LatencySource`; a network from outside the space is measured."""
        if candidate.architecture is None:
            return self._source.submit(candidate)
        answer = self._measured.get(candidate.architecture)
        if answer is None:
            guess = self._guess(subject_of(candidate, self._space))
            answer = _UNKNOWN if guess is None else guess.answer
        future: Future[LatencyAnswer] = Future()
        resolve(future, answer)
        return future

    def confirm(self, candidate: Candidate, answer: LatencyAnswer, reward_at: RewardAt) -> LatencyAnswer:
        """See `LatencySource`: measures where the prediction does not do."""
        if answer.kind is not LatencyKind.PREDICTED or candidate.architecture is None:
            return answer
        if answer.ok and not self._is_worth_measuring(candidate, reward_at):
            return answer
        return self._source.submit(candidate).result()

    def take(self, architecture: Architecture, answer: LatencyAnswer, reward_at: RewardAt) -> None:
        """See `LatencySource`."""
        is_new = answer.kind is not LatencyKind.PREDICTED and answer != self._measured.get(architecture)
        if architecture in self._seen and not is_new:
            return
        subject = subject_of_architecture(self._space, architecture)
        guess = self._guess(subject)
        if architecture not in self._seen and guess is not None:
            self._gains.append(guess.gain(self._best, reward_at))
            self._deviations.append(guess.deviation)
        self._seen.add(architecture)
        if is_new:
            self._spent += 1
            if answer.latency_ms is not None:
                self._measured[architecture] = answer
                if (reward := reward_at(answer.latency_ms)) is not None:
                    self._rewards.append(reward)
                self._observe(Observation.of(subject, answer))

    @property
    def _best(self) -> float:
        """The highest reward that was measured."""
        return max(self._rewards, default=-math.inf)

    def _is_worth_measuring(self, candidate: Candidate, reward_at: RewardAt) -> bool:
        assert candidate.architecture is not None
        settings, guess = self._settings, self._guess(subject_of(candidate, self._space))
        if guess is None or self._spent < settings.first:
            return True
        count = len(self._seen) + (candidate.architecture not in self._seen)
        left = settings.share * count - self._spent
        if left < 1:
            return False
        # The more is left, the less a candidate has to promise.
        share = min(1.0, settings.share * max(1.0, left / 2))
        gain = guess.gain(self._best, reward_at)
        if gain > 0 and gain >= _quantile(self._gains, 1 - share):
            return True
        return left >= 2 and guess.deviation >= _quantile(self._deviations, 1 - _OF_UNCERTAIN * share)

    def _guess(self, subject: Subject) -> Guess | None:
        with self._lock:
            return None if self._fit is None else self._fit.guess(subject)

    def _observe(self, one: Observation) -> None:
        with self._lock:
            self._observations.append(one)
            count = len(self._observations)
            if self._fit is not None:
                self._fit.add(one)
            due = self._settings.first if self._fit is None else max(self._settings.first, _GROWTH * self._fit.count)
            if count >= due:
                self._fit = self._fitted() or self._fit

    def _fitted(self) -> Fit | None:
        """The best kind of model, or the one that was begun with where that is better; None where none can be made."""
        count, observations = len(self._observations), spread_of(self._observations)
        try:
            chosen = choose_model(observations)
        except ConfigError:  # those that were measured are too few, or too much alike
            return None
        if self._start is not None:
            found = self._start.model.predict([one.subject for one in observations])
            off = np.abs(found.latency_ms / np.array([one.latency_ms for one in observations]) - 1)
            if float(np.mean(off)) < min(chosen.errors.values()):
                return Fit(self._start.model, error_scores(found, observations).tolist(), count)
        return Fit(chosen.model, chosen.scores.tolist(), count)


_UNKNOWN = LatencyAnswer.failed(LatencyKind.PREDICTED, Verdict.NOT_KNOWN, "no model knows it yet, so it is measured")


def spread_of(observations: Sequence[Observation]) -> Sequence[Observation]:
    """What a model is fitted to, in its order: of many, half are the latest, the others spread over the earlier ones.

    A fit takes time with the cube of their number.
    """
    if len(observations) <= _FITTED_TO:
        return observations
    latest = _FITTED_TO // 2
    earlier = observations[:-latest]
    spread = [earlier[place * len(earlier) // (_FITTED_TO - latest)] for place in range(_FITTED_TO - latest)]
    return [*spread, *observations[-latest:]]


def _quantile(values: Sequence[float] | deque[float], share: float) -> float:
    return float(np.quantile(values, share)) if values else -math.inf


def _usual_scores(half_width: float) -> list[float]:
    """Those of normally distributed errors with such a 95% interval."""
    normal = NormalDist(sigma=half_width / NormalDist().inv_cdf(0.975))
    return [normal.inv_cdf(0.5 + 0.5 * (place + 0.5) / 40) for place in range(40)]


def open_hybrid(
    source: LatencySource,
    space: SearchSpace,
    settings: HybridSettings,
    precision: Precision,
    device: LatencySource | None = None,
) -> HybridSource:
    """A hybrid around what measures.

    Args:
        source: what measures.
        space: that is searched.
        settings: of the hybrid.
        precision: that is delivered.
        device: the run's device, if it has one, which a model to start from has to be of.

    Raises:
        ConfigError: when that model cannot be read, has no intervals, or is of something else.
    """
    if settings.model is None:
        return HybridSource(source, space, settings)
    path = Path(settings.model).expanduser()
    file = read_model(path)
    file.check_use(path.name, space, precision)
    if isinstance(device, DeviceSource):
        file.check_device(path.name, device.info, device.spec)
    if file.half_width is None:
        raise ConfigError(f"{path.name} does not say how far off it may be", fix="fit one (nas-edge latency fit)")
    return HybridSource(source, space, settings, Fit(file.model, _usual_scores(file.half_width)))
