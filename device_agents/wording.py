"""How errors are told to people."""

from __future__ import annotations

from device_agents.errors import DeviceError, in_one_line

_LONGEST = 300


def words_of(error: BaseException) -> str:
    """What went wrong, in one line, without Python's name of the error.

    Args:
        error: Of whatever class.
    """
    said = " ".join(str(error).split())[:_LONGEST]
    if isinstance(error, KeyError):
        return f"{said or 'an entry'} is missing"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, SystemExit):
        return f"it ended the program ({said})"
    return said or "no reason given"


def what_happened(error: DeviceError) -> str:
    """What an error says but for the fix, which stands elsewhere."""
    return in_one_line(error.what, error.expected, error.received)
