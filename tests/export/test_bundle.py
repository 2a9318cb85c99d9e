from __future__ import annotations

import hashlib
import importlib.util
import io
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
from PIL import Image

from nas_edge.data.dataset import EncodedImage
from nas_edge.data.preprocessing import ImagePreprocessing
from nas_edge.errors import DataError, ExportError, RunError
from nas_edge.export.bundle import Bundle, DeliveredModel, replay_golden, verify_bundle, write_bundle
from nas_edge.export.golden import run_here
from nas_edge.export.verify import run_tflite
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
        "preprocessing": ImagePreprocessing(12, 1, (127.5,), (60.0,)),
        "golden_examples": np.random.default_rng(3).integers(0, 256, (2, 20, 17, 1)).astype(np.uint8),
        "space": "tiny",
        "architecture": "0:1",
        "decisions": {"block1.kernel": "k3", "block1.ratio": 6},
        "details": {"seed": 7},
        "created": CREATED,
    }
    return write_bundle(folder, **(arguments | changes))


def names_in(folder: Path) -> set[str]:
    """Of all files, with slashes."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_bundle_holds_all_that_an_app_team_needs(exported: Exported, tmp_path: Path) -> None:
    bundle = write(exported, tmp_path / "run" / "bundle")
    assert {path.name for path in bundle.folder.iterdir()} == {
        "model_int8.tflite", "model_float32.tflite", "labels.txt", "golden", "README.md", "manifest.json",
        "MODEL_CARD.md", "example_python.py", "preprocessing.py", "example_android", "verify.py", "SHA256SUMS",
    }  # fmt: skip
    assert read_labels(bundle.files) == LABELS
    assert bundle.models == {"float32": exported.float32, "int8": exported.int8}
    text = (bundle.folder / "manifest.json").read_text()
    assert not [line for line in text.splitlines() if line.strip(" ,").replace(".", "", 1).isdigit()]
    manifest = json.loads(text)
    assert manifest["schema_version"] == 2
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
    assert set(manifest["files"]) == names_in(bundle.folder) - {"manifest.json", "SHA256SUMS"}
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
    assert json.loads(path.read_text()) == {"schema_version": 2, "samples_ms": {"int8": samples}}
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
    for name in names_in(first):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_golden_pair_replays_in_the_runtime(exported: Exported, tmp_path: Path, precision: str) -> None:
    folder = write(exported, tmp_path / "bundle").folder
    with held_stderr():
        interpreter = Interpreter(str(folder / f"model_{precision}.tflite"))
        interpreter.allocate_tensors()
    source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    for number in range(2):
        values = np.load(folder / f"golden/{number}_input.npy")
        if precision == "int8":
            scale, zero_point = source["quantization"]
            values = np.clip(np.rint(values / scale) + zero_point, -128, 127).astype(np.int8)
        interpreter.set_tensor(source["index"], values)
        interpreter.invoke()
        recorded = np.load(folder / f"golden/{number}_{precision}_xnnpack.npy")
        np.testing.assert_allclose(interpreter.get_tensor(result["index"]), recorded, rtol=1e-5, atol=1e-5)


def test_replay_finds_a_model_that_answers_otherwise(exported: Exported, tmp_path: Path) -> None:
    bundle = write(exported, tmp_path / "bundle")
    assert set(replay_golden(bundle)) == {"float32", "int8"}
    float_model = bundle.models["float32"]
    assert replay_golden(bundle, run_here) == replay_golden(bundle)
    with pytest.raises(ExportError, match=r"model_float32\.tflite: outputs for the golden examples differ .* at most"):
        replay_golden(
            bundle, lambda model, inputs: [run_here(model, inputs)[0] + (model == float_model) * np.float32(1)]
        )


def run_program(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a program of a bundle from elsewhere."""
    command = [sys.executable, str(folder / arguments[0]), *arguments[1:]]
    return subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("with_int8", [True, False])
def test_the_python_example_answers_as_the_network_does(exported: Exported, tmp_path: Path, with_int8: bool) -> None:
    bundle = write(exported, tmp_path / "bundle", **({} if with_int8 else {"int8": None}))
    outputs = run_tflite(
        exported.int8 if with_int8 else exported.float32, np.load(bundle.folder / "golden/1_input.npy")
    )
    run = run_program(bundle.folder, "example_python.py", str(bundle.folder / "golden/1.png"))
    assert run.stdout == f"predicted: {LABELS[int(outputs.argmax())]}\n", run.stderr


def test_a_bundle_verifies_itself(exported: Exported, tmp_path: Path) -> None:
    folder = write(exported, tmp_path / "bundle").folder
    names = names_in(folder)
    run = run_program(folder, "verify.py")
    assert names_in(folder) == names
    assert (run.returncode, run.stdout.splitlines()[-1]) == (
        0, f"pass: {len(names_in(folder)) - 1} files are unchanged, and the models answer as recorded",
    )  # fmt: skip
    sums = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=False)
    assert sums.returncode == 0


def test_one_changed_byte_of_any_file_is_found(exported: Exported, tmp_path: Path) -> None:
    folder = write(exported, tmp_path / "bundle").folder
    names = sorted(names_in(folder))
    verify = load_program(folder / "verify.py")
    assert verify.changed_files()[0] == []
    for name in names:
        content = (folder / name).read_bytes()
        middle = len(content) // 2
        (folder / name).write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        with pytest.raises(ExportError, match=re.escape(name)):
            verify_bundle(folder)
        wrong, _ = verify.changed_files()
        assert wrong, name
        assert any(name in line for line in wrong), (name, wrong)
        (folder / name).write_bytes(content)
    verify_bundle(folder)


def load_program(file: Path) -> Any:
    """A program of a bundle as a module."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_another_answer_or_another_preprocessing_fails(exported: Exported, tmp_path: Path) -> None:
    folder = write(exported, tmp_path / "bundle").folder
    for name, change, expected in (
        ("golden/0_float32_xnnpack.npy", 1.0, "FAIL model_float32.tflite: outputs differ by"),
        ("golden/1_input.npy", 0.1, "FAIL golden/1.png: preprocessed, it differs by"),
    ):
        path = folder / name
        before = path.read_bytes()
        np.save(path, np.load(path) + np.float32(change))
        if name.startswith("golden/0"):
            np.save(folder / "golden/0_float32_builtin.npy", np.load(path))
        lines = [
            f"{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}" for n in names_in(folder) - {"SHA256SUMS"}
        ]
        (folder / "SHA256SUMS").write_text("\n".join(lines) + "\n")
        run = run_program(folder, "verify.py")
        assert run.returncode == 1
        assert expected in run.stdout, run.stdout + run.stderr
        path.write_bytes(before)


def test_readme_states_the_rules_in_numbers(exported: Exported, tmp_path: Path) -> None:
    bundle = write(exported, tmp_path / "bundle")
    readme = (bundle.folder / "README.md").read_text()
    assert "Crop to the centre square, resize to 12 x 12 (bilinear, antialiased), 1 channel: grey" in readme
    assert "mean [127.5], std [60.0]" in readme
    assert repr(bundle.manifest["models"]["int8"]["input"]["scale"]) in readme
    assert "97.50% | 1.250 |" in readme


def test_a_tasks_entries_do_not_replace_the_manifests(exported: Exported, tmp_path: Path) -> None:
    section = replace(labels_section(LABELS), manifest={"models": {}, "golden": [], "pixels": 3})
    manifest = write(exported, tmp_path / "bundle", section=section).manifest
    assert set(manifest["models"]) == {"float32", "int8"}
    assert len(manifest["golden"]) == 2
    assert manifest["pixels"] == 3


def test_the_model_card_says_what_is_known_and_what_is_not(exported: Exported, tmp_path: Path) -> None:
    classes = {
        name: {"accuracy": None if i == 2 else 0.9 - i / 10, "images": 7 * (i < 2)} for i, name in enumerate(LABELS)
    }
    model = DeliveredModel(
        exported.int8, 0.85, {**LATENCY, "verdict": "ok"}, quality_interval=(0.8, 0.9), breakdown={"classes": classes}
    )
    details = {
        "data": "photos/",
        "training_images": 80,
        "test_images": 14,
        "test_set": "abc",
        "device": "Pixel",
        "license": "MIT",
        "quantization": {"method": "aware"},
        "further_devices": [{"device": "Pi", "latency": {"int8": {"latency_ms": 9.5}}}],
    }
    card = (write(exported, tmp_path / "bundle", int8=model, details=details).folder / "MODEL_CARD.md").read_text()
    for line in (
        "- Licence: MIT.",
        "- 80 images to train with, 14 to test with.",
        "- The test images' fingerprint is `abc`.",
        "- Quantisation: aware; `details.representative` in the manifest says on what.",
        "- `model_int8.tflite`: 85.00% [80.00, 90.00] of 14 images, with its 95% interval",
        "| dog | 80.00% | 7 |\n| cat | 90.00% | 7 |\n\nWithout test images: 1 classes.",
        "| Pixel | int8 | 1.250 | ok |\n| Pi | int8 | 9.500 |  |",
    ):
        assert line in card, (line, card)
    bare = (write(exported, tmp_path / "bare").folder / "MODEL_CARD.md").read_text()
    assert "Licence: not stated" in bare
    assert "the lowest first" not in bare


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

    monkeypatch.setattr(Path, "write_bytes", full_disk)
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


@pytest.mark.parametrize(
    "name",
    ["../labels.txt", "manifest.json", "model_int8.tflite", "golden", "SHA256SUMS", "MODEL_CARD.md", "a/b", ".x", ""],
)
def test_a_tasks_files_have_names_of_their_own(exported: Exported, tmp_path: Path, name: str) -> None:
    section = replace(labels_section(LABELS), files={name: b""})
    with pytest.raises(ExportError, match="expected a plain, unused file name"):
        write(exported, tmp_path / "bundle", section=section)
    assert not list(tmp_path.iterdir())


def test_golden_images_must_fit(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="golden image has the wrong shape"):
        write(exported, tmp_path / "bundle", golden_examples=np.zeros((1, 12, 12, 1), np.float32))
    with pytest.raises(DataError, match="no golden examples"):
        write(exported, tmp_path / "bundle", golden_examples=[])


def test_large_photographs_become_smaller_ones(exported: Exported, tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3)).astype(np.uint8)).save(stream, "JPEG")
    bundle = write(exported, tmp_path / "bundle", golden_examples=[EncodedImage(stream.getvalue(), "photo")])
    with Image.open(bundle.folder / "golden/0.png") as image:
        assert (image.size, image.mode) == ((64, 48), "L")
    assert run_program(bundle.folder, "verify.py").returncode == 0


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
    with pytest.raises(ExportError, match="schema 2, received 99"):
        verify_bundle(folder)
    for files in ("[]", "{}", '{"README.md": "", "../secret": ""}', '{"README.md": "", "/etc/passwd": ""}'):
        content = f'{{"schema_version": 2, "files": {files}}}'
        (folder / "manifest.json").write_text(content)
        (folder / "SHA256SUMS").write_text(f"{hashlib.sha256(content.encode()).hexdigest()}  manifest.json\n")
        with pytest.raises(ExportError, match="damaged; expected the hashes"):
            verify_bundle(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(ExportError, match="damaged"):
        verify_bundle(folder)
    with pytest.raises(RunError, match="not a bundle"):
        verify_bundle(tmp_path)
