"""The loop of a program that does what is asked of devices, over stdin and stdout: see `serve`, and the farm's driver.

A request is {"do": ...}; each is answered by one frame. While it is being done, a {"do": "ping"} is answered by
{"stage": "busy"}, so that work that takes long is told from a program that hangs. The program ends when stdin does, or
brings nothing for `SILENCE_S`: then the other side is gone, and whoever comes next must find the device free.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Protocol

from device_agents.errors import ProtocolError
from device_agents.remote_frames import LIMITS
from device_agents.worker.frames import Frame, encode_frame, read_frame
from device_agents.worker.stdio import take_over_stdio, write_all

# The other side pings every few seconds.
SILENCE_S = 90.0
_END_S = 10.0


class Answering(Protocol):
    """Does requests one after the other."""

    def answer(self, request: Frame) -> Frame:
        """Does a request; what goes wrong is part of the answer, never raised."""

    def is_working(self) -> bool:
        """Whether what does the present request is known to be alive; asked in another thread."""

    def close(self) -> None:
        """Frees the device."""


class _Requests:
    """Reads requests in a thread, which also notices that the other side is gone.

    Args:
        read_fd: Where they come from.
        send: Sends a frame; called in that thread too.
        is_working: See `Answering`.
    """

    def __init__(self, read_fd: int, send: Callable[[Frame], None], is_working: Callable[[], bool]) -> None:
        self._read_fd, self._send, self._is_working = read_fd, send, is_working
        self._queue: queue.Queue[Frame | None] = queue.Queue()
        self._busy = threading.Event()
        threading.Thread(target=self._receive, daemon=True).start()

    def next(self) -> Frame | None:
        """Waits for a request; None once there will be no more."""
        self._busy.clear()
        request = self._queue.get()
        self._busy.set()
        return request

    def _receive(self) -> None:
        try:
            while (request := read_frame(self._read, LIMITS)) is not None:
                if request.header.get("do") != "ping":
                    self._queue.put(request)
                elif self._busy.is_set() and self._is_working():
                    self._send(Frame({"stage": "busy"}))
        except (ProtocolError, OSError) as error:
            print(error, file=sys.stderr, flush=True)
        self._queue.put(None)
        if self._busy.is_set():  # as by Ctrl-C, on which agents free their device
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(_END_S)
        os._exit(1)

    def _read(self, count: int) -> bytes:
        # Asked twice, since a process that was stopped for that long finds its time over when it goes on.
        for timeout_s in (SILENCE_S, 1.0):
            if select.select([self._read_fd], [], [], timeout_s)[0]:
                return os.read(self._read_fd, count)
        raise ProtocolError(f"Nothing was heard of the other side for {SILENCE_S:.0f} s")


def run(server: Answering) -> None:
    """Serves stdin and stdout until stdin ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    read_fd, write_fd = take_over_stdio()
    sending = threading.Lock()
    with os.fdopen(write_fd, "wb", buffering=0) as sink, contextlib.suppress(KeyboardInterrupt, BrokenPipeError):

        def send(frame: Frame) -> None:
            with sending:
                write_all(sink, encode_frame(frame))

        requests = _Requests(read_fd, send, server.is_working)
        try:
            while (request := requests.next()) is not None:
                send(server.answer(request))
        finally:
            server.close()
