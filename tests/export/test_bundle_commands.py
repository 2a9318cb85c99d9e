"""`nas-edge bundle verify` and `show`, on real files and the real host device."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from device_agents.errors import DeviceError
from nas_edge.cli import nas_edge
from nas_edge.errors import ExportError
from nas_edge.export.bundle import BundleFolderError
from nas_edge.report.bundle_page import bundle_report
from tests.export.test_bundle import write
from tests.support.exported import Exported


def command(*arguments: str) -> Result:
    return CliRunner().invoke(nas_edge, ["bundle", *arguments])


def test_a_bundle_is_verified_on_a_device(exported: Exported, tmp_path: Path) -> None:
    folder = write(exported, tmp_path / "bundle").folder
    done = command("verify", str(folder))
    assert done.exit_code == 0, done.output
    assert "all files are unchanged" in done.output
    assert "float32 to within" in done.output
    assert "int8 to within" in done.output


def test_a_folder_that_is_no_bundle_is_misuse(tmp_path: Path) -> None:
    error = command("verify", str(tmp_path)).exception
    assert isinstance(error, BundleFolderError)
    assert (error.exit_code, "is not a bundle" in str(error)) == (2, True)


def sealed(folder: Path, name: str, content: bytes) -> None:
    """Changes a file and all hashes with it, as somebody would who wants it to pass."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    if name != "manifest.json":
        manifest["files"][name] = hashlib.sha256(content).hexdigest()
        (folder / "manifest.json").write_text(json.dumps(manifest))
    names = sorted([*manifest["files"], "manifest.json"])
    lines = [f"{hashlib.sha256((folder / each).read_bytes()).hexdigest()}  {each}\n" for each in names]
    (folder / "SHA256SUMS").write_text("".join(lines))


def test_other_answers_and_a_model_that_cannot_run_are_found(exported: Exported, tmp_path: Path) -> None:
    folder = write(exported, tmp_path / "first").folder
    sealed(folder, "model_float32.tflite", exported.mixed)
    done = command("verify", str(folder))
    assert isinstance(done.exception, ExportError)
    assert "outputs for the golden examples differ" in str(done.exception)
    folder = write(exported, tmp_path / "second").folder
    sealed(folder, "model_int8.tflite", b"TFL3" * 100)
    assert isinstance(command("verify", str(folder)).exception, DeviceError)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("models", []),
        ("models", {"int8": {}}),
        ("golden", []),
        ("golden", 3),
        ("tolerance", "wide"),
        ("input", {"shape": "x"}),
        ("input", {"name": "x", "shape": [1], "dtype": "object", "scale": None, "zero_point": None}),
    ],
)
def test_a_manifest_of_another_form_is_one_clear_error(
    exported: Exported, tmp_path: Path, key: str, value: object
) -> None:
    folder = write(exported, tmp_path / "bundle").folder
    manifest = json.loads((folder / "manifest.json").read_text())
    (manifest if key in manifest else manifest["models"]["int8"])[key] = value
    sealed(folder, "manifest.json", json.dumps(manifest).encode())
    done = command("verify", str(folder))
    assert isinstance(done.exception, ExportError)
    assert "manifest.json is damaged" in str(done.exception)


def test_recorded_arrays_must_fit_the_model(exported: Exported, tmp_path: Path) -> None:
    folder = write(exported, tmp_path / "bundle").folder
    np.save(tmp_path / "input.npy", np.zeros((1, 3), np.float32))
    sealed(folder, "golden/0_input.npy", (tmp_path / "input.npy").read_bytes())
    assert "0_input.npy does not fit the model" in str(command("verify", str(folder)).exception)
    archive = io.BytesIO()
    np.savez(archive, np.zeros(3))
    for content in (b"no array", archive.getvalue()):
        sealed(folder, "golden/0_input.npy", content)
        assert "0_input.npy is damaged" in str(command("verify", str(folder)).exception)


def test_a_page_shows_what_is_known(exported: Exported, tmp_path: Path) -> None:
    bundle = write(exported, tmp_path / "bundle")
    page = tmp_path / "page.html"
    done = command("show", str(bundle.folder), "--out", str(page))
    assert done.exit_code == 0, done.output
    assert page.read_text().startswith("<!doctype html>")
    shown = bundle_report("bundle", bundle.manifest)
    assert [tile.value for tile in shown.tiles] == ["model_int8.tflite"]
    quality = next(table for table in shown.tables if table.name == "quality")
    assert ("int8", "accuracy", 0.975) in list(quality.rows())
    assert command("show", str(bundle.folder), "--out", str(page)).exit_code == 2


def test_a_page_leaves_out_what_is_odd() -> None:
    assert bundle_report("bundle", {"models": {"int8": None, "x": {"latency": 3}}, "details": []}).title == "bundle"
