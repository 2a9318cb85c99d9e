"""THE file to read: what a run does, in order.

    search = data -> space -> devices -> target -> one-shot search -> selection -> delivery
    delivery = train -> convert -> quantise -> check -> measure -> bundle

Each step is a function of this file over the rooms beside it. TensorFlow is imported inside the functions that need
it, so that importing this module stays light.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from device_agents.api import BenchmarkSpec, Measurement, parse_cores
from device_agents.devices import open_device
from device_agents.errors import DeviceError
from nas_edge.benchmarking.measure import cores_for, join, unique_addresses
from nas_edge.config import RunConfig
from nas_edge.data.preprocessing import Augmentation, Batches, Preprocessing, in_order, standardize
from nas_edge.data.sources import Dataset, load
from nas_edge.data.splits import Split, split
from nas_edge.errors import ConfigError, InfeasibleError, NasEdgeError, SpaceError, StoppedError, TrainingError
from nas_edge.export.bundle import check_new_bundle, slower_int8
from nas_edge.export.on_device import OnDeviceCheck, check_on_device
from nas_edge.latency import open_latency_source
from nas_edge.latency.cache import CachedSource, MeasuringKey, repair
from nas_edge.latency.device import DeviceSource
from nas_edge.latency.retry import RetryingSource
from nas_edge.latency.source import Candidate, LatencySource
from nas_edge.networks.graph import NetworkSpec, Weights
from nas_edge.progress import Reporter
from nas_edge.quiet import start_tensorflow
from nas_edge.rewards import Objective
from nas_edge.runs.environment import environment
from nas_edge.runs.interrupts import StopSignals
from nas_edge.runs.run import Run, RunFolderError
from nas_edge.search.trials import Trial
from nas_edge.seeds import generator, integer
from nas_edge.spaces import find_space
from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.spaces.reference import reference_network

# Rounds in which the delivered files are measured side by side.
FINAL_ROUNDS = 5
# Test images with which the delivered files are run on the device and here.
CHECKED_IMAGES = 4

MeasureFile: TypeAlias = Callable[[bytes, BenchmarkSpec], Measurement]

if TYPE_CHECKING:
    from nas_edge.controllers.base import Controller
    from nas_edge.search.one_shot import OneShotSearch, StepReport


# ---------------------------------------------------------------- what goes in


@dataclass(frozen=True)
class Data:
    """A dataset, how it is split, and how its pixels become inputs."""

    dataset: Dataset
    split: Split
    preprocessing: Preprocessing
    augmentation: Augmentation

    def arrays(self, indices: np.ndarray[Any, np.dtype[np.int64]]) -> tuple[Any, Any]:
        """Inputs float32 `[n, size, size, channels]` and labels `[n]`, in order."""
        batches = list(in_order(self.dataset, indices, 256, self.preprocessing))
        return np.concatenate([images for images, _ in batches]), np.concatenate([labels for _, labels in batches])


def load_data(config: RunConfig) -> Data:
    """Opens and splits the data.

    Raises:
        DataError: when it cannot be used.
    """
    dataset = load(config.data.source, config.space.input_size)
    parts = split(dataset, generator(config.seed, "split"), config.data.validation_fraction, config.data.test_fraction)
    channels = 1 if dataset.images.shape[-1] == 1 else 3
    preprocessing = standardize(dataset, parts.train, config.space.input_size, channels)  # type: ignore[arg-type]
    augmentation = Augmentation(**config.data.augmentation.model_dump())
    return Data(dataset, parts, preprocessing, augmentation)


def describe_data(config: RunConfig, data: Data) -> str:
    """One line that lets a user see that these are the pictures they meant."""
    parts, classes = data.split, len(data.dataset.class_names)
    train, validation, test = (len(part) for part in (parts.train, parts.validation, parts.test))
    return (
        f"data {config.data.source}: {train + validation + test} images of {classes} classes; {train} to train with, "
        f"{validation} to judge architectures, {test} to test"
    )


def make_space(config: RunConfig, data: Data) -> SearchSpace:
    """The search space at the run's input size and the data's classes."""
    part = config.space
    return find_space(part.name)(
        part.input_size, part.width_multiplier, len(data.dataset.class_names), data.preprocessing.channels
    )


def open_source(config: RunConfig) -> DeviceSource:
    """Opens the run's devices.

    Raises:
        DeviceAddressError: for an address that names no device.
        DeviceError: when one cannot be reached, or the settings do not fit it.
        ConfigError: when they are not interchangeable.
    """
    settings = config.device
    with ExitStack() as stack:
        agents = [stack.enter_context(open_device(address)) for address in unique_addresses(settings.addresses)]
        cores = None if settings.cores is None else parse_cores(settings.cores)
        spec = config.measure.spec(settings).replace(cores=cores_for(agents[0], cores, settings.threads))
        source = DeviceSource(agents, config.export.precision, spec)
        stack.pop_all()  # they are the source's to close now
    return source


@dataclass(frozen=True)
class Bench:
    """What a run works with.

    Attributes:
        space: where it searches.
        device: what delivered files are measured on.
        judge: where the latencies of candidates come from; nearly always the device itself.
    """

    space: SearchSpace
    device: DeviceSource
    judge: LatencySource

    def key(self, config: RunConfig) -> MeasuringKey:
        """What else than the network decides about a candidate's latency."""
        if self.judge is self.device:
            return self.device.key
        return MeasuringKey(config.export.precision, self.judge.name, runtime="", settings="")

    @property
    def measured_with(self) -> dict[str, str]:
        """What else than the network decides about any latency of the run, see `runs.environment`.

        Target and delivered files are measured on the device, whatever judges candidates.
        """
        judge = {} if self.judge is self.device else {"judge": self.judge.name}
        return {**asdict(self.device.key), **judge}

    def judged(self, winner: Trial) -> Judged | None:
        """What the winner was chosen by, if not by the device."""
        return None if self.judge is self.device else Judged(self.judge.name, winner.latency_ms)


@contextmanager
def open_bench(config: RunConfig, data: Data) -> Iterator[Bench]:
    """Opens the run's devices and whatever judges candidates.

    Raises:
        SpaceError, ConfigError: when space or latency source cannot be made.
        DeviceAddressError, DeviceError: see `open_source`.
    """
    space = make_space(config, data)
    with (
        open_source(config) as device,
        open_latency_source(config.latency.source, space, config.export.precision, device) as judge,
    ):
        yield Bench(space, device, judge)


# ---------------------------------------------------------------- the main job


@dataclass(frozen=True)
class Row:
    """One network of the result table.

    Attributes:
        name: what it is.
        architecture: its index string, or the published network's name.
        quality: validation accuracy with shared weights; None for a network from outside the space.
        accuracy: test accuracy by precision, 0 to 1.
        latency: measurements by precision.
    """

    name: str
    architecture: str
    quality: float | None
    accuracy: dict[str, float]
    latency: dict[str, Measurement]


@dataclass(frozen=True)
class Judged:
    """What the search went by, where that was not the device.

    Attributes:
        source: name of the latency source.
        latency_ms: what it says of the winner.
    """

    source: str
    latency_ms: float | None


@dataclass(frozen=True)
class Result:
    """What a search found.

    Attributes:
        target_ms: what was asked for.
        precision: what was measured and delivered.
        hard_limit: whether the target was a limit.
        rows: the winner first, then what it is compared with.
        bundle: where the delivered files are.
        device: what it was measured on.
        judged: what the search went by, if not by that device. Whether the target is met is for the device to say.
        on_device: whether the delivered files compute there what they compute here, by precision.
        test_images: how many the accuracies are of; None if that is not known.
    """

    target_ms: float
    precision: str
    hard_limit: bool
    rows: tuple[Row, ...]
    bundle: Path
    device: str
    judged: Judged | None = None
    on_device: Mapping[str, OnDeviceCheck] = field(default_factory=dict)
    test_images: int | None = None

    @property
    def latency_ms(self) -> float | None:
        """Median latency of the delivered model."""
        return _median_ms(self.rows[0].latency[self.precision])

    @property
    def meets_target(self) -> bool:
        """Whether the delivered model, as finally measured, is as fast as asked."""
        return self.latency_ms is not None and self.latency_ms <= self.target_ms

    @property
    def meets_limit(self) -> bool:
        """Whether the result is what was asked for: a target that is no limit may be missed."""
        return self.meets_target or not self.hard_limit

    @property
    def verdict(self) -> str:
        """One line: was the limit met?"""
        measurement = self.rows[0].latency[self.precision]
        if self.latency_ms is None:
            timed = f"could not be timed ({measurement.verdict}: {measurement.detail})"
        else:
            flag = "" if measurement.ok else f" ({measurement.verdict}: {measurement.detail})"
            relation = "within" if self.meets_target else "more than"
            timed = f"takes {self.latency_ms:.3g} ms{flag}, {relation} {self.target_ms:.3g} ms"
        judged = ""
        if self.judged is not None:
            says = "could not say" if self.judged.latency_ms is None else f"said {self.judged.latency_ms:.3g} ms"
            judged = f"; the search did not measure but went by {self.judged.source}, which {says}"
        return f"the delivered {self.precision} model {timed}, on {self.device}{judged}; bundle: {self.bundle}"

    def table(self) -> str:
        """The result as text."""
        header = ("network", "target ms", "int8 ms", "float ms", "int8 accuracy", "float accuracy")
        rows: list[tuple[str, ...]] = [header]
        for row in self.rows:
            times = (_ms(row.latency.get("int8")), _ms(row.latency.get("float32")))
            accuracies = tuple(f"{row.accuracy[p]:.2%}" if p in row.accuracy else "-" for p in ("int8", "float32"))
            rows.append((row.name, f"{self.target_ms:.3f}", *times, *accuracies))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines.insert(1, "  ".join("-" * width for width in widths))
        notes = [] if self.test_images is None else [f"accuracies: of {self.test_images} test images"]
        notes += [f"{precision} on {self.device}: {check}" for precision, check in self.on_device.items()]
        times_ms = {precision: _median_ms(m) for precision, m in self.rows[0].latency.items()}
        notes += filter(None, [slower_int8(times_ms)])
        return "\n".join([*lines, "", *notes, self.answer(self.bundle.parent)])

    def answer(self, run: Path) -> str:
        """The verdict as a sentence, and what to do if the measurement was unsteady.

        Args:
            run: the run's folder.
        """
        sentence = f"{self.verdict[0].upper()}{self.verdict[1:]}"
        if self.rows[0].latency[self.precision].ok:
            return sentence
        return f"{sentence}\nmeasure again on a quiet device: nas-edge export {run} --out FOLDER"

    def to_json(self) -> dict[str, Any]:
        """The content of `result.json`."""
        return {
            "target_ms": self.target_ms,
            "precision": self.precision,
            "hard_limit": self.hard_limit,
            "meets_target": self.meets_target,
            "latency_ms": self.latency_ms,
            "device": self.device,
            "on_device_check": {precision: asdict(check) for precision, check in self.on_device.items()},
            "judged": None if self.judged is None else asdict(self.judged),
            "rows": [
                {
                    "name": row.name,
                    "architecture": row.architecture,
                    "quality": row.quality,
                    "accuracy": row.accuracy,
                    "latency": {precision: m.to_json() for precision, m in row.latency.items()},
                }
                for row in self.rows
            ],
        }


def search(config: RunConfig, out: Path, reporter: Reporter) -> Result:
    """Finds an architecture for the device at the target, and delivers it.

    Args:
        config: the settings.
        out: new folder for the run.
        reporter: what the user sees.

    Returns:
        The result, also written to `out/result.json`; the bundle is in `out/bundle`.

    Raises:
        DataError, RunError, InfeasibleError, DeviceError: see there.
    """
    Run.check_new(out)  # before anything takes time
    with StopSignals(_stopped(out)) as stop:
        data = load_data(config)
        reporter.say(describe_data(config, data))
        with open_bench(config, data) as bench, Run.create(out, config) as run:
            return _carry_out(run, config, data, bench, reporter, stop)


def resume(folder: Path, change: Callable[[RunConfig], RunConfig], reporter: Reporter) -> Result:
    """Continues a run that was stopped, in whatever way, as if it never had been.

    What was finished is not repeated. The search goes on from its last checkpoint; selection, random baseline and the
    final measuring after what they have measured; a training that was interrupted begins again. Files are converted
    and tested again, which gives the same, and the bundle is written when all else is there.

    **Another number of steps.** The schedules (learning rates, delay, warm-up) follow the new number from the resumed
    step on, as if it had been planned from the start; the steps that were made stay as they are. So the result is not
    that of a new run with that many steps.

    Args:
        folder: the run.
        change: returns the settings to continue with, given those of the run; see `runs.run.CHANGEABLE`.
        reporter: what the user sees.

    Raises:
        ConfigError: when a setting may not change.
        RunError: when the run is finished, in use, damaged, or was measured on something else.
    """
    run = Run.open(folder)
    if run.finished:
        raise RunFolderError(f"{folder} is finished: its bundle is {run.path('bundle')}; for more, start a new run")
    config = change(run.config)
    with StopSignals(_stopped(folder)) as stop, run.lock():
        if "search.steps" in run.changed_settings(config):
            _check_steps(config.search.steps, run)
        data = load_data(config)
        reporter.say(describe_data(config, data))
        with open_bench(config, data) as bench:
            return _carry_out(run, config, data, bench, reporter, stop)


def _stopped(folder: Path) -> str:
    return f"stopped; continue with: nas-edge search --resume {folder}"


def _check_steps(steps: int, run: Run) -> None:
    done = run.checkpoints.newest_step() or 0
    if done == run.config.search.steps:
        raise ConfigError(
            f"the search of {run.folder} has ended with its {done} steps, to which its schedules ran down; leave "
            "--steps out to deliver what it found, or start a new run"
        )
    if steps <= done:
        raise ConfigError(f"{run.folder} has made {done} steps already; --steps must be more, received {steps}")


def _carry_out(run: Run, config: RunConfig, data: Data, bench: Bench, reporter: Reporter, stop: StopSignals) -> Result:
    """Does whatever of the run was not done yet."""
    info = bench.device.info
    device = {**asdict(info), "fingerprint": info.fingerprint}
    differing = run.add_session(environment(device, bench.measured_with))
    changed = run.changed_settings(config)
    if changed:
        run.write_config(config)
        reporter.say(f"continuing with other {', '.join(changed)}")
    if differing:
        reporter.say(f"results may differ from an uninterrupted run in their last bits: {', '.join(differing)}")
    try:
        return _stages(run, config, data, bench, reporter, stop)
    except KeyboardInterrupt:
        raise StoppedError(_stopped(run.folder)) from None
    except StoppedError as error:
        raise StoppedError(f"{error}; continue with: nas-edge search --resume {run.folder}") from None
    except (InfeasibleError, TrainingError):  # continued as it is, the run would come to the same
        raise
    except (NasEdgeError, DeviceError):
        reporter.say(f"the run is kept; to continue it: nas-edge search --resume {run.folder}")
        raise


def _stages(run: Run, config: RunConfig, data: Data, bench: Bench, reporter: Reporter, stop: StopSignals) -> Result:
    """Everything a run does, in order. What a stage came to is kept, and not done again when the run is resumed."""
    space, source = bench.space, bench.device
    with ExitStack() as stack:
        retrying = RetryingSource(bench.judge)
        stored, key = run.path("measurements.sqlite"), bench.key(config)
        repair(stored, key, lambda: _journalled(run, space), reporter.say)
        cached = stack.enter_context(CachedSource(retrying, stored, key))
        source.on_drift(cached.forget_since)
        start_tensorflow()
        reference = _reference(config, data)
        target = run.once("target", lambda: {"target_ms": _target_ms(config, source, reference, reporter)})
        target_ms: float = target["target_ms"]
        loop = make_search(config, space, data, cached, target_ms)
        reporter.say(
            f"searching {space.name}: {float(space.size):.3g} architectures, target {target_ms:.3g} ms "
            f"({config.export.precision}), timed by {bench.judge.name}"
        )
        trials = _run_search(config, loop, run, source, target_ms, reporter, stop)
        loop.source = retrying  # finalists are measured anew: the one with the luckiest measurement must not win
        winner = _select(config, run, space, loop, data, target_ms, trials, reporter)
        rival = _random_rival(config, run, space, loop, data, target_ms, len(trials), reporter)

        contenders = [("winner", winner, space.decode(winner.architecture))]
        if config.export.compare and rival is not None:
            contenders.append(("best of random", rival, space.decode(rival.architecture)))
        delivered = []
        for name, trial, network in contenders:
            shared = loop.weights.supernet.weights_of(network) if config.export.weights == "shared" else None
            text = str(trial.architecture)
            delivered.append(_train(config, run, data, name, text, trial.quality, network, shared, reporter))
        if config.export.compare:
            label = config.space.reference_name
            delivered.append(_train(config, run, data, label, label, None, reference, None, reporter))
        with _measured_once(run, source, reporter) as measure:
            rows = _measure(config, source, measure, delivered, reporter)
        bundle = run.path("bundle")
        # There is one if the run was stopped before its result was written, and half of one if while it was written.
        for left in (bundle, *run.folder.glob(".bundle.*")):
            shutil.rmtree(left, ignore_errors=True)
        chosen, judged = winner.architecture, bench.judged(winner)
        result = _write_bundle(config, bundle, space, data, source, chosen, delivered[0], rows, target_ms, judged)
    run.write_json("result.json", result.to_json())
    _write_report(run, reporter)
    return result


def _write_report(run: Run, reporter: Reporter) -> None:
    """Writes the page about the run. It can be written again at any time, so its failure is not the run's."""
    try:
        from nas_edge.report import read_run, run_report, write_report

        page = write_report(run_report(read_run(run.folder)), run.path("report"))
    except Exception as error:  # whatever is wrong with it, hours of work are not to end in an error
        reporter.say(f"the report could not be written ({error}); for another try: nas-edge report {run.folder}")
    else:
        reporter.say(f"report: {page}")


def export(folder: Path, out: Path, device: str | None, reporter: Reporter) -> str:
    """Writes the bundle of a finished run again, converted and measured anew.

    Args:
        folder: a run folder whose winner was trained.
        out: new folder for the bundle.
        device: where to measure; None for the run's own device.
        reporter: what the user sees.

    Returns:
        One line for the user.

    Raises:
        RunError: when the run did not get as far as a trained winner.
    """
    run = Run.open(folder)
    if not run.finished:
        raise RunFolderError(f"{folder} is not finished; to finish it: nas-edge search --resume {folder}")
    check_new_bundle(out)  # before anything takes time
    config, found = run.config, run.read_json("result.json")
    if device is not None:
        config = config.model_copy(update={"device": config.device.model_copy(update={"addresses": (device,)})})
    weights = run.read_weights("winner/weights.npz")
    data = load_data(config)
    space = make_space(config, data)
    try:
        architecture, target_ms = space.parse(found["rows"][0]["architecture"]), float(found["target_ms"])
        judged = Judged(**found["judged"]) if found.get("judged") else None
    except (KeyError, IndexError, TypeError, ValueError, SpaceError):
        raise RunFolderError(f"{run.path('result.json')} is damaged: it does not say what won") from None
    start_tensorflow()
    with open_source(config) as source:
        model = convert(config, data, "winner", str(architecture), None, space.decode(architecture), weights)
        rows = _measure(config, source, source.measure_file, [model], reporter)
        result = _write_bundle(config, out, space, data, source, architecture, model, rows, target_ms, judged)
    return result.answer(folder)


# ---------------------------------------------------------------- the steps of a search


def _journalled(run: Run, space: SearchSpace) -> Iterator[tuple[str, Measurement]]:
    """Latencies that can be relied on, by fingerprint of the network, as the search's journal has them."""
    for trial in map(Trial.from_json, run.journal()):
        if trial.measurement is not None and trial.measurement.ok:
            yield space.decode(trial.architecture).fingerprint, trial.measurement


def _reference(config: RunConfig, data: Data) -> NetworkSpec:
    part = config.space
    return reference_network(
        part.reference_name,
        part.input_size,
        part.width_multiplier,
        len(data.dataset.class_names),
        data.preprocessing.channels,
    )


def _target_ms(config: RunConfig, source: DeviceSource, reference: NetworkSpec, reporter: Reporter) -> float:
    """The latency to meet: what the user named, or a share of the reference network's on this device."""
    if config.target.latency_ms is not None:
        return config.target.latency_ms
    with reporter.stage(f"timing {config.space.reference_name}", 1) as show:
        measurement = source.submit(Candidate(reference)).result()
        show(1)
    median_ms = _median_ms(measurement)
    if median_ms is None:
        raise InfeasibleError(
            f"no --target-ms was given and the reference network {config.space.reference_name} could not be timed on "
            f"{source.name}: {measurement.verdict}, {measurement.detail}; name a target"
        )
    target_ms = median_ms * config.target.reference_share
    share = "" if config.target.reference_share == 1 else f"{config.target.reference_share:g} of it, "
    reporter.say(
        f"{config.space.reference_name} takes {median_ms:.3g} ms on {source.name}; target: {share}{target_ms:.3g} ms"
    )
    return target_ms


def make_search(
    config: RunConfig, space: SearchSpace, data: Data, source: LatencySource, target_ms: float
) -> OneShotSearch:
    """Puts the parts of the loop together; every random stream has its own seed."""
    from nas_edge.search.one_shot import OneShotSearch
    from nas_edge.supernet.shared_weights import SharedWeights
    from nas_edge.supernet.supernet import Supernet
    from nas_edge.training.schedules import CosineWithWarmup
    from nas_edge.training.trainer import make_optimizer

    settings, seed = config.search, config.seed
    weights = settings.weights
    steps = settings.steps * settings.samples_per_step
    schedule = CosineWithWarmup(weights.peak_learning_rate, steps, round(steps * weights.warmup_fraction))
    shared = SharedWeights(
        Supernet(space, settings.execution, integer(seed, "supernet"), settings.rematerialize),
        make_optimizer(weights, schedule),
        weights.label_smoothing,
        weights.weight_decay,
    )
    preprocessing = data.preprocessing
    train = Batches(
        data.dataset,
        data.split.train,
        weights.batch_size,
        generator(seed, "train"),
        preprocessing,
        data.augmentation,
    )
    size = min(settings.validation_batch_size, len(data.split.validation))
    validation = Batches(data.dataset, data.split.validation, size, generator(seed, "validation"), preprocessing)
    objectives = (Objective("latency_ms", target_ms, config.target.beta), *config.target.objectives)
    return OneShotSearch(
        space,
        _make_controller(config, space),
        shared,
        source,
        objectives,
        train,
        validation,
        generator(seed, "controller"),
        settings,
    )


def _make_controller(config: RunConfig, space: SearchSpace) -> Controller:
    from nas_edge.controllers import CONTROLLERS, SearchPlan

    settings = config.search
    given: dict[str, Any] = {"name": settings.controller}
    if settings.controller == "reinforce":
        given |= {
            name: getattr(settings, name)
            for name in ("learning_rate", "baseline_momentum", "entropy_weight", "temperature")
        }
    plan = SearchPlan(settings.steps, settings.delay_steps, settings.samples_per_step)
    return CONTROLLERS.make(CONTROLLERS.settings(given), space, plan)


def _run_search(
    config: RunConfig,
    loop: OneShotSearch,
    run: Run,
    source: DeviceSource,
    target_ms: float,
    reporter: Reporter,
    stop: StopSignals,
) -> list[Trial]:
    """Runs the loop from where the run is, keeping every step."""
    from nas_edge.search.line import SearchLine
    from nas_edge.search.policy_log import PolicyLog, set_damaged_aside
    from nas_edge.search.recorded import RecordedSearch
    from nas_edge.search.tensorboard import TensorBoardLog

    with ExitStack() as stack:
        journal = stack.enter_context(closing(run.open_journal(reporter.say)))
        recorded = RecordedSearch(loop, journal, run.checkpoints, config.runs.checkpoint_steps, reporter.say)
        if loop.step:
            reporter.say(f"continuing after step {loop.step} with {len(recorded.trials)} trials")
        set_damaged_aside(run.path("policy.jsonl"), reporter.say)
        policy_journal = stack.enter_context(closing(run.open_journal(reporter.say, "policy.jsonl")))
        policy = PolicyLog(policy_journal, loop.step, loop.config.steps)
        log: TensorBoardLog | None = None
        if config.runs.tensorboard and loop.step < loop.config.steps:
            log = TensorBoardLog(run.path("tensorboard"), loop.step, loop.config.steps, target_ms)
            stack.enter_context(closing(log))
        line = SearchLine(target_ms, source, recorded.trials)
        show = stack.enter_context(reporter.stage("search", loop.config.steps, loop.step, line.facts))

        def on_step(report: StepReport) -> None:
            policy.write(report.step, loop.controller)
            if log is not None:
                log.write(report, loop.controller)
            line.show(report)
            show(report.step + 1)

        recorded.run(on_step, stop)
    trials = recorded.trials
    if trials and all(trial.reward is None for trial in trials):
        last = trials[-1].measurement
        why = "" if last is None else f"; the last one: {last.verdict}, {last.detail}"
        raise InfeasibleError(
            f"none of the {len(trials)} candidates could be timed reliably on {loop.source.name}{why}. Close other "
            "programs, use fewer --threads, or measure longer (--set measure.max_duration_s=2), and start a new run"
        )
    return trials


def _select(
    config: RunConfig,
    run: Run,
    space: SearchSpace,
    loop: OneShotSearch,
    data: Data,
    target_ms: float,
    trials: Sequence[Trial],
    reporter: Reporter,
) -> Trial:
    """The winner, measured again and checked against the limit."""
    from nas_edge.search.selection import select

    limit_ms = target_ms if config.target.limit == "hard" else None
    with _judge(run, "selection", loop, data, reporter) as judge, reporter.stage("selection", None) as show:
        done = 0

        def shown(architecture: Architecture) -> Trial:
            nonlocal done
            trial = judge(architecture)
            done += 1
            show(done, _ms(trial.measurement, " ms"), f"quality {trial.quality:.3f}")
            return trial

        selection = select(space, loop.controller, shown, limit_ms, config.target.margin, trials)
    winner = selection.winner
    timed = "not timed" if winner.latency_ms is None else f"{winner.latency_ms:.3g} ms"
    reporter.say(
        f"selected from {len(selection.trials)} measured again: quality {winner.quality:.3f}, {timed}, "
        f"{winner.architecture}"
    )
    return winner


def _random_rival(
    config: RunConfig,
    run: Run,
    space: SearchSpace,
    loop: OneShotSearch,
    data: Data,
    target_ms: float,
    count: int,
    reporter: Reporter,
) -> Trial | None:
    """The best of as many random architectures as the search measured, judged by the same weights and device."""
    if not (config.search.random_baseline and config.export.compare):
        return None
    rng = generator(config.seed, "random baseline")
    best: Trial | None = None
    with _judge(run, "random", loop, data, reporter) as judge, reporter.stage("random baseline", count) as show:
        for done in range(count):
            trial = judge(space.sample(rng))
            meets = trial.latency_ms is not None and trial.latency_ms <= target_ms
            if meets and (best is None or (trial.quality or 0.0) > (best.quality or 0.0)):
                best = trial
            show(done + 1, "" if best is None else f"best quality {best.quality:.3f}")
    return best


@contextmanager
def _judge(
    run: Run, stage: str, loop: OneShotSearch, data: Data, reporter: Reporter
) -> Iterator[Callable[[Architecture], Trial]]:
    """Yields what scores and measures an architecture outside the loop, with all validation images.

    The answers go into a journal of the stage, from which a resumed run takes them, so that none is measured twice.
    """
    images, labels = data.arrays(data.split.validation)
    with closing(run.open_journal(reporter.say, f"stages/{stage}.jsonl")) as journal:
        known: dict[Architecture, deque[Trial]] = {}
        for trial in journal.read(Trial.from_json):
            known.setdefault(trial.architecture, deque()).append(trial)

        def judge(architecture: Architecture) -> Trial:
            earlier = known.get(loop.space.canonical(architecture))
            if earlier:
                return earlier.popleft()
            trial = loop.judge(architecture, images, labels)
            journal.append(trial.to_json())
            return trial

        yield judge


# ---------------------------------------------------------------- delivery


@dataclass(frozen=True)
class Model:
    """A trained network and the files made of it.

    Attributes:
        files: TFLite bytes by precision.
        accuracy: test accuracy by precision, of exactly those files.
    """

    name: str
    architecture: str
    quality: float | None
    weights: Weights
    files: dict[str, bytes]
    accuracy: dict[str, float]


def _train(
    config: RunConfig,
    run: Run,
    data: Data,
    name: str,
    architecture: str,
    quality: float | None,
    network: NetworkSpec,
    initial: Weights | None,
    reporter: Reporter,
) -> Model:
    """Trains a network, unless that was done before, and converts it."""
    folder = "winner" if name == "winner" else f"compared/{name.replace(' ', '-')}"
    weights = run.weights_once(
        f"{folder}/weights.npz", lambda: _trained(config, run, data, name, network, initial, reporter)
    )
    return convert(config, data, name, architecture, quality, network, weights)


def _trained(
    config: RunConfig,
    run: Run,
    data: Data,
    name: str,
    network: NetworkSpec,
    initial: Weights | None,
    reporter: Reporter,
) -> Weights:
    """Trains a network and re-estimates its batch statistics.

    Raises:
        TrainingError: when it diverges; nothing of it is kept.
    """
    from nas_edge.networks.keras_model import get_weights, keras_model
    from nas_edge.training.trainer import TrainingStep, recalibrate_batch_norm, regularized_layers, train

    settings, seed = config.training, config.seed
    model = keras_model(network, initial, seed=integer(seed, "training"))
    indices = training_images(data)
    batches = training_batches(config, data)
    steps = settings.steps(len(indices))
    with reporter.stage(f"training {name}", steps) as show:

        def on_step(step: TrainingStep) -> None:
            show(step.step, f"loss {step.loss:.3f} accuracy {step.accuracy:.3f}")

        try:
            train(model, batches, steps, settings, regularized_layers(network), on_step)
            recalibrate_batch_norm(model, in_order(data.dataset, indices, settings.batch_size, data.preprocessing))
            weights = get_weights(model, network)
            if not all(np.isfinite(array).all() for group in weights.values() for array in group):
                raise TrainingError("training diverged: weights are no longer numbers; lower the learning rate")
        except TrainingError as error:
            alike = "" if name == "winner" else " (after removing its winner/ and compared/: all are trained alike)"
            raise TrainingError(
                f"{name}: {error}, for example{alike}: nas-edge search --resume {run.folder} "
                f"--set training.learning_rate={settings.learning_rate / 2:.2g}"
            ) from None
    return weights


def training_images(data: Data) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Once the architecture is chosen, the images that judged it may teach it; the test images stay unseen."""
    return np.sort(np.concatenate([data.split.train, data.split.validation]))


def training_batches(config: RunConfig, data: Data) -> Batches:
    """What a network outside the search is trained with."""
    rng = generator(config.seed, "training")
    size = config.training.batch_size
    return Batches(data.dataset, training_images(data), size, rng, data.preprocessing, data.augmentation)


def convert(
    config: RunConfig,
    data: Data,
    name: str,
    architecture: str,
    quality: float | None,
    network: NetworkSpec,
    weights: Weights,
) -> Model:
    """Converts a trained network to the files to deliver, and tests exactly those files."""
    from nas_edge.export import verify
    from nas_edge.export.convert import float32_tflite
    from nas_edge.export.quantize import int8_tflite
    from nas_edge.networks.keras_model import keras_model

    model = keras_model(network, weights)
    files = {"float32": float32_tflite(model)}
    if config.export.precision == "int8":
        count = min(config.export.representative_images, len(data.split.train))
        chosen = generator(config.seed, "representative").choice(data.split.train, count, replace=False)
        files["int8"] = int8_tflite(model, data.arrays(np.sort(chosen))[0])
        verify.check_int8(files["int8"])
    images, labels = data.arrays(data.split.test)
    accuracy = {precision: verify.accuracy(file, images, labels) for precision, file in files.items()}
    return Model(name, architecture, quality, weights, files, accuracy)


@contextmanager
def _measured_once(run: Run, source: DeviceSource, reporter: Reporter) -> Iterator[MeasureFile]:
    """Yields what measures a file, or answers with what was measured of it before the run was interrupted."""
    with closing(run.open_journal(reporter.say, "stages/final.jsonl")) as journal:
        known: dict[str, deque[Measurement]] = {}
        for name, part in journal.read(lambda record: (record["file"], Measurement.from_json(record["measurement"]))):
            known.setdefault(name, deque()).append(part)

        def measure(file: bytes, spec: BenchmarkSpec) -> Measurement:
            name = hashlib.sha256(file).hexdigest()
            if known.get(name):
                return known[name].popleft()
            measurement = source.measure_file(file, spec)
            journal.append({"file": name, "measurement": measurement.to_json()})
            return measurement

        yield measure


def _measure(
    config: RunConfig, source: DeviceSource, measure: MeasureFile, models: Sequence[Model], reporter: Reporter
) -> list[Row]:
    """Measures the delivered files, with more care than in the loop: in rounds side by side.

    One slow spell of the device then hits all files alike, and no file for long.
    """
    whole = config.final_measure.spec(config.device).replace(cores=source.spec.cores)
    share = whole.replace(
        min_runs=max(6, whole.min_runs // FINAL_ROUNDS),
        min_duration_s=whole.min_duration_s / FINAL_ROUNDS,
        max_duration_s=whole.max_duration_s / FINAL_ROUNDS,
    )
    files = [(model, precision) for model in models for precision in model.files]
    parts: dict[tuple[str, str], list[Measurement]] = {(model.name, precision): [] for model, precision in files}
    with reporter.stage("measuring", FINAL_ROUNDS * len(files)) as show:
        for turn in range(FINAL_ROUNDS):
            for place, (model, precision) in enumerate(files, start=1):
                measured = parts[model.name, precision]
                measured.append(measure(model.files[precision], share))
                show(turn * len(files) + place, f"{model.name} {precision} {_ms(measured[-1], ' ms')}")
    return [
        Row(
            model.name,
            model.architecture,
            model.quality,
            model.accuracy,
            {precision: join(parts[model.name, precision], whole) for precision in model.files},
        )
        for model in models
    ]


def _write_bundle(
    config: RunConfig,
    folder: Path,
    space: SearchSpace,
    data: Data,
    source: DeviceSource,
    architecture: Architecture,
    model: Model,
    rows: Sequence[Row],
    target_ms: float,
    judged: Judged | None,
) -> Result:
    """Writes what an app team receives."""
    from nas_edge.export.bundle import DeliveredModel, write_bundle

    winner = rows[0]
    hard = config.target.limit == "hard"
    images, _ = data.arrays(data.split.test[:CHECKED_IMAGES])
    checks = {precision: check_on_device(file, images, source.run_file) for precision, file in model.files.items()}
    test_images = len(data.split.test)
    result = Result(
        target_ms, config.export.precision, hard, tuple(rows), folder, source.name, judged, checks, test_images
    )
    models = {
        precision: DeliveredModel(
            file,
            winner.accuracy[precision],
            _latency_facts(winner.latency[precision]),
            asdict(checks[precision]),
        )
        for precision, file in model.files.items()
    }
    write_bundle(
        folder,
        float32=models["float32"],
        int8=models.get("int8"),
        labels=data.dataset.class_names,
        preprocessing=data.preprocessing,
        golden_image=data.preprocessing.fit(data.dataset.images[data.split.test[:1]])[0],
        space=space.name,
        architecture=str(architecture),
        decisions=space.describe(architecture),
        details={
            "seed": config.seed,
            "data": config.data.source,
            "target_ms": target_ms,
            "meets_target": result.meets_target,
            "device": source.info.model,
            "test_images": test_images,
            "judged": None if judged is None else asdict(judged),
        },
    )
    return result


def _latency_facts(measurement: Measurement) -> dict[str, Any]:
    """A measurement for a manifest: its statistics first, then every sample and the conditions."""
    statistics = {} if measurement.statistics is None else asdict(measurement.statistics)
    return {**statistics, **measurement.to_json()}


def _median_ms(measurement: Measurement) -> float | None:
    """The median, also of a measurement that was unsteady: better a flagged number than none."""
    return measurement.statistics.median_ms if measurement.statistics is not None else None


def _ms(measurement: Measurement | None, unit: str = "") -> str:
    if measurement is None:
        return "-"
    if measurement.statistics is None:
        return str(measurement.verdict)
    flag = "" if measurement.ok else f" ({measurement.verdict})"
    return f"{measurement.statistics.median_ms:.3f}{unit}{flag}"
