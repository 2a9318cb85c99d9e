"""`--dry-run`: one architecture end to end, before hours are spent, and what the whole run will take.

    build -> write -> measure -> steps of the search, the one of all branches too -> score as finalists are
    -> two steps of training, batch statistics -> convert, quantise, check -> measure

Whatever would stop the run after hours (a device that refuses the operators, images that do not fit, an int8 model
with float operators, too little memory) stops it here: every stage runs at its real batch size, on fewer batches. The
estimate multiplies what was timed here; it is as good as one architecture stands for all, and leaves waiting for a hot
or busy device out.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from nas_edge.config import RunConfig, check_data_named
from nas_edge.errors import ConfigError, InfeasibleError, StoppedError
from nas_edge.formatting import ms_text
from nas_edge.latency.answer import LatencyKind
from nas_edge.latency.source import Candidate
from nas_edge.progress import Reporter
from nas_edge.quiet import start_tensorflow
from nas_edge.runs.checkpoints import KEPT
from nas_edge.runs.interrupts import StopSignals
from nas_edge.runs.run import Run
from nas_edge.runs.warm_start import check_init
from nas_edge.search.finalists import halving_rounds
from nas_edge.seeds import generator
from nas_edge.spaces.decisions import Architecture, NetworkSpace
from nas_edge.spaces.extremes import largest
from nas_edge.stages.contender import Contender
from nas_edge.stages.context import RunContext, final_spec, load_data, make_space, open_bench, open_task
from nas_edge.stages.delivering import convert
from nas_edge.stages.fitting import evaluation_batch_size
from nas_edge.stages.quantizing import TESTED_AT_ONCE, aware_settings
from nas_edge.stages.searching import make_loop
from nas_edge.stages.warm_start import start_loop
from nas_edge.text import kind_suffix
from nas_edge.training.batches import statistics_sample
from nas_edge.training.context import training_data
from nas_edge.training.methods import Teacher, TrainingContext, TrainingSettings, TrainingStep, train_network

# Proposals that are made in a rehearsed step: where there are several, they follow each other.
_SAMPLES = 2

# Selection measures the winner, its neighbours and the best of the search again; see `search.selection.select`.
_SELECTION_TRIALS = 13
# Random architectures are measured until one meets the target, or as many as are trained: about every fourth does.
_RANDOM_TIMED = 8


@dataclass(frozen=True)
class Estimate:
    """What a whole run takes.

    Attributes:
        architecture: the one that was tried.
        latency_ms: its latency.
        latency_kind: how that is known.
        parts_s: seconds by stage.
        memory_bytes: most memory that this process has used so far, on GPUs too; None where the system does not tell.
        disk_bytes: size of the run folder in the end, and while it is at its largest.
        target_ms: what was asked for; None where that is still to be measured.
    """

    architecture: str
    latency_ms: float
    parts_s: dict[str, float]
    memory_bytes: int | None
    disk_bytes: int
    target_ms: float | None = None
    latency_kind: LatencyKind = LatencyKind.MEASURED

    def text(self) -> str:
        """As printed."""
        lines = [f"one random architecture, end to end: {self.architecture}"]
        target = "" if self.target_ms is None else f"; the target is {ms_text(self.target_ms)} ms"
        lines += [f"it took {ms_text(self.latency_ms)} ms{kind_suffix(self.latency_kind)}{target}", ""]
        width = max(map(len, self.parts_s))
        lines += [f"  {name:<{width}}  {_duration(seconds):>9}" for name, seconds in self.parts_s.items()]
        lines += [f"  {'together':<{width}}  {_duration(sum(self.parts_s.values())):>9}", ""]
        memory = "" if self.memory_bytes is None else f"memory {_size(self.memory_bytes)}, "
        return "\n".join(
            [*lines, f"about, for the whole run; {memory}disk {_size(self.disk_bytes)}. Nothing was kept."]
        )


def rehearse(config: RunConfig, reporter: Reporter) -> Estimate:
    """Takes one architecture end to end and estimates the run; writes nothing.

    Raises:
        DataError, DeviceError, ExportError, TrainingError: what the run would have ended with.
        InfeasibleError: when the architecture cannot be timed.
        ConfigError: for a run that ends without a network, which is over in seconds.
    """
    check_data_named(config)
    check_init(config.init)
    task = open_task(config)
    if not task.delivers:
        raise ConfigError("--dry-run is for runs that train and measure; a search of a table takes seconds")
    data = load_data(config, task, reporter)
    space = make_space(config, task, data)
    with tempfile.TemporaryDirectory() as nowhere, open_bench(config, task, data, space) as bench:
        run = Run(Path(nowhere))
        context = RunContext(run, config, task, data, space, bench, reporter, StopSignals(""), again="")
        with reporter.stage("dry run", 5) as show:
            return _rehearsed(context, show)


def _rehearsed(context: RunContext, show: Callable[..., None]) -> Estimate:
    config, space, bench = context.config, context.space, context.bench
    architecture = space.canonical(space.sample(generator(config.seed, "dry run")))
    design = space.build(architecture)
    start_tensorflow(config.runs.deterministic)
    clock = _Clock()
    answer = bench.latency_source.submit(Candidate(design, architecture)).result()
    measuring_s = clock.lap()
    if answer.best_ms is None:
        raise InfeasibleError(
            f"{architecture} could not be timed by {bench.latency_source.name}: {answer.verdict}, {answer.detail}"
        )
    show(1, f"{ms_text(answer.best_ms)} ms by {bench.latency_source.name}")

    parts = _rehearse_search(context, architecture, answer.best_ms)
    show(2, "steps of the search")

    contender = Contender("dry run", str(architecture), None, design.needed_network())
    delivery = _rehearse_delivery(context, contender, show)
    settings, finalists = config.search, config.finalists
    compares = config.export.compare
    random = settings.evaluated + finalists.sampled if settings.random_baseline and compares else 0
    timed = _RANDOM_TIMED * max(1, finalists.trained)
    networks = 1 + (compares and random > 0) + compares
    selected = _SELECTION_TRIALS + (finalists.measured if finalists.sampled else 0)
    # Of which the random baseline takes as many.
    halved = _halving_s(config, delivery) * (1 + (random > 0))
    record_bytes = len(json.dumps(answer.to_json()))
    return Estimate(
        architecture=str(architecture),
        latency_ms=answer.best_ms,
        latency_kind=answer.kind,
        parts_s={
            "search": parts.search_s,
            "selection": finalists.sampled * parts.scoring_s + selected * (parts.scoring_s + parts.measuring_s),
            "random baseline": random * parts.scoring_s + min(random, timed) * parts.measuring_s,
            **({"training finalists": halved} if halved else {}),
            **({"training the teacher": delivery.teaching_s} if delivery.teaching_s else {}),
            f"training {networks} network{'s' * (networks > 1)}": networks * delivery.training_s,
            "converting, checking": networks * delivery.converting_s,
            "measuring": networks * delivery.files * delivery.measuring_s + measuring_s,
        },
        memory_bytes=_peak_memory_bytes(),
        # One checkpoint more while it is being written; the journal, and the same again in the database.
        disk_bytes=(KEPT + 1) * parts.checkpoint_bytes
        + 2 * (settings.evaluated + random) * record_bytes
        + 2 * networks * delivery.files_bytes,
        target_ms=config.target.latency_ms,
    )


@dataclass(frozen=True)
class _Search:
    """What the search takes, and to score and to measure one architecture after it."""

    search_s: float
    scoring_s: float
    measuring_s: float
    checkpoint_bytes: int


def _rehearse_search(context: RunContext, architecture: Architecture, target_ms: float) -> _Search:
    """Makes the steps that take most: the first, of all branches, and the last, which also scores and measures.

    Batches have their real size. Fewer proposals are made per step, and fewer validation images are scored, as each
    takes the time and memory of the one before it.
    """
    settings, source = context.config.search, context.bench.latency_source
    samples = min(_SAMPLES, settings.samples_per_step)
    fewer = settings.model_copy(update={"samples_per_step": samples})
    config = context.config.model_copy(update={"search": fewer})
    data, share = context.required_data, 1.0
    # Where weights are not trained all along, an evaluation is a training, which the number of images decides.
    if settings.quality_drifts:
        at_once = settings.evaluation_batch_size or evaluation_batch_size(context.space)
        count = max(2 * at_once, getattr(settings, "validation_batch_size", 0))
        scored = data.split.validation[:count]
        share = len(data.split.validation) / len(scored)
        data = replace(data, split=replace(data.split, validation=scored))
    loop = make_loop(replace(context, config=config, data=data), source, target_ms)
    start_loop(context, loop)
    clock = _Clock()

    def steps_s(step: int, count: int) -> list[float]:
        times_s = []
        for _ in range(count):
            loop.step = step
            loop.take_step()
            times_s.append(clock.lap())
        return times_s

    per_step = settings.samples_per_step / samples
    delay, last = settings.delay_steps, settings.steps - 1
    first_s, all_branches_s = steps_s(0, 2) if delay else (0.0, 0.0)
    resting_s = steps_s(delay - 1, 1)[0] if delay else 0.0
    scoring_first_s, learning_s = steps_s(last, 2)
    # What runs all branches fades in a straight line.
    warm_up = min(delay, int(settings.steps * max(getattr(settings, "op_warmup_fraction", 0.0), 0.0)))
    search_s = warm_up * (all_branches_s + resting_s) / 2 + (delay - warm_up) * resting_s
    search_s += (settings.steps - delay) * learning_s

    candidate = loop.evaluator.candidate(architecture)
    loop.evaluator.quality.evaluate(candidate)  # compiles, where a batch has another size
    clock.lap()
    loop.evaluator.quality.evaluate(candidate)
    scoring_s = clock.lap() * share
    source.submit(candidate).result()
    measuring_s = clock.lap()
    return _Search(
        first_s + scoring_first_s + per_step * search_s,
        scoring_s,
        measuring_s,
        sum(array.nbytes for array in loop.arrays().values()),
    )


@dataclass(frozen=True)
class _Delivery:
    """What delivering one network takes.

    Attributes:
        training_s: all of a training.
        teaching_s: that of the network that teaches; 0 without one.
        steps_s: the steps of one without validation images.
        scoring_s: what follows such a training: batch statistics, and a score on all validation images.
        converting_s: with the checks.
        measuring_s: of one file.
        files: how many there are.
        files_bytes: their size.
    """

    training_s: float
    teaching_s: float
    steps_s: float
    scoring_s: float
    converting_s: float
    measuring_s: float
    files: int
    files_bytes: int


def _halving_s(config: RunConfig, delivery: _Delivery) -> float:
    """What the finalists' trainings of the search, or of the random baseline, take."""
    rounds = halving_rounds(config.finalists.trained)
    trainings = sum(each.networks * each.share for each in rounds)
    return trainings * delivery.steps_s + sum(each.networks for each in rounds) * delivery.scoring_s


class _EnoughError(StoppedError):
    """Ends a training that was begun only to be timed."""


def _rehearse_delivery(context: RunContext, contender: Contender, show: Callable[..., None]) -> _Delivery:
    from nas_edge.export.verify import file_quality
    from nas_edge.networks.keras_model import get_weights, keras_model
    from nas_edge.training.trainer import recalibrate

    config, data, device = context.config, context.required_data, context.bench.required_device
    network, training, task = contender.network, config.training, context.network_task
    seen = training_data(training, data)
    steps = training.steps(len(seen.training_indices))
    clock = _Clock()
    teacher, teaching_s = None, 0.0
    if training.teacher is not None and isinstance(context.space, NetworkSpace):
        big = context.space.decode(largest(context.space))
        apart = training_data(training.teacher, data)
        lasting_s = _steps_s(training.teacher, TrainingContext(big, None, task, apart, config.seed))
        teaching_s = _training_s(lasting_s, training.teacher.steps(len(apart.training_indices)))
        teacher = Teacher(big, get_weights(keras_model(big), big))
    validation = None if training.early_stopping is None else data.split.validation
    ends_s = _steps_s(training, TrainingContext(network, None, task, seen, config.seed, teacher, validation))
    show(3, f"{'one step' if len(ends_s) < 2 else 'two steps'} of training")
    model = keras_model(network)
    clock.lap()
    images, size = seen.training_indices, training.batch_size
    recalibrate(model, data, images[:size], size)
    image_s = clock.lap() / min(size, len(images))
    recalibrating_s = image_s * len(statistics_sample(images, size))
    scoring_s = recalibrating_s + image_s * len(data.split.validation)
    tested = data.split.test[:TESTED_AT_ONCE]
    fewer = replace(data, split=replace(data.split, test=tested))
    delivered = convert(config, task, fewer, contender, get_weights(model, network))
    converting_s = clock.lap()
    for file in delivered.files.values():
        file_quality(file, data.in_order(tested, TESTED_AT_ONCE), task)
    converting_s += clock.lap() * (len(data.split.test) / len(tested) - 1)
    show(4, "converted and checked")
    spec = final_spec(config, device)
    device.measure_file(delivered.files[config.export.precision], spec)
    measuring_s = clock.lap()
    show(5, "measured again")
    if config.export.quantization != "post-training":  # of auto, at most
        steps += aware_settings(config).steps(len(images))
    training_s = recalibrating_s + _training_s(ends_s, steps)
    if training.early_stopping is not None:  # after each epoch
        training_s += training.epochs * scoring_s
    sizes = [len(file) for file in delivered.files.values()]
    alone_s = training.to_compare(1.0).steps(len(data.split.train)) * ends_s[-1] if ends_s else 0.0
    return _Delivery(training_s, teaching_s, alone_s, scoring_s, converting_s, measuring_s, len(sizes), sum(sizes))


def _steps_s(settings: TrainingSettings, training: TrainingContext) -> list[float]:
    """What the first steps of a training take, at most two; the first compiles."""
    clock, ends_s = _Clock(), list[float]()

    def on_step(step: TrainingStep) -> None:
        ends_s.append(clock.lap())
        if len(ends_s) == 2:
            raise _EnoughError("two steps are enough")

    with suppress(_EnoughError):
        train_network(settings, training, on_step)
    return ends_s


def _training_s(ends_s: Sequence[float], steps: int) -> float:
    return ends_s[0] + (steps - 1) * ends_s[-1] if ends_s else 0.0


class _Clock:
    """Times one part after another."""

    def __init__(self) -> None:
        self._since_s = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last call."""
        before_s, self._since_s = self._since_s, time.perf_counter()
        return self._since_s - before_s


def _peak_memory_bytes() -> int | None:
    """Of this process, and of the GPUs that it uses."""
    import tensorflow as tf

    gpus = (device.name.removeprefix("/physical_device:") for device in tf.config.list_physical_devices("GPU"))
    on_gpus = sum(int(tf.config.experimental.get_memory_info(name)["peak"]) for name in gpus)
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return on_gpus + (peak if sys.platform == "darwin" else peak * 1024)


def _duration(seconds: float) -> str:
    for unit, length_s in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * length_s:
            return f"{seconds / length_s:.1f} {unit}"
    return f"{seconds:.1f} s"


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
