"""A file is there whole, or as it was before."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_agents.files import write_atomically


def test_a_file_is_replaced_and_its_folder_made(tmp_path: Path) -> None:
    file = tmp_path / "new" / "kept.json"
    for data in (b"first", b"second"):
        write_atomically(file, data)
        assert file.read_bytes() == data
    assert list(file.parent.iterdir()) == [file]


def test_a_write_that_fails_leaves_the_file_as_it_was_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "kept.json"
    write_atomically(file, b"first")

    def full(self: Path, target: Path) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(file, b"second")
    assert (list(tmp_path.iterdir()), file.read_bytes()) == ([file], b"first")
