"""What all suites are made of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


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


@contextmanager
def expect_no_global_draws() -> Iterator[None]:
    """Raises AssertionError when NumPy's global generator was drawn from."""
    before = np.random.get_state(legacy=False)
    yield
    after = np.random.get_state(legacy=False)
    drawn = _plain(before) != _plain(after)
    expect(not drawn, "the global generator was drawn from; draw from the one that is handed over")


def _plain(state: Any) -> Any:
    """The state of the global generator, comparable."""
    return json.dumps(state, default=lambda array: array.tolist())
