"""Writes the bundles of a search for several targets into one folder, with one index: a family.

For each target: trained network -> convert -> check -> measure -> bundle; then the index of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas_edge import pipeline
from nas_edge.export.bundle import MODEL_FILES, check_new_bundle, new_folder
from nas_edge.export.family import finish_family, member_names
from nas_edge.formatting import command, ms_text
from nas_edge.progress import Reporter
from nas_edge.report import to_page
from nas_edge.report.family_page import family_report
from nas_edge.runs.reselect import CHOSEN
from nas_edge.runs.result import RunResult, read_result
from nas_edge.runs.run import Run, RunFolderError
from nas_edge.runs.targets import TargetGroup
from nas_edge.runs.untrusted import number
from nas_edge.tasks import metric_of


def export_family(
    folder: Path,
    out: Path,
    device: str | None,
    reporter: Reporter,
    hardware: str | None = None,
    precision: str | None = None,
    npu: Sequence[str] = (),
) -> dict[str, RunResult]:
    """Writes the bundles of all targets that have a network, converted and measured anew.

    Args:
        folder: of a search for several targets, or of a network that was scaled to them.
        out: new folder for the family.
        device: see `pipeline.export`; likewise the others.
        reporter: what the user sees.
        hardware: see there.
        precision: see there.
        npu: see there.

    Returns:
        What was delivered, by the names of the bundles' folders.

    Raises:
        RunError: when no target has a network, or `out` is there.
        Errors of `pipeline.export`; then nothing is written.
    """
    check_new_bundle(out)  # before anything takes time
    group = TargetGroup.open(folder)
    named = [(name, *run) for name, run in zip(member_names(group.targets_ms), group.runs(), strict=True)]
    without = [target_ms for _, target_ms, path in named if not _has_result(path)]
    if len(without) == len(named):
        again = command("search", "--resume", folder) if group.searches else "the nas-edge scale command that began it"
        raise RunFolderError(f"{folder} has no network for any target yet", fix=f"to finish it: {again}")
    found: dict[str, RunResult] = {}
    with new_folder(out) as temporary:
        for name, target_ms, path in named:
            if target_ms in without:
                reporter.say(f"{name}: {path} has no network for {ms_text(target_ms)} ms, and is left out")
                continue
            reporter.say(f"{name}: {path}")
            found[name] = pipeline.export(path, temporary / name, device, reporter, hardware, precision, npu)
        metric = metric_of(group.config.task)
        index: dict[str, Any] = {
            "metric": metric.name,
            "members": [{**_described(name, found[name]), **_scale(path)} for name, _, path in named if name in found],
            "targets_without_network_ms": without,
        }
        finish_family(temporary, index, to_page(family_report(out.resolve().name, index)))
    return found


def _has_result(folder: Path) -> bool:
    return (folder / "config.json").exists() and read_result(Run.open(folder)) is not None


def _described(name: str, result: RunResult) -> dict[str, Any]:
    """A bundle in the index. Its manifest has the rest."""
    winner, precision = result.winner, result.precision
    return {
        "name": name,
        "model": f"{name}/{MODEL_FILES[precision]}",
        "precision": precision,
        "target_ms": result.target_ms,
        "outcome": result.outcome.value,
        "latency_ms": result.latency_ms,
        "device": result.device,
        "quality": winner.accuracy.get(precision),
        "quality_interval": winner.accuracy_interval.get(precision),
        "architecture": winner.architecture,
        "predicted_ms": _predicted_ms(result),
    }


def _predicted_ms(result: RunResult) -> float | None:
    """What the network was chosen by, where no device measured that."""
    return None if result.latency_estimate is None else result.latency_estimate.latency_ms


def _scale(folder: Path) -> dict[str, Any]:
    """How a network is scaled, where it is a scaled version of another."""

    def read(content: Mapping[str, Any]) -> dict[str, Any]:
        if "depth" not in content:
            return {}
        return {"scale": {axis: number(content[axis]) for axis in ("depth", "width", "input_size")}}

    return Run.open(folder).read_record(f"stages/{CHOSEN}.json", read) or {}
