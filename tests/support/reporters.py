"""Reporters for tests."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console

from nas_edge.progress import Reporter, Stage


class Terminating(Reporter):
    """Sends this process a signal once a stage has got so far."""

    def __init__(self, stage: str, done: int) -> None:
        super().__init__(Console(quiet=True))
        self.said: list[str] = []
        self.stages: list[str] = []
        self._stage, self._done = stage, done

    def say(self, text: str) -> None:
        self.said.append(text)

    @contextmanager
    def stage(
        self, name: str, total: int | None, done: int = 0, facts: Callable[[], Sequence[str]] = tuple
    ) -> Iterator[Stage]:
        self.stages.append(name)

        class Signalling(Stage):
            def __call__(stage, done: int, *facts: str) -> None:  # noqa: N805
                if (name, done) == (self._stage, self._done):
                    signal.raise_signal(signal.SIGTERM)

        yield Signalling(name, total, done, facts)
