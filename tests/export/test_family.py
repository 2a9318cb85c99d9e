"""Several bundles in one folder with one index."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nas_edge.cli import nas_edge
from nas_edge.errors import ExportError
from nas_edge.export.family import finish_family, is_family, member_names, verify_family
from nas_edge.report import to_page
from nas_edge.report.family_page import family_report
from tests.export.test_bundle import write
from tests.support.exported import Exported

MEMBER = {
    "model": "small/model_int8.tflite",
    "target_ms": 4.0,
    "latency_ms": 3.5,
    "outcome": "met",
    "device": "host:",
    "quality": 0.975,
    "quality_interval": [0.95, 0.99],
    "architecture": "0:1",
}


@pytest.fixture
def family(exported: Exported, tmp_path: Path) -> Path:
    folder, names = tmp_path / "family", ("small", "large")
    for name in names:
        write(exported, folder / name)
    index: dict[str, Any] = {"metric": "accuracy", "members": [{**MEMBER, "name": name} for name in names]}
    finish_family(folder, index, to_page(family_report("family", index)))
    return folder


def command(*arguments: str) -> Any:
    return CliRunner().invoke(nas_edge, ["bundle", *arguments])


def test_networks_are_called_by_their_size_or_their_target() -> None:
    assert member_names([4, 8]) == ["small", "large"]
    assert member_names([4, 8, 16]) == ["small", "medium", "large"]
    assert member_names([0.5, 4, 8, 16]) == ["0.5ms", "4ms", "8ms", "16ms"]


def test_a_family_is_verified_and_shown(family: Path, tmp_path: Path) -> None:
    assert is_family(family)
    assert not is_family(family / "small")
    assert list(verify_family(family).bundles) == ["small", "large"]
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=family, check=True)
    done = command("verify", str(family))
    assert done.exit_code == 0, done.output
    assert [line.partition(": ")[0] for line in done.output.splitlines()] == [
        str(family / name) for name in ("small", "large")
    ]
    page = tmp_path / "page.html"
    assert command("show", str(family), "--out", str(page)).exit_code == 0
    assert page.read_text() == (family / "index.html").read_text()


@pytest.mark.parametrize(
    "name",
    ["family.json", "index.html", "SHA256SUMS", "small/SHA256SUMS", "large/model_int8.tflite", "large/verify.py"],
)
def test_a_changed_file_is_named(family: Path, name: str) -> None:
    content = bytearray((family / name).read_bytes())
    content[-2] ^= 1
    (family / name).write_bytes(content)
    with pytest.raises(ExportError, match=Path(name).name.replace(".", r"\.")):
        verify_family(family)


@pytest.mark.parametrize("members", [[], [{"name": ".."}], [{"name": "a/b"}], [{}], 3])
def test_an_index_of_another_form_is_one_clear_error(family: Path, members: Any) -> None:
    (family / "family.json").write_text(json.dumps({"schema_version": 1, "members": members}))
    with pytest.raises(ExportError, match=r"family\.json is damaged"):
        verify_family(family)


def test_the_page_has_what_there_is_to_choose_from_and_leaves_out_what_is_odd() -> None:
    index = {"metric": "accuracy", "members": [{**MEMBER, "name": "small"}], "targets_without_network_ms": [1.0]}
    shown = family_report("family", index)
    (row,) = shown.tables[0].rows()
    assert row[:6] == ("small", "small/model_int8.tflite", 4.0, 3.5, None, "met")
    assert row[7:10] == (0.975, 0.95, 0.99)
    assert "No network was delivered for 1.000 ms." in shown.sections[0].says
    odd = family_report("family", {"members": [{"name": 3, "quality": "high", "quality_interval": 4}, "x"]})
    assert list(odd.tables[0].rows()) == [(None,) * 12]
