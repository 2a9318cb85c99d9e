"""`RunContext`: what every stage of a run works with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agents.api import BenchmarkSpec, DeviceAgent, parse_cores
from device_agents.devices import open_device
from nas_edge.benchmarking.measure import cores_for, unique_addresses
from nas_edge.config import RunConfig
from nas_edge.errors import ConfigError
from nas_edge.hardware import HARDWARE
from nas_edge.hardware.lint import fit_template, space_for
from nas_edge.joint import joint_space
from nas_edge.latency import LatencyContext, open_latency_source
from nas_edge.latency.answer import LatencyKind
from nas_edge.latency.cache import MeasuringKey
from nas_edge.latency.device import DeviceSource
from nas_edge.latency.several import Part, SeveralSources
from nas_edge.latency.source import LatencySource
from nas_edge.networks.graph import NetworkSpec
from nas_edge.networks.precisions import PRECISIONS, Precision
from nas_edge.progress import Reporter
from nas_edge.runs.interrupts import StopSignals
from nas_edge.runs.result import LatencyEstimate
from nas_edge.runs.run import Run
from nas_edge.runs.targets import TargetGroup
from nas_edge.search.trials import Trial
from nas_edge.spaces import SPACES
from nas_edge.spaces.decisions import SearchSpace
from nas_edge.spaces.design import Design
from nas_edge.spaces.reference import reference_network
from nas_edge.stages.deployed import deployed
from nas_edge.tasks import TASKS
from nas_edge.tasks.base import NetworkTask, Task, TaskData, head_of, with_head

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class DevicePart(Part):
    """Devices of one model, and the latency to meet on them."""

    source: DeviceSource


@dataclass(frozen=True)
class Bench:
    """Where a run's latencies come from.

    Attributes:
        device: what delivered files are measured on; None for a run that delivers none.
        latency_source: where latencies of candidates come from; nearly always the device itself.
        precision: what is delivered.
        parts: devices of several models, each with its target, of which `device` is the first; empty for one model.
        measures_finalists: see `LatencySettings`.
    """

    device: DeviceSource | None
    latency_source: LatencySource
    precision: str
    parts: tuple[DevicePart, ...] = ()
    measures_finalists: bool = False

    @property
    def devices(self) -> list[DeviceSource]:
        """All that measure; none for a run that delivers nothing."""
        return [part.source for part in self.parts] or ([] if self.device is None else [self.device])

    @property
    def measures_candidates(self) -> bool:
        """Whether latencies of candidates are those of the run's devices, not of another source."""
        return bool(self.parts) or self.latency_source is self.device

    @property
    def finalists_source(self) -> LatencySource:
        """Where latencies of what the search ends with come from."""
        return self.device if self.measures_finalists and self.device is not None else self.latency_source

    @property
    def key(self) -> MeasuringKey:
        """What else than the design decides about a candidate's latency."""
        if self.device is not None and self.measures_candidates:
            return self.device.key
        return MeasuringKey(self.precision, self.latency_source.name, runtime="", settings="")

    @property
    def measured_with(self) -> dict[str, str]:
        """What else than the design decides about any latency of the run, see `runs.environment`.

        Target and delivered files are measured on the device, wherever latencies of candidates come from.
        """
        source = {} if self.measures_candidates else {"latency_source": self.latency_source.name}
        further = {
            f"{what} of device {number}": value
            for number, device in enumerate(self.devices[1:], start=2)
            for what, value in asdict(device.key).items()
        }
        return source if self.device is None else {**asdict(self.device.key), **further, **source}

    @property
    def required_device(self) -> DeviceSource:
        """The device, in a stage that requires one."""
        assert self.device is not None
        return self.device

    def estimate(self, winner: Trial) -> LatencyEstimate | None:
        """What the winner was chosen by, if not by the device."""
        if winner.latency is None or winner.latency.kind is LatencyKind.MEASURED or self.measures_candidates:
            return None
        known = winner.latency
        return LatencyEstimate(self.latency_source.name, known.latency_ms, known.kind, known.interval_ms)


@dataclass(frozen=True)
class RunContext:
    """What every stage of a run works with.

    Attributes:
        run: the folder; its lock is held.
        config: the settings, as resumed.
        task: what the networks are for.
        data: what they learn from; None for a task without.
        space: where to search.
        bench: where latencies come from.
        reporter: what the user sees.
        stop: whether the user wants to stop.
        again: the command that continues the run, without further options.
        group: the searches for several targets of which this is one, and with which it shares what it can.
        searched: the run that searched, where this one delivers another network of it.
    """

    run: Run
    config: RunConfig
    task: Task
    data: TaskData | None
    space: SearchSpace
    bench: Bench
    reporter: Reporter
    stop: StopSignals
    again: str
    group: TargetGroup | None = None
    searched: Run | None = None

    @property
    def home(self) -> Run:
        """The folder of what all that belongs to one search has in common."""
        return self.searched or (self.run if self.group is None else Run(self.group.folder))

    @property
    def measurements(self) -> Path:
        """Where latencies are kept."""
        return self.run.path("measurements.sqlite") if self.group is None else self.group.measurements

    @property
    def network_task(self) -> NetworkTask:
        """The task, in a stage that trains and delivers."""
        assert isinstance(self.task, NetworkTask)
        return self.task

    @property
    def required_data(self) -> TaskData:
        """The data, in a stage that requires them."""
        assert self.data is not None
        return self.data


def open_task(config: RunConfig) -> Task:
    """What the networks of a run are for.

    Raises:
        ConfigError: when finalists are to be trained, or weights to start from, and it has no networks.
    """
    task: Task = TASKS.make(config.task)
    if config.training.teacher is not None and not (isinstance(task, NetworkTask) and task.distills):
        raise ConfigError(
            f"training.method={config.training.method}: the task {config.task.name} does not say what is learned from "
            "another network",
            fix="choose another method",
        )
    asked = {"finalists.trained": config.finalists.trained > 1, "init (--init)": config.init is not None}
    if not task.delivers and any(asked.values()):
        named = " and ".join(name for name, given in asked.items() if given)
        raise ConfigError(f"{named}: a search of a table trains no networks; leave it out")
    return task


def load_data(config: RunConfig, task: Task, reporter: Reporter) -> TaskData | None:
    """Opens and splits the data, and says what there is.

    Raises:
        DataError: when it cannot be used.
    """
    input_size = 0 if config.reference is None else config.reference.input_size
    data = task.load(config.data, input_size, config.seed)
    if data is not None:
        reporter.say(task.describe(config.data, data))
        for line in data.dataset.left_out.lines():
            reporter.say(line)
    return data


def make_space(
    config: RunConfig, task: Task, data: TaskData | None, say: Callable[[str], object] = lambda line: None
) -> SearchSpace:
    """The search space, with the data's outputs and channels, without what `export.hardware` cannot run, and with what
    is searched jointly.

    Args:
        config: of the run.
        task: what the networks are for.
        data: what they learn from; None for a task without.
        say: is told what was left out for the hardware.

    Raises:
        SpaceError, ConfigError: when it cannot be made, or what remains of it cannot run on the hardware.
    """
    return space_of(config, task.outputs(data), 3 if data is None else data.preprocessing.shape[-1], say)


def space_of(
    config: RunConfig, outputs: int, channels: int, say: Callable[[str], object] = lambda line: None
) -> SearchSpace:
    """As `make_space`, where outputs and channels are known without data."""
    space = with_head(SPACES.make(config.space, outputs, channels), TASKS.make(config.task))
    precision = config.export.precision
    # Where operators have no kernel in that precision at all, the CPU's profile says which.
    hardware = config.export.profile or (HARDWARE["cpu"] if PRECISIONS[precision].without else None)
    fitted, changes = space_for(space, hardware, precision)
    if changes:
        say(f"{space.name} for {config.export.hardware or precision}: {', '.join(changes)}")
    return joint_space(config.joint, fitted)


def published_network(config: RunConfig, task: Task, data: TaskData | None) -> NetworkSpec | None:
    """The network that results are compared with, at the size and width of the search; None where there is none.

    It is changed as the space is, where `export.hardware` cannot run it as it was published.
    """
    settings = config.reference
    if settings is None or data is None:
        return None
    with_task = head_of(task, (settings.input_size, settings.input_size, data.preprocessing.shape[-1]))
    return reference_network(
        settings.reference_name,
        settings.input_size,
        settings.width_multiplier,
        task.outputs(data),
        data.preprocessing.shape[-1],
        lambda template: fit_template(with_task(template), config.export.profile),
    )


def timing_inputs(config: RunConfig, data: TaskData | None) -> NDArray[Any] | None:
    """What networks are timed on: validation examples, evenly spaced, float32 [examples, ...]; None for random values.

    Raises:
        DataError: when one cannot be read.
    """
    if data is None or not config.device.timing_inputs:
        return None
    validation = data.split.validation
    count = min(config.device.timing_inputs, len(validation))
    inputs, _ = data.arrays(validation[[place * len(validation) // count for place in range(count)]])
    return inputs


def open_devices(
    config: RunConfig, reference: NetworkSpec | None = None, inputs: NDArray[Any] | None = None
) -> DeviceSource:
    """Opens the run's devices.

    Args:
        config: of the run.
        reference: a network of the kind that is measured, which tells how quiet the devices are.
        inputs: see `timing_inputs`; used where all of the devices take them.

    Raises:
        DeviceAddressError: for an address that names no device.
        DeviceError: when one cannot be reached, or the settings do not fit it.
        ConfigError: when they are not interchangeable.
    """
    with ExitStack() as stack:
        agents = [stack.enter_context(open_device(one)) for one in unique_addresses(config.device.addresses)]
        source = _source_of(config, agents, reference, inputs)
        stack.pop_all()  # they are the source's to close now
    return source


def _source_of(
    config: RunConfig, agents: Sequence[DeviceAgent], reference: NetworkSpec | None, inputs: NDArray[Any] | None
) -> DeviceSource:
    spec = config.measure.spec(config.device).replace(cores=_cores_of(config, agents[0]))
    if inputs is not None:
        digests = {agent.take_examples(inputs) for agent in agents}
        spec = spec.replace(inputs="" if "" in digests else digests.pop())

    def measuring(design: Design) -> tuple[Precision, BenchmarkSpec]:
        changed = deployed(config, design)
        if changed is config:
            return config.export.precision, spec
        own = changed.measure.spec(changed.device).replace(cores=_cores_of(changed, agents[0]), inputs=spec.inputs)
        return changed.export.precision, own

    return DeviceSource(agents, config.export.precision, spec, reference=reference, measuring=measuring)


def _cores_of(config: RunConfig, agent: DeviceAgent) -> tuple[int, ...] | None:
    settings = config.device
    cores = None if settings.cores is None else parse_cores(settings.cores)
    return cores_for(agent, cores, settings.threads)


def open_device_models(
    config: RunConfig, reference: NetworkSpec | None = None, inputs: NDArray[Any] | None = None
) -> tuple[DevicePart, ...]:
    """Opens devices of several models, each with its target; those of one model share the work.

    Args:
        config: of the run, with `device.targets`.
        reference: see `open_devices`.
        inputs: see `open_devices`.

    Raises:
        ConfigError: when two of one model have different targets.
        DeviceAddressError, DeviceError: see `open_devices`.
    """
    groups: dict[tuple[str, str, str], list[tuple[str, DeviceAgent]]] = {}
    targets_ms, parts = config.device.targets_ms, []
    with ExitStack() as stack:
        for address in targets_ms:
            (full,) = unique_addresses([address])
            agent = stack.enter_context(open_device(full))
            info = agent.info()
            groups.setdefault((info.fingerprint, info.runtime, info.runtime_version), []).append((address, agent))
        for members in groups.values():
            first, *others = (address for address, _ in members)
            if differing := [address for address in others if targets_ms[address] != targets_ms[first]]:
                raise ConfigError(
                    f"{first} and {differing[0]} are devices of one model, with targets of {targets_ms[first]:g} and "
                    f"{targets_ms[differing[0]]:g} ms",
                    fix="give them the same target",
                )
        for members in groups.values():
            source = _source_of(config, [agent for _, agent in members], reference, inputs)
            parts.append(DevicePart(stack.enter_context(source), targets_ms[members[0][0]]))
        stack.pop_all()
    return tuple(parts)


def open_parts(config: RunConfig, target_ms: float, inputs: NDArray[Any] | None = None) -> tuple[DevicePart, ...]:
    """Opens the run's devices by model, each with its target.

    Args:
        config: of the run.
        target_ms: the target, where devices have none of their own.
        inputs: see `open_devices`.

    Errors are those of `open_device_models`.
    """
    if config.device.targets:
        return open_device_models(config, inputs=inputs)
    return (DevicePart(open_devices(config, inputs=inputs), target_ms),)


def final_spec(config: RunConfig, device: DeviceSource) -> BenchmarkSpec:
    """How what is delivered is measured: on the cores and inputs that the search measured it on."""
    return config.final_measure.spec(config.device).replace(
        cores=_cores_of(config, device.agent), inputs=device.spec.inputs
    )


@contextmanager
def open_bench(config: RunConfig, task: Task, data: TaskData | None, space: SearchSpace) -> Iterator[Bench]:
    """Opens the run's devices, if it delivers anything, and its latency source.

    Raises:
        ConfigError: when the latency source cannot be made, or the run has nothing to deliver and yet a device to ask.
        DeviceAddressError, DeviceError: see `open_devices`.
    """
    precision = config.export.precision
    with ExitStack() as stack:
        device = None
        if task.delivers:
            reference, inputs = published_network(config, task, data), timing_inputs(config, data)
            if config.device.targets:
                parts = open_device_models(config, reference, inputs)
                several = stack.enter_context(SeveralSources(parts))
                yield Bench(parts[0].source, several, precision, parts)
                return
            device = stack.enter_context(open_devices(config, reference, inputs))
        source = open_latency_source(config.latency, LatencyContext(space, precision, device))
        if source is not device:
            stack.enter_context(source)
        yield Bench(device, source, precision, measures_finalists=config.latency.measures_finalists)
