"""A live view of a run: the page over HTTP, local and read-only.

    GET /          the page, which then asks for /content every few seconds
    GET /content   the report as JSON; 304 when nothing changed

The server listens on the loopback interface, and answers only requests that name it as such (the `Host` header), so a
web page elsewhere cannot reach it through a host name of its own (DNS rebinding). No path maps to the disk: there are
only these two resources, and 404.
"""

from __future__ import annotations

import hashlib
import math
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from nas_edge.errors import NasEdgeError, RunError
from nas_edge.formatting import reason
from nas_edge.report.content import Report
from nas_edge.report.page import policy, to_page
from nas_edge.report.reading import read_run
from nas_edge.report.sections import run_report
from nas_edge.runs.run import Run
from nas_edge.terminal import printable

# The files a report is made from; while none of them changes, neither does the report.
_SOURCES = ("config.json", "environment.json", "journal.jsonl", "policy.jsonl", "result.json", "stages", "checkpoints")

_SHARE_OF_TIME = 0.05
_MOST_CONNECTIONS = 32
# For a request to arrive, and for an answer to be taken.
_TIMEOUT_S = 10.0
# For a dropped connection's thread to end.
_DROP_S = 2.0

_Stamp = tuple[tuple[int, int], ...]


def serve(folder: Path, port: int, say: Callable[[str], object]) -> None:
    """Shows a run until Ctrl-C.

    Args:
        folder: the run.
        port: 0 for any free port.
        say: receives the address.

    Raises:
        RunError: when the folder is not a run, or the port is in use.
    """
    live = LiveReport(folder)
    live.report()  # fails now if the folder cannot be read
    try:
        server = make_server(live, port)
    except OSError as error:
        raise RunError(f"cannot listen on port {port}: {error.strerror}; choose another --port") from None
    with server:
        say(f"serving {printable(str(folder))} at http://127.0.0.1:{server.server_port}/; press Ctrl-C to stop")
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            say("stopped")


def _make(folder: Path) -> Report:
    return run_report(read_run(folder))


class LiveReport:
    """The report of a run, rebuilt when the run's files change.

    Latencies may be measured on this very machine, so building reports may take only a small share of the time: the
    larger the run, the less often its report is rebuilt.

    Args:
        folder: the run.
        make: builds the report.
        clock_s: a monotonic clock, in seconds.
    """

    def __init__(
        self, folder: Path, make: Callable[[Path], Report] = _make, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._make, self._clock_s = folder, make, clock_s
        self._lock = threading.Lock()
        self._known: tuple[_Stamp | None, Report | Exception] | None = None
        self._rest_until_s = -math.inf

    def report(self) -> Report:
        """The report.

        Raises:
            RunError: when the run cannot be read; it is retried after the same pause as a report.
        """
        with self._lock:
            stamp = self._stamp()
            started_s = self._clock_s()
            if self._known is None or (self._known[0] != stamp and started_s >= self._rest_until_s):
                try:
                    self._known = stamp, self._make(self._folder)
                except Exception as error:
                    self._known = None, error
                took_s = self._clock_s() - started_s
                self._rest_until_s = started_s + took_s / _SHARE_OF_TIME
            made = self._known[1]
        if isinstance(made, Exception):
            raise made.with_traceback(None)  # otherwise it grows with every raise
        return made

    def _stamp(self) -> _Stamp:
        paths = [self._folder / name for name in _SOURCES]
        paths += sorted((self._folder / "stages").glob("*.jsonl"))
        running = int(Run(self._folder).in_use)
        return ((running, 0), *map(_state_of, paths))


def _state_of(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return found.st_mtime_ns, found.st_size


def make_server(live: LiveReport, port: int) -> ThreadingHTTPServer:
    """A server for a report that does not serve yet; port 0 for any that is free."""

    class Handler(_Handler):
        pass

    Handler.live = live
    return _Server(("127.0.0.1", port), Handler)


class _Server(ThreadingHTTPServer):
    """Answers in threads, of which there are only so many.

    When all are taken, a new connection replaces the one that has waited longest without a complete request: browsers
    open connections ahead of need, and a forgotten one must not keep others out.
    """

    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self._free = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        self._lock = threading.Lock()
        self._idle: dict[socket.socket, None] = {}  # without a complete request yet, the oldest first
        super().__init__(*arguments)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Takes a thread, if one is free or can be freed."""
        free = self._free.acquire(blocking=False) or (self._drop_idle() and self._free.acquire(timeout=_DROP_S))
        if free:
            with self._lock:
                self._idle[request] = None
        return free

    def _drop_idle(self) -> bool:
        with self._lock:
            oldest = next(iter(self._idle), None)
            if oldest is None:
                return False
            del self._idle[oldest]
            with suppress(OSError):  # it has closed by itself
                oldest.shutdown(socket.SHUT_RDWR)
        return True

    def answering(self, request: Any) -> None:
        """Is told that a request is complete; its connection is not dropped any more."""
        with self._lock:
            self._idle.pop(request, None)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answers, and gives the thread back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.answering(request)
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keeps the terminal quiet about connections that break."""


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    live: LiveReport
    server: _Server
    server_version, sys_version = "nas_edge", ""
    timeout = _TIMEOUT_S

    def do_GET(self) -> None:
        """Sends the page or its content."""
        self.server.answering(self.connection)
        port = self.server.server_port
        if self.headers.get_all("Host") not in ([f"127.0.0.1:{port}"], [f"localhost:{port}"]):
            self._send(
                HTTPStatus.MISDIRECTED_REQUEST,
                "text/plain",
                b"this server answers requests to 127.0.0.1 and localhost only\n",
            )
            return
        path = self.path.partition("?")[0]
        if path not in ("/", "/content"):
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"not found; available: / and /content\n")
            return
        try:
            report = self.live.report()
            content = (to_page(report, live=True) if path == "/" else report.to_json()).encode()
        except Exception as error:  # a run that is being written may be readable the next time
            said = str(error) if isinstance(error, NasEdgeError) else f"the report cannot be made: {reason(error)}"
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", f"{said}\n".encode(errors="replace"))
            return
        if path == "/":
            allowed = ("Content-Security-Policy", f"{policy(live=True)}; frame-ancestors 'none'")
            self._send(HTTPStatus.OK, "text/html", content, [allowed])
            return
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        if self.headers.get("If-None-Match") == tag:
            self._send(HTTPStatus.NOT_MODIFIED, "application/json", b"", [("ETag", tag)])
        else:
            self._send(HTTPStatus.OK, "application/json", content, [("ETag", tag)])

    do_HEAD = do_GET  # noqa: N815 - the names are http.server's

    def _send(
        self, status: HTTPStatus, kind: str, content: bytes, headers: list[tuple[str, str]] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", f"{kind}; charset=utf-8"),
            ("Content-Length", str(len(content))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            *(headers or []),
        ):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD" and status is not HTTPStatus.NOT_MODIFIED:
            with suppress(ConnectionError):  # the client has gone
                self.wfile.write(content)

    def log_message(self, form: str, *values: object) -> None:
        """Keeps the terminal quiet."""
