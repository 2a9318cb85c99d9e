"""Keeps devices busy: one queue per device kind, one thread per device.

    submit(model or function) -> waiting --prepare--> ready --device threads--> Future

A device measures several candidates together, so that they share rounds of visits; meanwhile the bytes of the next are
produced. Devices of
different kinds (`DeviceInfo.fingerprint`) never share a queue, so their latencies cannot
mix. A candidate whose device is lost is tried on another one of the same kind; a device
that fails repeatedly is quarantined and comes back once it answers again.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from device_agents.api import BenchmarkSpec, DeviceAgent, DeviceInfo, Measurement, MeasureRequest, Verdict
from device_agents.errors import BenchFailedError, DeviceError, DeviceUnavailableError, ModelError, SpecError
from device_agents.verdicts import DEVICE_FAULTS, verdict_of_error
from device_agents.wording import words_of
from device_agents.worker.system import allowed_cores

if TYPE_CHECKING:
    from numpy.typing import NDArray

Model = bytes | Callable[[], bytes]


@dataclass(frozen=True)
class PoolSettings:
    """How a pool works.

    Attributes:
        together: Candidates that a device measures together at most.
        gather_s: How long a device that has work waits for more that is being prepared, to measure it together.
        prefetch: Candidates per device whose bytes are kept ready, in multiples of that.
        max_tries: How many devices a candidate may lose before it is given up.
        max_faults: Faults in a row after which a device is quarantined.
        quarantine_s: Seconds until a quarantined device is asked again.
        lost_after_s: Seconds without any working device of a kind after which the
            futures of the candidates waiting for it raise.
    """

    together: int = 8
    gather_s: float = 0.05
    prefetch: int = 1
    max_tries: int = 3
    max_faults: int = 3
    quarantine_s: float = 10.0
    lost_after_s: float = 120.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise SpecError(f"{name} must be above 0", received=f"{value!r}")


@dataclass(frozen=True)
class DeviceStatus:
    """One device of a pool at one moment.

    Attributes:
        info: The device.
        state: "idle", "measuring" or "quarantined".
        state_s: Seconds it has been in that state.
        measured: Candidates it has answered.
        faults: Times it failed itself.
        last_fault: Why it failed the last time, or "".
    """

    info: DeviceInfo
    state: str
    state_s: float
    measured: int
    faults: int
    last_fault: str


class DevicePool:
    """Measures candidates on several devices at once; owns and closes its agents.

    Args:
        agents: At least one, each another device.
        settings: See `PoolSettings`.
    """

    def __init__(self, agents: Sequence[DeviceAgent], settings: PoolSettings = PoolSettings()) -> None:
        if not agents:
            raise DeviceUnavailableError("No device for the pool", expected="at least one agent")
        self._groups: dict[str, _Group] = {}
        for agent in agents:
            info = agent.info()
            group = self._groups.setdefault(info.fingerprint, _Group(settings))
            group.devices.append(_Device(agent, info))
        for group in self._groups.values():
            group.start()

    @property
    def kinds(self) -> dict[str, str]:
        """Fingerprint and model name of each kind of device in the pool."""
        return {key: group.devices[0].info.model for key, group in self._groups.items()}

    def submit(self, model: Model, spec: BenchmarkSpec, kind: str | None = None) -> Future[Measurement]:
        """Queues a candidate.

        Args:
            model: A TFLite file, or a function that returns one; the function is called in
                another thread. If it raises, the verdict is `convert_failed`.
            spec: How to measure.
            kind: Fingerprint of the kind of device; may be left out if there is one kind.

        Returns:
            A future of the measurement. It raises DeviceUnavailableError if the devices are
            gone and do not come back; else only if the settings do not fit the device or the
            agent has a bug.

        Raises:
            DeviceUnavailableError: If there is no such kind or the pool is closed.
        """
        return self._group(kind).submit([_Job(model, spec)])[0]

    def submit_all(self, requests: Sequence[MeasureRequest], kind: str | None = None) -> list[Future[Measurement]]:
        """Queues models that are visited together, as far as `PoolSettings.together` allows.

        Args:
            requests: What is asked of `DeviceAgent.measure_all`, also for those that are left to be tried again.
            kind: See `submit`.

        Returns:
            A future of each measurement, see `submit`.

        Raises:
            DeviceUnavailableError: If there is no such kind or the pool is closed.
        """
        return self._group(kind).submit([_Job(model, spec, is_visit=True) for model, spec in requests])

    def run(self, model: bytes, inputs: Sequence[NDArray[Any]], kind: str | None = None) -> Future[list[NDArray[Any]]]:
        """Queues one run of a model, for checking its outputs; see `DeviceAgent.run`.

        Returns:
            A future of the outputs. It raises ModelError if the model or the inputs do not work, and
            DeviceUnavailableError as that of `submit` does.
        """
        return self._group(kind).submit([_Job(model, BenchmarkSpec(), inputs)])[0]

    def status(self) -> list[DeviceStatus]:
        """Returns the state of every device."""
        return [status for group in self._groups.values() for status in group.status()]

    @property
    def queued(self) -> int:
        """Candidates that wait for a device."""
        return sum(group.queued for group in self._groups.values())

    def close(self) -> None:
        """Cancels what waits, finishes what is being measured, closes the agents."""
        for group in self._groups.values():
            group.stop()
        for group in self._groups.values():
            group.join()

    def __enter__(self) -> DevicePool:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _group(self, kind: str | None) -> _Group:
        if kind is None and len(self._groups) == 1:
            return next(iter(self._groups.values()))
        if kind in self._groups:
            return self._groups[kind]
        known = ", ".join(f"{key} ({model})" for key, model in self.kinds.items())
        raise DeviceUnavailableError(expected=f"a device kind out of {known}", received=f"{kind!r}")


@dataclass(eq=False)
class _Job:
    model: Model
    spec: BenchmarkSpec
    inputs: Sequence[NDArray[Any]] | None = None  # to be run with, instead of being measured
    is_visit: bool = False  # never measured in one go, not even alone
    future: Future[Any] = field(default_factory=Future)
    data: bytes = b""
    tries: int = 0
    lost: set[int] = field(default_factory=set)  # ids of devices that failed with it
    fault: Verdict = Verdict.DEVICE_LOST  # how the last of them did

    @property
    def may_share(self) -> bool:
        return self.inputs is None and not self.tries


@dataclass(eq=False)
class _Device:
    agent: DeviceAgent
    info: DeviceInfo
    state: str = "idle"
    since_s: float = field(default_factory=time.monotonic)  # when that state began
    measured: int = 0
    faults: int = 0
    faults_in_a_row: int = 0
    last_fault: str = ""
    last_verdict: Verdict = Verdict.DEVICE_LOST  # on what that fault befell

    def enter(self, state: str) -> None:
        self.state, self.since_s = state, time.monotonic()

    def status(self) -> DeviceStatus:
        state_s = time.monotonic() - self.since_s
        return DeviceStatus(self.info, self.state, state_s, self.measured, self.faults, self.last_fault)


class _Group:
    """The devices of one kind and their queue. `_changed` guards everything in it."""

    def __init__(self, settings: PoolSettings) -> None:
        self.devices: list[_Device] = []
        self._settings = settings
        self._changed = threading.Condition()
        self._waiting: deque[_Job] = deque()
        self._ready: deque[_Job] = deque()
        self._preparing = False
        self._closed = False
        self._none_works_since_s: float | None = None
        self._quiet = threading.Lock()  # held while this host times a model
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        targets = [lambda d=device: self._serve(d) for device in self.devices]
        for target in (self._prepare_all, *targets):
            thread = threading.Thread(target=target, daemon=True)
            self._threads.append(thread)
            thread.start()

    def submit(self, jobs: Sequence[_Job]) -> list[Future[Any]]:
        with self._changed:
            if self._closed:
                raise DeviceUnavailableError("The pool is closed", fix="submit before closing it")
            self._waiting.extend(jobs)
            self._changed.notify_all()
        return [job.future for job in jobs]

    def status(self) -> list[DeviceStatus]:
        with self._changed:
            return [device.status() for device in self.devices]

    @property
    def queued(self) -> int:
        with self._changed:
            return len(self._waiting) + len(self._ready)

    def stop(self) -> None:
        with self._changed:
            self._closed = True
            jobs = [*self._waiting, *self._ready]
            self._waiting.clear()
            self._ready.clear()
            self._changed.notify_all()
        for job in jobs:
            _cancel(job)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()
        for device in self.devices:
            device.agent.close()

    # Preparing: one thread per group turns waiting jobs into ready ones.

    def _prepare_all(self) -> None:
        while (job := self._next_waiting()) is not None:
            if _begin(job):
                self._prepare(job)
            with self._changed:
                self._preparing = False
                self._changed.notify_all()

    def _prepare(self, job: _Job) -> None:
        try:
            job.data = self._produce(job)
        except Exception as error:  # the caller's function may raise anything
            job.future.set_result(Measurement(Verdict.CONVERT_FAILED, words_of(error)))
        else:
            self._put_ready(job)

    def _next_waiting(self) -> _Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or (self._waiting and len(self._ready) < self._depth))
            self._preparing = not self._closed
            return None if self._closed else self._waiting.popleft()

    @property
    def _depth(self) -> int:
        return self._settings.prefetch * self._settings.together * len(self.devices)

    def _put_ready(self, job: _Job, first: bool = False) -> None:
        with self._changed:
            if not self._closed:
                (self._ready.appendleft if first else self._ready.append)(job)
                self._changed.notify_all()
                return
        _cancel(job)

    def _produce(self, job: _Job) -> bytes:
        if isinstance(job.model, bytes):
            return job.model
        on_host = any(device.info.measures_on_host for device in self.devices)
        with self._apart_from(job.spec) if on_host else contextlib.nullcontext():
            return job.model()

    @contextlib.contextmanager
    def _apart_from(self, spec: BenchmarkSpec) -> Iterator[None]:
        """Keeps the block off the cores this host measures on, or else waits its turn."""
        usable = allowed_cores()
        rest = set(usable or ()) - set(spec.cores or usable or ())
        if not rest:
            with self._quiet:
                yield
            return
        # On Linux process id 0 means the calling thread here, not the whole process.
        os.sched_setaffinity(0, rest)
        try:
            yield
        finally:
            os.sched_setaffinity(0, usable or rest)

    # Measuring: one thread per device.

    def _serve(self, device: _Device) -> None:
        while jobs := self._next_ready(device):
            if jobs[0].tries >= self._settings.max_tries:  # and here is a device that works
                _give_up(jobs[0], device.last_fault)
                continue
            faults = self._answer(device, jobs)
            if not faults:
                continue
            there = self._retry_or_give_up(faults, device)
            if not there or device.faults_in_a_row >= self._settings.max_faults:
                self._quarantine(device, there)

    def _next_ready(self, device: _Device) -> list[_Job]:
        """Waits for jobs, and returns those that the device does next, together; none once the pool is closed."""
        with self._changed:
            device.enter("idle")
            jobs: list[_Job] = []
            while not jobs and not self._closed:
                self._changed.wait_for(lambda: self._closed or self._choose(device) is not None)
                self._changed.wait_for(lambda: self._closed or self._is_filled(), self._settings.gather_s)
                first = None if self._closed else self._choose(device)  # another device may have been faster
                jobs = [] if first is None else [first, *self._companions(first)]
            for job in jobs:
                self._ready.remove(job)
            if jobs:
                device.enter("measuring")
                self._changed.notify_all()
            return jobs

    def _is_filled(self) -> bool:
        """Whether no more is about to become ready, so that what was submitted together is measured together."""
        return not (self._preparing or self._waiting) or len(self._ready) >= self._depth

    def _companions(self, first: _Job) -> list[_Job]:
        """What is measured together with a job; one that was lost before is on its own, so that it harms no other."""
        if not first.may_share:
            return []
        others = [job for job in self._ready if job.may_share and job is not first]
        share = math.ceil((1 + len(others)) / len(self.devices))
        return others[: min(share, self._settings.together) - 1]

    def _choose(self, device: _Device) -> _Job | None:
        """The first ready job, but not one this device lost if another could take it."""
        others = {id(d) for d in self.devices if d.state != "quarantined"} - {id(device)}
        for job in self._ready:
            if id(device) not in job.lost or not others - job.lost:
                return job
        return None

    def _answer(self, device: _Device, jobs: Sequence[_Job]) -> list[tuple[_Job, str]]:
        """Does what the jobs ask for and answers them; returns those that the device failed with, and why."""
        try:
            with self._quiet if device.info.measures_on_host else contextlib.nullcontext():
                answers = _asked(device.agent, jobs)
        except (SpecError, ModelError) as error:  # the caller's mistake, not the device's
            return self._refused(device, jobs, error)
        except DeviceError as error:
            for job in jobs:
                job.fault = verdict_of_error(error)
            return [(job, str(error)) for job in jobs]
        except Exception as error:  # a bug in an agent must not leave a future hanging
            return self._refused(device, jobs, error)
        faults = []
        for job, answer in zip(jobs, answers, strict=True):
            if isinstance(answer, Measurement) and answer.verdict in DEVICE_FAULTS:
                job.fault = answer.verdict
                faults.append((job, answer.detail or "the device was lost"))
                continue
            with self._changed:
                device.measured += job.inputs is None
                device.faults_in_a_row = 0
                self._none_works_since_s = None
            job.future.set_result(answer)
        return faults

    def _refused(self, device: _Device, jobs: Sequence[_Job], error: Exception) -> list[tuple[_Job, str]]:
        """Answers a job with what is wrong with it; several are done one by one to see with which."""
        if len(jobs) == 1:
            jobs[0].future.set_exception(error)
            return []
        return [fault for job in jobs for fault in self._answer(device, [job])]

    def _retry_or_give_up(self, faults: Sequence[tuple[_Job, str]], device: _Device) -> bool:
        """Decides about jobs that their device lost; returns whether that device still answers.

        A candidate that has used up its tries is to blame only if the device is there without it: else it has to wait
        until one is back, or all are given up.
        """
        with self._changed:
            device.faults += 1
            device.faults_in_a_row += 1
            device.last_fault = faults[0][1]
        for job, _ in faults:
            job.tries += 1
            job.lost.add(id(device))
        # At once, so that a phone that is starting again does not use up the tries of its candidate.
        there = _answers(device)
        for job, fault in reversed(faults):
            if there and job.tries >= self._settings.max_tries:
                _give_up(job, fault)
            else:
                self._put_ready(job, first=True)
        return there

    # Quarantine: the device's own thread sleeps and asks.

    def _quarantine(self, device: _Device, there: bool) -> None:
        with self._changed:
            device.enter("quarantined")
            if all(d.state == "quarantined" for d in self.devices):
                self._none_works_since_s = self._none_works_since_s or time.monotonic()
            self._changed.notify_all()
        # One that does not answer may just be starting again, so it is asked soon, and then ever more rarely.
        wait_s = self._settings.quarantine_s / (1 if there else 32)
        while not self._wait_closed(wait_s):
            wait_s = min(2 * wait_s, self._settings.quarantine_s)
            if not _answers(device):
                self._fail_when_hopeless(device)
                continue
            # One more fault and it is back in quarantine.
            device.faults_in_a_row = self._settings.max_faults - 1
            return

    def _wait_closed(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._closed, timeout=seconds)

    def _fail_when_hopeless(self, device: _Device) -> None:
        with self._changed:
            since_s = self._none_works_since_s
            if since_s is None or time.monotonic() - since_s < self._settings.lost_after_s:
                return
            jobs = [*self._ready, *self._waiting]
            self._ready.clear()
            self._waiting.clear()
            self._changed.notify_all()
        for job in jobs:
            if job.future.running() or _begin(job):
                broken = device.last_verdict is Verdict.BENCH_FAILED
                error = BenchFailedError if broken else DeviceUnavailableError
                does = "works" if broken else "answers"
                job.future.set_exception(error(f"No device of this kind {does} any more: {device.last_fault}"))


def _asked(agent: DeviceAgent, jobs: Sequence[_Job]) -> Sequence[Any]:
    """Asks an agent for what the jobs are."""
    if jobs[0].inputs is not None:
        return [agent.run(jobs[0].data, jobs[0].inputs)]
    if len(jobs) == 1 and not jobs[0].is_visit:
        return [agent.measure(jobs[0].data, jobs[0].spec)]
    return agent.measure_all([(job.data, job.spec) for job in jobs])


def _answers(device: _Device) -> bool:
    """Whether the device is there; must be called in its thread."""
    try:
        device.agent.info()
    except DeviceError as error:
        device.last_fault, device.last_verdict = str(error), verdict_of_error(error)
        return False
    return True


def _give_up(job: _Job, fault: str) -> None:
    """Answers a job that its devices were lost with, although they work otherwise."""
    what = "lost by" if job.fault is Verdict.DEVICE_LOST else "failed on"
    why = f"{what} {job.tries} devices or attempts; the last: {fault}"
    if job.inputs is None:
        job.future.set_result(Measurement(job.fault, why, attempts=job.tries))
    else:
        job.future.set_exception(DeviceUnavailableError(why))


def _begin(job: _Job) -> bool:
    """Marks a job's future as running; False if its caller has cancelled it."""
    return job.future.set_running_or_notify_cancel()


def _cancel(job: _Job) -> None:
    """Cancels a job of a pool that is being closed."""
    if job.future.cancel():
        job.future.set_running_or_notify_cancel()  # wakes those who wait for it
    elif not job.future.done():
        # It was prepared already, and a running future cannot be cancelled any more.
        job.future.set_exception(CancelledError("the pool was closed"))
