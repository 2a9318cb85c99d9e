"""What may be written to a terminal."""

from __future__ import annotations


def printable(line: str) -> str:
    """A line without control characters: names and words of files, folders and devices must not steer the terminal."""
    return "".join(c if c.isprintable() else "?" for c in line)
