"""What may be written to a terminal, and whether it is still there."""

from __future__ import annotations

import errno


def printable(line: str) -> str:
    """A line without control characters, so that names of files and text from devices cannot control the terminal."""
    return "".join(c if c.isprintable() else "?" for c in line)


def was_closed(error: Exception) -> bool:
    """Whether an error comes from writing to a terminal that was closed; the signal of that may come a little later."""
    if not isinstance(error, OSError) or error.errno != errno.EIO:
        return False
    try:
        import termios
    except ImportError:  # Windows
        return False
    for descriptor in (0, 1, 2):
        try:
            termios.tcgetattr(descriptor)
        except termios.error as no_terminal:
            if no_terminal.args[0] == errno.EIO:
                return True
    return False
