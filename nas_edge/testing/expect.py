"""What all suites are made of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


def expect(kept: bool, broken: str) -> None:
    """Raises AssertionError unless a promise is kept; unlike `assert`, also under `python -O`."""
    if not kept:
        raise AssertionError(broken)


@contextmanager
def expect_no_error(doing: str) -> Iterator[None]:
    """Turns an exception into AssertionError that says what was being done."""
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"{doing}: {type(error).__name__}: {error}") from error
