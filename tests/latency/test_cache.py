"""The cache of latencies: what is kept, for whom, and what happens to files that are not what they should be."""

from __future__ import annotations

import errno
import json
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import astuple, replace
from pathlib import Path

import pytest

from device_agents.api import Measurement, Verdict
from nas_edge.errors import RunError
from nas_edge.latency.answer import LatencyAnswer
from nas_edge.latency.cache import CachedSource, MeasuringKey, repair
from nas_edge.latency.source import Candidate
from tests.support.candidates import ManualSource, candidate
from tests.support.sources import FunctionSource, failed, timed

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


def ask(source: CachedSource, index: int = 0) -> LatencyAnswer:
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
        assert ask(source) == LatencyAnswer.measured(measurement)


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
        inner.futures[0].set_result(LatencyAnswer.measured(timed(1.0)))
        assert second.result(timeout=60).latency_ms == 1.0
        assert not other.done()
        inner.futures[1].set_result(LatencyAnswer.measured(failed(Verdict.UNSTEADY)))
        assert other.result(timeout=60).verdict is Verdict.UNSTEADY


def test_a_broken_bench_reaches_all_who_wait_and_nothing_is_kept(path: Path) -> None:
    inner = ManualSource()
    with CachedSource(inner, path, KEY) as source:
        futures = [source.submit(candidate(0)) for _ in range(2)]
        inner.futures[0].set_exception(ConnectionError("unplugged"))
        for future in futures:
            with pytest.raises(ConnectionError):
                future.result(timeout=60)
        source.submit(candidate(0))
        assert len(inner.asked) == 2


def test_a_cancelled_measurement_leaves_nobody_waiting(path: Path) -> None:
    inner = ManualSource()
    with CachedSource(inner, path, KEY) as source:
        future = source.submit(candidate(0))
        inner.futures[0].cancel()
        assert isinstance(future.exception(timeout=60), BaseException)


def test_suspect_measurements_are_forgotten_even_if_the_clock_is_set_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with CachedSource(FunctionSource(counting()), path, KEY) as source:
        ask(source, 0)
        since_s = time.monotonic()
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: 0.0)
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
from nas_edge.latency.answer import LatencyAnswer
from nas_edge.latency.cache import CachedSource, MeasuringKey
from tests.support.sources import FunctionSource, timed
from tests.support.candidates import candidate

first = int(sys.argv[2])
sys.stdin.readline()  # all start at once
key = MeasuringKey("int8", "device", "litert 1", "settings")
with CachedSource(FunctionSource(lambda _: timed(1.0)), Path(sys.argv[1]), key) as source:
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
    refused(path, "expected schema 2, received 99")
    before = path.read_bytes()
    with pytest.raises(RunError, match="expected schema 2, received 99"):
        repair(path, KEY, lambda: (), pytest.fail)
    assert path.read_bytes() == before


def test_a_file_of_the_first_version_goes_on(path: Path) -> None:
    """It had no checksums."""
    row = (candidate(0).network.fingerprint, *astuple(KEY), 1e9, json.dumps(timed(1.5).to_json()))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "CREATE TABLE measurements (network TEXT, precision TEXT, device TEXT, runtime TEXT, settings TEXT, "
            "stored_s REAL NOT NULL, measurement TEXT NOT NULL, "
            "PRIMARY KEY (network, precision, device, runtime, settings))"
        )
        connection.execute("INSERT INTO measurements VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        connection.execute("PRAGMA application_id = 0x6E617365")
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
    for _ in range(2):
        with CachedSource(FunctionSource(lambda _: timed(9.0)), path, KEY) as source:
            assert [ask(source, index).latency_ms for index in (0, 1)] == [1.5, 9.0]


def test_another_programs_database_is_refused_and_left_as_it_is(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE notes (text)")
    refused(path, "not a cache of latencies")


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(path: Path) -> None:
    path.write_text("latency of network 0: 1 ms\n" * 100)
    refused(path, "damaged .file is not a database.. It was left as it is")


def test_damage_is_an_error_and_never_a_miss(path: Path) -> None:
    with CachedSource(FunctionSource(lambda _: timed(1.0)), path, KEY) as source:
        for index in range(40):
            ask(source, index)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    refused(path, "damaged")


@pytest.mark.parametrize("change", ["measurement = replace(measurement, '1.0', '2.0')", "device = 'other'"])
def test_a_changed_digit_is_noticed(path: Path, change: str) -> None:
    with CachedSource(FunctionSource(lambda _: timed(1.0)), path, KEY) as source:
        ask(source)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"UPDATE measurements SET {change}")
            connection.commit()
        if change.startswith("measurement"):
            with pytest.raises(RunError, match=candidate(0).network.fingerprint):
                source.submit(candidate(0))
    refused(path, "1 of its checksums do not fit")


# ---------------------------------------------------------------- repairing

MANY = 30


def measured(index: int) -> LatencyAnswer:
    return LatencyAnswer.measured(Measurement(Verdict.OK, samples_ms=tuple(index + 0.25 * i for i in range(60))))


@pytest.fixture(scope="module")
def journalled() -> dict[str, LatencyAnswer]:
    return {candidate(index).network.fingerprint: measured(index) for index in range(MANY)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file with all of them, on many pages."""
    path = tmp_path_factory.mktemp("whole") / "measurements.sqlite"
    answers = iter(range(MANY))
    with CachedSource(FunctionSource(lambda _: measured(next(answers))), path, KEY) as source:
        for index in range(MANY):
            ask(source, index)
    return path.read_bytes()


def assert_all_known(path: Path, journalled: dict[str, LatencyAnswer]) -> None:
    with CachedSource(ManualSource(), path, KEY) as source:
        for index in range(MANY):
            assert ask(source, index) == journalled[candidate(index).network.fingerprint]


def damages(content: bytes, rng: random.Random) -> Iterator[bytes]:
    """Files as bad disks, bad memory and bad luck make them."""
    size, page = len(content), 4096
    yield from (b"", b"\0" * size, b"latency of network 0: 1 ms\n" * 400)
    yield content.replace(b"measurements", b"\xa9" * 12)
    for _ in range(10):
        at = rng.randrange(size)
        yield content[:at]
        yield content[:at] + b"\0" * 512 + content[at + 512 :]
        yield content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
        at = rng.randrange(100, page)
        yield content[:at] + rng.randbytes(300) + content[at + 300 :]
        start = page * rng.randrange(size // page)
        yield content[:start] + rng.randbytes(page) + content[start + page :]
    for at in range(100):  # the header
        yield content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]


def number_of_header_byte(content: bytes, whole: bytes) -> int:
    """The only byte of a header that differs from the whole file's; else -1."""
    differing = [at for at, (one, other) in enumerate(zip(content, whole, strict=False)) if one != other]
    return differing[0] if len(content) == len(whole) and len(differing) == 1 and differing[0] < 100 else -1


def test_whatever_happened_to_the_file_it_is_never_misread(
    tmp_path: Path, whole: bytes, journalled: dict[str, LatencyAnswer]
) -> None:
    noticed = 0
    for number, content in enumerate(damages(whole, random.Random(0))):
        path = tmp_path / str(number) / "measurements.sqlite"
        path.parent.mkdir()
        path.write_bytes(content)
        said: list[str] = []
        if 60 <= number_of_header_byte(content, whole) < 64:  # the version
            with pytest.raises(RunError, match="another version"):
                repair(path, KEY, pytest.fail, pytest.fail)  # type: ignore[arg-type]
            assert path.read_bytes() == content
            continue
        repair(path, KEY, journalled.items, said.append)
        assert_all_known(path, journalled)
        if said:
            noticed += 1
            assert len(said) == 1
            assert "\n" not in said[0]
            assert f"kept as {path.name}.damaged-1, and {MANY} latencies were taken from the journal" in said[0]
            assert path.with_name(f"{path.name}.damaged-1").read_bytes() == content
        repair(path, KEY, pytest.fail, pytest.fail)  # type: ignore[arg-type]
    assert noticed > 60


def test_a_log_that_is_damaged_costs_what_is_in_it_and_nothing_else(
    tmp_path: Path, journalled: dict[str, LatencyAnswer]
) -> None:
    """SQLite's write-ahead log, as a killed process leaves it. It does not show whether there ever was more."""
    live = tmp_path / "live.sqlite"
    answers = iter(range(MANY))
    with CachedSource(FunctionSource(lambda _: measured(next(answers))), live, KEY) as source:
        for index in range(MANY):
            ask(source, index)
        database, log = live.read_bytes(), Path(f"{live}-wal").read_bytes()
    assert len(log) > 4096
    rng = random.Random(0)
    for number in range(20):
        at = 0 if number == 0 else rng.randrange(len(log))
        path = tmp_path / f"{number}.sqlite"
        path.write_bytes(database)
        Path(f"{path}-wal").write_bytes(log[:at] + rng.randbytes(200) + log[at + 200 :] if number % 2 else log[:at])
        said: list[str] = []
        repair(path, KEY, journalled.items, said.append)
        with CachedSource(FunctionSource(lambda _: failed(Verdict.TIMEOUT)), path, KEY) as source:
            found = [ask(source, index) for index in range(MANY)]
        assert not said or all(each.ok for each in found)
        for index, each in enumerate(found):
            assert not each.ok or each == measured(index)


def test_a_repair_that_is_interrupted_is_done_again(
    tmp_path: Path, whole: bytes, journalled: dict[str, LatencyAnswer], monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_file = Path.replace
    for at in range(4):
        path = tmp_path / str(at) / "measurements.sqlite"
        path.parent.mkdir()
        path.write_bytes(whole[:-4096])
        Path(f"{path}-wal").write_bytes(b"x")
        calls = iter(range(99))

        def killed(file: Path, place: Path, calls: Iterator[int] = calls, at: int = at) -> Path:
            if next(calls) >= at:
                raise KeyboardInterrupt
            return replace_file(file, place)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", killed)
            with suppress(KeyboardInterrupt):
                repair(path, KEY, journalled.items, lambda _: None)
        repair(path, KEY, journalled.items, lambda _: None)
        assert_all_known(path, journalled)
        assert [kept for kept in path.parent.glob("*.damaged-?") if kept.read_bytes() == whole[:-4096]]


def test_a_file_that_is_missing_is_made_of_the_journal(path: Path, journalled: dict[str, LatencyAnswer]) -> None:
    said: list[str] = []
    repair(path, KEY, lambda: (), pytest.fail)  # a new run
    path.unlink()
    repair(path, KEY, journalled.items, said.append)
    assert said == [f"{path} is not there: {MANY} latencies were taken from the journal"]
    assert_all_known(path, journalled)


def test_a_repair_that_cannot_write_says_so(path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(whole[:-4096])

    def refuse(file: Path, place: Path) -> Path:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(RunError, match=r"cannot replace the cache of latencies .*: Read-only file system"):
        repair(path, KEY, lambda: (), pytest.fail)
    assert path.read_bytes() == whole[:-4096]


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
