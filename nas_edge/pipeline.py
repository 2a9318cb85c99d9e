"""THE file to read: what a run does, in order.

    search = data -> space -> devices -> target -> one-shot search -> selection -> delivery
    delivery = train -> convert -> quantise -> check -> measure -> bundle

Each step is a function of this file over the rooms beside it. TensorFlow is imported inside the functions that need
it, so that importing this module stays light.
"""

from __future__ import annotations

import math
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.api import Measurement
from device_agents.devices import open_device
from device_agents.errors import DeviceError
from device_agents.host import pick_cores
from nas_edge.benchmarking.measure import join
from nas_edge.config import RunConfig
from nas_edge.data.preprocessing import Augmentation, Batches, Preprocessing, in_order, standardize
from nas_edge.data.sources import Dataset, load
from nas_edge.data.splits import Split, split
from nas_edge.errors import ConfigError, InfeasibleError, NasEdgeError, RunError, SpaceError, StoppedError
from nas_edge.latency.cache import CachedSource
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
from nas_edge.spaces import SPACES
from nas_edge.spaces.decisions import Architecture, SearchSpace
from nas_edge.spaces.reference import reference_network

# Rounds in which the delivered files are measured side by side.
FINAL_ROUNDS = 5

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


def make_space(config: RunConfig, data: Data) -> SearchSpace:
    """The search space at the run's input size and the data's classes."""
    part = config.space
    return SPACES[part.name](
        part.input_size, part.width_multiplier, len(data.dataset.class_names), data.preprocessing.channels
    )


def open_source(config: RunConfig) -> DeviceSource:
    """Opens the run's devices.

    Raises:
        DeviceAddressError: for an address that names no device.
        DeviceError: when one cannot be reached.
    """
    agents = [open_device(address) for address in config.device.addresses]
    spec = config.measure.spec(config.device.threads)
    if any(agent.info().measures_on_host for agent in agents):
        # The cores left over are where the next candidate may be written meanwhile.
        spec = spec.replace(cores=pick_cores(config.device.threads))
    return DeviceSource(agents, config.export.precision, spec)


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
class Result:
    """What a search found.

    Attributes:
        target_ms: what was asked for.
        precision: what was measured and delivered.
        hard_limit: whether the target was a limit.
        rows: the winner first, then what it is compared with.
        bundle: where the delivered files are.
        device: what it was measured on.
    """

    target_ms: float
    precision: str
    hard_limit: bool
    rows: tuple[Row, ...]
    bundle: Path
    device: str

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
        return f"the delivered {self.precision} model {timed}, on {self.device}; bundle: {self.bundle}"

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
        return "\n".join([*lines, "", f"{self.verdict[0].upper()}{self.verdict[1:]}"])

    def to_json(self) -> dict[str, Any]:
        """The content of `result.json`."""
        return {
            "target_ms": self.target_ms,
            "precision": self.precision,
            "hard_limit": self.hard_limit,
            "meets_target": self.meets_target,
            "latency_ms": self.latency_ms,
            "device": self.device,
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
    data = load_data(config)
    with ExitStack() as stack:
        source = stack.enter_context(open_source(config))
        run = Run.create(out, config)
        stack.enter_context(run.lock())
        return _carry_out(run, config, data, source, reporter)


def resume(folder: Path, change: Callable[[RunConfig], RunConfig], reporter: Reporter) -> Result:
    """Continues a run that was stopped, in whatever way, as if it never had been.

    What was finished is not repeated. The search goes on from its last checkpoint; selection and random baseline after
    what they have measured; a training that was interrupted begins again, and so do the final measuring and the bundle.

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
    with run.lock():
        if "search.steps" in run.changed_settings(config):
            _check_steps(config.search.steps, run)
        data = load_data(config)
        with open_source(config) as source:
            return _carry_out(run, config, data, source, reporter)


def _check_steps(steps: int, run: Run) -> None:
    done = run.checkpoints.newest_step() or 0
    if done == run.config.search.steps:
        raise ConfigError(
            f"the search of {run.folder} has ended with its {done} steps, to which its schedules ran down; leave "
            "--steps out to deliver what it found, or start a new run"
        )
    if steps <= done:
        raise ConfigError(f"{run.folder} has made {done} steps already; --steps must be more, received {steps}")


def _carry_out(run: Run, config: RunConfig, data: Data, source: DeviceSource, reporter: Reporter) -> Result:
    """Does whatever of the run was not done yet."""
    with ExitStack() as stack:
        key = {"precision": config.export.precision, **asdict(source.key)}
        device = {**asdict(source.info), "fingerprint": source.info.fingerprint}
        differing = run.add_session(environment(device, key))
        changed = run.changed_settings(config)
        if changed:
            run.write_config(config)
            reporter.say(f"continuing with other {', '.join(changed)}")
        if differing:
            reporter.say(f"results may differ from an uninterrupted run in their last bits: {', '.join(differing)}")
        stop = stack.enter_context(StopSignals())
        try:
            return _stages(run, config, data, source, reporter, stop)
        except KeyboardInterrupt:
            raise StoppedError(f"stopped; continue with: nas-edge search --resume {run.folder}") from None
        except StoppedError as error:
            raise StoppedError(f"{error}; continue with: nas-edge search --resume {run.folder}") from None
        except InfeasibleError:
            raise
        except (NasEdgeError, DeviceError):
            reporter.say(f"the run is kept; to continue it: nas-edge search --resume {run.folder}")
            raise


def _stages(
    run: Run, config: RunConfig, data: Data, source: DeviceSource, reporter: Reporter, stop: StopSignals
) -> Result:
    """Everything a run does, in order. What a stage came to is kept, and not done again when the run is resumed."""
    space = make_space(config, data)
    with ExitStack() as stack:
        retrying = RetryingSource(source)
        cached = stack.enter_context(CachedSource(retrying, run.path("measurements.sqlite"), source.key))
        source.on_drift(cached.forget_since)
        start_tensorflow()
        reference = _reference(config, data)
        target = run.once("target", lambda: {"target_ms": _target_ms(config, source, reference, reporter)})
        target_ms: float = target["target_ms"]
        loop = make_search(config, space, data, cached, target_ms)
        reporter.say(
            f"searching {space.name}: {float(space.size):.3g} architectures, target {target_ms:.3g} ms "
            f"({config.export.precision}) on {source.name}"
        )
        trials = _run_search(loop, run, target_ms, reporter, stop)
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
        rows = _measure(config, source, delivered, reporter)
        bundle = run.path("bundle")
        # There is one if the run was stopped before its result was written, and half of one if while it was written.
        for left in (bundle, *run.folder.glob(".bundle.*")):
            shutil.rmtree(left, ignore_errors=True)
        result = _write_bundle(config, bundle, space, data, source, winner.architecture, delivered[0], rows, target_ms)
    run.write_json("result.json", result.to_json())
    return result


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
    Run.check_new(out)  # before anything takes time
    run = Run.open(folder)
    config, found = run.config, run.read_json("result.json")
    if device is not None:
        config = config.model_copy(update={"device": config.device.model_copy(update={"addresses": (device,)})})
    weights = run.read_weights("winner/weights.npz")
    data = load_data(config)
    space = make_space(config, data)
    try:
        architecture, target_ms = space.parse(found["rows"][0]["architecture"]), float(found["target_ms"])
    except (KeyError, IndexError, TypeError, ValueError, SpaceError):
        raise RunFolderError(f"{run.path('result.json')} is damaged: it does not say what won") from None
    start_tensorflow()
    with open_source(config) as source:
        model = convert(config, data, "winner", str(architecture), None, space.decode(architecture), weights)
        rows = _measure(config, source, [model], reporter)
        result = _write_bundle(config, out, space, data, source, architecture, model, rows, target_ms)
    return result.verdict


# ---------------------------------------------------------------- the steps of a search


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
    measurement = source.submit(Candidate(reference)).result()
    median_ms = _median_ms(measurement)
    if median_ms is None:
        raise InfeasibleError(
            f"no --target-ms was given and the reference network {config.space.reference_name} could not be timed on "
            f"{source.name}: {measurement.verdict}, {measurement.detail}; name a target"
        )
    target_ms = median_ms * config.target.reference_share
    reporter.say(
        f"{config.space.reference_name} takes {median_ms:.3g} ms on {source.name}; "
        f"target: {config.target.reference_share:g} of it, {target_ms:.3g} ms"
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
    from nas_edge.controllers.categorical import CategoricalController
    from nas_edge.controllers.evolution import EvolutionController
    from nas_edge.controllers.random_search import RandomSearchController

    settings = config.search
    if settings.controller == "evolution":
        judged = (settings.steps - settings.delay_steps) * settings.samples_per_step
        # The paper's population of 100 and samples of 25, scaled down so that short runs evolve at all.
        population = max(2, min(100, judged // 4))
        return EvolutionController(space, population_size=population, sample_size=max(1, population // 4))
    if settings.controller == "random":
        return RandomSearchController(space)
    return CategoricalController(
        space,
        settings.steps,
        samples_per_step=settings.samples_per_step,
        base_learning_rate=settings.learning_rate,
        delay_fraction=settings.delay_fraction,
        temperature=settings.temperature,
        momentum=settings.baseline_momentum,
        entropy_weight=settings.entropy_weight,
        # In the delay nothing is judged, so there is nothing to accumulate.
        accumulate_during_delay=False,
    )


def _run_search(loop: OneShotSearch, run: Run, target_ms: float, reporter: Reporter, stop: StopSignals) -> list[Trial]:
    """Runs the loop from where the run is, keeping every step."""
    from nas_edge.search.recorded import RecordedSearch

    with closing(run.open_journal(reporter.say)) as journal:
        recorded = RecordedSearch(loop, journal, run.checkpoints, run.config.runs.checkpoint_steps, reporter.say)
        best = max((t for t in recorded.trials if t.reward is not None), key=_reward, default=None)
        if loop.step:
            reporter.say(f"continuing after step {loop.step} with {len(recorded.trials)} trials")
        with reporter.stage("search", loop.config.steps, loop.step) as show:

            def on_step(report: StepReport) -> None:
                nonlocal best
                for trial in report.trials:
                    if trial.reward is not None and (best is None or trial.reward > _reward(best)):
                        best = trial
                show(report.step + 1, _facts(report, best, target_ms))

            recorded.run(on_step, stop)
    trials = recorded.trials
    if trials and all(trial.reward is None for trial in trials):
        last = trials[-1].measurement
        why = "" if last is None else f"; the last one: {last.verdict}, {last.detail}"
        raise RunError(
            f"none of the {len(trials)} candidates could be timed reliably on {loop.source.name}{why}. "
            "Close other programs, use fewer --threads, or measure longer (--set measure.max_duration_s=2)"
        )
    return trials


def _reward(trial: Trial) -> float:
    return -math.inf if trial.reward is None else trial.reward


def _facts(report: StepReport, best: Trial | None, target_ms: float) -> str:
    """The words of the progress line."""
    if not report.trials:
        return f"loss {report.loss:.2f} (weights only)"
    trial = report.trials[-1]
    timed = (
        f"{trial.latency_ms:.3g}/{target_ms:.3g} ms"
        if trial.latency_ms is not None
        else str(trial.measurement.verdict)
        if trial.measurement is not None
        else "not timed"
    )
    reward = "-" if trial.reward is None else f"{trial.reward:.3f}"
    found = "" if best is None else f" best {best.reward:.3f}"
    return f"loss {report.loss:.2f} reward {reward} quality {trial.quality:.3f} {timed}{found}"


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
    with _judge(run, "selection", loop, data, reporter) as judge:
        selection = select(space, loop.controller, judge, limit_ms, config.target.margin, trials)
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
        for trial in map(Trial.from_json, journal.found):
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
        f"{folder}/weights.npz", lambda: _trained(config, data, name, network, initial, reporter)
    )
    return convert(config, data, name, architecture, quality, network, weights)


def _trained(
    config: RunConfig, data: Data, name: str, network: NetworkSpec, initial: Weights | None, reporter: Reporter
) -> Weights:
    """Trains a network and re-estimates its batch statistics."""
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

        train(model, batches, steps, settings, regularized_layers(network), on_step)
        recalibrate_batch_norm(model, in_order(data.dataset, indices, settings.batch_size, data.preprocessing))
    return get_weights(model, network)


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


def _measure(config: RunConfig, source: DeviceSource, models: Sequence[Model], reporter: Reporter) -> list[Row]:
    """Measures the delivered files, with more care than in the loop: in rounds side by side.

    One slow spell of the device then hits all files alike, and no file for long.
    """
    whole = config.final_measure.spec(config.device.threads).replace(cores=source.spec.cores)
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
                measured.append(source.measure_file(model.files[precision], share))
                show(turn * len(files) + place, f"{model.name} {precision} {_ms(measured[-1])} ms")
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
) -> Result:
    """Writes what an app team receives."""
    from nas_edge.export.bundle import DeliveredModel, write_bundle

    winner = rows[0]
    hard = config.target.limit == "hard"
    result = Result(target_ms, config.export.precision, hard, tuple(rows), folder, source.name)
    models = {
        precision: DeliveredModel(file, winner.accuracy[precision], _latency_facts(winner.latency[precision]))
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


def _ms(measurement: Measurement | None) -> str:
    if measurement is None:
        return "-"
    if measurement.statistics is None:
        return str(measurement.verdict)
    flag = "" if measurement.ok else f" ({measurement.verdict})"
    return f"{measurement.statistics.median_ms:.3f}{flag}"
