"""A TCP proxy that makes a phone distant, counts what goes to and fro, and can cut the link at a given byte."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable


class Proxy:
    """Passes connections of one port of the loopback interface on to another.

    Args:
        port: Where to.
        delay_s: How much later everything arrives, in each direction, in seconds.

    Attributes:
        port: The port to connect to instead.
        round_trips: Times that something was sent after something had come back, a reply being what comes back.
    """

    def __init__(self, port: int, delay_s: float = 0.0) -> None:
        self._target, self._delay_s = port, delay_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.round_trips = 0
        self._asking = False  # whether the last that was seen went to the phone
        self._left: int | None = None  # bytes until the link is cut
        self._then: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._serve, daemon=True).start()

    def cut_after(self, size_bytes: int, then: Callable[[], None] = lambda: None) -> None:
        """Cuts every connection once so many more bytes have come, in both directions together."""
        with self._lock:
            self._left, self._then = size_bytes, then

    def cut(self) -> None:
        """Cuts every connection."""
        with self._lock:
            victims, self._open = self._open, set()
        for one in victims:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Ends it."""
        self._listener.close()
        self.cut()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                outer, _ = self._listener.accept()
                try:
                    inner = socket.create_connection(("127.0.0.1", self._target), timeout=5)
                except OSError:
                    outer.close()
                    continue
                inner.settimeout(None)
                with self._lock:
                    self._open |= {outer, inner}
                for source, target, asks in ((outer, inner, True), (inner, outer, False)):
                    source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    late: queue.Queue[tuple[float, bytes]] = queue.Queue()
                    threading.Thread(target=self._read, args=(source, late, asks), daemon=True).start()
                    threading.Thread(target=self._write, args=(source, target, late), daemon=True).start()

    def _read(self, source: socket.socket, late: queue.Queue[tuple[float, bytes]], asks: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 18):
                data, cuts = self._seen(data, asks)
                late.put((time.monotonic() + self._delay_s, data))
                if cuts:
                    self._then()
                    self.cut()
        late.put((time.monotonic() + self._delay_s, b""))

    def _write(self, source: socket.socket, target: socket.socket, late: queue.Queue[tuple[float, bytes]]) -> None:
        with contextlib.suppress(OSError):
            while True:
                due_s, data = late.get()
                time.sleep(max(0.0, due_s - time.monotonic()))
                if not data:
                    break
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._open.discard(source)
        source.close()

    def _seen(self, data: bytes, asks: bool) -> tuple[bytes, bool]:
        """Counts what has come; returns what of it is passed on, and whether the link is cut then."""
        with self._lock:
            self.round_trips += asks and not self._asking
            self._asking = asks
            if self._left is None:
                return data, False
            data = data[: self._left]
            self._left -= len(data)
            if self._left > 0:
                return data, False
            self._left = None
            return data, True
