"""The index page of a family of bundles, from its `family.json`, which may be anybody's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas_edge.formatting import ms_text
from nas_edge.report.content import Cell, Report, Section, Tile, make_table


def family_report(title: str, index: Mapping[str, Any]) -> Report:
    """What there is to choose from, for people.

    Args:
        title: of the page.
        index: the content of `family.json`; what is missing or odd in it is left out.
    """
    metric = str(index.get("metric", "quality"))
    given = index.get("members")
    members = [member for member in given if isinstance(member, Mapping)] if isinstance(given, list) else []
    predicted = any(_number(member.get("predicted_ms")) is not None for member in members)
    scaled = any(isinstance(member.get("scale"), Mapping) for member in members)
    columns = (
        ("bundle", "bundle", ""),
        ("model", "model", ""),
        ("target_ms", "target, ms", ".4g"),
        ("latency_ms", "latency, ms", ".4g"),
        ("predicted_ms", "predicted, ms", ".4g" if predicted else None),
        ("outcome", "target is", ""),
        ("device", "on", ""),
        ("quality", metric, ".4g"),
        ("quality_low", "95% from", ".4g"),
        ("quality_high", "to", ".4g"),
        ("scale", "scaled by", "" if scaled else None),
        ("architecture", "architecture", None if scaled else ""),
    )
    says = [
        "Each bundle is complete in itself: its README says how to feed the model, its manifest.json has all "
        "measurements. family.json has this table for programs."
    ]
    if isinstance(without := index.get("targets_without_network_ms"), list) and without:
        targets = ", ".join(f"{ms_text(_number(target_ms))} ms" for target_ms in without)
        says.append(f"No network was delivered for {targets}.")
    table = make_table("family", "", columns, [_row(member) for member in members])
    tiles = tuple(
        Tile(
            str(member.get("name", "-")),
            f"{ms_text(_number(member.get('latency_ms')))} ms",
            f"{metric} {_shown(_number(member.get('quality')))}",
        )
        for member in members
    )
    names = ", ".join(str(member.get("name", "-")) for member in members)
    headline = f"{len(members)} networks of one search, for several targets: {names}"
    return Report(title, "finished", headline, tiles, (Section("family", "Bundles", tuple(says), tables=(table,)),))


def _row(member: Mapping[str, Any]) -> tuple[Cell, ...]:
    interval = member.get("quality_interval")
    low, high = interval if isinstance(interval, (list, tuple)) and len(interval) == 2 else (None, None)
    return (
        _text(member.get("name")),
        _text(member.get("model")),
        _number(member.get("target_ms")),
        _number(member.get("latency_ms")),
        _number(member.get("predicted_ms")),
        _text(member.get("outcome")),
        _text(member.get("device")),
        _number(member.get("quality")),
        _number(low),
        _number(high),
        _scale(member.get("scale")),
        _text(member.get("architecture")),
    )


def _scale(value: Any) -> str | None:
    """`depth 1.2, width 1.5, 128 pixels`."""
    given = value if isinstance(value, Mapping) else {}
    depth, width, pixels = (_number(given.get(axis)) for axis in ("depth", "width", "input_size"))
    if depth is None or width is None or pixels is None:
        return None
    return f"depth {depth:g}, width {width:g}, {pixels:.0f} pixels"


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
