"""Searches for several targets: one after another, with what they can share.

    warm-up (once) -> for each target: controller's steps -> selection -> delivery
    latencies of all in one file: no network is measured twice in the searches

Each is a run of its own, and ends as a search for its target alone would, given the same latencies: what is shared is
what does not depend on the target. A search method without a warm-up shares the latencies alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from nas_edge import pipeline
from nas_edge.config import RunConfig, check_data_named
from nas_edge.errors import ConfigError, InfeasibleError
from nas_edge.formatting import command, ms_text
from nas_edge.progress import Reporter
from nas_edge.report import group_report, to_page
from nas_edge.runs.files import FILES
from nas_edge.runs.result import RunResult, read_result
from nas_edge.runs.run import CHANGEABLE, Run, RunFolderError, differing_settings
from nas_edge.runs.targets import TargetGroup, TargetResult


def search_targets(config: RunConfig, targets_ms: Sequence[float], out: Path, reporter: Reporter) -> list[TargetResult]:
    """Finds and delivers a network for each of several targets.

    Args:
        config: settings of all; its target does not count.
        targets_ms: latencies to meet.
        out: new folder, for a run per target.
        reporter: what the user sees.

    Returns:
        What became of each target, in ascending order. One that nothing meets keeps no other from being searched for.

    Raises:
        ConfigError: when a target is named twice.
        Errors of `pipeline.search`, but for InfeasibleError.
    """
    check_data_named(config)
    return _carry_out(TargetGroup.create(out, config, targets_ms), lambda config: config, reporter)


def resume_targets(folder: Path, change: Callable[[RunConfig], RunConfig], reporter: Reporter) -> list[TargetResult]:
    """Continues what `search_targets` began; what is finished is left as it is.

    Args:
        folder: of all runs.
        change: returns the settings to continue with, see `pipeline.resume`.
        reporter: what the user sees.

    Raises:
        ConfigError: when a setting may not change.
        RunError: when they do not search.
        Errors of `pipeline.resume`, but for InfeasibleError.
    """
    group = TargetGroup.open(folder)
    if not group.searches:
        raise RunFolderError(f"{folder} scales a network of another run", fix="continue it with nas-edge scale")
    changed = replace(group, config=change(group.config))
    differing = differing_settings(group.config, changed.config)
    if fixed := [path for path in differing if path not in CHANGEABLE and not path.startswith("training.")]:
        raise ConfigError(f"in {folder}, {', '.join(fixed[:5])} cannot change", fix="start a new search for that")
    if differing:
        changed.write()
    return _carry_out(changed, change, reporter)


def _carry_out(group: TargetGroup, change: Callable[[RunConfig], RunConfig], reporter: Reporter) -> list[TargetResult]:
    found = []
    for target_ms, folder in group.runs():
        reporter.say(f"target {ms_text(target_ms)} ms: {folder}")
        try:
            found.append(TargetResult(target_ms, folder, _one(group, target_ms, folder, change, reporter)))
        except InfeasibleError as error:
            reporter.say(str(error))
            found.append(TargetResult(target_ms, folder, None, error))
    page = to_page(group_report(group))
    FILES.write_whole(group.folder / "index.html", page.encode())
    return found


def _one(
    group: TargetGroup, target_ms: float, folder: Path, change: Callable[[RunConfig], RunConfig], reporter: Reporter
) -> RunResult:
    """Searches for one target, or goes on with it."""
    again = command("search", "--resume", group.folder)
    if not (folder / "config.json").exists():
        return pipeline.search(group.config_for(target_ms), folder, reporter, group, again)
    run = Run.open(folder)
    result = read_result(run)
    return result or pipeline.resume(folder, change, reporter, group, again)
