from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from nas_edge.data.preprocessing import Preprocessing
from nas_edge.errors import DataError, ExportError, RunError
from nas_edge.export import bundle as bundles
from nas_edge.export.bundle import Bundle, DeliveredModel, replay_golden, verify_bundle, write_bundle
from nas_edge.quiet import held_stderr
from nas_edge.tasks.classification import ACCURACY, labels_section, read_labels
from tests.support.exported import LABELS, Exported

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
LATENCY = {"median_ms": 1.25, "p90_ms": np.float32(1.5), "device": "host:", "threads": 1, "runs": (1.0, 1.5)}


def write(exported: Exported, folder: Path, **changes: Any) -> Bundle:
    models = {
        "float32": DeliveredModel(exported.float32, quality=0.98),
        "int8": changes.pop("int8", DeliveredModel(exported.int8, quality=np.float64(0.975), latency=LATENCY)),
    }
    models = {precision: model for precision, model in models.items() if model is not None}
    arguments: dict[str, Any] = {
        "models": models,
        "precision": "int8" if "int8" in models else "float32",
        "section": labels_section(LABELS),
        "metric": ACCURACY,
        "preprocessing": Preprocessing(12, 1, (127.5,), (60.0,)),
        "golden_image": np.random.default_rng(3).integers(0, 256, (12, 12, 1)).astype(np.uint8),
        "space": "tiny",
        "architecture": "0:1",
        "decisions": {"block1.kernel": "k3", "block1.ratio": 6},
        "details": {"seed": 7},
        "created": CREATED,
    }
    return write_bundle(folder, **(arguments | changes))


def test_bundle_holds_all_that_an_app_team_needs(exported: Exported, tmp_path: Path) -> None:
    bundle = write(exported, tmp_path / "run" / "bundle")
    assert {path.name for path in bundle.folder.iterdir()} == {
        "model_int8.tflite", "model_float32.tflite", "labels.txt", "golden.npz", "README.md", "manifest.json",
    }  # fmt: skip
    assert read_labels(bundle.files) == LABELS
    assert bundle.models == {"float32": exported.float32, "int8": exported.int8}
    text = (bundle.folder / "manifest.json").read_text()
    assert not [line for line in text.splitlines() if line.strip(" ,").replace(".", "", 1).isdigit()]
    manifest = json.loads(text)
    assert manifest["schema_version"] == 1
    assert manifest["architecture"] == "0:1"
    assert manifest["decisions"] == {"block1.kernel": "k3", "block1.ratio": 6}
    assert manifest["created"] == "2026-01-02T03:04:05+00:00"
    int8 = manifest["models"]["int8"]
    assert int8["accuracy"] == 0.975
    assert int8["accuracy_interval"] is None
    assert int8["latency"] == {"median_ms": 1.25, "p90_ms": 1.5, "device": "host:", "threads": 1, "runs": [1.0, 1.5]}
    assert int8["operators"]["HARD_SWISH int8"] == 2
    assert int8["input"]["dtype"] == "int8"
    assert manifest["models"]["float32"]["input"]["scale"] is None
    assert set(manifest["files"]) == {path.name for path in bundle.folder.iterdir()} - {"manifest.json"}
    assert manifest["versions"]["ai-edge-litert"]
    assert not list(tmp_path.glob("run/.*"))


def test_what_other_tools_made_of_a_model_is_in_the_bundle(exported: Exported, tmp_path: Path) -> None:
    bundle = write(exported, tmp_path / "bundle", more_files={"model_int8_edgetpu.tflite": b"compiled"})
    assert bundle.files["model_int8_edgetpu.tflite"] == b"compiled"
    assert set(bundle.models) == {"int8", "float32"}
    with pytest.raises(ExportError, match="invalid name"):
        write(exported, tmp_path / "another", more_files={"manifest.json": b""})


def test_samples_are_beside_the_manifest_and_hashed(exported: Exported, tmp_path: Path) -> None:
    samples = [1.25 + i / 1e6 for i in range(1700)]
    latency = {**LATENCY, "samples_ms": samples, "verdict": "ok"}
    bundle = write(exported, tmp_path / "bundle", int8=DeliveredModel(exported.int8, latency=latency))
    text = (bundle.folder / "manifest.json").read_text()
    assert len(text) < 10_000
    told = bundle.manifest["models"]["int8"]["latency"]
    assert "samples_ms" not in told
    assert told["samples"] == {"file": "measurements.json", "count": 1700}
    assert told["median_ms"] == 1.25
    path = bundle.folder / "measurements.json"
    assert json.loads(path.read_text()) == {"schema_version": 1, "samples_ms": {"int8": samples}}
    assert len(path.read_text().splitlines()) < 10
    path.write_text(path.read_text().replace("1.25,", "1.24,", 1))
    with pytest.raises(ExportError, match=r"measurements\.json was changed"):
        verify_bundle(bundle.folder)


@pytest.mark.parametrize(("median_ms", "shown"), [(0.0001, "0.0001000"), (1234.5, "1234"), (0.5, "0.5000")])
def test_the_readme_shows_latencies_of_any_size(
    exported: Exported, tmp_path: Path, median_ms: float, shown: str
) -> None:
    model = DeliveredModel(exported.int8, quality=0.5, latency={"median_ms": median_ms})
    bundle = write(exported, tmp_path / "bundle", int8=model)
    assert f"50.00% | {shown} |" in (bundle.folder / "README.md").read_text()


def test_an_accuracy_is_shown_with_its_interval(exported: Exported, tmp_path: Path) -> None:
    model = DeliveredModel(exported.int8, quality=0.975, quality_interval=(0.9533, 0.9868))
    bundle = write(exported, tmp_path / "bundle", int8=model, details={"test_images": 360})
    assert bundle.manifest["models"]["int8"]["accuracy_interval"] == [0.9533, 0.9868]
    readme = (bundle.folder / "README.md").read_text()
    assert "| 97.50% [95.33, 98.68] of 360 images |" in readme
    assert "In brackets: 95% intervals." in readme
    assert "95% intervals" not in (write(exported, tmp_path / "other").folder / "README.md").read_text()


def test_equal_arguments_give_equal_bytes(exported: Exported, tmp_path: Path) -> None:
    first, second = (write(exported, tmp_path / name).folder for name in ("a", "b"))
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes(), path.name


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_golden_pair_replays_in_the_runtime(exported: Exported, tmp_path: Path, precision: str) -> None:
    folder = write(exported, tmp_path / "bundle").folder
    golden = np.load(folder / "golden.npz")
    with held_stderr():
        interpreter = Interpreter(str(folder / f"model_{precision}.tflite"))
        interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], golden[f"input_{precision}"])
    interpreter.invoke()
    output = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(output, golden[f"output_{precision}"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(golden["input"][0], (golden["image"] - np.float32(127.5)) / 60, rtol=1e-6)


def test_replay_finds_a_model_that_answers_otherwise(exported: Exported, tmp_path: Path) -> None:
    bundle = write(exported, tmp_path / "bundle")
    assert set(replay_golden(bundle)) == {"float32", "int8"}
    golden = dict(np.load(bundle.folder / "golden.npz"))
    golden["output_int8"] = np.roll(golden["output_int8"], 1, axis=1)
    np.savez(bundle.folder / "golden.npz", **golden)
    with pytest.raises(ExportError, match="differ from the recorded"):
        replay_golden(bundle)


@pytest.mark.parametrize("with_int8", [True, False])
def test_snippet_of_the_readme_runs_as_is(exported: Exported, tmp_path: Path, with_int8: bool) -> None:
    folder = write(exported, tmp_path / "bundle", **({} if with_int8 else {"int8": None})).folder
    snippet = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert snippet
    run = subprocess.run([sys.executable, "-c", snippet[1]], cwd=folder, capture_output=True, text=True, check=True)
    answer = re.fullmatch(r"predicted: (.+)\ndifference from golden: ([\d.e-]+)\n", run.stdout)
    assert answer
    assert answer[1] in LABELS
    assert float(answer[2]) < 1e-4


def test_readme_states_the_rules_in_numbers(exported: Exported, tmp_path: Path) -> None:
    bundle = write(exported, tmp_path / "bundle")
    readme = (bundle.folder / "README.md").read_text()
    assert "Crop to the centre square, resize to 12 x 12 (bilinear, antialiased), 1 channel: grey" in readme
    assert "mean [127.5], std [60.0]" in readme
    assert repr(bundle.manifest["models"]["int8"]["input"]["scale"]) in readme
    assert "97.50% | 1.250 |" in readme


@pytest.mark.parametrize("name", ["float32", "mixed"])
def test_float_or_mixed_file_is_refused_the_int8_label(exported: Exported, tmp_path: Path, name: str) -> None:
    with pytest.raises(ExportError, match="not an int8 file"):
        write(exported, tmp_path / "bundle", int8=DeliveredModel(getattr(exported, name)))
    assert not list(tmp_path.iterdir())


def test_existing_bundle_is_never_overwritten(exported: Exported, tmp_path: Path) -> None:
    folder = write(exported, tmp_path / "bundle").folder
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(RunError, match="already exists"):
        write(exported, folder, architecture="1:1")
    assert (folder / "manifest.json").read_bytes() == before


def test_failure_half_way_leaves_nothing(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundles.np, "savez", full_disk)
    with pytest.raises(RunError, match="No space left"):
        write(exported, tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder_is_a_run_error(exported: Exported, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(RunError, match="cannot write"):
        write(exported, tmp_path / "bundle")


def test_parent_that_is_a_file_is_a_run_error(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot write"):
        write(exported, tmp_path / "file" / "bundle")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_manifest_holds_json_values_only(exported: Exported, tmp_path: Path, value: object) -> None:
    with pytest.raises(ExportError, match=r"manifest\.json\.details\.loss\[1\]"):
        write(exported, tmp_path / "bundle", details={"loss": [1.0, value]})
    assert not list(tmp_path.iterdir())


def test_outputs_must_be_those_of_the_task(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"does not fit its task; expected \[1, 2\], received \[1, 3\]"):
        write(exported, tmp_path / "bundle", section=labels_section(("one", "two")))


@pytest.mark.parametrize("labels", [("a", "b", "c\nd"), ("a", "", "c")])
def test_labels_must_fit_on_their_lines(labels: tuple[str, ...]) -> None:
    with pytest.raises(ExportError, match="expected one non-empty line of text"):
        labels_section(labels)


@pytest.mark.parametrize("name", ["../labels.txt", "manifest.json", "model_int8.tflite", "golden.npz", "a/b", ".x", ""])
def test_a_tasks_files_have_names_of_their_own(exported: Exported, tmp_path: Path, name: str) -> None:
    section = replace(labels_section(LABELS), files={name: b""})
    with pytest.raises(ExportError, match="expected a plain, unused file name"):
        write(exported, tmp_path / "bundle", section=section)
    assert not list(tmp_path.iterdir())


def test_golden_image_must_fit(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="golden image"):
        write(exported, tmp_path / "bundle", golden_image=np.zeros((12, 12, 1), np.float32))
    with pytest.raises(DataError, match="received"):
        write(exported, tmp_path / "bundle", golden_image=np.zeros((8, 8, 1), np.uint8))


def test_changed_missing_and_foreign_files_are_found(exported: Exported, tmp_path: Path) -> None:
    folder = write(exported, tmp_path / "bundle").folder
    labels = (folder / "labels.txt").read_bytes()
    (folder / "labels.txt").write_bytes(labels.replace(b"cat", b"dog"))
    with pytest.raises(ExportError, match=r"labels\.txt was changed"):
        verify_bundle(folder)
    (folder / "labels.txt").unlink()
    with pytest.raises(ExportError, match=r"labels\.txt, which is part of the bundle, cannot be read"):
        verify_bundle(folder)
    (folder / "manifest.json").write_text('{"schema_version": 99}')
    with pytest.raises(ExportError, match="schema 1, received 99"):
        verify_bundle(folder)
    for files in ("[]", "{}", '{"README.md": "", "../secret": ""}'):
        (folder / "manifest.json").write_text(f'{{"schema_version": 1, "files": {files}}}')
        with pytest.raises(ExportError, match="damaged; expected the hashes"):
            verify_bundle(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(ExportError, match="damaged"):
        verify_bundle(folder)
    with pytest.raises(RunError, match="not a bundle"):
        verify_bundle(tmp_path)
