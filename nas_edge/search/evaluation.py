"""`Evaluator`: what one architecture is worth; quality, latency and other resources joined in a reward."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from nas_edge.errors import ConfigError
from nas_edge.latency.answer import LatencyAnswer
from nas_edge.latency.source import Candidate, LatencySource
from nas_edge.networks.analysis import analyze
from nas_edge.quality.source import Quality, QualitySource
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
    """

    def __init__(
        self,
        space: SearchSpace,
        quality: QualitySource,
        latency: LatencySource,
        objectives: Sequence[Objective],
        reward: Reward,
    ) -> None:
        self.space, self.quality, self.latency = space, quality, latency
        self.objectives, self._reward = tuple(objectives), reward

    def candidate(self, architecture: Architecture) -> Candidate:
        """The design of an architecture, in its canonical form."""
        canonical = self.space.canonical(architecture)
        return Candidate(self.space.build(canonical), canonical)

    def evaluate(self, architecture: Architecture, step: int) -> Trial:
        """Scores and measures one architecture.

        Args:
            architecture: any point of the space.
            step: to record.
        """
        candidate = self.candidate(architecture)
        asked = self.latency.submit(candidate)
        if self.latency.measures_on_host:
            answer = asked.result()
            return self.assess(candidate, self.quality.evaluate(candidate), answer, step, step)
        quality = self.quality.evaluate(candidate)
        return self.assess(candidate, quality, asked.result(), step, step)

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
        usage = self._usage(candidate.design, answer)
        known = usage is not None and quality.value is not None
        reward = self._reward(quality.value, usage, self.objectives) if known else None  # type: ignore[arg-type]
        return Trial(step, rewarded_step, candidate.architecture, quality.value, answer, usage, reward)

    def _usage(self, design: Design, answer: LatencyAnswer | None) -> dict[str, float] | None:
        """Value of each resource, or None when the latency is not to be relied on."""
        latency_ms = None if answer is None else answer.latency_ms
        if latency_ms is None:
            return None
        values = {"latency_ms": latency_ms}
        if design.network is not None:
            analysis = analyze(design.network)
            values["macs"] = float(analysis.macs)
            values["parameters"] = float(analysis.parameters)
            values["peak_memory_bytes"] = float(analysis.peak_memory_bytes)
        missing = [objective.resource for objective in self.objectives if objective.resource not in values]
        if missing:
            raise ConfigError(f"{self.space.name} describes no networks, so there is no {missing[0]} to aim at")
        return {objective.resource: values[objective.resource] for objective in self.objectives}


def known(answer: LatencyAnswer) -> Future[LatencyAnswer]:
    """A future that is answered already."""
    future: Future[LatencyAnswer] = Future()
    future.set_result(answer)
    return future
