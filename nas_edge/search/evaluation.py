"""`Evaluator`: what one architecture is worth; quality, latency and other resources joined in a reward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from functools import cache

from nas_edge.errors import ConfigError, RunError
from nas_edge.latency.answer import AdjustedLatency, LatencyAnswer, LatencyKind
from nas_edge.latency.pooled import PooledLatency
from nas_edge.latency.source import CANDIDATE_FAULTS, Candidate, LatencySource, RewardAt
from nas_edge.networks.precisions import Precision
from nas_edge.quality.source import Quality, QualitySource
from nas_edge.resources import RESOURCES, Used
from nas_edge.rewards import Objective, Reward
from nas_edge.search.trials import Trial
from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.spaces.design import Design


class Evaluator:
    """Scores and measures architectures of a space.

    Args:
        space: where they are from.
        quality: what scores them.
        latency: what says how long they take. May be exchanged, so that finalists are measured anew.
        objectives: resources with targets; the reward joins them with quality.
        reward: the form of that.
        pooled: what steadies noisy latencies by those of other candidates; None takes all as they are.
        precision: that is delivered, which decides what a network uses.
    """

    def __init__(
        self,
        space: SearchSpace,
        quality: QualitySource,
        latency: LatencySource,
        objectives: Sequence[Objective],
        reward: Reward,
        pooled: PooledLatency | None = None,
        precision: Precision = "float32",
    ) -> None:
        self.space, self.quality, self.latency = space, quality, latency
        self.objectives, self._reward, self._pooled = tuple(objectives), reward, pooled
        self._precision: Precision = precision

    def candidate(self, architecture: Architecture, step: int | None = None) -> Candidate:
        """The design of an architecture, in its canonical form; see `Candidate` for the step."""
        canonical = self.space.canonical(architecture)
        return Candidate(self.space.build(canonical), canonical, step)

    def evaluate(self, architecture: Architecture, step: int) -> Trial:
        """Scores and measures one architecture.

        Args:
            architecture: any point of the space.
            step: to record.
        """
        return self.evaluate_all([architecture], step)[0]

    def evaluate_all(self, architectures: Sequence[Architecture], step: int) -> list[Trial]:
        """Scores and measures architectures, which may share rounds of visits.

        Args:
            architectures: any points of the space.
            step: to record.
        """
        candidates = [self.candidate(architecture, step) for architecture in architectures]
        asked = self._ask(candidates)
        qualities = self.quality.evaluate_all(candidates)
        return self._assess_all(candidates, qualities, asked, step)

    def score_all(self, architectures: Sequence[Architecture], step: int) -> list[Trial]:
        """Scores architectures, and asks for no latency.

        Args:
            architectures: any points of the space.
            step: to record.
        """
        candidates = [self.candidate(architecture, step) for architecture in architectures]
        qualities = self.quality.evaluate_all(candidates)
        return [
            self.assess(candidate, quality, None, step, step)
            for candidate, quality in zip(candidates, qualities, strict=True)
        ]

    def measure_all(self, scored: Sequence[Trial], step: int) -> list[Trial]:
        """Measures architectures that are scored already, which may share rounds of visits.

        Args:
            scored: what `score_all` returned of them.
            step: to record.
        """
        candidates = [self.candidate(trial.architecture, step) for trial in scored]
        return self._assess_all(candidates, [Quality(trial.quality) for trial in scored], self._ask(candidates), step)

    def _ask(self, candidates: Sequence[Candidate]) -> list[Future[LatencyAnswer]]:
        asked = [self.latency.submit(candidate) for candidate in candidates]
        if self.latency.measures_on_host:
            wait(asked)
        return asked

    def _assess_all(
        self,
        candidates: Sequence[Candidate],
        qualities: Sequence[Quality],
        asked: Sequence[Future[LatencyAnswer]],
        step: int,
    ) -> list[Trial]:
        return [
            self.assess(candidate, quality, future.result(), step, step)
            for candidate, quality, future in zip(candidates, qualities, asked, strict=True)
        ]

    def assess(
        self, candidate: Candidate, quality: Quality, answer: LatencyAnswer | None, step: int, rewarded_step: int
    ) -> Trial:
        """Joins what is known of a candidate.

        Args:
            candidate: of this space.
            quality: see `QualitySource`.
            answer: its latency; None when that was not asked for.
            step: in which it was proposed.
            rewarded_step: in which the controller learns of it.
        """
        assert candidate.architecture is not None
        if answer is not None:
            reward_at = self._reward_at(lambda: candidate.design, quality.value, answer.further)
            answer = self.latency.confirm(candidate, answer, reward_at)
        adjusted = None if self._pooled is None else self._pooled.adjust(candidate.architecture, answer)
        usage = self._usage(candidate.design, answer, adjusted)
        reward = None
        if usage is not None and quality.value is not None:
            reward = self._reward(quality.value, usage, self.objectives)
        return Trial(step, rewarded_step, candidate.architecture, quality.value, answer, usage, reward, adjusted)

    def take(self, trial: Trial) -> None:
        """Takes in the latency of a trial, for those that come after it: trials of a search, in their order."""
        if self._pooled is not None:
            self._pooled.take(trial.architecture, trial.latency)
        if trial.latency is not None:
            of_trial = self._reward_at(
                lambda: self.space.build(trial.architecture), trial.quality, trial.latency.further
            )
            self.latency.take(trial.architecture, trial.latency, of_trial)

    def _reward_at(self, design: Callable[[], Design], quality: float | None, further: Mapping[str, float]) -> RewardAt:
        """The reward of a design at any latency; nothing is computed before it is asked for."""

        @cache
        def usage() -> Mapping[str, float] | None:
            return self._usage(design(), LatencyAnswer.estimated(LatencyKind.PREDICTED, 1.0, further=further))

        def reward_at(latency_ms: float) -> float | None:
            others = None if quality is None else usage()
            if quality is None or others is None:
                return None
            at = {**others, "latency_ms": latency_ms} if "latency_ms" in others else others
            return self._reward(quality, at, self.objectives)

        return reward_at

    def _usage(
        self, design: Design, measured: LatencyAnswer | None, adjusted: AdjustedLatency | None = None
    ) -> dict[str, float] | None:
        """Value of each resource that is aimed at, or None when one is not known or the candidate failed."""
        asked = {objective.resource: RESOURCES[objective.resource] for objective in self.objectives}
        answer = measured if adjusted is None else adjusted
        latency_ms = None if answer is None else answer.latency_ms
        # Where the reward goes without latency, one that the bench could not find out does not matter.
        timed = any(resource.with_latency for resource in asked.values())
        if latency_ms is None and (timed or answer is None or answer.verdict in CANDIDATE_FAULTS):
            return None
        used = Used(design.network, self._precision, measured, latency_ms)
        uses = {name: resource.use(used) for name, resource in asked.items()}
        for name, use in uses.items():
            if use.value is None and design.network is None and not asked[name].measured:
                raise ConfigError(f"{self.space.name} describes no networks, so there is no {name} to aim at")
            if use.value is None:
                raise RunError(f"{name} of a candidate is {use}", fix="leave it out of the objectives and limits")
        return {name: use.value for name, use in uses.items() if use.value is not None}


def known(answer: LatencyAnswer) -> Future[LatencyAnswer]:
    """A future that is answered already."""
    future: Future[LatencyAnswer] = Future()
    future.set_result(answer)
    return future
