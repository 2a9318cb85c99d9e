r"""The journal: one line per record, only ever appended to.

    {"seq":12,"crc":"8d5b1c07","record":{...}}\n

`seq` counts from 0, `crc` is the CRC-32 of `12:{...}`, and record 0 names the format and its version. So what was lost,
swapped, doubled or changed is noticed, and the line is named.

**When is a record safe?** Each is one `write` at the end of the file: the death of the process loses nothing that was
appended. The disk is waited for (`sync`) only before a checkpoint is written, so a checkpoint never speaks of records
that are not on the disk; a power cut may cost those after it, which the search then makes again. Waiting each time
would cost milliseconds to tens of them on the memory cards of small boards.

**Torn tail.** A last line without its end was being written when the process died or the disk was full. It, and only
it, is dropped when the journal is opened for writing.

**Plain journals.** The first versions wrote the records alone, without header and checksums. They are read as they
are, and rewritten (`add_checksums`) before anything is appended.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from device_agents.errors import DeviceError
from nas_edge.errors import NasEdgeError, RunError
from nas_edge.formatting import reason
from nas_edge.runs.files import FILES, Files, writing
from nas_edge.runs.untrusted import LARGEST_BYTES, open_regular

Record: TypeAlias = dict[str, Any]
_T = TypeVar("_T")

SCHEMA_VERSION = 1
_HEADER: Record = {"format": "nas_edge journal", "schema_version": SCHEMA_VERSION}
# How every plain journal begins, and none with checksums, whatever happened to it.
_PLAIN_START = b'{"step":'
_LINE = re.compile(rb'\{"seq":(0|[1-9][0-9]{0,15}),"crc":"([0-9a-f]{8})","record":(.*)\}', re.DOTALL)


@dataclass(frozen=True)
class Contents:
    """What a journal holds.

    Attributes:
        records: oldest first, without the header.
        ends: where each record ends in the file, in bytes, that of the header first; empty for an empty file.
        torn: bytes of a last record that was not written in full.
        plain: whether it is of the first versions, without header and checksums; `ends` then has no header's.
    """

    records: list[Record]
    ends: list[int]
    torn: int
    plain: bool = False


def read_journal(path: Path, parse: Callable[[bytes], Record] = json.loads) -> Contents:
    """Reads and checks a journal, changing nothing; it may be one that a search is writing to.

    Args:
        path: a file that does not exist counts as empty.
        parse: makes a record of its JSON, once its checksum is known to fit.

    Raises:
        RunError: when it cannot be read, is damaged, or was written by another version.
    """
    records: list[Record] = []
    ends: list[int] = []
    end, plain = 0, False
    try:
        with open_regular(path) as file:
            while line := file.readline(LARGEST_BYTES):
                if len(line) == LARGEST_BYTES:
                    raise RunError(f"line {len(ends) + 1} of {path} is longer than {LARGEST_BYTES >> 20} MiB")
                plain = plain or (not ends and line.startswith(_PLAIN_START))
                if not line.endswith(b"\n"):
                    return Contents(records, ends, len(line), plain)
                end += len(line)
                if plain:
                    records.append(_plain_record(line[:-1], len(ends), path, parse))
                else:
                    body = _body(line[:-1], len(ends), path)
                    record = _parsed(body, len(ends), path, parse if ends else json.loads)
                    if ends:
                        records.append(record)
                    else:
                        _check_header(record, path)
                ends.append(end)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error
    return Contents(records, ends, 0, plain)


def add_checksums(path: Path, kept: Path, files: Files = FILES) -> bool:
    """Rewrites a journal of the first versions, so that it can be appended to.

    Args:
        path: of the journal; one that has checksums, or does not exist, is left alone.
        kept: where the journal as it was goes, unless a copy is there already.
        files: how to write.

    Returns:
        Whether it was rewritten.

    Raises:
        RunError: as `read_journal`, or when it cannot be written; the journal is then as it was.
    """
    contents = read_journal(path)
    if not contents.plain:
        return False
    with writing(kept):
        if not kept.exists():
            files.write_whole(kept, path.read_bytes())
    records: list[Record] = [_HEADER, *contents.records]
    with writing(path):
        files.write_whole(path, b"".join(_line(record, seq) for seq, record in enumerate(records)))
    return True


class Journal:
    """A journal to write to. Whoever has it open is its only writer, see `lock`.

    Args:
        path: made when it does not exist.
        say: is told when a record that was not written in full is dropped.
        files: how to write.

    Raises:
        RunError: as `read_journal`, or when it cannot be written.
    """

    def __init__(self, path: Path, say: Callable[[str], object], files: Files = FILES) -> None:
        self.path, self._files = path, files
        contents = read_journal(path)
        if contents.plain:  # `add_checksums` comes first
            raise RunError(f"{path} has no checksums, and cannot be appended to")
        self.found = contents.records
        self._ends = contents.ends
        with writing(path):
            files.make_folder(path.parent)
            self._file = path.open("ab", buffering=0)
            try:
                if contents.torn:
                    say(f"{path}: dropped the last record, of which {contents.torn} bytes had been written")
                    files.truncate(self._file, self._size)
                if not self._ends:
                    self._append(_HEADER)
                    files.sync_folder(path.parent)
            except BaseException:
                self._file.close()
                raise

    def __len__(self) -> int:
        """How many records it holds."""
        return len(self._ends) - 1

    def read(self, make: Callable[[Record], _T]) -> list[_T]:
        """What `make` makes of the records that were there when the journal was opened.

        Raises:
            RunError: when it cannot, because a record is not in this version's format.
        """
        made = []
        for number, record in enumerate(self.found):
            try:
                made.append(make(record))
            except (AttributeError, LookupError, TypeError, ValueError, NasEdgeError, DeviceError) as error:
                raise RunError(
                    f"record {number} of {self.path} is not in this version's format ({reason(error)})",
                    fix="continue the run with the version of nas_edge that wrote it",
                ) from None
        return made

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds a record.

        Raises:
            RunError: when it cannot be written; what is there of it is taken back.
        """
        with writing(self.path):
            self._append(record)

    def cut(self, count: int) -> None:
        """Keeps the first `count` records."""
        with writing(self.path):
            self._files.truncate(self._file, self._ends[count])
        del self._ends[count + 1 :]

    def sync(self) -> None:
        """Waits until all records are on the disk."""
        with writing(self.path):
            self._files.sync(self._file)

    def close(self) -> None:
        """Closes the file; may be called twice."""
        self._file.close()

    @property
    def _size(self) -> int:
        return self._ends[-1] if self._ends else 0

    def _append(self, record: Mapping[str, Any]) -> None:
        line = _line(record, len(self._ends))
        try:
            self._files.append(self._file, line)
        except OSError:
            with suppress(OSError):  # else it is dropped when the journal is opened again
                self._files.truncate(self._file, self._size)
            raise
        self._ends.append(self._size + len(line))


def _parsed(body: bytes, seq: int, path: Path, parse: Callable[[bytes], Record]) -> Record:
    try:
        return parse(body)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise RunError(f"line {seq + 1} of {path} is not in this version's format: {reason(error)}") from None


def _plain_record(body: bytes, seq: int, path: Path, parse: Callable[[bytes], Record]) -> Record:
    """A record of the first versions; the very first did not tell steps of proposal and reward apart."""
    record = _parsed(body, seq, path, parse)
    if not isinstance(record, dict) or "rewarded_step" in record:
        return record
    return {**record, "rewarded_step": record.get("step")}


def _check_header(record: Record, path: Path) -> None:
    if record != _HEADER:
        raise RunError(
            f"{path} is a journal of another version",
            expected=f"{_HEADER}",
            received=f"{record}",
            fix="use the version of nas_edge that wrote it",
        )


def _line(record: Mapping[str, Any], seq: int) -> bytes:
    body = json.dumps(record, separators=(",", ":"), allow_nan=False).encode()
    return b'{"seq":%d,"crc":"%08x","record":%s}\n' % (seq, _crc(seq, body), body)


def _crc(seq: int, body: bytes) -> int:
    return zlib.crc32(b"%d:%s" % (seq, body))


def _body(line: bytes, seq: int, path: Path) -> bytes:
    """The JSON of a line's record, which must be number `seq`."""
    match = _LINE.fullmatch(line)
    if match is None:
        problem = "is not a record of a journal"
    elif int(match[1]) != seq:
        problem = f"should be record {seq} and is record {int(match[1])}"
    elif _crc(seq, match[3]) != int(match[2], 16):
        problem = "was changed: its checksum does not fit"
    else:
        return match[3]
    raise RunError(
        f"line {seq + 1} of {path} {problem}. Nothing was changed",
        fix="restore the file from a copy, or, to give up the records from there on, remove this line and all that "
        "follow",
    )
