"""What may be written to a terminal."""

from __future__ import annotations


def printable(line: str) -> str:
    """A line without control characters, so that names of files and text from devices cannot control the terminal."""
    return "".join(c if c.isprintable() else "?" for c in line)
