"""Whether a device is quiet: models whose undisturbed times are known are visited between all others.

Probes may keep a latency from being believed; they grant none. What they depend on tells what disturbs: the memory's
probe slow while the compute probe is not is contention, all of them slow is throttling, or a device that has changed.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from device_agents.api import QuietLatency
from device_agents.quiet import VisitSettings, VisitTime, agreed, corrected, likely_share, sensitivity
from device_agents.worker.statistics import quantile

REFERENCE = "reference"
"""The name of the probe that is a network of the kind being measured."""
# Visits of a probe that may be asked for: more than the rounds of any measurement.
_REMEMBERED = 500
_WORTH_OF_EARLIER = 2
# What is hardly felt is not zero.
_LEAST_SENSITIVE = 0.02


@dataclass(frozen=True)
class Probe:
    """A model that tells about the device.

    Attributes:
        name: What it depends on: "compute", "cache", "memory"; or "reference", a network of the kind being measured.
        model: Its TFLite file.
    """

    name: str
    model: bytes

    @cached_property
    def kept_as(self) -> str:
        """What its floor is kept under: searches of several spaces have several reference networks."""
        return f"{self.name} {hashlib.sha256(self.model).hexdigest()[:12]}" if self.name == REFERENCE else self.name


@dataclass(frozen=True)
class ProbeState:
    """How one probe stands.

    Attributes:
        name: Its name.
        floor_ms: Its undisturbed time in milliseconds, None while not known.
        level: Lowest of its last visits over the floor; 1.0 where the device is as fast as ever seen.
        median_level: Median of its last visits over the floor.
        quiet_share: Share of its last visits that were quiet.
        visits: How many these are.
        high_level: 90th percentile of its last visits over the floor: how far they spread.
        session_ms: Its undisturbed time as this session alone has seen it, in milliseconds; None while not known.
    """

    name: str
    floor_ms: float | None
    level: float | None
    median_level: float | None
    quiet_share: float
    visits: int
    high_level: float | None = None
    session_ms: float | None = None


@dataclass
class _Watched:
    probe: Probe
    floor_ms: float | None
    recent: deque[VisitTime]
    remembered: deque[VisitTime]
    first_floor_ms: float | None = None
    session_ms: float | None = None
    reached_s: float | None = None

    def quiet(self, visits: Iterable[VisitTime], settings: VisitSettings, sensitivity: float = 1.0) -> int:
        """How many of the visits were quiet for a network that feels so much of what disturbs the probe."""
        if self.floor_ms is None:
            return 0
        highest_ms = self.floor_ms * (1 + settings.probe_tolerance) ** (1 / max(sensitivity, _LEAST_SENSITIVE))
        return sum(visit.time_ms <= highest_ms for visit in visits)


class ProbeWatch:
    """Keeps the last visits of probes and what follows from them.

    Args:
        probes: What is watched.
        settings: See `VisitSettings`.
        floors_ms: Floors of earlier sessions by name.
        clock: Seconds of measuring, from any origin; tests may pass their own.
    """

    def __init__(
        self,
        probes: Sequence[Probe],
        settings: VisitSettings,
        floors_ms: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._clock = settings, clock
        known = floors_ms or {}
        self._watched = {
            probe.name: _Watched(
                probe, known.get(probe.name), deque(maxlen=settings.probe_window), deque(maxlen=_REMEMBERED)
            )
            for probe in probes
        }

    @property
    def probes(self) -> tuple[Probe, ...]:
        """What is watched."""
        return tuple(watched.probe for watched in self._watched.values())

    @property
    def floors_ms(self) -> dict[str, float]:
        """The floors that are known, in milliseconds by name."""
        return {name: one.floor_ms for name, one in self._watched.items() if one.floor_ms is not None}

    def drop(self, name: str) -> None:
        """Watches a probe no longer: the device does not run it."""
        self._watched.pop(name, None)

    def take(self, name: str, time_ms: float, round_number: int) -> str:
        """Takes note of a visit.

        Returns:
            Why what was measured before is not comparable with what comes, "" if it is: the device has settled at
            another speed, and the floors have been replaced; or the floor was none, since the device can be quieter.
        """
        one = self._watched.get(name)
        if one is None:
            return ""
        now_s = self._clock()
        one.recent.append(VisitTime(time_ms, round_number))
        one.remembered.append(VisitTime(time_ms, round_number))
        found, quieter = agreed(one.recent, self._settings), ""
        if found is not None and (one.floor_ms is None or found.latency_ms < one.floor_ms):
            if one.floor_ms is not None and found.latency_ms * (1 + self._settings.probe_tolerance) < one.floor_ms:
                quieter = f"the {name} probe takes {found.latency_ms / one.floor_ms:.2f} times its time so far"
            one.floor_ms = found.latency_ms
        if found is not None and (one.session_ms is None or found.latency_ms < one.session_ms):
            one.session_ms = found.latency_ms
        if one.first_floor_ms is None:
            one.first_floor_ms = one.floor_ms
        if one.reached_s is None or one.floor_ms is None or one.quiet(one.recent, self._settings):
            one.reached_s = now_s
        if found is None or now_s - one.reached_s <= self._settings.settle_s or not self.is_throttled:
            return quieter
        self._settle(now_s)
        return f"all probes have been slow for {self._settings.settle_s:.0f} s"

    def quiet_share(self, visits: Sequence[VisitTime] = ()) -> float | None:
        """Returns a guess of the share of visits that are quiet: of the probe that is disturbed most.

        Args:
            visits: Ask for the probes' visits since the first of these to a network, what was before being worth two
                of them: a disturbance may have begun since. What the network hardly feels does not disturb it, see
                `quiet.sensitivity`. Without any, for the last visits.

        Returns:
            The share, None without any probe.
        """
        return min((self._share(one, visits) for one in self._watched.values()), default=None)

    def _share(self, one: _Watched, visits: Sequence[VisitTime]) -> float:
        if not visits:
            return likely_share(one.quiet(one.recent, self._settings), len(one.recent))
        first_round = min(visit.round for visit in visits)
        since = [visit for visit in one.remembered if visit.round >= first_round]
        felt = sensitivity([v.time_ms for v in visits], [v.time_ms for v in since], self._settings)
        last = likely_share(one.quiet(one.recent, self._settings, felt), len(one.recent))
        return (one.quiet(since, self._settings, felt) + _WORTH_OF_EARLIER * last) / (len(since) + _WORTH_OF_EARLIER)

    def corrected(self, visits: Sequence[VisitTime]) -> QuietLatency | None:
        """Returns a latency by the ratio to the reference network, None without one or if that says too little."""
        reference = self._watched.get(REFERENCE)
        if reference is None or reference.floor_ms is None:
            return None
        return corrected(visits, reference.remembered, reference.floor_ms, self._settings)

    def states(self) -> list[ProbeState]:
        """Returns how each probe stands."""
        return [self._state(one) for one in self._watched.values()]

    def drift_ratio(self) -> float | None:
        """Returns the time of the compute probe, or else of the first, over what it was first; 1.0 is no drift."""
        one = self._watched.get("compute") or next(iter(self._watched.values()), None)
        if one is None or one.first_floor_ms is None or not one.recent:
            return None
        return min(visit.time_ms for visit in one.recent) / one.first_floor_ms

    def disturbance(self) -> str:
        """Returns what keeps the device from being quiet, in words; "" if nothing is seen."""
        slow = {
            state.name: state.level
            for state in self.states()
            if state.level is not None and state.level > 1 + self._settings.probe_tolerance
        }
        if slow and len(slow) == len(self._watched):
            return f"all probes take at least {min(slow.values()):.2f} times as long as when undisturbed"
        if slow:
            name, level = max(slow.items(), key=lambda item: item[1])
            return f"the {name} probe takes {level:.2f} times as long as when undisturbed: other programs are busy"
        share = self.quiet_share()
        if share is not None and share < 0.5:
            return f"only about {share:.0%} of the visits are undisturbed: other programs are busy"
        return ""

    def slow_since(self, round_number: int) -> str:
        """Returns how slow all probes were in each visit from a round on, in words; "" if one was undisturbed.

        What the last visits say is too late for what is measured just after a device has become slow for long. "" also
        where there were too few visits to tell.
        """
        levels = [
            visit.time_ms / one.floor_ms
            for one in self._watched.values()
            for visit in one.recent
            if one.floor_ms is not None and visit.round >= round_number
        ]
        if len(levels) < self._settings.agreeing or min(levels) <= 1 + self._settings.probe_tolerance:
            return ""
        return f"all probes took at least {min(levels):.2f} times as long as when undisturbed"

    @property
    def is_throttled(self) -> bool:
        """Whether every probe, the compute-bound one too, is slow: throttling rather than contention."""
        levels = [state.level for state in self.states()]
        return bool(levels) and all(
            level is not None and level > 1 + self._settings.probe_tolerance for level in levels
        )

    def _settle(self, now_s: float) -> None:
        """Takes the present times for undisturbed ones."""
        for one in self._watched.values():
            found = agreed(one.recent, self._settings)
            one.floor_ms = min(visit.time_ms for visit in one.recent) if found is None else found.latency_ms
            one.session_ms = one.floor_ms
            one.reached_s = now_s

    def _state(self, one: _Watched) -> ProbeState:
        times_ms = [visit.time_ms for visit in one.recent]
        known = one.floor_ms if times_ms else None
        return ProbeState(
            one.probe.name,
            one.floor_ms,
            None if known is None else min(times_ms) / known,
            None if known is None else statistics.median(times_ms) / known,
            one.quiet(one.recent, self._settings) / len(times_ms) if times_ms else 0.0,
            len(times_ms),
            None if known is None else quantile(sorted(times_ms), 0.9) / known,
            one.session_ms,
        )
