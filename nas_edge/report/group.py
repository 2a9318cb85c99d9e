"""The report of runs for several targets: a comparison and, for scaled versions of one network, the study behind them.

The study may come from anywhere, so what is missing or malformed in it is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nas_edge.report.comparison import compare_report
from nas_edge.report.content import Cell, Report, Section, Table, make_table
from nas_edge.report.reading import read_run
from nas_edge.runs.result import read_result
from nas_edge.runs.run import Run
from nas_edge.runs.targets import TargetGroup

_AXES = {"depth": "depth", "width": "width", "input_size": "input size"}


def group_report(group: TargetGroup) -> Report:
    """The report of those runs of a group that have begun.

    Raises:
        RunError: when one cannot be read.
    """
    report = compare_report([read_run(path) for path in group.started()])
    home = Run(group.folder)
    if group.searches or not home.path("stages/scaling.json").exists():
        return report
    return replace(report, sections=(_scaling(group, home.read_json("stages/scaling.json")), *report.sections))


def _scaling(group: TargetGroup, study: Mapping[str, Any]) -> Section:
    says = [
        "Each network is the one that was found, scaled in depth, width and input size to its target.",
        *_law(study),
    ]
    per_mac = study.get("per_mac")
    if isinstance(per_mac, Mapping):
        told = [f"{_AXES[axis]} {value:.2f}" for axis, value in per_mac.items() if axis in _AXES and _number(value)]
        if told:
            says.append(
                "Factor of latency per multiply-add when one axis alone makes four times as many multiply-adds (below "
                f"1: the device gets more done in the same time): {', '.join(told)}."
            )
    says += [one["problem"] for one in _listed(study, "members") if isinstance(one.get("problem"), str)]
    tables = (
        _members(group, study),
        _networks("scaling_candidates", "Candidates, trained briefly", study, "candidates"),
    )
    sample = _networks("scaling_sample", "Untrained networks of the sample", study, "sample")
    return Section("scaling", "Scaling", tuple(says), tables=(*tables, sample))


def _law(study: Mapping[str, Any]) -> list[str]:
    law = study.get("law")
    if not isinstance(law, Mapping):
        return []
    terms = []
    for term in _listed(law, "terms"):
        of, value = term.get("of"), _number(term.get("coefficient"))
        if isinstance(of, list) and of and value is not None:
            terms.append(f"{value:+.3f} {' '.join(f'ln({_AXES.get(str(name), str(name))})' for name in of)}")
    error, networks = _number(law.get("error")), _number(law.get("networks"))
    if error is None or networks is None:
        return []
    return [
        f"ln(latency) = constant {' '.join(terms)}, each relative to the network that was found, by its effect on "
        f"multiply-adds. Fitted to {networks:.0f} networks; error on held-out ones {error:.1%}."
    ]


def _members(group: TargetGroup, study: Mapping[str, Any]) -> Table:
    """Predicted against measured latencies of what was delivered."""
    delivered_ms: dict[float, float | None] = {}
    for asked_ms, path in group.runs():
        result = read_result(Run.open(path)) if (path / "config.json").exists() else None
        delivered_ms[asked_ms] = None if result is None else result.latency_ms
    columns = (
        ("target_ms", "target, ms", ".4g"),
        *_SCALE_COLUMNS,
        ("predicted_ms", "predicted, ms", ".4g"),
        ("untrained_ms", "untrained, ms", ".4g"),
        ("latency_kind", "latency is", ""),
        ("delivered_ms", "delivered, ms", ".4g"),
        ("off", "measured over predicted", "+.1%"),
        ("below", "below the target", ".1%"),
    )
    rows = []
    for one in _listed(study, "members"):
        target_ms, predicted_ms = _number(one.get("target_ms")), _number(one.get("predicted_ms"))
        untrained_ms = _number(one.get("latency_ms"))
        final_ms = delivered_ms.get(target_ms) if target_ms is not None else None
        off = untrained_ms / predicted_ms - 1 if untrained_ms and predicted_ms else None
        below = 1 - final_ms / target_ms if final_ms and target_ms else None
        kind = _text(one.get("latency_kind"))
        rows.append((target_ms, *_scale(one), predicted_ms, untrained_ms, kind, final_ms, off, below))
    return make_table("scaling", "Predicted against measured", columns, rows)


_SCALE_COLUMNS = (("depth", "depth", ".3g"), ("width", "width", ".4g"), ("input_size", "pixels", "d"))


def _networks(name: str, title: str, study: Mapping[str, Any], key: str) -> Table:
    columns = (
        ("target_ms", "target, ms", ".4g" if key == "candidates" else None),
        *_SCALE_COLUMNS,
        ("macs", "multiply-adds", "d"),
        ("parameters", "parameters", "d"),
        ("predicted_ms", "predicted, ms", ".4g" if key == "candidates" else None),
        ("latency_ms", "ms", ".4g"),
        ("latency_kind", "latency is", ""),
        ("verdict", "verdict", ""),
        ("quality", "quality", ".4g" if key == "candidates" else None),
    )
    rows = [
        (
            _number(one.get("target_ms")),
            *_scale(one),
            *(_number(one.get(what)) for what in ("macs", "parameters", "predicted_ms", "latency_ms")),
            _text(one.get("latency_kind")),
            _text(one.get("verdict")),
            _number(one.get("quality")),
        )
        for one in _listed(study, key)
    ]
    return make_table(name, title, columns, rows, brief=False)


def _scale(one: Mapping[str, Any]) -> tuple[Cell, ...]:
    return tuple(_number(one.get(axis)) for axis in _AXES)


def _listed(content: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    given = content.get(key)
    return [one for one in given if isinstance(one, Mapping)] if isinstance(given, list) else []


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
