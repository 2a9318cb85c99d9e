"""Delivers another network of a search than its winner, whenever it is asked for.

architecture -> what the run knows of it -> train -> convert -> quantise -> check -> measure -> bundle
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from nas_edge.config import RunConfig
from nas_edge.formatting import command
from nas_edge.pipeline import carry_out, same_data, stopped
from nas_edge.progress import Reporter
from nas_edge.quiet import start_tensorflow
from nas_edge.runs.interrupts import StopSignals
from nas_edge.runs.result import RunResult
from nas_edge.runs.run import Run, RunFolderError
from nas_edge.stages.choosing import choose, deliver_choice, open_delivery
from nas_edge.stages.context import RunContext, make_space, open_bench, open_task
from nas_edge.stages.deployed import as_deployed


def deliver_architecture(
    folder: Path,
    architecture: str,
    out: Path | None,
    target_ms: float | None,
    change: Callable[[RunConfig], RunConfig],
    reporter: Reporter,
) -> tuple[Path, RunResult]:
    """Delivers another network of a search than its winner, trained on its own, and measured on the device.

    It may be stopped, and continued with the same arguments. The search may be finished, stopped, or still going on.

    Args:
        folder: the run that searched.
        architecture: the text form of any architecture of its space.
        out: folder for the delivery; None for one in the run.
        target_ms: a hard limit for it; None for none.
        change: returns the settings of the delivery, given those of the search, see `stages.choosing`.
        reporter: what the user sees.

    Returns:
        The folder of the delivery, and what was delivered.

    Raises:
        SpaceError: when the architecture is none of the space.
        ConfigError: when a setting may not differ from the search.
        RunError: when it is delivered already, or the run or its data cannot be used.
        TrainingError, ExportError, DeviceError: see there.
    """
    searched = Run.open(folder)
    task = open_task(searched.config)
    if not task.delivers:
        raise RunFolderError(f"{folder} searched a table of results: there is no network to deliver")
    searched.config.search.connect_processes()
    data = same_data(searched.config, task, reporter)
    assert data is not None
    searched.check_data(data.dataset.to_json())
    space = make_space(searched.config, task, data)
    choice = choose(searched, space, architecture)
    given = () if out is None else ("--out", out)
    out = out or choice.folder
    again = command("deliver", folder, "--architecture", choice.architecture, *given)
    with ExitStack() as stack:
        stop = stack.enter_context(StopSignals(stopped(again)))
        run, config = stack.enter_context(open_delivery(choice, out, target_ms, change))
        start_tensorflow(config.runs.deterministic)
        bench = stack.enter_context(open_bench(config, task, data, space))
        context = RunContext(run, config, task, data, space, bench, reporter, stop, again, searched=searched)
        context = as_deployed(context, choice.architecture)
        return out, carry_out(context, lambda context: deliver_choice(context, choice))
