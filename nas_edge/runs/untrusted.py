"""Reading what stands in a run folder: it may have been sent by anybody, so nothing in it is taken as it is.

Files may be pipes or devices that never end, numbers endless or of a thousand digits, texts may steer the terminal
(see `terminal`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO

from nas_edge import regular_file
from nas_edge.errors import RunError

# Of a JSON file, and of a line of a journal. The samples of the longest measurement take a third of it.
LARGEST_BYTES = 64 << 20

# No time in ms, count of steps, reward or reading of a device comes near it.
LARGEST = 1e9


def open_regular(path: Path) -> BinaryIO:
    """Opens a regular file for reading, or fails at once.

    Raises:
        OSError: when it cannot be opened.
        RunError: when it is not a regular file.
    """
    try:
        return regular_file.open_regular(path)
    except regular_file.NotRegularFileError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        OSError: when it cannot be opened.
        RunError: when it is not a regular file, too large, or not JSON.
    """
    with open_regular(path) as file:
        content = file.read(LARGEST_BYTES + 1)
    if len(content) > LARGEST_BYTES:
        raise RunError(f"cannot read {path}: it is larger than {LARGEST_BYTES >> 20} MiB")
    try:
        return json.loads(content)
    except RecursionError:
        raise RunError(f"cannot read {path}: it is nested too deeply") from None
    except ValueError as error:
        raise RunError(f"cannot read {path}: {error}") from None


def number(value: object, least: float = -LARGEST, most: float = LARGEST) -> float:
    """A number within bounds.

    Raises:
        ValueError: for anything else, such as infinity.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise ValueError(f"expected a number from {least:g} to {most:g}, received {value!r:.80}")
    return float(value)


def optional_number(value: object, least: float = -LARGEST, most: float = LARGEST) -> float | None:
    """As `number`, or None."""
    return None if value is None else number(value, least, most)


def milliseconds(value: object) -> float:
    """A time in ms, above 0."""
    return number(value, 1 / LARGEST)


def count(value: object) -> int:
    """A whole number from 0.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST:
        raise ValueError(f"expected a whole number from 0 to {LARGEST:g}, received {value!r:.80}")
    return value
