"""nas_edge from Python, for notebooks and scripts. The command line is a thin layer over these functions.

    from nas_edge.api import benchmark, export, search

    result = search("runs/photos", preset="laptop", settings={"data.source": "photos/", "target.latency_ms": 4})
    print(result.latency_ms, result.winner.accuracy["int8"])

Settings are those of `nas-edge search --list-settings`, by their dotted names. Every function raises
`nas_edge.errors.NasEdgeError` or `device_agents.errors.DeviceError`, with one line that says what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agents.api import PRESETS as MEASURING_PRESETS
from device_agents.api import BenchmarkSpec, parse_cores
from device_agents.errors import DeviceError
from device_agents.floors import FloorStore, default_floors
from nas_edge.benchmarking import BenchmarkStoppedError, Report, Request, read_models, run_benchmark, unique_addresses
from nas_edge.config import PRESETS, RunConfig, load_config
from nas_edge.dry_run import Estimate
from nas_edge.errors import ConfigError, NasEdgeError
from nas_edge.progress import Reporter
from nas_edge.runs.interrupts import StopSignals
from nas_edge.runs.result import ResultRow, RunResult
from nas_edge.scaling import TRAINED

if TYPE_CHECKING:
    from nas_edge.latency.model_file import ModelFile
    from nas_edge.latency_fitting.fitting import FitRequest
    from nas_edge.latency_fitting.reselecting import Reselection
    from nas_edge.runs.targets import TargetResult
    from nas_edge.spaces.decisions import SearchSpace


def configure(
    *,
    preset: str | None = None,
    config_file: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
    base: RunConfig | None = None,
) -> RunConfig:
    """The settings of a run, each source overriding the one before.

    Args:
        preset: a name of `nas_edge.config.PRESETS`.
        config_file: YAML or JSON with the same shape as `RunConfig`.
        settings: values by dotted name, for example `{"search.steps": 100}`.
        assignments: `name=value` texts, the values read as YAML.
        base: what stands in for the defaults: the settings of a run that is continued.

    Raises:
        ConfigError: one line naming the setting, what was expected and what was received.
    """
    return load_config(preset, None if config_file is None else Path(config_file), settings, assignments, base)


def search(
    out: str | Path,
    *,
    preset: str | None = None,
    config_file: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    config: RunConfig | None = None,
    reporter: Reporter | None = None,
) -> RunResult:
    """Searches on a device, trains the winner, and writes its bundle to `out/bundle`.

    Args:
        out: new folder for the run.
        preset: see `configure`.
        config_file: see `configure`.
        settings: see `configure`.
        config: the settings as a whole, in place of these three.
        reporter: what shows progress; by default a line on standard error.

    Returns:
        What was found; also in `out/result.json`.

    Raises:
        ConfigError, DataError: when the request is wrong.
        InfeasibleError: when nothing meets the target.
        RunError, DeviceError: when the run folder or the device fails; the run can be resumed.
    """
    from nas_edge import pipeline

    chosen = config or configure(preset=preset, config_file=config_file, settings=settings)
    return pipeline.search(chosen, Path(out), reporter or Reporter())


def search_targets(
    out: str | Path,
    targets_ms: Sequence[float],
    *,
    preset: str | None = None,
    config_file: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    config: RunConfig | None = None,
    reporter: Reporter | None = None,
) -> list[TargetResult]:
    """Searches for several targets, which share the warm-up and the measurements, and delivers each one's network.

    Args:
        out: new folder, for a run per target.
        targets_ms: latencies to meet.
        preset: see `configure`.
        config_file: see `configure`.
        settings: see `configure`.
        config: the settings as a whole, in place of these three.
        reporter: see `search`.

    Returns:
        What became of each target, in ascending order.

    Raises:
        Errors of `search`, but for InfeasibleError: see `TargetResult.problem`.
    """
    from nas_edge.several_targets import search_targets

    chosen = config or configure(
        preset=preset, config_file=config_file, settings={"target.latency_ms": targets_ms[0], **(settings or {})}
    )
    return search_targets(chosen, targets_ms, Path(out), reporter or Reporter())


def resume_targets(
    folder: str | Path,
    *,
    change: Callable[[RunConfig], RunConfig] = lambda config: config,
    reporter: Reporter | None = None,
) -> list[TargetResult]:
    """Continues what `search_targets` began.

    Args:
        folder: of all runs.
        change: returns the settings to continue with, see `resume`.
        reporter: see `search`.
    """
    from nas_edge.several_targets import resume_targets

    return resume_targets(Path(folder), change, reporter or Reporter())


def resume(
    run: str | Path,
    *,
    settings: Mapping[str, Any] | None = None,
    change: Callable[[RunConfig], RunConfig] | None = None,
    reporter: Reporter | None = None,
) -> RunResult:
    """Continues a run that was stopped, in whatever way.

    Args:
        run: its folder.
        settings: those to continue with, by dotted name; few may change, see `nas_edge.runs.run.CHANGEABLE`.
        change: the same as a function of the run's settings.
        reporter: see `search`.

    Raises:
        RunError: when it is finished, in use or damaged.
        ConfigError: when a setting may not change.
    """
    from nas_edge import pipeline

    def changed(config: RunConfig) -> RunConfig:
        return configure(settings=settings, base=config)

    return pipeline.resume(Path(run), change or changed, reporter or Reporter())


def estimate(config: RunConfig, *, reporter: Reporter | None = None) -> Estimate:
    """Takes one architecture end to end and says what a whole run takes; writes nothing.

    Raises:
        NasEdgeError, DeviceError: what the run would have ended with.
    """
    from nas_edge.dry_run import rehearse

    return rehearse(config, reporter or Reporter())


def export(
    run: str | Path,
    out: str | Path,
    *,
    device: str | None = None,
    hardware: str | None = None,
    precision: str | None = None,
    npu: Sequence[str] = (),
    reporter: Reporter | None = None,
) -> RunResult:
    """Writes the bundle of a finished run again, converted and measured anew.

    Args:
        run: its folder.
        out: new folder for the bundle.
        device: address of where to measure; None for the run's own.
        hardware: name of what has to run it, see `nas_edge.hardware`; None for the run's own, if it has any.
        precision: what to deliver, a name in `nas_edge.networks.precisions.PRECISIONS`, or `auto` for the fastest on
            the device that keeps `export.accuracy_budget`; None for the run's own.
        npu: `VENDOR:SOC` of NPUs that it is also compiled for, see `nas_edge.hardware.npu`.
        reporter: see `search`.

    Raises:
        RunError: when the run did not get as far as a trained winner, or `out` exists.
    """
    from nas_edge import pipeline

    return pipeline.export(Path(run), Path(out), device, reporter or Reporter(), hardware, precision, npu)


def export_family(
    runs: str | Path,
    out: str | Path,
    *,
    device: str | None = None,
    hardware: str | None = None,
    precision: str | None = None,
    npu: Sequence[str] = (),
    reporter: Reporter | None = None,
) -> dict[str, RunResult]:
    """Writes the bundles of a search for several targets into one folder with one index.

    Args:
        runs: the folder that `search_targets` made.
        out: new folder for the family.
        device: see `export`.
        hardware: see `export`.
        precision: see `export`.
        npu: see `export`.
        reporter: see `search`.

    Returns:
        What was delivered, by the bundles' names: `small`, `medium`, `large` of three.

    Raises:
        RunError: when no target has a network, or `out` exists.
    """
    from nas_edge.family_export import export_family

    return export_family(Path(runs), Path(out), device, reporter or Reporter(), hardware, precision, npu)


def deliver(
    run: str | Path,
    architecture: str,
    out: str | Path | None = None,
    *,
    target_ms: float | None = None,
    settings: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
    reporter: Reporter | None = None,
) -> tuple[Path, RunResult]:
    """Delivers another network of a search than its winner: trains, quantises, checks, measures and bundles it.

    Args:
        run: its folder.
        architecture: text form of any architecture of the space, usually one of `RunResult.front`.
        out: new folder for the delivery, itself a run; None for one in the run. The same call continues what was
            stopped.
        target_ms: a hard limit for its latency, in ms; None for none.
        settings: those that differ from the search, by dotted name; of training, export, device and measurement.
        assignments: see `configure`.
        reporter: see `search`.

    Returns:
        The folder of the delivery, whose bundle is in `bundle`, and what was delivered.

    Raises:
        SpaceError, ConfigError: when the request is wrong.
        RunError, DeviceError: when the run folder or the device fails.
    """
    from nas_edge.later_delivery import deliver_architecture

    def change(config: RunConfig) -> RunConfig:
        return configure(settings=settings, assignments=assignments, base=config)

    new = None if out is None else Path(out)
    return deliver_architecture(Path(run), architecture, new, target_ms, change, reporter or Reporter())


def scale(
    run: str | Path,
    targets_ms: Sequence[float],
    out: str | Path | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
    trained: int = TRAINED,
    reporter: Reporter | None = None,
) -> tuple[Path, list[TargetResult]]:
    """Scales depth, width and input size of the network that a run delivered, to several latencies on the device.

    Args:
        run: its folder; it has to be finished.
        targets_ms: latencies to meet.
        out: new folder for the family; None for `scaled` in the run. The same call continues after a stop.
        settings: those that differ from the search, by dotted name; of training, export, device and measurement.
        assignments: see `configure`.
        trained: how many candidates are trained briefly, over all targets.
        reporter: see `search`.

    Returns:
        The folder of the family, with a run for each target, and the result of each, in ascending order of targets.

    Raises:
        ConfigError, SpaceError: when the network cannot be scaled with these settings.
        RunError, DeviceError: when the run folder or the device fails.
    """
    from nas_edge.scaling.family import scale_run

    def change(config: RunConfig) -> RunConfig:
        return configure(settings=settings, assignments=assignments, base=config)

    new = None if out is None else Path(out)
    return scale_run(Path(run), targets_ms, new, change, reporter or Reporter(), trained)


def reselect(
    run: str | Path,
    targets_ms: Sequence[float],
    *,
    latency: str | None = None,
    device: str | None = None,
    reporter: Reporter | None = None,
) -> Reselection:
    """Answers other targets on another device, or by a latency model, from what a run knows; nothing is trained.

    Args:
        run: its folder.
        targets_ms: latencies to meet.
        latency: `model:FILE`, a model that predicts; it or a device has to be named.
        device: address of a device, on which some architectures of the run are measured.
        reporter: see `search`.

    Raises:
        ConfigError: when neither is named, or both; or the model is of something else.
        RunError, DeviceError: when the run folder or the device fails.
    """
    from nas_edge.latency_fitting.reselecting import reselect_by_model, reselect_on_device

    if latency is not None and device is None:
        return reselect_by_model(Path(run), targets_ms, latency, reporter or Reporter())
    if device is not None and latency is None:
        return reselect_on_device(Path(run), targets_ms, device, reporter or Reporter())
    raise ConfigError("name either a latency model or a device")


def benchmark(
    models: Sequence[str | Path],
    *,
    devices: Sequence[str] = ("host:",),
    threads: Sequence[int] = (1,),
    preset: str = "quick",
    cores: str | None = None,
    spec: Mapping[str, Any] | None = None,
    reporter: Reporter | None = None,
    earlier: Report | None = None,
    on_stop: Callable[[Report], object] = lambda report: None,
) -> Report:
    """Measures TFLite files side by side, in short visits, shuffled among all of them.

    A row's `measurement.latency_ms` is its quiet latency, what the network costs where nothing else runs on the device;
    `measurement.statistics` are of all runs, what it cost as the device was meanwhile.

    Ctrl-C, SIGTERM and SIGHUP stop it; what was measured until then is in the error, and can be continued.

    Args:
        models: files.
        devices: addresses, see `nas-edge devices`.
        threads: numbers of threads, each measured on its own.
        preset: how long a model is timed, a name of `device_agents.api.PRESETS`.
        cores: CPUs to run on: big, little, ids or a mask; None lets the device choose.
        spec: fields of `device_agents.api.BenchmarkSpec` that differ from the preset, for example
            `{"delegate": "gpu"}`.
        reporter: see `search`.
        earlier: the report of the same benchmark, stopped or with a device that was lost, see
            `nas_edge.benchmarking.read_report`: what it has is not measured again.
        on_stop: is given the report when the user stops it, before the devices are closed, for which the round of
            measurements they are at is waited for.

    Returns:
        A row per model, device and number of threads; one that failed is a row too. `nas_edge.benchmarking` compares
        and prints reports.

    Raises:
        UsageError, SpecError, DeviceAddressError: when the request is wrong.
        DeviceError: when a device cannot be opened.
        BenchmarkStoppedError: when the user stops it; its `report` has what was measured.
    """
    if preset not in MEASURING_PRESETS:
        raise ConfigError(f"unknown preset {preset!r}; supported: {', '.join(MEASURING_PRESETS)}")
    wanted: BenchmarkSpec = MEASURING_PRESETS[preset].replace(**dict(spec or {}))
    for count in threads:
        wanted.replace(threads=count)  # refuses what no device takes
    request = Request(
        read_models([Path(model) for model in models]),
        unique_addresses(devices),
        tuple(threads),
        preset,
        wanted,
        cores=None if cores is None else parse_cores(cores),
    )
    with (
        StopSignals("stopped", notice="stopping; press Ctrl-C again not to wait for the device"),
        (reporter or Reporter()).stage("measuring", request.parts) as show,
    ):
        return run_benchmark(request, show, earlier=earlier, on_stop=on_stop, floors=FloorStore(default_floors()))


def fit_latency(request: FitRequest, out: str | Path, *, reporter: Reporter | None = None) -> ModelFile:
    """Measures networks of a space on a device, and fits a model of its latencies, for `--latency model:FILE`.

    Args:
        request: which space and device, and how long.
        out: new file.
        reporter: see `search`.

    Returns:
        The model, also written to `out`, with its accuracy on networks that were held out.

    Raises:
        ConfigError: when the request is wrong, or too few networks could be measured.
        StoppedError: when the user stopped it; the same call continues.
        RunError, DeviceError: when a file or the device fails.
    """
    from nas_edge.latency_fitting.fitting import fit_device

    return fit_device(request, Path(out), reporter or Reporter())


def fit_latency_to_runs(runs: Sequence[str | Path], out: str | Path, *, reporter: Reporter | None = None) -> ModelFile:
    """Fits a model to what searches have measured; see `fit_latency`.

    Args:
        runs: folders, of one device, space and way of measuring.
        out: new file.
        reporter: see `search`.
    """
    from nas_edge.latency_fitting.fitting import fit_runs

    return fit_runs([Path(run) for run in runs], Path(out), reporter or Reporter())


def adapt_latency(
    model: str | Path, request: FitRequest, out: str | Path, *, reporter: Reporter | None = None
) -> ModelFile:
    """Brings a model to another device by measuring a few networks there; see `fit_latency`.

    Args:
        model: a file.
        request: which device, and how many networks.
        out: new file.
        reporter: see `search`.
    """
    from nas_edge.latency_fitting.fitting import adapt_device

    return adapt_device(Path(model), request, Path(out), reporter or Reporter())


def import_latency(table: str | Path, form: str, out: str | Path) -> ModelFile:
    """Brings a published table of latencies into the form of a model.

    Args:
        table: a file.
        form: its format, a name of `nas_edge.latency.formats.FORMATS`.
        out: new file.

    Raises:
        ConfigError: when it is not of that format.
    """
    from nas_edge.latency_fitting.tables import import_table

    return import_table(Path(table), form, Path(out))


def export_latency(model: ModelFile, form: str, out: str | Path, space: SearchSpace | None = None) -> list[Path]:
    """Writes a model in the format of a published table; returns the files that were written.

    Args:
        model: what `fit_latency` returned, or `nas_edge.latency.model_file.read_model`.
        form: see `import_latency`.
        out: new file.
        space: whose networks the table is for, where the format needs it.

    Raises:
        ConfigError: when the model does not fit the format.
    """
    from nas_edge.latency_fitting.tables import export_table

    return export_table(model, form, Path(out), space)


__all__ = [
    "PRESETS",
    "BenchmarkStoppedError",
    "DeviceError",
    "Estimate",
    "NasEdgeError",
    "Report",
    "Reporter",
    "ResultRow",
    "RunConfig",
    "RunResult",
    "adapt_latency",
    "benchmark",
    "configure",
    "deliver",
    "estimate",
    "export",
    "export_family",
    "export_latency",
    "fit_latency",
    "fit_latency_to_runs",
    "import_latency",
    "reselect",
    "resume",
    "resume_targets",
    "search",
    "search_targets",
]
