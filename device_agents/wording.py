"""How an error of Python's is told to people."""

from __future__ import annotations

_LONGEST = 300


def words_of(error: BaseException) -> str:
    """What went wrong, in one line, without Python's name of the error where there are other words.

    Args:
        error: Of whatever class.
    """
    said = " ".join(str(error).split())[:_LONGEST]
    if isinstance(error, KeyError):
        return f"{said} is missing"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return said or type(error).__name__
