"""How numbers, errors and commands are written for people, in one way everywhere."""

from __future__ import annotations

import math
import shlex

from nas_edge.terminal import printable

# The shortest time that is worth digits is far below this.
_MOST_DECIMALS = 12

_LONGEST_REASON = 200

# What Python's errors mean for whoever gave us a file; their own words are for programmers.
_MEANINGS: tuple[tuple[type[Exception], str], ...] = (
    (KeyError, "missing"),
    (IndexError, "a list is too short"),
    (RecursionError, "nested too deeply"),
    (MemoryError, "too large for this machine's memory"),
    (TypeError, "a value has the wrong type"),
    (AttributeError, "a value has the wrong type"),
)


def ms_form(scale_ms: float | None) -> str:
    """The format of latencies around `scale_ms`: four significant digits, never an exponent."""
    if not scale_ms or not 0 < scale_ms < math.inf:
        return ".3f"
    return f".{min(_MOST_DECIMALS, max(0, 3 - math.floor(math.log10(scale_ms))))}f"


def ms_text(value_ms: float | None) -> str:
    """A latency in ms without its unit, for example `12.35`, `0.0001000` or `1234`; `-` for None."""
    return "-" if value_ms is None else format(value_ms, ms_form(value_ms))


def with_interval(value: float, interval: tuple[float, float] | None, form: str) -> str:
    """A value followed by its 95% interval, if that is known: `98.3% [96.4, 99.2]`.

    Args:
        value: what was found.
        interval: its bounds.
        form: format of the value and, without a percent sign, of the bounds.
    """
    shown = format(value, form)
    if interval is None:
        return shown
    low, high = (format(bound, form).removesuffix("%") for bound in interval)
    return f"{shown} [{low}, {high}]"


def command(*words: object) -> str:
    """A command of this program, to be copied: `nas-edge search --resume '/my runs/one'`."""
    return shlex.join(["nas-edge", *map(str, words)])


def reason(error: BaseException) -> str:
    """What went wrong, as words for a message: one line, without Python's name of the error."""
    said = printable(" ".join(str(error).split()))[:_LONGEST_REASON]
    if isinstance(error, OSError):
        return error.strerror or said or "the system gave no reason"
    for kind, meaning in _MEANINGS:
        if isinstance(error, kind):
            return f"{said} is {meaning}" if kind is KeyError else f"{meaning} ({said})" if said else meaning
    return said or "no reason given"
