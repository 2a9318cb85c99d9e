"""A page about a bundle, from its manifest, which may be anybody's: what is missing or odd is left out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from nas_edge.formatting import ms_text
from nas_edge.report.content import Cell, Report, Section, Tile, make_table

_FACTS = (
    ("file", "file", ""),
    ("bytes", "bytes", "d"),
    ("latency_ms", "latency, ms", ".4g"),
    ("verdict", "verdict", ""),
    ("input", "input", ""),
    ("output", "output", ""),
)


def bundle_report(title: str, manifest: Mapping[str, Any]) -> Report:
    """What a bundle's manifest says, for people.

    Args:
        title: of the page.
        manifest: its `manifest.json`.
    """
    models, details = _mapping(manifest.get("models")), _mapping(manifest.get("details"))
    rows = [_row(_mapping(facts)) for facts in models.values()]
    qualities = [
        (name, key, value)
        for name, facts in models.items()
        for key, value in _mapping(facts).items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and key not in ("size_bytes", "tolerance")
    ]
    delivered = manifest.get("model")
    main = next((_mapping(one) for one in models.values() if _mapping(one).get("file") == delivered), {})
    latency_ms = _latency_ms(main)
    tiles = [Tile("model", str(manifest.get("model", "-")), f"{main.get('size_bytes', '-')} bytes")]
    if latency_ms is not None:
        tiles.append(Tile("latency", f"{ms_text(latency_ms)} ms", str(details.get("device", ""))))
    sections = [
        Section("models", "Models", tables=(make_table("models", "", _FACTS, rows),)),
        Section(
            "quality",
            "Quality on the test examples",
            tables=(
                make_table(
                    "quality",
                    "",
                    (("model", "model", ""), ("metric", "metric", ""), ("value", "value", ".4g")),
                    qualities,
                ),
            ),
        ),
    ]
    for key in ("preprocessing", "decisions", "versions", "details"):
        lines = list(_lines(_mapping(manifest.get(key))))
        table = make_table(key, "", (("key", "key", ""), ("value", "value", "")), lines)
        sections.append(Section(key, key.capitalize(), tables=(table,), folded=key != "preprocessing"))
    headline = f"{manifest.get('space', '-')}, architecture {manifest.get('architecture', '-')}"
    return Report(title, "finished", headline, tuple(tiles), tuple(sections))


def _row(facts: Mapping[str, Any]) -> tuple[Cell, ...]:
    size = facts.get("size_bytes")
    verdict = _mapping(facts.get("latency")).get("verdict")
    return (
        str(facts.get("file", "-")),
        size if isinstance(size, int) else None,
        _latency_ms(facts),
        None if verdict is None else str(verdict),
        _tensor(facts.get("input")),
        _tensor(facts.get("output")),
    )


def _latency_ms(facts: Mapping[str, Any]) -> float | None:
    latency_ms = _mapping(facts.get("latency")).get("latency_ms")
    return float(latency_ms) if isinstance(latency_ms, (int, float)) else None


def _tensor(facts: Any) -> str:
    tensor = _mapping(facts)
    return f"{tensor.get('dtype', '-')} {tensor.get('shape', '-')}"


def _lines(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """A mapping, those in it spread out, as names and JSON values."""
    for key, value in facts.items():
        if isinstance(value, Mapping) and value:
            yield from _lines(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value, ensure_ascii=False)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
