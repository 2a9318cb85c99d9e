"""`latency fit` and `latency adapt`: from a device, or from what searches measured, to a model's file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_agents.floors import FloorKey, FloorStore, default_floors
from nas_edge.config import RunConfig
from nas_edge.errors import ConfigError, RunError, StoppedError
from nas_edge.latency.answer import LatencyAnswer, LatencyKind
from nas_edge.latency.device import DeviceSource
from nas_edge.latency.model_file import (
    MeasuredNetwork,
    MeasuredOperator,
    ModelFile,
    Provenance,
    SpaceRecord,
    measuring_of,
    read_model,
)
from nas_edge.latency.models.accuracy import Accuracy, accuracy_of
from nas_edge.latency.models.adapted import AdaptedModel, adapt
from nas_edge.latency.models.choosing import (
    WITH_ISOLATED,
    ChosenModel,
    accuracy_of_macs,
    accuracy_on,
    choose_model,
)
from nas_edge.latency.models.subject import Observation, subject_of_architecture
from nas_edge.latency.retry import RetryingSource
from nas_edge.latency_fitting.sampling import Pick, Role, Sampler
from nas_edge.latency_fitting.session import Measured, measure_design
from nas_edge.pipeline import same_data
from nas_edge.progress import Reporter
from nas_edge.runs.files import FILES
from nas_edge.runs.interrupts import StopSignals
from nas_edge.runs.run import Run
from nas_edge.search.trials import Trial
from nas_edge.seeds import generator
from nas_edge.spaces.decisions import NetworkSpace, SearchSpace
from nas_edge.spaces.reference import reference_network
from nas_edge.stages.context import load_data, make_space, open_devices, open_task, space_of, timing_inputs
from nas_edge.tasks.base import TaskData, head_of

# Of what searches measured, so much is held out.
_HELD_OUT_SHARE = 0.2
# Networks that say how much a column of an adapted model varies.
_POPULATION = 128


@dataclass(frozen=True)
class FitRequest:
    """What to fit.

    Attributes:
        config: space, devices, precision and how is measured; as of a search.
        outputs: numbers that a network gives, where there are no data to tell.
        budget_s: seconds of measuring; None for no limit.
        networks: how many at most; None for no limit.
        pool: see `Sampler`.
    """

    config: RunConfig
    outputs: int = 1001
    budget_s: float | None = 600.0
    networks: int | None = None
    pool: int = 384


@dataclass(frozen=True)
class _Bench:
    space: NetworkSpace
    device: DeviceSource
    provenance: Provenance


def fit_device(request: FitRequest, out: Path, reporter: Reporter) -> ModelFile:
    """Measures networks of a space on a device, fits a model, and writes it.

    Args:
        request: what to fit.
        out: new file; `OUT.journal` beside it holds what was measured until it is written.
        reporter: what the user sees.

    Raises:
        ConfigError: when the request is wrong, or too few networks could be measured.
        StoppedError: when the user stopped it; the same call continues.
        RunError, DeviceError: when a file or the device fails.
    """
    _check_new(out)
    with _bench(request, "fit", reporter) as bench:
        sampler = Sampler(bench.space, request.config.seed, request.pool)

        def next_batch(measured: Measured) -> Sequence[Pick]:
            if _is_over(request, measured):
                return ()
            batch = sampler.batch(measured.observations(sampler))
            left = len(batch) if request.networks is None else request.networks - len(measured.networks)
            networks = [pick for pick in batch if pick.operator is None][:left]
            return [pick for pick in batch if pick.operator is not None or pick in networks]

        measured = _measure(request, bench, out, reporter, next_batch)
        reporter.say("fitting")
        held_out = measured.observations(sampler, Role.HELD_OUT)
        floors = _floors(bench.device)
        provenance = bench.provenance.model_copy(update={"probe_floors": floors})
        file = _fitted(
            provenance,
            measured.observations(sampler),
            held_out,
            _networks(measured),
            _noise_floor(measured),
            measured.observations(sampler, Role.ISOLATED),
        ).model_copy(update={"isolated": _operators(measured)})
        _write(file, out)
    return file


def adapt_device(path: Path, request: FitRequest, out: Path, reporter: Reporter) -> ModelFile:
    """Brings a model to another device, or another session, by measuring a few networks there, and writes it.

    Args:
        path: of the model.
        request: as of `fit_device`; `networks` says how many.
        out: see `fit_device`.
        reporter: likewise.

    Errors are those of `fit_device`.
    """
    _check_new(out)
    source = read_model(path)
    if isinstance(source.model, AdaptedModel):
        raise ConfigError(f"{path} is an adapted model itself", fix="adapt the one that it was made of")
    with _bench(request, "adapt", reporter) as bench:
        source.check_use(path.name, bench.space, request.config.export.precision)
        sampler = Sampler(bench.space, request.config.seed, request.pool)

        def next_batch(measured: Measured) -> Sequence[Pick]:
            if _is_over(request, measured):
                return ()
            count = (request.networks or 10) - len(measured.outcomes)
            return [Pick(Role.FITTED, one) for one in sampler.fitted(min(5, count), ())]

        measured = _measure(request, bench, out, reporter, next_batch)
        observations = measured.observations(sampler)
        try:
            model = adapt(source.model, observations, sampler.population[:_POPULATION])
        except ValueError as error:
            raise ConfigError(f"{path} cannot be adapted: {error}", fix="measure more networks (--networks)") from None
        found = accuracy_on(source.model, observations)
        floors = _floors(bench.device)
        note = f"adapted from {path.name} (sha256 {source.digest}) of {source.provenance.device or 'an unnamed device'}"
        provenance = bench.provenance.model_copy(update={"probe_floors": floors, "note": note})
        file = ModelFile(
            provenance=provenance,
            model=model,
            half_width=2.3,  # of Student's t with about ten measurements
            accuracy={} if found is None else {"source as it was": found},
            measurements=_networks(measured),
        )
        _write(file, out)
    return file


def fit_runs(folders: Sequence[Path], out: Path, reporter: Reporter) -> ModelFile:
    """Fits a model to what searches measured, and writes it; no device is asked.

    Args:
        folders: runs on one device, with the same space and way of measuring.
        out: new file.
        reporter: what the user sees.

    Raises:
        ConfigError: when they differ, or have measured too few networks.
        RunError: when one cannot be read.
    """
    _check_new(out)
    found = [_of_run(Run.open(folder), reporter) for folder in folders]
    (_, provenance, space, _), *others = found
    for folder, other, _, _ in others:
        compared = {name: (getattr(provenance, name), getattr(other, name)) for name in _SAME}
        if differing := {name: pair for name, pair in compared.items() if pair[0] != pair[1]}:
            raise ConfigError(
                f"{folder} and {folders[0]} differ in {', '.join(differing)}, so their latencies cannot be joined",
                expected=", ".join(str(was) for was, _ in differing.values()),
                received=", ".join(str(now) for _, now in differing.values()),
            )
    answers: dict[Any, LatencyAnswer] = {}
    for *_, trials in found:
        answers.update((trial.architecture, trial.latency) for trial in trials if trial.latency is not None)
    order = generator(0, "latency held out").permutation(len(answers))
    architectures = [list(answers)[place] for place in order]
    count = int(_HELD_OUT_SHARE * len(architectures))
    reporter.say(f"fitting to {len(architectures) - count} networks, {count} held out")
    observations = [
        Observation.of(subject_of_architecture(space, architecture), answers[architecture])
        for architecture in architectures
    ]
    networks = tuple(
        _network(str(architecture), answers[architecture], place < count)
        for place, architecture in enumerate(architectures)
    )
    file = _fitted(provenance, observations[count:], observations[:count], networks, None)
    _write(file, out)
    return file


_SAME = ("fingerprint", "runtime", "precision", "measuring", "space")


def _of_run(run: Run, reporter: Reporter) -> tuple[Path, Provenance, SearchSpace, list[Trial]]:
    """What a run measured, and with what."""
    config, task = run.config, open_task(run.config)
    if not task.delivers:
        raise ConfigError(f"{run.folder} searched a table of results: nothing was measured")
    space = make_space(config, task, same_data(config, task, reporter))
    kept = [
        trial
        for trial in map(Trial.from_json, run.journal())
        if trial.latency is not None and trial.latency.kind is LatencyKind.MEASURED and trial.latency.ok
    ]
    if not kept:
        raise ConfigError(f"{run.folder} has measured no networks that can be relied on")
    assert kept[0].latency is not None
    measurement = kept[0].latency.measurement
    conditions = None if measurement is None else measurement.conditions
    if conditions is None:
        raise ConfigError(f"{run.folder} does not tell the conditions of its measurements")
    cores = "any" if conditions.cores is None else ",".join(map(str, conditions.cores))
    provenance = Provenance(
        source="runs",
        device=conditions.device_model,
        fingerprint=conditions.device_fingerprint,
        runtime=f"{conditions.runtime} {conditions.runtime_version}",
        precision=config.export.precision,
        measuring={"threads": conditions.threads, "delegate": conditions.delegate, "cores": cores},
        space=SpaceRecord.of(space),
        note=f"from {run.folder.name}",
    )
    return run.folder, provenance, space, kept


@contextmanager
def _bench(request: FitRequest, source: str, reporter: Reporter) -> Iterator[_Bench]:
    """Yields the space and the device, with what tells them from others."""
    config = request.config
    data: TaskData | None = None
    if "source" in config.data.model_fields_set:
        task = open_task(config)
        data = load_data(config, task, reporter)
        space: SearchSpace = make_space(config, task, data, reporter.say)
    else:
        space = space_of(config, request.outputs, 3, reporter.say)
    if not isinstance(space, NetworkSpace):
        raise ConfigError(f"the space {space.name} describes no networks, so no device can measure them")
    reference = None
    if config.reference is not None:
        reference = reference_network(
            config.reference.reference_name,
            config.reference.input_size,
            config.reference.width_multiplier,
            space.outputs,
            space.input_shape[-1],
            head_of(open_task(config), space.input_shape),
        )
    with open_devices(config, reference, timing_inputs(config, data)) as device:
        provenance = Provenance(
            source=source,
            device=device.info.model,
            fingerprint=device.info.fingerprint,
            runtime=f"{device.info.runtime} {device.info.runtime_version}",
            precision=config.export.precision,
            measuring=measuring_of(device.spec),
            space=SpaceRecord.of(space),
        )
        yield _Bench(space, device, provenance)


def _is_over(request: FitRequest, measured: Measured) -> bool:
    if request.networks is not None and len(measured.networks) >= request.networks:
        return True
    return request.budget_s is not None and measured.seconds >= request.budget_s


def _measure(
    request: FitRequest,
    bench: _Bench,
    out: Path,
    reporter: Reporter,
    next_batch: Callable[[Measured], Sequence[Pick]],
) -> Measured:
    told = bench.provenance.model_dump(mode="json", exclude={"created_utc", "probe_floors", "note", "nas_edge"})
    header = {**told, "seed": request.config.seed, "pool": request.pool}
    in_seconds = request.networks is None and request.budget_s is not None
    total = int(request.budget_s or 0) if in_seconds else request.networks
    reporter.say(f"measuring networks of {bench.space.name} on {bench.device.name}")
    with ExitStack() as stack:
        stop = stack.enter_context(StopSignals("stopped; the same command continues"))
        stack.enter_context(stop.held())
        show = stack.enter_context(reporter.stage("seconds of measuring" if in_seconds else "networks", total))

        def on_step(seconds: float, count: int) -> None:
            done = min(total or 0, int(seconds)) if in_seconds else count
            show(done, f"{count} networks" if in_seconds else f"{seconds:.0f} s")
            if stop.requested:
                raise StoppedError("stopped; what was measured is kept, and the same command continues")

        journal = journal_of(out)
        source = RetryingSource(bench.device)
        return measure_design(next_batch, bench.space, source, journal, header, reporter.say, on_step)


def journal_of(out: Path) -> Path:
    """Where measurements are until the file is written."""
    return out.with_name(f"{out.name}.journal")


def _fitted(
    provenance: Provenance,
    observations: Sequence[Observation],
    held_out: Sequence[Observation],
    networks: tuple[MeasuredNetwork, ...],
    noise_floor: Accuracy | None,
    isolated: Sequence[Observation] = (),
) -> ModelFile:
    chosen = choose_model(observations, isolated=isolated)
    accuracy: dict[str, Accuracy | None] = {}
    if held_out:
        accuracy[chosen.model.kind] = accuracy_on(chosen.model, held_out, chosen.half_width)
        accuracy |= {_shown_as(name, chosen): accuracy_on(model, held_out) for name, model in chosen.others.items()}
        accuracy["macs"] = accuracy_of_macs(observations, held_out)
    return ModelFile(
        provenance=provenance,
        model=chosen.model,
        half_width=chosen.half_width,
        accuracy={kind: found for kind, found in accuracy.items() if found is not None},
        noise_floor=noise_floor,
        measurements=networks,
    )


def _shown_as(name: str, chosen: ChosenModel) -> str:
    """The name of another model beside the chosen one, which is called by its kind."""
    if name.removesuffix(WITH_ISOLATED) != chosen.model.kind:
        return name
    return f"{chosen.model.kind} {'with' if name.endswith(WITH_ISOLATED) else 'without'} isolated"


def _operators(measured: Measured) -> tuple[MeasuredOperator, ...]:
    return tuple(
        MeasuredOperator(
            operator=str(outcome.pick.operator),
            latency_ms=outcome.answer.best_ms or None,
            interval_ms=outcome.answer.interval_ms,
            verdict=outcome.answer.verdict.value,
        )
        for outcome in measured.outcomes
        if outcome.pick.operator is not None
    )


def _networks(measured: Measured) -> tuple[MeasuredNetwork, ...]:
    return tuple(
        _network(str(outcome.pick.architecture), outcome.answer, outcome.pick.role is not Role.FITTED)
        for outcome in measured.networks
    )


def _network(architecture: str, answer: LatencyAnswer, held_out: bool) -> MeasuredNetwork:
    return MeasuredNetwork(
        architecture=architecture,
        latency_ms=answer.best_ms or None,
        interval_ms=answer.interval_ms,
        verdict=answer.verdict.value,
        held_out=held_out,
    )


def _noise_floor(measured: Measured) -> Accuracy | None:
    """How far two measurements of the same network are apart."""
    first = {
        outcome.pick.architecture: outcome.answer.latency_ms
        for outcome in measured.outcomes
        if outcome.pick.role is Role.HELD_OUT
    }
    pairs = [
        (first[outcome.pick.architecture], outcome.answer.latency_ms)
        for outcome in measured.outcomes
        if outcome.pick.role is Role.REPEATED
    ]
    known = [(was, now) for was, now in pairs if was is not None and now is not None]
    return accuracy_of([now for _, now in known], [was for was, _ in known]) if known else None


def _floors(device: DeviceSource) -> dict[str, float]:
    """The probes' times where nothing disturbs them, as far as they are known."""
    kept = FloorStore(default_floors()).read(FloorKey.of(device.info, device.spec))
    seen = {state.name: state.floor_ms for state in device.probe_states() if state.floor_ms is not None}
    return {name: floor_ms for name, floor_ms in {**kept, **seen}.items() if floor_ms > 0}


def _check_new(out: Path) -> None:
    """Refuses before anything takes time what would be overwritten."""
    if out.exists():
        raise RunError(f"{out} exists already", fix="name a new file with --out")


def _write(file: ModelFile, out: Path) -> None:
    _check_new(out)
    FILES.write_whole(out, file.to_text().encode())
    journal_of(out).unlink(missing_ok=True)
