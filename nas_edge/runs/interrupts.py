"""Ctrl-C, SIGTERM, and SIGHUP (the terminal is gone), as requests to stop at a good moment.

    with StopSignals() as stop:
        with stop.held():  # the first signal only sets `requested`
            while not stop.requested:
                one_step()
        the_rest()

Outside `held`, and at a second signal, KeyboardInterrupt is raised at once. At once is when native code returns, which
may take long. So a thread listens, too: it says that the first signal was heard, and after a second one it ends the
process if that does not end by itself.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

# Windows has no SIGHUP.
_HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)
_SIGNALS = tuple(filter(None, (signal.SIGINT, signal.SIGTERM, _HANGUP)))
_NOTICE = "stopping after this step; press Ctrl-C again to stop now"
_EXIT_CODE = 130
# What a second signal leaves for closing devices.
_GRACE_S = 0.7
_SHOW_CURSOR = "\x1b[?25h"


class StopSignals:
    """Takes the signals while in a `with` block; in a thread other than the main one, which gets none, does nothing.

    Args:
        last_words: what to print when the process is ended.
        notice: what to print at the first signal where it is not held; None for nothing.
    """

    def __init__(self, last_words: str = "stopped", notice: str | None = None) -> None:
        self.requested = False
        self._last_words, self._notice = last_words, notice
        self._held = False
        self._ended = threading.Event()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            heard, self._told = socket.socketpair()
            self._told.setblocking(False)
            threading.Thread(target=self._listen, args=(heard,), daemon=True).start()
            self._told_before = signal.set_wakeup_fd(self._told.fileno(), warn_on_full_buffer=False)
            self._terminals = [descriptor for descriptor in (0, 1, 2) if os.isatty(descriptor)]
            # `nohup` has it ignored, and means it.
            wanted = [s for s in _SIGNALS if s is not _HANGUP or signal.getsignal(s) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._handle) for number in wanted}
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        if self._before:
            for number, handler in self._before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._told_before)
            self._told.close()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within, the first signal only sets `requested`."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == _HANGUP:
            self._leave_terminal()
        if not self._held or self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def _leave_terminal(self) -> None:
        """Lets what is still written go nowhere, where the terminal is gone: writing to it would be an error."""
        for descriptor in self._terminals:
            if not os.isatty(descriptor):
                nowhere = os.open(os.devnull, os.O_RDWR)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)

    def _listen(self, heard: socket.socket) -> None:
        """Is told of a signal by Python's handler in C, which waits for nothing."""
        count = 0
        with heard:
            while numbers := heard.recv(16):
                for _ in filter(_SIGNALS.__contains__, numbers):
                    count += 1
                    # Not through a console: the signal may have come while it was printing.
                    notice = _NOTICE if self._held else self._notice
                    if count == 1 and notice is not None:
                        _print(f"\n{notice}\n")
                    elif count == 2 and not self._ended.wait(_GRACE_S):
                        # Workers end when their pipes do, and a run can be continued whenever it ends.
                        cursor = _SHOW_CURSOR if os.isatty(2) else ""
                        _print(f"{cursor}\nnas-edge: {self._last_words}\n")
                        os._exit(_EXIT_CODE)


def _print(text: str) -> None:
    with suppress(OSError):  # the terminal may be gone
        os.write(2, text.encode())
