"""Results of a benchmark that takes long, kept as they come in: one that was stopped goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


class KeptResults:
    """What was found out, by a text of all that it depends on.

    Args:
        file: keeps it, a line each; None for memory alone.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        lines = file.read_text().splitlines() if file is not None and file.exists() else []
        self._known: dict[str, Any] = dict(json.loads(line) for line in lines)

    def once(self, key: str, find_out: Callable[[], Any]) -> Any:
        """What is known, or else what is found out now: JSON values."""
        if key not in self._known:
            self._known[key] = json.loads(json.dumps(find_out()))
            if self._file is not None:
                with self._file.open("a") as lines:
                    lines.write(json.dumps([key, self._known[key]]) + "\n")
        return self._known[key]
