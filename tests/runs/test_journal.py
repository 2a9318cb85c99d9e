"""The journal: whatever happens to the file, nothing is lost or changed without being said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_edge.errors import RunError
from nas_edge.runs.files import Files
from nas_edge.runs.journal import Journal, read_journal
from tests.support.faults import FaultyFiles, disk_full, permission_lost, read_only

RECORDS: list[dict[str, Any]] = [{"step": 0, "text": 'ä\n"}'}, {"step": 1, "x": 0.1 + 0.2}, {}, {"samples": [1.5] * 20}]


def refuse(text: str) -> None:
    pytest.fail(f"nothing should be said, received {text}")


def written(path: Path, records: list[dict[str, Any]] = RECORDS) -> bytes:
    journal = Journal(path, refuse)
    for record in records:
        journal.append(record)
    journal.close()
    return path.read_bytes()


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    written(tmp_path / "j")
    assert read_journal(tmp_path / "j").records == RECORDS
    journal = Journal(tmp_path / "j", refuse)
    assert journal.found == RECORDS
    journal.append({"step": 9})
    journal.close()
    assert read_journal(tmp_path / "j").records == [*RECORDS, {"step": 9}]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(), json_values, max_size=3), max_size=4))
def test_any_json_comes_back(records: list[dict[str, Any]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        written(Path(folder) / "j", records)
        assert read_journal(Path(folder) / "j").records == records


def test_cut_off_at_any_byte_it_loses_the_torn_record_only(tmp_path: Path) -> None:
    content = written(tmp_path / "whole")
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    path = tmp_path / "j"
    for size in range(len(content) + 1):
        path.write_bytes(content[:size])
        said: list[str] = []
        journal = Journal(path, said.append)
        whole = sum(end <= size for end in ends)
        assert journal.found == RECORDS[: max(0, whole - 1)]
        torn = size - max([0, *(end for end in ends if end <= size)])
        assert len(said) == (torn > 0)
        assert not said or (str(path) in said[0] and str(torn) in said[0])
        for record in RECORDS[len(journal) :]:
            journal.append(record)
        journal.close()
        assert path.read_bytes() == content


def test_any_changed_byte_is_noticed_and_its_line_named(tmp_path: Path) -> None:
    content = written(tmp_path / "whole")
    path = tmp_path / "j"
    for position in range(len(content)):
        changed = bytes([content[position] ^ 1])
        if b"\n" in (content[position : position + 1], changed):
            continue  # joins or splits lines, which is tested below
        path.write_bytes(content[:position] + changed + content[position + 1 :])
        line = content[:position].count(b"\n") + 1
        with pytest.raises(RunError, match=f"line {line} of|another version"):
            Journal(path, refuse)


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda lines: [*lines[:2], *lines[3:]], 3),  # one is missing
        (lambda lines: [*lines[:2], lines[1], *lines[2:]], 3),  # one is there twice
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], 2),  # two are swapped
        (lambda lines: [*lines[:3], b"\n", *lines[3:]], 4),  # an empty line
        (lambda lines: [*lines[:2], lines[2][:-1], *lines[3:]], 3),  # two lines joined
        (lambda lines: [*lines, b"more\n"], 6),
        (lambda lines: [*lines[:3], b"\0" * 40 + b"\n", *lines[4:]], 4),  # blocks that never reached the disk
    ],
)
def test_damage_is_refused_and_left_alone(tmp_path: Path, damage: Any, line: int) -> None:
    path = tmp_path / "j"
    content = b"".join(damage(written(path).splitlines(keepends=True)))
    path.write_bytes(content)
    with pytest.raises(RunError, match=f"line {line} of") as refusal:
        Journal(path, refuse)
    assert "trial" not in str(refusal.value), "a journal may hold anything"
    assert path.read_bytes() == content


def test_the_folders_entry_of_a_new_journal_is_on_the_disk(tmp_path: Path) -> None:
    class Watched(Files):
        synced: ClassVar[list[Path]] = []

        def sync_folder(self, path: Path) -> None:
            assert (path / "j").stat().st_size > 0
            self.synced.append(path)

    for _ in range(2):  # once it is there it needs no more of that
        Journal(tmp_path / "folder" / "j", refuse, Watched()).close()
    assert Watched.synced == [tmp_path / "folder"]


def test_a_journal_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j"
    written(path)
    path.write_bytes(b"")
    import zlib

    body = json.dumps({"format": "nas_edge journal", "schema_version": 2}).encode()
    path.write_bytes(b'{"seq":0,"crc":"%08x","record":%s}\n' % (zlib.crc32(b"0:" + body), body))
    with pytest.raises(RunError, match="another version"):
        Journal(path, refuse)


def test_readers_see_whole_records_while_it_is_written(tmp_path: Path) -> None:
    content = written(tmp_path / "j")
    (tmp_path / "j").write_bytes(content[:-3])
    contents = read_journal(tmp_path / "j")
    assert contents.records == RECORDS[:-1]
    assert contents.torn > 0
    assert (tmp_path / "j").read_bytes() == content[:-3]


def test_cut_then_append(tmp_path: Path) -> None:
    path = tmp_path / "j"
    written(path)
    journal = Journal(path, refuse)
    journal.cut(2)
    assert len(journal) == 2
    journal.append({"new": True})
    journal.close()
    assert read_journal(path).records == [*RECORDS[:2], {"new": True}]


@pytest.mark.parametrize("partly", [False, True])
@pytest.mark.parametrize("fault", [disk_full, read_only, permission_lost])
def test_when_it_cannot_be_written_what_is_there_stays_whole(
    tmp_path: Path, fault: Callable[[], OSError], partly: bool
) -> None:
    path = tmp_path / "j"
    content = written(path)
    journal = Journal(path, refuse, FaultyFiles(1, fault, partly))
    with pytest.raises(RunError, match=str(fault().strerror)):
        journal.append({"step": 2})
    journal.close()
    said: list[str] = []
    journal = Journal(path, said.append)  # room again
    journal.append({"step": 2})
    journal.close()
    assert len(said) == partly  # here even taking it back failed
    assert path.read_bytes()[: len(content)] == content
    assert read_journal(path).records == [*RECORDS, {"step": 2}]


def test_what_json_cannot_hold_is_refused_not_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", refuse)
    with pytest.raises(ValueError, match="JSON"):
        journal.append({"reward": float("nan")})
    journal.append({"reward": 1.0})
    journal.close()
    assert read_journal(tmp_path / "j").records == [{"reward": 1.0}]
