"""Delivers a family: a network of a search, scaled to each of several latencies on its device.

the network of RUN -> study: sample, law, candidates, short trainings -> for each target: train -> convert -> measure

    OUT/targets.json               the targets, the settings, and which network is scaled
    OUT/stages/scaling*            the study, see `study`
    OUT/4ms/, OUT/8ms/ ...         a run per target, complete in itself
    OUT/index.html                 predicted against measured, and the networks side by side
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from nas_edge.config import RunConfig, load_config
from nas_edge.errors import ConfigError, InfeasibleError, SpaceError
from nas_edge.formatting import command
from nas_edge.latency.answer import LatencyAnswer, LatencyKind
from nas_edge.latency.retry import RetryingSource
from nas_edge.pipeline import carry_out, continuing, same_data, stopped
from nas_edge.progress import Reporter
from nas_edge.quiet import start_tensorflow
from nas_edge.report import group_report, to_page
from nas_edge.runs.files import FILES
from nas_edge.runs.interrupts import StopSignals
from nas_edge.runs.reselect import CHOSEN
from nas_edge.runs.result import LatencyEstimate, RunResult, read_result
from nas_edge.runs.run import CHANGEABLE, Run, RunFolderError, differing_settings
from nas_edge.runs.targets import TargetGroup, TargetResult
from nas_edge.scaling import TRAINED
from nas_edge.scaling.grid import POINT, Grid, Scale
from nas_edge.scaling.study import Study
from nas_edge.search.trials import Trial
from nas_edge.spaces import SPACES, NetworkSpaceSettings
from nas_edge.spaces.decisions import NetworkSpace
from nas_edge.stages.choosing import check_delivery
from nas_edge.stages.contender import Contender
from nas_edge.stages.context import Bench, RunContext, make_space, open_bench, open_task
from nas_edge.stages.delivering import deliver
from nas_edge.stages.sessions import add_session
from nas_edge.tasks.base import NetworkTask, TaskData


def scale_run(
    folder: Path,
    targets_ms: Sequence[float],
    out: Path | None,
    change: Callable[[RunConfig], RunConfig],
    reporter: Reporter,
    trained: int = TRAINED,
) -> tuple[Path, list[TargetResult]]:
    """Scales the network that a run delivered to each of several latencies, and delivers the results.

    It may be stopped, and continued with the same arguments.

    Args:
        folder: a finished run with a network.
        targets_ms: latencies to meet.
        out: folder for the family; None for `scaled` in the run.
        change: returns the settings of the family, given those of the run; see `stages.choosing`.
        reporter: what the user sees.
        trained: how many candidates are trained briefly, over all targets.

    Returns:
        The folder of the family, and the result for each target, in ascending order of targets.

    Raises:
        ConfigError, SpaceError: when the network cannot be scaled with these settings.
        RunError: when the run, its data or the folder cannot be used.
        InfeasibleError, UnreliableLatencyError, TrainingError, ExportError, DeviceError: see there.
    """
    searched = Run.open(folder)
    given: tuple[object, ...] = () if out is None else ("--out", out)
    out = out or searched.path("scaled")
    task = open_task(searched.config)
    found = read_result(searched)
    if not isinstance(task, NetworkTask):
        raise RunFolderError(f"{folder} searched a table of results, so there is no network to scale")
    if found is None:
        raise RunFolderError(f"{folder} is not finished", fix=f"to finish it: {command('search', '--resume', folder)}")
    searched.config.search.connect_processes()
    data = same_data(searched.config, task, reporter)
    assert data is not None
    searched.check_data(data.dataset.to_json())
    config = _settings(searched.config, task, data, found.winner.architecture, change, targets_ms)
    group = _open_group(out, config, targets_ms, reporter)
    listed = ",".join(f"{target_ms:g}" for target_ms in targets_ms)
    given = (*given, *(() if trained == TRAINED else ("--candidates", trained)))
    again = command("scale", folder, "--target-ms", listed, *given)
    home = Run(group.folder)
    with ExitStack() as stack:
        stop = stack.enter_context(StopSignals(stopped(again)))
        stack.enter_context(home.lock())
        start_tensorflow(config.runs.deterministic)
        space = make_space(group.config, task, data)
        bench = stack.enter_context(open_bench(group.config, task, data, space))
        context = RunContext(home, group.config, task, data, space, bench, reporter, stop, again, group)
        return group.folder, _Family(context, group, trained).deliver()


class _Family:
    """The study and the networks that it leads to.

    Args:
        context: of the folder that they share.
        group: that folder.
        trained: see `scale_run`.
    """

    def __init__(self, context: RunContext, group: TargetGroup, trained: int) -> None:
        self._context, self._group, self._trained = context, group, trained
        task, data = context.task, context.required_data
        self._grid = Grid(group.config, task.outputs(data), data.preprocessing.shape[2])

        @cache
        def data_at(input_size: int) -> TaskData:
            if input_size == self._grid.found.input_size:
                return data
            loaded = task.load(group.config.data, input_size, group.config.seed)
            assert loaded is not None
            return loaded

        self._data_at = data_at

    def deliver(self) -> list[TargetResult]:
        """Does whatever is not done yet."""
        context, group = self._context, self._group
        add_session(context)
        with continuing(context):
            study = context.run.once("scaling", self._study)
        members = _members(study, group)
        results = [
            self._result(target_ms, path, member)
            for (target_ms, path), member in zip(group.runs(), members, strict=True)
        ]
        FILES.write_whole(group.folder / "index.html", to_page(group_report(group)).encode())
        return results

    def _study(self) -> dict[str, Any]:
        source = RetryingSource(self._context.bench.finalists_source)
        targets_ms = self._group.targets_ms
        return Study(self._context, self._grid, source, targets_ms, self._data_at, self._trained).conclude()

    def _result(self, target_ms: float, path: Path, member: _Member | str) -> TargetResult:
        if isinstance(member, str):
            self._context.reporter.say(member)
            return TargetResult(target_ms, path, None, InfeasibleError(member))
        config = load_config(flags={"target.latency_ms": target_ms}, base=self._grid.config(member.scale))
        if not (path / "config.json").exists():
            with Run.create(path, config) as run:
                return TargetResult(target_ms, path, self._delivered(run, config, member))
        run = Run.open(path)
        if (result := read_result(run)) is not None:
            return TargetResult(target_ms, path, result)
        with run.lock():
            return TargetResult(target_ms, path, self._delivered(run, config, member))

    def _delivered(self, run: Run, config: RunConfig, member: _Member) -> RunResult:
        """Trains and bundles one of the family, in its run."""
        whole, grid, scale = self._context, self._grid, member.scale
        run.once(CHOSEN, lambda: {"schema_version": 1, "architecture": str(POINT), **member.content})
        context = replace(whole, run=run, config=config, data=self._data_at(scale.input_size), space=grid.space(scale))
        whole.reporter.say(f"{config.target.latency_ms:g} ms: {scale}: {run.folder}")
        return carry_out(context, lambda context: _deliver(context, member, whole.bench))


@dataclass(frozen=True)
class _Member:
    """What the study found for a target.

    Attributes:
        scale: of the network.
        predicted_ms: latency by the law, from before the network was measured.
        interval_ms: its 95% interval.
        networks: how many the law was fitted to.
        content: the entry of the study.
    """

    scale: Scale
    predicted_ms: float
    interval_ms: tuple[float, float]
    networks: int
    content: Mapping[str, Any]


def _members(study: Mapping[str, Any], group: TargetGroup) -> list[_Member | str]:
    """What the study found for each target; as a text, why it found nothing."""
    found: list[_Member | str] = []
    try:
        networks = int(study["law"]["networks"])
        for one in study["members"]:
            if "problem" in one:
                found.append(str(one["problem"]))
                continue
            scale = Scale(float(one["depth"]), float(one["width"]), int(one["input_size"]))
            low_ms, high_ms = map(float, one["predicted_interval_ms"])
            found.append(_Member(scale, float(one["predicted_ms"]), (low_ms, high_ms), networks, one))
        if len(found) != len(group.targets_ms):
            raise ValueError(f"expected {len(group.targets_ms)} members, received {len(found)}")
    except (LookupError, TypeError, ValueError) as error:
        raise RunFolderError(
            f"{group.folder / 'stages/scaling.json'} is damaged: {error}", fix="remove it, and it is made again"
        ) from None
    return found


def _deliver(context: RunContext, member: _Member, bench: Bench) -> RunResult:
    network = context.space.build(POINT).needed_network()
    predicted = LatencyAnswer.estimated(LatencyKind.PREDICTED, member.predicted_ms, member.interval_ms)
    # Without a quality: that of a short training, which the study reports, is not comparable with a search's.
    trial = Trial(0, 0, POINT, None, predicted, None, None)
    contender = Contender("winner", str(POINT), None, network)
    source = f"a scaling law fitted to {member.networks} networks on {bench.finalists_source.name}"
    estimate = LatencyEstimate(source, member.predicted_ms, LatencyKind.PREDICTED, member.interval_ms)
    assert context.config.target.latency_ms is not None
    return deliver(context, context.config.target.latency_ms, trial, [contender], estimate)


def _settings(
    searched: RunConfig,
    task: NetworkTask,
    data: TaskData,
    architecture: str,
    change: Callable[[RunConfig], RunConfig],
    targets_ms: Sequence[float],
) -> RunConfig:
    """The settings of the whole family, whose space is the network that was found.

    Raises:
        ConfigError, SpaceError: when it cannot be scaled with these settings.
    """
    config = change(searched)
    check_delivery(searched, config)
    _check(config)
    space = make_space(searched, task, data)
    if not isinstance(space, NetworkSpace) or not isinstance(searched.space, NetworkSpaceSettings):
        raise SpaceError(f"networks of {space.name} cannot be scaled: the space has no template")
    # The run's space may lack choices that its hardware cannot run, so choices are carried over by value, not by index.
    chosen = space.parse(architecture).choices
    values = {d.path: d.choices[choice] for d, choice in zip(space.decisions, chosen, strict=True)}
    whole = SPACES.make(searched.space, task.outputs(data), data.preprocessing.shape[2])
    flags: dict[str, Any] = {
        "space": {
            "name": "scaled",
            "of": searched.space.model_dump(mode="json"),
            "architecture": str(whole.encode(values)),
            "input_size": searched.space.input_size,
            "width_multiplier": searched.space.width_multiplier,
            "reference": searched.space.reference_name,
        },
        "target.latency_ms": targets_ms[0],
        "export.weights": "scratch",
        "device.timing_inputs": 0,  # validation images have a single size
    }
    return load_config(flags=flags, base=config)


def _check(config: RunConfig) -> None:
    """Refuses settings that scaled networks do not support."""
    if config.joint.widens:
        raise ConfigError(
            f"networks of a joint search (joint.kind={config.joint.kind}) cannot be scaled",
            fix="scale the network of a search without --joint",
        )
    if config.device.targets:
        raise ConfigError("scaling requires devices of one model; this run has several (device.targets)")
    if config.training.teacher is not None:
        raise ConfigError(
            f"training.method={config.training.method} cannot train them: its teacher has a single input size",
            fix="choose another, for example --set training.method=standard",
        )
    if config.training.epochs == 0:
        raise ConfigError(
            "scaled networks have no shared weights to start from", fix="set training.epochs to 1 or more"
        )


def _open_group(out: Path, config: RunConfig, targets_ms: Sequence[float], reporter: Reporter) -> TargetGroup:
    """The folder of the family, new or as it was left.

    Raises:
        ConfigError: when a setting differs that cannot change.
        RunError: when it holds something else.
    """
    if not (out / "targets.json").exists():
        return TargetGroup.create(out, config, targets_ms, searches=False)
    group = TargetGroup.open(out)
    if group.searches or group.targets_ms != tuple(sorted(targets_ms)):
        raise RunFolderError(f"{out} holds networks for other targets", fix="choose another --out")
    differing = differing_settings(group.config, config)
    if fixed := [path for path in differing if path not in CHANGEABLE]:
        raise ConfigError(f"in {out}, {', '.join(fixed[:5])} cannot change", fix="choose another --out")
    changed = replace(group, config=config)
    if differing:
        changed.write()
        reporter.say(f"continuing with other {', '.join(differing)}")
    return changed
