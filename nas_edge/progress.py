"""Progress of a run: one live line in a terminal, plain lines elsewhere.

The line is a list of facts, the most important first. Those that do not fit the width are dropped from the end, so the
line never wraps.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from nas_edge.terminal import printable

# Seconds between lines in a log file.
PLAIN_INTERVAL_S = 5.0
# Seconds after which a line is repeated there although nothing changed, as a sign of life.
PLAIN_SILENCE_S = 30.0

# A step that takes longer is shown, as it may be stuck.
LONG_STEP_S = 10.0

_REFRESHES_PER_SECOND = 4
# The time left is estimated from the last this many seconds or steps, whichever is longer.
_PACE_MARKS = 60
_BAR_WIDTH = 20
_GAP = "  "


class Reporter:
    """Prints stages and progress.

    Args:
        console: where to; `Console(stderr=True)` keeps standard output for results.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)

    def say(self, text: str) -> None:
        """Prints one line; control characters, as in names of files, become question marks."""
        self.console.print(printable(text), markup=False)

    @contextmanager
    def stage(
        self, name: str, total: int | None, done: int = 0, facts: Callable[[], Sequence[str]] = tuple
    ) -> Iterator[Stage]:
        """A stage of `total` steps, of which `done` are already done.

        Args:
            name: of the stage.
            total: number of steps; None if unknown.
            done: steps already done.
            facts: returns what else to show, the most important first; called several times a second from another
                thread.

        Yields:
            To be called after each step.
        """
        stage = Stage(name, total, done, facts)
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            with Live(
                stage,
                console=self.console,
                refresh_per_second=_REFRESHES_PER_SECOND,
                redirect_stdout=False,
                redirect_stderr=False,
            ):
                yield stage
        else:
            with _printed(stage, self.say):
                yield stage


class Stage:
    """A stage in progress; renders as one line. See `Reporter.stage`."""

    def __init__(self, name: str, total: int | None, done: int = 0, facts: Callable[[], Sequence[str]] = tuple) -> None:
        self._name, self._total, self.done, self._facts = name, total, done, facts
        self._started_s = self._called_s = time.monotonic()
        self._marks: deque[tuple[int, float]] = deque(maxlen=_PACE_MARKS)  # steps done, and when

    def __call__(self, done: int, *facts: str) -> None:
        """Shows progress.

        Args:
            done: steps done so far.
            facts: replace the earlier ones.
        """
        now_s = time.monotonic()
        # The pace counts from the first call: the first step compiles, so it is not representative.
        if not self._marks or now_s - self._marks[-1][1] >= 1.0:
            self._marks.append((done, now_s))
        self.done, self._called_s = done, now_s
        if facts:
            self._facts = lambda: facts

    def parts(self) -> list[str]:
        """What to show, the most important first."""
        now_s = time.monotonic()
        steps = f"{self._name} {self.done}" if self._total is None else f"{self._name} {self.done}/{self._total}"
        facts = list(self._facts())
        if self.done == self._total:
            steps += f" in {_clock(now_s - self._started_s)}"
        else:
            left_s = self._left_s()
            steps += "" if left_s is None else f" {_clock(left_s)} left"
            if now_s - self._called_s >= LONG_STEP_S:
                facts.insert(0, f"this step {_clock(now_s - self._called_s)}")
        # Names of files and words of devices may hold anything, line breaks included.
        return [printable(part) for part in (steps, *facts) if part]

    def _left_s(self) -> float | None:
        """Seconds left at the present pace; None while unknown."""
        if len(self._marks) < 2 or self._total is None:
            return None
        (first, first_s), (last, last_s) = self._marks[0], self._marks[-1]
        return (last_s - first_s) / (last - first) * (self._total - self.done) if last > first else None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The line, one column narrower than the terminal: some wrap once the last column is filled."""
        room = options.max_width - 1
        first, *others = self.parts()
        line = first
        for part in others:
            if cell_len(line) + len(_GAP) + cell_len(part) > room:
                break
            line += _GAP + part
        else:
            if self._total is not None and cell_len(line) + len(_GAP) + _BAR_WIDTH <= room:
                yield ProgressBar(total=self._total, completed=self.done, width=_BAR_WIDTH)
                line = _GAP + line
        text = Text(line, no_wrap=True)
        text.truncate(room)
        yield text


@contextmanager
def _printed(stage: Stage, say: Callable[[str], None]) -> Iterator[None]:
    """Prints a line periodically, and always the last one."""
    ended = threading.Event()
    printed = stage.done

    def print_line() -> None:
        nonlocal printed
        printed = stage.done
        say(_GAP.join(stage.parts()))

    def watch() -> None:
        printed_s = time.monotonic()
        while not ended.wait(PLAIN_INTERVAL_S):
            if stage.done != printed or time.monotonic() - printed_s >= PLAIN_SILENCE_S:
                print_line()
                printed_s = time.monotonic()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        if stage.done != printed:
            print_line()


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds, for example 2:05:09, or 0:07."""
    minutes, rest_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest_s:02d}" if hours else f"{minutes}:{rest_s:02d}"
