"""Choosing the winner: the controller's most likely architecture, checked against the limit on the device.

The most likely choice of each decision ignores how decisions combine and whether the result meets the target (known
weaknesses of the published method), so with a hard limit the winner and its nearest neighbours are measured again,
whatever was measured before, and the best that meets the limit is returned. Neighbours differ in the decisions the
controller is least sure of. If none is fast enough, the walk goes on from the fastest one found.

**Head-room.** A limit is met when the whole 95% interval of the delivered file is below it, and that file is measured
another time. So a candidate has to leave as much room as its own interval says that a second measurement may need:

    t + u + z * sqrt(2) * u / 1.96  <=  limit

with its latency t, the upper half u of its interval, and z = 1.64: two measurements of one network, each with a
standard error of u / 1.96, differ by sqrt(2) of it. Quiet latencies are not normally distributed. In a simulation of
visits of which 40% to 90% are quiet, a second measurement of as many visits had its interval below the limit in 65% to
99% of the cases, and in half of them where the first interval just met it. What is known exactly, such as a look-up in
a table, needs no room.

Limits of other resources (`target.limits`) apply likewise, without head-room; until all limits are met, the walk goes
on from the architecture that exceeds its most exceeded limit least.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from nas_edge.controllers.base import Controller
from nas_edge.errors import InfeasibleError, NasEdgeError, UnreliableLatencyError
from nas_edge.formatting import ms_text
from nas_edge.latency.retry import BENCH_FAULTS
from nas_edge.resources import RESOURCES
from nas_edge.rewards import Objective
from nas_edge.search.trials import Trial, late_trials, measured_if_any
from nas_edge.spaces.decisions import Architecture, SearchSpace

# Head-room in upper halves of an interval: that of the second measurement, and how far it may come out higher.
_ROOM = 1.0 + 1.645 * math.sqrt(2.0) / 1.96


@dataclass(frozen=True)
class Selection:
    """What was measured to find the winner.

    Attributes:
        ranked: what may be the winner, the best first.
        trials: everything that was measured.
    """

    ranked: tuple[Trial, ...]
    trials: tuple[Trial, ...]

    @property
    def winner(self) -> Trial:
        """The best."""
        return self.ranked[0]


@dataclass(frozen=True)
class Limits:
    """What the winner may not exceed.

    Attributes:
        latency_ms: None for no limit.
        margin: see `select`.
        resources: limits of other resources.
    """

    latency_ms: float | None
    margin: float | None = None
    resources: Sequence[Objective] = ()

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return self.latency_ms is not None or bool(self.resources)

    def fast_enough(self, trial: Trial) -> bool:
        """Whether a trial meets the limit of the latency with its head-room."""
        if self.latency_ms is None:
            return True
        required = required_ms(trial, self.margin)
        return required is not None and required <= self.latency_ms

    def meets(self, trial: Trial) -> bool:
        """Whether a trial with a quality meets all."""
        return self.fast_enough(trial) and all(limit.allows(trial.usage) for limit in self.resources)

    def excess(self, trial: Trial) -> float:
        """The largest ratio of a trial's use to its limit; without any limit, the latency. Infinite if not known."""
        timed_ms = math.inf if trial.latency_ms is None else trial.latency_ms
        shares = [timed_ms / self.latency_ms] if self.latency_ms is not None else []
        usage = trial.usage or {}
        shares += [usage.get(limit.resource, math.inf) / limit.target for limit in self.resources]
        return max(shares, default=timed_ms)


def select(
    space: SearchSpace,
    controller: Controller,
    evaluate: Callable[[Sequence[Architecture]], Sequence[Trial]],
    target_ms: float | None,
    margin: float | None = None,
    earlier: Sequence[Trial] = (),
    neighbours: int = 8,
    rounds: int = 6,
    quality_drifts: bool = True,
    finalists: Sequence[Architecture] = (),
    resources: Sequence[Objective] = (),
) -> Selection:
    """Finds the best architecture that meets the limit.

    Args:
        space: where the search was.
        controller: after the search.
        evaluate: scores and measures architectures.
        target_ms: the latency that may not be exceeded; None returns what has the highest reward of the most likely
            architecture and the finalists.
        margin: share of the limit to stay below; None takes what the interval of each latency calls for, see above.
        earlier: trials of the search; the best of those under the limit are evaluated again too.
        neighbours: architectures measured around each centre.
        rounds: how often the walk moves on to the fastest architecture found, when none meets the limit.
        quality_drifts: see `SearchSettings`.
        finalists: see `search.finalists`; evaluated, too.
        resources: limits of other resources than latency, by `Trial.usage`.

    Raises:
        InfeasibleError: when none meets the limit; it names the fastest. UnreliableLatencyError: when none was timed.
    """
    limits = Limits(target_ms, margin, resources)
    evaluated: dict[Architecture, Trial] = {}
    measure = partial(_measure, space, evaluate, evaluated)
    most_likely = space.canonical(controller.most_likely())
    measure([most_likely, *finalists])
    if not limits.any:
        ranked = _by_reward(evaluated.values()) or (evaluated[most_likely],)
        return Selection(ranked, tuple(evaluated.values()))

    probabilities = controller.probabilities()
    measure(nearest(space, most_likely, probabilities, neighbours))
    measure(_best_of(earlier, limits, neighbours // 2, quality_drifts))
    measured: set[Architecture] = {most_likely}
    for _ in range(rounds):
        if ranked := _within(evaluated.values(), limits):
            return Selection(ranked, tuple(evaluated.values()))
        centre = _nearest_to([trial for trial in evaluated.values() if trial.architecture not in measured], limits)
        if centre is None:
            break
        measured.add(centre.architecture)
        measure(nearest(space, centre.architecture, probabilities, neighbours))

    # The walk found nothing; what is small in every decision is the last thing worth asking.
    measure([smallest(space)])
    if ranked := _within(evaluated.values(), limits):
        return Selection(ranked, tuple(evaluated.values()))
    raise _infeasible(tuple(evaluated.values()), earlier, limits)


def _measure(
    space: SearchSpace,
    evaluate: Callable[[Sequence[Architecture]], Sequence[Trial]],
    evaluated: dict[Architecture, Trial],
    architectures: Iterable[Architecture],
) -> None:
    """Evaluates those that have not been."""
    distinct = dict.fromkeys(map(space.canonical, architectures))
    new = [architecture for architecture in distinct if architecture not in evaluated]
    evaluated.update(zip(new, evaluate(new), strict=True))


def required_ms(trial: Trial, margin: float | None) -> float | None:
    """The lowest hard limit that a trial meets with its head-room; None for one without a latency to rely on.

    Args:
        trial: measured.
        margin: see `select`.
    """
    latency_ms, interval_ms = trial.latency_ms, trial.interval_ms
    if latency_ms is None:
        return None
    if margin is not None:
        return latency_ms / (1.0 - margin)
    upper_ms = 0.0 if interval_ms is None else max(0.0, interval_ms[1] - latency_ms)
    return latency_ms + _ROOM * upper_ms


def predicted_limit_ms(trials: Sequence[Trial], target_ms: float, margin: float | None) -> float:
    """What a latency that was predicted from those of `trials` has to meet: the limit less their usual head-room."""
    shares = [
        required / trial.latency_ms
        for trial in measured_if_any(trials)
        if trial.latency_ms is not None and (required := required_ms(trial, margin)) is not None
    ]
    return target_ms / median(shares) if shares else target_ms


def _infeasible(evaluated: Sequence[Trial], earlier: Sequence[Trial], limits: Limits) -> NasEdgeError:
    """What to raise when no architecture of those evaluated meets the limits."""
    known = [*evaluated, *earlier]
    target_ms = math.inf if limits.latency_ms is None else limits.latency_ms
    fastest, margin = _fastest(known), limits.margin
    nearest_one = _nearest_to(known, limits) if limits.resources else None
    if nearest_one is not None and any(map(limits.fast_enough, known)):
        return _too_large(nearest_one, limits)
    # One that did in the search says that here it could not be timed, rather than that all are too slow.
    if fastest is None or (required_ms(fastest, margin) or 0.0) <= target_ms:
        answers = [trial.latency for trial in (evaluated or earlier) if trial.latency is not None]
        untimed = "none of the candidates of the selection could be timed"
        for answer in answers:
            if answer.verdict in BENCH_FAULTS:
                problem = f"{untimed}; one of them: {answer.verdict}, {answer.detail}"
                return UnreliableLatencyError(problem, answer.verdict)
        return InfeasibleError(f"{untimed}: {answers[-1].detail}" if answers else untimed)
    fastest_ms, required = fastest.latency_ms or 0.0, required_ms(fastest, margin) or 0.0
    room = 1.0 - fastest_ms / required
    head_room = f" with {room:.1%} of head-room (target.margin)" if room > 0 else ""
    return InfeasibleError(
        f"no architecture meets {ms_text(target_ms)} ms{head_room}; the fastest measured takes "
        f"{ms_text(fastest_ms)} ms: {fastest.architecture}. Start a new run with --target-ms "
        f"{ms_text(1.05 * required)} or more, or with a smaller space"
    )


def _too_large(nearest_one: Trial, limits: Limits) -> InfeasibleError:
    """What to raise when the latency alone could be met."""
    usage = nearest_one.usage or {}
    beyond = [
        f"{limit.resource} {RESOURCES[limit.resource].text(usage[limit.resource])} (at most {limit.target:g})"
        for limit in limits.resources
        if limit.resource in usage and not limit.allows(usage)
    ]
    latency = "" if limits.latency_ms is None else f"{ms_text(limits.latency_ms)} ms and "
    return InfeasibleError(
        f"no architecture that was evaluated meets {latency}the limits of other resources; the closest has "
        f"{', '.join(beyond) or 'a higher latency'}: {nearest_one.architecture}. Start a new run with higher limits "
        "(--at-most), or with a smaller space"
    )


def nearest(
    space: SearchSpace, centre: Architecture, probabilities: Mapping[str, Sequence[float]] | None, count: int
) -> list[Architecture]:
    """The `count` architectures one decision away from `centre` that the controller finds most likely.

    Only decisions that are active in `centre` and have an alternative count: the least confident come first. Without
    probabilities all are alike, and those returned are spread evenly over the decisions.
    """
    active = space.active(centre)
    candidates = []
    for i, decision in enumerate(space.decisions):
        if not active[i] or len(decision.choices) < 2:
            continue
        row = probabilities[decision.path] if probabilities is not None else (0.0,) * len(decision.choices)
        for choice in range(len(decision.choices)):
            if choice != centre.choices[i]:
                changed = (*centre.choices[:i], choice, *centre.choices[i + 1 :])
                # How much less likely than the centre; ties keep the space's order.
                candidates.append((row[centre.choices[i]] - row[choice], i, choice, Architecture(changed)))
    candidates.sort(key=lambda candidate: candidate[:3])
    if probabilities is None and len(candidates) > count:
        candidates = [candidates[i * len(candidates) // count] for i in range(count)]
    return [architecture for *_, architecture in candidates[:count]]


def smallest(space: SearchSpace) -> Architecture:
    """The architecture with every skip taken, every number at its least and every operator at its first choice."""
    choices = []
    for decision in space.decisions:
        if "skip" in decision.choices:
            choices.append(decision.choices.index("skip"))
        else:
            choices.append(min(range(len(decision.choices)), key=lambda i: (_number(decision.choices[i]), i)))
    return space.canonical(Architecture(tuple(choices)))


def _number(choice: int | float | str) -> float:
    return 0.0 if isinstance(choice, str) else float(choice)


def _by_reward(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    rewarded = (trial for trial in trials if trial.reward is not None)
    return tuple(sorted(rewarded, key=lambda trial: -(trial.reward or 0.0)))


def _within(trials: Iterable[Trial], limits: Limits) -> tuple[Trial, ...]:
    """The trials that meet the limits, the most accurate first; the faster of two equals.

    Where latency has no limit, it counts by the reward.
    """
    meeting = _meeting(trials, limits)
    if limits.latency_ms is None:
        return _by_reward(meeting)
    return tuple(sorted(meeting, key=lambda t: (-(t.quality or 0.0), t.latency_ms or 0.0)))


def _meeting(trials: Iterable[Trial], limits: Limits) -> list[Trial]:
    """Those with a quality that meet the limits."""
    return [trial for trial in trials if trial.quality is not None and limits.meets(trial)]


def _best_of(trials: Iterable[Trial], limits: Limits, count: int, quality_drifts: bool) -> list[Architecture]:
    """The architectures that did best within the limits, among trials whose qualities may be compared."""
    late = late_trials(_meeting(trials, limits), quality_drifts)
    best = sorted(late, key=lambda t: (-(t.quality or 0.0), t.latency_ms or 0.0))
    return list(dict.fromkeys(t.architecture for t in best))[:count]


def _nearest_to(trials: Iterable[Trial], limits: Limits) -> Trial | None:
    """The trial that exceeds the limits least."""
    known = [trial for trial in trials if limits.excess(trial) < math.inf]
    return min(known, key=limits.excess, default=None)


def _fastest(trials: Iterable[Trial]) -> Trial | None:
    timed = [trial for trial in trials if trial.latency_ms is not None]
    return min(timed, key=lambda trial: trial.latency_ms or 0.0, default=None)
