"""`nas-edge search`: options, each of which stands for settings, over `nas_edge.api`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas_edge.cli import completion
from nas_edge.cli.base import (
    PATH,
    Command,
    check_limit,
    print_result_table,
    print_results,
    read_latencies_ms,
    settings_option,
)
from nas_edge.cli.options import (
    CHARGED_HELP,
    COOL_HELP,
    CORES_HELP,
    DATA_HELP,
    DELEGATE_HELP,
    DEVICE_HELP,
    HARDWARE_HELP,
    INIT_HELP,
    JOINT_HELP,
    LATENCY_HELP,
    METHOD_HELP,
    QUANTIZATION_HELP,
    RESUME_HELP,
    TASK_HELP,
)
from nas_edge.errors import StoppedError
from nas_edge.networks.precisions import PRECISIONS

if TYPE_CHECKING:
    from nas_edge.config import RunConfig
    from nas_edge.runs.result import RunResult


@dataclass(frozen=True)
class Flag:
    """An option that stands for settings.

    Attributes:
        name: with its dashes.
        settings: the setting it gives a value, by dotted name; or what makes several settings of its value.
        attributes: of the `click.Option`.
    """

    name: str
    settings: str | Callable[[Any], Mapping[str, Any]]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parameter(self) -> str:
        """What click calls its value."""
        return self.name.removeprefix("--").replace("-", "_")

    def apply(self, value: Any) -> Mapping[str, Any]:
        """The settings by dotted name."""
        return {self.settings: value} if isinstance(self.settings, str) else self.settings(value)


def _table(file: str) -> Mapping[str, Any]:
    # Each architecture is on its own in a table, so a method that does not ask for shared weights is the default.
    return {
        "task.name": "tabular",
        "search.method": "multi-trial",
        "space.name": "table",
        "space.file": file,
    }


def _targets(text: str) -> tuple[float, ...]:
    return tuple(target_ms for _, target_ms in read_latencies_ms(text, "4 or 4,8,16"))


def _uses(given: Sequence[str]) -> list[tuple[str, float]]:
    """Resources and values from `RESOURCE=VALUE`; the settings check which resources exist."""
    found = []
    for text in given:
        name, _, number = text.partition("=")
        try:
            found.append((name.strip(), float(number)))
        except ValueError:
            raise click.UsageError(f"expected RESOURCE=VALUE, for example energy_mj=2; received {text!r}") from None
    return found


# Later ones override earlier ones, where several stand for the same setting.
FLAGS = (
    Flag(
        "--task",
        "task.name",
        {"metavar": "NAME", "shell_complete": completion.tasks, "help": TASK_HELP},
    ),
    Flag(
        "--space",
        "space.name",
        {"metavar": "NAME", "shell_complete": completion.spaces, "help": "Search space; see `nas-edge spaces`."},
    ),
    Flag(
        "--joint",
        "joint.kind",
        {"metavar": "NAME", "shell_complete": completion.joints, "help": JOINT_HELP},
    ),
    Flag("--data", "data.source", {"metavar": "SOURCE", "shell_complete": completion.data, "help": DATA_HELP}),
    Flag(
        "--skip-bad",
        "data.skip_bad",
        {"is_flag": True, "default": None, "help": "Leave out images that cannot be read, instead of stopping."},
    ),
    Flag(
        "--device",
        lambda addresses: {"device.addresses": addresses},
        {"multiple": True, "metavar": "ADDRESS", "shell_complete": completion.devices, "help": DEVICE_HELP},
    ),
    Flag(
        "--device-target",
        lambda targets: {"device.targets": targets},
        {
            "multiple": True,
            "metavar": "ADDRESS=MS",
            "help": "Latency to meet on a device; one for each lets them be of several models.",
        },
    ),
    Flag(
        "--latency",
        "latency.source",
        {"metavar": "SOURCE", "shell_complete": completion.latency_sources, "help": LATENCY_HELP},
    ),
    Flag(
        "--target-ms",
        lambda targets_ms: {"target.latency_ms": targets_ms[0]},
        {
            "callback": lambda context, parameter, text: None if text is None else _targets(text),
            "metavar": "MS[,MS...]",
            "help": "Latency to meet; several share a warm-up. Default: that of the space's reference network.",
        },
    ),
    Flag(
        "--limit",
        "target.limit",
        {"type": click.Choice(["hard", "none"]), "help": "Whether the winner may not exceed the target."},
    ),
    Flag(
        "--objective",
        lambda given: {"target.objectives": [{"resource": name, "target": value} for name, value in _uses(given)]},
        {
            "multiple": True,
            "metavar": "RESOURCE=VALUE",
            "help": "Also aim at this value of another resource, for example energy_mj=2; may be repeated.",
        },
    ),
    Flag(
        "--at-most",
        lambda given: {"target.limits": dict(_uses(given))},
        {
            "multiple": True,
            "metavar": "RESOURCE=VALUE",
            "help": "Limit another resource, for example file_size_bytes=500000; may be repeated.",
        },
    ),
    Flag(
        "--precision",
        "export.precision",
        {"type": click.Choice(list(PRECISIONS)), "help": "What is measured and delivered."},
    ),
    Flag(
        "--quantization",
        "export.quantization",
        {"type": click.Choice(["post-training", "aware", "auto"]), "help": QUANTIZATION_HELP},
    ),
    Flag(
        "--hardware",
        "export.hardware",
        {"metavar": "NAME", "shell_complete": completion.hardware, "help": HARDWARE_HELP},
    ),
    Flag(
        "--weights",
        "export.weights",
        {"type": click.Choice(["scratch", "shared"]), "help": "Where the winner's training starts."},
    ),
    Flag(
        "--init",
        "init",
        {"metavar": "RUN|FILE", "shell_complete": completion.runs, "help": INIT_HELP},
    ),
    Flag("--threads", "device.threads", {"type": int, "help": "Threads of the TFLite runtime."}),
    Flag("--delegate", "device.delegate", {"metavar": "NAME", "help": DELEGATE_HELP}),
    Flag("--cores", "device.cores", {"metavar": "big|little|MASK", "help": CORES_HELP}),
    Flag("--require-cool", "device.require_cool", {"is_flag": True, "default": None, "help": COOL_HELP}),
    Flag("--require-charged", "device.require_charged", {"is_flag": True, "default": None, "help": CHARGED_HELP}),
    Flag("--table", _table, {"metavar": "FILE", "help": "Search a table of results: CSV, plain or gzip. No --data."}),
    Flag(
        "--decisions",
        lambda text: {"space.decisions": [part.strip() for part in text.split(",")]},
        {"metavar": "NAME,NAME...", "help": "Columns of --table that are decisions."},
    ),
    Flag(
        "--method",
        "search.method",
        {"metavar": "NAME", "shell_complete": completion.methods, "help": METHOD_HELP},
    ),
    Flag(
        "--controller",
        "search.controller",
        {"metavar": "NAME", "shell_complete": completion.controllers, "help": "What proposes architectures."},
    ),
    Flag(
        "--quality-column",
        lambda name: {"search.quality": {"source": "column", "column": name}},
        {"metavar": "COLUMN", "help": "Column of --table that is the quality; more is better."},
    ),
    Flag(
        "--quality-scale",
        "search.quality.scale",
        {"type": float, "metavar": "NUMBER", "help": "Times that column, for example 0.01 for percent."},
    ),
    Flag(
        "--latency-column",
        lambda name: {"latency": {"source": "column", "column": name}},
        {"metavar": "COLUMN", "help": "Column of --table that is the latency, in milliseconds."},
    ),
    Flag("--steps", "search.steps", {"type": int, "help": "Search steps."}),
    Flag("--seed", "seed", {"type": int, "help": "Seed of everything random."}),
)


def _with_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `FLAGS` to a command, in their order."""
    for flag in reversed(FLAGS):
        command = click.option(flag.name, **dict(flag.attributes))(command)
    return command


@click.command(cls=Command)
@click.option(
    "--preset",
    type=click.Choice(["smoke", "demo", "laptop", "few-images", "fine-tuning", "single-gpu", "full"]),
    help="A named bundle of settings, see --list-settings.",
)
@_with_flags
@click.option("--config", "file", type=PATH, help="YAML or JSON file of settings.")
@settings_option("Any setting; may be repeated.")
@click.option("--list-settings", is_flag=True, help="Print every setting with its value and meaning, and stop.")
@click.option("--out", type=PATH, help="New folder for the run.")
@click.option("--resume", "resumed", type=PATH, metavar="RUN", shell_complete=completion.runs, help=RESUME_HELP)
@click.option("--dry-run", is_flag=True, help="Take one architecture end to end, and estimate what a run takes.")
def search(
    preset: str | None,
    file: Path | None,
    assignments: tuple[str, ...],
    list_settings: bool,
    out: Path | None,
    resumed: Path | None,
    dry_run: bool,
    **flags: Any,
) -> None:
    """Searches on a device and delivers the winner.

    Searches the space for the most accurate network that meets the target on the device, trains it, quantises it,
    checks it, and writes OUT/bundle.

    Exit codes: 0 done; with --limit hard (default), 3 when the limit is missed and 4 when a noisy measurement leaves
    that open; 1 failed, 2 misused, 130 stopped.

    \b
    Examples:
      nas-edge search --preset smoke --out runs/smoke
      nas-edge search --preset laptop --data photos/ --target-ms 4 --out runs/photos
      nas-edge search --resume runs/photos
    """  # noqa: D301 - click wants the control character, not its name
    from nas_edge.config import check_data_named, describe_settings, load_config

    targets_ms: tuple[float, ...] = flags["target_ms"] or ()
    settings: dict[str, Any] = {}
    for flag in FLAGS:
        value = flags[flag.parameter]
        if value is not None and value != ():
            settings |= flag.apply(value)

    def configure(base: RunConfig | None) -> RunConfig:
        return load_config(preset, file, settings, assignments, base)

    if resumed is not None:
        several = len(targets_ms) > 1
        others = {"--target-ms of several": several, "--out": out, "--dry-run": dry_run}
        others["--list-settings"] = list_settings
        if given := ", ".join(name for name in others if others[name]):
            raise click.UsageError(f"--resume continues a run in its folder; leave out {given}")
        _resume(resumed, configure)
        return
    _check_several(targets_ms, dry_run, flags["device_target"])
    config = configure(None)
    if list_settings:
        click.echo(describe_settings(config))
        return
    check_data_named(config)
    if out is None and not dry_run:
        raise click.UsageError("--out is missing: name a new folder for the run, for example --out runs/first")
    if dry_run:
        from nas_edge import api

        click.echo(api.estimate(config).text())
        return
    assert out is not None
    _search(config, out, targets_ms)


def _check_several(targets_ms: Sequence[float], dry_run: bool, device_targets: Sequence[str]) -> None:
    """Refuses what cannot go with several targets."""
    if len(targets_ms) < 2:
        return
    if device_targets:
        raise click.UsageError("--device-target names a target for each device; leave out --target-ms")
    if dry_run:
        raise click.UsageError("--dry-run takes one target; what comes after the warm-up is done for each of several")


def _search(config: RunConfig, out: Path, targets_ms: Sequence[float]) -> None:
    from nas_edge import api

    try:
        if len(targets_ms) > 1:
            print_results(api.search_targets(out, targets_ms, config=config))
        else:
            _print_result(api.search(out, config=config), out)
    except KeyboardInterrupt:
        if not out.exists():
            raise StoppedError("stopped; nothing was written") from None
        raise


def _resume(run: Path, configure: Callable[[RunConfig], RunConfig]) -> None:
    from nas_edge import api
    from nas_edge.runs.targets import is_group

    if is_group(run):
        print_results(api.resume_targets(run, change=configure))
    else:
        _print_result(api.resume(run, change=configure), run)


def _print_result(result: RunResult, run: Path) -> None:
    print_result_table(result, run)
    check_limit(result)
