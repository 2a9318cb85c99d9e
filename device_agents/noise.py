"""How quiet a device is and what that means for a search, told to people before hours are spent.

VisitingAgent --watch_noise--> Noise --noise_checks--> points of a doctor
ProbeStates --------------noise_line-----------------> one line for the start of a search
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from device_agents.api import BenchmarkSpec
from device_agents.busy import BusyProgram
from device_agents.checks import Check
from device_agents.errors import DeviceUnavailableError
from device_agents.probe_models import compute_model
from device_agents.probe_watch import ProbeState
from device_agents.quiet import VisitSettings, likely_share, visits_needed
from device_agents.visiting import VisitedFile, VisitingAgent

WATCH_S = 30.0
"""How long a device is watched, in seconds, unless it is clearly quiet before."""
WATCH_SETTINGS = replace(VisitSettings(), probe_window=4000)
"""For an agent that is only watched: all visits count, not only the last."""

# So many visits to each probe, hardly one of them disturbed, are enough to call a device quiet.
_ENOUGH_VISITS, _QUIET = 20, 0.9
# Below it more time goes into visits that were disturbed than into those that count.
_EASY = 0.5
# Without a probe nothing says how quiet a device is; visits are counted as if this share were.
_GUESS = 0.5
_DEPENDS_ON = {
    "compute": "stop what computes; where a processor gets hot or saves power, that slows this probe, too",
    "cache": "stop what runs on the same or neighbouring cores",
    "memory": "stop what moves much data: training, copying, browsers, virtual machines",
}

# What no choice of cores protects: all of them share it.
_BEYOND_ONE_CORE = ("memory",)


@dataclass(frozen=True)
class VisitCosts:
    """What a candidate costs beside its timed runs.

    Attributes:
        loading_s: Seconds until it is loaded and has run once.
        overhead_s: Seconds of a visit in which nothing is timed: asking, the discarded run; on a phone, starting.
    """

    loading_s: float = 0.0
    overhead_s: float = 0.0


HOPELESS_SHARE = 0.05
"""Where fewer visits than this share are quiet, no time is enough."""
USUAL_COSTS = VisitCosts(loading_s=0.01, overhead_s=0.01)
"""Of a small network and a worker on a machine that is quiet, for where nothing better is known."""


@dataclass(frozen=True)
class Noise:
    """What was seen of a device while it was watched.

    Attributes:
        states: How each probe stood in the end.
        watched_s: How long it was watched, in seconds.
        costs: Of a small network.
    """

    states: tuple[ProbeState, ...]
    watched_s: float
    costs: VisitCosts = USUAL_COSTS


@dataclass(frozen=True)
class Outlook:
    """What a candidate takes on a device that is so quiet.

    Attributes:
        quiet_share: Share of the visits that were undisturbed, of the probe that was disturbed most; None if the floor
            of a probe is not known, or there is none.
        needed: Visits until its lowest can be trusted; infinity if that is never.
        most: Visits after which it is given up.
        candidate_s: Seconds it takes, loading included, for a network that runs some times in a visit.
        needed_s: The time in timed runs that `needed` takes, in seconds.
    """

    quiet_share: float | None
    needed: float
    most: int
    candidate_s: float
    needed_s: float

    @property
    def is_enough(self) -> bool:
        """Whether a candidate can be trusted before it is given up."""
        return self.needed <= self.most


def watch_noise(
    agent: VisitingAgent, spec: BenchmarkSpec, longest_s: float = WATCH_S, clock: Callable[[], float] = time.monotonic
) -> Noise:
    """Watches the probes of a device until it is clearly quiet, or for as long as is allowed.

    Args:
        agent: The device; with `WATCH_SETTINGS`.
        spec: How candidates will be measured.
        longest_s: In seconds. Finding out the probes' floors may take longer, where nothing is known of the device.
        clock: Seconds from any origin; tests may pass their own.

    Raises:
        DeviceError: If the bench itself is broken.
    """
    started_s = clock()
    watch = agent.watch_probes(spec, 0)
    calibrated_s, rounds = clock(), 0
    while watch.probes and (not rounds or clock() - started_s < longest_s):
        agent.watch_probes(spec, 1)
        rounds += 1
        if _clearly_quiet(watch.states()):
            break
    now_s, states = clock(), tuple(watch.states())
    visits = rounds * len(watch.probes)
    each_s = (now_s - calibrated_s) / visits if visits else 0.0
    costs = VisitCosts(_loading_s(agent, spec), max(0.0, each_s - agent.settings.probe_duration_s))
    return Noise(states, now_s - started_s, costs)


def _clearly_quiet(states: Sequence[ProbeState]) -> bool:
    return all(
        state.visits >= _ENOUGH_VISITS and likely_share(_quiet_visits(state), state.visits) >= _QUIET
        for state in states
    )


def _loading_s(agent: VisitingAgent, spec: BenchmarkSpec) -> float:
    """Returns how long a small network takes until it has run once."""
    try:
        model = compute_model() + bytes(16)  # the same network to every reader, and a file that is not loaded yet
    except DeviceUnavailableError:  # it cannot be made on this machine
        return 0.0
    file = VisitedFile(model, spec)
    next(agent.rounds([file]))
    first = file.visits[0]
    return ((first.init_ms or 0.0) + (first.first_inference_ms or 0.0)) / 1e3


def outlook(
    states: Sequence[ProbeState],
    spec: BenchmarkSpec,
    settings: VisitSettings | None = None,
    costs: VisitCosts | None = None,
) -> Outlook:
    """Returns what a candidate takes where the probes stand like this.

    Args:
        states: Of all probes of a device.
        spec: How candidates are measured.
        settings: How they are visited; None for the usual ones.
        costs: What a candidate costs beside its timed runs; None for the usual.
    """
    settings, costs = settings or VisitSettings(), costs or USUAL_COSTS
    visit_s = settings.of_visit(spec).min_duration_s
    needed = max(
        visits_needed(_cautious_share(states, settings), spec.max_risk, settings),
        math.ceil(spec.min_duration_s / visit_s),
    )
    most = max(settings.fewest_before_giving_up, math.ceil(spec.max_duration_s / visit_s))
    each_s = visit_s + settings.probe_duration_s + 2 * costs.overhead_s  # every visit brings one to a probe
    known = [state.quiet_share for state in states if _is_known(state)]
    return Outlook(
        quiet_share=min(known) if known and len(known) == len(states) else None,
        needed=needed,
        most=most,
        candidate_s=costs.loading_s + min(needed, most) * each_s,
        needed_s=needed * visit_s,
    )


def _is_known(state: ProbeState) -> bool:
    return state.floor_ms is not None and state.visits > 0


def _quiet_visits(state: ProbeState) -> int:
    return round(state.quiet_share * state.visits) if _is_known(state) else 0


def _cautious_share(states: Sequence[ProbeState], settings: VisitSettings) -> float:
    """Returns the share that measuring will reckon with, which looks at the last visits only."""
    counts = [(state, min(state.visits, settings.probe_window)) for state in states]
    shares = [likely_share(round(state.quiet_share * n), n) if _is_known(state) else 0.0 for state, n in counts]
    return min(shares, default=_GUESS)


def noise_line(
    states: Sequence[ProbeState],
    spec: BenchmarkSpec,
    name: str = "this machine",
    settings: VisitSettings | None = None,
    costs: VisitCosts | None = None,
) -> str:
    """Returns one line about a device for the start of a search.

    Args:
        states: How its probes stand; of several devices, those of all of them.
        spec: How candidates are measured.
        name: What to call the device.
        settings: As for `outlook`.
        costs: The same.
    """
    expected = outlook(states, spec, settings, costs)
    takes = f"a candidate takes about {_seconds(expected.candidate_s)}"
    if not states:
        return f"{name}: not watched by probes, so its noise is not known; {takes}"
    levels = ", ".join(map(_level, _most_disturbed(states)))
    if expected.quiet_share is None:
        longest = _seconds(expected.candidate_s)
        return f"{name}: how many visits are undisturbed is not known yet, a candidate takes up to {longest}; {levels}"
    share = f"{expected.quiet_share:.0%} of the visits undisturbed"
    if not expected.is_enough:
        limit = _seconds(spec.max_duration_s)
        return f"{name}: {share}, too few to trust a candidate within its limit of {limit}; {levels}"
    return f"{name}: {share}, {takes}; {levels}"


def _most_disturbed(states: Sequence[ProbeState]) -> list[ProbeState]:
    """Returns for each name, among devices that are alike, the state of the one that is disturbed most."""
    worst: dict[str, ProbeState] = {}
    for state in states:
        other = worst.setdefault(state.name, state)
        if (_is_known(state), state.quiet_share) < (_is_known(other), other.quiet_share):
            worst[state.name] = state
    return list(worst.values())


def _level(state: ProbeState) -> str:
    if state.median_level is None or not _is_known(state):
        return f"{state.name} probe not known yet"
    return f"{state.name} probe {state.median_level:.2f}x its floor"


def noise_checks(
    noise: Noise,
    spec: BenchmarkSpec,
    address: str,
    busy: Sequence[BusyProgram] | None = None,
    idle_core: int | None = None,
    settings: VisitSettings | None = None,
) -> list[Check]:
    """Returns what a doctor says of a device that was watched, with advice that can be followed.

    Args:
        noise: What was seen.
        spec: How candidates will be measured.
        address: Of the device.
        busy: The programs that were busy meanwhile, where the device is this very machine; None elsewhere.
        idle_core: A CPU beside the measured one that was idle meanwhile; None if there is none, or that is not known.
        settings: How candidates will be visited; None for the usual ones.
    """
    settings = settings or VisitSettings()
    if not noise.states:
        return [Check("probes", "warn", "none could be run, so how quiet it is is not known", "repeat measurements")]
    expected = outlook(noise.states, spec, settings, noise.costs)
    return [
        *(_probe_check(state, settings, idle_core) for state in noise.states),
        *_speed_check(noise.states, settings, address),
        _quiet_check(noise, expected, busy),
        _time_check(noise, spec, expected),
    ]


def _probe_check(state: ProbeState, settings: VisitSettings, idle_core: int | None) -> Check:
    name = f"{state.name} probe"
    again = "watch it for longer, or when less is running"
    if not state.visits:
        return Check(name, "warn", "not one visit succeeded", again)
    if state.floor_ms is None or state.level is None or state.median_level is None:
        lowest = f"its undisturbed time is not known: the lowest of {state.visits} visits do not agree"
        return Check(name, "warn", lowest, again)
    spread = "" if state.high_level is None else f", 90% of the visits within {state.high_level:.2f}x"
    found = (
        f"{state.floor_ms:.3g} ms undisturbed; median {state.median_level:.2f}x{spread}; "
        f"{state.quiet_share:.0%} of {state.visits} visits undisturbed"
    )
    if state.level < 1 - settings.probe_tolerance:
        return Check(name, "warn", f"{found}; one took {state.level:.2f}x, so that may be less yet", again)
    if state.quiet_share >= _EASY and state.level <= 1 + settings.probe_tolerance:
        return Check(name, "pass", found)
    fix = _DEPENDS_ON.get(state.name, "stop what else is running")
    if idle_core is not None and state.name not in _BEYOND_ONE_CORE:
        fix += f"; or measure on CPU {idle_core}, which was idle: --cores {idle_core}"
    return Check(name, "warn", found, fix)


def _speed_check(states: Sequence[ProbeState], settings: VisitSettings, address: str) -> list[Check]:
    """Whether every probe is slow all the time, which other programs hardly ever do."""
    levels = [state.level for state in states if state.level is not None]
    if len(levels) < len(states) or min(levels) <= 1 + settings.probe_tolerance:
        return []
    found = f"every probe takes at least {min(levels):.2f} times as long as it did in the last hours"
    fix = f"let it cool and see that it has power; if it is to stay like this, run: nas-edge devices clean {address}"
    return [Check("speed", "warn", found, fix)]


def _quiet_check(noise: Noise, expected: Outlook, busy: Sequence[BusyProgram] | None) -> Check:
    name, seconds = "quiet visits", _seconds(noise.watched_s)
    if expected.quiet_share is None:
        return Check(name, "warn", f"their share is not known after {seconds}", _what_to_close(busy))
    worst = min(noise.states, key=lambda state: state.quiet_share)
    found = f"{expected.quiet_share:.0%} of the visits in {seconds} undisturbed"
    if expected.quiet_share < _QUIET:
        found += f"; the {worst.name} probe is disturbed most"
    if expected.quiet_share >= _EASY:
        return Check(name, "pass", found)
    return Check(name, "warn", found, _what_to_close(busy))


def _what_to_close(busy: Sequence[BusyProgram] | None) -> str:
    if busy is None:
        return "close apps, and wait until updates and synchronisation are done"
    if not busy:
        return (
            "no other program here is busy, so what disturbs is outside of what this system can see, such as other "
            "virtual machines on the same hardware: measure for longer, at another time, or on another device"
        )
    return f"close {', '.join(f'{program.name} ({program.cores:.1f} cores)' for program in busy)}"


def _time_check(noise: Noise, spec: BenchmarkSpec, expected: Outlook) -> Check:
    name = "candidate"
    takes = _seconds(expected.candidate_s)
    if expected.is_enough:
        loading = f"{noise.costs.loading_s * 1e3:.0f} ms of loading"
        found = f"a small network takes about {takes} to be trusted: {expected.needed:.0f} visits and {loading}"
        return Check(name, "pass", found)
    limit = f"the limit of {_seconds(spec.max_duration_s)} in timed runs"
    if expected.quiet_share is None or expected.quiet_share < HOPELESS_SHARE:
        found = f"none can be trusted at the moment; each would be given up after about {takes}, at {limit}"
        return Check(name, "warn", found, "see the probes above; with hardly any visit undisturbed no time is enough")
    found = f"{expected.needed:.0f} visits are needed to trust one, {expected.most} fit into {limit}"
    return Check(
        name, "warn", found, f"measure for longer: --set measure.max_duration_s={_rounded_up(expected.needed_s)}"
    )


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"


def _rounded_up(seconds: float) -> str:
    return f"{math.ceil(seconds * 10) / 10:.1f}" if seconds < 10 else f"{math.ceil(seconds)}"
