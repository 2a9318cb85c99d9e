"""A live view of a run: the page over HTTP, on this machine only, for reading only.

    GET /          the page, which then asks for /content every few seconds
    GET /content   the report as JSON; 304 when nothing changed

The server listens on the loopback interface, and answers only requests that name it as such (the `Host` header), so a
web page elsewhere cannot reach it through a name of its own (DNS rebinding). No path leads to the disk: there are these
two answers, and 404.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from nas_edge.errors import NasEdgeError, RunError
from nas_edge.report.content import Report
from nas_edge.report.page import policy, to_page
from nas_edge.report.reading import read_run
from nas_edge.report.sections import run_report
from nas_edge.runs.run import Run

# What a report is made of; when none of them changed, neither did it.
_SOURCES = ("config.json", "environment.json", "journal.jsonl", "policy.jsonl", "result.json", "stages", "checkpoints")

_SHARE_OF_TIME = 0.05
_MOST_CONNECTIONS = 32

_Stamp = tuple[tuple[int, int], ...]


def serve(folder: Path, port: int, say: Callable[[str], object]) -> None:
    """Shows a run until Ctrl-C.

    Args:
        folder: the run.
        port: 0 for any that is free.
        say: is told the address.

    Raises:
        RunError: when the folder is no run, or the port is taken.
    """
    live = LiveReport(folder)
    live.report()  # says now what is wrong with the folder
    try:
        server = make_server(live, port)
    except OSError as error:
        raise RunError(f"cannot listen on port {port}: {error.strerror}; choose another --port") from None
    with server:
        say(f"http://127.0.0.1:{server.server_port}/ shows {folder} and follows it; Ctrl-C stops")
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            say("stopped")


def _make(folder: Path) -> Report:
    return run_report(read_run(folder))


class LiveReport:
    """The report of a run as it is, made again when the run's files changed.

    The device that is measured on may be this very machine, so making reports may take only a small share of the time:
    of a large run, a report is older.

    Args:
        folder: the run.
        make: makes the report.
        clock_s: seconds that only ever go forward.
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
            RunError: when the run cannot be read; it is read again after a rest, as for a report.
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
            raise made.with_traceback(None)  # else each time makes it longer
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
    """A server for a report, not serving yet."""

    class Handler(_Handler):
        pass

    Handler.live = live
    return _Server(("127.0.0.1", port), Handler)


class _Server(ThreadingHTTPServer):
    """Answers in threads, of which there are not many: who comes when all are busy is sent away."""

    daemon_threads = True
    _free = threading.BoundedSemaphore(_MOST_CONNECTIONS)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Takes a thread, if one is free."""
        return self._free.acquire(blocking=False)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answers, and gives the thread back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    live: LiveReport
    server: ThreadingHTTPServer
    server_version, sys_version = "nas_edge", ""
    timeout = 30

    def do_GET(self) -> None:
        """Sends the page or its content."""
        port = self.server.server_port
        if self.headers.get_all("Host") not in ([f"127.0.0.1:{port}"], [f"localhost:{port}"]):
            self._send(HTTPStatus.MISDIRECTED_REQUEST, "text/plain", b"this server is for this machine only\n")
            return
        path = self.path.partition("?")[0]
        if path not in ("/", "/content"):
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"there is / and /content\n")
            return
        try:
            report = self.live.report()
            content = (to_page(report, live=True) if path == "/" else report.to_json()).encode()
        except Exception as error:  # a run that goes on may be whole again the next time
            said = str(error) if isinstance(error, NasEdgeError) else f"{type(error).__name__}: {error}"
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
            with suppress(ConnectionError):  # whoever asked has gone
                self.wfile.write(content)

    def log_message(self, form: str, *values: object) -> None:
        """Keeps the terminal quiet."""
