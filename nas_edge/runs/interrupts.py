"""Ctrl-C and SIGTERM as requests to stop at a good moment.

    with StopSignals() as stop:
        with stop.held():  # the first signal only sets `requested`
            while not stop.requested:
                one_step()
        the_rest()

Outside `held`, and at a second signal, KeyboardInterrupt is raised at once.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_NOTICE = b"\nstopping after this step; press Ctrl-C again to stop now\n"


class StopSignals:
    """Takes the signals while in a `with` block; in a thread other than the main one, which gets none, does nothing."""

    def __init__(self) -> None:
        self.requested = False
        self._held = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within, the first signal only sets `requested`."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._held or self.requested:
            raise KeyboardInterrupt
        self.requested = True
        # Not through a console: the signal may have come while it was printing.
        os.write(2, _NOTICE)
