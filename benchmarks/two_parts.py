"""What the verdict is of a claim about a table of results and about this machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def verdict(parts: Mapping[str, Mapping[str, Any]], partial: str | None) -> dict[str, Any]:
    """Whether both parts are as claimed.

    Args:
        parts: figures by name.
        partial: why what was run is less than the claim is about; None where it is not.
    """
    if partial is not None:
        return {"pass": None, "reason": partial}
    if len(parts) < 2:
        return {"pass": None, "reason": f"only the part {next(iter(parts))} was run"}
    passes = [part["pass"] for part in parts.values()]
    if False not in passes and None in passes:
        return {"pass": None, "reason": next(part["reason"] for part in parts.values() if part["pass"] is None)}
    return {"pass": False not in passes}
