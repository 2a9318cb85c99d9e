"""Latencies that were measured before, in an SQLite file.

    network fingerprint + precision + device fingerprint + runtime and version + settings hash  ->  Measurement

A settling controller proposes the same architectures again and again, so most of a search's late measurements are
answered from here. That repeats a measurement's error instead of averaging it, which is why finalists are measured
anew, past the cache. Keep the file with the run: the same device differs from one session to the next by more than
its measurements scatter.

Only the verdict `ok` is kept. A failure costs little (a file that is refused is refused at once) and may outlive its
cause: a writer that was corrected, a limit of time or memory that was raised, neither of which is in the key.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

from device_agents.api import Measurement
from device_agents.errors import ProtocolError
from nas_edge.errors import RunError
from nas_edge.latency.source import Candidate, LatencySource, SourceWrapper, outcome, resolve

SCHEMA_VERSION = 1
_APPLICATION_ID = 0x6E617365  # "nase" in the file's header: tells our files from other SQLite files
_BUSY_TIMEOUT_S = 30.0

_CREATE = """
CREATE TABLE measurements (
    network TEXT, precision TEXT, device TEXT, runtime TEXT, settings TEXT,
    stored_s REAL NOT NULL,
    measurement TEXT NOT NULL,
    PRIMARY KEY (network, precision, device, runtime, settings)
)
"""
_WHERE_KEY = "precision = ? AND device = ? AND runtime = ? AND settings = ?"


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


class CachedSource(SourceWrapper):
    """Answers from the file what is in it, and asks the source for the rest, once for all who ask meanwhile.

    Several processes may share a file. Two that ask for the same network at the same time both measure it.

    Args:
        source: what measures; closed with this.
        path: the SQLite file; made when it does not exist.
        key: what the source measures with.

    Raises:
        RunError: when the file is of a newer version, not a cache, damaged, or cannot be used; it is left as it is.
            The futures raise it too.
    """

    def __init__(self, source: LatencySource, path: Path, key: MeasuringKey) -> None:
        super().__init__(source)
        self._store = _Store(path, key)
        self._lock = threading.Lock()
        self._waiting: dict[str, list[Future[Measurement]]] = {}  # by network, while the source is measuring it
        self.hits = 0
        self.misses = 0

    def submit(self, candidate: Candidate) -> Future[Measurement]:
        """See `LatencySource`."""
        future: Future[Measurement] = Future()
        network = candidate.network.fingerprint
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
        """Drops what was measured since a time (`time.time()`), so that it is measured again when asked for.

        Measurements of the same kind of device by other processes go too: on the host they are as suspect.
        """
        self._store.delete_since(since_s)

    def close(self) -> None:
        """Closes the source, then the file: what is measured last is kept too."""
        super().close()
        self._store.close()

    def _keep(self, network: str, done: Future[Measurement]) -> Measurement | BaseException:
        answer = outcome(done)
        if isinstance(answer, Measurement) and answer.ok:
            try:
                self._store.put(network, answer)
            except RunError as error:
                return error
        return answer

    def _answer(self, network: str, answer: Measurement | BaseException) -> None:
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

    def get(self, network: str) -> Measurement | None:
        """The stored measurement."""
        with self._errors():
            row = self._connection.execute(
                f"SELECT measurement FROM measurements WHERE network = ? AND {_WHERE_KEY}", (network, *self._key)
            ).fetchone()
        if row is None:
            return None
        try:
            return Measurement.from_json(json.loads(row[0]))
        except (ValueError, TypeError, ProtocolError) as error:
            raise RunError(f"{self._path} is damaged: its measurement of network {network}: {error}") from error

    def put(self, network: str, measurement: Measurement) -> None:
        """Stores a measurement, in place of an earlier one."""
        text = json.dumps(measurement.to_json(), separators=(",", ":"), allow_nan=False)
        with self._errors():
            self._connection.execute(
                "INSERT OR REPLACE INTO measurements VALUES (?, ?, ?, ?, ?, ?, ?)",
                (network, *self._key, time.time(), text),
            )

    def delete_since(self, since_s: float) -> None:
        """Deletes what was stored since then, for this key."""
        with self._errors():
            self._connection.execute(
                f"DELETE FROM measurements WHERE stored_s >= ? AND {_WHERE_KEY}", (since_s, *self._key)
            )

    def close(self) -> None:
        """Closes the file; may be called twice."""
        with self._lock:
            self._connection.close()

    def _prepare(self) -> None:
        # What the file is must be known before a single byte of it is changed.
        self._check()
        self._connection.execute("PRAGMA journal_mode = WAL")
        # A power cut may cost the last measurements, never the file.
        self._connection.execute("PRAGMA synchronous = NORMAL")
        # The lock is taken before looking again: two processes may have found the file empty.
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            if not self._check():
                self._connection.execute(_CREATE)
                self._connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise

    def _check(self) -> bool:
        """Whether the file is a cache of this version; False when it is still empty.

        Raises:
            RunError: when it is anything else.
        """
        (application,) = self._connection.execute("PRAGMA application_id").fetchone()
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if (application, version, tables) == (0, 0, 0):
            return False
        if application != _APPLICATION_ID:
            raise RunError(f"{self._path} is an SQLite file but not a cache of latencies; name another file")
        if version != SCHEMA_VERSION:
            raise RunError(
                f"{self._path} is a cache of another version: expected schema {SCHEMA_VERSION}, received {version}; "
                "use the nas_edge that wrote it, or name another file"
            )
        return True

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Holds the lock, and says what SQLite's errors mean for the user."""
        with self._lock:
            try:
                yield
            except sqlite3.OperationalError as error:  # locked, full, read-only, not a folder
                raise RunError(f"cannot use the cache of latencies {self._path}: {error}") from error
            except sqlite3.DatabaseError as error:
                raise RunError(
                    f"{self._path} is damaged or not a cache of latencies: {error}. Nothing in it was changed; "
                    "move it away to measure again"
                ) from error
