"""The cache of latencies: what is kept, for whom, and what happens to files that are not what they should be."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from device_agents.api import Measurement, Verdict
from nas_edge.errors import RunError
from nas_edge.latency.cache import CachedSource, MeasuringKey
from nas_edge.latency.source import Candidate
from tests.fakes import FunctionSource, failed, timed
from tests.latency.candidates import ManualSource, candidate

KEY = MeasuringKey("int8", "device", "litert 1", "settings")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "measurements.sqlite"


def counting() -> Callable[[Candidate], Measurement]:
    """Answers 1 ms, 2 ms, 3 ms, ..."""
    count = 0

    def measure(_: Candidate) -> Measurement:
        nonlocal count
        count += 1
        return timed(float(count))

    return measure


def ask(source: CachedSource, index: int = 0) -> Measurement:
    return source.submit(candidate(index)).result(timeout=10)


def test_a_network_is_measured_once(path: Path) -> None:
    with CachedSource(FunctionSource(counting()), path, KEY) as source:
        assert [ask(source, i).latency_ms for i in (0, 1, 0, 1, 2)] == [1.0, 2.0, 1.0, 2.0, 3.0]
        assert (source.hits, source.misses) == (2, 3)


def test_what_was_measured_before_is_known_in_the_next_session(path: Path) -> None:
    measurement = Measurement(Verdict.OK, samples_ms=(1.25, 1.5, 1.75), init_ms=3.0, attempts=2)
    with CachedSource(FunctionSource(lambda _: measurement), path, KEY) as source:
        ask(source)
    with CachedSource(FunctionSource(lambda _: failed(Verdict.DEVICE_LOST)), path, KEY) as source:
        assert ask(source) == measurement


@pytest.mark.parametrize("part", ["precision", "device", "runtime", "settings"])
def test_what_decides_about_a_latency_is_part_of_the_key(path: Path, part: str) -> None:
    with CachedSource(FunctionSource(lambda _: timed(1.0)), path, KEY) as source:
        ask(source)
    with CachedSource(FunctionSource(lambda _: timed(2.0)), path, replace(KEY, **{part: "another"})) as source:
        assert ask(source).latency_ms == 2.0


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict is not Verdict.OK])
def test_only_good_measurements_are_kept(path: Path, verdict: Verdict) -> None:
    answers = iter([failed(verdict), timed(1.0)])
    with CachedSource(FunctionSource(lambda _: next(answers)), path, KEY) as source:
        assert ask(source).verdict is verdict
        assert ask(source).latency_ms == 1.0


def test_those_who_ask_at_the_same_time_share_a_measurement(path: Path) -> None:
    inner = ManualSource()
    with CachedSource(inner, path, KEY) as source:
        first, second, other = (source.submit(candidate(i)) for i in (0, 0, 1))
        assert len(inner.asked) == 2
        assert first.cancel()  # must not cancel it for the second
        inner.futures[0].set_result(timed(1.0))
        assert second.result(timeout=1).latency_ms == 1.0
        assert not other.done()
        inner.futures[1].set_result(failed(Verdict.UNSTEADY))
        assert other.result(timeout=1).verdict is Verdict.UNSTEADY


def test_a_broken_bench_reaches_all_who_wait_and_nothing_is_kept(path: Path) -> None:
    inner = ManualSource()
    with CachedSource(inner, path, KEY) as source:
        futures = [source.submit(candidate(0)) for _ in range(2)]
        inner.futures[0].set_exception(ConnectionError("unplugged"))
        for future in futures:
            with pytest.raises(ConnectionError):
                future.result(timeout=1)
        source.submit(candidate(0))
        assert len(inner.asked) == 2


def test_a_cancelled_measurement_leaves_nobody_waiting(path: Path) -> None:
    inner = ManualSource()
    with CachedSource(inner, path, KEY) as source:
        future = source.submit(candidate(0))
        inner.futures[0].cancel()
        assert isinstance(future.exception(timeout=1), BaseException)


def test_suspect_measurements_are_forgotten(path: Path) -> None:
    with CachedSource(FunctionSource(counting()), path, KEY) as source:
        ask(source, 0)
        time.sleep(0.002)
        since_s = time.time()
        ask(source, 1)
        source.forget_since(since_s)
        assert [ask(source, i).latency_ms for i in (0, 1)] == [1.0, 3.0]


def test_wrapper_passes_on_what_the_source_is_and_closes_it(path: Path) -> None:
    inner = ManualSource()
    source = CachedSource(inner, path, KEY)
    assert (source.name, source.measures_on_host) == ("by hand", True)
    source.close()
    source.close()
    assert inner.closed


def test_many_threads_share_a_source(path: Path) -> None:
    inner = FunctionSource(lambda c: timed(float(len(c.network.nodes))))
    with CachedSource(inner, path, KEY) as source:
        candidates = [candidate(i) for i in range(8)]

        def work() -> None:
            for _ in range(5):
                for one in candidates:
                    assert source.submit(one).result(timeout=10).latency_ms == len(one.network.nodes)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert source.hits + source.misses == 160
        assert source.misses == len({one.network.fingerprint for one in candidates})


PROCESS = """
import sys
from pathlib import Path
from nas_edge.latency.cache import CachedSource
from tests.fakes import FunctionSource, timed
from tests.latency.candidates import candidate
from tests.latency.test_cache import KEY

first = int(sys.argv[2])
sys.stdin.readline()  # all start at once
with CachedSource(FunctionSource(lambda _: timed(1.0)), Path(sys.argv[1]), KEY) as source:
    for index in range(first, first + 20):
        source.submit(candidate(index)).result(timeout=60)
"""


def test_several_processes_share_a_file_that_none_of_them_found(path: Path) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", PROCESS, str(path), str(first)], stdin=subprocess.PIPE)
        for first in (0, 10, 20)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.close()
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    with CachedSource(FunctionSource(lambda _: timed(2.0)), path, KEY) as source:
        assert {ask(source, index).latency_ms for index in range(40)} == {1.0}


def refused(path: Path, match: str) -> None:
    before = path.read_bytes()
    inner = ManualSource()
    with pytest.raises(RunError, match=match):
        CachedSource(inner, path, KEY)
    assert path.read_bytes() == before


def test_a_newer_version_is_refused_and_left_as_it_is(path: Path) -> None:
    CachedSource(ManualSource(), path, KEY).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    refused(path, "expected schema 1, received 99")


def test_another_programs_database_is_refused_and_left_as_it_is(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE notes (text)")
    refused(path, "not a cache of latencies")


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(path: Path) -> None:
    path.write_text("latency of network 0: 1 ms\n" * 100)
    refused(path, "damaged or not a cache")


def test_damage_is_an_error_and_never_a_miss(path: Path) -> None:
    with CachedSource(FunctionSource(lambda _: timed(1.0)), path, KEY) as source:
        for index in range(40):
            ask(source, index)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with CachedSource(ManualSource(), path, KEY) as source, pytest.raises(RunError, match="damaged"):
        source.submit(candidate(0))


def test_a_measurement_that_cannot_be_read_is_an_error_that_names_it(path: Path) -> None:
    with CachedSource(FunctionSource(lambda _: timed(1.0)), path, KEY) as source:
        ask(source)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE measurements SET measurement = substr(measurement, 1, 20)")
        connection.commit()
    fingerprint = candidate(0).network.fingerprint
    with CachedSource(ManualSource(), path, KEY) as source, pytest.raises(RunError, match=fingerprint):
        source.submit(candidate(0))


def test_a_folder_that_does_not_exist_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot use the cache"):
        CachedSource(ManualSource(), tmp_path / "missing" / "cache.sqlite", KEY)


def test_a_measurement_that_cannot_be_stored_is_an_error(path: Path) -> None:
    with CachedSource(FunctionSource(lambda _: timed(1.0)), path, KEY) as source:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(
                "CREATE TRIGGER full BEFORE INSERT ON measurements BEGIN SELECT RAISE(FAIL, 'full'); END"
            )
        with pytest.raises(RunError, match="full"):
            ask(source)
