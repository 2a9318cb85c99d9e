"""What the user sees while a run goes on: one live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

# In a log file, one line every so many seconds is enough.
PLAIN_INTERVAL_S = 5.0


class Reporter:
    """Prints stages and progress.

    Args:
        console: where to; `Console(stderr=True)` keeps standard output for results.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, soft_wrap=True, highlight=False)

    def say(self, text: str) -> None:
        """One line."""
        self.console.print(text, markup=False)

    @contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Iterator[Stage]:
        """A stage of `total` steps, `done` of them made before; yields what to call after each."""
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                TextColumn("{task.fields[facts]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(elapsed_when_finished=False),
            )
            with Progress(*columns, console=self.console, redirect_stdout=False, redirect_stderr=False) as live:
                task = live.add_task(name, total=total, completed=done, facts="")
                yield Stage(lambda done, facts: live.update(task, completed=done, facts=facts))
        else:
            yield Stage(_PlainStage(self, name, total))


class Stage:
    """Handed to whoever does the work; call it with the steps done and a few words."""

    def __init__(self, show: object) -> None:
        self._show = show

    def __call__(self, done: int, facts: str = "") -> None:
        """Shows progress."""
        self._show(done, facts)  # type: ignore[operator]


class _PlainStage:
    """Prints a line now and then, and always the last."""

    def __init__(self, reporter: Reporter, name: str, total: int) -> None:
        self._reporter, self._name, self._total = reporter, name, total
        self._started_s = self._printed_s = time.monotonic()
        self._first: tuple[int, float] | None = None

    def __call__(self, done: int, facts: str) -> None:
        now_s = time.monotonic()
        if self._first is None:
            self._first = done, now_s  # the first step compiles, so it says nothing of the others
        if done < self._total and now_s - self._printed_s < PLAIN_INTERVAL_S:
            return
        self._printed_s = now_s
        first_done, first_s = self._first
        left = ""
        if first_done < done < self._total:
            left = f", {(now_s - first_s) / (done - first_done) * (self._total - done):.0f} s left"
        self._reporter.say(f"{self._name} {done}/{self._total} {facts} {now_s - self._started_s:.0f} s{left}")
