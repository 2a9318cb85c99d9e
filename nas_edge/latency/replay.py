"""Recorded latencies, and those of a published table, instead of a device.

A recording is a file of JSON lines, one per answer:

    {"schema": 1, "network": FINGERPRINT, "precision": "int8", "architecture": "0:2:1", "measurement": {...}}

With it a search can be rehearsed and tested without hardware: the same seed and the same recording give the same run,
whenever the answers come.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from device_agents.api import Measurement, Verdict
from device_agents.errors import ProtocolError
from nas_edge.errors import RunError
from nas_edge.latency.source import Candidate, LatencySource, SourceWrapper, outcome, resolve
from nas_edge.latency.table import LinearTable

SCHEMA_VERSION = 1
_LINE_START = b'{"schema":'


class RecordingSource(SourceWrapper):
    """Appends every answer to a file.

    Args:
        source: what measures; closed with this.
        path: the recording; made when it does not exist. A last line that was cut off is removed.
        precision: what the source measures in.

    Raises:
        RunError: when the file cannot be written; the futures raise it too.
    """

    def __init__(self, source: LatencySource, path: Path, precision: str) -> None:
        super().__init__(source)
        self._path, self._precision = path, precision
        self._lock = threading.Lock()
        try:
            _drop_torn_line(path)
            # Unbuffered: each line is one write at the end of the file, whoever else appends to it.
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise RunError(f"cannot write the recording {path}: {error.strerror}") from error

    def submit(self, candidate: Candidate) -> Future[Measurement]:
        """See `LatencySource`."""
        future: Future[Measurement] = Future()

        def answered(done: Future[Measurement]) -> None:
            answer = outcome(done)
            if isinstance(answer, Measurement):
                try:
                    self._append(candidate, answer)
                except (OSError, ValueError) as error:  # ValueError: the file is closed
                    answer = RunError(f"cannot write the recording {self._path}: {error}")
            resolve(future, answer)

        self._source.submit(candidate).add_done_callback(answered)
        return future

    def close(self) -> None:
        """Closes the source, then the file: what is measured last is recorded too."""
        super().close()
        with self._lock:
            self._file.close()

    def _append(self, candidate: Candidate, measurement: Measurement) -> None:
        record = {
            "schema": SCHEMA_VERSION,
            "network": candidate.network.fingerprint,
            "precision": self._precision,
            "architecture": None if candidate.architecture is None else str(candidate.architecture),
            "measurement": measurement.to_json(),
        }
        line = json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        with self._lock:
            if self._file.write(line) != len(line):
                raise OSError("the disk is full")


class ReplaySource(LatencySource):
    """Answers from a recording, at once; `DelayedSource` around it takes as long as the device took.

    A network that was recorded several times is answered with its first `ok`, or else its first answer: a fixed one,
    so that a search that was interrupted and goes on later gets what it would have got.

    Args:
        path: what `RecordingSource` wrote.
        precision: which of its latencies to answer with.

    Raises:
        RunError: when the file cannot be read or is damaged elsewhere than in a last line that was cut off.
    """

    def __init__(self, path: Path, precision: str) -> None:
        self._path, self._precision = path, precision
        self._recorded: dict[str, Measurement] = {}
        for network, measurement in _read_recording(path, precision):
            known = self._recorded.get(network)
            if known is None or (measurement.ok and not known.ok):
                self._recorded[network] = measurement

    def __len__(self) -> int:
        """How many networks it knows."""
        return len(self._recorded)

    @property
    def name(self) -> str:
        """The recording's file."""
        return f"recording {self._path}"

    def submit(self, candidate: Candidate) -> Future[Measurement]:
        """See `LatencySource`; for a network that was not recorded, the future raises RunError."""
        future: Future[Measurement] = Future()
        fingerprint = candidate.network.fingerprint
        which = f"network {fingerprint}" if candidate.architecture is None else f"architecture {candidate.architecture}"
        answer = self._recorded.get(fingerprint)
        resolve(future, answer or RunError(f"{self._path} has no {self._precision} latency of {which}"))
        return future


class DelayedSource(SourceWrapper):
    """Answers as late as devices would: each takes the time its answer was measured in, one answer after another.

    Args:
        source: what knows the answers; closed with this.
        devices: how many answer at once.
        sleep: waits for so many seconds; tests may pass something else.
    """

    def __init__(self, source: LatencySource, devices: int = 1, sleep: Callable[[float], object] = time.sleep) -> None:
        super().__init__(source)
        self._sleep = sleep
        self._threads = ThreadPoolExecutor(devices, "delayed")

    def submit(self, candidate: Candidate) -> Future[Measurement]:
        """See `LatencySource`."""
        return self._threads.submit(self._answer, candidate)

    def close(self) -> None:
        """Cancels what waits, and closes the source."""
        self._threads.shutdown(cancel_futures=True)
        super().close()

    def _answer(self, candidate: Candidate) -> Measurement:
        measurement = self._source.submit(candidate).result()
        self._sleep(measurement.busy_s)
        return measurement


class TableSource(LatencySource):
    """Answers with what a table says, as a measurement of one sample under no known conditions.

    Args:
        table: of the space that is searched.
        name: for reports.
    """

    def __init__(self, table: LinearTable, name: str) -> None:
        self._table, self._name = table, name

    @property
    def name(self) -> str:
        """The table's name."""
        return self._name

    def submit(self, candidate: Candidate) -> Future[Measurement]:
        """See `LatencySource`; for a network from outside the space, the future raises RunError."""
        future: Future[Measurement] = Future()
        if candidate.architecture is None:
            resolve(future, RunError(f"{self._name} knows the architectures of its space only; name a target in ms"))
        else:
            latency_ms = self._table.latency_ms(candidate.architecture)
            resolve(future, Measurement(Verdict.OK, samples_ms=(latency_ms,)))
        return future


def _drop_torn_line(path: Path) -> None:
    """Removes what follows the last line's end: a record that was being written when its process was killed."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        content = file.read()
        torn = content[content.rfind(b"\n") + 1 :]
        if not torn:
            return
        if torn[: len(_LINE_START)] != _LINE_START[: len(torn)]:
            raise RunError(f"{path} is not a recording of latencies; name another file")
        file.truncate(len(content) - len(torn))


def _read_recording(path: Path, precision: str) -> list[tuple[str, Measurement]]:
    try:
        *lines, _torn = path.read_bytes().split(b"\n")
    except OSError as error:
        raise RunError(f"cannot read the recording {path}: {error.strerror}") from error
    answers = []
    for number, line in enumerate(lines, start=1):
        try:
            record: dict[str, Any] = json.loads(line)
            if record["schema"] != SCHEMA_VERSION:
                raise ValueError(f"expected schema {SCHEMA_VERSION}, received {record['schema']!r}")
            measurement = Measurement.from_json(record["measurement"])
            if record["precision"] == precision:
                answers.append((str(record["network"]), measurement))
        except (ValueError, KeyError, TypeError, ProtocolError) as error:
            raise RunError(f"line {number} of the recording {path} cannot be read: {error!r}") from error
    return answers
