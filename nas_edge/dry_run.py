"""`--dry-run`: one architecture the whole way, before hours are spent, and what the whole run will take.

    decode -> write -> measure -> one step of the shared weights -> score -> one step of training -> convert, quantise,
    check -> measure

Whatever would stop the run after hours (a device that refuses the operators, images that do not fit, an int8 model
with float operators, too little memory) stops it here. The estimate multiplies what was timed here; it is as good as
one architecture stands for all, and leaves waiting for a hot or busy device out.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass

from nas_edge import pipeline
from nas_edge.config import RunConfig
from nas_edge.errors import InfeasibleError
from nas_edge.latency.source import Candidate
from nas_edge.progress import Reporter
from nas_edge.quiet import start_tensorflow
from nas_edge.runs.checkpoints import KEPT
from nas_edge.seeds import generator

# Selection measures the winner, its neighbours and the best of the search again; see `search.selection.select`.
_SELECTION_TRIALS = 13


@dataclass(frozen=True)
class Estimate:
    """What a whole run takes.

    Attributes:
        architecture: the one that was tried.
        latency_ms: its measured latency.
        parts_s: seconds by stage.
        memory_bytes: most memory that was used so far by this process; None where the system does not tell.
        disk_bytes: size of the run folder in the end, and while it is at its largest.
        target_ms: what was asked for; None where that is still to be measured.
    """

    architecture: str
    latency_ms: float
    parts_s: dict[str, float]
    memory_bytes: int | None
    disk_bytes: int
    target_ms: float | None = None

    def text(self) -> str:
        """As printed."""
        lines = [f"one random architecture went the whole way: {self.architecture}"]
        target = "" if self.target_ms is None else f"; the target is {self.target_ms:.3g} ms"
        lines += [f"it took {self.latency_ms:.3g} ms{target}", ""]
        width = max(map(len, self.parts_s))
        lines += [f"  {name:<{width}}  {_duration(seconds):>9}" for name, seconds in self.parts_s.items()]
        lines += [f"  {'together':<{width}}  {_duration(sum(self.parts_s.values())):>9}", ""]
        memory = "" if self.memory_bytes is None else f"memory {_size(self.memory_bytes)}, "
        return "\n".join(
            [*lines, f"about, for the whole run; {memory}disk {_size(self.disk_bytes)}. Nothing was kept."]
        )


def rehearse(config: RunConfig, reporter: Reporter) -> Estimate:
    """Takes one architecture the whole way and estimates the run; writes nothing.

    Raises:
        DataError, DeviceError, ExportError, TrainingError: what the run would have ended with.
        InfeasibleError: when the architecture cannot be timed.
    """
    data = pipeline.load_data(config)
    reporter.say(pipeline.describe_data(config, data))
    with pipeline.open_bench(config, data) as bench, reporter.stage("dry run", 5) as show:
        space, source = bench.space, bench.device
        architecture = space.canonical(space.sample(generator(config.seed, "dry run")))
        network = space.decode(architecture)
        start_tensorflow()
        from nas_edge.networks.keras_model import get_weights, keras_model
        from nas_edge.supernet.supernet import one_hot_masks
        from nas_edge.training.trainer import TrainingStep, regularized_layers, train

        clock = _Clock()
        measurement = bench.judge.submit(Candidate(network, architecture)).result()
        measuring_s = clock.lap()
        if measurement.statistics is None:
            raise InfeasibleError(
                f"{architecture} could not be timed by {bench.judge.name}: {measurement.verdict}, {measurement.detail}"
            )
        show(1, f"{measurement.statistics.median_ms:.3g} ms by {bench.judge.name}")

        loop = pipeline.make_search(config, space, data, bench.judge, target_ms=measurement.statistics.median_ms)
        masks = one_hot_masks(space, architecture)
        times_s = []
        for _ in range(2):  # the first compiles
            clock.lap()
            images, labels = next(loop.train)
            loop.weights.train_step(images, labels, masks)
            times_s.append(clock.lap())
        compiling_s, weights_step_s = times_s[0] - times_s[1], times_s[1]
        images, labels = next(loop.validation)
        for _ in range(2):
            clock.lap()
            loop.weights.accuracy(images, labels, masks)
            times_s.append(clock.lap())
        compiling_s, scoring_s = compiling_s + times_s[2] - times_s[3], times_s[3]
        checkpoint_bytes = sum(array.nbytes for array in loop.weights.arrays().values())
        show(2, "one step of the shared weights")

        model = keras_model(network)
        ends_s: list[float] = []

        def on_step(step: TrainingStep) -> None:
            ends_s.append(clock.lap())

        train(model, pipeline.training_batches(config, data), 2, config.training, regularized_layers(network), on_step)
        show(3, "one step of training")
        delivered = pipeline.convert(
            config, data, "dry run", str(architecture), None, network, get_weights(model, network)
        )
        converting_s = clock.lap()
        show(4, "converted and checked")
        spec = config.final_measure.spec(config.device).replace(cores=source.spec.cores)
        source.measure_file(delivered.files[config.export.precision], spec)
        final_measuring_s = clock.lap()
        show(5, "measured again")

    settings = config.search
    steps, samples = settings.steps, settings.samples_per_step
    judged = (steps - settings.delay_steps) * samples
    compares = config.export.compare
    random = judged if settings.random_baseline and compares else 0
    networks = 1 + (compares and random > 0) + compares
    training_steps = config.training.steps(len(data.split.train) + len(data.split.validation))
    judging_s = measuring_s + scoring_s
    record_bytes = len(json.dumps(measurement.to_json()))
    return Estimate(
        architecture=str(architecture),
        latency_ms=measurement.statistics.median_ms,
        parts_s={
            "search": compiling_s + steps * samples * weights_step_s + judged * judging_s,
            "selection": _SELECTION_TRIALS * judging_s,
            "random baseline": random * judging_s,
            f"training {networks} network{'s' * (networks > 1)}": networks * (ends_s[0] + training_steps * ends_s[1]),
            "converting, checking": networks * converting_s,
            "measuring": networks * len(delivered.files) * final_measuring_s,
        },
        memory_bytes=_peak_memory_bytes(),
        # One checkpoint more while it is being written; the journal, and the same again in the database.
        disk_bytes=(KEPT + 1) * checkpoint_bytes
        + 2 * (judged + random) * record_bytes
        + 2 * networks * sum(map(len, delivered.files.values())),
        target_ms=config.target.latency_ms,
    )


class _Clock:
    """Times one part after another."""

    def __init__(self) -> None:
        self._since_s = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last call."""
        before_s, self._since_s = self._since_s, time.perf_counter()
        return self._since_s - before_s


def _peak_memory_bytes() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _duration(seconds: float) -> str:
    for unit, length_s in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * length_s:
            return f"{seconds / length_s:.1f} {unit}"
    return f"{seconds:.1f} s"


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
