"""Latencies that were measured before, in an SQLite file.

    design fingerprint + precision + device fingerprint + runtime and version + settings hash  ->  LatencyAnswer

A converging controller proposes the same architectures again and again, so most of a search's late measurements are
answered from here. That repeats a measurement's error instead of averaging it, which is why finalists are measured
anew, past the cache. Keep the file with the run: the same device differs from one session to the next by more than
its measurements scatter.

Only the verdict `ok` is kept. One that is `corrected` is measured again: two such tell more than one. A failure costs
little (a file that is refused is refused at once) and may outlive its cause: a writer that was corrected, a limit of
time or memory that was raised, neither of which is in the key.

Every row has a checksum, and all are checked when the file is opened: SQLite does not notice a changed digit. A file
that is damaged is never used; `repair` sets it aside and makes another.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

from device_agents.api import Verdict
from device_agents.errors import ProtocolError
from nas_edge.errors import RunError
from nas_edge.formatting import reason
from nas_edge.latency.answer import LatencyAnswer
from nas_edge.latency.source import Candidate, LatencySource, SourceWrapper, outcome, resolve

SCHEMA_VERSION = 2
_APPLICATION_ID = 0x6E617365  # "nase" in the file's header: tells our files from other SQLite files
_BUSY_TIMEOUT_S = 30.0

# What SQLite says when the file is not to blame. Its error codes are known to Python only from 3.11 on. An input or
# output error counts as damage: a file that cannot be read is of no use, whatever it holds.
_NO_DAMAGE = ("locked", "unable to open", "readonly", "is full")

# `stored_s` is for people: the clock it is from may be set at any time.
_CREATE = """
CREATE TABLE measurements (
    network TEXT, precision TEXT, device TEXT, runtime TEXT, settings TEXT,
    stored_s REAL NOT NULL,
    measurement TEXT NOT NULL,
    checksum INTEGER,
    PRIMARY KEY (network, precision, device, runtime, settings)
)
"""
_WHERE_KEY = "network = ? AND precision = ? AND device = ? AND runtime = ? AND settings = ?"
# As BLOB, since a damaged text need not be UTF-8.
_CHECKSUM = "crc32({})".format(
    ", ".join(
        f"CAST({column} AS BLOB)" for column in ("network", "precision", "device", "runtime", "settings", "measurement")
    )
)


@dataclass(frozen=True)
class MeasuringKey:
    """What else than the network decides about a latency.

    Attributes:
        precision: `int8` or `float32`.
        device: `DeviceInfo.fingerprint`.
        runtime: name and version.
        settings: `BenchmarkSpec.settings_hash`.
    """

    precision: str
    device: str
    runtime: str
    settings: str


class DamagedCacheError(RunError):
    """The file is not what was written.

    Args:
        problem: which file, and what is wrong with it.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(f"{problem}. It was left as it is; a run that is continued makes another of its journal")
        self.problem = problem


def repair(
    path: Path,
    key: MeasuringKey,
    known: Callable[[], Iterable[tuple[str, LatencyAnswer]]],
    say: Callable[[str], object],
) -> None:
    """Makes a cache of what is known elsewhere, when it is damaged or not there; a damaged one is set aside, not lost.

    Args:
        path: the SQLite file; nothing may have it open.
        key: what the known measurements were made with.
        known: asked only if needed: networks' fingerprints with measurements of verdict `ok`, a later one of the same
            network in place of an earlier.
        say: is told, in one line.

    Raises:
        RunError: when the file is of a newer version or cannot be used.
    """
    try:
        problem = _problem(path, key)
        if problem is None:
            return
        fresh = path.with_name(f"{path.name}.new")
        for left in _with_companions(fresh):
            left.unlink(missing_ok=True)
        count = _fill(fresh, key, known())
        aside = next(free for number in range(1, 10**6) if not (free := Path(f"{path}.damaged-{number}")).exists())
        was_there = path.exists()
        # The file itself goes last, so that what a crash in between leaves is still found to be damaged.
        for file, place in reversed(list(zip(_with_companions(path), _with_companions(aside), strict=True))):
            if file.exists():
                file.replace(place)
        fresh.replace(path)
    except OSError as error:
        raise RunError(f"cannot replace the cache of latencies {path}: {error.strerror}") from error
    if was_there:
        say(f"{problem}: it is kept as {aside.name}, and {count} latencies were taken from the journal")
    elif count:
        say(f"{problem}: {count} latencies were taken from the journal")


class CachedSource(SourceWrapper):
    """Answers from the file what is in it, and asks the source for the rest, once for all who ask meanwhile.

    Several processes may share a file. Two that ask for the same network at the same time both measure it.

    Args:
        source: what measures; closed with this.
        path: the SQLite file; made when it does not exist.
        key: what the source measures with.

    Raises:
        RunError: when the file is of a newer version, not a cache, damaged, or cannot be used; it is left as it is.
            `submit` and the futures raise it too.
    """

    def __init__(self, source: LatencySource, path: Path, key: MeasuringKey) -> None:
        super().__init__(source)
        self._store = _Store(path, key)
        self._lock = threading.Lock()
        self._waiting: dict[str, list[Future[LatencyAnswer]]] = {}  # by network, while the source is measuring it
        self._kept: list[tuple[float, str]] = []  # when, by `time.monotonic()`, and the network
        self.hits = 0
        self.misses = 0

    def submit(self, candidate: Candidate) -> Future[LatencyAnswer]:
        """See `LatencySource`."""
        future: Future[LatencyAnswer] = Future()
        network = candidate.design.fingerprint
        with self._lock:
            if network in self._waiting:
                self.hits += 1
                self._waiting[network].append(future)
                return future
            known = self._store.get(network)
            if known is not None:
                self.hits += 1
                resolve(future, known)
                return future
            self.misses += 1
            self._waiting[network] = [future]
        # Outside the lock: a source may answer at once, in this very thread.
        try:
            asked = self._source.submit(candidate)
        except BaseException as error:
            self._answer(network, error)
        else:
            asked.add_done_callback(lambda done: self._answer(network, self._keep(network, done)))
        return future

    def forget_since(self, since_s: float) -> None:
        """Drops what was kept since a time (`time.monotonic()`), so that it is measured again when asked for."""
        with self._lock:
            suspect = [network for kept_s, network in self._kept if kept_s >= since_s]
        for network in suspect:
            self._store.delete(network)

    def close(self) -> None:
        """Closes the source, then the file: what is measured last is kept too."""
        super().close()
        self._store.close()

    def _keep(self, network: str, done: Future[LatencyAnswer]) -> LatencyAnswer | BaseException:
        answer = outcome(done)
        if isinstance(answer, LatencyAnswer) and answer.verdict == Verdict.OK:
            try:
                self._store.put(network, answer)
            except RunError as error:
                return error
            with self._lock:
                self._kept.append((time.monotonic(), network))
        return answer

    def _answer(self, network: str, answer: LatencyAnswer | BaseException) -> None:
        with self._lock:
            futures = self._waiting.pop(network)
        for future in futures:
            resolve(future, answer)


class _Store:
    """The file; usable from several threads."""

    def __init__(self, path: Path, key: MeasuringKey) -> None:
        self._path, self._key = path, astuple(key)
        self._lock = threading.RLock()
        with self._errors():
            # No transactions of its own: each statement here is one.
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
        try:
            with self._errors():
                self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def get(self, network: str) -> LatencyAnswer | None:
        """The stored measurement."""
        with self._errors():
            row = self._connection.execute(
                f"SELECT CAST(measurement AS BLOB), checksum IS {_CHECKSUM} FROM measurements WHERE {_WHERE_KEY}",
                (network, *self._key),
            ).fetchone()
        if row is None:
            return None
        text, whole = row
        if not whole:
            raise self._damaged(f"the checksum of network {network} does not fit")
        try:
            return LatencyAnswer.from_json(json.loads(text))
        except (LookupError, ValueError, TypeError, ProtocolError) as error:
            raise self._damaged(f"its measurement of network {network}: {reason(error)}") from error

    def put(self, network: str, answer: LatencyAnswer) -> None:
        """Stores an answer, in place of an earlier one."""
        text = json.dumps(answer.to_json(), separators=(",", ":"), allow_nan=False)
        checksum = _crc32(*(part.encode() for part in (network, *self._key, text)))
        with self._errors():
            self._connection.execute(
                "INSERT OR REPLACE INTO measurements VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (network, *self._key, time.time(), text, checksum),
            )

    def delete(self, network: str) -> None:
        """Deletes the stored measurement, if there is one."""
        with self._errors():
            self._connection.execute(f"DELETE FROM measurements WHERE {_WHERE_KEY}", (network, *self._key))

    def close(self) -> None:
        """Closes the file; may be called twice."""
        with self._lock:
            self._connection.close()

    def _prepare(self) -> None:
        self._connection.create_function("crc32", 6, _crc32, deterministic=True)
        # What the file is must be known before a single byte of it is changed.
        self._version()
        self._connection.execute("PRAGMA journal_mode = WAL")
        # A power cut may cost the last measurements, never the file.
        self._connection.execute("PRAGMA synchronous = NORMAL")
        # The lock is taken before looking again: two processes may have found the file empty.
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            version = self._version()
            if version == 0:
                self._connection.execute(_CREATE)
                self._connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            if version == 1:  # had no checksums
                self._connection.execute("ALTER TABLE measurements ADD COLUMN checksum INTEGER")
                self._connection.execute(f"UPDATE measurements SET checksum = {_CHECKSUM}")
            if version != SCHEMA_VERSION:
                self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._check()
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _version(self) -> int:
        """The version of the file; 0 while it is empty.

        Raises:
            RunError: when it is none that this class can read.
        """
        (application,) = self._connection.execute("PRAGMA application_id").fetchone()
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if (application, version, tables) == (0, 0, 0):
            return 0
        if application != _APPLICATION_ID:
            raise self._damaged("it is an SQLite file but not a cache of latencies")
        if version not in (1, SCHEMA_VERSION):
            raise RunError(
                f"{self._path} is a cache of another version",
                expected=f"schema {SCHEMA_VERSION}",
                received=f"{version}",
                fix="use the nas_edge that wrote it, or move the file away",
            )
        return int(version)

    def _check(self) -> None:
        """Raises RunError unless the file is whole."""
        (finding,) = self._connection.execute("PRAGMA integrity_check(1)").fetchone()
        if finding != "ok":
            raise self._damaged(str(finding))
        (count,) = self._connection.execute(
            f"SELECT count(*) FROM measurements WHERE checksum IS NOT {_CHECKSUM}"
        ).fetchone()
        if count:
            raise self._damaged(f"{count} of its checksums do not fit")

    def _damaged(self, finding: str) -> DamagedCacheError:
        return DamagedCacheError(f"{self._path} is damaged ({' '.join(finding.split())})")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Holds the lock, and says what SQLite's errors mean for the user."""
        with self._lock:
            try:
                yield
            except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # names in a damaged file are any bytes
                if any(words in str(error) for words in _NO_DAMAGE):
                    raise RunError(f"cannot use the cache of latencies {self._path}: {error}") from error
                raise self._damaged(str(error)) from error


def _problem(path: Path, key: MeasuringKey) -> str | None:
    """What is wrong with a file; None if nothing is. Raises RunError when it is something that is no damage."""
    if not path.exists():
        return f"{path} is not there"
    if not path.stat().st_size:
        return f"{path} is empty"
    try:
        _Store(path, key).close()
    except DamagedCacheError as error:
        return error.problem
    return None


def _fill(path: Path, key: MeasuringKey, known: Iterable[tuple[str, LatencyAnswer]]) -> int:
    """Makes a cache of known measurements; returns how many."""
    store, count = _Store(path, key), 0
    try:
        for count, (network, answer) in enumerate(known, start=1):  # noqa: B007 - the last one is the answer
            store.put(network, answer)
    finally:
        store.close()
    return count


def _with_companions(path: Path) -> tuple[Path, ...]:
    """The file and those that SQLite keeps beside it."""
    return (path, Path(f"{path}-wal"), Path(f"{path}-shm"))


def _crc32(*parts: bytes | None) -> int:
    return zlib.crc32(b"\0".join(part or b"" for part in parts))
