"""A device that measures in visits: short ones, spread over time, shuffled among all that is to be measured.

    round 1: c P a b   round 2: a c b P   ...   until the lowest visits of each agree, or its time is over

Where the way to the device takes long, a few rounds are asked for at once.

Files that are measured together share rounds, so whatever disturbs hits all of them alike, and ratios within a round
are known better than any latency. Probes (P, see `probe_watch`) tell how quiet the device is, and so how many visits it
takes to believe the lowest ones.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from device_agents.api import BenchmarkSpec, DeviceAgent, DeviceInfo, Measurement, MeasureRequest, Verdict, Visit
from device_agents.errors import DeviceUnavailableError
from device_agents.floors import FloorKey, FloorStore
from device_agents.probe_models import PROBE_MODELS
from device_agents.probe_watch import REFERENCE, Probe, ProbeState, ProbeWatch
from device_agents.quiet import VisitSettings, VisitTime, time_of
from device_agents.verdicts import DEVICE_FAULTS, assess_visits, is_failure, needed_visits

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOG = logging.getLogger(__name__)
_WAITING = (Verdict.CONTENDED, Verdict.THROTTLED)


@dataclass
class VisitedFile:
    """A file while it is being measured.

    Attributes:
        model: TFLite file.
        spec: Settings of the whole measurement.
        visits: The measurement of each visit so far.
        rounds: The round that each was part of.
        at_s: When each was, in seconds since the first.
        answer: The measurement, once there is enough.
    """

    model: bytes
    spec: BenchmarkSpec
    visits: list[Measurement] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    at_s: list[float] = field(default_factory=list)
    answer: Measurement | None = None

    @classmethod
    def of(cls, model: bytes, spec: BenchmarkSpec, measurement: Measurement) -> VisitedFile:
        """Returns a file with the visits that a measurement was made of, without an answer: it can be visited further.

        Args:
            model: TFLite file.
            spec: Settings of the whole measurement.
            measurement: What `joined` returned, assessed or not; visits that failed are left out.
        """
        file = cls(model, spec)
        total_ms = math.fsum(measurement.samples_ms)
        start = 0
        for visit in measurement.visits:
            samples_ms = measurement.samples_ms[start : start + visit.samples]
            start += visit.samples
            if samples_ms:
                share = math.fsum(samples_ms) / total_ms if total_ms else 1 / len(measurement.visits)
                file.add(_apart(measurement, visit, samples_ms, share, not file.visits), visit.round, visit.at_s)
        return file

    def add(self, measurement: Measurement, round_number: int, at_s: float) -> None:
        """Takes note of a visit."""
        # Ctrl-C may come between these: a visit counts once it is in `visits`.
        self.at_s.append(at_s)
        self.rounds.append(round_number)
        self.visits.append(measurement)

    @property
    def timed_s(self) -> float:
        """Seconds in timed runs so far, at least."""
        return math.fsum(sum(visit.samples_ms) * (visit.runs_per_sample or 1) for visit in self.visits) / 1e3

    @property
    def runs(self) -> int:
        """Timed runs so far."""
        return sum(visit.runs or 0 for visit in self.visits)

    def times(self, settings: VisitSettings) -> list[VisitTime]:
        """Returns the time of each visit in which the device was not seen throttling."""
        return [
            VisitTime(time_of(visit.samples_ms, settings), number)
            for visit, number in zip(self.visits, self.rounds, strict=False)
            if visit.samples_ms and visit.verdict is not Verdict.THROTTLED
        ]

    def joined(self) -> Measurement:
        """Returns all visits as one measurement that is not assessed yet; there must be one."""
        count = len(self.visits)
        return join_visits(self.visits, self.rounds[:count], self.at_s[:count])


@dataclass(frozen=True)
class _ProbeVisit:
    watch: ProbeWatch
    probe: Probe
    spec: BenchmarkSpec

    @property
    def model(self) -> bytes:
        return self.probe.model


def builtin_probes() -> list[Probe]:
    """Returns the probes that need no network of the user's; none where they cannot be made on this machine."""
    with contextlib.suppress(DeviceUnavailableError):
        return [Probe(name, model()) for name, model in PROBE_MODELS.items()]
    return []


class VisitingAgent(DeviceAgent):
    """An agent around an agent, which it closes: it measures in visits.

    Where a probe cannot be run (an accelerator that refuses it), that one says nothing. A device of recordings is asked
    once for each measurement.

    Args:
        agent: The device.
        probes: What tells how quiet it is; None for the built-in ones.
        floors: Where the probes' floors are kept; None keeps none.
        settings: None for the usual ones.
        seed: Of the order of the visits.
        on_drift: Called in the measuring thread with the time, by `clock`, since which what was measured is suspect.
        clock: Seconds from any origin, never set back; tests may pass their own.
        sleep: Waits for so many seconds; likewise.
    """

    def __init__(
        self,
        agent: DeviceAgent,
        *,
        probes: Sequence[Probe] | None = None,
        floors: FloorStore | None = None,
        settings: VisitSettings | None = None,
        seed: int = 0,
        on_drift: Callable[[float], None] = lambda since_s: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._agent, self._floors = agent, floors or FloorStore(None)
        self._probes = builtin_probes() if probes is None else probes
        self.recorded, self.rounds_at_once = agent.recorded, agent.rounds_at_once
        self.settings = settings or VisitSettings()
        self._random = random.Random(seed)
        self._on_drift, self._clock, self._sleep = on_drift, clock, sleep
        self._watches: dict[FloorKey, ProbeWatch] = {}
        self._round = 0
        self._known: DeviceInfo | None = None
        self._settled_s = clock()
        self._waited_s = 0.0  # for the device to be quiet, since it was last

    def info(self) -> DeviceInfo:
        """See `DeviceAgent`."""
        self._known = self._agent.info()
        return self._known

    def take_examples(self, examples: NDArray[Any]) -> str:
        """See `DeviceAgent`."""
        return self._agent.take_examples(examples)

    def cores(self, kind: str) -> tuple[int, ...]:
        """See `DeviceAgent`."""
        return self._agent.cores(kind)

    def run(self, model: bytes, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """See `DeviceAgent`."""
        return self._agent.run(model, inputs)

    def measure(self, model: bytes, spec: BenchmarkSpec) -> Measurement:
        """Measures a model in visits."""
        return self.measure_all([(model, spec)])[0]

    def measure_all(self, requests: Sequence[MeasureRequest]) -> list[Measurement]:
        """Measures models in visits, all of them side by side."""
        files = [VisitedFile(model, spec) for model, spec in requests]
        for _ in self.rounds(files):
            pass
        return [file.answer for file in files if file.answer is not None]

    def rounds(self, files: Sequence[VisitedFile]) -> Iterator[int]:
        """Visits files until each has its answer, and yields the number of the last round after each it asked for.

        Files may come with visits of an earlier session, or with an answer: those are not visited, but rounds are
        numbered on from theirs. Where the device has recordings, a round is one file.

        Raises:
            DeviceError: If the bench itself is broken; what was visited is in the files.
        """
        if self.recorded:
            for file in files:
                if file.answer is None:
                    file.answer = self._agent.measure(file.model, file.spec)
                    yield self._round
            return
        started_s = self._clock() - max((at_s for file in files for at_s in file.at_s), default=0.0)
        self._round = max([self._round, *(number for file in files for number in file.rounds)])
        while active := [file for file in files if file.answer is None]:
            if self._visit(active, self.rounds_at_once, started_s):
                # What was believed before this round may have been disturbed.
                active = [file for file in files if file.answer is None or file.answer.ok]
            answers = [self._answer(file) for file in active]
            due = [answer for answer in answers if answer is not None]
            if any(answer.ok for answer in due):
                self._waited_s = 0.0
            # A disturbance that lasts is waited for, once for all that are measured together; and where that was in
            # vain, not again before the device was quiet.
            elif any(answer.verdict in _WAITING for answer in due) and self._waited_s < active[0].spec.patience_s:
                self._sleep(self.settings.pause_s)
                self._waited_s += self.settings.pause_s
                answers = [None if answer is None or answer.verdict in _WAITING else answer for answer in answers]
            for file, answer in zip(active, answers, strict=True):
                file.answer = answer
            yield self._round

    def probe_states(self) -> list[ProbeState]:
        """Returns how each probe stands, for each set of settings that was measured with."""
        return [state for watch in self._watches.values() for state in watch.states()]

    def watch_of(self, spec: BenchmarkSpec) -> ProbeWatch | None:
        """Returns what watches the probes with these settings, None where nothing was measured with them."""
        return self._watches.get(self._key(spec))

    def provisional(self, file: VisitedFile) -> Measurement:
        """Returns what is known of a file that has visits, be there enough of them or not."""
        return self._assessed(file) if file.answer is None else file.answer

    def watch_probes(self, spec: BenchmarkSpec, rounds: int) -> ProbeWatch:
        """Visits the probes alone, so many rounds, and returns what they say.

        Raises:
            DeviceError: If the bench itself is broken.
        """
        watch = self._calibrated(spec)
        for count in self._at_once(rounds):
            self._visit_probes(watch, spec, count)
        return watch

    def close(self) -> None:
        """Keeps the floors of the probes, and closes."""
        self._keep_floors()
        self._agent.close()

    def _keep_floors(self) -> None:
        for key, watch in self._watches.items():
            floors_ms = watch.floors_ms
            kept = {probe.kept_as: floors_ms[probe.name] for probe in watch.probes if probe.name in floors_ms}
            self._floors.keep(key, kept)

    def _calibrated(self, spec: BenchmarkSpec) -> ProbeWatch:
        """Returns the probes' watch for these settings; the first time, visits them until their floors are known."""
        key = self._key(spec)
        if key not in self._watches:
            kept = self._floors.read(key)
            known = {probe.name: kept[probe.kept_as] for probe in self._probes if probe.kept_as in kept}
            watch = ProbeWatch(self._probes, self.settings, known, self._clock)
            is_known = all(probe.name in known for probe in watch.probes)
            for count in self._at_once(self.settings.agreeing if is_known else self.settings.calibration_rounds):
                self._visit_probes(watch, spec, count)
            self._watches[key] = watch
            self._keep_floors()
        return self._watches[key]

    def _key(self, spec: BenchmarkSpec) -> FloorKey:
        return FloorKey.of(self._known or self.info(), spec)

    def _at_once(self, rounds: int) -> Iterator[int]:
        """Shares out rounds among as few calls as the device is asked in."""
        for done in range(0, rounds, self.rounds_at_once):
            yield min(self.rounds_at_once, rounds - done)

    def _visit(self, files: Sequence[VisitedFile], rounds: int, started_s: float) -> bool:
        """Makes rounds: in each every file once and, for each set of settings, some of the probes, in random order.

        Returns:
            Whether the probes say that what was measured before is not comparable with what comes.
        """
        groups: dict[FloorKey, list[VisitedFile]] = {}
        for file in files:
            groups.setdefault(self._key(file.spec), []).append(file)
        # Calibrating a watch takes rounds of its own.
        watches = [(self._calibrated(group[0].spec), group) for group in groups.values()]

        def of_round() -> list[VisitedFile | _ProbeVisit]:
            return [*files, *(visit for watch, group in watches for visit in self._probe_visits(watch, group))]

        return self._make_rounds(of_round, rounds, started_s)

    def _visit_probes(self, watch: ProbeWatch, spec: BenchmarkSpec, rounds: int) -> bool:
        """Makes rounds of probes alone, see `_visit`."""
        of_visit = self._probe_spec(spec)
        return self._make_rounds(lambda: [_ProbeVisit(watch, probe, of_visit) for probe in watch.probes], rounds, 0.0)

    def _make_rounds(
        self, of_round: Callable[[], Sequence[VisitedFile | _ProbeVisit]], rounds: int, started_s: float
    ) -> bool:
        plan: list[tuple[VisitedFile | _ProbeVisit, int]] = []
        for _ in range(rounds):
            self._round += 1
            visited = list(of_round())
            self._random.shuffle(visited)
            plan += [(one, self._round) for one in visited]
        began_s = self._clock()
        measured = self._agent.measure_all(
            [
                (one.model, self.settings.of_visit(one.spec) if isinstance(one, VisitedFile) else one.spec)
                for one, _ in plan
            ]
        )
        took_s, changed = self._clock() - began_s, False
        for done, ((one, number), measurement) in enumerate(zip(plan, measured, strict=True), 1):
            if isinstance(one, VisitedFile):
                # When each ended is not known; that they follow one another is.
                one.add(measurement, number, max(0.0, began_s - started_s + took_s * done / len(plan)))
            else:
                changed |= self._take_probe(one.watch, one.probe, measurement, number)
        return changed

    def _probe_visits(self, watch: ProbeWatch, files: Sequence[VisitedFile]) -> list[_ProbeVisit]:
        """All probes; but in turns among few files, so that they do not take longer than what is measured."""
        probes = list(watch.probes)
        if len(files) < len(probes):
            chosen = {probes[(self._round + i) % len(probes)].name for i in range(len(files))}
            probes = [probe for probe in probes if probe.name in chosen or probe.name == REFERENCE]
        spec = self._probe_spec(files[0].spec)
        return [_ProbeVisit(watch, probe, spec) for probe in probes]

    def _probe_spec(self, spec: BenchmarkSpec) -> BenchmarkSpec:
        duration_s = self.settings.probe_duration_s
        of_visit = self.settings.of_visit(spec.replace(input_shapes=(), inputs=""))
        return of_visit.replace(min_duration_s=duration_s, max_duration_s=duration_s)

    def _take_probe(self, watch: ProbeWatch, probe: Probe, measurement: Measurement, number: int) -> bool:
        if is_failure(measurement):
            if measurement.verdict not in DEVICE_FAULTS:
                watch.drop(probe.name)
            return False
        changed = watch.take(probe.name, time_of(measurement.samples_ms, self.settings), number)
        if changed and watch in self._watches.values():  # while they are calibrated, nothing was measured yet
            _LOG.warning("%s is at another speed than before: %s", self.info().model, changed)
            self._on_drift(self._settled_s)
            self._settled_s = self._clock()
        return bool(changed)

    def _answer(self, file: VisitedFile) -> Measurement | None:
        """Returns the measurement of a file if there is enough."""
        failed = next((visit for visit in file.visits[-self.rounds_at_once :] if is_failure(visit)), None)
        if failed is not None:
            return file.joined().with_verdict(failed.verdict, failed.detail)
        if file.timed_s < file.spec.min_duration_s or file.runs < file.spec.min_runs:
            return None
        assessed = self._assessed(file)
        over = self._is_hopeless(file) or (
            file.timed_s >= file.spec.max_duration_s and len(file.visits) >= self.settings.fewest_before_giving_up
        )
        if assessed.verdict in (Verdict.CORRECTED, *_WAITING) and not over:
            return None
        return assessed

    def _is_hopeless(self, file: VisitedFile) -> bool:
        """Whether a measurement would take many more visits than its time allows, with the device as it is."""
        visits, watch = file.times(self.settings), self.watch_of(file.spec)
        if len(visits) < self.settings.hopeless_after or watch is None:
            return False
        most = file.spec.max_duration_s * len(visits) / max(file.timed_s, 1e-9)
        return needed_visits(visits, file.spec, self.settings, watch) > 2 * most

    def _assessed(self, file: VisitedFile) -> Measurement:
        watch = self.watch_of(file.spec) or ProbeWatch((), self.settings)
        measurement = file.joined()
        if measurement.conditions is not None:
            conditions = replace(measurement.conditions, anchor_ratio=watch.drift_ratio())
            measurement = replace(measurement, conditions=conditions)
        assessed = assess_visits(measurement, file.times(self.settings), file.spec, self.settings, watch)
        hot = next((visit for visit in reversed(file.visits) if visit.verdict is Verdict.THROTTLED), None)
        if hot is not None and not assessed.ok:  # what the device says of itself is more than what its probes suggest
            return assessed.with_verdict(hot.verdict, hot.detail)
        return assessed


def _apart(
    measurement: Measurement, visit: Visit, samples_ms: tuple[float, ...], share: float, first: bool
) -> Measurement:
    """Returns one visit of a measurement; loading and warm-up, of which only the sums are known, go to the first."""
    conditions = measurement.conditions
    return replace(
        measurement,
        verdict=Verdict.OK,
        detail="",
        samples_ms=samples_ms,
        init_ms=measurement.init_ms if first else None,
        first_inference_ms=measurement.first_inference_ms if first else None,
        warmup_runs=measurement.warmup_runs if first else 0,
        busy_s=measurement.busy_s * share,
        profile=(),
        profile_note="",
        visits=(),
        quiet=None,
        conditions=None if conditions is None else replace(conditions, wait_share=visit.wait_share),
    )


def join_visits(visits: Sequence[Measurement], rounds: Sequence[int], at_s: Sequence[float]) -> Measurement:
    """Returns one measurement out of the visits to a model, of the last one's verdict.

    Args:
        visits: At least one, in the order of time.
        rounds: The round of each.
        at_s: When each was, in seconds.
    """
    blocks = [visit.runs_per_sample for visit in visits if visit.samples_ms]
    peaks = [visit.peak_memory_bytes for visit in visits if visit.peak_memory_bytes is not None]
    energies_mj = [visit.energy_mj for visit in visits if visit.energy_mj is not None]
    startups_ms = [visit.startup_ms for visit in visits if visit.startup_ms is not None]
    loads = [visit for visit in visits if visit.init_ms is not None] or [visits[0]]
    # A visit in which the device was lost has none.
    known = [visit.conditions for visit in visits if visit.conditions is not None]
    conditions = None
    if known:
        first, last = known[0], known[-1]
        events = [v.conditions.throttle_events for v in visits if v.conditions and v.conditions.throttle_events]
        conditions = replace(
            first,
            delegate_kernels=next((v.conditions.delegate_kernels for v in loads if v.conditions), None),
            cpu_mhz_after=last.cpu_mhz_after,
            temperature_c_after=last.temperature_c_after,
            load_average_after=last.load_average_after,
            throttle_events=sum(events) if events else first.throttle_events,
            other_load_cores=_mean([(v.conditions.other_load_cores, v.busy_s) for v in visits if v.conditions]),
            wait_share=_mean([(v.conditions.wait_share, v.busy_s) for v in visits if v.conditions]),
        )
    return replace(
        visits[-1],
        samples_ms=tuple(sample for visit in visits for sample in visit.samples_ms),
        runs_per_sample=None if None in blocks else min(filter(None, blocks), default=1),
        init_ms=loads[0].init_ms,
        startup_ms=statistics.median(startups_ms) if startups_ms else None,
        first_inference_ms=loads[0].first_inference_ms,
        warmup_runs=sum(visit.warmup_runs or 0 for visit in visits),
        busy_s=math.fsum(visit.busy_s for visit in visits),
        peak_memory_bytes=max(peaks, default=None),
        energy_mj=statistics.median(energies_mj) if energies_mj else None,
        energy_note=next((v.energy_note for v in visits if v.energy_mj is not None), visits[-1].energy_note),
        attempts=1,
        visits=tuple(
            Visit(len(visit.samples_ms), number, seconds, visit.conditions.wait_share if visit.conditions else None)
            for visit, number, seconds in zip(visits, rounds, at_s, strict=True)
        ),
        conditions=conditions,
    )


def _mean(values: Sequence[tuple[float | None, float]]) -> float | None:
    """Mean of the known values, weighted by their seconds."""
    known = [(value, weight) for value, weight in values if value is not None]
    total = math.fsum(weight for _, weight in known)
    if not known or total <= 0:
        return None
    return math.fsum(value * weight for value, weight in known) / total
