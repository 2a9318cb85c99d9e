"""The live view's server: on this machine only, for reading only, and only what it is meant to show."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from nas_edge.report import read_run, run_report
from nas_edge.report.content import Report
from nas_edge.report.serve import LiveReport, make_server
from nas_edge.runs.run import Run
from tests.support.synthetic_run import make_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run", 20, samples=10)


@pytest.fixture
def port(run: Run) -> Iterator[int]:
    server = make_server(LiveReport(run.folder), 0)
    assert server.server_address[0] == "127.0.0.1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def test_the_page_and_its_content(port: int) -> None:
    status, headers, page = ask(port, "/")
    assert status == 200
    assert b'data-live="yes"' in page
    assert "connect-src 'self'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    status, headers, content = ask(port, "/content")
    assert status == 200
    assert json.loads(content)["title"] == "run"
    assert ask(port, "/content", If_None_Match=headers["ETag"])[0] == 304


def test_what_changed_is_sent(port: int, run: Run) -> None:
    tag = ask(port, "/content")[1]["ETag"]
    run.write_json("stages/target.json", {"target_ms": 2.0})
    while (answer := ask(port, "/content", If_None_Match=tag))[0] == 304:  # until it may make another report
        time.sleep(0.02)
    status, _, content = answer
    assert status == 200
    assert json.loads(content)["tiles"][0]["value"] == "2.000 ms"


def test_making_reports_leaves_the_machine_to_the_search(run: Run) -> None:
    report, now_s, made_s = run_report(read_run(run.folder)), [100.0], []

    def make(_: Path) -> Report:
        made_s.append(now_s[0])
        now_s[0] += 2.0  # that is how long it takes
        return report

    live = LiveReport(run.folder, make, lambda: now_s[0])
    for second in range(200):
        os.utime(run.path("journal.jsonl"), (second, second))  # the run goes on
        live.report()
        now_s[0] += 1.0
    assert made_s == [100.0, 140.0, 180.0, 220.0, 260.0, 300.0]


def test_nothing_is_made_again_when_nothing_changed(run: Run) -> None:
    made: list[Path] = []
    report = run_report(read_run(run.folder))
    live = LiveReport(run.folder, lambda folder: made.append(folder) or report)  # type: ignore[func-returns-value]
    assert live.report() is live.report() is report
    assert made == [run.folder]


def test_head_sends_no_body(port: int) -> None:
    status, headers, body = ask(port, "/content", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 1000


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "", "127.0.0.1", "127.0.0.1.evil.example:{port}"])
def test_a_request_by_another_name_is_refused(port: int, host: str) -> None:
    status, _, body = ask(port, "/content", Host=host.format(port=port))
    assert status == 421
    assert b"title" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed(port: int, method: str) -> None:
    assert ask(port, "/", method)[0] == 501


@pytest.mark.parametrize(
    "path",
    [
        "/config.json",
        "/../config.json",
        "/%2e%2e/config.json",
        "//etc/passwd",
        "/content/../journal.jsonl",
        "/report/",
        "*",
    ],
)
def test_no_path_leads_to_the_disk(port: int, path: str) -> None:
    status, _, body = ask(port, path)
    assert status == 404
    assert b"schema_version" not in body


def test_a_run_that_cannot_be_read_just_now(port: int, run: Run) -> None:
    text = run.path("config.json").read_text()
    run.path("config.json").write_text("{")  # before anybody asked, so that there is no earlier report
    status, _, body = ask(port, "/content")
    assert status == 503
    assert b"config.json" in body
    run.path("config.json").write_text(text)
    while ask(port, "/content")[0] == 503:  # until it may read the run again
        time.sleep(0.02)
    assert ask(port, "/content")[0] == 200


def test_a_run_that_cannot_be_read_is_left_alone_for_a_while(run: Run) -> None:
    now_s, made_s = [100.0], []

    def make(_: Path) -> Report:
        made_s.append(now_s[0])
        now_s[0] += 2.0  # that is how long it takes to fail
        raise ZeroDivisionError("unforeseen")

    live = LiveReport(run.folder, make, lambda: now_s[0])
    for _ in range(100):
        with pytest.raises(ZeroDivisionError):
            live.report()
        now_s[0] += 1.0
    assert made_s == [100.0, 140.0, 180.0]


def test_what_nobody_foresaw_is_told(run: Run) -> None:
    def make(_: Path) -> Report:
        raise ZeroDivisionError("unforeseen")

    server = make_server(LiveReport(run.folder, make), 0)
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        answer = ask(server.server_port, "/content")
        server.shutdown()
        thread.join()
    assert (answer[0], answer[2]) == (503, b"the report cannot be made: unforeseen\n")


def test_a_request_by_two_names_is_refused(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.putrequest("GET", "/content", skip_host=True)
    for host in (f"127.0.0.1:{port}", "evil.example"):
        connection.putheader("Host", host)
    connection.endheaders()
    assert connection.getresponse().status == 421
    connection.close()


@pytest.mark.parametrize("said", [pytest.param(b"", marks=pytest.mark.slow), b"GET /content HTTP/1.0\r\nHos"])
def test_idle_connections_keep_nobody_out(port: int, said: bytes) -> None:
    with ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30)) for _ in range(100)]
        for connection in idle:
            with suppress(ConnectionError):  # the first ones are dropped for the last
                connection.sendall(said)
        assert [ask(port, "/content")[0] for _ in range(5)] == [200] * 5


def test_connections_that_are_being_answered_are_not_dropped(run: Run) -> None:
    report, go_on, started = run_report(read_run(run.folder)), threading.Event(), threading.Semaphore(0)

    class Slow(LiveReport):
        def report(self) -> Report:
            started.release()
            assert go_on.wait(60)
            return report

    with make_server(Slow(run.folder), 0) as server, ThreadPoolExecutor(32) as asking:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        serving.start()
        answers = [asking.submit(ask, server.server_port, "/content") for _ in range(32)]
        for _ in answers:
            assert started.acquire(timeout=60)
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            ask(server.server_port, "/content")
        go_on.set()
        assert [answer.result()[0] for answer in answers] == [200] * 32
        server.shutdown()
        serving.join()


def test_ctrl_c_stops_it(run: Run) -> None:
    started = [sys.executable, "-m", "nas_edge.cli", "report", str(run.folder), "--serve"]
    with subprocess.Popen(started, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        assert found, line
        assert ask(int(found[1]), "/content")[0] == 200
        server.send_signal(signal.SIGINT)
        try:
            out, err = server.communicate(timeout=30)
        finally:
            server.kill()
    assert (server.returncode, out, err) == (0, "stopped\n", "")


def test_a_port_that_is_taken(port: int, run: Run) -> None:
    arguments = [sys.executable, "-m", "nas_edge.cli", "report", str(run.folder), "--serve", "--port", str(port)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "choose another --port" in done.stderr
    assert done.stdout == ""
