"""The study behind a family: from one network of a search to a scaled one for each latency.

    sample     the network and some untrained scaled versions of it are measured, and a law is fitted to them
    frontier   for each target, candidates that the law predicts just below it are measured, and the law is refitted
    training   candidates are trained briefly; for each target, the most accurate one that meets it when measured again
               is taken

Candidates for one target are about equally fast, so their short trainings are comparable; between targets, short
trainings would favour small networks. All measurements and trainings are kept in journals of the run, and every
decision follows from these, so a study that was stopped continues where it was.

    stages/scaling.jsonl           latencies of sample and candidates
    stages/scaling_quality.jsonl   qualities of candidates
    stages/scaling_again.jsonl     the second measurement of those that were chosen
    stages/scaling.json            the result of the study
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nas_edge.errors import InfeasibleError, NasEdgeError, TrainingError, UnreliableLatencyError
from nas_edge.formatting import ms_text
from nas_edge.latency.answer import LatencyKind
from nas_edge.latency.retry import BENCH_FAULTS
from nas_edge.latency.source import Candidate, LatencySource
from nas_edge.runs.halving import HalvingScore
from nas_edge.scaling import TRAINED
from nas_edge.scaling.design import NETWORKS, alone, sample
from nas_edge.scaling.frontier import BAND, candidates
from nas_edge.scaling.grid import AXES, FloatArray, Grid, at
from nas_edge.scaling.law import Law, fit
from nas_edge.search.selection import predicted_limit_ms, required_ms
from nas_edge.search.trials import Trial
from nas_edge.spaces.decisions import Architecture
from nas_edge.stages.contender import Contender
from nas_edge.stages.context import RunContext
from nas_edge.stages.searching import advising
from nas_edge.stages.selecting import kept_trials
from nas_edge.stages.training import recipe, train, validation_quality
from nas_edge.tasks.base import TaskData
from nas_edge.text import answer_text, kind_suffix

LATENCIES, QUALITIES, AGAIN = (f"stages/{name}.jsonl" for name in ("scaling", "scaling_quality", "scaling_again"))
# Candidates to train for one target, at most.
PER_TARGET = 5
# Rounds of proposing and measuring candidates.
_ROUNDS = 5
# Share of the epochs of a full training.
SHORT = 1 / 8
# Latencies per multiply-add are compared after one axis has multiplied the multiply-adds by this factor.
_COMPARED_AT = 4.0

Measure = Callable[[Sequence[Architecture]], list[Trial]]


@dataclass(frozen=True)
class Tried:
    """A candidate for a target.

    Attributes:
        target_ms: the target.
        predicted_ms: the law's prediction from before it was measured.
        interval_ms: the 95% interval of the prediction.
        trial: with its latency and, once it was trained, its quality.
    """

    target_ms: float
    predicted_ms: float
    interval_ms: tuple[float, float]
    trial: Trial


class Study:
    """The study of one network.

    Args:
        context: of the folder that keeps it; its settings are those of the grid.
        grid: of the scaled versions.
        source: where latencies come from.
        targets_ms: ascending.
        data_at: the data at an input size.
        trained: how many candidates are trained briefly, over all targets.
    """

    def __init__(
        self,
        context: RunContext,
        grid: Grid,
        source: LatencySource,
        targets_ms: Sequence[float],
        data_at: Callable[[int], TaskData],
        trained: int = TRAINED,
    ) -> None:
        self._per_target = max(1, min(PER_TARGET, trained // len(targets_ms)))
        self._context = replace(context, space=grid)
        self._grid, self._source, self._targets_ms, self._data_at = grid, source, tuple(targets_ms), data_at
        self._hard = context.config.target.limit == "hard"
        self._margin = context.config.target.margin if self._hard else 0.0
        self._measured: dict[Architecture, Trial] = {}

    def conclude(self) -> dict[str, Any]:
        """Runs the study; returns its result as JSON values, with a member or a problem for each target.

        Raises:
            UnreliableLatencyError, InfeasibleError: when too few networks could be timed.
            TrainingError: when all trainings of candidates diverge.
            RunError, DeviceError: see there.
        """
        with self._measuring(LATENCIES) as measure, advising(self._context):
            law = self._sample(measure)
            sampled = list(self._measured)
            tried = self._frontier(measure, law)
        law = self._law()
        scored = self._trained(tried)
        with self._measuring(AGAIN) as measure, advising(self._context):
            members = {target_ms: self._chosen(measure, target_ms, scored) for target_ms in self._targets_ms}
        return {
            "schema_version": 1,
            "found": self._described(self._grid.base),
            "law": law.to_json(),
            "sample": [self._described(one) for one in sampled],
            "per_mac": self._per_mac(sampled),
            "candidates": [self._told(one) for one in scored],
            "members": [
                {"target_ms": target_ms, "problem": self._problem(target_ms)} if one is None else self._told(one)
                for target_ms, one in members.items()
            ],
        }

    @contextmanager
    def _measuring(self, stage: str) -> Iterator[Measure]:
        """Yields a function that measures networks interleaved, except those measured before the study was stopped."""
        with kept_trials(self._context, stage) as kept, self._context.reporter.stage("measuring", None) as show:
            done = 0

            def asked(missing: Sequence[Architecture]) -> list[Trial]:
                # Without an architecture: points of the grid are not architectures of the run's space.
                futures = [self._source.submit(Candidate(self._grid.build(one))) for one in missing]
                answers = [future.result() for future in futures]
                return [Trial(0, 0, one, None, got, None, None) for one, got in zip(missing, answers, strict=True)]

            def measure(architectures: Sequence[Architecture]) -> list[Trial]:
                nonlocal done
                trials = kept(architectures, asked)
                for trial in trials:
                    done += 1
                    show(done, str(self._grid.scale(trial.architecture)), answer_text(trial.latency))
                return trials

            yield measure

    def _sample(self, measure: Measure) -> Law:
        """Measures the sample and fits a law to it."""
        grid = self._grid
        (base,) = measure([grid.base])
        self._keep([base])
        if base.latency_ms is None:
            raise self._untimed([base])
        chosen = sample(grid, base.latency_ms, self._targets_ms, NETWORKS)
        trials = measure([one for one in chosen if one != grid.base])
        self._keep(trials)
        try:
            law = self._law()
        except ValueError:
            raise self._untimed([base, *trials]) from None
        self._context.reporter.say(
            f"the scaling law fitted to {law.networks} networks has an error of {law.error:.1%} on held-out ones"
        )
        return law

    def _untimed(self, trials: Sequence[Trial]) -> NasEdgeError:
        failed = [trial.latency for trial in trials if trial.latency is not None and not trial.latency.ok]
        for answer in failed:
            if answer.verdict in BENCH_FAULTS:
                problem = f"too few scaled networks could be timed, for example: {answer.verdict}, {answer.detail}"
                return UnreliableLatencyError(problem, answer.verdict)
        why = f", for example: {failed[0].verdict}, {failed[0].detail}" if failed else ""
        return InfeasibleError(f"too few scaled networks could be timed to fit a law{why}")

    def _keep(self, trials: Sequence[Trial]) -> None:
        self._measured |= {trial.architecture: trial for trial in trials}

    def _timed(self) -> list[Trial]:
        return [trial for trial in self._measured.values() if trial.latency_ms is not None]

    def _law(self) -> Law:
        timed = self._timed()
        points = at(self._points(), [trial.architecture for trial in timed])
        return fit(points, [trial.latency_ms or 0.0 for trial in timed])

    def _points(self) -> FloatArray:
        """The inputs of the law for every point of the grid, `[depths, widths, input sizes, 4]`."""
        grid, hardware = self._grid, self._context.config.export.profile
        beyond: FloatArray = np.zeros(grid.points.shape[:-1])
        if hardware is not None and hardware.on_chip_bytes is not None:
            beyond = np.log(np.maximum(1.0, grid.parameters / hardware.on_chip_bytes))  # a byte each in int8
        return np.concatenate([grid.points, beyond[..., None]], axis=-1)

    def _meets(self, trial: Trial, target_ms: float) -> bool:
        required = required_ms(trial, self._margin) if self._hard else trial.latency_ms
        return required is not None and required <= target_ms

    def _frontier(self, measure: Measure, law: Law) -> list[Tried]:
        """Measures candidates for each target until enough of them are just below it."""
        count = self._per_target
        tried: list[Tried] = []
        for _ in range(_ROUNDS):
            latencies_ms = law.latency_ms(self._points())
            asked: list[Tried] = []
            for target_ms in self._targets_ms:
                lacking = count - sum(self._is_close(one) for one in tried if one.target_ms == target_ms)
                limit_ms = predicted_limit_ms(self._timed(), target_ms, self._margin) if self._hard else target_ms
                taken = {*self._measured, *(one.trial.architecture for one in asked)}
                for one in candidates(self._grid, latencies_ms, limit_ms, lacking, taken) if lacking > 0 else ():
                    interval_ms = law.interval_ms(self._points()[one.choices])
                    untimed = Trial(0, 0, one, None, None, None, None)
                    asked.append(Tried(target_ms, float(latencies_ms[one.choices]), interval_ms, untimed))
            if not asked:
                break
            trials = measure([one.trial.architecture for one in asked])
            self._keep(trials)
            tried += [replace(one, trial=trial) for one, trial in zip(asked, trials, strict=True)]
            law = self._law()
        return [one for target_ms in self._targets_ms for one in self._best(tried, target_ms, count, law)]

    def _is_close(self, one: Tried) -> bool:
        latency_ms = one.trial.latency_ms
        return self._meets(one.trial, one.target_ms) and (latency_ms or 0.0) >= (1 - BAND) * one.target_ms

    def _best(self, tried: Sequence[Tried], target_ms: float, count: int, law: Law) -> list[Tried]:
        """The candidates to train: those just below the target, else the slowest that meet it."""
        of_target = [one for one in tried if one.target_ms == target_ms and self._meets(one.trial, target_ms)]
        if close := [one for one in of_target if self._is_close(one)]:
            return close[:count]
        if of_target:
            return sorted(of_target, key=lambda one: -(one.trial.latency_ms or 0.0))[:count]
        others = [trial for trial in self._timed() if self._meets(trial, target_ms)]
        others.sort(key=lambda trial: -(trial.latency_ms or 0.0))
        return [
            Tried(target_ms, float(law.latency_ms(point)), law.interval_ms(point), trial)
            for trial in others[:1]
            for point in (self._points()[trial.architecture.choices],)
        ]

    def _trained(self, tried: Sequence[Tried]) -> list[Tried]:
        """The candidates with their qualities after short trainings; untrained if no target has more than one."""
        targets_ms = [one.target_ms for one in tried]
        if len(set(targets_ms)) == len(targets_ms):
            return list(tried)
        context, wanted = self._context, list(dict.fromkeys(one.trial.architecture for one in tried))
        settings = context.config.training.to_compare(SHORT)
        how, found = recipe(context.config), dict[Architecture, float | None]()
        with closing(context.run.open_journal(context.reporter.say, QUALITIES)) as journal:
            known = {
                (score.architecture, score.epochs): score.quality
                for score in journal.read(HalvingScore.from_json)
                if score.recipe == how
            }
            for number, one in enumerate(wanted, start=1):
                key = (str(one), settings.epochs)
                if key not in known:
                    known[key] = self._quality(one, f"candidate {number} of {len(wanted)}")
                    journal.append(HalvingScore(how, *key, known[key]).to_json())
                found[one] = known[key]
        if wanted and all(quality is None for quality in found.values()):
            raise TrainingError("the short trainings of all candidates diverged", fix="lower training.learning_rate")
        return [replace(one, trial=replace(one.trial, quality=found[one.trial.architecture])) for one in tried]

    def _quality(self, architecture: Architecture, name: str) -> float | None:
        grid, scale = self._grid, self._grid.scale(architecture)
        network = grid.build(architecture).needed_network()
        data = self._data_at(scale.input_size)
        context = replace(self._context, config=grid.config(scale), data=data, space=grid.space(scale))
        settings = context.config.training.to_compare(SHORT)
        try:
            weights = train(context, Contender(name, str(scale), None, network), settings, None)
        except TrainingError as error:
            context.reporter.say(f"{scale}: {error}")
            return None
        quality = validation_quality(context, network, weights)
        context.reporter.say(f"{name}, {scale}: {context.task.metric.text(quality)}")
        return quality

    def _chosen(self, measure: Measure, target_ms: float, scored: Sequence[Tried]) -> Tried | None:
        """The most accurate candidate that meets the target when measured again, else the fastest."""
        of_target = [one for one in scored if one.target_ms == target_ms]
        again: list[Tried] = []
        for one in sorted(of_target, key=lambda one: -_quality_of(one)):
            (trial,) = measure([one.trial.architecture])
            if trial.latency_ms is None:  # the first measurement is better than none
                trial = one.trial
            again.append(replace(one, trial=replace(trial, quality=one.trial.quality)))
            if self._meets(trial, target_ms):
                break
        if not again:
            return None
        chosen = again[-1] if self._meets(again[-1].trial, target_ms) else min(again, key=_latency_of)
        kind = kind_suffix(chosen.trial.latency.kind if chosen.trial.latency else LatencyKind.MEASURED)
        self._context.reporter.say(
            f"{ms_text(target_ms)} ms: {self._grid.scale(chosen.trial.architecture)}, predicted "
            f"{ms_text(chosen.predicted_ms)} ms, {ms_text(chosen.trial.latency_ms)} ms{kind}"
        )
        return chosen

    def _problem(self, target_ms: float) -> str:
        fastest = min(self._timed(), key=lambda trial: trial.latency_ms or math.inf)
        return (
            f"no scaled network was found for {ms_text(target_ms)} ms; the fastest one measured takes "
            f"{ms_text(fastest.latency_ms)} ms: {self._grid.scale(fastest.architecture)}"
        )

    def _described(self, architecture: Architecture) -> dict[str, Any]:
        """A network and what is known of its latency."""
        trial, analysis = self._measured[architecture], self._grid.analysis(architecture)
        answer = trial.latency
        return {
            "architecture": str(architecture),
            **self._scale(architecture),
            "macs": analysis.macs,
            "parameters": analysis.parameters,
            "latency_ms": trial.latency_ms,
            "latency_kind": None if answer is None else answer.kind.value,
            "verdict": None if answer is None else answer.verdict.value,
        }

    def _told(self, one: Tried) -> dict[str, Any]:
        """A candidate, with the latency of its last measurement."""
        return {
            "target_ms": one.target_ms,
            **self._described(one.trial.architecture),
            "latency_ms": one.trial.latency_ms,
            "predicted_ms": one.predicted_ms,
            "predicted_interval_ms": list(one.interval_ms),
            "quality": one.trial.quality,
        }

    def _scale(self, architecture: Architecture) -> dict[str, Any]:
        return vars(self._grid.scale(architecture))

    def _per_mac(self, sampled: Sequence[Architecture]) -> dict[str, float]:
        """By axis, the factor of latency per multiply-add when that axis alone makes four times as many multiply-adds.

        Extrapolated from the largest network of the sample that differs on that axis alone or, if there is none, from
        the smallest.
        """
        base, found = self._measured[self._grid.base], dict[str, float]()
        for axis, name in enumerate(AXES):
            growth = {
                self._grid.macs_growth[one.choices]: self._measured[one].latency_ms
                for one in sampled
                if alone(self._grid, one) == axis and self._measured[one].latency_ms is not None
            }
            if growth and base.latency_ms is not None:
                furthest = max(growth)
                exponent = math.log((growth[furthest] or 0.0) / base.latency_ms) / float(furthest)
                found[name] = _COMPARED_AT ** (exponent - 1)
        return found


def _quality_of(one: Tried) -> float:
    return -math.inf if one.trial.quality is None else one.trial.quality


def _latency_of(one: Tried) -> float:
    return math.inf if one.trial.latency_ms is None else one.trial.latency_ms
