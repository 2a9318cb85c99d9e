"""Times of single operators."""

from __future__ import annotations

from typing import Any

from .runtime import Runtime
from .spec import BenchmarkSpec


def profile_ops(runtime: Runtime, model: bytes, spec: BenchmarkSpec) -> tuple[list[dict[str, Any]], str]:
    """Returns rows (op, name, mean_ms, share), or none and the reason why not."""
    return [], (f"{runtime.name} {runtime.version} does not tell the times of single operators to Python")
